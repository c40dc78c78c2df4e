//! The data plane in the Linux kernel: a network namespace for each network, with bridges, tunnels and the inner ends of its
//! endpoints' pairs.
//!
//! **Invariants:** what a network has is in its own namespace, so no packet of one network is in another. Nothing is kept
//! here that the kernel could not be asked for: a namespace is found by its mount, a link by its name and alias, a guard by
//! the name of its set.

mod address;
mod fdb;
mod guard;
mod link;
mod name;
mod namespace;
mod neighbour;
mod netlink;
mod others;
mod probe;
mod remembered;
mod sandbox;
mod underlay;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use tokio::{sync::Notify, task::JoinSet};

pub use probe::Missing;

use self::{guard::Guards, link::Ends, name::Names, netlink::Netlink, remembered::Remembered};
use super::{Dataplane, DataplaneError, Placed, Placement, SandboxId, Step};
use crate::core::{
    model::{EndpointId, NetworkId, Vni, Vtep},
    overlay::{Link, LinkId, Plane, Underlay},
};

/// How many requests about entries are under way at once. More gain nothing: the kernel takes one at a time.
const PIPELINED: usize = 256;

/// The kernel as a data plane.
pub struct Kernel {
    /// Where the namespaces are mounted.
    directory: PathBuf,
    host: Netlink,
    underlay: underlay::Watch,
    remembered: Remembered,
    guards: Guards,
    names: Names,
    spaces: Mutex<BTreeMap<NetworkId, Arc<Space>>>,
    touched: Arc<Touched>,
}

/// A network's namespace.
struct Space {
    namespace: File,
    netlink: Netlink,
    _listener: JoinSet<()>,
}

/// The networks whose namespace saw a change.
#[derive(Default)]
struct Touched {
    networks: Mutex<BTreeSet<NetworkId>>,
    some: Notify,
}

impl Kernel {
    /// Opens it, with the namespaces mounted in `directory`. Where it cannot work, it says all that is missing.
    pub async fn open(directory: PathBuf) -> Result<Self, Vec<Missing>> {
        let missing = probe::look(&directory).await;
        if !missing.is_empty() {
            return Err(missing);
        }
        let no_netlink = |error: std::io::Error| {
            let reason = error.to_string();
            vec![Missing {
                what: "netlink",
                reason,
            }]
        };
        let host = Netlink::open().map_err(no_netlink)?;
        let underlay = underlay::Watch::start().map_err(no_netlink)?;
        let (guards, works) = Guards::open().await;
        if let Err(error) = works {
            tracing::warn!(
                %error,
                "tunnelled packets are taken from any address, not from members only: that needs nftables and its program nft"
            );
        }
        Ok(Self {
            remembered: Remembered::beside(&directory),
            directory,
            host,
            underlay,
            guards,
            names: Names::default(),
            spaces: Mutex::default(),
            touched: Arc::default(),
        })
    }

    /// Returns the networks of which a run with the same directory has left something.
    pub fn left(directory: &Path) -> Vec<NetworkId> {
        namespace::list(directory).unwrap_or_default()
    }

    async fn keep_only_now(&self, networks: &BTreeSet<NetworkId>) -> Result<(), DataplaneError> {
        let found = namespace::list(&self.directory).map_err(refused("list network namespaces"))?;
        for network in found {
            if !networks.contains(&network) {
                tracing::info!(%network, "what a former run has left of a network is removed");
                self.clear(network).await?;
            } else if let Some(space) = self.find(network).await? {
                // Before any link is made, so that none gets the name of one that stays.
                self.note_names(network, &link::list(&space.netlink).await?);
            }
        }
        self.remembered.keep_only(networks);
        self.guards.keep_only(networks).await
    }

    /// Removes all that is there of a network.
    async fn clear(&self, network: NetworkId) -> Result<(), DataplaneError> {
        // A link is found by what is in its name, not by whose it is.
        self.names.note(network, []);
        if let Some(space) = self.find(network).await? {
            let ends = self.ends(network, &space);
            let links = link::list(&space.netlink).await?;
            for id in links.iter().filter_map(|link| name::id_of(&link.name)) {
                ends.remove(id).await?;
            }
        }
        self.remove(network)
    }

    fn remove(&self, network: NetworkId) -> Result<(), DataplaneError> {
        self.spaces().remove(&network);
        let place = namespace::place(&self.directory, network);
        namespace::remove(&place).map_err(refused("remove a network's namespace"))
    }

