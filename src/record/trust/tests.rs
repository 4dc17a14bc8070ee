use proptest::prelude::*;

use super::*;
use crate::{
    identity::{Authority, Limits, SecretKey},
    kind::Kind,
    record::{
        Body, Contact,
        envelope::{self, Credentials},
        testing::{self, Draft, Enrolled, LIFETIME, NOW},
    },
};

const ALICE: &str = "sip:alice@p2psip.org";
const BOB: &str = "sip:bob@p2psip.org";
const DAY: u64 = 86_400_000;

fn alice() -> Draft {
    Draft::user(ALICE, 1)
}

fn open() -> Arc<Trust> {
    testing::open(Limits::default())
}

fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).unwrap()
}

/// Signs what `seal` would refuse to.
fn forge(draft: &Draft, certificate: &Certificate, key: &SecretKey) -> Vec<u8> {
    let credentials = Credentials::Certificate(certificate.der().to_vec());
    envelope::sign(&credentials, draft.payload.encode().unwrap(), key).unwrap()
}

fn refusal(trust: &Trust, envelope: &[u8]) -> Refusal {
    trust.verify(envelope, None, NOW).unwrap_err()
}

#[test]
fn what_is_sealed_can_be_verified() {
    let world = Enrolled::new();
    let envelope = alice().seal(Some(&world.certificate(1, &[ALICE, BOB])));
    // Twice: the second time the certificate is known.
    for _ in 0..2 {
        let record = world.trust.verify(&envelope, Some(&name(ALICE)), NOW).unwrap();
        assert_eq!(record.payload(), &alice().payload);
        assert_eq!(record.signer(), testing::key(1).public());
        assert_eq!(record.envelope(), envelope);
        assert!(record.serial().is_some() && !record.is_tombstone());
    }
    assert!(envelope.len() < 800, "{}", envelope.len());

    let proxy = Draft::service("sip:p2psip.org", 2);
    let certificate = world.certificate(2, &["sip:p2psip.org"]);
    let record = world.trust.verify(&proxy.seal(Some(&certificate)), None, NOW).unwrap();
    assert!(matches!(record.body(), Body::Service(offer) if offer.peer == record.signer().peer_id()));
    assert!(world.trust.verify(&proxy.removed().seal(Some(&certificate)), None, NOW).unwrap().is_tombstone());

    let record = open().verify(&alice().seal(None), None, NOW).unwrap();
    assert_eq!((record.serial(), record.signer()), (None, testing::key(1).public()));
}

#[test]
fn sealing_is_deterministic() {
    let certificate = Enrolled::new().certificate(1, &[ALICE]);
    assert_eq!(alice().seal(Some(&certificate)), alice().seal(Some(&certificate)));
}

#[test]
fn a_record_may_be_as_large_as_the_overlay_says() {
    let mut draft = alice();
    let address = format!("/dns4/{}/tcp/1", "a".repeat(180));
    let contact = Contact::Overlay { peer: testing::key(1).peer_id(), addresses: vec![address; 8], q: 0 };
    draft.payload.body = Body::User { contacts: vec![contact] };
    let envelope = draft.seal(None);
    let trust = |max_record_bytes| testing::open(Limits { max_record_bytes, ..Limits::default() });
    trust(envelope.len()).verify(&envelope, None, NOW).unwrap();
    let limit = envelope.len() as u64 - 1;
    let expected = Refusal::TooLarge { bytes: limit + 1, limit };
    assert_eq!(refusal(&trust(envelope.len() - 1), &envelope), expected);
}

#[test]
fn names_of_another_overlay_are_refused() {
    let host = crate::name::OverlayId::parse("example.com").unwrap();
    let foreign = Draft::user("sip:alice@example.com", 1);
    assert_eq!(refusal(&open(), &foreign.seal(None)), Refusal::ForeignOverlay { host: host.clone() });
    let world = Enrolled::new();
    let envelope = forge(&foreign, &world.certificate(1, &[ALICE]), &testing::key(1));
    assert_eq!(refusal(&world.trust, &envelope), Refusal::ForeignOverlay { host });
}

#[test]
fn a_record_of_another_name_than_asked_for_is_refused() {
    let refusal = open().verify(&alice().seal(None), Some(&name(BOB)), NOW).unwrap_err();
    assert_eq!(refusal, Refusal::WrongName { expected: name(BOB), found: name(ALICE) });
}

