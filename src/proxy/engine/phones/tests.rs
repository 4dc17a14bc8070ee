use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::{
    name::{Aor, OverlayId, PeerId},
    proxy::{
        adapter,
        engine::{Config, Question, What},
        fork::Patience,
        route::Realm,
        throttle::Rate,
    },
    sip::{
        Method,
        digest::{Asker, Keyring, Protected, Secret, Terms, User},
        transaction,
        transport::{FlowId, via_host},
    },
};

const ADAPTER: &str = "192.0.2.1:5070";
const PUBLIC: &str = "192.0.2.1:5060";
const DESK: &str = "10.0.0.1:5060";
const MOBILE: &str = "10.0.0.2:5060";
const BOB: &str = "10.0.0.3:5060";
const OWN_PEER: u8 = 99;
const ROUTE: &str = "<sip:p2psip.org;lr>";

struct World {
    engine: Engine,
    now: Instant,
    /// Whether routing records are stored.
    stores: bool,
    published: Vec<(InstanceId, bool)>,
    asked: Vec<What>,
    sent: Vec<(Hop, Message)>,
}

fn peer(n: u8) -> PeerId {
    PeerId::from_public_key([n; 32])
}

fn aor(user: &str) -> Aor {
    Aor::parse(&format!("sip:{user}@p2psip.org")).unwrap()
}

fn instance(user: &str) -> InstanceId {
    InstanceId::of_key(&[user.len() as u8; 32])
}

fn udp(remote: &str, local: &str) -> Source {
    Source::socket(Protocol::Udp, remote.parse().unwrap(), local.parse().unwrap(), FlowId(1))
}

fn phone(address: &str) -> Source {
    udp(address, ADAPTER)
}

fn stream(n: u8) -> Source {
    Source::peer(peer(n), FlowId(100 + u64::from(n)))
}

fn at(address: &str) -> Remote {
    Remote::Socket(address.parse().unwrap())
}

