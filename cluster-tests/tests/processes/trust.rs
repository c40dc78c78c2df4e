//! Keys that rotate under load, nodes that sleep through it, and nodes that are removed.

use std::{collections::BTreeSet, time::Duration};

use cluster_tests::cluster::{Cluster, DEADLINE, Node, Seen, until, until_within};
use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use weft::api::{
    client::ClientError,
    http::types::{Code, MemberState},
};

use crate::WEFT;

/// How long it is looked on that nothing happens. Shorter than it takes to hold a node for down.
const LOOK_ON: Duration = Duration::from_millis(500);

#[tokio::test]
async fn keys_rotate_under_load_and_every_datagram_is_opened() -> anyhow::Result<()> {
    let cluster = Cluster::start(WEFT, 4).await?;
    cluster.create_network(0, "app").await?;
    let before = cluster[0].client().keys().await?;

    let write = async {
        for number in 0..300 {
            let at = number % 4;
            let key = format!("k{number}");
            let args = ["table", "put", "app", "load", &key, "x"];
            cluster[at].run(&args).await?.done()?;
        }
        anyhow::Ok(())
    };
    let rotate = async {
        let mut seen = BTreeSet::new();
        for asked in [0, 3, 1, 2] {
            let rotated = cluster[asked].client().keys_rotate(asked == 2).await?;
            anyhow::ensure!(rotated.behind.is_empty(), "{rotated:?}");
            anyhow::ensure!(seen.insert(rotated.primary) || seen.len() > 2);
        }
        anyhow::Ok(())
    };
    let (written, rotated) = tokio::join!(write, rotate);
    written?;
    rotated?;

    let all = [0, 1, 2, 3];
    cluster
        .until_on(&all, "all entries are there", async |node| {
            let entries = node.client().entries("app", "load").await?.len();
            Ok(Seen::when(entries == 300, || format!("{entries} entries")))
        })
        .await?;
    for at in all {
        let ring = cluster[at].client().keys().await?;
        assert_eq!(ring.keys, [ring.primary], "former keys are retired");
        assert_eq!(ring.version, before.version + 9);
        assert_eq!(refused(&cluster[at]).await?, 0, "of node {at}");
    }
    cluster.end().await
}

#[tokio::test]
async fn nobody_seals_with_a_key_that_a_live_member_does_not_have_yet() -> anyhow::Result<()> {
    let cluster = Cluster::start(WEFT, 4).await?;
    let slow = voterless(&cluster).await?;
    let asked = cluster[(slow + 1) % 4].client();
    let before = asked.keys().await?;
    let refused_before = refused(&cluster[slow]).await?;
    cluster[slow].signal(Signal::SIGSTOP)?;

    let look = async {
        let added = until("the new key is on the ring", async || {
            let ring = asked.keys().await?;
            Ok(Seen::when(ring.version > before.version, || {
                format!("{ring:?}")
            }))
        });
        added.await?;
        // Time enough for a leader that does not wait.
        tokio::time::sleep(LOOK_ON).await;
        let later = asked.keys().await?;
        cluster[slow].signal(Signal::SIGCONT)?;
        anyhow::Ok(later)
    };
    let (later, rotated) = tokio::join!(look, asked.keys_rotate(false));

    assert_eq!(later?.primary, before.primary);
    let rotated = rotated?;
    assert_eq!(rotated.behind, []);
    assert_eq!(
        cluster[slow].client().keys().await?.primary,
        rotated.primary
    );
    assert_eq!(refused(&cluster[slow]).await?, refused_before);
    cluster.end().await
}

#[tokio::test]
async fn the_leader_rotates_as_often_as_it_is_told_to() -> anyhow::Result<()> {
    let cluster = Cluster::start_set(WEFT, 3, &[("WEFT_KEY_ROTATION", "5s")]).await?;

    let all = [0, 1, 2];
    cluster
        .until_on(&all, "the ring has turned three times", async |node| {
            let ring = node.client().keys().await?;
            Ok(Seen::when(ring.version >= 6, || format!("{ring:?}")))
        })
        .await?;

    for at in all {
        let lost = refused(&cluster[at]).await?;
        assert_eq!(lost, 0, "of node {at}");
    }
    cluster.end().await
}

