//! The composition root: what a member of the overlay is made of, and the tasks it runs.
//!
//! A [`Member`] owns a swarm, a store and a unix socket. Its `Core` answers the client protocol; three
//! tasks keep it well: `sync` compares records with the neighbours that should hold the same ones, `keep` stores
//! again what clients handed in, and a third finds its way back when every peer is gone.

pub mod adapter;
mod config;
mod core;
mod error;
pub mod gatekeeper;
mod handlers;
mod join;
mod keep;
pub mod metrics;
mod offer;
pub mod proxy;
mod services;
mod sip_streams;
mod sync;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};

use self::core::Core;
pub use self::{
    adapter::{AdapterConfig, AdapterError, Phone, PhonesError},
    config::{MemberConfig, Timing},
    core::{Handler, remembered},
    error::MemberError,
    gatekeeper::{Gatekeeper, GatekeeperConfig, GatekeeperError, Publish, PublishBy},
    metrics::{Metrics, MetricsError, MetricsServer},
    offer::{Offer, OfferError, OfferHandle, OfferStatus},
    proxy::{Proxy, ProxyConfig, ProxyError, ProxyTls},
    services::{Services, USUAL_AGE},
    sip_streams::sip_streams,
};
use crate::{
    client::{Lookup, LookupReply, PeerInfo, Put, PutReply, StatusReply},
    identity::SecretKey,
    name::{PeerId, ResourceName, Service},
    overlay::{
        Answer, Caller, Overlay, OverlayError, Responder, lookup::LookupOutcome, persist::SetAside, redir::Wanted,
        socket::SocketServer, swarm::Network,
    },
};

/// How long a stopping member waits for its tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A running member of an overlay.
///
/// Dropping it aborts its tasks; [`Member::stop`] ends it in good order.
pub struct Member {
    key: Arc<SecretKey>,
    core: Arc<Core>,
    metrics: Metrics,
    socket: Option<SocketServer>,
    set_aside: Vec<SetAside>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// What keeps the offers up.
    offers: Mutex<Vec<JoinHandle<()>>>,
    timing: Timing,
    swarm: JoinHandle<()>,
}

impl Member {
    /// Starts a member: restores its records, binds its addresses and its socket, and joins the overlay through the
    /// configured peers. Without any it is the overlay's first member.
    ///
    /// # Errors
    /// [`MemberError`]: an address or socket that cannot be bound, a store that cannot be opened, or no configured
    /// peer that answers.
    pub async fn start(config: MemberConfig) -> Result<Self, MemberError> {
        let stores = core::Stores::open(config.home.as_ref())?;
        let set_aside = stores.set_aside.clone();
        let (network, bound) = Network::bind(config.network.clone(), &config.key).await?;
        let core = Arc::new(Core::new(&config, network.clone(), stores));
        let swarm = bound.run(Arc::new(CoreResponder(core.clone())));
        let (stop, stopping) = watch::channel(false);
        let mut member = Self {
            set_aside,
            key: config.key.clone(),
            metrics: Metrics::of(&core),
            core: core.clone(),
            socket: None,
            stop,
            tasks: Vec::new(),
            offers: Mutex::default(),
            timing: config.timing,
            swarm,
        };
        if let Some(path) = &config.socket {
            let responder = Arc::new(CoreResponder(core.clone()));
            member.socket = Some(SocketServer::start(path, responder, network.events().clone()).await?);
        }
        if let Err(error) = join::join(&network, &config).await {
            // Whoever tries again wants the same files, address and socket.
            member.stop().await;
            return Err(error);
        }
        member.tasks = vec![
            tokio::spawn(join::stay_joined(core.clone(), config.clone(), stopping.clone())),
            tokio::spawn(sync::run(core.clone(), config.timing, stopping.clone())),
            tokio::spawn(keep::run(core, config.timing, stopping)),
        ];
        Ok(member)
    }

    /// This member's peer id.
    pub fn peer(&self) -> PeerId {
        self.core.network().peer()
    }

    /// The process's key.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The swarm.
    pub fn network(&self) -> &Network {
        self.core.network()
    }

    /// This member as others see it.
    pub fn info(&self) -> PeerInfo {
        self.core.network().myself()
    }

