//! The shape of what `--json` prints: programs depend on each key and its type.
//!
//! A shape file under `tests/data/schema/` is the JSON with types in place of values; `a | null` is a type, too.

use p2psip::{
    client::{
        Event, HeldRecord, ProxyStatus, Reach, ReachView, StatusReply,
        gatekeeper::{Decision, GateVerdict},
    },
    clock::UnixMs,
    name::{InstanceId, OverlayId, PeerId, ResourceName, Service},
    ops::outcome::{
        AnswerStatus, BucketView, ContactView, DifferenceStatus, DifferenceView, DiscoverOutcome, DiscoverStatus,
        EventOutcome, HeldOutcome, HeldRecordView, HeldView, JoinOutcome, LocateOutcome, LocateStatus, LookupOutcome,
        LookupStatus, OfferView, PeerView, PeersOutcome, PingOutcome, ProbeStatus, ProbeView, ProviderView, PublicView,
        RecordView, RegisterOutcome, RegisterStatus, RejectedView, RequestStatus, ServiceView, StatusOutcome, StepKind,
        StepView, TableOutcome, TargetView, TraceView, Via,
    },
    ops::publish::{
        ActionView, ChangeOutcome, ListOutcome, PendingOutcome, SyncOutcome,
        drift::{Drift, LeaseState, ProxyView, RuleView},
    },
    ops::{
        answer::ListeningOutcome,
        call::{CallOutcome, CallStatus},
        flow::{FlowView, HopView, MessageView, PartyView},
        public::{PublicOutcome, PublicStatus, Step, StepOutcome},
    },
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::support::assert_snapshot;

/// Compares the shape that all samples have together with the file.
pub fn assert_shape<T: Serialize>(name: &str, samples: &[T]) {
    let shapes = samples.iter().map(|sample| shape(&serde_json::to_value(sample).unwrap()));
    let merged = shapes.reduce(merge).unwrap();
    assert!(!merged.to_string().contains("\"unknown\""), "{name}: a sample for an empty list is missing: {merged}");
    assert!(merged.get("status").is_some(), "{name} has no status");
    assert_snapshot(&format!("data/schema/{name}.json"), &format!("{merged:#}\n"));
}

/// A value with types in place of values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        // What a program would read into an integer, and what it would not.
        Value::Number(number) => if number.is_f64() { "number" } else { "integer" }.into(),
        Value::String(_) => "string".into(),
        Value::Array(items) => {
            Value::Array(vec![items.iter().map(shape).reduce(merge).unwrap_or_else(|| "unknown".into())])
        }
        Value::Object(fields) => Value::Object(fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect()),
    }
}

/// The shape of what has either shape.
fn merge(a: Value, b: Value) -> Value {
    match (a, b) {
        (a, b) if a == b => a,
        (a, Value::String(unknown)) if unknown == "unknown" => a,
        (Value::String(unknown), b) if unknown == "unknown" => b,
        (Value::Object(a), Value::Object(mut b)) => {
            let mut fields = Map::new();
            for (key, value) in a {
                let other = b.remove(&key).unwrap_or_else(|| panic!("only one sample has the key {key}"));
                fields.insert(key, merge(value, other));
            }
            assert!(b.is_empty(), "only one sample has the keys of {b:?}");
            Value::Object(fields)
        }
        (Value::Array(a), Value::Array(b)) => Value::Array(a.into_iter().chain(b).reduce(merge).into_iter().collect()),
        (a @ Value::Object(_), Value::String(null)) | (Value::String(null), a @ Value::Object(_)) if null == "null" => {
            // JSON has no notation for it, so the key says it.
            let mut either = Map::new();
            either.insert("| null".to_owned(), a);
            Value::Object(either)
        }
        (Value::String(a), Value::String(b)) => {
            let mut names = a.split(" | ").chain(b.split(" | ")).collect::<Vec<_>>();
            names.sort_by_key(|name| (*name == "null", *name));
            names.dedup();
            names.join(" | ").into()
        }
        (a, b) => panic!("{a} and {b} have no common shape"),
    }
}

fn peer(n: u8) -> PeerId {
    PeerId::from_public_key([n; 32])
}

fn contact(peer: Option<PeerId>) -> ContactView {
    let addresses = vec!["/ip4/192.0.2.7/udp/4001/quic-v1".to_owned()];
    ContactView { uri: "sip:alice@p2psip.org;gr=abc".to_owned(), peer, addresses, q: 1.0 }
}

