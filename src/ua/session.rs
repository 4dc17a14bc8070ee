//! What both sides of a call do once there is a dialog: BYE and re-INVITE both ways, and 2xx until it is acknowledged.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{ALLOW, Action, Event, NextHop, Pace, Purpose, SDP};
use crate::{
    media::sdp::{self, Local, SdpError},
    sip::{
        Message, Method,
        compose::Request,
        dialog::{Dialog, DialogError},
        header::Name,
        reason_phrase,
        respond::{Response, respond},
        transaction::ServerId,
    },
};

/// An established dialog and its session.
#[derive(Debug)]
pub(super) struct Session {
    pub dialog: Dialog,
    pub media: Local,
    /// The value of our Contact; the agent adds it to requests if it depends on the transport.
    pub contact: Option<String>,
    /// Who we are in the overlay, if From is another name of ours: a proxy peer passes on what comes from members
    /// (RFC 3325 §6).
    pub identity: Option<String>,
    pace: Pace,
    unacknowledged: Option<Unacknowledged>,
}

/// A 2xx to an INVITE whose ACK has not come.
#[derive(Debug)]
struct Unacknowledged {
    server: ServerId,
    cseq: u32,
    /// Whether it has an offer, so that the ACK brings the answer.
    offers: bool,
    bytes: Bytes,
    next: Instant,
    interval: Duration,
    until: Instant,
}

/// What a request in the dialog means to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Bye,
    /// The session is refreshed; so what had not been acknowledged has arrived all the same.
    Refreshed,
    Nothing,
}

/// What the time means to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Left,
    /// A 2xx was never acknowledged: end the call (RFC 3261 §13.3.1.4).
    Lost,
}

impl Session {
    pub fn new(dialog: Dialog, media: Local, contact: Option<String>, pace: Pace) -> Self {
        Self { dialog, media, contact, identity: None, pace, unacknowledged: None }
    }

    /// A request in the dialog.
    pub fn receive(&mut self, server: ServerId, request: &Message, now: Instant, out: &mut Vec<Action>) -> Heard {
        if let Err(error) = self.dialog.received(request) {
            let status = if matches!(error, DialogError::OutOfOrder { .. }) { 500 } else { 400 };
            answer(server, refusal(request, status, None), out);
            return Heard::Nothing;
        }
        match request.method() {
            Method::Bye => {
                answer(server, respond(request, 200, "OK", None), out);
                return Heard::Bye;
            }
            Method::Invite if self.unacknowledged.as_ref().is_some_and(|waiting| waiting.offers) => {
                // Our offer is not answered yet (RFC 5407 §3.1.5).
                answer(server, refusal(request, 491, None), out);
            }
            Method::Invite => match self.description(request) {
                Ok(body) => {
                    // Whoever re-invites has got our 2xx, though the ACK was lost (RFC 5407 §3.1.4).
                    self.unacknowledged = None;
                    let response = self.success(request, body, None);
                    self.send_success(server, request, response, now, out);
                    out.push(Action::Event(Event::Refreshed));
                    return Heard::Refreshed;
                }
                Err(error) => answer(server, refusal(request, status_of(&error), None), out),
            },
            Method::Options => answer(server, capabilities(request, None), out),
            _ => answer(server, refusal(request, 405, None).header(Name::Allow, ALLOW), out),
        }
        Heard::Nothing
    }

    /// The answer to a request's offer, or an offer if it has none (RFC 3264 §4, RFC 3261 §13.2.1).
    pub fn description(&self, request: &Message) -> Result<Vec<u8>, SdpError> {
        if request.body().is_empty() { sdp::offer(&self.media) } else { sdp::answer(request.body(), &self.media) }
    }

    /// A 200 with a session description.
    pub fn success(&self, request: &Message, body: Vec<u8>, tag: Option<&str>) -> Bytes {
        let mut response = respond(request, 200, "OK", tag).header(Name::Allow, ALLOW);
        if let Some(contact) = &self.contact {
            response = response.header(Name::Contact, contact);
        }
        response.body(SDP, body).finish()
    }

    /// Sends a 2xx to an INVITE, again and again until it is acknowledged.
    pub fn send_success(
        &mut self,
        server: ServerId,
        request: &Message,
        bytes: Bytes,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Pace { t1, .. } = self.pace;
        let cseq = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let offers = request.body().is_empty();
        out.push(Action::Respond { server, bytes: bytes.clone() });
        self.unacknowledged =
            Some(Unacknowledged { server, cseq, offers, bytes, next: now + t1, interval: t1, until: now + t1 * 64 });
    }

    /// An ACK; says whether it is the one that was waited for.
    pub fn acknowledged(&mut self, ack: &Message) -> bool {
        let number = ack.cseq().map(|cseq| cseq.number).ok();
        let waited = self.unacknowledged.as_ref().is_some_and(|waiting| Some(waiting.cseq) == number);
        if waited {
            self.unacknowledged = None;
        }
        waited
    }

    /// The next BYE.
    pub fn bye(&mut self, user_agent: &str) -> Request {
        let bye = self.dialog.request(Method::Bye).header(Name::UserAgent, user_agent);
        match &self.identity {
            Some(identity) => bye.header(Name::PPreferredIdentity, format!("<{identity}>")),
            None => bye,
        }
    }

    /// A re-INVITE that refreshes the session as it is (RFC 3261 §14.1), but for its description.
    pub fn reinvite(&mut self, user_agent: &str) -> Request {
        let request = self.dialog.request(Method::Invite).header(Name::UserAgent, user_agent);
        let request = request.header(Name::Allow, ALLOW);
        match &self.contact {
            Some(contact) => request.header(Name::Contact, contact),
            None => request,
        }
    }

    /// Sends a request along the route set.
    pub fn send(&self, purpose: Purpose, request: Message, out: &mut Vec<Action>) {
        out.push(Action::Request { purpose, request, next_hop: NextHop::Uri(self.dialog.next_hop().to_owned()) });
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.unacknowledged.as_ref().map(|waiting| waiting.next.min(waiting.until))
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) -> Patience {
        let t2 = self.pace.t2;
        let Some(waiting) = &mut self.unacknowledged else { return Patience::Left };
        if now >= waiting.until {
            self.unacknowledged = None;
            return Patience::Lost;
        }
        if now >= waiting.next {
            out.push(Action::Respond { server: waiting.server, bytes: waiting.bytes.clone() });
            waiting.interval = (waiting.interval * 2).min(t2);
            waiting.next = now + waiting.interval;
        }
        Patience::Left
    }
}

/// A response of this status with its usual reason phrase.
pub(super) fn refusal(request: &Message, status: u16, tag: Option<&str>) -> Response {
    respond(request, status, reason_phrase(status), tag)
}

/// What an offer that cannot be accepted is answered with (RFC 3261 §21.4.26).
pub(super) const fn status_of(error: &SdpError) -> u16 {
    match error {
        SdpError::NoCommonCodec | SdpError::NoAddress | SdpError::TooMany => 488,
        SdpError::Malformed(_) => 400,
        SdpError::Unwritable(_) => 500,
    }
}

/// The answer to OPTIONS (RFC 3261 §11.2).
pub(super) fn capabilities(request: &Message, tag: Option<&str>) -> Response {
    respond(request, 200, "OK", tag).header(Name::Allow, ALLOW).header(Name::Accept, SDP)
}

pub(super) fn answer(server: ServerId, response: Response, out: &mut Vec<Action>) {
    out.push(Action::Respond { server, bytes: response.finish() });
}
