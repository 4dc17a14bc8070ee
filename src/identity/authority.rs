//! The overlay's CA: what certifies members' keys and takes certificates back.

use std::{collections::BTreeMap, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose};
use time::OffsetDateTime;

use super::{
    Certificate, CertificateRequest, IdentityError, RevocationList, SecretKey,
    key::random,
    request::{RcgenKey, RcgenSubject, alternative_names, check_names, refused},
};
use crate::{
    clock::UnixMs,
    name::{OverlayId, ResourceName},
};

/// How long a new CA's certificate is valid: ten years.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3652 * 86_400);
/// The longest validity of a member's certificate: two years. A revocation need not be remembered for longer.
pub const MAX_LIFETIME: Duration = Duration::from_secs(730 * 86_400);
/// How far validity begins in the past, for members whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(3600);

/// The CA of one overlay: its key and its certificate.
#[derive(Debug, Clone)]
pub struct Authority {
    overlay: OverlayId,
    key: SecretKey,
    certificate: Certificate,
}

impl Authority {
    /// Makes a CA with a new key and a self-signed certificate that is valid for ten years.
    ///
    /// # Errors
    /// [`IdentityError::Entropy`]; [`IdentityError::Request`] if the clock is beyond the calendar.
    pub fn create(overlay: &OverlayId, now: UnixMs) -> Result<Self, IdentityError> {
        let key = SecretKey::generate()?;
        let mut params = parameters(now.before(BACKDATED), now.after(AUTHORITY_LIFETIME))?;
        params.distinguished_name.push(DnType::CommonName, overlay.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate =
            params.self_signed(&RcgenKey::new(&key)).map_err(|error| refused(format!("no CA certificate: {error}")))?;
        Self::new(overlay.clone(), key, read_back(&certificate)?)
    }

    /// The CA that has this key and this certificate.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] if the certificate is not a CA's or not this key's.
    pub fn new(overlay: OverlayId, key: SecretKey, certificate: Certificate) -> Result<Self, IdentityError> {
        let refuse = |reason| IdentityError::Certificate { target: format!("of the CA of {overlay}"), reason };
        certificate.check_authority().map_err(refuse)?;
        if certificate.public_key() != key.public() {
            return Err(IdentityError::KeyMismatch {
                what: "the CA's certificate".to_owned(),
                key: "the CA's key".to_owned(),
            });
        }
        Ok(Self { overlay, key, certificate })
    }

    /// The overlay that it certifies members of.
    pub const fn overlay(&self) -> &OverlayId {
        &self.overlay
    }

    /// Its certificate, which belongs into the descriptor.
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its private key.
    pub(super) const fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Certifies the key of `request` for `names` (which may differ from what the request asks for) from an hour ago
    /// until `lifetime` from now, or until the CA's own certificate ends if that is sooner.
    ///
    /// # Errors
    /// [`IdentityError::Name`] for a name of another overlay; [`IdentityError::Request`] for no, too many or mixed
    /// names, or a lifetime of less than a second or more than [`MAX_LIFETIME`]; [`IdentityError::Certificate`] if
    /// the CA's own certificate is not valid now.
    pub fn issue(
        &self,
        request: &CertificateRequest,
        names: &[ResourceName],
        lifetime: Duration,
        now: UnixMs,
    ) -> Result<Certificate, IdentityError> {
        check_names(names, &self.overlay)?;
        if lifetime < Duration::from_secs(1) || lifetime > MAX_LIFETIME {
            let (days, most) = (lifetime.as_secs_f64() / 86_400.0, MAX_LIFETIME.as_secs() / 86_400);
            return Err(refused(format!("a lifetime of {days} days is not between one second and {most} days")));
        }
        let refuse = |target: &str, reason| IdentityError::Certificate { target: target.to_owned(), reason };
        self.certificate.check_validity(now).map_err(|reason| refuse("of the CA", reason))?;
        let mut params = parameters(
            now.before(BACKDATED).max(self.certificate.not_before()),
            now.after(lifetime).min(self.certificate.not_after()),
        )?;
        // No subject: a member is the names in its subjectAltName, which is therefore critical (RFC 5280 §4.2.1.6).
        params.subject_alt_names = alternative_names(names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let issued = Issuer::from_ca_cert_der(&self.certificate.der().into(), RcgenKey::new(&self.key))
            .and_then(|issuer| params.signed_by(&RcgenSubject(request.public_key()), &issuer))
            .map_err(|error| refused(error.to_string()))?;
        let certificate = read_back(&issued)?;
        certificate.check(&self.certificate, now).map_err(|reason| refuse("just issued", reason))?;
        Ok(certificate)
    }

    /// The list that follows `previous` and names `serials` besides. Serials whose certificates have expired in any
    /// case, [`MAX_LIFETIME`] after their revocation, are left out.
    ///
    /// # Errors
    /// [`IdentityError::Revocations`] if a serial is none or the list grows beyond 64 KiB.
    pub fn revoke(
        &self,
        previous: Option<&RevocationList>,
        serials: &[String],
        now: UnixMs,
    ) -> Result<RevocationList, IdentityError> {
        let mut revoked: BTreeMap<String, UnixMs> = previous.map(|list| list.serials().clone()).unwrap_or_default();
        revoked.retain(|_, at| at.after(MAX_LIFETIME) > now);
        for serial in serials {
            revoked.entry(serial.clone()).or_insert(now);
        }
        let sequence = previous.map_or(now.0, |list| now.0.max(list.sequence().saturating_add(1)));
        RevocationList::sign(self.overlay.clone(), sequence, now, revoked, &self.key)
    }
}

/// What all our certificates have in common: a validity and a random serial number.
fn parameters(not_before: UnixMs, not_after: UnixMs) -> Result<CertificateParams, IdentityError> {
    let mut serial = random::<16>()?;
    // Positive, and sixteen octets without a leading zero (RFC 5280 §4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial.to_vec().into());
    params.not_before = calendar(not_before)?;
    params.not_after = calendar(not_after)?;
    Ok(params)
}

fn calendar(at: UnixMs) -> Result<OffsetDateTime, IdentityError> {
    i64::try_from(at.0 / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| refused("the clock is beyond the year 9999"))
}

fn read_back(certificate: &rcgen::Certificate) -> Result<Certificate, IdentityError> {
    Certificate::from_der(certificate.der())
        .map_err(|reason| IdentityError::Certificate { target: "just made".to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::CertificateError;

    const NOW: UnixMs = UnixMs(1_800_000_000_500);
    const DAY: Duration = Duration::from_secs(86_400);

    fn overlay() -> OverlayId {
        "p2psip.org".parse().unwrap()
    }

    fn request(names: &[&str]) -> CertificateRequest {
        let names: Vec<ResourceName> = names.iter().map(|name| name.parse().unwrap()).collect();
        CertificateRequest::create(&SecretKey::from_seed(&[3; 32]), &names).unwrap()
    }

    #[test]
    fn an_issued_certificate_certifies_the_requested_key_and_names() {
        let authority = Authority::create(&overlay(), NOW).unwrap();
        authority.certificate().check_authority().unwrap();
        assert_eq!(authority.certificate().subject(), "CN=p2psip.org");
        assert!(authority.certificate().names().is_empty());
        let request = request(&["sip:alice@p2psip.org", "sip:alice.b@p2psip.org"]);
        let certificate = authority.issue(&request, request.names(), DAY, NOW).unwrap();
        certificate.check(authority.certificate(), NOW).unwrap();
        assert_eq!(certificate.public_key(), request.public_key());
        assert_eq!(certificate.names(), request.names());
        assert_eq!(certificate.serial().len(), 32);
        assert_eq!(certificate.not_before(), UnixMs(1_800_000_000_000 - 3_600_000));
        assert_eq!(certificate.not_after(), UnixMs(1_800_000_000_999 + 86_400_000));
        assert!(certificate.der().len() < 400, "{} bytes in every record", certificate.der().len());
        let second = authority.issue(&request, request.names(), DAY, NOW).unwrap();
        assert_ne!(second.serial(), certificate.serial());
    }

    #[test]
    fn only_names_of_the_overlay_are_certified() {
        let authority = Authority::create(&overlay(), NOW).unwrap();
        for (foreign, _) in [("sip:alice@example.com", 0), ("turn:example.com", 0)] {
            let request = request(&[foreign]);
            let error = authority.issue(&request, request.names(), DAY, NOW).unwrap_err();
            assert!(matches!(error, IdentityError::Name(_)), "{error}");
        }
        let request = request(&["sip:alice@p2psip.org"]);
        for names in [&[][..], &["sip:alice@p2psip.org".parse().unwrap(), "sip:p2psip.org".parse().unwrap()]] {
            assert!(matches!(authority.issue(&request, names, DAY, NOW), Err(IdentityError::Request { .. })));
        }
    }

    #[test]
    fn lifetimes_have_bounds() {
        let authority = Authority::create(&overlay(), NOW).unwrap();
        let request = request(&["sip:alice@p2psip.org"]);
        for lifetime in [Duration::ZERO, MAX_LIFETIME + DAY] {
            let error = authority.issue(&request, request.names(), lifetime, NOW).unwrap_err().to_string();
            assert!(error.contains("lifetime"), "{error}");
        }
        let late = authority.certificate().not_after().before(DAY);
        let certificate = authority.issue(&request, request.names(), 30 * DAY, late).unwrap();
        assert_eq!(certificate.not_after(), authority.certificate().not_after());
        let too_late = late.after(2 * DAY);
        assert!(matches!(
            authority.issue(&request, request.names(), DAY, too_late),
            Err(IdentityError::Certificate { reason: CertificateError::Expired { .. }, .. })
        ));
    }

    #[test]
    fn lists_follow_each_other_whatever_the_clock_does() {
        let authority = Authority::create(&overlay(), NOW).unwrap();
        let first = authority.revoke(None, &["0a".to_owned()], NOW).unwrap();
        let second = authority.revoke(Some(&first), &["0b".to_owned()], NOW.before(DAY)).unwrap();
        assert_eq!((first.sequence(), second.sequence()), (NOW.0, NOW.0 + 1));
        assert!(second.contains("0a") && second.contains("0b") && !second.contains("0c"));
        assert_eq!(second.serials()["0a"], NOW);
        let third = authority.revoke(Some(&second), &[], NOW.after(MAX_LIFETIME)).unwrap();
        assert!(third.serials().is_empty(), "what has expired in any case is forgotten");
    }

    #[test]
    fn a_key_and_a_certificate_that_do_not_belong_together_are_refused() {
        let (one, other) = (Authority::create(&overlay(), NOW).unwrap(), Authority::create(&overlay(), NOW).unwrap());
        let mixed = Authority::new(overlay(), one.key().clone(), other.certificate().clone());
        assert!(matches!(mixed, Err(IdentityError::KeyMismatch { .. })));
        let request = request(&["sip:alice@p2psip.org"]);
        let leaf = one.issue(&request, request.names(), DAY, NOW).unwrap();
        assert!(Authority::new(overlay(), one.key().clone(), leaf).is_err());
    }
}
