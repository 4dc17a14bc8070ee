//! The user agent: which message belongs to which call, which next hop a request goes to, and what if that one fails.

mod registrations;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Action, CallId, CallPlan, Event, Failure, NextHop, Pace, Purpose,
    answer::{Answer, AnswerPlan, Setup, has_contact, not_allowed, unsupported},
    call::Call,
    register::{RegisterEvent, Registration},
    session::{answer as answer_with, capabilities, refusal},
};
use crate::sip::{
    Message, Method,
    edit::Edit,
    header::Name,
    respond::{Response, respond},
    transaction::{self, ClientId, Layer, ServerId, Timers, Token},
    transport::{Hop, Protocol, Source, Undelivered},
    uri::{SipUri, Uri},
};

/// Next hops tried for one request.
const MAX_WAYS: usize = 16;

/// How an agent behaves.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The base values of all timers.
    pub timers: Timers,
    /// How long a next hop may stay silent while there is another one to try; a transaction's own patience is 32 s.
    pub hop_timeout: Duration,
    /// What becomes of calls that come in; without a plan they are answered with 480.
    pub answer: Option<AnswerPlan>,
    /// The only user part that is answered; any if not given.
    pub user: Option<String>,
    /// The Contact URI of answers; without one it is made of the address at which a call came in.
    pub contact: Option<String>,
    /// Calls at a time; more are answered with 486.
    pub max_calls: usize,
}

impl Default for AgentConfig {
    /// A caller: no calls are answered.
    fn default() -> Self {
        Self {
            timers: Timers::default(),
            hop_timeout: Duration::from_secs(4),
            answer: None,
            user: None,
            contact: None,
            max_calls: 10_000,
        }
    }
}

/// A next hop, and how we appear there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where to send.
    pub hop: Hop,
    /// Our address as the hop may use it, `host:port`, for Via and Contact.
    pub sent_by: String,
}

/// A question for next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocateId(u64);

/// What the driver is to do.
#[derive(Debug)]
pub enum Output {
    /// Send a message; say [`Agent::transport_failed`] with the token if that fails.
    Send {
        /// Where to.
        to: Hop,
        /// The message.
        bytes: Bytes,
        /// Whose it is.
        token: Token,
    },
    /// Find out where a URI is, and say [`Agent::located`].
    Locate {
        /// The question.
        id: LocateId,
        /// The URI: the first Route of the request, or its Request-URI.
        uri: String,
        /// Whether the request begins a dialog: those go to the outbound proxy, if there is one.
        outbound: bool,
    },
    /// Tell the user.
    Event {
        /// The call.
        call: CallId,
        /// What happened to it.
        event: Event,
    },
    /// Tell the user.
    Registration {
        /// The binding.
        id: CallId,
        /// What happened to it.
        event: RegisterEvent,
    },
}

/// A user agent with its transactions and calls.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    layer: Layer,
    calls: BTreeMap<CallId, Entry>,
    by_tag: HashMap<String, CallId>,
    by_server: HashMap<ServerId, CallId>,
    clients: HashMap<ClientId, Outgoing>,
    locating: BTreeMap<LocateId, Waiting>,
    deadlines: BTreeSet<(Instant, CallId)>,
    outputs: VecDeque<Output>,
    next_id: u64,
    /// Why the message could not be sent that the layer is being told of.
    transport_error: Option<String>,
}

#[derive(Debug)]
struct Entry {
    leg: Leg,
    deadline: Option<Instant>,
    /// The transaction of our INVITE or REGISTER that has no final response.
    pending: Option<ClientId>,
    /// Where our INVITE went, for requests whose next hop cannot be found.
    way: Option<Way>,
    ack: Option<Acked>,
}

#[derive(Debug)]
// Calls are few and live in a map: a box would save nothing.
#[allow(clippy::large_enum_variant)]
enum Leg {
    Caller(Call),
    Callee(Answer),
    Registration(Registration),
}

/// The last ACK of a 2xx, which no transaction repeats.
#[derive(Debug)]
struct Acked {
    /// Without Via.
    request: Message,
    /// As it was sent.
    sent: (Hop, Bytes),
    /// Where else it may go, if it cannot be sent there.
    others: VecDeque<Way>,
}

/// A request on its way.
#[derive(Debug, Clone)]
struct Outgoing {
    call: CallId,
    purpose: Purpose,
    /// Without Via.
    request: Message,
    ways: VecDeque<Way>,
    way: Option<Way>,
    /// Another next hop was tried in its stead.
    abandoned: bool,
}

