//! The underlay: which interface of this host has the address that tunnels end at.

use super::{address, link, netlink::Netlink};
use crate::{
    core::{model::Vtep, overlay::Underlay},
    dataplane::DataplaneError,
};

/// Looks the interface up that has the address. Behind a translator of addresses none has.
pub(super) async fn find(host: &Netlink, vtep: Vtep) -> Result<Underlay, DataplaneError> {
    let addresses = address::list(host).await?;
    let has_it = addresses
        .iter()
        .find(|(_, prefix)| prefix.0.addr() == vtep.0);
    let Some((index, _)) = has_it else {
        return Ok(Underlay::assumed(vtep));
    };
    let links = link::list(host).await?;
    let found = links.iter().find(|link| link.index == *index);
    Ok(Underlay {
        vtep,
        is_own: true,
        mtu: found.map_or(Underlay::MTU, |link| link.mtu),
    })
}
