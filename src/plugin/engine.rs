//! v2 plugins: the Docker engine manages them; its API lists them with their state, capabilities and socket.

use std::{io, path::PathBuf};

use serde::Deserialize;

use super::{
    Config, GetError, Origin, Plugin,
    client::{Address, CallError, Client},
};

/// Why the engine's plugins are not known. The engine must be started or mended.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EngineError(#[from] CallError);

/// A managed plugin as the engine describes it.
#[derive(Deserialize, Debug)]
pub(super) struct Managed {
    #[serde(rename = "Id")]
    pub(super) id: String,
    /// With its tag, for example `vieux/sshfs:latest`.
    #[serde(rename = "Name")]
    pub(super) name: String,
    #[serde(rename = "Enabled")]
    pub(super) is_enabled: bool,
    #[serde(rename = "Config")]
    config: ManagedConfig,
}

#[derive(Deserialize, Debug)]
struct ManagedConfig {
    #[serde(rename = "Interface")]
    interface: Interface,
}

#[derive(Deserialize, Debug)]
struct Interface {
    #[serde(rename = "Types", default)]
    types: Option<Vec<String>>,
    #[serde(rename = "Socket", default)]
    socket: String,
}

impl Managed {
    /// Returns how to call it: the engine puts its socket into a directory named after its id.
    pub(super) fn plugin(&self, config: &Config) -> Plugin {
        let interface = &self.config.interface;
        let socket: PathBuf = config
            .directories
            .sockets
            .join(&self.id)
            .join(&interface.socket);
        Plugin {
            name: self.name.clone(),
            origin: Origin::Managed(self.id.clone()),
            client: Client::new(Address::Unix(socket), config.timings.call),
            capabilities: interface.types.iter().flatten().cloned().collect(),
            mark: None,
        }
    }
}

/// Lists the engine's plugins; none where there is no engine.
pub(super) async fn list(config: &Config) -> Result<Vec<Managed>, EngineError> {
    let Some(socket) = &config.engine else {
        return Ok(Vec::new());
    };
    let client = Client::new(Address::Unix(socket.clone()), config.timings.handshake);
    match client.get("/plugins").await {
        Ok(listed) => Ok(listed),
        Err(CallError::Unreachable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds a plugin by its whole id, then by name, then by the beginning of its id (P1, P9).
pub(super) fn resolve<'a>(
    listed: &'a [Managed],
    name: &str,
) -> Result<Option<&'a Managed>, GetError> {
    let full = normalised(name);
    let exact = listed
        .iter()
        .find(|managed| managed.id == name)
        .or_else(|| listed.iter().find(|managed| managed.name == full));
    if exact.is_some() {
        return Ok(exact);
    }
    let mut begins = listed.iter().filter(|managed| managed.id.starts_with(name));
    match (begins.next(), begins.next()) {
        (Some(_), Some(_)) => Err(GetError::Ambiguous(name.to_owned())),
        (found, _) => Ok(found),
    }
}

/// Returns a plugin's name as the engine lists it: without the default registry, with a tag.
fn normalised(name: &str) -> String {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let last = short.rsplit('/').next().unwrap_or(short);
    if last.contains(':') {
        short.to_owned()
    } else {
        format!("{short}:latest")
    }
}
