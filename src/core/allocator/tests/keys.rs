//! The ring of datagram keys, and members that are removed.

use super::*;
use crate::core::model::Dot;

fn key(n: u64) -> ClusterKey {
    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(n);
    ClusterKey::random(&mut rng)
}

fn add(rig: &mut Rig, n: u64) -> KeyId {
    match rig.apply(Action::AddKey { key: key(n) }) {
        Ok(Outcome::Key(id)) => id,
        other => panic!("no key: {other:?}"),
    }
}

fn ring(rig: &Rig) -> Keyring {
    rig.allocator.ring().unwrap().keys
}

/// Returns the versions of the ring that the cluster log told since the last call.
fn told(rig: &mut Rig) -> Vec<u64> {
    let dots = rig.allocator.take_dots();
    let of_ring = dots.iter().filter(|dot| dot.table.as_str() == KEYS_TABLE);
    let version = |dot: &Dot| dot.value.clone().unwrap().as_bytes().try_into().unwrap();
    of_ring
        .map(|dot| u64::from_be_bytes(version(dot)))
        .collect()
}

#[test]
fn an_added_key_seals_once_it_is_promoted_and_the_former_one_opens_until_it_is_retired() {
    let mut rig = Rig::founded();
    let former = ring(&rig).primary().0;

    let id = add(&mut rig, 2);
    assert_eq!(ring(&rig).primary().0, former);
    rig.apply(Action::PromoteKey { id }).unwrap();
    assert_eq!(ring(&rig).primary(), (id, &key(2)));
    assert!(ring(&rig).get(former).is_some());
    rig.apply(Action::RetireKeys).unwrap();

    assert_eq!(ring(&rig).keys().count(), 1);
    assert_eq!(told(&mut rig), [1, 2, 3]);
}

#[test]
fn the_log_tells_versions_of_the_ring_and_never_a_key() {
    let mut rig = Rig::founded();

    add(&mut rig, 2);

    let secret = codec::encode(&key(2));
    for dot in rig.allocator.take_dots() {
        let value = dot.value.unwrap();
        assert!(!value.as_bytes().windows(32).any(|part| part == &secret[..]));
    }
}

#[test]
fn a_key_that_is_not_on_the_ring_is_not_promoted_and_one_that_seals_is_no_news() {
    let mut rig = Rig::founded();
    let primary = ring(&rig).primary().0;

    let refused = rig.apply(Action::PromoteKey { id: KeyId(99) });
    assert_eq!(refused, Err(AllocatorError::NoSuchKey(99)));
    rig.apply(Action::PromoteKey { id: primary }).unwrap();

    assert!(told(&mut rig).is_empty());
}

#[test]
fn a_key_that_was_replaced_meanwhile_never_seals_again() {
    let mut rig = Rig::founded();
    let slow = add(&mut rig, 2);
    let fast = add(&mut rig, 3);
    rig.apply(Action::PromoteKey { id: fast }).unwrap();

    let refused = rig.apply(Action::PromoteKey { id: slow });

    assert_eq!(refused, Err(AllocatorError::NoSuchKey(slow.0)));
    assert_eq!(ring(&rig).primary().0, fast);
}

#[test]
fn a_rotation_that_is_asked_for_again_adds_no_second_key() {
    let mut rig = Rig::founded();
    let command = Command {
        at: Hlc(5_000),
        request: 77,
        action: Action::AddKey { key: key(2) },
    };

    let first = rig.allocator.apply(&command);
    let mut restored = Allocator::restore(&rig.allocator.snapshot()).unwrap();

    assert_eq!(restored.apply(&command), first);
    rig.allocator.take_dots();
    assert_eq!(restored, rig.allocator);
    assert_eq!(restored.rotated(), Some(Hlc(5_000)));
}

#[test]
fn who_knows_a_members_id_and_name_but_not_its_key_is_not_let_in_as_that_member() {
    let mut rig = Rig::founded();
    let admit = |node, key| Action::AdmitNode {
        node,
        name: name("n2"),
        key: [key; 32],
    };
    rig.apply(admit(NodeId(2), 1)).unwrap();
    rig.succeed();

    assert_eq!(rig.apply(admit(NodeId(2), 1)), Ok(Outcome::Done));
    let refused = Err(AllocatorError::NotItsKey(NodeId(2)));
    assert_eq!(rig.apply(admit(NodeId(2), 9)), refused);
    let record = |key| Action::RecordKey {
        node: NodeId(2),
        key: [key; 32],
    };
    assert_eq!(rig.apply(record(9)), refused);
    assert_eq!(rig.apply(record(1)), Ok(Outcome::Done));
}

#[test]
fn a_member_without_a_known_key_is_nobody_until_it_is_written_down() {
    let mut rig = Rig::founded();
    let again = Action::AdmitNode {
        node: FOUNDER,
        name: name("n1"),
        key: [1; 32],
    };
    let refused = Err(AllocatorError::NotItsKey(FOUNDER));
    assert_eq!(rig.apply(again.clone()), refused);

    let record = |node| Action::RecordKey { node, key: [1; 32] };
    rig.apply(record(FOUNDER)).unwrap();
    assert_eq!(rig.apply(again), Ok(Outcome::Done));
    let stranger = NodeId(7);
    let refused = Err(AllocatorError::NotMember(stranger));
    assert_eq!(rig.apply(record(stranger)), refused);
}

#[test]
fn every_node_is_told_who_was_removed() {
    let mut rig = Rig::founded();
    rig.apply(admit(NodeId(2), "n2")).unwrap();
    rig.allocator.take_dots();

    rig.apply(Action::RemoveMember { node: NodeId(2) }).unwrap();

    let removed = |dot: &&Dot| dot.table.as_str() == REMOVED_TABLE && dot.value.is_some();
    let dots = rig.allocator.take_dots();
    let told: Vec<_> = dots
        .iter()
        .filter(removed)
        .map(|dot| dot.key.as_bytes())
        .collect();
    assert_eq!(told, [2u64.to_be_bytes()]);
}
