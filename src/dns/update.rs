//! Updates of a zone (RFC 2136): what must hold, what is changed, and what a server's answer means. No I/O.
//!
//! A server checks all prerequisites and makes all changes, or none, before it looks at another update: that is the
//! lock by which several publishers share a zone.

use std::{fmt, net::SocketAddr};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode, UpdateMessage as _},
    rr::{DNSClass, Record, RecordType, rdata::tsig::TsigError},
};

use super::{
    Data, DataKind, DnsError, DnsRecord,
    data::absolute,
    rrset::parse_name,
    tsig::{FUDGE, Signed, TsigKey},
};

/// Something that must hold, or nothing is changed (RFC 2136 §2.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prerequisite {
    /// The name has no record of the type.
    Absent(String, DataKind),
    /// The name has exactly these records of their type, in any order; there is at least one.
    Exactly(String, Vec<Data>),
}

/// A change of a zone (RFC 2136 §2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a record; one with that value already gets the new TTL.
    Add(DnsRecord),
    /// Deletes the record with that value, if there is one.
    Delete(String, Data),
    /// Deletes all records of a type.
    DeleteAll(String, DataKind),
}

/// What one UPDATE asks for: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// The zone's name.
    pub zone: String,
    /// What must hold.
    pub prerequisites: Vec<Prerequisite>,
    /// What is changed, in this order.
    pub changes: Vec<Change>,
}

/// Why a server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The response code.
    pub code: u16,
    /// The TSIG error; 0 if there is none.
    pub tsig: u16,
    /// How far the server's clock is ahead of ours, in seconds, if it said so.
    pub ahead: Option<i64>,
    /// Whether the server has signed that. What is not signed may be anybody's word.
    pub signed: bool,
}

/// What a datagram or message from the server means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Not the response to the request, or not one that counts: keep waiting. The words say why.
    Ignore(&'static str),
    /// The update has been made. The server has signed that.
    Done,
    /// A prerequisite does not hold. The server has signed that.
    Unmet(Refusal),
    /// Nothing has been changed, for another reason.
    Refused(Refusal),
}

impl Update {
    /// The signed request. `now` is in seconds since 1970.
    pub(super) fn sign(&self, key: &TsigKey, id: u16, now: u64) -> Result<Signed, DnsError> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Update);
        message.add_zone(Query::query(parse_name(&self.zone)?, RecordType::SOA));
        for prerequisite in &self.prerequisites {
            match prerequisite {
                Prerequisite::Absent(name, kind) => {
                    message.add_pre_requisite(empty(name, *kind, DNSClass::NONE)?);
                }
                Prerequisite::Exactly(name, set) => {
                    for data in set {
                        message.add_pre_requisite(Record::from_rdata(parse_name(name)?, 0, data.to_rdata()?));
                    }
                }
            }
        }
        for change in &self.changes {
            message.add_update(match change {
                Change::Add(record) => record.to_record()?,
                Change::Delete(name, data) => {
                    let mut record = Record::from_rdata(parse_name(name)?, 0, data.to_rdata()?);
                    record.dns_class = DNSClass::NONE;
                    record
                }
                Change::DeleteAll(name, kind) => empty(name, *kind, DNSClass::ANY)?,
            });
        }
        key.sign_request(&mut message, now).map_err(|_| super::invalid(&self.zone, "the update does not fit a message"))
    }

    /// The records that are there afterwards because of it.
    pub(super) fn additions(&self) -> impl Iterator<Item = &DnsRecord> {
        self.changes.iter().filter_map(|change| match change {
            Change::Add(record) => Some(record),
            Change::Delete(..) | Change::DeleteAll(..) => None,
        })
    }

    /// The script that makes `nsupdate` do the same.
    pub fn script(&self, server: SocketAddr) -> String {
        let mut script = format!("server {} {}\nzone {}\n", server.ip(), server.port(), absolute(&self.zone));
        for prerequisite in &self.prerequisites {
            match prerequisite {
                Prerequisite::Absent(name, kind) => {
                    script.push_str(&format!("prereq nxrrset {} IN {kind}\n", absolute(name)));
                }
                Prerequisite::Exactly(name, set) => {
                    for data in set {
                        script.push_str(&format!("prereq yxrrset {} IN {} {data}\n", absolute(name), data.kind()));
                    }
                }
            }
        }
        for change in &self.changes {
            script.push_str(&match change {
                Change::Add(record) => {
                    format!(
                        "update add {} {} IN {} {}\n",
                        absolute(&record.name),
                        record.ttl,
                        record.data.kind(),
                        record.data
                    )
                }
                Change::Delete(name, data) => format!("update delete {} IN {} {data}\n", absolute(name), data.kind()),
                Change::DeleteAll(name, kind) => format!("update delete {} IN {kind}\n", absolute(name)),
            });
        }
        script.push_str("send\n");
        script
    }
}

/// A record without data, by which updates name a whole set.
fn empty(name: &str, kind: DataKind, class: DNSClass) -> Result<Record, DnsError> {
    let mut record = Record::update0(parse_name(name)?, 0, kind.record_type());
    record.dns_class = class;
    Ok(record)
}

