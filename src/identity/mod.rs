//! Who may say what in an overlay: keys, certificates, the overlay's descriptor, revocation, and the home of it all.
//!
//! A member has two ed25519 keys: one names its process (its peer id), the other one device of its user (its
//! instance). Under the policy [`Policy::Enrolled`] a record is believed only if the overlay's CA has certified the
//! key that signed it for the name it is filed under; [`Descriptor`] says which CA that is and what limits hold.
//!
//! Everything but [`Home`] and the key files is pure: octets and the time come in as arguments.

mod authority;
mod certificate;
pub(crate) mod cose;
mod credentials;
mod descriptor;
mod document;
mod error;
pub(crate) mod files;
mod home;
mod key;
mod pem;
mod request;
mod revocation;

pub use authority::{Authority, MAX_LIFETIME};
pub use certificate::{Certificate, MAX_NAMES};
pub use descriptor::{Descriptor, DescriptorHash, Limits, Policy};
pub(crate) use document::Document;
pub use error::{CertificateError, IdentityError};
pub use home::{Home, HomeLock, Pins};
pub use key::{PublicKey, SecretKey};
pub use request::{CertificateRequest, KeyUse};
pub use revocation::RevocationList;
pub(crate) use revocation::is_serial;

/// What the TOML parser says, in one line.
pub(crate) fn one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}