/// What a message says in all lines of a name.
fn values(message: &Message, name: Name<'static>) -> Vec<String> {
    message.values(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

/// A request as somebody at `source` sends it. `more` are whole lines with `\n` between them.
fn request(source: &Source, start: &str, from: &str, to: &str, number: u32, more: &str) -> Message {
    let (method, _) = start.split_once(' ').unwrap();
    let via = match source.remote {
        Remote::Peer(peer) => format!("SIP/2.0/OVERLAY {}", via_host(&peer)),
        Remote::Socket(address) => format!("SIP/2.0/{} {address};rport", source.protocol),
    };
    let more: String = more.lines().map(|line| format!("{line}\r\n")).collect();
    let branch = getrandom::u64().unwrap();
    let text = format!(
        "{start} SIP/2.0\r\nVia: {via};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\nFrom: <{from}>;tag=f\r\n\
         To: {to}\r\nCall-ID: c-{from}\r\nCSeq: {number} {method}\r\n{more}Content-Length: 0\r\n\r\n"
    );
    Message::parse(Bytes::from(text)).unwrap()
}

impl World {
    fn new() -> Self {
        Self::with(true)
    }

    fn with(alone: bool) -> Self {
        let now = Instant::now();
        let own = [PUBLIC, ADAPTER].map(|own| (Protocol::Udp, own.parse().unwrap())).to_vec();
        let config = Config {
            realm: Realm { overlay: OverlayId::parse("p2psip.org").unwrap(), own },
            peer: peer(OWN_PEER),
            transactions: transaction::Config::default(),
            patience: Patience::default(),
            rate: Rate::default(),
        };
        let phone = |user: &str, of: &str| adapter::Phone {
            aor: aor(of),
            user: user.to_owned(),
            secret: Secret::of_password(user, "p2psip.org", "secret"),
            instance: instance(user),
        };
        let phones = vec![phone("desk", "alice"), phone("mobile", "alice"), phone("bob", "bob")];
        let adapter = Adapter::new(
            adapter::Config {
                phones,
                listening: vec![ADAPTER.parse().unwrap()],
                terms: Terms::new("p2psip.org"),
                key: [5; 32],
                rate: Rate { per_second: 10.0, burst: 50.0 },
                expires: Duration::from_secs(60)..=Duration::from_secs(600),
                record: Duration::from_secs(600),
                alone,
            },
            now,
        );
        let engine = Engine::new(config, now).with_adapter(adapter);
        Self { engine, now, stores: true, published: Vec::new(), asked: Vec::new(), sent: Vec::new() }
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
                Output::Send { to, bytes, .. } => self.sent.push((to, Message::parse(bytes).unwrap())),
                Output::Publish { instance, present } => {
                    self.published.push((instance, present));
                    self.engine.published(instance, self.stores, self.now);
                }
                Output::Locate { question, what } => self.locate(question, what),
                Output::Identify { question, .. } => self.engine.identified(question, &[], self.now),
                Output::Register { .. } | Output::Probed(_) => panic!("this is no domain, and nobody probes it"),
                Output::Learned { .. } => {}
            }
        }
    }

    /// Everybody who is no phone here is at peer 2, and the proxy peer is peer 50.
    fn locate(&mut self, question: Question, what: What) {
        let hop = |n| Hop::peer(peer(n), []);
        let to = |hop| Target { uri: None, place: Place::Hops(vec![hop]) };
        let located = match &what {
            What::User { aor, .. } if ["alice", "bob"].contains(&aor.user()) => {
                Located::Groups(vec![vec![to(hop(OWN_PEER)), to(hop(3))]])
            }
            What::User { .. } => Located::Groups(vec![vec![to(hop(2))]]),
            What::Proxy => Located::Hops(vec![hop(50)]),
            What::Uri { .. } => Located::Hops(vec![Hop::socket(Protocol::Udp, "203.0.113.5:5060".parse().unwrap())]),
        };
        self.asked.push(what);
        self.engine.located(question, located, self.now);
    }

    /// Sends a request, and again with credentials when it is challenged; returns the response after that.
    fn authenticated(
        &mut self,
        user: &str,
        password: &str,
        source: &Source,
        make: impl Fn(&str) -> Message,
    ) -> Message {
        self.receive(make(""), source);
        let (_, challenge) = self.sent.pop().unwrap();
        let (asker, name, answer) = match challenge.status() {
            Some(401) => (Asker::Server, Name::WwwAuthenticate, "Authorization"),
            Some(407) => (Asker::Proxy, Name::ProxyAuthenticate, "Proxy-Authorization"),
            _ => return challenge,
        };
        let mut keyring = Keyring::new(User { name: user.to_owned(), password: password.to_owned() });
        keyring.challenged(asker, challenge.values(name), "c0ffee").unwrap();
        let first = make("");
        let (method, uri) = (first.method().as_str().to_owned(), first.request_uri().unwrap().to_owned());
        let request = Protected { method: &method, uri: &uri, body: b"" };
        let credentials = keyring.credentials(&request).remove(0).1;
        self.receive(make(&format!("{answer}: {credentials}\n")), source);
        self.sent.pop().map(|(_, message)| message).unwrap()
    }

    fn register_as(&mut self, user: &str, password: &str, of: &str, address: &str, number: u32, more: &str) -> Message {
        let source = phone(address);
        let uri = format!("sip:{of}@p2psip.org");
        let make = |credentials: &str| {
            let number = if credentials.is_empty() { number } else { number + 1 };
            let (to, more) = (format!("<{uri}>"), format!("{more}\n{credentials}"));
            request(&source, "REGISTER sip:p2psip.org", &uri, &to, number, more.trim_start())
        };
        self.authenticated(user, password, &source, make)
    }

    fn register(&mut self, user: &str, of: &str, address: &str) -> Message {
        self.register_as(user, "secret", of, address, 1, &format!("Contact: <sip:{user}@{address}>;expires=300"))
    }

    /// The requests and responses sent since the last time.
    fn sent(&mut self) -> Vec<(Hop, Message)> {
        std::mem::take(&mut self.sent)
    }

    /// The only request that was sent, other than responses.
    #[track_caller]
    fn request(&mut self) -> (Hop, Message) {
        let mut requests: Vec<_> = self.sent().into_iter().filter(|(_, message)| message.is_request()).collect();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// The last response that was sent.
    #[track_caller]
    fn response(&mut self) -> (Hop, Message) {
        self.sent().into_iter().rfind(|(_, message)| !message.is_request()).unwrap()
    }

    /// Answers a request as whoever is at its hop.
    fn answer(&mut self, hop: &Hop, request: &Message, status: u16, contact: &str) {
        let response = respond::respond(request, status, "", Some("t")).header(Name::Contact, contact).finish();
        let source = match hop.remote {
            Remote::Peer(peer) => Source::peer(peer, FlowId(200)),
            Remote::Socket(address) => udp(&address.to_string(), ADAPTER),
        };
        self.receive(Message::parse(response).unwrap(), &source);
    }
}

#[test]
fn a_phone_is_registered_when_its_record_is_stored() {
    let mut world = World::new();
    let ok = world.register("desk", "alice", DESK);
    assert_eq!(ok.status(), Some(200), "{ok:?}");
    assert_eq!(values(&ok, Name::Contact), ["<sip:desk@10.0.0.1:5060>;expires=300"]);
    assert_eq!(world.published, [(instance("desk"), true)]);

    world.stores = false;
    let unreachable = world.register("bob", "bob", BOB);
    assert_eq!(unreachable.status(), Some(503), "{unreachable:?}");
    assert!(unreachable.header(Name::RetryAfter).is_some());
    assert_eq!(world.engine.adapter().unwrap().registered(), 1);
}

#[test]
fn refreshing_touches_no_record_until_it_needs_to_be_renewed() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    for number in 0..8 {
        world.after(Duration::from_secs(100));
        let number = 10 + 2 * number;
        let contact = format!("Contact: <sip:desk@{DESK}>;expires=300");
        assert_eq!(world.register_as("desk", "secret", "alice", DESK, number, &contact).status(), Some(200));
    }
    // 800 s, of which every 300 one renewal.
    assert_eq!(world.published, vec![(instance("desk"), true); 3]);
}

