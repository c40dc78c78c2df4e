//! Labels: what an operator says of a node, for people and for who places things (`zone=a`).

use std::{collections::BTreeMap, fmt, str::FromStr};

use bincode::{
    BorrowDecode, Decode, Encode,
    de::{BorrowDecoder, Decoder},
    error::DecodeError,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest key and the longest value, in bytes; and how many labels a node has at most.
const KEY_MAX: usize = 63;
const VALUE_MAX: usize = 63;
const LABELS_MAX: usize = 32;

/// Why labels were refused. Their author must write others; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// It has no `=`.
    #[error("label {0:?} is not KEY=VALUE")]
    NoValue(String),
    /// It neither sets nor removes a label.
    #[error("{0:?} is neither KEY=VALUE, which sets a label, nor KEY-, which removes one")]
    NoChange(String),
    /// The key is no key.
    #[error(
        "{0:?} cannot be a label's key: that has 1 to {KEY_MAX} letters, digits, '_', '.', '/' and '-', and begins and ends with a letter or a digit"
    )]
    Key(String),
    /// The value is no value.
    #[error(
        "{value:?} cannot be the value of label {key}: that has at most {VALUE_MAX} letters, digits, '_', '.', '/', ':', '+', '@' and '-'"
    )]
    Value {
        /// The label's key.
        key: String,
        /// Its value.
        value: String,
    },
    /// There are too many of them.
    #[error("{0} labels are too many: a node has at most {LABELS_MAX}")]
    TooMany(usize),
}

/// One label: a key and its value, which may be empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    key: String,
    value: String,
}

impl Label {
    /// Checks both and returns the label.
    pub fn new(key: &str, value: &str) -> Result<Self, LabelError> {
        check_key(key)?;
        let fits = |b: u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b':' | b'+' | b'@' | b'-')
        };
        if value.len() > VALUE_MAX || !value.bytes().all(fits) {
            return Err(LabelError::Value {
                key: key.to_owned(),
                value: value.to_owned(),
            });
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        match text.split_once('=') {
            Some((key, value)) => Self::new(key, value),
            None => Err(LabelError::NoValue(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A change of one label: `KEY=VALUE` sets it, `KEY-` removes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LabelChange {
    /// It has this value from now on.
    Set(Label),
    /// There is no label of this key any more, if there was one.
    Remove(String),
}

impl FromStr for LabelChange {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        if text.contains('=') {
            return Ok(Self::Set(text.parse()?));
        }
        let refused = || LabelError::NoChange(text.to_owned());
        let key = text.strip_suffix('-').ok_or_else(refused)?;
        check_key(key)?;
        Ok(Self::Remove(key.to_owned()))
    }
}

impl fmt::Display for LabelChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(Label { key, value }) => write!(f, "{key}={value}"),
            Self::Remove(key) => write!(f, "{key}-"),
        }
    }
}

