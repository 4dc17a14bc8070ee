//! The parameters of a SIP URI (RFC 3261 §19.1.1).

use super::escape::{Part, is_escaped};
use crate::sip::scan;

/// The parameters of a SIP URI: `;name=value;name`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UriParams<'a>(&'a str);

impl<'a> UriParams<'a> {
    pub(super) fn parse(raw: &'a str) -> Result<Self, &'static str> {
        if !raw.is_empty() && !raw.starts_with(';') {
            return Err("its parameters do not begin with ';'");
        }
        for (name, value) in pairs(raw) {
            let empty = name.is_empty() || value.is_some_and(str::is_empty);
            if empty || !is_escaped(name, Part::Param) || !value.is_none_or(|value| is_escaped(value, Part::Param)) {
                return Err("a parameter is empty or has a character that must be escaped");
            }
        }
        Ok(Self(raw))
    }

    /// As they are written, from the first semicolon on.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }

    /// All parameters in their order, as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone + use<'a> {
        pairs(self.0)
    }

    /// The value of the first parameter of this name; `None` also if it has none.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).and_then(|(_, value)| value)
    }

    /// Whether there is a parameter of this name, with a value or without.
    pub fn has(&self, name: &str) -> bool {
        self.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
    }
}

fn pairs<'a>(params: &'a str) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone + use<'a> {
    let mut rest = params.strip_prefix(';');
    std::iter::from_fn(move || {
        let params = rest?;
        let (param, after) =
            scan::split_once(params, b';').map_or((params, None), |(param, after)| (param, Some(after)));
        rest = after;
        Some(scan::split_once(param, b'=').map_or((param, None), |(name, value)| (name, Some(value))))
    })
}
