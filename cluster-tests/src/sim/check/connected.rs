//! Nobody holds a node for down that is well and connected with it, whatever others say that were cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft::{
    core::{
        membership::Event,
        model::{Instant, NodeId},
    },
    sim::world::machine_of,
};

use super::Violation;
use crate::sim::World;

const PROPERTY: &str = "nobody holds a node for down that it is connected with";

/// How long two nodes must have been well and connected: what came of their troubles is over by then.
const WELL_FOR: Duration = Duration::from_secs(2);
/// Delays up to here leave probes their time.
const DELAY_MAX: Duration = Duration::from_millis(20);

/// Since when nodes are connected, and who was held for down all the same.
#[derive(Default, Debug)]
pub struct Connections {
    /// Which machines have a trouble with each other since it was noted last, the lesser first.
    apart: BTreeSet<(usize, usize)>,
    /// Until when others had one.
    troubled: BTreeMap<(usize, usize), Instant>,
    /// Which nodes run.
    running: BTreeSet<NodeId>,
    /// How many were held for down that nothing else explains than a trouble of theirs.
    pub explained: u64,
    violation: Option<String>,
}

impl Connections {
    /// Notes who is not well or not connected at this moment; to be called before and after whatever changes that.
    pub fn note(world: &mut World) {
        let now = world.now();
        let is_slow = world.links.loss > 0.0 || world.links.delay.end > DELAY_MAX;
        let well: Vec<Option<NodeId>> = (0..world.machines.len())
            .map(|at| well(world, at))
            .collect();
        let mut apart = BTreeSet::new();
        for one in 0..well.len() {
            for other in one + 1..well.len() {
                let is_open = world.links.is_open(one, other) && world.links.is_open(other, one);
                if is_slow || !is_open || well[one].is_none() || well[other].is_none() {
                    apart.insert((one, other));
                }
            }
        }
        let connections = &mut world.observer.connections;
        connections.running = well.into_iter().flatten().collect();
        let before = std::mem::replace(&mut connections.apart, apart);
        for pair in before {
            connections.trouble(pair, now);
        }
    }

    /// Notes that a machine is in trouble until then, whomever it talks to.
    pub fn note_trouble(&mut self, at: usize, machines: usize, until: Instant) {
        for other in (0..machines).filter(|other| *other != at) {
            self.trouble((at.min(other), at.max(other)), until);
        }
    }

    fn trouble(&mut self, pair: (usize, usize), until: Instant) {
        let known = self.troubled.entry(pair).or_insert(until);
        *known = until.max(*known);
    }

    /// Notes what a machine's membership says.
    pub fn note_event(&mut self, at: usize, now: Instant, event: &Event) {
        let Event::Down(node) = event else {
            return;
        };
        let other = machine_of(*node);
        let pair = (at.min(other), at.max(other));
        let troubled = self.troubled.get(&pair).copied().unwrap_or_default();
        let well_for = now.saturating_duration_since(troubled);
        let is_gone = self.apart.contains(&pair) || !self.running.contains(node);
        if is_gone || well_for < WELL_FOR {
            self.explained += 1;
            return;
        }
        self.violation.get_or_insert_with(|| {
            format!(
                "at {now:?}, machine {at} holds node {node} for down, connected for {well_for:?}"
            )
        });
    }

    /// Checks the property.
    pub fn check(&self) -> Result<(), Violation> {
        Violation::unless_none(PROPERTY, self.violation.as_ref())
    }
}

/// Returns the node of a machine, if it runs and has not left.
fn well(world: &World, at: usize) -> Option<NodeId> {
    let machine = &world.machines[at];
    let node = machine.node.as_ref()?;
    node.membership().is_alive(machine.id).then_some(machine.id)
}
