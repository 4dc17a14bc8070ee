//! What the transports listen on, how much they take, and how they fail.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{Hop, Protocol, overlay::OverlayPort, tls::TlsFiles, via::MAX_DATAGRAM};
use crate::{kind::Kind, sip::tap::Tap};

/// What to listen on, and within which limits.
#[derive(Default)]
pub struct Config {
    /// Where to listen: UDP, TCP and TLS. Port 0 takes any that is free.
    pub listen: Vec<(Protocol, SocketAddr)>,
    /// Sockets for each UDP address, so that as many threads can each read one; 0 counts as 1. More than one takes
    /// `SO_REUSEPORT`: the kernel gives all datagrams of one source to the same socket.
    pub udp_shards: usize,
    /// Certificates; without them TLS can be dialled with the system's roots, but not listened on.
    pub tls: TlsFiles,
    /// Streams of the overlay, if SIP is spoken there.
    pub overlay: Option<OverlayPort>,
    /// The limits.
    pub limits: Limits,
    /// Who listens in, if anybody: not on UDP sockets that somebody else reads.
    pub tap: Option<Tap>,
}

/// How much, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections and streams at a time, both ways.
    pub connections: usize,
    /// Accepted connections of one IPv4 address, or of one IPv6 /64.
    pub connections_per_source: usize,
    /// Octets of a message's body on a connection.
    pub body: usize,
    /// Octets of a request that may go in a datagram; a longer one leaves over TCP ([`over_tcp`](super::over_tcp)).
    pub datagram: usize,
    /// Messages that wait to be written to one connection.
    pub queued_messages: usize,
    /// Octets that wait to be written to one connection.
    pub queued_octets: usize,
    /// Received messages and other events that wait for their reader.
    pub events: usize,
    /// From dialling to the end of the handshake, and an accepted connection's handshake.
    pub connect: Duration,
    /// From a message's first octet to its last.
    pub message_time: Duration,
    /// How long the other side may read nothing of what is sent to it.
    pub write: Duration,
    /// How long a connection is kept that carries nothing. Longer than any transaction of RFC 3261 §17 but INVITE's.
    pub idle: Duration,
    /// How often CRLFCRLF keeps a connection that we opened alive (RFC 5626 §3.5.1), if at all.
    pub keep_alive: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_source: 128,
            body: 65_535,
            datagram: MAX_DATAGRAM,
            queued_messages: 512,
            queued_octets: 1 << 20,
            events: 1024,
            connect: Duration::from_secs(5),
            message_time: Duration::from_secs(10),
            write: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            keep_alive: None,
        }
    }
}

/// Why the transports did not start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// An address that cannot be bound.
    #[error("cannot listen for SIP on {protocol} {address}: {why}; choose another address or port")]
    Listen {
        /// The transport.
        protocol: Protocol,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        why: Arc<io::Error>,
    },
    /// A certificate, key or list of roots that cannot be used.
    #[error("cannot use {path} for SIP over TLS: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// TLS without a certificate.
    #[error("cannot listen for SIP on TLS {address} without a certificate and its key")]
    NoCertificate {
        /// The address.
        address: SocketAddr,
    },
    /// The certificate and key cannot be used.
    #[error("cannot set up SIP over TLS: {why}")]
    Tls {
        /// What is wrong.
        why: String,
    },
}

impl TransportError {
    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NoCertificate { .. } => Kind::Usage,
            Self::Listen { .. } | Self::File { .. } | Self::Tls { .. } => Kind::Local,
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// This transport, or this family of addresses, is not spoken here.
    #[error("cannot send to {hop}: no socket for it here")]
    NoSocket {
        /// Where it was to go.
        hop: Box<Hop>,
    },
    /// No connection, or one that broke; or a datagram that could not leave.
    #[error("cannot send to {hop}: {why}")]
    Unreachable {
        /// Where it was to go.
        hop: Box<Hop>,
        /// Why not.
        why: String,
    },
    /// The other side's certificate is not one for the domain that was meant.
    #[error("cannot send to {hop}: its certificate is not to be trusted: {why}")]
    Untrusted {
        /// Where it was to go.
        hop: Box<Hop>,
        /// What is wrong with it.
        why: String,
    },
    /// The other side does not read what is sent to it.
    #[error("cannot send to {hop}: it does not keep up with what is sent to it")]
    Stalled {
        /// Where it was to go.
        hop: Box<Hop>,
    },
    /// A message longer than the transport carries.
    #[error("cannot send to {hop}: {octets} octets are too long for it")]
    TooLong {
        /// Where it was to go.
        hop: Box<Hop>,
        /// The message's length.
        octets: usize,
    },
    /// Too many connections are open.
    #[error("cannot send to {hop}: too many connections are open here")]
    Crowded {
        /// Where it was to go.
        hop: Box<Hop>,
    },
}

impl SendError {
    /// Where it was to go.
    pub const fn hop(&self) -> &Hop {
        match self {
            Self::NoSocket { hop }
            | Self::Unreachable { hop, .. }
            | Self::Untrusted { hop, .. }
            | Self::Stalled { hop }
            | Self::TooLong { hop, .. }
            | Self::Crowded { hop } => hop,
        }
    }

    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Untrusted { .. } => Kind::Untrusted,
            Self::NoSocket { .. } | Self::TooLong { .. } | Self::Crowded { .. } => Kind::Local,
            Self::Unreachable { .. } | Self::Stalled { .. } => Kind::Unreachable,
        }
    }
}
