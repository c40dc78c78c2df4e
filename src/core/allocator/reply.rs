//! The last replies, so that a proposal that is sent again after a lost answer is done once.

use std::collections::{BTreeMap, VecDeque};

use bincode::{Decode, Encode};

use super::{Allocator, AllocatorError, Outcome};
use crate::core::{
    model::{BlockRecord, NetworkId, NodeId},
    wire::keyring::KeyId,
};

/// How many replies are kept; the oldest goes. A proposer gives up long before this many others were answered.
pub const REPLIES_MAX: usize = 1_024;

/// A reply without what the state has anyway: a network's record may be large.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) enum Reply {
    Done,
    Network(NetworkId),
    Block(BlockRecord),
    Refused(AllocatorError),
    Leased(BlockRecord, u64),
    Leases(NetworkId, NodeId),
    Key(KeyId),
}

/// The last [`REPLIES_MAX`] replies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Replies {
    by_request: BTreeMap<u128, Reply>,
    order: VecDeque<u128>,
}

impl Replies {
    pub(super) fn get(&self, request: u128) -> Option<&Reply> {
        self.by_request.get(&request)
    }

    pub(super) fn keep(&mut self, request: u128, reply: &Result<Outcome, AllocatorError>) {
        let reply = match reply {
            Ok(Outcome::Done) => Reply::Done,
            Ok(Outcome::Network(record)) => Reply::Network(record.id),
            Ok(Outcome::Block(record)) => Reply::Block(record.clone()),
            Ok(Outcome::Leased(record, lease)) => Reply::Leased(record.clone(), *lease),
            Ok(Outcome::Leases { network, node, .. }) => Reply::Leases(*network, *node),
            Ok(Outcome::Key(id)) => Reply::Key(*id),
            Err(refused) => Reply::Refused(refused.clone()),
        };
        self.restore(request, reply);
    }

    pub(super) fn restore(&mut self, request: u128, reply: Reply) {
        if self.by_request.insert(request, reply).is_none() {
            self.order.push_back(request);
        }
        while self.order.len() > REPLIES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_request.remove(&oldest);
            }
        }
    }

    /// Returns the replies, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, &Reply)> {
        let with_reply = |request: &u128| Some((*request, self.by_request.get(request)?));
        self.order.iter().filter_map(with_reply)
    }
}

impl Allocator {
    /// Answers a request again. A network that was removed since is gone for this caller too.
    pub(super) fn replay(&self, reply: Reply) -> Result<Outcome, AllocatorError> {
        match reply {
            Reply::Done => Ok(Outcome::Done),
            Reply::Network(id) => {
                let record = self.networks.get(&id).cloned();
                record
                    .map(Outcome::Network)
                    .ok_or(AllocatorError::NoSuchNetwork(id))
            }
            Reply::Block(record) => Ok(Outcome::Block(record)),
            Reply::Key(id) => Ok(Outcome::Key(id)),
            Reply::Refused(refused) => Err(refused),
            Reply::Leased(record, lease) => Ok(Outcome::Leased(record, lease)),
            Reply::Leases(network, node) => Ok(self.leases(network, node)),
        }
    }
}
