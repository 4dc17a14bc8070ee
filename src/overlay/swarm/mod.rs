//! The driver of libp2p: one task owns the swarm, everybody else holds a [`Network`] and sends it commands.
//!
//! Members run the whole of it: identify to learn each other's addresses, connection limits, and the client protocol
//! both ways. A one-shot client runs nothing but the asking half of the client protocol. A user
//! agent is in between: it can be reached, but serves nobody. Each opens raw streams for SIP when asked to, and accepts
//! them once somebody reads them.

mod behaviour;
mod codec;
mod cork;
mod event_loop;
mod network;
mod redial;
mod streams;
mod transport;

pub use behaviour::CircuitLimits;
pub use network::{AskError, Bound, Network, NetworkConfig, NetworkError, Reached, Role, Traffic};
pub use streams::{IncomingStreams, PeerStream};
