//! Chaos in the simulator, and what must hold in it.
//!
//! A run in [`weft::sim`] has a chaos phase, in which faults happen and nodes go on working, and a calm phase, after which
//! every property in [`check`] must hold. Properties that must hold all the time are checked as the run goes.

pub mod chaos;
pub mod check;

pub use chaos::{Chaos, Report};
pub use check::{Checkers, Violation};
pub use weft::sim::{Counts, Links, Trace, link, trace, world};

/// A world that the checkers look at.
pub type World = weft::sim::World<Checkers>;
