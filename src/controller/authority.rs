//! The cluster's authority, replaced while the cluster runs.
//!
//! What a change does and when is decided in [`succession`](crate::core::wire::succession); whoever leads does it, and the next
//! leader goes on with it. Members hear in the cluster log that something has changed, or are told by the leader, and fetch over
//! TLS, from voters alone, which authorities to trust; then they have themselves certified by the one that signs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use bincode::{Decode, Encode};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Controller, ControllerError, Owner, entropy,
    keys::{ASK_AGAIN, NEWEST_WITHIN, Request, TOLD_AT_ONCE},
};
use crate::{
    core::{
        allocator::{Action, AllocatorError, Secret, TokenSecret},
        model::{Name, NodeId, UnixMillis},
        wire::{
            codec,
            succession::{AgreedAuthorities, Has, OtherAuthority, Present, Step, Succession},
        },
    },
    runtime::{
        Stopped,
        trust::{Statement, Token, Vouched, digest},
    },
};

/// How often the leader looks whether the authority is to be changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long whoever asked waits for the end of a change, which goes on without being waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a voter says of the authorities.
#[derive(Clone, Encode, Decode)]
pub(super) struct Authorities {
    agreed: AgreedAuthorities,
    /// Whom it waits for, if it leads.
    lacking: Vec<NodeId>,
}

#[cfg(test)]
impl Authorities {
    pub(super) fn new(agreed: AgreedAuthorities) -> Self {
        let lacking = Vec::new();
        Self { agreed, lacking }
    }
}

impl Statement for Authorities {
    const WHAT: &'static str = "list of authorities";
}

/// What the leader says to who wants the authority changed.
#[derive(Encode, Decode)]
pub(super) enum SucceedAnswer {
    /// It is being changed.
    Begun,
    /// It does not lead.
    NotLeader,
    /// It cannot make another one, and why.
    Refused(String),
    /// Another one was not agreed on.
    NotAgreed(AllocatorError),
}

/// How a change of the authority stands.
#[derive(Clone, Debug)]
pub struct AuthorityChange {
    /// The SHA-256 of the authority that signs, as tokens pin it.
    pub signs: [u8; 32],
    /// The SHA-256 of the one that will, once all live members trust it.
    pub next: Option<[u8; 32]>,
    /// The SHA-256 of the one that did and is trusted still, and since when it signs no longer.
    pub former: Option<([u8; 32], UnixMillis)>,
    /// Who is waited for.
    pub waits_for: BTreeSet<Name>,
}

impl Controller {
    /// Replaces the authority, or goes on with a change that is under way, and says how it stands once it is done or has taken
    /// a while. With `waits_for_nobody`, who does not answer is left behind.
    pub async fn rotate_authority(
        &self,
        waits_for_nobody: bool,
    ) -> Result<AuthorityChange, ControllerError> {
        let this = self.clone();
        self.finish(async move { this.rotate_authority_now(waits_for_nobody).await })
            .await
    }

