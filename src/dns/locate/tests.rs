use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use proptest::prelude::*;

use super::*;
use crate::dns::{DnsError, Naptr, Srv};

/// What a DNS without network says, and what it was asked.
#[derive(Default, Clone)]
struct Zone {
    sets: BTreeMap<Question, Finding>,
    additional: Vec<(Question, RrSet)>,
    /// What names that are not there get.
    absent: Option<Finding>,
}

fn question(name: &str, kind: RrType) -> Question {
    Question { name: name.to_owned(), kind }
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
    Srv { priority, weight, port, target: target.to_owned() }
}

fn naptr(order: u16, preference: u16, flags: &str, services: &str, replacement: &str) -> Naptr {
    let (flags, services, replacement) = (flags.to_owned(), services.to_owned(), replacement.to_owned());
    Naptr { order, preference, flags, services, regexp: String::new(), replacement }
}

impl Zone {
    fn with(mut self, name: &str, kind: RrType, finding: Finding) -> Self {
        self.sets.insert(question(name, kind), finding);
        self
    }

    fn a(self, name: &str, addresses: &[&str]) -> Self {
        let all = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.with(name, RrType::A, Finding::Records(RrSet::A(all)))
    }

    fn aaaa(self, name: &str, addresses: &[&str]) -> Self {
        let all = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.with(name, RrType::Aaaa, Finding::Records(RrSet::Aaaa(all)))
    }

    fn srv(self, name: &str, all: &[Srv]) -> Self {
        self.with(name, RrType::Srv, Finding::Records(RrSet::Srv(all.to_vec())))
    }

    fn naptr(self, name: &str, all: &[Naptr]) -> Self {
        self.with(name, RrType::Naptr, Finding::Records(RrSet::Naptr(all.to_vec())))
    }

    fn say(&self, question: &Question) -> Answer {
        let absent = || self.absent.clone().unwrap_or(Finding::NoRecords);
        let finding = self.sets.get(question).cloned().unwrap_or_else(absent);
        let additional = if matches!(finding, Finding::Records(_)) { self.additional.clone() } else { Vec::new() };
        let origin = Origin::Server(([127, 0, 0, 1], 53).into());
        Answer { finding, additional, origin, took: Duration::from_millis(1) }
    }
}

/// What a location did.
#[derive(Debug)]
struct Ran {
    targets: Vec<Target>,
    asked: Vec<String>,
    path: Vec<Step>,
    verdict: Verdict,
}

impl Ran {
    fn shown(&self) -> Vec<String> {
        self.targets.iter().map(|target| format!("{} {}", target.transport, target.address)).collect()
    }

    fn ignored(&self) -> Vec<&'static str> {
        self.path
            .iter()
            .filter_map(|step| if let Step::Ignored { why, .. } = step { Some(*why) } else { None })
            .collect()
    }

    fn decided(&self, words: &str) -> bool {
        self.path.iter().any(|step| matches!(step, Step::Decided(what) if what.contains(words)))
    }
}

fn uri(text: &str) -> Query {
    let (scheme, rest) = text.split_once(':').unwrap();
    let (authority, params) = rest.split_once(';').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !authority.ends_with(']') => (host, Some(port.parse().unwrap())),
        _ => (authority, None),
    };
    let mut query = Query { secure: scheme == "sips", port, ..Query::of_host(Host::parse(host)) };
    for param in params.split(';').filter(|param| !param.is_empty()) {
        match param.split_once('=').unwrap() {
            ("transport", "udp") => query.transport = Some(Transport::Udp),
            ("transport", "tcp") => query.transport = Some(Transport::Tcp),
            ("transport", "tls") => query.transport = Some(Transport::Tls),
            ("maddr", host) => query.maddr = Some(Host::parse(host)),
            other => panic!("{other:?}"),
        }
    }
    query
}

