//! Addresses: handed out from blocks that the leader leased to this node, so that only a new block needs the leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use super::{Controller, ControllerError};
use crate::core::{
    allocator::{Action, AllocatorError, BLOCKS_TABLE, Outcome},
    ipam::{AddressError, Block},
    model::{BlockRecord, Instant, NetworkId, NetworkRecord, Prefix, Subnet, TableName},
    wire::codec,
};

/// The blocks of this node in one network. Who holds it is the only one who changes the network's endpoints on this node.
#[derive(Debug, Default)]
pub(super) struct Hand {
    blocks: Vec<Block>,
    /// Given back: the DB may still show them for a moment.
    returned: BTreeSet<Prefix>,
}

/// One hand for each network.
#[derive(Debug, Default)]
pub(super) struct Hands {
    hands: Mutex<BTreeMap<NetworkId, Arc<tokio::sync::Mutex<Hand>>>>,
}

impl Hands {
    /// Waits until nobody else changes the network's endpoints.
    pub(super) async fn hold(&self, network: NetworkId) -> OwnedMutexGuard<Hand> {
        let hand = self.hands().entry(network).or_default().clone();
        hand.lock_owned().await
    }

    /// Forgets a network that is no more.
    pub(super) fn forget(&self, network: NetworkId) {
        self.hands().remove(&network);
    }

