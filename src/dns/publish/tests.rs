//! Publication against a name server: the embedded one, or a real one that `tests/interop/dns-update.sh` starts.
//!
//! A real server is named by variables: `P2PSIP_TEST_DNS` is its address, `P2PSIP_TEST_KEYS` a folder with the files
//! `gatekeeper.key` (may do everything), `stranger.key` (known, may do nothing) and, if the server has quotas,
//! `quota.key` (two addresses a name). Its zone is `p2psip.org`. Each test has an overlay of its own below that.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::{
    carry_out::Made,
    plan::Author,
    primary::{Exchange, Sent, random_id},
    records::rule,
    *,
};
use crate::{
    clock::UnixMs,
    dns::{
        Data, DataKind, DescriptorPointer, DnsRecord, DnsServer, Grant, Resolver, RrSet, TsigKey, Update, Zone,
        update::{Judgement, judge},
    },
    kind::Kind,
    name::{OverlayId, PeerId},
};

const ZONE: &str = "p2psip.org";
const TIMEOUT: Duration = Duration::from_secs(10);

/// A name server with the zone, and its keys.
struct Server {
    address: SocketAddr,
    gatekeeper: TsigKey,
    stranger: TsigKey,
    quota: Option<TsigKey>,
    _embedded: Option<DnsServer>,
}

impl Server {
    async fn start() -> Self {
        match std::env::var("P2PSIP_TEST_DNS") {
            Ok(address) => {
                let keys = std::env::var("P2PSIP_TEST_KEYS").unwrap();
                let key = |name: &str| Path::new(&keys).join(name);
                Self {
                    address: address.parse().unwrap(),
                    gatekeeper: TsigKey::load(&key("gatekeeper.key")).unwrap(),
                    stranger: TsigKey::load(&key("stranger.key")).unwrap(),
                    quota: key("quota.key").exists().then(|| TsigKey::load(&key("quota.key")).unwrap()),
                    _embedded: None,
                }
            }
            Err(_) => Self::embedded(Ipv4Addr::LOCALHOST.into()).await,
        }
    }

    async fn embedded(address: IpAddr) -> Self {
        let key = |name| TsigKey::generate(name).unwrap();
        let (gatekeeper, stranger, quota) = (key("gatekeeper"), key("stranger"), key("quota"));
        let zone = Zone::new(ZONE)
            .unwrap()
            .with_key(gatekeeper.clone(), vec![Grant::all()])
            .with_key(stranger.clone(), vec![])
            .with_key(
                quota.clone(),
                vec![
                    Grant::all().of(&[DataKind::A, DataKind::Aaaa]).at_most(2),
                    Grant::all().of(&[DataKind::Naptr, DataKind::Srv, DataKind::Ptr, DataKind::Txt]),
                ],
            );
        let server = DnsServer::start(SocketAddr::new(address, 0), vec![zone]).await.unwrap();
        Self { address: server.address(), gatekeeper, stranger, quota: Some(quota), _embedded: Some(server) }
    }

    /// A publisher for an overlay of its own.
    async fn publisher(&self, label: &str) -> Publisher {
        self.publisher_with(label, &self.gatekeeper).await
    }

    async fn publisher_with(&self, label: &str, key: &TsigKey) -> Publisher {
        let overlay = OverlayId::parse(&format!("{label}.{ZONE}")).unwrap();
        let zone = ZoneAt::on(self.address, &overlay, TIMEOUT).await.unwrap();
        assert_eq!(zone.zone, ZONE);
        Publisher::new(zone, key.clone(), TIMEOUT)
    }
}

fn peer(seed: u8) -> PeerId {
    PeerId::from_public_key([seed; 32])
}

/// What a proxy peer of the publisher's overlay publishes.
fn wanted(publisher: &Publisher, host: &str, last: u8) -> Publication {
    let overlay = publisher.zone().overlay.clone();
    Publication {
        host: format!("{host}.{overlay}"),
        addresses: vec![
            Ipv4Addr::new(192, 0, 2, last).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into(),
        ],
        endpoints: [Transport::Udp, Transport::Tcp].map(|transport| SipEndpoint { transport, port: 5060 }).to_vec(),
        ttl: 30,
        lease: 60,
        peer: Some(peer(last)),
        dialled: vec![format!("/ip4/192.0.2.{last}/tcp/4001")],
        descriptor: None,
        overlay,
    }
}

