//! The overlay: who its members are, where records live, how they are found. The only user of libp2p.
//!
//! The protocol logic is pure and driven from outside: [`storer`] decides what a peer keeps and answers, [`walk`],
//! [`lookup`] and [`placement`] decide whom to ask next. [`swarm`] brings octets in and out, [`socket`] does the same
//! for programs on this machine, [`drive`] runs the pure machines over either; [`memory`] is a whole overlay without a
//! network, which runs them under virtual time.
//!
//! All that is asked of an overlay is [`Overlay`]: to insert and to retrieve routing information bound to a URI
//! (draft §1, R1).

pub mod addresses;
pub mod drive;
pub mod limits;
pub mod lookup;
pub mod memory;
pub mod persist;
pub mod placement;
pub mod reach;
pub mod redir;
mod respond;
mod scatter;
pub mod socket;
pub mod storer;
pub mod swarm;
pub mod table;
pub mod walk;

pub use respond::{Answer, Caller, Responder};

use crate::{
    client::{Lookup, LookupReply, Put, PutReply},
    kind::Kind,
    record::Refusal,
};

/// An overlay as the draft sees it (§1, R1): it keeps what is bound to a URI, and returns it.
pub trait Overlay {
    /// Has the peers responsible for the record keep it.
    ///
    /// # Errors
    /// [`OverlayError`], if nobody could be asked at all. What the storers said is in the reply.
    fn put(&self, put: Put) -> impl Future<Output = Result<PutReply, OverlayError>> + Send;

    /// Looks up what is bound to a name. That there is nothing is an answer and no error: see
    /// [`Verdict`](crate::client::Verdict).
    ///
    /// # Errors
    /// [`OverlayError`], if nobody could be asked at all.
    fn lookup(&self, lookup: Lookup) -> impl Future<Output = Result<LookupReply, OverlayError>> + Send;
}

/// Why an overlay could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// The caller's own record is not one that any storer would keep.
    #[error("the record cannot be stored: {0}")]
    Refused(Refusal),
    /// The overlay is not there.
    #[error("the overlay cannot be asked: {why}")]
    Unavailable {
        /// Why not, and what to do.
        why: String,
    },
}

impl OverlayError {
    /// The kind of failure: that of the refusal, or [`Kind::Unreachable`].
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::Unavailable { .. } => Kind::Unreachable,
        }
    }
}
