//! Network namespaces: made, kept by a bind mount so that a restart finds them again, opened, removed.
//!
//! A thread of its own enters a namespace and ends there, so no thread of the runtime is ever in another one; the daemon
//! never forks.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};
use tokio::{runtime::Handle, sync::oneshot};

use crate::core::model::NetworkId;

/// The namespace of the thread that asks.
const OWN: &str = "/proc/thread-self/ns/net";

/// Where others give namespaces names: `ip netns`, and the Docker engine.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// What is written to `/proc/sys/net` of a new namespace: packets between the subnets of a network are forwarded, and
/// the links speak for nobody. Subnets have one bridge, so who sends to another is not told that there is a shorter way.
const SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/accept_ra", "0"),
];

/// Runs `work` on a thread that is in `namespace`, within the runtime's context.
pub(super) async fn inside<T: Send + 'static>(
    namespace: File,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    on_a_thread(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    })
    .await
}

/// Runs `work` on a thread that is in a namespace made for it.
pub(super) async fn inside_a_new_one<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    on_a_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        work()
    })
    .await
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let runtime = Handle::current();
    let (answer, answered) = oneshot::channel();
    std::thread::Builder::new()
        .name("weft-netns".to_owned())
        .spawn(move || {
            let _context = runtime.enter();
            // Who asked may have stopped waiting.
            let _ = answer.send(work());
        })?;
    let panicked = |_gone| io::Error::other("a thread in a network namespace panicked");
    answered.await.map_err(panicked)?
}

/// Makes a namespace that lasts until [`remove`], whatever becomes of this process.
pub(super) async fn make(path: &Path) -> io::Result<File> {
    let place = path.to_owned();
    inside_a_new_one(move || {
        File::create(&place)?;
        let mounted = bind(Path::new(OWN), &place);
        if mounted.is_err() {
            fs::remove_file(&place)?;
        }
        mounted?;
        for (name, value) in SYSCTLS {
            // Where `/proc/sys` may not be written, one subnet works and several do not reach each other.
            if let Err(error) = fs::write(format!("/proc/sys/net/{name}"), value) {
                tracing::debug!(name, %error, "a setting of a network's namespace is left as it is");
            }
        }
        File::open(&place)
    })
    .await
}

/// Opens a namespace; nothing if the path leads to none.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(is_namespace(&file)?.then_some(file))
}

/// Returns the number by which the kernel tells a namespace from all others that there are at the same time.
pub(super) fn number(namespace: &File) -> io::Result<u64> {
    Ok(namespace.metadata()?.ino())
}

/// Returns the network namespaces of this host that have a name or a process, each once, but for the own one.
pub(super) fn visible() -> Vec<(PathBuf, File)> {
    let own = File::open(OWN).and_then(|own| number(&own)).ok();
    let mut seen: BTreeSet<u64> = own.into_iter().collect();
    let processes = entries("/proc").map(|process| process.join("ns/net"));
    let named = NAMED.iter().flat_map(|place| entries(place));
    let mut found = Vec::new();
    for path in named.chain(processes) {
        if let Ok(Some(namespace)) = open(&path)
            && let Ok(number) = number(&namespace)
            && seen.insert(number)
        {
            found.push((path, namespace));
        }
    }
    found
}

fn entries(place: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Mounts a namespace that we have open where it should be, if it is not there.
pub(super) fn keep(path: &Path, namespace: &File) -> io::Result<()> {
    if open(path)?.is_some() {
        return Ok(());
    }
    tracing::info!(path = %path.display(), "a network's namespace was not mounted any more: it is again");
    File::create(path)?;
    let held = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    bind(Path::new(&held), path)
}

/// Takes a namespace's mount away; it goes when the last who is in it, or has it open, has gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if open(path)?.is_some() {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns where the namespace of a network is.
pub(super) fn place(directory: &Path, network: NetworkId) -> PathBuf {
    directory.join(network.0.to_string())
}

/// Returns the networks that have something in the directory.
pub(super) fn list(directory: &Path) -> io::Result<Vec<NetworkId>> {
    let mut networks = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        networks.extend(number.map(NetworkId));
    }
    networks.sort();
    Ok(networks)
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let nothing = None::<&str>;
    Ok(mount(Some(from), to, nothing, MsFlags::MS_BIND, nothing)?)
}

fn is_namespace(file: &File) -> io::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == NSFS_MAGIC)
}
