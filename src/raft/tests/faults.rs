//! The agreement on a disk that is full, or loses its power.

use std::{fs, time::Duration};

use openraft::{
    RaftSnapshotBuilder,
    storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
    testing::log_id,
};

use super::{
    super::{
        log_store::{LogStore, create_tables},
        machine::{Machine, State},
        types::{LogId, Vote},
    },
    disk, entry,
    rig::{Rig, network},
};
use crate::{
    core::model::NodeId,
    raft::{ProposeError, Role},
    store::{
        FILE_NAME, Store,
        faults::{FaultyDisk, Kept},
    },
};

/// What is on the disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct OnDisk {
    vote: Option<Vote>,
    log: Vec<LogId>,
    purged: Option<LogId>,
    snapshot: Option<LogId>,
}

/// The power goes at each operation of the disk in turn: what was answered is there, and the rest wholly or not at all.
#[tokio::test]
async fn without_power_at_any_operation_no_vote_and_no_entry_that_was_answered_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    create_tables(&Store::open(directory.path()).unwrap()).unwrap();
    let fresh = fs::read(directory.path().join(FILE_NAME)).unwrap();
    let whole = FaultyDisk::holding(fresh.clone());
    let store = whole.store(directory.path()).unwrap();
    let (answered, then) = work(&store).await;
    assert_eq!((then, answered.log.len()), (None, 8));
    drop(store);
    let (mut cut_short, mut undone) = (0, 0);

    for power in 0..whole.operations() {
        let disk = FaultyDisk::holding(fresh.clone());
        disk.set_power(power);
        let (answered, then) = match disk.store(directory.path()) {
            Ok(store) => work(&store).await,
            Err(_dark) => (OnDisk::default(), None),
        };
        cut_short += usize::from(then.is_some());
        for kept in [Kept::All, Kept::None, Kept::Alternate, Kept::Torn] {
            let disk = disk.after_power_cut(kept);
            let store = disk.store(directory.path()).unwrap();
            let there = look(&store).await;

            let is_one_of_two = there == answered || Some(&there) == then.as_ref();
            assert!(
                is_one_of_two,
                "{power}, {kept:?}: {there:?}, {answered:?}, {then:?}"
            );
            undone += usize::from(there == answered && then.is_some());
        }
    }
    assert!(cut_short > 20 && undone > 20, "{cut_short}, {undone}");
}

/// Does what a voter does, until the disk refuses. Returns what was answered, and what it would have been after one more.
async fn work(store: &Store) -> (OnDisk, Option<OnDisk>) {
    let mut log = LogStore::new(disk(store));
    let (mut machine, _shared) = Machine::load(store, disk(store)).unwrap();
    let mut now = OnDisk::default();
    macro_rules! then {
        ($work:expr, $change:expr) => {{
            let mut next = now.clone();
            let change: fn(&mut OnDisk) = $change;
            change(&mut next);
            if $work.await.is_err() {
                return (now, Some(next));
            }
            now = next;
        }};
    }
    then!(log.save_vote(&Vote::new(1, 2)), |next| next.vote =
        Some(Vote::new(1, 2)));
    then!(log.blocking_append((1..=4).map(entry)), |next| next.log =
        ids(1, 4));
    then!(log.blocking_append((5..=10).map(entry)), |next| next.log =
        ids(1, 10));
    then!(log.truncate(log_id(1, 0, 9)), |next| next.log = ids(1, 8));
    then!(log.save_vote(&Vote::new(7, 1)), |next| next.vote =
        Some(Vote::new(7, 1)));
    machine.apply((1..=3).map(entry)).await.unwrap();
    then!(machine.build_snapshot(), |next| next.snapshot =
        Some(log_id(1, 0, 3)));
    then!(log.purge(log_id(1, 0, 2)), |next| {
        next.log = ids(3, 8);
        next.purged = Some(log_id(1, 0, 2));
    });
    then!(log.blocking_append((9..=10).map(entry)), |next| next.log =
        ids(3, 10));
    (now, None)
}

fn ids(first: u64, last: u64) -> Vec<LogId> {
    (first..=last).map(|index| log_id(1, 0, index)).collect()
}

async fn look(store: &Store) -> OnDisk {
    let mut log = LogStore::new(disk(store));
    let entries = log.try_get_log_entries(..).await.unwrap();
    OnDisk {
        vote: log.read_vote().await.unwrap(),
        log: entries.into_iter().map(|entry| entry.log_id).collect(),
        purged: log.get_log_state().await.unwrap().last_purged_log_id,
        snapshot: State::load(store).unwrap().last,
    }
}

#[tokio::test]
async fn a_leader_whose_disk_is_full_takes_no_part_and_goes_on_once_there_is_room() {
    let mut rig = Rig::new(3, Duration::from_millis(600));
    rig.propose_within(Duration::from_secs(20));
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open(directory.path()).unwrap());
    let disk = FaultyDisk::holding(fs::read(directory.path().join(FILE_NAME)).unwrap());
    let store = disk.store(directory.path()).unwrap();
    rig.add_disk(1, directory, store);
    rig.found(3).await;
    assert_eq!(rig.leader(), Some(1));

    disk.set_room(Some(0));
    // It is asked for no more than the others find out: what comes of it is not known.
    let leader = rig.raft(1);
    let asked = leader.propose(network("first"));
    let (_, ()) = tokio::join!(asked, async {
        rig.until("another leads", || matches!(rig.leader(), Some(2 | 3)))
            .await;
        assert_eq!(rig.raft(1).status().role, Role::DiskFull);
        assert_ne!(rig.raft(1).leader(), Some(NodeId(1)));
        rig.create(2, "second").await;
        disk.set_room(None);
    });

    rig.until("it takes part again", || {
        rig.tell();
        rig.raft(1).status().role == Role::Follower && rig.networks(1).contains("second")
    })
    .await;
    rig.create(1, "third").await;
}

#[tokio::test]
async fn a_lone_voter_whose_disk_is_full_says_that_nobody_leads() {
    let mut rig = Rig::new(1, Duration::from_millis(600));
    rig.propose_within(Duration::from_secs(1));
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open(directory.path()).unwrap());
    let disk = FaultyDisk::holding(fs::read(directory.path().join(FILE_NAME)).unwrap());
    let store = disk.store(directory.path()).unwrap();
    rig.add_disk(1, directory, store);
    rig.found(1).await;

    disk.set_room(Some(0));
    let unanswered = rig.raft(1).propose(network("first")).await;
    let refused = rig.raft(1).propose(network("second")).await;
    disk.set_room(None);

    assert_eq!(unanswered, Err(ProposeError::Timeout));
    assert_eq!(refused, Err(ProposeError::NoLeader));
    rig.until("it leads again", || rig.leader() == Some(1))
        .await;
    rig.create(1, "third").await;
    // It was written down once there was room.
    assert!(rig.networks(1).contains("first"));
    assert!(!rig.networks(1).contains("second"));
}
