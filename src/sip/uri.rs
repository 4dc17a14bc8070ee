//! URIs: those of SIP in parts (RFC 3261 §19.1), those of any other scheme as they are.

mod equivalence;
mod escape;
mod host;
mod params;

use std::fmt;

pub use self::{equivalence::MAX_COMPARED, escape::unescape, host::Host, params::UriParams};
use self::{
    escape::{Part, is_escaped},
    host::host_and_port,
};
use super::{ParseError, scan};

/// A URI of any scheme, without surrounding brackets or white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// Views live on the stack, one at a time; a box would cost an allocation for each.
#[allow(clippy::large_enum_variant)]
pub enum Uri<'a> {
    /// `sip:` or `sips:`.
    Sip(SipUri<'a>),
    /// Any other, as `tel:` or `urn:`; compared by its octets.
    Other(&'a str),
}

/// A `sip:` or `sips:` URI in parts. Escapes are still in them, see [`unescape`].
///
/// `==` compares the text; [`SipUri::is_equivalent`] compares as RFC 3261 §19.1.4 does.
#[derive(Debug, Clone, Copy)]
pub struct SipUri<'a> {
    text: &'a str,
    /// Whether the scheme is `sips`.
    pub secure: bool,
    /// What stands before the `@`, and before a `:` there.
    pub user: Option<&'a str>,
    /// What stands between `:` and `@`.
    pub password: Option<&'a str>,
    /// Where the user is.
    pub host: Host<'a>,
    /// Without a port, RFC 3263 looks for one.
    pub port: Option<u16>,
    /// What follows the host: `transport`, `lr`, `maddr` and others.
    pub params: UriParams<'a>,
    /// What follows `?`: header fields of a request that is to be made from the URI.
    pub headers: Option<&'a str>,
}

impl<'a> Uri<'a> {
    /// Reads a URI.
    ///
    /// # Errors
    /// [`ParseError::Uri`]: no scheme, a character that no URI has, or a SIP URI that is not one by RFC 3261 §25.1.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        let (scheme, rest) = scan::split_once(text, b':').ok_or(ParseError::Uri("it has no scheme"))?;
        if scheme.eq_ignore_ascii_case("sip") {
            return SipUri::after_scheme(text, rest, false).map(Self::Sip).map_err(ParseError::Uri);
        }
        if scheme.eq_ignore_ascii_case("sips") {
            return SipUri::after_scheme(text, rest, true).map(Self::Sip).map_err(ParseError::Uri);
        }
        let mut letters = scheme.bytes();
        let named = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'-' | b'.'));
        if !named {
            return Err(ParseError::Uri("its scheme is not a name"));
        }
        if rest.is_empty() {
            return Err(ParseError::Uri("nothing follows its scheme"));
        }
        if !rest.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>' | b'"')) {
            return Err(ParseError::Uri("it has a character that must be escaped"));
        }
        Ok(Self::Other(text))
    }

    /// As it is written.
    pub const fn as_str(&self) -> &'a str {
        match self {
            Self::Sip(uri) => uri.text,
            Self::Other(text) => text,
        }
    }

    /// The scheme as it is written, without its colon.
    pub fn scheme(&self) -> &'a str {
        self.as_str().split(':').next().unwrap_or_default()
    }

    /// The parts of a SIP URI; `None` of any other.
    pub const fn sip(&self) -> Option<&SipUri<'a>> {
        match self {
            Self::Sip(uri) => Some(uri),
            Self::Other(_) => None,
        }
    }

    /// Whether both name the same: SIP URIs by RFC 3261 §19.1.4, others by their text.
    pub fn is_equivalent(&self, other: &Uri<'_>) -> bool {
        match (self, other) {
            (Self::Sip(one), Uri::Sip(other)) => one.is_equivalent(other),
            (Self::Other(one), Uri::Other(other)) => one == other,
            _ => false,
        }
    }
}

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> SipUri<'a> {
    /// Reads a `sip:` or `sips:` URI.
    ///
    /// # Errors
    /// [`ParseError::Uri`]: another scheme, or not by the grammar of RFC 3261 §25.1.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        match Uri::parse(text)? {
            Uri::Sip(uri) => Ok(uri),
            Uri::Other(_) => Err(ParseError::Uri("its scheme is not sip or sips")),
        }
    }

    fn after_scheme(text: &'a str, rest: &'a str, secure: bool) -> Result<Self, &'static str> {
        // Neither parameters nor headers have an unescaped '@', so the first one ends the user part, which may well
        // have semicolons and question marks of its own.
        let (userinfo, rest) = scan::split_once(rest, b'@').map_or((None, rest), |(info, rest)| (Some(info), rest));
        let (user, password) = match userinfo.map(|info| scan::split_once(info, b':').ok_or(info)) {
            None => (None, None),
            Some(Err(user)) => (Some(user), None),
            Some(Ok((user, password))) => (Some(user), Some(password)),
        };
        if user.is_some_and(|user| user.is_empty() || !is_escaped(user, Part::User)) {
            return Err("its user part is empty or has a character that must be escaped");
        }
        if password.is_some_and(|password| !is_escaped(password, Part::Password)) {
            return Err("its password has a character that must be escaped");
        }
        let end = rest.bytes().position(|octet| matches!(octet, b';' | b'?')).unwrap_or(rest.len());
        let (host_port, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (host, port) = host_and_port(host_port)?;
        let (params, headers) =
            scan::split_once(rest, b'?').map_or((rest, None), |(params, headers)| (params, Some(headers)));
        let params = UriParams::parse(params)?;
        if headers.is_some_and(|headers| !is_headers(headers)) {
            return Err("its headers are not name=value pairs");
        }
        Ok(Self { text, secure, user, password, host, port, params, headers })
    }

    /// As it is written.
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// The `transport` parameter, which is compared without case.
    pub fn transport(&self) -> Option<&'a str> {
        self.params.get("transport")
    }

    /// Whether the URI is that of a loose router (RFC 3261 §19.1.1, `lr`).
    pub fn is_loose_router(&self) -> bool {
        self.params.has("lr")
    }

    /// The `maddr` parameter: where to send instead of to the host.
    pub fn maddr(&self) -> Option<Host<'a>> {
        Host::parse(self.params.get("maddr")?).ok()
    }

    /// The `gr` parameter's value: an instance of the user (RFC 5627). `None` also if it has no value.
    pub fn gr(&self) -> Option<&'a str> {
        self.params.get("gr")
    }
}

