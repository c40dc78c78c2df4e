//! Anti-entropy, the side that asks: roots are compared in datagrams, differences are fetched on streams.
//!
//! Whoever sees another's root differ from its own compares the hash tree's buckets with it, then their parts if they hold many
//! logs, then says what it has of the logs that differ and gets what it lacks of them: the cost is that of the difference.
//! A network that is new here is fetched from its nearest members at once, a share of the tree from each.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    NetDb, SyncState,
    answer::after,
    have::{RANGES_MAX, RANGES_WHILE_TAKEN},
    log::Log,
    message::{
        Deltas, Fetch, LogDelta, LogId, LogSummary, SyncAnswer, SyncAsk, SyncReply, SyncRequest,
        are_sane, wire_dots,
    },
    receive::{Refusal, Taken},
    tree::Scope,
};
use crate::core::{
    model::{Instant, NetworkId, NodeId, Now},
    wire::codec,
};

/// How many logs one request names; more are asked for in turn.
const FETCH_LOGS: usize = 1024;
/// A network of no more logs is fetched without comparing first.
const FEW_LOGS: usize = 64;
/// How many logs may be named before the parts of their buckets are compared.
const MANY_LOGS: usize = 256;
/// After how long a call that was not answered no longer counts as under way.
const CALL_FOR: Duration = Duration::from_secs(10);
/// How long a member that did not answer is left alone.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long after its attachment a node believes only those who have come whole themselves; then they may all be new.
const BELIEVE_AFTER: Duration = Duration::from_secs(3);

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
enum Step {
    Compare,
    CompareParts(Scope),
    Fetch(Scope, Option<LogId>),
}

#[derive(Debug)]
struct Call {
    number: u64,
    network: NetworkId,
    step: Step,
    /// The last log that a fetch asked for, if there were more.
    through: Option<LogId>,
    until: Instant,
    /// Logs that it named were dropped since: the answer tells what another replica lacked.
    is_over: bool,
}

/// A network that is new here.
#[derive(Debug)]
struct Joining {
    since: Instant,
    /// What has not come whole yet.
    missing: Scope,
}

impl Joining {
    /// Returns whether it believes those that have not come whole themselves.
    fn is_late(&self, now: Instant) -> bool {
        self.since + BELIEVE_AFTER <= now
    }
}

/// Syncs that are wanted and under way: one a member at a time.
#[derive(Default, Debug)]
pub(super) struct Syncs {
    wanted: BTreeMap<(NodeId, NetworkId), Step>,
    under_way: BTreeMap<NodeId, Call>,
    resting: BTreeMap<NodeId, Instant>,
    joining: BTreeMap<NetworkId, Joining>,
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

    /// A network is new here, and nothing of it has come.
    pub(super) fn begin(&mut self, now: Instant, network: NetworkId) {
        let joining = Joining {
            since: now,
            missing: Scope::whole(),
        };
        self.joining.insert(network, joining);
    }
}

impl NetDb {
    /// A network is new here: its nearest members are asked for it, each for a share.
    pub(super) fn sync_with_neighbours(&mut self, now: Instant, network: NetworkId) {
        self.syncs.begin(now, network);
        let neighbours: Vec<NodeId> = self.ring(network).at_distance(1).collect();
        let cluster = self.sync_states.get(&NetworkId::CLUSTER);
        if neighbours.is_empty() && cluster == Some(&SyncState::Synced) {
            self.set_sync_state(network, SyncState::Synced);
        }
        for (at, node) in neighbours.iter().enumerate() {
            let share = Scope::share(at, neighbours.len());
            let step = Step::Fetch(share, None);
            self.syncs.wanted.insert((*node, network), step);
            self.start_sync(now, *node);
        }
    }

    pub(super) fn set_sync_state(&mut self, network: NetworkId, state: SyncState) {
        if state == SyncState::Synced {
            self.syncs.joining.remove(&network);
        }
        let Some(known) = self.sync_states.get_mut(&network) else {
            return;
        };
        if *known != state {
            *known = state;
            self.synced.push_back((network, state));
        }
    }

    /// A part of a network is as `synced` member has it. Once that is so of all of it, it has come whole.
    pub(super) fn note_whole(
        &mut self,
        now: Instant,
        network: NetworkId,
        part: &Scope,
        synced: bool,
    ) {
        let Some(joining) = self.syncs.joining.get_mut(&network) else {
            return self.set_sync_state(network, SyncState::Synced);
        };
        if synced || joining.is_late(now) {
            joining.missing.subtract(part);
            if joining.missing.is_empty() {
                self.set_sync_state(network, SyncState::Synced);
            }
        }
    }

