//! `p2p-discover proxy`: which proxy peers answer, how fast, and whether the DNS has the same ones (draft §3.3.1; R8, R18).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use p2psip::{
    cli,
    dns::{
        Resolver,
        locate::{Locator, Options},
    },
    member::{Offer, OfferHandle, Proxy, ProxyConfig},
    name::{ResourceName, Service, ServiceUri},
    record::Endpoint,
    sip::transport::Protocol,
};
use serde_json::Value;

use crate::world::{Ran, TestWorld, eventually, lookup, run};

fn discover(line: &str) -> Ran {
    run(cli::discover::run, line)
}

fn proxies_uri() -> ResourceName {
    ServiceUri::parse("sip:p2psip.org").unwrap().into()
}

/// A proxy peer that runs.
fn proxy(world: &TestWorld, index: usize) -> Proxy {
    let member = &world.world.members()[index];
    let resolver = Resolver::new(&[world.world.dns()]).unwrap();
    let mut config = ProxyConfig::new(([127, 0, 0, 1], 0).into(), Locator::new(resolver, Options::default()));
    config.certificate = world.world.enrol(member.key(), &[proxies_uri()]).unwrap();
    config.drain = std::time::Duration::from_millis(200);
    world.run(Proxy::start(member, config)).unwrap()
}

/// A member that says that it is a proxy peer, at these places.
fn offer(world: &TestWorld, index: usize, places: &[(&str, &str, u16)]) -> OfferHandle {
    let member = &world.world.members()[index];
    let certificate = world.world.enrol(member.key(), &[proxies_uri()]).unwrap();
    let endpoint = |&(transport, host, port): &(&str, &str, u16)| Endpoint {
        transport: transport.into(),
        host: host.into(),
        port,
    };
    let endpoints = places.iter().map(endpoint).collect();
    world.run(member.offer(Offer { service: Service::Proxy, endpoints, certificate, serving: true, load: 0 })).unwrap()
}

fn port(proxy: &Proxy, protocol: Protocol) -> u16 {
    proxy.listening().iter().find(|(listening, _)| *listening == protocol).unwrap().1.port()
}

fn providers(json: &Value) -> &[Value] {
    json["services"][0]["providers"].as_array().unwrap()
}

fn of<'a>(json: &'a Value, peer: &str) -> (usize, &'a Value) {
    providers(json)
        .iter()
        .enumerate()
        .find(|(_, provider)| provider["peer"] == peer)
        .unwrap_or_else(|| panic!("{json}"))
}

