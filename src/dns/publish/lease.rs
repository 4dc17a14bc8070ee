//! The lease of a proxy peer's records: a TXT record that says until when they hold, and that is the lock under which
//! they are changed.
//!
//! It lies at `_lease.HOST` and reads
//!
//! ```text
//! v=P2PSIP1; s=live; e=1795417261; n=0123456789abcdef; k=gatekeeper; p=12D3KooW…
//! ```
//!
//! `s` is `live`, or `gone` for a tombstone; `e` the end in seconds since 1970; `n` a number that is never used twice; `k` the name
//! of the TSIG key that wrote it; `p` the proxy peer, if it is a member of the overlay.
//!
//! Every update of a host has the lease as its prerequisite: that there is none, or its exact value. So of several
//! publishers one wins, and a captured update that is sent again finds another value and changes nothing, as long as
//! something is there. Hence the tombstone: it stays until no signature from before the removal is accepted any more.

use std::{fmt, time::Duration};

use data_encoding::HEXLOWER;

use super::PublishError;
use crate::{clock::UnixMs, dns::tsig::FUDGE, name::PeerId};

/// For how long a tombstone stays. A signature is accepted for one fudge after its time; the clocks of the publisher
/// that made it, of the one that removed the records and of the one that takes the tombstone away may each be wrong by
/// as much, or their updates would not be accepted.
pub const TOMBSTONE: Duration = Duration::from_secs(4 * FUDGE as u64 + 60);
/// The longest text taken for a lease, in octets.
const MAX_TEXT: usize = 512;

/// What a lease record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whether the host is published, rather than removed.
    pub live: bool,
    /// Until when, in seconds since 1970.
    pub until: u64,
    /// What makes this value unlike any other.
    pub nonce: [u8; 8],
    /// The name of the key that wrote it.
    pub key: String,
    /// The proxy peer.
    pub peer: Option<PeerId>,
}

impl Lease {
    /// A lease from `now` on.
    pub(super) fn new(
        live: bool,
        span: Duration,
        key: &str,
        peer: Option<PeerId>,
        now: UnixMs,
    ) -> Result<Self, PublishError> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|_| PublishError::NoEntropy)?;
        Ok(Self { live, until: now.after(span).0.div_ceil(1000), nonce, key: key.to_owned(), peer })
    }

    /// Reads the text of a lease record; `None` if it is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= MAX_TEXT)?;
        let mut pairs = text.split(';').map(|pair| pair.trim().split_once('='));
        (pairs.next()?? == ("v", "P2PSIP1")).then_some(())?;
        let (mut live, mut until, mut nonce, mut key, mut peer) = (None, None, None, None, None);
        for pair in pairs {
            let (tag, value) = pair?;
            let twice = match tag {
                "s" => live
                    .replace(matches!(value, "live").then_some(true).or((value == "gone").then_some(false))?)
                    .is_some(),
                "e" => until.replace(value.parse().ok()?).is_some(),
                "n" => nonce.replace(HEXLOWER.decode(value.as_bytes()).ok()?.try_into().ok()?).is_some(),
                "k" => key.replace(value.to_owned()).is_some(),
                "p" => peer.replace(value.parse().ok()?).is_some(),
                // For later versions.
                _ => false,
            };
            if twice {
                return None;
            }
        }
        Some(Self { live: live?, until: until?, nonce: nonce?, key: key?, peer })
    }

    /// Whether it is over at `now`.
    pub const fn has_ended(&self, now: UnixMs) -> bool {
        now.0 / 1000 >= self.until
    }

    /// How long it goes on, in milliseconds.
    pub fn remaining_ms(&self, now: UnixMs) -> u64 {
        u64::try_from(UnixMs(self.until.saturating_mul(1000)).since(now).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether whoever holds `key` and speaks for `peer` may change what this lease is for: the same proxy peer, or the same
    /// key.
    pub(super) fn is_of(&self, key: &str, peer: Option<&PeerId>) -> bool {
        match (&self.peer, peer) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.key == key,
        }
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.live { "live" } else { "gone" };
        write!(f, "v=P2PSIP1; s={state}; e={}; n={}; k={}", self.until, HEXLOWER.encode(&self.nonce), self.key)?;
        match &self.peer {
            Some(peer) => write!(f, "; p={peer}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lease_reads_back_and_no_two_are_alike() {
        let now = UnixMs(1_000_500);
        let peer = PeerId::from_public_key([7; 32]);
        for (live, peer) in [(true, Some(peer)), (false, None)] {
            let lease = Lease::new(live, Duration::from_secs(60), "gatekeeper", peer, now).unwrap();
            assert_eq!(Lease::parse(lease.to_string().as_bytes()), Some(lease.clone()));
            assert_ne!(Lease::new(live, Duration::from_secs(60), "gatekeeper", peer, now).unwrap(), lease);
            assert!(!lease.has_ended(UnixMs(1_060_000)) && lease.has_ended(UnixMs(1_061_000)));
            assert!(lease.to_string().len() < 255);
        }
    }

    #[test]
    fn other_texts_are_no_leases() {
        let sound = "v=P2PSIP1; s=live; e=1; n=0123456789abcdef; k=a";
        assert!(Lease::parse(sound.as_bytes()).is_some());
        assert!(Lease::parse(format!("{sound}; x=later").as_bytes()).is_some());
        for (from, to) in
            [("P1", "P2"), ("live", "alive"), ("e=1", "e=x"), ("cdef", ""), ("k=a", "k"), ("; k=a", "; s=gone; k=a")]
        {
            assert_eq!(Lease::parse(sound.replace(from, to).as_bytes()), None, "{from} {to}");
        }
    }

    #[test]
    fn the_same_peer_or_the_same_key_may_change_it() {
        let (a, b) = (PeerId::from_public_key([1; 32]), PeerId::from_public_key([2; 32]));
        let lease = |peer| Lease { live: true, until: 1, nonce: [0; 8], key: "k".into(), peer };
        assert!(lease(Some(a)).is_of("other", Some(&a)));
        assert!(!lease(Some(a)).is_of("k", Some(&b)));
        assert!(lease(Some(a)).is_of("k", None));
        assert!(!lease(None).is_of("other", Some(&a)));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(v=P2PSIP1; )?.{0,80}") {
            let _ = Lease::parse(text.as_bytes());
        }
    }
}
