//! Resource record sets in our own terms, and their translation to hickory's.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, RecordType, rdata},
};

use super::{DnsError, invalid};

/// The longest domain name in presentation form, without the root's dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// The longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// The longest `<character-string>` (RFC 1035 §3.3).
const MAX_STRING: usize = 255;
/// The longest TXT value taken here, in octets; 65,535 would be possible, but not together with other records.
const MAX_TXT: usize = 8192;
/// The most records in one set.
const MAX_RECORDS: usize = 1024;

/// All records of one type under one name (RFC 2181 §5). An empty set means that there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RrSet {
    /// IPv4 addresses (RFC 1035 §3.4.1).
    A(Vec<Ipv4Addr>),
    /// IPv6 addresses (RFC 3596).
    Aaaa(Vec<Ipv6Addr>),
    /// Texts (RFC 1035 §3.3.14), one a record; those longer than 255 octets travel as several character-strings.
    Txt(Vec<String>),
    /// Servers of a service (RFC 2782).
    Srv(Vec<Srv>),
    /// Rewriting rules (RFC 3403), in which SIP domains say which transports they have (RFC 3263 §4.1).
    Naptr(Vec<Naptr>),
    /// The names of name servers (RFC 1035 §3.3.11).
    Ns(Vec<String>),
}

/// One server of a service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Srv {
    /// Servers with the lowest number are tried first.
    pub priority: u16,
    /// The share of clients among servers of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The server's domain name.
    pub target: String,
}

/// One rewriting rule (RFC 3403 §4.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Naptr {
    /// Rules with the lowest number are tried first; a match ends the search.
    pub order: u16,
    /// Ranks the rules of one order.
    pub preference: u16,
    /// What to do with the result: `s` for an SRV lookup, `a` for an address lookup.
    pub flags: String,
    /// The service and its transport, e.g. `SIP+D2U`.
    pub services: String,
    /// A substitution expression; empty if there is a replacement.
    pub regexp: String,
    /// The next name to ask for; `.` if there is a substitution expression.
    pub replacement: String,
}

/// The record types that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RrType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Rewriting rules.
    Naptr,
    /// Servers of a service.
    Srv,
    /// Texts.
    Txt,
}

impl RrType {
    pub(super) const fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Naptr => RecordType::NAPTR,
            Self::Srv => RecordType::SRV,
            Self::Txt => RecordType::TXT,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        type_name(self.record_type())
    }
}

impl fmt::Display for RrType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// As zone files write it, without the dot at the end of the target.
impl fmt::Display for Srv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.priority, self.weight, self.port, self.target)
    }
}

/// As zone files write it, without the dot at the end of the replacement.
impl fmt::Display for Naptr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, preference, flags, services, regexp, replacement } = self;
        write!(f, "{order} {preference} \"{flags}\" \"{services}\" \"{regexp}\" {replacement}")
    }
}

