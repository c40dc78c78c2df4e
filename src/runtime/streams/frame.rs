//! Frames: `version u8 | code u8 | length u32 | body`. The code is a service in a request and a status in an answer. The version is
//! the one that the handshake agreed on: see `tls`.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::core::wire::codec;

/// The longest body between members.
pub const BODY_MAX: usize = 16 * 1024 * 1024;

/// The longest request of a caller that has not proved who it is.
pub const STRANGER_BODY_MAX: usize = 64 * 1024;

// What a frame may carry must be decodable.
const _: () = assert!(BODY_MAX <= codec::DECODE_MAX && BODY_MAX <= u32::MAX as usize);

/// The length of what precedes the body.
pub(super) const HEADER: usize = 6;

/// The most that one TLS record holds (RFC 8446 §5.1): a message up to here is one record and one write.
const RECORD_MAX: usize = 16 * 1024;

/// How much room is made before a read: little while nothing is known to come, more amid a body.
const ROOM_IDLE: usize = 1024;
const ROOM_BODY: usize = 32 * 1024;

/// What an answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Status {
    /// The body is the answer.
    Done = 0,
    /// The body is a line that says why not.
    Refused = 1,
    /// No such service here.
    UnknownService = 2,
    /// The service is for members.
    CertificateNeeded = 3,
    /// Later, please.
    Busy = 4,
    /// The request was too long.
    TooLarge = 5,
    /// The request was of a version that is not spoken here. The answer's own version says which is.
    Version = 6,
    /// The handler took too long.
    SlowHandler = 7,
}

impl Status {
    const ALL: [Self; 8] = [
        Self::Done,
        Self::Refused,
        Self::UnknownService,
        Self::CertificateNeeded,
        Self::Busy,
        Self::TooLarge,
        Self::Version,
        Self::SlowHandler,
    ];

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == code)
    }
}

/// A frame that was read whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it is.
    pub code: u8,
    /// What it carries.
    pub body: Bytes,
}

/// Why no frame was read. The stream is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side hung up between two frames.
    #[error("the other side hung up")]
    Closed,
    /// The other side hung up amid a frame.
    #[error("the other side hung up amid a message")]
    Truncated,
    /// The frame is of another version, or no frame at all.
    #[error("version {0} of the stream protocol")]
    Version(u8),
    /// The frame says that it is longer than allowed. Nothing was allocated for it.
    #[error("a message of {0} bytes is too long")]
    TooLarge(usize),
    /// The stream broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads frames off a stream. What came too early stays for the next one.
#[derive(Debug)]
pub struct FrameReader {
    version: u8,
    unread: BytesMut,
}

impl FrameReader {
    /// Makes a reader of a connection on which that version was agreed.
    pub fn new(version: u8) -> Self {
        Self {
            version,
            unread: BytesMut::new(),
        }
    }

    /// Returns the version that is spoken.
    pub(super) fn version(&self) -> u8 {
        self.version
    }

    /// Waits until a frame begins.
    pub(super) async fn begin(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), FrameError> {
        if self.unread.is_empty() && self.fill(stream, ROOM_IDLE).await? == 0 {
            return Err(FrameError::Closed);
        }
        Ok(())
    }

    /// Reads a frame with a body of at most `limit` bytes.
    ///
    /// Memory grows with what has come, at most twice that and a constant, whatever length the header claims.
    pub async fn read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        limit: usize,
    ) -> Result<Frame, FrameError> {
        self.begin(stream).await?;
        let (code, len) = loop {
            if let Some(header) = self.header(limit)? {
                break header;
            }
            self.fill_amid(stream, ROOM_IDLE).await?;
        };
        while self.unread.len() < HEADER + len {
            let missing = HEADER + len - self.unread.len();
            self.fill_amid(stream, missing.min(ROOM_BODY)).await?;
        }
        self.unread.advance(HEADER);
        let body = self.unread.split_to(len).freeze();
        if self.unread.is_empty() {
            // An idle connection keeps no buffer, however long its last request was.
            self.unread = BytesMut::new();
        }
        Ok(Frame { code, body })
    }

    fn header(&self, limit: usize) -> Result<Option<(u8, usize)>, FrameError> {
        let version = self.unread.first().copied();
        if let Some(version) = version.filter(|version| *version != self.version) {
            return Err(FrameError::Version(version));
        }
        let Some(&[_version, code, a, b, c, d]) = self.unread.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > limit {
            return Err(FrameError::TooLarge(len));
        }
        Ok(Some((code, len)))
    }

    async fn fill_amid(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        room: usize,
    ) -> Result<(), FrameError> {
        if self.fill(stream, room).await? == 0 {
            return Err(FrameError::Truncated);
        }
        Ok(())
    }

    async fn fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        room: usize,
    ) -> Result<usize, FrameError> {
        self.unread.reserve(room);
        match stream.read_buf(&mut self.unread).await {
            // Without a farewell of TLS: a process that died, or one that saves the round trip.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => Ok(read?),
        }
    }
}

