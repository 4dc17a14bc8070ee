//! The requests of a walk, and what each peer holds: `p2p-lookup --trace`.

use serde::Serialize;

use super::RejectedView;
use crate::name::{InstanceId, PeerId};

/// A request of a walk, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct TraceView {
    /// Who was asked.
    pub peer: PeerId,
    /// Who had told of it; `null` for a peer known at the start.
    pub told_by: Option<PeerId>,
    /// Which of the walk's disjoint paths asked, from 0.
    pub path: u8,
    /// The length of the chain of peers that led there; 1 for a peer known at the start.
    pub hop: u8,
    /// How many leading bits its position has in common with the name's.
    pub common_prefix_bits: u32,
    /// When it was asked, from the start of the walk.
    pub asked_ms: f64,
    /// How long it took until it answered or was given up; `null` if the walk ended before.
    pub took_ms: Option<f64>,
    /// What became of the request.
    pub outcome: RequestStatus,
    /// How many peers it told of.
    pub told_of: u32,
    /// How many of those had not been heard of.
    pub new_peers: u32,
    /// Whether it is one of the storers whose answers count.
    pub storer: bool,
    /// The verified records that it holds.
    pub records: Vec<HeldView>,
    /// What it returned and was not believed: each reason once.
    pub rejected: Vec<RejectedView>,
    /// Where it disagrees with what all storers together hold.
    pub differences: Vec<DifferenceView>,
}

/// What became of a request, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestStatus {
    /// It was answered.
    Answered,
    /// No connection could be made.
    Unreachable,
    /// No answer came in time.
    Silent,
    /// The peer does not serve such requests.
    Refused,
    /// The answer could not be read.
    Malformed,
    /// The walk ended before an answer came.
    Waiting,
}

/// A verified record that a peer holds.
#[derive(Debug, Clone, Serialize)]
pub struct HeldView {
    /// The instance that wrote it.
    pub instance: InstanceId,
    /// Its sequence (Unix milliseconds).
    pub sequence: u64,
    /// Whether it removes the instance's binding.
    pub tombstone: bool,
}

/// What a storer has otherwise than the rest.
#[derive(Debug, Clone, Serialize)]
pub struct DifferenceView {
    /// The instance whose record it is.
    pub instance: InstanceId,
    /// How it differs.
    pub kind: DifferenceStatus,
}

/// How what a storer has differs, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceStatus {
    /// Its record is older than another storer's.
    Stale,
    /// It has none where another storer has one.
    Withheld,
    /// Its record is newer than that of most storers that have one.
    Newer,
}
