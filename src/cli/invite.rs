//! `p2p-invite`: test calls.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser, ValueEnum};

use super::{
    args::{CommonArgs, OverlayArgs},
    check,
    io::{Env, Io},
    output::{
        Format, Output, count,
        error::{Failure, Stop},
        ladder::Strokes,
        milliseconds, short_peers,
        table::{Cell, Grid, Tone},
    },
    password,
    runtime::{Run, Stayed, Threads, reporting},
    settings::{self, Settings},
    tool::{self, Example, Tool, ToolArgs},
};
use crate::{
    ops::{
        CaptureRequest,
        call::{CallOutcome, CallProgress, CallStatus},
        invite::{InviteReport, InviteRequest, World, invite},
    },
    sip::digest::User,
};

/// `p2p-invite` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-invite",
    description: &[
        "Places a test call with SIP and says what became of it: INVITE, ringing, answer, hang-up, with the times between them. --ladder draws every message, and below them the hops with their addresses; --pcap writes them for Wireshark.",
        "A caller of the overlay calls from within it: another user of the overlay is called over a stream to that user's member, anybody else through a proxy peer. For the time of the call the caller's routing record names this process too.",
        "Any other caller is an ordinary user agent on UDP and TCP, which finds the callee's servers in the DNS (RFC 3263) or takes the proxy given with --proxy. --as forces either.",
        "No sound is sent yet: the session description offers one PCMU line that is inactive. The first Ctrl-C ends the call with CANCEL or BYE, the second one the tool.",
    ],
    exits: &[
        (0, "answered"),
        (1, "refused, or nobody of that name"),
        (2, "wrong usage"),
        (3, "no answer, or nobody to ask"),
        (4, "found, but not to be trusted"),
        (5, "local failure"),
    ],
    examples: &[
        Example { line: "p2p-invite sip:bob@p2psip.org --ladder", does: "both in the overlay" },
        Example { line: "p2p-invite sip:bob@example.com --pcap call.pcap", does: "out through a proxy peer" },
        Example { line: "p2p-invite --as public --proxy 192.0.2.1 sip:bob@example.com", does: "an ordinary phone" },
        Example {
            line: "p2p-invite --count 10 --interval 0.5 --json sip:bob@p2psip.org",
            does: "a line of JSON a call",
        },
    ],
    bare: Args::command,
};

/// Place a test call, across whatever lies between
#[derive(Debug, Parser)]
#[command(name = TOOL.name)]
struct Args {
    /// Whom to call: sip:USER@HOST
    #[arg(value_name = "URI")]
    uri: String,

    /// Who calls [env: P2PSIP_AOR]
    #[arg(long, value_name = "AOR")]
    from: Option<String>,

    /// Where the caller is: overlay, or public [default: as the caller's name says]
    #[arg(long = "as", value_name = "WHERE", value_enum, hide_possible_values = true)]
    world: Option<WorldArg>,

    /// Send calls there first, HOST, HOST:PORT or a SIP URI such as sip:192.0.2.1;transport=tcp
    #[arg(long, value_name = "HOP")]
    proxy: Option<String>,

    /// Seconds to stay on the line [default: 2]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    media: Option<String>,

    /// Seconds that it may ring [default: 60]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    ring_timeout: Option<String>,

    /// Refresh the session so many seconds after the answer
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    reinvite: Option<String>,

    /// How many calls to place
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = check::number(1..=1_000_000_u64))]
    count: u64,

    /// Seconds from one call to the next, whether that is over or not [default: one after the other]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    interval: Option<String>,

    /// User name for those that ask for one [default: the caller's]
    #[arg(long, value_name = "NAME", requires = "password_file")]
    auth_user: Option<String>,

    /// File whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<std::path::PathBuf>,

    #[command(flatten)]
    capture: CaptureArgs,

    #[command(flatten)]
    shared: OverlayArgs,
}

