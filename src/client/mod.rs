//! The client protocol: how clients, tools and peers ask a member (draft §3.3, §4.1; third open issue).
//!
//! A request is a [`RequestFrame`]: a version, the name of a service and a body. The same frames travel over an
//! overlay stream (`/p2psip/OVERLAY-HASH/client/1`) and over a member's unix socket, each preceded by its length as
//! four octets, most significant first. Bodies are CBOR; every call is a type that implements [`Call`], which ties
//! its service name to its reply. An unknown service or version is answered with an [`ErrorReply`] that says so.
//!
//! Pure: types and a codec, no sockets.

mod calls;
mod frame;
pub mod gatekeeper;

pub use calls::*;
pub use frame::*;
