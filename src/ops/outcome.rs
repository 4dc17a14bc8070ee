//! What the use cases come to: serialisable first, rendered afterwards. The field names are the `--json` schema.

use serde::Serialize;

use crate::{
    client::{Event, HeldRecord, StatusReply},
    clock::UnixMs,
    identity::PublicKey,
    name::{InstanceId, OverlayId, PeerId, Service},
};

/// How an answer was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// Over the unix socket of a member on this machine.
    Socket,
    /// One request to a remote member, which walked for us.
    Peer,
    /// Our own walk through the overlay.
    Walk,
}

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

/// How public SIP networks find an overlay (RFC 3263), beside how it is inside.
#[derive(Debug, Clone, Serialize)]
pub struct PublicView {
    /// What the DNS says; all but `found` and `nobody-to-ask` mean that the overlay cannot be reached from there.
    pub status: LocateStatus,
    /// Where a request goes, `transport:address:port`, in this order.
    pub endpoints: Vec<String>,
    /// Endpoints that proxy peers offer in the overlay, and the DNS does not have.
    pub only_in_overlay: Vec<String>,
    /// Endpoints in the DNS that no proxy peer offers in the overlay.
    pub only_in_dns: Vec<String>,
}

/// The answer to a location by RFC 3263, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocateStatus {
    /// There is a server.
    Found,
    /// The domain does not exist (exit 1).
    NoDomain,
    /// The domain has no SIP server that could be used (exit 1).
    NoServer,
    /// The DNS has not answered (exit 3).
    NobodyToAsk,
}

/// What `p2p-lookup` found for a URI of a conventional SIP network.
#[derive(Debug, Clone, Serialize)]
pub struct LocateOutcome {
    /// The answer.
    pub status: LocateStatus,
    /// The URI as it was given.
    pub uri: String,
    /// Its host.
    pub domain: String,
    /// Where a request is tried, in this order.
    pub targets: Vec<TargetView>,
    /// What led there, in this order.
    pub path: Vec<StepView>,
    /// From start to answer.
    pub elapsed_ms: f64,
}

/// A server to try.
#[derive(Debug, Clone, Serialize)]
pub struct TargetView {
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Its IP address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// All three, `transport:address:port`.
    pub endpoint: String,
    /// Whom its certificate has to name; `null` without TLS.
    pub tls_name: Option<String>,
    /// What led there.
    pub because: String,
}

/// A step of a location.
#[derive(Debug, Clone, Serialize)]
pub struct StepView {
    /// What kind of step.
    pub step: StepKind,
    /// The rule that was applied, the question that was asked, or the record that was passed over.
    pub text: String,
    /// Of a question, where the answer came from: a name server's address, `cache`, `additional` (along with an
    /// earlier answer) or `local` (the hosts file, or the name alone); `null` if from nowhere.
    pub source: Option<String>,
    /// Of a question, what became of it.
    pub outcome: Option<AnswerStatus>,
    /// The records, why there are none, or why the record was passed over.
    pub answer: Vec<String>,
    /// Of a question, how long it took.
    pub took_ms: Option<f64>,
}

/// A kind of step, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// A rule was applied.
    Rule,
    /// A question was asked.
    Question,
    /// A record was passed over.
    Ignored,
}

/// What became of a question, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerStatus {
    /// There are records.
    Records,
    /// There are no such records.
    NoRecords,
    /// There is no such name.
    NoName,
    /// Nobody could tell.
    Unanswered,
}

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

/// A verified record.
#[derive(Debug, Clone, Serialize)]
pub struct RecordView {
    /// The instance that wrote it.
    pub instance: InstanceId,
    /// Its sequence (Unix milliseconds).
    pub sequence: u64,
    /// The key that signed it, in hexadecimal; the instance is its hash.
    pub key: PublicKey,
    /// When it expires (Unix milliseconds).
    pub expires_at_ms: UnixMs,
    /// How long it is still valid.
    pub expires_in_ms: u64,
    /// The serial of the certificate that covers it; `null` under the `open` policy.
    pub certificate: Option<String>,
    /// A user's contacts; empty for services.
    pub contacts: Vec<ContactView>,
    /// A provider's offer; `null` for users.
    pub offer: Option<OfferView>,
}

/// A contact of a user.
#[derive(Debug, Clone, Serialize)]
pub struct ContactView {
    /// The SIP URI, or the GRUU that names the instance in the overlay.
    pub uri: String,
    /// The peer that reaches the instance over an overlay stream; `null` for a SIP contact.
    pub peer: Option<PeerId>,
    /// Where that peer can be dialled.
    pub addresses: Vec<String>,
    /// Preference, 0 to 1.
    pub q: f64,
}

