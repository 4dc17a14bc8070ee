//! One look at all candidates: whom each path may ask, for whom it waits, and whether the walk is complete.

use std::time::Instant;

use super::{
    super::{
        MAX_PATHS,
        candidate::{State, bit},
    },
    Walk,
};
use crate::name::Distance;

/// What one look at all candidates tells.
#[derive(Default)]
pub(super) struct Survey {
    /// The closest candidate that each path has to ask.
    pub(super) fresh: [Option<Distance>; MAX_PATHS as usize],
    /// Requests in flight that have not been hedged, by path.
    pub(super) young: [usize; MAX_PATHS as usize],
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
}
