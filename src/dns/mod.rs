//! The DNS: what an overlay publishes there, and the questions that tools ask it.
//!
//! The only module that uses hickory; nothing above it sees one of its types.
//!
//! - [`Resolver`] asks name servers, each on its own, so that an error can say which of them did what.
//! - [`locate`] finds the servers of a SIP or SIPS URI (RFC 3263).
//! - [`find_peers`] and [`find_descriptor`] read the two TXT records by which an overlay is joined; their texts are
//!   rendered by [`dnsaddr_text`] and [`DescriptorPointer`].
//! - [`resolve_multiaddr_host`] replaces the domain name of a multiaddr by addresses.
//! - [`DnsServer`] is a small authoritative name server on loopback, for the lab and for tests.
//!
//! DNSSEC: nothing is validated here, so every [`Answer`] is unauthenticated. The AD bit of a response is not looked
//! at: it is the word of whoever sent the response, over a path that nothing protects. hickory's validator can be put
//! around [`exchange`], and then [`Answer::authenticated`] becomes "every record was proven secure". A server for a
//! private zone has no chain of trust from the root, so validation must remain an option.

mod bootstrap;
mod cache;
mod data;
mod exchange;
pub mod locate;
mod multiaddr;
pub mod publish;
mod resolver;
mod rrset;
mod server;
mod tsig;
mod update;

use std::{io, net::SocketAddr};

pub use bootstrap::{
    DescriptorPointer, MAX_ADDRESS, MAX_ENTRIES, Published, Skipped, descriptor_owner, dnsaddr_owner, dnsaddr_text,
    find_descriptor, find_peers, parse_descriptor, parse_peers,
};
pub use data::{Data, DataKind, DnsRecord};
pub use multiaddr::resolve_multiaddr_host;
pub use publish::PublishError;
pub use resolver::{Answer, Family, Origin, Resolver, parse_server};
pub use rrset::{Naptr, RrSet, RrType, Srv};
pub use server::{DnsServer, Grant, Zone};
pub use tsig::{FUDGE, TsigKey};
pub use update::{Change, Prerequisite, Refusal, Update};

use crate::kind::Kind;

/// Why a question to the DNS has no usable answer, or why the embedded server cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// NXDOMAIN: nothing exists under that name (RFC 2308 §2.1).
    #[error("{name} does not exist in the DNS; check its spelling, or publish it")]
    NxDomain {
        /// The name asked about.
        name: String,
    },
    /// NODATA: the name exists, but not with a record of the type asked for (RFC 2308 §2.2).
    #[error("{name} exists in the DNS but has no {record} record")]
    NoData {
        /// The name asked about.
        name: String,
        /// The type asked for.
        record: &'static str,
    },
    /// The name has records of that type, and none of them is what it should be.
    #[error("{name} has {record} records but none that says what it should: {why} ({skipped} skipped)")]
    Unusable {
        /// The name asked about.
        name: String,
        /// The type asked for.
        record: &'static str,
        /// How many records were passed over.
        skipped: usize,
        /// What is wrong with the first of them.
        why: &'static str,
    },
    /// Several records contradict each other, and nothing tells which one is true.
    #[error("{name} publishes {count} different descriptors; only its operator can say which one is right")]
    Ambiguous {
        /// The name asked about.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// A server answered, but with an error, and no other one answered better.
    #[error("{server} answered {code} when asked for {name} {record}: {meaning}; ask another server with --dns")]
    ServerFailure {
        /// The name asked about.
        name: String,
        /// The type asked for.
        record: &'static str,
        /// Who answered.
        server: SocketAddr,
        /// The response code's mnemonic, e.g. `REFUSED`.
        code: String,
        /// What the code means, in words.
        meaning: &'static str,
    },
    /// No server answered in time.
    #[error("no answer from {} when asked for {name} {record}; check the network, or give other servers with --dns", list(.servers))]
    NoServer {
        /// The name asked about.
        name: String,
        /// The type asked for.
        record: &'static str,
        /// Who was asked.
        servers: Vec<SocketAddr>,
    },
    /// A server's response cannot be understood.
    #[error("the response of {server} when asked for {name} {record} is broken: {why}; ask another server with --dns")]
    Malformed {
        /// The name asked about.
        name: String,
        /// The type asked for.
        record: &'static str,
        /// Who sent it.
        server: SocketAddr,
        /// What is wrong with it.
        why: String,
    },
    /// The system names no server that could be asked.
    #[error("the system's DNS configuration names no server to ask: {why}; give one with --dns")]
    NotConfigured {
        /// What is wrong with the configuration.
        why: String,
    },
    /// Not a name, address or text that could be asked for or published.
    #[error("'{text}' cannot be used in the DNS: {why}")]
    Invalid {
        /// The text as given, shortened.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A URI that leads nowhere, whatever the DNS says.
    #[error("{host} cannot be reached as asked: {why}; give another transport or port")]
    Unlocatable {
        /// The URI's host.
        host: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The embedded server cannot listen there.
    #[error("cannot serve DNS on {address}: {cause}; choose another address, or port 0 for any free one")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// Why it cannot.
        cause: io::Error,
    },
}

impl DnsError {
    /// [`Kind::Negative`] only if a server has said that there is nothing (usable); a server that fails, refuses or
    /// babbles has not said so, which makes it [`Kind::Unreachable`].
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NxDomain { .. } | Self::NoData { .. } | Self::Unusable { .. } => Kind::Negative,
            Self::Ambiguous { .. } => Kind::Untrusted,
            Self::ServerFailure { .. }
            | Self::NoServer { .. }
            | Self::Malformed { .. }
            | Self::NotConfigured { .. } => Kind::Unreachable,
            Self::Invalid { .. } | Self::Unlocatable { .. } => Kind::Usage,
            Self::Listen { .. } => Kind::Local,
        }
    }
}

/// An [`DnsError::Invalid`] about a text that may be long or unprintable.
fn invalid(text: &str, why: &'static str) -> DnsError {
    DnsError::Invalid { text: excerpt(text), why }
}

/// The beginning of a text from elsewhere, fit for a message of one line.
fn excerpt(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Shows addresses one after the other.
fn list(servers: &[SocketAddr]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
