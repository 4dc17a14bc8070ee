use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const GR: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn realm() -> Realm {
    Realm {
        overlay: OverlayId::parse("p2psip.org").unwrap(),
        own: [
            (Protocol::Udp, "192.0.2.1:5060"),
            (Protocol::Tls, "192.0.2.1:5061"),
            (Protocol::Udp, "[2001:db8::1]:5060"),
        ]
        .map(|(protocol, own)| (protocol, own.parse().unwrap()))
        .to_vec(),
    }
}

fn aor(user: &str) -> Aor {
    Aor::parse(&format!("sip:{user}@p2psip.org")).unwrap()
}

/// A request with the usual headers; `more` are whole lines with `\n` between them.
fn request(start: &str, from: &str, more: &str) -> Message {
    let (method, _) = start.split_once(' ').unwrap();
    let more: String = more.lines().map(|line| format!("{line}\r\n")).collect();
    let text = format!(
        "{start} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nFrom: <{from}>;tag=1\r\nTo: <sip:x@y.example>\r\n\
         Call-ID: 1\r\nCSeq: 1 {method}\r\n{more}\r\n"
    );
    Message::parse(Bytes::from(text)).unwrap()
}

/// A decision in a few words.
fn short(decision: &Decision) -> String {
    match decision {
        Decision::Reject(Rejection { status, header: Some((Name::Warning, _)) | None, .. }) => status.to_string(),
        Decision::Reject(Rejection { status, header: Some((name, value)), .. }) => {
            format!("{status} {}: {value}", String::from_utf8_lossy(name.as_bytes()))
        }
        Decision::Answer => "200".to_owned(),
        Decision::Register => "register".to_owned(),
        Decision::Identify { claimed: None } => "who".to_owned(),
        Decision::Identify { claimed: Some(aor) } => format!("who {}", aor.user()),
        Decision::Forward(plan) => {
            let mut text = match &plan.next {
                Next::User { aor, instance: None } => format!("user {}", aor.user()),
                Next::User { aor, instance: Some(Instance::Id(_)) } => format!("device of {}", aor.user()),
                Next::User { aor, instance: Some(Instance::Unknown) } => format!("no device of {}", aor.user()),
                Next::Proxy => "out".to_owned(),
                Next::RequestUri(uri) => format!("to {uri}"),
                Next::Route { uri, strict: false } => format!("route {uri}"),
                Next::Route { uri, strict: true } => format!("strict {uri}"),
            };
            for (holds, word) in [(plan.secure, " secure"), (plan.strip_last, " recovered")] {
                text += if holds { word } else { "" };
            }
            if plan.strip > 0 {
                text += &format!(" -{}", plan.strip);
            }
            if let Some(uri) = &plan.request_uri {
                text += &format!(" as {uri}");
            }
            text
        }
    }
}

