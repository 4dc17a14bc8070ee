//! The records of an overlay: what a user's or a service's binding says, how it is signed, who may store it, and how
//! the records of one name are merged.
//!
//! Pure: no sockets, no files; the time comes in as an argument.

mod refusal;

pub use refusal::Refusal;
