//! What a lookup has found, as tables and in words.

use super::{endpoints, trace};
use crate::{
    cli::{
        locate,
        output::{
            Format, Output, count,
            error::Stop,
            peer_name, shortened, span,
            table::{Cell, Grid, Tone},
        },
    },
    kind::Kind,
    ops::outcome::{ContactView, LocateStatus, LookupOutcome, LookupStatus, RecordView, Via},
};

/// Prints an outcome and says which exit code it deserves.
pub(in crate::cli) fn present(outcome: &LookupOutcome, several: bool, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    match output.format() {
        Format::Json => output.json(outcome)?,
        Format::Short => {
            // A script that reads only standard output must not act on what is not to be trusted.
            if outcome.status == LookupStatus::Found {
                for line in outcome.records.iter().flat_map(short_lines) {
                    output.line(&line)?;
                }
            }
        }
        Format::Table => tables(outcome, several, output)?,
    }
    if outcome.status == LookupStatus::Found {
        output.note(&summary(outcome));
        if !outcome.rejected.is_empty() {
            output.warn(&format!("not believed: {}", rejections(outcome)));
        }
    } else if output.format() != Format::Json {
        output.complain(&verdict(outcome));
    }
    if let Some(drift) = outcome.public.as_ref().and_then(|view| locate::drift(view, outcome.overlay.as_str())) {
        output.warn(&drift);
    }
    if let Some(disagreement) = outcome.trace.as_deref().and_then(trace::disagreement) {
        output.warn(&disagreement);
    }
    Ok(exit_code(outcome.status))
}

/// The walk, if it was traced, the records, and the two views of the proxy peers.
fn tables(outcome: &LookupOutcome, several: bool, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    if let Some(trace) = &outcome.trace {
        output.heading(&outcome.uri)?;
        output.table(&trace::tree(trace))?;
    }
    if !outcome.records.is_empty() {
        if outcome.trace.is_some() {
            output.text("\n")?;
        } else if several {
            output.heading(&outcome.uri)?;
        }
        output.table(&records_table(&outcome.records))?;
    }
    let inside = endpoints(outcome);
    let public = outcome.public.as_ref().filter(|public| public.status != LocateStatus::NobodyToAsk);
    if let Some(public) = public.filter(|public| !(inside.is_empty() && public.endpoints.is_empty())) {
        output.text("\n")?;
        output.table(&locate::public(public, &inside))?;
    }
    Ok(())
}

const fn exit_code(status: LookupStatus) -> u8 {
    match status {
        LookupStatus::Found => 0,
        LookupStatus::NotFound => Kind::Negative.exit_code(),
        LookupStatus::NobodyToAsk => Kind::Unreachable.exit_code(),
        LookupStatus::Contested | LookupStatus::Untrusted => Kind::Untrusted.exit_code(),
    }
}

/// What is printed when the answer is not simply the records.
fn verdict(outcome: &LookupOutcome) -> String {
    let uri = &outcome.uri;
    match outcome.status {
        LookupStatus::Found => summary(outcome),
        LookupStatus::NotFound => {
            format!("{uri}: not found: {} answered and none has it", count(outcome.storers, "storer"))
        }
        LookupStatus::NobodyToAsk if outcome.storers == 0 && outcome.silent == 0 => {
            format!("{uri}: nobody to ask: nobody answered in time; try again, with a longer --timeout")
        }
        LookupStatus::NobodyToAsk => format!(
            "{uri}: nobody to ask: {} answered and {} stayed silent; try again, or name a member with --peer",
            count(outcome.storers, "storer"),
            count(outcome.silent, "peer"),
        ),
        LookupStatus::Untrusted => format!("{uri}: found, but not to be trusted: {}", rejections(outcome)),
        LookupStatus::Contested => format!(
            "{uri}: contested: {} by different keys, none of them pinned; have its owner confirm an instance, then believe it with --pin INSTANCE",
            count(outcome.records.len(), "record")
        ),
    }
}

/// The reasons for which records were not believed, each once, with how often it came.
fn rejections(outcome: &LookupOutcome) -> String {
    let mut reasons: Vec<(&str, u32)> = Vec::new();
    for rejected in &outcome.rejected {
        match reasons.iter_mut().find(|(reason, _)| *reason == rejected.reason) {
            Some((_, times)) => *times += 1,
            None => reasons.push((&rejected.reason, 1)),
        }
    }
    let words = reasons.into_iter().map(|(reason, times)| match times {
        1 => reason.to_owned(),
        _ => format!("{reason} (from {times} storers)"),
    });
    words.collect::<Vec<_>>().join("; ")
}

/// How the answer came about.
fn summary(outcome: &LookupOutcome) -> String {
    let how = match outcome.via {
        Via::Socket => "through the member on this machine",
        Via::Peer => "through a member",
        Via::Walk => "by a walk of its own",
    };
    format!(
        "{} from {}, {how}, {} in {:.0} ms",
        count(outcome.records.len(), "record"),
        count(outcome.storers, "storer"),
        count(outcome.requests, "request"),
        outcome.elapsed_ms
    )
}

