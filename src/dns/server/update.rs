//! The embedded server's side of an UPDATE: the signature (RFC 8945 §5.2), then zone, prerequisites, permission and
//! changes in the order of RFC 2136 §3.
//!
//! hickory's own handler for updates (of SQLite zones) takes a subset for the whole of a set, lets any key change anything,
//! and checks and changes under different locks, so that two publishers may both win. Here one lock spans it all.

use std::{collections::BTreeMap, sync::Arc};

use hickory_proto::{
    op::{Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode},
    rr::{
        DNSClass, LowerName, Name, RData, Record, RecordSet, RecordType, RrKey,
        rdata::{
            TSIG,
            tsig::{TsigAlgorithm, TsigError, make_tsig_record},
        },
    },
    serialize::binary::BinEncoder,
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::{Catalog, MessageResponseBuilder, UpdateRequest as _},
};

use super::{Records, Served, bump_serial, policy::KeyPolicy, put};
use crate::{clock::UnixMs, dns::tsig::FUDGE};

/// Answers questions through hickory's catalog and updates by itself.
pub(super) struct Handler {
    pub(super) catalog: Catalog,
    pub(super) zones: Arc<Vec<Served>>,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, response: R) -> ResponseInfo {
        let metadata = &request.metadata;
        if metadata.op_code == OpCode::Update && metadata.message_type == MessageType::Query {
            self.update(request, response).await
        } else {
            self.catalog.handle_request::<R, T>(request, response).await
        }
    }
}

/// How a response is signed.
enum Signing<'a> {
    /// Not at all.
    Not,
    /// With the key of the request.
    With(&'a KeyPolicy, &'a TSIG, Option<TsigError>),
    /// Only with an error, because there is no key in common (RFC 8945 §5.2.1, §5.2.2).
    Error(&'a Record<TSIG>, TsigError),
}

impl Handler {
    async fn update<R: ResponseHandler>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let now = UnixMs::now().0 / 1000;
        let (code, signing) = self.decide(request, now).await;
        let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Update);
        metadata.response_code = code;
        let built = || MessageResponseBuilder::new(&request.queries, None).build_no_records(metadata);
        let mut message = built();
        let signature = match signing {
            Signing::Not => None,
            Signing::Error(tsig, error) => Some(unsigned(tsig, now, error)),
            Signing::With(policy, tsig, error) => {
                let mut octets = Vec::new();
                let encoded = built().destructive_emit(&mut BinEncoder::new(&mut octets));
                encoded.ok().and_then(|_| policy.key.sign_response(&octets, tsig, now, error))
            }
        };
        if let Some(signature) = signature {
            message.set_signature(signature);
        }
        match response.send_response(message).await {
            Ok(info) => info,
            // Whoever asked has gone; the update has been made or not all the same.
            Err(_) => ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() }),
        }
    }

    async fn decide<'a>(&'a self, request: &'a Request, now: u64) -> (ResponseCode, Signing<'a>) {
        let Some(zone) = request.queries.queries().first().filter(|_| request.queries.len() == 1) else {
            return (ResponseCode::FormErr, Signing::Not);
        };
        if zone.query_type() != RecordType::SOA {
            return (ResponseCode::FormErr, Signing::Not);
        }
        let Some(served) = self.zones.iter().find(|served| LowerName::new(&served.origin) == *zone.name()) else {
            return (ResponseCode::NotAuth, Signing::Not);
        };
        if served.keys.is_empty() {
            return (ResponseCode::NotImp, Signing::Not);
        }
        let Some(signature) = request.signature() else { return (ResponseCode::Refused, Signing::Not) };
        let tsig = &signature.data;
        let known = |policy: &&KeyPolicy| {
            *policy.key.wire_name() == signature.name && *policy.key.wire_algorithm() == tsig.algorithm
        };
        let Some(policy) = served.keys.iter().find(known) else {
            return (ResponseCode::NotAuth, Signing::Error(signature, TsigError::BadKey));
        };
        if !policy.key.verifies(request.as_slice(), tsig, None) {
            return (ResponseCode::NotAuth, Signing::Error(signature, TsigError::BadSig));
        }
        if now.abs_diff(tsig.time) > u64::from(tsig.fudge.min(FUDGE)) {
            return (ResponseCode::NotAuth, Signing::With(policy, tsig, Some(TsigError::BadTime)));
        }
        let mut records = served.handler.records_mut().await;
        let changed = apply(&records, &served.origin, policy, request.prerequisites(), request.updates());
        let code = match changed {
            Ok(changed) => {
                if changed != *records {
                    *records = changed;
                    bump_serial(&mut records, &served.origin);
                }
                ResponseCode::NoError
            }
            Err(code) => code,
        };
        (code, Signing::With(policy, tsig, None))
    }
}

/// A TSIG record that carries an error and no signature.
fn unsigned(request: &Record<TSIG>, now: u64, error: TsigError) -> Box<Record<TSIG>> {
    let algorithm: TsigAlgorithm = request.data.algorithm.clone();
    let tsig = TSIG::new(algorithm, now, FUDGE, Vec::new(), request.data.oid, Some(error), Vec::new());
    Box::new(make_tsig_record(request.name.clone(), tsig))
}

