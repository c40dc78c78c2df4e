//! Waiting until something is seen.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take. It only ends a test that fails, so it is far more than a slow machine needs.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long to be away between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What one look showed.
#[derive(Debug)]
pub enum Seen<T> {
    /// What is waited for.
    Good(T),
    /// Something else; the text ends up in the failure.
    NotYet(String),
}

impl Seen<()> {
    /// Returns what was seen; `what` is told if it is not good.
    pub fn when(good: bool, what: impl FnOnce() -> String) -> Self {
        if good {
            Self::Good(())
        } else {
            Self::NotYet(what())
        }
    }
}

/// Looks until `what` is seen. A look that fails is one that has not seen it.
pub async fn until<T>(
    what: &str,
    look: impl AsyncFnMut() -> anyhow::Result<Seen<T>>,
) -> anyhow::Result<T> {
    until_within(DEADLINE, what, look).await
}

/// Looks until `what` is seen, but not longer than this.
pub async fn until_within<T>(
    within: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Seen<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    let mut last = "nothing".to_owned();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        last = match timeout(left, look()).await {
            Ok(Ok(Seen::Good(seen))) => return Ok(seen),
            Ok(Ok(Seen::NotYet(other))) => other,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_elapsed) => format!("{last}, then a look that did not end"),
        };
        if Instant::now() >= deadline {
            bail!("not seen within {within:?}: {what}; last seen: {last}");
        }
        sleep(BETWEEN_LOOKS).await;
    }
}
