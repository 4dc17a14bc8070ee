//! Certificate requests: PKCS#10 (RFC 2986), ed25519 only, the wanted names as URIs in the extensionRequest.

use rcgen::{CertificateParams, DistinguishedName, PKCS_ED25519, PublicKeyData, SanType};
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{
    IdentityError, PublicKey, SecretKey,
    certificate::{self, MAX_NAMES},
    pem,
};
use crate::name::{OverlayId, ResourceName};

/// The PEM label of a certificate request (RFC 7468 §7).
pub(super) const LABEL: &str = "CERTIFICATE REQUEST";
/// The longest request that is read.
const MAX_DER: usize = 16 * 1024;

/// Which of a home's two keys certain names belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyUse {
    /// The key of one device of a user, for AORs.
    Instance,
    /// The key of a process, for the services it offers: a service record is believed only from the peer it names.
    Peer,
}

impl KeyUse {
    /// The key that all of `names` belong to.
    ///
    /// # Errors
    /// [`IdentityError::Request`] if there are no names, more than [`MAX_NAMES`], or both users and services.
    pub fn of(names: &[ResourceName]) -> Result<Self, IdentityError> {
        if names.len() > MAX_NAMES {
            return Err(refused(format!("{} names are more than the {MAX_NAMES} of one certificate", names.len())));
        }
        if let Some(node) = names.iter().find(|name| matches!(name, ResourceName::Node(_))) {
            return Err(refused(format!("{node} is a part of a service; name the service")));
        }
        let user = names.iter().find(|name| matches!(name, ResourceName::User(_)));
        let service = names.iter().find(|name| matches!(name, ResourceName::Service(_)));
        match (user, service) {
            (Some(_), None) => Ok(Self::Instance),
            (None, Some(_)) => Ok(Self::Peer),
            (Some(user), Some(service)) => Err(refused(format!(
                "{user} belongs to the key of a device and {service} to the key of a process; make one request for each"
            ))),
            (None, None) => Err(refused("it names nobody; give at least one URI such as sip:alice@OVERLAY")),
        }
    }
}

/// Checks that a certificate of `overlay` may carry these names (R4, R22).
pub(super) fn check_names(names: &[ResourceName], overlay: &OverlayId) -> Result<KeyUse, IdentityError> {
    for name in names {
        name.check_overlay(overlay)?;
    }
    KeyUse::of(names)
}

/// A request for a certificate, signed by the key that is to be certified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    der: Vec<u8>,
    public_key: PublicKey,
    names: Vec<ResourceName>,
}

impl CertificateRequest {
    /// Asks that `key` be certified for `names`, which are all users or all services.
    ///
    /// # Errors
    /// [`IdentityError::Request`].
    pub fn create(key: &SecretKey, names: &[ResourceName]) -> Result<Self, IdentityError> {
        KeyUse::of(names)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = alternative_names(names)?;
        let request = params.serialize_request(&RcgenKey::new(key)).map_err(|error| refused(error.to_string()))?;
        Self::from_der(request.der())
    }

    /// Reads a request in DER and verifies its signature, which proves that the requester has the key.
    ///
    /// # Errors
    /// [`IdentityError::Request`]: malformed, not ed25519, a signature that does not verify, or a name that is none.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        read(der).map_err(refused)
    }

    /// Reads a text that holds one request in PEM.
    ///
    /// # Errors
    /// As [`CertificateRequest::from_der`].
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        Self::from_der(&pem::decode_one(text, LABEL).map_err(refused)?)
    }

    /// The request in PEM (RFC 7468).
    pub fn to_pem(&self) -> String {
        pem::encode(LABEL, &self.der)
    }

    /// The key to be certified.
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// The names it asks for.
    pub fn names(&self) -> &[ResourceName] {
        &self.names
    }
}

