//! Pools and addresses from a plugin in Python, in place of the leader's.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use cluster_tests::cluster::{
    Cluster, DEADLINE, Node, Plugin, Profile, Seen, Underlay, python, until,
};
use serde_json::{Value, json};
use weft::{
    api::http::types::Setup,
    plugin::{Address, Client},
};

use crate::WEFT;

/// Pools and addresses of a network may come from a plugin: they overlap nothing, are given back, and asked for again after a restart.
#[tokio::test]
async fn an_ipam_plugin_hands_out_pools_and_addresses_and_gets_them_back() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;
    let node = &cluster[0];
    // The leader's first subnet is what the plugin offers first too.
    node.run(&["network", "create", "first"]).await?.done()?;
    let pools = Plugin::start(&python, node, "pools", &[]).await?;

    let create = [
        "network",
        "create",
        "app",
        "--ipam-driver",
        "pools",
        "--ipam-opt",
        "site=7",
    ];
    node.run(&create).await?.done()?;
    let network = node.client().network("app").await?.network;
    assert_eq!(network.subnets[0].prefix.to_string(), "10.0.1.0/24");
    assert_eq!(network.subnets[0].gateway.to_string(), "10.0.1.1");
    let web = cluster.create_endpoint(0, "app", "web").await?;
    assert_eq!(
        web.address.map(|address| address.to_string()).as_deref(),
        Some("10.0.1.2/24")
    );
    let state = pools.state()?;
    assert_eq!(
        state["pools"],
        serde_json::json!({"10.0.1.0/24": ["10.0.1.1", "10.0.1.2"]})
    );

    // It comes back and knows nothing: nobody gets what is in use.
    drop(pools);
    let pools = Plugin::start(&python, node, "pools", &[]).await?;
    let db = cluster.create_endpoint(0, "app", "db").await?;
    assert_eq!(
        db.address.map(|address| address.to_string()).as_deref(),
        Some("10.0.1.3/24")
    );

    node.client().endpoint_remove("app", "web").await?;
    let state = pools.state()?;
    let mut held: Vec<&str> = state["pools"]["10.0.1.0/24"]
        .as_array()
        .context("no pool")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    held.sort_unstable();
    assert_eq!(held, ["10.0.1.1", "10.0.1.3"]);
    node.client().endpoint_remove("app", "db").await?;
    node.client().network_remove("app").await?;
    assert_eq!(pools.state()?["pools"], serde_json::json!({}));
    cluster.end().await
}

/// What an IPAM plugin refuses is told in its words; the built-in one has a name too.
#[tokio::test]
async fn an_ipam_driver_is_shown_and_named_and_may_refuse() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;
    let node = &cluster[0];
    let _pools = Plugin::start(&python, node, "pools", &[]).await?;
    let shown: Value = node
        .run(&["--json", "driver", "inspect", "pools"])
        .await?
        .json()?;
    assert_eq!(shown[0]["kind"], "ipam");
    assert_eq!(shown[0]["needs"], serde_json::json!(["replay"]));
    node.run(&["network", "create", "plain", "--ipam-driver", "default"])
        .await?
        .done()?;

    let named = [
        "network",
        "create",
        "app",
        "--ipam-driver",
        "pools",
        "--subnet",
        "fd00:7::/64",
    ];
    node.run(&named)
        .await?
        .refused(1, &["driver pools", "only IPv6 pools of fd00:77::/48"])?;
    cluster.end().await
}

/// Part of a pool, addresses that something outside has, and a pool of each family are asked for as libnetwork asks; all go back.
#[tokio::test]
async fn a_range_reserved_addresses_and_a_second_family_are_asked_of_the_plugin()
-> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;
    let node = &cluster[0];
    let pools = Plugin::start(&python, node, "pools", &[]).await?;

    let create = [
        "network create app --ipam-driver pools --ipv6 --subnet 10.0.7.0/24",
        "--ip-range 10.0.7.16/28 --aux-address router=10.0.7.17 --aux-address 10.0.7.200",
    ];
    let create = create.join(" ");
    let create: Vec<&str> = create.split(' ').collect();
    node.run(&create).await?.done()?;

    let (four, six) = ("10.0.7.0/24", "fd00:77::/64");
    let own = json!({
        four: ["10.0.7.18", "10.0.7.17", "10.0.7.200"],
        six: ["fd00:77::1"],
    });
    let shown = pools.state()?["pools"].clone();
    assert_eq!(sorted(&shown), sorted(&own));
    // Nobody gets what something outside has, after a restart of the plugin either.
    let web = cluster.create_endpoint(0, "app", "web").await?;
    drop(pools);
    let pools = Plugin::start(&python, node, "pools", &[]).await?;
    let db = cluster.create_endpoint(0, "app", "db").await?;
    let addresses = [&web, &db].map(|of| (of.address, of.second_address));
    let addresses = addresses.map(|(one, other)| {
        [one, other].map(|prefix| prefix.map(|prefix| prefix.to_string()).unwrap_or_default())
    });
    assert_eq!(addresses[0], ["10.0.7.19/24", "fd00:77::2/64"]);
    assert_eq!(addresses[1], ["10.0.7.20/24", "fd00:77::3/64"]);

    for name in ["web", "db"] {
        node.client().endpoint_remove("app", name).await?;
    }
    assert_eq!(sorted(&pools.state()?["pools"]), sorted(&own));
    node.client().network_remove("app").await?;
    assert_eq!(pools.state()?["pools"], json!({}));
    cluster.end().await
}

