//! Who may store what: the one check that storers and readers make of every record.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{
    Payload, Refusal, VerifiedRecord,
    envelope::{self, Credentials},
};
use crate::{
    clock::UnixMs,
    identity::{Certificate, CertificateError, Descriptor, Policy, PublicKey, RevocationList},
    name::ResourceName,
};

/// How far a writer's clock may be ahead.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);
/// How much longer than other records a tombstone may live, so that it outlives what it removes.
pub const TOMBSTONE_GRACE: Duration = Duration::from_secs(120);
/// How many certificates are remembered as good.
const MAX_CERTIFICATES: usize = 4096;

/// What a verifier believes: the overlay's descriptor, what its CA has revoked, and the keys that the user has pinned.
///
/// Shared between threads: verifying takes some 60 µs, nearly all for the signature, and needs no exclusive access.
#[derive(Debug)]
pub struct Trust {
    descriptor: Arc<Descriptor>,
    revocations: RwLock<Option<RevocationList>>,
    pins: RwLock<BTreeMap<ResourceName, BTreeSet<PublicKey>>>,
    certificates: Mutex<Certificates>,
}

/// Certificates that the CA has signed, by the hash of their DER: a member renews its record many times with one
/// certificate. Only what the CA has signed gets in, so nobody else can push others out.
#[derive(Debug, Default)]
struct Certificates {
    good: HashMap<[u8; 32], Certificate>,
    /// In the order of their arrival.
    order: VecDeque<[u8; 32]>,
}

impl Trust {
    /// What a member of the overlay believes that knows this revocation list, if any.
    pub fn new(descriptor: Arc<Descriptor>, revocations: Option<RevocationList>) -> Self {
        Self {
            descriptor,
            revocations: RwLock::new(revocations),
            pins: RwLock::default(),
            certificates: Mutex::default(),
        }
    }

    /// The overlay's descriptor.
    pub const fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// Takes a revocation list if it is newer than the one known, and says whether it was. (A list that exists was
    /// signed by the CA.)
    pub fn set_revocations(&self, list: RevocationList) -> bool {
        let mut known = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        let newer = list.overlay() == self.descriptor.overlay()
            && known.as_ref().is_none_or(|known| known.sequence() < list.sequence());
        if newer {
            *known = Some(list);
        }
        newer
    }

    /// The revocation list known.
    pub fn revocations(&self) -> Option<RevocationList> {
        self.revocations.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a certificate's serial number has been revoked.
    pub fn is_revoked(&self, serial: &str) -> bool {
        let known = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|list| list.contains(serial))
    }

    /// Pins a key for a name (open policy): from now on a reader believes only pinned keys about it.
    pub fn pin(&self, name: ResourceName, key: PublicKey) {
        self.pins.write().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().insert(key);
    }

    /// What a reader asks besides [`Trust::verify`]: whether the signer is one of the keys pinned for the name, if any
    /// are. A storer does not ask: a pin is one user's opinion.
    ///
    /// # Errors
    /// [`Refusal::NotPinned`].
    pub fn check_pin(&self, record: &VerifiedRecord) -> Result<(), Refusal> {
        let pins = self.pins.read().unwrap_or_else(PoisonError::into_inner);
        match pins.get(record.name()) {
            Some(keys) if !keys.contains(&record.signer()) => Err(Refusal::NotPinned { signer: *record.instance() }),
            _ => Ok(()),
        }
    }

    /// Verifies a record, of the name `expected` if one is given.
    ///
    /// What is cheap to see comes first, so that nonsense costs little; the time comes last, so that a record refused
    /// as expired is a genuine one.
    ///
    /// # Errors
    /// The [`Refusal`] that says why it is not to be stored or believed.
    pub fn verify(
        &self,
        envelope: &[u8],
        expected: Option<&ResourceName>,
        now: UnixMs,
    ) -> Result<VerifiedRecord, Refusal> {
        let limit = self.descriptor.limits().max_record_bytes;
        if envelope.len() > limit {
            let count = |size| u64::try_from(size).unwrap_or(u64::MAX);
            return Err(Refusal::TooLarge { bytes: count(envelope.len()), limit: count(limit) });
        }
        let opened = envelope::open(envelope)?;
        let payload = Payload::decode(&opened.payload)?;
        if payload.name.overlay() != self.descriptor.overlay() {
            return Err(Refusal::ForeignOverlay { host: payload.name.overlay().clone() });
        }
        if let Some(expected) = expected.filter(|&expected| *expected != payload.name) {
            return Err(Refusal::WrongName { expected: expected.clone(), found: payload.name });
        }
        let (signer, serial) = self.signer(opened.credentials, &payload.name, now)?;
        if !signer.verify(&opened.message, &opened.signature) {
            return Err(Refusal::BadSignature);
        }
        payload.validate(&signer.peer_id())?;
        self.check_time(&payload, now)?;
        let pinned = self.is_pinned(&payload.name, &signer);
        Ok(VerifiedRecord::new(payload, signer, serial, pinned, envelope))
    }

