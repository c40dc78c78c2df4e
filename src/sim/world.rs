//! The world: nodes, links, virtual time, and the queue of what is to happen.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{
    link::Links,
    machine::{Counts, Machine},
    observer::{Nobody, Observer},
    trace::Trace,
};
use crate::core::{
    membership::{self, Identity, MemberState, State},
    model::{Boot, ClusterId, Generation, Instant, NodeId, Now, UnixMillis},
    netdb::{self, CallId, PutMode},
    node::{Config, Event as NodeEvent, Node},
    wire::{
        keyring::{ClusterKey, KeyId, Keyring},
        versions::{NEWEST, OLDEST},
    },
};

/// The wall clock when a run begins: some time in 2026.
pub(super) const EPOCH: UnixMillis = UnixMillis(1_790_000_000_000);
/// How long a stream's request may take before it counts as failed.
const CALL_FOR: Duration = Duration::from_secs(10);

/// What is to happen.
#[derive(Debug)]
enum Event {
    Datagram {
        to: usize,
        boot: Boot,
        bytes: Bytes,
    },
    /// A datagram that had to wait for the receiver's line.
    Received {
        to: usize,
        boot: Boot,
        bytes: Bytes,
    },
    Request {
        from: (usize, Boot),
        call: CallId,
        bytes: Vec<u8>,
    },
    Reply {
        to: (usize, Boot),
        call: CallId,
        bytes: Option<Vec<u8>>,
    },
    Timer {
        node: usize,
        boot: Boot,
        due: Instant,
    },
}

/// The world of one run.
pub struct World<O = Nobody> {
    now: Instant,
    queue: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    /// Where chance comes from, also for whoever drives the run.
    pub rng: StdRng,
    /// How links behave.
    pub links: Links,
    /// The machines.
    pub machines: Vec<Machine>,
    /// The hash of all that happened.
    pub trace: Trace,
    /// What happened how often.
    pub counts: Counts,
    /// Who looks on.
    pub observer: O,
    /// How every node is set up.
    pub settings: Settings,
    /// The keys that a program starts with.
    pub(super) keyring: Keyring,
    cluster: ClusterId,
}

/// How the nodes of a world are set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Probing.
    pub membership: membership::Config,
    /// Dissemination and anti-entropy.
    pub netdb: netdb::Config,
    /// Whether nodes speak the oldest version of the wire in one start of their program and the newest in the next.
    pub mixed_versions: bool,
}

impl Settings {
    /// As on one site.
    pub fn lan() -> Self {
        Self {
            membership: membership::Config::lan(),
            netdb: netdb::Config::lan(),
            mixed_versions: false,
        }
    }

    /// As on several sites.
    pub fn wan() -> Self {
        Self {
            membership: membership::Config::wan(),
            netdb: netdb::Config::wan(),
            mixed_versions: false,
        }
    }

    /// As on one host, for trials.
    pub fn local() -> Self {
        Self {
            membership: membership::Config::local(),
            ..Self::lan()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::lan()
    }
}

impl World {
    /// Makes a world of running machines that know each other, as after a join.
    pub fn new(seed: u64, machines: usize) -> Self {
        Self::observed(seed, machines, Nobody)
    }
}

impl<O: Observer> World<O> {
    /// Makes a world that somebody looks at.
    pub fn observed(seed: u64, machines: usize, observer: O) -> Self {
        Self::set_up(seed, machines, observer, Settings::default())
    }

    /// Makes a world of nodes set up in that way.
    pub fn set_up(seed: u64, machines: usize, observer: O, settings: Settings) -> Self {
        let mut world = Self::bare(seed, machines, observer, settings);
        for at in 0..machines {
            world.start(at);
        }
        world
    }

    /// Makes a world whose machines have not been started.
    pub fn bare(seed: u64, machines: usize, observer: O, settings: Settings) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let keyring = Keyring::new(KeyId(1), ClusterKey::random(&mut rng));
        let cluster = ClusterId::random(&mut rng);
        Self {
            now: Instant::default(),
            queue: BTreeMap::new(),
            scheduled: 0,
            rng,
            links: Links::default(),
            machines: (0..machines).map(|at| Machine::new(id_of(at))).collect(),
            trace: Trace::default(),
            counts: Counts::default(),
            observer,
            settings,
            keyring,
            cluster,
        }
    }

