//! What came of a command of `p2p-publish`, as tables and in words.

use serde::Serialize;

use crate::{
    cli::output::{
        Format, Output, count,
        error::Stop,
        peer_name, span,
        table::{Cell, Grid, Tone},
    },
    clock::UnixMs,
    kind::Kind,
    ops::publish::{
        ChangeOutcome, ListOutcome, PendingOutcome, SyncOutcome,
        drift::{LeaseState, ProxyView},
    },
};

/// What came of a command.
pub(super) enum Done {
    Changed(ChangeOutcome),
    Listed(ListOutcome, bool),
    Pending(PendingOutcome),
    Synced(SyncOutcome),
    Exported(Vec<String>),
}

impl Done {
    /// Prints it and says which exit code it deserves.
    pub(super) fn present(&self, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
        match self {
            Self::Changed(outcome) => changed(outcome, output),
            Self::Listed(outcome, check) => listed(outcome, *check, output),
            Self::Pending(outcome) => pending(outcome, output),
            Self::Synced(outcome) => synced(outcome, output),
            Self::Exported(lines) => exported(lines, output),
        }
    }
}

fn changed(outcome: &ChangeOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    if output.format() == Format::Json {
        return output.json(outcome).map(|()| 0);
    }
    for warning in &outcome.warnings {
        output.warn(warning);
    }
    if let Some(script) = &outcome.script {
        return output.text(script).map(|()| 0);
    }
    if output.format() == Format::Short {
        return output.line(&outcome.host).map(|()| 0);
    }
    let mut grid = Grid::of_pairs();
    grid.pair(outcome.status, Cell::text(&outcome.host, Tone::Subject));
    grid.pair("zone", Cell::text(format!("{} on {}", outcome.zone, outcome.server), Tone::Plain));
    if let Some(lease) = outcome.lease_in_ms {
        let what = if outcome.status == "removed" { "tombstone for" } else { "lease for" };
        grid.pair(what, Cell::text(span(lease), Tone::Plain));
    }
    output.table(&grid)?;
    output.note(&format!("Read back from the server in {:.0} ms", outcome.elapsed_ms));
    Ok(0)
}

fn listed(outcome: &ListOutcome, check: bool, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    let code = if check && outcome.status == "drift" { Kind::Negative.exit_code() } else { 0 };
    match output.format() {
        Format::Json => return output.json(outcome).map(|()| code),
        Format::Short => {
            for host in outcome.proxies.iter().filter_map(|proxy| proxy.host.as_ref()) {
                output.line(host)?;
            }
        }
        Format::Table if !outcome.proxies.is_empty() => output.table(&proxies(&outcome.proxies))?,
        Format::Table => {}
    }
    if outcome.unreachable {
        output.warn(&format!(
            "no proxy peer of {} is in the DNS: it cannot be reached from public SIP networks",
            outcome.overlay
        ));
    }
    for rule in &outcome.rules {
        let how = if rule.dangling { "leads nowhere" } else { "is missing" };
        output.warn(&format!("the NAPTR rule of {} for {} {how}; sync mends it", outcome.overlay, rule.transport));
    }
    if let Some(why) = &outcome.overlay_unasked {
        output.note(&format!("The overlay was not asked: {why}"));
    }
    let drifts = outcome.proxies.iter().filter(|proxy| proxy.drift.is_some()).count();
    output.note(&format!(
        "{} on {}: {}, {drifts} with drift, in {:.0} ms",
        outcome.zone,
        outcome.server,
        count(outcome.proxies.len(), "proxy peer"),
        outcome.elapsed_ms
    ));
    Ok(code)
}

