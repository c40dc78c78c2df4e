//! A client of the control API, over its unix socket. The command line and the tests use it.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::http::{
    sse::{SseError, SseReader},
    types::{
        Blob, CreateEndpoint, CreateNetwork, Encoding, Endpoint, Entry, ErrorBody, Failure,
        KeyQuery, Leave, Left, Member, Network, NetworkDetail, PutEntry, PutMode, RotateToken,
        Status, Table, Token, WatchEvent, WatchQuery,
    },
};

/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 256 * 1024 * 1024;
/// How long a call may take unless told otherwise: longer than a new leader takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves the socket.
    #[error(
        "no weft daemon answers at {socket}: start one with `weft up`, or name its socket with --socket ({source})"
    )]
    NoDaemon {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The caller may not use the socket.
    #[error("no permission to use {socket}: become a member of group weft, or root ({source})")]
    Denied {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The daemon has not answered in time.
    #[error("the daemon at {socket} has not answered within {}", Seconds(*.after))]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// How long it was given.
        after: Duration,
    },
    /// The connection broke.
    #[error("the daemon at {socket} closed the connection: {source}")]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// How it broke.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What answers is no weft daemon, or a much older or newer one.
    #[error("what answers at {socket} is not understood: {what}")]
    Foreign {
        /// The socket.
        socket: PathBuf,
        /// What was not understood.
        what: String,
    },
}

struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

/// A client. Each call opens a connection of its own, so it outlives restarts of the daemon.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

