//! One sample of one system: start it, let it settle, look at it idle, then write and wait until all have it.

use std::{ops::Add, sync::Arc, time::Duration};

use anyhow::ensure;
use nix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep};

use crate::{
    arrivals::Arrivals,
    payload::{Chance, payload},
    systems::{
        ChitchatCluster, Cluster, Contender, MemberlistCluster, Settings, System, WeftCluster,
    },
};

/// How long a cluster may take until all nodes know each other.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// How often they are asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long it is left alone then: what joining has begun is still being said.
const SETTLE_FOR: Duration = Duration::from_secs(3);
/// How long between two writes at least, so that a write is no longer spoken of when the next one comes.
const REST: Duration = Duration::from_secs(1);
/// How much longer at most, by chance: no write falls in step with anybody's interval.
const REST_SPREAD: Duration = Duration::from_secs(1);

/// What is asked of a sample.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many nodes.
    pub nodes: usize,
    /// How many writes.
    pub rounds: usize,
    /// How long to look at the idle cluster.
    pub idle: Duration,
    /// After how long a write counts as lost.
    pub limit: Duration,
    /// Where the chance of waits and writers comes from.
    pub seed: u64,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Sample {
    /// How long each write took to be at all nodes; nothing if it was not within the limit.
    pub rounds: Vec<Option<Duration>>,
    /// What was used while nothing was written.
    pub idle: Used,
    /// What was used while there were writes, the waits between them included.
    pub busy: Used,
}

/// What all nodes used within a time.
#[derive(Clone, Copy, Default, Debug)]
pub struct Used {
    /// How long it was.
    pub time: Duration,
    /// How long this process was on a processor.
    pub processor: Duration,
    /// Bytes handed to sockets.
    pub bytes: u64,
}

impl Add for Used {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            time: self.time + other.time,
            processor: self.processor + other.processor,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// Takes a sample.
pub async fn sample(contender: Contender, plan: Plan) -> anyhow::Result<Sample> {
    let settings = contender.settings;
    match contender.system {
        System::Weft => sample_of::<WeftCluster>(settings, plan).await,
        System::Chitchat => sample_of::<ChitchatCluster>(settings, plan).await,
        System::Memberlist => sample_of::<MemberlistCluster>(settings, plan).await,
    }
}

async fn sample_of<C: Cluster>(settings: Settings, plan: Plan) -> anyhow::Result<Sample> {
    let arrivals = Arc::new(Arrivals::new(plan.nodes));
    let cluster = C::start(settings, plan.nodes, &arrivals).await?;
    until_whole(&cluster).await?;
    sleep(SETTLE_FOR).await;

    let before = idle(&cluster, plan.idle / 2).await?;

    let mut chance = Chance::new(plan.seed);
    let mut rounds = Vec::new();
    let meter = Meter::start(&cluster).await?;
    for round in 1..=plan.rounds as u64 {
        let writer = (chance.fraction() * plan.nodes as f64) as usize;
        arrivals.begin(round);
        cluster.write(writer, payload(round)).await?;
        rounds.push(arrivals.last(plan.limit).await);
        sleep(REST + REST_SPREAD.mul_f64(chance.fraction())).await;
    }
    let busy = meter.read(&cluster).await?;

    // Before and after, so that what grows with time does not pass for the cost of a write.
    let idle = before + idle(&cluster, plan.idle / 2).await?;
    cluster.stop().await?;
    Ok(Sample { rounds, idle, busy })
}

async fn idle(cluster: &impl Cluster, time: Duration) -> anyhow::Result<Used> {
    let meter = Meter::start(cluster).await?;
    sleep(time).await;
    meter.read(cluster).await
}

async fn until_whole(cluster: &impl Cluster) -> anyhow::Result<()> {
    let deadline = Instant::now() + WHOLE_WITHIN;
    while !cluster.is_whole().await? {
        ensure!(
            Instant::now() < deadline,
            "not all nodes know each other after {WHOLE_WITHIN:?}"
        );
        sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// The counts at one moment.
struct Meter {
    at: Instant,
    processor: Duration,
    bytes: u64,
}

impl Meter {
    async fn start(cluster: &impl Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            bytes: cluster.sent().await?,
            at: Instant::now(),
            processor: processor()?,
        })
    }

    /// Returns what was used since.
    async fn read(&self, cluster: &impl Cluster) -> anyhow::Result<Used> {
        Ok(Used {
            time: self.at.elapsed(),
            processor: processor()?.saturating_sub(self.processor),
            bytes: cluster.sent().await?.saturating_sub(self.bytes),
        })
    }
}

/// Returns how long this process, all its threads together, has been on a processor.
fn processor() -> nix::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}
