//! How a record is signed: COSE_Sign1 (RFC 9052 §4.2) with EdDSA, the signer's certificate in `x5chain` (RFC 9360).
//!
//! Everything but the signature itself is protected by it, and an envelope is read only if it is, octet for octet,
//! what [`seal`] would have written. So a record has one envelope, nobody but its signer can make another, and
//! storers agree on what they hold by comparing octets.

use ciborium::Value;
use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable, iana};

use super::{Payload, Refusal, payload::cbor_error};
use crate::{
    identity::{Certificate, PublicKey, SecretKey},
    kind::Kind,
};

/// Bound into the signature, so that nothing else that a member signs can pass as a record.
const CONTEXT: &[u8] = b"p2psip record 1";
/// The CBOR tag of COSE_Sign1 (RFC 9052 §2).
const TAG: u64 = iana::CborTag::CoseSign1 as u64;
/// The header parameters of RFC 9052 §3.1 and RFC 9360 §2.
const ALG: i128 = iana::HeaderParameter::Alg as i128;
const CRIT: i128 = iana::HeaderParameter::Crit as i128;
const KID: i128 = iana::HeaderParameter::Kid as i128;
const X5CHAIN: i128 = iana::HeaderParameter::X5Chain as i128;
/// The algorithm of RFC 9053 §2.2.
const EDDSA: i128 = iana::Algorithm::EdDSA as i128;
/// A tag, an array and its items; header maps are flat but for the arrays that are refused. Read with this limit and
/// only then shown to `coset`, whose own reader follows nested countersignatures until the stack is exhausted.
const MAX_DEPTH: usize = 8;

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

/// What an envelope says about the key that signed it.
pub(super) enum Credentials {
    /// A certificate in DER, not yet looked at.
    Certificate(Vec<u8>),
    /// Nothing but the key (open policy).
    Key(PublicKey),
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
    let mut envelope = sign1(credentials, payload);
    envelope.signature = key.sign(&envelope.tbs_data(CONTEXT)).to_vec();
    envelope.to_tagged_vec().map_err(|error| RecordError::Unencodable { why: error.to_string() })
}

/// Takes an envelope apart.
pub(super) fn open(envelope: &[u8]) -> Result<Opened, Refusal> {
    let Value::Tag(TAG, content) = read(envelope, "envelope")? else {
        return Err(Refusal::malformed("it is not tagged as COSE_Sign1"));
    };
    let parts = content.into_array().ok().and_then(|parts| <[Value; 4]>::try_from(parts).ok());
    let Some([Value::Bytes(protected), Value::Map(unprotected), Value::Bytes(payload), Value::Bytes(signature)]) =
        parts
    else {
        return Err(Refusal::malformed("it is not COSE_Sign1"));
    };
    if !unprotected.is_empty() {
        return Err(Refusal::malformed("it has headers that are not protected by the signature"));
    }
    let credentials = credentials(&protected)?;
    let mut rebuilt = sign1(&credentials, payload.clone());
    let message = rebuilt.tbs_data(CONTEXT);
    rebuilt.signature.clone_from(&signature);
    if rebuilt.to_tagged_vec().ok().as_deref() != Some(envelope) {
        return Err(Refusal::malformed("it is not the one encoding of its content"));
    }
    Ok(Opened { credentials, payload, signature, message })
}

/// The structure of an envelope, its signature still missing.
fn sign1(credentials: &Credentials, payload: Vec<u8>) -> CoseSign1 {
    let header = HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA);
    let header = match credentials {
        Credentials::Certificate(der) => header.value(iana::HeaderParameter::X5Chain as i64, Value::Bytes(der.clone())),
        Credentials::Key(key) => header.key_id(key.octets().to_vec()),
    };
    CoseSign1Builder::new().protected(header.build()).payload(payload).build()
}

