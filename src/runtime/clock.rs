//! The one place that reads clocks, and the one that asks the system for chance.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::{
    SeedableRng, TryRng,
    rngs::{StdRng, SysRng},
};

use crate::core::model::{Instant, Now, UnixMillis};

/// Both clocks of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// Starts the monotonic clock.
    pub fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let start = std::time::Instant::now();
        Self { start }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        Now {
            instant: Instant::from_start(self.start.elapsed()),
            wall: wall(),
        }
    }

    /// Returns the tokio instant of one of ours.
    pub(super) fn to_tokio(self, instant: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + instant.since_start())
    }
}

/// Reads the wall clock. A clock before 1970 reads as 1970.
pub fn wall() -> UnixMillis {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Draws a seed from the operating system.
pub fn seed() -> u64 {
    SysRng
        .try_next_u64()
        .expect("the kernel's random numbers are there once it has booted")
}

/// Returns a generator fit for secrets, seeded by the operating system.
pub fn entropy() -> StdRng {
    StdRng::try_from_rng(&mut SysRng)
        .expect("the kernel's random numbers are there once it has booted")
}
