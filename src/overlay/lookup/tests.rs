use proptest::prelude::*;

use super::*;
use crate::{
    identity::{Descriptor, Policy},
    name::OverlayId,
    record::{
        seal,
        testing::{Draft, NOW, key},
    },
};

const MS: Duration = Duration::from_millis(1);
const ALICE: &str = "sip:alice@p2psip.org";

fn trust() -> Arc<Trust> {
    let overlay = OverlayId::parse("p2psip.org").unwrap();
    let limits = Limits { max_instances: 4, ..Limits::default() };
    Arc::new(Trust::new(Arc::new(Descriptor::new(overlay, false, Policy::Open, None, limits).unwrap()), None))
}

fn sealed(draft: &Draft) -> ByteBuf {
    seal(&draft.payload, &key(draft.key), None).unwrap().into()
}

/// The reply of a peer that knows the eight nearest.
fn holding(envelopes: &[&ByteBuf]) -> FetchReply {
    FetchReply { envelopes: envelopes.iter().map(|envelope| (*envelope).clone()).collect(), closer: peers(8) }
}

/// Peers, nearest to Alice first.
fn peers(n: u8) -> Vec<PeerInfo> {
    let target = ResourceName::parse(ALICE).unwrap().position();
    let mut peers: Vec<_> = (0..n).map(|i| PeerId::from_public_key([i; 32])).collect();
    peers.sort_by_key(|peer| peer.position().distance(&target));
    peers.into_iter().map(|peer| PeerInfo { peer, addresses: vec!["/memory/1".to_owned()] }).collect()
}

/// A lookup of Alice that has asked all of its `seeds`.
fn lookup(seeds: &[PeerInfo], local: Option<PeerId>, now: Instant) -> LookupMachine {
    let trust = trust();
    let mut config = LookupConfig::for_overlay(trust.descriptor().limits());
    config.walk.paths = 8;
    let name = ResourceName::parse(ALICE).unwrap();
    let mut machine = LookupMachine::new(name, seeds.to_vec(), local, config, trust, now);
    drain(&mut machine, now);
    machine
}

/// Polls until the machine waits or ends.
fn drain(machine: &mut LookupMachine, now: Instant) -> Step {
    loop {
        match machine.poll(now, NOW) {
            Step::Ask(_) => {}
            step => return step,
        }
    }
}

