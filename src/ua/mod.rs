//! A SIP user agent (RFC 3261 §8, §10, §12–§15): places test calls and answers them, and registers with registrars.
//!
//! Sans-IO. [`Agent`] owns the transactions and all calls; a driver hands it messages, the time, and where next hops are,
//! and does what [`Agent::poll_output`] says. What a call does is in [`Call`](call) and [`Answer`](answer), what a
//! binding at a registrar does in [`Registration`](register), each a machine of its own that knows neither transactions
//! nor transports.
//!
//! No media flows: the session description says `inactive` (see [`crate::media::sdp`]).

mod agent;
mod answer;
mod call;
mod contact;
mod register;
mod session;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;

pub use self::{
    agent::{Agent, AgentConfig, LocateId, Output, Way},
    answer::AnswerPlan,
    call::CallPlan,
    register::{Binding, RegisterEvent, RegisterFault, RegisterPlan, registrar_of},
};
use crate::sip::{Message, transaction::ServerId};

/// What this user agent understands, for Allow.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS";
/// The type of session descriptions.
const SDP: &str = "application/sdp";

/// A call, or a binding at a registrar, of an [`Agent`]. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This user agent.
    Us,
    /// The other side.
    Them,
}

/// Why a request came to nothing without a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody answered in time at any next hop.
    #[error("no response")]
    Timeout,
    /// It could not be sent to any next hop.
    #[error("{0}")]
    Transport(String),
    /// No next hop was found.
    #[error("{0}")]
    NotLocated(String),
    /// A digest challenge that cannot be met.
    #[error("{0}")]
    Challenge(#[from] crate::sip::digest::DigestError),
    /// The answer cannot be worked with.
    #[error("{0}")]
    Malformed(String),
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A call came in, and is being worked on.
    Incoming {
        /// From whom: the URI of From.
        from: String,
        /// For whom: the Request-URI.
        uri: String,
        /// The Call-ID.
        call_id: String,
    },
    /// A provisional response above 100 came, or was sent.
    Progress {
        /// 101 to 199.
        status: u16,
        /// Its reason phrase.
        reason: String,
    },
    /// The call is on: a 2xx came, or was acknowledged.
    Answered {
        /// The other side's Contact.
        contact: String,
    },
    /// The INVITE has a final response that is no 2xx.
    Rejected {
        /// 300 to 699.
        status: u16,
        /// Its reason phrase.
        reason: String,
    },
    /// The INVITE came to nothing.
    Failed(Failure),
    /// The call was given up before it was answered.
    Cancelled(Side),
    /// A re-INVITE of ours has this final response.
    Reinvited {
        /// 200 to 699.
        status: u16,
    },
    /// The other side has sent a re-INVITE, which was accepted.
    Refreshed,
    /// A call that was on is over.
    Ended {
        /// Who ended it.
        by: Side,
        /// Why, if it did not end in good order.
        fault: Option<String>,
    },
}

impl Event {
    /// Whether nothing follows.
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Rejected { .. } | Self::Failed(_) | Self::Cancelled(_) | Self::Ended { .. })
    }
}

/// What requests of ours are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Invite,
    Reinvite,
    Bye,
    /// The BYE of a second 2xx, of which nobody waits for an answer.
    Surplus,
    Register,
}

/// What a call wants done.
#[derive(Debug)]
enum Action {
    /// Send a request in a transaction.
    Request { purpose: Purpose, request: Message, next_hop: NextHop },
    /// Send the ACK of a 2xx.
    Ack { request: Message, next_hop: String },
    /// Send the last ACK once more.
    AckAgain,
    /// Cancel the INVITE.
    Cancel,
    /// Answer a request.
    Respond { server: ServerId, bytes: Bytes },
    /// Tell the user. After the last event the call is gone.
    Event(Event),
    /// Tell the user what has become of a binding.
    Registration(RegisterEvent),
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NextHop {
    /// Where the agent's outbound proxy is, or else this URI.
    Outbound(String),
    /// Where this URI is: requests in a dialog follow its route set.
    Uri(String),
}

/// How long and how often to repeat what is not acknowledged (RFC 3261 §13.3.1.4).
#[derive(Debug, Clone, Copy)]
struct Pace {
    t1: Duration,
    t2: Duration,
}
