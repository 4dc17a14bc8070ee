//! What a routing record says: where one device of a user can be reached.

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::name::PeerId;

/// How many contacts a routing record may have.
pub const MAX_CONTACTS: usize = 8;
/// How many addresses a contact or an offer may have.
pub const MAX_ADDRESSES: usize = 8;
/// The longest address or URI of a contact, in octets.
pub const MAX_ADDRESS: usize = 200;
/// The highest preference: a q-value of 1 (RFC 3261 §20.10), in thousandths.
pub const MAX_Q: u16 = 1000;

/// One way to reach a device.
///
/// `q` is the preference among a user's contacts, that of RFC 3261 §20.10 in thousandths, 0 to [`MAX_Q`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contact {
    /// A member: SIP goes over an overlay stream to it.
    Overlay {
        /// The member.
        peer: PeerId,
        /// Its multiaddrs when the record was written, without the `/p2p/` part. Hints: the overlay may know better.
        addresses: Vec<String>,
        /// The preference, in thousandths.
        q: u16,
    },
    /// A SIP URI, for a user agent that itself shows the overlay URL as its Contact.
    Sip {
        /// The URI, `sip:` or `sips:`.
        uri: String,
        /// The preference, in thousandths.
        q: u16,
    },
}

impl Contact {
    /// The preference, in thousandths.
    pub const fn q(&self) -> u16 {
        match self {
            Self::Overlay { q, .. } | Self::Sip { q, .. } => *q,
        }
    }

    /// Checks the limits that hold for every contact.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn validate(&self) -> Result<(), Refusal> {
        if self.q() > MAX_Q {
            return Err(Refusal::malformed("the preference of a contact is above 1"));
        }
        match self {
            Self::Overlay { addresses, .. } => check_addresses(addresses),
            Self::Sip { uri, .. } => check_sip_uri(uri),
        }
    }
}

/// Checks the contacts of a routing record.
pub(super) fn check_contacts(contacts: &[Contact]) -> Result<(), Refusal> {
    if contacts.is_empty() {
        return Err(Refusal::malformed("a routing record without contacts (a tombstone removes a binding)"));
    }
    if contacts.len() > MAX_CONTACTS {
        return Err(Refusal::malformed(format!("more than {MAX_CONTACTS} contacts")));
    }
    contacts.iter().try_for_each(Contact::validate)
}

/// Checks that addresses are few, short and at least look like multiaddrs; the overlay parses them when it dials.
pub(super) fn check_addresses(addresses: &[String]) -> Result<(), Refusal> {
    if addresses.len() > MAX_ADDRESSES {
        return Err(Refusal::malformed(format!("more than {MAX_ADDRESSES} addresses")));
    }
    for address in addresses {
        if address.len() > MAX_ADDRESS {
            return Err(Refusal::malformed(format!("an address longer than {MAX_ADDRESS} bytes")));
        }
        if !address.starts_with('/') || !address.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Refusal::malformed("an address that is no multiaddr"));
        }
    }
    Ok(())
}

/// Checks that a contact's URI can safely be written into a SIP message: its scheme, its length, and none of the
/// characters that could end it there (RFC 3261 §25.1 allows none of them in a URI either).
fn check_sip_uri(uri: &str) -> Result<(), Refusal> {
    if uri.len() > MAX_ADDRESS {
        return Err(Refusal::malformed(format!("a contact URI longer than {MAX_ADDRESS} bytes")));
    }
    let rest = uri
        .split_once(':')
        .filter(|(scheme, _)| ["sip", "sips"].iter().any(|expected| scheme.eq_ignore_ascii_case(expected)));
    match rest {
        None => Err(Refusal::malformed("a contact URI whose scheme is not sip: or sips:")),
        Some((_, "")) => Err(Refusal::malformed("a contact URI without a host")),
        Some((_, rest)) if rest.bytes().all(|b| b.is_ascii_graphic() && !br#"<>"\^`{|}"#.contains(&b)) => Ok(()),
        Some(_) => Err(Refusal::malformed("a contact URI with characters that a URI may not have")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(addresses: &[&str], q: u16) -> Contact {
        let addresses = addresses.iter().map(|&a| a.to_owned()).collect();
        Contact::Overlay { peer: PeerId::from_public_key([1; 32]), addresses, q }
    }

    fn sip(uri: &str) -> Contact {
        Contact::Sip { uri: uri.to_owned(), q: 500 }
    }

    fn why(contacts: &[Contact]) -> String {
        check_contacts(contacts).unwrap_err().to_string()
    }

    #[test]
    fn ordinary_contacts_pass() {
        check_contacts(&[
            overlay(&["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1"], 1000),
            overlay(&[], 0),
            sip("sip:alice@192.0.2.7:5060;transport=tcp;gr=x"),
            sip("SIPS:[2001:db8::7]"),
        ])
        .unwrap();
    }

    #[test]
    fn whatever_exceeds_a_limit_is_malformed() {
        assert!(why(&[]).contains("without contacts"));
        assert!(why(&vec![sip("sip:a@b"); 9]).contains("8 contacts"));
        assert!(why(&[overlay(&["/ip4/192.0.2.1/tcp/1"; 9], 0)]).contains("8 addresses"));
        assert!(why(&[overlay(&[&format!("/{}", "a".repeat(200))], 0)]).contains("200 bytes"));
        assert!(why(&[overlay(&["192.0.2.1:4001"], 0)]).contains("no multiaddr"));
        assert!(why(&[overlay(&["/ip4/192.0.2.1 /tcp/1"], 0)]).contains("no multiaddr"));
        assert!(why(&[overlay(&["/dns4/bücher.example/tcp/1"], 0)]).contains("no multiaddr"));
        assert!(why(&[overlay(&[], 1001)]).contains("above 1"));
        assert!(why(&[sip(&format!("sip:{}", "a".repeat(200)))]).contains("200 bytes"));
        assert!(why(&[sip("tel:+123")]).contains("scheme"));
        assert!(why(&[sip("sip:")]).contains("without a host"));
    }

    #[test]
    fn a_contact_uri_cannot_end_its_header() {
        for uri in ["sip:a@b>\r\nVia: x", "sip:a@b>;x", "sip:\"a@b", "sip:a b@c", "sip:ü@b"] {
            assert!(why(&[sip(uri)]).contains("characters"), "{uri}");
        }
    }
}
