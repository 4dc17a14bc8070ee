//! Positions in the overlay, and the distances between them.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A point of the overlay's identifier space: 256 bits, where names and peers both have a place.
///
/// Positions are SHA-256 hashes and distances between them the exclusive or, as in Kademlia.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(#[serde(with = "serde_bytes")] [u8; 32]);

/// How far two positions lie apart: their exclusive or, ordered as a 256-bit number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u8; 32]);

impl Position {
    /// The position of a canonical URI.
    pub fn of_name(canonical: &str) -> Self {
        Self::of_bytes(canonical.as_bytes())
    }

    /// The position of any octets.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A position whose 32 octets are already known.
    pub const fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// The 32 octets, most significant first.
    pub const fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 64 bits.
    pub fn leading(&self) -> u64 {
        leading(&self.0)
    }

    /// The position that has exactly the first `bit` bits in common with this one, and all that follow bit `bit`: a
    /// point in the part of the space that a routing table's bucket covers. Counted from 0; from 256 on, itself.
    #[must_use]
    pub fn with_bit_flipped(mut self, bit: u32) -> Self {
        if let Some(octet) = self.0.get_mut((bit / 8) as usize) {
            *octet ^= 0x80 >> (bit % 8);
        }
        self
    }

    /// The distance to `other`.
    pub fn distance(&self, other: &Self) -> Distance {
        let mut xor = self.0;
        for (a, b) in xor.iter_mut().zip(other.0) {
            *a ^= b;
        }
        Distance(xor)
    }
}

impl Distance {
    /// The first 64 bits.
    pub fn leading(&self) -> u64 {
        leading(&self.0)
    }

    /// The number of leading bits that the two positions have in common (256 for the same position).
    pub fn common_prefix(&self) -> u32 {
        let mut bits = 0;
        for byte in self.0 {
            bits += byte.leading_zeros();
            if byte != 0 {
                break;
            }
        }
        bits
    }
}

fn leading(octets: &[u8; 32]) -> u64 {
    octets.iter().take(8).fold(0, |bits, octet| bits << 8 | u64::from(*octet))
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({})", HEXLOWER.encode(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_the_exclusive_or() {
        let (a, b) = (Position::of_name("sip:alice@p2psip.org"), Position::of_name("sip:bob@p2psip.org"));
        assert_eq!(a.distance(&b), b.distance(&a));
        assert_eq!(a.distance(&a).common_prefix(), 256);
        assert!(a.distance(&a) < a.distance(&b));
        assert!(a.distance(&b).common_prefix() < 64);
        for bit in [0, 7, 8, 100, 255] {
            assert_eq!(a.distance(&a.with_bit_flipped(bit)).common_prefix(), bit);
        }
        assert_eq!(a.with_bit_flipped(256), a);
    }
}
