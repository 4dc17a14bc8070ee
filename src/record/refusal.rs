//! Why a storer does not keep a record, or a reader does not believe one.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    clock::UnixMs,
    kind::Kind,
    name::{InstanceId, OverlayId, ResourceName, ServiceNode},
};

/// The longest text of another's that a refusal carries, in octets.
const MAX_TEXT: usize = 200;

/// Why a record is not stored, or not believed.
///
/// Storers send it back and readers report it, so it is as much data as error: it survives the wire, has one line
/// for people (`Display`) and one word for programs ([`Refusal::code`], which is also its tag on the wire).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Refusal {
    /// Not an envelope, or what is in it has not the shape it should have.
    #[error("the record is malformed: {why}")]
    Malformed {
        /// What is wrong. Cut short and without control characters if another peer said so.
        #[serde(deserialize_with = "short_text")]
        why: String,
    },
    /// Larger than the overlay's records may be.
    #[error("the record is too large: {bytes} bytes, where the overlay takes {limit}")]
    TooLarge {
        /// The envelope's octets.
        bytes: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The name belongs to another overlay (draft §2 and §4.1; R4, R22).
    #[error("the name belongs to {host}, not to this overlay: register it there")]
    ForeignOverlay {
        /// The host of the name.
        host: OverlayId,
    },
    /// A genuine record, perhaps, but not of the name that was looked up.
    #[error("the record is one of {found}, not of {expected}")]
    WrongName {
        /// The name looked up.
        expected: ResourceName,
        /// The name in the record.
        found: ResourceName,
    },
    /// The signature is not the one that the key would have made.
    #[error("the signature is wrong: the record was forged or damaged")]
    BadSignature,
    /// The certificate was not issued by this overlay's CA.
    #[error("the certificate was not issued by this overlay's CA: enrol in this overlay")]
    UnknownAuthority,
    /// The certificate is no longer valid.
    #[error("the certificate expired at {}: renew the enrolment", Utc(*.at))]
    CertificateExpired {
        /// Since when.
        at: UnixMs,
    },
    /// The certificate is not valid yet.
    #[error("the certificate is not valid yet: compare the clocks")]
    CertificateNotYetValid,
    /// The overlay's CA has revoked the certificate.
    #[error("certificate {serial} has been revoked")]
    Revoked {
        /// The certificate's serial number, in hexadecimal.
        #[serde(deserialize_with = "short_text")]
        serial: String,
    },
    /// The certificate is good, but for other names.
    #[error("the certificate does not name the URI of the record: enrol for that URI")]
    NotNamed,
    /// The overlay's policy asks for a certificate and the record has none (R23).
    #[error("the overlay takes enrolled members only and the record has no certificate: enrol first")]
    NoCredentials,
    /// Signed by another key than those the reader has pinned for the name (open policy).
    #[error("the record was signed by {signer}, which is not a key pinned for its name")]
    NotPinned {
        /// The instance whose key signed.
        signer: InstanceId,
    },
    /// The record has expired.
    #[error("the record expired at {}", Utc(*.at))]
    Expired {
        /// Since when.
        at: UnixMs,
    },
    /// The sequence, which is the writer's clock, is too far ahead.
    #[error("the record was written {by_ms} ms in the future: compare the clocks")]
    FromTheFuture {
        /// How far ahead, in milliseconds.
        by_ms: u64,
    },
    /// The record asks to be kept longer than the overlay's policy allows.
    #[error("the record wants to live for {s} s, where the overlay allows {max_s} s")]
    LifetimeTooLong {
        /// The lifetime asked for, in seconds, rounded up.
        s: u64,
        /// The longest allowed, in seconds.
        max_s: u64,
    },
    /// A newer record of the same instance is held.
    #[error("a newer record of this instance is held (sequence {held})")]
    Older {
        /// The sequence held.
        held: u64,
    },
    /// The name has as many newer instances as it may have.
    #[error("the name has {limit} instances with newer records, and may not have more")]
    TooManyInstances {
        /// How many it may have.
        limit: u32,
    },
    /// A service record for a node of the service's tree whose range the provider does not lie in.
    #[error("the provider's position does not lie in the range of tree node {node}")]
    OutsideRange {
        /// The tree node.
        node: ServiceNode,
    },
    /// Others are responsible for the name.
    #[error("the peer is not responsible for this name")]
    NotResponsible,
    /// The storer holds as much as it is willing to.
    #[error("the storer is full")]
    StoreFull,
    /// The sender has used up its share for now.
    #[error("too many requests: wait a moment")]
    Throttled,
}

