//! The line editor: completion, hints, highlighting and history, in a thread of its own.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::mpsc as std_mpsc,
};

use colored::Colorize as _;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::{
    ColorMode, CompletionType, Config, Context, Editor, ExternalPrinter as _, Helper,
    completion::{Completer, FilenameCompleter, Pair},
    error::ReadlineError,
    highlight::{CmdKind, Highlighter},
    hint::{Hinter, HistoryHinter},
    history::FileHistory,
    validate::Validator,
};
use tokio::sync::mpsc;

use super::{
    super::{logging, output::error::Failure},
    seen::Seen,
    verbs,
};
use crate::kind::Kind;

/// Lines of history that are kept.
const MAX_HISTORY: usize = 1_000;

/// What came of asking for a line.
#[derive(Debug)]
pub(super) enum Typed {
    /// A line.
    Line(String),
    /// Ctrl-C: the line is not meant.
    Cleared,
    /// Ctrl-D, or the end of the input.
    End,
    /// It cannot be read.
    Failed(Failure),
}

/// A terminal at which somebody types.
pub(super) struct Terminal {
    prompts: std_mpsc::Sender<String>,
    lines: mpsc::UnboundedReceiver<Typed>,
    /// Whether the editor has the terminal at present.
    editing: bool,
    /// How the terminal was before.
    before: Option<Termios>,
}

impl Terminal {
    /// Starts the editor. With `divert_logs`, lines of the log are printed above the prompt.
    pub(super) fn start(
        history: Option<PathBuf>,
        coloured: bool,
        divert_logs: bool,
        seen: Seen,
    ) -> Result<Self, Failure> {
        let before = tcgetattr(std::io::stdin()).ok();
        let (prompts, requests) = std_mpsc::channel();
        let (sender, lines) = mpsc::unbounded_channel();
        let edit = move || edit(history.as_deref(), coloured, divert_logs, seen, &requests, &sender);
        std::thread::Builder::new()
            .name("editor".to_owned())
            .spawn(edit)
            .map_err(|error| Failure::new(Kind::Local, error).context("cannot start the editor"))?;
        Ok(Self { prompts, lines, editing: false, before })
    }

