//! Cuts a stream of octets into messages (RFC 3261 §18.3) and keep-alives (RFC 5626 §3.5.1).

use bytes::{Buf as _, Bytes, BytesMut};

use super::{MAX_HEAD, Message, ParseError};

/// The longest body taken from a stream unless told otherwise, in octets.
pub const MAX_BODY: usize = 256 * 1024;

/// One thing that came over a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message(Message),
    /// A CRLF between messages: the answer to a ping of ours.
    Pong,
    /// The second of two such CRLFs: the other side wants a CRLF back. A [`Frame::Pong`] came before it, for a single
    /// CRLF must not wait for what may follow it.
    Ping,
}

/// Why a stream cannot be read any further: nobody knows where its next message begins, so it has to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// What should be a message is none.
    #[error("not SIP on a stream: {error}; closing it")]
    Malformed {
        /// What is wrong.
        #[source]
        error: ParseError,
        /// Start line and headers if they could be read, so that a request can be answered with 400.
        head: Option<Box<Message>>,
    },
    /// The body is longer than this stream takes; a request can be answered with 513.
    #[error(
        "a SIP message on a stream has a body of {length} octets, more than the {limit} that are taken; closing it"
    )]
    BodyTooLong {
        /// What Content-Length says.
        length: usize,
        /// What is taken.
        limit: usize,
        /// Start line and headers.
        head: Box<Message>,
    },
}

impl FrameError {
    /// Start line and headers of the message that could not be read, if that far it could.
    pub fn head(&self) -> Option<&Message> {
        match self {
            Self::Malformed { head, .. } => head.as_deref(),
            Self::BodyTooLong { head, .. } => Some(head),
        }
    }
}

/// The receiving end of a stream. Octets go in as they come, frames come out; how the octets were cut into pieces makes
/// no difference.
///
/// Holds at most one message and what was pushed last. After an error it yields nothing more.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    max_body: usize,
    /// How much of the buffer is known to hold no end of the headers.
    searched: usize,
    /// The head of the message at the front of the buffer, once it is there, and how long the whole is.
    head: Option<(Message, usize)>,
    /// Whether the last thing was a CRLF that is not half of a ping yet.
    after_crlf: bool,
    failed: bool,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new(MAX_BODY)
    }
}

impl Framer {
    /// Begins a stream that takes bodies of so many octets.
    pub fn new(max_body: usize) -> Self {
        Self { buffer: BytesMut::new(), max_body, searched: 0, head: None, after_crlf: false, failed: false }
    }

    /// Takes octets that came. The caller bounds them: it calls [`Framer::next_frame`] until there is none before it
    /// reads on.
    pub fn push(&mut self, octets: &[u8]) {
        if !self.failed {
            self.buffer.extend_from_slice(octets);
        }
    }

    /// Whether part of a message is waiting for the rest, so that a slow sender can be timed out.
    pub fn is_midway(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next frame; `None` until more octets come.
    ///
    /// # Errors
    /// If the octets are no message, or one beyond the limits.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.failed {
            return Ok(None);
        }
        let frame = self.read();
        if frame.is_err() {
            self.failed = true;
            self.buffer = BytesMut::new();
        }
        frame
    }

    fn read(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.head.is_none() {
            if let Some(keep_alive) = self.line_end()? {
                return Ok(Some(keep_alive));
            }
            self.head = self.measure()?;
        }
        let Some((head, length)) = self.head.take() else { return Ok(None) };
        if self.buffer.len() < length {
            self.buffer.reserve(length - self.buffer.len());
            self.head = Some((head, length));
            return Ok(None);
        }
        (self.searched, self.after_crlf) = (0, false);
        Ok(Some(Frame::Message(head.complete(self.buffer.split_to(length).freeze()))))
    }

    /// Takes one CRLF off between messages.
    fn line_end(&mut self) -> Result<Option<Frame>, FrameError> {
        match (self.buffer.first(), self.buffer.get(1)) {
            (Some(b'\r'), Some(b'\n')) => {
                self.buffer.advance(2);
                self.after_crlf = !self.after_crlf;
                Ok(Some(if self.after_crlf { Frame::Pong } else { Frame::Ping }))
            }
            (Some(b'\r'), Some(_)) | (Some(b'\n'), _) => {
                Err(malformed(ParseError::StartLine("a CR or LF stands alone")))
            }
            _ => Ok(None),
        }
    }

    /// The head of the message at the front of the buffer, once it is there, and how long the whole is.
    fn measure(&mut self) -> Result<Option<(Message, usize)>, FrameError> {
        const END: &[u8] = b"\r\n\r\n";
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = memchr::memmem::find(unsearched, END) else {
            if self.buffer.len() > MAX_HEAD {
                return Err(malformed(ParseError::HeadTooLong));
            }
            self.searched = self.buffer.len().saturating_sub(END.len() - 1);
            return Ok(None);
        };
        let end = self.searched + at + END.len();
        let octets = Bytes::copy_from_slice(self.buffer.get(..end).unwrap_or_default());
        let head = Message::parse_head(octets).map_err(malformed)?;
        let error = match head.content_length() {
            Ok(Some(length)) if length <= self.max_body => return Ok(Some((head, end + length))),
            Ok(Some(length)) => {
                return Err(FrameError::BodyTooLong { length, limit: self.max_body, head: Box::new(head) });
            }
            // On a stream it is mandatory (RFC 3261 §20.14).
            Ok(None) => ParseError::ContentLength("it is missing, and a stream needs it"),
            Err(error) => error,
        };
        Err(FrameError::Malformed { error, head: Some(Box::new(head)) })
    }
}

