//! Values as people type them: durations, addresses, multiaddrs and SIP contacts. Each error is the end of a line that
//! begins with where the value came from.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use crate::{
    dns,
    name::{OverlayId, PeerId, ResourceName},
    sip::uri::SipUri,
};

/// The longest `--timeout` in seconds: nobody waits longer than an hour for a first answer.
const MAX_TIMEOUT: f64 = 3_600.0;
/// The longest span that a call may be told to take, in seconds: a day.
const MAX_SECONDS: f64 = 86_400.0;
/// Where SIP is without a port (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;
/// Longest multiaddr taken, in bytes; a circuit over QUIC with two peer ids has about 200.
const MAX_MULTIADDR: usize = 512;
/// Longest SIP contact taken, in bytes.
const MAX_CONTACT: usize = 512;

/// What a multiaddr is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Dialling a member.
    Dial,
    /// Listening as a member.
    Listen,
}

/// A number of seconds, fractions allowed.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= MAX_TIMEOUT);
    let seconds = seconds
        .ok_or_else(|| format!("'{text}' is not a time; write seconds above 0 and up to {MAX_TIMEOUT}, such as 2.5"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("'{text}' is not a time"))
}

/// A number of seconds that may be 0, fractions allowed.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("'{text}' is not a time; write seconds from 0 to {MAX_SECONDS}, such as 0.5"))
}

/// A number of seconds above 0, fractions allowed.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let some = seconds(text).ok().filter(|span| !span.is_zero());
    some.ok_or_else(|| format!("'{text}' is not a span of time; write seconds above 0 and up to {MAX_SECONDS}"))
}

/// A whole number within a range, as the parser of an argument.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + fmt::Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let some = text.parse().ok().filter(|number| range.contains(number));
        some.ok_or_else(|| format!("write a whole number from {} to {}", range.start(), range.end()))
    }
}

/// An IP address, as the parser of an argument.
pub(super) fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "write an IP address like 192.0.2.1 or 2001:db8::1".to_owned())
}

/// A number of octets above 0.
pub(super) fn octets(text: &str) -> Result<u64, String> {
    let some = text.parse().ok().filter(|octets| *octets > 0);
    some.ok_or_else(|| format!("'{text}' is not a number of octets; write one above 0, such as 33554432"))
}

/// An address to listen on for SIP; without a port, the standard one.
pub(super) fn sip_address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = text.parse().ok().or_else(|| Some(SocketAddr::new(bare.parse().ok()?, SIP_PORT)));
    address.ok_or_else(|| format!("'{text}' is not an address to listen on; write one like 127.0.0.1:5070"))
}

/// A next hop of SIP as a URI: it is one, or HOST, or HOST:PORT.
pub(super) fn sip_hop(text: &str) -> Result<String, String> {
    let is_uri = ["sip:", "sips:"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    // A bare IPv6 address needs its brackets.
    let bare = text.parse::<Ipv6Addr>().is_ok();
    let uri = match (is_uri, bare) {
        (true, _) => text.to_owned(),
        (false, true) => format!("sip:[{text}]"),
        (false, false) => format!("sip:{text}"),
    };
    match SipUri::parse(&uri) {
        Ok(parsed) if parsed.headers.is_none() => Ok(uri),
        _ => Err(format!("'{text}' is not a next hop; write one like 192.0.2.1:5060 or 'sip:192.0.2.1;transport=tcp'")),
    }
}

/// The address of a DNS server; without a port, the standard one.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    dns::parse_server(text).map_err(|error| error.to_string())
}

/// A socket address to listen on.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("'{text}' is not an address to listen on; write one like 127.0.0.1:9464"))
}

/// Checks the shape of a multiaddr: known protocols, each with a value that fits.
pub(super) fn multiaddr(text: &str, purpose: Purpose) -> Result<(), String> {
    let example = match purpose {
        Purpose::Dial => "/ip4/192.0.2.7/udp/4001/quic-v1/p2p/12D3KooW…",
        Purpose::Listen => "/ip4/0.0.0.0/udp/4001/quic-v1",
    };
    shape(text, purpose).map_err(|why| format!("'{text}' is not a multiaddr: {why}; write one like {example}"))
}

