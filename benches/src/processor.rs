//! Processor time instead of wall-clock time: what a machine that others use too does not falsify.

use std::time::Duration;

use criterion::{
    Criterion,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use nix::time::{ClockId, clock_gettime};

/// Measures how long the thread was on a processor; what is measured here has no other threads and does not wait.
#[derive(Clone, Copy, Debug)]
pub struct ProcessorTime;

impl ProcessorTime {
    /// Makes a criterion that measures so, and listens to the command line.
    pub fn criterion() -> Criterion<Self> {
        Criterion::default()
            .with_measurement(Self)
            .configure_from_args()
    }
}

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        now.expect("Linux has this clock").into()
    }

    fn end(&self, begun: Duration) -> Duration {
        self.start().saturating_sub(begun)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 nanoseconds are a hundred days"
    )]
    fn to_f64(&self, time: &Duration) -> f64 {
        time.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}
