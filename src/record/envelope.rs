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
