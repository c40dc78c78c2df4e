//! What a daemon is told: file, environment and flags → one checked [`Config`].
//!
//! Precedence: flags, then environment, then file, then defaults. The command line reads flags and environment into one
//! [`Layer`], a TOML file into another.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de};

use crate::core::model::{LimitError, Name};

/// The port of everything, unless told otherwise: "weft" on a keypad.
pub const PORT: u16 = 9338;
/// The longest configuration file, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

/// Why a configuration was refused. The operator must change it; nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is longer than a configuration would be.
    #[error("the configuration {0} is longer than {FILE_MAX} bytes: it is some other file")]
    TooLong(PathBuf),
    /// The file does not say what a configuration may say.
    #[error("{path}:{line}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The host's name is no name for a node.
    #[error("the host's name {host:?} cannot be a node's ({source}): give one with --name")]
    HostName {
        /// The host's name.
        host: String,
        /// What is wrong with it.
        source: LimitError,
    },
}

/// One source of settings; what it does not say is left to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layer {
    /// The node's name.
    #[serde(default)]
    pub name: Option<Name>,
    /// Where to listen, UDP and TCP.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Where others reach us, if that is not where we listen.
    #[serde(default)]
    pub advertise: Option<Advertise>,
    /// Where the node keeps its state.
    #[serde(default)]
    pub data_dir: Option<PathBuf>,
    /// The control API's socket.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Members to join through.
    #[serde(default)]
    pub join: Option<Vec<Seed>>,
    /// The join token.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A file with the join token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// What to log, as `tracing` filters it.
    #[serde(default)]
    pub log: Option<String>,
    /// How to write the log.
    #[serde(default)]
    pub log_format: Option<LogFormat>,
    /// How patient membership is.
    #[serde(default)]
    pub profile: Option<Profile>,
    /// Where to answer for names, UDP and TCP.
    #[serde(default)]
    pub dns: Option<SocketAddr>,
    /// The Docker engine's plugin socket.
    #[serde(default)]
    pub docker_plugin: Option<PathBuf>,
    /// Where driver plugins are looked for, if not where Docker does.
    #[serde(default)]
    pub plugin_dir: Option<PathBuf>,
}

impl Layer {
    /// Reads a TOML file.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_MAX {
            return Err(ConfigError::TooLong(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::from_toml(path, &text)
    }

    fn from_toml(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let before = error
                .span()
                .and_then(|span| text.get(..span.start))
                .unwrap_or_default();
            ConfigError::Malformed {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                what: error.message().to_owned(),
            }
        })
    }

    /// Returns what `self` says, and where it says nothing, what `lower` says.
    pub fn over(self, lower: Self) -> Self {
        // A token and a file with one are one setting: either here replaces both of the lower layer.
        let (token, token_file) = match (self.token, self.token_file) {
            (None, None) => (lower.token, lower.token_file),
            ours => ours,
        };
        Self {
            name: self.name.or(lower.name),
            listen: self.listen.or(lower.listen),
            advertise: self.advertise.or(lower.advertise),
            data_dir: self.data_dir.or(lower.data_dir),
            socket: self.socket.or(lower.socket),
            join: self.join.or(lower.join),
            token,
            token_file,
            log: self.log.or(lower.log),
            log_format: self.log_format.or(lower.log_format),
            profile: self.profile.or(lower.profile),
            dns: self.dns.or(lower.dns),
            docker_plugin: self.docker_plugin.or(lower.docker_plugin),
            plugin_dir: self.plugin_dir.or(lower.plugin_dir),
        }
    }
}

