//! Messages from a stream of octets (RFC 3261 §18.3): stands in for the message layer's own reader.

use bytes::{Buf, Bytes, BytesMut};

/// What a stream carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Message(Bytes),
    Ping,
    Pong,
}

/// Why a stream cannot be read on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    Malformed,
    Oversized,
}

pub(super) struct Framer {
    buffer: BytesMut,
    limit: usize,
}

impl Framer {
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(4096), limit }
    }

    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    pub(super) fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.starts_with(b"\r\n\r\n") {
            self.buffer.advance(4);
            return Ok(Some(Frame::Ping));
        }
        if self.buffer.starts_with(b"\r\n") && self.buffer.len() != 3 {
            self.buffer.advance(2);
            return Ok(Some(Frame::Pong));
        }
        let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") else {
            return if self.buffer.len() > self.limit { Err(FrameError::Oversized) } else { Ok(None) };
        };
        let head = self.buffer.get(..end).unwrap_or_default();
        let length = head.split(|c| *c == b'\n').find_map(|line| {
            let (name, value) = line.split_at(line.iter().position(|c| *c == b':')?);
            let name = name.trim_ascii();
            (name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"l"))
                .then(|| std::str::from_utf8(value.get(1..)?.trim_ascii()).ok()?.parse::<usize>().ok())?
        });
        let total = length.and_then(|length| length.checked_add(end + 4)).ok_or(FrameError::Malformed)?;
        if total > self.limit {
            return Err(FrameError::Oversized);
        }
        Ok((self.buffer.len() >= total).then(|| Frame::Message(self.buffer.split_to(total).freeze())))
    }
}
