//! The drivers of this node: the built-in ones, and where the host's plugins are.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};
use tokio_util::sync::CancellationToken;

use super::doors::Plugin;
use crate::{
    api::{docker, http::types::Code},
    cli::error::CliError,
    config::{Carrier, Config, Docker, Host},
    core::{
        model::{Name, NetworkId, Vtep},
        overlay::Underlay,
    },
    dataplane::{Dataplane, Kernel, Memory},
    driver::{Overlay, Plugins, Registry},
    engine,
    plugin::{self, Directories, Getter},
    store::Store,
};

/// Where the Docker engine listens, unless it is a user's own.
const ENGINE: &str = "/var/run/docker.sock";

/// Makes the overlay driver of a node with this address on the underlay, over what carries packets here.
pub(super) async fn overlay(
    config: &Config,
    store: &Store,
    vtep: Vtep,
) -> Result<Overlay, CliError> {
    let Some(kernel) = kernel(config).await? else {
        let nothing = Arc::new(Memory::default());
        return Ok(Overlay::new(Underlay::assumed(vtep), nothing));
    };
    let endpoints = store.endpoints()?;
    let joined = endpoints.iter().filter(|endpoint| endpoint.joined);
    let networks: BTreeSet<NetworkId> = joined.map(|endpoint| endpoint.record.network).collect();
    let kept = kernel.keep_only(&networks).await;
    kept.map_err(anyhow::Error::from)?;
    let underlay = kernel.underlay(vtep).await.map_err(anyhow::Error::from)?;
    let underlay = underlay.unwrap_or_else(|| Underlay::assumed(vtep));
    let (address, mtu, dataplane) = (vtep.0, underlay.mtu, "kernel");
    tracing::info!(%address, mtu, dataplane, "packets are carried");
    let kernel: Arc<dyn Dataplane> = Arc::new(kernel);
    Ok(Overlay::new(underlay, kernel))
}

/// Opens the kernel as a data plane, if it is wanted and can be.
async fn kernel(config: &Config) -> Result<Option<Kernel>, CliError> {
    let without = "everything else works: members, tables, networks and addresses, names";
    if config.dataplane == Some(Carrier::None) {
        tracing::info!("no data plane, as was asked for: packets are not carried; {without}");
        tell_of_left(config);
        return Ok(None);
    }
    let missing = match Kernel::open(namespaces(&config.socket)).await {
        Ok(kernel) => return Ok(Some(kernel)),
        Err(missing) => missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
    };
    let missing = missing.join(", ");
    if config.dataplane == Some(Carrier::Kernel) {
        let refused = anyhow::anyhow!("the kernel cannot carry packets here: missing {missing}");
        return Err(refused.into());
    }
    tracing::warn!("no data plane: packets are not carried, for want of {missing}; {without}");
    Ok(None)
}

/// Takes what a former run has left out of the engine and out of the kernel, if this one is refused since the cluster has removed
/// the node.
pub(super) async fn clear_if_removed(config: &Config, refused: &CliError, docker: Option<Plugin>) {
    let is_removed = matches!(refused, CliError::Refused(failure) if failure.code == Code::Removed);
    if !is_removed {
        return;
    }
    if let Some(Plugin { door, engine }) = docker {
        let stop = CancellationToken::new();
        let withdrawn = async {
            engine::withdraw(&engine).await;
            stop.cancel();
        };
        tokio::join!(docker::serve_goodbye(door, stop.clone()), withdrawn);
    }
    if config.dataplane == Some(Carrier::None) {
        return;
    }
    // Where the kernel cannot be opened, there was no run that could have left anything.
    if let Ok(kernel) = Kernel::open(namespaces(&config.socket)).await
        && let Err(error) = kernel.keep_only(&BTreeSet::new()).await
    {
        tracing::warn!(%error, "the data plane of a network is left behind");
    }
}

/// Returns what this node can do that others may lack.
pub(super) fn capabilities(config: &Config, overlay: &Overlay) -> Vec<Name> {
    let name = |word: &str| Name::new(word).expect("letters and digits are a name");
    let optional = [
        ("dataplane.kernel", overlay.carries()),
        ("dns", config.dns.is_some()),
        ("docker", config.docker.is_some()),
    ];
    let had = optional.into_iter().filter(|(_, has)| *has);
    let wire = format!("wire.{}", config.wire_version);
    had.map(|(word, _)| name(word))
        .chain([name(&wire)])
        .collect()
}

/// Returns where the network namespaces of a daemon are that serves this socket.
pub(in crate::cli) fn namespaces(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or(Path::new("/")).join("netns")
}

/// Says what a run that carried packets has left, which nobody looks after from now on.
fn tell_of_left(config: &Config) {
    let left = Kernel::left(&namespaces(&config.socket));
    if !left.is_empty() {
        let networks: Vec<String> = left.iter().map(ToString::to_string).collect();
        tracing::warn!(
            networks = networks.join(","),
            "a former run has left the data plane of networks in the kernel: weft debug dataplane --clean removes it"
        );
    }
}

