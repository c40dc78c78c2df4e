//! Telling of news again, where datagrams are lost: pushes and ihaves may all be lost, and the next digest is a second away.
//!
//! Who has a new dot tells both neighbours on the ring and a random node of it, again and again for a moment; who lacks it pulls
//! it. Who is seen to have something else of a network with little in it is told of all of it. All of it is datagrams: a stream
//! that loses its last segment waits for its timer, which is 200 ms at the least.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{LogId, NetDb, receive::SMALL_RING};
use crate::core::model::{Instant, NetworkId, NodeId};

/// How long after a dot came it is told of again, at the soonest, and for how long.
const AFTER: Duration = Duration::from_millis(20);
const FOR: Duration = Duration::from_millis(70);
/// How long after each other. In a small ring hardly anybody else can tell the same.
const GAP: Duration = Duration::from_millis(15);
const GAP_IN_SMALL_RING: Duration = Duration::from_millis(7);
/// How many dots are told of again. At the bound the oldest is dropped, which was told of most often.
const DOTS_MAX: usize = 4096;
/// Of how many logs it is told; of more, digests say that something is new.
const LOGS_MAX: usize = 64;
/// How much of a network is little: that many logs, and dots in all of them.
const FEW_LOGS: usize = 8;
pub(super) const FEW_DOTS: usize = 128;

/// Dots that came lately.
#[derive(Debug)]
pub(super) struct News {
    /// When it is time to tell of them.
    pub(super) at: Instant,
    gap: Duration,
    dots: VecDeque<(Instant, LogId, u64)>,
}

impl NetDb {
    /// Tells whether datagrams are lost.
    pub fn set_lossy(&mut self, is_lossy: bool) {
        self.is_lossy = is_lossy;
    }

    /// A dot is new here.
    pub(super) fn note_news(&mut self, now: Instant, log: LogId, seq: u64) {
        if !self.is_lossy || seq == 0 {
            return;
        }
        let is_small = self.ring(log.network).len() <= SMALL_RING;
        let gap = if is_small { GAP_IN_SMALL_RING } else { GAP };
        let news = self.news.get_or_insert_with(|| News {
            at: now + AFTER,
            gap,
            dots: VecDeque::new(),
        });
        news.gap = gap;
        if news.dots.len() >= DOTS_MAX {
            news.dots.pop_front();
        }
        news.dots.push_back((now, log, seq));
    }

    /// Tells of what came lately, if it is time.
    pub(super) fn retell_news(&mut self, now: Instant) {
        let Some(mut news) = self.news.take_if(|news| news.at <= now) else {
            return;
        };
        let is_old = |came: Instant| now.saturating_duration_since(came) > FOR;
        while news.dots.pop_front_if(|(came, ..)| is_old(*came)).is_some() {}
        if news.dots.is_empty() {
            return;
        }
        let mut logs: BTreeMap<LogId, Vec<(u64, u64)>> = BTreeMap::new();
        for (_, log, seq) in &news.dots {
            if self.stands(log, *seq) {
                logs.entry(*log).or_default().push((*seq, *seq));
            }
        }
        if logs.len() > LOGS_MAX {
            self.send_digests();
        } else {
            for (log, ranges) in logs {
                self.tell_again(log, &ranges);
            }
        }
        news.at = now + news.gap;
        self.news = Some(news);
    }

    /// A node has something else of a network than is here. If that is little, it is told what is here, so that it need not wait
    /// for a stream.
    pub(super) fn tell_what_is_here(&mut self, to: NodeId, network: NetworkId) {
        let Some(replica) = self.replicas.get(&network) else {
            return;
        };
        let is_little = replica.logs().nth(FEW_LOGS).is_none()
            && replica.logs().map(|log| log.dots.len()).sum::<usize>() <= FEW_DOTS;
        if !is_little {
            return;
        }
        let others = replica.logs().filter(|log| log.id.owner != to);
        for log in others.filter(|log| !log.dots.is_empty()) {
            let ranges = log.dots.keys().map(|seq| (*seq, *seq)).collect();
            self.spread.tell_of(to, log.id, ranges);
        }
    }

    /// Returns whether a dot has not been superseded.
    fn stands(&self, log: &LogId, seq: u64) -> bool {
        let held = self.replicas.get(&log.network);
        held.and_then(|replica| replica.log(log))
            .is_some_and(|log| log.dots.contains_key(&seq))
    }

    fn tell_again(&mut self, log: LogId, ranges: &[(u64, u64)]) {
        let mut targets: BTreeSet<_> = self.ring(log.network).at_distance(1).collect();
        targets.extend(self.pick_other(log.network, self.me));
        targets.remove(&log.owner);
        for to in targets {
            self.spread.tell_of(to, log, ranges.to_vec());
        }
    }
}
