//! What `p2p-register --public` tells. The field names are the `--json` schema.

use serde::Serialize;

use crate::{kind::Kind, name::PeerId};

/// A step of draft §4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The user is registered in the overlay.
    OverlayRegistration,
    /// Proxy peers are looked up.
    ProxyLookup,
    /// One of them is reached: the outbound proxy.
    OutboundProxy,
    /// The overlay URL is bound to the public address of record, by REGISTER through the outbound proxy.
    Register,
    /// The user's record in the overlay is taken out again.
    OverlayRemoval,
}

/// A step, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepOutcome {
    /// Which one.
    pub step: Step,
    /// What came of it.
    pub result: String,
    /// How long it took.
    pub took_ms: f64,
}

/// The outcome of a public registration, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublicStatus {
    /// Bound.
    Registered,
    /// No longer bound.
    Removed,
    /// Still bound, because other devices of the user need it; this one is out of the overlay.
    Kept,
    /// Refused, by the registrar or in the overlay (exit 1).
    Refused,
    /// Nobody answered, or could (exit 3).
    Unreachable,
    /// Refused by the overlay, or found there, as not to be trusted (exit 4).
    Untrusted,
    /// This machine did not let it through (exit 5).
    LocalFailure,
}

/// What `p2p-register --public` achieved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PublicOutcome {
    /// The outcome.
    pub status: PublicStatus,
    /// The public address of record.
    pub aor: String,
    /// What it is bound to: the overlay URL.
    pub contact: String,
    /// Where the REGISTER went.
    pub registrar: String,
    /// The peer id of the proxy peer by which the answer came.
    pub proxy: Option<PeerId>,
    /// The final status, if the registrar or a proxy gave one.
    pub code: Option<u16>,
    /// Why it is not as wished.
    pub reason: Option<String>,
    /// The realm that was answered last.
    pub realm: Option<String>,
    /// The hash with which it was.
    pub algorithm: Option<&'static str>,
    /// Challenges answered.
    pub challenges: u32,
    /// For how long the registrar keeps the binding.
    pub expires_in_ms: Option<u64>,
    /// Whether that is shorter than was asked for.
    pub shortened: bool,
    /// Everything that the address of record is bound to.
    pub bindings: Vec<String>,
    /// Where the registrar redirected to.
    pub redirected_to: Option<String>,
    /// Other devices of the user that are registered in the overlay.
    pub other_devices: u32,
    /// When it will be tried again.
    pub again_in_ms: Option<u64>,
    /// What was done, in order.
    pub steps: Vec<StepOutcome>,
    /// From the beginning to the end.
    pub elapsed_ms: f64,
}

impl PublicOutcome {
    /// What sort of failure it is; `None` if it is none.
    pub const fn kind(&self) -> Option<Kind> {
        match self.status {
            PublicStatus::Registered | PublicStatus::Removed | PublicStatus::Kept => None,
            PublicStatus::Refused => Some(Kind::Negative),
            PublicStatus::Unreachable => Some(Kind::Unreachable),
            PublicStatus::Untrusted => Some(Kind::Untrusted),
            PublicStatus::LocalFailure => Some(Kind::Local),
        }
    }
}