    /// The key that must have signed, and its certificate's serial number, if the policy lets it speak for `name`.
    fn signer(
        &self,
        credentials: Credentials,
        name: &ResourceName,
        now: UnixMs,
    ) -> Result<(PublicKey, Option<String>), Refusal> {
        match (credentials, self.descriptor.policy()) {
            (Credentials::Key(key), Policy::Open) => Ok((key, None)),
            (Credentials::Key(_), Policy::Enrolled) => Err(Refusal::NoCredentials),
            (Credentials::Certificate(der), _) => {
                let certificate = self.certificate(&der, now)?;
                if self.is_revoked(certificate.serial()) {
                    return Err(Refusal::Revoked { serial: certificate.serial().to_owned() });
                }
                if !certificate.is_for(name) {
                    return Err(Refusal::NotNamed);
                }
                Ok((certificate.public_key(), Some(certificate.serial().to_owned())))
            }
        }
    }

    /// A certificate of this overlay's CA that is valid now.
    fn certificate(&self, der: &[u8], now: UnixMs) -> Result<Certificate, Refusal> {
        let ca = self.descriptor.ca().ok_or(Refusal::UnknownAuthority)?;
        let hash: [u8; 32] = Sha256::digest(der).into();
        let known = self.certificates().good.get(&hash).cloned();
        if let Some(certificate) = known {
            ca.check_validity(now).and_then(|()| certificate.check_validity(now)).map_err(certificate_refusal)?;
            return Ok(certificate);
        }
        let certificate = Certificate::from_der(der).map_err(certificate_refusal)?;
        certificate.check(ca, now).map_err(certificate_refusal)?;
        self.certificates().insert(hash, certificate.clone());
        Ok(certificate)
    }

    fn certificates(&self) -> MutexGuard<'_, Certificates> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_pinned(&self, name: &ResourceName, signer: &PublicKey) -> bool {
        let pins = self.pins.read().unwrap_or_else(PoisonError::into_inner);
        pins.get(name).is_some_and(|keys| keys.contains(signer))
    }

    fn check_time(&self, payload: &Payload, now: UnixMs) -> Result<(), Refusal> {
        if payload.expires <= now {
            return Err(Refusal::Expired { at: payload.expires });
        }
        let written = UnixMs(payload.sequence);
        if written > now.after(CLOCK_TOLERANCE) {
            return Err(Refusal::FromTheFuture { by_ms: written.0.saturating_sub(now.0) });
        }
        let max = Duration::from_secs(self.descriptor.limits().max_lifetime_s.into());
        let grace = if payload.is_tombstone() { TOMBSTONE_GRACE } else { Duration::ZERO };
        let lifetime = payload.expires.0.saturating_sub(payload.sequence);
        if Duration::from_millis(lifetime) > max + grace {
            return Err(Refusal::LifetimeTooLong { s: lifetime.div_ceil(1000), max_s: (max + grace).as_secs() });
        }
        Ok(())
    }
}

impl Certificates {
    fn insert(&mut self, hash: [u8; 32], certificate: Certificate) {
        if self.good.insert(hash, certificate).is_none() {
            self.order.push_back(hash);
        }
        while self.order.len() > MAX_CERTIFICATES {
            if let Some(oldest) = self.order.pop_front() {
                self.good.remove(&oldest);
            }
        }
    }
}

fn certificate_refusal(error: CertificateError) -> Refusal {
    match error {
        CertificateError::Forged => Refusal::UnknownAuthority,
        CertificateError::Expired { at } => Refusal::CertificateExpired { at },
        CertificateError::NotYetValid { .. } => Refusal::CertificateNotYetValid,
        CertificateError::WrongName => Refusal::NotNamed,
        CertificateError::Malformed { why } => Refusal::malformed(format!("its certificate: {why}")),
    }
}

#[cfg(test)]
mod tests {
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
    fn the_certificates_remembered_are_bounded() {
        let mut certificates = Certificates::default();
        let certificate = Enrolled::new().certificate(1, &[ALICE]);
        for nth in 0..5000u32 {
            let hash: [u8; 32] = Sha256::digest(nth.to_be_bytes()).into();
            certificates.insert(hash, certificate.clone());
            certificates.insert(hash, certificate.clone());
        }
        assert_eq!((certificates.good.len(), certificates.order.len()), (MAX_CERTIFICATES, MAX_CERTIFICATES));
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
}