/// Reads the protected header: the algorithm, and either a certificate or a key. Whatever else it might say would have
/// to be understood, so it is refused.
fn credentials(protected: &[u8]) -> Result<Credentials, Refusal> {
    let Value::Map(parameters) = read(protected, "protected header")? else {
        return Err(Refusal::malformed("its protected header is not a map"));
    };
    let mut algorithm = false;
    let mut credentials = None;
    for (label, value) in parameters {
        let label = label.as_integer().map(i128::from);
        match (label, value) {
            (Some(ALG), Value::Integer(alg)) if i128::from(alg) == EDDSA => algorithm = true,
            (Some(ALG), _) => return Err(Refusal::malformed("it is signed with another algorithm than EdDSA")),
            (Some(CRIT), _) => return Err(Refusal::malformed("it has critical headers, which are not understood")),
            (Some(X5CHAIN | KID), _) if credentials.is_some() => {
                return Err(Refusal::malformed("it has both a certificate and a key, or one of them twice"));
            }
            (Some(X5CHAIN), Value::Bytes(der)) => credentials = Some(Credentials::Certificate(der)),
            (Some(X5CHAIN), _) => return Err(Refusal::malformed("it does not have exactly one certificate")),
            (Some(KID), Value::Bytes(key)) => {
                let key = key.try_into().map_err(|_| Refusal::malformed("its key does not have 32 octets"))?;
                credentials = Some(Credentials::Key(PublicKey::from_octets(key)));
            }
            (Some(KID), _) => return Err(Refusal::malformed("its key is not a string of octets")),
            _ => return Err(Refusal::malformed("it has a header that is not understood")),
        }
    }
    match credentials {
        Some(credentials) if algorithm => Ok(credentials),
        Some(_) => Err(Refusal::malformed("it does not name its algorithm")),
        None => Err(Refusal::malformed("it has neither a certificate nor a key")),
    }
}

