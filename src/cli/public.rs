//! What `p2p-register --public` asks for and prints.

use super::{
    io::{Env, Signal},
    output::{
        Format, Output,
        error::Stop,
        milliseconds, span,
        table::{Cell, Grid, Tone},
    },
    password,
    runtime::{self, Ending, Stayed, Threads},
};
use crate::{
    ops::{
        Access,
        public::{PublicOutcome, PublicReport, PublicRequest, PublicStatus, Step, StepOutcome, register_public},
    },
    sip::{digest::User, uri::SipUri},
};

/// The options of a public registration.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Public SIP networks")]
pub(super) struct PublicArgs {
    /// Register the user's overlay URL there, through a proxy peer, as what this address is bound to
    #[arg(long, value_name = "AOR")]
    pub(super) public: Option<String>,

    /// User name for the registrar [default: that of the address]
    #[arg(long, value_name = "NAME", requires = "public")]
    pub(super) auth_user: Option<String>,

    /// File whose first line is the password
    #[arg(long, value_name = "FILE", requires = "public")]
    pub(super) password_file: Option<std::path::PathBuf>,

    /// File descriptor whose first line is the password
    #[arg(long, value_name = "N", requires = "public", conflicts_with = "password_file")]
    pub(super) password_fd: Option<u16>,
}

/// Who we are to the registrar: the password comes from where the options say, or else from whoever is at the terminal.
pub(super) fn user(args: &PublicArgs, public: &str, env: &Env, is_terminal: bool) -> Result<Option<User>, Stop> {
    let own = SipUri::parse(public).ok().and_then(|uri| uri.user.map(|user| (user, uri.host.to_string())));
    let (own, host) = own.map_or((String::new(), String::new()), |(user, host)| (user.to_owned(), host));
    let name = args.auth_user.clone().unwrap_or(own);
    let password = match (&args.password_file, args.password_fd) {
        (Some(path), _) => Some(password::of_file(&env.directory().join(path))?),
        (None, Some(number)) => Some(password::of_descriptor(number)?),
        (None, None) if is_terminal => password::ask(&format!("Password of {name} at {host} (none: Enter): "))?,
        (None, None) => None,
    };
    Ok(password.map(|password| User { name, password }))
}

/// Registers, and prints what becomes of it.
pub(super) fn run(access: &Access, request: &PublicRequest, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    let (signals, progress) = (std::mem::take(&mut output.io().signals), output.progress());
    progress.doing(|| format!("registering {} at {}", request.aor, request.public));
    let mut reports = Reports { output, code: None, stopped: None };
    let reports_ref = &mut reports;
    let work = |ending: Ending| async move {
        let ended = ending.clone();
        let mut report = |report: PublicReport| {
            if !reports_ref.present(&report) {
                ended.begin();
            }
        };
        register_public(access, request, &mut report, ending.begun()).await
    };
    let Stayed { result, signal } = runtime::stay(Threads::One, signals, &progress, work)?;
    let Reports { code, stopped, .. } = reports;
    if let Some(stop) = stopped {
        return Err(stop);
    }
    result?;
    match (signal, code) {
        // As without --public: Ctrl-C, or SIGTERM before there was an answer.
        (Some(Signal::Interrupt), _) | (Some(Signal::Terminate), None) => Err(Stop::Interrupted),
        (_, code) => Ok(code.unwrap_or_default()),
    }
}

struct Reports<'a, 'io, 'streams> {
    output: &'a mut Output<'io, 'streams>,
    code: Option<u8>,
    stopped: Option<Stop>,
}

impl Reports<'_, '_, '_> {
    /// Prints a report; false if nobody reads any more.
    fn present(&mut self, report: &PublicReport) -> bool {
        let printed = match report {
            PublicReport::Step(step) => {
                self.output.progress().doing(|| format!("{}: {}", word(step.step), step.result));
                Ok(())
            }
            PublicReport::Lost => {
                self.output.warn("the proxy peer is gone; looking for another one");
                Ok(())
            }
            PublicReport::Outcome(outcome) => {
                let is_first = self.code.is_none();
                self.code = Some(outcome.kind().map_or(0, crate::kind::Kind::exit_code));
                present(outcome, is_first, self.output)
            }
        };
        match printed {
            Ok(()) => true,
            Err(stop) => {
                self.stopped = Some(stop);
                false
            }
        }
    }
}

