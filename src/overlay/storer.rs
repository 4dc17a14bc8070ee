//! A storer: the records that a peer is responsible for, and how it answers for them. Pure.
//!
//! Whether the peer is responsible for a name at all, and whether the sender has used up its share, is the caller's to
//! decide ([`Refusal::NotResponsible`], [`Refusal::Throttled`]). Signatures are expensive, so they can be verified
//! elsewhere ([`Trust::verify`]) and the outcome merged here ([`Storer::insert`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_bytes::ByteBuf;

use super::persist::RecordKey;
use crate::{
    client::{self, DigestReply, HeldRecord, HeldReply, MAX_FRAME},
    clock::UnixMs,
    name::Position,
    record::{Dictionary, Merge, Refusal, Trust, VerifiedRecord},
};

/// The most dictionaries that one digest compares.
pub const MAX_DIGEST: usize = 1000;
/// What a reply needs for its own fields, in octets, besides the positions and envelopes in it.
const REPLY_OVERHEAD: usize = 128;
/// An encoded position: 32 octets and their length.
const POSITION_SIZE: usize = 34;
/// The length that precedes an envelope.
const ENVELOPE_OVERHEAD: usize = 5;
/// How much of a frame the envelopes of one name may fill; the rest is for the closer peers.
const FETCH_BUDGET: usize = MAX_FRAME / 8 * 7;

/// How much a storer is willing to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorerLimits {
    /// Names.
    pub max_names: usize,
    /// Octets of envelopes. A record takes about three times its envelope in memory.
    pub max_bytes: usize,
}

impl Default for StorerLimits {
    fn default() -> Self {
        Self { max_names: 100_000, max_bytes: 64 << 20 }
    }
}

/// What a storer holds.
#[derive(Debug)]
pub struct Storer {
    trust: Arc<Trust>,
    limits: StorerLimits,
    /// None of the dictionaries is empty.
    names: BTreeMap<Position, Dictionary>,
    records: usize,
    bytes: usize,
}

/// How much a storer holds, expired records that have not been purged included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Names.
    pub names: usize,
    /// Records, tombstones included.
    pub records: usize,
    /// Octets of their envelopes.
    pub bytes: usize,
}

/// What a record changed when it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The instance had no record under this name.
    New,
    /// It replaced an older record of its instance.
    Renewed,
    /// Nothing: it was held already.
    Same,
}

/// A record that is held now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub record: VerifiedRecord,
    /// What it changed.
    pub change: Change,
    /// Records of other instances of the name that had to go for it: expired, or the oldest of too many.
    pub removed: Vec<VerifiedRecord>,
}

/// What became of the records of a previous run.
#[derive(Debug, Default)]
pub struct Restored {
    /// How many are held again.
    pub records: usize,
    /// Those that can never be held again and may be deleted: expired, revoked, damaged, crowded out.
    pub obsolete: Vec<RecordKey>,
    /// How many were refused, by [`Refusal::code`].
    pub refused: BTreeMap<&'static str, usize>,
}

impl Storer {
    /// A storer that holds nothing.
    pub fn new(trust: Arc<Trust>, limits: StorerLimits) -> Self {
        Self { trust, limits, names: BTreeMap::new(), records: 0, bytes: 0 }
    }

    /// What it verifies records by.
    pub const fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The unexpired envelopes at a position, tombstones included, newest first: one an instance, and no more than
    /// fit a frame.
    pub fn fetch(&self, target: &Position, now: UnixMs) -> Vec<Arc<[u8]>> {
        let mut budget = FETCH_BUDGET;
        self.newest_first(target, now)
            .into_iter()
            .filter(|record| spend(&mut budget, record.envelope().len() + ENVELOPE_OVERHEAD))
            .map(VerifiedRecord::shared_envelope)
            .collect()
    }

