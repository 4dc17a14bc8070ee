//! Writes the manuals and completions of all tools from their definitions, or checks that the committed ones are current.
//!
//! `cargo run --example generate -- --write` after a change of the command line; `--check` exits 1 and names each file
//! that is stale.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, italic, roman},
};
use p2psip::cli::{TOOLS, Tool, manual};

/// The folders that hold nothing but generated files.
const FOLDERS: [&str; 2] = ["man", "completions"];

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = generate()?;
    match std::env::args().skip(1).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--write"] => {
            for stale in stale(root, &files)? {
                match files.get(&stale) {
                    Some(text) => write(&root.join(&stale), text)?,
                    None => std::fs::remove_file(root.join(&stale))?,
                }
                writeln!(io::stdout(), "{}", stale.display())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        ["--check"] => {
            let stale = stale(root, &files)?;
            for path in &stale {
                writeln!(io::stdout(), "{} is stale: cargo run --example generate -- --write", path.display())?;
            }
            Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        _ => bail!("usage: cargo run --example generate -- --write|--check"),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The files that differ from what they should be, are missing, or should not be.
fn stale(root: &Path, files: &BTreeMap<PathBuf, String>) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for (path, text) in files {
        if std::fs::read_to_string(root.join(path)).ok().as_ref() != Some(text) {
            stale.push(path.clone());
        }
    }
    for folder in FOLDERS {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else {
            continue;
        };
        for entry in entries {
            let path = Path::new(folder).join(entry?.file_name());
            if !files.contains_key(&path) {
                stale.push(path);
            }
        }
    }
    stale.sort();
    Ok(stale)
}

/// Every generated file by its path.
fn generate() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for tool in TOOLS {
        files.insert(Path::new("man").join(format!("{}.1", tool.name)), page(tool)?);
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let (mut script, mut command) = (Vec::new(), tool.command());
            clap_complete::generate(shell, &mut command, tool.name, &mut script);
            let name = match shell {
                Shell::Zsh => format!("_{}", tool.name),
                shell => format!("{}.{shell}", tool.name),
            };
            let mut script = String::from_utf8(script)?;
            if shell == Shell::Bash {
                // clap_complete 4.6 takes the hyphen in a tool's name for a step down to a command where it writes
                // what a command takes, and not where it finds out which command it is.
                script = script.replace(&tool.name.replace('-', "__subcmd__"), &tool.name.replace('-', "__"));
            }
            files.insert(Path::new("completions").join(name), script);
        }
    }
    Ok(files)
}

/// A manual page.
fn page(tool: &Tool) -> Result<String> {
    let mut command = tool.command();
    command.build();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_name_section(&mut page)?;

    let mut head = Roff::new();
    head.control("SH", ["SYNOPSIS"]).text(synopsis(&command));
    head.control("SH", ["DESCRIPTION"]);
    for paragraph in tool.description {
        head.control("PP", []).text([roman(*paragraph)]);
    }
    if command.has_subcommands() {
        subcommands(&mut head, &command);
    }
    head.to_writer(&mut page)?;

    man.render_options_section(&mut page)?;

    let mut tail = Roff::new();
    let exits = tool.exits.iter().map(|(code, meaning)| (code.to_string(), *meaning));
    section(&mut tail, "EXIT STATUS", exits.chain([("130".to_owned(), "interrupted")]));
    section(&mut tail, "ENVIRONMENT", manual::ENVIRONMENT);
    section(&mut tail, "FILES", manual::FILES);
    section(&mut tail, "EXAMPLES", tool.examples.iter().map(|example| (example.line, example.does)));
    let others = TOOLS.iter().filter(|other| other.name != tool.name).map(|other| format!("{}(1)", other.name));
    tail.control("SH", ["SEE ALSO"]).text([roman(others.collect::<Vec<_>>().join(", "))]);
    tail.to_writer(&mut page)?;
    Ok(assembled(tool, &String::from_utf8(page)?))
}

/// The page with its title, and with the definition of the apostrophe, which each part brings along, only once.
///
/// The title line is our own: a date of no characters has to be quoted, or the fields after it move up.
fn assembled(tool: &Tool, parts: &str) -> String {
    let (apostrophe, body): (Vec<_>, Vec<_>) =
        parts.lines().partition(|line| line.starts_with(".ie \\n(.g ") || line.starts_with(".el .ds Aq"));
    let mut page = String::new();
    for line in apostrophe.into_iter().take(2) {
        page.push_str(&format!("{line}\n"));
    }
    let (name, version) = (tool.name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    page.push_str(&format!(".TH {name} 1 \"\" \"p2psip {version}\" \"P2PSIP\"\n"));
    for line in body {
        page.push_str(&format!("{line}\n"));
    }
    page
}

/// `p2p-lookup [OPTIONS] URI...`, the name bold.
fn synopsis(command: &Command) -> Vec<Inline> {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    match usage.split_once(" [") {
        Some((name, rest)) => vec![bold(name), roman(format!(" [{rest}"))],
        None => vec![bold(usage)],
    }
}

/// What each subcommand does and takes, in one section: one page a tool is enough to read.
fn subcommands(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["COMMANDS"]);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        roff.control("SS", [synopsis(sub).iter().map(text_of).collect::<String>().as_str()]);
        roff.text([roman(sub.get_about().map(ToString::to_string).unwrap_or_default())]);
        let own = sub
            .get_arguments()
            .filter(|argument| !argument.is_global_set() && !argument.is_hide_set() && argument.get_id() != "help");
        for argument in own {
            let mut names = Vec::new();
            if let Some(short) = argument.get_short() {
                names.push(bold(format!("-{short} ")));
            }
            if let Some(long) = argument.get_long() {
                names.push(bold(format!("--{long} ")));
            }
            if argument.get_action().takes_values() {
                names.extend(argument.get_value_names().into_iter().flatten().map(|name| italic(name.as_str())));
            }
            roff.control("TP", []).text(names);
            roff.text([roman(argument.get_help().map(ToString::to_string).unwrap_or_default())]);
        }
    }
}

fn text_of(inline: &Inline) -> &str {
    match inline {
        Inline::Roman(text) | Inline::Italic(text) | Inline::Bold(text) => text,
        Inline::LineBreak => " ",
    }
}

/// A section of names with their meanings.
fn section<N: Into<String>>(roff: &mut Roff, title: &str, entries: impl IntoIterator<Item = (N, &'static str)>) {
    roff.control("SH", [title]);
    for (name, meaning) in entries {
        roff.control("TP", []).text([bold(name)]).text([roman(meaning)]);
    }
}
