use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    name::{OverlayId, PeerId},
    proxy::{
        fork::{Health, Patience, Place, Target},
        route::Realm,
        throttle::Rate,
    },
    sip::{
        Method,
        edit::Edit,
        header::Name,
        transport::{FlowId, Hop, Protocol, Remote},
        uri::SipUri,
    },
};

const OUTSIDE: &str = "198.51.100.7:5060";
const OWN: &str = "192.0.2.1:5060";
const SDP: &str = "v=0\r\n";

/// An engine, and everybody around it.
struct World {
    engine: Engine,
    now: Instant,
    users: BTreeMap<String, Located>,
    servers: BTreeMap<String, Located>,
    /// Whose each peer is.
    members: BTreeMap<PeerId, Vec<Aor>>,
    /// Questions are left open if so.
    silent: bool,
    open: Vec<Question>,
    /// What was sent and nobody has looked at.
    sent: Vec<(Hop, Message)>,
    tokens: Vec<Token>,
    probes: Vec<String>,
    learned: Vec<(Hop, Health)>,
}

fn peer(n: u8) -> PeerId {
    PeerId::from_public_key([n; 32])
}

fn aor(user: &str) -> Aor {
    Aor::parse(&format!("sip:{user}@p2psip.org")).unwrap()
}

fn outside() -> Source {
    Source::socket(Protocol::Udp, OUTSIDE.parse().unwrap(), OWN.parse().unwrap(), FlowId(1))
}

fn stream(n: u8) -> Source {
    Source::peer(peer(n), FlowId(100 + u64::from(n)))
}

fn server(address: &str) -> Hop {
    Hop::socket(Protocol::Udp, address.parse().unwrap())
}

fn at_peer(n: u8) -> Target {
    Target { uri: None, place: Place::Hops(vec![Hop::peer(peer(n), [])]) }
}

/// The way a hop's answer comes back.
fn source_of(hop: &Hop) -> Source {
    match hop.remote {
        Remote::Peer(peer) => Source::peer(peer, FlowId(200)),
        Remote::Socket(address) => Source::socket(hop.protocol, address, OWN.parse().unwrap(), FlowId(1)),
    }
}

fn parse(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

/// A request as somebody at `source` sends it. `more` are whole lines with `\n` between them.
fn request(source: &Source, start: &str, from: &str, to: &str, branch: &str, more: &str) -> Message {
    let (method, _) = start.split_once(' ').unwrap();
    let via = match source.remote {
        Remote::Peer(peer) => format!("SIP/2.0/OVERLAY {};branch=z9hG4bK{branch}", via_host(&peer)),
        Remote::Socket(address) => format!("SIP/2.0/{} {address};rport;branch=z9hG4bK{branch}", source.protocol),
    };
    let more: String = more.lines().map(|line| format!("{line}\r\n")).collect();
    let forwards = if more.contains("Max-Forwards") { "" } else { "Max-Forwards: 70\r\n" };
    parse(&format!(
        "{start} SIP/2.0\r\nVia: {via}\r\n{forwards}From: <{from}>;tag=f\r\nTo: {to}\r\nCall-ID: c1\r\nCSeq: 1 {method}\r\n\
         X-Odd:  kept   as it is\r\n{more}Content-Length: {}\r\n\r\n{SDP}",
        SDP.len(),
    ))
}

fn invite_bob(branch: &str, more: &str) -> Message {
    request(&outside(), "INVITE sip:bob@p2psip.org", "sip:carol@example.com", "<sip:bob@p2psip.org>", branch, more)
}

impl World {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            realm: Realm {
                overlay: OverlayId::parse("p2psip.org").unwrap(),
                own: vec![(Protocol::Udp, OWN.parse().unwrap())],
            },
            peer: peer(99),
            transactions: transaction::Config::default(),
            patience: Patience::default(),
            rate: Rate::default(),
        };
        change(&mut config);
        let now = Instant::now();
        Self {
            engine: Engine::new(config, now),
            now,
            users: BTreeMap::from([("bob".to_owned(), Located::Groups(vec![vec![at_peer(2)]]))]),
            servers: BTreeMap::from([(
                "sip:carol@example.com".to_owned(),
                Located::Hops(vec![server("203.0.113.5:5060")]),
            )]),
            members: BTreeMap::from([(peer(1), vec![aor("alice")]), (peer(2), vec![aor("bob")])]),
            silent: false,
            open: Vec::new(),
            sent: Vec::new(),
            tokens: Vec::new(),
            probes: Vec::new(),
            learned: Vec::new(),
        }
    }

    fn receive(&mut self, message: Message, source: &Source) -> &mut Self {
        self.engine.receive(message, source.clone(), self.now);
        self.drain();
        self
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        let until = self.now + time;
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
        self
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { to, bytes, token } => {
                    let message = Message::parse(bytes).unwrap();
                    // A response of 400 repeats what is wrong with its request.
                    if message.is_request() {
                        message.check().unwrap_or_else(|fault| panic!("{fault}: {message:?}"));
                    }
                    self.sent.push((to, message));
                    self.tokens.push(token);
                }
                Output::Locate { question, .. } | Output::Identify { question, .. } if self.silent => {
                    self.open.push(question);
                }
                Output::Locate { question, what } => {
                    let nowhere = Located::Nowhere { status: 404, reason: "Not Found" };
                    let located = match &what {
                        What::User { aor, .. } => self.users.get(aor.user()),
                        What::Uri { uri, .. } => self.servers.get(&**uri),
                        What::Proxy => None,
                    };
                    self.engine.located(question, located.cloned().unwrap_or(nowhere), self.now);
                }
                Output::Probed(probe) => self.probes.push(String::from_utf8(probe).unwrap()),
                Output::Learned { hop, health } => self.learned.push((hop, health)),
                Output::Identify { question, peer, .. } => {
                    let users = self.members.get(&peer).cloned().unwrap_or_default();
                    self.engine.identified(question, &users, self.now);
                }
                Output::Register { server, message } => {
                    let ok = respond::respond(&message, 200, "", Some("r")).finish();
                    self.engine.respond(server, ok, self.now);
                }
                Output::Publish { .. } => panic!("there are no phones here"),
            }
        }
    }

    /// What was sent since the last time, each in a few words.
    fn seen(&self) -> Vec<String> {
        self.sent.iter().map(|(hop, message)| describe(hop, message)).collect()
    }

    #[track_caller]
    fn expect(&mut self, expected: &[&str]) -> Vec<(Hop, Message)> {
        assert_eq!(self.seen(), expected);
        std::mem::take(&mut self.sent)
    }

    /// Answers a forwarded request as whoever got it.
    fn answer(&mut self, request: &(Hop, Message), status: u16) -> &mut Self {
        self.answer_with(request, status, |response| response)
    }

    fn answer_with(
        &mut self,
        (hop, request): &(Hop, Message),
        status: u16,
        more: impl FnOnce(respond::Response) -> respond::Response,
    ) -> &mut Self {
        let response = more(respond::respond(request, status, "", Some("t"))).finish();
        self.receive(Message::parse(response).unwrap(), &source_of(hop))
    }
}

