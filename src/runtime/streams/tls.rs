//! TLS 1.3 with the cluster's own authority: who may speak to whom, and how a newcomer knows the cluster by its token.
//!
//! A node's certificate can be replaced while it runs. Connections that are open go on; new ones use the new certificate, and no
//! session from before is resumed, since a resumed one is not asked for its certificate again.
//!
//! Which version of the frames is spoken is agreed in the handshake (ALPN, RFC 7301): the highest that both sides name, and the oldest
//! with a side that names none: a newcomer, or a program from before there were two.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, ServerSessionMemoryCache, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    version::TLS13,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Counters, Reason, StreamError, StreamStats};
use crate::{
    core::{
        model::{ClusterId, NodeId, UnixMillis},
        wire::{
            lifetime::{Standing, Validity},
            versions::{NEWEST, OLDEST},
        },
    },
    runtime::{
        clock,
        trust::{CertifiedName, Credentials, TrustError, digest, validity},
    },
};

/// How many sessions each side remembers, so that a further connection needs no certificate and half the bytes.
const SESSIONS: usize = 256;

/// A node's side of TLS, for calling and for being called, and the counters of both. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Tls {
    cluster: ClusterId,
    node: NodeId,
    newest: u8,
    sides: Arc<RwLock<Sides>>,
    counters: Arc<Counters>,
}

/// What is made of one set of credentials.
#[derive(Clone)]
struct Sides {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    callers: Arc<dyn ClientCertVerifier>,
    called: Arc<WebPkiServerVerifier>,
    validity: Validity,
    ca_digest: [u8; 32],
    /// The digests of the authorities that are trusted.
    trusted: Vec<[u8; 32]>,
    /// How often the credentials were replaced.
    epoch: u64,
    /// How often an authority was dropped.
    drops: u64,
}

impl Tls {
    /// Prepares both sides from what the node proves itself with; fails if that does not fit together.
    pub fn new(credentials: &Credentials) -> Result<Self, TrustError> {
        Self::speaking(NEWEST, credentials)
    }

    /// As [`Self::new`], and speaks no newer version than that.
    pub fn speaking(newest: u8, credentials: &Credentials) -> Result<Self, TrustError> {
        Ok(Self {
            cluster: credentials.cluster,
            node: credentials.node,
            newest,
            sides: Arc::new(RwLock::new(Sides::new(credentials, 0, newest)?)),
            counters: Arc::default(),
        })
    }

    /// Uses other credentials of the same node for every connection from now on; changes nothing if they do not fit.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), TrustError> {
        if (credentials.node, credentials.cluster) != (self.node, self.cluster) {
            return Err(TrustError::BadCredentials(
                "they are another node's".to_owned(),
            ));
        }
        let former = self.sides();
        let mut sides = Sides::new(credentials, former.epoch + 1, self.newest)?;
        let is_dropped = |digest: &[u8; 32]| !sides.trusted.contains(digest);
        let drops = former.trusted.iter().any(is_dropped);
        sides.drops = former.drops + u64::from(drops);
        *self.sides.write().unwrap_or_else(PoisonError::into_inner) = sides;
        Ok(())
    }

    /// Returns from when until when the node's certificate is valid.
    pub fn validity(&self) -> Validity {
        self.sides().validity
    }

    /// Returns the digest of the authority that signed the node's certificate.
    pub fn ca_digest(&self) -> [u8; 32] {
        self.sides().ca_digest
    }

    /// Returns how often an authority was dropped: who was let in before must prove itself again.
    pub(super) fn drops(&self) -> u64 {
        self.sides().drops
    }

    /// Nothing in it can panic halfway, so a poisoned lock is as good as any.
    fn sides(&self) -> Sides {
        let sides = self.sides.read().unwrap_or_else(PoisonError::into_inner);
        sides.clone()
    }

    /// Returns the node this is the side of.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Returns what all streams of this node did so far.
    pub fn stats(&self) -> StreamStats {
        self.counters.stats()
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.sides().acceptor
    }

    /// Returns the calling side, and how often the credentials were replaced before.
    pub(super) fn connector(&self) -> (TlsConnector, u64) {
        let sides = self.sides();
        (sides.connector, sides.epoch)
    }

    /// Returns how often the credentials were replaced.
    pub(super) fn epoch(&self) -> u64 {
        self.sides().epoch
    }

    /// Returns the name that the certificate of `node` must have.
    pub(super) fn server_name(&self, node: NodeId) -> ServerName<'static> {
        let cluster = self.cluster;
        CertifiedName { node, cluster }
            .to_string()
            .try_into()
            .expect("two hexadecimal ids make a DNS name")
    }

    /// Checks what a caller shows, as a handshake at that time would: its certificate, then others. Returns the node it names.
    pub fn check_caller(&self, shown: &[&[u8]], at: UnixMillis) -> Result<NodeId, Reason> {
        let chain = chain(shown);
        let (cert, others) = chain.split_first().ok_or(Reason::Certificate)?;
        let verified = self
            .sides()
            .callers
            .verify_client_cert(cert, others, unix_time(at));
        verified.map_err(|error| refusal(Some(&error)))?;
        self.named_by(cert, at)
    }

    /// Checks what a node shows that is called as `node`, as a handshake at that time would.
    pub fn check_called(
        &self,
        node: NodeId,
        shown: &[&[u8]],
        at: UnixMillis,
    ) -> Result<(), TrustError> {
        let (name, called) = (self.server_name(node), self.sides().called);
        verified(&*called, (shown, &name), at)
    }

    /// Returns the node that a verified certificate of a caller names, unless it has run out since it was verified.
    pub(super) fn caller(&self, cert: &CertificateDer<'_>) -> Result<NodeId, Reason> {
        // TLS does not look again at the certificate of a session that is resumed.
        self.named_by(cert, clock::wall())
    }

    fn named_by(&self, cert: &CertificateDer<'_>, at: UnixMillis) -> Result<NodeId, Reason> {
        let name = CertifiedName::of(cert).map_err(|_names_no_node| Reason::Certificate)?;
        if name.cluster != self.cluster {
            return Err(Reason::ForeignCertificate);
        }
        let valid = validity(cert).map_err(|_unreadable| Reason::Certificate)?;
        match valid.standing(at) {
            Standing::RunOut => Err(Reason::CertificateNotValidNow),
            Standing::Valid | Standing::NotYet => Ok(name.node),
        }
    }
}

