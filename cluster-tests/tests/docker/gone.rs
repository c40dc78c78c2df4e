//! Who else is on a host: a swarm; and what is left there of a node that is no member any more.

use cluster_tests::cluster::{EngineHost, Engines, IMAGE, Seen, until};

pub(super) async fn a_swarm_in_the_way_is_told_of(engines: &Engines) -> anyhow::Result<()> {
    let third = &engines.hosts()[2];
    until_told(third, "is in a swarm", false).await?;
    let checked = third.weft(&["status", "--check"]).await?;
    anyhow::ensure!(checked.code == Some(0), "{checked:?}");

    let init = ["swarm", "init", "--advertise-addr", third.address()];
    third.docker(&init).await?.done()?;

    until_told(third, "is in a swarm", true).await?;
    let told = third.client().status().await?.docker.unwrap_or_default();
    let said = told.problems.join(" ");
    for part in ["4789", "app", "vxlan_port"] {
        anyhow::ensure!(said.contains(part), "{part} is not said: {said}");
    }
    let checked = third.weft(&["status", "--check"]).await?;
    anyhow::ensure!(checked.code == Some(5), "{checked:?}");
    third.docker(&["swarm", "leave", "--force"]).await?.done()?;
    Ok(())
}

async fn until_told(host: &EngineHost, what: &str, is_told: bool) -> anyhow::Result<()> {
    until(&format!("{what:?} is told: {is_told}"), async || {
        let docker = host.client().status().await?.docker.unwrap_or_default();
        let told = docker.problems.iter().any(|problem| problem.contains(what));
        Ok(Seen::when(told == is_told, || format!("{docker:?}")))
    })
    .await
}

/// One is removed by others while it is away, another one leaves, comes back as a new one, and is removed while it runs. Each has a
/// container in a network.
pub(super) async fn a_node_that_is_no_member_leaves_nothing_behind(
    engines: &mut Engines,
) -> anyhow::Result<()> {
    let [first, second, third] = engines.hosts() else {
        anyhow::bail!("there are not three hosts")
    };
    first.weft(&["network", "create", "last"]).await?.done()?;
    for host in [second, third] {
        run_in_last(host).await?;
    }

    // Who leads hands over when it leaves; whoever else is removed votes no longer.
    let leader = first.client().status().await?.leader;
    let second_leads = leader == Some(second.client().status().await?.node);
    let (away, leaves) = if second_leads { (2, 1) } else { (1, 2) };
    engines.host(away).kill_weft()?;
    remove(engines, away).await?;
    let host = engines.host(away);
    host.start_weft(&[])?;
    until_nothing_is_left(host, false).await?;

    engines.hosts()[leaves].weft(&["leave"]).await?.done()?;
    until_nothing_is_left(engines.host(leaves), true).await?;

    engines.enter(leaves).await?;
    run_in_last(&engines.hosts()[leaves]).await?;
    remove(engines, leaves).await?;
    until_nothing_is_left(engines.host(leaves), false).await?;

    // Who is left decides alone.
    let first = &engines.hosts()[0];
    until("the network is removed", async || {
        let removed = first.weft(&["network", "rm", "last"]).await?;
        Ok(Seen::when(removed.done().is_ok(), || {
            format!("{removed:?}")
        }))
    })
    .await
}

async fn run_in_last(host: &EngineHost) -> anyhow::Result<()> {
    until_listed(host, true).await?;
    let options = ["run", "--detach", "--name", "last", "--network", "last"];
    let command = ["--stop-signal", "KILL", IMAGE, "sleep", "600"];
    let run = [&options[..], &command].concat();
    host.docker(&run).await?.done()?;
    Ok(())
}

/// The first host removes another one.
async fn remove(engines: &Engines, at: usize) -> anyhow::Result<()> {
    let [first, ..] = engines.hosts() else {
        anyhow::bail!("there are no hosts")
    };
    let name = engines.hosts()[at].name();
    // The token stays as it is: one of them comes back with it.
    let gone = first.client().member_remove(name, true).await?;
    until("the others vote without it", async || {
        let status = first.client().status().await?;
        let is_so = status.leader.is_some() && !status.raft.voters.contains(&gone.node);
        Ok(Seen::when(is_so, || format!("{:?}", status.raft)))
    })
    .await
}

/// Waits until a daemon has ended, in peace or not, and checks that its container runs on with nothing of Weft on its host.
async fn until_nothing_is_left(host: &mut EngineHost, in_peace: bool) -> anyhow::Result<()> {
    let ended = host.until_weft_ended().await?;
    anyhow::ensure!(ended == in_peace, "{}", host.name());
    until_listed(host, false).await?;
    let running = ["ps", "--format", "{{.Names}}"];
    let running = host.docker(&running).await?;
    anyhow::ensure!(running.done()? == "last\n", "{running:?}");
    let links = host.command(&["ip", "-o", "link"]).await?;
    let tables = host.command(&["nft", "list", "tables"]).await?;
    let is_clear = host.namespaces()?.is_empty()
        && !links.done()?.contains(": weft")
        && !tables.done()?.contains("inet weft");
    anyhow::ensure!(is_clear, "{}: {links:?} {tables:?}", host.name());
    let command = ["exec", "last", "ip", "-o", "link"];
    let inside = host.docker(&command).await?;
    anyhow::ensure!(!inside.done()?.contains("eth"), "{inside:?}");
    host.docker(&["rm", "--force", "last"]).await?.done()?;
    Ok(())
}

async fn until_listed(host: &EngineHost, is_listed: bool) -> anyhow::Result<()> {
    let what = format!("{}'s engine has a network: {is_listed}", host.name());
    until(&what, async || {
        let listed = ["network", "ls", "--quiet", "--filter", "name=last"];
        let listed = host.docker(&listed).await?;
        let is_so = listed.done()?.is_empty() != is_listed;
        Ok(Seen::when(is_so, || listed.stdout.clone()))
    })
    .await
}