fn record(certificate: Option<&str>, offer: Option<OfferView>) -> RecordView {
    RecordView {
        instance: InstanceId::of_key(&[1; 32]),
        sequence: 1_767_225_600_000,
        key: p2psip::identity::PublicKey::from_octets([1; 32]),
        expires_at_ms: UnixMs(1_767_229_200_000),
        expires_in_ms: 3_600_000,
        certificate: certificate.map(str::to_owned),
        contacts: vec![contact(Some(peer(1))), contact(None)],
        offer,
    }
}

fn rejected() -> RejectedView {
    RejectedView {
        peer: peer(3),
        code: "revoked".to_owned(),
        reason: "certificate 4f2a is revoked".to_owned(),
        untrusted: true,
    }
}

#[test]
fn discover() {
    let provider = |certificate: Option<&str>| ProviderView {
        peer: peer(2),
        addresses: vec!["/ip4/192.0.2.8/tcp/4001".to_owned()],
        endpoints: vec!["udp:192.0.2.8:3478".to_owned()],
        serving: true,
        load: 0.5,
        expires_at_ms: UnixMs(1_767_229_200_000),
        expires_in_ms: 120_000,
        certificate: certificate.map(str::to_owned),
        probes: vec![
            ProbeView {
                endpoint: "udp:192.0.2.8:5060".to_owned(),
                status: ProbeStatus::Answered,
                code: Some(200),
                rtt_ms: Some(1.5),
                why: None,
            },
            ProbeView {
                endpoint: "tcp:192.0.2.8:5060".to_owned(),
                status: ProbeStatus::Unreachable,
                code: None,
                rtt_ms: None,
                why: Some("connection refused".to_owned()),
            },
        ],
        rtt_ms: certificate.map(|_| 1.5),
        in_dns: certificate.map(|_| true),
    };
    let found = DiscoverOutcome {
        status: DiscoverStatus::Found,
        overlay: OverlayId::parse("p2psip.org").unwrap(),
        via: Via::Socket,
        wanted: None,
        found: 2,
        complete: true,
        services: vec![ServiceView {
            service: Service::Turn,
            uri: "turn:p2psip.org".to_owned(),
            complete: true,
            providers: vec![provider(Some("0a1b")), provider(None)],
        }],
        public: None,
        rejected: vec![rejected()],
        tree_nodes: 3,
        requests: 20,
        silent: 0,
        elapsed_ms: 12.5,
    };
    let fewer = DiscoverOutcome { status: DiscoverStatus::Fewer, wanted: Some(3), ..found.clone() };
    let public = PublicView {
        status: LocateStatus::Found,
        endpoints: vec!["udp:192.0.2.8:5060".to_owned()],
        only_in_overlay: vec!["tcp:192.0.2.8:5060".to_owned()],
        only_in_dns: vec!["udp:192.0.2.9:5060".to_owned()],
    };
    assert_shape("discover-proxies", &[DiscoverOutcome { public: Some(public), ..found.clone() }]);
    assert_shape("discover", &[found, fewer]);
    let words = [ProbeStatus::Answered, ProbeStatus::Silent, ProbeStatus::Unreachable];
    let words = words.map(|status| serde_json::to_value(status).unwrap());
    assert_eq!(words, ["answered", "silent", "unreachable"]);
}

