//! The transports of SIP (RFC 3261 §18): where a message came from, where one goes, and what carries it.
//!
//! The plain data is here: a received message has a [`Source`], one to be sent has a [`Hop`]. Transactions and the
//! proxy decide with these alone.
//!
//! [`Transports`] are the sockets. Connections and overlay streams are carried by tasks, which report [`Event`]s; a
//! UDP socket may be read and written by a thread of its own, which then needs no task or channel for a datagram:
//!
//! ```no_run
//! # use p2psip::sip::transport::{Bound, Config, Protocol, Transports};
//! # async fn worker() -> Result<(), Box<dyn std::error::Error>> {
//! let listen = vec![(Protocol::Udp, "192.0.2.1:5060".parse()?), (Protocol::Tcp, "192.0.2.1:5060".parse()?)];
//! let Bound { transports, events, udp } = Transports::bind(Config { listen, ..Config::default() })?;
//! for port in udp {
//!     let mut reader = port.reader()?;
//!     loop {
//!         reader.readable().await?;
//!         while let Some((octets, source)) = reader.try_recv() {
//!             // … and what the engine makes of it:
//!             port.try_send(&source.way_back(), &octets)?;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod config;
mod connection;
mod counters;
mod driver;
pub mod overlay;
mod table;
mod tls;
mod udp;
mod undelivered;
mod via;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

pub use self::{
    config::{Config, Limits, SendError, TransportError},
    counters::{Counters, DropReason, Traffic},
    driver::{Bound, Event, Token, Transports},
    overlay::{BoxedStream, OverlayDialer, OverlayPort, via_host},
    tls::TlsFiles,
    udp::{UdpPort, UdpReader},
    undelivered::Undelivered,
    via::{MAX_DATAGRAM, names_peer, over_tcp, response_target},
};
use crate::name::PeerId;

/// What carries SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Datagrams (RFC 3261 §18.1.1).
    Udp,
    /// A TCP connection.
    Tcp,
    /// TLS over TCP (RFC 3261 §26.2.1, RFC 5922).
    Tls,
    /// A stream of the overlay: encrypted, and the other side's peer id is authenticated. Framed as TCP.
    Overlay,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Overlay];

    /// The transport as a Via names it: `UDP`, `TCP`, `TLS`, or `OVERLAY`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Overlay => "OVERLAY",
        }
    }

    /// The transport of a Via or of a URI's `transport` parameter, in any case of letters.
    pub fn from_token(token: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.token().as_bytes().eq_ignore_ascii_case(token))
    }

    /// The port where none is written: 5061 for TLS, else 5060 (RFC 3261 §19.1.2). Overlay streams have no ports.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Tls => 5061,
            Self::Udp | Self::Tcp | Self::Overlay => 5060,
        }
    }

    /// Whether what is sent arrives or the connection fails: no retransmissions (RFC 3261 §17).
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// Whether it may carry a request for a `sips:` URI (RFC 3261 §26.2.2).
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Overlay)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.token())
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        Self::from_token(text.as_bytes()).ok_or(UnknownProtocol)
    }
}

/// A transport that we do not speak (SCTP, WS …).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SIP transport that is spoken here: write udp, tcp, tls or overlay")]
pub struct UnknownProtocol;

/// The other side of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// An address and port; an IPv4 address is never written as an IPv6 one.
    Socket(SocketAddr),
    /// A process of the overlay.
    Peer(PeerId),
}

impl Remote {
    /// The socket, with an IPv4-mapped IPv6 address as the IPv4 address it is.
    pub fn socket(address: SocketAddr) -> Self {
        Self::Socket(unmapped(address))
    }

    /// The IP address, if the other side has one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Socket(address) => Some(address.ip()),
            Self::Peer(_) => None,
        }
    }

    /// The peer, if the other side is one.
    pub const fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Socket(_) => None,
            Self::Peer(peer) => Some(*peer),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Peer(peer) => peer.fmt(f),
        }
    }
}

