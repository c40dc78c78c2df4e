//! The contract between Weft and an IPAM driver: who hands out a network's pools and addresses in place of the cluster's leader.

use std::{collections::BTreeMap, net::IpAddr};

use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::DriverError;
use crate::core::model::{Mac, Prefix};

/// How often a driver is asked for another pool, since the one before overlaps what is there.
const TRIES_MAX: usize = 32;

/// What an IPAM driver needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct IpamCapability {
    /// The endpoint's MAC address with each request for an address.
    pub requires_mac: bool,
    /// To be asked again for the pools and addresses that are in use, after it was restarted.
    pub requires_replay: bool,
}

/// The names of a driver's address spaces.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Spaces {
    /// Of networks of one node.
    pub local: String,
    /// Of networks of the cluster.
    pub global: String,
}

/// A pool that somebody wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PoolRequest {
    /// In which address space.
    pub space: String,
    /// Which; nothing: one that the driver chooses.
    pub pool: Option<Prefix>,
    /// The part of it that addresses are to come from; nothing: all of it.
    pub range: Option<Prefix>,
    /// Options for the driver.
    pub options: BTreeMap<String, String>,
    /// Whether it shall be of IPv6.
    pub v6: bool,
}

/// A pool that a driver has handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// What the driver calls it.
    pub id: String,
    /// Its addresses.
    pub prefix: Prefix,
    /// The gateway, if the driver has chosen one.
    pub gateway: Option<IpAddr>,
}

/// An address that somebody wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressRequest {
    /// Which; nothing: one that the driver chooses.
    pub address: Option<IpAddr>,
    /// Whether it is for the gateway.
    pub is_gateway: bool,
    /// The MAC address of who gets it.
    pub mac: Option<Mac>,
}

/// Why there is no pool or address. Nothing of it stays held.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// The driver did not do it.
    #[error("IPAM {0}")]
    Driver(#[from] DriverError),
    /// The driver has none left.
    #[error("IPAM driver {driver} returned no address of pool {pool}")]
    NoAddress {
        /// The driver.
        driver: String,
        /// The pool.
        pool: String,
    },
    /// All that the driver offered overlaps what is there. Name a pool, or make room.
    #[error("each of {tried} pools that the IPAM driver offered overlaps a network that is there")]
    Overlap {
        /// How many it offered.
        tried: usize,
    },
}

/// An IPAM driver.
pub trait IpamDriver: Send + Sync {
    /// Says what it needs.
    fn capability(&self) -> IpamCapability;

    /// Says where it listens; nothing for one that is built in.
    fn address(&self) -> Option<String> {
        None
    }

    /// Names its address spaces.
    fn spaces(&self) -> Spaces;

    /// Hands out a pool. One that was asked for by name is that one, or refused.
    fn request_pool<'a>(
        &'a self,
        request: &'a PoolRequest,
    ) -> BoxFuture<'a, Result<Pool, IpamError>>;

    /// Takes a pool back.
    fn release_pool<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<(), IpamError>>;

    /// Hands out an address of a pool.
    fn request_address<'a>(
        &'a self,
        pool: &'a Pool,
        request: AddressRequest,
    ) -> BoxFuture<'a, Result<IpAddr, IpamError>>;

    /// Takes an address back.
    fn release_address<'a>(
        &'a self,
        pool: &'a str,
        address: IpAddr,
    ) -> BoxFuture<'a, Result<(), IpamError>>;

    /// Returns whether it has handed out this pool in this life of it.
    fn holds(&self, pool: &str) -> bool;

    /// Is cancelled when the driver has lost all that it was told. Then the registry has another one of its name.
    fn life(&self) -> CancellationToken;

    /// Looks whether the driver is still the one that was told, and ends its life if it is not.
    fn look(&self) -> BoxFuture<'_, ()>;
}

/// Asks for a pool that overlaps nothing of what is there.
///
/// The driver does not know what is there, so it is asked again while what it returned is held: else it would return the same.
/// All but the last go back. A pool that was asked for by name is not judged.
pub async fn pick_pool(
    driver: &dyn IpamDriver,
    request: &PoolRequest,
    taken: &[Prefix],
) -> Result<Pool, IpamError> {
    let mut rejected = Vec::new();
    let outcome = loop {
        match driver.request_pool(request).await {
            Ok(pool) if request.pool.is_some() || is_free(pool.prefix, taken) => break Ok(pool),
            Ok(pool) => rejected.push(pool),
            Err(error) => break Err(error),
        }
        if rejected.len() == TRIES_MAX {
            let tried = rejected.len();
            break Err(IpamError::Overlap { tried });
        }
    };
    for pool in rejected {
        if let Err(error) = driver.release_pool(&pool.id).await {
            tracing::warn!(pool = pool.id, %error, "a pool that overlaps was not given back");
        }
    }
    outcome
}

/// Everything overlaps all addresses, and whoever hands those out means none in particular.
fn is_free(prefix: Prefix, taken: &[Prefix]) -> bool {
    let overlaps = |held: &Prefix| {
        held.0.contains(&prefix.0.network()) || prefix.0.contains(&held.0.network())
    };
    prefix.0.prefix_len() == 0 || !taken.iter().any(overlaps)
}
