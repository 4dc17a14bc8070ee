//! What the records that were found lead to: from NAPTR rules to servers, from servers to hosts, from hosts to targets
//! (RFC 3263 §4).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    super::{
        Finding, MAX_RULES, MAX_SERVERS, Transport, Via,
        order::{sort_addresses, sort_rules, sort_servers},
    },
    Locate, Work, allows,
};
use crate::dns::{Naptr, RrSet, RrType, Srv, resolver::parse_literal, rrset::parse_name};

impl Locate {
    /// What the NAPTR rules of the domain lead to, or their absence (§4.1).
    pub(super) fn follow_rules(&mut self) -> Vec<Work> {
        let found = match self.finding(&self.domain, RrType::Naptr) {
            Some(Finding::NoName) => {
                self.no_domain = true;
                self.decide(format!("{} does not exist, and so nothing below it (RFC 8020)", self.domain));
                return Vec::new();
            }
            Some(Finding::Records(RrSet::Naptr(rules))) => Ok(rules.clone()),
            Some(Finding::Unanswered(_)) => Err(true),
            _ => Err(false),
        };
        let reason = match found {
            Ok(mut rules) => {
                sort_rules(&mut rules);
                let work = self.accepted(&rules);
                if !work.is_empty() {
                    return work;
                }
                "no NAPTR rule serves"
            }
            // Some name servers drop what they do not know. SRV will show whether this one answers at all.
            Err(true) => {
                self.unanswered = true;
                "NAPTR is not answered"
            }
            Err(false) => "there is no NAPTR",
        };
        let mut transports: Vec<Transport> = self.options.transports.clone();
        transports.retain(|transport| (*transport == Transport::Tls) == self.query.secure);
        if transports.is_empty() {
            transports.clone_from(&self.options.transports);
        }
        let fallback = match transports.first() {
            Some(&first) if !transports.contains(&Transport::Udp) => first,
            _ => Transport::Udp,
        };
        let names: Vec<String> = transports.iter().map(|transport| transport.srv_labels().to_owned()).collect();
        self.decide(format!("{reason}: SRV of each transport, {} (§4.1)", names.join(" and ")));
        let owners = transports.into_iter().map(|transport| (transport, self.owner(transport))).collect();
        vec![Work::Servers(owners), Work::Itself(fallback)]
    }

    /// What the rules that can be followed lead to.
    fn accepted(&mut self, rules: &[Naptr]) -> Vec<Work> {
        let (mut work, mut fallback) = (Vec::new(), None);
        for rule in rules {
            let transport = match self.check_rule(rule) {
                Ok(_) if work.len() >= MAX_RULES => {
                    self.ignore(rule, "there are rules enough before it");
                    continue;
                }
                Ok(transport) => transport,
                Err(why) => {
                    self.ignore(rule, why);
                    continue;
                }
            };
            let host = rule.replacement.to_ascii_lowercase();
            fallback = fallback.or(Some(transport));
            if rule.flags.eq_ignore_ascii_case("a") {
                // There is a server by that rule, and so none by default.
                self.has_servers = true;
                let via = Via::Naptr { host: host.clone() };
                work.push(Work::Host { transport, host, port: transport.default_port(), via });
            } else {
                work.push(Work::Servers(vec![(transport, host)]));
            }
        }
        work.extend(fallback.map(Work::Itself));
        work
    }

