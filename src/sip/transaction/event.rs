//! What the layer says: what to send, and what the transaction user is to know.

use bytes::Bytes;

use crate::sip::{
    Message,
    transport::{Hop, Source},
};

/// A client transaction. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(super) Id);

/// A server transaction. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub(super) Id);

/// A place in the table and how often it was given away before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub slot: u32,
    pub generation: u32,
}

/// How many places a table has, so that a [`Token`] has room for its shard: one less than 24 bits can name.
pub(super) const MAX_SLOTS: u32 = (1 << 24) - 1;

/// Whose message it is that is sent: [`Layer::transport_failed`](super::Layer::transport_failed) takes it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    shard: u8,
    pub(super) id: Option<Id>,
}

impl Token {
    /// Of a message that no transaction sends; its failure concerns nobody.
    pub const STATELESS: Self = Self { shard: 0, id: None };

    pub(super) const fn new(shard: u8, id: Id) -> Self {
        Self { shard, id: Some(id) }
    }

    /// The [shard](super::Config::shard) of the layer that sent it.
    pub const fn shard(self) -> u8 {
        self.shard
    }

    /// The token as a number, for transports that know only numbers.
    pub const fn number(self) -> u64 {
        match self.id {
            Some(id) => (self.shard as u64) << 56 | (id.slot as u64) << 32 | id.generation as u64,
            None => u64::MAX,
        }
    }

    /// The token of a number that [`Token::number`] made.
    pub const fn of_number(number: u64) -> Self {
        match number {
            u64::MAX => Self::STATELESS,
            number => {
                let id = Id { slot: (number >> 32) as u32 & (1 << 24) - 1, generation: number as u32 };
                Self { shard: (number >> 56) as u8, id: Some(id) }
            }
        }
    }
}

/// What the layer wants done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send these octets.
    Send {
        /// Where to.
        to: Hop,
        /// One message.
        bytes: Bytes,
        /// What to say if that fails.
        token: Token,
    },
    /// Tell the transaction user.
    Event(Event),
}

/// What happened to a transaction, or outside of any.
#[derive(Debug, Clone)]
pub enum Event {
    /// A new request. Answer it with [`Layer::respond`](super::Layer::respond).
    Request {
        /// Its transaction.
        server: ServerId,
        /// The request.
        message: Message,
        /// Where it came from.
        source: Source,
        /// Whether it is another copy of a request that arrived by another path: a UAS answers 482
        /// (RFC 3261 §8.2.2.2). Only with [`Config::detect_merged`](super::Config::detect_merged).
        merged: bool,
    },
    /// A CANCEL of an INVITE that we know. Answer it with 200, and the INVITE with 487 if it has no final response
    /// (RFC 3261 §9.2).
    Cancel {
        /// The transaction of the CANCEL itself.
        server: ServerId,
        /// The transaction of the INVITE.
        invite: ServerId,
        /// The CANCEL.
        message: Message,
        /// Where it came from.
        source: Source,
    },
    /// A CANCEL of what we do not know, and no transaction for it: a proxy forwards it statelessly (RFC 3261 §16.10), a
    /// UAS answers 481 (§9.2), either with [`Layer::send`](super::Layer::send).
    StrayCancel {
        /// The CANCEL.
        message: Message,
        /// Where it came from.
        source: Source,
    },
    /// An ACK of a 2xx response, or of one that was sent statelessly. A proxy forwards it (RFC 3261 §16.6), a UAS finds
    /// its dialog by it.
    Ack {
        /// The INVITE's transaction, if the ACK has its branch although it should have one of its own.
        invite: Option<ServerId>,
        /// The ACK.
        message: Message,
        /// Where it came from.
        source: Source,
    },
    /// A response: provisional ones, the final one, and of an INVITE every 2xx, its retransmissions included.
    Response {
        /// The request's transaction.
        client: ClientId,
        /// The response.
        message: Message,
        /// Where it came from.
        source: Source,
    },
    /// A response to no request of ours, or too late. Nobody may forward it (RFC 6026 §8.9), but a 2xx to an INVITE
    /// that outlived its transaction may be of interest.
    StrayResponse {
        /// The response.
        message: Message,
        /// Where it came from.
        source: Source,
    },
    /// A request for which there is no room, and no transaction for it: answer 503 with [`Layer::send`](super::Layer::send).
    Overload {
        /// The request; neither ACK nor CANCEL.
        message: Message,
        /// Where it came from.
        source: Source,
    },
    /// Nobody answered in time: as a 408 (RFC 3261 §8.1.3.1). The transaction has ended.
    Timeout {
        /// The request's transaction.
        client: ClientId,
    },
    /// The request, or the ACK of its final response, could not be sent: as a 503 (RFC 3261 §8.1.3.1). The transaction
    /// has ended.
    TransportError {
        /// The request's transaction.
        client: ClientId,
    },
    /// The time that was set with [`Layer::set_deadline`](super::Layer::set_deadline) has come, without a final response.
    Deadline {
        /// The request's transaction.
        client: ClientId,
    },
    /// A failure response to an INVITE was never acknowledged (timer H). The transaction has ended.
    NotAcknowledged {
        /// The INVITE's transaction.
        server: ServerId,
    },
    /// A response could not be sent.
    ResponseFailed {
        /// The request's transaction.
        server: ServerId,
    },
    /// A client transaction is over; the last that is heard of it.
    ClientEnded {
        /// Which.
        client: ClientId,
    },
    /// A server transaction is over; the last that is heard of it. What a request that comes now gets is a new one.
    ServerEnded {
        /// Which.
        server: ServerId,
    },
}

/// How often things happened, since the layer began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Client transactions begun, CANCELs included.
    pub clients: u64,
    /// Server transactions begun.
    pub servers: u64,
    /// Requests and ACKs that we sent again.
    pub requests_resent: u64,
    /// Responses that we sent again.
    pub responses_resent: u64,
    /// Requests that came again, ACKs included.
    pub request_repeats: u64,
    /// Final responses that came again, 2xx of an INVITE included.
    pub response_repeats: u64,
    /// Requests that nobody answered.
    pub timeouts: u64,
    /// Failure responses that nobody acknowledged.
    pub not_acknowledged: u64,
    /// Messages of transactions that could not be sent.
    pub transport_errors: u64,
    /// Responses, CANCELs and ACKs without a transaction; ACKs of 2xx responses have none.
    pub strays: u64,
    /// Requests for which there was no room.
    pub refused: u64,
    /// Messages without a topmost Via that can be read.
    pub malformed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_after_having_been_a_number() {
        let last = Token::new(255, Id { slot: MAX_SLOTS - 1, generation: u32::MAX });
        for token in [Token::STATELESS, Token::new(0, Id { slot: 0, generation: 0 }), last] {
            assert_eq!(Token::of_number(token.number()), token);
        }
    }
}
