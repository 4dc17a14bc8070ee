//! SIP over TLS: whose certificates are believed, and which domains one proves (RFC 5922).

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
        client::{
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
            verify_server_cert_signed_by_trust_anchor, verify_server_name,
        },
        crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
        server::{ParsedCertificate, WebPkiClientVerifier},
    },
};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use super::config::TransportError;

/// The files of TLS, in PEM.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Our certificate, its intermediates behind it, and its key. Shown to those who connect, and to those we connect
    /// to if they ask.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The CAs that are believed, instead of the system's. With these, those who connect are asked for a certificate
    /// (which they need not have): it tells which domain they are.
    pub roots: Option<PathBuf>,
}

/// TLS as it is spoken here.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    roots: Option<Arc<RootCertStore>>,
    connector: OnceLock<Result<TlsConnector, TransportError>>,
}

impl Tls {
    /// Reads the files.
    pub(super) fn new(files: &TlsFiles) -> Result<Self, TransportError> {
        let certificate = files.certificate.as_ref().map(|(chain, key)| {
            let key_of = PrivateKeyDer::from_pem_file(key).map_err(|error| file(key, &error))?;
            Ok((certificates(chain)?, key_of))
        });
        let roots = files.roots.as_ref().map(|path| {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| file(path, &error))?;
            }
            Ok(Arc::new(roots))
        });
        Ok(Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            certificate: certificate.transpose()?,
            roots: roots.transpose()?,
            connector: OnceLock::new(),
        })
    }

    /// What accepts connections; `None` without a certificate.
    pub(super) fn acceptor(&self) -> Result<Option<TlsAcceptor>, TransportError> {
        let Some((chain, key)) = &self.certificate else { return Ok(None) };
        let builder = ServerConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| tls(&error))?;
        let builder = match &self.roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), self.provider.clone());
                let verifier = verifier.allow_unauthenticated().build().map_err(|error| tls(&error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(|error| tls(&error))?;
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }

    /// What makes connections. The system's roots are read when they are first needed.
    pub(super) fn connector(&self) -> Result<&TlsConnector, TransportError> {
        self.connector.get_or_init(|| self.new_connector()).as_ref().map_err(Clone::clone)
    }

    fn new_connector(&self) -> Result<TlsConnector, TransportError> {
        let roots = self.roots.clone().unwrap_or_else(|| Arc::new(system_roots()));
        let verifier = Arc::new(DomainVerifier { roots, provider: self.provider.clone() });
        let builder = ClientConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| tls(&error))?;
        // Verifies more strictly than the default: no wildcards, SIP URIs first.
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|error| tls(&error))?
            }
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's certificate authorities cannot be read");
    }
    // Those that rustls cannot use certify nothing it could verify.
    roots.add_parsable_certificates(found.certs);
    roots
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(file(path, &"no certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(file(path, &error)),
    }
}

fn file(path: &Path, why: &dyn std::fmt::Display) -> TransportError {
    TransportError::File { path: path.to_owned(), why: why.to_string() }
}

fn tls(why: &dyn std::fmt::Display) -> TransportError {
    TransportError::Tls { why: why.to_string() }
}

/// The name to ask a server for: the domain, or else the address.
pub(super) fn server_name(name: Option<&str>, address: IpAddr) -> io::Result<ServerName<'static>> {
    let Some(name) = name else { return Ok(ServerName::from(address)) };
    let name = name.strip_suffix('.').unwrap_or(name).to_owned();
    ServerName::try_from(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Verifies servers as RFC 5922 §7.3 says: a chain to a root, and the domain among the certificate's own.
#[derive(Debug)]
struct DomainVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for DomainVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match name {
            ServerName::DnsName(domain) => {
                let proven = domains(certificate);
                if !proven.iter().any(|proven| proven.eq_ignore_ascii_case(domain.as_ref())) {
                    return Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                        expected: name.to_owned(),
                        presented: proven,
                    }));
                }
            }
            _ => verify_server_name(&parsed, name)?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The SIP domains that a certificate (in DER, already verified) is for, in lower case (RFC 5922 §7.1): those of its
/// `sip:` URIs without a user; only if there are none, its DNS names. A wildcard proves nothing (§7.2).
pub(super) fn domains(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::certificate::X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.extend(domain_of_uri(uri)),
            GeneralName::DNSName(host) if !host.contains('*') => hosts.push(host.to_ascii_lowercase()),
            _ => {}
        }
    }
    if uris.is_empty() { hosts } else { uris }
}

fn domain_of_uri(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    let host_port = rest.split([';', '?']).next()?;
    if !scheme.eq_ignore_ascii_case("sip") || rest.contains('@') || host_port.starts_with('[') {
        return None;
    }
    let host = host_port.split(':').next()?;
    (!host.is_empty() && !host.contains('*')).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str], hosts: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.subject_alt_names.extend(hosts.iter().map(|host| SanType::DnsName((*host).try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn sip_uris_come_before_dns_names() {
        let both = certificate(&["sip:Example.com", "sip:b.example.net:5070;transport=tls"], &["host.example.com"]);
        assert_eq!(domains(&both), ["example.com", "b.example.net"]);
        assert_eq!(domains(&certificate(&[], &["Host.example.com"])), ["host.example.com"]);
    }

    #[test]
    fn a_user_a_wildcard_or_another_scheme_proves_no_domain() {
        let uris = ["sip:alice@example.com", "sips:example.com", "https://example.com/", "sip:*.example.com"];
        assert_eq!(domains(&certificate(&uris, &["*.example.org"])), Vec::<String>::new());
        // These are no SIP identities, so that DNS names count.
        assert_eq!(domains(&certificate(&uris, &["example.net"])), ["example.net"]);
        assert!(domains(&certificate(&[], &[])).is_empty());
        assert!(domains(b"no certificate").is_empty());
    }
}
