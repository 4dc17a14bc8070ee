//! From verified records to what is shown.

use super::outcome::{ContactView, OfferView, RecordView, RejectedView};
use crate::{
    client::Rejected,
    clock::UnixMs,
    name::{Aor, InstanceId, ResourceName},
    record::{Body, Contact, Endpoint, MAX_LOAD, MAX_Q, VerifiedRecord},
};

/// The URI that reaches one instance through the overlay and no other (RFC 5627).
pub(super) fn gruu(aor: &Aor, instance: &InstanceId) -> String {
    format!("{aor};gr={instance}")
}

pub(super) fn record(record: &VerifiedRecord, now: UnixMs) -> RecordView {
    let instance = *record.instance();
    let (contacts, offer) = match (record.body(), record.name()) {
        (Body::User { contacts }, ResourceName::User(aor)) => {
            (contacts.iter().map(|contact| self::contact(contact, aor, &instance)).collect(), None)
        }
        (Body::Service(offer), _) => {
            let endpoint = |e: &Endpoint| format!("{}:{}:{}", e.transport, e.host, e.port);
            let view = OfferView {
                peer: offer.peer,
                addresses: offer.addresses.clone(),
                endpoints: offer.endpoints.iter().map(endpoint).collect(),
                serving: offer.serving,
                load: f64::from(offer.load) / f64::from(MAX_LOAD),
            };
            (Vec::new(), Some(view))
        }
        _ => (Vec::new(), None),
    };
    RecordView {
        instance,
        sequence: record.sequence(),
        key: record.signer(),
        expires_at_ms: record.expires(),
        expires_in_ms: milliseconds(record.expires().since(now)),
        certificate: record.serial().map(str::to_owned),
        contacts,
        offer,
    }
}

pub(super) fn contact(contact: &Contact, aor: &Aor, instance: &InstanceId) -> ContactView {
    let q = f64::from(contact.q()) / f64::from(MAX_Q);
    match contact {
        Contact::Overlay { peer, addresses, .. } => {
            ContactView { uri: gruu(aor, instance), peer: Some(*peer), addresses: addresses.clone(), q }
        }
        Contact::Sip { uri, .. } => ContactView { uri: uri.clone(), peer: None, addresses: Vec::new(), q },
    }
}

pub(super) fn rejected(rejected: &Rejected) -> RejectedView {
    RejectedView {
        peer: rejected.peer,
        code: rejected.reason.code().to_owned(),
        reason: rejected.reason.to_string(),
        untrusted: rejected.reason.is_untrusted(),
    }
}

/// A duration in whole milliseconds.
pub(super) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
