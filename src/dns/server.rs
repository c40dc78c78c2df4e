//! Serves the names over UDP and TCP.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Answered, Asked, Askers, Names, Transport, Upstream, answer, answer::failed};

/// The longest query that is read, in bytes. A longer datagram is cut, and what is left is malformed.
const QUERY_MAX: usize = 4096;

/// How many TCP connections are served at once. At the bound a new one waits, at most for [`IDLE_MAX`] of the others.
const CONNECTIONS_MAX: usize = 64;

/// How many queries are passed on to others at once. One more is told that we failed, and asks again.
const PASSED_ON_MAX: usize = 256;

/// How long a TCP connection may take for its next query, and for taking our answer.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// How long we rest when a socket fails, so that a lasting failure does not keep a core busy.
const REST: Duration = Duration::from_millis(100);

/// What queries are answered from.
pub struct Service<N> {
    /// The names.
    pub names: watch::Receiver<N>,
    /// Who asks from where.
    pub askers: watch::Receiver<Askers>,
    /// Who answers for what is not ours.
    pub upstream: Upstream,
    /// For how long an answer of ours may be kept.
    pub ttl: Duration,
}

/// A service under way.
struct Served<N> {
    service: Service<N>,
    turn: AtomicUsize,
    passed_on: Semaphore,
}

/// Answers queries until `shutdown`. Each query sees the names as they are when it is read.
pub async fn serve<N>(
    udp: UdpSocket,
    tcp: TcpListener,
    service: Service<N>,
    shutdown: CancellationToken,
) where
    N: Names + Send + Sync + 'static,
{
    let served = Arc::new(Served {
        service,
        turn: AtomicUsize::new(0),
        passed_on: Semaphore::new(PASSED_ON_MAX),
    });
    let udp = Arc::new(udp);
    let both = async { tokio::join!(serve_udp(&udp, &served), serve_tcp(&tcp, &served)) };
    shutdown.run_until_cancelled(both).await;
}

impl<N: Names> Served<N> {
    fn answer(&self, query: &[u8], from: IpAddr, transport: Transport) -> Answered {
        let names = self.service.names.borrow();
        let known = self.service.askers.borrow().get(&from).cloned();
        let own = || names.network_of(from).map(|network| [network].into());
        let asked = Asked {
            transport,
            networks: known.or_else(own),
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
            ttl: self.service.ttl,
        };
        answer(query, &*names, &asked)
    }

    /// Asks others; `refused` if there are none, and that we failed if none has answered or too many are asked already.
    async fn pass_on(
        &self,
        query: &[u8],
        refused: Vec<u8>,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let Ok(_permit) = self.passed_on.try_acquire() else {
            return failed(query);
        };
        match self.service.upstream.ask(query, transport).await {
            None => Some(refused),
            Some(Ok(answer)) => Some(answer),
            Some(Err(error)) => {
                tracing::debug!(%error, "a DNS query was passed on, and nobody answered");
                failed(query)
            }
        }
    }
}