#[test]
fn lookup() {
    let offer = OfferView {
        peer: peer(2),
        addresses: vec!["/ip4/192.0.2.8/tcp/4001".to_owned()],
        endpoints: vec!["udp:192.0.2.8:5060".to_owned()],
        serving: true,
        load: 0.5,
    };
    let plain = LookupOutcome {
        status: LookupStatus::Found,
        uri: "sip:alice@p2psip.org".to_owned(),
        overlay: OverlayId::parse("p2psip.org").unwrap(),
        via: Via::Walk,
        records: vec![record(Some("4f2a"), Some(offer)), record(None, None)],
        rejected: vec![rejected()],
        storers: 3,
        requests: 5,
        silent: 0,
        hops: 2,
        elapsed_ms: 41.5,
        trace: None,
        public: None,
    };
    let instance = InstanceId::of_key(&[1; 32]);
    let request = |told_by, took_ms| TraceView {
        peer: peer(3),
        told_by,
        path: 0,
        hop: 2,
        common_prefix_bits: 7,
        asked_ms: 0.5,
        took_ms,
        outcome: RequestStatus::Answered,
        told_of: 8,
        new_peers: 1,
        storer: true,
        records: vec![HeldView { instance, sequence: 1_767_225_600_000, tombstone: false }],
        rejected: vec![rejected()],
        differences: vec![DifferenceView { instance, kind: DifferenceStatus::Stale }],
    };
    let trace = Some(vec![request(Some(peer(2)), Some(1.5)), request(None, None)]);
    assert_shape("lookup-trace", &[LookupOutcome { trace, ..plain.clone() }]);
    let public = PublicView {
        status: LocateStatus::Found,
        endpoints: vec!["udp:192.0.2.8:5060".to_owned()],
        only_in_overlay: vec!["udp:192.0.2.9:5060".to_owned()],
        only_in_dns: vec!["tcp:192.0.2.8:5060".to_owned()],
    };
    assert_shape("lookup-proxies", &[LookupOutcome { public: Some(public), ..plain.clone() }]);
    assert_shape("lookup", &[plain]);
}

#[test]
fn lookup_of_a_public_uri() {
    let target = |tls_name: Option<&str>| TargetView {
        transport: "tls".to_owned(),
        address: "192.0.2.1".to_owned(),
        port: 5061,
        endpoint: "tls:192.0.2.1:5061".to_owned(),
        tls_name: tls_name.map(str::to_owned),
        because: "address of example.com".to_owned(),
    };
    let question = StepView {
        step: StepKind::Question,
        text: "A example.com".to_owned(),
        source: Some("192.0.2.53:53".to_owned()),
        outcome: Some(AnswerStatus::Records),
        answer: vec!["192.0.2.1".to_owned()],
        took_ms: Some(0.5),
    };
    let rule = StepView {
        step: StepKind::Rule,
        text: "there is no NAPTR".to_owned(),
        source: None,
        outcome: None,
        answer: Vec::new(),
        took_ms: None,
    };
    let sample = LocateOutcome {
        status: LocateStatus::Found,
        uri: "sip:bob@example.com".to_owned(),
        domain: "example.com".to_owned(),
        targets: vec![target(None), target(Some("example.com"))],
        path: vec![rule, question],
        elapsed_ms: 3.5,
    };
    assert_shape("lookup-public", &[sample]);
}

#[test]
fn register() {
    assert_shape(
        "register",
        &[RegisterOutcome {
            status: RegisterStatus::Registered,
            aor: "sip:alice@p2psip.org".to_owned(),
            instance: InstanceId::of_key(&[1; 32]),
            gruu: "sip:alice@p2psip.org;gr=abc".to_owned(),
            sequence: 1_767_225_600_000,
            expires_at_ms: UnixMs(1_767_229_200_000),
            expires_in_ms: 3_600_000,
            contacts: vec![contact(Some(peer(1))), contact(None)],
            via: Via::Socket,
            stored: vec![peer(1)],
            refused: vec![rejected()],
            silent: 1,
            read_back: 2,
            kept_by: vec![peer(2)],
            elapsed_ms: 12.5,
        }],
    );
}

#[test]
fn public_registration() {
    let sample = PublicOutcome {
        status: PublicStatus::Registered,
        aor: "sip:alice@example.org".to_owned(),
        contact: "sip:alice@p2psip.org".to_owned(),
        registrar: "sip:example.org".to_owned(),
        proxy: Some(peer(1)),
        code: Some(200),
        reason: Some("Forbidden".to_owned()),
        realm: Some("example.org".to_owned()),
        algorithm: Some("SHA-256"),
        challenges: 1,
        expires_in_ms: Some(3_600_000),
        shortened: false,
        bindings: vec!["sip:alice@p2psip.org".to_owned()],
        redirected_to: Some("sip:node.example.org".to_owned()),
        other_devices: 0,
        again_in_ms: Some(2_000),
        steps: vec![StepOutcome { step: Step::Register, result: "bound".to_owned(), took_ms: 3.5 }],
        elapsed_ms: 12.5,
    };
    let nothing = PublicOutcome {
        status: PublicStatus::Unreachable,
        proxy: None,
        code: None,
        reason: None,
        realm: None,
        algorithm: None,
        expires_in_ms: None,
        redirected_to: None,
        again_in_ms: None,
        ..sample.clone()
    };
    assert_shape("register-public", &[sample, nothing]);
}

