//! Small cells of the tables, on every change: virtual time, so what they say is the same everywhere.

use cluster_tests::sim::measure::{Cell, Measure, Part, Profile, Row};
use weft::core::netdb::Scheme;

/// Measures a cell; returns its first row, which is about all of it.
fn measure(cell: Cell) -> Row {
    let mut rows = cell.run(&|| {});
    rows.swap_remove(0)
}

fn cell(measure: Measure, nodes: usize, seeds: u64) -> Cell {
    Cell {
        measure,
        nodes,
        entries: 0,
        loss_pct: 0.0,
        seeds,
        seed_base: 0,
        scheme: Scheme::default(),
        without: None,
        profile: Profile::Lan,
    }
}

fn assert_good(row: &Row) {
    assert!(row.is_good(), "{row:#?}");
}

#[test]
fn a_change_reaches_all_within_its_limits() {
    for nodes in [2, 5, 25] {
        let row = measure(Cell {
            entries: 30,
            ..cell(Measure::Change, nodes, 2)
        });

        assert_good(&row);
        assert!(row.max_ms.is_some() && row.bytes_per_node.is_some());
    }
}

#[test]
fn a_burst_reaches_all_within_its_limits() {
    for (nodes, entries, loss_pct) in [(5, 1000, 0.0), (25, 1000, 0.0), (25, 300, 30.0)] {
        let row = measure(Cell {
            entries,
            loss_pct,
            ..cell(Measure::Burst, nodes, 1)
        });

        assert_good(&row);
    }
}

#[test]
fn a_write_reaches_all_that_stay_under_churn() {
    assert_good(&measure(cell(Measure::Churn, 10, 2)));
}

#[test]
fn a_crash_is_noticed_in_time_and_nobody_else_is_held_for_down() {
    for loss_pct in [0.0, 30.0] {
        let row = measure(Cell {
            loss_pct,
            ..cell(Measure::Crash, 25, 2)
        });

        assert_good(&row);
        assert!(row.first_ms <= row.max_ms && row.false_downs == Some(0));
    }
}

#[test]
fn nodes_that_are_well_beside_starved_ones_are_never_held_for_down() {
    let row = measure(cell(Measure::FalseDown, 10, 1));

    assert_good(&row);
    assert_eq!(row.false_downs, Some(0));
}

#[test]
fn the_ill_bring_down_nobody_who_is_well_unless_they_are_believed() {
    let without = |without| {
        measure(Cell {
            without,
            ..cell(Measure::Hardship, 10, 1)
        })
    };

    let (whole, believing) = (without(None), without(Some(Part::Hearsay)));

    assert_good(&whole);
    assert_eq!(whole.false_downs, Some(0));
    assert!(believing.false_downs > Some(10), "{believing:?}");
}

#[test]
fn nodes_that_join_at_once_soon_see_each_other() {
    assert_good(&measure(cell(Measure::Join, 25, 1)));
}

#[test]
fn idle_nodes_send_as_much_with_entries_as_without() {
    let row = |entries| {
        measure(Cell {
            entries,
            ..cell(Measure::Idle, 3, 1)
        })
    };

    let (without, with) = (row(0), row(2_000));

    assert_good(&without);
    assert_good(&with);
    let bytes = |row: &Row| row.bytes_per_node.unwrap();
    assert!(bytes(&with) < bytes(&without) * 1.1);
}

#[test]
fn two_writers_at_the_same_instant_end_with_one_value_everywhere() {
    for (nodes, loss_pct) in [(2, 0.0), (3, 30.0), (7, 30.0)] {
        let row = measure(Cell {
            loss_pct,
            ..cell(Measure::Conflict, nodes, 12)
        });

        assert_eq!((row.diverged, row.violations), (Some(0), 0), "{row:#?}");
    }
}

#[test]
fn a_crash_is_hidden_within_its_limit() {
    assert_good(&measure(cell(Measure::Return, 10, 2)));
}

#[test]
fn the_same_seeds_give_the_same_row() {
    let cell = Cell {
        entries: 10,
        loss_pct: 10.0,
        ..cell(Measure::Change, 5, 2)
    };

    assert_eq!(cell.run(&|| {}), cell.run(&|| {}));
}
