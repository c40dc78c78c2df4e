//! The overlay driver: tells other nodes where its endpoints are, and programs the tunnels to theirs.
//!
//! It is the distributed part only: VNIs, subnets and gateways come with the network from the leader's allocator.

mod network;
mod options;
mod records;
mod sandboxes;
mod show;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::json;

use self::{
    network::Network,
    options::parse,
    records::{
        TABLE, addresses_of, check_subnets, endpoint_key, endpoint_of, handle_event, interest,
        table,
    },
};
use super::{
    Capability, DataplaneView, Driver, DriverError, InterfaceName, Joined, Route, SandboxPlace,
    Scope, TableEvent, TableInterest, Why, sandbox,
};
use crate::{
    core::{
        model::{
            EndpointId, EndpointRecord, Key, NetworkId, NetworkRecord, PeerRecord, Prefix, Subnet,
            TableEntry, TableName, Value,
        },
        overlay::{self, Local, Plane, Underlay},
        wire::codec,
    },
    dataplane::{Dataplane, reconcile, steps},
};

/// How long after a change from outside the kernel is looked at: what is changed in one go is mended in one.
const CALM: Duration = Duration::from_millis(50);
/// How often the kernel is looked at although nothing seems to have changed.
const EVERY: Duration = Duration::from_secs(10);

/// The driver `overlay`.
pub struct Overlay {
    /// What carries the tunnels; its end does not change.
    underlay: Mutex<Underlay>,
    dataplane: Arc<dyn Dataplane>,
    networks: Mutex<BTreeMap<NetworkId, Arc<Network>>>,
}