/// One CBOR value that takes up all of `octets`.
fn read(octets: &[u8], what: &str) -> Result<Value, Refusal> {
    let mut rest = octets;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|error| Refusal::malformed(format!("its {what} cannot be read: {}", cbor_error(&error))))?;
    if rest.is_empty() { Ok(value) } else { Err(Refusal::malformed(format!("octets follow its {what}"))) }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use data_encoding::HEXLOWER;

    use super::*;
    use crate::record::testing::{self, Draft, Enrolled};

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

    fn bytes(value: &Value) -> Vec<u8> {
        let mut octets = Vec::new();
        ciborium::into_writer(value, &mut octets).unwrap();
        octets
    }

    fn integer(value: i64) -> Value {
        Value::Integer(value.into())
    }

    fn alg() -> (Value, Value) {
        (integer(1), integer(-8))
    }

    fn kid() -> (Value, Value) {
        (integer(4), Value::Bytes(testing::key(1).public().octets().to_vec()))
    }

    /// An envelope with this protected header. Its signature is none.
    fn with_header(header: Vec<(Value, Value)>) -> Vec<u8> {
        with_parts(
            18,
            vec![
                Value::Bytes(bytes(&Value::Map(header))),
                Value::Map(vec![]),
                Value::Bytes(alice().payload.encode().unwrap()),
                Value::Bytes(vec![0; 64]),
            ],
        )
    }

    fn with_parts(tag: u64, parts: Vec<Value>) -> Vec<u8> {
        bytes(&Value::Tag(tag, Box::new(Value::Array(parts))))
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
        let expected = format!("846a5369676e61747572653158 26a20127045820{key}4f{}5842", HEXLOWER.encode(CONTEXT));
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
    fn whatever_is_not_cose_sign1_is_malformed() {
        assert!(open(&with_header(vec![alg(), kid()])).is_ok());
        let parts = |count| vec![Value::Bytes(vec![]); count];
        assert!(why(&[]).contains("cut short"));
        assert!(why(&[0xf6]).contains("not tagged"));
        assert!(why(&alice().seal(None)[1..]).contains("not tagged"));
        assert!(why(&with_parts(98, parts(4))).contains("not tagged"));
        assert!(why(&with_parts(18, parts(4))).contains("not COSE_Sign1"));
        for count in [0, 3, 5] {
            assert!(why(&with_parts(18, parts(count))).contains("not COSE_Sign1"));
        }
        let detached = vec![Value::Bytes(vec![]), Value::Map(vec![]), Value::Null, Value::Bytes(vec![])];
        assert!(why(&with_parts(18, detached)).contains("not COSE_Sign1"));
        assert!(why(&[alice().seal(None), vec![0]].concat()).contains("octets follow"));
    }

    #[test]
    fn headers_are_protected_and_understood_or_the_envelope_is_malformed() {
        let header = |parameters| why(&with_header(parameters));
        let bytes = |count| Value::Bytes(vec![0; count]);
        assert!(header(vec![]).contains("neither"));
        assert!(header(vec![alg()]).contains("neither"));
        assert!(header(vec![kid()]).contains("algorithm"));
        assert!(header(vec![(integer(1), integer(-7)), kid()]).contains("another algorithm"));
        assert!(header(vec![(integer(1), Value::Text("EdDSA".to_owned())), kid()]).contains("another algorithm"));
        assert!(header(vec![alg(), (integer(2), Value::Array(vec![integer(1)])), kid()]).contains("critical"));
        assert!(header(vec![alg(), (integer(3), integer(0)), kid()]).contains("not understood"));
        assert!(header(vec![alg(), kid(), (integer(-70_000), integer(0))]).contains("not understood"));
        assert!(header(vec![alg(), kid(), (Value::Text("x".to_owned()), integer(0))]).contains("not understood"));
        assert!(header(vec![alg(), (integer(4), bytes(31))]).contains("32 octets"));
        assert!(header(vec![alg(), (integer(4), integer(0))]).contains("string of octets"));
        assert!(header(vec![alg(), kid(), (integer(33), bytes(9))]).contains("both"));
        assert!(header(vec![alg(), kid(), kid()]).contains("twice"));
        for certificates in 1..3 {
            let chain = (integer(33), Value::Array(vec![bytes(9); certificates]));
            assert!(header(vec![alg(), chain]).contains("exactly one certificate"));
        }
        // The same twice, or in another order, is another encoding of the same.
        assert!(header(vec![alg(), alg(), kid()]).contains("one encoding"));
        assert!(header(vec![kid(), alg()]).contains("one encoding"));
        let unprotected =
            vec![Value::Bytes(self::bytes(&Value::Map(vec![alg()]))), Value::Map(vec![kid()]), bytes(1), bytes(64)];
        assert!(why(&with_parts(18, unprotected)).contains("not protected"));
    }

    #[test]
    fn another_encoding_of_the_same_is_malformed() {
        let envelope = alice().seal(None);
        assert_eq!(envelope[..4], [0xd2, 0x84, 0x58, 0x26]);
        let variants = [
            [&[0xd8, 0x12][..], &envelope[1..]].concat(),
            [&[0xd2, 0x98, 0x04][..], &envelope[2..]].concat(),
            [&[0xd2, 0x9f][..], &envelope[2..], &[0xff]].concat(),
            [&[0xd2, 0x84, 0x59, 0x00, 0x26][..], &envelope[4..]].concat(),
            [&[0xd2, 0x84, 0x5f, 0x58, 0x26][..], &envelope[4..42], &[0xff], &envelope[42..]].concat(),
        ];
        for variant in variants {
            assert!(why(&variant).contains("one encoding"), "{}", HEXLOWER.encode(&variant));
        }
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
        // Countersignatures in protected headers of countersignatures, and plain arrays, as deep as 64 KiB allow.
        let mut header = bytes(&Value::Map(vec![alg(), kid()]));
        while header.len() < 60_000 {
            let length = u16::try_from(header.len()).unwrap().to_be_bytes();
            header = [&[0xa1, 0x07, 0x83, 0x59][..], &length, &header, &[0xa0, 0x40]].concat();
        }
        let length = u16::try_from(header.len()).unwrap().to_be_bytes();
        let countersigned = [&[0xd2, 0x84, 0x59][..], &length, &header, &[0xa0, 0x40, 0x40]].concat();
        let arrays = [&[0xd2][..], &[0x81; 65_000]].concat();
        let check = move || {
            assert!(why(&countersigned).contains("not understood"));
            assert!(why(&arrays).contains("too deeply"));
        };
        thread::Builder::new().stack_size(256 * 1024).spawn(check).unwrap().join().unwrap();
    }
}
