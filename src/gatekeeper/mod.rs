//! The gatekeeper (draft §3.1.1, first open issue): who enters the DNS as a proxy peer, for how long, and on which proof.
//!
//! - [`config`] is its file.
//! - [`policy`] decides who may enter: the policy, NATs, quotas. Pure.
//! - [`probe`] proves that a proxy peer is where it says: nonces that go there and come back. Pure.
//! - [`lease`] knows whose lease ends when. Pure.
//! - [`journal`] remembers what was decided. Pure.
//!
//! The zone is the only state that counts: whatever a gatekeeper knows it has read there, so several of them can serve
//! one overlay, and one that dies loses nothing.

mod buckets;
pub mod config;
pub mod journal;
pub mod lease;
pub mod policy;
pub mod probe;

pub use self::{
    buckets::Prefix,
    config::{Config, ConfigError, TEMPLATE},
    journal::Journal,
    lease::{Leased, Ledger},
    policy::{Admission, Applicant, Quotas, judge},
    probe::{Probe, Probes, Proof, Request},
};
