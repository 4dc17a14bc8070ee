use proptest::prelude::*;
use serde_bytes::ByteBuf;

use super::*;
use crate::{
    identity::{Descriptor, Policy},
    name::{OverlayId, Position},
    record::{
        seal,
        testing::{Draft, NOW, key},
    },
};

const MS: Duration = Duration::from_millis(1);
const ALICE: &str = "sip:alice@p2psip.org";

fn trust() -> Arc<Trust> {
    let overlay = OverlayId::parse("p2psip.org").unwrap();
    let limits = Limits { replication: 3, ..Limits::default() };
    Arc::new(Trust::new(Arc::new(Descriptor::new(overlay, false, Policy::Open, None, limits).unwrap()), None))
}

fn sealed(draft: &Draft) -> ByteBuf {
    seal(&draft.payload, &key(draft.key), None).unwrap().into()
}

fn record() -> VerifiedRecord {
    trust().verify(&sealed(&Draft::user(ALICE, 1)), None, NOW).unwrap()
}

fn holding(envelope: &[u8]) -> FetchReply {
    FetchReply { envelopes: vec![ByteBuf::from(envelope)], closer: vec![] }
}

/// Peers, nearest to Alice first.
fn peers(n: u8) -> Vec<PeerInfo> {
    let mut peers: Vec<_> = (0..n).map(|i| PeerId::from_public_key([i; 32])).collect();
    peers.sort_by_key(|peer| peer.position().distance(&Position::of_name(ALICE)));
    peers.into_iter().map(|peer| PeerInfo { peer, addresses: vec!["/memory/1".to_owned()] }).collect()
}

/// A placement at three of the peers in `all`, all of which have answered the walk, except `local`.
fn walked(all: &[PeerInfo], local: Option<PeerId>, now: Instant) -> PlacementMachine {
    let trust = trust();
    let mut config = PlacementConfig::for_overlay(trust.descriptor().limits(), local.is_some());
    // The walk goes on to five.
    config.walk.k = 5;
    let mut machine = PlacementMachine::new(record(), all.to_vec(), local, config, trust, now);
    machine.config.walk.k = 3;
    while let Step::Fetch(ask) = machine.poll(now) {
        let reply = FetchReply { envelopes: vec![], closer: all.to_vec() };
        machine.on_fetched(&ask.peer.peer, reply, now, NOW);
    }
    // The step that ended the loop is one of storing: take it back.
    for target in &mut machine.targets {
        target.state = State::Unasked;
    }
    machine
}

/// Polls until the machine waits or ends.
fn steps(machine: &mut PlacementMachine, now: Instant) -> (Vec<Step>, Step) {
    let mut steps = Vec::new();
    loop {
        match machine.poll(now) {
            step @ (Step::Wait(_) | Step::Done) => return (steps, step),
            step => steps.push(step),
        }
    }
}

fn stores(peers: &[PeerInfo]) -> Vec<Step> {
    peers.iter().cloned().map(Step::Store).collect()
}

fn reads(peers: &[&PeerInfo]) -> Vec<Step> {
    peers.iter().map(|info| Step::ReadBack((*info).clone())).collect()
}

#[test]
fn the_closest_store_it_and_return_it() {
    let (now, all) = (Instant::now(), peers(6));
    let mut machine = walked(&all, None, now);
    assert_eq!(steps(&mut machine, now), (stores(&all[..3]), Step::Wait(now + 300 * MS)));
    for info in &all[..3] {
        assert!(steps(&mut machine, now).0.is_empty(), "nothing is read before all is stored");
        machine.on_stored(&info.peer, StoreReply::Stored);
    }
    assert_eq!(steps(&mut machine, now).0, reads(&[&all[0], &all[2], &all[1]]));
    for info in &all[..3] {
        machine.on_read_back(&info.peer, &holding(record().envelope()), NOW);
    }
    assert_eq!(machine.poll(now), Step::Done);
    let reply = machine.outcome(now);
    assert_eq!(reply.stored, all[..3].iter().map(|info| info.peer).collect::<Vec<_>>());
    assert_eq!((reply.read_back, reply.silent, reply.refused.len()), (3, 0, 0));
}