fn drive(zone: &Zone, mut machine: Locate, bad: &BadTargets) -> Ran {
    let (mut targets, mut asked, mut open) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match machine.poll(bad, Instant::now()) {
            Next::Ask(question) => {
                asked.push(question.to_string());
                open.push(question);
            }
            Next::Wait => {
                let question = open.pop().expect("it waits only for what it has asked");
                machine.answer(&question, zone.say(&question));
            }
            Next::Target(target) => targets.push(target),
            Next::Done(verdict) => return Ran { targets, asked, path: machine.into_path(), verdict },
        }
    }
}

fn locate_with(zone: &Zone, text: &str, options: Options) -> Ran {
    drive(zone, Locate::new(&uri(text), options, Random::seeded(1)).unwrap(), &BadTargets::default())
}

fn locate(zone: &Zone, text: &str) -> Ran {
    locate_with(zone, text, Options::default())
}

/// example.com as an operator with everything would publish it.
fn full() -> Zone {
    Zone::default()
        .naptr(
            "example.com",
            &[
                naptr(30, 10, "s", "SIP+D2U", "_sip._udp.example.com"),
                naptr(10, 10, "s", "SIPS+D2T", "_sips._tcp.example.com"),
                naptr(20, 10, "S", "sip+d2t", "_sip._tcp.Example.com"),
            ],
        )
        .srv("_sips._tcp.example.com", &[srv(1, 0, 5061, "a.example.com")])
        .srv("_sip._tcp.example.com", &[srv(2, 0, 5070, "b.example.com"), srv(1, 0, 5060, "A.example.com")])
        .srv("_sip._udp.example.com", &[srv(1, 0, 5060, "b.example.com")])
        .a("a.example.com", &["192.0.2.1"])
        .a("b.example.com", &["192.0.2.2"])
        .a("example.com", &["192.0.2.80"])
}

#[test]
fn every_branch_of_the_procedure_leads_where_the_rfc_says() {
    let bare = Zone::default().a("example.com", &["192.0.2.80"]).aaaa("example.com", &["2001:db8::80"]);
    let srv_only = Zone::default()
        .srv("_sip._udp.example.com", &[srv(1, 0, 5060, "a.example.com")])
        .srv("_sip._tcp.example.com", &[srv(1, 0, 5062, "a.example.com")])
        .srv("_sips._tcp.example.com", &[srv(1, 0, 5061, "a.example.com")])
        .a("a.example.com", &["192.0.2.1"]);
    let nothing = Zone { absent: Some(Finding::NoName), ..Zone::default() };
    let both = ["[2001:db8::80]:PORT", "192.0.2.80:PORT"];
    let both_at =
        |transport: &str, port: &str| both.map(|at| format!("{transport} {}", at.replace("PORT", port))).to_vec();
    let owned = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let full = full();
    for (zone, text, targets, questions) in [
        // The host is an address: §4.1, §4.2.
        (&nothing, "sip:192.0.2.9", owned(&["udp 192.0.2.9:5060"]), 0),
        (&nothing, "sips:192.0.2.9", owned(&["tls 192.0.2.9:5061"]), 0),
        (&nothing, "sip:192.0.2.9:5070", owned(&["udp 192.0.2.9:5070"]), 0),
        (&nothing, "sip:[2001:db8::9]:5070;transport=tcp", owned(&["tcp [2001:db8::9]:5070"]), 0),
        (&nothing, "sip:[::ffff:192.0.2.9]", owned(&["udp 192.0.2.9:5060"]), 0),
        (&nothing, "sip:192.0.2.9;transport=tls", owned(&["tls 192.0.2.9:5061"]), 0),
        // A port is given: addresses only.
        (&full, "sip:example.com:5080", owned(&["udp 192.0.2.80:5080"]), 2),
        (&full, "sips:example.com:5080", owned(&["tls 192.0.2.80:5080"]), 2),
        (&full, "sip:example.com:5060;transport=tcp", owned(&["tcp 192.0.2.80:5060"]), 2),
        // A transport is given: its SRV, without NAPTR.
        (&full, "sip:example.com;transport=udp", owned(&["udp 192.0.2.2:5060"]), 3),
        (&full, "sip:example.com;transport=tls", owned(&["tls 192.0.2.1:5061"]), 3),
        (&full, "sips:example.com;transport=tcp", owned(&["tls 192.0.2.1:5061"]), 3),
        (&bare, "sip:example.com;transport=tcp", both_at("tcp", "5060"), 3),
        (&bare, "sips:example.com;transport=tls", both_at("tls", "5061"), 3),
        // NAPTR: by order, each with its own SRV, and sips: with nothing but TLS.
        (
            &full,
            "sip:example.com",
            owned(&["tls 192.0.2.1:5061", "tcp 192.0.2.1:5060", "tcp 192.0.2.2:5070", "udp 192.0.2.2:5060"]),
            8,
        ),
        (&full, "sips:example.com", owned(&["tls 192.0.2.1:5061"]), 4),
        // No NAPTR: the SRV of each transport we have; `_sips` only for sips:.
        (&srv_only, "sip:example.com", owned(&["udp 192.0.2.1:5060", "tcp 192.0.2.1:5062"]), 5),
        (&srv_only, "sips:example.com", owned(&["tls 192.0.2.1:5061"]), 4),
        // Neither: the domain itself, by UDP or TLS.
        (&bare, "sip:example.com", both_at("udp", "5060"), 5),
        (&bare, "sips:example.com", both_at("tls", "5061"), 4),
        // maddr stands in for the host.
        (&full, "sip:other.org;maddr=192.0.2.7", owned(&["udp 192.0.2.7:5060"]), 0),
        (&full, "sip:other.org:5090;maddr=b.example.com", owned(&["udp 192.0.2.2:5090"]), 2),
        (&nothing, "sip:example.com", vec![], 1),
        (&nothing, "sip:example.com:5060", vec![], 2),
    ] {
        let ran = locate(zone, text);
        assert_eq!(ran.shown(), targets, "{text}: {ran:#?}");
        assert_eq!(ran.asked.len(), questions, "{text}: {:?}", ran.asked);
        let verdict = if targets.is_empty() { Verdict::NoDomain } else { Verdict::Found };
        assert_eq!(ran.verdict, verdict, "{text}");
    }
}

