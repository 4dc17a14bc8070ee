//! A member as an adapter: who its phones are, and their routing records.
//!
//! The core is [`crate::proxy::adapter`]; the sockets and the overlay's streams are those of [`super::proxy`], whose
//! engine a member has once, whether it is an adapter, a proxy peer or both. What is here is the phones' own: each has
//! a home with its instance key and, where the overlay asks for them, certificates for its user.

mod phones;

use std::{collections::HashMap, net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use super::core::Core;
use crate::{
    client::Put,
    clock::UnixMs,
    identity::{Home, IdentityError, Policy, SecretKey},
    kind::Kind,
    name::{Aor, InstanceId, ResourceName},
    proxy::{
        adapter::{self, Adapter},
        throttle::Rate,
    },
    record::{Body, Contact, MAX_ADDRESSES, MAX_Q, Payload, RecordError, TOMBSTONE_GRACE, seal},
    sip::digest::{Algorithm, Secret, Terms},
};
pub use phones::{Phones, PhonesError, TEMPLATE, load};

/// How long a routing record lives that nobody renews: this process may be killed.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long storing a record may take: phones repeat a REGISTER for 32 s.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long phones may register. One that has to find a restarted adapter again is not gone for longer than that.
const EXPIRES: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(600);

/// What an adapter is made of.
#[derive(Debug, Clone)]
pub struct AdapterConfig {
    /// Where to serve phones over UDP and TCP.
    pub address: SocketAddr,
    /// The phones.
    pub phones: Vec<Phone>,
    /// The algorithms that phones are asked for, the one that is preferred first.
    pub algorithms: Vec<Algorithm>,
    /// For how long phones may register: less is refused, more is shortened.
    pub expires: RangeInclusive<Duration>,
    /// How much one source may send.
    pub rate: Rate,
}

impl AdapterConfig {
    /// An adapter with the usual durations.
    pub fn new(address: SocketAddr, Phones { phones, algorithms, rate }: Phones) -> Self {
        Self { address, phones, algorithms, expires: EXPIRES, rate }
    }
}

/// A phone that may register.
#[derive(Debug, Clone)]
pub struct Phone {
    /// Whose it is.
    pub aor: Aor,
    /// The name that it authenticates with.
    pub user: String,
    /// What it proves to know.
    pub secret: Secret,
    /// Its instance key, and certificates that permit it to register the AOR.
    pub home: Home,
}

/// Why an adapter did not start.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A home.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No certificate permits a phone to be its user's.
    #[error(
        "the phone {user} has no certificate for {aor}; get one: p2p-enroll request --home {home} {aor}, \
         have it issued, then p2p-enroll install --home {home}"
    )]
    NotEnrolled {
        /// The phone.
        user: String,
        /// Its user.
        aor: String,
        /// The phone's home.
        home: String,
    },
    /// Two phones cannot be told apart.
    #[error("the phones {one} and {other} have the same home, and would be one device; give each its own")]
    SameInstance {
        /// One phone.
        one: String,
        /// The other.
        other: String,
    },
    /// The operating system has no randomness.
    #[error("the operating system gives no random octets for nonces")]
    Random,
}

impl AdapterError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Identity(error) => error.kind(),
            Self::NotEnrolled { .. } | Self::SameInstance { .. } => Kind::Usage,
            Self::Random => Kind::Local,
        }
    }
}

/// Writes the phones' routing records.
pub(super) struct Publisher {
    core: Arc<Core>,
    lines: HashMap<InstanceId, Line>,
    lifetime: Duration,
}

struct Line {
    aor: Aor,
    home: Home,
    key: SecretKey,
}

/// Why a routing record was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("no certificate permits it")]
    NotEnrolled,
    #[error("{0}")]
    Refused(String),
}

