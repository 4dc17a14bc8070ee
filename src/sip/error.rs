//! Why octets are not the SIP that they should be.

use super::{MAX_HEAD, MAX_HEADERS};
use crate::kind::Kind;

/// Why octets are not the SIP message, header value or URI they should be.
///
/// Small and without copies of the input: a flood of bad messages costs no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Nothing but line ends; on a datagram transport a keep-alive (RFC 5626 §3.5.1).
    #[error("the SIP message is empty")]
    Empty,
    /// The start line is neither a Request-Line nor a Status-Line (RFC 3261 §7.1, §7.2).
    #[error("bad start line in a SIP message: {0}")]
    StartLine(&'static str),
    /// A header line without a name or a colon, or with a stray CR or LF (RFC 3261 §7.3.1).
    #[error("bad header line {line} in a SIP message: {why}")]
    HeaderLine {
        /// Counted from 1, the start line being 0; folded lines count as one.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No empty line ends the headers.
    #[error("a SIP message ends before its headers do: the empty line is missing")]
    Unfinished,
    /// Start line and headers are longer than [`MAX_HEAD`].
    #[error("the headers of a SIP message are longer than {MAX_HEAD} octets")]
    HeadTooLong,
    /// More header lines than [`MAX_HEADERS`].
    #[error("a SIP message has more than {MAX_HEADERS} header lines")]
    TooManyHeaders,
    /// The body cannot be delimited (RFC 3261 §18.3).
    #[error("bad Content-Length in a SIP message: {0}")]
    ContentLength(&'static str),
    /// A header field that was asked for is not there.
    #[error("a SIP message has no {0} header field")]
    Missing(&'static str),
    /// A header field's value is not what its grammar says (RFC 3261 §25.1).
    #[error("bad {name} header field in a SIP message: {why}")]
    Value {
        /// The header field.
        name: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not a URI (RFC 3261 §19.1.1, RFC 3986 §3).
    #[error("bad URI: {0}")]
    Uri(&'static str),
}

impl ParseError {
    /// [`Kind::Usage`] for a URI, which a user may have typed; [`Kind::Untrusted`] for what came from the network.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Uri(_) => Kind::Usage,
            _ => Kind::Untrusted,
        }
    }
}
