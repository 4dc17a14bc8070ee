//! Header fields: their names, and typed views of the values that proxies and user agents read.
//!
//! A view borrows from the message and has been checked against the grammar of RFC 3261 §25.1 when it exists. White
//! space and folds are taken wherever the grammar has them.

mod address;
mod auth;
mod cseq;
mod name;
mod params;
mod value;
mod via;

pub use address::{Contact, NameAddr};
pub use auth::{Challenge, Credentials};
pub use cseq::CSeq;
pub use name::Name;
pub(in crate::sip) use name::{OTHER, code_of};
pub use params::{Param, Params};
pub use value::{Event, MediaType, RetryAfter};
pub use via::Via;

use super::scan;
pub use super::scan::{unfold, unquote};

/// One header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The field's name, whichever form it was written in.
    pub name: Name<'a>,
    /// The name as it was written.
    pub written: &'a [u8],
    /// The value without white space around it; folds are still in it, see [`unfold`].
    pub value: &'a [u8],
}

impl<'a> Header<'a> {
    /// The line's single values: the elements if the field is a comma list, else the value.
    pub fn values(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        Elements::new(self.value, self.name.is_list())
    }
}

/// The elements of a comma list. Of an empty value none; between two commas an empty one.
#[derive(Debug, Clone)]
pub(in crate::sip) struct Elements<'a> {
    rest: Option<&'a [u8]>,
    list: bool,
}

impl<'a> Elements<'a> {
    pub(in crate::sip) const fn new(value: &'a [u8], list: bool) -> Self {
        Self { rest: if value.is_empty() && list { None } else { Some(value) }, list }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let value = self.rest.take()?;
        if !self.list {
            return Some(value);
        }
        let (element, rest) = value.split_at(scan::element_len(value));
        self.rest = rest.strip_prefix(b",");
        Some(scan::trim(element))
    }
}
