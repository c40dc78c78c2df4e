//! Addresses that an IPAM driver was asked for and that no endpoint has: they go back.
//!
//! The protocol has no list of what a driver has handed out, and a driver outlives this daemon. So that an address is asked for is
//! on disk before it is, the answer is as soon as it is there, and both go with the write of the endpoint that has the address. What
//! is on disk while nobody makes an endpoint was left by a daemon that died, or was not given back yet.
//!
//! **Invariant:** an address goes back only if the driver has handed it out to us, and no endpoint of ours has it.

use std::net::IpAddr;

use super::{
    Controller, ControllerError,
    engine::has,
    ipam::{Ipam, Who},
};
use crate::{
    core::model::{NetworkId, NetworkRecord, Prefix},
    driver::{AddressRequest, DriverError, IpamDriver, IpamError, Pool},
    store::AskedAddress,
};

/// Which addresses are given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    /// Those that the driver has answered: it answers.
    Given,
    /// Those too of which that is not known. The driver is asked again, and may hang as it did.
    All,
}

impl Which {
    fn has(self, asked: &AskedAddress) -> bool {
        match self {
            Self::Given => asked.given.is_some(),
            Self::All => true,
        }
    }
}

impl Controller {
    /// Asks a driver for an address, and writes down that it is asked and what it answers.
    pub(super) async fn ask_noted(
        &self,
        driver: &dyn IpamDriver,
        pool: &Pool,
        mut asked: AskedAddress,
    ) -> Result<IpAddr, ControllerError> {
        self.note_asked(asked.clone()).await?;
        match driver.request_address(pool, request(&asked)).await {
            Ok(given) => {
                asked.given = Some(given);
                self.note_asked(asked).await?;
                Ok(given)
            }
            Err(error) => {
                if is_clear(&error) {
                    self.forget_asked(asked).await?;
                }
                Err(error.into())
            }
        }
    }

    /// Writes down that an endpoint's addresses are about to go back: they do even if this daemon dies.
    pub(super) async fn note_leaving(
        &self,
        ipam: &Ipam,
        network: &NetworkRecord,
        (who, addresses): (Who, &[Prefix]),
    ) -> Result<(), ControllerError> {
        for address in addresses {
            let address = address.0.addr();
            if let Some(asked) = ipam.asked_for(network, who, address) {
                self.note_asked(asked).await?;
            }
        }
        Ok(())
    }

    /// Gives back what drivers were asked for in a network and what no endpoint has. What does not go back now is tried again.
    ///
    /// Nobody may be making an endpoint of the network.
    pub(super) async fn return_asked(
        &self,
        network: &NetworkRecord,
        which: Which,
    ) -> Result<(), ControllerError> {
        let mut all = self.disk(|store| store.intended_addresses()).await?;
        all.retain(|asked| asked.network == network.id && which.has(asked));
        for asked in all {
            match self.return_one(network, &asked).await {
                Ok(()) => self.forget_asked(asked).await?,
                Err(error) => {
                    let address = asked.given.or(asked.wanted);
                    tracing::warn!(network = %network.name, ?address, %error, "an address is not given back yet");
                }
            }
        }
        Ok(())
    }

    /// As [`Self::return_asked`], for all networks.
    pub(super) async fn return_all_asked(&self) -> Result<(), ControllerError> {
        let asked = self.disk(|store| store.intended_addresses()).await?;
        let mut networks: Vec<NetworkId> = asked.iter().map(|asked| asked.network).collect();
        networks.dedup();
        for network in networks {
            // One that was removed is forgotten with all that was asked for it.
            if let Ok(network) = self.network_by_id(network).await {
                let _hand = self.desk.hands.hold(network.id).await;
                self.return_asked(&network, Which::All).await?;
            }
        }
        Ok(())
    }

    async fn return_one(
        &self,
        network: &NetworkRecord,
        asked: &AskedAddress,
    ) -> Result<(), ControllerError> {
        let Some(ipam) = Ipam::of(network) else {
            return Ok(());
        };
        let Some(pool) = ipam.pool_of(network, &asked.pool) else {
            return Ok(());
        };
        if let Some(given) = asked.given
            && self.is_ours(network.id, given).await?
        {
            return Ok(());
        }
        let driver = self.ipam_driver(&ipam.driver).await?;
        self.replay(&*driver, &ipam, network).await?;
        let given = match asked.given {
            Some(given) => given,
            None => match self.ask_again(&*driver, &pool, network, asked).await? {
                Some(given) => given,
                None => return Ok(()),
            },
        };
        driver.release_address(&pool.id, given).await?;
        tracing::info!(network = %network.name, address = %given, "an address that was asked for and that nobody has is given back");
        Ok(())
    }

    /// Asks for an address as before: who gets one in the name of a MAC address gets the same again. Nothing if it is not ours to
    /// give back.
    async fn ask_again(
        &self,
        driver: &dyn IpamDriver,
        pool: &Pool,
        network: &NetworkRecord,
        asked: &AskedAddress,
    ) -> Result<Option<IpAddr>, ControllerError> {
        let capability = driver.capability();
        if !capability.requires_mac {
            tracing::warn!(
                network = %network.name, pool = pool.id, address = ?asked.wanted,
                "this daemon died while it asked an IPAM driver for an address: the driver may keep one that nobody has, and cannot be asked which"
            );
        }
        match driver.request_address(pool, request(asked)).await {
            Ok(given) if self.is_ours(network.id, given).await? => Ok(None),
            Ok(given) => Ok(Some(given)),
            Err(error) if is_clear(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an endpoint of this node has the address, or an engine holds it.
    async fn is_ours(&self, network: NetworkId, address: IpAddr) -> Result<bool, ControllerError> {
        let own = self.own_records(network).await?;
        let is_had = own.iter().any(|record| has(record, network, address));
        Ok(is_had || self.is_held(network, address).await?)
    }

    pub(super) async fn note_asked(&self, asked: AskedAddress) -> Result<(), ControllerError> {
        self.disk(move |store| store.intend_address(&asked)).await
    }

    pub(super) async fn forget_asked(&self, asked: AskedAddress) -> Result<(), ControllerError> {
        self.disk(move |store| store.drop_intended_address(&asked))
            .await
    }
}

fn request(asked: &AskedAddress) -> AddressRequest {
    AddressRequest {
        address: asked.wanted,
        is_gateway: false,
        mac: asked.mac,
    }
}

/// Whether there is nothing to give back: the driver has handed nothing out, or its answer cannot be understood, and would not be
/// if it were asked again.
fn is_clear(error: &IpamError) -> bool {
    match error {
        IpamError::NoAddress { .. } | IpamError::Overlap { .. } => true,
        IpamError::Driver(error) => matches!(
            error,
            DriverError::Refused { .. } | DriverError::Protocol { .. }
        ),
    }
}
