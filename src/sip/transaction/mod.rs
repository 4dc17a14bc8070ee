//! SIP transactions (RFC 3261 §17): what is sent again, until when, and which message belongs to which.
//!
//! A [`Layer`] is the transactions of one proxy or UA, without any I/O: messages, timeouts and the time are told to it,
//! and what is to be sent and known is taken from it. Its user (the TU of the RFC) is a proxy core or a UA.
//!
//! ```text
//!                  request, respond, cancel              Event
//!        TU ─────────────────────────────────▶ Layer ─────────────▶ TU
//!                  receive, transport_failed      │      Send
//! transport ─────────────────────────────────▶    │  ───────────────▶ transport
//!                  handle_timeout                 │
//!     clock ─────────────────────────────────▶    ▼  poll_timeout ──▶ clock
//! ```
//!
//! After every call, [`Layer::poll_output`] until there is nothing, then sleep until [`Layer::poll_timeout`].
//!
//! # The machines
//!
//! There are four, each in a module of its own with its diagram: clients and servers, of INVITE and of everything else.
//! They are pure functions of (state, input), and each has a test that lists all its transitions. They follow RFC 3261
//! §17 as amended:
//!
//! - RFC 6026: an INVITE that was answered with 2xx is *Accepted*, not gone, at both ends: the server absorbs
//!   retransmissions of the INVITE, the client passes every 2xx up (timers L and M). An error of the transport ends no
//!   server transaction of an INVITE.
//! - RFC 4320: what is no INVITE is never answered with 408, nor with a provisional response but 100, and with that not
//!   before a client's timer E has reached T2; then the server transaction does so by itself.
//! - RFC 4321 is why: a response that comes after the client's timer F does harm. So a server transaction whose TU says
//!   nothing ends silently after 64*T1.
//!
//! | timer | what | unreliable | reliable |
//! |---|---|---|---|
//! | A | INVITE again | T1, doubling | – |
//! | B | INVITE not answered | 64*T1 | 64*T1 |
//! | C | INVITE rings too long | the TU's: [`Layer::set_deadline`] | |
//! | D | absorb failures of an INVITE | 64*T1 | 0 |
//! | E | request again | T1, doubling to T2 | – |
//! | F | request not answered | 64*T1 | 64*T1 |
//! | G | failure of an INVITE again | T1, doubling to T2 | – |
//! | H | failure of an INVITE not acknowledged | 64*T1 | 64*T1 |
//! | I | absorb ACKs | T4 | 0 |
//! | J | absorb requests | 64*T1 | 0 |
//! | K | absorb responses | T4 | 0 |
//! | L | absorb INVITEs after a 2xx | 64*T1 | 64*T1 |
//! | M | pass up 2xx | 64*T1 | 64*T1 |
//!
//! # Outside of transactions
//!
//! The ACK of a 2xx belongs to none: [`Event::Ack`], and [`Layer::send`] to send one. What nobody asked for is handed up
//! as [`Event::StrayResponse`] and [`Event::StrayCancel`]; when the table is full, a new request is as
//! [`Event::Overload`]. None of these costs any memory that stays.
//!
//! # What bounds it
//!
//! Every transaction ends by a timer but two, which wait for somebody: an INVITE that rings at a client until its TU's
//! deadline, and one that the TU of a server has not answered. [`Config::max_transactions`] bounds them all. Nothing is
//! allocated for a message but what it is and what may have to be sent again; a transaction that can only absorb what
//! comes keeps no message.
//!
//! # How to send a request
//!
//! [`Layer::new_branch`], write a Via with it and the sent-by of the chosen transport on top, then [`Layer::request`].
//! A request that is sent elsewhere after a failure is a new transaction with a new branch (RFC 3263 §4.3).

mod branch;
mod client;
mod error;
mod event;
mod invite_client;
mod invite_server;
mod key;
mod layer;
mod machine;
mod quote;
mod server;
mod table;
mod timers;
mod wheel;

#[cfg(test)]
mod pairs;
#[cfg(test)]
mod tests;

pub use branch::{Branch, BranchParts};
pub use error::{RequestError, RespondError};
pub use event::{ClientId, Event, Metrics, Output, ServerId, Token};
pub use layer::{Config, Layer};
pub use quote::quoted_branch;
pub use timers::Timers;