#[test]
fn three_storers_are_enough() {
    let (now, seeds) = (Instant::now(), peers(8));
    let record = sealed(&Draft::user(ALICE, 1));
    let mut machine = lookup(&seeds, None, now);
    machine.on_reply(&seeds[7].peer, holding(&[]), now, NOW);
    for info in &seeds[..2] {
        machine.on_reply(&info.peer, holding(&[&record]), now + MS, NOW);
        assert_eq!(drain(&mut machine, now + MS), Step::Wait(now + 20 * MS));
    }
    machine.on_reply(&seeds[2].peer, holding(&[&record]), now + 2 * MS, NOW);
    assert!(matches!(drain(&mut machine, now + 2 * MS), Step::Done(_)));
    let outcome = machine.outcome(now + 2 * MS, NOW);
    assert_eq!(outcome.reply.verdict, Verdict::Found);
    assert_eq!(outcome.reply.envelopes, [record]);
    assert_eq!((outcome.reply.storers, outcome.reply.requests, outcome.reply.hops), (3, 8, 1));
    assert_eq!((outcome.disagreeing, outcome.contested, outcome.took), (0, false, 2 * MS));
    assert_eq!(outcome.trace.iter().map(|line| line.held.len()).collect::<Vec<_>>(), [1, 1, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn nobody_else_is_asked_while_enough_are_about_to_answer() {
    let (now, seeds) = (Instant::now(), peers(8));
    let record = sealed(&Draft::user(ALICE, 1));
    let trust = trust();
    let config = LookupConfig::for_overlay(trust.descriptor().limits());
    let begin = || {
        LookupMachine::new(ResourceName::parse(ALICE).unwrap(), seeds.clone(), None, config.clone(), trust.clone(), now)
    };
    let ask = |machine: &mut LookupMachine, at: Instant| {
        let mut asked = Vec::new();
        while let Step::Ask(ask) = machine.poll(at, NOW) {
            asked.push(ask.peer.peer);
        }
        asked
    };
    let mut machine = begin();
    let mut prompt = ask(&mut machine, now);
    assert_eq!(prompt.len(), 3);
    machine.on_reply(&prompt[0], holding(&[&record]), now + MS, NOW);
    assert_eq!(ask(&mut machine, now + MS), []);
    // Who is late may not answer at all: the next ones are asked.
    prompt.extend(ask(&mut machine, now + 30 * MS));
    assert!(prompt.len() > 3, "{prompt:?}");

    // A storer that has nothing is none of the three.
    let mut machine = begin();
    let prompt = ask(&mut machine, now);
    machine.on_reply(&prompt[0], holding(&[]), now + MS, NOW);
    assert_eq!(ask(&mut machine, now + MS).len(), 1);
}

#[test]
fn who_was_a_storer_before_others_came_closer_is_not_enough() {
    let (now, all) = (Instant::now(), peers(16));
    let [old, new] = [NOW.0, NOW.0 + 1].map(|sequence| sealed(&Draft::user(ALICE, 1).sequence(sequence)));
    let trust = trust();
    let config = LookupConfig::for_overlay(trust.descriptor().limits());
    // Known before are those alone that have held it for long; each of them knows the eight that have come.
    let known = all[8..11].to_vec();
    let mut machine = LookupMachine::new(ResourceName::parse(ALICE).unwrap(), known.clone(), None, config, trust, now);
    let mut rounds = Vec::new();
    let outcome = loop {
        let mut asked = Vec::new();
        while let Step::Ask(ask) = machine.poll(now, NOW) {
            asked.push(ask.peer.peer);
        }
        if asked.is_empty() {
            break machine.outcome(now, NOW);
        }
        for peer in &asked {
            let held = if known.iter().any(|known| known.peer == *peer) { &old } else { &new };
            let reply = FetchReply { envelopes: vec![held.clone()], closer: all[..8].to_vec() };
            machine.on_reply(peer, reply, now, NOW);
        }
        rounds.push(asked.len());
    };
    assert_eq!((outcome.reply.envelopes, rounds), (vec![new], vec![3, 3]));
}

#[test]
fn a_glance_is_over_when_three_of_the_closest_hold_nothing_and_proves_nothing() {
    let (now, seeds) = (Instant::now(), peers(16));
    let run = |glance, held: Option<&ByteBuf>| {
        let trust = trust();
        let config = LookupConfig::for_overlay(trust.descriptor().limits()).of_tree_node(glance, 7);
        let name = ResourceName::parse(ALICE).unwrap();
        let mut machine = LookupMachine::new(name, seeds.clone(), None, config, trust, now);
        let mut at = now;
        loop {
            let mut asked = Vec::new();
            let step = loop {
                match machine.poll(at, NOW) {
                    Step::Ask(ask) => asked.push(ask.peer.peer),
                    step => break step,
                }
            };
            if matches!(step, Step::Done(_)) {
                return machine.outcome(at, NOW);
            }
            at += MS;
            for peer in asked {
                machine.on_reply(&peer, holding(held.as_slice()), at, NOW);
            }
        }
    };
    let glance = run(true, None);
    assert_eq!((glance.reply.verdict, glance.reply.requests), (Verdict::NobodyToAsk, 3));
    let thorough = run(false, None);
    assert_eq!(thorough.reply.verdict, Verdict::NotFound);
    assert!(thorough.reply.requests >= 8, "{}", thorough.reply.requests);
    let record = sealed(&Draft::user(ALICE, 1));
    let found = run(true, Some(&record));
    assert_eq!((found.reply.verdict, found.reply.storers, found.reply.requests), (Verdict::Found, 3, 3));
}

#[test]
fn what_comes_within_a_while_of_the_first_record_is_merged() {
    let (now, seeds) = (Instant::now(), peers(8));
    let older = Draft::user(ALICE, 1);
    let (newer, other) = (older.clone().sequence(NOW.0 + 1), Draft::user(ALICE, 2));
    let [older, newer, other] = [older, newer, other].map(|draft| sealed(&draft));
    let mut machine = lookup(&seeds, None, now);
    machine.on_reply(&seeds[4].peer, holding(&[&older]), now + 10 * MS, NOW);
    machine.on_reply(&seeds[5].peer, holding(&[&newer, &other]), now + 60 * MS, NOW);
    assert_eq!(drain(&mut machine, now + 60 * MS), Step::Wait(now + 100 * MS));
    assert_eq!(drain(&mut machine, now + 100 * MS), Step::Wait(now + 110 * MS));
    assert!(matches!(drain(&mut machine, now + 110 * MS), Step::Done(_)));
    let outcome = machine.outcome(now + 110 * MS, NOW);
    assert_eq!(outcome.reply.verdict, Verdict::Found);
    assert_eq!(outcome.records.len(), 2);
    assert!(outcome.reply.envelopes.contains(&newer) && outcome.reply.envelopes.contains(&other));
    assert_eq!((outcome.disagreeing, outcome.contested), (1, true));
}

#[test]
fn a_closer_peer_that_is_about_to_answer_is_waited_for() {
    let (now, all) = (Instant::now(), peers(200));
    let seeds = &all[100..108];
    let record = sealed(&Draft::user(ALICE, 1));
    let closer = FetchReply { envelopes: vec![record], closer: all[..1].to_vec() };
    let mut machine = lookup(seeds, None, now);
    machine.on_reply(&seeds[0].peer, closer, now + 40 * MS, NOW);
    let mut at = now + 40 * MS;
    while let Step::Wait(until) = drain(&mut machine, at) {
        at = until;
    }
    // Asked at 40 ms, and hedged 150 ms later: only then they are given up.
    assert_eq!(at, now + 190 * MS);
    assert_eq!(machine.outcome(at, NOW).reply.verdict, Verdict::Found);
}

#[test]
fn storers_that_one_path_alone_has_told_of_are_not_enough() {
    let (now, all) = (Instant::now(), peers(200));
    let seeds = &all[100..108];
    let stale = sealed(&Draft::user(ALICE, 1));
    let newer = sealed(&Draft::user(ALICE, 1).sequence(NOW.0 + 1));
    let run = |tellers: &[usize]| {
        let mut machine = lookup(seeds, None, now);
        for teller in tellers {
            let told = FetchReply { envelopes: vec![], closer: all[..3].to_vec() };
            machine.on_reply(&seeds[*teller].peer, told, now + MS, NOW);
        }
        for at in [2, 3, 4] {
            drain(&mut machine, now + at * MS);
            machine.on_reply(&all[at as usize - 2].peer, holding(&[&stale]), now + at * MS, NOW);
        }
        let done = matches!(drain(&mut machine, now + 5 * MS), Step::Done(_));
        machine.on_reply(&seeds[1].peer, holding(&[&newer]), now + 6 * MS, NOW);
        (done, machine.outcome(now + 6 * MS, NOW).reply.envelopes)
    };
    assert_eq!(run(&[0, 2]), (true, vec![stale.clone()]));
    // One liar's three storers do not keep the others from being heard.
    assert_eq!(run(&[0]), (true, vec![stale.clone()]), "if only one path has led anywhere, it has to do");
    let mut machine = lookup(seeds, None, now);
    machine.on_reply(&seeds[2].peer, holding(&[]), now + MS, NOW);
    let told = FetchReply { envelopes: vec![], closer: all[..3].to_vec() };
    machine.on_reply(&seeds[0].peer, told, now + MS, NOW);
    for liar in &all[..3] {
        drain(&mut machine, now + 30 * MS);
        machine.on_reply(&liar.peer, holding(&[&stale]), now + 30 * MS, NOW);
    }
    assert!(matches!(drain(&mut machine, now + 31 * MS), Step::Wait(_)));
    machine.on_reply(&seeds[1].peer, holding(&[&newer]), now + 32 * MS, NOW);
    assert_eq!(machine.outcome(now + 32 * MS, NOW).reply.envelopes, [newer]);
}

#[test]
fn an_exhaustive_lookup_asks_on_and_tells_who_disagrees() {
    let (now, seeds) = (Instant::now(), peers(8));
    let old = sealed(&Draft::user(ALICE, 1));
    let new = sealed(&Draft::user(ALICE, 1).sequence(NOW.0 + 1));
    let bob = sealed(&Draft::user("sip:bob@p2psip.org", 1));
    let trust = trust();
    let mut config = LookupConfig::for_overlay(trust.descriptor().limits()).exhaustive();
    config.walk.paths = 8;
    let name = ResourceName::parse(ALICE).unwrap();
    let mut machine = LookupMachine::new(name, seeds.clone(), None, config, trust, now);
    drain(&mut machine, now);
    let answers: [&[&ByteBuf]; 8] = [&[&new], &[&new], &[&new], &[&old], &[], &[&new], &[&new], &[&bob, &bob]];
    for (info, envelopes) in seeds.iter().zip(answers) {
        assert!(matches!(drain(&mut machine, now), Step::Wait(_)), "every storer is heard");
        machine.on_reply(&info.peer, holding(envelopes), now, NOW);
    }
    assert!(matches!(drain(&mut machine, now), Step::Done(_)));
    let outcome = machine.outcome(now, NOW);
    assert_eq!((outcome.reply.envelopes, outcome.reply.storers), (vec![new], 8));
    let kinds = outcome.trace.iter().map(|line| line.differences.first().map(|difference| difference.kind));
    let (stale, withheld) = (Some(DifferenceKind::Stale), Some(DifferenceKind::Withheld));
    assert_eq!(kinds.collect::<Vec<_>>(), [None, None, None, stale, withheld, None, None, withheld]);
    let sequences = |line: &TraceLine| line.held.iter().map(|held| held.sequence).collect::<Vec<_>>();
    assert_eq!(sequences(&outcome.trace[0]), [NOW.0 + 1]);
    assert_eq!(sequences(&outcome.trace[3]), [NOW.0]);
    let liar = &outcome.trace[7];
    assert_eq!((liar.rejected, liar.refusals.len(), liar.refusals[0].code()), (2, 1, "wrong-name"));
}

#[test]
fn a_newer_tombstone_hides_the_record() {
    let (now, seeds) = (Instant::now(), peers(8));
    let live = Draft::user(ALICE, 1);
    let removed = sealed(&live.clone().sequence(NOW.0 + 1).removed());
    let live = sealed(&live);
    let mut machine = lookup(&seeds, None, now);
    machine.on_reply(&seeds[0].peer, holding(&[&removed]), now, NOW);
    for info in &seeds[1..] {
        assert!(matches!(drain(&mut machine, now), Step::Wait(_)));
        machine.on_reply(&info.peer, holding(&[&live]), now, NOW);
    }
    assert!(matches!(drain(&mut machine, now), Step::Done(_)));
    let outcome = machine.outcome(now, NOW);
    assert_eq!((outcome.reply.verdict, outcome.reply.envelopes.len()), (Verdict::NotFound, 0));
    assert_eq!((outcome.disagreeing, outcome.reply.storers), (7, 8));
}

#[test]
fn expired_records_are_untrusted_unless_most_storers_hold_none() {
    let (now, seeds) = (Instant::now(), peers(8));
    let expired = sealed(&Draft::user(ALICE, 1).sequence(NOW.0 - 100_000_000));
    let verdict = |expired_at: usize| {
        let mut machine = lookup(&seeds, None, now);
        for (nth, info) in seeds.iter().enumerate() {
            let reply = if nth < expired_at { holding(&[&expired]) } else { holding(&[]) };
            machine.on_reply(&info.peer, reply, now, NOW);
        }
        drain(&mut machine, now);
        machine.outcome(now, NOW).reply
    };
    assert_eq!(verdict(4).verdict, Verdict::Untrusted);
    let reply = verdict(3);
    assert_eq!((reply.verdict, reply.rejected.len()), (Verdict::NotFound, 3));
    assert!(matches!(reply.rejected[0].reason, Refusal::Expired { .. }));
    assert_eq!(reply.rejected[0].peer, seeds[0].peer);
}

#[test]
fn too_few_answers_are_nobody_to_ask() {
    let (now, seeds) = (Instant::now(), peers(8));
    for (answers, verdict) in [(4, Verdict::NobodyToAsk), (5, Verdict::NotFound)] {
        let mut machine = lookup(&seeds, None, now);
        for info in &seeds[..answers] {
            machine.on_reply(&info.peer, holding(&[]), now, NOW);
        }
        for info in &seeds[answers..] {
            machine.on_failure(&info.peer, Failure::Unreachable, now);
        }
        assert!(matches!(drain(&mut machine, now), Step::Done(_)));
        assert_eq!(machine.outcome(now, NOW).reply.verdict, verdict, "{answers} answers");
    }
}

#[test]
fn what_is_not_this_names_record_is_rejected_with_the_reason() {
    let (now, seeds) = (Instant::now(), peers(3));
    let bob = sealed(&Draft::user("sip:bob@p2psip.org", 1));
    let record = sealed(&Draft::user(ALICE, 1));
    let mut damaged = record.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut machine = lookup(&seeds, None, now);
    machine.on_reply(&seeds[0].peer, holding(&[&bob, &damaged, &record]), now, NOW);
    let five: Vec<_> = (1..=5).map(|key| sealed(&Draft::user(ALICE, key))).collect();
    machine.on_reply(&seeds[1].peer, holding(&five.iter().collect::<Vec<_>>()), now, NOW);
    let outcome = machine.outcome(now, NOW);
    assert_eq!((outcome.reply.verdict, outcome.records.len()), (Verdict::Found, 4));
    let codes: Vec<_> = outcome.reply.rejected.iter().map(|rejected| rejected.reason.code()).collect();
    assert_eq!(codes, ["wrong-name", "bad-signature", "malformed"]);
    let lines = outcome.trace.iter().map(|line| (line.held.len(), line.rejected));
    assert_eq!(lines.collect::<Vec<_>>(), [(1, 2), (4, 1), (0, 0)]);
}

#[test]
fn a_reader_believes_only_the_keys_it_has_pinned() {
    let (now, seeds) = (Instant::now(), peers(3));
    let mut machine = lookup(&seeds, None, now);
    machine.trust.pin(machine.name.clone(), key(1).public());
    let [mine, others] = [1, 2].map(|key| sealed(&Draft::user(ALICE, key)));
    machine.on_reply(&seeds[0].peer, holding(&[&mine, &others]), now, NOW);
    let outcome = machine.outcome(now, NOW);
    assert_eq!((outcome.reply.envelopes, outcome.contested), (vec![mine], false));
    assert!(matches!(outcome.reply.rejected[0].reason, Refusal::NotPinned { .. }));
}

#[test]
fn who_knows_nobody_says_not_found_only_if_there_never_was_anybody() {
    let now = Instant::now();
    for (founder, verdict) in [(true, Verdict::NotFound), (false, Verdict::NobodyToAsk)] {
        let trust = trust();
        let config = LookupConfig { founder, ..LookupConfig::for_overlay(trust.descriptor().limits()) };
        let name = ResourceName::parse(ALICE).unwrap();
        let mut machine = LookupMachine::new(name, Vec::new(), Some(peers(1)[0].peer), config, trust, now);
        machine.on_local(&holding(&[]), now, NOW);
        drain(&mut machine, now);
        assert_eq!(machine.outcome(now, NOW).reply.verdict, verdict);
    }
}

#[test]
fn what_this_member_holds_counts_as_one_storers_answer() {
    let (now, all) = (Instant::now(), peers(4));
    let local = all[1].peer;
    let others = [all[0].clone(), all[2].clone(), all[3].clone()];
    let record = sealed(&Draft::user(ALICE, 1));
    let mut machine = lookup(&others, Some(local), now);
    machine.on_local(&holding(&[&record]), now, NOW);
    machine.on_reply(&all[0].peer, holding(&[&record]), now, NOW);
    assert!(matches!(drain(&mut machine, now), Step::Wait(_)));
    machine.on_reply(&all[2].peer, holding(&[&record]), now, NOW);
    assert!(matches!(drain(&mut machine, now), Step::Done(_)));
    assert_eq!(machine.outcome(now, NOW).reply.storers, 3);

    // One of two others, which with this member makes two of three.
    let verdict = |others: &[PeerInfo], answering: usize, local: PeerId| {
        let mut machine = lookup(others, Some(local), now);
        machine.on_local(&holding(&[]), now, NOW);
        for info in &others[..answering] {
            let reply = FetchReply { envelopes: vec![], closer: others.to_vec() };
            machine.on_reply(&info.peer, reply, now, NOW);
        }
        for info in &others[answering..] {
            machine.on_failure(&info.peer, Failure::Unreachable, now);
        }
        drain(&mut machine, now);
        machine.outcome(now, NOW).reply.verdict
    };
    assert_eq!(verdict(&others[..2], 1, local), Verdict::NotFound);
    assert_eq!(verdict(&others[..2], 0, local), Verdict::NobodyToAsk);
    // Four of eight and this member, which stands too far away to be a storer.
    let many = peers(40);
    assert_eq!(verdict(&many[..8], 4, many[30].peer), Verdict::NobodyToAsk);
    assert_eq!(verdict(&many[1..9], 4, many[0].peer), Verdict::NotFound);
}

#[test]
fn nobody_keeps_a_lookup_from_what_it_has_for_long() {
    let (now, all) = (Instant::now(), peers(200));
    let seeds = &all[100..108];
    let record = sealed(&Draft::user(ALICE, 1));
    let mut machine = lookup(seeds, None, now);
    let closer = FetchReply { envelopes: vec![record], closer: all[..16].to_vec() };
    machine.on_reply(&seeds[0].peer, closer, now + 40 * MS, NOW);
    let mut at = now + 40 * MS;
    while let Step::Wait(until) = drain(&mut machine, at) {
        at = until;
    }
    assert_eq!(at, now + 540 * MS);
    assert_eq!(machine.outcome(at, NOW).reply.verdict, Verdict::Found);
}

proptest! {
    #[test]
    fn nothing_that_is_not_verified_is_found(
        replies in proptest::collection::vec(
            (0..8usize, proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)),
            0..20,
        ),
    ) {
        let (now, seeds) = (Instant::now(), peers(8));
        let mut machine = lookup(&seeds, None, now);
        for (from, envelopes) in replies {
            let envelopes = envelopes.into_iter().map(ByteBuf::from).collect();
            machine.on_reply(&seeds[from].peer, FetchReply { envelopes, closer: vec![] }, now, NOW);
            drain(&mut machine, now);
        }
        let outcome = machine.outcome(now, NOW);
        prop_assert_ne!(outcome.reply.verdict, Verdict::Found);
        prop_assert!(outcome.reply.envelopes.is_empty() && outcome.reply.rejected.len() <= MAX_REJECTED);
    }
}