impl Refusal {
    /// A malformed record, and what is wrong with it.
    pub fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed { why: why.into() }
    }

    /// The reason as one word for programs: the tag that this refusal has on the wire.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too-large",
            Self::ForeignOverlay { .. } => "foreign-overlay",
            Self::WrongName { .. } => "wrong-name",
            Self::BadSignature => "bad-signature",
            Self::UnknownAuthority => "unknown-authority",
            Self::CertificateExpired { .. } => "certificate-expired",
            Self::CertificateNotYetValid => "certificate-not-yet-valid",
            Self::Revoked { .. } => "revoked",
            Self::NotNamed => "not-named",
            Self::NoCredentials => "no-credentials",
            Self::NotPinned { .. } => "not-pinned",
            Self::Expired { .. } => "expired",
            Self::FromTheFuture { .. } => "from-the-future",
            Self::LifetimeTooLong { .. } => "lifetime-too-long",
            Self::Older { .. } => "older",
            Self::TooManyInstances { .. } => "too-many-instances",
            Self::OutsideRange { .. } => "outside-range",
            Self::NotResponsible => "not-responsible",
            Self::StoreFull => "store-full",
            Self::Throttled => "throttled",
        }
    }

    /// Whether the record itself is at fault, so that a reader who found it says "found, but not to be trusted";
    /// the other reasons are a storer's own.
    pub const fn is_untrusted(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::ForeignOverlay { .. }
            | Self::WrongName { .. }
            | Self::BadSignature
            | Self::UnknownAuthority
            | Self::CertificateExpired { .. }
            | Self::CertificateNotYetValid
            | Self::Revoked { .. }
            | Self::NotNamed
            | Self::NoCredentials
            | Self::NotPinned { .. }
            | Self::Expired { .. }
            | Self::FromTheFuture { .. }
            | Self::LifetimeTooLong { .. }
            | Self::OutsideRange { .. } => true,
            Self::Older { .. }
            | Self::TooManyInstances { .. }
            | Self::NotResponsible
            | Self::StoreFull
            | Self::Throttled => false,
        }
    }

    /// [`Kind::Untrusted`] if the record is at fault, otherwise [`Kind::Negative`].
    pub const fn kind(&self) -> Kind {
        if self.is_untrusted() { Kind::Untrusted } else { Kind::Negative }
    }
}

/// A time of day for people: RFC 3339, in whole seconds; milliseconds since 1970 where no calendar reaches.
struct Utc(UnixMs);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0.0 / 1000).ok();
        let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        match time.and_then(|time| time.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// Text that came from another peer: at most [`MAX_TEXT`] octets, control characters replaced, because it ends up in
/// logs and on terminals.
fn short_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut text = String::deserialize(deserializer)?;
    let end = (0..=MAX_TEXT).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    text.truncate(end);
    Ok(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Aor;

    /// One refusal of each sort.
    fn all() -> Vec<Refusal> {
        let name = |user: &str| ResourceName::User(Aor::parse(&format!("sip:{user}@p2psip.org")).unwrap());
        let at = UnixMs(1_700_000_000_123);
        vec![
            Refusal::malformed("it is empty"),
            Refusal::TooLarge { bytes: 9000, limit: 8192 },
            Refusal::ForeignOverlay { host: OverlayId::parse("example.com").unwrap() },
            Refusal::WrongName { expected: name("alice"), found: name("bob") },
            Refusal::BadSignature,
            Refusal::UnknownAuthority,
            Refusal::CertificateExpired { at },
            Refusal::CertificateNotYetValid,
            Refusal::Revoked { serial: "0a1b".to_owned() },
            Refusal::NotNamed,
            Refusal::NoCredentials,
            Refusal::NotPinned { signer: InstanceId::of_key(&[7; 32]) },
            Refusal::Expired { at },
            Refusal::FromTheFuture { by_ms: 31_000 },
            Refusal::LifetimeTooLong { s: 90_000, max_s: 86_400 },
            Refusal::Older { held: u64::MAX },
            Refusal::TooManyInstances { limit: 32 },
            Refusal::OutsideRange { node: ServiceNode::parse("turn:p2psip.org#2/3").unwrap() },
            Refusal::NotResponsible,
            Refusal::StoreFull,
            Refusal::Throttled,
        ]
    }

    #[test]
    fn a_refusal_survives_the_wire_and_is_tagged_with_its_code() {
        for refusal in all() {
            let mut cbor = Vec::new();
            ciborium::into_writer(&refusal, &mut cbor).unwrap();
            assert_eq!(ciborium::from_reader::<Refusal, _>(&cbor[..]).unwrap(), refusal);
            let json = serde_json::to_value(&refusal).unwrap();
            assert_eq!(json["code"], refusal.code());
            assert_eq!(serde_json::from_value::<Refusal>(json).unwrap(), refusal);
        }
    }

    #[test]
    fn each_refusal_has_one_line_and_a_code_of_its_own() {
        let mut codes = std::collections::BTreeSet::new();
        for refusal in all() {
            let line = refusal.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
            assert!(codes.insert(refusal.code()), "{}", refusal.code());
        }
        assert_eq!(
            Refusal::Expired { at: UnixMs(1_700_000_000_123) }.to_string(),
            "the record expired at 2023-11-14T22:13:20Z"
        );
        assert_eq!(
            Refusal::Expired { at: UnixMs(u64::MAX) }.to_string(),
            "the record expired at 18446744073709551615 ms"
        );
    }

    #[test]
    fn a_storers_own_reasons_say_nothing_against_the_record() {
        let own: Vec<_> = all().into_iter().filter(|refusal| !refusal.is_untrusted()).collect();
        let codes: Vec<_> = own.iter().map(Refusal::code).collect();
        assert_eq!(codes, ["older", "too-many-instances", "not-responsible", "store-full", "throttled"]);
        assert!(own.iter().all(|refusal| refusal.kind() == Kind::Negative));
        assert_eq!(Refusal::BadSignature.kind(), Kind::Untrusted);
    }

    #[test]
    fn another_peers_text_is_cut_short_and_made_harmless() {
        let why = format!("\u{1b}[2J{}", "ü".repeat(500));
        let json = serde_json::json!({ "code": "malformed", "why": why });
        let Refusal::Malformed { why } = serde_json::from_value(json).unwrap() else { panic!() };
        assert!(why.starts_with("\u{fffd}[2Jü") && why.len() <= MAX_TEXT + 2, "{why}");
    }
}
