//! Storing a record: finds the peers responsible for it, has each of them keep it, and reads it back.
//!
//! [`PlacementMachine`] drives a [`Walk`] to the record's position. The closest peers that answer are asked to store
//! the record; the next closest takes the place of one that refuses or stays silent. An acknowledgement is only a
//! claim, so a few storers are asked for the record again. Sans-IO, as the walk is.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::walk::{self, Ask, Failure, Walk, WalkConfig};
use crate::{
    client::{FetchReply, PeerInfo, PutReply, Rejected, StoreReply},
    clock::UnixMs,
    identity::Limits,
    name::PeerId,
    record::{Refusal, Trust, VerifiedRecord},
};

/// The limits and timers of a [`PlacementMachine`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementConfig {
    /// Those of the walk; its `k` is the number of storers sought.
    pub walk: WalkConfig,
    /// How long the whole placement may take, the walk included.
    pub timeout: Duration,
    /// After this time without an acknowledgement, the next closest peer is asked to store the record as well.
    pub hedge: Duration,
    /// After this time a request to store or to return the record is given up.
    pub request_timeout: Duration,
    /// How many storers are asked to return the record.
    pub read_back: usize,
    /// Whether this member stores records itself, and so may be one of the storers.
    pub local_stores: bool,
}

impl PlacementConfig {
    /// The defaults for an overlay of these limits.
    pub fn for_overlay(limits: &Limits, local_stores: bool) -> Self {
        Self {
            walk: WalkConfig::for_replication(limits.replication.into()),
            timeout: Duration::from_secs(5),
            hedge: Duration::from_millis(300),
            request_timeout: Duration::from_secs(2),
            read_back: 3,
            local_stores,
        }
    }

    /// The same with a limit on the whole placement, of which the walk gets at most half.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self.walk.timeout = self.walk.timeout.min(timeout / 2);
        self
    }
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send a [`Fetch`](crate::client::Fetch) for the record's position; answer with
    /// [`PlacementMachine::on_fetched`].
    Fetch(Ask),
    /// Send a [`Store`](crate::client::Store); answer with [`PlacementMachine::on_stored`].
    Store(PeerInfo),
    /// Have this member's own storer keep the record; answer as to [`Step::Store`], with this member's peer id.
    StoreLocal(PeerId),
    /// Send a [`Fetch`](crate::client::Fetch) that asks for no closer peers; answer with
    /// [`PlacementMachine::on_read_back`].
    ReadBack(PeerInfo),
    /// Nothing to do before this time, unless an answer comes first.
    Wait(Instant),
    /// The placement is over.
    Done,
}

/// A placement under way. See the module's documentation.
#[derive(Debug)]
pub struct PlacementMachine {
    record: VerifiedRecord,
    trust: Arc<Trust>,
    config: PlacementConfig,
    local: Option<PeerId>,
    deadline: Instant,
    walk: Walk,
    /// The peers that may store the record, in the order of preference; none before the walk is over.
    targets: Vec<Target>,
    walked: bool,
    /// How many of them shall store it.
    wanted: usize,
    /// Who holds a newer record of the instance, and its sequence.
    superseded: Option<Rejected>,
    /// Envelopes of others, by SHA-256, that are not newer.
    judged: HashSet<[u8; 32]>,
    reads: usize,
    done: bool,
}

#[derive(Debug)]
struct Target {
    info: PeerInfo,
    state: State,
    read: Read,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unasked,
    Asked(Instant),
    Stored,
    Refused(Refusal),
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Not,
    Asked(Instant),
    Returned,
    Failed,
}

impl PlacementMachine {
    /// Places `record`, starting from the peers in `seeds`, on behalf of the member `local`, if it is one.
    pub fn new(
        record: VerifiedRecord,
        seeds: Vec<PeerInfo>,
        local: Option<PeerId>,
        config: PlacementConfig,
        trust: Arc<Trust>,
        now: Instant,
    ) -> Self {
        let walk = Walk::new(*record.position(), seeds, local, config.walk.clone(), now);
        Self {
            record,
            trust,
            local,
            deadline: now + config.timeout,
            config,
            walk,
            targets: Vec::new(),
            walked: false,
            wanted: 0,
            superseded: None,
            judged: HashSet::new(),
            reads: 0,
            done: false,
        }
    }

    /// What to do next. After [`Step::Wait`], poll again at that time or after the next answer; after any other step
    /// but [`Step::Done`], at once.
    pub fn poll(&mut self, now: Instant) -> Step {
        if self.done || self.superseded.is_some() || now >= self.deadline {
            self.walk.finish(now);
            self.done = true;
            return Step::Done;
        }
        if !self.walked {
            match self.walk.poll(now) {
                walk::Step::Ask(ask) => return Step::Fetch(ask),
                walk::Step::Wait(until) => return Step::Wait(until.min(self.deadline)),
                walk::Step::Done(_) => self.choose_targets(),
            }
        }
        self.give_up(now);
        if let Some(step) = self.next_store(now).or_else(|| self.next_read(now)) {
            return step;
        }
        if self.is_over(now) {
            self.done = true;
            return Step::Done;
        }
        Step::Wait(self.next_change(now).unwrap_or(self.deadline).min(self.deadline))
    }

