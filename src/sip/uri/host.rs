//! The host of a SIP URI, and its port.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::sip::ParseError;

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

/// Reads what stands between the user part and the parameters.
pub(super) fn host_and_port(text: &str) -> Result<(Host<'_>, Option<u16>), &'static str> {
    // The port's colon comes after the brackets of an IPv6 address.
    let colon = match text.strip_prefix('[') {
        Some(_) => text.find(']').map(|end| end + 1).filter(|end| *end < text.len()),
        None => text.bytes().position(|octet| octet == b':'),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_host_may_hold_an_ipv4_address() {
        let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(Host::parse("[::ffff:192.0.2.1]").unwrap().ip(), Some(address));
        assert_eq!(Host::parse("[2001:db8:::192.0.2.1]"), Host::parse("[2001:db8::192.0.2.1]"));
    }
}
