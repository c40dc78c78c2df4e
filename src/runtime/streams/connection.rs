//! One connection that we made, and the calls on it.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt;
use rustls::pki_types::ServerName;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    BODY_MAX, Counters, Refusal, Service, StreamError,
    counters::Counted,
    frame::{self, Frame, FrameError, FrameReader, Status},
    tls::{call_error, tls_error, version},
};

/// A connection to a node. After an error it is of no further use.
#[derive(Debug)]
pub(in crate::runtime) struct Connection {
    addr: SocketAddr,
    epoch: u64,
    stream: TlsStream<Counted<TcpStream>>,
    reader: FrameReader,
}

impl Connection {
    /// Connects and checks the certificate. The caller sets the deadline.
    pub(in crate::runtime) async fn open(
        addr: SocketAddr,
        (connector, epoch): (TlsConnector, u64),
        name: ServerName<'static>,
        counters: &Arc<Counters>,
    ) -> Result<Self, StreamError> {
        let unreachable = |source| StreamError::Unreachable { addr, source };
        let stream = TcpStream::connect(addr).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let stream = Counted::new(stream, Arc::clone(counters));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| call_error(addr, &error))?;
        counters.dialed();
        let version = version(stream.get_ref().1.alpn_protocol());
        Ok(Self {
            addr,
            epoch,
            stream,
            reader: FrameReader::new(version),
        })
    }

    /// Sends a request and waits for its answer. The caller sets the deadline.
    pub(in crate::runtime) async fn call(
        &mut self,
        service: Service,
        request: &[u8],
    ) -> Result<Bytes, StreamError> {
        let addr = self.addr;
        let code = (self.reader.version(), service as u8);
        let sent = frame::write(&mut self.stream, code, request).await;
        // A server that refuses our certificate says so only now (RFC 8446 §4.4.2): its alert is worth more than a broken pipe.
        let answer = self.reader.read(&mut self.stream, BODY_MAX).await;
        match (sent, answer) {
            (Err(error), Err(FrameError::Closed | FrameError::Truncated)) => {
                Err(call_error(addr, &error))
            }
            (Err(error), Err(FrameError::Io(read))) if tls_error(&read).is_none() => {
                Err(call_error(addr, &error))
            }
            (_, Err(error)) => Err(answer_error(addr, &error)),
            (_, Ok(frame)) => read_answer(addr, service, frame),
        }
    }

    /// Returns how often this node's credentials had been replaced when the connection was made.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns whether the connection still stands as far as can be told without waiting.
    pub(super) fn is_open(&mut self) -> bool {
        let mut byte = [0];
        // Nothing may come while nothing was asked: a byte, the end and an error are all reasons to hang up.
        self.stream.read(&mut byte).now_or_never().is_none()
    }
}

fn read_answer(addr: SocketAddr, service: Service, frame: Frame) -> Result<Bytes, StreamError> {
    let not_offered = |why| StreamError::NotOffered { addr, service, why };
    let Some(status) = Status::from_code(frame.code) else {
        return Err(StreamError::BadAnswer {
            addr,
            reason: format!("unknown status {}", frame.code),
        });
    };
    match status {
        Status::Done => Ok(frame.body),
        Status::Refused => {
            let text = String::from_utf8_lossy(&frame.body).into_owned();
            Err(StreamError::Refused(Refusal(text)))
        }
        Status::UnknownService => Err(not_offered("it does not know the service, upgrade it")),
        Status::CertificateNeeded => Err(not_offered("it is for members only")),
        Status::Busy => Err(StreamError::Busy { addr }),
        Status::TooLarge => Err(not_offered("the request is too long for it")),
        Status::Version => Err(StreamError::Version {
            addr,
            theirs: frame.body.first().copied().unwrap_or_default(),
        }),
        Status::SlowHandler => Err(StreamError::Overdue { addr }),
    }
}

fn answer_error(addr: SocketAddr, error: &FrameError) -> StreamError {
    match error {
        FrameError::Closed | FrameError::Truncated => StreamError::Lost {
            addr,
            reason: error.to_string(),
        },
        FrameError::Version(theirs) => StreamError::Version {
            addr,
            theirs: *theirs,
        },
        FrameError::TooLarge(_) => StreamError::BadAnswer {
            addr,
            reason: error.to_string(),
        },
        FrameError::Io(error) => call_error(addr, error),
    }
}
