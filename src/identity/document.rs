//! Telling by its content what a file of this overlay's operator holds.

use super::{
    Certificate, CertificateRequest, Descriptor, IdentityError, RevocationList, certificate, key, pem, request,
};

/// One thing that a file holds. Reading it says nothing about whether to trust it.
#[derive(Debug)]
pub(crate) enum Document {
    Certificate(Certificate),
    Request(CertificateRequest),
    Descriptor(Box<Descriptor>),
    /// The signature of the list has not been looked at.
    Revocations(RevocationList),
    /// A private key, which is not even read.
    PrivateKey,
}

impl Document {
    /// Everything in the octets of one file: a descriptor, a revocation list, or any number of PEM blocks.
    pub(crate) fn read_all(octets: &[u8]) -> Result<Vec<Self>, IdentityError> {
        // COSE_Sign1 begins with the octet of an array, which no text begins with.
        let Some(text) = str::from_utf8(octets).ok().filter(|_| octets.first() != Some(&0x84)) else {
            return RevocationList::decode_unverified(octets).map(|list| vec![Self::Revocations(list)]);
        };
        if is_descriptor(text) {
            return Descriptor::from_toml(text).map(|descriptor| vec![Self::Descriptor(Box::new(descriptor))]);
        }
        let unknown = |why: String| IdentityError::Unknown { why };
        let blocks = pem::decode_all(text).map_err(|why| unknown(why.to_owned()))?;
        if blocks.is_empty() {
            return Err(unknown("it has neither PEM blocks nor the keys of a descriptor".to_owned()));
        }
        blocks.iter().map(Self::of_block).collect()
    }

    fn of_block(block: &pem::Block) -> Result<Self, IdentityError> {
        match block.label.as_str() {
            certificate::LABEL => Certificate::from_der(&block.octets)
                .map(Self::Certificate)
                .map_err(|reason| IdentityError::Certificate { target: "in a PEM block".to_owned(), reason }),
            request::LABEL => CertificateRequest::from_der(&block.octets).map(Self::Request),
            key::LABEL => Ok(Self::PrivateKey),
            other => Err(IdentityError::Unknown { why: format!("it has a PEM block of type {other}") }),
        }
    }
}

/// A descriptor, even a damaged one, sets `overlay`; it may hold a PEM block, too.
fn is_descriptor(text: &str) -> bool {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("overlay"))
        .any(|rest| rest.trim_start().starts_with('='))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_none_of_ours_is_refused_with_the_reason() {
        for (octets, why) in [
            (&b""[..], "neither PEM blocks"),
            (b"hello", "neither PEM blocks"),
            (b"-----BEGIN X-----\n-----END X-----\n", "PEM block of type X"),
            (b"overlay = 1", "missing field `version`"),
            (b"\x84\xff", "COSE_Sign1"),
            (b"\xff", "COSE_Sign1"),
        ] {
            let error = Document::read_all(octets).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_private_key_is_recognised_and_not_read() {
        let key = pem::encode(key::LABEL, b"secret");
        assert!(matches!(Document::read_all(key.as_bytes()).unwrap().as_slice(), [Document::PrivateKey]));
    }

    proptest! {
        #[test]
        fn reading_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Document::read_all(&octets).is_err());
        }
    }
}
