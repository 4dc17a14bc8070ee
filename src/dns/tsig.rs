//! TSIG keys (RFC 8945): read from the files that `tsig-keygen` writes, and put to work on messages.

use std::{fmt, fs::File, io::Read as _, os::unix::fs::MetadataExt as _, path::Path};

use data_encoding::BASE64;
use hickory_proto::{
    op::Message,
    rr::{
        Name, Record, TSigner,
        rdata::tsig::{TSIG, TsigAlgorithm, TsigError, make_tsig_record},
    },
};

use super::{PublishError, excerpt, rrset::parse_name};

/// How far, in seconds, the clocks of the two ends may be apart (RFC 8945 §10 recommends this much). A captured message
/// can be replayed for as long.
pub const FUDGE: u16 = 300;
/// The shortest secret taken, in octets (RFC 8945 §7: keys of less than 128 bits are too weak).
const MIN_SECRET: usize = 16;
/// The longest secret taken, in octets.
const MAX_SECRET: usize = 512;
/// The largest key file, in octets.
const MAX_FILE: u64 = 16 * 1024;
/// Permission bits that would let somebody else read the secret.
const OTHERS: u32 = 0o077;

/// A shared secret with its name and algorithm. `Debug` does not show the secret.
#[derive(Clone)]
pub struct TsigKey {
    name: String,
    signer: TSigner,
}

/// A signed message: its octets, and what is needed to verify the response to it.
pub(super) struct Signed {
    pub(super) octets: Vec<u8>,
    pub(super) mac: Vec<u8>,
}

