use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, Record, rdata},
};
use proptest::prelude::*;
use tokio::net::UdpSocket;

use super::*;
use crate::{
    dns::{DnsServer, RrSet, Zone},
    kind::Kind,
};

const NAME: &str = "txt.p2psip.org";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A server of p2psip.org whose answers are not cached.
async fn serve(sets: &[(&str, RrSet)]) -> DnsServer {
    let zone = Zone::new("p2psip.org").unwrap().with_ttl(0);
    let zone = sets.iter().fold(zone, |zone, (name, set)| zone.with(name, set).unwrap());
    DnsServer::start(loopback(), vec![zone]).await.unwrap()
}

async fn serve_txt(values: &[&str]) -> DnsServer {
    serve(&[(NAME, RrSet::Txt(values.iter().map(|&value| value.to_owned()).collect()))]).await
}

/// A server that answers every question with what `respond` makes of it, over UDP only.
async fn fake(respond: impl Fn(Message) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let response = respond(Message::from_vec(&buffer[..length]).unwrap());
            socket.send_to(&response, from).await.unwrap();
        }
    });
    address
}

async fn fake_code(code: ResponseCode) -> SocketAddr {
    fake(move |query| {
        let mut response = query.into_response();
        response.metadata.response_code = code;
        response.to_vec().unwrap()
    })
    .await
}

async fn closed_port() -> SocketAddr {
    UdpSocket::bind(loopback()).await.unwrap().local_addr().unwrap()
}

/// A socket that never answers, and its address.
async fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn ask(servers: &[SocketAddr], name: &str) -> Result<Vec<Vec<u8>>, DnsError> {
    Resolver::new(servers).unwrap().txt(name, soon()).await.map(|answer| answer.values)
}

