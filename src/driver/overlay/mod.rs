//! The overlay driver: tells other nodes where its endpoints are, and programs the tunnels to theirs.
//!
//! It is the distributed part only: VNIs, subnets and gateways come with the network from the leader's allocator.

mod options;
mod sandboxes;
mod show;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::Notify;

use self::{
    options::parse,
    sandboxes::{Placed, Sandboxes},
};
use super::{
    Capability, Driver, DriverError, InterfaceName, Joined, ObjectType, Route, SandboxPlace, Scope,
    TableEvent, TableInterest, contract::check_subnet,
};
use crate::{
    core::{
        model::{
            EndpointId, EndpointRecord, Key, NetworkId, NetworkRecord, PeerRecord, Prefix, Subnet,
            TableEntry, TableName, Value,
        },
        overlay::{self, Local, Plane, Underlay, check_peer},
        wire::codec,
    },
    dataplane::{Dataplane, DataplaneError, Placement, link_name, reconcile, steps},
};

/// The table in which every node says where its endpoints are.
const TABLE: &str = "overlay_peers";
/// How long after a change from outside the kernel is looked at: what is changed in one go is mended in one.
const CALM: Duration = Duration::from_millis(50);
/// How often the kernel is looked at although nothing seems to have changed.
const EVERY: Duration = Duration::from_secs(10);

/// The driver `overlay`.
pub struct Overlay {
    underlay: Underlay,
    dataplane: Arc<dyn Dataplane>,
    networks: Mutex<BTreeMap<NetworkId, Arc<Network>>>,
}

struct Network {
    record: NetworkRecord,
    /// Held across a reconciliation, so that an older desired state is never applied over a newer one.
    state: tokio::sync::Mutex<State>,
    /// Told when an endpoint has vanished with its sandbox.
    has_vanished: Notify,
}

struct State {
    overlay: overlay::Overlay,
    endpoints: BTreeMap<EndpointId, EndpointRecord>,
    /// The sandboxes that we have moved endpoints into.
    sandboxes: Sandboxes,
    /// Peer records that could not be used.
    refused: u64,
    /// Whether the kernel was asked what a former run has left in it.
    has_adopted: bool,
    /// Set by `delete_network`: a call that still holds the network must not program it again.
    gone: bool,
}

impl Overlay {
    /// Starts without networks.
    pub fn new(underlay: Underlay, dataplane: Arc<dyn Dataplane>) -> Self {
        Self {
            underlay,
            dataplane,
            networks: Mutex::default(),
        }
    }

    /// Returns whether packets flow: the kernel carries them.
    pub fn carries(&self) -> bool {
        self.dataplane.has_links()
    }

