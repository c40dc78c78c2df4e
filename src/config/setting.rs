//! Single settings: what a person may write for each, and what is refused.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};

use super::{DockerMode, PORT};
pub use crate::core::membership::Profile;
use crate::core::wire::versions::{NEWEST, OLDEST};

/// The port of DNS.
const DNS_PORT: u16 = 53;

/// A secret that does not show itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What carries the packets of overlay networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// The kernel; a node on which it cannot does not start.
    Kernel,
    /// Nothing: the node takes part in everything else.
    None,
}

/// Why a setting was refused. The operator wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// It is none of the words.
    #[error("{given:?} is none of {words}")]
    Word {
        /// What was given.
        given: String,
        /// What may be given.
        words: &'static str,
    },
    /// It is no address.
    #[error("{0:?} is no address: HOST or HOST:PORT is expected")]
    Seed(String),
    /// It is no address of a resolver.
    #[error("{0:?} is no resolver: an IP, or IP:PORT, is expected")]
    Resolver(String),
    /// It is no time within the bounds.
    #[error(
        "{given:?} is no time from {least} to {most}: a whole number and s, m, h or d are expected, for example 90d"
    )]
    Time {
        /// What was given.
        given: String,
        /// The shortest that may be given.
        least: &'static str,
        /// The longest that may be given.
        most: &'static str,
    },
    /// It is no version of the wire that this program speaks.
    #[error("{0:?} is no version of the wire: this program speaks {OLDEST} to {NEWEST}")]
    WireVersion(String),
    /// It is no address that others could reach.
    #[error("{0:?} is no address that others could reach: an IP, or IP:PORT, is expected")]
    Advertise(String),
}

impl FromStr for LogFormat {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(SettingError::Word {
                given: text.to_owned(),
                words: "text, json",
            }),
        }
    }
}

impl FromStr for DockerMode {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(SettingError::Word {
                given: text.to_owned(),
                words: "auto, on, off",
            }),
        }
    }
}

impl FromStr for Carrier {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "kernel" => Ok(Self::Kernel),
            "none" => Ok(Self::None),
            _ => Err(SettingError::Word {
                given: text.to_owned(),
                words: "kernel, none",
            }),
        }
    }
}

impl FromStr for Profile {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "lan" => Ok(Self::Lan),
            "wan" => Ok(Self::Wan),
            "local" => Ok(Self::Local),
            _ => Err(SettingError::Word {
                given: text.to_owned(),
                words: "lan, wan, local",
            }),
        }
    }
}

/// Where others reach us: an address, with a port if it differs from the one we listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertise {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: Option<u16>,
}

impl Advertise {
    /// Returns the whole address, given the port that we really listen on.
    pub fn with_port(self, listening: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(listening))
    }
}

impl FromStr for Advertise {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let refused = || SettingError::Advertise(text.to_owned());
        let advertise = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => Self { ip, port: None },
            (Err(_), Ok(address)) => Self {
                ip: address.ip(),
                port: Some(address.port()),
            },
            (Err(_), Err(_)) => return Err(refused()),
        };
        if advertise.ip.is_unspecified() || advertise.ip.is_multicast() {
            return Err(refused());
        }
        Ok(advertise)
    }
}

/// How long a certificate lives that this node signs as the leader: 5 s to 3650 d.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateLife(pub Duration);

/// The newest version of the wire that this node speaks: one of those that this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireVersion(pub u8);

impl FromStr for WireVersion {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let version = text.parse().ok();
        version
            .filter(|version| (OLDEST..=NEWEST).contains(version))
            .map(Self)
            .ok_or_else(|| SettingError::WireVersion(text.to_owned()))
    }
}

/// How long a datagram key seals while this node leads: 5 s to 365 d.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRotation(pub Duration);

/// For how long a DNS answer may be kept: 0 s to 1 h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsTtl(pub Duration);

const LIFE_MIN: (&str, u64) = ("5s", 5);
const DNS_TTL_MIN: (&str, u64) = ("0s", 0);
const DNS_TTL_MAX: (&str, u64) = ("1h", 3600);
const CERTIFICATE_LIFE_MAX: (&str, u64) = ("3650d", 3650 * DAY);
const KEY_ROTATION_MAX: (&str, u64) = ("365d", 365 * DAY);
const DAY: u64 = 24 * 3600;

