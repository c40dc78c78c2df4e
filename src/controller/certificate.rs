//! Certificates: each node has its own renewed in time, while it runs; the leader signs.
//!
//! The request goes over the node's own stream, so that the certificate it has vouches for the one it gets, and is signed with the
//! key it was let in with, which never leaves it. The new one is on disk before it is used, so a crash at any point leaves one
//! that is valid. Who was removed gets none.
//!
//! A certificate that has run out vouches for nothing: its holder joins again with a token, as itself, see
//! [`Action::AdmitNode`]. Only who votes helps itself, since it holds the authority: or a cluster that was switched off for
//! longer than its certificates live could never start again.

use std::time::Duration;

use bincode::{Decode, Encode};
use tokio::time::timeout;

use super::{Controller, ControllerError, entropy, keys::Request};
use crate::{
    core::{
        allocator::Action,
        model::{NodeId, UnixMillis},
        wire::{
            codec,
            lifetime::{Due, Renewal, Standing, Validity},
        },
    },
    runtime::{
        Stopped, clock,
        streams::Tls,
        trust::{Ca, CertifiedName, Credentials, NodeKey, TrustError, VALID_FOR, key_digest},
    },
};

/// How long what proves something is valid.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// A certificate, after this node has signed it as the leader.
    pub certificate: Duration,
    /// A datagram key as the one that seals, while this node leads.
    pub datagram_key: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            certificate: VALID_FOR,
            datagram_key: Duration::from_hours(12),
        }
    }
}

/// This node's certificate, without the key.
#[derive(Clone, Copy, Debug)]
pub struct CertificateView {
    /// From when until when it is valid.
    pub validity: Validity,
    /// The SHA-256 of the authority that signed it, as tokens pin it.
    pub authority: [u8; 32],
}

/// What the leader says to a member that wants its certificate renewed.
#[derive(Encode, Decode)]
pub(super) enum CertifyAnswer {
    Certified(Certified),
    /// It does not lead: ask again later.
    NotLeader,
    /// Why not; asking again is of no use.
    Refused(String),
}

/// A certificate, and that of the authority which signed it.
#[derive(Encode, Decode)]
pub(super) struct Certified {
    pub(super) ca_cert_der: Vec<u8>,
    pub(super) cert_der: Vec<u8>,
}

/// Why a certificate was not renewed. The one that this node has is as good as before.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewError {
    #[error("no leader can be reached")]
    NoLeader,
    #[error("the leader refuses: {0}")]
    Refused(String),
    #[error(
        "the new certificate is not valid at this time: the clocks of this node and of the leader differ, set them right"
    )]
    Clocks,
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Controller(#[from] ControllerError),
}

impl Controller {
    /// Shows this node's certificate.
    pub fn certificate(&self) -> CertificateView {
        CertificateView {
            validity: self.parts.tls.validity(),
            authority: self.parts.tls.ca_digest(),
        }
    }

    /// Returns whether this node could sign a certificate of its own: it votes, so it holds the authority.
    pub fn holds_authority(&self) -> bool {
        let raft = &self.parts.raft;
        raft.status().voters.contains(&self.parts.node) && raft.read(|state| state.ca().is_some())
    }

    /// Renews the certificate whenever it is time.
    pub(super) async fn renew_in_time(self) -> Result<(), Stopped> {
        let mut rng = entropy();
        let mut renewal = Renewal::new(self.parts.tls.validity(), &mut rng);
        let mut superseded = self.desk.superseded.subscribe();
        match self.own_credentials().await {
            Ok(own) => drop(self.desk.superseded.send_replace(own.is_superseded())),
            Err(error) => tracing::warn!(%error, "the certificate cannot be looked at"),
        }
        loop {
            if renewal.validity() != self.parts.tls.validity() {
                renewal = Renewal::new(self.parts.tls.validity(), &mut rng);
            }
            if *superseded.borrow_and_update() {
                renewal.handle_superseded();
            }
            match renewal.due(self.parts.clock.now()) {
                Due::After(pause) => {
                    // Whether it was woken or has slept: it looks again.
                    let _ = timeout(pause, superseded.changed()).await;
                }
                Due::Now => match self.renew().await {
                    Ok(()) => renewal = Renewal::new(self.parts.tls.validity(), &mut rng),
                    Err(error) => {
                        tell(&error, renewal.validity());
                        renewal.handle_failed(self.now());
                    }
                },
            }
        }
    }

    pub(super) async fn renew(&self) -> Result<(), RenewError> {
        let is_superseded = || *self.desk.superseded.borrow();
        let was_superseded = is_superseded();
        let _one = self.desk.renewing.lock().await;
        if was_superseded && !is_superseded() {
            return Ok(()); // Meanwhile somebody else has.
        }
        let credentials = self.own_credentials().await?;
        let key = NodeKey::from(credentials.key_der.clone());
        let certified = self.ask_certificate(key.csr(self.parts.node)?).await?;
        let validity = self.use_certificate(certified).await?;
        let days = validity.life().as_secs() / (24 * 3600);
        tracing::info!(
            days,
            until = validity.until.0 / 1000,
            "the certificate was renewed"
        );
        Ok(())
    }

    async fn ask_certificate(&self, csr_der: Vec<u8>) -> Result<Certified, RenewError> {
        let run_out = self.parts.tls.validity().standing(clock::wall()) == Standing::RunOut;
        match self.ask_to_certify(csr_der.clone()).await {
            // There may be one: it does not take the certificate that has run out.
            Err(RenewError::NoLeader) if run_out && self.holds_authority() => {
                Ok(self.sign(&csr_der, self.parts.node)?)
            }
            answered => answered,
        }
    }

