//! Records that an honest member would not write.

use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, cbor::Value, iana};
use p2psip::{
    identity::{Certificate, PublicKey, SecretKey},
    record::Payload,
};

/// Bound into every record's signature.
const CONTEXT: &[u8] = b"p2psip record 1";

/// What an envelope says about who signed it.
pub enum Shown<'a> {
    Certificate(&'a Certificate),
    Key(PublicKey),
    Nothing,
}

/// An envelope with whatever it is given, and no signature yet.
fn unsigned(payload: &Payload, shown: &Shown<'_>) -> CoseSign1 {
    let header = HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA);
    let header = match shown {
        Shown::Certificate(certificate) => {
            header.value(iana::HeaderParameter::X5Chain as i64, Value::Bytes(certificate.der().to_vec()))
        }
        Shown::Key(key) => header.key_id(key.octets().to_vec()),
        Shown::Nothing => header,
    };
    CoseSign1Builder::new().protected(header.build()).payload(payload.encode().unwrap()).build()
}

/// An envelope whose signature is made of these octets.
pub fn with_signature(payload: &Payload, shown: &Shown<'_>, signature: Vec<u8>) -> Vec<u8> {
    let mut envelope = unsigned(payload, shown);
    envelope.signature = signature;
    envelope.to_tagged_vec().unwrap()
}

/// An envelope that shows one thing and is signed by whatever key.
pub fn signed(payload: &Payload, shown: &Shown<'_>, key: &SecretKey) -> Vec<u8> {
    let signature = key.sign(&unsigned(payload, shown).tbs_data(CONTEXT)).to_vec();
    with_signature(payload, shown, signature)
}

/// An envelope that shows the certificate, or the key itself, and is signed by the key, whatever the payload says.
pub fn signed_with(payload: &Payload, key: &SecretKey, certificate: Option<&Certificate>) -> Vec<u8> {
    signed(payload, &certificate.map_or(Shown::Key(key.public()), Shown::Certificate), key)
}
