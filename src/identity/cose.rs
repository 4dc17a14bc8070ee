//! COSE_Sign1 (RFC 9052 §4.2) with EdDSA, as records and revocation lists use it: one way to write it, and no other is
//! read.
//!
//! Everything but the signature itself is protected by it, and octets are read only if they are what [`Form::sign`]
//! would have written. So nobody but the signer can make another encoding of what was signed.
//!
//! `coset` writes and never reads here: its reader follows countersignatures nested in protected headers until the
//! stack is exhausted.

use std::io;

use ciborium::Value;
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable, iana};
use serde::de::DeserializeOwned;

use super::{PublicKey, SecretKey};

/// The CBOR tag of COSE_Sign1 (RFC 9052 §2).
const TAG: u64 = iana::CborTag::CoseSign1 as u64;
/// The header parameters of RFC 9052 §3.1 and RFC 9360 §2.
const ALG: i128 = iana::HeaderParameter::Alg as i128;
const CRIT: i128 = iana::HeaderParameter::Crit as i128;
const KID: i128 = iana::HeaderParameter::Kid as i128;
const X5CHAIN: i128 = iana::HeaderParameter::X5Chain as i128;
/// The algorithm of RFC 9053 §2.2.
const EDDSA: i128 = iana::Algorithm::EdDSA as i128;
/// How deep CBOR may be nested: an envelope needs three levels, what is signed six.
const MAX_DEPTH: usize = 16;
/// The longest text of a CBOR error, which may quote what another peer sent, in characters.
const MAX_WHY: usize = 200;

/// What tells one kind of signed content from another.
pub(crate) struct Form {
    /// Bound into the signature (`external_aad`, RFC 9052 §4.3), so that nothing else signed with the same key passes
    /// as this.
    pub context: &'static [u8],
    /// Whether the CBOR tag of COSE_Sign1 comes first.
    pub tagged: bool,
}

/// What the protected header says about the key that signed.
pub(crate) enum Credentials {
    /// A certificate in DER, not yet looked at.
    Certificate(Vec<u8>),
    /// Nothing but the key.
    Key(PublicKey),
}

/// Signed octets taken apart, the signature not yet verified.
pub(crate) struct Opened {
    /// None: the reader has to know the key.
    pub credentials: Option<Credentials>,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    /// The octets that must have been signed.
    pub message: Vec<u8>,
}

impl Form {
    /// Signs `payload`. The same input gives the same octets. An error says why it cannot be encoded.
    pub(crate) fn sign(
        &self,
        credentials: Option<&Credentials>,
        payload: Vec<u8>,
        key: &SecretKey,
    ) -> Result<Vec<u8>, String> {
        let mut sign1 = unsigned(credentials, payload);
        sign1.signature = key.sign(&sign1.tbs_data(self.context)).to_vec();
        self.encode(sign1)
    }

    /// Takes apart what [`Form::sign`] has made. An error says what is wrong with it.
    pub(crate) fn open(&self, octets: &[u8]) -> Result<Opened, String> {
        let content = match read(octets, "COSE_Sign1 structure")? {
            Value::Tag(TAG, content) if self.tagged => *content,
            _ if self.tagged => return refused("it is not tagged as COSE_Sign1"),
            content => content,
        };
        let parts = content.into_array().ok().and_then(|parts| <[Value; 4]>::try_from(parts).ok());
        let Some([Value::Bytes(protected), Value::Map(unprotected), Value::Bytes(payload), Value::Bytes(signature)]) =
            parts
        else {
            return refused("it is not COSE_Sign1");
        };
        if !unprotected.is_empty() {
            return refused("it has headers that are not protected by the signature");
        }
        let credentials = credentials(&protected)?;
        let mut rebuilt = unsigned(credentials.as_ref(), payload.clone());
        let message = rebuilt.tbs_data(self.context);
        rebuilt.signature.clone_from(&signature);
        if self.encode(rebuilt).as_deref() != Ok(octets) {
            return refused("it is not the one encoding of its content");
        }
        Ok(Opened { credentials, payload, signature, message })
    }

    fn encode(&self, sign1: CoseSign1) -> Result<Vec<u8>, String> {
        let encoded = if self.tagged { sign1.to_tagged_vec() } else { sign1.to_vec() };
        encoded.map_err(|error| error.to_string())
    }
}

/// The structure, its signature still missing.
fn unsigned(credentials: Option<&Credentials>, payload: Vec<u8>) -> CoseSign1 {
    let header = HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA);
    let header = match credentials {
        None => header,
        Some(Credentials::Certificate(der)) => {
            header.value(iana::HeaderParameter::X5Chain as i64, Value::Bytes(der.clone()))
        }
        Some(Credentials::Key(key)) => header.key_id(key.octets().to_vec()),
    };
    CoseSign1Builder::new().protected(header.build()).payload(payload).build()
}

