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
    /// Whether [`enough`](Self::enough) of the closest that hold nothing are enough as well: for whoever can just as well
    /// look elsewhere. That there is nothing is then not said.
    pub glance: bool,
    /// Whether there may be no other member at all, so that what a storer that knows nobody does not hold is not found.
    pub founder: bool,
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
            glance: false,
            founder: true,
        }
    }

    /// The same, but asking every storer, so that those that disagree come to light.
    pub const fn exhaustive(mut self) -> Self {
        self.exhaustive = true;
        self
    }

    /// The same for a tree node of a service, which many read: from storers chosen by `random`, any 64 bits.
    pub const fn of_tree_node(mut self, glance: bool, random: u64) -> Self {
        self.glance = glance;
        self.walk.spread = Some(random);
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
    /// The tombstones of instances that have no record any more.
    pub removed: Vec<VerifiedRecord>,
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
        match self.walk.poll_for(self.wanted(), now) {
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
            removed: self.merged.all(wall).filter(|record| record.is_tombstone()).cloned().collect(),
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
        let Some(first) = self.first.filter(|_| self.merged.live(wall).next().is_some()) else {
            return self.config.glance && self.looks_empty();
        };
        let waited = now.saturating_duration_since(first);
        if waited >= self.config.gather_limit {
            return true;
        }
        let mut holders: Vec<_> = self.storers().into_iter().filter(|peer| self.holds(peer)).collect();
        let Some(nearest) = holders.first().copied() else { return false };
        // Where others have come closer, what changes is stored with them: who was a storer may have missed it.
        let k = self.walk.config().k;
        holders.retain(|peer| self.walk.living_closer_than(&peer.position()) < k);
        if holders.len() >= self.config.enough {
            // Three storers that one peer made up are one liar.
            let is_local = self.local.is_some_and(|local| holders.contains(&local));
            if is_local || self.walk.is_confirmed(&holders) {
                return true;
            }
        }
        waited >= self.config.gather && !self.walk.is_closer_coming(&nearest, now)
    }

    /// Whether several of the closest known have answered, over several paths, and none of them holds anything.
    fn looks_empty(&self) -> bool {
        let near: Vec<_> = self.walk.near().collect();
        let empty = !near.iter().any(|peer| self.holds(peer));
        empty && near.len() >= self.config.enough && self.walk.is_confirmed(&near)
    }

    /// How many more answers may be enough: once a record is known, or one of the closest has nothing to show to whoever
    /// only glances, what is missing of [`LookupConfig::enough`].
    fn wanted(&self) -> usize {
        let answers = match self.first {
            _ if self.config.exhaustive => 0,
            Some(_) => self.answers.values().filter(|answer| !answer.held.is_empty()).count(),
            None if self.config.glance => self.walk.near().count(),
            None => 0,
        };
        if answers == 0 {
            return usize::MAX;
        }
        match self.config.enough.saturating_sub(answers) {
            // They were enough, and did not convince.
            0 => usize::MAX,
            missing => missing,
        }
    }

    fn verdict(&self, wall: UnixMs) -> Verdict {
        if self.merged.live(wall).next().is_some() {
            return Verdict::Found;
        }
        let holds_none = |peer: &PeerId| self.answers.get(peer).is_some_and(|answer| answer.rejected == 0);
        let local = self.local_storer().map(|local| holds_none(&local));
        let alone = self.config.founder && self.walk.known() == 0 && local == Some(true);
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
mod tests;
