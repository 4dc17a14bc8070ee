//! The records of an overlay: what a user's or a service's binding says, how it is signed, who may store it, and how
//! the records of one name are merged.
//!
//! A [`Payload`] is [`seal`]ed into an envelope: a COSE_Sign1 (RFC 9052 §4.2) with the writer's certificate.
//! [`Trust::verify`] is the only way back, for storers and readers alike, and makes the only thing the rest of the
//! program believes: a [`VerifiedRecord`]. All records of one name form a [`Dictionary`], one of each instance, whose
//! merging is the same in whatever order records arrive (the model is RELOAD's, RFC 6940 §7.2.3).
//!
//! Pure: no sockets, no files; the time comes in as an argument.

mod dictionary;
mod envelope;
mod payload;
mod refusal;
mod service;
#[cfg(test)]
pub(crate) mod testing;
mod trust;
mod user;
mod verified;

pub use dictionary::{Dictionary, Merge};
pub use envelope::{RecordError, seal};
pub use payload::{Body, Payload};
pub use refusal::Refusal;
pub use service::{Endpoint, MAX_ENDPOINTS, MAX_LOAD, MAX_SERVICE_LIFETIME, ServiceOffer};
pub use trust::{CLOCK_TOLERANCE, TOMBSTONE_GRACE, Trust};
pub use user::{Contact, MAX_ADDRESS, MAX_ADDRESSES, MAX_CONTACTS, MAX_Q};
pub use verified::{VerifiedRecord, contested};
