//! An HTTP API that is no plugin: the engine's. Documents by path, and a stream of them, one a line.

use std::{future::Future, io, pin::Pin};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::client::{ANSWER_MAX, Address, CallError, Client, error_text};

impl Client {
    /// Gets a document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.document(Method::GET, path, Bytes::new()).await
    }

    /// Sends a document, and returns the one that answers.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(document).map_err(|source| self.malformed(path, source))?;
        self.document(Method::POST, path, body.into()).await
    }

    /// Deletes what is at a path.
    pub async fn delete(&self, path: &str) -> Result<(), CallError> {
        self.document(Method::DELETE, path, Bytes::new()).await
    }

    /// Opens a stream of documents, one a line, that lasts until the other side ends it. Only of a unix socket.
    pub async fn lines(&self, path: &str) -> Result<Lines, CallError> {
        let request = self.request(Method::GET, path, Bytes::new())?;
        let opened = async {
            let stream = match self.address() {
                Address::Unix(socket) => UnixStream::connect(socket).await,
                Address::Tcp(_) | Address::Tls(..) => Err(io::ErrorKind::Unsupported.into()),
            };
            let stream = stream.map_err(|source| CallError::Unreachable {
                address: self.address().clone(),
                source,
            })?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| self.broken(path, &error))?;
            let mut connection: Connection = Box::pin(async {
                // What broke shows in the body.
                let _ = connection.await;
            });
            let response = tokio::select! {
                response = sender.send_request(request) => response,
                () = &mut connection => return Err(self.gone(path)),
            };
            let response = response.map_err(|error| self.broken(path, &error))?;
            if response.status() != StatusCode::OK {
                return Err(CallError::Failed {
                    method: path.to_owned(),
                    message: format!("status {}", response.status()),
                });
            }
            Ok(Lines {
                client: self.clone(),
                path: path.to_owned(),
                _sender: sender,
                body: response.into_body(),
                connection: Some(connection),
                unread: BytesMut::new(),
            })
        };
        timeout(self.deadline(), opened)
            .await
            .map_err(|_elapsed| self.late(path))?
    }

    async fn document<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, CallError> {
        let request = self.request(method, path, body)?;
        let (status, body) = self.exchange(request, path, self.deadline()).await?;
        if !status.is_success() {
            return Err(CallError::Failed {
                method: path.to_owned(),
                message: error_text(&body).unwrap_or_else(|| format!("status {status}")),
            });
        }
        let is_blank = body.iter().all(u8::is_ascii_whitespace);
        let text: &[u8] = if is_blank { b"null" } else { &body };
        serde_json::from_slice(text).map_err(|source| self.malformed(path, source))
    }

    /// Makes a request; a path has ids in it that the other side gave.
    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "docker")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body));
        request.map_err(|error| CallError::Broken {
            address: self.address().clone(),
            method: path.to_owned(),
            reason: error.to_string(),
        })
    }

    fn gone(&self, path: &str) -> CallError {
        CallError::Broken {
            address: self.address().clone(),
            method: path.to_owned(),
            reason: "it was closed".to_owned(),
        }
    }
}

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Documents that come as they happen.
pub struct Lines {
    client: Client,
    path: String,
    /// It keeps the connection open.
    _sender: http1::SendRequest<Full<Bytes>>,
    body: Incoming,
    connection: Option<Connection>,
    unread: BytesMut,
}

impl Lines {
    /// Waits for the next line; nothing when the other side has ended the stream. It may be dropped while it waits.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(end + 1);
                return Ok(Some(line.freeze().slice(..end)));
            }
            if self.unread.len() > ANSWER_MAX {
                return Err(CallError::TooLarge {
                    address: self.client.address().clone(),
                    method: self.path.clone(),
                });
            }
            let frame = match &mut self.connection {
                Some(connection) => tokio::select! {
                    biased;
                    frame = self.body.frame() => frame,
                    () = connection => {
                        self.connection = None;
                        continue;
                    }
                },
                None => self.body.frame().await,
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.broken(&self.path, &error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.unread.extend_from_slice(&bytes);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
        task::JoinSet,
    };

    use super::*;

    #[tokio::test]
    async fn lines_come_one_by_one_however_they_were_cut_until_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            for part in ["3\r\none\r\n", "5\r\n\ntwo\n\r\n", "0\r\n\r\n"] {
                stream.write_all(part.as_bytes()).await.unwrap();
            }
        });
        let client = Client::new(Address::Unix(path), Duration::from_secs(10));

        let mut lines = client.lines("/events").await.unwrap();

        assert_eq!(lines.next().await.unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(lines.next().await.unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(lines.next().await.unwrap(), None);
    }
}
