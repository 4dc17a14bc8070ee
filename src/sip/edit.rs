//! Changes single lines of a message and leaves every other octet as it came (RFC 3261 §16.6).

use std::{net::SocketAddr, ops::Range};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    Message,
    header::{self, Name},
    scan,
};

/// A message under change. Operations build on each other; [`Edit::finish`] writes the result in one pass.
///
/// Names are written in long form. In given values CR and LF are written as spaces, so that no value can become a line.
#[derive(Debug)]
pub struct Edit<'a> {
    message: &'a Message,
    uri: Option<String>,
    lines: Vec<Line>,
    /// Lines that were not in the message, whole.
    written: Vec<u8>,
    body: Option<Bytes>,
}

/// A line of the result: ranges of the message, or of what was written.
#[derive(Debug, Clone)]
struct Line {
    original: bool,
    code: u8,
    name: Range<usize>,
    value: Range<usize>,
    whole: Range<usize>,
}

impl<'a> Edit<'a> {
    /// Begins with the message as it is.
    pub fn new(message: &'a Message) -> Self {
        let lines = message.lines().iter().map(|line| Line {
            original: true,
            code: line.code(),
            name: line.name(),
            value: line.value(),
            whole: line.whole(),
        });
        let mut all = Vec::with_capacity(lines.len() + 4);
        all.extend(lines);
        Self { message, uri: None, lines: all, written: Vec::new(), body: None }
    }

    /// Puts another Request-URI into the start line. Nothing happens to a response.
    pub fn set_request_uri(&mut self, uri: &str) -> &mut Self {
        self.uri = Some(uri.to_owned());
        self
    }

    /// Adds a line above the first one of this name; above all others if there is none.
    pub fn prepend(&mut self, name: Name<'_>, value: impl AsRef<[u8]>) -> &mut Self {
        let at = self.find(name).unwrap_or(0);
        let line = self.write(name, value.as_ref());
        self.lines.insert(at, line);
        self
    }

    /// Adds a line below the last one of this name; below all others if there is none.
    pub fn append(&mut self, name: Name<'_>, value: impl AsRef<[u8]>) -> &mut Self {
        let last = self.lines.iter().rposition(|line| self.is(line, name));
        let line = self.write(name, value.as_ref());
        self.lines.insert(last.map_or(self.lines.len(), |at| at + 1), line);
        self
    }

    /// Makes this the only line of its name, where the first one was, or below all others.
    pub fn set(&mut self, name: Name<'_>, value: impl AsRef<[u8]>) -> &mut Self {
        let at = self.find(name).unwrap_or(self.lines.len());
        self.remove_all(name);
        let line = self.write(name, value.as_ref());
        self.lines.insert(at.min(self.lines.len()), line);
        self
    }

    /// Takes the topmost value of a header field away: of a comma list the first element.
    pub fn remove_first_value(&mut self, name: Name<'_>) -> &mut Self {
        self.change_first(name, None)
    }

    /// Puts another value in the place of the topmost one: of a comma list the first element.
    pub fn replace_first_value(&mut self, name: Name<'_>, value: impl AsRef<[u8]>) -> &mut Self {
        self.change_first(name, Some(value.as_ref()))
    }

    /// Takes all lines of a header field away.
    pub fn remove_all(&mut self, name: Name<'_>) -> &mut Self {
        let mut lines = std::mem::take(&mut self.lines);
        lines.retain(|line| !self.is(line, name));
        self.lines = lines;
        self
    }

    /// Puts another body in the place of the message's, and its length into Content-Length. Content-Type is left alone.
    pub fn set_body(&mut self, body: Bytes) -> &mut Self {
        self.set(Name::ContentLength, body.len().to_string());
        self.body = Some(body);
        self
    }

    /// Notes in the topmost Via where the request came from (see [`header::Via::stamped`]). Nothing happens if that
    /// cannot be read, or if there is nothing to note.
    pub fn stamp_via(&mut self, source: SocketAddr) -> &mut Self {
        let stamped = self.message.top_via().ok().and_then(|via| via.stamped(source));
        if let Some(value) = stamped {
            self.replace_first_value(Name::Via, value);
        }
        self
    }

