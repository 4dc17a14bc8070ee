//! Where servers of other domains are: a URI as the DNS part wants it, and what it says as the proxy wants it.

use std::time::{Duration, Instant};

use crate::{
    dns::locate::{Failure, Host, Locator, Query, Target, Transport, Verdict},
    proxy::{engine::Located, fork::Health},
    sip::{
        tap::Tap,
        transport::{Hop, Protocol, Remote},
        uri::SipUri,
    },
};

/// How long the DNS may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Servers of a domain that are tried.
const MAX_HOPS: usize = 8;

/// Locates the servers of a URI (RFC 3263).
pub(crate) async fn locate(locator: &Locator, uri: &str, secure: bool, tap: Option<&Tap>) -> Located {
    let query = match query(uri, secure) {
        Ok(query) => query,
        Err(reason) => return Located::Nowhere { status: 500, reason },
    };
    let began = Instant::now();
    let location = locator.locate(&query, began + TIMEOUT).await;
    if let (Some(tap), Ok(location), Host::Name(name)) = (tap, &location, &query.host) {
        tap.asked("DNS", name, location.to_string(), began);
    }
    match location {
        Ok(location) if !location.targets.is_empty() => {
            Located::Hops(location.targets.iter().take(MAX_HOPS).map(hop).collect())
        }
        Ok(location) => match location.verdict {
            Verdict::NoDomain => Located::Nowhere { status: 404, reason: "Domain Does Not Exist" },
            Verdict::NoServer | Verdict::Found => Located::Nowhere { status: 404, reason: "Domain Has No SIP Server" },
            Verdict::Unanswered => Located::Nowhere { status: 500, reason: "DNS Does Not Answer" },
        },
        Err(_) => Located::Nowhere { status: 500, reason: "Cannot Be Located" },
    }
}

/// Remembers how a server does, so that one that has failed is tried last for a while.
pub(crate) fn learn(locator: &Locator, hop: &Hop, health: Health) {
    let transport = match hop.protocol {
        Protocol::Udp => Transport::Udp,
        Protocol::Tcp => Transport::Tcp,
        Protocol::Tls => Transport::Tls,
        Protocol::Overlay => return,
    };
    let Remote::Socket(address) = hop.remote else { return };
    match health {
        Health::Works => locator.worked(transport, address),
        Health::Silent => locator.failed(transport, address, Failure::Timeout),
        Health::Unreachable => locator.failed(transport, address, Failure::Transport),
        Health::Busy(retry_after) => locator.failed(transport, address, Failure::Unavailable(retry_after)),
    }
}

/// The server of a URI whose host is an address, as those of most phones' contacts are: nothing has to be asked. `None`
/// of any other URI, and of one that has no server.
pub(super) fn at_once(locator: &Locator, uri: &str, secure: bool) -> Option<Located> {
    let target = locator.of_address(&query(uri, secure).ok()?)?;
    Some(Located::Hops(vec![hop(&target)]))
}

fn query(uri: &str, secure: bool) -> Result<Query, &'static str> {
    let uri = SipUri::parse(uri).map_err(|_| "Cannot Be Located")?;
    let transport = match uri.transport().map(|token| Protocol::from_token(token.as_bytes())) {
        None => None,
        Some(Some(Protocol::Udp)) => Some(Transport::Udp),
        Some(Some(Protocol::Tcp)) => Some(Transport::Tcp),
        Some(Some(Protocol::Tls)) => Some(Transport::Tls),
        Some(Some(Protocol::Overlay) | None) => return Err("Transport Not Spoken Here"),
    };
    let secure = secure || uri.secure;
    if secure && transport == Some(Transport::Udp) {
        return Err("No Secure Transport");
    }
    let host = |host: crate::sip::uri::Host<'_>| match host.ip() {
        Some(address) => Host::Address(address),
        None => Host::parse(host.name().unwrap_or_default()),
    };
    Ok(Query { secure, host: host(uri.host), port: uri.port, transport, maddr: uri.maddr().map(host) })
}

fn hop(target: &Target) -> Hop {
    match target.transport {
        Transport::Udp => Hop::socket(Protocol::Udp, target.address),
        Transport::Tcp => Hop::socket(Protocol::Tcp, target.address),
        Transport::Tls => Hop::socket(Protocol::Tls, target.address).named(target.name.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_asked_for_by_the_parts_that_count() {
        let plain = query("sip:carol@Example.com;transport=tcp;lr", false).unwrap();
        assert_eq!((plain.secure, plain.port, plain.transport), (false, None, Some(Transport::Tcp)));
        assert_eq!(plain.host, Host::Name("example.com".to_owned()));
        let literal = query("sip:[2001:db8::1]:5070;maddr=192.0.2.9", false).unwrap();
        assert_eq!(literal.host, Host::Address("2001:db8::1".parse().unwrap()));
        assert_eq!((literal.port, literal.maddr), (Some(5070), Some(Host::Address("192.0.2.9".parse().unwrap()))));
        assert!(query("sips:example.com", false).unwrap().secure);
        assert!(query("sip:example.com", true).unwrap().secure);
        assert_eq!(query("sip:example.com;transport=sctp", false), Err("Transport Not Spoken Here"));
        assert_eq!(query("sip:example.com;transport=overlay", false), Err("Transport Not Spoken Here"));
        assert_eq!(query("sips:example.com;transport=udp", false), Err("No Secure Transport"));
    }
}
