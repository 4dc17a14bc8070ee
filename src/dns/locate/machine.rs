//! The pure core: questions out, answers in, targets out, one at a time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    Answer, BadTargets, Finding, Host, MAX_QUESTIONS, MAX_RULES, MAX_SERVERS, MAX_TARGETS, Options, Query, Question,
    Random, Step, Target, Transport, Verdict, Via,
    order::{sort_addresses, sort_rules, sort_servers},
};
use crate::dns::{DnsError, Family, Naptr, Origin, RrSet, RrType, Srv, resolver::parse_literal, rrset::parse_name};

/// How many sets of additional sections are kept.
const MAX_SPARE: usize = 256;
/// How many records that were passed over are written down.
const MAX_IGNORED: usize = 32;

/// What [`Locate`] needs or has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This has to be asked; its answer goes to [`Locate::answer`]. There may be more to ask meanwhile.
    Ask(Question),
    /// Nothing goes on without the answer to a question that has been asked.
    Wait,
    /// The next target to try.
    Target(Target),
    /// There is no other target.
    Done(Verdict),
}

/// One location (RFC 3263 §4), from its query to its last target.
#[derive(Debug)]
pub struct Locate {
    query: Query,
    /// What is located: maddr, or else the host.
    domain: String,
    options: Options,
    random: Random,
    /// What is to be done for the next target; the order of the front is the order of the targets.
    work: VecDeque<Work>,
    /// What has been asked, with what was found, if it is known by now.
    asked: HashMap<Question, Option<Finding>>,
    /// What came with other answers.
    spare: HashMap<Question, RrSet>,
    /// Targets that have failed of late.
    deferred: VecDeque<Target>,
    seen: HashSet<(Transport, SocketAddr)>,
    path: Vec<Step>,
    ignored: usize,
    yielded: usize,
    /// Whether there was an SRV record, or a NAPTR rule in its stead: then the domain's own address does not count.
    has_servers: bool,
    /// Whether a question about SRV records remained open, so that it cannot be said that there are none.
    servers_unknown: bool,
    unanswered: bool,
    no_domain: bool,
}

#[derive(Debug, Clone)]
enum Work {
    /// Choose transports by NAPTR (§4.1).
    Rules,
    /// Find servers by SRV: each transport's owner name.
    Servers(Vec<(Transport, String)>),
    /// Find the addresses of a host.
    Host { transport: Transport, host: String, port: u16, via: Via },
    /// Take the domain itself if it has no SRV records at all (§4.2).
    Itself(Transport),
    /// Try it.
    Try(Target),
}

impl Locate {
    /// Begins a location.
    ///
    /// # Errors
    /// [`DnsError::Unlocatable`]: `sips:` over UDP, a transport that the options do not have, port 0;
    /// [`DnsError::Invalid`]: the host is no domain name.
    pub fn new(query: &Query, options: Options, random: Random) -> Result<Self, DnsError> {
        let (given, transport) = transports(query, &options)?;
        let host = query.maddr.as_ref().unwrap_or(&query.host);
        let domain = match host {
            Host::Name(name) => parse_name(name).map(|_| name.trim_end_matches('.').to_ascii_lowercase())?,
            Host::Address(address) => address.to_string(),
        };
        let mut locate = Self {
            query: query.clone(),
            domain: domain.clone(),
            options,
            random,
            work: VecDeque::new(),
            asked: HashMap::new(),
            spare: HashMap::new(),
            deferred: VecDeque::new(),
            seen: HashSet::new(),
            path: Vec::new(),
            ignored: 0,
            yielded: 0,
            has_servers: false,
            servers_unknown: false,
            unanswered: false,
            no_domain: false,
        };
        if query.maddr.is_some() {
            locate.decide(format!("maddr is given: {domain} is located in place of {} (§4)", query.host));
        }
        let first = match (host, query.port, given) {
            (Host::Address(address), port, _) => {
                locate
                    .decide(format!("the host is an address: nothing to ask; {} (§4.1)", why(given, query, transport)));
                let address = literal(*address, port, transport);
                if !allows(locate.options.family, address.ip()) {
                    locate.decide("the address is of the other family".to_owned());
                    return Ok(locate);
                }
                vec![Work::Try(locate.target(transport, address, Via::Literal))]
            }
            (Host::Name(_), Some(port), _) => {
                locate.decide(format!("port {port} is given: only addresses; {} (§4.2)", why(given, query, transport)));
                vec![Work::Host { transport, host: domain.clone(), port, via: Via::Host { host: domain } }]
            }
            (Host::Name(_), None, Some(given)) => {
                locate.decide(format!("transport={given} is given: SRV without NAPTR (§4.1)"));
                vec![Work::Servers(vec![(given, locate.owner(given))]), Work::Itself(given)]
            }
            (Host::Name(_), None, None) => vec![Work::Rules],
        };
        locate.work.extend(first);
        Ok(locate)
    }

