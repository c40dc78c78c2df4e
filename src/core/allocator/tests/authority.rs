//! The authorities: announced, promoted, retired.

use super::*;
use crate::core::wire::succession::AgreedAuthorities;

fn announce(n: u8, waits_for_nobody: bool) -> Action {
    Action::AnnounceAuthority {
        cert_der: vec![n],
        key_der: Secret(vec![n, n]),
        cross_der: vec![n, n, n],
        waits_for_nobody,
    }
}

fn promote(version: u64) -> Action {
    Action::PromoteAuthority {
        version,
        secret: TokenSecret([9; 16]),
    }
}

fn agreed(rig: &Rig) -> AgreedAuthorities {
    rig.allocator.authorities().unwrap()
}

#[test]
fn an_announced_authority_signs_once_it_is_promoted_and_the_former_one_is_trusted_until_it_is_retired()
 {
    let mut rig = Rig::founded();
    let (former, next) = ([1, 2, 3].as_slice(), [8].as_slice());
    assert_eq!(
        (agreed(&rig).version, agreed(&rig).trusted()),
        (0, vec![former])
    );

    rig.apply(announce(8, false)).unwrap();
    assert_eq!(agreed(&rig).trusted(), [former, next]);
    assert_eq!(rig.allocator.ca().unwrap().0, former);
    rig.apply(promote(1)).unwrap();
    assert_eq!(agreed(&rig).trusted(), [next, former]);
    assert_eq!(agreed(&rig).cross(), Some([8, 8, 8].as_slice()));
    let signs = rig.allocator.ca().unwrap();
    assert_eq!(signs, (next, &Secret(vec![8, 8])));
    rig.apply(Action::RetireAuthority { version: 2 }).unwrap();

    assert_eq!(
        (agreed(&rig).version, agreed(&rig).trusted()),
        (3, vec![next])
    );
}

#[test]
fn tokens_of_the_former_authority_are_worth_nothing_once_the_next_one_signs() {
    let mut rig = Rig::founded();
    rig.apply(announce(8, false)).unwrap();
    let secret = rig.allocator.token_secret().cloned();

    rig.apply(promote(1)).unwrap();

    assert_ne!(rig.allocator.token_secret().cloned(), secret);
}

#[test]
fn a_step_that_others_have_taken_meanwhile_changes_nothing() {
    let mut rig = Rig::founded();
    let refused = Err(AllocatorError::AuthoritiesChanged);

    assert_eq!(rig.apply(promote(0)), refused);
    assert_eq!(rig.apply(Action::RetireAuthority { version: 0 }), refused);
    assert_eq!(rig.apply(Action::HurryAuthority), refused);
    rig.apply(announce(8, false)).unwrap();
    assert_eq!(rig.apply(announce(9, false)), refused);
    assert_eq!(rig.apply(promote(0)), refused);
    assert_eq!(rig.apply(Action::RetireAuthority { version: 1 }), refused);
    rig.apply(promote(1)).unwrap();
    assert_eq!(rig.apply(promote(2)), refused);
    assert_eq!(rig.apply(Action::RetireAuthority { version: 1 }), refused);

    assert_eq!(agreed(&rig).version, 2);
}

#[test]
fn a_change_that_is_hurried_waits_for_nobody_and_the_next_one_waits_again() {
    let mut rig = Rig::founded();
    rig.apply(announce(8, false)).unwrap();

    rig.apply(Action::HurryAuthority).unwrap();
    rig.apply(Action::HurryAuthority).unwrap();
    assert!(agreed(&rig).waits_for_nobody);
    assert_eq!(agreed(&rig).version, 2, "it is news once");
    rig.apply(promote(2)).unwrap();
    rig.apply(Action::RetireAuthority { version: 3 }).unwrap();
    rig.apply(announce(9, false)).unwrap();

    assert!(!agreed(&rig).waits_for_nobody);
}

#[test]
fn the_log_tells_versions_of_the_authorities_and_never_a_key_and_a_snapshot_keeps_them() {
    let mut rig = Rig::founded();
    rig.allocator.take_dots();

    for action in [announce(8, false), promote(1)] {
        rig.apply(action).unwrap();
        let restored = Allocator::restore(&rig.allocator.snapshot()).unwrap();
        assert_eq!(restored.authorities(), rig.allocator.authorities());
        assert_eq!(restored.ca(), rig.allocator.ca());
    }

    let dots = rig.allocator.take_dots();
    let said: Vec<_> = dots
        .iter()
        .map(|dot| (dot.key.as_bytes(), dot.value.as_ref().unwrap().as_bytes()))
        .collect();
    let version = |n: u8| [0, 0, 0, 0, 0, 0, 0, n];
    assert_eq!(
        said,
        [
            (b"authorities".as_slice(), version(1).as_slice()),
            (b"authorities".as_slice(), version(2).as_slice())
        ]
    );
}
