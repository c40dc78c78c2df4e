//! What only logs of the first version say: it is applied as it was, in the words of today, and nobody proposes it any more.

use std::net::IpAddr;

use super::{
    Action, Allocator, AllocatorError, Command, NetworkWish, Outcome, SubnetRequest, SubnetWish,
};
use crate::core::{
    ipam::SpaceName,
    model::{Hlc, NetworkId, NodeId, Prefix},
};

impl Allocator {
    /// Prefixes are taken as they are meant.
    pub(super) fn create_network(&mut self, command: &Command) -> Result<Outcome, AllocatorError> {
        let Action::CreateNetwork {
            name,
            driver,
            options,
            subnets,
            vxlan,
        } = &command.action
        else {
            return Err(AllocatorError::NotFounded);
        };
        let meant = |subnet: &SubnetRequest| {
            let prefix = subnet.prefix.map(|prefix| Prefix(prefix.0.trunc()));
            SubnetWish::from(SubnetRequest { prefix, ..*subnet })
        };
        let wish = NetworkWish {
            name: name.clone(),
            driver: driver.clone(),
            options: options.clone(),
            subnets: subnets.iter().map(meant).collect(),
            vxlan: *vxlan,
            v6: false,
            avoid: Vec::new(),
        };
        self.allocate_network(command.at, &wish, SpaceName::Global)
    }

    pub(super) fn lease_block(
        &mut self,
        at: Hlc,
        network: NetworkId,
        node: NodeId,
    ) -> Result<Outcome, AllocatorError> {
        let subnets = self.subnets_for(network, node)?;
        let (record, _) = self.lease_next(at, (network, node), (&subnets, |_| 0))?;
        Ok(Outcome::Block(record))
    }

    /// The node asks for its own address twice only when an answer got lost, so that is no error.
    pub(super) fn claim_address(
        &mut self,
        at: Hlc,
        (network, node): (NetworkId, NodeId),
        address: IpAddr,
    ) -> Result<Outcome, AllocatorError> {
        let (record, is_held) = self.claimed(at, (network, node), address)?;
        if !is_held {
            self.lease(at, &record);
        }
        Ok(Outcome::Block(record))
    }
}
