//! Users' addresses of record, in canonical form.

use std::{fmt, str::FromStr};

use super::{NameError, OverlayId, Position, overlay_id, text_serde};

/// Longest URI taken, in bytes: well above what phones produce, well below what could hurt a storer.
const MAX_URI: usize = 512;

/// A user's address of record in canonical form: `sip:user@host`.
///
/// The canonical form is that of RFC 3261 §10.3 step 5: all parameters removed, escapes decoded (an octet that may
/// not stand unescaped keeps one spelling, `%XX`), the host in lower case, `sips` folded into `sip` because both
/// name the same user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aor {
    user: String,
    host: OverlayId,
}

impl Aor {
    /// Parses a `sip:` or `sips:` URI with a user part and a host name.
    ///
    /// # Errors
    /// [`NameError::Aor`]: no user part, a password, a port, headers, a host that is an address, or characters
    /// that RFC 3261 §25.1 does not allow.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        parse(text).map_err(|why| NameError::Aor { text: text.to_owned(), why })
    }

    /// The user part, escaped where RFC 3261 §25.1 demands it.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The host part; for a user of an overlay, its identifier.
    pub const fn host(&self) -> &OverlayId {
        &self.host
    }

    /// Where the user's routing records live: SHA-256 of the canonical form.
    pub fn position(&self) -> Position {
        Position::of_name(&self.to_string())
    }

    /// Checks that the host is the overlay identifier (draft §2 and §4.1; R4, R22).
    ///
    /// # Errors
    /// [`NameError::ForeignHost`].
    pub fn check_overlay(&self, overlay: &OverlayId) -> Result<(), NameError> {
        if &self.host == overlay {
            Ok(())
        } else {
            Err(NameError::ForeignHost { name: self.to_string(), overlay: overlay.clone() })
        }
    }
}

fn parse(text: &str) -> Result<Aor, &'static str> {
    if text.len() > MAX_URI {
        return Err("it is longer than 512 bytes");
    }
    let rest = strip_scheme(text).ok_or("its scheme is not sip: or sips:")?;
    let Some((user, rest)) = rest.split_once('@') else {
        return Err("it has no user part");
    };
    let (host, parameters) = match rest.find([';', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if parameters.contains('?') {
        return Err("it has headers, which an address of record may not have");
    }
    if !parameters.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("its parameters have characters that a URI may not have");
    }
    if host.contains('@') {
        return Err("it has two '@'");
    }
    if host.starts_with('[') {
        return Err("its host is an IPv6 address, not the name of an overlay");
    }
    if host.contains(':') {
        return Err("it has a port, which an address of record in an overlay may not have");
    }
    let host = overlay_id::check(host).map_err(|why| match why {
        "it is empty" => "its host is empty",
        "it is an address or a number, not a domain name" => "its host is an address, not the name of an overlay",
        _ => "its host is not a domain name",
    })?;
    let host = OverlayId::parse_local(&host).map_err(|_| "its host is not a domain name")?;
    Ok(Aor { user: canonical_user(user)?, host })
}

/// What follows `sip:` or `sips:`, in any case.
fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    (scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips")).then_some(rest)
}

/// The user part with every escape decoded that may stand unescaped, and every other one in upper-case hexadecimal.
fn canonical_user(user: &str) -> Result<String, &'static str> {
    if user.is_empty() {
        return Err("its user part is empty");
    }
    let mut canonical = String::with_capacity(user.len());
    let mut bytes = user.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => match (bytes.next().and_then(hex_value), bytes.next().and_then(hex_value)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err("its user part has a '%' that two hexadecimal digits do not follow"),
            },
            b':' => return Err("it has a password, which an address of record may not have"),
            byte if may_stand_in_user(byte) => byte,
            _ => return Err("its user part has a character that must be escaped"),
        };
        if may_stand_in_user(byte) {
            canonical.push(char::from(byte));
        } else {
            canonical.push('%');
            for digit in [byte >> 4, byte & 15] {
                canonical.push(char::from_digit(u32::from(digit), 16).map_or('0', |c| c.to_ascii_uppercase()));
            }
        }
    }
    Ok(canonical)
}