    /// Writes the message. If nothing was changed it is the message's own octets, not copied.
    pub fn finish(self) -> Bytes {
        let unchanged = self.uri.is_none() && self.body.is_none() && self.written.is_empty();
        if unchanged && self.lines.len() == self.message.lines().len() {
            return self.message.bytes().clone();
        }
        let source = self.message.bytes();
        let body = self.body.as_deref().unwrap_or_else(|| self.message.body());
        let uri = self.uri.as_ref().map_or(0, String::len);
        let head = self.message.head();
        let mut out = BytesMut::with_capacity(head + uri + self.written.len() + body.len());
        match (self.message.uri_range(), &self.uri) {
            (Some(range), Some(uri)) => {
                out.put_slice(source.get(..range.start).unwrap_or_default());
                out.extend(uri.bytes().map(printable));
                out.put_slice(source.get(range.end..self.message.start_len()).unwrap_or_default());
            }
            _ => out.put_slice(source.get(..self.message.start_len()).unwrap_or_default()),
        }
        // Lines that follow each other in the message are copied at once.
        let mut run: Range<usize> = 0..0;
        for line in &self.lines {
            if line.original && line.whole.start == run.end {
                run.end = line.whole.end;
                continue;
            }
            out.put_slice(source.get(run.clone()).unwrap_or_default());
            run = 0..0;
            if line.original {
                run = line.whole.clone();
            } else {
                out.put_slice(self.written.get(line.whole.clone()).unwrap_or_default());
            }
        }
        out.put_slice(source.get(run).unwrap_or_default());
        out.put_slice(b"\r\n");
        out.put_slice(body);
        out.freeze()
    }

    /// Removes or replaces the first element of the first line of this name.
    fn change_first(&mut self, name: Name<'_>, replacement: Option<&[u8]>) -> &mut Self {
        let Some(at) = self.find(name) else { return self };
        let Some(line) = self.lines.get(at) else { return self };
        let value = self.buffer(line).get(line.value.clone()).unwrap_or_default();
        let first = if name.is_list() { scan::element_len(value) } else { value.len() };
        let rest = value.get(first..).unwrap_or_default();
        let changed = match (replacement, rest.strip_prefix(b",")) {
            (Some(new), _) => Some([new, rest].concat()),
            (None, Some(rest)) => Some(scan::trim(rest).to_vec()),
            (None, None) => None,
        };
        match changed {
            Some(value) => {
                let line = self.write(name, &value);
                if let Some(place) = self.lines.get_mut(at) {
                    *place = line;
                }
            }
            None => {
                self.lines.remove(at);
            }
        }
        self
    }

    fn find(&self, name: Name<'_>) -> Option<usize> {
        self.lines.iter().position(|line| self.is(line, name))
    }

    fn is(&self, line: &Line, name: Name<'_>) -> bool {
        let code = name.code();
        let written = || self.buffer(line).get(line.name.clone()).unwrap_or_default();
        line.code == code && (code != header::OTHER || written().eq_ignore_ascii_case(name.as_bytes()))
    }

    fn buffer(&self, line: &Line) -> &[u8] {
        if line.original { self.message.bytes() } else { &self.written }
    }

    fn write(&mut self, name: Name<'_>, value: &[u8]) -> Line {
        let start = self.written.len();
        self.written.extend(name.as_bytes().iter().copied().map(printable));
        let name_end = self.written.len();
        self.written.extend_from_slice(b": ");
        let value_start = self.written.len();
        self.written.extend(value.iter().copied().map(printable));
        let value_end = self.written.len();
        self.written.extend_from_slice(b"\r\n");
        Line {
            original: false,
            code: name.code(),
            name: start..name_end,
            value: value_start..value_end,
            whole: start..self.written.len(),
        }
    }
}