#[test]
fn join() {
    assert_shape(
        "join",
        &[JoinOutcome {
            status: "joined",
            overlay: OverlayId::parse("p2psip.org").unwrap(),
            policy: "enrolled".to_owned(),
            descriptor: "0123456789abcdef".to_owned(),
            peer: peer(1),
            addresses: vec!["/ip4/192.0.2.7/udp/4001/quic-v1/p2p/X".to_owned()],
            socket: "/run/member.sock".to_owned(),
            proxy: vec!["udp 192.0.2.7:5060".to_owned()],
            gatekeeper: Some("p2psip.org on 192.0.2.53:53".to_owned()),
            adapter: vec!["udp 192.0.2.7:5070".to_owned()],
            metrics: Some("http://127.0.0.1:9464/metrics".to_owned()),
            peers: 1,
            restored: 0,
            elapsed_ms: 3.5,
        }],
    );
}

#[test]
fn calls() {
    let message = |status| MessageView {
        at_ms: 0.5,
        from: 0,
        to: 1,
        transport: "OVERLAY".to_owned(),
        what: "INVITE".to_owned(),
        status,
        cseq: "1 INVITE".to_owned(),
        sdp: true,
        again: false,
        octets: 612,
    };
    let hop = HopView {
        from: "alice".to_owned(),
        to: "bob".to_owned(),
        transport: "OVERLAY".to_owned(),
        address: peer(1).to_string(),
        found: "routing record of sip:bob@p2psip.org".to_owned(),
    };
    let flow = FlowView {
        parties: vec![PartyView { name: "alice".to_owned(), address: "127.0.0.1:5060".to_owned() }],
        messages: vec![message(None), message(Some(200))],
        hops: vec![hop],
        asked: Vec::new(),
    };
    let answered = CallOutcome {
        status: CallStatus::Answered,
        direction: "outgoing",
        uri: "sip:bob@p2psip.org".to_owned(),
        from: "sip:alice@p2psip.org".to_owned(),
        call_id: "c0ffee".to_owned(),
        code: Some(200),
        reason: Some("OK".to_owned()),
        ringing_ms: Some(12.5),
        answered_ms: Some(212.5),
        talked_ms: Some(2_000.5),
        ended_by: Some("us"),
        fault: Some("the BYE failed".to_owned()),
        reinvited: Some(200),
        media: "none",
        flow: Some(flow),
        elapsed_ms: 2_300.5,
    };
    let silent = CallOutcome {
        code: None,
        reason: None,
        ringing_ms: None,
        answered_ms: None,
        talked_ms: None,
        ended_by: None,
        fault: None,
        reinvited: None,
        flow: None,
        ..answered.clone()
    };
    assert_shape("call", &[answered, silent]);
    let listening = |user: Option<&str>, peer| ListeningOutcome {
        status: "listening",
        user: user.map(str::to_owned),
        peer,
        addresses: vec!["UDP 192.0.2.1:5060".to_owned()],
    };
    assert_shape("answer", &[listening(Some("sip:bob@p2psip.org"), Some(peer(1))), listening(None, None)]);
}

