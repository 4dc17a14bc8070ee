//! The walk itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    Ask, End, Failure, MAX_PATHS, Outcome, Step, Visit, WalkConfig,
    candidate::{Candidate, Offer, State, bit},
};
use crate::{
    client::PeerInfo,
    name::{Distance, PeerId, Position},
    record::MAX_ADDRESS,
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

/// What one look at all candidates tells.
#[derive(Default)]
struct Survey {
    /// The closest candidate that each path has to ask.
    fresh: [Option<Distance>; MAX_PATHS as usize],
    /// Requests in flight that have not been hedged, by path.
    young: [usize; MAX_PATHS as usize],
    /// Requests that stayed unanswered, by path.
    silent: [usize; MAX_PATHS as usize],
    /// Whether somebody worth waiting for may still answer.
    pending: bool,
    /// Whether the `k` closest of all have answered.
    complete: bool,
    /// The next time at which the picture changes by itself.
    wake: Option<Instant>,
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
        if budget_left && let Some(ask) = self.ask(&survey, now) {
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

    fn survey(&self, now: Instant) -> Survey {
        let (hedge, patience) = (self.hedge(), self.patience());
        let k = self.config.k;
        let has_quorum = self.answered().count() > self.known().min(k) / 2;
        // Whoever is silent holds up the end for longer if there is no majority without it.
        // Besides the k closest of all, each path asks a majority of the k closest that it was told of itself: what
        // others say is closest may not exist.
        let majority = k / 2 + 1;
        let mut survey = Survey::default();
        let mut wake = |at: Instant| {
            if at > now {
                survey.wake = Some(survey.wake.map_or(at, |known| known.min(at)));
            }
        };
        let (mut rank, mut answered) = (0, 0);
        let mut ranks = [0; MAX_PATHS as usize];
        for (distance, candidate) in &self.candidates {
            let told = candidate.paths();
            let of_all = rank < k;
            let mut matters = of_all;
            let mut askable = false;
            for (path, (rank, fresh)) in (0..).zip(ranks.iter().zip(&mut survey.fresh)) {
                if told & bit(path) == 0 {
                    continue;
                }
                let may_ask = candidate.offer_to(path).is_some();
                askable |= may_ask;
                if of_all || *rank < majority {
                    matters = true;
                    if fresh.is_none() && may_ask {
                        *fresh = Some(*distance);
                    }
                }
            }
            let counts = match candidate.state {
                State::Fresh => askable,
                State::Failed(_) => {
                    if let Some(silent) = self.path_asked(candidate).and_then(|path| survey.silent.get_mut(path)) {
                        *silent += 1;
                    }
                    false
                }
                State::Answered => {
                    answered += usize::from(of_all);
                    true
                }
                State::Asked(at) => {
                    let counter = if now < at + hedge { &mut survey.young } else { &mut survey.silent };
                    if let Some(counter) = self.path_asked(candidate).and_then(|path| counter.get_mut(path)) {
                        *counter += 1;
                    }
                    survey.pending |= matters && (now < at + patience || !has_quorum);
                    wake(at + hedge);
                    wake(at + patience);
                    wake(at + self.config.request_timeout);
                    // The next closest takes its place, until it answers after all.
                    now < at + hedge
                }
            };
            if counts {
                rank += 1;
                for (path, rank) in (0..).zip(&mut ranks) {
                    *rank += usize::from(told & bit(path) != 0);
                }
            }
        }
        survey.complete = answered >= k;
        survey
    }

    /// Asks the closest candidate of a path that has nobody to wait for. A path that has met with silence waits for
    /// more than one at a time: most likely it is not the last time.
    fn ask(&mut self, survey: &Survey, now: Instant) -> Option<Ask> {
        let paths = (0..).zip(survey.fresh).zip(survey.young.iter().zip(survey.silent));
        let mut idle = paths.filter(|(_, (young, silent))| **young < (1 + silent).min(MAX_PARALLEL));
        let (path, distance) = idle.find_map(|((path, fresh), _)| fresh.map(|distance| (path, distance)))?;
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

    /// Takes the peers of a reply that came on `path`; returns how many were unheard of.
    fn take(&mut self, closer: Vec<PeerInfo>, from: &PeerId, path: u8, hop: u8) -> usize {
        // From a single seed, its reply starts the other paths.
        let mut paths = vec![path];
        if self.populated.is_power_of_two() {
            paths.extend((0..self.config.paths).filter(|other| *other != path));
        }
        let mut heard = Vec::with_capacity(self.config.per_reply);
        let mut new = 0;
        for info in closer.into_iter().take(self.config.per_reply) {
            if info.peer == *from || self.local == Some(info.peer) || heard.contains(&info.peer) {
                continue;
            }
            heard.push(info.peer);
            if let Some(candidate) = self.candidates.get_mut(&info.peer.position().distance(&self.target)) {
                candidate.mentions += 1;
                self.hear_of(info, path, hop, Some(*from));
            } else if let Some(path) = paths.get(new % paths.len()) {
                new += usize::from(self.hear_of(info, *path, hop, Some(*from)));
            }
        }
        new
    }

    /// Notes what a path was told of a peer. Whether the peer is a new candidate.
    fn hear_of(&mut self, info: PeerInfo, path: u8, hop: u8, via: Option<PeerId>) -> bool {
        let mut addresses: Vec<String> = Vec::new();
        for address in info.addresses {
            let is_sane = address.len() <= MAX_ADDRESS && address.bytes().all(|octet| octet.is_ascii_graphic());
            if is_sane && addresses.len() < self.config.max_addresses && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let distance = self.distance(&info.peer);
        if let Some(candidate) = self.candidates.get_mut(&distance) {
            // The first word on a path counts.
            if !candidate.offers.iter().any(|offer| offer.path == path) {
                candidate.offers.push(Offer { path, hop, via, addresses });
                if matches!(candidate.state, State::Failed(_)) {
                    candidate.revive();
                }
                self.forget_farthest(path);
            }
            return false;
        }
        // Only a seed can be asked without an address.
        if via.is_some() && addresses.is_empty() {
            return false;
        }
        self.populated |= bit(path);
        self.candidates.insert(distance, Candidate::new(info.peer, Offer { path, hop, via, addresses }));
        self.forget_farthest(path);
        true
    }

    /// Keeps what a path was told and has not used within its limit.
    fn forget_farthest(&mut self, path: u8) {
        let unused = |candidate: &Candidate| candidate.visit.is_none() && candidate.paths() & bit(path) != 0;
        let unused = self.candidates.iter().filter(|(_, candidate)| unused(candidate));
        let unused: Vec<_> = unused.map(|(distance, _)| *distance).collect();
        if unused.len() <= self.config.max_candidates {
            return;
        }
        let Some(farthest) = unused.last() else { return };
        if let Some(candidate) = self.candidates.get_mut(farthest) {
            candidate.offers.retain(|offer| offer.path != path);
            if candidate.offers.is_empty() {
                self.candidates.remove(farthest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
