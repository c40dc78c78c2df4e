//! An observer: whoever wants to know what happens in a world, to check it or to measure it.

use crate::core::{
    membership,
    model::{Instant, Key, NetworkId, TableName, Value},
    netdb::{Applied, BarrierId, SyncState, Version},
    node::Node,
};

/// Where an entry is: its network, table and key.
pub type Address = (NetworkId, TableName, Key);

/// Is told what happens as it happens. What an observer does not care for costs nothing.
pub trait Observer {
    /// A machine's program has started; its first words come after this.
    fn started(&mut self, at: usize, node: &Node) {
        let _ = (at, node);
    }

    /// A machine's program has ended.
    fn crashed(&mut self, at: usize) {
        let _ = at;
    }

    /// A machine's program has been given something: a datagram, a request, its time, a write.
    fn touched(&mut self, at: usize, now: Instant, node: &Node) {
        let _ = (at, now, node);
    }

    /// A machine's program has written an entry of its own, or deleted it, or written it again after a start.
    fn wrote(&mut self, at: usize, version: Version, wrote: (&Address, Option<&Value>)) {
        let _ = (at, version, wrote);
    }

    /// A machine has sent a datagram; it may be lost.
    fn datagram_sent(&mut self, from: usize, datagram: &[u8]) {
        let _ = (from, datagram);
    }

    /// What a machine knows of the members has changed.
    fn member(&mut self, at: usize, now: Instant, event: &membership::Event) {
        let _ = (at, now, event);
    }

    /// What shows on a machine has changed; the node's history has it.
    fn changed(&mut self, at: usize, now: Instant, node: &Node) {
        let _ = (at, now, node);
    }

    /// A network has come so far on a machine.
    fn synced(&mut self, at: usize, now: Instant, reached: (NetworkId, SyncState), node: &Node) {
        let _ = (at, now, reached, node);
    }

    /// A barrier that a machine's program waited for has ended.
    fn barrier(&mut self, at: usize, now: Instant, ended: (BarrierId, &Applied)) {
        let _ = (at, now, ended);
    }
}

/// Nobody looks.
#[derive(Clone, Copy, Default, Debug)]
pub struct Nobody;

impl Observer for Nobody {}
