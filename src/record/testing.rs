//! Records for tests, of this module and of those above it.

use super::{Body, Contact, Payload, ServiceOffer, VerifiedRecord};
use crate::{
    clock::UnixMs,
    identity::SecretKey,
    name::{PeerId, ResourceName},
};

/// The time at which drafts are written.
pub(crate) const NOW: UnixMs = UnixMs(1_700_000_000_000);
/// How long drafts live, in milliseconds.
pub(crate) const LIFETIME: u64 = 3_600_000;

/// One of 256 keys.
pub(crate) fn key(nth: u8) -> SecretKey {
    SecretKey::from_seed(&[nth; 32])
}

/// A record in the making.
#[derive(Clone)]
pub(crate) struct Draft {
    pub payload: Payload,
    pub key: u8,
    enrolled: bool,
    pinned: bool,
}

impl Draft {
    pub(crate) fn user(name: &str, key: u8) -> Self {
        let peer = PeerId::from_public_key([key; 32]);
        let addresses = vec!["/ip4/192.0.2.1/tcp/4001".to_owned()];
        Self::new(name, key, Body::User { contacts: vec![Contact::Overlay { peer, addresses, q: 1000 }] })
    }

    pub(crate) fn service(name: &str, key: u8) -> Self {
        let peer = self::key(key).peer_id();
        let offer = ServiceOffer { peer, addresses: vec![], endpoints: vec![], serving: true, load: 0 };
        Self::new(name, key, Body::Service(offer))
    }

    fn new(name: &str, key: u8, body: Body) -> Self {
        let name = ResourceName::parse(name).unwrap();
        let payload = Payload { name, sequence: NOW.0, expires: UnixMs(NOW.0 + LIFETIME), body };
        Self { payload, key, enrolled: false, pinned: false }
    }

    pub(crate) fn removed(mut self) -> Self {
        self.payload.body = Body::Removed;
        self
    }

    /// Moves the record in time; its lifetime stays.
    pub(crate) fn sequence(mut self, sequence: u64) -> Self {
        self.payload.expires = UnixMs(self.payload.expires.0 - self.payload.sequence + sequence);
        self.payload.sequence = sequence;
        self
    }

    pub(crate) fn expires(mut self, expires: UnixMs) -> Self {
        self.payload.expires = expires;
        self
    }

    pub(crate) fn enrolled(mut self) -> Self {
        self.enrolled = true;
        self
    }

    pub(crate) fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// The record as if it had been verified, without the cost of signing it: its envelope is its payload.
    pub(crate) fn unverified(self) -> VerifiedRecord {
        let envelope = self.payload.encode().unwrap();
        let key = key(self.key).public();
        let serial = self.enrolled.then(|| format!("{:02x}", self.key));
        VerifiedRecord::new(self.payload, key, serial, self.pinned, &envelope)
    }
}
