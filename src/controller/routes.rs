//! The prefixes that nodes route already: each tells the others its own, and a subnet that nobody named keeps clear of all.
//!
//! Read from the kernel's tables as text, on a slow clock: no rights are needed, and where there are no such tables there is
//! nothing to keep clear of. Default routes, loopback, link-local and multicast say nothing about which addresses are taken.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use tokio::time::MissedTickBehavior;

use super::{Controller, run::node_key};
use crate::{
    core::{
        allocator::AVOIDED_MAX,
        ipam::Space,
        model::{NetworkId, Prefix, TableName, Value},
        netdb::PutMode,
        wire::codec,
    },
    runtime::{PutError, Stopped},
};

/// How often the kernel's tables are read.
const READ_EVERY: Duration = Duration::from_secs(30);
/// How many prefixes a node tells of.
const TOLD_MAX: usize = 1_024;

impl Controller {
    /// Tells the cluster which prefixes this node routes, whenever they have changed.
    pub(super) async fn publish_routes(self) -> Result<(), Stopped> {
        let mut ticks = tokio::time::interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            ticks.tick().await;
            let routed = routed_here().await;
            if told.as_ref() == Some(&routed) {
                continue;
            }
            let value = Value::new(codec::encode(&routed)).expect("a thousand prefixes are short");
            let entry = (routes_table(), node_key(self.parts.node), value);
            let handle = &self.parts.handle;
            match handle.put(NetworkId::CLUSTER, entry, PutMode::Upsert).await {
                Ok(_version) => told = Some(routed),
                Err(PutError::Stopped(stopped)) => return Err(stopped),
                Err(PutError::Write(error)) => {
                    tracing::debug!(%error, "the prefixes this node routes were not told yet");
                }
            }
        }
    }

    /// Returns what any node routes, as far as this one has heard; what lies in another is left out.
    pub(super) async fn routed(&self) -> Result<Vec<Prefix>, Stopped> {
        let handle = &self.parts.handle;
        let listed = handle
            .list(NetworkId::CLUSTER, Some(routes_table()))
            .await?;
        let mut space = Space::default();
        for prefix in routed_here().await {
            space.cover(prefix);
        }
        for entry in listed {
            let told: Vec<Prefix> = codec::decode(entry.value.as_bytes()).unwrap_or_default();
            told.into_iter()
                .take(TOLD_MAX)
                .for_each(|prefix| space.cover(prefix));
        }
        let mut routed: Vec<Prefix> = space.iter().collect();
        if routed.len() > AVOIDED_MAX {
            tracing::warn!(
                count = routed.len(),
                "nodes route too many prefixes to avoid all: only the widest are"
            );
            routed.sort_by_key(|prefix| prefix.0.prefix_len());
            routed.truncate(AVOIDED_MAX);
        }
        Ok(routed)
    }
}

async fn routed_here() -> Vec<Prefix> {
    let read = |path| async move { tokio::fs::read_to_string(path).await.unwrap_or_default() };
    let (v4, v6) = (
        read("/proc/net/route").await,
        read("/proc/net/ipv6_route").await,
    );
    let found = v4
        .lines()
        .filter_map(route_v4)
        .chain(v6.lines().filter_map(route_v6));
    let found: BTreeSet<Prefix> = found.filter(|prefix| counts(*prefix)).collect();
    found.into_iter().take(TOLD_MAX).collect()
}

/// Reads a line of `/proc/net/route`: interface, destination, gateway, flags, three counts, mask; numbers as they lie in memory.
fn route_v4(line: &str) -> Option<Prefix> {
    let mut fields = line.split_whitespace();
    let destination = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
    let mask = u32::from_str_radix(fields.nth(5)?, 16).ok()?;
    let address = Ipv4Addr::from(destination.to_ne_bytes());
    let mask = Ipv4Addr::from(mask.to_ne_bytes());
    let net = ipnet::Ipv4Net::with_netmask(address, mask).ok()?;
    Some(Prefix(IpNet::V4(net)))
}

/// Reads a line of `/proc/net/ipv6_route`: destination, its length, and what is of no use here, all in hexadecimal digits.
fn route_v6(line: &str) -> Option<Prefix> {
    let mut fields = line.split_whitespace();
    let destination = u128::from_str_radix(fields.next()?, 16).ok()?;
    let length = u8::from_str_radix(fields.next()?, 16).ok()?;
    IpNet::new(Ipv6Addr::from_bits(destination).into(), length)
        .ok()
        .map(Prefix)
}

fn counts(prefix: Prefix) -> bool {
    let is_special = match prefix.0.addr() {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_link_local() || address.is_multicast()
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unicast_link_local() || address.is_multicast()
        }
    };
    prefix.0.prefix_len() > 0 && !is_special
}

fn routes_table() -> TableName {
    TableName::new("routes").expect("letters are a table name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read_and_what_says_nothing_is_left_out() {
        let v4 = [
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
            "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0",
            "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0",
            "eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0",
            "broken",
        ];
        let v6 = [
            "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 0 00000100 1 0 1 eth0",
            "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 0 00000100 1 0 1 eth0",
            "00000000000000000000000000000000 00 00000000000000000000000000000000 00 0 00000400 2 0 3 eth0",
            "ff000000000000000000000000000000 08 00000000000000000000000000000000 00 0 00000100 2 0 1 eth0",
        ];

        let read = v4.iter().filter_map(|line| route_v4(line));
        let read = read.chain(v6.iter().filter_map(|line| route_v6(line)));
        let read: Vec<String> = read
            .filter(|prefix| counts(*prefix))
            .map(|prefix| prefix.to_string())
            .collect();

        // The kernel writes numbers as they lie in memory, here of a little-endian machine.
        if cfg!(target_endian = "little") {
            assert_eq!(read, ["172.17.0.0/16", "fd00::/64"]);
        }
    }
}
