//! What a node proves itself with: its key, its certificate, and the authority that signed it.

use std::{fmt, ops::Deref};

use bincode::{Decode, Encode};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{CertifiedName, TrustError, ca::vouches, digest};
use crate::core::{
    model::{ClusterId, NodeId},
    wire::{
        codec::{self, CodecError},
        succession::{AgreedAuthorities, OtherAuthority},
    },
};

/// How many former authorities a node remembers, to tell their tokens from those of other clusters.
const FORMER_MAX: usize = 8;

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
            anchors: Anchors::default(),
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
#[derive(Clone, PartialEq, Eq, Debug)]
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
    /// Which authorities it trusts.
    pub anchors: Anchors,
}

/// Which authorities a node trusts, and did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Anchors {
    /// What the cluster agreed on; nothing where the authority was never changed: then it is the one that signed.
    pub agreed: Option<AgreedAuthorities>,
    /// The digests of authorities that were trusted, so that the tokens of theirs are known for what they are.
    pub former: Vec<[u8; 32]>,
}

impl Credentials {
    /// Returns the same with another certificate for the same key.
    pub fn renewed(&self, ca_cert_der: Vec<u8>, cert_der: Vec<u8>) -> Result<Self, TrustError> {
        if !self.trusted().contains(&&*ca_cert_der) {
            return Err(TrustError::BadCertificate(
                "its authority is not one that this node trusts".to_owned(),
            ));
        }
        let key = NodeKey::from(self.key_der.clone());
        let mut renewed = key.certified(ca_cert_der, cert_der)?;
        if (renewed.node, renewed.cluster) != (self.node, self.cluster) {
            return Err(TrustError::BadCertificate("another node's".to_owned()));
        }
        renewed.anchors = self.anchors.clone();
        Ok(renewed)
    }

    /// Returns the same with other authorities trusted, if one that is trusted vouches for those that are new.
    ///
    /// A former one that this node never trusted has nobody who vouches for it, and is left out: who joined since needs it least.
    pub fn trusting(&self, mut agreed: AgreedAuthorities) -> Result<Self, TrustError> {
        let is_known = |cert_der: &[u8]| self.trusted().contains(&cert_der);
        let vouch = |cert_der: &[u8], cross_der: &[u8]| {
            let vouched = vouches(&self.trusted(), cert_der, cross_der);
            is_known(cert_der) || vouched
        };
        let sound = match &agreed.other {
            None => is_known(&agreed.signs),
            Some(OtherAuthority::Next {
                cert_der,
                cross_der,
            }) => is_known(&agreed.signs) && vouch(cert_der, cross_der),
            Some(OtherAuthority::Former { cross_der, .. }) => vouch(&agreed.signs, cross_der),
        };
        if !sound {
            return Err(TrustError::BadCertificate(
                "no authority that this node trusts vouches for another one".to_owned(),
            ));
        }
        agreed.other = agreed.other.filter(|other| match other {
            OtherAuthority::Next { .. } => true,
            OtherAuthority::Former { cert_der, .. } => is_known(cert_der),
        });
        let mut changed = self.clone();
        let dropped = self.trusted().into_iter();
        let dropped = dropped.filter(|cert_der| !agreed.trusted().contains(cert_der));
        changed.anchors.former.extend(dropped.map(digest));
        let over = changed.anchors.former.len().saturating_sub(FORMER_MAX);
        changed.anchors.former.drain(..over);
        changed.anchors.agreed = Some(agreed);
        Ok(changed)
    }

    /// Returns which version of the authorities it trusts.
    pub fn trusts_version(&self) -> u64 {
        let agreed = self.anchors.agreed.as_ref();
        agreed.map_or(0, |agreed| agreed.version)
    }

    /// Returns the certificates of the authorities that are trusted.
    pub fn trusted(&self) -> Vec<&[u8]> {
        match &self.anchors.agreed {
            Some(agreed) => agreed.trusted(),
            None => vec![&self.ca_cert_der],
        }
    }

    /// Returns whether another authority signs now than the one that signed this certificate.
    pub fn is_superseded(&self) -> bool {
        let agreed = self.anchors.agreed.as_ref();
        agreed.is_some_and(|agreed| agreed.signs != self.ca_cert_der)
    }

    /// Returns what to show beside the certificate to those who only trust the former authority.
    pub fn cross(&self) -> Option<&[u8]> {
        let agreed = self.anchors.agreed.as_ref();
        agreed.filter(|_| !self.is_superseded())?.cross()
    }

