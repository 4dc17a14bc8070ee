//! The shell's own language: a command a line, as words.

use anyhow::anyhow;
use clap::{
    CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::super::{check, lookup::ViaArg, output::error::Failure, tool};
use crate::kind::Kind;

/// One line.
#[derive(Debug, Parser)]
#[command(name = "p2p-shell", multicall = true, disable_help_flag = true, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

/// A command of the shell.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(super) enum Verb {
    /// How the member is
    Status,
    /// The peers that the member knows closest to itself
    Peers,
    /// The member's routing table, a bar for each bucket
    Table,
    /// Look users and services up
    Lookup {
        /// A user (sip:USER@OVERLAY) or a service (sip:, turn: or teredo:OVERLAY)
        #[arg(value_name = "URI", required = true)]
        uris: Vec<String>,
        /// Whom to ask: socket, peer, walk or auto
        #[arg(
            long,
            value_name = "HOW",
            value_enum,
            default_value_t,
            hide_default_value = true,
            hide_possible_values = true
        )]
        via: ViaArg,
    },
    /// Look names up by a walk that asks every storer, and show each request
    Trace {
        /// A user (sip:USER@OVERLAY) or a service (sip:, turn: or teredo:OVERLAY)
        #[arg(value_name = "URI", required = true)]
        uris: Vec<String>,
    },
    /// Find the peers that offer services: proxy peers, TURN and Teredo relays
    Services,
    /// The records that the member holds
    Records,
    /// How fast a peer answers
    Ping {
        /// A peer id, or a multiaddr with a /p2p/ part
        #[arg(value_name = "PEER")]
        peer: String,
    },
    /// Bind a user to the member on this machine, or to contacts
    Register {
        /// The user, else P2PSIP_AOR
        #[arg(value_name = "AOR")]
        aor: Option<String>,
        /// Where the user can be reached; repeat for several
        #[arg(long, value_name = "URI")]
        contact: Vec<String>,
        /// Seconds for which it holds
        #[arg(long, value_name = "S", allow_negative_numbers = true)]
        expires: Option<String>,
    },
    /// Store a record that binds a user to contacts, and show each storer's answer
    Store {
        /// The user
        #[arg(value_name = "AOR")]
        aor: String,
        /// SIP URIs at which the user can be reached
        #[arg(value_name = "CONTACT", required = true)]
        contacts: Vec<String>,
        /// Seconds for which it holds
        #[arg(long, value_name = "S", allow_negative_numbers = true)]
        expires: Option<String>,
    },
    /// Remove what this device registered
    Remove {
        /// The user, else P2PSIP_AOR
        #[arg(value_name = "AOR")]
        aor: Option<String>,
    },
    /// Follow what happens at the member until Ctrl-C
    Events {
        /// End after so many
        #[arg(long, value_name = "N", value_parser = check::number(1..=u32::MAX))]
        count: Option<u32>,
    },
    /// Go on with the member at another socket
    Attach {
        /// The unix socket of a running member
        #[arg(value_name = "PATH")]
        path: std::path::PathBuf,
    },
    /// Be a member of an overlay, in this process, until the shell ends
    Join {
        /// The overlay, else the one that is configured
        #[arg(value_name = "OVERLAY")]
        overlay: Option<String>,
        /// Listen here; repeat for several
        #[arg(long, value_name = "MULTIADDR")]
        listen: Vec<String>,
        /// The overlay is purely local
        #[arg(long)]
        local: bool,
    },
    /// Say how long a command takes
    Time {
        /// The command
        #[arg(value_name = "CMD", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// What there is, or what a command does
    Help {
        /// The command
        #[arg(value_name = "CMD")]
        command: Option<String>,
    },
    /// End the shell; so do exit and Ctrl-D
    #[command(visible_alias = "exit")]
    Quit,
}

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Nothing: it is empty, or a comment.
    Nothing,
    /// A command.
    Verb(Verb),
    /// An explanation, ready to be printed.
    Help(String),
}

/// Reads a line.
pub(super) fn parse(line: &str) -> Result<Parsed, Failure> {
    parse_words(words(line)?)
}

/// Reads the words of a line.
pub(super) fn parse_words(words: Vec<String>) -> Result<Parsed, Failure> {
    if words.is_empty() {
        return Ok(Parsed::Nothing);
    }
    let name = words.first().cloned().unwrap_or_default();
    if let [_, option] = &words[..]
        && matches!(option.as_str(), "--help" | "-h")
    {
        return explain(&name).map(Parsed::Help);
    }
    let parsed = Line::command().try_get_matches_from(words).and_then(|matches| Line::from_arg_matches(&matches));
    match parsed {
        Ok(line) => Ok(Parsed::Verb(line.verb)),
        Err(error) if error.kind() == ErrorKind::InvalidSubcommand => Err(unknown(&name, &error)),
        Err(error) => {
            let what = tool::one_line(&error.render().to_string());
            Err(Failure::new(Kind::Usage, anyhow!("{name}: {what}; see help {name}")))
        }
    }
}

