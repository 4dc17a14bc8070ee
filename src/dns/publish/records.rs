//! The records of one proxy peer (RFC 3263 §4), and where in the zone they lie.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::PublishError;
use crate::{
    dns::{
        Data, DescriptorPointer, DnsRecord, Naptr, Srv, descriptor_owner, dnsaddr_owner, dnsaddr_text,
        locate::Transport, rrset::parse_name,
    },
    name::{OverlayId, PeerId},
};

/// The longest time, in seconds, for which caches may keep the records: a dead proxy peer is asked for as long.
pub const MAX_TTL: u32 = 30;
/// The lease's limits, in seconds. A shorter one would leave no TTL of at most half of it.
pub const LEASES: std::ops::RangeInclusive<u32> = 2..=7 * 86_400;
/// The most addresses, endpoints and multiaddrs of one proxy peer.
const MAX_EACH: usize = 8;
/// The priority and weight of every proxy peer: they share the load evenly.
const PRIORITY: u16 = 10;
/// See [`PRIORITY`].
const WEIGHT: u16 = 50;
/// The preference of every NAPTR rule: each transport has one.
const PREFERENCE: u16 = 50;

/// The transports that have records of their own. TLS is for those alone who have a certificate for the overlay identifier.
pub const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

/// Where the SRV records of a transport lie.
pub fn srv_owner(transport: Transport, overlay: &OverlayId) -> String {
    format!("{}.{overlay}", transport.srv_labels())
}

/// The rule that leads to a transport's SRV records. TLS is preferred, then what has no limit on a message's size.
pub(super) fn rule(transport: Transport, overlay: &OverlayId) -> Naptr {
    let (order, services) = match transport {
        Transport::Tls => (10, "SIPS+D2T"),
        Transport::Tcp => (20, "SIP+D2T"),
        Transport::Udp => (30, "SIP+D2U"),
    };
    Naptr {
        order,
        preference: PREFERENCE,
        flags: "s".to_owned(),
        services: services.to_owned(),
        regexp: String::new(),
        replacement: srv_owner(transport, overlay),
    }
}

/// Where a proxy peer takes SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SipEndpoint {
    /// The transport.
    pub transport: Transport,
    /// The port.
    pub port: u16,
}

/// What is published of one proxy peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The overlay.
    pub overlay: OverlayId,
    /// The proxy peer's own domain name.
    pub host: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it takes SIP.
    pub endpoints: Vec<SipEndpoint>,
    /// For how long caches may keep the records, in seconds.
    pub ttl: u32,
    /// For how long the records stay without being renewed, in seconds.
    pub lease: u32,
    /// The member that the proxy peer is.
    pub peer: Option<PeerId>,
    /// Where that member can be dialled: multiaddrs without the `/p2p/` part.
    pub dialled: Vec<String>,
    /// Which descriptor the overlay has, if that is to be published too.
    pub descriptor: Option<DescriptorPointer>,
}

impl Publication {
    /// The TTL that goes with a lease: at most [`MAX_TTL`] and at most half of it.
    pub fn ttl_of(lease: u32) -> u32 {
        MAX_TTL.min(lease / 2).max(1)
    }

    /// Checks everything that would not make sense in the DNS.
    ///
    /// # Errors
    /// [`PublishError::Unfit`], or [`PublishError::Dns`] for a text that fits no record.
    pub fn check(&self) -> Result<(), PublishError> {
        let unfit = |what: String, why: &str| Err(PublishError::Unfit { what, why: why.to_owned() });
        check_overlay(&self.overlay)?;
        parse_name(&self.host)?;
        if self.host == self.overlay.as_str() {
            return unfit(self.host.clone(), "a proxy peer needs a name of its own, like proxy1 below the overlay's");
        }
        let named = |count: usize| (1..=MAX_EACH).contains(&count);
        if !named(self.addresses.len()) || !named(self.endpoints.len()) || self.dialled.len() > MAX_EACH {
            return unfit(
                self.host.clone(),
                "it needs 1 to 8 addresses and 1 to 8 transports, and may have 8 multiaddrs",
            );
        }
        for address in &self.addresses {
            if address.is_unspecified() || address.is_multicast() || is_broadcast(address) {
                return unfit(address.to_string(), "it is not the address of one host");
            }
        }
        if self.endpoints.iter().any(|endpoint| endpoint.port == 0) {
            return unfit(self.host.clone(), "port 0 cannot be reached");
        }
        if !LEASES.contains(&self.lease) {
            return unfit(format!("a lease of {} s", self.lease), "it has to be 2 s to 7 days");
        }
        if self.ttl == 0 || self.ttl > Self::ttl_of(self.lease) {
            let why = format!("with this lease it has to be 1 to {}", Self::ttl_of(self.lease));
            return unfit(format!("a TTL of {} s", self.ttl), &why);
        }
        self.records().map(|_| ())
    }

