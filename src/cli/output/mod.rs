//! What a tool says: results on standard output as a table, as short lines or as JSON; all else on standard error.

pub(super) mod error;
pub(super) mod escape;
mod json;
pub(super) mod ladder;
pub(super) mod progress;
pub(super) mod table;

use std::io;

use colored::Colorize as _;
use serde::Serialize;
use serde_json::Map;
use tracing::Level;

use self::{
    error::{Failure, Stop, plain},
    escape::escape,
    ladder::{Numbers, Strokes},
    progress::Progress,
    table::Grid,
};
use super::{
    args::CommonArgs,
    io::{Env, Io},
    logging::{self, LogFormat},
};
use crate::{clock::UnixMs, name::PeerId, ops::flow::FlowView};

/// How wide figures are where nobody says how wide lines may be, and at most.
const USUAL_WIDTH: u16 = 100;
const WIDEST: u16 = 120;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Tables for people.
    Table,
    /// One value a line, for scripts.
    Short,
    /// One object a line, for programs.
    Json,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum ColorChoice {
    /// If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set.
    #[default]
    Auto,
    /// Even into a file.
    Always,
    /// Not at all.
    Never,
}

impl ColorChoice {
    /// Whether a stream gets colour. An option outranks NO_COLOR (<https://no-color.org>).
    pub(super) fn for_stream(self, is_terminal: bool, env: &Env) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                is_terminal
                    && env.variable("NO_COLOR").is_none()
                    && env.variable("TERM").is_none_or(|terminal| terminal != "dumb")
            }
        }
    }
}

/// Text with or without colour, as the caller says.
///
/// `colored` would guess from the process; its guess is overridden once, and whether to call it is decided here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paint(bool);

impl Paint {
    /// Paints if `colour`.
    pub(super) fn new(colour: bool) -> Self {
        if colour {
            colored::control::set_override(true);
        }
        Self(colour)
    }

    fn bad(self, text: &str) -> String {
        if self.0 { text.red().bold().to_string() } else { text.to_owned() }
    }

    fn warning(self, text: &str) -> String {
        if self.0 { text.yellow().bold().to_string() } else { text.to_owned() }
    }

    fn good(self, text: &str) -> String {
        if self.0 { text.green().to_string() } else { text.to_owned() }
    }

    fn strong(self, text: &str) -> String {
        if self.0 { text.bold().to_string() } else { text.to_owned() }
    }

    fn faint(self, text: &str) -> String {
        if self.0 { text.bright_black().to_string() } else { text.to_owned() }
    }
}

/// The two output streams of a tool, with how to write to them.
pub(super) struct Output<'io, 'streams> {
    tool: &'static str,
    io: &'io mut Io<'streams>,
    format: Format,
    quiet: bool,
    log: LogFormat,
    out: Paint,
    err: Paint,
    progress: Progress,
}

impl<'io, 'streams> Output<'io, 'streams> {
    /// As the common options, the environment and the terminal ask for.
    pub(super) fn new(tool: &'static str, common: &CommonArgs, env: &Env, io: &'io mut Io<'streams>) -> Self {
        let format = match (common.json, common.short) {
            (true, _) => Format::Json,
            (false, true) => Format::Short,
            (false, false) => Format::Table,
        };
        Self {
            tool,
            format,
            quiet: common.quiet,
            log: LogFormat::Text,
            out: Paint::new(common.color.for_stream(io.stdout_is_terminal, env)),
            err: Paint::new(common.color.for_stream(io.stderr_is_terminal, env)),
            progress: Progress::new(io.owns_process && io.stderr_is_terminal && !common.quiet),
            io,
        }
    }

    /// The same, with what goes to standard error in the form of a log.
    pub(super) fn with_log(mut self, log: LogFormat) -> Self {
        if log == LogFormat::Json {
            self.progress = Progress::new(false);
        }
        self.log = log;
        self
    }

    /// How results are printed.
    pub(super) const fn format(&self) -> Format {
        self.format
    }

    /// Whether results are coloured.
    pub(super) const fn is_coloured(&self) -> bool {
        self.out.0
    }

