//! The overlay: how a member finds the peers responsible for a name, stores records there and reads them back.
//!
//! The protocol itself is sans-IO: [`walk`] finds the peers closest to a position, [`lookup`] and [`placement`] drive
//! it to read and to write, and a [`storer`] answers for what a peer holds. Whoever drives them brings the messages,
//! the clock and the limits.

pub mod lookup;
pub mod persist;
pub mod placement;
pub mod storer;
pub mod walk;
