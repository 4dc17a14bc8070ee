//! Peer ids: processes of the overlay, each named by its key.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use super::{NameError, Position};

/// What precedes the 32 octets of an ed25519 public key in the binary form of a libp2p peer id: the identity
/// multihash (code 0, length 36) of a `PublicKey` message (type 1 = Ed25519, 32 octets of data).
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The name of one process in the overlay: its ed25519 public key.
///
/// The text is the base58 form that libp2p uses (`12D3KooW…`). Only ed25519 peers can be members, so the public key
/// is always known from the id, and a stream from the peer proves possession of the private one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The peer with the given ed25519 public key.
    pub const fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The peer's ed25519 public key.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// The binary form of libp2p (a multihash, 38 octets).
    pub fn multihash(&self) -> [u8; 38] {
        let mut octets = [0; 38];
        octets[..6].copy_from_slice(&PREFIX);
        octets[6..].copy_from_slice(&self.0);
        octets
    }

    /// Reads the binary form of libp2p; `None` for a peer whose key is not ed25519.
    pub fn from_multihash(octets: &[u8]) -> Option<Self> {
        octets.strip_prefix(&PREFIX).and_then(|key| key.try_into().ok()).map(Self)
    }

    /// Where the peer stands in the identifier space: SHA-256 of the binary form, as in libp2p's Kademlia.
    pub fn position(&self) -> Position {
        Position::of_bytes(&self.multihash())
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&bs58::encode(self.multihash()).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        write!(f, "PeerId(…{})", text.get(text.len().saturating_sub(6)..).unwrap_or_default())
    }
}

impl FromStr for PeerId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = |why| NameError::Identifier { what: "a peer id", text: text.to_owned(), why };
        // A base58 text of this length is decoded in quadratic time: refuse novels first.
        if text.len() > 64 {
            return Err(error("it is too long"));
        }
        let octets = bs58::decode(text).into_vec().map_err(|_| error("it is not base58"))?;
        Self::from_multihash(&octets).ok_or_else(|| error("it does not name an ed25519 key (12D3KooW…)"))
    }
}

/// As text where people read it; on the wire as the 32 octets of the key, which base58 would take longer to write and
/// read than everything else in an answer that names twenty peers.
impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Whichever form comes: inside a tagged enum, serde no longer tells which one the format prefers.
        deserializer.deserialize_any(EitherForm)
    }
}

struct EitherForm;

impl Visitor<'_> for EitherForm {
    type Value = PeerId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a peer id as text or as the 32 octets of its key")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PeerId, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, octets: &[u8]) -> Result<PeerId, E> {
        octets.try_into().map(PeerId).map_err(|_| E::invalid_length(octets.len(), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let peer = PeerId::from_public_key([9; 32]);
        let text = peer.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<PeerId>().unwrap(), peer);
        assert_eq!(serde_json::from_str::<PeerId>(&serde_json::to_string(&peer).unwrap()).unwrap(), peer);
        let mut wire = Vec::new();
        ciborium::into_writer(&peer, &mut wire).unwrap();
        assert_eq!(wire.len(), 34);
        assert_eq!(ciborium::from_reader::<PeerId, _>(&wire[..]).unwrap(), peer);
        for wrong in ["", "12D3KooW", "0OIl", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"] {
            assert!(wrong.parse::<PeerId>().is_err(), "{wrong}");
        }
    }
}
