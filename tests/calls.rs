//! Test calls over real sockets: between ordinary user agents, and within an overlay.

use std::{
    net::UdpSocket,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2psip::{
    cli::{Signal, answer, invite},
    dns::{
        Resolver, RrSet, Srv,
        locate::{Locator, Options},
    },
    member::{Proxy, ProxyConfig},
    name::{ResourceName, Service, ServiceUri},
    sip::{Message, Method, header::Name, respond::respond},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{Ran, Staying, TestWorld, eventually, lookup, register, run};

/// An ordinary callee, and the port it has.
fn callee(options: &str) -> (Staying, u16) {
    let mut callee = Staying::start(answer::run, &format!("--listen 127.0.0.1:0 --json {options}"));
    let listening: Value = callee.json();
    assert_eq!(listening["status"], "listening");
    let address = listening["addresses"][0].as_str().unwrap().to_owned();
    (callee, address.rsplit(':').next().unwrap().parse().unwrap())
}

fn call(line: &str) -> Ran {
    run(invite::run, &format!("--as public --json --media 0.1 {line}"))
}

/// What went over the wire, in order, seen from the caller.
fn flow(outcome: &Value) -> Vec<&str> {
    outcome["flow"]["messages"].as_array().unwrap().iter().map(|message| message["what"].as_str().unwrap()).collect()
}

fn capture_has(path: &Path, what: &str) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

#[test]
fn two_user_agents_call_each_other_over_udp_and_tcp() {
    for (transport, shown) in [("", "UDP"), (";transport=tcp", "TCP")] {
        let (mut callee, port) = callee("--once --ring 0.1");
        let called =
            call(&format!("--from sip:alice@example.org --ladder sip:bob@127.0.0.1:{port}{transport}")).exits(0);
        let outcome = called.json();
        assert_eq!(outcome["status"], "answered");
        assert_eq!(flow(&outcome), ["INVITE", "180 Ringing", "200 OK", "ACK", "BYE", "200 OK"], "{shown}: {outcome:#}");
        assert!(outcome["answered_ms"].as_f64() >= Some(100.0), "{outcome:#}");
        assert!(outcome["ringing_ms"].as_f64() < outcome["answered_ms"].as_f64());
        assert!(outcome["talked_ms"].as_f64() >= Some(100.0));
        assert_eq!((&outcome["ended_by"], &outcome["code"]), (&"us".into(), &200.into()));
        let hop = &outcome["flow"]["hops"][0];
        assert_eq!((&hop["transport"], &hop["to"]), (&shown.into(), &"bob".into()), "{hop:#}");
        let taken: Value = callee.json();
        assert_eq!((&taken["status"], &taken["from"]), (&"answered".into(), &"sip:alice@example.org".into()));
        assert_eq!(taken["call_id"], outcome["call_id"]);
        callee.wait().exits(0);
    }
}

#[test]
fn a_proxy_is_sent_what_is_for_somebody_else() {
    let (mut callee, port) = callee("--once");
    let called = call(&format!("--ladder --proxy 127.0.0.1:{port} sip:bob@nowhere.example")).exits(0);
    assert_eq!(called.json()["uri"], "sip:bob@nowhere.example");
    callee.wait().exits(0);
}

#[test]
fn a_callee_that_is_busy_is_exit_1() {
    let (mut callee, port) = callee("--once --status 486");
    let called = call(&format!("sip:bob@127.0.0.1:{port}")).exits(1);
    let outcome = called.json();
    assert_eq!((&outcome["status"], &outcome["code"]), (&"rejected".into(), &486.into()));
    assert_eq!(outcome["reason"], "Busy Here");
    let ran = callee.wait().exits(0);
    assert!(ran.out.contains("\"rejected\""), "{ran:?}");
}

#[test]
fn a_user_that_is_not_there_is_exit_1() {
    let (mut callee, port) = callee("sip:bob@127.0.0.1");
    let called = call(&format!("sip:carol@127.0.0.1:{port}")).exits(1);
    assert_eq!(called.json()["code"], 404);
    callee.end(Signal::Terminate).exits(0);
}

#[test]
fn interrupting_a_call_that_rings_cancels_it() {
    let folder = TempDir::new().unwrap();
    let capture = folder.path().join("callee.pcap");
    let (mut callee, port) = callee(&format!("--once --ring 60 --pcap {}", capture.display()));
    let line = format!("--as public --json --ladder sip:bob@127.0.0.1:{port}");
    let mut caller = Staying::start(invite::run, &line);
    eventually("it rings", || capture_has(&capture, "SIP/2.0 180 Ringing"));
    let ran = caller.end(Signal::Interrupt).exits(130);
    let outcome = ran.json();
    assert_eq!((&outcome["status"], &outcome["ended_by"]), (&"cancelled".into(), &"us".into()));
    assert!(flow(&outcome).contains(&"487 Request Terminated"), "{outcome:#}");
    assert_eq!(callee.json()["status"], "cancelled");
    callee.wait().exits(0);
}

#[test]
fn interrupting_a_call_that_is_on_hangs_up() {
    let folder = TempDir::new().unwrap();
    let capture = folder.path().join("caller.pcap");
    let (mut callee, port) = callee("--once");
    let line = format!("--as public --json --media 600 --pcap {} sip:bob@127.0.0.1:{port}", capture.display());
    let mut caller = Staying::start(invite::run, &line);
    eventually("the call is on", || capture_has(&capture, "ACK sip:bob"));
    let ran = caller.end(Signal::Interrupt).exits(130);
    assert_eq!(ran.json()["status"], "answered");
    assert_eq!(callee.json()["ended_by"], "them");
    callee.wait().exits(0);
}

#[test]
fn no_answer_and_nobody_there_are_exit_3() {
    let (mut callee, port) = callee("--ring 60");
    let rang = call(&format!("--ring-timeout 0.3 sip:bob@127.0.0.1:{port}")).exits(3).json();
    assert_eq!((&rang["status"], &rang["reason"]), (&"no-answer".into(), &"nobody answered in time".into()));
    callee.end(Signal::Terminate).exits(0);

    // A socket that hears and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let began = Instant::now();
    let unheard = call(&format!("--ring-timeout 0.3 sip:bob@127.0.0.1:{port}")).exits(3).json();
    assert_eq!(unheard["status"], "unreachable");
    assert!(began.elapsed() < Duration::from_secs(10));
    let began = Instant::now();
    let unheard = call(&format!("--timeout 0.4 sip:bob@127.0.0.1:{port}")).exits(3).json();
    assert_eq!(unheard["reason"], format!("no response from UDP 127.0.0.1:{port}"));
    assert!(began.elapsed() < Duration::from_secs(10));
    let refused = call(&format!("sip:bob@127.0.0.1:{port};transport=tcp")).exits(3).json();
    assert!(refused["reason"].as_str().unwrap().starts_with("cannot send to TCP 127.0.0.1"), "{refused}");
    // Where nobody listens, the system there says so.
    drop(silent);
    let began = Instant::now();
    let closed = call(&format!("sip:bob@127.0.0.1:{port}")).exits(3).json();
    let why = format!("cannot send to UDP 127.0.0.1:{port}: nobody listens there");
    assert_eq!(closed["status"], "unreachable");
    assert!(closed["reason"].as_str().unwrap().starts_with(&why), "{closed}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn several_calls_are_several_lines() {
    let (mut callee, port) = callee("--count 3 --ring 0.05");
    let called = call(&format!("--count 3 --interval 0.02 sip:bob@127.0.0.1:{port}")).exits(0);
    let outcomes = called.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes.iter().all(|outcome| outcome["status"] == "answered"));
    let ids =
        outcomes.iter().map(|outcome| outcome["call_id"].as_str().unwrap()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ids.len(), 3);
    callee.wait().exits(0);
}

/// A callee on UDP that wants a password, checks it with another implementation of digest, and answers at once.
fn guarded(stop: &AtomicBool, socket: &UdpSocket) {
    let challenge = "Digest realm=\"example.com\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256";
    let mut octets = [0; 4_096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut octets) else { continue };
        let request = Message::parse(Bytes::copy_from_slice(&octets[..length])).unwrap();
        let given = request.credentials().next().map(|(_, value)| value.unwrap());
        let response = match (request.method(), given) {
            (Method::Ack, _) => continue,
            (Method::Invite, None) => {
                let weak = challenge.replace("SHA-256", "MD5");
                let refusal = respond(&request, 401, "Unauthorized", Some("g"));
                refusal.header(Name::WwwAuthenticate, weak).header(Name::WwwAuthenticate, challenge).finish()
            }
            (Method::Invite, Some(given)) => {
                let text = |name| given.text(name).unwrap().into_owned();
                let uri = request.request_uri().unwrap();
                let method = digest_auth::HttpMethod::from("INVITE");
                let mut context =
                    digest_auth::AuthContext::new_with_method("alice", "secret", uri, Some(request.body()), method);
                context.set_custom_cnonce(text("cnonce"));
                let expected = digest_auth::parse(challenge).unwrap().respond(&context).unwrap();
                if text("response") == expected.response && text("algorithm") == "SHA-256" {
                    let contact = format!("<sip:bob@{}>", socket.local_addr().unwrap());
                    let accepted = respond(&request, 200, "OK", Some("b")).header(Name::Contact, contact);
                    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";
                    accepted.body("application/sdp", sdp).finish()
                } else {
                    respond(&request, 401, "Unauthorized", Some("g")).header(Name::WwwAuthenticate, challenge).finish()
                }
            }
            _ => respond(&request, 200, "OK", Some("b")).finish(),
        };
        socket.send_to(&response, from).unwrap();
    }
}

#[test]
fn who_asks_for_a_password_gets_one() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("right"), "secret\n").unwrap();
    std::fs::write(folder.path().join("wrong"), "guess\n").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| guarded(&stop, &socket));
        let line = |file: &str| {
            let path = folder.path().join(file);
            format!("--from sip:alice@example.org --password-file {} --ladder sip:bob@127.0.0.1:{port}", path.display())
        };
        let right = call(&line("right"));
        let wrong = call(&line("wrong"));
        let none = call(&format!("sip:bob@127.0.0.1:{port}"));
        stop.store(true, Ordering::Relaxed);
        let outcome = right.exits(0).json();
        assert_eq!(flow(&outcome)[..4], ["INVITE", "401 Unauthorized", "ACK", "INVITE"]);
        let outcome = wrong.exits(1).json();
        assert!(outcome["reason"].as_str().unwrap().contains("does not accept this user and password"), "{outcome:#}");
        assert_eq!(none.exits(1).json()["code"], 401);
    });
}

