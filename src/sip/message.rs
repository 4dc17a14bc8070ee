//! A SIP message: its octets, and an index of its lines.

mod reader;

use std::{fmt, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};

use self::reader::Head;
use super::{
    Method, ParseError, edit,
    header::{self, Header, Name},
    scan,
};

/// Longest start line and headers taken, in octets: what a datagram can hold, and what an index of 16 bits reaches.
pub const MAX_HEAD: usize = u16::MAX as usize;
/// Most header lines taken.
pub const MAX_HEADERS: usize = 256;

/// One SIP message: the octets as they came, and an index of its lines. Cheap to clone.
#[derive(Clone)]
pub struct Message {
    /// Exactly the message, from the start line to the end of the body.
    bytes: Bytes,
    start: StartLine,
    headers: Arc<[Line]>,
    /// Where the body begins.
    head: u16,
}

/// A start line, in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// RFC 3261 §7.1.
    Request {
        /// The method, a token.
        method: Method<'a>,
        /// The Request-URI as it was written, which need not be a URI; see [`Message::check`].
        uri: &'a str,
    },
    /// RFC 3261 §7.2.
    Response {
        /// 100 to 699.
        status: u16,
        /// Whatever follows; any octets but CR and LF.
        reason: &'a [u8],
    },
}

/// A piece of the head.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u16,
    end: u16,
}

#[derive(Debug, Clone, Copy)]
enum StartLine {
    /// `gaps` holds whether anything but single spaces stands between and after the parts.
    Request {
        method: Span,
        uri: Span,
        version: Span,
        gaps: bool,
    },
    Response {
        version: Span,
        status: u16,
        reason: Span,
    },
}

/// Where a header line is: name, value without white space around it, and all of it with its line end.
#[derive(Debug, Clone, Copy)]
pub(in crate::sip) struct Line {
    code: u8,
    name: Span,
    value: Span,
    end: u16,
}

impl Message {
    /// Reads one datagram, or one message that a [`super::framing::Framer`] has cut from a stream.
    ///
    /// CRLFs before the start line are skipped (RFC 3261 §7.5), and what Content-Length does not cover is cut off
    /// (§18.3). What cannot be found its way in is refused here; whether the message is in order, [`Message::check`] says.
    ///
    /// # Errors
    /// A start line or header line that is none, a line end that is not CRLF (two readers would see two messages), no
    /// empty line, a Content-Length that is not a number, contradicts itself or promises more than there is, or more
    /// than [`MAX_HEAD`] or [`MAX_HEADERS`] allow.
    pub fn parse(bytes: Bytes) -> Result<Self, ParseError> {
        let mut message = Self::index(bytes)?;
        let available = message.bytes.len() - message.head();
        match message.content_length()? {
            Some(length) if length > available => {
                return Err(ParseError::ContentLength("it promises more than the message has"));
            }
            Some(length) => message.bytes.truncate(message.head() + length),
            None => {}
        }
        Ok(message)
    }

    /// Reads start line and headers, and leaves the body out.
    ///
    /// For framing, and to answer a request with 400 whose body cannot be delimited (RFC 3261 §18.3).
    ///
    /// # Errors
    /// As [`Message::parse`], but for Content-Length.
    pub fn parse_head(bytes: Bytes) -> Result<Self, ParseError> {
        let mut message = Self::index(bytes)?;
        message.bytes.truncate(message.head());
        Ok(message)
    }

    /// The message whose head this is, once all of it is there.
    pub(in crate::sip) fn complete(self, bytes: Bytes) -> Self {
        Self { bytes, ..self }
    }

    fn index(mut bytes: Bytes) -> Result<Self, ParseError> {
        let blank = bytes.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
        if blank == bytes.len() {
            return Err(ParseError::Empty);
        }
        if blank > 0 {
            bytes = bytes.slice(blank..);
        }
        let Head { start, lines, end } = reader::head(&bytes)?;
        Ok(Self { bytes, start, headers: lines.into(), head: end })
    }

