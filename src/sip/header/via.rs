//! Via (RFC 3261 §20.42).

use std::net::{IpAddr, SocketAddr};

use super::Params;
use crate::sip::{
    scan::{self, Cursor},
    uri::Host,
};

/// One value of Via: where a response goes on its way back (RFC 3261 §20.42).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    raw: &'a [u8],
    /// The transport's token: `UDP`, `TCP`, `TLS`, or any other; compared without case.
    pub transport: &'a str,
    /// The host of sent-by.
    pub host: Host<'a>,
    /// The port of sent-by; without one the transport's default holds.
    pub port: Option<u16>,
    /// What follows sent-by.
    pub params: Params<'a>,
}

/// What a branch made after RFC 3261 begins with (§8.1.1.7).
const MAGIC_COOKIE: &str = "z9hG4bK";

impl<'a> Via<'a> {
    /// Reads one value of Via.
    pub(in crate::sip) fn parse(raw: &'a [u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(raw);
        let name = cursor.token().ok_or("it has no protocol")?;
        if !name.eq_ignore_ascii_case(b"SIP") || !cursor.separator(b'/') {
            return Err("its protocol is not SIP");
        }
        if cursor.token() != Some(b"2.0") || !cursor.separator(b'/') {
            return Err("its version is not 2.0");
        }
        let transport = cursor.token_text().ok_or("it has no transport")?;
        let before = cursor.rest().len();
        cursor.skip_lws();
        if cursor.rest().len() == before {
            return Err("no space stands between transport and host");
        }
        let (host, port) = sent_by(&mut cursor)?;
        Ok(Self { raw, transport, host, port, params: Params::parse(cursor.rest())? })
    }

    /// The value as it is written.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    /// The branch, which names the transaction (RFC 3261 §17.1.3).
    pub fn branch(&self) -> Option<&'a str> {
        self.params.text("branch")
    }

    /// The branch if it is unique as RFC 3261 §8.1.1.7 makes it: the magic cookie, and something after it. Without,
    /// a transaction is matched as RFC 2543 did (§17.2.3).
    pub fn unique_branch(&self) -> Option<&'a str> {
        let branch = self.branch()?;
        let (cookie, unique) = branch.split_at_checked(MAGIC_COOKIE.len())?;
        (cookie.eq_ignore_ascii_case(MAGIC_COOKIE) && !unique.is_empty()).then_some(branch)
    }

    /// Where the request came from, as its receiver saw it (RFC 3261 §18.2.1). Brackets around an IPv6 address are
    /// taken although the grammar has none (RFC 5118 §4.5).
    pub fn received(&self) -> Option<IpAddr> {
        let text = self.params.text("received")?;
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        bare.parse().ok()
    }

    /// The source port as the receiver saw it (RFC 3581 §4).
    pub fn rport(&self) -> Option<u16> {
        self.params.text("rport")?.parse().ok()
    }

    /// Whether the sender asks for `rport`, with a value or without (RFC 3581 §3).
    pub fn wants_rport(&self) -> bool {
        self.params.has("rport")
    }

    /// The address to send responses to instead of sent-by (RFC 3261 §18.2.2).
    pub fn maddr(&self) -> Option<Host<'a>> {
        Host::parse(self.params.text("maddr")?).ok()
    }

    /// The multicast time to live.
    pub fn ttl(&self) -> Option<u8> {
        self.params.text("ttl")?.parse().ok()
    }

    /// This value as the receiver of the request passes it on: with `received` where the source is not sent-by, and
    /// with `rport` filled in where that was asked for (RFC 3261 §18.2.1, RFC 3581 §4). `None`: as it is.
    ///
    /// A `received` that the sender wrote himself goes.
    pub fn stamped(&self, source: SocketAddr) -> Option<Vec<u8>> {
        let address = source.ip().to_canonical();
        let rport = self.wants_rport();
        if !rport && !self.params.has("received") && self.host.ip() == Some(address) {
            return None;
        }
        let sent_by = self.raw.len() - self.params.as_bytes().len();
        let mut stamped = Vec::with_capacity(self.raw.len() + 64);
        stamped.extend_from_slice(self.raw.get(..sent_by).unwrap_or_default());
        for param in self.params.iter() {
            let name = param.name.to_ascii_lowercase();
            if matches!(name.as_str(), "received" | "rport") {
                continue;
            }
            stamped.push(b';');
            stamped.extend_from_slice(param.name.as_bytes());
            if let Some(value) = param.value {
                stamped.push(b'=');
                stamped.extend_from_slice(value);
            }
        }
        if rport || self.host.ip() != Some(address) {
            stamped.extend_from_slice(format!(";received={address}").as_bytes());
        }
        if rport {
            stamped.extend_from_slice(format!(";rport={}", source.port()).as_bytes());
        }
        Some(stamped)
    }
}