impl FromStr for CertificateLife {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        time(text, LIFE_MIN, CERTIFICATE_LIFE_MAX).map(Self)
    }
}

impl FromStr for KeyRotation {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        time(text, LIFE_MIN, KEY_ROTATION_MAX).map(Self)
    }
}

impl FromStr for DnsTtl {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        time(text, DNS_TTL_MIN, DNS_TTL_MAX).map(Self)
    }
}

fn time(
    text: &str,
    (least, shortest): (&'static str, u64),
    (most, longest): (&'static str, u64),
) -> Result<Duration, SettingError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(DAY),
        _ => None,
    };
    let seconds = unit.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
    match seconds.filter(|seconds| (shortest..=longest).contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err(SettingError::Time {
            given: text.to_owned(),
            least,
            most,
        }),
    }
}

/// Who answers DNS queries: an address, on port 53 if no other is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolver(pub SocketAddr);

impl FromStr for Resolver {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let with_port = || text.parse().ok();
        let bare = |ip| SocketAddr::new(ip, DNS_PORT);
        let parsed = text.parse().ok().map(bare).or_else(with_port);
        parsed
            .map(Self)
            .ok_or_else(|| SettingError::Resolver(text.to_owned()))
    }
}

/// A member to join through: a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Seed {
    /// Looks the host up. It blocks.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl FromStr for Seed {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let refused = || SettingError::Seed(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self {
                host: address.ip().to_string(),
                port: address.port(),
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some(_) if text.parse::<IpAddr>().is_ok() => (text, PORT),
            Some((host, port)) => (host, port.parse().map_err(|_no_port| refused())?),
            None => (text, PORT),
        };
        let is_ip = host.parse::<IpAddr>().is_ok();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || port == 0 || !(is_ip || host.chars().all(fits)) {
            return Err(refused());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

macro_rules! deserialize_from_str {
    ($($setting:ty),*) => {
        $(impl<'de> Deserialize<'de> for $setting {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        })*
    };
}

deserialize_from_str!(
    Advertise,
    CertificateLife,
    DnsTtl,
    KeyRotation,
    Resolver,
    Seed,
    WireVersion
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_nobody_can_reach_is_not_advertised() {
        for text in ["0.0.0.0", "[::]:1", "239.0.0.1", "node1", ""] {
            assert!(text.parse::<Advertise>().is_err(), "{text}");
        }
        let advertise: Advertise = "192.0.2.1".parse().unwrap();
        assert_eq!(advertise.with_port(7).to_string(), "192.0.2.1:7");
    }

    #[test]
    fn a_life_has_a_unit_and_bounds() {
        for (text, seconds) in [("5s", 5), ("90m", 5400), ("12h", 43_200), ("90d", 90 * DAY)] {
            let expected = Ok(CertificateLife(Duration::from_secs(seconds)));
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in [
            "",
            "s",
            "4s",
            "90",
            "3651d",
            "1w",
            "-1d",
            "99999999999999999999d",
            "9é",
        ] {
            assert!(text.parse::<CertificateLife>().is_err(), "{text}");
        }
        assert!("366d".parse::<KeyRotation>().is_err());
        for (text, seconds) in [("0s", 0), ("60m", 3600)] {
            assert_eq!(text.parse(), Ok(DnsTtl(Duration::from_secs(seconds))));
        }
        let refused = "2h".parse::<DnsTtl>().unwrap_err().to_string();
        assert!(refused.contains("from 0s to 1h"), "{refused}");
    }

    #[test]
    fn a_seed_is_a_host_with_or_without_a_port() {
        for (text, expected) in [
            ("node1", "node1:9338"),
            ("node1:1", "node1:1"),
            ("10.0.0.1", "10.0.0.1:9338"),
            ("::1", "[::1]:9338"),
            ("[::1]:5", "[::1]:5"),
        ] {
            let seed: Seed = text.parse().unwrap();
            assert_eq!(seed.to_string(), expected);
        }
        for text in ["", ":1", "a:", "a:0", "a:99999", "a b", "http://a:1"] {
            assert!(text.parse::<Seed>().is_err(), "{text}");
        }
    }
}