fn shape(text: &str, purpose: Purpose) -> Result<(), String> {
    if text.len() > MAX_MULTIADDR {
        return Err(format!("it is longer than {MAX_MULTIADDR} bytes"));
    }
    let mut parts = text.strip_prefix('/').ok_or("it does not begin with '/'")?.split('/');
    let mut last = "";
    while let Some(protocol) = parts.next() {
        let is_host = matches!(protocol, "ip4" | "ip6" | "dns" | "dns4" | "dns6");
        if last.is_empty() && !is_host {
            return Err(match protocol {
                "dnsaddr" => "an overlay found through the DNS is named by --overlay".to_owned(),
                _ => format!("'{protocol}' is not ip4, ip6, dns, dns4 or dns6"),
            });
        }
        last = protocol;
        if matches!(protocol, "quic-v1" | "p2p-circuit") {
            continue;
        }
        if !is_host && !matches!(protocol, "tcp" | "udp" | "p2p") {
            return Err(format!("'{protocol}' is not a protocol of the overlay"));
        }
        let value = parts.next().ok_or_else(|| format!("'{protocol}' has no value"))?;
        if !value_fits(protocol, value, purpose) {
            return Err(format!("'{value}' does not fit '{protocol}'"));
        }
    }
    match purpose {
        Purpose::Dial if last != "p2p" => Err("it does not end in the member's id, /p2p/12D3KooW…".to_owned()),
        Purpose::Dial | Purpose::Listen => Ok(()),
    }
}

fn value_fits(protocol: &str, value: &str, purpose: Purpose) -> bool {
    match protocol {
        "ip4" => value.parse::<Ipv4Addr>().is_ok(),
        "ip6" => value.parse::<Ipv6Addr>().is_ok(),
        // Port 0 asks for any free one; nobody can be dialled there.
        "tcp" | "udp" => value.parse::<u16>().is_ok_and(|port| port != 0 || purpose == Purpose::Listen),
        "p2p" => value.parse::<PeerId>().is_ok(),
        _ => OverlayId::parse_local(value).is_ok(),
    }
}

/// Checks the shape of a SIP contact: `sip:` or `sips:`, a host, nothing that could not stand in a URI. What the rest
/// means is for SIP to say (RFC 3261 §19.1).
pub(super) fn sip_contact(text: &str) -> Result<(), String> {
    let why = if text.len() > MAX_CONTACT {
        "it is too long"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"')) {
        "it has characters that a URI may not have"
    } else {
        let rest = text
            .split_once(':')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips"))
            .map(|(_, rest)| rest);
        let host = rest.map(|rest| rest.rsplit_once('@').map_or(rest, |(_, host)| host));
        match host {
            None => "its scheme is not sip: or sips:",
            Some(host) if host.is_empty() || host.starts_with([';', '?', ':']) => "it has no host",
            Some(_) => return Ok(()),
        }
    };
    Err(format!("'{text}' is not a SIP URI: {why}; write one like sip:alice@192.0.2.7:5060"))
}

/// A user's or a service's URI.
pub(super) fn resource_name(text: &str) -> Result<ResourceName, String> {
    ResourceName::parse(text).map_err(|error| error.to_string())
}

