//! The overlay's certificates: X.509v3 (RFC 5280), ed25519 only (RFC 8410), names as URIs in the subjectAltName.

use std::{fmt, sync::Arc};

use data_encoding::HEXLOWER;
use x509_parser::{
    asn1_rs::BitString,
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension, X509Extension},
    prelude::FromDer,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Name, X509Version},
};

use super::{CertificateError, PublicKey, pem};
use crate::{clock::UnixMs, name::ResourceName};

/// The most names that one certificate may carry.
pub const MAX_NAMES: usize = 16;
/// The longest certificate: it travels within every record.
const MAX_DER: usize = 4096;
/// The PEM label of a certificate (RFC 7468 §5).
pub(super) const LABEL: &str = "CERTIFICATE";
/// The DER of the AlgorithmIdentifier of ed25519 (RFC 8410 §3: the OID and no parameters).
const ALGORITHM: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
/// The head of the BIT STRING that holds a signature: 65 octets, no unused bits.
const SIGNATURE_HEAD: [u8; 3] = [0x03, 0x41, 0x00];

/// A certificate that was read, but not necessarily one to trust: see [`Certificate::check`]. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<Fields>);

#[derive(PartialEq, Eq)]
struct Fields {
    der: Vec<u8>,
    /// Where in `der` the part that is signed lies.
    signed: std::ops::Range<usize>,
    signature: [u8; 64],
    issuer: Vec<u8>,
    subject: Vec<u8>,
    public_key: PublicKey,
    names: Vec<ResourceName>,
    serial: String,
    not_before: UnixMs,
    not_after: UnixMs,
    role: Role,
}

/// What a certificate says that its key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// basicConstraints CA and keyUsage keyCertSign.
    Authority,
    /// No CA, keyUsage digitalSignature.
    Leaf,
    /// Anything else: neither issues nor signs records.
    Nothing,
}

