//! Certificates, requests for them, and what a node keeps of both: as they come from others or from a damaged disk.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use libfuzzer_sys::fuzz_target;
use weft::{
    core::model::{ClusterId, NodeId, UnixMillis},
    runtime::{
        join::JoinRequest,
        streams::Tls,
        trust::{Ca, CertifiedName, Credentials, NodeKey, key_digest, validity},
    },
};

const NAME: CertifiedName = CertifiedName {
    node: NodeId(5),
    cluster: ClusterId(1),
};
const SIGNED: (UnixMillis, Duration) = (UnixMillis(1_800_000_000_000), Duration::from_hours(1));

/// The authority, and what a sound node has of it.
static CA: LazyLock<(Ca, Credentials)> = LazyLock::new(|| {
    let ca = Ca::create(NAME.cluster).expect("the machine makes keys");
    let key = NodeKey::generate().expect("the machine makes keys");
    let csr = key.csr(NAME.node).expect("a request");
    let cert = ca.sign(&csr, NAME, SIGNED).expect("it is sound");
    let sound = key.certified(ca.cert_der.clone(), cert).expect("it fits");
    (ca, sound)
});

fuzz_target!(init: write_if_asked(), |bytes: &[u8]| {
    let (ca, sound) = &*CA;
    drop(CertifiedName::of(bytes));
    drop(validity(bytes));
    drop(JoinRequest::decode(bytes));
    if let Ok(cert) = ca.sign(bytes, NAME, SIGNED) {
        // Whatever the request says, the certificate is for who was named, and for the key that signed the request.
        assert_eq!(CertifiedName::of(&cert).ok(), Some(NAME));
        assert!(key_digest(bytes).is_ok());
    }
    if let Ok(kept) = Credentials::from_bytes(bytes) {
        let again = Credentials::from_bytes(&kept.to_bytes());
        assert_eq!(again.ok().as_ref(), Some(&kept));
        drop(Tls::new(&kept));
    }
    // A certificate of others' making beside a key that is sound.
    let forged = Credentials {
        cert_der: bytes.to_vec(),
        ..sound.clone()
    };
    drop(Tls::new(&forged));
    let with_ca = Credentials {
        ca_cert_der: bytes.to_vec(),
        ..sound.clone()
    };
    drop(Tls::new(&with_ca));
});

/// Writes what is sound where the seeds of other targets are, if that is asked for.
fn write_if_asked() {
    let Some(directory) = std::env::var_os("WEFT_FUZZ_SEEDS") else {
        return;
    };
    let directory = std::path::Path::new(&directory).join("trust");
    let (ca, sound) = &*CA;
    let key = NodeKey::from(sound.key_der.clone());
    let csr = key.csr(NAME.node).expect("a request");
    let (next, cross) = ca.successor(NAME.cluster).expect("another authority");
    std::fs::create_dir_all(&directory).expect("the seeds can be written");
    for (name, bytes) in [
        ("certificate", &sound.cert_der),
        ("authority", &ca.cert_der),
        ("successor", &next.cert_der),
        ("cross", &cross),
        ("request", &csr),
        ("credentials", &sound.to_bytes()),
    ] {
        std::fs::write(directory.join(name), bytes).expect("the seeds can be written");
    }
}
