//! The ed25519 keys of peers, instances and CAs, and the files that hold them.

use std::{fmt, path::Path, str::FromStr};

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey, pkcs8::DecodePrivateKey};
use serde::{Deserialize, Serialize};

use super::{IdentityError, files, pem};
use crate::name::{InstanceId, PeerId};

/// What precedes the 32 octets of the seed in PKCS#8 version 1 (RFC 5958, RFC 8410 §7). Version 1, because OpenSSL 1.1
/// does not read version 2.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The PEM label of a private key (RFC 7468 §10).
pub(super) const LABEL: &str = "PRIVATE KEY";
/// The longest key file that is read.
const MAX_FILE: u64 = 16 * 1024;

/// An ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key with these 32 octets. Octets that are no point of the curve make a key that verifies nothing.
    pub const fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// The 32 octets (RFC 8032 §5.1.5).
    pub const fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` over `message` is by this key. Strict: neither weak keys nor a second encoding of a
    /// signature pass, so that all members agree on what is signed.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(&self.0), Signature::from_slice(signature)) else {
            return false;
        };
        key.verify_strict(message, &signature).is_ok()
    }

    /// The peer that has this key.
    pub const fn peer_id(&self) -> PeerId {
        PeerId::from_public_key(self.0)
    }

    /// The instance that has this key.
    pub fn instance(&self) -> InstanceId {
        InstanceId::of_key(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:.8}…)", self.to_string())
    }
}

/// The text form is 64 lower-case hexadecimal digits.
impl FromStr for PublicKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets =
            HEXLOWER.decode(text.as_bytes()).map_err(|_| "a public key is 64 lower-case hexadecimal digits")?;
        octets.try_into().map(Self).map_err(|_| "a public key is 64 lower-case hexadecimal digits")
    }
}

impl TryFrom<String> for PublicKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// An ed25519 private key; its memory is overwritten when it is dropped, and `Debug` does not show it.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key from the operating system's entropy.
    ///
    /// # Errors
    /// [`IdentityError::Entropy`].
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self::from_seed(&random()?))
    }

    /// The key that RFC 8032 §5.1.5 derives from a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads a key file (PKCS#8 in PEM, as OpenSSL writes it).
    ///
    /// # Errors
    /// [`IdentityError::Exposed`] if group or others have any permission on it, [`IdentityError::Format`] if it
    /// holds anything else, [`IdentityError::Io`].
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let format = |why: String| IdentityError::Format {
            path: path.display().to_string(),
            what: "an ed25519 private key in PEM",
            why,
        };
        let octets = files::read_secret(path, MAX_FILE)?;
        let text = str::from_utf8(&octets).map_err(|_| format("it is not text".to_owned()))?;
        Self::from_pem(text).map_err(format)
    }

    /// Reads a key file, or makes a key and writes it to a new file of mode 0600. Of several processes that do so at
    /// once one makes the key and all get it.
    ///
    /// # Errors
    /// As [`SecretKey::load`]; [`IdentityError::Io`] if the file cannot be written.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match path.try_exists() {
            Ok(true) => Self::load(path),
            Ok(false) => {
                let key = Self::generate()?;
                match key.save_new(path) {
                    Err(IdentityError::Exists { .. }) => Self::load(path),
                    saved => saved.map(|()| key),
                }
            }
            Err(error) => Err(IdentityError::io("read", path)(error)),
        }
    }

    /// Writes the key to a new file of mode 0600. The file appears under its name complete or not at all, and at no
    /// moment could others open it.
    ///
    /// # Errors
    /// [`IdentityError::Exists`], [`IdentityError::Io`].
    pub fn save_new(&self, path: &Path) -> Result<(), IdentityError> {
        files::create(path, self.to_pem().as_bytes(), "it holds a private key")
    }

    /// Reads PKCS#8 (RFC 8410 §7) in PEM.
    fn from_pem(text: &str) -> Result<Self, String> {
        let der = pem::decode_one(text, LABEL)?;
        SigningKey::from_pkcs8_der(&der).map(Self).map_err(|_| "it holds no ed25519 key in PKCS#8".to_owned())
    }

    fn to_pem(&self) -> String {
        let mut der = [0; 48];
        der[..16].copy_from_slice(&PKCS8_PREFIX);
        der[16..].copy_from_slice(self.0.as_bytes());
        pem::encode(LABEL, &der)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The ed25519 signature over `message` (RFC 8032 §5.1.6; deterministic).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The 32 octets that the key is derived from; for libp2p's key pair, which the caller then owns.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The peer that has this key.
    pub fn peer_id(&self) -> PeerId {
        self.public().peer_id()
    }

    /// The instance that has this key.
    pub fn instance(&self) -> InstanceId {
        self.public().instance()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

/// Octets from the operating system's entropy source.
pub(super) fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(|error| IdentityError::Entropy { why: error.to_string() })?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use super::*;

    #[test]
    fn a_key_file_round_trips_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.key");
        let key = SecretKey::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(SecretKey::load(&path).unwrap().seed(), key.seed());
        assert_eq!(SecretKey::load_or_create(&path).unwrap().seed(), key.seed());
        assert!(matches!(key.save_new(&path), Err(IdentityError::Exists { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.key");
        SecretKey::load_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = SecretKey::load(&path).unwrap_err();
            let text = error.to_string();
            assert!(text.ends_with(&format!("run chmod 600 {}", path.display())), "{text}");
            assert_eq!(error.kind(), crate::kind::Kind::Local);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        SecretKey::load(&path).unwrap();
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        fs::write(&path, pem::encode("CERTIFICATE", b"x")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(SecretKey::load(&path).unwrap_err().to_string().contains("holds a CERTIFICATE"));
        assert!(SecretKey::load(folder.path()).is_err());
        assert!(matches!(SecretKey::load(&folder.path().join("no")), Err(IdentityError::Io { .. })));
    }

    #[test]
    fn a_key_of_openssl_is_read() {
        // The example of RFC 8410 §10.3.
        let text = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                    -----END PRIVATE KEY-----\n";
        let key = SecretKey::from_pem(text).unwrap();
        assert_eq!(key.to_pem(), text);
        assert_eq!(key.public().to_string(), "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
    }

    #[test]
    fn signatures_verify_only_for_their_message_and_key() {
        let (key, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let signature = key.sign(b"message");
        assert!(key.public().verify(b"message", &signature));
        assert!(!key.public().verify(b"massage", &signature));
        assert!(!other.public().verify(b"message", &signature));
        assert!(!key.public().verify(b"message", &signature[..63]));
        // A weak key would verify anything; the identity point is one.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut weak = [0; 64];
        weak[0] = 1;
        assert!(!PublicKey::from_octets(identity).verify(b"message", &weak));
    }

    #[test]
    fn secrets_are_not_shown() {
        let key = SecretKey::from_seed(&[7; 32]);
        let shown = format!("{key:?}");
        assert!(!shown.contains(&HEXLOWER.encode(&[7; 4])), "{shown}");
        assert_eq!(key.public().to_string().parse::<PublicKey>().unwrap(), key.public());
    }
}