    fn note_names(&self, network: NetworkId, found: &[link::Found]) {
        let ours = found.iter().filter_map(|link| {
            let (id, _) = name::read(&link.name, link.alias.as_deref(), link.mtu)?;
            match id {
                LinkId::Endpoint(endpoint) => Some((endpoint, link.name.clone())),
                LinkId::Bridge(_) | LinkId::Vxlan(_) => None,
            }
        });
        self.names.note(network, ours);
    }

    async fn list_now(&self, network: NetworkId) -> Result<Plane, DataplaneError> {
        let mut plane = Plane {
            guards: self.guards.list(network).await?,
            ..Plane::default()
        };
        if let Some(space) = self.find(network).await? {
            let found = link::list(&space.netlink).await?;
            self.note_names(network, &found);
            let tunnels = read_links(&space.netlink, &found, &mut plane).await?;
            if !tunnels.is_empty() {
                plane.fdb = fdb::list(&space.netlink, &tunnels).await?;
                plane.neighbours = neighbour::list(&space.netlink, &tunnels).await?;
            }
        }
        Ok(plane)
    }

    async fn apply_now(&self, network: NetworkId, steps: Vec<Step>) -> Result<(), DataplaneError> {
        let adds = |step: &Step| matches!(step, Step::AddLink(..));
        let space = match self.find(network).await? {
            Some(space) => Some(space),
            None if steps.iter().any(adds) => Some(self.make(network).await?),
            None => None,
        };
        let mut rest = steps.as_slice();
        while let Some((first, after)) = rest.split_first() {
            let entries = rest.iter().take_while(|step| tunnel_of(step).is_some());
            match (entries.count(), &space) {
                (0, _) => {
                    self.take(network, space.as_deref(), first).await?;
                    rest = after;
                }
                (count, space) => {
                    let (entries, others) = rest.split_at(count);
                    let space = space.as_ref().ok_or(DataplaneError::LinkGone(network))?;
                    take_entries(network, &space.netlink, entries).await?;
                    rest = others;
                }
            }
        }
        if let Some(space) = &space {
            self.follow_mtu((network, space), &steps).await?;
        }
        let removes = |step: &Step| matches!(step, Step::RemoveLink(_));
        if let Some(space) = space.filter(|_| steps.iter().any(removes))
            && has_no_link(&space.netlink).await?
        {
            self.remove(network)?;
        }
        Ok(())
    }

    /// Has the far ends of pairs that were mended go with their MTU, which they have at least when they are made.
    async fn follow_mtu(
        &self,
        (network, space): (NetworkId, &Space),
        steps: &[Step],
    ) -> Result<(), DataplaneError> {
        let mut ends = Vec::new();
        for step in steps {
            if let Step::MendLink(id, Link::Endpoint { mac, mtu, .. }) = step
                && let Some(found) =
                    link::find(&space.netlink, &self.names.of(network, *id)).await?
            {
                ends.push((*mac, found.index, *mtu));
            }
        }
        if !ends.is_empty() {
            others::follow_mtu(&self.host, &ends).await;
        }
        Ok(())
    }

    async fn take(
        &self,
        network: NetworkId,
        space: Option<&Space>,
        step: &Step,
    ) -> Result<(), DataplaneError> {
        let gone = DataplaneError::LinkGone(network);
        let ends = space.map(|space| self.ends(network, space));
        match (step, ends) {
            (Step::SetGuard { vni, guard }, _) => {
                let guard = Some(guard.clone());
                self.guards.set(network, *vni, guard).await
            }
            (Step::RemoveGuard(vni), _) => self.guards.set(network, *vni, None).await,
            (Step::AddLink(id, link), Some(ends)) => ends.add(*id, link).await,
            (Step::MendLink(id, link), Some(ends)) => ends.finish(*id, link).await,
            (Step::RemoveLink(id), Some(ends)) => ends.remove(*id).await,
            (Step::RemoveLink(_), None) => Ok(()),
            (
                Step::AddLink(..)
                | Step::MendLink(..)
                | Step::SetFdb { .. }
                | Step::RemoveFdb { .. }
                | Step::SetNeighbour { .. }
                | Step::RemoveNeighbour { .. },
                _,
            ) => Err(gone),
        }
    }

    fn ends<'a>(&'a self, network: NetworkId, space: &'a Space) -> Ends<'a> {
        Ends {
            network,
            host: &self.host,
            inner: &space.netlink,
            namespace: &space.namespace,
            names: &self.names,
        }
    }