impl Certificate {
    /// Reads the one DER encoding of a certificate (of a CA or of a member).
    ///
    /// # Errors
    /// [`CertificateError::Malformed`]: longer than 4096 bytes, not DER, not ed25519 throughout, a critical extension
    /// that is not understood (RFC 5280 §4.2), or a URI in its subjectAltName that names nothing in an overlay.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        read(der).map(|fields| Self(Arc::new(fields))).map_err(CertificateError::malformed)
    }

    /// Reads a text that holds one certificate in PEM.
    ///
    /// # Errors
    /// As [`Certificate::from_der`].
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        Self::from_der(&pem::decode_one(text, LABEL).map_err(CertificateError::malformed)?)
    }

    /// The octets it was read from.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The certificate in PEM (RFC 7468).
    pub fn to_pem(&self) -> String {
        pem::encode(LABEL, &self.0.der)
    }

    /// The key that it certifies.
    pub fn public_key(&self) -> PublicKey {
        self.0.public_key
    }

    /// The users and services that its key may speak for.
    pub fn names(&self) -> &[ResourceName] {
        &self.0.names
    }

    /// Whether `name` is one of [`Certificate::names`], or a node of the tree of one that is a service.
    pub fn is_for(&self, name: &ResourceName) -> bool {
        let is_it = |named: &ResourceName| match named {
            ResourceName::User(_) => named == name,
            ResourceName::Service(service) => name.service() == Some(service),
            ResourceName::Node(_) => false,
        };
        self.0.names.iter().any(is_it)
    }

    /// The serial number, in lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// The first millisecond of its validity.
    pub fn not_before(&self) -> UnixMs {
        self.0.not_before
    }

    /// The last millisecond of its validity (RFC 5280 §4.1.2.5: the second named by notAfter belongs to it).
    pub fn not_after(&self) -> UnixMs {
        self.0.not_after
    }

    /// Whether its key may issue certificates (basicConstraints and keyUsage say so).
    pub fn is_authority(&self) -> bool {
        self.0.role == Role::Authority
    }

    /// The subject for people (`CN=p2psip.org`); empty for members, who are their names.
    pub fn subject(&self) -> String {
        // Written when it is asked for: that needs a register of all attributes, and hardly anybody asks.
        X509Name::from_der(&self.0.subject).map(|(_, name)| name.to_string()).unwrap_or_default()
    }

    /// Checks that `ca` issued this certificate to a member and that both are valid now.
    ///
    /// Whether it names the URI it is shown for, and whether it has been revoked, is the caller's question.
    ///
    /// # Errors
    /// [`CertificateError::Forged`] if `ca` is no CA or did not sign this; `Malformed` if this certificate may not
    /// sign records; `Expired` or `NotYetValid`.
    pub fn check(&self, ca: &Self, now: UnixMs) -> Result<(), CertificateError> {
        self.check_issuer(ca)?;
        if self.0.role != Role::Leaf {
            return Err(CertificateError::malformed("it may not sign records (a CA, or without digitalSignature)"));
        }
        ca.check_validity(now)?;
        self.check_validity(now)
    }

    /// Checks only that `ca` is a CA and issued this certificate, whenever and for whatever.
    ///
    /// # Errors
    /// [`CertificateError::Forged`].
    pub fn check_issuer(&self, ca: &Self) -> Result<(), CertificateError> {
        if ca.is_authority() && self.0.issuer == ca.0.subject && self.is_signed_by(ca.public_key()) {
            Ok(())
        } else {
            Err(CertificateError::Forged)
        }
    }

    /// Checks that this is a CA's own certificate: it may issue, and has signed itself. Its validity is not looked at.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`] if it is no CA's, [`CertificateError::Forged`] if it did not sign itself.
    pub fn check_authority(&self) -> Result<(), CertificateError> {
        if !self.is_authority() {
            return Err(CertificateError::malformed("it is not a CA's (basicConstraints CA, keyCertSign)"));
        }
        self.check_issuer(self)
    }

    /// Checks the validity period alone.
    ///
    /// # Errors
    /// [`CertificateError::Expired`], [`CertificateError::NotYetValid`].
    pub fn check_validity(&self, now: UnixMs) -> Result<(), CertificateError> {
        if now < self.0.not_before {
            Err(CertificateError::NotYetValid { from: self.0.not_before })
        } else if now > self.0.not_after {
            Err(CertificateError::Expired { at: self.0.not_after })
        } else {
            Ok(())
        }
    }

    fn is_signed_by(&self, key: PublicKey) -> bool {
        self.0.der.get(self.0.signed.clone()).is_some_and(|signed| key.verify(signed, &self.0.signature))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("serial", &self.0.serial)
            .field("names", &self.0.names)
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

fn read(der: &[u8]) -> Result<Fields, String> {
    if der.len() > MAX_DER {
        return Err(format!("it has {} bytes, more than {MAX_DER}", der.len()));
    }
    let (_, x509) = X509Certificate::from_der(der).map_err(|_| "it is not X.509 in DER")?;
    let tbs = &x509.tbs_certificate;
    if tbs.version != X509Version::V3 {
        return Err("it is not of version 3".to_owned());
    }
    let signature = signature(der, tbs.as_ref(), &x509.signature_algorithm, &x509.signature_value)?;
    if !is_ed25519(&tbs.signature) {
        return Err("it is not signed with ed25519".to_owned());
    }
    // An empty RDN is not X.501 and makes rcgen panic when it copies the name of an issuer.
    if tbs.subject.iter_rdn().any(|rdn| rdn.iter().next().is_none()) {
        return Err("its subject is damaged".to_owned());
    }
    let public_key = ed25519_key(&tbs.subject_pki)?;
    // RFC 5280 §4.1.2.2: a positive integer of at most 20 octets.
    let serial = tbs.serial.to_bytes_be();
    if serial.len() > 20 || serial == [0] || tbs.raw_serial().first().is_none_or(|first| first & 0x80 != 0) {
        return Err("its serial number is not a positive integer of at most 20 octets".to_owned());
    }
    let extensions = read_extensions(tbs.extensions())?;
    let signed_from = der.len().saturating_sub(ALGORITHM.len() + SIGNATURE_HEAD.len() + 64 + tbs.as_ref().len());
    Ok(Fields {
        signed: signed_from..signed_from + tbs.as_ref().len(),
        signature,
        issuer: tbs.issuer.as_raw().to_vec(),
        subject: tbs.subject.as_raw().to_vec(),
        public_key,
        role: extensions.role(),
        names: extensions.names,
        serial: HEXLOWER.encode(&serial),
        not_before: unix_ms(tbs.validity.not_before.timestamp(), 0)?,
        not_after: unix_ms(tbs.validity.not_after.timestamp(), 999)?,
        der: der.to_vec(),
    })
}

/// The ed25519 signature of a certificate or request. The unsigned octets around the signed part must be their one DER
/// encoding (which the parser does not ask for), so that nobody can make a second certificate of the same content.
pub(super) fn signature(
    der: &[u8],
    signed: &[u8],
    algorithm: &AlgorithmIdentifier<'_>,
    value: &BitString<'_>,
) -> Result<[u8; 64], String> {
    let signature: Option<[u8; 64]> = value.data.as_ref().try_into().ok();
    let Some(signature) = signature.filter(|_| is_ed25519(algorithm)) else {
        return Err("it is not signed with ed25519".to_owned());
    };
    let content = signed.len() + ALGORITHM.len() + SIGNATURE_HEAD.len() + signature.len();
    let mut expected = vec![0x30];
    match u16::try_from(content).map(u16::to_be_bytes) {
        Ok([0, low @ 0..0x80]) => expected.push(low),
        Ok([0, low]) => expected.extend([0x81, low]),
        Ok([high, low]) => expected.extend([0x82, high, low]),
        Err(_) => return Err("it is too long".to_owned()),
    }
    for part in [signed, &ALGORITHM, &SIGNATURE_HEAD, &signature] {
        expected.extend_from_slice(part);
    }
    if expected == der { Ok(signature) } else { Err("it is not the one DER encoding of its content".to_owned()) }
}

fn is_ed25519(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    algorithm.algorithm.as_bytes() == &ALGORITHM[4..] && algorithm.parameters.is_none()
}

pub(super) fn ed25519_key(info: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, String> {
    let octets: Option<[u8; 32]> = info.subject_public_key.data.as_ref().try_into().ok();
    match octets {
        Some(octets) if is_ed25519(&info.algorithm) && info.subject_public_key.unused_bits == 0 => {
            Ok(PublicKey::from_octets(octets))
        }
        _ => Err("its key is not an ed25519 key".to_owned()),
    }
}

/// What the extensions that concern us say.
#[derive(Default)]
struct Extensions {
    is_ca: bool,
    signs_certificates: bool,
    signs_data: bool,
    names: Vec<ResourceName>,
}

impl Extensions {
    const fn role(&self) -> Role {
        match (self.is_ca, self.signs_certificates, self.signs_data) {
            (true, true, _) => Role::Authority,
            (false, false, true) => Role::Leaf,
            _ => Role::Nothing,
        }
    }
}

fn read_extensions(extensions: &[X509Extension<'_>]) -> Result<Extensions, String> {
    let mut found = Extensions::default();
    for (index, extension) in extensions.iter().enumerate() {
        // RFC 5280 §4.2: at most once each.
        if extensions.iter().take(index).any(|earlier| earlier.oid == extension.oid) {
            return Err(format!("it has extension {} twice", extension.oid));
        }
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => found.is_ca = constraints.ca,
            ParsedExtension::KeyUsage(usage) => {
                found.signs_certificates = usage.key_cert_sign();
                found.signs_data = usage.digital_signature();
            }
            ParsedExtension::SubjectAlternativeName(alternative) => found.names = names(&alternative.general_names)?,
            ParsedExtension::ParseError { .. } => return Err(format!("extension {} is damaged", extension.oid)),
            _ if extension.critical => {
                return Err(format!("it has the critical extension {}, which is not understood here", extension.oid));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The URIs among the names, each of which must name a user or a service; names of other kinds mean nothing here.
pub(super) fn names<'a>(general: impl IntoIterator<Item = &'a GeneralName<'a>>) -> Result<Vec<ResourceName>, String> {
    let mut names = Vec::new();
    for name in general {
        match name {
            GeneralName::URI(uri) => names.push(ResourceName::parse(uri).map_err(|error| error.to_string())?),
            GeneralName::Invalid(..) => return Err("its subjectAltName is damaged".to_owned()),
            _ => {}
        }
        if names.len() > MAX_NAMES {
            return Err(format!("it has more than {MAX_NAMES} names"));
        }
    }
    Ok(names)
}

fn unix_ms(seconds: i64, milliseconds: u64) -> Result<UnixMs, String> {
    u64::try_from(seconds)
        .ok()
        .and_then(|seconds| seconds.checked_mul(1000))
        .and_then(|ms| ms.checked_add(milliseconds))
        .map(UnixMs)
        .ok_or_else(|| "its validity begins before 1970".to_owned())
}

#[cfg(test)]
mod tests;