#[test]
fn a_ladder_and_a_capture_tell_the_same() {
    let folder = TempDir::new().unwrap();
    let capture = folder.path().join("call.pcap");
    let (mut callee, port) = callee("--once");
    let line = format!("--as public --from sip:alice@example.org --media 0 --ladder --pcap {}", capture.display());
    let ran = run(invite::run, &format!("{line} sip:bob@127.0.0.1:{port}")).exits(0);
    for what in ["alice", "bob", "INVITE (SDP)", "200 OK (SDP)", "◀", "HOP", "UDP", "the URI says so"] {
        assert!(ran.out.contains(what), "'{what}' is not in:\n{}", ran.out);
    }
    let bytes = std::fs::read(&capture).unwrap();
    assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
    assert!(capture_has(&capture, "BYE sip:bob@127.0.0.1"));
    callee.wait().exits(0);
    let missing = run(invite::run, "--as public --pcap /nonexistent/x.pcap sip:bob@127.0.0.1").exits(5);
    missing.says("cannot write the capture /nonexistent/x.pcap");
}

#[test]
fn users_of_an_overlay_call_each_other_over_a_stream() {
    let world = TestWorld::shared();
    let (alice, bob) = (world.user("caller"), world.user("callee"));
    // Alice's device is registered already, and stays so.
    register(&format!("{} --contact sip:alice@192.0.2.7:5060 {}", alice.options(), alice.aor)).exits(0);

    let mut callee = Staying::start(answer::run, &format!("{} --json --once --ring 0.05 {}", bob.options(), bob.aor));
    let listening: Value = callee.json();
    let peer = listening["peer"].as_str().unwrap().to_owned();
    let line =
        format!("{} --from {} --json --ladder --media 0.1 --reinvite 0.02 {}", alice.options(), alice.aor, bob.aor);
    let outcome = run(invite::run, &line).exits(0).json();
    assert_eq!((&outcome["status"], &outcome["reinvited"]), (&"answered".into(), &200.into()), "{outcome:#}");
    let hop = &outcome["flow"]["hops"][0];
    assert_eq!((&hop["transport"], &hop["address"]), (&"OVERLAY".into(), &peer.as_str().into()), "{hop:#}");
    assert_eq!(hop["found"], format!("routing record of {}", bob.aor));
    assert_eq!(outcome["flow"]["parties"].as_array().unwrap().len(), 2, "no proxy peer is in between (draft §5.1)");
    let taken: Value = callee.json();
    assert_eq!(taken["from"], alice.aor.to_string());
    callee.wait().exits(0);

    // Both have left nothing behind but what was there before.
    lookup(&format!("{} {}", bob.options(), bob.aor)).exits(1);
    let found = lookup(&format!("{} --json {}", alice.options(), alice.aor)).exits(0).json();
    let contacts = found["records"][0]["contacts"].as_array().unwrap().clone();
    assert_eq!(contacts.len(), 1, "{contacts:?}");
    assert_eq!(contacts[0]["uri"], "sip:alice@192.0.2.7:5060");
}

