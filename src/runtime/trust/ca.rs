//! The cluster's certificate authority: made by `weft init`, kept in the Raft state, used by the leader.

use std::{fmt, time::Duration};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::parse_x509_certificate;

use super::{CertifiedName, PrivateKey, TrustError, digest};
use crate::core::model::{ClusterId, UnixMillis};

/// How long a node's certificate is valid after it was signed, unless told otherwise.
pub const VALID_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long before its signing a certificate is valid, for nodes whose clock is behind the leader's: at most a tenth of its life.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// 9999-01-01: X.509 has no year beyond 9999 (RFC 5280 §4.1.2.5).
const NEVER: Duration = Duration::from_secs(253_370_764_800);

/// What signs the cluster's certificates: an ECDSA P-256 key and its own certificate.
///
/// It outlives every node, so its certificate has no end. Its Debug output keeps the key to itself.
#[derive(Clone)]
pub struct Ca {
    /// The authority's certificate.
    pub cert_der: Vec<u8>,
    /// The authority's key, PKCS #8.
    pub key_der: PrivateKey,
}

impl Ca {
    /// Makes the authority of a new cluster.
    pub fn create(cluster: ClusterId) -> Result<Self, TrustError> {
        Self::named(format!("weft {cluster}"))
    }

    /// Makes the authority that takes this one's place, and a certificate of it that this one signs.
    ///
    /// It has a name of its own, so that who looks for the issuer of a certificate finds the right one of the two.
    pub fn successor(&self, cluster: ClusterId) -> Result<(Self, Vec<u8>), TrustError> {
        let bad_ca = |error: rcgen::Error| TrustError::BadCa(error.to_string());
        let name = format!("weft {cluster} {}", hex(&serial()?));
        let next = Self::named(name.clone())?;
        let key = KeyPair::try_from(&*next.key_der).map_err(bad_ca)?;
        let cross = ca_params(name)?;
        let cross = cross.signed_by(&key, &self.issuer()?).map_err(bad_ca)?;
        Ok((next, cross.der().to_vec()))
    }

    fn named(name: String) -> Result<Self, TrustError> {
        let make = |error: rcgen::Error| TrustError::Make {
            what: "certificate authority",
            reason: error.to_string(),
        };
        let key = KeyPair::generate().map_err(make)?;
        let certificate = ca_params(name)?.self_signed(&key).map_err(make)?;
        Ok(Self {
            cert_der: certificate.der().to_vec(),
            key_der: key.serialize_der().into(),
        })
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, TrustError> {
        let bad_ca = |error: rcgen::Error| TrustError::BadCa(error.to_string());
        let key = KeyPair::try_from(&*self.key_der).map_err(bad_ca)?;
        Issuer::from_ca_cert_der(&CertificateDer::from(&*self.cert_der), key).map_err(bad_ca)
    }

    /// Signs a node's request: the key is the node's, every other line is ours.
    ///
    /// The request's signature is checked, so it proves that the node holds the key. The certificate is valid from a little
    /// before `signed.0` until `signed.1` after it.
    pub fn sign(
        &self,
        csr_der: &[u8],
        name: CertifiedName,
        signed: (UnixMillis, Duration),
    ) -> Result<Vec<u8>, TrustError> {
        let bad_ca = |error: rcgen::Error| TrustError::BadCa(error.to_string());

        let issuer = self.issuer()?;
        let request = read(csr_der)?;
        if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(TrustError::BadRequest(
                "its key is not on the curve P-256".to_owned(),
            ));
        }
        let request = CertificateSigningRequestParams {
            params: node_params(name, signed)?,
            public_key: request.public_key,
        };
        let certificate = request.signed_by(&issuer).map_err(bad_ca)?;
        Ok(certificate.der().to_vec())
    }

    /// Returns the SHA-256 of the authority's certificate: what a token pins.
    pub fn digest(&self) -> [u8; 32] {
        digest(&self.cert_der)
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

/// Returns the SHA-256 of the key in a certificate request: who holds that key is the node it was admitted as.
pub fn key_digest(csr_der: &[u8]) -> Result<[u8; 32], TrustError> {
    Ok(digest(read(csr_der)?.public_key.der_bytes()))
}

/// Returns whether one of some authorities has signed a certificate `cross_der` of the key that `cert_der` is of, as an authority's:
/// a member has a certificate of its key too, and is none.
pub(super) fn vouches(authorities: &[&[u8]], cert_der: &[u8], cross_der: &[u8]) -> bool {
    let (Ok((_, cert)), Ok((_, cross))) = (
        parse_x509_certificate(cert_der),
        parse_x509_certificate(cross_der),
    ) else {
        return false;
    };
    let (signed, signature) = (cross.tbs_certificate.as_ref(), &cross.signature_value.data);
    let mut authorities = authorities.iter();
    cross.is_ca()
        && cross.public_key().raw == cert.public_key().raw
        && authorities.any(|authority| has_signed(authority, signed, signature))
}

/// Returns whether the authority of that certificate has signed something.
pub(super) fn has_signed(authority: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    let Ok((_, authority)) = parse_x509_certificate(authority) else {
        return false;
    };
    let key = &authority.public_key().subject_public_key.data;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key);
    key.verify(signed, signature).is_ok()
}

fn read(csr_der: &[u8]) -> Result<CertificateSigningRequestParams, TrustError> {
    CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
        .map_err(|error| TrustError::BadRequest(error.to_string()))
}

fn ca_params(name: String) -> Result<CertificateParams, TrustError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    // It signs nodes. Across it signs its successor, for who trusts only this one: a path ends there all the same.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn node_params(
    name: CertifiedName,
    (now, life): (UnixMillis, Duration),
) -> Result<CertificateParams, TrustError> {
    let text = name.to_string();
    let dns = text
        .clone()
        .try_into()
        .map_err(|error: rcgen::Error| TrustError::Make {
            what: "certificate",
            reason: error.to_string(),
        })?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name.node.to_string());
    params.subject_alt_names = vec![SanType::DnsName(dns)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    let epoch = date_time_ymd(1970, 1, 1);
    let signed = Duration::from_millis(now.0).min(NEVER - life);
    params.not_before = epoch + signed.saturating_sub(BACKDATED.min(life / 10));
    params.not_after = epoch + (signed + life);
    Ok(params)
}

