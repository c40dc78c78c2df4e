//! Which member this node is: what the disk says, else what founding or joining makes of it.

use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use crate::{
    api::http::types::{Code, Failure},
    cli::{error::CliError, init},
    config::{Config, Seed},
    core::{
        ipam::DefaultPools,
        model::NodeId,
        wire::{codec, keyring::AgreedRing, lifetime::Standing},
    },
    runtime::{
        clock,
        join::{self, Admission, JoinError, JoinRefusal, Newcomer},
        trust::{self, Credentials, NodeKey, PrivateKey, Token},
    },
    store::{NodeIdentity, Store},
};

/// How long the seeds are tried before it is said that they do not answer; then they are tried again.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How often a token file that is not there is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// An address that nobody has (RFC 5737, RFC 3849): the system says from where it would be reached, and nothing is sent.
const FAR: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(
        std::net::IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        9,
    ),
];

/// This node as a member of its cluster.
#[derive(Debug)]
pub(super) struct Member {
    /// What is on disk.
    pub(super) identity: NodeIdentity,
    /// What it proves itself with.
    pub(super) credentials: Credentials,
    /// Where others reach it.
    pub(super) address: SocketAddr,
}

impl Member {
    /// Finds out which member this is, by founding or joining if it is none yet.
    pub(super) async fn find(
        config: &Config,
        store: &Store,
        listening: SocketAddr,
        may_found: bool,
    ) -> Result<Self, CliError> {
        let identity = match store.identity()? {
            Some(identity) => {
                note_name(config, &identity);
                let node = Certified {
                    credentials: credentials(&identity)?,
                    identity,
                };
                match token_to_join_again(config, &node)? {
                    Some(token) => node.join_again(config, store, (listening, token)).await?,
                    None => node.identity,
                }
            }
            None if may_found => {
                let terms = (init::life(config), DefaultPools::default());
                let (identity, token) = init::found(store, config.name.clone(), terms).await?;
                tracing::info!(cluster = %identity.cluster, "a new cluster is founded");
                if let Some(path) = &config.token_file {
                    init::write_token(path, &token)?;
                }
                identity
            }
            None if config.join.is_empty() => return Err(nowhere(config)),
            None => join_through(config, store, listening).await?,
        };
        let credentials = credentials(&identity)?;
        let address = reachable_at(config, listening).await?;
        Ok(Self {
            identity,
            credentials,
            address,
        })
    }
}

fn nowhere(config: &Config) -> CliError {
    CliError::Usage(format!(
        "{} is not part of a cluster yet. To found one: weft up --init. To join one: weft up --join HOST:PORT --token TOKEN, where `weft token` on a member shows the token",
        config.data_dir.display()
    ))
}

fn credentials(identity: &NodeIdentity) -> Result<Credentials, CliError> {
    Credentials::from_bytes(&identity.credentials).map_err(|malformed| {
        anyhow::anyhow!("the credentials in the data directory cannot be read: {malformed}").into()
    })
}

fn note_name(config: &Config, identity: &NodeIdentity) {
    if config.is_name_chosen && identity.name != config.name {
        tracing::warn!(
            name = %identity.name, asked = %config.name,
            "the node keeps the name with which it joined"
        );
    }
}

/// A member as it was when it stopped.
struct Certified {
    identity: NodeIdentity,
    credentials: Credentials,
}

impl Certified {
    fn has_run_out(&self) -> bool {
        let valid = trust::validity(&self.credentials.cert_der);
        valid.is_ok_and(|valid| valid.standing(clock::wall()) == Standing::RunOut)
    }

    /// Returns whether a token pins the authority that certified this node, or one that this one trusts.
    fn knows(&self, token: &Token) -> bool {
        let mut trusted = self.credentials.trusted().into_iter();
        let own = trust::digest(&self.credentials.ca_cert_der);
        token.ca_digest == own || trusted.any(|cert| trust::digest(cert) == token.ca_digest)
    }

    /// Returns the authorities that are trusted no longer once another one has certified this node.
    fn former(&self) -> Vec<[u8; 32]> {
        let trusted = self.credentials.trusted().into_iter().map(trust::digest);
        let former = self.credentials.anchors.former.iter().copied();
        former.chain(trusted).collect()
    }

