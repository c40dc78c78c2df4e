//! A few nodes in one place, for tests: their messages arrive at once, unless they are held or cut off.

#![expect(clippy::unwrap_in_result, reason = "a test may panic")]

use std::{collections::BTreeMap, time::Duration};

use crate::core::{
    model::{Boot, Generation, Instant, Key, NetworkId, NodeId, Now, TableName, UnixMillis, Value},
    netdb::{Change, Config, NetDb, Outgoing, PutMode, SyncState, Version, WriteError},
};

/// The network that most tests are about.
pub(super) const APP: NetworkId = NetworkId(1);

pub(super) fn table() -> TableName {
    TableName::new("t").unwrap()
}

pub(super) fn key(text: &str) -> Key {
    Key::new(text.as_bytes().to_vec()).unwrap()
}

/// A few nodes whose messages arrive at once, unless they are held or cut off.
pub(super) struct Net {
    pub(super) now: Now,
    pub(super) dbs: BTreeMap<u64, NetDb>,
    pub(super) hold: bool,
    pub(super) held: Vec<(u64, Outgoing)>,
    pub(super) cut: Vec<u64>,
    /// Who answers nothing on streams.
    pub(super) mute: Vec<u64>,
}

impl Net {
    pub(super) fn new(nodes: u64) -> Self {
        let now = Now {
            instant: Instant::default(),
            wall: UnixMillis(1_000_000),
        };
        let new = |n| {
            (
                n,
                NetDb::new(Config::default(), NodeId(n), Generation(1), n, now),
            )
        };
        let dbs = (1..=nodes).map(new).collect();
        let mut net = Self {
            now,
            dbs,
            hold: false,
            held: Vec::new(),
            cut: Vec::new(),
            mute: Vec::new(),
        };
        for node in 1..=nodes {
            net.up(node, 1);
        }
        net
    }

    pub(super) fn up(&mut self, node: u64, boot: u32) {
        for (id, db) in &mut self.dbs {
            if *id != node {
                db.handle_member_up(NodeId(node), Boot(boot));
            }
        }
        self.settle();
    }

    pub(super) fn down(&mut self, node: u64) {
        let now = self.now.instant;
        for (_, db) in self.dbs.iter_mut().filter(|(id, _)| **id != node) {
            db.handle_member_down(now, NodeId(node));
        }
        self.settle();
    }

    pub(super) fn cut(&mut self, node: u64) {
        self.cut.push(node);
        self.down(node);
    }

    pub(super) fn heal(&mut self, node: u64) {
        self.cut.retain(|cut| *cut != node);
        self.up(node, 1);
    }

    /// The node comes back with nothing but a new generation, before anybody notices that it was gone.
    pub(super) fn restart(&mut self, node: u64, generation: u32) {
        self.restart_unheard(node, generation);
        self.up(node, generation);
    }

    /// The same, and nobody has heard of the new boot.
    pub(super) fn restart_unheard(&mut self, node: u64, generation: u32) {
        let mut db = NetDb::new(
            Config::default(),
            NodeId(node),
            Generation(generation),
            node,
            self.now,
        );
        for other in self.dbs.keys().filter(|id| **id != node) {
            db.handle_member_up(NodeId(*other), Boot(1));
        }
        self.dbs.insert(node, db);
    }

    pub(super) fn attach<const N: usize>(&mut self, nodes: [u64; N], network: NetworkId) {
        for node in nodes {
            let now = self.now;
            self.dbs
                .get_mut(&node)
                .unwrap()
                .attach(now, network)
                .unwrap();
            self.settle();
        }
    }

    pub(super) fn ready(&mut self, node: u64) {
        let now = self.now;
        self.dbs.get_mut(&node).unwrap().ready(now).unwrap();
        self.settle();
    }

    pub(super) fn put(&mut self, node: u64, name: &str, value: &str) {
        self.try_put(node, name, value, PutMode::Create).unwrap();
    }

    pub(super) fn try_put(
        &mut self,
        node: u64,
        name: &str,
        value: &str,
        mode: PutMode,
    ) -> Result<Version, WriteError> {
        let now = self.now;
        let value = Value::new(value.as_bytes().to_vec()).unwrap();
        let db = self.dbs.get_mut(&node).unwrap();
        let written = db.put(now, (APP, &table(), &key(name)), &value, mode);
        self.settle();
        written
    }

