//! The bindings at registrars that an agent keeps.

use std::time::Instant;

use super::{
    super::{CallId, Failure, RegisterPlan, register::Registration},
    Agent, Leg,
};
use crate::sip::transport::FlowId;

impl Agent {
    /// Begins to bind an address of record.
    pub fn register(&mut self, plan: RegisterPlan, now: Instant) -> CallId {
        let id = self.new_call();
        let registration = Registration::new(plan, self.token(), self.token());
        self.enter(id, Leg::Registration(registration));
        self.with(id, now, |leg, _, out| {
            if let Leg::Registration(registration) = leg {
                registration.start(now, out);
            }
        });
        self.turn(now);
        id
    }

    /// Removes a binding that [`Agent::register`] made.
    pub fn unregister(&mut self, id: CallId, now: Instant) {
        self.with(id, now, |leg, _, out| {
            if let Leg::Registration(registration) = leg {
                registration.remove(now, out);
            }
        });
        self.turn(now);
    }

    /// A connection or stream has ended: what was asked over it will not be answered over it.
    pub fn closed(&mut self, flow: FlowId, now: Instant) {
        let uses = |leg: &Leg| matches!(leg, Leg::Registration(registration) if registration.uses(flow));
        let affected = self.calls.iter().filter(|(_, entry)| uses(&entry.leg));
        for (id, pending) in affected.map(|(id, entry)| (*id, entry.pending)).collect::<Vec<_>>() {
            match pending {
                Some(client) => {
                    let why = "the proxy peer has closed the stream without an answer".to_owned();
                    self.failed(client, Failure::Transport(why), now);
                }
                None => self.with(id, now, |leg, _, out| {
                    if let Leg::Registration(registration) = leg {
                        registration.lost(now, out);
                    }
                }),
            }
        }
        self.turn(now);
    }
}
