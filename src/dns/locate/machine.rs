//! The pure core: questions out, answers in, targets out, one at a time.

mod follow;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    Answer, BadTargets, Finding, Host, MAX_QUESTIONS, MAX_TARGETS, Options, Query, Question, Random, Step, Target,
    Transport, Verdict, Via,
};
use crate::dns::{DnsError, Family, Origin, RrSet, RrType, rrset::parse_name};

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

const fn allows(family: Family, address: IpAddr) -> bool {
    match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    }
}