/// A number of whole seconds for which a registration is to hold.
pub(super) fn expires(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("a registration cannot hold for 0 seconds; to end one, use --remove".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(u64::from(seconds))),
        Err(_) => Err(format!("'{text}' is not a number of seconds; write one like 3600")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn timeouts_are_seconds_with_fractions() {
        assert_eq!(timeout("5").unwrap(), Duration::from_secs(5));
        assert_eq!(timeout("0.25").unwrap(), Duration::from_millis(250));
        for wrong in ["0", "-1", "", "5s", "NaN", "inf", "3601", "1e99"] {
            assert!(timeout(wrong).unwrap_err().contains("such as 2.5"), "{wrong}");
        }
    }

    #[test]
    fn multiaddrs_are_checked_part_by_part() {
        for right in [
            format!("/ip4/192.0.2.7/udp/4001/quic-v1/p2p/{PEER}"),
            format!("/ip6/2001:db8::7/tcp/4001/p2p/{PEER}"),
            format!("/dns4/a.p2psip.org/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{PEER}"),
        ] {
            assert_eq!(multiaddr(&right, Purpose::Dial), Ok(()), "{right}");
        }
        for (wrong, why) in [
            ("", "begin with '/'"),
            ("192.0.2.7:4001", "begin with '/'"),
            ("/", "'' is not ip4"),
            ("/tcp/4001", "'tcp' is not ip4"),
            ("/ip4/192.0.2/tcp/4001", "'192.0.2' does not fit 'ip4'"),
            ("/ip4/192.0.2.7/tcp", "'tcp' has no value"),
            ("/ip4/192.0.2.7/tcp/65536", "'65536' does not fit"),
            ("/ip4/192.0.2.7/tcp/0", "'0' does not fit"),
            ("/ip4/192.0.2.7/tcp/4001/p2p/Qm", "'Qm' does not fit"),
            ("/ip4/192.0.2.7/tcp/4001/ws", "'ws' is not a protocol"),
            ("/ip4/192.0.2.7/tcp/4001/", "'' is not a protocol"),
            ("/ip4/192.0.2.7/tcp/4001", "does not end in the member's id"),
            ("/dnsaddr/p2psip.org", "named by --overlay"),
        ] {
            let error = multiaddr(wrong, Purpose::Dial).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
        assert_eq!(multiaddr("/ip4/0.0.0.0/tcp/0", Purpose::Listen), Ok(()));
    }

    #[test]
    fn contacts_are_sip_uris() {
        for right in ["sip:alice@192.0.2.7", "SIPS:a:b@[2001:db8::1]:5061;transport=tls", "sip:phone.example"] {
            assert_eq!(sip_contact(right), Ok(()), "{right}");
        }
        for wrong in ["", "alice", "tel:+1", "sip:", "sip:alice@", "sip:a@;lr", "sip:a b@c", "<sip:a@b>", "sip:é@b"] {
            assert!(sip_contact(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn removing_is_not_expiring_at_once() {
        assert_eq!(expires("3600").unwrap(), Duration::from_secs(3600));
        assert!(expires("0").unwrap_err().contains("--remove"));
        assert!(expires("1.5").is_err());
    }

    #[test]
    fn next_hops_become_uris() {
        for (text, uri) in [
            ("192.0.2.1", "sip:192.0.2.1"),
            ("192.0.2.1:5070", "sip:192.0.2.1:5070"),
            ("2001:db8::1", "sip:[2001:db8::1]"),
            ("[2001:db8::1]:5070", "sip:[2001:db8::1]:5070"),
            ("proxy.example.com", "sip:proxy.example.com"),
            ("sip:192.0.2.1;transport=tcp", "sip:192.0.2.1;transport=tcp"),
        ] {
            assert_eq!(sip_hop(text).unwrap(), uri);
        }
        for wrong in ["", "a b", "http://x", "sip:x?a=b", "192.0.2.1:99999"] {
            assert!(sip_hop(wrong).is_err(), "{wrong}");
        }
        assert_eq!(sip_address("127.0.0.1").unwrap().to_string(), "127.0.0.1:5060");
        assert_eq!(sip_address("[::1]").unwrap().to_string(), "[::1]:5060");
        assert_eq!(sip_address("[::1]:0").unwrap().to_string(), "[::1]:0");
        assert!(sip_address("localhost").is_err());
        assert_eq!(seconds("0").unwrap(), Duration::ZERO);
        assert!(seconds("-1").is_err() && seconds("NaN").is_err() && seconds("1e9").is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".{0,80}") {
            let _ = (timeout(&text), dns_server(&text), sip_contact(&text), expires(&text));
            let _ = (multiaddr(&text, Purpose::Dial), multiaddr(&format!("/ip4/{text}"), Purpose::Listen));
        }
    }
}
