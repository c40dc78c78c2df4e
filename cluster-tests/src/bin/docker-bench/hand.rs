//! A VXLAN made by hand between containers on the first two hosts: what the kernel does when nobody is in its way. On each host a
//! namespace has a bridge and the tunnel, as an overlay has it. The containers are on an ordinary network of their engine besides,
//! so what the engine does to every container's packets (address translation for its resolver) is done to theirs too.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Context;
use cluster_tests::cluster::{EngineHost, Namespace, inside};

use crate::net;

/// The engine's network that the containers are on besides.
const ORDINARY: &str = "ordinary";
const CONTAINER: &str = "by-hand";
/// What the interface is called that leads to the tunnel.
const INTERFACE: &str = "hand0";
/// Nobody else's here.
const VNI: &str = "9000";
const PORT: &str = "4799";
const MTU: &str = "1450";

/// One end: what is made goes with it, but for the container.
pub(crate) struct End {
    bridge: Namespace,
    container: PathBuf,
    number: u8,
}

/// Makes both ends.
pub(crate) async fn make(hosts: &[EngineHost]) -> anyhow::Result<[End; 2]> {
    let ends = [
        End::make(&hosts[0], 0).await?,
        End::make(&hosts[1], 1).await?,
    ];
    for (end, (host, other)) in ends.iter().zip([(0, 1), (1, 0)]) {
        end.connect(&hosts[host], hosts[other].address()).await?;
    }
    Ok(ends)
}

/// Takes the containers away.
pub(crate) async fn remove(hosts: &[EngineHost]) -> anyhow::Result<()> {
    for host in &hosts[..2] {
        net::remove(host, CONTAINER).await?;
        host.docker(&["network", "rm", ORDINARY]).await?;
    }
    Ok(())
}

impl End {
    async fn make(host: &EngineHost, number: u8) -> anyhow::Result<Self> {
        host.docker(&["network", "create", ORDINARY])
            .await?
            .done()?;
        net::until_run(host, ORDINARY, CONTAINER).await?;
        Ok(Self {
            bridge: Namespace::make()?,
            container: net::namespace(host, CONTAINER).await?,
            number,
        })
    }

    /// Returns the address of who sends and receives here.
    pub(crate) fn address(&self) -> Ipv4Addr {
        address(self.number)
    }

    pub(crate) fn namespace(&self) -> PathBuf {
        self.container.clone()
    }

    async fn connect(&self, host: &EngineHost, far: &str) -> anyhow::Result<()> {
        let bridge = self.bridge.path();
        let bridge_name = bridge.file_name().context("no name")?.to_string_lossy();
        let pid = net::about(host, CONTAINER, "{{.State.Pid}}").await?;
        let tunnel = format!(
            "ip link add vx0 type vxlan id {VNI} dstport {PORT} local {} nolearning proxy",
            host.address()
        );
        for line in [tunnel, format!("ip link set vx0 netns {bridge_name}")] {
            host.command(&words(&line)).await?.done()?;
        }
        let (own, other) = (self.number, 1 - self.number);
        let there = address(other);
        for line in [
            "ip link add br0 type bridge".to_owned(),
            format!("ip link add p0 type veth peer name {INTERFACE} netns {pid}"),
            format!("ip link set vx0 master br0 mtu {MTU} up"),
            format!("ip link set p0 master br0 mtu {MTU} up"),
            format!("ip link set br0 mtu {MTU} up"),
            format!(
                "ip neigh add {there} lladdr {} dev vx0 nud permanent",
                mac(other)
            ),
            format!(
                "bridge fdb add {} dev vx0 dst {far} self permanent",
                mac(other)
            ),
        ] {
            inside(&bridge, &words(&line))?;
        }
        for line in [
            format!("ip link set {INTERFACE} address {} mtu {MTU} up", mac(own)),
            format!("ip addr add {}/24 dev {INTERFACE}", address(own)),
        ] {
            inside(&self.container, &words(&line))?;
        }
        Ok(())
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 199, 0, number + 1)
}

fn mac(number: u8) -> String {
    format!("02:00:00:00:99:{:02x}", number + 1)
}