/// What a response to the signed update `request` means (RFC 2136 §3.8, RFC 8945 §5.3). `now` is in seconds since 1970.
pub(super) fn judge(response: &[u8], request: &Signed, key: &TsigKey, now: u64) -> Judgement {
    let Ok(message) = Message::from_vec(response) else {
        return Judgement::Ignore("its answer is no DNS message");
    };
    let metadata = &message.metadata;
    if request.octets.get(..2) != Some(metadata.id.to_be_bytes().as_slice())
        || metadata.message_type != MessageType::Response
        || metadata.op_code != OpCode::Update
    {
        return Judgement::Ignore("its answer is none to an update");
    }
    let signature = message.signature().map(|record| &record.data);
    let signed = signature.is_some_and(|tsig| key.verifies(response, tsig, Some(&request.mac)));
    let in_time = signature.is_some_and(|tsig| now.abs_diff(tsig.time) <= u64::from(FUDGE));
    let tsig_error = signature.and_then(|tsig| tsig.error);
    let code = metadata.response_code;
    let refusal = Refusal {
        code: u16::from(code),
        tsig: tsig_error.map_or(0, u16::from),
        ahead: signature
            .filter(|tsig| tsig.error == Some(TsigError::BadTime) && tsig.other.len() == 6)
            .map(|tsig| tsig.other.iter().fold(0i64, |time, octet| time << 8 | i64::from(*octet)))
            .map(|theirs| theirs.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX))),
        signed,
    };
    match code {
        ResponseCode::NoError if !signed => Judgement::Ignore("its answer is not signed with the key"),
        // A response from the past, played back.
        _ if signed && !in_time && tsig_error != Some(TsigError::BadTime) => {
            Judgement::Ignore("the time of its answer's signature is wrong")
        }
        ResponseCode::NoError if tsig_error.is_none() => Judgement::Done,
        // An unsigned one would make us believe that somebody else had been faster.
        ResponseCode::YXDomain | ResponseCode::YXRRSet | ResponseCode::NXDomain | ResponseCode::NXRRSet if signed => {
            Judgement::Unmet(refusal)
        }
        // BADSIG and BADKEY cannot be signed (RFC 8945 §5.2). Whoever forges a refusal might as well hold packets back.
        _ => Judgement::Refused(refusal),
    }
}

/// The response code and the TSIG error, with what they mean.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, meaning) = code_in_words(self.code);
        match tsig_in_words(self.tsig) {
            Some((tsig, meaning)) => write!(f, "{code}, {tsig}: {meaning}")?,
            None => write!(f, "{code}: {meaning}")?,
        }
        match self.ahead {
            Some(ahead) if ahead < 0 => write!(f, "; its clock is {} s behind", ahead.unsigned_abs())?,
            Some(ahead) => write!(f, "; its clock is {ahead} s ahead")?,
            None => {}
        }
        if !self.signed {
            f.write_str(" (the answer is not signed)")?;
        }
        Ok(())
    }
}

/// Response codes as RFC 2136 §2.2 and RFC 3007 mean them.
fn code_in_words(code: u16) -> (String, &'static str) {
    let (name, meaning) = match code {
        0 => ("NOERROR", "but with an error in the signature"),
        1 => ("FORMERR", "it does not understand the update"),
        2 => ("SERVFAIL", "it failed, or cannot write the zone; its log says more"),
        3 => ("NXDOMAIN", "a name that should exist does not"),
        4 => ("NOTIMP", "it takes no updates"),
        5 => ("REFUSED", "the zone's policy does not let this key change these records"),
        6 => ("YXDOMAIN", "a name exists that should not"),
        7 => ("YXRRSET", "a record exists that should not"),
        8 => ("NXRRSET", "a record is not what it was"),
        9 => ("NOTAUTH", "it is not authoritative for the zone, or does not accept the key for it"),
        10 => ("NOTZONE", "a name lies outside of the zone"),
        _ => return (format!("RCODE {code}"), "it did not make the update"),
    };
    (name.to_owned(), meaning)
}

