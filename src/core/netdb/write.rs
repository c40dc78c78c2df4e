//! This node's own writes: put, delete, attach, detach, ready; and the cluster log, which every voter writes alike.

use bytes::Bytes;

use super::{
    ATTACH_TABLE, LogId, NetDb, READY_TABLE, Reason, SyncState, Version, WriteError,
    have::{Have, RANGES_MAX},
    message::{Complete, WireDot},
    receive::Taken,
    replica::{Applied, Replica},
};
use crate::core::{
    model::{Dot, Generation, Key, NetworkId, NodeId, Now, TableName, Value},
    wire::codec,
};

/// What a put expects to find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutMode {
    /// No visible entry (N2).
    Create,
    /// A visible entry of this node (N5).
    Update,
    /// No visible entry, or one of this node.
    Upsert,
}

impl NetDb {
    /// Writes an entry of this node. Nothing is written where an error is returned.
    pub fn put(
        &mut self,
        now: Now,
        address: (NetworkId, &TableName, &Key),
        value: &Value,
        mode: PutMode,
    ) -> Result<Version, WriteError> {
        let (network, table, key) = address;
        let log = self
            .our_log(network)
            .ok_or(WriteError::NotAttached(network))?;
        let owner = self.replicas[&network].owner(table.as_str(), key.as_bytes());
        match (mode, owner) {
            (PutMode::Create, Some(owner)) => return Err(WriteError::AlreadyExists { owner }),
            (PutMode::Update, None) => return Err(WriteError::NotFound),
            (PutMode::Update | PutMode::Upsert, Some(owner)) if owner != self.me => {
                return Err(WriteError::NotOwner { owner });
            }
            (PutMode::Create | PutMode::Upsert, None)
            | (PutMode::Update | PutMode::Upsert, Some(_)) => {}
        }
        self.write(now, log, (table, key), Some(value))
    }

    /// Deletes an entry of this node, hidden behind another owner's or not. Nothing is written where an error is returned.
    pub fn delete(
        &mut self,
        now: Now,
        address: (NetworkId, &TableName, &Key),
    ) -> Result<Version, WriteError> {
        let (network, table, key) = address;
        let log = self
            .our_log(network)
            .ok_or(WriteError::NotAttached(network))?;
        let replica = &self.replicas[&network];
        if !replica.holds(&log, table.as_str(), key.as_bytes()) {
            return Err(match replica.owner(table.as_str(), key.as_bytes()) {
                Some(owner) => WriteError::NotOwner { owner },
                None => WriteError::NotFound,
            });
        }
        self.write(now, log, (table, key), None)
    }

    /// Returns the newest of this node's writes in a network, for a barrier; number 0 if there is none.
    pub fn written(&self, network: NetworkId) -> Result<Version, WriteError> {
        let log = self
            .our_log(network)
            .ok_or(WriteError::NotAttached(network))?;
        Ok(Version {
            log,
            seq: self.own_head(&log),
            written: self.clock,
        })
    }

    fn write(
        &mut self,
        now: Now,
        log: LogId,
        entry: (&TableName, &Key),
        value: Option<&Value>,
    ) -> Result<Version, WriteError> {
        let replica = self.replicas.get_mut(&log.network);
        let replica = replica.ok_or(WriteError::NotAttached(log.network))?;
        let at = replica.open(log, true).ok_or(WriteError::Backpressure)?;
        let seq = replica.log(&log).map_or(1, |log| log.have.head() + 1);
        let written = self.clock.tick(now.wall);
        let dot = WireDot {
            seq,
            written,
            table: entry.0.as_str(),
            key: entry.1.as_bytes(),
            value: value.map(Value::as_bytes),
        };
        match replica.apply(at, &dot, RANGES_MAX) {
            Applied::New(difference) => {
                self.clock = written;
                self.stats.applied += 1;
                self.report(log.network, difference, Reason::Removed);
            }
            Applied::Known | Applied::NoRoom => return Err(WriteError::Backpressure),
        }
        if value.is_none() {
            self.floors.note_delete(now.instant, log, seq);
        }
        self.spread_dot(now.instant, log, seq, None);
        Ok(Version { log, seq, written })
    }

    /// Attaches this node to a network: from now on it carries the network's entries. Attaching twice is no error.
    pub fn attach(&mut self, now: Now, network: NetworkId) -> Result<(), WriteError> {
        if self.our_log(network).is_some() {
            return Ok(());
        }
        let scope = self
            .our_log(NetworkId::CLUSTER)
            .expect("every node carries the cluster scope");
        let value = Value::new(Bytes::new())?;
        let version = self.write(
            now,
            scope,
            (&attach_table(), &attach_key(network, self.me)),
            Some(&value),
        )?;
        let log = LogId {
            network,
            epoch: version.seq,
            ..scope
        };
        self.owners.attach(log, version.seq, true);
        let replica = Replica::new(network, self.config.mutated);
        self.replicas.insert(network, replica);
        self.sync_states.insert(network, SyncState::Syncing);
        self.rings.remove(&network);
        self.sync_with_neighbours(now.instant, network);
        Ok(())
    }

