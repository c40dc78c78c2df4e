//! Arrivals: when each machine first shows what was written, or no longer shows what was deleted or hidden.
//!
//! A machine is looked at only when its node says that something has changed, and then only at what is new in its history, so
//! that worlds of thousands of machines can be measured.

use std::{collections::BTreeMap, time::Duration};

use super::{
    delays::Delays,
    observer::{Address, Observer},
};
use crate::core::{
    membership,
    model::{Instant, Key, NetworkId, NodeId, TableName, Value},
    netdb::ATTACH_TABLE,
    node::Node,
    watch::Filter,
};

/// Something that machines are to show.
#[derive(Debug)]
struct Awaited {
    since: Instant,
    /// The value; nothing if there is to be no entry.
    shown: Option<Value>,
    /// Which machines do not show it yet, and how many they are.
    lacks: Vec<bool>,
    lacking: usize,
}

/// An observer that waits for writes to arrive.
#[derive(Default, Debug)]
pub struct Arrivals {
    awaited: BTreeMap<Address, Awaited>,
    /// Up to which revision each machine's history has been read.
    read: Vec<u64>,
    /// How long each write took to each machine.
    each: Delays,
    /// How long each write took to the last of its machines.
    all: Delays,
    /// Who was held for down, by whom it may concern: the machine that says so, and the node.
    downs: Vec<(usize, NodeId)>,
}

impl Arrivals {
    /// From `now` on waits until the machines show a value under an address, or nothing. A machine that shows it already is
    /// not noticed. What was awaited at that address before is given up.
    pub fn expect(
        &mut self,
        now: Instant,
        (address, shown): (Address, Option<Value>),
        machines: impl IntoIterator<Item = usize>,
    ) {
        let mut lacks = Vec::new();
        for at in machines {
            if lacks.len() <= at {
                lacks.resize(at + 1, false);
            }
            lacks[at] = true;
        }
        let awaited = Awaited {
            since: now,
            shown,
            lacking: lacks.iter().filter(|lacks| **lacks).count(),
            lacks,
        };
        if awaited.lacking > 0 {
            self.awaited.insert(address, awaited);
        } else {
            self.awaited.remove(&address);
        }
    }

    /// Returns how many addresses do not show everywhere what they are to show.
    pub fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// Returns whether something is awaited at an address.
    pub fn awaits(&self, address: &Address) -> bool {
        self.awaited.contains_key(address)
    }

    /// No longer waits for anything; returns for how many addresses it did.
    pub fn give_up(&mut self) -> usize {
        std::mem::take(&mut self.awaited).len()
    }

    /// Returns how long each write took to each machine.
    pub fn each(&self) -> &Delays {
        &self.each
    }

    /// Returns how long each write took to the last of its machines.
    pub fn all(&self) -> &Delays {
        &self.all
    }

    /// Forgets the delays, and goes on waiting.
    pub fn forget_delays(&mut self) {
        self.each = Delays::default();
        self.all = Delays::default();
    }

    /// Takes who was held for down since it was asked last: the machine that says so, and the node.
    pub fn take_downs(&mut self) -> Vec<(usize, NodeId)> {
        std::mem::take(&mut self.downs)
    }

    /// A machine shows a value under an address now, or nothing.
    fn note(&mut self, at: usize, now: Instant, address: &Address, shown: Option<&Value>) {
        let Some(awaited) = self.awaited.get_mut(address) else {
            return;
        };
        let Some(lacks) = awaited.lacks.get_mut(at).filter(|lacks| **lacks) else {
            return;
        };
        if awaited.shown.as_ref() != shown {
            return;
        }
        *lacks = false;
        awaited.lacking -= 1;
        let took: Duration = now.saturating_duration_since(awaited.since);
        self.each.record(took);
        if awaited.lacking == 0 {
            self.all.record(took);
            self.awaited.remove(address);
        }
    }

    /// Looks at all that is awaited on a machine whose history no longer has what changed.
    fn look_up(&mut self, at: usize, now: Instant, node: &Node) {
        let lacked = |(_, awaited): &(&Address, &Awaited)| awaited.lacks.get(at) == Some(&true);
        let addresses: Vec<Address> = self
            .awaited
            .iter()
            .filter(lacked)
            .map(|(address, _)| address.clone())
            .collect();
        for address in addresses {
            let (network, table, key) = &address;
            let entry = node.get(*network, table.as_str(), key.as_bytes());
            self.note(at, now, &address, entry.map(|entry| entry.value).as_ref());
        }
    }

    fn read_up_to(&mut self, at: usize, revision: u64) -> u64 {
        if self.read.len() <= at {
            self.read.resize(at + 1, 0);
        }
        std::mem::replace(&mut self.read[at], revision)
    }
}

