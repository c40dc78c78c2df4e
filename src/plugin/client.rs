//! Calls a plugin: HTTP/1.1 over a unix or TCP socket, a connection a call, each with a deadline and a size limit.

use std::{
    fmt, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};

use super::{
    breaker::Breaker,
    tls::{self, TlsFiles},
};

/// The longest answer, in bytes. The longest known one lists a host's plugins.
pub(super) const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// The media type of plugin calls, as the engine sends it.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// Where a plugin listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A host and a port, in clear text.
    Tcp(String),
    /// A host and a port, by TLS.
    Tls(String, Box<TlsFiles>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(authority) | Self::Tls(authority, _) => write!(f, "tcp://{authority}"),
        }
    }
}

/// Why a call has no result. Unless it says otherwise, the plugin may have acted on it.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens: the plugin did not hear the call. It must be started.
    #[error("nobody listens on {address}: {source}")]
    Unreachable {
        /// Where it was looked for.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} did not answer {method} within {deadline:?}")]
    Deadline {
        /// Who was called.
        address: Address,
        /// What was called.
        method: String,
        /// How long it had.
        deadline: Duration,
    },
    /// It is not one of the plugin's methods (404).
    #[error("{address} does not implement {method}")]
    NotImplemented {
        /// Who was called.
        address: Address,
        /// What was called.
        method: String,
    },
    /// It says that it failed, and why.
    #[error("{method}: {message}")]
    Failed {
        /// What was called.
        method: String,
        /// The plugin's own words.
        message: String,
    },
    /// Its answer is longer than 4 MiB.
    #[error("the answer of {address} to {method} is longer than {ANSWER_MAX} bytes")]
    TooLarge {
        /// Who was called.
        address: Address,
        /// What was called.
        method: String,
    },
    /// Its answer is not what the protocol has.
    #[error("the answer of {address} to {method} is malformed: {source}")]
    Malformed {
        /// Who was called.
        address: Address,
        /// What was called.
        method: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The connection broke.
    #[error("the connection to {address} broke in {method}: {reason}")]
    Broken {
        /// Who was called.
        address: Address,
        /// What was called.
        method: String,
        /// How.
        reason: String,
    },
    /// It is not who it should be, or the files that say who it is are wrong. It did not hear the call; the operator must act.
    #[error("TLS with {address}: {reason}")]
    Untrusted {
        /// Who was called.
        address: Address,
        /// What is wrong.
        reason: String,
    },
    /// It let calls run out of time, and is left alone for a while. It did not hear this one.
    #[error(
        "{address} is not asked for {method} for another {wait:?}: it let too many calls in a row run out of time"
    )]
    LeftAlone {
        /// Who was to be called.
        address: Address,
        /// What was to be called.
        method: String,
        /// How long it is left alone yet.
        wait: Duration,
    },
}

impl CallError {
    /// Returns whether the plugin cannot have heard the call, so it may be repeated.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Returns whether nobody listens there at all: the plugin's process has ended.
    pub fn is_gone(&self) -> bool {
        let gone = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];
        matches!(self, Self::Unreachable { source, .. } if gone.contains(&source.kind()))
    }

    /// Returns whether the plugin may have done what it was asked to, or not.
    pub fn is_doubtful(&self) -> bool {
        match self {
            Self::Deadline { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Broken { .. } => true,
            Self::Unreachable { .. }
            | Self::NotImplemented { .. }
            | Self::Failed { .. }
            | Self::Untrusted { .. }
            | Self::LeftAlone { .. } => false,
        }
    }
}

/// Tells one unix socket from another that took its place, as a plugin's does that was restarted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    device: u64,
    inode: u64,
    /// When it was made. An inode's number may be given again.
    made: Option<SystemTime>,
}

/// Calls one plugin.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    deadline: Duration,
    breaker: Breaker,
}

impl Client {
    /// Makes a client whose calls take at most `deadline` each. It does not connect yet.
    pub fn new(address: Address, deadline: Duration) -> Self {
        Self {
            address,
            deadline,
            breaker: Breaker::default(),
        }
    }

    /// Returns what tells the socket from a later one in its place; nothing for TCP, or if there is none.
    pub async fn mark(&self) -> Option<Mark> {
        let Address::Unix(path) = &self.address else {
            return None;
        };
        let found = tokio::fs::metadata(path).await.ok()?;
        Some(Mark {
            device: found.dev(),
            inode: found.ino(),
            made: found.modified().ok(),
        })
    }

    /// Returns the same client with another deadline.
    pub fn within(&self, deadline: Duration) -> Self {
        Self {
            address: self.address.clone(),
            deadline,
            breaker: self.breaker.clone(),
        }
    }

