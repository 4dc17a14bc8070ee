use tokio::net::UdpSocket as Socket;

use super::*;
use crate::dns::{
    DnsServer, Naptr, RrType, Srv, Zone,
    locate::{Host, Transport},
};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn servers(all: &[(u16, u16, &str)]) -> RrSet {
    let srv = |&(priority, port, host): &(u16, u16, &str)| Srv { priority, weight: 1, port, target: host.to_owned() };
    RrSet::Srv(all.iter().map(srv).collect())
}

fn rules(all: &[(u16, &str, &str)]) -> RrSet {
    let naptr = |&(order, services, replacement): &(u16, &str, &str)| Naptr {
        order,
        preference: 1,
        flags: "s".to_owned(),
        services: services.to_owned(),
        regexp: String::new(),
        replacement: replacement.to_owned(),
    };
    RrSet::Naptr(all.iter().map(naptr).collect())
}

fn a(last: u8) -> RrSet {
    RrSet::A(vec![[192, 0, 2, last].into()])
}

/// A name server of example.com: TCP before UDP, two servers, one of which has both families.
async fn example_com() -> DnsServer {
    let sets = [
        ("example.com", rules(&[(20, "SIP+D2U", "_sip._udp.example.com"), (10, "SIP+D2T", "_sip._tcp.example.com")])),
        ("_sip._tcp.example.com", servers(&[(20, 5070, "two.example.com"), (10, 5060, "one.example.com")])),
        ("_sip._udp.example.com", servers(&[(10, 5060, "one.example.com")])),
        ("one.example.com", a(1)),
        ("one.example.com", RrSet::Aaaa(vec!["2001:db8::1".parse().unwrap()])),
        ("two.example.com", a(2)),
    ];
    let zone = Zone::new("example.com").unwrap();
    let zone = sets.iter().fold(zone, |zone, (name, set)| zone.with(name, set).unwrap());
    DnsServer::start(loopback(), vec![zone]).await.unwrap()
}

fn locator(servers: &[SocketAddr]) -> Locator {
    Locator::seeded(Resolver::new(servers).unwrap(), Options::default(), 1)
}

fn name(text: &str) -> Query {
    Query::of_host(Host::parse(text))
}

fn shown(location: &Location) -> Vec<String> {
    location.targets.iter().map(|target| format!("{} {}", target.transport, target.address)).collect()
}

const ALL: [&str; 5] = [
    "tcp [2001:db8::1]:5060",
    "tcp 192.0.2.1:5060",
    "tcp 192.0.2.2:5070",
    "udp [2001:db8::1]:5060",
    "udp 192.0.2.1:5060",
];

#[tokio::test]
async fn a_domain_is_located_from_its_rules_to_its_addresses() {
    let server = example_com().await;
    let locator = locator(&[server.address()]);
    let location = locator.locate(&name("Example.com."), soon()).await.unwrap();
    assert_eq!((shown(&location), location.verdict), (ALL.map(str::to_owned).to_vec(), Verdict::Found));
    let asked = |path: &[Step]| {
        let from_server = |step: &&Step| matches!(step, Step::Asked { origin: Origin::Server(address), .. } if *address == server.address());
        path.iter().filter(from_server).count()
    };
    assert!(asked(&location.path) >= 3, "{:#?}", location.path);
    // What was said a moment ago still holds.
    let again = locator.locate(&name("example.com"), soon()).await.unwrap();
    assert_eq!((asked(&again.path), again.targets), (0, location.targets));
}

#[tokio::test]
async fn a_failed_target_gives_way_and_comes_back() {
    let server = example_com().await;
    let locator = locator(&[server.address()]);
    let mut search = locator.search(&name("example.com")).unwrap();
    let first = search.next(soon()).await.unwrap();
    locator.failed(first.transport, first.address, Failure::Timeout);
    // This search goes on to the next; another one does not even begin with it.
    assert_eq!(search.next(soon()).await.unwrap().address.to_string(), "192.0.2.1:5060");
    let location = locator.locate(&name("example.com"), soon()).await.unwrap();
    assert_eq!((location.targets.len(), location.targets.last()), (ALL.len(), Some(&first)));
    locator.worked(first.transport, first.address);
    let location = locator.locate(&name("example.com"), soon()).await.unwrap();
    assert_eq!(location.targets.first(), Some(&first));
}

#[tokio::test]
async fn only_what_the_next_target_needs_is_asked() {
    let server = example_com().await;
    let mut search = locator(&[server.address()]).search(&name("example.com")).unwrap();
    search.next(soon()).await.unwrap();
    let udp = |step: &Step| matches!(step, Step::Asked { question, .. } if question.name == "_sip._udp.example.com");
    assert!(!search.path().iter().any(udp));
    while search.next(soon()).await.is_some() {}
    assert!(search.path().iter().any(udp));
}

#[tokio::test]
async fn a_search_that_is_interrupted_goes_on_later() {
    let server = example_com().await;
    let mut search = locator(&[server.address()]).search(&name("example.com")).unwrap();
    let mut targets = Vec::new();
    for _ in 0..10_000 {
        // Polled once and dropped, over and over.
        match search.next(soon()).now_or_never() {
            Some(Some(target)) => targets.push(target),
            Some(None) => break,
            None => tokio::task::yield_now().await,
        }
    }
    assert_eq!(targets.len(), ALL.len());
}