    async fn ask_to_certify(&self, csr_der: Vec<u8>) -> Result<Certified, RenewError> {
        let leader = self.parts.raft.leader().ok_or(RenewError::NoLeader)?;
        let answer = if leader == self.parts.node {
            self.certify_member(leader, &csr_der).await
        } else {
            let address = self.parts.handle.address(leader).await;
            let address = address.map_err(ControllerError::from)?;
            let whom = (leader, address.ok_or(RenewError::NoLeader)?);
            let answer = self.ask_keys(whom, &Request::Certify(csr_der)).await;
            let answer = answer.ok_or(RenewError::NoLeader)?;
            codec::decode(&answer).map_err(|error| RenewError::Refused(error.to_string()))?
        };
        match answer {
            CertifyAnswer::Certified(certified) => Ok(certified),
            CertifyAnswer::NotLeader => Err(RenewError::NoLeader),
            CertifyAnswer::Refused(why) => Err(RenewError::Refused(why)),
        }
    }

    /// Checks a certificate, writes it down, then uses it.
    async fn use_certificate(&self, certified: Certified) -> Result<Validity, RenewError> {
        let _one = self.desk.adopting.lock().await;
        let Certified {
            ca_cert_der,
            cert_der,
        } = certified;
        let renewed = self
            .own_credentials()
            .await?
            .renewed(ca_cert_der, cert_der)?;
        let validity = Tls::new(&renewed)?.validity();
        if validity.standing(clock::wall()) != Standing::Valid {
            return Err(RenewError::Clocks);
        }
        self.replace_credentials(renewed).await?;
        Ok(validity)
    }

    /// Writes credentials down and uses them; the caller holds the lock of adoptions.
    pub(super) async fn replace_credentials(
        &self,
        credentials: Credentials,
    ) -> Result<(), ControllerError> {
        let bytes = credentials.to_bytes();
        self.disk(move |store| {
            let Some(mut identity) = store.identity()? else {
                return Ok(());
            };
            identity.credentials = bytes;
            store.set_identity(&identity)
        })
        .await?;
        let replaced = self.parts.tls.replace(&credentials);
        replaced.map_err(|_checked_before| ControllerError::Broken("credentials do not fit"))?;
        self.desk
            .superseded
            .send_replace(credentials.is_superseded());
        Ok(())
    }

    pub(super) async fn own_credentials(&self) -> Result<Credentials, ControllerError> {
        let identity = self.own_identity().await?;
        let read = Credentials::from_bytes(&identity.credentials);
        read.map_err(|_damaged| ControllerError::Broken("the credentials on disk cannot be read"))
    }

    /// Answers a member that wants its certificate renewed.
    pub(super) async fn certify_member(&self, from: NodeId, csr_der: &[u8]) -> CertifyAnswer {
        if self.parts.raft.leader() != Some(self.parts.node) {
            return CertifyAnswer::NotLeader;
        }
        let key = match key_digest(csr_der) {
            Ok(key) => key,
            Err(error) => return CertifyAnswer::Refused(error.to_string()),
        };
        let record = Action::RecordKey { node: from, key };
        let recorded = self
            .parts
            .raft
            .read(|state| state.member_key(from).copied());
        // Most have it written down. Who is no member, or was removed, is refused by the agreement.
        if recorded != Some(key)
            && let Err(error) = self.propose(record).await
        {
            if let ControllerError::Refused(why) = error {
                return CertifyAnswer::Refused(why.to_string());
            }
            return CertifyAnswer::NotLeader;
        }
        match self.sign(csr_der, from) {
            Ok(certified) => {
                tracing::debug!(node = %from, "a certificate was renewed");
                CertifyAnswer::Certified(certified)
            }
            Err(error @ TrustError::BadRequest(_)) => CertifyAnswer::Refused(error.to_string()),
            Err(error) => {
                tracing::error!(%error, node = %from, "a certificate was not renewed");
                CertifyAnswer::NotLeader
            }
        }
    }

    /// The authority that signs, as this node has it applied; nothing on a node that does not vote.
    pub(super) fn authority(&self) -> Option<Ca> {
        self.parts.raft.read(|state| {
            let (cert_der, key_der) = state.ca()?;
            Some(Ca {
                cert_der: cert_der.to_vec(),
                key_der: key_der.0.clone().into(),
            })
        })
    }

    /// Signs with the authority that the cluster agreed on.
    pub(super) fn sign(&self, csr_der: &[u8], node: NodeId) -> Result<Certified, TrustError> {
        let ca = self.authority();
        let ca = ca.ok_or_else(|| TrustError::BadCa("this node has none".to_owned()))?;
        let name = CertifiedName {
            node,
            cluster: self.parts.cluster,
        };
        let cert_der = ca.sign(csr_der, name, (clock::wall(), self.parts.lives.certificate))?;
        Ok(Certified {
            ca_cert_der: ca.cert_der,
            cert_der,
        })
    }
}

/// Says why it was not renewed: the louder the less time is left.
fn tell(error: &RenewError, validity: Validity) {
    let now: UnixMillis = clock::wall();
    match validity.standing(now) {
        Standing::RunOut => tracing::warn!(
            %error,
            "this node's certificate has run out: others refuse its streams; if the clock is right, start it with --join HOST:PORT --token TOKEN"
        ),
        Standing::Valid | Standing::NotYet => tracing::warn!(
            %error,
            days_left = validity.until.0.saturating_sub(now.0) / (24 * 3600 * 1000),
            "the certificate was not renewed; it is tried again"
        ),
    }
}
