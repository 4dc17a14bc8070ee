//! Tables for people: plain columns without lines, coloured only when told to. Every cell is escaped.

use comfy_table::{Attribute, Color, ColumnConstraint, ContentArrangement, Table, Width, presets::NOTHING};

use super::escape::escape;

/// Columns that are never taken away, however narrow the terminal.
const NARROWEST: u16 = 40;
/// Blanks between two columns.
const GAP: u16 = 2;

/// What a cell means; its colour follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Tone {
    /// Nothing in particular.
    Plain,
    /// What the row is about.
    Subject,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Background.
    Faint,
}

/// What stands in one place of a table: lines that are safe to show.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Cell {
    lines: String,
    tone: Tone,
}

impl Cell {
    /// One line.
    pub(in crate::cli) fn text(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { lines: escape(text.as_ref()).into_owned(), tone }
    }

    /// Several lines.
    pub(in crate::cli) fn lines(lines: impl IntoIterator<Item: AsRef<str>>, tone: Tone) -> Self {
        let lines = lines.into_iter().map(|line| escape(line.as_ref()).into_owned()).collect::<Vec<_>>();
        Self { lines: lines.join("\n"), tone }
    }

    fn styled(&self) -> comfy_table::Cell {
        let cell = comfy_table::Cell::new(&self.lines);
        match self.tone {
            Tone::Plain => cell,
            Tone::Subject => cell.fg(Color::Cyan),
            Tone::Good => cell.fg(Color::Green),
            Tone::Warning => cell.fg(Color::Yellow),
            Tone::Faint => cell.fg(Color::DarkGrey),
        }
    }
}

/// Rows and columns, rendered when the terminal is known.
///
/// Words are never cut, so that whatever is shown can be copied. A table that is too wide breaks lines between words,
/// then goes without its spare columns, and at last lists each row, a line for a cell.
#[derive(Debug, Default)]
pub(in crate::cli) struct Grid {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    spare: &'static [&'static str],
    drawing: bool,
}

