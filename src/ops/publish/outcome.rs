//! What `p2p-publish` tells. The field names are the `--json` schema.

use std::net::SocketAddr;

use serde::Serialize;

use super::drift::{ProxyView, RuleView};
use crate::{client::gatekeeper::Decision, kind::Kind, name::OverlayId};

/// What was written, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct ChangeOutcome {
    /// `added`, `renewed`, `removed`, or `planned`.
    pub status: &'static str,
    /// The overlay.
    pub overlay: OverlayId,
    /// The zone that holds its records.
    pub zone: String,
    /// The server that was asked.
    pub server: SocketAddr,
    /// The host.
    pub host: String,
    /// How long its lease goes on; that of the tombstone, if it was removed.
    pub lease_in_ms: Option<u64>,
    /// What was left out, and why.
    pub warnings: Vec<String>,
    /// What makes nsupdate do the same; only with a dry run.
    pub script: Option<String>,
    /// From start to having read it back.
    pub elapsed_ms: f64,
}

/// The proxy peers of DNS and overlay side by side.
#[derive(Debug, Clone, Serialize)]
pub struct ListOutcome {
    /// `in-step` or `drift`.
    pub status: &'static str,
    /// The overlay.
    pub overlay: OverlayId,
    /// The zone.
    pub zone: String,
    /// The server that was asked.
    pub server: SocketAddr,
    /// The proxy peers.
    pub proxies: Vec<ProxyView>,
    /// Rules at the identifier that are missing or lead nowhere.
    pub rules: Vec<RuleView>,
    /// Why the overlay was not asked; `null` if it was.
    pub overlay_unasked: Option<String>,
    /// Whether nobody outside finds a proxy peer (R8).
    pub unreachable: bool,
    /// From start to answer.
    pub elapsed_ms: f64,
}

/// What `sync` did.
#[derive(Debug, Clone, Serialize)]
pub struct SyncOutcome {
    /// `synced`, `incomplete`, or `planned`.
    pub status: &'static str,
    /// The overlay.
    pub overlay: OverlayId,
    /// The zone.
    pub zone: String,
    /// The server.
    pub server: SocketAddr,
    /// What was done.
    pub actions: Vec<ActionView>,
    /// What was left as it is, and why.
    pub warnings: Vec<String>,
    /// From start to end.
    pub elapsed_ms: f64,
    /// The exit code that the worst failure deserves.
    #[serde(skip)]
    pub worst: Option<Kind>,
}

/// One thing that `sync` did.
#[derive(Debug, Clone, Serialize)]
pub struct ActionView {
    /// `add`, `renew`, `remove`, `reap` or `mend`.
    pub action: &'static str,
    /// The host, or the overlay identifier.
    pub host: String,
    /// Why it failed; `null` if it did not.
    pub error: Option<String>,
    /// What makes nsupdate do the same; only with a dry run.
    pub script: Option<String>,
}

/// What the gatekeeper on this machine has decided lately.
#[derive(Debug, Clone, Serialize)]
pub struct PendingOutcome {
    /// `pending`, or `none` if nobody waits.
    pub status: &'static str,
    /// Those whose proof is waited for, and those who were refused and have not entered since; the newest first.
    pub pending: Vec<Decision>,
    /// All decisions, the newest first.
    pub decisions: Vec<Decision>,
}
