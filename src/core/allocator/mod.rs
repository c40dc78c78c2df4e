//! What Raft has agreed: networks, VNIs, pools, address blocks, keys, members. `Command` → `apply` → `Outcome`.
//!
//! **Invariants:** `apply` depends on nothing but the state and the command, so every voter comes to the same state; a command
//! that is refused changes nothing; no two networks share a VNI or overlap in their subnets, no two nodes in their blocks; a
//! request that is applied again gets its first reply. What every node shall know of it comes out as the dots of the cluster log.

mod authority;
mod block;
mod command;
mod keys;
mod log;
mod member;
mod network;
mod overlay;
mod pools;
mod recover;
mod reply;
mod snapshot;
mod v1;
mod vni;
mod wish;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use block::block_length;
pub use command::{
    Action, AllocatorError, Command, Outcome, Secret, SubnetRequest, TokenSecret, VXLANID_LIST,
    VXLANID_LIST_DOCKER,
};
pub use log::TOMBSTONES_MAX;
pub use member::{Founding, MemberRecord};
pub use network::SUBNETS_MAX;
pub use overlay::vxlanid_option;
pub use pools::site_of;
pub use reply::REPLIES_MAX;
pub use snapshot::{SNAPSHOT_OLDEST, SNAPSHOT_VERSION, SnapshotError};
pub use vni::VNI_FIRST;
pub use wish::{AVOIDED_MAX, NetworkWish, RESERVED_MAX, SubnetWish};

use self::{authority::Authorities, block::Blocks, log::ClusterLog, reply::Replies, vni::Vnis};
use super::{
    ipam::{DefaultPools, Rest, Space, SpaceName},
    model::{
        BlockRecord, ClusterId, Dot, Hlc, Name, NetworkId, NetworkRecord, NodeId, Prefix,
        TableName, UnixMillis,
    },
};

/// The table of the cluster log with a [`NetworkRecord`] a network.
pub const NETWORKS_TABLE: &str = "networks";

/// The table of the cluster log with a [`BlockRecord`] a block.
pub const BLOCKS_TABLE: &str = "blocks";

/// The table of the cluster log with a [`MemberRecord`] a member, alive or not. Key: the node's id, 8 bytes big endian.
pub const MEMBERS_TABLE: &str = "members";

/// The table of the cluster log with an empty value for each member that was removed: nobody listens to it any more.
pub const REMOVED_TABLE: &str = "removed";

/// The table of the cluster log with the version of the ring of datagram keys, 8 bytes big endian, under the key `ring`. The
/// keys themselves go over TLS alone, from voters to those who ask. So does what the version under the key `authorities` stands for.
pub const KEYS_TABLE: &str = "keys";

/// The table of the cluster log with the [`DefaultPools`] that were configured last, under the key `default`; nothing before.
pub const POOLS_TABLE: &str = "pools";

/// The state that every voter holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allocator {
    founding: Option<Founding>,
    members: BTreeMap<NodeId, MemberRecord>,
    /// The digests of the members' keys. Of those that an older version let in it is written when they are certified next.
    member_keys: BTreeMap<NodeId, [u8; 32]>,
    /// The ids that are refused for good.
    removed: BTreeSet<NodeId>,
    /// How often the ring of datagram keys was changed, and when a key was added last; nothing before the first rotation.
    ring_version: u64,
    rotated: Option<Hlc>,
    /// How often the authorities were changed, and the one that is trusted beside the one that signs.
    authorities: Authorities,
    networks: BTreeMap<NetworkId, NetworkRecord>,
    /// The networks by name: follows from `networks`.
    names: BTreeMap<Name, NetworkId>,
    /// Where subnets come from that nobody names.
    pools: DefaultPools,
    /// The number the last network got; numbers are never reused.
    last_network: u32,
    /// The subnets of all networks: follows from `networks`.
    space: Space,
    /// The subnets of networks that were removed a moment ago.
    rest: Rest,
    vnis: Vnis,
    blocks: BTreeMap<NetworkId, Blocks>,
    replies: Replies,
    log: ClusterLog,
}

impl Allocator {
    /// Applies one command, in the order of the Raft log.
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, AllocatorError> {
        if let Some(reply) = self.replies.get(command.request) {
            return self.replay(reply.clone());
        }
        let reply = self.apply_new(command);
        self.replies.keep(command.request, &reply);
        reply
    }

