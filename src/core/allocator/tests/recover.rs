//! Going on from one state after the voters that knew more are lost.

use super::*;

const AT: Hlc = Hlc(9_000);
const REQUEST: u128 = 1 << 100;

fn announce(n: u8) -> Action {
    Action::AnnounceAuthority {
        cert_der: vec![n],
        key_der: Secret(vec![n]),
        cross_der: vec![n],
        waits_for_nobody: false,
    }
}

fn add_key(rig: &mut Rig, seed: u64) {
    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(seed);
    let key = ClusterKey::random(&mut rng);
    let Ok(Outcome::Key(id)) = rig.apply(Action::AddKey { key }) else {
        panic!("no key")
    };
    rig.apply(Action::PromoteKey { id }).unwrap();
}

/// A node that fetched the ring, or the authorities, from the lost ones would keep them if what is agreed now had the same version.
#[test]
fn what_the_lost_ones_made_of_the_ring_and_of_the_authorities_is_older_than_what_the_survivor_has()
{
    let mut survivor = Rig::founded();
    let mut lost = Rig {
        allocator: survivor.allocator.clone(),
        requests: survivor.requests,
    };
    for seed in 2..10 {
        add_key(&mut lost, seed);
    }
    lost.apply(announce(8)).unwrap();
    let before = survivor.allocator.ring().unwrap();

    survivor.allocator.recover(AT, REQUEST, &[]);
    survivor.succeed();

    let (ring, theirs) = (
        survivor.allocator.ring().unwrap(),
        lost.allocator.ring().unwrap(),
    );
    assert_eq!(ring.keys, before.keys);
    assert_ne!(ring.keys, theirs.keys);
    assert!(ring.version > theirs.version, "{ring:?}");
    let (authorities, others) = (
        survivor.allocator.authorities().unwrap(),
        lost.allocator.authorities().unwrap(),
    );
    assert!(others.other.is_some() && authorities.other.is_none());
    assert!(authorities.version > others.version, "{authorities:?}");
    // Every node hears of both versions, whatever of the log it has.
    let (dots, floor) = survivor.allocator.cluster_log();
    let told = dots.iter().filter(|dot| dot.table.as_str() == KEYS_TABLE);
    let told: Vec<&[u8]> = told
        .map(|dot| dot.value.as_ref().unwrap().as_bytes())
        .collect();
    assert_eq!(told.len(), 2);
    for version in [ring.version, authorities.version] {
        assert!(told.contains(&version.to_be_bytes().as_slice()), "{told:?}");
    }
    assert!(floor > lost.allocator.last_dot());
    // And what comes next is newer still.
    add_key(&mut survivor, 99);
    assert!(survivor.allocator.ring().unwrap().version > ring.version);
}

#[test]
fn the_lost_ones_are_members_no_more_and_no_number_of_theirs_is_given_out() {
    let mut survivor = Rig::founded();
    let node = NodeId(2);
    survivor.apply(admit(node, "n2")).unwrap();
    let mut lost = Rig {
        allocator: survivor.allocator.clone(),
        requests: survivor.requests,
    };
    let theirs = lost.network(create("theirs", &[]));

    survivor.allocator.recover(AT, REQUEST, &[node]);

    let ours = survivor.network(create("ours", &[]));
    assert!(survivor.allocator.is_removed(node));
    assert!(ours.id > theirs.id);
    assert!(vnis(&ours)[0] > vnis(&theirs)[0]);
}
