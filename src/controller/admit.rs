//! The join door: the leader lets newcomers in; every other node hands them on to it.
//!
//! A request that came from a member was handed on once and is not handed on again, so two nodes that take each other for
//! the leader cannot play a newcomer back and forth.

use std::time::Duration;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Controller, ControllerError};
use crate::{
    core::{
        allocator::{Action, AllocatorError},
        model::NodeId,
        wire::codec,
    },
    runtime::{
        join::{JoinRefusal, JoinReply, JoinRequest, Joined},
        streams::{Caller, Service},
        trust::{Token, TrustError, digest, key_digest, secrets_match},
    },
};

/// How long the leader may take. A newcomer's own deadline is longer, so it hears which of us was slow.
const LEADER_DEADLINE: Duration = Duration::from_secs(8);

/// What a member sends to ask for the join token: no join request begins so, their versions begin at 1.
const TOKEN_QUESTION: &[u8] = &[0];

/// What the leader answers to [`TOKEN_QUESTION`]: the secret, or nothing if it does not lead.
pub(super) type TokenAnswer = Option<[u8; 16]>;

/// As [`TOKEN_QUESTION`], and which authority the token pins.
const WHOLE_TOKEN_QUESTION: &[u8] = &[0, 1];

/// What the leader answers to [`WHOLE_TOKEN_QUESTION`]: the secret and the digest, or nothing if it does not lead.
pub(super) type WholeTokenAnswer = Option<([u8; 16], [u8; 32])>;

