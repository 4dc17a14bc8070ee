//! Two user agents and a network between them that is late, loses and answers in their stead; time is virtual.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::*;
use crate::{
    media::sdp::Local,
    sip::{
        Message, Method,
        digest::User,
        header::Name,
        respond::respond,
        transport::{FlowId, Hop, Protocol, Source, Undelivered},
        uri::SipUri,
    },
};

const ALICE: &str = "192.0.2.1:5060";
const BOB: &str = "192.0.2.2:5060";
const LATENCY: Duration = Duration::from_millis(10);
/// Longer than any timer: what is still going on then never ends.
const FOREVER: Duration = Duration::from_secs(300);

type Meddler = Box<dyn FnMut(&Message, SocketAddr) -> Verdict>;

/// What becomes of a message.
enum Verdict {
    Pass,
    Lose,
    /// It never arrives, and this comes back.
    Answer(Bytes),
    /// Nobody listens there, as ICMP says.
    Return,
}

struct World {
    now: Instant,
    began: Instant,
    agents: Vec<(SocketAddr, Agent)>,
    flying: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Bytes)>,
    sent: u64,
    events: Vec<(SocketAddr, CallId, Event)>,
    bindings: Vec<RegisterEvent>,
    /// The first lines of all messages that arrived.
    seen: Vec<String>,
    /// All messages that were sent.
    log: Vec<Message>,
    meddle: Meddler,
    /// Where a host is, if not at the address in the URI.
    ways: BTreeMap<String, Vec<SocketAddr>>,
}

impl World {
    fn new(answer: AnswerPlan) -> Self {
        let now = Instant::now();
        let callee = AgentConfig { answer: Some(answer), user: Some("bob".to_owned()), ..AgentConfig::default() };
        let agents = vec![
            (ALICE.parse().unwrap(), Agent::new(AgentConfig::default(), now)),
            (BOB.parse().unwrap(), Agent::new(callee, now)),
        ];
        Self {
            now,
            began: now,
            agents,
            flying: BTreeMap::new(),
            sent: 0,
            events: Vec::new(),
            bindings: Vec::new(),
            seen: Vec::new(),
            log: Vec::new(),
            meddle: Box::new(|_, _| Verdict::Pass),
            ways: BTreeMap::new(),
        }
    }

    fn call(&mut self, plan: CallPlan) -> CallId {
        let now = self.now;
        let id = self.agents[0].1.call(plan, now);
        self.drain();
        id
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let message = Message::parse(bytes.clone()).unwrap();
        self.sent += 1;
        self.log.push(message.clone());
        match (self.meddle)(&message, to) {
            Verdict::Pass => _ = self.flying.insert((self.now + LATENCY, self.sent), (from, to, bytes)),
            Verdict::Lose => {}
            Verdict::Answer(answer) => _ = self.flying.insert((self.now + LATENCY, self.sent), (to, from, answer)),
            Verdict::Return => {
                let why = "nobody listens there";
                let undelivered = Undelivered { remote: to, why, quoted: bytes.slice(..bytes.len().min(500)) };
                let sender = self.agents.iter_mut().find(|(own, _)| *own == from);
                assert!(sender.unwrap().1.undelivered(&undelivered, self.now));
            }
        }
    }

    fn drain(&mut self) {
        for index in 0..self.agents.len() {
            let own = self.agents[index].0;
            while let Some(output) = self.agents[index].1.poll_output() {
                match output {
                    Output::Send { to, bytes, .. } => {
                        let crate::sip::transport::Remote::Socket(to) = to.remote else { unreachable!() };
                        self.send(own, to, bytes);
                    }
                    Output::Locate { id, uri, .. } => {
                        let uri = SipUri::parse(&uri).unwrap();
                        let name = uri.host.to_string();
                        let ways = match (self.ways.get(&name), uri.host.ip()) {
                            (Some(ways), _) => Ok(ways.clone()),
                            (None, Some(ip)) => Ok(vec![SocketAddr::new(ip, uri.port.unwrap_or(5060))]),
                            (None, None) => Err(format!("{name} does not exist")),
                        };
                        let way = |to| Way { hop: Hop::socket(Protocol::Udp, to), sent_by: own.to_string() };
                        let ways = ways.map(|ways| ways.into_iter().map(way).collect());
                        self.agents[index].1.located(id, ways, self.now);
                    }
                    Output::Event { call, event } => self.events.push((own, call, event)),
                    Output::Registration { event, .. } => self.bindings.push(event),
                }
            }
        }
    }