/// The overlap rule of section 1.6: what a host routes is kept clear of, by this host or another, unless the pool was named.
#[tokio::test]
async fn a_pool_that_a_node_routes_is_taken_only_if_it_is_named() -> anyhow::Result<()> {
    let (Some(python), Some(underlay)) = (python()?, Underlay::make(2)?) else {
        return Ok(());
    };
    for (at, routed) in ["10.0.0.0/24", "10.0.1.0/24"].into_iter().enumerate() {
        underlay
            .host(at)
            .ip(&["route", "add", routed, "dev", "u0"])?;
    }
    let cluster = Cluster::start_on(WEFT, underlay, 2).await?;
    let node = &cluster[0];
    let pools = Plugin::start(&python, node, "pools", &[]).await?;

    let create = ["network", "create", "app", "--ipam-driver", "pools"];
    // What the other node routes is heard of soon; until then a pool is taken that it has.
    until("the pool keeps clear of what both route", async || {
        node.run(&create).await?.done()?;
        let taken = prefix(node, "app").await?;
        if taken != "10.0.2.0/24" {
            ensure!(taken == "10.0.1.0/24", "its own host routes {taken}");
            node.client().network_remove("app").await?;
            return Ok(Seen::NotYet(taken));
        }
        Ok(Seen::Good(()))
    })
    .await?;
    let named = [
        "network",
        "create",
        "named",
        "--ipam-driver",
        "pools",
        "--subnet",
        "10.0.1.0/24",
    ];
    node.run(&named).await?.done()?;

    assert_eq!(prefix(node, "named").await?, "10.0.1.0/24");
    let held = pools.state()?["pools"].clone();
    let held: Vec<&String> = held.as_object().context("pools")?.keys().collect();
    assert_eq!(
        held,
        ["10.0.1.0/24", "10.0.2.0/24"],
        "the rejected ones are given back"
    );
    cluster.end().await
}

/// What a daemon that dies has asked for goes back, wherever it dies: before it asked, with or without the answer on disk, while the
/// endpoint is removed.
#[tokio::test]
#[expect(clippy::print_stderr, reason = "the counts show that it really died")]
async fn an_address_that_a_daemon_asked_for_and_did_not_live_to_use_goes_back() -> anyhow::Result<()>
{
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;
    let pools = Plugin::start(&python, &cluster[0], "pools", &["by-mac".into()]).await?;
    let create = ["network", "create", "app", "--ipam-driver", "pools"];
    cluster[0].run(&create).await?.done()?;
    let (make, remove) = (["create", "app", "web"], ["rm", "app", "web"]);
    let (mut points, mut astray) = (0, 0);
    for (step, writes) in [(make, 3), (remove, 3)] {
        for write in 1..=writes {
            for side in ["before", "after"] {
                if step == remove && used(&cluster[0]).await?.is_empty() {
                    let ran = cluster[0].run(&["endpoint", "create", "app", "web"]);
                    ran.await?.done()?;
                } else if step == make && !used(&cluster[0]).await?.is_empty() {
                    cluster[0].client().endpoint_remove("app", "web").await?;
                }
                die_at(&mut cluster, &step, (side, write)).await?;
                let left = held(&pools)?;
                cluster[0].start()?;
                cluster[0].until_ready().await?;

                let has = used(&cluster[0]).await?;
                pools
                    .until("the plugin has handed out what endpoints have", |_| {
                        held(&pools).is_ok_and(|held| held == has)
                    })
                    .await?;
                points += 1;
                astray += usize::from(left != has);
            }
        }
    }
    eprintln!("{points} fault points passed: at {astray} the plugin had handed out something else");
    assert_eq!((points, astray > 2), (12, true));
    cluster.end().await
}

