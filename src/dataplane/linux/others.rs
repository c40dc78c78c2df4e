//! What others have on this host: tunnels in the way of ours, and the ends of our pairs that are in sandboxes.

use std::{collections::BTreeMap, fs::File};

use rtnetlink::LinkUnspec;

use super::{link, namespace, netlink::Netlink};
use crate::core::model::{Mac, Vni};

/// Says which device has a tunnel of this VNI on this port, as far as that can be seen.
pub(super) async fn who_has(host: &Netlink, vni: Vni, port: u16) -> String {
    let is_it = |found: &link::Found| found.tunnel == Some((vni.get(), port));
    let named = |links: Vec<link::Found>| links.into_iter().find(is_it).map(|link| link.name);
    let here = link::list(host).await.unwrap_or_default();
    if let Some(name) = named(here) {
        return format!("device {name}");
    }
    for (path, namespace) in namespace::visible() {
        let links = links_in(namespace).await.map(|(_, links)| links);
        if let Some(name) = links.and_then(named) {
            let path = path.display();
            return format!("device {name} in network namespace {path}");
        }
    }
    "a device in a network namespace that cannot be seen from here".to_owned()
}

/// Says who has a port so that no tunnel can use it.
pub(super) fn who_has_port(port: u16) -> String {
    format!(
        "a program, or a device of another kind, that has the port (ss -lunp 'sport = :{port}')"
    )
}

/// The end in a sandbox of one of our pairs: its MAC address, our end's index, and the MTU that it is to have.
pub(super) type FarEnd = (Mac, u32, u32);

/// Gives the ends of pairs that are in sandboxes their MTU, wherever those are. One that is in a sandbox which cannot be
/// seen keeps the one it has.
pub(super) async fn follow_mtu(host: &Netlink, ends: &[FarEnd]) {
    let ends: BTreeMap<(Mac, u32), u32> = ends
        .iter()
        .map(|(mac, pair, mtu)| ((*mac, *pair), *mtu))
        .collect();
    let here = link::list(host).await.unwrap_or_default();
    set_mtu(host, here, &ends).await;
    for (_, namespace) in namespace::visible() {
        if let Some((netlink, links)) = links_in(namespace).await {
            set_mtu(&netlink, links, &ends).await;
        }
    }
}

async fn set_mtu(netlink: &Netlink, links: Vec<link::Found>, ends: &BTreeMap<(Mac, u32), u32>) {
    for found in links {
        let end = found.mac.zip(found.pair).and_then(|end| ends.get(&end));
        let Some(mtu) = end.copied().filter(|mtu| *mtu != found.mtu) else {
            continue;
        };
        let message = LinkUnspec::new_with_index(found.index).mtu(mtu).build();
        if let Err(error) = netlink.handle.link().set(message).execute().await {
            tracing::warn!(link = found.name, mtu, %error, "a link in a sandbox keeps its MTU");
        }
    }
}

async fn links_in(namespace: File) -> Option<(Netlink, Vec<link::Found>)> {
    let netlink = namespace::inside(namespace, Netlink::open).await.ok()?;
    let links = link::list(&netlink).await.ok()?;
    Some((netlink, links))
}
