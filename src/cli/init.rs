//! `weft init`: a cluster is founded on one disk, before anything runs.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;

use super::{
    args::{Global, InitArgs},
    error::CliError,
    output::Output,
};
use crate::{
    api::http::{
        pools::agreed,
        types::{Code, Failure},
    },
    config::{Config, Host, Layer, PORT},
    core::{
        allocator::{Action, Secret, TokenSecret},
        ipam::DefaultPools,
        model::{ClusterId, Name, NodeId},
        wire::keyring::{AgreedRing, ClusterKey, KeyId, Keyring},
    },
    raft::{ProposeError, Raft, RaftConfig, Service, Timings, Transport, TransportError},
    runtime::{
        clock,
        trust::{Ca, CertifiedName, NodeKey, Token, VALID_FOR},
    },
    store::{NodeIdentity, Store},
};

/// How many nodes vote, unless there are fewer.
pub(super) const VOTERS: usize = 3;

/// What `weft init` answers.
#[derive(Debug, Serialize)]
struct Founded<'a> {
    cluster: ClusterId,
    node: NodeId,
    name: &'a Name,
    data_dir: &'a Path,
    token: String,
}

pub(super) async fn run(args: InitArgs, global: &Global, output: Output) -> Result<(), CliError> {
    let file = match &args.place.config {
        Some(path) => Layer::from_file(path)?,
        None => Layer::default(),
    };
    let config = Config::resolve(args.place.layer(global).over(file), &Host::here())?;
    let pools = agreed(&args.default_address_pool);
    if let Err(refused) = pools.check() {
        return Err(CliError::Usage(refused.to_string()));
    }
    let store = open(&config.data_dir).await?;
    if let Some(identity) = store.identity()? {
        let message = format!(
            "{} belongs to node {} of cluster {} already: `weft up` runs it",
            config.data_dir.display(),
            identity.name,
            identity.cluster
        );
        return Err(Failure::new(Code::Founded, message).into());
    }
    let life = life(&config);
    let (identity, token) = found(&store, config.name, (life, pools)).await?;
    if let Some(path) = &config.token_file {
        write_token(path, &token)?;
    }
    let founded = Founded {
        cluster: identity.cluster,
        node: identity.node,
        name: &identity.name,
        data_dir: &config.data_dir,
        token: token.to_string(),
    };
    output.answer(&founded, show)?;
    Ok(())
}

fn show(founded: &Founded<'_>) -> String {
    format!(
        "cluster {} is founded, and {} is its first node\n\nrun it:\n  weft up --data-dir {}\n\nonce it is up, others join it with:\n  weft up --join HOST:{PORT} --token {}\n\nwhere HOST is this host",
        founded.cluster,
        founded.name,
        founded.data_dir.display(),
        founded.token
    )
}

/// Returns how long certificates live that this node signs.
pub(super) fn life(config: &Config) -> Duration {
    config.certificate_life.map_or(VALID_FOR, |life| life.0)
}

/// Opens the data file, on a thread that may block.
pub(super) async fn open(directory: &Path) -> Result<Store, CliError> {
    let directory = directory.to_owned();
    let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
    Ok(opened.map_err(anyhow::Error::from)??)
}

