//! A container engine's part: it asks for an address first and names the endpoint itself, gives both back one by one, and
//! tells neither again after a restart.
//!
//! **Invariant:** an address that the engine was told is on disk as held until it is given back, so it is handed to nobody
//! else; all here but a new block of addresses and a static one is answered from this node alone.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::sync::watch;

use super::{
    Controller, ControllerError, EndpointView, EngineView, Held, HeldEndpoint, Setup,
    address::{wishes, with_length},
    asked::Which,
    entropy,
    ipam::Ipam,
    publish::{endpoint_key, names_table},
};
use crate::{
    core::{
        model::{
            EndpointId, EndpointRecord, Family, Mac, Name, NamesRecord, NetworkId, NetworkRecord,
            Prefix, TableEntry, Value,
        },
        wire::codec,
    },
    store::StoredEndpoint,
};

/// How long a container's end may wait for other nodes to hear of it, so that they send nothing to an address that is gone.
const HEARD_WITHIN: Duration = Duration::from_millis(100);

impl Controller {
    /// Follows how far each network has come on this node.
    pub fn setups(&self) -> watch::Receiver<BTreeMap<NetworkId, Setup>> {
        self.desk.setups.subscribe()
    }

    /// Follows through which revision of this node's history each network's driver has taken what other nodes have; those are
    /// not in it whose drivers ask for nothing.
    pub fn fed(&self) -> watch::Receiver<BTreeMap<NetworkId, u64>> {
        self.desk.fed.subscribe()
    }

    /// Returns which network each of the engine's networks stands for.
    pub async fn engine_networks(&self) -> Result<BTreeMap<String, NetworkId>, ControllerError> {
        self.disk(|store| store.engine_networks()).await
    }

    /// Remembers which network a network of the engine stands for.
    pub async fn engine_network_put(
        &self,
        id: &str,
        network: NetworkId,
    ) -> Result<(), ControllerError> {
        let id = id.to_owned();
        self.disk(move |store| store.put_engine_network(&id, network))
            .await
    }

    /// Forgets a network of the engine.
    pub async fn engine_network_remove(&self, id: &str) -> Result<(), ControllerError> {
        let id = id.to_owned();
        self.disk(move |store| store.remove_engine_network(&id))
            .await
    }

    /// Notes why a network is not in the engine, or that nothing keeps it from being there.
    pub fn engine_problem(&self, network: NetworkId, problem: Option<String>) {
        self.desk.engine_problems.send_modify(|problems| {
            match problem {
                Some(problem) => problems.insert(network, problem),
                None => problems.remove(&network),
            };
        });
    }

    /// Shows the engine as it is.
    pub fn engine_is(&self, engine: EngineView) {
        self.desk.engine.send_replace(Some(engine));
    }

    /// Takes an address of a family for an endpoint that is made later, this one if one is wanted, and holds it.
    pub async fn address_hold(
        &self,
        network: NetworkId,
        wanted: (Family, Option<IpAddr>),
    ) -> Result<Prefix, ControllerError> {
        let network = self.ready_by_id(network).await?;
        let this = self.clone();
        self.finish(async move { this.hold(&network, wanted).await })
            .await
    }

    /// Gives a held address back. One that is not held is left alone; one that an endpoint has is refused.
    pub async fn address_free(
        &self,
        network: NetworkId,
        address: IpAddr,
    ) -> Result<(), ControllerError> {
        let this = self.clone();
        self.finish(async move { this.free(network, address).await })
            .await
    }

    /// Returns every held address, and the endpoint that has it.
    pub async fn held(&self) -> Result<Vec<Held>, ControllerError> {
        let (held, endpoints) = self
            .disk(|store| Ok((store.held_addresses()?, store.endpoints()?)))
            .await?;
        let held = held.into_iter().map(|(network, address)| {
            let has_it = |stored: &&StoredEndpoint| has(&stored.record, network, address);
            let endpoint = endpoints.iter().find(has_it).map(|found| found.record.id);
            Held {
                network,
                address,
                endpoint,
            }
        });
        Ok(held.collect())
    }

    /// Makes an endpoint with held addresses. The same one again is answered as before.
    pub async fn held_endpoint_create(
        &self,
        network: NetworkId,
        wish: HeldEndpoint,
    ) -> Result<EndpointView, ControllerError> {
        let network = self.ready_by_id(network).await?;
        let this = self.clone();
        self.finish(async move { this.create_held(&network, wish).await })
            .await
    }