impl TsigKey {
    /// Reads a key file: one `key` statement as `tsig-keygen` and BIND write it, and comments. Nobody else may be able
    /// to read the file.
    ///
    /// # Errors
    /// [`PublishError::KeyFile`].
    pub fn load(path: &Path) -> Result<Self, PublishError> {
        let error = |why: String| PublishError::KeyFile { path: path.display().to_string(), why };
        let file = File::open(path).map_err(|cause| error(cause.to_string()))?;
        // Of the open file, not of the path: what is checked is what is read.
        let metadata = file.metadata().map_err(|cause| error(cause.to_string()))?;
        if !metadata.is_file() {
            return Err(error("it is not a file".to_owned()));
        }
        if metadata.mode() & OTHERS != 0 {
            let mode = metadata.mode() & 0o7777;
            return Err(error(format!("others may read it (mode {mode:04o}); chmod 600 it, and consider a new key")));
        }
        let mut octets = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut octets).map_err(|cause| error(cause.to_string()))?;
        if octets.len() as u64 > MAX_FILE {
            return Err(error(format!("it is longer than {MAX_FILE} octets")));
        }
        let text = String::from_utf8(octets).map_err(|_| error("it is not text".to_owned()))?;
        Self::parse(&text).map_err(error)
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = tokens(text)?.into_iter();
        expect(&mut words, "key")?;
        let name = next(&mut words)?;
        expect(&mut words, "{")?;
        let (mut algorithm, mut secret) = (None, None);
        loop {
            let field = next(&mut words)?;
            let slot = match field.as_str() {
                "}" => break,
                "algorithm" => &mut algorithm,
                "secret" => &mut secret,
                _ => return Err(format!("it has an unknown statement '{}'; {SHAPE}", excerpt(&field))),
            };
            if slot.replace(next(&mut words)?).is_some() {
                return Err(format!("it has '{field}' twice; {SHAPE}"));
            }
            expect(&mut words, ";")?;
        }
        expect(&mut words, ";")?;
        if words.next().is_some() {
            return Err("it has more than one key".to_owned());
        }
        let algorithm = algorithm.ok_or_else(|| format!("the key has no algorithm; {SHAPE}"))?;
        let secret = secret.ok_or_else(|| format!("the key has no secret; {SHAPE}"))?;
        let secret = BASE64.decode(secret.as_bytes()).map_err(|_| "the secret is not base64".to_owned())?;
        Self::new(&name, &algorithm, secret)
    }

    /// A key from its parts.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn new(name: &str, algorithm: &str, secret: Vec<u8>) -> Result<Self, String> {
        let parsed = parse_name(name).map_err(|_| format!("'{}' is not the name of a key", excerpt(name)))?;
        let algorithm = match algorithm.trim_end_matches('.').to_ascii_lowercase().as_str() {
            "hmac-sha256" => TsigAlgorithm::HmacSha256,
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            "hmac-sha512" => TsigAlgorithm::HmacSha512,
            other => {
                let known = "hmac-sha256, hmac-sha384 or hmac-sha512";
                return Err(format!("the algorithm '{}' is not {known}", excerpt(other)));
            }
        };
        match secret.len() {
            MIN_SECRET..=MAX_SECRET => {}
            length => return Err(format!("the secret has {length} octets; it needs {MIN_SECRET} to {MAX_SECRET}")),
        }
        let name = parsed.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let signer =
            TSigner::new(secret, algorithm, parsed.to_lowercase(), FUDGE).map_err(|cause| cause.to_string())?;
        Ok(Self { name, signer })
    }

    /// A new key of hmac-sha256.
    ///
    /// # Errors
    /// A name that is none, or no entropy.
    pub fn generate(name: &str) -> Result<Self, String> {
        let mut secret = vec![0; 32];
        getrandom::fill(&mut secret).map_err(|cause| format!("no entropy: {cause}"))?;
        Self::new(name, "hmac-sha256", secret)
    }

    /// The key's name, in lower case and without the root's dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The algorithm's name.
    pub fn algorithm(&self) -> String {
        self.signer.algorithm().to_string()
    }

    /// The text of a key file, with the secret.
    pub fn to_file(&self) -> String {
        let (name, algorithm, secret) = (&self.name, self.algorithm(), BASE64.encode(self.signer.key()));
        format!("key \"{name}\" {{\n\talgorithm {algorithm};\n\tsecret \"{secret}\";\n}};\n")
    }

    pub(super) fn wire_name(&self) -> &Name {
        self.signer.signer_name()
    }

    pub(super) fn wire_algorithm(&self) -> &TsigAlgorithm {
        self.signer.algorithm()
    }

    /// Signs a request at `now`, in seconds since 1970.
    pub(super) fn sign_request(&self, message: &mut Message, now: u64) -> Result<Signed, String> {
        message.finalize(&self.signer, now).map_err(|cause| cause.to_string())?;
        let mac = message.signature().map(|record| record.data.mac.clone()).unwrap_or_default();
        Ok(Signed { octets: message.to_vec().map_err(|cause| cause.to_string())?, mac })
    }

    /// Whether the signature of a message is right; the time is another question. `request_mac` is that of the request
    /// to which the message responds.
    pub(super) fn verifies(&self, octets: &[u8], signature: &TSIG, request_mac: Option<&[u8]>) -> bool {
        // hickory computes `time - fudge` without a look at which one is larger.
        signature.time >= u64::from(signature.fudge)
            && signature.time.checked_add(u64::from(signature.fudge)).is_some()
            && self.signer.verify_message_byte(octets, request_mac, true).is_ok()
    }

    /// The signature for an unsigned response to a request that was signed with this key.
    ///
    /// With BADTIME the time is the request's, or a client with a wrong clock would refuse the response too, and `other`
    /// tells the server's (RFC 8945 §5.2.3).
    pub(super) fn sign_response(
        &self,
        response: &[u8],
        request: &TSIG,
        now: u64,
        error: Option<TsigError>,
    ) -> Option<Box<Record<TSIG>>> {
        let (time, other) = match error {
            Some(TsigError::BadTime) => (request.time, now.to_be_bytes().get(2..)?.to_vec()),
            _ => (now, Vec::new()),
        };
        let algorithm = self.signer.algorithm().clone();
        let unsigned = TSIG::new(algorithm, time, FUDGE, Vec::new(), request.oid, error, other);
        let octets = self.signer.encode_response_tbs(&request.mac, response, &unsigned).ok()?;
        let mac = self.signer.sign(&octets).ok()?;
        Some(Box::new(make_tsig_record(self.wire_name().clone(), unsigned.set_mac(mac))))
    }
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsigKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What to do about a file that is no key file.
const SHAPE: &str = "write it with tsig-keygen NAME";

fn next(words: &mut impl Iterator<Item = String>) -> Result<String, String> {
    words.next().ok_or_else(|| format!("it ends in the middle of a key; {SHAPE}"))
}

fn expect(words: &mut impl Iterator<Item = String>, wanted: &str) -> Result<(), String> {
    match next(words)? {
        // Never the word itself: it may be the secret.
        found if found != wanted => Err(format!("a '{wanted}' is missing; {SHAPE}")),
        _ => Ok(()),
    }
}

