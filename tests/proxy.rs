//! Calls across the boundary (draft §5.2, §5.3): real sockets outside, overlay streams inside, and proxy peers between,
//! of which one may die in the middle of a call (R9).

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use p2psip::{
    client::{PeerInfo, Put},
    dns::{
        Resolver,
        locate::{Locator, Options},
    },
    lab::LabOptions,
    member::{Member, Proxy, ProxyConfig, ProxyError},
    name::{PeerId, ResourceName, Service, ServiceUri},
    overlay::swarm::Network,
    record::{Body, Contact, MAX_Q},
    sip::{
        Message,
        header::Name,
        respond,
        transport::{
            BoxedStream, Config, Event, Hop, OverlayDialer, OverlayPort, Protocol, Source, Transports,
            overlay::via_host,
        },
    },
};
use tokio::sync::mpsc;

use crate::world::{PATIENCE, Process, TestWorld, User, eventually, over_socket};

pub const CALLER: &str = "sip:carol@example.com";

/// A user agent that does nothing by itself.
pub struct Phone {
    pub transports: Transports,
    pub events: mpsc::Receiver<Event>,
    /// What it writes into Via.
    pub via: String,
}

struct Dialer(Network);

#[async_trait::async_trait]
impl OverlayDialer for Dialer {
    async fn open(&self, peer: PeerId, addresses: &[String]) -> io::Result<BoxedStream> {
        let to = PeerInfo { peer, addresses: addresses.to_vec() };
        Ok(Box::new(self.0.open_sip(&to, PATIENCE).await.map_err(io::Error::other)?))
    }
}

impl Phone {
    /// One of the public network.
    pub fn outside() -> Self {
        Self::outside_at([127, 0, 0, 1])
    }

    /// One of the public network, at this address.
    pub fn outside_at(ip: [u8; 4]) -> Self {
        let local = SocketAddr::from((ip, 0));
        let bound = Transports::bind(Config { listen: vec![(Protocol::Udp, local)], ..Config::default() }).unwrap();
        bound.transports.serve_udp(&bound.udp).unwrap();
        let (_, address) = bound.transports.listening()[0];
        Self { transports: bound.transports, events: bound.events, via: format!("SIP/2.0/UDP {address};rport") }
    }

    /// One that runs on a member.
    pub async fn inside(member: &Member) -> Self {
        let network = member.network().clone();
        let mut accepted = network.incoming_sip().await.unwrap();
        let (streams, incoming) = mpsc::channel::<(PeerId, BoxedStream)>(8);
        tokio::spawn(async move {
            while let Some((peer, stream)) = accepted.recv().await {
                if streams.send((peer, Box::new(stream))).await.is_err() {
                    return;
                }
            }
        });
        let overlay = Some(OverlayPort { dialer: Box::new(Dialer(network)), incoming });
        let bound = Transports::bind(Config { overlay, ..Config::default() }).unwrap();
        let via = format!("SIP/2.0/OVERLAY {}", via_host(&member.peer()));
        Self { transports: bound.transports, events: bound.events, via }
    }

    pub fn address(&self) -> SocketAddr {
        self.transports.listening()[0].1
    }

    pub fn send(&self, hop: &Hop, bytes: impl Into<Bytes>) {
        self.transports.send(hop, bytes.into(), 1).unwrap();
    }

    /// Sends a request. `more` are whole lines with `\n` between them.
    pub fn request(&self, hop: &Hop, start: &str, from: &str, to: &str, number: u32, more: &str) {
        let (method, _) = start.split_once(' ').unwrap();
        let more: String = more.lines().map(|line| format!("{line}\r\n")).collect();
        let branch = format!("z9hG4bK{method}{number}");
        let via = &self.via;
        self.send(
            hop,
            format!(
                "{start} SIP/2.0\r\nVia: {via};branch={branch}\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\n\
                 Call-ID: call\r\nCSeq: {number} {method}\r\n{more}Content-Length: 0\r\n\r\n"
            ),
        );
    }

