//! Joining a cluster: a newcomer with a token calls a seed, proves its right, and gets what makes it a member.
//!
//! The newcomer speaks only to nodes whose certificates the authority pinned by the token has signed, so it cannot be
//! led into another cluster, and its secret is shown to nobody else. Its key never leaves it.

mod message;

#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use rand::{Rng, RngExt};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::{
    streams::{Connection, Counters, Service, StreamError, Tls, pinned},
    trust::{Credentials, NodeKey, Token, TrustError, digest},
};
use crate::core::{
    model::{ClusterId, Name, NodeId},
    wire::{codec, keyring::AgreedRing},
};

pub use message::{JoinRefusal, JoinReply, JoinRequest, Joined, VERSION};

/// How long one seed may take for everything. A leader's election fits in.
const SEED_WITHIN: Duration = Duration::from_secs(10);

/// How long to wait before the seeds are tried again, at first and at most; each wait is spread by half.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The name a newcomer calls: it knows none. The verifier looks for the pinned authority instead.
const ANY_NODE: &str = "any.node.weft";

/// Who wants to join.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// The node.
    pub node: NodeId,
    /// The name a person gave it.
    pub name: Name,
    /// Where it listens; an unspecified address lets the seed fill in the one it sees.
    pub listen: SocketAddr,
    /// The cluster it is a member of already, and joins again: it shows its token to no other.
    pub member_of: Option<ClusterId>,
    /// Its key. Who joins again as who it was, or for an answer that was lost, must have the same as the first time.
    pub key: NodeKey,
}

/// What a node has after it has joined: to be written to disk before anything else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    /// What it proves itself with.
    pub credentials: Credentials,
    /// The keys of the cluster's datagrams.
    pub ring: AgreedRing,
    /// The members, as membership encodes them.
    pub members: Vec<u8>,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// The seed that let it in.
    pub seed: SocketAddr,
}

/// Why a node did not join. Nothing was written; each line says who must act.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The caller gave no seed.
    #[error("there is no seed to join: name a member with --join HOST:PORT")]
    NoSeeds,
    /// The cluster refused for good.
    #[error("{0}")]
    Refused(JoinRefusal),
    /// No seed belongs to the token's cluster.
    #[error(
        "{seed} is not of the token's cluster, or its authority was replaced since the token was made: check --join, or run `weft token` there"
    )]
    ForeignSeed {
        /// The last such seed.
        seed: SocketAddr,
    },
    /// What the cluster sent does not fit the token, the key or the newcomer: a bug there, or worse.
    #[error(
        "{seed} sent an admission that cannot be used: {reason}; look at the log of that member"
    )]
    BadAdmission {
        /// The seed that sent it.
        seed: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// This machine cannot make a key.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The deadline passed; the operator sees what each seed said last.
    #[error("no seed let this node in within {deadline:?}: {}", Tried(.tried))]
    GaveUp {
        /// How long it tried.
        deadline: Duration,
        /// What each seed said last.
        tried: Vec<(SocketAddr, String)>,
    },
}

struct Tried<'a>(&'a [(SocketAddr, String)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (seed, why)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{seed}: {why}")?;
        }
        Ok(())
    }
}

/// What one seed said.
enum Attempt {
    Admitted(Box<Joined>),
    /// No seed will say otherwise.
    Final(JoinError),
    /// This seed is the wrong one; another may not be.
    Foreign,
    /// It may pass.
    Passing(String),
}