/// TSIG errors (RFC 8945 §3).
const fn tsig_in_words(error: u16) -> Option<(&'static str, &'static str)> {
    match error {
        0 => None,
        16 => Some(("BADSIG", "its secret for this key is another one")),
        17 => Some(("BADKEY", "it does not know the key, or not with this algorithm, or not for this zone")),
        18 => Some(("BADTIME", "the clocks differ by more than 300 s; set them")),
        22 => Some(("BADTRUNC", "it wants longer signatures")),
        _ => Some(("a TSIG error", "the signature was not accepted")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn update() -> Update {
        let record = |name: &str, data| DnsRecord { name: name.to_owned(), ttl: 30, data };
        Update {
            zone: "p2psip.org".into(),
            prerequisites: vec![
                Prerequisite::Absent("a.p2psip.org".into(), DataKind::A),
                Prerequisite::Exactly("_lease.a.p2psip.org".into(), vec![Data::text("old")]),
            ],
            changes: vec![
                Change::DeleteAll("_lease.a.p2psip.org".into(), DataKind::Txt),
                Change::Add(record("a.p2psip.org", Data::A([192, 0, 2, 1].into()))),
                Change::Delete("_p.p2psip.org".into(), Data::Ptr("a.p2psip.org".into())),
            ],
        }
    }

    /// A response as a server would make it.
    fn response(
        key: Option<&TsigKey>,
        request: &Signed,
        code: ResponseCode,
        error: Option<TsigError>,
        now: u64,
    ) -> Vec<u8> {
        let asked = Message::from_vec(&request.octets).unwrap();
        let mut reply = Message::response(asked.metadata.id, OpCode::Update);
        reply.metadata.response_code = code;
        if let Some(key) = key {
            let unsigned = reply.to_vec().unwrap();
            let tsig = &asked.signature().unwrap().data;
            reply.set_signature(key.sign_response(&unsigned, tsig, now, error).unwrap());
        }
        reply.to_vec().unwrap()
    }

    #[test]
    fn the_script_says_what_the_message_says() {
        assert_eq!(
            update().script(([127, 0, 0, 1], 5353).into()),
            "server 127.0.0.1 5353\nzone p2psip.org.\nprereq nxrrset a.p2psip.org. IN A\n\
             prereq yxrrset _lease.a.p2psip.org. IN TXT \"old\"\nupdate delete _lease.a.p2psip.org. IN TXT\n\
             update add a.p2psip.org. 30 IN A 192.0.2.1\nupdate delete _p.p2psip.org. IN PTR a.p2psip.org.\nsend\n"
        );
        let key = TsigKey::generate("k").unwrap();
        let message = Message::from_vec(&update().sign(&key, 7, NOW).unwrap().octets).unwrap();
        let classes = |records: &[Record]| records.iter().map(|record| record.dns_class).collect::<Vec<_>>();
        assert_eq!(classes(&message.answers), [DNSClass::NONE, DNSClass::IN]);
        assert_eq!(classes(&message.authorities), [DNSClass::ANY, DNSClass::IN, DNSClass::NONE]);
    }

    #[test]
    fn only_what_the_server_has_signed_is_a_success() {
        let (key, other) = (TsigKey::generate("k").unwrap(), TsigKey::generate("k").unwrap());
        let request = update().sign(&key, 7, NOW).unwrap();
        let judged = |signer: Option<&TsigKey>, code, now| {
            judge(&response(signer, &request, code, None, now), &request, &key, NOW)
        };
        assert_eq!(judged(Some(&key), ResponseCode::NoError, NOW + 9), Judgement::Done);
        for (signer, now) in [(None, NOW), (Some(&other), NOW), (Some(&key), NOW - 301)] {
            assert!(matches!(judged(signer, ResponseCode::NoError, now), Judgement::Ignore(_)));
        }
        assert!(matches!(judged(Some(&key), ResponseCode::NXRRSet, NOW), Judgement::Unmet(_)));
        assert!(matches!(judged(None, ResponseCode::NXRRSet, NOW), Judgement::Refused(_)));

        // The response to another request, even a verified one, is none to this one.
        let another = update().sign(&key, 8, NOW).unwrap();
        let reply = response(Some(&key), &another, ResponseCode::NoError, None, NOW);
        assert!(matches!(judge(&reply, &request, &key, NOW), Judgement::Ignore(_)));
        let mut same_id = reply;
        same_id[..2].copy_from_slice(&request.octets[..2]);
        assert!(matches!(judge(&same_id, &request, &key, NOW), Judgement::Ignore(_)));
    }

    #[test]
    fn refusals_are_words() {
        let key = TsigKey::generate("k").unwrap();
        let request = update().sign(&key, 7, NOW).unwrap();
        let words = |signer: Option<&TsigKey>, code, error, now| match judge(
            &response(signer, &request, code, error, now),
            &request,
            &key,
            NOW,
        ) {
            Judgement::Refused(refusal) => refusal.to_string(),
            other => panic!("{other:?}"),
        };
        let refused = words(Some(&key), ResponseCode::Refused, None, NOW);
        assert_eq!(refused, "REFUSED: the zone's policy does not let this key change these records");
        let skewed = words(Some(&key), ResponseCode::NotAuth, Some(TsigError::BadTime), NOW + 3600);
        assert!(skewed.starts_with("NOTAUTH, BADTIME: the clocks differ"), "{skewed}");
        assert!(skewed.ends_with("its clock is 3600 s ahead"), "{skewed}");
        let unsigned = words(None, ResponseCode::NotAuth, None, NOW);
        assert!(unsigned.ends_with("(the answer is not signed)"), "{unsigned}");
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(octets in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..100, mask: u8) {
            let key = TsigKey::generate("k").unwrap();
            let request = update().sign(&key, 7, NOW).unwrap();
            // No bit makes a success of a refusal.
            let mut reply = response(Some(&key), &request, ResponseCode::Refused, None, NOW);
            let at = at % reply.len();
            reply[at] ^= mask;
            prop_assert!(judge(&reply, &request, &key, NOW) != Judgement::Done);
            prop_assert!(judge(&octets, &request, &key, NOW) != Judgement::Done);
        }
    }
}
