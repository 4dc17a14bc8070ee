//! What a member tells of itself, and of others.

use serde::Serialize;

use crate::{
    client::{Event, HeldRecord, StatusReply},
    clock::UnixMs,
    name::{OverlayId, PeerId},
};

/// What `p2p-join` prints when it is a member.
#[derive(Debug, Clone, Serialize)]
pub struct JoinOutcome {
    /// Always `joined`.
    pub status: &'static str,
    /// The overlay.
    pub overlay: OverlayId,
    /// `enrolled` or `open`.
    pub policy: String,
    /// The descriptor's hash.
    pub descriptor: String,
    /// This member's peer id.
    pub peer: PeerId,
    /// Its multiaddrs, each with `/p2p/PEER`: what others give to `--peer`.
    pub addresses: Vec<String>,
    /// The unix socket for tools on this machine.
    pub socket: String,
    /// Where it is a proxy peer for the public network: transports and addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proxy: Vec<String>,
    /// The zone that it changes as a gatekeeper, and where; `null` if it is none.
    pub gatekeeper: Option<String>,
    /// Where ordinary phones register: transports and addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adapter: Vec<String>,
    /// Where its metrics are served, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Members met so far; 0 for the first one.
    pub peers: u32,
    /// Records that came back from the last run.
    pub restored: u32,
    /// From start to membership.
    pub elapsed_ms: f64,
}

/// How a member is.
#[derive(Debug, Clone, Serialize)]
pub struct StatusOutcome {
    /// Always `member`.
    pub status: &'static str,
    /// The unix socket over which it was asked.
    pub socket: String,
    /// How long it has been running.
    pub uptime_ms: u64,
    /// What it says of itself.
    #[serde(flatten)]
    pub member: StatusReply,
}

/// The peers that a member knows in its neighbourhood.
#[derive(Debug, Clone, Serialize)]
pub struct PeersOutcome {
    /// Always `peers`.
    pub status: &'static str,
    /// The member.
    pub member: PeerId,
    /// How many peers it has in its routing table.
    pub known: u32,
    /// Those closest to it, nearest first.
    pub peers: Vec<PeerView>,
}

/// A peer as another one sees it.
#[derive(Debug, Clone, Serialize)]
pub struct PeerView {
    /// The peer.
    pub peer: PeerId,
    /// The leading bits that its position has in common with the member's.
    pub bits: u32,
    /// Where it can be dialled.
    pub addresses: Vec<String>,
}

/// A member's routing table.
#[derive(Debug, Clone, Serialize)]
pub struct TableOutcome {
    /// Always `table`.
    pub status: &'static str,
    /// The member.
    pub member: PeerId,
    /// How many peers it has in its routing table.
    pub known: u32,
    /// The buckets that hold a peer, the farthest first.
    pub buckets: Vec<BucketView>,
}

/// One bucket of a routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BucketView {
    /// The leading bits that its peers have in common with the member.
    pub bits: u32,
    /// How many peers it holds.
    pub peers: u32,
}

/// What a member holds.
#[derive(Debug, Clone, Serialize)]
pub struct HeldOutcome {
    /// Always `records`.
    pub status: &'static str,
    /// How many records it holds in all; it tells of no more than 1,000.
    pub total: u32,
    /// The records, by name.
    pub records: Vec<HeldRecordView>,
}

/// A record that a member holds.
#[derive(Debug, Clone, Serialize)]
pub struct HeldRecordView {
    /// For how long it is still valid.
    pub expires_in_ms: u64,
    /// The record.
    #[serde(flatten)]
    pub record: HeldRecord,
}

/// Something that happened at a member.
#[derive(Debug, Clone, Serialize)]
pub struct EventOutcome {
    /// Always `event`.
    pub status: &'static str,
    /// When it was heard of.
    pub at_ms: UnixMs,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// How fast a peer answers.
#[derive(Debug, Clone, Serialize)]
pub struct PingOutcome {
    /// Always `answered`.
    pub status: &'static str,
    /// The peer.
    pub peer: PeerId,
    /// Where it was dialled; the first address that answers counts.
    pub addresses: Vec<String>,
    /// The version of its software.
    pub version: String,
    /// From dialling to the first answer: the handshakes and one request.
    pub connect_ms: f64,
    /// From request to answer over the open connection, at best.
    pub rtt_ms: f64,
}
