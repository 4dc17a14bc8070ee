//! Asks name servers, several at once where the first ones fail or are slow, and remembers what they say.
//!
//! Each server is asked on its own: the one that answered last at first, the next when the one before has failed or
//! been silent for [`STAGGER`]. The first answer that settles the question (records, NXDOMAIN, NODATA) ends the race;
//! REFUSED, SERVFAIL, referrals and babble do not, and an error says which server they came from. Aliases (CNAME) are
//! followed, a few; answers, negative ones too (RFC 2308), are cached for as long as they say.

mod question;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join, stream::FuturesUnordered};
use hickory_proto::rr::RData;
use hickory_resolver::{Hosts, net::NetError, system_conf::read_system_conf};
use tokio::time::timeout_at;

use self::question::{Judgement, MAX_ALIASES, MAX_TTL, Question};
use super::{
    DnsError, RrSet, RrType,
    cache::Cache,
    invalid,
    rrset::{canonical, parse_name},
};

/// How long a server may be silent before the next one is asked as well.
const STAGGER: Duration = Duration::from_millis(200);
/// How many answers are cached.
const CACHED: usize = 1024;
/// The most records of an answer that is worth caching, so that the cache is bounded in octets, too.
const CACHED_RECORDS: usize = 64;
/// The port of name servers (RFC 1035 §4.2).
const PORT: u16 = 53;

/// Asks a list of name servers. Clones share the cache.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    servers: Vec<SocketAddr>,
    /// Which of them answered last.
    preferred: AtomicUsize,
    hosts: Option<Hosts>,
    cache: Mutex<Cache<Key, Result<Arc<Found>, Denial>>>,
}

type Key = (String, RrType);

/// What the DNS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The values, in the order in which the server sent them, which means nothing.
    pub values: Vec<T>,
    /// Whether they were validated here by DNSSEC; a server's AD bit does not count. Always false as built today.
    pub authenticated: bool,
}

/// Which addresses are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv6 and IPv4 addresses.
    #[default]
    Any,
    /// IPv4 addresses only.
    V4,
    /// IPv6 addresses only.
    V6,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This name server, just now.
    Server(SocketAddr),
    /// A server sent it unasked, along with the answer to another question.
    Additional,
    /// Some server said it earlier, and it still holds.
    Cache,
    /// Nobody was asked: it is in the hosts file, or follows from the name alone (RFC 6761).
    Local,
    /// Nobody answered.
    Nobody,
}

/// Records, and those that the server sent along.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) data: Vec<RData>,
    pub(super) additional: Vec<Additional>,
}

/// A set that came along, which has a time to live of its own.
#[derive(Debug)]
pub(super) struct Additional {
    pub(super) name: String,
    pub(super) kind: RrType,
    pub(super) set: RrSet,
    pub(super) until: Instant,
}

/// What came of a question.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) result: Result<Arc<Found>, DnsError>,
    pub(super) origin: Origin,
    pub(super) took: Duration,
}

/// In which of two ways there is nothing (RFC 2308 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denial {
    NxDomain,
    NoData,
}

