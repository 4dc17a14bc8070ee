//! On real sockets of loopback.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use async_trait::async_trait;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, UdpSocket},
};

use super::*;
use crate::sip::transport::{OverlayPort, TlsFiles, overlay::via_host, response_target};

const TIMEOUT: Duration = Duration::from_secs(10);

fn any(protocol: Protocol) -> (Protocol, SocketAddr) {
    (protocol, "127.0.0.1:0".parse().unwrap())
}

fn config(listen: &[Protocol]) -> Config {
    Config { listen: listen.iter().copied().map(any).collect(), ..Config::default() }
}

fn bind(config: Config) -> Bound {
    let bound = Transports::bind(config).unwrap();
    bound.transports.serve_udp(&bound.udp).unwrap();
    bound
}

fn address(bound: &Bound, protocol: Protocol) -> SocketAddr {
    bound.transports.listening().iter().find(|(each, _)| *each == protocol).unwrap().1
}

fn request(via: &str, length: usize) -> Bytes {
    let body = "x".repeat(length);
    format!(
        "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/{via};branch=z9hG4bK1\r\nFrom: <sip:a@example.com>;tag=1\r\n\
         To: <sip:b@example.com>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into()
}

fn ok(request: &Message) -> Bytes {
    crate::sip::respond::respond(request, 200, "OK", Some("2")).finish()
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TIMEOUT, future).await.expect("it took too long")
}

