//! Enrolment, offline: make an overlay's descriptor and CA, ask for certificates, issue, install, show and revoke them.
//!
//! The way of a certificate: the member's home makes a [`request()`], the CA's home [`issue()`]s, the member's home
//! [`install()`]s what comes back, with the descriptor. On one machine [`enroll()`] does all three.

mod install;
mod issue;
mod revoke;
mod show;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use install::hand_over;
pub use install::{InstallOutcome, Installed, install};
pub use issue::{IssueOptions, IssueOutcome, IssuedCertificate, RequestOutcome, issue, request};
pub use revoke::{RevokeOutcome, Revoked, revoke};
pub use show::{Item, ShowOutcome, Shown, Standing, show};

use crate::{
    clock::UnixMs,
    identity::{
        Authority, CertificateRequest, Descriptor, DescriptorHash, Document, Home, IdentityError, KeyUse, Limits,
        Policy, files,
    },
    kind::Kind,
    name::{NameError, OverlayId, ResourceName},
};

/// The validity of a certificate if nobody says otherwise: a year.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// The longest file that is read.
const MAX_FILE: u64 = 256 * 1024;

/// Why an enrolment step failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// A key, certificate, descriptor or home is not as it must be.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The content of a file is refused.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: IdentityError,
    },
    /// A file holds something else than this step takes.
    #[error("{path} holds {found}: give {wanted}")]
    Unsuitable {
        /// The file.
        path: String,
        /// What it holds.
        found: &'static str,
        /// What is wanted.
        wanted: &'static str,
    },
    /// What is asked for cannot be done.
    #[error("{0}")]
    Usage(String),
    /// The home holds another descriptor.
    #[error(
        "{path} describes {offered} otherwise than this home does (hash {offered_hash}, here {held} with \
         {held_hash}): if its operator has changed it, install with --replace"
    )]
    OtherDescriptor {
        /// The file with the offered descriptor.
        path: String,
        /// The overlay that it describes.
        offered: OverlayId,
        /// Its hash, shortened.
        offered_hash: String,
        /// The overlay that the home belongs to.
        held: OverlayId,
        /// The hash of the home's descriptor, shortened.
        held_hash: String,
    },
}

impl EnrollError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Identity(error) | Self::File { source: error, .. } => error.kind(),
            Self::Unsuitable { .. } | Self::Usage(_) => Kind::Usage,
            Self::OtherDescriptor { .. } => Kind::Untrusted,
        }
    }

    fn in_file(path: &Path) -> impl FnOnce(IdentityError) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }
}

impl From<NameError> for EnrollError {
    fn from(error: NameError) -> Self {
        Self::Identity(error.into())
    }
}

/// What a new overlay shall be.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Its identifier.
    pub overlay: OverlayId,
    /// Whose records are believed.
    pub policy: Policy,
    /// Whether it is purely local.
    pub local: bool,
    /// On how many storers a record is kept, if not as usual.
    pub replication: Option<u8>,
    /// The longest validity of a record in seconds, if not as usual.
    pub max_lifetime_s: Option<u32>,
}

impl InitOptions {
    /// An enrolled overlay that interconnects, with the usual limits.
    pub const fn new(overlay: OverlayId) -> Self {
        Self { overlay, policy: Policy::Enrolled, local: false, replication: None, max_lifetime_s: None }
    }
}

/// What [`init`] made.
#[derive(Debug, Clone, Serialize)]
pub struct InitOutcome {
    /// The overlay identifier.
    pub overlay: OverlayId,
    /// Whose records are believed.
    pub policy: Policy,
    /// Whether it is purely local.
    pub local: bool,
    /// The hash of the descriptor; the DNS shows it as TXT at `_p2psip.OVERLAY`.
    pub hash: DescriptorHash,
    /// The limits of the overlay.
    pub limits: Limits,
    /// The descriptor's file, which every member needs.
    pub descriptor: PathBuf,
    /// The CA's private key, which stays here; none under the policy open.
    pub ca_key: Option<PathBuf>,
    /// Until when the CA's certificate is valid.
    pub ca_not_after_ms: Option<UnixMs>,
}

