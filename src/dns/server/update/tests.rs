//! The rules of RFC 2136 one by one; whole updates over the network are in `dns::publish`.

use std::net::Ipv4Addr;

use super::*;
use crate::dns::{DataKind, Grant, RrSet, TsigKey, Zone, rrset::parse_name};

fn zone() -> Records {
    let addresses = |last: &[u8]| RrSet::A(last.iter().map(|last| Ipv4Addr::new(192, 0, 2, *last)).collect());
    let zone = Zone::new("p2psip.org").unwrap();
    let zone = zone.with("a.p2psip.org", &addresses(&[1, 2])).unwrap();
    zone.with("a.p2psip.org", &RrSet::Txt(vec!["x".into()])).unwrap().records
}

fn policy(grants: Vec<Grant>) -> KeyPolicy {
    KeyPolicy { key: TsigKey::generate("k").unwrap(), grants }
}

fn address(name: &str, class: DNSClass, ttl: u32, last: u8) -> Record {
    let mut record =
        Record::from_rdata(parse_name(name).unwrap(), ttl, RData::A(Ipv4Addr::new(192, 0, 2, last).into()));
    record.dns_class = class;
    record
}

fn empty(name: &str, class: DNSClass, kind: RecordType) -> Record {
    let mut record = Record::update0(parse_name(name).unwrap(), 0, kind);
    record.dns_class = class;
    record
}

fn required(prerequisites: &[Record]) -> Result<(), ResponseCode> {
    check_prerequisites(&zone(), &parse_name("p2psip.org").unwrap(), prerequisites)
}

fn updated(grants: Vec<Grant>, changes: &[Record]) -> Result<Records, ResponseCode> {
    apply(&zone(), &parse_name("p2psip.org").unwrap(), &policy(grants), &[], changes)
}

fn count(records: &Records, name: &str, kind: RecordType) -> usize {
    set_of(records, &RrKey::new(LowerName::new(&parse_name(name).unwrap()), kind)).len()
}

#[test]
fn prerequisites_are_those_of_the_rfc() {
    use DNSClass as C;
    use RecordType as T;
    const A: &str = "A.p2psip.org";
    const NOBODY: &str = "nobody.p2psip.org";
    let value = |last| address(A, C::IN, 0, last);
    for (prerequisites, expected) in [
        (vec![empty(A, C::ANY, T::ANY)], Ok(())),
        (vec![empty(NOBODY, C::ANY, T::ANY)], Err(ResponseCode::NXDomain)),
        (vec![empty(A, C::NONE, T::ANY)], Err(ResponseCode::YXDomain)),
        (vec![empty(NOBODY, C::NONE, T::ANY)], Ok(())),
        (vec![empty(A, C::ANY, T::A)], Ok(())),
        (vec![empty(A, C::ANY, T::AAAA)], Err(ResponseCode::NXRRSet)),
        (vec![empty(A, C::NONE, T::A)], Err(ResponseCode::YXRRSet)),
        (vec![empty(A, C::NONE, T::AAAA)], Ok(())),
        (vec![value(2), value(1)], Ok(())),
        (vec![value(1)], Err(ResponseCode::NXRRSet)),
        (vec![value(1), value(2), value(3)], Err(ResponseCode::NXRRSet)),
        (vec![address(NOBODY, C::IN, 0, 1)], Err(ResponseCode::NXRRSet)),
        (vec![address(A, C::IN, 1, 1)], Err(ResponseCode::FormErr)),
        (vec![address(A, C::ANY, 0, 1)], Err(ResponseCode::FormErr)),
        (vec![empty(A, C::IN, T::A)], Err(ResponseCode::FormErr)),
        (vec![empty(A, C::CH, T::A)], Err(ResponseCode::FormErr)),
        (vec![empty("p2psip.com", C::NONE, T::ANY)], Err(ResponseCode::NotZone)),
    ] {
        assert_eq!(required(&prerequisites), expected, "{prerequisites:?}");
    }
}

#[test]
fn changes_are_made_all_or_none() {
    use DNSClass as C;
    let good = address("b.p2psip.org", C::IN, 30, 9);
    for (bad, code) in [
        (address("b.p2psip.com", C::IN, 30, 9), ResponseCode::NotZone),
        (address("b.p2psip.org", C::NONE, 30, 9), ResponseCode::FormErr),
        (address("b.p2psip.org", C::ANY, 0, 9), ResponseCode::FormErr),
        (empty("b.p2psip.org", C::IN, RecordType::A), ResponseCode::FormErr),
        (empty("b.p2psip.org", C::NONE, RecordType::ANY), ResponseCode::FormErr),
    ] {
        assert_eq!(updated(vec![Grant::all()], &[good.clone(), bad]), Err(code));
    }
    let after = updated(vec![Grant::all()], &[good.clone(), address("a.p2psip.org", C::NONE, 0, 1)]).unwrap();
    assert_eq!(count(&after, "b.p2psip.org", RecordType::A), 1);
    assert_eq!(count(&after, "a.p2psip.org", RecordType::A), 1);
    let after = updated(vec![Grant::all()], &[empty("a.p2psip.org", C::ANY, RecordType::ANY), good]).unwrap();
    assert_eq!(count(&after, "a.p2psip.org", RecordType::A) + count(&after, "a.p2psip.org", RecordType::TXT), 0);
}

#[test]
fn the_zone_keeps_its_authority_whatever_is_deleted() {
    let apex = |class, kind| empty("p2psip.org", class, kind);
    let changes = [
        apex(DNSClass::ANY, RecordType::ANY),
        apex(DNSClass::ANY, RecordType::NS),
        apex(DNSClass::ANY, RecordType::SOA),
    ];
    let after = updated(vec![Grant::all()], &changes).unwrap();
    assert_eq!(count(&after, "p2psip.org", RecordType::SOA), 1);
    assert_eq!(count(&after, "p2psip.org", RecordType::NS), 1);
}

#[test]
fn a_key_changes_what_it_may_and_nothing_else() {
    let own = || vec![Grant::name("b.p2psip.org").unwrap().of(&[DataKind::A]), Grant::below("c.p2psip.org").unwrap()];
    let add = |name: &str| address(name, DNSClass::IN, 30, 9);
    for (change, right) in [
        (add("b.p2psip.org"), true),
        (add("c.p2psip.org"), true),
        (add("x.c.p2psip.org"), true),
        (add("x.b.p2psip.org"), false),
        (add("xc.p2psip.org"), false),
        (empty("b.p2psip.org", DNSClass::ANY, RecordType::A), true),
        (empty("b.p2psip.org", DNSClass::ANY, RecordType::ANY), false),
        (empty("c.p2psip.org", DNSClass::ANY, RecordType::ANY), true),
        (empty("b.p2psip.org", DNSClass::ANY, RecordType::TXT), false),
    ] {
        let result = updated(own(), &[add("b.p2psip.org"), change.clone()]);
        assert_eq!(result.map(|_| ()), if right { Ok(()) } else { Err(ResponseCode::Refused) }, "{change:?}");
    }
    let three = [7, 8, 9].map(|last| address("b.p2psip.org", DNSClass::IN, 30, last));
    let after = updated(vec![Grant::all().at_most(2)], &three).unwrap();
    assert_eq!(count(&after, "b.p2psip.org", RecordType::A), 2, "what is too much is dropped without a word");
}
