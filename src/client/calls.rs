//! The core services, one call each. Peers use the first group among themselves; clients and tools use the second.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    Call,
    gatekeeper::{GateVerdict, PublicationStatus},
};
use crate::{
    clock::UnixMs,
    name::{InstanceId, OverlayId, PeerId, Position, ResourceName, Service},
    record::Refusal,
};

macro_rules! call {
    ($type:ty, $service:literal, $reply:ty) => {
        impl Call for $type {
            const SERVICE: &'static str = $service;
            type Reply = $reply;
        }
    };
}

/// A peer and where it can be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// The peer.
    pub peer: PeerId,
    /// Its multiaddrs as text, without the `/p2p/` part. Untrusted until dialled.
    pub addresses: Vec<String>,
}

/// Asks a peer for the peers of its routing table that stand closest to a position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closest {
    /// The position of interest.
    pub target: Position,
    /// How many peers are wanted.
    pub count: u8,
}
call!(Closest, "closest", ClosestReply);

/// The answer to [`Closest`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosestReply {
    /// The closest peers known, nearest first. The peer asked is not among them.
    pub peers: Vec<PeerInfo>,
}

/// Asks a storer for what it holds at a position and, in the same round trip, for closer peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The position of the name looked up.
    pub target: Position,
    /// How many closer peers are wanted.
    pub closer: u8,
}
call!(Fetch, "fetch", FetchReply);

/// The answer to [`Fetch`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReply {
    /// The envelopes held, tombstones included: one an instance.
    pub envelopes: Vec<ByteBuf>,
    /// The closest peers known, nearest first.
    pub closer: Vec<PeerInfo>,
}

/// Asks a storer to keep a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// The record's envelope.
    pub envelope: ByteBuf,
}
call!(Store, "store", StoreReply);

/// The answer to [`Store`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreReply {
    /// The record, or a newer one of its instance, is held.
    Stored,
    /// The record is not held, and why.
    Refused(Refusal),
}

/// Compares what two storers hold: the caller names its dictionaries by fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Position and fingerprint of each dictionary that the callee ought to hold too; at most 1,000.
    pub dictionaries: Vec<(Position, u64)>,
    /// The sequence of the revocation list that the caller has (0: none).
    pub revocations: u64,
}
call!(Digest, "digest", DigestReply);

/// The answer to [`Digest`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestReply {
    /// The positions at which the callee's dictionary differs: the caller sends what it has there.
    pub differing: Vec<Position>,
    /// What the callee holds at those positions, as far as it fits a frame.
    pub envelopes: Vec<ByteBuf>,
    /// The callee's signed revocation list, if it is newer than the caller's.
    pub revocations: Option<ByteBuf>,
    /// Whether the callee would like the caller's list, which is newer than its own.
    pub wants_revocations: bool,
}

/// Hands a member a revocation list signed by the overlay's CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRevocations {
    /// The signed list.
    pub list: ByteBuf,
}
call!(PutRevocations, "put-revocations", StoreReply);

/// Asks a member for the overlay's descriptor, to be checked against its known hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetDescriptor {}
call!(GetDescriptor, "descriptor", DescriptorReply);

/// The answer to [`GetDescriptor`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorReply {
    /// The descriptor's file.
    pub toml: String,
    /// The signed revocation list, if there is one.
    pub revocations: Option<ByteBuf>,
}

/// Asks a member to look a name up in the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The name.
    pub name: ResourceName,
    /// How long the member may take, in milliseconds.
    pub timeout_ms: u64,
}
call!(Lookup, "lookup", LookupReply);

/// What a lookup came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupReply {
    /// The verdict.
    pub verdict: Verdict,
    /// The newest verified envelope of each instance, tombstones left out.
    pub envelopes: Vec<ByteBuf>,
    /// How many of the storers closest to the name answered.
    pub storers: u32,
    /// How many requests were sent.
    pub requests: u32,
    /// How many peers did not answer in time.
    pub silent: u32,
    /// The longest chain of peers that led to a storer.
    pub hops: u32,
    /// What was found and not believed.
    pub rejected: Vec<Rejected>,
}

