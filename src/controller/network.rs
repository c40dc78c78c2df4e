//! Networks: the leader makes and removes them, every node sets them up.

use std::time::Duration;

use super::{
    Controller, ControllerError, EndpointView, IpamRequest, ListedNetwork, NetworkRequest,
    NetworkView, Setup, SubnetRequest, allocation,
    ipam::{Ipam, check_options},
};
use crate::{
    core::{
        allocator::{self, Action, NETWORKS_TABLE, NetworkWish, Outcome, SubnetWish},
        model::{Name, NetworkId, NetworkRecord, Prefix, TableName},
        netdb::SyncState,
        wire::codec,
    },
    driver::{Allocation, DEFAULT_IPAM, DriverError, NULL_IPAM, Scope},
};

/// How long `network_create` waits for its own node to be set up, which is a courtesy: the network exists all the same.
const COURTESY: Duration = Duration::from_secs(2);
/// How long a call on a network waits for it to be set up.
const SETUP_DEADLINE: Duration = Duration::from_secs(5);
/// How many endpoints a refusal to remove a network names.
const NAMED_MAX: usize = 8;

impl Controller {
    /// Has the leader make a network, and waits a moment until this node can use it.
    pub async fn network_create(
        &self,
        request: NetworkRequest,
    ) -> Result<NetworkRecord, ControllerError> {
        self.network_create_with(request, None).await
    }

    /// As [`Self::network_create`], but an IPAM driver may hand out the pools, and later the addresses.
    pub async fn network_create_with(
        &self,
        mut request: NetworkRequest,
        ipam: Option<IpamRequest>,
    ) -> Result<NetworkRecord, ControllerError> {
        let registry = &self.parts.registry;
        let driver = registry.get(&request.driver, self.now()).await?;
        check_options(&request.options)?;
        driver.check_options(&request.options)?;
        let allocator = registry.get_allocator(&request.driver, self.now()).await?;
        let allocation = allocator.as_ref().map(|allocator| allocator.needs());
        let mut allocation = allocation.unwrap_or_default();
        let ipam = match who_gives(ipam)? {
            Giver::Driver(wish) => {
                let capability = driver.capability();
                Some(self.take_pools(wish, capability, &mut request).await?)
            }
            Giver::Nobody => {
                check_no_subnets(&request, allocation)?;
                allocation.subnets = false;
                None
            }
            Giver::Leader => None,
        };
        if allocator.is_some_and(|allocator| allocator.is_asked()) {
            allocation::want(&mut request.options);
        }
        let avoid = self.routed().await?;
        let wish = wish(request, allocation, avoid);
        let action = match driver.capability().data_scope {
            Scope::Global => Action::AllocateNetwork(wish),
            Scope::Local => Action::AllocateLocal(wish),
        };
        let outcome = match self.propose(action).await {
            Ok(outcome) => outcome,
            // It may have been done after all: then the pools are in use.
            Err(late @ ControllerError::Timeout(_)) => return Err(late),
            Err(refused) => {
                self.return_pools_of(ipam.as_ref()).await;
                return Err(refused);
            }
        };
        let Outcome::Network(record) = outcome else {
            return Err(ControllerError::Broken(
                "the leader answered a new network with something else",
            ));
        };
        let record = match allocation::is_wanted(&record) {
            true => self.allocated_or_gone(record, ipam.as_ref()).await?,
            false => record,
        };
        self.until(record.id, COURTESY, |setup| setup == Some(&Setup::Ready))
            .await;
        Ok(record)
    }

    /// Waits for a network's allocator; a network that it did nothing for is removed again.
    async fn allocated_or_gone(
        &self,
        record: NetworkRecord,
        ipam: Option<&Ipam>,
    ) -> Result<NetworkRecord, ControllerError> {
        let id = record.id;
        let refused = match self.until_allocated(record).await {
            Ok(record) => return Ok(record),
            Err(refused) => refused,
        };
        match self.propose(Action::RemoveNetwork { id }).await {
            Ok(_) | Err(ControllerError::NoSuchNetwork(_)) => self.return_pools_of(ipam).await,
            Err(error) => {
                tracing::warn!(network = %id, %error, "a network that was not allocated was not removed: it waits for its allocator");
            }
        }
        Err(refused)
    }

    async fn return_pools_of(&self, ipam: Option<&Ipam>) {
        if let Some(ipam) = ipam {
            self.return_pools(ipam).await;
        }
    }

