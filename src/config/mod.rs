//! What a daemon is told: file, environment and flags → one checked [`Config`].
//!
//! Precedence: flags, then environment, then file, then defaults. The command line reads flags and environment into one
//! [`Layer`], a TOML file into another.

mod docker;
mod figures;
mod setting;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use docker::{Docker, DockerMode};
pub use figures::Figures;
pub use setting::{
    Advertise, Carrier, CertificateLife, DnsTtl, KeyRotation, LogFormat, Profile, Resolver, Secret,
    Seed, SettingError, WireVersion,
};

use crate::core::{
    membership::{self, FigureError},
    model::{Label, LabelError, Labels, LimitError, Name},
    wire::versions::NEWEST,
};

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
    /// There are more labels than a node may have.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// A figure of membership does not go with another one.
    #[error("membership: {0}")]
    Figure(#[from] FigureError),
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
    /// What the operator says of the node.
    #[serde(default)]
    pub label: Option<Vec<Label>>,
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
    /// Figures of membership, in place of the profile's.
    #[serde(default)]
    pub membership: Option<Figures>,
    /// Where to answer for names, UDP and TCP.
    #[serde(default)]
    pub dns: Option<SocketAddr>,
    /// Who answers for names that are not ours.
    #[serde(default)]
    pub dns_upstream: Option<Vec<Resolver>>,
    /// For how long an answer may be kept.
    #[serde(default)]
    pub dns_ttl: Option<DnsTtl>,
    /// Whether to serve the Docker engine.
    #[serde(default)]
    pub docker: Option<DockerMode>,
    /// The Docker engine's plugin socket.
    #[serde(default)]
    pub docker_plugin: Option<PathBuf>,
    /// The Docker engine's own socket.
    #[serde(default)]
    pub docker_engine: Option<PathBuf>,
    /// Where driver plugins are looked for, if not where Docker does.
    #[serde(default)]
    pub plugin_dir: Option<PathBuf>,
    /// What carries packets.
    #[serde(default)]
    pub dataplane: Option<Carrier>,
    /// How long certificates live.
    #[serde(default)]
    pub certificate_life: Option<CertificateLife>,
    /// How often the datagram keys are rotated.
    #[serde(default)]
    pub key_rotation: Option<KeyRotation>,
    /// The newest version of the wire to speak.
    #[serde(default)]
    pub wire_version: Option<WireVersion>,
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
            label: self.label.or(lower.label),
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
            membership: match (self.membership, lower.membership) {
                (Some(ours), Some(lower)) => Some(ours.over(lower)),
                (ours, lower) => ours.or(lower),
            },
            dns: self.dns.or(lower.dns),
            dns_upstream: self.dns_upstream.or(lower.dns_upstream),
            dns_ttl: self.dns_ttl.or(lower.dns_ttl),
            docker: self.docker.or(lower.docker),
            docker_plugin: self.docker_plugin.or(lower.docker_plugin),
            docker_engine: self.docker_engine.or(lower.docker_engine),
            plugin_dir: self.plugin_dir.or(lower.plugin_dir),
            dataplane: self.dataplane.or(lower.dataplane),
            certificate_life: self.certificate_life.or(lower.certificate_life),
            key_rotation: self.key_rotation.or(lower.key_rotation),
            wire_version: self.wire_version.or(lower.wire_version),
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
    /// What the operator says of the node.
    pub labels: Labels,
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
    /// The figures of it: those of the profile, or as they were set.
    pub membership: membership::Config,
    /// Where to answer for names; nowhere if not told.
    pub dns: Option<SocketAddr>,
    /// Who answers for names that are not ours; nothing: whom the host asks.
    pub dns_upstream: Option<Vec<SocketAddr>>,
    /// For how long an answer of ours may be kept, if told.
    pub dns_ttl: Option<DnsTtl>,
    /// The Docker engine to serve, if any.
    pub docker: Option<Docker>,
    /// Where driver plugins are looked for, if not where Docker does.
    pub plugin_dir: Option<PathBuf>,
    /// What carries packets; if not told, the kernel where it can.
    pub dataplane: Option<Carrier>,
    /// How long certificates live that this node signs, if told.
    pub certificate_life: Option<CertificateLife>,
    /// How often this node rotates the datagram keys while it leads, if told.
    pub key_rotation: Option<KeyRotation>,
    /// The newest version of the wire that this node speaks.
    pub wire_version: u8,
}

impl Config {
    /// Fills in what no layer says.
    pub fn resolve(layer: Layer, host: &Host) -> Result<Self, ConfigError> {
        let docker = Docker::resolve(&layer, host);
        let upstream = layer.dns_upstream;
        let profile = layer.profile.unwrap_or_default();
        let is_name_chosen = layer.name.is_some();
        let name = match layer.name {
            Some(name) => name,
            None => host.node_name()?,
        };
        Ok(Self {
            name,
            is_name_chosen,
            labels: Labels::new(layer.label.unwrap_or_default())?,
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
            profile,
            membership: layer.membership.unwrap_or_default().of(profile)?,
            dns: layer.dns,
            dns_upstream: upstream.map(|all| all.into_iter().map(|one| one.0).collect()),
            dns_ttl: layer.dns_ttl,
            docker,
            plugin_dir: layer.plugin_dir,
            dataplane: layer.dataplane,
            certificate_life: layer.certificate_life,
            key_rotation: layer.key_rotation,
            wire_version: layer.wire_version.map_or(NEWEST, |version| version.0),
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
    /// Whether a Docker engine is installed.
    pub has_docker: bool,
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
            has_docker: docker::is_here(),
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

#[cfg(test)]
mod tests;
