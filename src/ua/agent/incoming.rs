//! Requests that come in: to the call whose dialog they are in, or a new call, or refused.

use std::time::Instant;

use super::{
    super::{
        answer::{Answer, AnswerPlan, Setup, has_contact, not_allowed, unsupported},
        contact::{contact_at, identity, is_secure, secured, wants_secure_contact},
        session::{capabilities, refusal},
    },
    Agent, CallId, Leg,
};
use crate::sip::{
    Message, Method,
    header::Name,
    respond::{Response, respond},
    transaction::ServerId,
    transport::Source,
    uri::Uri,
};

impl Agent {
    /// A request that is neither an ACK nor a CANCEL.
    pub(super) fn request(&mut self, server: ServerId, request: &Message, source: &Source, merged: bool, now: Instant) {
        if let Err(fault) = request.check_at_end() {
            let response = respond(request, fault.status, &fault.reason, Some(&self.token()));
            return self.respond(server, response, now);
        }
        let in_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        if in_dialog {
            return match self.call_of(request) {
                Some(id) => self.with(id, now, |leg, _, out| leg.request(server, request, now, out)),
                None => self.respond(server, refusal(request, 481, None), now),
            };
        }
        self.new_request(server, request, source, merged, now);
    }

    /// A request that is in no dialog.
    fn new_request(&mut self, server: ServerId, request: &Message, source: &Source, merged: bool, now: Instant) {
        let tag = self.token();
        let refuse = |status| refusal(request, status, Some(&tag));
        let wrong_user = !self.is_ours(request);
        let required = unsupported(request);
        let response = match request.method() {
            _ if merged => refuse(482),
            _ if wrong_user => refuse(404),
            _ if required.is_some() => refuse(420).header(Name::Unsupported, required.unwrap_or_default()),
            Method::Options => capabilities(request, Some(&tag)),
            Method::Invite if !has_contact(request) => refuse(400),
            Method::Invite if self.calls.len() >= self.config.max_calls => refuse(486),
            Method::Invite => match self.config.answer.clone() {
                Some(plan) => return self.take_call(plan, server, request, source, tag, now),
                None => refuse(480),
            },
            _ => not_allowed(request, &tag),
        };
        self.respond(server, response, now);
    }

    /// A call for us.
    fn take_call(
        &mut self,
        mut plan: AnswerPlan,
        server: ServerId,
        invite: &Message,
        source: &Source,
        tag: String,
        now: Instant,
    ) {
        let id = self.new_call();
        plan.media.session = plan.media.session.wrapping_add(id.0);
        let contact = match &self.config.contact {
            Some(contact) => format!("<{}>", secured(contact, wants_secure_contact(invite))),
            None => {
                let to = invite.request_uri().unwrap_or_default();
                contact_at(to, source.protocol, &source.local.to_string(), is_secure(to))
            }
        };
        let mut out = Vec::new();
        let identity = self.config.contact.as_deref().and_then(|contact| identity(contact, invite));
        let setup = Setup { plan, tag, contact, identity, pace: self.pace() };
        if let Some(answer) = Answer::new(setup, server, invite, now, &mut out) {
            self.by_server.insert(answer.server(), id);
            self.enter(id, Leg::Callee(answer));
        }
        self.act(id, out, now);
    }

    pub(super) fn respond(&mut self, server: ServerId, response: Response, now: Instant) {
        // Too late, or the table has let it go: the other side asks again if it still wants to know.
        let _ = self.layer.respond(server, response.finish(), now);
    }

    /// The call whose tag a received request has in To.
    pub(super) fn call_of(&self, request: &Message) -> Option<CallId> {
        self.by_tag.get(request.to().ok()?.tag()?).copied()
    }

    fn is_ours(&self, request: &Message) -> bool {
        let Some(user) = &self.config.user else { return true };
        match request.uri() {
            Ok(Uri::Sip(uri)) => uri.user.is_none_or(|own| own == user),
            _ => false,
        }
    }
}