    /// Returns where the plugin listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Calls a method, for example `NetworkDriver.CreateNetwork`.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
    ) -> Result<T, CallError> {
        self.call_within(method, request, self.deadline).await
    }

    /// Calls a method with a deadline of its own. A request of `null` is sent as an empty body.
    pub async fn call_within<T: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
        deadline: Duration,
    ) -> Result<T, CallError> {
        let malformed = |source| CallError::Malformed {
            address: self.address.clone(),
            method: method.to_owned(),
            source,
        };
        let body = serde_json::to_vec(request).map_err(malformed)?;
        let body = if body == b"null" {
            Bytes::new()
        } else {
            Bytes::from(body)
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/{method}"))
            .header(header::HOST, "plugin.moby.localhost")
            .header(header::ACCEPT, MEDIA_TYPE)
            .body(Full::new(body))
            .expect("a method's name is written in the code");
        let (status, body) = self.exchange(request, method, deadline).await?;
        let failed = |message: String| CallError::Failed {
            method: method.to_owned(),
            message,
        };
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(CallError::NotImplemented {
                    address: self.address.clone(),
                    method: method.to_owned(),
                });
            }
            other => {
                return Err(failed(
                    error_text(&body).unwrap_or_else(|| format!("status {other}")),
                ));
            }
        }
        let answer = if body.iter().all(u8::is_ascii_whitespace) {
            Value::Object(serde_json::Map::new())
        } else {
            serde_json::from_slice(&body).map_err(malformed)?
        };
        let answer = if answer.is_null() {
            Value::Object(serde_json::Map::new())
        } else {
            answer
        };
        // An error counts even with status 200 (case M4).
        if let Some(message) = error_field(&answer) {
            return Err(failed(message.to_owned()));
        }
        serde_json::from_value(answer).map_err(malformed)
    }

    /// Returns how long a call may take.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn malformed(&self, method: &str, source: serde_json::Error) -> CallError {
        CallError::Malformed {
            address: self.address.clone(),
            method: method.to_owned(),
            source,
        }
    }

    pub(super) fn late(&self, method: &str) -> CallError {
        CallError::Deadline {
            address: self.address.clone(),
            method: method.to_owned(),
            deadline: self.deadline,
        }
    }

    pub(super) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        method: &str,
        deadline: Duration,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let unreachable = |source| CallError::Unreachable {
            address: self.address.clone(),
            source,
        };
        let admitted = self.breaker.admit(Instant::now());
        admitted.map_err(|wait| CallError::LeftAlone {
            address: self.address.clone(),
            method: method.to_owned(),
            wait,
        })?;
        let answer = async {
            match &self.address {
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                    self.talk(stream, request, method).await
                }
                Address::Tcp(authority) => {
                    let stream = TcpStream::connect(authority).await.map_err(unreachable)?;
                    self.talk(stream, request, method).await
                }
                Address::Tls(authority, files) => {
                    let stream = TcpStream::connect(authority).await.map_err(unreachable)?;
                    let stream = tls::connect(stream, authority, files).await;
                    let stream = stream.map_err(|error| CallError::Untrusted {
                        address: self.address.clone(),
                        reason: error.to_string(),
                    })?;
                    self.talk(stream, request, method).await
                }
            }
        };
        let answered = timeout(deadline, answer).await;
        self.breaker.note(Instant::now(), answered.is_err());
        answered.map_err(|_elapsed| CallError::Deadline {
            address: self.address.clone(),
            method: method.to_owned(),
            deadline,
        })?
    }

    async fn talk<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
        method: &str,
    ) -> Result<(StatusCode, Bytes), CallError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(method, &error))?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| self.broken(method, &error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX)
                .collect()
                .await
                .map_err(|error| {
                    if error.is::<LengthLimitError>() {
                        CallError::TooLarge {
                            address: self.address.clone(),
                            method: method.to_owned(),
                        }
                    } else {
                        self.broken(method, &*error)
                    }
                })?;
            Ok((status, body.to_bytes()))
        };
        // The connection moves the bytes, so both run here; it may end before the last of them is read.
        let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
        let mut is_open = true;
        loop {
            tokio::select! {
                biased;
                outcome = &mut exchange => return outcome,
                _ended = &mut connection, if is_open => is_open = false,
            }
        }
    }

    pub(super) fn broken(
        &self,
        method: &str,
        error: &(dyn std::error::Error + 'static),
    ) -> CallError {
        let reasons: Vec<String> = std::iter::successors(Some(error), |error| error.source())
            .map(ToString::to_string)
            .collect();
        CallError::Broken {
            address: self.address.clone(),
            method: method.to_owned(),
            reason: reasons.join(": "),
        }
    }
}

/// Network drivers report errors as `Err`, IPAM drivers as `Error`.
fn error_field(answer: &Value) -> Option<&str> {
    let fields = ["Err", "Error"].iter();
    fields
        .filter_map(|key| answer.get(key)?.as_str())
        .find(|text| !text.is_empty())
}

/// Returns what a body says of an error: its JSON field (the engine's is `message`), else all of it.
pub(super) fn error_text(body: &[u8]) -> Option<String> {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let field = json
        .as_ref()
        .and_then(|json| error_field(json).or_else(|| json.get("message")?.as_str()));
    let text = field.map_or_else(
        || String::from_utf8_lossy(body).trim().to_owned(),
        str::to_owned,
    );
    (!text.is_empty()).then_some(text)
}
