//! Endpoints: created, joined, left and removed on the node that has them; seen everywhere once they have joined.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    AppliedView, Controller, ControllerError, EndpointState, EndpointView, Sandbox,
    address::Hand,
    asked::Which,
    entropy,
    ipam::Ipam,
    publish::{created, endpoints_table, names_table},
};
use crate::{
    core::{
        model::{
            EndpointId, EndpointRecord, Mac, Name, NetworkId, NetworkRecord, Prefix, TableEntry,
        },
        wire::codec,
    },
    driver::{Driver, DriverError, Joined, RegistryError, SandboxPlace, Scope},
    store::StoredEndpoint,
};

impl Controller {
    /// Makes an endpoint with an address of each family that the network has, these among them, known to this node only.
    pub async fn endpoint_create(
        &self,
        network: &str,
        name: Name,
        wanted: impl IntoIterator<Item = IpAddr>,
    ) -> Result<EndpointView, ControllerError> {
        let wanted: Vec<IpAddr> = wanted.into_iter().collect();
        let network = self.ready_network(network).await?;
        let this = self.clone();
        self.finish(async move { this.create(&network, name, &wanted).await })
            .await
    }

    /// Connects an endpoint and tells every node where it is. One that has joined gets the same answer again.
    pub async fn endpoint_join(
        &self,
        network: &str,
        endpoint: &str,
    ) -> Result<EndpointView, ControllerError> {
        let network = self.ready_network(network).await?;
        let (this, endpoint) = (self.clone(), endpoint.to_owned());
        self.finish(async move { this.join(&network, &endpoint).await })
            .await
    }

    /// As [`Self::endpoint_join`], and moves the endpoint's interface into a sandbox.
    ///
    /// If that fails, the endpoint is as it was before.
    pub async fn endpoint_enter(
        &self,
        network: &str,
        endpoint: &str,
        sandbox: SandboxPlace,
    ) -> Result<EndpointView, ControllerError> {
        let network = self.ready_network(network).await?;
        let (this, endpoint) = (self.clone(), endpoint.to_owned());
        self.finish(async move { this.enter(&network, &endpoint, sandbox).await })
            .await
    }

    /// Disconnects an endpoint; it keeps its address. One that has not joined stays as it is.
    pub async fn endpoint_leave(
        &self,
        network: &str,
        endpoint: &str,
    ) -> Result<EndpointView, ControllerError> {
        let network = self.network(network).await?;
        let (this, endpoint) = (self.clone(), endpoint.to_owned());
        self.finish(async move { this.leave_endpoint(&network, &endpoint).await })
            .await
    }

    /// As [`Self::endpoint_leave`], but the driver keeps the endpoint connected until every live member of the network has
    /// heard that it leaves, at most for `limit`.
    pub async fn endpoint_leave_applied(
        &self,
        network: &str,
        endpoint: &str,
        limit: Duration,
    ) -> Result<(EndpointView, AppliedView), ControllerError> {
        let network = self.network(network).await?;
        let (this, endpoint) = (self.clone(), endpoint.to_owned());
        self.finish(async move { this.leave_applied(&network, &endpoint, limit).await })
            .await
    }

    /// Removes an endpoint, which leaves first, and gives its address back.
    pub async fn endpoint_remove(
        &self,
        network: &str,
        endpoint: &str,
    ) -> Result<(), ControllerError> {
        let network = self.network(network).await?;
        let (this, endpoint) = (self.clone(), endpoint.to_owned());
        self.finish(async move { this.remove_endpoint(&network, &endpoint).await })
            .await
    }

    /// Lists the endpoints of one network or of all: those that have joined anywhere, and this node's own others.
    pub async fn endpoint_list(
        &self,
        network: Option<&str>,
    ) -> Result<Vec<EndpointView>, ControllerError> {
        let networks = match network {
            Some(network) => vec![self.network(network).await?],
            None => self.network_list().await?,
        };
        let mut endpoints = Vec::new();
        for network in networks {
            endpoints.extend(self.endpoints_of(network.id).await?);
        }
        Ok(endpoints)
    }

