use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Method, edit::printable, header::Name};

/// A request of our own in the making. The Via is missing: whoever sends it knows which transport it takes.
#[derive(Debug, Clone)]
pub struct Draft {
    head: BytesMut,
    body: Bytes,
}

impl Draft {
    /// Begins a request. CR and LF in what is given are written as spaces, here and below.
    pub fn new(method: Method<'_>, uri: &str) -> Self {
        let mut head = BytesMut::with_capacity(512);
        head.extend(format!("{method} {uri} SIP/2.0").bytes().map(printable));
        head.put_slice(b"\r\n");
        Self { head, body: Bytes::new() }
    }

    /// Adds a header line.
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

    /// Writes the request, Content-Length last.
    pub fn finish(self) -> Bytes {
        let length = self.body.len().to_string();
        let Self { mut head, body } = self.header(Name::ContentLength, length);
        head.put_slice(b"\r\n");
        head.put_slice(&body);
        head.freeze()
    }
}