/// The zone after an update, or why there is none.
fn apply(
    records: &Records,
    origin: &Name,
    policy: &KeyPolicy,
    prerequisites: &[Record],
    changes: &[Record],
) -> Result<Records, ResponseCode> {
    check_prerequisites(records, origin, prerequisites)?;
    for change in changes {
        check_change(origin, change)?;
    }
    if !changes.iter().all(|change| policy.allows(change)) {
        return Err(ResponseCode::Refused);
    }
    let mut records = records.clone();
    for change in changes {
        make(&mut records, origin, policy, change);
    }
    Ok(records)
}

/// RFC 2136 §3.2.
fn check_prerequisites(records: &Records, origin: &Name, prerequisites: &[Record]) -> Result<(), ResponseCode> {
    let mut values: BTreeMap<RrKey, Vec<RData>> = BTreeMap::new();
    for record in prerequisites {
        if record.ttl != 0 {
            return Err(ResponseCode::FormErr);
        }
        if !origin.zone_of(&record.name) {
            return Err(ResponseCode::NotZone);
        }
        let (kind, empty) = (record.record_type(), is_empty(record));
        let key = RrKey::new(LowerName::new(&record.name), kind);
        let has_any = || records.iter().any(|(at, set)| at.name == key.name && !set.is_empty());
        let has_set = || !set_of(records, &key).is_empty();
        match record.dns_class {
            DNSClass::ANY | DNSClass::NONE if !empty => return Err(ResponseCode::FormErr),
            DNSClass::ANY if kind == RecordType::ANY && !has_any() => return Err(ResponseCode::NXDomain),
            DNSClass::ANY if kind != RecordType::ANY && !has_set() => return Err(ResponseCode::NXRRSet),
            DNSClass::NONE if kind == RecordType::ANY && has_any() => return Err(ResponseCode::YXDomain),
            DNSClass::NONE if kind != RecordType::ANY && has_set() => return Err(ResponseCode::YXRRSet),
            DNSClass::ANY | DNSClass::NONE => {}
            DNSClass::IN if empty || is_meta(kind) => return Err(ResponseCode::FormErr),
            DNSClass::IN => values.entry(key).or_default().push(record.data.clone()),
            _ => return Err(ResponseCode::FormErr),
        }
    }
    // The whole set is compared: a part of it does not do.
    for (key, wanted) in values {
        let present = set_of(records, &key);
        if !present.iter().all(|data| wanted.contains(data)) || !wanted.iter().all(|data| present.contains(data)) {
            return Err(ResponseCode::NXRRSet);
        }
    }
    Ok(())
}

/// RFC 2136 §3.4.1: all changes are looked at before the first is made.
fn check_change(origin: &Name, change: &Record) -> Result<(), ResponseCode> {
    if !origin.zone_of(&change.name) {
        return Err(ResponseCode::NotZone);
    }
    let kind = change.record_type();
    let sound = match change.dns_class {
        DNSClass::IN => !is_meta(kind) && !is_empty(change),
        DNSClass::ANY => change.ttl == 0 && is_empty(change) && (kind == RecordType::ANY || !is_meta(kind)),
        DNSClass::NONE => change.ttl == 0 && !is_meta(kind),
        _ => false,
    };
    if sound { Ok(()) } else { Err(ResponseCode::FormErr) }
}

/// RFC 2136 §3.4.2. The zone's SOA and the name servers at its apex are not changed in this way at all.
fn make(records: &mut Records, origin: &Name, policy: &KeyPolicy, change: &Record) {
    let (name, kind) = (LowerName::new(&change.name), change.record_type());
    let is_protected = |kind| change.name == *origin && matches!(kind, RecordType::SOA | RecordType::NS);
    if is_protected(kind) || kind == RecordType::SOA {
        return;
    }
    let key = RrKey::new(name.clone(), kind);
    match change.dns_class {
        DNSClass::ANY if kind == RecordType::ANY => {
            records.retain(|at, _| at.name != name || is_protected(at.record_type));
        }
        DNSClass::ANY => {
            records.remove(&key);
        }
        DNSClass::NONE => {
            let mut data = set_of(records, &key);
            data.retain(|data| *data != change.data);
            let ttl = records.get(&key).map_or(change.ttl, |set| set.ttl());
            put(records, &change.name, kind, ttl, data);
        }
        _ => {
            let is_alias = |kind| kind == RecordType::CNAME;
            // An alias has no other records (RFC 1034 §3.6.2).
            if records.keys().any(|at| at.name == name && is_alias(at.record_type) != is_alias(kind)) {
                return;
            }
            let mut data = if is_alias(kind) { Vec::new() } else { set_of(records, &key) };
            if !data.contains(&change.data) {
                if data.len() >= policy.limit(&change.name, kind) {
                    return;
                }
                data.push(change.data.clone());
            }
            // The records of a set have one TTL (RFC 2181 §5.2): the latest.
            put(records, &change.name, kind, change.ttl, data);
        }
    }
}

fn set_of(records: &Records, key: &RrKey) -> Vec<RData> {
    let data = |set: &Arc<RecordSet>| set.records_without_rrsigs().map(|record| record.data.clone()).collect();
    records.get(key).map(data).unwrap_or_default()
}

const fn is_empty(record: &Record) -> bool {
    matches!(record.data, RData::Update0(_))
}

/// Types that no record of a zone has.
const fn is_meta(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::ANY | RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::TSIG | RecordType::SIG
    )
}

#[cfg(test)]
mod tests;