    /// The streams, for what is not printing.
    pub(super) const fn io(&mut self) -> &mut Io<'streams> {
        self.io
    }

    /// The spinner.
    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Prints a line of results. It is escaped.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Stop> {
        let line = format!("{}\n", escape(text));
        self.write(&line)
    }

    /// Prints what the results below are about.
    pub(super) fn heading(&mut self, text: &str) -> Result<(), Stop> {
        let lines = wrapped(&escape(text), self.io.width);
        let line = format!("{}\n", self.out.strong(&lines));
        self.write(&line)
    }

    /// Prints a table.
    pub(super) fn table(&mut self, grid: &Grid) -> Result<(), Stop> {
        let text = grid.render(self.out.0, self.io.width);
        self.write(&text)
    }

    /// Draws a call flow, and lists its hops.
    pub(super) fn ladder(&mut self, flow: &FlowView, strokes: Strokes) -> Result<(), Stop> {
        let text = ladder::draw(flow, None, self.out, self.io.width, strokes);
        self.write(&format!("\n{text}\n"))?;
        self.table(&ladder::hops(flow))
    }

    /// Draws a call flow with numbers before its steps, as wide as people read.
    pub(super) fn figure(&mut self, flow: &FlowView, numbers: &Numbers<'_>, strokes: Strokes) -> Result<(), Stop> {
        let width = self.io.width.map_or(USUAL_WIDTH, |width| width.min(WIDEST));
        let text = ladder::draw(flow, Some(numbers), self.out, Some(width), strokes);
        self.write(&text)
    }

    /// Says that something is as it should be.
    pub(super) fn praise(&mut self, text: &str) -> Result<(), Stop> {
        let lines = wrapped(&escape(text), self.io.width);
        let line = format!("{}\n", self.out.good(&lines));
        self.write(&line)
    }

    /// Prints an outcome as JSON.
    pub(super) fn json(&mut self, outcome: &impl Serialize) -> Result<(), Stop> {
        let line = json::outcome(outcome)?;
        self.write(&format!("{line}\n"))
    }

    /// Prints text as it is: help, or a generated file.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Stop> {
        self.write(text)
    }

    /// Says something in passing, unless `-q` or `--json`.
    pub(super) fn note(&mut self, text: &str) {
        if !self.quiet && self.log == LogFormat::Text && self.format != Format::Json {
            let line = self.err.faint(&escape(text));
            self.say(&line);
        }
    }

    /// Says something that deserves attention, unless `-q` or `--json`.
    pub(super) fn warn(&mut self, text: &str) {
        let text = &plain(text);
        if !self.quiet && self.log == LogFormat::Json {
            self.say(&logging::json_line(Level::WARN, self.tool, text, Map::new()));
        } else if !self.quiet && self.format != Format::Json {
            let line = format!("{}: {} {}", self.tool, self.err.warning("warning:"), escape(text));
            self.say(&line);
        }
    }

    /// Reports a failure, or an answer that is as good as one: a line on standard error, or JSON on standard output.
    pub(super) fn failure(&mut self, failure: &Failure) -> Result<(), Stop> {
        if let (Format::Json, Some(line)) = (self.format, json::failure(failure)) {
            return self.write(&format!("{line}\n"));
        }
        let line = match failure.uri() {
            Some(uri) => format!("{}: {failure}", escape(uri)),
            None => failure.to_string(),
        };
        self.complain(&line);
        if let (Some(command), LogFormat::Text) = (failure.help(), self.log) {
            let command = if command.is_empty() { self.tool } else { command };
            let hint = self.err.faint(&format!("Try '{command} --help'."));
            self.say(&hint);
        }
        Ok(())
    }

    /// The line `TOOL: what failed: why; what to do` on standard error.
    pub(super) fn complain(&mut self, line: &str) {
        if self.log == LogFormat::Json {
            return self.say(&logging::json_line(Level::ERROR, self.tool, line, Map::new()));
        }
        let line = format!("{} {}", self.err.bad(&format!("{}:", self.tool)), escape(line));
        self.say(&line);
    }

    fn write(&mut self, text: &str) -> Result<(), Stop> {
        self.progress.done();
        let stdout = &mut *self.io.stdout;
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Stop::of_output)
    }

    /// Begins a new line after the `^C` that the terminal shows.
    pub(super) fn interrupted(&mut self) {
        if self.io.owns_process && self.io.stderr_is_terminal {
            self.say("");
        }
    }

    fn say(&mut self, line: &str) {
        self.progress.clear();
        // If not even standard error can be written, there is nobody left to tell.
        let _: io::Result<()> = writeln!(self.io.stderr, "{line}").and_then(|()| self.io.stderr.flush());
    }
}

impl Drop for Output<'_, '_> {
    fn drop(&mut self) {
        self.progress.clear();
    }
}

