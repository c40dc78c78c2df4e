//! Anti-entropy, the side that asks: roots are compared in datagrams, differences are fetched on streams.
//!
//! Whoever sees another's root differ from its own compares the hash tree's buckets with it, then their parts if they hold many
//! logs, then says what it has of the logs that differ and gets what it lacks of them: the cost is that of the difference.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    NetDb, Refusal, SyncState,
    answer::after,
    have::RANGES_ON_STREAM,
    joining::Joining,
    log::Log,
    message::{
        Complete, Deltas, Fetch, LogDelta, LogId, LogSummary, SyncAnswer, SyncAsk, SyncReply,
        SyncRequest, wire_dots,
    },
    receive::Taken,
    tree::Scope,
};
use crate::core::{
    model::{Instant, NetworkId, NodeId, Now},
    wire::codec,
};

/// How many logs one request names; more are asked for in turn.
const FETCH_LOGS: usize = 1024;
/// How many ranges of all of them; one log may have as many.
const FETCH_RANGES: usize = RANGES_ON_STREAM;
/// A network of no more logs is fetched without comparing first.
const FEW_LOGS: usize = 64;
/// How many logs may be named before the parts of their buckets are compared.
const MANY_LOGS: usize = 256;
/// After how long a call that was not answered no longer counts as under way.
const CALL_FOR: Duration = Duration::from_secs(10);
/// How long a member that did not answer is left alone.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// After how long at most a member whose stream does not answer is asked again.
pub const STREAM_RETRIED_AFTER: Duration = CALL_FOR.saturating_add(AGAIN_AFTER);
/// How many pages in a row may bring nothing and promise more: others may have brought the same meanwhile, but not for ever.
const FRUITLESS_MAX: u32 = 256;

/// Names a request that is made on a stream, so that a late answer is not taken for that to a later request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallId {
    /// Whom it asks.
    pub to: NodeId,
    number: u64,
}

impl CallId {
    /// Names a request that is not the network DB's: whatever becomes of it, no sync ends with it.
    pub fn foreign(to: NodeId) -> Self {
        Self { to, number: 0 }
    }

    /// Returns whether it names a request that is not the network DB's.
    pub fn is_foreign(self) -> bool {
        self.number == 0
    }
}

/// A request to be made on a stream; its answer is to be handed to [`NetDb::handle_stream_reply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamCall {
    /// Its name, which says whom to ask.
    pub id: CallId,
    /// The request.
    pub request: Vec<u8>,
}

/// What is to be asked next of a member about a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Compare,
    CompareParts(Scope),
    Fetch(Scope, Option<LogId>),
}

#[derive(Debug)]
pub(super) struct Call {
    number: u64,
    pub(super) network: NetworkId,
    step: Step,
    /// The last log that a fetch asked for, if there were more.
    through: Option<LogId>,
    until: Instant,
    /// Logs that it named were dropped since: the answer tells what another replica lacked.
    is_over: bool,
}

/// Which logs a fetch asked for.
struct Asked<'a> {
    network: NetworkId,
    scope: &'a Scope,
    from: Option<LogId>,
    through: Option<LogId>,
}

impl Asked<'_> {
    fn names(&self, log: &LogId) -> bool {
        let in_range = self.from.is_none_or(|from| from <= *log)
            && self.through.is_none_or(|through| *log <= through);
        log.network == self.network && in_range && self.scope.contains(log)
    }
}

/// What became of a page, or of what it has of one log.
struct Page {
    /// Some of it was not here.
    is_news: bool,
    /// None of it was refused.
    is_whole: bool,
}

/// Syncs that are wanted and under way: one a member at a time.
#[derive(Default, Debug)]
pub(super) struct Syncs {
    pub(super) wanted: BTreeMap<(NodeId, NetworkId), Step>,
    pub(super) under_way: BTreeMap<NodeId, Call>,
    resting: BTreeMap<NodeId, Instant>,
    pub(super) joining: BTreeMap<NetworkId, Joining>,
    /// How many pages in a row brought nothing and promised more.
    fruitless: BTreeMap<NodeId, u32>,
    calls: VecDeque<StreamCall>,
    /// How many calls were made.
    made: u64,
}

impl Syncs {
    /// Returns the call of that name, unless it was given up.
    fn end_call(&mut self, id: CallId) -> Option<Call> {
        let under_way = self.under_way.get(&id.to);
        under_way.filter(|call| call.number == id.number)?;
        self.under_way.remove(&id.to)
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.wanted.retain(|(wanted, _), _| *wanted != node);
        self.under_way.remove(&node);
        self.resting.remove(&node);
        self.fruitless.remove(&node);
    }