/// One line for each thing a script would dial: contacts of users, endpoints of services.
fn short_lines(record: &RecordView) -> Vec<String> {
    match &record.offer {
        Some(offer) => offer.endpoints.clone(),
        None => record.contacts.iter().map(|contact| contact.uri.clone()).collect(),
    }
}

/// Users' and services' records never share a name, so the first one tells which columns there are.
fn records_table(records: &[RecordView]) -> Grid {
    if records.iter().any(|record| record.offer.is_some()) { offers_table(records) } else { contacts_table(records) }
}

fn contacts_table(records: &[RecordView]) -> Grid {
    let mut grid = Grid::with_header(&["INSTANCE", "CONTACT", "EXPIRES IN", "CERTIFICATE"]).spare(&["CERTIFICATE"]);
    for record in records {
        grid.row([
            Cell::text(shortened(&record.instance.to_string(), 8), Tone::Subject),
            Cell::lines(record.contacts.iter().flat_map(contact_lines), Tone::Plain),
            Cell::text(span(record.expires_in_ms), Tone::Plain),
            certificate(record),
        ]);
    }
    grid
}

fn offers_table(records: &[RecordView]) -> Grid {
    let mut grid = Grid::with_header(&["PEER", "ENDPOINT", "SERVING", "LOAD", "EXPIRES IN", "CERTIFICATE"])
        .spare(&["CERTIFICATE", "LOAD"]);
    for (record, offer) in records.iter().filter_map(|record| Some((record, record.offer.as_ref()?))) {
        let (serving, tone) = if offer.serving { ("yes", Tone::Good) } else { ("no", Tone::Warning) };
        grid.row([
            Cell::text(peer_name(&offer.peer), Tone::Subject),
            Cell::lines(&offer.endpoints, Tone::Plain),
            Cell::text(serving, tone),
            Cell::text(format!("{:.0} %", offer.load * 100.0), Tone::Plain),
            Cell::text(span(record.expires_in_ms), Tone::Plain),
            certificate(record),
        ]);
    }
    grid
}

/// A contact with where it is: its own host, or the peer and the addresses of that peer.
pub(in crate::cli) fn contact_lines(contact: &ContactView) -> Vec<String> {
    let mut first = match &contact.peer {
        Some(peer) => format!("peer {}", peer_name(peer)),
        None => contact.uri.clone(),
    };
    if contact.q < 1.0 {
        first.push_str(&format!(" (q={})", contact.q));
    }
    let addresses = contact.addresses.iter().map(|address| format!("  {address}"));
    std::iter::once(first).chain(addresses).collect()
}