#[test]
fn a_call_that_never_began_leaves_no_address_behind() {
    let world = TestWorld::shared();
    let (alice, bob) = (world.user("beginner"), world.user("uncalled"));
    register(&format!("{} --contact sip:alice@192.0.2.7:5060 {}", alice.options(), alice.aor)).exits(0);
    let contacts = || {
        let found = lookup(&format!("{} --json {}", alice.options(), alice.aor)).exits(0).json();
        found["records"][0]["contacts"].as_array().unwrap().len()
    };
    let line = format!("{} --from {} {}", alice.options(), alice.aor, bob.aor);
    run(invite::run, &format!("{line} --pcap /nonexistent/call.pcap")).exits(5).says("cannot write the capture");
    assert_eq!(contacts(), 1);
    // Some of these come while it looks around, some while it registers, some while it calls.
    for after_ms in [5, 20, 40, 60, 80, 120] {
        let mut calling = Staying::start(invite::run, &line);
        std::thread::sleep(Duration::from_millis(after_ms));
        calling.end(Signal::Interrupt);
        assert_eq!(contacts(), 1, "interrupted after {after_ms} ms");
    }
}

#[test]
fn a_member_at_which_nobody_takes_calls_is_no_other_overlay() {
    let world = TestWorld::shared();
    let (alice, bob) = (world.user("deskless"), world.user("curious"));
    // She is at the member on her machine, where neither p2p-answer nor a phone runs.
    register(&format!("{} {}", alice.options(), alice.aor)).exits(0);
    let line = format!("{} --from {} {}", bob.options(), bob.aor, alice.aor);
    let ran = run(invite::run, &line).exits(3).says("nobody takes SIP there");
    assert!(ran.err.contains("OVERLAY 12D3KooW…"), "{}", ran.err);
}

