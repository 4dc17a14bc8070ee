//! A whole overlay under test: what the machines come to together. With `--nocapture`, the figures.

#![allow(clippy::print_stdout)]

use super::*;
use crate::{
    client::Verdict,
    identity::{Limits, Policy, SecretKey},
    name::OverlayId,
    record::{Body, Contact, Payload, seal},
};

const WALL: UnixMs = UnixMs(1_700_000_000_000);
const MS: Duration = Duration::from_millis(1);

fn overlay(replication: u8, config: MemoryConfig) -> MemoryOverlay {
    let limits = Limits { replication, ..Limits::default() };
    let id = OverlayId::parse("p2psip.org").unwrap();
    let descriptor = Descriptor::new(id, false, Policy::Open, None, limits).unwrap();
    MemoryOverlay::new(Arc::new(descriptor), config, WALL)
}

fn of(members: usize) -> MemoryConfig {
    MemoryConfig { members, ..MemoryConfig::default() }
}

fn name(nth: usize) -> ResourceName {
    ResourceName::parse(&format!("sip:user{nth}@p2psip.org")).unwrap()
}

/// The record of one user's device; `None` for its removal.
fn record(nth: usize, key: u8, sequence: UnixMs, contact: Option<&str>) -> Vec<u8> {
    let body = match contact {
        Some(uri) => Body::User { contacts: vec![Contact::Sip { uri: uri.to_owned(), q: 1000 }] },
        None => Body::Removed,
    };
    let payload =
        Payload { name: name(nth), sequence: sequence.0, expires: sequence.after(Duration::from_secs(3600)), body };
    seal(&payload, &SecretKey::from_seed(&[key; 32]), None).unwrap()
}

/// Stores the records of `users` users from all over the overlay.
fn populate(overlay: &mut MemoryOverlay, users: usize) {
    for nth in 0..users {
        let envelope = record(nth, 1, overlay.wall(), Some("sip:first@192.0.2.1"));
        let from = Vantage::Member(nth * 7 % overlay.peers().len());
        let reply = overlay.put(&from, &envelope).unwrap();
        assert!(!reply.stored.is_empty(), "{reply:?}");
    }
}

fn percentile(spans: &mut [Duration], percent: usize) -> Duration {
    spans.sort_unstable();
    spans[(spans.len() * percent).div_ceil(100).saturating_sub(1)]
}

fn mean(numbers: impl ExactSizeIterator<Item = u32>) -> f64 {
    let n = numbers.len();
    numbers.map(f64::from).sum::<f64>() / n as f64
}

#[test]
fn what_any_member_stores_any_other_finds() {
    for members in [8, 16, 32, 64, 128, 256] {
        let mut overlay = overlay(5, of(members));
        let (mut found, mut missed) = (vec![], vec![]);
        for nth in 0..30 {
            let envelope = record(nth, 1, overlay.wall(), Some("sip:first@192.0.2.1"));
            let reply = overlay.put(&Vantage::Member(nth * 7 % members), &envelope).unwrap();
            assert_eq!((reply.stored.len(), reply.read_back, reply.silent), (5, 3, 0), "{members}: {reply:?}");
            let closest: Vec<_> = overlay.closest(&name(nth).position(), 5);
            let peers: Vec<_> = overlay.peers().collect();
            assert_eq!(reply.stored, closest.iter().map(|index| peers[*index]).collect::<Vec<_>>());
        }
        for nth in 0..30 {
            let from = if nth % 2 == 0 { Vantage::Member(nth * 11 % members) } else { Vantage::Client(vec![nth % 8]) };
            let outcome = overlay.lookup(&from, &name(nth));
            assert_eq!(outcome.reply.verdict, Verdict::Found);
            assert_eq!((outcome.reply.envelopes.len(), outcome.disagreeing), (1, 0), "{outcome:?}");
            found.push(outcome);
            let outcome = overlay.lookup(&from, &name(1000 + nth));
            assert_eq!(outcome.reply.verdict, Verdict::NotFound, "{outcome:?}");
            assert_eq!(outcome.reply.storers, 5);
            missed.push(outcome);
        }
        for (what, outcomes) in [("found", found), ("missed", missed)] {
            let requests = mean(outcomes.iter().map(|outcome| outcome.reply.requests));
            let hops = mean(outcomes.iter().map(|outcome| outcome.reply.hops));
            let mut took: Vec<_> = outcomes.iter().map(|outcome| outcome.took).collect();
            let (p50, p99) = (percentile(&mut took, 50), percentile(&mut took, 99));
            println!(
                "{members:4} members, {what:6}: {requests:4.1} requests, {hops:3.1} hops, p50 {p50:?}, p99 {p99:?}"
            );
        }
    }
}

