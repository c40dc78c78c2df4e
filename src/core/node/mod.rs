//! One node: the rooms wired along the data's way.
//!
//! ```text
//! datagram ──► envelope ──► records ──► membership ──► up, down ──┐
//!                              └──────────────────────────► netdb ◄┘──► changes ──► watch history
//! datagrams ◄── envelope ◄── batches, one a destination ◄── membership, netdb
//! ```
//!
//! The same machine runs under tokio in production and by the thousand in virtual time in the simulator.

mod io;
mod list;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

pub use io::{Config, DatagramError, Event, Stats, StreamError, Transmit};
pub use list::members_in;

use super::{
    membership::{self, Identity, MemberState, Membership},
    model::{Boot, Dot, Instant, Key, NetworkId, NodeId, Now, TableName, Value},
    netdb::{
        BarrierId, CallId, EntryView, LogId, LogView, NetDb, PutMode, Refusal, StreamCall,
        SyncState, Version, WriteError,
    },
    watch::{Filter, Heard, History, Lagged},
    wire::{
        codec,
        envelope::{Opener, Sealer},
        keyring::Keyring,
        record::{Batch, RecordKind, records},
        versions::Versions,
    },
};

/// How many events wait to be polled; the oldest go first, since the state itself can be asked.
const EVENTS_MAX: usize = 65_536;
/// For how many room is kept while none waits.
const EVENTS_KEPT: usize = 64;

/// What a request on a stream asks for, and its answer brings: its first byte.
const SYNC: u8 = 0;
const MEMBERS: u8 = 1;
const PING: u8 = 2;
/// A request on a stream for the list of members, as a node makes it that knows an address and nothing else.
pub const MEMBERS_REQUEST: &[u8] = &[MEMBERS];

/// One node of the cluster.
pub struct Node {
    sealer: Sealer,
    opener: Opener,
    versions: Versions,
    membership: Membership,
    netdb: NetDb,
    history: History,
    ready: VecDeque<Transmit>,
    events: VecDeque<Event>,
    calls: VecDeque<StreamCall>,
    /// Records that no room here wrote.
    foreign: VecDeque<(NodeId, RecordKind, Vec<u8>)>,
    /// When to ask a member for the whole list; nothing once it has come.
    members_at: Option<Instant>,
    members_asked: u64,
    /// How many lists have come.
    members_listed: u64,
    stats: Stats,
}

impl Node {
    /// Makes a node that knows of nobody yet.
    pub fn new(config: Config, now: Now) -> Self {
        let Config {
            cluster,
            node,
            addr,
            boot,
            generation,
            keyring,
            newest,
            membership,
            netdb,
            seed,
        } = config;
        let versions = Versions::new(newest);
        let identity = Identity {
            node,
            addr,
            boot,
            rejoin: 0,
        };
        Self {
            sealer: Sealer::new(cluster, node, boot, &keyring),
            opener: Opener::new(cluster, node, keyring).reading_up_to(versions.newest()),
            versions,
            membership: Membership::new(membership, identity, seed, now.instant),
            netdb: NetDb::new(netdb, node, generation, seed.rotate_left(32), now),
            history: History::of_boot(boot),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            calls: VecDeque::new(),
            foreign: VecDeque::new(),
            members_at: Some(now.instant),
            members_asked: 0,
            members_listed: 0,
            stats: Stats::default(),
        }
    }

