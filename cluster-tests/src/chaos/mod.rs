//! CHAOS on one machine: a cluster of real daemons in network namespaces, clients on every node, and a nemesis that kills,
//! stops and parts the nodes. Every call is written down with its times, and what was answered is checked: [`linear`].
//!
//! What is checked, lock by lock: a network's name, a VNI, a subnet and an address of a network are each a lock that one
//! network or endpoint takes when it is made and frees when it is removed; a refusal because a name, VNI or subnet is taken
//! is a look at the lock. Besides, that the cluster is whole soon after everything is well again, that then all nodes list
//! the same networks, and that no node has logged what none ever may.

mod clients;
mod history;
pub mod linear;
mod nemesis;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context;
use rand::{SeedableRng, rngs::StdRng};
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};
use weft::{
    api::http::types::{CreateNetwork, CreateSubnet, Network},
    core::model::{Name, Prefix},
};

use self::{
    clients::{Place, Shared, Worker},
    history::{Broken, Call, Outcome, Record, Recorder, check_all},
    nemesis::{Nemesis, agreed},
};
use crate::cluster::{Cluster, Underlay};

/// How many clients each node has.
const CLIENTS: usize = 2;
/// How many operations of a broken history are shown, up to the one that fits nowhere.
const SHOWN: usize = 24;
/// The networks that last: their names, and what addresses they have.
const LASTING: [(&str, &str); 2] = [("wide", "172.31.0.0/24"), ("narrow", "172.31.1.0/27")];

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The daemon.
    pub program: PathBuf,
    /// How many nodes.
    pub nodes: u8,
    /// What chance begins with: it decides what is tried, not how the machine runs it.
    pub seed: u64,
    /// When to end.
    pub limit: Limit,
    /// How long anything lasts at most that is done to a node.
    pub longest: Duration,
    /// Where the history is written, an operation a line.
    pub history: Option<PathBuf>,
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// After so long.
    Time(Duration),
    /// After so many calls of clients and so many episodes of faults.
    Count {
        /// Calls.
        calls: u64,
        /// Episodes.
        episodes: u64,
    },
}

/// What a run came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many nodes there were.
    pub nodes: u8,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How many calls there were: of what kind, and what came of them.
    pub calls: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// How many episodes of faults there were.
    pub episodes: u64,
    /// How many faults there were, of each kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How long it took until one leader was followed by all, after each episode: the median and the most, in milliseconds.
    pub whole_ms: (u64, u64),
    /// How many names, VNIs, subnets and addresses were checked.
    pub locks: usize,
    /// What must not be.
    pub violations: Vec<String>,
}

/// Runs it; nothing if there can be no hosts here, which is said on standard error.
pub async fn run(plan: &Plan) -> anyhow::Result<Option<Report>> {
    let Some(underlay) = Underlay::make(plan.nodes)? else {
        return Ok(None);
    };
    let began = Instant::now();
    let program = plan.program.to_string_lossy();
    let mut cluster = Cluster::start_bare_on(&program, underlay, plan.nodes.into()).await?;
    let lasting = lasting(&cluster).await?;
    let places: Vec<Place> = (0..plan.nodes.into())
        .map(|node| Place {
            node,
            client: cluster[node].client().clone(),
            life: Arc::default(),
        })
        .collect();
    let (calls, episodes) = match plan.limit {
        Limit::Time(_) => (u64::MAX, u64::MAX),
        Limit::Count { calls, episodes } => (calls, episodes),
    };
    let shared = Arc::new(Shared::new(Recorder::begin(), lasting, calls));
    let mut workers = workers(&places, &shared, plan.seed);
    let mut lookers = JoinSet::new();
    for place in &places {
        lookers.spawn(clients::look(place.clone(), shared.clone()));
    }
    let mut report = Report {
        seed: plan.seed,
        nodes: plan.nodes,
        ..Report::default()
    };
    let mut nemesis = Nemesis {
        cluster: &mut cluster,
        places: &places,
        recorder: &shared.recorder,
        rng: StdRng::seed_from_u64(plan.seed),
        longest: plan.longest,
        done: Default::default(),
    };
    while report.episodes < episodes && !is_late(plan, began) {
        if let Err(error) = nemesis.episode().await {
            report.violations.push(format!("{error:#}"));
            break;
        }
        report.episodes += 1;
    }
    if !matches!(plan.limit, Limit::Count { .. }) {
        shared.over.store(true, Ordering::Relaxed);
    }
    while workers.join_next().await.is_some() {}
    shared.over.store(true, Ordering::Relaxed);
    while lookers.join_next().await.is_some() {}
    let done = nemesis.done;
    report.faults = done.faults;
    report.whole_ms = spread(done.led_again);
    if report.violations.is_empty() {
        end(cluster, &places, &shared, &mut report).await;
    }
    judge(&shared.recorder.records(), plan, &mut report)?;
    report.seconds = began.elapsed().as_secs_f64();
    Ok(Some(report))
}

