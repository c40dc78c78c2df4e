//! The log store and the state machine against the suite that openraft keeps for them, and on a damaged disk.

mod confirm;
mod election;
mod faults;
mod handover;
mod propose;
mod recover;
mod rig;
mod snapshot;

use openraft::{
    EntryPayload,
    storage::{RaftLogReader, RaftLogStorageExt},
    testing::{StoreBuilder, Suite, log_id},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{
    disk::Disk,
    log_store::{LogStore, create_tables},
    machine::Machine,
    types::{Entry, StorageError, Types},
};
use crate::{
    core::{
        allocator::{Action, Command, TokenSecret},
        model::Hlc,
    },
    store::{FILE_NAME, Store, StoreError},
};

#[test]
fn the_engines_own_suite_passes() {
    Suite::test_all(OnDisk).unwrap();
}

/// The disk may cut the file off or flip a bit anywhere: the log is what was written, or the file is refused as damaged.
#[tokio::test]
async fn a_log_on_a_damaged_disk_is_whole_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let written: Vec<Entry> = (1..=64).map(entry).collect();
    {
        let store = Store::open(directory.path()).unwrap();
        create_tables(&store).unwrap();
        let mut log = LogStore::new(disk(&store));
        log.blocking_append(written.clone()).await.unwrap();
    }
    let path = directory.path().join(FILE_NAME);
    let whole = std::fs::read(&path).unwrap();
    let (mut refused, mut read) = (0, 0);
    for part in 0..48 {
        let at = whole.len() / 48 * part + part;
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (part % 8);
        for damaged in [&whole[..at], &flipped[..]] {
            std::fs::write(&path, damaged).unwrap();
            let store = match Store::open(directory.path()) {
                Ok(store) => store,
                Err(StoreError::Corrupt { .. } | StoreError::Foreign { .. }) => {
                    refused += 1;
                    continue;
                }
                // An empty file is one that was never begun.
                Err(other) => panic!("at {at}: {other}"),
            };
            if damaged.is_empty() {
                continue;
            }
            match LogStore::new(disk(&store)).try_get_log_entries(..).await {
                Ok(entries) => {
                    assert_eq!(entries, written, "at {at}");
                    read += 1;
                }
                Err(_refused) => refused += 1,
            }
        }
    }
    assert!(refused > 20 && read > 5, "{refused} refused, {read} read");
}

fn disk(store: &Store) -> Disk {
    Disk::new(store.clone(), CancellationToken::new())
}

fn entry(index: u64) -> Entry {
    let command = Command {
        at: Hlc(index),
        request: index.into(),
        action: Action::RotateToken {
            secret: TokenSecret([7; 16]),
        },
    };
    Entry {
        log_id: log_id(1, 0, index),
        payload: EntryPayload::Normal(command),
    }
}

struct OnDisk;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        create_tables(&store).unwrap();
        let disk = disk(&store);
        let (machine, _shared) = Machine::load(&store, disk.clone()).unwrap();
        Ok((directory, LogStore::new(disk), machine))
    }
}
