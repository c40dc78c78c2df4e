//! Networks whose pools and addresses an IPAM driver hands out, in place of the leader's pools and this node's blocks.
//!
//! What must be known of that on every node is in the network's options, under names that begin with `weft.ipam.`: the leader
//! and the network's driver need not know of it. The driver of a network never sees them.
//!
//! A driver that says so (`RequiresRequestReplay`) is asked again for a network's pool, its gateway and this node's addresses when
//! it is used for the first time in its life: on another node than the one that made the network, or after a restart.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Controller, ControllerError, IpamRequest, NetworkRequest, SubnetRequest, address::wishes,
    allocation, asked::Which,
};
use crate::{
    core::model::{EndpointId, EndpointRecord, Family, Mac, Name, NetworkRecord, Prefix, Subnet},
    driver::{
        AddressRequest, Capability, DriverError, IpamDriver, IpamError, Pool, PoolRequest, Scope,
        pick_pool,
    },
    store::AskedAddress,
};

/// What the names of our own options begin with.
const OWN: &str = "weft.ipam.";
const DRIVER: &str = "weft.ipam.driver";
const SPACE: &str = "weft.ipam.space";
const POOL: &str = "weft.ipam.pool.";
const RANGE: &str = "weft.ipam.range.";
const RESERVED: &str = "weft.ipam.reserved.";
const OPTION: &str = "weft.ipam.option.";

/// Who gets an address: an endpoint, and its MAC address if it has one yet.
pub(super) type Who = (EndpointId, Option<Mac>);

/// Who hands out a network's addresses, as the network's options say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ipam {
    pub(super) driver: Name,
    space: String,
    options: BTreeMap<String, String>,
    /// One a subnet.
    pools: Vec<HeldPool>,
}

/// A pool that the driver has handed out for a network.
#[derive(Clone, PartialEq, Eq, Debug)]
struct HeldPool {
    /// The driver's name of it.
    id: String,
    /// The part of it that was asked for.
    range: Option<Prefix>,
    gateway: IpAddr,
    /// Addresses that something outside the cluster has, asked for so that the driver hands them out to nobody.
    reserved: Vec<IpAddr>,
}

impl HeldPool {
    /// The addresses that belong to no endpoint.
    fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.reserved.iter().copied().chain([self.gateway])
    }
}

impl Ipam {
    /// Reads a network's options; nothing if its addresses come from the leader.
    pub(super) fn of(network: &NetworkRecord) -> Option<Self> {
        let options = &network.options;
        let ours = |prefix: &'static str| {
            let all = options.iter();
            all.filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
        };
        let pools = network.subnets.iter().enumerate();
        let pools = pools.filter_map(|(at, subnet)| {
            let reserved = options.get(&format!("{RESERVED}{at}"));
            let reserved = reserved.map(String::as_str).unwrap_or_default();
            Some(HeldPool {
                id: options.get(&format!("{POOL}{at}"))?.clone(),
                range: options
                    .get(&format!("{RANGE}{at}"))
                    .and_then(|range| Some(Prefix(range.parse().ok()?))),
                gateway: subnet.gateway,
                reserved: reserved
                    .split(',')
                    .filter_map(|ip| ip.parse().ok())
                    .collect(),
            })
        });
        Some(Self {
            driver: Name::new(options.get(DRIVER)?).ok()?,
            space: options.get(SPACE).cloned().unwrap_or_default(),
            options: ours(OPTION)
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .collect(),
            pools: pools.collect(),
        })
    }

    fn write(&self, options: &mut BTreeMap<String, String>) {
        options.insert(DRIVER.to_owned(), self.driver.to_string());
        options.insert(SPACE.to_owned(), self.space.clone());
        for (name, value) in &self.options {
            options.insert(format!("{OPTION}{name}"), value.clone());
        }
        for (at, pool) in self.pools.iter().enumerate() {
            options.insert(format!("{POOL}{at}"), pool.id.clone());
            if let Some(range) = pool.range {
                options.insert(format!("{RANGE}{at}"), range.to_string());
            }
            if !pool.reserved.is_empty() {
                let reserved: Vec<String> = pool.reserved.iter().map(IpAddr::to_string).collect();
                options.insert(format!("{RESERVED}{at}"), reserved.join(","));
            }
        }
    }

    fn pool(&self, subnet: &Subnet, id: &str) -> Pool {
        Pool {
            id: id.to_owned(),
            prefix: subnet.prefix,
            gateway: Some(subnet.gateway),
        }
    }

    /// Finds a pool of a network by the driver's name of it.
    pub(super) fn pool_of(&self, network: &NetworkRecord, id: &str) -> Option<Pool> {
        let mut pools = network.subnets.iter().zip(&self.pools);
        let (subnet, _) = pools.find(|(_, of)| of.id == id)?;
        Some(self.pool(subnet, id))
    }

    /// Returns what was asked for who has an address.
    pub(super) fn asked_for(
        &self,
        network: &NetworkRecord,
        (endpoint, mac): Who,
        address: IpAddr,
    ) -> Option<AskedAddress> {
        let mut pools = network.subnets.iter().zip(&self.pools);
        let (_, pool) = pools.find(|(subnet, _)| subnet.prefix.0.contains(&address))?;
        Some(AskedAddress {
            network: network.id,
            endpoint,
            family: Family::of(address),
            pool: pool.id.clone(),
            wanted: None,
            mac,
            given: Some(address),
        })
    }
}

