//! The proxy core (RFC 3261 §16), sans-IO: requests come in, are decided on, located, forked and answered.
//!
//! An [`Engine`] sits on a transaction [`Layer`] and keeps one response context a request, none a dialog: what comes
//! later in a dialog is routed by what it carries, by whichever proxy peer it reaches. The ACK of a 2xx is forwarded
//! without any state. Where users are and what the DNS says is asked of the driver, by [`Output::Locate`] and
//! [`Output::Identify`]; the engine goes on at [`Engine::located`] and [`Engine::identified`].

mod context;
mod decide;
mod forward;
mod ids;
mod interface;
mod phones;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

pub use self::interface::{Config, Counts, Located, Output, Question, What};
use self::{
    context::{Answered, Asked, Context},
    decide::{stamped, tag},
    ids::Ids,
    phones::from_phone,
};
use super::{
    adapter::Adapter,
    route::{Origin, Plan},
    throttle::Throttle,
};
use crate::{
    name::Aor,
    sip::{
        Message, respond,
        transaction::{self, ClientId, Layer, ServerId, Token},
        transport::{Source, Undelivered, via_host},
    },
};

/// Questions that may be open at a time; above it a request is answered 503.
const MAX_QUESTIONS: usize = 65_536;
/// Seconds after which somebody who was turned away for overload may come again (RFC 3261 §20.33).
const RETRY_AFTER: &str = "5";

/// What an open question is about.
#[derive(Debug)]
enum Open {
    /// Whether the sender of a request is a member; `server` is none for an ACK.
    Identity { server: Option<ServerId>, message: Message, source: Source },
    /// Where an ACK goes; `uri` is the contact that it is for, once that is known.
    Ack { message: Message, source: Source, plan: Plan, uri: Option<Arc<str>> },
    /// What a response context asked.
    Context(u64, Asked),
}

/// What a client transaction is to the engine.
#[derive(Debug)]
enum Client {
    /// An attempt of a response context.
    Of(u64, usize),
    /// All that is left of a request: its 2xx may come again (RFC 6026 §8.7).
    Answered(Box<Answered>),
}

/// The proxy core. See the module's documentation.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    layer: Layer,
    throttle: Arc<Throttle>,
    adapter: Option<Adapter>,
    /// The peer id as it stands in a Via.
    via_host: String,
    contexts: Ids<u64, Context>,
    by_server: Ids<ServerId, u64>,
    by_client: Ids<ClientId, Client>,
    open: Ids<Question, Open>,
    next: u64,
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    outputs: VecDeque<Output>,
    counts: Counts,
    draining: bool,
    /// Whether this is the server of a conventional domain, and no proxy peer.
    domain: bool,
}

impl Engine {
    /// An engine without any request. No time that it is ever told may be before `now`.
    pub fn new(config: Config, now: Instant) -> Self {
        let throttle = Arc::new(Throttle::new(config.rate));
        Self::sharing(config, throttle, now)
    }

    /// As [`Engine::new`], one of several that charge the sources of requests together; its own rate does not count.
    pub fn sharing(config: Config, throttle: Arc<Throttle>, now: Instant) -> Self {
        Self {
            layer: Layer::new(config.transactions.clone(), now),
            throttle,
            adapter: None,
            via_host: via_host(&config.peer),
            contexts: Ids::default(),
            by_server: Ids::default(),
            by_client: Ids::default(),
            open: Ids::default(),
            next: 0,
            deadlines: BinaryHeap::new(),
            outputs: VecDeque::new(),
            counts: Counts::default(),
            draining: false,
            domain: false,
            config,
        }
    }

    /// The same core as the server of a conventional domain, whose name stands in place of the overlay identifier: it
    /// hands out what its registrar is to answer, and records the path of every dialog.
    pub fn of_domain(config: Config, now: Instant) -> Self {
        Self { domain: true, ..Self::new(config, now) }
    }

    /// Takes a message from the network.
    pub fn receive(&mut self, message: Message, source: Source, now: Instant) {
        if !message.is_request() {
            self.layer.receive(message, source, now);
            return self.work(now);
        }
        let Some(message) = stamped(message, &source) else {
            self.counts.dropped += 1;
            return;
        };
        // What belongs to a request that was taken is never turned away: a 503 would end a call that rings.
        if !self.has_room(&source, now) && !self.layer.knows(&message) {
            self.counts.throttled += 1;
            self.turn_away(&message, &source);
            return self.work(now);
        }
        self.layer.receive(message, source, now);
        self.work(now);
    }

    /// Where a request goes.
    pub fn located(&mut self, question: Question, located: Located, now: Instant) {
        match self.open.remove(&question) {
            Some(Open::Ack { message, source, plan, uri }) => self.pass_ack(message, source, plan, uri, located),
            Some(Open::Context(id, asked)) => self.context_located(id, asked, located, now),
            Some(open @ Open::Identity { .. }) => _ = self.open.insert(question, open),
            None => {}
        }
        self.work(now);
    }

    /// Whose peer a sender is: the users in whose live, verified routing records it is a contact. None: no member's.
    pub fn identified(&mut self, question: Question, users: &[Aor], now: Instant) {
        match self.open.remove(&question) {
            Some(Open::Identity { server, message, source }) => {
                self.decide(server, message, source, Origin::Peer(users), now);
            }
            Some(open) => _ = self.open.insert(question, open),
            None => {}
        }
        self.work(now);
    }

    /// Answers a request that was handed out.
    pub fn respond(&mut self, server: ServerId, response: Bytes, now: Instant) {
        // That it is over already is no matter: whoever asked has given up.
        let _ = self.layer.respond(server, response, now);
        self.work(now);
    }

