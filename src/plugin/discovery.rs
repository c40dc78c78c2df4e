//! v1 plugins: sockets and spec files in well-known directories.

use std::{
    collections::BTreeSet,
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokio::fs;

use super::{client::Address, tls::TlsFiles};

/// The longest spec file that is read, in bytes.
const SPEC_MAX: u64 = 64 * 1024;

/// Where plugins of a host are found. Earlier directories win.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Directories {
    /// Holds `NAME.sock` and `NAME/NAME.sock` of v1 plugins, and `ID/SOCKET` of managed ones.
    pub sockets: PathBuf,
    /// Hold `NAME.spec` and `NAME.json`, or a directory `NAME` with them.
    pub specs: Vec<PathBuf>,
}

impl Directories {
    /// Returns those of an engine that runs as root.
    pub fn system() -> Self {
        Self {
            sockets: PathBuf::from("/run/docker/plugins"),
            specs: vec![
                "/etc/docker/plugins".into(),
                "/usr/lib/docker/plugins".into(),
            ],
        }
    }

    /// Returns those of a rootless engine; `variable` reads the environment.
    pub fn rootless(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let given = |name| variable(name).filter(|path: &PathBuf| path.is_absolute());
        let home = given("HOME");
        let config = given("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let library = home.map(|home| home.join(".local/lib"));
        let specs = [config, library]
            .into_iter()
            .flatten()
            .map(|base| base.join("docker/plugins"))
            .collect();
        Self {
            specs,
            ..Self::system()
        }
    }
}

/// Why the directories do not lead to a plugin. The operator must mend what is named.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address is neither `unix://` nor `tcp://`.
    #[error("{}: unknown protocol in {address:?}: unix://PATH or tcp://HOST:PORT is expected", path.display())]
    UnknownProtocol {
        /// The file.
        path: PathBuf,
        /// What it says.
        address: String,
    },
    /// A `.json` is not what it should be.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A `.json` asks for TLS and does not say enough. A plugin is not called in clear text where its author wants TLS.
    #[error("{}: TLSConfig {expected}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What it must have.
        expected: &'static str,
    },
}

#[derive(Deserialize)]
struct JsonSpec {
    #[serde(rename = "Addr", default)]
    addr: String,
    #[serde(rename = "TLSConfig")]
    tls: Option<TlsFiles>,
}

/// Finds a v1 plugin. A socket wins over a spec, a `.spec` over a `.json`, a file over one in a directory of its own (P4).
pub(super) async fn find(
    directories: &Directories,
    name: &str,
) -> Result<Option<Address>, DiscoveryError> {
    if !is_file_name(name) {
        return Ok(None);
    }
    for path in candidates(&directories.sockets, name, "sock") {
        if fs::metadata(&path)
            .await
            .is_ok_and(|found| found.file_type().is_socket())
        {
            return Ok(Some(Address::Unix(path)));
        }
    }
    for directory in &directories.specs {
        for extension in ["spec", "json"] {
            for path in candidates(directory, name, extension) {
                if let Some(text) = read_spec(&path).await? {
                    let address = if extension == "spec" {
                        parse_address(&path, &text)
                    } else {
                        parse_json(&path, &text)
                    };
                    return address.map(Some);
                }
            }
        }
    }
    Ok(None)
}

/// Returns the names of all v1 plugins that there seem to be. A directory that cannot be read has none.
pub(super) async fn scan(directories: &Directories) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    scan_directory(&directories.sockets, &["sock"], &mut found).await;
    for directory in &directories.specs {
        scan_directory(directory, &["spec", "json"], &mut found).await;
    }
    found
}

async fn scan_directory(directory: &Path, extensions: &[&str], found: &mut BTreeSet<String>) {
    let Ok(mut entries) = fs::read_dir(directory).await else {
        return;
    };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let path = entry.path();
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let stem = extensions
            .iter()
            .find_map(|extension| file.strip_suffix(extension)?.strip_suffix('.'));
        if let Some(name) = stem.filter(|name| is_file_name(name)) {
            found.insert(name.to_owned());
            continue;
        }
        for extension in extensions {
            let inner = path.join(format!("{file}.{extension}"));
            if fs::metadata(inner).await.is_ok() {
                found.insert(file.to_owned());
            }
        }
    }
}

fn candidates(directory: &Path, name: &str, extension: &str) -> [PathBuf; 2] {
    let file = format!("{name}.{extension}");
    [directory.join(&file), directory.join(name).join(&file)]
}

/// Returns whether a name cannot lead out of the directory that it is looked for in.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '\0'])
}

async fn read_spec(path: &Path) -> Result<Option<String>, DiscoveryError> {
    let unreadable = |source| DiscoveryError::Unreadable {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path).await {
        Ok(found) if found.is_file() && found.len() <= SPEC_MAX => {}
        Ok(_) => {
            return Err(unreadable(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a short file",
            )));
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    }
    fs::read_to_string(path).await.map(Some).map_err(unreadable)
}

fn parse_address(path: &Path, text: &str) -> Result<Address, DiscoveryError> {
    let address = text.trim();
    match address.split_once("://") {
        Some(("unix", socket)) if socket.starts_with('/') => Ok(Address::Unix(socket.into())),
        Some(("tcp", authority)) if !authority.is_empty() => {
            Ok(Address::Tcp(authority.trim_end_matches('/').to_owned()))
        }
        Some(_) | None => Err(DiscoveryError::UnknownProtocol {
            path: path.to_owned(),
            address: address.to_owned(),
        }),
    }
}

fn parse_json(path: &Path, text: &str) -> Result<Address, DiscoveryError> {
    let spec: JsonSpec =
        serde_json::from_str(text).map_err(|source| DiscoveryError::Malformed {
            path: path.to_owned(),
            source,
        })?;
    let address = parse_address(path, &spec.addr)?;
    let Some(tls) = spec.tls else {
        return Ok(address);
    };
    let refused = |expected| DiscoveryError::Tls {
        path: path.to_owned(),
        expected,
    };
    match address {
        Address::Tcp(_) if tls.ca.is_none() && !tls.skip_verify => Err(refused(
            "must name a CAFile to verify the plugin with, or say InsecureSkipVerify",
        )),
        Address::Tcp(authority) => Ok(Address::Tls(authority, Box::new(tls))),
        Address::Unix(_) | Address::Tls(..) => Err(refused("is for an Addr of tcp://HOST:PORT")),
    }
}
