//! A node that dies at any point of an endpoint's life, as by SIGKILL, leaves neither an orphaned entry nor a lost endpoint.
//!
//! The daemon under test has fault points: it aborts itself before or after the commit of its n-th write of an endpoint. What is
//! between two writes (calls of the driver, writes to the DB) is on the one or the other side of a commit.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cluster_tests::cluster::{Cluster, Node, Seen, python};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use weft::{
    api::{
        client::ClientError,
        http::types::{CreateEndpoint, EndpointState, Setup},
    },
    core::model::Name,
};

use crate::{WEFT, plugins::Wire};

/// The node that dies, and the one that looks on.
const DIES: usize = 1;
const LOOKS: usize = 0;
/// How long a network may take to be set up.
const SOON: Duration = Duration::from_secs(20);
/// The seed of the kills at any moment, and how many there are.
const SEED: u64 = 7;
const KILLS: usize = 8;

/// A step of an endpoint's life, and how many writes it makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Create,
    Join,
    Leave,
    RemoveJoined,
}

impl Step {
    const ALL: [(Self, u32); 4] = [
        (Self::Create, 1),
        (Self::Join, 1),
        (Self::Leave, 1),
        (Self::RemoveJoined, 2),
    ];

    /// As [`Self::ALL`], where a driver outlives the daemon: what it is asked to make is written before, too.
    const OF_PLUGINS: [(Self, u32); 4] = [
        (Self::Create, 2),
        (Self::Join, 1),
        (Self::Leave, 1),
        (Self::RemoveJoined, 2),
    ];

    /// How far the endpoint is before the step.
    fn before(self) -> Option<EndpointState> {
        match self {
            Self::Create => None,
            Self::Join => Some(EndpointState::Created),
            Self::Leave | Self::RemoveJoined => Some(EndpointState::Joined),
        }
    }

    async fn take(self, node: &Node) -> Result<(), ClientError> {
        let client = node.client();
        match self {
            Self::Create => create(node).await,
            Self::Join => client.endpoint_join("app", "web").await.map(drop),
            Self::Leave => client.endpoint_leave("app", "web").await.map(drop),
            Self::RemoveJoined => client.endpoint_remove("app", "web").await,
        }
    }
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the counts show that it really died")]
async fn a_daemon_that_dies_at_any_write_leaves_no_orphan_and_loses_no_endpoint()
-> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 2).await?;
    cluster.create_network(LOOKS, "app").await?;
    let (mut points, mut kept) = (0, 0);
    for (step, writes) in Step::ALL {
        for write in 1..=writes {
            for side in ["before", "after"] {
                bring_to(&cluster[DIES], step.before()).await?;
                settle(&cluster).await?;
                die_at(&mut cluster, DIES, (step, side, write)).await?;
                cluster[DIES].start()?;
                cluster[DIES].until_ready().await?;
                settle(&cluster).await?;
                let there = state(&cluster[DIES]).await?;
                let allowed = allowed(step, side, write);
                assert_eq!(there, allowed, "{step:?} {side}:{write}");
                points += 1;
                kept += usize::from(there.is_some());
            }
        }
    }
    eprintln!(
        "{points} fault points passed: the endpoint was there after {kept}, gone after the others"
    );
    assert_eq!(points, 10);
    cluster.end().await
}

/// A plugin outlives the daemon: what it was asked for and what was not written down is taken back at the next start.
#[tokio::test]
#[expect(clippy::print_stderr, reason = "the counts show that it really died")]
async fn a_daemon_that_dies_at_any_write_leaves_its_plugin_what_it_has_itself() -> anyhow::Result<()>
{
    let Some(python) = python()? else {
        return Ok(());
    };
    let mut cluster = Cluster::start(WEFT, 1).await?;
    let wire = Wire::start(&python, &cluster[0], false).await?;
    let create = ["network", "create", "app", "-d", "wire"];
    cluster[0].run(&create).await?.done()?;
    let (mut points, mut made) = (0, 0);
    for (step, writes) in Step::OF_PLUGINS {
        for write in 1..=writes {
            for side in ["before", "after"] {
                bring_to(&cluster[0], step.before()).await?;
                die_at(&mut cluster, 0, (step, side, write)).await?;
                let left = wire.state()?;
                cluster[0].start()?;
                cluster[0].until_ready().await?;
                cluster[0]
                    .client()
                    .network_until_synced("app", SOON)
                    .await?;

                let there = own(&cluster[0]).await?;

                wire.until("the plugin has what its node has", |state| {
                    endpoints(state) == there
                })
                .await?;
                points += 1;
                made += usize::from(endpoints(&left) != there);
            }
        }
    }
    eprintln!(
        "{points} fault points passed: at {made} the plugin had something else than the disk"
    );
    assert_eq!((points, made > 0), (12, true));
    cluster.end().await
}

#[tokio::test]
#[expect(
    clippy::print_stderr,
    reason = "the counts show that it was really killed under way"
)]
async fn a_daemon_that_is_killed_at_any_moment_leaves_no_orphan() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 2).await?;
    cluster.create_network(LOOKS, "app").await?;
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut steps = 0;
    for _ in 0..KILLS {
        let life = Duration::from_micros(rng.random_range(0..60_000));
        let node = &cluster[DIES];
        let done = Cell::new(0);
        let work = async {
            loop {
                for step in [Step::Create, Step::Join, Step::Leave, Step::RemoveJoined] {
                    // What was left of the time before may be in the way.
                    done.set(done.get() + usize::from(step.take(node).await.is_ok()));
                }
            }
        };
        // Not to wait for something: the kill comes at any moment, in the middle of a step.
        let _: Result<(), _> = tokio::time::timeout(life, work).await;
        steps += done.get();
        cluster[DIES].kill().await?;
        cluster[DIES].start()?;
        cluster[DIES].until_ready().await?;
        settle(&cluster).await?;
    }
    eprintln!("{KILLS} kills (seed {SEED}), after {steps} steps that were answered");
    assert!(steps > 0, "nothing was done before a kill");
    cluster.end().await
}

