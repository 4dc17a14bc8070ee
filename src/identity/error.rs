//! Why keys, certificates and descriptors cannot be used, or are not to be trusted.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{clock::UnixMs, kind::Kind, name::NameError};

/// Why a certificate is not to be trusted. Carried in answers to other members, so it holds no local detail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum CertificateError {
    /// Not issued by this CA: another issuer, or a signature that does not verify.
    #[error("it was not issued by this overlay's CA")]
    Forged,
    /// Its validity has ended.
    #[error("it expired at {}", rfc3339(*.at))]
    Expired {
        /// The last millisecond of its validity.
        at: UnixMs,
    },
    /// Its validity has not begun.
    #[error("it is not valid before {}", rfc3339(*.from))]
    NotYetValid {
        /// The first millisecond of its validity.
        from: UnixMs,
    },
    /// It does not name the URI it was shown for.
    #[error("it does not name the URI it was shown for")]
    WrongName,
    /// Not an ed25519 X.509v3 certificate of the shape this overlay uses.
    #[error("it is malformed: {why}")]
    Malformed {
        /// Which rule it breaks.
        why: String,
    },
}

impl CertificateError {
    /// Always [`Kind::Untrusted`].
    pub const fn kind(&self) -> Kind {
        Kind::Untrusted
    }

    /// A malformed certificate.
    pub(super) fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed { why: why.into() }
    }
}

/// What can go wrong with keys, certificates, descriptors and the home that holds them.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A name is malformed or belongs to another overlay.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A certificate is not to be trusted.
    #[error("certificate {target} is refused: {reason}")]
    Certificate {
        /// The file or the names of the certificate.
        target: String,
        /// Why it is refused.
        reason: CertificateError,
    },
    /// The CA has taken a certificate back.
    #[error("certificate {target} has been revoked: ask the overlay's operator for a new one")]
    Revoked {
        /// The serial number and the name it was needed for.
        target: String,
    },
    /// A certificate belongs to another key.
    #[error("{what} belongs to another key than {key}")]
    KeyMismatch {
        /// The certificate.
        what: String,
        /// The key that it was held against.
        key: String,
    },
    /// A descriptor breaks a rule.
    #[error("the descriptor is refused: {why}")]
    Descriptor {
        /// Which rule it breaks.
        why: String,
    },
    /// A revocation list is not to be trusted.
    #[error("the revocation list is refused: {why}")]
    Revocations {
        /// Which rule it breaks.
        why: String,
    },
    /// A certificate request cannot be made, read or granted.
    #[error("the certificate request is refused: {why}")]
    Request {
        /// Which rule it breaks, and what to do.
        why: String,
    },
    /// A file does not hold what its name says.
    #[error("{path} is not {what}: {why}")]
    Format {
        /// The file.
        path: String,
        /// What it should hold.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file holds nothing of an overlay.
    #[error("neither a certificate, a request, a descriptor nor a revocation list: {why}")]
    Unknown {
        /// What it has instead.
        why: String,
    },
    /// A file or folder with secrets is open to others.
    #[error("{path} may be used by others (mode {mode:04o}): {}run chmod {wanted:o} {path}", other_home(*.wanted))]
    Exposed {
        /// The file or folder.
        path: String,
        /// Its permission bits.
        mode: u32,
        /// The permission bits it should have.
        wanted: u32,
    },
    /// A file that must not be overwritten exists.
    #[error("{path} exists already and is not overwritten: {hint}")]
    Exists {
        /// The file.
        path: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file that is needed does not exist.
    #[error("{path} does not exist: {hint}")]
    Missing {
        /// The file.
        path: String,
        /// What to do.
        hint: &'static str,
    },
    /// Another process uses the home.
    #[error("home {path} is in use by another process{holder}: stop it, or give this one a --home of its own")]
    Locked {
        /// The folder.
        path: String,
        /// ` (process N)` where that is known.
        holder: String,
    },
    /// The last record was written so far ahead of the clock that a new one would be refused everywhere.
    #[error(
        "{path} dates the last record {}, which is {} h ahead of the clock: set the clock if it is wrong; if it is \
         right, remove the file",
        rfc3339(*.last), .last.0.saturating_sub(.now.0) / 3_600_000
    )]
    ClockBehind {
        /// The file of the last sequence number.
        path: String,
        /// What it holds.
        last: UnixMs,
        /// What the clock says.
        now: UnixMs,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system's entropy source failed.
    #[error("no random numbers from the operating system: {why}")]
    Entropy {
        /// What it said.
        why: String,
    },
}

impl IdentityError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Name(error) => error.kind(),
            Self::Certificate { reason, .. } => reason.kind(),
            Self::Revocations { .. } | Self::Revoked { .. } => Kind::Untrusted,
            Self::Descriptor { .. } | Self::Request { .. } | Self::Exists { .. } | Self::Missing { .. } => Kind::Usage,
            Self::Format { .. } | Self::KeyMismatch { .. } | Self::Unknown { .. } => Kind::Usage,
            Self::Exposed { .. } | Self::Locked { .. } | Self::ClockBehind { .. } => Kind::Local,
            // Whoever names a file that is not there has misspelt it.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::Usage,
            Self::Io { .. } | Self::Entropy { .. } => Kind::Local,
        }
    }

    /// Turns what the operating system said about `path` into an error; for use with `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { action, path, source }
    }
}

/// A time for people: `2026-11-23T06:30:00Z`; milliseconds if it lies beyond the calendar.
pub(crate) fn rfc3339(at: UnixMs) -> String {
    i64::try_from(at.0 / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{at} ms after 1970"))
}

/// What to do before a folder is closed to others: it may be no home at all.
const fn other_home(wanted: u32) -> &'static str {
    if wanted & 0o100 == 0 { "" } else { "give another --home, or if this is the right one, " }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(rfc3339(UnixMs(1_000)), "1970-01-01T00:00:01Z");
        assert_eq!(rfc3339(UnixMs(u64::MAX)), "18446744073709551615 ms after 1970");
    }

    #[test]
    fn reasons_survive_the_wire() {
        for reason in [CertificateError::Forged, CertificateError::Expired { at: UnixMs(7) }] {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(serde_json::from_str::<CertificateError>(&json).unwrap(), reason, "{json}");
        }
    }
}
