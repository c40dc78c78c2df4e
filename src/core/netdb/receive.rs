//! What other nodes send: push, ihave and pull.
//!
//! A gap in a log is pulled after a moment from whoever showed it; what three pulls do not bring (superseded dots never
//! come) is left to a sync, whose complete answer may cover it.

use std::collections::BTreeMap;

use rand::RngExt;

use super::{
    ATTACH_TABLE, BODY_MAX, LogId, NetDb, Outgoing, PUSHES_MAX, RANDOM_MAX, READY_TABLE, Reason,
    Refusal, Scheme,
    have::RANGES_MAX,
    log::Log,
    message::{Complete, Digest, Ihave, Pull, PushHead, SEQ_MAX, WireDot, are_sane, wire_dots},
    replica::{Applied, Replica},
    retell::FEW_DOTS,
    spread::{Item, Overflow},
    write::attached_network,
};
use crate::core::{
    model::{Instant, Mutation, NetworkId, NodeId, Now},
    wire::{codec, record::RecordKind},
};

/// How many logs may wait for pulls; gaps of more are left to anti-entropy.
const WANTED_MAX: usize = 4096;
/// How often a gap is pulled before a sync is asked for.
const PULLS_MAX: u32 = 3;
/// The same where datagrams are lost, for a gap of a few dots: it is pulled more often and three times as soon again, since a
/// stream that loses a segment may take longer than all of them.
const PULLS_MAX_LOSSY: u32 = 16;
/// How many ranges one pull names.
const PULL_RANGES: usize = 32;
/// How many dots that follow each other in a log are pushed to the same nodes: a few datagrams full.
const DOTS_A_PICK: u64 = 32;
/// A ring of so few nodes has hardly any at a distance: those that were pushed to are told too, or one lost push would be all.
pub(super) const SMALL_RING: usize = 4;
/// A dot that finds more than so many others waiting is one of a burst. It has time, so the last of those that it would be pushed
/// to is spared.
const BURST: usize = 16;
/// How many dots one pull is answered with.
const PULL_DOTS: usize = 1024;

/// How much room a push is made with: for one small dot, or for a full record and the dot that does not fit it any more.
const ONE_DOT: usize = 256;
const FULL: usize = BODY_MAX + ONE_DOT;

/// What became of a dot that another node sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// It was not here.
    New,
    /// It was here, or is superseded.
    Known,
    /// There is no room for it: it has been counted, and comes again by anti-entropy.
    Refused,
}

/// Gaps that are to be pulled.
#[derive(Default, Debug)]
pub(super) struct Wanted {
    logs: BTreeMap<LogId, Gap>,
}

#[derive(Debug)]
struct Gap {
    at: Instant,
    up_to: u64,
    pulls: u32,
    from: Vec<NodeId>,
}

impl Wanted {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.logs.values().map(|gap| gap.at).min()
    }
}

impl NetDb {
    /// Takes a record of another node. A refusal has been counted; what came before it in the record stands.
    pub fn handle_record(
        &mut self,
        now: Now,
        from: NodeId,
        kind: RecordKind,
        body: &[u8],
    ) -> Result<(), Refusal> {
        self.spread.set_now(now.instant);
        self.refusals.hear(now.instant, from);
        let taken = match kind {
            RecordKind::PUSH => self.handle_push(now, from, body),
            RecordKind::IHAVE => {
                decode(body).and_then(|ihave| self.handle_ihave(now, from, &ihave))
            }
            RecordKind::PULL => decode(body).and_then(|pull| self.handle_pull(from, &pull)),
            RecordKind::DIGEST => {
                decode::<Digest>(body).map(|digest| self.handle_digest(now.instant, from, &digest))
            }
            RecordKind::ASK => decode(body).and_then(|ask| self.handle_ask(now.instant, from, ask)),
            RecordKind::REACHED => {
                decode(body).and_then(|reached| self.handle_reached(now.instant, from, reached))
            }
            _ => Err(Refusal::Malformed),
        };
        taken.inspect_err(|refusal| self.refuse(*refusal))
    }

