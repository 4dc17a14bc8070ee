//! Responses to a request (RFC 3261 §8.2.6).

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Message, edit::printable, header::Name, reason_phrase};

/// Begins a response to a request: every Via byte for byte, From, To, Call-ID and CSeq; Timestamp in a 100; Record-Route
/// in what may form a dialog (§12.1.1).
///
/// An empty `reason` stands for the usual phrase. `to_tag` is added where the request's To has none; a UAS gives one for every status but 100 (§8.2.6.2).
pub fn respond(request: &Message, status: u16, reason: &str, to_tag: Option<&str>) -> Response {
    let reason = if reason.is_empty() { reason_phrase(status) } else { reason };
    let mut head = BytesMut::with_capacity(request.head() + 128);
    head.put_slice(format!("SIP/2.0 {status:03} ").as_bytes());
    head.extend(reason.bytes().map(printable));
    head.put_slice(b"\r\n");
    let mut response = Response { head, body: Bytes::new() };
    let missing_tag = to_tag.filter(|_| request.to().is_ok_and(|to| to.tag().is_none()));
    let record_route = (101..300).contains(&status) && request.method().forms_dialog();
    for line in request.lines() {
        let source = request.bytes();
        let name = source.get(line.name()).map(Name::new);
        let copied = match name {
            Some(Name::Via | Name::From | Name::To | Name::CallId | Name::CSeq) => true,
            Some(Name::RecordRoute) => record_route,
            Some(Name::Timestamp) => status == 100,
            _ => false,
        };
        match (name, missing_tag) {
            (Some(Name::To), Some(tag)) => {
                let value = source.get(line.value()).unwrap_or_default();
                response = response.header(Name::To, [value, b";tag=", tag.as_bytes()].concat());
            }
            _ if copied => response.head.put_slice(source.get(line.whole()).unwrap_or_default()),
            _ => {}
        }
    }
    response
}

/// A response in the making.
#[derive(Debug, Clone)]
pub struct Response {
    head: BytesMut,
    body: Bytes,
}

impl Response {
    /// Adds a header line. CR and LF in the value are written as spaces.
    #[must_use]
    pub fn header(mut self, name: Name<'_>, value: impl AsRef<[u8]>) -> Self {
        self.head.extend(name.as_bytes().iter().copied().map(printable));
        self.head.put_slice(b": ");
        self.head.extend(value.as_ref().iter().copied().map(printable));
        self.head.put_slice(b"\r\n");
        self
    }

    /// Adds a body and its Content-Type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self = self.header(Name::ContentType, content_type);
        self.body = body.into();
        self
    }

    /// Writes the response, Content-Length last.
    pub fn finish(self) -> Bytes {
        let length = self.body.len().to_string();
        let Self { mut head, body } = self.header(Name::ContentLength, length);
        head.put_slice(b"\r\n");
        head.put_slice(&body);
        head.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:a@b SIP/2.0\r\n\
        v: SIP/2.0/UDP one;branch=1 ,\r\n SIP/2.0/TCP two\r\n\
        Record-Route: <sip:p2psip.org;lr>\r\n\
        f:  \"A\" <sip:a@b>;tag=1\r\n\
        To: <sip:c@d>\r\n\
        Subject: x\r\n\
        Via: SIP/2.0/UDP three\r\n\
        Call-ID: i\r\n\
        Timestamp: 54\r\n\
        CSeq: 7 INVITE\r\n\r\n";

    fn response(request: &str, status: u16, tag: Option<&str>) -> String {
        let request = Message::parse(Bytes::copy_from_slice(request.as_bytes())).unwrap();
        let bytes = respond(&request, status, "", tag).finish();
        let message = Message::parse(bytes.clone()).unwrap();
        assert_eq!((message.status(), message.check()), (Some(status), Ok(())));
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn what_names_the_transaction_is_copied_as_it_is() {
        assert_eq!(
            response(INVITE, 180, Some("t")),
            "SIP/2.0 180 Ringing\r\n\
            v: SIP/2.0/UDP one;branch=1 ,\r\n SIP/2.0/TCP two\r\n\
            Record-Route: <sip:p2psip.org;lr>\r\n\
            f:  \"A\" <sip:a@b>;tag=1\r\n\
            To: <sip:c@d>;tag=t\r\n\
            Via: SIP/2.0/UDP three\r\n\
            Call-ID: i\r\n\
            CSeq: 7 INVITE\r\n\
            Content-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn some_lines_depend_on_status_and_method() {
        assert!(response(INVITE, 100, None).contains("Timestamp: 54\r\n"));
        for (status, routed) in [(100, false), (101, true), (200, true), (299, true), (300, false), (486, false)] {
            assert_eq!(response(INVITE, status, Some("t")).contains("Record-Route"), routed, "{status}");
        }
        let options = INVITE.replace("INVITE", "OPTIONS");
        assert!(!response(&options, 200, Some("t")).contains("Record-Route"));
        let within = INVITE.replace("<sip:c@d>", "<sip:c@d>;tag=old");
        assert!(response(&within, 200, Some("t")).contains("To: <sip:c@d>;tag=old\r\n"));
    }

    #[test]
    fn headers_and_body_are_added() {
        let request = Message::parse(Bytes::from_static(INVITE.as_bytes())).unwrap();
        let bytes = respond(&request, 200, "Fine\r\nX: y", Some("t"))
            .header(Name::Contact, "<sip:c@e>\r\nX: y")
            .body("application/sdp", "v=0\r\n")
            .finish();
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.reason(), message.body()), (b"Fine  X: y".as_slice(), b"v=0\r\n".as_slice()));
        assert_eq!(message.header(Name::Contact), Some(b"<sip:c@e>  X: y".as_slice()));
        assert_eq!(message.content_length(), Ok(Some(5)));
    }
}
