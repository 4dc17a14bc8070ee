//! Who may store what: the one check that storers and readers make of every record.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{
    Payload, Refusal, VerifiedRecord,
    envelope::{self, Credentials},
    service::MAX_SERVICE_LIFETIME,
};
use crate::{
    bounded::Bounded,
    clock::UnixMs,
    identity::{Certificate, CertificateError, Descriptor, Policy, PublicKey, RevocationList},
    name::{PeerId, ResourceName},
};

/// How far a writer's clock may be ahead.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);
/// How much longer than other records a tombstone may live, so that it outlives what it removes.
pub const TOMBSTONE_GRACE: Duration = Duration::from_secs(120);
/// How many certificates are remembered as good.
const MAX_CERTIFICATES: usize = 4096;
/// How many records are remembered as genuine, and how many envelopes as forged.
const MAX_GENUINE: usize = 1024;
const MAX_FORGED: usize = 256;

/// What signatures were checked of, by the SHA-256 of its octets.
type Remembered<V> = Mutex<Bounded<[u8; 32], V>>;

/// What a verifier believes: the overlay's descriptor, what its CA has revoked, and the keys that the user has pinned.
///
/// Shared between threads: verifying takes some 60 µs the first time, nearly all for the signature, and needs no
/// exclusive access meanwhile.
#[derive(Debug)]
pub struct Trust {
    descriptor: Arc<Descriptor>,
    revocations: RwLock<Option<RevocationList>>,
    pins: RwLock<BTreeMap<ResourceName, BTreeSet<PublicKey>>>,
    /// Certificates that the CA has signed, by their DER: a member renews its record many times with one certificate.
    /// Only what the CA has signed gets in, so nobody else can push others out.
    certificates: Remembered<Certificate>,
    /// Records that were rightly signed, by their envelopes: each storer of a name returns the same ones, and that to
    /// every reader.
    genuine: Remembered<Genuine>,
    /// Envelopes that were not signed by whom they name. Anybody can make up others, and push these out; whoever is just
    /// damaged, or lies without effort, costs one check.
    forged: Remembered<()>,
}

/// A record that was rightly signed. Whether it holds is asked each time: that depends on the time, and on the CA.
#[derive(Debug, Clone)]
struct Genuine {
    record: VerifiedRecord,
    certificate: Option<Certificate>,
}