#[test]
fn only_the_certified_key_can_sign() {
    let world = Enrolled::new();
    let certificate = world.certificate(1, &[ALICE]);
    assert_eq!(refusal(&world.trust, &forge(&alice(), &certificate, &testing::key(2))), Refusal::BadSignature);
    assert_eq!(refusal(&world.trust, &alice().seal(None)), Refusal::NoCredentials);
}

#[test]
fn only_the_overlays_ca_certifies() {
    let world = Enrolled::new();
    // Same name, another key.
    let authority = Authority::create(&testing::overlay(), NOW).unwrap();
    let other = Enrolled { authority, trust: Arc::clone(&world.trust) };
    let envelope = alice().seal(Some(&other.certificate(1, &[ALICE])));
    assert_eq!(refusal(&world.trust, &envelope), Refusal::UnknownAuthority);
    assert_eq!(refusal(&open(), &envelope), Refusal::UnknownAuthority);
    let ca = other.authority.certificate();
    assert_eq!(refusal(&world.trust, &forge(&alice(), ca, &testing::key(1))), Refusal::UnknownAuthority);
    let ca = world.authority.certificate();
    assert_eq!(refusal(&world.trust, &forge(&alice(), ca, &testing::key(1))).code(), "malformed");
}

#[test]
fn a_certificate_speaks_for_the_names_in_it_only() {
    let world = Enrolled::new();
    let certificate = world.certificate(1, &[ALICE]);
    let bob = Draft::user(BOB, 1);
    assert_eq!(refusal(&world.trust, &forge(&bob, &certificate, &testing::key(1))), Refusal::NotNamed);
    let proxy = Draft::service("sip:p2psip.org", 1);
    assert_eq!(refusal(&world.trust, &forge(&proxy, &certificate, &testing::key(1))), Refusal::NotNamed);
}

#[test]
fn a_certificate_holds_for_its_time_even_if_it_is_known() {
    let world = Enrolled::new();
    let certificate = world.certificate(1, &[ALICE]);
    let later = UnixMs(certificate.not_after().0 + 1);
    let envelope = alice().sequence(later.0).seal(Some(&certificate));
    for _ in 0..2 {
        let refusal = world.trust.verify(&envelope, None, later).unwrap_err();
        assert_eq!(refusal, Refusal::CertificateExpired { at: certificate.not_after() });
        world.trust.verify(&alice().seal(Some(&certificate)), None, NOW).unwrap();
    }
    let certificate = world.certificate_at(1, &[ALICE], UnixMs(NOW.0 + 2 * DAY));
    assert_eq!(refusal(&world.trust, &alice().seal(Some(&certificate))), Refusal::CertificateNotYetValid);
}

#[test]
fn a_revoked_certificate_is_refused_even_if_it_is_known() {
    let world = Enrolled::new();
    let certificate = world.certificate(1, &[ALICE]);
    let envelope = alice().seal(Some(&certificate));
    world.trust.verify(&envelope, None, NOW).unwrap();
    let serial = certificate.serial().to_owned();
    let list = world.authority.revoke(None, std::slice::from_ref(&serial), NOW).unwrap();
    assert!(world.trust.set_revocations(list.clone()));
    assert_eq!(refusal(&world.trust, &envelope), Refusal::Revoked { serial });
    let again = alice().seal(Some(&world.certificate(1, &[ALICE])));
    world.trust.verify(&again, None, NOW).unwrap();

    // The same list and an older one change nothing.
    let older = world.authority.revoke(None, &[], UnixMs(NOW.0 - 1)).unwrap();
    assert!(!world.trust.set_revocations(list.clone()) && !world.trust.set_revocations(older));
    assert_eq!(world.trust.revocations(), Some(list));
}

