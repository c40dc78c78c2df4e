//! Links: a bridge, a tunnel a subnet, a pair an endpoint.
//!
//! A link is made in one request, in the namespace in which it stays: of one that was begun by a process that died, nothing
//! is in the host's namespace, and what is in the network's is found by its name. A tunnel is asked for from the host's
//! namespace, so its UDP socket is there, on the underlay, while the link is where nobody else's packets are.

use std::{collections::BTreeSet, fs::File, os::fd::AsRawFd};

use futures_util::TryStreamExt;
use rtnetlink::{
    LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVxlan,
    packet_route::link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan,
        LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    },
};

use super::{
    address,
    name::{self, Names, alias},
    netlink::{
        Netlink, errno,
        libc_errno::{EADDRINUSE, EEXIST, ENODEV},
        refused, refused_in, unless,
    },
    others,
};
use crate::{
    core::{
        model::{Mac, NetworkId, Prefix, Vni},
        overlay::{Link, LinkId},
    },
    dataplane::DataplaneError,
};

/// A link as the kernel shows it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) is_up: bool,
    /// The bridge that it is a port of, 0 if none.
    pub(super) bridge: u32,
    /// The index of a pair's other end, in whatever namespace that is.
    pub(super) pair: Option<u32>,
    /// A tunnel's VNI and port.
    pub(super) tunnel: Option<(u32, u16)>,
    /// Whether its bridge passes nothing from it to another such port.
    pub(super) is_isolated: bool,
}

/// Both ends of what is made: the host's namespace and the network's.
pub(super) struct Ends<'a> {
    pub(super) network: NetworkId,
    pub(super) host: &'a Netlink,
    pub(super) inner: &'a Netlink,
    pub(super) namespace: &'a File,
    pub(super) names: &'a Names,
}

/// Lists all links of a namespace.
pub(super) async fn list(netlink: &Netlink) -> Result<Vec<Found>, DataplaneError> {
    let listed = netlink.handle.link().get().execute();
    let listed = listed.map_ok(read).try_collect().await;
    listed.map_err(refused("list links"))
}

/// Looks a link up by its name.
pub(super) async fn find(netlink: &Netlink, name: &str) -> Result<Option<Found>, DataplaneError> {
    let asked = netlink.handle.link().get().match_name(name).execute();
    match asked.map_ok(read).try_next().await {
        Ok(found) => Ok(found),
        Err(error) if errno(&error) == ENODEV => Ok(None),
        Err(error) => Err(refused(format!("look up link {name}"))(error)),
    }
}

fn read(message: LinkMessage) -> Found {
    let mut found = Found {
        index: message.header.index,
        name: String::new(),
        alias: None,
        mac: None,
        mtu: 0,
        is_up: message.header.flags.contains(LinkFlags::Up),
        bridge: 0,
        is_isolated: false,
        pair: None,
        tunnel: None,
    };
    for attribute in message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            found.name = name;
        } else if let LinkAttribute::IfAlias(alias) = attribute {
            found.alias = Some(alias);
        } else if let LinkAttribute::Address(mac) = attribute {
            found.mac = mac.try_into().ok().map(Mac);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            found.mtu = mtu;
        } else if let LinkAttribute::Controller(index) = attribute {
            found.bridge = index;
        } else if let LinkAttribute::LinkInfo(parts) = attribute {
            found.is_isolated = parts.iter().any(is_isolated);
            found.tunnel = parts.iter().find_map(tunnel);
        } else if let LinkAttribute::Link(index) = attribute {
            found.pair = Some(index);
        }
    }
    found
}

fn is_isolated(part: &LinkInfo) -> bool {
    let isolated = InfoBridgePort::Isolated(true);
    matches!(part, LinkInfo::PortData(InfoPortData::BridgePort(settings)) if settings.contains(&isolated))
}

fn tunnel(part: &LinkInfo) -> Option<(u32, u16)> {
    let LinkInfo::Data(InfoData::Vxlan(settings)) = part else {
        return None;
    };
    let (mut vni, mut port) = (None, None);
    for setting in settings {
        if let InfoVxlan::Id(is) = setting {
            vni = Some(*is);
        } else if let InfoVxlan::Port(is) = setting {
            port = Some(*is);
        }
    }
    vni.zip(port)
}

