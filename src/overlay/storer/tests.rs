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
