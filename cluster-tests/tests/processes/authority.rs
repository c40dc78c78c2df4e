//! The authority is replaced while the cluster runs: under load, with members that are away, with a leader that is lost.

use cluster_tests::cluster::{Cluster, DEADLINE, Node, Seen, run, until, until_within};
use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use weft::api::http::authority::Authority;

use crate::{WEFT, trust::voterless};

const ALL: [usize; 4] = [0, 1, 2, 3];

#[tokio::test]
async fn the_authority_is_replaced_twice_under_load_and_nothing_is_lost() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 4).await?;
    cluster.create_network(0, "app").await?;
    let first = cluster[0].client().authority().await?;
    let token = cluster[1].client().token().await?.token;

    let write = async {
        for number in 0..200 {
            let key = format!("k{number}");
            let put = ["table", "put", "app", "load", &key, "x"];
            cluster[number % 4].run(&put).await?.done()?;
        }
        anyhow::Ok(())
    };
    let rotate = async {
        let second = cluster[3].client().authority_rotate(false).await?;
        let third = cluster[0].client().authority_rotate(true).await?;
        anyhow::Ok((second, third))
    };
    let (written, rotated) = tokio::join!(write, rotate);
    written?;
    let (second, third) = rotated?;

    for authority in [&second, &third] {
        assert!(is_settled(authority), "{authority:?}");
    }
    assert!(first.signs != second.signs && second.signs != third.signs);
    cluster
        .until_on(&ALL, "all entries are there", async |node| {
            let entries = node.client().entries("app", "load").await?.len();
            Ok(Seen::when(entries == 200, || format!("{entries} entries")))
        })
        .await?;
    for at in ALL {
        assert_eq!(certified_by(&cluster[at]).await?, third.signs);
        let counters = cluster[at].client().status().await?.counters;
        let about_trust = |(name, _): &(&String, &u64)| {
            let refused = name.starts_with("streams_refused_total");
            refused && (name.contains("certificate") || name.contains("refused_by_caller"))
        };
        let refused: Vec<_> = counters.iter().filter(about_trust).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    // The token that pins the first one is of no use; the one of now is.
    let at = cluster.add()?;
    let seed = cluster[1].address().to_string();
    let up = |cluster: &Cluster, token: &str| {
        let mut up = cluster[at].up();
        up.args(["--log", "error", "--join", &seed]);
        up.env("WEFT_TOKEN", token);
        up
    };
    let refused = run(up(&cluster, &token).into(), b"").await?;
    refused.refused(1, &["its authority was replaced since the token was made"])?;
    let logged = cluster[1].logged();
    let told = "its token is of another cluster or of an authority that was replaced";
    assert!(logged.contains(told), "{logged}");
    let token = cluster[2].client().token().await?.token;
    let welcome = up(&cluster, &token);
    cluster[at].start_as(welcome)?;
    cluster[at].until_ready().await?;
    assert_eq!(certified_by(&cluster[at]).await?, third.signs);
    cluster.until_members(5).await?;
    cluster.end().await
}

#[tokio::test]
async fn a_member_that_was_away_is_waited_for_and_comes_back_by_itself() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 4).await?;
    let away = voterless(&cluster).await?;
    let name = cluster[away].name().to_owned();
    let asked = cluster[(away + 1) % 4].client().clone();
    cluster[away].kill().await?;
    let others = cluster.others(away);
    cluster
        .until_on(&others, "it is taken for down", async |node| {
            let members = node.client().status().await?.members;
            Ok(Seen::when(members.down == 1, || format!("{members:?}")))
        })
        .await?;

    let mut rotation = JoinSet::new();
    let rotating = asked.clone();
    rotation.spawn(async move { rotating.authority_rotate(false).await });
    until("only the one that is away is waited for", async || {
        let authority = asked.authority().await?;
        let waits = authority.waits_for.iter().map(|name| name.as_str());
        let is_so = authority.former.is_some() && waits.eq([name.as_str()]);
        Ok(Seen::when(is_so, || format!("{authority:?}")))
    })
    .await?;
    cluster[away].start()?;
    cluster[away].until_ready().await?;

    let settled = until_settled(&cluster, (away + 1) % 4).await?;
    cluster.until_members(4).await?;
    for at in ALL {
        assert_eq!(certified_by(&cluster[at]).await?, settled.signs);
    }
    let rotated = rotation.join_next().await.expect("it was spawned")??;
    assert_eq!(rotated.signs, settled.signs);
    cluster.end().await
}

