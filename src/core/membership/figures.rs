//! The figures of a [`Config`] by name: how each is written, within which bounds it may be set, and what is said of one that
//! is not.

use std::{fmt, str::FromStr, time::Duration};

use super::Config;

/// What a figure is set to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Value {
    /// A time.
    Time(Duration),
    /// How many.
    Count(usize),
    /// Whether.
    Switch(bool),
}

const UNITS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1_000),
    ("h", 60 * 60 * 1_000),
    ("m", 60 * 1_000),
    ("s", 1_000),
    ("ms", 1),
];

impl fmt::Display for Value {
    /// Writes it as it is read: a time in the greatest unit in which it is whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = match self {
            Self::Time(time) => *time,
            Self::Count(count) => return count.fmt(f),
            Self::Switch(on) => return f.write_str(if *on { "on" } else { "off" }),
        };
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let whole = |(_, unit): &&(&str, u64)| millis.is_multiple_of(*unit);
        match UNITS.iter().find(whole) {
            _ if time.is_zero() => f.write_str("0s"),
            Some((name, unit)) if millis > 0 => write!(f, "{}{name}", millis / unit),
            Some(_) | None => write!(f, "{time:?}"),
        }
    }
}

/// Why a figure cannot be set so. The operator wrote it; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FigureError {
    /// It does not say which figure is to be what.
    #[error("{0:?} is not FIGURE=VALUE, for example probe-period=500ms")]
    NoSetting(String),
    /// There is no figure of that name.
    #[error("membership has no figure {0:?}, but {names}", names = names())]
    Unknown(String),
    /// It is not what such a figure is set to.
    #[error("{figure}={given}: {expected} is expected")]
    Malformed {
        /// Which figure.
        figure: &'static str,
        /// What was given.
        given: String,
        /// What may be given.
        expected: &'static str,
    },
    /// It is too little or too much.
    #[error("{figure} may be from {least} to {most}{why}, and not {value}")]
    OutOfBounds {
        /// Which figure.
        figure: &'static str,
        /// What it was to be.
        value: Value,
        /// The least that it may be.
        least: Value,
        /// The most that it may be.
        most: Value,
        /// Which other figure makes a bound narrower, if one does: it follows the bounds.
        why: &'static str,
    },
}

/// A figure's place in a configuration.
enum Slot<'a> {
    Time(&'a mut Duration),
    Count(&'a mut usize),
    Copies(&'a mut u8),
    Switch(&'a mut bool),
}

/// A figure that can be set.
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub what: &'static str,
    /// The least that it may be.
    pub least: Value,
    /// The most that it may be. Other figures can make the bounds narrower: see [`Config::check`].
    pub most: Value,
    slot: fn(&mut Config) -> Slot<'_>,
}

/// Every figure, in the order of [`Config`].
pub static FIGURES: [Figure; 15] = [
    figure(
        "probe-period",
        "how often a member is probed; who does not answer within it is suspected",
        time(ms(20), secs(60)),
        |config| Slot::Time(&mut config.probe_period),
    ),
    figure(
        "probe-timeout",
        "how long to wait for a direct answer before others are asked to probe",
        time(ms(5), secs(30)),
        |config| Slot::Time(&mut config.probe_timeout),
    ),
    figure(
        "indirect-probes",
        "how many others are asked to probe",
        count(1, 16),
        |config| Slot::Count(&mut config.indirect_probes),
    ),
    figure(
        "stream-ping",
        "whether a member that is late is asked on a stream too",
        (Value::Switch(false), Value::Switch(true)),
        |config| Slot::Switch(&mut config.stream_ping),
    ),
    figure(
        "neighbour-silence",
        "how long a neighbour on the ring may be silent before it is probed out of turn",
        time(ms(100), secs(600)),
        |config| Slot::Time(&mut config.neighbour_silence),
    ),
    figure(
        "suspect-for",
        "how long a suspect has to refute",
        time(ms(50), secs(600)),
        |config| Slot::Time(&mut config.suspect_for),
    ),
    figure(
        "gossip-every",
        "how often changes ride to random members, while there are any",
        time(ms(10), secs(10)),
        |config| Slot::Time(&mut config.gossip_every),
    ),
    figure(
        "gossip-to",
        "to how many members changes ride at once",
        count(1, 16),
        |config| Slot::Count(&mut config.gossip_to),
    ),
    figure(
        "copies",
        "how many copies of each datagram are sent",
        count(1, 4),
        |config| Slot::Copies(&mut config.copies),
    ),
    figure(
        "copy-gap-min",
        "how long after a copy the next one goes at the least",
        time(ms(0), ms(500)),
        |config| Slot::Time(&mut config.copy_gap.start),
    ),
    figure(
        "copy-gap-max",
        "how long after a copy the next one goes at the most",
        time(ms(0), ms(500)),
        |config| Slot::Time(&mut config.copy_gap.end),
    ),
    figure(
        "announce-every",
        "how often a random member is asked for members that are not known yet",
        time(secs(1), secs(3_600)),
        |config| Slot::Time(&mut config.announce_every),
    ),
    figure(
        "announce-down-every",
        "how often a random member that is down is asked whether it returned",
        time(ms(100), secs(3_600)),
        |config| Slot::Time(&mut config.announce_down_every),
    ),
    figure(
        "announce-retry",
        "how often known members are asked to answer while nobody is alive",
        time(ms(50), secs(60)),
        |config| Slot::Time(&mut config.announce_retry),
    ),
    figure(
        "remember-down-for",
        "how long a member that is down or has left is remembered",
        time(secs(60), secs(30 * 24 * 3_600)),
        |config| Slot::Time(&mut config.remember_down_for),
    ),
];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn time(least: Duration, most: Duration) -> (Value, Value) {
    (Value::Time(least), Value::Time(most))
}

const fn count(least: usize, most: usize) -> (Value, Value) {
    (Value::Count(least), Value::Count(most))
}

const fn figure(
    name: &'static str,
    what: &'static str,
    (least, most): (Value, Value),
    slot: fn(&mut Config) -> Slot<'_>,
) -> Figure {
    Figure {
        name,
        what,
        least,
        most,
        slot,
    }
}

fn names() -> String {
    FIGURES.each_ref().map(|figure| figure.name).join(", ")
}

impl fmt::Debug for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Figure({})", self.name)
    }
}