#[test]
fn a_record_follows_its_phone_out_when_that_expires_or_unregisters() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    world.after(Duration::from_secs(299));
    assert_eq!(world.published.len(), 1);
    world.after(Duration::from_secs(2));
    assert_eq!(world.published.last(), Some(&(instance("desk"), false)));

    for more in ["Contact: *\nExpires: 0", "Contact: <sip:desk@10.0.0.1:5060>;expires=0"] {
        world.register("desk", "alice", DESK);
        assert_eq!(world.published.last(), Some(&(instance("desk"), true)));
        let gone = world.register_as("desk", "secret", "alice", DESK, 20, more);
        assert_eq!((gone.status(), values(&gone, Name::Contact)), (Some(200), Vec::new()));
        assert_eq!(world.published.last(), Some(&(instance("desk"), false)));
    }
}

#[test]
fn leaving_takes_every_record_out() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    world.register("bob", "bob", BOB);
    world.published.clear();
    world.engine.drain(world.now);
    assert!(!world.engine.is_idle());
    world.drain();
    assert!(world.engine.is_idle());
    world.published.sort();
    let mut gone = vec![(instance("desk"), false), (instance("bob"), false)];
    gone.sort();
    assert_eq!(world.published, gone);
}

#[test]
fn who_is_not_who_he_says_is_refused() {
    let mut world = World::new();
    let contact = format!("Contact: <sip:x@{DESK}>");
    for (user, password, of, status) in [
        ("desk", "wrong", "alice", 401),
        ("mallory", "secret", "alice", 401),
        ("bob", "secret", "alice", 403),
        ("desk", "secret", "bob", 403),
    ] {
        let answer = world.register_as(user, password, of, DESK, 1, &contact);
        assert_eq!(answer.status(), Some(status), "{user} as {of}");
    }
    assert!(world.published.is_empty());

    // Not registered; From of somebody else; and in the right order it works.
    let source = phone(DESK);
    let call = |world: &mut World, from: &str| {
        let make = |credentials: &str| {
            let (start, to) = ("INVITE sip:carol@p2psip.org", "<sip:carol@p2psip.org>");
            request(&source, start, from, to, 1, &format!("Contact: <sip:x@{DESK}>\n{credentials}"))
        };
        world.authenticated("desk", "secret", &source, make)
    };
    assert_eq!(call(&mut world, "sip:alice@p2psip.org").status(), Some(403));
    world.register("desk", "alice", DESK);
    assert_eq!(call(&mut world, "sip:bob@p2psip.org").status(), Some(403));
    assert_eq!(call(&mut world, "sip:alice@example.org").status(), Some(403));
    assert_eq!(call(&mut world, "sip:anonymous@anonymous.invalid").method(), Method::Invite);
    assert_eq!(call(&mut world, "sip:alice@p2psip.org").method(), Method::Invite);
}

