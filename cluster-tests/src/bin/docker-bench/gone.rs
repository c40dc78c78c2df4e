//! A host is cut off, as if it had lost its power: how long its container's name and route stay on another host. Then it comes
//! back: how long until the name is there again and answers.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use cluster_tests::cluster::{EngineHost, Engines};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout},
};

use crate::{
    net::{self, SWARM, WEFT},
    probe::Probe,
    report::{Goal, Line, Of, Report, Spread},
};

/// Who is cut off, and who sees it.
const CUT: usize = 2;
const SEES: usize = 1;
/// How long a route may stay, in milliseconds.
const GONE_MAX: f64 = 2_500.0;
/// How long a host that is back may take.
const HEAL_MAX: f64 = 1_000.0;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(120);
/// By how much each cut is longer than the one before it.
const LONGER: Duration = Duration::from_secs(4);
/// Waits in a namespace until a forwarding entry is not there.
const UNTIL_GONE: &str =
    "while bridge fdb show | grep -q \"$1.* dst \"; do sleep 0.02; done; echo gone";

/// One of the two, with its container on the host that is cut off.
struct System {
    network: &'static str,
    name: String,
    watcher: String,
    probe: Option<Probe>,
    names: Vec<Duration>,
    routes: Vec<Duration>,
    healed: Vec<Duration>,
}

pub(crate) async fn measure(
    engines: &Engines,
    cuts: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut systems = [WEFT, SWARM].map(System::new);
    for number in 0..cuts {
        for system in systems.iter_mut().filter(|system| system.probe.is_none()) {
            system.start(engines.hosts()).await?;
        }
        let [weft, swarm] = &mut systems;
        let mut routes = [
            weft.watch_route(engines.hosts()).await?,
            swarm.watch_route(engines.hosts()).await?,
        ];
        engines.cut(CUT).await?;
        let begun = Instant::now();
        let [first, second] = &mut routes;
        tokio::try_join!(
            weft.until_gone(first, begun),
            swarm.until_gone(second, begun)
        )?;
        tokio::time::sleep(LONGER * u32::try_from(number)?).await;
        engines.heal(CUT).await?;
        let begun = Instant::now();
        tokio::try_join!(weft.until_back(begun), swarm.until_back(begun))?;
    }
    for system in &systems {
        net::remove(&engines.hosts()[CUT], &system.name).await?;
        net::remove(&engines.hosts()[SEES], &system.watcher).await?;
    }
    let [weft, swarm] = systems;
    for (what, (weft, swarm), goal) in [
        (
            "a host is cut off: its container's name is gone",
            (&weft.names, &swarm.names),
            GONE_MAX,
        ),
        (
            "a host is cut off: the route to it is gone",
            (&weft.routes, &swarm.routes),
            GONE_MAX,
        ),
        (
            "the cut heals: the name is back and answers",
            (&weft.healed, &swarm.healed),
            HEAL_MAX,
        ),
    ] {
        report.add(Line {
            what: what.to_owned(),
            unit: "ms",
            weft: Spread::of_times(weft),
            swarm: Spread::of_times(swarm),
            beside: None,
            goal: Goal::at_most(Of::Every, goal),
        });
    }
    Ok(())
}

impl System {
    fn new(network: &'static str) -> Self {
        Self {
            network,
            name: format!("far-{network}"),
            watcher: format!("near-{network}"),
            probe: None,
            names: Vec::new(),
            routes: Vec::new(),
            healed: Vec::new(),
        }
    }

    /// Starts its containers, anew if those of an earlier cut did not come back.
    async fn start(&mut self, hosts: &[EngineHost]) -> anyhow::Result<()> {
        net::remove(&hosts[CUT], &self.name).await?;
        net::remove(&hosts[SEES], &self.watcher).await?;
        net::until_run(&hosts[SEES], self.network, &self.watcher).await?;
        let mut probe = Probe::start(&hosts[SEES], &self.watcher, &self.name).await?;
        net::until_run(&hosts[CUT], self.network, &self.name).await?;
        let now = Instant::now();
        probe.until("resolved", now).await?;
        probe.until("reached", now).await?;
        self.probe = Some(probe);
        Ok(())
    }

    /// Watches the forwarding entry of the container on the host that is not cut off.
    async fn watch_route(&self, hosts: &[EngineHost]) -> anyhow::Result<Child> {
        let mac = "{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}";
        let mac = net::about(&hosts[CUT], &self.name, mac).await?;
        let host = &hosts[SEES];
        let mut command = match self.network {
            SWARM => {
                let id = host.docker(&["network", "inspect", "--format", "{{.Id}}", SWARM]);
                let id = id.await?.done()?.trim().to_owned();
                let engine = host.engine_pid().context("no engine")?;
                let place = host.directory().join("exec/netns");
                let script = format!(
                    "exec nsenter --net=\"$(echo {}/*-{})\" sh -c '{UNTIL_GONE}' sh \"$1\"",
                    place.display(),
                    id.get(..10).context("a short id")?,
                );
                let mut command = Command::new("nsenter");
                command.arg(format!("--mount=/proc/{engine}/ns/mnt"));
                command.args(["sh", "-c", &script, "sh", &mac]);
                command
            }
            _ => {
                let networks = host.client().networks().await?;
                let named = networks
                    .iter()
                    .find(|one| one.name.as_str() == self.network);
                let id = named.context("no network")?.id.to_string();
                let place = host.directory().join("netns").join(id);
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", place.display()));
                command.args(["sh", "-c", UNTIL_GONE, "sh", &mac]);
                command
            }
        };
        let watching = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(watching)
    }

    async fn until_gone(&mut self, route: &mut Child, begun: Instant) -> anyhow::Result<()> {
        let probe = self.probe.as_mut().context("no probe")?;
        probe.go_on().await?;
        let route = async {
            let ended = timeout(LIMIT, route.wait())
                .await
                .context("a route stays")??;
            ensure!(ended.success(), "a route cannot be watched: {ended}");
            anyhow::Ok(begun.elapsed())
        };
        let (name, route) = tokio::try_join!(probe.until("gone", begun), route)?;
        self.names.push(name);
        self.routes.push(route);
        Ok(())
    }

    async fn until_back(&mut self, begun: Instant) -> anyhow::Result<()> {
        let probe = self.probe.as_mut().context("no probe")?;
        probe.go_on().await?;
        let back = async {
            probe.until("resolved", begun).await?;
            probe.until("reached", begun).await
        };
        match back.await {
            Ok(healed) => self.healed.push(healed),
            // Not at all: so long it took at least, and the next cut begins with other containers.
            Err(_never) => {
                self.healed.push(begun.elapsed());
                self.probe = None;
            }
        }
        Ok(())
    }
}
