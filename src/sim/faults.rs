//! What goes wrong in a world: crashes, disks, pauses, clocks, keys, versions. What goes wrong on the way is in [`super::link`].

use std::time::Duration;

use super::{observer::Observer, world::World};
use crate::core::{
    model::NodeId,
    wire::{
        keyring::{ClusterKey, KeyId, Keyring},
        record::RecordKind,
    },
};

/// A kind of record that no version has.
const UNKNOWN: RecordKind = RecordKind(250);

impl<O: Observer> World<O> {
    /// Ends the program of a machine, without a word. Its disk stays.
    pub fn crash(&mut self, at: usize) {
        if self.machines[at].node.take().is_some() {
            self.counts.crashes += 1;
            self.observer.crashed(at);
            self.trace.note_number(at as u64);
        }
    }

    /// Ends the program of a machine and wipes its disk: the next start is a node that nobody has met, at the same address.
    pub fn lose_disk(&mut self, at: usize) {
        self.crash(at);
        self.counts.lost_disks += 1;
        let machine = &mut self.machines[at];
        machine.id = NodeId(machine.id.0 + (1 << 32));
        machine.disk.attached.clear();
        machine.disk.entries.clear();
        machine.disk.is_full = false;
    }

    /// Ends the program of a machine, whose disk then lacks what was written since the last start or [`Self::sync_disk`].
    pub fn lose_writes(&mut self, at: usize) {
        self.crash(at);
        let disk = &mut self.machines[at].disk;
        let (attached, entries) = disk.synced.clone();
        if (&attached, &entries) != (&disk.attached, &disk.entries) {
            self.counts.lost_writes += 1;
        }
        disk.attached = attached;
        disk.entries = entries;
    }

    /// Makes all that a machine has written so far outlive [`Self::lose_writes`].
    pub fn sync_disk(&mut self, at: usize) {
        let disk = &mut self.machines[at].disk;
        disk.synced = (disk.attached.clone(), disk.entries.clone());
    }

    /// Fills the disk of a machine: until it has room again, what must be on it before others hear of it is refused.
    pub fn fill_disk(&mut self, at: usize) {
        self.machines[at].disk.is_full = true;
    }

    /// Gives the disk of a machine room again.
    pub fn free_disk(&mut self, at: usize) {
        self.machines[at].disk.is_full = false;
    }

    /// Returns whether a machine's disk takes a write, and counts it if it does not.
    pub(super) fn takes_writes(&mut self, at: usize) -> bool {
        let is_full = self.machines[at].disk.is_full;
        self.counts.refused_writes += u64::from(is_full);
        !is_full
    }

    /// Lets a node say that it leaves. Its program goes on, so that the word gets around, until it is ended.
    pub fn leave(&mut self, at: usize) {
        if self.with(at, |node, now| node.leave(now)).is_some() {
            self.counts.leaves += 1;
        }
    }

    /// Lets a program stand still: what comes in the meantime waits for it.
    pub fn pause(&mut self, at: usize, duration: Duration) {
        self.counts.pauses += 1;
        self.machines[at].paused_until = self.now() + duration;
    }

    /// Steps the wall clock of a machine.
    pub fn step_clock(&mut self, at: usize, millis: i64) {
        self.counts.clock_steps += 1;
        self.machines[at].skew += millis;
    }

    /// Draws a new key; programs that start from now on open with it too.
    pub fn add_key(&mut self) {
        let newest = self.keyring.keys().map(|(id, _)| id.0).max();
        let id = KeyId(newest.unwrap_or(0).wrapping_add(1));
        let key = ClusterKey::random(&mut self.rng);
        self.keyring.add(id, key);
    }

    /// Makes the newest key the one that seals; programs that start from now on seal with it.
    pub fn promote_key(&mut self) {
        let newest = self.keyring.keys().map(|(id, _)| id).max();
        let former = self.keyring.primary().0;
        if let Some(newest) = newest.filter(|newest| *newest != former) {
            self.keyring.promote(newest);
            self.counts.rotations += 1;
        }
    }

    /// Gives a running node the ring that a program would start with now.
    pub fn hand_keys(&mut self, at: usize) {
        let ring: Keyring = self.keyring.clone();
        self.with(at, |node, _| node.set_keyring(ring));
    }

    /// Lets a node send to all others a record of a kind that nobody knows, before whatever it says next in that datagram.
    pub fn say_unknown(&mut self, at: usize) {
        let others: Vec<NodeId> = self.machines.iter().map(|machine| machine.id).collect();
        let me = self.machines[at].id;
        let said = self.with(at, |node, _| {
            for to in others.into_iter().filter(|to| *to != me) {
                node.send_record(to, UNKNOWN, b"from a later version".to_vec());
            }
        });
        self.counts.unknown_records += u64::from(said.is_some());
    }
}
