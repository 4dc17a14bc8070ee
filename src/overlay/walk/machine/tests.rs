use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn target() -> Position {
    Position::of_name("sip:alice@p2psip.org")
}

/// The first `n` of 200 peers, nearest to the target first.
fn peers(n: usize) -> Vec<PeerInfo> {
    let mut peers: Vec<_> = (0..200).map(|i| PeerId::from_public_key([i; 32])).collect();
    peers.sort_by_key(|peer| peer.position().distance(&target()));
    peers.truncate(n);
    peers.into_iter().map(|peer| PeerInfo { peer, addresses: vec![format!("/memory/{peer}")] }).collect()
}

fn config(k: usize) -> WalkConfig {
    WalkConfig::for_replication(k)
}

/// Polls until the walk waits or ends.
fn asks(walk: &mut Walk, now: Instant) -> (Vec<Ask>, Step) {
    let mut asks = Vec::new();
    loop {
        match walk.poll(now) {
            Step::Ask(ask) => asks.push(ask),
            step => return (asks, step),
        }
    }
}

fn names(asks: &[Ask]) -> Vec<PeerInfo> {
    asks.iter().map(|ask| ask.peer.clone()).collect()
}

#[test]
fn nobody_known_ends_at_once() {
    let now = Instant::now();
    let local = peers(1)[0].peer;
    let mut walk = Walk::new(target(), peers(1), Some(local), config(3), now);
    assert_eq!(walk.poll(now), Step::Done(End::Exhausted));
    assert_eq!((walk.requests(), walk.hops(), walk.known()), (0, 0, 0));
}

