//! The user agent's side: a challenge comes in as a header's value, credentials go out as one.
//!
//! Of several challenges of one realm the strongest is answered, not the topmost (RFC 8760 §2.4 leaves that to local
//! policy). Whoever asks with an algorithm or a quality of protection that is not known here is not answered at all.

use super::{Algorithm, Asker, Protected, Qop, User, param, quotable, response};
use crate::sip::header;

/// Realms that one request is authorised for: every proxy on the way may have one.
const MAX_REALMS: usize = 8;

/// A challenge that can be answered.
///
/// Quoted values are kept as they stand between the quotes, escapes and all, because that is what is hashed and sent
/// back (RFC 7616 §3.4: `unq`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    /// `None` for a challenge of RFC 2069's kind, which has no `qop`.
    qop: Option<Qop>,
    stale: bool,
}

/// Why a challenge cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Another scheme than Digest.
    #[error("it asks for the scheme {0}, not Digest")]
    Scheme(String),
    /// Not a list of parameters, or one that is missing.
    #[error("its challenge is malformed: {0}")]
    Malformed(&'static str),
    /// An algorithm of another time.
    #[error("it asks for the algorithm {0}, which is not known")]
    Algorithm(String),
    /// No quality of protection that is known.
    #[error("it asks for qop={0}, which is not known")]
    Qop(String),
    /// The credentials have been refused.
    #[error("the realm '{0}' does not accept this user and password")]
    Refused(String),
    /// More realms than a request may cross.
    #[error("it asks for more than {MAX_REALMS} realms")]
    TooMany,
}

