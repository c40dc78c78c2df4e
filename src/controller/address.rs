//! Addresses: handed out from blocks that the leader leased to this node, so that only a new block needs the leader.
//!
//! **Invariant:** between a start and the leader's first answer nothing is handed out: only the leader knows whether what this
//! node had is still its own. What a lost answer leased, or took back, is asked for before anything else is.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::OwnedMutexGuard, time::MissedTickBehavior};

use super::{Controller, ControllerError};
use crate::{
    core::{
        allocator::{Action, AllocatorError, Outcome},
        ipam::{self, AddressError, Fresh, Lease},
        model::{EndpointRecord, Family, NetworkId, NetworkRecord, Prefix, Subnet},
    },
    runtime::Stopped,
};

/// How often leases that nobody needs are looked for.
const RETURN_EVERY: Duration = Duration::from_secs(1);
/// How long a return waits each time for the others to hear that the endpoint is gone.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// The addresses of this node in one network. Who holds it is the only one who changes the network's endpoints on this node.
#[derive(Debug, Default)]
pub(super) struct Hand {
    addresses: ipam::Hand,
    /// The leader named this node's leases since the node started.
    was_told: bool,
    /// And no answer of it was lost since.
    is_sure: bool,
    /// Addresses whose lease goes back once everybody has heard that their endpoint is gone, each with the removal's number.
    leaving: BTreeMap<IpAddr, u64>,
    /// How many there were: what was heard of one removal says nothing of the next.
    removals: u64,
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

    /// As [`Self::hold`], but only for a network whose endpoints were changed here before.
    async fn hold_known(&self, network: NetworkId) -> Option<OwnedMutexGuard<Hand>> {
        let hand = self.hands().get(&network)?.clone();
        Some(hand.lock_owned().await)
    }

    /// Forgets a network that is no more.
    pub(super) fn forget(&self, network: NetworkId) {
        self.hands().remove(&network);
    }

    fn networks(&self) -> Vec<NetworkId> {
        self.hands().keys().copied().collect()
    }

