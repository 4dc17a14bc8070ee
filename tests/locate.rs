//! `p2p-lookup` of public SIP URIs against a name server, and of an overlay's proxy peers beside their DNS records.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use p2psip::dns::{DnsServer, Naptr, RrSet, Srv, Zone};
use tokio::runtime::Runtime;

use crate::world::{folder, lookup};

fn srv(priority: u16, port: u16, target: &str) -> Srv {
    Srv { priority, weight: 1, port, target: target.to_owned() }
}

fn naptr(order: u16, services: &str, replacement: &str) -> Naptr {
    Naptr {
        order,
        preference: 10,
        flags: "s".to_owned(),
        services: services.to_owned(),
        regexp: String::new(),
        replacement: replacement.to_owned(),
    }
}

/// A name server of example.com and p2psip.org, which runs as long as it lives.
struct Names {
    runtime: Runtime,
    server: Option<DnsServer>,
}

impl Names {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let a = |last: u8| RrSet::A(vec![Ipv4Addr::new(192, 0, 2, last)]);
        let example = Zone::new("example.com")
            .and_then(|zone| {
                let rules = [
                    naptr(30, "SIP+D2U", "_sip._udp.example.com"),
                    naptr(10, "SIPS+D2T", "_sips._tcp.example.com"),
                    naptr(20, "SIP+D2S", "_sip._sctp.example.com"),
                ];
                zone.with("example.com", &RrSet::Naptr(rules.to_vec()))
            })
            .and_then(|zone| zone.with("_sips._tcp.example.com", &RrSet::Srv(vec![srv(1, 5061, "one.example.com")])))
            .and_then(|zone| {
                let servers = vec![srv(20, 5070, "two.example.com"), srv(10, 5060, "one.example.com")];
                zone.with("_sip._udp.example.com", &RrSet::Srv(servers))
            })
            .and_then(|zone| zone.with("one.example.com", &a(1)))
            .and_then(|zone| zone.with("two.example.com", &a(2)))
            .and_then(|zone| zone.with("mail.example.com", &RrSet::Txt(vec!["v=spf1 -all".to_owned()])));
        let zones = vec![example.unwrap(), Zone::new("p2psip.org").unwrap()];
        let server = runtime.block_on(DnsServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zones));
        Self { server: Some(server.unwrap()), runtime }
    }

    fn options(&self) -> String {
        format!("--dns {}", self.server.as_ref().unwrap().address())
    }

    fn set(&self, name: &str, set: &RrSet) {
        self.runtime.block_on(self.server.as_ref().unwrap().set(name, set)).unwrap();
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

#[test]
fn a_public_uri_is_shown_with_the_way_to_its_servers() {
    let (names, folder) = (Names::start(), folder());
    let options = format!("--home {} {}", folder.path().join("home").display(), names.options());
    let short = lookup(&format!("--short {options} sip:bob@example.com")).exits(0);
    assert_eq!(short.out, "tls:192.0.2.1:5061\nudp:192.0.2.1:5060\nudp:192.0.2.2:5070\n");

    let table = lookup(&format!("{options} sip:bob@example.com")).exits(0);
    let server = names.server.as_ref().unwrap().address().to_string();
    for words in ["NAPTR example.com", &server, "10 10 \"s\" \"SIPS+D2T\" \"\" _sips._tcp.example.com", "passed over"] {
        assert!(table.out.contains(words), "{words}: {}", table.out);
    }
    assert!(table.err.contains("3 targets by"), "{}", table.err);

    let json = lookup(&format!("--json {options} sips:bob@example.com")).exits(0).json();
    assert_eq!((&json["status"], &json["domain"]), (&"found".into(), &"example.com".into()), "{json}");
    assert_eq!(json["targets"][0]["tls_name"], "example.com", "{json}");
    assert_eq!(json["targets"].as_array().unwrap().len(), 1, "sips: goes over nothing but TLS: {json}");
    let first = &json["path"][0];
    assert_eq!((&first["text"], &first["source"]), (&"NAPTR example.com".into(), &server.as_str().into()), "{json}");

    for (uri, endpoint) in [
        ("sip:bob@example.com;transport=udp", "udp:192.0.2.1:5060"),
        ("sip:bob@one.example.com:5099;transport=tcp", "tcp:192.0.2.1:5099"),
        ("sip:[2001:db8::1]", "udp:[2001:db8::1]:5060"),
        ("sips:bob@192.0.2.7", "tls:192.0.2.7:5061"),
        ("sip:bob@example.com;maddr=two.example.com;transport=tls", "tls:192.0.2.2:5061"),
    ] {
        let ran = lookup(&format!("--short {options} {uri}")).exits(0);
        assert_eq!(ran.out.lines().next(), Some(endpoint), "{uri}");
    }
}

#[test]
fn no_domain_no_server_and_a_silent_dns_have_their_codes() {
    let (names, folder) = (Names::start(), folder());
    let home = format!("--home {}", folder.path().join("home").display());
    let options = format!("{home} {}", names.options());
    lookup(&format!("{options} sip:bob@nobody.example.com")).exits(1).says("does not exist in the DNS");
    lookup(&format!("{options} sip:bob@mail.example.com")).exits(1).says("has no SIP server in the DNS");
    lookup(&format!("{options} sip:bob@elsewhere.org")).exits(3).says("answered REFUSED");
    let json = lookup(&format!("--json {options} sip:bob@nobody.example.com")).exits(1).json();
    assert_eq!(json["status"], "no-domain");
    let mute = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = format!("{home} --dns {} --timeout 0.4", mute.local_addr().unwrap());
    lookup(&format!("{silent} sip:bob@example.com")).exits(3).says("the DNS does not tell").says("no answer from");
    // Of several, the worst counts, and each has its answer.
    let ran = lookup(&format!("--json {options} sip:bob@example.com sip:bob@mail.example.com")).exits(1);
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
}

#[test]
fn a_domain_that_publishes_an_overlay_is_one() {
    let (names, folder) = (Names::start(), folder());
    let options = format!("--home {} {} --timeout 2", folder.path().join("home").display(), names.options());
    lookup(&format!("{options} sip:bob@example.com")).exits(0);
    names.set("_p2psip.example.com", &RrSet::Txt(vec!["v=P2PSIP1; h=00".to_owned()]));
    lookup(&format!("{options} sip:bob@example.com")).exits(3).says("nobody to ask in example.com");
    lookup(&format!("{options} --as public sip:bob@example.com")).exits(0);
    lookup(&format!("{options} --as overlay sip:bob@one.example.com")).exits(3).says("nobody to ask");
    // What is configured needs no word of the DNS.
    lookup(&format!("{options} --overlay one.example.com sip:bob@one.example.com")).exits(3).says("nobody to ask");
}
