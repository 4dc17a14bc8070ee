//! The README is true: its tour runs as written, in order, and prints what it says.
//!
//! Each line of a `console` block that begins with `$ ` is a command, which one shell runs in an empty folder with the
//! tools on its path; a comment `# exit N` at its end is the exit code that it has to have, else 0. The lines below it
//! are its output. A word with a digit or an ellipsis stands for any word that begins in the same way; a line that is
//! `…` stands for any number of lines.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use crate::support::root;

/// How long one command may take; generous, because test machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what runs in the background may take to end.
const FAREWELL: Duration = Duration::from_secs(10);
/// Begins the line that ends the output of a command.
const MARK: &str = "@exit ";

/// A command of the README, and what it says about it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    code: i32,
    output: Vec<String>,
}

impl Step {
    fn is_in_background(&self) -> bool {
        self.command.ends_with('&')
    }

    /// The file that a command in the background writes to.
    fn file(&self) -> Option<&str> {
        self.command.strip_suffix('&')?.rsplit_once("> ").map(|(_, file)| file.trim())
    }
}

/// The commands in the `console` blocks of a text.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if !inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            let (command, code) = match command.rsplit_once("# exit ") {
                Some((command, code)) => (command, code.trim().parse().unwrap()),
                None => (command, 0),
            };
            steps.push(Step { command: command.trim().to_owned(), code, output: Vec::new() });
        } else if !line.is_empty() {
            steps.last_mut().expect("a block begins with a command").output.push(line.to_owned());
        }
    }
    steps
}

/// Whether a word may stand where the README has `expected`.
fn word_fits(expected: &str, actual: &str) -> bool {
    // The digits of these two are no digits that change.
    let [expected, actual] = [expected, actual].map(|word| word.replace("p2p", "p-p").replace("P2P", "P-P"));
    match expected.find(|c: char| c.is_ascii_digit() || c == '…') {
        Some(changing) => {
            let stable = expected[..changing].rfind(|c: char| !c.is_alphanumeric()).map_or(0, |at| at + 1);
            let stable = expected.get(..stable).unwrap_or_default();
            actual.starts_with(stable)
        }
        None => singular(&expected) == singular(&actual),
    }
}

/// A word without its plural and the comma behind it: how many requests it takes is not always the same.
fn singular(word: &str) -> &str {
    let word = word.strip_suffix(',').unwrap_or(word);
    word.strip_suffix('s').unwrap_or(word)
}

/// What stands for a time, which may be `59 min 59 s` in one run and `1 h` in another.
const TIME: &str = "TIME";

/// The words of a line, each time as one.
fn words(line: &str) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let is_unit = matches!(word.trim_end_matches(','), "d" | "h" | "min" | "s" | "ms");
        if !(is_unit && words.last().is_some_and(|last| last.parse::<f64>().is_ok())) {
            words.push(word);
            continue;
        }
        words.pop();
        if words.last() != Some(&TIME) {
            words.push(TIME);
        }
    }
    words
}

fn line_fits(expected: &str, actual: &str) -> bool {
    let (mut expected, mut actual) = (words(expected).into_iter(), words(actual).into_iter());
    loop {
        match (expected.next(), actual.next()) {
            (None, None) => return true,
            (Some("…"), _) if expected.clone().next().is_none() => return true,
            // An object whose end is left open may have spaces in it.
            (Some(open), Some(actual)) if open.ends_with("…}") => return word_fits(open, actual),
            (Some(expected), Some(actual)) if word_fits(expected, actual) => {}
            _ => return false,
        }
    }
}

fn fits(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=actual.len()).any(|skipped| fits(rest, &actual[skipped..]))
        }
        Some((first, rest)) => {
            actual.split_first().is_some_and(|(line, others)| line_fits(first, line) && fits(rest, others))
        }
    }
}