/// The failure of a command that does not exist.
fn unknown(name: &str, error: &clap::Error) -> Failure {
    let meant = match error.get(ContextKind::SuggestedSubcommand) {
        // What begins with another letter is hardly a slip of the finger.
        Some(ContextValue::Strings(similar)) => {
            similar.iter().rev().find(|meant| meant.chars().next() == name.chars().next()).cloned()
        }
        _ => None,
    };
    Failure::new(
        Kind::Usage,
        match meant {
            Some(meant) => anyhow!("there is no command '{name}'; did you mean {meant}?"),
            None => anyhow!("there is no command '{name}'; help lists those there are"),
        },
    )
}

/// Each command with its operands, and what it does.
pub(super) fn list() -> Vec<(String, String)> {
    let entry = |command: &clap::Command| {
        let operands = command.get_positionals().map(|operand| {
            let name = operand.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
            let several = if operand.get_num_args().is_some_and(|n| n.max_values() > 1) { "…" } else { "" };
            if operand.is_required_set() { format!(" {name}{several}") } else { format!(" [{name}{several}]") }
        });
        let usage = format!("{}{}", command.get_name(), operands.collect::<String>());
        (usage, command.get_about().map(ToString::to_string).unwrap_or_default())
    };
    built().get_subcommands().map(entry).collect()
}

/// The names of all commands.
pub(super) fn names() -> Vec<String> {
    let command = Line::command();
    let names = command.get_subcommands().flat_map(clap::Command::get_name_and_visible_aliases);
    names.map(str::to_owned).collect()
}

/// The options of a command.
pub(super) fn options(name: &str) -> Vec<String> {
    let command = Line::command();
    let Some(command) = command.find_subcommand(name) else { return Vec::new() };
    command.get_arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect()
}

/// Whether something can follow the command.
pub(super) fn takes_operands(name: &str) -> bool {
    let command = Line::command();
    command.find_subcommand(name).is_some_and(|command| command.get_positionals().next().is_some())
}

/// What a command does, and how it is called.
pub(super) fn explain(name: &str) -> Result<String, Failure> {
    match Line::command().find_subcommand(name).cloned() {
        Some(command) => {
            let mut command = command.disable_help_flag(true).term_width(100);
            Ok(format!("{}\n", command.render_help().to_string().trim_end()))
        }
        None => Err(Failure::new(Kind::Usage, anyhow!("there is no command '{name}'; help lists those there are"))),
    }
}

fn built() -> clap::Command {
    let mut command = Line::command().term_width(100);
    command.build();
    command
}

/// The words of a line: separated by space, quotes keep a word together, `#` at its beginning ends the line.
fn words(line: &str) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(Failure::new(Kind::Usage, anyhow!("a quotation mark is missing: {open}")));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        let failure = parse(line).unwrap_err();
        assert_eq!(failure.kind(), Kind::Usage);
        failure.to_string()
    }

    #[test]
    fn a_line_is_words_quotes_and_a_comment() {
        assert_eq!(words(" a  'b c'd \"\" # e").unwrap(), ["a", "b cd", ""]);
        assert_eq!(words("sip:a@b#c").unwrap(), ["sip:a@b#c"]);
        assert_eq!(error("attach 'x"), "a quotation mark is missing: '");
        assert_eq!(parse("  # nothing").unwrap(), Parsed::Nothing);
    }

    #[test]
    fn a_mistake_is_one_line_that_helps() {
        assert_eq!(error("statsu"), "there is no command 'statsu'; did you mean status?");
        assert_eq!(error("echo"), "there is no command 'echo'; help lists those there are");
        assert_eq!(error("xyzzy"), "there is no command 'xyzzy'; help lists those there are");
        assert!(error("lookup").ends_with("; see help lookup"), "{}", error("lookup"));
        assert!(error("lookup --vai x").contains("'--vai'"), "{}", error("lookup --vai x"));
        for line in ["status now", "events --count 0", "ping", "time"] {
            assert!(!error(line).contains('\n'), "{line}");
        }
    }

    #[test]
    fn quit_has_another_name_and_every_command_an_explanation() {
        assert_eq!(parse("exit").unwrap(), Parsed::Verb(Verb::Quit));
        for name in names() {
            let text = explain(&name).unwrap();
            assert!(text.contains(&format!("Usage: {}", if name == "exit" { "quit" } else { &name })), "{text}");
            assert_eq!(parse(&format!("{name} --help")).unwrap(), Parsed::Help(text));
        }
        assert!(list().contains(&("lookup URI…".to_owned(), "Look users and services up".to_owned())), "{:?}", list());
        assert!(list().iter().any(|(usage, _)| usage == "register [AOR]"));
    }

    #[test]
    fn a_timed_command_keeps_its_options() {
        let Parsed::Verb(Verb::Time { words }) = parse("time lookup --via walk sip:a@b.org").unwrap() else {
            panic!("not timed");
        };
        assert_eq!(words, ["lookup", "--via", "walk", "sip:a@b.org"]);
    }
}
