//! Chaos in the simulator, and what must hold in it.
//!
//! A run in [`weft::sim`] has a chaos phase, in which what its [`Schedule`] says happens and nodes go on working, and a calm
//! phase, whose length is computed from how the nodes are set up and after which every property in [`check`] must hold.
//! Properties that must hold all the time are checked as the run goes. A schedule that violates one is made
//! [shorter](shrink) before anybody reads it.
//!
//! How fast nodes are, and at what cost, is [measured](measure) in worlds without checkers.

pub mod addresses;
pub mod calm;
pub mod chaos;
pub mod check;
pub mod clock;
pub mod fault;
pub mod measure;
pub mod schedule;
pub mod shrink;

pub use chaos::{Chaos, Report, Seen};
pub use check::{Checkers, Violation};
pub use fault::{Fault, Faults};
pub use schedule::{Action, Schedule};
pub use weft::sim::{Counts, Links, Trace, link, trace, world};

/// A world that the checkers look at.
pub type World = weft::sim::World<Checkers>;
