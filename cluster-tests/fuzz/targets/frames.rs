//! Streams: any bytes in any pieces are the frames that they spell, and what a frame carries is read by the service it is for.
//!
//! Input: the version that the handshake agreed on, the length of the pieces, whose stream it is, then the bytes.
#![no_main]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use fuzz::at_once;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};
use weft::{
    controller::{Said, reread},
    core::wire::versions::{NEWEST, OLDEST},
    runtime::{
        join::{JoinRequest, VERSION},
        streams::{
            BODY_MAX, STRANGER_BODY_MAX, Service,
            frame::{Frame, FrameError, FrameReader},
        },
    },
};

fuzz_target!(init: fuzz::daemon_seeds::write_if_asked(), |input: (u8, u8, bool, &[u8])| {
    let (version, piece, is_stranger, bytes) = input;
    let version = OLDEST + version % (NEWEST - OLDEST + 1);
    let limit = if is_stranger { STRANGER_BODY_MAX } else { BODY_MAX };
    let mut pieces = Pieces { rest: bytes, piece: usize::from(piece).max(1) };
    let mut reader = FrameReader::new(version);
    let mut spelled = Spelled { version, limit, rest: bytes };
    loop {
        let read = at_once(reader.read(&mut pieces, limit));
        match (read, spelled.next()) {
            (Ok(frame), Ok((code, body))) => {
                assert_eq!((frame.code, &frame.body[..]), (code, body));
                serve(&frame);
            }
            (Err(error), Err(expected)) => {
                assert_eq!(error.to_string(), expected.to_string());
                break;
            }
            (read, expected) => panic!("{read:?} was read, and {expected:?} is spelled"),
        }
    }
});

/// Reads a frame as what its code names, as a request and as an answer.
fn serve(frame: &Frame) {
    for service in Service::ALL {
        let is_asked = service as u8 == frame.code;
        if is_asked {
            keeps(service, Said::Request, &frame.body);
        }
        // Nothing in an answer says to which request it is one.
        keeps(service, Said::Answer, &frame.body);
        if is_asked && service == Service::Join {
            newcomer(&frame.body);
        }
    }
}

/// What was read is written as it can be read again.
fn keeps(service: Service, said: Said, bytes: &[u8]) {
    for written in reread(service, said, bytes) {
        let again = reread(service, said, &written);
        assert!(again.contains(&written), "{service}: {bytes:?}");
    }
}

/// A request is of our version or is refused, and where it is from does not depend on more than it says.
fn newcomer(bytes: &[u8]) {
    let from = ([192, 0, 2, 1], 1).into();
    match JoinRequest::decode(bytes) {
        Ok(request) => {
            assert_eq!(request.version, VERSION);
            assert!(!request.address(from).ip().is_unspecified());
            assert_eq!(request.address(from).port(), request.listen.port());
        }
        Err(refusal) => assert!(refusal.is_final(), "{refusal}"),
    }
}

/// What bytes spell, read in the plainest way.
struct Spelled<'a> {
    version: u8,
    limit: usize,
    rest: &'a [u8],
}

impl<'a> Spelled<'a> {
    fn next(&mut self) -> Result<(u8, &'a [u8]), FrameError> {
        match self.rest.first() {
            None => return Err(FrameError::Closed),
            Some(version) if *version != self.version => {
                return Err(FrameError::Version(*version));
            }
            Some(_) => {}
        }
        let (header, body) = self.rest.split_first_chunk().ok_or(FrameError::Truncated)?;
        let [_version, code, a, b, c, d] = *header;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > self.limit {
            return Err(FrameError::TooLarge(len));
        }
        let (body, rest) = body.split_at_checked(len).ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok((code, body))
    }
}

/// Bytes that come in pieces of one length.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.piece.min(self.rest.len()).min(into.remaining());
        let (piece, rest) = self.rest.split_at(len);
        into.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}
