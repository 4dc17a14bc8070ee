//! What people see on the command line. Every tool runs in this process, with streams and environment of its own.

use std::{
    ffi::OsString,
    io::{self, Cursor, Write},
    os::unix::fs::PermissionsExt as _,
};

use p2psip::cli::{self, Env, Io};

use crate::support::assert_snapshot;

type Run = fn(Vec<OsString>, &Env, &mut Io<'_>) -> u8;

const TOOLS: [(&str, Run); 10] = [
    ("p2p-answer", cli::answer::run),
    ("p2p-discover", cli::discover::run),
    ("p2p-enroll", cli::enroll::run),
    ("p2p-invite", cli::invite::run),
    ("p2p-join", cli::join::run),
    ("p2p-lab", cli::lab::run),
    ("p2p-lookup", cli::lookup::run),
    ("p2p-publish", cli::publish::run),
    ("p2p-register", cli::register::run),
    ("p2p-shell", cli::shell::run),
];

/// A command to run.
struct Command {
    run: Run,
    arguments: Vec<OsString>,
    env: Env,
    stdin: &'static str,
    terminal: bool,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: u8,
    out: String,
    err: String,
}

fn command(run: Run, line: &str) -> Command {
    let arguments = line.split_whitespace().map(OsString::from).collect();
    let env = Env::new("/nonexistent").with("HOME", "/nonexistent");
    Command { run, arguments, env, stdin: "", terminal: false }
}

fn lookup(line: &str) -> Command {
    command(cli::lookup::run, line)
}

impl Command {
    fn env(mut self, name: &str, value: &str) -> Self {
        self.env = self.env.with(name, value);
        self
    }

    fn stdin(mut self, text: &'static str) -> Self {
        self.stdin = text;
        self
    }

    fn on_a_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    fn run(self) -> Ran {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = self.run_into(&mut out, &mut err);
        Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    }

    fn run_into(self, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
        let mut io = Io::captured(out, err);
        io.stdin = Box::new(Cursor::new(self.stdin));
        (io.stdout_is_terminal, io.stderr_is_terminal) = (self.terminal, self.terminal);
        (self.run)(self.arguments, &self.env, &mut io)
    }
}

/// Wrong usage: exit 2, nothing on standard output, one line that says what is wrong, and perhaps a hint.
#[track_caller]
fn assert_usage(command: Command, says: &str) {
    let ran = command.run();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
    let lines = ran.err.lines().collect::<Vec<_>>();
    assert!(lines[0].contains(says), "{says} is not in: {}", ran.err);
    match lines[1..] {
        [] => {}
        [hint] => assert!(hint.starts_with("Try 'p2p-") && hint.ends_with(" --help'."), "{hint}"),
        _ => panic!("too many lines: {}", ran.err),
    }
}

#[test]
fn help_is_as_committed() {
    for (name, run) in TOOLS {
        let ran = command(run, "--help").run();
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{name}");
        assert_snapshot(&format!("cmd/{name}.txt"), &ran.out);
        assert_eq!(command(run, "-h").run(), ran, "{name}: -h and --help say the same");
        assert!(ran.out.lines().all(|line| line.chars().count() <= 100), "{name}: a line is too long");
        let words = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
        for expected in ["Usage: p2p-", "Exit codes: 0 ", "130 interrupted. Examples: p2p-"] {
            assert!(words.contains(expected), "{name}: {expected} is missing");
        }
    }
}

#[test]
fn help_keeps_to_a_narrow_terminal() {
    for (name, run) in TOOLS {
        for width in [80, 100, 120] {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut io = Io::captured(&mut out, &mut err);
            io.width = Some(width);
            assert_eq!(run(vec!["--help".into()], &Env::new("/"), &mut io), 0);
            let help = String::from_utf8(out).unwrap();
            assert!(help.lines().all(|line| line.chars().count() <= usize::from(width)), "{name} {width}: {help}");
            assert!(help.lines().skip_while(|line| *line != "Examples:").skip(1).all(|line| line.starts_with("  ")));
        }
    }
}

#[test]
fn help_of_each_command_is_as_committed() {
    for name in ["init", "request", "issue", "install", "show", "revoke"] {
        let ran = command(cli::enroll::run, &format!("{name} --help")).run();
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{name}");
        assert!(ran.out.contains(&format!("Usage: p2p-enroll {name} ")), "{}", ran.out);
        assert_snapshot(&format!("cmd/p2p-enroll-{name}.txt"), &ran.out);
    }
}

#[test]
fn help_of_each_publication_command_is_as_committed() {
    for name in ["add", "remove", "list", "sync", "export"] {
        let ran = command(cli::publish::run, &format!("{name} --help")).run();
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{name}");
        assert!(ran.out.contains(&format!("Usage: p2p-publish {name} ")), "{}", ran.out);
        assert_snapshot(&format!("cmd/p2p-publish-{name}.txt"), &ran.out);
    }
}

#[test]
fn completions_know_what_each_command_takes() {
    for (tool, _) in TOOLS {
        let script = crate::support::root().join(format!("completions/{tool}.bash"));
        let script = std::fs::read_to_string(script).unwrap();
        let commands = script.lines().filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"'));
        for command in commands.filter(|command| !command.is_empty()) {
            assert!(script.contains(&format!("\n        {command})\n")), "{tool}: nothing completes {command}");
        }
    }
}

#[test]
fn every_example_in_a_help_is_a_command_line_that_parses() {
    for tool in cli::TOOLS {
        for example in tool.examples {
            let line = example.line.split([' ']).take_while(|word| !matches!(*word, "<" | ">" | "|"));
            let words = line.map(|word| if word == "MULTIADDR" { "/any" } else { word });
            let words = words.collect::<Vec<_>>();
            // A lab's example is another tool in it.
            let used = cli::TOOLS.iter().find(|tool| tool.name == words[0]);
            let parsed = used
                .unwrap_or_else(|| panic!("{}: no tool of ours", example.line))
                .command()
                .try_get_matches_from(words);
            assert!(parsed.is_ok(), "{}: {}", example.line, parsed.unwrap_err());
        }
    }
}

#[test]
fn the_version_is_the_packages() {
    for (name, run) in TOOLS {
        let ran = command(run, "--version").run();
        assert_eq!((ran.code, ran.out), (0, format!("{name} {}\n", env!("CARGO_PKG_VERSION"))));
    }
}

#[test]
fn a_typo_is_answered_with_what_was_meant() {
    assert_usage(
        lookup("--jsn sip:a@b.org"),
        "p2p-lookup: unexpected argument '--jsn' found; a similar argument exists: '--json'",
    );
    assert_usage(lookup("--via wlak sip:a@b.org"), "invalid value 'wlak' for '--via <HOW>'");
    assert_usage(lookup("--via wlak sip:a@b.org"), "'walk'");
}

#[test]
fn what_is_missing_is_named() {
    assert_usage(lookup(""), "required arguments were not provided: <URI>...");
    assert_usage(lookup("sip:a@b.org --timeout"), "a value is required for '--timeout <S>'");
    assert_usage(command(cli::register::run, ""), "no user: name one, as in sip:alice@p2psip.org, or set P2PSIP_AOR");
}

#[test]
fn a_number_or_an_address_that_is_none_is_answered_with_what_to_write() {
    assert_usage(command(cli::discover::run, "relay -n 0"), "write a whole number from 1 to 1000000");
    assert_usage(command(cli::answer::run, "--status ok"), "write a whole number from 100 to 699");
    assert_usage(command(cli::invite::run, "--count 0 sip:a@b.org"), "write a whole number from 1 to 1000000");
    assert_usage(
        command(cli::publish::run, "add --host a --address b"),
        "invalid value 'b' for '--address <IP>': write an IP address like 192.0.2.1",
    );
    assert_usage(command(cli::join::run, "b.org --proxy=here"), "--proxy: 'here' is not an address to listen on");
    let mistyped = command(cli::publish::run, "add --hst a").run();
    assert!(mistyped.err.ends_with("\nTry 'p2p-publish add --help'.\n"), "{}", mistyped.err);
}

#[test]
fn an_empty_home_says_so() {
    let home = crate::world::folder();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let ran = command(cli::enroll::run, &format!("show --home {}", home.path().display())).run();
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert!(ran.err.starts_with("nothing is in this home yet"), "{}", ran.err);
}

#[test]
fn what_excludes_each_other_is_said() {
    assert_usage(lookup("--json --short sip:a@b.org"), "'--json' cannot be used with '--short'");
    assert_usage(lookup("-4 -6 sip:a@b.org"), "'-4' cannot be used with '-6'");
    assert_usage(lookup("- sip:a@b.org"), "'-' reads all URIs from standard input");
    assert_usage(command(cli::register::run, "sip:a@b.org --remove --stay"), "cannot be used with");
    assert_usage(command(cli::join::run, "a.org --overlay b.org"), "cannot be used with '--overlay <ID>'");
}

#[test]
fn wrong_names_are_refused_before_anybody_is_asked() {
    assert_usage(lookup("alice@p2psip.org"), "names nothing in an overlay");
    assert_usage(lookup("--as overlay sip:p2psip.org:5060"), "it has a port");
    assert_usage(lookup("--as public turn:p2psip.org"), "'turn:p2psip.org' cannot be located");
    assert_usage(lookup("--as public --via walk sip:a@b.org"), "only go with names of an overlay");
    assert_usage(lookup("sips:a@b.org:5061;transport=udp"), "sips: needs TLS");
    assert_usage(lookup("sip:a@b.org sip:@b.org"), "its user part is empty");
    assert_usage(command(cli::join::run, "192.0.2.1"), "OVERLAY: '192.0.2.1' is not an overlay identifier");
    assert_usage(command(cli::join::run, "a.org --listen 4001"), "--listen: '4001' is not a multiaddr");
    let foreign = command(cli::register::run, "sip:a@b.org").env("P2PSIP_OVERLAY", "c.org");
    assert_usage(foreign, "sip:a@b.org is no user of c.org (P2PSIP_OVERLAY): its host must be c.org");
}

#[test]
fn options_outrank_the_environment_and_an_error_says_which_it_was() {
    let wrong = |line: &str| lookup(line).env("P2PSIP_DNS", "nonsense");
    assert_usage(wrong("sip:a@b.org"), "P2PSIP_DNS: 'nonsense' cannot be used");
    assert_usage(wrong("--dns rubbish sip:a@b.org"), "--dns: 'rubbish' cannot be used");
    // The URI is looked at last, so whoever complains about it had no complaint about the settings.
    assert_usage(wrong("--dns 192.0.2.53 nonsense"), "'nonsense' names nothing");
}

#[test]
fn a_configuration_file_is_read_and_its_mistakes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("p2psip.toml"), text).unwrap();
    let register = |line: &str| {
        let mut command = command(cli::register::run, line);
        command.env = Env::new(dir.path()).with("HOME", "/nonexistent");
        command
    };
    write("overlay = 'c.org'\naor = 'sip:a@b.org'");
    assert_usage(register(""), "sip:a@b.org is no user of c.org (overlay in ./p2psip.toml)");
    write("aor = 'b.org'");
    assert_usage(register(""), "aor in ./p2psip.toml: 'b.org' is not a user's SIP URI");
    write("color = 'blue'");
    assert_usage(register("sip:a@b.org"), "./p2psip.toml: there is no key 'color'; the keys are overlay, aor");
    write("overlay =");
    assert_usage(register("sip:a@b.org"), "./p2psip.toml: line 1: ");
    assert_usage(register("sip:a@b.org --config other.toml"), "--config: there is no other.toml");
}

