//! The walk itself.

mod hear;
mod survey;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use self::survey::Survey;
use super::{
    Ask, End, Failure, MAX_PATHS, Outcome, Step, Visit, WalkConfig,
    candidate::{Candidate, State, bit},
};
use crate::{
    client::PeerInfo,
    name::{Distance, PeerId, Position},
};

/// Requests that one path waits for at the most, those left aside that have been hedged.
const MAX_PARALLEL: usize = 3;

/// The least time before a request is hedged, however fast the other peers are.
const MIN_HEDGE: Duration = Duration::from_millis(20);

/// The least time before a silent peer no longer holds up the end of the walk.
const MIN_PATIENCE: Duration = Duration::from_millis(100);

/// An iterative lookup. See the module's documentation.
#[derive(Debug)]
pub struct Walk {
    target: Position,
    local: Option<PeerId>,
    config: WalkConfig,
    started: Instant,
    candidates: BTreeMap<Distance, Candidate>,
    visits: Vec<Visit>,
    /// Sorted round-trip times.
    rtts: Vec<Duration>,
    /// Paths that have ever had a candidate.
    populated: u8,
    ended: Option<(End, Instant)>,
}

impl Walk {
    /// A walk to `target` from the peers in `seeds`; `local` is never asked.
    pub fn new(
        target: Position,
        mut seeds: Vec<PeerInfo>,
        local: Option<PeerId>,
        mut config: WalkConfig,
        now: Instant,
    ) -> Self {
        config.paths = config.paths.clamp(1, MAX_PATHS);
        config.k = config.k.max(1);
        let paths = config.paths;
        let limit = usize::from(paths) * config.max_candidates;
        let mut walk = Self {
            target,
            local,
            config,
            started: now,
            candidates: BTreeMap::new(),
            visits: Vec::new(),
            rtts: Vec::new(),
            populated: 0,
            ended: None,
        };
        seeds.sort_by_cached_key(|seed| walk.distance(&seed.peer));
        for seed in seeds {
            if walk.local == Some(seed.peer) || walk.candidates.len() >= limit {
                continue;
            }
            // Round robin over those taken, so that duplicates do not leave a path empty.
            let path = u8::try_from(walk.candidates.len() % usize::from(paths)).unwrap_or(0);
            walk.hear_of(seed, path, 1, None);
        }
        walk
    }

    /// What to do next. After [`Step::Ask`], poll again at once; after [`Step::Wait`], at that time or after the next
    /// reply or failure.
    pub fn poll(&mut self, now: Instant) -> Step {
        self.poll_for(usize::MAX, now)
    }

    /// The same for a caller to whom `wanted` more answers may be enough: nobody is asked who stands farther away than
    /// so many whose answers are on their way and not yet late.
    pub fn poll_for(&mut self, wanted: usize, now: Instant) -> Step {
        if let Some((end, _)) = self.ended {
            return Step::Done(end);
        }
        self.give_up(now);
        let deadline = self.started + self.config.timeout;
        if now >= deadline {
            return self.end(End::Deadline, now);
        }
        let survey = self.survey(now);
        let budget_left = self.visits.len() < self.config.max_requests;
        if budget_left && let Some(ask) = self.ask(&survey, wanted, now) {
            return Step::Ask(ask);
        }
        let more_to_ask = survey.fresh.iter().any(Option::is_some);
        if survey.pending || (more_to_ask && budget_left) {
            return Step::Wait(survey.wake.map_or(deadline, |wake| wake.min(deadline)));
        }
        let end = match (survey.complete, more_to_ask) {
            (true, _) => End::Settled,
            (false, true) => End::Budget,
            (false, false) => End::Exhausted,
        };
        self.end(end, now)
    }

    /// A peer's answer: the peers it knows closest to the target. Answers of peers that were not asked, and second
    /// answers, change nothing.
    pub fn on_reply(&mut self, peer: &PeerId, closer: Vec<PeerInfo>, now: Instant) {
        let distance = self.distance(peer);
        let Some(candidate) = self.candidates.get_mut(&distance) else { return };
        let Some(visit) = candidate.visit else { return };
        if self.ended.is_some() || candidate.state == State::Answered {
            return;
        }
        let Some((path, hop)) = self.visits.get(visit).map(|visit| (visit.path, visit.hop)) else { return };
        candidate.state = State::Answered;
        candidate.outstanding = 0;

        let peers = closer.len().min(self.config.per_reply);
        let new = self.take(closer, peer, path, hop.saturating_add(1));
        if let Some(visit) = self.visits.get_mut(visit) {
            let rtt = now.saturating_duration_since(self.started + visit.asked);
            visit.took = Some(rtt);
            visit.outcome = Outcome::Answered { peers, new };
            let at = self.rtts.partition_point(|known| *known < rtt);
            self.rtts.insert(at, rtt);
        }
    }