impl Figure {
    /// Returns the figure of that name.
    pub fn named(name: &str) -> Result<&'static Self, FigureError> {
        let found = FIGURES.iter().find(|figure| figure.name == name);
        found.ok_or_else(|| FigureError::Unknown(name.to_owned()))
    }

    /// Returns what it is in a configuration.
    pub fn value(&self, config: &Config) -> Value {
        let mut config = config.clone();
        match (self.slot)(&mut config) {
            Slot::Time(time) => Value::Time(*time),
            Slot::Count(count) => Value::Count(*count),
            Slot::Copies(copies) => Value::Count(usize::from(*copies)),
            Slot::Switch(on) => Value::Switch(*on),
        }
    }

    /// Reads a value as a person writes it.
    pub fn read(&self, text: &str) -> Result<Value, FigureError> {
        let (value, expected) = match self.least {
            Value::Time(_) => (read_time(text), "a time, as in 500ms, 2s, 1m, 1h or 1d,"),
            Value::Count(_) => (text.parse().ok().map(Value::Count), "a whole number"),
            Value::Switch(_) => (read_switch(text), "on or off"),
        };
        let value = value.ok_or_else(|| FigureError::Malformed {
            figure: self.name,
            given: text.to_owned(),
            expected,
        })?;
        self.check(value, (self.least, self.most), "")?;
        Ok(value)
    }

    fn check(
        &self,
        value: Value,
        (least, most): (Value, Value),
        why: &'static str,
    ) -> Result<(), FigureError> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(FigureError::OutOfBounds {
            figure: self.name,
            value,
            least,
            most,
            why,
        })
    }
}

fn read_time(text: &str) -> Option<Value> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let millis = number.parse::<u64>().ok()?.checked_mul(*millis)?;
    Some(Value::Time(ms(millis)))
}

fn read_switch(text: &str) -> Option<Value> {
    match text {
        "on" => Some(Value::Switch(true)),
        "off" => Some(Value::Switch(false)),
        _ => None,
    }
}

/// A figure and what it is to be, within its own bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The figure's name.
    pub figure: &'static str,
    /// Its value.
    pub value: Value,
}

impl FromStr for Setting {
    type Err = FigureError;

    fn from_str(text: &str) -> Result<Self, FigureError> {
        let halves = text.split_once('=');
        let (name, value) = halves.ok_or_else(|| FigureError::NoSetting(text.to_owned()))?;
        let figure = Figure::named(name)?;
        Ok(Self {
            figure: figure.name,
            value: figure.read(value)?,
        })
    }
}

impl Config {
    /// Returns the configuration with figures set, if it can be so.
    pub fn with(
        mut self,
        settings: impl IntoIterator<Item = Setting>,
    ) -> Result<Self, FigureError> {
        for Setting { figure, value } in settings {
            match ((Figure::named(figure)?.slot)(&mut self), value) {
                (Slot::Time(slot), Value::Time(time)) => *slot = time,
                (Slot::Count(slot), Value::Count(count)) => *slot = count,
                (Slot::Copies(slot), Value::Count(count)) => {
                    *slot = u8::try_from(count).unwrap_or(u8::MAX);
                }
                (Slot::Switch(slot), Value::Switch(on)) => *slot = on,
                (Slot::Time(_) | Slot::Count(_) | Slot::Copies(_) | Slot::Switch(_), other) => {
                    return Err(FigureError::Malformed {
                        figure,
                        given: other.to_string(),
                        expected: "another kind of value",
                    });
                }
            }
        }
        self.check()?;
        Ok(self)
    }