#[derive(Debug)]
enum Waiting {
    Request(Outgoing),
    Ack { call: CallId, request: Message },
}

impl Agent {
    /// An agent without calls. No time that it is ever told may be before `now`.
    pub fn new(config: AgentConfig, now: Instant) -> Self {
        let layer =
            transaction::Config { timers: config.timers, detect_merged: true, ..transaction::Config::default() };
        Self {
            layer: Layer::new(layer, now),
            config,
            calls: BTreeMap::new(),
            by_tag: HashMap::new(),
            by_server: HashMap::new(),
            clients: HashMap::new(),
            locating: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
            next_id: 0,
            transport_error: None,
        }
    }

    /// How many calls there are.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Whether there is neither a call nor a transaction: nothing would be sent again, or acknowledged.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.layer.is_empty()
    }

    /// Places a call.
    pub fn call(&mut self, plan: CallPlan, now: Instant) -> CallId {
        let id = self.new_call();
        let call = Call::new(plan, self.token(), self.token(), self.pace(), now);
        let tag = call.tag().to_owned();
        self.enter(id, tag, Leg::Caller(call));
        self.with(id, now, |leg, _, out| {
            if let Leg::Caller(call) = leg {
                call.start(out);
            }
        });
        self.turn(now);
        id
    }

    /// The Call-ID of a call that we placed, or of our REGISTERs.
    pub fn call_id(&self, id: CallId) -> Option<&str> {
        match &self.calls.get(&id)?.leg {
            Leg::Caller(call) => Some(call.call_id()),
            Leg::Registration(registration) => Some(registration.call_id()),
            Leg::Callee(_) => None,
        }
    }

    /// Ends a call as it can be ended now: CANCEL, BYE or a refusal.
    pub fn hang_up(&mut self, id: CallId, now: Instant) {
        self.with(id, now, |leg, _, out| match leg {
            Leg::Caller(call) => call.hang_up(now, out),
            Leg::Callee(answer) => answer.hang_up(out),
            Leg::Registration(_) => {}
        });
        self.turn(now);
    }

    /// Ends all calls.
    pub fn hang_up_all(&mut self, now: Instant) {
        for id in self.calls.keys().copied().collect::<Vec<_>>() {
            self.hang_up(id, now);
        }
    }

    /// Takes a message from the network. The topmost Via of a request has `received` and `rport` where they belong.
    pub fn receive(&mut self, message: Message, source: Source, now: Instant) {
        self.layer.receive(message, source, now);
        self.turn(now);
    }

    /// The next hops of a URI, the first to be tried first; or why there are none.
    pub fn located(&mut self, id: LocateId, ways: Result<Vec<Way>, String>, now: Instant) {
        let Some(waiting) = self.locating.remove(&id) else { return };
        match waiting {
            Waiting::Ack { call, request } => {
                self.send_ack(call, request, ways.unwrap_or_default().into());
            }
            Waiting::Request(mut outgoing) => {
                let fallback = self.calls.get(&outgoing.call).and_then(|entry| entry.way.clone());
                match (ways, fallback) {
                    (Ok(ways), _) if !ways.is_empty() => outgoing.ways = ways.into_iter().take(MAX_WAYS).collect(),
                    (_, Some(way)) => outgoing.ways = [way].into(),
                    (Err(why), None) => {
                        return self.fail(outgoing.call, outgoing.purpose, Failure::NotLocated(why), now);
                    }
                    (Ok(_), None) => {}
                }
                self.try_next(outgoing, Failure::NotLocated("it has no address".to_owned()), now);
            }
        }
        self.turn(now);
    }

    /// What was sent with this token could not be delivered to the hop.
    pub fn transport_failed(&mut self, token: Token, hop: &Hop, why: &str, now: Instant) {
        if token == Token::STATELESS {
            self.ack_failed(hop);
        }
        self.transport_error = Some(why.to_owned());
        self.layer.transport_failed(token, now);
        self.turn(now);
        self.transport_error = None;
    }

    /// A datagram did not arrive. Says whether anybody has waited for an answer to it.
    pub fn undelivered(&mut self, undelivered: &Undelivered, now: Instant) -> bool {
        self.transport_error = Some(undelivered.to_string());
        let known = self.layer.undelivered(undelivered, now) || self.ack_undelivered(undelivered);
        self.turn(now);
        self.transport_error = None;
        known
    }

    /// When to call [`Agent::handle_timeout`] next, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let call = self.deadlines.first().map(|(at, _)| *at);
        call.into_iter().chain(self.layer.poll_timeout()).min()
    }

    /// Lets everything happen that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        self.turn(now);
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            if let Some(entry) = self.calls.get_mut(&id) {
                entry.deadline = None;
            }
            self.with(id, now, |leg, _, out| match leg {
                Leg::Caller(call) => call.handle_timeout(now, out),
                Leg::Callee(answer) => answer.handle_timeout(now, out),
                Leg::Registration(registration) => registration.handle_timeout(now, out),
            });
        }
        self.turn(now);
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Works off what the layer says.
    fn turn(&mut self, now: Instant) {
        while let Some(output) = self.layer.poll_output() {
            match output {
                transaction::Output::Send { to, bytes, token } => {
                    self.outputs.push_back(Output::Send { to, bytes, token });
                }
                transaction::Output::Event(event) => self.event(event, now),
            }
        }
    }

    fn event(&mut self, event: transaction::Event, now: Instant) {
        use transaction::Event as Layer;
        match event {
            Layer::Request { server, message, source, merged } => self.request(server, &message, &source, merged, now),
            Layer::Cancel { server, invite, message, .. } => match self.by_server.get(&invite).copied() {
                Some(id) => self.with(id, now, |leg, _, out| {
                    if let Leg::Callee(answer) = leg {
                        answer.cancel(server, &message, out);
                    }
                }),
                // It has its final response already.
                None => self.respond(server, respond(&message, 200, "OK", None), now),
            },
            Layer::StrayCancel { message, source } => {
                let response = refusal(&message, 481, Some(&self.token())).finish();
                self.layer.send(source.way_back(), response);
            }
            Layer::Overload { message, source } => {
                let response = refusal(&message, 503, Some(&self.token())).header(Name::RetryAfter, "5").finish();
                self.layer.send(source.way_back(), response);
            }
            Layer::Ack { message, .. } => {
                if let Some(id) = self.call_of(&message) {
                    self.with(id, now, |leg, _, out| match leg {
                        Leg::Caller(call) => call.ack(&message),
                        Leg::Callee(answer) => answer.ack(&message, now, out),
                        Leg::Registration(_) => {}
                    });
                }
            }
            Layer::Response { client, message, source } => self.response(client, &message, &source, now),
            Layer::Timeout { client } | Layer::Deadline { client } => self.failed(client, Failure::Timeout, now),
            Layer::TransportError { client } => {
                let why = self.transport_error.clone().unwrap_or_else(|| "it could not be sent".to_owned());
                self.failed(client, Failure::Transport(why), now);
            }
            Layer::ClientEnded { client } => {
                self.clients.remove(&client);
            }
            Layer::ServerEnded { server } => {
                self.by_server.remove(&server);
            }
            Layer::StrayResponse { .. } | Layer::NotAcknowledged { .. } | Layer::ResponseFailed { .. } => {}
        }
    }

    fn request(&mut self, server: ServerId, request: &Message, source: &Source, merged: bool, now: Instant) {
        if let Err(fault) = request.check_at_end() {
            let response = respond(request, fault.status, &fault.reason, Some(&self.token()));
            return self.respond(server, response, now);
        }
        let in_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        if in_dialog {
            let response = match self.call_of(request) {
                Some(id) => {
                    return self.with(id, now, |leg, _, out| match leg {
                        Leg::Caller(call) => call.request(server, request, now, out),
                        Leg::Callee(answer) => answer.request(server, request, now, out),
                        // The tag is in no dialog.
                        Leg::Registration(_) => answer_with(server, refusal(request, 481, None), out),
                    });
                }
                None => refusal(request, 481, None),
            };
            return self.respond(server, response, now);
        }
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
            let tag = answer.tag().to_owned();
            self.enter(id, tag, Leg::Callee(answer));
        }
        self.act(id, out, now);
    }

    fn response(&mut self, client: ClientId, response: &Message, source: &Source, now: Instant) {
        let Some(outgoing) = self.clients.get(&client) else { return };
        let (id, purpose, abandoned) = (outgoing.call, outgoing.purpose, outgoing.abandoned);
        let status = response.status().unwrap_or_default();
        let is_success = (200..300).contains(&status);
        if status < 200 {
            // Somebody is there: no other next hop is tried any more.
            self.layer.set_deadline(client, None);
        }
        if status == 503 && !abandoned && !outgoing.ways.is_empty() {
            // RFC 3263 §4.3: as if it could not be reached.
            let outgoing = outgoing.clone();
            return self.try_next(outgoing, Failure::Transport("503".to_owned()), now);
        }
        if abandoned && !is_success {
            return;
        }
        if matches!(purpose, Purpose::Invite | Purpose::Register) && status >= 200 {
            let way = outgoing.way.clone();
            if let Some(entry) = self.calls.get_mut(&id) {
                entry.pending = None;
                entry.way = way.or(entry.way.take());
            }
        }
        self.with(id, now, |leg, token, out| match leg {
            Leg::Caller(call) => call.response(purpose, response, now, token, out),
            Leg::Callee(answer) => answer.response(purpose, response, out),
            Leg::Registration(registration) => registration.response(response, source, now, token, out),
        });
    }

    /// A next hop has failed: the next one is tried, if any is left.
    fn failed(&mut self, client: ClientId, failure: Failure, now: Instant) {
        let Some(outgoing) = self.clients.get_mut(&client) else { return };
        if std::mem::replace(&mut outgoing.abandoned, true) {
            return;
        }
        let wanted = self.calls.get(&outgoing.call).is_some_and(|entry| entry.pending == Some(client));
        if outgoing.purpose == Purpose::Register && !wanted {
            // Nobody waits for it any more.
            return;
        }
        let outgoing = Outgoing { abandoned: false, ..outgoing.clone() };
        // It may have arrived all the same: whoever rings there is to stop.
        self.layer.cancel(client, now);
        self.try_next(outgoing, failure, now);
    }

    /// Sends a request to its next way; `failure` is what came of the one before.
    fn try_next(&mut self, mut outgoing: Outgoing, failure: Failure, now: Instant) {
        let Some(way) = outgoing.ways.pop_front() else {
            return self.fail(outgoing.call, outgoing.purpose, failure, now);
        };
        let branch = self.layer.new_branch(None);
        let template = outgoing.request.clone();
        let mut edit = Edit::new(&template);
        edit.prepend(Name::Via, via(&way, branch.as_str()));
        if outgoing.purpose != Purpose::Bye
            && template.method() == Method::Invite
            && template.header(Name::Contact).is_none()
        {
            let from = template.from().map(|from| from.uri.as_str().to_owned()).unwrap_or_default();
            let secure = is_secure(template.request_uri().unwrap_or_default());
            edit.append(Name::Contact, contact_at(&from, way.hop.protocol, &way.sent_by, secure));
        }
        let hop = way.hop.clone();
        outgoing.way = Some(way);
        match self.layer.request(&branch, template.method(), edit.finish(), hop, now) {
            Ok(client) => {
                if !outgoing.ways.is_empty() {
                    self.layer.set_deadline(client, Some(now + self.config.hop_timeout));
                }
                if matches!(outgoing.purpose, Purpose::Invite | Purpose::Register)
                    && let Some(entry) = self.calls.get_mut(&outgoing.call)
                {
                    entry.pending = Some(client);
                }
                self.clients.insert(client, outgoing);
            }
            Err(error) => self.fail(outgoing.call, outgoing.purpose, Failure::Transport(error.to_string()), now),
        }
    }

    fn fail(&mut self, id: CallId, purpose: Purpose, failure: Failure, now: Instant) {
        self.with(id, now, |leg, _, out| match leg {
            Leg::Caller(call) => call.failed(purpose, failure, out),
            Leg::Callee(answer) => answer.failed(&failure, out),
            Leg::Registration(registration) => registration.failed(failure, now, out),
        });
    }

    fn send_ack(&mut self, call: CallId, request: Message, mut others: VecDeque<Way>) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        // Whoever cannot be found is sought where the INVITE found somebody.
        let Some(way) = others.pop_front().or_else(|| entry.way.clone()) else { return };
        let branch = self.layer.new_branch(None);
        let mut edit = Edit::new(&request);
        edit.prepend(Name::Via, via(&way, branch.as_str()));
        let sent = (way.hop.clone(), edit.finish());
        self.layer.send(way.hop, sent.1.clone());
        entry.ack = Some(Acked { request, sent, others });
    }

    /// ACKs that went to this hop go to the next one: a proxy peer may be gone, and any other one will do.
    fn ack_failed(&mut self, hop: &Hop) {
        let at_hop = |entry: &Entry| {
            let to = entry.ack.as_ref().filter(|ack| !ack.others.is_empty()).map(|ack| &ack.sent.0);
            to.is_some_and(|to| (to.protocol, to.remote) == (hop.protocol, hop.remote))
        };
        let failed: Vec<CallId> = self.calls.iter().filter(|(_, entry)| at_hop(entry)).map(|(id, _)| *id).collect();
        for id in failed {
            if let Some(ack) = self.calls.get_mut(&id).and_then(|entry| entry.ack.take()) {
                self.send_ack(id, ack.request, ack.others);
            }
        }
    }

    /// As [`Layer::undelivered`], for the ACK of a 2xx.
    fn ack_undelivered(&mut self, undelivered: &Undelivered) -> bool {
        let Undelivered { remote, quoted, .. } = undelivered;
        let hop = Hop::socket(Protocol::Udp, *remote);
        let sent = |ack: &Acked| ack.sent.0.remote == hop.remote && ack.sent.1.starts_with(quoted);
        let known = transaction::quoted_branch(quoted).is_some()
            && self.calls.values().any(|entry| entry.ack.as_ref().is_some_and(sent));
        if known {
            self.ack_failed(&hop);
        }
        known
    }

    /// Lets a call do something, and does what it wants.
    fn with(&mut self, id: CallId, now: Instant, work: impl FnOnce(&mut Leg, &str, &mut Vec<Action>)) {
        let token = self.token();
        let Some(entry) = self.calls.get_mut(&id) else { return };
        let mut out = Vec::new();
        work(&mut entry.leg, &token, &mut out);
        self.act(id, out, now);
    }

    fn act(&mut self, id: CallId, actions: Vec<Action>, now: Instant) {
        let mut over = false;
        for action in actions {
            match action {
                Action::Event(event) => {
                    over |= event.is_last();
                    self.outputs.push_back(Output::Event { call: id, event });
                }
                Action::Registration(event) => {
                    let ends = matches!(event, RegisterEvent::Failed { .. });
                    // Whatever is still under way, nobody waits for it any more.
                    if let Some(entry) = self.calls.get_mut(&id).filter(|_| ends) {
                        entry.pending = None;
                    }
                    self.outputs.push_back(Output::Registration { id, event });
                }
                Action::Respond { server, bytes } => {
                    // Too late, or the table has let it go: the other side asks again if it still wants to know.
                    let _ = self.layer.respond(server, bytes, now);
                }
                Action::Request { purpose, request, next_hop } => {
                    if let Some(entry) = self.calls.get_mut(&id).filter(|_| purpose == Purpose::Register) {
                        entry.pending = None;
                    }
                    let outgoing =
                        Outgoing { call: id, purpose, request, ways: VecDeque::new(), way: None, abandoned: false };
                    self.locate(next_hop, Waiting::Request(outgoing));
                }
                Action::Ack { request, next_hop } => {
                    self.locate(NextHop::Uri(next_hop), Waiting::Ack { call: id, request });
                }
                Action::AckAgain => {
                    if let Some((hop, bytes)) =
                        self.calls.get(&id).and_then(|entry| Some(entry.ack.as_ref()?.sent.clone()))
                    {
                        self.layer.send(hop, bytes);
                    }
                }
                Action::Cancel => self.cancel(id, now),
            }
        }
        if over {
            self.forget(id);
        } else {
            self.schedule(id);
        }
    }

    fn cancel(&mut self, id: CallId, now: Instant) {
        let invite = self.calls.get(&id).and_then(|entry| entry.pending);
        if invite.is_some_and(|client| self.layer.cancel(client, now)) {
            // No other next hop is wanted any more.
            if let Some(outgoing) = invite.and_then(|client| self.clients.get_mut(&client)) {
                outgoing.ways.clear();
            }
            return;
        }
        // It was never sent.
        self.locating.retain(|_, waiting| !matches!(waiting, Waiting::Request(outgoing) if outgoing.call == id));
        self.fail(id, Purpose::Invite, Failure::Timeout, now);
    }

    fn locate(&mut self, next_hop: NextHop, waiting: Waiting) {
        let id = LocateId(self.next_id());
        self.locating.insert(id, waiting);
        let (uri, outbound) = match next_hop {
            NextHop::Outbound(uri) => (uri, true),
            NextHop::Uri(uri) => (uri, false),
        };
        self.outputs.push_back(Output::Locate { id, uri, outbound });
    }

    fn enter(&mut self, id: CallId, tag: String, leg: Leg) {
        self.by_tag.insert(tag, id);
        self.calls.insert(id, Entry { leg, deadline: None, pending: None, way: None, ack: None });
    }

    fn forget(&mut self, id: CallId) {
        let Some(entry) = self.calls.remove(&id) else { return };
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, id));
        }
        match entry.leg {
            Leg::Caller(call) => _ = self.by_tag.remove(call.tag()),
            Leg::Registration(registration) => _ = self.by_tag.remove(registration.tag()),
            Leg::Callee(answer) => {
                self.by_tag.remove(answer.tag());
                self.by_server.remove(&answer.server());
            }
        }
    }

    fn schedule(&mut self, id: CallId) {
        let Some(entry) = self.calls.get_mut(&id) else { return };
        let next = match &entry.leg {
            Leg::Caller(call) => call.poll_timeout(),
            Leg::Callee(answer) => answer.poll_timeout(),
            Leg::Registration(registration) => registration.poll_timeout(),
        };
        if next == entry.deadline {
            return;
        }
        if let Some(at) = std::mem::replace(&mut entry.deadline, next) {
            self.deadlines.remove(&(at, id));
        }
        if let Some(at) = next {
            self.deadlines.insert((at, id));
        }
    }

    fn respond(&mut self, server: ServerId, response: Response, now: Instant) {
        // As in `act`.
        let _ = self.layer.respond(server, response.finish(), now);
    }

    /// The call whose tag a received request has in To.
    fn call_of(&self, request: &Message) -> Option<CallId> {
        self.by_tag.get(request.to().ok()?.tag()?).copied()
    }

    fn is_ours(&self, request: &Message) -> bool {
        let Some(user) = &self.config.user else { return true };
        match request.uri() {
            Ok(Uri::Sip(uri)) => uri.user.is_none_or(|own| own == user),
            _ => false,
        }
    }

    fn new_call(&mut self) -> CallId {
        CallId(self.next_id())
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn pace(&self) -> Pace {
        Pace { t1: self.config.timers.t1, t2: self.config.timers.t2 }
    }

    /// A unique text that nobody can guess: the random part of a branch.
    fn token(&mut self) -> String {
        let branch = self.layer.new_branch(None);
        branch.as_str().chars().rev().take(20).collect()
    }
}

