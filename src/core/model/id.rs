//! Ids: small values that name a thing and are never reused for another.

use std::{fmt, str::FromStr};

use bincode::{Decode, Encode};
use rand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not an id. The caller wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: {digits} hexadecimal digits are expected")]
pub struct IdError {
    what: &'static str,
    digits: usize,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $digits:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub $int);

        impl $name {
            /// Draws a new one at random.
            pub fn random(rng: &mut impl Rng) -> Self {
                Self(rand::RngExt::random(rng))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:0", $digits, "x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = IdError { what: $what, digits: $digits };
                if text.len() != $digits || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(error);
                }
                <$int>::from_str_radix(text, 16).map(Self).map_err(|_out_of_range| error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// A node: random, made once and kept on disk. Written as 16 hexadecimal digits.
    NodeId, u64, 16, "a node id"
);
hex_id!(
    /// A cluster: random, made by `weft init` and bound into every datagram. Written as 32 hexadecimal digits.
    ClusterId, u128, 32, "a cluster id"
);
hex_id!(
    /// An endpoint of a network. Written as 32 hexadecimal digits.
    EndpointId, u128, 32, "an endpoint id"
);

impl NodeId {
    /// The owner of the cluster log: no node, but what Raft has agreed.
    pub const CLUSTER: Self = Self(0);
}

/// A number the allocator gave to a network; never reused. 0 is the cluster scope, which every node carries.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NetworkId(pub u32);

impl NetworkId {
    /// The cluster scope: attachments, the cluster log, who leads.
    pub const CLUSTER: Self = Self(0);
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which life of a node's logs: the number of the boot that began it. A start that cannot prove that no sequence number was
/// lost begins a new one.
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
pub struct Generation(pub u32);

impl Generation {
    /// Returns the generation that a boot begins.
    pub fn begun_by(boot: Boot) -> Self {
        Self(boot.0)
    }

    /// Returns the lowest generation that a later boot than `boot` can begin.
    pub fn begun_after(boot: Boot) -> Self {
        Self(boot.0.saturating_add(1))
    }
}

/// Which start of the program: grows with every start, even when the disk was restored from a backup.
///
/// **Invariant:** never used twice by one node, or a datagram key would meet a nonce twice.
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
pub struct Boot(pub u32);

impl Boot {
    /// Returns the boot that follows `last`: at least the wall clock's seconds, so a restored disk does not go back.
    pub fn after(last: Self, unix_seconds: u64) -> Self {
        let seconds = u32::try_from(unix_seconds).unwrap_or(u32::MAX);
        Self(last.0.saturating_add(1).max(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = NodeId(0xabc);

        assert_eq!(id.to_string(), "0000000000000abc");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn a_text_that_is_no_id_is_refused() {
        for text in [
            "",
            "abc",
            "+000000000000abc",
            "00000000000000000abc",
            "000000000000xabc",
        ] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_boot_never_goes_back_when_the_clock_does() {
        let boot = Boot::after(Boot(2_000_000_000), 5);

        assert_eq!(boot, Boot(2_000_000_001));
    }
}
