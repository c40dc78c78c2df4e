//! A network of both families: a container has an address of each, and is found and reached by either.

use cluster_tests::cluster::{Engines, IMAGE};

use super::{run_in, until_driver};

pub(super) async fn a_container_has_an_address_of_each_family(
    engines: &Engines,
) -> anyhow::Result<()> {
    let [first, second, ..] = engines.hosts() else {
        anyhow::bail!("there are too few hosts")
    };
    let subnets = ["--subnet", "10.9.0.0/24", "--subnet", "fd09::/64"];
    let create = [&["network", "create", "both"][..], &subnets].concat();
    first.weft(&create).await?.done()?;
    for host in engines.hosts() {
        until_driver(host, "both", "weft").await?;
    }
    let options = ["run", "--detach", "--name", "six", "--network", "both"];
    let chosen = ["--ip", "10.9.0.66", "--ip6", "fd09::66"];
    let command = ["--stop-signal", "KILL", IMAGE, "sleep", "600"];
    let run = [&options[..], &chosen, &command].concat();
    first.docker(&run).await?.done()?;

    let script =
        "ping -4 -c 1 -W 2 six && ping -6 -c 1 -W 2 six && nslookup fd09::66 && ip -o addr";
    let asked = run_in(second, "both", script).await?;

    for seen in [
        "10.9.0.66",
        "fd09::66",
        "six.both",
        "inet 10.9.0.",
        "inet6 fd09::",
    ] {
        anyhow::ensure!(asked.contains(seen), "no {seen}: {asked}");
    }
    first.docker(&["rm", "--force", "six"]).await?.done()?;
    second.weft(&["network", "rm", "both"]).await?.done()?;
    Ok(())
}
