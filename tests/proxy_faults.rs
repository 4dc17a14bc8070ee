//! A proxy peer among people who mean it ill, and with nothing around it that works: it answers, relays for nobody, and
//! goes on.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2psip::{
    dns::{
        Resolver, RrSet, Srv,
        locate::{Locator, Options},
    },
    member::Proxy,
    proxy::throttle::Rate,
    sip::{
        header::Name,
        respond,
        transport::{Event, Hop, Protocol},
    },
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::{
    proxy::{CALLER, PROXIES, Phone, bind, peer, proxy, proxy_config, udp},
    sip_properties::mutated,
    world::{PATIENCE, TestWorld},
};

/// What somebody gets who asks the proxy peer whether it is there.
async fn alive(phone: &mut Phone, hop: &Hop, number: u32) {
    phone.request(hop, "OPTIONS sip:p2psip.org", &format!("<{CALLER}>;tag=o"), "<sip:p2psip.org>", number, "");
    phone.expect("200 OPTIONS").await;
}

/// The next final status of this method, whatever else comes.
async fn status(phone: &mut Phone, method: &str) -> (u16, bool) {
    let waiting = async {
        loop {
            if let Some(Event::Message { message, .. }) = phone.events.recv().await
                && let Some(status) = message.status().filter(|status| *status >= 200)
                && message.method().to_string() == method
            {
                return (status, message.header(Name::RetryAfter).is_some());
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no final response to {method}"))
}

fn tcp(proxy: &Proxy) -> SocketAddr {
    proxy.listening().iter().find(|(protocol, _)| *protocol == Protocol::Tcp).unwrap().1
}

#[test]
fn whatever_arrives_a_proxy_peer_goes_on_and_relays_nothing() {
    let world = TestWorld::of(10);
    let bob = world.user("bob");
    world.run(async {
        let members = world.world.members();
        bind(&bob, &members[0]).await;
        let proxy = proxy(&world, &members[PROXIES[0]]).await;
        let (mut phone, to) = (Phone::outside(), udp(&proxy));
        // Where the torture's messages and all that came of them would go, if it were an open relay.
        let mallory = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut runner = TestRunner::deterministic();
        for number in 0..1_500 {
            let octets = mutated().new_tree(&mut runner).unwrap().current();
            mallory.send_to(&octets, tcp(&proxy)).unwrap();
            if number % 30 == 0 {
                let mut stream = TcpStream::connect(tcp(&proxy)).unwrap();
                stream.write_all(&octets).unwrap();
                stream.write_all(b"\r\n\r\n").unwrap();
            }
            if number % 300 == 0 {
                alive(&mut phone, &to, number).await;
            }
        }
        alive(&mut phone, &to, 9_999).await;
        mallory.set_nonblocking(true).unwrap();
        let mut octets = [0; 65_535];
        while let Ok((length, _)) = mallory.recv_from(&mut octets) {
            assert!(octets[..length].starts_with(b"SIP/2.0 "), "{}", String::from_utf8_lossy(&octets[..length]));
        }
        proxy.stop().await;
    });
}

#[test]
fn a_source_that_floods_is_turned_away_and_others_are_served() {
    let world = TestWorld::of(10);
    let bob = world.user("bob");
    world.run(async {
        let members = world.world.members();
        bind(&bob, &members[0]).await;
        let mut config = proxy_config(&world, &members[PROXIES[0]]);
        config.address = Some(([0, 0, 0, 0], 0).into());
        config.rate = Rate { per_second: 20.0, burst: 50.0 };
        let proxy = Proxy::start(&members[PROXIES[0]], config).await.unwrap();
        let port = udp(&proxy).remote;
        let p2psip::sip::transport::Remote::Socket(address) = port else { panic!("{port}") };
        let to = Hop::socket(Protocol::Udp, ([127, 0, 0, 1], address.port()).into());
        let mut flooder = Phone::outside_at([127, 0, 0, 2]);
        let mut other = Phone::outside_at([127, 0, 0, 3]);
        let mut callee = Phone::inside(&members[0]).await;
        let from = format!("<{CALLER}>;tag=f");
        for number in 0..400 {
            flooder.request(&to, &format!("INVITE {}", bob.aor), &from, "<sip:bob@p2psip.org>", number, "");
            if number % 100 == 0 {
                alive(&mut other, &to, number).await;
            }
        }
        assert_eq!(status(&mut flooder, "INVITE").await, (503, true), "told when to come again");
        let contact = format!("Contact: <sip:carol@{}>", other.address());
        other.request(&to, &format!("INVITE {}", bob.aor), "<sip:d@e>;tag=2", "<sip:bob@p2psip.org>", 1, &contact);
        loop {
            let (invite, source) = callee.expect("INVITE").await;
            if invite.from().unwrap().uri.as_str() == "sip:d@e" {
                callee.answer(&invite, &source, 200, "<sip:bob@p2psip.org>");
                break;
            }
        }
        other.expect("200 INVITE").await;
        // How many passed depends on how long the flood took; some datagrams never arrive, and others are read by another
        // thread than the last calls.
        let began = Instant::now();
        let counts = loop {
            let counts = proxy.status();
            if counts.throttled >= 150 || began.elapsed() > PATIENCE {
                break counts;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(counts.throttled >= 150 && counts.forwarded <= 200, "{counts:?}");
        proxy.stop().await;
    });
}

#[test]
fn responses_that_nobody_asked_for_go_nowhere() {
    let world = TestWorld::of(10);
    world.run(async {
        let members = world.world.members();
        let proxy = proxy(&world, &members[PROXIES[0]]).await;
        let (mut phone, to) = (Phone::outside(), udp(&proxy));
        let victim = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (own, theirs) = (tcp(&proxy), victim.local_addr().unwrap());
        for (number, branch) in ["z9hG4bK1", "1", "z9hG4bK00000000000000000000000000000000"].into_iter().enumerate() {
            let text = format!(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {own};branch={branch}\r\nVia: SIP/2.0/UDP {theirs};branch=z9hG4bK2\r\n\
                 From: <sip:a@b>;tag=1\r\nTo: <sip:b@c>;tag=2\r\nCall-ID: {number}\r\nCSeq: 1 INVITE\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            phone.send(&to, Bytes::from(text));
        }
        alive(&mut phone, &to, 1).await;
        assert_eq!(proxy.status().dropped, 3);
        victim.set_nonblocking(true).unwrap();
        assert!(victim.recv_from(&mut [0; 2_000]).is_err(), "something was passed on");
        proxy.stop().await;
    });
}

#[test]
fn a_2xx_that_crosses_a_cancel_makes_a_dialog() {
    let world = TestWorld::of(10);
    let bob = world.user("bob");
    world.run(async {
        let members = world.world.members();
        bind(&bob, &members[0]).await;
        let proxy = proxy(&world, &members[PROXIES[0]]).await;
        let (mut caller, mut callee, to) = (Phone::outside(), Phone::inside(&members[0]).await, udp(&proxy));
        let (from, callee_uri) = (format!("<{CALLER}>;tag=caller"), format!("<{}>", bob.aor));
        let contact = format!("Contact: <sip:carol@{}>", caller.address());
        caller.request(&to, &format!("INVITE {}", bob.aor), &from, &callee_uri, 1, &contact);
        let (invite, source) = callee.expect("INVITE").await;
        callee.answer(&invite, &source, 180, &callee_uri);
        caller.expect("180 INVITE").await;
        // The CANCEL has the INVITE's branch.
        let via = format!("{};branch=z9hG4bKINVITE1", caller.via);
        let cancel = format!(
            "CANCEL {} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {callee_uri}\r\nCall-ID: call\r\n\
             CSeq: 1 CANCEL\r\nContent-Length: 0\r\n\r\n",
            bob.aor
        );
        caller.send(&to, cancel.clone());
        caller.expect("200 CANCEL").await;
        let (cancelled, way) = callee.expect("CANCEL").await;
        callee.answer(&invite, &source, 200, &callee_uri);
        let ok = respond::respond(&cancelled, 200, "", Some("callee")).finish();
        callee.send(&way.way_back(), ok);
        let (answer, _) = caller.expect("200 INVITE").await;
        let far = answer.to().unwrap().tag().unwrap().to_owned();
        let (callee_uri, route) = (format!("{callee_uri};tag={far}"), "Route: <sip:p2psip.org;lr>");
        caller.request(&to, &format!("ACK {}", bob.aor), &from, &callee_uri, 1, route);
        callee.expect("ACK").await;
        caller.request(&to, &format!("BYE {}", bob.aor), &from, &callee_uri, 2, route);
        let (bye, way) = callee.expect("BYE").await;
        callee.answer(&bye, &way, 200, "<sip:bob@p2psip.org>");
        caller.expect("200 BYE").await;
        proxy.stop().await;
    });
}

#[test]
fn connections_that_say_nothing_are_few_and_shut_nobody_out() {
    let world = TestWorld::of(10);
    world.run(async {
        let members = world.world.members();
        let proxy = proxy(&world, &members[PROXIES[0]]).await;
        let address = tcp(&proxy);
        let mut mute = Vec::new();
        for number in 0..200 {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            if number % 2 == 0 {
                (&stream).write_all(b"OPTIONS sip:p2psip.org SIP/2.0\r\nVia: ").unwrap();
            }
            mute.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut closed = 0;
        for stream in &mut mute {
            closed += usize::from(!matches!(stream.read(&mut [0; 10]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
            if closed > 0 {
                break;
            }
        }
        assert!(closed > 0, "all 200 of one source are served");
        // Another source, and those without a connection.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let text = "OPTIONS sip:p2psip.org SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.2;branch=z9hG4bK7\r\nMax-Forwards: 70\r\n\
                    From: <sip:a@b>;tag=1\r\nTo: <sip:p2psip.org>\r\nCall-ID: 7\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = [0; 11];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"SIP/2.0 200");
        alive(&mut Phone::outside(), &udp(&proxy), 1).await;
        proxy.stop().await;
    });
}

#[test]
fn without_the_overlay_nobody_is_said_not_to_exist() {
    let mut world = TestWorld::of(10);
    let (proxy, mut phone) = world.run(async {
        let members = world.world.members();
        (proxy(&world, &members[PROXIES[0]]).await, Phone::outside())
    });
    // From the last one: whoever comes after one that is killed moves up.
    for other in (0..10).rev().filter(|member| *member != PROXIES[0]) {
        world.world.kill(other);
    }
    world.run(async {
        let invite = "INVITE sip:nobody@p2psip.org";
        phone.request(&udp(&proxy), invite, "<sip:a@b>;tag=1", "<sip:nobody@p2psip.org>", 1, "");
        assert_eq!(status(&mut phone, "INVITE").await, (503, true));
    });
}

#[test]
fn a_name_server_that_lies_or_hangs_costs_one_call() {
    let world = TestWorld::of(10);
    let alice = world.user("alice");
    world.run(async {
        let members = world.world.members();
        bind(&alice, &members[0]).await;
        let first = proxy(&world, &members[PROXIES[0]]).await;
        let dns = world.world.name_server();
        let lie =
            |port, target: &str| RrSet::Srv(vec![Srv { priority: 0, weight: 0, port, target: target.to_owned() }]);
        // Other domains than the overlay's: the proxy peer itself; nowhere; an address that no packet can go to; a name that leads to itself.
        let own = udp(&first).remote.to_string().rsplit(':').next().unwrap().parse().unwrap();
        dns.set("mirror.p2psip.org", &RrSet::A(vec![[127, 0, 0, 1].into()])).await.unwrap();
        dns.set("_sip._udp.self.p2psip.org", &lie(own, "mirror.p2psip.org")).await.unwrap();
        dns.set("_sip._udp.root.p2psip.org", &lie(5060, ".")).await.unwrap();
        dns.set("nowhere.p2psip.org", &RrSet::A(vec![[0, 0, 0, 0].into(), [224, 0, 0, 1].into()])).await.unwrap();
        dns.set("_sip._udp.circle.p2psip.org", &lie(5060, "_sip._udp.circle.p2psip.org")).await.unwrap();
        let mut caller = Phone::inside(&members[0]).await;
        let from = format!("<{}>;tag=caller", alice.aor);
        let expected = [("self", 482), ("root", 404), ("nowhere", 404), ("circle", 404)];
        for (number, (domain, wanted)) in (1..).zip(expected) {
            let invite = format!("INVITE sip:carol@{domain}.p2psip.org");
            caller.request(&peer(&members[PROXIES[0]]), &invite, &from, "<sip:c@d>", number, "");
            assert_eq!(status(&mut caller, "INVITE").await.0, wanted, "{domain}");
        }
        first.stop().await;

        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut config = proxy_config(&world, &members[PROXIES[1]]);
        let resolver = Resolver::new(&[silent.local_addr().unwrap()]).unwrap();
        config.locator = Locator::new(resolver, Options::default());
        let second = Proxy::start(&members[PROXIES[1]], config).await.unwrap();
        let hop = peer(&members[PROXIES[1]]);
        caller.request(&hop, "INVITE sip:carol@example.com", &from, "<sip:c@d>", 9, "");
        // Meanwhile others are served.
        alive(&mut Phone::outside(), &udp(&second), 1).await;
        assert_eq!(status(&mut caller, "INVITE").await.0, 500);
        second.stop().await;
    });
}

#[test]
fn a_server_of_which_icmp_says_that_nobody_listens_costs_no_time() {
    let world = TestWorld::of(10);
    let alice = world.user("alice");
    world.run(async {
        let members = world.world.members();
        bind(&alice, &members[0]).await;
        let proxy = proxy(&world, &members[PROXIES[0]]).await;
        let mut callee = Phone::outside();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dns = world.world.name_server();
        let server = |priority, port| Srv { priority, weight: 0, port, target: "host.p2psip.org".to_owned() };
        let servers = [server(0, closed), server(1, callee.address().port())];
        dns.set("host.p2psip.org", &RrSet::A(vec![[127, 0, 0, 1].into()])).await.unwrap();
        dns.set("_sip._udp.one.p2psip.org", &RrSet::Srv(servers[..1].to_vec())).await.unwrap();
        dns.set("_sip._udp.two.p2psip.org", &RrSet::Srv(servers.to_vec())).await.unwrap();

        let mut caller = Phone::inside(&members[0]).await;
        let hop = peer(&members[PROXIES[0]]);
        let from = format!("<{}>;tag=caller", alice.aor);
        let contact = format!("Contact: <{}>", alice.aor);
        // Without ICMP it takes four seconds.
        let began = Instant::now();
        caller.request(&hop, "INVITE sip:carol@two.p2psip.org", &from, "<sip:c@d>", 1, &contact);
        let (invite, source) = callee.expect("INVITE").await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        callee.answer(&invite, &source, 200, "<sip:carol@127.0.0.1>");
        caller.expect("200 INVITE").await;

        let began = Instant::now();
        caller.request(&hop, "INVITE sip:carol@one.p2psip.org", &from, "<sip:c@d>", 2, &contact);
        assert_eq!(status(&mut caller, "INVITE").await.0, 500);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        proxy.stop().await;
    });
}

#[test]
fn who_asks_for_users_that_do_not_exist_is_refused_and_a_newcomer_is_soon_found() {
    let world = TestWorld::of(10);
    let dora = world.user("dora");
    world.run(async {
        let members = world.world.members();
        let proxy = proxy(&world, &members[PROXIES[0]]).await;
        let hop = udp(&proxy);
        let ask = |phone: &Phone, user: &str, number| {
            let uri = format!("sip:{user}@p2psip.org");
            phone.request(&hop, &format!("MESSAGE {uri}"), "<sip:a@b>;tag=1", &format!("<{uri}>"), number, "");
        };
        let mut scanner = Phone::outside_at([127, 0, 0, 2]);
        // All at once, but for what the proxy peer's socket has room for.
        for number in 1..=1_000 {
            ask(&scanner, &format!("nobody{number}"), number);
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let mut refused = 0;
        while refused < 50 {
            match status(&mut scanner, "MESSAGE").await {
                (404, false) => {}
                (503, true) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(proxy.status().lookups_refused >= 50, "{:?}", proxy.status());

        // Others are not. And who was not there a moment ago is.
        let mut caller = Phone::outside();
        let mut number = 1;
        ask(&caller, dora.aor.user(), number);
        while status(&mut caller, "MESSAGE").await != (404, false) {
            // The overlay is still busy with the scanner's users.
            number += 1;
            ask(&caller, dora.aor.user(), number);
        }
        let mut callee = Phone::inside(&members[0]).await;
        bind(&dora, &members[0]).await;
        let answers = async {
            loop {
                let (message, source) = callee.expect("MESSAGE").await;
                callee.answer(&message, &source, 200, "<sip:dora@p2psip.org>");
            }
        };
        let asks = async {
            loop {
                number += 1;
                ask(&caller, dora.aor.user(), number);
                if status(&mut caller, "MESSAGE").await.0 == 200 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = answers => {}
            () = asks => {}
        }
        proxy.stop().await;
    });
}
