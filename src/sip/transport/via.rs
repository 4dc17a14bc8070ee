//! What the transport layer reads in a Via, and writes into it (RFC 3261 §18.1.1, §18.2.2, RFC 3581). Pure.
//!
//! What the receiver of a request notes there is [`Via::stamped`].

use std::net::SocketAddr;

use bytes::Bytes;
use memchr::memmem;

use super::{Hop, Protocol, Remote, Source, overlay};
use crate::sip::{
    Message,
    edit::Edit,
    header::{Name, Via},
    uri::Host,
};

/// A longer request leaves over TCP rather than UDP, where it might be cut into fragments that get lost
/// (RFC 3261 §18.1.1), in octets.
pub const MAX_DATAGRAM: usize = 1300;

/// Where the response to a request goes that came from `source` with this topmost Via (RFC 3261 §18.2.2).
///
/// On the flow it came on; if that was a connection and is gone, to the address it came from and sent-by's port. A
/// datagram goes to `maddr` if that is an address, to the source's port if `rport` was asked for (RFC 3581 §4), else to
/// sent-by's. What the sender wrote as `received` counts for nothing: the source is known.
pub fn response_target(via: &Via<'_>, source: &Source) -> Hop {
    let mut hop = source.way_back();
    let Remote::Socket(seen) = source.remote else { return hop };
    let port = via.port.unwrap_or(source.protocol.default_port());
    let (ip, port) = match source.protocol {
        Protocol::Udp => match via.maddr().and_then(|maddr| maddr.ip()) {
            Some(maddr) => (maddr, port),
            None => (seen.ip(), if via.wants_rport() { seen.port() } else { port }),
        },
        _ => (seen.ip(), port),
    };
    hop.remote = Remote::socket(SocketAddr::new(ip, port));
    if let (Protocol::Tls, Host::Name(name)) = (source.protocol, via.host) {
        // Whom a new connection must be to.
        hop.name = Some(name.into());
    }
    hop
}

/// Whether the Via is that of a peer of the overlay: `SIP/2.0/OVERLAY`, and the host that names the peer.
pub fn names_peer(via: &Via<'_>, peer: &crate::name::PeerId) -> bool {
    let Host::Name(host) = via.host else { return false };
    Protocol::from_token(via.transport.as_bytes()) == Some(Protocol::Overlay)
        && overlay::peer_of_via_host(host.as_bytes()) == Some(*peer)
}

