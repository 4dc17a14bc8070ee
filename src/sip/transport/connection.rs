//! One connection or overlay stream: what comes in is framed and passed up, what waits is written.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    Source,
    config::Limits,
    counters::{Counters, DropReason, count},
    driver::{Event, Token},
    overlay::BoxedStream,
    via::names_peer,
};
use crate::sip::{
    Message, Method,
    framing::{Frame, FrameError, Framer},
    respond::respond,
    tap::Tap,
};

/// What is read at once.
const READ: usize = 8 * 1024;
/// What is written at once if several messages wait.
const BATCH: usize = 16 * 1024;
/// How long an ending process still writes what waits.
const FAREWELL: Duration = Duration::from_secs(1);
/// An accepted connection has this many times the time of a message to bring its first one.
const FIRST_MESSAGE: u32 = 3;
/// The answer to CRLFCRLF (RFC 5626 §3.5.1).
const PONG: &[u8] = b"\r\n";
const PING: &[u8] = b"\r\n\r\n";

/// A message that is to be written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) bytes: Bytes,
    pub(super) token: Token,
    /// The same request as it goes over UDP, if no connection can be made (RFC 3261 §18.1.1).
    pub(super) datagram: Option<Bytes>,
}

/// The sender's end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Line {
    queue: mpsc::Sender<Outgoing>,
    octets: Arc<AtomicUsize>,
    stalled: Arc<Notify>,
    limit: usize,
}

/// Why a message could not be queued.
pub(super) enum QueueError {
    /// The other side does not keep up: the connection ends.
    Stalled,
    /// The connection has ended; the message comes back.
    Ended(Outgoing),
}

impl Line {
    /// The two ends of a new connection's queue.
    pub(super) fn new(limits: &Limits) -> (Self, Queue) {
        let (sender, receiver) = mpsc::channel(limits.queued_messages.max(1));
        let (octets, stalled) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let line =
            Self { queue: sender, octets: octets.clone(), stalled: stalled.clone(), limit: limits.queued_octets };
        (line, Queue { receiver, octets, stalled, unsent: Vec::new() })
    }

    /// Queues a message. If there is no room the connection is ended: what a slow reader gets is not kept for ever.
    pub(super) fn push(&self, message: Outgoing) -> Result<(), QueueError> {
        let length = message.bytes.len();
        let waiting = self.octets.fetch_add(length, Ordering::Relaxed);
        let result = if waiting > 0 && waiting + length > self.limit {
            Err(QueueError::Stalled)
        } else {
            self.queue.try_send(message).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => QueueError::Stalled,
                mpsc::error::TrySendError::Closed(message) => QueueError::Ended(message),
            })
        };
        if result.is_err() {
            self.octets.fetch_sub(length, Ordering::Relaxed);
            self.stalled.notify_one();
        }
        result
    }
}

/// The connection's end of its queue.
#[derive(Debug)]
pub(super) struct Queue {
    receiver: mpsc::Receiver<Outgoing>,
    octets: Arc<AtomicUsize>,
    stalled: Arc<Notify>,
    /// Taken from the queue, and not known to be written.
    unsent: Vec<Outgoing>,
}

impl Queue {
    /// The next messages to write at once; `None` when nobody can send any more.
    async fn take(&mut self) -> Option<()> {
        let first = self.receiver.recv().await?;
        let mut length = first.bytes.len();
        self.unsent.push(first);
        while length < BATCH
            && let Ok(more) = self.receiver.try_recv()
        {
            length += more.bytes.len();
            self.unsent.push(more);
        }
        Some(())
    }

    /// The octets of what was taken: one message as it is, several copied into one.
    fn octets(&self) -> Bytes {
        match &self.unsent[..] {
            [one] => one.bytes.clone(),
            several => {
                let mut octets = BytesMut::with_capacity(several.iter().map(|message| message.bytes.len()).sum());
                for message in several {
                    octets.extend_from_slice(&message.bytes);
                }
                octets.freeze()
            }
        }
    }

    /// What was taken has been written.
    fn written(&mut self) -> u64 {
        let length = self.unsent.iter().map(|message| message.bytes.len()).sum();
        self.octets.fetch_sub(length, Ordering::Relaxed);
        let count = self.unsent.len();
        self.unsent.clear();
        count as u64
    }