#[test]
fn a_registrar_answers_what_it_does_not_grant() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    let mut number = 10;
    let mut register = |more: &str| {
        number += 2;
        let answer = world.register_as("desk", "secret", "alice", DESK, number, more);
        (answer.status().unwrap(), values(&answer, Name::MinExpires))
    };
    assert_eq!(register("Contact: <sip:x@10.0.0.1>;expires=5"), (423, vec!["60".to_owned()]));
    assert_eq!(register("Contact: *").0, 400);
    assert_eq!(register("Contact: <tel:+123>").0, 400);
    assert_eq!(register(&format!("Contact: <sip:x@{ADAPTER}>")).0, 400, "a loop");
    assert_eq!(register("Contact: <sip:x@p2psip.org>").0, 400, "a loop");
    assert_eq!(register("").0, 200, "a question");
    let old = world.register_as("desk", "secret", "alice", DESK, 1, "Contact: <sip:x@10.0.0.1>;expires=90");
    assert_eq!(old.status(), Some(500), "out of order");
    let long = world.register_as("desk", "secret", "alice", DESK, 90, "Contact: <sip:x@10.0.0.1>\nExpires: 7200");
    assert_eq!(values(&long, Name::Contact), ["<sip:x@10.0.0.1>;expires=600"], "shortened");
}

#[test]
fn an_outgoing_call_shows_the_overlay_url_and_comes_back_to_the_phone() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    let source = phone(DESK);
    let make = |credentials: &str| {
        let contact = format!("\"Desk\" <sip:desk@{DESK};ob>;+sip.instance=\"<urn:x>\"");
        let more = format!("Contact: {contact}\nP-Preferred-Identity: <sip:bob@p2psip.org>\n{credentials}");
        request(&source, "INVITE sip:carol@p2psip.org", "sip:alice@p2psip.org", "<sip:carol@p2psip.org>", 1, &more)
    };
    let invite = world.authenticated("desk", "secret", &source, make);
    let gruu = format!("sip:alice@p2psip.org;gr={}", instance("desk"));
    assert_eq!(values(&invite, Name::Contact), [format!("<{gruu}>;+sip.instance=\"<urn:x>\"")]);
    assert!(invite.header(Name::ProxyAuthorization).is_none(), "meant for us alone");
    assert!(invite.header(Name::PPreferredIdentity).is_none(), "bob has a phone here too, and this is not it");
    assert!(invite.header(Name::RecordRoute).is_none(), "the far side does not see the adapter");
    assert_eq!(invite.request_uri(), Some("sip:carol@p2psip.org"));
    assert_eq!(world.asked, [What::User { aor: aor("carol"), instance: None, source: at(DESK) }]);

    let hop = Hop::peer(peer(2), []);
    world.answer(&hop, &invite, 200, "<sip:carol@p2psip.org;gr=x>");
    let (to, ok) = world.response();
    assert_eq!(to.remote, at(DESK));
    let route = format!("<sip:{}@{ADAPTER};lr>", instance("desk"));
    assert_eq!(values(&ok, Name::RecordRoute), [route.as_str()]);
    assert_eq!(values(&ok, Name::Contact), ["<sip:carol@p2psip.org;gr=x>"], "the far side's own");

    // The ACK is not challenged, from where the phone is; from elsewhere it is dropped, and a BYE challenged.
    let to = "<sip:carol@p2psip.org>;tag=t";
    let (from, route) = ("sip:alice@p2psip.org", format!("Route: {route}"));
    for (method, source) in [("ACK", phone(DESK)), ("BYE", phone(DESK)), ("BYE", phone("10.6.6.6:5060"))] {
        let start = format!("{method} sip:carol@p2psip.org;gr=x");
        world.receive(request(&source, &start, from, to, 2, &route), &source);
        let (hop, message) = world.sent().pop().unwrap();
        if source == phone(DESK) {
            assert_eq!((hop.remote, message.method().as_str()), (Remote::Peer(peer(2)), method));
            assert_eq!(message.routes().count(), 0);
        } else {
            assert_eq!(message.status(), Some(407));
        }
    }
    let stranger = phone("10.6.6.6:5060");
    world.receive(request(&stranger, "ACK sip:carol@p2psip.org;gr=x", from, to, 2, &route), &stranger);
    assert!(world.sent().is_empty());
}

