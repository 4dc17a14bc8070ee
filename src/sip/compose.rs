//! Requests that our own tools originate: REGISTER, calls, and what follows in their dialogs. rsip's types make the
//! request line; our own reader reads every request once more before it is sent.
//!
//! rsip (0.4) is used for what holds: the names of methods, the parts of a SIP URI, and how they are printed. What does
//! not hold is written here or elsewhere in this module's folder:
//!
//! - It reads no traffic at all, for its reader loses and changes octets; [`super::Message`] reads.
//! - It prints `404 NotFound`; the phrases are [`super::reason_phrase`]'s.
//! - It prints an IPv6 host without brackets; hosts are handed to it as they are to be printed.
//! - It prints `tel:` as `tel://`; a Request-URI that is not of SIP is refused.
//! - It has header values and bodies as UTF-8, but a dialog repeats the other side's From as it came (RFC 3261
//!   §12.2.1.1), whatever its octets are: header lines and bodies are written here.

use bytes::{BufMut as _, Bytes, BytesMut};
use rsip::common::uri::{Auth, Domain, Host, HostWithPort, Param, Scheme};

use super::{
    Message, Method, ParseError,
    edit::printable,
    header::Name,
    uri::{SipUri, Uri},
};

/// A request in the making. The Via may be missing: whoever sends the request knows which transport it takes.
#[derive(Debug, Clone)]
pub struct Request {
    line: Result<Line, ParseError>,
    headers: BytesMut,
    /// How many header lines there are.
    count: usize,
    body: Bytes,
}

/// What a request begins with.
#[derive(Debug, Clone)]
struct Line {
    method: rsip::Method,
    uri: rsip::Uri,
    /// The URI as it was given.
    given: String,
}

impl Line {
    fn new(method: Method<'_>, uri: &str) -> Result<Self, ParseError> {
        let method = rsip::Method::all().into_iter().find(|known| known.to_string() == method.as_str());
        let method = method.ok_or(ParseError::StartLine("no tool sends requests of this method"))?;
        let parts = SipUri::parse(uri)?;
        if parts.headers.is_some() {
            return Err(ParseError::Uri("it has headers, which a Request-URI may not have"));
        }
        Ok(Self { method, uri: rsip_uri(&parts), given: uri.to_owned() })
    }
}

impl Request {
    /// Begins a request to a SIP URI. Every header line is the caller's to add, but for Content-Length.
    ///
    /// A method that rsip does not know, or a text that is no SIP URI or has headers, which no Request-URI has
    /// (RFC 3261 §19.1.1), is the error of [`Request::finish`].
    pub fn new(method: Method<'_>, uri: &str) -> Self {
        let headers = BytesMut::with_capacity(512);
        Self { line: Line::new(method, uri), headers, count: 0, body: Bytes::new() }
    }

    /// Adds a header line. CR and LF in the value are written as spaces.
    #[must_use]
    pub fn header(mut self, name: Name<'_>, value: impl AsRef<[u8]>) -> Self {
        self.headers.extend(name.as_bytes().iter().copied().map(printable));
        self.headers.put_slice(b": ");
        self.headers.extend(value.as_ref().iter().copied().map(printable));
        self.headers.put_slice(b"\r\n");
        self.count += 1;
        self
    }

    /// Adds a body and its Content-Type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self = self.header(Name::ContentType, content_type);
        self.body = body.into();
        self
    }

    /// Prints the request, Content-Length last, and reads it again.
    ///
    /// # Errors
    /// What [`Request::new`] was given cannot begin a request, or what was printed is not what was asked for.
    pub fn finish(self) -> Result<Message, ParseError> {
        let length = self.body.len().to_string();
        let Self { line, headers, count, body } = self.header(Name::ContentLength, length);
        let Line { method, uri, given } = line?;
        let line = format!("{method} {uri} {}\r\n", rsip::Version::V2);
        let message = Message::parse([line.as_bytes(), &headers, b"\r\n", &body].concat().into())?;
        let same_uri = message.uri()?.is_equivalent(&Uri::parse(&given)?);
        if !same_uri || message.method().as_str() != method.to_string() {
            return Err(ParseError::StartLine("it was printed otherwise than it was asked for"));
        }
        if message.body() != body || message.headers().len() != count {
            return Err(ParseError::HeaderLine { line: 0, why: "a line was printed otherwise than it was asked for" });
        }
        Ok(message)
    }
}