impl Sides {
    fn new(credentials: &Credentials, epoch: u64, newest: u8) -> Result<Self, TrustError> {
        let bad = |error: &dyn fmt::Display| TrustError::BadCredentials(error.to_string());
        let name = CertifiedName::of(&credentials.cert_der)?;
        if (name.node, name.cluster) != (credentials.node, credentials.cluster) {
            return Err(bad(&"the certificate is another node's"));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let trusted = credentials.trusted();
        let roots = Arc::new(roots(&trusted).map_err(|error| bad(&error))?);
        let cert = CertificateDer::from(credentials.cert_der.clone());
        let cross = credentials
            .cross()
            .map(|der| CertificateDer::from(der.to_vec()));
        let shown: Vec<_> = std::iter::once(cert).chain(cross).collect();
        // The authority's certificate goes along for newcomers, who only know its digest.
        let ca = CertificateDer::from(credentials.ca_cert_der.clone());
        let with_ca = shown.iter().cloned().chain([ca]).collect();
        let key = || PrivatePkcs8KeyDer::from(credentials.key_der.to_vec());

        let callers =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .clear_root_hint_subjects()
                .build()
                .map_err(|error| bad(&error))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| bad(&error))?
            .with_client_cert_verifier(Arc::clone(&callers))
            .with_single_cert(with_ca, key().into())
            .map_err(|error| bad(&error))?;
        server.alpn_protocols = protocols(newest);
        server.session_storage = ServerSessionMemoryCache::new(SESSIONS);

        let called = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| bad(&error))?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| bad(&error))?
            .with_webpki_verifier(Arc::clone(&called))
            .with_client_auth_cert(shown, key().into())
            .map_err(|error| bad(&error))?;
        client.alpn_protocols = protocols(newest);
        client.resumption = Resumption::in_memory_sessions(SESSIONS);

        Ok(Self {
            acceptor: Arc::new(server).into(),
            connector: Arc::new(client).into(),
            callers,
            called,
            validity: validity(&credentials.cert_der)?,
            ca_digest: digest(&credentials.ca_cert_der),
            trusted: trusted.into_iter().map(digest).collect(),
            epoch,
            drops: 0,
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Returns the names of the versions of the frames, the one that is liked best first.
fn protocols(newest: u8) -> Vec<Vec<u8>> {
    let versions = (OLDEST..=newest).rev();
    versions
        .map(|version| format!("weft/{version}").into_bytes())
        .collect()
}

/// Returns the version that a handshake agreed on.
pub(super) fn version(protocol: Option<&[u8]>) -> u8 {
    let mut versions = OLDEST..=NEWEST;
    let is_it = |version: &u8| Some(format!("weft/{version}").as_bytes()) == protocol;
    versions.find(is_it).unwrap_or(OLDEST)
}

fn roots(ca_certs: &[&[u8]]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for cert_der in ca_certs {
        roots.add(CertificateDer::from(cert_der.to_vec()))?;
    }
    Ok(roots)
}

/// Returns a newcomer's side of TLS: it takes any node whose certificate an authority with that digest has signed.
///
/// Who joins again as who it was takes only nodes of its own cluster.
pub(in crate::runtime) fn pinned(ca_digest: [u8; 32], cluster: Option<ClusterId>) -> TlsConnector {
    let verifier = PinnedCa::new(ca_digest, cluster);
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    Arc::new(client).into()
}

/// Checks what a seed shows to a newcomer whose token pins that authority, as a handshake at that time would.
pub fn check_seed(
    (ca_digest, cluster): ([u8; 32], Option<ClusterId>),
    shown: &[&[u8]],
    at: UnixMillis,
) -> Result<(), TrustError> {
    verified(&PinnedCa::new(ca_digest, cluster), (shown, &any_node()), at)
}

/// Who a newcomer calls: it knows no name.
fn any_node() -> ServerName<'static> {
    ServerName::try_from("any.node.weft").expect("it is a DNS name")
}

fn verified(
    verifier: &dyn ServerCertVerifier,
    (shown, name): (&[&[u8]], &ServerName<'_>),
    at: UnixMillis,
) -> Result<(), TrustError> {
    let bad = |reason: String| TrustError::BadCertificate(reason);
    let chain = chain(shown);
    let (cert, others) = chain
        .split_first()
        .ok_or_else(|| bad("none is shown".to_owned()))?;
    let verified = verifier.verify_server_cert(cert, others, name, &[], unix_time(at));
    verified.map(|_| ()).map_err(|error| bad(error.to_string()))
}

fn chain<'a>(shown: &[&'a [u8]]) -> Vec<CertificateDer<'a>> {
    shown
        .iter()
        .copied()
        .map(CertificateDer::from_slice)
        .collect()
}