#[test]
fn whom_the_overlay_does_not_know_cannot_be_called() {
    let world = TestWorld::shared();
    let (alice, carol) = (world.user("caller"), world.user("absent"));
    let own = format!("{} --from {} --json", alice.options(), alice.aor);
    let outcome = run(invite::run, &format!("{own} {}", carol.aor)).exits(1).json();
    assert_eq!(outcome["status"], "not-found");
    assert_eq!(outcome["reason"], "nobody has registered it in the overlay");
    // The lab's proxy peers do not serve yet.
    let outcome = run(invite::run, &format!("{own} sip:bob@example.com")).exits(3).json();
    assert!(outcome["reason"].as_str().unwrap().contains("proxy peer"), "{outcome}");
}

#[test]
fn what_cannot_be_called_is_said_before_anybody_is_asked() {
    let usage = |line: &str, what: &str| {
        run(invite::run, line).exits(2).says(what);
    };
    usage("tel:+123", "its scheme is not sip: or sips:");
    usage("sip:bob@example.com?Subject=x --as public", "it has headers");
    usage("--as overlay sip:bob@example.com", "--from");
    usage("--proxy a/b sip:bob@example.com", "'a/b' is not a next hop");
    usage("--media -1 sip:bob@example.com", "'-1' is not a time");
    usage("--auth-user alice sip:bob@example.com", "--password-file");
    run(answer::run, "--listen 127.0.0.1:0 --status 183").exits(2).says("183 is no final response");
    run(answer::run, "").exits(2).says("no user");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    run(answer::run, &format!("--listen {}", taken.local_addr().unwrap()))
        .exits(5)
        .says("cannot listen for SIP on TCP");
}

