//! The state as bytes: a version, then one part after another, each decoded by itself, so that no limit bounds the whole.

use std::net::IpAddr;

use bincode::{Decode, Encode};

use super::{
    Allocator,
    authority::Authorities,
    block::Blocks,
    log::ClusterLog,
    member::{Founding, MemberRecord},
    reply::Reply,
};
use crate::core::{
    ipam::DefaultPools,
    model::{BlockRecord, Dot, Hlc, Name, NetworkId, NetworkRecord, NodeId, Prefix, UnixMillis},
    wire::codec::{self, CodecError},
};

/// The version of the snapshot's bytes: 2 adds ranges and what rests, 3 members' keys and default pools.
pub const SNAPSHOT_VERSION: u16 = 3;

/// The oldest version that is read.
pub const SNAPSHOT_OLDEST: u16 = 1;

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another version of the program wrote it: upgrade this one.
    #[error(
        "the snapshot has version {0}, this program reads {SNAPSHOT_OLDEST} to {SNAPSHOT_VERSION}"
    )]
    Version(u16),
    /// It is damaged.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It contradicts itself: it is damaged.
    #[error("the snapshot contradicts itself: {0} is there twice")]
    Twice(&'static str),
    /// It ends too early, or goes on after its end: it is damaged.
    #[error("the snapshot does not end where it should")]
    Cut,
}

/// One part. A variant is only ever added at the end.
#[derive(Encode, Decode)]
enum Part {
    Counters {
        last_network: u32,
        last_vni: u32,
        last_dot: u64,
        floor: u64,
    },
    Founding(Founding),
    Member(NodeId, Name, Hlc),
    Removed(NodeId),
    Network(NetworkRecord),
    NextBlock(NetworkId, IpAddr),
    Block(BlockRecord),
    Dot(Dot),
    Reply(u128, Reply),
    /// Nothing follows: the bytes are whole.
    End,
    /// A network, a subnet of it, and the part of that which blocks are cut from.
    Range(NetworkId, Prefix, Prefix),
    RestingSubnet(UnixMillis, Prefix),
    RestingBlock(NetworkId, UnixMillis, Prefix, bool),
    /// How often the ring was changed, and when a key was added last.
    Rotated(u64, Hlc),
    /// The digest of a member's key.
    MemberKey(NodeId, [u8; 32]),
    /// The default pools that were configured.
    Pools(DefaultPools),
    /// The authorities, once they were changed.
    Authorities(Authorities),
}

impl Allocator {
    /// Returns the state as bytes; equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = codec::encode(&SNAPSHOT_VERSION);
        for part in self.parts() {
            bytes.extend(codec::encode(&part));
        }
        bytes
    }

    /// Makes the state again from what [`Self::snapshot`] returned.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (version, mut at) = codec::decode_prefix::<u16>(bytes)?;
        if !(SNAPSHOT_OLDEST..=SNAPSHOT_VERSION).contains(&version) {
            return Err(SnapshotError::Version(version));
        }
        let mut restoring = Restoring::default();
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (part, used) = codec::decode_prefix(rest)?;
            at += used;
            restoring.add(part)?;
        }
        restoring.finish()
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Counters {
            last_network: self.last_network,
            last_vni: self.vnis.last,
            last_dot: self.log.last(),
            floor: self.log.floor(),
        }];
        parts.extend(self.founding.clone().map(Part::Founding));
        let member = |(node, member): (&NodeId, &MemberRecord)| {
            Part::Member(*node, member.name.clone(), member.admitted)
        };
        parts.extend(self.members.iter().map(member));
        let keys = self.member_keys.iter();
        parts.extend(keys.map(|(node, key)| Part::MemberKey(*node, *key)));
        parts.extend(self.removed.iter().copied().map(Part::Removed));
        parts.extend(self.rotated.map(|at| Part::Rotated(self.ring_version, at)));
        let pools = Some(self.pools.clone()).filter(|pools| *pools != DefaultPools::default());
        parts.extend(pools.map(Part::Pools));
        let changed =
            Some(self.authorities.clone()).filter(|changed| *changed != Authorities::default());
        parts.extend(changed.map(Part::Authorities));
        parts.extend(self.networks.values().cloned().map(Part::Network));
        let next = |(id, blocks): (&NetworkId, &Blocks)| Some(Part::NextBlock(*id, blocks.next?));
        parts.extend(self.blocks.iter().filter_map(next));
        for (id, blocks) in &self.blocks {
            let ranges = blocks.ranges.iter();
            parts.extend(ranges.map(|(subnet, range)| Part::Range(*id, *subnet, *range)));
        }
        parts.extend(self.blocks().map(Part::Block));
        let resting = self.rest.iter();
        parts.extend(resting.map(|(since, prefix, _)| Part::RestingSubnet(since, prefix)));
        for (id, blocks) in &self.blocks {
            let resting = blocks.rest.iter();
            parts.extend(
                resting
                    .map(|(since, prefix, fenced)| Part::RestingBlock(*id, since, prefix, fenced)),
            );
        }
        parts.extend(self.log.dots().into_iter().map(Part::Dot));
        let reply = |(request, reply): (u128, &Reply)| Part::Reply(request, reply.clone());
        parts.extend(self.replies.iter().map(reply));
        parts.push(Part::End);
        parts
    }
}

