//! One pass: what the engine lists against what is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use tokio::time::Instant;

use super::{
    EngineError, endpoint_id,
    follow::{Extent, Follower},
    leaks::InUse,
    listing::{CreateIpam, CreateNetwork, CreatePool, NETWORK_OPTION, Network, bare},
};
use crate::{
    controller::{ListedNetwork, Setup},
    core::model::{Family, NetworkId, NetworkRecord},
};

/// The bridge to which the engine connects containers whose network has no gateway.
const OWN_BRIDGE: &str = "docker_gwbridge";

impl Follower {
    /// Brings the engine and this node in step; returns whether nothing is left to do.
    pub(super) async fn pass(&mut self, extent: Extent) -> Result<bool, EngineError> {
        match extent {
            Extent::All => self.pass_all().await,
            Extent::Networks(ids) => {
                let known = self.controller.engine_networks().await?;
                let mut all = true;
                for (id, network) in known {
                    if ids.contains(&id) {
                        let listed = self.inspect(&id).await?;
                        all &= self.name_endpoints(&listed, network).await;
                    }
                }
                Ok(all)
            }
        }
    }

    async fn pass_all(&mut self) -> Result<bool, EngineError> {
        let listed: Vec<Network> = self.client.get("/networks").await?;
        let wanted = self.controller.network_states().await?;
        self.seen.extend(wanted.iter().map(|state| state.record.id));
        let ours = self.ours(&listed, &wanted).await?;
        let mut all = self.make_missing(&listed, &ours, &wanted).await;
        let mut in_use = InUse::default();
        let mut networks_of: BTreeMap<String, BTreeSet<NetworkId>> = BTreeMap::new();
        for (engines, network) in &ours {
            if wanted.iter().any(|state| state.record.id == *network) {
                let detail = self.inspect(engines).await?;
                note_use(&mut in_use, &detail, *network);
                for container in detail.containers.keys() {
                    let networks = networks_of.entry(container.clone()).or_default();
                    networks.insert(*network);
                }
                all &= self.name_endpoints(&detail, *network).await;
            } else {
                all &= self.remove_if_gone(engines, *network, &listed).await;
            }
        }
        self.note_askers(&listed, &networks_of).await?;
        self.give_back(&in_use).await?;
        self.look_at_swarm(&listed, &wanted).await?;
        Ok(all)
    }

    /// Notes from which address each container asks for names: it is connected to the engine's own bridge too.
    async fn note_askers(
        &self,
        listed: &[Network],
        networks_of: &BTreeMap<String, BTreeSet<NetworkId>>,
    ) -> Result<(), EngineError> {
        let Some(bridge) = listed.iter().find(|network| network.name == OWN_BRIDGE) else {
            return Ok(());
        };
        let bridge = self.inspect(&bridge.id).await?;
        let askers = bridge.containers.iter().filter_map(|(container, at)| {
            let networks = networks_of.get(container)?.clone();
            Some((at.addresses().next()?, networks))
        });
        self.askers.send_replace(askers.collect());
        Ok(())
    }

    /// Returns which of the engine's networks stands for which of ours, and forgets those that the engine has no longer.
    async fn ours(
        &self,
        listed: &[Network],
        wanted: &[ListedNetwork],
    ) -> Result<BTreeMap<String, NetworkId>, EngineError> {
        let mut known = self.controller.engine_networks().await?;
        let gone = |id: &String| listed.iter().all(|network| network.id != *id);
        let forgotten: Vec<String> = known.keys().filter(|id| gone(id)).cloned().collect();
        for id in forgotten {
            self.controller.engine_network_remove(&id).await?;
            known.remove(&id);
        }
        for network in listed.iter().filter(|network| self.is_ours(network)) {
            if known.contains_key(&network.id) {
                continue;
            }
            // Made while this node had another disk: the name is all that is left.
            let name = network.options.get(NETWORK_OPTION);
            let same = |state: &&ListedNetwork| {
                Some(state.record.name.as_str()) == name.map(|name| name.as_str())
            };
            if let Some(found) = wanted.iter().find(same) {
                self.controller
                    .engine_network_put(&network.id, found.record.id)
                    .await?;
                known.insert(network.id.clone(), found.record.id);
            }
        }
        Ok(known)
    }

    fn is_ours(&self, network: &Network) -> bool {
        network.is_of(&self.driver)
    }

