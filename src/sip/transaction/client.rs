//! The client transaction of any request but INVITE and ACK: RFC 3261 §17.1.2.
//!
//! ```text
//!  request from TU: sent; E (unreliable), F
//!        |
//!   +--------+ --E: send again, next in min(2*E, T2)--> itself
//!   | Trying | --F, transport error: tell--> Terminated
//!   +--------+
//!        | 1xx: tell; E and F run on
//!  +------------+ --1xx: tell--> itself
//!  | Proceeding | --E: send again, next in T2--> itself
//!  +------------+ --F, transport error: tell--> Terminated
//!        |
//!        +-- 200-699: tell; K (from Trying too) --> Completed --K--> Terminated
//! ```
//!
//! With a reliable transport K is zero: at once to Terminated.

use super::machine::{Change, Context, Input, Packet, State, Step, Tell};
use super::timers::Timer;

/// The TU sends a request.
pub(super) fn start(context: Context<'_>) -> Step {
    let step = Step::enter(State::Trying).send(Packet::Request).life(Timer::F, context.timers.transaction());
    if context.reliable { step } else { step.resend(Timer::E, context.timers.t1) }
}

/// What `input` does.
pub(super) fn step(state: State, input: Input, context: Context<'_>) -> Step {
    use State::{Completed, Proceeding, Trying};

    let timers = context.timers;
    match (state, input) {
        (Trying, Input::Fired(Timer::E)) => {
            let next = context.interval.saturating_mul(2).min(timers.t2);
            Step::stay(Trying).send(Packet::Request).resend(Timer::E, next)
        }
        (Proceeding, Input::Fired(Timer::E)) => {
            Step::stay(Proceeding).send(Packet::Request).resend(Timer::E, timers.t2)
        }
        (Trying | Proceeding, Input::Fired(Timer::F)) => Step::end().tell(Tell::Timeout),
        (Trying | Proceeding, Input::TransportError) => Step::end().tell(Tell::TransportError),
        (Trying | Proceeding, Input::Provisional) => {
            Step { resend: Change::Keep, life: Change::Keep, ..Step::enter(Proceeding) }.tell(Tell::Response)
        }
        (Trying | Proceeding, Input::Success | Input::Failure) => {
            let step = if context.reliable { Step::end() } else { Step::enter(Completed).life(Timer::K, timers.t4) };
            step.tell(Tell::Response)
        }
        (Completed, Input::Fired(Timer::K)) => Step::end(),
        _ => Step::stay(state),
    }
}

#[cfg(test)]
mod tests {
    use crate::sip::transaction::machine::{Kind, table};

    #[test]
    fn every_transition_over_an_unreliable_transport() {
        assert_eq!(
            table(Kind::Client, false),
            "start -> Trying; send Request; E in 500ms; F in 32s\n\
             Trying, Provisional -> Proceeding; tell Response; resend runs on; life runs on\n\
             Trying, Success -> Completed; tell Response; K in 5s\n\
             Trying, Failure -> Completed; tell Response; K in 5s\n\
             Trying, TransportError -> Terminated; tell TransportError\n\
             Trying, E fires -> same; send Request; E in 1s\n\
             Trying, F fires -> Terminated; tell Timeout\n\
             Proceeding, Provisional -> same; tell Response\n\
             Proceeding, Success -> Completed; tell Response; K in 5s\n\
             Proceeding, Failure -> Completed; tell Response; K in 5s\n\
             Proceeding, TransportError -> Terminated; tell TransportError\n\
             Proceeding, E fires -> same; send Request; E in 4s\n\
             Proceeding, F fires -> Terminated; tell Timeout\n\
             Completed, K fires -> Terminated"
        );
    }

    #[test]
    fn a_reliable_transport_needs_no_timer_e_and_no_completed_state() {
        let reliable = table(Kind::Client, true);
        assert!(reliable.starts_with("start -> Trying; send Request; F in 32s\n"), "{reliable}");
        for line in [
            "Trying, Success -> Terminated; tell Response",
            "Trying, Failure -> Terminated; tell Response",
            "Proceeding, Success -> Terminated; tell Response",
            "Proceeding, Failure -> Terminated; tell Response",
        ] {
            assert!(reliable.lines().any(|other| other == line), "{line} is not in\n{reliable}");
        }
    }
}
