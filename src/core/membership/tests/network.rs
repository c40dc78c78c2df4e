//! A small network in virtual time: delay, loss, partition; machines that start, crash and start again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::core::{
    membership::{Config, Event, Identity, MemberState, Membership, MembershipError, Outgoing},
    model::{Boot, Instant, NodeId},
    wire::{
        OVERHEAD,
        record::{RECORD_HEADER_LEN, RecordKind},
    },
};

enum Happening {
    Arrival { from: NodeId, outgoing: Outgoing },
    Wake(NodeId),
    Pong { to: NodeId, member: MemberState },
}

/// All machines and what is between them.
pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) config: Config,
    pub(super) nodes: BTreeMap<NodeId, Membership>,
    pub(super) events: Vec<(Instant, NodeId, Event)>,
    pub(super) bytes_sent: BTreeMap<NodeId, usize>,
    pub(super) arrivals: usize,
    pub(super) loss: f64,
    /// Whether nodes reach each other on streams.
    pub(super) streams: bool,
    /// Nodes of one group do not hear the others.
    pub(super) groups: BTreeMap<NodeId, u8>,
    /// From whom to whom nothing goes.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    queue: BTreeMap<(Instant, u64), Happening>,
    queued: u64,
    paused: BTreeSet<NodeId>,
    rng: StdRng,
}

pub(super) fn id(number: u64) -> NodeId {
    NodeId(number)
}

pub(super) fn addr(number: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 9338))
}

pub(super) fn identity(number: u64, boot: u32) -> Identity {
    Identity {
        node: id(number),
        addr: addr(number),
        boot: Boot(boot),
        rejoin: 0,
    }
}

impl Network {
    pub(super) fn new(config: Config, seed: u64) -> Self {
        Self {
            now: Instant::from_start(Duration::from_secs(100)),
            config,
            nodes: BTreeMap::new(),
            events: Vec::new(),
            bytes_sent: BTreeMap::new(),
            arrivals: 0,
            loss: 0.0,
            streams: false,
            groups: BTreeMap::new(),
            cut: BTreeSet::new(),
            queue: BTreeMap::new(),
            queued: 0,
            paused: BTreeSet::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Returns a network of nodes 1 to `count` that have found each other and are quiet.
    pub(super) fn with_nodes(count: u64, seed: u64) -> Self {
        Self::of(Config::lan(), count, seed)
    }

    /// Returns a network of nodes 1 to `count`, configured so, that have found each other and are quiet.
    pub(super) fn of(config: Config, count: u64, seed: u64) -> Self {
        let mut network = Self::new(config, seed);
        for number in 1..=count {
            network.join(number, 1, 1);
        }
        network.run(Duration::from_secs(5));
        network.assert_all_alive();
        network.forget_what_was();
        network
    }

    /// Starts a node that knows nobody.
    pub(super) fn start(&mut self, identity: Identity) {
        let seed = self.rng.random();
        let machine = Membership::new(self.config.clone(), identity, seed, self.now);
        self.nodes.insert(identity.node, machine);
        self.settle(identity.node);
    }

    /// Starts a node and gives it the list of `seed`, as a stream would.
    pub(super) fn join(&mut self, number: u64, boot: u32, seed: u64) {
        self.start(identity(number, boot));
        if number != seed {
            let list = self.nodes[&id(seed)].list();
            self.on(number, |machine, now| machine.apply(now, list));
        }
    }

    pub(super) fn crash(&mut self, number: u64) {
        self.nodes.remove(&id(number));
    }

    /// Stops a node's time: what comes for it waits.
    pub(super) fn pause(&mut self, number: u64) {
        self.paused.insert(id(number));
    }

    pub(super) fn resume(&mut self, number: u64) {
        self.paused.remove(&id(number));
        self.queue_up(self.now, Happening::Wake(id(number)));
    }

    /// Does something with a machine and carries out what it wants.
    pub(super) fn on<T>(
        &mut self,
        number: u64,
        act: impl FnOnce(&mut Membership, Instant) -> T,
    ) -> T {
        let machine = self.nodes.get_mut(&id(number)).unwrap();
        let result = act(machine, self.now);
        self.settle(id(number));
        result
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        self.run_until(until, |_| false);
    }

    /// Runs until `done` or the deadline, and says how long it took until `done`.
    pub(super) fn time_until(
        &mut self,
        limit: Duration,
        done: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        let until = start + limit;
        self.run_until(until, done)
            .then(|| self.now.saturating_duration_since(start))
    }

    fn run_until(&mut self, until: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= until) else {
                self.now = until;
                return false;
            };
            let ((at, _), happening) = entry.remove_entry();
            self.now = at;
            match happening {
                Happening::Wake(node) => self.wake(node),
                Happening::Arrival { from, outgoing } => self.arrive(from, outgoing),
                Happening::Pong { to, member } if self.nodes.contains_key(&to) => {
                    self.on(to.0, |machine, now| machine.handle_stream_pong(now, member));
                }
                Happening::Pong { .. } => {}
            }
        }
    }

