//! Worlds that have settled, for measuring: made without what starting and joining costs.

use std::time::Duration;

use rand::RngExt;

use super::{
    observer::{Address, Observer},
    world::{EPOCH, Settings, World, id_of, machine_of},
};
use crate::core::{
    model::{Boot, Key, NetworkId, TableName, Value},
    netdb::{CallId, PutMode},
    node::{MEMBERS_REQUEST, Node},
};

/// How many bytes the value of a drawn entry has.
const VALUE_LEN: usize = 60;
/// The table of drawn entries.
const TABLE: &str = "sim";

/// When the first machine believes those that have not come whole, and so has.
const BELIEVED_AFTER: Duration = Duration::from_secs(4);
/// How long after all have met it takes until the copies of what they said of that are over.
const HUSHED_FOR: Duration = Duration::from_millis(60);

/// What a settled world is like.
#[derive(Clone, Debug)]
pub struct Settled {
    /// How many machines it has.
    pub machines: usize,
    /// The network that all are attached to.
    pub network: NetworkId,
    /// How many entries that network has; the machines own about as many each.
    pub entries: usize,
    /// How every node is set up.
    pub settings: Settings,
}

impl Settled {
    /// Machines attached to a network that is empty.
    pub fn new(machines: usize, network: NetworkId) -> Self {
        Self {
            machines,
            network,
            entries: 0,
            settings: Settings::default(),
        }
    }

    /// Makes a world whose machines have run for long: they know each other and all entries, and are quiet.
    ///
    /// What starting and joining costs is left out, so that worlds of thousands of machines can be made.
    pub fn world<O: Observer>(&self, seed: u64, observer: O) -> World<O> {
        let settings = self.settings.clone();
        let mut world = World::bare(seed, self.machines, observer, settings);
        world.found(self.network);
        for entry in 0..self.entries {
            let at = entry % self.machines;
            let (address, value) = world.draw_entry(self.network);
            let (network, table, key) = &address;
            let now = world.now_at(at);
            let node = world.machines[at].node.as_mut();
            let node = node.expect("it has just been made");
            node.put(now, (*network, table, key), &value, PutMode::Create)
                .expect("a key of 64 drawn digits is new");
            world.machines[at].disk.entries.insert(address, value);
        }
        for at in 1..self.machines {
            // Who is attached is known after the first time.
            let times = if at < self.entries { 2 } else { 1 };
            for _ in 0..times {
                world.exchange(0, at);
            }
        }
        world.introduce();
        for at in 0..self.machines {
            if let Some(node) = world.machines[at].node.as_deref_mut() {
                // So much has happened since that nobody resumes from what is told of the start.
                node.forget_changes();
            }
            world.after(at);
        }
        world
    }
}

impl<O: Observer> World<O> {
    /// Makes a settled world of default settings without entries.
    pub fn settled(seed: u64, machines: usize, network: NetworkId, observer: O) -> Self {
        Settled::new(machines, network).world(seed, observer)
    }

    /// Draws an entry that there is not yet: a key of 64 hexadecimal digits, and 60 bytes that cannot be compressed.
    pub fn draw_entry(&mut self, network: NetworkId) -> (Address, Value) {
        let drawn: [u64; 4] = self.rng.random();
        let key: String = drawn.iter().map(|part| format!("{part:016x}")).collect();
        let value: [u8; VALUE_LEN] = self.rng.random();
        let table = TableName::new(TABLE).expect("three letters");
        let key = Key::new(key.into_bytes()).expect("64 bytes are within the limits");
        let value = Value::new(value.to_vec()).expect("60 bytes are within the limits");
        ((network, table, key), value)
    }

    /// Starts all machines, attached: the first knows all others, and they know nobody yet.
    fn found(&mut self, network: NetworkId) {
        let boot = Boot::after(Boot::default(), EPOCH.0 / 1000);
        for machine in &mut self.machines {
            machine.disk.boot = boot;
            machine.disk.attached.insert(network);
        }
        for at in 0..self.machines.len() {
            if at > 0 {
                let part = self.draw_part(self.phase().0);
                self.pass_to(BELIEVED_AFTER + part);
            }
            let now = self.now_at(at);
            let mut node = self.make(at, boot);
            node.attach(now, network).expect("a new node can attach");
            if at == 0 {
                let others = 1..self.machines.len();
                node.apply_members(now, others.map(|at| self.member(at)).collect());
            }
            hush(&mut node);
            self.observer.started(at, &node);
            self.machines[at].node = Some(Box::new(node));
        }
        self.pass_to(BELIEVED_AFTER + self.phase().0);
    }

    /// Returns within what time nodes start, and then within what time they meet, so that they are in all phases of what they do
    /// again and again: who starts sends its first digest after a period, and who meets others probes the first after a period.
    fn phase(&self) -> (Duration, Duration) {
        let digests = self.settings.netdb.digest_every;
        let probes = self.settings.membership.probe_period.min(digests / 2);
        (digests - probes, probes.saturating_sub(HUSHED_FOR))
    }

    fn draw_part(&mut self, whole: Duration) -> Duration {
        whole.mul_f64(self.rng.random())
    }

    /// Lets a machine ask another for all that it lacks, in no time.
    fn exchange(&mut self, asker: usize, asked: usize) {
        let now = self.now_at(asker);
        let Some(mut node) = self.machines[asker].node.take() else {
            return;
        };
        node.sync_with(now, id_of(asked));
        while let Some(call) = node.poll_stream() {
            let answering = self.machines[machine_of(call.id.to)].node.as_mut();
            let reply =
                answering.and_then(|other| other.handle_stream(id_of(asker), &call.request).ok());
            match reply {
                Some(reply) => drop(node.handle_stream_reply(now, call.id, &reply)),
                None => node.handle_stream_failed(now, call.id),
            }
        }
        hush(&mut node);
        self.machines[asker].node = Some(node);
    }

    /// Lets all machines get the first one's list of members, and all that it holds.
    fn introduce(&mut self) {
        let lists = [0, 1].map(|at| self.list_of(at));
        let (met, within) = (self.now(), self.phase().1);
        for at in 0..self.machines.len() {
            let part = self.draw_part(within);
            self.pass_to(met.since_start() + part);
            let teller = usize::from(at == 0);
            let now = self.now_at(at);
            let node = self.machines[at].node.as_deref_mut();
            if let Some((node, list)) = node.zip(lists[teller].as_ref()) {
                let call = CallId::foreign(id_of(teller));
                node.handle_stream_reply(now, call, list)
                    .expect("it is the answer to what it asks");
            }
            for _ in 0..2 {
                self.exchange(at, teller);
            }
            self.pass_to(met.since_start() + part + HUSHED_FOR);
            let now = self.now_at(at);
            if let Some(node) = self.machines[at].node.as_deref_mut() {
                node.handle_timeout(now);
                hush(node);
            }
        }
        self.pass_to(met.since_start() + within + HUSHED_FOR);
    }

    /// Returns a machine's list of members, as it answers one that asks for it.
    fn list_of(&mut self, at: usize) -> Option<Vec<u8>> {
        let node = self.machines.get_mut(at)?.node.as_mut()?;
        node.handle_stream(id_of(0), MEMBERS_REQUEST).ok()
    }
}

/// Drops what a node has to say: all have heard it.
fn hush(node: &mut Node) {
    while node.poll_transmit().is_some() {}
    while node.poll_stream().is_some() {}
    while node.poll_event().is_some() {}
}