    /// Lets the next thing happen, if it does so within `limit` of the beginning.
    fn step(&mut self, limit: Duration) -> bool {
        let timer = self.agents.iter().filter_map(|(_, agent)| agent.poll_timeout()).min();
        let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = timer.into_iter().chain(arrival).min() else { return false };
        if next > self.began + limit {
            return false;
        }
        self.now = self.now.max(next);
        let now = self.now;
        if arrival == Some(next) {
            let (_, (from, to, bytes)) = self.flying.pop_first().unwrap();
            let message = Message::parse(bytes).unwrap();
            self.seen.push(first_line(&message));
            if let Some((own, agent)) = self.agents.iter_mut().find(|(own, _)| *own == to) {
                agent.receive(message, Source::socket(Protocol::Udp, from, *own, FlowId(1)), now);
            }
        } else {
            for (_, agent) in &mut self.agents {
                agent.handle_timeout(now);
            }
        }
        self.drain();
        true
    }

    fn run(&mut self, limit: Duration) {
        while self.step(limit) {}
    }

    /// Runs until an event of this sort has happened at this agent.
    fn run_until(&mut self, at: &str, wanted: impl Fn(&Event) -> bool) {
        let at: SocketAddr = at.parse().unwrap();
        while !self.events.iter().any(|(own, _, event)| *own == at && wanted(event)) {
            assert!(self.step(FOREVER), "it never happened: {:?}", self.events);
        }
    }

    fn events(&self, at: &str) -> Vec<Event> {
        let at: SocketAddr = at.parse().unwrap();
        self.events.iter().filter(|(own, _, _)| *own == at).map(|(_, _, event)| event.clone()).collect()
    }

    fn names(&self, at: &str) -> Vec<String> {
        let name = |event: &Event| match event {
            Event::Incoming { .. } => "incoming".to_owned(),
            Event::Progress { status, .. } => status.to_string(),
            Event::Answered { .. } => "answered".to_owned(),
            Event::Rejected { status, .. } => format!("rejected {status}"),
            Event::Failed(_) => "failed".to_owned(),
            Event::Cancelled(side) => format!("cancelled by {side:?}"),
            Event::Reinvited { status } => format!("reinvited {status}"),
            Event::Refreshed => "refreshed".to_owned(),
            Event::Ended { by, fault } => format!("ended by {by:?}{}", if fault.is_some() { ", at fault" } else { "" }),
        };
        self.events(at).iter().map(name).collect()
    }

    fn is_idle(&self) -> bool {
        self.agents.iter().all(|(_, agent)| agent.is_idle())
    }

    /// Sends a request from nowhere to bob and returns the first lines of what comes back.
    fn ask(&mut self, head: &str) -> Vec<String> {
        let text = format!(
            "{head}\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK{}\r\nFrom: <sip:x@y.example>;tag=1\r\n\
             Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            self.sent
        );
        let seen = self.seen.len();
        self.send("192.0.2.9:5060".parse().unwrap(), BOB.parse().unwrap(), Bytes::from(text));
        let limit = self.now - self.began + Duration::from_millis(200);
        self.run(limit);
        self.seen[seen + 1..].to_vec()
    }
}

fn first_line(message: &Message) -> String {
    match (message.status(), message.request_uri()) {
        (Some(status), _) => format!("{status} {}", message.method()),
        (None, _) => message.method().to_string(),
    }
}

fn plan() -> CallPlan {
    CallPlan {
        target: "sip:bob@192.0.2.2".to_owned(),
        from: "sip:alice@example.org".to_owned(),
        contact: None,
        routes: Vec::new(),
        user: None,
        hold: Some(Duration::from_secs(2)),
        ring: Duration::from_secs(60),
        reinvite: None,
        media: Local::without_media(7),
        user_agent: "test".to_owned(),
    }
}

