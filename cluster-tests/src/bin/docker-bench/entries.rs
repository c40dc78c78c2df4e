//! Entries of a large network into the kernel, in a namespace of their own.

use std::{collections::BTreeSet, net::IpAddr, process::Stdio};

use anyhow::{Context, ensure};
use tokio::{process::Command, time::Instant};
use weft::{
    core::{
        model::{Mac, NetworkId, Vni, Vtep},
        overlay::{Guard, Link, LinkId, Plane},
    },
    dataplane::{Dataplane, Kernel, Step, reconcile, steps},
};

use crate::report::{Goal, Line, Of, Report, Spread};

const NETWORK: NetworkId = NetworkId(1);
/// How many peers the network has.
const PEERS: u32 = 2_000;
const ROUNDS: usize = 11;
/// What the forwarding entries may take, in milliseconds.
const ENTRIES_MAX: f64 = 60.0;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe()?)
        .arg("--entries")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(output.status.success(), "no entries: {}", output.status);
    let [fdb, all]: [Vec<f64>; 2] = serde_json::from_slice(&output.stdout)?;
    for (what, times, goal) in [
        (
            format!("{PEERS} forwarding entries into the kernel"),
            fdb,
            Goal::at_most(Of::Median, ENTRIES_MAX),
        ),
        (
            format!("{PEERS} peers: their neighbours, the guard, and a list of it all"),
            all,
            None,
        ),
    ] {
        report.add(Line {
            what,
            unit: "ms",
            weft: Spread::of(times),
            swarm: None,
            beside: None,
            goal,
        });
    }
    Ok(())
}

/// Measures in the namespace that this process is in, and prints the times.
pub(crate) async fn in_this_namespace() -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let opened = Kernel::open(place.path().to_owned()).await;
    let kernel = opened.map_err(|missing| anyhow::anyhow!("missing: {missing:?}"))?;
    let (empty, full) = (plane(0)?, plane(PEERS)?);
    let is_entry = |step: &Step| matches!(step, Step::SetFdb { .. });
    let entries: Vec<Step> = steps(&empty, &full).into_iter().filter(is_entry).collect();
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        reconcile(&kernel, NETWORK, &empty).await?;
        let begun = Instant::now();
        kernel.apply(NETWORK, entries.clone()).await?;
        times[0].push(begun.elapsed().as_secs_f64() * 1_000.0);
        let begun = Instant::now();
        reconcile(&kernel, NETWORK, &full).await?;
        times[1].push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    reconcile(&kernel, NETWORK, &Plane::default()).await?;
    println!("{}", serde_json::to_string(&times)?);
    Ok(())
}

fn plane(peers: u32) -> anyhow::Result<Plane> {
    let vni = Vni::new(4_096).context("no VNI")?;
    let (bridge, mtu, port) = (vni, 1_450, 4_789);
    let mut plane = Plane::default();
    let gateways = BTreeSet::new();
    plane
        .links
        .insert(LinkId::Bridge(vni), Link::Bridge { gateways, mtu });
    let source = IpAddr::from([192, 0, 2, 1]);
    let tunnel = Link::Vxlan {
        bridge,
        port,
        source,
        mtu,
    };
    plane.links.insert(LinkId::Vxlan(vni), tunnel);
    let mut members = BTreeSet::new();
    for n in 0..peers {
        let [_, a, b, c] = n.to_be_bytes();
        let vtep = Vtep(IpAddr::from([192, 0, 2, 2 + c % 100]));
        let mac = Mac([2, 0, 1, a, b, c]);
        plane.fdb.insert((vni, mac), vtep);
        plane
            .neighbours
            .insert((vni, IpAddr::from([10, a + 1, b, c])), mac);
        members.insert(vtep);
    }
    plane.guards.insert(vni, Guard { port, members });
    Ok(plane)
}