    /// Returns an error if a figure is out of its bounds, or does not go with another.
    pub fn check(&self) -> Result<(), FigureError> {
        for figure in &FIGURES {
            let (least, most) = (figure.least, figure.most);
            let (least, most, why) = match figure.name {
                "probe-timeout" => (
                    least,
                    Value::Time(self.probe_period / 2),
                    ", half of probe-period",
                ),
                "suspect-for" => (
                    Value::Time(self.probe_timeout),
                    most,
                    ", probe-timeout being the least",
                ),
                "copy-gap-max" => (
                    Value::Time(self.copy_gap.start),
                    most,
                    ", copy-gap-min being the least",
                ),
                _ => (least, most, ""),
            };
            let bounds = (least.max(figure.least), most.min(figure.most));
            figure.check(figure.value(self), bounds, why)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::core::{membership::Profile, model::Mutated};

    const PROFILES: [Profile; 3] = [Profile::Lan, Profile::Wan, Profile::Local];

    fn set(profile: Profile, settings: &[&str]) -> Result<Config, FigureError> {
        let settings: Result<Vec<Setting>, _> = settings.iter().map(|one| one.parse()).collect();
        Config::of(profile).with(settings?)
    }

    #[test]
    fn every_profile_is_within_the_bounds() {
        for profile in PROFILES {
            assert_eq!(Config::of(profile).check(), Ok(()));
            assert_eq!(Config::of(profile).profile, profile);
        }
    }

    #[test]
    fn every_field_is_a_figure_that_is_written_as_it_is_read() {
        // A field that is added does not compile here until it is thought of.
        let Config {
            profile: _,
            probe_period: _,
            neighbour_silence: _,
            probe_timeout: _,
            indirect_probes: _,
            stream_ping: _,
            suspect_for: _,
            gossip_every: _,
            gossip_to: _,
            copies: _,
            copy_gap: _,
            announce_every: _,
            announce_down_every: _,
            announce_retry: _,
            remember_down_for: _,
            mutated: _,
        } = Config::lan();
        let names: BTreeSet<&str> = FIGURES.iter().map(|figure| figure.name).collect();
        assert_eq!(names.len(), FIGURES.len());

        // Each is set to another value, and only it changes.
        for figure in &FIGURES {
            for value in [figure.least, figure.most] {
                let written = value.to_string();
                assert_eq!(figure.read(&written), Ok(value), "{figure:?}");
            }
            let lan = Config::lan();
            let mut changed = lan.clone();
            match (figure.slot)(&mut changed) {
                Slot::Time(time) => *time += ms(1),
                Slot::Count(count) => *count += 1,
                Slot::Copies(copies) => *copies += 1,
                Slot::Switch(on) => *on = !*on,
            }
            for other in &FIGURES {
                let differs = other.value(&changed) != other.value(&lan);
                assert_eq!(differs, other.name == figure.name);
            }
            let setting = format!("{}={}", figure.name, figure.value(&changed));
            assert_eq!(set(Profile::Lan, &[&setting]), Ok(changed));
        }
    }

    #[test]
    fn figures_that_are_not_set_are_those_of_the_profile() {
        let set = set(Profile::Wan, &["probe-period=3s", "copies=1"]).unwrap();

        let expected = Config {
            probe_period: secs(3),
            copies: 1,
            ..Config::wan()
        };
        assert_eq!(set, expected);
        assert_eq!(set.mutated, Mutated::default());
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_figure_the_value_and_the_bounds() {
        for (given, said) in [
            (
                "probe-period=0ms",
                "probe-period may be from 20ms to 1m, and not 0s",
            ),
            (
                "probe-period=2h",
                "probe-period may be from 20ms to 1m, and not 2h",
            ),
            ("copies=9", "copies may be from 1 to 4, and not 9"),
            ("gossip-to=0", "gossip-to may be from 1 to 16, and not 0"),
            (
                "remember-down-for=31d",
                "remember-down-for may be from 1m to 30d, and not 31d",
            ),
            (
                "probe-timeout=300ms",
                "probe-timeout may be from 5ms to 225ms, half of probe-period,, and not 300ms",
            ),
            (
                "suspect-for=100ms",
                "suspect-for may be from 150ms to 10m, probe-timeout being the least,, and not 100ms",
            ),
            (
                "copy-gap-max=1ms",
                "copy-gap-max may be from 5ms to 500ms, copy-gap-min being the least,, and not 1ms",
            ),
            (
                "suspect-for=fast",
                "suspect-for=fast: a time, as in 500ms, 2s, 1m, 1h or 1d, is expected",
            ),
            ("copies=two", "copies=two: a whole number is expected"),
            ("stream-ping=yes", "stream-ping=yes: on or off is expected"),
            (
                "probe-period",
                "\"probe-period\" is not FIGURE=VALUE, for example probe-period=500ms",
            ),
        ] {
            let refused = set(Profile::Lan, &[given]).unwrap_err();

            assert_eq!(refused.to_string(), said.replace(",,", ","), "{given}");
        }
        let unknown = set(Profile::Lan, &["period=1s"]).unwrap_err().to_string();
        assert!(unknown.starts_with("membership has no figure \"period\", but probe-period, "));
        assert!(
            "probe-period=99999999999999999999s"
                .parse::<Setting>()
                .is_err()
        );
    }
}
