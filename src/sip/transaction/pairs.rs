//! A client's layer against a server's, over a network that loses, delays, doubles, reorders and refuses.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::sip::{
    Message, Method,
    transaction::tests::{answer, hop, request, source},
    transport::Protocol,
};

/// No datagram is longer under way. What comes after the last transaction that it belongs to has ended would be a new
/// request; the timers rule that out up to half a second.
const MAX_DELAY: u64 = 400;
/// How long a UAC lets it ring.
const PATIENCE: Duration = Duration::from_secs(180);

/// What becomes of one datagram.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives(u64),
    Twice(u64, u64),
    Lost,
    /// The sender is told that it could not be sent.
    Refused,
}

/// What the two TUs do with one call.
#[derive(Debug, Clone)]
struct Script {
    at: u64,
    invite: bool,
    /// Milliseconds from the request to a 180 or 100, if there is to be one.
    ringing: Option<u64>,
    /// Milliseconds from the request to the final response. Nobody leaves an INVITE without one.
    answer: u64,
    status: u16,
    /// When the caller hangs up, after the request.
    cancel: Option<u64>,
}

fn fate() -> impl Strategy<Value = Fate> {
    let delay = 0..=MAX_DELAY;
    prop_oneof![
        6 => delay.clone().prop_map(Fate::Arrives),
        2 => (delay.clone(), delay).prop_map(|(one, other)| Fate::Twice(one, other)),
        3 => Just(Fate::Lost),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let delay = prop_oneof![0u64..1000, 0u64..40_000];
    let status = prop_oneof![Just(200u16), Just(302), Just(486), Just(503), Just(603)];
    (
        0u64..5000,
        any::<bool>(),
        prop::option::of(delay.clone()),
        delay.clone(),
        status,
        prop::option::weighted(0.3, delay),
    )
        .prop_map(|(at, invite, ringing, answer, status, cancel)| Script {
            at,
            invite,
            ringing,
            answer,
            status,
            cancel,
        })
}

#[derive(Debug)]
enum Action {
    Start(usize),
    Cancel(usize),
    ToServer(Bytes),
    ToClient(Bytes),
    Respond(usize, u16),
    /// A UAS sends its 2xx again until the ACK (RFC 3261 §13.3.1.4).
    Again(usize, Duration),
}

#[derive(Debug, Default)]
struct Call {
    client: Option<ClientId>,
    server: Option<ServerId>,
    request: Option<Message>,
    /// Requests that the server's TU saw.
    requests: usize,
    /// What the server's TU answered finally.
    answered: Option<u16>,
    acknowledged: bool,
    answered_at: Option<Instant>,
    /// Responses that the client's TU saw.
    responses: Vec<u16>,
    timeouts: usize,
    errors: usize,
    client_ended: usize,
    server_ended: usize,
    cancelled: bool,
}

struct World {
    client: Layer,
    server: Layer,
    protocol: Protocol,
    fates: Vec<Fate>,
    /// How many copies of each message are lost before one arrives.
    lost_first: usize,
    copies: HashMap<Bytes, usize>,
    packets: usize,
    now: Instant,
    agenda: BTreeMap<(Instant, usize), Action>,
    scripts: Vec<Script>,
    calls: Vec<Call>,
    not_acknowledged: usize,
}

impl World {
    fn new(protocol: Protocol, fates: Vec<Fate>, scripts: Vec<Script>) -> Self {
        let now = Instant::now();
        let config = Config { detect_merged: true, ..Config::default() };
        let mut world = Self {
            client: Layer::new(config.clone(), now),
            server: Layer::new(config, now),
            protocol,
            fates,
            lost_first: 0,
            copies: HashMap::new(),
            packets: 0,
            now,
            agenda: BTreeMap::new(),
            calls: scripts.iter().map(|_| Call::default()).collect(),
            scripts,
            not_acknowledged: 0,
        };
        for call in 0..world.scripts.len() {
            world.later(world.scripts[call].at, Action::Start(call));
        }
        world
    }

    fn later(&mut self, after: u64, action: Action) {
        let number =
            self.agenda.last_key_value().map_or(0, |((_, number), _)| *number) + self.packets + self.agenda.len();
        let mut key = (self.now + Duration::from_millis(after), number);
        while self.agenda.contains_key(&key) {
            key.1 += 1;
        }
        self.agenda.insert(key, action);
    }

    /// Runs until nothing is left to happen.
    fn run(&mut self) {
        for _ in 0..100_000 {
            let timers = [self.client.poll_timeout(), self.server.poll_timeout()];
            let agenda = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timers.into_iter().flatten().chain(agenda).min() else { return };
            self.now = self.now.max(next);
            if agenda == Some(next) {
                let (_, action) = self.agenda.pop_first().unwrap();
                self.act(action);
            }
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            self.drain();
        }
        panic!("the world does not come to rest");
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start(call) => self.start(call),
            Action::Cancel(call) => {
                if let Some(client) = self.calls[call].client {
                    self.calls[call].cancelled |= self.client.cancel(client, self.now);
                }
            }
            Action::ToServer(bytes) => {
                self.server.receive(Message::parse(bytes).unwrap(), source(self.protocol), self.now);
            }
            Action::ToClient(bytes) => {
                self.client.receive(Message::parse(bytes).unwrap(), source(self.protocol), self.now);
            }
            Action::Respond(call, status) => self.respond(call, status),
            Action::Again(call, interval) => {
                let state = &self.calls[call];
                let (server, message) = (state.server.unwrap(), state.request.clone().unwrap());
                if state.acknowledged || self.now - state.answered_at.unwrap() > Duration::from_secs(32) {
                    return;
                }
                // The transaction may just have ended; then so has the UAS's patience.
                let _ = self.server.respond(server, answer(&message, 200), self.now);
                let next = (interval * 2).min(Duration::from_secs(4));
                self.later(next.as_millis() as u64, Action::Again(call, next));
            }
        }
    }

    fn start(&mut self, call: usize) {
        let script = self.scripts[call].clone();
        let method = if script.invite { Method::Invite } else { Method::Options };
        let branch = self.client.new_branch(Some(call as u64));
        let via = format!("{} here.example.com;branch={branch}", self.protocol);
        let message = request(method.as_str(), &via, &call.to_string());
        let bytes = message.bytes().clone();
        let client = self.client.request(&branch, method, bytes, hop(self.protocol), self.now).unwrap();
        self.calls[call].client = Some(client);
        self.client.set_deadline(client, Some(self.now + PATIENCE));
        if let Some(cancel) = script.cancel {
            self.later(cancel, Action::Cancel(call));
        }
    }

    fn respond(&mut self, call: usize, status: u16) {
        let state = &mut self.calls[call];
        if state.answered.is_some() {
            return;
        }
        let (server, message) = (state.server.unwrap(), state.request.clone().unwrap());
        if status >= 200 {
            state.answered = Some(status);
            state.answered_at = Some(self.now);
        }
        let sent = self.server.respond(server, answer(&message, status), self.now);
        if self.scripts[call].invite {
            assert_eq!(sent, Ok(()), "nothing ends an INVITE before its answer");
            if status == 200 {
                self.later(500, Action::Again(call, Duration::from_millis(500)));
            }
        } else if sent.is_err() && status >= 200 {
            self.calls[call].answered = None;
        }
    }

    fn drain(&mut self) {
        loop {
            if let Some(output) = self.client.poll_output() {
                match output {
                    Output::Send { bytes, token, .. } => self.carry(bytes, token, true),
                    Output::Event(event) => self.client_event(event),
                }
            } else if let Some(output) = self.server.poll_output() {
                match output {
                    Output::Send { bytes, token, .. } => self.carry(bytes, token, false),
                    Output::Event(event) => self.server_event(event),
                }
            } else {
                return;
            }
        }
    }

    fn carry(&mut self, bytes: Bytes, token: Token, to_server: bool) {
        let fate = match self.fates[self.packets % self.fates.len()] {
            Fate::Refused => Fate::Refused,
            // A stream keeps the order.
            _ if self.protocol.is_reliable() => Fate::Arrives(20),
            fate => fate,
        };
        self.packets += 1;
        let copies = self.copies.entry(bytes.clone()).or_default();
        *copies += 1;
        if *copies <= self.lost_first {
            return;
        }
        let action = |bytes| if to_server { Action::ToServer(bytes) } else { Action::ToClient(bytes) };
        match fate {
            Fate::Arrives(after) => self.later(after, action(bytes)),
            Fate::Twice(one, other) => {
                self.later(one, action(bytes.clone()));
                self.later(other, action(bytes));
            }
            Fate::Lost => {}
            Fate::Refused if to_server => self.client.transport_failed(token, self.now),
            Fate::Refused => self.server.transport_failed(token, self.now),
        }
    }

    fn call_of(message: &Message) -> usize {
        message.call_id().unwrap().parse().unwrap()
    }

    fn client_call(&mut self, client: ClientId) -> &mut Call {
        self.calls.iter_mut().find(|call| call.client == Some(client)).unwrap()
    }

    fn client_event(&mut self, event: Event) {
        match event {
            Event::Response { client, message, .. } => {
                let status = message.status().unwrap();
                let call = Self::call_of(&message);
                assert_eq!(self.calls[call].client, Some(client));
                assert_eq!(self.calls[call].client_ended, 0, "the end is the end");
                self.calls[call].responses.push(status);
                if status == 200 && self.scripts[call].invite {
                    let via = format!("{} here.example.com;branch=z9hG4bKack{call}", self.protocol);
                    let ack = request("ACK", &via, &call.to_string());
                    self.client.send(hop(self.protocol), ack.bytes().clone());
                }
            }
            Event::Timeout { client } => self.client_call(client).timeouts += 1,
            Event::TransportError { client } => self.client_call(client).errors += 1,
            Event::ClientEnded { client } => self.client_call(client).client_ended += 1,
            Event::Deadline { client } => assert!(self.client.cancel(client, self.now)),
            // A copy that arrives after all.
            Event::StrayResponse { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn server_event(&mut self, event: Event) {
        match event {
            Event::Request { server, message, merged, .. } => {
                let call = Self::call_of(&message);
                assert!(!merged);
                let script = self.scripts[call].clone();
                let state = &mut self.calls[call];
                state.requests += 1;
                state.server = Some(server);
                state.request = Some(message);
                if let Some(ringing) = script.ringing.filter(|ringing| *ringing < script.answer) {
                    self.later(ringing, Action::Respond(call, if script.invite { 180 } else { 100 }));
                }
                self.later(script.answer, Action::Respond(call, script.status));
            }
            Event::Cancel { server, invite, message, .. } => {
                let call = Self::call_of(&message);
                assert_eq!(self.calls[call].server, Some(invite));
                assert!(self.calls[call].cancelled || self.scripts[call].invite);
                self.server.respond(server, answer(&message, 200), self.now).unwrap();
                self.respond(call, 487);
            }
            Event::Ack { message, invite, .. } => {
                assert_eq!(invite, None);
                let call = Self::call_of(&message);
                self.calls[call].acknowledged = true;
            }
            Event::ServerEnded { server } => {
                if let Some(call) = self.calls.iter_mut().find(|call| call.server == Some(server)) {
                    call.server_ended += 1;
                }
            }
            Event::NotAcknowledged { .. } => self.not_acknowledged += 1,
            Event::ResponseFailed { .. } | Event::StrayCancel { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// What holds whatever the network does.
    fn check(&self) {
        self.client.assert_empty();
        self.server.assert_empty();
        for (call, script) in self.calls.iter().zip(&self.scripts) {
            assert_eq!(call.client_ended, 1, "{call:?}");
            assert_eq!(call.server_ended, call.requests, "{call:?}");
            // After a transport error a server of another request than INVITE has forgotten it (RFC 3261 §17.2.4).
            let forgets = !script.invite && self.fates.iter().any(|fate| matches!(fate, Fate::Refused));
            assert!(call.requests <= 1 || forgets, "the TU sees a request once: {call:?}");
            let finals: Vec<u16> = call.responses.iter().copied().filter(|status| *status >= 200).collect();
            for status in &finals {
                assert_eq!(Some(*status), call.answered, "{call:?}");
            }
            let several = script.invite && finals.first() == Some(&200);
            assert!(several || finals.len() <= 1, "a final response is told once: {call:?}");
            if let Some(first) = call.responses.iter().position(|status| *status >= 200) {
                assert!(call.responses[first..].iter().all(|status| *status >= 200), "{call:?}");
            }
            assert!(call.timeouts + call.errors <= 1, "{call:?}");
            let outcomes = usize::from(!finals.is_empty()) + call.timeouts;
            // A failure's ACK that cannot be sent is an error after the response.
            assert!(outcomes == 1 || (outcomes == 0 && call.errors == 1), "{call:?}");
            if !script.invite {
                assert!(call.responses.iter().all(|status| *status == 100 || *status >= 200), "{call:?}");
            }
        }
    }

    /// What holds if what is sent often enough arrives. A request other than INVITE has to be answered some time before
    /// timer F, `patience` milliseconds after it was sent.
    fn check_answers(&self, patience: u64) {
        assert_eq!(self.not_acknowledged, 0);
        for (call, script) in self.calls.iter().zip(&self.scripts) {
            assert_eq!((call.requests, call.errors), (1, 0), "{call:?}");
            if script.invite || script.answer < patience {
                assert_eq!(call.responses.last().copied(), call.answered, "{call:?}");
                let expected = if call.cancelled { [script.status, 487] } else { [script.status; 2] };
                assert!(call.answered.is_some_and(|status| expected.contains(&status)), "{call:?}");
            }
            if call.answered == Some(200) && script.invite {
                assert!(call.acknowledged, "{call:?}");
            }
        }
    }
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![3 => Just(Protocol::Udp), 1 => Just(Protocol::Tcp), 1 => Just(Protocol::Overlay)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_transaction_ends_and_says_its_outcome_once(
        protocol in protocol(),
        fates in prop::collection::vec(prop_oneof![20 => fate(), 1 => Just(Fate::Refused)], 1..80),
        scripts in prop::collection::vec(script(), 1..6),
    ) {
        let mut world = World::new(protocol, fates, scripts);
        world.run();
        world.check();
    }

    #[test]
    fn without_loss_every_answer_arrives(
        protocol in protocol(),
        fates in prop::collection::vec(fate().prop_map(|fate| match fate {
            Fate::Lost | Fate::Refused => Fate::Arrives(0),
            other => other,
        }), 1..80),
        scripts in prop::collection::vec(script(), 1..6),
    ) {
        let mut world = World::new(protocol, fates, scripts);
        world.run();
        world.check();
        world.check_answers(31_000);
    }

    #[test]
    fn retransmissions_make_up_for_what_is_lost(
        lost_first in 1usize..=2,
        fates in prop::collection::vec((0..=MAX_DELAY).prop_map(Fate::Arrives), 1..80),
        scripts in prop::collection::vec(script(), 1..6),
    ) {
        let mut world = World::new(Protocol::Udp, fates, scripts);
        world.lost_first = lost_first;
        world.run();
        world.check();
        world.check_answers(10_000);
    }
}
