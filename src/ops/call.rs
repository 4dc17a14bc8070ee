//! What became of a test call, as `p2p-invite` and `p2p-answer` tell it.

use std::time::Instant;

use serde::Serialize;

use super::flow::FlowView;
use crate::{
    clock::ms,
    kind::Kind,
    sip::transport::Hop,
    ua::{Event, Failure, Side},
};

/// The outcome of a call, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallStatus {
    /// It was on (exit 0).
    Answered,
    /// The INVITE has a final response of 300 to 699 (exit 1).
    Rejected,
    /// The callee is not there: no such user, domain or server (exit 1).
    NotFound,
    /// It rang, and nobody answered in time (exit 3).
    NoAnswer,
    /// Nobody responded, or nobody could be reached (exit 3).
    Unreachable,
    /// What was found is not to be trusted (exit 4).
    Untrusted,
    /// This machine did not let it through (exit 5).
    LocalFailure,
    /// It was given up before it was answered (exit 130 if the user did so).
    Cancelled,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallOutcome {
    /// The outcome.
    pub status: CallStatus,
    /// `outgoing` or `incoming`.
    pub direction: &'static str,
    /// Whom it was for: the Request-URI.
    pub uri: String,
    /// Whom it was from.
    pub from: String,
    /// Its Call-ID.
    pub call_id: String,
    /// The final status of the INVITE, if there was one.
    pub code: Option<u16>,
    /// The reason phrase of that status, or why there was none.
    pub reason: Option<String>,
    /// From the INVITE to the first 101 to 199.
    pub ringing_ms: Option<f64>,
    /// From the INVITE to the 2xx (of an incoming call to its ACK).
    pub answered_ms: Option<f64>,
    /// From then to the end.
    pub talked_ms: Option<f64>,
    /// `us` or `them`; of a call that was answered or cancelled.
    pub ended_by: Option<&'static str>,
    /// What went wrong at the end of a call that was answered.
    pub fault: Option<String>,
    /// The final status of our re-INVITE.
    pub reinvited: Option<u16>,
    /// What carried sound: nothing does yet.
    pub media: &'static str,
    /// The messages, if they were asked for.
    pub flow: Option<FlowView>,
    /// From the beginning to the end.
    pub elapsed_ms: f64,
}

impl CallOutcome {
    /// What sort of failure it is; `None` of a call that was answered or cancelled.
    pub const fn kind(&self) -> Option<Kind> {
        match self.status {
            CallStatus::Answered | CallStatus::Cancelled => None,
            CallStatus::Rejected | CallStatus::NotFound => Some(Kind::Negative),
            CallStatus::NoAnswer | CallStatus::Unreachable => Some(Kind::Unreachable),
            CallStatus::Untrusted => Some(Kind::Untrusted),
            CallStatus::LocalFailure => Some(Kind::Local),
        }
    }
}

/// Something that happens during a call, for people who wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallProgress {
    /// Which call of this run, from 1.
    pub call: u64,
    /// The status of a provisional response, or of a re-INVITE.
    pub status: Option<u16>,
    /// What happened, in words.
    pub what: String,
}

/// Follows one call from event to event.
pub(super) struct Tracker {
    pub(super) number: u64,
    began: Instant,
    answered: Option<Instant>,
    outcome: CallOutcome,
}

impl Tracker {
    /// The call with this number in the run begins.
    pub(super) fn new(
        number: u64,
        direction: &'static str,
        uri: &str,
        from: &str,
        call_id: &str,
        now: Instant,
    ) -> Self {
        let outcome = CallOutcome {
            status: CallStatus::Unreachable,
            direction,
            uri: uri.to_owned(),
            from: from.to_owned(),
            call_id: call_id.to_owned(),
            code: None,
            reason: None,
            ringing_ms: None,
            answered_ms: None,
            talked_ms: None,
            ended_by: None,
            fault: None,
            reinvited: None,
            media: "none",
            flow: None,
            elapsed_ms: 0.0,
        };
        Self { number, began: now, answered: None, outcome }
    }

