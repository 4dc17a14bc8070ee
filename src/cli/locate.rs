//! `p2p-lookup` of a public URI: the way from its domain to its servers, step by step (RFC 3263).

use super::output::{
    Format, Output, count,
    error::Stop,
    table::{Cell, Grid, Tone},
};
use crate::{
    kind::Kind,
    ops::outcome::{AnswerStatus, LocateOutcome, LocateStatus, PublicView, StepKind, StepView, TargetView},
};

/// Lines shown of one answer; the JSON has all of it.
const MAX_LINES: usize = 12;
/// Endpoints of a drift that are named in a warning.
const MAX_NAMED: usize = 4;

/// Prints an outcome and says which exit code it deserves.
pub(super) fn present(outcome: &LocateOutcome, several: bool, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    match output.format() {
        Format::Json => output.json(outcome)?,
        Format::Short => {
            for target in &outcome.targets {
                output.line(&target.endpoint)?;
            }
        }
        Format::Table => {
            if several {
                output.heading(&outcome.uri)?;
            }
            output.table(&path(&outcome.path))?;
            if !outcome.targets.is_empty() {
                output.text("\n")?;
                output.table(&targets(&outcome.targets))?;
            }
        }
    }
    if outcome.status == LocateStatus::Found {
        output.note(&summary(outcome));
    } else if output.format() != Format::Json {
        output.complain(&verdict(outcome));
    }
    Ok(exit_code(outcome.status))
}

const fn exit_code(status: LocateStatus) -> u8 {
    match status {
        LocateStatus::Found => 0,
        LocateStatus::NoDomain | LocateStatus::NoServer => Kind::Negative.exit_code(),
        LocateStatus::NobodyToAsk => Kind::Unreachable.exit_code(),
    }
}

fn summary(outcome: &LocateOutcome) -> String {
    let asked = outcome.path.iter().filter(|step| step.step == StepKind::Question).count();
    let (targets, questions) = (count(outcome.targets.len() as u64, "target"), count(asked as u64, "question"));
    format!("{targets} by {questions} to the DNS in {:.0} ms", outcome.elapsed_ms)
}

fn verdict(outcome: &LocateOutcome) -> String {
    let LocateOutcome { uri, domain, .. } = outcome;
    match outcome.status {
        LocateStatus::Found => summary(outcome),
        LocateStatus::NoDomain => format!(
            "{uri}: {domain} does not exist in the DNS; check its spelling, or if it is an overlay, say so with --overlay {domain}"
        ),
        LocateStatus::NoServer => {
            format!("{uri}: {domain} has no SIP server in the DNS; if it is an overlay, say so with --overlay {domain}")
        }
        LocateStatus::NobodyToAsk => {
            let unanswered = |step: &&StepView| step.outcome == Some(AnswerStatus::Unanswered);
            let first = outcome.path.iter().find(unanswered);
            let why = first.and_then(|step| Some(format!("{}: {}", step.text, step.answer.first()?)));
            let why = why.unwrap_or_else(|| "no name server answered".to_owned());
            // `sip:alice` asks for a host of that name.
            let meant = if domain.contains('.') || uri.contains('@') {
                String::new()
            } else {
                format!("; if {domain} is a user, write sip:{domain}@OVERLAY")
            };
            format!("{uri}: the DNS does not tell ({why}); try again, or give another server with --dns{meant}")
        }
    }
}

/// Each question with its answer; rules and records passed over stand between them, in the column of the answers.
fn path(steps: &[StepView]) -> Grid {
    let mut grid = Grid::with_header(&["QUESTION", "ANSWERED BY", "TOOK", "ANSWER"]);
    for step in steps {
        let (question, by, took) = match step.step {
            StepKind::Question => (
                step.text.as_str(),
                step.source.as_deref().unwrap_or("nobody"),
                step.took_ms.map_or_else(String::new, |took| format!("{took:.1} ms")),
            ),
            StepKind::Rule | StepKind::Ignored => ("", "", String::new()),
        };
        let (answer, tone) = answer(step);
        grid.row([
            Cell::text(question, Tone::Subject),
            Cell::text(by, Tone::Plain),
            Cell::text(took, Tone::Plain),
            Cell::lines(answer, tone),
        ]);
    }
    grid
}