/// Returns a network as its driver knows it.
pub(super) fn for_driver(mut network: NetworkRecord) -> NetworkRecord {
    let is_own = |name: &str| name.starts_with(OWN) || allocation::is_own(name);
    network.options.retain(|name, _| !is_own(name));
    network
}

/// Refuses options that are not a person's to give.
pub(super) fn check_options(options: &BTreeMap<String, String>) -> Result<(), DriverError> {
    let is_own = |name: &str| name.starts_with(OWN) || allocation::is_own(name);
    match options.iter().find(|(name, _)| is_own(name)) {
        Some((option, value)) => Err(DriverError::Option {
            option: option.clone(),
            value: value.clone(),
            expected: "options that begin with weft.ipam. or weft.allocation are Weft's own: use --ipam-driver and --ipam-opt",
        }),
        None => Ok(()),
    }
}

impl Controller {
    /// Has an IPAM driver hand out the pools of a network that is to be created. On failure nothing stays held.
    pub(super) async fn take_pools(
        &self,
        wish: IpamRequest,
        capability: Capability,
        request: &mut NetworkRequest,
    ) -> Result<Ipam, ControllerError> {
        let driver = self.ipam_driver(&wish.driver).await?;
        let spaces = driver.spaces();
        let mut ipam = Ipam {
            driver: wish.driver,
            space: match capability.data_scope {
                Scope::Local => spaces.local,
                Scope::Global => spaces.global,
            },
            options: wish.options,
            pools: Vec::new(),
        };
        let mut any_v6 = None;
        if request.subnets.is_empty() {
            request.subnets.push(SubnetRequest::default());
        }
        let is_v6 = |wish: &SubnetRequest| wish.prefix.is_some_and(|of| of.0.addr().is_ipv6());
        if request.ipv6 && !request.subnets.iter().any(is_v6) {
            // Any, of that family.
            request.subnets.push(SubnetRequest::default());
            any_v6 = Some(request.subnets.len() - 1);
        }
        // What any node routes counts too: a pool that nobody named keeps clear of it.
        let mut taken: Vec<Prefix> = self.routed().await?;
        for network in self.network_list().await? {
            taken.extend(network.subnets.iter().map(|subnet| subnet.prefix));
        }
        for (at, subnet) in request.subnets.iter_mut().enumerate() {
            let v6 = is_v6(subnet) || any_v6 == Some(at);
            match take_subnet(&*driver, &ipam, (subnet.clone(), v6), &taken).await {
                Ok((pool, given)) => {
                    ipam.pools.push(pool);
                    taken.extend(given.prefix);
                    *subnet = given;
                }
                Err(error) => {
                    release_pools(&*driver, &ipam.pools).await;
                    return Err(error.into());
                }
            }
        }
        ipam.write(&mut request.options);
        Ok(ipam)
    }