    /// Whether it is found at the overlay identifier itself too: by those who look for no SRV records, which takes UDP
    /// on the default port and no other ports (RFC 3263 §4.1, §4.2).
    pub fn is_on_default_ports(&self) -> bool {
        on_default_ports(&self.endpoints)
    }

    /// Its records, but for the lease. Those at the identifier are the first that may have to be left out.
    pub(super) fn records(&self) -> Result<Vec<DnsRecord>, PublishError> {
        let record = |name: String, data| DnsRecord { name, ttl: self.ttl, data };
        let mut records = Vec::new();
        for address in &self.addresses {
            records.push(record(self.host.clone(), Data::address(*address)));
        }
        for &SipEndpoint { transport, port } in &self.endpoints {
            let server = Srv { priority: PRIORITY, weight: WEIGHT, port, target: self.host.clone() };
            records.push(record(srv_owner(transport, &self.overlay), Data::Srv(server)));
            records.push(record(self.overlay.to_string(), Data::Naptr(rule(transport, &self.overlay))));
        }
        if self.is_on_default_ports() {
            for address in &self.addresses {
                records.push(record(self.overlay.to_string(), Data::address(*address)));
            }
        }
        for address in &self.dialled {
            let Some(peer) = &self.peer else { break };
            records.push(record(dnsaddr_owner(&self.overlay)?, Data::text(dnsaddr_text(peer, address)?)));
        }
        if let Some(descriptor) = &self.descriptor {
            records.push(record(descriptor_owner(&self.overlay)?, Data::text(descriptor.to_string())));
        }
        // Two endpoints of one transport share a rule.
        let mut unique: Vec<DnsRecord> = Vec::with_capacity(records.len());
        for record in records {
            record.to_record()?;
            if !unique.contains(&record) {
                unique.push(record);
            }
        }
        Ok(unique)
    }

    /// The lines of a zone file, for a zone that is written by hand: no lease, for nobody would renew it.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn zone_lines(&self) -> Result<Vec<String>, PublishError> {
        self.check()?;
        Ok(self.records()?.iter().map(ToString::to_string).collect())
    }
}

/// An overlay whose identifier is no FQDN has no place in the DNS (R2).
pub(super) fn check_overlay(overlay: &OverlayId) -> Result<(), PublishError> {
    if overlay.is_fqdn() {
        return Ok(());
    }
    let why = "its identifier is not a fully qualified domain name, so nobody could look it up".to_owned();
    Err(PublishError::Unfit { what: format!("the overlay {overlay}"), why })
}

pub(super) fn on_default_ports(endpoints: &[SipEndpoint]) -> bool {
    endpoints.iter().any(|endpoint| endpoint.transport == Transport::Udp)
        && endpoints.iter().all(|endpoint| endpoint.port == endpoint.transport.default_port())
}

/// Where the lease of a host lies.
pub fn lease_owner(host: &str) -> String {
    format!("_lease.{host}")
}

/// Where pointers to all hosts with a lease lie, those with a tombstone too: so that they can be found.
pub(super) fn index_owner(overlay: &OverlayId) -> String {
    lease_owner(overlay.as_str())
}

/// The name of a proxy peer that has not been given one: from the position of its peer id, which like it is the peer's
/// alone, but fits a label whatever its case.
pub fn host_of(peer: &PeerId, overlay: &OverlayId) -> String {
    let octets = peer.position();
    let label = octets.octets().iter().take(8).map(|octet| format!("{octet:02x}")).collect::<String>();
    format!("p{label}.{overlay}")
}

/// How long a lease is, as a duration.
pub(super) const fn seconds(lease: u32) -> Duration {
    Duration::from_secs(lease as u64)
}