/// What a provider of a service offers.
#[derive(Debug, Clone, Serialize)]
pub struct OfferView {
    /// The provider.
    pub peer: PeerId,
    /// Where it can be dialled.
    pub addresses: Vec<String>,
    /// Where the service listens, `transport:host:port`.
    pub endpoints: Vec<String>,
    /// Whether the provider says that it serves at present.
    pub serving: bool,
    /// Its own estimate of its load, 0 to 1.
    pub load: f64,
}

impl From<ProviderView> for OfferView {
    fn from(provider: ProviderView) -> Self {
        let ProviderView { peer, addresses, endpoints, serving, load, .. } = provider;
        Self { peer, addresses, endpoints, serving, load }
    }
}

/// The answer to a discovery, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoverStatus {
    /// As many as were asked for; if no number was given, at least one.
    Found,
    /// Some, but fewer than were asked for (exit 1).
    Fewer,
    /// None (exit 1).
    NotFound,
    /// Found, and nothing of it to be trusted (exit 4).
    Untrusted,
    /// Too few storers answered (exit 3).
    NobodyToAsk,
}

/// What `p2p-discover` found.
#[derive(Debug, Clone, Serialize)]
pub struct DiscoverOutcome {
    /// The answer.
    pub status: DiscoverStatus,
    /// The overlay that was asked.
    pub overlay: OverlayId,
    /// How.
    pub via: Via,
    /// How many were asked for; `null` for all there are.
    pub wanted: Option<u32>,
    /// How many were found, of all kinds together.
    pub found: u32,
    /// Whether these are all there are.
    pub complete: bool,
    /// Each kind of service that was asked for, until enough were found.
    pub services: Vec<ServiceView>,
    /// How the outside finds the proxy peers, if those were looked for and a DNS could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<PublicView>,
    /// What was found and not believed.
    pub rejected: Vec<RejectedView>,
    /// Nodes of the services' trees that were read.
    pub tree_nodes: u32,
    /// Requests sent.
    pub requests: u32,
    /// Peers that did not answer.
    pub silent: u32,
    /// From start to answer.
    pub elapsed_ms: f64,
}

/// The providers of one kind of service.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceView {
    /// The kind.
    pub service: Service,
    /// Its well-known URI.
    pub uri: String,
    /// Whether these are all there are.
    pub complete: bool,
    /// The providers found, in the order in which to try them.
    pub providers: Vec<ProviderView>,
}

/// A peer that offers a service.
#[derive(Debug, Clone, Serialize)]
pub struct ProviderView {
    /// The peer.
    pub peer: PeerId,
    /// Where it can be dialled.
    pub addresses: Vec<String>,
    /// Where the service listens, `transport:host:port`.
    pub endpoints: Vec<String>,
    /// Whether it says that it takes new users.
    pub serving: bool,
    /// Its own word on its load, 0 to 1.
    pub load: f64,
    /// When its record expires (Unix milliseconds).
    pub expires_at_ms: UnixMs,
    /// How long its record is still valid.
    pub expires_in_ms: u64,
    /// The serial of the certificate that permits it; `null` under the `open` policy.
    pub certificate: Option<String>,
    /// How each endpoint answered; empty if none was asked.
    pub probes: Vec<ProbeView>,
    /// The time of the fastest answer; `null` if there was none.
    pub rtt_ms: Option<f64>,
    /// Whether the DNS leads to one of its endpoints; `null` if that is not known.
    pub in_dns: Option<bool>,
}

/// How an endpoint answered.
#[derive(Debug, Clone, Serialize)]
pub struct ProbeView {
    /// The endpoint.
    pub endpoint: String,
    /// Whether it did.
    pub status: ProbeStatus,
    /// The status code of its answer.
    pub code: Option<u16>,
    /// From the request to the answer; of a connection, with setting it up.
    pub rtt_ms: Option<f64>,
    /// Why it could not be asked.
    pub why: Option<String>,
}

/// Whether an endpoint answered, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeStatus {
    /// It did.
    Answered,
    /// It did not, in time.
    Silent,
    /// It could not be asked.
    Unreachable,
}

/// A record that was not believed.
#[derive(Debug, Clone, Serialize)]
pub struct RejectedView {
    /// Who returned it.
    pub peer: PeerId,
    /// The reason, for programs.
    pub code: String,
    /// The reason, for people.
    pub reason: String,
    /// Whether the record itself is at fault; else the storer has a reason of its own.
    pub untrusted: bool,
}

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
