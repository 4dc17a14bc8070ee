//! Why a member does not start.

use crate::{
    kind::Kind,
    name::OverlayId,
    overlay::{persist::PersistError, socket::SocketError, swarm::NetworkError},
};

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The swarm cannot run.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The unix socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The store cannot be opened.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// None of the given peers answers.
    #[error("no member of {overlay} could be reached: {tried}; check --peer, or start the first member without it")]
    NobodyToJoin {
        /// The overlay.
        overlay: OverlayId,
        /// Each peer tried, and why it did not do.
        tried: String,
    },
    /// The given peers belong to something else.
    #[error(
        "the peers given are not members of {overlay} as its descriptor describes it: {tried}; \
         compare the descriptors with p2p-enroll show"
    )]
    OtherOverlay {
        /// The overlay.
        overlay: OverlayId,
        /// Each peer tried, and why it did not do.
        tried: String,
    },
}

impl MemberError {
    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Network(error) => error.kind(),
            Self::Socket(error) => error.kind(),
            Self::Persist(error) => error.kind(),
            Self::NobodyToJoin { .. } => Kind::Unreachable,
            Self::OtherOverlay { .. } => Kind::Untrusted,
        }
    }
}
