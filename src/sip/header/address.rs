//! Addresses in headers: From, To, Contact, Route and others (RFC 3261 §20.10).

use std::borrow::Cow;

use super::Params;
use crate::sip::{
    scan::{self, Cursor},
    uri::Uri,
};

/// An address with or without a display name, and parameters: From, To, Contact, Route, Record-Route and others
/// (RFC 3261 §20.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameAddr<'a> {
    display: &'a [u8],
    /// The address.
    pub uri: Uri<'a>,
    /// The header field's own parameters, not those of the URI.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads `name-addr` or `addr-spec`, with parameters.
    pub(in crate::sip) fn parse(value: &'a [u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(value);
        cursor.skip_lws();
        let display = display_name(&mut cursor)?;
        if !cursor.eat(b'<') {
            return if display.is_empty() { Self::bare(cursor) } else { Err("no '<' follows its display name") };
        }
        let rest = cursor.rest();
        let uri = cursor.take(memchr::memchr(b'>', rest).ok_or("its '<' is not closed")?);
        cursor.eat(b'>');
        Ok(Self { display, uri: parse_uri(uri)?, params: Params::parse(cursor.rest())? })
    }

    /// `addr-spec`: all parameters belong to the header field, so the URI can have none, nor commas or headers
    /// (RFC 3261 §20).
    fn bare(mut cursor: Cursor<'a>) -> Result<Self, &'static str> {
        let rest = cursor.rest();
        let uri = cursor.take(rest.iter().position(|c| *c == b';' || scan::is_lws(*c)).unwrap_or(rest.len()));
        if uri.iter().any(|octet| matches!(octet, b',' | b'?')) {
            return Err("its URI needs angle brackets, for it has a comma or a question mark");
        }
        Ok(Self { display: &[], uri: parse_uri(uri)?, params: Params::parse(cursor.rest())? })
    }

    /// The display name as people read it: without quotes and escapes. Empty if there is none.
    pub fn display_name(&self) -> Cow<'a, [u8]> {
        scan::unquote(self.display)
    }

    /// The tag of From and To (RFC 3261 §19.3).
    pub fn tag(&self) -> Option<&'a str> {
        self.params.text("tag")
    }

    /// The preference of a contact in thousandths; 1000 if none is given or it cannot be read (RFC 3261 §20.10).
    pub fn q(&self) -> u16 {
        self.params.text("q").and_then(thousandths).unwrap_or(1000)
    }

    /// For how many seconds a contact is bound (RFC 3261 §10.2.1.1). What cannot be read counts as 3600 (§20.10).
    pub fn expires(&self) -> Option<u32> {
        let text = self.params.text("expires")?;
        Some(scan::number(text.as_bytes()).map_or(3600, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX)))
    }
}

/// One value of Contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// One of these lives at a time, on the stack.
#[allow(clippy::large_enum_variant)]
pub enum Contact<'a> {
    /// `*`: all bindings (RFC 3261 §10.2.2).
    All,
    /// A single contact.
    Address(NameAddr<'a>),
}

impl<'a> Contact<'a> {
    /// Reads one value of Contact.
    pub(in crate::sip) fn parse(value: &'a [u8]) -> Result<Self, &'static str> {
        if value == b"*" { Ok(Self::All) } else { NameAddr::parse(value).map(Self::Address) }
    }
}

/// Reads a display name up to `<`; an empty one if an address without brackets follows.
fn display_name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], &'static str> {
    let rest = cursor.rest();
    if cursor.peek() == Some(b'"') {
        let quoted = cursor.take(scan::quoted_len(rest).ok_or("the quotes of its display name are not closed")?);
        cursor.skip_lws();
        return Ok(quoted);
    }
    let Some(bracket) = memchr::memchr(b'<', rest) else { return Ok(&[]) };
    let words = rest.get(..bracket).unwrap_or_default();
    // A bare address whose parameter has a quoted '<'.
    if words.contains(&b';') || words.contains(&b':') {
        return Ok(&[]);
    }
    // The grammar has tokens only; letters beyond ASCII are what phones in the field send without quotes.
    if !words.iter().all(|octet| scan::is_token(*octet) || scan::is_lws(*octet) || !octet.is_ascii()) {
        return Err("its display name needs quotes");
    }
    Ok(scan::trim(cursor.take(bracket)))
}

fn parse_uri(uri: &[u8]) -> Result<Uri<'_>, &'static str> {
    let uri = scan::text(uri).ok_or("its URI is not ASCII")?;
    Uri::parse(uri).map_err(|_| "it does not hold a URI")
}

/// Reads a `qvalue`: 0 to 1 with at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let whole: u16 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    if decimals.len() > 3 || !decimals.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(decimals).filter(|q| *q <= 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> NameAddr<'_> {
        NameAddr::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn parameters_belong_to_the_uri_only_within_brackets() {
        let inside = address("<sip:a@b;lr;tag=1>;tag=2");
        assert_eq!((inside.uri.as_str(), inside.tag()), ("sip:a@b;lr;tag=1", Some("2")));
        let bare = address("sip:a@b;tag=2;q=0.5 ; expires=60");
        assert_eq!((bare.uri.as_str(), bare.tag(), bare.q(), bare.expires()), ("sip:a@b", Some("2"), 500, Some(60)));
        assert_eq!(address("sip:a@b;x=\"<y>\"").uri.as_str(), "sip:a@b");
        assert_eq!(address("tel:+1;tag=3").tag(), Some("3"));
    }

    #[test]
    fn display_names_are_quoted_strings_or_words() {
        for (value, name) in [
            (r#""J \\\" R"      <sip:a@b>"#, r#"J \" R"#),
            ("caller<sip:a@b>;tag=1", "caller"),
            ("two  words <sip:a@b>", "two  words"),
            ("Zo\u{eb} <sip:a@b>", "Zo\u{eb}"),
            (r#""<sip:x@y>" <sip:a@b>"#, "<sip:x@y>"),
            (r#""" <sip:a@b>"#, ""),
            (" <sip:a@b> ", ""),
        ] {
            assert_eq!(address(value).display_name(), name.as_bytes());
            assert_eq!(address(value).uri.as_str(), "sip:a@b");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let wrong = [
            "",
            "a",
            "\"Mr. J <sip:a@b>",
            "Bell, A <sip:a@b>",
            "\"W\" < sip:a@b >",
            "<sip:a@b",
            "sip:a@b>",
            "<>",
            "\"a\" sip:a@b",
            "sip:a@b?x=y",
            "sip:a,b@c",
            "<sip:a@b>;;",
            "<sip:a@b>x",
            "<sip:a@b> <sip:c@d>",
            "sip:a @b",
            "J. R. <sip:a@b>;tag=",
        ];
        for text in wrong {
            assert!(NameAddr::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn preferences_are_thousandths() {
        for (q, expected) in [
            ("0.7", 700),
            ("1", 1000),
            ("1.000", 1000),
            ("0", 0),
            (".25", 250),
            ("0.", 0),
            ("1.5", 1000),
            ("x", 1000),
            ("0.1234", 1000),
        ] {
            assert_eq!(address(&format!("<sip:a@b>;q={q}")).q(), expected, "{q}");
        }
        assert_eq!(address("<sip:a@b>;expires=1e3").expires(), Some(3600));
        assert_eq!(address("<sip:a@b>;expires=280297596632815").expires(), Some(u32::MAX));
        assert_eq!(Contact::parse(b"*"), Ok(Contact::All));
    }
}
