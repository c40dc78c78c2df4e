//! The control API: HTTP and JSON on a unix socket, for root and group `weft`.
//!
//! **Invariant:** nothing here is without a bound: connections, the length of a body, watchers, and how long a reader
//! may leave an answer unread.

pub mod authority;
mod blob;
pub mod cluster;
mod counters;
pub mod dataplane;
mod door;
mod drivers;
mod error;
pub(super) mod extract;
pub mod ipam;
pub mod members;
mod metrics;
pub mod pools;
mod progress;
mod refusal;
mod routes;
pub mod sse;
mod stream;
pub mod transitions;
pub mod trust;
pub mod types;
mod views;

pub use blob::NotBase64;
pub(super) use door::serve_as_is;
pub use door::{Door, DoorError, Purpose, serve};
pub use error::Exit;
pub use routes::routes;
