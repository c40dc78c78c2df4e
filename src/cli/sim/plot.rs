//! The picture: what share of events has arrived after how long, at one node and at all. The axis is logarithmic.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use crate::sim::{Delays, Outcome};

const SIZE: (u32, u32) = (860, 480);
const FONT: &str = "sans-serif";
const ALL: RGBColor = RGBColor(0x0b, 0x6e, 0x4f);
const EACH: RGBColor = RGBColor(0x8a, 0x8f, 0x98);
const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
const FAINT: RGBColor = RGBColor(0xe3, 0xe5, 0xe8);
/// Below this many milliseconds nothing is told apart.
const LEAST_MS: f64 = 0.01;

/// Draws what was seen into a file.
pub(super) fn draw(title: &str, outcome: &Outcome, path: &Path) -> anyhow::Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    // Whoever reads it on a dark page sees it on white all the same.
    root.fill(&WHITE).map_err(failed)?;
    let (least, most) = limits(outcome);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 18, &INK))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((least..most).log_scale(), 0.0..100.0)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(FAINT)
        .x_desc("milliseconds of virtual time, logarithmic")
        .y_desc("% of events arrived")
        .label_style((FONT, 13, &INK))
        .draw()
        .map_err(failed)?;
    for (name, delays, colour) in [
        ("at a node", &outcome.each, EACH),
        ("at all nodes", &outcome.all, ALL),
    ] {
        let line = LineSeries::new(points(delays, least), colour.stroke_width(3));
        let series = chart.draw_series(line).map_err(failed)?;
        series
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font((FONT, 13, &INK))
        .border_style(FAINT)
        .background_style(WHITE)
        .draw()
        .map_err(failed)?;
    root.present().map_err(failed)
}

/// Returns how many of a hundred have arrived after each delay.
fn points(delays: &Delays, least: f64) -> Vec<(f64, f64)> {
    let total = delays.len().max(1) as f64;
    let arrived = delays.shares().map(|(below, delay)| {
        let millis = (delay.as_secs_f64() * 1e3).max(LEAST_MS);
        (millis, below as f64 * 100.0 / total)
    });
    std::iter::once((least, 0.0)).chain(arrived).collect()
}

/// Returns the decades that all delays are in.
fn limits(outcome: &Outcome) -> (f64, f64) {
    let millis = |delays: &Delays, share| {
        let delay = delays.quantile(share).unwrap_or_default();
        (delay.as_secs_f64() * 1e3).max(LEAST_MS).log10()
    };
    let least = millis(&outcome.each, 0.0).floor();
    let most = millis(&outcome.all, 1.0).ceil().max(least + 1.0);
    (10_f64.powf(least), 10_f64.powf(most))
}

fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("the picture cannot be drawn: {error}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sim::{Counts, Tally};

    #[test]
    fn what_was_seen_becomes_a_picture() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("arrivals.svg");
        let mut delays = Delays::default();
        delays.record(Duration::from_millis(3));
        let outcome = Outcome {
            each: delays.clone(),
            all: delays,
            lasted: Duration::from_secs(1),
            tally: Tally::default(),
            idle_bytes: 0.0,
            missing: 0,
            diverged: 0,
            counts: Counts::default(),
        };

        draw("a title", &outcome, &path).unwrap();

        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.contains("a title") && svg.contains("at all nodes"));
    }
}
