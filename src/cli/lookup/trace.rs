//! `p2p-lookup --trace`: the walk as a tree. Each peer stands under the one that told of it.

use crate::{
    cli::output::{
        count, peer_name, shortened,
        table::{Cell, Grid, Tone},
    },
    ops::outcome::{DifferenceStatus, RequestStatus, TraceView},
};

/// Lines shown of one peer's answer; the JSON has all of it.
const MAX_LINES: usize = 8;

/// The walk as a tree, with what came of each request beside it. It is wider than some terminals, and a tree that is
/// wrapped is none.
pub(super) fn tree(trace: &[TraceView]) -> Grid {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); trace.len()];
    let mut roots = Vec::new();
    for index in 0..trace.len() {
        match parent(trace, index).and_then(|parent| children.get_mut(parent)) {
            Some(siblings) => siblings.push(index),
            None => roots.push(index),
        }
    }
    let mut grid =
        Grid::with_header(&["PEER", "PATH", "HOP", "BITS", "TOOK", "ANSWER"]).drawing().spare(&["TOOK", "BITS"]);
    // Those still to be shown, the next one last, each with what stands left of it and whether a sibling follows.
    let mut waiting: Vec<(usize, String, bool)> = Vec::new();
    let wait = |waiting: &mut Vec<_>, siblings: &[usize], indent: &str| {
        let placed = siblings.iter().rev().enumerate().map(|(nth, index)| (*index, indent.to_owned(), nth > 0));
        waiting.extend(placed);
    };
    wait(&mut waiting, &roots, "");
    while let Some((index, indent, followed)) = waiting.pop() {
        let (Some(request), Some(told)) = (trace.get(index), children.get(index)) else { continue };
        let (lines, tone) = answer(request);
        let below = format!("{indent}{}", if followed { "│  " } else { "   " });
        let first = format!("{indent}{}{}", if followed { "├─ " } else { "└─ " }, peer_name(&request.peer));
        let rest = format!("{below}{}", if told.is_empty() { "" } else { "│" });
        let peer = std::iter::once(first).chain(std::iter::repeat_n(rest, lines.len().saturating_sub(1)));
        grid.row([
            Cell::lines(peer, if request.storer { Tone::Subject } else { Tone::Plain }),
            Cell::text(request.path.to_string(), Tone::Plain),
            Cell::text(request.hop.to_string(), Tone::Plain),
            Cell::text(request.common_prefix_bits.to_string(), Tone::Plain),
            Cell::text(request.took_ms.map_or_else(|| "–".to_owned(), |took| format!("{took:.1} ms")), Tone::Plain),
            Cell::lines(lines, tone),
        ]);
        wait(&mut waiting, told, &below);
    }
    grid
}

/// The request whose answer told of this one's peer: an earlier one, so that no chain comes back to itself.
fn parent(trace: &[TraceView], index: usize) -> Option<usize> {
    let teller = trace.get(index)?.told_by?;
    let earlier = trace.iter().take(index).enumerate();
    earlier
        .filter(|(_, request)| request.peer == teller)
        .max_by_key(|(nth, request)| (is_answered(request), *nth))
        .map(|(nth, _)| nth)
}

fn is_answered(request: &TraceView) -> bool {
    request.outcome == RequestStatus::Answered
}

