//! Ordinary phones in the overlay: scripted ones on real sockets, registered at adapters of real members, and called
//! and calling, inside the overlay and across the boundary.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use p2psip::{
    client::Verdict,
    dns::{
        Resolver,
        locate::{Locator, Options},
    },
    member::adapter::Phones,
    member::{AdapterConfig, AdapterError, Member, Phone as Entry, Proxy, ProxyConfig, ProxyError},
    name::{ResourceName, Service, ServiceUri},
    proxy::throttle::Rate,
    sip::{
        Message,
        digest::{Algorithm, Asker, Keyring, Protected, Secret, User as Login},
        header::Name,
        respond,
        transport::{Config, Event, Hop, Protocol, Source, Transports},
    },
};
use tokio::sync::mpsc;

use crate::{
    support::{files_below, root},
    world::{PATIENCE, TestWorld, User},
};

/// How long a message may take: a proxy peer that has died is given up after seconds on a loaded machine.
const SLOW: Duration = PATIENCE.saturating_mul(3);
/// The members that are proxy peers in the tests that have some.
const PROXIES: [usize; 2] = [7, 8];

/// A phone that does nothing by itself.
struct Phone {
    transports: Transports,
    events: mpsc::Receiver<Event>,
    /// The address of record.
    aor: String,
    login: Login,
    protocol: Protocol,
    address: SocketAddr,
    /// Where its requests go.
    proxy: Hop,
    number: u32,
}

/// A dialog as one side knows it.
#[derive(Clone)]
struct Dialog {
    target: String,
    routes: Vec<String>,
    /// From and To of our requests.
    from: String,
    to: String,
    call_id: String,
}

impl Phone {
    fn new(protocol: Protocol, aor: &str, user: &str, proxy: Hop) -> Self {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = Transports::bind(Config { listen: vec![(protocol, local)], ..Config::default() }).unwrap();
        bound.transports.serve_udp(&bound.udp).unwrap();
        let (_, address) = bound.transports.listening()[0];
        let login = Login { name: user.to_owned(), password: "secret".to_owned() };
        let (transports, events) = (bound.transports, bound.events);
        Self { transports, events, aor: aor.to_owned(), login, protocol, address, proxy, number: 0 }
    }

    /// One of the public network.
    fn outside() -> Self {
        let nowhere = Hop::socket(Protocol::Udp, ([127, 0, 0, 1], 9).into());
        Self::new(Protocol::Udp, "sip:carol@example.com", "carol", nowhere)
    }

    fn contact(&self) -> String {
        let transport = if self.protocol == Protocol::Tcp { ";transport=tcp" } else { "" };
        format!("sip:phone@{}{transport}", self.address)
    }

    fn send(&self, hop: &Hop, bytes: impl Into<Bytes>) {
        self.transports.send(hop, bytes.into(), 1).unwrap();
    }

    /// Sends a request outside of any dialog; `more` are whole lines with `\n` between them. Returns its Call-ID.
    fn request(&mut self, start: &str, to: &str, call_id: &str, more: &str) {
        let from = format!("<{}>;tag=near", self.aor);
        let proxy = self.proxy.clone();
        self.request_as(&proxy, start, &from, to, call_id, more);
    }

    fn request_as(&mut self, hop: &Hop, start: &str, from: &str, to: &str, call_id: &str, more: &str) {
        let (method, _) = start.split_once(' ').unwrap();
        self.number += 1;
        let (number, address, protocol) = (self.number, self.address, self.protocol);
        let more: String = more.lines().map(|line| format!("{line}\r\n")).collect();
        self.send(
            hop,
            format!(
                "{start} SIP/2.0\r\nVia: SIP/2.0/{protocol} {address};rport;branch=z9hG4bK{method}{number}{}\r\n\
                 Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {number} {method}\r\n\
                 Contact: <{}>\r\n{more}Content-Length: 0\r\n\r\n",
                address.port(),
                self.contact(),
            ),
        );
    }

