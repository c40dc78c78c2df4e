//! The simulator: whole nodes, sealed bytes and all, in virtual time, by seed.
//!
//! One thread, one queue of events, one generator of chance: the same seed gives the same trace, to the byte.
//! Who wants to check or to measure a run looks on as an [`Observer`].

pub mod arrivals;
pub mod delays;
mod faults;
pub mod link;
pub mod load;
pub mod machine;
pub mod observer;
pub mod settle;
pub mod tally;
pub mod trace;
pub mod world;
mod writes;

pub use arrivals::Arrivals;
pub use delays::Delays;
pub use link::Links;
pub use load::{Load, Outcome};
pub use machine::{Counts, Disk, Machine};
pub use observer::{Address, Nobody, Observer};
pub use settle::Settled;
pub use tally::Tally;
pub use trace::Trace;
pub use world::{Settings, World};
