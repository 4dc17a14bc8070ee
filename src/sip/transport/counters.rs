//! What the transports have done so far, for metrics: plain atomics, read at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Protocol;

/// Why something was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// What came is no SIP message.
    Malformed,
    /// A message longer than allowed.
    Oversized,
    /// A message that was not complete in time, or a handshake that was not.
    Slow,
    /// A reader that does not keep up with what is sent to it.
    Stalled,
    /// One connection too many, in all or from one address.
    Crowded,
    /// A request whose topmost Via names another peer than the one that sent it.
    ForeignVia,
    /// A response whose connection is gone, and that found no other way.
    NoWayBack,
    /// A datagram that the operating system did not take.
    Unsent,
    /// A TLS handshake that failed.
    Handshake,
    /// A datagram of which ICMP says that it did not arrive.
    Undelivered,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Oversized,
        Self::Slow,
        Self::Stalled,
        Self::Crowded,
        Self::ForeignVia,
        Self::NoWayBack,
        Self::Unsent,
        Self::Handshake,
        Self::Undelivered,
    ];

    /// The reason as a label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::Crowded => "crowded",
            Self::ForeignVia => "foreign-via",
            Self::NoWayBack => "no-way-back",
            Self::Unsent => "unsent",
            Self::Handshake => "handshake",
            Self::Undelivered => "undelivered",
        }
    }
}

/// The counters of one transport.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Messages received.
    pub received: AtomicU64,
    /// Messages sent.
    pub sent: AtomicU64,
    /// Connections that the other side opened so far.
    pub accepted: AtomicU64,
    /// Connections that we opened so far.
    pub opened: AtomicU64,
    /// Connections that are open at present.
    pub open: AtomicU64,
}

/// All counters.
#[derive(Debug, Default)]
pub struct Counters {
    traffic: [Traffic; Protocol::ALL.len()],
    drops: [AtomicU64; DropReason::ALL.len()],
}

impl Counters {
    /// The counters of one transport.
    pub fn traffic(&self, protocol: Protocol) -> &Traffic {
        let [udp, tcp, tls, overlay] = &self.traffic;
        match protocol {
            Protocol::Udp => udp,
            Protocol::Tcp => tcp,
            Protocol::Tls => tls,
            Protocol::Overlay => overlay,
        }
    }

    /// How often something was dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts something that was dropped.
    pub(super) fn lose(&self, reason: DropReason) {
        if let Some(count) = self.drops.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_and_transport_is_counted_by_itself() {
        let counters = Counters::default();
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            for _ in 0..=at {
                counters.lose(reason);
            }
            assert_eq!(counters.dropped(reason), at as u64 + 1);
        }
        for protocol in Protocol::ALL {
            count(&counters.traffic(protocol).sent);
            assert_eq!(counters.traffic(protocol).sent.load(Ordering::Relaxed), 1, "{protocol}");
        }
    }
}
