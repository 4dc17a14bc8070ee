//! The proxy core (RFC 3261 §16), sans-IO: requests come in, are decided on, located, forked and answered.
//!
//! An [`Engine`] sits on a transaction [`Layer`] and keeps one response context a request, none a dialog: what comes
//! later in a dialog is routed by what it carries, by whichever proxy peer it reaches. The ACK of a 2xx is forwarded
//! without any state. Where users are and what the DNS says is asked of the driver, by [`Output::Locate`] and
//! [`Output::Identify`]; the engine goes on at [`Engine::located`] and [`Engine::identified`].

mod context;
mod forward;
mod phones;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use self::context::{Answered, Asked, Context};
use super::{
    adapter::Adapter,
    fork::{Health, Patience, Target},
    route::{self, Decision, Instance, Next, Origin, Plan, Realm, Rejection},
    throttle::{Rate, Throttle},
};
use crate::{
    client::gatekeeper::PROBE,
    name::{Aor, InstanceId, PeerId},
    sip::{
        Message, Method,
        header::Name,
        respond,
        transaction::{self, ClientId, Layer, ServerId, Token},
        transport::{Hop, Protocol, Remote, Source, Undelivered, names_peer, response_target, via_host},
    },
};

/// Questions that may be open at a time; above it a request is answered 503.
const MAX_QUESTIONS: usize = 65_536;
/// Seconds after which somebody who was turned away for overload may come again (RFC 3261 §20.33).
const RETRY_AFTER: &str = "5";

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it answers to.
    pub realm: Realm,
    /// This process's peer id, which is its sent-by on overlay streams.
    pub peer: PeerId,
    /// The transactions.
    pub transactions: transaction::Config,
    /// How long to wait for what.
    pub patience: Patience,
    /// How much one source may send.
    pub rate: Rate,
}

/// A question to the driver. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    shard: u8,
    number: u64,
}

impl Question {
    /// As an engine would ask it.
    #[cfg(test)]
    pub(crate) const fn new(shard: u8, number: u64) -> Self {
        Self { shard, number }
    }

    /// The [shard](transaction::Config::shard) of the engine that asks.
    pub const fn shard(self) -> u8 {
        self.shard
    }
}

/// What is to be located.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The contacts of a user of the overlay.
    User {
        /// The user.
        aor: Aor,
        /// The only instance that will do, if one is asked for.
        instance: Option<Instance>,
        /// Who asks for the user, to be charged for a lookup.
        source: Remote,
    },
    /// The servers of a URI, by RFC 3263.
    Uri {
        /// The URI.
        uri: Arc<str>,
        /// Whether only TLS will do.
        secure: bool,
    },
    /// Proxy peers other than this one.
    Proxy,
}

/// What was located.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// A user's contacts: groups that are tried one after the other.
    Groups(Vec<Vec<Target>>),
    /// A URI's servers, in the order in which they are tried.
    Hops(Vec<Hop>),
    /// Nothing: what to answer instead.
    Nowhere {
        /// The status.
        status: u16,
        /// The reason phrase.
        reason: &'static str,
    },
}

/// What the engine wants done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send these octets; if that fails, say [`Engine::transport_failed`].
    Send {
        /// Where to.
        to: Hop,
        /// One message.
        bytes: Bytes,
        /// What to say if it fails.
        token: Token,
    },
    /// Find out where a request goes: [`Engine::located`].
    Locate {
        /// The question.
        question: Question,
        /// What is to be located.
        what: What,
    },
    /// Remember how a server of the public network does.
    Learned {
        /// The server.
        hop: Hop,
        /// How it does.
        health: Health,
    },
    /// Find out whose peer the sender of a request is: [`Engine::identified`].
    Identify {
        /// The question.
        question: Question,
        /// The peer.
        peer: PeerId,
        /// The user that it claims to be, if any.
        claimed: Option<Aor>,
    },
    /// A gatekeeper's probe has come: the value of its header.
    Probed(Vec<u8>),
    /// Answer a REGISTER: [`Engine::respond`]. Only a [domain's](Engine::of_domain) engine says so.
    Register {
        /// Its transaction.
        server: ServerId,
        /// The request.
        message: Message,
    },
    /// Write the routing record of an adapter's phone, or take it out: [`Engine::published`].
    Publish {
        /// The phone.
        instance: InstanceId,
        /// Whether the phone is there.
        present: bool,
    },
}