    fn wake(&mut self, node: NodeId) {
        if self.paused.contains(&node) {
            return;
        }
        if let Some(machine) = self.nodes.get_mut(&node)
            && machine.poll_timeout().is_some_and(|at| at <= self.now)
        {
            machine.handle_timeout(self.now);
            self.settle(node);
        }
    }

    fn arrive(&mut self, from: NodeId, outgoing: Outgoing) {
        if self.paused.contains(&outgoing.to) {
            // It waits in the socket, for longer than the test's patience with a wake-up.
            let later = self.now + Duration::from_micros(500);
            self.queue_up(later, Happening::Arrival { from, outgoing });
            return;
        }
        let Some(machine) = self.nodes.get_mut(&outgoing.to) else {
            return;
        };
        if machine.identity().addr != outgoing.addr {
            return;
        }
        self.arrivals += 1;
        machine.hear(self.now, from);
        let handled: Result<(), MembershipError> = if outgoing.kind == RecordKind::FOCA {
            machine.handle_datagram(self.now, from, &outgoing.body)
        } else {
            assert_eq!(outgoing.kind, RecordKind::MEMBERS);
            machine.handle_update(self.now, from, &outgoing.body)
        };
        handled.unwrap();
        self.settle(outgoing.to);
    }

    fn settle(&mut self, node: NodeId) {
        let Some(machine) = self.nodes.get_mut(&node) else {
            return;
        };
        let mut sent = Vec::new();
        while let Some(outgoing) = machine.poll_transmit() {
            sent.push(outgoing);
        }
        while let Some(event) = machine.poll_event() {
            self.events.push((self.now, node, event));
        }
        assert_history(machine);
        let asked: Vec<NodeId> = std::iter::from_fn(|| machine.poll_stream_ping()).collect();
        if let Some(at) = machine.poll_timeout() {
            self.queue_up(at.max(self.now), Happening::Wake(node));
        }
        for asked in asked {
            if let Some(member) = self.ask_on_a_stream(node, asked) {
                let back = self.now + Duration::from_millis(2);
                self.queue_up(back, Happening::Pong { to: node, member });
            }
        }
        for outgoing in sent {
            let len = OVERHEAD + RECORD_HEADER_LEN + outgoing.body.len();
            *self.bytes_sent.entry(node).or_default() += len;
            if self.is_cut(node, outgoing.to) || self.rng.random_bool(self.loss) {
                continue;
            }
            let delay = Duration::from_micros(self.rng.random_range(200..1_000));
            let arrival = Happening::Arrival {
                from: node,
                outgoing,
            };
            self.queue_up(self.now + delay, arrival);
        }
    }

    fn ask_on_a_stream(&self, from: NodeId, to: NodeId) -> Option<MemberState> {
        let open = self.streams && !self.is_cut(from, to);
        let answers = open && !self.paused.contains(&to);
        let asked = self.nodes.get(&to).filter(|_| answers)?;
        Some(asked.as_member())
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.groups.get(&from) != self.groups.get(&to) || self.cut.contains(&(from, to))
    }

    fn queue_up(&mut self, at: Instant, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    pub(super) fn forget_what_was(&mut self) {
        self.events.clear();
        self.bytes_sent.clear();
        self.arrivals = 0;
    }

    /// Returns whether every running node thinks `number` alive, or every one does not.
    pub(super) fn all_think(&self, number: u64, alive: bool) -> bool {
        self.nodes
            .iter()
            .filter(|(node, _)| **node != id(number))
            .all(|(_, machine)| machine.is_alive(id(number)) == alive)
    }

    pub(super) fn everyone_sees_everyone(&self) -> bool {
        let hashes: BTreeSet<u64> = self.nodes.values().map(Membership::hash).collect();
        hashes.len() == 1
            && self
                .nodes
                .values()
                .all(|machine| machine.alive().count() + 1 == self.nodes.len())
    }

    pub(super) fn assert_all_alive(&self) {
        for (node, machine) in &self.nodes {
            let alive: Vec<_> = machine.alive().collect();
            assert_eq!(alive.len() + 1, self.nodes.len(), "{node} sees {alive:?}");
        }
        assert!(self.everyone_sees_everyone());
    }

    /// Returns what happened at one node, as it saw it.
    pub(super) fn events_at(&self, number: u64) -> Vec<Event> {
        self.events
            .iter()
            .filter(|(_, node, _)| *node == id(number))
            .map(|(_, _, event)| *event)
            .collect()
    }

    pub(super) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events
            .iter()
            .filter(|(_, _, event)| wanted(event))
            .count()
    }
}

/// Every member's trail ends in what the member is shown as: no state changes without a transition.
fn assert_history(machine: &Membership) {
    for member in machine.members() {
        let last = machine.last_transition(member.identity.node).unwrap();
        assert_eq!(
            (last.identity, last.state),
            (member.identity, Some(member.state))
        );
    }
    let us = machine.as_member();
    let last = machine.last_transition(us.identity.node).unwrap();
    assert_eq!((last.identity, last.state), (us.identity, Some(us.state)));
}
