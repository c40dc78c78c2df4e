//! What is done to the nodes: several things at a time, to random ones and to the leader, and then nothing until the cluster
//! is whole again.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use nix::sys::signal::Signal;
use rand::{RngExt, rngs::StdRng, seq::SliceRandom};
use tokio::time::{Instant, sleep, sleep_until};
use weft::core::model::NodeId;

use super::{
    clients::Place,
    history::{Call, Outcome, Recorder},
};
use crate::cluster::{Cluster, Seen, inside, until_within};

/// How long the cluster may take to be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// How long nothing is done between two episodes.
const REST: std::ops::Range<u64> = 1_000..6_000;
/// Once in how many episodes a node is lost with its disk.
const LOSE_ONE_IN: u32 = 8;
/// The table with which a node hears nobody.
const DEAF: &str = "\
table inet chaos {
    chain input {
        type filter hook input priority 0; policy drop;
        iifname lo accept
    }
}";

/// One thing that is done.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Act {
    /// Each host's island: hosts of two islands do not reach each other.
    Part(Vec<usize>),
    /// The host hears nobody, and all hear it.
    Deafen(usize),
    Hear(usize),
    /// SIGKILL.
    Kill(usize),
    /// SIGTERM, and until it has ended.
    Stop(usize),
    Start(usize),
    /// SIGSTOP.
    Pause(usize),
    Resume(usize),
}

/// What was done, and how quickly the cluster was whole again.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// How often each kind of thing was done.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// How long the cluster took each time until one leader was followed by all.
    pub(super) led_again: Vec<Duration>,
}

/// Does things to a cluster on hosts.
pub(super) struct Nemesis<'a> {
    /// The nodes.
    pub(super) cluster: &'a mut Cluster,
    /// The same nodes as their clients see them.
    pub(super) places: &'a [Place],
    /// Where it is written down that a node is lost.
    pub(super) recorder: &'a Recorder,
    /// Chance.
    pub(super) rng: StdRng,
    /// How long anything lasts at most.
    pub(super) longest: Duration,
    /// What was done.
    pub(super) done: Done,
}

