//! Neighbours on a tunnel: permanent, what it answers address resolution from.

use std::{collections::BTreeMap, net::IpAddr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::{
    AddressFamily,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use super::netlink::{Netlink, libc_errno::ENOENT, refused, unless};
use crate::{
    core::model::{Mac, Vni},
    dataplane::DataplaneError,
};

/// Lists the neighbours of these tunnels, by their index.
pub(super) async fn list(
    netlink: &Netlink,
    tunnels: &BTreeMap<u32, Vni>,
) -> Result<BTreeMap<(Vni, IpAddr), Mac>, DataplaneError> {
    let asked = netlink.handle.neighbours().get();
    let mut listed = asked.set_address_family(AddressFamily::Unspec).execute();
    let mut neighbours = BTreeMap::new();
    let failed = "list neighbours";
    while let Some(message) = listed.try_next().await.map_err(refused(failed))? {
        let stays = message.header.state == NeighbourState::Permanent;
        if let (true, Some(vni)) = (stays, tunnels.get(&message.header.ifindex)) {
            neighbours.extend(read(&message).map(|(address, mac)| ((*vni, address), mac)));
        }
    }
    Ok(neighbours)
}

fn read(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let (mut mac, mut address) = (None, None);
    for attribute in &message.attributes {
        if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok().map(Mac);
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) = attribute {
            address = Some(IpAddr::from(*ip));
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) = attribute {
            address = Some(IpAddr::from(*ip));
        }
    }
    address.zip(mac)
}

/// Makes a neighbour or gives it another MAC address.
pub(super) async fn set(
    netlink: &Netlink,
    tunnel: u32,
    (address, mac): (IpAddr, Mac),
) -> Result<(), rtnetlink::Error> {
    let request = netlink.handle.neighbours().add(tunnel, address);
    request.link_layer_address(&mac.0).replace().execute().await
}

/// Removes a neighbour, if it is there.
pub(super) async fn remove(
    netlink: &Netlink,
    tunnel: u32,
    address: IpAddr,
) -> Result<(), rtnetlink::Error> {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match address {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    };
    message.header.family = family;
    message.header.ifindex = tunnel;
    let destination = NeighbourAttribute::Destination(destination);
    message.attributes.push(destination);
    unless(
        netlink.handle.neighbours().del(message).execute().await,
        &[ENOENT],
    )
}
