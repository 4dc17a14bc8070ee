//! The response context of one proxied request (RFC 3261 §16.7): which targets are tried, in which order, and which
//! response goes back.
//!
//! A [`Fork`] has groups of targets, tried one after the other, the targets of a group at the same time. A target has
//! one hop after the other (RFC 3263 §4.3). Each hop that is tried is an *attempt*, which is one client transaction.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::sip::{
    Message,
    transport::{Hop, Remote},
};

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Timer C (RFC 3261 §16.6 step 11): how long an INVITE may ring without a new provisional response. More than
    /// three minutes.
    pub ringing: Duration,
    /// For any response of a hop, if there is another one to try. The transaction's own timeout takes 32 s, which is
    /// longer than callers wait.
    pub hop: Duration,
    /// For an answer of a group of contacts, if there is another group.
    pub group: Duration,
    /// For the final response of what was cancelled: 64·T1 (RFC 3261 §9.1).
    pub cancelled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            ringing: Duration::from_secs(181),
            hop: Duration::from_secs(4),
            group: Duration::from_secs(30),
            cancelled: Duration::from_secs(32),
        }
    }
}

/// One place that a request is to go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The Request-URI that it gets; none if it keeps the one it came with.
    pub uri: Option<Arc<str>>,
    /// Where that is.
    pub place: Place,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At these hops, the first of which is tried first.
    Hops(Vec<Hop>),
    /// Where RFC 3263 says that this URI is.
    Uri(Arc<str>),
}

/// What the holder of a fork is to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Find the hops of a target's URI, and say [`Fork::located`].
    Locate {
        /// The target, by its number.
        branch: usize,
        /// Its URI.
        uri: Arc<str>,
    },
    /// Begin a client transaction.
    Try {
        /// The target, by its number.
        branch: usize,
        /// The transaction's number in what is said to the fork.
        attempt: usize,
        /// Where to.
        hop: Hop,
    },
    /// Send a CANCEL for the attempt's transaction as soon as that is allowed.
    Cancel {
        /// The attempt.
        attempt: usize,
    },
    /// Remember how a server of the public network does: it may be tried sooner or later next time (RFC 3263 §4.3).
    Learned {
        /// The server.
        hop: Hop,
        /// How it does.
        health: Health,
    },
    /// Send this response upstream now.
    Pass(Message),
    /// Send the final response upstream.
    Finish(Verdict),
}

/// How a hop does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has answered.
    Works,
    /// It has not answered in time.
    Silent,
    /// It could not be sent anything.
    Unreachable,
    /// It answered 503, with this `Retry-After`.
    Busy(Option<Duration>),
}

/// The final response to a request.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// This one, with the challenges of the others (RFC 3261 §16.7 step 7).
    Response {
        /// The response.
        response: Message,
        /// Others whose challenges go with it.
        challenges: Vec<Message>,
    },
    /// One of our own.
    Local {
        /// Its status.
        status: u16,
        /// Its reason phrase.
        reason: &'static str,
    },
    /// No target could be sent the request at all.
    Unreachable,
    /// None: RFC 4320 §4.2 forbids a 408 to anything but an INVITE.
    Silence,
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No final response in time.
    Timeout,
    /// It could not be sent.
    Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No response yet.
    Trying,
    /// It rings, or is worked on.
    Proceeding,
    /// A CANCEL is on its way, or will be.
    Cancelling,
    /// Another hop was tried instead; a 2xx still counts.
    Abandoned,
    /// It was answered with a 2xx, which may come again: whoever answered sends it until the ACK arrives
    /// (RFC 3261 §13.3.1.4).
    Answered,
    Ended,
}

impl State {
    /// Whether its transaction has its final response, or will have none.
    const fn is_over(self) -> bool {
        matches!(self, Self::Answered | Self::Ended)
    }
}

#[derive(Debug)]
struct Attempt {
    branch: usize,
    /// Where it went, if that is a server of the public network.
    hop: Option<Hop>,
    state: State,
    deadline: Option<Instant>,
}

#[derive(Debug)]
struct Branch {
    hops: VecDeque<Hop>,
    ended: bool,
}

/// What a target answered in the end, or what is said in its stead.
#[derive(Debug)]
struct Outcome {
    status: u16,
    reason: &'static str,
    response: Option<Message>,
    /// Whether it could not even be asked.
    unsent: bool,
}