/// The certificate that covers a record, in a few characters.
fn certificate(record: &RecordView) -> Cell {
    match &record.certificate {
        Some(serial) => Cell::text(shortened(serial, 8), Tone::Plain),
        None => Cell::text("none", Tone::Faint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{args::CommonArgs, output::captured},
        clock::UnixMs,
        name::{InstanceId, OverlayId, PeerId},
        ops::outcome::{OfferView, RejectedView},
    };

    fn record() -> RecordView {
        RecordView {
            instance: InstanceId::of_key(&[1; 32]),
            sequence: 1_767_225_600_000,
            key: crate::identity::PublicKey::from_octets([7; 32]),
            expires_at_ms: UnixMs(1_767_229_200_000),
            expires_in_ms: 3_500_000,
            certificate: Some("4f2a91c3d0e7b856".to_owned()),
            contacts: vec![
                ContactView {
                    uri: "sip:alice@p2psip.org;gr=abc".to_owned(),
                    peer: Some(PeerId::from_public_key([2; 32])),
                    addresses: vec!["/ip4/192.0.2.7/udp/4001/quic-v1".to_owned()],
                    q: 1.0,
                },
                ContactView { uri: "sip:alice@192.0.2.9:5060".to_owned(), peer: None, addresses: Vec::new(), q: 0.5 },
            ],
            offer: None,
        }
    }

    fn outcome(status: LookupStatus) -> LookupOutcome {
        LookupOutcome {
            status,
            uri: "sip:alice@p2psip.org".to_owned(),
            overlay: OverlayId::parse("p2psip.org").unwrap(),
            via: Via::Walk,
            records: vec![record()],
            rejected: Vec::new(),
            storers: 3,
            requests: 5,
            silent: 1,
            hops: 2,
            elapsed_ms: 41.27,
            trace: None,
            public: None,
        }
    }

    fn shown(options: CommonArgs, outcome: &LookupOutcome) -> (u8, String, String) {
        captured("p2p-lookup", &options, |output| present(outcome, false, output))
    }

    fn short() -> CommonArgs {
        CommonArgs { short: true, ..CommonArgs::default() }
    }

    #[test]
    fn a_user_is_a_table_of_instances_and_contacts() {
        let (code, out, err) = shown(CommonArgs::default(), &outcome(LookupStatus::Found));
        assert_eq!(code, 0);
        let lines = out.lines().collect::<Vec<_>>();
        assert_eq!(lines[0], "INSTANCE   CONTACT                            EXPIRES IN   CERTIFICATE");
        assert!(lines[1].contains("peer 12D3KooW…") && lines[1].ends_with("58 min 20 s  4f2a91c3…"), "{out}");
        assert_eq!(lines[2].trim(), "/ip4/192.0.2.7/udp/4001/quic-v1");
        assert_eq!(lines[3].trim(), "sip:alice@192.0.2.9:5060 (q=0.5)");
        assert_eq!(err, "1 record from 3 storers, by a walk of its own, 5 requests in 41 ms\n");
    }

    #[test]
    fn a_service_is_a_table_of_peers_and_endpoints() {
        let mut outcome = outcome(LookupStatus::Found);
        outcome.records[0].contacts.clear();
        outcome.records[0].certificate = None;
        outcome.records[0].offer = Some(OfferView {
            peer: PeerId::from_public_key([2; 32]),
            addresses: Vec::new(),
            endpoints: vec!["udp:192.0.2.7:5060".to_owned(), "tcp:192.0.2.7:5060".to_owned()],
            serving: true,
            load: 0.25,
        });
        let (_, out, _) = shown(CommonArgs::default(), &outcome);
        assert!(out.starts_with("PEER "), "{out}");
        assert!(out.contains("udp:192.0.2.7:5060  yes      25 %  58 min 20 s  none"), "{out}");
        assert_eq!(shown(short(), &outcome).1, "udp:192.0.2.7:5060\ntcp:192.0.2.7:5060\n");
    }

    #[test]
    fn scripts_get_contacts_only_if_they_are_to_be_trusted() {
        let (code, out, _) = shown(short(), &outcome(LookupStatus::Found));
        assert_eq!((code, out.as_str()), (0, "sip:alice@p2psip.org;gr=abc\nsip:alice@192.0.2.9:5060\n"));
        for status in [LookupStatus::Contested, LookupStatus::Untrusted] {
            let (code, out, err) = shown(short(), &outcome(status));
            assert_eq!((code, out.as_str()), (4, ""), "{err}");
        }
    }

    #[test]
    fn each_answer_has_its_exit_code_and_its_line() {
        for (status, code, words) in [
            (LookupStatus::NotFound, 1, "sip:alice@p2psip.org: not found: 3 storers answered"),
            (LookupStatus::NobodyToAsk, 3, "nobody to ask: 3 storers answered and 1 peer stayed silent"),
            (LookupStatus::Untrusted, 4, "not to be trusted: expired (from 2 storers); bad signature"),
            (LookupStatus::Contested, 4, "contested: 1 record by different keys"),
        ] {
            let rejected = |code: &str, reason: &str| RejectedView {
                peer: PeerId::from_public_key([2; 32]),
                code: code.to_owned(),
                reason: reason.to_owned(),
                untrusted: true,
            };
            let mut outcome = outcome(status);
            outcome.rejected = vec![
                rejected("expired", "expired"),
                rejected("bad-signature", "bad signature"),
                rejected("expired", "expired"),
            ];
            let (got, _, err) = shown(CommonArgs::default(), &outcome);
            assert_eq!(got, code);
            assert!(err.starts_with("p2p-lookup: ") && err.contains(words), "{err}");
            assert_eq!(err.lines().count(), 1, "{err}");
            let json = CommonArgs { json: true, ..CommonArgs::default() };
            let (got, out, err) = shown(json, &outcome);
            assert_eq!((got, err.as_str()), (code, ""));
            assert!(out.starts_with(r#"{"status":""#) && out.lines().count() == 1, "{out}");
        }
    }

    #[test]
    fn what_peers_say_cannot_drive_the_terminal() {
        let mut outcome = outcome(LookupStatus::Untrusted);
        outcome.records[0].contacts[1].uri = "sip:\x1b[2Ja@b\nsip:c@d".to_owned();
        outcome.rejected = vec![RejectedView {
            peer: PeerId::from_public_key([2; 32]),
            code: "malformed".to_owned(),
            reason: "it says \u{9b}31m\r\n".to_owned(),
            untrusted: true,
        }];
        let (_, out, err) = shown(CommonArgs::default(), &outcome);
        assert!(!out.contains('\x1b') && !err.contains(['\u{9b}', '\r']), "{out}{err}");
        outcome.status = LookupStatus::Found;
        let (_, out, _) = shown(short(), &outcome);
        assert_eq!(out.lines().count(), 2, "a contact cannot add lines: {out}");
    }
}
