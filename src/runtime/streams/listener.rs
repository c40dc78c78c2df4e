//! The called side: lets callers in, reads their requests, hands them to the handler, and cuts off who is slow or silent.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::{Instant, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{
    BODY_MAX, Caller, Handler, Limits, Reason, Refusal, STRANGER_BODY_MAX, Service, Tls,
    counters::Counted,
    frame::{self, Frame, FrameError, FrameReader, Status},
    tls::{handshake_reason, tls_error, version},
};
use crate::core::model::NodeId;

/// How long to wait when the system gives out no further connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often the log is told that callers are refused for the same reason, at most.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The longest refusal that is sent, in bytes.
const REFUSAL_MAX: usize = 1024;

/// Answers calls until `shutdown`, then gives calls under way a moment to end.
///
/// At the limit of connections a further one is dropped and counted.
pub async fn serve(
    listener: TcpListener,
    tls: Tls,
    handler: Arc<dyn Handler>,
    shutdown: CancellationToken,
) {
    serve_within(listener, tls, handler, Limits::default(), shutdown).await;
}

/// As [`serve`], with limits of one's own.
pub async fn serve_within(
    listener: TcpListener,
    tls: Tls,
    handler: Arc<dyn Handler>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let door = Arc::new(Door {
        handler,
        connections: Arc::new(Semaphore::new(limits.connections)),
        strangers: Arc::new(Semaphore::new(limits.strangers)),
        joins: Mutex::new(Bucket::full(&limits, Instant::now())),
        told: Mutex::default(),
        tls,
        limits,
        shutdown,
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => door.admit(accepted, &mut connections).await,
            Some(ended) = connections.join_next() => door.ended(ended),
            () = door.shutdown.cancelled() => break,
        }
    }
    drop(listener);
    let rest = async {
        while let Some(ended) = connections.join_next().await {
            door.ended(ended);
        }
    };
    // What has not ended by then is cut off with the set.
    let _cut_off = timeout(door.limits.grace, rest).await;
}

/// What all connections of a listener share.
struct Door {
    tls: Tls,
    handler: Arc<dyn Handler>,
    limits: Limits,
    shutdown: CancellationToken,
    connections: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    joins: Mutex<Bucket>,
    /// When the log was last told of a refusal for each reason.
    told: Mutex<BTreeMap<Reason, Instant>>,
}

/// How a connection goes on after a request.
enum Next {
    Request,
    HangUp,
}

