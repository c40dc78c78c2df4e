//! Where settings come from, and the story that the program tells by itself.

use std::fs;

use cluster_tests::cluster::{Cluster, Profile, run};
use serde_json::Value;

use crate::WEFT;

const STEPS: [&str; 8] = [
    "members_up",
    "leader_elected",
    "network_created",
    "entry_seen",
    "entry_gone_on_leave",
    "entries_gone_on_kill",
    "entries_back",
    "leader_failover",
];

#[tokio::test]
async fn flags_go_before_the_environment_and_that_before_the_file() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    let at = cluster.add()?;
    let place = cluster.place().to_owned();
    let listen = cluster[at].address();
    let (file, token) = (place.join("weft.toml"), place.join("token"));
    let text = format!(
        "name = \"of-the-file\"\nlisten = \"{listen}\"\ndata-dir = {:?}\ntoken-file = {token:?}\nlog = \"warn\"\n",
        cluster[at].data_dir()
    );
    fs::write(&file, text)?;

    let mut up = cluster[at].weft();
    up.args(["up", "--init"]).env("WEFT_CONFIG", &file);
    up.env("WEFT_NAME", "of-the-environment");
    cluster[at].start_as(up)?;
    let status = cluster[at].until_ready().await?;

    assert_eq!(status.name.as_str(), "of-the-environment");
    assert_eq!(status.address.ip(), listen.ip());
    let written = fs::read_to_string(&token)?;
    assert_eq!(written.trim(), cluster[at].client().token().await?.token);

    let joins = cluster.add()?;
    let mut up = cluster[joins].up_as("of-the-flag");
    up.args(["--join", &status.address.to_string()])
        .env("WEFT_TOKEN_FILE", &token)
        .env("WEFT_NAME", "of-the-environment");
    cluster[joins].start_as(up)?;
    let joined = cluster[joins].until_ready().await?;
    assert_eq!(joined.name.as_str(), "of-the-flag");
    cluster.until_members(2).await?;
    cluster.end().await
}

#[tokio::test]
async fn a_file_that_is_not_understood_is_named_with_its_line() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    let at = cluster.add()?;
    let file = cluster.place().join("weft.toml");
    let refusals = [
        ("name = \"n1\"\nlisten = 7\n", ":2:"),
        ("lisen = \"0.0.0.0:1\"\n", "lisen"),
        ("name = \"\"\n", ":1:"),
    ];

    for (text, said) in refusals {
        fs::write(&file, text)?;
        let mut up = cluster[at].weft();
        up.args(["up", "--init", "--config"]).arg(&file);
        run(up.into(), b"")
            .await?
            .refused(2, &["weft.toml", said])?;
    }
    fs::remove_file(&file)?;
    let mut up = cluster[at].weft();
    up.args(["up", "--init", "--config"]).arg(&file);
    run(up.into(), b"")
        .await?
        .refused(2, &["cannot read", "weft.toml"])?;
    cluster.end().await
}

#[tokio::test]
async fn the_demo_sees_each_of_its_steps() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    let at = cluster.add()?;

    let told = cluster[at].run(&["demo", "--json"]).await?;

    let lines: Vec<Value> = told
        .done()?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let steps: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["step"].as_str())
        .collect();
    assert_eq!(steps, STEPS);
    for line in &lines {
        assert_eq!(line["ok"], true, "{line}");
        assert!(line["ms"].is_number(), "{line}");
    }
    cluster.end().await
}

#[tokio::test]
async fn a_cluster_takes_subnets_from_the_default_pools_that_it_was_founded_with()
-> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    let at = cluster.add()?;
    let mut init = cluster[at].weft();
    init.args(["init", "--name", cluster[at].name(), "--data-dir"]);
    init.arg(cluster[at].data_dir());
    init.args(["--default-address-pool", "base=10.99.0.0/16,size=26"]);
    run(init.into(), b"").await?.done()?;
    cluster[at].start()?;
    cluster[at].until_ready().await?;

    let network = cluster.create_network(at, "app").await?;

    assert_eq!(network.subnets[0].prefix.to_string(), "10.99.0.0/26");
    cluster.end().await
}
