//! The revocation list that a member goes by, and how it takes a newer one.

use super::{Core, lock};
use crate::{client::StoreReply, identity::RevocationList, overlay::storer::Storer, record::Refusal};

impl Core {
    /// The sequence of the revocation list; 0 without one.
    pub(in crate::member) fn revocations_sequence(&self) -> u64 {
        self.trust.revocations().map_or(0, |list| list.sequence())
    }

    /// The signed revocation list.
    pub(in crate::member) fn revocations(&self) -> Option<Vec<u8>> {
        self.trust.revocations().map(|list| list.envelope().to_vec())
    }

    /// Takes a revocation list if the CA has signed it and it is newer, and drops the records that it covers.
    pub(in crate::member) fn take_revocations(&self, signed: &[u8]) -> StoreReply {
        let Some(ca) = self.descriptor.ca() else { return StoreReply::Refused(Refusal::UnknownAuthority) };
        let Ok(list) = RevocationList::decode(signed, self.descriptor.overlay(), ca) else {
            return StoreReply::Refused(Refusal::BadSignature);
        };
        if list.sequence() == self.revocations_sequence() {
            return StoreReply::Stored;
        }
        if !self.trust.set_revocations(list.clone()) {
            return StoreReply::Refused(Refusal::Older { held: self.revocations_sequence() });
        }
        let records = self.remove(Storer::remove_revoked);
        let kept = self.stop_keeping(|kept| kept.remove_revoked(&list));
        if let Some(home) = &self.home
            && let Err(error) = home.set_revocations(&list)
        {
            tracing::error!(%error, "the revocation list is held in memory only");
        }
        tracing::info!(records, kept, "took a newer revocation list");
        StoreReply::Stored
    }

    /// Takes the revocation list of the home if somebody has put a newer one there: `p2p-enroll revoke` or `install`.
    pub(in crate::member) fn reread_revocations(&self) {
        let Some(home) = &self.home else { return };
        let changed = std::fs::metadata(home.revocations_path()).and_then(|file| file.modified()).ok();
        if changed.is_none() || std::mem::replace(&mut *lock(&self.list_changed), changed) == changed {
            return;
        }
        match home.revocations() {
            Ok(Some(list)) if list.sequence() > self.revocations_sequence() => {
                self.take_revocations(list.envelope());
            }
            Ok(_) => {}
            Err(error) => tracing::error!("the revocation list in the home is left alone: {error}"),
        }
    }
}
