//! What a server keeps of a user's password: the hash HA1, for each algorithm it has one for.

use super::Algorithm;

/// A user's HA1s (RFC 7616 §3.4.2). Whoever knows one can answer every challenge of its realm and algorithm.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    md5: Option<String>,
    sha256: Option<String>,
    sha512_256: Option<String>,
}

/// A hash that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an HA1 of {} has {digits} hexadecimal digits, and nothing else", algorithm.as_str())]
pub struct SecretError {
    algorithm: Algorithm,
    digits: usize,
}

impl Secret {
    /// Of a password: it will do for every algorithm.
    pub fn of_password(name: &str, realm: &str, password: &str) -> Self {
        let ha1 = |algorithm: Algorithm| Some(algorithm.ha1(name, realm, password));
        Self { md5: ha1(Algorithm::Md5), sha256: ha1(Algorithm::Sha256), sha512_256: ha1(Algorithm::Sha512T256) }
    }

    /// Of hashes that were made elsewhere, in hexadecimal; for the other algorithms it will not do.
    ///
    /// # Errors
    /// [`SecretError`] if one does not have its algorithm's length.
    pub fn of_hashes<'a>(hashes: impl IntoIterator<Item = (Algorithm, &'a str)>) -> Result<Self, SecretError> {
        let mut secret = Self { md5: None, sha256: None, sha512_256: None };
        for (algorithm, hash) in hashes {
            let (slot, digits) = match algorithm {
                Algorithm::Md5 | Algorithm::Md5Sess => (&mut secret.md5, 32),
                Algorithm::Sha256 | Algorithm::Sha256Sess => (&mut secret.sha256, 64),
                Algorithm::Sha512T256 | Algorithm::Sha512T256Sess => (&mut secret.sha512_256, 64),
            };
            if hash.len() != digits || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(SecretError { algorithm, digits });
            }
            *slot = Some(hash.to_ascii_lowercase());
        }
        Ok(secret)
    }

    /// Whether a challenge with this algorithm can be answered with it.
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        self.ha1(algorithm).is_some()
    }

    pub(super) fn ha1(&self, algorithm: Algorithm) -> Option<&str> {
        match algorithm {
            Algorithm::Md5 | Algorithm::Md5Sess => self.md5.as_deref(),
            Algorithm::Sha256 | Algorithm::Sha256Sess => self.sha256.as_deref(),
            Algorithm::Sha512T256 | Algorithm::Sha512T256Sess => self.sha512_256.as_deref(),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_serves_all_algorithms_and_a_hash_its_own() {
        let secret = Secret::of_password("alice", "p2psip.org", "wonderland");
        assert!(Algorithm::ALL.into_iter().all(|algorithm| secret.serves(algorithm)));
        assert!(!format!("{secret:?}").contains(secret.ha1(Algorithm::Md5).unwrap()));

        // printf alice:p2psip.org:wonderland | md5sum
        let hash = "5182059465DC7C2A77CAEB36565CCDCC";
        let secret = Secret::of_hashes([(Algorithm::Md5, hash)]).unwrap();
        assert_eq!(secret.ha1(Algorithm::Md5Sess).unwrap(), hash.to_lowercase());
        assert_eq!(
            secret.ha1(Algorithm::Md5),
            Secret::of_password("alice", "p2psip.org", "wonderland").ha1(Algorithm::Md5)
        );
        assert!(!secret.serves(Algorithm::Sha256));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for (algorithm, wrong) in [(Algorithm::Md5, "abc"), (Algorithm::Sha256, &"g".repeat(64))] {
            let error = Secret::of_hashes([(algorithm, wrong)]).unwrap_err();
            assert!(error.to_string().contains(algorithm.as_str()), "{error}");
        }
    }
}