impl Challenge {
    /// Reads the value of a `WWW-Authenticate` or `Proxy-Authenticate` header.
    ///
    /// # Errors
    /// [`DigestError`]: another scheme, a parameter missing, or nothing that is supported.
    pub fn parse(value: &[u8]) -> Result<Self, DigestError> {
        let challenge = header::Challenge::parse(value).map_err(DigestError::Malformed)?;
        if !challenge.scheme.eq_ignore_ascii_case("Digest") {
            return Err(DigestError::Scheme(challenge.scheme.chars().take(32).collect()));
        }
        let get = |name: &str| param(&challenge, name);
        let owned = |name, why| get(name).map(str::to_owned).ok_or(DigestError::Malformed(why));
        let algorithm = match get("algorithm") {
            None => Algorithm::Md5,
            Some(name) => Algorithm::named(name).ok_or_else(|| DigestError::Algorithm(name.to_owned()))?,
        };
        let qop = match get("qop") {
            None => None,
            Some(list) => {
                let offers = |wanted: &str| list.split(',').any(|qop| qop.trim().eq_ignore_ascii_case(wanted));
                if offers("auth") {
                    Some(Qop::Auth)
                } else if offers("auth-int") {
                    Some(Qop::AuthInt)
                } else {
                    return Err(DigestError::Qop(list.to_owned()));
                }
            }
        };
        Ok(Self {
            realm: owned("realm", "it has no realm")?,
            nonce: owned("nonce", "it has no nonce")?,
            opaque: get("opaque").map(str::to_owned),
            algorithm,
            qop,
            stale: get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// Who asks, in its own words.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The hash that it asks for.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether only the nonce was too old, and the credentials were right.
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// The credentials for one request. `count` is how often this nonce has been used, this time included.
    fn answer(&self, user: &User, request: &Protected<'_>, count: u32, cnonce: &str) -> String {
        let algorithm = self.algorithm;
        let qop = self.qop.map(Qop::as_str);
        let count = format!("{count:08x}");
        let ha1 = algorithm.ha1(&user.name, &self.realm, &user.password);
        let protection = self.qop.map(|qop| (qop, count.as_str()));
        let response = response(algorithm, &ha1, &self.nonce, cnonce, protection, request);
        let username = quotable(&user.name);
        let mut value = format!(
            "Digest username=\"{username}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{response}\", algorithm={}",
            self.realm,
            self.nonce,
            request.uri,
            algorithm.as_str()
        );
        if let Some(qop) = qop {
            value.push_str(&format!(", qop={qop}, nc={count}"));
        }
        if qop.is_some() || algorithm.is_session() {
            value.push_str(&format!(", cnonce=\"{cnonce}\""));
        }
        if let Some(opaque) = &self.opaque {
            value.push_str(&format!(", opaque=\"{opaque}\""));
        }
        value
    }
}

/// What a user agent remembers of those that challenged it: one entry a realm.
#[derive(Debug, Clone)]
pub struct Keyring {
    user: User,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    asker: Asker,
    challenge: Challenge,
    /// How often the nonce has been used.
    count: u32,
    /// One for the life of the nonce, because a session's key is made of the first one (RFC 7616 §3.4.2).
    cnonce: String,
}

impl Keyring {
    /// For one user, challenged by nobody yet.
    pub const fn new(user: User) -> Self {
        Self { user, entries: Vec::new() }
    }

    /// Takes up the challenges of one response, whose headers' values are given. Each realm's strongest counts. `cnonce`
    /// is a token that nobody can guess, without quotes.
    ///
    /// # Errors
    /// [`DigestError::Refused`] if the realm has just seen these credentials and does not only find the nonce too old;
    /// others if no challenge can be answered.
    pub fn challenged<'a>(
        &mut self,
        asker: Asker,
        values: impl IntoIterator<Item = &'a [u8]>,
        cnonce: &str,
    ) -> Result<(), DigestError> {
        let mut realms: Vec<Challenge> = Vec::new();
        let mut failure = DigestError::Malformed("there is none");
        for value in values {
            match Challenge::parse(value) {
                Ok(challenge) => match realms.iter_mut().find(|known| known.realm == challenge.realm) {
                    Some(known) if challenge.algorithm > known.algorithm => *known = challenge,
                    Some(_) => {}
                    None => realms.push(challenge),
                },
                Err(error) => failure = error,
            }
        }
        if realms.is_empty() {
            return Err(failure);
        }
        for challenge in realms {
            let is_same = |entry: &&mut Entry| entry.asker == asker && entry.challenge.realm == challenge.realm;
            match self.entries.iter_mut().find(is_same) {
                // A nonce that was used more than once did let a request through: it has expired since.
                Some(entry) if entry.count == 1 && !challenge.stale => {
                    return Err(DigestError::Refused(challenge.realm));
                }
                Some(entry) => *entry = Entry { asker, challenge, count: 0, cnonce: cnonce.to_owned() },
                None => self.entries.push(Entry { asker, challenge, count: 0, cnonce: cnonce.to_owned() }),
            }
        }
        if self.entries.len() > MAX_REALMS { Err(DigestError::TooMany) } else { Ok(()) }
    }

    /// The credentials for one more request: who is to get them, and the value of the header.
    pub fn credentials(&mut self, request: &Protected<'_>) -> Vec<(Asker, String)> {
        let user = &self.user;
        let answers = self.entries.iter_mut().map(|entry| {
            entry.count = entry.count.saturating_add(1);
            (entry.asker, entry.challenge.answer(user, request, entry.count, &entry.cnonce))
        });
        answers.collect()
    }
}

#[cfg(test)]
mod tests {
    use digest_auth::{AuthContext, HttpMethod};
    use proptest::prelude::*;

    use super::*;

    const MUFASA: &str = "Mufasa";

    fn user(name: &str, password: &str) -> User {
        User { name: name.to_owned(), password: password.to_owned() }
    }

    /// A parameter as it stands between its quotes.
    fn get<'a>(credentials: &'a str, name: &str) -> &'a str {
        let credentials = header::Credentials::parse(credentials.as_bytes()).unwrap();
        let value = credentials.params().find(|param| param.name == name).unwrap().value.unwrap();
        let value = std::str::from_utf8(value).unwrap();
        value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
    }

    fn keyring(user: User, challenge: &str, cnonce: &str) -> Keyring {
        let mut keyring = Keyring::new(user);
        keyring.challenged(Asker::Server, [challenge.as_bytes()], cnonce).unwrap();
        keyring
    }

