//! What disturbs the cluster: parted networks, elections, restarts, nodes shut out, networks made and removed.

use std::net::IpAddr;

use rand::RngExt;
use weft::core::{
    allocator::Action,
    model::{NetworkId, NodeId},
};

use super::{
    gossip::Write,
    world::{Event, VOTERS, World},
};

/// How long a node that was shut out may run on without hearing of it: less than the cool-down.
const SHUT_OUT_MILLIS: u64 = 200_000;

impl World {
    pub(super) fn disturb(&mut self) {
        let pause = self.rng.random_range(5_000..60_000);
        self.after(pause, Event::Disturb);
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let id = ids[self.rng.random_range(0..ids.len())];
        match self.rng.random_range(0..10) {
            0..=2 => self.part(),
            3 | 4 => self.heal(),
            5 | 6 => {
                self.tally.restarts += 1;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.restart();
                }
            }
            7 => {
                let made = self.new_network();
                self.propose_at_leader(made);
            }
            8 => self.remove_some_network(),
            _ => {
                if id.0 > VOTERS && self.rng.random_bool(0.5) {
                    self.shut_out(id);
                }
            }
        }
        self.elect();
    }

    fn part(&mut self) {
        self.tally.partitions += 1;
        for node in self.nodes.values_mut() {
            let part = self.rng.random_range(0..2);
            if node.part.0 != part {
                node.part = (part, self.now);
            }
        }
    }

    fn heal(&mut self) {
        for node in self.nodes.values_mut() {
            if node.part.0 != 0 {
                node.part = (0, self.now);
            }
        }
    }

    /// Whoever reaches most voters may lead; it need not be who led.
    fn elect(&mut self) {
        let voters: Vec<NodeId> = (1..=VOTERS).map(NodeId).collect();
        let reaches_most = |id: &NodeId| {
            let reached = voters.iter().filter(|other| self.reach(*id, **other));
            reached.count() as u64 > VOTERS / 2
        };
        let able: Vec<NodeId> = voters.iter().copied().filter(reaches_most).collect();
        let stays = self.log.leader.filter(|leader| able.contains(leader));
        let leader = match stays.filter(|_| self.rng.random_bool(0.8)) {
            Some(leader) => Some(leader),
            None if able.is_empty() => None,
            None => Some(able[self.rng.random_range(0..able.len())]),
        };
        if leader != self.log.leader {
            self.tally.elections += 1;
            self.tally.lost += self.log.elect(leader, || self.rng.random_bool(0.5));
            self.after(1, Event::Commit);
        }
    }

    fn shut_out(&mut self, id: NodeId) {
        self.tally.shut_out += 1;
        self.propose_at_leader(Action::RemoveMember { node: id });
        let now = self.instant();
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_member()) {
            node.shut_out = Some(now);
        }
        let hears_after = self.rng.random_range(1..SHUT_OUT_MILLIS);
        self.after(hears_after, Event::Stop(id));
        self.names += 1;
        self.admit(NodeId(100 + self.names));
    }

    pub(super) fn stop(&mut self, id: NodeId) {
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        let since = node.shut_out.unwrap_or(self.instant());
        for at in node.endpoints {
            self.checks.holders.release(at);
            self.checks.rested.release(at, since);
        }
        self.gossip.forget(id);
    }

    fn remove_some_network(&mut self) {
        let networks: Vec<NetworkId> = self.log.state.networks().keys().copied().collect();
        if networks.len() > 2 {
            let id = networks[self.rng.random_range(0..networks.len())];
            self.propose_at_leader(Action::RemoveNetwork { id });
        }
    }

    pub(super) fn hear_networks(&mut self, id: NodeId) {
        let networks = self.log.state.networks();
        let now = self.instant();
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.networks.clone_from(networks);
        node.desks
            .retain(|network, _| networks.contains_key(network));
        let gone = node
            .endpoints
            .iter()
            .filter(|(of, _)| !networks.contains_key(of));
        let gone: Vec<(NetworkId, IpAddr)> = gone.copied().collect();
        for at in gone {
            node.endpoints.remove(&at);
            self.checks.holders.release(at);
            self.checks.rested.release(at, now);
            self.gossip.write(id, Write { at, is_live: false });
        }
    }
}