    /// Everything that was not written, once nobody can send any more.
    pub(super) async fn rest(mut self) -> Vec<Outgoing> {
        while let Some(message) = self.receiver.recv().await {
            self.unsent.push(message);
        }
        self.unsent
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("closed by the other side")]
    Closed,
    #[error("unused")]
    Idle,
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("ended here: {}", .0.label())]
    Dropped(DropReason),
    /// What came cannot be read; a request gets this response first.
    #[error("ended here: {}", .0.label())]
    Unreadable(DropReason, Option<Bytes>),
    #[error("shutting down")]
    Stopping,
}

/// What a connection needs to know.
pub(super) struct Connection {
    pub(super) source: Source,
    /// Whether we opened it.
    pub(super) dialled: bool,
    pub(super) limits: Limits,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: watch::Receiver<()>,
    /// Who listens in, if anybody.
    pub(super) tap: Option<Tap>,
}

impl Connection {
    /// Reads and writes until the connection ends.
    pub(super) async fn run(&mut self, stream: BoxedStream, queue: &mut Queue) -> End {
        let (reader, mut writer) = tokio::io::split(stream);
        let shared = Shared { pong: Notify::new(), used: Used::new() };
        let mut stop = self.stop.clone();
        let stalled = queue.stalled.clone();
        let end = tokio::select! {
            end = self.read(reader, &shared) => end,
            end = self.write(&mut writer, queue, &shared) => end,
            () = stalled.notified() => End::Dropped(DropReason::Stalled),
            // The sender never sends: this is its end.
            _ = stop.changed() => End::Stopping,
        };
        match &end {
            End::Dropped(reason) => self.counters.lose(*reason),
            End::Unreadable(reason, refusal) => {
                self.counters.lose(*reason);
                let _ = timeout(FAREWELL, self.say_farewell(&mut writer, queue, refusal.as_deref())).await;
            }
            // A response that waits is worth a moment; that it could not be written is no news any more.
            End::Stopping | End::Idle => _ = timeout(FAREWELL, self.say_farewell(&mut writer, queue, None)).await,
            End::Closed | End::Broken(_) => {}
        }
        end
    }

    /// Writes what waits, and a last word.
    async fn say_farewell(
        &self,
        writer: &mut WriteHalf<BoxedStream>,
        queue: &mut Queue,
        last: Option<&[u8]>,
    ) -> io::Result<()> {
        // What was under way may have been written in part: it cannot be written again.
        if queue.unsent.is_empty() {
            while let Ok(message) = queue.receiver.try_recv() {
                writer.write_all(&message.bytes).await?;
                count(&self.counters.traffic(self.source.protocol).sent);
            }
            writer.write_all(last.unwrap_or_default()).await?;
            writer.flush().await?;
        }
        writer.shutdown().await
    }

    async fn read(&self, mut reader: ReadHalf<BoxedStream>, shared: &Shared) -> End {
        let mut framer = Framer::new(self.limits.body);
        let mut octets = vec![0; READ];
        let mut begun = None;
        let mut greeted = self.dialled;
        loop {
            loop {
                let message = match framer.next_frame() {
                    Ok(None) => break,
                    Ok(Some(Frame::Message(message))) => message,
                    Ok(Some(Frame::Ping)) => {
                        shared.pong.notify_one();
                        continue;
                    }
                    Ok(Some(Frame::Pong)) => continue,
                    Err(error) => return unreadable(&error),
                };
                (begun, greeted) = (None, true);
                if !self.may_send(&message) {
                    return End::Dropped(DropReason::ForeignVia);
                }
                count(&self.counters.traffic(self.source.protocol).received);
                if let Some(tap) = &self.tap {
                    tap.received(message.bytes());
                }
                // Waits if nobody reads: so does the other side then.
                if self.events.send(Event::Message { message, source: self.source.clone() }).await.is_err() {
                    return End::Stopping;
                }
            }
            let used = shared.used.last();
            let deadline = if framer.is_midway() {
                *begun.get_or_insert_with(Instant::now) + self.limits.message_time
            } else {
                begun = None;
                let first = self.limits.message_time * FIRST_MESSAGE;
                used + if greeted { self.limits.idle } else { first.min(self.limits.idle) }
            };
            match timeout_at(deadline, reader.read(&mut octets)).await {
                Ok(Ok(0)) => return End::Closed,
                Ok(Ok(count)) => {
                    framer.push(octets.get(..count).unwrap_or_default());
                    shared.used.now();
                }
                Ok(Err(error)) => return End::Broken(error),
                Err(_) if framer.is_midway() => return End::Dropped(DropReason::Slow),
                // Something was written meanwhile.
                Err(_) if shared.used.last() > used => {}
                Err(_) => return End::Idle,
            }
        }
    }