    fn handle_push(&mut self, now: Now, from: NodeId, body: &[u8]) -> Result<(), Refusal> {
        let (head, used) =
            codec::decode_borrowed::<PushHead>(body).map_err(|_counted| Refusal::Malformed)?;
        if head.floor > SEQ_MAX {
            return Err(Refusal::Malformed);
        }
        if head.log.owner == self.me {
            let seqs = wire_dots(&body[used..]).map_while(|dot| dot.ok().map(|dot| dot.seq));
            return Err(self.about_us(&head.log, seqs.max().unwrap_or(0).max(head.floor)));
        }
        self.accept(now.instant, &head.log)?;
        let mut highest = 0;
        for dot in wire_dots(&body[used..]) {
            let dot = dot.map_err(|_counted| Refusal::Malformed)?;
            self.check_dot(now, &dot)?;
            highest = highest.max(dot.seq);
            self.spread.hear(from, head.log, dot.seq);
            if self.take_dot(head.log, &dot, RANGES_MAX) == Taken::New {
                self.spread_dot(now.instant, head.log, dot.seq, Some(from));
            }
        }
        self.take_floor(now.instant, from, head);
        self.note_gap(now.instant, from, head.log, highest);
        self.settle_if_ready(head.log.owner);
        Ok(())
    }

    /// Takes one dot of an accepted log, of which no more than `ranges_max` ranges may be held.
    pub(super) fn take_dot(&mut self, log: LogId, dot: &WireDot<'_>, ranges_max: usize) -> Taken {
        let shown = self.owners.shows(&log);
        let Some(replica) = self.replicas.get_mut(&log.network) else {
            return Taken::Refused;
        };
        let Some(at) = replica.open(log, shown) else {
            self.refuse(Refusal::NoRoom);
            return Taken::Refused;
        };
        match replica.apply(at, dot, ranges_max) {
            Applied::Known => {
                self.stats.duplicates += 1;
                Taken::Known
            }
            Applied::NoRoom => {
                self.refuse(Refusal::NoRoom);
                Taken::Refused
            }
            Applied::New(difference) => {
                self.stats.applied += 1;
                self.clock = self.clock.max(dot.written);
                self.report(log.network, difference, Reason::Removed);
                if log.network == NetworkId::CLUSTER {
                    self.read_cluster_dot(log, dot);
                }
                Taken::New
            }
        }
    }

    /// The cluster scope's own tables steer the DB itself.
    fn read_cluster_dot(&mut self, log: LogId, dot: &WireDot<'_>) {
        match dot.table {
            ATTACH_TABLE => {
                let Some(network) = attached_network(dot.key, log.owner) else {
                    return self.refuse(Refusal::Malformed);
                };
                if self
                    .owners
                    .attach(LogId { network, ..log }, dot.seq, dot.value.is_some())
                {
                    self.floors.forget_member(network, log.owner);
                    self.refresh(log.owner, Reason::OwnerLeft);
                }
            }
            READY_TABLE => {
                if let Some(value) = dot.value {
                    self.note_ready(log, dot.seq, value);
                }
            }
            _ => {}
        }
    }

    /// Takes what a complete answer says beside its dots. Returns whether that was news.
    pub(super) fn take_complete(&mut self, log: LogId, complete: &Complete) -> bool {
        if complete.floor > 0 {
            self.end_former(&log);
        }
        let shown = self.owners.shows(&log);
        let Some(replica) = self.replicas.get_mut(&log.network) else {
            return false;
        };
        let Some(at) = replica.open(log, shown) else {
            self.refuse(Refusal::NoRoom);
            return false;
        };
        let extent = |replica: &Replica| replica.log(&log).map(Log::extent).unwrap_or_default();
        let before = extent(replica);
        let gone = replica.complete(at, complete);
        let after = extent(replica);
        let risen = after.floor > before.floor;
        self.stats.floors_raised += u64::from(risen);
        self.stats.snapshots += u64::from(complete.kept.is_some());
        if log.network == NetworkId::CLUSTER && complete.kept.is_some() {
            self.reread_attachments(log);
        }
        self.report(log.network, gone, Reason::Removed);
        after != before
    }

