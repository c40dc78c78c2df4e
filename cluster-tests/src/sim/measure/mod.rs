//! Measuring in virtual time: how long a change takes to all nodes, and what it costs. One file a measure.
//!
//! A [`Cell`] is a measure at one size and loss; each of its seeds is a sample, and [`Row`] says what they were. The worlds of a
//! cell run on as many threads as there are cores; the same seeds give the same row.

mod burst;
mod cell;
mod change;
mod churn;
mod conflict;
mod crash;
mod falsedown;
mod hardship;
mod idle;
mod joining;
mod limits;
mod observe;
mod part;
mod returning;
mod row;

pub use cell::{Cell, Measure, Profile};
pub use limits::{Limits, limits};
pub use part::Part;
pub use row::Row;

use std::time::Duration;

use weft::{
    core::model::NetworkId,
    sim::{Arrivals, World},
};

/// The network that all machines are attached to.
const NETWORK: NetworkId = NetworkId(1);

/// A world whose writes are awaited.
type Watched = World<Arrivals>;

/// What one seed has shown.
#[derive(Clone, Copy, Default, Debug)]
struct Sample {
    /// What was done, where a measure has several parts.
    case: &'static str,
    /// How long it took until it was seen by all.
    took: Option<Duration>,
    /// Bytes that a node sent for it on average.
    bytes_per_node: Option<f64>,
    /// How often a node received each dot that it lacked, on average.
    copies_per_node: Option<f64>,
    /// All bytes sent, as a multiple of the bytes of keys and values that were needed once at each node.
    times_content: Option<f64>,
    /// Whether nodes that should agree do not.
    diverged: Option<bool>,
    /// Bytes that a node sent in one second while nothing happened, on average.
    bytes_per_node_s: Option<f64>,
    /// How long it took until the first node saw it.
    first: Option<Duration>,
    /// How often a node that was well was held for down.
    false_downs: Option<u64>,
    /// What was not seen in time, and properties that did not hold.
    violations: u64,
}