/// Splits a configuration in BIND's syntax into words, braces and semicolons; strings lose their quotes, comments go.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") || first == '#' {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").ok_or("it has a comment without an end")? + 2
        } else if let Some(string) = rest.strip_prefix('"') {
            let end = string.find('"').ok_or("it has a string without an end")?;
            tokens.extend(string.get(..end).map(str::to_owned));
            end + 2
        } else if matches!(first, '{' | '}' | ';') {
            tokens.push(first.to_string());
            1
        } else {
            let ends = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '"' | '#');
            let end = rest.find(ends).unwrap_or(rest.len());
            tokens.extend(rest.get(..end).map(str::to_owned));
            end
        };
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use hickory_proto::op::{MessageType, OpCode};
    use proptest::prelude::*;

    use super::*;
    use crate::kind::Kind;

    const SECRET: &str = "gKBMUVkmeKqgY4lKHZDSBPJRMtGJwSCQFAT8oDsBUfg=";

    fn key(algorithm: &str) -> String {
        format!("key \"GateKeeper.\" {{\n\talgorithm {algorithm};\n\tsecret \"{SECRET}\";\n}};\n")
    }

    #[test]
    fn files_of_tsig_keygen_are_read() {
        for algorithm in ["hmac-sha256", "hmac-sha384", "hmac-sha512", "HMAC-SHA512."] {
            let read = TsigKey::parse(&key(algorithm)).unwrap();
            assert_eq!(read.name(), "gatekeeper");
            assert_eq!(TsigKey::parse(&read.to_file()).unwrap().to_file(), read.to_file());
        }
        let commented = format!("# a\n// b\n/* c\n d */ key a{{secret {SECRET};algorithm hmac-sha256;}} ; # end");
        assert_eq!(TsigKey::parse(&commented).unwrap().name(), "a");
        assert!(!format!("{:?}", TsigKey::parse(&commented).unwrap()).contains("gKBM"));
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said() {
        let sound = key("hmac-sha256");
        for (text, says) in [
            (String::new(), "ends in the middle"),
            (sound[..sound.len() - 4].to_owned(), "ends in the middle"),
            (key("hmac-md5"), "'hmac-md5' is not hmac-sha256"),
            (sound.replace(SECRET, "****"), "not base64"),
            (sound.replace(SECRET, "c2hvcnQ="), "5 octets"),
            (sound.replace("algorithm", "algoritm"), "unknown statement 'algoritm'"),
            (sound.replace("GateKeeper.", "a b"), "not the name of a key"),
            (format!("{sound}{sound}"), "more than one key"),
            (format!("zone {sound}"), "a 'key' is missing"),
            (sound.replace("secret \"", "algorithm hmac-sha256; secret \""), "twice"),
            ("key a { algorithm hmac-sha256; };".to_owned(), "no secret"),
            ("/* key".to_owned(), "without an end"),
            ("key \"a".to_owned(), "without an end"),
        ] {
            let error = TsigKey::parse(&text).unwrap_err();
            assert!(error.contains(says) && !error.contains(SECRET), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        fs::write(&path, key("hmac-sha256")).unwrap();
        for (mode, right) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o622, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match TsigKey::load(&path) {
                Ok(_) => assert!(right, "{mode:o}"),
                Err(error) => {
                    assert!(!right && error.kind() == Kind::Usage, "{mode:o}: {error}");
                    assert!(error.to_string().contains("chmod 600"), "{error}");
                }
            }
        }
        for path in [folder.path().join("absent"), folder.path().to_owned()] {
            assert_eq!(TsigKey::load(&path).unwrap_err().kind(), Kind::Usage);
        }
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key() {
        let (mine, other) = (TsigKey::generate("a").unwrap(), TsigKey::generate("a").unwrap());
        let mut message = Message::new(7, MessageType::Query, OpCode::Update);
        let signed = mine.sign_request(&mut message, 1_000_000).unwrap();
        let tsig = message.signature().unwrap().data.clone();
        assert!(mine.verifies(&signed.octets, &tsig, None));
        assert!(!other.verifies(&signed.octets, &tsig, None));
        let mut forged = signed.octets.clone();
        forged[3] ^= 1;
        assert!(!mine.verifies(&forged, &tsig, None));

        let mut early = Message::new(7, MessageType::Query, OpCode::Update);
        let signed = mine.sign_request(&mut early, 1).unwrap();
        assert!(!mine.verifies(&signed.octets, &early.signature().unwrap().data.clone(), None), "and does not panic");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}", cut in 0usize..120) {
            let _ = TsigKey::parse(&text);
            let _ = TsigKey::parse(key("hmac-sha256").get(..cut).unwrap_or_default());
        }
    }
}
