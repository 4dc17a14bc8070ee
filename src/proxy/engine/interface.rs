//! What an engine is told, asks and answers.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    name::{Aor, InstanceId, PeerId},
    proxy::{
        fork::{Health, Patience, Target},
        route::{Instance, Realm},
        throttle::Rate,
    },
    sip::{
        Message,
        transaction::{self, ServerId, Token},
        transport::{Hop, Remote},
    },
};

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it answers to.
    pub realm: Realm,
    /// This process's peer id, which is its sent-by on overlay streams.
    pub peer: PeerId,
    /// The transactions.
    pub transactions: transaction::Config,
    /// How long to wait for what.
    pub patience: Patience,
    /// How much one source may send.
    pub rate: Rate,
}

/// A question to the driver. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    shard: u8,
    number: u64,
}

impl Question {
    /// The question of an engine's shard with this number.
    pub(crate) const fn new(shard: u8, number: u64) -> Self {
        Self { shard, number }
    }

    /// The [shard](transaction::Config::shard) of the engine that asks.
    pub const fn shard(self) -> u8 {
        self.shard
    }
}

/// What is to be located.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The contacts of a user of the overlay.
    User {
        /// The user.
        aor: Aor,
        /// The only instance that will do, if one is asked for.
        instance: Option<Instance>,
        /// Who asks for the user, to be charged for a lookup.
        source: Remote,
    },
    /// The servers of a URI, by RFC 3263.
    Uri {
        /// The URI.
        uri: Arc<str>,
        /// Whether only TLS will do.
        secure: bool,
    },
    /// Proxy peers other than this one.
    Proxy,
}

/// What was located.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// A user's contacts: groups that are tried one after the other.
    Groups(Vec<Vec<Target>>),
    /// A URI's servers, in the order in which they are tried.
    Hops(Vec<Hop>),
    /// Nothing: what to answer instead.
    Nowhere {
        /// The status.
        status: u16,
        /// The reason phrase.
        reason: &'static str,
    },
}

/// What the engine wants done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send these octets; if that fails, say [`Engine::transport_failed`](super::Engine::transport_failed).
    Send {
        /// Where to.
        to: Hop,
        /// One message.
        bytes: Bytes,
        /// What to say if it fails.
        token: Token,
    },
    /// Find out where a request goes: [`Engine::located`](super::Engine::located).
    Locate {
        /// The question.
        question: Question,
        /// What is to be located.
        what: What,
    },
    /// Remember how a server of the public network does.
    Learned {
        /// The server.
        hop: Hop,
        /// How it does.
        health: Health,
    },
    /// Find out whose peer the sender of a request is: [`Engine::identified`](super::Engine::identified).
    Identify {
        /// The question.
        question: Question,
        /// The peer.
        peer: PeerId,
        /// The user that it claims to be, if any.
        claimed: Option<Aor>,
    },
    /// A gatekeeper's probe has come: the value of its header.
    Probed(Vec<u8>),
    /// Answer a REGISTER: [`Engine::respond`](super::Engine::respond). Only a [domain's](super::Engine::of_domain) engine says so.
    Register {
        /// Its transaction.
        server: ServerId,
        /// The request.
        message: Message,
    },
    /// Write the routing record of an adapter's phone, or take it out: [`Engine::published`](super::Engine::published).
    Publish {
        /// The phone.
        instance: InstanceId,
        /// Whether the phone is there.
        present: bool,
    },
}

/// How often things happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were passed on, once each, however often they forked.
    pub forwarded: u64,
    /// Those of them that may form a dialog and went to the public network, once for each server tried.
    pub outgoing: u64,
    /// Requests that were answered here, by status class: 1xx to 6xx (the first is unused).
    pub answered: [u64; 6],
    /// Requests refused because their source sends too many.
    pub throttled: u64,
    /// Requests refused for want of room, or because we are leaving.
    pub overloaded: u64,
    /// ACKs passed on without state.
    pub acks: u64,
    /// Messages dropped: responses nobody asked for, requests that cannot be read or answered.
    pub dropped: u64,
    /// Requests that came by a second time unchanged.
    pub loops: u64,
}