#[test]
fn what_a_shell_tells_of_a_member() {
    let instance = InstanceId::of_key(&[1; 32]);
    let name = ResourceName::parse("sip:alice@p2psip.org").unwrap();
    let member = StatusReply {
        peer: peer(1),
        overlay: OverlayId::parse("p2psip.org").unwrap(),
        descriptor: "0123456789abcdef".to_owned(),
        policy: "enrolled".to_owned(),
        addresses: vec!["/ip4/192.0.2.7/tcp/4001".to_owned()],
        peers: 15,
        connections: 12,
        names: 2,
        records: 4,
        kept: 1,
        started_ms: UnixMs(1_767_225_600_000),
        served: 73,
        throttled: 0,
        version: "0.1.0".to_owned(),
        buckets: vec![(0, 8)],
        proxy: None,
        reach: ReachView { reach: Reach::Relayed, why: "behind a NAT".to_owned(), relays: vec![peer(3)] },
    };
    let socket = "/run/member.sock".to_owned();
    let status = StatusOutcome { status: "member", socket, uptime_ms: 1_000, member: member.clone() };
    let proxy = ProxyStatus { endpoints: vec!["udp 192.0.2.7:5060".to_owned()], ..ProxyStatus::default() };
    let member = StatusReply { proxy: Some(proxy), ..member };
    assert_shape("shell-status-proxy", &[StatusOutcome { member, ..status.clone() }]);
    assert_shape("shell-status", &[status]);
    let near = PeerView { peer: peer(2), bits: 3, addresses: vec!["/ip4/192.0.2.8/tcp/4001".to_owned()] };
    assert_shape("shell-peers", &[PeersOutcome { status: "peers", member: peer(1), known: 15, peers: vec![near] }]);
    let buckets = vec![BucketView { bits: 0, peers: 8 }];
    assert_shape("shell-table", &[TableOutcome { status: "table", member: peer(1), known: 15, buckets }]);
    let record = HeldRecord {
        name: name.clone(),
        instance,
        sequence: 1_767_225_600_000,
        expires_ms: UnixMs(1_767_229_200_000),
        tombstone: false,
        kept: true,
        certificate: Some("4f2a".to_owned()),
        pinned: false,
    };
    let uncertified = HeldRecord { certificate: None, ..record.clone() };
    let records = [record, uncertified].map(|record| HeldRecordView { expires_in_ms: 3_600_000, record });
    assert_shape("shell-records", &[HeldOutcome { status: "records", total: 2, records: records.to_vec() }]);
    assert_shape(
        "shell-ping",
        &[PingOutcome {
            status: "answered",
            peer: peer(1),
            addresses: vec!["/ip4/192.0.2.7/tcp/4001".to_owned()],
            version: "0.1.0".to_owned(),
            connect_ms: 2.5,
            rtt_ms: 0.5,
        }],
    );
    let event = |event| EventOutcome { status: "event", at_ms: UnixMs(1_767_225_600_000), event };
    assert_shape("shell-event-peer", &[event(Event::PeerJoined { peer: peer(1) })]);
    let (verdict, host, why) = (GateVerdict::Entered, "p0123.p2psip.org".to_owned(), "udp:5060 proven".to_owned());
    assert_shape("shell-event-gatekeeper", &[event(Event::Gatekeeper { verdict, peer: Some(peer(2)), host, why })]);
    assert_shape("shell-event-stored", &[event(Event::Stored { name, instance, sequence: 1, tombstone: false })]);
}

#[test]
fn publication() {
    let overlay = OverlayId::parse("p2psip.org").unwrap();
    let server: std::net::SocketAddr = "192.0.2.53:53".parse().unwrap();
    let change = |status, lease_in_ms, script: Option<&str>| ChangeOutcome {
        status,
        overlay: overlay.clone(),
        zone: "p2psip.org".to_owned(),
        server,
        host: "proxy1.p2psip.org".to_owned(),
        lease_in_ms,
        warnings: vec!["something was left out".to_owned()],
        script: script.map(str::to_owned),
        elapsed_ms: 4.5,
    };
    assert_shape("publish-change", &[change("added", Some(60_000), None), change("planned", None, Some("send\n"))]);
    let offer = OfferView {
        peer: peer(2),
        addresses: vec!["/ip4/192.0.2.8/tcp/4001".to_owned()],
        endpoints: vec!["udp:192.0.2.8:5060".to_owned()],
        serving: true,
        load: 0.5,
    };
    let proxy = |known: bool| ProxyView {
        host: known.then(|| "proxy1.p2psip.org".to_owned()),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        servers: vec!["udp:5060".to_owned()],
        lease: LeaseState::Live,
        lease_in_ms: known.then_some(60_000),
        key: known.then(|| "gatekeeper".to_owned()),
        peer: known.then(|| peer(2)),
        offer: known.then(|| offer.clone()),
        drift: known.then_some(Drift::Differs),
    };
    let list = |overlay_unasked: Option<&str>| ListOutcome {
        status: "drift",
        overlay: overlay.clone(),
        zone: "p2psip.org".to_owned(),
        server,
        proxies: vec![proxy(true), proxy(false)],
        rules: vec![RuleView { transport: "udp".to_owned(), dangling: true }],
        overlay_unasked: overlay_unasked.map(str::to_owned),
        unreachable: false,
        elapsed_ms: 4.5,
    };
    let decision = Decision {
        at_ms: UnixMs(1_767_225_600_000),
        verdict: GateVerdict::Refused,
        peer: Some(peer(2)),
        host: "p0123.p2psip.org".to_owned(),
        addresses: vec!["192.0.2.8".parse().unwrap()],
        why: "it is behind a NAT".to_owned(),
    };
    let (pending, decisions) = (vec![decision.clone()], vec![decision]);
    assert_shape("publish-pending", &[PendingOutcome { status: "pending", pending, decisions }]);
    assert_shape("publish-list", &[list(None), list(Some("--dns-only"))]);
    let action = |error: Option<&str>, script: Option<&str>| ActionView {
        action: "add",
        host: "proxy1.p2psip.org".to_owned(),
        error: error.map(str::to_owned),
        script: script.map(str::to_owned),
    };
    let sync = SyncOutcome {
        status: "synced",
        overlay: overlay.clone(),
        zone: "p2psip.org".to_owned(),
        server,
        actions: vec![action(None, Some("send\n")), action(Some("refused"), None)],
        warnings: vec!["something was left".to_owned()],
        elapsed_ms: 4.5,
        worst: None,
    };
    assert_shape("publish-sync", &[sync]);
    let words = [Drift::NotInDns, Drift::NotInOverlay, Drift::Differs, Drift::LeaseOver, Drift::Incomplete];
    let words = words.map(|drift| serde_json::to_value(drift).unwrap());
    assert_eq!(words, ["not-in-dns", "not-in-overlay", "differs", "lease-over", "incomplete"]);
}

