//! Time as an argument: a monotonic instant for deadlines, wall-clock milliseconds for the hybrid logical clock.

use std::{
    fmt,
    ops::{Add, AddAssign},
    time::Duration,
};

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A point on the monotonic clock: nanoseconds since some start. `runtime::clock` or the simulator makes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// Returns the instant that lies `since_start` after the clock's start.
    pub fn from_start(since_start: Duration) -> Self {
        Self(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns how long after the clock's start this is.
    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Returns how long after `earlier` this is, zero if it is not.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

/// Milliseconds since 1970 on the wall clock. It may jump; only [`Hlc`] and reports read it.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

/// One reading of both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The monotonic clock: every deadline is on it.
    pub instant: Instant,
    /// The wall clock.
    pub wall: UnixMillis,
}

/// A hybrid logical clock reading: 48 bits of wall-clock milliseconds, 16 bits of count.
///
/// It chooses a winner between two owners of one key and measures propagation; nothing else trusts it.
/// Source: Kulkarni et al., "Logical Physical Clocks" (2014).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    /// How far ahead of our wall clock a reading may be before it is refused.
    pub const DRIFT_MAX: Duration = Duration::from_secs(60);

    /// Returns the next reading: not behind the wall clock, and later than `self`, unless that is so far ahead that others
    /// would refuse what is stamped with it. A reading of a wrong clock, ours or another's, binds nobody once it is noticed.
    pub fn tick(self, wall: UnixMillis) -> Self {
        let ahead = u64::try_from(Self::DRIFT_MAX.as_millis() / 2).unwrap_or(u64::MAX);
        let latest = UnixMillis(wall.0.saturating_add(ahead));
        let next = self.0.saturating_add(1);
        Self((wall.0 << 16).max(next.min(latest.0 << 16)))
    }

    /// Returns whether this reading is so far ahead of `wall` that it must be refused.
    pub fn is_too_far_ahead(self, wall: UnixMillis) -> bool {
        Duration::from_millis(self.wall().0.saturating_sub(wall.0)) > Self::DRIFT_MAX
    }

    /// Returns the wall-clock part.
    pub fn wall(self) -> UnixMillis {
        UnixMillis(self.0 >> 16)
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hlc({}.{})", self.0 >> 16, self.0 & 0xffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_back_still_moves_on() {
        let first = Hlc::default().tick(UnixMillis(1_000));

        let second = first.tick(UnixMillis(500));

        assert!(second > first);
        assert_eq!(second.wall(), UnixMillis(1_000));
    }

    #[test]
    fn a_reading_of_a_wrong_clock_does_not_make_the_next_one_too_late_for_others() {
        let wall = UnixMillis(1_000_000);
        for wrong in [UnixMillis(1_059_999), UnixMillis(9_000_000)] {
            let read = Hlc::default().tick(wrong);

            let next = read.tick(wall);

            assert!(!next.is_too_far_ahead(UnixMillis(wall.0 - 10_000)));
            assert!(next.wall() >= wall);
        }
    }

    #[test]
    fn a_reading_more_than_a_minute_ahead_is_too_far() {
        let wall = UnixMillis(1_000_000);

        assert!(
            !Hlc::default()
                .tick(UnixMillis(1_060_000))
                .is_too_far_ahead(wall)
        );
        assert!(
            Hlc::default()
                .tick(UnixMillis(1_060_001))
                .is_too_far_ahead(wall)
        );
    }
}
