//! Bytes in JSON: a string if they are text, else `{"base64": "…"}`; nothing is lost either way.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::types::Encoding;

/// A key or a value. In JSON `"text"`, or `{"base64": "AAEC"}` for bytes that are no text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Blob(pub Bytes);

/// Why a text is not base64. The caller wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not base64 (RFC 4648 §4, with padding): {0}")]
pub struct NotBase64(#[from] base64::DecodeError);

impl Blob {
    /// Takes bytes from the way somebody wrote them.
    pub fn parse(text: &str, encoding: Encoding) -> Result<Self, NotBase64> {
        match encoding {
            Encoding::Utf8 => Ok(Self::from(text)),
            Encoding::Base64 => Ok(Self(STANDARD.decode(text)?.into())),
        }
    }

    /// Returns the text, or nothing if these bytes are not printable text.
    pub fn as_text(&self) -> Option<&str> {
        let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        std::str::from_utf8(&self.0)
            .ok()
            .filter(|text| text.chars().all(printable))
    }

    /// Returns the bytes in base64.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// The two ways to write bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Base64(InBase64),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InBase64 {
    base64: String,
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_text() {
            Some(text) => serializer.serialize_str(text),
            None => InBase64 {
                base64: self.to_base64(),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer) {
            Ok(Written::Text(text)) => Ok(Self(text.into())),
            Ok(Written::Base64(written)) => {
                Self::parse(&written.base64, Encoding::Base64).map_err(de::Error::custom)
            }
            Err(_neither) => Err(de::Error::custom(
                "bytes are expected: a string, or {\"base64\": \"…\"}",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_stays_text_and_the_rest_becomes_base64() {
        let text = Blob::from("grüße\n");
        let binary = Blob(Bytes::from_static(&[0, 0, 0, 1]));

        assert_eq!(serde_json::to_string(&text).unwrap(), r#""grüße\n""#);
        assert_eq!(
            serde_json::to_string(&binary).unwrap(),
            r#"{"base64":"AAAAAQ=="}"#
        );
    }

    #[test]
    fn what_is_not_bytes_is_refused_with_what_was_expected() {
        for json in ["17", r#"{"base64":"AA","x":1}"#, "null"] {
            let refused = serde_json::from_str::<Blob>(json).unwrap_err().to_string();
            assert!(refused.contains("bytes are expected"), "{json}: {refused}");
        }
        let refused = serde_json::from_str::<Blob>(r#"{"base64":"A"}"#).unwrap_err();
        assert!(refused.to_string().contains("not base64"), "{refused}");
    }

    proptest! {
        #[test]
        fn any_bytes_survive_json(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let blob = Blob(bytes.into());

            let back: Blob = serde_json::from_str(&serde_json::to_string(&blob).unwrap()).unwrap();

            prop_assert_eq!(back, blob);
        }
    }
}
