//! Server-sent events (WHATWG HTML §9.2), reading side: bytes in any pieces → events.

use std::collections::VecDeque;

/// The longest line of an event, in bytes. A change carries two values of 64 KiB, in base64 or escaped.
pub const LINE_MAX: usize = 4 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerSent {
    /// What kind it is; empty if the server did not say.
    pub event: String,
    /// Its lines, joined by line ends.
    pub data: String,
    /// Its id, if the server gave one.
    pub id: Option<String>,
}

/// Why a stream cannot be read on. The server speaks something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line is longer than [`LINE_MAX`].
    #[error("an event's line is longer than {LINE_MAX} bytes")]
    LineTooLong,
    /// A line is not text.
    #[error("an event's line is not UTF-8")]
    NotText,
}

/// Reads events from bytes that arrive in any pieces.
#[derive(Debug, Default)]
pub struct SseReader {
    line: Vec<u8>,
    after_return: bool,
    event: ServerSent,
    has_data: bool,
    ready: VecDeque<ServerSent>,
}

impl SseReader {
    /// Takes the next bytes.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        for &byte in bytes {
            let second_half = std::mem::take(&mut self.after_return) && byte == b'\n';
            match byte {
                _ if second_half => {}
                b'\r' | b'\n' => {
                    self.after_return = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    self.handle_line(
                        std::str::from_utf8(&line).map_err(|_invalid| SseError::NotText)?,
                    );
                }
                _ if self.line.len() == LINE_MAX => return Err(SseError::LineTooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    /// Returns the next whole event.
    pub fn poll_event(&mut self) -> Option<ServerSent> {
        self.ready.pop_front()
    }

    fn handle_line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.event = value.to_owned(),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment, or a field that we do not use: the standard says to skip it.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nevent: entry\ndata: {\"a\":1}\n\nid: 7\r\nevent: change\r\ndata: x\r\ndata:  y\r\n\r\ndata: ü\n\n";

    fn all(reader: &mut SseReader) -> Vec<ServerSent> {
        std::iter::from_fn(|| reader.poll_event()).collect()
    }

    fn expected() -> Vec<ServerSent> {
        let event = |event: &str, data: &str, id: Option<&str>| ServerSent {
            event: event.to_owned(),
            data: data.to_owned(),
            id: id.map(str::to_owned),
        };
        vec![
            event("entry", r#"{"a":1}"#, None),
            event("change", "x\n y", Some("7")),
            event("", "ü", None),
        ]
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        for cut in 0..=STREAM.len() {
            let mut reader = SseReader::default();

            reader.handle_bytes(&STREAM.as_bytes()[..cut]).unwrap();
            reader.handle_bytes(&STREAM.as_bytes()[cut..]).unwrap();

            assert_eq!(all(&mut reader), expected(), "cut at {cut}");
        }
    }

    #[test]
    fn events_survive_bytes_that_come_one_by_one() {
        let mut reader = SseReader::default();

        for byte in STREAM.bytes() {
            reader.handle_bytes(&[byte]).unwrap();
        }

        assert_eq!(all(&mut reader), expected());
    }

    #[test]
    fn an_event_that_has_not_ended_is_not_given_out() {
        let mut reader = SseReader::default();

        reader.handle_bytes(b"data: half\n").unwrap();

        assert_eq!(reader.poll_event(), None);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut reader = SseReader::default();
        let piece = vec![b'x'; LINE_MAX];

        assert_eq!(reader.handle_bytes(&piece), Ok(()));
        assert_eq!(reader.handle_bytes(b"x"), Err(SseError::LineTooLong));
    }
}
