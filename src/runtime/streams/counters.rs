//! What the streams of a node did, counted.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why a caller's connection or request was dropped or refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// As many connections as allowed were open.
    TooManyConnections,
    /// As many connections without a certificate as allowed were open.
    TooManyStrangers,
    /// The handshake failed: no TLS 1.3, or the caller hung up.
    Handshake,
    /// The caller's certificate names no node, or is none that a node has.
    Certificate,
    /// The caller's certificate has run out, or its time has not come.
    CertificateNotValidNow,
    /// The caller's certificate is another cluster's.
    ForeignCertificate,
    /// The caller does not take this node's certificate.
    RefusedByCaller,
    /// The handshake took too long.
    SlowHandshake,
    /// A request took too long to come, or an answer to be taken.
    SlowFrame,
    /// A request ended before its length, or its TLS record was broken.
    Truncated,
    /// A request of another version of the protocol, or garbage.
    Version,
    /// A request longer than allowed.
    TooLarge,
    /// A request for a service that does not exist here.
    UnknownService,
    /// A request without a certificate for a service that needs one.
    CertificateNeeded,
    /// Joins came too quickly one after the other.
    TooManyJoins,
    /// The handler took too long.
    SlowHandler,
    /// The handler panicked: a bug.
    Panicked,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 17] = [
        Self::TooManyConnections,
        Self::TooManyStrangers,
        Self::Handshake,
        Self::Certificate,
        Self::CertificateNotValidNow,
        Self::ForeignCertificate,
        Self::RefusedByCaller,
        Self::SlowHandshake,
        Self::SlowFrame,
        Self::Truncated,
        Self::Version,
        Self::TooLarge,
        Self::UnknownService,
        Self::CertificateNeeded,
        Self::TooManyJoins,
        Self::SlowHandler,
        Self::Panicked,
    ];

    /// Returns the reason's name as metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyStrangers => "too_many_strangers",
            Self::Handshake => "handshake",
            Self::Certificate => "certificate",
            Self::CertificateNotValidNow => "certificate_not_valid_now",
            Self::ForeignCertificate => "foreign_certificate",
            Self::RefusedByCaller => "refused_by_caller",
            Self::SlowHandshake => "slow_handshake",
            Self::SlowFrame => "slow_frame",
            Self::Truncated => "truncated",
            Self::Version => "version",
            Self::TooLarge => "too_large",
            Self::UnknownService => "unknown_service",
            Self::CertificateNeeded => "certificate_needed",
            Self::TooManyJoins => "too_many_joins",
            Self::SlowHandler => "slow_handler",
            Self::Panicked => "panicked",
        }
    }
}

impl Reason {
    /// Returns what the operator should look at, if a reason says that somebody must act.
    pub(super) fn advice(self) -> Option<&'static str> {
        match self {
            Self::Certificate => Some("its certificate names no node: look at what runs there"),
            Self::CertificateNotValidNow => Some(
                "its certificate is not valid now: check the clocks of both nodes; if they are right it has run out, and the node must join again",
            ),
            Self::ForeignCertificate => Some(
                "its certificate is another cluster's, or of an authority that was replaced: look at what it is told to join and at its data directory; a member that slept through the change must be started with --join and --token",
            ),
            Self::RefusedByCaller => Some(
                "it does not take this node's certificate: its token is of another cluster or of an authority that was replaced, or it is a member that slept through that, or the clocks differ",
            ),
            Self::TooManyConnections
            | Self::TooManyStrangers
            | Self::Handshake
            | Self::SlowHandshake
            | Self::SlowFrame
            | Self::Truncated
            | Self::Version
            | Self::TooLarge
            | Self::UnknownService
            | Self::CertificateNeeded
            | Self::TooManyJoins
            | Self::SlowHandler
            | Self::Panicked => None,
        }
    }
}

/// What the streams did since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StreamStats {
    /// Bytes given to TCP, TLS records and handshakes included, IP and TCP headers not.
    pub bytes_sent: u64,
    /// Bytes taken from TCP.
    pub bytes_received: u64,
    /// Connections from others that were let in.
    pub accepted: u64,
    /// Connections from others that are open now.
    pub open: u64,
    /// Connections we made to others.
    pub dialed: u64,
    /// Calls we made that found an idle connection.
    pub reused: u64,
    /// Calls that got an answer from us.
    pub answered: u64,
    /// What was dropped or refused, by reason; reasons without a case are left out.
    pub refused: BTreeMap<Reason, u64>,
}

/// The live counters behind [`StreamStats`].
#[derive(Debug, Default)]
pub(in crate::runtime) struct Counters {
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    accepted: AtomicU64,
    closed: AtomicU64,
    dialed: AtomicU64,
    reused: AtomicU64,
    answered: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    pub(super) fn refuse(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn dialed(&self) {
        self.dialed.fetch_add(1, Relaxed);
    }

    pub(super) fn reused(&self) {
        self.reused.fetch_add(1, Relaxed);
    }

    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    /// Counts a connection as open until the guard is dropped.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.accepted.fetch_add(1, Relaxed);
        Open(Arc::clone(self))
    }

    pub(super) fn stats(&self) -> StreamStats {
        let closed = self.closed.load(Relaxed);
        let accepted = self.accepted.load(Relaxed);
        let refused = Reason::ALL
            .into_iter()
            .map(|reason| (reason, self.refused[reason as usize].load(Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        StreamStats {
            bytes_sent: self.bytes_sent.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            accepted,
            open: accepted.saturating_sub(closed),
            dialed: self.dialed.load(Relaxed),
            reused: self.reused.load(Relaxed),
            answered: self.answered.load(Relaxed),
            refused,
        }
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub(super) struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Relaxed);
    }
}

/// A byte stream that counts what passes.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    counters: Arc<Counters>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, counters: Arc<Counters>) -> Self {
        Self { stream, counters }
    }

    fn sent(&self, len: usize) {
        self.counters.bytes_sent.fetch_add(len as u64, Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        self.counters.bytes_received.fetch_add(read as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
