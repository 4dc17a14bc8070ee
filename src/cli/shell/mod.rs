//! `p2p-shell`: look around in an overlay, command by command.

mod commands;
mod line;
mod seen;
mod show;
mod verbs;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser};
use tokio::sync::mpsc;

use self::{
    commands::{Done, Shell},
    line::{Terminal, Typed},
};
use super::{
    args::{CommonArgs, OverlayArgs},
    io::{Env, Io, Signal},
    lines,
    output::{
        Output,
        error::{Failure, Stop},
    },
    runtime::Session,
    settings::Settings,
    tool::{self, Example, INTERRUPTED, Tool, ToolArgs},
};

/// The file name of the history in a home.
const HISTORY: &str = "shell_history";

/// `p2p-shell` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-shell",
    description: &[
        "Takes commands and prints what they come to: at a prompt, with -c, or from standard input, one a line; # begins a comment. status, peers, table, records and events show the member that runs on this machine; lookup, trace, services, register and remove do what p2p-lookup, p2p-discover and p2p-register do; store stores a record and shows what each storer answers; ping says how fast a peer answers; attach goes on with another member, join becomes one, time says how long a command takes, and help explains them all.",
        "With the operand OVERLAY, and where no member runs on this machine, it joins that overlay and is a member itself until it ends, as after the command join; other tools can use it meanwhile. Without it, lookups and registrations go through --peer or the DNS, and the connection is kept for the next command.",
        "At the prompt, Tab completes commands and whatever user, service or peer has been seen so far, without asking anybody. Ctrl-C ends the running command, Ctrl-D or quit the shell. What was typed is kept in shell_history in the home.",
        "Commands of -c and standard input end with the first one that fails, and with its exit code. With --keep-going they all run, and the highest exit code counts.",
    ],
    exits: &[
        (0, "every command succeeded"),
        (1, "a negative answer"),
        (2, "wrong usage"),
        (3, "nobody to ask"),
        (4, "found but not to be trusted"),
        (5, "local failure"),
    ],
    examples: &[
        Example { line: "p2p-shell", does: "a prompt, at the member on this machine" },
        Example { line: "p2p-shell p2psip.org", does: "the same, and a member of its own if there is none" },
        Example { line: "p2p-shell -c status -c peers", does: "how the member is, and whom it knows" },
        Example { line: "p2p-shell --json < commands.txt", does: "one object for each result" },
    ],
    bare: Args::command,
};

/// Look around in a P2PSIP overlay, command by command
#[derive(Debug, Parser)]
#[command(name = TOOL.name)]
struct Args {
    /// The overlay, as --overlay; joined if no member runs on this machine
    #[arg(value_name = "OVERLAY", conflicts_with = "overlay")]
    overlay_operand: Option<String>,

    /// Run this command instead of asking for some; repeat for several
    #[arg(short = 'c', long = "command", value_name = "CMD")]
    commands: Vec<String>,

    /// Go on after a command that fails
    #[arg(short, long)]
    keep_going: bool,

    #[command(flatten)]
    shared: OverlayArgs,
}

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.shared.common
    }
}

/// Runs `p2p-shell` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-shell` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let settings = Settings::read(&args.shared.home, env)?;
        let access = settings.access(&args.shared.access, args.overlay_operand.as_deref())?;
        let mut session = Session::new(std::mem::take(&mut output.io().signals))?;
        let mut shell = Shell::new(settings, access);
        let result = serve(args, &mut session, &mut shell, output);
        match session.run(&output.progress(), shell.leave()) {
            Ok(Err(failure)) if result.is_ok() => Err(failure.into()),
            // Whoever ends the shell twice does not wait.
            Ok(_) | Err(_) => result,
        }
    })
}

/// Takes commands from where they come from.
fn serve(args: Args, session: &mut Session, shell: &mut Shell, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    let io = output.io();
    let interactive = args.commands.is_empty() && io.owns_process && io.stdin_is_terminal;
    let keep_going = interactive || args.keep_going;
    let progress = output.progress();
    let mut worst = 0;
    if args.overlay_operand.is_some() {
        worst = match session.run(&progress, shell.join_if_alone(output)) {
            Ok(result) => result?,
            Err(Signal::Interrupt) if interactive => INTERRUPTED,
            Err(_) => return Err(Stop::Interrupted),
        };
        if worst != 0 && !keep_going {
            return Ok(worst);
        }
    }
    let mut input = if !args.commands.is_empty() {
        Input::Given(args.commands.into_iter())
    } else if interactive {
        match session.run(&progress, shell.greet(output)) {
            // Who is in a hurry does without.
            Ok(()) | Err(Signal::Interrupt) => {}
            Err(Signal::Terminate) => return Err(Stop::Interrupted),
        }
        let (history, divert) = (shell.home().join(HISTORY), output.io().stderr_is_terminal);
        Input::Typed(Terminal::start(Some(history), output.is_coloured(), divert, shell.seen())?)
    } else {
        Input::Script(lines::read(output.io()))
    };
    let worst = worst.max(converse(session, shell, &mut input, keep_going, output)?);
    // Whoever typed has seen what came of each command.
    Ok(if interactive { 0 } else { worst })
}

/// Does what each line says; the highest exit code, or the first that is not 0.
fn converse(
    session: &mut Session,
    shell: &mut Shell,
    input: &mut Input,
    keep_going: bool,
    output: &mut Output<'_, '_>,
) -> Result<u8, Stop> {
    let (progress, waiting) = (output.progress(), Default::default());
    let mut worst = 0;
    loop {
        let line = match session.run(&waiting, input.next(&shell.prompt())) {
            Ok(Typed::Line(line)) => line,
            Ok(Typed::Cleared) => continue,
            Ok(Typed::End) => return Ok(worst),
            Ok(Typed::Failed(failure)) => return Err(failure.into()),
            Err(Signal::Interrupt) if input.is_typed() => continue,
            Err(_) => return Err(Stop::Interrupted),
        };
        // The window may be another size by now.
        if output.io().owns_process && output.io().stdout_is_terminal {
            output.io().width = comfy_table::Table::new().width();
        }
        let code = match session.run(&progress, shell.perform(&line, output)) {
            Ok(Ok(Done::Code(code))) => code,
            Ok(Ok(Done::Quit)) => return Ok(worst),
            Ok(Err(stop)) => return Err(stop),
            Err(Signal::Interrupt) => {
                output.note("interrupted");
                INTERRUPTED
            }
            Err(Signal::Terminate) => return Err(Stop::Interrupted),
        };
        worst = worst.max(code);
        if code != 0 && !keep_going {
            return Ok(code);
        }
    }
}

/// Where commands come from.
enum Input {
    Given(std::vec::IntoIter<String>),
    Script(mpsc::Receiver<Result<String, Failure>>),
    Typed(Terminal),
}

impl Input {
    async fn next(&mut self, prompt: &str) -> Typed {
        match self {
            Self::Given(commands) => commands.next().map_or(Typed::End, Typed::Line),
            Self::Script(lines) => match lines.recv().await {
                Some(Ok(line)) => Typed::Line(line),
                Some(Err(failure)) => Typed::Failed(failure),
                None => Typed::End,
            },
            Self::Typed(terminal) => terminal.next(prompt).await,
        }
    }

    const fn is_typed(&self) -> bool {
        matches!(self, Self::Typed(_))
    }
}