/// What to show of the messages.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct CaptureArgs {
    /// Draw the messages of each call, and the hops that they took
    #[arg(long)]
    pub(super) ladder: bool,

    /// Write the messages to a file that Wireshark and sngrep read
    #[arg(long, value_name = "FILE")]
    pub(super) pcap: Option<std::path::PathBuf>,
}

impl CaptureArgs {
    /// As the use cases want it. Of JSON the flow is part.
    pub(super) fn request(&self, env: &Env) -> CaptureRequest {
        let pcap = self.pcap.as_ref().map(|path| env.directory().join(path));
        CaptureRequest { flow: self.ladder, pcap, tap: None }
    }
}

/// `--as`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WorldArg {
    /// In the overlay.
    Overlay,
    /// In the public SIP network.
    Public,
}

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.shared.common
    }
}

/// Runs `p2p-invite` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-invite` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let settings = Settings::read(&args.shared.home, env)?;
        let request = request(&args, &settings, env)?;
        let password = args.password_file.as_ref().map(|path| env.directory().join(path));
        if let Some(warning) = password.and_then(|path| password::exposed(&path)) {
            output.warn(&warning);
        }
        let access = settings.access(&args.shared.access, None)?;
        let run = Run::new(output, || format!("calling {}", request.target));
        let mut reports = Reports::new(output, Strokes::of(env));
        let print = |report: InviteReport| match report {
            InviteReport::Progress(progress) => reports.progress(&progress),
            InviteReport::Call(outcome) => reports.call(&outcome),
        };
        let Stayed { result, signal } = run.stay(Threads::One, |ending| {
            reporting(ending, print, async |report, ending| invite(&access, &request, report, ending.begun()).await)
        })?;
        result?;
        let Reports { code, total, answered, .. } = reports;
        if total > 1 {
            output.note(&format!("{answered} of {} answered", count(total, "call")));
        }
        if signal.is_some() { Err(Stop::Interrupted) } else { Ok(code) }
    })
}

/// What the arguments ask for, checked.
fn request(args: &Args, settings: &Settings, env: &Env) -> Result<InviteRequest, Failure> {
    let from = match &args.from {
        Some(from) => {
            settings::option("--from", from, check::sip_contact)?;
            Some(from.clone())
        }
        None => settings.aor(None)?.map(|aor| aor.value.to_string()),
    };
    let seconds = |name: &str, text: &Option<String>| {
        text.as_deref().map(|text| settings::option(name, text, check::seconds)).transpose()
    };
    settings::option("URI", &args.uri, check::sip_contact)?;
    let proxy = args.proxy.as_deref().map(|text| settings::option("--proxy", text, check::sip_hop)).transpose()?;
    Ok(InviteRequest {
        user: user(args, from.as_deref(), env)?,
        target: args.uri.clone(),
        from,
        world: match args.world {
            None => World::Auto,
            Some(WorldArg::Overlay) => World::Overlay,
            Some(WorldArg::Public) => World::Public,
        },
        proxy,
        hold: seconds("--media", &args.media)?.unwrap_or(Duration::from_secs(2)),
        ring: seconds("--ring-timeout", &args.ring_timeout)?.unwrap_or(Duration::from_secs(60)),
        patience: args
            .shared
            .access
            .timeout
            .as_deref()
            .map(|text| settings::option("--timeout", text, check::timeout))
            .transpose()?,
        count: args.count,
        interval: seconds("--interval", &args.interval)?,
        reinvite: seconds("--reinvite", &args.reinvite)?,
        capture: args.capture.request(env),
    })
}

/// Who we are to those that challenge us.
fn user(args: &Args, from: Option<&str>, env: &Env) -> Result<Option<User>, Failure> {
    let Some(path) = &args.password_file else { return Ok(None) };
    let name = match (&args.auth_user, from) {
        (Some(name), _) => name.clone(),
        (None, Some(from)) => {
            let rest = from.split_once(':').map_or(from, |(_, rest)| rest);
            rest.split_once('@').map_or(rest, |(user, _)| user).to_owned()
        }
        (None, None) => return Err(Failure::usage("--password-file: whose? give --auth-user or --from")),
    };
    Ok(Some(User { name, password: password::of_file(&env.directory().join(path))? }))
}

