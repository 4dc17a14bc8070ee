//! The messages of a call in the order in which they went over the wire, and the hops that they took.

use serde::Serialize;

/// A call flow: what `--ladder` draws.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FlowView {
    /// Who took part, in the order of the columns; the first is this process.
    pub parties: Vec<PartyView>,
    /// What was said, in order.
    pub messages: Vec<MessageView>,
    /// The ways that messages took, in order.
    pub hops: Vec<HopView>,
}

/// One end of a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartyView {
    /// What to call it.
    pub name: String,
    /// Its address: `IP:PORT`, or a peer id.
    pub address: String,
}

/// A message on the wire.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageView {
    /// When, counted from the first message.
    pub at_ms: f64,
    /// The sender, as an index into the parties.
    pub from: usize,
    /// The receiver, as an index into the parties.
    pub to: usize,
    /// `UDP`, `TCP`, `TLS` or `OVERLAY`.
    pub transport: String,
    /// The method, or status and reason.
    pub what: String,
    /// The status of a response.
    pub status: Option<u16>,
    /// The CSeq: which request it is, or is answered.
    pub cseq: String,
    /// Whether it carries a session description.
    pub sdp: bool,
    /// Whether the same message has gone the same way before.
    pub again: bool,
    /// Its length.
    pub octets: usize,
}

/// A way that messages took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HopView {
    /// Who sent the first request.
    pub from: String,
    /// Who received it.
    pub to: String,
    /// `UDP`, `TCP`, `TLS` or `OVERLAY`.
    pub transport: String,
    /// Where it went: `IP:PORT`, or a peer id with its multiaddr.
    pub address: String,
    /// How that was found out: a routing record, the DNS, an option.
    pub found: String,
}
