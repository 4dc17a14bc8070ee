//! The overlay itself: what its peers hold, how they find each other's records, and the network under it.

pub mod persist;
pub mod storer;
