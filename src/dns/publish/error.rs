//! Why something could not be published.

use std::net::SocketAddr;

use crate::{
    dns::{DnsError, update::Refusal},
    kind::Kind,
};

/// Why a proxy peer's records could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A name or text does not fit the DNS, or the DNS cannot be asked at all.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// A key file cannot be used.
    #[error("the key file {path} cannot be used: {why}")]
    KeyFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server does not hold the zone.
    #[error("{server} holds no zone for {name}: {why}; name its primary server with --server")]
    NoZone {
        /// The overlay identifier.
        name: String,
        /// Who was asked.
        server: SocketAddr,
        /// What it said.
        why: String,
    },
    /// Something cannot be published as it is.
    #[error("{what} cannot be published: {why}")]
    Unfit {
        /// A host, an address, a port, a lease.
        what: String,
        /// Why not, and what to do.
        why: String,
    },
    /// Somebody else has the host's name.
    #[error("{host} is not ours: {why}")]
    NotOurs {
        /// The host.
        host: String,
        /// Whose it is, and what to do.
        why: String,
    },
    /// Somebody else has changed the same records meanwhile. Nothing was written.
    #[error("{host} was changed by another publisher meanwhile, and nothing was written; look with p2p-publish list")]
    Conflict {
        /// The host.
        host: String,
    },
    /// There is nothing to be removed.
    #[error("{host} is not published in {overlay}")]
    NotPublished {
        /// The host.
        host: String,
        /// The overlay.
        overlay: String,
    },
    /// The server has refused the update. The zone is as it was.
    #[error("{server} refused the update of {zone}: {refusal}")]
    Refused {
        /// The server.
        server: SocketAddr,
        /// The zone.
        zone: String,
        /// Why.
        refusal: Refusal,
    },
    /// The server has taken the update, but not all of it: quotas do that (BIND's `A(2)`). What there was before has been
    /// put back.
    #[error("{server} took the update of {zone} without {missing}; its policy may limit how many records a name has")]
    Dropped {
        /// The server.
        server: SocketAddr,
        /// The zone.
        zone: String,
        /// The first records that are missing.
        missing: String,
    },
    /// The server could not be asked.
    #[error("no answer from the name server {server}: {why}; check the address given with --server")]
    NoServer {
        /// The server.
        server: SocketAddr,
        /// Why not.
        why: String,
    },
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    NoEntropy,
}

impl PublishError {
    /// What sort of failure this is; the exit code follows from it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Dns(error) => error.kind(),
            Self::KeyFile { .. } | Self::NoZone { .. } | Self::Unfit { .. } => Kind::Usage,
            Self::NotOurs { .. }
            | Self::Conflict { .. }
            | Self::NotPublished { .. }
            | Self::Refused { .. }
            | Self::Dropped { .. } => Kind::Negative,
            Self::NoServer { .. } => Kind::Unreachable,
            Self::NoEntropy => Kind::Local,
        }
    }
}