/// The same URI in rsip's types. The scheme prints in lower case, a port and an IPv6 address in their shortest form.
fn rsip_uri(uri: &SipUri<'_>) -> rsip::Uri {
    let scheme = if uri.secure { Scheme::Sips } else { Scheme::Sip };
    let auth = uri.user.map(|user| Auth { user: user.to_owned(), password: uri.password.map(str::to_owned) });
    let host = Host::Domain(Domain::new(uri.host.to_string()));
    let param = |(name, value): (&str, Option<&str>)| Param::Other(name.into(), value.map(Into::into));
    rsip::Uri {
        scheme: Some(scheme),
        auth,
        host_with_port: HostWithPort { host, port: uri.port.map(Into::into) },
        params: uri.params.iter().map(param).collect(),
        headers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(method: Method<'_>, uri: &str) -> Message {
        Request::new(method, uri)
            .header(Name::Via, "SIP/2.0/UDP a.org;branch=z9hG4bK1")
            .header(Name::MaxForwards, "70")
            .header(Name::From, "\"Zoë\" <sip:a@a.org>;tag=1")
            .header(Name::To, "<sip:b@b.org>")
            .header(Name::CallId, "c")
            .header(Name::CSeq, format!("1 {method}"))
            .body("application/octet-stream", vec![0, 0xff, b'\r', b'\n'])
            .finish()
            .unwrap()
    }

    #[test]
    fn what_is_composed_reads_as_it_was_asked_for() {
        let methods = [
            Method::Invite,
            Method::Ack,
            Method::Bye,
            Method::Cancel,
            Method::Options,
            Method::Register,
            Method::Message,
        ];
        let uris = [
            "sip:b.org",
            "sips:b.x;y@b.org:5061;transport=quic;lr",
            "sip:b:pw@[2001:db8::1]:5060;gr=ab;x=a:b",
            "sip:%62@192.0.2.1;method=FOO",
        ];
        for method in methods {
            for uri in uris {
                let message = composed(method, uri);
                assert_eq!((message.method(), message.request_uri()), (method, Some(uri)));
                assert_eq!((message.check_at_end(), message.body()), (Ok(()), [0, 0xff, b'\r', b'\n'].as_slice()));
                assert_eq!(message.from().unwrap().display_name(), "Zoë".as_bytes());
            }
        }
    }

    #[test]
    fn a_uri_in_another_spelling_is_composed_in_the_usual_one() {
        for (uri, printed) in
            [("SIPS:b@b.org:05061", "sips:b@b.org:5061"), ("sip:[2001:DB8:0:0::1]", "sip:[2001:db8::1]")]
        {
            assert_eq!(composed(Method::Options, uri).request_uri(), Some(printed));
        }
    }

    #[test]
    fn what_cannot_be_composed_is_refused() {
        for uri in ["tel:+1", "b.org", "sip:b.org?a=b", "sip:b.org\r\nX: y", "sip:b org"] {
            assert!(Request::new(Method::Options, uri).finish().is_err(), "{uri}");
        }
        for method in [Method::Other("invite"), Method::Other("A B"), Method::Other("")] {
            assert!(Request::new(method, "sip:b.org").finish().is_err(), "{method}");
        }
        let forged = Request::new(Method::Options, "sip:b.org").header(Name::Subject, "a\r\nRoute: <sip:x>");
        assert_eq!(forged.finish().unwrap().header(Name::Route), None);
        let nameless = Request::new(Method::Options, "sip:b.org").header(Name::Other(b"a b"), "c");
        assert!(nameless.finish().is_err());
    }

    #[test]
    fn octets_of_other_charsets_stay_as_they_are() {
        let latin1 = b"\"Zo\xeb\" <sip:a@a.org>;tag=1";
        let message = Request::new(Method::Bye, "sip:b.org").header(Name::To, latin1).finish().unwrap();
        assert_eq!(message.header(Name::To), Some(latin1.as_slice()));
    }
}