    /// Opens a network's namespace, if there is one.
    async fn find(&self, network: NetworkId) -> Result<Option<Arc<Space>>, DataplaneError> {
        let place = namespace::place(&self.directory, network);
        let failed = "open a network's namespace";
        let open = self.spaces().get(&network).cloned();
        if let Some(space) = open {
            namespace::keep(&place, &space.namespace).map_err(refused(failed))?;
            return Ok(Some(space));
        }
        let Some(found) = namespace::open(&place).map_err(refused(failed))? else {
            return Ok(None);
        };
        Ok(Some(self.enter(network, found).await?))
    }

    async fn make(&self, network: NetworkId) -> Result<Arc<Space>, DataplaneError> {
        let place = namespace::place(&self.directory, network);
        let made = namespace::make(&place).await;
        let made = made.map_err(refused("make a network's namespace"))?;
        self.enter(network, made).await
    }

    async fn enter(
        &self,
        network: NetworkId,
        namespace: File,
    ) -> Result<Arc<Space>, DataplaneError> {
        let failed = "enter a network's namespace";
        let again = namespace.try_clone().map_err(refused(failed))?;
        let touched = self.touched.clone();
        let opened = namespace::inside(again, move || {
            let listener = netlink::listen(move |message| {
                if netlink::takes_away(message) {
                    touched.add(network);
                }
            })?;
            Ok((Netlink::open()?, listener))
        });
        let (netlink, listener) = opened.await.map_err(refused(failed))?;
        let space = Arc::new(Space {
            namespace,
            netlink,
            _listener: listener,
        });
        self.spaces().insert(network, space.clone());
        Ok(space)
    }

    fn spaces(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Arc<Space>>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Touched {
    fn add(&self, network: NetworkId) {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if networks.insert(network) {
            self.some.notify_one();
        }
    }

    async fn next(&self) -> NetworkId {
        loop {
            match self.take() {
                Some(network) => return network,
                None => self.some.notified().await,
            }
        }
    }

    fn take(&self) -> Option<NetworkId> {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        networks.pop_first()
    }
}

impl Dataplane for Kernel {
    fn list(&self, network: NetworkId) -> BoxFuture<'_, Result<Plane, DataplaneError>> {
        Box::pin(self.list_now(network))
    }

    fn apply(
        &self,
        network: NetworkId,
        steps: Vec<Step>,
    ) -> BoxFuture<'_, Result<(), DataplaneError>> {
        Box::pin(self.apply_now(network, steps))
    }

    fn keep_only<'a>(
        &'a self,
        networks: &'a BTreeSet<NetworkId>,
    ) -> BoxFuture<'a, Result<(), DataplaneError>> {
        Box::pin(self.keep_only_now(networks))
    }

    fn has_links(&self) -> bool {
        true
    }

    fn link_name(&self, network: NetworkId, endpoint: EndpointId) -> String {
        self.names.of_endpoint(network, endpoint)
    }

    fn changed(&self) -> BoxFuture<'_, NetworkId> {
        Box::pin(self.touched.next())
    }

    fn doubt(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.guards.forget())
    }

    fn underlay(&self, vtep: Vtep) -> BoxFuture<'_, Result<Option<Underlay>, DataplaneError>> {
        Box::pin(self.underlay.find(&self.host, vtep))
    }

    fn underlay_changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.underlay.changed())
    }

    fn sandbox(&self, path: &Path) -> Result<Option<SandboxId>, DataplaneError> {
        let found = namespace::open(path).map_err(refused("look at a sandbox"))?;
        let number = found.map(|found| namespace::number(&found)).transpose();
        Ok(number.map_err(refused("look at a sandbox"))?.map(SandboxId))
    }

    fn remembered(&self, network: NetworkId) -> Vec<Placed> {
        self.remembered.list(network)
    }

    fn remember(&self, network: NetworkId, placed: &Placed) -> Result<(), DataplaneError> {
        let added = self.remembered.add(network, placed);
        added.map_err(refused("remember a sandbox"))
    }

    fn forget(&self, network: NetworkId, endpoint: EndpointId) {
        self.remembered.remove(network, endpoint);
    }

    fn place<'a>(
        &'a self,
        link: &'a str,
        sandbox: &'a Path,
        placement: &'a Placement,
    ) -> BoxFuture<'a, Result<String, DataplaneError>> {
        Box::pin(sandbox::place((&self.host, link), sandbox, placement))
    }

    fn withdraw<'a>(&'a self, placed: &'a Placed) -> BoxFuture<'a, Result<(), DataplaneError>> {
        Box::pin(sandbox::withdraw(placed))
    }
}

