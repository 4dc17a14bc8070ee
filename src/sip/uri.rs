//! URIs: those of SIP in parts (RFC 3261 §19.1), those of any other scheme as they are.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::ParseError;

/// The most parameters of a SIP URI that are compared one by one.
pub const MAX_COMPARED: usize = 64;

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

/// A host: a name, or an address.
#[derive(Debug, Clone, Copy)]
pub enum Host<'a> {
    /// A domain name as it is written, perhaps with a dot at the end.
    Name(&'a str),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, in brackets in the text.
    V6(Ipv6Addr),
}

/// The parameters of a SIP URI: `;name=value;name`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UriParams<'a>(&'a str);

impl<'a> Uri<'a> {
    /// Reads a URI.
    ///
    /// # Errors
    /// [`ParseError::Uri`]: no scheme, a character that no URI has, or a SIP URI that is not one by RFC 3261 §25.1.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        let (scheme, rest) = text.split_once(':').ok_or(ParseError::Uri("it has no scheme"))?;
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
        let (userinfo, rest) = match memchr::memchr(b'@', rest.as_bytes()).and_then(|at| rest.split_at_checked(at)) {
            Some((userinfo, rest)) => (Some(userinfo), rest.get(1..).unwrap_or_default()),
            None => (None, rest),
        };
        let (user, password) = match userinfo.map(|info| info.split_once(':').ok_or(info)) {
            None => (None, None),
            Some(Err(user)) => (Some(user), None),
            Some(Ok((user, password))) => (Some(user), Some(password)),
        };
        if user.is_some_and(|user| user.is_empty() || !is_escaped(user, is_user)) {
            return Err("its user part is empty or has a character that must be escaped");
        }
        if password.is_some_and(|password| !is_escaped(password, is_password)) {
            return Err("its password has a character that must be escaped");
        }
        let end = rest.bytes().position(|octet| matches!(octet, b';' | b'?')).unwrap_or(rest.len());
        let (host_port, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (host, port) = host_and_port(host_port)?;
        let (params, headers) = match rest.split_once('?') {
            Some((params, headers)) => (params, Some(headers)),
            None => (rest, None),
        };
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

    /// Whether both URIs name the same by RFC 3261 §19.1.4.
    ///
    /// Parameters are compared each with each, so of URIs with more than [`MAX_COMPARED`] only the text is compared.
    pub fn is_equivalent(&self, other: &SipUri<'_>) -> bool {
        if self.text == other.text {
            return true;
        }
        let comparable = |uri: &SipUri<'_>| uri.params.iter().nth(MAX_COMPARED).is_none();
        comparable(self)
            && comparable(other)
            && self.secure == other.secure
            && same_escaped(self.user, other.user, true)
            && same_escaped(self.password, other.password, true)
            && self.host == other.host
            && self.port == other.port
            && self.params.is_equivalent(&other.params)
            && same_headers(self.headers, other.headers)
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

impl<'a> Host<'a> {
    /// Reads a host: an IPv6 address in brackets, an IPv4 address, or a domain name.
    ///
    /// Underscores are taken, for real names have them.
    ///
    /// # Errors
    /// [`ParseError::Uri`]: none of these. A name's last label begins with a letter (RFC 3261 §25.1), so a number that
    /// is no address is not a name either.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        if let Some(address) = text.strip_prefix('[') {
            let address = address.strip_suffix(']').and_then(ipv6);
            return address.map(Self::V6).ok_or(ParseError::Uri("no IPv6 address is in its brackets"));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let (mut numeric, mut previous, mut first) = (true, b'.', b'.');
        for octet in name.bytes() {
            if previous == b'.' {
                first = octet;
            }
            match octet {
                b'0'..=b'9' => {}
                b'.' if matches!(previous, b'.' | b'-') => return Err(ParseError::Uri("its host has a bad label")),
                b'.' => {}
                b'-' if previous == b'.' => return Err(ParseError::Uri("its host has a bad label")),
                b'-' | b'_' | b'a'..=b'z' | b'A'..=b'Z' => numeric = false,
                _ => return Err(ParseError::Uri("its host has a character that no name has")),
            }
            previous = octet;
        }
        if numeric {
            return text
                .parse()
                .map(Self::V4)
                .map_err(|_| ParseError::Uri("its host is neither a name nor an address"));
        }
        if matches!(previous, b'.' | b'-') || first.is_ascii_digit() {
            return Err(ParseError::Uri("its host has a bad label"));
        }
        Ok(Self::Name(text))
    }

    /// The address, an IPv4 address mapped into IPv6 as the IPv4 address it is; `None` of a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::V4(address) => Some(IpAddr::V4(*address)),
            Self::V6(address) => Some(IpAddr::V6(*address).to_canonical()),
        }
    }