#[test]
fn hops_grow_with_the_logarithm_of_the_members() {
    let mut hops = Vec::new();
    for members in [16, 32, 64, 128, 256, 512] {
        let mut overlay = overlay(3, MemoryConfig { bucket: 2, ..of(members) });
        populate(&mut overlay, 40);
        let lookups = (0..40).map(|nth| overlay.lookup(&Vantage::Client(vec![nth * 13 % members]), &name(nth)));
        let lookups: Vec<_> = lookups.collect();
        assert!(lookups.iter().all(|outcome| outcome.reply.verdict == Verdict::Found));
        hops.push(mean(lookups.iter().map(|outcome| outcome.reply.hops)));
        let requests = mean(lookups.iter().map(|outcome| outcome.reply.requests));
        println!("{members:4} members, buckets of 2: {:4.2} hops, {requests:4.1} requests", hops.last().unwrap());
    }
    // From 16 to 512 members the logarithm grows by 5. Each reply tells of several peers, so a hop gains more than
    // one bit; but it gains no more than a few.
    let growth = hops[5] - hops[0];
    assert!((1.0..=5.0).contains(&growth), "{hops:?}");
    assert!(hops.is_sorted_by(|less, more| *less < more + 0.3), "{hops:?}");
}

#[test]
fn half_of_the_members_hang_and_every_lookup_is_right_and_quick() {
    let mut overlay = overlay(8, of(128));
    populate(&mut overlay, 60);
    for index in (0..128).filter(|index| index % 2 == 1) {
        overlay.set_conduct(index, Conduct::Hanging);
    }
    let (mut found, mut missed, mut lost) = (vec![], vec![], 0);
    for nth in 0..240 {
        let user = nth % 60;
        let alive = overlay.closest(&name(user).position(), 8).into_iter().filter(|index| index % 2 == 0).count();
        if alive == 0 {
            // Lost for good, in one case out of 256.
            lost += 1;
            continue;
        }
        let from = if nth % 3 == 0 { Vantage::Client(vec![nth % 64 * 2]) } else { Vantage::Member(nth * 14 % 128) };
        let outcome = overlay.lookup(&from, &name(user));
        assert_eq!(outcome.reply.verdict, Verdict::Found, "{alive} storers are left: {outcome:#?}");
        found.push(outcome);
        let outcome = overlay.lookup(&from, &name(1000 + nth));
        assert_eq!(outcome.reply.verdict, Verdict::NotFound, "{outcome:#?}");
        missed.push(outcome);
    }
    assert!(lost <= 8, "{lost} lookups of records that are lost");
    for (what, outcomes, limit) in [("found", found, 500 * MS), ("missed", missed, 1000 * MS)] {
        let mut took: Vec<_> = outcomes.iter().map(|outcome| outcome.took).collect();
        let requests = mean(outcomes.iter().map(|outcome| outcome.reply.requests));
        let (p50, p99) = (percentile(&mut took, 50), percentile(&mut took, 99));
        println!(
            "half of 128 hang, {what:6}: {requests:4.1} requests, p50 {p50:?}, p99 {p99:?}, max {:?}",
            took.last()
        );
        assert!(p99 < limit, "{what}: {p99:?}");
    }
}