impl Nemesis<'_> {
    /// Does several things at a time, then makes the cluster whole.
    pub(super) async fn episode(&mut self) -> anyhow::Result<()> {
        if self.rng.random_ratio(1, LOSE_ONE_IN) {
            self.lose_node().await?;
        } else {
            self.disturb().await?;
        }
        self.make_whole().await?;
        let rest = self.rng.random_range(REST);
        sleep(Duration::from_millis(rest)).await;
        Ok(())
    }

    async fn disturb(&mut self) -> anyhow::Result<()> {
        let leader = self.leader().await;
        let plan = self.plan(leader);
        tracing::info!(?plan, ?leader, "an episode");
        let began = Instant::now();
        for (after, act) in plan {
            sleep_until(began + after).await;
            self.act(act).await?;
        }
        Ok(())
    }

    /// Returns what is done and how long after the beginning. No node has two things done to it but being parted.
    fn plan(&mut self, leader: Option<usize>) -> Vec<(Duration, Act)> {
        let nodes = self.places.len();
        let mut victims: Vec<usize> = (0..nodes).collect();
        victims.shuffle(&mut self.rng);
        if let Some(leader) = leader.filter(|_| self.rng.random_bool(0.4)) {
            victims.retain(|victim| *victim != leader);
            victims.push(leader);
        }
        let mut plan = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let (begin, end) = self.span();
            let kind = self.rng.random_range(0..5);
            if kind == 0 {
                let islands = (0..nodes).map(|_| self.rng.random_range(0..3) / 2);
                plan.push((begin, Act::Part(islands.collect())));
                plan.push((end, Act::Part(vec![0; nodes])));
                continue;
            }
            let Some(victim) = victims.pop() else {
                continue;
            };
            let (first, last) = match kind {
                1 => (Act::Kill(victim), Act::Start(victim)),
                2 => (Act::Stop(victim), Act::Start(victim)),
                3 => (Act::Pause(victim), Act::Resume(victim)),
                _ => (Act::Deafen(victim), Act::Hear(victim)),
            };
            plan.extend([(begin, first), (end, last)]);
        }
        plan.sort_by_key(|(after, _)| *after);
        plan
    }

    /// Short spans are as likely as long ones: each doubling of 0.1 s is.
    fn span(&mut self) -> (Duration, Duration) {
        let begin = Duration::from_millis(self.rng.random_range(0..2_000));
        let longest = self.longest.as_secs_f64().max(0.2);
        let doublings = self.rng.random_range(0.0..(longest / 0.1).log2());
        let length = Duration::from_secs_f64(0.1 * f64::exp2(doublings));
        (begin, begin + length)
    }

    async fn act(&mut self, act: Act) -> anyhow::Result<()> {
        let kind = match act {
            Act::Part(islands) => {
                for (host, island) in islands.iter().enumerate() {
                    self.cluster.underlay()?.place(host, *island)?;
                }
                islands.iter().any(|island| *island > 0).then_some("part")
            }
            Act::Deafen(node) => {
                let host = self.cluster.underlay()?.host(node).path();
                inside(&host, &["nft", DEAF])?;
                Some("deafen")
            }
            Act::Hear(node) => {
                let host = self.cluster.underlay()?.host(node).path();
                inside(&host, &["nft", "delete table inet chaos"])?;
                None
            }
            Act::Kill(node) => {
                self.cluster[node].kill().await?;
                Some("kill")
            }
            Act::Stop(node) => {
                self.cluster[node].stop().await?;
                Some("stop")
            }
            Act::Start(node) => {
                self.cluster[node].start()?;
                None
            }
            Act::Pause(node) => {
                self.cluster[node].signal(Signal::SIGSTOP)?;
                Some("pause")
            }
            Act::Resume(node) => {
                self.cluster[node].signal(Signal::SIGCONT)?;
                None
            }
        };
        if let Some(kind) = kind {
            *self.done.faults.entry(kind).or_default() += 1;
        }
        Ok(())
    }

    /// Waits until all nodes are up, see each other, and follow one leader.
    pub(super) async fn make_whole(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        for node in 0..self.places.len() {
            self.cluster[node].until_ready().await?;
        }
        let ready = began.elapsed();
        let cluster = &*self.cluster;
        let met = until_within(WHOLE_WITHIN, "the cluster is whole", async || {
            cluster.until_members(self.places.len()).await?;
            let met = began.elapsed();
            cluster.until_led().await?;
            Ok(Seen::Good(met))
        });
        let met = met.await?;
        let led = began.elapsed();
        tracing::info!(?ready, ?met, ?led, "the cluster is whole");
        self.done.led_again.push(led);
        Ok(())
    }

    /// Takes a node's disk away for ever, removes the node, and lets another in at its place.
    async fn lose_node(&mut self) -> anyhow::Result<()> {
        let lost = self.rng.random_range(0..self.places.len());
        let asked = (lost + 1) % self.places.len();
        tracing::info!(lost, asked, "a node is lost with its disk");
        let id = self.cluster[lost].id().await?.to_string();
        let called = self.recorder.now();
        self.cluster[lost].kill().await?;
        // No call of a client is under way now, and none begins before the new node is up.
        let mut life = self.places[lost].life.write().await;
        *life += 1;
        std::fs::remove_dir_all(self.cluster[lost].data_dir())?;
        self.recorder
            .keep(lost, (Call::LoseNode, called), Outcome::Done);
        let client = self.places[asked].client.clone();
        until_within(WHOLE_WITHIN, "the node is removed", async || {
            client.member_remove(&id, false).await?;
            Ok(Seen::Good(()))
        })
        .await?;
        let token = client.token().await?.token;
        let mut up = self.cluster[lost].up();
        up.args(["--join", &self.cluster[asked].address().to_string()])
            .env("WEFT_TOKEN", token);
        self.cluster[lost].start_as(up)?;
        self.cluster[lost].until_ready().await?;
        *self.done.faults.entry("lose").or_default() += 1;
        Ok(())
    }

    async fn leader(&self) -> Option<usize> {
        let mut ids: Vec<NodeId> = Vec::new();
        let mut leader = None;
        for place in self.places {
            let status = place.client.status().await.ok()?;
            leader = status.leader.or(leader);
            ids.push(status.node);
        }
        ids.iter().position(|id| Some(*id) == leader)
    }
}

/// Waits until every node lists the same networks, and returns when that began and what they list.
pub(super) async fn agreed(
    cluster: &Cluster,
    recorder: &Recorder,
) -> anyhow::Result<(u64, Vec<weft::api::http::types::Network>)> {
    until_within(
        WHOLE_WITHIN,
        "all nodes list the same networks",
        async || {
            let called = recorder.now();
            let mut lists = Vec::new();
            for node in cluster.running() {
                lists.push(cluster[node].client().networks().await?);
            }
            let first = lists.first().cloned().context("no node runs")?;
            Ok(match lists.iter().all(|list| *list == first) {
                true => Seen::Good((called, first)),
                false => Seen::NotYet(format!("{lists:?}")),
            })
        },
    )
    .await
}