    fn take_floor(&mut self, now: Instant, from: NodeId, head: PushHead) {
        let shown = self.owners.shows(&head.log);
        let Some(replica) = self.replicas.get_mut(&head.log.network) else {
            return;
        };
        let known = replica.log(&head.log).map_or(0, |log| log.floor);
        let prefix = replica.log(&head.log).map_or(0, |log| log.have.prefix());
        if head.floor.min(prefix) <= known {
            return;
        }
        self.end_former(&head.log);
        let Some(replica) = self.replicas.get_mut(&head.log.network) else {
            return;
        };
        let Some(at) = replica.open(head.log, shown) else {
            return;
        };
        let gone = replica.raise_floor(at, head.floor);
        let risen = replica.log(&head.log).is_some_and(|log| log.floor > known);
        self.report(head.log.network, gone, Reason::Removed);
        if risen {
            self.stats.floors_raised += 1;
            self.spread_dot(now, head.log, 0, Some(from));
        }
    }

    /// A log's tombstones may go from here on: they hid what the owner's former generation had of their keys, so that goes first.
    fn end_former(&mut self, log: &LogId) {
        if self.owners.end_former(log) {
            self.refresh(log.owner, Reason::Removed);
        }
    }

    /// A log is known to have dots up to `up_to` at `from`: what is missing is wanted.
    pub(super) fn note_gap(&mut self, now: Instant, from: NodeId, log: LogId, up_to: u64) {
        let have = self
            .replicas
            .get(&log.network)
            .and_then(|replica| replica.log(&log));
        let prefix = have.map_or(0, |log| log.have.prefix());
        if up_to <= prefix
            || (self.wanted.logs.len() >= WANTED_MAX && !self.wanted.logs.contains_key(&log))
        {
            return;
        }
        let at = now + self.config.pull_after;
        let gap = self.wanted.logs.entry(log).or_insert(Gap {
            at,
            up_to,
            pulls: 0,
            from: Vec::new(),
        });
        gap.up_to = gap.up_to.max(up_to);
        if !gap.from.contains(&from) {
            gap.from.truncate(3);
            gap.from.push(from);
        }
    }

    fn handle_ihave(&mut self, now: Now, from: NodeId, ihave: &Ihave) -> Result<(), Refusal> {
        if !are_sane(&ihave.ranges) {
            return Err(Refusal::Malformed);
        }
        if ihave.log.owner == self.me {
            let up_to = ihave.ranges.last().map_or(0, |range| range.1);
            return Err(self.about_us(&ihave.log, up_to));
        }
        self.accept(now.instant, &ihave.log)?;
        let known = self.replicas[&ihave.log.network].log(&ihave.log);
        let lacks = |&(first, last): &(u64, u64)| {
            known.is_none_or(|log| {
                let missing = log.have.missing(last, usize::MAX);
                missing.iter().any(|range| range.1 >= first)
            })
        };
        let up_to = ihave
            .ranges
            .iter()
            .filter(|range| lacks(range))
            .map(|range| range.1)
            .max();
        match up_to {
            Some(_) if ihave.large => {
                self.want_log(from, ihave.log);
                self.start_sync(now.instant, from);
            }
            Some(up_to) => self.note_gap(now.instant, from, ihave.log, up_to),
            None => {}
        }
        Ok(())
    }

    fn handle_pull(&mut self, from: NodeId, pull: &Pull) -> Result<(), Refusal> {
        if !are_sane(&pull.ranges) {
            return Err(Refusal::Malformed);
        }
        let replica = self
            .replicas
            .get(&pull.log.network)
            .ok_or(Refusal::NotCarried)?;
        let log = replica.log(&pull.log).ok_or(Refusal::Over)?;
        let mut seqs = Vec::new();
        for &range in &pull.ranges {
            replica.each_dot(log, range, |dot| {
                seqs.push(dot.seq);
                seqs.len() < PULL_DOTS
            });
        }
        for seq in seqs {
            self.queue_dot(from, pull.log, seq);
        }
        Ok(())
    }