/// Reads the links found in a namespace into a plane, and returns its tunnels by index.
async fn read_links(
    netlink: &Netlink,
    found: &[link::Found],
    plane: &mut Plane,
) -> Result<BTreeMap<u32, Vni>, DataplaneError> {
    let addresses = address::list(netlink).await?;
    let bridges: BTreeMap<&str, u32> = found
        .iter()
        .map(|link| (link.name.as_str(), link.index))
        .collect();
    let mut tunnels = BTreeMap::new();
    for link in found {
        let alias = link.alias.as_deref();
        let Some((id, read)) = name::read(&link.name, alias, link.mtu) else {
            continue;
        };
        // One that was not finished is like no other, so it is made anew.
        let mut made = read.unwrap_or(UNFINISHED);
        let bridge = made.port_of().map(name::bridge);
        let is_port = bridge.is_none_or(|bridge| bridges.get(&*bridge) == Some(&link.bridge));
        let is_apart = match &mut made {
            Link::Bridge { gateways, .. } => {
                *gateways = address::of(link.index, &addresses).collect();
                true
            }
            Link::Vxlan { .. } => link.is_isolated,
            Link::Endpoint { .. } => true,
        };
        if !(link.is_up && is_port && is_apart) {
            plane.amiss.insert(id);
        }
        if let LinkId::Vxlan(vni) = id {
            tunnels.insert(link.index, vni);
        }
        plane.links.insert(id, made);
    }
    Ok(tunnels)
}

/// No link that is desired: no VXLAN link has port 0.
const UNFINISHED: Link = Link::Vxlan {
    bridge: Vni::MAX,
    port: 0,
    source: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    mtu: 0,
};

async fn has_no_link(netlink: &Netlink) -> Result<bool, DataplaneError> {
    let left = link::list(netlink).await?;
    Ok(!left.iter().any(|link| name::id_of(&link.name).is_some()))
}

/// The tunnel that a step is about, if it is about an entry: such steps may be taken in any order.
fn tunnel_of(step: &Step) -> Option<Vni> {
    match *step {
        Step::SetFdb { vni, .. }
        | Step::RemoveFdb { vni, .. }
        | Step::SetNeighbour { vni, .. }
        | Step::RemoveNeighbour { vni, .. } => Some(vni),
        Step::SetGuard { .. }
        | Step::RemoveGuard(_)
        | Step::AddLink(..)
        | Step::MendLink(..)
        | Step::RemoveLink(_) => None,
    }
}

/// Takes steps about entries, many at a time.
async fn take_entries(
    network: NetworkId,
    netlink: &Netlink,
    steps: &[Step],
) -> Result<(), DataplaneError> {
    let mut tunnels = BTreeMap::new();
    for vni in steps.iter().filter_map(tunnel_of) {
        if let std::collections::btree_map::Entry::Vacant(vacant) = tunnels.entry(vni) {
            let found = link::find(netlink, &name::tunnel(vni)).await?;
            let found = found.ok_or(DataplaneError::LinkGone(network))?;
            vacant.insert(found.index);
        }
    }
    let index = |step: &Step| tunnel_of(step).and_then(|vni| tunnels.get(&vni).copied());
    let requests: Vec<_> = steps
        .iter()
        .filter_map(|step| Some((index(step)?, step.clone())))
        .map(|(tunnel, step)| take_entry(network, netlink, tunnel, step))
        .collect();
    let mut taken = stream::iter(requests).buffer_unordered(PIPELINED);
    while taken.try_next().await?.is_some() {}
    Ok(())
}

async fn take_entry(
    network: NetworkId,
    netlink: &Netlink,
    tunnel: u32,
    step: Step,
) -> Result<(), DataplaneError> {
    let taken = match step {
        Step::SetFdb { mac, vtep, .. } => fdb::set(netlink, tunnel, (mac, vtep)).await,
        Step::RemoveFdb { mac, .. } => fdb::remove(netlink, tunnel, mac).await,
        Step::SetNeighbour { address, mac, .. } => {
            neighbour::set(netlink, tunnel, (address, mac)).await
        }
        Step::RemoveNeighbour { address, .. } => neighbour::remove(netlink, tunnel, address).await,
        Step::SetGuard { .. }
        | Step::RemoveGuard(_)
        | Step::AddLink(..)
        | Step::MendLink(..)
        | Step::RemoveLink(_) => Ok(()),
    };
    taken.map_err(netlink::refused_in(
        network,
        format!("take a step ({step:?})"),
    ))
}

fn refused(what: &'static str) -> impl FnOnce(std::io::Error) -> DataplaneError {
    move |error| DataplaneError::Refused {
        what: what.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
