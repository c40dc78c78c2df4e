//! A picture of delays in one line of a terminal: the taller a column, the more of them are about as long.

use std::time::Duration;

use crate::sim::Delays;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Longer ones than this share are few and far: they are told, not drawn.
const DRAWN: f64 = 0.99;

/// Draws the delays from the shortest to the 99th percentile.
pub(super) fn draw(delays: &Delays, width: usize) -> String {
    let (Some(from), Some(to)) = (delays.quantile(0.0), delays.quantile(DRAWN)) else {
        return "nothing arrived".to_owned();
    };
    let mut columns = vec![0u64; width];
    let step = to.saturating_sub(from).max(Duration::from_micros(1)) / width as u32;
    let mut before = 0;
    for (below, delay) in delays.shares().filter(|(_, delay)| *delay <= to) {
        let place = delay.saturating_sub(from).as_nanos() / step.as_nanos().max(1);
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        columns[place.min(width - 1)] += below - before;
        before = below;
    }
    let most = columns.iter().copied().max().unwrap_or(0).max(1);
    let bars: String = columns.iter().map(|count| bar(*count, most)).collect();
    let millis = |delay: Duration| delay.as_secs_f64() * 1e3;
    format!(
        "{:.2} ms {bars} {:.2} ms   how many events took how long to all nodes, without the slowest hundredth",
        millis(from),
        millis(to)
    )
}

/// Returns a bar; nothing for nothing, so that one event can be told from none.
fn bar(count: u64, most: u64) -> char {
    if count == 0 {
        return ' ';
    }
    let height = (count * BARS.len() as u64).div_ceil(most).max(1);
    BARS[usize::try_from(height - 1).unwrap_or(0).min(BARS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tallest_bar_is_where_most_are() {
        let mut delays = Delays::default();
        for millis in [1, 5, 5, 5, 5, 5, 5, 5, 5, 9] {
            delays.record(Duration::from_millis(millis));
        }

        let drawn = draw(&delays, 9);

        assert!(drawn.starts_with("1.00 ms ▁   █   ▁ 9.00 ms"), "{drawn}");
    }

    #[test]
    fn no_delays_and_equal_delays_are_drawn_too() {
        let mut delays = Delays::default();
        assert_eq!(draw(&delays, 9), "nothing arrived");

        delays.record(Duration::from_millis(3));

        assert!(draw(&delays, 9).contains('█'));
    }
}