    pub(super) fn forget_network(&mut self, network: NetworkId) {
        self.wanted.retain(|(_, wanted), _| *wanted != network);
        self.joining.remove(&network);
        for call in self.under_way.values_mut() {
            call.is_over |= call.network == network;
        }
    }

    /// Logs were dropped that may come back: what calls under way ask is asked again, and their answers do not count.
    pub(super) fn ask_again(&mut self) {
        for (&node, call) in self.under_way.iter_mut().filter(|(_, call)| !call.is_over) {
            call.is_over = true;
            let wanted = self.wanted.entry((node, call.network));
            wanted.or_insert_with(|| call.step.clone());
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let calls = self.under_way.values().map(|call| call.until);
        calls.chain(self.resting.values().copied()).min()
    }
}

impl NetDb {
    pub(super) fn want_sync(&mut self, with: NodeId, network: NetworkId) {
        // What is no member cannot be called: it would be wanted for ever.
        if !self.owners.is_alive(with) {
            return;
        }
        let wanted = self.syncs.wanted.entry((with, network));
        wanted.or_insert(Step::Compare);
    }

    /// Compares all that this node shares with a member at once, instead of when its next digest comes.
    pub fn sync_with(&mut self, now: Instant, node: NodeId) {
        let networks: Vec<NetworkId> = self.replicas.keys().copied().collect();
        for network in networks {
            if self.owners.is_attached(node, network) {
                self.want_sync(node, network);
            }
        }
        self.start_sync(now, node);
    }

    /// One log is wanted from a node, since a dot of it does not fit a datagram.
    pub(super) fn want_log(&mut self, with: NodeId, log: LogId) {
        if !self.owners.is_alive(with) {
            return;
        }
        let wanted = self.syncs.wanted.entry((with, log.network));
        wanted.or_insert_with(|| Step::Fetch(Scope::around(&log), None));
    }

    /// Starts whatever may be started, and gives up calls that took too long.
    pub(super) fn retry_syncs(&mut self, now: Instant) {
        let under_way = self.syncs.under_way.iter();
        let late = under_way.filter(|(_, call)| call.until <= now);
        let id = |(&to, call): (&NodeId, &Call)| CallId {
            to,
            number: call.number,
        };
        let late: Vec<CallId> = late.map(id).collect();
        for call in late {
            self.handle_stream_failed(now, call);
        }
        self.syncs.resting.retain(|_, until| *until > now);
        let wanted = self.syncs.wanted.keys();
        let nodes: BTreeSet<NodeId> = wanted.map(|(node, _)| *node).collect();
        for node in nodes {
            self.start_sync(now, node);
        }
    }

    pub(super) fn start_sync(&mut self, now: Instant, with: NodeId) {
        if self.syncs.under_way.contains_key(&with) || self.syncs.resting.contains_key(&with) {
            return;
        }
        let range = (with, NetworkId(0))..=(with, NetworkId(u32::MAX));
        let Some((&(_, network), _)) = self.syncs.wanted.range(range).next() else {
            return;
        };
        let Some(step) = self.syncs.wanted.remove(&(with, network)) else {
            return;
        };
        let Some((step, ask)) = self.ask(network, step) else {
            return;
        };
        let through = match &ask {
            SyncAsk::Fetch(fetch) => fetch.through,
            SyncAsk::Buckets(_) | SyncAsk::Parts(_) => None,
        };
        self.syncs.made += 1;
        let number = self.syncs.made;
        let call = Call {
            number,
            network,
            step,
            through,
            until: now + CALL_FOR,
            is_over: false,
        };
        self.syncs.under_way.insert(with, call);
        let request = codec::encode(&SyncRequest { network, ask });
        self.stats.sync_bytes += request.len() as u64;
        let id = CallId { to: with, number };
        self.syncs.calls.push_back(StreamCall { id, request });
        self.stats.syncs += 1;
    }

    /// Returns what a step asks, and the step that it turned out to be.
    fn ask(&mut self, network: NetworkId, step: Step) -> Option<(Step, SyncAsk)> {
        let replica = self.replicas.get_mut(&network)?;
        let step = match step {
            Step::Compare if replica.logs().nth(FEW_LOGS).is_none() => {
                Step::Fetch(Scope::whole(), None)
            }
            step @ (Step::Compare | Step::CompareParts(_) | Step::Fetch(..)) => step,
        };
        let ask = match &step {
            Step::Compare => SyncAsk::Buckets(replica.buckets().to_vec()),
            Step::CompareParts(scope) => {
                let buckets = scope.buckets();
                SyncAsk::Parts(buckets.map(|at| (at, replica.parts(at))).collect())
            }
            Step::Fetch(scope, from) => {
                let summary = |log: &Log| LogSummary {
                    log: log.id,
                    have: log.have.clone(),
                    floor: log.floor,
                };
                let mut logs = replica.logs_in(scope, *from).map(summary).peekable();
                let mut room = FETCH_RANGES;
                let mut named: Vec<LogSummary> = Vec::new();
                while let Some(next) = logs.next_if(|next| {
                    let ranges = next.have.ranges().len();
                    named.is_empty() || (named.len() < FETCH_LOGS && ranges <= room)
                }) {
                    room = room.saturating_sub(next.have.ranges().len());
                    named.push(next);
                }
                let last = named.last().map(|summary| summary.log);
                SyncAsk::Fetch(Fetch {
                    scope: scope.clone(),
                    from: *from,
                    through: last.filter(|_| logs.peek().is_some()),
                    logs: named,
                })
            }
        };
        Some((step, ask))
    }