/// What a daemon is told, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node's name.
    pub name: Name,
    /// Whether somebody chose the name, or it is the host's.
    pub is_name_chosen: bool,
    /// Where to listen, UDP and TCP.
    pub listen: SocketAddr,
    /// Where others reach us, if that is not where we listen.
    pub advertise: Option<Advertise>,
    /// Where the node keeps its state.
    pub data_dir: PathBuf,
    /// The control API's socket.
    pub socket: PathBuf,
    /// Members to join through.
    pub join: Vec<Seed>,
    /// The join token.
    pub token: Option<Secret>,
    /// A file with the join token; the founder writes it.
    pub token_file: Option<PathBuf>,
    /// What to log.
    pub log: String,
    /// How to write the log.
    pub log_format: LogFormat,
    /// How patient membership is.
    pub profile: Profile,
    /// Where to answer for names; nowhere if not told.
    pub dns: Option<SocketAddr>,
    /// The Docker engine's plugin socket; none if not told.
    pub docker_plugin: Option<PathBuf>,
    /// Where driver plugins are looked for, if not where Docker does.
    pub plugin_dir: Option<PathBuf>,
}

impl Config {
    /// Fills in what no layer says.
    pub fn resolve(layer: Layer, host: &Host) -> Result<Self, ConfigError> {
        let is_name_chosen = layer.name.is_some();
        let name = match layer.name {
            Some(name) => name,
            None => host.node_name()?,
        };
        Ok(Self {
            name,
            is_name_chosen,
            listen: layer
                .listen
                .unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT)),
            advertise: layer.advertise,
            data_dir: layer.data_dir.unwrap_or_else(|| host.data_dir()),
            socket: layer.socket.unwrap_or_else(|| host.socket()),
            join: layer.join.unwrap_or_default(),
            token: layer.token,
            token_file: layer.token_file,
            log: layer.log.unwrap_or_else(|| "info".to_owned()),
            log_format: layer.log_format.unwrap_or_default(),
            profile: layer.profile.unwrap_or_default(),
            dns: layer.dns,
            docker_plugin: layer.docker_plugin,
            plugin_dir: layer.plugin_dir,
        })
    }
}