    fn hands(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Arc<tokio::sync::Mutex<Hand>>>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hand {
    /// Takes over a lease of a network as if the leader had just made it.
    #[cfg(test)]
    pub(super) fn lease(&mut self, network: &NetworkRecord, lease: Lease) {
        let inside = |subnet: &&Subnet| subnet.prefix.0.contains(&lease.prefix.0);
        let subnet = network.subnets.iter().find(inside).unwrap();
        self.addresses.adopt(
            lease,
            subnet,
            [],
            Fresh::Yes(crate::core::model::Instant::default()),
        );
        (self.is_sure, self.was_told) = (true, true);
    }
}

impl Controller {
    /// Finds addresses for a new endpoint: one of each family that the network has, these among them. A failure leaves none
    /// taken.
    pub(super) async fn take_addresses(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        wanted: &[IpAddr],
    ) -> Result<Vec<Prefix>, ControllerError> {
        let mut taken = Vec::new();
        for (family, wanted) in wishes(network, wanted)? {
            match self.take_address(hand, network, (family, wanted)).await {
                Ok(address) => taken.extend(address),
                Err(refused) => {
                    for address in taken {
                        self.release_address(hand, address);
                    }
                    return Err(refused);
                }
            }
        }
        Ok(taken)
    }

    /// Finds an address: the one asked for, or the next of our blocks, or the first of a new block.
    pub(super) async fn take_address(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        (family, wanted): (Family, Option<IpAddr>),
    ) -> Result<Option<Prefix>, ControllerError> {
        let address = match wanted {
            Some(address) => self.claim_address(hand, network, address).await?,
            None => self.next_address(hand, network, family).await?,
        };
        Ok(with_length(network, address))
    }

    /// Lets the address of a removed endpoint rest. A lease that was made for it alone goes back when everybody has heard.
    pub(super) fn release_address(&self, hand: &mut Hand, address: Prefix) {
        let address = address.0.addr();
        hand.addresses.release(address, self.now());
        if hand.addresses.single(address).is_some() {
            hand.removals += 1;
            hand.leaving.insert(address, hand.removals);
        }
    }

    async fn next_address(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        family: Family,
    ) -> Result<IpAddr, ControllerError> {
        if let Ok(address) = hand.addresses.take(family, self.now()) {
            return Ok(address);
        }
        self.make_sure(hand, network).await?;
        let reason = match hand.addresses.take(family, self.now()) {
            Ok(address) => return Ok(address),
            Err(reason) => reason,
        };
        let grown = Action::GrowFamily {
            network: network.id,
            node: self.parts.node,
            family,
        };
        match self.add_leased(hand, network, grown).await {
            Ok(()) => {}
            Err(full @ ControllerError::Refused(AllocatorError::NoFreeAddress(_))) => {
                // Nothing else is free in all of the network: the rest of an address is cut short.
                return hand.addresses.take_resting(family).ok_or(full);
            }
            Err(ControllerError::NoLeader) => {
                let network = network.name.clone();
                return Err(ControllerError::NoAddressAlone { network, reason });
            }
            Err(refused) => return Err(refused),
        }
        let taken = hand.addresses.take(family, self.now()).ok();
        taken
            .or_else(|| hand.addresses.take_resting(family))
            .ok_or(ControllerError::Broken("a new block has no free address"))
    }

    async fn claim_address(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        address: IpAddr,
    ) -> Result<IpAddr, ControllerError> {
        let mut claimed = hand.addresses.claim(address);
        if claimed.is_none() {
            self.make_sure(hand, network).await?;
            claimed = hand.addresses.claim(address);
        }
        if claimed.is_none() {
            let leased = Action::HoldAddress {
                network: network.id,
                node: self.parts.node,
                address,
            };
            self.add_leased(hand, network, leased).await?;
            claimed = hand.addresses.claim(address);
        }
        match claimed {
            Some(Ok(())) => {
                hand.leaving.remove(&address);
                Ok(address)
            }
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

    /// Has the leader name this node's leases in the network, unless nothing can have changed since it did.
    async fn make_sure(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
    ) -> Result<(), ControllerError> {
        if hand.is_sure {
            return Ok(());
        }
        let held = Action::HoldBlocks {
            network: network.id,
            node: self.parts.node,
        };
        let blocks = match self.propose(held).await {
            Ok(Outcome::Leases { blocks, .. }) => blocks,
            Ok(_) => {
                return Err(ControllerError::Broken(
                    "the leader answered a question for leases with something else",
                ));
            }
            Err(ControllerError::NoLeader) if !hand.was_told => {
                return Err(ControllerError::LeasesUnknown(network.name.clone()));
            }
            Err(refused) => return Err(refused),
        };
        // A former run may have released some of it a moment ago, or an answer that was lost may have named an address.
        let fresh = Fresh::No(self.now());
        for (prefix, number) in blocks {
            self.adopt(hand, network, (Lease { prefix, number }, fresh))
                .await?;
        }
        (hand.is_sure, hand.was_told) = (true, true);
        Ok(())
    }

    async fn add_leased(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        wanted: Action,
    ) -> Result<(), ControllerError> {
        let proposed = self.propose(wanted).await;
        if let Err(error) = &proposed
            && !changes_nothing(error)
        {
            hand.is_sure = false;
        }
        let Outcome::Leased(block, number) = proposed? else {
            return Err(ControllerError::Broken(
                "the leader answered a lease with something else",
            ));
        };
        let lease = Lease {
            prefix: block.prefix,
            number,
        };
        self.adopt(hand, network, (lease, Fresh::Yes(self.now())))
            .await
    }

    async fn adopt(
        &self,
        hand: &mut Hand,
        network: &NetworkRecord,
        (lease, fresh): (Lease, Fresh),
    ) -> Result<(), ControllerError> {
        let inside = |subnet: &&Subnet| subnet.prefix.0.contains(&lease.prefix.0);
        let Some(subnet) = network.subnets.iter().find(inside) else {
            return Ok(());
        };
        let used = self.used_addresses(network.id).await?;
        hand.addresses.adopt(lease, subnet, used, fresh);
        Ok(())
    }

    /// Returns the addresses that endpoints of this node have, or an engine holds.
    async fn used_addresses(&self, network: NetworkId) -> Result<Vec<IpAddr>, ControllerError> {
        let records = self.own_records(network).await?;
        let held = self.disk(|store| store.held_addresses()).await?;
        let of_endpoints = records.iter().flat_map(EndpointRecord::addresses);
        let held = held.into_iter().filter(|(of, _)| *of == network);
        Ok(of_endpoints
            .map(|address| address.0.addr())
            .chain(held.map(|(_, address)| address))
            .collect())
    }

    /// Gives back what nobody needs: single addresses once everybody has heard, and blocks once all they had has rested.
    pub(super) async fn return_leases(self) -> Result<(), Stopped> {
        let mut ticks = tokio::time::interval(RETURN_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for network in self.desk.hands.networks() {
                self.return_leases_of(network).await?;
            }
        }
    }

    async fn return_leases_of(&self, network: NetworkId) -> Result<(), Stopped> {
        let (leaving, idle) = {
            let Some(mut hand) = self.desk.hands.hold_known(network).await else {
                return Ok(());
            };
            (hand.leaving.clone(), hand.addresses.idle(self.now()))
        };
        let mut returns: Vec<(Prefix, Option<u64>)> = Vec::new();
        returns.extend(idle.into_iter().map(|lease| (lease.prefix, None)));
        if !leaving.is_empty() {
            match self.barrier(network, HEARD_WITHIN).await {
                Ok(applied) if applied.lacking.is_empty() => {
                    let single =
                        |(address, removal)| (Prefix(IpAddr::into(address)), Some(removal));
                    returns.extend(leaving.into_iter().map(single));
                }
                Ok(_) => {}
                Err(ControllerError::Stopped) => return Err(Stopped),
                Err(error) => {
                    tracing::debug!(%network, %error, "leases wait for the others to hear");
                }
            }
        }
        for (prefix, removal) in returns {
            // Without a leader it stays ours, and useful.
            if self.parts.raft.leader().is_some() {
                self.return_lease(network, prefix, removal).await;
            }
        }
        Ok(())
    }

    /// Gives a block back; one that was leased for a single address only after the removal that everybody has heard of.
    async fn return_lease(&self, network: NetworkId, prefix: Prefix, heard: Option<u64>) {
        let Some(mut hand) = self.desk.hands.hold_known(network).await else {
            return;
        };
        let address = prefix.0.addr();
        if heard.is_some() && hand.leaving.get(&address).copied() != heard {
            return;
        }
        hand.leaving.remove(&address);
        // In use again since, it stays.
        let Some(Lease { number, .. }) = hand.addresses.give_back(prefix, self.now()) else {
            return;
        };
        let node = self.parts.node;
        let returned = Action::ReturnLease {
            network,
            node,
            prefix,
            lease: number,
        };
        if let Err(error) = self.propose(returned).await {
            // It may go back yet, so it is not used until the leader has named our leases anew.
            hand.is_sure = false;
            tracing::debug!(%network, %prefix, %error, "whether a lease was given back is not known");
        }
    }
}

/// Returns whether a proposal that ended so has changed nothing and never will.
fn changes_nothing(error: &ControllerError) -> bool {
    matches!(
        error,
        ControllerError::NoLeader
            | ControllerError::Refused(_)
            | ControllerError::AddressInUse { .. }
            | ControllerError::NoSuchNetwork(_)
    )
}

/// Returns what is asked of each family that the network has.
pub(super) fn wishes(
    network: &NetworkRecord,
    wanted: &[IpAddr],
) -> Result<Vec<(Family, Option<IpAddr>)>, ControllerError> {
    let mut left = wanted.to_vec();
    let mut wishes = Vec::new();
    for family in network.families() {
        let at = left
            .iter()
            .position(|address| Family::of(*address) == family);
        wishes.push((family, at.map(|at| left.remove(at))));
    }
    match left.first() {
        None => Ok(wishes),
        Some(address) => Err(ControllerError::NoSubnet {
            network: network.name.clone(),
            address: *address,
        }),
    }
}

pub(super) fn with_length(network: &NetworkRecord, address: IpAddr) -> Option<Prefix> {
    let inside = |subnet: &&Subnet| subnet.prefix.0.contains(&address);
    let length = network.subnets.iter().find(inside)?.prefix.0.prefix_len();
    ipnet::IpNet::new(address, length).ok().map(Prefix)
}
