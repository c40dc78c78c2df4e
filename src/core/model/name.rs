//! Names, table names, keys and values, each within its limit.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use bincode::{
    BorrowDecode, Decode, Encode,
    de::{BorrowDecoder, Decoder},
    enc::Encoder,
    error::{DecodeError, EncodeError},
};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a name, key or value was refused. The caller must send another; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// It is empty.
    #[error("{what} must not be empty")]
    Empty {
        /// What was too short.
        what: &'static str,
    },
    /// It is longer than its limit.
    #[error("{what} of {len} bytes is too long: at most {limit} are allowed")]
    TooLarge {
        /// What was too long.
        what: &'static str,
        /// How long it is, in bytes.
        len: usize,
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// It has a character that its kind does not allow.
    #[error(
        "{what} may have letters, digits, '_', '.' and '-' only, and must begin with a letter or a digit"
    )]
    Character {
        /// What has the character.
        what: &'static str,
    },
}

fn check_length(what: &'static str, len: usize, limit: usize) -> Result<(), LimitError> {
    if len > limit {
        return Err(LimitError::TooLarge { what, len, limit });
    }
    Ok(())
}

fn check_label(what: &'static str, text: &str, limit: usize) -> Result<(), LimitError> {
    check_length(what, text.len(), limit)?;
    let mut bytes = text.bytes();
    let first = bytes.next().ok_or(LimitError::Empty { what })?;
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !first.is_ascii_alphanumeric() || !bytes.all(inner) {
        return Err(LimitError::Character { what });
    }
    Ok(())
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $limit:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest one, in bytes.
            pub const LEN_MAX: usize = $limit;

            /// Checks the text and returns it as a name.
            pub fn new(text: &str) -> Result<Self, LimitError> {
                check_label($what, text, Self::LEN_MAX)?;
                Ok(Self(text.into()))
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = LimitError;

            fn from_str(text: &str) -> Result<Self, LimitError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }

        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                self.as_str().encode(encoder)
            }
        }

        impl<Context> Decode<Context> for $name {
            fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let text = String::decode(decoder)?;
                Self::new(&text).map_err(|refused| DecodeError::OtherString(refused.to_string()))
            }
        }

        impl<'de, Context> BorrowDecode<'de, Context> for $name {
            fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
                Self::decode(decoder)
            }
        }
    };
}

label!(
    /// A name that a person gave: of a node, a network, an endpoint, a driver. 1 to 63 bytes.
    Name, 63, "a name"
);
label!(
    /// The name of a table in a network. 1 to 63 bytes.
    TableName, 63, "a table name"
);

macro_rules! blob {
    ($(#[$doc:meta])* $name:ident, $least:literal, $limit:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Bytes);

        impl $name {
            /// The shortest one, in bytes.
            pub const LEN_MIN: usize = $least;
            /// The longest one, in bytes.
            pub const LEN_MAX: usize = $limit;

            /// Checks the length and takes the bytes.
            pub fn new(bytes: impl Into<Bytes>) -> Result<Self, LimitError> {
                let bytes = bytes.into();
                check_length($what, bytes.len(), Self::LEN_MAX)?;
                if bytes.len() < Self::LEN_MIN {
                    return Err(LimitError::Empty { what: $what });
                }
                Ok(Self(bytes))
            }

            /// Returns the bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Returns the bytes, shared.
            pub fn into_bytes(self) -> Bytes {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                self.as_bytes().encode(encoder)
            }
        }

        impl<Context> Decode<Context> for $name {
            fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let bytes = Vec::<u8>::decode(decoder)?;
                Self::new(bytes).map_err(|refused| DecodeError::OtherString(refused.to_string()))
            }
        }

        impl<'de, Context> BorrowDecode<'de, Context> for $name {
            fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
                Self::decode(decoder)
            }
        }
    };
}

blob!(
    /// The key of an entry: 1 to 256 bytes, any bytes.
    Key, 1, 256, "a key"
);
blob!(
    /// The value of an entry: at most 64 KiB; an empty value is a value.
    Value, 0, 64 * 1024, "a value"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_to_its_letters_and_its_limit() {
        assert!(Name::new("web-1.example_x").is_ok());
        assert_eq!(Name::new(""), Err(LimitError::Empty { what: "a name" }));
        assert_eq!(
            Name::new("-web"),
            Err(LimitError::Character { what: "a name" })
        );
        assert_eq!(
            Name::new("a/b"),
            Err(LimitError::Character { what: "a name" })
        );
        assert!(matches!(
            Name::new(&"x".repeat(64)),
            Err(LimitError::TooLarge { limit: 63, .. })
        ));
    }

    #[test]
    fn an_empty_value_is_a_value_and_an_empty_key_is_no_key() {
        assert!(Value::new(Bytes::new()).is_ok());
        assert!(Key::new(Bytes::new()).is_err());
    }

    #[test]
    fn a_limit_is_exact() {
        assert!(Key::new(vec![0; 256]).is_ok());
        assert!(Key::new(vec![0; 257]).is_err());
        assert!(Value::new(vec![0; 65_536]).is_ok());
        assert!(Value::new(vec![0; 65_537]).is_err());
    }
}
