//! The overlay: who its members are, where records live, how they are found. The only user of libp2p.
//!
//! The protocol logic is pure and driven from outside: [`storer`] decides what a peer keeps and answers, [`walk`],
//! [`lookup`] and [`placement`] decide whom to ask next. [`swarm`] brings octets in and out, [`socket`] does the same
//! for programs on this machine, [`drive`] runs the pure machines over either.

pub mod drive;
pub mod limits;
pub mod lookup;
pub mod persist;
pub mod placement;
mod respond;
pub mod socket;
pub mod storer;
pub mod swarm;
pub mod table;
pub mod walk;

pub use respond::{Answer, Caller, Responder};
