//! Forged records are stored by nobody and shown by no lookup (draft §6; R23, R29).

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use p2psip::{
    client::{Keep, Put, PutRevocations, Store, StoreReply},
    clock::UnixMs,
    identity::{Authority, Certificate, CertificateRequest, SecretKey},
    member::Member,
    name::{OverlayId, ResourceName, ServiceNode, TreeNode},
    record::{Body, Contact, Endpoint, MAX_SERVICE_LIFETIME, Payload, ServiceOffer},
};

use crate::{
    forge::{Shown, signed, signed_with, with_signature},
    world::{Client, LIFETIME, TestWorld, User, lookup, register},
};

const HOUR: Duration = Duration::from_secs(3600);

fn names(texts: &[&str]) -> Vec<ResourceName> {
    texts.iter().map(|text| ResourceName::parse(text).unwrap()).collect()
}

fn issued(authority: &Authority, key: &SecretKey, names: &[ResourceName], at: UnixMs) -> Certificate {
    let request = CertificateRequest::create(key, names).unwrap();
    authority.issue(&request, names, LIFETIME, at).unwrap()
}

/// A stranger's CA for an overlay of the same name.
fn other_authority() -> Authority {
    Authority::create(&OverlayId::parse("p2psip.org").unwrap(), UnixMs::now()).unwrap()
}

/// What every member answers to a record, by the reason's code.
fn answers(world: &TestWorld, client: &Client, envelope: &[u8]) -> BTreeMap<&'static str, usize> {
    let store = Store { envelope: envelope.to_vec().into() };
    let infos: Vec<_> = world.world.members().iter().map(Member::info).collect();
    let replies = world.run(join_all(infos.iter().map(|info| client.call(info, &store))));
    let mut counts = BTreeMap::new();
    for reply in replies {
        let code = match reply.unwrap() {
            StoreReply::Stored => "stored",
            StoreReply::Refused(reason) => reason.code(),
        };
        *counts.entry(code).or_default() += 1;
    }
    counts
}

/// Forgeries of a user's record, each with the reason for which it must be refused.
fn forgeries(world: &TestWorld, victim: &User, mallory: &User) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let authority = world.world.authority().unwrap();
    let genuine = Payload { sequence: UnixMs::now().0 + 1, ..victim.payload() };
    let certificate = victim.certificate.as_ref().unwrap();
    let shown = Shown::Certificate(certificate);
    let key = SecretKey::generate().unwrap();
    let own = [victim.name()];
    let now = UnixMs::now();
    let at = |sequence: UnixMs, expires: UnixMs| Payload { sequence: sequence.0, expires, ..genuine.clone() };
    let by = |certificate: &Certificate| signed_with(&genuine, &key, Some(certificate));
    let mut bent = signed_with(&genuine, &victim.key, Some(certificate));
    *bent.last_mut().unwrap() ^= 1;
    let uri = format!("sip:{}@192.0.2.1", "x".repeat(180));
    let full = Contact::Overlay { peer: key.peer_id(), addresses: vec![format!("/dns4/{}", "x".repeat(190)); 8], q: 1 };
    let mut contacts = vec![full; 7];
    contacts.push(Contact::Sip { uri, q: 1 });
    let large = Payload { body: Body::User { contacts }, ..genuine.clone() };
    let offer = ServiceOffer {
        peer: victim.key.peer_id(),
        addresses: vec![],
        endpoints: vec![],
        serving: true,
        load: 0,
        depth: 0,
    };
    let service = Payload { body: Body::Service(offer), ..genuine.clone() };
    let empty = Payload { body: Body::User { contacts: vec![] }, ..genuine.clone() };
    vec![
        ("no signature", "bad-signature", with_signature(&genuine, &shown, vec![])),
        ("no signer", "malformed", signed(&genuine, &Shown::Nothing, &victim.key)),
        ("a damaged signature", "bad-signature", bent),
        ("another key's signature", "bad-signature", signed(&genuine, &shown, &mallory.key)),
        ("no certificate", "no-credentials", signed_with(&genuine, &mallory.key, None)),
        ("another user's certificate", "not-named", signed_with(&genuine, &mallory.key, mallory.certificate.as_ref())),
        ("another CA's certificate", "unknown-authority", by(&issued(&other_authority(), &key, &own, now))),
        ("an expired certificate", "certificate-expired", by(&issued(authority, &key, &own, now.before(HOUR / 2)))),
        (
            "a certificate of tomorrow",
            "certificate-not-yet-valid",
            by(&issued(authority, &key, &own, now.after(HOUR + HOUR / 2))),
        ),
        ("a clock that is ahead", "from-the-future", victim.seal(&at(now.after(HOUR), now.after(HOUR + LIFETIME)))),
        ("a record for two days", "lifetime-too-long", victim.seal(&at(now, now.after(48 * HOUR)))),
        ("an expired record", "expired", victim.seal(&at(now.before(HOUR), now.before(HOUR / 2)))),
        ("a record without end", "too-large", victim.seal(&large)),
        ("a service under a user's name", "malformed", signed_with(&service, &victim.key, Some(certificate))),
        ("no contacts", "malformed", signed_with(&empty, &victim.key, Some(certificate))),
        ("octets", "malformed", vec![0xd2; 200]),
        ("nothing", "malformed", vec![]),
    ]
}

