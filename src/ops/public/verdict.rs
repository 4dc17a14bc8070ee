//! What a public registration comes to, in an outcome.

use std::time::Duration;

use super::{PublicOutcome, PublicStatus, session::Session};
use crate::{
    clock::ms,
    kind::Kind,
    ops::{
        outcome::{RegisterOutcome, RegisterStatus},
        view::milliseconds,
    },
    ua::{Binding, Failure, RegisterFault},
};

impl Session<'_> {
    /// An outcome of which nothing else is known.
    pub(super) fn outcome(&self, status: PublicStatus) -> PublicOutcome {
        PublicOutcome {
            status,
            aor: self.public.uri.clone(),
            contact: self.contact.clone(),
            registrar: self.public.registrar.clone(),
            proxy: None,
            code: None,
            reason: None,
            realm: None,
            algorithm: None,
            challenges: 0,
            expires_in_ms: None,
            shortened: false,
            bindings: Vec::new(),
            redirected_to: None,
            other_devices: self.other_devices,
            again_in_ms: None,
            steps: Vec::new(),
            elapsed_ms: 0.0,
        }
    }

    /// With the steps that were done, and the time that they took.
    pub(super) fn finish(&mut self, outcome: PublicOutcome) -> PublicOutcome {
        let steps = std::mem::take(&mut self.steps);
        PublicOutcome { steps, elapsed_ms: ms(self.began.elapsed()), ..outcome }
    }

    /// It went no further than to the proxy peers.
    pub(super) fn nobody(&mut self, status: PublicStatus, why: String) -> PublicOutcome {
        let outcome = PublicOutcome { reason: Some(why), ..self.outcome(status) };
        self.finish(outcome)
    }

    /// What it comes to that the overlay did not take a record; `None` if it did.
    pub(super) fn not_stored(&self, stored: &RegisterOutcome) -> Option<PublicOutcome> {
        let (status, why) = match stored.status {
            RegisterStatus::Registered | RegisterStatus::Removed => return None,
            RegisterStatus::NobodyToAsk => (PublicStatus::Unreachable, "no storer of the overlay answered".to_owned()),
            RegisterStatus::Refused => {
                let untrusted = stored.refused.iter().any(|by| by.untrusted);
                let why = stored.refused.first().map(|by| by.reason.clone()).unwrap_or_default();
                let status = if untrusted { PublicStatus::Untrusted } else { PublicStatus::Refused };
                (status, format!("the overlay refuses the record of {}: {why}", stored.aor))
            }
        };
        Some(PublicOutcome { reason: Some(why), ..self.outcome(status) })
    }

    /// The registrar has bound it.
    pub(super) fn bound(&self, binding: Binding) -> PublicOutcome {
        PublicOutcome {
            proxy: binding.by.peer(),
            code: Some(200),
            expires_in_ms: Some(milliseconds(binding.granted)),
            shortened: binding.granted < Duration::from_secs(self.asked().as_secs()),
            bindings: binding.contacts,
            redirected_to: binding.redirected,
            ..self.outcome(PublicStatus::Registered)
        }
    }

    /// The registrar has not, for this reason.
    pub(super) fn failed(
        &self,
        fault: &RegisterFault,
        again: Option<Duration>,
        failure: Option<Kind>,
    ) -> PublicOutcome {
        let status = match (fault, failure) {
            (RegisterFault::Failure(Failure::NotLocated(_) | Failure::Transport(_)), Some(kind)) => status_of(kind),
            (fault, _) if fault.is_temporary() => PublicStatus::Unreachable,
            _ => PublicStatus::Refused,
        };
        let code = match fault {
            RegisterFault::Refused { status, .. } => Some(*status),
            RegisterFault::NoPassword(_) | RegisterFault::Digest(_) | RegisterFault::Challenges(_) => Some(401),
            _ => None,
        };
        let reason = match fault {
            RegisterFault::Refused { reason, .. } => reason.clone(),
            RegisterFault::Failure(Failure::Timeout) => {
                format!("no answer from the registrar within {} s", self.access.timeout.as_secs_f64())
            }
            fault => fault.to_string(),
        };
        let again_in_ms = again.map(milliseconds);
        PublicOutcome { code, reason: Some(reason), again_in_ms, ..self.outcome(status) }
    }
}

/// What it comes to that no proxy peer could be found or used.
pub(super) const fn status_of(kind: Kind) -> PublicStatus {
    match kind {
        // That nobody serves is no word of a registrar.
        Kind::Negative | Kind::Unreachable => PublicStatus::Unreachable,
        Kind::Untrusted => PublicStatus::Untrusted,
        Kind::Local | Kind::Usage => PublicStatus::LocalFailure,
    }
}