/// What is tried for one request, and what came of it.
#[derive(Debug)]
pub struct Fork {
    invite: bool,
    patience: Patience,
    groups: VecDeque<Vec<Target>>,
    group_deadline: Option<Instant>,
    branches: Vec<Branch>,
    attempts: Vec<Attempt>,
    outcomes: Vec<Outcome>,
    /// Nothing more is begun: the caller has given up, or somebody has declined for all.
    closed: bool,
    finished: bool,
    actions: VecDeque<Action>,
}

impl Fork {
    /// A fork without targets, for an INVITE or another request.
    pub const fn new(invite: bool, patience: Patience) -> Self {
        Self {
            invite,
            patience,
            groups: VecDeque::new(),
            group_deadline: None,
            branches: Vec::new(),
            attempts: Vec::new(),
            outcomes: Vec::new(),
            closed: false,
            finished: false,
            actions: VecDeque::new(),
        }
    }

    /// Tries the groups, one after the other.
    pub fn begin(&mut self, groups: Vec<Vec<Target>>, now: Instant) {
        self.groups.extend(groups.into_iter().filter(|group| !group.is_empty()));
        self.proceed(now);
    }

    /// Where a target's URI was found to be, or the status and reason that stand for it.
    pub fn located(&mut self, branch: usize, result: Result<Vec<Hop>, (u16, &'static str)>, now: Instant) {
        let Some(found) = self.branches.get_mut(branch).filter(|branch| !branch.ended) else { return };
        match result {
            Ok(hops) => {
                found.hops = hops.into();
                if self.next_hop(branch, now) {
                    return;
                }
                self.end(branch, Outcome::local(500, "No Next Hop"), now);
            }
            Err((status, reason)) => self.end(branch, Outcome::local(status, reason), now),
        }
    }

    /// An attempt got a response.
    pub fn responded(&mut self, attempt: usize, status: u16, response: Message, now: Instant) {
        let Some(found) = self.attempts.get_mut(attempt).filter(|attempt| attempt.state != State::Ended) else {
            return;
        };
        let (branch, state) = (found.branch, found.state);
        let success = (200..300).contains(&status);
        match status {
            503 => {
                let wait = response.retry_after().ok().flatten().map(|after| Duration::from_secs(after.seconds.into()));
                self.learn(attempt, Health::Busy(wait));
            }
            _ if state == State::Trying => self.learn(attempt, Health::Works),
            _ => {}
        }
        let Some(found) = self.attempts.get_mut(attempt) else { return };
        if state == State::Answered {
            if success && self.invite {
                self.actions.push_back(Action::Pass(response));
            }
            return;
        }
        if status < 200 {
            return self.provisional(attempt, status, response, now);
        }
        found.state = if success { State::Answered } else { State::Ended };
        found.deadline = None;
        match status {
            200..=299 => self.answered(branch, response, now),
            _ if state == State::Abandoned => self.proceed(now),
            // RFC 3263 §4.3: a server that is overloaded is one that failed.
            503 if state != State::Cancelling && self.next_hop(branch, now) => {}
            _ => {
                let declined = status >= 600;
                self.end(branch, Outcome { status, reason: "", response: Some(response), unsent: false }, now);
                if declined {
                    self.cancel(now);
                }
            }
        }
    }

    /// An attempt came to nothing.
    pub fn failed(&mut self, attempt: usize, failure: Failure, now: Instant) {
        let Some(found) = self.attempts.get_mut(attempt).filter(|attempt| !attempt.state.is_over()) else { return };
        let (branch, state) = (found.branch, found.state);
        found.state = State::Ended;
        found.deadline = None;
        match failure {
            Failure::Transport => self.learn(attempt, Health::Unreachable),
            Failure::Timeout if state == State::Trying => self.learn(attempt, Health::Silent),
            Failure::Timeout => {}
        }
        match state {
            State::Abandoned => return self.proceed(now),
            State::Cancelling => {}
            _ if self.next_hop(branch, now) => return,
            _ => {}
        }
        let outcome = match failure {
            _ if state == State::Cancelling => Outcome::local(487, "Request Terminated"),
            Failure::Timeout => Outcome::local(408, "Request Timeout"),
            // To the caller this proxy is what failed, and it is not overloaded (RFC 3261 §16.7 step 6, §16.9).
            Failure::Transport => Outcome { unsent: true, ..Outcome::local(500, "Next Hop Unreachable") },
        };
        self.end(branch, outcome, now);
    }

    /// The caller has given up (RFC 3261 §16.10).
    pub fn cancel(&mut self, now: Instant) {
        self.closed = true;
        self.stop_all(now);
        self.proceed(now);
    }

    /// When [`Fork::on_timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.attempts.iter().filter_map(|attempt| attempt.deadline).chain(self.group_deadline).min()
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, now: Instant) {
        for attempt in 0..self.attempts.len() {
            let Some(found) = self.attempts.get_mut(attempt) else { break };
            if found.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            found.deadline = None;
            let (branch, state) = (found.branch, found.state);
            match state {
                State::Trying if self.next_hop(branch, now) => {
                    self.set(attempt, State::Abandoned, None);
                    self.learn(attempt, Health::Silent);
                }
                State::Trying | State::Proceeding if self.invite => self.stop(attempt, now),
                State::Cancelling => self.failed(attempt, Failure::Timeout, now),
                _ => {}
            }
        }
        if self.group_deadline.is_some_and(|deadline| deadline <= now) {
            self.group_deadline = None;
            if !self.groups.is_empty() && !self.finished {
                for attempt in 0..self.attempts.len() {
                    self.stop(attempt, now);
                }
                self.begin_group(now);
            }
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether nothing more can come of it: the final response is settled, and no attempt is left.
    pub fn is_over(&self) -> bool {
        self.finished && self.attempts.iter().all(|attempt| attempt.state.is_over()) && self.actions.is_empty()
    }

    /// Whether an attempt was answered with a 2xx.
    pub fn is_answered(&self, attempt: usize) -> bool {
        self.attempts.get(attempt).is_some_and(|attempt| attempt.state == State::Answered)
    }

    fn provisional(&mut self, attempt: usize, status: u16, response: Message, now: Instant) {
        let timer_c = self.invite.then(|| now + self.patience.ringing);
        let Some(found) = self.attempts.get_mut(attempt) else { return };
        match found.state {
            // It is there after all, but the call goes elsewhere by now.
            State::Abandoned => return self.stop(attempt, now),
            State::Trying => (found.state, found.deadline) = (State::Proceeding, timer_c),
            State::Proceeding if status > 100 => found.deadline = timer_c,
            _ => {}
        }
        if status > 100 && !self.finished && !self.closed {
            self.actions.push_back(Action::Pass(response));
        }
    }

    fn answered(&mut self, branch: usize, response: Message, now: Instant) {
        if let Some(branch) = self.branches.get_mut(branch) {
            branch.ended = true;
        }
        // Every 2xx to an INVITE made a dialog, and the caller has to know of it (RFC 3261 §16.7 step 5).
        if self.invite || !self.finished {
            self.finished = true;
            self.actions.push_back(Action::Pass(response));
        }
        self.stop_all(now);
    }

    /// Cancels whatever is under way, and begins nothing more.
    fn stop_all(&mut self, now: Instant) {
        self.groups.clear();
        self.group_deadline = None;
        for attempt in 0..self.attempts.len() {
            self.stop(attempt, now);
        }
        let tried = |branch: usize| self.attempts.iter().any(|attempt| attempt.branch == branch);
        let untried: Vec<usize> = (0..self.branches.len()).filter(|branch| !tried(*branch)).collect();
        for branch in untried {
            self.note(branch, Outcome::local(487, "Request Terminated"));
        }
    }

    /// Cancels one attempt; only an INVITE can be (RFC 3261 §9.1).
    fn stop(&mut self, attempt: usize, now: Instant) {
        let Some(found) = self.attempts.get(attempt) else { return };
        if self.invite && found.state != State::Cancelling && !found.state.is_over() {
            self.set(attempt, State::Cancelling, Some(now + self.patience.cancelled));
            self.actions.push_back(Action::Cancel { attempt });
        }
    }

    fn set(&mut self, attempt: usize, state: State, deadline: Option<Instant>) {
        if let Some(attempt) = self.attempts.get_mut(attempt) {
            (attempt.state, attempt.deadline) = (state, deadline);
        }
    }

    /// Tries the next hop of a target; false if there is none, or nothing more is to be tried.
    fn next_hop(&mut self, branch: usize, now: Instant) -> bool {
        if self.closed || self.finished {
            return false;
        }
        let Some(found) = self.branches.get_mut(branch).filter(|branch| !branch.ended) else { return false };
        let Some(hop) = found.hops.pop_front() else { return false };
        let patience =
            if found.hops.is_empty() { self.invite.then_some(self.patience.ringing) } else { Some(self.patience.hop) };
        let attempt = self.attempts.len();
        let deadline = patience.map(|patience| now + patience);
        let public = matches!(hop.remote, Remote::Socket(_)).then(|| hop.clone());
        self.attempts.push(Attempt { branch, hop: public, state: State::Trying, deadline });
        self.actions.push_back(Action::Try { branch, attempt, hop });
        true
    }

    /// Has the holder remember how an attempt's hop does.
    fn learn(&mut self, attempt: usize, health: Health) {
        if let Some(hop) = self.attempts.get(attempt).and_then(|attempt| attempt.hop.clone()) {
            self.actions.push_back(Action::Learned { hop, health });
        }
    }

    /// Notes what an attempt came to; the target has come to its end if no other attempt can still be answered.
    fn note(&mut self, branch: usize, outcome: Outcome) {
        let live = |attempt: &Attempt| attempt.state != State::Abandoned && !attempt.state.is_over();
        let others = self.attempts.iter().any(|attempt| attempt.branch == branch && live(attempt));
        if let Some(branch) = self.branches.get_mut(branch).filter(|branch| !branch.ended) {
            branch.ended = !others;
            self.outcomes.push(outcome);
        }
    }

    /// An attempt has come to its end, or a target without one.
    fn end(&mut self, branch: usize, outcome: Outcome, now: Instant) {
        self.note(branch, outcome);
        self.proceed(now);
    }

    /// Begins the next group, or finishes, if all that was begun has ended.
    fn proceed(&mut self, now: Instant) {
        while !self.finished && self.branches.iter().all(|branch| branch.ended) {
            if self.groups.is_empty() {
                self.finished = true;
                let verdict = self.verdict();
                self.actions.push_back(Action::Finish(verdict));
            } else {
                self.begin_group(now);
            }
        }
    }

    fn begin_group(&mut self, now: Instant) {
        let Some(group) = self.groups.pop_front() else { return };
        self.group_deadline = (!self.groups.is_empty()).then(|| now + self.patience.group);
        for target in group {
            let branch = self.branches.len();
            match target.place {
                Place::Hops(hops) => {
                    self.branches.push(Branch { hops: hops.into(), ended: false });
                    if !self.next_hop(branch, now) {
                        self.note(branch, Outcome::local(500, "No Next Hop"));
                    }
                }
                Place::Uri(uri) => {
                    self.branches.push(Branch { hops: VecDeque::new(), ended: false });
                    self.actions.push_back(Action::Locate { branch, uri });
                }
            }
        }
    }

    /// Chooses the best response (RFC 3261 §16.7 step 6) and collects challenges (step 7).
    fn verdict(&mut self) -> Verdict {
        let best = self.outcomes.iter().enumerate().min_by_key(|(_, outcome)| outcome.rank()).map(|(at, _)| at);
        let Some(best) = best else {
            return if self.closed {
                Verdict::Local { status: 487, reason: "Request Terminated" }
            } else {
                Verdict::Local { status: 480, reason: "Temporarily Unavailable" }
            };
        };
        if self.outcomes.iter().all(|outcome| outcome.unsent) {
            return Verdict::Unreachable;
        }
        let best = self.outcomes.swap_remove(best);
        match (best.status, best.response) {
            // What one of several next hops lacks says nothing about this proxy (RFC 3261 §16.7 step 6).
            (503, Some(_)) => Verdict::Local { status: 500, reason: "Next Hop Overloaded" },
            (408, None) if !self.invite => Verdict::Silence,
            (status, None) => Verdict::Local { status, reason: best.reason },
            (401 | 407, Some(response)) => {
                let others = self.outcomes.drain(..).filter(|outcome| matches!(outcome.status, 401 | 407));
                Verdict::Response { response, challenges: others.filter_map(|outcome| outcome.response).collect() }
            }
            (_, Some(response)) => Verdict::Response { response, challenges: Vec::new() },
        }
    }
}

impl Outcome {
    const fn local(status: u16, reason: &'static str) -> Self {
        Self { status, reason, response: None, unsent: false }
    }

    /// The lower, the better: any 6xx, then the lowest class; within it what tells the caller how to try again, and
    /// last what says the least about the callee.
    const fn rank(&self) -> (u16, u8, bool) {
        let class = if self.status >= 600 { 0 } else { self.status / 100 };
        let within = match self.status {
            401 | 407 => 0,
            415 | 420 | 484 => 1,
            404 | 410 | 480 | 481 => 3,
            408 | 487 | 503 => 4,
            _ => 2,
        };
        (class, within, self.response.is_none())
    }
}

#[cfg(test)]
mod tests;