/// What came of a request, line by line.
fn answer(request: &TraceView) -> (Vec<String>, Tone) {
    let failure = match request.outcome {
        RequestStatus::Answered => None,
        RequestStatus::Unreachable => Some(("unreachable", Tone::Warning)),
        RequestStatus::Silent => Some(("silent", Tone::Warning)),
        RequestStatus::Refused => Some(("refused to answer", Tone::Warning)),
        RequestStatus::Malformed => Some(("an answer that cannot be read", Tone::Warning)),
        RequestStatus::Waiting => Some(("no answer by the end", Tone::Faint)),
    };
    if let Some((words, tone)) = failure {
        return (vec![words.to_owned()], tone);
    }
    let mut lines = Vec::new();
    for record in &request.records {
        let mut line = format!("{} {}", shortened(&record.instance.to_string(), 8), record.sequence);
        if record.tombstone {
            line.push_str(" removed");
        }
        let differs = request.differences.iter().find(|difference| difference.instance == record.instance);
        match differs.map(|difference| difference.kind) {
            Some(DifferenceStatus::Stale) => line.push_str(" (stale)"),
            Some(DifferenceStatus::Newer) => line.push_str(" (newer)"),
            Some(DifferenceStatus::Withheld) | None => {}
        }
        lines.push(line);
    }
    let withheld = request.differences.iter().filter(|difference| difference.kind == DifferenceStatus::Withheld);
    lines.extend(withheld.map(|difference| format!("{} withheld", shortened(&difference.instance.to_string(), 8))));
    lines.extend(request.rejected.iter().map(|rejected| format!("not believed: {}", rejected.reason)));
    let tone = match (lines.is_empty(), disagrees(request) || !request.rejected.is_empty()) {
        (_, true) => Tone::Warning,
        (false, false) => Tone::Good,
        (true, false) => Tone::Faint,
    };
    if lines.is_empty() {
        lines.push(if request.storer {
            "has no record".to_owned()
        } else {
            format!("told of {}, {} new", count(request.told_of, "peer"), request.new_peers)
        });
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - (MAX_LINES - 1);
        lines.truncate(MAX_LINES - 1);
        lines.push(format!("… and {more} more"));
    }
    (lines, tone)
}

/// Whether the peer lacks something that the storers together have.
fn disagrees(request: &TraceView) -> bool {
    request.differences.iter().any(|difference| difference.kind != DifferenceStatus::Newer)
}