    /// A peer did not answer, and why. Of a peer that was not asked, or has answered, it changes nothing.
    pub fn on_failure(&mut self, peer: &PeerId, why: Failure, now: Instant) {
        let distance = self.distance(peer);
        let Some(candidate) = self.candidates.get_mut(&distance) else { return };
        if self.ended.is_some() || candidate.outstanding == 0 {
            return;
        }
        candidate.outstanding -= 1;
        if candidate.outstanding > 0 || !matches!(candidate.state, State::Asked(_)) {
            return;
        }
        candidate.state = State::Failed(why);
        candidate.revive();
        if let Some(visit) = candidate.visit.and_then(|visit| self.visits.get_mut(visit)) {
            visit.took = Some(now.saturating_duration_since(self.started + visit.asked));
            visit.outcome = Outcome::Failed(why);
        }
    }

    /// Ends the walk: the caller has enough.
    pub fn finish(&mut self, now: Instant) {
        if self.ended.is_none() {
            self.end(End::Finished, now);
        }
    }

    /// The position walked to.
    pub const fn target(&self) -> &Position {
        &self.target
    }

    /// The limits and timers, as they apply.
    pub const fn config(&self) -> &WalkConfig {
        &self.config
    }

    /// Every request so far, in order: the trace.
    pub fn visits(&self) -> &[Visit] {
        &self.visits
    }

    /// How many requests were sent.
    pub fn requests(&self) -> u32 {
        u32::try_from(self.visits.len()).unwrap_or(u32::MAX)
    }

    /// How many requests stayed unanswered, or were unanswered for so long that they were hedged.
    pub fn silent(&self, now: Instant) -> u32 {
        let now = self.ended.map_or(now, |(_, at)| at);
        let hedge = self.hedge();
        let is_silent = |visit: &&Visit| match visit.outcome {
            Outcome::Answered { .. } => false,
            Outcome::Waiting => now.saturating_duration_since(self.started + visit.asked) >= hedge,
            Outcome::Failed(why) => matches!(why, Failure::Silent | Failure::Unreachable),
        };
        u32::try_from(self.visits.iter().filter(is_silent).count()).unwrap_or(u32::MAX)
    }

    /// The length of the longest chain of peers that led to one of the `k` closest that answered.
    pub fn hops(&self) -> u32 {
        let hops = self.answered().take(self.config.k).filter_map(|candidate| self.visit_of(candidate));
        hops.map(|visit| u32::from(visit.hop)).max().unwrap_or(0)
    }