    /// Keeps the kernel as it should be whoever changes it, for as long as it is polled.
    pub async fn keep(&self) {
        let mut clock = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                network = self.dataplane.changed() => {
                    tokio::time::sleep(CALM).await;
                    self.mend(network).await;
                }
                _ = clock.tick() => {
                    self.dataplane.doubt().await;
                    let networks: Vec<NetworkId> = self.networks().keys().copied().collect();
                    for network in networks {
                        self.mend(network).await;
                    }
                }
            }
        }
    }

    /// Takes all networks out of the kernel: the node has left its cluster.
    pub async fn clear(&self) {
        let networks: Vec<NetworkId> = self.networks().keys().copied().collect();
        for network in networks {
            if let Err(error) = self.delete_network(network).await {
                tracing::warn!(%network, %error, "the data plane of a network is left behind");
            }
        }
    }

    async fn mend(&self, id: NetworkId) {
        let Ok(network) = self.network(id) else {
            return;
        };
        let mut state = network.state.lock().await;
        let mended = async {
            let lost = self.look_for_sandboxes(id, &mut state).await?;
            self.apply(id, &mut state).await?;
            for placed in lost {
                self.dataplane
                    .place(&placed.path, &placed.placement)
                    .await?;
            }
            Ok::<_, DriverError>(())
        };
        let mended = mended.await;
        if state.sandboxes.has_vanished() {
            network.has_vanished.notify_one();
        }
        if let Err(error) = mended {
            tracing::warn!(network = %id, %error, "the data plane is not as it should be; it is tried again");
        }
    }

    fn networks(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Arc<Network>>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn network(&self, id: NetworkId) -> Result<Arc<Network>, DriverError> {
        let found = self.networks().get(&id).cloned();
        found.ok_or(DriverError::NoNetwork(id))
    }

    async fn apply(&self, id: NetworkId, state: &mut State) -> Result<(), DriverError> {
        if !state.has_adopted {
            state.overlay.adopt(self.dataplane.list(id).await?);
            state.has_adopted = true;
        }
        let desired = match state.gone {
            true => Plane::default(),
            false => state.overlay.desired(),
        };
        Ok(reconcile(&*self.dataplane, id, &desired).await?)
    }

    fn add_network(&self, record: &NetworkRecord) -> Result<Vec<TableInterest>, DriverError> {
        let settings = parse(&record.options, self.underlay.settings())?;
        check_subnets(record)?;
        let mut networks = self.networks();
        if let Some(held) = networks.get(&record.id) {
            if held.record != *record {
                return Err(DriverError::NetworkExists(record.id));
            }
            return Ok(vec![interest()]);
        }
        let state = State {
            overlay: overlay::Overlay::new(self.underlay.vtep, settings, record.subnets.clone()),
            endpoints: BTreeMap::new(),
            sandboxes: Sandboxes::default(),
            refused: 0,
            has_adopted: false,
            gone: false,
        };
        let network = Network {
            record: record.clone(),
            state: tokio::sync::Mutex::new(state),
            has_vanished: Notify::new(),
        };
        networks.insert(record.id, Arc::new(network));
        Ok(vec![interest()])
    }

    async fn join_now(&self, endpoint: &EndpointRecord) -> Result<Joined, DriverError> {
        let network = self.network(endpoint.network)?;
        let mut state = network.state.lock().await;
        if !state.endpoints.contains_key(&endpoint.id) {
            return Err(DriverError::NoEndpoint(endpoint.id));
        }
        let addresses = addresses_of(&state.overlay, endpoint)?;
        let had_joined = state.overlay.has_joined(endpoint.id);
        let local = Local {
            addresses: addresses.clone(),
            mac: endpoint.mac,
        };
        state.overlay.handle_join(endpoint.id, local);
        if let Err(refused) = self.apply(endpoint.network, &mut state).await {
            if !had_joined {
                state.overlay.handle_leave(endpoint.id);
            }
            return Err(refused);
        }
        Ok(self.joined(&network.record, endpoint, &addresses))
    }

    fn joined(
        &self,
        network: &NetworkRecord,
        endpoint: &EndpointRecord,
        addresses: &[Prefix],
    ) -> Joined {
        let is_in = |ip: &IpAddr, subnet: &Subnet| subnet.prefix.0.contains(ip);
        let subnet_of = |ip: IpAddr| network.subnets.iter().find(|subnet| is_in(&ip, subnet));
        let ips = addresses.iter().map(|prefix| prefix.0.addr());
        let own: Vec<&Subnet> = ips.filter_map(subnet_of).collect();
        let gateways: Vec<IpAddr> = own.iter().map(|subnet| subnet.gateway).collect();
        let via = |subnet: &Subnet| {
            let same_family = |ip: &&IpAddr| ip.is_ipv4() == subnet.gateway.is_ipv4();
            gateways.iter().find(same_family).copied()
        };
        let others = network
            .subnets
            .iter()
            .filter(|subnet| !own.contains(subnet));
        let routes = others.filter_map(|subnet| {
            Some(Route {
                destination: subnet.prefix,
                via: Some(via(subnet)?),
            })
        });
        let entries = addresses.split_first().map(|(first, others)| PeerRecord {
            address: *first,
            mac: endpoint.mac,
            vtep: self.underlay.vtep,
            others: others.to_vec(),
        });
        let entries = entries.iter().map(|peer| TableEntry {
            table: table(),
            key: endpoint_key(endpoint.id),
            value: Value::new(codec::encode(peer)).expect("a peer record is far below the limit"),
        });
        let interface = InterfaceName {
            source: link_name(endpoint.id),
            prefix: "eth".to_owned(),
        };
        Joined {
            interface: self.dataplane.has_links().then_some(interface),
            routes: routes.collect(),
            entries: entries.collect(),
            gateways,
        }
    }

    async fn settle(&self, id: NetworkId) -> Result<(), DriverError> {
        let Ok(network) = self.network(id) else {
            return Ok(());
        };
        let mut state = network.state.lock().await;
        state.overlay.settle();
        self.apply(id, &mut state).await
    }

    async fn enter_now(
        &self,
        endpoint: &EndpointRecord,
        joined: &Joined,
        sandbox: &SandboxPlace,
    ) -> Result<String, DriverError> {
        let any = |gateway: &IpAddr| match gateway {
            IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
            IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
        };
        let gateways = joined.gateways.iter();
        let default = gateways.map(|gateway| (Prefix(any(gateway)), *gateway));
        let routes = joined.routes.iter();
        let routes = routes.filter_map(|route| Some((route.destination, route.via?)));
        let placement = Placement {
            endpoint: endpoint.id,
            mac: endpoint.mac,
            addresses: endpoint.addresses().collect(),
            name: sandbox.name.clone(),
            routes: routes.chain(default).collect(),
        };
        let network = self.network(endpoint.network)?;
        let mut state = network.state.lock().await;
        let placed = self.dataplane.place(&sandbox.path, &placement).await;
        let name = placed.map_err(|error| match error {
            DataplaneError::Sandbox { .. } | DataplaneError::NoLinks => DriverError::Sandbox(error),
            DataplaneError::LinkGone(_) | DataplaneError::Refused { .. } => error.into(),
        })?;
        let placement = Placement {
            name: Some(name.clone()),
            ..placement
        };
        state.sandboxes.remember(sandbox.path.clone(), placement);
        Ok(name)
    }

    async fn leave_now(&self, id: NetworkId, endpoint: EndpointId) -> Result<(), DriverError> {
        let Ok(network) = self.network(id) else {
            return Ok(());
        };
        let mut state = network.state.lock().await;
        state.overlay.handle_leave(endpoint);
        state.sandboxes.forget(endpoint);
        self.apply(id, &mut state).await
    }

    async fn notify(&self, events: &[TableEvent]) -> Result<(), DriverError> {
        let Some(first) = events.first() else {
            return Ok(());
        };
        let network = self.network(first.network)?;
        let mut state = network.state.lock().await;
        for event in events.iter().filter(|event| event.table.as_str() == TABLE) {
            handle_event(&mut state, event);
        }
        self.apply(first.network, &mut state).await
    }

    /// Looks after the endpoints that are in sandboxes of which we know, and have no link any more: their sandbox is gone, and
    /// they go with it, or somebody has removed the link. Returns what to place again.
    async fn look_for_sandboxes(
        &self,
        id: NetworkId,
        state: &mut State,
    ) -> Result<Vec<Placed>, DriverError> {
        if state.sandboxes.is_empty() {
            return Ok(Vec::new());
        }
        let actual = self.dataplane.list(id).await?;
        let is_there = |path: &Path| self.dataplane.is_sandbox(path);
        let (vanished, lost) = state.sandboxes.look(&actual, is_there);
        for endpoint in vanished {
            tracing::info!(network = %id, %endpoint, "an endpoint's sandbox is gone");
            state.overlay.handle_leave(endpoint);
        }
        Ok(lost)
    }

    async fn next_vanished(&self, id: NetworkId) -> EndpointId {
        let Ok(network) = self.network(id) else {
            return std::future::pending().await;
        };
        loop {
            let next = network.state.lock().await.sandboxes.next_vanished();
            match next {
                Some(endpoint) => return endpoint,
                None => network.has_vanished.notified().await,
            }
        }
    }

    async fn show(&self, id: NetworkId) -> serde_json::Value {
        let Ok(network) = self.network(id) else {
            return serde_json::Value::Null;
        };
        let state = network.state.lock().await;
        let actual = self.dataplane.list(id).await;
        let problem = actual.as_ref().err().map(ToString::to_string);
        let actual = actual.unwrap_or_default();
        let missing = steps(&actual, &state.overlay.desired());
        let missing: Vec<String> = missing.iter().map(|step| format!("{step:?}")).collect();
        json!({
            "vtep": self.underlay.vtep,
            "carries_packets": self.dataplane.has_links(),
            "mtu_of_underlay": self.underlay.mtu,
            "problem": problem,
            "not_yet": missing,
            "peers": show::peers(&state.overlay, &actual),
            "links": actual.links.len(),
            "fdb": show::fdb(&actual),
            "neighbours": show::neighbours(&actual),
            "refused_records": state.refused,
        })
    }
}

