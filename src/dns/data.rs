//! Resource records one by one, in our own terms: as they are read, changed and written in a zone file.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hickory_proto::rr::{RData, Record, RecordType, rdata};

use super::{
    DnsError, Naptr, Srv, excerpt,
    rrset::{canonical, naptr, parse_name, srv, txt},
};

/// The record types that publication deals with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataKind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Aliases, which must not be where a host's addresses are to be.
    Cname,
    /// Rewriting rules (RFC 3403).
    Naptr,
    /// Pointers (RFC 1035 §3.3.12).
    Ptr,
    /// Servers of a service (RFC 2782).
    Srv,
    /// Texts.
    Txt,
}

/// What one record says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A rewriting rule.
    Naptr(Naptr),
    /// Another name, in lower case.
    Ptr(String),
    /// A server of a service; its target is in lower case.
    Srv(Srv),
    /// A text, its character-strings joined.
    Txt(Vec<u8>),
}

/// A record: an owner, how long caches may keep it, in seconds, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRecord {
    /// The owner's domain name, in lower case and without the root's dot.
    pub name: String,
    /// For how long caches may keep it, in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

impl DataKind {
    pub(super) const fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Cname => RecordType::CNAME,
            Self::Naptr => RecordType::NAPTR,
            Self::Ptr => RecordType::PTR,
            Self::Srv => RecordType::SRV,
            Self::Txt => RecordType::TXT,
        }
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Naptr => "NAPTR",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        })
    }
}

impl Data {
    /// An address of either family.
    pub const fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Txt(text.into().into_bytes())
    }

    /// The record's type.
    pub const fn kind(&self) -> DataKind {
        match self {
            Self::A(_) => DataKind::A,
            Self::Aaaa(_) => DataKind::Aaaa,
            Self::Naptr(_) => DataKind::Naptr,
            Self::Ptr(_) => DataKind::Ptr,
            Self::Srv(_) => DataKind::Srv,
            Self::Txt(_) => DataKind::Txt,
        }
    }

    pub(super) fn to_rdata(&self) -> Result<RData, DnsError> {
        match self {
            Self::A(address) => Ok(RData::A(rdata::A(*address))),
            Self::Aaaa(address) => Ok(RData::AAAA(rdata::AAAA(*address))),
            Self::Naptr(rule) => naptr(rule),
            Self::Ptr(name) => Ok(RData::PTR(rdata::PTR(parse_name(name)?))),
            Self::Srv(server) => srv(server),
            Self::Txt(text) => txt(text),
        }
    }

    /// What a received record says; `None` for a type that publication does not deal with.
    pub(super) fn from_rdata(data: &RData) -> Option<Self> {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        Some(match data {
            RData::A(address) => Self::A(address.0),
            RData::AAAA(address) => Self::Aaaa(address.0),
            RData::NAPTR(rule) => Self::Naptr(Naptr {
                order: rule.order,
                preference: rule.preference,
                flags: text(&rule.flags),
                services: text(&rule.services),
                regexp: text(&rule.regexp),
                replacement: canonical(&rule.replacement),
            }),
            RData::PTR(name) => Self::Ptr(canonical(&name.0)),
            RData::SRV(server) => Self::Srv(Srv {
                priority: server.priority,
                weight: server.weight,
                port: server.port,
                target: canonical(&server.target),
            }),
            RData::TXT(txt) => Self::Txt(txt.txt_data.concat()),
            _ => return None,
        })
    }
}

/// The value as a zone file has it (RFC 1035 §5.1, RFC 2782, RFC 3403 §4.1).
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => address.fmt(f),
            Self::Aaaa(address) => address.fmt(f),
            Self::Naptr(n) => {
                write!(f, "{} {} ", n.order, n.preference)?;
                for string in [&n.flags, &n.services, &n.regexp] {
                    quoted(string.as_bytes(), f)?;
                    f.write_str(" ")?;
                }
                f.write_str(&absolute(&n.replacement))
            }
            Self::Ptr(name) => f.write_str(&absolute(name)),
            Self::Srv(s) => write!(f, "{} {} {} {}", s.priority, s.weight, s.port, absolute(&s.target)),
            Self::Txt(text) if text.is_empty() => f.write_str("\"\""),
            Self::Txt(text) => {
                for (index, string) in text.chunks(255).enumerate() {
                    if index > 0 {
                        f.write_str(" ")?;
                    }
                    quoted(string, f)?;
                }
                Ok(())
            }
        }
    }
}

/// A `<character-string>` in quotes: whatever is not printable ASCII as `\DDD` (RFC 1035 §5.1).
fn quoted(octets: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for octet in octets {
        match octet {
            b'"' | b'\\' => write!(f, "\\{}", char::from(*octet))?,
            b' '..=b'~' => write!(f, "{}", char::from(*octet))?,
            _ => write!(f, "\\{octet:03}")?,
        }
    }
    f.write_str("\"")
}

/// The line of a zone file.
impl fmt::Display for DnsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} IN {} {}", absolute(&self.name), self.ttl, self.data.kind(), self.data)
    }
}

impl DnsRecord {
    pub(super) fn to_record(&self) -> Result<Record, DnsError> {
        Ok(Record::from_rdata(parse_name(&self.name)?, self.ttl, self.data.to_rdata()?))
    }
}

/// A name with the root's dot, as files need it.
pub(super) fn absolute(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

/// A text from the DNS, fit for a message.
pub(super) fn readable(text: &[u8]) -> String {
    excerpt(&String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_lines_of_a_zone_file() {
        let line = |name: &str, data| DnsRecord { name: name.to_owned(), ttl: 30, data }.to_string();
        assert_eq!(line("a.p2psip.org", Data::A([192, 0, 2, 1].into())), "a.p2psip.org. 30 IN A 192.0.2.1");
        let server = Srv { priority: 10, weight: 50, port: 5060, target: "a.p2psip.org".into() };
        assert_eq!(
            line("_sip._udp.p2psip.org", Data::Srv(server)),
            "_sip._udp.p2psip.org. 30 IN SRV 10 50 5060 a.p2psip.org."
        );
        let rule = Naptr {
            order: 10,
            preference: 50,
            flags: "s".into(),
            services: "SIP+D2U".into(),
            regexp: String::new(),
            replacement: "_sip._udp.p2psip.org".into(),
        };
        assert_eq!(
            line("p2psip.org", Data::Naptr(rule)),
            "p2psip.org. 30 IN NAPTR 10 50 \"s\" \"SIP+D2U\" \"\" _sip._udp.p2psip.org."
        );
        assert_eq!(line("t", Data::Txt(b"a\"b\\c\n\xff".to_vec())), "t. 30 IN TXT \"a\\\"b\\\\c\\010\\255\"");
        assert_eq!(line("t", Data::text("x".repeat(256))).matches('"').count(), 4);
        assert_eq!(line("t", Data::text("")), "t. 30 IN TXT \"\"");
    }

    #[test]
    fn what_is_written_is_read_back() {
        for data in [
            Data::A([192, 0, 2, 1].into()),
            Data::Aaaa("2001:db8::1".parse().unwrap()),
            Data::text("x".repeat(600)),
            Data::Ptr("a.p2psip.org".into()),
            Data::Srv(Srv { priority: 1, weight: 2, port: 3, target: ".".into() }),
        ] {
            assert_eq!(Data::from_rdata(&data.to_rdata().unwrap()), Some(data));
        }
    }
}
