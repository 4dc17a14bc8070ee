//! `--ladder`: a call flow with a line for each party and an arrow for each message, and below it the hops.
//!
//! Whatever is shown comes from the network: it is escaped, and what might be wider or narrower than one column is
//! spelt out, so that the lines stay straight.

use std::collections::HashMap;

use super::{
    Paint,
    escape::escape,
    short_peers,
    table::{Cell, Grid, Tone},
};
use crate::{
    cli::io::Env,
    ops::flow::{AskedView, FlowView, MessageView, PartyView},
};

/// Columns left of the lines: a time to a tenth of a millisecond.
const TIMES: usize = 14;
/// The same with a number before the time.
const NUMBERED: usize = 16;
/// Columns from one line to the next: at least, even on a narrow terminal; rather not less; and at most.
const MIN_GAP: usize = 18;
const GOOD_GAP: usize = 32;
const MAX_GAP: usize = 48;
/// A pause that is worth a broken line.
const PAUSE_MS: f64 = 1_000.0;

/// What lines and arrows are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Strokes {
    /// Box drawing characters.
    Unicode,
    /// For terminals that have nothing else.
    Ascii,
}

impl Strokes {
    /// As the locale says (POSIX: LC_ALL outranks LC_CTYPE, which outranks LANG). Without one, nothing speaks against
    /// Unicode.
    pub(in crate::cli) fn of(env: &Env) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| env.variable(name));
        let locale = locale.map(|locale| locale.to_string_lossy().to_ascii_lowercase());
        match locale {
            Some(locale) if !locale.contains("utf-8") && !locale.contains("utf8") => Self::Ascii,
            _ => Self::Unicode,
        }
    }

    /// Line, broken line, shaft, arrowheads to the left and to the right, ellipsis.
    const fn characters(self) -> [char; 6] {
        match self {
            Self::Unicode => ['│', '┊', '─', '◀', '▶', '…'],
            Self::Ascii => ['|', ':', '-', '<', '>', '~'],
        }
    }

    /// Where a remark begins to the right of a line and to its left, and what leads from a question to its answer.
    const fn remarks(self) -> [&'static str; 3] {
        match self {
            Self::Unicode => ["├", "┤", "→"],
            Self::Ascii => ["+", "+", "->"],
        }
    }
}

/// What messages and questions are in a drawing that numbers them.
#[derive(Debug, Default)]
pub(in crate::cli) struct Numbers<'a> {
    /// By their place among the messages.
    pub(in crate::cli) messages: HashMap<usize, &'a str>,
    /// By their place among the questions.
    pub(in crate::cli) asked: HashMap<usize, &'a str>,
}

/// A message or a question, with its number.
enum Row<'a> {
    Message(&'a MessageView, &'a str),
    Asked(&'a AskedView, &'a str),
}

impl Row<'_> {
    const fn at_ms(&self) -> f64 {
        match self {
            Self::Message(message, _) => message.at_ms,
            Self::Asked(asked, _) => asked.at_ms,
        }
    }
}

/// The flow, each line ended; with numbers, if there are any.
pub(super) fn draw(
    flow: &FlowView,
    numbers: Option<&Numbers<'_>>,
    paint: Paint,
    width: Option<u16>,
    strokes: Strokes,
) -> String {
    let [line, broken, ..] = strokes.characters();
    let board = Board::new(flow, numbers.is_some(), width, strokes);
    let mut text = String::new();
    let mut add = |row: &str| {
        text.push_str(row.trim_end());
        text.push('\n');
    };
    add(&paint.strong(board.headings(|party| &party.name).trim_end()));
    add(&paint.faint(board.headings(|party| &party.address).trim_end()));
    add(&board.lines(line).iter().collect::<String>());
    let mut last = None;
    for row in rows(flow, numbers) {
        if last.is_some_and(|last| row.at_ms() - last >= PAUSE_MS) {
            add(&board.lines(broken).iter().collect::<String>());
        }
        last = Some(row.at_ms());
        match row {
            Row::Message(message, number) => add(&board.arrow(message, number, paint)),
            Row::Asked(asked, number) => add(&board.remark(asked, number)),
        }
    }
    add(&board.lines(line).iter().collect::<String>());
    text
}