impl Client {
    /// Makes a client of the daemon that serves `socket`; nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            deadline: DEADLINE,
        }
    }

    /// Gives each call this long.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Returns the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks how the node is.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Asks for the members.
    pub async fn members(&self) -> Result<Vec<Member>, ClientError> {
        self.get("/v1/members").await
    }

    /// Asks for all networks.
    pub async fn networks(&self) -> Result<Vec<Network>, ClientError> {
        self.get("/v1/networks").await
    }

    /// Asks for one network, by name or number.
    pub async fn network(&self, network: &str) -> Result<NetworkDetail, ClientError> {
        self.get(&at_network(network, "")).await
    }

    /// Creates a network; the leader answers.
    pub async fn network_create(&self, wish: &CreateNetwork) -> Result<Network, ClientError> {
        self.send(Method::POST, "/v1/networks", Some(wish)).await
    }

    /// Removes a network that has no endpoints.
    pub async fn network_remove(&self, network: &str) -> Result<(), ClientError> {
        self.done(Method::DELETE, &at_network(network, ""), NOTHING)
            .await
    }

    /// Asks for the endpoints of one network, or of all.
    pub async fn endpoints(&self, network: Option<&str>) -> Result<Vec<Endpoint>, ClientError> {
        match network {
            Some(network) => self.get(&at_network(network, "/endpoints")).await,
            None => self.get("/v1/endpoints").await,
        }
    }

    /// Creates an endpoint on this node.
    pub async fn endpoint_create(
        &self,
        network: &str,
        wish: &CreateEndpoint,
    ) -> Result<Endpoint, ClientError> {
        self.send(Method::POST, &at_network(network, "/endpoints"), Some(wish))
            .await
    }

    /// Joins an endpoint of this node to its network.
    pub async fn endpoint_join(
        &self,
        network: &str,
        endpoint: &str,
    ) -> Result<Endpoint, ClientError> {
        self.send(
            Method::POST,
            &at_endpoint(network, endpoint, "/join"),
            NOTHING,
        )
        .await
    }

    /// Takes an endpoint of this node out of its network.
    pub async fn endpoint_leave(
        &self,
        network: &str,
        endpoint: &str,
    ) -> Result<Endpoint, ClientError> {
        self.send(
            Method::POST,
            &at_endpoint(network, endpoint, "/leave"),
            NOTHING,
        )
        .await
    }

    /// Removes an endpoint of this node, taking it out of its network first.
    pub async fn endpoint_remove(&self, network: &str, endpoint: &str) -> Result<(), ClientError> {
        self.done(Method::DELETE, &at_endpoint(network, endpoint, ""), NOTHING)
            .await
    }

    /// Asks for the tables of a network.
    pub async fn tables(&self, network: &str) -> Result<Vec<Table>, ClientError> {
        self.get(&at_network(network, "/tables")).await
    }

    /// Asks for the entries of a table.
    pub async fn entries(&self, network: &str, table: &str) -> Result<Vec<Entry>, ClientError> {
        self.get(&at_table(network, table)).await
    }

    /// Asks for one entry.
    pub async fn entry(
        &self,
        network: &str,
        table: &str,
        key: &Blob,
    ) -> Result<Entry, ClientError> {
        self.get(&at_key(network, table, key)).await
    }

    /// Writes an entry of this node, whatever was there.
    pub async fn put(
        &self,
        network: &str,
        table: &str,
        key: &Blob,
        value: Blob,
    ) -> Result<(), ClientError> {
        let mode = PutMode::Upsert;
        self.put_with(network, table, key, &PutEntry { value, mode })
            .await
    }

    /// Writes an entry of this node.
    pub async fn put_with(
        &self,
        network: &str,
        table: &str,
        key: &Blob,
        entry: &PutEntry,
    ) -> Result<(), ClientError> {
        self.done(Method::PUT, &at_key(network, table, key), Some(entry))
            .await
    }

    /// Removes an entry of this node.
    pub async fn remove(&self, network: &str, table: &str, key: &Blob) -> Result<(), ClientError> {
        self.done(Method::DELETE, &at_key(network, table, key), NOTHING)
            .await
    }

    /// Watches entries: first those that are there, then every change.
    pub async fn watch(&self, query: &WatchQuery) -> Result<Watch, ClientError> {
        let mut uri = String::from("/v1/watch?");
        let from = query.from.map(|revision| revision.to_string());
        let encoding = query.prefix.as_ref().map(|_| encoding_word(query.encoding));
        let parts = [
            ("network", Some(query.network.as_str())),
            ("table", query.table.as_ref().map(|table| table.as_str())),
            ("prefix", query.prefix.as_deref()),
            ("encoding", encoding),
            ("from", from.as_deref()),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                uri.push_str(name);
                uri.push('=');
                escape(value, &mut uri);
                uri.push('&');
            }
        }
        uri.pop();
        let opened = self.open(request(Method::GET, &uri, NOTHING));
        let (response, connection) = self.in_time(opened).await?;
        if !response.status().is_success() {
            let status = response.status();
            let body = self.in_time(self.read(response, connection)).await?;
            return Err(self.refusal(status, &body));
        }
        Ok(Watch {
            socket: self.socket.clone(),
            connection: Some(connection),
            body: response.into_body(),
            reader: SseReader::default(),
        })
    }

    /// Asks for the join token.
    pub async fn token(&self) -> Result<Token, ClientError> {
        self.get("/v1/token").await
    }

    /// Makes a new join token; the old one is refused from then on.
    pub async fn token_rotate(&self) -> Result<Token, ClientError> {
        let wish = RotateToken { rotate: true };
        self.send(Method::POST, "/v1/token", Some(&wish)).await
    }

    /// Leaves the cluster; the daemon forgets it and ends.
    pub async fn leave(&self, force: bool) -> Result<Left, ClientError> {
        self.send(Method::POST, "/v1/leave", Some(&Leave { force }))
            .await
    }

    /// Asks for the metrics, in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let text = self
            .exchange(request(Method::GET, "/v1/metrics", NOTHING))
            .await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Asks whether the node is up and ready.
    pub async fn healthy(&self) -> Result<(), ClientError> {
        self.done(Method::GET, "/v1/healthz", NOTHING).await
    }

    async fn get<T: DeserializeOwned>(&self, uri: &str) -> Result<T, ClientError> {
        self.send(Method::GET, uri, NOTHING).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let answer = self.exchange(request(method, uri, body)).await?;
        serde_json::from_slice(&answer).map_err(|error| self.foreign(&error))
    }

    async fn done(
        &self,
        method: Method,
        uri: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(), ClientError> {
        self.exchange(request(method, uri, body)).await?;
        Ok(())
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Bytes, ClientError> {
        let answered = async {
            let (response, connection) = self.open(request).await?;
            let status = response.status();
            let body = self.read(response, connection).await?;
            if status.is_success() {
                Ok(body)
            } else {
                Err(self.refusal(status, &body))
            }
        };
        self.in_time(answered).await
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        timeout(self.deadline, call)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(ClientError::TimedOut {
                    socket: self.socket.clone(),
                    after: self.deadline,
                })
            })
    }

    /// Sends a request and returns the answer's head. The connection must be driven while the body is read.
    async fn open(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Pin<Box<Connection>>), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| self.unreachable(source))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&self.socket, error))?;
        let mut connection = Box::pin(connection);
        let mut answered = std::pin::pin!(sender.send_request(request));
        let response = tokio::select! {
            biased;
            response = &mut answered => response,
            // The connection has ended, so the answer is there or never comes.
            _ended = &mut connection => answered.await,
        };
        let response = response.map_err(|error| broken(&self.socket, error))?;
        Ok((response, connection))
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        mut connection: Pin<Box<Connection>>,
    ) -> Result<Bytes, ClientError> {
        let mut collected =
            std::pin::pin!(Limited::new(response.into_body(), ANSWER_MAX).collect());
        let body = tokio::select! {
            biased;
            body = &mut collected => body,
            _ended = &mut connection => collected.await,
        };
        let body = body.map_err(|source| ClientError::Broken {
            socket: self.socket.clone(),
            source,
        })?;
        Ok(body.to_bytes())
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        if source.kind() == io::ErrorKind::PermissionDenied {
            ClientError::Denied { socket, source }
        } else {
            ClientError::NoDaemon { socket, source }
        }
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) => ClientError::Refused(body.error),
            Err(_other_shape) => ClientError::Foreign {
                socket: self.socket.clone(),
                what: format!("status {status} without an error that weft would send"),
            },
        }
    }

    fn foreign(&self, error: &serde_json::Error) -> ClientError {
        ClientError::Foreign {
            socket: self.socket.clone(),
            what: error.to_string(),
        }
    }
}