/// Makes the registry of a node.
pub(super) fn registry(overlay: Arc<Overlay>, plugins: plugin::Config) -> Registry {
    let source = Plugins::new(Getter::new(plugins), overlay.carrier());
    Registry::built_in(overlay).with_source(Arc::new(source))
}

/// Returns where the plugins of this host are: in a directory of their own if there is one, else where Docker has them.
pub(super) fn plugins(host: &Host, own: Option<&Path>, door: Option<&Docker>) -> plugin::Config {
    // Weft's own door to the engine, of another daemon too, which would have its usual name.
    let usual = "weft".to_owned();
    let ignored = door
        .map(Docker::driver)
        .into_iter()
        .chain([usual])
        .collect();
    if let Some(own) = own {
        return plugin::Config {
            directories: Directories {
                sockets: own.to_owned(),
                specs: vec![own.to_owned()],
            },
            ignored,
            ..plugin::Config::default()
        };
    }
    let directories = if host.is_root {
        Directories::system()
    } else {
        Directories::rootless(|name| std::env::var_os(name).map(PathBuf::from))
    };
    plugin::Config {
        engine: usable(engine(host)),
        directories,
        ignored,
        ..plugin::Config::default()
    }
}

fn engine(host: &Host) -> PathBuf {
    let own = host.runtime_dir.as_ref().filter(|_| !host.is_root);
    let own = own.map(|directory| directory.join("docker.sock"));
    own.filter(|socket| socket.exists())
        .unwrap_or_else(|| ENGINE.into())
}

/// An engine that may not be asked would make every unknown name a failure. One that is not there may come later.
fn usable(socket: PathBuf) -> Option<PathBuf> {
    let is_denied = |socket: &Path| access(socket, AccessFlags::W_OK) == Err(Errno::EACCES);
    if is_denied(&socket) {
        tracing::info!(
            socket = %socket.display(),
            "plugins that the Docker engine manages are not looked for: its socket may not be used"
        );
        return None;
    }
    Some(socket)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        os::unix::net::{UnixListener, UnixStream},
        time::Duration,
    };

    use super::*;
    use crate::{core::model::Instant, driver::RegistryError, plugin::Timings};

    #[test]
    fn our_own_door_is_no_plugin_whatever_it_is_called() {
        let door = Docker {
            plugin: "/p/loom.sock".into(),
            engine: "/p/docker.sock".into(),
            is_chosen: true,
        };

        let chosen = plugins(&Host::default(), None, Some(&door)).ignored;
        let none = plugins(&Host::default(), None, None).ignored;

        assert_eq!(chosen, ["loom", "weft"].map(str::to_owned).into());
        assert_eq!(none, ["weft".to_owned()].into());
    }

    #[tokio::test]
    async fn a_plugin_is_found_by_the_name_of_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("wire.sock")).unwrap();
        let plugin = std::thread::spawn(move || {
            ["Plugin.Activate", "NetworkDriver.GetCapabilities"].map(|method| {
                let (stream, _) = listener.accept().unwrap();
                serve(stream) == method
            })
        });
        let registry = registry_over(directory.path());

        let found = registry.get(&name("wire"), now()).await;

        assert!(found.is_ok());
        assert_eq!(plugin.join().unwrap(), [true, true]);
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry_over(directory.path());
        let nope = name("nope");
        let at_once = Timings::default().first_retry;

        let refused = tokio::time::timeout(at_once, registry.get(&nope, now())).await;

        let refused = refused.unwrap().err();
        assert!(matches!(refused, Some(RegistryError::NotFound(_))));
    }

    #[tokio::test]
    async fn the_built_in_drivers_need_nobody() {
        let registry = registry_over(Path::new("/nowhere"));

        for built_in in ["overlay", "null"] {
            assert!(registry.get(&name(built_in), now()).await.is_ok());
        }
    }

    /// A host whose plugins are all in one directory, and whose engine is not there.
    fn registry_over(directory: &Path) -> Registry {
        let plugins = plugin::Config {
            engine: Some(directory.join("docker.sock")),
            directories: Directories {
                sockets: directory.to_owned(),
                specs: Vec::new(),
            },
            ..plugin::Config::default()
        };
        let underlay = Underlay::assumed(Vtep("192.0.2.1".parse().unwrap()));
        let overlay = Overlay::new(underlay, Arc::new(Memory::default()));
        registry(Arc::new(overlay), plugins)
    }

    /// Answers one request as a plugin does, and returns its method.
    fn serve(stream: UnixStream) -> String {
        let lines = BufReader::new(&stream).lines().map(Result::unwrap);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let answer = r#"{"Implements":["NetworkDriver"],"Scope":"local"}"#;
        let length = answer.len();
        let head_back = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}");
        write!(&stream, "{head_back}\r\n\r\n{answer}").unwrap();
        let path = head[0].split(' ').nth(1).unwrap();
        path.trim_start_matches('/').to_owned()
    }

    fn now() -> Instant {
        Instant::from_start(Duration::ZERO)
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }
}
