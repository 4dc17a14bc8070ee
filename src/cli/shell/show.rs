//! Prints what a member tells of itself.

use super::super::output::{
    Format, Output, count, date,
    error::Stop,
    peer_name, shortened, span,
    table::{Cell, Grid, Tone},
};
use crate::{
    client::{Event, ProxyStatus, Reach, gatekeeper::PublicationState},
    clock::UnixMs,
    name::{PeerId, ResourceName},
    ops::outcome::{
        EventOutcome, HeldOutcome, HeldRecordView, PeersOutcome, PingOutcome, RegisterOutcome, StatusOutcome,
        TableOutcome,
    },
};

/// Columns of a terminal in which whole peer ids leave room for what is said of them.
const ROOMY: u16 = 100;
/// Characters of the longest bar.
const BAR: u32 = 40;

/// How a member is.
pub(super) fn status(outcome: &StatusOutcome, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    let member = &outcome.member;
    match output.format() {
        Format::Json => return output.json(outcome),
        Format::Short => return output.line(&member.peer.to_string()),
        Format::Table => {}
    }
    let mut grid = Grid::of_pairs();
    grid.pair("overlay", Cell::text(member.overlay.to_string(), Tone::Subject));
    let descriptor = shortened(&member.descriptor, 16);
    grid.pair("policy", Cell::text(format!("{} ({descriptor})", member.policy), Tone::Plain));
    grid.pair("peer id", Cell::text(member.peer.to_string(), Tone::Plain));
    grid.pair("addresses", Cell::lines(&member.addresses, Tone::Plain));
    let (reached, tone) = match member.reach.reach {
        Reach::Unknown => ("not known yet", Tone::Plain),
        Reach::Direct => ("directly", Tone::Good),
        Reach::Mapped => ("through a NAT that lets others in", Tone::Good),
        Reach::Relayed => ("through relays", Tone::Warning),
        Reach::Not => ("not at all", Tone::Warning),
    };
    grid.pair("reached", Cell::text(format!("{reached}: {}", member.reach.why), tone));
    if !member.reach.relays.is_empty() {
        let relays: Vec<String> = member.reach.relays.iter().map(ToString::to_string).collect();
        grid.pair("relays", Cell::lines(&relays, Tone::Plain));
    }
    if let Some(publication) = member.proxy.as_ref().and_then(|proxy| proxy.publication.as_ref()) {
        let tone = if publication.state == PublicationState::Shown { Tone::Good } else { Tone::Warning };
        grid.pair("in the DNS", Cell::text(format!("{}: {}", publication.state.words(), publication.why), tone));
    }
    grid.pair("socket", Cell::text(&outcome.socket, Tone::Plain));
    let peers = format!("{}, {}", count(member.peers, "peer"), count(member.connections, "connection"));
    grid.pair("knows", Cell::text(peers, if member.peers > 0 { Tone::Good } else { Tone::Warning }));
    let records = format!("{} of {}", count(member.records, "record"), count(member.names, "name"));
    grid.pair("holds", Cell::text(records, Tone::Plain));
    grid.pair("keeps alive", Cell::text(count(member.kept, "record"), Tone::Plain));
    let served = format!("{}, {} turned away", count(member.served, "request"), member.throttled);
    grid.pair("served", Cell::text(served, Tone::Plain));
    let up = format!("{}, version {}", span(outcome.uptime_ms), member.version);
    grid.pair("running for", Cell::text(up, Tone::Plain));
    if let Some(proxy) = &member.proxy {
        proxy_role(proxy, &mut grid);
    }
    output.table(&grid)
}

/// What a member does as a proxy peer, and has done since it is one.
fn proxy_role(proxy: &ProxyStatus, grid: &mut Grid) {
    grid.pair("proxy peer", Cell::lines(&proxy.endpoints, if proxy.draining { Tone::Warning } else { Tone::Good }));
    if proxy.draining {
        grid.pair("", Cell::text("leaving: it takes no new calls", Tone::Warning));
    }
    if proxy.unlisted {
        let text = "the DNS has no proxy peer of the overlay: requests from outside cannot come here";
        grid.pair("found outside", Cell::text(text, Tone::Warning));
    }
    let load = f64::from(proxy.load) / 10.0;
    let busy = format!("{load:.0} %, {} open", count(proxy.transactions, "transaction"));
    grid.pair("load", Cell::text(busy, Tone::Plain));
    let passed = format!(
        "{} and {} passed on, {} answered here",
        count(proxy.forwarded, "request"),
        count(proxy.acks, "ACK"),
        proxy.answered
    );
    grid.pair("SIP", Cell::text(passed, Tone::Plain));
    let refused = [
        (proxy.throttled, "of sources that send too many"),
        (proxy.overloaded, "for want of room"),
        (proxy.lookups_refused, "for too many users looked up in vain"),
        (proxy.loops, "in a loop"),
        (proxy.dropped, "that nobody could use"),
    ];
    let refused: Vec<String> =
        refused.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
    if !refused.is_empty() {
        grid.pair("turned away", Cell::lines(&refused, Tone::Warning));
    }
    let users = format!("{} in the overlay, {} known from lately", count(proxy.lookups, "lookup"), proxy.spared);
    grid.pair("users", Cell::text(users, Tone::Plain));
}