    /// RFC 7616 §3.9.1.
    #[test]
    fn the_examples_of_rfc_7616_come_out() {
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let request = Protected { method: "GET", uri: "/dir/index.html", body: b"" };
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let challenge = format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            );
            let credentials = keyring(user(MUFASA, "Circle of Life"), &challenge, cnonce).credentials(&request);
            let [(Asker::Server, value)] = credentials.as_slice() else { panic!("{credentials:?}") };
            assert_eq!(get(value, "response"), response);
            assert_eq!(get(value, "nc"), "00000001");
            assert_eq!(get(value, "opaque"), "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS");
        }
    }

    /// RFC 7616 §3.9.2 with its erratum 4897: the RFC's own figure is that of a SHA-512 cut off, which no FIPS knows.
    #[test]
    fn the_example_with_sha_512_256_and_utf_8_comes_out() {
        let challenge = "Digest realm=\"api@example.org\", qop=\"auth\", algorithm=SHA-512-256, \
             nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", charset=UTF-8";
        let cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v";
        let mut keyring = keyring(user("J\u{e4}s\u{f8}n Doe", "Secret, or not?"), challenge, cnonce);
        let value = &keyring.credentials(&Protected { method: "GET", uri: "/doe.json", body: b"" })[0].1;
        assert_eq!(get(value, "response"), "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5");
    }

    /// RFC 2617 §3.5, and the calls to Bob of draft-smith-sipping-auth-examples.
    #[test]
    fn the_examples_of_rfc_2617_and_of_sip_come_out() {
        let sdp = "v=0\r\no=bob 2890844526 2890844526 IN IP4 media.biloxi.com\r\ns=-\r\nc=IN IP4 media.biloxi.com\r\n\
             t=0 0\r\nm=audio 49170 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\nm=video 51372 RTP/AVP 31\r\n\
             a=rtpmap:31 H261/90000\r\nm=video 53000 RTP/AVP 32\r\na=rtpmap:32 MPV/90000\r\n";
        let bob = (user("bob", "zanzibar"), "biloxi.com", "INVITE", "sip:bob@biloxi.com");
        let mufasa = (user(MUFASA, "Circle Of Life"), "testrealm@host.com", "GET", "/dir/index.html");
        for ((who, realm, method, uri), parameters, response) in [
            (&mufasa, ", qop=\"auth,auth-int\"", "6629fae49393a05397450978507c4ef1"),
            (&bob, "", "bf57e4e0d0bffc0fbaedce64d59add5e"),
            (&bob, ", qop=\"auth\"", "89eb0059246c02b2f6ee02c7961d5ea3"),
            (&bob, ", qop=\"auth,auth-int\", algorithm=MD5", "89eb0059246c02b2f6ee02c7961d5ea3"),
            (&bob, ", qop=\"auth\", algorithm=MD5-sess", "e4e4ea61d186d07a92c9e1f6919902e9"),
            (&bob, ", qop=\"auth-int\"", "bdbeebb2da6adb6bca02599c2239e192"),
            (&bob, ", qop=\"auth-int\", algorithm=MD5-sess", "91984da2d8663716e91554859c22ca70"),
        ] {
            let challenge =
                format!("Digest realm=\"{realm}\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\"{parameters}");
            let request = Protected { method, uri, body: sdp.as_bytes() };
            let value = &keyring(who.clone(), &challenge, "0a4f113b").credentials(&request)[0].1;
            assert_eq!(get(value, "response"), response, "{parameters}");
        }
    }

    #[test]
    fn a_nonce_is_counted_for_as_long_as_it_lives() {
        let request = Protected { method: "REGISTER", uri: "sip:example.org", body: b"" };
        let challenge = |nonce| format!("Digest realm=\"a\", qop=\"auth\", nonce=\"{nonce}\", stale=true");
        let mut keyring = keyring(user("alice", "secret"), &challenge("1"), "c");
        let counted = (0..11).map(|_| get(&keyring.credentials(&request)[0].1, "nc").to_owned()).collect::<Vec<_>>();
        assert_eq!((counted[0].as_str(), counted[10].as_str()), ("00000001", "0000000b"));
        keyring.challenged(Asker::Server, [challenge("2").as_bytes()], "d").unwrap();
        assert_eq!(get(&keyring.credentials(&request)[0].1, "nc"), "00000001");
    }

    /// SHA-512-256 as FIPS 180-4 defines it.
    #[test]
    fn sha_512_256_is_the_hash_of_fips_180_4() {
        assert_eq!(
            Algorithm::Sha512T256.hash(&[b"abc"]),
            "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"
        );
    }

    #[test]
    fn the_strongest_challenge_of_a_realm_is_answered() {
        let mut keyring = Keyring::new(user("alice", "secret"));
        let challenges: [&[u8]; 5] = [
            b"Digest realm=\"a\", nonce=\"1\", algorithm=MD5",
            b"Digest realm=\"a\", nonce=\"2\", algorithm=SHA-256, qop=\"auth\"",
            b"Digest realm=\"a\", nonce=\"3\", algorithm=SHA3-999",
            b"Basic realm=\"a\"",
            b"Digest realm=\"b\", nonce=\"4\"",
        ];
        keyring.challenged(Asker::Proxy, challenges, "c").unwrap();
        let request = Protected { method: "INVITE", uri: "sip:bob@example.com", body: b"" };
        let credentials = keyring.credentials(&request);
        assert_eq!(credentials.len(), 2, "one for each realm: {credentials:?}");
        assert_eq!(get(&credentials[0].1, "nonce"), "2");
        assert_eq!(get(&credentials[0].1, "algorithm"), "SHA-256");
        assert!(!credentials[1].1.contains("qop=") && !credentials[1].1.contains("nc="), "RFC 2069 knows neither");
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        let error = |value: &str| Challenge::parse(value.as_bytes()).unwrap_err();
        assert_eq!(error("Basic realm=\"a\""), DigestError::Scheme("Basic".to_owned()));
        assert_eq!(error("Digest realm=\"a\""), DigestError::Malformed("it has no nonce"));
        assert_eq!(
            error("Digest realm=\"a"),
            DigestError::Malformed("a parameter's value is empty or its quotes are not closed")
        );
        assert_eq!(error("Digest realm=\"a\",nonce=\"n\",qop=\"x\""), DigestError::Qop("x".to_owned()));
        assert_eq!(
            error("Digest realm=\"a\",nonce=\"n\",algorithm=AKAv1-MD5"),
            DigestError::Algorithm("AKAv1-MD5".to_owned())
        );
    }

    #[test]
    fn a_wrong_password_is_not_tried_twice_but_a_stale_nonce_is_replaced() {
        let request = Protected { method: "INVITE", uri: "sip:bob@example.com", body: b"" };
        let challenge = |nonce, stale| format!("Digest realm=\"a\", qop=\"auth\", nonce=\"{nonce}\", stale={stale}");
        let mut keyring = keyring(user("alice", "secret"), &challenge("1", "false"), "c");
        let first = keyring.credentials(&request);
        keyring.challenged(Asker::Server, [challenge("2", "TRUE").as_bytes()], "d").unwrap();
        let second = keyring.credentials(&request);
        assert_ne!(first, second);
        assert_eq!((get(&second[0].1, "nonce"), get(&second[0].1, "nc")), ("2", "00000001"));
        let again = keyring.challenged(Asker::Server, [challenge("3", "false").as_bytes()], "e");
        assert_eq!(again, Err(DigestError::Refused("a".to_owned())));
        // A nonce that has let requests through may expire silently.
        let third = keyring.credentials(&request);
        assert_eq!((get(&third[0].1, "nc"), get(&third[0].1, "cnonce")), ("00000002", "d"));
        keyring.challenged(Asker::Server, [challenge("4", "false").as_bytes()], "f").unwrap();
    }

    #[test]
    fn values_go_back_as_they_came() {
        let challenge = r#"Digest realm="a \"b\" \\", nonce="n", opaque="o\"", qop="auth""#;
        let mut keyring = keyring(user("al\"ice", "secret"), challenge, "c");
        let request = Protected { method: "BYE", uri: "sip:bob@example.com", body: b"" };
        let value = &keyring.credentials(&request)[0].1;
        assert_eq!(get(value, "realm"), r#"a \"b\" \\"#);
        assert_eq!(get(value, "opaque"), r#"o\""#);
        assert_eq!(get(value, "username"), r#"al\"ice"#);
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", user("alice", "secret")).contains("secret"));
    }

    proptest! {
        #[test]
        fn reading_a_challenge_never_panics(value in proptest::collection::vec(any::<u8>(), 0..80), text in "\\PC*") {
            let _ = Challenge::parse(&value);
            let _ = Challenge::parse(format!("Digest {text}").as_bytes());
        }

        /// The other implementation is the crate `digest_auth`, which knows all six algorithms.
        #[test]
        fn responses_are_those_of_another_implementation(
            algorithm in 0_usize..6,
            qop in proptest::option::of(0_usize..2),
            name in "[a-z]{1,8}",
            password in "[ -~]{0,12}",
            realm in "[a-z. ]{1,12}",
            nonce in "[a-zA-Z0-9+/=]{1,20}",
            body in proptest::collection::vec(any::<u8>(), 0..40),
            cnonce in "[a-f0-9]{8}",
        ) {
            let algorithm = Algorithm::ALL[algorithm].as_str();
            let qop = qop.map(|nth| ["auth", "auth-int"][nth]);
            let shown = qop.map(|qop| format!(", qop=\"{qop}\"")).unwrap_or_default();
            let challenge = format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={algorithm}{shown}");
            let request = Protected { method: "INVITE", uri: "sip:bob@example.com", body: &body };
            let ours = keyring(user(&name, &password), &challenge, &cnonce).credentials(&request);

            let mut context =
                AuthContext::new_with_method(&name, &password, "sip:bob@example.com", Some(&body), HttpMethod::from("INVITE"));
            context.set_custom_cnonce(&cnonce);
            let theirs = digest_auth::parse(&challenge).unwrap().respond(&context).unwrap();
            prop_assert_eq!(get(&ours[0].1, "response"), theirs.response);
        }
    }
}