fn unix_time(at: UnixMillis) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(at.0))
}

/// Trusts the one authority whose certificate has the digest that a token pins. The server must send that certificate.
#[derive(Debug)]
struct PinnedCa {
    ca_digest: [u8; 32],
    cluster: Option<ClusterId>,
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    fn new(ca_digest: [u8; 32], cluster: Option<ClusterId>) -> Self {
        Self {
            ca_digest,
            cluster,
            provider: Arc::new(aws_lc_rs::default_provider()),
        }
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|cert| digest(cert) == self.ca_digest)
            .ok_or(CertificateError::UnknownIssuer)?;
        // Any node of the cluster will do, but a node it must be.
        let name = CertifiedName::of(end_entity)
            .map_err(|_names_no_node| CertificateError::ApplicationVerificationFailure)?;
        if self.cluster.is_some_and(|cluster| name.cluster != cluster) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots(&[&**ca])?,
            &[],
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// Returns TLS's own error out of an I/O error, if there is one.
pub(super) fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Says why a handshake with a caller failed.
pub(super) fn handshake_reason(error: &std::io::Error) -> Reason {
    refusal(tls_error(error))
}

fn refusal(error: Option<&rustls::Error>) -> Reason {
    use CertificateError as E;
    match error {
        Some(rustls::Error::InvalidCertificate(invalid)) if is_about_time(invalid) => {
            Reason::CertificateNotValidNow
        }
        Some(rustls::Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature)) => {
            Reason::ForeignCertificate
        }
        Some(rustls::Error::InvalidCertificate(_)) => Reason::Certificate,
        Some(rustls::Error::AlertReceived(alert)) if is_about_certificate(*alert) => {
            Reason::RefusedByCaller
        }
        Some(_) | None => Reason::Handshake,
    }
}

fn is_about_time(invalid: &CertificateError) -> bool {
    use CertificateError as E;
    matches!(
        invalid,
        E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. }
    )
}

/// Says what an error of a call's connection means for the caller.
pub(super) fn call_error(addr: SocketAddr, error: &std::io::Error) -> StreamError {
    let Some(tls) = tls_error(error) else {
        return StreamError::Lost {
            addr,
            reason: error.to_string(),
        };
    };
    if let rustls::Error::InvalidCertificate(invalid) = tls {
        return certificate_error(addr, invalid);
    }
    if let rustls::Error::AlertReceived(alert) = tls
        && is_about_certificate(*alert)
    {
        return StreamError::CertificateRefused {
            addr,
            alert: format!("{alert:?}"),
        };
    }
    StreamError::NotWeft {
        addr,
        reason: tls.to_string(),
    }
}

fn is_about_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::CertificateRequired
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError
    )
}

fn certificate_error(addr: SocketAddr, invalid: &CertificateError) -> StreamError {
    use CertificateError as E;
    if matches!(
        invalid,
        E::NotValidForName | E::NotValidForNameContext { .. }
    ) {
        return StreamError::WrongNode { addr };
    }
    if is_about_time(invalid) {
        return StreamError::NotValidNow { addr };
    }
    if matches!(invalid, E::UnknownIssuer | E::BadSignature) {
        return StreamError::ForeignCluster { addr };
    }
    StreamError::NotWeft {
        addr,
        reason: rustls::Error::from(invalid.clone()).to_string(),
    }
}