/// Prints what happens and keeps what the exit code follows from.
pub(super) struct Reports<'a, 'io, 'streams> {
    pub(super) output: &'a mut Output<'io, 'streams>,
    strokes: Strokes,
    /// That of the first call that failed.
    code: u8,
    total: u64,
    answered: u64,
}

impl<'a, 'io, 'streams> Reports<'a, 'io, 'streams> {
    pub(super) fn new(output: &'a mut Output<'io, 'streams>, strokes: Strokes) -> Self {
        Self { output, strokes, code: 0, total: 0, answered: 0 }
    }

    /// Says what happens.
    pub(super) fn progress(&mut self, progress: &CallProgress) -> Result<(), Stop> {
        self.output.note(&progress.what);
        Ok(())
    }

    /// Prints what became of a call.
    pub(super) fn call(&mut self, outcome: &CallOutcome) -> Result<(), Stop> {
        self.total += 1;
        self.answered += u64::from(outcome.status == CallStatus::Answered);
        if let (0, Some(kind)) = (self.code, outcome.kind()) {
            self.code = kind.exit_code();
        }
        if self.total > 1 && self.output.format() == Format::Table {
            self.output.text("\n")?;
        }
        present(outcome, self.strokes, self.output)
    }
}

/// Prints what became of a call.
pub(super) fn present(outcome: &CallOutcome, strokes: Strokes, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    match output.format() {
        Format::Json => return output.json(outcome),
        Format::Short => match outcome.code {
            Some(code) => output.line(&code.to_string())?,
            None => output.line(word(outcome.status))?,
        },
        Format::Table if outcome.status == CallStatus::Answered => output.table(&listing(outcome))?,
        Format::Table => {}
    }
    if outcome.status != CallStatus::Answered {
        output.complain(&verdict(outcome));
    }
    if let Some(fault) = &outcome.fault {
        output.warn(fault);
    }
    match &outcome.flow {
        Some(flow) if output.format() == Format::Table => output.ladder(flow, strokes),
        _ => Ok(()),
    }
}

/// The status as JSON has it.
const fn word(status: CallStatus) -> &'static str {
    match status {
        CallStatus::Answered => "answered",
        CallStatus::Rejected => "rejected",
        CallStatus::NotFound => "not-found",
        CallStatus::NoAnswer => "no-answer",
        CallStatus::Unreachable => "unreachable",
        CallStatus::Untrusted => "untrusted",
        CallStatus::LocalFailure => "local-failure",
        CallStatus::Cancelled => "cancelled",
    }
}

/// Why a call was not answered, in a line.
fn verdict(outcome: &CallOutcome) -> String {
    let other = if outcome.direction == "incoming" { &outcome.from } else { &outcome.uri };
    let why = outcome.reason.as_deref().unwrap_or_default();
    match (outcome.status, outcome.code) {
        (CallStatus::Rejected, Some(code)) => format!("{other}: {code} {}", short_peers(why)),
        (CallStatus::Cancelled, _) => match outcome.ended_by {
            Some("them") => format!("{other}: given up by the caller before it was answered"),
            _ => format!("{other}: given up before it was answered"),
        },
        _ => format!("{other}: {}", short_peers(why)),
    }
}

