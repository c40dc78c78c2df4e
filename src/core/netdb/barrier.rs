//! The barrier: "tell me when every live member of the network has this write".
//!
//! The members that are not known to have it are asked, again and again until they have it, go, or the deadline passes. An
//! asked node that lacks it pulls it from whoever asked.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    NetDb, Refusal, Version,
    message::{Ask, LogId, Reached, SEQ_MAX},
    spread::Item,
};
use crate::core::model::{Instant, NetworkId, NodeId, Now};

/// How many barriers may wait at once; a new one beyond that fails at once.
const BARRIERS_MAX: usize = 1024;
/// How long the write may spread by itself before members are asked, and how long at most they are left between two questions.
const ASK_FIRST: Duration = Duration::from_millis(3);
const ASK_AGAIN_MAX: Duration = Duration::from_millis(500);

/// Names a barrier that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BarrierId(u64);

/// How a barrier ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// Every live member of the network has the write.
    Everywhere,
    /// The deadline passed first, or too many barriers wait: these members may lack it.
    NotBy(BTreeSet<NodeId>),
}

#[derive(Debug)]
struct Barrier {
    log: LogId,
    seq: u64,
    deadline: Instant,
    lacking: BTreeSet<NodeId>,
    ask_at: Instant,
    pause: Duration,
}

/// The barriers that wait, and those that have ended and were not polled yet.
#[derive(Default, Debug)]
pub(super) struct Barriers {
    last: u64,
    waiting: BTreeMap<BarrierId, Barrier>,
    ended: VecDeque<(BarrierId, Applied)>,
}

impl Barriers {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.values();
        waiting
            .map(|barrier| barrier.ask_at.min(barrier.deadline))
            .min()
    }
}

impl NetDb {
    /// Waits until every live member of the version's network has it, at most until `deadline`. The end is polled by
    /// [`Self::poll_barrier`].
    pub fn applied(&mut self, now: Now, version: Version, deadline: Instant) -> BarrierId {
        self.barriers.last += 1;
        let id = BarrierId(self.barriers.last);
        let log = version.log;
        let lacking: BTreeSet<NodeId> = self
            .owners
            .attached(log.network)
            .filter(|node| *node != self.me)
            .filter(|node| {
                self.floors.reached(log.network, *node) < version.seq || log.owner != self.me
            })
            .collect();
        if self.barriers.waiting.len() >= BARRIERS_MAX {
            self.barriers.ended.push_back((id, Applied::NotBy(lacking)));
            return id;
        }
        let barrier = Barrier {
            log,
            seq: version.seq,
            deadline,
            lacking,
            ask_at: now.instant + ASK_FIRST,
            pause: ASK_FIRST,
        };
        self.barriers.waiting.insert(id, barrier);
        self.end_barriers(now.instant);
        id
    }

    /// Returns the next barrier that has ended.
    pub fn poll_barrier(&mut self) -> Option<(BarrierId, Applied)> {
        self.barriers.ended.pop_front()
    }

    /// Ends the barriers that nobody keeps waiting, and those whose time is over.
    pub(super) fn end_barriers(&mut self, now: Instant) {
        let owners = &self.owners;
        let mut ended = Vec::new();
        for (id, barrier) in &mut self.barriers.waiting {
            let network = barrier.log.network;
            barrier
                .lacking
                .retain(|node| owners.is_attached(*node, network));
            if barrier.lacking.is_empty() {
                ended.push((*id, Applied::Everywhere));
            } else if barrier.deadline <= now {
                ended.push((*id, Applied::NotBy(std::mem::take(&mut barrier.lacking))));
            }
        }
        for (id, applied) in ended {
            self.barriers.waiting.remove(&id);
            self.barriers.ended.push_back((id, applied));
        }
    }

    /// Asks those again that have not said that they have it.
    pub(super) fn ask_for_barriers(&mut self, now: Instant) {
        self.end_barriers(now);
        for barrier in self.barriers.waiting.values_mut() {
            if barrier.ask_at > now {
                continue;
            }
            let ask = Ask {
                log: barrier.log,
                seq: barrier.seq,
            };
            for node in &barrier.lacking {
                self.spread.tell(*node, Item::Ask(ask));
            }
            barrier.pause = (barrier.pause * 2).min(ASK_AGAIN_MAX);
            barrier.ask_at = now + barrier.pause;
        }
    }

    pub(super) fn handle_ask(
        &mut self,
        now: Instant,
        from: NodeId,
        ask: Ask,
    ) -> Result<(), Refusal> {
        let log = ask.log;
        if ask.seq > SEQ_MAX {
            return Err(Refusal::Malformed);
        }
        if log.owner != self.me {
            self.accept(now, &log)?;
        }
        let replica = self.replicas.get(&log.network).ok_or(Refusal::NotCarried)?;
        let prefix = replica.log(&log).map_or(0, |log| log.have.prefix());
        if prefix < ask.seq && log.owner != self.me {
            self.note_gap(now, from, log, ask.seq);
        }
        self.spread
            .tell(from, Item::Reached(Reached { log, prefix }));
        Ok(())
    }

    pub(super) fn handle_reached(
        &mut self,
        now: Instant,
        from: NodeId,
        reached: Reached,
    ) -> Result<(), Refusal> {
        let Reached { log, prefix } = reached;
        let ours = self.our_log(log.network) == Some(log);
        if ours {
            if prefix > self.own_head(&log) {
                return Err(Refusal::Inconsistent);
            }
            self.note_reached(log.network, from, prefix);
        }
        for barrier in self.barriers.waiting.values_mut() {
            if barrier.log == log && barrier.seq <= prefix {
                barrier.lacking.remove(&from);
            }
        }
        self.end_barriers(now);
        Ok(())
    }

    /// Asks some members how far they have one of our logs, so that its floor may move.
    pub(super) fn ask_how_far(&mut self, network: NetworkId, seq: u64, members: usize) {
        let Some(log) = self.our_log(network) else {
            return;
        };
        let others: Vec<NodeId> = self.ring(network).others().collect();
        let behind = others
            .into_iter()
            .filter(|node| self.floors.reached(network, *node) < seq)
            .take(members);
        for node in behind.collect::<Vec<_>>() {
            self.spread.tell(node, Item::Ask(Ask { log, seq }));
        }
    }
}
