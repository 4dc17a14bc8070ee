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
            certificate: record.serial().map(str::to_owned),
            pinned: record.is_pinned(),
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
mod tests;