/// A plugin that cannot be asked which address it has given keeps it, and that is said.
#[tokio::test]
async fn an_address_of_which_nobody_can_know_is_told_of() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;
    let pools = Plugin::start(&python, &cluster[0], "pools", &["keeps".into()]).await?;
    let create = ["network", "create", "app", "--ipam-driver", "pools"];
    cluster[0].run(&create).await?.done()?;

    // Between the answer and the write of it.
    die_at(&mut cluster, &["create", "app", "web"], ("before", 2)).await?;
    cluster[0].start()?;
    cluster[0].until_ready().await?;

    let told = "cannot be asked which";
    until("it is said", async || {
        let logged = cluster[0].logged();
        Ok(Seen::when(logged.contains(told), || logged))
    })
    .await?;
    // No second one is held.
    pools
        .until("one is held", |_| {
            held(&pools).is_ok_and(|held| held.len() == 1)
        })
        .await?;
    cluster.end().await
}

/// What an engine asks Weft for is asked of the network's plugin, and goes back to it.
#[tokio::test]
async fn an_engine_gets_the_addresses_of_the_networks_plugin() -> anyhow::Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    cluster.found().await?;
    let pools = Plugin::start(&python, &cluster[0], "pools", &["keeps".into()]).await?;
    let create = ["network", "create", "app", "--ipam-driver", "pools"];
    cluster[0].run(&create).await?.done()?;
    cluster[0].stop().await?;
    let (door, engine) = (cluster.place().join("door"), cluster.place().join("none"));
    let mut up = cluster[0].up();
    up.env("WEFT_DOCKER", "on")
        .env("WEFT_DOCKER_PLUGIN", &door)
        .env("WEFT_DOCKER_ENGINE", &engine);
    cluster[0].start_as(up)?;
    cluster[0].until_ready().await?;
    let engine = Client::new(Address::Unix(door), DEADLINE);
    let options = json!({"Options": {"weft.network": "app"}});
    let pool: Value = engine.call("IpamDriver.RequestPool", &options).await?;
    let (request, release) = ("IpamDriver.RequestAddress", "IpamDriver.ReleaseAddress");

    let mut asked = json!({"PoolID": pool["PoolID"], "Options": {}});
    let given: Value = engine.call(request, &asked).await?;
    let given = given["Address"].as_str().context("no address")?;
    let bare = given.split('/').next().unwrap_or_default().to_owned();
    assert_eq!(held(&pools)?, BTreeSet::from([bare.clone()]));
    asked["Address"] = Value::String(bare);
    let _: Value = engine.call(release, &asked).await?;

    assert_eq!(held(&pools)?, BTreeSet::new());
    cluster.end().await
}

/// Has the node die at one side of a write while an endpoint is made or removed.
async fn die_at(
    cluster: &mut Cluster,
    step: &[&str],
    (side, write): (&str, u32),
) -> anyhow::Result<()> {
    cluster[0].stop().await?;
    let mut up = cluster[0].up();
    up.env("WEFT_ABORT_AT", format!("{side}:{write}"));
    cluster[0].start_as(up)?;
    cluster[0].until_ready().await?;
    cluster
        .until_on(&[0], "the network is set up", async |node| {
            let setup = node.client().network("app").await?.setup;
            Ok(Seen::when(setup == Setup::Ready, || format!("{setup:?}")))
        })
        .await?;

    let ran = cluster[0].run(&[&["endpoint"], step].concat()).await?;

    ensure!(
        ran.code != Some(0),
        "{step:?} was answered at {side}:{write}"
    );
    let died = cluster[0].until_ended().await?;
    ensure!(!died.success(), "{step:?} {side}:{write}: {died}");
    Ok(())
}

/// The addresses that the plugin has handed out, but for the gateway's.
fn held(pools: &Plugin) -> anyhow::Result<BTreeSet<String>> {
    let state = pools.state()?;
    let pools = state["pools"].as_object().context("no pools")?;
    let all = pools.values().filter_map(Value::as_array).flatten();
    let all = all.filter_map(Value::as_str).map(str::to_owned);
    Ok(all.filter(|address| !address.ends_with(".0.1")).collect())
}

/// The addresses that endpoints have.
async fn used(node: &Node) -> anyhow::Result<BTreeSet<String>> {
    let endpoints = node.client().endpoints(Some("app")).await?.into_iter();
    let addresses = endpoints.filter_map(|endpoint| endpoint.address);
    Ok(addresses
        .map(|address| address.0.addr().to_string())
        .collect())
}

async fn prefix(node: &Node, network: &str) -> anyhow::Result<String> {
    let network = node.client().network(network).await?.network;
    Ok(network.subnets[0].prefix.to_string())
}

/// The pools that are handed out, each with its addresses in order.
fn sorted(pools: &Value) -> Vec<(String, Vec<String>)> {
    let pools = pools.as_object().into_iter().flatten();
    let in_order = pools.map(|(pool, addresses)| {
        let addresses = addresses.as_array().into_iter().flatten();
        let mut addresses: Vec<String> = addresses.map(Value::to_string).collect();
        addresses.sort_unstable();
        (pool.clone(), addresses)
    });
    in_order.collect()
}