/// What each storer answered to a record of `name`, the closest ones first.
pub(super) fn storers(outcome: &RegisterOutcome, name: &ResourceName, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    let stored = outcome.stored.iter().map(|peer| (*peer, "stored", Tone::Good));
    let refused = outcome.refused.iter().map(|refused| (refused.peer, refused.reason.as_str(), Tone::Warning));
    let mut answers: Vec<(PeerId, &str, Tone)> = stored.chain(refused).collect();
    if answers.is_empty() {
        return Ok(());
    }
    let position = name.position();
    answers.sort_by_cached_key(|(peer, ..)| peer.position().distance(&position));
    let mut grid = Grid::with_header(&["STORER", "BITS IN COMMON", "ANSWER", "KEEPS IT ALIVE"]);
    let name = namer(output);
    for (peer, answer, tone) in answers {
        grid.row([
            Cell::text(name(&peer), Tone::Subject),
            Cell::text(peer.position().distance(&position).common_prefix().to_string(), Tone::Plain),
            Cell::text(answer, tone),
            Cell::text(if outcome.kept_by.contains(&peer) { "yes" } else { "no" }, Tone::Plain),
        ]);
    }
    output.text("\n")?;
    output.table(&grid)
}

/// How peers are called: in full, so that they can be asked about, where there is room for that.
fn namer(output: &mut Output<'_, '_>) -> fn(&PeerId) -> String {
    match output.io().width {
        Some(width) if width < ROOMY => peer_name,
        _ => PeerId::to_string,
    }
}

/// The peers around a member.
pub(super) fn peers(outcome: &PeersOutcome, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    match output.format() {
        Format::Json => return output.json(outcome),
        Format::Short => return outcome.peers.iter().try_for_each(|peer| output.line(&peer.peer.to_string())),
        Format::Table => {}
    }
    let mut grid = Grid::with_header(&["PEER", "BITS IN COMMON", "ADDRESS"]);
    let name = namer(output);
    for peer in &outcome.peers {
        grid.row([
            Cell::text(name(&peer.peer), Tone::Subject),
            Cell::text(peer.bits.to_string(), Tone::Plain),
            Cell::lines(&peer.addresses, Tone::Plain),
        ]);
    }
    output.table(&grid)?;
    output.note(&format!("{} closest of {} known", outcome.peers.len(), outcome.known));
    Ok(())
}

/// A routing table, the farthest bucket first: each holds half as much of the overlay as the one above.
pub(super) fn table(outcome: &TableOutcome, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    match output.format() {
        Format::Json => return output.json(outcome),
        Format::Short => {
            return outcome.buckets.iter().try_for_each(|b| output.line(&format!("{} {}", b.bits, b.peers)));
        }
        Format::Table => {}
    }
    let most = outcome.buckets.iter().map(|bucket| bucket.peers).max().unwrap_or_default();
    let mut grid = Grid::with_header(&["BITS IN COMMON", "PEERS", ""]);
    for bucket in &outcome.buckets {
        grid.row([
            Cell::text(bucket.bits.to_string(), Tone::Plain),
            Cell::text(bucket.peers.to_string(), Tone::Plain),
            Cell::text(bar(bucket.peers, most), Tone::Good),
        ]);
    }
    output.table(&grid)?;
    let buckets = count(outcome.buckets.len(), "bucket");
    output.note(&format!("{} in {buckets}, as {} sees them", count(outcome.known, "peer"), peer_name(&outcome.member)));
    Ok(())
}

/// A character a peer, unless the longest bar would be too long then.
fn bar(peers: u32, most: u32) -> String {
    let characters =
        if most <= BAR { peers } else { (u64::from(peers) * u64::from(BAR)).div_ceil(u64::from(most)) as u32 };
    "█".repeat(characters.min(BAR) as usize)
}