fn answer(step: &StepView) -> (Vec<String>, Tone) {
    let why = step.answer.first().map(String::as_str).unwrap_or_default();
    match (step.step, step.outcome) {
        (StepKind::Rule, _) => (vec![format!("→ {}", step.text)], Tone::Faint),
        (StepKind::Ignored, _) => (vec![format!("passed over: {}: {why}", step.text)], Tone::Warning),
        (StepKind::Question, Some(AnswerStatus::Records) | None) => {
            let mut lines: Vec<String> = step.answer.iter().take(MAX_LINES).cloned().collect();
            let more = step.answer.len().saturating_sub(MAX_LINES);
            if more > 0 {
                lines.push(format!("… and {more} more"));
            }
            (lines, Tone::Plain)
        }
        (StepKind::Question, Some(AnswerStatus::NoRecords)) => (vec!["no such record".to_owned()], Tone::Plain),
        (StepKind::Question, Some(AnswerStatus::NoName)) => (vec!["no such name".to_owned()], Tone::Plain),
        (StepKind::Question, Some(AnswerStatus::Unanswered)) => (vec![why.to_owned()], Tone::Warning),
    }
}

fn targets(targets: &[TargetView]) -> Grid {
    let mut grid = Grid::with_header(&["TRY", "TARGET", "CERTIFICATE OF", "BECAUSE"]);
    for (place, target) in (1_u32..).zip(targets) {
        grid.row([
            Cell::text(place.to_string(), Tone::Faint),
            Cell::text(&target.endpoint, Tone::Good),
            Cell::text(target.tls_name.as_deref().unwrap_or("–"), Tone::Plain),
            Cell::text(&target.because, Tone::Plain),
        ]);
    }
    grid
}

/// How the outside finds the overlay, beside what its proxy peers offer.
pub(super) fn public(view: &PublicView, inside: &[String]) -> Grid {
    let mut grid = Grid::with_header(&["ENDPOINT", "OVERLAY", "DNS"]);
    let mark = |has: bool| Cell::text(if has { "yes" } else { "no" }, if has { Tone::Good } else { Tone::Warning });
    let unknown = || Cell::text("?", Tone::Faint);
    let only_outside = view.endpoints.iter().filter(|endpoint| !inside.contains(endpoint));
    for endpoint in inside.iter().chain(only_outside) {
        let (in_overlay, in_dns) = (inside.contains(endpoint), view.endpoints.contains(endpoint));
        // A host name inside may well be one of the addresses outside.
        let is_comparable = in_dns || view.only_in_overlay.contains(endpoint);
        grid.row([
            Cell::text(endpoint, Tone::Plain),
            mark(in_overlay),
            if is_comparable { mark(in_dns) } else { unknown() },
        ]);
    }
    grid
}

