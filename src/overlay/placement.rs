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
mod tests;
