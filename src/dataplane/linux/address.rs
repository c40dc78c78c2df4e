//! Addresses of links.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};

use super::netlink::{Netlink, libc_errno::EEXIST, refused, unless};
use crate::{core::model::Prefix, dataplane::DataplaneError};

/// Gives a link an address, at once: the allocator has seen to it that nobody else has it, so nobody is asked.
pub(super) async fn add(
    netlink: &Netlink,
    link: u32,
    address: Prefix,
) -> Result<(), rtnetlink::Error> {
    let (ip, length) = (address.0.addr(), address.0.prefix_len());
    let mut request = netlink.handle.address().add(link, ip, length);
    if ip.is_ipv6() {
        let unasked = AddressAttribute::Flags(AddressFlags::Nodad);
        request.message_mut().attributes.push(unasked);
    }
    unless(request.execute().await, &[EEXIST])
}

/// Lists the addresses of a namespace, each with its link.
pub(super) async fn list(netlink: &Netlink) -> Result<BTreeSet<(u32, Prefix)>, DataplaneError> {
    let mut listed = netlink.handle.address().get().execute();
    let mut addresses = BTreeSet::new();
    while let Some(message) = listed.try_next().await.map_err(refused("list addresses"))? {
        let (link, length) = (message.header.index, message.header.prefix_len);
        for attribute in message.attributes {
            if let AddressAttribute::Address(ip) = attribute
                && let Ok(net) = ipnet::IpNet::new(ip, length)
            {
                addresses.insert((link, Prefix(net)));
            }
        }
    }
    Ok(addresses)
}
