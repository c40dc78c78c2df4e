//! Frames of a stream, after the handshake: any bytes, in pieces. What is read whole is written as it came.
//!
//! Input: which version was agreed, how long a body may be, how long the pieces are, then the bytes.
#![no_main]

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};
use weft::runtime::streams::frame::{FrameError, FrameReader};

/// The length of what precedes a body.
const HEADER: usize = 6;

fuzz_target!(|input: (u8, u16, u8, &[u8])| {
    let (version, limit, piece, bytes) = input;
    let limit = usize::from(limit);
    let mut stream = Pieces {
        bytes,
        most: usize::from(piece).max(1),
    };
    let mut reader = FrameReader::new(version);
    let mut whole = Vec::new();
    let error = loop {
        match at_once(reader.read(&mut stream, limit)) {
            Ok(frame) => {
                assert!(frame.body.len() <= limit);
                let len = u32::try_from(frame.body.len()).unwrap_or(u32::MAX);
                whole.extend([version, frame.code]);
                whole.extend(len.to_be_bytes());
                whole.extend(frame.body);
            }
            Err(error) => break error,
        }
    };
    assert!(bytes.starts_with(&whole));
    let rest = &bytes[whole.len()..];
    match error {
        FrameError::Closed => assert!(rest.is_empty()),
        FrameError::Truncated => assert!(!rest.is_empty()),
        FrameError::Version(theirs) => assert!(theirs == rest[0] && theirs != version),
        FrameError::TooLarge(len) => assert!(len > limit && rest.len() >= HEADER),
        FrameError::Io(error) => panic!("memory has no {error}"),
    }
});

/// Bytes that come a few at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    most: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let len = self.bytes.len().min(self.most).min(buffer.remaining());
        let (now, later) = self.bytes.split_at(len);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

/// Runs what waits for nothing.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits for bytes that are there"),
    }
}