/// What deserves attention about it.
pub(super) fn drift(view: &PublicView, overlay: &str) -> Option<String> {
    match view.status {
        // Without a DNS there is nothing to compare with; the JSON says so.
        LocateStatus::NobodyToAsk => return None,
        LocateStatus::NoDomain | LocateStatus::NoServer => {
            return Some(format!(
                "{overlay} cannot be reached from public SIP networks: no proxy peer of it is in the DNS; \
                 see p2p-publish"
            ));
        }
        LocateStatus::Found => {}
    }
    let named = |endpoints: &[String]| {
        let more = endpoints.len().saturating_sub(MAX_NAMED);
        let mut words = endpoints.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 {
            words.push_str(&format!(" and {more} more"));
        }
        words
    };
    let parts: Vec<String> = [("only in the overlay", &view.only_in_overlay), ("only in the DNS", &view.only_in_dns)]
        .into_iter()
        .filter(|(_, endpoints)| !endpoints.is_empty())
        .map(|(place, endpoints)| format!("{place}: {}", named(endpoints)))
        .collect();
    (!parts.is_empty()).then(|| format!("overlay and DNS differ: {}", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{args::CommonArgs, output::captured};

    fn question(text: &str, outcome: AnswerStatus, answer: &[&str]) -> StepView {
        StepView {
            step: StepKind::Question,
            text: text.to_owned(),
            source: (outcome != AnswerStatus::Unanswered).then(|| "127.0.0.1:53".to_owned()),
            outcome: Some(outcome),
            answer: answer.iter().map(|&text| text.to_owned()).collect(),
            took_ms: Some(0.52),
        }
    }

    fn outcome(status: LocateStatus) -> LocateOutcome {
        let target = TargetView {
            transport: "tls".to_owned(),
            address: "192.0.2.1".to_owned(),
            port: 5061,
            endpoint: "tls:192.0.2.1:5061".to_owned(),
            tls_name: Some("example.com".to_owned()),
            because: "address of example.com".to_owned(),
        };
        let rule = StepView {
            step: StepKind::Rule,
            text: "there is no NAPTR".to_owned(),
            source: None,
            outcome: None,
            answer: Vec::new(),
            took_ms: None,
        };
        let ignored = StepView { step: StepKind::Ignored, text: "1 \x1b[2J".to_owned(), ..rule.clone() };
        LocateOutcome {
            status,
            uri: "sips:bob@example.com".to_owned(),
            domain: "example.com".to_owned(),
            targets: if status == LocateStatus::Found { vec![target] } else { Vec::new() },
            path: vec![
                question("NAPTR example.com", AnswerStatus::NoRecords, &[]),
                rule,
                ignored,
                question("SRV _sips._tcp.example.com", AnswerStatus::Unanswered, &["no answer from 127.0.0.1:53"]),
                question("A example.com", AnswerStatus::Records, &["192.0.2.1"; 20]),
            ],
            elapsed_ms: 3.4,
        }
    }

    fn shown(options: CommonArgs, outcome: &LocateOutcome) -> (u8, String, String) {
        captured("p2p-lookup", &options, |output| present(outcome, false, output))
    }

    #[test]
    fn the_way_and_its_end_are_two_tables() {
        let (code, out, err) = shown(CommonArgs::default(), &outcome(LocateStatus::Found));
        assert_eq!((code, err.as_str()), (0, "1 target by 3 questions to the DNS in 3 ms\n"));
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("QUESTION") && lines[1].ends_with("0.5 ms  no such record"), "{out}");
        assert!(lines[2].trim().starts_with("→ there is no NAPTR"), "{out}");
        assert!(out.contains("nobody") && out.contains("… and 8 more"), "{out}");
        assert!(out.contains("\n\nTRY  TARGET"), "{out}");
        assert!(out.ends_with("1    tls:192.0.2.1:5061  example.com     address of example.com\n"), "{out}");
        assert!(!out.contains('\x1b'), "{out}");
    }

    #[test]
    fn scripts_get_the_targets_and_the_code() {
        let short = || CommonArgs { short: true, ..CommonArgs::default() };
        assert_eq!(shown(short(), &outcome(LocateStatus::Found)).1, "tls:192.0.2.1:5061\n");
        for (status, code, words) in [
            (LocateStatus::NoDomain, 1, "does not exist in the DNS"),
            (LocateStatus::NoServer, 1, "has no SIP server in the DNS"),
            (LocateStatus::NobodyToAsk, 3, "(SRV _sips._tcp.example.com: no answer from 127.0.0.1:53)"),
        ] {
            let (got, out, err) = shown(short(), &outcome(status));
            assert_eq!((got, out.as_str()), (code, ""));
            assert!(err.contains(words) && err.lines().count() == 1, "{err}");
            let json = CommonArgs { json: true, ..CommonArgs::default() };
            let (got, out, err) = shown(json, &outcome(status));
            assert_eq!((got, out.lines().count(), err.as_str()), (code, 1, ""));
        }
    }

    #[test]
    fn drift_is_told_in_a_line() {
        let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let mut view = PublicView {
            status: LocateStatus::Found,
            endpoints: texts(&["udp:192.0.2.1:5060"]),
            only_in_overlay: Vec::new(),
            only_in_dns: Vec::new(),
        };
        assert_eq!(drift(&view, "p2psip.org"), None);
        view.only_in_dns = texts(&["a", "b", "c", "d", "e"]);
        view.only_in_overlay = texts(&["tcp:192.0.2.1:5060"]);
        let words = drift(&view, "p2psip.org").unwrap();
        assert!(words.contains("only in the overlay: tcp:192.0.2.1:5060"), "{words}");
        assert!(words.ends_with("only in the DNS: a, b, c, d and 1 more"), "{words}");
        let inside = texts(&["udp:192.0.2.1:5060", "tcp:192.0.2.1:5060", "udp:host.p2psip.org:5060"]);
        let table = public(&view, &inside).render(false, None);
        assert!(table.contains("tcp:192.0.2.1:5060        yes      no\n"), "{table}");
        assert!(table.contains("udp:host.p2psip.org:5060  yes      ?\n"), "{table}");
        view.status = LocateStatus::NoServer;
        assert!(drift(&view, "p2psip.org").unwrap().contains("cannot be reached from public SIP networks"));
    }
}
