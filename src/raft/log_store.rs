//! Raft's log and vote, in tables of the data file.

use std::{fmt::Debug, ops::Bound, ops::RangeBounds};

use openraft::{
    AnyError, LogState, OptionalSend, RaftLogReader,
    storage::{LogFlushed, RaftLogStorage},
};
use redb::{ReadableTable, TableDefinition};

use super::{
    disk::Disk,
    types::{Entry, LogId, StorageError, StorageIOError, Types, Vote},
    wire::{WireEntry, WireLogId, WireVote},
};
use crate::{
    core::wire::codec,
    store::{Fault, Store, StoreError},
};

/// Index → entry.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("weft_raft_log");

/// Small things, by name; the snapshot and what it covers too.
pub(super) const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("weft_raft_state");

pub(super) const VOTE: &str = "vote";
pub(super) const COMMITTED: &str = "committed";
pub(super) const PURGED: &str = "purged";

/// How many bytes of entries one message carries, well below the largest frame; at least one entry.
const BATCH_BYTES: usize = 1024 * 1024;

/// The log and the vote. Every write is on the disk before it is answered.
#[derive(Clone, Debug)]
pub(super) struct LogStore {
    disk: Disk,
}

/// Makes Raft's tables, so that reading finds them.
pub(super) fn create_tables(store: &Store) -> Result<(), StoreError> {
    store.write(|transaction| {
        transaction.open_table(LOG)?;
        transaction.open_table(STATE)?;
        Ok(())
    })
}

impl LogStore {
    pub(super) fn new(disk: Disk) -> Self {
        Self { disk }
    }

    async fn state<T: bincode::Decode<()> + Send + 'static>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, AnyError> {
        let read = move |store: &Store| {
            store.read(|transaction| {
                let bytes = transaction.open_table(STATE)?.get(name)?;
                Ok(bytes
                    .map(|bytes| codec::decode(bytes.value()))
                    .transpose()?)
            })
        };
        self.disk.run(read).await
    }

    async fn entries(
        &self,
        range: (Bound<u64>, Bound<u64>),
        bytes_max: usize,
    ) -> Result<Vec<Entry>, AnyError> {
        let read = move |store: &Store| {
            store.read(|transaction| {
                let table = transaction.open_table(LOG)?;
                let (mut entries, mut size) = (Vec::new(), 0);
                for row in table.range::<u64>(range)? {
                    let (_, bytes) = row?;
                    size += bytes.value().len();
                    if size > bytes_max && !entries.is_empty() {
                        break;
                    }
                    entries.push(decode(bytes.value())?);
                }
                Ok(entries)
            })
        };
        self.disk.run(read).await
    }
}

fn decode(bytes: &[u8]) -> Result<Entry, Fault> {
    Ok(codec::decode::<WireEntry>(bytes)?.into())
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let entries = self.entries(range, usize::MAX).await;
        entries.map_err(|error| StorageIOError::read_logs(error).into())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let range = (Bound::Included(start), Bound::Excluded(end));
        let entries = self.entries(range, BATCH_BYTES).await;
        entries.map_err(|error| StorageIOError::read_logs(error).into())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let read = |store: &Store| {
            store.read(|transaction| {
                let state = transaction.open_table(STATE)?;
                let purged = state.get(PURGED)?;
                let purged = purged
                    .map(|bytes| codec::decode::<WireLogId>(bytes.value()))
                    .transpose()?;
                let log = transaction.open_table(LOG)?;
                let last = log.last()?;
                let last = last.map(|(_, bytes)| decode(bytes.value())).transpose()?;
                Ok((purged.map(LogId::from), last.map(|entry| entry.log_id)))
            })
        };
        let (purged, last) = self
            .disk
            .run(read)
            .await
            .map_err(StorageIOError::read_logs)?;
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let bytes = codec::encode(&WireVote::from(vote));
        let write = move |store: &Store| {
            store.write(|transaction| {
                transaction
                    .open_table(STATE)?
                    .insert(VOTE, bytes.as_slice())?;
                Ok(())
            })
        };
        let written = self.disk.run(write).await;
        written.map_err(|error| StorageIOError::write_vote(error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.state::<WireVote>(VOTE).await;
        Ok(vote.map_err(StorageIOError::read_vote)?.map(Into::into))
    }

    /// Only a hint for the next start, so it does not wait for the disk.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let bytes = committed.map(|id| codec::encode(&WireLogId::from(&id)));
        let write = move |store: &Store| {
            store.write_lazily(|transaction| {
                let mut state = transaction.open_table(STATE)?;
                match &bytes {
                    Some(bytes) => state.insert(COMMITTED, bytes.as_slice())?,
                    None => state.remove(COMMITTED)?,
                };
                Ok(())
            })
        };
        let written = self.disk.run(write).await;
        written.map_err(|error| StorageIOError::write(error).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let committed = self.state::<WireLogId>(COMMITTED).await;
        Ok(committed.map_err(StorageIOError::read)?.map(Into::into))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encode = |entry: Entry| (entry.log_id.index, codec::encode(&WireEntry::from(entry)));
        let rows: Vec<(u64, Vec<u8>)> = entries.into_iter().map(encode).collect();
        let write = move |store: &Store| {
            store.write(|transaction| {
                let mut log = transaction.open_table(LOG)?;
                for (index, bytes) in &rows {
                    log.insert(index, bytes.as_slice())?;
                }
                Ok(())
            })
        };
        match self.disk.run(write).await {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.to_string())));
                Err(StorageIOError::write_logs(error).into())
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let write = move |store: &Store| {
            store.write(|transaction| {
                let mut log = transaction.open_table(LOG)?;
                log.retain_in(log_id.index.., |_, _| false)?;
                Ok(())
            })
        };
        let written = self.disk.run(write).await;
        written.map_err(|error| StorageIOError::write_logs(error).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let bytes = codec::encode(&WireLogId::from(&log_id));
        let write = move |store: &Store| {
            store.write(|transaction| {
                let mut state = transaction.open_table(STATE)?;
                state.insert(PURGED, bytes.as_slice())?;
                let mut log = transaction.open_table(LOG)?;
                log.retain_in(..=log_id.index, |_, _| false)?;
                Ok(())
            })
        };
        let written = self.disk.run(write).await;
        written.map_err(|error| StorageIOError::write_logs(error).into())
    }
}