    /// The Call-ID.
    pub(super) fn call_id(&self) -> &str {
        &self.outcome.call_id
    }

    /// Whom it is for.
    pub(super) fn uri(&self) -> &str {
        &self.outcome.uri
    }

    /// Takes an event in. `failure` is what stopped the call where SIP does not say.
    pub(super) fn event(&mut self, event: &Event, failure: Option<Kind>, now: Instant) -> Option<CallProgress> {
        let since = ms(now.saturating_duration_since(self.began));
        let outcome = &mut self.outcome;
        let (status, what) = match event {
            Event::Incoming { from, uri, .. } => (None, format!("call from {from} for {uri}")),
            Event::Progress { status, reason } => {
                outcome.ringing_ms.get_or_insert(since);
                (Some(*status), format!("{status} {reason}"))
            }
            Event::Answered { contact } => {
                outcome.status = CallStatus::Answered;
                (outcome.code, outcome.answered_ms) = (Some(200), Some(since));
                self.answered = Some(now);
                let from = if outcome.direction == "incoming" { String::new() } else { format!(" from {contact}") };
                (Some(200), format!("200 OK{from}"))
            }
            Event::Reinvited { status } => {
                outcome.reinvited = Some(*status);
                (Some(*status), format!("the re-INVITE was answered with {status}"))
            }
            Event::Refreshed => (None, "the other side refreshed the session".to_owned()),
            Event::Rejected { status, reason } => {
                outcome.status = CallStatus::Rejected;
                (outcome.code, outcome.reason) = (Some(*status), Some(reason.clone()));
                return None;
            }
            Event::Cancelled(side) => {
                (outcome.status, outcome.ended_by) = (CallStatus::Cancelled, Some(word(*side)));
                return None;
            }
            Event::Failed(why) => {
                (outcome.status, outcome.reason) = failed(why, outcome.ringing_ms.is_some(), failure);
                return None;
            }
            Event::Ended { by, fault } => {
                outcome.talked_ms = self.answered.map(|at| ms(now.saturating_duration_since(at)));
                (outcome.ended_by, outcome.fault) = (Some(word(*by)), fault.clone());
                if self.answered.is_none() {
                    outcome.status = CallStatus::Cancelled;
                }
                return None;
            }
        };
        Some(CallProgress { call: self.number, status, what })
    }

    /// Names the next hop from which no response came.
    pub(super) fn silent(&mut self, hop: &Hop) {
        if self.outcome.status == CallStatus::Unreachable {
            self.outcome.reason = Some(format!("no response from {hop}"));
        }
    }

    /// The outcome, once the last event has been taken in.
    pub(super) fn finish(mut self, flow: Option<FlowView>, now: Instant) -> CallOutcome {
        self.outcome.elapsed_ms = ms(now.saturating_duration_since(self.began));
        self.outcome.flow = flow;
        self.outcome
    }
}

const fn word(side: Side) -> &'static str {
    match side {
        Side::Us => "us",
        Side::Them => "them",
    }
}

fn failed(why: &Failure, rang: bool, failure: Option<Kind>) -> (CallStatus, Option<String>) {
    let status = match (why, failure) {
        (Failure::Timeout, _) if rang => CallStatus::NoAnswer,
        (Failure::Timeout, _) => CallStatus::Unreachable,
        (Failure::Challenge(_), _) => CallStatus::Rejected,
        (Failure::Malformed(_), _) => CallStatus::Unreachable,
        (_, Some(Kind::Negative)) => CallStatus::NotFound,
        (_, Some(Kind::Untrusted)) => CallStatus::Untrusted,
        (_, Some(Kind::Local | Kind::Usage)) => CallStatus::LocalFailure,
        (_, Some(Kind::Unreachable) | None) => CallStatus::Unreachable,
    };
    let why = match status {
        CallStatus::NoAnswer => "nobody answered in time".to_owned(),
        _ => why.to_string(),
    };
    (status, Some(why))
}
