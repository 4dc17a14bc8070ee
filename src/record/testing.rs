//! Records for tests, of this module and of those above it.

use std::{sync::Arc, time::Duration};

use super::{Body, Contact, MAX_SERVICE_LIFETIME, Payload, ServiceOffer, Trust, VerifiedRecord, seal};
use crate::{
    clock::UnixMs,
    identity::{Authority, Certificate, CertificateRequest, Descriptor, Limits, Policy, SecretKey},
    name::{OverlayId, PeerId, ResourceName, ServiceNode, TreeNode},
};

/// The time at which drafts are written.
pub(crate) const NOW: UnixMs = UnixMs(1_700_000_000_000);
/// How long drafts live, in milliseconds.
pub(crate) const LIFETIME: u64 = 3_600_000;

/// One of 256 keys.
pub(crate) fn key(nth: u8) -> SecretKey {
    SecretKey::from_seed(&[nth; 32])
}

/// The overlay that the drafts belong to.
pub(crate) fn overlay() -> OverlayId {
    OverlayId::parse("p2psip.org").unwrap()
}

/// What a member of an overlay of open policy believes.
pub(crate) fn open(limits: Limits) -> Arc<Trust> {
    let descriptor = Descriptor::new(overlay(), false, Policy::Open, None, limits).unwrap();
    Arc::new(Trust::new(Arc::new(descriptor), None))
}

/// An overlay of enrolled members: its CA, and what a member believes.
pub(crate) struct Enrolled {
    pub authority: Authority,
    pub trust: Arc<Trust>,
}

impl Enrolled {
    pub(crate) fn new() -> Self {
        let authority = Authority::create(&overlay(), NOW).unwrap();
        let ca = Some(authority.certificate().clone());
        let descriptor = Descriptor::new(overlay(), false, Policy::Enrolled, ca, Limits::default()).unwrap();
        Self { authority, trust: Arc::new(Trust::new(Arc::new(descriptor), None)) }
    }

    /// A certificate for one of the keys, valid for a day.
    pub(crate) fn certificate(&self, key: u8, names: &[&str]) -> Certificate {
        self.certificate_at(key, names, NOW)
    }

    pub(crate) fn certificate_at(&self, key: u8, names: &[&str], now: UnixMs) -> Certificate {
        let names: Vec<_> = names.iter().map(|name| ResourceName::parse(name).unwrap()).collect();
        let request = CertificateRequest::create(&self::key(key), &names).unwrap();
        self.authority.issue(&request, &names, Duration::from_secs(86_400), now).unwrap()
    }
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
        let offer = ServiceOffer { peer, addresses: vec![], endpoints: vec![], serving: true, load: 0, depth: 0 };
        let draft = Self::new(&format!("{name}#{}", TreeNode::ROOT), key, Body::Service(offer));
        draft.expires(NOW.after(MAX_SERVICE_LIFETIME))
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

    /// The same record for another tree node of its service.
    pub(crate) fn at(mut self, node: TreeNode) -> Self {
        let service = self.payload.name.service().unwrap().clone();
        self.payload.name = ServiceNode::new(service, node).into();
        self
    }

    /// The envelope of the record.
    pub(crate) fn seal(&self, certificate: Option<&Certificate>) -> Vec<u8> {
        seal(&self.payload, &key(self.key), certificate).unwrap()
    }

    /// The record as if it had been verified, without the cost of signing it: its envelope is its payload.
    pub(crate) fn unverified(self) -> VerifiedRecord {
        let envelope = self.payload.encode().unwrap();
        let key = key(self.key).public();
        let serial = self.enrolled.then(|| format!("{:02x}", self.key));
        VerifiedRecord::new(self.payload, key, serial, self.pinned, &envelope)
    }
}