#[test]
fn the_configuration_template_is_itself_a_configuration() {
    let ran = command(cli::join::run, "--print-config --timeout nonsense").env("P2PSIP_DNS", "nonsense").run();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let uncommented = ran.out.lines().map(|line| {
        let example = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        format!("{}\n", example.unwrap_or(line))
    });
    for text in [ran.out.clone(), uncommented.collect()] {
        std::fs::write(&path, text).unwrap();
        assert_usage(lookup(&format!("--config {} nonsense", path.display())), "'nonsense' names nothing");
    }
}

#[test]
fn colour_is_for_terminals_and_can_be_refused() {
    let coloured = |command: Command| command.run().err.contains("\x1b[");
    assert!(coloured(lookup("nonsense").on_a_terminal()));
    assert!(!coloured(lookup("nonsense")));
    assert!(!coloured(lookup("nonsense").on_a_terminal().env("NO_COLOR", "1")));
    assert!(!coloured(lookup("--color never nonsense").on_a_terminal()));
    assert!(coloured(lookup("--color always nonsense").env("NO_COLOR", "1")));
    assert!(lookup("--help").on_a_terminal().run().out.contains("\x1b["));
    assert!(!lookup("--help --color=never").on_a_terminal().run().out.contains("\x1b["));
}

#[test]
fn what_is_typed_cannot_drive_the_terminal_either() {
    for line in ["sip:\u{9b}2J@b.org", "--\u{202e}nosj", "--timeout=\u{1b}[2J sip:a@b.org", "-\u{7}"] {
        let ran = lookup(line).run();
        assert_eq!(ran.code, 2);
        let hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!ran.err.contains(hostile), "{:?}", ran.err);
    }
}

