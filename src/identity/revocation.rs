//! The list of certificates that the CA has taken back: COSE_Sign1 (RFC 9052 §4.2) over CBOR.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Certificate, IdentityError, SecretKey,
    cose::{self, Form},
};
use crate::{clock::UnixMs, name::OverlayId};

/// The largest list with its signature.
pub const MAX_BYTES: usize = 64 * 1024;
/// How a list is signed. The reader knows the CA's key.
const FORM: Form = Form { context: b"p2psip revocation list 1", tagged: false };
/// Characters of a wrong serial number that are shown.
const MAX_SHOWN: usize = 40;

/// A revocation list that the overlay's CA has signed. One that exists has been verified. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList(Arc<Fields>);

#[derive(Debug, PartialEq, Eq)]
struct Fields {
    content: Content,
    envelope: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    overlay: OverlayId,
    sequence: u64,
    issued_ms: UnixMs,
    serials: BTreeMap<String, UnixMs>,
}

impl RevocationList {
    /// Makes a list: `serials` maps a certificate's serial number to the time at which it was revoked.
    ///
    /// # Errors
    /// [`IdentityError::Revocations`] if a serial is none or the list is larger than 64 KiB.
    pub fn sign(
        overlay: OverlayId,
        sequence: u64,
        issued: UnixMs,
        serials: BTreeMap<String, UnixMs>,
        ca: &SecretKey,
    ) -> Result<Self, IdentityError> {
        let content = Content { overlay, sequence, issued_ms: issued, serials };
        content.check()?;
        let mut payload = Vec::new();
        ciborium::into_writer(&content, &mut payload).map_err(|error| refused(error.to_string()))?;
        let envelope = FORM.sign(None, payload, ca).map_err(refused)?;
        if envelope.len() > MAX_BYTES {
            return Err(refused(format!("with {} serials it is larger than 64 KiB", content.serials.len())));
        }
        Ok(Self(Arc::new(Fields { content, envelope })))
    }

    /// Reads a list and verifies that `ca` signed it for `overlay`.
    ///
    /// # Errors
    /// [`IdentityError::Revocations`]: larger than 64 KiB, malformed, of another overlay, or not signed by `ca`.
    pub fn decode(envelope: &[u8], overlay: &OverlayId, ca: &Certificate) -> Result<Self, IdentityError> {
        let (list, message, signature) = parse(envelope)?;
        if !ca.is_authority() || !ca.public_key().verify(&message, &signature) {
            return Err(refused("it was not signed by this overlay's CA"));
        }
        if &list.0.content.overlay != overlay {
            return Err(refused(format!("it belongs to overlay {}, not to {overlay}", list.0.content.overlay)));
        }
        Ok(list)
    }

    /// Reads a list of which nobody knows whether it is true; only to show what it says.
    pub(crate) fn decode_unverified(envelope: &[u8]) -> Result<Self, IdentityError> {
        parse(envelope).map(|(list, ..)| list)
    }

    /// The signed octets, for storage and for other members.
    pub fn envelope(&self) -> &[u8] {
        &self.0.envelope
    }

    /// The overlay it is about.
    pub fn overlay(&self) -> &OverlayId {
        &self.0.content.overlay
    }

    /// Of two lists the one with the larger sequence holds (Unix time in milliseconds, but growing in any case).
    pub fn sequence(&self) -> u64 {
        self.0.content.sequence
    }

    /// When the CA made it.
    pub fn issued(&self) -> UnixMs {
        self.0.content.issued_ms
    }

    /// The revoked serial numbers (lower-case hexadecimal), each with the time at which it was revoked.
    pub fn serials(&self) -> &BTreeMap<String, UnixMs> {
        &self.0.content.serials
    }

    /// Whether the certificate with this serial number has been revoked.
    pub fn contains(&self, serial: &str) -> bool {
        self.0.content.serials.contains_key(serial)
    }
}

impl Content {
    fn check(&self) -> Result<(), IdentityError> {
        match self.serials.keys().find(|serial| !is_serial(serial)) {
            Some(serial) => {
                // A peer may have sent it, and it ends up on terminals.
                let shown: String = serial.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
                Err(refused(format!("'{shown}' is not a serial number in lower-case hexadecimal")))
            }
            None => Ok(()),
        }
    }
}

