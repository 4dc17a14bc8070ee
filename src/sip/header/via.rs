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
        if !name.eq_ignore_ascii_case("SIP") || !cursor.separator(b'/') {
            return Err("its protocol is not SIP");
        }
        if cursor.token() != Some("2.0") || !cursor.separator(b'/') {
            return Err("its version is not 2.0");
        }
        let transport = cursor.token().ok_or("it has no transport")?;
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
