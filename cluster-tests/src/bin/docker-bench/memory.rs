//! What the daemon weighs beside many endpoints, and the engine beside it.

use std::fs;

use anyhow::Context;
use cluster_tests::cluster::{EngineHost, Seen, until};

use crate::{
    joins::Door,
    report::{Goal, Line, Of, Report, Spread},
};

/// A network with room for many.
const ROOMY: &str = "roomy";
/// What the daemon may weigh, in megabytes.
const RESIDENT_MAX: f64 = 30.0;

pub(crate) async fn measure(
    host: &EngineHost,
    endpoints: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let create = [
        "network",
        "create",
        ROOMY,
        "--subnet",
        "10.240.0.0/16",
        "-o",
        "vxlan_port=4791",
    ];
    host.weft(&create).await?.done()?;
    until("the engine has the network", async || {
        let there = host.docker(&["network", "inspect", ROOMY]).await?;
        Ok(Seen::when(there.code == Some(0), || there.stderr.clone()))
    })
    .await?;
    let before = weigh(host.weft_pid(), "VmRSS")?;
    let door = Door::open(host, ROOMY).await?;
    let mut brought = Vec::new();
    for number in 0..endpoints {
        let mut asked = door.ask(number);
        asked.bring().await?;
        brought.push(asked);
    }
    let beside = format!("beside {endpoints} endpoints");
    for (what, field, goal) in [
        ("resident", "VmRSS", Goal::at_most(Of::Every, RESIDENT_MAX)),
        ("resident, of it the heap and stacks", "RssAnon", None),
    ] {
        report.add(Line {
            what: format!("daemon, {what}, {beside}"),
            unit: "MB",
            weft: weigh(host.weft_pid(), field)?,
            swarm: weigh(host.engine_pid(), field)?,
            beside: None,
            goal,
        });
    }
    report.add(Line {
        what: "daemon, resident, before them".to_owned(),
        unit: "MB",
        weft: before,
        swarm: None,
        beside: None,
        goal: None,
    });
    for mut asked in brought {
        asked.take_away().await?;
    }
    Ok(())
}

fn weigh(pid: Option<u32>, field: &str) -> anyhow::Result<Option<Spread>> {
    let pid = pid.context("it does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: f64 = kilobytes.context("no such line")?.parse()?;
    Ok(Spread::of(vec![kilobytes * 1.024 / 1_000.0]))
}
