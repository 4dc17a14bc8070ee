//! Records that clients handed in are stored again and again until they expire: a one-shot tool is gone by then.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::sync::watch;

use super::{Timing, core::Core, sync::spread};
use crate::{
    client::PutReply,
    clock::UnixMs,
    identity::RevocationList,
    name::{InstanceId, Position},
    record::{Refusal, VerifiedRecord},
};

/// Records refreshed at a time.
const AT_A_TIME: usize = 16;
/// Records kept for clients, at the most.
const MAX_KEPT: usize = 50_000;

/// The records that a member keeps alive: of each name and instance the newest, tombstones included.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<(Position, InstanceId), VerifiedRecord>);

/// What became of a record that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It is kept from now on, in place of any older one.
    Kept,
    /// It, or a newer one of its instance, was kept already.
    Known,
    /// There is no room.
    Full,
}

impl Kept {
    /// Keeps a record from now on, unless a newer one of its instance is kept already.
    pub(super) fn insert(&mut self, record: VerifiedRecord) -> Inserted {
        let key = key(&record);
        match self.0.get(&key) {
            Some(held) if held.sequence() >= record.sequence() => Inserted::Known,
            None if self.0.len() >= MAX_KEPT => Inserted::Full,
            _ => {
                self.0.insert(key, record);
                Inserted::Kept
            }
        }
    }

    /// Stops keeping the record of this one's instance, unless it is newer.
    pub(super) fn supersede(&mut self, record: &VerifiedRecord) -> Vec<VerifiedRecord> {
        let key = key(record);
        match self.0.get(&key) {
            Some(held) if held.sequence() <= record.sequence() => self.0.remove(&key).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// How many records are kept.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a record of this instance is kept.
    pub(super) fn contains(&self, position: &Position, instance: &InstanceId) -> bool {
        self.0.contains_key(&(*position, *instance))
    }

    /// Whether this very record is kept.
    pub(super) fn holds(&self, record: &VerifiedRecord) -> bool {
        self.0.get(&key(record)).is_some_and(|held| held == record)
    }

    /// Drops what has expired, and returns it.
    pub(super) fn purge(&mut self, now: UnixMs) -> Vec<VerifiedRecord> {
        self.remove_if(|record| record.is_expired(now))
    }

    /// Drops the records whose certificates are on the list, and returns them.
    pub(super) fn remove_revoked(&mut self, list: &RevocationList) -> Vec<VerifiedRecord> {
        self.remove_if(|record| record.serial().is_some_and(|serial| list.contains(serial)))
    }

    fn remove_if(&mut self, condition: impl Fn(&VerifiedRecord) -> bool) -> Vec<VerifiedRecord> {
        self.0.extract_if(.., |_, record| condition(record)).map(|(_, record)| record).collect()
    }

    /// Every record kept.
    pub(super) fn all(&self) -> Vec<VerifiedRecord> {
        self.0.values().cloned().collect()
    }
}

fn key(record: &VerifiedRecord) -> (Position, InstanceId) {
    (*record.position(), *record.instance())
}

/// Whether a placement came too late: nobody took the record, and somebody holds a newer one of its instance. To go on
/// storing it would be to fight the instance's own change.
pub(super) fn is_superseded(record: &VerifiedRecord, reply: &PutReply) -> bool {
    let newer = |reason: &Refusal| matches!(reason, Refusal::Older { held } if *held >= record.sequence());
    reply.stored.is_empty() && reply.refused.iter().any(|refused| newer(&refused.reason))
}

/// Refreshes what is kept, until the member stops.
pub(super) async fn run(core: Arc<Core>, timing: Timing, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(spread(timing.keep)) => {}
            _ = stopping.changed() => return,
        }
        core.purge_kept();
        let round = futures::stream::iter(core.kept())
            .for_each_concurrent(AT_A_TIME, |record| refresh(&core, record, timing.request * 2));
        tokio::select! {
            () = round => {}
            _ = stopping.changed() => return,
        }
    }
}