    /// The addresses at which others reach it, as multiaddrs without the `/p2p/` part.
    pub fn addresses(&self) -> Vec<String> {
        self.core.network().addresses()
    }

    /// The addresses as others write them into `--peer`: with the `/p2p/` part.
    pub fn full_addresses(&self) -> Vec<String> {
        let peer = self.peer();
        self.addresses().into_iter().map(|address| format!("{address}/p2p/{peer}")).collect()
    }

    /// The unix socket, if there is one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(SocketServer::path)
    }

    /// How the member is.
    pub fn status(&self) -> StatusReply {
        self.core.status()
    }

    /// What it counts.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Records that came back from the last run.
    pub fn restored(&self) -> u32 {
        self.core.restored()
    }

    /// Store files that could not be read and were set aside.
    pub fn set_aside(&self) -> &[SetAside] {
        &self.set_aside
    }

    /// Registers what answers the requests of one more service.
    pub fn register(&self, service: &str, handler: Arc<dyn Handler>) {
        self.core.register(service, handler);
    }

    /// Looks a name up.
    pub async fn lookup(&self, name: ResourceName, timeout: Duration) -> LookupOutcome {
        self.core.lookup(name, timeout).await
    }

    /// Offers a service to the overlay until the handle withdraws it or the member stops. Returns once it is listed.
    ///
    /// # Errors
    /// [`OfferError`]: the member has no certificate for it, or no storer lists it.
    pub async fn offer(&self, offer: Offer) -> Result<OfferHandle, OfferError> {
        let Timing { offer: every, request, .. } = self.timing;
        let publisher = offer::Publisher::new(self.core.clone(), self.key.clone(), offer, every, request * 2)?;
        let (handle, upkeep) = publisher.begin(every, self.stop.subscribe()).await?;
        let mut offers = core::lock(&self.offers);
        offers.retain(|offer| !offer.is_finished());
        offers.push(tokio::spawn(upkeep));
        Ok(handle)
    }

    /// Finds providers of a service. What this member has found at most `max_age` ago will do: [`USUAL_AGE`] for a call
    /// that needs a relay now, zero for whoever wants to know how things are.
    pub async fn services(&self, service: Service, wanted: Wanted, max_age: Duration, timeout: Duration) -> Services {
        self.core.services(service, wanted, max_age, timeout).await
    }

    /// Stores a record at those responsible and keeps it alive.
    pub async fn put(&self, put: Put) -> PutReply {
        self.core.put(put).await
    }

    /// Ends the member: no more requests are served, the store is flushed, the socket removed.
    pub async fn stop(mut self) {
        // Nobody listens only if every task has ended already.
        let _ = self.stop.send(true);
        self.socket = None;
        // The offers first: they are withdrawn now, and the others do not mind to wait.
        let offers = std::mem::take(&mut *core::lock(&self.offers));
        for mut task in offers.into_iter().chain(std::mem::take(&mut self.tasks)) {
            if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.swarm.abort();
        // Its end closes the listeners: whoever starts a member next may want the same port. That it was cancelled
        // is no news.
        let _ = (&mut self.swarm).await;
        self.core.close_stores().await;
    }

    /// Ends the member as SIGKILL would: nothing is flushed, nobody told. For tests of churn.
    pub fn kill(self) {
        drop(self);
    }
}

impl Overlay for Member {
    async fn put(&self, put: Put) -> Result<PutReply, OverlayError> {
        self.core.verify(&put.envelope).map_err(OverlayError::Refused)?;
        Ok(self.core.put(put).await)
    }

    async fn lookup(&self, lookup: Lookup) -> Result<LookupReply, OverlayError> {
        Ok(self.core.lookup(lookup.name, Duration::from_millis(lookup.timeout_ms)).await.reply)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        for task in self.tasks.iter().chain(core::lock(&self.offers).iter()) {
            task.abort();
        }
        self.swarm.abort();
    }
}

/// The responder that a swarm or socket holds.
struct CoreResponder(Arc<Core>);

impl Responder for CoreResponder {
    fn respond(&self, caller: Caller, frame: crate::client::RequestFrame) -> Answer {
        Core::respond(&self.0, caller, frame)
    }
}
