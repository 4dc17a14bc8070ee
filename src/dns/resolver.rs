//! Asks name servers: one hickory resolver a server, raced here.
//!
//! hickory's own pool is not used across servers, for three reasons that were read in its source and tested: one
//! server's REFUSED or SERVFAIL ends the search although another one knows the answer; the time limit of one attempt
//! is shared by all servers, so that a third one may never be asked; and its errors do not say which server they are
//! about. So each server is asked on its own: the first at once, the next when the one before has failed or been
//! silent for [`STAGGER`]. The first answer that settles the question (records, NXDOMAIN, NODATA) ends the race.
//!
//! A closed port fails no faster than a silent server, because hickory's UDP sockets are not connected and never see
//! the ICMP error. Answers, negative ones too, are cached for as long as their TTLs say.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join, stream::FuturesUnordered};
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{DnsError as Semantic, NetError, NoRecords, runtime::TokioRuntimeProvider},
    system_conf::read_system_conf,
};
use tokio::time::timeout_at;
use tracing::debug;

use super::{
    DnsError, invalid,
    rrset::{parse_name, type_name},
};

/// How long one attempt may take. A datagram is repeated once within it.
const ATTEMPT: Duration = Duration::from_millis(500);
/// How often a server is asked again: hickory makes one attempt more than this, hence 1.5 s for a silent server, in
/// which a recursive one with an empty cache has mostly found the answer.
const RETRIES: usize = 2;
/// How long a server may be silent before the next one is asked as well.
const STAGGER: Duration = Duration::from_millis(200);
/// How many answers of one server are cached.
const CACHED: u64 = 1024;
/// The port of name servers (RFC 1035 §4.2).
const PORT: u16 = 53;

/// Asks a list of name servers. Clones share caches and connections.
#[derive(Clone)]
pub struct Resolver {
    servers: Vec<Server>,
}

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    resolver: TokioResolver,
}

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

