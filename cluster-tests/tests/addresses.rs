//! Addresses: seeds of the simulation on every change, what shows that they are worth something, and a few real faults.

use std::{path::PathBuf, time::Duration};

use cluster_tests::{
    chaos::{self, Limit, Plan},
    sim::addresses::{Defect, Tally, run},
};

/// Within how many seeds a defect must be noticed.
const SEEDS_TO_CATCH: u64 = 10;

#[test]
fn no_address_is_had_twice_in_ten_clusters_hours_and_all_that_endangers_it_happens() {
    let mut total = Tally::default();
    for seed in 0..10 {
        match run(seed, None) {
            Ok(tally) => total += &tally,
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }

    assert!(total.dynamic > 1_000, "{total:?}");
    assert!(total.named > 500, "{total:?}");
    assert!(total.isolated > 100, "{total:?}");
    assert!(total.refused_isolated > 100, "{total:?}");
    assert!(total.reused > 500, "{total:?}");
    assert!(total.cut_short > 50, "{total:?}");
    assert!(total.repeated > 500, "{total:?}");
    assert!(total.returned > 500, "{total:?}");
    assert!(total.stale > 5, "{total:?}");
    assert!(total.unanswered > 500, "{total:?}");
    assert!(total.lost > 0, "{total:?}");
    assert!(total.elections > 50, "{total:?}");
    assert!(total.partitions > 50, "{total:?}");
    assert!(total.restarts > 50, "{total:?}");
    assert!(total.shut_out > 5, "{total:?}");
    assert!(total.networks > 30, "{total:?}");
}

#[test]
fn a_seed_runs_the_same_again() {
    assert_eq!(run(3, None), run(3, None));
}

#[test]
fn a_return_without_the_number_of_its_lease_is_caught() {
    is_caught(Defect::ReturnUnnumbered);
}

#[test]
fn a_block_that_is_used_on_after_a_return_without_answer_is_caught() {
    is_caught(Defect::UseUnanswered);
}

#[test]
fn a_former_runs_block_that_is_taken_for_new_is_caught() {
    is_caught(Defect::ForgetRest);
}

#[test]
fn a_lease_that_goes_back_before_everybody_has_heard_is_caught() {
    is_caught(Defect::SkipBarrier);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are the report")]
async fn real_daemons_allocate_linearizably_under_faults() -> anyhow::Result<()> {
    let plan = Plan {
        program: PathBuf::from(env!("CARGO_BIN_EXE_weft-under-test")),
        nodes: 5,
        seed: 7,
        limit: Limit::Count {
            calls: 1_200,
            episodes: 5,
        },
        longest: Duration::from_secs(3),
        history: None,
    };

    let Some(report) = chaos::run(&plan).await? else {
        return Ok(());
    };

    println!("{report:#?}");
    assert_eq!(report.violations, [""; 0]);
    assert_eq!(report.episodes, 5);
    assert!(report.faults.values().sum::<u64>() >= 3);
    assert!(report.calls["create network"]["ok"] > 5);
    assert!(report.calls["create endpoint"]["ok"] > 50);
    Ok(())
}

fn is_caught(defect: Defect) {
    let caught = (0..SEEDS_TO_CATCH).any(|seed| run(seed, Some(defect)).is_err());
    assert!(
        caught,
        "{defect:?} went unnoticed in {SEEDS_TO_CATCH} seeds"
    );
}