    /// The message with another topmost Via value, as its receiver notes where it came from (RFC 3261 §18.2.1). Nothing
    /// is read again: what follows moves. CR and LF are written as spaces. `None` if there is no Via, or no room for
    /// the value.
    #[must_use]
    pub fn with_top_via(&self, value: &[u8]) -> Option<Self> {
        let code = Name::Via.code();
        let at = self.headers.iter().position(|line| line.code == code)?;
        let line = self.headers.get(at)?;
        let start = usize::from(line.value.start);
        let length = scan::element_len(self.piece(line.value));
        let (before, rest) = self.bytes.split_at_checked(start)?;
        let rest = rest.get(length..)?;
        let moved = |at: u16| u16::try_from((usize::from(at) + value.len()).checked_sub(length)?).ok();
        let head = moved(self.head)?;
        let mut bytes = BytesMut::with_capacity(before.len() + value.len() + rest.len());
        bytes.put_slice(before);
        bytes.extend(value.iter().copied().map(edit::printable));
        bytes.put_slice(rest);
        let mut headers = self.headers.clone();
        for line in Arc::make_mut(&mut headers).iter_mut().skip(at) {
            if usize::from(line.name.start) > start {
                line.name = Span { start: moved(line.name.start)?, end: moved(line.name.end)? };
                line.value.start = moved(line.value.start)?;
            }
            line.value.end = moved(line.value.end)?;
            line.end = moved(line.end)?;
        }
        Some(Self { bytes: bytes.freeze(), start: self.start, headers, head })
    }

    /// The whole message as it came.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The body; empty if there is none.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.head()..).unwrap_or_default()
    }

    /// How long the start line and headers are, the empty line included: where the body begins.
    pub fn head(&self) -> usize {
        usize::from(self.head)
    }

    /// The start line.
    pub fn start(&self) -> Start<'_> {
        match self.start {
            StartLine::Request { method, uri, .. } => {
                Start::Request { method: Method::new(self.text(method)), uri: self.text(uri) }
            }
            StartLine::Response { status, reason, .. } => Start::Response { status, reason: self.piece(reason) },
        }
    }

    /// Whether this is a request.
    pub const fn is_request(&self) -> bool {
        matches!(self.start, StartLine::Request { .. })
    }

    /// The Request-URI as it was written; `None` of a response.
    pub fn request_uri(&self) -> Option<&str> {
        match self.start {
            StartLine::Request { uri, .. } => Some(self.text(uri)),
            StartLine::Response { .. } => None,
        }
    }

    /// The status code; `None` of a request.
    pub const fn status(&self) -> Option<u16> {
        match self.start {
            StartLine::Response { status, .. } => Some(status),
            StartLine::Request { .. } => None,
        }
    }

    /// The reason phrase; empty of a request.
    pub fn reason(&self) -> &[u8] {
        match self.start {
            StartLine::Response { reason, .. } => self.piece(reason),
            StartLine::Request { .. } => &[],
        }
    }

    /// The version of the start line, `SIP/2.0` of every message in order.
    pub fn version(&self) -> &[u8] {
        match self.start {
            StartLine::Request { version, .. } | StartLine::Response { version, .. } => self.piece(version),
        }
    }

    /// The method; of a response that in its CSeq, and an empty one if that cannot be read.
    pub fn method(&self) -> Method<'_> {
        match self.start {
            StartLine::Request { method, .. } => Method::new(self.text(method)),
            StartLine::Response { .. } => self.cseq().map_or(Method::Other(""), |cseq| cseq.method),
        }
    }

    /// All header lines from top to bottom.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = Header<'_>> + ExactSizeIterator + Clone {
        self.headers.iter().map(|line| self.view(line))
    }

    /// The first line's value of a header field, with its folds, without white space around it.
    pub fn header(&self, name: Name<'_>) -> Option<&[u8]> {
        self.lines_of(name).next().map(|line| self.piece(line.value))
    }

    /// How many lines a header field has.
    pub fn count(&self, name: Name<'_>) -> usize {
        self.lines_of(name).count()
    }

    /// The values of a header field from top to bottom. Comma lists are split where the field is a list
    /// (RFC 3261 §7.3.1); commas in quotes or angle brackets do not split.
    pub fn values<'a>(&'a self, name: Name<'a>) -> impl Iterator<Item = &'a [u8]> + Clone {
        let list = name.is_list();
        self.lines_of(name).flat_map(move |line| header::Elements::new(self.piece(line.value), list))
    }

    fn lines_of<'a>(&'a self, name: Name<'a>) -> impl Iterator<Item = &'a Line> + Clone {
        let code = name.code();
        self.headers.iter().filter(move |line| {
            line.code == code && (code != header::OTHER || self.piece(line.name).eq_ignore_ascii_case(name.as_bytes()))
        })
    }

    fn view(&self, line: &Line) -> Header<'_> {
        let written = self.piece(line.name);
        Header { name: Name::from_code(line.code, written), written, value: self.piece(line.value) }
    }

    /// Whether the start line of a request is spaced as RFC 3261 §7.1 demands: one space twice, none at the end.
    pub(in crate::sip) const fn is_spaced(&self) -> bool {
        matches!(self.start, StartLine::Request { gaps: false, .. } | StartLine::Response { .. })
    }

    /// The start line with its line end.
    pub(in crate::sip) fn start_len(&self) -> usize {
        self.headers.first().map_or(self.head().saturating_sub(2), |line| usize::from(line.name.start))
    }

    /// Where the Request-URI is.
    pub(in crate::sip) fn uri_range(&self) -> Option<std::ops::Range<usize>> {
        match self.start {
            StartLine::Request { uri, .. } => Some(uri.range()),
            StartLine::Response { .. } => None,
        }
    }

    /// The header lines as ranges of the message.
    pub(in crate::sip) fn lines(&self) -> &[Line] {
        &self.headers
    }

    fn piece(&self, span: Span) -> &[u8] {
        self.bytes.get(span.range()).unwrap_or_default()
    }

    fn text(&self, span: Span) -> &str {
        scan::text(self.piece(span)).unwrap_or_default()
    }
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }
}

