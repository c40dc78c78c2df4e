//! How long a container takes to be found from another host, and how long its name stays; beside a bridge of one host.

use std::time::Duration;

use cluster_tests::cluster::EngineHost;
use tokio::time::Instant;

use crate::{
    net::{self, LOCAL, SWARM, WEFT},
    probe::Probe,
    report::{Goal, Line, Of, Report, Spread},
};

/// What a name's coming and going may take, in milliseconds.
const RESOLVED_MAX: f64 = 300.0;
const GONE_MAX: f64 = 100.0;
/// How much later than on a bridge of one host an answer may come.
const BEHIND_LOCAL: f64 = 20.0;

/// What is measured of each container.
const WHAT: [&str; 4] = [
    "`docker run`: its name resolves on another host",
    "`docker run`: it answers a packet from there",
    "`docker run` has returned",
    "`docker rm -f`: its name is gone there",
];

/// A network, the host on which containers appear, and what was seen of them from the second host.
struct System {
    network: &'static str,
    at: usize,
    times: [Vec<Duration>; 4],
}

pub(crate) async fn measure(
    hosts: &[EngineHost],
    rounds: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut systems = [(WEFT, 0), (SWARM, 0), (LOCAL, 1)].map(|(network, at)| System {
        network,
        at,
        times: Default::default(),
    });
    for system in &systems {
        net::until_run(&hosts[1], system.network, &watcher(system.network)).await?;
    }
    for round in 0..rounds {
        for system in &mut systems {
            system.round(hosts, round).await?;
        }
    }
    for system in &systems {
        net::remove(&hosts[1], &watcher(system.network)).await?;
    }
    for (at, what) in WHAT.iter().enumerate() {
        let [weft, swarm, beside] = systems
            .each_ref()
            .map(|system| Spread::of_times(&system.times[at]));
        let local = beside.as_ref().map_or(0.0, |local| local.median);
        let goal = match at {
            0 => Goal::at_most(Of::Median, RESOLVED_MAX),
            1 => Goal::at_most(Of::Median, local + BEHIND_LOCAL),
            3 => Goal::at_most(Of::Median, GONE_MAX),
            _ => None,
        };
        report.add(Line {
            what: (*what).to_owned(),
            unit: "ms",
            weft,
            swarm,
            beside,
            goal,
        });
    }
    Ok(())
}

fn watcher(network: &str) -> String {
    format!("watcher-{network}")
}

impl System {
    async fn round(&mut self, hosts: &[EngineHost], round: usize) -> anyhow::Result<()> {
        let name = format!("c{round}-{}", self.network);
        let watcher = watcher(self.network);
        let mut probe = Probe::start(&hosts[1], &watcher, &name).await?;
        let host = &hosts[self.at];
        let begun = Instant::now();
        let words = net::run(self.network, &name);
        let ran = async {
            host.docker(&words).await?.done()?;
            anyhow::Ok(begun.elapsed())
        };
        let seen = async {
            let resolved = probe.until("resolved", begun).await?;
            anyhow::Ok((resolved, probe.until("reached", begun).await?))
        };
        let (ran, (resolved, reached)) = tokio::try_join!(ran, seen)?;
        probe.go_on().await?;
        let begun = Instant::now();
        let removed = net::remove(host, &name);
        let ((), gone) = tokio::try_join!(removed, probe.until("gone", begun))?;
        for (times, time) in self.times.iter_mut().zip([resolved, reached, ran, gone]) {
            times.push(time);
        }
        Ok(())
    }
}