#[test]
fn certificates_have_to_name_the_host_of_the_uri() {
    let zone = Zone::default()
        .naptr("example.com", &[naptr(1, 1, "s", "SIPS+D2T", "_sips._tcp.hoster.net")])
        .srv("_sips._tcp.hoster.net", &[srv(1, 0, 5061, "p7.hoster.net")])
        .a("p7.hoster.net", &["192.0.2.1"]);
    let ran = locate(&zone, "sips:Example.COM");
    assert_eq!(ran.targets[0].name, "example.com");
    assert_eq!(
        ran.targets[0].via,
        Via::Srv { owner: "_sips._tcp.hoster.net".into(), priority: 1, weight: 0, host: "p7.hoster.net".into() }
    );
    assert_eq!(locate(&zone, "sips:other.org;maddr=192.0.2.7").targets[0].name, "other.org");
}

#[test]
fn what_cannot_be_reached_as_asked_is_refused_before_anything_is_asked() {
    let refused = |text: &str, options: Options| {
        let error = Locate::new(&uri(text), options, Random::seeded(1)).unwrap_err();
        assert!(matches!(error, DnsError::Unlocatable { .. }), "{error}");
        assert_eq!(error.kind(), crate::kind::Kind::Usage);
        error.to_string()
    };
    let only_udp = || Options { transports: vec![Transport::Udp], ..Options::default() };
    assert!(refused("sips:example.com;transport=udp", Options::default()).contains("needs TLS"));
    assert!(refused("sip:example.com:0", Options::default()).contains("port is 0"));
    assert!(refused("sips:example.com", only_udp()).contains("not available"));
    assert!(refused("sip:example.com;transport=tcp", only_udp()).contains("not available"));
    let named =
        |name: &str| Locate::new(&Query::of_host(Host::Name(name.into())), Options::default(), Random::seeded(1));
    assert!(matches!(named("a..b"), Err(DnsError::Invalid { .. })));
    assert!(matches!(named(""), Err(DnsError::Invalid { .. })));
}