    /// Gives the pools of a network back that was removed, or that did not come to be.
    pub(super) async fn return_pools(&self, ipam: &Ipam) {
        match self.ipam_driver(&ipam.driver).await {
            Ok(driver) => release_pools(&*driver, &ipam.pools).await,
            Err(error) => {
                tracing::warn!(driver = %ipam.driver, %error, "pools were not given back");
            }
        }
    }

    /// Asks for the addresses of a new endpoint: one of each family that the network has, these among them. A failure leaves
    /// none taken.
    pub(super) async fn ask_addresses(
        &self,
        ipam: &Ipam,
        network: &NetworkRecord,
        (wanted, who): (&[IpAddr], Who),
    ) -> Result<Vec<Prefix>, ControllerError> {
        let mut given = Vec::new();
        for wish in wishes(network, wanted)? {
            match self.ask_address(ipam, network, (wish, who)).await {
                Ok(address) => given.extend(address),
                Err(refused) => {
                    self.return_asked(network, Which::Given).await?;
                    return Err(refused);
                }
            }
        }
        Ok(given)
    }

    /// Asks for an address: the one wanted, or one of the first pool of the family that has one.
    pub(super) async fn ask_address(
        &self,
        ipam: &Ipam,
        network: &NetworkRecord,
        ((family, wanted), (endpoint, mac)): ((Family, Option<IpAddr>), Who),
    ) -> Result<Option<Prefix>, ControllerError> {
        let driver = self.ipam_driver(&ipam.driver).await?;
        self.replay(&*driver, ipam, network).await?;
        let mut refused = None;
        let pools = network.subnets.iter().zip(&ipam.pools);
        for (subnet, held) in pools.filter(|(subnet, _)| Family::of(subnet.gateway) == family) {
            if wanted.is_some_and(|wanted| !subnet.prefix.0.contains(&wanted)) {
                continue;
            }
            let asked = AskedAddress {
                network: network.id,
                endpoint,
                family,
                pool: held.id.clone(),
                wanted,
                mac,
                given: None,
            };
            let pool = ipam.pool(subnet, &held.id);
            match self.ask_noted(&*driver, &pool, asked.clone()).await {
                Ok(address) => {
                    let checked = self.check_given(network, (subnet, held), address).await;
                    if checked.is_err() {
                        // Whoever has it keeps it.
                        self.forget_asked(asked).await?;
                    }
                    return checked;
                }
                // It may have taken one of this pool: that must be settled before another is asked for.
                Err(doubtful) if self.has_asked(&asked).await? => return Err(doubtful),
                Err(error) => refused = Some(error),
            }
        }
        match (refused, wanted) {
            (Some(refused), _) => Err(refused),
            (None, Some(address)) => Err(ControllerError::NoSubnet {
                network: network.name.clone(),
                address,
            }),
            (None, None) => Ok(None),
        }
    }

    async fn has_asked(&self, asked: &AskedAddress) -> Result<bool, ControllerError> {
        let all = self.disk(|store| store.intended_addresses()).await?;
        Ok(all.contains(asked))
    }

    /// Refuses an address that is the gateway's or reserved, or that this node's endpoints have, whatever the driver says.
    async fn check_given(
        &self,
        network: &NetworkRecord,
        (subnet, pool): (&Subnet, &HeldPool),
        address: IpAddr,
    ) -> Result<Option<Prefix>, ControllerError> {
        let own = self.own_records(network.id).await?;
        let of_endpoints = own.iter().flat_map(EndpointRecord::addresses);
        let of_endpoints = of_endpoints.map(|held| held.0.addr());
        if pool
            .own_addresses()
            .chain(of_endpoints)
            .any(|held| held == address)
        {
            return Err(ControllerError::AddressInUse { address });
        }
        let prefix = ipnet::IpNet::new(address, subnet.prefix.0.prefix_len());
        Ok(prefix.ok().map(Prefix))
    }

