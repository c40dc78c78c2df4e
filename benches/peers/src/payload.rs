//! What is written: the number of its round, then letters, which compress as badly as an endpoint's record does.

/// How long it is.
pub const LEN: usize = 200;
/// How many of its bytes are the round's number.
const NUMBER_LEN: usize = 8;
/// 64 letters, so that six bits make one.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Returns what is written in a round.
pub fn payload(round: u64) -> String {
    let mut chance = Chance::new(round);
    let mut text = format!("{round:0NUMBER_LEN$}");
    while text.len() < LEN {
        text.push(char::from(LETTERS[(chance.bits() >> 58) as usize]));
    }
    text
}

/// Returns the number of the round in which this was written.
pub fn round(payload: &[u8]) -> Option<u64> {
    let number = payload.get(..NUMBER_LEN)?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Chance that is the same in every run: SplitMix64 (Steele et al., 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins anew.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns a number from 0 up to 1.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_of_which_round_it_is() {
        let written = payload(42);

        assert_eq!(written.len(), LEN);
        assert_eq!(round(written.as_bytes()), Some(42));
    }

    #[test]
    fn what_is_no_payload_is_of_no_round() {
        assert_eq!(round(b"short"), None);
        assert_eq!(round(b"not-a-number-at-all"), None);
    }
}
