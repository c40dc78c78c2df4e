//! Serves the names over UDP and TCP.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Names, Transport, answer};

/// The longest query that is read, in bytes. A longer datagram is cut, and what is left is malformed.
const QUERY_MAX: usize = 4096;

/// How many TCP connections are served at once. At the bound a new one waits, at most for [`IDLE_MAX`] of the others.
const CONNECTIONS_MAX: usize = 64;

/// How long a TCP connection may take for its next query, and for taking our answer.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// How long we rest when a socket fails, so that a lasting failure does not keep a core busy.
const REST: Duration = Duration::from_millis(100);

/// Answers queries until `shutdown`. Each query sees the names as they are when it is read.
pub async fn serve<N>(
    udp: UdpSocket,
    tcp: TcpListener,
    names: watch::Receiver<N>,
    shutdown: CancellationToken,
) where
    N: Names + Send + Sync + 'static,
{
    let both = async { tokio::join!(serve_udp(&udp, &names), serve_tcp(&tcp, &names)) };
    shutdown.run_until_cancelled(both).await;
}

async fn serve_udp<N: Names>(socket: &UdpSocket, names: &watch::Receiver<N>) {
    let mut buffer = [0; QUERY_MAX];
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "cannot receive DNS queries");
                sleep(REST).await;
                continue;
            }
        };
        let answered = answer(&buffer[..len], &*names.borrow(), Transport::Udp);
        if let Some(bytes) = answered
            && let Err(error) = socket.send_to(&bytes, from).await
        {
            tracing::debug!(%error, %from, "a DNS answer was not sent");
        }
    }
}

async fn serve_tcp<N: Names + Send + Sync + 'static>(
    listener: &TcpListener,
    names: &watch::Receiver<N>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, names.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept DNS connections");
                    sleep(REST).await;
                }
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Ends when the other side does, is silent, or sends what is no query; the reason does not matter to anybody.
async fn serve_connection<N: Names>(mut stream: TcpStream, names: watch::Receiver<N>) {
    while let Ok(Ok(())) = timeout(IDLE_MAX, serve_one(&mut stream, &names)).await {}
}

async fn serve_one<N: Names>(stream: &mut TcpStream, names: &watch::Receiver<N>) -> io::Result<()> {
    let len = usize::from(stream.read_u16().await?);
    if len > QUERY_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut query = vec![0; len];
    stream.read_exact(&mut query).await?;
    let answered = answer(&query, &*names.borrow(), Transport::Tcp);
    let bytes = answered.ok_or(io::ErrorKind::InvalidData)?;
    let prefix = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&prefix.to_be_bytes()[..], &bytes].concat())
        .await
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name as DnsName, RecordType},
    };

    use super::*;
    use crate::{
        core::model::{EndpointId, EndpointRecord, Name, NetworkId, NetworkRecord, Prefix},
        dns::NameTable,
    };

    #[tokio::test]
    async fn a_name_is_answered_over_udp_and_tcp_as_soon_as_it_is_known() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let (names, watched) = watch::channel(NameTable::default());
        let shutdown = CancellationToken::new();
        let mut server = JoinSet::new();
        server.spawn(serve(udp, tcp, watched, shutdown.clone()));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(udp_at).await.unwrap();
        let mut stream = TcpStream::connect(tcp_at).await.unwrap();

        let before = ask_udp(&client).await;
        names.send_modify(know_web);
        let over_udp = ask_udp(&client).await;
        let over_tcp = [ask_tcp(&mut stream).await, ask_tcp(&mut stream).await];

        assert!(before.answers.is_empty());
        assert_eq!(over_udp.answers.len(), 1);
        assert!(
            over_tcp
                .iter()
                .all(|message| message.answers == over_udp.answers)
        );
        shutdown.cancel();
        assert!(server.join_next().await.unwrap().is_ok());
    }

    fn know_web(table: &mut NameTable) {
        table.put_network(NetworkRecord {
            id: NetworkId(1),
            name: Name::new("app").unwrap(),
            driver: Name::new("null").unwrap(),
            options: Default::default(),
            subnets: Vec::new(),
        });
        table.put_endpoint(EndpointRecord {
            id: EndpointId(1),
            network: NetworkId(1),
            name: Name::new("web").unwrap(),
            address: Some(Prefix("10.0.0.2/24".parse().unwrap())),
            mac: "02:00:00:00:00:01".parse().unwrap(),
        });
    }

    fn query() -> Vec<u8> {
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(
            DnsName::from_ascii("web.app.").unwrap(),
            RecordType::A,
        ));
        message.to_vec().unwrap()
    }

    async fn ask_udp(socket: &UdpSocket) -> Message {
        let mut buffer = [0; 1500];
        socket.send(&query()).await.unwrap();
        let len = socket.recv(&mut buffer).await.unwrap();
        Message::from_vec(&buffer[..len]).unwrap()
    }

    async fn ask_tcp(stream: &mut TcpStream) -> Message {
        let query = query();
        stream
            .write_u16(query.len().try_into().unwrap())
            .await
            .unwrap();
        stream.write_all(&query).await.unwrap();
        let mut answered = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answered).await.unwrap();
        Message::from_vec(&answered).unwrap()
    }
}