fn answer(ring: u64, status: u16) -> AnswerPlan {
    AnswerPlan {
        ring: Duration::from_millis(ring),
        status,
        hold: None,
        media: Local::without_media(9),
        user_agent: "test".to_owned(),
    }
}

#[test]
fn a_call_rings_is_answered_held_and_ended() {
    let mut world = World::new(answer(100, 200));
    world.call(plan());
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["180", "answered", "ended by Us"]);
    assert_eq!(world.names(BOB), ["incoming", "180", "answered", "ended by Them"]);
    assert_eq!(world.seen, ["INVITE", "180 INVITE", "200 INVITE", "ACK", "BYE", "200 BYE"]);
    assert!(world.is_idle());
    let Event::Answered { contact } = &world.events(ALICE)[1] else { panic!() };
    assert_eq!(contact, "sip:bob@192.0.2.2:5060");
    let Event::Incoming { from, uri, .. } = &world.events(BOB)[0] else { panic!() };
    assert_eq!((from.as_str(), uri.as_str()), ("sip:alice@example.org", "sip:bob@192.0.2.2"));
}

#[test]
fn calls_survive_a_network_that_loses_a_third() {
    let mut on = 0;
    for seed in 1..=150_u64 {
        let mut world = World::new(answer(500, 200));
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        world.meddle = Box::new(move |_, _| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random % 3 == 0 { Verdict::Lose } else { Verdict::Pass }
        });
        let again = if seed % 2 == 0 { Some(Duration::from_secs(1)) } else { None };
        world.call(CallPlan { reinvite: again, ..plan() });
        world.run(FOREVER);
        for at in [ALICE, BOB] {
            let events = world.events(at);
            assert!(events.iter().filter(|event| event.is_last()).count() <= 1, "seed {seed}: {events:?}");
        }
        assert!(world.events(ALICE).last().unwrap().is_last(), "seed {seed}: {:?}", world.names(ALICE));
        assert!(world.is_idle(), "seed {seed}: {:?}", world.names(BOB));
        on += u32::from(world.names(ALICE).contains(&"answered".to_owned()));
    }
    assert!(on >= 148, "of 150 calls {on} came about");
}

#[test]
fn a_busy_callee_says_so() {
    let mut world = World::new(answer(0, 486));
    world.call(plan());
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["rejected 486"]);
    assert_eq!(world.names(BOB), ["incoming", "rejected 486"]);
    assert_eq!(world.seen, ["INVITE", "486 INVITE", "ACK"]);
    assert!(world.is_idle());
}

#[test]
fn a_call_can_be_cancelled_while_it_rings() {
    let mut world = World::new(answer(10_000, 200));
    let id = world.call(plan());
    world.run_until(ALICE, |event| matches!(event, Event::Progress { .. }));
    let now = world.now;
    world.agents[0].1.hang_up(id, now);
    world.drain();
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["180", "cancelled by Us"]);
    assert_eq!(world.names(BOB), ["incoming", "180", "cancelled by Them"]);
    assert_eq!(world.seen, ["INVITE", "180 INVITE", "CANCEL", "200 CANCEL", "487 INVITE", "ACK"]);
    assert!(world.is_idle());
}

#[test]
fn a_call_cancelled_before_any_response_is_cancelled_at_the_first_one() {
    let mut world = World::new(answer(10_000, 200));
    let id = world.call(plan());
    let now = world.now;
    world.agents[0].1.hang_up(id, now);
    world.drain();
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["cancelled by Us"]);
    assert_eq!(world.seen, ["INVITE", "180 INVITE", "CANCEL", "200 CANCEL", "487 INVITE", "ACK"]);
    assert!(world.is_idle());
}

#[test]
fn nobody_waits_for_a_call_that_is_given_up_in_silence() {
    let mut world = World::new(answer(0, 200));
    world.meddle = Box::new(|_, _| Verdict::Lose);
    let id = world.call(CallPlan { ring: Duration::from_secs(3), ..plan() });
    world.run_until(ALICE, Event::is_last);
    assert_eq!(world.events(ALICE), [Event::Failed(Failure::Timeout)]);
    assert_eq!(world.now - world.began, Duration::from_secs(4));
    assert!(world.agents[0].1.call_id(id).is_none());
    world.run(FOREVER);
    assert!(world.is_idle());
}