impl Resolver {
    /// Asks these servers and nothing else: neither the hosts file nor the system's search list.
    ///
    /// # Errors
    /// [`DnsError::NotConfigured`] if the list is empty.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, DnsError> {
        Self::build(servers, ResolveHosts::Never)
    }

    /// Asks the servers of the system's configuration, after its hosts file for addresses. The search list is not
    /// used: names are always fully qualified.
    ///
    /// # Errors
    /// [`DnsError::NotConfigured`] if the configuration cannot be read or names no server.
    pub fn system() -> Result<Self, DnsError> {
        let not_configured = |cause: NetError| DnsError::NotConfigured { why: cause.to_string() };
        let (config, _) = read_system_conf().map_err(not_configured)?;
        let servers: Vec<_> = config
            .name_servers()
            .iter()
            .map(|server| SocketAddr::new(server.ip, server.connections.first().map_or(PORT, |c| c.port)))
            .collect();
        Self::build(&servers, ResolveHosts::Auto)
    }

    fn build(servers: &[SocketAddr], hosts: ResolveHosts) -> Result<Self, DnsError> {
        if servers.is_empty() {
            return Err(DnsError::NotConfigured { why: "the list of servers is empty".to_owned() });
        }
        let servers = servers.iter().map(|&address| Server::new(address, hosts)).collect::<Result<_, _>>()?;
        Ok(Self { servers })
    }

    /// The servers that are asked, in this order.
    pub fn servers(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.servers.iter().map(|server| server.address)
    }

    /// The TXT records of a name, the character-strings of each one joined.
    ///
    /// # Errors
    /// Says whether there are none, or nobody who could tell.
    pub async fn txt(&self, name: &str, deadline: Instant) -> Result<Answer<Vec<u8>>, DnsError> {
        self.lookup(name, RecordType::TXT, deadline, |data| match data {
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
        let v4 = self.lookup(host, RecordType::A, deadline, |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        });
        let v6 = self.lookup(host, RecordType::AAAA, deadline, |data| match data {
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

    /// Asks one question; `take` picks the records of the type asked for from an answer that may have aliases too.
    async fn lookup<T>(
        &self,
        name: &str,
        record_type: RecordType,
        deadline: Instant,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        let question = Question { name: parse_name(name)?, record_type };
        let lookup = self.race(&question, deadline.into()).await?;
        let values: Vec<T> = lookup.answers().iter().filter_map(|record| take(&record.data)).collect();
        if values.is_empty() { Err(question.no_data()) } else { Ok(Answer { values, authenticated: false }) }
    }

    async fn race(&self, question: &Question, deadline: tokio::time::Instant) -> Result<Lookup, DnsError> {
        let mut running = FuturesUnordered::new();
        let mut waiting = self.servers.iter();
        let mut asked = Vec::new();
        let mut failure = None;
        loop {
            match waiting.next() {
                Some(server) => {
                    asked.push(server.address);
                    running.push(server.ask(question));
                }
                None if running.is_empty() => break,
                None => {}
            }
            // Once nobody is left to be asked, only the deadline counts.
            let until = if waiting.len() > 0 { deadline.min(tokio::time::Instant::now() + STAGGER) } else { deadline };
            match timeout_at(until, running.next()).await {
                Ok(Some(Ok(settled))) => return settled,
                Ok(Some(Err(failed))) => {
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

/// What a server's answer means for the race: `Ok` settles the question one way or the other, `Err` leaves it open;
/// without an error, the server was silent.
type Outcome = Result<Result<Lookup, DnsError>, Option<DnsError>>;

impl Server {
    fn new(address: SocketAddr, hosts: ResolveHosts) -> Result<Self, DnsError> {
        // hickory takes the bare IP address, so the interface of a link-local one would be lost silently.
        if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
            return Err(invalid(&address.to_string(), "name servers on link-local addresses are not supported"));
        }
        let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
        udp.port = address.port();
        tcp.port = address.port();
        let server = NameServerConfig::new(address.ip(), true, vec![udp, tcp]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = ATTEMPT;
        options.attempts = RETRIES;
        options.cache_size = CACHED;
        options.use_hosts_file = hosts;
        let resolver = builder.build().map_err(|cause| DnsError::NotConfigured { why: cause.to_string() })?;
        Ok(Self { address, resolver })
    }

    async fn ask(&self, question: &Question) -> Outcome {
        let result = self.resolver.lookup(question.name.clone(), question.record_type).await;
        let server = self.address;
        match &result {
            Ok(lookup) => debug!(%server, %question, answers = lookup.answers().len(), "answered"),
            Err(cause) => debug!(%server, %question, %cause, "no records"),
        }
        match result {
            Ok(lookup) => Ok(Ok(lookup)),
            Err(NetError::Dns(Semantic::NoRecordsFound(none))) => question.judge_empty(server, &none),
            Err(NetError::Dns(Semantic::ResponseCode(code))) => Err(Some(question.failure(server, code))),
            // Also with a truncated response before it: no TCP connection, no answer.
            Err(NetError::Timeout | NetError::Io(_) | NetError::NoConnections | NetError::Busy) => Err(None),
            Err(cause) => Err(Some(question.malformed(server, cause.to_string()))),
        }
    }
}

/// A name and a record type, which every message about them repeats.
struct Question {
    name: Name,
    record_type: RecordType,
}

impl Question {
    /// What a response without records means.
    fn judge_empty(&self, server: SocketAddr, none: &NoRecords) -> Outcome {
        match none.response_code {
            ResponseCode::NXDomain => Ok(Err(DnsError::NxDomain { name: self.shown() })),
            // Name servers without an SOA are a referral (RFC 2308 §2.2): the server expects us to ask on.
            ResponseCode::NoError if none.soa.is_none() && none.ns.is_some() => Err(Some(DnsError::ServerFailure {
                name: self.shown(),
                record: type_name(self.record_type),
                server,
                code: "with a referral".to_owned(),
                meaning: "it does not hold the name and does not resolve on behalf of others",
            })),
            ResponseCode::NoError => Ok(Err(self.no_data())),
            code => Err(Some(self.failure(server, code))),
        }
    }

    /// The name as people write it.
    fn shown(&self) -> String {
        self.name.to_ascii().trim_end_matches('.').to_owned()
    }

    fn no_data(&self) -> DnsError {
        DnsError::NoData { name: self.shown(), record: type_name(self.record_type) }
    }

    fn no_server(&self, servers: Vec<SocketAddr>) -> DnsError {
        DnsError::NoServer { name: self.shown(), record: type_name(self.record_type), servers }
    }

    fn malformed(&self, server: SocketAddr, why: String) -> DnsError {
        DnsError::Malformed { name: self.shown(), record: type_name(self.record_type), server, why }
    }

    fn failure(&self, server: SocketAddr, code: ResponseCode) -> DnsError {
        let (code, meaning) = match code {
            ResponseCode::FormErr => ("FORMERR".to_owned(), "it did not understand the question"),
            ResponseCode::ServFail => {
                ("SERVFAIL".to_owned(), "it could not get the answer itself, or DNSSEC validation failed there")
            }
            ResponseCode::NotImp => ("NOTIMP".to_owned(), "it does not answer such questions"),
            ResponseCode::Refused => ("REFUSED".to_owned(), "it does not serve that name, or not to us"),
            ResponseCode::NotAuth => ("NOTAUTH".to_owned(), "it is not responsible for that name"),
            other => (format!("RCODE {}", u16::from(other)), "it did not answer the question"),
        };
        DnsError::ServerFailure { name: self.shown(), record: type_name(self.record_type), server, code, meaning }
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.record_type)
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
fn parse_literal(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
