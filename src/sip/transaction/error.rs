//! Why the layer does not send what its TU wants to send.

use crate::kind::Kind;

/// Why a request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The table is full.
    #[error("a SIP request was not sent: there are too many transactions; try again later")]
    Full,
    /// An ACK has no transaction, and a branch no two requests with the same method.
    #[error("a SIP request was not sent: an ACK has no transaction, and every other request needs a new branch")]
    NoTransaction,
}

impl RequestError {
    /// Local: the network was not asked.
    pub const fn kind(&self) -> Kind {
        Kind::Local
    }
}

/// Why a response was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RespondError {
    /// The transaction has ended, or has another final response.
    #[error("a SIP response was not sent: its transaction is over or has a final response")]
    Late,
    /// RFC 4320 §4 forbids it: a 408, or a provisional response other than 100, to a request that is no INVITE.
    #[error("a SIP response was not sent: a request other than INVITE is answered neither with 408 nor with 101-199")]
    Forbidden,
    /// The octets do not begin as a response does.
    #[error("a SIP response was not sent: it has no status line")]
    NoResponse,
}

impl RespondError {
    /// Local: the network was not asked.
    pub const fn kind(&self) -> Kind {
        Kind::Local
    }
}