/// Prints an outcome; the first one of a registration in full.
fn present(outcome: &PublicOutcome, is_first: bool, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    if output.format() == Format::Json {
        return output.json(outcome);
    }
    if outcome.kind().is_some() {
        output.complain(&verdict(outcome));
        if output.format() == Format::Table && is_first {
            output.table(&steps(&outcome.steps))?;
        }
        return Ok(());
    }
    if output.format() == Format::Short {
        return if is_first { output.line(&outcome.contact) } else { Ok(()) };
    }
    if !is_first {
        let proxy = outcome.proxy.map(|peer| format!(" through {peer}")).unwrap_or_default();
        output.note(&format!("refreshed{proxy}, for {}", span(outcome.expires_in_ms.unwrap_or_default())));
        return Ok(());
    }
    output.table(&listing(outcome))?;
    output.heading("")?;
    output.table(&steps(&outcome.steps))?;
    if outcome.shortened {
        output.warn("the registrar keeps it for less time than was asked for");
    }
    Ok(())
}

/// Why it is not as wished, in a line.
fn verdict(outcome: &PublicOutcome) -> String {
    let why = outcome.reason.as_deref().unwrap_or_default();
    let code = outcome.code.map(|code| format!("{code} ")).unwrap_or_default();
    let again = outcome.again_in_ms.map(|after| format!("; trying again in {}", span(after))).unwrap_or_default();
    format!("{}: {code}{why}{again}", outcome.aor)
}

fn listing(outcome: &PublicOutcome) -> Grid {
    let mut grid = Grid::of_pairs();
    let (done, tone) = match outcome.status {
        PublicStatus::Kept => ("kept", Tone::Warning),
        PublicStatus::Removed => ("removed", Tone::Subject),
        _ => ("registered", Tone::Subject),
    };
    grid.pair(done, Cell::text(&outcome.aor, tone));
    grid.pair("bound to", Cell::text(&outcome.contact, Tone::Plain));
    if outcome.status == PublicStatus::Kept {
        let others = super::output::count(outcome.other_devices, "other device");
        grid.pair("needed by", Cell::text(others, Tone::Plain));
        return grid;
    }
    grid.pair("at", Cell::text(outcome.redirected_to.as_ref().unwrap_or(&outcome.registrar), Tone::Plain));
    if let Some(proxy) = outcome.proxy {
        grid.pair("outbound proxy", Cell::text(proxy.to_string(), Tone::Plain));
    }
    if let (Some(realm), Some(algorithm)) = (&outcome.realm, outcome.algorithm) {
        grid.pair("password asked by", Cell::text(format!("{realm} ({algorithm})"), Tone::Plain));
    }
    if let Some(expires) = outcome.expires_in_ms {
        let tone = if outcome.shortened { Tone::Warning } else { Tone::Plain };
        grid.pair("expires in", Cell::text(span(expires), tone));
    }
    let others = outcome.bindings.iter().filter(|binding| **binding != outcome.contact).cloned().collect::<Vec<_>>();
    if !others.is_empty() {
        grid.pair("other bindings", Cell::lines(others, Tone::Faint));
    }
    grid
}

/// What was done, with its times.
fn steps(steps: &[StepOutcome]) -> Grid {
    let mut grid = Grid::with_header(&["STEP", "TOOK", "RESULT"]);
    for step in steps {
        grid.row([
            Cell::text(word(step.step), Tone::Plain),
            Cell::text(milliseconds(step.took_ms), Tone::Good),
            Cell::text(&step.result, Tone::Faint),
        ]);
    }
    grid
}

const fn word(step: Step) -> &'static str {
    match step {
        Step::OverlayRegistration => "overlay registration",
        Step::ProxyLookup => "proxy peer lookup",
        Step::OutboundProxy => "outbound proxy",
        Step::Register => "REGISTER",
        Step::OverlayRemoval => "overlay removal",
    }
}
