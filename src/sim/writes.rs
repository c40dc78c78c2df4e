//! What the users of a machine do: they attach it to networks and write its entries, to its disk first.

use super::{observer::Observer, world::World};
use crate::core::{
    model::{Key, NetworkId, TableName, Value},
    netdb::{PutMode, Version, WriteError},
    node::Node,
};

impl<O: Observer> World<O> {
    /// Attaches a machine to a network, on disk too.
    pub fn attach(&mut self, at: usize, network: NetworkId) {
        if !self.takes_writes(at) {
            return;
        }
        if self
            .with(at, |node, now| node.attach(now, network))
            .is_some_and(|attached| attached.is_ok())
        {
            self.machines[at].disk.attached.insert(network);
        }
    }

    /// Detaches a machine from a network, on disk too.
    pub fn detach(&mut self, at: usize, network: NetworkId) {
        if !self.takes_writes(at) {
            return;
        }
        if self
            .with(at, |node, now| node.detach(now, network))
            .is_some_and(|detached| detached.is_ok())
        {
            let disk = &mut self.machines[at].disk;
            disk.attached.remove(&network);
            disk.entries.retain(|(of, ..), _| *of != network);
        }
    }

    /// Writes an entry of a machine, to its disk too.
    pub fn put(
        &mut self,
        at: usize,
        address: (NetworkId, TableName, Key),
        value: Value,
    ) -> Option<Version> {
        if !self.takes_writes(at) {
            return None;
        }
        let (network, table, key) = &address;
        let put =
            |node: &mut Node, now| node.put(now, (*network, table, key), &value, PutMode::Upsert);
        let written: Result<Version, WriteError> = self.with(at, put)?;
        let version = written.ok()?;
        let wrote = (&address, Some(&value));
        self.observer.wrote(at, version, wrote);
        self.machines[at].disk.entries.insert(address, value);
        Some(version)
    }

    /// Deletes an entry of a machine, from its disk too.
    pub fn delete(&mut self, at: usize, address: &(NetworkId, TableName, Key)) -> Option<Version> {
        if !self.takes_writes(at) {
            return None;
        }
        let (network, table, key) = address;
        let deleted = self.with(at, |node, now| node.delete(now, (*network, table, key)))?;
        self.machines[at].disk.entries.remove(address);
        let version = deleted.ok()?;
        self.observer.wrote(at, version, (address, None));
        Some(version)
    }
}
