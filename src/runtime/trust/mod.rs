//! Trust: the cluster's own certificate authority, the nodes' certificates, and the token that lets a newcomer in.
//!
//! **Invariant:** a certificate names exactly one node of one cluster, as `<node>.node.<cluster>.weft` in its subject
//! alternative name, and only the cluster's authority can sign one. Whoever holds the key of that certificate is the node.
//! Nothing here reads a clock: the moment of signing is an argument.

mod ca;
mod credentials;
mod token;
mod vouched;

use std::{fmt, str::FromStr};

use rustls::pki_types::CertificateDer;

use crate::core::{
    model::{ClusterId, NodeId, UnixMillis},
    wire::lifetime::Validity,
};

pub use ca::{Ca, VALID_FOR, key_digest};
pub use credentials::{Anchors, Credentials, NodeKey, PrivateKey};
pub use token::{Token, TokenError, secrets_match};
pub use vouched::{Statement, Vouched};

/// Why something of the cluster's trust cannot be made or used. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// This machine could not make a key or a certificate.
    #[error("this machine cannot make a {what}: {reason}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// What the cryptography said.
        reason: String,
    },
    /// The authority that the cluster keeps is damaged.
    #[error(
        "the cluster's certificate authority cannot be used: {0}; restore the leader's data directory"
    )]
    BadCa(String),
    /// The newcomer sent a request that no Weft node makes.
    #[error("the newcomer's certificate request is not valid: {0}")]
    BadRequest(String),
    /// The certificate is none that this cluster's authority signs.
    #[error("the certificate names no node of a Weft cluster: {0}")]
    BadCertificate(String),
    /// Whoever said it holds no authority of this cluster: it is no voter, or only claims what it says.
    #[error("no authority of this cluster has signed the {0}: it is not taken")]
    Unvouched(&'static str),
    /// What this node keeps does not fit together.
    #[error(
        "this node's certificate and key cannot be used: {0}; restore the data directory, or leave and join again"
    )]
    BadCredentials(String),
}

/// The name in a node's certificate. As text it is a DNS name, which every TLS library knows how to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CertifiedName {
    /// The node.
    pub node: NodeId,
    /// The cluster it is a member of.
    pub cluster: ClusterId,
}

impl CertifiedName {
    /// Reads the name out of a certificate, whose signature somebody else has checked.
    pub fn of(cert_der: &[u8]) -> Result<Self, TrustError> {
        let der = CertificateDer::from(cert_der);
        let certificate = webpki::EndEntityCert::try_from(&der)
            .map_err(|error| TrustError::BadCertificate(error.to_string()))?;
        let mut names = certificate.valid_dns_names();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(TrustError::BadCertificate(
                "not exactly one name".to_owned(),
            ));
        };
        name.parse()
            .map_err(|NotCertified| TrustError::BadCertificate(NotCertified.to_string()))
    }
}

impl fmt::Display for CertifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.node.{}.weft", self.node, self.cluster)
    }
}

/// The text is not the name of a node in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name is not of the form <node>.node.<cluster>.weft")]
pub struct NotCertified;

impl FromStr for CertifiedName {
    type Err = NotCertified;

    fn from_str(text: &str) -> Result<Self, NotCertified> {
        let (node, cluster) = text
            .strip_suffix(".weft")
            .and_then(|rest| rest.split_once(".node."))
            .ok_or(NotCertified)?;
        Ok(Self {
            node: node.parse().map_err(|_not_hex| NotCertified)?,
            cluster: cluster.parse().map_err(|_not_hex| NotCertified)?,
        })
    }
}

/// Returns the SHA-256 of a certificate: what a token pins.
pub fn digest(cert_der: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, cert_der);
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// Reads from when until when a certificate is valid; times before 1970 are read as 1970.
pub fn validity(cert_der: &[u8]) -> Result<Validity, TrustError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(cert_der)
        .map_err(|error| TrustError::BadCertificate(error.to_string()))?;
    let valid = certificate.validity();
    let millis = |seconds: i64| UnixMillis(u64::try_from(seconds).unwrap_or(0) * 1000);
    Ok(Validity {
        from: millis(valid.not_before.timestamp()),
        until: millis(valid.not_after.timestamp()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certified_name_survives_its_text() {
        let name = CertifiedName {
            node: NodeId(0xabc),
            cluster: ClusterId(7),
        };

        assert_eq!(
            name.to_string(),
            "0000000000000abc.node.00000000000000000000000000000007.weft"
        );
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn a_name_that_is_not_of_a_node_is_refused() {
        for text in [
            "",
            "weft",
            "a.node.b.weft",
            "example.org",
            "0000000000000abc.node..weft",
        ] {
            assert_eq!(text.parse::<CertifiedName>(), Err(NotCertified), "{text}");
        }
    }
}
