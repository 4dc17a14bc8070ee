//! Asking several members for the same: whoever is dead or slow must not hold up the others.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};

use crate::{
    client::{Call, PeerInfo},
    overlay::swarm::{AskError, Network},
};

/// Members asked at a time where it costs them little.
pub(super) const RACED: usize = 3;
/// After this time without any answer one more is asked; after a fair one, a better one is waited for so long.
const HEDGE: Duration = Duration::from_millis(500);

/// What an answer is worth.
pub(super) enum Worth<T> {
    /// It is what was wanted.
    Good(T),
    /// It will do if nobody has a better one soon; nobody else is asked for it.
    Fair,
    /// None: somebody else is asked instead.
    Nothing,
}

/// Asks `entries` until one gives a good answer: `at_once` of them at first, another one for each that fails, and one
/// more whenever nothing has come for a while. `Err`: nobody gave one, and the last failure, if there was any.
pub(super) async fn race<C: Call, T>(
    network: &Network,
    entries: &[PeerInfo],
    call: &C,
    at_once: usize,
    deadline: Instant,
    mut judge: impl FnMut(&PeerInfo, C::Reply) -> Worth<T>,
) -> Result<T, Option<(PeerInfo, AskError)>> {
    let ask = |entry| async move {
        let timeout = deadline.saturating_duration_since(Instant::now());
        (entry, network.call(entry, call, timeout).await)
    };
    let mut waiting = entries.iter();
    let mut asked: FuturesUnordered<_> = waiting.by_ref().take(at_once).map(ask).collect();
    let (mut failure, mut fair) = (None, false);
    loop {
        let answer = tokio::select! {
            answer = asked.next() => answer,
            () = tokio::time::sleep(HEDGE), if fair => return Err(failure),
            () = tokio::time::sleep(HEDGE), if !fair && !waiting.as_slice().is_empty() => {
                asked.extend(waiting.next().map(ask));
                continue;
            }
        };
        match answer {
            Some((entry, Ok(reply))) => match judge(entry, reply) {
                Worth::Good(good) => return Ok(good),
                Worth::Fair => fair = true,
                Worth::Nothing => asked.extend(waiting.next().map(ask)),
            },
            Some((entry, Err(error))) => {
                failure = Some((entry.clone(), error));
                asked.extend(waiting.next().map(ask));
            }
            None => return Err(failure),
        }
    }
}
