//! Where the servers of a SIP or SIPS URI are (RFC 3263): NAPTR, SRV with RFC 2782's order, addresses of both
//! families (RFC 7984), and what to try when one of them fails.
//!
//! - [`Locate`] is the pure core: it says which questions it has for the DNS, takes the answers, and yields targets one
//!   by one, each when it is needed. It writes down the [`Step`]s that led there.
//! - [`Locator`] drives it over a [`Resolver`](super::Resolver) and remembers which targets have failed
//!   ([`BadTargets`]): those are tried last, for a while.
//! - [`Query::for_response`] is §5, the way back when the connection on which a request came is gone.
//!
//! ```text
//! host is an address ───────────────────────────────► the target (§4.2)
//! port given ───────────────────────────────────────► A, AAAA of the host
//! transport given ─► SRV of that transport ─┐
//! NAPTR ─► SRV of each replacement ─────────┤
//!   └ none ─► SRV of each transport we have ┤
//!                      └ no SRV at all ─────┴─────────► A, AAAA
//! ```
//!
//! What the DNS says is checked before it is followed: rules with a regular expression, services of other protocols,
//! targets that are addresses, port 0, addresses that no unicast packet can go to; and everything has a limit.

mod bad;
mod driver;
mod machine;
mod order;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use bad::{BadTargets, Failure};
pub use driver::{Location, Locator, Search, has_no_route};
pub use machine::{Locate, Next};
pub use order::Random;

use super::{Family, Origin, RrSet, RrType};

/// The most questions asked for one location.
pub const MAX_QUESTIONS: usize = 40;
/// The most targets of one location.
pub const MAX_TARGETS: usize = 64;
/// The most NAPTR rules followed.
pub const MAX_RULES: usize = 8;
/// The most SRV records of one set that are followed.
pub const MAX_SERVERS: usize = 32;
/// The most addresses of one family and host that are used.
pub const MAX_ADDRESSES: usize = 8;

/// A transport protocol of SIP, here: the ones that can be located.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    /// The port without a number in URI or DNS (RFC 3261 §19.1.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }

    /// The transport of this name, in lower case: `udp`, `tcp` or `tls`.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Udp, Self::Tcp, Self::Tls].into_iter().find(|transport| transport.to_string() == name)
    }

    /// The labels before a domain under which its SRV records are (RFC 3263 §4.2).
    pub const fn srv_labels(self) -> &'static str {
        match self {
            Self::Udp => "_sip._udp",
            Self::Tcp => "_sip._tcp",
            Self::Tls => "_sips._tcp",
        }
    }

    /// The transport that a NAPTR service stands for (RFC 3263 §4.1).
    fn of_service(service: &str) -> Option<Self> {
        [("SIP+D2U", Self::Udp), ("SIP+D2T", Self::Tcp), ("SIPS+D2T", Self::Tls)]
            .into_iter()
            .find_map(|(name, transport)| service.eq_ignore_ascii_case(name).then_some(transport))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// The host of a URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A domain name.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Host {
    /// An address, IPv6 with or without brackets, or else a name.
    pub fn parse(text: &str) -> Self {
        match super::resolver::parse_literal(text) {
            Some(address) => Self::Address(address),
            None => Self::Name(text.trim_end_matches('.').to_ascii_lowercase()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What is to be located: the parts of a URI that count. A `transport=` of a protocol that is not a [`Transport`] is
/// for the caller to refuse.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// Whether the scheme is `sips:`, by which only TLS will do.
    pub secure: bool,
    /// The host.
    pub host: Host,
    /// The port, if there is one.
    pub port: Option<u16>,
    /// The `transport` parameter. Of `sips:`, `tcp` means TLS over TCP.
    pub transport: Option<Transport>,
    /// The `maddr` parameter, which is located in place of the host.
    pub maddr: Option<Host>,
}

impl Query {
    /// The query for a URI that has only a host.
    pub fn of_host(host: Host) -> Self {
        Self { secure: false, host, port: None, transport: None, maddr: None }
    }

    /// Where to send a response when the connection on which the request came is gone (RFC 3263 §5): the topmost
    /// Via's `sent-by` and its transport. Unlike for requests, the transport is settled, so NAPTR has no say.
    pub const fn for_response(host: Host, port: Option<u16>, transport: Transport) -> Self {
        Self { secure: matches!(transport, Transport::Tls), host, port, transport: Some(transport), maddr: None }
    }
}

/// A place to send a request to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
    /// Whom a TLS certificate has to name: the URI's host, whatever the DNS made of it (RFC 5922 §4).
    pub name: String,
    /// What led there.
    pub via: Via,
}

/// What led to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// The address stands in the URI.
    Literal,
    /// The addresses of the URI's own host.
    Host {
        /// The host.
        host: String,
    },
    /// A NAPTR rule that leads to a host without SRV.
    Naptr {
        /// The host.
        host: String,
    },
    /// An SRV record.
    Srv {
        /// The owner of the record.
        owner: String,
        /// Its priority.
        priority: u16,
        /// Its weight.
        weight: u16,
        /// The host that it names.
        host: String,
    },
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal => f.write_str("the URI says so"),
            Self::Host { host } => write!(f, "address of {host}"),
            Self::Naptr { host } => write!(f, "NAPTR names {host}"),
            Self::Srv { owner, priority, weight, host } => {
                write!(f, "SRV {owner}: {host}, priority {priority}, weight {weight}")
            }
        }
    }
}

/// A question to the DNS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The name in lower case, without the root's dot.
    pub name: String,
    /// The type of the records.
    pub kind: RrType,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What the DNS answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Records of the type asked for.
    Records(RrSet),
    /// The name exists without such records (RFC 2308 §2.2).
    NoRecords,
    /// The name does not exist (RFC 2308 §2.1), nor does anything below it (RFC 8020).
    NoName,
    /// Nobody could tell; says why.
    Unanswered(String),
}

/// An answer, and how it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub finding: Finding,
    /// Other sets that came with it: the additional section.
    pub additional: Vec<(Question, RrSet)>,
    /// Where it came from.
    pub origin: Origin,
    /// How long it took.
    pub took: Duration,
}

/// A step on the way to the targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A rule was applied; says which, and where it stands.
    Decided(String),
    /// A question was answered.
    Asked {
        /// The question.
        question: Question,
        /// What was found.
        finding: Finding,
        /// Where the answer came from.
        origin: Origin,
        /// How long it took.
        took: Duration,
    },
    /// A record was passed over.
    Ignored {
        /// Its data.
        record: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What a location has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is at least one target.
    Found,
    /// The domain does not exist.
    NoDomain,
    /// The domain exists and has no SIP server that could be used.
    NoServer,
    /// The DNS has not answered what would have decided it.
    Unanswered,
}

/// How to choose among what there is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The transports that we have, the preferred one first: it settles what a domain without NAPTR leaves open.
    pub transports: Vec<Transport>,
    /// Which addresses may be used.
    pub family: Family,
    /// Whether there is no way to an address, so that it is best tried last (RFC 6724 §6, rule 1).
    pub unreachable: fn(IpAddr) -> bool,
}

impl Default for Options {
    /// UDP, TCP, TLS; every address.
    fn default() -> Self {
        Self {
            transports: vec![Transport::Udp, Transport::Tcp, Transport::Tls],
            family: Family::Any,
            unreachable: |_| false,
        }
    }
}