    /// The name, as it is written; `None` of an address.
    pub const fn name(&self) -> Option<&'a str> {
        match self {
            Self::Name(name) => Some(name),
            Self::V4(_) | Self::V6(_) => None,
        }
    }

    /// Whether it is this domain name, without regard to case and to a dot at the end.
    pub fn is_name(&self, name: &str) -> bool {
        self.name().is_some_and(|own| bare(own).eq_ignore_ascii_case(bare(name)))
    }
}

/// Reads an IPv6 address. A third colon before an IPv4 part is passed over: the grammar of RFC 3261 has it by mistake, and
/// RFC 5118 §4.10 wants both forms read.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    match text.split_once(":::") {
        Some((groups, mapped)) if mapped.contains('.') => format!("{groups}::{mapped}").parse().ok(),
        _ => text.parse().ok(),
    }
}

/// A name without the dot of the root.
fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(one), Self::Name(other)) => bare(one).eq_ignore_ascii_case(bare(other)),
            (Self::V4(one), Self::V4(other)) => one == other,
            (Self::V6(one), Self::V6(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

impl<'a> UriParams<'a> {
    fn parse(raw: &'a str) -> Result<Self, &'static str> {
        let Some(list) = raw.strip_prefix(';') else {
            return if raw.is_empty() { Ok(Self(raw)) } else { Err("its parameters do not begin with ';'") };
        };
        for param in list.split(';') {
            let (name, value) = match param.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (param, None),
            };
            let empty = name.is_empty() || value.is_some_and(str::is_empty);
            if empty || !is_escaped(name, is_param) || !value.is_none_or(|value| is_escaped(value, is_param)) {
                return Err("a parameter is empty or has a character that must be escaped");
            }
        }
        Ok(Self(raw))
    }

    /// As they are written, from the first semicolon on.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }

    /// All parameters in their order, as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone + use<'a> {
        self.0.split(';').skip(1).map(|param| match param.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (param, None),
        })
    }

    /// The value of the first parameter of this name; `None` also if it has none.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).and_then(|(_, value)| value)
    }

    /// Whether there is a parameter of this name, with a value or without.
    pub fn has(&self, name: &str) -> bool {
        self.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    /// Parameters that both have must match; these, if only one has them, do not match (§19.1.4; `transport` is in none
    /// of its rules, but in its examples).
    fn is_equivalent(&self, other: &UriParams<'_>) -> bool {
        let find = |params: &UriParams<'_>, name: &str| {
            params.iter().find(|(own, _)| same_escaped(Some(own), Some(name), false)).map(|(_, value)| value.is_some())
        };
        let significant = ["user", "ttl", "method", "maddr", "transport"];
        if significant.iter().any(|name| find(self, name).is_some() != find(other, name).is_some()) {
            return false;
        }
        self.agrees_with(other) && other.agrees_with(self)
    }

    /// Whether each parameter has the value of some parameter of that name there, if there are any. A name should stand
    /// only once (§19.1.1); where it does not, no order among them is made up.
    fn agrees_with(&self, other: &UriParams<'_>) -> bool {
        self.iter().all(|(name, value)| {
            let mut same = other.iter().filter(|(theirs, _)| same_escaped(Some(theirs), Some(name), false)).peekable();
            same.peek().is_none() || same.any(|(_, theirs)| same_escaped(value, theirs, false))
        })
    }
}

/// A text with its `%XX` escapes decoded.
pub fn unescape(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                plain.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            _ => plain.push(*first),
        }
    }
    Cow::Owned(plain)
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

fn host_and_port(text: &str) -> Result<(Host<'_>, Option<u16>), &'static str> {
    // The port's colon comes after the brackets of an IPv6 address.
    let colon = match text.strip_prefix('[') {
        Some(_) => text.find(']').map(|end| end + 1).filter(|end| *end < text.len()),
        None => text.find(':'),
    };
    let (host, port) = match colon.and_then(|colon| text.split_at_checked(colon)) {
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or("something follows its IPv6 address")?)),
        None => (text, None),
    };
    let host = Host::parse(host).map_err(|error| match error {
        ParseError::Uri(why) => why,
        _ => "its host is not one",
    })?;
    let Some(port) = port else { return Ok((host, None)) };
    if port.is_empty() || !port.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err("its port is not a number");
    }
    Ok((host, Some(port.parse().map_err(|_| "its port is greater than 65535")?)))
}

