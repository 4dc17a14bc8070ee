//! Describing what files and homes hold, and whether to trust it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{EnrollError, read};
use crate::{
    clock::UnixMs,
    identity::{
        Certificate, CertificateError, Descriptor, DescriptorHash, Document, Home, IdentityError, KeyUse, Limits,
        Policy, PublicKey, RevocationList, SecretKey,
    },
    name::{InstanceId, OverlayId, PeerId, ResourceName},
};

/// What [`show`] found.
#[derive(Debug, Clone, Serialize)]
pub struct ShowOutcome {
    /// Everything, in the order in which it was asked for.
    pub items: Vec<Shown>,
}

/// One thing that a file holds.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// The file.
    pub file: PathBuf,
    /// What it holds.
    #[serde(flatten)]
    pub item: Item,
}

/// Whether something that a CA signed is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "standing")]
pub enum Standing {
    /// Signed by the overlay's CA, valid now and not revoked.
    Good,
    /// No descriptor says which CA it would have to be signed by.
    Unchecked,
    /// Not to be trusted.
    Bad {
        /// Why, in one line.
        why: String,
    },
    /// The CA has taken it back.
    Revoked {
        /// When.
        at_ms: UnixMs,
    },
}

/// What a file can hold. Private keys show as their public halves only.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Item {
    /// A certificate.
    Certificate {
        /// Its serial number, in hexadecimal.
        serial: String,
        /// Whether it is a CA's.
        ca: bool,
        /// Its subject; members have none.
        subject: String,
        /// Whom it lets its key speak for.
        names: Vec<ResourceName>,
        /// The key.
        public_key: PublicKey,
        /// The first millisecond of its validity.
        not_before_ms: UnixMs,
        /// The last millisecond of its validity.
        not_after_ms: UnixMs,
        /// Whether to trust it.
        #[serde(flatten)]
        standing: Standing,
    },
    /// A certificate request; its own signature has been verified.
    Request {
        /// The names it asks for.
        names: Vec<ResourceName>,
        /// Which of its home's keys it is for.
        key: KeyUse,
        /// The key.
        public_key: PublicKey,
    },
    /// An overlay's descriptor.
    Descriptor {
        /// The overlay.
        overlay: OverlayId,
        /// Whether it is purely local.
        local: bool,
        /// Whose records are believed.
        policy: Policy,
        /// The hash of the content.
        hash: DescriptorHash,
        /// The serial number of the CA's certificate.
        ca_serial: Option<String>,
        /// Until when the CA's certificate is valid.
        ca_not_after_ms: Option<UnixMs>,
        /// The limits.
        limits: Limits,
    },
    /// A revocation list.
    Revocations {
        /// The overlay.
        overlay: OverlayId,
        /// Its sequence number.
        sequence: u64,
        /// When it was made.
        issued_ms: UnixMs,
        /// The revoked serial numbers.
        serials: Vec<String>,
        /// Whether to trust it.
        #[serde(flatten)]
        standing: Standing,
    },
    /// A private key.
    PrivateKey {
        /// Its public half.
        public_key: PublicKey,
        /// The device that it names if it is an instance key.
        instance: InstanceId,
        /// The process that it names if it is a peer key.
        peer: PeerId,
    },
}

/// What certificates and lists are held against.
#[derive(Default)]
struct Trust {
    descriptor: Option<Descriptor>,
    revocations: Option<RevocationList>,
}

impl Trust {
    fn of_home(home: &Home) -> Result<Self, IdentityError> {
        let descriptor = home.descriptor()?;
        // A list that does not verify is shown as such, and nothing is judged by it.
        let revocations = if descriptor.is_some() { home.revocations().ok().flatten() } else { None };
        Ok(Self { descriptor, revocations })
    }

    fn certificate(&self, certificate: &Certificate, now: UnixMs) -> Standing {
        let bad = |reason: CertificateError| Standing::Bad { why: reason.to_string() };
        if certificate.is_authority() {
            return match certificate.check_authority().and_then(|()| certificate.check_validity(now)) {
                Ok(()) if self.ca() == Some(certificate) => Standing::Good,
                Ok(()) => Standing::Unchecked,
                Err(reason) => bad(reason),
            };
        }
        if let Some(at) = self.revocations.as_ref().and_then(|list| list.serials().get(certificate.serial())) {
            return Standing::Revoked { at_ms: *at };
        }
        match self.ca().map(|ca| certificate.check(ca, now)) {
            Some(Ok(())) => Standing::Good,
            Some(Err(reason)) => bad(reason),
            None => certificate.check_validity(now).map_or_else(bad, |()| Standing::Unchecked),
        }
    }

