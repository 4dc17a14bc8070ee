//! What a home holds that the overlay's CA has signed: the descriptor, certificates and revocation lists.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Authority, Certificate, CertificateError, Descriptor, Home, IdentityError, KeyUse, PublicKey, RevocationList,
    SecretKey, files, home::make_private_folder, pem, revocation,
};
use crate::{clock::UnixMs, name::ResourceName};

/// The most certificates that one member has.
const MAX_CERTIFICATES: usize = 256;
/// The most copies of issued certificates that a CA looks through.
const MAX_ISSUED: usize = 100_000;
/// Held while one revocation list takes the place of another.
const REVOCATIONS_LOCK: &str = "revocations.lock";

impl Home {
    /// The overlay's descriptor, if there is one yet.
    ///
    /// # Errors
    /// As [`Descriptor::load`].
    pub fn descriptor(&self) -> Result<Option<Descriptor>, IdentityError> {
        present(Descriptor::load(&self.descriptor_path()))
    }

    /// Keeps the overlay's descriptor, replacing another.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn set_descriptor(&self, descriptor: &Descriptor) -> Result<(), IdentityError> {
        descriptor.save(&self.descriptor_path())
    }

    /// The overlay's CA, whose certificate is in the descriptor.
    ///
    /// # Errors
    /// [`IdentityError::Missing`] if this is not the CA's home, [`IdentityError::KeyMismatch`], or a file's error.
    pub fn authority(&self) -> Result<Authority, IdentityError> {
        let missing = |path: PathBuf, hint| IdentityError::Missing { path: path.display().to_string(), hint };
        let descriptor = self
            .descriptor()?
            .ok_or_else(|| missing(self.descriptor_path(), "make an overlay with p2p-enroll init OVERLAY"))?;
        let ca = descriptor.ca().ok_or_else(|| {
            missing(self.ca_key_path(), "an overlay of the policy open has no CA and no certificates")
        })?;
        let key = present(SecretKey::load(&self.ca_key_path()))?
            .ok_or_else(|| missing(self.ca_key_path(), "only the home that p2p-enroll init made has the CA's key"))?;
        Authority::new(descriptor.overlay().clone(), key, ca.clone())
    }

    /// Keeps a new CA: writes its key, which must not exist yet.
    ///
    /// # Errors
    /// [`IdentityError::Exists`], [`IdentityError::Io`].
    pub fn add_authority(&self, authority: &Authority) -> Result<(), IdentityError> {
        authority.key().save_new(&self.ca_key_path())
    }

    /// Every certificate in this home, in the order of their serial numbers.
    ///
    /// # Errors
    /// [`IdentityError::Format`] names the file that holds something else; [`IdentityError::Io`].
    pub fn certificates(&self) -> Result<Vec<Certificate>, IdentityError> {
        files_in(&self.certificates_path(), MAX_CERTIFICATES)?.iter().map(|path| load_certificate(path)).collect()
    }

    /// Copies of all the certificates that the CA of this home has issued, in the order of their serial numbers.
    ///
    /// # Errors
    /// As [`Home::certificates`].
    pub fn issued(&self) -> Result<Vec<Certificate>, IdentityError> {
        files_in(&self.issued_path(), MAX_ISSUED)?.iter().map(|path| load_certificate(path)).collect()
    }

    /// The files that [`Home::certificates`] and [`Home::issued`] read.
    pub(crate) fn certificate_files(&self) -> Result<Vec<PathBuf>, IdentityError> {
        let mut paths = files_in(&self.certificates_path(), MAX_CERTIFICATES)?;
        paths.extend(files_in(&self.issued_path(), MAX_ISSUED)?);
        Ok(paths)
    }

    /// Keeps a copy of a certificate that the CA of this home has issued, so that it can be revoked by its names.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn add_issued(&self, certificate: &Certificate) -> Result<(), IdentityError> {
        save_certificate(&self.issued_path(), certificate).map(drop)
    }

    /// The certificate that lets `key` speak for `name` now; of several, the one that is valid for longest.
    ///
    /// # Errors
    /// If there are some, but none holds now: [`IdentityError::Certificate`], or [`IdentityError::Revoked`] if the
    /// list in this home says so. As [`Home::certificates`] and [`Home::revocations`].
    pub fn certificate_for(
        &self,
        key: &PublicKey,
        name: &ResourceName,
        now: UnixMs,
    ) -> Result<Option<Certificate>, IdentityError> {
        let mut fitting = self.certificates()?;
        fitting.retain(|certificate| certificate.public_key() == *key && certificate.is_for(name));
        if fitting.is_empty() {
            return Ok(None);
        }
        let revocations = self.revocations()?;
        let hold = |certificate: &Certificate| match &revocations {
            Some(list) if list.contains(certificate.serial()) => {
                Err(IdentityError::Revoked { target: format!("{} for {name}", certificate.serial()) })
            }
            _ => certificate
                .check_validity(now)
                .map_err(|reason| IdentityError::Certificate { target: format!("for {name}"), reason }),
        };
        // The longest valid one of those that hold; only if none does, any, to say what is wrong with it.
        let best = fitting.into_iter().max_by_key(|certificate| (hold(certificate).is_ok(), certificate.not_after()));
        best.map(|certificate| hold(&certificate).map(|()| certificate)).transpose()
    }

    /// Keeps a certificate that this overlay's CA issued for one of this home's keys; returns the file it is in.
    ///
    /// # Errors
    /// [`IdentityError::Missing`] if the home has no descriptor yet, [`IdentityError::KeyMismatch`] if the
    /// certificate is for neither key, [`IdentityError::Certificate`], [`IdentityError::Name`], [`IdentityError::Io`].
    pub fn add_certificate(&self, certificate: &Certificate, now: UnixMs) -> Result<PathBuf, IdentityError> {
        let target = || format!("{} ({})", certificate.serial(), list(certificate.names()));
        let refuse = |reason| IdentityError::Certificate { target: target(), reason };
        let descriptor = self.needed_descriptor()?;
        let ca = descriptor.ca().ok_or_else(|| refuse(CertificateError::Forged))?;
        certificate.check(ca, now).map_err(refuse)?;
        for name in certificate.names() {
            name.check_overlay(descriptor.overlay())?;
        }
        let path = match KeyUse::of(certificate.names())? {
            KeyUse::Instance => self.instance_key_path(),
            KeyUse::Peer => self.peer_key_path(),
        };
        let key = present(SecretKey::load(&path))?;
        if key.is_none_or(|key| key.public() != certificate.public_key()) {
            return Err(IdentityError::KeyMismatch {
                what: format!("certificate {}", target()),
                key: format!("{}; make the request in this home", path.display()),
            });
        }
        save_certificate(&self.certificates_path(), certificate)
    }

    /// The newest revocation list that is known here, verified against the descriptor.
    ///
    /// # Errors
    /// [`IdentityError::Revocations`] if the file is not this CA's; as [`Home::descriptor`].
    pub fn revocations(&self) -> Result<Option<RevocationList>, IdentityError> {
        let path = self.revocations_path();
        let Some(envelope) = files::read_if_present(&path, revocation::MAX_BYTES as u64)? else { return Ok(None) };
        self.verify_revocations(&envelope).map(Some)
    }

    /// Reads a revocation list and verifies it against the home's descriptor.
    ///
    /// # Errors
    /// [`IdentityError::Missing`] if there is no descriptor yet, [`IdentityError::Revocations`].
    pub fn verify_revocations(&self, envelope: &[u8]) -> Result<RevocationList, IdentityError> {
        let descriptor = self.needed_descriptor()?;
        let ca = descriptor.ca().ok_or_else(|| IdentityError::Revocations {
            why: format!("{} has the policy open, and no CA", descriptor.overlay()),
        })?;
        RevocationList::decode(envelope, descriptor.overlay(), ca)
    }

    fn needed_descriptor(&self) -> Result<Descriptor, IdentityError> {
        let path = self.descriptor_path().display().to_string();
        self.descriptor()?.ok_or(IdentityError::Missing { path, hint: "install the overlay's descriptor first" })
    }

    /// Keeps `list` unless the one that is known here is as new; returns whether it was newer.
    ///
    /// # Errors
    /// As [`Home::revocations`]; [`IdentityError::Io`].
    pub fn set_revocations(&self, list: &RevocationList) -> Result<bool, IdentityError> {
        let _only = self.hold(REVOCATIONS_LOCK)?;
        if self.revocations()?.is_some_and(|known| known.sequence() >= list.sequence()) {
            return Ok(false);
        }
        files::replace(&self.revocations_path(), list.envelope()).map(|()| true)
    }

    /// Has the CA of this home revoke certificates and keeps the list, which members need to hear of.
    ///
    /// # Errors
    /// As [`Home::authority`], [`Home::revocations`] and [`Authority::revoke`].
    pub fn revoke(&self, serials: &[String], now: UnixMs) -> Result<RevocationList, IdentityError> {
        let authority = self.authority()?;
        let _only = self.hold(REVOCATIONS_LOCK)?;
        let list = authority.revoke(self.revocations()?.as_ref(), serials, now)?;
        files::replace(&self.revocations_path(), list.envelope()).map(|()| list)
    }
}