/// Anything but the two octets that end a line.
pub(super) const fn printable(octet: u8) -> u8 {
    if matches!(octet, b'\r' | b'\n') { b' ' } else { octet }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "INVITE sip:a@b SIP/2.0\r\n\
        v: SIP/2.0/UDP one;branch=1 ,\r\n SIP/2.0/TCP two\r\n\
        X-odd :  \t kept\r\n\
        Route:<sip:r1;lr>\r\n\
        route: <sip:r2;lr>\r\n\
        Max-Forwards:  70  \r\n\
        Content-Length: 2\r\n\r\nhi";

    fn edited(change: impl for<'e, 'm> FnOnce(&'e mut Edit<'m>) -> &'e mut Edit<'m>) -> String {
        let message = Message::parse(Bytes::from_static(REQUEST.as_bytes())).unwrap();
        let mut edit = Edit::new(&message);
        change(&mut edit);
        let bytes = edit.finish();
        Message::parse(bytes.clone()).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// The request with one text in it replaced.
    fn but(old: &str, new: &str) -> String {
        assert_eq!(REQUEST.matches(old).count(), 1);
        REQUEST.replace(old, new)
    }

    #[test]
    fn without_changes_nothing_is_copied() {
        let message = Message::parse(Bytes::from_static(REQUEST.as_bytes())).unwrap();
        assert_eq!(Edit::new(&message).finish().as_ptr(), message.bytes().as_ptr());
    }

    #[test]
    fn only_the_named_lines_change() {
        assert_eq!(edited(|edit| edit.set_request_uri("tel:1")), but("sip:a@b", "tel:1"));
        assert_eq!(edited(|edit| edit.prepend(Name::Via, "SIP/2.0/UDP me")), but("v:", "Via: SIP/2.0/UDP me\r\nv:"));
        assert_eq!(edited(|edit| edit.set(Name::MaxForwards, "69")), but("Max-Forwards:  70  ", "Max-Forwards: 69"));
        assert_eq!(edited(|edit| edit.remove_first_value(Name::Route)), but("Route:<sip:r1;lr>\r\n", ""));
        assert_eq!(edited(|edit| edit.remove_all(Name::Route)), but("Route:<sip:r1;lr>\r\nroute: <sip:r2;lr>\r\n", ""));
        assert_eq!(edited(|edit| edit.append(Name::Route, "<sip:r3>")), but("r2;lr>", "r2;lr>\r\nRoute: <sip:r3>"));
        assert_eq!(edited(|edit| edit.set(Name::Other(b"x-ODD"), "new")), but("X-odd :  \t kept", "x-ODD: new"));
        assert_eq!(edited(|edit| edit.remove_all(Name::Path)), REQUEST);
        let recorded = edited(|edit| edit.prepend(Name::RecordRoute, "<sip:o;lr>"));
        assert_eq!(recorded, but("v:", "Record-Route: <sip:o;lr>\r\nv:"));
        assert_eq!(
            edited(|edit| edit.set_body(Bytes::from_static(b"hello"))),
            but("Content-Length: 2\r\n\r\nhi", "Content-Length: 5\r\n\r\nhello")
        );
    }

    #[test]
    fn values_of_one_line_go_one_by_one() {
        let via = "v: SIP/2.0/UDP one;branch=1 ,\r\n SIP/2.0/TCP two\r\n";
        assert_eq!(edited(|edit| edit.remove_first_value(Name::Via)), but(via, "Via: SIP/2.0/TCP two\r\n"));
        let none = edited(|edit| edit.remove_first_value(Name::Via).remove_first_value(Name::Via));
        assert_eq!(none, but(via, ""));
        let stamped = edited(|edit| edit.stamp_via("192.0.2.1:9".parse().unwrap()));
        let value = "Via: SIP/2.0/UDP one;branch=1;received=192.0.2.1,   SIP/2.0/TCP two\r\n";
        assert_eq!(stamped, but(via, value));
    }

    #[test]
    fn changes_build_on_each_other() {
        let twice = edited(|edit| {
            edit.prepend(Name::Via, "SIP/2.0/UDP x").prepend(Name::Via, "SIP/2.0/UDP y").remove_first_value(Name::Via);
            edit.append(Name::Subject, "a")
                .set(Name::Subject, "b")
                .append(Name::Subject, "c")
                .remove_first_value(Name::Subject)
        });
        assert_eq!(
            twice,
            but("v:", "Via: SIP/2.0/UDP x\r\nv:").replace("Length: 2\r\n", "Length: 2\r\nSubject: c\r\n")
        );
    }

    #[test]
    fn no_value_becomes_a_line() {
        let attempt = edited(|edit| {
            edit.append(Name::Subject, "a\r\nRoute: <sip:evil>\r\n\r\n").set_request_uri("sip:a@b SIP/2.0\r\nRoute:x")
        });
        assert_eq!(attempt.matches("\r\nRoute").count(), 1, "{attempt}");
    }
}