#[test]
fn a_response_goes_back_by_the_transport_of_its_via() {
    let response = |transport| {
        let query = Query::for_response(Host::parse("example.com"), None, transport);
        drive(&full(), Locate::new(&query, Options::default(), Random::seeded(1)).unwrap(), &BadTargets::default())
    };
    assert_eq!(response(Transport::Udp).shown(), ["udp 192.0.2.2:5060"]);
    assert_eq!(response(Transport::Tcp).shown()[0], "tcp 192.0.2.1:5060");
    let ran = response(Transport::Tls);
    assert_eq!(
        (ran.asked[0].as_str(), ran.shown()),
        ("SRV _sips._tcp.example.com", vec!["tls 192.0.2.1:5061".to_owned()])
    );
    let query = Query::for_response(Host::parse("192.0.2.5"), None, Transport::Udp);
    let ran =
        drive(&full(), Locate::new(&query, Options::default(), Random::seeded(1)).unwrap(), &BadTargets::default());
    assert_eq!(ran.shown(), ["udp 192.0.2.5:5060"]);
}

#[test]
fn rules_that_cannot_be_followed_are_passed_over_with_a_reason() {
    let regexp =
        Naptr { regexp: "!^.*$!sip:x@evil.example!".into(), ..naptr(1, 1, "s", "SIP+D2U", "_sip._udp.example.com") };
    let zone = full().naptr(
        "example.com",
        &[
            regexp,
            naptr(1, 1, "u", "E2U+sip", "."),
            naptr(1, 2, "s", "SIP+D2S", "_sip._sctp.example.com"),
            naptr(1, 3, "", "SIP+D2U", "next.example.com"),
            naptr(1, 4, "s", "SIP+D2U", "."),
            naptr(1, 5, "s", "SIP+D2T", "192.0.2.66"),
            naptr(1, 6, "s", "SIP+D2U", "!x"),
            naptr(9, 9, "s", "SIP+D2U", "_sip._udp.example.com"),
        ],
    );
    let ran = locate(&zone, "sip:example.com");
    assert_eq!(ran.shown(), ["udp 192.0.2.2:5060"]);
    assert_eq!(ran.ignored().len(), 7, "{:?}", ran.ignored());
    for word in ["regular expression", "service", "flag", "no name", "an address", "name of a host"] {
        assert!(ran.ignored().iter().any(|why| why.contains(word)), "{word}");
    }
    // With nothing left the domain is as good as one without NAPTR.
    let ran = locate(&zone, "sips:example.com");
    assert_eq!(ran.shown(), ["tls 192.0.2.1:5061"]);
    assert!(ran.decided("no NAPTR rule serves"));
    let udp = Options { transports: vec![Transport::Udp], ..Options::default() };
    assert_eq!(locate_with(&full(), "sip:example.com", udp).shown(), ["udp 192.0.2.2:5060"]);
}

#[test]
fn a_rule_may_lead_to_a_host_at_once() {
    let zone = full().naptr("example.com", &[naptr(1, 1, "a", "SIP+D2T", "b.example.com")]);
    let ran = locate(&zone, "sip:example.com");
    assert_eq!(ran.shown(), ["tcp 192.0.2.2:5060"]);
    assert_eq!(ran.targets[0].via, Via::Naptr { host: "b.example.com".into() });
}

#[test]
fn a_service_that_is_decidedly_not_there_has_no_substitute() {
    let zone = full().srv("_sip._udp.example.com", &[srv(0, 0, 0, ".")]);
    let ran = locate(&zone, "sip:example.com;transport=udp");
    assert_eq!((ran.shown().len(), ran.verdict), (0, Verdict::NoServer));
    assert!(ran.decided("no such service"));
}

#[test]
fn rules_whose_servers_are_missing_leave_the_domain_itself() {
    let zone = Zone::default()
        .naptr("example.com", &[naptr(1, 1, "s", "SIP+D2T", "_sip._tcp.example.com")])
        .a("example.com", &["192.0.2.80"]);
    assert_eq!(locate(&zone, "sip:example.com").shown(), ["tcp 192.0.2.80:5060"]);
}