    /// Asks a driver again for what is in use, if it needs that and has not been asked in this life of it.
    pub(super) async fn replay(
        &self,
        driver: &dyn IpamDriver,
        ipam: &Ipam,
        network: &NetworkRecord,
    ) -> Result<(), ControllerError> {
        if !driver.capability().requires_replay {
            return Ok(());
        }
        for (subnet, held) in network.subnets.iter().zip(&ipam.pools) {
            if driver.holds(&held.id) {
                continue;
            }
            let request = PoolRequest {
                space: ipam.space.clone(),
                pool: Some(subnet.prefix),
                range: held.range,
                options: ipam.options.clone(),
                v6: subnet.gateway.is_ipv6(),
            };
            let pool = driver.request_pool(&request).await?;
            let own = self.own_records(network.id).await?;
            let of_endpoints = own.iter().flat_map(EndpointRecord::addresses);
            let of_endpoints = of_endpoints.map(|address| address.0.addr());
            for address in of_endpoints.chain(held.own_addresses()) {
                let request = AddressRequest {
                    address: Some(address),
                    is_gateway: address == held.gateway,
                    mac: None,
                };
                if subnet.prefix.0.contains(&address)
                    && let Err(error) = driver.request_address(&pool, request).await
                {
                    tracing::warn!(network = %network.name, %address, %error, "an IPAM driver was not told of an address in use");
                }
            }
        }
        Ok(())
    }

    pub(super) async fn ipam_driver(
        &self,
        name: &Name,
    ) -> Result<Arc<dyn IpamDriver>, ControllerError> {
        Ok(self.parts.registry.ipam(name, self.now()).await?)
    }
}

/// Takes a pool with its gateway, and the reserved addresses of it. The gateway is the one asked for, else the driver's own choice
/// (M10), else an address of the pool. On failure nothing stays held.
async fn take_subnet(
    driver: &dyn IpamDriver,
    ipam: &Ipam,
    (wish, v6): (SubnetRequest, bool),
    taken: &[Prefix],
) -> Result<(HeldPool, SubnetRequest), IpamError> {
    let request = PoolRequest {
        space: ipam.space.clone(),
        pool: wish.prefix,
        range: wish.range,
        options: ipam.options.clone(),
        v6,
    };
    let pool = pick_pool(driver, &request, taken).await?;
    let mut asked = Vec::new();
    let outcome = async {
        // What is named first: the driver would choose one of these for the gateway.
        for reserved in &wish.reserved {
            take_address(driver, (&pool, Some(*reserved), false), &mut asked).await?;
        }
        match (wish.gateway, pool.gateway) {
            (None, Some(gateway)) => Ok(gateway),
            (wanted, _) => take_address(driver, (&pool, wanted, true), &mut asked).await,
        }
    };
    match outcome.await {
        Ok(gateway) => {
            let held = HeldPool {
                id: pool.id,
                range: wish.range,
                gateway,
                reserved: wish.reserved.clone(),
            };
            let given = SubnetRequest {
                prefix: Some(pool.prefix),
                gateway: Some(gateway),
                ..wish
            };
            Ok((held, given))
        }
        Err(error) => {
            release_pool(driver, &pool.id, asked).await;
            Err(error)
        }
    }
}

/// Asks for an address that is no endpoint's, and notes it in `asked`.
async fn take_address(
    driver: &dyn IpamDriver,
    (pool, address, is_gateway): (&Pool, Option<IpAddr>, bool),
    asked: &mut Vec<IpAddr>,
) -> Result<IpAddr, IpamError> {
    let request = AddressRequest {
        address,
        is_gateway,
        mac: None,
    };
    let given = driver.request_address(pool, request).await?;
    asked.push(given);
    Ok(given)
}

async fn release_pools(driver: &dyn IpamDriver, pools: &[HeldPool]) {
    for pool in pools {
        release_pool(driver, &pool.id, pool.own_addresses()).await;
    }
}

/// Gives a pool back, after what was taken of it for no endpoint.
async fn release_pool(
    driver: &dyn IpamDriver,
    pool: &str,
    addresses: impl IntoIterator<Item = IpAddr>,
) {
    for address in addresses {
        if let Err(error) = driver.release_address(pool, address).await {
            tracing::debug!(pool, %address, %error, "an address goes back with its pool");
        }
    }
    if let Err(error) = driver.release_pool(pool).await {
        tracing::warn!(pool, %error, "a pool was not given back");
    }
}