fn named(common_name: String) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn hex(number: &SerialNumber) -> String {
    let bytes = number.to_bytes();
    bytes
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Draws a serial number: unique among an authority's certificates and not guessable (RFC 5280 §4.1.2.2).
fn serial() -> Result<SerialNumber, TrustError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|unspecified| TrustError::Make {
        what: "random number",
        reason: unspecified.to_string(),
    })?;
    bytes[0] &= 0x7f; // Positive.
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{model::NodeId, wire::lifetime::Standing},
        runtime::trust::{NodeKey, validity},
    };

    const NOW: (UnixMillis, Duration) = (UnixMillis(1_800_000_000_000), VALID_FOR);

    fn node() -> CertifiedName {
        CertifiedName {
            node: NodeId(5),
            cluster: ClusterId(1),
        }
    }

    #[test]
    fn a_signed_certificate_names_the_node_whatever_the_request_says() {
        let ca = Ca::create(ClusterId(1)).unwrap();
        let key = NodeKey::generate().unwrap();
        let csr = key.csr(NodeId(66)).unwrap();

        let cert = ca.sign(&csr, node(), NOW).unwrap();

        let name = CertifiedName::of(&cert).unwrap();
        assert_eq!((name.node, name.cluster), (NodeId(5), ClusterId(1)));
    }

    #[test]
    fn a_request_that_is_garbage_or_altered_is_refused() {
        let ca = Ca::create(ClusterId(1)).unwrap();
        let csr = NodeKey::generate().unwrap().csr(NodeId(5)).unwrap();
        let mut altered = csr.clone();
        *altered.last_mut().unwrap() ^= 1;

        for bytes in [&[][..], &[0x30], &csr[..csr.len() / 2], &altered] {
            let refused = ca.sign(bytes, node(), NOW);

            assert!(
                matches!(refused, Err(TrustError::BadRequest(_))),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn an_authority_without_its_key_says_who_must_act() {
        let mut ca = Ca::create(ClusterId(1)).unwrap();
        ca.key_der = vec![1, 2, 3].into();
        let csr = NodeKey::generate().unwrap().csr(NodeId(5)).unwrap();

        let refused = ca.sign(&csr, node(), NOW).unwrap_err();

        assert!(
            refused
                .to_string()
                .contains("restore the leader's data directory")
        );
    }

    #[test]
    fn a_clock_at_either_end_of_time_still_signs() {
        let ca = Ca::create(ClusterId(1)).unwrap();
        let csr = NodeKey::generate().unwrap().csr(NodeId(5)).unwrap();

        for now in [0, u64::MAX] {
            assert!(ca.sign(&csr, node(), (UnixMillis(now), VALID_FOR)).is_ok());
        }
    }

    #[test]
    fn a_certificate_lives_as_long_as_it_is_signed_for_and_little_before() {
        let ca = Ca::create(ClusterId(1)).unwrap();
        let csr = NodeKey::generate().unwrap().csr(NodeId(5)).unwrap();
        let at = |seconds: u64| UnixMillis(NOW.0.0 + seconds * 1000);

        for (life, backdated) in [(10, 1), (3600, 300)] {
            let signed = (NOW.0, Duration::from_secs(life));
            let valid = validity(&ca.sign(&csr, node(), signed).unwrap()).unwrap();

            assert_eq!(valid.from, UnixMillis(NOW.0.0 - backdated * 1000));
            assert_eq!(valid.standing(at(life)), Standing::Valid);
            assert_eq!(valid.standing(at(life + 1)), Standing::RunOut);
        }
    }

    #[test]
    fn a_key_has_the_same_digest_in_every_request() {
        let (one, other) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        let of = |key: &NodeKey, node| key_digest(&key.csr(NodeId(node)).unwrap()).unwrap();

        assert_eq!(of(&one, 5), of(&one, 6));
        assert_ne!(of(&one, 5), of(&other, 5));
        assert!(matches!(
            key_digest(&[0x30]),
            Err(TrustError::BadRequest(_))
        ));
    }

    #[test]
    fn the_debug_output_of_an_authority_has_no_key() {
        let ca = Ca::create(ClusterId(1)).unwrap();

        assert_eq!(format!("{ca:?}"), "Ca { .. }");
    }
}
