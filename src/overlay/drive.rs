//! Runs the pure machines of [`lookup`](super::lookup) and [`placement`](super::placement) over a [`Network`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use serde_bytes::ByteBuf;

use super::{
    lookup::{LookupConfig, LookupMachine, LookupOutcome},
    swarm::{AskError, Network},
    walk::{Failure, Step},
};
use crate::{
    client::{Fetch, FetchReply, PeerInfo},
    clock::UnixMs,
    name::ResourceName,
    record::Trust,
};

/// Looks `name` up, beginning with `seeds`. `own` is what this process itself holds, if it is one of the storers.
pub async fn lookup(
    network: &Network,
    name: ResourceName,
    seeds: Vec<PeerInfo>,
    own: Option<Vec<ByteBuf>>,
    config: LookupConfig,
    trust: Arc<Trust>,
) -> LookupOutcome {
    let fetch = Fetch { target: name.position(), closer: count(config.walk.per_reply) };
    let timeout = config.walk.request_timeout;
    let local = own.is_some().then(|| network.peer());
    let mut machine = LookupMachine::new(name, seeds, local, config, trust, Instant::now());
    if let Some(envelopes) = own {
        let held = FetchReply { envelopes, closer: Vec::new() };
        machine.on_local(&held, Instant::now(), UnixMs::now());
    }
    let mut asked = FuturesUnordered::new();
    loop {
        match machine.poll(Instant::now(), UnixMs::now()) {
            Step::Ask(ask) => {
                let fetch = &fetch;
                asked.push(async move {
                    let reply = network.call(&ask.peer, fetch, timeout).await;
                    (ask.peer.peer, reply)
                });
            }
            Step::Wait(until) => {
                if let Some((peer, reply)) = next_before(&mut asked, until).await {
                    let now = Instant::now();
                    match reply {
                        Ok(reply) => machine.on_reply(&peer, reply, now, UnixMs::now()),
                        Err(error) => machine.on_failure(&peer, failure(&error), now),
                    }
                }
            }
            Step::Done(_) => return machine.outcome(Instant::now(), UnixMs::now()),
        }
    }
}

/// The next answer, or `None` when `until` comes first.
async fn next_before<F: Future>(asked: &mut FuturesUnordered<F>, until: Instant) -> Option<F::Output> {
    tokio::select! {
        biased;
        Some(answer) = asked.next(), if !asked.is_empty() => Some(answer),
        () = tokio::time::sleep_until(until.into()) => None,
    }
}

fn failure(error: &AskError) -> Failure {
    match error {
        AskError::Dial(_) | AskError::Closed => Failure::Unreachable,
        AskError::Timeout => Failure::Silent,
        AskError::Refused(_) | AskError::OtherOverlay => Failure::Refused,
        AskError::Connection(_) | AskError::Codec(_) => Failure::Malformed,
    }
}

fn count(peers: usize) -> u8 {
    u8::try_from(peers).unwrap_or(u8::MAX)
}

/// How long a lookup may take in all if nobody says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(5);
