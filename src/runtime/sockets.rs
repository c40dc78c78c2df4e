//! The node's two sockets: UDP for datagrams and TCP for streams, on one port number.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, UdpSocket};

/// How often a free port is looked for that both protocols have.
const TRIES: usize = 32;

/// Why the node's port could not be had. The operator chooses another, or ends what holds it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has it.
    #[error(
        "{addr} ({protocol}) is in use: end the program that holds it, or choose another with --listen"
    )]
    InUse {
        /// The address that was asked for.
        addr: SocketAddr,
        /// Which of the two.
        protocol: &'static str,
    },
    /// The system refuses it.
    #[error("cannot listen on {addr} ({protocol}): {source}")]
    Refused {
        /// The address that was asked for.
        addr: SocketAddr,
        /// Which of the two.
        protocol: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl BindError {
    fn new(addr: SocketAddr, protocol: &'static str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::InUse { addr, protocol }
        } else {
            Self::Refused {
                addr,
                protocol,
                source,
            }
        }
    }
}

/// The bound sockets.
#[derive(Debug)]
pub struct Sockets {
    /// Datagrams.
    pub udp: UdpSocket,
    /// Streams.
    pub tcp: TcpListener,
    /// Where both are bound.
    pub addr: SocketAddr,
}

impl Sockets {
    /// Binds both to `listen`; port 0 picks one that is free for both.
    pub async fn bind(listen: SocketAddr) -> Result<Self, BindError> {
        let mut tries = if listen.port() == 0 { TRIES } else { 1 };
        loop {
            tries -= 1;
            let tcp = TcpListener::bind(listen).await;
            let tcp = tcp.map_err(|source| BindError::new(listen, "TCP", source))?;
            let addr = tcp
                .local_addr()
                .map_err(|source| BindError::new(listen, "TCP", source))?;
            match UdpSocket::bind(addr).await {
                Ok(udp) => return Ok(Self { udp, tcp, addr }),
                Err(_taken) if tries > 0 => {}
                Err(source) => return Err(BindError::new(addr, "UDP", source)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sockets_share_a_port_number() {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();

        assert_eq!(
            sockets.udp.local_addr().unwrap(),
            sockets.tcp.local_addr().unwrap()
        );
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let holder = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();

        let error = Sockets::bind(holder.addr).await.unwrap_err();

        assert!(matches!(error, BindError::InUse { .. }));
        assert!(error.to_string().contains(&holder.addr.to_string()));
    }
}