    pub(super) async fn endpoints_of(
        &self,
        network: NetworkId,
    ) -> Result<Vec<EndpointView>, ControllerError> {
        let own = self.own_endpoints(network).await?;
        let mut endpoints: Vec<EndpointView> = own.iter().map(|own| self.view(own, None)).collect();
        let table = endpoints_table();
        let listed = self.parts.handle.list(network, Some(table)).await?;
        for entry in listed.into_iter().filter(|entry| !entry.ours) {
            match codec::decode(entry.value.as_bytes()) {
                Ok(record) => endpoints.push(EndpointView {
                    record,
                    node: entry.owner,
                    state: EndpointState::Joined,
                    sandbox: None,
                }),
                Err(malformed) => {
                    tracing::warn!(owner = %entry.owner, %network, %malformed, "an endpoint's record is of no use");
                }
            }
        }
        endpoints.sort_by(|a, b| (&a.record.name, a.node).cmp(&(&b.record.name, b.node)));
        Ok(endpoints)
    }

    /// Returns this node's endpoints of a network, from the disk.
    pub(super) async fn own_endpoints(
        &self,
        network: NetworkId,
    ) -> Result<Vec<StoredEndpoint>, ControllerError> {
        let mut endpoints = self.disk(|store| store.endpoints()).await?;
        endpoints.retain(|endpoint| endpoint.record.network == network);
        Ok(endpoints)
    }

    pub(super) async fn own_records(
        &self,
        network: NetworkId,
    ) -> Result<Vec<EndpointRecord>, ControllerError> {
        let own = self.own_endpoints(network).await?.into_iter();
        Ok(own.map(|endpoint| endpoint.record).collect())
    }

    async fn create(
        &self,
        network: &NetworkRecord,
        name: Name,
        wanted: &[IpAddr],
    ) -> Result<EndpointView, ControllerError> {
        let mut hand = self.desk.hands.hold(network.id).await;
        let own = self.own_endpoints(network.id).await?;
        if own.iter().any(|endpoint| endpoint.record.name == name) {
            let network = network.name.clone();
            return Err(ControllerError::EndpointExists { network, name });
        }
        let (id, mac) = {
            let mut rng = entropy();
            (EndpointId::random(&mut rng), Mac::random(&mut rng))
        };
        let taken = match Ipam::of(network) {
            Some(ipam) => {
                let wish = (wanted, (id, Some(mac)));
                self.ask_addresses(&ipam, network, wish).await?
            }
            None => self.take_addresses(&mut hand, network, wanted).await?,
        };
        let mut addresses = taken.iter().copied();
        let record = EndpointRecord {
            id,
            network: network.id,
            name,
            address: addresses.next(),
            second: addresses.next(),
            mac,
        };
        let outcome = self.create_on_driver(network, record).await;
        if outcome.is_err() {
            self.give_back(&mut hand, network, taken).await?;
        }
        outcome
    }

    pub(super) async fn create_on_driver(
        &self,
        network: &NetworkRecord,
        record: EndpointRecord,
    ) -> Result<EndpointView, ControllerError> {
        let driver = self.driver(network).await?;
        let is_older = driver.is_older_than_us();
        if is_older {
            // It outlives us: were we to die now, it would have what nobody knows of.
            let intended = record.clone();
            self.disk(move |store| store.intend_endpoint(&intended))
                .await?;
        }
        let id = record.id;
        let given = match driver.create_endpoint(&record).await {
            Ok(given) => given,
            Err(refused) => {
                if is_older {
                    self.settle_intended(&*driver, record, &refused).await?;
                }
                return Err(refused.into());
            }
        };
        let stored = StoredEndpoint {
            record: record.with(&given),
            joined: false,
            entries: Vec::new(),
        };
        let written = stored.clone();
        if let Err(refused) = self.disk(move |store| store.put_endpoint(&written)).await {
            // If the disk does not take this either, the next start takes the endpoint back.
            if forget(&*driver, &stored.record).await && is_older {
                let _ = self.disk(move |store| store.drop_intended(id)).await;
            }
            return Err(refused);
        }
        tracing::info!(network = %network.name, endpoint = %stored.record.name, "endpoint created");
        Ok(self.view(&stored, None))
    }

