//! One message for each case that RFC 4475 and RFC 5118 describe, and what the message layer says to it.
//!
//! The messages in `tests/data/torture` are our own. Where the RFC's lie beside the package, in `../shared/torture/rfc4475`
//! or the folder that `P2PSIP_TORTURE` names, the same table is held against them.

use std::path::PathBuf;

use bytes::Bytes;
use p2psip::sip::{
    Message, ParseError,
    edit::Edit,
    header::{Contact, Name, unfold},
    uri::unescape,
};

use crate::support::root;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// In order: passed on, and taken at its end.
    Good,
    /// Passed on, because proxies do not read what is wrong with it; refused with 400 at its end.
    RefusedAtEnd,
    /// A request that is answered with this status.
    Refused(u16),
    /// A response that is dropped.
    Dropped,
    /// Its body cannot be delimited; a request's head can be read, so that it is answered with 400.
    BodyUnknown,
    /// Not a message at all.
    Unreadable,
}
use Verdict::{BodyUnknown, Dropped, Good, Refused, RefusedAtEnd, Unreadable};

struct Case {
    /// The RFC's number, and the section in it.
    section: (u16, &'static str),
    /// The file in `tests/data/torture`, without its ending.
    name: &'static str,
    /// The RFC's own name for the message.
    rfc_name: &'static str,
    verdict: Verdict,
    /// What must have been read of our message.
    seen: fn(&Message),
}

const fn case(
    section: (u16, &'static str),
    name: &'static str,
    rfc_name: &'static str,
    verdict: Verdict,
    seen: fn(&Message),
) -> Case {
    Case { section, name, rfc_name, verdict, seen }
}

/// For a case of which the verdict says all.
const fn nothing_more(_: &Message) {}

const CASES: &[Case] = &[
    case((4475, "3.1.1.1"), "white-space-everywhere", "wsinv", Good, |message| {
        assert_eq!(message.cseq().unwrap().number, 17);
        assert_eq!(message.max_forwards(), Ok(Some(42)));
        assert_eq!(message.from().unwrap().display_name(), br#"Ida \"Quince""#.as_slice());
        assert_eq!(message.from().unwrap().tag(), Some("5pears"));
        let branches = message.vias().map(|via| via.unwrap().branch()).collect::<Vec<_>>();
        assert_eq!(branches, [Some("390pip"), Some("z9hG4bKcrate"), Some("z9hG4bKcrate2")]);
        assert_eq!(message.header(Name::Subject), Some(b"".as_slice()));
        let folded = message.header(Name::Other(b"a-header-of-tomorrow")).unwrap();
        assert_eq!(unfold(folded), b"begins here and goes on there and ends".as_slice());
        let Some(Ok(Contact::Address(contact))) = message.contacts().next() else { panic!() };
        assert_eq!((contact.q(), contact.display_name()), (125, br#""Ida", at home"#.as_slice().into()));
    }),
    case((4475, "3.1.1.2"), "every-token-character", "intmeth", Good, |message| {
        assert_eq!(message.method().as_str(), "x!Y-z.0%1*2_3+4`5'6~");
        let uri = message.uri().unwrap();
        assert_eq!(uri.sip().unwrap().user, Some("0-_.!~*'()&=+$,;?/%41"));
        assert_eq!(uri.sip().unwrap().password, Some("&=+$,pass"));
        assert_eq!(message.to().unwrap().display_name(), b"tab \t nul \0 del \x7f".as_slice());
        assert_eq!(message.from().unwrap().tag(), Some("-.!%*_+`'~"));
    }),
    case((4475, "3.1.1.3"), "escapes-decode-once", "esc01", Good, |message| {
        let uri = message.uri().unwrap();
        assert_eq!(unescape(uri.sip().unwrap().user.unwrap()), b"sip:tobias@p2psip.org".as_slice());
        let Some(Ok(Contact::Address(contact))) = message.contacts().next() else { panic!() };
        let params = contact.uri.sip().unwrap().params.iter().collect::<Vec<_>>();
        assert_eq!(params, [("%6cr", None), ("p%61r", Some("v%2541"))]);
        assert_eq!(unescape("v%2541"), b"v%41".as_slice());
    }),
    case((4475, "3.1.1.4"), "escaped-nul-in-user", "escnull", Good, |message| {
        let to = message.to().unwrap();
        assert_eq!(unescape(to.uri.sip().unwrap().user.unwrap()), b"pit\0stone".as_slice());
        assert_eq!(message.contacts().count(), 2);
    }),
    case((4475, "3.1.1.5"), "percent-is-no-escape-here", "esc02", Good, |message| {
        assert_eq!(message.method().as_str(), "O%50TIONS");
        assert_eq!(message.contacts().count(), 2);
        assert_eq!(message.to().unwrap().display_name(), b"%q%41".as_slice());
    }),
    case((4475, "3.1.1.6"), "no-space-before-bracket", "lwsdisp", Good, |message| {
        assert_eq!(message.from().unwrap().display_name(), b"Ida".as_slice());
    }),
    case((4475, "3.1.1.7"), "everything-long", "longreq", Good, |message| {
        assert_eq!((message.vias().count(), message.routes().count()), (32, 20));
        assert_eq!(message.from().unwrap().tag().map(str::len), Some(240));
    }),
    case((4475, "3.1.1.8"), "more-after-the-message", "dblreq", Good, |message| {
        assert!(message.body().is_empty() && message.bytes().ends_with(b"Content-Length: 0\r\n\r\n"));
    }),
    case((4475, "3.1.1.9"), "semicolons-in-user", "semiuri", Good, |message| {
        let uri = message.uri().unwrap();
        assert_eq!(uri.sip().unwrap().user, Some("ida;fruit=pear%40tree;lr"));
        assert!(!uri.sip().unwrap().is_loose_router());
        assert_eq!(message.tokens(Name::Accept).count(), 3);
    }),
    case((4475, "3.1.1.10"), "any-transport", "transports", Good, |message| {
        let transports = message.vias().map(|via| via.unwrap().transport).collect::<Vec<_>>();
        assert_eq!(transports, ["OVERLAY", "UDP", "TLS-SCTP", "PIGEON", "WSS"]);
    }),
    case((4475, "3.1.1.11"), "binary-multipart-body", "mpart01", Good, |message| {
        let media = message.content_type().unwrap().unwrap();
        assert!(media.is("multipart", "mixed") && message.body().ends_with(b"\r\n--crate--\r\n"));
        assert!(message.body().contains(&0) && message.body().contains(&0xff));
    }),
    case((4475, "3.1.1.12"), "reason-beyond-ascii", "unreason", Good, |message| {
        assert!(message.reason().ends_with("schön reif — 梨".as_bytes()));
    }),
    case((4475, "3.1.1.13"), "reason-empty", "noreason", Good, |message| {
        assert_eq!((message.status(), message.reason()), (Some(100), b"".as_slice()));
    }),
    case((4475, "3.1.2.1"), "stray-separators", "badinv01", Refused(400), nothing_more),
    case((4475, "3.1.2.2"), "length-too-large", "clerr", BodyUnknown, nothing_more),
    case((4475, "3.1.2.3"), "length-negative", "ncl", BodyUnknown, nothing_more),
    case((4475, "3.1.2.4"), "numbers-too-large-in-request", "scalar02", Refused(400), |message| {
        assert!(message.max_forwards().is_err() && message.cseq().is_err());
        assert_eq!(message.expires(), Ok(Some(u32::MAX)));
    }),
    case((4475, "3.1.2.5"), "numbers-too-large-in-response", "scalarlg", Dropped, |message| {
        assert_eq!(message.retry_after().unwrap().unwrap().seconds, u32::MAX);
    }),
    case((4475, "3.1.2.6"), "quote-not-closed", "quotbal", Refused(400), nothing_more),
    case((4475, "3.1.2.7"), "brackets-around-request-uri", "ltgtruri", Refused(400), nothing_more),
    case((4475, "3.1.2.8"), "space-in-request-uri", "lwsruri", Refused(400), nothing_more),
    case((4475, "3.1.2.9"), "spaces-between-parts", "lwsstart", Refused(400), nothing_more),
    case((4475, "3.1.2.10"), "spaces-after-version", "trws", Refused(400), nothing_more),
    case((4475, "3.1.2.11"), "headers-in-request-uri", "escruri", Refused(400), nothing_more),
    // Malformed, but nobody who does not use the Date should mind (§3.1.2.12).
    case((4475, "3.1.2.12"), "date-not-gmt", "baddate", Good, nothing_more),
    case((4475, "3.1.2.13"), "contact-needs-brackets", "regbadct", RefusedAtEnd, nothing_more),
    case((4475, "3.1.2.14"), "spaces-within-brackets", "badaspec", Refused(400), nothing_more),
    case((4475, "3.1.2.15"), "display-name-needs-quotes", "baddn", Refused(400), nothing_more),
    case((4475, "3.1.2.16"), "version-unknown", "badvers", Refused(505), nothing_more),
    case((4475, "3.1.2.17"), "cseq-of-another-method", "mismatch01", Refused(400), nothing_more),
    case((4475, "3.1.2.18"), "cseq-of-another-unknown-method", "mismatch02", Refused(400), nothing_more),
    case((4475, "3.1.2.19"), "status-of-four-digits", "bigcode", Unreadable, nothing_more),
    case((4475, "3.2.1"), "branch-of-the-cookie-alone", "badbranch", Good, |message| {
        let via = message.top_via().unwrap();
        assert_eq!((via.branch(), via.unique_branch()), (Some("z9hG4bK"), None));
    }),
    case((4475, "3.3.1"), "mandatory-headers-missing", "insuf", Refused(400), |message| {
        assert_eq!(message.call_id(), Err(ParseError::Missing("Call-ID")));
    }),
    case((4475, "3.3.2"), "scheme-unknown", "unkscm", Refused(416), nothing_more),
    case((4475, "3.3.3"), "scheme-known-elsewhere", "novelsc", Refused(416), nothing_more),
    // What a registrar says to an AOR that is none of its own is not for the message layer, here and below.
    case((4475, "3.3.4"), "schemes-unknown-in-headers", "unksm2", Good, |message| {
        assert_eq!(message.to().unwrap().uri.as_str(), "doi:10.1000/182");
        assert_eq!(message.from().unwrap().uri.scheme(), "gopher");
    }),
    case((4475, "3.3.5"), "extensions-required", "bext01", Good, |message| {
        assert!(message.has_token(Name::Require, "Unicycling") && message.has_token(Name::ProxyRequire, "trapeze"));
        assert_eq!(message.tokens(Name::ProxyRequire).count(), 2);
    }),
    case((4475, "3.3.6"), "body-of-unknown-type", "invut", Good, |message| {
        assert!(message.content_type().unwrap().unwrap().is("application", "vnd.pear"));
    }),
    case((4475, "3.3.7"), "credentials-of-unknown-scheme", "regaut01", Good, |message| {
        let (name, credentials) = message.credentials().next().unwrap();
        assert_eq!((name, credentials.unwrap().scheme), (Name::Authorization, "Handshake"));
        assert_eq!(credentials.unwrap().text("firmness").as_deref(), Some("very, \"very\""));
    }),
    case((4475, "3.3.8"), "single-headers-twice", "multi01", Refused(400), nothing_more),
    case((4475, "3.3.9"), "lengths-that-differ", "mcl01", BodyUnknown, nothing_more),
    // Whoever is not its topmost Via drops it, and nobody sends to the second.
    case((4475, "3.3.10"), "response-via-broadcast", "bcast", Good, |message| {
        let second = message.vias().nth(1).unwrap().unwrap();
        assert_eq!(second.host.ip(), Some(std::net::Ipv4Addr::BROADCAST.into()));
    }),
    case((4475, "3.3.11"), "no-more-hops", "zeromf", Good, |message| {
        assert_eq!(message.max_forwards(), Ok(Some(0)));
    }),
    case((4475, "3.3.12"), "contact-parameter-outside", "cparam01", Good, |message| {
        let Some(Ok(Contact::Address(contact))) = message.contacts().next() else { panic!() };
        assert!(contact.params.has("colour") && !contact.uri.sip().unwrap().params.has("colour"));
    }),
    case((4475, "3.3.13"), "contact-parameter-inside", "cparam02", Good, |message| {
        let Some(Ok(Contact::Address(contact))) = message.contacts().next() else { panic!() };
        assert!(!contact.params.has("colour") && contact.uri.sip().unwrap().params.has("colour"));
    }),
    case((4475, "3.3.14"), "contact-with-escaped-route", "regescrt", Good, |message| {
        let Some(Ok(Contact::Address(contact))) = message.contacts().next() else { panic!() };
        assert_eq!(contact.uri.sip().unwrap().headers, Some("Route=%3Csip:basket.example.org%3E"));
    }),
    case((4475, "3.3.15"), "only-unknown-bodies-accepted", "sdp01", Good, nothing_more),
    case((4475, "3.4.1"), "as-rfc-2543-wrote-it", "inv2543", Good, |message| {
        assert_eq!((message.from().unwrap().tag(), message.max_forwards()), (None, Ok(None)));
        assert!(message.body().starts_with(b"v=0\r\n"), "without Content-Length all of a datagram is body");
    }),
    case((5118, "4.1"), "ipv6-reference", "", Good, |message| {
        assert_eq!(host(message), "[2001:db8:77::10]");
        let via = message.top_via().unwrap();
        assert_eq!((via.host.to_string().as_str(), via.port), ("[2001:db8:77::9]", Some(6050)));
    }),
    case((5118, "4.2"), "ipv6-without-brackets", "", Refused(400), nothing_more),
    case((5118, "4.3"), "ipv6-port-within-brackets", "", Good, |message| {
        assert_eq!((host(message).as_str(), port(message)), ("[2001:db8:77::10:5070]", None));
    }),
    case((5118, "4.4"), "ipv6-port-after-brackets", "", Good, |message| {
        assert_eq!((host(message).as_str(), port(message)), ("[2001:db8:77::10]", Some(5070)));
    }),
    case((5118, "4.5"), "ipv6-received-in-brackets", "", Good, |message| {
        assert_eq!(message.top_via().unwrap().received(), Some("2001:db8:77::9:255".parse().unwrap()));
    }),
    case((5118, "4.5"), "ipv6-received-bare", "", Good, |message| {
        assert_eq!(message.top_via().unwrap().received(), Some("2001:db8:77::9:255".parse().unwrap()));
    }),
    case((5118, "4.6"), "ipv6-in-the-body", "", Good, |message| {
        assert!(message.body().windows(4).any(|octets| octets == b" IP6"));
    }),
    case((5118, "4.7"), "ipv4-and-ipv6-in-headers", "", Good, |message| {
        let families = message.vias().map(|via| via.unwrap().host.ip().unwrap().is_ipv6()).collect::<Vec<_>>();
        assert_eq!(families, [true, false, true]);
    }),
    case((5118, "4.8"), "ipv4-and-ipv6-in-the-body", "", Good, nothing_more),
    case((5118, "4.9"), "ipv4-mapped", "", Good, |message| {
        assert_eq!(message.top_via().unwrap().host.ip(), Some("192.0.2.10".parse().unwrap()));
    }),
    case((5118, "4.10"), "ipv6-of-three-colons", "", Good, |message| {
        assert_eq!(host(message), "[2001:db8:77::c000:201]");
    }),
    case((5118, "4.10"), "ipv6-of-two-colons", "", Good, |message| {
        assert_eq!(host(message), "[2001:db8:77::c000:201]");
    }),
];

#[test]
fn each_torture_message_gets_its_verdict() {
    let mut wrong = Vec::new();
    for case in CASES {
        let octets = Bytes::from(std::fs::read(file(case)).unwrap());
        let verdict = judge(octets.clone());
        if verdict != case.verdict {
            let (rfc, section) = case.section;
            wrong.push(format!("RFC {rfc} §{section} {}: {verdict:?}, not {:?}", case.name, case.verdict));
        } else if let Ok(message) = Message::parse(octets) {
            (case.seen)(&message);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_torture_message_is_in_the_table() {
    let mut listed = CASES.iter().map(|case| format!("{}.sip", case.name)).collect::<Vec<_>>();
    let mut files = std::fs::read_dir(root().join("tests/data/torture"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sip"))
        .collect::<Vec<_>>();
    listed.sort();
    files.sort();
    assert_eq!(listed, files);
}

#[test]
fn torture_messages_are_passed_on_unchanged_but_for_the_edited_lines() {
    let mut passed_on = 0;
    for case in CASES.iter().filter(|case| matches!(case.verdict, Good | RefusedAtEnd)) {
        let octets = Bytes::from(std::fs::read(file(case)).unwrap());
        pass_on(case.name, &octets);
        passed_on += 1;
    }
    assert_eq!(passed_on, 38);
}

#[test]
fn the_rfcs_own_messages_get_the_same_verdicts() {
    let folder =
        std::env::var_os("P2PSIP_TORTURE").map_or_else(|| root().join("../shared/torture/rfc4475"), PathBuf::from);
    if !folder.is_dir() {
        return;
    }
    let mut wrong = Vec::new();
    for case in CASES.iter().filter(|case| case.section.0 == 4475) {
        let octets = Bytes::from(std::fs::read(folder.join(format!("{}.dat", case.rfc_name))).unwrap());
        // As it was published, this one also lacks the empty line that ends the headers.
        let expected =
            if case.rfc_name == "baddn" && !octets.ends_with(b"\r\n\r\n") { Unreadable } else { case.verdict };
        let verdict = judge(octets.clone());
        if verdict != expected {
            wrong.push(format!("{}: {verdict:?}, not {expected:?}", case.rfc_name));
        }
        if matches!(verdict, Good | RefusedAtEnd) {
            pass_on(case.rfc_name, &octets);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the message layer says to a datagram.
fn judge(octets: Bytes) -> Verdict {
    let message = match Message::parse(octets.clone()) {
        Ok(message) => message,
        Err(ParseError::ContentLength(_)) if Message::parse_head(octets).is_ok_and(|head| head.is_request()) => {
            return BodyUnknown;
        }
        Err(_) => return Unreadable,
    };
    match (message.check(), message.check_at_end()) {
        (Ok(()), Ok(())) => Good,
        (Ok(()), Err(fault)) if fault.status == 400 => RefusedAtEnd,
        (Err(fault), _) if message.is_request() => Refused(fault.status),
        _ => Dropped,
    }
}

/// Without edits a message is what it was; with those of a proxy, all other octets are.
fn pass_on(name: &str, octets: &Bytes) {
    const VIA: &[u8] = b"Via: SIP/2.0/UDP proxy.p2psip.org;branch=z9hG4bKtorture\r\n";
    let message = Message::parse(octets.clone()).unwrap();
    assert_eq!(Edit::new(&message).finish(), message.bytes(), "{name}");
    assert!(octets.starts_with(message.bytes()), "{name}");

    let mut edit = Edit::new(&message);
    edit.prepend(Name::Via, &VIA[5..VIA.len() - 2]);
    let forwarded = edit.finish();
    let at = memchr::memmem::find(&forwarded, VIA).unwrap();
    assert_eq!([&forwarded[..at], &forwarded[at + VIA.len()..]].concat(), *message.bytes(), "{name}");

    let back = Message::parse(forwarded).unwrap();
    let mut edit = Edit::new(&back);
    edit.remove_first_value(Name::Via).set(Name::MaxForwards, "11");
    let edited = Message::parse(edit.finish()).unwrap();
    let rest = |message: &Message| {
        let lines = message.headers().filter(|header| header.name != Name::MaxForwards);
        lines.flat_map(|header| [header.written.to_vec(), header.value.to_vec()]).collect::<Vec<_>>()
    };
    assert_eq!((rest(&edited), edited.body()), (rest(&message), message.body()), "{name}");
    assert_eq!(edited.start(), message.start(), "{name}");
}

fn file(case: &Case) -> PathBuf {
    root().join("tests/data/torture").join(format!("{}.sip", case.name))
}

fn host(message: &Message) -> String {
    message.uri().unwrap().sip().unwrap().host.to_string()
}

fn port(message: &Message) -> Option<u16> {
    message.uri().unwrap().sip().unwrap().port
}