    fn addr(at: usize) -> SocketAddr {
        SocketAddr::from(([10, (at >> 16) as u8, (at >> 8) as u8, at as u8], 9338))
    }

    fn machine_at(addr: SocketAddr) -> usize {
        match addr.ip() {
            std::net::IpAddr::V4(ip) => {
                let [_, high, middle, low] = ip.octets();
                usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
            }
            std::net::IpAddr::V6(_) => unreachable!("the world has no IPv6"),
        }
    }

    /// Returns the time.
    pub fn now(&self) -> Instant {
        self.now
    }

    pub(super) fn now_at(&self, at: usize) -> Now {
        let millis = self.now.since_start().as_millis() as i64 + self.machines[at].skew;
        Now {
            instant: self.now,
            wall: UnixMillis(EPOCH.0.saturating_add_signed(millis)),
        }
    }

    /// Starts the program of a machine: a new boot, a new generation, its entries written again from its disk. On a full disk
    /// the boot cannot be counted, and nothing starts.
    pub fn start(&mut self, at: usize) {
        let known = self.known_members(at);
        self.start_knowing(at, known);
    }

    /// Starts the program of a machine that was let in through another, and knows whom that knows.
    pub fn join(&mut self, at: usize, through: usize) {
        let seed = self.machines[through].node.as_ref();
        let known = seed.map_or_else(Vec::new, |seed| seed.membership().list());
        self.start_knowing(at, known);
    }

    fn start_knowing(&mut self, at: usize, members: Vec<MemberState>) {
        if !self.takes_writes(at) {
            return;
        }
        let now = self.now_at(at);
        let machine = &mut self.machines[at];
        machine.disk.boot = Boot::after(machine.disk.boot, now.wall.0 / 1000);
        let boot = machine.disk.boot;
        let mut node = self.make(at, boot);
        node.apply_members(now, members);
        self.observer.started(at, &node);
        let disk = self.machines[at].disk.clone();
        for network in disk.attached {
            node.attach(now, network).expect("a new node can attach");
        }
        for (address, value) in disk.entries {
            let (network, table, key) = &address;
            // Another owner's visible entry of the key does not keep ours from being written again.
            let written = node.put(now, (*network, table, key), &value, PutMode::Upsert);
            if let Ok(version) = written {
                self.observer.wrote(at, version, (&address, Some(&value)));
            }
        }
        node.ready(now)
            .expect("a new node can say that it is ready");
        let disk = &mut self.machines[at].disk;
        disk.synced = (disk.attached.clone(), disk.entries.clone());
        self.machines[at].node = Some(Box::new(node));
        self.machines[at].timer = None;
        self.after(at);
    }

    /// Makes the program of a machine, which knows of nobody yet.
    pub(super) fn make(&mut self, at: usize, boot: Boot) -> Node {
        let is_old = self.settings.mixed_versions && (at + boot.0 as usize).is_multiple_of(2);
        let config = Config {
            cluster: self.cluster,
            node: self.machines[at].id,
            addr: Self::addr(at),
            boot,
            generation: Generation::begun_by(boot),
            keyring: self.keyring.clone(),
            newest: if is_old { OLDEST } else { NEWEST },
            membership: self.settings.membership.clone(),
            netdb: self.settings.netdb.clone(),
            seed: self.rng.random(),
        };
        Node::new(config, self.now_at(at))
    }

    /// What a machine remembers of the others: where they were, not which boot they are in now.
    fn known_members(&self, at: usize) -> Vec<MemberState> {
        let others = (0..self.machines.len()).filter(|other| *other != at);
        let known = others.filter(|other| self.machines[*other].disk.boot != Boot::default());
        known.map(|other| self.member(other)).collect()
    }

    pub(super) fn member(&self, at: usize) -> MemberState {
        MemberState {
            identity: Identity {
                node: self.machines[at].id,
                addr: Self::addr(at),
                boot: self.machines[at].disk.boot,
                rejoin: 0,
            },
            incarnation: 0,
            state: State::Alive,
        }
    }

