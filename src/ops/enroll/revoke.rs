//! Taking certificates back.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{EnrollError, read, unsuitable};
use crate::{
    clock::UnixMs,
    identity::{Authority, Certificate, Document, Home, IdentityError, is_serial},
    name::{OverlayId, ResourceName},
};

/// A certificate that is revoked now.
#[derive(Debug, Clone, Serialize)]
pub struct Revoked {
    /// Its serial number.
    pub serial: String,
    /// Whom it names; empty if the CA has no copy of it.
    pub names: Vec<ResourceName>,
    /// Whether it had been revoked before.
    pub before: bool,
}

/// What [`revoke()`] did.
#[derive(Debug, Clone, Serialize)]
pub struct RevokeOutcome {
    /// The overlay.
    pub overlay: OverlayId,
    /// The sequence number of the new list.
    pub sequence: u64,
    /// The certificates that were asked for.
    pub revoked: Vec<Revoked>,
    /// How many certificates the list names in all.
    pub total: usize,
    /// The list's file, to be installed in the homes of members; they pass it on to each other.
    pub file: PathBuf,
}

/// Has the CA of the home at `folder` take certificates back. Each target is the URI of a user or service (all
/// certificates that name it), a serial number in hexadecimal, or a file with certificates.
///
/// # Errors
/// [`EnrollError::Usage`] for a target that is none or for which nothing was issued; [`IdentityError::Missing`] if
/// this is not the CA's home; [`IdentityError::Certificate`] for another CA's certificate; a file's error.
pub fn revoke(folder: &Path, targets: &[String], now: UnixMs) -> Result<RevokeOutcome, EnrollError> {
    if targets.is_empty() {
        return Err(EnrollError::Usage("give a serial number, a certificate's file or a URI to revoke".to_owned()));
    }
    let home = Home::open(folder, false)?;
    let authority = home.authority()?;
    let issued = home.issued()?;
    let mut serials: BTreeMap<String, Vec<ResourceName>> = BTreeMap::new();
    for target in targets {
        if let Ok(name) = ResourceName::parse(target) {
            name.check_overlay(authority.overlay())?;
            let named = issued.iter().filter(|certificate| certificate.is_for(&name) && certificate.not_after() >= now);
            let named: Vec<_> = named.map(entry).collect();
            if named.is_empty() {
                let text = format!("{} has issued no certificate for {name} that is still valid", folder.display());
                return Err(EnrollError::Usage(text));
            }
            serials.extend(named);
        } else if let Some(serial) = serial(target) {
            let known = issued.iter().find(|certificate| certificate.serial() == serial);
            serials.extend([known.map_or((serial, Vec::new()), entry)]);
        } else {
            serials.extend(of_file(Path::new(target), &authority)?.iter().map(entry));
        }
    }
    let known = home.revocations()?;
    let wanted: Vec<String> = serials.keys().cloned().collect();
    let list = home.revoke(&wanted, now)?;
    let before = |serial: &str| known.as_ref().is_some_and(|list| list.contains(serial));
    Ok(RevokeOutcome {
        overlay: list.overlay().clone(),
        sequence: list.sequence(),
        revoked: serials
            .into_iter()
            .map(|(serial, names)| Revoked { before: before(&serial), serial, names })
            .collect(),
        total: list.serials().len(),
        file: home.revocations_path(),
    })
}

fn entry(certificate: &Certificate) -> (String, Vec<ResourceName>) {
    (certificate.serial().to_owned(), certificate.names().to_vec())
}

/// The certificates in a file, all of them issued by this CA, be they expired or not.
fn of_file(path: &Path, authority: &Authority) -> Result<Vec<Certificate>, EnrollError> {
    let mut certificates = Vec::new();
    for document in read(path)? {
        let Document::Certificate(certificate) = document else {
            return Err(unsuitable(path, &document, "a certificate, its serial number or a URI it names"));
        };
        let refuse = |reason| IdentityError::Certificate { target: certificate.serial().to_owned(), reason };
        let issuer = certificate.check_issuer(authority.certificate());
        issuer.map_err(refuse).map_err(EnrollError::in_file(path))?;
        certificates.push(certificate);
    }
    Ok(certificates)
}

/// A serial number as other tools write it, too (`1A:2B`), in our form.
fn serial(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
    is_serial(&digits).then_some(digits)
}
