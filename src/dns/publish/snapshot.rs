//! What a zone says of an overlay's proxy peers, as it was read. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Lease, SipEndpoint, TRANSPORTS, Transport,
    records::{index_owner, lease_owner, on_default_ports, rule, srv_owner},
};
use crate::{
    dns::{Data, DataKind, DnsRecord, descriptor_owner, dnsaddr_owner},
    name::OverlayId,
};

/// The record sets that concern publication, as they were read from the primary server.
#[derive(Debug, Clone)]
pub struct Snapshot {
    overlay: OverlayId,
    zone: String,
    sets: BTreeMap<(String, DataKind), Vec<Data>>,
    aliases: BTreeSet<String>,
}

/// What the zone says of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its domain name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where SRV records send SIP to it.
    pub endpoints: Vec<SipEndpoint>,
    /// Its lease, or its tombstone.
    pub lease: Option<Lease>,
}

impl Snapshot {
    pub(super) const fn new(overlay: OverlayId, zone: String) -> Self {
        Self { overlay, zone, sets: BTreeMap::new(), aliases: BTreeSet::new() }
    }

    /// The rules, and the servers that they lead to.
    pub(super) fn rule_questions(overlay: &OverlayId) -> Vec<(String, DataKind)> {
        let servers = TRANSPORTS.into_iter().map(|transport| (srv_owner(transport, overlay), DataKind::Srv));
        servers.chain([(overlay.to_string(), DataKind::Naptr)]).collect()
    }

    /// The sets that all hosts share.
    pub(super) fn shared_questions(overlay: &OverlayId) -> Vec<(String, DataKind)> {
        let mut questions = Self::rule_questions(overlay);
        questions.extend([DataKind::A, DataKind::Aaaa].map(|kind| (overlay.to_string(), kind)));
        questions.push((index_owner(overlay), DataKind::Ptr));
        for owner in [dnsaddr_owner(overlay), descriptor_owner(overlay)].into_iter().flatten() {
            questions.push((owner, DataKind::Txt));
        }
        questions
    }

    /// The sets of one host alone.
    pub(super) fn host_questions(host: &str) -> [(String, DataKind); 3] {
        let name = host.to_owned();
        [(name.clone(), DataKind::A), (name, DataKind::Aaaa), (lease_owner(host), DataKind::Txt)]
    }

    /// Enters the answer to a question; `alias` if the name is one.
    pub(super) fn enter(&mut self, (name, kind): (String, DataKind), mut set: Vec<Data>, alias: bool) {
        if alias {
            self.aliases.insert(name.clone());
        }
        set.sort();
        set.dedup();
        self.sets.insert((name, kind), set);
    }

    /// The overlay.
    pub const fn overlay(&self) -> &OverlayId {
        &self.overlay
    }

    /// The zone that holds the records.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// A record set; empty if there is none.
    pub fn set(&self, name: &str, kind: DataKind) -> &[Data] {
        self.sets.get(&(name.to_owned(), kind)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn has(&self, name: &str, data: &Data) -> bool {
        self.set(name, data.kind()).contains(data)
    }

    /// Whether a record was asked for and is not there.
    pub(super) fn lacks(&self, record: &DnsRecord) -> bool {
        let set = self.sets.get(&(record.name.clone(), record.data.kind()));
        set.is_some_and(|set| !set.contains(&record.data))
    }

    pub(super) fn is_alias(&self, name: &str) -> bool {
        self.aliases.contains(name)
    }

    /// The names of all hosts: those that SRV records lead to, and those with a lease or a tombstone.
    pub fn hosts(&self) -> BTreeSet<String> {
        let mut hosts = BTreeSet::new();
        for transport in TRANSPORTS {
            for data in self.set(&srv_owner(transport, &self.overlay), DataKind::Srv) {
                if let Data::Srv(server) = data
                    && server.target != "."
                {
                    hosts.insert(server.target.clone());
                }
            }
        }
        for data in self.set(&index_owner(&self.overlay), DataKind::Ptr) {
            if let Data::Ptr(host) = data {
                hosts.insert(host.clone());
            }
        }
        hosts
    }

    /// The texts at a host's lease, whatever they say.
    pub(super) fn lease_set(&self, host: &str) -> &[Data] {
        self.set(&lease_owner(host), DataKind::Txt)
    }

    /// What the zone says of a host.
    pub fn host(&self, name: &str) -> Host {
        let mut endpoints = Vec::new();
        for transport in TRANSPORTS {
            for data in self.set(&srv_owner(transport, &self.overlay), DataKind::Srv) {
                if let Data::Srv(server) = data
                    && server.target == name
                {
                    endpoints.push(SipEndpoint { transport, port: server.port });
                }
            }
        }
        endpoints.sort_unstable();
        endpoints.dedup();
        let lease = match self.lease_set(name) {
            [Data::Txt(text)] => Lease::parse(text),
            _ => None,
        };
        Host { name: name.to_owned(), addresses: self.addresses(name), endpoints, lease }
    }

    /// The addresses of a name.
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let sets = [DataKind::A, DataKind::Aaaa].into_iter().flat_map(|kind| self.set(name, kind));
        let address = |data: &Data| match data {
            Data::A(address) => Some(IpAddr::V4(*address)),
            Data::Aaaa(address) => Some(IpAddr::V6(*address)),
            _ => None,
        };
        sets.filter_map(address).collect()
    }

    /// Addresses at the overlay identifier that are no proxy peer's: somebody's web server, say. All hosts must have
    /// been read.
    pub fn foreign_addresses(&self) -> Vec<IpAddr> {
        let known: BTreeSet<IpAddr> = self.hosts().iter().flat_map(|host| self.addresses(host)).collect();
        let mut foreign = self.addresses(self.overlay.as_str());
        foreign.retain(|address| !known.contains(address));
        foreign
    }

    /// Whether the rule that leads to a transport's servers is there, and should be.
    pub fn rule(&self, transport: Transport) -> (bool, bool) {
        let there = self.has(self.overlay.as_str(), &Data::Naptr(rule(transport, &self.overlay)));
        (there, !self.set(&srv_owner(transport, &self.overlay), DataKind::Srv).is_empty())
    }
}

impl Host {
    /// Whether it is published under a lease, over or not.
    pub fn is_leased(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.live)
    }

    pub(super) fn is_on_default_ports(&self) -> bool {
        on_default_ports(&self.endpoints)
    }
}