/// A shell in a process group of its own, which ends with everything that it has started.
struct Shell {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Shell {
    fn start(folder: &Path) -> Self {
        let tools = Path::new(env!("CARGO_BIN_EXE_p2p-lab")).parent().unwrap();
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", path).env("HOME", folder).current_dir(folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut shell = Self { stdin: child.stdin.take(), child, lines };
        shell.say("exec 2>&1");
        shell
    }

    fn say(&mut self, text: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    /// Runs a command: its exit code and its output. What runs in the background is given time for its output.
    fn run(&mut self, step: &Step, folder: &Path) -> (i32, Vec<String>) {
        self.say(&format!("{{ {}\n}} </dev/null; printf '\\n{MARK}%d\\n' $?", step.command));
        let deadline = Instant::now() + PATIENCE;
        let (mut code, mut output) = (None, Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "`{}` takes too long; so far: {output:#?}", step.command);
            match self.lines.recv_timeout(left.min(Duration::from_millis(20))) {
                Ok(line) if line.is_empty() => {}
                Ok(line) => match line.strip_prefix(MARK) {
                    Some(number) => code = Some(number.parse().unwrap()),
                    None => output.push(line),
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the shell ended in `{}`: {output:#?}", step.command),
            }
            let Some(code) = code else { continue };
            let written = |file| std::fs::metadata(folder.join(file)).is_ok_and(|found| found.len() > 0);
            let begun = output.len() >= step.output.len() && step.file().is_none_or(written);
            if begun || !step.is_in_background() {
                return (code, output);
            }
        }
    }

    fn signal_group(&self, signal: &str) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-s", signal, "--", &group]).stderr(Stdio::null()).status();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.stdin = None;
        self.signal_group("TERM");
        let _ = self.child.wait();
        // The pipe ends with the last process that holds it.
        let deadline = Instant::now() + FAREWELL;
        while self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        self.signal_group("KILL");
    }
}

#[test]
fn the_tour_of_the_readme_runs_as_written() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let steps = steps(&readme);
    assert!(steps.len() > 20, "the tour has {} steps only", steps.len());
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Shell::start(folder.path());
    for step in steps {
        let (code, output) = shell.run(&step, folder.path());
        let Step { command, code: expected, output: told } = &step;
        assert_eq!(code, *expected, "the exit code of `{command}`, which printed {output:#?}");
        assert!(fits(told, &output), "`{command}` prints\n{}\nand not\n{}", output.join("\n"), told.join("\n"));
    }
}

#[test]
fn what_changes_from_run_to_run_is_left_open_and_nothing_else() {
    for (expected, actual) in [
        ("2 records from 3 storers, in 7 ms", "1 record from 5 storers, in 70 ms"),
        ("stored 5 of 5", "stored  12   of 5"),
        ("a  6 d 23 h  sip:b", "a  7 d       sip:b"),
        ("sip:a@p2psip.org;gr=m2zd", "sip:a@p2psip.org;gr=abcd"),
        ("p2p-lookup: /ip4/127.0.0.1/tcp/9: …", "p2p-lookup: /ip4/127.0.0.1/tcp/9: cannot be dialled"),
        (
            r#"{"status":"found","records":[{"instance":"7x…"}],…}"#,
            r#"{"status":"found","records":[{"instance":"a"}]}"#,
        ),
    ] {
        assert!(line_fits(expected, actual), "{expected} / {actual}");
    }
    for (expected, actual) in [
        ("2 records from 3 storers", "2 peers from 3 storers"),
        ("stored 5", "stored"),
        ("stored", "stored 5"),
        ("sip:a@p2psip.org;gr=m2zd", "sip:b@p2psip.org;gr=abcd"),
        ("p2p-lookup: x", "p2p-join: x"),
        (r#"{"status":"found","records":[{"instance":"7x…"}],…}"#, r#"{"status":"untrusted","records":[]}"#),
    ] {
        assert!(!line_fits(expected, actual), "{expected} / {actual}");
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(fits(&lines("a\n…\nd"), &lines("a\nb\nc\nd")));
    assert!(!fits(&lines("a\nd"), &lines("a\nb\nd")));
}