/// Reads the protected header: the algorithm and, if there is one, a certificate or a key. Whatever else it might say
/// would have to be understood, so it is refused.
fn credentials(protected: &[u8]) -> Result<Option<Credentials>, String> {
    let Value::Map(parameters) = read(protected, "protected header")? else {
        return refused("its protected header is not a map");
    };
    let mut algorithm = false;
    let mut credentials = None;
    for (label, value) in parameters {
        let label = label.as_integer().map(i128::from);
        match (label, value) {
            (Some(ALG), Value::Integer(alg)) if i128::from(alg) == EDDSA => algorithm = true,
            (Some(ALG), _) => return refused("it is signed with another algorithm than EdDSA"),
            (Some(CRIT), _) => return refused("it has critical headers, which are not understood"),
            (Some(X5CHAIN | KID), _) if credentials.is_some() => {
                return refused("it has both a certificate and a key, or one of them twice");
            }
            (Some(X5CHAIN), Value::Bytes(der)) => credentials = Some(Credentials::Certificate(der)),
            (Some(X5CHAIN), _) => return refused("it does not have exactly one certificate"),
            (Some(KID), Value::Bytes(key)) => {
                let Ok(key) = key.try_into() else { return refused("its key does not have 32 octets") };
                credentials = Some(Credentials::Key(PublicKey::from_octets(key)));
            }
            (Some(KID), _) => return refused("its key is not a string of octets"),
            _ => return refused("it has a header that is not understood"),
        }
    }
    if algorithm { Ok(credentials) } else { refused("it does not name its algorithm") }
}

fn refused<T>(why: &str) -> Result<T, String> {
    Err(why.to_owned())
}

/// Reads one CBOR value, nested no deeper than anything here has reason to be, that takes up all of `octets`. `what` it
/// is goes into the error.
pub(crate) fn read<T: DeserializeOwned>(octets: &[u8], what: &str) -> Result<T, String> {
    let mut rest = octets;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|error| format!("its {what} cannot be read: {}", describe(&error)))?;
    if rest.is_empty() { Ok(value) } else { Err(format!("octets follow its {what}")) }
}