    /// Returns the bytes that are kept on disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = codec::encode(&(self.cluster, self.node));
        codec::encode_into(&self.ca_cert_der, &mut bytes);
        codec::encode_into(&self.cert_der, &mut bytes);
        codec::encode_into(&self.key_der, &mut bytes);
        // Versions before knew no more.
        if self.anchors != Anchors::default() {
            codec::encode_into(&self.anchors, &mut bytes);
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        type Kept = (ClusterId, NodeId, Vec<u8>, Vec<u8>, PrivateKey);
        let (kept, used) = codec::decode_prefix::<Kept>(bytes)?;
        let (cluster, node, ca_cert_der, cert_der, key_der) = kept;
        let anchors = match &bytes[used..] {
            [] => Anchors::default(),
            rest => codec::decode(rest)?,
        };
        Ok(Self {
            cluster,
            node,
            ca_cert_der,
            cert_der,
            key_der,
            anchors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::model::UnixMillis,
        runtime::trust::{Ca, VALID_FOR},
    };

    #[test]
    fn credentials_survive_the_disk_and_take_their_names_from_the_certificate() {
        let credentials = credentials();

        let back = Credentials::from_bytes(&credentials.to_bytes()).unwrap();

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

    #[test]
    fn credentials_of_versions_that_knew_one_authority_are_read_and_written_as_they_were() {
        let credentials = credentials();
        let Credentials {
            cluster,
            node,
            ca_cert_der,
            cert_der,
            key_der,
            ..
        } = credentials.clone();
        let bytes = codec::encode(&(cluster, node, ca_cert_der, cert_der, key_der));

        assert_eq!(Credentials::from_bytes(&bytes).unwrap(), credentials);
        assert_eq!(credentials.to_bytes(), bytes);
        for len in 0..bytes.len() {
            assert!(Credentials::from_bytes(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn an_authority_that_is_dropped_is_remembered_and_a_certificate_of_it_is_superseded() {
        let before = credentials();
        let (next, cross_der) = authority().successor(ClusterId(1)).unwrap();
        let agreed = |version, other| AgreedAuthorities {
            version,
            signs: next.cert_der.clone(),
            other,
            waits_for_nobody: false,
        };
        let former = OtherAuthority::Former {
            cert_der: before.ca_cert_der.clone(),
            cross_der,
            since: UnixMillis(0),
        };

        let promoted = before.trusting(agreed(2, Some(former))).unwrap();
        let retired = promoted.trusting(agreed(3, None)).unwrap();

        assert!(promoted.is_superseded() && promoted.cross().is_none());
        assert_eq!(promoted.trusted(), [&*next.cert_der, &*before.ca_cert_der]);
        assert!(promoted.anchors.former.is_empty());
        assert_eq!(retired.trusted(), [&*next.cert_der]);
        assert_eq!(retired.anchors.former, [digest(&before.ca_cert_der)]);
        let back = Credentials::from_bytes(&retired.to_bytes()).unwrap();
        assert_eq!(back, retired);
    }

    #[test]
    fn an_authority_that_no_trusted_one_vouches_for_is_not_trusted() {
        let member = credentials();
        let ours = authority();
        let (next, cross_der) = ours.successor(ClusterId(1)).unwrap();
        let foreign = Ca::create(ClusterId(1)).unwrap();
        let (of_foreign, foreign_cross) = foreign.successor(ClusterId(1)).unwrap();
        let agreed = |signs: &Ca, other| AgreedAuthorities {
            version: 1,
            signs: signs.cert_der.clone(),
            other,
            waits_for_nobody: false,
        };
        let announced = |next: &Ca, cross_der: &[u8]| {
            Some(OtherAuthority::Next {
                cert_der: next.cert_der.clone(),
                cross_der: cross_der.to_vec(),
            })
        };
        let former = |former: &Ca, cross_der: &[u8]| {
            Some(OtherAuthority::Former {
                cert_der: former.cert_der.clone(),
                cross_der: cross_der.to_vec(),
                since: UnixMillis(0),
            })
        };

        // What the authority has signed of a member's key makes no authority of the member.
        let mine = Ca {
            cert_der: member.cert_der.clone(),
            key_der: member.key_der.clone(),
        };

        for forged in [
            agreed(&mine, former(&ours, &mine.cert_der)),
            agreed(&ours, announced(&mine, &mine.cert_der)),
            agreed(&foreign, None),
            agreed(&next, None),
            agreed(&ours, announced(&foreign, &cross_der)),
            agreed(&ours, announced(&of_foreign, &foreign_cross)),
            agreed(&ours, announced(&next, &next.cert_der)),
            agreed(&ours, announced(&next, &[])),
            agreed(&foreign, former(&ours, &cross_der)),
            agreed(&of_foreign, former(&foreign, &foreign_cross)),
        ] {
            assert!(member.trusting(forged.clone()).is_err(), "{forged:?}");
        }
        assert!(
            member
                .trusting(agreed(&ours, announced(&next, &cross_der)))
                .is_ok()
        );
        let promoted = member.trusting(agreed(&next, former(&ours, &cross_der)));
        assert_eq!(promoted.unwrap().trusted().len(), 2);
        // A former one is taken on nobody's word.
        let claimed = member.trusting(agreed(&ours, former(&foreign, &foreign_cross)));
        assert_eq!(claimed.unwrap().trusted(), [&*ours.cert_der]);
    }

    /// The authority of these tests: one for all, since it cannot be made twice.
    fn authority() -> Ca {
        static AUTHORITY: std::sync::LazyLock<Ca> =
            std::sync::LazyLock::new(|| Ca::create(ClusterId(1)).unwrap());
        AUTHORITY.clone()
    }

    fn credentials() -> Credentials {
        let ca = authority();
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