#[test]
fn the_next_closest_takes_the_place_of_one_that_refuses_or_fails() {
    let (now, all) = (Instant::now(), peers(6));
    let mut machine = walked(&all, None, now);
    steps(&mut machine, now);
    machine.on_stored(&all[1].peer, StoreReply::Refused(Refusal::NotResponsible));
    assert_eq!(steps(&mut machine, now).0, stores(&all[3..4]));
    machine.on_failure(&all[0].peer, Failure::Unreachable, now);
    assert_eq!(steps(&mut machine, now).0, stores(&all[4..5]));
    let reply = machine.outcome(now);
    assert_eq!(reply.refused, [Rejected { peer: all[1].peer, reason: Refusal::NotResponsible }]);
    assert_eq!((reply.stored.len(), reply.silent), (0, 4));
    machine.on_stored(&all[0].peer, StoreReply::Stored);
    assert_eq!(machine.outcome(now).stored, [all[0].peer], "it has spoken after all");
}

#[test]
fn a_silent_storer_is_made_up_for_and_its_late_word_counts() {
    let (now, all) = (Instant::now(), peers(6));
    let mut machine = walked(&all, None, now);
    steps(&mut machine, now);
    for info in &all[1..3] {
        machine.on_stored(&info.peer, StoreReply::Stored);
    }
    assert!(steps(&mut machine, now + 299 * MS).0.is_empty());
    let at = now + 300 * MS;
    assert_eq!(steps(&mut machine, at).0, [stores(&all[3..4]), vec![]].concat());
    machine.on_stored(&all[3].peer, StoreReply::Stored);
    assert_eq!(steps(&mut machine, at).0.len(), 3, "three are read from");
    machine.on_stored(&all[0].peer, StoreReply::Stored);
    for info in &all[1..4] {
        machine.on_read_back(&info.peer, &holding(record().envelope()), NOW);
    }
    assert_eq!(machine.poll(at), Step::Done);
    assert_eq!((machine.outcome(at).stored.len(), machine.outcome(at).silent), (4, 0));
}

#[test]
fn one_that_acknowledges_and_does_not_return_it_is_replaced() {
    let (now, all) = (Instant::now(), peers(6));
    let mut machine = walked(&all, None, now);
    steps(&mut machine, now);
    for info in &all[..3] {
        machine.on_stored(&info.peer, StoreReply::Stored);
    }
    steps(&mut machine, now);
    machine.on_read_back(&all[0].peer, &FetchReply::default(), NOW);
    assert_eq!(steps(&mut machine, now).0, stores(&all[3..4]));
    machine.on_stored(&all[3].peer, StoreReply::Stored);
    assert_eq!(steps(&mut machine, now).0, reads(&[&all[3]]));
    let reply = machine.outcome(now);
    assert_eq!((reply.stored.len(), reply.refused.len(), reply.refused[0].peer), (3, 1, all[0].peer));
}

#[test]
fn this_member_is_a_storer_like_others() {
    let (now, all) = (Instant::now(), peers(6));
    let mut machine = walked(&all, Some(all[1].peer), now);
    let expected = [stores(&all[..1]), vec![Step::StoreLocal(all[1].peer)], stores(&all[2..3])].concat();
    assert_eq!(steps(&mut machine, now).0, expected);
    for info in &all[..3] {
        machine.on_stored(&info.peer, StoreReply::Stored);
    }
    assert_eq!(steps(&mut machine, now).0, reads(&[&all[0], &all[2]]), "it need not read from itself");
}

#[test]
fn a_record_at_fault_is_not_offered_to_everybody() {
    let (now, all) = (Instant::now(), peers(6));
    let mut machine = walked(&all, None, now);
    steps(&mut machine, now);
    for info in &all[..2] {
        machine.on_stored(&info.peer, StoreReply::Refused(Refusal::Revoked { serial: "01".to_owned() }));
    }
    machine.on_stored(&all[2].peer, StoreReply::Refused(Refusal::NotResponsible));
    assert_eq!(steps(&mut machine, now), (vec![], Step::Done));
    assert_eq!(machine.outcome(now).refused.len(), 3);
}