impl Overlay {
    /// Starts without networks.
    pub fn new(underlay: Underlay, dataplane: Arc<dyn Dataplane>) -> Self {
        Self {
            underlay: Mutex::new(underlay),
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
                    self.mend(network, Why::Changed).await;
                }
                () = self.dataplane.underlay_changed() => {
                    tokio::time::sleep(CALM).await;
                    self.follow_underlay().await;
                }
                _ = clock.tick() => {
                    self.dataplane.doubt().await;
                    self.follow_underlay().await;
                    self.mend_all(Why::Clock).await;
                }
            }
        }
    }

    async fn mend_all(&self, why: Why) {
        let networks: Vec<NetworkId> = self.networks().keys().copied().collect();
        for network in networks {
            self.mend(network, why).await;
        }
    }

    async fn mend(&self, id: NetworkId, why: Why) {
        if let Ok(network) = self.network(id) {
            network.mend(why).await;
        }
    }

    /// Looks whether what carries the tunnels is as it was. Networks that are there are made over to what it is now.
    async fn follow_underlay(&self) {
        let before = self.underlay();
        let now = match self.dataplane.underlay(before.vtep).await {
            // An address that is on no interface for a moment makes no tunnel anew.
            Ok(now) => now.unwrap_or(before),
            Err(error) => {
                tracing::warn!(%error, "what carries the tunnels was not looked at; it is tried again");
                return;
            }
        };
        if now == before {
            return;
        }
        tracing::info!(address = %now.vtep.0, mtu = now.mtu, mtu_before = before.mtu, "what carries the tunnels has changed");
        *self.lock_underlay() = now;
        let networks: Vec<Arc<Network>> = self.networks().values().cloned().collect();
        for network in networks {
            // The options were good when the network was made.
            if let Ok(settings) = parse(&network.record.options, now.settings()) {
                network.state.lock().await.overlay.set(settings);
            }
            network.mend(Why::Underlay).await;
        }
    }

    /// Returns what carries its packets, for others that have links to move.
    pub fn carrier(&self) -> Arc<dyn Dataplane> {
        self.dataplane.clone()
    }

    fn underlay(&self) -> Underlay {
        *self.lock_underlay()
    }

    fn lock_underlay(&self) -> MutexGuard<'_, Underlay> {
        // A change is one assignment: nobody who panicked left it half done.
        self.underlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all networks out of the kernel, those too that this run has not come to: the node is no member any more.
    pub async fn clear(&self) {
        let networks: Vec<NetworkId> = self.networks().keys().copied().collect();
        for network in networks {
            if let Err(error) = self.delete_network(network).await {
                tracing::warn!(%network, %error, "the data plane of a network is left behind");
            }
        }
        if let Err(error) = self.dataplane.keep_only(&BTreeSet::new()).await {
            tracing::warn!(%error, "the data plane of a network is left behind");
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

    fn add_network(&self, record: &NetworkRecord) -> Result<Vec<TableInterest>, DriverError> {
        let settings = parse(&record.options, self.underlay().settings())?;
        check_subnets(record)?;
        let mut networks = self.networks();
        if let Some(held) = networks.get(&record.id) {
            if held.record != *record {
                return Err(DriverError::NetworkExists(record.id));
            }
            return Ok(vec![interest()]);
        }
        let vtep = self.underlay().vtep;
        let overlay = overlay::Overlay::new(vtep, settings, record.subnets.clone());
        let network = Network::new(record, overlay, self.dataplane.clone());
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
        let applied = state.apply(Why::Join).await;
        network.tell_of_vanished(&state);
        if let Err(refused) = applied {
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
            vtep: self.underlay().vtep,
            others: others.to_vec(),
        });
        let entries = entries.iter().map(|peer| TableEntry {
            table: table(),
            key: endpoint_key(endpoint.id),
            value: Value::new(codec::encode(peer)).expect("a peer record is far below the limit"),
        });
        let interface = InterfaceName {
            source: self.dataplane.link_name(endpoint.network, endpoint.id),
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
        state.apply(Why::Settled).await
    }

    async fn enter_now(
        &self,
        endpoint: &EndpointRecord,
        joined: &Joined,
        place: &SandboxPlace,
    ) -> Result<String, DriverError> {
        let network = self.network(endpoint.network)?;
        let mut state = network.state.lock().await;
        let link = self.dataplane.link_name(endpoint.network, endpoint.id);
        let placed = sandbox::enter(&*self.dataplane, (endpoint, joined), (&link, place));
        let (name, placed) = placed.await?;
        if let Some(placed) = placed {
            state.remember(placed);
        }
        Ok(name)
    }

    async fn leave_now(&self, id: NetworkId, endpoint: EndpointId) -> Result<(), DriverError> {
        let Ok(network) = self.network(id) else {
            return Ok(());
        };
        let mut state = network.state.lock().await;
        state.leave(endpoint).await
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
        state.apply(Why::Event).await
    }

    async fn next_vanished(&self, id: NetworkId) -> EndpointId {
        match self.network(id) {
            Ok(network) => network.next_vanished().await,
            Err(_none) => std::future::pending().await,
        }
    }

    async fn view(&self, id: NetworkId) -> Option<DataplaneView> {
        let network = self.network(id).ok()?;
        let state = network.state.lock().await;
        Some(state.view().await)
    }

    async fn show(&self, id: NetworkId) -> serde_json::Value {
        let Ok(network) = self.network(id) else {
            return serde_json::Value::Null;
        };
        let state = network.state.lock().await;
        let (underlay, view) = (self.underlay(), state.view().await);
        let actual = self.dataplane.list(id).await.unwrap_or_default();
        let missing = steps(&actual, &state.overlay.desired());
        let missing: Vec<String> = missing.iter().map(|step| format!("{step:?}")).collect();
        json!({
            "vtep": underlay.vtep,
            "mtu_of_underlay": underlay.mtu,
            "dataplane": show::in_short(&view),
            "not_yet": missing,
            "peers": show::peers(&state.overlay, &actual),
            "refused_records": state.refused,
        })
    }
}

impl Driver for Overlay {
    fn capability(&self) -> Capability {
        Capability {
            data_scope: Scope::Global,
            connectivity_scope: Scope::Global,
        }
    }

    fn check_options(&self, options: &BTreeMap<String, String>) -> Result<(), DriverError> {
        parse(options, self.underlay().settings()).map(drop)
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
                reconcile(&*self.dataplane, network, &Plane::default()).await?;
                return Ok(());
            };
            let mut state = held.state.lock().await;
            state.gone = true;
            // Kept until the kernel is clean, so that a failed call can be made again.
            state.apply(Why::Removal).await?;
            state.forget_sandboxes();
            self.networks().remove(&network);
            Ok(())
        })
    }

    fn create_endpoint<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Vec<Prefix>, DriverError>> {
        Box::pin(async move {
            let network = self.network(endpoint.network)?;
            let mut state = network.state.lock().await;
            addresses_of(&state.overlay, endpoint)?;
            match state.endpoints.get(&endpoint.id) {
                Some(held) if !held.is_same(endpoint) => {
                    Err(DriverError::EndpointExists(endpoint.id))
                }
                Some(_) => Ok(Vec::new()),
                None => {
                    state.endpoints.insert(endpoint.id, endpoint.clone());
                    Ok(Vec::new())
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

    fn dataplane(&self, network: NetworkId) -> BoxFuture<'_, Option<DataplaneView>> {
        Box::pin(self.view(network))
    }

    fn describe(&self) -> serde_json::Value {
        let underlay = self.underlay();
        json!({
            "carries_packets": self.dataplane.has_links(),
            "vtep": underlay.vtep,
            "mtu_of_underlay": underlay.mtu,
        })
    }

    fn inspect(&self, network: NetworkId) -> BoxFuture<'_, serde_json::Value> {
        Box::pin(self.show(network))
    }
}

#[cfg(test)]
mod tests;
