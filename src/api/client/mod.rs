//! A client of the control API, over its unix socket. The command line and the tests use it.

mod cluster;
mod dataplane;
mod members;
mod trust;
mod uri;
mod watch;

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

pub use watch::Watch;

use self::uri::{
    at_driver, at_endpoint, at_join, at_key, at_network, at_plugin, at_table, at_watch, waiting,
};
use super::http::ipam::Pool;
use super::http::types::{
    Applied, Blob, CreateEndpoint, CreateNetwork, Driver, Endpoint, EndpointDetail, Entry,
    ErrorBody, Failure, JoinQuery, Leave, Left, LeftEndpoint, ListedNetwork, Network,
    NetworkDetail, Plugin, PutEntry, PutMode, RotateToken, Status, Table, Token, WatchQuery,
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

    /// Asks for all networks.
    pub async fn networks(&self) -> Result<Vec<Network>, ClientError> {
        self.get("/v1/networks").await
    }

    /// Asks for all networks, and how far each has come on this node.
    pub async fn network_states(&self) -> Result<Vec<ListedNetwork>, ClientError> {
        self.get("/v1/networks").await
    }

    /// Asks how much of each subnet is leased and in use.
    pub async fn ipam(&self) -> Result<Vec<Pool>, ClientError> {
        self.get("/v1/ipam").await
    }

    /// Asks for one network, by name or number.
    pub async fn network(&self, network: &str) -> Result<NetworkDetail, ClientError> {
        self.get(&at_network(network, "")).await
    }

    /// Asks for one network once this node has set it up and has all its entries, or as it is after `wait`.
    pub async fn network_until_synced(
        &self,
        network: &str,
        wait: Duration,
    ) -> Result<NetworkDetail, ClientError> {
        let uri = waiting(at_network(network, ""), wait);
        self.patient(wait).get(&uri).await
    }

    /// Waits until every live member of a network has all that this node has written in it, at most for `wait`.
    pub async fn applied(&self, network: &str, wait: Duration) -> Result<Applied, ClientError> {
        let uri = waiting(at_network(network, "/applied"), wait);
        self.patient(wait).send(Method::POST, &uri, NOTHING).await
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

    /// Asks for one endpoint, its table entries, and who may not have them.
    pub async fn endpoint(
        &self,
        network: &str,
        endpoint: &str,
    ) -> Result<EndpointDetail, ClientError> {
        self.get(&at_endpoint(network, endpoint, "")).await
    }

    /// Asks for the drivers that the node has.
    pub async fn drivers(&self) -> Result<Vec<Driver>, ClientError> {
        self.get("/v1/drivers").await
    }

    /// Asks for what a name stands for, of each kind of driver; a plugin that is not in use yet is activated.
    pub async fn driver(&self, driver: &str) -> Result<Vec<Driver>, ClientError> {
        self.get(&at_driver(driver)).await
    }

    /// Asks for the plugins of the node's host.
    pub async fn plugins(&self) -> Result<Vec<Plugin>, ClientError> {
        self.get("/v1/plugins").await
    }

    /// Asks for one plugin of the node's host.
    pub async fn plugin(&self, plugin: &str) -> Result<Plugin, ClientError> {
        self.get(&at_plugin(plugin)).await
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

    /// Joins an endpoint of this node to its network, and has the daemon move its interface into a sandbox, if one is named.
    pub async fn endpoint_enter(
        &self,
        network: &str,
        endpoint: &str,
        sandbox: &JoinQuery,
    ) -> Result<Endpoint, ClientError> {
        let uri = at_join(network, endpoint, sandbox);
        self.send(Method::POST, &uri, NOTHING).await
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

    /// Takes an endpoint of this node out of its network, and waits until every live member of the network has heard of it,
    /// at most for `wait`.
    pub async fn endpoint_leave_applied(
        &self,
        network: &str,
        endpoint: &str,
        wait: Duration,
    ) -> Result<LeftEndpoint, ClientError> {
        let uri = waiting(at_endpoint(network, endpoint, "/leave"), wait);
        self.patient(wait).send(Method::POST, &uri, NOTHING).await
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
        self.follow(&at_watch(query)).await
    }

    async fn follow<E: DeserializeOwned>(&self, uri: &str) -> Result<Watch<E>, ClientError> {
        let opened = self.open(request(Method::GET, uri, NOTHING));
        let (response, connection) = self.in_time(opened).await?;
        if !response.status().is_success() {
            let status = response.status();
            let body = self.in_time(self.read(response, connection)).await?;
            return Err(self.refusal(status, &body));
        }
        Ok(Watch::new(&self.socket, response, connection))
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

    /// Returns a client that gives a call the time which the daemon is told to wait, on top of its own.
    fn patient(&self, wait: Duration) -> Self {
        self.clone().with_deadline(self.deadline + wait)
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