#[tokio::test]
async fn a_rotation_that_a_lost_leader_cut_off_is_gone_on_with_by_the_next() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_set(WEFT, 4, &[("WEFT_KEY_ROTATION", "5m")]).await?;
    let leader = cluster.until_led().await?;
    let slow = voterless(&cluster).await?;
    let next = (0..4).find(|at| ![leader, slow].contains(at)).unwrap_or(0);
    let before = cluster[leader].client().keys().await?;

    // It waits for the one that is stopped, so it is lost between the two steps.
    cluster[slow].signal(Signal::SIGSTOP)?;
    let asked = cluster[leader].client().clone();
    let mut rotation = JoinSet::new();
    rotation.spawn(async move { asked.keys_rotate(false).await });
    let added = until("the new key is on the ring of another", async || {
        let ring = cluster[next].client().keys().await?;
        Ok(match ring.keys.len() > before.keys.len() {
            true => Seen::Good(ring),
            false => Seen::NotYet(format!("{ring:?}")),
        })
    });
    let added = added.await?;
    assert_eq!(added.primary, before.primary);
    cluster[leader].kill().await?;
    let rotated = rotation.join_next().await.expect("it was spawned")?;
    assert!(rotated.is_err());
    cluster[slow].signal(Signal::SIGCONT)?;

    let sealing = until_within(2 * DEADLINE, "the key that was added seals", async || {
        let ring = cluster[next].client().keys().await?;
        Ok(match ring.primary != before.primary {
            true => Seen::Good(ring),
            false => Seen::NotYet(format!("{ring:?}")),
        })
    });
    let sealing = sealing.await?;
    assert_eq!(
        sealing.version,
        before.version + 2,
        "one added, one promoted"
    );
    assert!(added.keys.contains(&sealing.primary), "{sealing:?}");
    cluster.end().await
}

#[tokio::test]
async fn a_node_that_slept_through_three_rotations_comes_back_by_itself() -> anyhow::Result<()> {
    let cluster = Cluster::start(WEFT, 4).await?;
    cluster.create_network(0, "app").await?;
    let sleeper = voterless(&cluster).await?;
    let awake: Vec<usize> = (0..4).filter(|at| *at != sleeper).collect();
    cluster[sleeper].signal(Signal::SIGSTOP)?;
    cluster
        .until_on(&awake, "the sleeper is taken for down", async |node| {
            let members = node.client().status().await?.members;
            Ok(Seen::when(members.down == 1, || format!("{members:?}")))
        })
        .await?;

    for _ in 0..3 {
        let rotated = cluster[awake[0]].client().keys_rotate(true).await?;
        assert_eq!(rotated.behind, []);
    }
    let put = ["table", "put", "app", "news", "k", "v"];
    cluster[awake[1]].run(&put).await?.done()?;
    cluster[sleeper].signal(Signal::SIGCONT)?;

    cluster.until_members(4).await?;
    cluster
        .until_on(&[sleeper], "it has what it missed", async |node| {
            let entries = node.client().entries("app", "news").await?.len();
            Ok(Seen::when(entries == 1, || format!("{entries} entries")))
        })
        .await?;
    let theirs = cluster[sleeper].client().keys().await?;
    let ours = cluster[awake[0]].client().keys().await?;
    assert_eq!((theirs.version, theirs.keys), (ours.version, ours.keys));
    cluster.end().await
}

