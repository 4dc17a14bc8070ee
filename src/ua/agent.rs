//! The user agent: which message belongs to which call, and what is done of what a call wants.

mod incoming;
mod leg;
mod outgoing;
mod registrations;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

pub use self::outgoing::{LocateId, Way};
use self::{
    leg::Leg,
    outgoing::{Acked, Outgoing, Waiting},
};
use super::{
    Action, CallId, CallPlan, Event, Failure, NextHop, Pace, Purpose, answer::AnswerPlan, call::Call,
    register::RegisterEvent, session::refusal,
};
use crate::sip::{
    Message,
    header::Name,
    respond::respond,
    transaction::{self, ClientId, Layer, ServerId, Timers, Token},
    transport::{Hop, Source, Undelivered},
};

/// How an agent behaves.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The base values of all timers.
    pub timers: Timers,
    /// How long a next hop may stay silent while there is another one to try; a transaction's own patience is 32 s.
    pub hop_timeout: Duration,
    /// How long the last next hop of an INVITE may stay silent, if less than a transaction's own patience.
    pub patience: Option<Duration>,
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
            patience: None,
            answer: None,
            user: None,
            contact: None,
            max_calls: 10_000,
        }
    }
}

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
        self.enter(id, Leg::Caller(call));
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
        self.calls.get(&id)?.leg.call_id()
    }

    /// Ends a call as it can be ended now: CANCEL, BYE or a refusal.
    pub fn hang_up(&mut self, id: CallId, now: Instant) {
        self.with(id, now, |leg, _, out| leg.hang_up(now, out));
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
            self.with(id, now, |leg, _, out| leg.handle_timeout(now, out));
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
                    self.with(id, now, |leg, _, out| leg.ack(&message, now, out));
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
                    // As in `respond`.
                    let _ = self.layer.respond(server, bytes, now);
                }
                Action::Request { purpose, request, next_hop } => {
                    if let Some(entry) = self.calls.get_mut(&id).filter(|_| purpose == Purpose::Register) {
                        entry.pending = None;
                    }
                    self.locate(next_hop, Waiting::Request(Outgoing::new(id, purpose, request)));
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

    fn enter(&mut self, id: CallId, leg: Leg) {
        self.by_tag.insert(leg.tag().to_owned(), id);
        self.calls.insert(id, Entry { leg, deadline: None, pending: None, way: None, ack: None });
    }

    fn forget(&mut self, id: CallId) {
        let Some(entry) = self.calls.remove(&id) else { return };
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, id));
        }
        self.by_tag.remove(entry.leg.tag());
        if let Leg::Callee(answer) = &entry.leg {
            self.by_server.remove(&answer.server());
        }
    }

    fn schedule(&mut self, id: CallId) {
        let Some(entry) = self.calls.get_mut(&id) else { return };
        let next = entry.leg.poll_timeout();
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
