//! The proxy peer (draft §3.1): a SIP proxy between the overlay and the public network, stateful for each transaction
//! and never for a dialog (RFC 3261 §16).
//!
//! - [`route`] decides what becomes of a request. Pure.
//! - [`fork`] is the response context: which target is tried when, and which response goes back. Pure.
//! - [`engine`] is the proxy core over transactions. Sans-IO.
//! - [`throttle`] is how much one source may send. Pure.
//! - [`adapter`] is what ordinary phones register at, and are called through. Pure.

pub mod adapter;
pub mod engine;
pub mod fork;
pub mod route;
pub mod throttle;
