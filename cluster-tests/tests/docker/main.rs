//! Containers of different hosts reach each other by name: real engines, real packets, and nothing between them but Weft.
//!
//! Skipped where no engine can be started, unless `WEFT_REQUIRE_DOCKER=1`.

mod families;
mod gone;
mod killed;
mod lost;
mod matrix;

use cluster_tests::cluster::{EngineHost, Engines, IMAGE, Seen, until};
use serde_json::{Value, json};
use tokio::time::Instant;
use weft::{api::http::types::EndpointState, core::model::Name};

/// The daemon under test.
const WEFT: &str = env!("CARGO_BIN_EXE_weft-under-test");

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_different_hosts_reach_each_other_by_name() -> anyhow::Result<()> {
    if !Engines::can_be()? {
        return Ok(());
    }
    let mut engines = Engines::start(WEFT, 3).await?;
    engines.start_weft().await?;

    step(a_network_made_once_is_on_every_engine(&engines)).await?;
    step(a_container_is_reached_by_its_names(&engines)).await?;
    step(a_network_in_use_says_where(&engines)).await?;
    step(killed::a_name_goes_with_the_signal_that_nothing_survives(
        &engines,
    ))
    .await?;
    step(a_daemon_that_was_killed_comes_back_to_its_containers(
        &mut engines,
    ))
    .await?;
    step(an_engine_that_was_restarted_leaves_no_address_taken(
        &mut engines,
    ))
    .await?;
    step(families::a_container_has_an_address_of_each_family(
        &engines,
    ))
    .await?;
    step(matrix::containers_of_every_kind_come_and_go(&engines)).await?;
    step(matrix::containers_that_restart_come_back_whoever_was_killed(&mut engines)).await?;
    step(matrix::containers_outlive_their_engine_and_keep_their_places(&mut engines)).await?;
    step(matrix::many_started_at_once_leave_nothing(&engines)).await?;
    step(lost::a_host_that_is_cut_off_is_forgotten_and_heard_of_again(&engines)).await?;
    step(lost::a_host_that_is_lost_is_forgotten_and_comes_back(
        &mut engines,
    ))
    .await?;
    step(gone::a_swarm_in_the_way_is_told_of(&engines)).await?;
    step(a_removed_network_is_on_no_engine(&engines)).await?;
    step(gone::a_node_that_is_no_member_leaves_nothing_behind(
        &mut engines,
    ))
    .await?;
    engines.end()
}

/// Does one thing after the other, and says how long each took.
#[expect(clippy::print_stderr, reason = "shown when the test fails or is asked")]
async fn step<F: Future<Output = anyhow::Result<()>>>(doing: F) -> anyhow::Result<()> {
    let begun = Instant::now();
    let done = doing.await;
    let what = std::any::type_name::<F>();
    let what = what.trim_start_matches("docker::").split("::{{").next();
    eprintln!(
        "{:5.1} s  {}",
        begun.elapsed().as_secs_f64(),
        what.unwrap_or_default()
    );
    done
}

async fn a_network_made_once_is_on_every_engine(engines: &Engines) -> anyhow::Result<()> {
    let [first, ..] = engines.hosts() else {
        anyhow::bail!("there are no hosts")
    };
    // A network of a user's own stays as it is.
    first.docker(&["network", "create", "mine"]).await?.done()?;
    for network in ["app", "mine"] {
        first.weft(&["network", "create", network]).await?.done()?;
    }
    for host in engines.hosts() {
        until_driver(host, "app", "weft").await?;
    }
    until_driver(first, "mine", "bridge").await?;
    until(
        "it is said that the engine has another network",
        async || {
            let shown = first.weft(&["network", "inspect", "mine"]).await?;
            let is_said = shown.done()?.contains("another network of this name");
            Ok(Seen::when(is_said, || shown.stdout.clone()))
        },
    )
    .await?;
    until_driver(&engines.hosts()[1], "mine", "weft").await
}

async fn until_driver(host: &EngineHost, network: &str, driver: &str) -> anyhow::Result<()> {
    let what = format!("{}'s engine has network {network} of {driver}", host.name());
    until(&what, async || {
        let shown = ["network", "inspect", "--format", "{{.Driver}}", network];
        let shown = host.docker(&shown).await?;
        Ok(Seen::when(shown.stdout.trim() == driver, || {
            format!("{shown:?}")
        }))
    })
    .await
}

async fn a_container_is_reached_by_its_names(engines: &Engines) -> anyhow::Result<()> {
    let [first, second, ..] = engines.hosts() else {
        anyhow::bail!("there are too few hosts")
    };
    run_web(first).await?;

    // The next `docker run` elsewhere finds it: nothing is waited for.
    let script = "ping -c 1 -W 2 web && wget -q -O - http://web/ && wget -q -O - http://www.app/";
    let asked = run_once(second, script).await?;

    let answers = asked.lines().filter(|line| *line == "hello from web");
    anyhow::ensure!(answers.count() == 2, "{asked}");
    // An address of one's own, which the leader leases.
    let options = ["run", "--rm", "--network", "app", "--ip", "10.0.0.200"];
    let command = [IMAGE, "ip", "-o", "addr"];
    let chosen = second.docker(&[&options[..], &command].concat()).await?;
    anyhow::ensure!(chosen.done()?.contains("10.0.0.200/24"), "{chosen:?}");
    a_container_has_the_mac_that_was_chosen(second).await?;
    // The engine's own bridge still publishes ports.
    let published = first
        .command(&["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"])
        .await?;
    anyhow::ensure!(published.done()? == "hello from web\n", "{published:?}");
    Ok(())
}

