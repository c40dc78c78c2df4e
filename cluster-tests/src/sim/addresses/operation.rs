//! What a node does with the addresses of a network, step by step: as the controller does it.

use std::net::IpAddr;

use weft::core::{
    allocator::{Action, AllocatorError, Command, Outcome},
    ipam::{Fresh, Lease, NoAddress},
    model::{Family, Instant, NetworkId, NetworkRecord, NodeId, Prefix},
};

use super::{Defect, log::Applied, node::Node};

/// What is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// An endpoint with any address.
    Any,
    /// An endpoint with this address.
    Named(IpAddr),
    /// A block is not needed any more.
    Return(Prefix),
}

/// A wish that waits for the leader's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Operation {
    pub(super) wish: Wish,
    pub(super) command: Command,
    /// In milliseconds.
    pub(super) deadline: u64,
}

/// What comes of a step.
#[derive(Debug)]
pub(super) enum Step {
    /// The leader must be asked.
    Ask(Action),
    /// There is an address; `true`: before it has rested.
    Address(IpAddr, bool),
    /// It is done, or refused.
    Over,
}

impl Node {
    /// Does what can be done without the leader.
    pub(super) fn step(&mut self, network: NetworkId, wish: Wish, now: Instant) -> Step {
        let node = self.id;
        let desk = self.desks.entry(network).or_default();
        let found = match wish {
            Wish::Any => match desk.hand.take(Family::V4, now) {
                Ok(address) => Some(Step::Address(address, false)),
                Err(NoAddress::AllInUse | NoAddress::Resting { .. }) => None,
            },
            Wish::Named(address) => desk.hand.claim(address).map(|claimed| match claimed {
                Ok(()) => Step::Address(address, false),
                Err(_) => Step::Over,
            }),
            Wish::Return(_) => None,
        };
        if let Some(found) = found {
            return found;
        }
        if !desk.is_sure {
            return Step::Ask(Action::HoldBlocks { network, node });
        }
        match wish {
            Wish::Any => Step::Ask(Action::GrowBlocks { network, node }),
            Wish::Named(address) => Step::Ask(Action::HoldAddress {
                network,
                node,
                address,
            }),
            Wish::Return(prefix) => match desk.hand.give_back(prefix, now) {
                None => Step::Over,
                Some(Lease { prefix, number }) => Step::Ask(Action::ReturnLease {
                    network,
                    node,
                    prefix,
                    lease: number,
                }),
            },
        }
    }

    /// Goes on with the leader's answer.
    pub(super) fn answered(
        &mut self,
        network: &NetworkRecord,
        wish: Wish,
        applied: &Applied,
        (now, defect): (Instant, Option<Defect>),
    ) -> Step {
        let used = self.used(network.id);
        let desk = self.desks.entry(network.id).or_default();
        let mut adopt = |prefix: Prefix, number, fresh| {
            let inside = |subnet: &&weft::core::model::Subnet| subnet.prefix.0.contains(&prefix.0);
            if let Some(subnet) = network.subnets.iter().find(inside) {
                let lease = Lease { prefix, number };
                desk.hand.adopt(lease, subnet, used.iter().copied(), fresh);
            }
        };
        match applied {
            Ok(Outcome::Leases { blocks, .. }) => {
                let fresh = match defect == Some(Defect::ForgetRest) {
                    true => Fresh::Yes(now),
                    false => Fresh::No(now),
                };
                for (prefix, number) in blocks {
                    adopt(*prefix, *number, fresh);
                }
                desk.is_sure = true;
                self.step(network.id, wish, now)
            }
            Ok(Outcome::Leased(block, number)) => {
                adopt(block.prefix, *number, Fresh::Yes(now));
                match self.step(network.id, wish, now) {
                    // The leader leased what rests: there was nothing else.
                    Step::Ask(_) => self.unrested(network.id),
                    step @ (Step::Address(..) | Step::Over) => step,
                }
            }
            Err(AllocatorError::NoFreeAddress(_)) if wish == Wish::Any => self.unrested(network.id),
            Err(AllocatorError::StaleLease { .. }) => {
                desk.is_sure = false;
                Step::Over
            }
            Ok(Outcome::Done | Outcome::Block(_) | Outcome::Network(_) | Outcome::Key(_))
            | Err(_) => Step::Over,
        }
    }

    fn unrested(&mut self, network: NetworkId) -> Step {
        let desk = self.desks.entry(network).or_default();
        let found = desk.hand.take_resting(Family::V4);
        found.map_or(Step::Over, |address| Step::Address(address, true))
    }

    /// The leader's answer did not come: what it leased, or took back, is not known.
    pub(super) fn unanswered(&mut self, network: NetworkId) {
        if let Some(desk) = self.desks.get_mut(&network) {
            desk.is_sure = false;
            desk.operation = None;
        }
    }
}

/// Returns the question that gives a block back without saying which lease is meant.
pub(super) fn unnumbered(action: Action) -> Action {
    if let Action::ReturnLease {
        network,
        node,
        prefix,
        ..
    } = action
    {
        return Action::ReturnBlock {
            network,
            node,
            prefix,
        };
    }
    action
}

/// Returns who proposes the action for itself.
pub(super) fn of(action: &Action) -> Option<(NetworkId, NodeId)> {
    match action {
        Action::HoldBlocks { network, node }
        | Action::GrowBlocks { network, node }
        | Action::GrowFamily { network, node, .. }
        | Action::HoldAddress { network, node, .. }
        | Action::ReturnBlock { network, node, .. }
        | Action::ReturnLease { network, node, .. } => Some((*network, *node)),
        Action::Genesis { .. }
        | Action::CreateNetwork { .. }
        | Action::RemoveNetwork { .. }
        | Action::LeaseBlock { .. }
        | Action::ClaimAddress { .. }
        | Action::AdmitMember { .. }
        | Action::RemoveMember { .. }
        | Action::RotateToken { .. }
        | Action::AddKey { .. }
        | Action::PromoteKey { .. }
        | Action::RetireKeys
        | Action::ReplaceOptions { .. }
        | Action::AdmitNode { .. }
        | Action::RecordKey { .. }
        | Action::AllocateNetwork(_)
        | Action::AllocateLocal(_)
        | Action::SetPools(_)
        | Action::AnnounceAuthority { .. }
        | Action::PromoteAuthority { .. }
        | Action::RetireAuthority { .. }
        | Action::HurryAuthority => None,
    }
}
