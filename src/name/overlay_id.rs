//! Overlay identifiers: domain names that need not be in the DNS.

use std::{fmt, str::FromStr};

use super::{NameError, text_serde};

/// The longest domain name in presentation form (RFC 1035 §2.3.4 less the root's octets).
const MAX_NAME: usize = 253;
/// The longest label of a domain name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// An overlay identifier: in lower case, without a trailing dot.
///
/// An overlay that interconnects has an FQDN (draft §2.1, [`OverlayId::parse`]); a purely local one may have a
/// single label ([`OverlayId::parse_local`]) and then has no proxy peers and no DNS records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverlayId(String);

impl OverlayId {
    /// Parses an FQDN by RFC 1123 §2.1: letters, digits and inner hyphens, at least two labels, the last one not
    /// all digits (so that no IPv4 address passes). Internationalised names are given as A-labels.
    ///
    /// # Errors
    /// [`NameError::Overlay`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let id = Self::parse_local(text)?;
        if id.is_fqdn() {
            Ok(id)
        } else {
            Err(overlay_error(text, "it has a single label and is not fully qualified (a --local overlay may)"))
        }
    }

    /// Parses the name of a purely local overlay: as [`OverlayId::parse`], but one label is enough.
    ///
    /// # Errors
    /// [`NameError::Overlay`] says which rule is broken.
    pub fn parse_local(text: &str) -> Result<Self, NameError> {
        check(text).map(Self).map_err(|why| overlay_error(text, why))
    }

    /// Whether this is a fully qualified name, that is, one that the DNS could hold.
    pub fn is_fqdn(&self) -> bool {
        self.0.contains('.')
    }

    /// The identifier in lower case without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn overlay_error(text: &str, why: &'static str) -> NameError {
    NameError::Overlay { text: text.to_owned(), why }
}

/// The canonical form of a host name, or the rule it breaks.
pub(super) fn check(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.contains('@') || name.contains(':') || name.contains('[') {
        return Err("only a bare host name is allowed, without scheme, user, port or address literal");
    }
    if name.contains(';') || name.contains('?') {
        return Err("only a bare host name is allowed, without parameters");
    }
    if !name.is_ascii() {
        return Err("it has characters outside ASCII (write the A-label, xn--…)");
    }
    if name.len() > MAX_NAME {
        return Err("it is longer than 253 characters");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("it has an empty label");
        }
        if label.len() > MAX_LABEL {
            return Err("it has a label longer than 63 characters");
        }
        if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err("a label may have only letters, digits and hyphens");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label may not begin or end with a hyphen");
        }
    }
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err("it is an address or a number, not a domain name");
    }
    Ok(name.to_ascii_lowercase())
}

impl fmt::Display for OverlayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for OverlayId {
    type Err = NameError;

    /// As [`OverlayId::parse_local`]: whether an FQDN is needed depends on what the overlay is used for.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse_local(text)
    }
}

text_serde!(OverlayId);

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> &'static str {
        match OverlayId::parse(text) {
            Err(NameError::Overlay { why, .. }) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn canonical_form_folds_case_and_the_root_dot() {
        assert_eq!(OverlayId::parse("P2PSIP.Org.").unwrap().as_str(), "p2psip.org");
        assert_eq!(OverlayId::parse("xn--bcher-kva.example").unwrap().as_str(), "xn--bcher-kva.example");
        assert_eq!(OverlayId::parse("3com.com").unwrap().as_str(), "3com.com");
    }

    #[test]
    fn everything_but_a_fully_qualified_name_is_refused() {
        assert!(why("testnet").contains("single label"));
        assert!(why("").contains("empty"));
        assert!(why(".").contains("empty"));
        assert!(why("a..b").contains("empty label"));
        assert!(why("sip:p2psip.org:5060").contains("bare host name"));
        assert!(why("p2psip.org:5060").contains("bare host name"));
        assert!(why("alice@p2psip.org").contains("bare host name"));
        assert!(why("p2psip.org;lr").contains("parameters"));
        assert!(why("bücher.example").contains("A-label"));
        assert!(why("a_b.example").contains("letters, digits and hyphens"));
        assert!(why("-a.example").contains("hyphen"));
        assert!(why("192.0.2.1").contains("address"));
        assert!(why(&format!("{}.example", "a".repeat(64))).contains("63"));
        assert!(why(&["a"; 128].join(".")).contains("253"));
    }

    #[test]
    fn a_local_overlay_may_have_one_label() {
        let id = OverlayId::parse_local("Testnet").unwrap();
        assert_eq!(id.as_str(), "testnet");
        assert!(!id.is_fqdn());
        assert!(OverlayId::parse_local("5060").is_err());
    }
}
