//! What others see of a proxy peer: its records as the name servers show them that this machine asks, and not the zone's
//! primary server alone.

use std::time::{Duration, Instant};

use super::{
    PublishError,
    primary::Exchange,
    snapshot::{Host, Snapshot},
};
use crate::{
    dns::{Data, DnsError, Resolver, rrset::parse_name},
    name::OverlayId,
};

/// How long one name server may take before the next one is asked.
const EACH: Duration = Duration::from_secs(2);

/// Reads a host as others see it: its addresses, the SRV records that lead to it, and its lease. Nothing is remembered
/// here, so what has just been entered shows as soon as the name servers have it.
///
/// # Errors
/// [`PublishError::NoServer`], of the last name server that was asked; [`PublishError::Dns`] without any.
pub async fn shown(
    resolver: &Resolver,
    overlay: &OverlayId,
    host: &str,
    timeout: Duration,
) -> Result<Host, PublishError> {
    let deadline = Instant::now() + timeout;
    let mut failure = None;
    for server in resolver.servers() {
        let exchange = Exchange { server, deadline: deadline.min(Instant::now() + EACH) };
        match read(exchange, overlay, host).await {
            Ok(host) => return Ok(host),
            Err(error) => failure = Some(error),
        }
    }
    let none = || DnsError::NotConfigured { why: "the list of servers is empty".to_owned() }.into();
    Err(failure.unwrap_or_else(none))
}

async fn read(exchange: Exchange, overlay: &OverlayId, host: &str) -> Result<Host, PublishError> {
    let mut snapshot = Snapshot::new(overlay.clone(), overlay.to_string());
    let servers = Snapshot::rule_questions(overlay);
    let asked = servers.into_iter().chain(Snapshot::host_questions(host)).map(async |(name, kind)| {
        let owner = parse_name(&name)?;
        let reply = exchange.ask(&owner, kind.record_type(), true).await?;
        let own = reply.answers.iter().filter(|record| record.name == owner);
        let set = own.filter_map(|record| Data::from_rdata(&record.data)).filter(|data| data.kind() == kind);
        Ok::<_, PublishError>(((name, kind), set.collect()))
    });
    for (question, set) in futures::future::try_join_all(asked).await? {
        snapshot.enter(question, set, false);
    }
    Ok(snapshot.host(host))
}
