//! What is refused: one clear line, the right exit code, and nothing lost.

use std::{fs, path::Path, process::Command};

use cluster_tests::cluster::{Cluster, Profile, run};
use serde_json::Value;

use crate::WEFT;

#[tokio::test]
async fn without_a_daemon_each_command_says_so() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    let at = cluster.add()?;

    for command in [
        &["status"][..],
        &["members"],
        &["network", "ls"],
        &["leave"],
    ] {
        let refused = cluster[at].run(command).await?;
        refused.refused(3, &["no weft daemon answers", "weft up"])?;
    }
    let in_json = cluster[at].run(&["--json", "status"]).await?;
    let said: Value = serde_json::from_str(&in_json.stderr)?;
    assert_eq!(in_json.code, Some(3));
    assert_eq!(said["error"]["code"], "no_daemon");
    let alone = run(cluster[at].up().into(), b"").await?;
    alone.refused(2, &["is not part of a cluster yet", "--init", "--join"])?;
    cluster.end().await
}

#[tokio::test]
async fn what_is_there_and_what_is_not_is_told_apart() -> anyhow::Result<()> {
    let cluster = Cluster::start(WEFT, 2).await?;
    cluster.create_network(0, "app").await?;
    cluster.create_endpoint(0, "app", "web").await?;
    let cases: [(&[&str], i32, &str); 12] = [
        (&["network", "create", "app"], 5, "app exists"),
        (&["network", "inspect", "none"], 4, "no network none"),
        (&["network", "rm", "none"], 4, "no network none"),
        (&["network", "rm", "app"], 5, "in use"),
        (&["network", "create", "x", "--driver", "none"], 4, "none"),
        (
            &["network", "create", "x", "--subnet", "10.0.0.0/25"],
            5,
            "10.0.0.0/2",
        ),
        (&["endpoint", "create", "none", "web"], 4, "no network none"),
        (&["endpoint", "create", "app", "web"], 5, "web"),
        (&["endpoint", "join", "app", "none"], 4, "no endpoint none"),
        (
            &["table", "get", "app", "services", "none"],
            4,
            "no such entry",
        ),
        (
            &["table", "rm", "app", "services", "none"],
            4,
            "no such entry",
        ),
        (
            &["table", "put", "app", "overlay_peers", "k", "v"],
            2,
            "overlay_peers",
        ),
    ];

    for asked in [0, 1] {
        for (command, code, said) in cases {
            let elsewhere = asked == 1 && command[..2] == ["endpoint", "create"];
            if elsewhere && command[2] == "app" {
                // Names of endpoints are a node's own.
                continue;
            }
            cluster[asked].run(command).await?.refused(code, &[said])?;
        }
    }
    cluster[0]
        .run(&["table", "put", "app", "services", "web", "80"])
        .await?
        .done()?;
    let foreign = cluster[0].run(&["table", "put", "app", "services", "web", "81", "--create"]);
    foreign.await?.refused(5, &["exists already"])?;
    cluster.end().await
}

#[tokio::test]
async fn an_over_long_key_or_value_is_refused_and_nothing_is_lost() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;
    cluster.create_network(0, "app").await?;
    let (key, long_key) = ("k".repeat(256), "k".repeat(257));
    let (value, long_value) = (vec![b'v'; 64 * 1024], vec![b'v'; 64 * 1024 + 1]);
    let node = &cluster[0];

    node.run_with(&["table", "put", "app", "t", &key, "-"], &value)
        .await?
        .done()?;
    let refused = node
        .run(&["table", "put", "app", "t", &long_key, "v"])
        .await?;
    refused.refused(2, &["256"])?;
    let refused = node
        .run_with(&["table", "put", "app", "t", &key, "-"], &long_value)
        .await?;
    refused.refused(2, &["65536"])?;
    let refused = node.run(&["table", "put", "app", "t", "", "v"]).await?;
    assert_ne!(refused.code, Some(101), "{}", refused.stderr);
    let refused = node.run(&["table", "get", "app", "t", &long_key]).await?;
    refused.refused(2, &["256"])?;

    let kept = node.run(&["table", "get", "app", "t", &key]).await?;
    assert_eq!(kept.done()?.as_bytes(), value);
    node.run(&["table", "put", "app", "t", "empty", ""])
        .await?
        .done()?;
    assert_eq!(
        node.run(&["table", "get", "app", "t", "empty"])
            .await?
            .done()?,
        ""
    );
    cluster.end().await
}

#[tokio::test]
async fn a_newcomer_is_refused_with_the_reason() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 2).await?;
    let token = cluster[0].client().token().await?.token;
    let seed = cluster[1].address().to_string();
    let at = cluster.add()?;
    let up = |cluster: &Cluster, token: &str, name: &str| {
        let mut up = cluster[at].up_as(name);
        up.args(["--log", "error", "--join", &seed]);
        up.env("WEFT_TOKEN", token);
        up
    };
    let other = |from: usize, len: usize| {
        let (before, after) = token.split_at(from);
        format!("{before}{}{}", "0".repeat(len), &after[len..])
    };
    let (digest, secret) = ("weft-1-".len(), token.len() - 32);

    let cases = [
        (
            other(secret, 32),
            "n3",
            1,
            "the token is not this cluster's",
        ),
        (other(digest, 64), "n3", 1, "is not of the token's cluster"),
        ("weft-1-abc".to_owned(), "n3", 2, "token"),
        (token.clone(), "n2", 5, "already named n2"),
    ];
    for (token, name, code, said) in cases {
        let refused = run(up(&cluster, &token, name).into(), b"").await?;
        refused.refused(code, &[said])?;
        assert!(!refused.stderr.contains(&token), "{}", refused.stderr);
    }
    // And the operator of the seed can read why it let nobody in.
    let logged = cluster[1].logged();
    for line in [
        "a newcomer was not let in",
        "the token is not this cluster's",
        "already named n2",
        "it does not take this node's certificate",
    ] {
        assert!(logged.contains(line), "{line}: {logged}");
    }
    let rotated = cluster[1].client().token_rotate().await?.token;
    let refused = run(up(&cluster, &token, "n3").into(), b"").await?;
    refused.refused(1, &["the token is not this cluster's"])?;
    let welcome = up(&cluster, &rotated, "n3");
    cluster[at].start_as(welcome)?;
    cluster[at].until_ready().await?;
    cluster.until_members(3).await?;
    cluster.end().await
}

