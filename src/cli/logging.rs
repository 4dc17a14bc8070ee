//! What the library has to say while it works, on standard error.
//!
//! Without `-v`, only warnings, each as a line like any other of the tool's; with it, time, level and module as well.

use std::{
    fmt,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use colored::Colorize as _;
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
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
    output::{error::Failure, escape::escape},
};

/// Starts logging for this process. P2PSIP_LOG (`p2psip=trace,libp2p_swarm=debug`) outranks `-q` and `-v`.
pub(super) fn start(tool: &'static str, common: &CommonArgs, env: &Env, colour: bool) -> Result<(), Failure> {
    let filter = match env.variable("P2PSIP_LOG") {
        Some(text) => text.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
            Failure::usage(
                "P2PSIP_LOG: it is not a list of MODULE=LEVEL; write one like p2psip=debug,libp2p_swarm=info",
            )
        })?,
        None => filter(common.quiet, common.verbose),
    };
    let lines = Lines { tool, colour, detailed: common.verbose > 0 };
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
    colour: bool,
    detailed: bool,
}

impl Lines {
    fn level(&self, level: Level) -> String {
        let (word, plain) = match level {
            Level::ERROR => ("error", "error".red().bold()),
            Level::WARN => ("warning", "warning".yellow().bold()),
            Level::INFO => ("info", "info".green()),
            Level::DEBUG => ("debug", "debug".blue()),
            Level::TRACE => ("trace", "trace".bright_black()),
        };
        if self.colour { plain.to_string() } else { word.to_owned() }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, DefaultFields> for Lines {
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
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