impl Trust {
    /// What a member of the overlay believes that knows this revocation list, if any.
    pub fn new(descriptor: Arc<Descriptor>, revocations: Option<RevocationList>) -> Self {
        Self {
            descriptor,
            revocations: RwLock::new(revocations),
            pins: RwLock::default(),
            certificates: Mutex::new(Bounded::new(MAX_CERTIFICATES)),
            genuine: Mutex::new(Bounded::new(MAX_GENUINE)),
            forged: Mutex::new(Bounded::new(MAX_FORGED)),
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
        let digest = Sha256::digest(envelope).into();
        let known = lock(&self.genuine).get(&digest).cloned();
        if let Some(Genuine { record, certificate }) = known.filter(|known| self.is_pinned_as_then(&known.record)) {
            check_name(record.name(), expected)?;
            certificate.map_or(Ok(()), |certificate| self.check_certificate(&certificate, now))?;
            self.check_time(record.payload(), now)?;
            return Ok(record);
        }
        let opened = envelope::open(envelope)?;
        let payload = Payload::decode(&opened.payload)?;
        if payload.name.overlay() != self.descriptor.overlay() {
            return Err(Refusal::ForeignOverlay { host: payload.name.overlay().clone() });
        }
        check_name(&payload.name, expected)?;
        let (signer, certificate) = self.signer(opened.credentials, &payload.name, now)?;
        if lock(&self.forged).get(&digest).is_some() {
            return Err(Refusal::BadSignature);
        }
        if !signer.verify(&opened.message, &opened.signature) {
            lock(&self.forged).insert(digest, ());
            return Err(Refusal::BadSignature);
        }
        payload.validate(&signer.peer_id())?;
        self.check_time(&payload, now)?;
        let pinned = self.is_pinned(&payload.name, &signer);
        let serial = certificate.as_ref().map(|certificate| certificate.serial().to_owned());
        let record = VerifiedRecord::new(payload, signer, serial, pinned, envelope);
        lock(&self.genuine).insert(digest, Genuine { record: record.clone(), certificate });
        Ok(record)
    }

    /// Whether a certificate (DER) permits the key that `peer` names to speak for `name` now; returns its serial number.
    ///
    /// # Errors
    /// As [`Trust::verify`] refuses a record that carries it.
    pub fn permits(
        &self,
        certificate: &[u8],
        peer: &PeerId,
        name: &ResourceName,
        now: UnixMs,
    ) -> Result<String, Refusal> {
        match self.signer(Credentials::Certificate(certificate.to_vec()), name, now)? {
            (key, Some(certificate)) if key.peer_id() == *peer => Ok(certificate.serial().to_owned()),
            _ => Err(Refusal::NotNamed),
        }
    }

    /// The key that must have signed, and its certificate, if the policy lets it speak for `name`.
    fn signer(
        &self,
        credentials: Credentials,
        name: &ResourceName,
        now: UnixMs,
    ) -> Result<(PublicKey, Option<Certificate>), Refusal> {
        match (credentials, self.descriptor.policy()) {
            (Credentials::Key(key), Policy::Open) => Ok((key, None)),
            (Credentials::Key(_), Policy::Enrolled) => Err(Refusal::NoCredentials),
            (Credentials::Certificate(der), _) => {
                let certificate = self.certificate(&der, now)?;
                if !certificate.is_for(name) {
                    return Err(Refusal::NotNamed);
                }
                Ok((certificate.public_key(), Some(certificate)))
            }
        }
    }

    /// A certificate of this overlay's CA that holds now.
    fn certificate(&self, der: &[u8], now: UnixMs) -> Result<Certificate, Refusal> {
        let ca = self.descriptor.ca().ok_or(Refusal::UnknownAuthority)?;
        let hash: [u8; 32] = Sha256::digest(der).into();
        let known = lock(&self.certificates).get(&hash).cloned();
        let certificate = match known {
            Some(certificate) => certificate,
            None => {
                let certificate = Certificate::from_der(der).map_err(certificate_refusal)?;
                certificate.check(ca, now).map_err(certificate_refusal)?;
                lock(&self.certificates).insert(hash, certificate.clone());
                certificate
            }
        };
        self.check_certificate(&certificate, now)?;
        Ok(certificate)
    }

    /// Whether a certificate of this overlay's CA holds now.
    fn check_certificate(&self, certificate: &Certificate, now: UnixMs) -> Result<(), Refusal> {
        let ca = self.descriptor.ca().ok_or(Refusal::UnknownAuthority)?;
        ca.check_validity(now).and_then(|()| certificate.check_validity(now)).map_err(certificate_refusal)?;
        if self.is_revoked(certificate.serial()) {
            return Err(Refusal::Revoked { serial: certificate.serial().to_owned() });
        }
        Ok(())
    }

    fn is_pinned(&self, name: &ResourceName, signer: &PublicKey) -> bool {
        let pins = self.pins.read().unwrap_or_else(PoisonError::into_inner);
        pins.get(name).is_some_and(|keys| keys.contains(signer))
    }

    /// Whether the user's opinion of the signer is what it was when the record was verified.
    fn is_pinned_as_then(&self, record: &VerifiedRecord) -> bool {
        record.is_pinned() == self.is_pinned(record.name(), &record.signer())
    }

    fn check_time(&self, payload: &Payload, now: UnixMs) -> Result<(), Refusal> {
        if payload.expires <= now {
            return Err(Refusal::Expired { at: payload.expires });
        }
        let written = UnixMs(payload.sequence);
        if written > now.after(CLOCK_TOLERANCE) {
            return Err(Refusal::FromTheFuture { by_ms: written.0.saturating_sub(now.0) });
        }
        let longest = Duration::from_secs(self.descriptor.limits().max_lifetime_s.into());
        let max = if payload.name.service().is_some() { longest.min(MAX_SERVICE_LIFETIME) } else { longest };
        let grace = if payload.is_tombstone() { TOMBSTONE_GRACE } else { Duration::ZERO };
        let lifetime = payload.expires.0.saturating_sub(payload.sequence);
        if Duration::from_millis(lifetime) > max + grace {
            return Err(Refusal::LifetimeTooLong { s: lifetime.div_ceil(1000), max_s: (max + grace).as_secs() });
        }
        Ok(())
    }
}

fn lock<V>(remembered: &Remembered<V>) -> MutexGuard<'_, Bounded<[u8; 32], V>> {
    remembered.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_name(found: &ResourceName, expected: Option<&ResourceName>) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != found => {
            Err(Refusal::WrongName { expected: expected.clone(), found: found.clone() })
        }
        _ => Ok(()),
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
mod tests;
