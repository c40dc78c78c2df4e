//! The picture: for each number of nodes a panel, in it a line for each system from its fastest to its slowest write, and
//! a dot at the median. The axis is logarithmic, since the systems are three orders of magnitude apart.

use std::path::Path;

use anyhow::anyhow;
use plotters::{
    coord::{Shift, combinators::LogCoord, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{figures::Figures, report::milliseconds};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, RangedCoordf64>>;

const WIDTH: u32 = 860;
const TITLE_HEIGHT: u32 = 56;
const ROW_HEIGHT: u32 = 30;
const PANEL_MARGINS: u32 = 74;
const LABELS_WIDTH: u32 = 190;
const FONT: &str = "sans-serif";
const OURS: RGBColor = RGBColor(0x0b, 0x6e, 0x4f);
const PEERS: RGBColor = RGBColor(0x8a, 0x8f, 0x98);
const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
const FAINT: RGBColor = RGBColor(0xe3, 0xe5, 0xe8);

/// Draws the figures into a file.
pub fn draw(rows: &[Figures], path: &Path) -> anyhow::Result<()> {
    let mut sizes: Vec<usize> = rows.iter().map(|row| row.nodes).collect();
    sizes.dedup();
    let panels: Vec<Vec<&Figures>> = sizes
        .iter()
        .map(|size| rows.iter().filter(|row| row.nodes == *size).collect())
        .collect();
    let heights: Vec<u32> = panels
        .iter()
        .map(|panel| PANEL_MARGINS + ROW_HEIGHT * panel.len() as u32)
        .collect();
    let height = TITLE_HEIGHT + heights.iter().sum::<u32>();
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    // Whoever reads it on a dark page sees it on white all the same.
    root.fill(&WHITE).map_err(failed)?;
    let (title, mut rest) = root.split_vertically(TITLE_HEIGHT);
    write(
        &title,
        "One write until all nodes have it",
        (16, 14),
        (20, INK),
    )?;
    let legend = "milliseconds, logarithmic; dot: median, line: fastest to slowest; all nodes in one process on loopback";
    write(&title, legend, (16, 38), (13, PEERS))?;
    for (panel, height) in panels.iter().zip(heights) {
        let (area, below) = rest.split_vertically(height);
        draw_panel(&area, panel, limits(rows))?;
        rest = below;
    }
    root.present().map_err(failed)
}

/// Returns the decades that all times are in.
fn limits(rows: &[Figures]) -> (f64, f64) {
    let times = rows.iter().flat_map(|row| [row.min_ms, row.max_ms]);
    let (least, most) = times.fold((f64::MAX, f64::MIN), |(least, most), time| {
        (time.min(least), time.max(most))
    });
    let decade = |time: f64| time.max(1e-3).log10();
    (
        10_f64.powf(decade(least).floor()),
        10_f64.powf(decade(most).ceil()),
    )
}

fn draw_panel(area: &Area<'_>, rows: &[&Figures], (least, most): (f64, f64)) -> anyhow::Result<()> {
    let nodes = rows.first().map_or(0, |row| row.nodes);
    write(area, &format!("{nodes} nodes"), (16, 10), (16, INK))?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(32)
        .margin_right(30)
        .x_label_area_size(30)
        .y_label_area_size(LABELS_WIDTH)
        .build_cartesian_2d((least..most).log_scale(), 0.0..rows.len() as f64)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(FAINT)
        .x_label_formatter(&|time| format!("{time}"))
        .x_label_style((FONT, 13, &INK))
        .draw()
        .map_err(failed)?;
    for (place, row) in rows.iter().enumerate() {
        draw_row(
            area,
            &mut chart,
            row,
            rows.len() as f64 - place as f64 - 0.5,
        )?;
    }
    Ok(())
}

fn draw_row(
    area: &Area<'_>,
    chart: &mut Chart<'_, '_>,
    row: &Figures,
    height: f64,
) -> anyhow::Result<()> {
    let colour = if row.system == "weft" { OURS } else { PEERS };
    let line = PathElement::new(
        [(row.min_ms, height), (row.max_ms, height)],
        colour.mix(0.45).stroke_width(6),
    );
    let dot = Circle::new((row.median_ms, height), 6, colour.filled());
    let label = EmptyElement::at((row.median_ms, height))
        + Text::new(
            milliseconds(row.median_ms),
            (0, -9),
            (FONT, 12, &INK)
                .into_text_style(area)
                .pos(Pos::new(HPos::Center, VPos::Bottom)),
        );
    let series = chart.plotting_area();
    series.draw(&line).map_err(failed)?;
    series.draw(&dot).map_err(failed)?;
    series.draw(&label).map_err(failed)?;
    let (_, top) = area.get_base_pixel();
    let (_, at) = chart.backend_coord(&(row.median_ms, height));
    write(area, &row.system, (16, at - top - 7), (14, INK))
}

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    (size, colour): (i32, RGBColor),
) -> anyhow::Result<()> {
    let style = (FONT, size, &colour).into_text_style(area);
    area.draw_text(text, &style, at).map_err(failed)
}

fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("the picture cannot be drawn: {error}")
}