    /// The peers that have answered, nearest first, each with the addresses it was asked at.
    pub fn closest(&self) -> impl Iterator<Item = PeerInfo> + '_ {
        self.answered().map(|candidate| PeerInfo { peer: candidate.peer, addresses: candidate.tried.clone() })
    }

    /// What the paths that do not agree hold against the `k` closest that have answered: on each path that was told of
    /// less than a third of those, a majority of the closest that were told of there and have answered. Nobody as a
    /// rule; whom a liar crowds out, if there is one.
    pub fn dissent(&self) -> Vec<PeerId> {
        let k = self.config.k;
        let mut dissent = Vec::new();
        for path in (0..self.config.paths).filter(|path| self.led() & bit(*path) != 0) {
            let told = |candidate: &&Candidate| candidate.paths() & bit(path) != 0;
            if 3 * self.answered().take(k).filter(told).count() < self.answered().take(k).count() {
                dissent.extend(self.answered().filter(told).map(|candidate| candidate.peer).take(k / 2 + 1));
            }
        }
        dissent
    }

    /// Peers that are known to exist and have not been asked, nearest first, each with the addresses heard first.
    pub fn unasked(&self) -> impl Iterator<Item = PeerInfo> + '_ {
        let unasked = self.candidates.values().filter(|candidate| candidate.visit.is_none() && candidate.is_credible());
        unasked.filter_map(|candidate| {
            let offer = candidate.offers.first()?;
            Some(PeerInfo { peer: candidate.peer, addresses: offer.addresses.clone() })
        })
    }

    /// The place of a peer among those that have answered, 0 for the nearest; `None` if it has not.
    pub fn rank(&self, peer: &PeerId) -> Option<usize> {
        self.answered().position(|candidate| candidate.peer == *peer)
    }

    /// The `k` closest peers that have answered, nearest first.
    pub fn storers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.answered().map(|candidate| candidate.peer).take(self.config.k)
    }

    /// Whether a majority of the closest peers agrees, over two paths at least, or as many as led anywhere if those
    /// are fewer; `others` more agree of whom the walk does not know.
    ///
    /// On each path it takes a majority of `k`, or of the peers known to exist if those are fewer, out of the `k` closest
    /// that were told of there and have answered. They must be among the `3k` closest told of: where most of those are
    /// silent, the ones that answer are too far away to know. One reply's worth of silent peers more is forgiven: so
    /// many a liar can make up.
    pub fn is_agreed(&self, others: usize, agrees: impl Fn(&PeerId) -> bool) -> bool {
        let k = self.config.k;
        let known = self.known();
        let horizon = 3 * k + self.config.per_reply;
        let on_path = |path: u8| {
            let told = || self.candidates.values().filter(move |candidate| candidate.paths() & bit(path) != 0);
            let answered = told().take(horizon).filter(|candidate| candidate.state == State::Answered);
            let agreeing = answered.take(k).filter(|candidate| agrees(&candidate.peer)).count() + others;
            agreeing > (told().count().max(known) + others).min(k) / 2
        };
        let led = self.led();
        let agreed = (0..self.config.paths).filter(|path| led & bit(*path) != 0 && on_path(*path)).count();
        led != 0 && agreed >= usize::min(2, led.count_ones() as usize)
    }

    /// How many peers are known to exist, as far as this walk has seen: seeds, peers that have answered, and peers of
    /// whom two have told.
    pub fn known(&self) -> usize {
        self.candidates.values().filter(|candidate| candidate.is_credible()).count()
    }

    /// How many of the peers known to exist stand closer to the target than `position`.
    pub fn known_closer_than(&self, position: &Position) -> usize {
        let closer = self.candidates.range(..position.distance(&self.target));
        closer.filter(|(_, candidate)| candidate.is_credible()).count()
    }

    /// The same, of those that have answered or may still do so.
    pub fn living_closer_than(&self, position: &Position) -> usize {
        let closer = self.candidates.range(..position.distance(&self.target));
        let lives = |candidate: &Candidate| !matches!(candidate.state, State::Failed(_));
        closer.filter(|(_, candidate)| candidate.is_credible() && lives(candidate)).count()
    }

    /// Those of the `k` closest peers known that have answered.
    pub fn near(&self) -> impl Iterator<Item = PeerId> + '_ {
        let near = self.candidates.values().take(self.config.k);
        near.filter(|candidate| candidate.state == State::Answered).map(|candidate| candidate.peer)
    }

    /// Whether the peers in `peers` were told of on two paths at least, or on as many as led anywhere if those are
    /// fewer: one path's word is one liar's word.
    pub fn is_confirmed<'a>(&self, peers: impl IntoIterator<Item = &'a PeerId>) -> bool {
        let told = peers.into_iter().filter_map(|peer| self.candidates.get(&self.distance(peer)));
        let told = told.fold(0, |bits, candidate| bits | candidate.paths());
        told.count_ones() >= self.led().count_ones().clamp(1, 2)
    }

    /// Whether a peer that stands closer to the target than `peer` may still answer soon.
    pub fn is_closer_coming(&self, peer: &PeerId, now: Instant) -> bool {
        let (limit, hedge) = (self.distance(peer), self.hedge());
        self.candidates.range(..limit).any(|(_, candidate)| match candidate.state {
            State::Fresh => self.visits.len() < self.config.max_requests,
            State::Asked(at) => now < at + hedge,
            State::Answered | State::Failed(_) => false,
        })
    }

    /// How long a request may stay unanswered before its path asks on.
    fn hedge(&self) -> Duration {
        let known = self.median_rtt().map(|rtt| (4 * rtt).max(MIN_HEDGE));
        known.map_or(self.config.hedge, |known| known.min(self.config.hedge))
    }

    /// How long a silent peer holds up the end.
    fn patience(&self) -> Duration {
        let known = self.median_rtt().map(|rtt| (8 * rtt).max(MIN_PATIENCE));
        known.map_or(self.config.patience, |known| known.min(self.config.patience))
    }

    fn median_rtt(&self) -> Option<Duration> {
        self.rtts.get(self.rtts.len().saturating_sub(1) / 2).copied().or(self.config.typical_rtt)
    }

    fn distance(&self, peer: &PeerId) -> Distance {
        peer.position().distance(&self.target)
    }

    fn answered(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.values().filter(|candidate| candidate.state == State::Answered)
    }

    fn visit_of(&self, candidate: &Candidate) -> Option<&Visit> {
        candidate.visit.and_then(|visit| self.visits.get(visit))
    }

    /// The paths that led anywhere, as bits: where somebody has answered.
    fn led(&self) -> u8 {
        let visits = self.answered().filter_map(|candidate| self.visit_of(candidate));
        visits.fold(0, |bits, visit| bits | bit(visit.path))
    }

    fn path_asked(&self, candidate: &Candidate) -> Option<usize> {
        self.visit_of(candidate).map(|visit| visit.path.into())
    }

    fn end(&mut self, end: End, now: Instant) -> Step {
        self.ended = Some((end, now));
        Step::Done(end)
    }

    /// Gives up requests that are overdue; a peer for which another path has other addresses is given up sooner.
    fn give_up(&mut self, now: Instant) {
        let patience = self.patience();
        for candidate in self.candidates.values_mut() {
            let State::Asked(at) = candidate.state else { continue };
            let expired = now >= at + self.config.request_timeout;
            if expired {
                candidate.state = State::Failed(Failure::Silent);
                candidate.outstanding = 0;
            }
            let revived = now >= at + patience && candidate.revive();
            if (expired || revived)
                && let Some(visit) = candidate.visit.and_then(|visit| self.visits.get_mut(visit))
            {
                visit.took = Some(now.saturating_duration_since(at));
                visit.outcome = Outcome::Failed(Failure::Silent);
            }
        }
    }

    /// How many of those closer than `distance` have been asked and are not yet late.
    fn young_before(&self, distance: &Distance, now: Instant) -> usize {
        let hedge = self.hedge();
        let closer = self.candidates.range(..*distance);
        closer.filter(|(_, candidate)| matches!(candidate.state, State::Asked(at) if now < at + hedge)).count()
    }

    /// Asks the next candidate of a path that has nobody to wait for. A path that has met with silence waits for
    /// more than one at a time: most likely it is not the last time.
    fn ask(&mut self, survey: &Survey, wanted: usize, now: Instant) -> Option<Ask> {
        let paths = (0..).zip(survey.fresh).zip(survey.young.iter().zip(survey.silent));
        let idle = paths.filter(|(_, (young, silent))| **young < (1 + silent).min(MAX_PARALLEL));
        let mut fresh = idle.filter_map(|((path, fresh), _)| fresh.map(|distance| (path, distance)));
        let coming = |distance: &Distance| if survey.spread { survey.coming } else { self.young_before(distance, now) };
        let (path, distance) = fresh.find(|(_, distance)| coming(distance) < wanted)?;
        let candidate = self.candidates.get_mut(&distance)?;
        let offer = candidate.offer_to(path)?;
        let untried = offer.addresses.iter().filter(|address| !candidate.tried.contains(address));
        let addresses: Vec<_> = untried.cloned().collect();
        let hop = offer.hop;
        self.visits.push(Visit {
            peer: candidate.peer,
            via: offer.via,
            path,
            hop,
            common_prefix: distance.common_prefix(),
            asked: now.saturating_duration_since(self.started),
            took: None,
            outcome: Outcome::Waiting,
        });
        candidate.visit = Some(self.visits.len() - 1);
        candidate.state = State::Asked(now);
        candidate.outstanding += 1;
        candidate.tried.extend(addresses.iter().cloned());
        Some(Ask { peer: PeerInfo { peer: candidate.peer, addresses }, path, hop })
    }
}