    /// The next line. It may be given up and asked for again.
    pub(super) async fn next(&mut self, prompt: &str) -> Typed {
        if !self.editing && self.prompts.send(prompt.to_owned()).is_err() {
            return Typed::End;
        }
        self.editing = true;
        let typed = self.lines.recv().await;
        self.editing = false;
        typed.unwrap_or(Typed::End)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        logging::divert(None);
        // The editor still waits for a key, and will not put the terminal in order before the process ends.
        if let Some(before) = self.before.as_ref().filter(|_| self.editing) {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Reads a line for each request.
fn edit(
    history: Option<&Path>,
    coloured: bool,
    divert_logs: bool,
    seen: Seen,
    requests: &std_mpsc::Receiver<String>,
    lines: &mpsc::UnboundedSender<Typed>,
) {
    let failed = |error: ReadlineError| Typed::Failed(Failure::new(Kind::Local, error).context("cannot read a line"));
    let mut editor = match editor(history, coloured, seen) {
        Ok(editor) => editor,
        Err(error) => {
            let _ = lines.send(failed(error));
            return;
        }
    };
    if divert_logs && let Ok(mut printer) = editor.create_external_printer() {
        logging::divert(Some(Box::new(move |line| {
            // If the terminal is gone, so is whoever could read it.
            let _ = printer.print(line);
        })));
    }
    let mut complained = false;
    while let Ok(prompt) = requests.recv() {
        let typed = match editor.readline(&prompt) {
            Ok(line) => {
                // At once: a shell that is killed has a history, too.
                if let Some(Err(error)) = history.map(|path| save(&mut editor, path))
                    && !std::mem::replace(&mut complained, true)
                {
                    tracing::warn!("the history cannot be kept: {error}");
                }
                Typed::Line(line)
            }
            Err(ReadlineError::Interrupted) => Typed::Cleared,
            Err(ReadlineError::Eof) => Typed::End,
            Err(error) => failed(error),
        };
        if lines.send(typed).is_err() {
            return;
        }
    }
}

fn editor(history: Option<&Path>, coloured: bool, seen: Seen) -> rustyline::Result<Editor<Words, FileHistory>> {
    let config = Config::builder()
        .max_history_size(MAX_HISTORY)?
        .history_ignore_space(true)
        .auto_add_history(true)
        .completion_type(CompletionType::List)
        .color_mode(if coloured { ColorMode::Enabled } else { ColorMode::Disabled })
        // It would have to be ended by hand where a signal ends the shell.
        .bracketed_paste(false)
        .build();
    let mut editor = Editor::with_config(config)?;
    let (files, history_hints) = (FilenameCompleter::new(), HistoryHinter::new());
    editor.set_helper(Some(Words { coloured, seen, names: verbs::names(), files, history: history_hints }));
    if let Some(path) = history {
        // There is none the first time; and one that cannot be read is no reason not to work.
        let _ = editor.load_history(path);
    }
    Ok(editor)
}

/// Adds what is new to the history file, if there is a home to keep it in. It is made with mode 0600.
fn save(editor: &mut Editor<Words, FileHistory>, path: &Path) -> rustyline::Result<()> {
    if path.parent().is_some_and(Path::is_dir) { editor.append_history(path) } else { Ok(()) }
}

/// What the editor knows of the shell's language.
struct Words {
    coloured: bool,
    seen: Seen,
    names: Vec<String>,
    files: FilenameCompleter,
    history: HistoryHinter,
}

impl Helper for Words {}
impl Validator for Words {}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        match candidates(line.get(..pos).unwrap_or_default(), &self.names, &self.seen) {
            Some((start, texts)) => {
                let pair = |text: String| Pair { display: text.trim_end().to_owned(), replacement: text };
                Ok((start, texts.into_iter().map(pair).collect()))
            }
            None => self.files.complete(line, pos, context),
        }
    }
}

impl Hinter for Words {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, context: &Context<'_>) -> Option<String> {
        self.history.hint(line, pos, context)
    }
}

impl Highlighter for Words {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        let begin = line.len() - line.trim_start().len();
        let word = line.get(begin..).unwrap_or_default().split_whitespace().next().unwrap_or_default();
        let end = begin + word.len();
        let (Some(space), Some(rest)) = (line.get(..begin), line.get(end..)) else { return Cow::Borrowed(line) };
        if !self.coloured || word.is_empty() {
            return Cow::Borrowed(line);
        }
        let word = if self.names.iter().any(|name| name == word) {
            word.cyan().bold()
        } else if rest.is_empty() || word.starts_with('#') {
            // It may still become one.
            return Cow::Borrowed(line);
        } else {
            word.red()
        };
        Cow::Owned(format!("{space}{word}{rest}"))
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        if self.coloured { Cow::Owned(prompt.bold().to_string()) } else { Cow::Borrowed(prompt) }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.coloured { Cow::Owned(hint.bright_black().to_string()) } else { Cow::Borrowed(hint) }
    }

    fn highlight_char(&self, _line: &str, _pos: usize, _kind: CmdKind) -> bool {
        self.coloured
    }
}

