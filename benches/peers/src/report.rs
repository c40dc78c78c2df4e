//! The figures as a table in Markdown, which reads well in a terminal too.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::figures::Figures;

/// Which column is text, not a number.
const SYSTEM: usize = 1;

/// Returns the table.
pub fn table(rows: &[Figures]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "nodes",
            "system",
            "median ms",
            "p99 ms",
            "max ms",
            "lost",
            "B per node and update",
            "idle: B/s per node",
            "idle: % of a core, all nodes",
        ]);
    for row in rows {
        table.add_row([
            row.nodes.to_string(),
            row.system.clone(),
            milliseconds(row.median_ms),
            milliseconds(row.p99_ms),
            milliseconds(row.max_ms),
            format!("{} of {}", row.lost, row.rounds),
            format!(
                "{:.0} ± {:.0}",
                row.bytes_per_update, row.bytes_per_update_spread
            ),
            format!("{:.0}", row.idle_bytes_per_second),
            format!("{:.1}", row.idle_cpu_percent),
        ]);
    }
    for (place, column) in table.column_iter_mut().enumerate() {
        if place != SYSTEM {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Returns a time with as many digits as say something.
pub fn milliseconds(time: f64) -> String {
    if time < 10.0 {
        format!("{time:.1}")
    } else {
        format!("{time:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_figures_in_the_order_of_the_header() {
        let row = Figures {
            system: "weft".to_owned(),
            nodes: 16,
            rounds: 20,
            lost: 1,
            min_ms: 0.5,
            median_ms: 1.234,
            p99_ms: 56.7,
            max_ms: 89.0,
            bytes_per_update: 1_000.4,
            bytes_per_update_spread: 9.6,
            idle_bytes_per_second: 400.0,
            idle_cpu_percent: 0.75,
        };

        let table = table(&[row]);

        let cells = table.lines().last().unwrap().split('|').map(str::trim);
        let cells: Vec<&str> = cells.filter(|cell| !cell.is_empty()).collect();
        assert_eq!(
            cells,
            [
                "16",
                "weft",
                "1.2",
                "57",
                "89",
                "1 of 20",
                "1000 ± 10",
                "400",
                "0.8"
            ]
        );
    }
}