impl Door {
    async fn admit(
        self: &Arc<Self>,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        connections: &mut JoinSet<()>,
    ) {
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the system gives out no further connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return;
            }
        };
        let Ok(connection) = Arc::clone(&self.connections).try_acquire_owned() else {
            return self.refuse(addr, Reason::TooManyConnections);
        };
        let Ok(stranger) = Arc::clone(&self.strangers).try_acquire_owned() else {
            return self.refuse(addr, Reason::TooManyStrangers);
        };
        let door = Arc::clone(self);
        connections.spawn(async move {
            let _connection = connection;
            if let Err(reason) = door.receive(stream, addr, stranger).await {
                door.refuse(addr, reason);
            }
        });
    }

    fn refuse(&self, addr: SocketAddr, reason: Reason) {
        self.tls.counters().refuse(reason);
        match reason.advice().filter(|_| self.may_tell(reason)) {
            Some(advice) => {
                tracing::info!(%addr, reason = reason.as_str(), advice, "a caller was refused");
            }
            None => tracing::debug!(%addr, reason = reason.as_str(), "refused"),
        }
    }

    /// Anybody can make us refuse, so a reason is told once in a while.
    fn may_tell(&self, reason: Reason) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = told.get(&reason).is_none_or(|at| now - *at >= TELL_EVERY);
        if is_due {
            told.insert(reason, now);
        }
        is_due
    }

    fn ended(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a handler panicked");
            self.tls.counters().refuse(Reason::Panicked);
        }
    }

    /// Finds out who calls, then serves them.
    async fn receive(
        &self,
        stream: TcpStream,
        addr: SocketAddr,
        stranger: OwnedSemaphorePermit,
    ) -> Result<(), Reason> {
        let _open = self.tls.counters().open();
        let trusted = self.tls.drops();
        // It only fails on a connection that is already gone, and the handshake will notice.
        let _gone = stream.set_nodelay(true);
        let stream = Counted::new(stream, Arc::clone(self.tls.counters()));
        let handshake = self.tls.acceptor().accept(stream);
        let mut stream = timeout(self.limits.handshake_within, handshake)
            .await
            .map_err(|_elapsed| Reason::SlowHandshake)?
            .map_err(|error| handshake_reason(&error))?;
        match self.caller(&stream)? {
            Some(node) => {
                drop(stranger);
                let caller = Caller {
                    node: Some(node),
                    addr,
                };
                self.serve_member(&mut stream, caller, trusted).await
            }
            None => self.serve_stranger(&mut stream, addr).await,
        }
    }

    fn caller(&self, stream: &TlsStream<Counted<TcpStream>>) -> Result<Option<NodeId>, Reason> {
        let Some([cert, ..]) = stream.get_ref().1.peer_certificates() else {
            return Ok(None);
        };
        self.tls.caller(cert).map(Some)
    }

    /// Serves a member, until an authority is dropped that was `trusted` when it was let in: it may be that one's.
    async fn serve_member(
        &self,
        stream: &mut Stream,
        caller: Caller,
        trusted: u64,
    ) -> Result<(), Reason> {
        let mut reader = FrameReader::new(spoken(stream));
        loop {
            let begun = tokio::select! {
                begun = timeout(self.limits.silent_for, reader.begin(stream)) => begun,
                () = self.shutdown.cancelled() => return Ok(()),
            };
            match begun {
                Ok(Ok(())) if self.tls.drops() != trusted => return Ok(()),
                Ok(Ok(())) => {}
                Ok(Err(error)) => return end_between(&error),
                Err(_silent_for_long) => return Ok(()),
            }
            let frame = timeout(self.limits.frame_within, reader.read(stream, BODY_MAX))
                .await
                .map_err(|_elapsed| Reason::SlowFrame)?;
            match self.respond(stream, caller, frame).await? {
                Next::Request => {}
                Next::HangUp => return Ok(()),
            }
        }
    }

    /// Serves one request of a caller without a certificate.
    async fn serve_stranger(&self, stream: &mut Stream, addr: SocketAddr) -> Result<(), Reason> {
        let mut reader = FrameReader::new(spoken(stream));
        let read = async {
            reader.begin(stream).await?;
            Ok(reader.read(stream, STRANGER_BODY_MAX).await)
        };
        let read = timeout(self.limits.stranger_within, read)
            .await
            .map_err(|_elapsed| Reason::SlowFrame)?;
        let frame = match read {
            Ok(frame) => frame,
            Err(error) => return end_between(&error),
        };
        let caller = Caller { node: None, addr };
        self.respond(stream, caller, frame).await?;
        Ok(())
    }

    async fn respond(
        &self,
        stream: &mut Stream,
        caller: Caller,
        frame: Result<Frame, FrameError>,
    ) -> Result<Next, Reason> {
        let frame = match frame {
            Ok(frame) => frame,
            Err(FrameError::Closed) => return Ok(Next::HangUp),
            Err(FrameError::Truncated | FrameError::Io(_)) => return Err(Reason::Truncated),
            Err(FrameError::Version(_)) => {
                return self.hang_up(stream, Status::Version, Reason::Version).await;
            }
            Err(FrameError::TooLarge(_)) => {
                return self
                    .hang_up(stream, Status::TooLarge, Reason::TooLarge)
                    .await;
            }
        };
        let Some(service) = Service::from_code(frame.code) else {
            // A member of a later version may ask for what we do not have; the connection is still in order.
            self.refuse(caller.addr, Reason::UnknownService);
            return self.answer(stream, Status::UnknownService, &[]).await;
        };
        if caller.node.is_none() {
            if !service.is_open_to_strangers() {
                return self
                    .hang_up(stream, Status::CertificateNeeded, Reason::CertificateNeeded)
                    .await;
            }
            if !self.may_join() {
                return self
                    .hang_up(stream, Status::Busy, Reason::TooManyJoins)
                    .await;
            }
        }
        let answer = self.handler.call(caller, service, frame.body);
        match timeout(self.limits.answer_within, answer).await {
            Ok(answer) => {
                let (status, body) = spell(answer);
                self.answer(stream, status, &body).await
            }
            Err(_elapsed) => {
                self.hang_up(stream, Status::SlowHandler, Reason::SlowHandler)
                    .await
            }
        }
    }

    async fn answer(
        &self,
        stream: &mut Stream,
        status: Status,
        body: &[u8],
    ) -> Result<Next, Reason> {
        let code = (spoken(stream), status as u8);
        let written = frame::write(stream, code, body);
        match timeout(self.limits.frame_within, written).await {
            Ok(Ok(())) => {
                self.tls.counters().answered();
                Ok(Next::Request)
            }
            Ok(Err(_)) => Ok(Next::HangUp), // The caller no longer wants it.
            Err(_elapsed) => Err(Reason::SlowFrame),
        }
    }

    async fn hang_up(
        &self,
        stream: &mut Stream,
        status: Status,
        reason: Reason,
    ) -> Result<Next, Reason> {
        let ours = spoken(stream);
        self.answer(stream, status, &[ours]).await?;
        Err(reason)
    }

    fn may_join(&self) -> bool {
        let mut joins = self.joins.lock().unwrap_or_else(PoisonError::into_inner);
        joins.take(Instant::now())
    }
}