/// A state that is being made again, part by part.
#[derive(Default)]
struct Restoring {
    state: Allocator,
    dots: Vec<Dot>,
    last_dot: u64,
    floor: u64,
    ended: bool,
}

impl Restoring {
    fn add(&mut self, part: Part) -> Result<(), SnapshotError> {
        if self.ended {
            return Err(SnapshotError::Cut);
        }
        match part {
            Part::Counters {
                last_network,
                last_vni,
                last_dot,
                floor,
            } => {
                self.state.last_network = last_network;
                self.state.vnis.last = last_vni;
                self.last_dot = last_dot;
                self.floor = floor;
            }
            Part::Founding(founding) => self.state.founding = Some(founding),
            Part::Member(node, name, admitted) => {
                self.state
                    .members
                    .insert(node, MemberRecord { name, admitted });
            }
            Part::MemberKey(node, key) => {
                self.state.member_keys.insert(node, key);
            }
            Part::Removed(node) => {
                self.state.removed.insert(node);
            }
            Part::Rotated(version, at) => {
                self.state.ring_version = version;
                self.state.rotated = Some(at);
            }
            Part::Pools(pools) => self.state.pools = pools,
            Part::Authorities(authorities) => self.state.authorities = authorities,
            Part::Network(record) => self.add_network(record)?,
            Part::NextBlock(network, next) => {
                self.state.blocks.entry(network).or_default().next = Some(next);
            }
            Part::Block(record) => {
                let blocks = self.state.blocks.entry(record.network).or_default();
                if !blocks.insert(record.prefix, record.node) {
                    return Err(SnapshotError::Twice("an address block"));
                }
            }
            Part::Dot(dot) => self.dots.push(dot),
            Part::Reply(request, reply) => self.state.replies.restore(request, reply),
            Part::End => self.ended = true,
            Part::Range(network, subnet, range) => {
                let blocks = self.state.blocks.entry(network).or_default();
                blocks.ranges.insert(subnet, range);
            }
            Part::RestingSubnet(since, prefix) => self.state.rest.add(since, prefix, false),
            Part::RestingBlock(network, since, prefix, fenced) => {
                let blocks = self.state.blocks.entry(network).or_default();
                blocks.rest.add(since, prefix, fenced);
            }
        }
        Ok(())
    }

    fn add_network(&mut self, record: NetworkRecord) -> Result<(), SnapshotError> {
        for subnet in &record.subnets {
            let taken = self.state.space.take(subnet.prefix);
            taken.map_err(|_overlap| SnapshotError::Twice("a subnet"))?;
            if let Some(vni) = subnet.vni {
                let taken = self.state.vnis.take(vni);
                taken.map_err(|_in_use| SnapshotError::Twice("a VNI"))?;
            }
        }
        if self
            .state
            .names
            .insert(record.name.clone(), record.id)
            .is_some()
        {
            return Err(SnapshotError::Twice("a network's name"));
        }
        self.state.blocks.entry(record.id).or_default();
        self.state.networks.insert(record.id, record);
        Ok(())
    }

    fn finish(mut self) -> Result<Allocator, SnapshotError> {
        if !self.ended {
            return Err(SnapshotError::Cut);
        }
        self.state.log = ClusterLog::restore(self.last_dot, self.floor, self.dots);
        Ok(self.state)
    }
}
