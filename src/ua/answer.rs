//! The callee's side (RFC 3261 §13.3): rings, answers or refuses, waits for the ACK, and hangs up when told to.

use std::time::{Duration, Instant};

use super::{
    ALLOW, Action, Event, Failure, Pace, Purpose, Side,
    call::contact_of,
    session::{Heard, Patience, Session, answer, refusal, status_of},
};
use crate::{
    media::sdp::Local,
    sip::{
        Message, Method,
        dialog::{Dialog, DialogId},
        header::Name,
        reason_phrase,
        respond::respond,
        transaction::ServerId,
    },
};

/// How often a call that rings says so, lest proxies give it up (RFC 3261 §13.3.1.1).
const RING_AGAIN: Duration = Duration::from_secs(60);

/// What to do with calls that come in.
#[derive(Debug, Clone)]
pub struct AnswerPlan {
    /// How long to ring before there is a final response.
    pub ring: Duration,
    /// The final response: 200 to answer, or 300 to 699.
    pub status: u16,
    /// How long to stay on the line; without a limit until the caller hangs up.
    pub hold: Option<Duration>,
    /// Our side of the session; each call counts its number up.
    pub media: Local,
    /// For User-Agent and Server.
    pub user_agent: String,
}

/// How a call is taken.
pub(super) struct Setup {
    pub plan: AnswerPlan,
    /// Our tag: a unique token.
    pub tag: String,
    /// The value of our Contact.
    pub contact: String,
    /// Who we are in the overlay, if the call is for another name of ours.
    pub identity: Option<String>,
    pub pace: Pace,
}

#[derive(Debug)]
enum State {
    Ringing {
        answer: Instant,
        again: Instant,
    },
    /// The 2xx is sent and not acknowledged.
    Answered,
    Talking {
        hang_up: Option<Instant>,
    },
    /// A BYE is on its way.
    Ending {
        fault: Option<String>,
    },
    Over,
}

/// One call that came in.
#[derive(Debug)]
pub(super) struct Answer {
    plan: AnswerPlan,
    server: ServerId,
    invite: Message,
    tag: String,
    session: Session,
    state: State,
}

impl Answer {
    /// Takes a call, or refuses it at once, in which case there is none.
    pub fn new(setup: Setup, server: ServerId, invite: &Message, now: Instant, out: &mut Vec<Action>) -> Option<Self> {
        let Setup { plan, tag, contact, identity, pace } = setup;
        let refuse = |status, out: &mut Vec<Action>| answer(server, refusal(invite, status, Some(&tag)), out);
        let dialog = match Dialog::of_callee(invite, &tag) {
            Ok(dialog) => dialog,
            Err(_) => {
                refuse(400, out);
                return None;
            }
        };
        let mut session = Session::new(dialog, plan.media.clone(), Some(contact), pace);
        session.identity = identity;
        if let Err(error) = session.description(invite) {
            refuse(status_of(&error), out);
            return None;
        }
        let state = State::Ringing { answer: now + plan.ring, again: now };
        let mut call = Self { plan, server, invite: invite.clone(), tag, session, state };
        out.push(Action::Event(Event::Incoming {
            from: invite.from().map(|from| from.uri.as_str().to_owned()).unwrap_or_default(),
            uri: invite.request_uri().unwrap_or_default().to_owned(),
            call_id: call.session.dialog.id().call_id.clone(),
        }));
        call.handle_timeout(now, out);
        Some(call)
    }

    /// The transaction of the INVITE.
    pub const fn server(&self) -> ServerId {
        self.server
    }

    /// Our tag.
    pub fn tag(&self) -> &str {
        &self.session.dialog.id().local_tag
    }

    /// A response to a request of ours.
    pub fn response(&mut self, purpose: Purpose, response: &Message, out: &mut Vec<Action>) {
        if purpose == Purpose::Bye && response.status().is_some_and(|status| status >= 200) {
            self.ended(Side::Us, None, out);
        }
    }

    /// A request of ours has come to nothing.
    pub fn failed(&mut self, failure: &Failure, out: &mut Vec<Action>) {
        self.ended(Side::Us, Some(format!("the BYE failed: {failure}")), out);
    }

    /// A CANCEL of the INVITE; `server` is its own transaction (RFC 3261 §9.2).
    pub fn cancel(&mut self, server: ServerId, cancel: &Message, out: &mut Vec<Action>) {
        answer(server, respond(cancel, 200, "OK", Some(&self.tag)), out);
        if matches!(self.state, State::Ringing { .. }) {
            answer(self.server, refusal(&self.invite, 487, Some(&self.tag)), out);
            self.finish(Event::Cancelled(Side::Them), out);
        }
    }

    /// A request in the dialog.
    pub fn request(&mut self, server: ServerId, request: &Message, now: Instant, out: &mut Vec<Action>) {
        if DialogId::of_received(request).ok().as_ref() != Some(self.session.dialog.id()) {
            return answer(server, refusal(request, 481, None), out);
        }
        let ringing = matches!(self.state, State::Ringing { .. });
        if ringing && request.method() == Method::Invite {
            // There is an offer without an answer already (RFC 3261 §14.2).
            return answer(server, refusal(request, 500, None).header(Name::RetryAfter, "1"), out);
        }
        match self.session.receive(server, request, now, out) {
            Heard::Nothing => return,
            Heard::Refreshed if matches!(self.state, State::Answered) => return self.talk(now, out),
            Heard::Refreshed => return,
            Heard::Bye => {}
        }
        match self.state {
            State::Ringing { .. } => {
                answer(self.server, refusal(&self.invite, 487, Some(&self.tag)), out);
                self.finish(Event::Cancelled(Side::Them), out);
            }
            State::Ending { .. } | State::Over => {}
            State::Talking { .. } => self.ended(Side::Them, None, out),
            State::Answered => {
                // Who hangs up has heard the answer.
                self.talk(now, out);
                self.ended(Side::Them, Some("the answer was not acknowledged".to_owned()), out);
            }
        }
    }

