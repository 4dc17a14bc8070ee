//! Whether a message that could be read is in order, and what to answer if not (RFC 3261 §16.3, §8.2, §18.1.2).

use super::{Message, ParseError, header::Name, scan, uri::Uri};

/// Why a message is not to be processed. A request is answered with this status; a response is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {reason}")]
pub struct Fault {
    /// 400, 416 or 505.
    pub status: u16,
    /// The reason phrase, which says what is wrong (RFC 3261 §21.4.1).
    pub reason: String,
}

/// Header fields that a proxy and a UA read, and that may stand in a message only once (RFC 3261 §7.3.1, §20).
const ONCE: [Name<'static>; 9] = [
    Name::From,
    Name::To,
    Name::CallId,
    Name::CSeq,
    Name::MaxForwards,
    Name::MaxBreadth,
    Name::ContentType,
    Name::Expires,
    Name::Event,
];

impl Message {
    /// Checks what a proxy relies on (RFC 3261 §16.3 steps 1 and 2): the start line, and the header fields that name the
    /// transaction and the way. All else is passed on as it is, malformed or not, as §16.3 asks.
    ///
    /// A request without Max-Forwards or From tag is in order, for RFC 2543 had neither.
    ///
    /// # Errors
    /// 505 for another version; 416 for a Request-URI that is not of SIP; 400 for anything malformed, missing or twice.
    pub fn check(&self) -> Result<(), Fault> {
        if !self.version().eq_ignore_ascii_case(b"SIP/2.0") {
            return Err(Fault { status: 505, reason: "Version Not Supported".to_owned() });
        }
        let uri = if self.is_request() { Some(self.check_request_uri()?) } else { None };
        if let Some(name) = ONCE.into_iter().find(|name| self.count(*name) > 1) {
            return Err(bad(format!("Multiple {name} header fields")));
        }
        self.top_via()?;
        self.from()?;
        self.to()?;
        self.call_id()?;
        let cseq = self.cseq()?;
        self.max_forwards()?;
        if let Some(uri) = uri {
            if cseq.method != self.method() {
                return Err(bad("CSeq names another method".to_owned()));
            }
            self.routes().try_for_each(|route| route.map(drop))?;
            if !self.tokens(Name::ProxyRequire).all(scan::is_token_text) {
                return Err(bad("Malformed Proxy-Require header field".to_owned()));
            }
            if uri.sip().is_none() {
                return Err(Fault { status: 416, reason: "Unsupported URI Scheme".to_owned() });
            }
        }
        Ok(())
    }

    /// Checks what an end of a dialog or a registrar relies on besides: where the other side is, for how long, and what
    /// the body is.
    ///
    /// # Errors
    /// As [`Message::check`].
    pub fn check_at_end(&self) -> Result<(), Fault> {
        self.check()?;
        self.contacts().try_for_each(|contact| contact.map(drop))?;
        self.record_routes().try_for_each(|route| route.map(drop))?;
        self.expires()?;
        self.content_type()?;
        self.event()?;
        if !self.tokens(Name::Require).all(scan::is_token_text) {
            return Err(bad("Malformed Require header field".to_owned()));
        }
        if !self.body().is_empty() && self.header(Name::ContentType).is_none() {
            return Err(bad("Missing Content-Type header field".to_owned()));
        }
        Ok(())
    }

    fn check_request_uri(&self) -> Result<Uri<'_>, Fault> {
        let uri = self.request_uri().unwrap_or_default();
        if !self.is_spaced() || uri.bytes().any(scan::is_lws) {
            return Err(bad("Request-Line has white space where none may be".to_owned()));
        }
        let uri = Uri::parse(uri).map_err(|error| match error {
            ParseError::Uri(why) => bad(format!("Malformed Request-URI: {why}")),
            other => other.into(),
        })?;
        // RFC 3261 §19.1.1: headers have no place in a Request-URI.
        if uri.sip().is_some_and(|uri| uri.headers.is_some()) {
            return Err(bad("Malformed Request-URI: it has headers".to_owned()));
        }
        Ok(uri)
    }
}