#[tokio::test]
async fn a_copy_of_a_living_node_is_refused() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 2).await?;
    cluster.create_network(0, "app").await?;
    let copy = cluster.add()?;
    cluster[1].stop().await?;
    copy_files(&cluster[1].data_dir(), &cluster[copy].data_dir())?;
    cluster[1].start()?;
    cluster[1].until_ready().await?;
    cluster.until_members(2).await?;

    let mut up = cluster[copy].up();
    up.args([
        "--log",
        "error",
        "--join",
        &cluster[0].address().to_string(),
    ]);
    let refused = run(up.into(), b"").await?;

    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains("copied"), "{}", refused.stderr);
    cluster.until_members(2).await?;
    cluster[1]
        .run(&["table", "put", "app", "t", "k", "v"])
        .await?
        .done()?;
    cluster.end().await
}

#[tokio::test]
async fn a_place_that_is_taken_is_named() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;
    let at = cluster.add()?;
    let taken = cluster[0].address();
    let found = |command: &mut Command| {
        command.args(["--log", "error", "--init"]);
    };

    let mut port = cluster[at].weft();
    port.args(["up", "--listen", &taken.to_string(), "--data-dir"]);
    port.arg(cluster[at].data_dir());
    found(&mut port);
    run(port.into(), b"")
        .await?
        .refused(5, &[&taken.to_string(), "in use"])?;
    let mut data = cluster[at].weft();
    data.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]);
    data.arg(cluster[0].data_dir());
    found(&mut data);
    run(data.into(), b"")
        .await?
        .refused(5, &["another weft daemon"])?;
    let mut socket = cluster[0].weft();
    socket.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]);
    socket.arg(cluster[at].data_dir());
    found(&mut socket);
    run(socket.into(), b"").await?.refused(5, &["sock"])?;

    // None of them has founded anything.
    let unfounded = run(cluster[at].up().into(), b"").await?;
    unfounded.refused(2, &["is not part of a cluster yet"])?;
    cluster[0].run(&["status", "--check"]).await?.done()?;
    cluster.end().await
}

#[tokio::test]
async fn a_damaged_or_foreign_data_file_is_told_and_left_as_it_is() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    let at = cluster.add()?;
    let file = cluster[at].data_dir().join("weft.redb");
    fs::create_dir(cluster[at].data_dir())?;

    let foreign: [&[u8]; 3] = [b"x", b"SQLite format 3\0", &[0xa5; 100_000]];
    for bytes in foreign {
        fs::write(&file, bytes)?;
        let mut up = cluster[at].up();
        up.args(["--log", "error", "--init"]);
        let refused = run(up.into(), b"").await?;
        refused.refused(1, &["weft.redb", "no weft data file"])?;
        assert_eq!(fs::read(&file)?, bytes);
    }
    fs::remove_file(&file)?;
    let mut up = cluster[at].up();
    up.arg("--init");
    cluster[at].start_as(up)?;
    cluster[at].until_ready().await?;
    cluster[at].stop().await?;
    let whole = fs::read(&file)?;
    let mut torn = whole.clone();
    torn[4096..].fill(0xff);
    let truncated = whole[..whole.len() / 3].to_vec();
    for bytes in [torn, truncated] {
        fs::write(&file, &bytes)?;
        let mut up = cluster[at].up();
        up.args(["--log", "error", "--init"]);
        let refused = run(up.into(), b"").await?;
        refused.refused(1, &["weft.redb", "damaged", "backup"])?;
    }
    fs::write(&file, whole)?;
    cluster[at].start()?;
    cluster[at].until_ready().await?;
    cluster.end().await
}

fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_kernel_that_may_not_be_used_is_named_with_what_is_missing() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    let at = cluster.add()?;
    let up = cluster[at].weft();
    // Root without the rights, or a user who has none.
    let mut without = Command::new("setpriv");
    without.args(["--bounding-set=-net_admin,-sys_admin", "--inh-caps=-all"]);
    without.arg(up.get_program()).args(up.get_args());
    without.args([
        "up",
        "--init",
        "--dataplane",
        "kernel",
        "--log",
        "error",
        "--listen",
    ]);
    without.arg(cluster[at].address().to_string());
    without.arg("--data-dir").arg(cluster[at].data_dir());
    for (name, value) in up.get_envs() {
        match value {
            Some(value) => without.env(name, value),
            None => without.env_remove(name),
        };
    }

    let refused = run(without.into(), b"").await?;

    refused.refused(
        1,
        &["the kernel cannot carry packets here", "CAP_SYS_ADMIN"],
    )?;
    cluster.end().await
}