#[test]
fn a_record_is_stored_although_half_of_the_members_hang() {
    let mut overlay = overlay(8, of(128));
    for index in (0..128).filter(|index| index % 2 == 1) {
        overlay.set_conduct(index, Conduct::Hanging);
    }
    let (mut took, mut stored) = (vec![], 0);
    for nth in 0..40 {
        let start = overlay.elapsed();
        let envelope = record(nth, 1, overlay.wall(), Some("sip:first@192.0.2.1"));
        let reply = overlay.put(&Vantage::Member(nth * 6 % 128), &envelope).unwrap();
        // Nobody has repaired its table: of the closest that all tell of, fewer than eight may be left.
        assert!(reply.stored.len() > 4 && reply.read_back == 3, "{reply:?}");
        stored += reply.stored.len();
        took.push(overlay.elapsed() - start);
    }
    assert!(stored > 40 * 7, "{stored} stored");
    let (p50, p99) = (percentile(&mut took, 50), percentile(&mut took, 99));
    println!("half of 128 hang, put: p50 {p50:?}, p99 {p99:?}");
    assert!(p99 < 2000 * MS, "{p99:?}");
}

/// An overlay of 128 of whom every fifth lies, with the records of 60 users, renewed once. The liars have done so from
/// the start, except those that would have kept the records from being stored.
fn with_liars(conduct: Conduct) -> (MemoryOverlay, Vec<UnixMs>) {
    let mut overlay = overlay(8, of(128));
    let corrupt = |overlay: &mut MemoryOverlay| {
        for index in (0..128).filter(|index| index % 5 == 4) {
            overlay.set_conduct(index, conduct);
        }
    };
    if conduct != Conduct::Eclipse {
        corrupt(&mut overlay);
    }
    populate(&mut overlay, 60);
    overlay.advance(Duration::from_secs(60));
    let mut sequences = vec![];
    for nth in 0..60 {
        sequences.push(overlay.wall());
        let envelope = record(nth, 1, overlay.wall(), Some("sip:second@192.0.2.2"));
        let reply = overlay.put(&Vantage::Member(nth * 5 % 128), &envelope).unwrap();
        assert!(reply.stored.len() >= 8 && reply.read_back > 0, "{conduct:?}: {reply:?}");
    }
    corrupt(&mut overlay);
    (overlay, sequences)
}

/// What went wrong in 300 lookups of records and 100 of names without any.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    /// Records not found.
    missed: usize,
    /// Answers other than "not found" where nothing is.
    made_up: usize,
    /// Records returned that are not the newest.
    stale: usize,
}

const NONE: Wrong = Wrong { missed: 0, made_up: 0, stale: 0 };

fn lookups_among(conduct: Conduct, enough: usize) -> Wrong {
    let (mut overlay, sequences) = with_liars(conduct);
    overlay.lookup_config.enough = enough;
    let (mut wrong, mut took, mut requests) = (NONE, vec![], vec![]);
    for nth in 0..300 {
        let user = nth % 60;
        let sequence = sequences[user];
        let from = if nth % 3 == 0 { Vantage::Client(vec![nth % 25 * 5]) } else { Vantage::Member(nth % 25 * 5 + 1) };
        let outcome = overlay.lookup(&from, &name(user));
        took.push(outcome.took);
        requests.push(outcome.reply.requests);
        wrong.missed += usize::from(outcome.reply.verdict != Verdict::Found);
        assert_eq!(outcome.records.len(), outcome.reply.envelopes.len());
        for (found, envelope) in outcome.records.iter().zip(&outcome.reply.envelopes) {
            wrong.stale += usize::from(found.sequence() != sequence.0);
            assert!(overlay.trust().verify(envelope, Some(&name(user)), overlay.wall()).is_ok(), "forged");
        }
        if nth % 3 == 0 {
            let outcome = overlay.lookup(&from, &name(1000 + nth));
            wrong.made_up += usize::from(outcome.reply.verdict != Verdict::NotFound);
            requests.push(outcome.reply.requests);
        }
    }
    let (p50, p99) = (percentile(&mut took, 50), percentile(&mut took, 99));
    let requests = mean(requests.into_iter());
    println!("a fifth {conduct:?}, {enough} storers: {wrong:?}, {requests:4.1} requests, p50 {p50:?}, p99 {p99:?}");
    wrong
}

