//! `--wait` and `--timeout`: how long a command waits for others.

use std::time::Duration;

/// How long to wait at most: what the control API allows.
const TIMEOUT_MAX: Duration = Duration::from_mins(10);

/// Whether to wait until others know.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(in crate::cli) struct Wait {
    /// Wait until every live member of the network has heard of it; exit 6 and name those that may not have
    #[arg(long)]
    wait: bool,
    /// How long to wait at most: 500ms, 10s, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span, requires = "wait")]
    timeout: Duration,
}

impl Wait {
    /// Returns how long to wait, if at all.
    pub(in crate::cli) fn limit(self) -> Option<Duration> {
        self.wait.then_some(self.timeout)
    }
}

/// Reads a whole number and its unit.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        _ if number.is_empty() => return Err(malformed()),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        _ => return Err(malformed()),
    };
    let number: u32 = number.parse().map_err(|_too_long| too_long())?;
    match unit.checked_mul(number) {
        Some(span) if span <= TIMEOUT_MAX => Ok(span),
        Some(_) | None => Err(too_long()),
    }
}

fn malformed() -> String {
    "a number and ms, s or m are expected, for example 10s".to_owned()
}

fn too_long() -> String {
    format!("at most {} s are allowed", TIMEOUT_MAX.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_whole_number_with_its_unit() {
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(span("10m"), Ok(TIMEOUT_MAX));
        assert_eq!(span("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_time_that_is_none_or_too_long_is_refused() {
        for text in ["", "10", "s", "1.5s", "-1s", "10 s", "10h", "ten s"] {
            assert!(span(text).is_err(), "{text}");
        }
        for text in ["11m", "601s", "99999999999s", "4294967295m"] {
            assert!(span(text).unwrap_err().contains("600 s"), "{text}");
        }
    }
}