    /// Returns the next request to make on a stream.
    pub fn poll_stream(&mut self) -> Option<StreamCall> {
        self.syncs.calls.pop_front()
    }

    /// Takes the answer to a [`StreamCall`]. One that comes after the call was given up says nothing.
    pub fn handle_stream_reply(
        &mut self,
        now: Now,
        id: CallId,
        reply: &[u8],
    ) -> Result<(), Refusal> {
        self.spread.set_now(now.instant);
        self.refusals.hear(now.instant, id.to);
        let Some(call) = self.syncs.end_call(id) else {
            return Ok(());
        };
        let from = id.to;
        self.put_off_hedge(now.instant, call.network);
        if call.is_over {
            self.start_sync(now.instant, from);
            return Ok(());
        }
        let taken = codec::decode::<SyncReply>(reply)
            .map_err(|_counted| Refusal::Malformed)
            .and_then(|reply| self.take_answer(now, (from, call), reply));
        if let Err(refusal) = taken {
            self.refuse(refusal);
            self.syncs.resting.insert(from, now.instant + AGAIN_AFTER);
        }
        self.start_sync(now.instant, from);
        taken
    }

    fn take_answer(
        &mut self,
        now: Now,
        call: (NodeId, Call),
        reply: SyncReply,
    ) -> Result<(), Refusal> {
        let (from, call) = call;
        if reply.network != call.network {
            return Err(Refusal::Malformed);
        }
        match (call.step, reply.answer) {
            (_, SyncAnswer::NotCarried) => Ok(()),
            (Step::Compare | Step::CompareParts(_), SyncAnswer::Differs(scope))
                if !scope.is_well_formed() =>
            {
                Err(Refusal::Malformed)
            }
            (Step::Compare, SyncAnswer::Differs(scope)) => {
                let replica = self.replicas.get(&call.network);
                let many = replica
                    .is_some_and(|replica| replica.logs_in(&scope, None).nth(MANY_LOGS).is_some());
                let next = if many {
                    Step::CompareParts(scope)
                } else {
                    Step::Fetch(scope, None)
                };
                self.go_on(from, call.network, next);
                Ok(())
            }
            (Step::CompareParts(asked), SyncAnswer::Differs(scope)) if !scope.is_within(&asked) => {
                Err(Refusal::Inconsistent)
            }
            (Step::CompareParts(_), SyncAnswer::Differs(scope)) => {
                self.go_on(from, call.network, Step::Fetch(scope, None));
                Ok(())
            }
            (Step::Fetch(scope, began), SyncAnswer::Deltas(page)) => {
                let asked = Asked {
                    network: call.network,
                    scope: &scope,
                    from: began,
                    through: call.through,
                };
                let taken = self.take_deltas(now, from, asked, &page)?;
                self.note_fruits(from, taken.is_news || page.next.is_none())?;
                if !taken.is_whole {
                    // It may be taken later; until then this is no part that has come whole.
                    self.syncs.resting.insert(from, now.instant + AGAIN_AFTER);
                    return Ok(());
                }
                match page.next.or(call.through.map(after)) {
                    Some(next) if began.is_some_and(|began| next < began) => {
                        Err(Refusal::Malformed)
                    }
                    // A page that brings nothing and ends where it began would be asked for for ever.
                    Some(next) if page.logs.is_empty() && began == Some(next) => {
                        Err(Refusal::Malformed)
                    }
                    Some(next) => {
                        self.go_on(from, call.network, Step::Fetch(scope, Some(next)));
                        Ok(())
                    }
                    None => {
                        self.note_whole(now.instant, call.network, &scope, page.synced);
                        Ok(())
                    }
                }
            }
            (_, SyncAnswer::Differs(_) | SyncAnswer::Deltas(_)) => Err(Refusal::Malformed),
        }
    }

