//! The server transaction of an INVITE: RFC 3261 §17.2.1 with the Accepted state of RFC 6026 §7.1.
//!
//! ```text
//!  INVITE: to the TU
//!        |
//!  +------------+ --no answer of the TU in 200 ms: send 100--> itself
//!  | Proceeding | --1xx of the TU: send--> itself
//!  +------------+ --INVITE: send the last 1xx--> itself
//!        |
//!        +-- 2xx of the TU: send; L --> Accepted  --2xx of the TU: send--> itself
//!        |                                        --INVITE: absorbed--> itself
//!        |                                        --ACK: tell--> itself
//!        |                                        --L--> Terminated
//!        +-- 300-699 of the TU: send; G (unreliable), H
//!        |
//!  +-----------+ --G, INVITE: send again--> itself
//!  | Completed | --H: tell--> Terminated
//!  +-----------+
//!        | ACK; I
//!  +-----------+
//!  | Confirmed | --I--> Terminated                absorbs ACKs and INVITEs
//!  +-----------+
//! ```
//!
//! A transport error is told to the TU and changes no state (RFC 6026 §7.1): the next retransmission may get through,
//! and if not, a timer ends the transaction. With a reliable transport I is zero.

use super::machine::{Context, Input, Packet, State, Step, Tell};
use super::timers::Timer;

/// An INVITE arrived that belongs to no transaction.
pub(super) fn start(context: Context<'_>) -> Step {
    let step = Step::enter(State::Proceeding);
    if context.timers.trying.is_zero() {
        step.send(Packet::Trying)
    } else {
        step.resend(Timer::Trying, context.timers.trying)
    }
}

/// What `input` does.
pub(super) fn step(state: State, input: Input, context: Context<'_>) -> Step {
    use State::{Accepted, Completed, Confirmed, Proceeding};

    let timers = context.timers;
    match (state, input) {
        (Proceeding | Completed, Input::Request) => Step::stay(state).send(Packet::Response),
        (Proceeding, Input::Fired(Timer::Trying)) => Step::stay(Proceeding).send(Packet::Trying),
        (Proceeding, Input::Provisional) => Step::stay(Proceeding).send(Packet::Response).resend_never(),
        (Proceeding, Input::Success) => {
            Step::enter(Accepted).send(Packet::Response).life(Timer::L, timers.transaction())
        }
        (Proceeding, Input::Failure) => {
            let step = Step::enter(Completed).send(Packet::Response).life(Timer::H, timers.transaction());
            if context.reliable { step } else { step.resend(Timer::G, timers.t1) }
        }
        (Proceeding | Completed | Accepted, Input::TransportError) => Step::stay(state).tell(Tell::TransportError),
        (Completed, Input::Fired(Timer::G)) => {
            let next = context.interval.saturating_mul(2).min(timers.t2);
            Step::stay(Completed).send(Packet::Response).resend(Timer::G, next)
        }
        (Completed, Input::Ack) if context.reliable => Step::end(),
        (Completed, Input::Ack) => Step::enter(Confirmed).life(Timer::I, timers.t4),
        (Completed, Input::Fired(Timer::H)) => Step::end().tell(Tell::Timeout),
        (Accepted, Input::Ack) => Step::stay(Accepted).tell(Tell::Ack),
        (Accepted, Input::Success) => Step::stay(Accepted).send(Packet::Response),
        (Confirmed, Input::Fired(Timer::I)) | (Accepted, Input::Fired(Timer::L)) => Step::end(),
        _ => Step::stay(state),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sip::transaction::machine::{Kind, table};
    use crate::sip::transaction::timers::Timers;

    #[test]
    fn every_transition_over_an_unreliable_transport() {
        assert_eq!(
            table(Kind::InviteServer, false),
            "start -> Proceeding; Trying in 200ms\n\
             Proceeding, Provisional -> same; send Response; resend stops\n\
             Proceeding, Success -> Accepted; send Response; L in 32s\n\
             Proceeding, Failure -> Completed; send Response; G in 500ms; H in 32s\n\
             Proceeding, Request -> same; send Response\n\
             Proceeding, TransportError -> same; tell TransportError\n\
             Proceeding, Trying fires -> same; send Trying\n\
             Completed, Request -> same; send Response\n\
             Completed, Ack -> Confirmed; I in 5s\n\
             Completed, TransportError -> same; tell TransportError\n\
             Completed, G fires -> same; send Response; G in 1s\n\
             Completed, H fires -> Terminated; tell Timeout\n\
             Confirmed, I fires -> Terminated\n\
             Accepted, Success -> same; send Response\n\
             Accepted, Ack -> same; tell Ack\n\
             Accepted, TransportError -> same; tell TransportError\n\
             Accepted, L fires -> Terminated"
        );
    }

    #[test]
    fn a_reliable_transport_needs_no_timer_g_and_no_confirmed_state() {
        let reliable = table(Kind::InviteServer, true);
        for line in [
            "Proceeding, Failure -> Completed; send Response; H in 32s",
            "Proceeding, Success -> Accepted; send Response; L in 32s",
            "Completed, Ack -> Terminated",
        ] {
            assert!(reliable.lines().any(|other| other == line), "{line} is not in\n{reliable}");
        }
    }

    #[test]
    fn timer_g_doubles_up_to_t2() {
        let timers = Timers::default();
        let mut interval = timers.t1;
        let mut seen = Vec::new();
        for _ in 0..5 {
            let context = Context { timers: &timers, reliable: false, interval };
            let step = step(State::Completed, Input::Fired(Timer::G), context);
            let crate::sip::transaction::machine::Change::Start(Timer::G, next) = step.resend else {
                panic!("{step:?}");
            };
            interval = next;
            seen.push(next.as_millis());
        }
        assert_eq!(seen, [1000, 2000, 4000, 4000, 4000]);
    }

    #[test]
    fn a_trying_delay_of_zero_says_100_at_once() {
        let timers = Timers { trying: Duration::ZERO, ..Timers::default() };
        let context = Context { timers: &timers, reliable: false, interval: timers.t1 };
        assert_eq!(start(context), Step::enter(State::Proceeding).send(Packet::Trying));
    }
}