#[tokio::test]
async fn who_slept_through_all_of_it_says_so_and_joins_again_as_itself_with_a_token()
-> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 4).await?;
    let sleeper = voterless(&cluster).await?;
    let other = (sleeper + 1) % 4;
    let id = cluster[sleeper].id().await?;
    let old = cluster[other].client().token().await?.token;
    cluster[sleeper].kill().await?;
    let authority = cluster[other].client().authority_rotate(true).await?;
    assert!(is_settled(&authority), "{authority:?}");

    cluster[sleeper].start()?;
    cluster[sleeper].until_ready().await?;
    let told = "has an authority that replaced the one this node knows";
    until("it says what to do", async || {
        let logged = cluster[sleeper].logged();
        Ok(Seen::when(logged.contains(told), || logged.clone()))
    })
    .await?;
    cluster[sleeper].stop().await?;

    let seed = cluster[other].address().to_string();
    let token = cluster[other].client().token().await?.token;
    let mut up = cluster[sleeper].up();
    up.args(["--join", &seed]).env("WEFT_TOKEN", token);
    cluster[sleeper].start_as(up)?;
    cluster[sleeper].until_ready().await?;
    cluster.until_members(4).await?;
    assert_eq!(cluster[sleeper].id().await?, id);
    assert_eq!(certified_by(&cluster[sleeper]).await?, authority.signs);

    // What starts it may name the token it joined with first.
    cluster[sleeper].stop().await?;
    let mut up = cluster[sleeper].up();
    up.args(["--join", &seed]).env("WEFT_TOKEN", old);
    cluster[sleeper].start_as(up)?;
    cluster[sleeper].until_ready().await?;
    cluster.until_members(4).await?;
    let logged = cluster[sleeper].logged();
    assert!(
        logged.contains("the token is of an authority that was replaced"),
        "{logged}"
    );
    cluster.end().await
}

#[tokio::test]
async fn a_change_that_a_lost_leader_cut_off_is_gone_on_with_by_the_next() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 4).await?;
    let leader = cluster.until_led().await?;
    let slow = voterless(&cluster).await?;
    let next = (0..4).find(|at| ![leader, slow].contains(at)).unwrap_or(0);
    let before = cluster[next].client().authority().await?;

    // It waits for the one that is stopped, so it is lost before the next one signs.
    cluster[slow].signal(Signal::SIGSTOP)?;
    let asked = cluster[leader].client().clone();
    let mut rotation = JoinSet::new();
    rotation.spawn(async move { asked.authority_rotate(false).await });
    let announced = until("the next one is announced", async || {
        let authority = cluster[next].client().authority().await?;
        Ok(match authority.next.is_some() {
            true => Seen::Good(authority),
            false => Seen::NotYet(format!("{authority:?}")),
        })
    });
    let announced = announced.await?;
    cluster[leader].kill().await?;
    assert!(
        rotation
            .join_next()
            .await
            .expect("it was spawned")?
            .is_err()
    );
    cluster[slow].signal(Signal::SIGCONT)?;
    cluster[leader].start()?;
    cluster[leader].until_ready().await?;

    let settled = until_settled(&cluster, next).await?;
    assert_eq!(Some(&settled.signs), announced.next.as_ref());
    assert_ne!(settled.signs, before.signs);
    cluster.until_members(4).await?;
    for at in ALL {
        assert_eq!(certified_by(&cluster[at]).await?, settled.signs);
    }
    cluster.end().await
}

fn is_settled(authority: &Authority) -> bool {
    authority.next.is_none() && authority.former.is_none()
}

/// Waits until another authority signs than at the start, and is the only one that is trusted.
async fn until_settled(cluster: &Cluster, asked: usize) -> anyhow::Result<Authority> {
    until_within(2 * DEADLINE, "one authority is trusted", async || {
        let authority = cluster[asked].client().authority().await?;
        Ok(match is_settled(&authority) {
            true => Seen::Good(authority),
            false => Seen::NotYet(format!("{authority:?}")),
        })
    })
    .await
}

async fn certified_by(node: &Node) -> anyhow::Result<String> {
    let certificate = node.client().status().await?.certificate;
    let certificate = certificate.ok_or_else(|| anyhow::anyhow!("no certificate is shown"))?;
    Ok(certificate.authority)
}
