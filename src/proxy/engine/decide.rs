//! What becomes of a request: it is refused, asked about, answered, or given to a response context (RFC 3261 §16.3–5).

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{Engine, MAX_QUESTIONS, Open, Output, Question, RETRY_AFTER, What};
use crate::{
    client::gatekeeper::PROBE,
    proxy::route::{self, Decision, Next, Origin, Plan, Rejection},
    sip::{
        Message, Method,
        header::Name,
        respond,
        transaction::ServerId,
        transport::{Protocol, Remote, Source, names_peer, response_target},
    },
};

impl Engine {
    pub(super) fn on_request(&mut self, server: ServerId, message: Message, source: Source, now: Instant) {
        if let Err(fault) = message.check() {
            return self.reject(server, &message, fault.status, &fault.reason, None, now);
        }
        let in_dialog = message.to().is_ok_and(|to| to.tag().is_some());
        if self.draining && !in_dialog {
            self.counts.overloaded += 1;
            let retry = Some((Name::RetryAfter, RETRY_AFTER.to_owned()));
            return self.reject(server, &message, 503, "Leaving", retry, now);
        }
        if self.is_looping(&message) {
            self.counts.loops += 1;
            return self.reject(server, &message, 482, "Loop Detected", None, now);
        }
        self.decide_from(Some(server), message, source, now);
    }

    pub(super) fn decide_from(&mut self, server: Option<ServerId>, message: Message, source: Source, now: Instant) {
        if self.adapter.as_ref().is_some_and(|adapter| adapter.is_for_phones(&source)) {
            return self.serve_phone(server, message, source, now);
        }
        let overlay = source.protocol == Protocol::Overlay && !self.is_at_its_end(&message);
        let origin = match overlay {
            _ if self.domain => Origin::Domain,
            true => Origin::Stream,
            false => Origin::Public,
        };
        self.decide(server, message, source, origin, now);
    }

    pub(super) fn decide(
        &mut self,
        server: Option<ServerId>,
        message: Message,
        source: Source,
        origin: Origin<'_>,
        now: Instant,
    ) {
        let decision = route::decide(&message, origin, &self.config.realm);
        self.carry_out(decision, server, message, source, now);
    }

    pub(super) fn carry_out(
        &mut self,
        decision: Decision,
        server: Option<ServerId>,
        message: Message,
        source: Source,
        now: Instant,
    ) {
        match (decision, server) {
            (Decision::Reject(Rejection { status, reason, header }), Some(server)) => {
                self.reject(server, &message, status, reason, header, now);
            }
            (Decision::Answer, Some(server)) => {
                if let Some(probe) = message.header(Name::Other(PROBE.as_bytes())) {
                    self.outputs.push_back(Output::Probed(probe.to_vec()));
                }
                let ok = respond::respond(&message, 200, "", Some(&tag()))
                    .header(Name::Allow, route::ALLOWED)
                    .header(Name::Accept, "application/sdp")
                    .finish();
                self.answer(server, 200, ok, now);
            }
            (Decision::Register, Some(server)) => self.outputs.push_back(Output::Register { server, message }),
            (Decision::Identify { claimed }, server) => {
                let Remote::Peer(peer) = source.remote else { return };
                match self.ask(Open::Identity { server, message, source }) {
                    Ok(question) => self.outputs.push_back(Output::Identify { question, peer, claimed }),
                    Err(open) => self.refuse(*open, now),
                }
            }
            (Decision::Forward(plan), Some(server)) => self.begin(server, message, source, plan, now),
            (Decision::Forward(plan), None) => {
                if let Some(located) = self.here(&plan, &source) {
                    return self.pass_ack(message, source, plan, None, located);
                }
                let what = self.what(&plan, &source);
                match self.ask(Open::Ack { message, source, plan, uri: None }) {
                    Ok(question) => self.outputs.push_back(Output::Locate { question, what }),
                    Err(open) => self.refuse(*open, now),
                }
            }
            // Nothing answers an ACK.
            (Decision::Reject(_) | Decision::Answer | Decision::Register, None) => self.counts.dropped += 1,
        }
    }

    /// What is to be located for a plan of a request that came from `source`.
    pub(super) fn what(&self, plan: &Plan, source: &Source) -> What {
        match &plan.next {
            Next::User { aor, instance } => What::User { aor: aor.clone(), instance: *instance, source: source.remote },
            Next::Proxy => What::Proxy,
            Next::RequestUri(uri) | Next::Route { uri, .. } => {
                What::Uri { uri: Arc::from(uri.as_str()), secure: plan.secure }
            }
        }
    }

    /// Notes a question; what it was about comes back if there are too many.
    pub(super) fn ask(&mut self, open: Open) -> Result<Question, Box<Open>> {
        if self.open.len() >= MAX_QUESTIONS {
            return Err(Box::new(open));
        }
        self.next += 1;
        let question = Question::new(self.config.transactions.shard, self.next);
        self.open.insert(question, open);
        Ok(question)
    }

    /// There is no room for a question.
    pub(super) fn refuse(&mut self, open: Open, now: Instant) {
        self.counts.overloaded += 1;
        if let Open::Identity { server: Some(server), message, .. } = open {
            let retry = Some((Name::RetryAfter, RETRY_AFTER.to_owned()));
            self.reject(server, &message, 503, "Overloaded", retry, now);
        }
    }

    pub(super) fn reject(
        &mut self,
        server: ServerId,
        message: &Message,
        status: u16,
        reason: &str,
        header: Option<(Name<'static>, String)>,
        now: Instant,
    ) {
        let mut response = respond::respond(message, status, reason, Some(&tag()));
        if let Some((name, value)) = header {
            response = response.header(name, value);
        }
        self.answer(server, status, response.finish(), now);
    }

    /// Answers a request ourselves.
    pub(super) fn answer(&mut self, server: ServerId, status: u16, response: Bytes, now: Instant) {
        if let Some(count) = self.counts.answered.get_mut(usize::from(status / 100).saturating_sub(1)) {
            *count += 1;
        }
        // That it is over already is no matter: whoever asked has given up.
        let _ = self.layer.respond(server, response, now);
    }

    /// 503 without any state, for a source that sends too much or when there is no room.
    pub(super) fn turn_away(&mut self, message: &Message, source: &Source) {
        if matches!(message.method(), Method::Ack | Method::Cancel) {
            return;
        }
        let Ok(via) = message.top_via() else { return };
        let response = respond::respond(message, 503, "Overloaded", Some(&tag()));
        let to = response_target(&via, source);
        self.layer.send(to, response.header(Name::RetryAfter, RETRY_AFTER).finish());
    }

    pub(super) fn send_stateless(&mut self, message: &Message, source: &Source, status: u16, reason: &str) {
        if let Ok(via) = message.top_via() {
            let response = respond::respond(message, status, reason, Some(&tag())).finish();
            self.layer.send(response_target(&via, source), response);
        }
    }
}

/// The request with what its receiver notes in the topmost Via; `None` if that Via cannot be read, or lies about the
/// peer of an overlay stream.
pub(super) fn stamped(message: Message, source: &Source) -> Option<Message> {
    match source.remote {
        Remote::Peer(peer) => names_peer(&message.top_via().ok()?, &peer).then_some(message),
        Remote::Socket(address) => match message.top_via().ok()?.stamped(address) {
            Some(via) => message.with_top_via(&via),
            None => Some(message),
        },
    }
}

/// A tag for a response of our own (RFC 3261 §19.3): at least 32 random bits.
pub(super) fn tag() -> String {
    let bits = getrandom::u64().unwrap_or_default();
    format!("{bits:016x}")
}
