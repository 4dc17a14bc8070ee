//! SIP alone (RFC 3261): messages as they are on the wire, and what is made of them.
//!
//! The message layer reads without copying and passes on without changing. A [`Message`] is the octets that came in and
//! an index of its header lines; typed views are parsed when somebody asks. [`edit::Edit`] changes single lines and
//! leaves every other octet alone, so a proxy forwards what it does not understand (RFC 3261 §16.6 step 2).
//!
//! ```
//! use bytes::Bytes;
//! use p2psip::sip::{Message, Method, edit::Edit, header::Name};
//!
//! let invite = Message::parse(Bytes::from_static(
//!     b"INVITE sip:bob@example.com SIP/2.0\r\n\
//!       v: SIP/2.0/UDP [2001:db8::9]:5062 ; branch = z9hG4bKa7\r\n\
//!       f: \"Alice\" <sip:alice@p2psip.org>;tag=88\r\n\
//!       t: sip:bob@example.com\r\n\
//!       i: 7@p2psip.org\r\n\
//!       CSeq: 1 INVITE\r\n\
//!       Max-Forwards: 70\r\n\r\n",
//! ))?;
//! assert_eq!(invite.method(), Method::Invite);
//! assert_eq!(invite.top_via()?.branch(), Some("z9hG4bKa7"));
//! assert_eq!(invite.from()?.tag(), Some("88"));
//!
//! let mut edit = Edit::new(&invite);
//! edit.set(Name::MaxForwards, "69");
//! edit.prepend(Name::RecordRoute, "<sip:p2psip.org;lr>");
//! let forwarded = Message::parse(edit.finish())?;
//! assert_eq!(forwarded.max_forwards()?, Some(69));
//! # Ok::<(), p2psip::sip::ParseError>(())
//! ```

pub mod capture;
mod check;
pub mod compose;
pub mod derive;
pub mod dialog;
pub mod digest;
pub mod edit;
mod error;
pub mod framing;
pub mod header;
mod message;
mod method;
pub mod respond;
mod scan;
mod status;
pub mod tap;
pub mod transaction;
pub mod transport;
pub mod uri;
mod views;

pub use check::Fault;
pub use error::ParseError;
pub use message::{MAX_HEAD, MAX_HEADERS, Message, Start};
pub use method::Method;
pub use status::reason_phrase;
