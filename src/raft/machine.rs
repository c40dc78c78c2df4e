//! The state machine: the allocator in memory, its snapshot on disk, and what it has to tell the cluster log.

use std::{
    io::Cursor,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, storage::RaftStateMachine,
};
use redb::ReadableTable;
use tokio::sync::Notify;

use super::{
    disk::Disk,
    log_store::STATE,
    types::{
        Applied, Entry, LogId, SnapshotMeta, StorageError, StorageIOError, StoredMembership, Types,
    },
    wire::WireMeta,
};
use crate::{
    core::{
        allocator::{Allocator, Outcome, SnapshotError},
        model::Dot,
        wire::codec,
    },
    store::{Store, StoreError},
};

pub(super) const SNAPSHOT: &str = "snapshot";
pub(super) const SNAPSHOT_META: &str = "snapshot_meta";

/// How many dots may wait to be taken; with more the whole log is handed over instead.
const PENDING_MAX: usize = 4_096;

/// News of the cluster log, for `netdb` to spread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterLog {
    /// Dots by number. Without `whole`: densely numbered, following the ones before.
    pub dots: Vec<Dot>,
    /// Deletes up to this number are remembered only as absence.
    pub floor: u64,
    /// The number of the newest dot.
    pub last: u64,
    /// Whether `dots` is everything that there is up to `last`: numbers that are missing were superseded.
    pub whole: bool,
}

/// What was applied, and what nobody took yet.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) allocator: Allocator,
    pub(super) last: Option<LogId>,
    pub(super) membership: StoredMembership,
    pending: Pending,
}

#[derive(Debug)]
enum Pending {
    Dots(Vec<Dot>),
    Whole,
}

impl Default for Pending {
    fn default() -> Self {
        Self::Dots(Vec::new())
    }
}

/// The state, shared between openraft's worker, readers, and the task that hands over the cluster log.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told after dots were made.
    pub(super) news: Notify,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what nobody took yet.
    pub(super) fn take_news(&self) -> Option<ClusterLog> {
        let mut state = self.lock();
        let pending = std::mem::take(&mut state.pending);
        let (dots, floor, whole) = match pending {
            Pending::Dots(dots) if dots.is_empty() => return None,
            Pending::Dots(dots) => (dots, state.allocator.floor(), false),
            Pending::Whole => {
                let (dots, floor) = state.allocator.cluster_log();
                (dots, floor, true)
            }
        };
        Some(ClusterLog {
            dots,
            floor,
            last: state.allocator.last_dot(),
            whole,
        })
    }
}

impl State {
    /// Loads the last snapshot; without one it is the state of a log that was never begun.
    pub(super) fn load(store: &Store) -> Result<Self, LoadError> {
        let Some((meta, bytes)) = read_snapshot(store)? else {
            return Ok(Self::default());
        };
        Ok(Self {
            allocator: Allocator::restore(&bytes)?,
            last: meta.last_log_id,
            membership: meta.last_membership,
            pending: Pending::Whole,
        })
    }

    pub(super) fn apply(&mut self, entry: Entry) -> Applied {
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Ok(Outcome::Done),
            EntryPayload::Normal(command) => {
                let applied = self.allocator.apply(&command);
                let dots = self.allocator.take_dots();
                self.pending.add(dots);
                applied
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Ok(Outcome::Done)
            }
        }
    }
}

impl Pending {
    fn add(&mut self, new: Vec<Dot>) {
        match self {
            Self::Dots(dots) if dots.len() + new.len() > PENDING_MAX => *self = Self::Whole,
            Self::Dots(dots) => dots.extend(new),
            Self::Whole => {}
        }
    }
}

/// Why the state on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshot in it is damaged or from another version.
    #[error("the agreed state on disk cannot be read")]
    Snapshot(#[from] SnapshotError),
}

/// The state machine as openraft drives it; also the one that builds snapshots.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    shared: Arc<Shared>,
    disk: Disk,
}

impl Machine {
    /// Loads the last snapshot; openraft applies what follows it in the log.
    pub(super) fn load(store: &Store, disk: Disk) -> Result<(Self, Arc<Shared>), LoadError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::load(store)?),
            news: Notify::default(),
        });
        shared.news.notify_one();
        let machine = Self {
            shared: Arc::clone(&shared),
            disk,
        };
        Ok((machine, shared))
    }

    async fn write_snapshot(&self, meta: &SnapshotMeta, bytes: Vec<u8>) -> Result<(), AnyError> {
        let meta = WireMeta::from(meta);
        self.disk
            .run(move |store| write_snapshot(store, &meta, &bytes))
            .await
    }
}

fn read_snapshot(store: &Store) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
    store.read(|transaction| {
        let table = transaction.open_table(STATE)?;
        let (Some(meta), Some(bytes)) = (table.get(SNAPSHOT_META)?, table.get(SNAPSHOT)?) else {
            return Ok(None);
        };
        let meta = codec::decode::<WireMeta>(meta.value())?;
        Ok(Some((meta.into(), bytes.value().to_vec())))
    })
}

/// Writes a snapshot, unless a newer one came from the leader while this one was built.
fn write_snapshot(store: &Store, meta: &WireMeta, bytes: &[u8]) -> Result<(), StoreError> {
    store.write(|transaction| {
        let mut table = transaction.open_table(STATE)?;
        let known = match table.get(SNAPSHOT_META)? {
            Some(known) => codec::decode::<WireMeta>(known.value())?.last,
            None => None,
        };
        if known.map(LogId::from) <= meta.last.map(LogId::from) {
            table.insert(SNAPSHOT_META, codec::encode(meta).as_slice())?;
            table.insert(SNAPSHOT, bytes)?;
        }
        Ok(())
    })
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let (meta, bytes) = {
            let state = self.shared.lock();
            let snapshot_id = match &state.last {
                Some(last) => format!("{}-{}", last.leader_id, last.index),
                None => "empty".to_owned(),
            };
            let meta = SnapshotMeta {
                last_log_id: state.last,
                last_membership: state.membership.clone(),
                snapshot_id,
            };
            (meta, state.allocator.snapshot())
        };
        let written = self.write_snapshot(&meta, bytes.clone()).await;
        written.map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), error))?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let state = self.shared.lock();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let applied = {
            let mut state = self.shared.lock();
            entries
                .into_iter()
                .map(|entry| state.apply(entry))
                .collect()
        };
        self.shared.news.notify_one();
        Ok(applied)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = snapshot.into_inner();
        let signature = || Some(meta.signature());
        let allocator = Allocator::restore(&bytes)
            .map_err(|error| StorageIOError::read_snapshot(signature(), AnyError::new(&error)))?;
        let written = self.write_snapshot(meta, bytes).await;
        written.map_err(|error| StorageIOError::write_snapshot(signature(), error))?;
        {
            let mut state = self.shared.lock();
            state.allocator = allocator;
            state.last = meta.last_log_id;
            state.membership = meta.last_membership.clone();
            state.pending = Pending::Whole;
        }
        self.shared.news.notify_one();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let snapshot = self.disk.run(read_snapshot).await;
        let snapshot = snapshot.map_err(|error| StorageIOError::read_snapshot(None, error))?;
        Ok(snapshot.map(|(meta, bytes)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        }))
    }
}
