//! DECIDES: pure state machines. No socket, clock, entropy, file, task, lock or `async`.
//!
//! Bytes, `now` and a seed come in as arguments; datagrams, stream messages, events and one deadline come out of polls.
//! After any `handle_*`, drain the polls.

pub mod agreement;
pub mod allocator;
pub mod ipam;
pub mod membership;
pub mod model;
pub mod netdb;
pub mod node;
pub mod overlay;
pub mod watch;
pub mod wire;