const fn is_broadcast(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

/// Why nobody outside reaches an address: it belongs to a private or shared network, so whoever has it is behind a NAT
/// (R11), or to one machine or link alone. `None` if somebody may.
pub fn unreachable(address: &IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            match (a, b) {
                (127, _) => Some("it is a loopback address"),
                (169, 254) => Some("it is a link-local address"),
                (100, 64..=127) => Some("it is in the range that carriers share behind a NAT (RFC 6598)"),
                (0, _) => Some("it is no host's address"),
                _ if v4.is_private() => Some("it is a private address, behind a NAT (RFC 1918)"),
                _ => None,
            }
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(mapped) => unreachable(&IpAddr::V4(mapped)),
            None if *v6 == Ipv6Addr::LOCALHOST => Some("it is a loopback address"),
            None if v6.is_unicast_link_local() => Some("it is a link-local address"),
            None if v6.is_unique_local() => Some("it is a unique local address (RFC 4193)"),
            None => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    pub(crate) fn publication() -> Publication {
        Publication {
            overlay: OverlayId::parse("p2psip.org").unwrap(),
            host: "a.p2psip.org".to_owned(),
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            endpoints: vec![
                SipEndpoint { transport: Transport::Udp, port: 5060 },
                SipEndpoint { transport: Transport::Tcp, port: 5060 },
            ],
            ttl: 30,
            lease: 60,
            peer: Some(PeerId::from_public_key([1; 32])),
            dialled: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()],
            descriptor: None,
        }
    }

    #[test]
    fn a_proxy_peer_has_these_records() {
        let peer = PeerId::from_public_key([1; 32]);
        assert_eq!(
            publication().zone_lines().unwrap(),
            [
                "a.p2psip.org. 30 IN A 192.0.2.1",
                "a.p2psip.org. 30 IN AAAA 2001:db8::1",
                "_sip._udp.p2psip.org. 30 IN SRV 10 50 5060 a.p2psip.org.",
                "p2psip.org. 30 IN NAPTR 30 50 \"s\" \"SIP+D2U\" \"\" _sip._udp.p2psip.org.",
                "_sip._tcp.p2psip.org. 30 IN SRV 10 50 5060 a.p2psip.org.",
                "p2psip.org. 30 IN NAPTR 20 50 \"s\" \"SIP+D2T\" \"\" _sip._tcp.p2psip.org.",
                "p2psip.org. 30 IN A 192.0.2.1",
                "p2psip.org. 30 IN AAAA 2001:db8::1",
                &format!("_dnsaddr.p2psip.org. 30 IN TXT \"dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/{peer}\""),
            ]
        );
        let mut elsewhere = publication();
        elsewhere.endpoints[0].port = 5070;
        assert!(!elsewhere.zone_lines().unwrap().iter().any(|line| line.starts_with("p2psip.org. 30 IN A")));
    }

    #[test]
    fn what_makes_no_sense_in_the_dns_is_refused() {
        let refused = |change: &dyn Fn(&mut Publication), says: &str| {
            let mut wrong = publication();
            change(&mut wrong);
            let error = wrong.check().unwrap_err();
            assert!(error.kind() == Kind::Usage && error.to_string().contains(says), "{error}");
        };
        publication().check().unwrap();
        refused(&|p| p.overlay = OverlayId::parse_local("local").unwrap(), "fully qualified");
        refused(&|p| p.host = "p2psip.org".into(), "a name of its own");
        refused(&|p| p.host = "a b.org".into(), "letters");
        refused(&|p| p.host = "a".repeat(64), "63");
        refused(&|p| p.addresses.clear(), "1 to 8 addresses");
        refused(&|p| p.addresses[0] = "224.0.0.1".parse().unwrap(), "one host");
        refused(&|p| p.endpoints[0].port = 0, "port 0");
        refused(&|p| p.ttl = 31, "1 to 30");
        refused(&|p| (p.lease, p.ttl) = (20, 11), "1 to 10");
        refused(&|p| p.lease = 1, "2 s to 7 days");
        refused(&|p| p.dialled = vec!["nonsense".into()], "no address");
    }

    #[test]
    fn addresses_behind_a_nat_are_told_from_others() {
        for (address, part) in [
            ("10.1.2.3", "private"),
            ("172.31.0.1", "private"),
            ("192.168.0.1", "private"),
            ("100.64.0.1", "carriers"),
            ("127.0.0.2", "loopback"),
            ("169.254.1.1", "link-local"),
            ("::1", "loopback"),
            ("fe80::1", "link-local"),
            ("fd00::1", "unique local"),
            ("::ffff:10.0.0.1", "private"),
        ] {
            assert!(unreachable(&address.parse().unwrap()).unwrap().contains(part), "{address}");
        }
        for address in ["192.0.2.1", "100.128.0.1", "172.32.0.1", "2001:db8::1", "8.8.8.8"] {
            assert_eq!(unreachable(&address.parse().unwrap()), None, "{address}");
        }
    }
}
