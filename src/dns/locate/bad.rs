//! Targets that have failed: tried last for a while, because the next request would only wait for them again.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Target, Transport};
use crate::dns::cache::Cache;

/// How many targets are remembered.
const REMEMBERED: usize = 1_024;
/// For how long a target that did not answer or could not be reached is tried last: as long as Timer B
/// (RFC 3261 §17.1.1.2), so that waiting for it costs at most half of the time.
const SILENT_FOR: Duration = Duration::from_secs(32);
/// For how long one that answered 503 is, if it does not say.
const BUSY_FOR: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Why a target is given up for the next one (RFC 3263 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The transaction timed out.
    Timeout,
    /// It could not be sent, or the connection broke.
    Transport,
    /// 503 (Service Unavailable), with what its `Retry-After` says (RFC 3261 §21.5.4).
    Unavailable(Option<Duration>),
}

/// A bounded memory of targets that have failed.
#[derive(Debug)]
pub struct BadTargets(Cache<(Transport, SocketAddr), ()>);

impl Default for BadTargets {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl BadTargets {
    /// Remembers that a target has failed.
    pub fn failed(&mut self, target: (Transport, SocketAddr), failure: Failure, now: Instant) {
        let span = match failure {
            Failure::Timeout | Failure::Transport => SILENT_FOR,
            Failure::Unavailable(retry_after) => retry_after.unwrap_or(BUSY_FOR).min(MAX_RETRY_AFTER),
        };
        self.0.insert(target, (), now + span, now);
    }

    /// Forgets that a target had failed: it has answered.
    pub fn worked(&mut self, target: (Transport, SocketAddr)) {
        self.0.remove(&target);
    }

    /// Whether a target has failed of late.
    pub fn contains(&self, target: &Target, now: Instant) -> bool {
        self.0.get(&(target.transport, target.address), now).is_some()
    }
}