    /// Sends the pulls that are due.
    pub(super) fn pull_what_is_due(&mut self, now: Instant) {
        let due = self.wanted.logs.iter().filter(|(_, gap)| gap.at <= now);
        let due: Vec<LogId> = due.map(|(log, _)| *log).collect();
        for log in due {
            let have = self
                .replicas
                .get(&log.network)
                .map(|replica| replica.log(&log));
            let missing = match have {
                None => Vec::new(),
                Some(None) => vec![(1, self.wanted.logs[&log].up_to)],
                Some(Some(held)) => held.have.missing(self.wanted.logs[&log].up_to, PULL_RANGES),
            };
            let Some(gap) = self.wanted.logs.get_mut(&log) else {
                continue;
            };
            let from = gap.from[gap.pulls as usize % gap.from.len()];
            gap.pulls += 1;
            let lacking: u64 = missing.iter().map(|range| range.1 - range.0 + 1).sum();
            let (pulls_max, again) = if self.is_lossy && lacking <= FEW_DOTS as u64 {
                (PULLS_MAX_LOSSY, self.config.pull_again / 3)
            } else {
                (PULLS_MAX, self.config.pull_again)
            };
            gap.at = now + again;
            if missing.is_empty() {
                self.wanted.logs.remove(&log);
            } else if gap.pulls > pulls_max {
                self.wanted.logs.remove(&log);
                self.want_sync(from, log.network);
            } else {
                self.spread.tell(from, Item::Pull(log, missing));
            }
        }
    }

    /// Pushes a new dot along the ring, and schedules telling others of it. `seq` 0 is the floor alone.
    pub(super) fn spread_dot(&mut self, now: Instant, log: LogId, seq: u64, from: Option<NodeId>) {
        self.spread.set_now(now);
        self.note_news(now, log, seq);
        let picks = self.draw_picks(log, seq);
        let Scheme { near, random } = self.config.scheme;
        let ring = self.ring(log.network);
        let is_due = |node: NodeId| Some(node) != from && node != log.owner;
        // The ring's neighbours, and some at random. A list of them on the heap would be made for every dot.
        let mut push = [None; PUSHES_MAX];
        let has_others = ring.len() > 2 * near + 1;
        let at_random = picks.into_iter().take(random).filter(|_| has_others);
        let at_random = at_random.map(|pick| {
            let len = ring.len() as u64;
            ring.get(usize::try_from(pick % len).expect("below a length"))
        });
        let neighbours = (1..=near).flat_map(|distance| ring.at_distance(distance));
        for (at, node) in neighbours.chain(at_random).take(PUSHES_MAX).enumerate() {
            if is_due(node) && !push.contains(&Some(node)) {
                push[at] = Some(node);
            }
        }
        let mut tell = [None; 2 * SMALL_RING];
        if ring.len() <= SMALL_RING {
            let twice = ring.others().flat_map(|node| [(true, node), (false, node)]);
            for (at, told) in twice.filter(|(_, node)| is_due(*node)).enumerate() {
                tell[at] = Some(told);
            }
        } else {
            let first = ring.at_distance(near + 1).map(|node| (true, node));
            let second = ring.at_distance(near + 2).map(|node| (false, node));
            for (at, (first, node)) in first.chain(second).enumerate() {
                if is_due(node) && !push.contains(&Some(node)) {
                    tell[at] = Some((first, node));
                }
            }
        }
        let (me, last) = (self.me, (2 * near + random).saturating_sub(1));
        let mut waiting = 0;
        for (at, node) in push.into_iter().enumerate() {
            let Some(node) = node.filter(|node| *node != me) else {
                continue;
            };
            if at < last || waiting <= BURST {
                waiting = waiting.max(self.queue_dot(node, log, seq));
            }
        }
        for (first, node) in tell.into_iter().flatten().filter(|_| seq > 0) {
            let after = if first {
                self.config.first_ihave
            } else {
                self.config.second_ihave
            };
            self.spread.ihave_at(first, now + after, node, (log, seq));
        }
    }

