//! Runs a use case on a Tokio runtime, and ends it when the user says so.
//!
//! The first Ctrl-C (or SIGTERM) ends a tool cleanly, the second one at once.

use std::{future::pending, io, pin::pin, sync::Arc};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{self, SignalKind},
    sync::Notify,
};

use super::{
    io::{Signal, Signals},
    output::{
        Output,
        error::{Failure, Stop},
        progress::Progress,
    },
};
use crate::kind::Kind;

/// How many threads a tool is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// The one there is: for tools that ask and end.
    One,
    /// One a core: for members.
    Many,
}

/// How work that stays came to its end.
#[derive(Debug)]
pub(super) struct Stayed<T> {
    /// What it returned.
    pub(super) result: T,
    /// What ended it; `None` if it ended by itself.
    pub(super) signal: Option<Signal>,
}

impl<T> Stayed<Result<T, Stop>> {
    /// The exit code: `code`, unless the work failed, was interrupted, or was told to end before there was a code.
    pub(super) fn exit(self, code: Option<u8>) -> Result<u8, Stop> {
        self.result?;
        match (self.signal, code) {
            (Some(Signal::Interrupt), _) | (Some(Signal::Terminate), None) => Err(Stop::Interrupted),
            (_, code) => Ok(code.unwrap_or_default()),
        }
    }
}

/// Tells work that stays to end. Clones tell the same work.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending(Arc<Notify>);

impl Ending {
    /// Ends the work.
    pub(super) fn begin(&self) {
        self.0.notify_one();
    }

    /// Resolves when the work is to end.
    pub(super) async fn begun(self) {
        self.0.notified().await;
    }
}

/// What a tool is about to do on a runtime, until it is done or the user ends it.
pub(super) struct Run {
    signals: Signals,
    progress: Progress,
}

impl Run {
    /// Takes the tool's signals, and says what is being done.
    pub(super) fn new(output: &mut Output<'_, '_>, doing: impl FnOnce() -> String) -> Self {
        let (signals, progress) = (std::mem::take(&mut output.io().signals), output.progress());
        progress.doing(doing);
        Self { signals, progress }
    }

    /// Runs `work` on this thread until it is done or a signal comes, which drops it.
    pub(super) fn one_shot<T>(self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let Self { signals, progress } = self;
        let runtime = runtime(Threads::One)?;
        let result = runtime.block_on(async {
            let mut listener = Listener::new(signals).map_err(no_runtime)?;
            tokio::select! {
                biased;
                _ = listener.next() => Err(Stop::Interrupted),
                result = work => Ok(result),
                never = progress.turn() => match never {},
            }
        });
        // A resolver thread that still waits for an answer must not hold the tool up.
        runtime.shutdown_background();
        progress.clear();
        result
    }

    /// Runs `work`, which ends by itself soon after its [`Ending`] has begun: at the first signal, or when `work` says
    /// so.
    pub(super) fn stay<T, F: Future<Output = T>>(
        self,
        threads: Threads,
        work: impl FnOnce(Ending) -> F,
    ) -> Result<Stayed<T>, Stop> {
        let Self { signals, progress } = self;
        let runtime = runtime(threads)?;
        let result = runtime.block_on(async {
            let mut listener = Listener::new(signals).map_err(no_runtime)?;
            let ending = Ending::default();
            let mut work = pin!(work(ending.clone()));
            let signal = tokio::select! {
                biased;
                signal = listener.next() => signal,
                result = &mut work => return Ok(Stayed { result, signal: None }),
                never = progress.turn() => match never {},
            };
            progress.clear();
            ending.begin();
            tokio::select! {
                biased;
                _ = listener.next() => Err(Stop::Interrupted),
                result = work => Ok(Stayed { result, signal: Some(signal) }),
            }
        });
        runtime.shutdown_background();
        progress.clear();
        result
    }
}

/// Runs `work`, which reports as it goes on, and prints what it reports. Work whose reports nobody reads any more ends.
pub(super) async fn reporting<R, T, E>(
    ending: Ending,
    mut print: impl FnMut(R) -> Result<(), Stop>,
    work: impl AsyncFnOnce(&mut dyn FnMut(R), Ending) -> Result<T, E>,
) -> Result<T, Stop>
where
    Stop: From<E>,
{
    let mut stopped = Ok(());
    let ended = ending.clone();
    let mut report = |report: R| {
        if stopped.is_ok() {
            stopped = print(report);
            if stopped.is_err() {
                ended.begin();
            }
        }
    };
    let result = work(&mut report, ending).await;
    stopped?;
    Ok(result?)
}

/// A runtime for several pieces of work, one after the other: what one of them started goes on beside the next.
pub(super) struct Session {
    /// Taken out only to be shut down.
    runtime: Option<Runtime>,
    listener: Listener,
}