/// What is wrong with a piece of CBOR, in one line.
fn describe(error: &ciborium::de::Error<io::Error>) -> String {
    use ciborium::de::Error;
    match error {
        Error::Io(_) => "it is cut short".to_owned(),
        Error::Syntax(at) => format!("no CBOR at octet {at}"),
        // It ends up in logs and on terminals.
        Error::Semantic(_, why) => {
            why.chars().take(MAX_WHY).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        }
        Error::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What a hostile peer sends.

    /// As deep as 64 KiB allow: an envelope with countersignatures in protected headers of countersignatures, and plain
    /// arrays. `innermost` is a protected header.
    pub(crate) fn nested(tagged: bool, innermost: &[u8]) -> [Vec<u8>; 2] {
        let length = |header: &[u8]| u16::try_from(header.len()).unwrap().to_be_bytes();
        let mut header = innermost.to_vec();
        while header.len() < 60_000 {
            header = [&[0xa1, 0x07, 0x83, 0x59][..], &length(&header), &header, &[0xa0, 0x40]].concat();
        }
        let tag: &[u8] = if tagged { &[0xd2] } else { &[] };
        let countersigned = [tag, &[0x84, 0x59], &length(&header), &header, &[0xa0, 0x40, 0x40]].concat();
        [countersigned, [tag, &[0x81; 65_000]].concat()]
    }

    /// Runs `check` where there is little stack, as worker threads have it.
    pub(crate) fn on_a_small_stack(check: impl FnOnce() + Send + 'static) {
        std::thread::Builder::new().stack_size(256 * 1024).spawn(check).unwrap().join().unwrap();
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    const TAGGED: Form = Form { context: b"test", tagged: true };
    const UNTAGGED: Form = Form { context: b"test", tagged: false };

    fn key() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn all() -> [Option<Credentials>; 3] {
        [None, Some(Credentials::Key(key().public())), Some(Credentials::Certificate(vec![0x30; 300]))]
    }

    fn signed() -> Vec<u8> {
        TAGGED.sign(Some(&Credentials::Key(key().public())), b"payload".to_vec(), &key()).unwrap()
    }

    fn why(octets: &[u8]) -> String {
        TAGGED.open(octets).err().unwrap()
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
        (integer(4), Value::Bytes(key().public().octets().to_vec()))
    }

    /// COSE_Sign1 with this protected header. Its signature is none.
    fn with_header(header: Vec<(Value, Value)>) -> Vec<u8> {
        let octets = |count| Value::Bytes(vec![0; count]);
        with_parts(18, vec![Value::Bytes(bytes(&Value::Map(header))), Value::Map(vec![]), octets(9), octets(64)])
    }

    fn with_parts(tag: u64, parts: Vec<Value>) -> Vec<u8> {
        bytes(&Value::Tag(tag, Box::new(Value::Array(parts))))
    }

    #[test]
    fn what_is_signed_can_be_opened_and_verified() {
        for form in [TAGGED, UNTAGGED] {
            for credentials in all() {
                let octets = form.sign(credentials.as_ref(), b"payload".to_vec(), &key()).unwrap();
                assert_eq!(octets, form.sign(credentials.as_ref(), b"payload".to_vec(), &key()).unwrap());
                assert_eq!(octets.starts_with(&[0xd2, 0x84]), form.tagged);
                let opened = form.open(&octets).unwrap();
                assert_eq!(opened.payload, b"payload");
                assert!(key().public().verify(&opened.message, &opened.signature));
                match (credentials, opened.credentials) {
                    (None, None) => {}
                    (Some(Credentials::Key(one)), Some(Credentials::Key(other))) => assert_eq!(one, other),
                    (Some(Credentials::Certificate(one)), Some(Credentials::Certificate(other))) => {
                        assert_eq!(one, other);
                    }
                    _ => panic!("other credentials"),
                }
            }
        }
    }

    #[test]
    fn another_context_or_tag_is_another_form() {
        let octets = signed();
        let opened = Form { context: b"other", tagged: true }.open(&octets).unwrap();
        assert!(!key().public().verify(&opened.message, &opened.signature));
        assert_eq!(UNTAGGED.open(&octets).err().unwrap(), "it is not COSE_Sign1");
        assert_eq!(why(&octets[1..]), "it is not tagged as COSE_Sign1");
    }

    #[test]
    fn whatever_is_not_cose_sign1_is_refused() {
        assert!(TAGGED.open(&with_header(vec![alg(), kid()])).is_ok());
        let parts = |count| vec![Value::Bytes(vec![]); count];
        assert!(why(&[]).contains("cut short"));
        assert!(why(&[0xf6]).contains("not tagged"));
        assert!(why(&with_parts(98, parts(4))).contains("not tagged"));
        assert!(why(&with_parts(18, parts(4))).contains("not COSE_Sign1"));
        for count in [0, 3, 5] {
            assert!(why(&with_parts(18, parts(count))).contains("not COSE_Sign1"));
        }
        let detached = vec![Value::Bytes(vec![]), Value::Map(vec![]), Value::Null, Value::Bytes(vec![])];
        assert!(why(&with_parts(18, detached)).contains("not COSE_Sign1"));
        assert!(why(&[signed(), vec![0]].concat()).contains("octets follow"));
    }

    #[test]
    fn headers_are_protected_and_understood_or_refused() {
        let header = |parameters| why(&with_header(parameters));
        let bytes = |count| Value::Bytes(vec![0; count]);
        assert!(header(vec![]).contains("algorithm"));
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
    fn another_encoding_of_the_same_is_refused() {
        let octets = signed();
        assert_eq!(octets[..4], [0xd2, 0x84, 0x58, 0x26]);
        let variants = [
            [&[0xd8, 0x12][..], &octets[1..]].concat(),
            [&[0xd2, 0x98, 0x04][..], &octets[2..]].concat(),
            [&[0xd2, 0x9f][..], &octets[2..], &[0xff]].concat(),
            [&[0xd2, 0x84, 0x59, 0x00, 0x26][..], &octets[4..]].concat(),
            [&[0xd2, 0x84, 0x5f, 0x58, 0x26][..], &octets[4..42], &[0xff], &octets[42..]].concat(),
        ];
        for variant in variants {
            assert!(why(&variant).contains("one encoding"), "{}", HEXLOWER.encode(&variant));
        }
    }

    #[test]
    fn what_another_peer_sent_is_quoted_harmlessly() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}
        let field = format!("\u{1b}[2J{}", "x".repeat(1000));
        let octets = bytes(&Value::Map(vec![(Value::Text(field), Value::Null)]));
        let why = read::<Empty>(&octets, "payload").unwrap_err();
        assert!(why.contains("\u{fffd}[2Jxxx") && why.len() < MAX_WHY + 50, "{why}");
    }

    #[test]
    fn nesting_does_not_exhaust_the_stack() {
        for form in [TAGGED, UNTAGGED] {
            let [countersigned, arrays] = testing::nested(form.tagged, &bytes(&Value::Map(vec![alg(), kid()])));
            testing::on_a_small_stack(move || {
                assert!(form.open(&countersigned).err().unwrap().contains("not understood"));
                assert!(form.open(&arrays).err().unwrap().contains("too deeply"));
            });
        }
    }

    proptest! {
        #[test]
        fn opening_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(TAGGED.open(&octets).is_err());
            prop_assert!(UNTAGGED.open(&octets).is_err());
        }
    }
}
