//! What the library has to say while it works, on standard error.
//!
//! Without `-v`, only warnings, each as a line like any other of the tool's; with it, time, level and module as well.
//! For programs that collect logs, each line is a JSON object instead: see [`json_line`].

use std::{
    fmt,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use colored::Colorize as _;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{DefaultFields, Writer},
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::{
    args::CommonArgs,
    io::Env,
    output::{
        error::Failure,
        escape::{escape, escape_json},
    },
};

/// What lines on standard error look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum LogFormat {
    // For people. No documentation of values: with it, -h and --help would differ.
    #[default]
    Text,
    // One object a line, for programs.
    Json,
}

/// Starts logging for this process. P2PSIP_LOG (`p2psip=trace,libp2p_swarm=debug`) outranks `-q` and `-v`.
pub(super) fn start(
    tool: &'static str,
    common: &CommonArgs,
    format: LogFormat,
    env: &Env,
    colour: bool,
) -> Result<(), Failure> {
    let filter = match env.variable("P2PSIP_LOG") {
        Some(text) => text.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
            Failure::usage(
                "P2PSIP_LOG: it is not a list of MODULE=LEVEL; write one like p2psip=debug,libp2p_swarm=info",
            )
        })?,
        None => filter(common.quiet, common.verbose),
    };
    let lines = Lines { tool, format, colour, detailed: common.verbose > 0 };
    let layer = tracing_subscriber::fmt::layer().event_format(lines).with_writer(|| Sink);
    // Fails only if somebody started logging before; theirs is as good.
    let _ = tracing_subscriber::registry().with(layer).with(filter).try_init();
    Ok(())
}

/// What prints lines in place of standard error.
type Printer = Box<dyn FnMut(String) + Send>;

/// What prints lines at present. Logging is one for the process, and so is this.
static PRINTER: Mutex<Option<Printer>> = Mutex::new(None);

/// From now on `printer` prints, for it knows how to do so around a prompt; `None` for standard error again.
pub(super) fn divert(printer: Option<Printer>) {
    *PRINTER.lock().unwrap_or_else(PoisonError::into_inner) = printer;
}

/// Where lines go; the formatter writes each in one piece.
struct Sink;

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *PRINTER.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(print) => print(String::from_utf8_lossy(line).into_owned()),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What is let through: this crate in full measure, the crates below it one level less talkative.
fn filter(quiet: bool, verbose: u8) -> Targets {
    let (own, others) = match (quiet, verbose) {
        (true, _) => (LevelFilter::ERROR, LevelFilter::OFF),
        (false, 0) => (LevelFilter::WARN, LevelFilter::ERROR),
        (false, 1) => (LevelFilter::INFO, LevelFilter::WARN),
        (false, 2) => (LevelFilter::DEBUG, LevelFilter::INFO),
        (false, _) => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    Targets::new().with_default(others).with_target("p2psip", own)
}

/// How a line looks.
struct Lines {
    tool: &'static str,
    format: LogFormat,
    colour: bool,
    detailed: bool,
}

impl Lines {
    fn level(&self, level: Level) -> String {
        let word = word(level);
        if !self.colour {
            return word.to_owned();
        }
        let coloured = match level {
            Level::ERROR => word.red().bold(),
            Level::WARN => word.yellow().bold(),
            Level::INFO => word.green(),
            Level::DEBUG => word.blue(),
            Level::TRACE => word.bright_black(),
        };
        coloured.to_string()
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// A line for programs: `time` (RFC 3339, UTC), `level` (error, warning, info, debug or trace), `target` (the module, or
/// the tool), `message`, and `fields`, if there are any. It shows no character that could act on a terminal.
pub(super) fn json_line(level: Level, target: &str, message: &str, fields: Map<String, Value>) -> String {
    let mut time = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let line = JsonLine { time, level: word(level), target, message, fields };
    // Nothing in it can fail to be written.
    escape_json(serde_json::to_string(&line).unwrap_or_default())
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    level: &'static str,
    target: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
}

/// What an event says: its message, and its other fields.
#[derive(Default)]
struct Said {
    message: String,
    fields: Map<String, Value>,
}

impl Said {
    fn note(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => _ = self.fields.insert(name.to_owned(), value),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.note(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, value.into());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, DefaultFields> for Lines {
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.format == LogFormat::Json {
            let mut said = Said::default();
            event.record(&mut said);
            let metadata = event.metadata();
            return writeln!(writer, "{}", json_line(*metadata.level(), metadata.target(), &said.message, said.fields));
        }
        let level = self.level(*event.metadata().level());
        if self.detailed {
            SystemTime.format_time(&mut writer)?;
            write!(writer, " {level} {}: ", event.metadata().target())?;
        } else {
            write!(writer, "{}: {level}: ", self.tool)?;
        }
        // Fields may quote a peer.
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), event)?;
        writeln!(writer, "{}", escape(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written about the events of `work`.
    fn written(format: LogFormat, work: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Buffer(std::sync::Arc<Mutex<Vec<u8>>>);
        impl Write for Buffer {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(octets)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let lines = Lines { tool: "p2p-join", format, colour: false, detailed: false };
        let layer = tracing_subscriber::fmt::layer().event_format(lines).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_of_json_keeps_every_field_and_its_type() {
        let peer = "12D3\u{1b}[31m\nKoo";
        let text = written(LogFormat::Json, || {
            tracing::warn!(peers = 3_u64, near = -1_i64, share = 0.5, late = true, error = %peer, "every {} is gone", "peer");
            tracing::info!("no more");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let first: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(first["level"], "warning");
        assert_eq!(first["message"], "every peer is gone");
        assert_eq!(first["target"], "p2psip::cli::logging::tests");
        let fields = serde_json::json!({"peers": 3, "near": -1, "share": 0.5, "late": true, "error": peer});
        assert_eq!(first["fields"], fields);
        let time = first["time"].as_str().unwrap();
        assert!(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        let second: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!((&second["message"], second.get("fields")), (&"no more".into(), None));
        assert_eq!(written(LogFormat::Text, || tracing::warn!(n = 1, "late")), "p2p-join: warning: late n=1\n");
    }

    #[test]
    fn verbosity_is_about_this_crate_first() {
        let shows = |quiet, verbose, target: &str, level| filter(quiet, verbose).would_enable(target, &level);
        assert!(!shows(true, 0, "p2psip::ops", Level::WARN));
        assert!(shows(false, 0, "p2psip::ops", Level::WARN));
        assert!(!shows(false, 0, "libp2p_swarm", Level::WARN));
        assert!(shows(false, 2, "p2psip::ops", Level::DEBUG));
        assert!(!shows(false, 2, "libp2p_swarm", Level::DEBUG));
        assert!(shows(false, 3, "libp2p_swarm", Level::DEBUG));
    }
}
