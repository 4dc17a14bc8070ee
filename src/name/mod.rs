//! What the draft's URIs mean: overlay identifiers, users' AORs, service URIs, and where each lives in the overlay.
//!
//! Pure: parsing, canonical forms and hashes. Everything above speaks in these types, so that a name that exists has
//! already been checked.
//!
//! ```
//! use p2psip::name::{Aor, OverlayId, ResourceName};
//!
//! let overlay = OverlayId::parse("P2PSIP.org.")?;
//! assert_eq!(overlay.as_str(), "p2psip.org");
//!
//! // RFC 3261 §10.3 step 5: parameters go, escapes are decoded, the host is compared without case.
//! let alice = Aor::parse("sips:%61lice@P2PSIP.ORG;transport=tcp")?;
//! assert_eq!(alice.to_string(), "sip:alice@p2psip.org");
//! alice.check_overlay(&overlay)?;
//!
//! // A URI with only its host set names the proxy peers (draft §3.3.1).
//! assert!(matches!(ResourceName::parse("sip:p2psip.org")?, ResourceName::Service(_)));
//! # Ok::<(), p2psip::name::NameError>(())
//! ```

mod aor;
mod instance;
mod overlay_id;
mod peer_id;
mod position;
mod resource;
mod service;
mod tree;

pub use aor::Aor;
pub use instance::InstanceId;
pub use overlay_id::OverlayId;
pub use peer_id::PeerId;
pub use position::{Distance, Position};
pub use resource::ResourceName;
pub use service::{Service, ServiceUri};
pub use tree::{BRANCHING, Interval, MAX_LEVEL, ServiceNode, TreeNode};

use crate::kind::Kind;

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a fully qualified domain name (draft §2.1).
    #[error("'{text}' is not an overlay identifier: {why}; write a domain name like p2psip.org")]
    Overlay {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not a user's SIP URL (draft §4.1).
    #[error("'{text}' is not a user's SIP URI: {why}; write one like sip:alice@p2psip.org")]
    Aor {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not a well-known service URI (draft §3.3).
    #[error("'{text}' does not name a service: {why}; write one like sip:p2psip.org or turn:p2psip.org")]
    Service {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A scheme that names nothing in an overlay.
    #[error("'{text}' names nothing in an overlay: {why}; write sip:USER@OVERLAY, or sip:, turn: or teredo:OVERLAY")]
    Scheme {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not the text form of a peer id or instance.
    #[error("'{text}' is not {what}: {why}")]
    Identifier {
        /// What was expected.
        what: &'static str,
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A name of another overlay (draft §2, R4).
    #[error("{name} does not belong to overlay {overlay}: its host must be {overlay}")]
    ForeignHost {
        /// The canonical name.
        name: String,
        /// The overlay it was used in.
        overlay: OverlayId,
    },
}

impl NameError {
    /// Always [`Kind::Usage`]: a name is wrong before anybody is asked.
    pub const fn kind(&self) -> Kind {
        Kind::Usage
    }
}

/// Serialises a type through its `Display` and `FromStr`, so that records and JSON carry the canonical text.
macro_rules! text_serde {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
use text_serde;
