//! What a lookup in the overlay has found.

use serde::Serialize;

use super::{PublicView, RecordView, RejectedView, TraceView, Via};
use crate::name::OverlayId;

/// The answer to a lookup, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LookupStatus {
    /// Verified records.
    Found,
    /// A user's records of several keys under the `open` policy, none of them pinned (exit 4).
    Contested,
    /// Proven absent (exit 1).
    NotFound,
    /// Found, and nothing of it to be trusted (exit 4).
    Untrusted,
    /// Too few storers answered (exit 3).
    NobodyToAsk,
}

/// What `p2p-lookup` found for one URI.
#[derive(Debug, Clone, Serialize)]
pub struct LookupOutcome {
    /// The answer.
    pub status: LookupStatus,
    /// The canonical URI that was looked up.
    pub uri: String,
    /// The overlay that was asked.
    pub overlay: OverlayId,
    /// How.
    pub via: Via,
    /// The verified records.
    pub records: Vec<RecordView>,
    /// What was found and not believed.
    pub rejected: Vec<RejectedView>,
    /// Storers of the name that answered.
    pub storers: u32,
    /// Requests sent.
    pub requests: u32,
    /// Peers that did not answer.
    pub silent: u32,
    /// The longest chain of peers that led to a storer.
    pub hops: u32,
    /// From start to answer.
    pub elapsed_ms: f64,
    /// Every request of our own walk, in the order in which they were sent, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Vec<TraceView>>,
    /// How the outside finds the proxy peers, if they were looked up and a DNS could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<PublicView>,
}