    /// Lists the networks, by id. It needs no leader.
    pub async fn network_list(&self) -> Result<Vec<NetworkRecord>, ControllerError> {
        let listed = self
            .parts
            .handle
            .list(NetworkId::CLUSTER, Some(networks_table()))
            .await?;
        let records = listed
            .iter()
            .filter_map(|entry| codec::decode(entry.value.as_bytes()).ok());
        Ok(records.collect())
    }

    /// Lists the networks, by id, and how far each has come on this node.
    pub async fn network_states(&self) -> Result<Vec<ListedNetwork>, ControllerError> {
        let records = self.network_list().await?;
        let carried = self.parts.handle.networks().await?;
        let listed = records.into_iter().map(|record| ListedNetwork {
            setup: self.setup(record.id),
            sync: state_of(&carried, record.id),
            record,
        });
        Ok(listed.collect())
    }

    /// Waits until this node has set a network up and has all its entries, at most for `limit`, and shows how it is then.
    pub async fn network_until_synced(
        &self,
        network: &str,
        limit: Duration,
    ) -> Result<NetworkView, ControllerError> {
        let id = self.network(network).await?.id;
        let (mut setups, mut synced) = (self.desk.setups.subscribe(), self.parts.handle.synced());
        let usable = async {
            setups
                .wait_for(|setups| setups.get(&id) == Some(&Setup::Ready))
                .await
                .map(drop)?;
            synced
                .wait_for(|states| states.get(&id) == Some(&SyncState::Synced))
                .await
                .map(drop)
        };
        // In time or not, what is shown tells.
        let _ = tokio::time::timeout(limit, usable).await;
        self.network_inspect(network).await
    }

    /// Shows a network, its endpoints, and what its driver knows of it here.
    pub async fn network_inspect(&self, network: &str) -> Result<NetworkView, ControllerError> {
        let record = self.network(network).await?;
        let endpoints = self.endpoints_of(record.id).await?;
        let driver_state = match self.parts.registry.driver(&record.driver) {
            Some(driver) => driver.inspect(record.id).await,
            None => serde_json::Value::Null,
        };
        let carried = self.parts.handle.networks().await?;
        let id = record.id;
        Ok(NetworkView {
            setup: self.setup(record.id),
            sync: state_of(&carried, record.id),
            record,
            endpoints,
            driver_state,
            engine_problem: self.desk.engine_problems.borrow().get(&id).cloned(),
        })
    }

    /// Has the leader remove a network that no endpoint uses, and waits a moment until this node has taken it down.
    pub async fn network_remove(&self, network: &str) -> Result<(), ControllerError> {
        let record = self.network(network).await?;
        let endpoints = self.endpoints_of(record.id).await?;
        if !endpoints.is_empty() {
            return Err(ControllerError::NetworkInUse {
                network: record.name,
                by: self.name_them(&endpoints).await?,
            });
        }
        self.propose(Action::RemoveNetwork { id: record.id })
            .await?;
        self.until(record.id, COURTESY, |setup| setup.is_none())
            .await;
        self.return_pools_of(Ipam::of(&record).as_ref()).await;
        Ok(())
    }

    /// Finds a network by name, else by id.
    pub async fn network(&self, wanted: &str) -> Result<NetworkRecord, ControllerError> {
        let records = self.network_list().await?;
        let by_name = |record: &&NetworkRecord| record.name.as_str() == wanted;
        let by_id = |record: &&NetworkRecord| record.id.to_string() == wanted;
        let found = records
            .iter()
            .find(by_name)
            .or_else(|| records.iter().find(by_id));
        let found = found.cloned();
        found.ok_or_else(|| ControllerError::NoSuchNetwork(wanted.to_owned()))
    }

    /// Finds a network by its id.
    pub async fn network_by_id(&self, id: NetworkId) -> Result<NetworkRecord, ControllerError> {
        let records = self.network_list().await?;
        let found = records.into_iter().find(|record| record.id == id);
        found.ok_or_else(|| ControllerError::NoSuchNetwork(id.to_string()))
    }

    /// Finds a network and waits until its driver is there on this node.
    pub(super) async fn ready_network(
        &self,
        wanted: &str,
    ) -> Result<NetworkRecord, ControllerError> {
        let record = self.network(wanted).await?;
        self.ready(record).await
    }

    /// Waits until a network is set up on this node, or may not be so soon.
    pub(super) async fn until_ready(&self, network: NetworkId) -> bool {
        let is_ready = |setup: Option<&Setup>| setup == Some(&Setup::Ready);
        self.until(network, SETUP_DEADLINE, is_ready).await
    }

