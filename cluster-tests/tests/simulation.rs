//! The simulator's runs: fifty seeds on every change, and what shows that they are worth something.

use std::time::Duration;

use cluster_tests::sim::{Chaos, Counts, Report, Seen, Violation, schedule::Size};
use weft::{
    core::model::{Key, Mutation, NetworkId, TableName, Value},
    sim::{Nobody, World},
};

/// Seeds that once failed: they are run for ever.
const KEPT: &[u64] = &[
    22, 37, 67, 82, 125, 142, 148, 214, 305, 1005, 1300, 3310, 3464, 4474, 8662, 9721, 9755, 15922,
    3497, 3605, 16257, 18070, 21856, 68982, 274,
];

/// Within how many seeds a defect must be noticed.
const SEEDS_TO_CATCH: u64 = 60;

#[test]
fn fifty_seeds_of_chaos_end_in_calm_and_their_faults_really_happen() {
    let run = |seed| match Chaos::new(seed).run() {
        Ok(report) => report,
        Err(violation) => panic!("seed {seed}: {violation}"),
    };

    let reports: Vec<Report> = KEPT.iter().copied().chain(0..50).map(run).collect();

    let total = |count: fn(&Counts) -> u64| reports.iter().map(|r| count(&r.counts)).sum::<u64>();
    assert!(total(|c| c.crashes) > 20);
    assert!(total(|c| c.lost_disks) > 20);
    assert!(total(|c| c.lost_writes) > 10);
    assert!(total(|c| c.refused_writes) > 50);
    assert!(total(|c| c.leaves) > 20);
    assert!(total(|c| c.partitions) > 20);
    assert!(total(|c| c.lost) > 1_000);
    assert!(total(|c| c.duplicated) > 1_000);
    assert!(total(|c| c.pauses) > 20);
    assert!(total(|c| c.clock_steps) > 20);
    assert!(total(|c| c.rotations) > 10);
    assert!(total(|c| c.unknown_records) > 20);
    assert!(total(|c| c.requests) > 1_000);
    let mut seen = Seen::default();
    for report in &reports {
        seen += report.seen.clone();
    }
    assert!(seen.floors_raised > 200, "{seen:?}");
    assert!(seen.snapshots > 10, "{seen:?}");
    assert!(seen.settled > 20, "{seen:?}");
    assert!(seen.barriers_everywhere > 20, "{seen:?}");
    assert!(seen.barriers_late > 0, "{seen:?}");
    assert!(seen.synced_claims > 10, "{seen:?}");
    assert!(seen.downs > 100, "{seen:?}");
    assert!(seen.renewals > 5, "{seen:?}");
    assert!(seen.transitions > 5_000, "{seen:?}");
    assert!(seen.unknown_keys > 50, "{seen:?}");
    assert!(seen.unknown_records > 50, "{seen:?}");
    assert!(seen.hidden_after > Duration::from_secs(1), "{seen:?}");
}

#[test]
fn a_refuted_suspicion_that_runs_out_all_the_same_is_caught() {
    is_caught(Mutation::RunRefutedTimer);
}

#[test]
fn a_word_of_those_cut_off_that_is_believed_at_once_is_caught() {
    is_caught(Mutation::BelieveHearsay);
}

#[test]
fn a_suspicion_that_never_ends_is_caught() {
    is_caught(Mutation::EndNoSuspicion);
}

#[test]
fn an_answer_that_was_cut_and_covers_holes_is_caught() {
    is_caught(Mutation::CoverHoles);
}

#[test]
fn a_snapshot_below_a_floor_that_is_left_out_is_caught() {
    is_caught(Mutation::SkipSnapshot);
}

#[test]
fn an_order_of_owners_that_is_ignored_is_caught() {
    is_caught(Mutation::IgnoreOrder);
}

#[test]
fn an_ihave_that_names_a_dot_twice_is_caught() {
    is_caught(Mutation::TellTwice);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 17] {
        let first = small(seed).run();
        let second = small(seed).run();

        assert_eq!(first, second);
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let one = small(1).run().unwrap();
    let other = small(7).run().unwrap();

    assert_ne!(one.trace, other.trace);
}

#[test]
fn one_change_reaches_25_nodes_within_15_ms() {
    let network = NetworkId(1);
    let mut world = World::settled(25, 25, network, Nobody);
    world.run_for(Duration::from_secs(5));
    let (table, key) = (
        TableName::new("t").unwrap(),
        Key::new(b"k".to_vec()).unwrap(),
    );

    world
        .put(0, (network, table, key), Value::new(b"v".to_vec()).unwrap())
        .unwrap();
    let took = world.run_until(
        Duration::from_micros(100),
        Duration::from_secs(1),
        |world| {
            let seen = |at: &usize| {
                let node = world.machines[*at].node.as_ref().unwrap();
                node.get(network, "t", b"k").is_some()
            };
            (0..25).filter(seen).count() == 25
        },
    );

    assert!(
        took.is_some_and(|took| took <= Duration::from_millis(15)),
        "{took:?}"
    );
}

/// A run of that seed, shorter.
fn small(seed: u64) -> Chaos {
    let size = Size {
        steps: 40,
        ..Chaos::new(seed).size
    };
    Chaos::sized(seed, size)
}

/// Runs seeds of nodes with a defect until a checker notices; the same seed without the defect must pass.
fn is_caught(mutation: Mutation) {
    let caught = |seed: u64| -> Option<(u64, Violation)> {
        let violation = Chaos::new(seed).mutated(mutation).run().err()?;
        Some((seed, violation))
    };

    let (seed, _) = (0..SEEDS_TO_CATCH)
        .find_map(caught)
        .unwrap_or_else(|| panic!("{SEEDS_TO_CATCH} seeds did not notice {mutation:?}"));

    let sound = Chaos::new(seed).run();
    assert!(sound.is_ok(), "seed {seed} fails without it: {sound:?}");
}
