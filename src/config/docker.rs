//! Whether this node serves a Docker engine, and where the two meet.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Host, Layer};

/// Where the engine looks for plugins.
const PLUGIN: &str = "/run/docker/plugins/weft.sock";
/// Where the engine listens.
const ENGINE: &str = "/var/run/docker.sock";

/// Whether to serve the Docker engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DockerMode {
    /// If there is one and we are root.
    #[default]
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

/// Where this node and the engine meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// The plugin socket, served by us.
    pub plugin: PathBuf,
    /// The engine's own socket.
    pub engine: PathBuf,
    /// Whether somebody asked for it, so that it must work.
    pub is_chosen: bool,
}

impl Docker {
    /// Returns the name under which the engine knows our plugin: that of the socket.
    pub fn driver(&self) -> String {
        let stem = self.plugin.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    }

    /// Decides by what was said, and by what is here.
    pub(super) fn resolve(layer: &Layer, host: &Host) -> Option<Self> {
        let is_placed = layer.docker_plugin.is_some();
        let is_served = match layer.docker.unwrap_or_default() {
            DockerMode::Off => false,
            DockerMode::On => true,
            DockerMode::Auto => is_placed || (host.is_root && host.has_docker),
        };
        is_served.then(|| Self {
            plugin: layer.docker_plugin.clone().unwrap_or_else(|| PLUGIN.into()),
            engine: layer.docker_engine.clone().unwrap_or_else(|| ENGINE.into()),
            is_chosen: is_placed || layer.docker == Some(DockerMode::On),
        })
    }
}

/// Returns whether an engine is installed here; it may start after us.
pub(super) fn is_here() -> bool {
    let programs = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin"];
    let mut programs = programs.iter().map(|place| format!("{place}/dockerd"));
    PathBuf::from(ENGINE).exists() || programs.any(|program| PathBuf::from(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_served_where_it_is_or_where_told() {
        let with = |docker, plugin: Option<&str>| Layer {
            docker,
            docker_plugin: plugin.map(PathBuf::from),
            ..Layer::default()
        };
        let here = Host {
            is_root: true,
            has_docker: true,
            ..Host::default()
        };
        let elsewhere = Host::default();
        let chosen = |layer: &Layer, host: &Host| {
            Docker::resolve(layer, host).map(|docker| (docker.driver(), docker.is_chosen))
        };
        let weft = |is_chosen| Some(("weft".to_owned(), is_chosen));

        assert_eq!(chosen(&with(None, None), &here), weft(false));
        assert_eq!(chosen(&with(None, None), &elsewhere), None);
        assert_eq!(
            chosen(&with(Some(DockerMode::On), None), &elsewhere),
            weft(true)
        );
        assert_eq!(chosen(&with(Some(DockerMode::Off), None), &here), None);
        assert_eq!(
            chosen(&with(None, Some("/p/loom.sock")), &elsewhere),
            Some(("loom".to_owned(), true))
        );
    }
}
