//! Parameters after a header value (RFC 3261 §25.1).

use std::borrow::Cow;

use crate::sip::scan::{self, Cursor};

/// The parameters after a header value: `;name=value;name` (RFC 3261 §25.1, `generic-param`), checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Params<'a> {
    raw: &'a [u8],
}

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// Its name, which is compared without case.
    pub name: &'a str,
    /// Its value; a quoted one with its quotes, see [`super::unquote`].
    pub value: Option<&'a [u8]>,
}

impl<'a> Params<'a> {
    /// Reads parameters up to the end of the text.
    pub(in crate::sip) fn parse(raw: &'a [u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(raw);
        cursor.skip_lws();
        while !cursor.is_empty() {
            read(&mut cursor)?;
            cursor.skip_lws();
        }
        Ok(Self { raw })
    }

    /// As they are written, from the first semicolon on.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    /// All parameters in their order.
    pub fn iter(&self) -> impl Iterator<Item = Param<'a>> + Clone + use<'a> {
        self.pairs().filter_map(|(name, value)| Some(Param { name: scan::text(name)?, value }))
    }

    fn pairs(&self) -> impl Iterator<Item = Pair<'a>> + Clone + use<'a> {
        let mut cursor = Cursor::new(self.raw);
        std::iter::from_fn(move || read(&mut cursor).ok())
    }

    /// The first parameter of this name.
    pub fn get(&self, name: &str) -> Option<Param<'a>> {
        let (name, value) = self.pairs().find(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()))?;
        Some(Param { name: scan::text(name)?, value })
    }

    /// Whether there is a parameter of this name, with a value or without.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value of a parameter that is a token or a host; `None` without value, or if it is not UTF-8.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        scan::text(self.get(name)?.value?)
    }

    /// The value of a parameter without quotes and escapes.
    pub fn unquoted(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.get(name)?.value.map(scan::unquote)
    }
}

/// Name and value.
type Pair<'a> = (&'a [u8], Option<&'a [u8]>);

/// Reads one `;name[=value]`.
fn read<'a>(cursor: &mut Cursor<'a>) -> Result<Pair<'a>, &'static str> {
    if !cursor.separator(b';') {
        return Err("something other than a parameter follows its value");
    }
    let name = cursor.token().ok_or("a parameter has no name")?;
    let value = if cursor.separator(b'=') {
        Some(cursor.value().ok_or("a parameter's value is empty or its quotes are not closed")?)
    } else {
        None
    };
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_and_folds_may_stand_around_separators() {
        let params = Params::parse(b" ; A = 1;b\r\n =\r\n\t\"x;\\\"y\" ;lone").unwrap();
        let names = params.iter().map(|param| param.name).collect::<Vec<_>>();
        assert_eq!(names, ["A", "b", "lone"]);
        assert_eq!(params.text("a"), Some("1"));
        assert_eq!(params.unquoted("B").as_deref(), Some(b"x;\"y".as_slice()));
        assert!(params.has("lone") && params.text("lone").is_none() && !params.has("x"));
    }

    #[test]
    fn what_is_no_parameter_is_refused() {
        for wrong in
            [";", ";;a", "a", ";a=", ";=a", ";a=\"b", ";a b", ";a=b c", ";a=<b>", ";a=b,c", "; a=b;", ";a=\"b\"c"]
        {
            assert!(Params::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
