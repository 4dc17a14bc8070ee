//! Lets what is written at one go leave in one packet.
//!
//! Yamux flushes after each of its frames, and a request is several of them: the name of the protocol, the request, the
//! end of the stream. Each flush would be an encrypted message of its own, a system call, a packet, and a task woken at
//! the other end. So the first flush after something was written is put off: until whoever writes turns to reading and
//! finds nothing there, or until it is polled again, whichever is sooner. Nothing waits for a timer, or for the other
//! side.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite, TryFutureExt, future::MapOk};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};

/// An upgrade to a secure channel, whose channel is a [`Cork`].
#[derive(Debug, Clone)]
pub(super) struct Corked<U>(pub(super) U);

impl<U: UpgradeInfo> UpgradeInfo for Corked<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> U::InfoIter {
        self.0.protocol_info()
    }
}

/// What a secure channel is negotiated to.
type Secured<T> = (PeerId, T);
type Corking<F, T> = MapOk<F, fn(Secured<T>) -> Secured<Cork<T>>>;

impl<C, T, U: InboundConnectionUpgrade<C, Output = Secured<T>>> InboundConnectionUpgrade<C> for Corked<U> {
    type Output = Secured<Cork<T>>;
    type Error = U::Error;
    type Future = Corking<U::Future, T>;

    fn upgrade_inbound(self, io: C, info: U::Info) -> Self::Future {
        self.0.upgrade_inbound(io, info).map_ok(cork as _)
    }
}

impl<C, T, U: OutboundConnectionUpgrade<C, Output = Secured<T>>> OutboundConnectionUpgrade<C> for Corked<U> {
    type Output = Secured<Cork<T>>;
    type Error = U::Error;
    type Future = Corking<U::Future, T>;

    fn upgrade_outbound(self, io: C, info: U::Info) -> Self::Future {
        self.0.upgrade_outbound(io, info).map_ok(cork as _)
    }
}

fn cork<T>((peer, io): Secured<T>) -> Secured<Cork<T>> {
    (peer, Cork { io, unsent: Unsent::Nothing })
}

/// A stream that puts off its flushes. What is below it must buffer what is written to it.
#[derive(Debug)]
pub(super) struct Cork<T> {
    io: T,
    unsent: Unsent,
}

/// What there is to flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    Nothing,
    /// It was written since the last flush.
    Written,
    /// The same, and the flush has been put off.
    PutOff,
}

impl<T: AsyncWrite + Unpin> Cork<T> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.unsent = Unsent::Nothing;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Cork<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_pending() && self.unsent != Unsent::Nothing {
            // If this cannot be done yet, the writer learns why.
            let _ = self.poll_send(context);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cork<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, octets);
        if written.is_ready() {
            self.unsent = Unsent::Written;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.unsent {
            Unsent::Nothing => Poll::Ready(Ok(())),
            Unsent::Written => {
                self.unsent = Unsent::PutOff;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Unsent::PutOff => self.poll_send(context),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::task::{ArcWake, waker};

    use super::*;

    /// Buffers what is written; notes what each flush sends. Nothing ever comes to be read.
    #[derive(Default)]
    struct Wire {
        buffered: Vec<u8>,
        sent: Vec<Vec<u8>>,
        full: bool,
    }

    impl AsyncRead for Wire {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Wire {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
            self.buffered.extend_from_slice(octets);
            Poll::Ready(Ok(octets.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.full {
                return Poll::Pending;
            }
            let octets = std::mem::take(&mut self.buffered);
            self.sent.push(octets);
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(context)
        }
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct World {
        cork: Cork<Wire>,
        woken: Arc<Woken>,
    }

    impl World {
        fn new() -> Self {
            let (_, cork) = cork((PeerId::random(), Wire::default()));
            Self { cork, woken: Arc::default() }
        }

        fn write(&mut self, octets: &[u8]) {
            let waker = waker(Arc::clone(&self.woken));
            let written = Pin::new(&mut self.cork).poll_write(&mut Context::from_waker(&waker), octets);
            assert!(matches!(written, Poll::Ready(Ok(count)) if count == octets.len()));
        }

        /// Whether it is done.
        fn flush(&mut self) -> bool {
            let waker = waker(Arc::clone(&self.woken));
            Pin::new(&mut self.cork).poll_flush(&mut Context::from_waker(&waker)).is_ready()
        }

        fn read(&mut self) {
            let waker = waker(Arc::clone(&self.woken));
            let read = Pin::new(&mut self.cork).poll_read(&mut Context::from_waker(&waker), &mut [0; 8]);
            assert!(read.is_pending());
        }

        fn sent(&self) -> Vec<&[u8]> {
            self.cork.io.sent.iter().map(Vec::as_slice).collect()
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn what_is_written_before_a_read_leaves_together() {
        let mut world = World::new();
        for octets in [&b"name"[..], b"request", b"end"] {
            world.write(octets);
            assert!(!world.flush());
        }
        assert!(world.sent().is_empty());
        world.read();
        assert_eq!(world.sent(), [b"namerequestend"]);
        assert!(world.flush());
        world.read();
        assert_eq!(world.sent().len(), 1, "nothing more was written");
    }

    #[test]
    fn who_only_writes_is_woken_to_flush_again() {
        let mut world = World::new();
        assert!(world.flush(), "there is nothing to flush");
        world.write(b"request");
        assert!(!world.flush());
        assert_eq!(world.woken(), 1);
        assert!(world.flush());
        assert_eq!(world.sent(), [b"request"]);
    }

    #[test]
    fn a_wire_that_is_full_is_waited_for() {
        let mut world = World::new();
        world.cork.io.full = true;
        world.write(b"request");
        world.read();
        assert!(!world.flush() && !world.flush());
        world.cork.io.full = false;
        assert!(world.flush());
        assert_eq!(world.sent(), [b"request"]);
    }
}
