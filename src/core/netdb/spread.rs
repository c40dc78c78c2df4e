//! Dissemination: what is still to be sent to whom.
//!
//! A new dot is pushed at once to ring ±1 and two random nodes; ring ±2 and ±3 are told of it 5 and 25 ms later. Two ring
//! edges make coverage certain where nothing is lost, and the later edges mend what is. The dots of a burst go to one random node
//! only; where hardly anybody is at a distance, those that were pushed to are told too.
//!
//! - To one node there is one flush a millisecond: the first dot after a silence goes at once, what follows shares datagrams.
//! - Small messages go first, then own writes, then what is passed on; the networks take turns, a record each.
//! - A flush carries at most [`FLUSH_BYTES`], so that a burst does not overrun the receiver.
//! - A queue that reaches [`QUEUE_MAX`] is dropped and its node is sent a digest instead, so the cost of being slow is the
//!   difference, not the number of events.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    have,
    message::{Ask, Digest, LogId, Reached},
};
use crate::core::model::{Instant, NetworkId, NodeId};

/// How many dots wait for one node before the queue is dropped for a digest.
pub(super) const QUEUE_MAX: usize = 16_384;
/// How many small messages wait for one node; more are dropped, since anti-entropy says it again.
const CONTROL_MAX: usize = 1024;
/// The least time between two flushes to one node.
const FLUSH_EVERY: Duration = Duration::from_millis(1);
/// How many bytes one flush carries: half of what a link of 1 Gbit/s does in that time.
const FLUSH_BYTES: usize = 64 * 1024;
/// How many nodes that were flushed are remembered at least before those that have rested are looked for.
const RESTING_MIN: usize = 64;
/// How many ihaves wait for their time, and how many ranges of one log are named at once; more are left to anti-entropy.
const IHAVES_MAX: usize = 65_536;
const RANGES_A_RECORD: usize = 64;

/// Something to be put into a record for one node.
#[derive(Debug)]
pub(super) enum Item {
    /// A dot, by number; its floor goes with it. 0 stands for the floor alone.
    Push(LogId, u64),
    Ihave(LogId, Vec<(u64, u64)>),
    Pull(LogId, Vec<(u64, u64)>),
    Digest(Digest),
    Ask(Ask),
    Reached(Reached),
}

/// The dots that wait, by network; the networks take turns.
#[derive(Default, Debug)]
struct Lanes {
    lanes: BTreeMap<NetworkId, VecDeque<(LogId, u64)>>,
    /// The network that was served last.
    served: u32,
}

impl Lanes {
    fn push(&mut self, log: LogId, seq: u64) {
        let lane = self.lanes.entry(log.network).or_default();
        lane.push_back((log, seq));
    }

    /// Returns the next dot of the network whose turn it is.
    fn pop(&mut self) -> Option<(LogId, u64)> {
        let after = self
            .lanes
            .range(NetworkId(self.served.wrapping_add(1))..)
            .next();
        let network = *after.or_else(|| self.lanes.first_key_value())?.0;
        self.served = network.0;
        self.take(network)
    }

    fn peek(&self, network: NetworkId) -> Option<(LogId, u64)> {
        self.lanes.get(&network)?.front().copied()
    }

    fn take(&mut self, network: NetworkId) -> Option<(LogId, u64)> {
        let lane = self.lanes.get_mut(&network)?;
        let dot = lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&network);
        }
        dot
    }
}

#[derive(Default, Debug)]
struct Queue {
    control: VecDeque<Item>,
    own: Lanes,
    passed_on: Lanes,
    /// How many dots are in the lanes.
    dots: usize,
    /// Dots that the node has sent here meanwhile, and so need not be given.
    heard: BTreeSet<(LogId, u64)>,
    /// How many bytes may still go in this flush.
    budget: usize,
    /// It is being flushed, or waits for its turn to be.
    is_ready: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.dots == 0
    }
}

