//! The client transaction of an INVITE: RFC 3261 §17.1.1 with the Accepted state of RFC 6026 §7.2.
//!
//! ```text
//!  INVITE from TU: sent; A (unreliable), B
//!        |
//!   +---------+ --A: send again--> itself
//!   | Calling | --B, transport error: tell--> Terminated
//!   +---------+
//!        | 1xx: tell
//!  +------------+ --1xx: tell--> itself
//!  | Proceeding | --CANCEL sent; 64*T1 pass: tell--> Terminated
//!  +------------+
//!        |                                 both from Calling too
//!        +-- 2xx: tell; M ------> Accepted   --2xx: tell--> itself
//!        |                                   --M--> Terminated
//!        +-- 300-699: ACK, tell; D -> Completed  --300-699: ACK--> itself
//!                                            --2xx: tell--> itself
//!                                            --D; transport error: tell--> Terminated
//! ```
//!
//! With a reliable transport D is zero: from Calling and Proceeding at once to Terminated.

use super::machine::{Context, Input, Packet, State, Step, Tell};
use super::timers::Timer;

/// The TU sends an INVITE.
pub(super) fn start(context: Context<'_>) -> Step {
    let step = Step::enter(State::Calling).send(Packet::Request).life(Timer::B, context.timers.transaction());
    if context.reliable { step } else { step.resend(Timer::A, context.timers.t1) }
}

/// What `input` does.
pub(super) fn step(state: State, input: Input, context: Context<'_>) -> Step {
    use State::{Accepted, Calling, Completed, Proceeding};

    let long = context.timers.transaction();
    match (state, input) {
        (Calling, Input::Fired(Timer::A)) => {
            Step::stay(Calling).send(Packet::Request).resend(Timer::A, context.interval.saturating_mul(2))
        }
        (Calling, Input::Fired(Timer::B)) => Step::end().tell(Tell::Timeout),
        (Calling | Completed, Input::TransportError) => Step::end().tell(Tell::TransportError),
        (Calling, Input::Provisional) => Step::enter(Proceeding).tell(Tell::Response),
        (Proceeding, Input::Provisional) => Step::stay(Proceeding).tell(Tell::Response),
        (Proceeding, Input::Cancel) => Step::stay(Proceeding).send(Packet::Cancel).life(Timer::Cancelled, long),
        (Proceeding, Input::Fired(Timer::Cancelled)) => Step::end().tell(Tell::Timeout),
        (Calling | Proceeding, Input::Success) => Step::enter(Accepted).tell(Tell::Response).life(Timer::M, long),
        (Calling | Proceeding, Input::Failure) => {
            let step = if context.reliable { Step::end() } else { Step::enter(Completed).life(Timer::D, long) };
            step.send(Packet::Ack).tell(Tell::Response)
        }
        (Completed, Input::Failure) => Step::stay(Completed).send(Packet::Ack),
        // No retransmission of anything: a branch of a fork answered after another's failure had been forwarded
        // (§16.7 step 5). Only the TU can acknowledge it.
        (Completed, Input::Success) => Step::stay(Completed).tell(Tell::Response),
        (Accepted, Input::Success) => Step::stay(Accepted).tell(Tell::Response),
        (Completed, Input::Fired(Timer::D)) | (Accepted, Input::Fired(Timer::M)) => Step::end(),
        _ => Step::stay(state),
    }
}

#[cfg(test)]
mod tests {
    use crate::sip::transaction::machine::{Kind, table};

    #[test]
    fn every_transition_over_an_unreliable_transport() {
        assert_eq!(
            table(Kind::InviteClient, false),
            "start -> Calling; send Request; A in 500ms; B in 32s\n\
             Calling, Provisional -> Proceeding; tell Response\n\
             Calling, Success -> Accepted; tell Response; M in 32s\n\
             Calling, Failure -> Completed; send Ack; tell Response; D in 32s\n\
             Calling, TransportError -> Terminated; tell TransportError\n\
             Calling, A fires -> same; send Request; A in 1s\n\
             Calling, B fires -> Terminated; tell Timeout\n\
             Proceeding, Provisional -> same; tell Response\n\
             Proceeding, Success -> Accepted; tell Response; M in 32s\n\
             Proceeding, Failure -> Completed; send Ack; tell Response; D in 32s\n\
             Proceeding, Cancel -> same; send Cancel; Cancelled in 32s\n\
             Proceeding, Cancelled fires -> Terminated; tell Timeout\n\
             Completed, Success -> same; tell Response\n\
             Completed, Failure -> same; send Ack\n\
             Completed, TransportError -> Terminated; tell TransportError\n\
             Completed, D fires -> Terminated\n\
             Accepted, Success -> same; tell Response\n\
             Accepted, M fires -> Terminated"
        );
    }

    #[test]
    fn a_reliable_transport_needs_no_timer_a_and_no_completed_state() {
        let reliable = table(Kind::InviteClient, true);
        assert!(reliable.starts_with("start -> Calling; send Request; B in 32s\n"), "{reliable}");
        for line in [
            "Calling, Failure -> Terminated; send Ack; tell Response",
            "Proceeding, Failure -> Terminated; send Ack; tell Response",
            "Calling, Success -> Accepted; tell Response; M in 32s",
        ] {
            assert!(reliable.lines().any(|other| other == line), "{line} is not in\n{reliable}");
        }
    }
}