impl Publisher {
    /// Loads the phones' keys, and makes those that do not exist yet.
    pub(super) fn new(core: &Arc<Core>, phones: &[Phone]) -> Result<Self, AdapterError> {
        let lifetime = Duration::from_secs(core.descriptor().limits().max_lifetime_s.into()).min(LIFETIME);
        let mut lines: HashMap<InstanceId, Line> = HashMap::new();
        let mut users: HashMap<InstanceId, &str> = HashMap::new();
        for phone in phones {
            let (aor, home, key) = (phone.aor.clone(), phone.home.clone(), phone.home.instance_key()?);
            let instance = key.instance();
            if let Some(one) = users.insert(instance, &phone.user) {
                return Err(AdapterError::SameInstance { one: one.to_owned(), other: phone.user.clone() });
            }
            let name = ResourceName::User(aor.clone());
            let is_enrolled = core.descriptor().policy() == Policy::Open
                || home.certificate_for(&key.public(), &name, UnixMs::now())?.is_some();
            if !is_enrolled {
                let home = home.folder().display().to_string();
                return Err(AdapterError::NotEnrolled { user: phone.user.clone(), aor: aor.to_string(), home });
            }
            lines.insert(instance, Line { aor, home, key });
        }
        Ok(Self { core: core.clone(), lines, lifetime })
    }

    /// The core for these phones, which were bound to `listening`.
    pub(super) fn adapter(
        &self,
        config: &AdapterConfig,
        listening: Vec<SocketAddr>,
        alone: bool,
        now: std::time::Instant,
    ) -> Result<Adapter, AdapterError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| AdapterError::Random)?;
        let overlay = self.core.descriptor().overlay().as_str();
        let phone = |phone: &Phone| {
            let instance = phone.home.instance_key()?.instance();
            let Phone { aor, user, secret, .. } = phone.clone();
            Ok(adapter::Phone { aor, user, secret, instance })
        };
        let config = adapter::Config {
            phones: config.phones.iter().map(phone).collect::<Result<_, IdentityError>>()?,
            listening,
            terms: Terms { algorithms: config.algorithms.clone(), ..Terms::new(overlay) },
            key,
            rate: config.rate,
            expires: config.expires.clone(),
            record: self.lifetime,
            alone,
        };
        Ok(Adapter::new(config, now))
    }

    /// Writes a phone's routing record, which names this member, or a tombstone; says whether somebody has stored it.
    pub(super) async fn publish(&self, instance: InstanceId, present: bool) -> bool {
        let Some(line) = self.lines.get(&instance) else { return false };
        match self.put(line, present).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(aor = %line.aor, %error, "the routing record of a phone was not stored");
                false
            }
        }
    }

    async fn put(&self, line: &Line, present: bool) -> Result<(), PublishError> {
        let (now, descriptor) = (UnixMs::now(), self.core.descriptor());
        let sequence = line.home.next_sequence(now)?;
        let name = ResourceName::User(line.aor.clone());
        let certificate = match descriptor.policy() {
            Policy::Open => None,
            Policy::Enrolled => {
                let certificate = line.home.certificate_for(&line.key.public(), &name, now)?;
                Some(certificate.ok_or(PublishError::NotEnrolled)?)
            }
        };
        let (body, expires) = if present {
            let own = self.core.network().myself();
            let addresses = own.addresses.into_iter().take(MAX_ADDRESSES).collect();
            let contact = Contact::Overlay { peer: own.peer, addresses, q: MAX_Q };
            (Body::User { contacts: vec![contact] }, UnixMs(sequence).after(self.lifetime))
        } else {
            // It has to outlive whatever it removes, at storers that were absent too.
            let longest = Duration::from_secs(descriptor.limits().max_lifetime_s.into());
            (Body::Removed, UnixMs(sequence).after(longest + TOMBSTONE_GRACE))
        };
        let envelope = seal(&Payload { name, sequence, expires, body }, &line.key, certificate.as_ref())?;
        let timeout_ms = u64::try_from(PUBLISH_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let reply = self.core.put(Put { envelope: envelope.into(), timeout_ms }).await;
        match reply.refused.first() {
            _ if !reply.stored.is_empty() => Ok(()),
            Some(refused) => Err(PublishError::Refused(refused.reason.to_string())),
            None => Err(PublishError::Refused("no storer answered".to_owned())),
        }
    }
}