const fn malformed(error: ParseError) -> FrameError {
    FrameError::Malformed { error, head: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c;branch=z9hG4bK1\r\nl: 4\r\n\r\n\r\n\r\n";
    const SECOND: &[u8] = b"SIP/2.0 200 OK\r\nContent-Length : 0\r\n\r\n";

    /// Pushes octets in pieces of so many and collects what comes out.
    fn frames(octets: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
        let mut framer = Framer::default();
        let mut frames = Vec::new();
        for piece in octets.chunks(piece) {
            framer.push(piece);
            while let Some(frame) = framer.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn pieces_of_any_size_make_the_same_frames() {
        let stream = [b"\r\n\r\n".as_slice(), FIRST, SECOND, b"\r\n", FIRST, b"\r\n\r\n"].concat();
        let whole = frames(&stream, stream.len()).unwrap();
        let names = whole.iter().map(|frame| match frame {
            Frame::Ping => "ping".to_owned(),
            Frame::Pong => "pong".to_owned(),
            Frame::Message(message) => format!("{} octets", message.bytes().len()),
        });
        let (first, second) = (format!("{} octets", FIRST.len()), format!("{} octets", SECOND.len()));
        let expected = ["pong", "ping", &first, &second, "pong", &first, "pong", "ping"];
        assert_eq!(names.collect::<Vec<_>>(), expected);
        for piece in 1..=64 {
            assert_eq!(frames(&stream, piece).unwrap(), whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_body_of_line_ends_is_a_body() {
        let frames = frames(FIRST, 1).unwrap();
        let [Frame::Message(message)] = frames.as_slice() else { panic!("{frames:?}") };
        assert_eq!(message.body(), b"\r\n\r\n");
    }

    #[test]
    fn what_cannot_be_delimited_ends_the_stream() {
        let without = b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c;branch=z9hG4bK1\r\n\r\n";
        let error = frames(without, 7).unwrap_err();
        assert!(error.head().is_some_and(Message::is_request), "{error}");
        for bad in ["Content-Length: -5", "Content-Length: 1\r\nl: 2", "Content-Length:", "l: 1, 1"] {
            let message = format!("OPTIONS sip:a@b SIP/2.0\r\n{bad}\r\n\r\n");
            assert!(matches!(frames(message.as_bytes(), 9), Err(FrameError::Malformed { head: Some(_), .. })), "{bad}");
        }
        assert!(frames(b"\rINVITE", 1).is_err());
        assert!(frames(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 5).is_err());
    }

    #[test]
    fn a_stream_holds_no_more_than_its_limits() {
        let mut framer = Framer::new(10);
        framer.push(b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 11\r\n\r\n");
        assert!(matches!(framer.next_frame(), Err(FrameError::BodyTooLong { length: 11, limit: 10, .. })));
        framer.push(SECOND);
        assert_eq!(framer.next_frame(), Ok(None), "after an error nothing is read");
        assert!(!framer.is_midway());

        let mut framer = Framer::default();
        framer.push(b"OPTIONS sip:a@b SIP/2.0\r\n");
        let error = loop {
            framer.push(b"X: 0123456789012345678901234567890123456789\r\n");
            if let Err(error) = framer.next_frame() {
                break error;
            }
        };
        assert_eq!(error, FrameError::Malformed { error: ParseError::HeadTooLong, head: None });
    }
}
