//! Reading what is said on a stream, and doing nothing of it: whoever has bytes and no cluster can ask whether they mean anything.

use bincode::{Decode, Encode};

use super::{
    admit::{TokenAnswer, WholeTokenAnswer},
    authority::{Authorities, SucceedAnswer},
    certificate::CertifyAnswer,
    keys::{Request, VoterAnswer},
};
use crate::{
    core::wire::{codec, keyring::AgreedRing, succession::Has},
    raft,
    runtime::{
        join::{JoinReply, JoinRequest},
        streams::Service,
    },
};

/// Who says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// Who calls.
    Request,
    /// Who is called.
    Answer,
}

/// Reads bytes as everything that may be said to that service, or by it, and returns what this version would write of it.
///
/// What the network DB says is read by a node: see [`Node::handle_stream`](crate::core::node::Node::handle_stream).
pub fn reread(service: Service, said: Said, bytes: &[u8]) -> Vec<Vec<u8>> {
    let of_raft = |service| {
        let read = raft::reread(service, said == Said::Request, bytes);
        read.map(Vec::from)
    };
    let read = match (service, said) {
        (Service::Sync, _) => vec![],
        (Service::Raft, _) => vec![of_raft(raft::Service::Raft)],
        (Service::Propose, _) => vec![of_raft(raft::Service::Propose)],
        (Service::Join, Said::Request) => {
            let request = JoinRequest::decode(bytes).ok();
            vec![request.map(|request| codec::encode(&request))]
        }
        (Service::Join, Said::Answer) => vec![
            again::<JoinReply>(bytes),
            again::<TokenAnswer>(bytes),
            again::<WholeTokenAnswer>(bytes),
        ],
        (Service::Keys, Said::Request) => vec![again::<Request>(bytes)],
        (Service::Keys, Said::Answer) => vec![
            again::<VoterAnswer<AgreedRing>>(bytes),
            again::<VoterAnswer<Authorities>>(bytes),
            again::<u64>(bytes),
            again::<CertifyAnswer>(bytes),
            again::<Has>(bytes),
            again::<SucceedAnswer>(bytes),
        ],
    };
    read.into_iter().flatten().collect()
}

fn again<T: Encode + Decode<()>>(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(codec::encode(&codec::decode::<T>(bytes).ok()?))
}
