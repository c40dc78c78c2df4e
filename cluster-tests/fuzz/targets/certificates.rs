//! Certificates, requests for them and authorities, with any bytes in them: as they come, signed by whoever made them, and signed
//! by the authority itself. What it has not signed is nobody's certificate.
//!
//! Input: who signs, when it is looked at, then the bytes.
#![no_main]

use fuzz::{
    authority::{authority, member, named, node_key, ours, signed, signed_at},
    world::{CLUSTER, ME, peer},
};
use libfuzzer_sys::fuzz_target;
use weft::{
    core::{
        model::{NodeId, UnixMillis},
        wire::{
            lifetime::Standing,
            succession::{AgreedAuthorities, OtherAuthority},
        },
    },
    runtime::{
        streams::{Tls, check_seed},
        trust::{CertifiedName, Credentials, VALID_FOR, key_digest, validity},
    },
};

/// A day, in milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1_000;

fuzz_target!(init: fuzz::daemon_seeds::write_if_asked(), |input: (u8, i8, &[u8])| {
    let (signer, days, bytes) = input;
    let ca = authority();
    let (shown, by_authority) = match signer % 3 {
        0 => (bytes.to_vec(), false),
        1 => (signed(node_key().der(), bytes), false),
        _ => (signed(&ca.key_der, bytes), true),
    };
    let at = UnixMillis(signed_at().0.saturating_add_signed(i64::from(days) * DAY));
    certificate(&shown, at, by_authority);
    request(&shown);
    authorities(&shown, by_authority);
    kept(&shown, bytes);
});

/// Takes it for a node's certificate: a caller's, the one of who is called, and the one of a seed.
fn certificate(shown: &[u8], at: UnixMillis, by_authority: bool) {
    let (member, ca) = (member(), authority());
    let name = CertifiedName::of(shown);
    let valid = validity(shown);
    let caller = member.check_caller(&[shown], at);
    let called = member.check_called(peer(0), &[shown], at);
    let seed = check_seed((ca.digest(), Some(CLUSTER)), &[shown, &ca.cert_der], at);
    let names = |node: NodeId| name.as_ref().is_ok_and(|name| *name == named(node));
    // Who calls is looked at more closely than TLS does: what cannot be read whole is refused there.
    let is_valid = || {
        valid
            .as_ref()
            .map_or(true, |valid| in_time(valid.standing(at)))
    };
    if let Ok(node) = caller {
        assert!(by_authority && names(node) && valid.is_ok() && is_valid());
    }
    if called.is_ok() {
        assert!(by_authority && is_valid());
    }
    if seed.is_ok() {
        assert!(by_authority && is_valid());
        assert!(name.as_ref().is_ok_and(|name| name.cluster == CLUSTER));
    }
    // A newcomer that knows no authority but by the certificate itself.
    drop(check_seed((ca.digest(), None), &[shown, shown], at));
    let with_authority = member.check_caller(&[shown, &ca.cert_der], at);
    assert_eq!(with_authority.is_ok(), caller.is_ok());
}

fn in_time(standing: Standing) -> bool {
    match standing {
        // A moment's difference: X.509 knows only seconds.
        Standing::Valid | Standing::NotYet => true,
        Standing::RunOut => false,
    }
}

/// Takes it for a newcomer's request: what it asks for beside its key, it does not get.
fn request(shown: &[u8]) {
    let node = peer(0);
    let certified = authority().sign(shown, named(node), (signed_at(), VALID_FOR));
    let key = key_digest(shown);
    let Ok(cert) = certified else {
        return;
    };
    assert!(key.is_ok());
    let member = member();
    assert_eq!(CertifiedName::of(&cert).ok(), Some(named(node)));
    assert_eq!(member.check_caller(&[&cert], signed_at()), Ok(node));
    assert!(member.check_called(node, &[&cert], signed_at()).is_ok());
    assert!(member.check_called(ME, &[&cert], signed_at()).is_err());
}

/// Takes it for another authority's certificate, and for the one that vouches for it.
fn authorities(shown: &[u8], by_authority: bool) {
    let ours = ours();
    let other = |other| AgreedAuthorities {
        version: 1,
        signs: ours.ca_cert_der.clone(),
        other,
        waits_for_nobody: false,
    };
    let (cert_der, cross_der) = (shown.to_vec(), shown.to_vec());
    let next = other(Some(OtherAuthority::Next {
        cert_der,
        cross_der,
    }));
    let promoted = AgreedAuthorities {
        signs: shown.to_vec(),
        ..other(Some(OtherAuthority::Former {
            cert_der: ours.ca_cert_der.clone(),
            cross_der: shown.to_vec(),
            since: signed_at(),
        }))
    };
    let alone = AgreedAuthorities {
        signs: shown.to_vec(),
        ..other(None)
    };
    assert!(ours.trusting(alone).is_err());
    for agreed in [next, promoted] {
        let Ok(changed) = ours.trusting(agreed) else {
            continue;
        };
        assert!(by_authority, "nobody vouches for it");
        // A certificate that a member has of the authority makes no authority of the member.
        assert!(member().check_caller(&[shown], signed_at()).is_err());
        drop(Tls::new(&changed));
    }
}

/// Takes it for what a node keeps, or gets from the cluster.
fn kept(shown: &[u8], bytes: &[u8]) {
    let ca = authority();
    if let Ok(certified) = node_key().certified(ca.cert_der.clone(), shown.to_vec()) {
        drop(Tls::new(&certified));
    }
    drop(ours().renewed(ca.cert_der.clone(), shown.to_vec()));
    drop(ours().renewed(shown.to_vec(), shown.to_vec()));
    if let Ok(kept) = Credentials::from_bytes(bytes) {
        let again = Credentials::from_bytes(&kept.to_bytes());
        assert_eq!(again.ok(), Some(kept));
    }
}
