//! The server transaction of any request but INVITE and ACK: RFC 3261 §17.2.2 with RFC 4320 §4.
//!
//! ```text
//!  request: to the TU
//!        |
//!   +--------+ --request: absorbed--> itself
//!   | Trying | --64*T1 pass--> Terminated
//!   +--------+
//!        | the TU is silent until a client's E is T2 (3.5 s): send 100
//!  +------------+ --request: send the 100--> itself
//!  | Proceeding | --64*T1 since the request; transport error: tell--> Terminated
//!  +------------+
//!        |
//!        +-- 200-699 of the TU: send; J (from Trying too) --> Completed
//!                     --request: send again--> itself
//!                     --J; transport error: tell--> Terminated
//! ```
//!
//! The only provisional response is 100, and on an unreliable transport not before 3.5 s (RFC 4320 §4.1). After 64*T1
//! the client has given up: nothing is sent, a 408 least of all (§4.2). With a reliable transport J is zero.

use super::machine::{Change, Context, Input, Packet, State, Step, Tell};
use super::timers::Timer;

/// A request arrived that belongs to no transaction.
pub(super) fn start(context: Context<'_>) -> Step {
    Step::enter(State::Trying)
        .resend(Timer::Trying, context.timers.trying_other())
        .life(Timer::Stale, context.timers.transaction())
}

/// What `input` does.
pub(super) fn step(state: State, input: Input, context: Context<'_>) -> Step {
    use State::{Completed, Proceeding, Trying};

    let proceed = Step { life: Change::Keep, ..Step::enter(Proceeding) };
    match (state, input) {
        (Trying, Input::Fired(Timer::Trying)) => proceed.send(Packet::Trying),
        (Trying | Proceeding, Input::Provisional) => proceed.send(Packet::Response),
        (Trying | Proceeding, Input::Success | Input::Failure) => {
            let j = context.timers.transaction();
            let step = if context.reliable { Step::end() } else { Step::enter(Completed).life(Timer::J, j) };
            step.send(Packet::Response)
        }
        (Trying | Proceeding, Input::Fired(Timer::Stale)) | (Completed, Input::Fired(Timer::J)) => Step::end(),
        (Proceeding | Completed, Input::Request) => Step::stay(state).send(Packet::Response),
        (Proceeding | Completed, Input::TransportError) => Step::end().tell(Tell::TransportError),
        _ => Step::stay(state),
    }
}

#[cfg(test)]
mod tests {
    use crate::sip::transaction::machine::{Kind, table};

    #[test]
    fn every_transition_over_an_unreliable_transport() {
        assert_eq!(
            table(Kind::Server, false),
            "start -> Trying; Trying in 3.5s; Stale in 32s\n\
             Trying, Provisional -> Proceeding; send Response; life runs on\n\
             Trying, Success -> Completed; send Response; J in 32s\n\
             Trying, Failure -> Completed; send Response; J in 32s\n\
             Trying, Trying fires -> Proceeding; send Trying; life runs on\n\
             Trying, Stale fires -> Terminated\n\
             Proceeding, Provisional -> same; send Response; resend stops\n\
             Proceeding, Success -> Completed; send Response; J in 32s\n\
             Proceeding, Failure -> Completed; send Response; J in 32s\n\
             Proceeding, Request -> same; send Response\n\
             Proceeding, TransportError -> Terminated; tell TransportError\n\
             Proceeding, Stale fires -> Terminated\n\
             Completed, Request -> same; send Response\n\
             Completed, TransportError -> Terminated; tell TransportError\n\
             Completed, J fires -> Terminated"
        );
    }

    #[test]
    fn a_reliable_transport_needs_no_completed_state() {
        let reliable = table(Kind::Server, true);
        for line in [
            "Trying, Success -> Terminated; send Response",
            "Trying, Failure -> Terminated; send Response",
            "Proceeding, Failure -> Terminated; send Response",
        ] {
            assert!(reliable.lines().any(|other| other == line), "{line} is not in\n{reliable}");
        }
    }
}
