//! Instances: a user's devices, each named by its key.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use super::{NameError, text_serde};

/// One device of a user: the SHA-256 of the device's ed25519 public key.
///
/// Its text, 52 characters of lower-case base32 without padding, is the value of the `gr` parameter (RFC 5627).
/// Because a record is filed under the hash of the key that signed it, nobody can write another's instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId([u8; 32]);

impl InstanceId {
    /// The instance whose key is the given ed25519 public key.
    pub fn of_key(public_key: &[u8; 32]) -> Self {
        Self(Sha256::digest(public_key).into())
    }

    /// The 32 octets of the hash.
    pub const fn octets(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({:.8})", self.to_string())
    }
}

impl FromStr for InstanceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = |why| NameError::Identifier { what: "an instance", text: text.to_owned(), why };
        let octets = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| error("it is not base32 without padding"))?;
        octets.try_into().map(Self).map_err(|_| error("it does not have 52 characters"))
    }
}

text_serde!(InstanceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let instance = InstanceId::of_key(&[7; 32]);
        let text = instance.to_string();
        assert_eq!(text.len(), 52);
        assert_eq!(text.parse::<InstanceId>().unwrap(), instance);
        assert!("abc".parse::<InstanceId>().is_err());
        assert!("é".parse::<InstanceId>().is_err());
    }
}