/// Messages and questions by their times; a question before what is sent in the same moment.
fn rows<'a>(flow: &'a FlowView, numbers: Option<&Numbers<'a>>) -> Vec<Row<'a>> {
    let asked = flow.asked.iter().enumerate().map(|(nth, asked)| {
        Row::Asked(asked, numbers.and_then(|numbers| numbers.asked.get(&nth)).copied().unwrap_or_default())
    });
    let messages = flow.messages.iter().enumerate().map(|(nth, message)| {
        Row::Message(message, numbers.and_then(|numbers| numbers.messages.get(&nth)).copied().unwrap_or_default())
    });
    let mut rows: Vec<Row<'a>> = asked.chain(messages).collect();
    rows.sort_by(|one, other| one.at_ms().total_cmp(&other.at_ms()));
    rows
}

/// One line a hop.
pub(super) fn hops(flow: &FlowView) -> Grid {
    let mut grid = Grid::with_header(&["HOP", "FROM", "TO", "TRANSPORT", "ADDRESS", "FOUND BY"]);
    for (nth, hop) in flow.hops.iter().enumerate() {
        grid.row([
            Cell::text((nth + 1).to_string(), Tone::Plain),
            Cell::text(&hop.from, Tone::Subject),
            Cell::text(&hop.to, Tone::Subject),
            Cell::text(&hop.transport, Tone::Plain),
            Cell::text(short_peers(&hop.address), Tone::Plain),
            Cell::text(&hop.found, Tone::Faint),
        ]);
    }
    grid
}

/// Where the lines stand.
struct Board<'a> {
    flow: &'a FlowView,
    strokes: Strokes,
    /// Whether there is a number before each time.
    numbered: bool,
    /// The column of the first line.
    left: usize,
    /// From one line to the next.
    gap: usize,
    /// How far remarks may go.
    width: usize,
}

impl<'a> Board<'a> {
    fn new(flow: &'a FlowView, numbered: bool, width: Option<u16>, strokes: Strokes) -> Self {
        let times = if numbered { NUMBERED } else { TIMES };
        let widest = |party: &PartyView| shown(&party.name).chars().count().max(shown(&party.address).chars().count());
        let widest_name = flow.parties.iter().map(widest).max().unwrap_or_default();
        let widest_label = flow.messages.iter().map(|message| label(message).chars().count()).max().unwrap_or_default();
        let mut gap = (widest_label + 8).max(widest_name + 2).clamp(GOOD_GAP, MAX_GAP);
        if let Some(width) = width {
            // At either side stands half a name.
            let gaps = flow.parties.len().saturating_sub(1).max(1);
            let outer = [flow.parties.first(), flow.parties.last()].into_iter().flatten();
            let halves = outer.map(|party| widest(party).min(MIN_GAP).div_ceil(2)).sum::<usize>();
            let room = usize::from(width).saturating_sub(times + halves + 1) / gaps;
            gap = gap.min(room.max(MIN_GAP));
        }
        let first = flow.parties.first().map(widest).unwrap_or_default().min(gap - 2);
        let left = times + first / 2 + 1;
        let needed = left + flow.parties.len() * gap;
        Self { flow, strokes, numbered, left, gap, width: width.map_or(needed, |width| needed.min(width.into())) }
    }

    fn column(&self, party: usize) -> usize {
        self.left + party.min(self.flow.parties.len()) * self.gap
    }

    /// An empty row with every party's line.
    fn lines(&self, stroke: char) -> Vec<char> {
        let end = self.column(self.flow.parties.len().saturating_sub(1));
        let mut row = vec![' '; end + 1];
        for party in 0..self.flow.parties.len() {
            put(&mut row, self.column(party), stroke);
        }
        row
    }

    fn headings(&self, what: fn(&PartyView) -> &String) -> String {
        let mut row = vec![' '; self.column(self.flow.parties.len())];
        for (nth, party) in self.flow.parties.iter().enumerate() {
            let name = self.shortened(&shown(what(party)), self.gap.saturating_sub(2));
            let length = name.chars().count();
            // The last one moves to the left rather than over the edge.
            let start = self.column(nth).saturating_sub(length / 2).min(self.width.saturating_sub(length));
            for (at, c) in name.chars().enumerate() {
                put(&mut row, start + at, c);
            }
        }
        row.into_iter().collect()
    }