#[tokio::test]
async fn no_domain_no_server_and_no_answer_are_different() {
    let server = example_com().await;
    let verdict = async |servers: &[SocketAddr], host: &str| {
        let location = locator(servers).locate(&name(host), soon()).await.unwrap();
        assert!(location.targets.is_empty(), "{location:#?}");
        location.verdict
    };
    assert_eq!(verdict(&[server.address()], "nobody.example.com").await, Verdict::NoDomain);
    server.set("mail.example.com", &RrSet::Txt(vec!["no SIP".into()])).await.unwrap();
    assert_eq!(verdict(&[server.address()], "mail.example.com").await, Verdict::NoServer);
    // REFUSED is no denial.
    assert_eq!(verdict(&[server.address()], "elsewhere.org").await, Verdict::Unanswered);
    let closed = Socket::bind(loopback()).await.unwrap().local_addr().unwrap();
    let before = Instant::now();
    assert_eq!(verdict(&[closed], "example.com").await, Verdict::Unanswered);
    assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_name_server_that_hangs_costs_no_more_than_the_deadline() {
    let mute = Socket::bind(loopback()).await.unwrap();
    let address = mute.local_addr().unwrap();
    let before = Instant::now();
    let location = locator(&[address]).locate(&name("example.com"), before + Duration::from_millis(400)).await.unwrap();
    let took = before.elapsed();
    assert_eq!(location.verdict, Verdict::Unanswered);
    assert!((Duration::from_millis(390)..Duration::from_millis(900)).contains(&took), "{took:?}");
    // Next to one that answers it costs a moment, once.
    let server = example_com().await;
    let before = Instant::now();
    let location = locator(&[address, server.address()]).locate(&name("example.com"), soon()).await.unwrap();
    assert_eq!(shown(&location), ALL);
    assert!(before.elapsed() < Duration::from_millis(900), "{:?}", before.elapsed());
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_comes_over_tcp() {
    let server = example_com().await;
    let many: Vec<(u16, u16, String)> = (1..=60).map(|n| (n, 5060, format!("server-{n}.example.com"))).collect();
    let many: Vec<(u16, u16, &str)> = many.iter().map(|(n, port, host)| (*n, *port, host.as_str())).collect();
    server.set("_sip._udp.example.com", &servers(&many)).await.unwrap();
    server.set("server-1.example.com", &a(101)).await.unwrap();
    server.set("server-32.example.com", &a(132)).await.unwrap();
    server.set("server-33.example.com", &a(133)).await.unwrap();
    let query = Query { transport: Some(Transport::Udp), ..name("example.com") };
    let location = locator(&[server.address()]).locate(&query, soon()).await.unwrap();
    let all_came = |step: &Step| {
        matches!(step, Step::Asked { question, finding: Finding::Records(set), .. }
            if question.kind == RrType::Srv && set.len() == 60)
    };
    assert!(location.path.iter().any(all_came), "{:#?}", location.path);
    assert_eq!(shown(&location)[0], "udp 192.0.2.101:5060");
    assert!(!shown(&location).contains(&"udp 192.0.2.133:5060".to_owned()), "32 are enough");
}

#[tokio::test]
async fn addresses_need_no_name_server() {
    let nobody = locator(&[SocketAddr::from(([127, 0, 0, 1], 1))]);
    let location = nobody.locate(&name("[::1]"), soon()).await.unwrap();
    assert_eq!(shown(&location), ["udp [::1]:5060"]);
    assert!(!has_no_route(Ipv4Addr::LOCALHOST.into()));
}

#[tokio::test]
async fn what_came_along_holds_for_its_own_time() {
    use hickory_proto::{
        op::Message,
        rr::{Name, RData, Record, rdata},
    };
    let socket = Socket::bind(loopback()).await.unwrap();
    let address = socket.local_addr().unwrap();
    // An SRV set that holds for a minute, along with an address that holds for no time at all.
    tokio::spawn(async move {
        let (mut buffer, mut asked) = ([0; 4096], 0);
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            asked += 1;
            let mut response = Message::from_vec(&buffer[..length]).unwrap().into_response();
            let name = response.queries[0].name().clone();
            let host = Name::from_ascii("one.example.com.").unwrap();
            let a = Record::from_rdata(host.clone(), 0, RData::A(rdata::A::new(192, 0, 2, asked)));
            match RrType::Srv.record_type() == response.queries[0].query_type() {
                true => {
                    let srv = RData::SRV(rdata::SRV::new(1, 1, 5060, host));
                    response.answers.push(Record::from_rdata(name, 60, srv));
                    response.additionals.push(a);
                }
                false => response.answers.push(a),
            }
            socket.send_to(&response.to_vec().unwrap(), from).await.unwrap();
        }
    });
    let options = Options { family: crate::dns::Family::V4, ..Options::default() };
    let locator = Locator::seeded(Resolver::new(&[address]).unwrap(), options, 1);
    let query = Query { transport: Some(Transport::Udp), ..name("example.com") };
    for wanted in ["udp 192.0.2.1:5060", "udp 192.0.2.2:5060"] {
        assert_eq!(shown(&locator.locate(&query, soon()).await.unwrap()), [wanted]);
    }
}
