//! The plugin socket alone: what an engine waits for, without containers.

use anyhow::Context;
use cluster_tests::cluster::EngineHost;
use serde_json::{Value, json};
use tokio::time::Instant;
use weft::plugin;

use crate::{
    net::{self, WEFT},
    report::{Goal, Line, Of, Report, Spread},
};

/// What an engine calls for one container, in this order.
const STEPS: [&str; 6] = [
    "IpamDriver.RequestAddress",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.DeleteEndpoint",
    "IpamDriver.ReleaseAddress",
];
/// How many of them bring an endpoint.
const BRING: usize = 3;
/// What Join may take, in milliseconds.
const JOIN_MEDIAN: f64 = 5.0;
const JOIN_P99: f64 = 20.0;

/// The plugin socket of a host, as the engine sees it for one network.
pub(crate) struct Door {
    plugin: plugin::Client,
    network: String,
    pool: Value,
}

/// An endpoint that is asked for as an engine does.
pub(crate) struct Asked<'a> {
    door: &'a Door,
    request: Value,
}

pub(crate) async fn measure(
    host: &EngineHost,
    count: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    // Another container keeps the network's namespace there: the first and the last of a host make and remove it.
    net::until_run(host, WEFT, "first").await?;
    let mut times = STEPS.map(|_| Vec::new());
    let door = Door::open(host, WEFT).await?;
    for number in 0..count {
        let mut asked = door.ask(number);
        for (step, times) in STEPS.iter().zip(&mut times) {
            let begun = Instant::now();
            asked.call(step).await?;
            times.push(begun.elapsed());
        }
    }
    net::remove(host, "first").await?;
    for (step, times) in STEPS.into_iter().zip(times) {
        let goals = match step {
            "NetworkDriver.Join" => [
                Goal::at_most(Of::Median, JOIN_MEDIAN),
                Goal::at_most(Of::P99, JOIN_P99),
            ],
            _ => [None, None],
        };
        for goal in goals
            .into_iter()
            .enumerate()
            .filter(|(at, goal)| *at == 0 || goal.is_some())
        {
            report.add(Line {
                what: step.to_owned(),
                unit: "ms",
                weft: Spread::of_times(&times),
                swarm: None,
                beside: None,
                goal: goal.1,
            });
        }
    }
    Ok(())
}

impl Door {
    pub(crate) async fn open(host: &EngineHost, network: &str) -> anyhow::Result<Self> {
        let inspect = ["network", "inspect", "--format", "{{.Id}}", network];
        let id = host.docker(&inspect).await?.done()?.trim().to_owned();
        let option = json!({ "Options": { "weft.network": network } });
        let plugin = host.plugin();
        let pool = plugin.call("IpamDriver.RequestPool", &option).await?;
        Ok(Self {
            plugin,
            network: id,
            pool,
        })
    }

    pub(crate) fn ask(&self, number: usize) -> Asked<'_> {
        let request = json!({
            "PoolID": self.pool["PoolID"],
            "Address": "",
            "NetworkID": self.network,
            // Its beginning is the endpoint's name, as long as nobody knows the container, and its link's.
            "EndpointID": format!("{:08x}{:056x}", number + 1, 0),
        });
        Asked {
            door: self,
            request,
        }
    }
}

impl Asked<'_> {
    async fn call(&mut self, step: &str) -> anyhow::Result<()> {
        let answer: Value = self.door.plugin.call(step, &self.request).await?;
        if let Some(address) = answer["Address"].as_str() {
            let (bare, _length) = address.split_once('/').context("no length")?;
            self.request["Interface"] = json!({ "Address": address });
            self.request["Address"] = bare.into();
        }
        Ok(())
    }

    pub(crate) async fn bring(&mut self) -> anyhow::Result<()> {
        for step in &STEPS[..BRING] {
            self.call(step).await?;
        }
        Ok(())
    }

    pub(crate) async fn take_away(&mut self) -> anyhow::Result<()> {
        for step in &STEPS[BRING..] {
            self.call(step).await?;
        }
        Ok(())
    }
}
