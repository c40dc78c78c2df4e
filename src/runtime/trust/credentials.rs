//! What a node proves itself with: its key, its certificate, and the authority that signed it.

use std::{fmt, ops::Deref};

use bincode::{Decode, Encode};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{CertifiedName, TrustError};
use crate::core::model::{ClusterId, NodeId};

/// A private key, PKCS #8 in DER. Zeroized when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey(Vec<u8>);

impl From<Vec<u8>> for PrivateKey {
    fn from(der: Vec<u8>) -> Self {
        Self(der)
    }
}

impl Deref for PrivateKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// A node's key before it is certified. It never leaves the node.
#[derive(Clone, Debug)]
pub struct NodeKey {
    der: PrivateKey,
}

impl NodeKey {
    /// Makes a new ECDSA P-256 key.
    pub fn generate() -> Result<Self, TrustError> {
        let key = KeyPair::generate().map_err(|error| TrustError::Make {
            what: "key",
            reason: error.to_string(),
        })?;
        Ok(Self {
            der: key.serialize_der().into(),
        })
    }

    /// Returns a certificate request, signed with the key. The name in it is a hint for people: the authority writes its own.
    pub fn csr(&self, node: NodeId) -> Result<Vec<u8>, TrustError> {
        let make = |error: rcgen::Error| TrustError::Make {
            what: "certificate request",
            reason: error.to_string(),
        };
        let key = KeyPair::try_from(&*self.der).map_err(make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, node.to_string());
        let request = params.serialize_request(&key).map_err(make)?;
        Ok(request.der().to_vec())
    }

    /// Puts the key and its certificate together. The node and the cluster are read from the certificate.
    pub fn certified(
        self,
        ca_cert_der: Vec<u8>,
        cert_der: Vec<u8>,
    ) -> Result<Credentials, TrustError> {
        let name = CertifiedName::of(&cert_der)?;
        Ok(Credentials {
            cluster: name.cluster,
            node: name.node,
            ca_cert_der,
            cert_der,
            key_der: self.der,
        })
    }

    /// Returns the key as it is kept on disk, while it is not certified yet.
    pub fn der(&self) -> &PrivateKey {
        &self.der
    }
}

impl From<PrivateKey> for NodeKey {
    fn from(der: PrivateKey) -> Self {
        Self { der }
    }
}

/// Everything a node needs to prove who it is and to check who others are. Kept on disk; its Debug output has no secret.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Credentials {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The certificate of the authority that signed the node's.
    pub ca_cert_der: Vec<u8>,
    /// The node's certificate.
    pub cert_der: Vec<u8>,
    /// The node's key.
    pub key_der: PrivateKey,
}

impl Credentials {
    /// Returns the same with another certificate for the same key.
    pub fn renewed(&self, ca_cert_der: Vec<u8>, cert_der: Vec<u8>) -> Result<Self, TrustError> {
        let key = NodeKey::from(self.key_der.clone());
        let renewed = key.certified(ca_cert_der, cert_der)?;
        if (renewed.node, renewed.cluster) != (self.node, self.cluster) {
            return Err(TrustError::BadCertificate("another node's".to_owned()));
        }
        Ok(renewed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{model::UnixMillis, wire::codec},
        runtime::trust::{Ca, VALID_FOR},
    };

    #[test]
    fn credentials_survive_the_disk_and_take_their_names_from_the_certificate() {
        let credentials = credentials();

        let back: Credentials = codec::decode(&codec::encode(&credentials)).unwrap();

        assert_eq!(back, credentials);
        assert_eq!((back.node, back.cluster), (NodeId(5), ClusterId(1)));
    }

    #[test]
    fn the_debug_output_of_credentials_has_no_key() {
        let credentials = credentials();

        let text = format!("{credentials:?}");

        assert!(text.contains("PrivateKey(…)"));
        let numbers = format!("{:?}", &credentials.key_der[..]);
        assert!(!text.contains(numbers.trim_matches(['[', ']'])));
    }

    #[test]
    fn a_certificate_that_names_no_node_makes_no_credentials() {
        let ca = Ca::create(ClusterId(1)).unwrap();
        let key = NodeKey::generate().unwrap();

        let refused = key.certified(ca.cert_der.clone(), ca.cert_der.clone());

        assert!(matches!(refused, Err(TrustError::BadCertificate(_))));
    }

    fn credentials() -> Credentials {
        let ca = Ca::create(ClusterId(1)).unwrap();
        let key = NodeKey::generate().unwrap();
        let csr = key.csr(NodeId(5)).unwrap();
        let name = CertifiedName {
            node: NodeId(5),
            cluster: ClusterId(1),
        };
        let cert = ca.sign(&csr, name, (UnixMillis(0), VALID_FOR)).unwrap();
        key.certified(ca.cert_der, cert).unwrap()
    }
}