#[tokio::test]
async fn texts_come_back_as_they_were_published() {
    let long = "x".repeat(700);
    let server = serve_txt(&["short", &long, ""]).await;
    let mut values = ask(&[server.address()], NAME).await.unwrap();
    values.sort();
    assert_eq!(values, [b"".to_vec(), b"short".to_vec(), long.into_bytes()]);
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let values: Vec<String> = (0..60).map(|n| format!("{n:02} {}", "x".repeat(250))).collect();
    let server = serve_txt(&values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut found = ask(&[server.address()], NAME).await.unwrap();
    found.sort();
    assert_eq!(found, values.into_iter().map(String::into_bytes).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_ways_in_which_there_is_no_answer_are_told_apart() {
    let server = serve_txt(&["x"]).await;
    let resolver = Resolver::new(&[server.address()]).unwrap();

    let error = resolver.txt("nobody.p2psip.org", soon()).await.unwrap_err();
    assert!(matches!(&error, DnsError::NxDomain { name } if name == "nobody.p2psip.org"), "{error:?}");
    assert_eq!(error.kind(), Kind::Negative);

    let error = resolver.txt("ns1.p2psip.org", soon()).await.unwrap_err();
    assert!(matches!(&error, DnsError::NoData { record: "TXT", .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::Negative);

    let error = resolver.txt("example.com", soon()).await.unwrap_err();
    assert!(matches!(&error, DnsError::ServerFailure { code, .. } if code == "REFUSED"), "{error:?}");
    assert!(error.to_string().contains(&server.address().to_string()), "{error}");
    assert_eq!(error.kind(), Kind::Unreachable);

    let error = resolver.txt("a..b", soon()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
}

#[tokio::test]
async fn dead_servers_are_named_and_cost_a_bounded_time() {
    let (_socket, mute) = silent().await;
    for address in [closed_port().await, mute] {
        let before = Instant::now();
        let error = ask(&[address], NAME).await.unwrap_err();
        assert!(matches!(&error, DnsError::NoServer { servers, .. } if *servers == [address]), "{error:?}");
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
    }
}

#[tokio::test]
async fn the_deadline_is_kept() {
    let (_socket, mute) = silent().await;
    let resolver = Resolver::new(&[mute]).unwrap();
    let before = Instant::now();
    let error = resolver.txt(NAME, before + Duration::from_millis(250)).await.unwrap_err();
    assert!(matches!(error, DnsError::NoServer { .. }), "{error:?}");
    let took = before.elapsed();
    assert!((Duration::from_millis(240)..Duration::from_millis(1200)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_dead_first_server_only_delays_the_answer_of_the_second() {
    let server = serve_txt(&["x"]).await;
    let (_socket, mute) = silent().await;
    let before = Instant::now();
    let values = ask(&[mute, server.address()], NAME).await.unwrap();
    assert_eq!(values, [b"x"]);
    assert!(before.elapsed() < Duration::from_millis(1200), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_server_that_fails_does_not_hide_one_that_knows() {
    let server = serve_txt(&["x"]).await;
    let refusing = fake_code(ResponseCode::Refused).await;
    let failing = fake_code(ResponseCode::ServFail).await;
    assert_eq!(ask(&[refusing, failing, server.address()], NAME).await.unwrap(), [b"x"]);
    // What one server said matters more than that another one said nothing.
    let error = ask(&[closed_port().await, failing], NAME).await.unwrap_err();
    assert!(matches!(&error, DnsError::ServerFailure { code, server, .. } if code == "SERVFAIL" && *server == failing));
}

#[tokio::test]
async fn a_referral_is_not_taken_for_a_denial() {
    let referring = fake(|query| {
        let mut response = query.into_response();
        let ns = RData::NS(rdata::NS(Name::from_ascii("a.nic.example.").unwrap()));
        response.authorities.push(Record::from_rdata(Name::from_ascii("org.").unwrap(), 60, ns));
        response.to_vec().unwrap()
    })
    .await;
    let error = ask(&[referring], NAME).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    assert!(error.to_string().contains("referral"), "{error}");
}

#[tokio::test]
async fn a_broken_response_is_reported_as_such() {
    let broken = fake(|query| {
        let mut octets = query.into_response().to_vec().unwrap();
        octets[7] = 200; // Claims as many answers.
        octets
    })
    .await;
    let error = ask(&[broken], NAME).await.unwrap_err();
    assert!(matches!(&error, DnsError::Malformed { server, .. } if *server == broken), "{error:?}");
    let server = serve_txt(&["x"]).await;
    assert_eq!(ask(&[broken, server.address()], NAME).await.unwrap(), [b"x"]);
}

#[tokio::test]
async fn answers_are_cached_as_long_as_they_say() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = fake(move |query| {
        count.fetch_add(1, Ordering::Relaxed);
        let ttl = if query.queries[0].name().to_ascii().starts_with("cached.") { 60 } else { 0 };
        let name = query.queries[0].name().clone();
        let mut response = query.into_response();
        let txt = RData::TXT(rdata::TXT::new(vec!["x".to_owned()]));
        response.answers.push(Record::from_rdata(name, ttl, txt));
        response.to_vec().unwrap()
    })
    .await;
    let resolver = Resolver::new(&[server]).unwrap();
    for (name, queries) in [("cached.p2psip.org", 1), ("other.p2psip.org", 2)] {
        asked.store(0, Ordering::Relaxed);
        for _ in 0..2 {
            resolver.txt(name, soon()).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), queries, "{name}");
    }
}

#[tokio::test]
async fn hosts_have_addresses_of_the_family_asked_for() {
    let v4 = IpAddr::from([192, 0, 2, 1]);
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let server = serve(&[
        ("both.p2psip.org", RrSet::A(vec![[192, 0, 2, 1].into()])),
        ("both.p2psip.org", RrSet::Aaaa(vec!["2001:db8::1".parse().unwrap()])),
        ("four.p2psip.org", RrSet::A(vec![[192, 0, 2, 1].into()])),
        ("none.p2psip.org", RrSet::Txt(vec!["x".into()])),
    ])
    .await;
    let resolver = Resolver::new(&[server.address()]).unwrap();
    let addresses =
        async |host: &str, family| resolver.addresses(host, family, soon()).await.map(|answer| answer.values);

    assert_eq!(addresses("both.p2psip.org", Family::Any).await.unwrap(), [v6, v4]);
    assert_eq!(addresses("both.p2psip.org", Family::V4).await.unwrap(), [v4]);
    assert_eq!(addresses("four.p2psip.org", Family::Any).await.unwrap(), [v4]);
    assert!(matches!(addresses("four.p2psip.org", Family::V6).await, Err(DnsError::NoData { record: "AAAA", .. })));
    let error = addresses("none.p2psip.org", Family::Any).await.unwrap_err();
    assert!(error.to_string().contains("A or AAAA"), "{error}");
    assert!(matches!(addresses("nobody.p2psip.org", Family::Any).await, Err(DnsError::NxDomain { .. })));

    assert_eq!(addresses("[2001:db8::1]", Family::Any).await.unwrap(), [v6]);
    assert_eq!(addresses("192.0.2.1", Family::V4).await.unwrap(), [v4]);
    assert!(addresses("192.0.2.1", Family::V6).await.is_err());
}

#[tokio::test]
async fn a_closed_port_is_noticed_at_once() {
    let server = serve_txt(&["x"]).await;
    let closed = closed_port().await;
    let before = Instant::now();
    assert!(ask(&[closed], NAME).await.is_err());
    assert_eq!(ask(&[closed, server.address()], NAME).await.unwrap(), [b"x"]);
    assert!(before.elapsed() < Duration::from_millis(150), "{:?}", before.elapsed());
}

#[tokio::test]
async fn the_server_that_answered_is_asked_first_from_then_on() {
    let server = serve_txt(&["x"]).await;
    let (_socket, mute) = silent().await;
    let resolver = Resolver::new(&[mute, server.address()]).unwrap();
    resolver.txt(NAME, soon()).await.unwrap();
    let before = Instant::now();
    resolver.txt(NAME, soon()).await.unwrap();
    assert!(before.elapsed() < STAGGER, "{:?}", before.elapsed());
}

fn answering(
    records: impl Fn(&Name) -> Vec<(Name, u32, RData)> + Send + 'static,
) -> impl Fn(Message) -> Vec<u8> + Send {
    move |query| {
        let name = query.queries[0].name().clone();
        let mut response = query.into_response();
        response.answers =
            records(&name).into_iter().map(|(name, ttl, data)| Record::from_rdata(name, ttl, data)).collect();
        response.to_vec().unwrap()
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn alias(to: &str) -> RData {
    RData::CNAME(rdata::CNAME(name(to)))
}

#[tokio::test]
async fn aliases_are_followed_within_a_response_and_beyond() {
    let address = RData::A(rdata::A::new(192, 0, 2, 1));
    let server = fake(answering(move |asked| match asked.to_ascii().to_ascii_lowercase().as_str() {
        "a.example." => vec![(asked.clone(), 60, alias("B.example.")), (name("b.EXAMPLE."), 60, alias("c.example."))],
        "c.example." => vec![(asked.clone(), 60, address.clone())],
        "_sip._udp.a.example." => vec![
            (asked.clone(), 60, alias("_sip._udp.c.example.")),
            (name("_sip._udp.c.example."), 60, RData::SRV(rdata::SRV::new(1, 2, 5060, name("c.example.")))),
        ],
        _ => vec![(asked.clone(), 60, alias("loop.example.")), (name("loop.example."), 60, alias("loop.example."))],
    }))
    .await;
    let resolver = Resolver::new(&[server]).unwrap();
    let found = resolver.addresses("A.example", Family::V4, soon()).await.unwrap();
    assert_eq!(found.values, [IpAddr::from([192, 0, 2, 1])]);
    let found = resolver.fetch("_sip._udp.a.example", RrType::Srv, soon()).await;
    assert_eq!(RrSet::from_rdata(RrType::Srv, found.result.unwrap().data.iter()).texts(), ["1 2 5060 c.example"]);
    let error = resolver.addresses("around.example", Family::V4, soon()).await.unwrap_err();
    assert!(error.to_string().contains("lead nowhere"), "{error}");
}

#[tokio::test]
async fn aliases_from_answer_to_answer_come_to_an_end() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = fake(answering(move |name| {
        let next = count.fetch_add(1, Ordering::Relaxed) + 1;
        vec![(name.clone(), 60, alias(&format!("n{next}.example.")))]
    }))
    .await;
    let error = ask(&[server], "n0.example").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(asked.load(Ordering::Relaxed) <= MAX_ALIASES + 1);
}

#[tokio::test]
async fn answers_to_other_questions_are_passed_over() {
    let server = fake(|query| {
        let mut response = query.into_response();
        response.queries[0].set_name(name("other.example."));
        response.to_vec().unwrap()
    })
    .await;
    let before = Instant::now();
    let resolver = Resolver::new(&[server]).unwrap();
    let error = resolver.txt(NAME, before + Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, DnsError::NoServer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_denial_is_remembered_for_as_long_as_its_soa_says() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = fake(move |query| {
        count.fetch_add(1, Ordering::Relaxed);
        let with_soa = query.queries[0].name().to_ascii().starts_with("soa.");
        let mut response = query.into_response();
        response.metadata.response_code = ResponseCode::NXDomain;
        if with_soa {
            let soa = rdata::SOA::new(name("ns.example."), name("h.example."), 1, 2, 3, 4, 60);
            response.authorities.push(Record::from_rdata(name("example."), 60, RData::SOA(soa)));
        }
        response.to_vec().unwrap()
    })
    .await;
    let resolver = Resolver::new(&[server]).unwrap();
    for (name, queries) in [("soa.example", 1), ("bare.example", 2)] {
        asked.store(0, Ordering::Relaxed);
        for _ in 0..2 {
            assert!(matches!(resolver.txt(name, soon()).await, Err(DnsError::NxDomain { .. })));
        }
        assert_eq!(asked.load(Ordering::Relaxed), queries, "{name}");
    }
}

#[tokio::test]
async fn special_names_are_not_asked_for() {
    let resolver = Resolver::new(&[closed_port().await]).unwrap();
    let found = resolver.addresses("x.localhost", Family::Any, soon()).await.unwrap();
    assert!(found.values.iter().all(IpAddr::is_loopback) && found.values.len() == 2, "{found:?}");
    assert!(matches!(resolver.txt("peer.invalid", soon()).await, Err(DnsError::NxDomain { .. })));
}

#[test]
fn servers_are_given_as_addresses() {
    for (text, address) in [
        ("127.0.0.1:5353", "127.0.0.1:5353"),
        ("127.0.0.1", "127.0.0.1:53"),
        ("[::1]:53", "[::1]:53"),
        ("[::1]", "[::1]:53"),
        ("::1", "[::1]:53"),
        ("2001:db8::1", "[2001:db8::1]:53"),
    ] {
        assert_eq!(parse_server(text).unwrap().to_string(), address, "{text}");
    }
    for text in ["", "dns.example", "127.0.0.1:0", "127.0.0.1:", "127.0.0.1:99999", "[::1", "::1]", "[127.0.0.1]"] {
        assert_eq!(parse_server(text).unwrap_err().kind(), Kind::Usage, "{text}");
    }
    assert!(Resolver::new(&[]).is_err());
    // One on a link-local address keeps its interface.
    let twice = ["[fe80::1%2]:53".parse().unwrap(); 2];
    assert_eq!(Resolver::new(&twice).unwrap().servers().collect::<Vec<_>>(), twice[..1]);
}

proptest! {
    #[test]
    fn no_text_makes_the_server_parser_panic(text in ".*") {
        let _ = parse_server(&text);
    }
}