impl Ends<'_> {
    /// Makes a link.
    pub(super) async fn add(&self, id: LinkId, link: &Link) -> Result<(), DataplaneError> {
        let text = self.give_name(id).await?;
        let made = match (id, link) {
            (_, Link::Bridge { mtu, .. }) => self.add_bridge(&text, *mtu).await,
            (LinkId::Vxlan(vni), Link::Vxlan { .. }) => self.add_vxlan(vni, link).await,
            (_, Link::Endpoint { mac, mtu, .. }) => self.add_pair(&text, *mac, *mtu).await,
            (LinkId::Bridge(_) | LinkId::Endpoint(_), Link::Vxlan { .. }) => Ok(()),
        };
        if let Err(error) = made {
            return Err(match (errno(&error), id, link) {
                (EEXIST, LinkId::Vxlan(vni), &Link::Vxlan { port, .. }) => {
                    let by = others::who_has(self.host, vni, port).await;
                    DataplaneError::Taken { vni, port, by }
                }
                _ => refused(format!("make link {text}"))(error),
            });
        }
        self.finish(id, link).await
    }

    /// Makes a link that is there as it was meant.
    pub(super) async fn finish(&self, id: LinkId, link: &Link) -> Result<(), DataplaneError> {
        let text = self.name(id);
        let gone = || DataplaneError::LinkGone(self.network);
        let found = find(self.inner, &text).await?.ok_or_else(gone)?;
        let mut message = LinkUnspec::new_with_index(found.index)
            .mtu(link.mtu())
            .alias(alias(id, link))
            .up();
        match link.port_of() {
            Some(vni) => {
                let bridge = find(self.inner, &name::bridge(vni)).await?;
                message = message.controller(bridge.ok_or_else(gone)?.index);
            }
            // A bridge whose address nobody has set takes that of one of its ports, another one whenever they change.
            None => message = message.address(found.mac.map_or_else(Vec::new, |mac| mac.0.into())),
        }
        let set = self
            .inner
            .handle
            .link()
            .set(message.build())
            .execute()
            .await;
        set.map_err(|error| match (errno(&error), id, link) {
            (EADDRINUSE, LinkId::Vxlan(vni), &Link::Vxlan { port, .. }) => {
                let by = others::who_has_port(port);
                DataplaneError::Taken { vni, port, by }
            }
            _ => refused_in(self.network, format!("set up link {text}"))(error),
        })?;
        match link {
            Link::Bridge { gateways, .. } => self.give_gateways(found.index, gateways).await,
            Link::Vxlan { .. } => self.isolate(found.index, &text).await,
            Link::Endpoint { .. } => Ok(()),
        }
    }

    /// Gives a bridge the gateways' addresses, and takes all others away.
    async fn give_gateways(
        &self,
        bridge: u32,
        gateways: &BTreeSet<Prefix>,
    ) -> Result<(), DataplaneError> {
        let refused = |address: &Prefix| {
            let what = format!("give a bridge the address {address}, or take it away");
            refused_in(self.network, what)
        };
        for gateway in gateways {
            let added = address::add(self.inner, bridge, *gateway).await;
            added.map_err(refused(gateway))?;
        }
        let listed = address::list(self.inner).await?;
        for stale in address::of(bridge, &listed).filter(|found| !gateways.contains(found)) {
            let removed = address::remove(self.inner, bridge, stale).await;
            removed.map_err(refused(&stale))?;
        }
        Ok(())
    }

    /// Has the bridge pass nothing from one tunnel to another: what comes out of one is for an endpoint here or for nobody.
    async fn isolate(&self, tunnel: u32, name: &str) -> Result<(), DataplaneError> {
        let settings = vec![InfoBridgePort::Isolated(true)];
        let message = LinkUnspec::new_with_index(tunnel)
            .set_port_kind(InfoPortKind::Bridge)
            .set_port_data(InfoPortData::BridgePort(settings))
            .build();
        let set = self.inner.handle.link().set_port(message).execute().await;
        set.map_err(refused_in(self.network, format!("isolate port {name}")))
    }

    /// Removes a link, if it is there.
    pub(super) async fn remove(&self, id: LinkId) -> Result<(), DataplaneError> {
        let text = self.name(id);
        if let Some(found) = find(self.inner, &text).await? {
            let removed = self.inner.handle.link().del(found.index).execute().await;
            unless(removed, &[ENODEV]).map_err(refused(format!("remove link {text}")))?;
        }
        self.names.take_back(self.network, id);
        Ok(())
    }

    fn name(&self, id: LinkId) -> String {
        self.names.of(self.network, id)
    }

    /// Gives a link that is to be made its name: an endpoint's is not that of anything in the host's namespace either.
    async fn give_name(&self, id: LinkId) -> Result<String, DataplaneError> {
        let LinkId::Endpoint(endpoint) = id else {
            return Ok(self.name(id));
        };
        let mut strangers = BTreeSet::new();
        loop {
            let name = self.names.give((self.network, endpoint), &strangers);
            if find(self.host, &name).await?.is_none() {
                return Ok(name);
            }
            self.names.take_back(self.network, id);
            strangers.insert(name);
        }
    }

    async fn add_bridge(&self, name: &str, mtu: u32) -> Result<(), rtnetlink::Error> {
        let message = LinkBridge::new(name).mtu(mtu).build();
        self.inner.handle.link().add(message).execute().await
    }

    async fn add_vxlan(&self, vni: Vni, link: &Link) -> Result<(), rtnetlink::Error> {
        let &Link::Vxlan {
            port, source, mtu, ..
        } = link
        else {
            return Ok(());
        };
        let source = match source {
            std::net::IpAddr::V4(source) => InfoVxlan::Local(source),
            std::net::IpAddr::V6(source) => InfoVxlan::Local6(source),
        };
        let message = LinkVxlan::new(&name::tunnel(vni), vni.get())
            .append_info_data(source)
            .port(port)
            .learning(false)
            .proxy(true)
            .mtu(mtu)
            .setns_by_fd(self.namespace.as_raw_fd())
            .build();
        self.host.handle.link().add(message).execute().await
    }

    async fn add_pair(&self, name: &str, mac: Mac, mtu: u32) -> Result<(), rtnetlink::Error> {
        let inner = LinkUnspec::new_with_name(name)
            .mtu(mtu)
            .setns_by_fd(self.namespace.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .address(mac.0.to_vec())
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
            .build();
        self.host.handle.link().add(message).execute().await
    }
}