    /// Forgets an endpoint that a driver did not make. Where it may have, and does not undo it now, it is kept in mind until it
    /// does; without its address, which goes back at once.
    async fn settle_intended(
        &self,
        driver: &dyn Driver,
        record: EndpointRecord,
        refused: &DriverError,
    ) -> Result<(), ControllerError> {
        let EndpointRecord { id, network, .. } = record;
        let is_clear = matches!(
            refused,
            DriverError::Refused { .. } | DriverError::Protocol { .. }
        );
        let is_undone = is_clear || driver.forget_endpoint(network, id).await.is_ok();
        self.disk(move |store| match is_undone {
            true => store.drop_intended(id),
            false => store.intend_endpoint(&EndpointRecord {
                address: None,
                ..record
            }),
        })
        .await
    }

    pub(super) async fn join(
        &self,
        network: &NetworkRecord,
        endpoint: &str,
    ) -> Result<EndpointView, ControllerError> {
        let _hand = self.desk.hands.hold(network.id).await;
        let stored = self.own_endpoint(network, endpoint).await?;
        let driver = self.driver(network).await?;
        let (now, joined) = self.join_on_driver(&*driver, stored).await?;
        tracing::info!(network = %network.name, endpoint = %now.record.name, "endpoint joined");
        Ok(self.view(&now, Some(joined)))
    }

    async fn enter(
        &self,
        network: &NetworkRecord,
        endpoint: &str,
        sandbox: SandboxPlace,
    ) -> Result<EndpointView, ControllerError> {
        let _hand = self.desk.hands.hold(network.id).await;
        let before = self.own_endpoint(network, endpoint).await?;
        let driver = self.driver(network).await?;
        let (now, joined) = self.join_on_driver(&*driver, before.clone()).await?;
        let path = sandbox.path.display();
        match driver.enter(&now.record, &joined, &sandbox).await {
            Ok(name) => {
                tracing::info!(network = %network.name, endpoint = %now.record.name, sandbox = %path, %name, "endpoint joined in a sandbox");
                let mut view = self.view(&now, Some(joined));
                if let Some(sandbox) = &mut view.sandbox {
                    sandbox.name = Some(name);
                }
                Ok(view)
            }
            Err(refused) => {
                if !before.joined {
                    let left = self.unpublish(now).await?;
                    driver.leave(network.id, left.record.id).await?;
                }
                Err(refused.into())
            }
        }
    }

    /// Has the driver connect the endpoint and publishes it. A failure leaves nothing published, and the driver has left.
    pub(super) async fn join_on_driver(
        &self,
        driver: &dyn Driver,
        before: StoredEndpoint,
    ) -> Result<(StoredEndpoint, Joined), ControllerError> {
        let joined = driver.join(&before.record).await?;
        if !joined.gateways.is_empty()
            && let Err(refused) = driver.connect_outside(&before.record).await
        {
            if !before.joined {
                driver
                    .leave(before.record.network, before.record.id)
                    .await?;
            }
            return Err(refused.into());
        }
        let now = StoredEndpoint {
            record: before.record.clone(),
            joined: true,
            entries: published(driver, &joined)
                .into_iter()
                .chain(names_of(&before))
                .collect(),
        };
        if before == now {
            return Ok((now, joined));
        }
        if let Err(refused) = self.publish(&before, now.clone()).await {
            let EndpointRecord { id, network, .. } = now.record;
            if let Err(error) = driver.leave(network, id).await {
                tracing::warn!(%network, endpoint = %id, %error, "a join that failed was not undone by its driver");
            }
            return Err(refused);
        }
        Ok((now, joined))
    }

