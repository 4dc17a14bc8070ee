//! What benchmarks look up: users that are registered, each by a key of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use p2psip::{
    client::Put,
    clock::UnixMs,
    identity::SecretKey,
    lab::World,
    member::Member,
    name::{Aor, PeerId, ResourceName},
    record::{Body, Contact, Payload, seal},
};

/// How long a registration holds: longer than a benchmark runs.
const LIFETIME: Duration = Duration::from_secs(600);

/// A registered name.
pub struct Registered {
    pub name: ResourceName,
    pub sequence: u64,
    pub storers: Vec<PeerId>,
}

impl Registered {
    /// Registers the user of this number through `member`.
    pub async fn new(world: &World, member: &Member, index: usize) -> Result<Self> {
        let aor = Aor::parse(&format!("sip:user{index}@{}", world.descriptor().overlay()))?;
        let name = ResourceName::from(aor);
        let key = SecretKey::generate()?;
        let certificate = world.enrol(&key, std::slice::from_ref(&name))?;
        let now = UnixMs::now();
        let contacts = vec![Contact::Sip { uri: format!("sip:user{index}@192.0.2.1"), q: 1000 }];
        let body = Body::User { contacts };
        let payload = Payload { name: name.clone(), sequence: now.0, expires: now.after(LIFETIME), body };
        let envelope = seal(&payload, &key, certificate.as_ref())?;
        let reply = member.put(Put { envelope: envelope.into(), timeout_ms: 5000 }).await;
        ensure!(!reply.stored.is_empty(), "nobody stored {name}");
        Ok(Self { name, sequence: now.0, storers: reply.stored })
    }
}
