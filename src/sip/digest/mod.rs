//! Digest authentication (RFC 8760 for SIP, RFC 7616 for the computation), from both sides.
//!
//! Pure: header values, time and randomness come in. A user agent keeps a [`Keyring`], a server a [`Gate`]. All six
//! algorithms and both qualities of protection are known; whoever needs another is refused, never guessed at.

mod client;
mod gate;
mod secret;
mod window;

use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};

pub use self::{
    client::{Challenge, DigestError, Keyring},
    gate::{Gate, Refusal, Terms},
    secret::{Secret, SecretError},
};
use super::header;

/// The hash that a challenge asks for, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// `MD5`, and what is meant without a name.
    Md5,
    /// `MD5-sess`.
    Md5Sess,
    /// `SHA-256`.
    Sha256,
    /// `SHA-256-sess`.
    Sha256Sess,
    /// `SHA-512-256`.
    Sha512T256,
    /// `SHA-512-256-sess`.
    Sha512T256Sess,
}

impl Algorithm {
    pub(super) const ALL: [Self; 6] =
        [Self::Md5, Self::Md5Sess, Self::Sha256, Self::Sha256Sess, Self::Sha512T256, Self::Sha512T256Sess];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sess => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Sess => "SHA-256-sess",
            Self::Sha512T256 => "SHA-512-256",
            Self::Sha512T256Sess => "SHA-512-256-sess",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
    }

    const fn is_session(self) -> bool {
        matches!(self, Self::Md5Sess | Self::Sha256Sess | Self::Sha512T256Sess)
    }

    /// The hash of a user's name, realm and password, all that a server needs to keep (RFC 7616 §3.4.2).
    fn ha1(self, name: &str, realm: &str, password: &str) -> String {
        self.hash(&[quotable(name).as_bytes(), realm.as_bytes(), password.as_bytes()])
    }

    fn hash(self, parts: &[&[u8]]) -> String {
        match self {
            Self::Md5 | Self::Md5Sess => joined::<Md5>(parts),
            Self::Sha256 | Self::Sha256Sess => joined::<Sha256>(parts),
            Self::Sha512T256 | Self::Sha512T256Sess => joined::<Sha512_256>(parts),
        }
    }
}

/// The hash of the parts with colons between them, in lower-case hexadecimal.
fn joined<D: Digest>(parts: &[&[u8]]) -> String {
    let mut hash = D::new();
    for (nth, part) in parts.iter().enumerate() {
        if nth > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

/// Who asks: the server itself (401) or a proxy on the way (407).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// `WWW-Authenticate`, answered with `Authorization`.
    Server,
    /// `Proxy-Authenticate`, answered with `Proxy-Authorization`.
    Proxy,
}

/// What is protected beside the request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qop {
    Auth,
    AuthInt,
}

impl Qop {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Auth, Self::AuthInt].into_iter().find(|qop| qop.as_str().eq_ignore_ascii_case(name))
    }
}

/// A user as a registrar or proxy knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name in the realm.
    pub name: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The parts of a request that credentials protect.
#[derive(Debug, Clone, Copy)]
pub struct Protected<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its Request-URI.
    pub uri: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

/// The first parameter of this name as it stands between its quotes, escapes and all.
fn param<'a>(line: &header::Credentials<'a>, name: &str) -> Option<&'a str> {
    let value = line.params().find(|param| param.name.eq_ignore_ascii_case(name))?.value?;
    let value = std::str::from_utf8(value).ok()?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// What proves that somebody knows the password (RFC 7616 §3.4.1). `protection` is the quality and the nonce count;
/// without one it is RFC 2069's.
fn response(
    algorithm: Algorithm,
    ha1: &str,
    nonce: &str,
    cnonce: &str,
    protection: Option<(Qop, &str)>,
    request: &Protected<'_>,
) -> String {
    let hash = |parts: &[&[u8]]| algorithm.hash(parts);
    let (nonce, cnonce) = (nonce.as_bytes(), cnonce.as_bytes());
    let of_session = algorithm.is_session().then(|| hash(&[ha1.as_bytes(), nonce, cnonce]));
    let secret = of_session.as_deref().unwrap_or(ha1).as_bytes();
    let (method, uri) = (request.method.as_bytes(), request.uri.as_bytes());
    let what = match protection {
        Some((Qop::AuthInt, _)) => hash(&[method, uri, hash(&[request.body]).as_bytes()]),
        Some((Qop::Auth, _)) | None => hash(&[method, uri]),
    };
    match protection {
        Some((qop, count)) => {
            hash(&[secret, nonce, count.as_bytes(), cnonce, qop.as_str().as_bytes(), what.as_bytes()])
        }
        None => hash(&[secret, nonce, what.as_bytes()]),
    }
}

/// The text as it may stand between quotes.
fn quotable(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