    /// The target of a query whose host is an address, for which nothing need be asked: the one that [`Locate`] would
    /// yield. `None` of any other query, and of one without a target.
    pub fn of_address(query: &Query, options: &Options) -> Option<Target> {
        let Host::Address(address) = query.maddr.as_ref().unwrap_or(&query.host) else { return None };
        let (_, transport) = transports(query, options).ok()?;
        let address = literal(*address, query.port, transport);
        let target = || Target { transport, address, name: query.host.to_string(), via: Via::Literal };
        allows(options.family, address.ip()).then(target)
    }

    /// What to do now. `bad` are targets to try last; `now` tells which of them still count.
    pub fn poll(&mut self, bad: &BadTargets, now: Instant) -> Next {
        loop {
            if self.yielded >= MAX_TARGETS && !(self.work.is_empty() && self.deferred.is_empty()) {
                self.decide(format!("{MAX_TARGETS} targets are enough"));
                self.work.clear();
                self.deferred.clear();
            }
            let Some(work) = self.work.pop_front() else {
                let Some(target) = self.deferred.pop_front() else { return Next::Done(self.verdict()) };
                self.yielded += 1;
                return Next::Target(target);
            };
            if let Work::Try(target) = work {
                if !self.seen.insert((target.transport, target.address)) {
                    continue;
                }
                if bad.contains(&target, now) {
                    let Target { transport, address, .. } = &target;
                    self.decide(format!("{transport} {address} has failed of late: it is tried last"));
                    self.deferred.push_back(target);
                    continue;
                }
                self.yielded += 1;
                return Next::Target(target);
            }
            if let Some(next) = self.missing(&self.questions(&work)) {
                self.work.push_front(work);
                return next;
            }
            let more = match work {
                Work::Rules => self.follow_rules(),
                Work::Servers(owners) => self.follow_servers(owners),
                Work::Host { transport, host, port, via } => self.follow_host(transport, &host, port, &via),
                Work::Itself(transport) => self.fall_back(transport),
                Work::Try(_) => Vec::new(),
            };
            for work in more.into_iter().rev() {
                self.work.push_front(work);
            }
        }
    }

    /// Takes the answer to a question that [`Locate::poll`] has asked. Any other is passed over.
    pub fn answer(&mut self, question: &Question, answer: Answer) {
        let Some(known @ None) = self.asked.get_mut(question) else { return };
        let finding = match answer.finding {
            Finding::Records(set) if set.is_empty() => Finding::NoRecords,
            finding => finding,
        };
        *known = Some(finding.clone());
        for (question, set) in answer.additional {
            if self.spare.len() < MAX_SPARE && !set.is_empty() {
                self.spare.entry(question).or_insert(set);
            }
        }
        let (origin, took) = (answer.origin, answer.took);
        self.path.push(Step::Asked { question: question.clone(), finding, origin, took });
    }

    /// The steps so far.
    pub fn path(&self) -> &[Step] {
        &self.path
    }

    /// The steps, at the end.
    pub fn into_path(self) -> Vec<Step> {
        self.path
    }

    /// What it has come to so far.
    pub const fn verdict(&self) -> Verdict {
        if self.yielded > 0 {
            Verdict::Found
        } else if self.unanswered {
            Verdict::Unanswered
        } else if self.no_domain {
            Verdict::NoDomain
        } else {
            Verdict::NoServer
        }
    }

    fn questions(&self, work: &Work) -> Vec<Question> {
        let ask = |name: &str, kind| Question { name: name.to_owned(), kind };
        match work {
            Work::Rules => vec![ask(&self.domain, RrType::Naptr)],
            Work::Servers(owners) => owners.iter().map(|(_, owner)| ask(owner, RrType::Srv)).collect(),
            Work::Host { host, .. } => {
                let kinds: &[RrType] = match self.options.family {
                    Family::Any => &[RrType::Aaaa, RrType::A],
                    Family::V4 => &[RrType::A],
                    Family::V6 => &[RrType::Aaaa],
                };
                kinds.iter().map(|kind| ask(host, *kind)).collect()
            }
            Work::Itself(_) | Work::Try(_) => Vec::new(),
        }
    }