    /// Makes a network of the engine for each of ours that has none; returns whether all have one that can.
    async fn make_missing(
        &mut self,
        listed: &[Network],
        ours: &BTreeMap<String, NetworkId>,
        wanted: &[ListedNetwork],
    ) -> bool {
        let mut all = true;
        let has_one: BTreeSet<&NetworkId> = ours.values().collect();
        for state in wanted {
            let record = &state.record;
            if has_one.contains(&record.id) || !is_usable(record) || state.setup != Setup::Ready {
                self.controller.engine_problem(record.id, None);
                continue;
            }
            let name = record.name.as_str();
            if let Some(other) = listed.iter().find(|network| network.name == name) {
                all &= !self.is_ours(other);
                let what = format!(
                    "the engine has another network of this name (driver {}): rename it, or make one for Weft's by hand with -o {NETWORK_OPTION}={name}",
                    other.driver
                );
                self.tell(name, &what);
                self.controller.engine_problem(record.id, Some(what));
                continue;
            }
            let made = self.make(record).await;
            let problem = made.err().map(|error| error.to_string());
            match &problem {
                None => drop(self.told.remove(name)),
                Some(problem) => {
                    all = false;
                    self.tell(name, problem);
                }
            }
            self.controller.engine_problem(record.id, problem);
        }
        all
    }

    async fn make(&self, record: &NetworkRecord) -> Result<(), EngineError> {
        let name = record.name.as_str();
        let pools = record.subnets.iter().map(|subnet| CreatePool {
            subnet: subnet.prefix,
            gateway: subnet.gateway,
        });
        let request = CreateNetwork {
            name,
            check_duplicate: true,
            enable_ipv6: record.families().any(|family| family == Family::V6),
            driver: &self.driver,
            ipam: CreateIpam {
                driver: &self.driver,
                config: pools.collect(),
                options: [(NETWORK_OPTION, name)].into(),
            },
            options: [(NETWORK_OPTION, name)].into(),
            labels: [(NETWORK_OPTION, record.id.to_string())].into(),
        };
        let _: serde_json::Value = self.client.post("/networks/create", &request).await?;
        tracing::info!(network = name, "made in the Docker engine");
        Ok(())
    }

    /// Removes a network of the engine whose network of Weft was removed; returns whether that is settled.
    async fn remove_if_gone(
        &mut self,
        engines: &str,
        network: NetworkId,
        listed: &[Network],
    ) -> bool {
        let is_ours = listed
            .iter()
            .any(|there| there.id == engines && self.is_ours(there));
        let was_removed =
            self.seen.contains(&network) || self.controller.was_removed(network).await;
        if !is_ours || !was_removed {
            return !is_ours;
        }
        match self.client.delete(&format!("/networks/{engines}")).await {
            Ok(()) => {
                tracing::info!(%network, engine = engines, "removed from the Docker engine");
                self.told.remove(engines);
                true
            }
            Err(error) => {
                self.tell(engines, &error.to_string());
                false
            }
        }
    }

    async fn inspect(&self, engines: &str) -> Result<Network, EngineError> {
        Ok(self.client.get(&format!("/networks/{engines}")).await?)
    }

    /// Gives endpoints the names of their containers; returns whether all took them.
    async fn name_endpoints(&mut self, listed: &Network, network: NetworkId) -> bool {
        let mut all = true;
        for (container, endpoint) in &listed.containers {
            let Ok(id) = endpoint_id(&endpoint.id) else {
                continue;
            };
            self.containers.ask_if_new(&self.client, container);
            self.places.note(container, (network, id));
            let named = self.containers.names(listed, container, endpoint);
            let place = (network, id);
            let (names, are_all) = named.clone();
            if names.is_empty() || self.named.get(&place) == Some(&named) {
                continue;
            }
            match self.controller.endpoint_name(place, names, are_all).await {
                Ok(true) => drop(self.named.insert(place, named)),
                // Another one may go, or this one come; it is told again with the next pass.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, container, "a container is not known by its name yet");
                    all = false;
                }
            }
        }
        all
    }

    /// Gives back what the engine has forgotten.
    async fn give_back(&mut self, in_use: &InUse) -> Result<(), EngineError> {
        let held = self.controller.held().await?;
        for leaked in self.suspects.judge(held, in_use, Instant::now()) {
            if let Some(endpoint) = leaked.endpoint {
                self.controller
                    .held_endpoint_remove(leaked.network, endpoint)
                    .await?;
            }
            self.controller
                .address_free(leaked.network, leaked.address)
                .await?;
            let (network, address) = (leaked.network, leaked.address);
            tracing::info!(%network, %address, "no container has this address any more: it is free");
        }
        Ok(())
    }
}

/// An engine's network cannot be without IPv4.
fn is_usable(record: &NetworkRecord) -> bool {
    record.families().any(|family| family == Family::V4)
}

fn note_use(in_use: &mut InUse, listed: &Network, network: NetworkId) {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for endpoint in listed.containers.values() {
        in_use.endpoints.extend(endpoint_id(&endpoint.id).ok());
        addresses.extend(endpoint.addresses());
    }
    let auxiliary = listed.ipam.auxiliary();
    addresses.extend(auxiliary.filter_map(|address| bare(address).parse::<IpAddr>().ok()));
    let addresses = addresses.into_iter().map(|address| (network, address));
    in_use.addresses.extend(addresses);
}
