//! Where the zone of an overlay is, and what it says at present.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};

use super::{
    PublishError,
    primary::Exchange,
    records::check_overlay,
    snapshot::{Host, Snapshot},
};
use crate::{
    dns::{
        Data, DataKind, DnsError, Family, Resolver,
        rrset::{canonical, code_name, parse_name, type_name},
    },
    name::OverlayId,
};

/// How many questions are asked at once.
const QUESTIONS: usize = 32;

/// Where the zone of an overlay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneAt {
    /// The overlay.
    pub overlay: OverlayId,
    /// The zone's name: the overlay identifier, or a name above it.
    pub zone: String,
    /// The primary server.
    pub server: SocketAddr,
}

/// How much of the zone is read.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    /// One host, and what all hosts share.
    Host(&'a str),
    /// Everything.
    All,
}

impl ZoneAt {
    /// Finds the zone of an overlay on its primary server.
    ///
    /// # Errors
    /// [`PublishError::NoZone`] if the server is not authoritative for it; [`PublishError::NoServer`].
    pub async fn on(server: SocketAddr, overlay: &OverlayId, timeout: Duration) -> Result<Self, PublishError> {
        check_overlay(overlay)?;
        let exchange = Exchange { server, deadline: Instant::now() + timeout };
        let reply = exchange.ask(&parse_name(overlay.as_str())?, RecordType::SOA, false).await?;
        let no_zone = |why: String| PublishError::NoZone { name: overlay.to_string(), server, why };
        let code = reply.metadata.response_code;
        if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Err(no_zone(format!("it answers {}", code_name(code))));
        }
        if !reply.metadata.authoritative {
            return Err(no_zone("it is not authoritative for that name".to_owned()));
        }
        match start_of_authority(&reply, overlay) {
            Some((zone, _)) => Ok(Self { overlay: overlay.clone(), zone, server }),
            None => Err(no_zone("it shows no SOA record".to_owned())),
        }
    }

    /// Finds the primary server by the zone's SOA record (RFC 2136 §4.1), and the zone there.
    ///
    /// # Errors
    /// As [`on`](Self::on), and [`PublishError::Dns`] if the name servers of `resolver` do not know.
    pub async fn find(resolver: &Resolver, overlay: &OverlayId, timeout: Duration) -> Result<Self, PublishError> {
        check_overlay(overlay)?;
        let deadline = Instant::now() + timeout;
        let mut failure = None;
        for server in resolver.servers() {
            let exchange = Exchange { server, deadline };
            let reply = match exchange.ask(&parse_name(overlay.as_str())?, RecordType::SOA, true).await {
                Ok(reply) => reply,
                Err(error) => {
                    failure.get_or_insert(error);
                    continue;
                }
            };
            let no_zone = |why: String| PublishError::NoZone { name: overlay.to_string(), server, why };
            let Some((_, primary)) = start_of_authority(&reply, overlay) else {
                failure.get_or_insert(no_zone(format!(
                    "it answers {} and shows no SOA record",
                    code_name(reply.metadata.response_code)
                )));
                continue;
            };
            // A server that holds the zone need not be looked for. It may be on another port than 53, too.
            if reply.metadata.authoritative {
                let timeout = deadline.saturating_duration_since(Instant::now());
                return Self::on(server, overlay, timeout).await;
            }
            let addresses = resolver.addresses(&primary, Family::Any, deadline).await?;
            let address = addresses.values.first().copied();
            let address = address.ok_or_else(|| no_zone(format!("its primary server {primary} has no address")))?;
            let timeout = deadline.saturating_duration_since(Instant::now());
            return Self::on(SocketAddr::new(address, 53), overlay, timeout).await;
        }
        Err(failure
            .unwrap_or_else(|| DnsError::NotConfigured { why: "the list of servers is empty".to_owned() }.into()))
    }

    /// Reads everything that concerns the overlay's proxy peers.
    ///
    /// # Errors
    /// [`PublishError::NoServer`]; [`PublishError::Dns`] if the server answers with an error.
    pub async fn read(&self, timeout: Duration) -> Result<Snapshot, PublishError> {
        self.read_until(Scope::All, Instant::now() + timeout).await
    }

    /// Reads one host.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_host(&self, host: &str, timeout: Duration) -> Result<Host, PublishError> {
        Ok(self.read_until(Scope::Host(host), Instant::now() + timeout).await?.host(host))
    }

    /// Reads what `scope` says.
    pub(super) async fn read_until(&self, scope: Scope<'_>, deadline: Instant) -> Result<Snapshot, PublishError> {
        let exchange = self.exchange(deadline);
        let mut snapshot = Snapshot::new(self.overlay.clone(), self.zone.clone());
        let mut questions = Snapshot::shared_questions(&self.overlay);
        if let Scope::Host(host) = scope {
            questions.extend(Snapshot::host_questions(host));
        }
        enter_all(&mut snapshot, exchange, questions).await?;
        if let Scope::All = scope {
            let hosts = snapshot.hosts();
            enter_all(&mut snapshot, exchange, hosts.iter().flat_map(|host| Snapshot::host_questions(host)).collect())
                .await?;
        }
        Ok(snapshot)
    }

    /// What asks the primary server until `deadline`.
    pub(super) const fn exchange(&self, deadline: Instant) -> Exchange {
        Exchange { server: self.server, deadline }
    }
}

/// Asks many questions and enters the answers.
pub(super) async fn enter_all(
    snapshot: &mut Snapshot,
    exchange: Exchange,
    questions: Vec<(String, DataKind)>,
) -> Result<(), PublishError> {
    let asked = stream::iter(questions).map(|question| async move {
        let (set, alias) = ask(exchange, &question).await?;
        Ok::<_, PublishError>((question, set, alias))
    });
    let answers: Vec<_> = asked.buffer_unordered(QUESTIONS).try_collect().await?;
    for (question, set, alias) in answers {
        snapshot.enter(question, set, alias);
    }
    Ok(())
}

/// Asks for one record set; none is an answer too. Says as well whether the name is an alias.
pub(super) async fn ask(
    exchange: Exchange,
    (name, kind): &(String, DataKind),
) -> Result<(Vec<Data>, bool), PublishError> {
    let owner = parse_name(name)?;
    let reply = exchange.ask(&owner, kind.record_type(), false).await?;
    let code = reply.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        // SRV records may lead to hosts that the server knows nothing of.
        if code == ResponseCode::Refused {
            return Ok((Vec::new(), false));
        }
        return Err(DnsError::ServerFailure {
            name: name.clone(),
            record: type_name(kind.record_type()),
            server: exchange.server,
            code: code_name(code),
            meaning: "it did not answer the question",
        }
        .into());
    }
    let own = reply.answers.iter().filter(|record| record.name == owner);
    let alias = own.clone().any(|record| record.record_type() == RecordType::CNAME);
    let set = own.filter_map(|record| Data::from_rdata(&record.data)).filter(|data| data.kind() == *kind).collect();
    Ok((set, alias))
}

/// The zone that a name lies in and its primary server, by the SOA record in a response.
fn start_of_authority(reply: &Message, overlay: &OverlayId) -> Option<(String, String)> {
    let name = parse_name(overlay.as_str()).ok()?;
    let mut records = reply.answers.iter().chain(&reply.authorities);
    records.find_map(|record| match &record.data {
        RData::SOA(soa) if record.name.zone_of(&name) => Some((canonical(&record.name), canonical(&soa.mname))),
        _ => None,
    })
}