/// The four different answers to a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// At least one verified, unexpired record.
    Found,
    /// Most of the closest storers, reached over disjoint paths, hold none.
    NotFound,
    /// Too few storers answered to say anything.
    NobodyToAsk,
    /// Records were held, and none of them can be believed.
    Untrusted,
}

/// A record that a storer returned and the reader did not believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Who returned it.
    pub peer: PeerId,
    /// Why it is not believed.
    pub reason: Refusal,
}

/// Asks a member to find providers of a service of its overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// The service.
    pub service: Service,
    /// How many providers are wanted; 0 for as many as there are. A reply never has more than 1,000.
    pub wanted: u32,
    /// How long the member may take, in milliseconds.
    pub timeout_ms: u64,
    /// How old an answer may be that the member remembers, in milliseconds; 0 has it look anew.
    pub max_age_ms: u64,
}
call!(Services, "services", ServicesReply);

/// The answer to [`Services`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesReply {
    /// As of a lookup: the newest verified record of each provider, in the order in which to try them.
    pub found: LookupReply,
    /// Whether these are all providers that there are.
    pub complete: bool,
    /// How many nodes of the service's tree were read.
    pub nodes: u32,
    /// How old the answer is, in milliseconds.
    pub age_ms: u64,
}

/// Asks a member to store a record at the storers responsible and to keep it alive until it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The record's envelope.
    pub envelope: ByteBuf,
    /// How long the member may take, in milliseconds.
    pub timeout_ms: u64,
}
call!(Put, "put", PutReply);

/// What became of a [`Put`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReply {
    /// The storers that keep the record now.
    pub stored: Vec<PeerId>,
    /// The storers that refused it, and why.
    pub refused: Vec<Rejected>,
    /// Storers that did not answer.
    pub silent: u32,
    /// How many of the storers in `stored` returned it when read back.
    pub read_back: u32,
    /// Other members that will keep it alive as well.
    pub keepers: Vec<PeerId>,
}

/// Asks another member to keep a record alive too, should the first one go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The record's envelope.
    pub envelope: ByteBuf,
}
call!(Keep, "keep", StoreReply);

/// Asks a member how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}
call!(Status, "status", StatusReply);

/// The answer to [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    /// The member's peer id.
    pub peer: PeerId,
    /// The overlay it is a member of.
    pub overlay: OverlayId,
    /// The descriptor's hash, in hexadecimal.
    pub descriptor: String,
    /// `enrolled` or `open`.
    pub policy: String,
    /// The multiaddrs under which it can be dialled, without the `/p2p/` part.
    pub addresses: Vec<String>,
    /// Peers in its routing table.
    pub peers: u32,
    /// Connections that are open.
    pub connections: u32,
    /// Names it holds records of.
    pub names: u32,
    /// Records it holds, tombstones included.
    pub records: u32,
    /// Records it keeps alive for clients.
    pub kept: u32,
    /// When it started.
    pub started_ms: UnixMs,
    /// Requests served since then.
    pub served: u64,
    /// Requests it has turned away since then, for their sender's limits.
    pub throttled: u64,
    /// The software's version.
    pub version: String,
    /// Each bucket of its routing table that holds a peer: the leading bits that the bucket's peers have in common
    /// with the member, and how many they are. Members of older versions do not tell.
    #[serde(default)]
    pub buckets: Vec<(u32, u32)>,
    /// How others reach it. Members of older versions do not tell.
    #[serde(default)]
    pub reach: ReachView,
    /// Its proxy peer, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyStatus>,
}

