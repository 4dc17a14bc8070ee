//! What runs while a proxy peer does: threads that read datagrams, and tasks for connections, timers and the load.

use std::{io, sync::Arc, thread, time::Duration};

use futures::FutureExt as _;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{Command, hub::Hub};
use crate::{
    member::OfferHandle,
    record::MAX_LOAD,
    sip::transport::{Event, UdpPort, UdpReader},
};

/// Datagrams read before the thread looks whether it is to end.
const TURN: usize = 64;
/// A change of load that is worth telling.
const LOAD_STEP: u16 = MAX_LOAD / 100;
/// How often the load is looked at.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// How often a proxy peer that is to end looks whether it may.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// Starts a thread that reads a UDP socket, until the other end of `stop` is gone. It handles what it reads itself: a
/// datagram that is passed on wakes nobody else.
///
/// # Errors
/// What the operating system says: no more threads or file descriptors.
pub(super) fn read_datagrams(hub: Arc<Hub>, port: &UdpPort, stop: watch::Receiver<()>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let reader = {
        let _inside = runtime.enter();
        port.reader()?
    };
    thread::Builder::new().name("sip-udp".to_owned()).spawn(move || read(&runtime, &hub, reader, stop))?;
    Ok(())
}

fn read(runtime: &Runtime, hub: &Arc<Hub>, mut reader: UdpReader, mut stop: watch::Receiver<()>) {
    runtime.block_on(async {
        loop {
            tokio::select! {
                biased;
                _ = stop.changed() => return,
                readable = reader.readable() => if readable.is_err() { return },
            }
            while let Some(undelivered) = reader.undelivered() {
                hub.on_undelivered(&undelivered);
            }
            for _ in 0..TURN {
                let Some((message, source)) = reader.try_message() else { break };
                hub.on_datagram(message, source);
            }
        }
    });
}

/// Hands on what comes over connections and streams, until the transports end.
pub(super) async fn read_connections(hub: Arc<Hub>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        hub.on_event(event);
    }
}

/// Wakes the engines when they want it.
pub(super) async fn keep_time(hub: Arc<Hub>) {
    loop {
        match hub.on_timeout() {
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(Instant::from_std(due)) => {}
                () = hub.hurried() => {}
            },
            None => hub.hurried().await,
        }
    }
}

/// Tells the overlay of the load, and withdraws the offer when the proxy peer is to end. `offer` comes once it stands.
pub(super) async fn attend(
    hub: Arc<Hub>,
    mut commands: mpsc::Receiver<Command>,
    offer: oneshot::Receiver<OfferHandle>,
) {
    let mut offer = offer.fuse();
    let (mut handle, mut offered) = (None::<OfferHandle>, 0_u16);
    let mut looks = tokio::time::interval(LOAD_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let drained = loop {
        tokio::select! {
            Ok(offer) = &mut offer => handle = Some(offer),
            command = commands.recv() => match command {
                Some(Command::Drain(drained)) => break drained,
                None => return,
            },
            _ = looks.tick() => {
                hub.look_outside();
                let load = hub.status().load;
                if load.abs_diff(offered) >= LOAD_STEP && let Some(handle) = &handle {
                    offered = load;
                    handle.update(true, load);
                }
            }
        }
    };
    hub.drain();
    if let Some(handle) = handle {
        handle.withdraw().await;
    }
    while !hub.is_idle() {
        tokio::time::sleep(DRAIN_INTERVAL).await;
    }
    // Whoever waited may have lost patience.
    let _ = drained.send(());
}
