//! The overlay: how a member finds the peers responsible for a name, stores records there and reads them back.
//!
//! The protocol itself is sans-IO: [`walk`] finds the peers closest to a position, and whoever drives it brings the
//! messages, the clock and the limits.

pub mod persist;
pub mod storer;
pub mod walk;
