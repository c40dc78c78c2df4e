//! A watch, reading side: server-sent events as they come.

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    pin::Pin,
};

use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use serde::de::DeserializeOwned;

use super::{ClientError, Connection, broken};
use crate::api::http::{
    sse::{SseError, SseReader},
    types::WatchEvent,
};

/// A running watch: of entries, unless said otherwise. It ends with the daemon, or when nobody reads it for long.
#[derive(Debug)]
pub struct Watch<E = WatchEvent> {
    socket: PathBuf,
    connection: Option<Pin<Box<Connection>>>,
    body: Incoming,
    reader: SseReader,
    events: PhantomData<fn() -> E>,
}

impl<E: DeserializeOwned> Watch<E> {
    pub(super) fn new(
        socket: &Path,
        response: Response<Incoming>,
        connection: Pin<Box<Connection>>,
    ) -> Self {
        Self {
            socket: socket.to_owned(),
            connection: Some(connection),
            body: response.into_body(),
            reader: SseReader::default(),
            events: PhantomData,
        }
    }

    /// Waits for the next event; nothing when the stream has ended. It may be cancelled without losing any.
    pub async fn next(&mut self) -> Option<Result<E, ClientError>> {
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