impl Serialize for LabelChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LabelChange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The labels of a node, by key: at most [`Self::MAX`].
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// How many a node has at most.
    pub const MAX: usize = LABELS_MAX;

    /// Takes labels; of two with one key the later one counts.
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Result<Self, LabelError> {
        let labels = labels.into_iter();
        let labels = labels.map(|Label { key, value }| (key, value));
        Self::checked(labels.collect())
    }

    fn checked(labels: BTreeMap<String, String>) -> Result<Self, LabelError> {
        if labels.len() > LABELS_MAX {
            return Err(LabelError::TooMany(labels.len()));
        }
        for (key, value) in &labels {
            Label::new(key, value)?;
        }
        Ok(Self(labels))
    }

    /// Returns the value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns each key and its value, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the labels as they are after these changes, one after the other.
    pub fn after(&self, changes: &[LabelChange]) -> Result<Self, LabelError> {
        let mut labels = self.0.clone();
        for change in changes {
            match change {
                LabelChange::Set(Label { key, value }) => {
                    labels.insert(key.clone(), value.clone());
                }
                LabelChange::Remove(key) => {
                    labels.remove(key);
                }
            }
        }
        Self::checked(labels)
    }

    /// Returns these labels and, where there is room and no label of the key, those `below`.
    pub fn over(mut self, below: &Self) -> Self {
        for (key, value) in &below.0 {
            if self.0.len() < LABELS_MAX {
                let here = self.0.entry(key.clone());
                here.or_insert_with(|| value.clone());
            }
        }
        self
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        f.pad(&words.join(","))
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::checked(BTreeMap::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl<Context> Decode<Context> for Labels {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let labels = BTreeMap::<String, String>::decode(decoder)?;
        Self::checked(labels).map_err(|refused| DecodeError::OtherString(refused.to_string()))
    }
}

impl<'de, Context> BorrowDecode<'de, Context> for Labels {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

fn check_key(key: &str) -> Result<(), LabelError> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
    let ends = [key.bytes().next(), key.bytes().next_back()];
    let ends_fit = ends.iter().flatten().all(u8::is_ascii_alphanumeric);
    if key.is_empty() || key.len() > KEY_MAX || !ends_fit || !key.bytes().all(inner) {
        return Err(LabelError::Key(key.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Labels {
        let parsed = texts.iter().map(|text| text.parse::<Label>().unwrap());
        Labels::new(parsed).unwrap()
    }

    fn changes(texts: &[&str]) -> Vec<LabelChange> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_label_is_a_key_and_a_value_within_their_letters_and_limits() {
        for text in [
            "zone=a",
            "a=",
            "topology.example/zone=eu-1:a",
            &format!("k={}", "v".repeat(63)),
        ] {
            assert!(text.parse::<Label>().is_ok(), "{text}");
        }
        let refused = |text: &str| text.parse::<Label>().unwrap_err().to_string();
        assert_eq!(refused("zone"), "label \"zone\" is not KEY=VALUE");
        for key in ["", "-zone", "zone.", "zo ne", "zöne", &"k".repeat(64)] {
            let what = refused(&format!("{key}=a"));
            assert!(what.contains("cannot be a label's key"), "{what}");
        }
        for value in ["a b", "a,b", "ä", &"v".repeat(64)] {
            let what = refused(&format!("zone={value}"));
            assert!(what.contains("cannot be the value of label zone"), "{what}");
        }
    }

    #[test]
    fn changes_set_and_remove_and_may_be_repeated() {
        let before = labels(&["zone=a", "rack=7"]);
        let changed = changes(&["zone=b", "rack-", "disk=ssd"]);

        let after = before.after(&changed).unwrap();

        assert_eq!(after.to_string(), "disk=ssd,zone=b");
        assert_eq!(after.after(&changed), Ok(after));
        let neither = "zone".parse::<LabelChange>();
        assert_eq!(neither, Err(LabelError::NoChange("zone".to_owned())));
    }

    #[test]
    fn one_label_too_many_is_refused_wherever_it_comes_from() {
        let many: BTreeMap<String, String> = (0..=Labels::MAX)
            .map(|number| (format!("k{number}"), String::new()))
            .collect();
        let refused = format!("{} labels are too many: a node has at most 32", many.len());

        let json = serde_json::to_string(&many).unwrap();
        let parsed = serde_json::from_str::<Labels>(&json).unwrap_err();
        let labels = many.keys().map(|key| Label::new(key, "").unwrap());

        assert_eq!(parsed.to_string(), refused);
        assert_eq!(Labels::new(labels), Err(LabelError::TooMany(many.len())));
    }

    #[test]
    fn labels_lie_over_others_as_far_as_there_is_room() {
        let above = labels(&["zone=a"]);

        assert_eq!(
            above.clone().over(&labels(&["zone=b", "rack=7"])),
            labels(&["rack=7", "zone=a"])
        );
        let numbered =
            (0..Labels::MAX).map(|number| Label::new(&format!("k{number}"), "").unwrap());
        let many = Labels::new(numbered).unwrap();
        assert_eq!(above.over(&many).iter().count(), Labels::MAX);
    }
}