    /// A peer's answer to [`Step::Fetch`].
    pub fn on_fetched(&mut self, peer: &PeerId, reply: FetchReply, now: Instant, wall: UnixMs) {
        let was_asked = self.walk.visits().iter().any(|visit| visit.peer == *peer);
        if was_asked && !self.walked {
            self.look_for_newer(peer, &reply, wall);
        }
        self.walk.on_reply(peer, reply.closer, now);
    }

    /// A peer's answer to [`Step::Store`], or this member's to [`Step::StoreLocal`]. A late one still counts.
    pub fn on_stored(&mut self, peer: &PeerId, reply: StoreReply) {
        let Some(target) = self.targets.iter_mut().find(|target| target.info.peer == *peer) else { return };
        if matches!(target.state, State::Asked(_) | State::Silent) {
            target.state = match reply {
                StoreReply::Stored => State::Stored,
                StoreReply::Refused(reason) => State::Refused(reason),
            };
        }
    }

    /// A peer's answer to [`Step::ReadBack`].
    pub fn on_read_back(&mut self, peer: &PeerId, reply: &FetchReply, wall: UnixMs) {
        let Some(target) = self.targets.iter_mut().find(|target| target.info.peer == *peer) else { return };
        if !matches!(target.read, Read::Asked(_) | Read::Failed) {
            return;
        }
        if reply.envelopes.iter().any(|envelope| **envelope == *self.record.envelope()) {
            target.read = Read::Returned;
            return;
        }
        target.read = Read::Failed;
        self.look_for_newer(peer, reply, wall);
        if self.superseded.is_none()
            && let Some(target) = self.targets.iter_mut().find(|target| target.info.peer == *peer)
        {
            target.state = State::Refused(Refusal::malformed("the storer acknowledged it and does not return it"));
        }
    }

    /// A peer did not answer what it was last asked.
    pub fn on_failure(&mut self, peer: &PeerId, why: Failure, now: Instant) {
        if !self.walked {
            return self.walk.on_failure(peer, why, now);
        }
        let Some(target) = self.targets.iter_mut().find(|target| target.info.peer == *peer) else { return };
        match (&target.state, target.read) {
            (State::Asked(_), _) => target.state = State::Silent,
            (_, Read::Asked(_)) => target.read = Read::Failed,
            _ => {}
        }
    }

    /// The walk.
    pub const fn walk(&self) -> &Walk {
        &self.walk
    }

    /// What the placement has come to: for good once [`PlacementMachine::poll`] is done. `keepers` is left to the
    /// member.
    pub fn outcome(&self, now: Instant) -> PutReply {
        let mut reply = PutReply::default();
        reply.refused.extend(self.superseded.clone());
        for target in &self.targets {
            let peer = target.info.peer;
            match &target.state {
                State::Unasked => {}
                State::Asked(_) | State::Silent => reply.silent += 1,
                State::Refused(reason) => reply.refused.push(Rejected { peer, reason: reason.clone() }),
                State::Stored => {
                    reply.stored.push(peer);
                    reply.read_back += u32::from(target.read == Read::Returned);
                }
            }
        }
        if self.targets.is_empty() {
            reply.silent = self.walk.silent(now);
        }
        reply
    }

    /// The closest first, then those that a path holds against them, then those that may take another's place.
    fn choose_targets(&mut self) {
        self.walked = true;
        let position = *self.walk.target();
        let by_distance = |info: &PeerInfo| info.peer.position().distance(&position);
        let local = self.local.filter(|_| self.config.local_stores);
        let local = local.map(|peer| PeerInfo { peer, addresses: Vec::new() });
        let mut targets: Vec<_> = self.walk.closest().chain(local).collect();
        targets.sort_by_cached_key(by_distance);
        let mut spare = targets.split_off(targets.len().min(self.config.walk.k));
        let dissent = self.walk.dissent();
        targets.extend(spare.extract_if(.., |info| dissent.contains(&info.peer)));
        self.wanted = targets.len().max(self.config.walk.k);
        spare.extend(self.walk.unasked());
        spare.sort_by_cached_key(by_distance);
        // Beyond so many, nobody feels responsible.
        spare.truncate(self.config.walk.k);
        let target = |info| Target { info, state: State::Unasked, read: Read::Not };
        self.targets = targets.into_iter().chain(spare).map(target).collect();
    }