#[test]
fn a_2xx_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let mut world = World::new(answer(100, 200));
    let id = world.call(plan());
    world.run_until(BOB, |event| matches!(event, Event::Progress { .. }));
    world.run(Duration::from_millis(115));
    let now = world.now;
    world.agents[0].1.hang_up(id, now);
    world.drain();
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["180", "ended by Us"]);
    assert_eq!(world.names(BOB), ["incoming", "180", "answered", "ended by Them"]);
    assert!(world.is_idle());
}

#[test]
fn nobody_waits_longer_than_asked_for() {
    let mut world = World::new(answer(60_000, 200));
    world.call(CallPlan { ring: Duration::from_secs(3), ..plan() });
    world.run(FOREVER);
    assert_eq!(world.events(ALICE).last(), Some(&Event::Failed(Failure::Timeout)));
    assert_eq!(world.names(BOB), ["incoming", "180", "cancelled by Them"]);
    assert!(world.is_idle());
}

#[test]
fn a_caller_may_have_less_patience_with_silence_than_a_transaction_and_none_the_less_with_ringing() {
    let mut world = World::new(answer(8_000, 200));
    world.agents[0].1 =
        Agent::new(AgentConfig { patience: Some(Duration::from_secs(2)), ..AgentConfig::default() }, world.now);
    world.call(plan());
    world.run_until(ALICE, |event| matches!(event, Event::Answered { .. }));
    let mut world = World::new(answer(0, 200));
    world.agents[0].1 =
        Agent::new(AgentConfig { patience: Some(Duration::from_secs(2)), ..AgentConfig::default() }, world.now);
    world.meddle = Box::new(|_, _| Verdict::Lose);
    world.call(plan());
    world.run_until(ALICE, Event::is_last);
    assert_eq!(world.events(ALICE), [Event::Failed(Failure::Timeout)]);
    assert_eq!(world.now - world.began, Duration::from_secs(2));
}

#[test]
fn silence_is_a_failure_after_32_seconds() {
    let mut world = World::new(answer(0, 200));
    world.meddle = Box::new(|_, _| Verdict::Lose);
    world.call(plan());
    world.run(FOREVER);
    assert_eq!(world.events(ALICE), [Event::Failed(Failure::Timeout)]);
    assert_eq!(world.now - world.began, Duration::from_secs(32));
    assert!(world.is_idle());
}

#[test]
fn a_host_that_does_not_exist_is_a_failure_at_once() {
    let mut world = World::new(answer(0, 200));
    world.call(CallPlan { target: "sip:bob@nowhere.example".to_owned(), ..plan() });
    assert_eq!(world.events(ALICE), [Event::Failed(Failure::NotLocated("nowhere.example does not exist".to_owned()))]);
    assert!(world.is_idle());
}