    /// An ACK in the dialog.
    pub fn ack(&mut self, ack: &Message, now: Instant, out: &mut Vec<Action>) {
        if !self.session.acknowledged(ack) || !matches!(self.state, State::Answered) {
            return;
        }
        self.talk(now, out);
    }

    /// The caller knows of our answer.
    fn talk(&mut self, now: Instant, out: &mut Vec<Action>) {
        let contact = self.session.dialog.target().to_owned();
        out.push(Action::Event(Event::Answered { contact }));
        self.state = State::Talking { hang_up: self.plan.hold.map(|hold| now + hold) };
    }

    /// The user wants no more: 480 or BYE, whichever it takes.
    pub fn hang_up(&mut self, out: &mut Vec<Action>) {
        match self.state {
            State::Ringing { .. } => {
                answer(self.server, refusal(&self.invite, 480, Some(&self.tag)), out);
                self.finish(Event::Cancelled(Side::Us), out);
            }
            State::Answered | State::Talking { .. } => self.bye(None, out),
            State::Ending { .. } | State::Over => {}
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Ringing { answer, again } => Some((*answer).min(*again)),
            State::Talking { hang_up } => *hang_up,
            _ => None,
        };
        own.into_iter().chain(self.session.poll_timeout()).min()
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.session.handle_timeout(now, out) == Patience::Lost {
            return self.bye(Some("the answer was never acknowledged".to_owned()), out);
        }
        match &mut self.state {
            State::Ringing { answer, .. } if now >= *answer => self.decide(now, out),
            State::Ringing { again, .. } if now >= *again => {
                *again = now + RING_AGAIN;
                let mut ringing = respond(&self.invite, 180, reason_phrase(180), Some(&self.tag));
                if let Some(contact) = &self.session.contact {
                    ringing = ringing.header(Name::Contact, contact);
                }
                super::session::answer(self.server, ringing, out);
                let reason = reason_phrase(180).to_owned();
                out.push(Action::Event(Event::Progress { status: 180, reason }));
            }
            State::Talking { hang_up: Some(at) } if now >= *at => self.bye(None, out),
            _ => {}
        }
    }

    /// Rung long enough.
    fn decide(&mut self, now: Instant, out: &mut Vec<Action>) {
        let status = self.plan.status;
        if !(200..300).contains(&status) {
            answer(self.server, refusal(&self.invite, status, Some(&self.tag)), out);
            let reason = reason_phrase(status).to_owned();
            return self.finish(Event::Rejected { status, reason }, out);
        }
        let body = match self.session.description(&self.invite) {
            Ok(body) => body,
            Err(error) => {
                answer(self.server, refusal(&self.invite, status_of(&error), Some(&self.tag)), out);
                return self.finish(Event::Failed(Failure::Malformed(error.to_string())), out);
            }
        };
        self.session.dialog.confirm();
        let response = self.session.success(&self.invite, body, Some(&self.tag));
        self.session.send_success(self.server, &self.invite, response, now, out);
        self.state = State::Answered;
    }

    fn bye(&mut self, fault: Option<String>, out: &mut Vec<Action>) {
        if matches!(self.state, State::Ending { .. } | State::Over) {
            return;
        }
        match self.session.bye(&self.plan.user_agent).finish() {
            Ok(bye) => {
                self.session.send(Purpose::Bye, bye, out);
                self.state = State::Ending { fault };
            }
            Err(error) => self.finish(Event::Ended { by: Side::Us, fault: Some(format!("no BYE: {error}")) }, out),
        }
    }

    fn ended(&mut self, by: Side, fault: Option<String>, out: &mut Vec<Action>) {
        let earlier = match &mut self.state {
            State::Ending { fault } => fault.take(),
            State::Over => return,
            _ => None,
        };
        self.finish(Event::Ended { by, fault: earlier.or(fault) }, out);
    }

    fn finish(&mut self, event: Event, out: &mut Vec<Action>) {
        self.state = State::Over;
        out.push(Action::Event(event));
    }
}

/// Options that a caller requires and that we do not have (RFC 3261 §8.2.2.3): all of them.
pub(super) fn unsupported(request: &Message) -> Option<Vec<u8>> {
    let required = request.tokens(Name::Require).collect::<Vec<_>>().join(&b", "[..]);
    (!required.is_empty()).then_some(required)
}

/// A refusal of what this user agent never does.
pub(super) fn not_allowed(request: &Message, tag: &str) -> crate::sip::respond::Response {
    refusal(request, 405, Some(tag)).header(Name::Allow, ALLOW)
}

/// Whether the request tells where the caller is, as an INVITE has to (RFC 3261 §8.1.1.8).
pub(super) fn has_contact(request: &Message) -> bool {
    contact_of(request).is_some()
}
