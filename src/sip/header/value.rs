//! Header values that have no file of their own: Event, Content-Type, Retry-After.

use super::Params;
use crate::sip::scan::{self, Cursor};

/// Event: what a subscription is for (RFC 6665 §8.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The package with its templates, compared by case.
    pub package: &'a str,
    /// Among others `id`.
    pub params: Params<'a>,
}

impl<'a> Event<'a> {
    /// Reads the value of Event.
    pub(in crate::sip) fn parse(value: &'a [u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(value);
        let package = cursor.token_text().ok_or("it names no event package")?;
        Ok(Self { package, params: Params::parse(cursor.rest())? })
    }
}

/// Content-Type: what the body is (RFC 3261 §20.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// As `application`; compared without case.
    pub kind: &'a str,
    /// As `sdp`; compared without case.
    pub subtype: &'a str,
    /// Among others `boundary`.
    pub params: Params<'a>,
}

impl<'a> MediaType<'a> {
    /// Reads the value of Content-Type.
    pub(in crate::sip) fn parse(value: &'a [u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(value);
        let kind = cursor.token_text().ok_or("it names no type")?;
        if !cursor.separator(b'/') {
            return Err("no '/' follows the type");
        }
        let subtype = cursor.token_text().ok_or("it names no subtype")?;
        Ok(Self { kind, subtype, params: Params::parse(cursor.rest())? })
    }

    /// Whether it is this type and subtype, whatever the parameters.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }
}

/// Retry-After: when to ask again (RFC 3261 §20.33).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter<'a> {
    /// In how many seconds.
    pub seconds: u32,
    /// Among others `duration`.
    pub params: Params<'a>,
}

impl<'a> RetryAfter<'a> {
    /// Reads the value of Retry-After; its comment is skipped.
    pub(in crate::sip) fn parse(value: &'a [u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(value);
        let seconds = cursor.token().and_then(scan::number).ok_or("it has no seconds")?;
        cursor.skip_lws();
        while cursor.peek() == Some(b'(') {
            let length = scan::comment_len(cursor.rest()).ok_or("its comment is not closed")?;
            cursor.take(length);
            cursor.skip_lws();
        }
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        Ok(Self { seconds, params: Params::parse(cursor.rest())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_are_read_with_their_parameters() {
        let event = Event::parse(b"presence.winfo ; id=7").unwrap();
        assert_eq!((event.package, event.params.text("id")), ("presence.winfo", Some("7")));
        let media = MediaType::parse(b"Multipart / Mixed;boundary=\"a;b\"").unwrap();
        assert!(media.is("multipart", "mixed"));
        assert_eq!(media.params.unquoted("boundary").as_deref(), Some(b"a;b".as_slice()));
        let later = RetryAfter::parse(b"18000 (I'm in (a) meeting) ;duration=3600").unwrap();
        assert_eq!((later.seconds, later.params.text("duration")), (18000, Some("3600")));
        assert!(RetryAfter::parse(b"soon").is_err() && RetryAfter::parse(b"5 (a").is_err());
        assert!(MediaType::parse(b"text").is_err() && Event::parse(b";id=1").is_err());
    }
}