impl Controller {
    /// Answers a call of the join service: a newcomer's, one that another member hands on, or a member's for the token.
    pub async fn answer_join(&self, caller: Caller, request: &[u8]) -> Bytes {
        if caller.node.is_some() && request == TOKEN_QUESTION {
            let answer: TokenAnswer = self.own_secret();
            return codec::encode(&answer).into();
        }
        if caller.node.is_some() && request == WHOLE_TOKEN_QUESTION {
            return codec::encode(&self.own_token()).into();
        }
        let reply: JoinReply = match JoinRequest::decode(request) {
            Ok(request) => self.admit(request, caller).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &reply {
            tracing::info!(caller = %caller.addr, %refusal, "a newcomer was not let in");
        }
        codec::encode(&reply).into()
    }

    /// Lets a newcomer in, if its token is right and nobody has its id or name.
    pub async fn admit(&self, mut request: JoinRequest, caller: Caller) -> JoinReply {
        request.listen = request.address(caller.addr);
        let leader = self.parts.raft.leader();
        match leader.ok_or(JoinRefusal::NoLeader)? {
            leader if leader == self.parts.node => self.admit_as_leader(request).await,
            _ if caller.node.is_some() => Err(JoinRefusal::NoLeader),
            leader => self.hand_on(leader, &request).await,
        }
    }

    async fn admit_as_leader(&self, request: JoinRequest) -> JoinReply {
        let secret = self.own_secret().ok_or(JoinRefusal::NoLeader)?;
        let secret = Zeroizing::new(secret);
        if !secrets_match(&secret, &request.secret) {
            return Err(JoinRefusal::WrongToken);
        }
        let key = key_digest(&request.csr_der).map_err(|error| JoinRefusal::Malformed {
            reason: error.to_string(),
        })?;
        let admitted = Action::AdmitNode {
            node: request.node,
            name: request.name.clone(),
            key,
        };
        self.propose(admitted).await.map_err(refusal)?;
        let joined = self.certify(&request).await?;
        tracing::info!(node = %request.node, name = %request.name, address = %request.listen, "a node was let in");
        Ok(joined)
    }

    async fn certify(&self, request: &JoinRequest) -> JoinReply {
        let ring = self.parts.raft.read(|state| state.ring());
        let ring = ring.ok_or(JoinRefusal::NoLeader)?;
        let signed = self.sign(&request.csr_der, request.node);
        let certified = signed.map_err(|error| match error {
            TrustError::BadRequest(reason) => JoinRefusal::Malformed { reason },
            other @ (TrustError::Make { .. }
            | TrustError::BadCa(_)
            | TrustError::BadCertificate(_)
            | TrustError::Unvouched(_)
            | TrustError::BadCredentials(_)) => {
                tracing::error!(error = %other, "a newcomer's certificate was not made");
                JoinRefusal::Busy
            }
        })?;
        let members = self.parts.handle.member_states().await;
        let members = members.map_err(|_stopped| JoinRefusal::NoLeader)?;
        Ok(Joined {
            cluster: self.parts.cluster,
            ca_cert_der: certified.ca_cert_der,
            cert_der: certified.cert_der,
            ring,
            members: codec::encode(&members),
            leader: Some(self.parts.node),
        })
    }

    async fn hand_on(&self, leader: NodeId, request: &JoinRequest) -> JoinReply {
        let request = codec::encode(request);
        let answer = self.ask_leader(leader, request.into()).await;
        let answer = answer.ok_or(JoinRefusal::NoLeader)?;
        codec::decode(&answer).unwrap_or(Err(JoinRefusal::NoLeader))
    }

    /// Finds the join token: the leader knows it. What another voter has applied may be older than an answered rotation, so
    /// that is told only while there is no leader, who lets nobody in either.
    pub(super) async fn ask_token(&self) -> Result<Token, ControllerError> {
        let leads = self.parts.raft.leader() == Some(self.parts.node);
        let asked = match leads {
            true => None,
            false => self.ask_leader_for_token().await,
        };
        let known = asked.or_else(|| self.own_token());
        let (secret, ca_digest) = known.ok_or(ControllerError::NoLeader)?;
        Ok(Token { ca_digest, secret })
    }

    async fn ask_leader_for_token(&self) -> WholeTokenAnswer {
        let leader = self.parts.raft.leader()?;
        let answer = self.ask_leader(leader, Bytes::from_static(WHOLE_TOKEN_QUESTION));
        if let Ok(known) = codec::decode::<WholeTokenAnswer>(&answer.await?) {
            return known;
        }
        // It is of a version that never changes the authority.
        let answer = self.ask_leader(leader, Bytes::from_static(TOKEN_QUESTION));
        let secret = codec::decode::<TokenAnswer>(&answer.await?).ok()??;
        Some((secret, self.parts.tls.ca_digest()))
    }

    async fn ask_leader(&self, leader: NodeId, request: Bytes) -> Option<Bytes> {
        let address = self.parts.handle.address(leader).await.ok().flatten()?;
        let call = self
            .parts
            .dialer
            .call(leader, address, Service::Join, request, LEADER_DEADLINE);
        match call.await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::info!(%leader, %error, "the leader did not answer the join service");
                None
            }
        }
    }

    /// The secret as this node has it applied; nothing on a node that is no voter.
    fn own_secret(&self) -> TokenAnswer {
        self.parts.raft.read(|state| Some(state.token_secret()?.0))
    }

    /// The whole token as this node has it applied; nothing on a node that is no voter.
    fn own_token(&self) -> WholeTokenAnswer {
        let raft = &self.parts.raft;
        raft.read(|state| Some((state.token_secret()?.0, digest(state.ca()?.0))))
    }
}

fn refusal(error: ControllerError) -> JoinRefusal {
    if let ControllerError::Refused(AllocatorError::NameTaken { name, .. }) = error {
        return JoinRefusal::NameTaken { name };
    }
    if let ControllerError::Refused(
        AllocatorError::IdTaken { .. } | AllocatorError::Removed(_) | AllocatorError::NotItsKey(_),
    ) = error
    {
        return JoinRefusal::IdTaken;
    }
    tracing::warn!(%error, "the cluster could not agree on a newcomer");
    JoinRefusal::NoLeader
}
