//! P2PSIP overlays that interwork with conventional SIP networks (draft-marocco-p2psip-interwork-01).

pub mod cli;
pub mod client;
pub mod clock;
pub mod dns;
pub mod identity;
pub mod kind;
pub mod lab;
pub mod member;
pub mod name;
pub mod ops;
pub mod overlay;
pub mod record;
