//! How a record is signed: COSE_Sign1 (RFC 9052 §4.2) with EdDSA, the signer's certificate in `x5chain` (RFC 9360).
//!
//! A record has one envelope, and nobody but its signer can make another, so storers agree on what they hold by
//! comparing octets.

use super::{Payload, Refusal};
pub(super) use crate::identity::cose::Credentials;
use crate::{
    identity::{Certificate, SecretKey, cose::Form},
    kind::Kind,
};

/// How a record is signed, and that it is one.
const FORM: Form = Form { context: b"p2psip record 1", tagged: true };

/// Why a record cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Every storer would refuse it.
    #[error("the record would be refused everywhere: {0}")]
    Refused(#[from] Refusal),
    /// The certificate belongs to another key.
    #[error("the certificate (serial {serial}) is not for the key that signs: use the certificate issued to this key")]
    OtherKey {
        /// The certificate's serial number.
        serial: String,
    },
    /// It cannot be written.
    #[error("the record cannot be encoded: {why}")]
    Unencodable {
        /// What the encoder says.
        why: String,
    },
}

impl RecordError {
    /// [`Kind::Usage`]: what was to be recorded, or the credentials, must change.
    pub const fn kind(&self) -> Kind {
        Kind::Usage
    }
}

/// An envelope that was read, not verified.
pub(super) struct Opened {
    pub credentials: Credentials,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    /// The octets that must have been signed.
    pub message: Vec<u8>,
}

/// Signs a record. The same input gives the same octets.
///
/// With a `certificate` the envelope carries it; without, for an overlay of open policy, it carries the bare key.
///
/// # Errors
/// [`RecordError::Refused`] if its shape is wrong or the certificate does not name it; [`RecordError::OtherKey`];
/// [`RecordError::Unencodable`].
pub fn seal(payload: &Payload, key: &SecretKey, certificate: Option<&Certificate>) -> Result<Vec<u8>, RecordError> {
    payload.validate(&key.peer_id())?;
    let credentials = match certificate {
        None => Credentials::Key(key.public()),
        Some(certificate) if certificate.public_key() != key.public() => {
            return Err(RecordError::OtherKey { serial: certificate.serial().to_owned() });
        }
        Some(certificate) if !certificate.is_for(&payload.name) => return Err(Refusal::NotNamed.into()),
        Some(certificate) => Credentials::Certificate(certificate.der().to_vec()),
    };
    sign(&credentials, payload.encode()?, key)
}

/// Signs whatever it is given.
pub(super) fn sign(credentials: &Credentials, payload: Vec<u8>, key: &SecretKey) -> Result<Vec<u8>, RecordError> {
    FORM.sign(Some(credentials), payload, key).map_err(|why| RecordError::Unencodable { why })
}

/// Takes an envelope apart.
pub(super) fn open(envelope: &[u8]) -> Result<Opened, Refusal> {
    let opened = FORM.open(envelope).map_err(Refusal::malformed)?;
    let credentials = opened.credentials.ok_or_else(|| Refusal::malformed("it has neither a certificate nor a key"))?;
    Ok(Opened { credentials, payload: opened.payload, signature: opened.signature, message: opened.message })
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::{
        identity::{
            PublicKey,
            cose::testing::{nested, on_a_small_stack},
        },
        record::testing::{self, Draft, Enrolled},
    };

    const ALICE: &str = "sip:alice@p2psip.org";

    fn alice() -> Draft {
        Draft::user(ALICE, 1)
    }

    fn why(envelope: &[u8]) -> String {
        match open(envelope) {
            Err(Refusal::Malformed { why }) => why,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("accepted"),
        }
    }

    /// Signatures are over these octets and records outlive a program's version: what fails here breaks the overlay.
    #[test]
    fn the_encoding_stays_as_it_is() {
        let envelope = alice().removed().seal(None);
        let key = HEXLOWER.encode(testing::key(1).public().octets());
        // Tag 18; four items; {1: -8, 4: key}; {}; the payload.
        let expected = format!("d2845826a20127045820{key}a05842a4646e616d65");
        assert!(HEXLOWER.encode(&envelope).starts_with(&expected), "{}", HEXLOWER.encode(&envelope));
        assert_eq!(open(&envelope).unwrap().payload, alice().removed().payload.encode().unwrap());
        // RFC 9052 §4.4: context, protected header, external data, payload.
        let message = open(&envelope).unwrap().message;
        let expected = format!("846a5369676e61747572653158 26a20127045820{key}4f{}5842", HEXLOWER.encode(FORM.context));
        assert!(HEXLOWER.encode(&message).starts_with(&expected.replace(' ', "")), "{}", HEXLOWER.encode(&message));
    }

    #[test]
    fn sealing_refuses_what_storers_would() {
        let certificate = Enrolled::new().certificate(1, &[ALICE]);
        let seal = |draft: &Draft, key: u8| seal(&draft.payload, &testing::key(key), Some(&certificate)).unwrap_err();
        assert!(matches!(seal(&alice(), 2), RecordError::OtherKey { .. }));
        let bob = Draft::user("sip:bob@p2psip.org", 1);
        assert_eq!(seal(&bob, 1), RecordError::Refused(Refusal::NotNamed));
        let mut empty = alice();
        empty.payload.body = crate::record::Body::User { contacts: vec![] };
        let error = seal(&empty, 1);
        assert!(matches!(error, RecordError::Refused(Refusal::Malformed { .. })));
        assert_eq!(error.kind(), Kind::Usage);
    }

    #[test]
    fn whatever_is_no_envelope_is_malformed() {
        assert!(why(&[]).contains("cut short"));
        assert!(why(&alice().seal(None)[1..]).contains("not tagged"));
        assert!(why(&[alice().seal(None), vec![0]].concat()).contains("octets follow"));
        let anonymous = FORM.sign(None, alice().payload.encode().unwrap(), &testing::key(1)).unwrap();
        assert!(why(&anonymous).contains("neither"));
    }

    #[test]
    fn a_signature_has_no_second_form_and_a_weak_key_signs_nothing() {
        // The order of the group, little-endian (RFC 8032 §5.1): adding it to S changes nothing but the octets.
        let order = HEXLOWER.decode(b"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
        let opened = open(&alice().seal(None)).unwrap();
        let mut second = opened.signature.clone();
        let mut carry = 0;
        for (digit, add) in second[32..].iter_mut().zip(order) {
            let sum = u16::from(*digit) + u16::from(add) + carry;
            *digit = sum as u8;
            carry = sum >> 8;
        }
        let key = testing::key(1).public();
        assert!(key.verify(&opened.message, &opened.signature));
        assert!(!key.verify(&opened.message, &second));
        // The neutral element as key and as R, with S = 0, satisfies the equation for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!PublicKey::from_octets(neutral).verify(b"anything", &signature));
    }

    #[test]
    fn nesting_does_not_exhaust_the_stack() {
        let key = testing::key(1).public();
        let [countersigned, arrays] = nested(true, &[&[0xa2, 0x01, 0x27, 0x04, 0x58, 0x20][..], key.octets()].concat());
        on_a_small_stack(move || {
            assert!(why(&countersigned).contains("not understood"));
            assert!(why(&arrays).contains("too deeply"));
        });
    }
}
