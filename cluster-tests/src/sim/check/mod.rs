//! The properties that a run must have, one file each.

mod barriers;
mod bounded;
mod connected;
mod converged;
mod hidden;
mod history;
mod logs;
mod members;
mod mirrored;
mod nonces;
mod renewed;
mod resurrected;
mod sound;
mod synced;
mod visible;
mod written;

use std::{collections::BTreeMap, fmt};

use weft::{
    core::{
        membership,
        model::{Instant, NetworkId, Value},
        netdb::{Applied, BarrierId, SyncState, Version},
        node::Node,
        watch::Filter,
    },
    sim::{Address, Observer, world::machine_of},
};

use super::clock;
pub use barriers::Barriers;
pub use bounded::{only_what_stands_is_held, queues_are_short};
pub use connected::Connections;
pub use converged::converged;
pub use hidden::{hidden_within, is_hidden};
pub use history::Histories;
pub use logs::logs_are_sound;
pub use members::members_agree;
pub use mirrored::{Mirror, mirrored};
pub use nonces::Nonces;
pub use renewed::Renewals;
pub use resurrected::nothing_comes_back;
pub use sound::nothing_is_malformed;
pub use synced::Claims;
pub use visible::only_the_living_show;
pub use written::Written;

/// A property did not hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Violation {
    /// Which property.
    pub property: &'static str,
    /// Where, and what was seen.
    pub seen: String,
}

impl Violation {
    /// Returns what was seen, if anything was, as a violation of a property.
    fn unless_none(property: &'static str, seen: Option<&String>) -> Result<(), Self> {
        let violation = |seen: &String| Self {
            property,
            seen: seen.clone(),
        };
        seen.map_or(Ok(()), |seen| Err(violation(seen)))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.seen)
    }
}

/// What the checkers note while a world goes on. What happens is also told as `tracing` events, for whoever reads a run.
#[derive(Default, Debug)]
pub struct Checkers {
    mirrors: BTreeMap<usize, Mirror>,
    /// Every nonce that was used.
    pub nonces: Nonces,
    /// Every write.
    pub written: Written,
    /// Every barrier.
    pub barriers: Barriers,
    /// Every claim that a network is synced.
    pub claims: Claims,
    /// Since when nodes are connected.
    pub connections: Connections,
    /// Who was held for down, and who renewed.
    pub renewals: Renewals,
    /// What every machine has recorded of the members.
    pub histories: Histories,
}

impl Checkers {
    /// Returns what a watcher of everything on a machine has been told.
    fn mirror(&self, at: usize) -> &Mirror {
        self.mirrors.get(&at).expect("every machine has started")
    }
}

impl Observer for Checkers {
    fn started(&mut self, at: usize, node: &Node) {
        tracing::info!(at, "started");
        self.histories.begin(at, node);
        self.mirrors.insert(at, Mirror::default());
    }

    fn crashed(&mut self, at: usize) {
        tracing::info!(at, "crashed");
        self.barriers.forget(at);
        self.claims.forget(at, None);
    }

    fn touched(&mut self, at: usize, now: Instant, node: &Node) {
        clock::set(now);
        self.histories.follow(at, now, node);
    }

    fn wrote(&mut self, at: usize, version: Version, wrote: (&Address, Option<&Value>)) {
        let (address, value) = wrote;
        tracing::info!(at, log = ?version.log, seq = version.seq, ?address, ?value, "wrote");
        self.written.note(version, address, value);
    }

    fn datagram_sent(&mut self, _from: usize, datagram: &[u8]) {
        self.nonces.note(datagram);
    }

    fn member(&mut self, at: usize, now: Instant, event: &membership::Event) {
        tracing::info!(at, ?event, "member");
        self.connections.note_event(at, now, event);
        self.renewals.note(at, event);
        if let membership::Event::Down(node) | membership::Event::Left(node) = event {
            self.barriers.forget_dead(at, machine_of(*node));
        }
    }

    fn changed(&mut self, at: usize, _now: Instant, node: &Node) {
        let mirror = self.mirrors.entry(at).or_default();
        if tracing::enabled!(tracing::Level::INFO) {
            let heard = node.changes(mirror.revision(), &Filter::default(), usize::MAX);
            for revised in heard.into_iter().flat_map(|heard| heard.changes) {
                tracing::info!(at, change = ?revised.change, "visible");
            }
        }
        mirror.follow(node);
    }

    fn synced(&mut self, at: usize, now: Instant, reached: (NetworkId, SyncState), node: &Node) {
        tracing::info!(at, network = %reached.0, state = ?reached.1, "sync");
        self.claims.note_state((at, node), now, reached);
    }

    fn barrier(&mut self, at: usize, _now: Instant, ended: (BarrierId, &Applied)) {
        tracing::info!(at, barrier = ?ended.0, applied = ?ended.1, "barrier ended");
        self.barriers.note_ended(at, ended.0, ended.1);
    }
}
