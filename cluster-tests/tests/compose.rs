//! The compose file's cluster: three containers, the story of an entry, and what Docker can do to a node.
//!
//! Skipped where Docker is missing, unless `WEFT_REQUIRE_DOCKER=1`.

use std::cell::Cell;

use anyhow::Context;
use cluster_tests::cluster::{Compose, Docker, Seen, Service, until};
use weft::api::http::{
    trust::{Keys, Rotated},
    types::{ChangeKind, Endpoint, Entry, Member, MemberState, Network, Status},
};

/// The daemon under test.
const WEFT: &str = env!("CARGO_BIN_EXE_weft-under-test");
const N1: Service = Service(0);
const N2: Service = Service(1);
const N3: Service = Service(2);
const PEERS: [&str; 4] = ["table", "ls", "app", "overlay_peers"];

#[tokio::test]
async fn containers_tell_the_story_and_survive_what_docker_does_to_them() -> anyhow::Result<()> {
    let Some(docker) = Docker::find().await? else {
        return Ok(());
    };
    let mut cluster = Compose::up(docker, WEFT).await?;
    until_alive(&cluster, &[N1, N2, N3], 3).await?;

    containers_beside_nodes_find_each_other_by_name(&mut cluster).await?;
    an_endpoint_joins_and_leaves(&cluster).await?;
    keys_rotate_under_load(&cluster).await?;
    a_killed_container_takes_its_entries_and_brings_them_back(&cluster).await?;
    a_paused_container_is_hidden_until_it_goes_on(&cluster).await?;
    a_parted_network_heals(&cluster).await?;
    // They find each other by name, whatever addresses they have now.
    cluster.recreate().await?;
    until_alive(&cluster, &[N1, N2, N3], 3).await?;
    until_peers(&cluster, &[N1, N2, N3], 3).await?;
    cluster.down();
    Ok(())
}

/// A node's container is its host, with whatever shares its network: packets flow, and a name goes with its endpoint.
async fn containers_beside_nodes_find_each_other_by_name(
    cluster: &mut Compose,
) -> anyhow::Result<()> {
    let told: Network = cluster.ask(N2, &["network", "create", "told"]).await?;
    until_listed(cluster, &told).await?;
    let web: Endpoint = cluster.ask(N1, &enter("web")).await?;
    let _asks: Endpoint = cluster.ask(N3, &enter("asks")).await?;
    let address = web.address.context("no address")?.0.addr().to_string();
    cluster.make_busybox().await?;
    let serve = ["httpd", "-f", "-h", "/www"];
    cluster.start_beside(N1, &serve).await?;
    let look = ["nslookup", "web.told", "127.0.0.1"];
    let fetch = ["wget", "-q", "-O", "-", &format!("http://{address}/")];

    until(
        "the name and what has it are found from another node",
        async || {
            let found = cluster.run_beside(N3, &look).await?;
            let fetched = cluster.run_beside(N3, &fetch).await?;
            let is_so = found.stdout.contains(&address) && fetched.stdout == "hello from web\n";
            Ok(Seen::when(is_so, || format!("{found:?} {fetched:?}")))
        },
    )
    .await?;
    let leave = ["endpoint", "rm", "told", "web"];
    cluster.weft(N1, &leave).await?.done()?;
    until("the name is gone", async || {
        let found = cluster.run_beside(N3, &look).await?;
        Ok(Seen::when(found.code != Some(0), || format!("{found:?}")))
    })
    .await?;

    cluster.stop_beside().await?;
    let rest = ["endpoint", "rm", "told", "asks"];
    cluster.weft(N3, &rest).await?.done()?;
    cluster.weft(N2, &["network", "rm", "told"]).await?.done()?;
    Ok(())
}

fn enter(name: &str) -> [&str; 7] {
    let own = "/proc/1/ns/net";
    ["endpoint", "create", "told", name, "--join", "--netns", own]
}