fn interest() -> TableInterest {
    TableInterest {
        table: table(),
        object: ObjectType::Endpoint,
    }
}

fn table() -> TableName {
    TableName::new(TABLE).expect("letters and an underscore are a table name")
}

fn check_subnets(record: &NetworkRecord) -> Result<(), DriverError> {
    for subnet in &record.subnets {
        check_subnet(subnet)?;
        if subnet.vni.is_none() {
            return Err(DriverError::Subnet {
                prefix: subnet.prefix,
                expected: "an overlay's subnet needs a VXLAN id from the leader",
            });
        }
    }
    Ok(())
}

/// Returns an endpoint's addresses: one at least, and each in a subnet of the network.
fn addresses_of(
    overlay: &overlay::Overlay,
    endpoint: &EndpointRecord,
) -> Result<Vec<Prefix>, DriverError> {
    let addresses: Vec<Prefix> = endpoint.addresses().collect();
    let in_subnet = |prefix: &Prefix| overlay.subnet_of(prefix.0.addr()).is_some();
    match !addresses.is_empty() && addresses.iter().all(in_subnet) {
        true => Ok(addresses),
        false => Err(DriverError::Address {
            endpoint: endpoint.id,
            network: endpoint.network,
        }),
    }
}

fn endpoint_key(endpoint: EndpointId) -> Key {
    Key::new(endpoint.0.to_be_bytes().to_vec()).expect("16 bytes are a key")
}

