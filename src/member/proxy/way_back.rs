//! Whether those outside find the overlay (draft §3.1, R8): their requests in a dialog follow the Record-Route, which
//! names the overlay identifier and nothing else.

use std::time::{Duration, Instant};

use crate::{
    dns::locate::{Host, Locator, Query, Verdict},
    name::OverlayId,
};

/// The least time between two looks at the DNS, and so between two warnings.
const PAUSE: Duration = Duration::from_secs(300);
/// How long one look may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Looks at the DNS when calls go out, and remembers what it said.
#[derive(Debug, Default)]
pub(super) struct WayBack {
    /// Outgoing calls at the last look.
    outgoing: u64,
    looked: Option<Instant>,
    /// Whether the DNS had nothing of the overlay.
    pub(super) is_missing: bool,
}

impl WayBack {
    /// Whether to look: calls have gone out since the last time, which was some minutes ago.
    pub(super) fn is_due(&mut self, outgoing: u64, now: Instant) -> bool {
        let due = outgoing > self.outgoing && self.looked.is_none_or(|last| now.duration_since(last) >= PAUSE);
        if due {
            (self.outgoing, self.looked) = (outgoing, Some(now));
        }
        due
    }

    /// What the DNS has said; warns if there is no way back. A DNS that is silent says nothing.
    pub(super) fn found(&mut self, overlay: &OverlayId, verdict: Verdict) {
        match verdict {
            Verdict::Found => self.is_missing = false,
            Verdict::NoDomain | Verdict::NoServer => {
                self.is_missing = true;
                tracing::warn!(
                    "calls go out, and requests of the other side cannot come back: the DNS has no proxy peer of \
                     {overlay}, so it cannot be reached from public SIP networks; see p2p-publish"
                );
            }
            Verdict::Unanswered => {}
        }
    }
}

/// Whether any proxy peer of the overlay can be located from outside.
pub(super) async fn look(locator: &Locator, overlay: &OverlayId) -> Verdict {
    let query = Query::of_host(Host::Name(overlay.to_string()));
    let located = locator.locate(&query, Instant::now() + TIMEOUT).await;
    located.map_or(Verdict::Unanswered, |location| location.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dns_is_looked_at_when_calls_go_out_and_at_most_once_in_some_minutes() {
        let (mut way_back, start) = (WayBack::default(), Instant::now());
        assert!(!way_back.is_due(0, start), "nobody has called");
        assert!(way_back.is_due(1, start));
        assert!(!way_back.is_due(50, start + PAUSE / 2), "a busy proxy peer warns no more often than another");
        assert!(way_back.is_due(50, start + PAUSE));
        assert!(!way_back.is_due(50, start + 9 * PAUSE), "nobody has called since");
    }

    #[test]
    fn only_an_answer_changes_what_is_known() {
        let overlay = OverlayId::parse("p2psip.org").unwrap();
        let mut way_back = WayBack::default();
        for (verdict, missing) in [
            (Verdict::Unanswered, false),
            (Verdict::NoDomain, true),
            (Verdict::Unanswered, true),
            (Verdict::Found, false),
            (Verdict::NoServer, true),
        ] {
            way_back.found(&overlay, verdict);
            assert_eq!(way_back.is_missing, missing, "{verdict:?}");
        }
    }
}
