//! Certificates that live for seconds: renewed while nodes run, run out while they do not.

use std::time::{Duration, SystemTime};

use cluster_tests::cluster::{Cluster, Node, Seen, until};
use weft::api::http::{Exit, types::Certificate};

use crate::{WEFT, trust::voterless};

/// Long enough for a busy machine to renew in the last third, short enough to wait for its end.
const SHORT_LIVED: &[(&str, &str)] = &[("WEFT_CERTIFICATE_LIFE", "12s")];

#[tokio::test]
async fn certificates_are_renewed_under_load_with_no_restart_and_no_refusal() -> anyhow::Result<()>
{
    let cluster = Cluster::start_set(WEFT, 4, SHORT_LIVED).await?;
    cluster.create_network(0, "app").await?;
    let mut first = Vec::new();
    for at in 0..4 {
        first.push(certificate(&cluster[at]).await?.expires);
    }

    let mut written = 0;
    until("every node was renewed twice", async || {
        for at in 0..4 {
            let key = format!("k{written}");
            let put = ["table", "put", "app", "load", &key, "x"];
            cluster[at].run(&put).await?.done()?;
            written += 1;
        }
        for at in 0..4 {
            let now = certificate(&cluster[at]).await?;
            anyhow::ensure!(now.left_s >= 0, "{} has run out", cluster[at].name());
            if now.expires < first[at] + 14 {
                return Ok(Seen::NotYet(format!("{}: {now:?}", cluster[at].name())));
            }
        }
        Ok(Seen::Good(()))
    })
    .await?;

    let all = [0, 1, 2, 3];
    cluster
        .until_on(&all, "all entries are there", async |node| {
            let entries = node.client().entries("app", "load").await?.len();
            Ok(Seen::when(entries == written, || {
                format!("{entries} entries")
            }))
        })
        .await?;
    for at in all {
        let status = cluster[at].client().status().await?;
        assert_eq!(status.members.alive, 4);
        let about_certificates = |(name, _): &(&String, &u64)| {
            name.starts_with("streams_refused_total") && name.contains("certificate")
        };
        let refused: Vec<_> = status.counters.iter().filter(about_certificates).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
    cluster.end().await
}

#[tokio::test]
async fn who_slept_past_its_certificate_says_so_and_joins_again_as_itself_with_a_token()
-> anyhow::Result<()> {
    let mut cluster = Cluster::start_set(WEFT, 4, SHORT_LIVED).await?;
    let sleeper = voterless(&cluster).await?;
    let id = cluster[sleeper].id().await?;
    let other = (sleeper + 1) % 4;
    let expires = certificate(&cluster[sleeper]).await?.expires;
    cluster[sleeper].kill().await?;
    until_run_out(expires).await?;

    cluster[sleeper].start()?;
    let ended = cluster[sleeper].until_ended().await?;
    assert_eq!(ended.code(), Some(Exit::Conflict as i32));
    let logged = cluster[sleeper].logged();
    assert!(
        logged.contains("this node's certificate ran out"),
        "{logged}"
    );

    let token = cluster[other].client().token().await?.token;
    let mut up = cluster[sleeper].up();
    up.args(["--join", &cluster[other].address().to_string()])
        .env("WEFT_TOKEN", token);
    cluster[sleeper].start_as(up)?;
    cluster[sleeper].until_ready().await?;

    assert_eq!(cluster[sleeper].id().await?, id);
    assert!(certificate(&cluster[sleeper]).await?.left_s > 0);
    cluster.until_members(4).await?;
    cluster.end().await
}

#[tokio::test]
async fn a_cluster_that_was_off_for_longer_than_its_certificates_live_starts_again()
-> anyhow::Result<()> {
    let mut cluster = Cluster::start_set(WEFT, 3, SHORT_LIVED).await?;
    let expires = certificate(&cluster[2]).await?.expires;
    for at in 0..3 {
        cluster[at].stop().await?;
    }
    until_run_out(expires + 12).await?;

    for at in 0..3 {
        cluster[at].start()?;
    }
    for at in 0..3 {
        cluster[at].until_ready().await?;
    }

    cluster.until_members(3).await?;
    cluster.until_led().await?;
    cluster
        .until_on(&[0, 1, 2], "its certificate is valid", async |node| {
            let left_s = certificate(node).await?.left_s;
            Ok(Seen::when(left_s > 0, || format!("{left_s} s left")))
        })
        .await?;
    cluster.end().await
}

async fn certificate(node: &Node) -> anyhow::Result<Certificate> {
    let status = node.client().status().await?;
    status
        .certificate
        .ok_or_else(|| anyhow::anyhow!("{} shows no certificate", node.name()))
}

/// Waits until a moment on the wall clock, in seconds since 1970, has passed.
async fn until_run_out(expires: u64) -> anyhow::Result<()> {
    until("the certificate has run out", async || {
        #[expect(
            clippy::disallowed_methods,
            reason = "certificates end by the wall clock"
        )]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let over = now > Duration::from_secs(expires + 1);
        Ok(Seen::when(over, || format!("it is {now:?}")))
    })
    .await
}
