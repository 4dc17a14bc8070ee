//! The five ways in which an operation can fail, as its user sees them.
//!
//! Every error enum of this library has a `kind()`; a tool's exit code is nothing but that kind. Scripts branch on it:
//! "nobody to ask", "not found" and "found, but not to be trusted" are different answers.

use serde::{Deserialize, Serialize};

/// What sort of failure an error is; the exit code of a tool follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A negative answer: not found, declined, refused by everyone asked.
    Negative,
    /// Wrong usage or configuration: the caller must change what it asks for.
    Usage,
    /// Nobody to ask: no peer reachable, no network, no response in time.
    Unreachable,
    /// Found, but expired, forged, revoked or otherwise not to be trusted.
    Untrusted,
    /// A local failure: a port in use, a full disk, a missing permission.
    Local,
}

impl Kind {
    /// The process exit code for this kind (0 is success and 130 an interruption).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Negative => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Untrusted => 4,
            Self::Local => 5,
        }
    }
}