/// The address with an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) as the IPv4 address it is.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One connection, overlay stream or UDP socket of this process, for as long as it lives. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a message is to go next.
///
/// A response's hop is made by [`response_target`] from the topmost Via and the request's [`Source`]: it prefers the
/// flow on which the request came, and has an address for when that is gone (RFC 3261 §18.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hop {
    /// What carries the message.
    pub protocol: Protocol,
    /// The other side.
    pub remote: Remote,
    /// The domain that the other side's TLS certificate must be for (RFC 5922 §4); without one, the IP address.
    pub name: Option<Arc<str>>,
    /// The socket to send from, where there are several; its port is not that of a connection.
    pub local: Option<SocketAddr>,
    /// The connection to use if it is still there.
    pub flow: Option<FlowId>,
    /// Where a peer of the overlay listens, as multiaddrs; what the overlay knows is tried too.
    pub addresses: Arc<[String]>,
}

impl Hop {
    /// An address and port.
    pub fn socket(protocol: Protocol, address: SocketAddr) -> Self {
        Self {
            protocol,
            remote: Remote::socket(address),
            name: None,
            local: None,
            flow: None,
            addresses: Arc::default(),
        }
    }

    /// A peer of the overlay that listens at these multiaddrs.
    pub fn peer(peer: PeerId, addresses: impl Into<Arc<[String]>>) -> Self {
        Self {
            protocol: Protocol::Overlay,
            remote: Remote::Peer(peer),
            name: None,
            local: None,
            flow: None,
            addresses: addresses.into(),
        }
    }

    /// The hop with the domain that its certificate must be for.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.remote)?;
        match &self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// Where a message came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// What carried the message.
    pub protocol: Protocol,
    /// The other side: authenticated if it is a peer, the sender's word if it is a datagram's address.
    pub remote: Remote,
    /// Our side of the socket; unspecified for an overlay stream.
    pub local: SocketAddr,
    /// What it came on.
    pub flow: FlowId,
    /// The domains that the other side's TLS certificate proves (RFC 5922 §7.1), in lower case; none without a
    /// certificate that was verified.
    pub domains: Arc<[String]>,
}

impl Source {
    /// From an address and port, at our socket `local`.
    pub fn socket(protocol: Protocol, remote: SocketAddr, local: SocketAddr, flow: FlowId) -> Self {
        Self { protocol, remote: Remote::socket(remote), local: unmapped(local), flow, domains: Arc::default() }
    }

    /// From a peer of the overlay.
    pub fn peer(peer: PeerId, flow: FlowId) -> Self {
        let local = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self { protocol: Protocol::Overlay, remote: Remote::Peer(peer), local, flow, domains: Arc::default() }
    }

    /// The way back as it came: on the same flow, or else to the same address. Of a response only if the request's
    /// Via has `rport`; [`response_target`] is right for all.
    pub fn way_back(&self) -> Hop {
        Hop {
            protocol: self.protocol,
            remote: self.remote,
            name: None,
            local: matches!(self.remote, Remote::Socket(_)).then_some(self.local),
            flow: Some(self.flow),
            addresses: Arc::default(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_in_any_case() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_token(protocol.token().as_bytes()), Some(protocol));
            assert_eq!(protocol.token().to_lowercase().parse(), Ok(protocol));
        }
        assert_eq!("sctp".parse::<Protocol>(), Err(UnknownProtocol));
        assert_eq!(Protocol::from_token(b""), None);
    }

    #[test]
    fn an_ipv4_address_is_never_an_ipv6_one() {
        let mapped = "[::ffff:192.0.2.1]:5060".parse().unwrap();
        assert_eq!(Remote::socket(mapped).to_string(), "192.0.2.1:5060");
        let source = Source::socket(Protocol::Udp, mapped, mapped, FlowId(1));
        assert_eq!(source.way_back().remote, Hop::socket(Protocol::Udp, "192.0.2.1:5060".parse().unwrap()).remote);
        assert_eq!(unmapped("[2001:db8::1]:1".parse().unwrap()).to_string(), "[2001:db8::1]:1");
    }

    #[test]
    fn a_hop_says_where_it_goes() {
        let hop = Hop::socket(Protocol::Tls, "[2001:db8::1]:5061".parse().unwrap()).named("example.com");
        assert_eq!(hop.to_string(), "TLS [2001:db8::1]:5061 (example.com)");
        let peer = PeerId::from_public_key([3; 32]);
        assert_eq!(Hop::peer(peer, []).to_string(), format!("OVERLAY {peer}"));
    }
}
