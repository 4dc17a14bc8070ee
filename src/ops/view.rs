//! From verified records to what is shown.

use super::outcome::{
    ContactView, DifferenceStatus, DifferenceView, HeldView, OfferView, RecordView, RejectedView, RequestStatus,
    TraceView,
};
use crate::{
    client::Rejected,
    clock::{UnixMs, ms},
    name::{Aor, InstanceId, ResourceName},
    overlay::{
        lookup::{Difference, DifferenceKind, HeldRecord, TraceLine},
        walk::{Failure, Outcome},
    },
    record::{Body, Contact, Endpoint, MAX_LOAD, MAX_Q, Refusal, ServiceOffer, VerifiedRecord},
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
        (Body::Service(offer), _) => (Vec::new(), Some(self::offer(offer))),
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

pub(super) fn offer(offer: &ServiceOffer) -> OfferView {
    let endpoint = |e: &Endpoint| match e.host.contains(':') {
        true => format!("{}:[{}]:{}", e.transport, e.host, e.port),
        false => format!("{}:{}:{}", e.transport, e.host, e.port),
    };
    OfferView {
        peer: offer.peer,
        addresses: offer.addresses.clone(),
        endpoints: offer.endpoints.iter().map(endpoint).collect(),
        serving: offer.serving,
        load: f64::from(offer.load) / f64::from(MAX_LOAD),
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

pub(super) fn trace(line: &TraceLine) -> TraceView {
    let visit = &line.visit;
    let (told_of, new_peers) = match visit.outcome {
        Outcome::Answered { peers, new } => (count(peers), count(new)),
        Outcome::Waiting | Outcome::Failed(_) => (0, 0),
    };
    let rejection = |reason: &Refusal| rejected(&Rejected { peer: visit.peer, reason: reason.clone() });
    TraceView {
        peer: visit.peer,
        told_by: visit.via,
        path: visit.path,
        hop: visit.hop,
        common_prefix_bits: visit.common_prefix,
        asked_ms: ms(visit.asked),
        took_ms: visit.took.map(ms),
        outcome: request(visit.outcome),
        told_of,
        new_peers,
        storer: line.storer,
        records: line.held.iter().map(held).collect(),
        rejected: line.refusals.iter().map(rejection).collect(),
        differences: line.differences.iter().map(difference).collect(),
    }
}

const fn request(outcome: Outcome) -> RequestStatus {
    match outcome {
        Outcome::Answered { .. } => RequestStatus::Answered,
        Outcome::Waiting => RequestStatus::Waiting,
        Outcome::Failed(Failure::Unreachable) => RequestStatus::Unreachable,
        Outcome::Failed(Failure::Silent) => RequestStatus::Silent,
        Outcome::Failed(Failure::Refused) => RequestStatus::Refused,
        Outcome::Failed(Failure::Malformed) => RequestStatus::Malformed,
    }
}

const fn held(record: &HeldRecord) -> HeldView {
    HeldView { instance: record.instance, sequence: record.sequence, tombstone: record.tombstone }
}

const fn difference(difference: &Difference) -> DifferenceView {
    let kind = match difference.kind {
        DifferenceKind::Stale => DifferenceStatus::Stale,
        DifferenceKind::Withheld => DifferenceStatus::Withheld,
        DifferenceKind::Newer => DifferenceStatus::Newer,
    };
    DifferenceView { instance: difference.instance, kind }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A duration in whole milliseconds.
pub(super) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