    /// Opens with another ring's keys from now on, and seals with its primary. What is sealed already stays as it is.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        self.sealer.set_keyring(&keyring);
        self.opener.set_keyring(keyring);
    }

    /// Sends a node a record of a kind that this version gives no meaning to: who knows the kind reads it, others skip it.
    ///
    /// It goes before all else that is said to that node; at the bound of what waits, it is dropped.
    pub fn send_record(&mut self, to: NodeId, kind: RecordKind, body: Vec<u8>) {
        if self.foreign.len() < EVENTS_MAX {
            self.foreign.push_back((to, kind, body));
        }
    }

    /// Takes a datagram as it came from the socket.
    pub fn handle_datagram(&mut self, now: Now, datagram: &[u8]) -> Result<(), DatagramError> {
        let opened = self.opener.open(datagram)?;
        if self.membership.is_removed(opened.from) {
            self.stats.from_removed += 1;
            return Err(DatagramError::Removed { from: opened.from });
        }
        self.membership.hear(now.instant, opened.from);
        let from = (opened.from, opened.boot);
        self.versions.handle_sealed(from.0, from.1, opened.version);
        for record in records(&opened.payload) {
            let Ok((kind, body)) = record else {
                self.netdb.note_refused(opened.from, Refusal::Malformed);
                self.drain(now);
                return Err(DatagramError::Truncated { from: opened.from });
            };
            if kind == RecordKind::VERSION {
                // A later version may say more than how far it can read.
                if let Some(newest) = body.first() {
                    self.versions.handle_said(from.0, from.1, *newest);
                }
            } else {
                self.handle_record(now, opened.from, kind, body);
            }
        }
        self.drain(now);
        Ok(())
    }

    fn handle_record(&mut self, now: Now, from: NodeId, kind: RecordKind, body: &[u8]) {
        match kind {
            RecordKind::FOCA | RecordKind::MEMBERS => {
                let taken = if kind == RecordKind::FOCA {
                    self.membership.handle_datagram(now.instant, from, body)
                } else {
                    self.membership.handle_update(now.instant, from, body)
                };
                if let Err(error) = taken {
                    self.stats.membership_errors += 1;
                    tracing::debug!(%from, %error, "record of members dropped");
                }
            }
            RecordKind::PUSH
            | RecordKind::IHAVE
            | RecordKind::PULL
            | RecordKind::DIGEST
            | RecordKind::ASK
            | RecordKind::REACHED => {
                if let Err(refusal) = self.netdb.handle_record(now, from, kind, body) {
                    tracing::trace!(%from, ?refusal, "record of the network DB refused");
                }
            }
            _ => self.stats.unknown_records += 1,
        }
    }

    /// Answers another node's request that came on a stream: what it lacks of a network, the list of members, or who we are.
    pub fn handle_stream(&mut self, from: NodeId, request: &[u8]) -> Result<Vec<u8>, StreamError> {
        match request.split_first() {
            Some((&SYNC, request)) => {
                let reply = self
                    .netdb
                    .handle_stream(from, request)
                    .map_err(StreamError::Sync)?;
                Ok(tagged(SYNC, &reply))
            }
            Some((&MEMBERS, [])) => Ok(tagged(MEMBERS, &codec::encode(&self.membership.list()))),
            Some((&PING, [])) => Ok(tagged(PING, &codec::encode(&self.membership.as_member()))),
            Some(_) | None => {
                self.netdb.note_refused(from, Refusal::Malformed);
                Err(StreamError::Unknown)
            }
        }
    }

    /// Takes the answer to a [`StreamCall`].
    pub fn handle_stream_reply(
        &mut self,
        now: Now,
        call: CallId,
        reply: &[u8],
    ) -> Result<(), StreamError> {
        let taken = match reply.split_first() {
            Some((&SYNC, reply)) if !call.is_foreign() => self
                .netdb
                .handle_stream_reply(now, call, reply)
                .map_err(StreamError::Sync),
            Some((&MEMBERS, list)) if call.is_foreign() => codec::decode(list)
                .map(|members| self.take_list(now.instant, members))
                .map_err(StreamError::Members),
            Some((&PING, member)) if call.is_foreign() => {
                self.take_pong(now.instant, call.to, member)
            }
            Some(_) | None => {
                self.netdb.handle_stream_failed(now.instant, call);
                Err(StreamError::Unknown)
            }
        };
        if let Err(StreamError::Members(_) | StreamError::Unknown) = &taken {
            self.netdb.note_refused(call.to, Refusal::Malformed);
        }
        self.drain(now);
        taken
    }

    /// Compares all that this node shares with a member at once: see [`NetDb::sync_with`].
    pub fn sync_with(&mut self, now: Now, node: NodeId) {
        self.netdb.sync_with(now.instant, node);
    }

    /// A [`StreamCall`] was not answered.
    pub fn handle_stream_failed(&mut self, now: Now, call: CallId) {
        self.netdb.handle_stream_failed(now.instant, call);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self
            .membership
            .poll_timeout()
            .is_some_and(|at| at <= now.instant)
        {
            self.membership.handle_timeout(now.instant);
        }
        if self
            .netdb
            .poll_timeout()
            .is_some_and(|at| at <= now.instant)
        {
            self.netdb.handle_timeout(now);
        }
        if self.members_at.is_some_and(|at| at <= now.instant) {
            self.ask_for_members(now.instant);
        }
        self.drain(now);
    }

    /// Returns when [`Self::handle_timeout`] has work.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [
            self.membership.poll_timeout(),
            self.netdb.poll_timeout(),
            self.members_at,
        ];
        timeouts.into_iter().flatten().min()
    }

    /// Returns the next datagram to send. What is for one node shares its datagrams.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if self.ready.is_empty() {
            self.pack();
        }
        self.ready.pop_front()
    }

    fn pack(&mut self) {
        let mut batches: BTreeMap<(NodeId, SocketAddr), Batch> = BTreeMap::new();
        while let Some((to, kind, body)) = self.foreign.pop_front() {
            match self.membership.address(to) {
                Some(addr) => self.add(&mut batches, (to, addr), kind, &body),
                None => self.stats.unaddressed += 1,
            }
        }
        while let Some(record) = self.membership.poll_transmit() {
            self.add(
                &mut batches,
                (record.to, record.addr),
                record.kind,
                &record.body,
            );
        }
        while let Some(record) = self.netdb.poll_transmit() {
            match self.membership.address(record.to) {
                Some(addr) => self.add(&mut batches, (record.to, addr), record.kind, &record.body),
                None => self.stats.unaddressed += 1,
            }
        }
        for ((to, addr), mut batch) in batches {
            // Where there is no room, the next datagram says it.
            if let Some(newest) = self.versions.to_say(to).filter(|_| batch.has_room_for(1)) {
                let _full = batch.push(RecordKind::VERSION, &[newest]);
            }
            self.seal(to, addr, &batch);
        }
    }

    fn add(
        &mut self,
        batches: &mut BTreeMap<(NodeId, SocketAddr), Batch>,
        to: (NodeId, SocketAddr),
        kind: RecordKind,
        body: &[u8],
    ) {
        let batch = batches.entry(to).or_default();
        if !batch.has_room_for(body.len()) {
            let full = std::mem::take(batch);
            self.seal(to.0, to.1, &full);
        }
        if let Some(batch) = batches.get_mut(&to)
            && let Err(error) = batch.push(kind, body)
        {
            tracing::warn!(%error, ?kind, "a record does not fit a datagram");
        }
    }

    fn seal(&mut self, to: NodeId, addr: SocketAddr, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        let version = self.versions.common_with(to);
        match self.sealer.seal_in(version, to, batch.as_bytes()) {
            Ok(datagram) => {
                self.stats.datagrams_sent += 1;
                self.stats.datagram_bytes_sent += datagram.len() as u64;
                self.ready.push_back(Transmit { to: addr, datagram });
            }
            Err(error) => tracing::error!(%error, "a datagram was not sealed"),
        }
    }

    /// Returns the next request to make on a stream.
    pub fn poll_stream(&mut self) -> Option<StreamCall> {
        if let Some(call) = self.calls.pop_front() {
            return Some(call);
        }
        if let Some(to) = self.membership.poll_stream_ping() {
            return Some(StreamCall {
                id: CallId::foreign(to),
                request: vec![PING],
            });
        }
        let StreamCall { id, request } = self.netdb.poll_stream()?;
        Some(StreamCall {
            id,
            request: tagged(SYNC, &request),
        })
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.events.shrink_to(EVENTS_KEPT);
        }
        event
    }

    fn boot_of(&self, node: NodeId) -> Boot {
        let member = self.membership.member(node);
        member.map_or_else(Boot::default, |member| member.identity.boot)
    }

    /// Carries what membership says to the network DB, and what that shows to the history.
    fn drain(&mut self, now: Now) {
        self.netdb.set_lossy(self.membership.is_lossy());
        let mut risen = Vec::new();
        while let Some(event) = self.membership.poll_event() {
            match event {
                // A node that was started anew before anybody noticed that it was gone has moved, to where it was.
                membership::Event::Up(node) | membership::Event::Moved(node, _) => {
                    risen.push((node, self.boot_of(node)));
                }
                membership::Event::Down(node) => {
                    self.netdb.handle_members_up(&std::mem::take(&mut risen));
                    self.netdb.handle_member_down(now.instant, node);
                }
                membership::Event::Left(node) => {
                    self.netdb.handle_members_up(&std::mem::take(&mut risen));
                    self.netdb.handle_member_left(node, self.boot_of(node));
                }
                membership::Event::Renewed(_) | membership::Event::Clash { .. } => {}
            }
            self.emit(Event::Member(event));
        }
        self.netdb.handle_members_up(&risen);
        let mut changed = false;
        while let Some(change) = self.netdb.poll_change() {
            self.history.record(change);
            changed = true;
        }
        if changed {
            self.emit(Event::Changed);
        }
        while let Some((network, state)) = self.netdb.poll_synced() {
            self.emit(Event::Synced(network, state));
        }
        while let Some((id, applied)) = self.netdb.poll_barrier() {
            self.emit(Event::Barrier(id, applied));
        }
    }

    fn emit(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Takes what somebody else knows of the members: at the start, and when a stream brings a list.
    pub fn apply_members(&mut self, now: Now, members: Vec<MemberState>) {
        self.membership.apply(now.instant, members);
        self.drain(now);
    }

    /// Takes a node for gone for good: what it says is dropped, and its entries go.
    pub fn remove_member(&mut self, now: Now, node: NodeId) {
        self.membership.remove(now.instant, node);
        self.drain(now);
    }

    /// Says to everyone that this node leaves; it should go on serving for about a second.
    pub fn leave(&mut self, now: Now) {
        self.membership.leave(now.instant);
        self.drain(now);
    }

    /// Writes an entry of this node.
    pub fn put(
        &mut self,
        now: Now,
        address: (NetworkId, &TableName, &Key),
        value: &Value,
        mode: PutMode,
    ) -> Result<Version, WriteError> {
        let written = self.netdb.put(now, address, value, mode);
        self.drain(now);
        written
    }

    /// Deletes an entry of this node.
    pub fn delete(
        &mut self,
        now: Now,
        address: (NetworkId, &TableName, &Key),
    ) -> Result<Version, WriteError> {
        let written = self.netdb.delete(now, address);
        self.drain(now);
        written
    }

    /// Attaches this node to a network.
    pub fn attach(&mut self, now: Now, network: NetworkId) -> Result<(), WriteError> {
        let attached = self.netdb.attach(now, network);
        self.drain(now);
        attached
    }

    /// Detaches this node from a network.
    pub fn detach(&mut self, now: Now, network: NetworkId) -> Result<(), WriteError> {
        let detached = self.netdb.detach(now, network);
        self.drain(now);
        detached
    }

    /// Says that this generation has written again all that stands.
    pub fn ready(&mut self, now: Now) -> Result<(), WriteError> {
        let said = self.netdb.ready(now);
        self.drain(now);
        said
    }

    /// Waits until every live member of the version's network has it; [`Event::Barrier`] says when, or that it was not by `deadline`.
    pub fn applied(&mut self, now: Now, version: Version, deadline: Instant) -> BarrierId {
        let id = self.netdb.applied(now, version, deadline);
        self.drain(now);
        id
    }

    /// Returns the newest of this node's writes in a network it is attached to.
    pub fn written(&self, network: NetworkId) -> Result<Version, WriteError> {
        self.netdb.written(network)
    }

    /// Takes dots of the cluster log from Raft; see [`NetDb::handle_cluster_log`].
    pub fn handle_cluster_log(&mut self, now: Now, dots: &[Dot], floor: u64, through: u64) {
        self.netdb.handle_cluster_log(now, dots, floor, through);
        self.drain(now);
    }

    /// Returns the entry that is visible under a key.
    pub fn get(&self, network: NetworkId, table: &str, key: &[u8]) -> Option<EntryView> {
        self.netdb.get(network, table, key)
    }

    /// Returns the visible entries that pass a filter, and the revision from which to hear of changes.
    pub fn list(&self, filter: &Filter) -> (Vec<EntryView>, u64) {
        let networks: Vec<NetworkId> = match filter.network {
            Some(network) => vec![network],
            None => self.netdb.networks().map(|(network, _)| network).collect(),
        };
        let entries = networks
            .into_iter()
            .flat_map(|network| self.netdb.list(network, filter.table.as_ref()));
        let entries = entries.filter(|entry| entry.key.as_bytes().starts_with(&filter.prefix));
        (entries.collect(), self.history.revision())
    }

    /// Returns the changes after a revision.
    pub fn changes(&self, after: u64, filter: &Filter, limit: usize) -> Result<Heard, Lagged> {
        self.history.since(after, filter, limit)
    }

    /// Returns the revision of the newest change.
    pub fn revision(&self) -> u64 {
        self.history.revision()
    }

    /// Forgets the changes so far, as time does.
    pub(crate) fn forget_changes(&mut self) {
        self.history.forget();
    }

    /// Returns the membership machine, to be asked.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns the networks this node carries, and how far each has come.
    pub fn networks(&self) -> impl Iterator<Item = (NetworkId, SyncState)> {
        self.netdb.networks()
    }

    /// Returns the live nodes attached to a network, ourselves included.
    pub fn attached(&self, network: NetworkId) -> impl Iterator<Item = NodeId> {
        self.netdb.attached(network)
    }

    /// Returns the hash of a network's shown logs: equal hashes, equal entries.
    pub fn root(&mut self, network: NetworkId) -> Option<u64> {
        self.netdb.root(network)
    }

    /// Returns how far this node has the log of what the cluster agreed, without a hole.
    pub fn agreed(&self) -> u64 {
        self.netdb.agreed()
    }

    /// Returns how many entries and tombstones are held.
    pub fn held(&self) -> usize {
        self.netdb.len()
    }

    /// Returns which dots of each log are held, for checkers.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, u64, u64)> {
        self.netdb.logs()
    }

    /// Returns every log held, with all its dots, for checkers. It copies them all.
    pub fn view_logs(&self) -> Vec<LogView> {
        self.netdb.view_logs()
    }

    /// Returns what was counted.
    pub fn stats(&self) -> Stats {
        Stats {
            datagrams_opened: self.opener.opened(),
            rejections: *self.opener.rejections(),
            spoken: self.versions.spoken(),
            netdb: self.netdb.stats(),
            membership: *self.membership.stats(),
            ..self.stats.clone()
        }
    }
}

fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + body.len());
    bytes.push(tag);
    bytes.extend_from_slice(body);
    bytes
}
