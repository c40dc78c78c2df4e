//! Which endpoints were moved into which sandboxes: a file for each beside the network namespaces, and gone with them when the
//! host starts anew.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    core::model::{EndpointId, NetworkId},
    dataplane::Placed,
};

/// The files.
pub(super) struct Remembered {
    directory: PathBuf,
}

impl Remembered {
    /// Looks after those in a directory, which need not be there.
    pub(super) fn beside(namespaces: &Path) -> Self {
        Self {
            directory: namespaces.join("sandboxes"),
        }
    }

    /// Remembers one, in one go: a daemon that dies leaves a whole file or none.
    pub(super) fn add(&self, network: NetworkId, placed: &Placed) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.path(network, placed.placement.endpoint);
        let begun = path.with_extension("new");
        fs::write(&begun, serde_json::to_vec(placed)?)?;
        fs::rename(begun, path)
    }

    /// Forgets one, and the directory with the last.
    pub(super) fn remove(&self, network: NetworkId, endpoint: EndpointId) {
        if fs::remove_file(self.path(network, endpoint)).is_ok() {
            // It stays while there are others.
            let _ = fs::remove_dir(&self.directory);
        }
    }

    /// Returns those of a network. A file that says nothing is passed over: its endpoint is looked after by nobody.
    pub(super) fn list(&self, network: NetworkId) -> Vec<Placed> {
        let of_network = self.files().into_iter().filter(|(of, _)| *of == network);
        let read = of_network.filter_map(|(_, path)| {
            let text = fs::read(&path).ok()?;
            let placed = serde_json::from_slice(&text);
            if let Err(error) = &placed {
                tracing::warn!(path = %path.display(), %error, "what a former run has written of a sandbox is not understood");
            }
            placed.ok()
        });
        read.collect()
    }

    /// Forgets those of all networks but these.
    pub(super) fn keep_only(&self, networks: &BTreeSet<NetworkId>) {
        for (network, path) in self.files() {
            if !networks.contains(&network) {
                // What cannot be removed names an endpoint that nobody asks for.
                let _ = fs::remove_file(path);
            }
        }
        let _ = fs::remove_dir(&self.directory);
    }

    fn files(&self) -> Vec<(NetworkId, PathBuf)> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let named = entries.filter_map(|entry| {
            let name = entry.file_name();
            let (network, _endpoint) = name.to_str()?.split_once('-')?;
            Some((NetworkId(network.parse().ok()?), entry.path()))
        });
        named
            .filter(|(_, path)| path.extension().is_none())
            .collect()
    }

    fn path(&self, network: NetworkId, endpoint: EndpointId) -> PathBuf {
        self.directory.join(format!("{network}-{endpoint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::model::Mac,
        dataplane::{Placement, SandboxId},
    };

    #[test]
    fn what_is_remembered_outlives_who_wrote_it_and_goes_with_its_endpoint() {
        let place = tempfile::tempdir().unwrap();
        let before = Remembered::beside(place.path());
        for n in [1, 2] {
            before.add(NetworkId(7), &placed(n)).unwrap();
            before.add(NetworkId(8), &placed(n)).unwrap();
        }

        let after = Remembered::beside(place.path());

        assert_eq!(after.list(NetworkId(7)).len(), 2);
        after.remove(NetworkId(7), EndpointId(1));
        assert_eq!(after.list(NetworkId(7)), [placed(2)]);
        after.keep_only(&BTreeSet::from([NetworkId(8)]));
        assert_eq!(after.list(NetworkId(7)), []);
        assert_eq!(after.list(NetworkId(8)).len(), 2);
        after.keep_only(&BTreeSet::new());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_was_not_written_by_us_is_passed_over() {
        let place = tempfile::tempdir().unwrap();
        let remembered = Remembered::beside(place.path());
        remembered.add(NetworkId(7), &placed(1)).unwrap();
        for name in ["7-garbage", "7-begun.new", "README"] {
            fs::write(place.path().join("sandboxes").join(name), "{").unwrap();
        }

        assert_eq!(remembered.list(NetworkId(7)), [placed(1)]);
    }

    fn placed(n: u8) -> Placed {
        Placed {
            path: format!("/run/netns/{n}").into(),
            sandbox: SandboxId(u64::from(n)),
            link: format!("weft{n}"),
            placement: Placement {
                endpoint: EndpointId(u128::from(n)),
                mac: Mac([2, 0, 0, 0, 0, n]),
                addresses: vec![crate::core::model::Prefix("10.0.0.2/24".parse().unwrap())],
                name: Some("eth0".to_owned()),
                prefix: "eth".to_owned(),
                routes: Vec::new(),
            },
        }
    }
}