    /// Draws whom a dot is pushed to beside the ring. Dots that follow each other have the same, so that a burst reaches a node as
    /// a few long ranges, in full datagrams.
    fn draw_picks(&mut self, log: LogId, seq: u64) -> [u64; RANDOM_MAX] {
        let block = (log, seq / DOTS_A_PICK);
        if seq == 0 || self.picks.0 != Some(block) {
            let mut picks = [0; RANDOM_MAX];
            for pick in picks.iter_mut().take(self.config.scheme.random) {
                *pick = self.rng.random();
            }
            self.picks = (Some(block).filter(|_| seq > 0), picks);
        }
        self.picks.1
    }

    /// Queues a dot for a node. Returns how many wait for it.
    fn queue_dot(&mut self, to: NodeId, log: LogId, seq: u64) -> usize {
        self.spread.push(to, log, seq).unwrap_or_else(|Overflow| {
            self.stats.overflows += 1;
            self.send_digest_to(to, false);
            0
        })
    }

    /// Returns the next record to send.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        while let Some((to, item)) = self.spread.pop() {
            tracing::trace!(node = %self.me, %to, ?item, "says");
            let (kind, body) = match item {
                Item::Push(log, seq) => match self.encode_push(to, log, seq) {
                    Some(encoded) => encoded,
                    None => continue,
                },
                Item::Ihave(log, mut ranges) => {
                    if self.config.mutated.has(Mutation::TellTwice) {
                        ranges.extend(ranges.last().copied());
                    }
                    let ihave = Ihave {
                        log,
                        ranges,
                        large: false,
                    };
                    (RecordKind::IHAVE, codec::encode(&ihave))
                }
                Item::Pull(log, ranges) => (RecordKind::PULL, codec::encode(&Pull { log, ranges })),
                Item::Digest(digest) => (RecordKind::DIGEST, codec::encode(&digest)),
                Item::Ask(ask) => (RecordKind::ASK, codec::encode(&ask)),
                Item::Reached(reached) => (RecordKind::REACHED, codec::encode(&reached)),
            };
            if body.len() <= BODY_MAX {
                self.spread.spend(to, body.len());
                return Some(Outgoing { to, kind, body });
            }
        }
        None
    }

    /// Packs a dot, and as many that wait for the same node after it as fit; one too large for a datagram is announced.
    fn encode_push(&mut self, to: NodeId, id: LogId, seq: u64) -> Option<(RecordKind, Vec<u8>)> {
        let replica = self.replicas.get(&id.network)?;
        let log = replica.log(&id)?;
        let is_alone = self.spread.peek_dot(to, id).is_none();
        let mut body = Vec::with_capacity(if is_alone { ONE_DOT } else { FULL });
        codec::encode_into(
            &PushHead {
                log: id,
                floor: log.floor,
            },
            &mut body,
        );
        let head = body.len();
        let encode = |seq: u64, body: &mut Vec<u8>| {
            replica.each_dot(log, (seq, seq), |dot| {
                codec::encode_into(dot, body);
                false
            });
        };
        encode(seq, &mut body);
        if body.len() > BODY_MAX {
            let ihave = Ihave {
                log: id,
                ranges: vec![(seq, seq)],
                large: true,
            };
            return Some((RecordKind::IHAVE, codec::encode(&ihave)));
        }
        while let Some(seq) = self.spread.peek_dot(to, id) {
            let before = body.len();
            encode(seq, &mut body);
            if body.len() > BODY_MAX {
                body.truncate(before);
                break;
            }
            self.spread.take_dot(to, id);
        }
        (body.len() > head || seq == 0).then_some((RecordKind::PUSH, body))
    }
}

fn decode<T: bincode::Decode<()>>(body: &[u8]) -> Result<T, Refusal> {
    codec::decode(body).map_err(|_counted| Refusal::Malformed)
}
