//! `Synced` is true where it is claimed: who says so within the time in which it believes nobody who is new too has what all
//! synced members showed when it attached, those included that were cut off: any of them may be the one it hears of first.

use std::collections::{BTreeMap, BTreeSet};

use weft::core::{
    model::{Boot, Instant, NetworkId, NodeId},
    netdb::{BELIEVE_AFTER, LogId, SyncState},
    node::Node,
};

use super::Violation;
use crate::sim::World;

const PROPERTY: &str = "who says that a network is synced has it";

/// A node that attached, and what it must have when it says that it is synced.
#[derive(Debug)]
struct Attached {
    at: usize,
    boot: Boot,
    network: NetworkId,
    since: Instant,
    /// What every synced member had, at least.
    needed: BTreeMap<LogId, u64>,
    is_claimed: bool,
}

/// The claims that a network is synced.
#[derive(Default, Debug)]
pub struct Claims {
    attached: Vec<Attached>,
    /// How many claims were held against something that was needed.
    pub checked: u64,
}

impl Claims {
    /// Notes that a machine has just attached to a network.
    pub fn note_attached(world: &mut World, at: usize, network: NetworkId) {
        let machine = &world.machines[at];
        let mut members = world
            .machines
            .iter()
            .filter(|other| other.id != machine.id)
            .filter_map(|other| other.node.as_ref())
            .filter(|node| {
                let mut networks = node.networks();
                networks.any(|carried| carried == (network, SyncState::Synced))
            })
            .map(|node| {
                let shown: BTreeSet<NodeId> = node.attached(network).collect();
                let logs = node.logs().filter(|(log, ..)| log.network == network);
                let logs = logs.filter(|(log, ..)| shown.contains(&log.owner));
                logs.map(|(log, prefix, _)| (log, prefix)).collect()
            });
        let Some(mut needed) = members.next() else {
            return;
        };
        for member in members {
            let member: BTreeMap<LogId, u64> = member;
            needed.retain(|log, prefix| {
                *prefix = member
                    .get(log)
                    .map_or(0, |theirs| *prefix.min(&mut { *theirs }));
                *prefix > 0
            });
        }
        let attached = Attached {
            at,
            boot: machine.disk.boot,
            network,
            since: world.now(),
            needed,
            is_claimed: false,
        };
        world.observer.claims.attached.push(attached);
    }

    /// A machine says how far a network has come.
    pub fn note_state(
        &mut self,
        machine: (usize, &Node),
        now: Instant,
        reached: (NetworkId, SyncState),
    ) {
        let ((at, node), (network, state)) = (machine, reached);
        if state != SyncState::Synced {
            return;
        }
        // Who was synced after it attached may have answered it, and may know less.
        self.attached
            .retain(|claim| claim.network != network || claim.at == at || claim.is_claimed);
        for claim in &mut self.attached {
            if !claim.is_claimed && (claim.at, claim.network) == (at, network) {
                claim.is_claimed = true;
                // What does not show is not compared: it comes when its owner does.
                let attached: BTreeSet<NodeId> = node.attached(network).collect();
                claim.needed.retain(|log, _| attached.contains(&log.owner));
            }
        }
        self.attached
            .retain(|claim| !claim.is_claimed || now <= claim.since + BELIEVE_AFTER);
    }

    /// A machine's program has ended, or has left the network.
    pub fn forget(&mut self, at: usize, network: Option<NetworkId>) {
        self.attached.retain(|claim| {
            claim.at != at || network.is_some_and(|network| network != claim.network)
        });
    }

    /// Checks the property for what was claimed since.
    pub fn check(world: &mut World) -> Result<(), Violation> {
        let attached = std::mem::take(&mut world.observer.claims.attached);
        let (claimed, others): (Vec<_>, Vec<_>) =
            attached.into_iter().partition(|claim| claim.is_claimed);
        world.observer.claims.attached = others;
        for claim in claimed {
            world.observer.claims.checked += u64::from(!claim.needed.is_empty());
            check_claim(world, &claim)?;
        }
        Ok(())
    }
}

fn check_claim(world: &World, claim: &Attached) -> Result<(), Violation> {
    let machine = &world.machines[claim.at];
    let node = machine.node.as_ref();
    let Some(node) = node.filter(|_| machine.disk.boot == claim.boot) else {
        return Ok(());
    };
    let held: BTreeMap<LogId, u64> = node.logs().map(|(log, prefix, _)| (log, prefix)).collect();
    for (log, needed) in &claim.needed {
        let is_over =
            is_followed(world, log) || !node.attached(log.network).any(|owner| owner == log.owner);
        let prefix = held.get(log).copied().unwrap_or(0);
        if prefix < *needed && !(is_over && prefix == 0) {
            return Err(Violation {
                property: PROPERTY,
                seen: format!(
                    "machine {} says that network {} is synced and has {log:?} up to {prefix}; every synced member had it up to {needed}",
                    claim.at, claim.network
                ),
            });
        }
    }
    Ok(())
}

/// Returns whether the owner of a log has gone on to another, has detached, has left, or runs no longer.
fn is_followed(world: &World, log: &LogId) -> bool {
    let mut machines = world.machines.iter();
    let owner = machines.find(|machine| machine.id == log.owner);
    let node = owner.and_then(|machine| machine.node.as_ref());
    let living = node.filter(|node| node.membership().is_alive(log.owner));
    let current = living.and_then(|node| node.written(log.network).ok());
    current.is_none_or(|version| version.log != *log)
}