/// Founds a cluster of this one node. What is written last makes the node a part of it, so a founding that was cut off is
/// begun anew.
pub(super) async fn found(
    store: &Store,
    name: Name,
    (life, pools): (Duration, DefaultPools),
) -> Result<(NodeIdentity, Token), CliError> {
    store.clear()?;
    let mut rng = clock::entropy();
    let (node, cluster) = (NodeId::random(&mut rng), ClusterId::random(&mut rng));
    let failed = anyhow::Error::from;
    let ca = Ca::create(cluster).map_err(failed)?;
    let key = NodeKey::generate().map_err(failed)?;
    let csr = key.csr(node).map_err(failed)?;
    let cert = ca
        .sign(&csr, CertifiedName { node, cluster }, (clock::wall(), life))
        .map_err(failed)?;
    let token = Token::random(ca.digest(), &mut rng);
    let keyring = Keyring::new(KeyId(0), ClusterKey::random(&mut rng));
    let genesis = Action::Genesis {
        cluster,
        ca_cert_der: ca.cert_der.clone(),
        ca_key_der: Secret(ca.key_der.to_vec()),
        keyring: keyring.clone(),
        token_secret: TokenSecret(token.secret),
        founder: node,
        name: name.clone(),
    };
    agree(store, node, genesis, pools).await?;
    let credentials = key.certified(ca.cert_der, cert).map_err(failed)?;
    let identity = NodeIdentity {
        node,
        name,
        cluster,
        credentials: credentials.to_bytes(),
        ring: AgreedRing {
            version: 0,
            keys: keyring,
        },
    };
    store.set_identity(&identity)?;
    Ok((identity, token))
}

/// Agrees on the genesis and the default pools with the one voter there is.
async fn agree(
    store: &Store,
    node: NodeId,
    genesis: Action,
    pools: DefaultPools,
) -> Result<(), CliError> {
    let config = RaftConfig {
        node,
        store: store.clone(),
        transport: Arc::new(NoWay),
        clock: Arc::new(clock::wall),
        seed: clock::seed(),
        timings: Timings::default(),
        voters: VOTERS,
    };
    let (raft, _cluster_log) = Raft::start(config).await.map_err(anyhow::Error::from)?;
    let agreed = async {
        raft.bootstrap(genesis).await?;
        if pools != DefaultPools::default() {
            raft.propose(Action::SetPools(pools)).await?;
        }
        Ok::<(), ProposeError>(())
    };
    let agreed = agreed.await;
    raft.shutdown().await;
    agreed.map_err(anyhow::Error::from)?;
    Ok(())
}

/// The way to other nodes where there are none.
struct NoWay;

impl Transport for NoWay {
    fn call(
        &self,
        to: NodeId,
        _: Service,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        Box::pin(async move { Err(TransportError::NoAddress(to)) })
    }
}

/// Writes the token for newcomers to read, for the owner's eyes only, whole or not at all.
pub(super) fn write_token(path: &Path, token: &Token) -> Result<(), CliError> {
    let write = || -> io::Result<()> {
        use io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut fresh = path.as_os_str().to_owned();
        fresh.push("~");
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    let what = |error| anyhow::anyhow!("cannot write the token to {}: {error}", path.display());
    Ok(write().map_err(what)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{raft::Recovery, runtime::trust::Credentials};

    #[tokio::test]
    async fn a_founded_node_has_an_identity_and_the_agreement_knows_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await.unwrap();

        let (identity, token) = found(
            &store,
            Name::new("n1").unwrap(),
            (VALID_FOR, DefaultPools::default()),
        )
        .await
        .unwrap();

        assert_eq!(store.identity().unwrap(), Some(identity.clone()));
        let credentials = Credentials::from_bytes(&identity.credentials).unwrap();
        assert_eq!(
            (credentials.node, credentials.cluster),
            (identity.node, identity.cluster)
        );
        let digest = crate::runtime::trust::digest(&credentials.ca_cert_der);
        assert_eq!(digest, token.ca_digest);
    }

    #[tokio::test]
    async fn a_cluster_is_founded_with_the_default_pools_that_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await.unwrap();
        let pools = agreed(&["base=10.10.0.0/16,size=24".parse().unwrap()]);

        let (identity, _token) =
            found(&store, Name::new("n1").unwrap(), (VALID_FOR, pools.clone()))
                .await
                .unwrap();

        let found = Recovery::look(&store, identity.node).unwrap();
        assert_eq!(found.state().pools(), &pools);
    }

    #[test]
    fn a_token_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let token = Token::random([1; 32], &mut clock::entropy());

        write_token(&path, &token).unwrap();

        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.parse(), Ok(token));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
