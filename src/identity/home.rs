//! The folder that holds everything a member keeps: keys, certificates, the descriptor, pins and the record store.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Authority, Certificate, CertificateError, Descriptor, DescriptorHash, IdentityError, KeyUse, PublicKey,
    RevocationList, SecretKey, files, pem, revocation,
};
use crate::{
    clock::UnixMs,
    name::{OverlayId, ResourceName},
};

/// Permission bits of the folder: its socket and keys are the owner's alone.
const FOLDER_MODE: u32 = 0o700;
/// The most certificates that are looked through for a name.
const MAX_CERTIFICATES: usize = 256;
/// The longest file of pins.
const MAX_PINS: u64 = 1024 * 1024;

/// A home: a folder of mode 0700 that belongs to one member of one overlay.
///
/// ```text
/// descriptor.toml   what the overlay is          peer.key       names the process
/// revocations.cbor  certificates taken back      instance.key   names the device of the user
/// certs/*.pem       what the CA certified        ca.key         the CA's key, only in the CA's home
/// pins.toml         what was trusted before      last-sequence  of the records written from here
/// records.redb      records stored for others    lock, member.sock   of the running member
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    folder: PathBuf,
}

/// Holds a home for one process; it ends with the value, or with the process.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

/// What this home trusted on first use and holds on to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pins {
    /// The descriptor of each overlay.
    pub descriptors: BTreeMap<OverlayId, DescriptorHash>,
    /// The key of each name, for overlays of the policy open.
    pub keys: BTreeMap<ResourceName, PublicKey>,
}

