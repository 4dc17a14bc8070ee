//! P2PSIP overlays that interwork with conventional SIP networks (draft-marocco-p2psip-interwork-01).

pub mod client;
pub mod clock;
pub mod identity;
pub mod kind;
pub mod name;
pub mod overlay;
pub mod record;
