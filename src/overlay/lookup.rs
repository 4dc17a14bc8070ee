//! Looking a name up: what the storers of a name hold, verified and merged, and the verdict that follows.
//!
//! [`LookupMachine`] drives a [`Walk`] to the name's position and judges what comes back on the way. Nobody is
//! believed: each record is verified, and that there is none is only as good as the number of storers, reached over
//! disjoint paths, that say so. Sans-IO, as the walk is.

mod trace;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

pub use self::trace::{Difference, DifferenceKind, HeldRecord, TraceLine};
use super::walk::{Failure, Outcome, Step, Visit, Walk, WalkConfig};
use crate::{
    client::{FetchReply, LookupReply, PeerInfo, Rejected, Verdict},
    clock::UnixMs,
    identity::Limits,
    name::{PeerId, ResourceName},
    record::{Dictionary, Refusal, Trust, VerifiedRecord, contested},
};

/// How many rejected records a lookup reports; and as many reasons for one peer's.
pub const MAX_REJECTED: usize = 16;

/// The limits and timers of a [`LookupMachine`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupConfig {
    /// Those of the walk.
    pub walk: WalkConfig,
    /// A lookup is over once this many storers have returned records and one of them holds.
    pub enough: usize,
    /// It is over as well when this time has passed since the first such record and nobody closer is about to answer.
    pub gather: Duration,
    /// It is over when this time has passed since the first such record.
    pub gather_limit: Duration,
    /// Whether it goes on nevertheless until every storer has answered, or the time is up.
    pub exhaustive: bool,
}

impl LookupConfig {
    /// The defaults for an overlay of these limits: three storers, or what comes within 100 ms.
    pub fn for_overlay(limits: &Limits) -> Self {
        Self {
            walk: WalkConfig::for_replication(limits.replication.into()),
            enough: 3,
            gather: Duration::from_millis(100),
            gather_limit: Duration::from_millis(500),
            exhaustive: false,
        }
    }

    /// The same, but asking every storer, so that those that disagree come to light.
    pub const fn exhaustive(mut self) -> Self {
        self.exhaustive = true;
        self
    }

    /// The same with a limit on the whole lookup.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.walk.timeout = timeout;
        self
    }
}

/// A lookup under way. See the module's documentation.
///
/// The driver polls it, sends each [`Step::Ask`] as a [`Fetch`](crate::client::Fetch) and reports what comes back.
#[derive(Debug)]
pub struct LookupMachine {
    name: ResourceName,
    trust: Arc<Trust>,
    config: LookupConfig,
    walk: Walk,
    local: Option<PeerId>,
    started: Instant,
    merged: Dictionary,
    answers: BTreeMap<PeerId, Answer>,
    rejected: Vec<Rejected>,
    /// Whether there is a record that holds, and since when.
    first: Option<Instant>,
    /// What verifying each envelope came to, by its SHA-256: most storers return the same ones.
    seen: HashMap<[u8; 32], Result<HeldRecord, Refusal>>,
}

/// What one storer returned.
#[derive(Debug, Default)]
struct Answer {
    /// The SHA-256 of each verified envelope, sorted.
    held: Vec<[u8; 32]>,
    /// Envelopes that are not believed.
    rejected: u32,
    /// Why not: each reason once, and not all of very many.
    refusals: Vec<Refusal>,
}

/// What a lookup came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupOutcome {
    /// The answer to a [`Lookup`](crate::client::Lookup).
    pub reply: LookupReply,
    /// The records of `reply.envelopes`, in the same order.
    pub records: Vec<VerifiedRecord>,
    /// Storers that returned something else than what the merging of all returned, or nothing: they have missed a
    /// change, or they lie.
    pub disagreeing: u32,
    /// Open policy: whether nobody can tell whose the AOR is (see [`contested`]).
    pub contested: bool,
    /// Every request.
    pub trace: Vec<TraceLine>,
    /// How long the lookup has taken.
    pub took: Duration,
}

impl LookupMachine {
    /// A lookup of `name` that starts from the peers in `seeds`, on behalf of the member `local`, if it is one.
    ///
    /// If the member is itself a storer, [`LookupMachine::on_local`] tells what it holds.
    pub fn new(
        name: ResourceName,
        seeds: Vec<PeerInfo>,
        local: Option<PeerId>,
        config: LookupConfig,
        trust: Arc<Trust>,
        now: Instant,
    ) -> Self {
        let walk = Walk::new(name.position(), seeds, local, config.walk.clone(), now);
        Self {
            name,
            trust,
            config,
            walk,
            local,
            started: now,
            merged: Dictionary::new(),
            answers: BTreeMap::new(),
            rejected: Vec::new(),
            first: None,
            seen: HashMap::new(),
        }
    }

