//! What nodes say of themselves, and how long.

use tempfile::tempdir;

use super::rig::{Node, Rig, SOON, Spy};
use crate::{
    controller::{ControllerError, MemberView},
    core::{
        model::{Label, LabelChange, LabelError, Labels, NetworkId, NodeId},
        netdb::Applied,
    },
};

#[tokio::test]
async fn labels_change_at_run_time_are_seen_elsewhere_and_outlive_a_restart() {
    let mut rig = Rig::new();
    let disks = (tempdir().unwrap(), tempdir().unwrap());
    rig.labels = labels(&["zone=a"]);
    let a = rig.start(1, &disks.0, Spy::new().0).await;
    rig.labels = Labels::default();
    let b = rig.start(2, &disks.1, Spy::new().0).await;
    b.meet(&a).await;
    b.until(NetworkId::CLUSTER, "capabilities", |nodes| nodes == 2)
        .await;
    assert_eq!(seen(&b).await.labels.get("zone"), Some("a"));
    assert_eq!(seen(&b).await.capabilities.len(), 1);

    let changed = a
        .controller
        .change_labels(changes(&["zone=b", "rack=7", "none-"]));

    assert_eq!(changed.await.unwrap(), labels(&["rack=7", "zone=b"]));
    let handle = &a.controller.parts.handle;
    let applied = handle.applied(NetworkId::CLUSTER, SOON).await.unwrap();
    assert_eq!(applied.1, Applied::Everywhere);
    assert_eq!(seen(&b).await.labels, labels(&["rack=7", "zone=b"]));

    a.stop().await;
    rig.labels = labels(&["zone=c"]);
    let again = rig.start(1, &disks.0, Spy::new().0).await;
    let kept = again.controller.labels().await.unwrap();
    assert_eq!(
        kept,
        labels(&["rack=7", "zone=c"]),
        "what it is started with counts"
    );
}

#[tokio::test]
async fn labels_are_changed_all_or_none() {
    let (rig, disk) = (Rig::new(), tempdir().unwrap());
    let a = rig.start(1, &disk, Spy::new().0).await;
    let numbered = |number| format!("k{number}=").parse().unwrap();
    let many: Vec<LabelChange> = (0..=Labels::MAX).map(numbered).collect();

    let refused = a.controller.change_labels(many.clone()).await;

    assert!(matches!(
        refused,
        Err(ControllerError::Labels(LabelError::TooMany(33)))
    ));
    assert_eq!(a.controller.labels().await.unwrap(), Labels::default());
    let fit = many[1..].to_vec();
    assert!(a.controller.change_labels(fit.clone()).await.is_ok());
    let removals = (1..=Labels::MAX).map(|number| format!("k{number}-").parse().unwrap());
    let none = a
        .controller
        .change_labels(removals.collect())
        .await
        .unwrap();
    assert_eq!(none, Labels::default());
    a.until(NetworkId::CLUSTER, "labels", |nodes| nodes == 0)
        .await;
}

/// What a node sees of node 1.
async fn seen(node: &Node) -> MemberView {
    let members = node.controller.members().await.unwrap();
    let mut members = members.into_iter();
    members.find(|view| view.member.node == NodeId(1)).unwrap()
}

fn labels(texts: &[&str]) -> Labels {
    Labels::new(texts.iter().map(|text| text.parse::<Label>().unwrap())).unwrap()
}

fn changes(texts: &[&str]) -> Vec<LabelChange> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