    /// Sends a request, and once more with credentials if it is challenged; returns the final response.
    async fn ask(&mut self, start: &str, to: &str, call_id: &str, more: &str) -> Message {
        self.request(start, to, call_id, more);
        let response = self.response().await;
        let (asker, name, answer) = match response.status() {
            Some(401) => (Asker::Server, Name::WwwAuthenticate, "Authorization"),
            Some(407) => (Asker::Proxy, Name::ProxyAuthenticate, "Proxy-Authorization"),
            _ => return response,
        };
        let (method, uri) = start.split_once(' ').unwrap();
        if method == "INVITE" {
            let hop = self.proxy.clone();
            self.number -= 1;
            let branch = response.top_via().unwrap().branch().unwrap().to_owned();
            let address = self.address;
            self.number += 1;
            let (number, from, protocol) = (self.number, &self.aor, self.protocol);
            let ack = format!(
                "ACK {uri} SIP/2.0\r\nVia: SIP/2.0/{protocol} {address};rport;branch={branch}\r\nMax-Forwards: 70\r\n\
                 From: <{from}>;tag=near\r\nTo: {to};tag=x\r\nCall-ID: {call_id}\r\nCSeq: {number} ACK\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            self.send(&hop, ack);
        }
        let mut login = Keyring::new(self.login.clone());
        login.challenged(asker, response.values(name), "c0ffee").unwrap();
        let credentials = login.credentials(&Protected { method, uri, body: b"" }).remove(0).1;
        self.request(start, to, call_id, &format!("{answer}: {credentials}\n{more}"));
        self.response().await
    }

    async fn register(&mut self, expires: u32) -> u16 {
        let (to, start) = (format!("<{}>", self.aor), "REGISTER sip:p2psip.org");
        // Each phone its own Call-ID, so that its numbers are in order.
        let call_id = format!("register-{}", self.address.port());
        self.ask(start, &to, &call_id, &format!("Expires: {expires}")).await.status().unwrap()
    }

    /// Calls somebody; the final response.
    async fn call(&mut self, uri: &str, call_id: &str) -> Message {
        self.ask(&format!("INVITE {uri}"), &format!("<{uri}>"), call_id, "").await
    }

    async fn next(&mut self) -> (Message, Source) {
        loop {
            let event = tokio::time::timeout(SLOW, self.events.recv()).await.expect("nothing comes");
            if let Some(Event::Message { message, source }) = event {
                return (message, source);
            }
        }
    }

    /// The next final response.
    async fn response(&mut self) -> Message {
        loop {
            let (message, _) = self.next().await;
            if message.status().is_some_and(|status| status >= 200) {
                return message;
            }
        }
    }

    /// The next request of a method; what is repeated meanwhile is passed over.
    async fn expect(&mut self, method: &str) -> (Message, Source) {
        loop {
            let (message, source) = self.next().await;
            if message.is_request() && message.method().as_str() == method {
                return (message, source);
            }
        }
    }

    fn answer(&self, request: &Message, source: &Source, status: u16) {
        let response =
            respond::respond(request, status, "", Some("far")).header(Name::Contact, format!("<{}>", self.contact()));
        self.send(&source.way_back(), response.finish());
    }

    /// Sends a request in a dialog to where the dialog's first Route is, or to a given hop.
    fn say(&mut self, hop: &Hop, method: &str, dialog: &Dialog) {
        let routes: String = dialog.routes.iter().map(|route| format!("Route: {route}\n")).collect();
        let Dialog { target, from, to, call_id, .. } = dialog.clone();
        self.request_as(hop, &format!("{method} {target}"), &from, &to, &call_id, &routes);
    }
}

/// The dialog as the caller has it after the 2xx.
fn of_caller(ok: &Message) -> Dialog {
    let mut routes = values(ok, Name::RecordRoute);
    routes.reverse();
    let line = |name| values(ok, name).remove(0);
    Dialog { target: target(ok), routes, from: line(Name::From), to: line(Name::To), call_id: line(Name::CallId) }
}

/// The dialog as the callee has it after its own 2xx.
fn of_callee(invite: &Message) -> Dialog {
    let line = |name| values(invite, name).remove(0);
    let from = format!("{};tag=far", line(Name::To));
    let routes = values(invite, Name::RecordRoute);
    Dialog { target: target(invite), routes, from, to: line(Name::From), call_id: line(Name::CallId) }
}

/// The URI in Contact.
fn target(message: &Message) -> String {
    let contact = values(message, Name::Contact).remove(0);
    contact.split_once('<').and_then(|(_, rest)| rest.split_once('>')).unwrap().0.to_owned()
}

fn values(message: &Message, name: Name<'static>) -> Vec<String> {
    message.values(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

fn gruu(user: &User) -> String {
    format!("{};gr={}", user.aor, user.key.instance())
}

/// The phone of a user's device as an adapter has it.
fn entry(user: &str, device: &User) -> Entry {
    let secret = Secret::of_password(user, "p2psip.org", "secret");
    Entry { aor: device.aor.clone(), user: user.to_owned(), secret, home: device.home.clone() }
}

fn locator(world: &TestWorld) -> Locator {
    Locator::new(Resolver::new(&[world.world.dns()]).unwrap(), Options::default())
}

fn config(world: &TestWorld, phones: Vec<Entry>) -> ProxyConfig {
    let mut config = ProxyConfig::without_proxy(locator(world));
    let rate = Rate { per_second: 200.0, burst: 1_000.0 };
    let phones = Phones { phones, algorithms: vec![Algorithm::Sha256, Algorithm::Md5], rate };
    let mut adapter = AdapterConfig::new(([127, 0, 0, 1], 0).into(), phones);
    adapter.expires = Duration::from_secs(1)..=Duration::from_secs(600);
    config.adapter = Some(adapter);
    config.drain = PATIENCE;
    config
}

async fn adapter(world: &TestWorld, member: &Member, phones: Vec<Entry>) -> Proxy {
    Proxy::start(member, config(world, phones)).await.unwrap()
}

async fn proxy(world: &TestWorld, member: &Member) -> Proxy {
    Proxy::start(member, as_proxy(world, member, ProxyConfig::without_proxy(locator(world)))).await.unwrap()
}

fn as_proxy(world: &TestWorld, member: &Member, mut config: ProxyConfig) -> ProxyConfig {
    let name = ResourceName::from(ServiceUri::new(Service::Proxy, world.world.descriptor().overlay().clone()));
    config.address = Some(([127, 0, 0, 1], 0).into());
    config.certificate = world.world.enrol(member.key(), &[name]).unwrap();
    config.drain = Duration::from_millis(200);
    config
}

fn at(listening: &[(Protocol, SocketAddr)], protocol: Protocol) -> Hop {
    Hop::socket(protocol, listening.iter().find(|(of, _)| *of == protocol).unwrap().1)
}

fn phone_of(adapter: &Proxy, aor: &User, user: &str) -> Phone {
    Phone::new(Protocol::Udp, &aor.aor.to_string(), user, at(adapter.phones(), Protocol::Udp))
}

async fn lookup(member: &Member, user: &User) -> (Verdict, usize) {
    let outcome = member.lookup(user.name(), PATIENCE).await;
    (outcome.reply.verdict, outcome.records.iter().filter(|record| !record.is_tombstone()).count())
}

#[test]
fn both_phones_of_a_user_ring_and_one_answers() {
    let world = TestWorld::of(10);
    let (bob, alice) = (world.user("bob"), world.user("alice"));
    let mobile = world.device("alice-mobile", &alice.aor);
    world.run(async {
        let members = world.world.members();
        let here = adapter(&world, &members[0], vec![entry("desk", &alice), entry("mobile", &mobile)]).await;
        let there = adapter(&world, &members[1], vec![entry("bob", &bob)]).await;
        let mut desk = phone_of(&here, &alice, "desk");
        let mut pocket = phone_of(&here, &alice, "mobile");
        let mut caller = phone_of(&there, &bob, "bob");
        for phone in [&mut desk, &mut pocket, &mut caller] {
            assert_eq!(phone.register(300).await, 200);
        }
        assert_eq!(lookup(&members[5], &alice).await, (Verdict::Found, 2));

        let callee = alice.aor.to_string();
        let (ok, other) = tokio::join!(
            async {
                let ok = caller.call(&callee, "both").await;
                let dialog = of_caller(&ok);
                let hop = caller.proxy.clone();
                caller.say(&hop, "ACK", &dialog);
                (ok, dialog)
            },
            async {
                let ((invite, source), (mine, back)) = tokio::join!(pocket.expect("INVITE"), desk.expect("INVITE"));
                assert_eq!(target(&invite), gruu(&bob), "the overlay's name for the caller's device");
                desk.answer(&mine, &back, 180);
                pocket.answer(&invite, &source, 200);
                let (cancel, back) = desk.expect("CANCEL").await;
                desk.answer(&cancel, &back, 200);
                desk.answer(&mine, &back, 487);
                pocket.expect("ACK").await;
                of_callee(&invite)
            }
        );
        assert_eq!(ok.0.status(), Some(200), "{:?}", ok.0);
        assert_eq!(ok.1.target, gruu(&mobile), "the device that answered");
        let shown = format!("{:?}", ok.0);
        assert!(!shown.contains(&here.phones()[0].1.to_string()), "the callee's adapter is not shown: {shown}");
        assert_eq!(ok.1.routes.len(), 1, "its own adapter's alone: {:?}", ok.1.routes);

        // The callee hangs up, by the route of its own adapter.
        let hop = pocket.proxy.clone();
        pocket.say(&hop, "BYE", &other);
        let (bye, source) = caller.expect("BYE").await;
        assert_eq!(bye.request_uri(), Some(caller.contact().as_str()));
        caller.answer(&bye, &source, 200);
        assert_eq!(pocket.response().await.status(), Some(200));
    });
}

#[test]
fn calls_cross_the_boundary_and_outlive_a_proxy_peer() {
    let mut world = TestWorld::of(10);
    let alice = world.user("alice");
    let (mut phone, mut carol, here, first, second) = world.run(async {
        let members = world.world.members();
        let here = adapter(&world, &members[0], vec![entry("alice", &alice)]).await;
        let first = proxy(&world, &members[PROXIES[0]]).await;
        let second = proxy(&world, &members[PROXIES[1]]).await;
        let mut phone = phone_of(&here, &alice, "alice");
        assert_eq!(phone.register(300).await, 200);
        (phone, Phone::outside(), here, first, second)
    });
    let (one, two) = (at(first.listening(), Protocol::Udp), at(second.listening(), Protocol::Udp));

    // Carol calls in, through the first proxy peer.
    let (from_carol, from_alice) = world.run(async {
        carol.proxy = one.clone();
        let callee = alice.aor.to_string();
        let (ok, dialog) = tokio::join!(carol.call(&callee, "in"), async {
            let (invite, source) = phone.expect("INVITE").await;
            phone.answer(&invite, &source, 200);
            of_callee(&invite)
        });
        let seen = of_caller(&ok);
        assert_eq!(
            (seen.target.as_str(), &seen.routes[..]),
            (gruu(&alice).as_str(), &["<sip:p2psip.org;lr>".to_owned()][..])
        );
        carol.say(&one, "ACK", &seen);
        phone.expect("ACK").await;
        (seen, dialog)
    });
    assert_eq!(from_alice.routes.len(), 2, "the adapter, then the overlay: {:?}", from_alice.routes);
    assert_eq!(from_alice.routes[1], "<sip:p2psip.org;lr>");

    // It dies. Carol's re-INVITE comes through the other one, and alice's BYE leaves by it.
    world.run(async { drop(first) });
    world.world.kill(PROXIES[0]);
    world.run(async {
        carol.say(&two, "INVITE", &from_carol);
        let (again, source) = phone.expect("INVITE").await;
        assert_eq!(again.request_uri(), Some(phone.contact().as_str()));
        phone.answer(&again, &source, 200);
        assert_eq!(carol.response().await.status(), Some(200));
        carol.say(&two, "ACK", &from_carol);
        phone.expect("ACK").await;
        let hop = phone.proxy.clone();
        phone.say(&hop, "BYE", &from_alice);
        let (bye, source) = carol.expect("BYE").await;
        assert_eq!(bye.request_uri(), Some(carol.contact().as_str()));
        carol.answer(&bye, &source, 200);
        assert_eq!(phone.response().await.status(), Some(200));

        // And alice calls out.
        let callee = carol.contact();
        let (ok, ()) = tokio::join!(phone.call(&callee, "out"), async {
            let (invite, source) = carol.expect("INVITE").await;
            assert_eq!(target(&invite), gruu(&alice));
            assert_eq!(values(&invite, Name::RecordRoute), ["<sip:p2psip.org;lr>"]);
            assert!(invite.header(Name::ProxyAuthorization).is_none());
            carol.answer(&invite, &source, 200);
        });
        assert_eq!(ok.status(), Some(200), "{ok:?}");
        let dialog = of_caller(&ok);
        phone.say(&hop, "ACK", &dialog);
        carol.expect("ACK").await;
        phone.say(&hop, "BYE", &dialog);
        let (bye, source) = carol.expect("BYE").await;
        carol.answer(&bye, &source, 200);
        assert_eq!(phone.response().await.status(), Some(200));
        here.stop().await;
        second.stop().await;
    });
}

#[test]
fn a_record_comes_and_goes_with_its_phone() {
    let world = TestWorld::of(10);
    let alice = world.user("alice");
    world.run(async {
        let members = world.world.members();
        let here = adapter(&world, &members[0], vec![entry("alice", &alice)]).await;
        let mut phone = phone_of(&here, &alice, "alice");
        let there = (Verdict::Found, 1);
        for number in 0..2 {
            assert_eq!(phone.register(300).await, 200);
            assert_eq!(lookup(&members[3], &alice).await, there, "{number}");
            assert_eq!(phone.register(0).await, 200);
            assert_eq!(lookup(&members[3], &alice).await.1, 0, "{number}");
        }
        // One that is switched off without a word.
        assert_eq!(phone.register(1).await, 200);
        assert_eq!(lookup(&members[3], &alice).await, there);
        let until = tokio::time::Instant::now() + PATIENCE;
        while lookup(&members[3], &alice).await.1 > 0 {
            assert!(tokio::time::Instant::now() < until, "it does not expire");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // An adapter that ends.
        assert_eq!(phone.register(300).await, 200);
        assert_eq!(lookup(&members[3], &alice).await, there);
        here.stop().await;
        assert_eq!(lookup(&members[3], &alice).await.1, 0);
    });
}

#[test]
fn a_phone_on_a_connection_is_called_on_it() {
    let world = TestWorld::of(10);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    world.run(async {
        let members = world.world.members();
        let here = adapter(&world, &members[0], vec![entry("alice", &alice), entry("bob", &bob)]).await;
        let tcp = at(here.phones(), Protocol::Tcp);
        let mut phone = Phone::new(Protocol::Tcp, &alice.aor.to_string(), "alice", tcp);
        let mut caller = phone_of(&here, &bob, "bob");
        assert_eq!(phone.register(300).await, 200);
        assert_eq!(caller.register(300).await, 200);
        let callee = alice.aor.to_string();
        let (ok, dialog) = tokio::join!(caller.call(&callee, "tcp"), async {
            let (invite, source) = phone.expect("INVITE").await;
            assert_eq!(source.remote, phone.proxy.remote, "on the connection that it had opened");
            phone.answer(&invite, &source, 200);
            of_callee(&invite)
        });
        assert_eq!(target(&ok), gruu(&alice));
        assert!(dialog.routes[0].contains(";transport=tcp"), "{:?}", dialog.routes);
        let hop = caller.proxy.clone();
        caller.say(&hop, "ACK", &of_caller(&ok));
        phone.expect("ACK").await;
        let hop = phone.proxy.clone();
        phone.say(&hop, "BYE", &dialog);
        let (bye, source) = caller.expect("BYE").await;
        caller.answer(&bye, &source, 200);
        assert_eq!(phone.response().await.status(), Some(200));
    });
}

#[test]
fn a_proxy_peer_may_have_phones_at_another_port() {
    let world = TestWorld::of(10);
    let alice = world.user("alice");
    world.run(async {
        let members = world.world.members();
        let member = &members[PROXIES[0]];
        let both = as_proxy(&world, member, config(&world, vec![entry("alice", &alice)]));
        let here = Proxy::start(member, both).await.unwrap();
        let mut phone = phone_of(&here, &alice, "alice");
        let mut carol = Phone::outside();
        carol.proxy = at(here.listening(), Protocol::Udp);
        assert_eq!(phone.register(300).await, 200);
        let callee = alice.aor.to_string();
        let (ok, ()) = tokio::join!(carol.call(&callee, "in"), async {
            let (invite, source) = phone.expect("INVITE").await;
            assert_eq!(source.remote, phone.proxy.remote, "from the port where it registered");
            phone.answer(&invite, &source, 200);
        });
        assert_eq!(target(&ok), gruu(&alice));
        assert_eq!(values(&ok, Name::RecordRoute), ["<sip:p2psip.org;lr>"]);
        let target = carol.contact();
        let (ok, ()) = tokio::join!(phone.call(&target, "out"), async {
            let (invite, source) = carol.expect("INVITE").await;
            assert_eq!(values(&invite, Name::RecordRoute), ["<sip:p2psip.org;lr>"]);
            carol.answer(&invite, &source, 200);
        });
        assert_eq!(ok.status(), Some(200), "{ok:?}");
        // The public port is no registrar, and the phones' port no proxy for strangers.
        carol.aor.clone_from(&callee);
        assert_eq!(carol.register(300).await, 405);
        carol.proxy = phone.proxy.clone();
        carol.request(&format!("INVITE {target}"), &format!("<{target}>"), "stranger", "");
        assert_eq!(carol.response().await.status(), Some(407));
        here.stop().await;
    });
}

#[test]
fn strangers_floods_and_garbage_change_nothing() {
    let world = TestWorld::of(10);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    world.run(async {
        let members = world.world.members();
        let mut config = config(&world, vec![entry("alice", &alice), entry("bob", &bob)]);
        if let Some(adapter) = &mut config.adapter {
            adapter.rate = Rate { per_second: 100.0, burst: 300.0 };
        }
        let here = Proxy::start(&members[0], config).await.unwrap();
        let mut mallory = phone_of(&here, &alice, "alice");
        mallory.login.password = "wrong".to_owned();
        assert_eq!(mallory.register(300).await, 401);
        let mut other = phone_of(&here, &alice, "bob");
        assert_eq!(other.register(300).await, 403, "bob's credentials for alice's address of record");
        let mut unknown = phone_of(&here, &alice, "nobody");
        assert_eq!(unknown.register(300).await, 401);
        assert_eq!(lookup(&members[3], &alice).await.1, 0);

        // Whatever somebody sends that is no SIP, or hardly.
        for file in files_below(&root().join("tests/data/torture"), "sip") {
            let octets = std::fs::read(Path::new(&file)).unwrap();
            mallory.send(&mallory.proxy.clone(), octets);
        }
        mallory.send(&mallory.proxy.clone(), &b"REGISTER sip:p2psip.org SIP/2.0\r\n\r\n"[..]);
        mallory.send(&mallory.proxy.clone(), &b"\xff\xfe\0\0 nonsense"[..]);

        // A flood: answered 503 when it is too much, and then forgotten.
        let (to, mut throttled) = (format!("<{}>", alice.aor), 0);
        for _ in 0..1_000 {
            mallory.request("REGISTER sip:p2psip.org", &to, "flood", "");
            while let Ok(Event::Message { message, .. }) = mallory.events.try_recv() {
                throttled += usize::from(message.status() == Some(503));
            }
        }
        while throttled == 0 {
            throttled += usize::from(mallory.response().await.status() == Some(503));
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut phone = phone_of(&here, &alice, "alice");
        while phone.register(300).await != 200 {
            assert!(tokio::time::Instant::now() < until, "a phone with credentials stays out");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(lookup(&members[3], &alice).await, (Verdict::Found, 1));
    });
}

#[test]
fn an_adapter_needs_certificates_and_a_home_for_each_phone() {
    let world = TestWorld::of(10);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    world.run(async {
        let member = &world.world.members()[0];
        let mut not_hers = entry("desk", &bob);
        not_hers.aor = alice.aor.clone();
        let start = async |phones| Proxy::start(member, config(&world, phones)).await.err().unwrap();
        let error = start(vec![not_hers]).await;
        assert!(matches!(error, ProxyError::Adapter(AdapterError::NotEnrolled { .. })), "{error}");
        assert!(error.to_string().contains("p2p-enroll request --home"), "{error}");
        let error = start(vec![entry("desk", &alice), entry("mobile", &alice)]).await;
        assert!(matches!(error, ProxyError::Adapter(AdapterError::SameInstance { .. })), "{error}");
    });
}