    /// The unexpired records at a position, tombstones included, newest first.
    pub fn records(&self, target: &Position, now: UnixMs) -> Vec<VerifiedRecord> {
        self.newest_first(target, now).into_iter().cloned().collect()
    }

    fn newest_first(&self, target: &Position, now: UnixMs) -> Vec<&VerifiedRecord> {
        let mut records: Vec<_> = self.names.get(target).into_iter().flat_map(|held| held.all(now)).collect();
        records.sort_by_key(|record| std::cmp::Reverse((record.sequence(), *record.instance())));
        records
    }

    /// Verifies a record and merges it.
    ///
    /// # Errors
    /// Those of [`Trust::verify`] and [`Storer::insert`].
    pub fn store(&mut self, envelope: &[u8], now: UnixMs) -> Result<Stored, Refusal> {
        self.insert(self.trust.verify(envelope, None, now)?, now)
    }

    /// Merges a record that this storer's [`Trust`] has verified, perhaps some time ago.
    ///
    /// # Errors
    /// [`Refusal::Expired`] and [`Refusal::Revoked`] if that has happened meanwhile; [`Refusal::Older`],
    /// [`Refusal::TooManyInstances`], [`Refusal::StoreFull`].
    pub fn insert(&mut self, record: VerifiedRecord, now: UnixMs) -> Result<Stored, Refusal> {
        if record.is_expired(now) {
            return Err(Refusal::Expired { at: record.expires() });
        }
        if let Some(serial) = record.serial().filter(|serial| self.trust.is_revoked(serial)) {
            return Err(Refusal::Revoked { serial: serial.to_owned() });
        }
        let max_instances = self.trust.descriptor().limits().max_instances;
        let held = self.names.get(record.position());
        let replaced = held.and_then(|held| held.get(record.instance()));
        if held.is_none() && self.names.len() >= self.limits.max_names
            || self.bytes + record.envelope().len()
                > self.limits.max_bytes + replaced.map_or(0, |replaced| replaced.envelope().len())
        {
            return Err(Refusal::StoreFull);
        }
        // Expired records make room for another instance before a live one must.
        let crowded = replaced.is_none() && held.is_some_and(|held| held.len() >= max_instances);
        let dictionary = self.names.entry(*record.position()).or_default();
        let mut removed = if crowded { dictionary.purge(now) } else { Vec::new() };
        let merge = dictionary.merge(record.clone(), max_instances);
        let (change, replaced) = match merge {
            Merge::Stored { replaced, evicted } => {
                removed.extend(evicted);
                (if replaced.is_some() { Change::Renewed } else { Change::New }, replaced)
            }
            Merge::Same => return Ok(Stored { record, change: Change::Same, removed }),
            Merge::Older { held } => return Err(Refusal::Older { held }),
            Merge::TooManyInstances => {
                return Err(Refusal::TooManyInstances { limit: u32::try_from(max_instances).unwrap_or(u32::MAX) });
            }
        };
        self.records += 1;
        self.bytes += record.envelope().len();
        self.forget(&removed);
        self.forget(replaced.as_slice());
        Ok(Stored { record, change, removed })
    }

    /// Counts records as gone.
    fn forget(&mut self, removed: &[VerifiedRecord]) {
        self.records -= removed.len();
        self.bytes -= removed.iter().map(|record| record.envelope().len()).sum::<usize>();
    }

    /// Verifies and merges the records of a previous run, all or some of them at a time.
    pub fn restore(&mut self, records: impl IntoIterator<Item = (RecordKey, Vec<u8>)>, now: UnixMs) -> Restored {
        let mut restored = Restored::default();
        for (key, envelope) in records {
            let outcome = self.trust.verify(&envelope, None, now).and_then(|record| {
                if RecordKey::from(&record) == key {
                    self.insert(record, now)
                } else {
                    Err(Refusal::malformed("it is filed under another record's key"))
                }
            });
            match outcome {
                Ok(stored) => {
                    restored.records += 1;
                    restored.obsolete.extend(stored.removed.iter().map(RecordKey::from));
                }
                Err(refusal) => {
                    *restored.refused.entry(refusal.code()).or_default() += 1;
                    // A newer record may have come over the network, and be on disk under this key by now.
                    if !may_pass(&refusal) && !self.holds(&key) {
                        restored.obsolete.push(key);
                    }
                }
            }
        }
        restored
    }