/// Whether this is a serial number as certificates have them (RFC 5280 §4.1.2.2), in lower-case hexadecimal.
pub(crate) fn is_serial(text: &str) -> bool {
    (2..=40).contains(&text.len())
        && text.len().is_multiple_of(2)
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The list, the message that must have been signed, and the signature.
fn parse(envelope: &[u8]) -> Result<(RevocationList, Vec<u8>, Vec<u8>), IdentityError> {
    if envelope.len() > MAX_BYTES {
        return Err(refused("it is larger than 64 KiB"));
    }
    let opened = FORM.open(envelope).map_err(refused)?;
    if opened.credentials.is_some() {
        return Err(refused("it names its signer, which only the CA may be"));
    }
    let content: Content = cose::read(&opened.payload, "payload").map_err(refused)?;
    content.check()?;
    let list = RevocationList(Arc::new(Fields { content, envelope: envelope.to_vec() }));
    Ok((list, opened.message, opened.signature))
}

fn refused(why: impl Into<String>) -> IdentityError {
    IdentityError::Revocations { why: why.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{
        Authority,
        cose::{Credentials, testing},
    };

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn overlay() -> OverlayId {
        "p2psip.org".parse().unwrap()
    }

    fn authority() -> Authority {
        Authority::create(&overlay(), NOW).unwrap()
    }

    fn why<T: std::fmt::Debug>(result: Result<T, IdentityError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_list_round_trips() {
        let authority = authority();
        let list = authority.revoke(None, &["0a0b".to_owned(), "ff".to_owned()], NOW).unwrap();
        let read = RevocationList::decode(list.envelope(), &overlay(), authority.certificate()).unwrap();
        assert_eq!(read, list);
        assert_eq!((read.sequence(), read.issued(), read.serials().len()), (NOW.0, NOW, 2));
        assert!(read.contains("ff") && !read.contains("0a"));
    }

    #[test]
    fn a_list_of_another_ca_or_overlay_is_refused() {
        let authority = authority();
        let list = authority.revoke(None, &[], NOW).unwrap();
        let other = Authority::create(&overlay(), NOW).unwrap();
        assert!(why(RevocationList::decode(list.envelope(), &overlay(), other.certificate())).contains("not signed"));
        let elsewhere = "example.org".parse().unwrap();
        let refused = RevocationList::decode(list.envelope(), &elsewhere, authority.certificate());
        assert!(why(refused).contains("belongs to overlay p2psip.org"));
    }

    #[test]
    fn serials_and_size_are_checked() {
        let authority = authority();
        for wrong in ["", "0", "0A", "xy", &"00".repeat(21)] {
            assert!(why(authority.revoke(None, &[wrong.to_owned()], NOW)).contains("serial"), "{wrong}");
        }
        let many: Vec<String> = (0..2000).map(|serial| format!("{serial:032x}")).collect();
        assert!(why(authority.revoke(None, &many, NOW)).contains("64 KiB"));
        assert!(authority.revoke(None, &many[..1000], NOW).is_ok());
        assert!(why(RevocationList::decode_unverified(&vec![0; MAX_BYTES + 1])).contains("64 KiB"));
    }

    #[test]
    fn no_octet_of_a_list_may_change() {
        let authority = authority();
        let list = authority.revoke(None, &["0a0b".to_owned()], NOW).unwrap();
        for at in 0..list.envelope().len() {
            for flip in [1, 0x20, 0x80, 0xff] {
                let mut envelope = list.envelope().to_vec();
                envelope[at] ^= flip;
                let read = RevocationList::decode(&envelope, &overlay(), authority.certificate());
                assert!(read.is_err(), "octet {at} ^ {flip}");
            }
        }
    }

    #[test]
    fn what_is_not_signed_may_not_vary() {
        let authority = authority();
        let list = authority.revoke(None, &["0a0b".to_owned()], NOW).unwrap();
        let decode = |envelope: &[u8]| why(RevocationList::decode(envelope, &overlay(), authority.certificate()));
        // The array, the protected header {1: -8}, and no unprotected ones.
        let (head, rest) = list.envelope().split_at(6);
        assert_eq!(head, [0x84, 0x43, 0xa1, 0x01, 0x27, 0xa0]);
        assert!(decode(&[&head[..5], &[0xa1, 0x04, 0x41, 0x78], rest].concat()).contains("not protected"));
        assert!(decode(&[&[0x98, 0x04], &head[1..], rest].concat()).contains("one encoding"));
        assert!(decode(&[&[0xd2], head, rest].concat()).contains("not COSE_Sign1"));
        let key = authority.key();
        let named = FORM.sign(Some(&Credentials::Key(key.public())), vec![0xa0], key).unwrap();
        assert!(decode(&named).contains("names its signer"));
    }

    #[test]
    fn a_wrong_serial_is_shown_harmlessly() {
        let serials = BTreeMap::from([(format!("\u{1b}[2J{}", "x".repeat(1000)), NOW)]);
        let content = Content { overlay: overlay(), sequence: 1, issued_ms: NOW, serials };
        let text = why(content.check());
        assert!(text.contains("'\\u{1b}[2Jxxx") && text.len() < 200, "{text}");
    }

    #[test]
    fn nesting_does_not_exhaust_the_stack() {
        let authority = authority();
        let [countersigned, arrays] = testing::nested(false, &[0xa1, 0x01, 0x27]);
        testing::on_a_small_stack(move || {
            let decode = |envelope: &[u8]| why(RevocationList::decode(envelope, &overlay(), authority.certificate()));
            assert!(decode(&countersigned).contains("not understood"));
            assert!(decode(&arrays).contains("too deeply"));
        });
    }

    proptest! {
        #[test]
        fn reading_never_panics(envelope in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(RevocationList::decode_unverified(&envelope).is_err());
        }
    }
}
