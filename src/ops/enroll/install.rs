//! Putting what the CA's home gave out into a member's home.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{EnrollError, read, unsuitable};
use crate::{
    clock::UnixMs,
    identity::{Certificate, Descriptor, DescriptorHash, Document, Home},
    name::{OverlayId, ResourceName},
};

/// Gives a home what the CA's home has for it.
pub(super) fn hand_over(ca: &Home, into: &Home, certificates: &[Certificate], now: UnixMs) -> Result<(), EnrollError> {
    if let Some(descriptor) = ca.descriptor()? {
        install_descriptor(into, &ca.descriptor_path(), &descriptor, false)?;
    }
    if let Some(list) = ca.revocations()? {
        into.set_revocations(&list)?;
    }
    for certificate in certificates {
        into.add_certificate(certificate, now)?;
    }
    Ok(())
}

/// Something that [`install()`] put into a home, or found there.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Installed {
    /// The overlay's descriptor.
    Descriptor {
        /// The overlay.
        overlay: OverlayId,
        /// The descriptor's hash.
        hash: DescriptorHash,
        /// Whether the home had none, or another one, before.
        changed: bool,
    },
    /// A revocation list.
    Revocations {
        /// Its sequence number.
        sequence: u64,
        /// How many certificates it names.
        revoked: usize,
        /// Whether it was newer than what the home had.
        changed: bool,
    },
    /// A certificate.
    Certificate {
        /// Its serial number.
        serial: String,
        /// Whom it names.
        names: Vec<ResourceName>,
        /// The last millisecond of its validity.
        not_after_ms: UnixMs,
        /// Where it is now.
        file: PathBuf,
    },
}

/// What [`install()`] did.
#[derive(Debug, Clone, Serialize)]
pub struct InstallOutcome {
    /// What was installed: descriptors, then revocation lists, then certificates.
    pub installed: Vec<Installed>,
}

/// Puts descriptors, revocation lists and certificates into the home at `folder`, in this order whatever the order of
/// the files; the home is made if there is none. With `replace`, a changed descriptor takes the place of the old one.
///
/// # Errors
/// [`EnrollError::OtherDescriptor`]; what is not this CA's, not for this home's keys, expired or malformed.
pub fn install(folder: &Path, paths: &[PathBuf], replace: bool, now: UnixMs) -> Result<InstallOutcome, EnrollError> {
    let mut documents = Vec::new();
    for path in paths {
        for document in read(path)? {
            let rank = match &document {
                Document::Descriptor(_) => 0,
                Document::Revocations(_) => 1,
                Document::Certificate(_) => 2,
                Document::Request(_) | Document::PrivateKey => {
                    let wanted = "certificates, a descriptor or a revocation list";
                    return Err(unsuitable(path, &document, wanted));
                }
            };
            documents.push((rank, path, document));
        }
    }
    documents.sort_by_key(|(rank, ..)| *rank);
    let home = Home::open(folder, true)?;
    let mut installed = Vec::new();
    for (_, path, document) in &documents {
        match document {
            Document::Descriptor(descriptor) => {
                let changed = install_descriptor(&home, path, descriptor, replace)?;
                let (overlay, hash) = (descriptor.overlay().clone(), descriptor.hash());
                installed.push(Installed::Descriptor { overlay, hash, changed });
            }
            Document::Revocations(list) => {
                let list = home.verify_revocations(list.envelope()).map_err(EnrollError::in_file(path))?;
                let (sequence, revoked) = (list.sequence(), list.serials().len());
                let changed = home.set_revocations(&list)?;
                installed.push(Installed::Revocations { sequence, revoked, changed });
            }
            Document::Certificate(certificate) => {
                let file = home.add_certificate(certificate, now).map_err(EnrollError::in_file(path))?;
                installed.push(Installed::Certificate {
                    serial: certificate.serial().to_owned(),
                    names: certificate.names().to_vec(),
                    not_after_ms: certificate.not_after(),
                    file,
                });
            }
            Document::Request(_) | Document::PrivateKey => {}
        }
    }
    Ok(InstallOutcome { installed })
}

/// Whether the home's descriptor changed.
fn install_descriptor(home: &Home, path: &Path, offered: &Descriptor, replace: bool) -> Result<bool, EnrollError> {
    let held = match home.descriptor() {
        Err(_) if replace => None,
        held => held?,
    };
    match held {
        Some(held) if held.hash() == offered.hash() => Ok(false),
        Some(held) if !replace => Err(EnrollError::OtherDescriptor {
            path: path.display().to_string(),
            offered: offered.overlay().clone(),
            offered_hash: offered.hash().short(),
            held: held.overlay().clone(),
            held_hash: held.hash().short(),
        }),
        _ => Ok(home.set_descriptor(offered).map(|()| true)?),
    }
}