async fn refresh(core: &Core, record: VerifiedRecord, timeout: Duration) {
    // A round takes a while, and clients and the CA do not wait for its end.
    if !core.keeps(&record) {
        return;
    }
    let reply = core.place(record.clone(), timeout).await;
    if reply.stored.is_empty() && core.keeps(&record) {
        tracing::warn!(name = %record.name(), silent = reply.silent, "could not refresh a kept record");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        client::Rejected,
        name::PeerId,
        record::testing::{Draft, LIFETIME, NOW, key, overlay},
    };

    fn alice(key: u8, sequence: u64) -> Draft {
        Draft::user("sip:alice@p2psip.org", key).sequence(sequence)
    }

    fn kept(records: &[&VerifiedRecord]) -> Kept {
        let mut kept = Kept::default();
        for record in records {
            assert_eq!(kept.insert((*record).clone()), Inserted::Kept);
        }
        kept
    }

    #[test]
    fn the_newest_record_of_each_instance_is_kept() {
        let [old, new] = [alice(1, 1_000), alice(1, 2_000)].map(Draft::unverified);
        let (other, bob) = (alice(2, 1_000).unverified(), Draft::user("sip:bob@p2psip.org", 1).unverified());
        let mut kept = kept(&[&old, &other, &bob, &new]);
        assert_eq!(kept.len(), 3);
        assert!(kept.holds(&new) && kept.holds(&other) && kept.holds(&bob) && !kept.holds(&old));
        for known in [&old, &new] {
            assert_eq!(kept.insert(known.clone()), Inserted::Known);
        }
        assert!(kept.holds(&new));
        assert!(kept.contains(new.position(), new.instance()));
        assert!(!kept.contains(new.position(), alice(3, 1).unverified().instance()));
    }

    #[test]
    fn a_tombstone_takes_the_place_of_what_it_removes() {
        let [binding, tombstone] = [alice(1, 1_000), alice(1, 2_000).removed()].map(Draft::unverified);
        let mut kept = kept(&[&binding, &tombstone]);
        assert_eq!(kept.insert(binding), Inserted::Known);
        assert_eq!(kept.all(), [tombstone]);
    }

    #[test]
    fn what_is_superseded_is_dropped_and_what_is_newer_stays() {
        let [old, new] = [alice(1, 1_000), alice(1, 2_000)].map(Draft::unverified);
        let other = alice(2, 500).unverified();
        let mut kept = kept(&[&new, &other]);
        assert_eq!(kept.supersede(&old), [], "a client has renewed it meanwhile");
        assert_eq!(kept.supersede(&new), std::slice::from_ref(&new));
        assert_eq!(kept.supersede(&new), []);
        assert_eq!(kept.insert(old.clone()), Inserted::Kept);
        assert_eq!(kept.supersede(&new), [old]);
        assert_eq!(kept.all(), [other]);
    }

    #[test]
    fn only_a_newer_record_that_nobody_contradicts_supersedes() {
        let record = alice(1, 1_000).unverified();
        let peer = PeerId::from_public_key([9; 32]);
        let reply = |stored: &[PeerId], reasons: &[Refusal]| PutReply {
            stored: stored.to_vec(),
            refused: reasons.iter().map(|reason| Rejected { peer, reason: reason.clone() }).collect(),
            ..Default::default()
        };
        let older = |held| Refusal::Older { held };
        assert!(is_superseded(&record, &reply(&[], &[Refusal::StoreFull, older(1_001)])));
        assert!(is_superseded(&record, &reply(&[], &[older(1_000)])), "the octets decide");
        assert!(!is_superseded(&record, &reply(&[], &[older(999)])), "that is not newer");
        assert!(!is_superseded(&record, &reply(&[peer], &[older(1_001)])));
        assert!(!is_superseded(&record, &reply(&[], &[Refusal::StoreFull, Refusal::NotResponsible])));
        assert!(!is_superseded(&record, &reply(&[], &[])), "nobody to ask");
    }

    #[test]
    fn what_has_expired_is_dropped() {
        let [early, late] = [alice(1, NOW.0), alice(2, NOW.0 + 1)].map(Draft::unverified);
        let mut kept = kept(&[&early, &late]);
        assert_eq!(kept.purge(UnixMs(NOW.0 + LIFETIME - 1)), []);
        assert_eq!(kept.purge(UnixMs(NOW.0 + LIFETIME)), [early]);
        assert_eq!(kept.all(), [late]);
    }

    #[test]
    fn what_is_signed_with_a_revoked_certificate_is_dropped() {
        // A draft's serial number is that of its key.
        let [one, two, open] = [alice(1, 1).enrolled(), alice(2, 1).enrolled(), alice(3, 1)].map(Draft::unverified);
        let mut kept = kept(&[&one, &two, &open]);
        let list = |serials: &[&str]| {
            let serials: BTreeMap<_, _> = serials.iter().map(|serial| ((*serial).to_owned(), NOW)).collect();
            RevocationList::sign(overlay(), 1, NOW, serials, &key(9)).unwrap()
        };
        assert_eq!(kept.remove_revoked(&list(&["03", "04"])), []);
        assert_eq!(kept.remove_revoked(&list(&["02", "03"])), [two]);
        assert_eq!(kept.len(), 2);
    }
}