/// `unreserved` of RFC 3261 §25.1.
const fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
}

/// `user`, and `#`, which phones send as they dial it.
const fn is_user(octet: u8) -> bool {
    is_unreserved(octet) || matches!(octet, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/' | b'#')
}

const fn is_password(octet: u8) -> bool {
    is_unreserved(octet) || matches!(octet, b'&' | b'=' | b'+' | b'$' | b',')
}

/// `paramchar`.
const fn is_param(octet: u8) -> bool {
    is_unreserved(octet) || matches!(octet, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$')
}

/// `hnv-unreserved` and `unreserved`.
const fn is_header(octet: u8) -> bool {
    is_unreserved(octet) || matches!(octet, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$')
}

/// Whether a text has only such octets and well-formed escapes.
fn is_escaped(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let good = match octet {
            b'%' => {
                octets.next().is_some_and(|c| c.is_ascii_hexdigit())
                    && octets.next().is_some_and(|c| c.is_ascii_hexdigit())
            }
            octet => allowed(octet),
        };
        if !good {
            return false;
        }
    }
    true
}

fn is_headers(text: &str) -> bool {
    text.split('&').all(|header| {
        header.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty() && is_escaped(name, is_header) && is_escaped(value, is_header)
        })
    })
}

/// Whether two parts are the same once their escapes are decoded.
fn same_escaped(one: Option<&str>, other: Option<&str>, by_case: bool) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) if by_case => unescape(one) == unescape(other),
        (Some(one), Some(other)) => unescape(one).eq_ignore_ascii_case(&unescape(other)),
        _ => false,
    }
}

/// Header components are never ignored; their order does not matter (§19.1.4).
fn same_headers(one: Option<&str>, other: Option<&str>) -> bool {
    let sorted = |headers: Option<&str>| {
        let mut list = headers
            .unwrap_or_default()
            .split('&')
            .filter_map(|header| header.split_once('='))
            .map(|(name, value)| (unescape(name).to_ascii_lowercase(), unescape(value).into_owned()))
            .collect::<Vec<_>>();
        list.sort();
        list
    };
    match (one, other) {
        (None, None) => true,
        _ => sorted(one) == sorted(other),
    }
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
    fn parameters_that_repeat_or_abound_are_compared_without_harm() {
        let twice = sip("sip:a@b;x=1;x=2");
        assert!(twice.is_equivalent(&twice));
        assert!(twice.is_equivalent(&sip("sip:a@b;X=2;x=1")) && sip("sip:a@b;x=2;x=1").is_equivalent(&twice));
        assert!(!twice.is_equivalent(&sip("sip:a@b;x=1")) && !sip("sip:a@b;x=1").is_equivalent(&twice));
        let many = format!("sip:a@b{}", ";p".repeat(MAX_COMPARED + 1));
        assert!(sip(&many).is_equivalent(&sip(&many)));
        assert!(!sip(&many).is_equivalent(&sip(&many.to_uppercase().replace("SIP:A@B", "sip:a@b"))));
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

    #[test]
    fn an_ipv6_host_may_hold_an_ipv4_address() {
        let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(Host::parse("[::ffff:192.0.2.1]").unwrap().ip(), Some(address));
        assert_eq!(Host::parse("[2001:db8:::192.0.2.1]"), Host::parse("[2001:db8::192.0.2.1]"));
    }

    #[test]
    fn equivalence_is_that_of_rfc_3261_section_19_1_4() {
        let same = [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            ("sip:a@b?Subject=x&priority=urgent", "sip:a@b?priority=urgent&subject=x"),
            ("sip:a@[2001:DB8:0::1]", "sip:a@[2001:db8::1]"),
        ];
        let different = [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:a@b;user=phone", "sip:a@b"),
            ("sip:a@b;x=1", "sip:a@b;x=2"),
            ("sip:a@b", "sips:a@b"),
            ("sip:a@b", "sip:a:c@b"),
        ];
        for (one, other) in same {
            assert!(sip(one).is_equivalent(&sip(other)) && sip(other).is_equivalent(&sip(one)), "{one} {other}");
        }
        for (one, other) in different {
            assert!(!sip(one).is_equivalent(&sip(other)) && !sip(other).is_equivalent(&sip(one)), "{one} {other}");
        }
    }
}