#[test]
fn proxy_peers_are_asked_ranked_and_compared_with_the_dns() {
    let world = TestWorld::of(10);
    let user = world.user("operator");
    let live = proxy(&world, 7);
    let mute = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mute_port = mute.local_addr().unwrap().port();
    let _silent = offer(&world, 8, &[("udp", "127.0.0.1", mute_port), ("tcp", "127.0.0.1", 9), ("sctp", "::1", 9)]);
    let options = format!("{} --dns {}", user.options(), world.world.dns());
    let peer = |index: usize| world.world.members()[index].peer().to_string();
    let (udp, tcp) = (port(&live, Protocol::Udp), port(&live, Protocol::Tcp));

    let json = discover(&format!("proxy --json {options}")).exits(0).json();
    // The lab has two more, which serve nobody and have no endpoints.
    assert_eq!(providers(&json).len(), 4, "{json}");
    let (place, first) = of(&json, &peer(7));
    assert_eq!(place, 0, "who answers comes first: {json}");
    for probe in first["probes"].as_array().unwrap() {
        assert_eq!((&probe["status"], &probe["code"]), (&"answered".into(), &200.into()), "{json}");
        assert!(probe["rtt_ms"].as_f64().unwrap() > 0.0, "{json}");
    }
    assert!(first["rtt_ms"].is_f64() && first["in_dns"] == false, "{json}");
    let (place, last) = of(&json, &peer(8));
    assert_eq!((place, &last["rtt_ms"]), (3, &Value::Null), "who is silent comes last: {json}");
    let statuses = last["probes"].as_array().unwrap().iter().map(|probe| probe["status"].as_str().unwrap());
    assert_eq!(statuses.collect::<Vec<_>>(), ["silent", "unreachable", "unreachable"], "{json}");
    assert_eq!(last["endpoints"][2], "sctp:[::1]:9");
    assert!(providers(&json)[1]["probes"].as_array().unwrap().is_empty(), "{json}");
    let unasked = discover(&format!("proxy --json --no-probe {options}")).exits(0).json();
    assert!(providers(&unasked).iter().all(|provider| provider["probes"] == serde_json::json!([])), "{unasked}");

    // R8: nobody outside finds any of them, and each tool that could know it says so.
    let ran = discover(&format!("proxy {options}")).exits(0);
    for words in ["ANSWERS", " ms", "IN DNS", "unreachable"] {
        assert!(ran.out.contains(words), "'{words}' is not in {ran:?}");
    }
    let unreachable = "p2psip.org cannot be reached from public SIP networks";
    let ran = ran.says(unreachable).says("does not answer");
    assert!(ran.err.contains("of 2 providers"), "{ran:?}");
    lookup(&format!("{options} sip:p2psip.org")).exits(0).says(unreachable);
    let list = format!("list {} --overlay p2psip.org --server {}", user.options(), world.world.dns());
    run(cli::publish::run, &list).exits(0).says("cannot be reached from public SIP networks");

    // One of them is published, and then stops: drift of either sort.
    let key = world.world.dns_key().display();
    let add =
        format!("add --host one --address 127.0.0.1 --transport udp:{udp} --transport tcp:{tcp} --force --key {key}");
    let server = format!("{} --overlay p2psip.org --server {}", user.options(), world.world.dns());
    run(cli::publish::run, &format!("{add} {server}")).exits(0);
    let json = discover(&format!("proxy --json {options}")).exits(0).json();
    assert_eq!((&of(&json, &peer(7)).1["in_dns"], &of(&json, &peer(8)).1["in_dns"]), (&true.into(), &false.into()));
    let public = &json["public"];
    assert_eq!((&public["status"], &public["only_in_dns"]), (&"found".into(), &serde_json::json!([])), "{json}");
    let only = public["only_in_overlay"].as_array().unwrap();
    assert!(only.contains(&format!("udp:127.0.0.1:{mute_port}").into()), "{json}");
    discover(&format!("proxy {options}")).exits(0).says("overlay and DNS differ: only in the overlay: udp:127.0.0.1");
    // Of a list that was cut short nothing is missing.
    let some = discover(&format!("proxy -n 1 --json {options}")).exits(0).json();
    assert_eq!(some["public"]["only_in_dns"], serde_json::json!([]), "{some}");
    world.run(live.stop());
    eventually("what is only in the DNS is told", || {
        let json = discover(&format!("proxy --json {options}")).exits(0).json();
        json["public"]["only_in_dns"]
            == serde_json::json!([format!("tcp:127.0.0.1:{tcp}"), format!("udp:127.0.0.1:{udp}")])
            || json["public"]["only_in_dns"]
                == serde_json::json!([format!("udp:127.0.0.1:{udp}"), format!("tcp:127.0.0.1:{tcp}")])
    });
}

#[test]
fn an_endpoint_by_name_is_looked_up_and_a_name_that_leads_nowhere_is_not_waited_for() {
    let world = TestWorld::of(9);
    let user = world.user("names");
    let live = proxy(&world, 7);
    let (udp, members) = (port(&live, Protocol::Udp), world.world.members());
    let a = p2psip::dns::RrSet::A(vec![Ipv4Addr::LOCALHOST]);
    world.run(world.world.name_server().set("one.p2psip.org", &a)).unwrap();
    let _named = offer(&world, 8, &[("udp", "one.p2psip.org", udp), ("udp", "two.p2psip.org", udp)]);
    let options = format!("{} --dns {}", user.options(), world.world.dns());
    let json = discover(&format!("proxy --json {options}")).exits(0).json();
    let (_, named) = of(&json, &members[8].peer().to_string());
    assert_eq!(named["probes"][0]["status"], "answered", "{json}");
    assert_eq!(named["probes"][1]["status"], "unreachable", "{json}");
    // A name server that never answers costs what a probe may cost, however many names there are.
    let dead = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let began = std::time::Instant::now();
    let options = format!("{} --dns {}", user.options(), dead.local_addr().unwrap());
    let json = discover(&format!("proxy --json {options}")).exits(0).json();
    assert_eq!(of(&json, &members[8].peer().to_string()).1["rtt_ms"], Value::Null, "{json}");
    assert_eq!(json["public"]["status"], "nobody-to-ask", "{json}");
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
    world.run(live.stop());
}
