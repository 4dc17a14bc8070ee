//! Finds the lines of a message's head, and refuses what two readers could see two messages in.

use super::{Line, MAX_HEAD, MAX_HEADERS, Span, StartLine};
use crate::sip::{ParseError, header, scan};

/// Room for the header lines of most messages, so that indexing allocates once.
const USUAL_HEADERS: usize = 24;

/// What stands before the body.
pub(super) struct Head {
    pub(super) start: StartLine,
    pub(super) lines: Vec<Line>,
    /// Where the body begins.
    pub(super) end: u16,
}

/// Reads the start line and all header lines, from the first octet on.
pub(super) fn head(bytes: &[u8]) -> Result<Head, ParseError> {
    let head = bytes.get(..MAX_HEAD.min(bytes.len())).unwrap_or_default();
    let reader = Reader { head, whole: head.len() == bytes.len() };
    let start_end = reader.line_end(0).map_err(|fault| fault.in_line(0))?;
    let start = start_line(head.get(..start_end - 2).unwrap_or_default())?;
    let mut lines = Vec::with_capacity(USUAL_HEADERS);
    let mut at = start_end;
    while head.get(at..at + 2) != Some(b"\r\n") {
        if lines.len() == MAX_HEADERS {
            return Err(ParseError::TooManyHeaders);
        }
        let line = reader.header_line(at).map_err(|fault| fault.in_line(lines.len() + 1))?;
        at = usize::from(line.end);
        lines.push(line);
    }
    let end = u16::try_from(at + 2).map_err(|_| ParseError::HeadTooLong)?;
    Ok(Head { start, lines, end })
}

/// Walks through the head's lines.
struct Reader<'a> {
    head: &'a [u8],
    /// Whether the head is all there is, and not cut off at the limit.
    whole: bool,
}

/// What went wrong in some line.
enum Fault {
    Line(&'static str),
    Message(ParseError),
}

impl Fault {
    const fn in_line(self, line: usize) -> ParseError {
        match self {
            Self::Line(why) if line == 0 => ParseError::StartLine(why),
            Self::Line(why) => ParseError::HeaderLine { line, why },
            Self::Message(error) => error,
        }
    }
}

impl Reader<'_> {
    /// Where the line that `at` is in ends, its CRLF included.
    fn line_end(&self, at: usize) -> Result<usize, Fault> {
        let rest = self.head.get(at..).unwrap_or_default();
        let Some(length) = memchr::memchr2(b'\r', b'\n', rest) else { return Err(self.cut_off()) };
        match rest.get(length..length + 2) {
            Some(b"\r\n") => Ok(at + length + 2),
            None if rest.get(length) == Some(&b'\r') => Err(self.cut_off()),
            _ => Err(Fault::Line("a CR or LF stands alone")),
        }
    }

    const fn cut_off(&self) -> Fault {
        Fault::Message(if self.whole { ParseError::Unfinished } else { ParseError::HeadTooLong })
    }

    /// The header line that begins at `start`, with its folds (RFC 3261 §7.3.1).
    fn header_line(&self, start: usize) -> Result<Line, Fault> {
        let line = self.head.get(start..).unwrap_or_default();
        let name_len = line.iter().position(|octet| !scan::is_token(*octet)).unwrap_or(line.len());
        let name = line.get(..name_len).unwrap_or_default();
        let after = line.get(name_len..).unwrap_or_default();
        let blank = after.iter().take_while(|octet| matches!(octet, b' ' | b'\t')).count();
        match after.get(blank) {
            None => return Err(self.cut_off()),
            Some(b':') if name_len > 0 => {}
            Some(b':') => return Err(Fault::Line("it has no name before the colon")),
            Some(_) if name_len == 0 => return Err(Fault::Line("it does not begin with a name")),
            Some(_) => return Err(Fault::Line("no colon follows the name")),
        }
        let colon = start + name_len + blank;
        let mut end = self.line_end(colon + 1)?;
        while matches!(self.head.get(end), Some(b' ' | b'\t')) {
            end = self.line_end(end)?;
        }
        let raw = self.head.get(colon + 1..end).unwrap_or_default();
        let before = raw.iter().take_while(|octet| scan::is_lws(**octet)).count();
        let value = scan::trim(raw);
        let value_start = colon + 1 + if value.is_empty() { 0 } else { before };
        Ok(Line {
            code: header::code_of(name),
            name: span(start, start + name_len)?,
            value: span(value_start, value_start + value.len())?,
            end: short(end)?,
        })
    }
}

fn short(at: usize) -> Result<u16, Fault> {
    u16::try_from(at).map_err(|_| Fault::Message(ParseError::HeadTooLong))
}

fn span(start: usize, end: usize) -> Result<Span, Fault> {
    Ok(Span { start: short(start)?, end: short(end)? })
}

/// Takes a start line apart, without its line end.
///
/// A request's is taken as loosely as its parts can be told apart, so that it can be answered with 400.
fn start_line(line: &[u8]) -> Result<StartLine, ParseError> {
    let fault = |fault: Fault| fault.in_line(0);
    let first = memchr::memchr(b' ', line).ok_or(ParseError::StartLine("it has no space"))?;
    let (word, rest) = line.split_at(first);
    if word.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"SIP/")) {
        let code = rest.get(1..4).and_then(scan::number).and_then(|code| u16::try_from(code).ok());
        let status = code.filter(|status| (100..700).contains(status));
        let status = status.ok_or(ParseError::StartLine("its status code is not from 100 to 699"))?;
        let reason = match rest.get(4) {
            None => line.len(),
            Some(b' ') => first + 5,
            Some(_) => return Err(ParseError::StartLine("its status code has more than three digits")),
        };
        let (version, reason) = (span(0, first).map_err(fault)?, span(reason, line.len()).map_err(fault)?);
        return Ok(StartLine::Response { version, status, reason });
    }
    if !scan::is_token_text(word) {
        return Err(ParseError::StartLine("its method is not a token"));
    }
    let trimmed = scan::trim(rest);
    let uri_start = first + rest.iter().take_while(|octet| scan::is_lws(**octet)).count();
    let last = trimmed.iter().rposition(|octet| scan::is_lws(*octet));
    let last = last.ok_or(ParseError::StartLine("it has no version"))?;
    let (uri, version) = trimmed.split_at(last);
    let version = version.get(1..).unwrap_or_default();
    if !version.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"SIP/")) {
        return Err(ParseError::StartLine("its version is not one of SIP"));
    }
    let uri = scan::trim(uri);
    if scan::text(uri).is_none() {
        return Err(ParseError::StartLine("its Request-URI is not UTF-8"));
    }
    let version_start = uri_start + last + 1;
    let exact = first + 1 + uri.len() + 1 + version.len();
    Ok(StartLine::Request {
        method: span(0, first).map_err(fault)?,
        uri: span(uri_start, uri_start + uri.len()).map_err(fault)?,
        version: span(version_start, version_start + version.len()).map_err(fault)?,
        gaps: exact != line.len(),
    })
}
