//! SIP transactions (RFC 3261 §17): what is sent again, until when, and which message belongs to which.

mod branch;
mod client;
mod invite_client;
mod invite_server;
mod machine;
mod server;
mod timers;
mod wheel;

pub use branch::{Branch, BranchParts};
pub use timers::Timers;