/// What `show` comes to where there is no terminal, and what it writes on standard output and on standard error.
#[cfg(test)]
pub(super) fn captured<T>(
    tool: &'static str,
    options: &CommonArgs,
    show: impl FnOnce(&mut Output<'_, '_>) -> Result<T, Stop>,
) -> (T, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io::captured(&mut out, &mut err);
    let result = show(&mut Output::new(tool, options, &Env::new("/"), &mut io)).unwrap();
    drop(io);
    (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// A span in words, to two units: `58 min 20 s`, `2 h 5 min`, `3 d`. Less than a second is `0 s`.
pub(super) fn span(milliseconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let seconds = milliseconds / 1_000;
    let Some(first) = UNITS.iter().position(|(size, _)| seconds >= *size) else {
        return "0 s".to_owned();
    };
    let mut rest = seconds;
    let mut words = Vec::new();
    for (size, unit) in UNITS.iter().skip(first).take(2) {
        if rest >= *size {
            words.push(format!("{} {unit}", rest / size));
            rest %= size;
        }
    }
    words.join(" ")
}

/// A time as measured: `12.3 ms`.
pub(super) fn milliseconds(milliseconds: f64) -> String {
    format!("{milliseconds:.1} ms")
}

/// A long identifier, as much of it as people compare: its first characters and `…`.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Text with its peer ids as people compare them, `12D3KooW…12345678`. In addresses they stay whole: those get copied.
pub(super) fn short_peers(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut word = String::new();
    let mut before = ' ';
    for c in text.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        match word.parse::<PeerId>() {
            Ok(peer) if before != '/' => short.push_str(&peer_name(&peer)),
            _ => short.push_str(&word),
        }
        word.clear();
        short.push(c);
        before = c;
    }
    short.pop();
    short
}

/// A peer id as people compare it, by its end: all begin alike.
pub(super) fn peer_name(peer: &PeerId) -> String {
    let text = peer.to_string();
    format!("12D3KooW…{}", text.get(text.len().saturating_sub(8)..).unwrap_or_default())
}

/// Text whose lines are broken between words where a terminal is not wide enough for it.
pub(super) fn wrapped(text: &str, width: Option<u16>) -> String {
    let Some(width) = width.map(usize::from).filter(|width| text.chars().count() > *width) else {
        return text.to_owned();
    };
    let mut lines = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 {
            let fits = column + 1 + length <= width;
            lines.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

/// A day and time in UTC, `2026-11-23 07:00 UTC`; milliseconds where no calendar reaches.
pub(super) fn date(at: UnixMs) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    let seconds = i64::try_from(at.0 / 1_000).ok();
    let time = seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(format).ok()).unwrap_or_else(|| format!("{at} ms"))
}

/// `1 record`, `2 records`.
pub(super) fn count(number: impl TryInto<u64>, thing: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_at_most_two_units() {
        for (ms, words) in [
            (0, "0 s"),
            (999, "0 s"),
            (1_000, "1 s"),
            (3_500_000, "58 min 20 s"),
            (3_600_000, "1 h"),
            (3_605_000, "1 h"),
            (7_500_000, "2 h 5 min"),
            (259_200_000, "3 d"),
        ] {
            assert_eq!(span(ms), words);
        }
    }

    #[test]
    fn dates_are_in_utc() {
        assert_eq!(date(UnixMs(1_795_417_261_999)), "2026-11-23 07:01 UTC");
        assert_eq!(date(UnixMs(u64::MAX)), "18446744073709551615 ms");
    }

    #[test]
    fn peer_ids_are_shortened_wherever_nobody_copies_them_from() {
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        assert_eq!(short_peers(peer), "12D3KooW…eQAJU5SA");
        assert_eq!(short_peers(&format!("OVERLAY {peer}: gone")), "OVERLAY 12D3KooW…eQAJU5SA: gone");
        let address = format!("/ip4/192.0.2.1/tcp/4001/p2p/{peer}");
        assert_eq!(short_peers(&address), address);
        assert_eq!(short_peers("udp:192.0.2.1:5060"), "udp:192.0.2.1:5060");
        assert_eq!(short_peers(""), "");
    }

    #[test]
    fn prose_breaks_between_words() {
        assert_eq!(wrapped("one two three", None), "one two three");
        assert_eq!(wrapped("one two three", Some(13)), "one two three");
        assert_eq!(wrapped("one two three", Some(8)), "one two\nthree");
        assert_eq!(wrapped("one-two-three four", Some(8)), "one-two-three\nfour", "a word is never cut");
    }

    #[test]
    fn identifiers_are_shortened_by_character() {
        assert_eq!(shortened("abcdefgh", 8), "abcdefgh");
        assert_eq!(shortened("abcdefghi", 8), "abcdefgh…");
        assert_eq!(shortened("ééééé", 2), "éé…");
    }

    #[test]
    fn colour_needs_a_terminal_or_an_order() {
        let (plain, refused) = (Env::new("/"), Env::new("/").with("NO_COLOR", "1"));
        let dumb = Env::new("/").with("TERM", "dumb");
        let empty = Env::new("/").with("NO_COLOR", "");
        assert!(ColorChoice::Auto.for_stream(true, &plain));
        assert!(ColorChoice::Auto.for_stream(true, &empty), "set to nothing counts as not set");
        assert!(!ColorChoice::Auto.for_stream(false, &plain));
        assert!(!ColorChoice::Auto.for_stream(true, &refused));
        assert!(!ColorChoice::Auto.for_stream(true, &dumb));
        assert!(ColorChoice::Always.for_stream(false, &refused));
        assert!(!ColorChoice::Never.for_stream(true, &plain));
    }
}