/// Has a node die at one side of a write of a step.
async fn die_at(
    cluster: &mut Cluster,
    at: usize,
    (step, side, write): (Step, &str, u32),
) -> anyhow::Result<()> {
    cluster[at].stop().await?;
    let mut up = cluster[at].up();
    up.env("WEFT_ABORT_AT", format!("{side}:{write}"));
    cluster[at].start_as(up)?;
    cluster[at].until_ready().await?;
    cluster
        .until_on(&[at], "the network is set up", async |node| {
            let setup = node.client().network("app").await?.setup;
            Ok(Seen::when(setup == Setup::Ready, || format!("{setup:?}")))
        })
        .await?;

    let answer = step.take(&cluster[at]).await;

    assert!(answer.is_err(), "{step:?} was answered at {side}:{write}");
    let died = cluster[at].until_ended().await?;
    assert!(!died.success(), "{step:?} {side}:{write}: {died}");
    Ok(())
}

/// The node's endpoints by their ids as plugins know them, and whether each has joined.
async fn own(node: &Node) -> anyhow::Result<BTreeMap<String, bool>> {
    let endpoints = node.client().endpoints(Some("app")).await?.into_iter();
    let joined = endpoints.map(|endpoint| {
        let has_joined = endpoint.state == EndpointState::Joined;
        (endpoint.id.to_string().repeat(2), has_joined)
    });
    Ok(joined.collect())
}

/// The same, as the plugin says.
fn endpoints(state: &serde_json::Value) -> BTreeMap<String, bool> {
    let networks = state["networks"].as_object().into_iter().flatten();
    let endpoints = networks.filter_map(|(_, network)| network["endpoints"].as_object());
    let joined = endpoints
        .flatten()
        .map(|(id, endpoint)| (id.clone(), endpoint["joined"] == true));
    joined.collect()
}

/// What the disk must say after the step died there.
fn allowed(step: Step, side: &str, write: u32) -> Option<EndpointState> {
    let was_written = side == "after";
    match step {
        Step::Create if was_written => Some(EndpointState::Created),
        Step::Create => None,
        Step::Join if was_written => Some(EndpointState::Joined),
        Step::Join => Some(EndpointState::Created),
        Step::Leave if was_written => Some(EndpointState::Created),
        Step::Leave => Some(EndpointState::Joined),
        Step::RemoveJoined => match (write, was_written) {
            (1, false) => Some(EndpointState::Joined),
            (2, true) => None,
            _ => Some(EndpointState::Created),
        },
    }
}

async fn create(node: &Node) -> Result<(), ClientError> {
    let wish = CreateEndpoint {
        name: Name::new("web").expect("letters are a name"),
        address: None,
        second_address: None,
    };
    node.client().endpoint_create("app", &wish).await.map(drop)
}

/// Returns how far the endpoint is, as the node that has it says.
async fn state(node: &Node) -> anyhow::Result<Option<EndpointState>> {
    let id = node.id().await?;
    let endpoints = node.client().endpoints(Some("app")).await?;
    let own = endpoints.iter().find(|endpoint| endpoint.node == id);
    Ok(own.map(|endpoint| endpoint.state))
}

/// Brings the endpoint to where a step begins.
async fn bring_to(node: &Node, wanted: Option<EndpointState>) -> anyhow::Result<()> {
    if state(node).await?.is_some() {
        node.client().endpoint_remove("app", "web").await?;
    }
    if wanted.is_some() {
        create(node).await?;
    }
    if wanted == Some(EndpointState::Joined) {
        node.client().endpoint_join("app", "web").await?;
    }
    Ok(())
}

async fn until_set_up(cluster: &Cluster) -> anyhow::Result<()> {
    cluster
        .until_on(&[DIES], "the network is set up", async |node| {
            let detail = node.client().network("app").await?;
            let is_ready = detail.setup == Setup::Ready;
            Ok(Seen::when(is_ready, || format!("{:?}", detail.setup)))
        })
        .await
}

/// Waits until what the other node sees of the one that died is exactly what that one has: no more, no less.
async fn settle(cluster: &Cluster) -> anyhow::Result<()> {
    until_set_up(cluster).await?;
    cluster.until_members(2).await?;
    let id = cluster[DIES].id().await?;
    let own = cluster[DIES].client().endpoints(Some("app")).await?;
    let joined = own
        .iter()
        .filter(|endpoint| endpoint.node == id && endpoint.state == EndpointState::Joined);
    let wanted: BTreeSet<Vec<u8>> = joined
        .map(|endpoint| endpoint.id.0.to_be_bytes().to_vec())
        .collect();
    let what = "each joined endpoint has its entries, and nothing else has";
    cluster
        .until_on(&[LOOKS, DIES], what, async |node| {
            for table in ["endpoints", "overlay_peers"] {
                let entries = node.client().entries("app", table).await?;
                let theirs = entries.iter().filter(|entry| entry.owner == id);
                let seen: BTreeSet<Vec<u8>> = theirs.map(|entry| entry.key.0.to_vec()).collect();
                if seen != wanted {
                    return Ok(Seen::NotYet(format!("{table}: {seen:?}, not {wanted:?}")));
                }
            }
            Ok(Seen::Good(()))
        })
        .await
}
