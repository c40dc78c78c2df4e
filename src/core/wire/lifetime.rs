//! When a certificate is renewed: well before its end, not on all nodes at once, and again soon after a failure.
//!
//! A third of the life is left when it is renewed, as step-ca and SPIRE's agents do, so that a cluster may be without a leader for
//! that long and lose nobody. What has run out is not renewed any more by whoever holds it: it proves nothing.
//!
//! **Invariant:** the wall clock is only compared with the certificate, never added up, so that after a step of the clock the next
//! look decides as if it had always been so; pauses are on the monotonic clock.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::core::model::{Instant, Now, UnixMillis};

/// Of its life, how much of a certificate has passed when it is renewed: two thirds, and up to a twentieth more or less.
const RENEW_AFTER: std::ops::Range<f64> = 0.617..0.717;

/// How often the clock is looked at, at least: it may have stepped, or the host slept.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The part of the life that passes after a first failure, and at most; and the bounds of either.
const RETRY_FIRST: u32 = 64;
const RETRY_LAST: u32 = 8;
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_FIRST_MAX: Duration = Duration::from_secs(60);
const RETRY_LAST_MAX: Duration = Duration::from_secs(3600);

/// From when until when a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// The first moment.
    pub from: UnixMillis,
    /// The last one.
    pub until: UnixMillis,
}

/// How a certificate stands at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its time has not come: this clock, or the one of who signed it, is wrong.
    NotYet,
    /// It is valid.
    Valid,
    /// It has run out.
    RunOut,
}

impl Validity {
    /// Returns how the certificate stands.
    pub fn standing(&self, wall: UnixMillis) -> Standing {
        if wall < self.from {
            Standing::NotYet
        } else if wall > self.until {
            Standing::RunOut
        } else {
            Standing::Valid
        }
    }

    /// Returns how long it is valid in all.
    pub fn life(&self) -> Duration {
        Duration::from_millis(self.until.0.saturating_sub(self.from.0))
    }
}

/// What to do about a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Renew it.
    Now,
    /// Look again after so long.
    After(Duration),
}

/// When one certificate is renewed.
#[derive(Clone, Debug)]
pub struct Renewal {
    validity: Validity,
    at: UnixMillis,
    failures: u32,
    not_before: Instant,
}

impl Renewal {
    /// Plans the renewal of a certificate; `rng` spreads nodes that were certified together.
    pub fn new(validity: Validity, rng: &mut impl Rng) -> Self {
        let part = validity.life().mul_f64(rng.random_range(RENEW_AFTER));
        let part = u64::try_from(part.as_millis()).unwrap_or(u64::MAX);
        Self {
            validity,
            at: UnixMillis(validity.from.0.saturating_add(part)),
            failures: 0,
            not_before: Instant::default(),
        }
    }

    /// Returns from when until when the certificate is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Notes that another authority signs now: the certificate is renewed as soon as it can be.
    pub fn handle_superseded(&mut self) {
        self.at = UnixMillis(0);
    }

    /// Notes that nobody signed; each further time it is tried again later.
    pub fn handle_failed(&mut self, now: Instant) {
        let life = self.validity.life();
        let first = (life / RETRY_FIRST).clamp(RETRY_MIN, RETRY_FIRST_MAX);
        let last = (life / RETRY_LAST).clamp(RETRY_MIN, RETRY_LAST_MAX);
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(last);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause;
    }

    /// Returns what to do now.
    pub fn due(&self, now: Now) -> Due {
        let wait = self.not_before.saturating_duration_since(now.instant);
        if !wait.is_zero() {
            return Due::After(wait.min(LOOK_EVERY));
        }
        let left = Duration::from_millis(self.at.0.saturating_sub(now.wall.0));
        if left.is_zero() {
            Due::Now
        } else {
            Due::After(left.min(LOOK_EVERY))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;

    fn now(instant: u64, wall: u64) -> Now {
        Now {
            instant: Instant::from_start(Duration::from_millis(instant)),
            wall: UnixMillis(wall),
        }
    }

    fn renewal(from: u64, until: u64, seed: u64) -> Renewal {
        let validity = Validity {
            from: UnixMillis(from),
            until: UnixMillis(until),
        };
        Renewal::new(validity, &mut StdRng::seed_from_u64(seed))
    }

    #[test]
    fn nodes_that_were_certified_together_are_not_renewed_together() {
        let at: std::collections::BTreeSet<u64> = (0..100)
            .map(|seed| renewal(0, 90 * DAY, seed).at.0 / DAY)
            .collect();

        assert!(at.len() >= 7, "{at:?}");
        assert!(at.iter().all(|day| (55..=64).contains(day)), "{at:?}");
    }

    #[test]
    fn a_clock_that_steps_decides_at_the_next_look_and_leaves_nothing_behind() {
        let renewal = renewal(0, 90 * DAY, 1);

        assert_eq!(renewal.due(now(0, DAY)), Due::After(LOOK_EVERY));
        assert_eq!(renewal.due(now(1, 4000 * DAY)), Due::Now);
        assert_eq!(renewal.due(now(2, 0)), Due::After(LOOK_EVERY));
    }

    #[test]
    fn failures_put_it_off_on_the_monotonic_clock_and_never_for_long() {
        let mut renewal = renewal(0, 90 * DAY, 1);
        let mut at = 0;
        for _ in 0..20 {
            assert_eq!(renewal.due(now(at, 80 * DAY)), Due::Now);
            renewal.handle_failed(now(at, 0).instant);
            assert!(matches!(renewal.due(now(at, 80 * DAY)), Due::After(_)));
            at += 3_600_000;
        }
    }

    #[test]
    fn a_certificate_of_a_former_authority_is_renewed_now_and_after_a_failure_a_little_later() {
        let mut renewal = renewal(0, 90 * DAY, 1);

        renewal.handle_superseded();

        assert_eq!(renewal.due(now(0, DAY)), Due::Now);
        renewal.handle_failed(now(0, DAY).instant);
        assert!(matches!(renewal.due(now(1, DAY)), Due::After(_)));
        assert_eq!(renewal.due(now(60_000, DAY)), Due::Now);
    }

    proptest! {
        /// Whatever its life, at least a quarter of it is left when it is renewed, and three tries fit in.
        #[test]
        fn a_renewal_leaves_time_for_failures(life in 5_000..10_000 * DAY, seed in any::<u64>()) {
            let mut renewal = renewal(1_000, 1_000 + life, seed);
            let mut at = renewal.at.0;
            prop_assert!(at > 1_000 + life / 2 && at < 1_000 + life * 3 / 4);

            for _ in 0..3 {
                prop_assert_eq!(renewal.due(now(at, at)), Due::Now);
                renewal.handle_failed(now(at, at).instant);
                while let Due::After(pause) = renewal.due(now(at, at)) {
                    at += u64::try_from(pause.as_millis()).unwrap().max(1);
                }
            }

            prop_assert_eq!(renewal.validity().standing(UnixMillis(at)), Standing::Valid);
        }
    }
}