/// What a member holds.
pub(super) fn records(outcome: &HeldOutcome, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    match output.format() {
        Format::Json => return output.json(outcome),
        Format::Short => {
            let line = |held: &HeldRecordView| format!("{} {}", held.record.name, held.record.instance);
            return outcome.records.iter().try_for_each(|held| output.line(&line(held)));
        }
        Format::Table => {}
    }
    if !outcome.records.is_empty() {
        let mut grid = Grid::with_header(&["NAME", "INSTANCE", "EXPIRES IN", "KIND", "KEPT ALIVE", "BELIEVED FOR"]);
        for held in &outcome.records {
            let (kind, tone) =
                if held.record.tombstone { ("tombstone", Tone::Warning) } else { ("record", Tone::Plain) };
            grid.row([
                Cell::text(held.record.name.to_string(), Tone::Subject),
                Cell::text(shortened(&held.record.instance.to_string(), 8), Tone::Plain),
                Cell::text(span(held.expires_in_ms), Tone::Plain),
                Cell::text(kind, tone),
                Cell::text(if held.record.kept { "yes" } else { "no" }, Tone::Plain),
                reason(held),
            ]);
        }
        output.table(&grid)?;
    }
    let shown = u32::try_from(outcome.records.len()).unwrap_or(u32::MAX);
    let more = if shown < outcome.total { format!(", of which {shown} are shown") } else { String::new() };
    output.note(&format!("{} held{more}", count(outcome.total, "record")));
    Ok(())
}

/// Why a record is believed.
fn reason(held: &HeldRecordView) -> Cell {
    let pinned = if held.record.pinned { ", a pinned key" } else { "" };
    match &held.record.certificate {
        Some(serial) => Cell::text(format!("certificate {}{pinned}", shortened(serial, 8)), Tone::Plain),
        None if held.record.pinned => Cell::text("a pinned key", Tone::Plain),
        // Under the policy open.
        None => Cell::text("its own signature alone", Tone::Faint),
    }
}

/// How fast a peer answered.
pub(super) fn ping(outcome: &PingOutcome, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    match output.format() {
        Format::Json => return output.json(outcome),
        Format::Short => return output.line(&format!("{:.3}", outcome.rtt_ms)),
        Format::Table => {}
    }
    let mut grid = Grid::of_pairs();
    grid.pair("peer", Cell::text(outcome.peer.to_string(), Tone::Subject));
    grid.pair("addresses", Cell::lines(&outcome.addresses, Tone::Plain));
    grid.pair("version", Cell::text(&outcome.version, Tone::Plain));
    grid.pair("connected in", Cell::text(format!("{:.1} ms", outcome.connect_ms), Tone::Plain));
    grid.pair("round trip", Cell::text(format!("{:.2} ms", outcome.rtt_ms), Tone::Good));
    output.table(&grid)
}

/// One event, on one line.
pub(super) fn event(outcome: &EventOutcome, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    if output.format() == Format::Json {
        return output.json(outcome);
    }
    let what = match &outcome.event {
        Event::PeerJoined { peer } => format!("peer joined    {peer}"),
        Event::PeerLeft { peer } => format!("peer left      {peer}"),
        Event::Stored { name, instance, tombstone, .. } => {
            let what = if *tombstone { "tombstone     " } else { "record stored " };
            format!("{what} {name} of {}", shortened(&instance.to_string(), 8))
        }
        Event::Refused { peer: Some(peer), reason } => format!("refused        from {}: {reason}", peer_name(peer)),
        Event::Refused { peer: None, reason } => format!("refused        from this machine: {reason}"),
        Event::Gatekeeper { verdict, peer, host, why } => {
            let who = peer.as_ref().map_or_else(|| host.clone(), peer_name);
            format!("{:<14} {who}: {why}", verdict.word())
        }
        Event::Throttled { peer } => format!("turned away    {peer}"),
        Event::Lagged { dropped } => format!("missed         {}", count(*dropped, "event")),
    };
    output.line(&format!("{}  {what}", clock(outcome.at_ms)))
}

/// The time of day, to the second, in UTC.
fn clock(at: UnixMs) -> String {
    match date(at).split(' ').nth(1) {
        Some(minute) if minute.contains(':') => format!("{minute}:{:02}", at.0 / 1_000 % 60),
        _ => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_the_peers_and_never_too_long() {
        assert_eq!(bar(3, 20), "███");
        assert_eq!(bar(80, 80).chars().count(), 40);
        assert_eq!(bar(1, 80), "█", "a bucket that holds somebody shows");
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(u32::MAX, u32::MAX).chars().count(), 40);
    }

    #[test]
    fn times_of_day_have_seconds() {
        assert_eq!(clock(UnixMs(1_795_417_261_999)), "07:01:01");
        assert_eq!(clock(UnixMs(u64::MAX)), u64::MAX.to_string());
    }
}