fn listing(outcome: &CallOutcome) -> Grid {
    let mut grid = Grid::of_pairs();
    let incoming = outcome.direction == "incoming";
    let (one, other) = if incoming { ("answered", "for") } else { ("answered by", "from") };
    let (first, second) = if incoming { (&outcome.from, &outcome.uri) } else { (&outcome.uri, &outcome.from) };
    grid.pair(one, Cell::text(first, Tone::Subject));
    grid.pair(other, Cell::text(second, Tone::Plain));
    if let Some(after) = outcome.ringing_ms {
        grid.pair("rang after", Cell::text(milliseconds(after), Tone::Plain));
    }
    if let Some(after) = outcome.answered_ms {
        grid.pair("answered after", Cell::text(milliseconds(after), Tone::Good));
    }
    if let Some(status) = outcome.reinvited {
        let tone = if status < 300 { Tone::Good } else { Tone::Warning };
        grid.pair("refreshed", Cell::text(status.to_string(), tone));
    }
    if let Some(talked) = outcome.talked_ms {
        let by = match outcome.ended_by {
            Some("them") => "the other side hung up",
            _ => "hung up here",
        };
        grid.pair("on the line", Cell::text(format!("{}, {by}", milliseconds(talked)), Tone::Plain));
    }
    grid.pair("media", Cell::text(outcome.media, Tone::Faint));
    grid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::output::captured, kind::Kind};

    fn outcome(status: CallStatus) -> CallOutcome {
        CallOutcome {
            status,
            direction: "outgoing",
            uri: "sip:bob@example.com".to_owned(),
            from: "sip:alice@p2psip.org".to_owned(),
            call_id: "c1".to_owned(),
            code: None,
            reason: None,
            ringing_ms: None,
            answered_ms: None,
            talked_ms: None,
            ended_by: None,
            fault: None,
            reinvited: None,
            media: "none",
            flow: None,
            elapsed_ms: 2_345.6,
        }
    }

    fn shown(options: &CommonArgs, outcome: &CallOutcome) -> (String, String) {
        let show = |output: &mut Output<'_, '_>| present(outcome, Strokes::Unicode, output);
        let (_, out, err) = captured(TOOL.name, options, show);
        (out, err)
    }

    #[test]
    fn a_call_is_listed_with_its_times() {
        let answered = CallOutcome {
            code: Some(200),
            ringing_ms: Some(12.34),
            answered_ms: Some(212.0),
            talked_ms: Some(2_000.04),
            ended_by: Some("us"),
            reinvited: Some(200),
            ..outcome(CallStatus::Answered)
        };
        let (out, err) = shown(&CommonArgs::default(), &answered);
        assert_eq!(
            out,
            "answered by     sip:bob@example.com\n\
             from            sip:alice@p2psip.org\n\
             rang after      12.3 ms\n\
             answered after  212.0 ms\n\
             refreshed       200\n\
             on the line     2000.0 ms, hung up here\n\
             media           none\n"
        );
        assert_eq!(err, "");
        let short = CommonArgs { short: true, ..CommonArgs::default() };
        assert_eq!(shown(&short, &answered).0, "200\n");
    }

    #[test]
    fn what_went_wrong_is_a_line_on_standard_error() {
        let busy =
            CallOutcome { code: Some(486), reason: Some("Busy\x1b[2J".to_owned()), ..outcome(CallStatus::Rejected) };
        let (out, err) = shown(&CommonArgs::default(), &busy);
        assert_eq!((out.as_str(), err.as_str()), ("", "p2p-invite: sip:bob@example.com: 486 Busy\\u{1b}[2J\n"));
        let silent = CallOutcome { reason: Some("no response".to_owned()), ..outcome(CallStatus::Unreachable) };
        let short = CommonArgs { short: true, ..CommonArgs::default() };
        let (out, err) = shown(&short, &silent);
        assert_eq!((out.as_str(), err.as_str()), ("unreachable\n", "p2p-invite: sip:bob@example.com: no response\n"));
    }

    #[test]
    fn exit_codes_follow_from_the_outcome() {
        let codes = [
            (CallStatus::Answered, None),
            (CallStatus::Rejected, Some(1)),
            (CallStatus::NotFound, Some(1)),
            (CallStatus::NoAnswer, Some(3)),
            (CallStatus::Unreachable, Some(3)),
            (CallStatus::Untrusted, Some(4)),
            (CallStatus::LocalFailure, Some(5)),
        ];
        for (status, code) in codes {
            assert_eq!(outcome(status).kind().map(Kind::exit_code), code, "{status:?}");
        }
    }
}
