//! Stands in for `sip::framing` until it lands.
use bytes::{Buf, BytesMut};

use crate::sip::{Message, ParseError};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Message(Message),
    Ping,
    Pong,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    Malformed { error: ParseError, head: Option<Box<Message>> },
    BodyTooLong { length: usize, limit: usize, head: Box<Message> },
}

impl FrameError {
    pub(super) fn head(&self) -> Option<&Message> {
        match self {
            Self::Malformed { head, .. } => head.as_deref(),
            Self::BodyTooLong { head, .. } => Some(head),
        }
    }
}

pub(super) struct Framer {
    buffer: BytesMut,
    max_body: usize,
    after: bool,
}

impl Framer {
    pub(super) fn new(max_body: usize) -> Self {
        Self { buffer: BytesMut::new(), max_body, after: false }
    }

    pub(super) fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    pub(super) fn is_midway(&self) -> bool {
        !self.buffer.is_empty()
    }

    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.starts_with(b"\r\n") {
            self.buffer.advance(2);
            self.after = !self.after;
            return Ok(Some(if self.after { Frame::Pong } else { Frame::Ping }));
        }
        let malformed = |error| FrameError::Malformed { error, head: None };
        let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") else {
            let long = self.buffer.len() > crate::sip::MAX_HEAD;
            return if long { Err(malformed(ParseError::HeadTooLong)) } else { Ok(None) };
        };
        let head = self.buffer.get(..end + 4).unwrap_or_default();
        let head = Message::parse_head(bytes::Bytes::copy_from_slice(head)).map_err(malformed)?;
        let length = match head.content_length() {
            Ok(Some(length)) if length <= self.max_body => length,
            Ok(Some(length)) => {
                return Err(FrameError::BodyTooLong { length, limit: self.max_body, head: Box::new(head) });
            }
            _ => {
                let error = ParseError::ContentLength("it is missing");
                return Err(FrameError::Malformed { error, head: Some(Box::new(head)) });
            }
        };
        let total = end + 4 + length;
        if self.buffer.len() < total {
            return Ok(None);
        }
        self.after = false;
        let message = Message::parse(self.buffer.split_to(total).freeze()).map_err(malformed)?;
        Ok(Some(Frame::Message(message)))
    }
}