#[test]
fn a_forged_record_of_a_user_is_stored_by_no_member_and_shown_by_no_lookup() {
    let world = TestWorld::shared();
    let (victim, absent, mallory) = (world.user("victim"), world.user("absent"), world.user("mallory"));
    register(&format!("{} {} --contact sip:phone@192.0.2.1", victim.options(), victim.aor)).exits(0);
    let (client, members) = (world.client(), world.world.members().len());
    for target in [&victim, &absent] {
        for (what, code, envelope) in forgeries(world, target, &mallory) {
            assert_eq!(answers(world, &client, &envelope), BTreeMap::from([(code, members)]), "{what}");
            // Nor does anybody pass it on or keep it alive for the forger.
            let info = world.world.members()[8].info();
            let put = Put { envelope: envelope.clone().into(), timeout_ms: 1000 };
            let put = world.run(client.call(&info, &put)).unwrap();
            assert_eq!((put.stored.len(), put.refused[0].reason.code()), (0, code), "{what}");
            let keep = world.run(client.call(&info, &Keep { envelope: envelope.into() })).unwrap();
            assert!(matches!(&keep, StoreReply::Refused(reason) if reason.code() == code), "{what}: {keep:?}");
        }
    }
    for (via, options) in world.ways(&victim) {
        let ran = lookup(&format!("--short {options} {}", victim.aor)).exits(0);
        assert_eq!(ran.out, "sip:phone@192.0.2.1\n", "{via}");
        lookup(&format!("{options} {}", absent.aor)).exits(1);
    }
}