#[test]
fn servers_that_no_request_can_go_to_are_passed_over() {
    let zone = full()
        .srv(
            "_sip._udp.example.com",
            &[
                srv(1, 1, 0, "a.example.com"),
                srv(1, 1, 5060, "192.0.2.66"),
                srv(1, 1, 5060, "."),
                srv(1, 1, 5060, "wild\\032card.example.com"),
                srv(1, 1, 5060, "odd.example.com"),
                srv(9, 1, 5060, "b.example.com"),
            ],
        )
        .a("odd.example.com", &["0.0.0.0", "224.0.1.75", "255.255.255.255", "0.1.2.3"])
        .aaaa("odd.example.com", &["::", "ff02::1", "fe80::1", "::ffff:192.0.2.3"]);
    let ran = locate(&zone, "sip:example.com;transport=udp");
    assert_eq!(ran.shown(), ["udp 192.0.2.3:5060", "udp 192.0.2.2:5060"]);
    assert_eq!(ran.ignored().len(), 4 + 7, "{:?}", ran.ignored());
}

#[test]
fn no_answer_is_not_taken_for_no_record() {
    let silent = || Finding::Unanswered("no answer from 192.0.2.53:53".into());
    // Whether there is SRV is open: the domain's own address may be a web server.
    let zone = full().with("_sip._udp.example.com", RrType::Srv, silent());
    let ran = locate(&zone, "sip:example.com;transport=udp");
    assert_eq!((ran.shown().len(), ran.verdict), (0, Verdict::Unanswered));
    assert!(!ran.asked.contains(&"A example.com".to_owned()));
    // Servers that know no NAPTR are common enough.
    let zone = full().with("example.com", RrType::Naptr, silent());
    assert_eq!(locate(&zone, "sip:example.com").verdict, Verdict::Found);
    // One family's silence does not hide the other; but without either it is no denial.
    let zone = full().with("b.example.com", RrType::Aaaa, silent());
    assert_eq!(locate(&zone, "sip:example.com;transport=udp").shown(), ["udp 192.0.2.2:5060"]);
    let zone = zone.with("b.example.com", RrType::A, Finding::NoRecords);
    assert_eq!(locate(&zone, "sip:example.com;transport=udp").verdict, Verdict::Unanswered);
    let all_silent = Zone { absent: Some(silent()), ..Zone::default() };
    let ran = locate(&all_silent, "sip:example.com");
    assert_eq!((ran.verdict, ran.asked.len()), (Verdict::Unanswered, 3));
}

#[test]
fn a_domain_without_sip_is_not_a_domain_that_does_not_exist() {
    assert_eq!(locate(&Zone::default(), "sip:example.com").verdict, Verdict::NoServer);
    let zone = Zone { absent: Some(Finding::NoName), ..Zone::default() };
    let ran = locate(&zone, "sip:example.com;transport=tcp");
    assert_eq!(ran.verdict, Verdict::NoDomain);
}

