//! The server's side: challenges go out, credentials come in.
//!
//! Nonces are stateless: each carries when it was made and a MAC, so challenging strangers costs no memory. Only the
//! counts of nonces that were used with right credentials are remembered, in a bounded window, against replays.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha512_256};

use super::{Algorithm, Protected, Qop, Secret, param, response, window::Windows};
use crate::sip::header;

/// Octets of a nonce: its time, its salt, and half a MAC.
const NONCE: usize = 8 + 8 + 16;

/// How a server authenticates.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The realm; neither quotes nor backslashes are kept.
    pub realm: String,
    /// A challenge for each, the one that is preferred first (RFC 8760 §2.3).
    pub algorithms: Vec<Algorithm>,
    /// For how long a nonce is accepted.
    pub lifetime: Duration,
    /// How many nonces are remembered with the counts they were used with.
    pub window: usize,
}

impl Terms {
    /// SHA-256 and MD5, nonces for five minutes.
    pub fn new(realm: &str) -> Self {
        Self {
            realm: realm.to_owned(),
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            lifetime: Duration::from_secs(300),
            window: 65_536,
        }
    }
}

/// Why somebody does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No credentials for this realm: challenge.
    #[error("it has no credentials for this realm")]
    Missing,
    /// Right credentials with a nonce that is too old, of another gate, or used with this count before: challenge with
    /// `stale=true`, and the user agent answers without asking its user again (RFC 7616 §3.3).
    #[error("its credentials are right, but for a nonce that is not accepted any more")]
    Stale,
    /// A user that is not known, or another password: challenge again.
    #[error("its user is not known, or the password is another")]
    Wrong,
    /// Credentials that nobody can check: 400.
    #[error("its credentials are malformed: {0}")]
    Malformed(&'static str),
}

impl Refusal {
    /// Whether the next challenge says that only the nonce was too old.
    pub const fn is_stale(self) -> bool {
        matches!(self, Self::Stale)
    }
}

/// Checks credentials of one realm.
#[derive(Debug)]
pub struct Gate {
    terms: Terms,
    key: Key,
    /// Nonces count milliseconds from here, so a clock that is set does not age them.
    epoch: Instant,
    windows: Windows,
    /// Compared with instead of the secret of somebody who is not known, so that both take as long.
    nobody: Secret,
}

struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Gate {
    /// Of these terms. `key` is random, known to nobody else, and makes the nonces of this gate its own.
    pub fn new(mut terms: Terms, key: [u8; 32], now: Instant) -> Self {
        terms.realm.retain(|letter| !matches!(letter, '"' | '\\') && !letter.is_control());
        let nobody = Secret::of_password("", &terms.realm, &BASE64URL_NOPAD.encode(&key));
        Self { windows: Windows::new(terms.window), terms, key: Key(key), epoch: now, nobody }
    }

    /// The realm as it is shown, and as HA1s are made with.
    pub fn realm(&self) -> &str {
        &self.terms.realm
    }

    /// The values of WWW-Authenticate or Proxy-Authenticate, one for each algorithm. `salt` is random.
    pub fn challenges(&self, stale: bool, salt: u64, now: Instant) -> Vec<String> {
        let nonce = self.nonce(self.millis(now), salt);
        let stale = if stale { ", stale=true" } else { "" };
        let realm = &self.terms.realm;
        let of = |algorithm: &Algorithm| {
            let algorithm = algorithm.as_str();
            format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", qop=\"auth,auth-int\", algorithm={algorithm}{stale}")
        };
        self.terms.algorithms.iter().map(of).collect()
    }

    /// Who sent a request, by the values of its Authorization or Proxy-Authorization lines. `secret_of` knows the users.
    ///
    /// The URI that the credentials name is hashed and not compared with the Request-URI, which a proxy on the way may
    /// have rewritten (RFC 3261 §22.4 item 6).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check<'v, 's>(
        &mut self,
        values: impl IntoIterator<Item = &'v [u8]>,
        request: &Protected<'_>,
        secret_of: impl FnOnce(&str) -> Option<&'s Secret>,
        now: Instant,
    ) -> Result<String, Refusal> {
        let mut refusal = Refusal::Missing;
        let mut ours = None;
        for value in values {
            match header::Credentials::parse(value) {
                Ok(line) if line.scheme.eq_ignore_ascii_case("Digest") && self.is_ours(&line) => ours = Some(line),
                Ok(_) => {}
                Err(why) => refusal = Refusal::Malformed(why),
            }
        }
        let line = ours.ok_or(refusal)?;
        let credentials = Credentials::read(&line).map_err(Refusal::Malformed)?;
        if !self.terms.algorithms.contains(&credentials.algorithm) {
            return Err(Refusal::Wrong);
        }
        let known = secret_of(&credentials.user).and_then(|secret| secret.ha1(credentials.algorithm));
        let ha1 = known.or_else(|| self.nobody.ha1(credentials.algorithm)).unwrap_or_default();
        let is_right = credentials.hold(ha1, request);
        if !is_right || known.is_none() {
            return Err(Refusal::Wrong);
        }
        let now = self.millis(now);
        let oldest = now.saturating_sub(u64::try_from(self.terms.lifetime.as_millis()).unwrap_or(u64::MAX));
        self.windows.expire(oldest);
        let (made, salt) = self.read_nonce(credentials.nonce).ok_or(Refusal::Stale)?;
        if made < oldest || !self.windows.use_once((made, salt), credentials.count) {
            return Err(Refusal::Stale);
        }
        Ok(credentials.user.into_owned())
    }

    fn is_ours(&self, line: &header::Credentials<'_>) -> bool {
        param(line, "realm") == Some(self.terms.realm.as_str())
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    fn nonce(&self, made: u64, salt: u64) -> String {
        let mut octets = [0; NONCE];
        for (slot, octet) in octets.iter_mut().zip(self.nonce_octets(made, salt)) {
            *slot = octet;
        }
        BASE64URL_NOPAD.encode(&octets)
    }

    /// Time, salt and MAC, one after the other. SHA-512/256 shows less than its state, so that a hash of key and text
    /// is a MAC that nobody can extend.
    fn nonce_octets(&self, made: u64, salt: u64) -> impl Iterator<Item = u8> {
        let (made, salt) = (made.to_be_bytes(), salt.to_be_bytes());
        let mac = Sha512_256::new().chain_update(self.key.0).chain_update(made).chain_update(salt).finalize();
        made.into_iter().chain(salt).chain(mac).take(NONCE)
    }

    /// When a nonce of ours was made, and its salt.
    fn read_nonce(&self, nonce: &str) -> Option<(u64, u64)> {
        let octets = BASE64URL_NOPAD.decode(nonce.as_bytes()).ok().filter(|octets| octets.len() == NONCE)?;
        let (made, rest) = octets.split_first_chunk()?;
        let (salt, _) = rest.split_first_chunk()?;
        let (made, salt) = (u64::from_be_bytes(*made), u64::from_be_bytes(*salt));
        let expected: Vec<u8> = self.nonce_octets(made, salt).collect();
        is_same(&expected, &octets).then_some((made, salt))
    }
}

/// What a user agent answers to a challenge.
struct Credentials<'a> {
    algorithm: Algorithm,
    user: Cow<'a, str>,
    nonce: &'a str,
    uri: &'a str,
    cnonce: &'a str,
    qop: Qop,
    /// The nonce count, as written and as a number.
    written_count: &'a str,
    count: u32,
    response: &'a str,
}

impl<'a> Credentials<'a> {
    fn read(line: &header::Credentials<'a>) -> Result<Self, &'static str> {
        let get = |name, why| param(line, name).ok_or(why);
        let algorithm = match param(line, "algorithm") {
            None => Algorithm::Md5,
            Some(name) => Algorithm::named(name).ok_or("its algorithm was not offered")?,
        };
        let written_count = get("nc", "they have no nc")?;
        Ok(Self {
            algorithm,
            user: line.text("username").ok_or("they have no username")?,
            nonce: get("nonce", "they have no nonce")?,
            uri: get("uri", "they have no uri")?,
            cnonce: get("cnonce", "they have no cnonce")?,
            // A client of RFC 2069's kind cannot be kept from replaying, and none is left.
            qop: Qop::named(get("qop", "they have no qop")?).ok_or("their qop was not offered")?,
            written_count,
            count: u32::from_str_radix(written_count, 16)
                .ok()
                .filter(|_| written_count.len() == 8)
                .ok_or("their nc is not of eight hexadecimal digits")?,
            response: get("response", "they have no response")?,
        })
    }

    /// Whether they were made with this HA1, for this request.
    fn hold(&self, ha1: &str, request: &Protected<'_>) -> bool {
        let request = Protected { uri: self.uri, ..*request };
        let protection = Some((self.qop, self.written_count));
        let expected = response(self.algorithm, ha1, self.nonce, self.cnonce, protection, &request);
        is_same(expected.as_bytes(), self.response.to_ascii_lowercase().as_bytes())
    }
}

/// Compares without stopping at the first difference, so that the time it takes tells nothing of where that is.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests;