    pub(super) async fn leave_endpoint(
        &self,
        network: &NetworkRecord,
        endpoint: &str,
    ) -> Result<EndpointView, ControllerError> {
        let _hand = self.desk.hands.hold(network.id).await;
        let stored = self.own_endpoint(network, endpoint).await?;
        let stored = self.unpublish(stored).await?;
        if let Some(driver) = self.driver_if_there(network).await? {
            driver.leave(network.id, stored.record.id).await?;
        }
        tracing::info!(network = %network.name, endpoint = %stored.record.name, "endpoint left");
        Ok(self.view(&stored, None))
    }

    pub(super) async fn leave_applied(
        &self,
        network: &NetworkRecord,
        endpoint: &str,
        limit: Duration,
    ) -> Result<(EndpointView, AppliedView), ControllerError> {
        let stored = {
            let _hand = self.desk.hands.hold(network.id).await;
            let stored = self.own_endpoint(network, endpoint).await?;
            self.unpublish(stored).await?
        };
        // Meanwhile the network's other endpoints are served. However the wait ends, the driver is told.
        let applied = self.barrier(network.id, limit).await;
        let left = self.disconnect(network, stored).await?;
        Ok((left, applied?))
    }

    /// Has the driver disconnect an endpoint that has left, unless it was joined again or removed since.
    async fn disconnect(
        &self,
        network: &NetworkRecord,
        left: StoredEndpoint,
    ) -> Result<EndpointView, ControllerError> {
        let _hand = self.desk.hands.hold(network.id).await;
        let own = self.own_endpoints(network.id).await?;
        match own.iter().find(|own| own.record.id == left.record.id) {
            Some(again) if again.joined => return Ok(self.view(again, None)),
            None => return Ok(self.view(&left, None)),
            Some(_) => {}
        }
        if let Some(driver) = self.driver_if_there(network).await? {
            driver.leave(network.id, left.record.id).await?;
        }
        tracing::info!(network = %network.name, endpoint = %left.record.name, "endpoint left");
        Ok(self.view(&left, None))
    }

    pub(super) async fn remove_endpoint(
        &self,
        network: &NetworkRecord,
        endpoint: &str,
    ) -> Result<(), ControllerError> {
        let mut hand = self.desk.hands.hold(network.id).await;
        let stored = self.own_endpoint(network, endpoint).await?;
        let stored = self.unpublish(stored).await?;
        let driver = self.driver_if_there(network).await?;
        let mut leaving = Vec::new();
        for address in stored.record.addresses() {
            if !self.is_held(network.id, address.0.addr()).await? {
                leaving.push(address);
            }
        }
        if let Some(ipam) = Ipam::of(network) {
            let who = (stored.record.id, Some(stored.record.mac));
            self.note_leaving(&ipam, network, (who, &leaving)).await?;
        }
        self.erase(driver.as_deref(), &stored.record).await?;
        self.give_back(&mut hand, network, leaving).await?;
        tracing::info!(network = %network.name, endpoint = %stored.record.name, "endpoint removed");
        Ok(())
    }

    /// Has a driver, if it is there, forget an endpoint that nobody hears of any more, then the disk.
    pub(super) async fn erase(
        &self,
        driver: Option<&dyn Driver>,
        record: &EndpointRecord,
    ) -> Result<(), ControllerError> {
        let EndpointRecord { id, network, .. } = *record;
        if let Some(driver) = driver {
            driver.leave(network, id).await?;
            driver.delete_endpoint(network, id).await?;
        }
        self.disk(move |store| store.remove_endpoint(id)).await
    }