#[test]
fn a_fifth_of_the_members_have_left_and_the_answers_are_right() {
    assert_eq!(lookups_among(Conduct::Gone, 3), NONE);
    assert_eq!(lookups_among(Conduct::Hanging, 3), NONE);
}

#[test]
fn a_fifth_of_the_members_tell_of_wrong_peers_and_the_answers_are_right() {
    assert_eq!(lookups_among(Conduct::Ghosts, 3), NONE);
    assert_eq!(lookups_among(Conduct::WrongAddresses, 3), NONE);
    // Where liars answer for the peers that they make up, a lookup fails if all of its paths lead over a liar. Nobody
    // can do better who does not know who is who.
    let wrong = lookups_among(Conduct::Eclipse, 3);
    assert!(wrong.missed <= 15, "{wrong:?}");
    assert_eq!(wrong, Wrong { missed: wrong.missed, ..NONE });
}

#[test]
fn a_fifth_of_the_members_lie_about_records_and_the_answers_are_right() {
    assert_eq!(lookups_among(Conduct::Withholding, 3), NONE);
    assert_eq!(lookups_among(Conduct::Forging, 3), NONE);
}

#[test]
fn a_stale_record_wins_only_if_all_storers_asked_are_stale() {
    // Three out of eight that are all among the liars: 0.8 % of the lookups.
    let wrong = lookups_among(Conduct::Stale, 3);
    assert!(wrong.stale <= 6, "{wrong:?}");
    assert_eq!(wrong, Wrong { stale: wrong.stale, ..NONE });
    assert_eq!(lookups_among(Conduct::Stale, 5), NONE);
}

#[test]
fn no_single_liar_on_the_way_hides_a_record_or_keeps_it_from_being_stored() {
    let mut overlay = overlay(5, of(128));
    populate(&mut overlay, 10);
    for nth in 0..10 {
        let from = Vantage::Member(nth * 9 % 128);
        let before = overlay.lookup(&from, &name(nth));
        let peers: Vec<_> = overlay.peers().collect();
        for visit in before.trace.iter().map(|line| &line.visit) {
            let liar = peers.iter().position(|peer| *peer == visit.peer).unwrap();
            for conduct in [Conduct::Ghosts, Conduct::Eclipse, Conduct::WrongAddresses, Conduct::Withholding] {
                overlay.set_conduct(liar, conduct);
                let outcome = overlay.lookup(&from, &name(nth));
                assert_eq!(outcome.reply.verdict, Verdict::Found, "{conduct:?} {outcome:#?}");
                let missed = overlay.lookup(&from, &name(1000 + nth));
                assert_eq!(missed.reply.verdict, Verdict::NotFound, "{conduct:?} {missed:#?}");
                overlay.advance(Duration::from_secs(1));
                let envelope = record(nth, 1, overlay.wall(), Some("sip:second@192.0.2.2"));
                let reply = overlay.put(&from, &envelope).unwrap();
                assert!(reply.stored.len() >= 5 && reply.read_back > 0, "{conduct:?} {reply:#?}");
            }
            overlay.set_conduct(liar, Conduct::Honest);
        }
    }
}

