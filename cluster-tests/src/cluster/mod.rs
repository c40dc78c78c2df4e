//! Real nodes: processes on this machine ([`Cluster`]), containers ([`Compose`]), and hosts with engines ([`Engines`]).
//!
//! **Invariants:** what was started is ended, however a test ends, and nothing else is. Nothing waits for a time to pass,
//! only for something to be seen, with a deadline that only a failure reaches. No port is fixed: a cluster's nodes have
//! loopback addresses of their own, or hosts ([`Underlay`]).

mod command;
mod compose;
mod eavesdrop;
mod engines;
mod image;
mod namespace;
mod node;
mod plugin;
mod processes;
mod refusing;
mod underlay;
mod until;

pub use command::{Ran, run};
pub use compose::{Compose, Docker, Service, TableWatch};
pub use eavesdrop::Eavesdrop;
pub use engines::{EngineHost, Engines};
pub use image::IMAGE;
pub use node::Node;
pub use plugin::{Plugin, python};
pub use processes::{Cluster, Profile};
pub use refusing::Refusing;
pub use underlay::{Namespace, Underlay, inside};
pub use until::{DEADLINE, Seen, until, until_within};
