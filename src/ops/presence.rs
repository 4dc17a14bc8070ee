//! Being reachable for a while: a routing record that names this process, and what was there before it afterwards.

use std::{sync::Arc, time::Duration};

use super::{
    Access, OpsError, ViaChoice,
    lookup::Lookups,
    outcome::RecordView,
    register::{Desk, credentials},
    view,
};
use crate::{
    client::{Put, PutReply},
    clock::UnixMs,
    identity::{Certificate, Descriptor, Home, SecretKey},
    kind::Kind,
    name::{Aor, OverlayId, ResourceName},
    record::{Body, Contact, MAX_CONTACTS, MAX_Q, Payload, TOMBSTONE_GRACE, seal},
};

/// How long a record lives that nobody removed: this process may be killed.
const LIFETIME: Duration = Duration::from_secs(600);

/// The routing record of one device for as long as this process needs it.
pub(super) struct Presence {
    access: Access,
    aor: Aor,
    home: Home,
    key: SecretKey,
    certificate: Option<Certificate>,
    descriptor: Arc<Descriptor>,
    desk: Desk,
    contacts: Vec<Contact>,
    /// What the device had registered, and until when.
    before: Option<(Vec<Contact>, UnixMs)>,
}

impl Presence {
    /// Registers `contact` for this device of the user: before what it has registered, or instead of that. Requests in
    /// a dialog name the device, so it is this process that has to get them first.
    pub(super) async fn begin(
        access: &Access,
        lookups: &mut Lookups,
        aor: &Aor,
        contact: Contact,
        beside: bool,
    ) -> Result<Self, OpsError> {
        let descriptor = lookups.descriptor().clone();
        aor.check_overlay(descriptor.overlay())?;
        let home = access.own_home()?;
        let key = home.instance_key()?;
        let certificate = credentials(access, &home, &key, &descriptor, aor)?;
        let known = lookups.lookup(&ResourceName::User(aor.clone())).await?;
        let own = known.records.iter().find(|record| record.instance == key.instance());
        let before = own.map(|record| (contacts_of(record), record.expires_at_ms));
        let mut contacts = vec![contact];
        if let (true, Some((others, _))) = (beside, &before) {
            contacts.extend(others.iter().take(MAX_CONTACTS - 1).map(behind));
        }
        let mut named = access.clone();
        named.overlay.get_or_insert_with(|| aor.host().clone());
        let desk = Desk::from(named.attach(ViaChoice::Auto).await?.route);
        let (access, aor) = (access.clone(), aor.clone());
        let mut presence = Self { access, aor, home, key, certificate, descriptor, desk, contacts, before };
        presence.refresh().await?;
        Ok(presence)
    }

    /// The overlay.
    pub(super) fn overlay(&self) -> &OverlayId {
        self.descriptor.overlay()
    }

    /// The URI that reaches this device and no other.
    pub(super) fn gruu(&self) -> String {
        view::gruu(&self.aor, &self.key.instance())
    }

    /// When to refresh: halfway, which leaves time for a second try.
    pub(super) const fn refresh_after() -> Duration {
        Duration::from_secs(LIFETIME.as_secs() / 2)
    }

    /// Has the record name these addresses from the next refresh on; says whether that is a change.
    pub(super) fn move_to(&mut self, new: &[String]) -> bool {
        match self.contacts.first_mut() {
            Some(Contact::Overlay { addresses, .. }) if !new.is_empty() && addresses != new => {
                *addresses = new.to_vec();
                true
            }
            _ => false,
        }
    }

    /// Stores the record once more.
    pub(super) async fn refresh(&mut self) -> Result<(), OpsError> {
        let body = Body::User { contacts: self.contacts.clone() };
        let reply = self.put(body, UnixMs::now().after(LIFETIME)).await?;
        if !reply.stored.is_empty() {
            return Ok(());
        }
        let aor = self.aor.to_string();
        let (why, kind) = match reply.refused.first() {
            Some(refused) if refused.reason.is_untrusted() => (refused.reason.to_string(), Kind::Untrusted),
            Some(refused) => (refused.reason.to_string(), Kind::Negative),
            None => ("no member stored its routing record; try again".to_owned(), Kind::Unreachable),
        };
        Err(OpsError::NotRegistered { aor, why, kind })
    }

    /// Leaves the record as it was before.
    pub(super) async fn end(mut self) -> Result<(), OpsError> {
        let now = UnixMs::now();
        let (body, expires) = match self.before.take() {
            Some((contacts, expires)) if expires > now && !contacts.is_empty() => (Body::User { contacts }, expires),
            _ => {
                let longest = Duration::from_secs(u64::from(self.descriptor.limits().max_lifetime_s));
                (Body::Removed, now.after(longest + TOMBSTONE_GRACE))
            }
        };
        self.put(body, expires).await.map(drop)
    }

    async fn put(&mut self, body: Body, expires: UnixMs) -> Result<PutReply, OpsError> {
        let sequence = self.home.next_sequence(UnixMs::now())?;
        let name = ResourceName::User(self.aor.clone());
        let payload = Payload { name, sequence, expires, body };
        let envelope = seal(&payload, &self.key, self.certificate.as_ref())?;
        let put = Put { envelope: envelope.into(), timeout_ms: view::milliseconds(self.access.timeout) };
        Ok(self.desk.hand_in(&self.access, put).await?.0)
    }
}

/// The contact with half its preference.
fn behind(contact: &Contact) -> Contact {
    match contact.clone() {
        Contact::Overlay { peer, addresses, q } => Contact::Overlay { peer, addresses, q: q / 2 },
        Contact::Sip { uri, q } => Contact::Sip { uri, q: q / 2 },
    }
}

/// The contacts of a record that was looked up.
pub(super) fn contacts_of(record: &RecordView) -> Vec<Contact> {
    let contacts = record.contacts.iter().map(|contact| {
        // From 0 to 1 in thousandths: nothing is lost.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let q = (contact.q * f64::from(MAX_Q)).round().clamp(0.0, f64::from(MAX_Q)) as u16;
        match contact.peer {
            Some(peer) => Contact::Overlay { peer, addresses: contact.addresses.clone(), q },
            None => Contact::Sip { uri: contact.uri.clone(), q },
        }
    });
    contacts.collect()
}