    fn apply_new(&mut self, command: &Command) -> Result<Outcome, AllocatorError> {
        if let Action::Genesis { .. } = command.action {
            return self.found(command);
        }
        if self.founding.is_none() {
            return Err(AllocatorError::NotFounded);
        }
        let at = command.at;
        match &command.action {
            Action::Genesis { .. } => Err(AllocatorError::AlreadyFounded),
            Action::CreateNetwork { .. } => self.create_network(command),
            Action::AllocateNetwork(wish) => self.allocate_network(at, wish, SpaceName::Global),
            Action::AllocateLocal(wish) => self.allocate_network(at, wish, SpaceName::Local),
            Action::SetPools(pools) => self.set_pools(at, pools),
            Action::RemoveNetwork { id } => self.remove_network(at, *id),
            Action::LeaseBlock { network, node } => self.lease_block(at, *network, *node),
            Action::ClaimAddress {
                network,
                node,
                address,
            } => self.claim_address(at, (*network, *node), *address),
            Action::ReturnBlock {
                network,
                node,
                prefix,
            } => self.return_block(at, (*network, *node), (*prefix, None)),
            Action::ReturnLease {
                network,
                node,
                prefix,
                lease,
            } => self.return_block(at, (*network, *node), (*prefix, Some(*lease))),
            Action::HoldBlocks { network, node } => self.hold_blocks(at, *network, *node),
            Action::GrowBlocks { network, node } => self.grow_blocks(at, (*network, *node), None),
            Action::GrowFamily {
                network,
                node,
                family,
            } => self.grow_blocks(at, (*network, *node), Some(*family)),
            Action::HoldAddress {
                network,
                node,
                address,
            } => self.hold_address(at, (*network, *node), *address),
            Action::AdmitMember { node, name } => self.admit_member(at, *node, name),
            Action::RemoveMember { node } => self.remove_member(at, *node),
            Action::RotateToken { secret } => self.rotate_token(secret),
            Action::AddKey { key } => self.add_key(at, key),
            Action::PromoteKey { id } => self.promote_key(at, *id),
            Action::RetireKeys => self.retire_keys(at),
            Action::ReplaceOptions { id, was, options } => {
                self.replace_options(at, *id, (was, options))
            }
            Action::AdmitNode { node, name, key } => self.admit_node(at, (*node, name), *key),
            Action::RecordKey { node, key } => self.record_key(*node, *key),
            Action::AnnounceAuthority { .. } => self.announce_authority(command),
            Action::PromoteAuthority { version, secret } => {
                self.promote_authority(at, *version, secret)
            }
            Action::RetireAuthority { version } => self.retire_authority(at, *version),
            Action::HurryAuthority => self.hurry_authority(at),
        }
    }

    /// Returns the dots of the cluster log that were made since the last call, numbered densely.
    pub fn take_dots(&mut self) -> Vec<Dot> {
        self.log.take_fresh()
    }

    /// Returns the whole cluster log: what is there, the deletes that are remembered, and the floor below which they are not.
    pub fn cluster_log(&self) -> (Vec<Dot>, u64) {
        (self.log.dots(), self.log.floor())
    }

    /// Returns the floor of the cluster log.
    pub fn floor(&self) -> u64 {
        self.log.floor()
    }

    /// Returns the number of the newest dot of the cluster log.
    pub fn last_dot(&self) -> u64 {
        self.log.last()
    }

    /// Returns the cluster, once it is founded.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.founding.as_ref().map(|founding| founding.cluster)
    }

    /// Returns the certificate and the key of the cluster's authority, once it is founded.
    pub fn ca(&self) -> Option<(&[u8], &Secret)> {
        let founding = self.founding.as_ref()?;
        Some((&founding.ca_cert_der, &founding.ca_key_der))
    }

    /// Returns the secret of the join token, once the cluster is founded.
    pub fn token_secret(&self) -> Option<&TokenSecret> {
        self.founding
            .as_ref()
            .map(|founding| &founding.token_secret)
    }

    /// Returns all members.
    pub fn members(&self) -> &BTreeMap<NodeId, MemberRecord> {
        &self.members
    }

    /// Returns the digest of a member's key, if it was written down.
    pub fn member_key(&self, node: NodeId) -> Option<&[u8; 32]> {
        self.member_keys.get(&node)
    }

    /// Returns whether the node was removed, so that its certificate is refused.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.removed.contains(&node)
    }

    /// Returns all networks.
    pub fn networks(&self) -> &BTreeMap<NetworkId, NetworkRecord> {
        &self.networks
    }

    /// Returns the network of that name.
    pub fn network_named(&self, name: &Name) -> Option<&NetworkRecord> {
        self.networks.get(self.names.get(name)?)
    }

    /// Returns what of a network was given back less than the cool-down ago.
    pub fn resting(&self, network: NetworkId, now: UnixMillis) -> Vec<Prefix> {
        let blocks = self.blocks.get(&network);
        let mut rest = blocks.map(|blocks| blocks.rest.clone()).unwrap_or_default();
        rest.wake(now);
        rest.iter().map(|(_, prefix, _)| prefix).collect()
    }

    /// Returns all blocks.
    pub fn blocks(&self) -> impl Iterator<Item = BlockRecord> {
        let of_network = |(id, blocks): (&NetworkId, &Blocks)| blocks.records(*id);
        self.blocks
            .iter()
            .flat_map(of_network)
            .collect::<Vec<_>>()
            .into_iter()
    }
}

fn networks_table() -> TableName {
    TableName::new(NETWORKS_TABLE).expect("a constant within the limits")
}

fn members_table() -> TableName {
    TableName::new(MEMBERS_TABLE).expect("a constant within the limits")
}

fn blocks_table() -> TableName {
    TableName::new(BLOCKS_TABLE).expect("a constant within the limits")
}