fn via(way: &Way, branch: &str) -> String {
    let protocol = way.hop.protocol;
    let rport = if protocol == Protocol::Overlay { "" } else { ";rport" };
    format!("SIP/2.0/{protocol} {};branch={branch}{rport}", way.sent_by)
}

/// The value of a Contact with the user part of `uri` at an address of ours (RFC 3261 §8.1.1.8).
fn contact_at(uri: &str, protocol: Protocol, sent_by: &str, secure: bool) -> String {
    let user = SipUri::parse(uri).ok().and_then(|uri| uri.user).map(|user| format!("{user}@")).unwrap_or_default();
    let scheme = if secure { "sips" } else { "sip" };
    let transport = match protocol {
        Protocol::Tcp => ";transport=tcp",
        Protocol::Tls if !secure => ";transport=tls",
        Protocol::Udp | Protocol::Tls | Protocol::Overlay => "",
    };
    format!("<{scheme}:{user}{sent_by}{transport}>")
}

/// Whether the Contact of whoever answers an INVITE has to be `sips` (RFC 3261 §12.1.1).
pub(super) fn wants_secure_contact(invite: &Message) -> bool {
    let top = invite.record_routes().next().and_then(Result::ok);
    is_secure(invite.request_uri().unwrap_or_default())
        || top.is_some_and(|top| top.uri.sip().is_some_and(|uri| uri.secure))
}

/// The user of the overlay that a Contact names, if the call was for that user by another name: a public AOR of which
/// the overlay URL is a contact (draft §4.2). Then requests of ours are from that name.
fn identity(contact: &str, invite: &Message) -> Option<String> {
    let own = SipUri::parse(contact).ok()?;
    let to = invite.to().ok()?;
    let known = to.uri.sip().is_some_and(|to| to.host == own.host && to.user == own.user);
    (!known).then(|| format!("sip:{}@{}", own.user.unwrap_or_default(), own.host))
}

pub(super) fn is_secure(uri: &str) -> bool {
    SipUri::parse(uri).is_ok_and(|uri| uri.secure)
}

/// The Contact URI with the scheme `sips`, if the dialog is to be secure (RFC 3261 §8.1.1.8, §12.1.1).
pub(super) fn secured(contact: &str, secure: bool) -> String {
    match contact.split_once(':') {
        Some((scheme, rest)) if secure && scheme.eq_ignore_ascii_case("sip") => format!("sips:{rest}"),
        _ => contact.to_owned(),
    }
}