/// Reads `host [COLON port]`, white space allowed around the colon.
fn sent_by<'a>(cursor: &mut Cursor<'a>) -> Result<(Host<'a>, Option<u16>), &'static str> {
    let rest = cursor.rest();
    let length = if cursor.peek() == Some(b'[') {
        memchr::memchr(b']', rest).map_or(rest.len(), |end| end + 1)
    } else {
        rest.iter().position(|c| matches!(c, b':' | b';') || scan::is_lws(*c)).unwrap_or(rest.len())
    };
    let host = scan::text(cursor.take(length)).ok_or("its host is not ASCII")?;
    let host = Host::parse(host).map_err(|_| "its sent-by is not a host")?;
    if !cursor.separator(b':') {
        return Ok((host, None));
    }
    let rest = cursor.rest();
    let digits = cursor.take(rest.iter().take_while(|c| c.is_ascii_digit()).count());
    let port = scan::number(digits).and_then(|port| u16::try_from(port).ok());
    Ok((host, Some(port.ok_or("its port is not one")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(text: &str) -> Via<'_> {
        Via::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_via_is_read_with_white_space_wherever_the_grammar_has_it() {
        let via = via(
            "SIP / 2.0\r\n /\tUDP  [2001:db8::9]\r\n : 5061 ; branch = z9hG4bK7;received=[2001:db8::1] ; rport=9 ;ttl=3",
        );
        assert_eq!((via.transport, via.host.to_string().as_str(), via.port), ("UDP", "[2001:db8::9]", Some(5061)));
        assert_eq!((via.branch(), via.unique_branch()), (Some("z9hG4bK7"), Some("z9hG4bK7")));
        assert_eq!((via.rport(), via.ttl()), (Some(9), Some(3)));
        assert_eq!(via.received(), Some("2001:db8::1".parse().unwrap()));
        let other =
            super::Via::parse(b"SIP/2.0/OVERLAY abc.invalid;received=2001:db8::1;maddr=224.2.0.1;branch=1").unwrap();
        assert_eq!(other.received(), via.received());
        assert_eq!(other.maddr().and_then(|host| host.ip()), Some("224.2.0.1".parse().unwrap()));
        assert_eq!((other.branch(), other.unique_branch()), (Some("1"), None));
    }

    #[test]
    fn a_cookie_without_more_is_not_unique() {
        assert_eq!(via("SIP/2.0/UDP a;branch=z9hG4bK").unique_branch(), None);
        assert_eq!(via("SIP/2.0/UDP a").branch(), None);
        assert!(via("SIP/2.0/UDP a;branch=Z9HG4BKx").unique_branch().is_some());
    }

    #[test]
    fn what_is_no_via_is_refused() {
        let wrong = [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/2.0 UDP a",
            "HTTP/1.1/UDP a",
            "SIP/3.0/UDP a",
            "SIP/2.0/ a",
            "SIP/2.0/UDP a:",
            "SIP/2.0/UDP a:x",
            "SIP/2.0/UDP a:70000",
            "SIP/2.0/UDP a;;",
            "SIP/2.0/UDP a b",
            "SIP/2.0/UDP 2001:db8::1",
            "SIP/2.0/UDP [::1",
            "SIP/2.0/UDP a;branch=",
            "SIP/2.0/UDP;branch=a",
            "SIP/2.0/UDP <a>",
        ];
        for text in wrong {
            assert!(Via::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_receiver_notes_where_a_request_came_from() {
        let stamped = |text: &str, source: &str| {
            via(text).stamped(source.parse().unwrap()).map(|value| String::from_utf8(value).unwrap())
        };
        assert_eq!(stamped("SIP/2.0/UDP 192.0.2.1:5070;branch=b", "192.0.2.1:9"), None);
        assert_eq!(stamped("SIP/2.0/UDP 192.0.2.1", "[::ffff:192.0.2.1]:9"), None);
        for (value, source, expected) in [
            ("SIP/2.0/UDP a.b;branch=b", "192.0.2.1:9", "SIP/2.0/UDP a.b;branch=b;received=192.0.2.1"),
            ("SIP/2.0/UDP 192.0.2.1 ; rport", "192.0.2.1:9", "SIP/2.0/UDP 192.0.2.1;received=192.0.2.1;rport=9"),
            ("SIP/2.0/UDP 192.0.2.1;received=9.9.9.9", "192.0.2.1:9", "SIP/2.0/UDP 192.0.2.1"),
            ("SIP/2.0/UDP [::1];rport=1;x", "[2001:db8::1]:9", "SIP/2.0/UDP [::1];x;received=2001:db8::1;rport=9"),
        ] {
            assert_eq!(stamped(value, source).as_deref(), Some(expected));
        }
    }
}
