//! The timers of the transaction machines (RFC 3261 Appendix A, RFC 6026 §8.4) and how long they run.

use std::time::Duration;

/// A timer by its letter. Timer C is the proxy core's: [`Layer::set_deadline`](super::Layer::set_deadline) serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Timer {
    /// An INVITE is sent again (unreliable transports).
    A,
    /// An INVITE was not answered at all.
    B,
    /// Retransmissions of a failure response have died out at the client.
    D,
    /// A request other than INVITE is sent again (unreliable transports).
    E,
    /// A request other than INVITE was not answered.
    F,
    /// A failure response to an INVITE is sent again (unreliable transports).
    G,
    /// No ACK came for a failure response.
    H,
    /// Retransmissions of the ACK have died out at the server.
    I,
    /// Retransmissions of a request other than INVITE have died out at the server.
    J,
    /// Retransmissions of its response have died out at the client.
    K,
    /// Retransmissions of an accepted INVITE have died out at the server (RFC 6026).
    L,
    /// Retransmissions of 2xx responses have died out at the client (RFC 6026).
    M,
    /// No letter: the TU has not answered, so the server transaction says 100 Trying (RFC 3261 §17.2.1, RFC 4320 §4.1).
    Trying,
    /// No letter: a cancelled INVITE got no final response (RFC 3261 §9.1).
    Cancelled,
    /// No letter: the TU never answered a request other than INVITE, and the client's timer F has fired by now. A
    /// response could only be ignored, and must not be a 408 (RFC 4320 §4.2).
    Stale,
}

/// The base values, from which all timers follow. The default is what RFC 3261 Table 4 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Estimate of the round trip: 500 ms.
    pub t1: Duration,
    /// The longest interval between retransmissions of what is no INVITE: 4 s.
    pub t2: Duration,
    /// The longest time that a message stays in the network: 5 s.
    pub t4: Duration,
    /// How long a TU may be silent about an INVITE before the server transaction says 100 Trying: 200 ms. With zero
    /// it does at once, which spares a proxy to do so.
    pub trying: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            trying: Duration::from_millis(200),
        }
    }
}

impl Timers {
    /// What timers B, D, F, H, J, L and M wait: 64*T1.
    pub fn transaction(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// When a client's timer E is first set to T2, counted from the first transmission. Before that no 100 Trying may
    /// answer a request other than INVITE on an unreliable transport, and then one must (RFC 4320 §4.1): 3.5 s.
    pub fn trying_other(&self) -> Duration {
        let (mut elapsed, mut interval) = (Duration::ZERO, self.t1);
        // A T1 of zero would never reach T2.
        while interval < self.t2 && !interval.is_zero() {
            elapsed = elapsed.saturating_add(interval);
            interval = interval.saturating_mul(2);
        }
        elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_rfc() {
        let timers = Timers::default();
        assert_eq!(timers.transaction(), Duration::from_secs(32));
        assert_eq!(timers.trying_other(), Duration::from_millis(3500));
    }

    #[test]
    fn odd_values_end() {
        let zero = Timers { t1: Duration::ZERO, ..Timers::default() };
        assert_eq!(zero.trying_other(), Duration::ZERO);
        let long = Timers { t1: Duration::from_secs(9), ..Timers::default() };
        assert_eq!(long.trying_other(), Duration::ZERO);
    }
}