#[test]
fn a_call_for_a_user_rings_at_all_phones_and_a_device_at_its_own() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    world.register("mobile", "alice", MOBILE);
    world.register("bob", "bob", BOB);
    let to = "<sip:alice@p2psip.org>";
    let invite =
        |start: &str| request(&stream(7), start, "sip:carol@p2psip.org", to, 1, "Contact: <sip:carol@p2psip.org>");
    world.receive(invite("INVITE sip:alice@p2psip.org"), &stream(7));
    let rings: Vec<_> = world.sent().into_iter().filter(|(_, message)| message.is_request()).collect();
    let mut remotes: Vec<_> = rings.iter().map(|(hop, _)| hop.remote).collect();
    remotes.sort();
    assert_eq!(remotes, [at(DESK), at(MOBILE)]);
    assert!(world.asked.is_empty(), "nobody is asked where our own phones are");

    // The mobile phone answers; the desk is cancelled.
    let (hop, ring) = rings.iter().find(|(hop, _)| hop.remote == at(MOBILE)).unwrap();
    assert_eq!(ring.request_uri(), Some("sip:mobile@10.0.0.2:5060"));
    let route = format!("<sip:{}@{ADAPTER};lr>", instance("mobile"));
    assert_eq!(values(ring, Name::RecordRoute), [route.as_str()]);
    world.answer(hop, ring, 200, &format!("<sip:mobile@{MOBILE};ob>"));
    let (back, ok) = world.response();
    assert_eq!(back.remote, Remote::Peer(peer(7)));
    let gruu = format!("sip:alice@p2psip.org;gr={}", instance("mobile"));
    assert_eq!(values(&ok, Name::Contact), [format!("<{gruu}>")]);
    assert!(ok.header(Name::RecordRoute).is_none(), "only the phone sees it");

    // What comes later in the dialog names the device.
    let start = format!("BYE {gruu}");
    world.receive(request(&stream(7), &start, "sip:carol@p2psip.org", &format!("{to};tag=t"), 2, ""), &stream(7));
    let (hop, bye) = world.request();
    assert_eq!((hop.remote, bye.request_uri()), (at(MOBILE), Some("sip:mobile@10.0.0.2:5060")));
    world
        .receive(request(&stream(7), &format!("ACK {gruu}"), "sip:c@d.org", &format!("{to};tag=t"), 1, ""), &stream(7));
    assert_eq!(world.request().0.remote, at(MOBILE));

    // The callee hangs up: its From is what the caller has called.
    let more = format!("Route: {route}");
    let start = "BYE sip:carol@p2psip.org;gr=y";
    let bye = request(&phone(MOBILE), start, "sip:alice@p2psip.org", "<sip:carol@p2psip.org>;tag=f", 1, &more);
    world.receive(bye, &phone(MOBILE));
    assert_eq!(world.request().0.remote, Remote::Peer(peer(2)));
}