    /// An empty row that begins with the time, and with the number if this is a drawing with numbers.
    fn begun(&self, number: &str, at_ms: f64) -> Vec<char> {
        let [line, ..] = self.strokes.characters();
        let mut row = self.lines(line);
        let time = if self.numbered { format!("{number:>4} {at_ms:>7.1} ms") } else { format!("{at_ms:>10.1} ms") };
        for (at, c) in time.chars().enumerate() {
            put(&mut row, at, c);
        }
        row
    }

    /// What a party has asked, and was answered, beside its line.
    fn remark(&self, asked: &AskedView, number: &str) -> String {
        let [right, left, to] = self.strokes.remarks();
        let AskedView { whom, question, answer, .. } = asked;
        let text = format!("{whom}: {} {to} {}", safe(question), safe(answer));
        let column = self.column(asked.by);
        let (before, after) = (column.saturating_sub(self.left + 3), self.width.saturating_sub(column + 2));
        let to_right = text.chars().count() <= after || after >= before;
        let text = self.shortened(&text, if to_right { after } else { before });
        let start = if to_right { column + 2 } else { column.saturating_sub(text.chars().count() + 1) };
        let mut row = self.begun(number, asked.at_ms);
        row.resize(row.len().max(start + text.chars().count() + 1), ' ');
        put(&mut row, column, if to_right { right } else { left }.chars().next().unwrap_or(' '));
        put(&mut row, if to_right { column + 1 } else { start.saturating_sub(1) }, ' ');
        for (at, c) in text.chars().chain([' ']).enumerate() {
            put(&mut row, start + at, if start + at == column { left.chars().next().unwrap_or(' ') } else { c });
        }
        row.into_iter().collect()
    }

    fn arrow(&self, message: &MessageView, number: &str, paint: Paint) -> String {
        let [_, _, shaft, to_left, to_right, _] = self.strokes.characters();
        let mut row = self.begun(number, message.at_ms);
        let (from, to) = (self.column(message.from), self.column(message.to));
        let (first, last) = (from.min(to) + 1, from.max(to).saturating_sub(1));
        for at in first..=last.max(first) {
            put(&mut row, at, shaft);
        }
        match message.from.cmp(&message.to) {
            std::cmp::Ordering::Less => put(&mut row, last, to_right),
            std::cmp::Ordering::Greater => put(&mut row, first, to_left),
            std::cmp::Ordering::Equal => {}
        }
        // The label takes the place of shaft, with a space at either side.
        let room = (last + 1).saturating_sub(first);
        let text = format!(" {} ", self.shortened(&label(message), room.saturating_sub(4)));
        let length = text.chars().count();
        let start = first + room.saturating_sub(length) / 2;
        let before = row.iter().take(start).collect::<String>();
        let after = row.iter().skip(start + length).collect::<String>();
        format!("{before}{}{after}", painted(message, &text, paint))
    }

    /// At most so many characters, the last of which tells that there were more.
    fn shortened(&self, text: &str, room: usize) -> String {
        let [.., ellipsis] = self.strokes.characters();
        let text = text.replace('…', &ellipsis.to_string());
        if text.chars().count() <= room {
            return text;
        }
        text.chars().take(room.saturating_sub(1)).chain([ellipsis]).collect()
    }
}

fn put(row: &mut [char], at: usize, c: char) {
    if let Some(place) = row.get_mut(at) {
        *place = c;
    }
}

/// What an arrow says.
fn label(message: &MessageView) -> String {
    let mut label = safe(&message.what);
    if message.sdp {
        label.push_str(" (SDP)");
    }
    if message.again {
        label.push_str(" again");
    }
    label
}

fn painted(message: &MessageView, text: &str, paint: Paint) -> String {
    match message.status {
        _ if message.again => paint.faint(text),
        None => paint.strong(text),
        Some(..=199) => text.to_owned(),
        Some(200..=299) => paint.good(text),
        Some(_) => paint.warning(text),
    }
}

/// A name or an address, with peer ids as people compare them.
fn shown(text: &str) -> String {
    safe(&short_peers(text))
}