async fn an_endpoint_joins_and_leaves(cluster: &Compose) -> anyhow::Result<()> {
    let network: Network = cluster.ask(N2, &["network", "create", "app"]).await?;
    until_listed(cluster, &network).await?;
    let mut watch = cluster.watch(N2, "app").await?;

    let web = join(cluster, N1, "web").await?;

    // Its own table and the driver's, in either order.
    let tables = [watch.change().await?, watch.change().await?];
    assert!(
        tables
            .iter()
            .all(|change| change.kind == ChangeKind::Created && !change.ours)
    );
    until_peers(cluster, &[N1, N2, N3], 1).await?;
    let seen: Vec<Endpoint> = cluster.ask(N3, &["endpoint", "ls", "app"]).await?;
    assert_eq!(seen[0].address, web.address);

    cluster
        .weft(N1, &["endpoint", "leave", "app", "web"])
        .await?
        .done()?;

    let gone = [watch.change().await?, watch.change().await?];
    assert!(gone.iter().all(|change| change.kind == ChangeKind::Removed));
    until_peers(cluster, &[N2, N3], 0).await?;
    cluster
        .weft(N1, &["endpoint", "join", "app", "web"])
        .await?
        .done()?;
    until_peers(cluster, &[N2, N3], 1).await
}

/// How many entries are written at least while keys rotate.
const WRITES_MIN: usize = 30;

/// Every node has the keys rotated once while all write: each rotation seals with another key, no datagram is refused, nobody is
/// suspected, and every entry arrives at everybody.
async fn keys_rotate_under_load(cluster: &Compose) -> anyhow::Result<()> {
    let nodes = [N1, N2, N3];
    let before = rejected(cluster, nodes).await?;
    let first: Keys = cluster.ask(N1, &["keys", "ls"]).await?;

    let is_rotated = Cell::new(false);
    let write = async {
        let mut written = 0;
        while written < WRITES_MIN || !is_rotated.get() {
            let key = format!("k{written}");
            let put = ["table", "put", "app", "load", &key, "x"];
            cluster.weft(nodes[written % 3], &put).await?.done()?;
            written += 1;
        }
        anyhow::Ok(written)
    };
    let rotate = async {
        let mut seals = vec![first.primary];
        for asked in nodes {
            let rotated: Result<Rotated, _> = cluster.ask(asked, &["keys", "rotate"]).await;
            // Who writes does not go on for ever if it fails.
            is_rotated.set(rotated.is_err() || asked == N3);
            let rotated = rotated?;
            anyhow::ensure!(rotated.behind.is_empty(), "{rotated:?}");
            anyhow::ensure!(!seals.contains(&rotated.primary), "{seals:?} {rotated:?}");
            seals.push(rotated.primary);
        }
        anyhow::Ok(seals)
    };
    let (written, seals) = tokio::join!(write, rotate);
    let (written, seals) = (written?, seals?);

    cluster
        .until_on(
            &nodes,
            &["table", "ls", "app", "load"],
            |entries: &Vec<Entry>| {
                let found = entries.len();
                Seen::when(found == written, || format!("{found} of {written} entries"))
            },
        )
        .await?;
    assert_eq!(rejected(cluster, nodes).await?, before);
    for node in nodes {
        let keys: Keys = cluster.ask(node, &["keys", "ls"]).await?;
        assert_eq!(Some(&keys.primary), seals.last(), "{keys:?}");
        let members: Vec<Member> = cluster.ask(node, &["members"]).await?;
        let is_alive = |member: &Member| member.state == MemberState::Alive;
        assert!(members.iter().all(is_alive), "{members:?}");
    }
    Ok(())
}

/// Returns how many datagrams these nodes have refused.
async fn rejected(cluster: &Compose, nodes: [Service; 3]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for node in nodes {
        let status: Status = cluster.ask(node, &["status"]).await?;
        let counters = status.counters.iter();
        let rejected = counters.filter(|(name, _)| name.starts_with("datagrams_rejected"));
        sum += rejected.map(|(_, count)| count).sum::<u64>();
    }
    Ok(sum)
}