    /// What to do next: see [`Walk::poll`].
    pub fn poll(&mut self, now: Instant, wall: UnixMs) -> Step {
        if self.has_enough(now, wall) {
            self.walk.finish(now);
        }
        match self.walk.poll(now) {
            Step::Wait(until) => {
                let gathered = self
                    .first
                    .into_iter()
                    .flat_map(|at| [self.config.gather, self.config.gather_limit].map(|span| at + span));
                Step::Wait(gathered.filter(|at| *at > now).fold(until, Instant::min))
            }
            step => step,
        }
    }

    /// A peer's answer.
    pub fn on_reply(&mut self, peer: &PeerId, reply: FetchReply, now: Instant, wall: UnixMs) {
        let before = self.walk.rank(peer);
        self.walk.on_reply(peer, reply.closer, now);
        // The walk takes one answer from each peer that it has asked.
        if before.is_none() && self.walk.rank(peer).is_some() {
            self.judge(*peer, &reply.envelopes, now, wall);
        }
    }

    /// What this member holds itself, as a storer like others. The closer peers are the seeds, and are ignored here.
    pub fn on_local(&mut self, reply: &FetchReply, now: Instant, wall: UnixMs) {
        if let Some(local) = self.local {
            self.judge(local, &reply.envelopes, now, wall);
        }
    }

    /// A peer did not answer.
    pub fn on_failure(&mut self, peer: &PeerId, why: Failure, now: Instant) {
        self.walk.on_failure(peer, why, now);
    }

    /// The name looked up.
    pub const fn name(&self) -> &ResourceName {
        &self.name
    }

    /// The walk.
    pub const fn walk(&self) -> &Walk {
        &self.walk
    }

    /// What the lookup has come to: for good once [`LookupMachine::poll`] is done, so far if the caller stops earlier.
    pub fn outcome(&self, now: Instant, wall: UnixMs) -> LookupOutcome {
        let verdict = self.verdict(wall);
        let records: Vec<_> = self.merged.live(wall).cloned().collect();
        let mut storers = self.storers();
        if verdict == Verdict::Found && !self.config.exhaustive {
            // The lookup stopped when it had enough; beyond the last that holds a record, they are just passers-by.
            let last = storers.iter().rposition(|peer| self.holds(peer));
            storers.truncate(last.map_or(0, |last| last + 1));
        }
        let mut merged: Vec<_> = self.merged.all(wall).map(|record| *record.digest()).collect();
        merged.sort_unstable();
        let disagrees = |peer: &&PeerId| self.answers.get(peer).is_some_and(|answer| answer.held != merged);
        let hop = |visit: &&Visit| storers.contains(&visit.peer);
        let hops = self.walk.visits().iter().filter(hop).map(|visit| u32::from(visit.hop)).max();
        LookupOutcome {
            reply: LookupReply {
                verdict,
                envelopes: records.iter().map(|record| ByteBuf::from(record.envelope())).collect(),
                storers: count(storers.len()),
                requests: self.walk.requests(),
                silent: self.walk.silent(now),
                hops: hops.unwrap_or(0),
                rejected: self.rejected.clone(),
            },
            contested: contested(&records),
            records,
            disagreeing: count(storers.iter().filter(disagrees).count()),
            trace: self.trace(&storers, wall),
            took: now.saturating_duration_since(self.started),
        }
    }

    /// Every request, with what came of it.
    fn trace(&self, storers: &[PeerId], wall: UnixMs) -> Vec<TraceLine> {
        let returned: Vec<_> = storers
            .iter()
            .map(|peer| {
                // A storer beyond silent ones may never have been asked to store.
                let responsible = self.walk.known_closer_than(&peer.position()) < self.walk.config().k;
                (*peer, responsible, self.held(peer))
            })
            .collect();
        let mut differences = trace::differences(self.merged.all(wall), &returned);
        let line = |visit: &Visit| {
            let mut line = TraceLine {
                visit: visit.clone(),
                storer: false,
                held: Vec::new(),
                rejected: 0,
                refusals: Vec::new(),
                differences: Vec::new(),
            };
            // A peer asked twice has answered once.
            if let (Outcome::Answered { .. }, Some(answer)) = (visit.outcome, self.answers.get(&visit.peer)) {
                line.storer = storers.contains(&visit.peer);
                line.held = self.held(&visit.peer).into_iter().map(|(_, record)| record).collect();
                line.held.sort_unstable();
                line.rejected = answer.rejected;
                line.refusals = answer.refusals.clone();
                line.differences = differences.remove(&visit.peer).unwrap_or_default();
            }
            line
        };
        self.walk.visits().iter().map(line).collect()
    }

    /// The verified records that a peer has returned.
    fn held(&self, peer: &PeerId) -> trace::HeldByDigest {
        let digests = self.answers.get(peer).into_iter().flat_map(|answer| &answer.held);
        let known = |digest: &[u8; 32]| Some((*digest, *self.seen.get(digest)?.as_ref().ok()?));
        digests.filter_map(known).collect()
    }