    /// The transport of a rule that can be followed (RFC 3263 §4.1, RFC 3403 §4.1).
    fn check_rule(&self, rule: &Naptr) -> Result<Transport, &'static str> {
        let transport = Transport::of_service(&rule.services).ok_or("its service is not SIP over UDP, TCP or TLS")?;
        if self.query.secure && transport != Transport::Tls {
            return Err("a sips: URI needs TLS");
        }
        if !self.options.transports.contains(&transport) {
            return Err("its transport is not available here");
        }
        if !rule.flags.eq_ignore_ascii_case("s") && !rule.flags.eq_ignore_ascii_case("a") {
            return Err("its flag is neither s nor a");
        }
        if !rule.regexp.is_empty() {
            return Err("it has a regular expression, of which SIP knows nothing");
        }
        check_target(&rule.replacement).map(|()| transport)
    }

    /// What the SRV records of these names lead to (§4.2).
    pub(super) fn follow_servers(&mut self, owners: Vec<(Transport, String)>) -> Vec<Work> {
        let mut work = Vec::new();
        for (transport, owner) in owners {
            match self.finding(&owner, RrType::Srv).cloned() {
                Some(Finding::Records(RrSet::Srv(servers))) => {
                    self.has_servers = true;
                    work.extend(self.servers_of(transport, &owner, servers));
                }
                Some(Finding::Unanswered(_)) => {
                    self.unanswered = true;
                    self.servers_unknown = true;
                }
                _ => {}
            }
        }
        work
    }

    fn servers_of(&mut self, transport: Transport, owner: &str, mut servers: Vec<Srv>) -> Vec<Work> {
        if servers.iter().all(|srv| srv.target == ".") {
            self.decide(format!("{owner} says that there is no such service (RFC 2782)"));
            return Vec::new();
        }
        servers.retain(|srv| {
            let checked = if srv.port == 0 { Err("its port is 0") } else { check_target(&srv.target) };
            checked.map_err(|why| self.ignore(srv, why)).is_ok()
        });
        let mut sorted = sort_servers(servers, &mut self.random);
        if sorted.len() > MAX_SERVERS {
            self.decide(format!("of {} servers of {owner}, {MAX_SERVERS} are enough", sorted.len()));
            sorted.truncate(MAX_SERVERS);
        }
        let host = |srv: Srv| {
            let host = srv.target.to_ascii_lowercase();
            let (owner, priority, weight) = (owner.to_owned(), srv.priority, srv.weight);
            let via = Via::Srv { owner, priority, weight, host: host.clone() };
            Work::Host { transport, host, port: srv.port, via }
        };
        sorted.into_iter().map(host).collect()
    }

    /// The targets at the addresses of a host.
    pub(super) fn follow_host(&mut self, transport: Transport, host: &str, port: u16, via: &Via) -> Vec<Work> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for kind in [RrType::Aaaa, RrType::A] {
            match self.finding(host, kind) {
                Some(Finding::Records(RrSet::Aaaa(all))) => addresses.extend(all.iter().map(|v6| v6.to_canonical())),
                Some(Finding::Records(RrSet::A(all))) => addresses.extend(all.iter().copied().map(IpAddr::V4)),
                Some(Finding::Unanswered(_)) => self.unanswered = true,
                Some(Finding::NoName) if host == self.domain => self.no_domain = true,
                _ => {}
            }
        }
        addresses.retain(|address| {
            let usable = is_unicast(*address) && allows(self.options.family, *address);
            if !usable {
                self.ignore(address, "no server can have that address");
            }
            usable
        });
        sort_addresses(addresses, self.options.unreachable)
            .into_iter()
            .map(|address| Work::Try(self.target(transport, SocketAddr::new(address, port), via.clone())))
            .collect()
    }

    /// The domain itself, if there are no SRV records at all (§4.2).
    pub(super) fn fall_back(&mut self, transport: Transport) -> Vec<Work> {
        if self.has_servers {
            return Vec::new();
        }
        if self.servers_unknown {
            self.decide(
                "whether there are SRV records is not known: the domain's own address does not count".to_owned(),
            );
            return Vec::new();
        }
        let (host, port) = (self.domain.clone(), transport.default_port());
        self.decide(format!("there is no SRV: {transport} to port {port} of {host} itself (§4.2)"));
        vec![Work::Host { transport, via: Via::Host { host: host.clone() }, host, port }]
    }
}

/// Whether a name that a record leads to can be asked for.
fn check_target(name: &str) -> Result<(), &'static str> {
    if name == "." {
        Err("it leads to no name")
    } else if parse_literal(name).is_some() {
        Err("it leads to an address, where a name belongs (RFC 2782)")
    } else if parse_name(name).is_err() {
        Err("it does not lead to a name of a host")
    } else {
        Ok(())
    }
}

/// Whether a record may say that a server has this address. Link-local ones mean nothing without an interface.
fn is_unicast(address: IpAddr) -> bool {
    let beyond = match address {
        IpAddr::V4(v4) => v4 == Ipv4Addr::BROADCAST || v4.octets().first() == Some(&0),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(beyond || address.is_unspecified() || address.is_multicast())
}