/// Escaped, and every character one column wide: letters beyond Latin may be wider, or combine.
fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in escape(text).chars() {
        match c {
            '\0'..='\u{2ff}' | '…' => safe.push(c),
            _ => safe.extend(c.escape_unicode()),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::flow::HopView;

    fn party(name: &str, address: &str) -> PartyView {
        PartyView { name: name.to_owned(), address: address.to_owned() }
    }

    fn message(at_ms: f64, from: usize, to: usize, what: &str) -> MessageView {
        MessageView {
            at_ms,
            from,
            to,
            transport: "UDP".to_owned(),
            what: what.to_owned(),
            status: what.get(..3).and_then(|status| status.parse().ok()),
            cseq: "1 INVITE".to_owned(),
            sdp: what == "INVITE" || what == "200 OK",
            again: false,
            octets: 400,
        }
    }

    fn flow(messages: Vec<MessageView>) -> FlowView {
        let parties =
            vec![party("alice", "127.0.0.1:41000"), party("proxy", "127.0.0.1:5060"), party("bob", "127.0.0.1:5070")];
        FlowView { parties, messages, hops: Vec::new(), asked: Vec::new() }
    }

    fn drawn(flow: &FlowView, width: Option<u16>, strokes: Strokes) -> String {
        draw(flow, None, Paint::new(false), width, strokes)
    }

    fn asked(at_ms: f64, by: usize, whom: &'static str, question: &str, answer: &str) -> AskedView {
        let (question, answer) = (question.to_owned(), answer.to_owned());
        AskedView { at_ms, by, whom, question, answer, took_ms: 0.5 }
    }

    #[test]
    fn questions_stand_beside_the_line_of_who_asks_and_steps_before_the_time() {
        let mut flow = flow(vec![message(1.0, 0, 1, "INVITE"), message(2.5, 1, 2, "INVITE")]);
        flow.asked = vec![
            asked(0.5, 0, "overlay", "sip:p2psip.org", "2 proxy peers"),
            asked(2.0, 1, "DNS", "example.com", "udp 192.0.2.1:5060 by NAPTR, SRV"),
            asked(3.0, 2, "DNS", "p2psip.org", "nothing"),
        ];
        let numbers = Numbers { messages: HashMap::from([(0, "7")]), asked: HashMap::from([(0, "5-6")]) };
        assert_eq!(
            draw(&flow, Some(&numbers), Paint::new(false), Some(80), Strokes::Unicode),
            concat!(
                "                      alice                   proxy                    bob\n",
                "                 127.0.0.1:41000         127.0.0.1:5060          127.0.0.1:5070\n",
                "                        │                       │                       │\n",
                " 5-6     0.5 ms         ├ overlay: sip:p2psip.org → 2 proxy peers       │\n",
                "   7     1.0 ms         │──── INVITE (SDP) ────▶│                       │\n",
                "         2.0 ms         │                       ├ DNS: example.com → udp 192.0.…\n",
                "         2.5 ms         │                       │──── INVITE (SDP) ────▶│\n",
                "         3.0 ms         │                     DNS: p2psip.org → nothing ┤\n",
                "                        │                       │                       │\n",
            )
        );
    }

    #[test]
    fn a_call_flow_is_a_ladder() {
        let mut flow = flow(vec![
            message(0.0, 0, 1, "INVITE"),
            MessageView { again: true, ..message(500.24, 0, 1, "INVITE") },
            message(501.0, 1, 0, "100 Trying"),
            message(612.3, 1, 0, "200 OK"),
            message(612.9, 0, 2, "ACK"),
            message(2612.9, 2, 0, "BYE"),
        ]);
        assert_eq!(
            drawn(&flow, Some(90), Strokes::Unicode),
            concat!(
                "                    alice                         proxy                          bob\n",
                "               127.0.0.1:41000               127.0.0.1:5060                127.0.0.1:5070\n",
                "                      │                             │                             │\n",
                "       0.0 ms         │─────── INVITE (SDP) ───────▶│                             │\n",
                "     500.2 ms         │──── INVITE (SDP) again ────▶│                             │\n",
                "     501.0 ms         │◀─────── 100 Trying ─────────│                             │\n",
                "     612.3 ms         │◀────── 200 OK (SDP) ────────│                             │\n",
                "     612.9 ms         │─────────────────────────── ACK ──────────────────────────▶│\n",
                "                      ┊                             ┊                             ┊\n",
                "    2612.9 ms         │◀────────────────────────── BYE ───────────────────────────│\n",
                "                      │                             │                             │\n",
            )
        );
        flow.messages.truncate(1);
        assert_eq!(
            drawn(&flow, None, Strokes::Ascii),
            concat!(
                "                    alice                           proxy                            bob\n",
                "               127.0.0.1:41000                 127.0.0.1:5060                  127.0.0.1:5070\n",
                "                      |                               |                               |\n",
                "       0.0 ms         |-------- INVITE (SDP) -------->|                               |\n",
                "                      |                               |                               |\n",
            )
        );
    }

    #[test]
    fn peer_ids_are_short_and_no_heading_stands_over_the_edge() {
        let mut flow = flow(vec![message(0.0, 0, 1, "INVITE")]);
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        flow.parties =
            vec![party("alice", peer), party("proxy peer", peer), party("bob", "a.very.long.name.example:5060")];
        for width in [60, 80, 100, 200] {
            let text = drawn(&flow, Some(width), Strokes::Unicode);
            assert_eq!(text.matches("12D3KooW…eQAJU5SA").count(), if width == 60 { 0 } else { 2 }, "{text}");
            assert!(text.lines().take(2).all(|line| line.chars().count() <= usize::from(width)), "{width}:\n{text}");
        }
        assert!(!drawn(&flow, Some(100), Strokes::Ascii).contains('…'));
    }

    #[test]
    fn lines_stay_straight_whatever_the_network_says() {
        let flow = flow(vec![
            message(
                1.0,
                1,
                0,
                "486 \x1b[2J\u{202e}忙 zaj\u{119}ty\u{301} and so on and on, longer than any line has room for it",
            ),
            message(12_345.678, 2, 1, "é"),
        ]);
        for width in [None, Some(20), Some(80), Some(300)] {
            let text = drawn(&flow, width, Strokes::Unicode);
            assert!(!text.contains('\x1b') && !text.contains('忙'), "{text}");
            let columns = |line: &str| line.chars().position(|c| matches!(c, '│' | '┊')).unwrap();
            let first = text.lines().skip(2).map(columns).collect::<Vec<_>>();
            assert!(first.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
            let ends = text.lines().skip(2).map(|line| line.chars().count()).collect::<Vec<_>>();
            assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
        }
    }

    #[test]
    fn colour_only_when_told_and_without_moving_anything() {
        let flow = flow(vec![message(0.0, 0, 1, "INVITE"), message(1.0, 1, 0, "486 Busy Here")]);
        let plain = drawn(&flow, Some(100), Strokes::Unicode);
        let coloured = draw(&flow, None, Paint::new(true), Some(100), Strokes::Unicode);
        assert!(coloured.contains("\x1b["));
        let mut stripped = String::new();
        let mut inside = false;
        for c in coloured.chars() {
            match c {
                '\x1b' => inside = true,
                'm' if inside => inside = false,
                c if !inside => stripped.push(c),
                _ => {}
            }
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn each_hop_is_a_line() {
        let mut flow = flow(Vec::new());
        flow.hops.push(HopView {
            from: "alice".to_owned(),
            to: "bob\u{7}".to_owned(),
            transport: "UDP".to_owned(),
            address: "127.0.0.1:5060".to_owned(),
            found: "SRV _sip._udp.example.com".to_owned(),
        });
        assert_eq!(
            hops(&flow).render(false, None),
            "HOP  FROM   TO        TRANSPORT  ADDRESS         FOUND BY\n\
             1    alice  bob\\u{7}  UDP        127.0.0.1:5060  SRV _sip._udp.example.com\n"
        );
    }

    #[test]
    fn strokes_follow_the_locale() {
        let of = |pairs: &[(&str, &str)]| {
            Strokes::of(&pairs.iter().fold(Env::new("/"), |env, (name, value)| env.with(*name, *value)))
        };
        assert_eq!(of(&[]), Strokes::Unicode);
        assert_eq!(of(&[("LANG", "de_DE.UTF-8")]), Strokes::Unicode);
        assert_eq!(of(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]), Strokes::Ascii);
        assert_eq!(of(&[("LC_CTYPE", "C.utf8"), ("LANG", "C")]), Strokes::Unicode);
    }
}
