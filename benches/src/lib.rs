//! Speed and size, measured: what the benches and the programs share.
//!
//! - `benches/*.rs`: criterion, one file a room: `wire`, `netdb`, `watch`, `allocator`, `reconcile`.
//! - `src/bin/memory.rs`: how much memory an entry takes beyond its key and value.
//! - `src/bin/counts.rs`: instructions and allocations of each piece of `work`, against the report in `counts.md`.
//! - `src/bin/latency.rs`: real processes: from a put on one node to the watch event on another; what an idle node uses.
//!
//! `README.md` says how to run each, and what came out where.

pub mod cluster;
pub mod corpus;
pub mod process;
pub mod processor;
pub mod work;
