//! The underlay: which interface of this host has the address that tunnels end at, and that it has changed.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::{sync::Notify, task::JoinSet};

use super::{
    address, link,
    netlink::{self, Netlink},
};
use crate::{
    core::{model::Vtep, overlay::Underlay},
    dataplane::DataplaneError,
};

/// Who hears of changes of the interface that was found last.
pub(super) struct Watch {
    interface: Arc<AtomicU32>,
    has_changed: Arc<Notify>,
    _listener: JoinSet<()>,
}

impl Watch {
    /// Listens in the namespace of the calling thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (interface, has_changed) = (Arc::<AtomicU32>::default(), Arc::<Notify>::default());
        let (of, told) = (interface.clone(), has_changed.clone());
        let listener = netlink::listen(move |message| {
            if concerns(message, of.load(Ordering::Relaxed)) {
                told.notify_one();
            }
        })?;
        Ok(Self {
            interface,
            has_changed,
            _listener: listener,
        })
    }

    /// Looks the interface up that has the address. Behind a translator of addresses none has.
    pub(super) async fn find(
        &self,
        host: &Netlink,
        vtep: Vtep,
    ) -> Result<Option<Underlay>, DataplaneError> {
        let addresses = address::list(host).await?;
        let has_it = addresses
            .iter()
            .find(|(_, prefix)| prefix.0.addr() == vtep.0);
        let Some((index, _)) = has_it else {
            return Ok(None);
        };
        self.interface.store(*index, Ordering::Relaxed);
        let links = link::list(host).await?;
        let found = links.iter().find(|link| link.index == *index);
        Ok(Some(Underlay {
            vtep,
            is_own: true,
            mtu: found.map_or(Underlay::MTU, |link| link.mtu),
        }))
    }

    /// Waits until it may have changed.
    pub(super) async fn changed(&self) {
        self.has_changed.notified().await;
    }
}

/// An address may come to any interface, so each that comes is looked at.
fn concerns(message: &RouteNetlinkMessage, interface: u32) -> bool {
    if let RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) = message {
        return link.header.index == interface;
    }
    if let RouteNetlinkMessage::DelAddress(address) = message {
        return address.header.index == interface;
    }
    matches!(message, RouteNetlinkMessage::NewAddress(_))
}