impl Line {
    pub(in crate::sip) const fn code(&self) -> u8 {
        self.code
    }

    pub(in crate::sip) fn name(&self) -> std::ops::Range<usize> {
        self.name.range()
    }

    pub(in crate::sip) fn value(&self) -> std::ops::Range<usize> {
        self.value.range()
    }

    /// The whole line with its line end.
    pub(in crate::sip) fn whole(&self) -> std::ops::Range<usize> {
        usize::from(self.name.start)..usize::from(self.end)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.bytes.get(..self.start_len()).unwrap_or_default();
        write!(f, "Message({}, {} octets)", start.trim_ascii_end().escape_ascii(), self.bytes.len())
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Message {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::edit::Edit;

    #[test]
    fn another_topmost_via_moves_all_that_follows() {
        let texts = [
            "INVITE sip:a@b SIP/2.0\r\nX: y\r\nv:  SIP/2.0/UDP one;branch=1 ,\r\n SIP/2.0/TCP two \r\nf:\t<sip:a@b>\r\n\r\nbody",
            "OPTIONS sip:b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nVia: SIP/2.0/UDP x\r\nTo: <sip:a@b>\r\n\r\n",
        ];
        for text in texts {
            let message = Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap();
            for value in ["SIP/2.0/UDP one;branch=1;received=192.0.2.1;rport=5060", "SIP/2.0/UDP a", ""] {
                let changed = message.with_top_via(value.as_bytes()).unwrap();
                let read = Message::parse(changed.bytes().clone()).unwrap();
                let lines = |message: &Message| -> Vec<(Vec<u8>, Vec<u8>)> {
                    message.headers().map(|line| (line.written.to_vec(), line.value.to_vec())).collect()
                };
                assert_eq!((lines(&changed), changed.head()), (lines(&read), read.head()), "{text}");
                assert_eq!(changed.body(), message.body());
                let mut edit = Edit::new(&message);
                edit.replace_first_value(Name::Via, value);
                let edited = Message::parse(edit.finish()).unwrap();
                // An edit writes a folded value in one line.
                let flat = |message: &Message| -> Vec<Vec<u8>> {
                    message.headers().map(|line| line.value.iter().copied().map(edit::printable).collect()).collect()
                };
                assert_eq!(flat(&edited), flat(&read));
            }
            assert_eq!(message.with_top_via(&[b'x'; 70_000]), None);
            let split = message.with_top_via(b"a\r\nTo: b").unwrap();
            assert_eq!(split.count(Name::To), message.count(Name::To));
        }
        assert_eq!(Message::parse(Bytes::from_static(b"SIP/2.0 200 OK\r\n\r\n")).unwrap().with_top_via(b"a"), None);
    }
}