    async fn rotate_authority_now(
        &self,
        waits_for_nobody: bool,
    ) -> Result<AuthorityChange, ControllerError> {
        self.ask_to_succeed(waits_for_nobody).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let newest = self.newest_authorities().await?;
            if newest.agreed.other.is_none() || Instant::now() >= until {
                return self.show_change(newest).await;
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Says which authority signs, and how a change of it stands.
    pub async fn authority_change(&self) -> Result<AuthorityChange, ControllerError> {
        let newest = self.newest_authorities().await?;
        self.show_change(newest).await
    }

    async fn show_change(&self, newest: Authorities) -> Result<AuthorityChange, ControllerError> {
        let Authorities { agreed, lacking } = newest;
        let names = self.names_of(lacking.into_iter().collect()).await?;
        let mut change = AuthorityChange {
            signs: digest(&agreed.signs),
            next: None,
            former: None,
            waits_for: names,
        };
        match &agreed.other {
            None => {}
            Some(OtherAuthority::Next { cert_der, .. }) => change.next = Some(digest(cert_der)),
            Some(OtherAuthority::Former {
                cert_der, since, ..
            }) => change.former = Some((digest(cert_der), *since)),
        }
        Ok(change)
    }

    /// Has the leader begin: it holds the authority's key.
    async fn ask_to_succeed(&self, waits_for_nobody: bool) -> Result<(), ControllerError> {
        let leader = self.parts.raft.leader().ok_or(ControllerError::NoLeader)?;
        let answer = if leader == self.parts.node {
            self.begin_succession(waits_for_nobody).await
        } else {
            let address = self.parts.handle.address(leader).await?;
            let whom = (leader, address.ok_or(ControllerError::NoLeader)?);
            let request = Request::Succeed { waits_for_nobody };
            let answer = self.ask_keys(whom, &request).await;
            let answer = answer.ok_or(ControllerError::NoLeader)?;
            codec::decode(&answer).map_err(|_malformed| ControllerError::NoLeader)?
        };
        match answer {
            SucceedAnswer::Begun => Ok(()),
            SucceedAnswer::NotLeader => Err(ControllerError::NoLeader),
            SucceedAnswer::NotAgreed(refused) => Err(ControllerError::Refused(refused)),
            SucceedAnswer::Refused(reason) => {
                let name = self.admitted_names().await?.remove(&leader);
                let leader = Owner { node: leader, name };
                Err(ControllerError::NoAuthority { leader, reason })
            }
        }
    }

    /// Makes the next authority and announces it, unless a change is under way.
    pub(super) async fn begin_succession(&self, waits_for_nobody: bool) -> SucceedAnswer {
        let Some(present) = self.authority().filter(|_| self.leads()) else {
            return SucceedAnswer::NotLeader;
        };
        let (next, cross_der) = match present.successor(self.parts.cluster) {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(%error, "no authority was made");
                return SucceedAnswer::Refused(error.to_string());
            }
        };
        let announced = self.propose(Action::AnnounceAuthority {
            cert_der: next.cert_der,
            key_der: Secret(next.key_der.to_vec()),
            cross_der,
            waits_for_nobody,
        });
        let begun = match announced.await {
            Err(ControllerError::Refused(AllocatorError::AuthoritiesChanged))
                if waits_for_nobody =>
            {
                unless_changed(self.propose(Action::HurryAuthority).await)
            }
            announced => unless_changed(announced),
        };
        match begun {
            Ok(()) => SucceedAnswer::Begun,
            Err(ControllerError::Refused(refused)) => SucceedAnswer::NotAgreed(refused),
            Err(_unavailable) => SucceedAnswer::NotLeader,
        }
    }

    fn leads(&self) -> bool {
        self.parts.raft.leader() == Some(self.parts.node)
    }

    /// Does what [`Succession`] decides, while this node leads.
    pub(super) async fn lead_succession(self) -> Result<(), Stopped> {
        let mut change: Option<Succession> = None;
        loop {
            let agreed = self.agreed_authorities().filter(|_| self.leads());
            let under_way = agreed.filter(|agreed| agreed.other.is_some() || change.is_some());
            let Some(agreed) = under_way else {
                change = None;
                self.desk.lacking.send_replace(BTreeSet::new());
                sleep(LOOK_EVERY).await;
                continue;
            };
            let life = self.parts.lives.certificate;
            let machine = change.get_or_insert_with(|| Succession::new(life));
            match self.take_step(machine, &agreed).await {
                Ok(true) => {}
                Ok(false) => change = None,
                Err(error) => {
                    tracing::warn!(%error, "the change of the authority is held up; it is tried again");
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Takes one step; returns whether there are more.
    async fn take_step(
        &self,
        change: &mut Succession,
        agreed: &AgreedAuthorities,
    ) -> Result<bool, ControllerError> {
        let others = self.live_others().await?;
        let present = self.present(&others);
        let version = agreed.version;
        match change.step(agreed, &present, self.parts.clock.now()) {
            Step::Tell(whom) => {
                self.desk.lacking.send_replace(whom.clone());
                for (node, has) in self.have_trusted(whom, &others, version).await {
                    change.handle_has(node, has);
                }
            }
            Step::Promote => {
                let token = Token::random([0; 32], &mut entropy());
                let secret = TokenSecret(token.secret);
                unless_changed(
                    self.propose(Action::PromoteAuthority { version, secret })
                        .await,
                )?;
                tracing::info!("another authority signs; tokens pin it from now on");
            }
            Step::Retire => {
                unless_changed(self.propose(Action::RetireAuthority { version }).await)?;
                tracing::info!("the former authority was dropped");
            }
            Step::Wait(pause, whom) => {
                self.desk.lacking.send_replace(whom);
                sleep(pause).await;
            }
            Step::Done => return Ok(false),
        }
        Ok(true)
    }

    fn present(&self, others: &BTreeMap<NodeId, SocketAddr>) -> Present {
        let members = self.parts.raft.read(|state| {
            let members = state.members().keys();
            members.copied().collect::<BTreeSet<_>>()
        });
        let is_live = |node: &NodeId| *node == self.parts.node || others.contains_key(node);
        let (live, away) = members.into_iter().partition(is_live);
        Present { live, away }
    }

    /// Has members trust what was agreed. Returns what those have that answer.
    async fn have_trusted(
        &self,
        whom: BTreeSet<NodeId>,
        others: &BTreeMap<NodeId, SocketAddr>,
        version: u64,
    ) -> Vec<(NodeId, Has)> {
        let told = stream::iter(whom).map(|node| async move {
            if node == self.parts.node {
                return Some((node, self.come_to_trust(version, node).await.ok()?));
            }
            let whom = (node, *others.get(&node)?);
            let answer = self.ask_keys(whom, &Request::Trust(version)).await?;
            Some((node, codec::decode(&answer).ok()?))
        });
        let told: Vec<_> = told.buffer_unordered(TOLD_AT_ONCE).collect().await;
        told.into_iter().flatten().collect()
    }

    /// Trusts that version of the authorities or a later one, is certified by the one that signs, and says what this node has.
    pub(super) async fn come_to_trust(
        &self,
        version: u64,
        from: NodeId,
    ) -> Result<Has, ControllerError> {
        if self.own_credentials().await?.trusts_version() < version {
            let leader = self.parts.raft.leader().unwrap_or(from);
            self.fetch_authorities(leader).await?;
        }
        if *self.desk.superseded.borrow()
            && let Err(error) = self.renew().await
        {
            tracing::warn!(%error, "not certified by the authority that signs now; it is tried again");
        }
        let credentials = self.own_credentials().await?;
        Ok(Has {
            version: credentials.trusts_version(),
            certified: !credentials.is_superseded(),
        })
    }

    /// Trusts what a voter says was agreed.
    pub(super) async fn fetch_authorities(&self, voter: NodeId) -> Result<(), ControllerError> {
        if let Some(known) = self.authorities_of(voter).await? {
            self.adopt_authorities(known.agreed).await?;
        }
        Ok(())
    }

    async fn authorities_of(&self, voter: NodeId) -> Result<Option<Authorities>, ControllerError> {
        if voter == self.parts.node {
            return Ok(self.own_authorities());
        }
        match self.parts.handle.address(voter).await? {
            Some(address) => self.authorities_from((voter, address)).await,
            None => Ok(None),
        }
    }

    /// Asks whoever it is at that address, or whom that one says to ask, and takes what the authority that signs vouches for.
    async fn authorities_from(
        &self,
        whom: (NodeId, SocketAddr),
    ) -> Result<Option<Authorities>, ControllerError> {
        let asked = self.ask_voter(whom, &Request::Authorities);
        let Some(known): Option<Vouched<Authorities>> = asked.await else {
            return Ok(None);
        };
        let credentials = self.own_credentials().await?;
        let agreed = known.claimed().agreed.clone();
        let signs = agreed.signs.clone();
        let is_known = credentials.trusted().contains(&&*signs);
        let checked = match is_known {
            true => Ok(()),
            // One that this node does not trust yet: who it does trust must have named it.
            false => credentials.trusting(agreed).map(|_changed| ()),
        };
        match checked.and_then(|()| known.check(self.parts.cluster, &[&signs])) {
            Ok(known) => Ok(Some(known)),
            Err(error) => {
                tracing::warn!(node = %whom.0, %error, "what it says of authorities is not taken");
                Ok(None)
            }
        }
    }

    /// Trusts what a voter says was agreed, whoever it is.
    pub(super) async fn fetch_authorities_from(
        &self,
        whom: (NodeId, SocketAddr),
    ) -> Result<(), ControllerError> {
        match self.authorities_from(whom).await? {
            Some(known) => self.adopt_authorities(known.agreed).await,
            None => Ok(()),
        }
    }

    /// What was agreed, and whom this node waits for; nothing on a node that does not vote.
    pub(super) fn own_authorities(&self) -> Option<Authorities> {
        let agreed = self.agreed_authorities()?;
        let lacking = self.desk.lacking.borrow().iter().copied().collect();
        Some(Authorities { agreed, lacking })
    }

    fn agreed_authorities(&self) -> Option<AgreedAuthorities> {
        let raft = &self.parts.raft;
        let votes = raft.status().voters.contains(&self.parts.node);
        votes.then(|| raft.read(|state| state.authorities()))?
    }

    /// Asks the leader until one answers.
    async fn newest_authorities(&self) -> Result<Authorities, ControllerError> {
        let asked = timeout(NEWEST_WITHIN, async {
            loop {
                if let Some(leader) = self.parts.raft.leader()
                    && let Some(known) = self.authorities_of(leader).await?
                {
                    return Ok(known);
                }
                sleep(ASK_AGAIN).await;
            }
        });
        asked.await.unwrap_or(Err(ControllerError::NoLeader))
    }

    /// Returns the digest of the authority that signs: what a token must pin.
    pub(super) async fn signing_authority(&self) -> Result<[u8; 32], ControllerError> {
        let leader = self.parts.raft.leader().ok_or(ControllerError::NoLeader)?;
        let known = self.authorities_of(leader).await?;
        // One that says nothing of them is of a version that never changes the authority.
        Ok(known.map_or_else(
            || self.parts.tls.ca_digest(),
            |known| digest(&known.agreed.signs),
        ))
    }

    /// Trusts other authorities from now on, if they are newer than ours: on disk first.
    async fn adopt_authorities(&self, agreed: AgreedAuthorities) -> Result<(), ControllerError> {
        let _one = self.desk.adopting.lock().await;
        let credentials = self.own_credentials().await?;
        if credentials.trusts_version() >= agreed.version {
            return Ok(());
        }
        let version = agreed.version;
        match credentials.trusting(agreed) {
            Ok(changed) => {
                tracing::debug!(version, "other authorities are trusted");
                self.replace_credentials(changed).await
            }
            Err(error) => {
                tracing::warn!(version, %error, "no other authority is trusted");
                Ok(())
            }
        }
    }
}

/// Somebody else has taken the step: the next look at what was agreed shows it.
fn unless_changed<T>(proposed: Result<T, ControllerError>) -> Result<(), ControllerError> {
    match proposed {
        Ok(_) | Err(ControllerError::Refused(AllocatorError::AuthoritiesChanged)) => Ok(()),
        Err(error) => Err(error),
    }
}