/// Where the last word of `text` begins, and what it may become; `None` if it is a file. Nobody is asked for it.
fn candidates(text: &str, names: &[String], seen: &Seen) -> Option<(usize, Vec<String>)> {
    let start =
        text.rfind(char::is_whitespace).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let (before, word) = text.split_at_checked(start).unwrap_or((text, ""));
    let mut before = before.split_whitespace().skip_while(|word| *word == "time");
    let name = before.next();
    let commands = || {
        let command = |name: &String| if verbs::takes_operands(name) { format!("{name} ") } else { name.clone() };
        names.iter().filter(|name| name.starts_with(word)).map(command).collect()
    };
    let texts = match name {
        None => commands(),
        Some("help") => names.iter().filter(|name| name.starts_with(word)).cloned().collect(),
        Some(name) if word.starts_with('-') => {
            verbs::options(name).into_iter().filter(|option| option.starts_with(word)).collect()
        }
        Some("lookup" | "trace") => seen.names(word),
        Some("register" | "remove" | "store") => seen.users(word),
        Some("ping") => seen.peers(word),
        Some("attach") => return None,
        Some(_) => Vec::new(),
    };
    Some((start, texts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ResourceName;

    fn complete(text: &str) -> Vec<String> {
        let seen = Seen::default();
        for uri in ["sip:alice@p2psip.org", "sip:p2psip.org", "turn:p2psip.org"] {
            seen.name(&ResourceName::parse(uri).unwrap());
        }
        seen.address("/ip4/192.0.2.1/tcp/4001/p2p/X");
        let (start, texts) = candidates(text, &verbs::names(), &seen).unwrap();
        texts.iter().map(|candidate| format!("{}{candidate}", &text[..start])).collect()
    }

    #[test]
    fn the_first_word_becomes_a_command_and_the_next_what_it_takes() {
        assert_eq!(complete("st"), ["status", "store "]);
        assert_eq!(complete("re"), ["records", "register ", "remove "]);
        assert_eq!(complete("lookup tu"), ["lookup turn:p2psip.org"]);
        assert_eq!(complete("trace tu"), ["trace turn:p2psip.org"]);
        assert_eq!(complete("store sip:a"), ["store sip:alice@p2psip.org"]);
        assert_eq!(complete("register "), ["register sip:alice@p2psip.org"]);
        assert_eq!(complete("ping /"), ["ping /ip4/192.0.2.1/tcp/4001/p2p/X"]);
        assert_eq!(complete("lookup --v"), ["lookup --via"]);
        assert_eq!(complete("time stat"), ["time status"]);
        assert_eq!(complete("time lookup tu"), ["time lookup turn:p2psip.org"]);
        assert_eq!(complete("help ta"), ["help table"]);
        assert_eq!(complete("status "), Vec::<String>::new());
        assert_eq!(complete("lookup sip:é\u{2003}tu"), ["lookup sip:é\u{2003}turn:p2psip.org"]);
        assert!(candidates("attach /t", &verbs::names(), &Seen::default()).is_none(), "files are the editor's");
    }

    #[test]
    fn completion_does_not_keep_anybody_waiting() {
        let seen = Seen::default();
        for index in 0..1_000 {
            seen.name(&ResourceName::parse(&format!("sip:user-{index}@p2psip.org")).unwrap());
            seen.address(&format!("/ip4/192.0.2.1/tcp/{index}/p2p/X"));
        }
        let began = std::time::Instant::now();
        for text in ["lookup sip:user-9", "ping /ip4/192.0.2.1/tcp/77", "he"] {
            assert!(!candidates(text, &verbs::names(), &seen).unwrap().1.is_empty());
        }
        assert!(began.elapsed() < std::time::Duration::from_millis(3 * 50), "{:?}", began.elapsed());
    }

    #[test]
    fn a_command_is_coloured_when_it_is_one() {
        colored::control::set_override(true);
        let words = |coloured| Words {
            coloured,
            seen: Seen::default(),
            names: verbs::names(),
            files: FilenameCompleter::new(),
            history: HistoryHinter::new(),
        };
        let highlighted = |line: &'static str| words(true).highlight(line, 0).into_owned();
        assert!(highlighted(" status").starts_with(" \u{1b}["));
        assert_eq!(highlighted("stat"), "stat");
        assert_ne!(highlighted("stat x"), "stat x");
        assert_eq!(highlighted("  "), "  ");
        assert_eq!(words(false).highlight("status", 0), "status");
    }
}
