//! A member as a gatekeeper: holds the key of the overlay's zone, and enters proxy peers there that prove where they
//! are. And the other side: a proxy peer that asks for it (`applicant`).
//!
//! Requests come over the client protocol ([`crate::client::gatekeeper`]). The pure cores of [`crate::gatekeeper`]
//! decide; `desk` carries out what they say, `probing` brings probes to their place, `reap` takes those out whose lease
//! is over. What the zone says is read before each change, and each change is conditional on it, so it does no harm if
//! several gatekeepers work at once or one dies between two steps.

mod applicant;
mod desk;
mod inbox;
mod named;
mod probing;
mod reap;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::task::JoinHandle;

pub use self::applicant::{Publish, PublishBy};
pub(super) use self::{applicant::Applicant, inbox::Inbox};
use self::{desk::Desk, probing::Prober};
use super::{
    Member, Offer, OfferError, OfferHandle,
    metrics::{Collector, DescriptorEncoder, counter, gauge},
};
use crate::{
    client::{
        Call,
        gatekeeper::{Decisions, Enter, Leave, Prove},
    },
    dns::{
        PublishError, Resolver, TsigKey,
        publish::{Publisher, ZoneAt},
    },
    gatekeeper::{Admission, Config, ConfigError},
    identity::{Certificate, Policy},
    kind::Kind,
    name::{OverlayId, Service},
    sip::transport::TransportError,
};

/// How long a change of the zone may take: less than the peer waits that asked for it.
const UPDATE: Duration = Duration::from_millis(3_500);

/// What a gatekeeper is made of.
pub struct GatekeeperConfig {
    /// What its file says.
    pub file: Config,
    /// The file, which is read again when it has changed: who may enter, and how many, need no restart.
    pub path: Option<PathBuf>,
    /// Finds the zone's primary server, if the file does not name it.
    pub resolver: Resolver,
    /// What permits the member's key to offer the service. `None`: the one in the member's home.
    pub certificate: Option<Certificate>,
    /// How long finding the zone may take.
    pub timeout: Duration,
}

/// Why a gatekeeper did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatekeeperError {
    /// R2: there is nothing to enter.
    #[error("{overlay} is a purely local overlay and has no place in the DNS; leave --gatekeeper out")]
    Local {
        /// The overlay.
        overlay: OverlayId,
    },
    /// Its file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// In an open overlay there are no certificates.
    #[error(
        "the policy of {overlay} is open, so nobody is enrolled there; make the gatekeeper's policy closed or open"
    )]
    NobodyEnrolled {
        /// The overlay.
        overlay: OverlayId,
    },
    /// The key, or the zone.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The sockets of the probes.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The operating system lets nothing be read.
    #[error("cannot read SIP: {0}")]
    Socket(std::io::Error),
    /// The service cannot be offered.
    #[error(transparent)]
    Offer(#[from] OfferError),
}

impl GatekeeperError {
    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Local { .. } | Self::NobodyEnrolled { .. } => Kind::Usage,
            Self::Config(error) => error.kind(),
            Self::Publish(error) => error.kind(),
            Self::Transport(error) => error.kind(),
            Self::Socket(_) => Kind::Local,
            Self::Offer(error) => error.kind(),
        }
    }
}

/// A running gatekeeper. Dropping it ends it; what it has entered is left to other gatekeepers, or to its lease.
pub struct Gatekeeper {
    zone: ZoneAt,
    offer: Option<OfferHandle>,
    tasks: Vec<JoinHandle<()>>,
    // The handlers in the member know it only as long as this one does.
    _desk: Arc<Desk>,
}

impl Gatekeeper {
    /// Finds the zone, opens sockets for probes, and offers the service.
    ///
    /// # Errors
    /// [`GatekeeperError`].
    pub async fn start(member: &Member, config: GatekeeperConfig) -> Result<Self, GatekeeperError> {
        let descriptor = member.core.descriptor();
        let overlay = descriptor.overlay().clone();
        if descriptor.is_local() {
            return Err(GatekeeperError::Local { overlay });
        }
        let GatekeeperConfig { file, path, resolver, certificate, timeout } = config;
        if file.admission == Admission::Enrolled && descriptor.policy() == Policy::Open {
            return Err(GatekeeperError::NobodyEnrolled { overlay });
        }
        let key = TsigKey::load(&file.key)?;
        let zone = match file.server {
            Some(server) => ZoneAt::on(server, &overlay, timeout).await?,
            None => ZoneAt::find(&resolver, &overlay, timeout).await?,
        };
        if let Some(wanted) = file.zone.clone().filter(|wanted| *wanted != zone.zone) {
            let why = format!("it has that name in the zone {}, and the gatekeeper's file says {wanted}", zone.zone);
            return Err(PublishError::NoZone { name: overlay.to_string(), server: zone.server, why }.into());
        }
        let (prober, events) = Prober::bind(&overlay, file.roots.clone())?;
        let desk = Desk::new(member, (file, path), Publisher::new(zone.clone(), key, UPDATE), prober);
        let desk = Arc::new(desk);
        desk.sweep().await?;
        for service in [Enter::SERVICE, Prove::SERVICE, Leave::SERVICE, Decisions::SERVICE] {
            member.register(service, Arc::new(desk::Door(Arc::downgrade(&desk))));
        }
        let tasks = vec![
            tokio::spawn(probing::listen(Arc::downgrade(&desk), events)),
            tokio::spawn(reap::run(Arc::downgrade(&desk))),
        ];
        let mut gatekeeper = Self { zone, offer: None, tasks, _desk: desk.clone() };
        let offer = Offer { service: Service::Gatekeeper, endpoints: vec![], certificate, serving: true, load: 0 };
        gatekeeper.offer = Some(member.offer(offer).await?);
        member.metrics().add(Box::new(GatekeeperMetrics(Arc::downgrade(&desk))));
        Ok(gatekeeper)
    }

    /// The zone that it changes.
    pub const fn zone(&self) -> &ZoneAt {
        &self.zone
    }

    /// Takes the service record out, so that nobody asks any more.
    pub async fn stop(mut self) {
        if let Some(offer) = self.offer.take() {
            offer.withdraw().await;
        }
    }
}

impl Drop for Gatekeeper {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What a gatekeeper counts, for Prometheus.
struct GatekeeperMetrics(Weak<Desk>);

impl fmt::Debug for GatekeeperMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatekeeperMetrics")
    }
}

impl Collector for GatekeeperMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // A gatekeeper that has ended has nothing to tell.
        let Some(desk) = self.0.upgrade() else { return Ok(()) };
        let counts = desk.counts();
        let e = &mut encoder;
        let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        gauge(e, "gatekeeper_proxy_peers", "Proxy peers that have a lease", number(counts.live))?;
        gauge(e, "gatekeeper_pending", "Proxy peers whose proof is waited for", number(counts.pending))?;
        counter(e, "gatekeeper_probes", "Probes sent", counts.probes)?;
        counter(e, "gatekeeper_entered", "Proxy peers entered into the DNS", counts.entered)?;
        counter(e, "gatekeeper_renewed", "Leases renewed", counts.renewed)?;
        counter(e, "gatekeeper_refused", "Requests refused", counts.refused)?;
        counter(e, "gatekeeper_left", "Proxy peers that left", counts.left)?;
        counter(e, "gatekeeper_reaped", "Proxy peers taken out because their lease was over", counts.reaped)
    }
}