#[tokio::test]
async fn a_removed_node_is_heard_no_longer_and_says_why_it_ends() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 4).await?;
    cluster.create_network(0, "app").await?;
    let db = cluster.create_endpoint(3, "app", "db").await?;
    cluster.until_peer(&[0, 1, 2], "app", db.id, true).await?;
    let token = cluster[0].client().token().await?;

    let removed = cluster[1].client().member_remove("n4", false).await?;

    assert!(removed.token_rotated && removed.keys.retired);
    assert_eq!(removed.keys.behind, []);
    cluster.until_peer(&[0, 1, 2], "app", db.id, false).await?;
    assert!(cluster[0].client().token().await? != token);
    assert!(!cluster[3].until_ended().await?.success());
    let logged = cluster[3].logged();
    assert!(
        logged.contains("this node was removed from the cluster"),
        "{logged}"
    );
    let names = cluster[2].client().members().await?;
    let alive = names
        .iter()
        .filter(|member| member.state == MemberState::Alive)
        .count();
    assert_eq!(alive, 3);

    // A removal that was cut off is said again, by id: the name is free.
    let again = cluster[2]
        .client()
        .member_remove(&removed.node.to_string(), false)
        .await?;
    assert!(again.keys.primary != removed.keys.primary && again.token_rotated);

    // What it kept is worth nothing: whom it reaches first says so, and it ends again.
    cluster[3].start()?;
    assert!(!cluster[3].until_ended().await?.success());
    let told = "this node was removed from the cluster";
    assert_eq!(cluster[3].logged().matches(told).count(), 2);
    let status = cluster[0].client().status().await?;
    assert_eq!(status.members.alive, 3);
    cluster.end().await
}

/// It would have to give its own vote away: another one leads first.
#[tokio::test]
async fn a_node_that_leads_is_removed_like_any_other_and_so_is_the_next() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 5).await?;
    for round in 0..2 {
        let leader = cluster.until_led().await?;
        let node = cluster[leader].id().await?;
        let asked = cluster.others(leader)[0];

        let removed = cluster[asked]
            .client()
            .member_remove(&node.to_string(), true)
            .await?;

        assert_eq!((removed.node, removed.keys.behind), (node, vec![]));
        assert!(!cluster[leader].until_ended().await?.success());
        let logged = cluster[leader].logged();
        assert!(logged.contains("handed over"), "{logged}");
        assert!(
            logged.contains("this node was removed from the cluster"),
            "{logged}"
        );
        assert!(!logged.contains("panicked"), "{logged}");
        let next = cluster.until_led().await?;
        assert_ne!(next, leader);
        cluster
            .until_on(&[next], "the former one votes no more", async |asked| {
                let voters = asked.client().status().await?.raft.voters;
                Ok(Seen::when(!voters.contains(&node), || {
                    format!("{voters:?}")
                }))
            })
            .await?;
        cluster
            .create_network(asked, &format!("net{round}"))
            .await?;
    }
    cluster.end().await
}

#[tokio::test]
async fn who_is_to_be_removed_is_named_exactly_and_can_be_missed() -> anyhow::Result<()> {
    let cluster = Cluster::start(WEFT, 2).await?;

    for (which, code, why) in [
        ("n9", Code::NoSuchMember, "no member"),
        ("n2", Code::Invalid, "weft leave"),
        // Of two nodes one votes.
        ("n1", Code::Invalid, "alone votes"),
    ] {
        let refused = cluster[1].client().member_remove(which, false).await;
        let Err(ClientError::Refused(failure)) = refused else {
            panic!("{which}: {refused:?}");
        };
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.message.contains(why), "{failure:?}");
    }
    cluster.create_network(1, "app").await?;
    cluster.end().await
}

/// Returns how many datagrams a node could not open, whatever the reason.
async fn refused(node: &Node) -> anyhow::Result<u64> {
    let counters = node.client().status().await?.counters;
    let of_datagrams = counters
        .iter()
        .filter(|(name, _)| name.starts_with("datagrams_rejected"));
    Ok(of_datagrams.map(|(_, count)| count).sum())
}

/// Returns a node that does not vote.
pub(super) async fn voterless(cluster: &Cluster) -> anyhow::Result<usize> {
    let status = cluster[0].client().status().await?;
    for at in 0..4 {
        if !status.raft.voters.contains(&cluster[at].id().await?) {
            return Ok(at);
        }
    }
    anyhow::bail!("all nodes vote")
}
