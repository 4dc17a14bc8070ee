//! Publication of proxy peers in the DNS: what is written, under which conditions, and how it is read back.
//!
//! The zone is the truth and the only state. A [`Publisher`] reads it from the primary server, plans one update, sends it,
//! and believes what it then reads back and nothing else. A plan is all or nothing (RFC 2136 §3.2), and
//! conditional on the host's [lease](Lease), so publishers who know nothing of each other share a zone.

mod carry_out;
mod error;
mod lease;
mod plan;
mod primary;
mod publisher;
mod records;
mod seen;
mod snapshot;
#[cfg(test)]
mod tests;
mod zone;

pub use self::{
    error::PublishError,
    lease::{Lease, TOMBSTONE},
    plan::Plan,
    publisher::{Done, Publisher},
    records::{LEASES, MAX_TTL, Publication, SipEndpoint, TRANSPORTS, host_of, lease_owner, srv_owner, unreachable},
    seen::shown,
    snapshot::{Host, Snapshot},
    zone::ZoneAt,
};
pub use super::locate::Transport;
