//! What is proposed to the cluster, and what it answers. Both travel, so a variant is only ever added at the end.
//!
//! From the first release on, what an action does to a state is as fixed as its bytes: while a cluster is upgraded, voters of
//! two versions apply the same log. What shall be done otherwise is another action.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use bincode::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::NetworkWish;
use crate::core::{
    ipam::{DefaultPools, PoolRefusal},
    model::{
        BlockRecord, ClusterId, Family, Hlc, Name, NetworkId, NetworkRecord, NodeId, Prefix, Vni,
    },
    wire::keyring::{ClusterKey, KeyId, Keyring},
};

/// One proposal, as the Raft log carries it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Command {
    /// When the proposer made it; it dates the dots of the cluster log.
    pub at: Hlc,
    /// The proposer's random name for it. Who proposes it again gets the first reply and changes nothing.
    pub request: u128,
    /// What shall be done.
    pub action: Action,
}

/// What a proposal asks for.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Action {
    /// Founds the cluster: the first command of every log.
    Genesis {
        /// The cluster.
        cluster: ClusterId,
        /// The certificate of the cluster's own authority.
        ca_cert_der: Vec<u8>,
        /// Its key.
        ca_key_der: Secret,
        /// The keys of the datagrams.
        keyring: Keyring,
        /// The secret part of the join token.
        token_secret: TokenSecret,
        /// The node that founds it.
        founder: NodeId,
        /// Its name.
        name: Name,
    },
    /// Makes a network, as the first version did; today it is `AllocateNetwork`.
    CreateNetwork {
        /// Its name, unique in the cluster.
        name: Name,
        /// Its driver.
        driver: Name,
        /// Options for the driver; [`VXLANID_LIST`] is read here too.
        options: BTreeMap<String, String>,
        /// The subnets it shall have. None: one of the default pools with `vxlan`, else a network without addresses.
        subnets: Vec<SubnetRequest>,
        /// Whether each subnet needs a VNI.
        vxlan: bool,
    },
    /// Removes a network; its subnets, VNIs and blocks are free again.
    RemoveNetwork {
        /// The network.
        id: NetworkId,
    },
    /// Leases a further block of addresses, as the first version did; today it is `GrowFamily`.
    LeaseBlock {
        /// The network.
        network: NetworkId,
        /// Who will hand out its addresses.
        node: NodeId,
    },
    /// Leases the one address that somebody asked for, unless the node's own blocks have it already, as the first version did; today it
    /// is `HoldAddress`.
    ClaimAddress {
        /// The network.
        network: NetworkId,
        /// Who will use it.
        node: NodeId,
        /// The address.
        address: IpAddr,
    },
    /// Gives a block back.
    ReturnBlock {
        /// The network.
        network: NetworkId,
        /// Who holds it.
        node: NodeId,
        /// The block.
        prefix: Prefix,
    },
    /// Lets a node in, as the first version did; today it is `AdmitNode`.
    AdmitMember {
        /// The node.
        node: NodeId,
        /// Its name, unique in the cluster.
        name: Name,
    },
    /// Shuts a node out for good: its id is refused from now on, its blocks and its name are free again.
    RemoveMember {
        /// The node.
        node: NodeId,
    },
    /// Replaces the secret of the join token.
    RotateToken {
        /// The new one.
        secret: TokenSecret,
    },
    /// Makes a network, with all that can be said of one.
    AllocateNetwork(NetworkWish),
    /// Numbers all leases of a node in a network anew, so that a return of one that is still under way is refused.
    HoldBlocks {
        /// The network.
        network: NetworkId,
        /// Who holds them.
        node: NodeId,
    },
    /// Leases a further block, the larger the more blocks the node has.
    GrowBlocks {
        /// The network.
        network: NetworkId,
        /// Who will hand out its addresses.
        node: NodeId,
    },
    /// Leases the one address that somebody asked for; if the node's own blocks have it already, that lease is numbered anew.
    HoldAddress {
        /// The network.
        network: NetworkId,
        /// Who will use it.
        node: NodeId,
        /// The address.
        address: IpAddr,
    },
    /// Gives a block back, if the lease is still the newest.
    ReturnLease {
        /// The network.
        network: NetworkId,
        /// Who holds it.
        node: NodeId,
        /// The block.
        prefix: Prefix,
        /// The number of the lease.
        lease: u64,
    },
    /// Adds a key of the datagrams: nodes open with it from now on, and seal with it once it is promoted.
    AddKey {
        /// The new one.
        key: ClusterKey,
    },
    /// Makes a key of the ring the one that seals.
    PromoteKey {
        /// Which.
        id: KeyId,
    },
    /// Drops all keys of the datagrams but the one that seals.
    RetireKeys,
    /// Gives a network other options, if they are still those that the proposer knows.
    ReplaceOptions {
        /// The network.
        id: NetworkId,
        /// The options it has.
        was: BTreeMap<String, String>,
        /// The options it shall have.
        options: BTreeMap<String, String>,
    },
    /// Lets a node in, which holds that key. Who is a member is let in again if its key is the one it was let in with.
    AdmitNode {
        /// The node.
        node: NodeId,
        /// Its name, unique in the cluster.
        name: Name,
        /// The SHA-256 of its public key.
        key: [u8; 32],
    },
    /// Writes down the key of a member that was let in without: the founder, or by an older version.
    RecordKey {
        /// The node.
        node: NodeId,
        /// The SHA-256 of its public key.
        key: [u8; 32],
    },
    /// As `GrowBlocks`, of one family's subnets only.
    GrowFamily {
        /// The network.
        network: NetworkId,
        /// Who will hand out its addresses.
        node: NodeId,
        /// Of which family its addresses are.
        family: Family,
    },
    /// As `AllocateNetwork`, of a driver that carries no data from node to node: subnets that are not named come from the local
    /// default pools.
    AllocateLocal(NetworkWish),
    /// Has other default pools from now on; the subnets that networks have stay.
    SetPools(DefaultPools),
    /// Announces the authority that shall sign next: it is trusted from now on.
    AnnounceAuthority {
        /// Its certificate.
        cert_der: Vec<u8>,
        /// Its key.
        key_der: Secret,
        /// A certificate of it that the present one signed.
        cross_der: Vec<u8>,
        /// Whether the change goes on without those that do not answer.
        waits_for_nobody: bool,
    },
    /// Has the announced authority sign, and replaces the secret of the join token, which pins the former one.
    PromoteAuthority {
        /// Which change of the authorities this is about.
        version: u64,
        /// The new secret.
        secret: TokenSecret,
    },
    /// Drops the authority that signs no longer: what it signed is worth nothing.
    RetireAuthority {
        /// Which change of the authorities this is about.
        version: u64,
    },
    /// Has the change that is under way go on without those that do not answer.
    HurryAuthority,
}