#[test]
fn a_reader_believes_pinned_keys_only_and_a_storer_does_not_care() {
    let trust = open();
    let [one, other] = [1, 2].map(|key| Draft::user(ALICE, key).seal(None));
    let other = trust.verify(&other, None, NOW).unwrap();
    trust.check_pin(&other).unwrap();
    trust.pin(name(ALICE), testing::key(1).public());
    let one = trust.verify(&one, None, NOW).unwrap();
    assert!(one.is_pinned());
    trust.check_pin(&one).unwrap();
    let refusal = Refusal::NotPinned { signer: *other.instance() };
    assert_eq!(trust.check_pin(&other), Err(refusal));
    trust.verify(&Draft::user(ALICE, 2).seal(None), None, NOW).unwrap();
    trust.check_pin(&trust.verify(&Draft::user(BOB, 2).seal(None), None, NOW).unwrap()).unwrap();
}

#[test]
fn a_record_holds_from_its_writing_to_its_expiry() {
    let trust = open();
    let envelope = alice().seal(None);
    let at = |now| trust.verify(&envelope, None, UnixMs(now));
    let expired = Refusal::Expired { at: UnixMs(NOW.0 + LIFETIME) };
    assert!(at(NOW.0 + LIFETIME - 1).is_ok());
    assert_eq!(at(NOW.0 + LIFETIME).unwrap_err(), expired);
    assert_eq!(at(u64::MAX).unwrap_err(), expired);
    assert!(at(NOW.0 - 30_000).is_ok());
    assert_eq!(at(NOW.0 - 30_001).unwrap_err(), Refusal::FromTheFuture { by_ms: 30_001 });
    assert_eq!(at(0).unwrap_err(), Refusal::FromTheFuture { by_ms: NOW.0 });
}

#[test]
fn a_record_lives_no_longer_than_the_policy_allows_and_a_tombstone_a_little_longer() {
    let trust = open();
    let lives = |draft: Draft, ms| trust.verify(&draft.expires(UnixMs(NOW.0 + ms)).seal(None), None, NOW);
    assert!(lives(alice(), DAY).is_ok());
    assert_eq!(lives(alice(), DAY + 1).unwrap_err(), Refusal::LifetimeTooLong { s: 86_401, max_s: 86_400 });
    assert!(lives(alice().removed(), DAY + 120_000).is_ok());
    let refusal = Refusal::LifetimeTooLong { s: 86_521, max_s: 86_520 };
    assert_eq!(lives(alice().removed(), DAY + 120_001).unwrap_err(), refusal);
    assert!(lives(alice(), u64::MAX - NOW.0).is_err());
}

#[test]
fn a_service_record_does_not_outlive_its_provider_for_long_whatever_the_policy_allows() {
    let trust = open();
    let lives = |draft: Draft, ms| trust.verify(&draft.expires(UnixMs(NOW.0 + ms)).seal(None), None, NOW);
    let proxy = || Draft::service("sip:p2psip.org", 2);
    assert!(lives(proxy(), 600_000).is_ok());
    assert_eq!(lives(proxy(), 600_001).unwrap_err(), Refusal::LifetimeTooLong { s: 601, max_s: 600 });
    assert!(lives(proxy().removed(), 720_000).is_ok());
    assert!(lives(proxy().removed(), 720_001).is_err());
}

#[test]
fn a_signed_payload_of_the_wrong_shape_is_malformed() {
    let key = testing::key(1);
    let credentials = Credentials::Key(key.public());
    let sign = |payload: Vec<u8>| envelope::sign(&credentials, payload, &key).unwrap();
    let mut draft = alice();
    draft.payload.body = Body::User { contacts: vec![] };
    for payload in [draft.payload.encode().unwrap(), Vec::new(), vec![0xa0]] {
        assert_eq!(refusal(&open(), &sign(payload)).code(), "malformed");
    }
    let mut followed = alice().payload.encode().unwrap();
    followed.push(0);
    assert!(refusal(&open(), &sign(followed)).to_string().contains("octets follow"));
    let mut other = Draft::service("sip:p2psip.org", 2);
    other.key = 1;
    assert!(refusal(&open(), &sign(other.payload.encode().unwrap())).to_string().contains("another peer"));
}

#[test]
fn a_refusal_tells_forged_from_expired() {
    // A record that is both is forged: what an unverified record says about time is nobody's word.
    let world = Enrolled::new();
    let certificate = world.certificate(1, &[ALICE]);
    let forged = forge(&alice().expires(UnixMs(NOW.0 + 1)), &certificate, &testing::key(2));
    let refusal = world.trust.verify(&forged, None, UnixMs(NOW.0 + 2)).unwrap_err();
    assert_eq!((refusal.kind(), refusal), (Kind::Untrusted, Refusal::BadSignature));
}

