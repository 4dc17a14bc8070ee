//! The interface of futures-timer 3, on tokio's clock.
//!
//! libp2p starts a [`Delay`] or two for each stream it opens or accepts. The crate of that name in the registry keeps time
//! in a thread of its own, which must be woken for each: half of the context switches of a lookup (`bench/RESULTS.md`).
//! All of libp2p runs in tokio here, and tokio keeps time where it waits for sockets anyway.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// As far away as a delay that is too long for the clock is put: a year.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// A future that is ready after some time.
#[derive(Debug)]
pub struct Delay {
    until: Instant,
    /// Begins when it is first polled, for it is made outside of tokio at times.
    sleep: Option<Pin<Box<Sleep>>>,
}

fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or_else(|| now + FAR)
}

impl Delay {
    /// Ready `duration` from now.
    pub fn new(duration: Duration) -> Self {
        Self { until: after(duration), sleep: None }
    }

    /// Ready `duration` from now, whatever it was before.
    pub fn reset(&mut self, duration: Duration) {
        self.until = after(duration);
        if let Some(sleep) = &mut self.sleep {
            sleep.as_mut().reset(self.until);
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let until = self.until;
        self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn a_delay_takes_its_time_and_begins_again_when_it_is_reset() {
        let (began, some) = (Instant::now(), Duration::from_millis(20));
        let mut delay = Delay::new(some);
        runtime().block_on(async {
            (&mut delay).await;
            assert!(began.elapsed() >= some);
            delay.reset(some);
            (&mut delay).await;
            assert!(began.elapsed() >= some * 2);
        });
    }

    #[test]
    fn a_delay_is_made_outside_of_tokio_too_and_never_overflows() {
        let mut delay = Delay::new(Duration::MAX);
        delay.reset(Duration::ZERO);
        runtime().block_on(delay);
    }
}