    /// Gives addresses that no endpoint has back to whoever handed them out: an IPAM driver gets all that it was asked for.
    async fn give_back(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        addresses: Vec<Prefix>,
    ) -> Result<(), ControllerError> {
        if Ipam::of(network).is_some() {
            return self.return_asked(network, Which::Given).await;
        }
        for address in addresses {
            self.release_address(hand, address);
        }
        Ok(())
    }

    /// Takes an endpoint's entries back: off the disk first, so that a restart does not bring them back, then from the DB.
    pub(super) async fn unpublish(
        &self,
        stored: StoredEndpoint,
    ) -> Result<StoredEndpoint, ControllerError> {
        if !stored.joined {
            return Ok(stored);
        }
        let now = created(stored.clone());
        let written = now.clone();
        self.disk(move |store| store.put_endpoint(&written)).await?;
        self.retract(&stored).await;
        Ok(now)
    }

    /// Finds an endpoint of this node by name, else by id.
    async fn own_endpoint(
        &self,
        network: &NetworkRecord,
        wanted: &str,
    ) -> Result<StoredEndpoint, ControllerError> {
        let own = self.own_endpoints(network.id).await?;
        let by_name = own.iter().find(|own| own.record.name.as_str() == wanted);
        let by_id = || own.iter().find(|own| own.record.id.to_string() == wanted);
        if let Some(found) = by_name.or_else(by_id) {
            return Ok(found.clone());
        }
        let all = self.endpoints_of(network.id).await?;
        let elsewhere = all.iter().find(|other| {
            other.record.name.as_str() == wanted || other.record.id.to_string() == wanted
        });
        Err(match elsewhere {
            Some(other) => ControllerError::NotOwner {
                owner: other.node.into(),
            },
            None => ControllerError::NoSuchEndpoint {
                network: network.name.clone(),
                endpoint: wanted.to_owned(),
            },
        })
    }

    /// Returns the driver of a network; nothing if its plugin is no longer installed: then its state is gone too.
    pub(super) async fn driver_if_there(
        &self,
        network: &NetworkRecord,
    ) -> Result<Option<Arc<dyn Driver>>, ControllerError> {
        match self.driver(network).await {
            Ok(driver) => Ok(Some(driver)),
            Err(ControllerError::Registry(RegistryError::NotFound(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn driver(
        &self,
        network: &NetworkRecord,
    ) -> Result<Arc<dyn Driver>, ControllerError> {
        Ok(self.parts.registry.get(&network.driver, self.now()).await?)
    }

    pub(super) fn view(&self, stored: &StoredEndpoint, joined: Option<Joined>) -> EndpointView {
        EndpointView {
            record: stored.record.clone(),
            node: self.parts.node,
            state: match stored.joined {
                true => EndpointState::Joined,
                false => EndpointState::Created,
            },
            sandbox: joined.map(|joined| Sandbox {
                name: None,
                interface: joined.interface,
                gateways: joined.gateways,
                routes: joined.routes,
            }),
        }
    }
}

/// The entries of a driver whose endpoints reach other nodes; one that is local by nature publishes nothing (D7).
fn published(driver: &dyn Driver, joined: &Joined) -> Vec<TableEntry> {
    match driver.capability().connectivity_scope {
        Scope::Global => joined.entries.clone(),
        Scope::Local => Vec::new(),
    }
}

/// The entry of an endpoint's names, which are not its driver's and outlive a join.
fn names_of(stored: &StoredEndpoint) -> impl Iterator<Item = TableEntry> {
    let names = stored.entries.iter();
    names.filter(|entry| entry.table == names_table()).cloned()
}

/// Returns whether it did.
async fn forget(driver: &dyn Driver, record: &EndpointRecord) -> bool {
    let EndpointRecord { id, network, .. } = *record;
    let forgotten = driver.delete_endpoint(network, id).await;
    if let Err(error) = &forgotten {
        tracing::warn!(%network, endpoint = %id, %error, "an endpoint that was not made was not forgotten by its driver");
    }
    forgotten.is_ok()
}