#[test]
fn a_record_that_is_known_is_asked_again_for_all_that_may_change() {
    let world = Enrolled::new();
    let (name, bob) = (name(ALICE), name(BOB));
    let certificate = world.certificate(1, &[ALICE]);
    let draft = alice();
    let envelope = draft.seal(Some(&certificate));
    let verify = |expected: Option<&ResourceName>, now| world.trust.verify(&envelope, expected, now);
    let first = verify(None, NOW).unwrap();
    // It is the very same, which was checked but once.
    let again = verify(Some(&name), NOW).unwrap();
    assert!(Arc::ptr_eq(&first.shared_envelope(), &again.shared_envelope()));
    assert_eq!(verify(Some(&bob), NOW), Err(Refusal::WrongName { expected: bob, found: name.clone() }));
    assert_eq!(verify(None, draft.payload.expires), Err(Refusal::Expired { at: draft.payload.expires }));
    assert!(matches!(verify(None, UnixMs(NOW.0 - 31_000)), Err(Refusal::FromTheFuture { .. })));
    let too_late = UnixMs(certificate.not_after().0 + 1);
    assert_eq!(verify(None, too_late), Err(Refusal::CertificateExpired { at: certificate.not_after() }));
    world.trust.pin(name, testing::key(1).public());
    assert!(!again.is_pinned() && verify(None, NOW).unwrap().is_pinned());
    let serial = certificate.serial().to_owned();
    world.trust.set_revocations(world.authority.revoke(None, std::slice::from_ref(&serial), NOW).unwrap());
    assert_eq!(verify(None, NOW), Err(Refusal::Revoked { serial }));
}

#[test]
fn no_single_octet_of_an_envelope_can_be_changed() {
    let world = Enrolled::new();
    let envelope = alice().seal(Some(&world.certificate(1, &[ALICE])));
    world.trust.verify(&envelope, None, NOW).unwrap();
    for at in 0..envelope.len() {
        for change in [1, 0x80, 0xff] {
            let mut mutated = envelope.clone();
            mutated[at] ^= change;
            assert!(world.trust.verify(&mutated, None, NOW).is_err(), "octet {at} ^ {change:#x}");
        }
        assert!(world.trust.verify(&envelope[..at], None, NOW).is_err(), "cut at {at}");
    }
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let index = any::<prop::sample::Index>;
    let mutation = prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, octet)| Mutation::Set(at, octet)),
        index().prop_map(Mutation::Remove),
        (index(), any::<u8>()).prop_map(|(at, octet)| Mutation::Insert(at, octet)),
        (index(), index()).prop_map(|(one, other)| Mutation::Swap(one, other)),
    ];
    proptest::collection::vec(mutation, 1..6)
}

proptest! {
    #[test]
    fn random_octets_are_never_a_record(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(open().verify(&octets, None, NOW).is_err());
    }

    #[test]
    fn nothing_but_the_envelope_is_accepted(enrolled in any::<bool>(), mutations in mutations()) {
        static WORLD: std::sync::LazyLock<(Enrolled, Certificate)> = std::sync::LazyLock::new(|| {
            let world = Enrolled::new();
            let certificate = world.certificate(1, &[ALICE]);
            (world, certificate)
        });
        let (world, certificate) = &*WORLD;
        let envelope = alice().seal(enrolled.then_some(certificate));
        let trust = if enrolled { Arc::clone(&world.trust) } else { open() };
        let mut mutated = envelope.clone();
        for mutation in mutations {
            match mutation {
                Mutation::Set(at, octet) => {
                    let at = at.index(mutated.len());
                    mutated[at] = octet;
                }
                Mutation::Remove(at) => drop(mutated.remove(at.index(mutated.len()))),
                Mutation::Insert(at, octet) => mutated.insert(at.index(mutated.len() + 1), octet),
                Mutation::Swap(one, other) => mutated.swap(one.index(envelope.len() - 6), other.index(envelope.len() - 6)),
            }
        }
        prop_assert_eq!(trust.verify(&mutated, None, NOW).is_ok(), mutated == envelope);
    }
}