/// Joins through one of the seeds, tried in turn until one answers for good or the deadline passes.
pub async fn join(
    seeds: &[SocketAddr],
    token: &Token,
    newcomer: &Newcomer,
    deadline: Duration,
    rng: &mut impl Rng,
) -> Result<Admission, JoinError> {
    if seeds.is_empty() {
        return Err(JoinError::NoSeeds);
    }
    let request = JoinRequest {
        version: VERSION,
        node: newcomer.node,
        name: newcomer.name.clone(),
        csr_der: newcomer.key.csr(newcomer.node)?,
        secret: token.secret,
        listen: newcomer.listen,
    };
    let request = Zeroizing::new(codec::encode(&request));
    let connector = pinned(token.ca_digest, newcomer.member_of);
    let until = Instant::now() + deadline;
    let mut tried: Vec<(SocketAddr, String)> = Vec::new();
    let mut pause = PAUSE_MIN;
    loop {
        let mut foreign = Vec::new();
        for &seed in seeds {
            if Instant::now() >= until {
                return Err(JoinError::GaveUp { deadline, tried });
            }
            match attempt(seed, &connector, &request, until).await {
                Attempt::Admitted(joined) => {
                    return admitted(seed, (newcomer, token), *joined);
                }
                Attempt::Final(error) => return Err(error),
                Attempt::Foreign => {
                    foreign.push(seed);
                    note(
                        &mut tried,
                        seed,
                        "it is not of the token's cluster".to_owned(),
                    );
                }
                Attempt::Passing(why) => note(&mut tried, seed, why),
            }
        }
        if let Some(&seed) = foreign.last().filter(|_| foreign.len() == seeds.len()) {
            return Err(JoinError::ForeignSeed { seed });
        }
        sleep_until(until.min(Instant::now() + pause.mul_f64(rng.random_range(0.5..1.5)))).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Keeps what each seed said last.
fn note(tried: &mut Vec<(SocketAddr, String)>, seed: SocketAddr, why: String) {
    tracing::debug!(%seed, why, "the seed did not let us in");
    tried.retain(|(other, _)| *other != seed);
    tried.push((seed, why));
}

async fn attempt(
    seed: SocketAddr,
    connector: &TlsConnector,
    request: &[u8],
    until: Instant,
) -> Attempt {
    let call = async {
        let name = ANY_NODE.try_into().expect("it is a DNS name");
        let counters = Arc::new(Counters::default());
        let mut connection =
            Connection::open(seed, (connector.clone(), 0), name, &counters).await?;
        connection.call(Service::Join, request).await
    };
    let until = until.min(Instant::now() + SEED_WITHIN);
    let answer = match timeout_at(until, call).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(StreamError::ForeignCluster { .. })) => return Attempt::Foreign,
        Ok(Err(error)) => return Attempt::Passing(error.to_string()),
        Err(_elapsed) => return Attempt::Passing("no answer in time".to_owned()),
    };
    match codec::decode::<JoinReply>(&answer) {
        Ok(Ok(joined)) => Attempt::Admitted(Box::new(joined)),
        Ok(Err(refusal)) if refusal.is_final() => Attempt::Final(JoinError::Refused(refusal)),
        Ok(Err(refusal)) => Attempt::Passing(refusal.to_string()),
        Err(error) => Attempt::Final(JoinError::BadAdmission {
            seed,
            reason: error.to_string(),
        }),
    }
}

/// Checks what the cluster sent against what the newcomer knows.
fn admitted(
    seed: SocketAddr,
    (newcomer, token): (&Newcomer, &Token),
    joined: Joined,
) -> Result<Admission, JoinError> {
    let bad = |reason: String| JoinError::BadAdmission { seed, reason };
    if digest(&joined.ca_cert_der) != token.ca_digest {
        return Err(bad(
            "its authority is not the one the token names, or has just been replaced: run `weft token` there"
                .to_owned()
        ));
    }
    let credentials = newcomer
        .key
        .clone()
        .certified(joined.ca_cert_der, joined.cert_der)
        .map_err(|error| bad(error.to_string()))?;
    if (credentials.node, credentials.cluster) != (newcomer.node, joined.cluster) {
        return Err(bad("its certificate is for another node".to_owned()));
    }
    // The key must fit the certificate.
    Tls::new(&credentials).map_err(|error| bad(error.to_string()))?;
    Ok(Admission {
        credentials,
        ring: joined.ring,
        members: joined.members,
        leader: joined.leader,
        seed,
    })
}