#[test]
fn a_forged_record_of_a_service_is_stored_by_no_member() {
    let world = TestWorld::shared();
    let (authority, mallory) = (world.world.authority().unwrap(), world.user("mallory"));
    let (client, members, now) = (world.client(), world.world.members().len(), UnixMs::now());
    let [proxy, turn] = &names(&["sip:p2psip.org#0/0", "turn:p2psip.org#0/0"])[..] else { unreachable!() };
    let offer = |name: &ResourceName, peer| {
        let offer = ServiceOffer { peer, addresses: vec![], endpoints: vec![], serving: true, load: 0, depth: 0 };
        Payload { name: name.clone(), sequence: now.0, expires: now.after(LIFETIME), body: Body::Service(offer) }
    };
    let key = SecretKey::generate().unwrap();
    let turn_uri = ResourceName::from(turn.service().unwrap().clone());
    let provider = issued(authority, &key, std::slice::from_ref(&turn_uri), now);
    let node = |level, of: &SecretKey| {
        let node = TreeNode::containing(level, &of.peer_id().position());
        ResourceName::from(ServiceNode::new(turn.service().unwrap().clone(), node))
    };
    let elsewhere = node(
        1,
        &(0..).map(|nth| SecretKey::from_seed(&[nth; 32])).find(|other| node(1, other) != node(1, &key)).unwrap(),
    );
    let forgeries = [
        ("a user's certificate", "not-named", {
            signed_with(&offer(proxy, mallory.key.peer_id()), &mallory.key, mallory.certificate.as_ref())
        }),
        ("another service's certificate", "not-named", {
            signed_with(&offer(proxy, key.peer_id()), &key, Some(&provider))
        }),
        ("another CA's certificate", "unknown-authority", {
            let certificate = issued(&other_authority(), &key, std::slice::from_ref(&turn_uri), now);
            signed_with(&offer(turn, key.peer_id()), &key, Some(&certificate))
        }),
        ("another peer's service", "malformed", {
            signed_with(&offer(turn, world.world.members()[5].peer()), &key, Some(&provider))
        }),
        ("a tree node that it does not belong to", "outside-range", {
            signed_with(&offer(&elsewhere, key.peer_id()), &key, Some(&provider))
        }),
        ("a tombstone in such a tree node", "outside-range", {
            let tombstone = Payload { body: Body::Removed, ..offer(&elsewhere, key.peer_id()) };
            signed_with(&tombstone, &key, Some(&provider))
        }),
        ("no tree node", "malformed", signed_with(&offer(&turn_uri, key.peer_id()), &key, Some(&provider))),
        ("no certificate", "no-credentials", signed_with(&offer(proxy, key.peer_id()), &key, None)),
        ("a tombstone of a stranger's", "no-credentials", {
            let tombstone = Payload { body: Body::Removed, ..offer(proxy, key.peer_id()) };
            signed_with(&tombstone, &key, None)
        }),
    ];
    for (what, code, envelope) in forgeries {
        assert_eq!(answers(world, &client, &envelope), BTreeMap::from([(code, members)]), "{what}");
    }
    let user = world.user("caller");
    let json = lookup(&format!("--json {} sip:p2psip.org turn:p2psip.org", user.options())).exits(0);
    for line in json.out.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(json["records"].as_array().unwrap().len(), 2, "{json}");
    }
}

#[test]
fn a_revocation_list_of_a_stranger_is_taken_by_nobody() {
    let world = TestWorld::shared();
    let client = world.client();
    let forged = other_authority().revoke(None, &["00".to_owned()], UnixMs::now()).unwrap();
    for list in [forged.envelope().to_vec(), vec![1, 2, 3]] {
        for member in world.world.members() {
            let put = PutRevocations { list: list.clone().into() };
            let reply = world.run(client.call(&member.info(), &put)).unwrap();
            assert!(matches!(&reply, StoreReply::Refused(reason) if reason.code() == "bad-signature"), "{reply:?}");
        }
    }
}

#[test]
fn an_older_record_replaces_a_newer_one_at_nobody_who_holds_it() {
    let world = TestWorld::shared();
    let user = world.user("replayed");
    let old = user.payload();
    let new = Payload { sequence: old.sequence + 1, ..old.clone() };
    let contacts = vec![Contact::Sip { uri: "sip:new@192.0.2.1".to_owned(), q: 1000 }];
    let new = user.seal(&Payload { body: Body::User { contacts }, ..new });
    let client = world.client();
    let put = |envelope: &[u8]| Put { envelope: envelope.to_vec().into(), timeout_ms: 5000 };
    let entry = world.world.members()[10].info();
    assert_eq!(world.run(client.call(&entry, &put(&new))).unwrap().stored.len(), 5);
    let answers = answers(world, &client, &user.seal(&old));
    assert!(answers["older"] >= 5, "{answers:?}");
    assert!(answers.keys().all(|code| ["older", "stored", "not-responsible"].contains(code)), "{answers:?}");
    for (via, options) in world.ways(&user) {
        let ran = lookup(&format!("--short {options} {}", user.aor)).exits(0);
        assert_eq!(ran.out, "sip:new@192.0.2.1\n", "{via}");
    }
}

