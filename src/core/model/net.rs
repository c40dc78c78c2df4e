//! Addresses of the data path: MACs, VNIs, VTEPs, prefixes.

use std::{fmt, net::IpAddr, str::FromStr};

use bincode::{
    BorrowDecode, Decode, Encode,
    de::{BorrowDecoder, Decoder},
    enc::Encoder,
    error::{DecodeError, EncodeError},
};
use ipnet::IpNet;
use rand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A VXLAN network identifier: 24 bits (RFC 7348 §5), zero left unused.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Vni(u32);

impl Vni {
    /// The greatest VNI.
    pub const MAX: Self = Self(0x00ff_ffff);

    /// Returns the VNI, or nothing if `raw` is zero or needs more than 24 bits.
    pub fn new(raw: u32) -> Option<Self> {
        (1..=Self::MAX.0).contains(&raw).then_some(Self(raw))
    }

    /// Returns the number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version of IP that an address is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, the older first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Where a VXLAN tunnel ends: a node's address on the underlay.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Vtep(pub IpAddr);

/// A MAC address. Written as `02:42:0a:00:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Mac(pub [u8; 6]);

/// Why a text is not a MAC address. The caller wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: six pairs of hexadecimal digits, parted by colons, are expected")]
pub struct MacError;

impl Mac {
    /// Draws a locally administered unicast address (IEEE 802, bits 0 and 1 of the first octet), not derived from an IP.
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut octets: [u8; 6] = rand::RngExt::random(rng);
        octets[0] = (octets[0] & 0b1111_1100) | 0b10;
        Self(octets)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or(MacError)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_no_number| MacError)?;
        }
        if parts.next().is_some() {
            Err(MacError)
        } else {
            Ok(Self(octets))
        }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// An IP prefix, or an address with its prefix length, with our codec's derive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prefix(pub IpNet);

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Encode for Prefix {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.0.addr(), self.0.prefix_len()).encode(encoder)
    }
}

impl<Context> Decode<Context> for Prefix {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (address, length) = <(IpAddr, u8)>::decode(decoder)?;
        IpNet::new(address, length)
            .map(Self)
            .map_err(|_too_long| DecodeError::Other("a prefix longer than its address"))
    }
}

impl<'de, Context> BorrowDecode<'de, Context> for Prefix {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_survives_its_text() {
        let mac = Mac([2, 0x42, 10, 0, 0, 0xff]);

        assert_eq!(mac.to_string(), "02:42:0a:00:00:ff");
        assert_eq!("02:42:0a:00:00:ff".parse(), Ok(mac));
    }

    #[test]
    fn a_text_that_is_no_mac_is_refused() {
        for text in [
            "",
            "02:42:0a:00:00",
            "02:42:0a:00:00:ff:01",
            "2:42:0a:00:00:ff",
            "02:42:0a:00:00:fg",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(MacError), "{text}");
        }
    }

    #[test]
    fn a_vni_has_24_bits_and_is_not_zero() {
        assert_eq!(Vni::new(0), None);
        assert_eq!(Vni::new(0x0100_0000), None);
        assert_eq!(Vni::new(0x00ff_ffff), Some(Vni::MAX));
    }
}
