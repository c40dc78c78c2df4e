//! A netlink socket of one network namespace, and what the kernel says no to.

use std::io;

use futures_util::StreamExt;
use rtnetlink::{
    Error, Handle, MulticastGroup,
    packet_core::NetlinkPayload,
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::task::JoinSet;

use crate::{core::model::NetworkId, dataplane::DataplaneError};

/// How much the kernel may have answered before it is read, in bytes: what a thousand requests under way bring.
const BUFFER: usize = 1 << 20;
/// What is listened to for changes by others.
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

/// A way to ask one namespace, with the task that reads the answers.
pub(super) struct Netlink {
    pub(super) handle: Handle,
    _driver: JoinSet<()>,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread, which must be in a runtime's context.
    pub(super) fn open() -> io::Result<Self> {
        let socket = TokioSocket::new(NETLINK_ROUTE)?;
        let is_larger = socket.socket_ref().set_rx_buf_sz(BUFFER);
        if let Err(error) = is_larger {
            tracing::debug!(%error, "a netlink socket keeps its small buffer");
        }
        let (connection, handle, _unasked) = rtnetlink::from_socket(socket);
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self {
            handle,
            _driver: driver,
        })
    }
}

/// Calls `heard` for every change in the namespace of the calling thread, until dropped.
///
/// What is missed in a flood of changes is found by the slow clock.
pub(super) fn listen(
    heard: impl Fn(&RouteNetlinkMessage) + Send + 'static,
) -> io::Result<JoinSet<()>> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let groups = GROUPS
        .iter()
        .fold(0, |all, group| all | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    socket.socket_ref().set_no_enobufs(true)?;
    let (connection, handle, mut news) = rtnetlink::from_socket(socket);
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    tasks.spawn(async move {
        // The connection ends when its handle goes.
        let _kept = handle;
        while let Some((message, _)) = news.next().await {
            if let NetlinkPayload::InnerMessage(message) = &message.payload {
                heard(message);
            }
        }
    });
    Ok(tasks)
}

/// Whether something is taken away or a link altered. The rest adds what we add ourselves, or is of no use here.
pub(super) fn takes_away(message: &RouteNetlinkMessage) -> bool {
    matches!(
        message,
        RouteNetlinkMessage::NewLink(_)
            | RouteNetlinkMessage::DelLink(_)
            | RouteNetlinkMessage::DelNeighbour(_)
            | RouteNetlinkMessage::DelAddress(_)
    )
}

/// Returns the kernel's error number; 0 if it was none of the kernel's.
pub(super) fn errno(error: &Error) -> i32 {
    if let Error::NetlinkError(message) = error {
        return -message.raw_code();
    }
    0
}

/// Makes an error of ours of what the kernel said to `what`.
pub(super) fn refused(what: impl Into<String>) -> impl FnOnce(Error) -> DataplaneError {
    move |error| DataplaneError::Refused {
        what: what.into(),
        reason: reason(&error),
    }
}

/// Says in words what the kernel said.
pub(super) fn reason(error: &Error) -> String {
    if let Error::NetlinkError(message) = error {
        return message.to_io().to_string();
    }
    error.to_string()
}

/// As [`refused`], but a device or bridge that is not there means that somebody has taken it away.
pub(super) fn refused_in(
    network: NetworkId,
    what: impl Into<String>,
) -> impl FnOnce(Error) -> DataplaneError {
    move |error| match errno(&error) {
        libc_errno::ENODEV => DataplaneError::LinkGone(network),
        _ => refused(what)(error),
    }
}

/// Takes one of these error numbers for success: it is as it should be already.
pub(super) fn unless(outcome: Result<(), Error>, fine: &[i32]) -> Result<(), Error> {
    match outcome {
        Err(error) if fine.contains(&errno(&error)) => Ok(()),
        other => other,
    }
}

/// The kernel's error numbers that are looked at.
pub(super) mod libc_errno {
    use nix::errno::Errno;

    pub(in crate::dataplane::linux) const ENOENT: i32 = Errno::ENOENT as i32;
    pub(in crate::dataplane::linux) const EEXIST: i32 = Errno::EEXIST as i32;
    pub(in crate::dataplane::linux) const ENODEV: i32 = Errno::ENODEV as i32;
    pub(in crate::dataplane::linux) const EADDRINUSE: i32 = Errno::EADDRINUSE as i32;
    pub(in crate::dataplane::linux) const EADDRNOTAVAIL: i32 = Errno::EADDRNOTAVAIL as i32;
}