#[test]
fn a_removed_record_that_a_stale_storer_returns_stays_removed() {
    let mut overlay = overlay(5, of(32));
    let target = name(0).position();
    let closest = overlay.closest(&target, 5);
    for stale in &closest[..4] {
        overlay.set_conduct(*stale, Conduct::Stale);
    }
    overlay.put(&Vantage::Member(3), &record(0, 1, WALL, Some("sip:first@192.0.2.1"))).unwrap();
    let found = overlay.lookup(&Vantage::Member(5), &name(0));
    assert_eq!((found.reply.verdict, found.reply.envelopes.len()), (Verdict::Found, 1));
    overlay.advance(Duration::from_secs(1));
    overlay.put(&Vantage::Member(3), &record(0, 1, overlay.wall(), None)).unwrap();
    overlay.lookup_config.enough = 5;
    let other = (0..32).find(|index| !closest.contains(index)).unwrap();
    for from in [Vantage::Member(other), Vantage::Member(closest[4]), Vantage::Client(vec![9, 8])] {
        let outcome = overlay.lookup(&from, &name(0));
        assert_eq!((outcome.reply.verdict, outcome.reply.envelopes.len()), (Verdict::NotFound, 0), "{outcome:#?}");
        assert_eq!(outcome.disagreeing, 4);
    }
    // Another device of the user is not removed with it.
    overlay.put(&Vantage::Member(3), &record(0, 2, overlay.wall(), Some("sip:other@192.0.2.1"))).unwrap();
    let outcome = overlay.lookup(&Vantage::Member(5), &name(0));
    assert_eq!((outcome.reply.verdict, outcome.reply.envelopes.len()), (Verdict::Found, 1));
}

#[test]
fn a_member_alone_is_its_own_storer() {
    let mut overlay = overlay(8, of(1));
    let alone = Vantage::Member(0);
    assert_eq!(overlay.lookup(&alone, &name(0)).reply.verdict, Verdict::NotFound);
    let reply = overlay.put(&alone, &record(0, 1, WALL, Some("sip:first@192.0.2.1"))).unwrap();
    assert_eq!((reply.stored.len(), reply.refused.len(), reply.silent), (1, 0, 0));
    let found = overlay.lookup(&alone, &name(0));
    assert_eq!((found.reply.verdict, found.reply.storers, found.reply.hops), (Verdict::Found, 1, 0));
    assert_eq!(found.took, Duration::ZERO);
    assert_eq!(overlay.lookup(&Vantage::Client(vec![0]), &name(0)).reply.verdict, Verdict::Found);
    assert_eq!(overlay.lookup(&Vantage::Client(vec![]), &name(0)).reply.verdict, Verdict::NobodyToAsk);
}

#[test]
fn two_and_three_members_agree() {
    for members in [2, 3] {
        let mut overlay = overlay(8, of(members));
        let reply = overlay.put(&Vantage::Member(0), &record(0, 1, WALL, Some("sip:first@192.0.2.1"))).unwrap();
        assert_eq!((reply.stored.len(), reply.read_back as usize), (members, members - 1), "{reply:?}");
        for from in [Vantage::Member(0), Vantage::Member(1), Vantage::Client(vec![1])] {
            let found = overlay.lookup(&from, &name(0));
            assert_eq!(found.reply.verdict, Verdict::Found);
            assert!(found.took <= 100 * MS, "{:?}", found.took);
            assert_eq!(overlay.lookup(&from, &name(1)).reply.verdict, Verdict::NotFound, "{members} {from:?}");
        }
    }
}

#[test]
fn too_few_answers_are_nobody_to_ask_and_no_not_found() {
    for conduct in [Conduct::Gone, Conduct::Hanging] {
        let mut overlay = overlay(8, of(16));
        overlay.put(&Vantage::Member(0), &record(0, 1, WALL, Some("sip:first@192.0.2.1"))).unwrap();
        for index in 1..16 {
            overlay.set_conduct(index, conduct);
        }
        let outcome = overlay.lookup(&Vantage::Member(0), &name(1));
        assert_eq!(outcome.reply.verdict, Verdict::NobodyToAsk, "{outcome:#?}");
        assert_eq!(overlay.lookup(&Vantage::Client(vec![1, 2]), &name(0)).reply.verdict, Verdict::NobodyToAsk);
        // One member that answers is not most of them.
        let outcome = overlay.lookup(&Vantage::Client(vec![0]), &name(1));
        assert_eq!((outcome.reply.verdict, outcome.reply.storers), (Verdict::NobodyToAsk, 1), "{conduct:?}");
        assert!(outcome.reply.silent >= 8 && outcome.took <= Duration::from_secs(5), "{outcome:#?}");
    }
}