fn read(der: &[u8]) -> Result<CertificateRequest, String> {
    if der.len() > MAX_DER {
        return Err(format!("it has {} bytes, more than {MAX_DER}", der.len()));
    }
    let (_, request) = X509CertificationRequest::from_der(der).map_err(|_| "it is not PKCS#10 in DER")?;
    let info = &request.certification_request_info;
    let signature = certificate::signature(der, info.raw, &request.signature_algorithm, &request.signature_value)?;
    let public_key = certificate::ed25519_key(&info.subject_pki)?;
    if !public_key.verify(info.raw, &signature) {
        return Err("its signature is not by the key it contains".to_owned());
    }
    let mut general: Vec<&GeneralName<'_>> = Vec::new();
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(wanted) = attribute.parsed_attribute() else { continue };
        for extension in &wanted.extensions {
            if let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() {
                general.extend(&alternative.general_names);
            }
        }
    }
    let names = certificate::names(general)?;
    KeyUse::of(&names).map_err(|error| match error {
        IdentityError::Request { why } => why,
        other => other.to_string(),
    })?;
    Ok(CertificateRequest { der: der.to_vec(), public_key, names })
}

/// Names as subjectAltName URIs, each once.
pub(super) fn alternative_names(names: &[ResourceName]) -> Result<Vec<SanType>, IdentityError> {
    let mut uris = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|earlier| earlier == name) {
            continue;
        }
        uris.push(SanType::URI(name.to_string().try_into().map_err(|error| refused(format!("{name}: {error}")))?));
    }
    Ok(uris)
}

/// Our key as rcgen wants to see one.
pub(super) struct RcgenKey<'a> {
    key: &'a SecretKey,
    public: PublicKey,
}

impl<'a> RcgenKey<'a> {
    pub(super) fn new(key: &'a SecretKey) -> Self {
        Self { key, public: key.public() }
    }
}

impl PublicKeyData for RcgenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public.octets()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for RcgenKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_vec())
    }
}

/// The key to be certified, as rcgen wants to see one.
pub(super) struct RcgenSubject(pub(super) PublicKey);

impl PublicKeyData for RcgenSubject {
    fn der_bytes(&self) -> &[u8] {
        self.0.octets()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

pub(super) fn refused(why: impl Into<String>) -> IdentityError {
    IdentityError::Request { why: why.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(texts: &[&str]) -> Vec<ResourceName> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_request_round_trips() {
        let key = SecretKey::from_seed(&[1; 32]);
        let wanted = names(&["sip:alice@p2psip.org", "sip:a%40b@p2psip.org"]);
        let request = CertificateRequest::create(&key, &wanted).unwrap();
        let read = CertificateRequest::from_pem(&request.to_pem()).unwrap();
        assert_eq!(read, request);
        assert_eq!((read.public_key(), read.names()), (key.public(), wanted.as_slice()));
    }

    #[test]
    fn users_and_services_need_a_request_each() {
        let error = KeyUse::of(&names(&["sip:alice@p2psip.org", "turn:p2psip.org"])).unwrap_err().to_string();
        assert!(error.contains("one request for each"), "{error}");
        assert_eq!(KeyUse::of(&names(&["sip:p2psip.org", "turn:p2psip.org"])).unwrap(), KeyUse::Peer);
        assert!(KeyUse::of(&[]).is_err());
        assert!(KeyUse::of(&vec!["sip:p2psip.org".parse().unwrap(); MAX_NAMES + 1]).is_err());
    }

    #[test]
    fn a_name_asked_for_twice_is_certified_once() {
        let key = SecretKey::from_seed(&[1; 32]);
        let request = CertificateRequest::create(&key, &names(&["sip:a@x.org", "sips:%61@X.org"])).unwrap();
        assert_eq!(request.names(), names(&["sip:a@x.org"]));
    }

    #[test]
    fn a_request_with_another_kind_of_key_is_refused() {
        let mut params = CertificateParams::default();
        params.subject_alt_names = alternative_names(&names(&["sip:alice@p2psip.org"])).unwrap();
        let request = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let error = CertificateRequest::from_der(request.der()).unwrap_err().to_string();
        assert!(error.contains("ed25519"), "{error}");
    }

    #[test]
    fn no_octet_of_a_request_may_change() {
        let key = SecretKey::from_seed(&[1; 32]);
        let request = CertificateRequest::create(&key, &names(&["sip:alice@p2psip.org"])).unwrap();
        for at in 0..request.der.len() {
            for flip in [1, 0x80, 0xff] {
                let mut der = request.der.clone();
                der[at] ^= flip;
                assert!(CertificateRequest::from_der(&der).is_err(), "octet {at} ^ {flip}");
            }
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(der in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(CertificateRequest::from_der(&der).is_err());
        }
    }
}