async fn a_killed_container_takes_its_entries_and_brings_them_back(
    cluster: &Compose,
) -> anyhow::Result<()> {
    let db = join(cluster, N3, "db").await?;
    until_peers(cluster, &[N1, N2], 2).await?;

    cluster.act("kill", N3).await?;
    until_peers(cluster, &[N1, N2], 1).await?;
    until_alive(cluster, &[N1, N2], 2).await?;
    cluster.act("start", N3).await?;

    until_peers(cluster, &[N1, N2], 2).await?;
    cluster.until_healthy().await?;
    let endpoints: Vec<Endpoint> = cluster.ask(N1, &["endpoint", "ls", "app"]).await?;
    let again = endpoints.iter().find(|endpoint| endpoint.id == db.id);
    assert_eq!(again.and_then(|endpoint| endpoint.address), db.address);
    Ok(())
}

async fn a_paused_container_is_hidden_until_it_goes_on(cluster: &Compose) -> anyhow::Result<()> {
    join(cluster, N2, "cache").await?;
    until_peers(cluster, &[N1, N3], 3).await?;

    cluster.act("pause", N2).await?;
    until_peers(cluster, &[N1, N3], 2).await?;
    cluster.act("unpause", N2).await?;

    until_peers(cluster, &[N1, N2, N3], 3).await?;
    until_alive(cluster, &[N1, N2, N3], 3).await
}

async fn a_parted_network_heals(cluster: &Compose) -> anyhow::Result<()> {
    cluster.disconnect(N3).await?;
    until_peers(cluster, &[N1, N2], 2).await?;
    until_peers(cluster, &[N3], 1).await?;
    put(cluster, N1, "written", "by the majority").await?;
    put(cluster, N3, "alone", "by the one that is parted").await?;
    let refused = cluster.weft(N3, &["network", "create", "split"]).await?;
    refused.refused(6, &["no leader"])?;
    let asked = cluster
        .ask::<Network>(N1, &["network", "create", "during"])
        .await?;

    cluster.connect(N3).await?;

    until_alive(cluster, &[N1, N2, N3], 3).await?;
    until_peers(cluster, &[N1, N2, N3], 3).await?;
    until_listed(cluster, &asked).await?;
    cluster
        .until_on(
            &[N1, N2, N3],
            &["table", "ls", "app", "notes"],
            |entries: &Vec<Entry>| Seen::when(entries.len() == 2, || format!("{entries:?}")),
        )
        .await
}

async fn join(cluster: &Compose, on: Service, name: &str) -> anyhow::Result<Endpoint> {
    cluster
        .ask(on, &["endpoint", "create", "app", name, "--join"])
        .await
}

async fn put(cluster: &Compose, on: Service, key: &str, value: &str) -> anyhow::Result<()> {
    let ran = cluster
        .weft(on, &["table", "put", "app", "notes", key, value])
        .await?;
    ran.done()?;
    Ok(())
}

/// Waits until these nodes see so many entries of the overlay driver.
async fn until_peers(cluster: &Compose, on: &[Service], count: usize) -> anyhow::Result<()> {
    cluster
        .until_on(on, &PEERS, |entries: &Vec<Entry>| {
            Seen::when(entries.len() == count, || {
                format!("{} entries", entries.len())
            })
        })
        .await
}

async fn until_listed(cluster: &Compose, network: &Network) -> anyhow::Result<()> {
    cluster
        .until_on(
            &[N1, N2, N3],
            &["network", "ls"],
            |listed: &Vec<Network>| Seen::when(listed.contains(network), || format!("{listed:?}")),
        )
        .await
}

/// Waits until these nodes see so many members alive, and know a leader.
async fn until_alive(cluster: &Compose, on: &[Service], count: usize) -> anyhow::Result<()> {
    cluster
        .until_on(on, &["members"], |members: &Vec<Member>| {
            let alive = |member: &&Member| member.state == MemberState::Alive;
            let found = members.iter().filter(alive).count();
            Seen::when(found == count, || format!("{members:?}"))
        })
        .await?;
    cluster
        .until_on(on, &["status"], |status: &Status| {
            Seen::when(status.leader.is_some(), || "no leader".to_owned())
        })
        .await
}
