//! The virtual time of the run on this thread, for whoever prints its trace: what rooms say as they go does not name the time.

use std::{cell::Cell, time::Duration};

use weft::core::model::Instant;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Returns how long after the start of the run something happened last.
pub fn now() -> Duration {
    NOW.get()
}

/// Something happens now.
pub(super) fn set(now: Instant) {
    NOW.set(now.since_start());
}