#[test]
fn the_next_hop_is_tried_when_one_is_silent_or_overloaded() {
    let dead: SocketAddr = "192.0.2.3:5060".parse().unwrap();
    for overloaded in [false, true] {
        let mut world = World::new(answer(0, 200));
        world.ways.insert("example.com".to_owned(), vec![dead, BOB.parse().unwrap()]);
        world.meddle = Box::new(move |message, to| match (to == dead, message.is_request()) {
            (true, true) if overloaded && message.method() == Method::Invite => {
                Verdict::Answer(respond(message, 503, "Service Unavailable", Some("x")).finish())
            }
            (true, _) => Verdict::Lose,
            _ => Verdict::Pass,
        });
        world.call(CallPlan { target: "sip:bob@example.com".to_owned(), ..plan() });
        world.run_until(ALICE, |event| matches!(event, Event::Answered { .. }));
        let took = world.now - world.began;
        assert_eq!(took < Duration::from_secs(1), overloaded, "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        world.run(FOREVER);
        assert_eq!(world.names(ALICE), ["answered", "ended by Us"]);
        assert!(world.is_idle());
    }
}

#[test]
fn a_port_where_nobody_listens_costs_no_request_any_time() {
    let dead: SocketAddr = "192.0.2.3:5060".parse().unwrap();
    let mut world = World::new(answer(0, 200));
    world.meddle = Box::new(move |_, to| if to == dead { Verdict::Return } else { Verdict::Pass });
    // The ACK, which has no transaction, is no exception.
    world.ways.insert("192.0.2.2".to_owned(), vec![dead, BOB.parse().unwrap()]);
    world.call(CallPlan { hold: Some(Duration::ZERO), ..plan() });
    world.run_until(BOB, |event| matches!(event, Event::Ended { .. }));
    let took = world.now - world.began;
    assert!(took < Duration::from_millis(500), "{took:?}");
    world.run(FOREVER);
    assert_eq!(world.seen, ["INVITE", "200 INVITE", "ACK", "BYE", "200 BYE"]);
    assert_eq!(world.names(ALICE), ["answered", "ended by Us"]);

    world.ways.insert("192.0.2.2".to_owned(), vec![dead]);
    let (began, events) = (world.now, world.events(ALICE).len());
    world.call(plan());
    let why = "cannot send to UDP 192.0.2.3:5060: nobody listens there".to_owned();
    assert_eq!(world.events(ALICE)[events..], [Event::Failed(Failure::Transport(why))]);
    assert_eq!(world.now, began);
    assert!(world.is_idle());
}

#[test]
fn a_refusal_for_good_stops_the_search() {
    let mut world = World::new(answer(0, 603));
    world.ways.insert("example.com".to_owned(), vec![BOB.parse().unwrap(), "192.0.2.3:5060".parse().unwrap()]);
    world.call(CallPlan { target: "sip:bob@example.com".to_owned(), ..plan() });
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["rejected 603"]);
    assert_eq!(world.seen, ["INVITE", "603 INVITE", "ACK"]);
}

/// Challenges requests but ACK and CANCEL, and checks credentials with another implementation of digest.
fn guard(password: &'static str) -> Meddler {
    let challenge = "Digest realm=\"example.com\", qop=\"auth\", nonce=\"n1\", algorithm=SHA-256";
    Box::new(move |message, to| {
        if to != BOB.parse().unwrap()
            || !matches!(message.method(), Method::Invite | Method::Bye)
            || !message.is_request()
        {
            return Verdict::Pass;
        }
        let refuse =
            || respond(message, 401, "Unauthorized", Some("g")).header(Name::WwwAuthenticate, challenge).finish();
        let Some(Ok((_, given))) = message.credentials().next().map(|(name, value)| value.map(|value| (name, value)))
        else {
            return Verdict::Answer(refuse());
        };
        let text = |name| given.text(name).unwrap().into_owned();
        let method = digest_auth::HttpMethod::from(message.method().as_str());
        let uri = message.request_uri().unwrap().to_owned();
        let mut context =
            digest_auth::AuthContext::new_with_method("alice", password, &uri, Some(message.body()), method);
        context.set_custom_cnonce(text("cnonce"));
        let mut prompt = digest_auth::parse(challenge).unwrap();
        let count = u32::from_str_radix(&text("nc"), 16).unwrap();
        let expected = (0..count).map(|_| prompt.respond(&context).unwrap()).last().unwrap();
        if text("response") == expected.response { Verdict::Pass } else { Verdict::Answer(refuse()) }
    })
}

#[test]
fn a_challenge_is_answered_for_invite_reinvite_and_bye() {
    let mut world = World::new(answer(0, 200));
    world.meddle = guard("secret");
    let user = User { name: "alice".to_owned(), password: "secret".to_owned() };
    world.call(CallPlan { user: Some(user), reinvite: Some(Duration::from_secs(1)), ..plan() });
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["answered", "reinvited 200", "ended by Us"]);
    let challenges = world.seen.iter().filter(|line| line.starts_with("401")).count();
    assert!((1..=3).contains(&challenges), "{:?}", world.seen);
    assert!(world.is_idle());
}

#[test]
fn a_wrong_password_is_tried_once_and_no_password_not_at_all() {
    let mut world = World::new(answer(0, 200));
    world.meddle = guard("secret");
    let user = User { name: "alice".to_owned(), password: "wrong".to_owned() };
    world.call(CallPlan { user: Some(user), ..plan() });
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["failed"]);
    assert_eq!(world.seen.iter().filter(|line| *line == "401 INVITE").count(), 2);

    let mut world = World::new(answer(0, 200));
    world.meddle = guard("secret");
    world.call(plan());
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["rejected 401"]);
}