fn describe(hop: &Hop, message: &Message) -> String {
    let to = match hop.remote {
        Remote::Peer(peer) => format!("peer {}", peer.public_key()[0]),
        Remote::Socket(address) => address.to_string(),
    };
    match message.status() {
        Some(status) => format!("{status} {} to {to}", message.method()),
        None => format!("{} to {to}", message.method()),
    }
}

fn values(message: &Message, name: Name<'static>) -> Vec<String> {
    message.values(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

#[test]
fn a_call_from_outside_reaches_the_user_and_comes_back() {
    let mut world = World::new();
    world.receive(invite_bob("1", "Route: <sip:p2psip.org;lr>\nRoute: <sip:192.0.2.1;lr>"), &outside());
    let sent = world.expect(&["100 INVITE to 198.51.100.7:5060", "INVITE to peer 2"]);
    let invite = &sent[1];
    assert_eq!(invite.1.request_uri(), Some("sip:bob@p2psip.org"));
    assert_eq!(values(&invite.1, Name::RecordRoute), ["<sip:p2psip.org;lr>"]);
    assert_eq!(values(&invite.1, Name::Route), [""; 0]);
    assert_eq!(invite.1.max_forwards(), Ok(Some(69)));
    assert_eq!(invite.1.max_breadth(), Ok(Some(60)), "there is one even where nothing forks");
    assert_eq!(invite.1.body(), SDP.as_bytes());
    assert!(memchr::memmem::find(invite.1.bytes(), b"X-Odd:  kept   as it is\r\n").is_some());
    let vias: Vec<_> = invite.1.vias().map(Result::unwrap).collect();
    assert_eq!((vias.len(), vias[0].transport), (2, "OVERLAY"));
    assert!(vias[0].host.is_name(&via_host(&peer(99))));
    assert_eq!((vias[1].received().unwrap().to_string(), vias[1].rport()), ("198.51.100.7".to_owned(), Some(5060)));

    assert_eq!(world.engine.counts().outgoing, 0, "it comes in");
    world.answer(invite, 180).answer(invite, 200);
    let back = world.expect(&["180 INVITE to 198.51.100.7:5060", "200 INVITE to 198.51.100.7:5060"]);
    assert_eq!(back[1].1.vias().count(), 1);
    assert_eq!(values(&back[1].1, Name::RecordRoute), ["<sip:p2psip.org;lr>"]);
    // The 2xx again, and its ACK, which is a request of its own.
    world.answer(invite, 200).expect(&["200 INVITE to 198.51.100.7:5060"]);
    let (to, route) = ("<sip:bob@p2psip.org>;tag=t", "Route: <sip:p2psip.org;lr>");
    let ack = request(&outside(), "ACK sip:bob@p2psip.org", "sip:carol@example.com", to, "2", route);
    world.receive(ack, &outside());
    let ack = world.expect(&["ACK to peer 2"]);
    assert_ne!(ack[0].1.top_via().unwrap().branch(), vias[0].branch());
    let bye = request(&outside(), "BYE sip:bob@p2psip.org", "sip:carol@example.com", to, "3", route);
    let bye = world.receive(bye, &outside()).expect(&["BYE to peer 2"]);
    assert_eq!(values(&bye[0].1, Name::RecordRoute), [""; 0]);
    world.answer(&bye[0], 200).expect(&["200 BYE to 198.51.100.7:5060"]);
    world.after(Duration::from_secs(200)).expect(&[]);
    assert!(world.engine.contexts.is_empty() && world.engine.is_empty() && world.engine.by_client.is_empty());
}

#[test]
fn a_call_from_a_member_leaves_the_overlay() {
    let mut world = World::new();
    let invite = |from: &str, branch: &str| {
        request(&stream(1), "INVITE sip:carol@example.com", from, "<sip:carol@example.com>", branch, "")
    };
    world.receive(invite("sip:alice@p2psip.org", "1"), &stream(1));
    let sent = world.expect(&["100 INVITE to peer 1", "INVITE to 203.0.113.5:5060"]);
    let forwarded = &sent[1].1;
    let via = forwarded.top_via().unwrap();
    assert_eq!((via.transport, via.host.ip(), via.port), ("UDP", Some("192.0.2.1".parse().unwrap()), Some(5060)));
    assert_eq!(values(forwarded, Name::RecordRoute), ["<sip:p2psip.org;lr>"]);
    world.answer(&sent[1], 200).expect(&["200 INVITE to peer 1"]);
    assert_eq!(world.engine.counts().outgoing, 1);
    let mut stranger = World::new();
    stranger.members.clear();
    stranger.receive(invite("sip:alice@p2psip.org", "2"), &stream(1)).expect(&["403 INVITE to peer 1"]);
    World::new().receive(invite("sip:bob@p2psip.org", "3"), &stream(1)).expect(&["403 INVITE to peer 1"]);
    let relay = request(&outside(), "INVITE sip:carol@example.com", "sip:alice@p2psip.org", "<sip:c@d>", "4", "");
    World::new().receive(relay, &outside()).expect(&["403 INVITE to 198.51.100.7:5060"]);
}

#[test]
fn a_stranger_gets_not_even_an_ack_out() {
    let ack = request(&stream(7), "ACK sip:carol@example.com", "sip:x@y.example", "<sip:c@d>;tag=1", "1", "");
    let mut world = World::new();
    world.receive(ack, &stream(7)).expect(&[]);
    assert_eq!(world.engine.counts().dropped, 1);
}

#[test]
fn a_stream_speaks_for_its_own_peer_only() {
    let mut world = World::new();
    let forged = request(&stream(1), "INVITE sip:bob@p2psip.org", "sip:x@y.example", "<sip:c@d>", "1", "");
    world.receive(forged, &stream(3)).expect(&[]);
    assert_eq!(world.engine.counts().dropped, 1);
}

#[test]
fn one_is_busy_one_is_silent_and_one_answers() {
    let mut world = World::new();
    world.users.insert("bob".to_owned(), Located::Groups(vec![vec![at_peer(2), at_peer(3), at_peer(4)]]));
    world.receive(invite_bob("1", ""), &outside());
    let sent =
        world.expect(&["100 INVITE to 198.51.100.7:5060", "INVITE to peer 2", "INVITE to peer 3", "INVITE to peer 4"]);
    let breadths: Vec<_> = sent[1..].iter().map(|(_, invite)| invite.max_breadth().unwrap()).collect();
    assert_eq!(breadths, [Some(20); 3]);
    world.answer(&sent[1], 486).expect(&["ACK to peer 2"]);
    world.answer(&sent[2], 180).answer(&sent[3], 200);
    world.expect(&["180 INVITE to 198.51.100.7:5060", "200 INVITE to 198.51.100.7:5060", "CANCEL to peer 3"]);
    world.answer(&sent[2], 487).expect(&["ACK to peer 3"]);
}

#[test]
fn nobody_answers_but_one_is_busy() {
    let mut world = World::new();
    world.users.insert("bob".to_owned(), Located::Groups(vec![vec![at_peer(2), at_peer(3)]]));
    world.receive(invite_bob("1", ""), &outside());
    let sent = std::mem::take(&mut world.sent);
    world.answer(&sent[1], 486).expect(&["ACK to peer 2"]);
    world.after(Duration::from_secs(31)).expect(&[]);
    world.after(Duration::from_secs(2));
    assert_eq!(world.seen()[0], "486 INVITE to 198.51.100.7:5060");
}

fn cancel(branch: &str) -> Message {
    request(&outside(), "CANCEL sip:bob@p2psip.org", "sip:carol@example.com", "<sip:bob@p2psip.org>", branch, "")
}

#[test]
fn a_cancelled_call_ends_everywhere() {
    let mut world = World::new();
    world.receive(invite_bob("1", ""), &outside());
    let sent = std::mem::take(&mut world.sent);
    world.answer(&sent[1], 180).expect(&["180 INVITE to 198.51.100.7:5060"]);
    world.receive(cancel("1"), &outside()).expect(&["200 CANCEL to 198.51.100.7:5060", "CANCEL to peer 2"]);
    world.answer(&sent[1], 487).expect(&["ACK to peer 2", "487 INVITE to 198.51.100.7:5060"]);
    world.receive(cancel("8"), &outside()).expect(&["481 CANCEL to 198.51.100.7:5060"]);
}

#[test]
fn an_answer_that_crosses_a_cancel_is_passed_on() {
    let mut world = World::new();
    world.receive(invite_bob("1", ""), &outside());
    let sent = std::mem::take(&mut world.sent);
    world.answer(&sent[1], 180).receive(cancel("1"), &outside());
    world.sent.clear();
    world.answer(&sent[1], 200).expect(&["200 INVITE to 198.51.100.7:5060"]);
}

#[test]
fn a_call_can_be_cancelled_before_the_callee_is_found() {
    let mut world = World::new();
    world.silent = true;
    world.receive(invite_bob("1", ""), &outside()).expect(&["100 INVITE to 198.51.100.7:5060"]);
    world.receive(cancel("1"), &outside());
    world.expect(&["200 CANCEL to 198.51.100.7:5060", "487 INVITE to 198.51.100.7:5060"]);
    let question = world.open.pop().unwrap();
    world.engine.located(question, Located::Groups(vec![vec![at_peer(2)]]), world.now);
    world.drain();
    world.expect(&[]);
    let ack =
        request(&outside(), "ACK sip:bob@p2psip.org", "sip:carol@example.com", "<sip:bob@p2psip.org>;tag=t", "1", "");
    world.receive(ack, &outside()).after(Duration::from_secs(70)).expect(&[]);
    assert!(world.engine.contexts.is_empty() && world.engine.open.is_empty());
}

#[test]
fn a_challenge_passes_unchanged_and_those_of_several_are_put_together() {
    let digest = "Digest realm=\"example.com\",  nonce=\"a,b\", qop=\"auth\"";
    let mut world = World::new();
    world.users.insert("bob".to_owned(), Located::Groups(vec![vec![at_peer(2), at_peer(3)]]));
    world.receive(invite_bob("1", ""), &outside());
    let sent = std::mem::take(&mut world.sent);
    world.answer_with(&sent[1], 407, |response| response.header(Name::ProxyAuthenticate, digest));
    world.answer_with(&sent[2], 401, |response| response.header(Name::WwwAuthenticate, "Digest realm=\"b\""));
    let (_, best) = world.sent.pop().unwrap();
    assert!(matches!(best.status(), Some(401 | 407)));
    assert_eq!(values(&best, Name::ProxyAuthenticate), [digest]);
    assert_eq!(values(&best, Name::WwwAuthenticate), ["Digest realm=\"b\""]);
    let credentials = "Proxy-Authorization: Digest username=\"c\", response=\"0\"";
    world.sent.clear();
    world.receive(invite_bob("2", credentials), &outside());
    assert_eq!(values(&world.sent[1].1, Name::ProxyAuthorization), [&credentials["Proxy-Authorization: ".len()..]]);
}

#[test]
fn what_comes_by_unchanged_is_a_loop_and_what_has_changed_is_not() {
    let mut world = World::new();
    // Another domain's server sends it back to us, as it came.
    let back = Target { uri: None, place: Place::Hops(vec![server("203.0.113.5:5060")]) };
    world.users.insert("bob".to_owned(), Located::Groups(vec![vec![back]]));
    world.receive(invite_bob("1", ""), &outside());
    let (hop, once) = world.expect(&["100 INVITE to 198.51.100.7:5060", "INVITE to 203.0.113.5:5060"]).pop().unwrap();
    let relayed = |uri: &str, branch: &str| {
        let mut edit = Edit::new(&once);
        edit.set_request_uri(uri);
        edit.prepend(Name::Via, format!("SIP/2.0/UDP 203.0.113.5;branch=z9hG4bK{branch}"));
        Message::parse(edit.finish()).unwrap()
    };
    let mut second = World::new();
    std::mem::swap(&mut second.engine, &mut world.engine);
    second.receive(relayed("sip:bob@p2psip.org", "x"), &source_of(&hop)).expect(&["482 INVITE to 203.0.113.5:5060"]);
    assert_eq!(second.engine.counts().loops, 1);
    second.users.insert("dave".to_owned(), Located::Groups(vec![vec![at_peer(4)]]));
    second.receive(relayed("sip:dave@p2psip.org", "y"), &source_of(&hop));
    second.expect(&["100 INVITE to 203.0.113.5:5060", "INVITE to peer 4"]);
}

#[test]
fn a_gatekeepers_probe_is_answered_and_told_and_nobody_else_s_request_is_taken_for_one() {
    let mut world = World::new();
    let probe = |start: &str, branch: &str| {
        let more = "Max-Forwards: 0\nP2PSIP-Probe: 01.02";
        request(&outside(), start, "sip:p2psip.org", "<sip:p2psip.org>", branch, more)
    };
    world.receive(probe(&format!("OPTIONS sip:{OWN};transport=udp"), "1"), &outside());
    assert_eq!(world.sent.last().and_then(|(_, answer)| answer.status()), Some(200));
    assert_eq!(world.probes, ["01.02"]);
    world.receive(probe("INVITE sip:bob@p2psip.org", "2"), &outside());
    assert_eq!(world.probes.len(), 1, "only OPTIONS that is answered here");
}

#[test]
fn requests_that_loop_without_end_are_stopped() {
    let mut world = World::new();
    world.receive(invite_bob("1", "Max-Forwards: 0"), &outside()).expect(&["483 INVITE to 198.51.100.7:5060"]);
}

#[test]
fn retransmissions_are_not_passed_on() {
    let mut world = World::new();
    let invite = invite_bob("1", "");
    world.receive(invite.clone(), &outside());
    let sent = world.expect(&["100 INVITE to 198.51.100.7:5060", "INVITE to peer 2"]);
    world.receive(invite.clone(), &outside()).expect(&["100 INVITE to 198.51.100.7:5060"]);
    world.answer(&sent[1], 486).expect(&["ACK to peer 2", "486 INVITE to 198.51.100.7:5060"]);
    world.receive(invite, &outside()).expect(&["486 INVITE to 198.51.100.7:5060"]);
    world.after(Duration::from_millis(600)).expect(&["486 INVITE to 198.51.100.7:5060"]);
}

#[test]
fn another_proxy_peer_carries_the_dialog_on() {
    // Trap 3: it has never seen the dialog, and both sides' requests pass.
    let route = "Route: <sip:p2psip.org;lr>";
    let to = "<sip:bob@p2psip.org>;tag=t";
    let mut other = World::new();
    let bye = request(&outside(), "BYE sip:bob@p2psip.org", "sip:carol@example.com", to, "9", route);
    other.receive(bye, &outside()).expect(&["BYE to peer 2"]);
    let ack = request(&outside(), "ACK sip:bob@p2psip.org", "sip:carol@example.com", to, "10", route);
    other.receive(ack, &outside()).expect(&["ACK to peer 2"]);
    let to = "<sip:carol@example.com>;tag=t";
    let bye = request(&stream(1), "BYE sip:carol@example.com", "sip:alice@p2psip.org", to, "11", route);
    other.receive(bye, &stream(1)).expect(&["BYE to 203.0.113.5:5060"]);
    let again = request(&outside(), "INVITE sip:bob@p2psip.org", "sip:carol@example.com", to, "12", route);
    other.receive(again, &outside()).expect(&["100 INVITE to 198.51.100.7:5060", "INVITE to peer 2"]);
}

#[test]
fn breadth_is_shared_and_never_exceeded() {
    let mut world = World::new();
    let many = (10..16).map(at_peer).collect();
    world.users.insert("bob".to_owned(), Located::Groups(vec![many]));
    world.receive(invite_bob("1", "Max-Breadth: 4"), &outside());
    let sent = std::mem::take(&mut world.sent);
    assert_eq!(sent.len(), 5, "100 and four branches");
    assert!(sent[1..].iter().all(|(_, invite)| invite.max_breadth() == Ok(Some(1))));
    for branch in &sent[1..] {
        world.answer(branch, 486);
    }
    let invites = world.sent.iter().filter(|(_, message)| message.is_request() && message.method() == Method::Invite);
    assert_eq!(invites.count(), 2, "the rest");
    world.sent.clear();
    world.receive(invite_bob("2", "Max-Breadth: 0"), &outside()).expect(&["440 INVITE to 198.51.100.7:5060"]);
}

#[test]
fn the_next_server_is_tried_when_one_fails() {
    let hops = Located::Hops(vec![server("203.0.113.5:5060"), server("203.0.113.6:5060"), server("203.0.113.7:5060")]);
    let invite = |branch: &str| {
        request(&stream(1), "INVITE sip:carol@example.com", "sip:alice@p2psip.org", "<sip:c@d>", branch, "")
    };
    let mut world = World::new();
    world.servers.insert("sip:carol@example.com".to_owned(), hops.clone());
    world.receive(invite("1"), &stream(1));
    let first = world.expect(&["100 INVITE to peer 1", "INVITE to 203.0.113.5:5060"]);
    world.answer(&first[1], 503);
    let second = world.expect(&["ACK to 203.0.113.5:5060", "INVITE to 203.0.113.6:5060"]);
    assert_ne!(first[1].1.top_via().unwrap().branch(), second[1].1.top_via().unwrap().branch());
    let token = *world.tokens.last().unwrap();
    world.engine.transport_failed(token, world.now);
    world.drain();
    let third = world.expect(&["INVITE to 203.0.113.7:5060"]);
    world.answer(&third[0], 503);
    assert_eq!(world.seen().last().unwrap(), "500 INVITE to peer 1", "a 503 of somebody else is not ours");
    let learned: Vec<_> = world.learned.iter().map(|(_, health)| *health).collect();
    assert_eq!(learned, [Health::Busy(None), Health::Unreachable, Health::Busy(None)]);
}

#[test]
fn what_is_not_found_gone_or_unknown_are_different_answers() {
    for (status, retry) in [(404, false), (480, false), (503, true)] {
        let mut world = World::new();
        world.users.insert("bob".to_owned(), Located::Nowhere { status, reason: "X" });
        world.receive(invite_bob("1", ""), &outside());
        let (_, answer) = world.sent.pop().unwrap();
        assert_eq!(answer.status(), Some(status));
        assert_eq!(answer.header(Name::RetryAfter).is_some(), retry, "{status}");
        assert!(answer.to().unwrap().tag().is_some());
    }
}

#[test]
fn a_registration_elsewhere_carries_no_route_of_ours() {
    let mut world = World::new();
    world.servers.insert("sip:example.com".to_owned(), Located::Hops(vec![server("203.0.113.5:5060")]));
    let contact = "Contact: <sip:alice@p2psip.org>";
    let register = request(
        &stream(1),
        "REGISTER sip:example.com",
        "sip:alice@example.com",
        "<sip:alice@example.com>",
        "1",
        contact,
    );
    let sent = world.receive(register, &stream(1)).expect(&["REGISTER to 203.0.113.5:5060"]);
    for name in [Name::RecordRoute, Name::Path] {
        assert_eq!(values(&sent[0].1, name), [""; 0]);
    }
    assert_eq!(values(&sent[0].1, Name::Contact), ["<sip:alice@p2psip.org>"]);
    let own = request(&outside(), "REGISTER sip:p2psip.org", "sip:a@p2psip.org", "<sip:a@p2psip.org>", "2", contact);
    world.receive(own, &outside()).expect(&["405 REGISTER to 198.51.100.7:5060"]);
}

#[test]
fn sips_stays_secure() {
    let mut world = World::new();
    let to = "<sips:bob@p2psip.org>";
    let invite = request(&outside(), "INVITE sips:bob@p2psip.org", "sip:carol@example.com", to, "1", "");
    let sent = world.receive(invite, &outside()).expect(&["100 INVITE to 198.51.100.7:5060", "INVITE to peer 2"]);
    assert_eq!(values(&sent[1].1, Name::RecordRoute), ["<sips:p2psip.org;lr>"]);
    // UDP will not do, whatever the driver found.
    world.servers.insert("sips:carol@example.com".to_owned(), Located::Hops(vec![server("203.0.113.5:5060")]));
    let out = request(&stream(1), "INVITE sips:carol@example.com", "sip:alice@p2psip.org", "<sip:c@d>", "2", "");
    world.receive(out, &stream(1)).expect(&["100 INVITE to peer 1", "500 INVITE to peer 1"]);
}

#[test]
fn whoever_leaves_finishes_what_has_begun() {
    let mut world = World::new();
    world.receive(invite_bob("1", ""), &outside());
    let sent = std::mem::take(&mut world.sent);
    world.engine.drain(world.now);
    assert!(!world.engine.is_idle());
    let refused = world.receive(invite_bob("2", ""), &outside()).expect(&["503 INVITE to 198.51.100.7:5060"]);
    assert!(refused[0].1.header(Name::RetryAfter).is_some());
    let to = "<sip:bob@p2psip.org>;tag=t";
    let bye = request(&outside(), "BYE sip:bob@p2psip.org", "sip:carol@example.com", to, "3", "");
    let bye = world.receive(bye, &outside()).expect(&["BYE to peer 2"]);
    world.answer(&bye[0], 200).answer(&sent[1], 200);
    world.expect(&["200 BYE to 198.51.100.7:5060", "200 INVITE to 198.51.100.7:5060"]);
    assert!(world.engine.is_idle());
}

#[test]
fn a_source_that_sends_too_much_waits() {
    let mut world = World::with(|config| config.rate = Rate { per_second: 1.0, burst: 1.0 });
    world.receive(invite_bob("1", ""), &outside());
    world.sent.clear();
    let refused = world.receive(invite_bob("2", ""), &outside()).expect(&["503 INVITE to 198.51.100.7:5060"]);
    assert!(refused[0].1.header(Name::RetryAfter).is_some());
    assert_eq!((world.engine.counts().throttled, world.engine.contexts.len()), (1, 1));
    world.after(Duration::from_secs(1)).sent.clear();
    world.receive(invite_bob("3", ""), &outside());
    assert_eq!(world.seen()[1], "INVITE to peer 2", "throttled, never banned");
}

#[test]
fn a_copy_of_a_request_that_was_taken_is_never_refused() {
    // A source at its limit still has its running calls: a 503 would end one that rings.
    let mut world = World::with(|config| config.rate = Rate { per_second: 1.0, burst: 1.0 });
    world.receive(invite_bob("1", ""), &outside()).sent.clear();
    world.receive(invite_bob("1", ""), &outside()).expect(&["100 INVITE to 198.51.100.7:5060"]);
    world.receive(cancel("1"), &outside());
    assert!(world.seen().contains(&"200 CANCEL to 198.51.100.7:5060".to_owned()), "{:?}", world.seen());
}

#[test]
fn responses_that_nobody_asked_for_go_nowhere() {
    let mut world = World::new();
    let stray = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP 203.0.113.99\r\n\
                 From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n";
    world.receive(parse(stray), &outside()).expect(&[]);
    assert_eq!(world.engine.counts().dropped, 1);
}

#[test]
fn a_phone_with_its_own_address_is_tried_by_its_own_uri() {
    let mut world = World::new();
    let uri: Arc<str> = "sip:bob@198.51.100.30:5080".into();
    let phone = Target { uri: Some(uri.clone()), place: Place::Uri(uri.clone()) };
    world.users.insert("bob".to_owned(), Located::Groups(vec![vec![phone]]));
    world.servers.insert(uri.to_string(), Located::Hops(vec![server("198.51.100.30:5080")]));
    let sent = world.receive(invite_bob("1", ""), &outside()).sent.split_off(1);
    assert_eq!(describe(&sent[0].0, &sent[0].1), "INVITE to 198.51.100.30:5080");
    assert_eq!(sent[0].1.request_uri(), Some(&*uri));
    assert!(SipUri::parse(&uri).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_that_comes_is_fatal_and_nothing_stays(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        which in 0..4_usize,
        from_peer in any::<bool>(),
        truncate in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let source = if from_peer { stream(1) } else { outside() };
        let (start, more) = [
            ("INVITE sip:bob@p2psip.org;gr=x", "Route: <sip:p2psip.org;lr>, <sip:a.example;lr>\nMax-Breadth: 3"),
            ("ACK sip:bob@p2psip.org", "Route: <sip:p2psip.org>\nMax-Forwards: 1"),
            ("BYE sip:p2psip.org;lr", "Route: <sip:p2psip.org;lr>\nRoute: <sip:bob@p2psip.org>"),
            ("REGISTER sips:example.com;maddr=192.0.2.1", "Proxy-Require: x\nContact: *"),
        ][which];
        let message = request(&source, start, "sip:alice@p2psip.org", "<sip:bob@p2psip.org>", "1", more);
        let mut octets = message.bytes().to_vec();
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        if cut {
            octets.truncate(truncate.index(octets.len()));
        }
        if let Ok(message) = Message::parse(octets.into()) {
            let mut world = World::new();
            world.receive(message, &source);
            let forwarded: Vec<_> = world.sent.iter().filter(|(_, sent)| sent.is_request()).cloned().collect();
            for request in forwarded {
                world.answer(&request, 180).answer(&request, 486).answer(&request, 200);
            }
            world.after(Duration::from_secs(400));
            prop_assert!(world.engine.contexts.is_empty(), "{:?}", world.engine.contexts);
            prop_assert!(world.engine.is_empty() && world.engine.open.is_empty());
        }
    }
}

#[test]
fn a_domain_has_a_registrar_and_stays_in_the_path_of_its_dialogs() {
    let mut world = World::with(|config| config.realm.overlay = OverlayId::parse("example.com").unwrap());
    let config = world.engine.config.clone();
    world.engine = Engine::of_domain(config, world.now);
    world.users = BTreeMap::from([(
        "bob".to_owned(),
        Located::Groups(vec![vec![Target {
            uri: Some("sip:bob@203.0.113.5".into()),
            place: Place::Hops(vec![server("203.0.113.5:5060")]),
        }]]),
    )]);
    let (bob, to) = ("sip:bob@example.com", "<sip:bob@example.com>");
    world.receive(request(&outside(), "REGISTER sip:example.com", bob, to, "1", ""), &outside());
    world.expect(&["200 REGISTER to 198.51.100.7:5060"]);
    let (alice, recorded) = ("sip:alice@p2psip.org", "Record-Route: <sip:p2psip.org;lr>");
    world.receive(request(&outside(), "INVITE sip:bob@example.com", alice, to, "2", recorded), &outside());
    let sent = world.expect(&["100 INVITE to 198.51.100.7:5060", "INVITE to 203.0.113.5:5060"]);
    assert_eq!(sent[1].1.request_uri(), Some("sip:bob@203.0.113.5"));
    let recorded = ["<sip:example.com;lr>", "<sip:p2psip.org;lr>"];
    assert_eq!(values(&sent[1].1, Name::RecordRoute), recorded, "although both sides are outside");
}

#[test]
fn a_user_who_has_moved_is_looked_up_again() {
    let mut world = World::new();
    let sent =
        world.receive(invite_bob("1", ""), &outside()).expect(&["100 INVITE to 198.51.100.7:5060", "INVITE to peer 2"]);
    assert_eq!(sent.len(), 2);
    // Meanwhile the driver has learnt that the peer is gone.
    world.users.insert("bob".to_owned(), Located::Groups(vec![vec![at_peer(3), at_peer(4)]]));
    let token = *world.tokens.last().unwrap();
    world.engine.transport_failed(token, world.now);
    world.drain();
    let sent = world.expect(&["INVITE to peer 3", "INVITE to peer 4"]);
    world.answer(&sent[1], 486).answer(&sent[0], 200);
    world.expect(&["ACK to peer 4", "200 INVITE to 198.51.100.7:5060"]);
    world.after(Duration::from_secs(200));
    assert!(world.engine.contexts.is_empty() && world.engine.is_empty() && world.engine.by_client.is_empty());
}

#[test]
fn a_user_who_cannot_be_reached_is_looked_up_twice_and_no_more() {
    let mut world = World::new();
    world.receive(invite_bob("1", ""), &outside());
    for _ in 0..2 {
        let token = *world.tokens.last().unwrap();
        world.engine.transport_failed(token, world.now);
        world.drain();
    }
    world.expect(&[
        "100 INVITE to 198.51.100.7:5060",
        "INVITE to peer 2",
        "INVITE to peer 2",
        "480 INVITE to 198.51.100.7:5060",
    ]);
    // Whoever gives up while the second lookup runs gets a 487, and nobody is called any more.
    world.receive(invite_bob("2", ""), &outside());
    world.silent = true;
    let token = *world.tokens.last().unwrap();
    world.engine.transport_failed(token, world.now);
    world.drain();
    world.expect(&["100 INVITE to 198.51.100.7:5060", "INVITE to peer 2"]);
    let cancel =
        request(&outside(), "CANCEL sip:bob@p2psip.org", "sip:carol@example.com", "<sip:bob@p2psip.org>", "2", "");
    world.receive(cancel, &outside());
    world.expect(&["200 CANCEL to 198.51.100.7:5060", "487 INVITE to 198.51.100.7:5060"]);
    let question = world.open.pop().unwrap();
    world.engine.located(question, Located::Groups(vec![vec![at_peer(2)]]), world.now);
    world.drain();
    world.expect(&[]);
}

#[test]
fn a_preferred_identity_says_who_a_member_is_and_goes_no_further() {
    let mut world = World::new();
    let invite = |more: &str| {
        request(&stream(1), "INVITE sip:carol@example.com", "sip:alice@example.org", "<sip:c@d>", "1", more)
    };
    let own = "P-Preferred-Identity: \"Alice\" <sip:alice@p2psip.org>";
    let sent = world.receive(invite(own), &stream(1)).expect(&["100 INVITE to peer 1", "INVITE to 203.0.113.5:5060"]);
    assert_eq!(values(&sent[1].1, Name::PPreferredIdentity), [""; 0]);
}

#[test]
fn a_via_names_the_port_that_its_transport_is_served_at() {
    let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
    let mut world = World::with(|config| {
        config.realm.own = vec![(Protocol::Udp, at(5070)), (Protocol::Tcp, at(5070)), (Protocol::Tls, at(5071))];
    });
    for (protocol, port) in [(Protocol::Udp, 5070), (Protocol::Tcp, 5070), (Protocol::Tls, 5071)] {
        let hop = Hop::socket(protocol, "203.0.113.5:5080".parse().unwrap());
        world.servers.insert("sip:carol@example.com".to_owned(), Located::Hops(vec![hop]));
        let from = "sip:alice@p2psip.org";
        world.receive(
            request(&stream(1), "INVITE sip:carol@example.com", from, "<sip:c@d>", protocol.token(), ""),
            &stream(1),
        );
        let (_, invite) = world.sent.pop().unwrap();
        let via = invite.top_via().unwrap();
        assert_eq!((via.transport, via.port), (protocol.token(), Some(port)));
    }
}