    /// Looks for a record of the same instance that is newer: the placement has come too late.
    fn look_for_newer(&mut self, peer: &PeerId, reply: &FetchReply, wall: UnixMs) {
        let max_instances = self.trust.descriptor().limits().max_instances;
        for envelope in reply.envelopes.iter().take(max_instances) {
            if **envelope == *self.record.envelope() || !self.judged.insert(Sha256::digest(envelope).into()) {
                continue;
            }
            let Ok(found) = self.trust.verify(envelope, Some(self.record.name()), wall) else { continue };
            if found.instance() == self.record.instance() && found.sequence() > self.record.sequence() {
                let reason = Refusal::Older { held: found.sequence() };
                self.superseded = Some(Rejected { peer: *peer, reason });
            }
        }
    }

    fn give_up(&mut self, now: Instant) {
        for target in &mut self.targets {
            match (&target.state, target.read) {
                (State::Asked(at), _) if now >= *at + self.config.request_timeout => target.state = State::Silent,
                (_, Read::Asked(at)) if now >= at + self.config.request_timeout => target.read = Read::Failed,
                _ => {}
            }
        }
    }

    /// Stores that have succeeded, or may soon.
    fn promising(&self, now: Instant) -> usize {
        let promising = |target: &&Target| match target.state {
            State::Stored => true,
            State::Asked(at) => now < at + self.config.hedge,
            _ => false,
        };
        self.targets.iter().filter(promising).count()
    }

    /// Whether a majority finds fault with the record itself: others would say the same.
    fn is_hopeless(&self) -> bool {
        let own = |reason: &Refusal| {
            matches!(
                reason,
                Refusal::NotResponsible | Refusal::StoreFull | Refusal::Throttled | Refusal::Malformed { .. }
            )
        };
        let faults =
            self.targets.iter().filter(|target| matches!(&target.state, State::Refused(reason) if !own(reason)));
        faults.count() > self.config.walk.k / 2
    }

    fn next_store(&mut self, now: Instant) -> Option<Step> {
        if self.promising(now) >= self.wanted || self.is_hopeless() {
            return None;
        }
        let target = self.targets.iter_mut().find(|target| target.state == State::Unasked)?;
        target.state = State::Asked(now);
        if self.local == Some(target.info.peer) {
            return Some(Step::StoreLocal(target.info.peer));
        }
        Some(Step::Store(target.info.clone()))
    }

    fn next_read(&mut self, now: Instant) -> Option<Step> {
        // Only when the storing has settled: a storer that is read from may have to be replaced.
        let storing =
            self.targets.iter().any(|target| matches!(target.state, State::Asked(at) if now < at + self.config.hedge));
        let promising = |target: &&Target| match target.read {
            Read::Returned => true,
            Read::Asked(at) => now < at + self.config.hedge,
            Read::Not | Read::Failed => false,
        };
        let enough = self.targets.iter().filter(promising).count() >= self.config.read_back;
        if storing || enough || self.reads >= 2 * self.config.read_back {
            return None;
        }
        let unread = |target: &Target| {
            target.state == State::Stored && target.read == Read::Not && self.local != Some(target.info.peer)
        };
        // In turn the closest, and the last of those chosen at first: where liars crowd the near end, those that a
        // path holds against them are there.
        let last = self.targets.iter().take(self.wanted).rposition(unread).filter(|_| self.reads % 2 == 1);
        let next = last.or_else(|| self.targets.iter().position(unread))?;
        let target = self.targets.get_mut(next)?;
        target.read = Read::Asked(now);
        self.reads += 1;
        Some(Step::ReadBack(target.info.clone()))
    }

    /// Nothing is left to be done; what is hedged need not be waited for if it was made up for.
    fn is_over(&self, now: Instant) -> bool {
        let stored = self.targets.iter().filter(|target| target.state == State::Stored).count();
        let returned = self.targets.iter().filter(|target| target.read == Read::Returned).count();
        let storing = self.targets.iter().any(|target| matches!(target.state, State::Asked(_)));
        let reading = self
            .targets
            .iter()
            .any(|target| matches!(target.read, Read::Asked(at) if now < at + 2 * self.config.hedge));
        let stores_over = !storing || stored >= self.wanted;
        let reads_over = !reading || returned >= self.config.read_back;
        stores_over && reads_over
    }

    fn next_change(&self, now: Instant) -> Option<Instant> {
        let spans = [self.config.hedge, 2 * self.config.hedge, self.config.request_timeout];
        let stores = self.targets.iter().filter_map(|target| match target.state {
            State::Asked(at) => Some(at),
            _ => None,
        });
        let reads = self.targets.iter().filter_map(|target| match target.read {
            Read::Asked(at) => Some(at),
            _ => None,
        });
        stores.chain(reads).flat_map(|at| spans.map(|span| at + span)).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
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
}