#[test]
fn records_that_nobody_can_believe_are_untrusted_and_no_not_found() {
    let mut overlay = overlay(5, of(32));
    overlay.put(&Vantage::Member(0), &record(0, 1, WALL, Some("sip:first@192.0.2.1"))).unwrap();
    for storer in overlay.closest(&name(0).position(), 5) {
        overlay.set_conduct(storer, Conduct::Forging);
    }
    let outcome = overlay.lookup(&Vantage::Client(vec![1, 2, 3]), &name(0));
    assert_eq!((outcome.reply.verdict, outcome.reply.envelopes.len()), (Verdict::Untrusted, 0), "{outcome:#?}");
    assert_eq!(outcome.reply.rejected.len(), 5);
    assert!(outcome.reply.rejected.iter().all(|rejected| rejected.reason == Refusal::BadSignature));
    // A minority of forgers does not make a name out of nothing.
    for storer in &overlay.closest(&name(0).position(), 5)[..3] {
        overlay.set_conduct(*storer, Conduct::Withholding);
    }
    let outcome = overlay.lookup(&Vantage::Client(vec![1, 2, 3]), &name(0));
    assert_eq!((outcome.reply.verdict, outcome.reply.rejected.len()), (Verdict::NotFound, 2));
}

#[test]
fn an_older_record_is_refused_once_a_newer_one_is_held() {
    let mut overlay = overlay(5, of(32));
    overlay.advance(Duration::from_secs(10));
    let newer = overlay.wall();
    overlay.put(&Vantage::Member(0), &record(0, 1, newer, Some("sip:second@192.0.2.1"))).unwrap();
    let reply = overlay.put(&Vantage::Member(1), &record(0, 1, WALL, Some("sip:first@192.0.2.1"))).unwrap();
    assert!(reply.stored.is_empty(), "{reply:?}");
    assert_eq!(reply.refused[0].reason, Refusal::Older { held: newer.0 });
}

#[test]
fn storers_that_only_pretend_are_found_out_and_replaced() {
    let mut overlay = overlay(5, of(64));
    let target = name(0).position();
    for storer in &overlay.closest(&target, 5)[..2] {
        overlay.set_conduct(*storer, Conduct::Withholding);
    }
    let reply = overlay.put(&Vantage::Client(vec![0]), &record(0, 1, WALL, Some("sip:first@192.0.2.1"))).unwrap();
    assert_eq!((reply.stored.len(), reply.read_back, reply.refused.len()), (5, 3, 2), "{reply:?}");
    assert_eq!(overlay.holders(&target), 5);
}

#[test]
fn lost_messages_are_made_up_for() {
    let mut overlay = overlay(8, MemoryConfig { loss_permille: 50, ..of(64) });
    populate(&mut overlay, 40);
    for nth in 0..200 {
        let outcome = overlay.lookup(&Vantage::Member(nth % 64), &name(nth % 40));
        assert_eq!(outcome.reply.verdict, Verdict::Found, "{outcome:#?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut overlay = overlay(5, MemoryConfig { seed, ..of(64) });
        populate(&mut overlay, 5);
        let outcome = overlay.lookup(&Vantage::Member(3), &name(2));
        (overlay.elapsed(), outcome.trace)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn the_program_above_sees_an_overlay_that_stores_and_returns() {
    let overlay = Arc::new(Mutex::new(overlay(5, of(16))));
    let (one, other) = (MemoryMember::new(Arc::clone(&overlay), 0), MemoryMember::new(overlay, 9));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let envelope = record(0, 1, WALL, Some("sip:first@192.0.2.1"));
        let put = Put { envelope: envelope.clone().into(), timeout_ms: 5000 };
        assert_eq!(one.put(put).await.unwrap().stored.len(), 5);
        let reply = other.lookup(Lookup { name: name(0), timeout_ms: 5000 }).await.unwrap();
        assert_eq!((reply.verdict, &reply.envelopes[0][..]), (Verdict::Found, &envelope[..]));
        let forged = Put { envelope: vec![0; 10].into(), timeout_ms: 5000 };
        let error = one.put(forged).await.unwrap_err();
        assert!(matches!(error, OverlayError::Refused(Refusal::Malformed { .. })), "{error}");
    });
}
