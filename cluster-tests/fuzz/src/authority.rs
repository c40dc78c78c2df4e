//! A cluster's authority, a member of it, and certificates that are signed whatever is in them.

use std::sync::LazyLock;

use aws_lc_rs::{
    agreement::{self, ECDH_P256},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use weft::{
    core::model::{NodeId, UnixMillis},
    runtime::{
        streams::Tls,
        trust::{Ca, CertifiedName, Credentials, NodeKey, PrivateKey, VALID_FOR},
    },
};

use crate::world::{CLUSTER, ME, now_millis};

/// `ecdsa-with-SHA256` (RFC 5758 §3.2), as an `AlgorithmIdentifier`.
const SIGNED_WITH: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// Returns the authority. It is another one each time the program runs: no input can contain what it has signed.
pub fn authority() -> &'static Ca {
    static AUTHORITY: LazyLock<Ca> =
        LazyLock::new(|| Ca::create(CLUSTER).expect("an authority can be made"));
    &AUTHORITY
}

/// Returns when certificates are signed.
pub fn signed_at() -> UnixMillis {
    UnixMillis(now_millis())
}

/// Returns the key of every node, the same each time: an input contains it.
pub fn node_key() -> NodeKey {
    let secret = [7; 32];
    let key = agreement::PrivateKey::from_private_key(&ECDH_P256, &secret);
    let key = key.expect("a small number is a key");
    let public = key.compute_public_key().expect("it has one");
    let pair = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &secret,
        public.as_ref(),
    );
    let der = pair.expect("they fit").to_pkcs8v1().expect("it is a key");
    NodeKey::from(PrivateKey::from(der.as_ref().to_vec()))
}

/// Returns the name of a node in its certificate.
pub fn named(node: NodeId) -> CertifiedName {
    CertifiedName {
        node,
        cluster: CLUSTER,
    }
}

/// Returns what a node proves itself with.
pub fn credentials(node: NodeId) -> Credentials {
    let (key, ca) = (node_key(), authority());
    let csr = key.csr(node).expect("a request can be made");
    let signed = ca.sign(&csr, named(node), (signed_at(), VALID_FOR));
    let certified = key.certified(ca.cert_der.clone(), signed.expect("it is sound"));
    certified.expect("its name is in it")
}

/// Returns what the member that is lied to proves itself with.
pub fn ours() -> &'static Credentials {
    static OURS: LazyLock<Credentials> = LazyLock::new(|| credentials(ME));
    &OURS
}

/// Returns that member's side of TLS.
pub fn member() -> &'static Tls {
    static MEMBER: LazyLock<Tls> = LazyLock::new(|| Tls::new(ours()).expect("they fit together"));
    &MEMBER
}

/// Signs what is to be signed of a certificate or a request, whatever it is.
pub fn signed(key: &[u8], body: &[u8]) -> Vec<u8> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key).expect("a key");
    let signature = key.sign(&SystemRandom::new(), body).expect("it can sign");
    // No bit of the last byte is unused.
    let bits = [&[0], signature.as_ref()].concat();
    let bits = tagged(BIT_STRING, &bits);
    tagged(SEQUENCE, &[body, &SIGNED_WITH, &bits].concat())
}

/// Returns what is signed of a certificate or a request.
///
/// # Panics
///
/// It is none.
pub fn signed_part(der: &[u8]) -> &[u8] {
    let inside = &der[header(der).0..];
    let (begins, len) = header(inside);
    &inside[..begins + len]
}

/// Returns how long a value's tag and length are, and how long what follows.
fn header(der: &[u8]) -> (usize, usize) {
    match der[1] {
        short @ ..0x80 => (2, usize::from(short)),
        long => {
            let digits = usize::from(long & 0x7f);
            let len = der[2..2 + digits].iter();
            let len = len.fold(0, |len, digit| len << 8 | usize::from(*digit));
            (2 + digits, len)
        }
    }
}

fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let len = value.len();
    let mut der = vec![tag];
    match u8::try_from(len) {
        Ok(short @ ..0x80) => der.push(short),
        Ok(_) | Err(_) => {
            let digits = len.to_be_bytes();
            let zeros = digits.iter().take_while(|digit| **digit == 0).count();
            let digits = &digits[zeros..];
            der.push(0x80 | u8::try_from(digits.len()).expect("eight at most"));
            der.extend_from_slice(digits);
        }
    }
    der.extend_from_slice(value);
    der
}