#[test]
fn the_callee_may_hang_up_and_the_session_may_be_refreshed() {
    let mut world = World::new(AnswerPlan { hold: Some(Duration::from_secs(3)), ..answer(0, 200) });
    world.call(CallPlan { hold: None, reinvite: Some(Duration::from_secs(1)), ..plan() });
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["answered", "reinvited 200", "ended by Them"]);
    assert_eq!(world.names(BOB), ["incoming", "answered", "refreshed", "ended by Us"]);
    assert!(world.is_idle());
}

#[test]
fn a_call_is_not_hung_up_before_its_refresh_is_answered() {
    let mut world = World::new(answer(0, 200));
    let (hold, reinvite) = (Some(Duration::from_millis(105)), Some(Duration::from_millis(100)));
    world.call(CallPlan { hold, reinvite, ..plan() });
    world.run(FOREVER);
    assert_eq!(world.names(ALICE), ["answered", "reinvited 200", "ended by Us"]);
    assert!(world.is_idle());
}

#[test]
fn a_lost_ack_is_sent_again_for_every_repeated_answer() {
    let mut world = World::new(answer(0, 200));
    let mut lost = 0;
    world.meddle = Box::new(move |message, _| {
        lost += u32::from(message.method() == Method::Ack);
        if message.method() == Method::Ack && lost <= 2 { Verdict::Lose } else { Verdict::Pass }
    });
    world.call(CallPlan { hold: Some(Duration::from_secs(10)), ..plan() });
    world.run(FOREVER);
    assert_eq!(world.seen, ["INVITE", "200 INVITE", "200 INVITE", "200 INVITE", "ACK", "BYE", "200 BYE"]);
    assert_eq!(world.names(BOB), ["incoming", "answered", "ended by Them"]);
    assert!(world.is_idle());
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_the_call() {
    let mut world = World::new(answer(0, 200));
    world.meddle = Box::new(|message, _| if message.method() == Method::Ack { Verdict::Lose } else { Verdict::Pass });
    world.call(CallPlan { hold: None, ..plan() });
    world.run(FOREVER);
    assert_eq!(world.names(BOB), ["incoming", "ended by Us, at fault"]);
    assert_eq!(world.names(ALICE), ["answered", "ended by Them"]);
    let repeated = world.seen.iter().filter(|line| *line == "200 INVITE").count();
    assert_eq!(repeated, 11, "T1, doubling to T2, for 64*T1 (RFC 3261 §13.3.1.4)");
    assert!(world.is_idle());
}

#[test]
fn a_second_answer_of_a_fork_is_acknowledged_and_ended() {
    let mut world = World::new(answer(0, 200));
    world.call(CallPlan { hold: None, ..plan() });
    world.run_until(ALICE, |event| matches!(event, Event::Answered { .. }));
    // Another branch of the fork: the same transaction, another tag and Contact.
    let answer = respond(&world.log[0], 200, "OK", Some("fork")).header(Name::Contact, "<sip:bob@192.0.2.3:5099>");
    let fork = "192.0.2.3:5099".parse().unwrap();
    world.send(fork, ALICE.parse().unwrap(), answer.finish());
    world.run(Duration::from_millis(400));
    assert_eq!(world.names(ALICE), ["answered"], "the first call goes on");
    let surplus = world.log.iter().filter(|message| message.request_uri() == Some("sip:bob@192.0.2.3:5099"));
    assert_eq!(surplus.map(|message| message.method().to_string()).collect::<Vec<_>>(), ["ACK", "BYE"]);
}

#[test]
fn requests_out_of_the_blue_are_answered_as_rfc_3261_wants() {
    let mut world = World::new(answer(0, 200));
    let in_dialog = "To: <sip:bob@192.0.2.2>;tag=none\r\nCall-ID: c\r\nCSeq: 1";
    let fresh = "To: <sip:bob@192.0.2.2>\r\nCall-ID: d\r\nCSeq: 2";
    assert_eq!(world.ask(&format!("BYE sip:bob@192.0.2.2 SIP/2.0\r\n{in_dialog} BYE")), ["481 BYE"]);
    assert_eq!(world.ask(&format!("CANCEL sip:bob@192.0.2.2 SIP/2.0\r\n{fresh} CANCEL")), ["481 CANCEL"]);
    assert_eq!(world.ask(&format!("OPTIONS sip:bob@192.0.2.2 SIP/2.0\r\n{fresh} OPTIONS")), ["200 OPTIONS"]);
    let fresh = fresh.replace("Call-ID: d", "Call-ID: e");
    assert_eq!(world.ask(&format!("REFER sip:bob@192.0.2.2 SIP/2.0\r\n{fresh} REFER")), ["405 REFER"]);
    let fresh = fresh.replace("Call-ID: e", "Call-ID: f");
    assert_eq!(world.ask(&format!("OPTIONS sip:carol@192.0.2.2 SIP/2.0\r\n{fresh} OPTIONS")), ["404 OPTIONS"]);
    let fresh = fresh.replace("Call-ID: f", "Call-ID: g");
    let requires = format!("INVITE sip:bob@192.0.2.2 SIP/2.0\r\nRequire: 100rel\r\n{fresh} INVITE");
    assert_eq!(world.ask(&requires)[0], "420 INVITE");
    assert_eq!(world.ask(&format!("ACK sip:bob@192.0.2.2 SIP/2.0\r\n{fresh} ACK")), [""; 0]);
}

#[test]
fn two_calls_at_once_do_not_mix() {
    let mut world = World::new(answer(100, 200));
    let first = world.call(plan());
    let second = world.call(CallPlan { hold: Some(Duration::from_secs(1)), ..plan() });
    assert_ne!(first, second);
    world.run(FOREVER);
    for id in [first, second] {
        let of_call = world.events.iter().filter(|(own, call, _)| own.to_string() == ALICE && *call == id).count();
        assert_eq!(of_call, 3);
    }
    assert_eq!(world.names(BOB).iter().filter(|name| *name == "ended by Them").count(), 2);
    assert!(world.is_idle());
}

fn binding() -> RegisterPlan {
    RegisterPlan {
        aor: "sip:alice@example.org".to_owned(),
        registrar: "sip:example.org".to_owned(),
        contact: "sip:alice@p2psip.org".to_owned(),
        routes: vec!["<sip:p2psip.org;lr>".to_owned()],
        user: None,
        expires: Duration::from_secs(600),
        keep: true,
        patience: Duration::from_secs(20),
        user_agent: "test".to_owned(),
    }
}

/// An agent with two proxy peers. The first one does as `first` says, the second one's registrar accepts.
fn between_two_proxy_peers(first: impl Fn(&Message) -> Verdict + 'static) -> World {
    let mut world = World::new(answer(0, 200));
    let proxies: Vec<SocketAddr> = vec!["192.0.2.10:5060".parse().unwrap(), "192.0.2.11:5060".parse().unwrap()];
    world.ways.insert("p2psip.org".to_owned(), proxies.clone());
    world.meddle = Box::new(move |message, to| {
        if to == proxies[0] {
            return first(message);
        }
        let accepted = respond(message, 200, "OK", Some("r")).header(Name::Contact, "<sip:alice@p2psip.org>");
        Verdict::Answer(accepted.header(Name::Expires, "600").finish())
    });
    world
}

#[test]
fn a_register_goes_through_the_next_proxy_peer_when_one_is_silent() {
    let mut world = between_two_proxy_peers(|_| Verdict::Lose);
    let now = world.now;
    world.agents[0].1.register(binding(), now);
    world.drain();
    while world.bindings.is_empty() {
        assert!(world.step(Duration::from_secs(10)), "nobody answered: {:?}", world.seen);
    }
    let [RegisterEvent::Bound(bound)] = world.bindings.as_slice() else { panic!("{:?}", world.bindings) };
    assert_eq!(bound.granted, Duration::from_secs(600));
    // The overlay and nothing else is named to the registrar; the proxy peer takes the Route off.
    let sent = world.log.last().unwrap();
    assert_eq!(sent.request_uri(), Some("sip:example.org"));
    assert_eq!(sent.header(Name::Contact), Some(b"<sip:alice@p2psip.org>".as_slice()));
    assert_eq!(sent.routes().next().unwrap().unwrap().uri.as_str(), "sip:p2psip.org;lr");
}

#[test]
fn a_register_that_a_closed_connection_has_swallowed_is_sent_elsewhere_at_once() {
    let mut world = between_two_proxy_peers(|message| match message.cseq().unwrap().number {
        1 => {
            let challenge = "Digest realm=\"example.org\", nonce=\"n\", qop=\"auth\"";
            Verdict::Answer(respond(message, 401, "", Some("r")).header(Name::WwwAuthenticate, challenge).finish())
        }
        _ => Verdict::Lose,
    });
    let now = world.now;
    let user = User { name: "alice".to_owned(), password: "secret".to_owned() };
    world.agents[0].1.register(RegisterPlan { user: Some(user), ..binding() }, now);
    world.drain();
    while world.bindings.is_empty() {
        assert!(world.step(Duration::from_secs(10)), "nobody asked for a password");
    }
    let (now, began) = (world.now, world.now);
    // The world calls every flow the first one.
    world.agents[0].1.closed(FlowId(1), now);
    world.drain();
    while world.bindings.len() < 2 {
        assert!(world.step(Duration::from_secs(10)), "nobody answered: {:?}", world.seen);
    }
    assert!(matches!(world.bindings[1], RegisterEvent::Bound(_)), "{:?}", world.bindings);
    assert!(world.now - began < Duration::from_millis(100), "it waited for {:?}", world.now - began);
    // Bound, it loses the stream again: bound anew by whoever is there.
    let now = world.now;
    world.agents[0].1.closed(FlowId(1), now);
    world.drain();
    assert_eq!(world.bindings[2], RegisterEvent::Lost);
}

#[test]
fn a_secure_call_has_secure_contacts_on_both_sides() {
    let gruu = "sip:alice@p2psip.org;gr=x".to_owned();
    let plan = |target: &str| CallPlan { target: target.to_owned(), contact: Some(gruu.clone()), ..plan() };
    for (target, contact) in [("sip:bob@192.0.2.2", "<sip:alice@"), ("sips:bob@192.0.2.2", "<sips:alice@")] {
        let mut out = Vec::new();
        let pace = super::Pace { t1: Duration::from_millis(500), t2: Duration::from_secs(4) };
        let mut call = super::call::Call::new(plan(target), "c".to_owned(), "t".to_owned(), pace, Instant::now());
        call.start(&mut out);
        let super::Action::Request { request, .. } = &out[0] else { panic!("{out:?}") };
        let given = String::from_utf8_lossy(request.header(Name::Contact).unwrap());
        assert!(given.starts_with(contact), "{given}");
    }
    let invite = |uri: &str, recorded: &str| {
        let text = format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nRecord-Route: <{recorded};lr>\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        super::contact::wants_secure_contact(&Message::parse(text.into()).unwrap())
    };
    assert!(!invite("sip:b@b", "sip:p2psip.org"));
    assert!(invite("sips:b@b", "sip:p2psip.org"));
    assert!(invite("sip:b@b", "sips:p2psip.org"));
}

#[test]
fn a_reinvite_proves_that_an_answer_arrived_whose_ack_was_lost() {
    let mut world = World::new(answer(0, 200));
    world.meddle = Box::new(|message, _| if message.method() == Method::Ack { Verdict::Lose } else { Verdict::Pass });
    world.call(CallPlan { reinvite: Some(Duration::from_millis(100)), hold: Some(Duration::from_secs(1)), ..plan() });
    world.run(FOREVER);
    assert_eq!(world.names(BOB), ["incoming", "refreshed", "answered", "ended by Them"]);
    assert_eq!(world.names(ALICE), ["answered", "reinvited 200", "ended by Us"]);
    // So does a BYE, but then something was wrong.
    let mut world = World::new(answer(0, 200));
    world.meddle = Box::new(|message, _| if message.method() == Method::Ack { Verdict::Lose } else { Verdict::Pass });
    world.call(CallPlan { hold: Some(Duration::from_secs(1)), ..plan() });
    world.run(FOREVER);
    assert_eq!(world.names(BOB), ["incoming", "answered", "ended by Them, at fault"]);
}