/// Writes a frame: one write and one TLS record if it fits in one.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    (version, code): (u8, u8),
    body: &[u8],
) -> io::Result<()> {
    let len = u32::try_from(body.len()).map_err(io::Error::other)?;
    let (with_header, rest) = body.split_at(body.len().min(RECORD_MAX - HEADER));
    let mut first = Vec::with_capacity(HEADER + with_header.len());
    first.extend_from_slice(&[version, code]);
    first.extend_from_slice(&len.to_be_bytes());
    first.extend_from_slice(with_header);
    stream.write_all(&first).await?;
    if !rest.is_empty() {
        stream.write_all(rest).await?;
    }
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::core::wire::versions::OLDEST;

    #[tokio::test]
    async fn a_frame_survives_the_stream_in_any_pieces() {
        for piece in [1, 5, 6, 7, 64 * 1024] {
            let (mut near, mut far) = duplex(piece);
            let body = vec![7; 100_000];
            let sent = body.clone();

            let (written, read) = tokio::join!(
                async move { write(&mut near, (OLDEST, 3), &sent).await },
                async move { FrameReader::new(OLDEST).read(&mut far, BODY_MAX).await },
            );

            written.unwrap();
            let frame = read.unwrap();
            assert_eq!((frame.code, frame.body), (3, Bytes::from(body)));
        }
    }

    #[tokio::test]
    async fn two_frames_that_come_at_once_are_read_one_by_one() {
        let mut bytes = Vec::new();
        write(&mut bytes, (OLDEST, 1), b"one").await.unwrap();
        write(&mut bytes, (OLDEST, 2), b"").await.unwrap();
        let mut stream = &bytes[..];
        let mut reader = FrameReader::new(OLDEST);

        let first = reader.read(&mut stream, 16).await.unwrap();
        let second = reader.read(&mut stream, 16).await.unwrap();
        let end = reader.read(&mut stream, 16).await;

        assert_eq!((first.code, &first.body[..]), (1, &b"one"[..]));
        assert_eq!((second.code, &second.body[..]), (2, &b""[..]));
        assert!(matches!(end, Err(FrameError::Closed)));
    }

    #[tokio::test]
    async fn a_claimed_length_allocates_nothing_until_the_bytes_come() {
        let claimed = u32::try_from(BODY_MAX).unwrap().to_be_bytes();
        let bytes = [&[OLDEST, 1][..], &claimed, &[0; 100]].concat();
        let mut reader = FrameReader::new(OLDEST);

        let read = reader.read(&mut &bytes[..], BODY_MAX).await;

        assert!(matches!(read, Err(FrameError::Truncated)));
        assert!(reader.unread.capacity() <= 2 * ROOM_BODY);
    }

    #[tokio::test]
    async fn a_frame_beyond_the_limit_or_of_another_version_is_refused_at_its_header() {
        let over = [OLDEST, 1, 0, 0, 0, 17];
        let other = [OLDEST + 1];

        let over = FrameReader::new(OLDEST).read(&mut &over[..], 16).await;
        let other = FrameReader::new(OLDEST).read(&mut &other[..], 16).await;

        assert!(matches!(over, Err(FrameError::TooLarge(17))));
        assert!(matches!(other, Err(FrameError::Version(2))));
    }

    #[tokio::test]
    async fn a_small_message_is_one_write() {
        struct Writes(usize);
        impl AsyncWrite for Writes {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<io::Result<usize>> {
                self.0 += 1;
                std::task::Poll::Ready(Ok(bytes.len()))
            }
            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
        }
        let mut writes = Writes(0);

        write(&mut writes, (OLDEST, 1), &[0; RECORD_MAX - HEADER])
            .await
            .unwrap();

        assert_eq!(writes.0, 1);
    }
}
