//! Where a proxy peer keeps the nonces that have come to it, until it brings them back.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use data_encoding::HEXLOWER_PERMISSIVE;
use tokio::{sync::Notify, time::Instant};

use crate::client::gatekeeper::{Nonce, RequestId};

/// Nonces of one request that are kept: more than any gatekeeper sends.
const MAX_NONCES: usize = 64;

/// The nonces of the one request that is under way. Those of others, which anybody can send, are not kept.
#[derive(Debug, Default)]
pub(in crate::member) struct Inbox {
    expected: Mutex<Option<(RequestId, Vec<Nonce>)>>,
    arrived: Notify,
}

impl Inbox {
    /// From now on, nonces of this request are kept.
    pub(super) fn expect(&self, id: RequestId) {
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, Vec::new()));
    }

    /// A probe has come: `ID.NONCE`, in hexadecimal.
    pub(in crate::member) fn deposit(&self, probe: &[u8]) {
        let Some((id, nonce)) = parse(probe) else { return };
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((wanted, nonces)) = expected.as_mut()
            && *wanted == id
            && nonces.len() < MAX_NONCES
            && !nonces.contains(&nonce)
        {
            nonces.push(nonce);
            self.arrived.notify_one();
        }
    }

    /// Waits until so many nonces have come, or the time is up; then no more are kept.
    pub(super) async fn collect(&self, count: usize, patience: Duration) -> Vec<Nonce> {
        let deadline = Instant::now() + patience;
        loop {
            let arrived = self.arrived.notified();
            let have = match &*self.expected.lock().unwrap_or_else(PoisonError::into_inner) {
                Some((_, nonces)) => nonces.len(),
                None => 0,
            };
            if have >= count || tokio::time::timeout_at(deadline, arrived).await.is_err() {
                let taken = self.expected.lock().unwrap_or_else(PoisonError::into_inner).take();
                return taken.map(|(_, nonces)| nonces).unwrap_or_default();
            }
        }
    }
}

fn parse(probe: &[u8]) -> Option<(RequestId, Nonce)> {
    let (id, nonce) = std::str::from_utf8(probe).ok()?.trim().split_once('.')?;
    let octets = |text: &str| <[u8; 16]>::try_from(HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?).ok();
    Some((RequestId::new(octets(id)?), Nonce::new(octets(nonce)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_nonces_of_the_request_under_way_are_kept() {
        let inbox = Inbox::default();
        let probe =
            |id: u8, nonce: u8| format!("{}.{}", format!("{id:02x}").repeat(16), format!("{nonce:02x}").repeat(16));
        inbox.deposit(probe(1, 1).as_bytes());
        inbox.expect(RequestId::new([1; 16]));
        for text in [probe(2, 2), probe(1, 3), probe(1, 3), "x.y".to_owned(), probe(1, 4).replace('.', "")] {
            inbox.deposit(text.as_bytes());
        }
        assert_eq!(inbox.collect(2, Duration::from_millis(20)).await, [Nonce::new([3; 16])]);
        inbox.deposit(probe(1, 5).as_bytes());
        assert!(inbox.collect(1, Duration::from_millis(20)).await.is_empty(), "the request is over");
        inbox.expect(RequestId::new([1; 16]));
        let (collected, ()) = tokio::join!(inbox.collect(2, Duration::from_secs(5)), async {
            for nonce in [6, 7] {
                tokio::task::yield_now().await;
                inbox.deposit(probe(1, nonce).as_bytes());
            }
        });
        assert_eq!(collected.len(), 2);
        for n in 0..100 {
            inbox.expect(RequestId::new([1; 16]));
            inbox.deposit(probe(1, n).as_bytes());
        }
    }
}
