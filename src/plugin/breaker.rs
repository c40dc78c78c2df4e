//! The circuit breaker: a plugin that let several calls in a row run out of time is left alone for a while.
//!
//! Then one call is let through. If that one is late too, or never ends, the plugin is left alone as long again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many calls in a row may be late.
const LATE_MAX: u32 = 3;
/// For how long the plugin is left alone.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(5);

/// What the calls of one plugin have come to. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many calls in a row were late.
    late: u32,
    /// When the next call is let through, once too many were late.
    next: Option<Instant>,
}

impl Breaker {
    /// Lets a call through, or says how long the plugin is left alone yet.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state();
        if state.late < LATE_MAX {
            return Ok(());
        }
        match state.next {
            Some(next) if now < next => Err(next - now),
            Some(_) | None => {
                state.next = Some(now + LEFT_ALONE);
                Ok(())
            }
        }
    }

    /// Notes how a call ended.
    pub(super) fn note(&self, now: Instant, was_late: bool) {
        let mut state = self.state();
        if was_late {
            state.late = state.late.saturating_add(1);
            state.next = Some(now + LEFT_ALONE);
        } else {
            *state = State::default();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole: nobody who panicked left it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_is_late_too_often_is_left_alone_and_then_tried_once() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..LATE_MAX {
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.note(now, true);
        }

        assert_eq!(breaker.admit(now), Err(LEFT_ALONE));
        let later = now + LEFT_ALONE;
        assert_eq!(breaker.admit(later), Ok(()));
        assert_eq!(breaker.admit(later), Err(LEFT_ALONE));

        breaker.note(later, false);
        assert_eq!(breaker.admit(later), Ok(()));
    }

    #[test]
    fn late_calls_that_are_not_in_a_row_do_not_count() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for was_late in [true, true, false, true, true] {
            breaker.note(now, was_late);
        }

        assert_eq!(breaker.admit(now), Ok(()));
    }
}