    /// What stands between now and the answers to these questions; nothing if all are known.
    fn missing(&mut self, questions: &[Question]) -> Option<Next> {
        let mut waiting = false;
        for question in questions {
            match self.asked.get(question) {
                Some(Some(_)) => {}
                Some(None) => waiting = true,
                None => {
                    let finding = if let Some(set) = self.spare.remove(question) {
                        let finding = Finding::Records(set);
                        self.path.push(Step::Asked {
                            question: question.clone(),
                            finding: finding.clone(),
                            origin: Origin::Additional,
                            took: Duration::ZERO,
                        });
                        Some(finding)
                    } else if self.asked.len() >= MAX_QUESTIONS {
                        self.decide(format!("{question} is not asked: {MAX_QUESTIONS} questions are enough"));
                        Some(Finding::NoRecords)
                    } else {
                        None
                    };
                    let is_known = finding.is_some();
                    self.asked.insert(question.clone(), finding);
                    if !is_known {
                        return Some(Next::Ask(question.clone()));
                    }
                }
            }
        }
        waiting.then_some(Next::Wait)
    }

    fn finding(&self, name: &str, kind: RrType) -> Option<&Finding> {
        self.asked.get(&Question { name: name.to_owned(), kind })?.as_ref()
    }

    fn follow_rules(&mut self) -> Vec<Work> {
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

    fn follow_servers(&mut self, owners: Vec<(Transport, String)>) -> Vec<Work> {
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

    fn follow_host(&mut self, transport: Transport, host: &str, port: u16, via: &Via) -> Vec<Work> {
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

    fn fall_back(&mut self, transport: Transport) -> Vec<Work> {
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

    fn owner(&self, transport: Transport) -> String {
        format!("{}.{}", transport.srv_labels(), self.domain)
    }

    fn target(&self, transport: Transport, address: SocketAddr, via: Via) -> Target {
        Target { transport, address, name: self.query.host.to_string(), via }
    }

    fn decide(&mut self, what: String) {
        self.path.push(Step::Decided(what));
    }

    fn ignore(&mut self, record: &impl ToString, why: &'static str) {
        self.ignored += 1;
        if self.ignored <= MAX_IGNORED {
            self.path.push(Step::Ignored { record: record.to_string(), why });
        }
    }
}

/// The transport that the query insists on, and the one without NAPTR and SRV (RFC 3263 §4.1).
fn transports(query: &Query, options: &Options) -> Result<(Option<Transport>, Transport), DnsError> {
    let refuse = |why| DnsError::Unlocatable { host: query.host.to_string(), why };
    if query.secure && query.transport == Some(Transport::Udp) {
        return Err(refuse("sips: needs TLS, which UDP does not have (RFC 3261 §26.2.2)"));
    }
    if query.port == Some(0) {
        return Err(refuse("its port is 0"));
    }
    let given = query.transport.map(|given| if query.secure { Transport::Tls } else { given });
    let wanted = given.or(query.secure.then_some(Transport::Tls));
    let Some(&preferred) = options.transports.first() else { return Err(refuse("there is no transport here")) };
    if wanted.is_some_and(|wanted| !options.transports.contains(&wanted)) {
        return Err(refuse("its transport is not available here"));
    }
    let fallback = if options.transports.contains(&Transport::Udp) { Transport::Udp } else { preferred };
    Ok((given, wanted.unwrap_or(fallback)))
}

/// An address with its port.
fn literal(address: IpAddr, port: Option<u16>, transport: Transport) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port.unwrap_or(transport.default_port()))
}

/// Why a transport is taken that neither NAPTR nor SRV have chosen.
fn why(given: Option<Transport>, query: &Query, transport: Transport) -> String {
    match given {
        Some(_) if query.secure && query.transport != Some(Transport::Tls) => "sips: makes it tls".to_owned(),
        Some(given) => format!("transport={given} is given"),
        None if query.secure => "sips: means tls".to_owned(),
        None => format!("{transport} goes without saying"),
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

const fn allows(family: Family, address: IpAddr) -> bool {
    match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
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