impl Home {
    /// Opens the home in `folder`; with `create` it is made if there is none (an empty folder becomes one, too).
    ///
    /// # Errors
    /// [`IdentityError::Missing`]; [`IdentityError::Exposed`] if group or others have any permission on the folder;
    /// [`IdentityError::Io`].
    pub fn open(folder: &Path, create: bool) -> Result<Self, IdentityError> {
        if create {
            make_private_folder(folder)?;
        }
        let metadata = match fs::metadata(folder) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Missing {
                    path: folder.display().to_string(),
                    hint: "make a home with p2p-enroll init or request, or give another --home",
                });
            }
            Err(error) => return Err(IdentityError::io("open", folder)(error)),
        };
        if !metadata.is_dir() {
            return Err(IdentityError::io("open", folder)(io::ErrorKind::NotADirectory.into()));
        }
        files::check_private(folder, metadata.mode(), FOLDER_MODE)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The descriptor of the overlay.
    pub fn descriptor_path(&self) -> PathBuf {
        self.folder.join("descriptor.toml")
    }

    /// The CA's newest list of revoked certificates that is known here.
    pub fn revocations_path(&self) -> PathBuf {
        self.folder.join("revocations.cbor")
    }

    /// The key that names the process.
    pub fn peer_key_path(&self) -> PathBuf {
        self.folder.join("peer.key")
    }

    /// The key that names the device of the user.
    pub fn instance_key_path(&self) -> PathBuf {
        self.folder.join("instance.key")
    }

    /// The overlay's CA's key; in the CA's home alone.
    pub fn ca_key_path(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// The folder of the certificates, `SERIAL.pem` each.
    pub fn certificates_path(&self) -> PathBuf {
        self.folder.join("certs")
    }

    /// What was trusted on first use.
    pub fn pins_path(&self) -> PathBuf {
        self.folder.join("pins.toml")
    }

    /// The socket of the running member.
    pub fn socket_path(&self) -> PathBuf {
        self.folder.join("member.sock")
    }

    /// The records that this member stores for the overlay.
    pub fn records_path(&self) -> PathBuf {
        self.folder.join("records.redb")
    }

    /// The file whose lock the running member holds.
    pub fn lock_path(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// The sequence number of the last record written from here.
    pub fn sequence_path(&self) -> PathBuf {
        self.folder.join("last-sequence")
    }

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

    /// The key of the process, made on first use.
    ///
    /// # Errors
    /// As [`SecretKey::load_or_create`].
    pub fn peer_key(&self) -> Result<SecretKey, IdentityError> {
        SecretKey::load_or_create(&self.peer_key_path())
    }

    /// The key of the device, made on first use.
    ///
    /// # Errors
    /// As [`SecretKey::load_or_create`].
    pub fn instance_key(&self) -> Result<SecretKey, IdentityError> {
        SecretKey::load_or_create(&self.instance_key_path())
    }

    /// The key that certain names belong to, made on first use.
    ///
    /// # Errors
    /// As [`SecretKey::load_or_create`].
    pub fn key_for(&self, key_use: KeyUse) -> Result<SecretKey, IdentityError> {
        match key_use {
            KeyUse::Instance => self.instance_key(),
            KeyUse::Peer => self.peer_key(),
        }
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
        let folder = self.certificates_path();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(IdentityError::io("read", &folder)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(IdentityError::io("read", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                paths.push(path);
            }
            if paths.len() > MAX_CERTIFICATES {
                let source = io::Error::other(format!("it holds more than {MAX_CERTIFICATES} certificates"));
                return Err(IdentityError::io("read", &folder)(source));
            }
        }
        paths.sort();
        paths.iter().map(|path| load_certificate(path)).collect()
    }

    /// The certificate that lets `key` speak for `name` now; of several, the one that is valid for longest.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] if there are some, but none is valid now; as [`Home::certificates`].
    pub fn certificate_for(
        &self,
        key: &PublicKey,
        name: &ResourceName,
        now: UnixMs,
    ) -> Result<Option<Certificate>, IdentityError> {
        let fitting = self.certificates()?.into_iter().filter(|c| c.public_key() == *key && c.is_for(name));
        // The longest valid one of those that hold now; only if none does, any, to say what is wrong with it.
        let best = fitting.max_by_key(|c| (c.check_validity(now).is_ok(), c.not_after()));
        if let Some(Err(reason)) = best.as_ref().map(|certificate| certificate.check_validity(now)) {
            return Err(IdentityError::Certificate { target: format!("for {name}"), reason });
        }
        Ok(best)
    }

    /// Keeps a certificate that this overlay's CA issued for one of this home's keys; returns the file it is in.
    ///
    /// # Errors
    /// [`IdentityError::Missing`] if the home has no descriptor yet, [`IdentityError::KeyMismatch`] if the
    /// certificate is for neither key, [`IdentityError::Certificate`], [`IdentityError::Name`], [`IdentityError::Io`].
    pub fn add_certificate(&self, certificate: &Certificate, now: UnixMs) -> Result<PathBuf, IdentityError> {
        let target = || format!("{} ({})", certificate.serial(), list(certificate.names()));
        let refuse = |reason| IdentityError::Certificate { target: target(), reason };
        let missing = |hint| IdentityError::Missing { path: self.descriptor_path().display().to_string(), hint };
        let descriptor = self.descriptor()?.ok_or_else(|| missing("install the overlay's descriptor first"))?;
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
        make_private_folder(&self.certificates_path())?;
        let path = self.certificates_path().join(format!("{}.pem", certificate.serial()));
        files::replace(&path, certificate.to_pem().as_bytes())?;
        Ok(path)
    }

    /// The newest revocation list that is known here, verified against the descriptor.
    ///
    /// # Errors
    /// [`IdentityError::Revocations`] if the file is not this CA's; as [`Home::descriptor`].
    pub fn revocations(&self) -> Result<Option<RevocationList>, IdentityError> {
        let path = self.revocations_path();
        let Some(envelope) = files::read_if_present(&path, revocation::MAX_BYTES as u64)? else { return Ok(None) };
        let Some(descriptor) = self.descriptor()? else { return Ok(None) };
        let Some(ca) = descriptor.ca() else { return Ok(None) };
        RevocationList::decode(&envelope, descriptor.overlay(), ca).map(Some)
    }

    /// Keeps `list` unless the one that is known here is as new; returns whether it was newer.
    ///
    /// # Errors
    /// As [`Home::revocations`]; [`IdentityError::Io`].
    pub fn set_revocations(&self, list: &RevocationList) -> Result<bool, IdentityError> {
        if self.revocations()?.is_some_and(|known| known.sequence() >= list.sequence()) {
            return Ok(false);
        }
        files::replace(&self.revocations_path(), list.envelope()).map(|()| true)
    }

    /// What this home trusted on first use.
    ///
    /// # Errors
    /// [`IdentityError::Format`], [`IdentityError::Io`].
    pub fn pins(&self) -> Result<Pins, IdentityError> {
        let path = self.pins_path();
        let format =
            |why: String| IdentityError::Format { path: path.display().to_string(), what: "a file of pins", why };
        let Some(octets) = files::read_if_present(&path, MAX_PINS)? else { return Ok(Pins::default()) };
        let text = str::from_utf8(&octets).map_err(|_| format("it is not text".to_owned()))?;
        toml::from_str(text).map_err(|error| format(super::one_line(text, &error)))
    }

    /// Changes the pins in one step, so that what another process pins at the same time is not lost.
    ///
    /// # Errors
    /// As [`Home::pins`].
    pub fn change_pins(&self, change: impl FnOnce(&mut Pins)) -> Result<(), IdentityError> {
        let _only = self.hold("pins.lock")?;
        let mut pins = self.pins()?;
        change(&mut pins);
        let path = self.pins_path();
        let text = toml::to_string(&pins).map_err(|error| IdentityError::Format {
            path: path.display().to_string(),
            what: "a file of pins",
            why: error.to_string(),
        })?;
        files::replace(&path, text.as_bytes())
    }

    /// The hash that `overlay`'s descriptor had when it was first trusted.
    ///
    /// # Errors
    /// As [`Home::pins`].
    pub fn pinned_descriptor(&self, overlay: &OverlayId) -> Result<Option<DescriptorHash>, IdentityError> {
        Ok(self.pins()?.descriptors.get(overlay).copied())
    }

    /// Holds on to the hash of `overlay`'s descriptor.
    ///
    /// # Errors
    /// As [`Home::pins`].
    pub fn pin_descriptor(&self, overlay: &OverlayId, hash: DescriptorHash) -> Result<(), IdentityError> {
        self.change_pins(|pins| {
            pins.descriptors.insert(overlay.clone(), hash);
        })
    }

    /// The sequence number for the next record written from here: the time in milliseconds, but always larger than
    /// the last one, whatever the clock does. It is on disk before it is returned.
    ///
    /// # Errors
    /// [`IdentityError::Format`] if the file was damaged, [`IdentityError::Io`].
    pub fn next_sequence(&self, now: UnixMs) -> Result<u64, IdentityError> {
        let _only = self.hold("last-sequence.lock")?;
        let path = self.sequence_path();
        let next = match files::read_if_present(&path, 32)? {
            Some(octets) => {
                let last: u64 =
                    str::from_utf8(&octets).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
                        IdentityError::Format {
                            path: path.display().to_string(),
                            what: "a sequence number",
                            why: "it is damaged; remove it if the clock is right".to_owned(),
                        }
                    })?;
                now.0.max(last.saturating_add(1))
            }
            None => now.0,
        };
        files::replace(&path, format!("{next}\n").as_bytes())?;
        Ok(next)
    }

    /// Takes the home for this process, for as long as the returned value lives.
    ///
    /// # Errors
    /// [`IdentityError::Locked`] if another process has it, [`IdentityError::Io`].
    pub fn lock(&self) -> Result<HomeLock, IdentityError> {
        let path = self.lock_path();
        let mut file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut holder);
                let holder = holder.trim().parse::<u32>().map_or(String::new(), |id| format!(" (process {id})"));
                return Err(IdentityError::Locked { path: self.folder.display().to_string(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(IdentityError::io("lock", &path)(error)),
        }
        // Only for the message above: a file that cannot be written is locked all the same.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(HomeLock { _file: file })
    }

    /// Waits for, and holds, a lock that others have for moments only.
    fn hold(&self, name: &str) -> Result<File, IdentityError> {
        let path = self.folder.join(name);
        let file = open_lock(&path)?;
        file.lock().map_err(IdentityError::io("lock", &path))?;
        Ok(file)
    }
}

/// Reads a file that holds one certificate.
pub(crate) fn load_certificate(path: &Path) -> Result<Certificate, IdentityError> {
    let format = |why: String| IdentityError::Format { path: path.display().to_string(), what: "a certificate", why };
    let octets = files::read(path, pem::MAX_TEXT as u64)?;
    let text = str::from_utf8(&octets).map_err(|_| format("it is not text".to_owned()))?;
    Certificate::from_pem(text).map_err(|reason| format(reason.to_string()))
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

fn open_lock(path: &Path) -> Result<File, IdentityError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(IdentityError::io("open", path))
}

/// Makes a folder of mode 0700 and what lies above it; an existing one that is empty becomes private.
fn make_private_folder(folder: &Path) -> Result<(), IdentityError> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(IdentityError::io("make", folder))?;
    let is_private = fs::metadata(folder).map_err(IdentityError::io("open", folder))?.mode() & 0o077 == 0;
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if !is_private && is_empty() {
        let private = fs::Permissions::from_mode(FOLDER_MODE);
        fs::set_permissions(folder, private).map_err(IdentityError::io("make private", folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        identity::{CertificateRequest, Limits, Policy},
        kind::Kind,
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
    fn a_home_is_private_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        assert!(matches!(Home::open(&path, false), Err(IdentityError::Missing { .. })));
        Home::open(&path, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        Home::open(&path, false).unwrap();

        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Home::open(&path, false), Err(IdentityError::Exposed { .. })));
        Home::open(&path, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700, "an empty folder becomes a home");

        fs::write(path.join("file"), "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let error = Home::open(&path, true).unwrap_err().to_string();
        assert!(error.ends_with(&format!("run chmod 700 {}", path.display())), "{error}");
        assert!(Home::open(&path.join("file"), true).is_err());
    }

    #[test]
    fn one_process_holds_a_home() {
        let (_folder, home, _) = home();
        let lock = home.lock().unwrap();
        let error = home.lock().unwrap_err();
        assert_eq!(error.kind(), Kind::Local);
        let text = error.to_string();
        assert!(text.contains(&format!("in use by another process (process {})", std::process::id())), "{text}");
        drop(lock);
        home.lock().unwrap();
    }

    #[test]
    fn sequences_grow_over_restarts_and_clocks_that_go_back() {
        let (_folder, home, _) = home();
        assert_eq!(home.next_sequence(NOW).unwrap(), NOW.0);
        assert_eq!(home.next_sequence(NOW).unwrap(), NOW.0 + 1);
        let again = Home::open(home.folder(), false).unwrap();
        assert_eq!(again.next_sequence(NOW.before(DAY)).unwrap(), NOW.0 + 2);
        assert_eq!(again.next_sequence(NOW.after(DAY)).unwrap(), NOW.after(DAY).0);
        fs::write(home.sequence_path(), "many").unwrap();
        assert!(matches!(home.next_sequence(NOW), Err(IdentityError::Format { .. })));
    }

    #[test]
    fn no_sequence_is_given_twice() {
        let (_folder, home, _) = home();
        let mut given: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..10).map(|_| home.next_sequence(NOW).unwrap()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        given.sort_unstable();
        assert_eq!(given, (NOW.0..NOW.0 + 40).collect::<Vec<_>>());
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
        fs::write(home.revocations_path(), b"x").unwrap();
        assert!(matches!(home.revocations(), Err(IdentityError::Revocations { .. })));
    }

    #[test]
    fn pins_are_kept() {
        let (_folder, home, authority) = home();
        let hash = home.descriptor().unwrap().unwrap().hash();
        assert_eq!(home.pinned_descriptor(authority.overlay()).unwrap(), None);
        home.pin_descriptor(authority.overlay(), hash).unwrap();
        let (alice, key) = (name("sip:alice@p2psip.org"), SecretKey::generate().unwrap().public());
        home.change_pins(|pins| {
            pins.keys.insert(alice.clone(), key);
        })
        .unwrap();
        assert_eq!(home.pinned_descriptor(authority.overlay()).unwrap(), Some(hash));
        assert_eq!(home.pins().unwrap().keys.get(&alice), Some(&key));
        fs::write(home.pins_path(), "[descriptors]\n\"p2psip.org\" = \"short\"\n").unwrap();
        let error = home.pins().unwrap_err().to_string();
        assert!(error.contains("pins.toml is not a file of pins: line 2") && !error.contains('\n'), "{error}");
    }
}