#[test]
fn a_newer_record_on_the_way_ends_it() {
    let (now, all) = (Instant::now(), peers(6));
    let newer = sealed(&Draft::user(ALICE, 1).sequence(NOW.0 + 5));
    let older = sealed(&Draft::user(ALICE, 1).sequence(NOW.0 - 5));
    let others = sealed(&Draft::user(ALICE, 2).sequence(NOW.0 + 5));
    let trust = trust();
    let config = PlacementConfig::for_overlay(trust.descriptor().limits(), false);
    let mut machine = PlacementMachine::new(record(), all.clone(), None, config, trust, now);
    steps(&mut machine, now);
    machine.on_fetched(&all[0].peer, holding(&older), now, NOW);
    machine.on_fetched(&all[1].peer, holding(&others), now, NOW);
    assert_ne!(machine.poll(now), Step::Done);
    machine.on_fetched(&all[2].peer, holding(&newer), now, NOW);
    assert_eq!(machine.poll(now), Step::Done);
    let reply = machine.outcome(now);
    assert_eq!(reply.refused, [Rejected { peer: all[2].peer, reason: Refusal::Older { held: NOW.0 + 5 } }]);
    assert!(reply.stored.is_empty());
}

#[test]
fn nobody_there_is_silence() {
    let (now, all) = (Instant::now(), peers(2));
    let trust = trust();
    let config = PlacementConfig::for_overlay(trust.descriptor().limits(), false).within(Duration::from_secs(1));
    let mut machine = PlacementMachine::new(record(), all, None, config, trust, now);
    let mut at = now;
    while let (_, Step::Wait(until)) = steps(&mut machine, at) {
        at = until;
    }
    assert_eq!((at, machine.outcome(at).silent), (now + 500 * MS, 2));
}

#[derive(Debug, Clone)]
enum Happening {
    Stored(usize),
    Refused(usize),
    ReadBack(usize, bool),
    Failed(usize),
    Time(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..12usize).prop_map(Happening::Stored),
        (0..12usize).prop_map(Happening::Refused),
        (0..12usize, any::<bool>()).prop_map(|(of, right)| Happening::ReadBack(of, right)),
        (0..12usize).prop_map(Happening::Failed),
        (0..400u64).prop_map(Happening::Time),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_each_peer_stores_once_and_it_ends(
        happenings in proptest::collection::vec(happening(), 0..100),
        local in any::<bool>(),
    ) {
        let (start, all) = (Instant::now(), peers(12));
        let mut machine = walked(&all, local.then_some(all[2].peer), start);
        let (mut now, mut asked, mut reads) = (start, Vec::new(), 0);
        let mut happenings = happenings.into_iter();
        let returned = holding(machine.record.envelope());
        loop {
            let (steps, end) = steps(&mut machine, now);
            for step in steps {
                match step {
                    Step::Store(info) => asked.push(info.peer),
                    Step::StoreLocal(peer) => asked.push(peer),
                    Step::ReadBack(_) => reads += 1,
                    step => prop_assert!(false, "{step:?} after the walk"),
                }
            }
            let mut unique = asked.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), asked.len());
            prop_assert!(asked.len() <= 6 && reads <= 6, "{} stores, {} reads", asked.len(), reads);
            let Step::Wait(until) = end else { break };
            prop_assert!(until > now && until <= start + Duration::from_secs(5));
            match happenings.next() {
                Some(Happening::Stored(of)) => machine.on_stored(&all[of].peer, StoreReply::Stored),
                Some(Happening::Refused(of)) => {
                    machine.on_stored(&all[of].peer, StoreReply::Refused(Refusal::NotResponsible));
                }
                Some(Happening::ReadBack(of, true)) => {
                    machine.on_read_back(&all[of].peer, &returned, NOW);
                }
                Some(Happening::ReadBack(of, false)) => {
                    machine.on_read_back(&all[of].peer, &FetchReply::default(), NOW);
                }
                Some(Happening::Failed(of)) => machine.on_failure(&all[of].peer, Failure::Silent, now),
                Some(Happening::Time(ms)) => now = until.min(now + Duration::from_millis(ms)),
                None => now = until,
            }
        }
        let reply = machine.outcome(now);
        prop_assert!(reply.read_back as usize <= reply.stored.len());
        prop_assert!(reply.stored.iter().all(|peer| asked.contains(peer)));
    }
}
