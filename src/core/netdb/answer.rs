//! Anti-entropy, the side that is asked: which parts of the hash tree differ, and what an asker lacks of their logs.
//!
//! The answer is exact, and cut into pages. **Rule S:** only a complete answer may cover superseded dots; one that was cut
//! covers what it carries.

use std::collections::BTreeMap;

use super::{
    Config, NetDb, Refusal, SyncState,
    have::{Have, RANGES_ON_STREAM},
    log::Log,
    message::{
        Complete, Deltas, Fetch, LogDelta, LogId, LogSummary, SyncAnswer, SyncAsk, SyncReply,
        SyncRequest,
    },
    replica::Replica,
    tree::{Scope, Sums, WIDTH, differing},
};
use crate::core::{
    model::{Mutation, NodeId},
    wire::codec,
};

/// How many bytes a log adds to an answer beside its dots, about: the page is cut by it too.
const DELTA_HEAD: usize = 48;

impl NetDb {
    /// Answers a node's request that came on a stream.
    pub fn handle_stream(&mut self, from: NodeId, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.refusals.hear(self.spread.now(), from);
        let answered = codec::decode::<SyncRequest>(request)
            .map_err(|_counted| Refusal::Malformed)
            .and_then(|request| self.answer(request));
        let reply = answered.inspect_err(|refusal| self.refuse(*refusal))?;
        Ok(codec::encode(&reply))
    }

    fn answer(&mut self, request: SyncRequest) -> Result<SyncReply, Refusal> {
        let SyncRequest { network, ask } = request;
        let synced = self.sync_states.get(&network) == Some(&SyncState::Synced);
        let answer = match (self.replicas.get_mut(&network), ask) {
            (None, _) => SyncAnswer::NotCarried,
            (Some(replica), SyncAsk::Buckets(sums)) => {
                SyncAnswer::Differs(differing_buckets(replica, &sums)?)
            }
            (Some(replica), SyncAsk::Parts(buckets)) => {
                SyncAnswer::Differs(differing_parts(replica, &buckets)?)
            }
            (Some(replica), SyncAsk::Fetch(fetch)) => {
                SyncAnswer::Deltas(deltas(&self.config, replica, &fetch, synced)?)
            }
        };
        Ok(SyncReply { network, answer })
    }
}

fn differing_buckets(replica: &mut Replica, theirs: &Sums) -> Result<Scope, Refusal> {
    if theirs.len() != WIDTH {
        return Err(Refusal::Malformed);
    }
    let mask = differing(replica.buckets(), theirs);
    let mut scope = Scope::empty();
    for bucket in (0u8..).take(WIDTH).filter(|bucket| mask >> bucket & 1 == 1) {
        scope.push(bucket, u64::MAX);
    }
    Ok(scope)
}

fn differing_parts(replica: &mut Replica, theirs: &[(u8, Sums)]) -> Result<Scope, Refusal> {
    let mut scope = Scope::empty();
    if theirs.len() > WIDTH || !theirs.windows(2).all(|pair| pair[0].0 < pair[1].0) {
        return Err(Refusal::Malformed);
    }
    for (bucket, theirs) in theirs {
        if usize::from(*bucket) >= WIDTH || theirs.len() != WIDTH {
            return Err(Refusal::Malformed);
        }
        scope.push(*bucket, differing(&replica.parts(*bucket), theirs));
    }
    Ok(scope)
}

fn deltas(
    config: &Config,
    replica: &Replica,
    fetch: &Fetch,
    synced: bool,
) -> Result<Deltas, Refusal> {
    let mut asked = BTreeMap::new();
    for LogSummary { log, have, floor } in &fetch.logs {
        if !have.is_well_formed(RANGES_ON_STREAM) || log.network != replica.network() {
            return Err(Refusal::Malformed);
        }
        asked.insert(*log, (have, *floor));
    }
    if !fetch.scope.is_well_formed() {
        return Err(Refusal::Malformed);
    }
    let mut page = Deltas {
        synced,
        next: None,
        logs: Vec::new(),
    };
    let nothing = Have::default();
    let mut room = config.page;
    let in_range = |log: &&Log| fetch.through.is_none_or(|through| log.id <= through);
    for log in replica
        .logs_in(&fetch.scope, fetch.from)
        .take_while(in_range)
    {
        let (theirs, floor) = asked.get(&log.id).copied().unwrap_or((&nothing, 0));
        if log.have.is_subset_of(theirs) && log.floor <= floor {
            continue;
        }
        if room < DELTA_HEAD {
            page.next = Some(log.id);
            break;
        }
        let delta = difference(config, (replica, log), theirs, &mut room);
        let is_whole = delta.complete.is_some();
        page.logs.push(delta);
        if !is_whole {
            page.next = Some(log.id);
            break;
        }
    }
    Ok(page)
}

/// Computes what `theirs` lacks of a log, within `room` bytes.
fn difference(
    config: &Config,
    held: (&Replica, &Log),
    theirs: &Have,
    room: &mut usize,
) -> LogDelta {
    let (replica, log) = held;
    let mut dots = Vec::new();
    let mut whole = true;
    for range in theirs.missing(log.have.head(), usize::MAX) {
        replica.each_dot(log, range, |dot| {
            let before = dots.len();
            codec::encode_into(dot, &mut dots);
            // A dot that is larger than a page travels alone.
            if dots.len() > *room && (before > 0 || *room < config.page) {
                dots.truncate(before);
                whole = false;
            }
            whole
        });
        if !whole {
            break;
        }
    }
    let below = log.floor > theirs.prefix() && !config.mutated.has(Mutation::SkipSnapshot);
    let covers = whole || config.mutated.has(Mutation::CoverHoles);
    let complete = covers.then(|| Complete {
        have: log.have.within_bounds(),
        floor: log.floor,
        kept: below.then(|| log.kept_up_to(log.floor)),
    });
    *room = room.saturating_sub(dots.len() + DELTA_HEAD);
    LogDelta {
        log: log.id,
        dots,
        complete,
    }
}

/// Returns the name that follows a log's.
pub(super) fn after(log: LogId) -> LogId {
    LogId {
        epoch: log.epoch.saturating_add(1),
        ..log
    }
}
