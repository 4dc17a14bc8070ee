//! SIP on streams of the overlay: what the transports ask of it, and how its peers are written into a Via.

use std::io;

use async_trait::async_trait;
use data_encoding::BASE32_NOPAD_NOCASE;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use crate::name::PeerId;

/// The domain under which no host is (RFC 2606 §2): nobody resolves a peer's Via.
const DOMAIN: &str = ".invalid";

/// Octets both ways, as on a TCP connection.
pub trait Octets: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Octets for T {}

/// A connection or stream, whatever it is made of.
pub type BoxedStream = Box<dyn Octets>;

/// What opens streams to peers of the overlay.
#[async_trait]
pub trait OverlayDialer: Send + Sync {
    /// Opens a stream to `peer`, whose id is authenticated. `addresses` are multiaddrs it is said to listen at.
    ///
    /// # Errors
    /// Why there is no stream; the message names no peer.
    async fn open(&self, peer: PeerId, addresses: &[String]) -> io::Result<BoxedStream>;
}

/// The streams of an overlay.
pub struct OverlayPort {
    /// What opens streams.
    pub dialer: Box<dyn OverlayDialer>,
    /// The streams that peers open, each with its authenticated peer.
    pub incoming: mpsc::Receiver<(PeerId, BoxedStream)>,
}

/// The host by which a peer names itself in a Via: the base32 of its public key, in lower case, under `.invalid`.
pub fn via_host(peer: &PeerId) -> String {
    let mut host = data_encoding::BASE32_NOPAD.encode(peer.public_key());
    host.make_ascii_lowercase();
    host.push_str(DOMAIN);
    host
}

/// The peer of a Via's host, in any case of letters.
pub fn peer_of_via_host(host: &[u8]) -> Option<PeerId> {
    let (key, domain) = host.split_at_checked(host.len().checked_sub(DOMAIN.len())?)?;
    // 32 octets make 52 letters: nothing longer is decoded.
    if key.len() != 52 || !domain.eq_ignore_ascii_case(DOMAIN.as_bytes()) {
        return None;
    }
    let key = BASE32_NOPAD_NOCASE.decode(key).ok()?;
    key.try_into().ok().map(PeerId::from_public_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_round_trips_through_its_via_host() {
        let peer = PeerId::from_public_key(std::array::from_fn(|n| n as u8 * 7));
        let host = via_host(&peer);
        assert_eq!(host.len(), 60);
        assert!(host.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.'), "{host}");
        assert_eq!(peer_of_via_host(host.as_bytes()), Some(peer));
        assert_eq!(peer_of_via_host(host.to_uppercase().as_bytes()), Some(peer));
    }

    #[test]
    fn no_other_host_names_a_peer() {
        let host = via_host(&PeerId::from_public_key([1; 32]));
        let others = ["", ".invalid", "example.com", "invalid", &host[1..], &format!("a{host}"), &host[..52]];
        for other in others {
            assert_eq!(peer_of_via_host(other.as_bytes()), None, "{other}");
        }
        assert_eq!(peer_of_via_host(host.replace(".invalid", ".example").as_bytes()), None);
        // The last letter carries one bit: any other is no encoding of 32 octets.
        let noncanonical = format!("{}b.invalid", &host[..51]);
        assert_eq!(peer_of_via_host(noncanonical.as_bytes()), None);
    }
}