/// A proxy peer on a member of the world, with servers of the world's DNS, in which the overlay is found at it.
pub fn proxy_peer(world: &TestWorld, member: usize) -> Proxy {
    let member = &world.world.members()[member];
    let overlay = world.world.descriptor().overlay();
    let resolver = Resolver::new(&[world.world.dns()]).unwrap();
    let mut config = ProxyConfig::new(([127, 0, 0, 1], 0).into(), Locator::new(resolver, Options::default()));
    let name = ResourceName::from(ServiceUri::new(Service::Proxy, overlay.clone()));
    config.certificate = world.world.enrol(member.key(), &[name]).unwrap();
    config.drain = Duration::from_millis(200);
    world.run(async {
        let proxy = Proxy::start(member, config).await.unwrap();
        let port = proxy.listening()[0].1.port();
        let host = format!("proxy.{overlay}");
        let dns = world.world.name_server();
        dns.set(&host, &RrSet::A(vec![[127, 0, 0, 1].into()])).await.unwrap();
        let server = Srv { priority: 0, weight: 0, port, target: host };
        dns.set(&format!("_sip._udp.{overlay}"), &RrSet::Srv(vec![server])).await.unwrap();
        proxy
    })
}

#[test]
fn calls_cross_the_boundary_through_a_proxy_peer_both_ways() {
    let world = TestWorld::of(10);
    let proxy = proxy_peer(&world, 8);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let dns = format!("--dns {}", world.world.dns());

    // Out (draft §5.2), and the callee hangs up: its BYE finds the overlay through the DNS.
    let (mut outside, port) = callee(&format!("--count 2 --media 0.2 {dns}"));
    let line = format!("{} --from {} --json --ladder --media 30", alice.options(), alice.aor);
    let line = format!("{line} sip:carol@127.0.0.1:{port}");
    let outcome = run(invite::run, &line).exits(0).json();
    assert_eq!((&outcome["status"], &outcome["ended_by"]), (&"answered".into(), &"them".into()), "{outcome:#}");
    let hop = &outcome["flow"]["hops"][0];
    assert_eq!((&hop["transport"], &hop["to"]), (&"OVERLAY".into(), &"proxy peer".into()), "{hop:#}");
    let taken: Value = outside.json();
    assert_eq!(taken["from"], alice.aor.to_string());
    assert_eq!(taken["fault"], Value::Null, "{taken:#}");
    // A moment later the same user calls from another process: the proxy peer must not go by what it knew.
    run(invite::run, &line).exits(0);
    outside.wait().exits(0);

    // In (draft §5.3), with a re-INVITE and a BYE of the caller.
    let mut inside = Staying::start(answer::run, &format!("{} --json --once --ladder {}", bob.options(), bob.aor));
    assert_eq!(inside.json()["status"], "listening");
    let line = format!("--ladder --from sip:carol@example.com --reinvite 0.02 {dns} {}", bob.aor);
    let outcome = call(&line).exits(0).json();
    assert_eq!((&outcome["status"], &outcome["reinvited"]), (&"answered".into(), &200.into()), "{outcome:#}");
    assert!(outcome["flow"]["hops"][0]["found"].as_str().unwrap().starts_with("SRV _sip._udp."), "{outcome:#}");
    let taken: Value = inside.json();
    assert_eq!((&taken["status"], &taken["ended_by"]), (&"answered".into(), &"them".into()));
    let hops = taken["flow"]["hops"].as_array().unwrap();
    assert_eq!((&hops[0]["transport"], &hops[1]["transport"]), (&"UDP".into(), &"OVERLAY".into()), "{taken:#}");
    inside.wait().exits(0);
    world.run(proxy.stop());
}