    /// Verifies and merges what a storer returned.
    fn judge(&mut self, peer: PeerId, envelopes: &[ByteBuf], now: Instant, wall: UnixMs) {
        let max_instances = self.trust.descriptor().limits().max_instances;
        let mut answer = Answer::default();
        for envelope in envelopes.iter().take(max_instances) {
            match self.verify(envelope, max_instances, wall) {
                Ok(digest) => answer.held.push(digest),
                Err(reason) => self.reject(peer, reason, &mut answer),
            }
        }
        if envelopes.len() > max_instances {
            let reason = Refusal::malformed(format!("one of {} records of the name", envelopes.len()));
            self.reject(peer, reason, &mut answer);
        }
        answer.held.sort_unstable();
        answer.held.dedup();
        self.answers.insert(peer, answer);
        let holds = self.merged.live(wall).next().is_some();
        self.first = if holds { self.first.or(Some(now)) } else { None };
    }

    fn verify(&mut self, envelope: &[u8], max_instances: usize, wall: UnixMs) -> Result<[u8; 32], Refusal> {
        let digest: [u8; 32] = Sha256::digest(envelope).into();
        if let Some(known) = self.seen.get(&digest) {
            return known.clone().map(|_| digest);
        }
        let verified = self.trust.verify(envelope, Some(&self.name), wall);
        let verified = verified.and_then(|record| self.trust.check_pin(&record).map(|()| record));
        let result = verified.map(|record| {
            let held = HeldRecord::from(&record);
            self.merged.merge(record, max_instances);
            held
        });
        self.seen.insert(digest, result.clone());
        result.map(|_| digest)
    }

    fn reject(&mut self, peer: PeerId, reason: Refusal, answer: &mut Answer) {
        answer.rejected += 1;
        if answer.refusals.len() < MAX_REJECTED && !answer.refusals.contains(&reason) {
            answer.refusals.push(reason.clone());
        }
        let rejected = Rejected { peer, reason };
        if self.rejected.len() < MAX_REJECTED && !self.rejected.contains(&rejected) {
            self.rejected.push(rejected);
        }
    }

    fn holds(&self, peer: &PeerId) -> bool {
        self.answers.get(peer).is_some_and(|answer| !answer.held.is_empty())
    }

    /// Those that speak for the name and have answered, nearest first: peers, and this member if it is one of them.
    fn storers(&self) -> Vec<PeerId> {
        let mut storers: Vec<_> = self.walk.storers().collect();
        if let Some(local) = self.local_storer() {
            let position = local.position().distance(self.walk.target());
            let place = storers.partition_point(|peer| peer.position().distance(self.walk.target()) < position);
            storers.insert(place, local);
            storers.truncate(self.walk.config().k);
        }
        storers
    }

    /// This member, if it has told what it holds and stands among the closest.
    fn local_storer(&self) -> Option<PeerId> {
        let local = self.local.filter(|local| self.answers.contains_key(local))?;
        let closer = self.walk.known_closer_than(&local.position());
        (closer < self.walk.config().k).then_some(local)
    }

    /// Whether the answer is found and is not going to get better soon.
    fn has_enough(&self, now: Instant, wall: UnixMs) -> bool {
        if self.config.exhaustive {
            return false;
        }
        let Some(first) = self.first.filter(|_| self.merged.live(wall).next().is_some()) else { return false };
        let waited = now.saturating_duration_since(first);
        if waited >= self.config.gather_limit {
            return true;
        }
        let holders: Vec<_> = self.storers().into_iter().filter(|peer| self.holds(peer)).collect();
        let Some(nearest) = holders.first() else { return false };
        if holders.len() >= self.config.enough {
            // Three storers that one peer made up are one liar.
            let is_local = self.local.is_some_and(|local| holders.contains(&local));
            if is_local || self.walk.is_confirmed(&holders) {
                return true;
            }
        }
        waited >= self.config.gather && !self.walk.is_closer_coming(nearest, now)
    }

    fn verdict(&self, wall: UnixMs) -> Verdict {
        if self.merged.live(wall).next().is_some() {
            return Verdict::Found;
        }
        let holds_none = |peer: &PeerId| self.answers.get(peer).is_some_and(|answer| answer.rejected == 0);
        let local = self.local_storer().map(|local| holds_none(&local));
        let alone = self.walk.known() == 0 && local == Some(true);
        if alone || self.walk.is_agreed(usize::from(local == Some(true)), holds_none) {
            Verdict::NotFound
        } else if self.rejected.iter().any(|rejected| rejected.reason.is_untrusted()) {
            Verdict::Untrusted
        } else {
            Verdict::NobodyToAsk
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
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
}