    /// What was to be sent with this token was not.
    pub fn transport_failed(&mut self, token: Token, now: Instant) {
        self.layer.transport_failed(token, now);
        self.work(now);
    }

    /// A datagram did not arrive.
    pub fn undelivered(&mut self, undelivered: &Undelivered, now: Instant) {
        self.layer.undelivered(undelivered, now);
        self.work(now);
    }

    /// When to call [`Engine::handle_timeout`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.deadlines.peek().map(|Reverse((at, _))| *at);
        let phones = self.adapter.as_ref().and_then(Adapter::poll_timeout);
        self.layer.poll_timeout().into_iter().chain(own).chain(phones).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        if let Some(adapter) = &mut self.adapter {
            adapter.handle_timeout(now);
        }
        while let Some(Reverse((at, id))) = self.deadlines.peek().copied()
            && at <= now
        {
            self.deadlines.pop();
            if let Some(context) = self.contexts.get_mut(&id) {
                context.deadline = None;
                context.fork.on_timeout(now);
                self.follow(id, now);
            }
        }
        self.work(now);
    }

    /// The next thing to do. To be called until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Begins nothing new from now on: requests outside of dialogs are answered 503. What has begun goes on.
    ///
    /// Phones are taken out of the overlay.
    pub fn drain(&mut self, now: Instant) {
        self.draining = true;
        if let Some(adapter) = &mut self.adapter {
            adapter.leave(now);
        }
        self.work(now);
    }

    /// Whether no request waits for its final response.
    pub fn is_idle(&self) -> bool {
        self.contexts.values().all(|context| context.fork.is_over())
            && self.open.is_empty()
            && self.adapter.as_ref().is_none_or(Adapter::is_idle)
    }

    /// How often things happened.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How often things happened to transactions.
    pub const fn transactions(&self) -> &transaction::Metrics {
        self.layer.metrics()
    }

    /// How many transactions there are.
    pub fn len(&self) -> usize {
        self.layer.len()
    }

    /// Whether there is no transaction.
    pub fn is_empty(&self) -> bool {
        self.layer.is_empty()
    }

    /// Takes everything from the layer, and does what follows.
    fn work(&mut self, now: Instant) {
        loop {
            match self.layer.poll_output() {
                Some(transaction::Output::Send { to, bytes, token }) => {
                    self.outputs.push_back(Output::Send { to, bytes, token });
                }
                Some(transaction::Output::Event(event)) => self.on_event(event, now),
                None if self.follow_adapter(now) => {}
                None => return,
            }
        }
    }

    fn on_event(&mut self, event: transaction::Event, now: Instant) {
        use transaction::Event;
        match event {
            Event::Request { server, message, source, .. } => self.on_request(server, message, source, now),
            Event::Cancel { server, invite, message, .. } => {
                let ok = respond::respond(&message, 200, "", Some(&tag())).finish();
                self.answer(server, 200, ok, now);
                if let Some(id) = self.by_server.get(&invite).copied() {
                    self.cancel(id, now);
                }
            }
            Event::StrayCancel { message, source } => {
                // What it would cancel is not here, or is over (RFC 3261 §9.2); a CANCEL that went on could not have
                // the branch of the INVITE.
                self.send_stateless(&message, &source, 481, "Transaction Does Not Exist");
            }
            Event::Ack { invite: None, message, source } => {
                if message.check().is_ok() {
                    self.decide_from(None, message, source, now);
                }
            }
            // Of a 2xx that the INVITE's own transaction had: nobody's, or a broken UA's.
            Event::Ack { invite: Some(_), .. } => {}
            Event::Response { client, message, .. } => self.on_response(client, message, now),
            // RFC 6026 §8.9: nobody is to be reached by a response that was never asked for.
            Event::StrayResponse { .. } => self.counts.dropped += 1,
            Event::Overload { message, source } => {
                self.counts.overloaded += 1;
                self.turn_away(&message, &source);
            }
            Event::Timeout { client } => self.failed(client, super::fork::Failure::Timeout, now),
            Event::TransportError { client } => self.failed(client, super::fork::Failure::Transport, now),
            Event::Deadline { .. } | Event::NotAcknowledged { .. } | Event::ResponseFailed { .. } => {}
            Event::ClientEnded { client } => _ = self.by_client.remove(&client),
            Event::ServerEnded { server } => _ = self.by_server.remove(&server),
        }
    }

    fn on_response(&mut self, client: ClientId, message: Message, now: Instant) {
        let (Some(found), Some(status)) = (self.by_client.get(&client), message.status()) else { return };
        if message.check().is_err() {
            self.counts.dropped += 1;
            return;
        }
        match found {
            Client::Of(id, attempt) => {
                let (id, attempt) = (*id, *attempt);
                if let Some(context) = self.contexts.get_mut(&id) {
                    let phone = context.phones.get(attempt).copied().flatten();
                    let message = from_phone(self.adapter.as_ref(), phone, message, &self.config.realm);
                    context.fork.responded(attempt, status, message, now);
                    self.follow(id, now);
                }
            }
            Client::Answered(answered) if (200..300).contains(&status) => {
                let (server, back) = (answered.server, answered.back.clone());
                let (phone, record) =
                    answered.adapted.as_deref().map_or((None, None), |adapted| (adapted.phone, adapted.record.clone()));
                let message = from_phone(self.adapter.as_ref(), phone, message, &self.config.realm);
                self.pass(server, &message, &[], record.as_deref(), now, || Some(back));
            }
            Client::Answered(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
