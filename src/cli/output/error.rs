//! Why a tool stopped before it had an answer, and the one line that says so.

use std::{error::Error as StdError, fmt, io};

use anyhow::anyhow;

use crate::{
    cli::settings::SettingsError,
    kind::Kind,
    name::NameError,
    ops::{OpsError, enroll::EnrollError},
};

/// What went wrong: a chain of causes, read as one line, and its kind, which is the exit code.
#[derive(Debug)]
pub(in crate::cli) struct Failure {
    kind: Kind,
    error: anyhow::Error,
    uri: Option<String>,
    /// The command whose `--help` would help, if one would; empty for the tool itself.
    usage: Option<String>,
}

impl Failure {
    /// A failure of the given kind.
    pub(in crate::cli) fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self { kind, error: error.into(), uri: None, usage: None }
    }

    /// A wrong command line; the caller is pointed to `--help`.
    pub(in crate::cli) fn usage(message: impl Into<String>) -> Self {
        Self::usage_of(message, String::new())
    }

    /// A wrong command line of one of a tool's commands.
    pub(in crate::cli) fn usage_of(message: impl Into<String>, command: String) -> Self {
        Self { usage: Some(command), ..Self::new(Kind::Usage, anyhow!(message.into())) }
    }

    /// The same with what was being done in front.
    #[must_use]
    pub(in crate::cli) fn context(self, what: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self { error: self.error.context(what), ..self }
    }

    /// The same, as an answer for one URI of several.
    #[must_use]
    pub(in crate::cli) fn about(self, uri: impl Into<String>) -> Self {
        Self { uri: Some(uri.into()), ..self }
    }

    /// What sort of failure it is.
    pub(in crate::cli) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The URI it concerns, if it concerns one of several.
    pub(in crate::cli) fn uri(&self) -> Option<&str> {
        self.uri.as_deref()
    }

    /// The command whose `--help` would help, if one would; empty for the tool itself.
    pub(in crate::cli) fn help(&self) -> Option<&str> {
        self.usage.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&format!("{:#}", self.error)))
    }
}

/// Without the numbers that Rust adds to what the operating system says: its words are enough.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" (os error ") {
        plain.push_str(before);
        rest = match after.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            _ => {
                plain.push_str(" (os error ");
                after
            }
        };
    }
    plain + rest
}

/// Why a tool ends early.
#[derive(Debug)]
pub(in crate::cli) enum Stop {
    /// Whoever read standard output has gone: nothing is left to do, and nothing is wrong.
    Closed,
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// Something failed.
    Failed(Failure),
}

impl Stop {
    /// What an error on standard output means.
    pub(in crate::cli) fn of_output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Failed(Failure::new(Kind::Local, error).context("cannot write to standard output"))
        }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Errors of the library know their kind.
macro_rules! from_kinded {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.kind(), one_line(error))
            }
        }

        impl From<$error> for Stop {
            fn from(error: $error) -> Self {
                Self::Failed(error.into())
            }
        }
    )+};
}
from_kinded!(EnrollError, NameError, OpsError, SettingsError);

/// Keeps an error's own line and drops its sources: the library's messages already say why, and would say it twice.
fn one_line(error: impl StdError) -> anyhow::Error {
    anyhow!(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_one_line_from_what_to_why() {
        let failure = Failure::new(Kind::Local, io::Error::other("disk full")).context("cannot save the key");
        assert_eq!(failure.to_string(), "cannot save the key: disk full");
    }

    #[test]
    fn the_operating_system_is_quoted_without_its_numbers() {
        assert_eq!(plain("cannot open a: No such file (os error 2); make it"), "cannot open a: No such file; make it");
        assert_eq!(plain("a (os error 2), b (os error 13)"), "a, b");
        assert_eq!(plain("a (os error that nobody knows"), "a (os error that nobody knows");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        assert!(matches!(Stop::of_output(io::ErrorKind::BrokenPipe.into()), Stop::Closed));
        assert!(matches!(Stop::of_output(io::ErrorKind::StorageFull.into()), Stop::Failed(_)));
    }
}