    pub(super) fn go_on(&mut self, with: NodeId, network: NetworkId, step: Step) {
        let is_nothing = matches!(&step, Step::Fetch(scope, _) if scope.is_empty());
        if !is_nothing {
            self.syncs.wanted.insert((with, network), step);
        }
    }

    fn take_deltas(
        &mut self,
        now: Now,
        from: NodeId,
        asked: Asked<'_>,
        page: &Deltas,
    ) -> Result<Page, Refusal> {
        let mut taken = Page {
            is_news: false,
            is_whole: true,
        };
        let mut last = None;
        for delta in &page.logs {
            if !asked.names(&delta.log) || last.is_some_and(|last| delta.log <= last) {
                return Err(Refusal::Inconsistent);
            }
            last = Some(delta.log);
            match self.take_delta(now, from, delta) {
                Ok(delta) => {
                    taken.is_news |= delta.is_news;
                    taken.is_whole &= delta.is_whole;
                }
                Err(Refusal::Malformed) => return Err(Refusal::Malformed),
                Err(refusal) => {
                    self.refuse(refusal);
                    // What is over here is not lacking.
                    taken.is_whole &= refusal == Refusal::Over;
                }
            }
        }
        Ok(taken)
    }

    /// A page has brought something, or was the last, or neither: not for ever.
    fn note_fruits(&mut self, from: NodeId, is_fruitful: bool) -> Result<(), Refusal> {
        if is_fruitful {
            self.syncs.fruitless.remove(&from);
            return Ok(());
        }
        let fruitless = self.syncs.fruitless.entry(from).or_default();
        *fruitless += 1;
        if *fruitless <= FRUITLESS_MAX {
            return Ok(());
        }
        self.syncs.fruitless.remove(&from);
        Err(Refusal::Endless)
    }

    /// Takes what was sent of one log.
    fn take_delta(&mut self, now: Now, from: NodeId, delta: &LogDelta) -> Result<Page, Refusal> {
        if delta.log.owner == self.me {
            let head = delta.complete.as_ref().map_or(0, |it| it.have.head());
            return Err(self.about_us(&delta.log, head));
        }
        self.accept(now.instant, &delta.log)?;
        if let Some(complete) = &delta.complete {
            self.check_complete(delta.log, complete)?;
        }
        let mut is_news = false;
        // Who has just come has nothing to tell; who was in step passes on what it had missed.
        let passes_on = self.sync_states.get(&delta.log.network) == Some(&SyncState::Synced);
        let mut is_whole = true;
        for dot in wire_dots(&delta.dots) {
            let dot = dot.map_err(|_counted| Refusal::Malformed)?;
            self.check_dot(now, &dot)?;
            let complete = delta.complete.as_ref();
            if complete.is_some_and(|complete| !complete.tells_of(dot.seq)) {
                return Err(Refusal::Inconsistent);
            }
            let taken = self.take_dot(delta.log, &dot, RANGES_ON_STREAM);
            is_whole &= taken != Taken::Refused;
            if taken == Taken::New {
                is_news = true;
                if passes_on {
                    self.spread_dot(now.instant, delta.log, dot.seq, Some(from));
                }
            }
        }
        // To cover what was refused would lose it for good.
        if let Some(complete) = delta.complete.as_ref().filter(|_| is_whole) {
            is_news |= self.take_complete(delta.log, complete);
        }
        self.settle_if_ready(delta.log.owner);
        Ok(Page { is_news, is_whole })
    }

    /// Checks what a complete answer says beside its dots.
    fn check_complete(&self, log: LogId, complete: &Complete) -> Result<(), Refusal> {
        if !complete.is_well_formed() {
            return Err(Refusal::Malformed);
        }
        let replica = self.replicas.get(&log.network);
        let held = replica.and_then(|replica| replica.log(&log));
        let prefix = held.map_or(0, |log| log.have.prefix());
        // Who is below a floor is told what stands below it, or what is deleted would stand here for ever.
        if complete.kept.is_none() && complete.floor > prefix {
            return Err(Refusal::Inconsistent);
        }
        Ok(())
    }

    /// A [`StreamCall`] was not answered.
    pub fn handle_stream_failed(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.syncs.end_call(id) else {
            return;
        };
        let to = id.to;
        self.syncs.resting.insert(to, now + AGAIN_AFTER);
        let Call { network, step, .. } = call;
        if call.is_over {
            return;
        }
        self.syncs
            .wanted
            .entry((to, network))
            .or_insert(step.clone());
        if self.syncs.joining.contains_key(&network) {
            self.set_sync_state(network, SyncState::Degraded);
            // Its share is asked of somebody else too.
            let pick = self.pick_other(network, to);
            if let Some(other) = pick {
                self.syncs.wanted.entry((other, network)).or_insert(step);
                self.start_sync(now, other);
            }
        }
    }
}