/// `docker run --mac-address` of a CLI that is newer than its engine refuses a network of the user's; the engine does not.
async fn a_container_has_the_mac_that_was_chosen(host: &EngineHost) -> anyhow::Result<()> {
    let engine = host.engine_api();
    let container = json!({
        "Image": IMAGE,
        "Cmd": ["sleep", "600"],
        "MacAddress": "02:77:00:00:00:c8",
        "HostConfig": { "NetworkMode": "app" },
    });
    let _: Value = engine
        .post("/containers/create?name=chosen", &container)
        .await?;
    engine.post::<()>("/containers/chosen/start", &()).await?;
    let shown = host.docker(&["exec", "chosen", "ip", "-o", "link"]).await?;
    anyhow::ensure!(
        shown.done()?.contains("link/ether 02:77:00:00:00:c8"),
        "{shown:?}"
    );
    engine.delete("/containers/chosen?force=1").await?;
    Ok(())
}

async fn run_web(host: &EngineHost) -> anyhow::Result<()> {
    let options = ["run", "--detach", "--name", "web", "--network", "app"];
    let more = ["--network-alias", "www", "--publish", "8080:80"];
    // As process 1 it would not hear SIGTERM, and the engine would wait ten seconds.
    let command = ["--stop-signal", "KILL", IMAGE, "httpd", "-f", "-h", "/www"];
    let args = [&options[..], &more, &command].concat();
    host.docker(&args).await?.done()?;
    Ok(())
}

async fn run_once(host: &EngineHost, script: &str) -> anyhow::Result<String> {
    run_in(host, "app", script).await
}

async fn run_in(host: &EngineHost, network: &str, script: &str) -> anyhow::Result<String> {
    let options = [
        "run",
        "--rm",
        "--network",
        network,
        IMAGE,
        "sh",
        "-c",
        script,
    ];
    Ok(host.docker(&options).await?.done()?.to_owned())
}

async fn a_network_in_use_says_where(engines: &Engines) -> anyhow::Result<()> {
    let third = &engines.hosts()[2];
    third
        .weft(&["network", "rm", "app"])
        .await?
        .refused(5, &["app", "web@h1"])
}

async fn a_daemon_that_was_killed_comes_back_to_its_containers(
    engines: &mut Engines,
) -> anyhow::Result<()> {
    let first = engines.host(0);
    first.kill_weft()?;
    first.start_weft(&[])?;
    first.until_up().await?;
    until_joined(first, &["web"]).await?;

    let asked = run_once(&engines.hosts()[1], "wget -q -O - http://web/");

    anyhow::ensure!(asked.await? == "hello from web\n");
    Ok(())
}

/// Waits until these are the joined endpoints of the network, as a host's daemon shows them.
async fn until_joined(host: &EngineHost, names: &[&str]) -> anyhow::Result<()> {
    let what = format!("{} shows {names:?}", host.name());
    until(&what, async || {
        let endpoints = host.client().endpoints(Some("app")).await?;
        let joined = endpoints
            .iter()
            .filter(|endpoint| endpoint.state == EndpointState::Joined);
        let seen: Vec<&str> = joined
            .map(|endpoint| Name::as_str(&endpoint.name))
            .collect();
        Ok(Seen::when(seen == names, || format!("{endpoints:?}")))
    })
    .await
}

async fn an_engine_that_was_restarted_leaves_no_address_taken(
    engines: &mut Engines,
) -> anyhow::Result<()> {
    // While the daemon is away, the engine's calls are lost. Where nobody listens the engine would try each for 15 s.
    let first = engines.host(0);
    first.stop_weft()?;
    let away = first.refuse_engine()?;
    first.stop_engine()?;
    drop(away);
    first.start_weft(&[])?;
    first.until_up().await?;
    first.start_engine()?;
    first.until_engine().await?;

    until_joined(first, &[]).await?;
    let gone = run_once(&engines.hosts()[1], "nslookup web.app || echo gone").await?;
    anyhow::ensure!(gone.contains("gone"), "{gone}");
    let first = engines.host(0);
    first.docker(&["start", "web"]).await?.done()?;
    let asked = run_once(&engines.hosts()[1], "wget -q -O - http://web/");
    anyhow::ensure!(asked.await? == "hello from web\n");
    Ok(())
}

async fn a_removed_network_is_on_no_engine(engines: &Engines) -> anyhow::Result<()> {
    let [first, second, ..] = engines.hosts() else {
        anyhow::bail!("there are too few hosts")
    };
    until_joined(second, &[]).await?;
    for network in ["app", "mine"] {
        second.weft(&["network", "rm", network]).await?.done()?;
    }
    for host in engines.hosts() {
        let what = format!("{}'s engine has no network of weft", host.name());
        until(&what, async || {
            let listed = ["network", "ls", "--quiet", "--filter", "driver=weft"];
            let listed = host.docker(&listed).await?;
            Ok(Seen::when(listed.done()?.is_empty(), || {
                listed.stdout.clone()
            }))
        })
        .await?;
    }
    until_driver(first, "mine", "bridge").await
}