/// What a proxy peer does, and has done since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Where it serves SIP, as `udp 192.0.2.1:5060`.
    pub endpoints: Vec<String>,
    /// Whether it takes no more calls because it is about to leave.
    pub draining: bool,
    /// How busy it is, 0 to 1000.
    pub load: u16,
    /// Transactions that are open.
    pub transactions: u32,
    /// Requests passed on, each counted once however often it forked.
    pub forwarded: u64,
    /// Requests answered by itself.
    pub answered: u64,
    /// ACKs of 2xx responses passed on.
    pub acks: u64,
    /// Requests refused because their source sends too many.
    pub throttled: u64,
    /// Requests refused for want of room, or because it is about to leave.
    pub overloaded: u64,
    /// Requests that came by a second time unchanged.
    pub loops: u64,
    /// Messages that could neither be passed on nor answered.
    pub dropped: u64,
    /// Lookups of users in the overlay.
    pub lookups: u64,
    /// Users found among those looked up lately.
    pub spared: u64,
    /// Users not looked up because too many lookups have found nobody, those of one source or of all.
    #[serde(default)]
    pub lookups_refused: u64,
    /// Whether the DNS had no proxy peer of the overlay when a call last went out, so that requests of the other side
    /// cannot come back.
    #[serde(default)]
    pub unlisted: bool,
    /// How it stands with the DNS, if it means to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<PublicationStatus>,
}

/// How others reach a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Nobody has told yet.
    #[default]
    Unknown,
    /// At its own addresses.
    Direct,
    /// Through a NAT that lets them in.
    Mapped,
    /// Through relays alone.
    Relayed,
    /// Not at all.
    Not,
}

/// How others reach a member, and why so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachView {
    /// How.
    pub reach: Reach,
    /// What that is concluded from, for people.
    pub why: String,
    /// The relays that hold a place for it.
    pub relays: Vec<PeerId>,
}

/// Asks a member which records it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many at the most.
    pub limit: u32,
}
call!(Held, "held", HeldReply);

/// The answer to [`Held`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReply {
    /// The records, by name.
    pub records: Vec<HeldRecord>,
    /// How many there are in all.
    pub total: u32,
}

/// A record that a member holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRecord {
    /// The name it is stored under.
    pub name: ResourceName,
    /// The instance that wrote it.
    pub instance: InstanceId,
    /// Its sequence.
    pub sequence: u64,
    /// When it expires.
    pub expires_ms: UnixMs,
    /// Whether it removes the instance's binding.
    pub tombstone: bool,
    /// Whether this member keeps it alive for a client.
    pub kept: bool,
    /// The serial of the certificate for which it is believed; `None` in an overlay of policy open, where a record only
    /// proves that its instance wrote it.
    #[serde(default)]
    pub certificate: Option<String>,
    /// Whether its key is pinned for the name.
    #[serde(default)]
    pub pinned: bool,
}

/// Asks a member for its live events: after an empty reply, the socket carries [`Event`] frames until it is closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {}
call!(Events, "events", EventsReply);

/// The answer to [`Events`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsReply {}

/// Something that happened at a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A peer entered the routing table.
    PeerJoined {
        /// The peer.
        peer: PeerId,
    },
    /// A peer left the routing table.
    PeerLeft {
        /// The peer.
        peer: PeerId,
    },
    /// A record was stored here.
    Stored {
        /// Its name.
        name: ResourceName,
        /// Its instance.
        instance: InstanceId,
        /// Its sequence.
        sequence: u64,
        /// Whether it is a tombstone.
        tombstone: bool,
    },
    /// A record was refused.
    Refused {
        /// Who sent it; absent for the local socket.
        peer: Option<PeerId>,
        /// Why it was refused.
        reason: Refusal,
    },
    /// A peer used up its share and was turned away.
    Throttled {
        /// The peer.
        peer: PeerId,
    },
    /// The gatekeeper here decided about a proxy peer.
    Gatekeeper {
        /// What.
        verdict: GateVerdict,
        /// The proxy peer, if it is known.
        peer: Option<PeerId>,
        /// Its host name in the DNS.
        host: String,
        /// Why so.
        why: String,
    },
    /// The reader was too slow: this many events were dropped.
    Lagged {
        /// How many.
        dropped: u64,
    },
}