#[test]
fn control_characters_are_stored_by_nobody_in_whatever_field_of_a_record() {
    let world = TestWorld::shared();
    let user = world.user("escape");
    let authority = world.world.authority().unwrap();
    let (client, members, now) = (world.client(), world.world.members().len(), UnixMs::now());
    let key = SecretKey::generate().unwrap();
    // Of a kind that no other test looks for.
    let kind = names(&["gatekeeper:p2psip.org"]);
    let provider = issued(authority, &key, &kind, now);
    let node = names(&["gatekeeper:p2psip.org#0/0"]).remove(0);
    let usual = ServiceOffer {
        peer: key.peer_id(),
        addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
        endpoints: vec![Endpoint { transport: "udp".to_owned(), host: "127.0.0.1".to_owned(), port: 1 }],
        serving: true,
        load: 0,
        depth: 0,
    };
    let offer = |change: &dyn Fn(&mut ServiceOffer)| {
        let mut offer = usual.clone();
        change(&mut offer);
        let body = Body::Service(offer);
        let payload = Payload { name: node.clone(), sequence: now.0, expires: now.after(LIFETIME), body };
        signed_with(&payload, &key, Some(&provider))
    };
    let contact = |contact| {
        let payload = Payload { body: Body::User { contacts: vec![contact] }, ..user.payload() };
        signed_with(&payload, &user.key, user.certificate.as_ref())
    };
    let overlay = |address: String| Contact::Overlay { peer: key.peer_id(), addresses: vec![address], q: 1000 };
    // C0, DEL, C1 in UTF-8, a line's end, and what turns the writing round.
    for evil in ["\u{1b}[2J", "\u{7f}", "\u{9b}31m", "\r\n", "\u{202e}"] {
        for (what, envelope) in [
            ("the user of a contact", contact(Contact::Sip { uri: format!("sip:a{evil}@192.0.2.1"), q: 1 })),
            ("the host of a contact", contact(Contact::Sip { uri: format!("sip:a@192.0.2.1{evil}"), q: 1 })),
            ("a contact's address", contact(overlay(format!("/ip4/192.0.2.1{evil}/tcp/1")))),
            ("a provider's address", offer(&|offer| offer.addresses = vec![format!("/ip4/192.0.2.1/tcp/1{evil}")])),
            ("an endpoint's transport", offer(&|offer| offer.endpoints[0].transport = format!("udp{evil}"))),
            ("an endpoint's host", offer(&|offer| offer.endpoints[0].host = format!("a{evil}.org"))),
        ] {
            let expected = BTreeMap::from([("malformed", members)]);
            assert_eq!(answers(world, &client, &envelope), expected, "{what} with {evil:?}");
        }
        // Names are not even made.
        assert!(ResourceName::parse(&format!("sip:a{evil}@p2psip.org")).is_err(), "{evil:?}");
        assert!(ResourceName::parse(&format!("turn:p2psip.org{evil}")).is_err(), "{evil:?}");
    }
    // The same without: it is for what is in them that they were refused.
    let fine = [offer(&|_| ()), contact(overlay("/ip4/192.0.2.1/tcp/1".to_owned()))];
    for envelope in fine {
        assert!(!answers(world, &client, &envelope).contains_key("malformed"));
    }
}

#[test]
fn no_member_lists_a_load_that_there_is_not_or_a_service_for_longer_than_its_provider_lives() {
    let world = TestWorld::shared();
    let (client, members, now) = (world.client(), world.world.members().len(), UnixMs::now());
    let key = SecretKey::generate().unwrap();
    let certificate = issued(world.world.authority().unwrap(), &key, &names(&["teredo:p2psip.org"]), now);
    let answer = |load, lifetime| {
        let (peer, serving, depth) = (key.peer_id(), true, 0);
        let offer = ServiceOffer { peer, addresses: vec![], endpoints: vec![], serving, load, depth };
        let name = names(&["teredo:p2psip.org#0/0"]).remove(0);
        let payload = Payload { name, sequence: now.0, expires: now.after(lifetime), body: Body::Service(offer) };
        answers(world, &client, &signed_with(&payload, &key, Some(&certificate)))
    };
    assert_eq!(answer(1001, LIFETIME), BTreeMap::from([("malformed", members)]));
    assert_eq!(answer(u16::MAX, LIFETIME), BTreeMap::from([("malformed", members)]));
    assert_eq!(
        answer(0, MAX_SERVICE_LIFETIME + Duration::from_secs(1)),
        BTreeMap::from([("lifetime-too-long", members)])
    );
    assert_eq!(answer(0, HOUR), BTreeMap::from([("lifetime-too-long", members)]));
}