impl Grid {
    /// A table with a heading for each column.
    pub(in crate::cli) fn with_header(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), ..Self::default() }
    }

    /// The same, with columns that a narrow terminal goes without, the first one first.
    pub(in crate::cli) const fn spare(mut self, columns: &'static [&'static str]) -> Self {
        self.spare = columns;
        self
    }

    /// The same, but with rows that belong together: no line is broken.
    pub(in crate::cli) const fn drawing(mut self) -> Self {
        self.drawing = true;
        self
    }

    /// A list of names and values.
    pub(in crate::cli) fn of_pairs() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub(in crate::cli) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a name and its value to a list.
    pub(in crate::cli) fn pair(&mut self, name: &str, value: Cell) {
        self.row([Cell::text(name, Tone::Faint), value]);
    }

    /// The text, each line ended. `width` columns are kept to if words are short enough.
    pub(in crate::cli) fn render(&self, colour: bool, width: Option<u16>) -> String {
        let all = || (0..self.columns()).collect::<Vec<_>>();
        let Some(room) = width.map(|width| width.max(NARROWEST)) else {
            return self.text(&all(), None, colour);
        };
        match self.layout(room) {
            Some((columns, widths)) => self.text(&columns, Some(&widths), colour),
            None if self.drawing => self.text(&all(), None, colour),
            None => self.list(colour, room),
        }
    }

    fn columns(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or_default().max(self.header.len())
    }

    /// The columns to show and how wide they are, if that can be done without cutting words.
    fn layout(&self, room: u16) -> Option<(Vec<usize>, Vec<u16>)> {
        let natural = self.widths(|lines| lines.to_owned());
        let least = if self.drawing { natural.clone() } else { self.widths(one_word_a_line) };
        // A column less is better than a line more.
        [&natural, &least].into_iter().find_map(|least| {
            (0..=self.spare.len()).find_map(|without| {
                let spare = self.spare.get(..without).unwrap_or_default();
                let is_shown = |column: &usize| self.header.get(*column).is_none_or(|name| !spare.contains(name));
                let columns: Vec<usize> = (0..natural.len()).filter(is_shown).collect();
                let of = |widths: &[u16]| -> Vec<u16> {
                    columns.iter().filter_map(|column| widths.get(*column)).copied().collect()
                };
                let room = usize::from(room).saturating_sub(usize::from(GAP) * columns.len().saturating_sub(1));
                let widths = shrunk(of(&natural), &of(least), room)?;
                Some((columns, widths))
            })
        })
    }

    /// How wide each column is when its cells are `shaped`.
    fn widths(&self, shaped: fn(&str) -> String) -> Vec<u16> {
        let mut table = Table::new();
        if !self.header.is_empty() {
            table.set_header(self.header.iter().map(|name| shaped(name)).collect::<Vec<_>>());
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| shaped(&cell.lines)).collect::<Vec<_>>());
        }
        table.column_max_content_widths()
    }

    fn text(&self, columns: &[usize], widths: Option<&[u16]>, colour: bool) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).force_no_tty();
        if colour {
            table.enforce_styling();
        }
        if !self.header.is_empty() {
            let names = columns.iter().map(|column| self.header.get(*column).copied().unwrap_or_default());
            table.set_header(names.map(|name| comfy_table::Cell::new(name).add_attribute(Attribute::Bold)));
        }
        for row in &self.rows {
            table.add_row(columns.iter().map(|column| row.get(*column).map_or_else(empty, Cell::styled)));
        }
        if widths.is_some() {
            // Every column has its width, so this one only has to be enough.
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::MAX);
        }
        // In colour, blanks at the end of a line would be part of it.
        let last = columns.len().saturating_sub(1);
        for (nth, column) in table.column_iter_mut().enumerate() {
            let gap = if nth == last { 0 } else { GAP };
            column.set_padding((0, gap));
            if let Some(width) = widths.and_then(|widths| widths.get(nth)) {
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + gap)));
            }
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Each row as a list of names and values; values that do not fit beside their names stand below them.
    fn list(&self, colour: bool, room: u16) -> String {
        let mut text = String::new();
        for row in &self.rows {
            if !self.header.is_empty() && !text.is_empty() {
                text.push('\n');
            }
            let names = self.header.iter().map(|name| Cell::text(name, Tone::Faint));
            let pairs: Vec<(Cell, Cell)> = match (self.header.as_slice(), row.as_slice()) {
                ([], [name, value]) => vec![(name.clone(), value.clone())],
                ([], _) => Vec::new(),
                (_, values) => names.zip(values.iter().cloned()).filter(|(_, cell)| !cell.lines.is_empty()).collect(),
            };
            let widest = match self.header.iter().map(|name| name.len()).max() {
                Some(widest) => u16::try_from(widest).unwrap_or(u16::MAX),
                None => self.widths(|lines| lines.to_owned()).first().copied().unwrap_or_default(),
            };
            for (name, value) in pairs {
                let one = |first: Cell, second: Cell| Self { rows: vec![vec![first, second]], ..Self::default() };
                let beside = one(name.clone(), value.clone());
                let [own, longest] = *beside.widths(one_word_a_line).as_slice() else { continue };
                let natural = beside.widths(|lines| lines.to_owned()).last().copied().unwrap_or_default();
                let left = natural.min(room.saturating_sub(widest + GAP));
                if longest <= left && own <= widest {
                    text.push_str(&beside.text(&[0, 1], Some(&[widest, left]), colour));
                } else {
                    let only = |cell: Cell| Self { rows: vec![vec![cell]], ..Self::default() };
                    text.push_str(&only(name).text(&[0], None, colour));
                    let width = natural.min(longest.max(room.saturating_sub(GAP)));
                    for line in only(value).text(&[0], Some(&[width]), colour).lines() {
                        text.push_str(&format!("{:1$}{line}\n", "", usize::from(GAP)));
                    }
                }
            }
        }
        text
    }
}

fn empty() -> comfy_table::Cell {
    comfy_table::Cell::new("")
}

fn one_word_a_line(lines: &str) -> String {
    let words = |line: &str| match line.trim_start() {
        // What is set off keeps its indent as long as it is a single word.
        word if !word.contains(' ') => line.to_owned(),
        words => words.replace(' ', "\n"),
    };
    lines.lines().map(words).collect::<Vec<_>>().join("\n")
}

