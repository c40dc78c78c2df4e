//! The unix socket: made so that only root and group `weft` may use it, served until told to stop.

use std::{
    future::Future,
    io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, extract::DefaultBodyLimit, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::extract;

/// How many connections may be open; the next waits to be accepted until one ends.
pub(super) const CONNECTIONS_MAX: usize = 1_024;
/// The longest body of a request, in bytes: a value of 64 KiB in base64, with room.
pub(super) const BODY_MAX: usize = 1024 * 1024;
/// How long a reader may leave an answer unread before its connection is cut.
pub(super) const UNREAD_MAX: Duration = Duration::from_secs(30);
/// How long open requests may take once the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);
/// The longest path of a unix socket (`sun_path` of unix(7), less its final zero).
const PATH_MAX: usize = 107;

/// What a socket is for: who may use it, and which option says where it is.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    mode: u32,
    group: Option<&'static str>,
    option: &'static str,
}

impl Purpose {
    /// The control API: for root and group `weft`, if there is one.
    pub const CONTROL: Self = Self {
        mode: 0o660,
        group: Some("weft"),
        option: "--socket",
    };
    /// The Docker engine's plugin socket: for root, as which the engine runs, or for whose engine it is.
    pub const DOCKER: Self = Self {
        mode: 0o600,
        group: None,
        option: "--docker-plugin",
    };
}

/// Why the socket could not be opened. The operator must act; nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A daemon answers there.
    #[error("a daemon already serves {path}: stop it, or choose another with {option}")]
    InUse {
        /// The socket.
        path: PathBuf,
        /// What says where it is.
        option: &'static str,
    },
    /// The path does not fit in a socket address.
    #[error(
        "the socket's path {path} is longer than {PATH_MAX} bytes: choose a shorter one with {option}"
    )]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// What says where it is.
        option: &'static str,
    },
    /// Something that is no socket is there.
    #[error("{path} is there and is no socket: remove it, or choose another with {option}")]
    NoSocket {
        /// What is there.
        path: PathBuf,
        /// What says where the socket is.
        option: &'static str,
    },
    /// The system refused.
    #[error("cannot open the socket {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The open socket. It is removed when this goes.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Opens the control API's socket.
    pub async fn open(path: &Path) -> Result<Self, DoorError> {
        Self::open_for(Purpose::CONTROL, path).await
    }

    /// Opens a socket for those whom its purpose names, and takes the place of one that nobody serves.
    ///
    /// It is made under another name and moved into place, so nobody ever finds it with wider permissions.
    pub async fn open_for(purpose: Purpose, path: &Path) -> Result<Self, DoorError> {
        let fresh = fresh_name(path);
        if fresh.as_os_str().len() > PATH_MAX {
            return Err(DoorError::TooLong {
                path: path.to_owned(),
                option: purpose.option,
            });
        }
        refuse_if_taken(path, purpose.option).await?;
        let in_place = || -> io::Result<UnixListener> {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            remove_if_there(&fresh)?;
            let listener = UnixListener::bind(&fresh)?;
            restrict(&fresh, purpose)?;
            std::fs::rename(&fresh, path)?;
            Ok(listener)
        };
        match in_place() {
            Ok(listener) => Ok(Self {
                listener,
                path: path.to_owned(),
            }),
            Err(source) => {
                // The first error is the one to tell.
                let _ = remove_if_there(&fresh);
                let path = path.to_owned();
                Err(DoorError::Io { path, source })
            }
        }
    }

    /// Returns where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // A socket that stays is taken over by the next start.
        let _ = remove_if_there(&self.path);
    }
}

fn fresh_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("~");
    name.into()
}

async fn refuse_if_taken(at: &Path, option: &'static str) -> Result<(), DoorError> {
    let path = at.to_owned();
    match UnixStream::connect(at).await {
        Ok(_someone_answers) => Err(DoorError::InUse { path, option }),
        Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
            use std::os::unix::fs::FileTypeExt;
            match std::fs::symlink_metadata(at) {
                Ok(there) if !there.file_type().is_socket() => {
                    Err(DoorError::NoSocket { path, option })
                }
                Ok(_) | Err(_) => Ok(()),
            }
        }
        // Whatever else is wrong with the place, opening the socket will say it.
        Err(_nobody_answers) => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(refused) if refused.kind() != io::ErrorKind::NotFound => Err(refused),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn restrict(path: &Path, purpose: Purpose) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(purpose.mode))?;
    if let Some(name) = purpose.group
        && let Ok(groups) = std::fs::read_to_string("/etc/group")
        && let Some(group) = group_id(&groups, name)
        && let Err(refused) = chown(path, None, Some(group))
    {
        tracing::debug!(%refused, group = name, "the socket stays with our own group");
    }
    Ok(())
}