fn pending(outcome: &PendingOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    match output.format() {
        Format::Json => return output.json(outcome).map(|()| 0),
        Format::Short => {
            for peer in outcome.pending.iter().filter_map(|decision| decision.peer) {
                output.line(&peer.to_string())?;
            }
        }
        Format::Table if !outcome.pending.is_empty() => {
            let mut grid = Grid::with_header(&["SINCE", "PEER", "ADDRESSES", "STATE", "WHY"]);
            for decision in &outcome.pending {
                let ago = span(u64::try_from(UnixMs::now().since(decision.at_ms).as_millis()).unwrap_or(u64::MAX));
                grid.row([
                    Cell::text(ago, Tone::Plain),
                    Cell::text(decision.peer.as_ref().map(peer_name).unwrap_or_default(), Tone::Subject),
                    Cell::lines(decision.addresses.iter().map(ToString::to_string), Tone::Plain),
                    Cell::text(decision.verdict.word(), Tone::Warning),
                    Cell::text(&decision.why, Tone::Plain),
                ]);
            }
            output.table(&grid)?;
        }
        Format::Table => {}
    }
    let waiting = count(outcome.pending.len(), "proxy peer");
    output.note(&format!("{waiting} waiting, {} decided lately", count(outcome.decisions.len(), "request")));
    Ok(0)
}

fn proxies(proxies: &[ProxyView]) -> Grid {
    let mut grid =
        Grid::with_header(&["HOST", "IN THE DNS", "LEASE", "PEER", "IN THE OVERLAY", "DRIFT"]).spare(&["LEASE"]);
    for proxy in proxies {
        let addresses = proxy.addresses.iter().map(ToString::to_string);
        let (lease, tone) = match (proxy.lease, proxy.lease_in_ms) {
            (LeaseState::Live, Some(lease)) => (span(lease), Tone::Plain),
            (LeaseState::Over, _) => ("over".to_owned(), Tone::Warning),
            _ => ("none".to_owned(), Tone::Faint),
        };
        let endpoints = proxy.offer.iter().flat_map(|offer| offer.endpoints.clone());
        grid.row([
            Cell::text(proxy.host.as_deref().unwrap_or("-"), Tone::Subject),
            Cell::lines(addresses.chain(proxy.servers.iter().cloned()), Tone::Plain),
            Cell::text(lease, tone),
            Cell::text(proxy.peer.as_ref().map(peer_name).unwrap_or_default(), Tone::Plain),
            Cell::lines(endpoints, Tone::Plain),
            match proxy.drift {
                Some(drift) => Cell::text(drift.words(), Tone::Warning),
                None => Cell::text("", Tone::Plain),
            },
        ]);
    }
    grid
}

fn synced(outcome: &SyncOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    let code = outcome.worst.map_or(0, Kind::exit_code);
    match output.format() {
        Format::Json => return output.json(outcome).map(|()| code),
        Format::Short => {
            for action in outcome.actions.iter().filter(|action| action.error.is_none()) {
                output.line(&action.host)?;
            }
        }
        Format::Table if outcome.status == "planned" => {
            for script in outcome.actions.iter().filter_map(|action| action.script.as_ref()) {
                output.text(script)?;
            }
        }
        Format::Table if !outcome.actions.is_empty() => {
            let mut grid = Grid::with_header(&["ACTION", "HOST", "RESULT"]);
            for action in &outcome.actions {
                let result = match &action.error {
                    None => Cell::text("done", Tone::Good),
                    Some(error) => Cell::text(error, Tone::Warning),
                };
                grid.row([Cell::text(action.action, Tone::Plain), Cell::text(&action.host, Tone::Subject), result]);
            }
            output.table(&grid)?;
        }
        Format::Table => {}
    }
    for warning in &outcome.warnings {
        output.warn(warning);
    }
    for action in &outcome.actions {
        if let Some(error) = &action.error {
            output.complain(&format!("{} {}: {error}", action.action, action.host));
        }
    }
    let changes = count(outcome.actions.len(), "change");
    output.note(&format!("{} on {}: {changes} in {:.0} ms", outcome.zone, outcome.server, outcome.elapsed_ms));
    Ok(code)
}

/// Zone lines as JSON.
#[derive(Debug, Serialize)]
struct Lines<'a> {
    status: &'static str,
    lines: &'a [String],
}

fn exported(lines: &[String], output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    if output.format() == Format::Json {
        return output.json(&Lines { status: "exported", lines }).map(|()| 0);
    }
    for line in lines {
        output.line(line)?;
    }
    Ok(0)
}
