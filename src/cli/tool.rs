//! What all tools have in common: from arguments to an exit code.

use std::{
    ffi::OsString,
    io::{BufReader, BufWriter, IsTerminal as _},
    process::ExitCode,
};

use clap::{Command, error::ErrorKind};

use super::{
    args::CommonArgs,
    io::{Env, Io, Signals},
    logging::{self, LogFormat},
    output::{
        ColorChoice, Output,
        error::{Failure, Stop},
        wrapped,
    },
};

/// What a tool exits with when it was interrupted.
pub(super) const INTERRUPTED: u8 = 130;
/// Columns that what an example does needs beside it.
const COMMENT: usize = 24;
/// Columns of help when no terminal says how wide it is.
const HELP_WIDTH: u16 = 100;

/// A command line worth trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example {
    /// What to type.
    pub line: &'static str,
    /// What it does.
    pub does: &'static str,
}

/// A tool as its help and manual describe it.
#[derive(Debug)]
pub struct Tool {
    /// The name of the binary.
    pub name: &'static str,
    /// What it does, in paragraphs, for the manual.
    pub description: &'static [&'static str],
    /// What each exit code means, 0 first. 130 (interrupted) goes without saying.
    pub exits: &'static [(u8, &'static str)],
    /// Command lines worth trying.
    pub examples: &'static [Example],
    /// The bare command; [`Tool::command`] has the rest.
    pub(super) bare: fn() -> Command,
}

impl Tool {
    /// The command with its help, as manuals and completions want it.
    pub fn command(&self) -> Command {
        self.command_of(HELP_WIDTH)
    }

    /// The command with its help for a terminal of so many columns.
    fn command_of(&self, columns: u16) -> Command {
        let exits = self.exits.iter().map(|(code, meaning)| format!("{code} {meaning}; ")).collect::<String>();
        let mut after = format!("Exit codes: {exits}{INTERRUPTED} interrupted.\n\nExamples:");
        after.push_str(&self.examples(columns));
        self.parser().term_width(columns.into()).after_help(after)
    }

    /// The command without what its help says besides: all that parsing takes.
    fn parser(&self) -> Command {
        (self.bare)().bin_name(self.name).disable_help_subcommand(true).version(env!("CARGO_PKG_VERSION"))
    }

    /// Parses `arguments`, without the program's name.
    fn parse<A: ToolArgs>(&self, arguments: &[OsString], columns: u16) -> Result<A, clap::Error> {
        let parsed = self.parser().no_binary_name(true).try_get_matches_from(arguments).or_else(|_| {
            // The help was asked for, most likely; it takes as long to write as everything else to parse.
            self.command_of(columns).no_binary_name(true).try_get_matches_from(arguments)
        });
        parsed.and_then(|matches| A::from_arg_matches(&matches))
    }

    /// The examples with what they do beside them, or below them where there is no room for that.
    fn examples(&self, columns: u16) -> String {
        let longest = self.examples.iter().map(|example| example.line.len()).max().unwrap_or_default();
        // Two blanks before the line and after it, and `# `.
        let indent = longest + 4;
        let room = usize::from(columns).saturating_sub(indent + 2);
        let beside = room >= COMMENT || self.examples.iter().all(|example| example.does.chars().count() <= room);
        let mut text = String::new();
        for Example { line, does } in self.examples {
            let (start, room) = if beside { (indent, room) } else { (6, usize::from(columns).saturating_sub(8)) };
            text.push_str(&format!("\n  {line}"));
            let mut column = line.len() + 2;
            if !beside {
                text.push('\n');
                column = 0;
            }
            for (nth, part) in wrapped(does, u16::try_from(room).ok()).lines().enumerate() {
                if nth > 0 {
                    text.push('\n');
                    column = 0;
                }
                text.push_str(&format!("{:1$}# {part}", "", start.saturating_sub(column)));
            }
        }
        text
    }
}

/// The parsed command line of a tool.
pub(super) trait ToolArgs: clap::Parser {
    /// The options that every tool has.
    fn common(&self) -> &CommonArgs;

    /// What its log looks like.
    fn log_format(&self) -> LogFormat {
        LogFormat::Text
    }
}

