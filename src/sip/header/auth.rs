//! Challenges and credentials (RFC 3261 §20.7, §20.44).

use std::borrow::Cow;

use super::Param;
use crate::sip::scan::{self, Cursor};

/// A challenge: one line of WWW-Authenticate or Proxy-Authenticate (RFC 3261 §20.44, §20.27).
pub type Challenge<'a> = Credentials<'a>;

/// Credentials: one line of Authorization or Proxy-Authorization (RFC 3261 §20.7, §20.28). A challenge has the same
/// shape: a scheme, and parameters between commas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// `Digest`, or any other; compared without case.
    pub scheme: &'a str,
    raw: &'a [u8],
}

impl<'a> Credentials<'a> {
    /// Reads a header value.
    pub(in crate::sip) fn parse(value: &'a [u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(value);
        cursor.skip_lws();
        let scheme = cursor.token_text().ok_or("it names no scheme")?;
        cursor.skip_lws();
        let raw = cursor.rest();
        while !cursor.is_empty() {
            read(&mut cursor)?;
        }
        Ok(Self { scheme, raw })
    }

    /// All parameters in their order.
    pub fn params(&self) -> impl Iterator<Item = Param<'a>> + Clone + use<'a> {
        let mut cursor = Cursor::new(self.raw);
        std::iter::from_fn(move || read(&mut cursor).ok())
    }

    /// The first parameter of this name, without quotes and escapes.
    pub fn get(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let param = self.params().find(|param| param.name.eq_ignore_ascii_case(name))?;
        param.value.map(scan::unquote)
    }

    /// The first parameter of this name as text; `None` if it is not UTF-8.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        match self.get(name)? {
            Cow::Borrowed(value) => scan::text(value).map(Cow::Borrowed),
            Cow::Owned(value) => String::from_utf8(value).ok().map(Cow::Owned),
        }
    }
}

/// Reads one `name=value` and the comma after it.
fn read<'a>(cursor: &mut Cursor<'a>) -> Result<Param<'a>, &'static str> {
    let name = cursor.token_text().ok_or("a parameter has no name")?;
    if !cursor.separator(b'=') {
        return Err("a parameter has no value");
    }
    let value = cursor.value().ok_or("a parameter's value is empty or its quotes are not closed")?;
    cursor.skip_lws();
    if !cursor.separator(b',') && !cursor.is_empty() {
        return Err("no comma stands between parameters");
    }
    Ok(Param { name, value: Some(value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_challenges_and_credentials_are_read() {
        let value = b"Digest realm=\"at, \\\"lanta\\\"\" ,\r\n nonce = \"84a4==\", qop=\"auth,auth-int\",stale=FALSE, algorithm=SHA-256,nc=0000000a";
        let challenge = Challenge::parse(value).unwrap();
        assert_eq!(challenge.scheme, "Digest");
        assert_eq!(challenge.text("Realm").as_deref(), Some("at, \"lanta\""));
        assert_eq!(challenge.text("qop").as_deref(), Some("auth,auth-int"));
        assert_eq!(challenge.text("nc").as_deref(), Some("0000000a"));
        assert_eq!(challenge.params().count(), 6);
        assert_eq!(challenge.get("opaque"), None);
        assert_eq!(
            Credentials::parse(b"NoOneKnows opaque-data=here").unwrap().text("opaque-data").as_deref(),
            Some("here")
        );
    }

    #[test]
    fn what_is_neither_is_refused() {
        for wrong in
            ["", "Digest realm", "Digest realm=", "Digest realm=\"a", "Digest a=b c=d", "Digest =a", "Digest a=b,,c=d"]
        {
            assert!(Credentials::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