impl Bound {
    async fn message(&mut self) -> (Message, Source) {
        loop {
            match within(self.events.recv()).await {
                Some(Event::Message { message, source }) => return (message, source),
                Some(Event::Closed { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn failure(&mut self) -> (Token, SendError) {
        loop {
            match within(self.events.recv()).await {
                Some(Event::Failed { token, error }) => return (token, error),
                Some(Event::Closed { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn closed(&mut self) -> FlowId {
        loop {
            match within(self.events.recv()).await {
                Some(Event::Closed { flow, .. }) => return flow,
                Some(_) => {}
                None => panic!("all closed"),
            }
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.transports.counters().dropped(reason)
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut octets = Vec::new();
    // A reset is an end too.
    let _ = within(stream.read_to_end(&mut octets)).await;
    String::from_utf8(octets).unwrap()
}

#[tokio::test]
async fn one_connection_carries_messages_both_ways() {
    for ip in ["127.0.0.1", "[::1]"] {
        let listen = vec![(Protocol::Tcp, format!("{ip}:0").parse().unwrap())];
        let (mut here, mut there) = (
            bind(Config { listen: listen.clone(), ..Config::default() }),
            bind(Config { listen, ..Config::default() }),
        );
        let hop = Hop::socket(Protocol::Tcp, address(&there, Protocol::Tcp));
        for token in 0..3 {
            here.transports.send(&hop, request("TCP here", 5), token).unwrap();
        }
        let mut flows = Vec::new();
        for _ in 0..3 {
            let (message, source) = there.message().await;
            let back = response_target(&message.top_via().unwrap(), &source);
            there.transports.send(&back, ok(&message), 0).unwrap();
            assert_eq!(here.message().await.0.status(), Some(200));
            flows.push(source.flow);
        }
        assert!(flows.iter().all(|flow| *flow == flows[0]), "{flows:?}");
        // A request the other way, to where the connection came from: no new connection.
        let caller = here.transports.listening()[0].1;
        there
            .transports
            .send(&Hop { flow: Some(flows[0]), ..Hop::socket(Protocol::Tcp, caller) }, request("TCP b", 0), 0)
            .unwrap();
        assert!(here.message().await.0.is_request());
        let count = |bound: &Bound| {
            let traffic = bound.transports.counters().traffic(Protocol::Tcp);
            [&traffic.opened, &traffic.accepted, &traffic.open, &traffic.received, &traffic.sent]
                .map(|counter| counter.load(Ordering::Relaxed))
        };
        assert_eq!((count(&here), count(&there)), ([1, 0, 1, 4, 3], [0, 1, 1, 3, 4]));
    }
}

#[tokio::test]
async fn a_response_whose_connection_is_gone_goes_to_the_port_of_sent_by() {
    let mut server = bind(config(&[Protocol::Tcp]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = TcpStream::connect(address(&server, Protocol::Tcp)).await.unwrap();
    client.write_all(&request(&format!("TCP client.example.com:{port}"), 0)).await.unwrap();
    let (message, source) = server.message().await;
    drop(client);
    assert_eq!(server.closed().await, source.flow);
    let hop = response_target(&message.top_via().unwrap(), &source);
    server.transports.send(&hop, ok(&message), 0).unwrap();
    let (mut again, _) = within(listener.accept()).await.unwrap();
    let mut octets = [0; 15];
    within(again.read_exact(&mut octets)).await.unwrap();
    assert_eq!(&octets, b"SIP/2.0 200 OK\r");
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_reported_with_its_token() {
    let mut bound = bind(config(&[Protocol::Tcp]));
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hop = Hop::socket(Protocol::Tcp, free);
    bound.transports.send(&hop, request("TCP a", 0), 41).unwrap();
    bound.transports.send(&hop, request("TCP a", 0), 42).unwrap();
    for token in [41, 42] {
        let (failed, error) = bound.failure().await;
        assert_eq!(failed, token);
        assert!(matches!(error, SendError::Unreachable { .. }), "{error}");
    }
    bound.closed().await;
    let nowhere = Hop::socket(Protocol::Tcp, "127.0.0.1:0".parse().unwrap());
    assert!(matches!(bound.transports.send(&nowhere, request("TCP a", 0), 1), Err(SendError::NoSocket { .. })));
    assert_eq!(bound.dropped(DropReason::NoWayBack), 1);
}

/// A CA, and certificates of it, in a folder.
struct Pki {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn issue(&self, name: &str, names: &[SanType]) -> TlsFiles {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().unwrap();
        let path = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        std::fs::write(path("pem"), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        TlsFiles { certificate: Some((path("pem"), path("key"))), roots: Some(self.roots()) }
    }

    fn roots(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

#[tokio::test]
async fn tls_proves_the_domain_of_both_sides() {
    let pki = Pki::new();
    let server = TlsFiles { ..pki.issue("server", &[uri("sip:example.com"), dns("host.example.com")]) };
    let mut server = bind(Config { tls: server, ..config(&[Protocol::Tls]) });
    let hop = Hop::socket(Protocol::Tls, address(&server, Protocol::Tls)).named("Example.COM");
    let named = pki.issue("client", &[uri("sip:example.net")]);
    let anonymous = TlsFiles { certificate: None, roots: Some(pki.roots()) };
    for (tls, domains) in [(named, &["example.net"][..]), (anonymous, &[])] {
        let mut client = bind(Config { tls, ..config(&[]) });
        client.transports.send(&hop, request("TLS client", 0), 0).unwrap();
        let (message, source) = server.message().await;
        assert_eq!(source.domains.iter().map(String::as_str).collect::<Vec<_>>(), domains);
        server.transports.send(&source.way_back(), ok(&message), 0).unwrap();
        assert_eq!(&client.message().await.1.domains[..], ["example.com"]);
    }
}

#[tokio::test]
async fn a_certificate_for_another_domain_is_refused() {
    let pki = Pki::new();
    let other = Pki::new();
    let cases = [
        // The SIP URI says it all: the DNS name beside it does not count (RFC 5922 §7.1).
        (pki.issue("uri", &[uri("sip:example.net"), dns("example.com")]), &pki, "example.com", false),
        (pki.issue("wildcard", &[dns("*.example.com")]), &pki, "sip.example.com", false),
        (pki.issue("dns", &[dns("example.com")]), &pki, "example.com", true),
        (pki.issue("ip", &[SanType::IpAddress("127.0.0.1".parse().unwrap())]), &pki, "", true),
        (pki.issue("noip", &[dns("localhost")]), &pki, "", false),
        (pki.issue("foreign", &[dns("example.com")]), &other, "example.com", false),
    ];
    for (files, believed, name, good) in cases {
        let case = files.certificate.clone().unwrap().0;
        let mut server = bind(Config { tls: files, ..config(&[Protocol::Tls]) });
        let tls = TlsFiles { certificate: None, roots: Some(believed.roots()) };
        let mut client = bind(Config { tls, ..config(&[]) });
        let hop = Hop::socket(Protocol::Tls, address(&server, Protocol::Tls));
        let hop = if name.is_empty() { hop } else { hop.named(name) };
        client.transports.send(&hop, request("TLS client", 0), 7).unwrap();
        if good {
            assert!(server.message().await.0.is_request(), "{case:?}");
        } else {
            let (token, error) = client.failure().await;
            assert!(matches!((token, &error), (7, SendError::Untrusted { .. })), "{case:?}: {error}");
            server.closed().await;
            assert_eq!(server.dropped(DropReason::Handshake), 1);
        }
    }
}

#[tokio::test]
async fn tls_files_that_cannot_be_used_are_named() {
    let pki = Pki::new();
    let good = pki.issue("server", &[dns("example.com")]);
    let error = |tls: TlsFiles| Transports::bind(Config { tls, ..config(&[Protocol::Tls]) }).err().unwrap().to_string();
    assert!(error(TlsFiles::default()).contains("without a certificate"));
    let missing = TlsFiles { roots: Some(Path::new("/nonexistent/ca.pem").to_owned()), ..good.clone() };
    assert!(error(missing).contains("/nonexistent/ca.pem"));
    let (chain, key) = good.certificate.clone().unwrap();
    let swapped = TlsFiles { certificate: Some((key.clone(), chain.clone())), ..good.clone() };
    assert!(error(swapped).contains(chain.to_str().unwrap()));
    let foreign = pki.issue("other", &[dns("example.com")]).certificate.unwrap().1;
    assert!(error(TlsFiles { certificate: Some((chain, foreign)), ..good }).starts_with("cannot set up"));
}

#[tokio::test]
async fn a_message_that_does_not_come_in_time_ends_its_connection() {
    let limits = Limits { message_time: Duration::from_millis(200), ..Limits::default() };
    let server = bind(Config { limits, ..config(&[Protocol::Tcp]) });
    let connect = || TcpStream::connect(address(&server, Protocol::Tcp));
    let begun = Instant::now();
    // One that drips, one that stops midway, one that says nothing at all.
    let (mut drip, mut midway, mut silent) =
        (connect().await.unwrap(), connect().await.unwrap(), connect().await.unwrap());
    midway.write_all(b"OPTIONS sip:a@b SIP/2.0\r\n").await.unwrap();
    for octet in request("TCP a", 0).chunks(1) {
        if drip.write_all(octet).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(read_to_end(&mut midway).await, "");
    assert!(begun.elapsed() >= limits.message_time);
    assert_eq!(read_to_end(&mut drip).await, "");
    assert_eq!(server.dropped(DropReason::Slow), 2);
    assert_eq!(read_to_end(&mut silent).await, "");
    assert!(begun.elapsed() >= limits.message_time * 3);
    // A handshake that is never made counts as slow too.
    let pki = Pki::new();
    let limits = Limits { connect: Duration::from_millis(100), ..Limits::default() };
    let tls = pki.issue("server", &[dns("example.com")]);
    let server = bind(Config { limits, tls, ..config(&[Protocol::Tls]) });
    let mut silent = TcpStream::connect(address(&server, Protocol::Tls)).await.unwrap();
    assert_eq!(read_to_end(&mut silent).await, "");
    assert_eq!(server.dropped(DropReason::Slow), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_ends_its_connection() {
    let limits = Limits { body: 1000, ..Limits::default() };
    let server = bind(Config { limits, ..config(&[Protocol::Tcp]) });
    let no_length = String::from_utf8(request("TCP a", 0).to_vec()).unwrap().replace("Content-Length: 0\r\n", "");
    let too_long = String::from_utf8(request("TCP a", 1001).to_vec()).unwrap();
    let cases = [
        (no_length.as_str(), "SIP/2.0 400 Bad Request\r\n", DropReason::Malformed),
        (&too_long, "SIP/2.0 513 Message Too Large\r\n", DropReason::Oversized),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", DropReason::Malformed),
    ];
    for (octets, answer, reason) in cases {
        let before = server.dropped(reason);
        let mut client = TcpStream::connect(address(&server, Protocol::Tcp)).await.unwrap();
        client.write_all(octets.as_bytes()).await.unwrap();
        let read = read_to_end(&mut client).await;
        assert!(read.starts_with(answer) && read.is_empty() == answer.is_empty(), "{read}");
        assert_eq!(server.dropped(reason), before + 1);
    }
}

#[tokio::test]
async fn a_flood_of_connections_is_bounded() {
    let limits = Limits { connections_per_source: 8, connections: 10, ..Limits::default() };
    let mut server = bind(Config { limits, ..config(&[Protocol::Tcp]) });
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(TcpStream::connect(address(&server, Protocol::Tcp)).await.unwrap());
    }
    for refused in &mut held[8..] {
        assert_eq!(read_to_end(refused).await, "");
    }
    assert_eq!(server.dropped(DropReason::Crowded), 42);
    // Those that are in are served, and one that leaves makes room.
    held[0].write_all(&request("TCP a", 0)).await.unwrap();
    server.message().await;
    drop(held);
    for _ in 0..8 {
        server.closed().await;
    }
    let mut late = TcpStream::connect(address(&server, Protocol::Tcp)).await.unwrap();
    late.write_all(&request("TCP a", 0)).await.unwrap();
    server.message().await;
    // Our own dialling has a limit too.
    let refused = std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0"));
    let mut crowded = false;
    let mut listeners = Vec::new();
    for listener in refused.take(12) {
        let listener = listener.await.unwrap();
        let hop = Hop::socket(Protocol::Tcp, listener.local_addr().unwrap());
        crowded |= matches!(server.transports.send(&hop, request("TCP a", 0), 0), Err(SendError::Crowded { .. }));
        listeners.push(listener);
    }
    assert!(crowded);
}

#[tokio::test]
async fn who_does_not_read_is_disconnected() {
    let limits = Limits { write: Duration::from_millis(300), ..Limits::default() };
    let mut server = bind(Config { limits, ..config(&[Protocol::Tcp]) });
    let mut deaf = TcpStream::connect(address(&server, Protocol::Tcp)).await.unwrap();
    deaf.write_all(&request("TCP a", 0)).await.unwrap();
    let (_, source) = server.message().await;
    // More than the queue and both sockets' buffers hold.
    let mut refused = false;
    for token in 0..5_000 {
        if let Err(error) = server.transports.send(&source.way_back(), request("TCP b", 60_000), token) {
            assert!(matches!(error, SendError::Stalled { .. }), "{error}");
            refused = true;
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(refused);
    assert!(matches!(server.failure().await.1, SendError::Unreachable { .. }));
    server.closed().await;
    assert_eq!(server.dropped(DropReason::Stalled), 1);
    // One that reads too slowly for a message is given up even if nothing queues up behind it.
    let mut deaf = TcpStream::connect(address(&server, Protocol::Tcp)).await.unwrap();
    deaf.write_all(&request("TCP a", 0)).await.unwrap();
    let (_, source) = server.message().await;
    server.transports.send(&source.way_back(), request("TCP b", 8 << 20), 77).unwrap();
    assert_eq!(server.failure().await.0, 77);
    assert_eq!(server.dropped(DropReason::Stalled), 2);
}

#[tokio::test]
async fn keep_alives_are_answered_and_sent() {
    let limits = Limits { idle: Duration::from_millis(400), ..Limits::default() };
    let mut server = bind(Config { limits, ..config(&[Protocol::Tcp]) });
    let mut client = TcpStream::connect(address(&server, Protocol::Tcp)).await.unwrap();
    for _ in 0..3 {
        client.write_all(b"\r\n\r\n").await.unwrap();
        let mut pong = [0; 2];
        within(client.read_exact(&mut pong)).await.unwrap();
        assert_eq!(&pong, b"\r\n");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Unused for long enough, it is closed.
    assert_eq!(read_to_end(&mut client).await, "");

    // A client of ours keeps its connection open, past the server's limit, and one that does not loses it.
    let keep_alive = Some(Duration::from_millis(100));
    let keeping = bind(Config { limits: Limits { keep_alive, ..Limits::default() }, ..config(&[]) });
    let mut losing = bind(config(&[]));
    let hop = Hop::socket(Protocol::Tcp, address(&server, Protocol::Tcp));
    for client in [&keeping, &losing] {
        client.transports.send(&hop, request("TCP a", 0), 0).unwrap();
        while !matches!(within(server.events.recv()).await, Some(Event::Message { .. })) {}
    }
    losing.closed().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let open = |bound: &Bound| bound.transports.counters().traffic(Protocol::Tcp).open.load(Ordering::Relaxed);
    assert_eq!((open(&keeping), open(&losing)), (1, 0));
}

#[tokio::test]
async fn a_long_request_goes_over_tcp_or_else_over_udp_after_all() {
    let mut client = bind(config(&[Protocol::Udp]));
    // The TCP port is taken, and does not listen yet: nobody on TCP.
    let (tcp, udp) = loop {
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (tcp, udp);
        }
    };
    let hop = Hop::socket(Protocol::Udp, udp.local_addr().unwrap());
    let long = request("UDP client", 1400);
    client.transports.send(&hop, long.clone(), 1).unwrap();
    let mut octets = vec![0; 4096];
    let (length, _) = within(udp.recv_from(&mut octets)).await.unwrap();
    assert_eq!(octets[..length], long);
    client.closed().await;
    // Somebody on TCP.
    let listener = tcp.listen(8).unwrap();
    client.transports.send(&hop, long, 2).unwrap();
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    let length = within(stream.read(&mut octets)).await.unwrap();
    let text = String::from_utf8_lossy(&octets[..length]).into_owned();
    assert!(text.contains("Via: SIP/2.0/TCP client;branch"), "{text}");
    // A short one, and a long response, stay with UDP.
    client.transports.send(&hop, request("UDP client", 10), 3).unwrap();
    within(udp.recv_from(&mut octets)).await.unwrap();
    let response = format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a\r\nContent-Length: 1400\r\n\r\n{}", "x".repeat(1400));
    client.transports.send(&hop, response.into(), 4).unwrap();
    assert!(within(udp.recv_from(&mut octets)).await.unwrap().0 > 1400);
}

#[tokio::test]
async fn datagrams_come_as_messages_and_what_is_none_is_counted() {
    let (mut here, there) = (bind(config(&[Protocol::Udp])), bind(config(&[Protocol::Udp])));
    let hop = Hop::socket(Protocol::Udp, address(&here, Protocol::Udp));
    there.transports.send(&hop, Bytes::from_static(b"hello"), 0).unwrap();
    there.transports.send(&hop, request("UDP a", 0), 0).unwrap();
    let (message, source) = here.message().await;
    assert!(message.is_request());
    assert_eq!(source.flow, here.udp[0].flow());
    assert_eq!(here.dropped(DropReason::Malformed), 1);
    // From a thread that has no runtime.
    let (transports, back) = (here.transports.clone(), source.way_back());
    let response = ok(&message);
    let mut there = there;
    std::thread::spawn(move || transports.send(&back, response, 0).unwrap()).join().unwrap();
    assert_eq!(there.message().await.0.status(), Some(200));
}

#[tokio::test]
async fn when_the_last_handle_is_gone_everything_is_closed() {
    let mut bound = bind(config(&[Protocol::Udp, Protocol::Tcp]));
    let (udp, tcp) = (address(&bound, Protocol::Udp), address(&bound, Protocol::Tcp));
    let mut client = TcpStream::connect(tcp).await.unwrap();
    client.write_all(&request("TCP a", 0)).await.unwrap();
    let (message, source) = bound.message().await;
    // What waits is still written.
    bound.transports.send(&source.way_back(), ok(&message), 0).unwrap();
    let Bound { transports, mut events, udp: ports } = bound;
    drop((transports, ports));
    while within(events.recv()).await.is_some() {}
    assert!(read_to_end(&mut client).await.starts_with("SIP/2.0 200"));
    std::net::UdpSocket::bind(udp).unwrap();
    assert!(TcpStream::connect(tcp).await.is_err());
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let bound = bind(config(&[Protocol::Tcp, Protocol::Udp]));
    for (protocol, address) in bound.transports.listening().to_vec() {
        let error = Transports::bind(Config { listen: vec![(protocol, address)], ..Config::default() }).err().unwrap();
        assert!(error.to_string().starts_with(&format!("cannot listen for SIP on {protocol} {address}")), "{error}");
    }
}

#[tokio::test]
async fn both_families_share_a_port() {
    let first = bind(config(&[Protocol::Udp, Protocol::Tcp]));
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let port = address(&first, protocol).port();
        let both = ["0.0.0.0", "[::]"].map(|ip| (protocol, format!("{ip}:{}", port ^ 1).parse().unwrap()));
        // Another test may have the port by now: only "in use" would be no fault.
        match Transports::bind(Config { listen: both.to_vec(), ..Config::default() }) {
            Ok(bound) => assert_eq!(bound.transports.listening().len(), 2),
            Err(error) => assert!(error.to_string().contains("0.0.0.0"), "{error}"),
        }
    }
}

/// Peers that are connected by pipes.
struct Pipes {
    from: PeerId,
    to: Vec<(PeerId, mpsc::Sender<(PeerId, BoxedStream)>)>,
}

#[async_trait]
impl OverlayDialer for Pipes {
    async fn open(&self, peer: PeerId, _: &[String]) -> io::Result<BoxedStream> {
        let Some((_, to)) = self.to.iter().find(|(each, _)| *each == peer) else {
            return Err(io::Error::other("no such peer"));
        };
        let (near, far) = tokio::io::duplex(64 * 1024);
        to.send((self.from, Box::new(far))).await.map_err(|_| io::Error::other("nobody accepts"))?;
        Ok(Box::new(near))
    }
}

fn peer(n: u8) -> PeerId {
    PeerId::from_public_key([n; 32])
}

/// Transports of two peers, and what brings a further stream to the second.
fn peers(limits: Limits) -> (Bound, Bound, mpsc::Sender<(PeerId, BoxedStream)>) {
    let ((to_first, first), (to_second, second)) = (mpsc::channel(8), mpsc::channel(8));
    let port = |from: u8, to: u8, sender, incoming| {
        let dialer = Box::new(Pipes { from: peer(from), to: vec![(peer(to), sender)] });
        Config { overlay: Some(OverlayPort { dialer, incoming }), limits, ..Config::default() }
    };
    (bind(port(1, 2, to_second.clone(), first)), bind(port(2, 1, to_first, second)), to_second)
}

#[tokio::test]
async fn peers_speak_over_one_stream_and_open_another_when_it_is_lost() {
    let (mut first, mut second, _) = peers(Limits { idle: Duration::from_millis(300), ..Limits::default() });
    let via = format!("OVERLAY {}", via_host(&peer(1)));
    for _ in 0..2 {
        first.transports.send(&Hop::peer(peer(2), []), request(&via, 0), 0).unwrap();
    }
    let (_, source) = second.message().await;
    let (message, again) = second.message().await;
    assert_eq!((source.remote, source.flow), (Remote::Peer(peer(1)), again.flow));
    second.transports.send(&source.way_back(), ok(&message), 0).unwrap();
    let (response, of) = first.message().await;
    assert_eq!((response.status(), of.remote), (Some(200), Remote::Peer(peer(2))));
    // The stream goes; the response finds the peer by its id.
    second.closed().await;
    first.closed().await;
    second.transports.send(&source.way_back(), ok(&message), 0).unwrap();
    assert_eq!(first.message().await.0.status(), Some(200));
    let traffic = |bound: &Bound| {
        let traffic = bound.transports.counters().traffic(Protocol::Overlay);
        [&traffic.opened, &traffic.accepted].map(|counter| counter.load(Ordering::Relaxed))
    };
    assert_eq!((traffic(&first), traffic(&second)), ([1, 1], [1, 1]));
    // To nobody.
    first.transports.send(&Hop::peer(peer(3), []), request(&via, 0), 9).unwrap();
    let (token, error) = first.failure().await;
    assert_eq!(token, 9);
    assert!(error.to_string().ends_with("no such peer"), "{error}");
}

#[tokio::test]
async fn a_peer_that_writes_anothers_name_into_its_via_is_cut_off() {
    let (_first, mut second, to_second) = peers(Limits::default());
    for foreign in
        [format!("OVERLAY {}", via_host(&peer(3))), "TCP 192.0.2.1".to_owned(), "OVERLAY a.invalid".to_owned()]
    {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        to_second.send((peer(1), Box::new(far))).await.unwrap();
        near.write_all(&request(&format!("OVERLAY {}", via_host(&peer(1))), 0)).await.unwrap();
        assert!(second.message().await.0.is_request());
        near.write_all(&request(&foreign, 0)).await.unwrap();
        let mut rest = Vec::new();
        within(near.read_to_end(&mut rest)).await.unwrap();
        assert!(matches!(within(second.events.recv()).await, Some(Event::Closed { .. })), "{foreign}");
    }
    assert_eq!(second.dropped(DropReason::ForeignVia), 3);
}

#[tokio::test]
async fn without_an_overlay_no_peer_is_reached() {
    let bound = bind(config(&[Protocol::Tcp]));
    let sent = bound.transports.send(&Hop::peer(peer(1), []), request("OVERLAY a", 0), 0);
    assert!(matches!(sent, Err(SendError::NoSocket { .. })));
    assert!(!bound.transports.speaks(Protocol::Overlay) && !bound.transports.speaks(Protocol::Udp));
}
