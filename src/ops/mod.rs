//! The use cases, one a file: each takes a validated request, reports what happens, and returns a serialisable
//! outcome. The command line renders; nothing here prints.

pub mod access;
pub mod discover;
pub mod enroll;
mod error;
pub mod flow;
pub mod inspect;
pub mod join;
pub mod locate;
pub mod lookup;
pub mod outcome;
pub mod pin;
mod race;
pub mod register;
mod view;

pub use access::{Access, Family, ViaChoice};
pub use error::OpsError;