#[test]
fn each_request_goes_where_the_draft_and_the_rfcs_say() {
    let alice = [aor("alice")];
    let member = Origin::Peer(&alice);
    let (out, stream, stranger) = (Origin::Public, Origin::Stream, Origin::Peer(&[]));
    let public = "sip:carol@example.com";
    let own = "sip:alice@p2psip.org";
    #[rustfmt::skip]
    let table: &[(Origin<'_>, &str, &str, &str, &str)] = &[
        // From outside, for users of the overlay.
        (out, "INVITE sip:bob@p2psip.org", public, "", "user bob"),
        (out, "INVITE sips:bob@P2PSIP.org.:5070;x=1", public, "", "user bob secure"),
        (out, "INVITE sip:b%6Fb:pw@p2psip.org", public, "", "user bob"),
        (out, "BYE sip:bob@p2psip.org;gr=", public, "", "400"),
        (out, "BYE sip:bob@p2psip.org;gr", public, "", "no device of bob"),
        (out, "BYE sip:bob@p2psip.org;gr=1", public, "", "no device of bob"),
        (out, "INVITE sip:bob@192.0.2.1", public, "", "user bob as sip:bob@p2psip.org"),
        (out, "INVITE sip:bob@[2001:db8::1]:5060", public, "", "user bob as sip:bob@p2psip.org"),
        (out, "INVITE sip:bob@192.0.2.1:5062", public, "", "403"),
        (out, "INVITE sip:a%00b@p2psip.org", public, "", "user a%00b"),
        (out, "INVITE sip:a#b@p2psip.org", public, "", "404"),
        // A From of the overlay proves nothing, and is no reason to refuse: calls come back by way of other domains.
        (out, "INVITE sip:bob@p2psip.org", own, "", "user bob"),
        // Routes with the overlay's name are ours, all at once, and so are our addresses.
        (out, "BYE sip:bob@p2psip.org", public, "Route: <sip:p2psip.org;lr>", "user bob -1"),
        (out, "BYE sip:bob@p2psip.org", public, "Route: <sip:P2PSIP.org.;lr>, <sip:p2psip.org:5061;lr>\nRoute: <sips:192.0.2.1;lr>", "user bob -3"),
        (out, "BYE sip:bob@p2psip.org", public, "Route: <sip:192.0.2.2;lr>", "403"),
        (out, "BYE sip:bob@p2psip.org", public, "Route: <sip:p2psip.org;lr>, <sip:example.com;lr>", "403"),
        (out, "BYE sip:bob@p2psip.org", public, "Route: nonsense", "400"),
        // Never an open relay.
        (out, "INVITE sip:carol@example.com", public, "", "403"),
        (out, "INVITE sip:carol@example.com", own, "", "403"),
        (out, "INVITE sip:carol@example.com", own, "Route: <sip:p2psip.org;lr>", "403"),
        (out, "INVITE sip:bob@p2psip.org;maddr=192.0.2.77", public, "", "403"),
        (out, "INVITE sip:carol@example.com;maddr=192.0.2.1", public, "", "403"),
        (out, "REGISTER sip:example.com", public, "", "403"),
        (stranger, "INVITE sip:carol@example.com", public, "", "403"),
        (stranger, "INVITE sip:bob@p2psip.org", own, "", "403"),
        // Streams: who is it?
        (stream, "INVITE sip:carol@example.com", own, "", "who alice"),
        (stream, "INVITE sip:bob@p2psip.org", own, "", "who alice"),
        (stream, "INVITE sip:bob@p2psip.org", public, "", "user bob"),
        (stream, "BYE sip:carol@example.com", public, "", "who"),
        (stream, "INVITE sip:carol@example.com", public, "Contact: <sip:bob@p2psip.org;gr=1>", "who bob"),
        (stream, "BYE sip:carol@example.com", public, "P-Preferred-Identity: \"B\" <sip:bob@p2psip.org>", "who bob"),
        (stream, "BYE sip:carol@example.com", own, "P-Preferred-Identity: sip:bob@p2psip.org", "who alice"),
        (stream, "INVITE sip:carol@example.com", "sip:p2psip.org", "", "who"),
        // Members.
        (member, "INVITE sip:carol@example.com", own, "", "to sip:carol@example.com"),
        (member, "INVITE sips:carol@example.com", own, "", "to sips:carol@example.com secure"),
        (member, "INVITE sip:carol@example.com;maddr=192.0.2.1;transport=tcp;x", own, "", "to sip:carol@example.com;x as sip:carol@example.com;x"),
        (member, "INVITE sip:bob@p2psip.org;maddr=192.0.2.77", own, "", "to sip:bob@p2psip.org;maddr=192.0.2.77"),
        (member, "INVITE sip:bob@p2psip.org:9;maddr=p2psip.org;gr=1", own, "", "no device of bob as sip:bob@p2psip.org;gr=1"),
        (member, "INVITE sip:carol@example.com", "sip:bob@p2psip.org", "", "403"),
        (member, "INVITE sip:bob@p2psip.org", "sip:bob@p2psip.org", "", "403"),
        (member, "INVITE sip:carol@example.com", "sip:a#b@p2psip.org", "", "403"),
        (member, "BYE sip:carol@example.com", public, "", "to sip:carol@example.com"),
        (member, "REGISTER sip:example.com", "sip:alice@example.com", "Contact: <sip:alice@p2psip.org>", "to sip:example.com"),
        (member, "BYE sip:carol@192.0.2.5", own, "Route: <sip:p2psip.org;lr>, <sip:example.com;lr>", "route sip:example.com;lr -1"),
        (member, "BYE sip:carol@192.0.2.5", own, "Route: <sip:p2psip.org;lr>, <sips:example.com;lr>", "route sips:example.com;lr secure -1"),
        (member, "BYE sip:carol@192.0.2.5", own, "Route: <sip:example.com>", "strict sip:example.com"),
        (member, "BYE tel:+123", own, "Route: <sip:example.com;lr>", "route sip:example.com;lr"),
        // What a strict router made of our Record-Route (RFC 3261 §16.4).
        (out, "BYE sip:p2psip.org;lr", public, "Route: <sip:bob@p2psip.org>", "user bob recovered as sip:bob@p2psip.org"),
        (member, "BYE sip:p2psip.org;lr", own, "Route: <sip:p2psip.org;lr>,<sip:example.com;lr>\nRoute: <sip:c@d.example>", "route sip:example.com;lr recovered -1 as sip:c@d.example"),
        (out, "OPTIONS sip:p2psip.org;lr", public, "", "200"),
        // For the overlay itself.
        (out, "OPTIONS sip:p2psip.org", public, "", "200"),
        (out, "OPTIONS sip:192.0.2.1", public, "Route: <sip:p2psip.org;lr>", "200 "),
        (member, "OPTIONS sip:p2psip.org", own, "", "200"),
        (out, "INVITE sip:p2psip.org", public, "", "405 Allow: OPTIONS"),
        (out, "REGISTER sip:p2psip.org", own, "Contact: <sip:a@b.example>", "405 Allow: OPTIONS"),
        (stream, "REGISTER sip:p2psip.org", own, "", "405 Allow: OPTIONS"),
        (out, "REGISTER sip:alice@p2psip.org", own, "", "405 Allow: OPTIONS"),
        // RFC 3261 §16.3 and RFC 5393.
        (out, "INVITE sip:bob@p2psip.org", public, "Max-Forwards: 0", "483"),
        (out, "OPTIONS sip:bob@p2psip.org", public, "Max-Forwards: 0", "200"),
        (out, "OPTIONS sip:bob@p2psip.org", public, "Max-Forwards: 1", "user bob"),
        (out, "INVITE sip:bob@p2psip.org", public, "Max-Forwards: 256", "400"),
        (out, "INVITE sip:bob@p2psip.org", public, "Max-Forwards: x", "400"),
        (out, "INVITE sip:bob@p2psip.org", public, "Max-Breadth: 0", "440"),
        (out, "INVITE sip:bob@p2psip.org", public, "Proxy-Require: foo, privacy\nProxy-Require: bar", "420 Unsupported: foo, privacy, bar"),
        (out, "ACK sip:bob@p2psip.org", public, "Proxy-Require: foo", "user bob"),
        (out, "INVITE tel:+123", public, "", "416"),
        (out, "INVITE urn:service:sos", public, "Route: <sip:p2psip.org;lr>", "416"),
        (out, "INVITE sip:bob@p2psip.org", public, "Route: <tel:+1>", "416"),
        (out, "INVITE bob", public, "", "400"),
        (out, "INVITE sip:@p2psip.org", public, "", "400"),
    ];
    for (origin, start, from, more, expected) in table {
        let decision = decide(&request(start, from, more), *origin, &realm());
        assert_eq!(short(&decision), expected.trim(), "{origin:?} {start} from {from} {more:?}: {decision:?}");
    }
}

#[test]
fn a_device_is_named_by_its_gr() {
    let decide = |uri: &str| match decide(&request(uri, "sip:c@d.example", ""), Origin::Public, &realm()) {
        Decision::Forward(Plan { next: Next::User { instance, .. }, .. }) => instance,
        other => panic!("{other:?}"),
    };
    let expected = Some(Instance::Id(GR.parse().unwrap()));
    assert_eq!(decide(&format!("BYE sip:bob@p2psip.org;gr={GR}")), expected);
    assert_eq!(decide(&format!("BYE sip:bob@192.0.2.1;GR={}", GR.to_uppercase())), expected);
    assert_eq!(decide("BYE sip:bob@p2psip.org"), None);
}

#[test]
fn a_refusal_says_what_is_wrong() {
    let Decision::Reject(rejection) = decide(&request("INVITE bob", "sip:c@d.example", ""), Origin::Public, &realm())
    else {
        panic!("not refused");
    };
    let (name, value) = rejection.header.unwrap();
    assert_eq!(name, Name::Warning);
    assert_eq!(value, "399 p2psip \"bad URI: it has no scheme\"");
    assert_eq!(warning("a\"b\\c\r\nd"), "399 p2psip \"abcd\"");
}

proptest! {
    #[test]
    fn whoever_comes_from_outside_reaches_nobody_but_users_of_the_overlay(
        uri in "sips?:([a-z]{1,3}@)?(p2psip\\.org|192\\.0\\.2\\.[12]|a\\.example)(:506[01])?(;lr|;maddr=(p2psip\\.org|192\\.0\\.2\\.[15]))?",
        routes in proptest::collection::vec("<sips?:(p2psip\\.org|192\\.0\\.2\\.[12]|a\\.example)(:506[01])?(;lr)?>", 0..4),
        from in "sip:(alice@p2psip\\.org|carol@a\\.example)",
        method in "INVITE|BYE|OPTIONS|REGISTER|ACK",
    ) {
        let routes: String = routes.iter().map(|route| format!("Route: {route}\n")).collect();
        let request = request(&format!("{method} {uri}"), &from, &routes);
        for origin in [Origin::Public, Origin::Stream, Origin::Peer(&[])] {
            match decide(&request, origin, &realm()) {
                Decision::Forward(plan) => prop_assert!(matches!(plan.next, Next::User { .. }), "{:?}", plan),
                Decision::Identify { .. } => prop_assert_eq!(origin, Origin::Stream),
                Decision::Reject(_) | Decision::Answer => {}
                Decision::Register => prop_assert!(false, "this is no domain"),
            }
        }
    }
}

#[test]
fn the_server_of_a_domain_takes_what_is_for_its_users_and_what_it_has_recorded() {
    let realm = Realm { overlay: OverlayId::parse("example.com").unwrap(), ..realm() };
    let on_its_way = "Route: <sip:example.com;lr>, <sip:p2psip.org;lr>\nTo: <sip:x@y.example>;tag=2";
    for (start, more, expected) in [
        ("REGISTER sip:example.com", "", "register"),
        ("REGISTER sip:example.com", "Route: <sip:example.com;lr>", "register"),
        ("REGISTER sip:example.org", "", "403"),
        ("OPTIONS sip:example.com", "", "200"),
        ("INVITE sip:bob@example.com", "", "user bob"),
        ("INVITE sip:alice@p2psip.org", "", "403"),
        ("INVITE sip:alice@p2psip.org", "Route: <sip:example.com;lr>", "403"),
        ("BYE sip:alice@p2psip.org", on_its_way, "route sip:p2psip.org;lr -1"),
        (
            "BYE sip:bob@203.0.113.5",
            "Route: <sip:example.com;lr>\nTo: <sip:x@y.example>;tag=2",
            "to sip:bob@203.0.113.5 -1",
        ),
        ("BYE sip:bob@203.0.113.5", "To: <sip:x@y.example>;tag=2", "403"),
    ] {
        let text = request(start, "sip:carol@z.example", "").bytes().to_vec();
        let mut text = String::from_utf8(text).unwrap();
        if more.contains("To:") {
            text = text.replace("To: <sip:x@y.example>\r\n", "");
        }
        let more: String = more.lines().map(|line| format!("{line}\r\n")).collect();
        let text = text.replace("Call-ID: 1\r\n", &format!("Call-ID: 1\r\n{more}"));
        let message = Message::parse(Bytes::from(text)).unwrap();
        assert_eq!(short(&decide(&message, Origin::Domain, &realm)), expected, "{start} {more}");
    }
}