    fn revocations(&self, list: &RevocationList) -> Standing {
        let Some((descriptor, ca)) = self.descriptor.as_ref().zip(self.ca()) else { return Standing::Unchecked };
        match RevocationList::decode(list.envelope(), descriptor.overlay(), ca) {
            Ok(_) => Standing::Good,
            Err(error) => Standing::Bad { why: error.to_string() },
        }
    }

    fn ca(&self) -> Option<&Certificate> {
        self.descriptor.as_ref().and_then(Descriptor::ca)
    }
}

/// Describes files (certificates, requests, descriptors, revocation lists, keys) and homes. A home among `paths` is
/// held against its own descriptor, a file against the one of `home`, if given.
///
/// # Errors
/// [`IdentityError::Unknown`] for a file that holds none of these; [`IdentityError::Exposed`] for a key that others
/// can read; a file's error. What is merely not to be trusted is shown as such.
pub fn show(paths: &[PathBuf], home: Option<&Path>, now: UnixMs) -> Result<ShowOutcome, EnrollError> {
    let trust = match home {
        Some(folder) => Trust::of_home(&Home::open(folder, false)?)?,
        None => Trust::default(),
    };
    let mut items = Vec::new();
    for path in paths {
        if path.is_dir() {
            let home = Home::open(path, false)?;
            let trust = Trust::of_home(&home)?;
            for path in contents(&home)? {
                show_file(&path, &trust, now, &mut items)?;
            }
        } else {
            show_file(path, &trust, now, &mut items)?;
        }
    }
    Ok(ShowOutcome { items })
}

/// The files of a home that hold something to show.
fn contents(home: &Home) -> Result<Vec<PathBuf>, IdentityError> {
    let single = [
        home.descriptor_path(),
        home.ca_key_path(),
        home.peer_key_path(),
        home.instance_key_path(),
        home.revocations_path(),
    ];
    let mut paths: Vec<PathBuf> = single.into_iter().filter(|path| path.exists()).collect();
    paths.extend(home.certificate_files()?);
    Ok(paths)
}

fn show_file(path: &Path, trust: &Trust, now: UnixMs, items: &mut Vec<Shown>) -> Result<(), EnrollError> {
    for document in read(path)? {
        let item = match document {
            Document::Certificate(certificate) => Item::Certificate {
                serial: certificate.serial().to_owned(),
                ca: certificate.is_authority(),
                subject: certificate.subject(),
                names: certificate.names().to_vec(),
                public_key: certificate.public_key(),
                not_before_ms: certificate.not_before(),
                not_after_ms: certificate.not_after(),
                standing: trust.certificate(&certificate, now),
            },
            Document::Request(request) => Item::Request {
                names: request.names().to_vec(),
                key: KeyUse::of(request.names())?,
                public_key: request.public_key(),
            },
            Document::Descriptor(descriptor) => Item::Descriptor {
                overlay: descriptor.overlay().clone(),
                local: descriptor.is_local(),
                policy: descriptor.policy(),
                hash: descriptor.hash(),
                ca_serial: descriptor.ca().map(|ca| ca.serial().to_owned()),
                ca_not_after_ms: descriptor.ca().map(Certificate::not_after),
                limits: *descriptor.limits(),
            },
            Document::Revocations(list) => Item::Revocations {
                overlay: list.overlay().clone(),
                sequence: list.sequence(),
                issued_ms: list.issued(),
                serials: list.serials().keys().cloned().collect(),
                standing: trust.revocations(&list),
            },
            Document::PrivateKey => {
                let public_key = SecretKey::load(path)?.public();
                Item::PrivateKey { public_key, instance: public_key.instance(), peer: public_key.peer_id() }
            }
        };
        items.push(Shown { file: path.to_owned(), item });
    }
    Ok(())
}