impl Session {
    /// Starts a runtime.
    pub(super) fn new(signals: Signals) -> Result<Self, Stop> {
        let runtime = runtime(Threads::Many)?;
        let listener = {
            let _inside = runtime.enter();
            Listener::new(signals).map_err(no_runtime)?
        };
        Ok(Self { runtime: Some(runtime), listener })
    }

    /// Runs `work` on this thread until it is done or a signal comes, which drops it.
    pub(super) fn run<T>(&mut self, progress: &Progress, work: impl Future<Output = T>) -> Result<T, Signal> {
        let Some(runtime) = &self.runtime else { return Err(Signal::Terminate) };
        let listener = &mut self.listener;
        let result = runtime.block_on(async {
            tokio::select! {
                biased;
                signal = listener.next() => Err(signal),
                result = work => Ok(result),
                never = progress.turn() => match never {},
            }
        });
        progress.clear();
        result
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime(threads: Threads) -> Result<Runtime, Stop> {
    let mut builder = match threads {
        Threads::One => Builder::new_current_thread(),
        Threads::Many => Builder::new_multi_thread(),
    };
    builder.enable_all().build().map_err(no_runtime)
}

fn no_runtime(error: io::Error) -> Stop {
    Failure::new(Kind::Local, error).context("cannot start").into()
}

/// Signals as they come, inside a runtime.
enum Listener {
    Never,
    Process { interrupt: unix::Signal, terminate: unix::Signal },
    Channel(tokio::sync::mpsc::UnboundedReceiver<Signal>),
}

impl Listener {
    fn new(signals: Signals) -> io::Result<Self> {
        Ok(match signals {
            Signals::Never => Self::Never,
            Signals::Channel(receiver) => Self::Channel(receiver),
            Signals::Process => Self::Process {
                interrupt: unix::signal(SignalKind::interrupt())?,
                terminate: unix::signal(SignalKind::terminate())?,
            },
        })
    }

    /// The next signal; safe to drop and call again.
    async fn next(&mut self) -> Signal {
        let next = match self {
            Self::Never => None,
            Self::Process { interrupt, terminate } => tokio::select! {
                got = interrupt.recv() => got.map(|()| Signal::Interrupt),
                got = terminate.recv() => got.map(|()| Signal::Terminate),
            },
            Self::Channel(receiver) => receiver.recv().await,
        };
        match next {
            Some(signal) => signal,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    fn run(signals: Signals) -> Run {
        Run { signals, progress: Progress::default() }
    }

    fn signals(sent: &[Signal]) -> Signals {
        let (sender, receiver) = mpsc::unbounded_channel();
        for signal in sent {
            sender.send(*signal).unwrap();
        }
        Signals::Channel(receiver)
    }

    #[test]
    fn a_signal_drops_work_that_only_asks() {
        let result = run(signals(&[Signal::Interrupt])).one_shot(pending::<()>());
        assert!(matches!(result, Err(Stop::Interrupted)));
        assert_eq!(run(Signals::Never).one_shot(async { 7 }).unwrap(), 7);
    }

    #[test]
    fn a_signal_ends_one_piece_of_work_and_not_the_session() {
        let mut session = Session::new(signals(&[Signal::Interrupt])).unwrap();
        assert_eq!(session.run(&Progress::default(), pending::<()>()), Err(Signal::Interrupt));
        assert_eq!(session.run(&Progress::default(), async { 7 }), Ok(7));
    }

    #[test]
    fn work_that_stays_takes_its_leave_at_the_first_signal() {
        for signal in [Signal::Interrupt, Signal::Terminate] {
            let stayed = run(signals(&[signal])).stay(Threads::One, |ending| async {
                ending.begun().await;
                "left"
            });
            let stayed = stayed.unwrap();
            assert_eq!((stayed.result, stayed.signal), ("left", Some(signal)));
        }
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        let twice = signals(&[Signal::Interrupt, Signal::Interrupt]);
        let stayed = run(twice).stay(Threads::Many, |ending| async {
            ending.begun().await;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        });
        assert!(matches!(stayed, Err(Stop::Interrupted)));
    }

    #[test]
    fn work_may_end_itself() {
        let stayed = run(Signals::Never).stay(Threads::One, |ending| async move {
            ending.begin();
            ending.begun().await;
        });
        assert_eq!(stayed.unwrap().signal, None);
    }

    #[test]
    fn work_ends_when_nobody_reads_its_reports() {
        let mut printed = 0;
        let print = |_report: u8| {
            printed += 1;
            Err(Stop::Closed)
        };
        let stayed = run(Signals::Never).stay(Threads::One, |ending| {
            reporting(ending, print, async |report, ending| {
                (1..=2).for_each(report);
                ending.begun().await;
                Ok::<(), Failure>(())
            })
        });
        assert!(matches!(stayed.unwrap().result, Err(Stop::Closed)));
        assert_eq!(printed, 1);
    }
}
