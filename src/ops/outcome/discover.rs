//! Which peers offer services.

use serde::Serialize;

use super::{OfferView, PublicView, RejectedView, Via};
use crate::{
    clock::UnixMs,
    name::{OverlayId, PeerId, Service},
};

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

impl From<ProviderView> for OfferView {
    fn from(provider: ProviderView) -> Self {
        let ProviderView { peer, addresses, endpoints, serving, load, .. } = provider;
        Self { peer, addresses, endpoints, serving, load }
    }
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