/// What waits to be sent.
#[derive(Debug)]
pub(super) struct Spread {
    me: NodeId,
    now: Instant,
    queues: BTreeMap<NodeId, Queue>,
    /// Nodes that are being flushed, in turn.
    ready: VecDeque<NodeId>,
    /// When nodes that were flushed lately may be flushed again; those that have nothing waiting are dropped lazily.
    resting: BTreeMap<NodeId, Instant>,
    /// At how many of them those that have rested are dropped.
    resting_max: usize,
    waking: BTreeSet<(Instant, NodeId)>,
    /// Ihaves that wait, each list in order of time.
    soon: VecDeque<(Instant, NodeId, LogId, u64)>,
    later: VecDeque<(Instant, NodeId, LogId, u64)>,
}

/// A queue was at its bound and was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow;

impl Spread {
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            now: Instant::default(),
            queues: BTreeMap::new(),
            ready: VecDeque::new(),
            resting: BTreeMap::new(),
            resting_max: RESTING_MIN,
            waking: BTreeSet::new(),
            soon: VecDeque::new(),
            later: VecDeque::new(),
        }
    }

    /// Returns the time of the last input.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Tells the time of what follows.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn queue(&mut self, to: NodeId) -> &mut Queue {
        let queue = self.queues.entry(to).or_default();
        if queue.is_empty() && !queue.is_ready {
            match self.resting.get(&to) {
                Some(until) if *until > self.now => {
                    self.waking.insert((*until, to));
                }
                Some(_) | None => {
                    queue.budget = FLUSH_BYTES;
                    queue.is_ready = true;
                    self.ready.push_back(to);
                }
            }
        }
        queue
    }

    /// Queues a dot for a node. Returns how many wait for it.
    pub(super) fn push(&mut self, to: NodeId, log: LogId, seq: u64) -> Result<usize, Overflow> {
        let own = log.owner == self.me;
        let queue = self.queue(to);
        if queue.dots >= QUEUE_MAX {
            self.forget(to);
            return Err(Overflow);
        }
        queue.dots += 1;
        if own {
            queue.own.push(log, seq);
        } else {
            queue.passed_on.push(log, seq);
        }
        Ok(queue.dots)
    }

    /// Queues a small message; one that finds the queue full is dropped, since anti-entropy says it again.
    pub(super) fn tell(&mut self, to: NodeId, item: Item) {
        let queue = self.queue(to);
        if queue.control.len() < CONTROL_MAX {
            queue.control.push_back(item);
        }
    }

    /// Schedules telling a node of a dot: the first time, then the second.
    pub(super) fn ihave_at(&mut self, first: bool, at: Instant, to: NodeId, dot: (LogId, u64)) {
        let list = if first {
            &mut self.soon
        } else {
            &mut self.later
        };
        if list.len() < IHAVES_MAX {
            list.push_back((at, to, dot.0, dot.1));
        }
    }

    /// Moves the ihaves whose time has come to their queues, and lets the nodes be flushed that have rested.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.set_now(now);
        while let Some(&(until, node)) = self.waking.first().filter(|(until, _)| *until <= now) {
            self.waking.remove(&(until, node));
            if let Some(queue) = self.queues.get_mut(&node) {
                queue.budget = FLUSH_BYTES;
                queue.is_ready = true;
                self.ready.push_back(node);
            }
        }
        let mut due: BTreeMap<(NodeId, LogId), Vec<(u64, u64)>> = BTreeMap::new();
        for list in [&mut self.soon, &mut self.later] {
            while let Some((_, to, log, seq)) = list.pop_front_if(|(at, ..)| *at <= now) {
                // Who wakes late tells of a dot for the first and the second time at once, and once is enough.
                due.entry((to, log)).or_default().push((seq, seq));
            }
        }
        for ((to, log), ranges) in due {
            self.tell_of(to, log, ranges);
        }
    }

    /// Tells a node of dots of a log, which may be in any order and more than once.
    pub(super) fn tell_of(&mut self, to: NodeId, log: LogId, mut ranges: Vec<(u64, u64)>) {
        have::join(&mut ranges);
        for chunk in ranges.chunks(RANGES_A_RECORD) {
            self.tell(to, Item::Ihave(log, chunk.to_vec()));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let ihaves = [self.soon.front(), self.later.front()];
        let ihaves = ihaves.into_iter().flatten().map(|(at, ..)| *at);
        ihaves
            .chain(self.waking.first().map(|(until, _)| *until))
            .min()
    }

    /// Returns the next thing to send, and to whom.
    pub(super) fn pop(&mut self) -> Option<(NodeId, Item)> {
        loop {
            let to = *self.ready.front()?;
            let Some(queue) = self.queues.get_mut(&to) else {
                self.ready.pop_front();
                continue;
            };
            if queue.is_empty() || queue.budget == 0 {
                self.rest(to);
                continue;
            }
            if let Some(item) = queue.control.pop_front() {
                return Some((to, item));
            }
            let dot = queue.own.pop().or_else(|| queue.passed_on.pop());
            queue.dots -= 1;
            let (log, seq) = dot?;
            if !queue.heard.remove(&(log, seq)) {
                return Some((to, Item::Push(log, seq)));
            }
        }
    }

    /// A node has sent a dot: it need not be given it.
    pub(super) fn hear(&mut self, from: NodeId, log: LogId, seq: u64) {
        if let Some(queue) = self.queues.get_mut(&from)
            && queue.dots > 0
            && queue.heard.len() < QUEUE_MAX
        {
            queue.heard.insert((log, seq));
        }
    }

    /// Returns the next dot for `to` if it is of `log`.
    pub(super) fn peek_dot(&mut self, to: NodeId, log: LogId) -> Option<u64> {
        loop {
            let queue = self.queues.get_mut(&to)?;
            let lanes = if log.owner == self.me {
                &queue.own
            } else {
                &queue.passed_on
            };
            let (next, seq) = lanes.peek(log.network)?;
            if next != log {
                return None;
            }
            if !queue.heard.remove(&(log, seq)) {
                return Some(seq);
            }
            self.take_dot(to, log);
        }
    }

    /// Takes the dot that [`Self::peek_dot`] returned.
    pub(super) fn take_dot(&mut self, to: NodeId, log: LogId) {
        let Some(queue) = self.queues.get_mut(&to) else {
            return;
        };
        let lanes = if log.owner == self.me {
            &mut queue.own
        } else {
            &mut queue.passed_on
        };
        if lanes.take(log.network).is_some() {
            queue.dots -= 1;
        }
    }

    /// Bytes have gone to a node.
    pub(super) fn spend(&mut self, to: NodeId, bytes: usize) {
        if let Some(queue) = self.queues.get_mut(&to) {
            queue.budget = queue.budget.saturating_sub(bytes);
        }
    }

    /// The node at the front of the turn has had its flush.
    fn rest(&mut self, to: NodeId) {
        self.ready.pop_front();
        let until = self.now + FLUSH_EVERY;
        self.resting.insert(to, until);
        match self.queues.get_mut(&to) {
            Some(queue) if !queue.is_empty() => {
                queue.is_ready = false;
                self.waking.insert((until, to));
            }
            Some(_) | None => drop(self.queues.remove(&to)),
        }
        if self.resting.len() > self.resting_max {
            let now = self.now;
            self.resting.retain(|_, until| *until > now);
            self.resting_max = 2 * self.resting.len() + RESTING_MIN;
        }
    }

    /// Forgets what waits for a node.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.queues.remove(&node);
        self.ready.retain(|ready| *ready != node);
        self.waking.retain(|(_, waking)| *waking != node);
    }

    /// Returns how many dots and small messages wait, over all nodes.
    pub(super) fn len(&self) -> usize {
        let queues = self.queues.values();
        queues.map(|queue| queue.dots + queue.control.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::Generation;

    const ME: NodeId = NodeId(1);
    const PEER: NodeId = NodeId(2);

    fn log(owner: u64, network: u32) -> LogId {
        LogId {
            network: NetworkId(network),
            owner: NodeId(owner),
            generation: Generation(1),
            epoch: 1,
        }
    }

    /// Pops everything that may go now, as (owner, network, seq), each record spending `bytes`.
    fn flush(spread: &mut Spread, bytes: usize) -> Vec<(u64, u32, u64)> {
        let mut popped = Vec::new();
        while let Some((to, item)) = spread.pop() {
            spread.spend(to, bytes);
            if let Item::Push(log, seq) = item {
                popped.push((log.owner.0, log.network.0, seq));
            }
        }
        popped
    }

    fn after(millis: u64) -> Instant {
        Instant::default() + Duration::from_millis(millis)
    }

    #[test]
    fn own_writes_go_first_and_networks_take_turns() {
        let mut spread = Spread::new(ME);
        for seq in 1..=3 {
            spread.push(PEER, log(3, 1), seq).unwrap();
        }
        spread.push(PEER, log(3, 2), 1).unwrap();
        spread.push(PEER, log(1, 2), 9).unwrap();

        let popped = flush(&mut spread, 1);

        assert_eq!(
            popped,
            [(1, 2, 9), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 3)]
        );
    }

    #[test]
    fn the_first_dot_after_a_silence_goes_at_once_and_what_follows_within_a_millisecond_waits() {
        let mut spread = Spread::new(ME);
        spread.push(PEER, log(1, 1), 1).unwrap();
        assert_eq!(flush(&mut spread, 100).len(), 1);

        spread.push(PEER, log(1, 1), 2).unwrap();
        spread.push(PEER, log(1, 1), 3).unwrap();

        assert!(flush(&mut spread, 100).is_empty());
        assert_eq!(spread.poll_timeout(), Some(after(1)));
        spread.handle_timeout(after(1));
        assert_eq!(flush(&mut spread, 100).len(), 2);
    }

    #[test]
    fn a_flush_ends_when_its_bytes_are_spent_and_the_rest_follows() {
        let mut spread = Spread::new(ME);
        for seq in 1..=100 {
            spread.push(PEER, log(1, 1), seq).unwrap();
        }

        let first = flush(&mut spread, FLUSH_BYTES / 4).len();

        assert_eq!(first, 4);
        spread.handle_timeout(after(1));
        assert_eq!(flush(&mut spread, 1).len(), 96);
        spread.handle_timeout(after(2));
        assert_eq!(spread.poll_timeout(), None);
    }

    #[test]
    fn what_a_node_has_sent_meanwhile_is_not_sent_back() {
        let mut spread = Spread::new(ME);
        for seq in 1..=4 {
            spread.push(PEER, log(3, 1), seq).unwrap();
        }
        spread.hear(PEER, log(3, 1), 1);
        spread.hear(PEER, log(3, 1), 3);

        let (_, item) = spread.pop().unwrap();

        assert!(matches!(item, Item::Push(_, 2)));
        assert_eq!(spread.peek_dot(PEER, log(3, 1)), Some(4));
        assert_eq!(spread.len(), 1);
    }

    #[test]
    fn who_wakes_late_tells_of_each_dot_once() {
        let mut spread = Spread::new(ME);
        for (first, millis, seq) in [(true, 2, 1), (true, 2, 2), (false, 1, 1), (false, 2, 5)] {
            spread.ihave_at(first, after(millis), PEER, (log(1, 1), seq));
        }

        spread.handle_timeout(after(9));

        let (_, item) = spread.pop().unwrap();
        assert!(
            matches!(&item, Item::Ihave(_, ranges) if *ranges == [(1, 2), (5, 5)]),
            "{item:?}"
        );
        assert!(spread.pop().is_none());
    }

    #[test]
    fn a_queue_at_its_bound_is_dropped_and_says_so() {
        let mut spread = Spread::new(ME);
        for seq in 0..QUEUE_MAX as u64 {
            spread.push(PEER, log(1, 1), seq + 1).unwrap();
        }

        assert_eq!(spread.push(PEER, log(1, 1), 1), Err(Overflow));
        assert_eq!(spread.len(), 0);
        assert!(flush(&mut spread, 1).is_empty());
    }
}