/// The option with VNIs chosen by hand: decimal numbers parted by commas, the first for the first subnet, and so on.
pub const VXLANID_LIST: &str = "vxlanid_list";

/// The same option as Docker spells it.
pub const VXLANID_LIST_DOCKER: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// One subnet that a network shall have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct SubnetRequest {
    /// Which addresses; nothing: the next free subnet of the default pools; `0.0.0.0/N` or `::/N`: the next free one of that size.
    pub prefix: Option<Prefix>,
    /// The gateway's address; nothing: the first one.
    pub gateway: Option<IpAddr>,
}

/// Bytes that must not be printed. Zeroized when dropped.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The secret part of the join token: who knows it may join. Never printed, zeroized when dropped.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct TokenSecret(pub [u8; 16]);

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

/// What a command that was applied came to.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Outcome {
    /// It is done, and there is nothing to tell.
    Done,
    /// The network that was made.
    Network(NetworkRecord),
    /// The block that was leased.
    Block(BlockRecord),
    /// The block that was leased, and the number of the lease: that of its dot in the cluster log.
    Leased(BlockRecord, u64),
    /// All leases of a node in a network, each with its number.
    Leases {
        /// The network.
        network: NetworkId,
        /// The node.
        node: NodeId,
        /// The blocks.
        blocks: Vec<(Prefix, u64)>,
    },
    /// The key that was added.
    Key(KeyId),
}