    /// Gets another certificate as who it was, with the key that it has. If nobody lets it in, it stays as it was.
    async fn join_again(
        self,
        config: &Config,
        store: &Store,
        (listening, token): (SocketAddr, Token),
    ) -> Result<NodeIdentity, CliError> {
        let newcomer = Newcomer {
            node: self.identity.node,
            name: self.identity.name.clone(),
            listen: advertised(config, listening),
            member_of: Some(self.identity.cluster),
            key: NodeKey::from(self.credentials.key_der.clone()),
        };
        let seeds = resolve(&config.join).await;
        let joined = join::join(&seeds, &token, &newcomer, TELL_EVERY, &mut clock::entropy()).await;
        match joined {
            Ok(mut admission) => {
                tracing::info!(through = %admission.seed, "joined again, with a new certificate");
                admission.credentials.anchors.former = self.former();
                joined_as(store, newcomer, admission)
            }
            // It pins what this node does not know, and no member of this cluster knows it either.
            Err(JoinError::ForeignSeed { .. }) if !self.knows(&token) => {
                Err(foreign_token(config, &self.identity))
            }
            // All of a cluster may have been away for so long: those who vote sign for themselves.
            Err(error) if self.has_run_out() => {
                tracing::warn!(%error, "the certificate has run out, and nobody signs another one");
                Ok(self.identity)
            }
            Err(error) => Err(refused(&error)),
        }
    }
}

/// Returns the token to join again with, if the certificate has run out or the token pins an authority that this node does not know:
/// it may have slept through a change of it. One of another cluster is refused at any time, and one of a former authority is of no
/// use.
fn token_to_join_again(config: &Config, node: &Certified) -> Result<Option<Token>, CliError> {
    let token = match &config.token {
        Some(token) => Some(parse_token(&token.0)?),
        None => (config.token_file.as_ref())
            .filter(|_| node.has_run_out())
            .and_then(|path| fs::read_to_string(path).ok()?.parse().ok()),
    };
    let Some(token) = token else {
        return Ok(None);
    };
    if node.credentials.anchors.former.contains(&token.ca_digest) {
        tracing::warn!(
            "the token is of an authority that was replaced: it is of no use, `weft token` shows the one that is"
        );
        return Ok(None);
    }
    let is_known = node.knows(&token);
    if !is_known && config.join.is_empty() {
        return Err(foreign_token(config, &node.identity));
    }
    let joins_again = (node.has_run_out() || !is_known) && !config.join.is_empty();
    Ok(Some(token).filter(|_| joins_again))
}

fn foreign_token(config: &Config, identity: &NodeIdentity) -> CliError {
    let message = format!(
        "{} belongs to cluster {}, and the token to another, or to an authority of this one that was replaced: `weft leave` first, choose another --data-dir, or give the token that `weft token` shows on a member and --join",
        config.data_dir.display(),
        identity.cluster
    );
    Failure::new(Code::Founded, message).into()
}

fn parse_token(text: &str) -> Result<Token, CliError> {
    text.parse()
        .map_err(|refused: trust::TokenError| CliError::Usage(refused.to_string()))
}

/// Returns the token that was given, or the one in the file once it is there.
async fn token(config: &Config) -> Result<Token, CliError> {
    if let Some(token) = &config.token {
        return parse_token(&token.0);
    }
    let Some(path) = &config.token_file else {
        return Err(CliError::Usage(
            "to join, a token is needed: give the one that `weft token` shows on a member with --token or --token-file".to_owned(),
        ));
    };
    let mut told = false;
    loop {
        match fs::read_to_string(path) {
            Ok(text) => return parse_token(text.trim()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(file = %path.display(), "waiting for the token");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => {
                let what = format!("cannot read the token in {}: {error}", path.display());
                return Err(anyhow::anyhow!(what).into());
            }
        }
    }
}

/// Joins through the seeds, for as long as it takes.
async fn join_through(
    config: &Config,
    store: &Store,
    listening: SocketAddr,
) -> Result<NodeIdentity, CliError> {
    let token = token(config).await?;
    let (node, key) = newcomer_id(&config.data_dir)?;
    let newcomer = Newcomer {
        node,
        name: config.name.clone(),
        listen: advertised(config, listening),
        member_of: None,
        key,
    };
    let admission = loop {
        let seeds = resolve(&config.join).await;
        let joined = join::join(&seeds, &token, &newcomer, TELL_EVERY, &mut clock::entropy()).await;
        match joined {
            Ok(admission) => break admission,
            Err(JoinError::GaveUp { .. } | JoinError::NoSeeds) if seeds.is_empty() => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error @ JoinError::GaveUp { .. }) => {
                tracing::warn!(%error, "not joined yet; trying on");
            }
            Err(error) => return Err(refused(&error)),
        }
    };
    let through = admission.seed;
    let identity = joined_as(store, newcomer, admission)?;
    // It is only of use for a join that was cut off.
    let _ = fs::remove_file(id_file(&config.data_dir));
    tracing::info!(cluster = %identity.cluster, %through, "joined");
    Ok(identity)
}