#[test]
fn who_is_not_here_is_told_from_who_is_unknown() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    let mut call = |uri: String| {
        let invite = request(&stream(7), &format!("INVITE {uri}"), "sip:carol@p2psip.org", "<sip:x@p2psip.org>", 1, "");
        world.receive(invite, &stream(7));
        world.response().1.status().unwrap()
    };
    assert_eq!(call("sip:nobody@p2psip.org".to_owned()), 404);
    assert_eq!(call("sip:bob@p2psip.org".to_owned()), 480, "has a phone, which is not registered");
    assert_eq!(call(format!("sip:alice@p2psip.org;gr={}", instance("mobile"))), 480);
    assert_eq!(call("sip:alice@p2psip.org;gr=nonsense".to_owned()), 480);
    assert_eq!(call("sip:carol@example.com".to_owned()), 403, "no proxy peer");
}

#[test]
fn what_leaves_the_overlay_goes_to_a_proxy_peer() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    let source = phone(DESK);
    let make = |credentials: &str| {
        // As a phone with an outbound proxy writes it.
        let more = format!("Route: <sip:{ADAPTER};lr>\nContact: <sip:desk@{DESK}>\n{credentials}");
        request(&source, "INVITE sip:carol@example.com", "sip:alice@p2psip.org", "<sip:carol@example.com>", 1, &more)
    };
    let invite = world.authenticated("desk", "secret", &source, make);
    assert_eq!(invite.request_uri(), Some("sip:carol@example.com"));
    assert_eq!(values(&invite, Name::Route), [ROUTE]);
    assert_eq!(world.asked, [What::Proxy]);
    world.answer(&Hop::peer(peer(50), []), &with_route(&invite), 200, "<sip:carol@203.0.113.5>");
    let (_, ok) = world.response();
    let own = format!("<sip:{}@{ADAPTER};lr>", instance("desk"));
    assert_eq!(values(&ok, Name::RecordRoute), [ROUTE, own.as_str()], "the adapter is the nearest to its phone");

    // Later requests carry both, in the other order.
    let more = format!("Route: {own}, {ROUTE}\nContact: <sip:desk@{DESK}>");
    let to = "<sip:carol@example.com>;tag=t";
    let again = request(&source, "INVITE sip:carol@203.0.113.5", "sip:alice@p2psip.org", to, 3, &more);
    world.receive(again, &source);
    let (hop, again) = world.request();
    assert_eq!((hop.remote, values(&again, Name::Route)), (Remote::Peer(peer(50)), vec![ROUTE.to_owned()]));
}

/// The request with the Record-Route that a proxy peer adds.
fn with_route(message: &Message) -> Message {
    let mut edit = Edit::new(message);
    edit.prepend(Name::RecordRoute, ROUTE);
    Message::parse(edit.finish()).unwrap()
}

#[test]
fn a_proxy_peer_with_phones_is_both() {
    let mut world = World::with(false);
    world.register("desk", "alice", DESK);
    let source = phone(DESK);
    let make = |credentials: &str| {
        let more = format!("Contact: <sip:desk@{DESK}>\n{credentials}");
        request(&source, "INVITE sip:carol@example.com", "sip:alice@p2psip.org", "<sip:carol@example.com>", 1, &more)
    };
    let invite = world.authenticated("desk", "secret", &source, make);
    assert!(values(&invite, Name::Route).is_empty());
    assert_eq!(values(&invite, Name::RecordRoute), [ROUTE], "it crosses the boundary here");
    assert!(values(&invite, Name::Via)[0].contains(PUBLIC), "{invite:?}");

    // From outside, at the other port: to the phone here, and to the contact elsewhere.
    let outside = udp("198.51.100.7:5060", PUBLIC);
    let more = "Contact: <sip:dave@198.51.100.7>";
    let call = request(&outside, "INVITE sip:alice@p2psip.org", "sip:dave@d.org", "<sip:alice@p2psip.org>", 1, more);
    world.receive(call, &outside);
    let rings: Vec<_> = world.sent().into_iter().filter(|(_, message)| message.is_request()).collect();
    let mut remotes: Vec<_> = rings.iter().map(|(hop, _)| hop.remote).collect();
    remotes.sort();
    assert_eq!(remotes, [at(DESK), Remote::Peer(peer(3))]);
    let (hop, ring) = rings.iter().find(|(hop, _)| hop.remote == at(DESK)).unwrap();
    let own = format!("<sip:{}@{ADAPTER};lr>", instance("desk"));
    assert_eq!(values(ring, Name::RecordRoute), [own.as_str(), ROUTE]);
    assert!(values(ring, Name::Via)[0].contains(ADAPTER), "from the port that the phone knows");
    world.answer(hop, ring, 200, &format!("<sip:desk@{DESK}>"));
    assert_eq!(values(&world.response().1, Name::RecordRoute), [ROUTE]);

    // Nobody outside gets in by the phones' port, nor registers at the public one.
    let stranger = phone("198.51.100.7:5060");
    let make = |port: &Source| {
        request(port, "REGISTER sip:p2psip.org", "sip:alice@p2psip.org", "<sip:alice@p2psip.org>", 1, "")
    };
    world.receive(make(&stranger), &stranger);
    assert_eq!(world.response().1.status(), Some(401));
    world.receive(make(&outside), &outside);
    assert_eq!(world.response().1.status(), Some(405));
}

