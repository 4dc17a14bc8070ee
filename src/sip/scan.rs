//! The lexical rules that all of SIP shares (RFC 3261 §25.1): tokens, linear white space, quoted strings, lists.

use std::borrow::Cow;

const TOKEN: u8 = 1;
const LWS: u8 = 2;
const VALUE: u8 = 4;

/// What each octet may be part of.
const CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut octet = 0_u8;
    while octet < 127 {
        let class = match octet {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => TOKEN | VALUE,
            b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~' => TOKEN | VALUE,
            b' ' | b'\t' | b'\r' | b'\n' => LWS,
            b'"' | b',' | b';' | b'<' | b'>' | b'\\' => 0,
            b'!'..=b'~' => VALUE,
            _ => 0,
        };
        classes[octet as usize] = class;
        octet += 1;
    }
    classes
}

/// Whether an octet may be part of a token.
pub const fn is_token(octet: u8) -> bool {
    CLASS[octet as usize] & TOKEN != 0
}

/// Whether an octet is linear white space. In a header value CR and LF occur only in folds, which count as a space.
pub const fn is_lws(octet: u8) -> bool {
    CLASS[octet as usize] & LWS != 0
}

/// Whether an octet may be part of an unquoted parameter value: token, host, IPv6 reference, and what phones put
/// into branches and tags all the same.
const fn is_value(octet: u8) -> bool {
    CLASS[octet as usize] & VALUE != 0
}

/// Whether all of a text is one token.
pub fn is_token_text(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|octet| is_token(*octet))
}

/// Without linear white space at both ends.
pub fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|octet| !is_lws(*octet)).unwrap_or(text.len());
    let end = text.iter().rposition(|octet| !is_lws(*octet)).map_or(start, |at| at + 1);
    text.get(start..end).unwrap_or_default()
}

/// The text of octets that are UTF-8.
pub fn text(octets: &[u8]) -> Option<&str> {
    std::str::from_utf8(octets).ok()
}

/// What stands before and after the first such octet, an ASCII one. A plain loop: the texts are short, and a search for
/// any `char` takes longer to begin than they take to read.
pub fn split_once(text: &str, octet: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|other| other == octet)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// A decimal number of digits alone, leading zeros allowed; what does not fit is the largest number.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// The length of the quoted string that a text begins with, both quotes included; `None` if it is not closed.
pub fn quoted_len(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The content of a quoted string, its escapes taken away; any other text as it is.
pub fn unquote(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(text);
    };
    if memchr::memchr(b'\\', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut octets = inner.iter();
    while let Some(octet) = octets.next() {
        plain.push(if *octet == b'\\' { *octets.next().unwrap_or(octet) } else { *octet });
    }
    Cow::Owned(plain)
}

/// A header value with each fold as the one space it means (RFC 3261 §7.3.1).
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut flat: Vec<u8> = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memchr::memchr(b'\r', rest) {
        let (line, fold) = rest.split_at(at);
        let kept = line.iter().rposition(|octet| !is_lws(*octet)).map_or(0, |at| at + 1);
        flat.extend_from_slice(line.get(..kept).unwrap_or_default());
        flat.push(b' ');
        let blank = fold.iter().position(|octet| !is_lws(*octet)).unwrap_or(fold.len());
        rest = fold.get(blank..).unwrap_or_default();
    }
    flat.extend_from_slice(rest);
    Cow::Owned(flat)
}

/// Where the first element of a comma list ends: at the first comma outside of quotes and angle brackets.
///
/// A quote or bracket that is not closed reaches to the end, and whoever parses that element refuses it.
pub fn element_len(list: &[u8]) -> usize {
    let mut at = 0;
    while let Some(step) = list.get(at..).and_then(|rest| memchr::memchr3(b',', b'"', b'<', rest)) {
        at += step;
        let rest = list.get(at..).unwrap_or_default();
        let inside = match rest.first() {
            Some(b'"') => quoted_len(rest),
            Some(b'<') => memchr::memchr(b'>', rest).map(|end| end + 1),
            _ => return at,
        };
        match inside {
            Some(length) => at += length,
            None => return list.len(),
        }
    }
    list.len()
}

/// Reads a header value from left to right.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub fn skip_lws(&mut self) {
        while let Some((octet, rest)) = self.rest.split_first() {
            if !is_lws(*octet) {
                return;
            }
            self.rest = rest;
        }
    }

    /// Reads one octet if it is this one.
    pub fn eat(&mut self, octet: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == octet => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Reads a separator with the white space that RFC 3261 §25.1 allows around it.
    pub fn separator(&mut self, octet: u8) -> bool {
        let before = *self;
        self.skip_lws();
        let found = self.eat(octet);
        if found {
            self.skip_lws();
        } else {
            *self = before;
        }
        found
    }

    /// Reads `length` octets, or all that are left.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|octet| !belongs(*octet)).unwrap_or(self.rest.len());
        self.take(length)
    }

    /// Reads a token; `None` if there is none.
    pub fn token(&mut self) -> Option<&'a [u8]> {
        Some(self.take_while(is_token)).filter(|token| !token.is_empty())
    }

    /// Reads a token for who keeps it as text.
    pub fn token_text(&mut self) -> Option<&'a str> {
        text(self.token()?)
    }

    /// Reads a parameter's value, quoted (and then with its quotes) or not.
    pub fn value(&mut self) -> Option<&'a [u8]> {
        if self.peek() == Some(b'"') {
            let length = quoted_len(self.rest)?;
            return Some(self.take(length));
        }
        Some(self.take_while(is_value)).filter(|value| !value.is_empty())
    }
}

/// The length of the comment that a text begins with, both parentheses included; comments nest (RFC 3261 §25.1).
pub fn comment_len(text: &[u8]) -> Option<usize> {
    let (mut depth, mut escaped) = (0_usize, false);
    for (at, octet) in text.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' if depth <= 1 => return (depth == 1).then_some(at + 1),
            b')' => depth -= 1,
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_at_bare_commas_only() {
        for (list, first) in [
            ("a, b", "a"),
            (r#""x, \", y" <sip:a,b@c>;p="q,r", z"#, r#""x, \", y" <sip:a,b@c>;p="q,r""#),
            (", a", ""),
            ("a", "a"),
            (r#""open, b"#, r#""open, b"#),
            ("<open, b", "<open, b"),
        ] {
            assert_eq!(&list[..element_len(list.as_bytes())], first);
        }
    }

    #[test]
    fn quotes_and_folds_are_undone() {
        assert_eq!(unquote(br#""a \"b\\""#), br#"a "b\"#.as_slice());
        assert_eq!(unquote(b"plain"), b"plain".as_slice());
        assert_eq!(unquote(b"\""), b"\"".as_slice());
        assert_eq!(unfold(b"a \r\n\t b\r\n c"), b"a b c".as_slice());
        assert_eq!(quoted_len(br#""a\""#), None);
        assert_eq!(quoted_len(br#""a\\" b"#), Some(5));
        assert_eq!(comment_len(br"(a (b) \) c) d"), Some(12));
        assert_eq!(comment_len(b"(a (b)"), None);
    }

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!(number(b"0068"), Some(68));
        assert_eq!(number(b"99999999999999999999999"), Some(u64::MAX));
        for wrong in ["", "-1", "+1", " 1", "1.0", "0x1"] {
            assert_eq!(number(wrong.as_bytes()), None);
        }
    }
}