#[test]
fn paths_ask_one_peer_each_and_go_on_when_it_answers() {
    let now = Instant::now();
    let known = peers(6);
    let mut walk = Walk::new(target(), known.clone(), None, config(6), now);
    let (first, step) = asks(&mut walk, now);
    assert_eq!(names(&first), known[..3]);
    assert_eq!(first.iter().map(|ask| ask.path).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(step, Step::Wait(now + 150 * MS));

    walk.on_reply(&known[1].peer, vec![], now + MS);
    let (next, _) = asks(&mut walk, now + MS);
    assert_eq!(names(&next), known[4..5]);
    assert_eq!((next[0].path, next[0].hop), (1, 1));
}

#[test]
fn a_walk_goes_from_peer_to_closer_peer_and_settles_on_the_closest() {
    let now = Instant::now();
    let all = peers(40);
    let mut walk = Walk::new(target(), all[30..33].to_vec(), None, config(4), now);
    let mut at = now;
    let end = loop {
        let (asked, step) = asks(&mut walk, at);
        if let Step::Done(end) = step {
            break end;
        }
        assert!(!asked.is_empty());
        at += MS;
        for ask in asked {
            // Each knows the eight that stand just before it.
            let place = all.iter().position(|info| *info == ask.peer).unwrap();
            walk.on_reply(&ask.peer.peer, all[place.saturating_sub(8)..place].to_vec(), at);
        }
    };
    assert_eq!(end, End::Settled);
    assert_eq!(walk.closest().take(4).collect::<Vec<_>>(), all[..4]);
    assert!(walk.hops() >= 4, "{} hops", walk.hops());
    assert!(walk.requests() < 25, "{} requests", walk.requests());
    let chain = walk.visits().iter().find(|visit| visit.peer == all[0].peer).unwrap();
    assert!(chain.via.is_some() && chain.took == Some(MS));
}

#[test]
fn a_walk_that_spreads_asks_any_of_the_closest_once_it_has_arrived() {
    let now = Instant::now();
    let all = peers(60);
    let (k, walks) = (8, 400);
    let (mut near, mut requests) = ([0; 8], [0; 2]);
    for spread in (0..2 * walks).map(|nth: u64| (nth % 2 == 1).then_some(nth)) {
        let mut walk = Walk::new(target(), all[50..].to_vec(), None, WalkConfig { spread, ..config(k) }, now);
        // Somebody on the way tells of the neighbourhood, and that is where everybody knows everybody.
        let (first, _) = asks(&mut walk, now);
        walk.on_reply(&first[0].peer.peer, all[10..30].to_vec(), now + MS);
        let (closer, _) = asks(&mut walk, now + MS);
        assert_eq!(names(&closer), all[10..11], "on the way, the nearest is best");
        walk.on_reply(&all[10].peer, all[..20].to_vec(), now + 2 * MS);
        let (asked, _) = asks(&mut walk, now + 2 * MS);
        let Some(chosen) = asked.first().map(|ask| all.iter().position(|info| *info == ask.peer).unwrap()) else {
            panic!("nobody is asked")
        };
        assert!(chosen < k, "not one of the closest: {chosen}");
        match spread {
            None => assert_eq!(chosen, 0),
            Some(_) => near[chosen] += 1,
        }
        // In whatever order, it ends when it has asked those that any walk asks.
        let (mut at, mut open) = (now + 2 * MS, asked);
        while let Some(ask) = open.pop() {
            at += MS;
            walk.on_reply(&ask.peer.peer, all[..20].to_vec(), at);
            open.extend(asks(&mut walk, at).0);
        }
        for ask in &first[1..] {
            walk.on_reply(&ask.peer.peer, vec![], at);
        }
        assert_eq!(walk.storers().collect::<Vec<_>>(), all[..k].iter().map(|info| info.peer).collect::<Vec<_>>());
        requests[usize::from(spread.is_some())] += walk.requests();
    }
    assert!(near.iter().all(|times| (25..=80).contains(times)), "{near:?} of {walks}");
    assert_eq!(requests[0], requests[1]);
}

#[test]
fn a_silent_peer_costs_its_path_a_hedge_and_its_late_answer_counts() {
    let now = Instant::now();
    let known = peers(6);
    let mut walk = Walk::new(target(), known.clone(), None, WalkConfig { paths: 1, ..config(6) }, now);
    assert_eq!(names(&asks(&mut walk, now).0), known[..1]);
    assert!(asks(&mut walk, now + 149 * MS).0.is_empty());
    assert_eq!(names(&asks(&mut walk, now + 150 * MS).0), known[1..3], "once bitten, twice shy");
    // One quick answer shortens the hedge to its least.
    walk.on_reply(&known[1].peer, vec![], now + 152 * MS);
    assert_eq!(names(&asks(&mut walk, now + 152 * MS).0), known[3..4]);
    assert_eq!(walk.silent(now + 152 * MS), 1);
    assert_eq!(names(&asks(&mut walk, now + 170 * MS).0), known[4..6], "and now it waits for three");
    assert_eq!(walk.silent(now + 171 * MS), 2);
    walk.on_reply(&known[0].peer, vec![], now + 171 * MS);
    assert_eq!(walk.rank(&known[0].peer), Some(0));
    assert_eq!(walk.silent(now + 171 * MS), 1);
}

#[test]
fn silent_peers_hold_up_the_end_only_while_there_is_no_majority() {
    let now = Instant::now();
    let known = peers(3);
    let run = |answering: usize| {
        let mut walk = Walk::new(target(), known.clone(), None, config(3), now);
        asks(&mut walk, now);
        for info in &known[..answering] {
            walk.on_reply(&info.peer, vec![], now + 10 * MS);
        }
        let mut at = now + 10 * MS;
        loop {
            match asks(&mut walk, at).1 {
                Step::Wait(until) => at = until,
                step => return (step, at - now),
            }
        }
    };
    assert_eq!(run(3), (Step::Done(End::Settled), 10 * MS));
    assert_eq!(run(2), (Step::Done(End::Exhausted), 100 * MS));
    assert_eq!(run(1), (Step::Done(End::Exhausted), 2000 * MS));
    assert_eq!(run(0), (Step::Done(End::Exhausted), 2000 * MS));
}

#[test]
fn a_liar_sends_its_own_path_astray_and_no_other() {
    let now = Instant::now();
    let all = peers(60);
    let (nearest, seeds) = (&all[..4], &all[50..53]);
    // Nobody is at these positions, and they are closer than everybody.
    let mut ghosts: Vec<_> = (0..20_000u32)
        .map(|i| {
            let mut key = [0xee; 32];
            key[..4].copy_from_slice(&i.to_be_bytes());
            PeerInfo { peer: PeerId::from_public_key(key), addresses: vec!["/memory/0".to_owned()] }
        })
        .collect();
    ghosts.sort_by_key(|info| info.peer.position().distance(&target()));
    ghosts.truncate(8);
    let mut walk = Walk::new(target(), seeds.to_vec(), None, config(4), now);
    let mut at = now;
    let mut majority_after = None;
    let end = loop {
        let (asked, step) = asks(&mut walk, at);
        if let Step::Done(end) = step {
            break end;
        }
        for ask in asked {
            if ask.peer == seeds[0] {
                walk.on_reply(&ask.peer.peer, ghosts.clone(), at);
            } else if all.contains(&ask.peer) {
                walk.on_reply(&ask.peer.peer, nearest.to_vec(), at);
            }
        }
        if walk.closest().take(3).eq(nearest[..3].iter().cloned()) {
            majority_after.get_or_insert(at - now);
        }
        at += MS;
    };
    assert_eq!(end, End::Settled, "the ghosts fell silent");
    assert_eq!(walk.closest().take(4).collect::<Vec<_>>(), nearest);
    assert!(majority_after.unwrap() < 5 * MS, "{majority_after:?}");
    let ghost_paths = walk.visits().iter().filter(|visit| ghosts.iter().any(|ghost| ghost.peer == visit.peer));
    assert!(ghost_paths.clone().count() > 0 && ghost_paths.into_iter().all(|visit| visit.path == 0));
    assert!(walk.is_confirmed(nearest.iter().map(|info| &info.peer)));
    assert!(!walk.is_confirmed(ghosts.iter().map(|info| &info.peer)));
    assert_eq!(walk.known(), 7, "ghosts are one peer's word");
    assert!(walk.storers().eq(nearest.iter().map(|info| info.peer)));
}

#[test]
fn wrong_addresses_told_on_one_path_do_not_hide_a_peer_from_another() {
    let now = Instant::now();
    let all = peers(4);
    let wrong = PeerInfo { addresses: vec!["/memory/wrong".to_owned()], ..all[0].clone() };
    for failure in [Some(Failure::Unreachable), None] {
        let mut walk = Walk::new(target(), all[1..4].to_vec(), None, config(2), now);
        asks(&mut walk, now);
        walk.on_reply(&all[1].peer, vec![wrong.clone()], now + MS);
        let (asked, _) = asks(&mut walk, now + MS);
        assert_eq!(asked[0].peer, wrong);
        walk.on_reply(&all[2].peer, vec![all[0].clone()], now + 2 * MS);
        assert!(asks(&mut walk, now + 2 * MS).0.is_empty(), "one try at a time");
        match failure {
            Some(why) => walk.on_failure(&all[0].peer, why, now + 3 * MS),
            None => assert!(asks(&mut walk, now + 100 * MS).0.is_empty()),
        }
        let (again, _) = asks(&mut walk, now + 101 * MS);
        assert_eq!(names(&again), all[..1]);
        assert_eq!(again[0].path, 1);
        // The failure of the first try, should it come now, says nothing about the second.
        if failure.is_none() {
            walk.on_failure(&all[0].peer, Failure::Unreachable, now + 102 * MS);
        }
        walk.on_reply(&all[0].peer, vec![], now + 103 * MS);
        assert_eq!(walk.rank(&all[0].peer), Some(0), "{failure:?}");
    }
}

#[test]
fn the_only_seed_starts_all_paths() {
    let now = Instant::now();
    let all = peers(10);
    let mut walk = Walk::new(target(), all[9..].to_vec(), None, config(8), now);
    asks(&mut walk, now);
    walk.on_reply(&all[9].peer, all[..9].to_vec(), now + MS);
    let (asked, _) = asks(&mut walk, now + MS);
    assert_eq!(names(&asked), all[..3]);
    assert_eq!(asked.iter().map(|ask| (ask.path, ask.hop)).collect::<Vec<_>>(), [(0, 2), (1, 2), (2, 2)]);
}

#[test]
fn strangers_and_second_answers_change_nothing() {
    let now = Instant::now();
    let all = peers(9);
    let mut walk = Walk::new(target(), all[..3].to_vec(), None, config(3), now);
    walk.on_reply(&all[0].peer, all[3..].to_vec(), now);
    walk.on_reply(&all[8].peer, all[3..].to_vec(), now);
    walk.on_failure(&all[0].peer, Failure::Refused, now);
    assert_eq!(asks(&mut walk, now).0.len(), 3, "before they were asked, they cannot answer");
    walk.on_reply(&all[0].peer, vec![], now);
    walk.on_reply(&all[0].peer, all[3..].to_vec(), now);
    walk.on_failure(&all[0].peer, Failure::Silent, now);
    assert_eq!(walk.closest().count(), 1);
    assert_eq!(walk.candidates.len(), 3);
}

#[test]
fn no_more_is_taken_from_a_reply_than_fits() {
    let now = Instant::now();
    let all = peers(9);
    let mut walk = Walk::new(target(), all[8..].to_vec(), None, WalkConfig { per_reply: 2, ..config(8) }, now);
    asks(&mut walk, now);
    let mut told = all[..8].to_vec();
    told[1] = PeerInfo {
        addresses: vec![
            "/memory/1
"
            .to_owned(),
            "x".repeat(201),
        ],
        ..told[1].clone()
    };
    walk.on_reply(&all[8].peer, told, now);
    assert_eq!(walk.candidates.len(), 2, "one of the two has no address that could be dialled");
    assert_eq!(walk.visits()[0].outcome, Outcome::Answered { peers: 2, new: 1 });
}

#[test]
fn two_paths_have_to_agree_if_two_lead_anywhere() {
    let now = Instant::now();
    let all = peers(60);
    let run = |paths_that_answer: usize| {
        let mut walk = Walk::new(target(), all[50..52].to_vec(), None, config(3), now);
        asks(&mut walk, now);
        walk.on_reply(&all[50].peer, all[..3].to_vec(), now);
        walk.on_reply(&all[51].peer, all[10..13].to_vec(), now);
        for path in 0..paths_that_answer {
            for info in &all[10 * path..10 * path + 3] {
                asks(&mut walk, now);
                walk.on_reply(&info.peer, vec![], now);
            }
        }
        walk.is_agreed(0, |_| true)
    };
    assert!(!run(0));
    assert!(!run(1));
    assert!(run(2));
}

#[test]
fn peers_beyond_many_silent_ones_cannot_speak_for_the_position() {
    let now = Instant::now();
    let all = peers(20);
    let run = |silent: usize| {
        let config = WalkConfig { paths: 1, per_reply: 4, ..config(2) };
        let mut walk = Walk::new(target(), all.clone(), None, config, now);
        for info in &all {
            asks(&mut walk, now);
            if all[..silent].contains(info) {
                walk.on_failure(&info.peer, Failure::Unreachable, now);
            } else {
                walk.on_reply(&info.peer, vec![], now);
            }
        }
        walk.is_agreed(0, |_| true)
    };
    assert!(run(8));
    assert!(!run(9), "of the ten closest, one is left");
}

/// What may happen to a walk.
#[derive(Debug, Clone)]
enum Happening {
    Reply { of: usize, told: Vec<(u8, u8)> },
    Failure { of: usize, why: Failure },
    Stranger { who: u8, told: Vec<(u8, u8)> },
    Time(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let told = proptest::collection::vec((0..120u8, 0..3u8), 0..30);
    let why = prop_oneof![Just(Failure::Unreachable), Just(Failure::Silent), Just(Failure::Refused)];
    prop_oneof![
        4 => (0..8usize, told.clone()).prop_map(|(of, told)| Happening::Reply { of, told }),
        2 => (0..8usize, why).prop_map(|(of, why)| Happening::Failure { of, why }),
        1 => (0..120u8, told).prop_map(|(who, told)| Happening::Stranger { who, told }),
        2 => (0..200u64).prop_map(Happening::Time),
    ]
}

fn infos(told: &[(u8, u8)]) -> Vec<PeerInfo> {
    let info = |&(who, at): &(u8, u8)| PeerInfo {
        peer: PeerId::from_public_key([who; 32]),
        addresses: (at < 2).then(|| format!("/memory/{who}-{at}")).into_iter().collect(),
    };
    told.iter().map(info).collect()
}

proptest! {
    #[test]
    fn whatever_happens_a_walk_keeps_its_bounds_and_ends(
        seeds in proptest::collection::vec((0..120u8, 0..2u8), 0..40),
        happenings in proptest::collection::vec(happening(), 0..200),
        k in 1..10usize,
        paths in 0..5u8,
        max_requests in 0..40usize,
        max_candidates in 1..20usize,
    ) {
        let start = Instant::now();
        let local = PeerId::from_public_key([7; 32]);
        let config = WalkConfig { paths, max_requests, max_candidates, ..config(k) };
        let mut walk = Walk::new(target(), infos(&seeds), Some(local), config, start);
        let mut now = start;
        let mut waiting: Vec<PeerId> = Vec::new();
        let mut asked: Vec<(PeerId, String)> = Vec::new();
        let mut requests = 0;
        let mut happenings = happenings.into_iter();
        loop {
            let wait = match walk.poll(now) {
                Step::Ask(ask) => {
                    requests += 1;
                    prop_assert!(requests <= max_requests, "over the budget");
                    prop_assert!(ask.peer.peer != local, "asked itself");
                    prop_assert!(ask.path < paths.max(1));
                    prop_assert!(!ask.peer.addresses.is_empty());
                    for address in ask.peer.addresses {
                        let at = (ask.peer.peer, address);
                        prop_assert!(!asked.contains(&at), "asked twice at {at:?}");
                        asked.push(at);
                    }
                    waiting.push(ask.peer.peer);
                    continue;
                }
                Step::Wait(until) => until,
                Step::Done(_) => break,
            };
            prop_assert!(wait > now, "a wait that is over");
            prop_assert!(wait <= start + Duration::from_secs(5));
            match happenings.next() {
                Some(Happening::Reply { of, told }) if of < waiting.len() => {
                    let of = waiting.remove(of);
                    walk.on_reply(&of, infos(&told), now);
                }
                Some(Happening::Failure { of, why }) if of < waiting.len() => {
                    let of = waiting.remove(of);
                    walk.on_failure(&of, why, now);
                }
                Some(Happening::Stranger { who, told }) => {
                    let who = PeerId::from_public_key([who; 32]);
                    if !waiting.contains(&who) {
                        walk.on_reply(&who, infos(&told), now);
                    }
                }
                Some(Happening::Time(ms)) => now = wait.min(now + Duration::from_millis(ms)),
                _ => now = wait,
            }
            let limit = usize::from(paths.max(1)) * max_candidates + requests;
            prop_assert!(walk.candidates.len() <= limit, "{} candidates", walk.candidates.len());
            prop_assert_eq!(walk.visits().len(), requests);
        }
        prop_assert!(now <= start + Duration::from_secs(5));
        prop_assert!(matches!(walk.poll(now), Step::Done(_)), "an end is an end");
    }
}
