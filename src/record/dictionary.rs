//! All records of one name, and how they are merged.

use std::collections::{BTreeMap, btree_map::Entry};

use sha2::{Digest, Sha256};

use super::VerifiedRecord;
use crate::{clock::UnixMs, name::InstanceId};

/// The records of one name, at most one of each instance (RELOAD's dictionary model, RFC 6940 §7.2.3).
///
/// Merging is commutative, associative and idempotent, so storers that have seen the same records hold the same
/// ones, in whatever order these came. It knows no time: an expired record still hides what it replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dictionary {
    records: BTreeMap<InstanceId, VerifiedRecord>,
}

/// What became of a record that was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// It is held now.
    Stored {
        /// The record of the same instance that it replaced.
        replaced: Option<VerifiedRecord>,
        /// The record of another instance that had to go, because the name has too many.
        evicted: Option<VerifiedRecord>,
    },
    /// It was held already.
    Same,
    /// A newer record of the same instance is held; or one as new that takes precedence.
    Older {
        /// The sequence held.
        held: u64,
    },
    /// The name has as many other instances as it may have, and all of their records are newer.
    TooManyInstances,
}

impl Dictionary {
    /// No records.
    pub const fn new() -> Self {
        Self { records: BTreeMap::new() }
    }

    /// Merges a record of the name. Of one instance the newest record is kept, by sequence; should a writer have used
    /// a sequence twice, the larger envelope is kept. Of more than `max_instances` instances those are kept whose
    /// records are newest, by sequence and then by instance.
    pub fn merge(&mut self, record: VerifiedRecord, max_instances: usize) -> Merge {
        let instance = *record.instance();
        let replaced = match self.records.entry(instance) {
            Entry::Vacant(place) => {
                place.insert(record);
                None
            }
            Entry::Occupied(mut place) => {
                let held = place.get();
                if held.envelope() == record.envelope() {
                    return Merge::Same;
                }
                if precedence(&record) < precedence(held) {
                    return Merge::Older { held: held.sequence() };
                }
                Some(place.insert(record))
            }
        };
        let evicted = (self.records.len() > max_instances).then(|| self.remove_oldest()).flatten();
        match evicted {
            Some(evicted) if *evicted.instance() == instance => Merge::TooManyInstances,
            evicted => Merge::Stored { replaced, evicted },
        }
    }

    fn remove_oldest(&mut self) -> Option<VerifiedRecord> {
        let oldest = self.records.values().min_by_key(|record| (record.sequence(), *record.instance()))?;
        let instance = *oldest.instance();
        self.records.remove(&instance)
    }

    /// The bindings that hold: neither expired nor tombstones. In the order of their instances, as in all iterators here.
    pub fn live(&self, now: UnixMs) -> impl Iterator<Item = &VerifiedRecord> {
        self.all(now).filter(|record| !record.is_tombstone())
    }

    /// All records that have not expired, tombstones included.
    pub fn all(&self, now: UnixMs) -> impl Iterator<Item = &VerifiedRecord> {
        self.records.values().filter(move |record| !record.is_expired(now))
    }

    /// All records, expired ones included.
    pub fn iter(&self) -> impl Iterator<Item = &VerifiedRecord> {
        self.records.values()
    }

    /// The record of one instance, expired or not.
    pub fn get(&self, instance: &InstanceId) -> Option<&VerifiedRecord> {
        self.records.get(instance)
    }

    /// Removes the records for which `keep` says no, and returns them.
    pub fn retain(&mut self, keep: impl Fn(&VerifiedRecord) -> bool) -> Vec<VerifiedRecord> {
        let mut removed = Vec::new();
        self.records.retain(|_, record| {
            let keep = keep(record);
            if !keep {
                removed.push(record.clone());
            }
            keep
        });
        removed
    }

    /// Removes what has expired, and returns it.
    pub fn purge(&mut self, now: UnixMs) -> Vec<VerifiedRecord> {
        self.retain(|record| !record.is_expired(now))
    }

