use std::time::Duration;

use proptest::prelude::*;
use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

use super::*;
use crate::identity::{Authority, CertificateRequest, SecretKey};

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn authority() -> Authority {
    Authority::create(&"p2psip.org".parse().unwrap(), NOW).unwrap()
}

fn leaf(authority: &Authority) -> Certificate {
    let names = ["sip:alice@p2psip.org".parse().unwrap()];
    let request = CertificateRequest::create(&SecretKey::from_seed(&[3; 32]), &names).unwrap();
    authority.issue(&request, &names, DAY, NOW).unwrap()
}

/// A certificate that breaks some rule but is signed all the same.
fn odd(change: impl FnOnce(&mut CertificateParams)) -> Result<Certificate, CertificateError> {
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::URI("sip:alice@p2psip.org".try_into().unwrap())];
    change(&mut params);
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    Certificate::from_der(params.self_signed(&key).unwrap().der())
}

fn why(result: Result<Certificate, CertificateError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn pem_and_der_round_trip() {
    let certificate = leaf(&authority());
    assert_eq!(Certificate::from_pem(&certificate.to_pem()).unwrap(), certificate);
    assert_eq!(Certificate::from_der(certificate.der()).unwrap(), certificate);
    assert!(certificate.is_for(&"sips:alice@P2PSIP.org".parse().unwrap()));
    assert!(!certificate.is_for(&"sip:bob@p2psip.org".parse().unwrap()));
}

#[test]
fn a_certificate_of_another_ca_is_forged() {
    let (ours, theirs) = (authority(), authority());
    let certificate = leaf(&theirs);
    assert_eq!(certificate.check(ours.certificate(), NOW), Err(CertificateError::Forged));
    // Nor does a member's certificate make a CA, nor may a CA's certificate sign records.
    let member = leaf(&ours);
    assert_eq!(member.check(&member, NOW), Err(CertificateError::Forged));
    let own = ours.certificate().check(ours.certificate(), NOW);
    assert!(matches!(own, Err(CertificateError::Malformed { .. })), "{own:?}");
    assert!(member.check_authority().is_err());
}

#[test]
fn validity_holds_to_the_millisecond_for_member_and_ca() {
    let authority = authority();
    let (ca, certificate) = (authority.certificate(), leaf(&authority));
    for inside in [certificate.not_before(), certificate.not_after()] {
        certificate.check(ca, inside).unwrap();
    }
    let (early, late) = (UnixMs(certificate.not_before().0 - 1), UnixMs(certificate.not_after().0 + 1));
    assert_eq!(certificate.check(ca, early), Err(CertificateError::NotYetValid { from: certificate.not_before() }));
    assert_eq!(certificate.check(ca, late), Err(CertificateError::Expired { at: certificate.not_after() }));
    let after_the_ca = UnixMs(ca.not_after().0 + 1);
    assert_eq!(certificate.check(ca, after_the_ca), Err(CertificateError::Expired { at: ca.not_after() }));
}

#[test]
fn anything_but_ed25519_is_refused() {
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let p256 = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert!(why(Certificate::from_der(p256.der())).contains("ed25519"));
}

#[test]
fn odd_certificates_are_refused_with_the_reason() {
    assert!(odd(|_| {}).is_ok());
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    assert!(why(odd(|p| p.subject_alt_names.push(uri("https://p2psip.org/")))).contains("names nothing"));
    assert!(why(odd(|p| p.subject_alt_names.push(uri("sip:a@192.0.2.1")))).contains("address"));
    assert!(why(odd(|p| p.subject_alt_names = vec![uri("sip:a@p2psip.org"); MAX_NAMES + 1])).contains("names"));
    assert!(why(odd(|p| p.serial_number = Some(vec![1; 21].into()))).contains("serial"));
    assert!(why(odd(|p| p.serial_number = Some(vec![0].into()))).contains("serial"));
    assert!(why(odd(|p| p.not_before = time::macros::datetime!(1960-01-01 0:00 UTC))).contains("1970"));
    assert!(why(odd(|p| p.name_constraints = Some(constraints()))).contains("critical"));
    let long = SanType::DnsName("a".repeat(MAX_DER).try_into().unwrap());
    assert!(why(odd(|p| p.subject_alt_names.push(long))).contains("more than 4096"));
}

fn constraints() -> rcgen::NameConstraints {
    rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example".to_owned())],
        excluded_subtrees: Vec::new(),
    }
}

#[test]
fn a_key_without_the_right_usage_signs_neither_records_nor_certificates() {
    let authority = authority();
    for usages in [vec![], vec![KeyUsagePurpose::KeyAgreement], vec![KeyUsagePurpose::KeyCertSign]] {
        let certificate = odd(|p| p.key_usages = usages.clone()).unwrap();
        assert!(!certificate.is_authority(), "{usages:?}");
    }
    let ca = odd(|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)).unwrap();
    assert!(!ca.is_authority(), "no keyCertSign");
    assert_eq!(leaf(&authority).check(&ca, NOW), Err(CertificateError::Forged));
}

#[test]
fn no_octet_of_a_certificate_may_change() {
    let authority = authority();
    let certificate = leaf(&authority);
    for at in 0..certificate.der().len() {
        for flip in [1, 2, 0x20, 0x80, 0xff] {
            let mut der = certificate.der().to_vec();
            der[at] ^= flip;
            let accepted = Certificate::from_der(&der).and_then(|read| read.check(authority.certificate(), NOW));
            assert!(accepted.is_err(), "octet {at} ^ {flip}");
        }
    }
}

#[test]
fn a_second_encoding_of_the_same_certificate_is_refused() {
    let certificate = leaf(&authority());
    let mut followed = certificate.der().to_vec();
    followed.push(0);
    assert!(why(Certificate::from_der(&followed)).contains("one DER encoding"));
    // The length of the outer SEQUENCE in three octets instead of two.
    let [0x30, 0x82, high, low, rest @ ..] = certificate.der() else { panic!("not the expected head") };
    let longer = [&[0x30, 0x83, 0, *high, *low], rest].concat();
    assert!(Certificate::from_der(&longer).is_err());
}

proptest! {
    #[test]
    fn reading_never_panics(der in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Certificate::from_der(&der).is_err());
    }

    #[test]
    fn damaged_certificates_are_never_accepted(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let authority = authority();
        let certificate = leaf(&authority);
        let mut der = certificate.der().to_vec();
        for (at, octet) in damage {
            let at = at.index(der.len());
            der[at] = octet;
        }
        if der != certificate.der() {
            let accepted = Certificate::from_der(&der).and_then(|read| read.check(authority.certificate(), NOW));
            prop_assert!(accepted.is_err());
        }
        der.truncate(cut.index(der.len()));
        prop_assert!(Certificate::from_der(&der).is_err());
    }
}
