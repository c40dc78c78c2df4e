//! ACTS on the network: the loop, UDP, TCP and TLS, clock, seed, shutdown, `Handle`.
//!
//! One task owns the [`Node`](crate::core::node::Node) and its UDP socket; everybody else asks it through a [`Handle`].
//! Streams are requests and answers over TCP and TLS, on the same port number.

pub mod clock;
mod event_loop;
mod handle;
pub mod join;
mod members;
mod sockets;
pub mod streams;
pub mod trust;
mod watcher;

pub use handle::{Handle, NodeStatus, PutError, Stopped, SyncStates};
pub use members::{MemberView, MembershipView, TransitionView};
pub use sockets::{BindError, Sockets};
pub use watcher::{WatchEvent, Watcher};

use tokio::{net::UdpSocket, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{event_loop::EventLoop, streams::Dialer};
use crate::core::node;

/// Starts the node's loop on a task of `tasks`; it runs until `stop`.
pub fn start(
    config: node::Config,
    socket: UdpSocket,
    dialer: Dialer,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> (Handle, JoinHandle<()>) {
    let (event_loop, handle) = EventLoop::new(config, socket, dialer);
    (handle, tasks.spawn(event_loop.run(stop)))
}
