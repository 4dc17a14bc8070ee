//! Our side of a call that we placed, of one that came in, or of a binding: each hears what concerns it.

use std::time::Instant;

use super::super::{
    Action, Failure, Purpose,
    answer::Answer,
    call::Call,
    register::Registration,
    session::{answer as answer_with, refusal},
};
use crate::sip::{Message, transaction::ServerId, transport::Source};

#[derive(Debug)]
// Calls are few and live in a map: a box would save nothing.
#[allow(clippy::large_enum_variant)]
pub(super) enum Leg {
    Caller(Call),
    Callee(Answer),
    Registration(Registration),
}

impl Leg {
    /// Our tag, by which the other side's requests are known.
    pub(super) fn tag(&self) -> &str {
        match self {
            Self::Caller(call) => call.tag(),
            Self::Callee(answer) => answer.tag(),
            Self::Registration(registration) => registration.tag(),
        }
    }

    /// The Call-ID, if we chose it.
    pub(super) fn call_id(&self) -> Option<&str> {
        match self {
            Self::Caller(call) => Some(call.call_id()),
            Self::Callee(_) => None,
            Self::Registration(registration) => Some(registration.call_id()),
        }
    }

    /// A request in its dialog.
    pub(super) fn request(&mut self, server: ServerId, request: &Message, now: Instant, out: &mut Vec<Action>) {
        match self {
            Self::Caller(call) => call.request(server, request, now, out),
            Self::Callee(answer) => answer.request(server, request, now, out),
            // The tag is in no dialog.
            Self::Registration(_) => answer_with(server, refusal(request, 481, None), out),
        }
    }

    pub(super) fn ack(&mut self, ack: &Message, now: Instant, out: &mut Vec<Action>) {
        match self {
            Self::Caller(call) => call.ack(ack),
            Self::Callee(answer) => answer.ack(ack, now, out),
            Self::Registration(_) => {}
        }
    }

    /// A response to a request of ours; `cnonce` is for the answer to a challenge.
    pub(super) fn response(
        &mut self,
        purpose: Purpose,
        (response, source): (&Message, &Source),
        now: Instant,
        cnonce: &str,
        out: &mut Vec<Action>,
    ) {
        match self {
            Self::Caller(call) => call.response(purpose, response, now, cnonce, out),
            Self::Callee(answer) => answer.response(purpose, response, out),
            Self::Registration(registration) => registration.response(response, source, now, cnonce, out),
        }
    }

    /// A request of ours came to nothing.
    pub(super) fn failed(&mut self, purpose: Purpose, failure: Failure, now: Instant, out: &mut Vec<Action>) {
        match self {
            Self::Caller(call) => call.failed(purpose, failure, out),
            Self::Callee(answer) => answer.failed(&failure, out),
            Self::Registration(registration) => registration.failed(failure, now, out),
        }
    }

    pub(super) fn hang_up(&mut self, now: Instant, out: &mut Vec<Action>) {
        match self {
            Self::Caller(call) => call.hang_up(now, out),
            Self::Callee(answer) => answer.hang_up(out),
            Self::Registration(_) => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Caller(call) => call.poll_timeout(),
            Self::Callee(answer) => answer.poll_timeout(),
            Self::Registration(registration) => registration.poll_timeout(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) {
        match self {
            Self::Caller(call) => call.handle_timeout(now, out),
            Self::Callee(answer) => answer.handle_timeout(now, out),
            Self::Registration(registration) => registration.handle_timeout(now, out),
        }
    }
}
