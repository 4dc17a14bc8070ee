//! The embedded world of `p2p-lab`: a whole overlay, its users and its DNS, on loopback in one process.
//!
//! Everything in it is real: each member is what `p2p-join` runs, with a swarm and sockets of its own; users have
//! homes with keys and certificates on disk; the DNS answers on UDP and TCP. Only the number of processes differs.

mod world;

pub use world::{LabError, LabOptions, User, World};
