//! Snapshots from other nodes.

use std::time::Duration;

use super::rig::Rig;
use crate::{
    core::model::NodeId,
    raft::{
        SNAPSHOT_MAX,
        types::SnapshotMeta,
        wire::{self, Message, Reply, WireMeta, WireVote},
    },
};

#[tokio::test]
async fn a_snapshot_that_would_never_end_is_refused() {
    let mut rig = Rig::new(1, Duration::from_millis(600));
    rig.found(1).await;
    let page = Message::Snapshot {
        vote: WireVote {
            term: 9,
            node: 2,
            committed: true,
        },
        meta: WireMeta::from(&SnapshotMeta::default()),
        offset: SNAPSHOT_MAX,
        data: vec![1],
        done: false,
    };

    let answer = rig.raft(1).handle_raft(NodeId(2), wire::seal(&page)).await;

    let reply: Reply = wire::open(&answer).unwrap();
    assert!(
        matches!(&reply, Reply::Refused(why) if why.contains("too long")),
        "{reply:?}"
    );
}
