//! What a tool gets from the process it runs in, as values: so that it can be run, and tested, inside another one.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    io::{BufRead, Write},
    path::{Path, PathBuf},
};

use tokio::sync::mpsc;

/// The environment of a run: variables and the working directory.
#[derive(Debug, Clone)]
pub struct Env {
    variables: BTreeMap<OsString, OsString>,
    directory: PathBuf,
}

impl Env {
    /// That of this process.
    pub fn of_process() -> Self {
        let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        Self { variables: std::env::vars_os().collect(), directory }
    }

    /// One without variables, in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { variables: BTreeMap::new(), directory: directory.into() }
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// A variable; one that is set to nothing counts as not set.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that holds a folder; the XDG base directory specification wants relative ones ignored.
    pub fn folder(&self, name: &str) -> Option<&Path> {
        self.variable(name).map(Path::new).filter(|path| path.is_absolute())
    }

    /// The working directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// A request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C (SIGINT).
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// Where requests to end come from.
#[derive(Debug, Default)]
pub enum Signals {
    /// Nowhere: the tool ends by itself.
    #[default]
    Never,
    /// SIGINT and SIGTERM of this process.
    Process,
    /// Whoever runs the tool inside its own process.
    Channel(mpsc::UnboundedReceiver<Signal>),
}

/// The streams of a run, and what is at their ends.
pub struct Io<'a> {
    /// Standard input. A thread of its own reads it, so that waiting for a line does not hold Ctrl-C up.
    pub stdin: Box<dyn BufRead + Send>,
    /// Standard output: results, and nothing else.
    pub stdout: &'a mut dyn Write,
    /// Standard error: everything else.
    pub stderr: &'a mut dyn Write,
    /// Whether a person types standard input.
    pub stdin_is_terminal: bool,
    /// Whether a person reads standard output.
    pub stdout_is_terminal: bool,
    /// Whether a person reads standard error.
    pub stderr_is_terminal: bool,
    /// Columns of the terminal behind standard output; `None` leaves lines as long as they are.
    pub width: Option<u16>,
    /// Requests to end.
    pub signals: Signals,
    /// Whether the whole process is the tool's: then it starts logging and may draw on the terminal.
    pub owns_process: bool,
}

impl<'a> Io<'a> {
    /// No input, no terminal, no signals: what a test or a script sees.
    pub fn captured(stdout: &'a mut dyn Write, stderr: &'a mut dyn Write) -> Self {
        Self {
            stdin: Box::new(std::io::empty()),
            stdout,
            stderr,
            stdin_is_terminal: false,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            width: None,
            signals: Signals::Never,
            owns_process: false,
        }
    }
}

impl fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("stdin_is_terminal", &self.stdin_is_terminal)
            .field("stdout_is_terminal", &self.stdout_is_terminal)
            .field("stderr_is_terminal", &self.stderr_is_terminal)
            .field("width", &self.width)
            .field("signals", &self.signals)
            .field("owns_process", &self.owns_process)
            .finish_non_exhaustive()
    }
}