/// That the storers disagree, and how many of them in which way; `None` if they agree.
pub(super) fn disagreement(trace: &[TraceView]) -> Option<String> {
    if !trace.iter().any(disagrees) {
        return None;
    }
    let storers = trace.iter().filter(|request| request.storer).count();
    let with = |kind| {
        let differs = |request: &&TraceView| request.differences.iter().any(|difference| difference.kind == kind);
        trace.iter().filter(differs).count()
    };
    let kinds = [
        (with(DifferenceStatus::Stale), "stale"),
        (with(DifferenceStatus::Withheld), "withheld"),
        (with(DifferenceStatus::Newer), "newer"),
    ];
    let kinds = kinds.iter().filter(|(number, _)| *number > 0).map(|(number, kind)| format!("{kind} at {number}"));
    Some(format!("the storers disagree: of {storers}, {}", kinds.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::{InstanceId, PeerId},
        ops::outcome::{DifferenceView, HeldView, RejectedView},
    };

    fn peer(n: u8) -> PeerId {
        PeerId::from_public_key([n; 32])
    }

    fn request(n: u8, told_by: Option<u8>, hop: u8) -> TraceView {
        TraceView {
            peer: peer(n),
            told_by: told_by.map(peer),
            path: 0,
            hop,
            common_prefix_bits: u32::from(hop) * 3,
            asked_ms: 0.1,
            took_ms: Some(1.25),
            outcome: RequestStatus::Answered,
            told_of: 5,
            new_peers: 1,
            storer: false,
            records: Vec::new(),
            rejected: Vec::new(),
            differences: Vec::new(),
        }
    }

    fn storer(n: u8, told_by: u8, sequence: Option<u64>, differs: Option<DifferenceStatus>) -> TraceView {
        let instance = InstanceId::of_key(&[1; 32]);
        TraceView {
            storer: true,
            records: sequence.map(|sequence| HeldView { instance, sequence, tombstone: false }).into_iter().collect(),
            differences: differs.map(|kind| DifferenceView { instance, kind }).into_iter().collect(),
            ..request(n, Some(told_by), 2)
        }
    }

    fn rejected(reason: &str) -> RejectedView {
        RejectedView { peer: peer(9), code: "malformed".to_owned(), reason: reason.to_owned(), untrusted: true }
    }

    /// The tree with peers as the digit that they were made of, and the instance as `I`.
    fn shown(trace: &[TraceView]) -> String {
        let instance = shortened(&InstanceId::of_key(&[1; 32]).to_string(), 8);
        let mut text = tree(trace).render(false, Some(40)).replace(&instance, "I");
        for request in trace {
            let n = (0..=u8::MAX).find(|n| peer(*n) == request.peer).unwrap();
            text = text.replace(&peer_name(&request.peer), &format!("{n:17}"));
        }
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
    }

    #[test]
    fn each_peer_stands_under_the_one_that_told_of_it() {
        let trace = [
            request(1, None, 1),
            request(2, None, 1),
            storer(3, 1, Some(20), None),
            storer(4, 1, Some(10), Some(DifferenceStatus::Stale)),
            storer(5, 3, None, Some(DifferenceStatus::Withheld)),
            TraceView { outcome: RequestStatus::Unreachable, ..request(6, Some(2), 2) },
            TraceView { outcome: RequestStatus::Waiting, took_ms: None, path: 1, ..request(7, Some(6), 3) },
        ];
        assert_eq!(
            shown(&trace),
            "PEER PATH HOP BITS TOOK ANSWER\n\
             ├─ 1 0 1 3 1.2 ms told of 5 peers, 1 new\n\
             │ ├─ 3 0 2 6 1.2 ms I 20\n\
             │ │ └─ 5 0 2 6 1.2 ms I withheld\n\
             │ └─ 4 0 2 6 1.2 ms I 10 (stale)\n\
             └─ 2 0 1 3 1.2 ms told of 5 peers, 1 new\n\
             └─ 6 0 2 6 1.2 ms unreachable\n\
             └─ 7 1 3 9 – no answer by the end\n"
        );
        assert_eq!(disagreement(&trace).unwrap(), "the storers disagree: of 3, stale at 1, withheld at 1");
        assert_eq!(disagreement(&trace[..3]), None);
    }

    #[test]
    fn columns_line_up_and_a_narrow_terminal_does_not_break_the_tree() {
        let trace = [request(1, None, 1), storer(3, 1, Some(20), None)];
        let text = tree(&trace).render(false, Some(40));
        let columns = text.lines().map(|line| line.chars().position(|c| c == '.').unwrap_or(0)).collect::<Vec<_>>();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(columns[1], columns[2], "{text}");
        assert!(text.lines().nth(2).unwrap().starts_with("   └─ 12D3KooW…"), "{text}");
    }

    #[test]
    fn the_tree_goes_on_beside_an_answer_of_several_lines() {
        let mut first = request(1, None, 1);
        first.rejected = vec![rejected("one"), rejected("two\x1b[2J\nthree")];
        let trace = [first, storer(3, 1, None, None), storer(4, 1, Some(1), Some(DifferenceStatus::Newer))];
        assert_eq!(
            shown(&trace),
            "PEER PATH HOP BITS TOOK ANSWER\n\
             └─ 1 0 1 3 1.2 ms not believed: one\n\
             │ not believed: two\\u{1b}[2J\\nthree\n\
             ├─ 3 0 2 6 1.2 ms has no record\n\
             └─ 4 0 2 6 1.2 ms I 1 (newer)\n"
        );
        let mut many = request(1, None, 1);
        many.rejected = (0..20).map(|n| rejected(&n.to_string())).collect();
        let text = shown(&[many]);
        assert_eq!(text.lines().count(), 1 + MAX_LINES);
        assert!(text.ends_with("… and 13 more\n"), "{text}");
    }

    #[test]
    fn a_peer_asked_twice_and_a_teller_unknown_make_no_loop() {
        let failed = TraceView { outcome: RequestStatus::Silent, ..request(1, None, 1) };
        let trace =
            [failed, request(2, Some(1), 2), request(1, Some(2), 3), request(3, Some(1), 4), request(4, Some(9), 2)];
        let text = shown(&trace);
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(text.contains("├─ 1 0 1 3 1.2 ms silent\n│ └─ 2 "), "{text}");
        assert!(text.contains("│ └─ 3 0 4 12 ") && text.contains("\n└─ 4 "), "{text}");
    }

    #[test]
    fn colour_follows_from_what_it_means() {
        let colour = |request: TraceView| tree(&[request]).render(true, None);
        let good = colour(storer(1, 9, Some(1), None));
        let bad = colour(storer(1, 9, Some(1), Some(DifferenceStatus::Stale)));
        assert!(good.contains("\x1b[") && good != bad.replace(" (stale)", ""));
        assert!(!tree(&[storer(1, 9, Some(1), None)]).render(false, None).contains('\x1b'));
    }
}
