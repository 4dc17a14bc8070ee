//! One look at all candidates: whom each path may ask, for whom it waits, and whether the walk is complete.

use std::time::Instant;

use super::{
    super::{
        MAX_PATHS,
        candidate::{State, bit},
    },
    Walk,
};
use crate::{name::Distance, overlay::scatter::scatter};

/// What one look at all candidates tells.
#[derive(Default)]
pub(super) struct Survey {
    /// The candidate that each path has to ask next.
    pub(super) fresh: [Option<Distance>; MAX_PATHS as usize],
    /// Requests in flight that have not been hedged, by path.
    pub(super) young: [usize; MAX_PATHS as usize],
    /// Of those to the `k` closest, so many.
    pub(super) coming: usize,
    /// Whether the walk has come to the `k` closest, and asks them in any order.
    pub(super) spread: bool,
    /// Requests that stayed unanswered, by path.
    pub(super) silent: [usize; MAX_PATHS as usize],
    /// Whether somebody worth waiting for may still answer.
    pub(super) pending: bool,
    /// Whether the `k` closest of all have answered.
    pub(super) complete: bool,
    /// The next time at which the picture changes by itself.
    pub(super) wake: Option<Instant>,
}

impl Walk {
    /// Looks at all candidates.
    pub(super) fn survey(&self, now: Instant) -> Survey {
        let (hedge, patience) = (self.hedge(), self.patience());
        let k = self.config.k;
        let has_quorum = self.answered().count() > self.known().min(k) / 2;
        // Whoever is silent holds up the end for longer if there is no majority without it.
        // Besides the k closest of all, each path asks a majority of the k closest that it was told of itself: what
        // others say is closest may not exist.
        let majority = k / 2 + 1;
        let spread = self.config.spread.filter(|_| self.has_arrived());
        let mut survey = Survey { spread: spread.is_some(), ..Survey::default() };
        let mut wake = |at: Instant| {
            if at > now {
                survey.wake = Some(survey.wake.map_or(at, |known| known.min(at)));
            }
        };
        let (mut rank, mut answered) = (0, 0);
        let mut ranks = [0; MAX_PATHS as usize];
        let mut turns = [u64::MAX; MAX_PATHS as usize];
        for (distance, candidate) in &self.candidates {
            let told = candidate.paths();
            let of_all = rank < k;
            let mut matters = of_all;
            let mut askable = false;
            let turn = spread.filter(|_| of_all).map(|spread| turn(distance, spread));
            for (path, ((rank, fresh), first)) in (0..).zip(ranks.iter().zip(&mut survey.fresh).zip(&mut turns)) {
                if told & bit(path) == 0 {
                    continue;
                }
                let may_ask = candidate.offer_to(path).is_some();
                askable |= may_ask;
                if of_all || *rank < majority {
                    matters = true;
                    let next = turn.map_or(fresh.is_none(), |turn| turn < *first);
                    if may_ask && next {
                        *fresh = Some(*distance);
                        *first = turn.unwrap_or(*first);
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
                    survey.coming += usize::from(of_all && now < at + hedge);
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

    /// Whether one of the `2k` closest peers known has answered: whoever stands there knows the `k` closest.
    fn has_arrived(&self) -> bool {
        self.candidates.values().take(2 * self.config.k).any(|candidate| candidate.state == State::Answered)
    }
}

/// When the peer at this distance has its turn among others, in an order that follows from `spread`.
fn turn(distance: &Distance, spread: u64) -> u64 {
    scatter(distance.leading() ^ spread)
}
