//! The use cases, one a file: each takes a validated request, reports what happens, and returns a serialisable
//! outcome. The command line renders; nothing here prints.

pub mod access;
pub mod answer;
pub mod call;
pub mod discover;
pub mod enroll;
mod error;
mod finder;
pub mod flow;
mod inside;
pub mod inspect;
pub mod invite;
pub mod join;
pub mod locate;
pub mod lookup;
pub mod outcome;
mod phone;
pub mod pin;
mod presence;
mod probe;
pub mod public;
pub mod publish;
mod race;
pub mod register;
pub mod softphone;
mod view;

pub use access::{Access, Family, ViaChoice};
pub use error::OpsError;
pub use phone::CaptureRequest;
