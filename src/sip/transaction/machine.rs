//! What the four machines have in common: states, inputs, and what one input asks of the layer.
//!
//! A machine is a pure function from (state, input) to a [`Step`]. It has no octets and no clock: the layer stores what
//! is to be sent again and runs the timers.

use std::time::Duration;

use super::timers::{Timer, Timers};
use super::{client, invite_client, invite_server, server};

/// Which machine a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    InviteClient,
    Client,
    InviteServer,
    Server,
}

/// The states, named as in RFC 3261 §17 and RFC 6026.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Calling,
    Trying,
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
    Terminated,
}

/// What happens to a machine. Responses come from the network at a client, and from the TU at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// A response 1xx.
    Provisional,
    /// A response 2xx.
    Success,
    /// A response 300–699.
    Failure,
    /// The request again, at a server.
    Request,
    /// An ACK, at the server of an INVITE.
    Ack,
    /// The TU cancels an INVITE.
    Cancel,
    /// A timer fired.
    Fired(Timer),
    /// What the transaction sent last cannot be delivered.
    TransportError,
}

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet {
    /// The request.
    Request,
    /// The ACK of a failure response.
    Ack,
    /// A CANCEL, in a transaction of its own.
    Cancel,
    /// The TU's latest response.
    Response,
    /// A 100 Trying of our own.
    Trying,
}

/// What to tell the TU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// The response just received.
    Response,
    /// The ACK just received.
    Ack,
    /// Nobody answered; at a server: nobody acknowledged.
    Timeout,
    /// The transport failed.
    TransportError,
}

/// What becomes of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Keep,
    Stop,
    Start(Timer, Duration),
}

/// What one input asks for. No machine has more than two timers at a time: one for what is sent again, and one that
/// ends the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub next: State,
    pub send: Option<Packet>,
    pub tell: Option<Tell>,
    pub resend: Change,
    pub life: Change,
}

impl Step {
    /// Stays in `state`; its timers run on.
    pub const fn stay(state: State) -> Self {
        Self { next: state, send: None, tell: None, resend: Change::Keep, life: Change::Keep }
    }

    /// Enters `state`; the timers of the former state end.
    pub const fn enter(state: State) -> Self {
        Self { next: state, send: None, tell: None, resend: Change::Stop, life: Change::Stop }
    }

    /// Enters Terminated.
    pub const fn end() -> Self {
        Self::enter(State::Terminated)
    }

    pub const fn send(mut self, packet: Packet) -> Self {
        self.send = Some(packet);
        self
    }

    pub const fn tell(mut self, what: Tell) -> Self {
        self.tell = Some(what);
        self
    }

    pub const fn resend(mut self, timer: Timer, after: Duration) -> Self {
        self.resend = Change::Start(timer, after);
        self
    }

    pub const fn resend_never(mut self) -> Self {
        self.resend = Change::Stop;
        self
    }

    pub const fn life(mut self, timer: Timer, after: Duration) -> Self {
        self.life = Change::Start(timer, after);
        self
    }
}

/// What a step depends on besides state and input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub timers: &'a Timers,
    /// Whether the transport is reliable: then nothing is sent again, and no state only absorbs retransmissions.
    pub reliable: bool,
    /// What the timer of retransmissions was last set to.
    pub interval: Duration,
}

impl Kind {
    /// The first step of a transaction.
    pub fn start(self, context: Context<'_>) -> Step {
        match self {
            Self::InviteClient => invite_client::start(context),
            Self::Client => client::start(context),
            Self::InviteServer => invite_server::start(context),
            Self::Server => server::start(context),
        }
    }

    /// The step that `input` makes in `state`. What the RFCs do not mention changes nothing.
    pub fn step(self, state: State, input: Input, context: Context<'_>) -> Step {
        match self {
            Self::InviteClient => invite_client::step(state, input, context),
            Self::Client => client::step(state, input, context),
            Self::InviteServer => invite_server::step(state, input, context),
            Self::Server => server::step(state, input, context),
        }
    }

    pub const fn is_client(self) -> bool {
        matches!(self, Self::InviteClient | Self::Client)
    }
}

/// The table of a machine as text: its first step, and every (state, input) that does anything. All else is thereby
/// shown to be ignored.
#[cfg(test)]
pub(super) fn table(kind: Kind, reliable: bool) -> String {
    use Timer::{A, B, Cancelled, D, E, F, G, H, I, J, K, L, M, Stale, Trying};

    let timers = Timers::default();
    let context = Context { timers: &timers, reliable, interval: timers.t1 };
    let states = [
        State::Calling,
        State::Trying,
        State::Proceeding,
        State::Completed,
        State::Confirmed,
        State::Accepted,
        State::Terminated,
    ];
    let inputs = [
        Input::Provisional,
        Input::Success,
        Input::Failure,
        Input::Request,
        Input::Ack,
        Input::Cancel,
        Input::TransportError,
    ];
    let fired = [A, B, D, E, F, G, H, I, J, K, L, M, Trying, Cancelled, Stale].map(Input::Fired);
    let mut lines = vec![format!("start -> {}", describe(kind.start(context), false))];
    for state in states {
        for input in inputs.iter().chain(&fired) {
            let step = kind.step(state, *input, context);
            if step == Step::stay(state) {
                continue;
            }
            let name = match input {
                Input::Fired(timer) => format!("{timer:?} fires"),
                other => format!("{other:?}"),
            };
            lines.push(format!("{state:?}, {name} -> {}", describe(step, step.next == state)));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
fn describe(step: Step, same: bool) -> String {
    let mut text = if same { "same".to_owned() } else { format!("{:?}", step.next) };
    if let Some(packet) = step.send {
        text += &format!("; send {packet:?}");
    }
    if let Some(tell) = step.tell {
        text += &format!("; tell {tell:?}");
    }
    for (change, slot) in [(step.resend, "resend"), (step.life, "life")] {
        match change {
            Change::Keep if same => {}
            Change::Keep => text += &format!("; {slot} runs on"),
            Change::Stop if same => text += &format!("; {slot} stops"),
            Change::Stop => {}
            Change::Start(timer, after) => text += &format!("; {timer:?} in {after:?}"),
        }
    }
    text
}
