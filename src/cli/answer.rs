//! `p2p-answer`: the test callee.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser};

use super::{
    args::{CommonArgs, OverlayArgs},
    check,
    invite::{CaptureArgs, Reports},
    io::{Env, Io},
    output::{
        Format, Output,
        error::{Failure, Stop},
        ladder::Strokes,
        table::{Cell, Grid, Tone},
    },
    runtime::{Run, Threads, reporting},
    settings::{self, Settings},
    tool::{self, Example, Tool, ToolArgs},
};
use crate::ops::answer::{AnswerReport, AnswerRequest, ListeningOutcome, answer};

/// `p2p-answer` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-answer",
    description: &[
        "Answers test calls with SIP until Ctrl-C (exit 130) or SIGTERM (exit 0), or until there were enough, and says what became of each. A second signal ends at once.",
        "The user of an overlay is registered for that time with a routing record that names this process, in the place of what this device had registered, which comes back afterwards. Calls come over streams of the overlay, from members and from proxy peers.",
        "With --listen it is an ordinary user agent on UDP and TCP instead, and needs no overlay: any user is answered, or only the one that is named.",
        "No sound is sent or echoed yet: the session description answers with one PCMU line that is inactive.",
    ],
    exits: &[
        (0, "done"),
        (1, "refused registration"),
        (2, "wrong usage"),
        (3, "nobody to ask"),
        (4, "registration refused as not to be trusted"),
        (5, "local failure, such as a port in use"),
    ],
    examples: &[
        Example { line: "p2p-answer sip:bob@p2psip.org", does: "Bob is here until Ctrl-C" },
        Example { line: "p2p-answer --once --ring 3 --ladder", does: "P2PSIP_AOR answers one call after 3 s" },
        Example { line: "p2p-answer --status 486 --listen 127.0.0.1:5070", does: "everybody is busy" },
    ],
    bare: Args::command,
};

/// Answer test calls
#[derive(Debug, Parser)]
#[command(name = TOOL.name)]
struct Args {
    /// Who answers: sip:USER@OVERLAY [env: P2PSIP_AOR]; with --listen any SIP URI, or none for everybody
    #[arg(value_name = "AOR")]
    aor: Option<String>,

    /// Seconds to ring [default: 0]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    ring: Option<String>,

    /// Final response: 200 to answer, or 300 to 699
    #[arg(long, value_name = "CODE", default_value_t = 200, value_parser = check::number(100..=699_u16))]
    status: u16,

    /// Seconds after which to hang up [default: the caller does]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    media: Option<String>,

    /// Listen on this address, UDP and TCP, as an ordinary user agent: ADDR or ADDR:PORT
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// End after one call
    #[arg(long, conflicts_with = "count")]
    once: bool,

    /// End after so many calls
    #[arg(long, value_name = "N", value_parser = check::number(1..=1_000_000_u64))]
    count: Option<u64>,

    #[command(flatten)]
    capture: CaptureArgs,

    #[command(flatten)]
    shared: OverlayArgs,
}

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.shared.common
    }
}

/// Runs `p2p-answer` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-answer` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let settings = Settings::read(&args.shared.home, env)?;
        let request = request(&args, &settings, env)?;
        let access = settings.access(&args.shared.access, None)?;
        let run = Run::new(output, || match &request.user {
            Some(user) if request.listen.is_none() => format!("registering {user}"),
            _ => "beginning to listen".to_owned(),
        });
        let mut reports = Reports::new(output, Strokes::of(env));
        let print = |report: AnswerReport| match report {
            AnswerReport::Listening(outcome) => {
                let shown = listening(&outcome, reports.output);
                reports.output.note("Ctrl-C ends");
                shown
            }
            AnswerReport::Progress(progress) => reports.progress(&progress),
            AnswerReport::Call(outcome) => reports.call(&outcome),
        };
        let stayed = run.stay(Threads::One, |ending| {
            reporting(ending, print, async |report, ending| answer(&access, &request, report, ending.begun()).await)
        })?;
        stayed.exit(Some(0))
    })
}

/// What the arguments ask for, checked.
fn request(args: &Args, settings: &Settings, env: &Env) -> Result<AnswerRequest, Failure> {
    if !matches!(args.status, 200 | 300..=699) {
        return Err(Failure::usage(format!(
            "--status: {} is no final response; write 200, or 300 to 699",
            args.status
        )));
    }
    let seconds = |name: &str, text: &Option<String>| {
        text.as_deref().map(|text| settings::option(name, text, check::seconds)).transpose()
    };
    let listen =
        args.listen.as_deref().map(|text| settings::option("--listen", text, check::sip_address)).transpose()?;
    let user = match (&args.aor, listen) {
        // Whoever listens for everybody is not bound to whom the environment names.
        (None, Some(_)) => None,
        (Some(aor), Some(_)) => {
            settings::option("AOR", aor, check::sip_contact)?;
            Some(aor.clone())
        }
        (aor, None) => {
            let aor = settings.aor(aor.as_deref())?;
            let aor = aor.ok_or_else(|| {
                Failure::usage("no user: name one, as in sip:bob@p2psip.org, or set P2PSIP_AOR, or give --listen")
            })?;
            Some(aor.value.to_string())
        }
    };
    Ok(AnswerRequest {
        user,
        listen,
        ring: seconds("--ring", &args.ring)?.unwrap_or(Duration::ZERO),
        status: args.status,
        hold: seconds("--media", &args.media)?,
        count: if args.once { Some(1) } else { args.count },
        capture: args.capture.request(env),
    })
}

/// Prints that calls are waited for.
fn listening(outcome: &ListeningOutcome, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    match output.format() {
        Format::Json => output.json(outcome),
        Format::Short => outcome.addresses.iter().try_for_each(|address| output.line(address)),
        Format::Table => {
            let mut grid = Grid::of_pairs();
            grid.pair("waiting for", Cell::text(outcome.user.as_deref().unwrap_or("anybody"), Tone::Subject));
            if let Some(peer) = &outcome.peer {
                grid.pair("peer", Cell::text(peer.to_string(), Tone::Plain));
            }
            grid.pair("at", Cell::lines(&outcome.addresses, Tone::Plain));
            output.table(&grid)
        }
    }
}
