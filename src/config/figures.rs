//! The figures of membership that were set: on the command line `NAME=VALUE`, in a file a table.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};

use crate::core::membership::{self, FigureError, Profile, Setting, Value};

/// The figures that were set; the profile gives the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures(BTreeMap<&'static str, Value>);

/// A value as a file may write it.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a text, a whole number, true or false is expected"
)]
enum Written {
    Switch(bool),
    Count(u64),
    Text(String),
}

impl Written {
    fn text(self) -> String {
        match self {
            Self::Switch(on) => if on { "on" } else { "off" }.to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl<'de> Deserialize<'de> for Figures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written: BTreeMap<String, Written> = BTreeMap::deserialize(deserializer)?;
        let settings = written
            .into_iter()
            .map(|(name, value)| format!("{name}={}", value.text()).parse());
        settings
            .collect::<Result<_, FigureError>>()
            .map_err(de::Error::custom)
    }
}

impl FromIterator<Setting> for Figures {
    /// Of a figure that is set twice, the last counts.
    fn from_iter<I: IntoIterator<Item = Setting>>(settings: I) -> Self {
        let set = settings.into_iter();
        Self(set.map(|set| (set.figure, set.value)).collect())
    }
}

impl Figures {
    /// Returns what `self` sets, and of the other figures what `lower` sets.
    pub(super) fn over(self, lower: Self) -> Self {
        let mut all = lower.0;
        all.extend(self.0);
        Self(all)
    }

    /// Returns a profile with these figures set.
    pub(super) fn of(&self, profile: Profile) -> Result<membership::Config, FigureError> {
        let set = self.0.iter();
        let settings = set.map(|(&figure, &value)| Setting { figure, value });
        membership::Config::of(profile).with(settings)
    }
}
