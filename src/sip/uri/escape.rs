//! Which characters stand for themselves in each part of a SIP URI, and `%XX` for the others (RFC 3261 §25.1).

use std::borrow::Cow;

/// A text with its `%XX` escapes decoded.
pub fn unescape(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                plain.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            _ => plain.push(*first),
        }
    }
    Cow::Owned(plain)
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

/// A part of a SIP URI by what may stand in it unescaped, as a bit of [`CLASS`].
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Part {
    /// `user`, and `#`, which phones send as they dial it.
    User = 1,
    /// `password`.
    Password = 2,
    /// `paramchar`.
    Param = 4,
    /// `hnv-unreserved` and `unreserved`.
    Header = 8,
}

/// In which parts each octet stands for itself.
const CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let (user, password, param, header) =
        (Part::User as u8, Part::Password as u8, Part::Param as u8, Part::Header as u8);
    let mut classes = [0; 256];
    let mut octet = 0_u8;
    while octet < 127 {
        classes[octet as usize] = match octet {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => user | password | param | header,
            // `mark`: with letters and digits it makes `unreserved`.
            b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => user | password | param | header,
            b'+' | b'$' => user | password | param | header,
            b'&' => user | password | param,
            b'=' | b',' => user | password,
            b'/' => user | param | header,
            b'?' => user | header,
            b';' | b'#' => user,
            b'[' | b']' | b':' => param | header,
            _ => 0,
        };
        octet += 1;
    }
    classes
}

/// Whether a text has only octets that may stand in this part, and well-formed escapes.
pub(super) fn is_escaped(text: &str, part: Part) -> bool {
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let good = CLASS[usize::from(octet)] & part as u8 != 0
            || octet == b'%'
                && octets.next().is_some_and(|digit| digit.is_ascii_hexdigit())
                && octets.next().is_some_and(|digit| digit.is_ascii_hexdigit());
        if !good {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_the_characters_of_its_rule() {
        let rules = [
            (Part::User, "-_.!~*'()&=+$,;?/#"),
            (Part::Password, "-_.!~*'()&=+$,"),
            (Part::Param, "-_.!~*'()[]/:&+$"),
            (Part::Header, "-_.!~*'()[]/?:+$"),
        ];
        for (part, rule) in rules {
            for octet in (0..=u8::MAX).filter(u8::is_ascii).map(char::from) {
                let allowed = octet.is_ascii_alphanumeric() || rule.contains(octet);
                assert_eq!(is_escaped(&octet.to_string(), part), allowed, "{part:?} {octet:?}");
            }
            assert!(is_escaped("a%2fB%C3", part) && is_escaped("", part));
            for wrong in ["%", "%2", "%2g", "%%20", "\u{e9}"] {
                assert!(!is_escaped(wrong, part), "{part:?} {wrong}");
            }
        }
    }
}