impl RrSet {
    /// The records of one type among others; texts that are not UTF-8 with replacement characters, names in lower
    /// case.
    pub(super) fn from_rdata<'a>(kind: RrType, data: impl Iterator<Item = &'a RData>) -> Self {
        fn all<'a, T>(data: impl Iterator<Item = &'a RData>, take: impl Fn(&RData) -> Option<T>) -> Vec<T> {
            data.filter_map(take).take(MAX_RECORDS).collect()
        }
        let lossy = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        match kind {
            RrType::A => Self::A(all(data, |data| if let RData::A(a) = data { Some(a.0) } else { None })),
            RrType::Aaaa => Self::Aaaa(all(data, |data| if let RData::AAAA(a) = data { Some(a.0) } else { None })),
            RrType::Naptr => Self::Naptr(all(data, |data| match data {
                RData::NAPTR(naptr) => Some(Naptr {
                    order: naptr.order,
                    preference: naptr.preference,
                    flags: lossy(&naptr.flags),
                    services: lossy(&naptr.services),
                    regexp: lossy(&naptr.regexp),
                    replacement: canonical(&naptr.replacement),
                }),
                _ => None,
            })),
            RrType::Srv => Self::Srv(all(data, |data| match data {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: canonical(&srv.target),
                }),
                _ => None,
            })),
            RrType::Txt => Self::Txt(all(data, |data| match data {
                RData::TXT(txt) => Some(lossy(&txt.txt_data.concat())),
                _ => None,
            })),
        }
    }

    /// How many records there are.
    pub const fn len(&self) -> usize {
        match self {
            Self::A(all) => all.len(),
            Self::Aaaa(all) => all.len(),
            Self::Txt(all) | Self::Ns(all) => all.len(),
            Self::Srv(all) => all.len(),
            Self::Naptr(all) => all.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The data of each record as zone files write it, in the order in which the records are meant to be used.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::A(all) => all.iter().map(ToString::to_string).collect(),
            Self::Aaaa(all) => all.iter().map(ToString::to_string).collect(),
            Self::Txt(all) => all.iter().map(|text| format!("\"{text}\"")).collect(),
            Self::Ns(all) => all.clone(),
            Self::Srv(all) => {
                let mut sorted: Vec<&Srv> = all.iter().collect();
                sorted.sort_by(|a, b| (a.priority, b.weight, &a.target).cmp(&(b.priority, a.weight, &b.target)));
                sorted.into_iter().map(ToString::to_string).collect()
            }
            Self::Naptr(all) => {
                let mut sorted: Vec<&Naptr> = all.iter().collect();
                sorted.sort_by_key(|naptr| (naptr.order, naptr.preference));
                sorted.into_iter().map(ToString::to_string).collect()
            }
        }
    }

    pub(super) const fn record_type(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::AAAA,
            Self::Txt(_) => RecordType::TXT,
            Self::Srv(_) => RecordType::SRV,
            Self::Naptr(_) => RecordType::NAPTR,
            Self::Ns(_) => RecordType::NS,
        }
    }

    /// The records' data for a message, after checking everything that would not fit one.
    pub(super) fn to_rdata(&self) -> Result<Vec<RData>, DnsError> {
        let data = match self {
            Self::A(all) => all.iter().map(|&address| Ok(RData::A(rdata::A(address)))).collect(),
            Self::Aaaa(all) => all.iter().map(|&address| Ok(RData::AAAA(rdata::AAAA(address)))).collect(),
            Self::Txt(all) => all.iter().map(|text| txt(text.as_bytes())).collect(),
            Self::Srv(all) => all.iter().map(srv).collect(),
            Self::Naptr(all) => all.iter().map(naptr).collect(),
            Self::Ns(all) => all.iter().map(|name| Ok(RData::NS(rdata::NS(parse_name(name)?)))).collect(),
        };
        match data {
            Ok(data) if Vec::len(&data) > MAX_RECORDS => {
                Err(invalid(type_name(self.record_type()), "too many records"))
            }
            data => data,
        }
    }
}

pub(super) fn txt(text: &[u8]) -> Result<RData, DnsError> {
    if text.len() > MAX_TXT {
        let text = String::from_utf8_lossy(text);
        return Err(invalid(&text, "a TXT record of more than 8192 octets would hardly fit a message"));
    }
    // A TXT record has at least one character-string, if an empty one.
    let strings: Vec<&[u8]> = if text.is_empty() { vec![&[]] } else { text.chunks(MAX_STRING).collect() };
    Ok(RData::TXT(rdata::TXT::from_bytes(strings)))
}

pub(super) fn srv(srv: &Srv) -> Result<RData, DnsError> {
    Ok(RData::SRV(rdata::SRV::new(srv.priority, srv.weight, srv.port, parse_target(&srv.target)?)))
}

pub(super) fn naptr(naptr: &Naptr) -> Result<RData, DnsError> {
    let string = |text: &str| match text.len() {
        0..=MAX_STRING => Ok(text.as_bytes().into()),
        _ => Err(invalid(text, "a field of a NAPTR record has at most 255 octets")),
    };
    if !naptr.flags.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(invalid(&naptr.flags, "NAPTR flags are letters and digits"));
    }
    Ok(RData::NAPTR(rdata::NAPTR::new(
        naptr.order,
        naptr.preference,
        string(&naptr.flags)?,
        string(&naptr.services)?,
        string(&naptr.regexp)?,
        parse_target(&naptr.replacement)?,
    )))
}

