//! Tables for people: plain columns without lines, coloured only when told to. Every cell is escaped.

use comfy_table::{Attribute, Color, ContentArrangement, Table, presets::NOTHING};

use super::escape::escape;

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
#[derive(Debug, Default)]
pub(in crate::cli) struct Grid {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    unwrapped: bool,
}

impl Grid {
    /// A table with a heading for each column.
    pub(in crate::cli) fn with_header(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), ..Self::default() }
    }

    /// The same, but as wide as it is, whatever the terminal.
    pub(in crate::cli) const fn unwrapped(mut self) -> Self {
        self.unwrapped = true;
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

    /// The text, each line ended. `width` columns are kept to if they are enough for a table at all.
    pub(in crate::cli) fn render(&self, colour: bool, width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).force_no_tty();
        if colour {
            table.enforce_styling();
        }
        if let Some(width) = width.filter(|_| !self.unwrapped) {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.max(40));
        }
        if !self.header.is_empty() {
            let bold = |name: &&str| comfy_table::Cell::new(name).add_attribute(Attribute::Bold);
            table.set_header(self.header.iter().map(bold).collect::<Vec<_>>());
        }
        for row in &self.rows {
            table.add_row(row.iter().map(Cell::styled).collect::<Vec<_>>());
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
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

    #[test]
    fn a_narrow_terminal_wraps_long_cells() {
        let text = sample().render(false, Some(12));
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }

    #[test]
    fn a_cell_cannot_drive_the_terminal() {
        let mut grid = Grid::of_pairs();
        grid.pair("reason", Cell::text("no\x1b[2J\n\u{202e}", Tone::Plain));
        assert_eq!(grid.render(false, None), "reason  no\\u{1b}[2J\\n\\u{202e}\n");
    }
}
