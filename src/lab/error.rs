//! Why a world could not be built.

use std::path::PathBuf;

use super::LabOptions;
use crate::{
    dns::{DnsError, PublishError},
    identity::IdentityError,
    kind::Kind,
    member::{MemberError, OfferError, ProxyError},
    name::NameError,
    ops::OpsError,
    sip::transport::TransportError,
};

/// Why the world could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Too few members for the users and services.
    #[error("{members} members are too few for the lab: it takes at least {}", LabOptions::MIN_MEMBERS)]
    TooSmall {
        /// What was asked for.
        members: usize,
    },
    /// The folder cannot be made.
    #[error("cannot make the lab's folder {path}: {why}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        why: std::io::Error,
    },
    /// A name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Keys and certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A member.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The DNS.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// The key with which the zone is changed.
    #[error("no key for the lab's DNS: {why}")]
    DnsKey {
        /// Why there is none.
        why: String,
    },
    /// A service.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// A proxy peer.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Its records in the DNS.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The sockets of a domain.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A phone.
    #[error("{user} has no phone: {why}")]
    Phone {
        /// Whose.
        user: String,
        /// Why not.
        why: Box<OpsError>,
    },
    /// The operating system gives no random numbers.
    #[error("no random numbers: {why}")]
    Random {
        /// What it says.
        why: String,
    },
    /// The members did not find each other.
    #[error("after {seconds} s {alone} members of the lab still know too few others")]
    Unsettled {
        /// How long was waited.
        seconds: u64,
        /// How many members are too much alone.
        alone: usize,
    },
}

impl LabError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::TooSmall { .. } => Kind::Usage,
            Self::Name(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Member(error) => error.kind(),
            Self::Dns(error) => error.kind(),
            Self::Offer(error) => error.kind(),
            Self::Proxy(error) => error.kind(),
            Self::Publish(error) => error.kind(),
            Self::Transport(error) => error.kind(),
            Self::Phone { why, .. } => why.kind(),
            Self::DnsKey { .. } | Self::Folder { .. } | Self::Random { .. } | Self::Unsettled { .. } => Kind::Local,
        }
    }
}
