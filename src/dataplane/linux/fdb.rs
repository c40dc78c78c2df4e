//! Forwarding entries of a tunnel: static, the link's own (`NTF_SELF`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};

use super::netlink::{Netlink, libc_errno::ENOENT, refused, unless};
use crate::{
    core::model::{Mac, Vni, Vtep},
    dataplane::DataplaneError,
};

/// Lists the entries of these tunnels, by their index.
pub(super) async fn list(
    netlink: &Netlink,
    tunnels: &BTreeMap<u32, Vni>,
) -> Result<BTreeMap<(Vni, Mac), Vtep>, DataplaneError> {
    let asked = netlink.handle.neighbours().get();
    let mut listed = asked.set_address_family(AddressFamily::Bridge).execute();
    let mut entries = BTreeMap::new();
    let failed = "list forwarding entries";
    while let Some(message) = listed.try_next().await.map_err(refused(failed))? {
        let own = message.header.flags.contains(NeighbourFlags::Own);
        if let (true, Some(vni)) = (own, tunnels.get(&message.header.ifindex)) {
            entries.extend(read(&message).map(|(mac, vtep)| ((*vni, mac), vtep)));
        }
    }
    Ok(entries)
}

fn read(message: &NeighbourMessage) -> Option<(Mac, Vtep)> {
    let (mut mac, mut vtep) = (None, None);
    for attribute in &message.attributes {
        if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok().map(Mac);
        } else if let NeighbourAttribute::Destination(address) = attribute {
            vtep = ip(address);
        }
    }
    mac.zip(vtep.map(Vtep))
}

/// In an entry of a bridge's family the destination is of no declared family: its length tells.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some((*ip).into()),
        NeighbourAddress::Inet6(ip) => Some((*ip).into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice())
                .ok()
                .map(|bytes| Ipv4Addr::from(bytes).into()),
            _ => <[u8; 16]>::try_from(bytes.as_slice())
                .ok()
                .map(|bytes| Ipv6Addr::from(bytes).into()),
        },
        _ => None,
    }
}

/// Makes an entry or points it elsewhere.
pub(super) async fn set(
    netlink: &Netlink,
    tunnel: u32,
    (mac, vtep): (Mac, Vtep),
) -> Result<(), rtnetlink::Error> {
    let request = netlink.handle.neighbours().add_bridge(tunnel, &mac.0);
    let request = request.flags(NeighbourFlags::Own).destination(vtep.0);
    request.replace().execute().await
}

/// Removes an entry, if it is there.
pub(super) async fn remove(
    netlink: &Netlink,
    tunnel: u32,
    mac: Mac,
) -> Result<(), rtnetlink::Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = tunnel;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    let address = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
    message.attributes.push(address);
    unless(
        netlink.handle.neighbours().del(message).execute().await,
        &[ENOENT],
    )
}