impl Observer for Arrivals {
    fn started(&mut self, at: usize, node: &Node) {
        self.read_up_to(at, node.revision());
    }

    fn member(&mut self, at: usize, _now: Instant, event: &membership::Event) {
        if let membership::Event::Down(node) = event {
            self.downs.push((at, *node));
        }
    }

    fn changed(&mut self, at: usize, now: Instant, node: &Node) {
        let read = self.read_up_to(at, node.revision());
        if self.awaited.is_empty() {
            return;
        }
        match node.changes(read, &Filter::default(), usize::MAX) {
            Ok(heard) => {
                for revised in heard.changes {
                    let change = revised.change;
                    let address = (change.network, change.table, change.key);
                    self.note(at, now, &address, change.value.as_ref());
                }
            }
            Err(_lagged) => self.look_up(at, now, node),
        }
    }
}

/// Returns where it stands that a node is attached to a network.
pub fn attachment(network: NetworkId, node: NodeId) -> Address {
    let mut key = network.0.to_be_bytes().to_vec();
    key.extend(node.0.to_be_bytes());
    let table = TableName::new(ATTACH_TABLE).expect("a constant within the limits");
    let key = Key::new(key).expect("twelve bytes are within the limits");
    (NetworkId::CLUSTER, table, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{World, world::id_of};

    const NETWORK: NetworkId = NetworkId(1);
    const LIMIT: Duration = Duration::from_secs(1);

    fn world() -> World<Arrivals> {
        let mut world = World::settled(7, 5, NETWORK, Arrivals::default());
        world.run_for(Duration::from_secs(2));
        world
    }

    fn entry(key: &str) -> (Address, Value) {
        let table = TableName::new("t").unwrap();
        let key = Key::new(key.as_bytes().to_vec()).unwrap();
        ((NETWORK, table, key), Value::new(vec![1]).unwrap())
    }

    fn wait(world: &mut World<Arrivals>) {
        let every = Duration::from_millis(1);
        world.run_until(every, LIMIT, |world| world.observer.awaited() == 0);
    }

    #[test]
    fn a_write_arrives_once_at_each_machine_and_its_deletion_after_it() {
        let mut world = world();
        let (address, value) = entry("k");

        let awaited = (address.clone(), Some(value.clone()));
        world.observer.expect(world.now(), awaited, 0..5);
        world.put(0, address.clone(), value);
        wait(&mut world);

        assert_eq!(world.observer.each().len(), 5);
        let first = world.observer.each().quantile(0.0).unwrap();
        assert!(first < Duration::from_micros(1), "at its writer at once");
        assert_eq!(
            world.observer.all().longest(),
            world.observer.each().longest()
        );
        let awaited = (address.clone(), None);
        world.observer.expect(world.now(), awaited, 1..5);
        world.delete(0, &address);
        wait(&mut world);
        assert_eq!(world.observer.all().len(), 2);
        assert_eq!(world.observer.each().len(), 9);
    }

    #[test]
    fn what_never_arrives_is_still_awaited() {
        let mut world = world();
        let (address, value) = entry("k");
        world.crash(4);

        let awaited = (address.clone(), Some(value.clone()));
        world.observer.expect(world.now(), awaited, 1..5);
        world.put(0, address.clone(), value);
        wait(&mut world);

        assert!(world.observer.awaits(&address));
        assert_eq!(world.observer.each().len(), 3);
        assert_eq!(world.observer.give_up(), 1);
        assert_eq!(world.observer.awaited(), 0);
    }

    #[test]
    fn an_attachment_shows_to_all() {
        let mut world = world();
        let network = NetworkId(2);

        let awaited = (
            attachment(network, id_of(3)),
            Some(Value::new(vec![]).unwrap()),
        );
        world.observer.expect(world.now(), awaited, 0..5);
        world.attach(3, network);
        wait(&mut world);

        assert_eq!(world.observer.awaited(), 0);
    }

    #[test]
    fn more_than_a_history_holds_is_looked_up() {
        let mut world = world();
        let writes = crate::core::watch::HISTORY_MAX + 10;
        world.with(4, |node, now| node.detach(now, NETWORK));
        for place in 0..writes {
            let (address, value) = entry(&place.to_string());
            let awaited = (address.clone(), Some(value.clone()));
            world.observer.expect(world.now(), awaited, [4]);
            world.put(0, address, value);
        }
        world.with(4, |node, now| node.attach(now, NETWORK));
        world.run_for(LIMIT);

        assert_eq!(world.observer.awaited(), 0);
        assert_eq!(world.observer.all().len(), writes as u64);
    }
}
