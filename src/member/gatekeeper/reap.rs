//! Takes proxy peers out of the DNS whose lease is over.
//!
//! A lease that this gatekeeper has granted it knows; those of others it learns by reading the zone, at least twice in
//! the time of a lease. When one is over, what the zone says of that host is read again, so a lease that another
//! gatekeeper has renewed meanwhile goes on.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use super::desk::Desk;
use crate::clock::UnixMs;

/// The longest time between two looks at whether a lease is over: whoever dies is gone that much later.
const LOOK: Duration = Duration::from_millis(500);
/// The longest and the shortest time between two readings of the whole zone.
const SWEEPS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Reaps until the gatekeeper ends.
pub(super) async fn run(desk: Weak<Desk>) {
    let mut swept = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(desk) = desk.upgrade() else { return };
        desk.expire();
        desk.reread();
        let every = Duration::from_secs(desk.lease().into()) / 2;
        if swept.elapsed() >= every.clamp(SWEEPS.0, SWEEPS.1) {
            swept = Instant::now();
            if let Err(error) = desk.sweep().await {
                tracing::warn!("cannot read the zone, so leases of other gatekeepers may go unnoticed: {error}");
            }
        }
        let due = desk.due(UnixMs::now());
        if !due.is_empty() {
            desk.reap(due).await;
        }
    }
}