    fn hands(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Arc<tokio::sync::Mutex<Hand>>>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hand {
    fn has(&self, prefix: Prefix) -> bool {
        self.blocks.iter().any(|block| block.prefix() == prefix)
    }

    /// Adds a block of a subnet; these addresses are in use from the start.
    fn add(&mut self, prefix: Prefix, subnets: &[Subnet], used: &[IpAddr]) {
        let inside = |subnet: &&Subnet| subnet.prefix.0.contains(&prefix.0.addr());
        let Some(subnet) = subnets.iter().find(inside) else {
            return;
        };
        let mut block = Block::new(prefix, subnet.prefix, Some(subnet.gateway));
        for address in used {
            // Refused when it belongs to another block.
            let _ = block.claim(*address);
        }
        self.returned.remove(&prefix);
        self.blocks.push(block);
    }

    fn take(&mut self, now: Instant) -> Option<IpAddr> {
        self.blocks
            .iter_mut()
            .find_map(|block| block.take(now).ok())
    }

    /// Takes exactly this address; nothing if it is in none of our blocks.
    fn claim(&mut self, address: IpAddr) -> Option<Result<(), AddressError>> {
        let block = self
            .blocks
            .iter_mut()
            .find(|block| block.prefix().0.contains(&address))?;
        Some(block.claim(address))
    }

    /// Gives an address back, and returns its block if it was leased for that address alone.
    fn release(&mut self, address: IpAddr, now: Instant) -> Option<Prefix> {
        let at = self
            .blocks
            .iter()
            .position(|block| block.prefix().0.contains(&address))?;
        let block = self.blocks.get_mut(at)?;
        block.release(address, now);
        let prefix = block.prefix();
        if prefix.0.prefix_len() < prefix.0.max_prefix_len() {
            return None;
        }
        self.blocks.remove(at);
        self.returned.insert(prefix);
        Some(prefix)
    }
}

impl Controller {
    /// Finds an address for a new endpoint: the one asked for, or the next of our blocks, or the first of a new block.
    pub(super) async fn take_address(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        wanted: Option<IpAddr>,
    ) -> Result<Option<Prefix>, ControllerError> {
        if network.subnets.is_empty() {
            return match wanted {
                None => Ok(None),
                Some(address) => Err(ControllerError::NoSubnet {
                    network: network.name.clone(),
                    address,
                }),
            };
        }
        self.look_up_blocks(hand, network).await?;
        let address = match wanted {
            Some(address) => self.claim_address(hand, network, address).await?,
            None => self.next_address(hand, network).await?,
        };
        Ok(with_length(network, address))
    }

    /// Gives the address of a removed endpoint back.
    pub(super) async fn release_address(
        &self,
        hand: &mut Hand,
        network: NetworkId,
        address: Option<Prefix>,
    ) {
        let alone = address.and_then(|address| hand.release(address.0.addr(), self.now()));
        let Some(prefix) = alone else { return };
        let node = self.parts.node;
        let returned = Action::ReturnBlock {
            network,
            node,
            prefix,
        };
        if let Err(error) = self.propose(returned).await {
            // It stays leased to us: nobody else gets it, and the next claim here finds it.
            tracing::warn!(%network, %prefix, %error, "the lease of an address was not given back");
            hand.returned.remove(&prefix);
        }
    }

    async fn next_address(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
    ) -> Result<IpAddr, ControllerError> {
        if let Some(address) = hand.take(self.now()) {
            return Ok(address);
        }
        let leased = Action::LeaseBlock {
            network: network.id,
            node: self.parts.node,
        };
        self.add_leased(hand, network, leased).await?;
        hand.take(self.now())
            .ok_or(ControllerError::Broken("a new block has no free address"))
    }

    async fn claim_address(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        address: IpAddr,
    ) -> Result<IpAddr, ControllerError> {
        let mut claimed = hand.claim(address);
        if claimed.is_none() {
            let leased = Action::ClaimAddress {
                network: network.id,
                node: self.parts.node,
                address,
            };
            self.add_leased(hand, network, leased).await?;
            claimed = hand.claim(address);
        }
        match claimed {
            Some(Ok(())) => Ok(address),
            Some(Err(AddressError::InUse(address))) => {
                Err(ControllerError::AddressInUse { address })
            }
            Some(Err(AddressError::OutOfRange { address, .. })) => {
                Err(ControllerError::Refused(AllocatorError::BadAddress {
                    address,
                    network: network.id,
                }))
            }
            Some(Err(AddressError::Exhausted(_))) | None => Err(ControllerError::Broken(
                "the leader leased an address that is in no block",
            )),
        }
    }

    async fn add_leased(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        leased: Action,
    ) -> Result<(), ControllerError> {
        let Outcome::Block(block) = self.propose(leased).await? else {
            return Err(ControllerError::Broken(
                "the leader answered a lease with something else",
            ));
        };
        if !hand.has(block.prefix) {
            let used = self.used_addresses(network.id).await?;
            hand.add(block.prefix, &network.subnets, &used);
        }
        Ok(())
    }

    /// Adds the blocks that the DB shows as ours: after a start all of them, later none.
    async fn look_up_blocks(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
    ) -> Result<(), ControllerError> {
        let listed = self
            .parts
            .handle
            .list(NetworkId::CLUSTER, Some(blocks_table()))
            .await?;
        let blocks = listed
            .iter()
            .filter_map(|entry| codec::decode::<BlockRecord>(entry.value.as_bytes()).ok());
        let ours =
            |block: &BlockRecord| block.network == network.id && block.node == self.parts.node;
        let missing: Vec<Prefix> = blocks
            .filter(ours)
            .map(|block| block.prefix)
            .filter(|prefix| !hand.has(*prefix) && !hand.returned.contains(prefix))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let used = self.used_addresses(network.id).await?;
        for prefix in missing {
            hand.add(prefix, &network.subnets, &used);
        }
        Ok(())
    }

    /// Returns the addresses that endpoints of this node have, or an engine holds.
    async fn used_addresses(&self, network: NetworkId) -> Result<Vec<IpAddr>, ControllerError> {
        let records = self.own_records(network).await?;
        let held = self.disk(|store| store.held_addresses()).await?;
        let of_endpoints = records.iter().filter_map(|record| record.address);
        let held = held.into_iter().filter(|(of, _)| *of == network);
        Ok(of_endpoints
            .map(|address| address.0.addr())
            .chain(held.map(|(_, address)| address))
            .collect())
    }
}

fn blocks_table() -> TableName {
    TableName::new(BLOCKS_TABLE).expect("letters are a table name")
}

fn with_length(network: &NetworkRecord, address: IpAddr) -> Option<Prefix> {
    let inside = |subnet: &&Subnet| subnet.prefix.0.contains(&address);
    let length = network.subnets.iter().find(inside)?.prefix.0.prefix_len();
    ipnet::IpNet::new(address, length).ok().map(Prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_endpoints_on_disk_are_not_handed_out_again() {
        let mut hand = Hand::default();
        hand.add(prefix("10.0.0.8/29"), &[subnet()], &[ip("10.0.0.8")]);

        let first = hand.take(Instant::default());

        assert_eq!(first, Some(ip("10.0.0.9")));
        assert!(matches!(
            hand.claim(ip("10.0.0.8")),
            Some(Err(AddressError::InUse(_)))
        ));
    }

    #[test]
    fn a_lease_of_one_address_is_given_back_and_a_block_is_kept() {
        let mut hand = Hand::default();
        hand.add(prefix("10.0.0.8/29"), &[subnet()], &[]);
        hand.add(prefix("10.0.0.50/32"), &[subnet()], &[ip("10.0.0.50")]);

        assert_eq!(
            hand.release(ip("10.0.0.50"), Instant::default()),
            Some(prefix("10.0.0.50/32"))
        );
        assert!(!hand.has(prefix("10.0.0.50/32")));
        assert_eq!(hand.release(ip("10.0.0.9"), Instant::default()), None);
        assert!(hand.has(prefix("10.0.0.8/29")));
    }

    #[test]
    fn an_address_of_nobodys_block_must_be_asked_for() {
        let mut hand = Hand::default();
        hand.add(prefix("10.0.0.8/29"), &[subnet()], &[]);

        assert_eq!(hand.claim(ip("10.0.0.50")), None);
    }

    fn subnet() -> Subnet {
        Subnet {
            prefix: prefix("10.0.0.0/24"),
            gateway: ip("10.0.0.1"),
            vni: None,
        }
    }

    fn prefix(text: &str) -> Prefix {
        Prefix(text.parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