    fn holds(&self, key: &RecordKey) -> bool {
        let held = self.names.get(&key.position());
        held.is_some_and(|held| held.iter().any(|record| RecordKey::from(record) == *key))
    }

    /// Position and fingerprint of what is held at the positions that `filter` picks, in the order of the positions.
    /// A [`client::Digest`] takes [`MAX_DIGEST`] of them.
    pub fn digest(&self, filter: impl Fn(&Position) -> bool, now: UnixMs) -> Vec<(Position, u64)> {
        self.names
            .iter()
            .filter(|(position, _)| filter(position))
            .map(|(position, held)| (*position, held.fingerprint(now)))
            .filter(|(_, fingerprint)| *fingerprint != 0)
            .collect()
    }

    /// Answers another storer's digest: where the two differ, what is held here, and which of the two has the newer
    /// revocation list. Only whole dictionaries are sent, and no more than fit `budget` octets; what is left out comes
    /// with a later digest, when the rest no longer differs. Of the digest, [`MAX_DIGEST`] entries are looked at.
    pub fn answer_digest(&self, digest: &client::Digest, now: UnixMs, budget: usize) -> DigestReply {
        let mut reply = DigestReply::default();
        let mut budget = budget.min(MAX_FRAME).saturating_sub(REPLY_OVERHEAD);
        let list = self.trust.revocations();
        let sequence = list.as_ref().map_or(0, |list| list.sequence());
        reply.wants_revocations = sequence < digest.revocations;
        reply.revocations = list
            .filter(|_| sequence > digest.revocations)
            .filter(|list| spend(&mut budget, list.envelope().len() + ENVELOPE_OVERHEAD))
            .map(|list| ByteBuf::from(list.envelope()));
        let mut seen = BTreeSet::new();
        for (position, fingerprint) in digest.dictionaries.iter().take(MAX_DIGEST) {
            let held = self.names.get(position);
            let differs = held.map_or(0, |held| held.fingerprint(now)) != *fingerprint;
            if differs && seen.insert(*position) && spend(&mut budget, POSITION_SIZE) {
                reply.differing.push(*position);
            }
        }
        for position in &reply.differing {
            let held = self.newest_first(position, now);
            let size = held.iter().map(|record| record.envelope().len() + ENVELOPE_OVERHEAD).sum();
            if spend(&mut budget, size) {
                reply.envelopes.extend(held.iter().map(|record| ByteBuf::from(record.envelope())));
            }
        }
        reply
    }

    /// What is held, in the order of names and instances, and how much there is in all. The caller knows which records
    /// it keeps alive; here none is marked as such.
    pub fn held(&self, now: UnixMs, limit: usize) -> HeldReply {
        let mut records: Vec<_> = self.names.values().flat_map(|held| held.all(now)).collect();
        let total = u32::try_from(records.len()).unwrap_or(u32::MAX);
        records.sort_by_key(|record| (record.name(), record.instance()));
        let records = records.into_iter().take(limit).map(|record| HeldRecord {
            name: record.name().clone(),
            instance: *record.instance(),
            sequence: record.sequence(),
            expires_ms: record.expires(),
            tombstone: record.is_tombstone(),
            kept: false,
        });
        HeldReply { records: records.collect(), total }
    }

    /// Removes what has expired, and returns it.
    pub fn purge(&mut self, now: UnixMs) -> Vec<VerifiedRecord> {
        self.retain(|record| !record.is_expired(now))
    }