    /// How many records there are, expired ones included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// A number by which two storers see whether they hold the same unexpired records: taken from the hash of each
    /// instance, sequence and envelope. 0 for none.
    pub fn fingerprint(&self, now: UnixMs) -> u64 {
        let mut records = self.all(now).peekable();
        if records.peek().is_none() {
            return 0;
        }
        let hash = records
            .fold(Sha256::new(), |hash, record| {
                hash.chain_update(record.instance().octets())
                    .chain_update(record.sequence().to_be_bytes())
                    .chain_update(record.digest())
            })
            .finalize();
        hash.iter().take(8).fold(0, |number, &octet| number << 8 | u64::from(octet))
    }
}

/// The order of one instance's records.
fn precedence(record: &VerifiedRecord) -> (u64, &[u8]) {
    (record.sequence(), record.envelope())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::record::testing::{Draft, LIFETIME, NOW};

    const MAX: usize = 4;

    fn alice(key: u8, sequence: u64) -> Draft {
        Draft::user("sip:alice@p2psip.org", key).sequence(sequence)
    }

    fn merged(records: &[VerifiedRecord]) -> Dictionary {
        let mut dictionary = Dictionary::new();
        records.iter().for_each(|record| drop(dictionary.merge(record.clone(), MAX)));
        dictionary
    }

    #[test]
    fn the_newest_record_of_an_instance_wins() {
        let [old, new] = [alice(1, 1_000), alice(1, 2_000)].map(Draft::unverified);
        let mut dictionary = Dictionary::new();
        let stored = |replaced| Merge::Stored { replaced, evicted: None };
        assert_eq!(dictionary.merge(old.clone(), MAX), stored(None));
        assert_eq!(dictionary.merge(old.clone(), MAX), Merge::Same);
        assert_eq!(dictionary.merge(new.clone(), MAX), stored(Some(old.clone())));
        assert_eq!(dictionary.merge(old, MAX), Merge::Older { held: 2_000 });
        assert_eq!(dictionary.get(new.instance()), Some(&new));
        assert_eq!(dictionary.len(), 1);
    }

    #[test]
    fn a_tombstone_hides_the_binding_and_is_hidden_by_the_next() {
        let now = UnixMs(NOW.0 + 10);
        let mut dictionary = merged(&[alice(1, NOW.0).unverified(), alice(1, NOW.0 + 1).removed().unverified()]);
        assert_eq!((dictionary.live(now).count(), dictionary.all(now).count()), (0, 1));
        dictionary.merge(alice(1, NOW.0 + 2).unverified(), MAX);
        assert_eq!((dictionary.live(now).count(), dictionary.all(now).count()), (1, 1));
    }

    #[test]
    fn a_sequence_used_twice_is_decided_by_the_octets() {
        let [one, other] = [alice(1, 1_000), alice(1, 1_000).removed()].map(Draft::unverified);
        let winner = std::cmp::max_by_key(&one, &other, |record| record.envelope().to_vec());
        for records in [[one.clone(), other.clone()], [other.clone(), one.clone()]] {
            assert_eq!(merged(&records).get(one.instance()), Some(winner));
        }
    }

    #[test]
    fn the_instances_with_the_newest_records_stay() {
        let mut dictionary = Dictionary::new();
        for key in 1..=4 {
            assert!(matches!(dictionary.merge(alice(key, u64::from(key)).unverified(), MAX), Merge::Stored { .. }));
        }
        assert_eq!(dictionary.merge(alice(9, 0).unverified(), MAX), Merge::TooManyInstances);
        let evicted = Some(alice(1, 1).unverified());
        assert_eq!(dictionary.merge(alice(5, 5).unverified(), MAX), Merge::Stored { replaced: None, evicted });
        assert_eq!(dictionary.len(), MAX);
    }

    #[test]
    fn what_has_expired_is_not_shown_and_can_be_removed() {
        let mut dictionary = merged(&[alice(1, NOW.0).unverified(), alice(2, NOW.0 + 1).unverified()]);
        let end = UnixMs(NOW.0 + LIFETIME);
        assert_eq!(dictionary.live(UnixMs(end.0 - 1)).count(), 2);
        assert_eq!(dictionary.live(end).count(), 1);
        let alone = merged(&[alice(2, NOW.0 + 1).unverified()]);
        assert_eq!(dictionary.fingerprint(end), alone.fingerprint(end));
        assert_ne!(dictionary.fingerprint(NOW), alone.fingerprint(NOW));
        assert_eq!(dictionary.purge(end), [alice(1, NOW.0).unverified()]);
        assert_eq!(dictionary, alone);
        assert_eq!(dictionary.purge(UnixMs(end.0 + 1)).len(), 1);
        assert!(dictionary.is_empty());
        assert_eq!(dictionary.fingerprint(NOW), 0);
    }

    /// Records of few instances with few sequences, so that they collide: renewals, tombstones, doubled sequences.
    fn records() -> impl Strategy<Value = Vec<VerifiedRecord>> {
        let record = (0u8..8, 0u64..6, 0u64..3, any::<bool>()).prop_map(|(key, sequence, variant, removed)| {
            let draft = alice(key, NOW.0 + sequence).expires(UnixMs(NOW.0 + LIFETIME + variant));
            if removed { draft.removed() } else { draft }.unverified()
        });
        proptest::collection::vec(record, 0..24)
    }

    fn join(mut one: Dictionary, other: &Dictionary) -> Dictionary {
        other.records.values().for_each(|record| drop(one.merge(record.clone(), MAX)));
        one
    }

    proptest! {
        #[test]
        fn merging_is_commutative_and_idempotent(records in records(), seed in any::<u64>()) {
            let dictionary = merged(&records);
            let mut shuffled = records.clone();
            shuffled.sort_by_key(|record| record.digest().iter().fold(seed, |a, &b| a.rotate_left(7) ^ u64::from(b)));
            prop_assert_eq!(&merged(&shuffled), &dictionary);
            shuffled.extend(records);
            prop_assert_eq!(&merged(&shuffled), &dictionary);
            prop_assert_eq!(&join(dictionary.clone(), &dictionary), &dictionary);
        }

        #[test]
        fn merging_is_associative(a in records(), b in records(), c in records()) {
            let (a, b, c) = (merged(&a), merged(&b), merged(&c));
            let left = join(join(a.clone(), &b), &c);
            prop_assert_eq!(&left, &join(a.clone(), &join(b.clone(), &c)));
            prop_assert_eq!(&left, &join(join(c, &b), &a));
        }

        #[test]
        fn what_is_kept_is_the_newest_of_each_of_the_newest_instances(records in records()) {
            let mut best: BTreeMap<InstanceId, &VerifiedRecord> = BTreeMap::new();
            for record in &records {
                let held = best.entry(*record.instance()).or_insert(record);
                if precedence(record) > precedence(held) {
                    *held = record;
                }
            }
            let mut expected: Vec<_> = best.into_values().collect();
            expected.sort_by_key(|record| std::cmp::Reverse((record.sequence(), *record.instance())));
            expected.truncate(MAX);
            let expected: BTreeSet<_> = expected.iter().map(|record| record.digest()).collect();
            let dictionary = merged(&records);
            prop_assert_eq!(dictionary.records.values().map(VerifiedRecord::digest).collect::<BTreeSet<_>>(), expected);
        }

        #[test]
        fn fingerprints_are_equal_exactly_if_the_contents_are(a in records(), b in records()) {
            let (a, b) = (merged(&a), merged(&b));
            prop_assert_eq!(a.fingerprint(NOW) == b.fingerprint(NOW), a == b);
        }

        #[test]
        fn what_merge_reports_is_what_it_did(records in records()) {
            let mut dictionary = Dictionary::new();
            let mut mirror: BTreeMap<InstanceId, [u8; 32]> = BTreeMap::new();
            for record in records {
                let (instance, digest) = (*record.instance(), *record.digest());
                match dictionary.merge(record, MAX) {
                    Merge::Stored { replaced, evicted } => {
                        prop_assert_eq!(mirror.insert(instance, digest), replaced.map(|record| *record.digest()));
                        if let Some(evicted) = evicted {
                            prop_assert_eq!(mirror.remove(evicted.instance()), Some(*evicted.digest()));
                        }
                    }
                    Merge::Same => prop_assert_eq!(mirror.get(&instance), Some(&digest)),
                    Merge::Older { held } => prop_assert_eq!(dictionary.get(&instance).unwrap().sequence(), held),
                    Merge::TooManyInstances => prop_assert!(!mirror.contains_key(&instance)),
                }
            }
            let held: BTreeMap<_, _> = dictionary.records.iter().map(|(&i, record)| (i, *record.digest())).collect();
            prop_assert_eq!(held, mirror);
        }
    }
}