/// The request as it leaves over TCP, if it is too long for UDP (longer than `limit`): its topmost Via says so. `None`
/// for a response, for a shorter request, and for one that does not go over UDP.
///
/// If there is nobody on TCP it is sent over UDP after all, as it was.
pub fn over_tcp(request: &Message, hop: &Hop, limit: usize) -> Option<(Hop, Bytes)> {
    if hop.protocol != Protocol::Udp || request.bytes().len() <= limit || !request.is_request() {
        return None;
    }
    let via = request.top_via().ok()?;
    if Protocol::from_token(via.transport.as_bytes()) != Some(Protocol::Udp) {
        return None;
    }
    // Before the transport there are only `SIP`, `2.0`, slashes and white space.
    let written = via.as_bytes();
    let (before, rest) = written.split_at_checked(memmem::find(written, via.transport.as_bytes())?)?;
    let rest = rest.get(via.transport.len()..)?;
    let mut edit = Edit::new(request);
    edit.replace_first_value(Name::Via, [before, Protocol::Tcp.token().as_bytes(), rest].concat());
    let hop = Hop { protocol: Protocol::Tcp, flow: None, ..hop.clone() };
    Some((hop, edit.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name::PeerId, sip::transport::FlowId};

    fn request(via: &str, body: usize) -> Message {
        let text = format!(
            "INVITE sip:bob@example.com SIP/2.0\r\nv: {via}, SIP/2.0/UDP second;branch=z9hG4bK2\r\n\
             f: <sip:a@b>;tag=1\r\nt: <sip:b@b>\r\ni: 1\r\nCSeq: 1 INVITE\r\nl: {body}\r\n\r\n{}",
            "x".repeat(body)
        );
        Message::parse(text.into()).unwrap()
    }

    fn target(protocol: Protocol, via: &str, source: &str) -> String {
        let local = "192.0.2.1:5060".parse().unwrap();
        let source = Source::socket(protocol, source.parse().unwrap(), local, FlowId(7));
        let message = request(via, 0);
        let hop = response_target(&message.top_via().unwrap(), &source);
        assert_eq!((hop.flow, hop.local, hop.protocol), (Some(FlowId(7)), Some(local), protocol));
        hop.remote.to_string() + &hop.name.map(|name| format!(" {name}")).unwrap_or_default()
    }

    #[test]
    fn a_response_over_udp_goes_where_the_via_and_the_source_say() {
        let udp = |via: &str| target(Protocol::Udp, &format!("SIP/2.0/UDP {via}"), "198.51.100.7:40000");
        // Without rport: the source's address, sent-by's port.
        assert_eq!(udp("198.51.100.7:5070;branch=z9hG4bK1"), "198.51.100.7:5070");
        assert_eq!(udp("pc.example.com;branch=z9hG4bK1"), "198.51.100.7:5060");
        assert_eq!(udp("10.0.0.1:5070;received=203.0.113.9;branch=z9hG4bK1"), "198.51.100.7:5070");
        // With rport: both as seen, whatever its value.
        assert_eq!(udp("10.0.0.1:5070;rport;branch=z9hG4bK1"), "198.51.100.7:40000");
        assert_eq!(udp("10.0.0.1:5070;rport=1;branch=z9hG4bK1"), "198.51.100.7:40000");
        // maddr comes first.
        assert_eq!(udp("10.0.0.1:5070;maddr=224.0.1.75;ttl=1;rport"), "224.0.1.75:5070");
        assert_eq!(udp("10.0.0.1;maddr=[2001:db8::5]"), "[2001:db8::5]:5060");
        assert_eq!(udp("10.0.0.1;maddr=not.an.address"), "198.51.100.7:5060");
    }

    #[test]
    fn a_response_over_ipv6_goes_to_the_source_too() {
        let via = "SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bK1";
        assert_eq!(target(Protocol::Udp, via, "[2001:db8::1]:40000"), "[2001:db8::1]:5060");
        let via = "SIP/2.0/UDP [2001:db8::9:1]:5070;rport";
        assert_eq!(target(Protocol::Udp, via, "[2001:db8::1]:40000"), "[2001:db8::1]:40000");
        assert_eq!(target(Protocol::Udp, via, "[::ffff:192.0.2.9]:40000"), "192.0.2.9:40000");
    }

    #[test]
    fn a_lost_connection_is_made_again_to_the_port_of_sent_by() {
        let tcp = "SIP/2.0/TCP pc.example.com:5070;branch=z9hG4bK1;rport;maddr=224.0.1.75";
        assert_eq!(target(Protocol::Tcp, tcp, "198.51.100.7:40000"), "198.51.100.7:5070");
        let tls = "SIP/2.0/TLS proxy.example.com;branch=z9hG4bK1";
        assert_eq!(target(Protocol::Tls, tls, "198.51.100.7:40000"), "198.51.100.7:5061 proxy.example.com");
    }

    #[test]
    fn a_peers_response_goes_back_to_the_peer() {
        let peer = PeerId::from_public_key([5; 32]);
        let message = request(&format!("SIP/2.0/OVERLAY {};branch=z9hG4bK1", overlay::via_host(&peer)), 0);
        let via = message.top_via().unwrap();
        let hop = response_target(&via, &Source::peer(peer, FlowId(3)));
        assert_eq!((hop.remote, hop.flow, hop.local), (Remote::Peer(peer), Some(FlowId(3)), None));
        assert!(names_peer(&via, &peer));
        assert!(!names_peer(&via, &PeerId::from_public_key([6; 32])));
        let others = [format!("SIP/2.0/UDP {}", overlay::via_host(&peer)), "SIP/2.0/OVERLAY 192.0.2.1".to_owned()];
        for other in others {
            assert!(!names_peer(&request(&other, 0).top_via().unwrap(), &peer), "{other}");
        }
    }

    #[test]
    fn a_long_request_leaves_over_tcp_and_its_via_says_so() {
        let hop = Hop::socket(Protocol::Udp, "192.0.2.7:5060".parse().unwrap());
        let long = request("SIP / 2.0 / udp udp.example.com:5062;branch=z9hG4bK1;x=\"UDP\"", 1300);
        let (over, bytes) = over_tcp(&long, &hop, MAX_DATAGRAM).unwrap();
        assert_eq!((over.protocol, over.remote), (Protocol::Tcp, hop.remote));
        let changed = Message::parse(bytes).unwrap();
        let written = changed.top_via().unwrap();
        assert_eq!(written.as_bytes(), b"SIP / 2.0 / TCP udp.example.com:5062;branch=z9hG4bK1;x=\"UDP\"");
        assert_eq!(changed.vias().nth(1).unwrap().unwrap().transport, "UDP");
        assert_eq!((changed.body(), changed.vias().count()), (long.body(), 2));

        let short = request("SIP/2.0/UDP a;branch=z9hG4bK1", 10);
        assert_eq!(over_tcp(&short, &hop, MAX_DATAGRAM), None);
        assert_eq!(over_tcp(&long, &Hop { protocol: Protocol::Tls, ..hop.clone() }, MAX_DATAGRAM), None);
        let response = format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a\r\nl: 1400\r\n\r\n{}", "x".repeat(1400));
        assert_eq!(over_tcp(&Message::parse(response.into()).unwrap(), &hop, MAX_DATAGRAM), None);
    }
}