    /// Detaches this node from a network: its entries in it vanish everywhere, and others' vanish here.
    pub fn detach(&mut self, now: Now, network: NetworkId) -> Result<(), WriteError> {
        if network == NetworkId::CLUSTER || self.our_log(network).is_none() {
            return Err(WriteError::NotAttached(network));
        }
        let scope = self
            .our_log(NetworkId::CLUSTER)
            .expect("every node carries the cluster scope");
        let version = self.write(
            now,
            scope,
            (&attach_table(), &attach_key(network, self.me)),
            None,
        )?;
        self.owners
            .attach(LogId { network, ..scope }, version.seq, false);
        if let Some(mut replica) = self.replicas.remove(&network) {
            let logs: Vec<_> = replica.logs().map(|log| log.id).collect();
            for log in logs {
                let gone = replica.drop_log(&log);
                self.report(network, gone, Reason::Detached);
            }
        }
        self.sync_states.remove(&network);
        self.rings.remove(&network);
        self.floors.forget_network(network);
        self.syncs.forget_network(network);
        self.end_barriers(now.instant);
        Ok(())
    }

    /// Says that this generation has written again all that stands: what the former one had besides is gone.
    pub fn ready(&mut self, now: Now) -> Result<(), WriteError> {
        let scope = self
            .our_log(NetworkId::CLUSTER)
            .expect("every node carries the cluster scope");
        let networks: Vec<_> = self.replicas.keys().copied().collect();
        let heads: Vec<(NetworkId, u64, u64)> = networks
            .into_iter()
            .filter(|network| *network != NetworkId::CLUSTER)
            .filter_map(|network| {
                let log = self.our_log(network)?;
                let head = self.replicas[&network]
                    .log(&log)
                    .map_or(0, |log| log.have.head());
                Some((network, log.epoch, head))
            })
            .collect();
        let value = Value::new(codec::encode(&heads))?;
        let table = TableName::new(READY_TABLE)?;
        let key = Key::new(self.me.0.to_be_bytes().to_vec())?;
        self.write(now, scope, (&table, &key), Some(&value))
            .map(drop)
    }

    /// Takes dots of the cluster log from Raft: every voter writes the same, so whoever is first tells the others.
    ///
    /// `through` is the last event that Raft has applied: dots up to it that are not here are superseded. A node that is
    /// below `floor` must be given all that the log holds, as after a restart.
    pub fn handle_cluster_log(&mut self, now: Now, dots: &[Dot], floor: u64, through: u64) {
        let log = CLUSTER_LOG;
        let prefix = self.replicas[&log.network]
            .log(&log)
            .map_or(0, |log| log.have.prefix());
        for dot in dots {
            let wire = WireDot {
                seq: dot.seq,
                written: dot.written,
                table: dot.table.as_str(),
                key: dot.key.as_bytes(),
                value: dot.value.as_ref().map(Value::as_bytes),
            };
            if self.take_dot(log, &wire, RANGES_MAX) == Taken::New {
                self.spread_dot(now.instant, log, dot.seq, None);
            }
        }
        let kept = (prefix < floor).then(|| {
            let below = dots.iter().filter(|dot| dot.seq <= floor);
            below.map(|dot| (dot.seq, dot.seq)).collect()
        });
        let complete = Complete {
            have: Have::up_to(through),
            floor,
            kept,
        };
        self.take_complete(log, &complete);
    }
}

/// The log whose owner is the cluster: what Raft has agreed, numbered by the allocator.
pub(super) const CLUSTER_LOG: LogId = LogId {
    network: NetworkId::CLUSTER,
    owner: NodeId::CLUSTER,
    generation: Generation(0),
    epoch: 0,
};

fn attach_table() -> TableName {
    TableName::new(ATTACH_TABLE).expect("a constant within the limits")
}

pub(super) fn attach_key(network: NetworkId, node: NodeId) -> Key {
    let mut key = network.0.to_be_bytes().to_vec();
    key.extend(node.0.to_be_bytes());
    Key::new(key).expect("twelve bytes are within the limits")
}

/// Returns the network that an attachment's key names, if it is a key of that node's.
pub(super) fn attached_network(key: &[u8], node: NodeId) -> Option<NetworkId> {
    let (network, owner) = key.split_first_chunk()?;
    (owner == node.0.to_be_bytes()).then_some(NetworkId(u32::from_be_bytes(*network)))
}
