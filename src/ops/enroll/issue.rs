//! Asking for certificates, and issuing them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{DEFAULT_LIFETIME, EnrollError, install::hand_over, read, unsuitable};
use crate::{
    clock::UnixMs,
    identity::{Certificate, CertificateRequest, Document, Home, KeyUse, Policy, PublicKey, files},
    name::{InstanceId, PeerId, ResourceName},
};

/// A request that [`request()`] made.
#[derive(Debug, Clone, Serialize)]
pub struct RequestOutcome {
    /// The names to be certified.
    pub names: Vec<ResourceName>,
    /// Which of the home's keys they are for.
    pub key: KeyUse,
    /// The key that is to be certified.
    pub public_key: PublicKey,
    /// The device, if the names are users.
    pub instance: Option<InstanceId>,
    /// The process, if the names are services.
    pub peer: Option<PeerId>,
    /// The request, for the CA.
    pub pem: String,
    /// Where it was written, if that was asked for.
    pub file: Option<PathBuf>,
}

/// Makes a request that the home's instance key be certified for users, or its peer key for services.
///
/// The home and the key are made if there are none. An existing file `out` is not overwritten.
///
/// # Errors
/// [`IdentityError::Request`] for no or mixed names, [`IdentityError::Name`] for names of several overlays or of
/// another than the home's, [`EnrollError::Usage`] if that overlay needs no certificates; a file's error.
///
/// [`IdentityError::Request`]: crate::identity::IdentityError::Request
/// [`IdentityError::Name`]: crate::identity::IdentityError::Name
pub fn request(folder: &Path, names: &[ResourceName], out: Option<&Path>) -> Result<RequestOutcome, EnrollError> {
    let key_use = KeyUse::of(names)?;
    if let Some(first) = names.first() {
        names.iter().try_for_each(|name| name.check_overlay(first.overlay()))?;
    }
    let home = Home::open(folder, true)?;
    let descriptor = home.descriptor()?;
    if let Some(open) = descriptor.as_ref().filter(|descriptor| descriptor.policy() == Policy::Open) {
        let overlay = open.overlay();
        return Err(EnrollError::Usage(format!("{overlay} has the policy open: its members need no certificates")));
    }
    if let Some(descriptor) = &descriptor {
        names.iter().try_for_each(|name| name.check_overlay(descriptor.overlay()))?;
    }
    let key = home.key_for(key_use)?;
    let request = CertificateRequest::create(&key, names)?;
    let pem = request.to_pem();
    if let Some(path) = out {
        files::create(path, pem.as_bytes(), "give another --out, or remove it")?;
    }
    Ok(RequestOutcome {
        names: request.names().to_vec(),
        key: key_use,
        public_key: key.public(),
        instance: (key_use == KeyUse::Instance).then(|| key.instance()),
        peer: (key_use == KeyUse::Peer).then(|| key.peer_id()),
        pem,
        file: out.map(Path::to_owned),
    })
}

/// What shall be issued, and where it shall go.
#[derive(Debug, Clone)]
pub struct IssueOptions {
    /// The files with the requests.
    pub requests: Vec<PathBuf>,
    /// The names to certify instead of those that the one request asks for.
    pub names: Option<Vec<ResourceName>>,
    /// The validity, at most [`crate::identity::MAX_LIFETIME`].
    pub lifetime: Duration,
    /// The file to write all certificates to; must not exist.
    pub out: Option<PathBuf>,
    /// The home on this machine to install them in.
    pub into: Option<PathBuf>,
}

impl IssueOptions {
    /// Certificates for what these requests ask for, valid for a year.
    pub const fn new(requests: Vec<PathBuf>) -> Self {
        Self { requests, names: None, lifetime: DEFAULT_LIFETIME, out: None, into: None }
    }
}

/// A certificate that the CA issued.
#[derive(Debug, Clone, Serialize)]
pub struct IssuedCertificate {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Whom it lets the key speak for.
    pub names: Vec<ResourceName>,
    /// The key.
    pub public_key: PublicKey,
    /// The first millisecond of its validity.
    pub not_before_ms: UnixMs,
    /// The last millisecond of its validity.
    pub not_after_ms: UnixMs,
    /// The certificate itself.
    pub pem: String,
}

impl From<&Certificate> for IssuedCertificate {
    fn from(certificate: &Certificate) -> Self {
        Self {
            serial: certificate.serial().to_owned(),
            names: certificate.names().to_vec(),
            public_key: certificate.public_key(),
            not_before_ms: certificate.not_before(),
            not_after_ms: certificate.not_after(),
            pem: certificate.to_pem(),
        }
    }
}

/// What [`issue()`] did.
#[derive(Debug, Clone, Serialize)]
pub struct IssueOutcome {
    /// The certificates, in the order of the requests.
    pub certificates: Vec<IssuedCertificate>,
    /// Where they were written, if that was asked for.
    pub file: Option<PathBuf>,
    /// The home they were installed in, if that was asked for.
    pub installed_in: Option<PathBuf>,
}

/// Has the CA of the home at `folder` certify the keys of the requests. Every request is read and found in order
/// before the first certificate is issued.
///
/// # Errors
/// [`IdentityError::Missing`] if this is not the CA's home; what is wrong with a request and its names; as
/// [`super::install()`].
///
/// [`IdentityError::Missing`]: crate::identity::IdentityError::Missing
pub fn issue(folder: &Path, options: &IssueOptions, now: UnixMs) -> Result<IssueOutcome, EnrollError> {
    let home = Home::open(folder, false)?;
    let authority = home.authority()?;
    let mut requests = Vec::new();
    for path in &options.requests {
        for document in read(path)? {
            let Document::Request(request) = document else {
                let wanted = "a certificate request, as p2p-enroll request makes it";
                return Err(unsuitable(path, &document, wanted));
            };
            requests.push((path, request));
        }
    }
    if requests.is_empty() || options.names.is_some() && requests.len() > 1 {
        let text = if requests.is_empty() { "give at least one request to issue for" } else { ONE_REQUEST };
        return Err(EnrollError::Usage(text.to_owned()));
    }
    let mut certificates = Vec::new();
    for (path, request) in &requests {
        let names = options.names.as_deref().unwrap_or(request.names());
        let certificate = authority.issue(request, names, options.lifetime, now).map_err(EnrollError::in_file(path))?;
        certificates.push(certificate);
    }
    for certificate in &certificates {
        home.add_issued(certificate)?;
    }
    if let Some(path) = &options.out {
        let pem: String = certificates.iter().map(Certificate::to_pem).collect();
        files::create(path, pem.as_bytes(), "give another --out, or remove it")?;
    }
    if let Some(into) = &options.into {
        hand_over(&home, &Home::open(into, false)?, &certificates, now)?;
    }
    Ok(IssueOutcome {
        certificates: certificates.iter().map(IssuedCertificate::from).collect(),
        file: options.out.clone(),
        installed_in: options.into.clone(),
    })
}

/// Why names cannot be given for several requests at once.
const ONE_REQUEST: &str = "names can be given for one request only: issue for each request by itself";