fn is_late(plan: &Plan, began: Instant) -> bool {
    matches!(plan.limit, Limit::Time(limit) if began.elapsed() >= limit)
}

async fn lasting(cluster: &Cluster) -> anyhow::Result<Vec<Network>> {
    let mut lasting = Vec::new();
    for (name, prefix) in LASTING {
        let subnet = CreateSubnet {
            prefix: Some(Prefix(prefix.parse()?)),
            ..CreateSubnet::default()
        };
        let wish = CreateNetwork {
            subnets: vec![subnet],
            ..CreateNetwork::overlay(Name::new(name)?)
        };
        let made = cluster[0].client().network_create(&wish).await;
        lasting.push(made.with_context(|| format!("network {name}"))?);
    }
    Ok(lasting)
}

fn workers(places: &[Place], shared: &Arc<Shared>, seed: u64) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    for place in places {
        for number in 0..CLIENTS {
            let seed = seed.wrapping_mul(1_000) + (place.node * CLIENTS + number) as u64;
            let worker = Worker::new(place.clone(), shared.clone(), seed);
            workers.spawn(worker.run());
        }
    }
    workers
}

/// Looks at everything once more when all is quiet, and ends the nodes.
async fn end(cluster: Cluster, places: &[Place], shared: &Shared, report: &mut Report) {
    let recorder = &shared.recorder;
    let looked = async {
        for place in places {
            clients::look_once(place, recorder).await?;
        }
        let (called, networks) = agreed(&cluster, recorder).await?;
        let listed = networks.iter().filter_map(clients::made).collect();
        let call = (Call::ListNetworksAgreed, called);
        recorder.keep(0, call, Outcome::Networks(listed));
        cluster.end().await
    };
    if let Err(error) = looked.await {
        report.violations.push(format!("{error:#}"));
    }
}

fn judge(records: &[Record], plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    for record in records {
        let kind = match record.call {
            Call::CreateNetwork { .. } => "create network",
            Call::RemoveNetwork { .. } => "remove network",
            Call::CreateEndpoint { address: None, .. } => "create endpoint",
            Call::CreateEndpoint { .. } => "create endpoint with an address",
            Call::RemoveEndpoint { .. } => "remove endpoint",
            Call::ListEndpoints => "list endpoints",
            Call::ListNetworks | Call::ListNetworksAgreed | Call::LoseNode => continue,
        };
        let outcome = match &record.outcome {
            Outcome::Done
            | Outcome::Network(_)
            | Outcome::Endpoint(_)
            | Outcome::Networks(_)
            | Outcome::Endpoints(_) => "ok".to_owned(),
            Outcome::NameTaken => "name taken".to_owned(),
            Outcome::InUse => "in use".to_owned(),
            Outcome::Refused(code) => code.clone(),
            Outcome::Unknown(_) => "unknown".to_owned(),
        };
        let counts = report.calls.entry(kind).or_default();
        *counts.entry(outcome).or_default() += 1;
    }
    match check_all(records) {
        Ok(locks) => report.locks = locks,
        Err(broken) => report.violations.extend(broken.iter().map(show)),
    }
    if let Some(path) = &plan.history {
        let lines: Result<Vec<String>, _> = records.iter().map(serde_json::to_string).collect();
        std::fs::write(path, lines?.join("\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn show(broken: &Broken) -> String {
    let until = match &broken.violation {
        linear::Violation::NotLinearizable { stuck, .. } => {
            let mut all = broken.operations.iter();
            all.position(|operation| operation == stuck).unwrap_or(0) + 4
        }
        linear::Violation::TooHard => broken.operations.len(),
    };
    let until = until.min(broken.operations.len());
    let shown = &broken.operations[until.saturating_sub(SHOWN)..until];
    let shown: Vec<String> = shown
        .iter()
        .map(|operation| format!("{operation:?}"))
        .collect();
    let lock = &broken.lock;
    format!("{lock}: {:?}; {}", broken.violation, shown.join("; "))
}

fn spread(mut times: Vec<Duration>) -> (u64, u64) {
    times.sort_unstable();
    let ms = |at: usize| times.get(at).map_or(0, |time| time.as_millis() as u64);
    (ms(times.len() / 2), ms(times.len().saturating_sub(1)))
}
