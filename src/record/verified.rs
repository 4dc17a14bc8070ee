//! What the rest of the program believes: records that have been verified.

use std::{collections::BTreeMap, fmt, sync::Arc};

use sha2::{Digest, Sha256};

use super::{Body, Payload};
use crate::{
    clock::UnixMs,
    identity::PublicKey,
    name::{InstanceId, Position, ResourceName},
};

/// A record that [`Trust::verify`](super::Trust::verify) has found genuine and unexpired. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedRecord(Arc<Fields>);

#[derive(PartialEq, Eq)]
struct Fields {
    payload: Payload,
    position: Position,
    instance: InstanceId,
    signer: PublicKey,
    serial: Option<String>,
    pinned: bool,
    envelope: Arc<[u8]>,
    digest: [u8; 32],
}

impl VerifiedRecord {
    /// What a verifier has seen to be true: only for [`Trust::verify`](super::Trust::verify), and for tests.
    pub(super) fn new(
        payload: Payload,
        signer: PublicKey,
        serial: Option<String>,
        pinned: bool,
        envelope: &[u8],
    ) -> Self {
        Self(Arc::new(Fields {
            position: payload.name.position(),
            instance: signer.instance(),
            payload,
            signer,
            serial,
            pinned,
            envelope: envelope.into(),
            digest: Sha256::digest(envelope).into(),
        }))
    }

    /// The name it is stored under.
    pub fn name(&self) -> &ResourceName {
        &self.0.payload.name
    }

    /// Where it is stored: the name's position.
    pub fn position(&self) -> &Position {
        &self.0.position
    }

    /// The instance that wrote it: the hash of the key that signed it.
    pub fn instance(&self) -> &InstanceId {
        &self.0.instance
    }

    /// The key that signed it.
    pub fn signer(&self) -> PublicKey {
        self.0.signer
    }

    /// The serial number of the signer's certificate; `None` in an overlay of open policy.
    pub fn serial(&self) -> Option<&str> {
        self.0.serial.as_deref()
    }

    /// Whether the signer's key was pinned for the name when the record was verified.
    pub fn is_pinned(&self) -> bool {
        self.0.pinned
    }

    /// Orders the records of one instance.
    pub fn sequence(&self) -> u64 {
        self.0.payload.sequence
    }

    /// When it stops to hold.
    pub fn expires(&self) -> UnixMs {
        self.0.payload.expires
    }

    /// Whether it has stopped to hold.
    pub fn is_expired(&self, now: UnixMs) -> bool {
        self.expires() <= now
    }

    /// What it says.
    pub fn body(&self) -> &Body {
        &self.0.payload.body
    }

    /// All that was signed.
    pub fn payload(&self) -> &Payload {
        &self.0.payload
    }

    /// Whether it removes the instance's binding.
    pub fn is_tombstone(&self) -> bool {
        self.0.payload.is_tombstone()
    }

    /// The octets that were verified.
    pub fn envelope(&self) -> &[u8] {
        &self.0.envelope
    }

    /// The octets that were verified, without copying them.
    pub fn shared_envelope(&self) -> Arc<[u8]> {
        Arc::clone(&self.0.envelope)
    }

    /// The SHA-256 of the envelope.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0.digest
    }
}

impl fmt::Debug for VerifiedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedRecord")
            .field("payload", &self.0.payload)
            .field("instance", &self.0.instance)
            .finish_non_exhaustive()
    }
}

/// Whether nobody can tell whose an AOR is: in an overlay of open policy several keys have signed for the same user,
/// and none of them is pinned. Tombstones do not count.
///
/// A service is never contested: it has as many providers as offer it, and under the policy open anybody may.
pub fn contested(records: &[VerifiedRecord]) -> bool {
    let mut signers: BTreeMap<&ResourceName, Vec<&VerifiedRecord>> = BTreeMap::new();
    let counts = |record: &&VerifiedRecord| {
        matches!(record.name(), ResourceName::User(_)) && record.serial().is_none() && !record.is_tombstone()
    };
    for record in records.iter().filter(counts) {
        signers.entry(record.name()).or_default().push(record);
    }
    signers.values().any(|records| {
        records.windows(2).any(|pair| matches!(pair, [one, other] if one.signer() != other.signer()))
            && !records.iter().any(|record| record.is_pinned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::testing::{self, Draft};

    #[test]
    fn a_user_with_several_unpinned_signers_is_contested() {
        let alice = |key: u8| Draft::user("sip:alice@p2psip.org", key);
        let record = |draft: Draft| draft.unverified();
        assert!(!contested(&[]));
        assert!(!contested(&[record(alice(1)), record(alice(1).sequence(2_000))]));
        assert!(contested(&[record(alice(1)), record(alice(2))]));
        assert!(!contested(&[record(alice(1)), record(alice(2).removed())]));
        assert!(!contested(&[record(alice(1)), record(Draft::user("sip:bob@p2psip.org", 2))]));
        assert!(!contested(&[record(alice(1)), record(alice(2).pinned())]));
        assert!(!contested(&[record(alice(1).enrolled()), record(alice(2).enrolled())]));
    }

    #[test]
    fn a_service_with_several_providers_is_not_contested() {
        let proxy = |key: u8| Draft::service("sip:p2psip.org", key).unverified();
        let turn = |key: u8| Draft::service("turn:p2psip.org", key).unverified();
        assert!(!contested(&[proxy(1), proxy(2)]));
        assert!(!contested(&[turn(1), turn(2), turn(3)]));
        let alice = |key: u8| Draft::user("sip:alice@p2psip.org", key).unverified();
        assert!(contested(&[proxy(1), alice(1), proxy(2), alice(2)]));
    }

    #[test]
    fn an_instance_is_its_signing_key() {
        let record = Draft::user("sip:alice@p2psip.org", 7).unverified();
        assert_eq!(*record.instance(), testing::key(7).instance());
        assert_eq!(*record.position(), Position::of_name("sip:alice@p2psip.org"));
    }
}