    /// Removes the records whose certificates have been revoked, and returns them. Due after
    /// [`Trust::set_revocations`].
    pub fn remove_revoked(&mut self) -> Vec<VerifiedRecord> {
        let Some(list) = self.trust.revocations() else { return Vec::new() };
        self.retain(|record| !record.serial().is_some_and(|serial| list.contains(serial)))
    }

    fn retain(&mut self, keep: impl Fn(&VerifiedRecord) -> bool) -> Vec<VerifiedRecord> {
        let mut removed = Vec::new();
        self.names.retain(|_, held| {
            removed.extend(held.retain(&keep));
            !held.is_empty()
        });
        self.forget(&removed);
        removed
    }

    /// How much is held.
    pub fn counts(&self) -> Counts {
        Counts { names: self.names.len(), records: self.records, bytes: self.bytes }
    }

    /// The positions at which something is held, in ascending order.
    pub fn positions(&self) -> impl Iterator<Item = &Position> {
        self.names.keys()
    }
}

/// Takes `size` from the budget, if there is as much.
fn spend(budget: &mut usize, size: usize) -> bool {
    match budget.checked_sub(size) {
        Some(left) => {
            *budget = left;
            true
        }
        None => false,
    }
}

/// Whether a record refused for this reason may be taken another time: with a better clock, or with more room.
const fn may_pass(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::FromTheFuture { .. } | Refusal::CertificateNotYetValid | Refusal::StoreFull | Refusal::Throttled
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        client::{Digest, encode},
        identity::Limits,
        name::ResourceName,
        record::testing::{self, Draft, Enrolled, LIFETIME, NOW},
    };

    const ALICE: &str = "sip:alice@p2psip.org";

    fn storer_with(limits: StorerLimits) -> Storer {
        Storer::new(testing::open(Limits { max_instances: 4, ..Limits::default() }), limits)
    }

    fn storer() -> Storer {
        storer_with(StorerLimits::default())
    }

    fn user(nth: u32, key: u8) -> Draft {
        Draft::user(&format!("sip:user-{nth}@p2psip.org"), key)
    }

    fn put(storer: &mut Storer, draft: Draft) -> Result<Stored, Refusal> {
        storer.insert(draft.unverified(), NOW)
    }

    fn change(stored: Result<Stored, Refusal>) -> Change {
        stored.unwrap().change
    }

    fn alice() -> Position {
        Position::of_name(ALICE)
    }

    #[test]
    fn what_is_stored_is_fetched_and_nothing_else_is() {
        let mut storer = storer();
        let envelope = Draft::user(ALICE, 1).seal(None);
        assert_eq!(change(storer.store(&envelope, NOW)), Change::New);
        assert_eq!(change(storer.store(&envelope, NOW)), Change::Same);
        assert_eq!(*storer.fetch(&alice(), NOW)[0], envelope);
        let renewal = Draft::user(ALICE, 1).sequence(NOW.0 + 1).seal(None);
        assert_eq!(change(storer.store(&renewal, NOW)), Change::Renewed);
        assert_eq!(storer.store(&envelope, NOW).unwrap_err(), Refusal::Older { held: NOW.0 + 1 });
        assert_eq!(*storer.fetch(&alice(), NOW)[0], renewal);
        let expected = Counts { names: 1, records: 1, bytes: renewal.len() };
        assert_eq!(storer.counts(), expected);

        let mut forged = Draft::user(ALICE, 1).sequence(NOW.0 + 2).seal(None);
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(storer.store(&forged, NOW).unwrap_err(), Refusal::BadSignature);
        assert_eq!(storer.fetch(&alice(), NOW).len(), 1);
        assert!(storer.fetch(&Position::of_name("sip:bob@p2psip.org"), NOW).is_empty());
    }

    #[test]
    fn tombstones_are_fetched_too_and_the_newest_comes_first() {
        let mut storer = storer();
        put(&mut storer, Draft::user(ALICE, 1)).unwrap();
        put(&mut storer, Draft::user(ALICE, 2).sequence(NOW.0 + 2).removed()).unwrap();
        put(&mut storer, Draft::user(ALICE, 3).sequence(NOW.0 + 1)).unwrap();
        let keys: Vec<_> = storer.records(&alice(), NOW).iter().map(VerifiedRecord::signer).collect();
        assert_eq!(keys, [2, 3, 1].map(|key| testing::key(key).public()));
        assert_eq!(storer.records(&alice(), UnixMs(NOW.0 + LIFETIME + 1)).len(), 1);
        assert_eq!(storer.fetch(&alice(), UnixMs(NOW.0 + LIFETIME + 2)).len(), 0);
    }

    #[test]
    fn fetching_copies_no_envelope() {
        let mut storer = storer();
        let record = put(&mut storer, Draft::user(ALICE, 1)).unwrap().record;
        assert!(Arc::ptr_eq(&record.shared_envelope(), &storer.fetch(&alice(), NOW)[0]));
    }

    #[test]
    fn a_full_storer_renews_what_it_holds_and_refuses_the_rest() {
        let size = user(0, 1).unverified().envelope().len();
        let mut storer = storer_with(StorerLimits { max_names: 2, max_bytes: usize::MAX / 2 });
        put(&mut storer, user(0, 1)).unwrap();
        put(&mut storer, user(1, 1).expires(UnixMs(NOW.0 + 10))).unwrap();
        assert_eq!(put(&mut storer, user(2, 1)).unwrap_err(), Refusal::StoreFull);
        assert_eq!(change(put(&mut storer, user(0, 1).sequence(NOW.0 + 1))), Change::Renewed);
        assert_eq!(change(put(&mut storer, user(0, 2))), Change::New);
        storer.purge(UnixMs(NOW.0 + 10));
        assert_eq!(change(put(&mut storer, user(2, 1))), Change::New);

        let mut storer = storer_with(StorerLimits { max_names: 9, max_bytes: 2 * size });
        put(&mut storer, user(0, 1)).unwrap();
        put(&mut storer, user(0, 2)).unwrap();
        assert_eq!(put(&mut storer, user(0, 3)).unwrap_err(), Refusal::StoreFull);
        assert_eq!(put(&mut storer, user(1, 1)).unwrap_err(), Refusal::StoreFull);
        assert_eq!(change(put(&mut storer, user(0, 1).sequence(NOW.0 + 1))), Change::Renewed);
        // A tombstone is smaller.
        put(&mut storer, user(0, 1).sequence(NOW.0 + 2).removed()).unwrap();
        assert!(storer.counts().bytes < 2 * size);
    }

    #[test]
    fn of_too_many_instances_the_oldest_goes_but_expired_ones_go_first() {
        let mut storer = storer();
        for key in 1..=4 {
            put(&mut storer, Draft::user(ALICE, key).sequence(NOW.0 - 100 + u64::from(key))).unwrap();
        }
        let too_old = Draft::user(ALICE, 9).sequence(NOW.0 - 200);
        assert_eq!(put(&mut storer, too_old).unwrap_err(), Refusal::TooManyInstances { limit: 4 });
        let stored = put(&mut storer, Draft::user(ALICE, 5)).unwrap();
        assert_eq!(stored.removed[0].signer(), testing::key(1).public());

        let short_lived = Draft::user(ALICE, 5).sequence(NOW.0 + 1).expires(UnixMs(NOW.0 + 10)).unverified();
        storer.insert(short_lived, NOW).unwrap();
        let stored = storer.insert(Draft::user(ALICE, 9).sequence(NOW.0 - 200).unverified(), UnixMs(NOW.0 + 10));
        assert_eq!(stored.unwrap().removed[0].signer(), testing::key(5).public());
        assert_eq!(storer.counts().records, 4);
    }

    #[test]
    fn a_record_verified_some_time_ago_may_be_too_late() {
        let world = Enrolled::new();
        let certificate = world.certificate(1, &[ALICE]);
        let mut storer = Storer::new(Arc::clone(&world.trust), StorerLimits::default());
        let record = world.trust.verify(&Draft::user(ALICE, 1).seal(Some(&certificate)), None, NOW).unwrap();
        let refusal = storer.insert(record.clone(), record.expires()).unwrap_err();
        assert_eq!(refusal, Refusal::Expired { at: record.expires() });
        let serial = certificate.serial().to_owned();
        world.trust.set_revocations(world.authority.revoke(None, std::slice::from_ref(&serial), NOW).unwrap());
        assert_eq!(storer.insert(record, NOW).unwrap_err(), Refusal::Revoked { serial });
        assert_eq!(storer.counts(), Counts::default());
    }

    #[test]
    fn a_revocation_removes_what_is_held() {
        let world = Enrolled::new();
        let mut storer = Storer::new(Arc::clone(&world.trust), StorerLimits::default());
        let certificates = [1, 2].map(|key| world.certificate(key, &[ALICE]));
        for (key, certificate) in [1, 2].into_iter().zip(&certificates) {
            storer.store(&Draft::user(ALICE, key).seal(Some(certificate)), NOW).unwrap();
        }
        assert!(storer.remove_revoked().is_empty());
        let list = world.authority.revoke(None, &[certificates[0].serial().to_owned()], NOW).unwrap();
        world.trust.set_revocations(list);
        let removed = storer.remove_revoked();
        assert_eq!(removed.iter().map(VerifiedRecord::serial).collect::<Vec<_>>(), [Some(certificates[0].serial())]);
        assert_eq!(storer.counts().records, 1);
    }

    #[test]
    fn what_has_expired_is_purged_and_returned() {
        let mut storer = storer();
        (0..10).for_each(|nth| drop(put(&mut storer, user(nth, 1).expires(UnixMs(NOW.0 + 10 + u64::from(nth))))));
        assert_eq!(storer.purge(UnixMs(NOW.0 + 14)).len(), 5);
        assert_eq!((storer.counts().names, storer.positions().count()), (5, 5));
        assert_eq!(storer.purge(UnixMs(NOW.0 + 14)).len(), 0);
        storer.purge(UnixMs(u64::MAX));
        assert_eq!(storer.counts(), Counts::default());
    }

    #[test]
    fn what_is_held_is_listed_by_name() {
        let mut storer = storer();
        for nth in [3, 1, 2] {
            put(&mut storer, user(nth, 1)).unwrap();
            put(&mut storer, user(nth, 2).removed()).unwrap();
        }
        let held = storer.held(NOW, 5);
        assert_eq!((held.total, held.records.len()), (6, 5));
        let names: Vec<_> = held.records.iter().map(|record| record.name.to_string()).collect();
        assert!(names.is_sorted() && names[0].contains("user-1") && names[4].contains("user-3"), "{names:?}");
        let tombstones: Vec<_> = held.records.iter().map(|record| record.tombstone).collect();
        assert_ne!((tombstones[0], tombstones[2]), (tombstones[1], tombstones[3]));
        assert_eq!(storer.held(UnixMs(NOW.0 + LIFETIME), 5).total, 0);
    }

    #[test]
    fn a_digest_says_who_has_the_newer_revocations() {
        let world = Enrolled::new();
        let storer = Storer::new(Arc::clone(&world.trust), StorerLimits::default());
        let answer = |revocations| storer.answer_digest(&Digest { dictionaries: vec![], revocations }, NOW, MAX_FRAME);
        assert_eq!(answer(0), DigestReply::default());
        assert!(answer(1).wants_revocations);
        let list = world.authority.revoke(None, &["0a".to_owned()], NOW).unwrap();
        world.trust.set_revocations(list.clone());
        assert_eq!(answer(0).revocations.as_deref().map(Vec::as_slice), Some(list.envelope()));
        let same = answer(list.sequence());
        assert!(same.revocations.is_none() && !same.wants_revocations);
        assert!(answer(list.sequence() + 1).wants_revocations);
    }

    #[test]
    fn a_digest_is_answered_with_what_differs_within_the_budget() {
        let mut storer = storer();
        (0..1200).for_each(|nth| drop(put(&mut storer, user(nth, 1))));
        assert_eq!(storer.digest(|_| true, UnixMs(NOW.0 + LIFETIME)), []);
        let known = storer.digest(|_| true, NOW);
        assert_eq!(known.len(), 1200);
        let ask = |dictionaries: Vec<(Position, u64)>, budget| {
            storer.answer_digest(&Digest { dictionaries, revocations: 0 }, NOW, budget)
        };
        assert_eq!(ask(known.clone(), MAX_FRAME), DigestReply::default());

        let other: Vec<_> = known.iter().map(|&(position, fingerprint)| (position, fingerprint ^ 1)).collect();
        for budget in [0, 100, 500, 5_000, 50_000, 200_000, MAX_FRAME, usize::MAX] {
            let reply = ask(other.clone(), budget);
            let size = encode(&reply, "reply").unwrap().len();
            assert!(size <= budget.clamp(REPLY_OVERHEAD, MAX_FRAME), "{size} of {budget}");
            assert!(reply.differing.len() <= MAX_DIGEST);
            // The budget is used up while there is something to send.
            assert!(!(50_000..=200_000).contains(&budget) || size > budget / 10 * 9, "{size} of {budget}");
        }
        let reply = ask(other.clone(), MAX_FRAME);
        assert_eq!((reply.differing.len(), reply.envelopes.len()), (MAX_DIGEST, MAX_DIGEST));

        // What is unknown here differs; what is asked twice is answered once.
        let unknown = (Position::of_name(ALICE), 7);
        let reply = ask(vec![unknown, other[0], other[0], unknown], MAX_FRAME);
        assert_eq!((reply.differing.len(), reply.envelopes.len()), (2, 1));
        assert_eq!(ask(vec![(unknown.0, 0)], MAX_FRAME), DigestReply::default());
    }

    /// One round: `one` sends its digest, `other` answers, and `one` sends what it has where they differ.
    fn synchronise(one: &mut Storer, other: &mut Storer, budget: usize) {
        let digest = Digest { dictionaries: one.digest(|_| true, NOW), revocations: 0 };
        let reply = other.answer_digest(&digest, NOW, budget);
        for position in &reply.differing {
            for record in one.records(position, NOW) {
                let _ = other.insert(record, NOW);
            }
        }
        for envelope in reply.envelopes {
            let record = one.trust.verify(&envelope, None, NOW).unwrap();
            let _ = one.insert(record, NOW);
        }
    }

    #[test]
    fn two_storers_agree_after_exchanging_digests() {
        let (mut one, mut other) = (storer(), storer());
        for nth in 0..12 {
            let draft = |key| user(nth, key).sequence(NOW.0 + u64::from(nth));
            if nth % 3 != 0 {
                one.store(&draft(1).seal(None), NOW).unwrap();
            }
            if nth % 3 != 1 {
                other.store(&draft(if nth % 2 == 0 { 1 } else { 2 }).seal(None), NOW).unwrap();
            }
            one.store(&draft(3).seal(None), NOW).unwrap();
            other.store(&draft(3).removed().sequence(NOW.0 + 50).seal(None), NOW).unwrap();
        }
        for _ in 0..30 {
            synchronise(&mut one, &mut other, 2_000);
            synchronise(&mut other, &mut one, 2_000);
        }
        assert_eq!(one.names, other.names);
        assert_eq!(one.counts(), other.counts());
        assert_eq!(one.digest(|_| true, NOW), other.digest(|_| true, NOW));
    }

    #[test]
    fn a_previous_runs_records_are_verified_again() {
        let mut storer = storer();
        let entry = |draft: Draft| {
            let envelope = draft.seal(None);
            (RecordKey::from(&testing::open(Limits::default()).verify(&envelope, None, NOW).unwrap()), envelope)
        };
        let good = entry(user(1, 1));
        let expired = entry(user(2, 1).expires(UnixMs(NOW.0 + 10)));
        let early = entry(user(3, 1).sequence(NOW.0 + 30_000));
        let (key, mut damaged) = entry(user(4, 1));
        damaged[50] ^= 1;
        let misfiled = (entry(user(5, 1)).0, entry(user(6, 1)).1);
        // Came over the network before the file was read.
        let superseded = entry(user(7, 1));
        storer.insert(user(7, 1).sequence(NOW.0 + 1).unverified(), NOW).unwrap();

        // One clock for the expired record, another for the one that is too early.
        let later = UnixMs(NOW.0 + 10);
        let all = vec![good, expired.clone(), (key, damaged), misfiled.clone(), superseded];
        let restored = storer.restore(all, later);
        assert_eq!(restored.records, 1);
        assert_eq!(restored.obsolete, [expired.0, key, misfiled.0]);
        let refused = BTreeMap::from([("expired", 1), ("malformed", 2), ("older", 1)]);
        assert_eq!(restored.refused, refused);
        let restored = storer.restore([early], UnixMs(NOW.0 - 1));
        assert_eq!(restored.refused, BTreeMap::from([("from-the-future", 1)]));
        assert_eq!(restored.obsolete, []);
        assert_eq!(storer.counts().records, 2);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert { name: u32, key: u8, sequence: u64, removed: bool, short_lived: bool },
        Purge,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let insert = (0u32..4, 0u8..7, 0u64..5, any::<bool>(), any::<bool>()).prop_map(
            |(name, key, sequence, removed, short_lived)| Step::Insert { name, key, sequence, removed, short_lived },
        );
        proptest::collection::vec(prop_oneof![9 => insert, 1 => Just(Step::Purge)], 0..60)
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_what_is_held(steps in steps()) {
            let mut storer = storer_with(StorerLimits { max_names: 3, max_bytes: 3_000 });
            let mut now = NOW;
            for step in steps {
                match step {
                    Step::Insert { name, key, sequence, removed, short_lived } => {
                        let mut draft = user(name, key).sequence(NOW.0 + sequence);
                        if removed {
                            draft = draft.removed();
                        }
                        if short_lived {
                            draft = draft.expires(UnixMs(now.0 + 20));
                        }
                        let _ = storer.insert(draft.unverified(), now);
                    }
                    Step::Purge => drop(storer.purge(now)),
                }
                now.0 += 5;
                let held: Vec<_> = storer.names.values().flat_map(Dictionary::iter).collect();
                let bytes = held.iter().map(|record| record.envelope().len()).sum();
                prop_assert_eq!(storer.counts(), Counts { names: storer.names.len(), records: held.len(), bytes });
                prop_assert!(storer.names.values().all(|held| !held.is_empty() && held.len() <= 4));
                prop_assert!(storer.names.len() <= 3 && bytes <= 3_000);
            }
        }

        #[test]
        fn a_name_is_listed_where_it_is_held(names in proptest::collection::btree_set("[a-z]{1,8}", 0..20)) {
            let mut storer = storer();
            let names: Vec<_> = names.iter().map(|name| format!("sip:{name}@p2psip.org")).collect();
            names.iter().for_each(|name| drop(put(&mut storer, Draft::user(name, 1))));
            let mut expected: Vec<_> =
                names.iter().map(|name| ResourceName::parse(name).unwrap().position()).collect();
            expected.sort();
            prop_assert_eq!(storer.positions().copied().collect::<Vec<_>>(), expected);
        }
    }
}
