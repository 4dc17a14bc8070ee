//! A lookup's trace: whom it asked, what each held, and which storers of the name hold something else than the rest.

use std::collections::HashMap;

use crate::{
    name::{InstanceId, PeerId},
    overlay::walk::Visit,
    record::{Refusal, VerifiedRecord},
};

/// A line of a lookup's trace: a request, and what the answer to it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceLine {
    /// The request.
    pub visit: Visit,
    /// Whether the peer is one of the storers whose answers count.
    pub storer: bool,
    /// Records in the answer, tombstones included, that were verified; by instance.
    pub held: Vec<HeldRecord>,
    /// How many records in the answer were not believed.
    pub rejected: u32,
    /// Why not: each reason once, and [`MAX_REJECTED`](super::MAX_REJECTED) at the most.
    pub refusals: Vec<Refusal>,
    /// Where this storer and what all storers returned together disagree.
    pub differences: Vec<Difference>,
}

/// A verified record, as far as a trace tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldRecord {
    /// The instance that wrote it.
    pub instance: InstanceId,
    /// Its sequence (Unix milliseconds).
    pub sequence: u64,
    /// Whether it removes the instance's binding.
    pub tombstone: bool,
}

impl From<&VerifiedRecord> for HeldRecord {
    fn from(record: &VerifiedRecord) -> Self {
        Self { instance: *record.instance(), sequence: record.sequence(), tombstone: record.is_tombstone() }
    }
}

/// What a storer has otherwise than the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The instance whose record it is.
    pub instance: InstanceId,
    /// How it differs.
    pub kind: DifferenceKind,
}

/// How what a storer has of an instance differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// It has an older record than another storer: it has missed a change, or it replays.
    Stale,
    /// It has no record where another storer has one: it has never got it, or it withholds it.
    Withheld,
    /// It has the newest record, and more storers have an older one.
    Newer,
}

/// The envelopes that a storer returned, by their SHA-256, each with what it is.
pub(super) type HeldByDigest = Vec<([u8; 32], HeldRecord)>;

/// Compares what storers returned with `merged`, the newest that all of them returned together. Each storer comes with
/// what it returned and with whether it ought to hold the name's records.
pub(super) fn differences<'a>(
    merged: impl Iterator<Item = &'a VerifiedRecord>,
    storers: &[(PeerId, bool, HeldByDigest)],
) -> HashMap<PeerId, Vec<Difference>> {
    let mut found: HashMap<PeerId, Vec<Difference>> = HashMap::new();
    for newest in merged {
        let instance = *newest.instance();
        let (mut stale, mut current) = (Vec::new(), Vec::new());
        let mut note = |peer: &PeerId, kind| found.entry(*peer).or_default().push(Difference { instance, kind });
        for (peer, responsible, held) in storers {
            if held.iter().any(|(digest, _)| digest == newest.digest()) {
                current.push(peer);
            } else if held.iter().any(|(_, record)| record.instance == instance) {
                stale.push(peer);
            } else if *responsible && !newest.is_tombstone() {
                // Whoever has nothing agrees with a tombstone.
                note(peer, DifferenceKind::Withheld);
            }
        }
        if stale.len() > current.len() {
            current.into_iter().for_each(|peer| note(peer, DifferenceKind::Newer));
        }
        stale.into_iter().for_each(|peer| note(peer, DifferenceKind::Stale));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::PeerId,
        record::testing::{Draft, NOW},
    };

    const ALICE: &str = "sip:alice@p2psip.org";

    /// How the storers differ from the merging of all, in their order; each is `(responsible, what it holds)`.
    fn kinds(merged: &VerifiedRecord, storers: &[(bool, &[&VerifiedRecord])]) -> Vec<Option<DifferenceKind>> {
        let storer = |(nth, (responsible, held)): (u8, &(bool, &[&VerifiedRecord]))| {
            let held = held.iter().map(|record| (*record.digest(), HeldRecord::from(*record))).collect();
            (PeerId::from_public_key([nth; 32]), *responsible, held)
        };
        let storers: Vec<_> = (0..).zip(storers).map(storer).collect();
        let found = differences(std::iter::once(merged), &storers);
        storers.iter().map(|(peer, ..)| found.get(peer).map(|found| found[0].kind)).collect()
    }

    #[test]
    fn storers_that_lack_the_newest_record_stand_out() {
        use DifferenceKind::{Newer, Stale, Withheld};
        let old = Draft::user(ALICE, 1).unverified();
        let new = Draft::user(ALICE, 1).sequence(NOW.0 + 1).unverified();
        assert_eq!(kinds(&new, &[(true, &[&new]), (true, &[&new])]), [None, None]);
        assert_eq!(
            kinds(&new, &[(true, &[&new]), (true, &[&old]), (true, &[]), (false, &[])]),
            [None, Some(Stale), Some(Withheld), None]
        );
        assert_eq!(
            kinds(&new, &[(true, &[&new]), (true, &[&old]), (true, &[&old])]),
            [Some(Newer), Some(Stale), Some(Stale)]
        );
        let removed = Draft::user(ALICE, 1).sequence(NOW.0 + 2).removed().unverified();
        assert_eq!(kinds(&removed, &[(true, &[&removed]), (true, &[]), (true, &[&new])]), [None, None, Some(Stale)]);
    }
}