/// Reads a file that holds one certificate.
fn load_certificate(path: &Path) -> Result<Certificate, IdentityError> {
    let format = |why: String| IdentityError::Format { path: path.display().to_string(), what: "a certificate", why };
    let octets = files::read(path, pem::MAX_TEXT as u64)?;
    let text = str::from_utf8(&octets).map_err(|_| format("it is not text".to_owned()))?;
    Certificate::from_pem(text).map_err(|reason| format(reason.to_string()))
}

/// The certificates' files in a folder, in the order of their names; an absent folder has none.
fn files_in(folder: &Path, limit: usize) -> Result<Vec<PathBuf>, IdentityError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(IdentityError::io("read", folder)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(IdentityError::io("read", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            paths.push(path);
        }
        if paths.len() > limit {
            let source = io::Error::other(format!("it holds more than {limit} certificates"));
            return Err(IdentityError::io("read", folder)(source));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Writes a certificate to `SERIAL.pem`.
fn save_certificate(folder: &Path, certificate: &Certificate) -> Result<PathBuf, IdentityError> {
    make_private_folder(folder)?;
    let path = folder.join(format!("{}.pem", certificate.serial()));
    files::replace(&path, certificate.to_pem().as_bytes())?;
    Ok(path)
}

/// Names for people.
fn list(names: &[ResourceName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `None` for a file that does not exist.
fn present<T>(loaded: Result<T, IdentityError>) -> Result<Option<T>, IdentityError> {
    match loaded {
        Ok(value) => Ok(Some(value)),
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, time::Duration};

    use super::*;
    use crate::{
        identity::{CertificateRequest, Limits, Policy},
        kind::Kind,
        name::OverlayId,
    };

    const NOW: UnixMs = UnixMs(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn name(text: &str) -> ResourceName {
        text.parse().unwrap()
    }

    /// A home with a descriptor, and the CA of its overlay.
    fn home() -> (tempfile::TempDir, Home, Authority) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("home"), true).unwrap();
        let overlay: OverlayId = "p2psip.org".parse().unwrap();
        let authority = Authority::create(&overlay, NOW).unwrap();
        let ca = Some(authority.certificate().clone());
        let descriptor = Descriptor::new(overlay, false, Policy::Enrolled, ca, Limits::default()).unwrap();
        home.set_descriptor(&descriptor).unwrap();
        (folder, home, authority)
    }

    fn issue(authority: &Authority, key: &SecretKey, name: &ResourceName, lifetime: Duration) -> Certificate {
        let names = std::slice::from_ref(name);
        authority.issue(&CertificateRequest::create(key, names).unwrap(), names, lifetime, NOW).unwrap()
    }

    #[test]
    fn the_longest_valid_certificate_of_a_name_is_used() {
        let (_folder, home, authority) = home();
        let key = home.instance_key().unwrap();
        let (alice, bob) = (name("sip:alice@p2psip.org"), name("sip:bob@p2psip.org"));
        assert_eq!(home.certificate_for(&key.public(), &alice, NOW).unwrap(), None);
        let (short, long) = (issue(&authority, &key, &alice, DAY), issue(&authority, &key, &alice, 3 * DAY));
        let other = issue(&authority, &key, &bob, 2 * DAY);
        for certificate in [&long, &short, &other] {
            home.add_certificate(certificate, NOW).unwrap();
        }
        assert_eq!(home.certificates().unwrap().len(), 3);
        let find = |name, now| home.certificate_for(&key.public(), name, now);
        assert_eq!(find(&alice, NOW).unwrap(), Some(long.clone()));
        assert_eq!(find(&bob, NOW).unwrap(), Some(other));
        assert_eq!(find(&alice, NOW.after(2 * DAY)).unwrap(), Some(long.clone()));
        let error = find(&alice, NOW.after(4 * DAY)).unwrap_err();
        assert!(error.to_string().contains("for sip:alice@p2psip.org is refused: it expired at"), "{error}");
        assert_eq!(error.kind(), Kind::Untrusted);
        assert_eq!(home.certificate_for(&home.peer_key().unwrap().public(), &alice, NOW).unwrap(), None);

        let list = authority.revoke(None, &[long.serial().to_owned()], NOW).unwrap();
        home.set_revocations(&list).unwrap();
        assert_eq!(find(&alice, NOW).unwrap(), Some(short.clone()), "the longer one is revoked");
        let list = authority.revoke(Some(&list), &[short.serial().to_owned()], NOW).unwrap();
        home.set_revocations(&list).unwrap();
        assert!(matches!(find(&alice, NOW), Err(IdentityError::Revoked { .. })));
    }

    #[test]
    fn a_certificate_must_belong_to_the_home() {
        let (_folder, home, authority) = home();
        let alice = name("sip:alice@p2psip.org");
        let key = home.instance_key().unwrap();
        let good = issue(&authority, &key, &alice, DAY);
        let late = home.add_certificate(&good, NOW.after(2 * DAY));
        assert!(matches!(late, Err(IdentityError::Certificate { reason: CertificateError::Expired { .. }, .. })));
        let stranger = issue(&authority, &SecretKey::generate().unwrap(), &alice, DAY);
        assert!(matches!(home.add_certificate(&stranger, NOW), Err(IdentityError::KeyMismatch { .. })));
        // A service belongs to the peer key, a user to the instance key.
        let service = issue(&authority, &key, &name("sip:p2psip.org"), DAY);
        assert!(matches!(home.add_certificate(&service, NOW), Err(IdentityError::KeyMismatch { .. })));
        let other = Authority::create(authority.overlay(), NOW).unwrap();
        let forged = issue(&other, &key, &alice, DAY);
        assert!(matches!(
            home.add_certificate(&forged, NOW),
            Err(IdentityError::Certificate { reason: CertificateError::Forged, .. })
        ));
        assert!(home.certificates().unwrap().is_empty());
        let path = home.add_certificate(&good, NOW).unwrap();
        fs::write(&path, "nonsense").unwrap();
        let error = home.certificates().unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn the_ca_lives_in_its_home() {
        let (_folder, home, authority) = home();
        assert!(matches!(home.authority(), Err(IdentityError::Missing { .. })));
        home.add_authority(&authority).unwrap();
        assert!(matches!(home.add_authority(&authority), Err(IdentityError::Exists { .. })));
        assert_eq!(fs::metadata(home.ca_key_path()).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(home.authority().unwrap().certificate(), authority.certificate());
        let other = Authority::create(authority.overlay(), NOW).unwrap();
        fs::remove_file(home.ca_key_path()).unwrap();
        home.add_authority(&other).unwrap();
        assert!(matches!(home.authority(), Err(IdentityError::KeyMismatch { .. })));
    }

    #[test]
    fn only_a_newer_revocation_list_is_kept() {
        let (_folder, home, authority) = home();
        assert_eq!(home.revocations().unwrap(), None);
        let first = authority.revoke(None, &["0a".to_owned()], NOW).unwrap();
        let second = authority.revoke(Some(&first), &["0b".to_owned()], NOW).unwrap();
        assert!(home.set_revocations(&second).unwrap());
        assert!(!home.set_revocations(&first).unwrap());
        assert!(!home.set_revocations(&second).unwrap());
        assert_eq!(home.revocations().unwrap(), Some(second));
        home.add_authority(&authority).unwrap();
        let third = home.revoke(&["0c".to_owned()], NOW).unwrap();
        assert!(third.contains("0a") && third.contains("0c"));
        assert_eq!(home.revocations().unwrap(), Some(third));
        fs::write(home.revocations_path(), b"x").unwrap();
        assert!(matches!(home.revocations(), Err(IdentityError::Revocations { .. })));
    }
}
