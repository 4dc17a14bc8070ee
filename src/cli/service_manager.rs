//! What a service manager (systemd) is told of a member: sd_notify(3). Nothing, where none has asked to be told.

use std::time::Duration;

use sd_notify::NotifyState;

use super::output::count;
use crate::ops::outcome::JoinOutcome;

/// The member is one, and its tools can be used.
pub(super) fn ready(outcome: &JoinOutcome) {
    let status = format!("member of {}, met {}", outcome.overlay, count(outcome.peers, "other"));
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The member is about to leave.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Does `work`; the watchdog, if there is one, is fed by the runtime that does it.
pub(super) async fn watched<T>(work: impl Future<Output = T>) -> T {
    let Some(limit) = sd_notify::watchdog_enabled() else { return work.await };
    tokio::pin!(work);
    let mut tick = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        tokio::select! {
            result = &mut work => return result,
            _ = tick.tick() => notify(&[NotifyState::Watchdog]),
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager could not be told: {error}");
    }
}