    /// Connects an endpoint and tells every node where it is.
    pub async fn held_endpoint_join(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Result<EndpointView, ControllerError> {
        let network = self.ready_by_id(network).await?;
        let this = self.clone();
        self.finish(async move { this.join(&network, &endpoint.to_string()).await })
            .await
    }

    /// Takes an endpoint whose container was killed out of the DB. The driver keeps it connected until it leaves.
    pub async fn held_endpoint_hide(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Result<(), ControllerError> {
        let this = self.clone();
        self.finish(async move {
            let _hand = this.desk.hands.hold(network).await;
            let own = this.own_endpoints(network).await?;
            match own.into_iter().find(|own| own.record.id == endpoint) {
                Some(stored) => this.unpublish(stored).await.map(drop),
                None => Ok(()),
            }
        })
        .await
    }

    /// Disconnects an endpoint once every live member of its network has heard that it leaves, or 100 ms have
    /// passed; one that is not there, or whose network is gone, has left.
    pub async fn held_endpoint_leave(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Result<(), ControllerError> {
        let Some(network) = self.network_of_own(network, endpoint).await? else {
            return Ok(());
        };
        let this = self.clone();
        let left = self.finish(async move {
            this.leave_applied(&network, &endpoint.to_string(), HEARD_WITHIN)
                .await
                .map(drop)
        });
        gone_is_done(left.await)
    }

    /// Removes an endpoint, which leaves first; its address stays held. One that is not there is removed.
    pub async fn held_endpoint_remove(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Result<(), ControllerError> {
        let Some(network) = self.network_of_own(network, endpoint).await? else {
            return Ok(());
        };
        let this = self.clone();
        let removed =
            self.finish(async move { this.remove_endpoint(&network, &endpoint.to_string()).await });
        gone_is_done(removed.await)
    }

    /// Gives an endpoint of this node these names; the first that no other endpoint here has is the one of its record.
    /// Others that it has stay, unless these are all. Returns whether it is known by the first now: it may not be there yet, or
    /// another one still be called so.
    pub async fn endpoint_name(
        &self,
        (network, endpoint): (NetworkId, EndpointId),
        names: Vec<Name>,
        are_all: bool,
    ) -> Result<bool, ControllerError> {
        let this = self.clone();
        self.finish(async move { this.give_names((network, endpoint), names, are_all).await })
            .await
    }

    async fn hold(
        &self,
        network: &NetworkRecord,
        wanted: (Family, Option<IpAddr>),
    ) -> Result<Prefix, ControllerError> {
        let mut hand = self.desk.hands.hold(network.id).await;
        let ipam = Ipam::of(network);
        let taken = match &ipam {
            Some(ipam) => {
                // The engine's endpoint has no id yet.
                let who = (EndpointId::random(&mut entropy()), None);
                self.ask_address(ipam, network, (wanted, who)).await?
            }
            None => self.take_address(&mut hand, network, wanted).await?,
        };
        let Some(prefix) = taken else {
            return Err(ControllerError::NoAddresses(network.name.clone()));
        };
        let (id, address) = (network.id, prefix.0.addr());
        let written = self.disk(move |store| store.hold_address(id, address));
        let written = written.await;
        if ipam.is_some() {
            // What is held stays.
            self.return_asked(network, Which::Given).await?;
        } else if written.is_err() {
            self.release_address(&mut hand, prefix);
        }
        written.map(|()| prefix)
    }

    async fn free(&self, network: NetworkId, address: IpAddr) -> Result<(), ControllerError> {
        let mut hand = self.desk.hands.hold(network).await;
        if !self.is_held(network, address).await? {
            return Ok(());
        }
        let own = self.own_records(network).await?;
        if own.iter().any(|record| has(record, network, address)) {
            return Err(ControllerError::AddressInUse { address });
        }
        if let Ok(record) = self.network_by_id(network).await
            && let Some(ipam) = Ipam::of(&record)
        {
            let nobody = (EndpointId::random(&mut entropy()), None);
            if let Some(asked) = ipam.asked_for(&record, nobody, address) {
                self.note_asked(asked).await?;
            }
            self.disk(move |store| store.free_address(network, address))
                .await?;
            return self.return_asked(&record, Which::Given).await;
        }
        self.disk(move |store| store.free_address(network, address))
            .await?;
        // A lease of one address is given back to the leader, for whom the engine need not wait.
        let this = self.clone();
        self.desk.tasks.spawn(async move {
            this.release_address(&mut hand, Prefix(address.into()));
        });
        Ok(())
    }

    /// Returns whether an engine holds the address, so that it is not free when its endpoint goes.
    pub(super) async fn is_held(
        &self,
        network: NetworkId,
        address: IpAddr,
    ) -> Result<bool, ControllerError> {
        let held = self.disk(|store| store.held_addresses()).await?;
        Ok(held.contains(&(network, address)))
    }

    async fn create_held(
        &self,
        network: &NetworkRecord,
        wish: HeldEndpoint,
    ) -> Result<EndpointView, ControllerError> {
        let _hand = self.desk.hands.hold(network.id).await;
        let HeldEndpoint {
            id,
            name,
            addresses,
            mac,
        } = wish;
        let own = self.own_endpoints(network.id).await?;
        let same = |stored: &&StoredEndpoint| {
            let record = &stored.record;
            record.id == id
                && record.addresses().count() == addresses.len()
                && addresses.iter().all(|ip| has(record, network.id, *ip))
                && mac.is_none_or(|mac| mac == record.mac)
        };
        if let Some(there) = own.iter().find(same) {
            return Ok(self.view(there, None));
        }
        if own
            .iter()
            .any(|stored| stored.record.id == id || stored.record.name == name)
        {
            let network = network.name.clone();
            return Err(ControllerError::EndpointExists { network, name });
        }
        let mut prefixes = Vec::new();
        for (_, address) in wishes(network, &addresses)? {
            let Some(address) = address else { continue };
            if own
                .iter()
                .any(|stored| has(&stored.record, network.id, address))
            {
                return Err(ControllerError::AddressInUse { address });
            }
            match with_length(network, address) {
                Some(prefix) if self.is_held(network.id, address).await? => prefixes.push(prefix),
                Some(_) | None => return Err(ControllerError::NotHeld { address }),
            }
        }
        let mut prefixes = prefixes.into_iter();
        let record = EndpointRecord {
            id,
            network: network.id,
            name,
            address: prefixes.next(),
            second: prefixes.next(),
            mac: mac.unwrap_or_else(|| Mac::random(&mut entropy())),
        };
        self.create_on_driver(network, record).await
    }

    async fn give_names(
        &self,
        (network, endpoint): (NetworkId, EndpointId),
        mut names: Vec<Name>,
        are_all: bool,
    ) -> Result<bool, ControllerError> {
        let _hand = self.desk.hands.hold(network).await;
        let own = self.own_endpoints(network).await?;
        let Some(before) = own.iter().find(|stored| stored.record.id == endpoint) else {
            return Ok(false);
        };
        let first = names.first().cloned();
        if !are_all {
            names.extend(more_names(before));
        }
        let now = named(before, &own, names);
        let is_first = Some(&now.record.name) == first.as_ref();
        if now == *before {
            return Ok(is_first);
        }
        let name = now.record.name.clone();
        self.publish_names(before, now).await?;
        tracing::info!(%network, %endpoint, %name, "endpoint named");
        Ok(is_first)
    }

    /// Returns the network of an endpoint of this node; nothing if there is no such endpoint, and nothing to be done.
    async fn network_of_own(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Result<Option<NetworkRecord>, ControllerError> {
        let own = self.own_records(network).await?;
        if own.iter().all(|record| record.id != endpoint) {
            return Ok(None);
        }
        self.ready_by_id(network).await.map(Some)
    }

    async fn ready_by_id(&self, network: NetworkId) -> Result<NetworkRecord, ControllerError> {
        // After a start the network may not have come yet.
        self.until_ready(network).await;
        let record = self.network_by_id(network).await?;
        self.ready(record).await
    }
}

pub(super) fn has(record: &EndpointRecord, network: NetworkId, address: IpAddr) -> bool {
    record.network == network && record.addresses().any(|has| has.0.addr() == address)
}

fn gone_is_done(outcome: Result<(), ControllerError>) -> Result<(), ControllerError> {
    match outcome {
        Err(ControllerError::NoSuchEndpoint { .. }) => Ok(()),
        other => other,
    }
}

/// Returns the names of an endpoint beside the one of its record.
fn more_names(endpoint: &StoredEndpoint) -> Vec<Name> {
    let mut entries = endpoint.entries.iter();
    let entry = entries.find(|entry| entry.table == names_table());
    let record = entry.and_then(|entry| codec::decode::<NamesRecord>(entry.value.as_bytes()).ok());
    record.map(|record| record.names).unwrap_or_default()
}

/// The same endpoint under other names.
fn named(before: &StoredEndpoint, own: &[StoredEndpoint], mut names: Vec<Name>) -> StoredEndpoint {
    let mut now = before.clone();
    let is_taken = |name: &&Name| {
        let others = own
            .iter()
            .filter(|other| other.record.id != before.record.id);
        others
            .map(|other| &other.record.name)
            .any(|had| had == *name)
    };
    if let Some(free) = names.iter().find(|name| !is_taken(name)) {
        now.record.name = free.clone();
    }
    names.retain(|name| *name != now.record.name);
    names.sort();
    names.dedup();
    now.entries.retain(|entry| entry.table != names_table());
    if !names.is_empty() {
        let record = NamesRecord { names };
        now.entries.push(TableEntry {
            table: names_table(),
            key: endpoint_key(now.record.id),
            value: Value::new(codec::encode(&record)).expect("the door bounds how many there are"),
        });
    }
    now
}
