//! Who is asked for names that are not ours: the host's resolvers. What they answer is passed on as it is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::Transport;

/// How long each of them has.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How many of them are asked, one after the other.
const SERVERS_MAX: usize = 3;
/// The longest answer in a datagram.
const DATAGRAM_MAX: usize = 4096;
/// The port of DNS.
const PORT: u16 = 53;

/// Where to pass queries on.
#[derive(Clone, Debug)]
pub struct Upstream {
    servers: Servers,
    /// Where we listen ourselves: a query must not come back to us.
    ours: SocketAddr,
}

#[derive(Clone, Debug)]
enum Servers {
    These(Vec<SocketAddr>),
    /// Those that a file of resolv.conf(5) names when they are needed.
    File(PathBuf),
}

impl Upstream {
    /// Passes on to these servers.
    pub fn these(servers: Vec<SocketAddr>, ours: SocketAddr) -> Self {
        let servers = Servers::These(servers);
        Self { servers, ours }
    }

    /// Passes on to whom this host asks.
    pub fn of_host(ours: SocketAddr) -> Self {
        let servers = Servers::File("/etc/resolv.conf".into());
        Self { servers, ours }
    }

    /// Asks one server after the other; nothing if there is none, an error if none has answered in time.
    pub(super) async fn ask(
        &self,
        query: &[u8],
        transport: Transport,
    ) -> Option<io::Result<Vec<u8>>> {
        let mut servers = match &self.servers {
            Servers::These(servers) => servers.clone(),
            Servers::File(path) => {
                let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
                nameservers(&text)
            }
        };
        servers.retain(|server| !self.is_us(*server));
        let mut outcome = None;
        for server in servers.into_iter().take(SERVERS_MAX) {
            let asked = async {
                match transport {
                    Transport::Udp => over_udp(server, query).await,
                    Transport::Tcp => over_tcp(server, query).await,
                }
            };
            let answer = match timeout(ANSWER_MAX, asked).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(elapsed.into()),
            };
            if answer.is_ok() {
                return Some(answer);
            }
            outcome = Some(answer);
        }
        outcome
    }

    fn is_us(&self, server: SocketAddr) -> bool {
        let same_host = server.ip() == self.ours.ip()
            || (self.ours.ip().is_unspecified() && server.ip().is_loopback());
        same_host && server.port() == self.ours.port()
    }
}

/// Reads the nameservers of resolv.conf(5).
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())
    });
    words
        .flatten()
        .map(|server| SocketAddr::new(server, PORT))
        .collect()
}

async fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A port of its own for each query, which the kernel draws at random.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if is_answer(&buffer[..len], query) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let prefix = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&prefix.to_be_bytes()[..], query].concat())
        .await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    if is_answer(&answer, query) {
        Ok(answer)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// An answer has the query's id and says that it is one.
fn is_answer(answer: &[u8], query: &[u8]) -> bool {
    answer.len() >= 12
        && answer.get(..2) == query.get(..2)
        && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_as_the_host_reads_them() {
        let text = "# a comment\nsearch example.org\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver x\n";

        assert_eq!(
            nameservers(text),
            [
                "192.0.2.1:53".parse().unwrap(),
                "[2001:db8::1]:53".parse().unwrap()
            ]
        );
    }

    #[test]
    fn a_query_is_not_passed_on_to_ourselves() {
        let servers = ["10.0.0.1:53", "127.0.0.1:53", "10.0.0.2:53"];
        let passed = |ours: &str| {
            let upstream = Upstream::these(Vec::new(), ours.parse().unwrap());
            let others = servers
                .iter()
                .filter(|server| !upstream.is_us(server.parse().unwrap()));
            others.copied().collect::<Vec<_>>()
        };

        assert_eq!(passed("10.0.0.1:53"), ["127.0.0.1:53", "10.0.0.2:53"]);
        assert_eq!(passed("0.0.0.0:53"), ["10.0.0.1:53", "10.0.0.2:53"]);
        assert_eq!(passed("10.0.0.1:54").len(), 3);
    }
}
