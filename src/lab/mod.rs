//! The embedded world of `p2p-lab`: a whole overlay, its users, its DNS and two conventional SIP domains, on loopback in
//! one process.
//!
//! Everything in it is real: each member is what `p2p-join` runs, with a swarm and sockets of its own; users have homes
//! with keys and certificates on disk; the DNS answers on UDP and TCP; SIP goes over sockets and streams. Only the number
//! of processes differs. [`Figure`]s of the draft are played in it, and what the draft says is compared with what went
//! over the wire.

mod domain;
mod error;
mod figure;
mod registrar;
mod sip;
mod world;

pub use error::LabError;
pub use figure::{Figure, FigureOutcome, FigureStatus, StepView};
pub use sip::{CONVENTIONAL, DomainView};
pub use world::{LabOptions, User, World};