impl PartialEq for SipUri<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SipUri<'_> {}

impl fmt::Display for SipUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Whether a text is header components: `name=value&name=value`.
fn is_headers(text: &str) -> bool {
    text.split('&').all(|header| {
        header.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty() && is_escaped(name, Part::Header) && is_escaped(value, Part::Header)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sip(text: &str) -> SipUri<'_> {
        SipUri::parse(text).unwrap()
    }

    #[test]
    fn parts_of_a_sip_uri_are_told_apart() {
        let uri = sip(
            "SIPS:al%20ice;x=1?y:pa$s@[2001:db8::1]:5061;transport=TCP;lr;maddr=192.0.2.1;gr=ab?Subject=a%20b&To=c",
        );
        assert!(uri.secure);
        assert_eq!((uri.user, uri.password), (Some("al%20ice;x=1?y"), Some("pa$s")));
        assert_eq!((uri.host.to_string().as_str(), uri.port), ("[2001:db8::1]", Some(5061)));
        assert_eq!((uri.transport(), uri.is_loose_router(), uri.gr()), (Some("TCP"), true, Some("ab")));
        assert_eq!(uri.maddr().and_then(|host| host.ip()), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(uri.headers, Some("Subject=a%20b&To=c"));
        assert_eq!(unescape("al%20i%zze%"), b"al i%zze%".as_slice());

        let plain = sip("sip:example.com");
        assert_eq!((plain.user, plain.host.name(), plain.port), (None, Some("example.com"), None));
        assert_eq!(sip("sip:alice.smith@example.com.").user, Some("alice.smith"));
        assert_eq!(sip("sip:a@b:05060").port, Some(5060));
    }

    #[test]
    fn other_schemes_are_kept_as_they_are() {
        for text in ["tel:+1-201-555-0123;phone-context=x", "urn:service:sos", "im:a@b", "soap.beep://192.0.2.1:3002"] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!((uri, uri.as_str()), (Uri::Other(text), text));
        }
        assert_eq!(Uri::parse("tel:1").unwrap().scheme(), "tel");
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        let wrong = [
            "",
            "example.com",
            ":a",
            "1a:b",
            "tel:",
            "a b:c",
            "tel:1 2",
            "tel:<1>",
            "sip:",
            "sip:@a",
            "sip:a@",
            "sip:a@b@c",
            "sip:a b@c",
            "sip:a%2@c",
            "sip:a%zz@c",
            "sip:a@b:",
            "sip:a@b:x",
            "sip:a@b:65536",
            "sip:a@b:-1",
            "sip:a@b;",
            "sip:a@b;;x",
            "sip:a@b;=x",
            "sip:a@b;x=",
            "sip:a@b;x=y=z",
            "sip:a@b?",
            "sip:a@b?x",
            "sip:a@b?x=y&",
            "sip:a@-b",
            "sip:a@b-",
            "sip:a@b..c",
            "sip:a@.b",
            "sip:a@1",
            "sip:a@256.1.1.1",
            "sip:a@b.1",
            "sip:a@1.2.3",
            "sip:a@2001:db8::1",
            "sip:a@[2001:db8::1",
            "sip:a@[::1]x",
            "sip:a@[]",
            "sip:a@[1.2.3.4]",
            "sip:a@[2001:db8:::1]",
            "<sip:a@b>",
            "sip:a@b c",
            "sip:a@b\r\n",
            "sip:\u{e9}@b",
            "sip:a@b;x=\"y\"",
            "sips",
            "sip:a:b:c@d",
        ];
        for text in wrong {
            assert!(Uri::parse(text).is_err(), "{text}");
        }
    }
}
