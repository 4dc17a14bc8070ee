//! Why a use case failed, and what to do about it.

use std::path::PathBuf;

use crate::{
    dns::{DnsError, PublishError},
    identity::IdentityError,
    kind::Kind,
    member::{GatekeeperError, MemberError, MetricsError, PhonesError, ProxyError},
    name::{InstanceId, NameError, OverlayId, PeerId},
    overlay::{
        socket::SocketError,
        swarm::{AskError, NetworkError},
    },
    record::RecordError,
    sip::transport::TransportError,
};

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// A name that means nothing, or belongs elsewhere.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Keys, certificates, descriptor or home.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The DNS.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// Publication in the DNS.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Nothing says by which right the DNS is to be changed.
    #[error("no key: give the file with the zone's TSIG key with --key")]
    NoKey,
    /// The local member's socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The swarm of this process.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The member that was to run in this process.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The member cannot be a proxy peer.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The member cannot be a gatekeeper.
    #[error(transparent)]
    Gatekeeper(#[from] GatekeeperError),
    /// The file of an adapter's phones.
    #[error(transparent)]
    Phones(#[from] PhonesError),
    /// Metrics cannot be served.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The task of the member in this process has died.
    #[error("the member in this process has ended unexpectedly; please report what was logged before")]
    NotJoined,
    /// A record that cannot be made.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The sockets of SIP.
    #[error(transparent)]
    Sip(#[from] TransportError),
    /// A SIP URI that cannot be called.
    #[error("'{text}' cannot be called: {why}; write one like sip:bob@example.com")]
    NotCallable {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The routing record of this process was not stored.
    #[error("{aor} cannot be reached here: {why}")]
    NotRegistered {
        /// The user.
        aor: String,
        /// Why not.
        why: String,
        /// What sort of failure it is.
        kind: Kind,
    },
    /// The capture cannot be written.
    #[error("cannot write the capture {path}: {why}")]
    Capture {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        why: std::io::Error,
    },
    /// A peer address that cannot be used.
    #[error("'{text}' is not a peer's address: {why}; write one like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…")]
    PeerAddress {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is not said which overlay is meant.
    #[error("which overlay? give --overlay or set P2PSIP_OVERLAY, or use a home that has a descriptor")]
    WhichOverlay,
    /// There is a descriptor, of another overlay.
    #[error("the descriptor {path} is that of {found}, not of {wanted}")]
    OtherDescriptor {
        /// Its file.
        path: PathBuf,
        /// The overlay that it describes.
        found: OverlayId,
        /// The overlay that is wanted.
        wanted: OverlayId,
    },
    /// Nobody has said what the overlay is, and nobody who may say it could be asked.
    #[error(
        "the descriptor of {overlay} is not known and cannot be trusted from a peer's word alone ({why}); \
         give it with --descriptor, or publish its hash at _p2psip.{overlay}"
    )]
    UnknownDescriptor {
        /// The overlay.
        overlay: OverlayId,
        /// Why the DNS does not tell.
        why: String,
    },
    /// The overlay has another descriptor than it had.
    #[error(
        "the descriptor of {overlay} has changed: {known} was trusted before, the DNS now names {published}; \
         if its operator confirms the change, give the new one with --descriptor"
    )]
    DescriptorChanged {
        /// The overlay.
        overlay: OverlayId,
        /// The hash trusted so far.
        known: String,
        /// The hash in the DNS.
        published: String,
    },
    /// A peer's descriptor is not the one whose hash is known.
    #[error("{peer} offers a descriptor of {overlay} with another hash than {expected}")]
    ForgedDescriptor {
        /// The overlay.
        overlay: OverlayId,
        /// Who offered it.
        peer: String,
        /// The hash that was expected.
        expected: String,
    },
    /// There is no way into the overlay.
    #[error("nobody to ask in {overlay}: {why}")]
    NobodyToAsk {
        /// The overlay.
        overlay: OverlayId,
        /// What was tried.
        why: String,
    },
    /// A peer did not do what it was asked.
    #[error("{peer}: {error}")]
    Ask {
        /// The peer.
        peer: String,
        /// Why not.
        error: AskError,
    },
    /// It took too long.
    #[error("no answer from {target} within {seconds} s; give more time with --timeout")]
    Timeout {
        /// Who was asked.
        target: String,
        /// The time allowed.
        seconds: f64,
    },
    /// A registration that binds to nothing.
    #[error(
        "nothing to bind {aor} to: no member runs on this machine; start one with p2p-join, \
         or give --contact URI, or --stay to be a member for as long as this command runs"
    )]
    NoContact {
        /// The AOR.
        aor: String,
    },
    /// No certificate covers the AOR.
    #[error(
        "{home} has no valid certificate for {name}; get one: p2p-enroll request {name}, \
         have it issued, then p2p-enroll install it"
    )]
    NoCredentials {
        /// The home.
        home: PathBuf,
        /// The name.
        name: String,
    },
    /// A registration for longer than the policy allows.
    #[error("{seconds} s is longer than the {max_seconds} s that {overlay} allows; give a smaller --expires")]
    TooLong {
        /// The overlay.
        overlay: OverlayId,
        /// What was asked for.
        seconds: u64,
        /// The policy's limit.
        max_seconds: u64,
    },
    /// There is no record of the instance that is meant.
    #[error("{name} has no record of the instance {instance}; see p2p-lookup --json {name}")]
    NotThere {
        /// The name.
        name: String,
        /// The instance.
        instance: InstanceId,
    },
    /// It is not known where a peer is.
    #[error("nobody knows where {peer} is; give an address as well, like /ip4/192.0.2.1/tcp/4001/p2p/{peer}")]
    WhereIsPeer {
        /// The peer.
        peer: PeerId,
    },
    /// A URI whose servers cannot be looked for.
    #[error("'{text}' cannot be located: {why}; write one like sip:bob@example.com or sip:example.com;transport=tcp")]
    PublicUri {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A URI that no public registrar can bind.
    #[error("'{text}' is no public address: {why}; write one like sip:alice@example.org")]
    PublicAor {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A contact that is no SIP URI.
    #[error("'{text}' is not a contact: {why}; write one like sip:alice@192.0.2.1:5060")]
    Contact {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

impl OpsError {
    /// What sort of failure this is; the exit code follows from it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Name(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Dns(error) => error.kind(),
            Self::Publish(error) => error.kind(),
            Self::Socket(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Member(error) => error.kind(),
            Self::Gatekeeper(error) => error.kind(),
            Self::Metrics(error) => error.kind(),
            Self::Proxy(error) => error.kind(),
            Self::Phones(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Sip(error) => error.kind(),
            Self::NotRegistered { kind, .. } => *kind,
            Self::Capture { .. } | Self::NotJoined => Kind::Local,
            Self::Ask { error, .. } => error.kind(),
            Self::PeerAddress { .. }
            | Self::NotCallable { .. }
            | Self::WhichOverlay
            | Self::NoKey
            | Self::OtherDescriptor { .. }
            | Self::NoContact { .. }
            | Self::NoCredentials { .. }
            | Self::TooLong { .. }
            | Self::PublicUri { .. }
            | Self::PublicAor { .. }
            | Self::Contact { .. } => Kind::Usage,
            Self::UnknownDescriptor { .. } | Self::DescriptorChanged { .. } | Self::ForgedDescriptor { .. } => {
                Kind::Untrusted
            }
            Self::NotThere { .. } | Self::WhereIsPeer { .. } => Kind::Negative,
            Self::NobodyToAsk { .. } | Self::Timeout { .. } => Kind::Unreachable,
        }
    }
}
