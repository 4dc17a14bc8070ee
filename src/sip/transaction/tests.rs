//! Tests of the layer: one side of a conversation, by a fake clock.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::*;
use crate::{
    name::PeerId,
    sip::{
        Message, Method, respond,
        transport::{FlowId, Hop, Protocol, Source, Undelivered},
    },
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A request of a conversation, by its topmost Via's transport and parameters.
pub(super) fn request(method: &str, via: &str, call: &str) -> Message {
    let text = format!(
        "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/{via}\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@p2psip.org>;tag=a1\r\nTo: <sip:bob@example.com>\r\nCall-ID: {call}\r\n\
         CSeq: 7 {method}\r\nContent-Length: 0\r\n\r\n"
    );
    Message::parse(Bytes::from(text)).unwrap()
}

/// A response of the TU, with a tag.
pub(super) fn answer(request: &Message, status: u16) -> Bytes {
    respond::respond(request, status, "Whatever", Some("b2")).finish()
}

pub(super) fn hop(protocol: Protocol) -> Hop {
    match protocol {
        Protocol::Overlay => Hop::peer(PeerId::from_public_key([3; 32]), []),
        other => Hop::socket(other, address(5060)),
    }
}

pub(super) fn source(protocol: Protocol) -> Source {
    match protocol {
        Protocol::Overlay => Source::peer(PeerId::from_public_key([3; 32]), FlowId(1)),
        other => Source::socket(other, address(5060), address(5070), FlowId(1)),
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// A message with something in it replaced.
fn edited(message: &Message, from: &str, to: &str) -> Message {
    let text = String::from_utf8(message.bytes().to_vec()).unwrap();
    assert!(text.contains(from), "{text}");
    Message::parse(Bytes::from(text.replacen(from, to, 1))).unwrap()
}

/// A layer, its clock, and what came out of it.
struct Side {
    layer: Layer,
    start: Instant,
    now: Instant,
    protocol: Protocol,
    clients: Vec<ClientId>,
    servers: Vec<ServerId>,
    sent: Vec<(Bytes, Token)>,
}

impl Side {
    fn new(protocol: Protocol) -> Self {
        Self::with(protocol, Config::default())
    }

    fn with(protocol: Protocol, config: Config) -> Self {
        let start = Instant::now();
        let layer = Layer::new(config, start);
        Self { layer, start, now: start, protocol, clients: vec![], servers: vec![], sent: vec![] }
    }

    /// Everything that came out, in short.
    fn drain(&mut self) -> Vec<String> {
        let name = |message: &Message| match message.status() {
            Some(status) => format!("{status}"),
            None => message.method().to_string(),
        };
        std::iter::from_fn(|| self.layer.poll_output())
            .map(|output| match output {
                Output::Send { bytes, token, to } => {
                    assert_eq!(to.protocol, self.protocol);
                    self.sent.push((bytes.clone(), token));
                    format!("-> {}", name(&Message::parse(bytes).unwrap()))
                }
                Output::Event(event) => match event {
                    Event::Request { server, message, merged, .. } => {
                        self.servers.push(server);
                        format!("request {}{}", name(&message), if merged { " merged" } else { "" })
                    }
                    Event::Cancel { server, invite, .. } => {
                        self.servers.push(server);
                        let of = self.servers.iter().position(|server| *server == invite).unwrap();
                        format!("cancel of {of}")
                    }
                    Event::StrayCancel { .. } => "stray cancel".to_owned(),
                    Event::Ack { invite, .. } => format!("ack {}", if invite.is_some() { "of ours" } else { "stray" }),
                    Event::Response { message, .. } => format!("response {}", name(&message)),
                    Event::StrayResponse { message, .. } => format!("stray {}", name(&message)),
                    Event::Overload { message, .. } => format!("overload {}", name(&message)),
                    Event::Timeout { .. } => "timeout".to_owned(),
                    Event::TransportError { .. } => "transport error".to_owned(),
                    Event::Deadline { .. } => "deadline".to_owned(),
                    Event::NotAcknowledged { .. } => "not acknowledged".to_owned(),
                    Event::ResponseFailed { .. } => "response failed".to_owned(),
                    Event::ClientEnded { .. } => "client ended".to_owned(),
                    Event::ServerEnded { .. } => "server ended".to_owned(),
                },
            })
            .collect()
    }

    /// What is said until nothing is left to wait for, or `until` from the start; each with its time.
    fn run(&mut self, until: Duration) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(at) = self.layer.poll_timeout().filter(|at| *at <= self.start + until) {
            // A wheel that was not turned for a while may want to be.
            self.now = self.now.max(at);
            self.layer.handle_timeout(self.now);
            let time = (self.now - self.start).as_millis();
            said.extend(self.drain().into_iter().map(|line| format!("{time} {line}")));
        }
        self.now = self.start + until;
        said
    }

    fn request(&mut self, method: Method<'_>) -> Message {
        let branch = self.layer.new_branch(None);
        let via = format!("{} here.example.com;branch={branch}", self.protocol);
        let message = request(method.as_str(), &via, "call");
        let bytes = message.bytes().clone();
        self.clients.push(self.layer.request(&branch, method, bytes, hop(self.protocol), self.now).unwrap());
        message
    }

    fn receive(&mut self, message: &Message) -> Vec<String> {
        self.layer.receive(message.clone(), source(self.protocol), self.now);
        self.drain()
    }

    fn answered(&mut self, request: &Message, status: u16) -> Vec<String> {
        self.receive(&Message::parse(answer(request, status)).unwrap())
    }

    fn respond(&mut self, server: usize, request: &Message, status: u16) -> Result<Vec<String>, RespondError> {
        self.layer.respond(self.servers[server], answer(request, status), self.now)?;
        Ok(self.drain())
    }

    fn assert_empty(&self) {
        self.layer.assert_empty();
    }
}

fn server_invite() -> Message {
    request("INVITE", "UDP there.example.com;branch=z9hG4bKabc", "call")
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn an_invite_is_sent_seven_times_and_then_given_up() {
    let mut side = Side::new(Protocol::Udp);
    side.request(Method::Invite);
    assert_eq!(side.drain(), ["-> INVITE"]);
    assert_eq!(
        side.run(100 * SECOND),
        [
            "500 -> INVITE",
            "1500 -> INVITE",
            "3500 -> INVITE",
            "7500 -> INVITE",
            "15500 -> INVITE",
            "31500 -> INVITE",
            "32000 timeout",
            "32000 client ended"
        ]
    );
    side.assert_empty();
    let metrics = side.layer.metrics();
    assert_eq!((metrics.clients, metrics.requests_resent, metrics.timeouts), (1, 6, 1));
}

#[test]
fn another_request_is_sent_eleven_times_and_then_given_up() {
    let mut side = Side::new(Protocol::Udp);
    side.request(Method::Options);
    assert_eq!(side.drain(), ["-> OPTIONS"]);
    let said = side.run(100 * SECOND);
    let times = [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500];
    let mut expected: Vec<String> = times.map(|time| format!("{time} -> OPTIONS")).to_vec();
    expected.extend(["32000 timeout".to_owned(), "32000 client ended".to_owned()]);
    assert_eq!(said, expected);
    side.assert_empty();
}

#[test]
fn a_provisional_response_slows_a_request_down_to_t2() {
    let mut side = Side::new(Protocol::Udp);
    let options = side.request(Method::Options);
    side.drain();
    assert_eq!(side.run(600 * MS), ["500 -> OPTIONS"]);
    assert_eq!(side.answered(&options, 100), ["response 100"]);
    assert_eq!(side.run(10 * SECOND), ["1500 -> OPTIONS", "5500 -> OPTIONS", "9500 -> OPTIONS"]);
    assert_eq!(side.answered(&options, 200), ["response 200"]);
    assert_eq!(side.answered(&options, 200), none());
    assert_eq!(side.run(100 * SECOND), ["15000 client ended"]);
    side.assert_empty();
}

#[test]
fn nothing_is_sent_again_over_tcp_tls_and_overlay_streams() {
    for protocol in [Protocol::Tcp, Protocol::Tls, Protocol::Overlay] {
        for method in [Method::Invite, Method::Bye] {
            let mut side = Side::new(protocol);
            side.request(method);
            side.drain();
            assert_eq!(side.run(100 * SECOND), ["32000 timeout", "32000 client ended"], "{protocol} {method}");
            side.assert_empty();
        }
        let mut side = Side::new(protocol);
        let invite = side.request(Method::Invite);
        side.drain();
        assert_eq!(side.answered(&invite, 486), ["-> ACK", "response 486", "client ended"]);
        let bye = side.request(Method::Bye);
        side.drain();
        assert_eq!(side.answered(&bye, 200), ["response 200", "client ended"]);
        side.assert_empty();
    }
}

#[test]
fn every_2xx_goes_up_until_timer_m() {
    let mut side = Side::new(Protocol::Udp);
    let invite = side.request(Method::Invite);
    side.drain();
    assert_eq!(side.answered(&invite, 180), ["response 180"]);
    assert_eq!(side.run(SECOND), none());
    assert_eq!(side.answered(&invite, 200), ["response 200"]);
    assert_eq!(side.answered(&invite, 200), ["response 200"]);
    assert_eq!(side.answered(&invite, 180), none());
    assert_eq!(side.answered(&invite, 486), none());
    assert_eq!(side.run(100 * SECOND), ["33000 client ended"]);
    assert_eq!(side.answered(&invite, 200), ["stray 200"]);
    side.assert_empty();
}

#[test]
fn a_failure_is_acknowledged_each_time_and_told_once() {
    let mut side = Side::new(Protocol::Udp);
    let invite = side.request(Method::Invite);
    side.drain();
    assert_eq!(side.answered(&invite, 486), ["-> ACK", "response 486"]);
    let ack = Message::parse(side.sent[1].0.clone()).unwrap();
    assert_eq!(ack.top_via().unwrap(), invite.top_via().unwrap());
    assert_eq!(ack.to().unwrap().tag(), Some("b2"));
    assert_eq!(ack.cseq().unwrap().number, 7);
    assert_eq!(side.answered(&invite, 486), ["-> ACK"]);
    assert_eq!(side.sent[1].0, side.sent[2].0);
    assert_eq!(side.answered(&invite, 183), none());
    // A late branch of a fork: the TU has to end that call.
    assert_eq!(side.answered(&invite, 200), ["response 200"]);
    assert_eq!(side.run(100 * SECOND), ["32000 client ended"]);
    side.assert_empty();
}

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let mut side = Side::new(Protocol::Udp);
    let invite = side.request(Method::Invite);
    side.drain();
    assert!(side.layer.cancel(side.clients[0], side.now));
    assert!(side.layer.cancel(side.clients[0], side.now));
    assert_eq!(side.drain(), none());
    assert_eq!(side.answered(&invite, 100), ["response 100", "-> CANCEL"]);
    let cancel = Message::parse(side.sent[1].0.clone()).unwrap();
    assert_eq!(cancel.top_via().unwrap(), invite.top_via().unwrap());
    assert!(side.layer.cancel(side.clients[0], side.now), "once is enough, twice is no error");
    assert_eq!(side.drain(), none());
    // The CANCEL is a transaction of its own, which nobody hears of.
    assert_eq!(side.run(SECOND), ["500 -> CANCEL"]);
    assert_eq!(side.answered(&cancel, 200), none());
    assert_eq!(side.answered(&invite, 180), ["response 180"]);
    assert_eq!(side.answered(&invite, 487), ["-> ACK", "response 487"]);
    assert!(!side.layer.cancel(side.clients[0], side.now), "it is answered");
    assert_eq!(side.run(100 * SECOND), ["33000 client ended"]);
    side.assert_empty();
}

#[test]
fn a_cancelled_invite_without_a_final_response_ends() {
    let mut side = Side::new(Protocol::Tcp);
    let invite = side.request(Method::Invite);
    side.drain();
    assert_eq!(side.answered(&invite, 180), ["response 180"]);
    side.run(10 * SECOND);
    side.layer.cancel(side.clients[0], side.now);
    assert_eq!(side.drain(), ["-> CANCEL"]);
    assert_eq!(side.run(100 * SECOND), ["42000 timeout", "42000 client ended"]);
    side.assert_empty();
}

#[test]
fn a_deadline_is_timer_c() {
    let mut side = Side::new(Protocol::Udp);
    let invite = side.request(Method::Invite);
    side.drain();
    side.layer.set_deadline(side.clients[0], Some(side.now + 180 * SECOND));
    side.answered(&invite, 180);
    assert_eq!(side.run(170 * SECOND), none());
    side.answered(&invite, 180);
    side.layer.set_deadline(side.clients[0], Some(side.now + 180 * SECOND));
    assert_eq!(side.run(400 * SECOND), ["350000 deadline"]);
    side.layer.set_deadline(side.clients[0], Some(side.now + SECOND));
    side.layer.set_deadline(side.clients[0], None);
    assert_eq!(side.run(500 * SECOND), none());
    side.layer.set_deadline(side.clients[0], Some(side.now + SECOND));
    assert_eq!(side.answered(&invite, 200), ["response 200"]);
    assert_eq!(side.run(600 * SECOND), ["532000 client ended"]);
    side.assert_empty();
}

#[test]
fn a_silent_tu_has_100_said_for_it() {
    let mut side = Side::new(Protocol::Udp);
    let invite = server_invite();
    assert_eq!(side.receive(&invite), ["request INVITE"]);
    assert_eq!(side.receive(&invite), none());
    assert_eq!(side.run(SECOND), ["200 -> 100"]);
    assert_eq!(side.receive(&invite), ["-> 100"]);
    assert_eq!(side.respond(0, &invite, 180).unwrap(), ["-> 180"]);
    assert_eq!(side.receive(&invite), ["-> 180"]);
    assert_eq!(side.layer.metrics().request_repeats, 3);
    assert_eq!(side.layer.metrics().responses_resent, 2);
}

#[test]
fn a_tu_that_answers_in_time_hears_of_no_100_and_a_proxy_has_it_at_once() {
    let mut side = Side::new(Protocol::Udp);
    let invite = server_invite();
    side.receive(&invite);
    assert_eq!(side.respond(0, &invite, 180).unwrap(), ["-> 180"]);
    assert_eq!(side.run(10 * SECOND), none());

    let timers = Timers { trying: Duration::ZERO, ..Timers::default() };
    let mut side = Side::with(Protocol::Udp, Config { timers, ..Config::default() });
    assert_eq!(side.receive(&invite), ["-> 100", "request INVITE"]);
    assert_eq!(side.run(10 * SECOND), none());
}

#[test]
fn a_failure_is_sent_again_until_the_ack() {
    let mut side = Side::new(Protocol::Udp);
    let invite = server_invite();
    side.receive(&invite);
    assert_eq!(side.respond(0, &invite, 486).unwrap(), ["-> 486"]);
    assert_eq!(side.run(2 * SECOND), ["500 -> 486", "1500 -> 486"]);
    assert_eq!(side.receive(&invite), ["-> 486"]);
    assert_eq!(side.respond(0, &invite, 500), Err(RespondError::Late));
    let ack = request("ACK", "UDP there.example.com;branch=z9hG4bKabc", "call");
    assert_eq!(side.receive(&ack), none());
    assert_eq!(side.receive(&ack), none());
    assert_eq!(side.receive(&invite), none());
    assert_eq!(side.run(100 * SECOND), ["7000 server ended"]);
    assert_eq!(side.receive(&ack), ["ack stray"]);
    side.assert_empty();
}

#[test]
fn a_failure_that_nobody_acknowledges_is_told() {
    let mut side = Side::new(Protocol::Udp);
    let invite = server_invite();
    side.receive(&invite);
    side.respond(0, &invite, 486).unwrap();
    let said = side.run(100 * SECOND);
    assert_eq!(said.iter().filter(|line| line.ends_with("-> 486")).count(), 10);
    assert_eq!(said[10..], ["32000 not acknowledged", "32000 server ended"]);
    side.assert_empty();
}

#[test]
fn an_accepted_invite_absorbs_invites_and_passes_acks_and_2xx() {
    let mut side = Side::new(Protocol::Udp);
    let invite = server_invite();
    side.receive(&invite);
    assert_eq!(side.respond(0, &invite, 200).unwrap(), ["-> 200"]);
    assert_eq!(side.receive(&invite), none());
    assert_eq!(side.respond(0, &invite, 200).unwrap(), ["-> 200"]);
    assert_eq!(side.respond(0, &invite, 486), Err(RespondError::Late));
    assert_eq!(side.receive(&request("ACK", "UDP there.example.com;branch=z9hG4bKother", "call")), ["ack stray"]);
    assert_eq!(side.receive(&request("ACK", "UDP there.example.com;branch=z9hG4bKabc", "call")), ["ack of ours"]);
    assert_eq!(side.run(100 * SECOND), ["32000 server ended"]);
    assert_eq!(side.respond(0, &invite, 200), Err(RespondError::Late));
    side.assert_empty();
}

#[test]
fn other_requests_hear_100_when_rfc_4320_allows_it() {
    let options = request("OPTIONS", "UDP there.example.com;branch=z9hG4bKabc", "call");
    let mut side = Side::new(Protocol::Udp);
    assert_eq!(side.receive(&options), ["request OPTIONS"]);
    assert_eq!(side.receive(&options), none());
    assert_eq!(side.respond(0, &options, 100).unwrap(), none());
    assert_eq!(side.respond(0, &options, 183), Err(RespondError::Forbidden));
    assert_eq!(side.respond(0, &options, 408), Err(RespondError::Forbidden));
    assert_eq!(side.run(10 * SECOND), ["3500 -> 100"]);
    assert_eq!(side.receive(&options), ["-> 100"]);
    assert_eq!(side.respond(0, &options, 200).unwrap(), ["-> 200"]);
    assert_eq!(side.receive(&options), ["-> 200"]);
    assert_eq!(side.respond(0, &options, 200), Err(RespondError::Late));
    assert_eq!(side.run(100 * SECOND), ["42000 server ended"]);
    side.assert_empty();

    let mut side = Side::new(Protocol::Tcp);
    side.receive(&options);
    assert_eq!(side.respond(0, &options, 100).unwrap(), ["-> 100"]);
    assert_eq!(side.run(10 * SECOND), none());
    assert_eq!(side.respond(0, &options, 200).unwrap(), ["-> 200", "server ended"]);
    side.assert_empty();
}

#[test]
fn a_request_that_the_tu_forgets_ends_silently() {
    let mut side = Side::new(Protocol::Udp);
    let options = request("OPTIONS", "UDP there.example.com;branch=z9hG4bKabc", "call");
    side.receive(&options);
    assert_eq!(side.run(100 * SECOND), ["3500 -> 100", "32000 server ended"]);
    side.assert_empty();
}

#[test]
fn a_cancel_finds_its_invite() {
    let mut side = Side::new(Protocol::Udp);
    let cancel = request("CANCEL", "UDP there.example.com;branch=z9hG4bKabc", "call");
    assert_eq!(side.receive(&cancel), ["stray cancel"]);
    let invite = server_invite();
    side.receive(&invite);
    assert_eq!(side.receive(&cancel), ["cancel of 0"]);
    assert_eq!(side.receive(&cancel), none());
    assert_eq!(side.respond(1, &cancel, 200).unwrap(), ["-> 200"]);
    assert_eq!(side.receive(&cancel), ["-> 200"]);
    assert_eq!(side.respond(0, &invite, 487).unwrap(), ["-> 487"]);
    for other in ["UDP there.example.com;branch=z9hG4bKabd", "UDP there.example.com:5062;branch=z9hG4bKabc"] {
        assert_eq!(side.receive(&request("CANCEL", other, "call")), ["stray cancel"]);
    }
}

#[test]
fn with_the_cookie_branch_sent_by_and_method_make_the_transaction() {
    let mut side = Side::new(Protocol::Udp);
    side.receive(&server_invite());
    for same in [
        "UDP there.example.com;branch=z9hG4bKabc",
        "UDP THERE.example.com;rport;branch=Z9HG4BKABC",
        "TCP there.example.com. ;branch = z9hG4bKabc",
    ] {
        assert_eq!(side.receive(&request("INVITE", same, "whatever")), none(), "{same}");
    }
    for other in [
        "UDP there.example.com;branch=z9hG4bKab",
        "UDP there.example.com:5060;branch=z9hG4bKabc",
        "UDP where.example.com;branch=z9hG4bKabc",
        "UDP 10.0.0.65;branch=z9hG4bKabc",
        "UDP 10.0.0.97;branch=z9hG4bKabc",
        "UDP [2001:db8::1];branch=z9hG4bKabc",
    ] {
        assert_eq!(side.receive(&request("INVITE", other, "call")), ["request INVITE"], "{other}");
    }
    for method in ["OPTIONS", "options", "FOO"] {
        let via = "UDP there.example.com;branch=z9hG4bKabc";
        assert_eq!(side.receive(&request(method, via, "call")), [format!("request {method}")]);
        assert_eq!(side.receive(&request(method, via, "call")), none());
    }
}

#[test]
fn without_the_cookie_the_rules_of_rfc_2543_hold() {
    let via = "UDP there.example.com:5060;branch=1";
    let invite = request("INVITE", via, "call");
    let ack = edited(&request("ACK", via, "call"), "<sip:bob@example.com>\r", "<sip:bob@example.com>;tag=B2\r");
    let mut side = Side::new(Protocol::Udp);
    assert_eq!(side.receive(&invite), ["request INVITE"]);
    assert_eq!(side.receive(&invite), none());
    assert_eq!(side.receive(&ack), ["ack stray"], "nothing was sent that had a tag");
    // Whatever differs makes another transaction.
    for (from, to) in [
        ("sip:bob@example.com SIP", "sip:bob@example.org SIP"),
        ("tag=a1", "tag=a2"),
        ("Call-ID: call", "Call-ID: Call"),
        ("CSeq: 7", "CSeq: 8"),
        ("branch=1", "branch=2"),
        ("<sip:bob@example.com>\r", "<sip:bob@example.com>;tag=c\r"),
    ] {
        assert_eq!(side.receive(&edited(&invite, from, to)), ["request INVITE"], "{to}");
    }
    assert_eq!(side.receive(&request("CANCEL", via, "call")), ["cancel of 0"]);
    assert_eq!(side.receive(&request("CANCEL", "UDP there.example.com;branch=1", "call")), ["stray cancel"]);

    assert_eq!(side.respond(0, &invite, 486).unwrap(), ["-> 486"]);
    assert_eq!(side.receive(&edited(&ack, "tag=B2", "tag=b3")), ["ack stray"], "of another response");
    assert_eq!(side.receive(&request("ACK", via, "call")), ["ack stray"], "of none");
    assert_eq!(side.receive(&ack), none());
    // Now the machine is Confirmed and silent.
    assert_eq!(side.receive(&invite), none());
}

#[test]
fn an_ack_in_a_dialog_is_matched_without_the_cookie_too() {
    let via = "UDP there.example.com";
    let in_dialog =
        |method| edited(&request(method, via, "call"), "<sip:bob@example.com>\r", "<sip:bob@example.com>;tag=b2\r");
    let mut side = Side::new(Protocol::Udp);
    let invite = in_dialog("INVITE");
    side.receive(&invite);
    assert_eq!(side.respond(0, &invite, 491).unwrap(), ["-> 491"]);
    assert_eq!(side.receive(&in_dialog("ACK")), none());
    assert_eq!(side.run(100 * SECOND), ["5000 server ended"]);
}

#[test]
fn copies_of_a_request_by_other_paths_are_told() {
    let mut side = Side::with(Protocol::Tcp, Config { detect_merged: true, ..Config::default() });
    let invite = server_invite();
    let copy = edited(&invite, "branch=z9hG4bKabc", "branch=z9hG4bKabd");
    assert_eq!(side.receive(&invite), ["request INVITE"]);
    assert_eq!(side.receive(&copy), ["request INVITE merged"]);
    let in_dialog = |branch| {
        let other = edited(&invite, "z9hG4bKabc", branch);
        edited(&other, "<sip:bob@example.com>\r", "<sip:bob@example.com>;tag=b2\r")
    };
    assert_eq!(side.receive(&in_dialog("z9hG4bK1")), ["request INVITE"]);
    assert_eq!(side.receive(&in_dialog("z9hG4bK2")), ["request INVITE"]);
    assert_eq!(side.receive(&edited(&edited(&copy, "CSeq: 7", "CSeq: 8"), "abd", "abe")), ["request INVITE"]);
    // The copy's end does not hide the first one, the first one's end does.
    let ack = |branch: &str| request("ACK", &format!("TCP there.example.com;branch={branch}"), "call");
    assert_eq!(side.respond(1, &copy, 482).unwrap(), ["-> 482"]);
    assert_eq!(side.receive(&ack("z9hG4bKabd")), ["server ended"]);
    assert_eq!(side.receive(&copy), ["request INVITE merged"]);
    assert_eq!(side.respond(0, &invite, 486).unwrap(), ["-> 486"]);
    assert_eq!(side.receive(&ack("z9hG4bKabc")), ["server ended"]);
    assert_eq!(side.receive(&invite), ["request INVITE"]);
}

#[test]
fn a_full_table_refuses_requests_but_no_cancel() {
    let mut side = Side::with(Protocol::Udp, Config { max_transactions: 1, ..Config::default() });
    side.receive(&server_invite());
    assert_eq!(side.receive(&request("INVITE", "UDP there.example.com;branch=z9hG4bK2", "2")), ["overload INVITE"]);
    assert_eq!(side.receive(&server_invite()), none(), "what is there goes on");
    assert_eq!(side.receive(&request("CANCEL", "UDP there.example.com;branch=z9hG4bKabc", "call")), ["cancel of 0"]);
    let branch = side.layer.new_branch(None);
    let bye = request("BYE", &format!("UDP here.example.com;branch={branch}"), "call").bytes().clone();
    let refused = side.layer.request(&branch, Method::Bye, bye.clone(), hop(Protocol::Udp), side.now);
    assert_eq!(refused, Err(RequestError::Full));
    assert_eq!((side.layer.len(), side.layer.metrics().refused), (2, 2));
    side.respond(0, &server_invite(), 200).unwrap();
    side.run(100 * SECOND);
    side.layer.request(&branch, Method::Bye, bye, hop(Protocol::Udp), side.now).unwrap();
}

#[test]
fn icmp_ends_the_one_request_that_it_quotes_and_nothing_else() {
    let mut side = Side::new(Protocol::Udp);
    let (lost, other) = (side.request(Method::Invite), side.request(Method::Invite));
    let options = side.request(Method::Options);
    side.drain();
    let now = side.now;
    let about = |side: &mut Side, quoted: &[u8], port| {
        let quoted = Bytes::copy_from_slice(quoted);
        side.layer.undelivered(&Undelivered { remote: address(port), why: "", quoted }, now)
    };
    // Not where it was sent; too little; not ours; with another method.
    let whole = lost.bytes();
    let ack = edited(&lost, "INVITE sip", "ACK sip");
    let stranger = server_invite();
    for (quoted, port) in [(&whole[..], 5061), (&[], 5060), (stranger.bytes(), 5060), (ack.bytes(), 5060)] {
        assert!(!about(&mut side, quoted, port));
        assert_eq!(side.drain(), none());
    }
    assert!(about(&mut side, &whole[..whole.len() / 2], 5060));
    assert_eq!(side.drain(), ["transport error", "client ended"]);
    assert!(!about(&mut side, whole, 5060), "it is gone");
    // Somebody answers after all: then it is over, or goes on.
    side.answered(&other, 180);
    about(&mut side, other.bytes(), 5060);
    assert_eq!(side.drain(), none());
    assert_eq!(side.answered(&options, 200), ["response 200"]);
    assert!(!about(&mut side, options.bytes(), 5060));
    assert_eq!(side.answered(&other, 486), ["-> ACK", "response 486"]);
    assert!(!about(&mut side, other.bytes(), 5060));
    // A response that nobody gets ends nothing.
    side.receive(&server_invite());
    side.respond(0, &server_invite(), 486).unwrap();
    assert!(!about(&mut side, &answer(&server_invite(), 486), 5060));
    assert_eq!(side.receive(&server_invite()), ["-> 486"]);
}

#[test]
fn transport_errors_end_clients_and_servers_of_other_requests_only() {
    let mut side = Side::new(Protocol::Tcp);
    side.request(Method::Invite);
    side.request(Method::Bye);
    side.drain();
    for (_, token) in std::mem::take(&mut side.sent) {
        side.layer.transport_failed(token, side.now);
        assert_eq!(side.drain(), ["transport error", "client ended"]);
        side.layer.transport_failed(token, side.now);
        assert_eq!(side.drain(), none(), "it is gone");
    }
    side.layer.transport_failed(Token::STATELESS, side.now);
    side.assert_empty();

    let mut side = Side::new(Protocol::Udp);
    let invite = side.request(Method::Invite);
    side.answered(&invite, 486);
    let (_, ack) = side.sent.pop().unwrap();
    side.layer.transport_failed(ack, side.now);
    assert_eq!(side.drain(), ["transport error", "client ended"]);

    let invite = server_invite();
    side.receive(&invite);
    for status in [180, 486] {
        side.respond(0, &invite, status).unwrap();
        let (_, token) = side.sent.pop().unwrap();
        side.layer.transport_failed(token, side.now);
        assert_eq!(side.drain(), ["response failed"], "{status}");
    }
    let options = request("OPTIONS", "UDP there.example.com;branch=z9hG4bKabc", "call");
    side.receive(&options);
    side.respond(1, &options, 200).unwrap();
    let (_, token) = side.sent.pop().unwrap();
    side.layer.transport_failed(token, side.now);
    assert_eq!(side.drain(), ["response failed", "server ended"]);
}

#[test]
fn what_nobody_asked_for_is_handed_up() {
    let mut side = Side::new(Protocol::Udp);
    let invite = side.request(Method::Invite);
    side.drain();
    let response = Message::parse(answer(&invite, 200)).unwrap();
    let own = invite.top_via().unwrap().branch().unwrap().to_owned();
    let unused = side.layer.new_branch(None);
    for branch in ["z9hG4bKabc", "1", &own[..own.len() - 1], unused.as_str()] {
        assert_eq!(side.receive(&edited(&response, &own, branch)), ["stray 200"], "{branch}");
    }
    assert_eq!(side.receive(&edited(&response, "7 INVITE", "7 BYE")), ["stray 200"], "another method");
    assert_eq!(side.receive(&edited(&response, "7 INVITE", "7 CANCEL")), ["stray 200"], "another method");
    assert_eq!(side.receive(&response), ["response 200"]);
}

#[test]
fn a_request_that_comes_back_to_its_sender_is_a_new_one() {
    let mut side = Side::new(Protocol::Udp);
    let invite = side.request(Method::Invite);
    assert_eq!(side.receive(&invite), ["-> INVITE", "request INVITE"]);
    assert_eq!(side.respond(0, &invite, 482).unwrap(), ["-> 482"]);
    assert_eq!(side.answered(&invite, 482), ["-> ACK", "response 482"]);
    let ack = Message::parse(side.sent.last().unwrap().0.clone()).unwrap();
    assert_eq!(side.receive(&ack), none());
    assert_eq!(side.run(100 * SECOND), ["5000 server ended", "32000 client ended"]);
    side.assert_empty();
}

#[test]
fn marks_and_shards_come_back_in_the_branch() {
    let mut layer = Layer::new(Config { shard: 3, ..Config::default() }, Instant::now());
    let (one, other) = (layer.new_branch(Some(77)), layer.new_branch(None));
    let parts = Branch::read(one.as_str().as_bytes()).unwrap();
    assert_eq!((parts.shard, parts.mark), (3, Some(77)));
    assert_ne!(one.as_str()[..33], other.as_str()[..33]);
}

#[test]
fn requests_that_can_have_no_transaction_are_refused() {
    let mut side = Side::new(Protocol::Udp);
    let branch = side.layer.new_branch(None);
    let mut send = |method: &str| {
        let bytes = request(method, &format!("UDP here.example.com;branch={branch}"), "call").bytes().clone();
        side.layer.request(&branch, Method::new(method), bytes, hop(Protocol::Udp), side.now)
    };
    assert_eq!(send("ACK"), Err(RequestError::NoTransaction));
    assert!(send("FOO").is_ok());
    assert!(send("BAR").is_ok());
    assert_eq!(send("FOO"), Err(RequestError::NoTransaction), "its branch is taken");
}

#[test]
fn what_is_no_response_is_not_sent() {
    let mut side = Side::new(Protocol::Udp);
    let invite = server_invite();
    side.receive(&invite);
    for text in
        ["", "SIP/2.0 ", "SIP/2.0 20", "SIP/2.0 099 x", "SIP/2.0 700 x", "SIP/2.0 2x0 x", "INVITE sip:x SIP/2.0"]
    {
        let sent = side.layer.respond(side.servers[0], Bytes::from_static(text.as_bytes()), side.now);
        assert_eq!(sent, Err(RespondError::NoResponse), "{text}");
    }
    assert_eq!(side.receive(&invite), none());
}

#[test]
fn messages_without_a_via_are_counted_and_dropped() {
    let mut side = Side::new(Protocol::Udp);
    for message in [server_invite(), Message::parse(answer(&server_invite(), 200)).unwrap()] {
        assert_eq!(side.receive(&edited(&message, "Via: SIP/2.0/UDP", "X: ")), none());
    }
    assert_eq!(side.layer.metrics().malformed, 2);
    side.assert_empty();
}

#[test]
fn statelessly_sent_messages_leave_nothing() {
    let mut side = Side::new(Protocol::Udp);
    side.layer.send(hop(Protocol::Udp), answer(&server_invite(), 503));
    assert_eq!(side.drain(), ["-> 503"]);
    assert_eq!(side.sent[0].1, Token::STATELESS);
    side.assert_empty();
}

#[test]
fn a_transaction_is_small() {
    // A busy proxy has hundreds of thousands of them.
    let size = size_of::<super::table::Transaction>();
    assert!(size <= 272, "{size} octets");
}
