//! Worlds that have settled, for measuring: made without what starting and joining costs.

use rand::RngExt;

use super::{
    observer::{Address, Observer},
    world::{EPOCH, Settings, World, id_of},
};
use crate::core::{
    membership::MemberState,
    model::{Boot, Key, NetworkId, TableName, Value},
    netdb::PutMode,
};

/// How many bytes the value of a drawn entry has.
const VALUE_LEN: usize = 60;
/// The table of drawn entries.
const TABLE: &str = "sim";

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
            world.exchange(0, at, at);
        }
        for at in 1..self.machines {
            world.exchange(at, 0, 0);
        }
        for at in 0..self.machines {
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

    /// Starts all machines: each knows all others, and is attached.
    fn found(&mut self, network: NetworkId) {
        let boot = Boot::after(Boot::default(), EPOCH.0 / 1000);
        for machine in &mut self.machines {
            machine.disk.boot = boot;
            machine.disk.attached.insert(network);
        }
        let machines = self.machines.len();
        let members: Vec<MemberState> = (0..machines).map(|at| self.member(at)).collect();
        for at in 0..machines {
            let now = self.now_at(at);
            let mut node = self.make(at, boot);
            let others = members
                .iter()
                .filter(|member| member.identity.node != id_of(at));
            node.apply_members(now, others.copied().collect());
            // Everybody knows it: the news that it is there need not be carried.
            while node.poll_transmit().is_some() {}
            while node.poll_event().is_some() {}
            node.attach(now, network).expect("a new node can attach");
            self.observer.started(at, &node);
            self.machines[at].node = Some(Box::new(node));
        }
    }

    /// Lets a machine ask another for all that it lacks, in no time; what it asks anybody is answered by `answers`.
    fn exchange(&mut self, asker: usize, asked: usize, answers: usize) {
        let now = self.now_at(asker);
        let Some(mut node) = self.machines[asker].node.take() else {
            return;
        };
        node.sync_with(now, id_of(asked));
        while let Some(call) = node.poll_stream() {
            let answering = self.machines[answers].node.as_mut();
            let reply =
                answering.and_then(|other| other.handle_stream(id_of(asker), &call.request).ok());
            match reply {
                Some(reply) => drop(node.handle_stream_reply(now, call.id, &reply)),
                None => node.handle_stream_failed(now, call.id),
            }
        }
        // What it would push of that, all have by then.
        while node.poll_transmit().is_some() {}
        while node.poll_event().is_some() {}
        self.machines[asker].node = Some(node);
    }
}