#[test]
fn two_phones_here_talk_to_each_other() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    world.register("bob", "bob", BOB);
    let source = phone(DESK);
    let make = |credentials: &str| {
        let uri = format!("sip:bob@p2psip.org;gr={}", instance("bob"));
        let more = format!("Contact: <sip:desk@{DESK}>\n{credentials}");
        request(&source, &format!("INVITE {uri}"), "sip:alice@p2psip.org", &format!("<{uri}>"), 1, &more)
    };
    let invite = world.authenticated("desk", "secret", &source, make);
    let of = |user: &str| format!("<sip:{}@{ADAPTER};lr>", instance(user));
    assert_eq!(invite.request_uri(), Some("sip:bob@10.0.0.3:5060"));
    assert_eq!(values(&invite, Name::RecordRoute), [of("bob")]);
    assert_eq!(values(&invite, Name::Contact), [format!("<sip:alice@p2psip.org;gr={}>", instance("desk"))]);
    world.answer(&Hop::socket(Protocol::Udp, BOB.parse().unwrap()), &invite, 200, &format!("<sip:bob@{BOB}>"));
    let (_, ok) = world.response();
    assert_eq!(values(&ok, Name::RecordRoute), [of("desk")]);
    assert_eq!(values(&ok, Name::Contact), [format!("<sip:bob@p2psip.org;gr={}>", instance("bob"))]);
}

#[test]
fn a_phone_behind_a_nat_is_reached_where_it_came_from() {
    let mut world = World::new();
    world.register_as("desk", "secret", "alice", "203.0.113.9:31000", 1, "Contact: <sip:desk@192.168.1.5:5060>");
    let invite =
        request(&stream(7), "INVITE sip:alice@p2psip.org", "sip:c@p2psip.org", "<sip:alice@p2psip.org>", 1, "");
    world.receive(invite, &stream(7));
    let (hop, invite) = world.request();
    assert_eq!((hop.remote, hop.local), (at("203.0.113.9:31000"), Some(ADAPTER.parse().unwrap())));
    assert_eq!(invite.request_uri(), Some("sip:desk@192.168.1.5:5060"));
}

#[test]
fn a_redirection_by_a_phone_names_whom_it_names() {
    let mut world = World::new();
    world.register("desk", "alice", DESK);
    let invite =
        request(&stream(7), "INVITE sip:alice@p2psip.org", "sip:c@p2psip.org", "<sip:alice@p2psip.org>", 1, "");
    world.receive(invite, &stream(7));
    let (hop, invite) = world.request();
    world.answer(&hop, &invite, 302, "<sip:bob@p2psip.org>");
    assert_eq!(values(&world.response().1, Name::Contact), ["<sip:bob@p2psip.org>"]);
}

#[test]
fn a_flood_is_throttled_and_others_are_served() {
    let mut world = World::new();
    let flooder = phone("10.9.9.9:5060");
    let mut statuses = Vec::new();
    for number in 0..80 {
        let uri = "sip:alice@p2psip.org";
        world
            .receive(request(&flooder, "REGISTER sip:p2psip.org", uri, "<sip:alice@p2psip.org>", number, ""), &flooder);
        statuses.push(world.response().1.status().unwrap());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 50);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 30);
    assert_eq!(world.register("desk", "alice", DESK).status(), Some(200));
}