    /// Whether the other side may have sent this: a peer writes no other's name into its Via.
    fn may_send(&self, message: &Message) -> bool {
        match self.source.remote.peer() {
            Some(peer) if message.is_request() => message.top_via().is_ok_and(|via| names_peer(&via, &peer)),
            _ => true,
        }
    }

    async fn write(&self, writer: &mut WriteHalf<BoxedStream>, queue: &mut Queue, shared: &Shared) -> End {
        let mut next_ping = self.next_ping();
        loop {
            let ping = async {
                match next_ping {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let control = tokio::select! {
                taken = queue.take() => match taken {
                    Some(()) => None,
                    None => return End::Stopping,
                },
                () = shared.pong.notified() => Some(PONG),
                () = ping => Some(PING),
            };
            let octets = control.map_or_else(|| queue.octets(), Bytes::from_static);
            let written = async {
                writer.write_all(&octets).await?;
                writer.flush().await
            };
            match timeout(self.limits.write, written).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return End::Broken(error),
                Err(_) => return End::Dropped(DropReason::Stalled),
            }
            next_ping = self.next_ping();
            if control.is_none() {
                shared.used.now();
                self.counters.traffic(self.source.protocol).sent.fetch_add(queue.written(), Ordering::Relaxed);
            }
        }
    }

    fn next_ping(&self) -> Option<Instant> {
        self.limits.keep_alive.filter(|_| self.dialled).map(|every| Instant::now() + every)
    }
}

/// Why the connection ends, and what a request is answered before.
fn unreadable(error: &FrameError) -> End {
    let (reason, status, phrase) = match error {
        FrameError::Malformed { .. } => (DropReason::Malformed, 400, "Bad Request"),
        FrameError::BodyTooLong { .. } => (DropReason::Oversized, 513, "Message Too Large"),
    };
    let head = error.head().filter(|head| head.is_request() && head.method() != Method::Ack);
    End::Unreadable(reason, head.map(|head| respond(head, status, phrase, None).finish()))
}

/// What reading and writing tell each other.
struct Shared {
    pong: Notify,
    used: Used,
}

/// When a connection was last used.
struct Used {
    since: Instant,
    millis: AtomicU64,
}

impl Used {
    fn new() -> Self {
        Self { since: Instant::now(), millis: AtomicU64::new(0) }
    }

    fn now(&self) {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.since + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Outgoing {
        Outgoing { bytes: vec![b'x'; length].into(), token: 0, datagram: None }
    }

    #[tokio::test]
    async fn a_queue_is_bounded_in_octets_and_in_messages() {
        let limits = Limits { queued_messages: 3, queued_octets: 100, ..Limits::default() };
        // One message always has room, however long it is; a second one no more.
        let (line, mut queue) = Line::new(&limits);
        assert!(line.push(message(1000)).is_ok());
        assert!(matches!(line.push(message(1)), Err(QueueError::Stalled)));
        // What was written makes room again.
        queue.take().await.unwrap();
        assert_eq!((queue.octets().len(), queue.written()), (1000, 1));
        for _ in 0..3 {
            assert!(line.push(message(10)).is_ok());
        }
        assert!(matches!(line.push(message(10)), Err(QueueError::Stalled)));
        queue.take().await.unwrap();
        assert_eq!((queue.octets().len(), queue.written()), (30, 3));
        assert!(line.push(message(100)).is_ok());
        assert!(matches!(line.push(message(1)), Err(QueueError::Stalled)));
        drop(line);
        assert_eq!(queue.rest().await.len(), 1);
    }
}