/// The widths with the widest ones made smaller until they fit, but none smaller than its least.
fn shrunk(mut widths: Vec<u16>, least: &[u16], room: usize) -> Option<Vec<u16>> {
    let sum = |widths: &[u16]| widths.iter().map(|width| usize::from(*width)).sum::<usize>();
    while sum(&widths) > room {
        let widest = widths.iter_mut().zip(least).filter(|(width, least)| **width > **least);
        let (width, _) = widest.max_by_key(|(width, _)| **width)?;
        *width -= 1;
    }
    Some(widths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Grid {
        let mut grid = Grid::with_header(&["INSTANCE", "CONTACT"]);
        let contact = ["peer 12D3KooW…", "/ip4/192.0.2.7/tcp/4001"];
        grid.row([Cell::text("abcd1234…", Tone::Subject), Cell::lines(contact, Tone::Plain)]);
        grid
    }

    #[test]
    fn columns_line_up_without_trailing_space() {
        assert_eq!(
            sample().render(false, None),
            "INSTANCE   CONTACT\nabcd1234…  peer 12D3KooW…\n           /ip4/192.0.2.7/tcp/4001\n"
        );
    }

    #[test]
    fn colour_is_only_what_the_caller_says() {
        assert!(!sample().render(false, Some(80)).contains('\x1b'));
        assert!(sample().render(true, Some(80)).contains("\x1b["));
    }

    fn wide() -> Grid {
        let mut grid = Grid::with_header(&["PEER", "ADDRESS", "EXPIRES IN", "NOTE"]).spare(&["NOTE"]);
        grid.row([
            Cell::text("12D3KooW…12345678", Tone::Subject),
            Cell::lines(["udp:192.0.2.1:5060", "tcp:192.0.2.1:5060"], Tone::Plain),
            Cell::text("2 min 3 s", Tone::Plain),
            Cell::text("all is well", Tone::Good),
        ]);
        grid
    }

    #[test]
    fn a_narrow_terminal_goes_without_spare_columns_and_then_breaks_lines_between_words() {
        assert_eq!(
            wide().render(false, Some(60)),
            "PEER               ADDRESS             EXPIRES IN\n\
             12D3KooW…12345678  udp:192.0.2.1:5060  2 min 3 s\n\
             \x20                  tcp:192.0.2.1:5060\n"
        );
        assert_eq!(
            wide().render(false, Some(48)),
            "PEER               ADDRESS             EXPIRES\n\
             \x20                                      IN\n\
             12D3KooW…12345678  udp:192.0.2.1:5060  2 min 3 s\n\
             \x20                  tcp:192.0.2.1:5060\n"
        );
    }

    #[test]
    fn coloured_lines_keep_to_the_terminal_too() {
        for width in [None, Some(40), Some(48), Some(60)] {
            let text = wide().render(true, width);
            let (mut inside, mut column) = (false, 0);
            for c in text.chars() {
                match c {
                    '\n' => {
                        assert!(width.is_none_or(|width| column <= width), "{text}");
                        column = 0;
                    }
                    '\x1b' => inside = true,
                    'm' if inside => inside = false,
                    _ if inside => {}
                    _ => column += 1,
                }
            }
        }
    }

    #[test]
    fn where_no_table_fits_each_row_is_a_list() {
        assert_eq!(
            wide().render(false, Some(40)),
            "PEER        12D3KooW…12345678\n\
             ADDRESS     udp:192.0.2.1:5060\n\
             \x20           tcp:192.0.2.1:5060\n\
             EXPIRES IN  2 min 3 s\n\
             NOTE        all is well\n"
        );
    }

    #[test]
    fn a_value_that_is_too_long_to_stand_beside_its_name_stands_below_it() {
        let mut grid = Grid::of_pairs();
        grid.pair("expires in", Cell::text("1 h", Tone::Plain));
        grid.pair("this device", Cell::text("sip:alice@p2psip.org;gr=m2zdte4jj3dlp", Tone::Plain));
        let listed = "expires in   1 h\nthis device\n  sip:alice@p2psip.org;gr=m2zdte4jj3dlp\n";
        assert_eq!(grid.render(false, Some(40)), listed);
        assert_eq!(
            grid.render(false, Some(80)),
            "expires in   1 h\nthis device  sip:alice@p2psip.org;gr=m2zdte4jj3dlp\n"
        );
    }

    #[test]
    fn words_are_never_cut() {
        for width in 0..120 {
            let text = wide().render(false, Some(width));
            for word in ["12D3KooW…12345678", "udp:192.0.2.1:5060", "tcp:192.0.2.1:5060"] {
                assert!(text.contains(word), "{width}: {text}");
            }
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= usize::from(width.max(40)), "{width}: {text}");
        }
    }

    #[test]
    fn a_cell_cannot_drive_the_terminal() {
        let mut grid = Grid::of_pairs();
        grid.pair("reason", Cell::text("no\x1b[2J\n\u{202e}", Tone::Plain));
        assert_eq!(grid.render(false, None), "reason  no\\u{1b}[2J\\n\\u{202e}\n");
    }
}