/// Finds a group's id in the text of group(5): name, password, id, members.
///
/// Not by getgrnam(3): in a static binary it loads the host's NSS modules, and one that needs another libc ends the process.
fn group_id(groups: &str, name: &str) -> Option<u32> {
    let named = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())
    };
    groups.lines().find_map(named)?
}

/// Serves `routes` of the control API until `stop`; then open requests have a moment to end. The socket is gone afterwards.
pub async fn serve(door: Door, routes: Router, stop: CancellationToken) {
    serve_as_is(door, extract::with_fallbacks(routes), stop).await;
}

/// Serves routes that say themselves what becomes of everything else.
pub(in crate::api) async fn serve_as_is(door: Door, routes: Router, stop: CancellationToken) {
    let routes = routes.layer(DefaultBodyLimit::max(BODY_MAX));
    let socket = door.path.display().to_string();
    // axum leaves open connections to themselves; this cuts them when we return.
    let cut = CancellationToken::new();
    let _cut_at_the_end = cut.clone().drop_guard();
    let bounded = Bounded {
        slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        door,
        cut,
    };
    let stopped = stop.clone();
    let served = axum::serve(bounded, routes)
        .with_graceful_shutdown(async move { stopped.cancelled().await })
        .into_future();
    let drained = async {
        stop.cancelled().await;
        sleep(DRAIN).await;
    };
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::warn!(%error, socket, "a socket is not served any more");
            }
        }
        () = drained => tracing::debug!(socket, "requests were still open when the node stopped"),
    }
}

/// A listener that takes no more connections than it has slots.
struct Bounded {
    slots: Arc<Semaphore>,
    door: Door,
    cut: CancellationToken,
}

impl Listener for Bounded {
    type Io = Impatient;
    type Addr = ();

    async fn accept(&mut self) -> (Impatient, ()) {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        // axum's own `accept` waits out errors such as too many open files.
        let (stream, _unnamed) = Listener::accept(&mut self.door.listener).await;
        (Impatient::new(stream, self.cut.clone(), slot), ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection whose reader must keep reading: after [`UNREAD_MAX`] with nothing taken, it is cut, and so it is at the end.
struct Impatient {
    stream: UnixStream,
    waiting: Option<Pin<Box<Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _slot: OwnedSemaphorePermit,
}

impl Impatient {
    fn new(stream: UnixStream, cut: CancellationToken, slot: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            waiting: None,
            cut: Box::pin(cut.cancelled_owned()),
            _slot: slot,
        }
    }

    fn limit<T>(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.waiting = None;
            return wrote;
        }
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep(UNREAD_MAX)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper reads all the time, to hear of a client that hangs up.
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limit(context, wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.limit(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_group_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/weft.sock");

        let door = Door::open(&path).await.unwrap();

        let mode = std::fs::metadata(door.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        drop(door);
        assert!(!path.exists());
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nwefts:x:7:\nweft:x:998:anna,ben\nbroken:x\n";

        assert_eq!(group_id(groups, "weft"), Some(998));
        assert_eq!(group_id(groups, "wef"), None);
        assert_eq!(group_id(groups, "broken"), None);
    }

    #[tokio::test]
    async fn the_engines_socket_is_for_its_owner_only_and_names_its_own_option() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weft.sock");

        let door = Door::open_for(Purpose::DOCKER, &path).await.unwrap();
        let second = Door::open_for(Purpose::DOCKER, &path).await;

        let mode = std::fs::metadata(door.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refused = second.unwrap_err().to_string();
        assert!(refused.contains("--docker-plugin"), "{refused}");
    }

    #[tokio::test]
    async fn a_served_socket_is_not_taken_and_an_abandoned_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weft.sock");
        let served = Door::open(&path).await.unwrap();

        let second = Door::open(&path).await;

        assert!(matches!(second, Err(DoorError::InUse { .. })));
        drop(served);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(Door::open(&path).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        std::fs::write(&path, "mine").unwrap();

        let refused = Door::open(&path).await;

        assert!(matches!(refused, Err(DoorError::NoSocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_is_refused_clearly() {
        let path = PathBuf::from(format!("/tmp/{}/weft.sock", "x".repeat(120)));

        let refused = Door::open(&path).await.unwrap_err().to_string();

        assert!(refused.contains("107 bytes"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_reading_is_cut() {
        use tokio::io::AsyncWriteExt;
        let (stream, _unread) = UnixStream::pair().unwrap();
        let slot = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let mut impatient = Impatient::new(stream, CancellationToken::new(), slot);

        let cut = impatient.write_all(&vec![0; 16 * 1024 * 1024]).await;

        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