fn hex_value(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 3261 §25.1: `unreserved / user-unreserved`.
const fn may_stand_in_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
        || matches!(byte, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/')
}

impl fmt::Display for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("sip:{}@{}", self.user, self.host))
    }
}

impl FromStr for Aor {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

text_serde!(Aor);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Aor::parse(text).unwrap().to_string()
    }

    fn why(text: &str) -> &'static str {
        match Aor::parse(text) {
            Err(NameError::Aor { why, .. }) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn canonical_form_is_that_of_rfc_3261_section_10_3() {
        assert_eq!(canonical("sip:alice@P2PSIP.org"), "sip:alice@p2psip.org");
        assert_eq!(canonical("SIPS:%61%6cice@p2psip.org.;transport=tcp;gr=x"), "sip:alice@p2psip.org");
        assert_eq!(canonical("sip:alice.b.smith@p2psip.org"), "sip:alice.b.smith@p2psip.org");
        assert_eq!(canonical("sip:Alice@p2psip.org"), "sip:Alice@p2psip.org");
        assert_eq!(canonical("sip:+1-212;phone-context=x.y@p2psip.org"), "sip:+1-212;phone-context=x.y@p2psip.org");
        assert_eq!(canonical("sip:a%40b%2f%c3%bc@p2psip.org"), "sip:a%40b/%C3%BC@p2psip.org");
    }

    #[test]
    fn what_is_not_a_user_is_refused_with_the_reason() {
        assert!(why("sip:p2psip.org").contains("no user part"));
        assert!(why("sip:@p2psip.org").contains("empty"));
        assert!(why("sip:alice:secret@p2psip.org").contains("password"));
        assert!(why("sip:alice@p2psip.org:5060").contains("port"));
        assert!(why("sip:alice@[2001:db8::1]").contains("IPv6"));
        assert!(why("sip:alice@192.0.2.1").contains("address"));
        assert!(why("sip:alice@p2psip.org?Subject=x").contains("headers"));
        assert!(why("sip:a b@p2psip.org").contains("escaped"));
        assert!(why("sip:a%4@p2psip.org").contains("hexadecimal"));
        assert!(why("sip:a@b@p2psip.org").contains("two '@'"));
        assert!(why("tel:+123").contains("scheme"));
        assert!(why("alice@p2psip.org").contains("scheme"));
        assert!(why(&format!("sip:{}@p2psip.org", "a".repeat(600))).contains("512"));
    }

    #[test]
    fn another_host_is_foreign() {
        let overlay = OverlayId::parse("p2psip.org").unwrap();
        assert!(Aor::parse("sip:a@p2psip.org").unwrap().check_overlay(&overlay).is_ok());
        let error = Aor::parse("sip:a@example.com").unwrap().check_overlay(&overlay).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sip:a@example.com does not belong to overlay p2psip.org: its host must be p2psip.org"
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = Aor::parse(&text);
        }

        #[test]
        fn the_canonical_form_is_a_fixed_point(user in "([a-zA-Z0-9_.!~*'()&=+$,;?/-]|%[0-9a-fA-F]{2}){1,30}") {
            let once = canonical(&format!("sip:{user}@p2psip.org"));
            prop_assert_eq!(canonical(&once), once);
        }

        #[test]
        fn escaping_any_octet_names_the_same_user(user in proptest::collection::vec(any::<u8>(), 1..20)) {
            let lower: String = user.iter().map(|b| format!("%{b:02x}")).collect();
            let upper: String = user.iter().map(|b| format!("%{b:02X}")).collect();
            let a = Aor::parse(&format!("sip:{lower}@p2psip.org")).unwrap();
            prop_assert_eq!(&a, &Aor::parse(&format!("sips:{upper}@P2PSIP.ORG;x=y")).unwrap());
            prop_assert_eq!(a.position(), Aor::parse(&a.to_string()).unwrap().position());
        }
    }
}
