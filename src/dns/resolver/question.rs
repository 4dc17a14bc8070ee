//! One question: how a server is asked, and what its response says.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use tracing::debug;

use super::{Additional, Denial, Found};
use crate::dns::{
    DnsError, RrSet, RrType,
    exchange::{self, NoResponse},
    rrset::{canonical, code_name},
};

/// How long an answer is believed at most, whatever its TTL.
pub(super) const MAX_TTL: u32 = 86_400;
/// How long a denial is believed at most (RFC 2308 §5).
const MAX_NEGATIVE_TTL: u32 = 3_600;
/// How many aliases are followed.
pub(super) const MAX_ALIASES: usize = 8;
/// The most records taken from the additional section.
const MAX_ADDITIONAL: usize = 64;

/// A question, and how messages about it name it: as it was asked first, before aliases were followed.
pub(super) struct Question {
    shown: String,
    pub(super) kind: RrType,
    pub(super) query: Query,
}

/// A response that settles a question, or leads on.
pub(super) enum Judgement {
    Found { found: Found, ttl: u32 },
    Denied { denial: Denial, ttl: u32 },
    Alias { target: Name, ttl: u32, hops: usize },
}

impl Question {
    pub(super) fn new(name: Name, kind: RrType) -> Self {
        let shown = name.to_ascii().trim_end_matches('.').to_owned();
        Self { shown, kind, query: Query::query(name, kind.record_type()) }
    }

    /// Asks one server. An error leaves the question open; without one, the server was silent.
    pub(super) async fn ask(&self, server: SocketAddr) -> (SocketAddr, Result<Judgement, Option<DnsError>>) {
        let judgement = match exchange::ask(server, &self.query).await {
            Ok(response) => {
                let (code, answers) = (response.metadata.response_code, response.answers.len());
                debug!(%server, question = %self.query, %code, answers, "answered");
                self.judge(server, &response).map_err(Some)
            }
            Err(NoResponse::Silent) => {
                debug!(%server, question = %self.query, "no answer");
                Err(None)
            }
            Err(NoResponse::Unreachable(cause)) => {
                debug!(%server, question = %self.query, %cause, "cannot be asked");
                Err(None)
            }
            Err(NoResponse::Malformed(why)) => Err(Some(self.malformed(server, why))),
        };
        (server, judgement)
    }

    /// What a response says.
    fn judge(&self, server: SocketAddr, response: &Message) -> Result<Judgement, DnsError> {
        let code = response.metadata.response_code;
        if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Err(self.failure(server, code));
        }
        let (mut name, mut ttl, mut hops) = (self.query.name().to_lowercase(), MAX_TTL, 0);
        loop {
            let at_name = || response.answers.iter().filter(|record| record.name.to_lowercase() == name);
            let wanted: Vec<&Record> =
                at_name().filter(|record| record.record_type() == self.kind.record_type()).collect();
            if !wanted.is_empty() {
                let ttl = wanted.iter().map(|record| record.ttl).min().unwrap_or(0).min(ttl);
                let data = wanted.into_iter().map(|record| record.data.clone()).collect();
                return Ok(Judgement::Found { found: Found { data, additional: additional(response) }, ttl });
            }
            let alias = at_name().find_map(|record| match &record.data {
                RData::CNAME(target) => Some((target.0.to_lowercase(), record.ttl)),
                _ => None,
            });
            let Some((target, of_alias)) = alias else { break };
            (name, ttl, hops) = (target, ttl.min(of_alias), hops + 1);
            if hops > MAX_ALIASES {
                return Err(self.malformed(server, "its aliases (CNAME) lead nowhere".to_owned()));
            }
        }
        let soa = response.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum).min(MAX_NEGATIVE_TTL)),
            _ => None,
        });
        // Without an SOA a denial must not be remembered (RFC 2308 §5). The code is that of the last alias (RFC 6604).
        let of_denial = soa.unwrap_or(0).min(ttl);
        if code == ResponseCode::NXDomain {
            return Ok(Judgement::Denied { denial: Denial::NxDomain, ttl: of_denial });
        }
        if soa.is_none() && hops > 0 {
            return Ok(Judgement::Alias { target: name, ttl, hops });
        }
        // Name servers without an SOA are a referral (RFC 2308 §2.2): the server expects us to ask on.
        if soa.is_none() && response.authorities.iter().any(|record| record.record_type() == RecordType::NS) {
            return Err(DnsError::ServerFailure {
                name: self.shown.clone(),
                record: self.kind.name(),
                server,
                code: "with a referral".to_owned(),
                meaning: "it does not hold the name and does not resolve on behalf of others",
            });
        }
        Ok(Judgement::Denied { denial: Denial::NoData, ttl: of_denial })
    }

    pub(super) fn denied(&self, denial: Denial) -> DnsError {
        match denial {
            Denial::NxDomain => DnsError::NxDomain { name: self.shown.clone() },
            Denial::NoData => DnsError::NoData { name: self.shown.clone(), record: self.kind.name() },
        }
    }

    pub(super) fn no_server(&self, servers: Vec<SocketAddr>) -> DnsError {
        DnsError::NoServer { name: self.shown.clone(), record: self.kind.name(), servers }
    }

    pub(super) fn malformed(&self, server: SocketAddr, why: String) -> DnsError {
        DnsError::Malformed { name: self.shown.clone(), record: self.kind.name(), server, why }
    }

    fn failure(&self, server: SocketAddr, code: ResponseCode) -> DnsError {
        let meaning = match code {
            ResponseCode::FormErr => "it did not understand the question",
            ResponseCode::ServFail => "it could not get the answer itself, or DNSSEC validation failed there",
            ResponseCode::NotImp => "it does not answer such questions",
            ResponseCode::Refused => "it does not serve that name, or not to us",
            ResponseCode::NotAuth => "it is not responsible for that name",
            _ => "it did not answer the question",
        };
        let code = code_name(code);
        DnsError::ServerFailure { name: self.shown.clone(), record: self.kind.name(), server, code, meaning }
    }
}

/// What the server has sent along, as sets: those that locating a SIP server could ask for next.
fn additional(response: &Message) -> Vec<Additional> {
    let now = Instant::now();
    let mut sets: Vec<(String, RrType, u32, Vec<&RData>)> = Vec::new();
    for record in response.additionals.iter().take(MAX_ADDITIONAL) {
        let kind = match record.data {
            RData::A(_) => RrType::A,
            RData::AAAA(_) => RrType::Aaaa,
            RData::SRV(_) => RrType::Srv,
            _ => continue,
        };
        let name = canonical(&record.name);
        match sets.iter_mut().find(|(known, of, ..)| *known == name && *of == kind) {
            Some((_, _, ttl, data)) => {
                *ttl = record.ttl.min(*ttl);
                data.push(&record.data);
            }
            None => sets.push((name, kind, record.ttl.min(MAX_TTL), vec![&record.data])),
        }
    }
    let keep = |(name, kind, ttl, data): (String, RrType, u32, Vec<&RData>)| Additional {
        name,
        kind,
        set: RrSet::from_rdata(kind, data.into_iter()),
        until: now + Duration::from_secs(ttl.into()),
    };
    sets.into_iter().map(keep).collect()
}