type Stream = TlsStream<Counted<TcpStream>>;

/// Returns the version that the handshake agreed on.
fn spoken(stream: &Stream) -> u8 {
    version(stream.get_ref().1.alpn_protocol())
}

/// Says what goes back to the caller for what the handler said.
fn spell(answer: Result<Bytes, Refusal>) -> (Status, Bytes) {
    let refusal = match answer {
        Ok(body) if body.len() <= BODY_MAX => return (Status::Done, body),
        Ok(body) => Refusal(format!(
            "the answer of {} bytes is too long: at most {BODY_MAX} are allowed",
            body.len()
        )),
        Err(refusal) => refusal,
    };
    let mut line = refusal.0;
    line.truncate(line.floor_char_boundary(REFUSAL_MAX));
    (Status::Refused, line.into())
}

/// Says what it means that a connection ends where a request could begin: nothing, unless TLS was broken.
fn end_between(error: &FrameError) -> Result<(), Reason> {
    match error {
        FrameError::Io(error) if tls_error(error).is_some() => Err(Reason::Truncated),
        FrameError::Closed
        | FrameError::Truncated
        | FrameError::Version(_)
        | FrameError::TooLarge(_)
        | FrameError::Io(_) => Ok(()),
    }
}

/// A token bucket: so many at once, so many a second in the long run.
struct Bucket {
    left: f64,
    burst: f64,
    a_second: f64,
    at: Instant,
}

impl Bucket {
    fn full(limits: &Limits, now: Instant) -> Self {
        Self {
            left: f64::from(limits.join_burst),
            burst: f64::from(limits.join_burst),
            a_second: f64::from(limits.joins_per_second),
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * self.a_second).min(self.burst);
        self.at = now;
        let some_left = self.left >= 1.0;
        if some_left {
            self.left -= 1.0;
        }
        some_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bucket_gives_its_burst_and_then_its_rate() {
        let limits = Limits {
            join_burst: 2,
            joins_per_second: 4,
            ..Limits::default()
        };
        let start = Instant::now();
        let mut bucket = Bucket::full(&limits, start);

        let at_once: Vec<bool> = (0..3).map(|_| bucket.take(start)).collect();
        let later = bucket.take(start + Duration::from_millis(250));
        let again = bucket.take(start + Duration::from_millis(250));

        assert_eq!(at_once, [true, true, false]);
        assert!(later);
        assert!(!again);
    }

    #[test]
    fn a_refusal_is_cut_between_characters() {
        let (status, body) = spell(Err(Refusal("é".repeat(2 * REFUSAL_MAX))));

        assert_eq!(status, Status::Refused);
        assert!(body.len() <= REFUSAL_MAX && std::str::from_utf8(&body).is_ok());
    }

    #[test]
    fn an_answer_beyond_the_limit_becomes_a_refusal() {
        let (status, _) = spell(Ok(vec![0; BODY_MAX + 1].into()));

        assert_eq!(status, Status::Refused);
    }
}