async fn serve_udp<N>(socket: &Arc<UdpSocket>, served: &Arc<Served<N>>)
where
    N: Names + Send + Sync + 'static,
{
    let mut buffer = [0; QUERY_MAX];
    // As many as are passed on at once, and those that are told that it is too many.
    let mut passing = JoinSet::new();
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(_ended) = passing.join_next() => continue,
        };
        let (len, from) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "cannot receive DNS queries");
                sleep(REST).await;
                continue;
            }
        };
        let query = &buffer[..len];
        match served.answer(query, from.ip(), Transport::Udp) {
            Answered::Nothing => {}
            Answered::With(bytes) => send(socket, &bytes, from).await,
            Answered::NotOurs(refused) => {
                let (socket, served, query) = (socket.clone(), served.clone(), query.to_vec());
                passing.spawn(async move {
                    let passed_on = served.pass_on(&query, refused, Transport::Udp).await;
                    if let Some(bytes) = passed_on {
                        send(&socket, &bytes, from).await;
                    }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%error, %to, "a DNS answer was not sent");
    }
}

async fn serve_tcp<N>(listener: &TcpListener, served: &Arc<Served<N>>)
where
    N: Names + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    connections.spawn(serve_connection(stream, from.ip(), served.clone()));
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
async fn serve_connection<N: Names>(mut stream: TcpStream, from: IpAddr, served: Arc<Served<N>>) {
    while let Ok(Ok(())) = timeout(IDLE_MAX, serve_one(&mut stream, from, &served)).await {}
}

async fn serve_one<N: Names>(
    stream: &mut TcpStream,
    from: IpAddr,
    served: &Served<N>,
) -> io::Result<()> {
    let len = usize::from(stream.read_u16().await?);
    if len > QUERY_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut query = vec![0; len];
    stream.read_exact(&mut query).await?;
    let bytes = match served.answer(&query, from, Transport::Tcp) {
        Answered::Nothing => None,
        Answered::With(bytes) => Some(bytes),
        Answered::NotOurs(refused) => served.pass_on(&query, refused, Transport::Tcp).await,
    };
    let bytes = bytes.ok_or(io::ErrorKind::InvalidData)?;
    let prefix = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&prefix.to_be_bytes()[..], &bytes].concat())
        .await
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query, ResponseCode},
        rr::{Name as DnsName, RecordType},
    };

    use super::*;
    use crate::{
        core::model::{EndpointId, EndpointRecord, Name, NetworkId, NetworkRecord, Prefix},
        dns::NameTable,
    };

    /// Another one than if nobody had said anything.
    const TTL_OF_TESTS: Duration = Duration::from_secs(7);

    #[tokio::test]
    async fn a_name_is_answered_over_udp_and_tcp_as_soon_as_it_is_known() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let (names, watched) = watch::channel(NameTable::default());
        let shutdown = CancellationToken::new();
        let mut server = JoinSet::new();
        server.spawn(serve(udp, tcp, alone(watched), shutdown.clone()));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(udp_at).await.unwrap();
        let mut stream = TcpStream::connect(tcp_at).await.unwrap();

        let before = ask_udp(&client).await;
        names.send_modify(know_web);
        let over_udp = ask_udp(&client).await;
        let over_tcp = [ask_tcp(&mut stream).await, ask_tcp(&mut stream).await];

        assert!(before.answers.is_empty());
        assert_eq!(over_udp.answers.len(), 1);
        assert_eq!(u64::from(over_udp.answers[0].ttl), TTL_OF_TESTS.as_secs());
        assert!(
            over_tcp
                .iter()
                .all(|message| message.answers == over_udp.answers)
        );
        shutdown.cancel();
        assert!(server.join_next().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn other_names_are_asked_of_others_and_refused_where_there_are_none() {
        let theirs = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = theirs.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (len, from) = theirs.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..len]).unwrap();
                let mut reply = Message::response(query.metadata.id, OpCode::Query);
                reply.queries = query.queries.clone();
                reply.metadata.response_code = ResponseCode::NXDomain;
                theirs
                    .send_to(&reply.to_vec().unwrap(), from)
                    .await
                    .unwrap();
            }
        });
        let mut codes = Vec::new();
        for servers in [vec![at], Vec::new()] {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let ours = udp.local_addr().unwrap();
            let service = Service {
                upstream: Upstream::these(servers, ours),
                ..alone(watch::channel(NameTable::default()).1)
            };
            tasks.spawn(serve(udp, tcp, service, CancellationToken::new()));
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(ours).await.unwrap();
            codes.push(ask_udp(&client).await.metadata.response_code);
        }

        assert_eq!(codes, [ResponseCode::NXDomain, ResponseCode::Refused]);
    }

    /// Nobody else is asked, and nobody is known who asks.
    fn alone(names: watch::Receiver<NameTable>) -> Service<NameTable> {
        Service {
            names,
            askers: watch::channel(Askers::new()).1,
            upstream: Upstream::these(Vec::new(), "127.0.0.1:53".parse().unwrap()),
            ttl: TTL_OF_TESTS,
        }
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
            second: None,
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