fn endpoint_of(key: &Key) -> Option<EndpointId> {
    let bytes = key.as_bytes().try_into().ok()?;
    Some(EndpointId(u128::from_be_bytes(bytes)))
}

/// A record that cannot be used counts as none, and keeps no other from being programmed.
fn handle_event(state: &mut State, event: &TableEvent) {
    let Some(endpoint) = endpoint_of(&event.key) else {
        state.refused += 1;
        tracing::warn!(network = %event.network, owner = %event.owner, "a peer's key is no endpoint id");
        return;
    };
    let peer = event.value.as_ref().and_then(|value| {
        let peer = read_peer(value);
        if let Err(reason) = &peer {
            state.refused += 1;
            tracing::warn!(network = %event.network, owner = %event.owner, %endpoint, %reason, "a peer record is of no use");
        }
        peer.ok()
    });
    state.overlay.handle_peer(endpoint, peer);
}

fn read_peer(value: &Value) -> Result<PeerRecord, String> {
    let peer: PeerRecord =
        codec::decode(value.as_bytes()).map_err(|malformed| malformed.to_string())?;
    check_peer(&peer).map_err(|unusable| unusable.to_string())?;
    Ok(peer)
}

impl Driver for Overlay {
    fn capability(&self) -> Capability {
        Capability {
            data_scope: Scope::Global,
            connectivity_scope: Scope::Global,
        }
    }

    fn check_options(&self, options: &BTreeMap<String, String>) -> Result<(), DriverError> {
        parse(options, self.underlay.settings()).map(drop)
    }

    fn create_network<'a>(
        &'a self,
        network: &'a NetworkRecord,
    ) -> BoxFuture<'a, Result<Vec<TableInterest>, DriverError>> {
        Box::pin(std::future::ready(self.add_network(network)))
    }

    fn delete_network(&self, network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(async move {
            let Ok(held) = self.network(network) else {
                // A former run may have known it.
                return Ok(reconcile(&*self.dataplane, network, &Plane::default()).await?);
            };
            let mut state = held.state.lock().await;
            state.gone = true;
            // Kept until the kernel is clean, so that a failed call can be made again.
            self.apply(network, &mut state).await?;
            self.networks().remove(&network);
            Ok(())
        })
    }

    fn create_endpoint<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move {
            let network = self.network(endpoint.network)?;
            let mut state = network.state.lock().await;
            addresses_of(&state.overlay, endpoint)?;
            match state.endpoints.get(&endpoint.id) {
                Some(held) if !held.is_same(endpoint) => {
                    Err(DriverError::EndpointExists(endpoint.id))
                }
                Some(_) => Ok(()),
                None => {
                    state.endpoints.insert(endpoint.id, endpoint.clone());
                    Ok(())
                }
            }
        })
    }

    fn delete_endpoint(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(async move {
            self.leave_now(network, endpoint).await?;
            if let Ok(held) = self.network(network) {
                held.state.lock().await.endpoints.remove(&endpoint);
            }
            Ok(())
        })
    }

    fn join<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Joined, DriverError>> {
        Box::pin(self.join_now(endpoint))
    }

    fn leave(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(self.leave_now(network, endpoint))
    }

    fn enter<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
        joined: &'a Joined,
        sandbox: &'a SandboxPlace,
    ) -> BoxFuture<'a, Result<String, DriverError>> {
        Box::pin(self.enter_now(endpoint, joined, sandbox))
    }

    fn vanished(&self, network: NetworkId) -> BoxFuture<'_, EndpointId> {
        Box::pin(self.next_vanished(network))
    }

    fn settled(&self, network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(self.settle(network))
    }

    fn event_notify<'a>(
        &'a self,
        events: &'a [TableEvent],
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.notify(events))
    }

    fn decode_table_entry(
        &self,
        table: &TableName,
        key: &Key,
        value: &Value,
    ) -> Option<(EndpointId, BTreeMap<String, String>)> {
        if table.as_str() != TABLE {
            return None;
        }
        let peer: PeerRecord = codec::decode(value.as_bytes()).ok()?;
        let addresses = std::iter::once(&peer.address).chain(&peer.others);
        let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
        let meaning = BTreeMap::from([
            ("Host IP".to_owned(), peer.vtep.0.to_string()),
            ("Address".to_owned(), addresses.join(", ")),
            ("MAC".to_owned(), peer.mac.to_string()),
        ]);
        Some((endpoint_of(key)?, meaning))
    }

    fn inspect(&self, network: NetworkId) -> BoxFuture<'_, serde_json::Value> {
        Box::pin(self.show(network))
    }
}

#[cfg(test)]
mod tests;