    /// Lets the program of a machine do something, and carries on what it says. Nothing happens if it is crashed.
    pub fn with<T>(&mut self, at: usize, f: impl FnOnce(&mut Node, Now) -> T) -> Option<T> {
        let now = self.now_at(at);
        let done = self.machines[at]
            .node
            .as_deref_mut()
            .map(|node| f(node, now))?;
        self.after(at);
        Some(done)
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), event);
    }

    /// Carries on what a node has to say after it was touched.
    pub(super) fn after(&mut self, at: usize) {
        let Some(mut node) = self.machines[at].node.take() else {
            return;
        };
        self.observer.touched(at, self.now, &node);
        let boot = self.machines[at].disk.boot;
        while let Some(transmit) = node.poll_transmit() {
            self.send_datagram(at, transmit.to, &transmit.datagram);
        }
        while let Some(call) = node.poll_stream() {
            if self.reaches(at, call.id.to) {
                self.counts.stream_bytes += call.request.len() as u64;
                let delay = self
                    .links
                    .draw_call_delay(&mut self.rng, call.request.len());
                let arrives = self.now + delay;
                self.schedule(
                    arrives,
                    Event::Request {
                        from: (at, boot),
                        call: call.id,
                        bytes: call.request,
                    },
                );
            } else {
                self.schedule(
                    self.now + CALL_FOR,
                    Event::Reply {
                        to: (at, boot),
                        call: call.id,
                        bytes: None,
                    },
                );
            }
        }
        while let Some(event) = node.poll_event() {
            match event {
                NodeEvent::Member(event) => self.observer.member(at, self.now, &event),
                NodeEvent::Changed => self.observer.changed(at, self.now, &node),
                NodeEvent::Synced(network, state) => {
                    self.observer.synced(at, self.now, (network, state), &node);
                }
                NodeEvent::Barrier(id, applied) => {
                    self.observer.barrier(at, self.now, (id, &applied));
                }
            }
        }
        let timeout = node.poll_timeout();
        if let Some(due) =
            timeout.filter(|due| self.machines[at].timer.is_none_or(|timer| *due < timer))
        {
            self.machines[at].timer = Some(due);
            let timer = Event::Timer {
                node: at,
                boot,
                due,
            };
            self.schedule(due.max(self.now), timer);
        }
        self.machines[at].node = Some(node);
    }

    /// Returns whether a machine can talk on a stream with a node: both ways are open, and the node is still there.
    fn reaches(&self, at: usize, node: NodeId) -> bool {
        let to = machine_of(node);
        let open = self.links.is_open(at, to) && self.links.is_open(to, at);
        open && self.machines[to].id == node
    }

    fn send_datagram(&mut self, from: usize, to: SocketAddr, datagram: &Bytes) {
        let to = Self::machine_at(to);
        self.counts.bytes += datagram.len() as u64;
        self.observer.datagram_sent(from, datagram);
        self.trace.note(datagram);
        let arrivals = if self.links.is_open(from, to) {
            self.links.draw_arrivals(&mut self.rng)
        } else {
            Vec::new()
        };
        match arrivals.len() {
            0 => self.counts.lost += 1,
            1 => {}
            _ => self.counts.duplicated += 1,
        }
        let boot = self.machines[to].disk.boot;
        let sender = &mut self.machines[from];
        sender.sends_from = self
            .links
            .depart(self.now, sender.sends_from, datagram.len());
        let departs = sender.sends_from;
        for delay in arrivals {
            self.schedule(
                departs + delay,
                Event::Datagram {
                    to,
                    boot,
                    bytes: datagram.clone(),
                },
            );
        }
    }

    /// Handles the next event, unless it lies after `end`. Returns whether there was one.
    fn step(&mut self, end: Instant) -> bool {
        let Some(entry) = self
            .queue
            .first_entry()
            .filter(|entry| entry.key().0 <= end)
        else {
            return false;
        };
        let ((at, _), event) = entry.remove_entry();
        self.now = self.now.max(at);
        self.counts.events += 1;
        self.trace.note_number(at.since_start().as_nanos() as u64);
        self.handle(event);
        true
    }

    fn handle(&mut self, event: Event) {
        let to = match &event {
            Event::Datagram { to, .. } | Event::Received { to, .. } => *to,
            Event::Request { call, .. } => machine_of(call.to),
            Event::Reply { to, .. } => to.0,
            Event::Timer { node, .. } => *node,
        };
        if self.machines[to].paused_until > self.now {
            return self.schedule(self.machines[to].paused_until, event);
        }
        let current = self.machines[to].disk.boot;
        match event {
            Event::Datagram { boot, bytes, to } if boot == current => {
                let line = self.machines[to].receives_from;
                let Some(received) = self.links.arrive(self.now, line, bytes.len()) else {
                    self.counts.overrun += 1;
                    return;
                };
                self.machines[to].receives_from = received;
                if line > self.now {
                    return self.schedule(line, Event::Received { to, boot, bytes });
                }
                self.receive(to, &bytes);
            }
            Event::Received { boot, bytes, to } if boot == current => self.receive(to, &bytes),
            Event::Request { from, call, bytes } => self.answer(from, call, &bytes),
            Event::Reply {
                to: (_, boot),
                call,
                bytes,
            } if boot == current => {
                self.with(to, |node, now| match bytes {
                    Some(reply) => drop(node.handle_stream_reply(now, call, &reply)),
                    None => node.handle_stream_failed(now, call),
                });
            }
            // Another timer, set later for an earlier time, may have done its work.
            Event::Timer { boot, due, .. }
                if boot == current && self.machines[to].timer == Some(due) =>
            {
                self.machines[to].timer = None;
                let due =
                    |node: &Node, now: Instant| node.poll_timeout().is_some_and(|at| at <= now);
                self.with(to, |node, now| {
                    if due(node, now.instant) {
                        node.handle_timeout(now);
                    }
                });
            }
            // It was meant for a former life of the program.
            Event::Datagram { .. }
            | Event::Received { .. }
            | Event::Reply { .. }
            | Event::Timer { .. } => {}
        }
    }

    fn receive(&mut self, to: usize, datagram: &[u8]) {
        self.counts.datagrams += 1;
        // A refused datagram is counted by the node; the checkers look at the counts.
        let _ = self.with(to, |node, now| node.handle_datagram(now, datagram));
    }

    fn answer(&mut self, from: (usize, Boot), call: CallId, request: &[u8]) {
        let to = call.to;
        self.counts.requests += 1;
        self.trace.note(request);
        let open = self.reaches(from.0, to);
        let asker = id_of(from.0);
        let asked = |node: &mut Node, _| node.handle_stream(asker, request).ok();
        let answer = open.then(|| self.with(machine_of(to), asked));
        let answer = answer.flatten().flatten();
        let sent = answer.as_ref().map_or(0, Vec::len);
        self.counts.stream_bytes += sent as u64;
        let delay = match &answer {
            Some(answer) => self.links.draw_call_delay(&mut self.rng, answer.len()),
            None => CALL_FOR,
        };
        self.schedule(
            self.now + delay,
            Event::Reply {
                to: from,
                call,
                bytes: answer,
            },
        );
    }

    /// Lets it be so long after the start. Before the world goes on, each machine may be given a time of its own.
    pub(super) fn pass_to(&mut self, since_start: Duration) {
        self.now = Instant::from_start(since_start);
    }

    /// Lets the world go on for a while.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets the world go on until `done`, asked every `every`, at most for `limit`. Returns how long it took.
    pub fn run_until(
        &mut self,
        every: Duration,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while self.now.saturating_duration_since(start) < limit {
            if done(self) {
                return Some(self.now.saturating_duration_since(start));
            }
            self.run_for(every);
        }
        done(self).then(|| self.now.saturating_duration_since(start))
    }

    /// Returns which machines run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.machines.len())
            .filter(|at| self.machines[*at].node.is_some())
            .collect()
    }

    /// Draws one of the running machines.
    pub fn draw_running(&mut self) -> Option<usize> {
        let running = self.running();
        (!running.is_empty()).then(|| running[draw(&mut self.rng, running.len())])
    }
}

/// Returns the id of the first node on a machine: the one that its first disk holds.
pub fn id_of(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

/// Returns the machine of a node.
pub fn machine_of(node: NodeId) -> usize {
    (node.0 & u64::from(u32::MAX)) as usize - 1
}

/// Draws a place below `len`.
pub fn draw(rng: &mut impl Rng, len: usize) -> usize {
    rng.random_range(0..len)
}
