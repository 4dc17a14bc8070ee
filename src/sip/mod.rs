//! SIP (RFC 3261), and nothing of the overlay: messages, transactions, transports.

pub mod transport;
