//! What a member is made of, and how often it does what.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    client::PeerInfo,
    identity::{Descriptor, Home, RevocationList, SecretKey},
    overlay::{storer::StorerLimits, swarm::NetworkConfig},
};

/// How often a member does what it does unasked. All of it is spread by up to a quarter, so that members do not
/// march in step.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two comparisons of records with the neighbours.
    pub sync: Duration,
    /// From a change of neighbours to the comparison that it causes.
    pub settle: Duration,
    /// Between two refreshes of a record that is kept for a client.
    pub keep: Duration,
    /// Between two looks at whether any peer is left.
    pub rejoin: Duration,
    /// Between two refreshes of the routing table.
    pub refresh: Duration,
    /// Between two registrations of a service that is offered; its records hold three times as long.
    pub offer: Duration,
    /// How long one request to a peer may take.
    pub request: Duration,
    /// How long joining may take.
    pub join: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            sync: Duration::from_secs(60),
            settle: Duration::from_secs(1),
            keep: Duration::from_secs(60),
            rejoin: Duration::from_secs(5),
            refresh: Duration::from_secs(60),
            offer: Duration::from_secs(60),
            request: Duration::from_secs(2),
            join: Duration::from_secs(10),
        }
    }
}

/// What a member is made of.
#[derive(Clone)]
pub struct MemberConfig {
    /// What the overlay is.
    pub descriptor: Arc<Descriptor>,
    /// Which certificates no longer count.
    pub revocations: Option<RevocationList>,
    /// The process's key; its peer id follows from it.
    pub key: Arc<SecretKey>,
    /// The swarm.
    pub network: NetworkConfig,
    /// Members to join through; none makes this the first one.
    pub peers: Vec<PeerInfo>,
    /// Members met in an earlier run: tried too, but none of them has to answer.
    pub remembered: Vec<PeerInfo>,
    /// Where to listen for programs on this machine.
    pub socket: Option<PathBuf>,
    /// Where records are kept; without a home they live in memory alone.
    pub home: Option<Home>,
    /// How much is stored for others.
    pub limits: StorerLimits,
    /// How often it does what it does unasked.
    pub timing: Timing,
}

impl MemberConfig {
    /// A member with the defaults of a long-lived overlay, in memory, without socket or peers.
    pub fn new(descriptor: Arc<Descriptor>, key: Arc<SecretKey>) -> Self {
        let network = NetworkConfig::member(descriptor.overlay().clone(), descriptor.hash());
        Self {
            descriptor,
            revocations: None,
            key,
            network,
            peers: Vec::new(),
            remembered: Vec::new(),
            socket: None,
            home: None,
            limits: StorerLimits::default(),
            timing: Timing::default(),
        }
    }
}
