//! The folder that holds everything a member keeps: keys, certificates, the descriptor, pins and the record store.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{DescriptorHash, IdentityError, KeyUse, PublicKey, SecretKey, files};
use crate::{
    clock::UnixMs,
    name::{OverlayId, ResourceName},
};

/// Permission bits of the folder: its socket and keys are the owner's alone.
const FOLDER_MODE: u32 = 0o700;
/// How far the last sequence may be ahead of the clock: more is no correction of a clock but a clock that was wrong.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);
/// The longest file of pins.
const MAX_PINS: u64 = 1024 * 1024;

/// A home: a folder of mode 0700 that belongs to one member of one overlay.
///
/// ```text
/// descriptor.toml   what the overlay is          peer.key       names the process
/// revocations.cbor  certificates taken back      instance.key   names the device of the user
/// certs/*.pem       what the CA certified        ca.key         the CA's key, only in the CA's home
/// issued/*.pem      copies for its revocations   (also only in the CA's home)
/// pins.toml         what was trusted before      last-sequence  of the records written from here
/// records.redb      records stored for others    lock, member.sock   of the running member
/// phones/*          a home for each phone of its adapter
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
    /// The keys of each name, for overlays of the policy open: one for each device that was seen to be the user's.
    pub keys: BTreeMap<ResourceName, BTreeSet<PublicKey>>,
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

    /// The folder of copies of every certificate that the CA of this home has issued.
    pub fn issued_path(&self) -> PathBuf {
        self.folder.join("issued")
    }

    /// What was trusted on first use.
    pub fn pins_path(&self) -> PathBuf {
        self.folder.join("pins.toml")
    }

    /// The home of a phone of this member's adapter.
    pub fn phone_path(&self, user: &str) -> PathBuf {
        self.folder.join("phones").join(user)
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
    /// the last one, even if the clock was set back. It is on disk before it is returned.
    ///
    /// # Errors
    /// [`IdentityError::ClockBehind`] if the last one is more than 24 hours ahead of `now`;
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
                if UnixMs(last) > now.after(MAX_AHEAD) {
                    let path = path.display().to_string();
                    return Err(IdentityError::ClockBehind { path, last: UnixMs(last), now });
                }
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
    pub(super) fn hold(&self, name: &str) -> Result<File, IdentityError> {
        let path = self.folder.join(name);
        let file = open_lock(&path)?;
        file.lock().map_err(IdentityError::io("lock", &path))?;
        Ok(file)
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
pub(super) fn make_private_folder(folder: &Path) -> Result<(), IdentityError> {
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
    use super::*;
    use crate::kind::Kind;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("home"), true).unwrap();
        (folder, home)
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
        let (_folder, home) = home();
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
        let (_folder, home) = home();
        assert_eq!(home.next_sequence(NOW).unwrap(), NOW.0);
        assert_eq!(home.next_sequence(NOW).unwrap(), NOW.0 + 1);
        let again = Home::open(home.folder(), false).unwrap();
        assert_eq!(again.next_sequence(NOW.before(DAY / 2)).unwrap(), NOW.0 + 2);
        assert_eq!(again.next_sequence(NOW.after(DAY)).unwrap(), NOW.after(DAY).0);
        fs::write(home.sequence_path(), "many").unwrap();
        assert!(matches!(home.next_sequence(NOW), Err(IdentityError::Format { .. })));
    }

    #[test]
    fn a_sequence_more_than_a_day_ahead_means_that_a_clock_is_wrong() {
        let (_folder, home) = home();
        assert_eq!(home.next_sequence(NOW.after(DAY)).unwrap(), NOW.after(DAY).0);
        assert_eq!(home.next_sequence(NOW).unwrap(), NOW.after(DAY).0 + 1, "exactly a day ahead");
        let error = home.next_sequence(NOW).unwrap_err();
        assert_eq!(error.kind(), Kind::Local);
        let text = error.to_string();
        assert!(text.starts_with(&home.sequence_path().display().to_string()), "{text}");
        assert!(text.contains("2027-01-16T08:00:00Z, which is 24 h ahead of the clock: set"), "{text}");
        assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        for damaged in [u64::MAX, u64::MAX - 1] {
            fs::write(home.sequence_path(), damaged.to_string()).unwrap();
            assert!(matches!(home.next_sequence(NOW), Err(IdentityError::ClockBehind { .. })));
        }
        assert_eq!(home.next_sequence(UnixMs(u64::MAX - 2)).unwrap(), u64::MAX);
        fs::remove_file(home.sequence_path()).unwrap();
        assert_eq!(home.next_sequence(NOW).unwrap(), NOW.0);
    }

    #[test]
    fn no_sequence_is_given_twice() {
        let (_folder, home) = home();
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
    fn pins_are_kept() {
        let (_folder, home) = home();
        let overlay: OverlayId = "p2psip.org".parse().unwrap();
        let hash: DescriptorHash = "ab".repeat(32).parse().unwrap();
        assert_eq!(home.pinned_descriptor(&overlay).unwrap(), None);
        home.pin_descriptor(&overlay, hash).unwrap();
        let alice: ResourceName = "sip:alice@p2psip.org".parse().unwrap();
        let key = SecretKey::generate().unwrap().public();
        home.change_pins(|pins| {
            pins.keys.entry(alice.clone()).or_default().insert(key);
        })
        .unwrap();
        assert_eq!(home.pinned_descriptor(&overlay).unwrap(), Some(hash));
        assert_eq!(home.pins().unwrap().keys.get(&alice), Some(&BTreeSet::from([key])));
        fs::write(home.pins_path(), "[descriptors]\n\"p2psip.org\" = \"short\"\n").unwrap();
        let error = home.pins().unwrap_err().to_string();
        assert!(error.contains("pins.toml is not a file of pins: line 2") && !error.contains('\n'), "{error}");
    }
}