    /// Networks whose only member this node is have come whole, once it could have heard of others. Who else is a member of
    /// a network is known once the cluster scope has come.
    pub(super) fn note_alone(&mut self, now: Instant) {
        let joining = self.syncs.joining.iter();
        let waiting: Vec<NetworkId> = joining
            .filter(|(_, joining)| joining.is_late(now))
            .map(|(network, _)| *network)
            .collect();
        for network in waiting {
            let cluster = self.sync_states.get(&NetworkId::CLUSTER);
            let knows_members =
                network == NetworkId::CLUSTER || cluster == Some(&SyncState::Synced);
            if knows_members && self.ring(network).others().next().is_none() {
                self.set_sync_state(network, SyncState::Synced);
            }
        }
    }

    /// Returns whether a network has not come whole yet, and only those that have it whole are believed.
    pub(super) fn is_new(&self, now: Instant, network: NetworkId) -> bool {
        let joining = self.syncs.joining.get(&network);
        joining.is_some_and(|joining| !joining.is_late(now))
    }

    /// What has not come yet of a network that is new here is wanted from a member, unless it is being asked already.
    pub(super) fn want_missing(&mut self, with: NodeId, network: NetworkId) {
        let asked = self.syncs.under_way.get(&with);
        if asked.is_some_and(|call| call.network == network) {
            return;
        }
        if let Some(joining) = self.syncs.joining.get(&network) {
            let step = Step::Fetch(joining.missing.clone(), None);
            self.syncs.wanted.entry((with, network)).or_insert(step);
        }
    }

    pub(super) fn want_sync(&mut self, with: NodeId, network: NetworkId) {
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
                    have: log.have.within_bounds(),
                    floor: log.floor,
                };
                let mut logs = replica.logs_in(scope, *from).map(summary);
                let named: Vec<_> = logs.by_ref().take(FETCH_LOGS).collect();
                let last = named.last().map(|summary| summary.log);
                SyncAsk::Fetch(Fetch {
                    scope: scope.clone(),
                    from: *from,
                    through: last.filter(|_| logs.next().is_some()),
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
        let Some(call) = self.syncs.end_call(id) else {
            return Ok(());
        };
        let from = id.to;
        self.spread.set_now(now.instant);
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
            (Step::CompareParts(_), SyncAnswer::Differs(scope)) => {
                self.go_on(from, call.network, Step::Fetch(scope, None));
                Ok(())
            }
            (Step::Fetch(scope, began), SyncAnswer::Deltas(page)) => {
                self.take_deltas(now, from, call.network, &page)?;
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

    fn go_on(&mut self, with: NodeId, network: NetworkId, step: Step) {
        let is_nothing = matches!(&step, Step::Fetch(scope, _) if scope.is_empty());
        if !is_nothing {
            self.syncs.wanted.insert((with, network), step);
        }
    }

    fn take_deltas(
        &mut self,
        now: Now,
        from: NodeId,
        network: NetworkId,
        page: &Deltas,
    ) -> Result<(), Refusal> {
        for delta in &page.logs {
            if delta.log.network != network {
                return Err(Refusal::Malformed);
            }
            match self.take_delta(now, from, delta) {
                Ok(()) => {}
                Err(Refusal::Malformed) => return Err(Refusal::Malformed),
                Err(other) => self.refuse(other),
            }
        }
        Ok(())
    }

    /// Takes what was sent of one log.
    fn take_delta(&mut self, now: Now, from: NodeId, delta: &LogDelta) -> Result<(), Refusal> {
        self.accept(now.instant, &delta.log)?;
        // Who has just come has nothing to tell; who was in step passes on what it had missed.
        let passes_on = self.sync_states.get(&delta.log.network) == Some(&SyncState::Synced);
        // What is complete joins the ranges that its dots make, so there may be many in between.
        let ranges_max = match &delta.complete {
            Some(_) => RANGES_WHILE_TAKEN,
            None => RANGES_MAX,
        };
        let mut refused = false;
        for dot in wire_dots(&delta.dots) {
            let dot = dot.map_err(|_counted| Refusal::Malformed)?;
            self.check_dot(now, &dot)?;
            let taken = self.take_dot(delta.log, &dot, ranges_max);
            refused |= taken == Taken::Refused;
            if taken == Taken::New && passes_on {
                self.spread_dot(now.instant, delta.log, dot.seq, Some(from));
            }
        }
        if refused {
            // To cover what was refused would lose it for good.
            return Ok(());
        }
        if let Some(complete) = &delta.complete {
            let kept_is_sane = complete.kept.as_deref().is_none_or(|kept| {
                kept.windows(2).all(|pair| pair[0].1 < pair[1].0) && kept.iter().all(|r| r.0 <= r.1)
            });
            let sane = complete.have.is_well_formed()
                && complete.floor <= complete.have.prefix()
                && are_sane(complete.have.ranges())
                && kept_is_sane;
            if !sane {
                return Err(Refusal::Malformed);
            }
            self.take_complete(delta.log, complete);
        }
        self.settle_if_ready(delta.log.owner);
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