/// What the defaults depend on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// The host's name.
    pub name: String,
    /// Whether we are root.
    pub is_root: bool,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$XDG_STATE_HOME`, or `~/.local/state`.
    pub state_dir: Option<PathBuf>,
}

impl Host {
    /// Reads this host.
    pub fn here() -> Self {
        let directory = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let in_home = || directory("HOME").map(|home| home.join(".local/state"));
        Self {
            name: nix::sys::utsname::uname()
                .map(|uname| uname.nodename().to_string_lossy().into_owned())
                .unwrap_or_default(),
            is_root: nix::unistd::geteuid().is_root(),
            runtime_dir: directory("XDG_RUNTIME_DIR"),
            state_dir: directory("XDG_STATE_HOME").or_else(in_home),
        }
    }

    /// Returns where the control API is, unless told otherwise.
    pub fn socket(&self) -> PathBuf {
        match &self.runtime_dir {
            Some(directory) if !self.is_root => directory.join("weft/weft.sock"),
            Some(_) | None => "/run/weft/weft.sock".into(),
        }
    }

    /// Returns where a node keeps its state, unless told otherwise.
    pub fn data_dir(&self) -> PathBuf {
        match &self.state_dir {
            Some(directory) if !self.is_root => directory.join("weft"),
            Some(_) | None => "/var/lib/weft".into(),
        }
    }

    /// Returns the first label of the host's name.
    fn node_name(&self) -> Result<Name, ConfigError> {
        let label = self.name.split('.').next().unwrap_or_default();
        Name::new(label).map_err(|source| ConfigError::HostName {
            host: self.name.clone(),
            source,
        })
    }
}

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

/// How patient membership is: the figures are those of `core::membership`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One data centre.
    #[default]
    Lan,
    /// Between data centres.
    Wan,
    /// One machine, for tests and demonstrations.
    Local,
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
        let host = host.to_owned();
        Ok(Self { host, port })
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

deserialize_from_str!(Advertise, Seed);

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(toml: &str) -> Layer {
        Layer::from_toml(Path::new("weft.toml"), toml).unwrap()
    }

    fn refused(toml: &str) -> String {
        let error = Layer::from_toml(Path::new("weft.toml"), toml).unwrap_err();
        error.to_string()
    }

    #[test]
    fn a_file_may_say_everything() {
        let layer = layer(
            r#"
            name = "n1"
            listen = "10.0.0.1:9338"
            advertise = "192.0.2.7"
            data-dir = "/srv/weft"
            socket = "/run/w.sock"
            join = ["a", "b:9000", "[::1]:9001"]
            token = "weft-1-x"
            log = "debug"
            log-format = "json"
            profile = "wan"
            dns = "127.0.0.1:53"
            docker-plugin = "/run/p.sock"
            plugin-dir = "/srv/plugins"
            "#,
        );

        let config = Config::resolve(layer, &Host::default()).unwrap();

        let join: Vec<String> = config.join.iter().map(Seed::to_string).collect();
        assert_eq!(join, ["a:9338", "b:9000", "[::1]:9001"]);
        assert!(config.log_format == LogFormat::Json && config.profile == Profile::Wan);
        assert_eq!(config.data_dir, Path::new("/srv/weft"));
        let paths = [config.docker_plugin, config.plugin_dir];
        assert!(config.dns.is_some() && paths.iter().all(Option::is_some));
    }

    #[test]
    fn a_file_is_refused_with_the_line_and_what_is_wrong() {
        assert_eq!(
            refused("name = \"a\"\nport = 3\n")
                .split(", expected")
                .next(),
            Some("weft.toml:2: unknown field `port`")
        );
        assert!(refused("\n\nname = \"-\"").starts_with("weft.toml:3: a name may have"));
        assert!(refused("listen = \"here\"").starts_with("weft.toml:1: invalid socket address"));
        assert!(refused("join = [\"a:b\"]").contains("HOST or HOST:PORT is expected"));
        assert!(refused("name = ").starts_with("weft.toml:1: "));
    }

    #[test]
    fn a_higher_layer_wins_and_a_lower_one_fills_in() {
        let flags = layer("name = \"flag\"\nlog = \"debug\"");
        let file = layer("name = \"file\"\nprofile = \"local\"");

        let config = Config::resolve(flags.over(file), &Host::default()).unwrap();

        assert_eq!(config.name.as_str(), "flag");
        assert_eq!(config.log, "debug");
        assert_eq!(config.profile, Profile::Local);
        assert_eq!(config.listen, "0.0.0.0:9338".parse().unwrap());
    }

    #[test]
    fn a_token_replaces_a_token_file_of_a_lower_layer() {
        let flags = layer("token = \"weft-1-x\"");
        let file = layer("token-file = \"/t\"");

        let both = flags.over(file);

        assert_eq!(both.token, Some(Secret("weft-1-x".to_owned())));
        assert_eq!(both.token_file, None);
    }

    #[test]
    fn defaults_fit_who_runs_it() {
        let user = Host {
            name: "box.example.org".to_owned(),
            is_root: false,
            runtime_dir: Some("/run/user/1000".into()),
            state_dir: Some("/home/u/.local/state".into()),
        };
        let root = Host {
            is_root: true,
            ..user.clone()
        };

        assert_eq!(user.socket(), Path::new("/run/user/1000/weft/weft.sock"));
        assert_eq!(user.data_dir(), Path::new("/home/u/.local/state/weft"));
        assert_eq!(root.socket(), Path::new("/run/weft/weft.sock"));
        assert_eq!(root.data_dir(), Path::new("/var/lib/weft"));
        let config = Config::resolve(Layer::default(), &user).unwrap();
        assert_eq!(config.name.as_str(), "box");
    }

    #[test]
    fn a_token_does_not_show_in_logs() {
        let layer = layer("token = \"weft-1-secret\"");

        assert!(!format!("{layer:?}").contains("secret"));
    }

    #[test]
    fn an_address_nobody_can_reach_is_not_advertised() {
        for text in ["0.0.0.0", "[::]:1", "239.0.0.1", "node1", ""] {
            assert!(text.parse::<Advertise>().is_err(), "{text}");
        }
        let advertise: Advertise = "192.0.2.1".parse().unwrap();
        assert_eq!(advertise.with_port(7).to_string(), "192.0.2.1:7");
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