/// Makes an overlay: its descriptor and, under the policy enrolled, its CA, in the home at `folder`.
///
/// # Errors
/// [`IdentityError::Exists`] rather than overwrite a descriptor or a CA; [`IdentityError::Descriptor`] for a name that
/// is no FQDN or limits out of range; a file's error.
pub fn init(folder: &Path, options: &InitOptions, now: UnixMs) -> Result<InitOutcome, EnrollError> {
    let mut limits = Limits::default();
    limits.replication = options.replication.unwrap_or(limits.replication);
    limits.max_lifetime_s = options.max_lifetime_s.unwrap_or(limits.max_lifetime_s);
    limits.default_lifetime_s = limits.default_lifetime_s.min(limits.max_lifetime_s);
    let authority = match options.policy {
        Policy::Enrolled => Some(Authority::create(&options.overlay, now)?),
        Policy::Open => None,
    };
    let ca = authority.as_ref().map(|authority| authority.certificate().clone());
    let descriptor = Descriptor::new(options.overlay.clone(), options.local, options.policy, ca.clone(), limits)?;
    let home = Home::open(folder, true)?;
    if home.descriptor_path().exists() {
        let path = home.descriptor_path().display().to_string();
        return Err(IdentityError::Exists { path, hint: "give a new --home for a new overlay" }.into());
    }
    if let Some(authority) = &authority {
        home.add_authority(authority)?;
    }
    files::create(&home.descriptor_path(), descriptor.to_toml().as_bytes(), "give a new --home for a new overlay")?;
    Ok(InitOutcome {
        overlay: options.overlay.clone(),
        policy: options.policy,
        local: options.local,
        hash: descriptor.hash(),
        limits,
        descriptor: home.descriptor_path(),
        ca_key: authority.is_some().then(|| home.ca_key_path()),
        ca_not_after_ms: ca.map(|ca| ca.not_after()),
    })
}

/// Enrols a home on the machine of the CA in one step: the key of its device for the users among `names`, the key of
/// its process for the services, and the overlay's descriptor and revocation list besides.
///
/// # Errors
/// As [`request()`], [`issue()`] and [`install()`].
pub fn enroll(
    ca: &Home,
    into: &Home,
    names: &[ResourceName],
    lifetime: Duration,
    now: UnixMs,
) -> Result<Vec<IssuedCertificate>, EnrollError> {
    let authority = ca.authority()?;
    let (users, services): (Vec<_>, Vec<_>) =
        names.iter().cloned().partition(|name| matches!(name, ResourceName::User(_)));
    let mut certificates = Vec::new();
    for names in [users, services].iter().filter(|names| !names.is_empty()) {
        let request = CertificateRequest::create(&into.key_for(KeyUse::of(names)?)?, names)?;
        let certificate = authority.issue(&request, names, lifetime, now)?;
        ca.add_issued(&certificate)?;
        certificates.push(certificate);
    }
    hand_over(ca, into, &certificates, now)?;
    Ok(certificates.iter().map(IssuedCertificate::from).collect())
}

fn read(path: &Path) -> Result<Vec<Document>, EnrollError> {
    let octets = files::read(path, MAX_FILE)?;
    Document::read_all(&octets).map_err(EnrollError::in_file(path))
}

fn unsuitable(path: &Path, document: &Document, wanted: &'static str) -> EnrollError {
    let found = match document {
        Document::Certificate(_) => "a certificate",
        Document::Request(_) => "a certificate request",
        Document::Descriptor(_) => "a descriptor",
        Document::Revocations(_) => "a revocation list",
        Document::PrivateKey => "a private key",
    };
    EnrollError::Unsuitable { path: path.display().to_string(), found, wanted }
}

#[cfg(test)]
mod tests;