/// Runs a tool as its process.
pub(super) fn process(run: fn(Vec<OsString>, &Env, &mut Io<'_>) -> u8) -> ExitCode {
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let stdout_is_terminal = stdout.is_terminal();
    let mut io = Io {
        stdin: Box::new(BufReader::new(std::io::stdin())),
        stdin_is_terminal: std::io::stdin().is_terminal(),
        stdout_is_terminal,
        stderr_is_terminal: stderr.is_terminal(),
        width: if stdout_is_terminal { comfy_table::Table::new().width() } else { None },
        stdout: &mut BufWriter::new(stdout),
        stderr: &mut BufWriter::new(stderr),
        signals: Signals::Process,
        owns_process: true,
    };
    ExitCode::from(run(std::env::args_os().skip(1).collect(), &Env::of_process(), &mut io))
}

/// Runs a tool: parses `arguments` (without the program's name), does the work, reports what stopped it.
pub(super) fn run<A: ToolArgs>(
    tool: &Tool,
    arguments: Vec<OsString>,
    env: &Env,
    io: &mut Io<'_>,
    work: impl FnOnce(A, &Env, &mut Output<'_, '_>) -> Result<u8, Stop>,
) -> u8 {
    let color = color_of(&arguments);
    let args: A = match tool.parse(&arguments, io.width.unwrap_or(HELP_WIDTH).clamp(60, 120)) {
        Ok(args) => args,
        Err(error) => {
            let common = CommonArgs { color, ..CommonArgs::default() };
            let coloured = color.for_stream(io.stdout_is_terminal, env);
            let mut output = Output::new(tool.name, &common, env, io);
            let result = unparsed(&error, coloured, &mut output);
            return finish(result, &mut output);
        }
    };
    let common = args.common();
    if io.owns_process {
        let colour = common.color.for_stream(io.stderr_is_terminal, env);
        if let Err(failure) = logging::start(tool.name, common, args.log_format(), env, colour) {
            return finish(Err(failure.into()), &mut Output::new(tool.name, common, env, io));
        }
    }
    let (common, format) = (common.clone(), args.log_format());
    let mut output = Output::new(tool.name, &common, env, io).with_log(format);
    let result = work(args, env, &mut output);
    finish(result, &mut output)
}

/// The exit code, after the failure, if any, has been reported.
fn finish(result: Result<u8, Stop>, output: &mut Output<'_, '_>) -> u8 {
    match result {
        Ok(code) => code,
        Err(Stop::Closed) => 0,
        Err(Stop::Interrupted) => {
            output.interrupted();
            INTERRUPTED
        }
        Err(Stop::Failed(failure)) => match output.failure(&failure) {
            Err(Stop::Closed) => 0,
            _ => failure.kind().exit_code(),
        },
    }
}

/// Help and the version, which were asked for, or what is wrong with the arguments.
fn unparsed(error: &clap::Error, coloured: bool, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let text = error.render();
        let text = if coloured { text.ansi().to_string() } else { text.to_string() };
        return output.text(&format!("{}\n", text.trim_end())).map(|()| 0);
    }
    let text = error.render().to_string();
    Err(Failure::usage_of(one_line(&text), command_words(&text)).into())
}

/// The command that a usage line is about, such as `p2p-publish add`, without what follows it.
fn command_words(message: &str) -> String {
    let usage = message.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or_default();
    let words = usage.split_whitespace().take_while(|word| !word.starts_with(['[', '<', '-']));
    words.collect::<Vec<_>>().join(" ")
}

/// What clap says in several paragraphs, on one line: what is wrong, then its tips. Usage is what `--help` is for.
pub(super) fn one_line(message: &str) -> String {
    let paragraphs = message.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut parts = Vec::new();
    for paragraph in paragraphs {
        if let Some(what) = paragraph.strip_prefix("error: ") {
            parts.push(what.to_owned());
        } else if let Some(tip) = paragraph.strip_prefix("tip: ")
            // Nobody who has mistyped an option wants it as a value.
            && !tip.starts_with("to pass ")
        {
            parts.push(tip.to_owned());
        }
    }
    parts.join("; ")
}

/// `--color`, read before the arguments are parsed, because their errors are coloured too.
fn color_of(arguments: &[OsString]) -> ColorChoice {
    use clap::ValueEnum as _;
    let texts = || arguments.iter().filter_map(|argument| argument.to_str()).take_while(|text| *text != "--");
    let pairs = texts().zip(texts().skip(1)).filter(|(option, _)| *option == "--color").map(|(_, value)| value);
    let joined = texts().filter_map(|text| text.strip_prefix("--color="));
    pairs.chain(joined).find_map(|value| ColorChoice::from_str(value, false).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_known_before_arguments_are_parsed() {
        let color = |words: &[&str]| color_of(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(color(&["--nonsense", "--color", "always"]), ColorChoice::Always);
        assert_eq!(color(&["--color=never", "--help"]), ColorChoice::Never);
        assert_eq!(color(&["--", "--color=never"]), ColorChoice::Auto);
        assert_eq!(color(&["--color", "purple"]), ColorChoice::Auto);
    }

    #[test]
    fn examples_keep_to_the_terminal() {
        for tool in crate::cli::TOOLS {
            for columns in [80, 100, 120] {
                let text = tool.examples(columns);
                let longest = tool.examples.iter().map(|example| example.line.len() + 2).max().unwrap_or_default();
                let limit = usize::from(columns).max(longest);
                assert!(text.lines().all(|line| line.chars().count() <= limit), "{}: {text}", tool.name);
                assert!(tool.examples.iter().all(|example| text.contains(example.line)), "{text}");
            }
        }
    }

    #[test]
    fn whoever_mistypes_an_option_of_a_command_is_sent_to_the_help_of_that_command() {
        let message = "error: …\n\nUsage: p2p-publish add --host <NAME> --address <IP>\n\nFor more information, …\n";
        assert_eq!(command_words(message), "p2p-publish add");
        assert_eq!(command_words("Usage: p2p-lookup [OPTIONS] <URI>..."), "p2p-lookup");
        assert_eq!(command_words("no usage"), "");
    }

    #[test]
    fn errors_of_clap_become_one_line() {
        let message = "error: unexpected argument '--jsn' found\n\n  tip: a similar argument exists: '--json'\n\n\
                       Usage: p2p-lookup [OPTIONS] <URI>...\n\nFor more information, try '--help'.\n";
        assert_eq!(one_line(message), "unexpected argument '--jsn' found; a similar argument exists: '--json'");
    }
}
