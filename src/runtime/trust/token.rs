//! The join token: it proves to the newcomer which cluster answers, and to the cluster that the newcomer may come.

use std::{fmt, str::FromStr};

use rand::{CryptoRng, RngExt};
use zeroize::Zeroize;

/// What every token of this version begins with.
const PREFIX: &str = "weft-1-";

/// A join token: the SHA-256 of the authority's certificate, and a secret the cluster keeps.
///
/// Its text is `weft-1-<64 hex>-<32 hex>`. Display writes the secret, Debug does not.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The SHA-256 of the certificate of the cluster's authority.
    pub ca_digest: [u8; 32],
    /// What the cluster compares with its own.
    pub secret: [u8; 16],
}

/// Why a text is not a join token. Whoever typed it must look again; no part of it is repeated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing was given.
    #[error("the join token is empty: run `weft token` on a member")]
    Empty,
    /// It is something else.
    #[error("this is not a join token: one begins with `weft-1-`; run `weft token` on a member")]
    Foreign,
    /// Another version of Weft made it.
    #[error(
        "this join token is of version {0}, this program knows version 1: use the cluster's version of weft"
    )]
    Version(u32),
    /// A part of it is missing or follows.
    #[error("the join token has {0} parts after `weft-1-` instead of 2: copy all of it")]
    Parts(usize),
    /// A part has not the length it must have.
    #[error("the join token's {part} has {len} characters instead of {expected}: copy all of it")]
    Length {
        /// Which part.
        part: &'static str,
        /// How long it is.
        len: usize,
        /// How long it should be.
        expected: usize,
    },
    /// A part has a character that is no hexadecimal digit.
    #[error("the join token's {part} has a character that is no hexadecimal digit: copy it again")]
    Digit {
        /// Which part.
        part: &'static str,
    },
}

impl Token {
    /// Makes a token with a new secret for the cluster whose authority has that digest.
    pub fn random(ca_digest: [u8; 32], rng: &mut impl CryptoRng) -> Self {
        Self {
            ca_digest,
            secret: rng.random(),
        }
    }
}

/// Compares two secrets in constant time, so that the time says nothing of how much of a guess was right.
pub fn secrets_match(ours: &[u8; 16], theirs: &[u8; 16]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(ours, theirs).is_ok()
}

impl Drop for Token {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        write_hex(f, &self.ca_digest)?;
        f.write_str("-")?;
        write_hex(f, &self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(")?;
        write_hex(f, &self.ca_digest)?;
        f.write_str(", …)")
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Err(version(text).map_or(TokenError::Foreign, TokenError::Version));
        };
        let parts: Vec<&str> = rest.split('-').collect();
        let &[digest, secret] = parts.as_slice() else {
            return Err(TokenError::Parts(parts.len()));
        };
        Ok(Self {
            ca_digest: read_hex("digest", digest)?,
            secret: read_hex("secret", secret)?,
        })
    }
}

/// Returns the version of a text that looks like a token of another version.
fn version(text: &str) -> Option<u32> {
    let (version, _rest) = text.strip_prefix("weft-")?.split_once('-')?;
    version.parse().ok()
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex<const N: usize>(part: &'static str, text: &str) -> Result<[u8; N], TokenError> {
    if let Some(len) = Some(text.chars().count()).filter(|len| *len != 2 * N) {
        return Err(TokenError::Length {
            part,
            len,
            expected: 2 * N,
        });
    }
    let digits: Option<Vec<u8>> = text.chars().map(hex_digit).collect();
    let digits = digits.ok_or(TokenError::Digit { part })?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(bytes)
}

fn hex_digit(digit: char) -> Option<u8> {
    u8::try_from(digit.to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn a_token_survives_its_text() {
        let token = Token::random([0xab; 32], &mut StdRng::seed_from_u64(1));

        let text = token.to_string();

        assert_eq!(text.len(), "weft-1-".len() + 64 + 1 + 32);
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token));
    }

    #[test]
    fn each_malformation_has_its_own_line() {
        let digest = "ab".repeat(32);
        let secret = "cd".repeat(16);
        let cases = [
            (String::new(), TokenError::Empty),
            ("SWMTKN-1-abc-def".to_owned(), TokenError::Foreign),
            (format!("weft-2-{digest}-{secret}"), TokenError::Version(2)),
            (format!("weft-1-{digest}"), TokenError::Parts(1)),
            (
                format!("weft-1-{digest}-{secret}-{secret}"),
                TokenError::Parts(3),
            ),
            (
                format!("weft-1-{}-{secret}", &digest[1..]),
                length("digest", 63, 64),
            ),
            (
                format!("weft-1-{digest}-{}", &secret[2..]),
                length("secret", 30, 32),
            ),
            (
                format!("weft-1-{}x-{secret}", &digest[1..]),
                TokenError::Digit { part: "digest" },
            ),
            (
                format!("weft-1-{digest}-é{}", &secret[1..]),
                TokenError::Digit { part: "secret" },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Token>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn neither_debug_nor_an_error_repeats_the_secret() {
        let secret = "cd".repeat(16);
        let token: Token = format!("weft-1-{}-{secret}", "ab".repeat(32))
            .parse()
            .unwrap();
        let error = format!("weft-1-{}-{secret}0", "ab".repeat(32))
            .parse::<Token>()
            .unwrap_err();

        assert!(!format!("{token:?}").contains("cdcd"));
        assert!(!error.to_string().contains("cdcd"));
    }

    #[test]
    fn only_equal_secrets_match() {
        assert!(secrets_match(&[7; 16], &[7; 16]));
        assert!(!secrets_match(&[7; 16], &[8; 16]));
    }

    fn length(part: &'static str, len: usize, expected: usize) -> TokenError {
        TokenError::Length {
            part,
            len,
            expected,
        }
    }
}
