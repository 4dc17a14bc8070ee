//! Responses to a request (RFC 3261 §8.2.6).

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Message, edit::printable, header::Name};

/// Begins a response to a request: every Via byte for byte, From, To, Call-ID and CSeq; Timestamp in a 100; Record-Route
/// in what may form a dialog (§12.1.1).
///
/// `to_tag` is added where the request's To has none; a UAS gives one for every status but 100 (§8.2.6.2).
pub fn respond(request: &Message, status: u16, reason: &str, to_tag: Option<&str>) -> Response {
    let mut head = BytesMut::with_capacity(request.head() + 128);
    head.put_slice(format!("SIP/2.0 {status:03} ").as_bytes());
    head.extend(reason.bytes().map(printable));
    head.put_slice(b"\r\n");
    let mut response = Response { head, body: Bytes::new() };
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
        let missing_tag = || to_tag.filter(|_| request.to().is_ok_and(|to| to.tag().is_none()));
        match (name, copied) {
            (Some(Name::To), true) if missing_tag().is_some() => {
                let value = source.get(line.value()).unwrap_or_default();
                let tag = missing_tag().unwrap_or_default();
                response = response.header(Name::To, [value, b";tag=", tag.as_bytes()].concat());
            }
            (_, true) => response.head.put_slice(source.get(line.whole()).unwrap_or_default()),
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
