//! What the use cases come to: serialisable first, rendered afterwards. The field names are the `--json` schema.
//!
//! Here is what several use cases show; what only one of them tells has a file of its own.

mod discover;
mod locate;
mod lookup;
mod member;
mod register;
mod trace;

use serde::Serialize;

pub use self::{
    discover::{DiscoverOutcome, DiscoverStatus, ProbeStatus, ProbeView, ProviderView, ServiceView},
    locate::{AnswerStatus, LocateOutcome, LocateStatus, PublicView, StepKind, StepView, TargetView},
    lookup::{LookupOutcome, LookupStatus},
    member::{
        BucketView, EventOutcome, HeldOutcome, HeldRecordView, JoinOutcome, PeerView, PeersOutcome, PingOutcome,
        StatusOutcome, TableOutcome,
    },
    register::{RegisterOutcome, RegisterStatus},
    trace::{DifferenceStatus, DifferenceView, HeldView, RequestStatus, TraceView},
};
use crate::{
    clock::UnixMs,
    identity::PublicKey,
    name::{InstanceId, PeerId},
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
