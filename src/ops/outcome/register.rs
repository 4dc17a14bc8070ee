//! What a registration has achieved.

use serde::Serialize;

use super::{ContactView, RejectedView, Via};
use crate::{
    clock::UnixMs,
    name::{InstanceId, PeerId},
};

/// The answer to a registration, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegisterStatus {
    /// Stored, and read back.
    Registered,
    /// Removed: the tombstone is stored and read back.
    Removed,
    /// Every storer refused it (exit 1, or 4 for a reason of trust).
    Refused,
    /// No storer answered (exit 3).
    NobodyToAsk,
}

/// What `p2p-register` achieved.
#[derive(Debug, Clone, Serialize)]
pub struct RegisterOutcome {
    /// The answer.
    pub status: RegisterStatus,
    /// The AOR.
    pub aor: String,
    /// This device.
    pub instance: InstanceId,
    /// The URI that reaches this device and no other (RFC 5627).
    pub gruu: String,
    /// The record's sequence.
    pub sequence: u64,
    /// When the record expires (Unix milliseconds).
    pub expires_at_ms: UnixMs,
    /// For how long it was made.
    pub expires_in_ms: u64,
    /// The contacts stored; empty after a removal.
    pub contacts: Vec<ContactView>,
    /// How.
    pub via: Via,
    /// The storers that keep it.
    pub stored: Vec<PeerId>,
    /// The storers that refused it.
    pub refused: Vec<RejectedView>,
    /// Storers that did not answer.
    pub silent: u32,
    /// Storers that returned it when read back.
    pub read_back: u32,
    /// Members that keep it alive until it expires.
    pub kept_by: Vec<PeerId>,
    /// From start to answer.
    pub elapsed_ms: f64,
}