#[test]
fn families_take_turns_and_what_has_no_route_comes_last() {
    let zone = Zone::default()
        .a("h.example", &["192.0.2.1", "192.0.2.2"])
        .aaaa("h.example", &["2001:db8::1", "2002::1", "fd00::1"]);
    let at = |options| {
        let ran = locate_with(&zone, "sip:h.example:5060", options);
        ran.targets.iter().map(|target| target.address.ip().to_string()).collect::<Vec<_>>()
    };
    let any = Options::default;
    assert_eq!(at(any()), ["2001:db8::1", "192.0.2.1", "2002::1", "192.0.2.2", "fd00::1"]);
    assert_eq!(at(Options { family: Family::V4, ..any() }), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(at(Options { family: Family::V6, ..any() }), ["2001:db8::1", "2002::1", "fd00::1"]);
    let no_v6 = Options { unreachable: |address: IpAddr| address.is_ipv6(), ..any() };
    assert_eq!(at(no_v6), ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2002::1", "fd00::1"]);
    let only_v4 = Options { family: Family::V4, ..any() };
    let ran = locate_with(&zone, "sip:[2001:db8::1]", only_v4);
    assert_eq!((ran.shown().len(), ran.verdict), (0, Verdict::NoServer));
    // Teredo and ULA are worth less than IPv4.
    let zone = Zone::default().a("h.example", &["192.0.2.1"]).aaaa("h.example", &["2001:0:1::1", "fd00::1"]);
    assert_eq!(locate(&zone, "sip:h.example:1").shown()[0], "udp 192.0.2.1:1");
}

#[test]
fn additional_records_save_questions() {
    let additional = vec![
        (question("a.example.com", RrType::A), RrSet::A(vec![[192, 0, 2, 77].into()])),
        (question("a.example.com", RrType::Aaaa), RrSet::Aaaa(vec!["2001:db8::77".parse().unwrap()])),
        (question("unrelated.example", RrType::A), RrSet::A(vec![[192, 0, 2, 99].into()])),
    ];
    let zone = Zone { additional, ..full() };
    let ran = locate(&zone, "sips:example.com");
    assert_eq!(ran.shown(), ["tls [2001:db8::77]:5061", "tls 192.0.2.77:5061"]);
    assert_eq!(ran.asked, ["NAPTR example.com", "SRV _sips._tcp.example.com"]);
    let from_additional =
        ran.path.iter().filter(|step| matches!(step, Step::Asked { origin: Origin::Additional, .. })).count();
    assert_eq!(from_additional, 2);
}

#[test]
fn nothing_is_asked_before_it_is_needed() {
    let zone = full();
    let mut machine = Locate::new(&uri("sip:example.com"), Options::default(), Random::seeded(1)).unwrap();
    let bad = BadTargets::default();
    let mut asked = Vec::new();
    let mut open = Vec::new();
    let first = loop {
        match machine.poll(&bad, Instant::now()) {
            Next::Ask(question) => {
                asked.push(question.to_string());
                open.push(question);
            }
            Next::Wait => {
                for question in open.drain(..) {
                    machine.answer(&question, zone.say(&question));
                }
            }
            Next::Target(target) => break target,
            Next::Done(_) => panic!("{:?}", machine.path()),
        }
    };
    assert_eq!(first.address.to_string(), "192.0.2.1:5061");
    assert_eq!(asked, ["NAPTR example.com", "SRV _sips._tcp.example.com", "AAAA a.example.com", "A a.example.com"]);
}

#[test]
fn targets_that_have_failed_are_tried_last_and_not_for_ever() {
    let zone = full();
    let now = Instant::now();
    let all = locate(&zone, "sip:example.com").targets;
    let mut bad = BadTargets::default();
    let place = |target: &Target| (target.transport, target.address);
    bad.failed(place(&all[0]), Failure::Timeout, now);
    bad.failed(place(&all[2]), Failure::Unavailable(Some(Duration::from_secs(86_400))), now);
    let machine = || Locate::new(&uri("sip:example.com"), Options::default(), Random::seeded(1)).unwrap();
    let ran = drive(&zone, machine(), &bad);
    let reordered = [&all[1], &all[3], &all[0], &all[2]];
    assert_eq!(ran.targets.iter().collect::<Vec<_>>(), reordered);
    assert!(ran.decided("has failed of late"));
    bad.worked(place(&all[0]));
    assert_eq!(drive(&zone, machine(), &bad).targets[0], all[0]);
    // Nobody can banish a server for a day.
    assert!(bad.contains(&all[2], now + Duration::from_secs(299)));
    assert!(!bad.contains(&all[2], now + Duration::from_secs(301)));
    // All of them bad is as good as none.
    for target in &all {
        bad.failed(place(target), Failure::Transport, now);
    }
    assert_eq!(drive(&zone, machine(), &bad).targets, all);
    for port in 0..5_000 {
        let target = Target { address: SocketAddr::from(([192, 0, 2, 1], port)), ..all[0].clone() };
        bad.failed(place(&target), Failure::Timeout, now);
    }
    let remembered = (0..5_000).filter(|port| {
        let target = Target { address: SocketAddr::from(([192, 0, 2, 1], *port)), ..all[0].clone() };
        bad.contains(&target, now)
    });
    assert!(remembered.count() <= 1_024);
}

#[test]
fn a_domain_of_thousands_of_servers_costs_as_much_as_one_of_some() {
    let servers: Vec<Srv> = (0..1_000).map(|n| srv(1, 1, 5060, &format!("h{n}.example.com"))).collect();
    let mut zone = full().srv("_sip._udp.example.com", &servers);
    let many: Vec<String> = (0..200).map(|n| format!("192.0.2.{n}")).collect();
    for n in 0..1_000 {
        zone = zone.a(&format!("h{n}.example.com"), &many.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let ran = locate(&zone, "sip:example.com;transport=udp");
    assert!(ran.asked.len() <= MAX_QUESTIONS && ran.targets.len() <= MAX_TARGETS, "{}", ran.targets.len());
    assert!(ran.path.len() < 200);
    let rules: Vec<Naptr> = (0..1_000).map(|n| naptr(n, 1, "s", "SIP+D2U", &format!("_x{n}.example.com"))).collect();
    let ran = locate(&full().naptr("example.com", &rules), "sip:example.com");
    assert!(ran.asked.len() <= MAX_RULES + 3, "{:?}", ran.asked);
    assert!(ran.path.len() < 100, "{}", ran.path.len());
}

#[test]
fn answers_that_were_not_asked_for_change_nothing() {
    let mut machine = Locate::new(&uri("sip:example.com"), Options::default(), Random::seeded(1)).unwrap();
    let stray = question("example.com", RrType::A);
    machine.answer(&stray, full().say(&stray));
    assert!(machine.path().is_empty());
    // A set of another type is no answer either.
    let asked = question("example.com", RrType::Naptr);
    assert_eq!(machine.poll(&BadTargets::default(), Instant::now()), Next::Ask(asked.clone()));
    assert_eq!(machine.poll(&BadTargets::default(), Instant::now()), Next::Wait);
    machine.answer(
        &asked,
        Answer { finding: Finding::Records(RrSet::A(vec![[192, 0, 2, 1].into()])), ..full().say(&stray) },
    );
    assert!(
        matches!(machine.poll(&BadTargets::default(), Instant::now()), Next::Ask(question) if question.kind == RrType::Srv)
    );
}

#[test]
fn weights_are_shares() {
    let servers =
        vec![srv(1, 60, 1, "a"), srv(1, 30, 2, "b"), srv(1, 10, 3, "c"), srv(1, 0, 4, "z"), srv(2, 99, 5, "d")];
    let mut random = Random::seeded(7);
    let mut first = [0_u32; 6];
    const ROUNDS: u32 = 20_000;
    for _ in 0..ROUNDS {
        let sorted = order::sort_servers(servers.clone(), &mut random);
        first[usize::from(sorted[0].port)] += 1;
        assert_eq!(sorted[4].port, 5, "the lower priority number comes first, whatever the weights");
    }
    let share = |port: usize| f64::from(first[port]) / f64::from(ROUNDS);
    assert!(
        (share(1) - 0.6).abs() < 0.02 && (share(2) - 0.3).abs() < 0.02 && (share(3) - 0.1).abs() < 0.02,
        "{first:?}"
    );
    assert!((0.001..0.03).contains(&share(4)), "without weight the chance is small, and there is one: {first:?}");
    assert_eq!(first[5], 0);
    // Without any weight, all are alike.
    let equal: Vec<Srv> = (0..4).map(|port| srv(1, 0, port, "x")).collect();
    let mut first = [0_u32; 4];
    for _ in 0..ROUNDS {
        first[usize::from(order::sort_servers(equal.clone(), &mut random)[0].port)] += 1;
    }
    assert!(first.iter().all(|count| (4_500..5_500).contains(count)), "{first:?}");
}

proptest! {
    #[test]
    fn order_respects_priority_and_loses_nobody(
        all in proptest::collection::vec((0..4_u16, prop_oneof![Just(0), any::<u16>()]), 0..40),
        seed: u64,
    ) {
        let servers: Vec<Srv> = all.iter().zip(1..).map(|((priority, weight), port)| srv(*priority, *weight, port, "x")).collect();
        let sorted = order::sort_servers(servers.clone(), &mut Random::seeded(seed));
        prop_assert!(sorted.is_sorted_by_key(|srv| srv.priority));
        let (mut before, mut after) = (servers.clone(), sorted.clone());
        before.sort_by_key(|srv| srv.port);
        after.sort_by_key(|srv| srv.port);
        prop_assert_eq!(before, after);
        prop_assert_eq!(&sorted, &order::sort_servers(servers, &mut Random::seeded(seed)));
    }

    #[test]
    fn no_zone_makes_it_panic_or_go_on_for_ever(
        rules in proptest::collection::vec((any::<u16>(), "[sSaAuU!]{0,2}", "(SIP|SIPS|sip|E2U)[+](D2U|D2T|D2S|sip)", "[a-c.!_]{0,6}"), 0..12),
        servers in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<u16>(), "[a-c.]{0,4}"), 0..12),
        addresses in proptest::collection::vec(any::<u32>(), 0..6),
        secure: bool,
        transports in proptest::sample::subsequence(vec![Transport::Udp, Transport::Tcp, Transport::Tls], 1..=3),
    ) {
        let rules: Vec<_> = rules.iter().map(|(order, flags, service, to)| naptr(*order, 1, flags, service, to)).collect();
        let servers: Vec<_> = servers.iter().map(|(p, w, port, to)| srv(*p, *w, *port, to)).collect();
        let set = RrSet::A(addresses.into_iter().map(Into::into).collect());
        let say = |question: &Question| match question.kind {
            RrType::Naptr => RrSet::Naptr(rules.clone()),
            RrType::Srv => RrSet::Srv(servers.clone()),
            _ => set.clone(),
        };
        let query = Query { secure, ..Query::of_host(Host::parse("example.com")) };
        let options = Options { transports, ..Options::default() };
        if let Ok(mut machine) = Locate::new(&query, options, Random::seeded(3)) {
            let mut open = Vec::new();
            let mut steps = 0;
            loop {
                steps += 1;
                prop_assert!(steps < 1_000);
                match machine.poll(&BadTargets::default(), Instant::now()) {
                    Next::Ask(question) => open.push(question),
                    Next::Wait => {
                        let question = open.pop().unwrap();
                        let finding = Finding::Records(say(&question));
                        machine.answer(&question, Answer {
                            finding, additional: Vec::new(), origin: Origin::Cache, took: Duration::ZERO,
                        });
                    }
                    Next::Target(target) => {
                        prop_assert!(target.address.port() != 0 && !target.address.ip().is_unspecified());
                        prop_assert!(!secure || target.transport == Transport::Tls);
                    }
                    Next::Done(_) => break,
                }
            }
        }
    }
}

#[test]
fn an_address_is_located_at_once_as_it_is_by_asking_nobody() {
    let choices =
        [Options::default(), Options { transports: vec![Transport::Tcp], family: Family::V4, ..Options::default() }];
    for options in choices {
        for text in [
            "sip:192.0.2.1",
            "sip:192.0.2.1:5080",
            "sip:[2001:db8::1]",
            "sips:192.0.2.1",
            "sip:192.0.2.1;transport=tcp",
            "sip:192.0.2.1;transport=tls",
            "sips:192.0.2.1;transport=udp",
            "sip:192.0.2.1:0",
            "sip:a.example;maddr=192.0.2.7",
            "sip:[::ffff:192.0.2.1]:9",
            "sip:a.example",
            "sip:192.0.2.1;maddr=a.example",
        ] {
            let query = uri(text);
            let located = Locate::new(&query, options.clone(), Random::seeded(1)).ok();
            let yielded = located.and_then(|mut locate| match locate.poll(&BadTargets::default(), Instant::now()) {
                Next::Target(target) => Some(target),
                Next::Ask(_) | Next::Wait | Next::Done(_) => None,
            });
            assert_eq!(Locate::of_address(&query, &options), yielded, "{text}");
        }
    }
}