#[test]
fn words_of_a_status_are_part_of_the_schema() {
    let words = |value: &dyn Fn() -> Vec<Value>| value().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let lookup = || {
        use LookupStatus::{Contested, Found, NobodyToAsk, NotFound, Untrusted};
        [Found, Contested, NotFound, Untrusted, NobodyToAsk].map(|status| serde_json::to_value(status).unwrap()).into()
    };
    assert_eq!(words(&lookup), r#""found" "contested" "not-found" "untrusted" "nobody-to-ask""#);
    let locate = || {
        use LocateStatus::{Found, NoDomain, NoServer, NobodyToAsk};
        [Found, NoDomain, NoServer, NobodyToAsk].map(|status| serde_json::to_value(status).unwrap()).into()
    };
    assert_eq!(words(&locate), r#""found" "no-domain" "no-server" "nobody-to-ask""#);
    let step = || {
        use StepKind::{Ignored, Question, Rule};
        [Rule, Question, Ignored].map(|step| serde_json::to_value(step).unwrap()).into()
    };
    assert_eq!(words(&step), r#""rule" "question" "ignored""#);
    let answer = || {
        use AnswerStatus::{NoName, NoRecords, Records, Unanswered};
        [Records, NoRecords, NoName, Unanswered].map(|status| serde_json::to_value(status).unwrap()).into()
    };
    assert_eq!(words(&answer), r#""records" "no-records" "no-name" "unanswered""#);
    let request = || {
        use RequestStatus::{Answered, Malformed, Refused, Silent, Unreachable, Waiting};
        let all = [Answered, Unreachable, Silent, Refused, Malformed, Waiting];
        all.map(|status| serde_json::to_value(status).unwrap()).into()
    };
    assert_eq!(words(&request), r#""answered" "unreachable" "silent" "refused" "malformed" "waiting""#);
    let difference = || {
        use DifferenceStatus::{Newer, Stale, Withheld};
        [Stale, Withheld, Newer].map(|status| serde_json::to_value(status).unwrap()).into()
    };
    assert_eq!(words(&difference), r#""stale" "withheld" "newer""#);
    let register = || {
        use RegisterStatus::{NobodyToAsk, Refused, Registered, Removed};
        [Registered, Removed, Refused, NobodyToAsk].map(|status| serde_json::to_value(status).unwrap()).into()
    };
    assert_eq!(words(&register), r#""registered" "removed" "refused" "nobody-to-ask""#);
}

#[test]
fn shapes_tell_a_changed_key_from_an_unchanged_one() {
    let value = |text: &str| shape(&serde_json::from_str(text).unwrap());
    assert_eq!(
        value(r#"{"a":1,"b":[{"c":null},{"c":"x"}]}"#).to_string(),
        r#"{"a":"integer","b":[{"c":"string | null"}]}"#
    );
    assert_eq!(value("[{\"o\":null},{\"o\":{\"x\":true}}]").to_string(), r#"[{"o":{"| null":{"x":"boolean"}}}]"#);
    assert_ne!(value("1"), value("1.5"));
}