    /// The next message that is `what`, as `INVITE` or `200 BYE`; others are passed over.
    pub async fn expect(&mut self, what: &str) -> (Message, Source) {
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the transports have ended");
                let Event::Message { message, source } = event else { continue };
                let is = match message.status() {
                    Some(status) => format!("{status} {}", message.method()),
                    None => message.method().to_string(),
                };
                if is == what {
                    return (message, source);
                }
                assert!(!is.starts_with(['4', '5', '6']), "{is} instead of {what}: {message:?}");
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    pub fn answer(&self, request: &Message, source: &Source, status: u16, contact: &str) {
        let response = respond::respond(request, status, "", Some("callee")).header(Name::Contact, contact);
        self.send(&source.way_back(), response.finish());
    }
}

pub fn proxy_config(world: &TestWorld, member: &Member) -> ProxyConfig {
    let resolver = Resolver::new(&[world.world.dns()]).unwrap();
    let mut config = ProxyConfig::new(([127, 0, 0, 1], 0).into(), Locator::new(resolver, Options::default()));
    let name = ResourceName::from(ServiceUri::new(Service::Proxy, world.world.descriptor().overlay().clone()));
    config.certificate = world.world.enrol(member.key(), &[name]).unwrap();
    config.drain = Duration::from_millis(200);
    config
}

pub async fn proxy(world: &TestWorld, member: &Member) -> Proxy {
    Proxy::start(member, proxy_config(world, member)).await.unwrap()
}

/// Where the proxy peer is for the public network.
pub fn udp(proxy: &Proxy) -> Hop {
    let listening = proxy.listening().iter().find(|(protocol, _)| *protocol == Protocol::Udp);
    Hop::socket(Protocol::Udp, listening.unwrap().1)
}

/// Where it is for members.
pub fn peer(member: &Member) -> Hop {
    Hop::peer(member.peer(), member.info().addresses)
}

/// Binds the user to a member.
pub async fn bind(user: &User, member: &Member) {
    let PeerInfo { peer, addresses } = member.info();
    let mut payload = user.payload();
    payload.body = Body::User { contacts: vec![Contact::Overlay { peer, addresses, q: MAX_Q }] };
    let put = Put { envelope: user.seal(&payload).into(), timeout_ms: 10_000 };
    assert!(!member.put(put).await.stored.is_empty());
}

fn values(message: &Message, name: Name<'static>) -> Vec<String> {
    message.values(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

/// The members that are proxy peers: not users', and without another role.
pub const PROXIES: [usize; 2] = [7, 8];

#[test]
fn a_call_from_outside_outlives_the_proxy_peer_that_set_it_up() {
    let mut world = TestWorld::of(10);
    let bob = world.user("bob");
    let uri = format!("{};gr={}", bob.aor, bob.key.instance());
    let (mut callee, mut caller, first, second) = world.run(async {
        let members = world.world.members();
        bind(&bob, &members[0]).await;
        let first = proxy(&world, &members[PROXIES[0]]).await;
        let second = proxy(&world, &members[PROXIES[1]]).await;
        (Phone::inside(&members[0]).await, Phone::outside(), first, second)
    });
    let (from, to) = (format!("<{CALLER}>;tag=caller"), format!("<{}>", bob.aor));
    let contact = format!("Contact: <sip:carol@{}>", caller.address());

    let (route_set, far) = world.run(async {
        caller.request(&udp(&first), &format!("INVITE {}", bob.aor), &from, &to, 1, &contact);
        let (invite, source) = callee.expect("INVITE").await;
        assert_eq!(values(&invite, Name::RecordRoute), ["<sip:p2psip.org;lr>"], "one, of the overlay, without a port");
        callee.answer(&invite, &source, 180, &format!("<{uri}>"));
        callee.answer(&invite, &source, 200, &format!("<{uri}>"));
        let (ok, _) = caller.expect("200 INVITE").await;
        assert_eq!(ok.vias().count(), 1);
        (values(&ok, Name::RecordRoute), ok.to().unwrap().tag().unwrap().to_owned())
    });
    assert_eq!(route_set, ["<sip:p2psip.org;lr>"]);
    let to = format!("{to};tag={far}");
    let route = format!("Route: {}\n{contact}", route_set[0]);
    world.run(async {
        caller.request(&udp(&first), &format!("ACK {uri}"), &from, &to, 1, &route);
        callee.expect("ACK").await;
        assert_eq!(first.status().forwarded, 1, "the ACK has no transaction");
        assert_eq!(first.status().acks, 1);
    });

    // Trap 3: the other one has never seen the dialog.
    world.run(async { drop(first) });
    world.world.kill(PROXIES[0]);
    world.run(async {
        let other = udp(&second);
        caller.request(&other, &format!("INVITE {uri}"), &from, &to, 2, &route);
        let (again, source) = callee.expect("INVITE").await;
        callee.answer(&again, &source, 200, &format!("<{uri}>"));
        caller.expect("200 INVITE").await;
        caller.request(&other, &format!("ACK {uri}"), &from, &to, 2, &route);
        callee.expect("ACK").await;
        caller.request(&other, &format!("BYE {uri}"), &from, &to, 3, &route);
        let (bye, source) = callee.expect("BYE").await;
        assert_eq!(values(&bye, Name::Route), [""; 0]);
        callee.answer(&bye, &source, 200, &format!("<{uri}>"));
        caller.expect("200 BYE").await;
        second.stop().await;
    });
}

#[test]
fn a_call_from_a_member_outlives_the_proxy_peer_that_set_it_up() {
    let mut world = TestWorld::of(10);
    let alice = world.user("alice");
    let uri = format!("{};gr={}", alice.aor, alice.key.instance());
    let (mut caller, mut callee, first, second) = world.run(async {
        let members = world.world.members();
        bind(&alice, &members[0]).await;
        let first = proxy(&world, &members[PROXIES[0]]).await;
        let second = proxy(&world, &members[PROXIES[1]]).await;
        (Phone::inside(&members[0]).await, Phone::outside(), first, second)
    });
    let (near, other) = (peer(&world.world.members()[PROXIES[0]]), peer(&world.world.members()[PROXIES[1]]));
    let target = format!("sip:carol@{}", callee.address());
    let (from, to) = (format!("<{}>;tag=caller", alice.aor), format!("<{CALLER}>"));
    let more = format!("Contact: <{uri}>\nRoute: <sip:p2psip.org;lr>");

    let far = world.run(async {
        caller.request(&near, &format!("INVITE {target}"), &from, &to, 1, &more);
        let (invite, source) = callee.expect("INVITE").await;
        assert_eq!(values(&invite, Name::RecordRoute), ["<sip:p2psip.org;lr>"]);
        assert_eq!(values(&invite, Name::Route), [""; 0]);
        assert_eq!(values(&invite, Name::Contact), [format!("<{uri}>")], "the proxy peer changes no Contact");
        // Trap 1: Via is the peer's real address, so that responses come back to it.
        let via = invite.top_via().unwrap();
        assert_eq!(via.host.ip(), Some([127, 0, 0, 1].into()));
        callee.answer(&invite, &source, 200, &format!("<{target}>"));
        let (ok, _) = caller.expect("200 INVITE").await;
        caller.request(&near, &format!("ACK {target}"), &from, &to, 1, &more);
        callee.expect("ACK").await;
        ok.to().unwrap().tag().unwrap().to_owned()
    });
    world.run(async { drop(first) });
    world.world.kill(PROXIES[0]);
    world.run(async {
        let to = format!("{to};tag={far}");
        caller.request(&other, &format!("INVITE {target}"), &from, &to, 2, &more);
        let (again, source) = callee.expect("INVITE").await;
        callee.answer(&again, &source, 200, &format!("<{target}>"));
        caller.expect("200 INVITE").await;
        caller.request(&other, &format!("ACK {target}"), &from, &to, 2, &more);
        callee.expect("ACK").await;
        // The other side hangs up.
        callee.request(&udp(&second), &format!("BYE {uri}"), &to, &from, 9, "Route: <sip:p2psip.org;lr>");
        let (bye, source) = caller.expect("BYE").await;
        caller.answer(&bye, &source, 200, &format!("<{uri}>"));
        callee.expect("200 BYE").await;
        second.stop().await;
    });
}

#[test]
fn nobody_outside_and_no_stranger_is_relayed() {
    let world = TestWorld::of(10);
    let alice = world.user("alice");
    world.run(async {
        let members = world.world.members();
        bind(&alice, &members[0]).await;
        let proxy = proxy(&world, &members[PROXIES[0]]).await;
        let mut outside = Phone::outside();
        let mut stranger = Phone::inside(&members[1]).await;
        let target = format!("INVITE sip:carol@{}", outside.address());
        let from = format!("<{}>;tag=caller", alice.aor);
        outside.request(&udp(&proxy), &target, &from, "<sip:c@d>", 1, "");
        let near = peer(&members[PROXIES[0]]);
        stranger.request(&near, &target, &from, "<sip:c@d>", 2, "");
        for phone in [&mut outside, &mut stranger] {
            let refused = async {
                loop {
                    if let Some(Event::Message { message, .. }) = phone.events.recv().await {
                        assert!(!message.is_request(), "relayed: {message:?}");
                        if message.status() != Some(100) {
                            return message.status();
                        }
                    }
                }
            };
            assert_eq!(tokio::time::timeout(PATIENCE, refused).await.unwrap(), Some(403));
        }
        let missing = format!("INVITE sip:nobody-at-all@{}", world.world.descriptor().overlay());
        outside.request(&udp(&proxy), &missing, &format!("<{CALLER}>;tag=c"), "<sip:c@d>", 3, "");
        outside.request(
            &udp(&proxy),
            "OPTIONS sip:p2psip.org",
            &format!("<{CALLER}>;tag=c"),
            "<sip:p2psip.org>",
            4,
            "",
        );
        let mut statuses = Vec::new();
        while statuses.len() < 2 {
            let event = tokio::time::timeout(PATIENCE, outside.events.recv()).await.unwrap();
            if let Some(Event::Message { message, .. }) = event
                && let Some(status) = message.status().filter(|status| *status != 100)
            {
                let was = format!("{status} {}", message.method());
                // An INVITE's refusal comes again until it is acknowledged.
                if was != "403 INVITE" && !statuses.contains(&was) {
                    statuses.push(was);
                }
            }
        }
        statuses.sort();
        assert_eq!(statuses, ["200 OPTIONS", "404 INVITE"]);
        proxy.stop().await;
    });
}

#[test]
fn a_proxy_peer_is_listed_until_it_leaves_and_needs_a_certificate() {
    let world = TestWorld::of(10);
    world.run(async {
        let members = world.world.members();
        let member = &members[PROXIES[0]];
        let uncertified = ProxyConfig { certificate: None, ..proxy_config(&world, member) };
        assert!(matches!(Proxy::start(member, uncertified).await, Err(ProxyError::Offer(_))));
        assert!(member.status().proxy.is_none());
        let proxy = proxy(&world, member).await;
        let status = member.status().proxy.unwrap();
        assert_eq!(status.endpoints[0], format!("udp {}", proxy.listening()[0].1));
        let listed = async || {
            let wanted = p2psip::overlay::redir::Wanted::All;
            let found = members[0].services(Service::Proxy, wanted, Duration::ZERO, PATIENCE).await;
            found.outcome.records.iter().any(
                |record| matches!(record.body(), Body::Service(offer) if offer.peer == member.peer() && offer.serving),
            )
        };
        assert!(listed().await);
        proxy.stop().await;
        assert!(!listed().await);
        assert!(member.status().proxy.is_none());
    });
}

#[test]
fn a_local_overlay_has_no_proxy_peers() {
    let mut options = LabOptions::new(7).unwrap();
    options.overlay = p2psip::name::OverlayId::parse_local("testnet").unwrap();
    let world = TestWorld::start(options);
    world.run(async {
        let member = &world.world.members()[3];
        let resolver = Resolver::new(&[world.world.dns()]).unwrap();
        let config = ProxyConfig::new(([127, 0, 0, 1], 0).into(), Locator::new(resolver, Options::default()));
        let error = Proxy::start(member, config).await.err().unwrap();
        assert!(matches!(error, ProxyError::Local { .. }), "{error}");
        assert_eq!(error.to_string(), "testnet is a purely local overlay and has no proxy peers; leave --proxy out");
    });
}

#[test]
fn calls_that_go_out_without_a_way_back_are_warned_of_once() {
    let world = TestWorld::of(10);
    let alice = world.user("alice");
    let uri = format!("{};gr={}", alice.aor, alice.key.instance());
    // A proxy peer as its operator runs it, with what it says on standard error.
    let home = world.user("proxy").home;
    let key = home.peer_key().unwrap();
    let name = ResourceName::from(ServiceUri::new(Service::Proxy, world.world.descriptor().overlay().clone()));
    let certificate = world.world.enrol(&key, &[name]).unwrap().unwrap();
    home.add_certificate(&certificate, p2psip::clock::UnixMs::now()).unwrap();
    let (process, joined) = Process::member(&format!(
        "--home {} {} --dns {} --listen /ip4/127.0.0.1/tcp/0 --proxy=127.0.0.1:0",
        home.folder().display(),
        world.peers(),
        world.world.dns()
    ));
    let peer: PeerId = joined["peer"].as_str().unwrap().parse().unwrap();
    let address = joined["addresses"][0].as_str().unwrap().split("/p2p/").next().unwrap().to_owned();
    let near = Hop::peer(peer, [address]);
    world.run(async {
        bind(&alice, &world.world.members()[0]).await;
        let mut caller = Phone::inside(&world.world.members()[0]).await;
        let mut callee = Phone::outside();
        let target = format!("sip:carol@{}", callee.address());
        let more = format!("Contact: <{uri}>\nRoute: <sip:p2psip.org;lr>");
        let (from, to) = (format!("<{}>;tag=caller", alice.aor), format!("<{CALLER}>"));
        for number in 1..=3 {
            caller.request(&near, &format!("INVITE {target}"), &from, &to, number, &more);
            let (invite, source) = callee.expect("INVITE").await;
            callee.answer(&invite, &source, 200, &format!("<{target}>"));
            caller.expect("200 INVITE").await;
            caller.request(&near, &format!("ACK {target}"), &from, &to, number, &more);
            callee.expect("ACK").await;
        }
    });
    let status = || {
        let status = world.run(over_socket(&home.socket_path(), &p2psip::client::Status {})).unwrap();
        status.proxy.unwrap()
    };
    eventually("it has noticed", || status().unlisted);
    assert_eq!(status().forwarded, 3);
    let ran = process.kill();
    let warnings = ran.err.lines().filter(|line| line.contains("requests of the other side cannot come back"));
    assert_eq!(warnings.count(), 1, "{ran:#?}");
}