#[test]
fn wrong_usage_prints_no_json_and_other_failures_do() {
    assert_usage(lookup("--json nonsense"), "names nothing");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    // A home that is a file is a failure of any build of the use cases.
    let ran = lookup(&format!("--json --home {} sip:a@b.org --timeout 0.2", file.display())).run();
    assert!(![0, 2].contains(&ran.code), "{ran:?}");
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(json["status"].is_string(), "{json}");
    assert_eq!(ran.err, "");
}

#[test]
fn uris_on_standard_input_are_checked_line_by_line() {
    let ran = lookup("-").stdin("# only a comment\n\n").run();
    assert_eq!(ran, Ran { code: 0, out: String::new(), err: String::new() });
    let ran = lookup("-").stdin("nonsense\nturn:p2psip.org:1\n").run();
    assert_eq!((ran.code, ran.err.lines().count()), (2, 2), "{}", ran.err);
    let endless = "x".repeat(5000).leak();
    assert_usage(lookup("-").stdin(endless), "a line longer than");
}

/// A pipe whose reader has gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

/// A disk that is full.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
    let mut err = Vec::new();
    assert_eq!(lookup("--help").run_into(&mut Closed, &mut err), 0);
    assert!(err.is_empty());
    assert_eq!(lookup("--help").run_into(&mut Full, &mut err), 5);
    assert!(String::from_utf8(err).unwrap().starts_with("p2p-lookup: cannot write to standard output: "));
    assert_eq!(lookup("").run_into(&mut Vec::new(), &mut Full), 2, "nobody left to tell");
}