/// Writes down what makes this node a member: who it is comes last.
fn joined_as(
    store: &Store,
    newcomer: Newcomer,
    admission: Admission,
) -> Result<NodeIdentity, CliError> {
    let identity = NodeIdentity {
        node: newcomer.node,
        name: newcomer.name,
        cluster: admission.credentials.cluster,
        credentials: admission.credentials.to_bytes(),
        // It is whoever let this node in that says so: any ring that a voter vouches for takes its place.
        ring: AgreedRing {
            version: 0,
            ..admission.ring
        },
    };
    store.set_members(&admission.members)?;
    store.set_identity(&identity)?;
    Ok(identity)
}

fn refused(error: &JoinError) -> CliError {
    let code = match error {
        JoinError::Refused(JoinRefusal::WrongToken) | JoinError::ForeignSeed { .. } => {
            Code::WrongToken
        }
        JoinError::Refused(JoinRefusal::NameTaken { .. } | JoinRefusal::IdTaken) => Code::NameTaken,
        JoinError::Refused(JoinRefusal::NoLeader) => Code::NoLeader,
        JoinError::Refused(JoinRefusal::Busy) => Code::Busy,
        JoinError::Refused(JoinRefusal::Version { .. } | JoinRefusal::Malformed { .. })
        | JoinError::NoSeeds
        | JoinError::BadAdmission { .. }
        | JoinError::Trust(_)
        | JoinError::GaveUp { .. } => Code::Failed,
    };
    Failure::new(code, error.to_string()).into()
}

/// Looks the seeds up; one that is not found now may be later.
pub(super) async fn resolve(seeds: &[Seed]) -> Vec<SocketAddr> {
    let seeds = seeds.to_vec();
    let looked_up = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        for seed in seeds {
            match seed.resolve() {
                Ok(addresses) => found.extend(addresses),
                Err(error) => tracing::warn!(%seed, %error, "the host is not found; trying on"),
            }
        }
        found
    });
    looked_up.await.unwrap_or_default()
}

fn id_file(data_dir: &Path) -> PathBuf {
    data_dir.join("joining")
}

/// Returns the id and the key to join with: those of a join that was cut off, since the cluster may know them, or new ones.
fn newcomer_id(data_dir: &Path) -> Result<(NodeId, NodeKey), CliError> {
    let path = id_file(data_dir);
    let kept = fs::read(&path).ok();
    if let Some((node, key)) = kept.and_then(|bytes| codec::decode(&bytes).ok()) {
        let key: PrivateKey = key;
        return Ok((node, key.into()));
    }
    let node = NodeId::random(&mut clock::entropy());
    let key = NodeKey::generate().map_err(anyhow::Error::from)?;
    let bytes = Zeroizing::new(codec::encode(&(node, key.der())));
    let write = || -> io::Result<()> {
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    Ok((node, key))
}

/// Returns where to say that this node is; an unspecified address lets the seed fill in the one it sees.
fn advertised(config: &Config, listening: SocketAddr) -> SocketAddr {
    match config.advertise {
        Some(advertise) => advertise.with_port(listening.port()),
        None => listening,
    }
}

/// Returns where others reach this node: what was configured, where it listens, or the address that leads to the others.
async fn reachable_at(config: &Config, listening: SocketAddr) -> Result<SocketAddr, CliError> {
    let address = advertised(config, listening);
    if !address.ip().is_unspecified() {
        return Ok(address);
    }
    let mut towards = resolve(&config.join).await;
    towards.extend(FAR);
    let local = towards.into_iter().find_map(|to| local_address(to).ok());
    let Some(local) = local else {
        return Err(CliError::Usage(
            "this host has no route by which others could reach it: say where they do with --advertise IP".to_owned(),
        ));
    };
    Ok(SocketAddr::new(local.ip(), address.port()))
}

/// Asks the system from which address it would send there. Nothing is sent.
fn local_address(to: SocketAddr) -> io::Result<SocketAddr> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.local_addr()
}