/// Everything that the zone says of the overlay, as text.
async fn everything(publisher: &Publisher) -> Vec<String> {
    let zone = publisher.zone().read(TIMEOUT).await.unwrap();
    let mut questions = Snapshot::shared_questions(&publisher.zone().overlay);
    questions.extend(zone.hosts().iter().flat_map(|host| Snapshot::host_questions(host)));
    let mut lines = Vec::new();
    for (name, kind) in questions {
        lines.extend(zone.set(&name, kind).iter().map(|data| format!("{name} {kind} {data}")));
    }
    lines
}

/// What is left of published records, but for tombstones and the pointers to them.
fn published(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| !line.contains("s=gone") && !line.contains(" PTR ")).collect()
}

#[tokio::test]
async fn a_proxy_peer_is_added_renewed_changed_and_removed() {
    let server = Server::start().await;
    let publisher = server.publisher("t1").await;
    let mut one = wanted(&publisher, "a", 1);
    one.descriptor = Some(DescriptorPointer { hash: "ab".repeat(32).parse().unwrap(), policy: None });
    let done = publisher.add(&one, false).await.unwrap();
    assert!(!done.plan.before.is_leased() && done.plan.warnings.is_empty());
    let zone = publisher.zone().read(TIMEOUT).await.unwrap();
    for record in one.records().unwrap() {
        assert!(zone.has(&record.name, &record.data), "{record}");
    }
    let host = zone.host(&one.host);
    assert_eq!((host.addresses.clone(), host.endpoints.clone()), (one.addresses.clone(), one.endpoints.clone()));
    let first = host.lease.unwrap();
    assert!(first.live && first.peer == one.peer && first.key == "gatekeeper");
    assert!((50_000..=61_000).contains(&first.remaining_ms(UnixMs::now())));

    // Renewed: the lease is another one, the rest is what it was.
    let strip = |lines: Vec<String>| lines.into_iter().filter(|line| !line.contains("s=live")).collect::<Vec<_>>();
    let before = strip(everything(&publisher).await);
    let done = publisher.add(&one, false).await.unwrap();
    assert_eq!(done.plan.before.lease, Some(first));
    assert_eq!(strip(everything(&publisher).await), before);

    // Changed: nothing of what it was stays.
    let mut changed = wanted(&publisher, "a", 1);
    changed.addresses = vec![Ipv4Addr::new(192, 0, 2, 77).into()];
    changed.endpoints = vec![SipEndpoint { transport: Transport::Tcp, port: 5070 }];
    changed.dialled = vec![];
    publisher.add(&changed, false).await.unwrap();
    let lines = everything(&publisher).await;
    let stale = |line: &&String| line.contains("192.0.2.1") || line.contains("udp") || line.contains(" AAAA ");
    assert_eq!(lines.iter().find(stale), None, "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("10 50 5070")), "{lines:#?}");

    publisher.remove(&one.host, false).await.unwrap();
    let lines = everything(&publisher).await;
    let left = published(&lines);
    assert!(left.len() == 1 && left[0].contains("v=P2PSIP1; h="), "the overlay keeps its descriptor: {left:#?}");
    assert_eq!(lines.iter().filter(|line| line.contains("s=gone")).count(), 1);
    let again = publisher.remove(&one.host, false).await.unwrap_err();
    assert!(matches!(again, PublishError::NotPublished { .. }) && again.kind() == Kind::Negative, "{again}");
    // The name is free again.
    publisher.add(&one, false).await.unwrap();
}

#[tokio::test]
async fn sixteen_publishers_at_once_do_not_clobber_each_other() {
    let server = Server::start().await;
    let publisher = server.publisher("t2").await;
    let all = (1..=16).map(|n| wanted(&publisher, &format!("p{n}"), n)).collect::<Vec<_>>();
    let results = futures::future::join_all(all.iter().map(|one| publisher.add(one, false))).await;
    results.into_iter().for_each(|result| drop(result.unwrap()));
    let zone = publisher.zone().read(TIMEOUT).await.unwrap();
    for one in &all {
        for record in one.records().unwrap() {
            assert!(zone.has(&record.name, &record.data), "{record}");
        }
    }
    // Half of them leave while the others renew.
    let (leaving, staying) = all.split_at(8);
    let left = futures::future::join_all(leaving.iter().map(|one| publisher.remove(&one.host, false)));
    let stayed = futures::future::join_all(staying.iter().map(|one| publisher.add(one, false)));
    let (left, stayed) = futures::future::join(left, stayed).await;
    left.into_iter().chain(stayed).for_each(|result| drop(result.unwrap()));
    let zone = publisher.zone().read(TIMEOUT).await.unwrap();
    assert_eq!(zone.hosts().iter().filter(|host| zone.host(host).is_leased()).count(), 8);
    assert_eq!(zone.rule(Transport::Udp), (true, true));
    // The last ones leave at once: each may be the one that takes the rules away.
    let left = futures::future::join_all(staying.iter().map(|one| publisher.remove(&one.host, false))).await;
    left.into_iter().for_each(|result| drop(result.unwrap()));
    assert_eq!(published(&everything(&publisher).await), Vec::<&String>::new());
}

#[tokio::test]
async fn of_sixteen_who_want_one_host_one_gets_it() {
    let server = Server::start().await;
    let publisher = server.publisher("t3").await;
    for round in 0..4u8 {
        let all =
            (1..=16).map(|n| Publication { peer: Some(peer(n)), ..wanted(&publisher, "a", n) }).collect::<Vec<_>>();
        let results = futures::future::join_all(all.iter().map(|one| publisher.add(one, false))).await;
        let winners =
            results.iter().zip(&all).filter(|(result, _)| result.is_ok()).map(|(_, one)| one).collect::<Vec<_>>();
        assert_eq!(winners.len(), 1, "round {round}: {results:?}");
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert!(matches!(error, PublishError::Conflict { .. } | PublishError::NotOurs { .. }), "{error}");
        }
        let host = publisher.zone().read(TIMEOUT).await.unwrap().host(&winners[0].host);
        assert_eq!(host.addresses, winners[0].addresses);
        publisher.remove(&winners[0].host, false).await.unwrap();
    }
}

#[tokio::test]
async fn a_captured_add_that_is_sent_again_changes_nothing() {
    let server = Server::start().await;
    let publisher = server.publisher("t4").await;
    let one = wanted(&publisher, "a", 1);
    let exchange = || Exchange { server: server.address, deadline: Instant::now() + TIMEOUT };
    let captured = async |plan: &Plan| {
        let signed = plan.update.sign(&server.gatekeeper, random_id().unwrap(), UnixMs::now().0 / 1000).unwrap();
        let sent = exchange().send(&signed, &server.gatekeeper, true).await;
        assert!(matches!(sent, Sent::Answered(Judgement::Done)), "{sent:?}");
        signed
    };
    let replayed = async |signed: &super::super::tsig::Signed| {
        let before = everything(&publisher).await;
        let sent = exchange().send(signed, &server.gatekeeper, true).await;
        assert!(matches!(sent, Sent::Answered(Judgement::Unmet(_))), "{sent:?}");
        assert_eq!(everything(&publisher).await, before);
    };
    let add = captured(&publisher.plan_add(&one, false).await.unwrap()).await;
    replayed(&add).await;
    let renewal = captured(&publisher.plan_add(&one, false).await.unwrap()).await;
    replayed(&add).await;
    let removal = captured(&publisher.plan_remove(&one.host, false).await.unwrap()).await;
    for signed in [&add, &renewal, &removal] {
        replayed(signed).await;
    }
    let second = captured(&publisher.plan_add(&one, false).await.unwrap()).await;
    for signed in [&add, &renewal, &removal, &second] {
        replayed(signed).await;
    }
    publisher.remove(&one.host, false).await.unwrap();
    replayed(&second).await;
}

#[tokio::test]
async fn keys_and_clocks_that_are_wrong_are_told_apart() {
    let server = Server::start().await;
    let right = server.publisher("t5").await;
    let one = wanted(&right, "a", 1);
    let algorithm = server.gatekeeper.algorithm();
    let wrong_secret = TsigKey::new("gatekeeper", &algorithm, vec![7; 32]).unwrap();
    let unknown = TsigKey::generate("nobody").unwrap();
    for (key, says) in [
        (&wrong_secret, vec!["NOTAUTH, BADSIG"]),
        (&unknown, vec!["NOTAUTH, BADKEY"]),
        // Knot answers as if it did not know the key.
        (&server.stranger, vec!["REFUSED: the zone's policy", "NOTAUTH, BADKEY"]),
    ] {
        let publisher = server.publisher_with("t5", key).await;
        let error = publisher.add(&one, false).await.unwrap_err();
        assert!(error.kind() == Kind::Negative, "{error}");
        assert!(says.iter().any(|says| error.to_string().contains(says)), "{error}");
    }
    for (skew, says) in [(-3600i64, "its clock is 3600 s ahead"), (3600, "its clock is 3600 s behind")] {
        let plan = right.plan_add(&one, false).await.unwrap();
        let time = UnixMs::now().0 / 1000;
        let ours = time.saturating_add_signed(skew);
        let signed = plan.update.sign(&server.gatekeeper, 7, ours).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(server.address).await.unwrap();
        socket.send(&signed.octets).await.unwrap();
        let mut buffer = [0; 1500];
        let length = tokio::time::timeout(TIMEOUT, socket.recv(&mut buffer)).await.unwrap().unwrap();
        match judge(&buffer[..length], &signed, &server.gatekeeper, ours) {
            Judgement::Refused(refusal) => {
                let words = refusal.to_string();
                assert!(words.contains("BADTIME") && refusal.signed, "{words}");
                let near = |ahead: i64| (ahead + skew).abs() <= 5;
                assert!(refusal.ahead.is_some_and(near), "{words} instead of {says}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(everything(&right).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_a_quota_drops_is_noticed_and_undone() {
    let server = Server::start().await;
    let Some(quota) = &server.quota else { return };
    let publisher = server.publisher_with("t6", quota).await;
    let mut one = wanted(&publisher, "a", 1);
    // Otherwise the identifier's own quota would count as well.
    one.endpoints = vec![SipEndpoint { transport: Transport::Udp, port: 5070 }];
    let greedy =
        Publication { addresses: (1..=3).map(|n| Ipv4Addr::new(192, 0, 2, n).into()).collect(), ..one.clone() };
    let error = publisher.add(&greedy, false).await.unwrap_err();
    assert!(matches!(error, PublishError::Dropped { .. }) && error.kind() == Kind::Negative, "{error}");
    assert!(error.to_string().contains(&format!("without {}. 30 IN A 192.0.2.", one.host)), "{error}");
    assert_eq!(published(&everything(&publisher).await), Vec::<&String>::new());
    // A renewal that fails leaves what there was.
    publisher.add(&one, false).await.unwrap();
    publisher.add(&greedy, false).await.unwrap_err();
    let host = publisher.zone().read(TIMEOUT).await.unwrap().host(&one.host);
    assert_eq!((&host.addresses, &host.endpoints), (&one.addresses, &one.endpoints));
    assert!(host.is_leased());
}

#[tokio::test]
async fn what_is_somebody_elses_is_left_alone() {
    let server = Server::start().await;
    let (publisher, other) = (server.publisher("t7").await, server.publisher("t7").await);
    let overlay = publisher.zone().overlay.clone();
    let by_hand = async |name: &str, data: Data| {
        let record = DnsRecord { name: name.to_owned(), ttl: 30, data };
        let update =
            Update { zone: ZONE.to_owned(), changes: vec![super::super::Change::Add(record)], ..Update::default() };
        publisher.send(&update, Instant::now() + TIMEOUT, || async { Ok(false) }).await.unwrap();
    };
    // A host that has addresses, and an identifier with a web server.
    by_hand(&format!("www.{overlay}"), Data::A([192, 0, 2, 80].into())).await;
    by_hand(overlay.as_str(), Data::A([192, 0, 2, 80].into())).await;
    let one = wanted(&publisher, "www", 1);
    let error = publisher.add(&one, false).await.unwrap_err();
    assert!(matches!(error, PublishError::NotOurs { .. }) && error.to_string().contains("--force"), "{error}");
    let one = wanted(&publisher, "a", 1);
    let done = publisher.add(&one, false).await.unwrap();
    assert!(done.plan.warnings[0].contains("192.0.2.80"), "{:?}", done.plan.warnings);
    let zone = publisher.zone().read(TIMEOUT).await.unwrap();
    assert_eq!(zone.addresses(overlay.as_str()), [IpAddr::from([192, 0, 2, 80])]);
    // Another proxy peer may not have the same name, while the lease holds.
    let rival = Publication { peer: Some(peer(2)), ..one.clone() };
    let error = other.add(&rival, false).await.unwrap_err();
    assert!(error.to_string().contains("its lease is held by the key gatekeeper"), "{error}");
    other.add(&rival, true).await.unwrap();
    publisher.remove(&one.host, true).await.unwrap();
    // Another descriptor takes force, too: it says whom everybody trusts.
    let pointer = |octet: &str| Some(DescriptorPointer { hash: octet.repeat(32).parse().unwrap(), policy: None });
    publisher.add(&Publication { descriptor: pointer("ab"), ..one.clone() }, false).await.unwrap();
    let error = publisher.add(&Publication { descriptor: pointer("cd"), ..one.clone() }, false).await.unwrap_err();
    assert!(error.to_string().contains("another descriptor"), "{error}");
    publisher.add(&Publication { descriptor: pointer("cd"), ..one }, true).await.unwrap();
    let descriptors = everything(&publisher).await;
    assert_eq!(descriptors.iter().filter(|line| line.contains("v=P2PSIP1; h=")).count(), 1);
}

#[tokio::test]
async fn leases_that_are_over_are_reaped_and_tombstones_buried() {
    let server = Server::start().await;
    let publisher = server.publisher("t8").await;
    let (short, long) = (wanted(&publisher, "a", 1), wanted(&publisher, "b", 2));
    publisher.add(&Publication { lease: 2, ttl: 1, ..short.clone() }, false).await.unwrap();
    publisher.add(&long, false).await.unwrap();
    assert!(publisher.reap(&short.host).await.unwrap().is_none(), "not yet");
    let due = async || {
        let zone = publisher.zone().read(TIMEOUT).await.unwrap();
        publisher.plan_reap(&zone).unwrap().into_iter().map(|plan| plan.host).collect::<Vec<_>>()
    };
    let began = Instant::now();
    while due().await.is_empty() {
        assert!(began.elapsed() < TIMEOUT);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(due().await, std::slice::from_ref(&short.host));
    publisher.reap(&short.host).await.unwrap().unwrap();
    let lines = everything(&publisher).await;
    assert!(!lines.iter().any(|line| line.contains("192.0.2.1")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("s=gone")), "{lines:#?}");
    assert!(publisher.reap(&short.host).await.unwrap().is_none(), "the tombstone stays");
    // A later time, at which nothing from before is accepted any more.
    let zone = publisher.zone().read(TIMEOUT).await.unwrap();
    let later = Author { key: "gatekeeper", now: UnixMs::now().after(TOMBSTONE * 2), force: false };
    for host in [&short.host, &long.host] {
        let plan = plan::reap(&zone, host, later).unwrap().unwrap();
        assert_eq!(plan.lease, None);
        let made = publisher.send(&plan.update, Instant::now() + TIMEOUT, || async { Ok(false) }).await.unwrap();
        assert!(matches!(made, Made::Yes | Made::Unmet));
    }
    publisher.mend().await.unwrap();
    let lines = everything(&publisher).await;
    assert_eq!(lines.iter().find(|line| line.contains(&short.host)), None, "{lines:#?}");
}

#[tokio::test]
async fn answers_too_large_for_a_datagram_come_over_tcp() {
    let server = Server::start().await;
    let publisher = server.publisher("t9").await;
    let all = (1..=60).map(|n| wanted(&publisher, &format!("proxy-with-a-long-name-{n}"), n)).collect::<Vec<_>>();
    let results = Publisher::each(all.iter().collect(), |one| publisher.add(one, false)).await;
    results.into_iter().for_each(|result| drop(result.unwrap()));
    let zone = publisher.zone().read(TIMEOUT).await.unwrap();
    assert_eq!(zone.hosts().len(), 60);
    assert_eq!(zone.set(&srv_owner(Transport::Udp, zone.overlay()), DataKind::Srv).len(), 60);
    // An update of more than a datagram goes over TCP as well.
    let mut big = wanted(&publisher, "big", 100);
    big.dialled = (0..8).map(|n| format!("/dns4/{}.example.com/tcp/400{n}", "x".repeat(60))).collect();
    big.endpoints =
        TRANSPORTS.into_iter().flat_map(|transport| [5060, 5070].map(|port| SipEndpoint { transport, port })).collect();
    publisher.add(&big, false).await.unwrap();
}

#[tokio::test]
async fn over_ipv6_too() {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if UdpSocket::bind(address).await.is_err() {
        return;
    }
    let server = Server::embedded(address.ip()).await;
    let publisher = server.publisher("t10").await;
    let one = wanted(&publisher, "a", 1);
    publisher.add(&one, false).await.unwrap();
    publisher.remove(&one.host, false).await.unwrap();
}

/// Stands between a publisher and a server and loses datagrams.
struct Lossy {
    address: SocketAddr,
    updates: Arc<AtomicU32>,
}

impl Lossy {
    /// Passes everything on, but loses the response to the first update, or the update itself.
    async fn before(server: SocketAddr, lose_request: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Arc::new(UdpSocket::bind(address).await.unwrap());
        let updates = Arc::new(AtomicU32::new(0));
        let counted = updates.clone();
        tokio::spawn(async move {
            let lost = Arc::new(AtomicBool::new(false));
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let request = buffer[..length].to_vec();
                let is_update = request[2] >> 3 & 0xf == 5;
                counted.fetch_add(is_update.into(), Ordering::SeqCst);
                let lose = is_update && !lost.swap(true, Ordering::SeqCst);
                if lose && lose_request {
                    continue;
                }
                let socket = socket.clone();
                tokio::spawn(async move {
                    let onward = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                    onward.send_to(&request, server).await.unwrap();
                    let mut reply = [0; 4096];
                    let length = onward.recv(&mut reply).await.unwrap();
                    if !lose {
                        socket.send_to(&reply[..length], client).await.unwrap();
                    }
                });
                if !is_update {
                    lost.store(lost.load(Ordering::SeqCst), Ordering::SeqCst);
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut onward = tokio::net::TcpStream::connect(server).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut onward).await });
            }
        });
        Self { address, updates }
    }
}

#[tokio::test]
async fn a_lost_answer_is_no_failure_and_a_lost_update_is_sent_again() {
    let server = Server::start().await;
    for (label, lose_request) in [("t11", false), ("t12", true)] {
        let lossy = Lossy::before(server.address, lose_request).await;
        let overlay = OverlayId::parse(&format!("{label}.{ZONE}")).unwrap();
        let zone = ZoneAt::on(lossy.address, &overlay, TIMEOUT).await.unwrap();
        let publisher = Publisher::new(zone, server.gatekeeper.clone(), TIMEOUT);
        let one = wanted(&publisher, "a", 1);
        publisher.add(&one, false).await.unwrap();
        assert_eq!(lossy.updates.load(Ordering::SeqCst), 1, "nothing is sent blindly");
        assert!(publisher.zone().read(TIMEOUT).await.unwrap().host(&one.host).is_leased());
    }
}

#[tokio::test]
async fn servers_that_refuse_hang_or_are_closed_are_told_apart() {
    let overlay = OverlayId::parse("t13.p2psip.org").unwrap();
    let patience = Duration::from_millis(1500);
    let on = async |server| ZoneAt::on(server, &overlay, patience).await.unwrap_err();
    // Closed: nobody waits.
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let began = Instant::now();
    let error = on(closed).await;
    assert!(error.kind() == Kind::Unreachable && error.to_string().contains("refused"), "{error}");
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    // Hanging: as long as it may take, and not longer.
    let hanging = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let _tcp = TcpListener::bind(hanging.local_addr().unwrap()).await.unwrap();
    let began = Instant::now();
    let error = on(hanging.local_addr().unwrap()).await;
    assert!(error.kind() == Kind::Unreachable && error.to_string().contains("in time"), "{error}");
    assert!((patience..patience * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    // Without the zone.
    let server =
        DnsServer::start((Ipv4Addr::LOCALHOST, 0).into(), vec![Zone::new("example.com").unwrap()]).await.unwrap();
    let error = on(server.address()).await;
    assert!(error.kind() == Kind::Usage && error.to_string().contains("holds no zone for t13.p2psip.org"), "{error}");
    // With the zone, but taking no updates.
    let zone = Zone::new(ZONE).unwrap();
    let server = DnsServer::start((Ipv4Addr::LOCALHOST, 0).into(), vec![zone]).await.unwrap();
    let zone = ZoneAt::on(server.address(), &overlay, patience).await.unwrap();
    let publisher = Publisher::new(zone, TsigKey::generate("k").unwrap(), patience);
    let error = publisher.add(&wanted(&publisher, "a", 1), false).await.unwrap_err();
    assert!(error.kind() == Kind::Negative && error.to_string().contains("NOTIMP"), "{error}");
    let local = OverlayId::parse_local("local").unwrap();
    let error = ZoneAt::on(server.address(), &local, patience).await.unwrap_err();
    assert!(error.kind() == Kind::Usage && error.to_string().contains("fully qualified"), "{error}");
}

#[tokio::test]
async fn a_server_that_answers_updates_with_silence_or_junk_is_not_believed() {
    // Answers questions from the embedded server, updates over UDP with an unsigned success, and over TCP with junk.
    let server = Server::embedded(Ipv4Addr::LOCALHOST.into()).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let liar = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(liar).await.unwrap();
    let honest = server.address;
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let mut reply = buffer[..length].to_vec();
            if reply[2] >> 3 & 0xf == 5 {
                reply[2] |= 0x80;
            } else {
                let onward = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                onward.send_to(&reply, honest).await.unwrap();
                reply.resize(4096, 0);
                let length = onward.recv(&mut reply).await.unwrap();
                reply.truncate(length);
            }
            socket.send_to(&reply, client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read_u16().await;
            let _ = client.write_all(&[0, 3, 1, 2, 3]).await;
        }
    });
    let overlay = OverlayId::parse("t14.p2psip.org").unwrap();
    let zone = ZoneAt::on(liar, &overlay, TIMEOUT).await.unwrap();
    let publisher = Publisher::new(zone, server.gatekeeper.clone(), TIMEOUT);
    let error = publisher.add(&wanted(&publisher, "a", 1), false).await.unwrap_err();
    assert!(matches!(error, PublishError::NoServer { .. }), "{error}");
}

#[tokio::test]
async fn the_primary_server_is_found_by_the_zones_soa() {
    let server = Server::start().await;
    let resolver = Resolver::new(&[server.address]).unwrap();
    let overlay = OverlayId::parse("t15.p2psip.org").unwrap();
    let found = ZoneAt::find(&resolver, &overlay, TIMEOUT).await.unwrap();
    assert_eq!(found, ZoneAt { overlay, zone: ZONE.to_owned(), server: server.address });
}

#[tokio::test]
async fn rules_that_are_missing_or_lead_nowhere_are_mended() {
    let server = Server::embedded(Ipv4Addr::LOCALHOST.into()).await;
    let publisher = server.publisher("t16").await;
    let overlay = publisher.zone().overlay.to_string();
    let one = wanted(&publisher, "a", 1);
    publisher.add(&one, false).await.unwrap();
    assert!(!publisher.mend().await.unwrap());
    let embedded = server._embedded.as_ref().unwrap();
    embedded.set(&overlay, &RrSet::Naptr(vec![rule(Transport::Tls, &publisher.zone().overlay)])).await.unwrap();
    assert!(publisher.mend().await.unwrap());
    let zone = publisher.zone().read(TIMEOUT).await.unwrap();
    assert_eq!(TRANSPORTS.map(|transport| zone.rule(transport)), [(true, true), (true, true), (false, false)]);
}