const fn bad(reason: String) -> Fault {
    Fault { status: 400, reason }
}

impl From<ParseError> for Fault {
    fn from(error: ParseError) -> Self {
        bad(match error {
            ParseError::Missing(name) => format!("Missing {name} header field"),
            ParseError::Value { name, why } => format!("Malformed {name} header field: {why}"),
            ParseError::ContentLength(why) => format!("Malformed Content-Length header field: {why}"),
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const OPTIONS: &str = "OPTIONS sip:b.org SIP/2.0\r\n\
        Via: SIP/2.0/UDP a.org;branch=z9hG4bK1\r\n\
        Max-Forwards: 70\r\n\
        From: <sip:a@a.org>;tag=1\r\n\
        To: <sip:b.org>\r\n\
        Call-ID: c\r\n\
        CSeq: 1 OPTIONS\r\n\
        Route: <sip:p2psip.org;lr>\r\n\
        Contact: <sip:a@a.org>\r\n\r\n";

    fn check(text: &str) -> Result<(), Fault> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap().check()
    }

    #[test]
    fn each_part_that_a_proxy_relies_on_is_checked() {
        assert_eq!(check(OPTIONS), Ok(()));
        for (old, new, status, reason) in [
            ("SIP/2.0\r\nVia", "SIP/7.0\r\nVia", 505, "Version Not Supported"),
            ("sip:b.org SIP", "mailto:b.org SIP", 416, "Unsupported URI Scheme"),
            ("sip:b.org SIP", "<sip:b.org> SIP", 400, "Malformed Request-URI: its scheme is not a name"),
            ("sip:b.org SIP", "sip:b.org  SIP", 400, "Request-Line has white space where none may be"),
            ("sip:b.org SIP", "sip:b.org?a=b SIP", 400, "Malformed Request-URI: it has headers"),
            ("Via: SIP/2.0/UDP a.org;branch=z9hG4bK1\r\n", "", 400, "Missing Via header field"),
            ("Via: SIP/2.0", "Via: SIP/1.0", 400, "Malformed Via header field: its version is not 2.0"),
            ("Call-ID: c\r\n", "", 400, "Missing Call-ID header field"),
            ("Call-ID: c\r\n", "Call-ID: c\r\ni: d\r\n", 400, "Multiple Call-ID header fields"),
            ("To: <sip:b.org>", "To: sip", 400, "Malformed To header field: it does not hold a URI"),
            (
                "From: <sip",
                "From: \"a <sip",
                400,
                "Malformed From header field: the quotes of its display name are not closed",
            ),
            ("1 OPTIONS", "1 INVITE", 400, "CSeq names another method"),
            ("1 OPTIONS", "1 options", 400, "CSeq names another method"),
            ("rwards: 70", "rwards: 256", 400, "Malformed Max-Forwards header field: it is not a number from 0 to 255"),
            (
                "<sip:p2psip.org;lr>",
                "<sip:p2psip.org;lr>;;",
                400,
                "Malformed Route header field: a parameter has no name",
            ),
        ] {
            assert_eq!(OPTIONS.matches(old).count(), 1, "{old}");
            assert_eq!(check(&OPTIONS.replace(old, new)), Err(Fault { status, reason: reason.to_owned() }));
        }
    }

    #[test]
    fn what_a_proxy_does_not_read_may_be_wrong() {
        let odd = OPTIONS.replace("Contact: <sip:a@a.org>", "Contact: ;;,,\r\nDate: yesterday\r\nExpires: never");
        assert_eq!(check(&odd), Ok(()));
        assert!(Message::parse(odd.into()).unwrap().check_at_end().is_err());
        let old = OPTIONS.replace("Max-Forwards: 70\r\n", "").replace(";tag=1", "").replace(";branch=z9hG4bK1", "");
        assert_eq!(check(&old), Ok(()), "RFC 2543");
    }
}
