//! `weft sim`: what to simulate.

use std::{ops::Range, path::PathBuf, time::Duration};

use crate::config::Profile;

use super::profile;

pub(super) const EXAMPLES: &str = "\
The nodes are those that `weft up` runs, sealed datagrams and all, in virtual time on one thread; the same arguments give the \
same answer. Events are creates (5 of 10), updates (3) and deletes (2) of entries of 64-digit keys and 60 bytes, by nodes \
drawn at random. Lines carry 1 Gbit/s, receive buffers hold 1 MiB. Memory is about 0.5 MiB a node and more with many nodes; \
every event on every node takes some ten microseconds.

Exits 1 if an event did not reach all nodes, or nodes do not agree in the end.

Examples:
  weft sim
  weft sim --nodes 1000 --loss 5 --events 10000 --seed 7
  weft sim --nodes 200 --rate 5000 --delay 5-20 --profile wan --plot arrivals.svg";

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct SimArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=10_000))]
    pub(in crate::cli) nodes: u16,
    /// How many of a hundred datagrams are lost
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub(in crate::cli) loss: f64,
    /// How many events happen
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(in crate::cli) events: u64,
    /// How many of them a second, on average
    #[arg(long, value_name = "N", default_value_t = 1000.0, value_parser = rate)]
    pub(in crate::cli) rate: f64,
    /// How many entries there are before
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub(in crate::cli) entries: u32,
    /// How long a datagram is under way, in milliseconds, one way: the least and the most
    #[arg(long, value_name = "MIN-MAX", default_value = "0.2-1", value_parser = delay)]
    pub(in crate::cli) delay: Range<Duration>,
    /// How patient nodes are with silent members
    #[arg(long, default_value = "lan", value_parser = profile())]
    pub(in crate::cli) profile: Profile,
    /// Where all chance comes from
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(in crate::cli) seed: u64,
    /// Draw how many events have arrived after how long, as SVG
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) plot: Option<PathBuf>,
}

/// Reads a share of lost datagrams.
fn percent(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok();
    let parsed = parsed.filter(|percent| (0.0..=90.0).contains(percent));
    parsed.ok_or_else(|| "a number from 0 to 90 is expected".to_owned())
}

/// Reads how many events there are a second.
fn rate(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok();
    let parsed = parsed.filter(|rate| (0.01..=1_000_000.0).contains(rate));
    parsed.ok_or_else(|| "a number from 0.01 to 1000000 is expected".to_owned())
}

/// Reads two numbers of milliseconds.
fn delay(text: &str) -> Result<Range<Duration>, String> {
    let millis = |text: &str| {
        text.parse()
            .ok()
            .filter(|millis| (0.0..=10_000.0).contains(millis))
    };
    let parsed = text
        .split_once('-')
        .and_then(|(min, max)| Some((millis(min)?, millis(max)?)));
    let parsed = parsed.filter(|(min, max)| min < max);
    let (min, max) = parsed.ok_or("two numbers of milliseconds are expected, such as 0.2-1")?;
    let duration = |millis: f64| Duration::from_secs_f64(millis / 1000.0);
    Ok(duration(min)..duration(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_two_numbers_of_milliseconds_the_lesser_first() {
        let micros = Duration::from_micros;
        assert_eq!(delay("0.2-1"), Ok(micros(200)..micros(1000)));
        for text in ["", "1", "1-", "2-1", "1-1", "-1-2", "1-x", "0-99999"] {
            assert!(delay(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_and_rates_have_bounds() {
        assert_eq!(percent("5"), Ok(5.0));
        assert!(percent("91").is_err() && percent("NaN").is_err());
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err() && rate("inf").is_err());
    }
}