/// How often things happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were passed on, once each, however often they forked.
    pub forwarded: u64,
    /// Those of them that may form a dialog and went to the public network, once for each server tried.
    pub outgoing: u64,
    /// Requests that were answered here, by status class: 1xx to 6xx (the first is unused).
    pub answered: [u64; 6],
    /// Requests refused because their source sends too many.
    pub throttled: u64,
    /// Requests refused for want of room, or because we are leaving.
    pub overloaded: u64,
    /// ACKs passed on without state.
    pub acks: u64,
    /// Messages dropped: responses nobody asked for, requests that cannot be read or answered.
    pub dropped: u64,
    /// Requests that came by a second time unchanged.
    pub loops: u64,
}

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

/// A map by numbers that were given away here one after the other, so that nobody can make them meet.
type Ids<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Spreads numbers over a map's buckets.
#[derive(Debug, Clone, Copy, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: a map takes its buckets from one end of the hash and its tags from the other.
        let spread = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ spread >> 32;
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write(&mut self, octets: &[u8]) {
        octets.iter().for_each(|octet| self.write_u8(*octet));
    }
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

    fn on_request(&mut self, server: ServerId, message: Message, source: Source, now: Instant) {
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

    fn decide_from(&mut self, server: Option<ServerId>, message: Message, source: Source, now: Instant) {
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

    fn decide(&mut self, server: Option<ServerId>, message: Message, source: Source, origin: Origin<'_>, now: Instant) {
        let decision = route::decide(&message, origin, &self.config.realm);
        self.carry_out(decision, server, message, source, now);
    }

    fn carry_out(
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
    fn what(&self, plan: &Plan, source: &Source) -> What {
        match &plan.next {
            Next::User { aor, instance } => What::User { aor: aor.clone(), instance: *instance, source: source.remote },
            Next::Proxy => What::Proxy,
            Next::RequestUri(uri) | Next::Route { uri, .. } => {
                What::Uri { uri: Arc::from(uri.as_str()), secure: plan.secure }
            }
        }
    }

    /// Notes a question; what it was about comes back if there are too many.
    fn ask(&mut self, open: Open) -> Result<Question, Box<Open>> {
        if self.open.len() >= MAX_QUESTIONS {
            return Err(Box::new(open));
        }
        self.next += 1;
        let question = Question { shard: self.config.transactions.shard, number: self.next };
        self.open.insert(question, open);
        Ok(question)
    }

    /// There is no room for a question.
    fn refuse(&mut self, open: Open, now: Instant) {
        self.counts.overloaded += 1;
        if let Open::Identity { server: Some(server), message, .. } = open {
            let retry = Some((Name::RetryAfter, RETRY_AFTER.to_owned()));
            self.reject(server, &message, 503, "Overloaded", retry, now);
        }
    }

    fn reject(
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
    fn answer(&mut self, server: ServerId, status: u16, response: Bytes, now: Instant) {
        if let Some(count) = self.counts.answered.get_mut(usize::from(status / 100).saturating_sub(1)) {
            *count += 1;
        }
        // That it is over already is no matter: whoever asked has given up.
        let _ = self.layer.respond(server, response, now);
    }

    /// 503 without any state, for a source that sends too much or when there is no room.
    fn turn_away(&mut self, message: &Message, source: &Source) {
        if matches!(message.method(), Method::Ack | Method::Cancel) {
            return;
        }
        let Ok(via) = message.top_via() else { return };
        let response = respond::respond(message, 503, "Overloaded", Some(&tag()));
        let to = response_target(&via, source);
        self.layer.send(to, response.header(Name::RetryAfter, RETRY_AFTER).finish());
    }

    fn send_stateless(&mut self, message: &Message, source: &Source, status: u16, reason: &str) {
        if let Ok(via) = message.top_via() {
            let response = respond::respond(message, status, reason, Some(&tag())).finish();
            self.layer.send(response_target(&via, source), response);
        }
    }
}

/// The request with what its receiver notes in the topmost Via; `None` if that Via cannot be read, or lies about the
/// peer of an overlay stream.
fn stamped(message: Message, source: &Source) -> Option<Message> {
    match source.remote {
        Remote::Peer(peer) => names_peer(&message.top_via().ok()?, &peer).then_some(message),
        Remote::Socket(address) => match message.top_via().ok()?.stamped(address) {
            Some(via) => message.with_top_via(&via),
            None => Some(message),
        },
    }
}

/// A response as it leaves, if it is one of our phones that gave it.
fn from_phone(adapter: Option<&Adapter>, phone: Option<InstanceId>, message: Message, realm: &Realm) -> Message {
    match (phone, adapter) {
        (Some(phone), Some(adapter)) => adapter.response(&message, &phone, realm).unwrap_or(message),
        _ => message,
    }
}

/// A tag for a response of our own (RFC 3261 §19.3): at least 32 random bits.
fn tag() -> String {
    let bits = getrandom::u64().unwrap_or_default();
    format!("{bits:016x}")
}

#[cfg(test)]
mod tests;
