//! Telling systemd how the daemon is (sd_notify(3)): a datagram to the socket that `NOTIFY_SOCKET` names.

use std::{
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// A way to tell systemd; it does nothing where nobody listens.
pub(super) struct Notify {
    socket: Option<OsString>,
}

impl Notify {
    /// Finds the socket.
    pub(super) fn from_environment() -> Self {
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
        }
    }

    /// Says that the daemon is up.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// Says that the daemon goes down.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let send = || -> io::Result<()> {
            let address = match socket.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
            };
            UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
            Ok(())
        };
        if let Err(error) = send() {
            tracing::warn!(%error, "systemd cannot be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_when_the_daemon_is_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notify = Notify {
            socket: Some(path.into()),
        };

        notify.ready("n1 is up");

        let mut heard = [0; 64];
        let length = systemd.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1\nSTATUS=n1 is up\n");
    }

    #[test]
    fn without_systemd_nothing_happens() {
        Notify { socket: None }.ready("n1 is up");
    }
}