/// Parses a domain name as a fully qualified one, with or without the root's dot. Besides letters, digits and hyphens,
/// labels may have underscores (RFC 8552).
pub(super) fn parse_name(text: &str) -> Result<Name, DnsError> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    if bare.len() > MAX_NAME {
        return Err(invalid(text, "a domain name has at most 253 characters"));
    }
    if !bare.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len())) {
        return Err(invalid(text, "the labels of a domain name have 1 to 63 characters"));
    }
    if !bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(invalid(text, "a domain name has only letters, digits, hyphens and underscores"));
    }
    Name::from_ascii(format!("{bare}.")).map_err(|_| invalid(text, "it is not a domain name"))
}

/// As [`parse_name`], or the root, by which SRV and NAPTR say "none".
fn parse_target(text: &str) -> Result<Name, DnsError> {
    if text == "." { Ok(Name::root()) } else { parse_name(text) }
}

/// A name as it is compared: in lower case (RFC 4343), without the root's dot; the root itself is `.`.
pub(super) fn canonical(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.len() > 1 && text.ends_with('.') {
        text.pop();
    }
    text
}

/// How messages name the record types that are asked for here.
pub(super) const fn type_name(record_type: RecordType) -> &'static str {
    match record_type {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::TXT => "TXT",
        RecordType::SRV => "SRV",
        RecordType::NAPTR => "NAPTR",
        RecordType::NS => "NS",
        _ => "other",
    }
}

/// A response code's mnemonic.
pub(super) fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::NotAuth => "NOTAUTH".to_owned(),
        other => format!("RCODE {}", u16::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_fully_qualified_and_may_have_underscores() {
        for text in ["_dnsaddr.P2PSIP.org", "_dnsaddr.P2PSIP.org.", "a", "4.3.2.1.in-addr.arpa"] {
            let name = parse_name(text).unwrap();
            assert!(name.is_fqdn());
            assert_eq!(name.to_ascii().trim_end_matches('.'), text.trim_end_matches('.'));
        }
        for text in ["", ".", "a..b", ".a", "bücher.example", "a b", "a\\046b", "a\nb", "*.example", &"a".repeat(64)] {
            assert!(parse_name(text).is_err(), "{text}");
        }
        assert!(parse_name(&["a"; 127].join(".")).is_ok());
        assert!(parse_name(&["a"; 128].join(".")).is_err());
    }

    #[test]
    fn a_long_text_becomes_several_character_strings() {
        let lengths = |text: &str| match txt(text.as_bytes()).unwrap() {
            RData::TXT(txt) => txt.txt_data.iter().map(|string| string.len()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(lengths(""), [0]);
        assert_eq!(lengths(&"x".repeat(255)), [255]);
        assert_eq!(lengths(&"x".repeat(600)), [255, 255, 90]);
        assert!(txt(&[b'x'; MAX_TXT + 1]).is_err());
    }

    #[test]
    fn only_what_fits_a_naptr_record_is_taken() {
        let sound = Naptr {
            order: 10,
            preference: 20,
            flags: "s".into(),
            services: "SIP+D2U".into(),
            regexp: String::new(),
            replacement: "_sip._udp.p2psip.org".into(),
        };
        assert!(naptr(&sound).is_ok());
        assert!(naptr(&Naptr { replacement: ".".into(), ..sound.clone() }).is_ok());
        assert!(naptr(&Naptr { flags: "s u".into(), ..sound.clone() }).is_err());
        assert!(naptr(&Naptr { regexp: "x".repeat(256), ..sound.clone() }).is_err());
        assert!(naptr(&Naptr { replacement: "a..b".into(), ..sound }).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_name_parser_panic(text in ".*") {
            let _ = parse_name(&text);
        }
    }
}