/// Why a command was refused. Nothing was changed, on any node.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, thiserror::Error)]
pub enum AllocatorError {
    /// The program proposed something before the founding.
    #[error("the cluster is not founded yet")]
    NotFounded,
    /// Somebody founded the cluster before.
    #[error("the cluster is founded already")]
    AlreadyFounded,
    /// The caller must choose another name.
    #[error("network {name} exists already")]
    NetworkExists {
        /// The name.
        name: Name,
        /// The network that has it.
        id: NetworkId,
    },
    /// The caller named a network that is not there, or no longer.
    #[error("no network has the id {0}")]
    NoSuchNetwork(NetworkId),
    /// The caller must choose another prefix.
    #[error("subnet {requested} overlaps {existing}")]
    Overlap {
        /// What was asked for.
        requested: Prefix,
        /// What is there.
        existing: Prefix,
    },
    /// The caller must choose another prefix.
    #[error("subnet {0} cannot hold a gateway and an endpoint")]
    BadSubnet(Prefix),
    /// The caller must choose another gateway.
    #[error("gateway {gateway} is no usable address of subnet {subnet}")]
    BadGateway {
        /// What was asked for.
        gateway: IpAddr,
        /// The subnet it should be in.
        subnet: Prefix,
    },
    /// The caller asks for more than the record can hold.
    #[error("the network is described in {len} bytes: at most {limit} are allowed")]
    TooLarge {
        /// How long the description is.
        len: u64,
        /// How long it may be.
        limit: u64,
    },
    /// The caller asks for too many subnets.
    #[error("a network may have {limit} subnets, not {asked}")]
    TooManySubnets {
        /// How many were asked for.
        asked: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The default pools are used up: the caller must name a prefix, remove networks, or configure more pools.
    #[error(
        "the default pools have no free subnet of length {length}: name a subnet of your own, or configure more pools"
    )]
    NoFreeSubnet {
        /// The prefix length that was looked for.
        length: u8,
    },
    /// Every VNI is in use: networks must be removed.
    #[error("no VNI is free")]
    NoFreeVni,
    /// The caller must choose another VNI.
    #[error("VNI {0} is in use")]
    VniInUse(Vni),
    /// The caller wrote a list that is none.
    #[error("{VXLANID_LIST}: {entry:?} is no VNI: a number from 1 to 16777215 is expected")]
    BadVni {
        /// The part that is no VNI.
        entry: String,
    },
    /// The network has no addresses by design.
    #[error("network {0} has no subnet")]
    NoSubnet(NetworkId),
    /// Every address of the network is leased: blocks must be returned, or another subnet be used.
    #[error("network {0} has no free address")]
    NoFreeAddress(NetworkId),
    /// The caller must choose another address.
    #[error("address {address} is no usable address of network {network}")]
    BadAddress {
        /// What was asked for.
        address: IpAddr,
        /// The network.
        network: NetworkId,
    },
    /// The caller must choose another address.
    #[error("address {address} is leased to node {holder}")]
    AddressLeased {
        /// What was asked for.
        address: IpAddr,
        /// Who holds the block it is in.
        holder: NodeId,
    },
    /// The node returns what it does not hold.
    #[error("node {node} holds no block {prefix} of network {network}")]
    NoSuchBlock {
        /// The network.
        network: NetworkId,
        /// The node.
        node: NodeId,
        /// The block.
        prefix: Prefix,
    },
    /// The node must join first.
    #[error("node {0} is no member")]
    NotMember(NodeId),
    /// The newcomer must choose another name.
    #[error("the name {name} is taken by node {node}")]
    NameTaken {
        /// The name.
        name: Name,
        /// Who has it.
        node: NodeId,
    },
    /// The newcomer must draw another id.
    #[error("the id {node} is taken by the node named {name}")]
    IdTaken {
        /// The id.
        node: NodeId,
        /// The name of who has it.
        name: Name,
    },
    /// The node was shut out; it may join with a new id.
    #[error("node {0} was removed from the cluster")]
    Removed(NodeId),
    /// The caller must ask for another pool, range or address.
    #[error(transparent)]
    BadPool(#[from] PoolRefusal),
    /// The address belongs to something outside: the caller must choose another one.
    #[error("address {0} is set aside for something outside the cluster")]
    AddressReserved(IpAddr),
    /// It passes by itself: the node that had the address was shut out, and may not have heard of it yet.
    #[error(
        "address {address} was a removed node's, which may use it still: try again in {seconds} s"
    )]
    AddressResting {
        /// What was asked for.
        address: IpAddr,
        /// When it passes.
        seconds: u64,
    },
    /// The lease was numbered anew since: the block is in use.
    #[error("lease {lease} of block {prefix} is not the newest one")]
    StaleLease {
        /// The block.
        prefix: Prefix,
        /// The lease that was to be given back.
        lease: u64,
    },
    /// The ring was changed meanwhile: it is looked at again.
    #[error("no key of the ring has the id {0}, or a newer one seals")]
    NoSuchKey(u8),
    /// Somebody else was first: the proposer must look again.
    #[error("the options of network {0} were changed meanwhile")]
    NetworkChanged(NetworkId),
    /// Whoever asks is not the member that has the id: it must draw another one.
    #[error("node {0} is a member, and has another key")]
    NotItsKey(NodeId),
    /// The authority is being changed, or is not: the proposer must look again.
    #[error("the authorities were changed meanwhile")]
    AuthoritiesChanged,
}