    /// Waits until a network's driver is there on this node.
    pub(super) async fn ready(
        &self,
        record: NetworkRecord,
    ) -> Result<NetworkRecord, ControllerError> {
        if self.until_ready(record.id).await {
            return Ok(record);
        }
        let reason = match self.setup(record.id) {
            Setup::Pending { reason } => reason.unwrap_or_else(|| "it is being set up".to_owned()),
            Setup::Removing => "it is being removed".to_owned(),
            Setup::Ready => return Ok(record),
        };
        Err(ControllerError::NetworkNotReady {
            network: record.name,
            reason,
        })
    }

    pub(super) fn setup(&self, network: NetworkId) -> Setup {
        let setups = self.desk.setups.borrow();
        let setup = setups.get(&network).cloned();
        setup.unwrap_or(Setup::Pending { reason: None })
    }

    /// Waits until a network's setup is as wanted; returns whether it came to be in time.
    async fn until(
        &self,
        network: NetworkId,
        deadline: Duration,
        wanted: impl Fn(Option<&Setup>) -> bool,
    ) -> bool {
        let mut setups = self.desk.setups.subscribe();
        let reached = setups.wait_for(|setups| wanted(setups.get(&network)));
        matches!(tokio::time::timeout(deadline, reached).await, Ok(Ok(_)))
    }

    async fn name_them(&self, endpoints: &[EndpointView]) -> Result<Vec<String>, ControllerError> {
        let names = self.node_names().await?;
        let named = endpoints.iter().take(NAMED_MAX).map(|endpoint| {
            let node = names.get(&endpoint.node).map(Name::to_string);
            let node = node.unwrap_or_else(|| endpoint.node.to_string());
            format!("{}@{node}", endpoint.record.name)
        });
        let mut named: Vec<String> = named.collect();
        if endpoints.len() > NAMED_MAX {
            named.push(format!("{} more", endpoints.len() - NAMED_MAX));
        }
        Ok(named)
    }
}

fn state_of(carried: &[(NetworkId, SyncState)], network: NetworkId) -> Option<SyncState> {
    let found = carried.iter().find(|(id, _)| *id == network);
    found.map(|(_, state)| *state)
}

/// Who hands out a network's subnets and addresses.
enum Giver {
    /// The leader: it does where nobody is named.
    Leader,
    /// A plugin.
    Driver(IpamRequest),
    /// The network has none.
    Nobody,
}

/// Tells the built-in IPAM drivers, which take no options, from the others.
fn who_gives(ipam: Option<IpamRequest>) -> Result<Giver, DriverError> {
    let Some(wish) = ipam else {
        return Ok(Giver::Leader);
    };
    let built_in = match wish.driver.as_str() {
        DEFAULT_IPAM => Giver::Leader,
        NULL_IPAM => Giver::Nobody,
        _ => return Ok(Giver::Driver(wish)),
    };
    match wish.options.first_key_value() {
        Some((option, value)) => Err(DriverError::Option {
            option: option.clone(),
            value: value.clone(),
            expected: "the built-in IPAM drivers take no options",
        }),
        None => Ok(built_in),
    }
}

/// Refuses subnets of a network that is to have none, and a driver that needs some.
fn check_no_subnets(request: &NetworkRequest, needs: Allocation) -> Result<(), DriverError> {
    let expected = if needs.vxlan {
        "the network's driver needs subnets: name another IPAM driver, or none"
    } else if !request.subnets.is_empty() || request.ipv6 {
        "a network of this IPAM driver has no subnets: name none"
    } else {
        return Ok(());
    };
    Err(DriverError::Option {
        option: "ipam-driver".to_owned(),
        value: NULL_IPAM.to_owned(),
        expected,
    })
}

fn wish(request: NetworkRequest, allocation: Allocation, avoid: Vec<Prefix>) -> NetworkWish {
    let mut subnets = request.subnets;
    if subnets.is_empty() && allocation.subnets {
        subnets.push(SubnetRequest::default());
    }
    let asked = |asked: SubnetRequest| SubnetWish {
        subnet: allocator::SubnetRequest {
            prefix: asked.prefix,
            gateway: asked.gateway,
        },
        range: asked.range,
        reserved: asked.reserved,
    };
    NetworkWish {
        name: request.name,
        driver: request.driver,
        options: request.options,
        subnets: subnets.into_iter().map(asked).collect(),
        vxlan: allocation.vxlan,
        v6: request.ipv6,
        avoid,
    }
}

pub(super) fn networks_table() -> TableName {
    TableName::new(NETWORKS_TABLE).expect("letters are a table name")
}