/// A running watch. It ends with the daemon, or when nobody reads it for long.
#[derive(Debug)]
pub struct Watch {
    socket: PathBuf,
    connection: Option<Pin<Box<Connection>>>,
    body: Incoming,
    reader: SseReader,
}

impl Watch {
    /// Waits for the next event; nothing when the stream has ended. It may be cancelled without losing any.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, ClientError>> {
        loop {
            if let Some(event) = self.reader.poll_event() {
                let parsed = serde_json::from_str(&event.data);
                return Some(parsed.map_err(|error| self.foreign(&error.to_string())));
            }
            let frame = match self.connection.as_mut() {
                Some(connection) => tokio::select! {
                    biased;
                    frame = self.body.frame() => frame,
                    _ended = connection => {
                        self.connection = None;
                        continue;
                    }
                },
                None => self.body.frame().await,
            };
            let read = match frame? {
                Ok(frame) => self.handle_frame(&frame.into_data().unwrap_or_default()),
                Err(error) => Err(broken(&self.socket, error)),
            };
            if let Err(error) = read {
                return Some(Err(error));
            }
        }
    }

    fn handle_frame(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.reader
            .handle_bytes(bytes)
            .map_err(|error: SseError| self.foreign(&error.to_string()))
    }

    fn foreign(&self, what: &str) -> ClientError {
        ClientError::Foreign {
            socket: self.socket.clone(),
            what: what.to_owned(),
        }
    }
}

fn broken(socket: &Path, error: hyper::Error) -> ClientError {
    ClientError::Broken {
        socket: socket.to_owned(),
        source: error.into(),
    }
}

/// No body.
const NOTHING: Option<&()> = None;

fn request(method: Method, uri: &str, body: Option<&impl Serialize>) -> Request<Full<Bytes>> {
    let body = body.map(|body| {
        serde_json::to_vec(body).expect("our own types have string keys and no failing fields")
    });
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "weft")
        .header("content-type", "application/json")
        .body(Full::new(body.unwrap_or_default().into()))
        .expect("every part of the uri is escaped")
}

fn at_network(network: &str, rest: &str) -> String {
    let mut uri = String::from("/v1/networks/");
    escape(network, &mut uri);
    uri.push_str(rest);
    uri
}

fn at_endpoint(network: &str, endpoint: &str, rest: &str) -> String {
    let mut uri = at_network(network, "/endpoints/");
    escape(endpoint, &mut uri);
    uri.push_str(rest);
    uri
}

fn at_table(network: &str, table: &str) -> String {
    let mut uri = at_network(network, "/tables/");
    escape(table, &mut uri);
    uri
}

fn at_key(network: &str, table: &str, key: &Blob) -> String {
    let query = match key.as_text() {
        Some(text) => KeyQuery {
            key: text.to_owned(),
            encoding: Encoding::Utf8,
        },
        None => KeyQuery {
            key: key.to_base64(),
            encoding: Encoding::Base64,
        },
    };
    let mut uri = at_table(network, table);
    uri.push_str("/entries?encoding=");
    uri.push_str(encoding_word(query.encoding));
    uri.push_str("&key=");
    escape(&query.key, &mut uri);
    uri
}

fn encoding_word(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Utf8 => "utf-8",
        Encoding::Base64 => "base64",
    }
}

/// Writes a part of a uri: all but the unreserved characters (RFC 3986 §2.3) as `%XX`.
fn escape(part: &str, uri: &mut String) {
    use std::fmt::Write;
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || byte == b'.' && part.len() > 2
        {
            uri.push(char::from(byte));
        } else {
            write!(uri, "%{byte:02X}").expect("a string takes everything");
        }
    }
}