    pub(super) fn delete(&mut self, node: u64, name: &str) -> Result<Version, WriteError> {
        let now = self.now;
        let db = self.dbs.get_mut(&node).unwrap();
        let written = db.delete(now, (APP, &table(), &key(name)));
        self.settle();
        written
    }

    pub(super) fn seen(&self, node: u64, name: &str) -> Option<String> {
        let entry = self.dbs[&node].get(APP, "t", name.as_bytes())?;
        Some(String::from_utf8(entry.value.as_bytes().to_vec()).unwrap())
    }

    pub(super) fn root(&mut self, node: u64) -> u64 {
        self.dbs.get_mut(&node).unwrap().root(APP).unwrap()
    }

    pub(super) fn changes(&mut self, node: u64) -> Vec<Change> {
        let db = self.dbs.get_mut(&node).unwrap();
        let changes = std::iter::from_fn(|| db.poll_change());
        changes.filter(|change| change.network == APP).collect()
    }

    pub(super) fn state_of(&self, node: u64, network: NetworkId) -> SyncState {
        let mut networks = self.dbs[&node].networks();
        networks.find(|(of, _)| *of == network).unwrap().1
    }

    pub(super) fn state(&self, node: u64) -> SyncState {
        self.state_of(node, APP)
    }

    /// The states that a node's network went through since the last time.
    pub(super) fn states(&mut self, node: u64) -> Vec<SyncState> {
        let db = self.dbs.get_mut(&node).unwrap();
        let states = std::iter::from_fn(|| db.poll_synced());
        states
            .filter(|(network, _)| *network == APP)
            .map(|(_, state)| state)
            .collect()
    }

    pub(super) fn deliver(&mut self, held: Vec<(u64, Outgoing)>) {
        let now = self.now;
        for (from, message) in held {
            let db = self.dbs.get_mut(&message.to.0).unwrap();
            let _ = db.handle_record(now, NodeId(from), message.kind, &message.body);
        }
        self.settle();
    }

    pub(super) fn step(&mut self) -> bool {
        let now = self.now;
        let mut moved = false;
        for id in self.dbs.keys().copied().collect::<Vec<_>>() {
            while let Some(message) = self.dbs.get_mut(&id).unwrap().poll_transmit() {
                moved = true;
                if self.hold {
                    self.held.push((id, message));
                } else if !self.cut.contains(&id) && !self.cut.contains(&message.to.0) {
                    let to = self.dbs.get_mut(&message.to.0).unwrap();
                    let _ = to.handle_record(now, NodeId(id), message.kind, &message.body);
                }
            }
            while let Some(call) = self.dbs.get_mut(&id).unwrap().poll_stream() {
                moved = true;
                let to = call.id.to.0;
                let cut = self.hold || self.cut.contains(&id) || self.cut.contains(&to);
                let answers = !cut && !self.mute.contains(&to);
                let answer = answers.then(|| {
                    self.dbs
                        .get_mut(&call.id.to.0)
                        .unwrap()
                        .handle_stream(NodeId(id), &call.request)
                });
                let db = self.dbs.get_mut(&id).unwrap();
                match answer {
                    Some(Ok(reply)) => drop(db.handle_stream_reply(now, call.id, &reply)),
                    Some(Err(_)) | None => db.handle_stream_failed(now.instant, call.id),
                }
            }
        }
        moved
    }

    /// Lets all that is under way arrive, and all that waits for a flush go: two milliseconds at most.
    pub(super) fn settle(&mut self) {
        let end = self.now.instant + Duration::from_millis(2);
        while self.step() {}
        while self.tick(end) {}
    }

    /// Lets the time go on to the next timeout, unless that is after `end`.
    fn tick(&mut self, end: Instant) -> bool {
        let next = self.dbs.values().filter_map(NetDb::poll_timeout).min();
        let Some(next) = next.filter(|next| *next <= end) else {
            return false;
        };
        let passed = next.saturating_duration_since(self.now.instant);
        self.now.instant = next.max(self.now.instant);
        self.now.wall.0 += u64::try_from(passed.as_millis()).unwrap();
        let now = self.now;
        self.dbs.values_mut().for_each(|db| db.handle_timeout(now));
        while self.step() {}
        true
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while self.tick(end) {}
        self.now.instant = end.max(self.now.instant);
    }
}
