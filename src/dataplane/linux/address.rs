//! Addresses of links.

use std::{collections::BTreeSet, net::IpAddr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage},
};

use super::netlink::{
    Netlink,
    libc_errno::{EADDRNOTAVAIL, EEXIST},
    refused, unless,
};
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

/// Takes an address away from a link, if it has it.
pub(super) async fn remove(
    netlink: &Netlink,
    link: u32,
    address: Prefix,
) -> Result<(), rtnetlink::Error> {
    let (ip, length) = (address.0.addr(), address.0.prefix_len());
    let mut message = AddressMessage::default();
    message.header.family = match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.index = link;
    message.header.prefix_len = length;
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    let removed = netlink.handle.address().del(message).execute().await;
    unless(removed, &[EADDRNOTAVAIL])
}

/// Returns what was given to a link of what was listed; its link-local address it has by itself.
pub(super) fn of(link: u32, listed: &BTreeSet<(u32, Prefix)>) -> impl Iterator<Item = Prefix> {
    let is_given = |prefix: &Prefix| match prefix.0.addr() {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    let its = listed.iter().filter(move |(of, _)| *of == link);
    its.map(|(_, prefix)| *prefix).filter(is_given)
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