impl Resolver {
    /// Asks these servers and nothing else: neither the hosts file nor the system's search list.
    ///
    /// # Errors
    /// [`DnsError::NotConfigured`] if the list is empty.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, DnsError> {
        Self::build(servers.to_vec(), None)
    }

    /// Asks the servers of the system's configuration, after its hosts file for addresses. The search list is not
    /// used: names are always fully qualified.
    ///
    /// # Errors
    /// [`DnsError::NotConfigured`] if the configuration cannot be read or names no server.
    pub fn system() -> Result<Self, DnsError> {
        let not_configured = |cause: NetError| DnsError::NotConfigured { why: cause.to_string() };
        let (config, _) = read_system_conf().map_err(not_configured)?;
        let servers = config
            .name_servers()
            .iter()
            .map(|server| SocketAddr::new(server.ip, server.connections.first().map_or(PORT, |c| c.port)))
            .collect();
        Self::build(servers, Hosts::from_system().ok())
    }

    fn build(mut servers: Vec<SocketAddr>, hosts: Option<Hosts>) -> Result<Self, DnsError> {
        let mut seen = Vec::new();
        servers.retain(|server| {
            !seen.contains(server) && {
                seen.push(*server);
                true
            }
        });
        if servers.is_empty() {
            return Err(DnsError::NotConfigured { why: "the list of servers is empty".to_owned() });
        }
        let cache = Mutex::new(Cache::new(CACHED));
        Ok(Self(Arc::new(Shared { servers, preferred: AtomicUsize::new(0), hosts, cache })))
    }

    /// The servers that are asked, in this order.
    pub fn servers(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.servers.iter().copied()
    }

    /// The TXT records of a name, the character-strings of each one joined.
    ///
    /// # Errors
    /// Says whether there are none, or nobody who could tell.
    pub async fn txt(&self, name: &str, deadline: Instant) -> Result<Answer<Vec<u8>>, DnsError> {
        self.lookup(name, RrType::Txt, deadline, |data| match data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        })
        .await
    }

    /// The addresses of a host, IPv6 before IPv4. An address literal, with or without brackets, is its own answer.
    ///
    /// # Errors
    /// If one family has addresses, what went wrong with the other is not told. If none has, an error that leaves the
    /// question open is preferred to one that says there are none.
    pub async fn addresses(&self, host: &str, family: Family, deadline: Instant) -> Result<Answer<IpAddr>, DnsError> {
        if let Some(literal) = parse_literal(host) {
            let wanted = family == Family::Any || literal.is_ipv4() == (family == Family::V4);
            return if wanted {
                Ok(Answer { values: vec![literal], authenticated: false })
            } else {
                Err(invalid(host, "it is an address of the other family"))
            };
        }
        let v4 = self.lookup(host, RrType::A, deadline, |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        });
        let v6 = self.lookup(host, RrType::Aaaa, deadline, |data| match data {
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        match family {
            Family::V4 => v4.await,
            Family::V6 => v6.await,
            Family::Any => match join(v6, v4).await {
                (Ok(mut all), Ok(more)) => {
                    all.values.extend(more.values);
                    all.authenticated &= more.authenticated;
                    Ok(all)
                }
                (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
                (Err(DnsError::NoData { name, .. }), Err(DnsError::NoData { .. })) => {
                    Err(DnsError::NoData { name, record: "A or AAAA" })
                }
                (Err(DnsError::NxDomain { .. } | DnsError::NoData { .. }), Err(other)) | (Err(other), Err(_)) => {
                    Err(other)
                }
            },
        }
    }

    async fn lookup<T>(
        &self,
        name: &str,
        kind: RrType,
        deadline: Instant,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        let found = self.fetch(name, kind, deadline).await.result?;
        Ok(Answer { values: found.data.iter().filter_map(take).collect(), authenticated: false })
    }

    /// Asks one question. Where there is an answer there is at least one record of the type.
    pub(super) async fn fetch(&self, name: &str, kind: RrType, deadline: Instant) -> Fetched {
        let started = Instant::now();
        let (origin, result) = match parse_name(name) {
            Ok(name) => self.find(Question::new(name, kind), deadline).await,
            Err(error) => (Origin::Nobody, Err(error)),
        };
        Fetched { result, origin, took: started.elapsed() }
    }

    async fn find(&self, mut question: Question, deadline: Instant) -> (Origin, Result<Arc<Found>, DnsError>) {
        if let Some(known) = self.known_here(&question) {
            return (Origin::Local, known.map_err(|denial| question.denied(denial)));
        }
        let key = (canonical(question.query.name()), question.kind);
        if let Some(known) = self.cache().get(&key, Instant::now()) {
            return (Origin::Cache, known.clone().map_err(|denial| question.denied(denial)));
        }
        let (mut ttl, mut hops) = (MAX_TTL, 0);
        loop {
            let (server, judgement) = match self.race(&question, deadline.into()).await {
                Ok(settled) => settled,
                Err(error) => return (Origin::Nobody, Err(error)),
            };
            match judgement {
                Judgement::Alias { target, ttl: of_alias, hops: more } => {
                    ttl = ttl.min(of_alias);
                    hops += more;
                    if hops > MAX_ALIASES || more == 0 {
                        let why = "its aliases (CNAME) lead nowhere".to_owned();
                        return (Origin::Server(server), Err(question.malformed(server, why)));
                    }
                    question.query.set_name(target);
                }
                Judgement::Found { found, ttl: of_answer } => {
                    let found = Arc::new(found);
                    if found.data.len() <= CACHED_RECORDS {
                        self.remember(key, Ok(found.clone()), ttl.min(of_answer));
                    }
                    return (Origin::Server(server), Ok(found));
                }
                Judgement::Denied { denial, ttl: of_denial } => {
                    self.remember(key, Err(denial), ttl.min(of_denial));
                    return (Origin::Server(server), Err(question.denied(denial)));
                }
            }
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache<Key, Result<Arc<Found>, Denial>>> {
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, key: Key, result: Result<Arc<Found>, Denial>, ttl: u32) {
        let now = Instant::now();
        self.cache().insert(key, result, now + Duration::from_secs(ttl.into()), now);
    }

    /// What needs no name server: special names (RFC 6761 §6.3, §6.4) and the hosts file.
    fn known_here(&self, question: &Question) -> Option<Result<Arc<Found>, Denial>> {
        let found = |data: Vec<RData>| Ok(Arc::new(Found { data, additional: Vec::new() }));
        let name = canonical(question.query.name());
        let is_below = |top: &str| name.rsplit('.').next() == Some(top);
        if is_below("localhost") {
            return Some(match question.kind {
                RrType::A => found(vec![RData::A(Ipv4Addr::LOCALHOST.into())]),
                RrType::Aaaa => found(vec![RData::AAAA(Ipv6Addr::LOCALHOST.into())]),
                _ => Err(Denial::NoData),
            });
        }
        if is_below("invalid") {
            return Some(Err(Denial::NxDomain));
        }
        let hosts = self.0.hosts.as_ref().filter(|_| matches!(question.kind, RrType::A | RrType::Aaaa))?;
        let data: Vec<RData> =
            hosts.lookup_static_host(&question.query)?.answers().iter().map(|record| record.data.clone()).collect();
        (!data.is_empty()).then(|| found(data))
    }

    async fn race(
        &self,
        question: &Question,
        deadline: tokio::time::Instant,
    ) -> Result<(SocketAddr, Judgement), DnsError> {
        let servers = &self.0.servers;
        let first = self.0.preferred.load(Ordering::Relaxed).checked_rem(servers.len()).unwrap_or(0);
        let (before, from) = servers.split_at(first);
        let mut waiting = from.iter().chain(before).copied();
        let mut left = servers.len();
        let mut running = FuturesUnordered::new();
        let mut asked = Vec::new();
        let mut failure = None;
        loop {
            match waiting.next() {
                Some(server) => {
                    left -= 1;
                    asked.push(server);
                    running.push(question.ask(server));
                }
                None if running.is_empty() => break,
                None => {}
            }
            // Once nobody is left to be asked, only the deadline counts.
            let until = if left > 0 { deadline.min(tokio::time::Instant::now() + STAGGER) } else { deadline };
            match timeout_at(until, running.next()).await {
                Ok(Some((server, Ok(judgement)))) => {
                    let place = servers.iter().position(|known| *known == server).unwrap_or(0);
                    self.0.preferred.store(place, Ordering::Relaxed);
                    return Ok((server, judgement));
                }
                Ok(Some((_, Err(failed)))) => {
                    if failure.is_none() {
                        failure = failed;
                    }
                }
                Ok(None) => break,
                Err(_) if tokio::time::Instant::now() >= deadline => break,
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| question.no_server(asked)))
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.servers()).finish()
    }
}

/// Parses what `--dns` takes: an address with or without a port (53), IPv6 addresses in brackets if there is a port.
///
/// # Errors
/// [`DnsError::Invalid`] for everything else, host names included: whom would one ask for their addresses?
pub fn parse_server(text: &str) -> Result<SocketAddr, DnsError> {
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => match parse_literal(text) {
            Some(ip) => SocketAddr::new(ip, PORT),
            None => {
                return Err(invalid(text, "a name server is given as an address like 192.0.2.1 or [2001:db8::1]:53"));
            }
        },
    };
    match address.port() {
        0 => Err(invalid(text, "port 0 cannot be asked")),
        _ => Ok(address),
    }
}

/// An IP address, IPv6 with or without brackets.
pub(super) fn parse_literal(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}
