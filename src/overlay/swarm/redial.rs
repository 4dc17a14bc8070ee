//! Dials once more, from another port, where two members have dialled each other at the same moment.
//!
//! Members dial from the port that they listen on, so that a NAT maps one port only. If two do so to each other at once,
//! TCP makes one connection of both dials (RFC 9293 §3.5), in which either side speaks first, and the handshake fails at
//! once on both. From a port of its own, a dial cannot meet another.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, Transport,
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
    },
};

/// A handshake that fails later than this has failed for another reason.
const SOON: Duration = Duration::from_millis(500);
/// Errors are nested a few deep: time limit, upgrade, noise, TCP.
const MAX_NESTING: usize = 16;

/// A transport whose failed handshakes are tried once more from a port of their own.
pub(super) struct Redial<T>(Arc<Mutex<T>>);

impl<T> Redial<T> {
    pub(super) fn new(transport: T) -> Self {
        Self(Arc::new(Mutex::new(transport)))
    }

    fn transport(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Transport for Redial<T>
where
    T: Transport + Send + Unpin + 'static,
    T::Dial: Send,
    T::Output: Send,
    T::Error: Send,
{
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<T::Output, T::Error>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<T::Error>> {
        self.transport().listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.transport().remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<T::Error>> {
        let first = self.transport().dial(address.clone(), opts)?;
        // A hole is punched by dials that do meet, and the two have settled who of them listens.
        if opts.port_use == PortUse::New || opts.role == Endpoint::Listener {
            return Ok(first.boxed());
        }
        let again = Self(Arc::clone(&self.0));
        Ok(async move {
            let began = Instant::now();
            let error = match first.await {
                Err(error) if began.elapsed() < SOON && was_reached(&error) => error,
                result => return result,
            };
            let second = again.transport().dial(address, DialOpts { port_use: PortUse::New, ..opts });
            match second {
                Ok(second) => second.await,
                Err(_) => Err(error),
            }
        }
        .boxed())
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<T::ListenerUpgrade, T::Error>> {
        Pin::new(&mut *self.transport()).poll(context)
    }
}

/// Whether somebody was there: the network did not say that nobody is.
fn was_reached(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    let mut nested = Some(error);
    for _ in 0..MAX_NESTING {
        let Some(error) = nested else { break };
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| {
            matches!(io.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable)
        }) {
            return false;
        }
        // The source of an I/O error that wraps another is that one's source, not the other itself.
        nested = io.and_then(io::Error::get_ref).map(|inner| inner as _).or_else(|| error.source());
    }
    true
}

#[cfg(test)]
mod tests {
    use std::future::Ready;

    use super::*;

    /// Its first dials end with the errors given, all others well; it notes from which ports it dialled.
    struct Failing {
        errors: Vec<io::Error>,
        dials: Vec<PortUse>,
    }

    impl Transport for Failing {
        type Output = ();
        type Error = io::Error;
        type ListenerUpgrade = Ready<io::Result<()>>;
        type Dial = Ready<io::Result<()>>;

        fn listen_on(&mut self, _: ListenerId, _: Multiaddr) -> Result<(), TransportError<io::Error>> {
            Ok(())
        }

        fn remove_listener(&mut self, _: ListenerId) -> bool {
            false
        }

        fn dial(&mut self, _: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
            self.dials.push(opts.port_use);
            Ok(std::future::ready(self.errors.pop().map_or(Ok(()), Err)))
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
            Poll::Pending
        }
    }

    /// Dials with these errors ahead: whether it came to a connection, and from which ports it was tried.
    fn dial(errors: Vec<io::Error>, role: Endpoint) -> (bool, Vec<PortUse>) {
        let mut transport = Redial::new(Failing { errors, dials: Vec::new() });
        let opts = DialOpts { role, port_use: PortUse::Reuse };
        let dialled = transport.dial("/ip4/192.0.2.1/tcp/4001".parse().unwrap(), opts).unwrap().now_or_never().unwrap();
        let dials = std::mem::take(&mut transport.transport().dials);
        (dialled.is_ok(), dials)
    }

    fn handshake() -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, "input error")
    }

    #[test]
    fn a_failed_handshake_is_tried_once_more_from_another_port() {
        assert_eq!(dial(vec![], Endpoint::Dialer), (true, vec![PortUse::Reuse]));
        assert_eq!(dial(vec![handshake()], Endpoint::Dialer), (true, vec![PortUse::Reuse, PortUse::New]));
        assert_eq!(dial(vec![handshake(), handshake()], Endpoint::Dialer), (false, vec![PortUse::Reuse, PortUse::New]));
    }

    #[test]
    fn who_is_not_there_is_not_asked_again_and_a_hole_is_punched_once() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(dial(vec![refused()], Endpoint::Dialer), (false, vec![PortUse::Reuse]));
        assert_eq!(dial(vec![io::Error::other(refused())], Endpoint::Dialer), (false, vec![PortUse::Reuse]));
        assert_eq!(dial(vec![handshake()], Endpoint::Listener), (false, vec![PortUse::Reuse]));
    }
}
