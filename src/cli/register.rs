//! `p2p-register`: binds a user of an overlay to where that user is.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use anyhow::anyhow;
use clap::{CommandFactory as _, Parser};

use super::{
    args::{CommonArgs, OverlayArgs},
    check,
    io::{Env, Io},
    lookup::contact_lines,
    output::{
        Format, Output, count,
        error::{Failure, Stop},
        span,
        table::{Cell, Grid, Tone},
    },
    password,
    public::{self, PublicArgs},
    runtime::{Ending, Run, Stayed, Threads, reporting},
    settings::{self, Settings, Sourced},
    tool::{self, Example, Tool, ToolArgs},
};
use crate::{
    kind::Kind,
    name::Aor,
    ops::{
        outcome::{RegisterOutcome, RegisterStatus},
        public::PublicRequest,
        register::{RegisterRequest, register},
    },
};

/// Most contacts that a record has room for.
const MAX_CONTACTS: usize = 8;

/// `p2p-register` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-register",
    description: &[
        "Stores a record in the overlay that binds the user to contacts, signed with the key of this device, and reads it back. Without --contact, the contact is the member that runs on this machine.",
        "Each device of a user has a record of its own; registering again replaces that of this device and no other. The members that accepted the record keep it alive until it expires.",
        "With --public, the user is registered with the registrar of a public address as well (draft §4.2): what that address is bound to is the user's overlay URL, sip:USER@OVERLAY, and REGISTER goes through a proxy peer. Without --contact, what this device has registered in the overlay stays as it is. --remove takes the public binding out only if no other device of the user is registered. A password is read from a file or a file descriptor, or asked for at the terminal.",
        "With --stay the registration is refreshed until Ctrl-C (exit 130) or SIGTERM (exit 0); then it is left to expire. A second signal ends at once.",
    ],
    exits: &[
        (0, "registered or removed"),
        (1, "refused, by the registrar too"),
        (2, "wrong usage"),
        (3, "nobody to ask, or no answer from the registrar"),
        (4, "refused as not to be trusted"),
        (5, "local failure"),
    ],
    examples: &[
        Example { line: "p2p-register sip:alice@p2psip.org", does: "Alice is at the member on this machine" },
        Example { line: "p2p-register --contact sip:alice@192.0.2.7:5060", does: "P2PSIP_AOR is at a phone" },
        Example { line: "p2p-register --expires 600 --stay", does: "refresh until Ctrl-C" },
        Example { line: "p2p-register --remove", does: "this device is gone" },
        Example {
            line: "p2p-register --public sip:alice@example.org --password-file pw --stay",
            does: "and her well-known address leads to her",
        },
    ],
    bare: Args::command,
};

/// Bind a user of a P2PSIP overlay to where that user is
#[derive(Debug, Parser)]
#[command(name = TOOL.name)]
struct Args {
    /// The user, sip:USER@OVERLAY [env: P2PSIP_AOR]
    #[arg(value_name = "AOR")]
    aor: Option<String>,

    /// Where the user can be reached; repeat for several. Without it: the member on this machine
    #[arg(long, value_name = "URI", conflicts_with = "remove")]
    contact: Vec<String>,

    /// Seconds for which it holds; the overlay sets the default and the maximum
    #[arg(long, value_name = "S", conflicts_with = "remove", allow_negative_numbers = true)]
    expires: Option<String>,

    /// Stay and refresh until Ctrl-C or SIGTERM; be a member meanwhile if there is none on this machine
    #[arg(long, conflicts_with = "remove")]
    stay: bool,

    /// Remove what this device registered
    #[arg(long)]
    remove: bool,

    #[command(flatten)]
    public: PublicArgs,

    #[command(flatten)]
    shared: OverlayArgs,
}

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.shared.common
    }
}

/// Runs `p2p-register` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-register` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let settings = Settings::read(&args.shared.home, env)?;
        let request = request(&args, &settings)?;
        let access = settings.access(&args.shared.access, None)?;
        if let Some(at) = &args.public.public {
            let request = public_request(&args, at, request, env, output)?;
            return public::run(&access, &request, output);
        }

        let run = Run::new(output, || format!("registering {}", request.aor));
        let mut code = None;
        let print = |outcome: RegisterOutcome| {
            let is_first = code.replace(exit_code(&outcome)).is_none();
            present(&outcome, is_first, output)
        };
        let work = |ending| {
            reporting(ending, print, async |report, ending| register(&access, &request, report, ending.begun()).await)
        };
        let stayed = if request.stay {
            run.stay(Threads::One, work)?
        } else {
            Stayed { result: run.one_shot(work(Ending::default()))?, signal: None }
        };
        stayed.exit(code)
    })
}

/// What the arguments ask for, checked.
fn request(args: &Args, settings: &Settings) -> Result<RegisterRequest, Failure> {
    let aor = user(args.aor.as_deref(), args.shared.access.overlay.as_deref(), settings)?;
    let (contacts, expires) = binding(&args.contact, args.expires.as_deref())?;
    Ok(RegisterRequest { aor, contacts, expires, remove: args.remove, stay: args.stay })
}

/// The same for a public registration.
fn public_request(
    args: &Args,
    public: &str,
    inside: RegisterRequest,
    env: &Env,
    output: &mut Output<'_, '_>,
) -> Result<PublicRequest, Stop> {
    settings::option("--public", public, check::sip_contact)?;
    let RegisterRequest { aor, contacts, expires, remove, stay } = inside;
    PublicRequest::check(public, &aor)?;
    let password = args.public.password_file.as_ref().map(|path| env.directory().join(path));
    if let Some(warning) = password.and_then(|path| password::exposed(&path)) {
        output.warn(&warning);
    }
    let io = output.io();
    let user = public::user(&args.public, public, env, io.owns_process && io.stdin_is_terminal)?;
    Ok(PublicRequest { aor, public: public.to_owned(), contacts, expires, user, remove, stay, tap: None })
}

/// The user that is meant: given, else the configured one, and one of the overlay.
fn user(given: Option<&str>, overlay: Option<&str>, settings: &Settings) -> Result<Aor, Failure> {
    let aor = settings
        .aor(given)?
        .ok_or_else(|| Failure::usage("no user: name one, as in sip:alice@p2psip.org, or set P2PSIP_AOR"))?
        .value;
    if let Some(Sourced { value: overlay, origin }) = settings.overlay(None, overlay)?
        && aor.check_overlay(&overlay).is_err()
    {
        let why = anyhow!("{aor} is no user of {overlay} ({origin}): its host must be {overlay}");
        return Err(Failure::new(Kind::Usage, why));
    }
    Ok(aor)
}

/// What a user is bound to, and for how long, checked.
pub(super) fn binding(contacts: &[String], expires: Option<&str>) -> Result<(Vec<String>, Option<Duration>), Failure> {
    if contacts.len() > MAX_CONTACTS {
        return Err(Failure::usage(format!("--contact: a user has at most {MAX_CONTACTS} contacts at one device")));
    }
    for contact in contacts {
        settings::option("--contact", contact, check::sip_contact)?;
    }
    let expires = expires.map(|text| settings::option("--expires", text, check::expires)).transpose()?;
    Ok((contacts.to_vec(), expires))
}

/// The exit code that an outcome deserves.
pub(super) fn exit_code(outcome: &RegisterOutcome) -> u8 {
    match outcome.status {
        RegisterStatus::Registered | RegisterStatus::Removed => 0,
        RegisterStatus::NobodyToAsk => Kind::Unreachable.exit_code(),
        RegisterStatus::Refused if outcome.refused.iter().any(|by| by.untrusted) => Kind::Untrusted.exit_code(),
        RegisterStatus::Refused => Kind::Negative.exit_code(),
    }
}

/// Prints an outcome; the first one of a registration in full.
pub(super) fn present(outcome: &RegisterOutcome, is_first: bool, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    if output.format() == Format::Json {
        return output.json(outcome);
    }
    match outcome.status {
        RegisterStatus::Registered | RegisterStatus::Removed => {}
        RegisterStatus::Refused | RegisterStatus::NobodyToAsk => {
            output.complain(&verdict(outcome));
            return Ok(());
        }
    }
    if output.format() == Format::Short {
        return if is_first { output.line(&outcome.gruu) } else { Ok(()) };
    }
    if is_first {
        output.table(&listing(outcome))?;
    } else {
        output.note(&format!("refreshed on {}", storers(outcome)));
    }
    if !outcome.refused.is_empty() {
        output.warn(&format!("refused by {}: {}", count(outcome.refused.len(), "storer"), reason(outcome)));
    }
    Ok(())
}

fn verdict(outcome: &RegisterOutcome) -> String {
    let aor = &outcome.aor;
    match outcome.status {
        RegisterStatus::Refused => format!("{aor}: refused: {}", reason(outcome)),
        RegisterStatus::NobodyToAsk => format!(
            "{aor}: nobody to ask: {} stayed silent; try again, or name a member with --peer",
            count(outcome.silent, "storer")
        ),
        RegisterStatus::Registered | RegisterStatus::Removed => format!("{aor}: stored on {}", storers(outcome)),
    }
}

/// Why storers refused, in the words of the first one.
fn reason(outcome: &RegisterOutcome) -> &str {
    outcome.refused.first().map_or("no storer says why", |refused| refused.reason.as_str())
}

/// `8 of 9 storers, read back from 3`.
fn storers(outcome: &RegisterOutcome) -> String {
    let silent = usize::try_from(outcome.silent).unwrap_or(usize::MAX);
    let asked = outcome.stored.len().saturating_add(outcome.refused.len()).saturating_add(silent);
    let read_back = match outcome.read_back {
        0 => "not read back".to_owned(),
        from => format!("read back from {from}"),
    };
    format!("{} of {}, {read_back}", outcome.stored.len(), count(asked, "storer"))
}

fn listing(outcome: &RegisterOutcome) -> Grid {
    let mut grid = Grid::of_pairs();
    let done = if outcome.status == RegisterStatus::Removed { "removed" } else { "registered" };
    grid.pair(done, Cell::text(&outcome.aor, Tone::Subject));
    if outcome.status == RegisterStatus::Registered {
        grid.pair("this device", Cell::text(&outcome.gruu, Tone::Plain));
        grid.pair("contacts", Cell::lines(outcome.contacts.iter().flat_map(contact_lines), Tone::Plain));
        grid.pair("expires in", Cell::text(span(outcome.expires_in_ms), Tone::Plain));
    }
    let tone = if outcome.read_back > 0 { Tone::Good } else { Tone::Warning };
    grid.pair("stored", Cell::text(storers(outcome), tone));
    if !outcome.kept_by.is_empty() {
        grid.pair("kept alive by", Cell::text(count(outcome.kept_by.len(), "member"), Tone::Plain));
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::output::captured,
        clock::UnixMs,
        name::{InstanceId, PeerId},
        ops::outcome::{ContactView, RejectedView, Via},
    };

    fn outcome(status: RegisterStatus) -> RegisterOutcome {
        let peer = |n| PeerId::from_public_key([n; 32]);
        RegisterOutcome {
            status,
            aor: "sip:alice@p2psip.org".to_owned(),
            instance: InstanceId::of_key(&[1; 32]),
            gruu: "sip:alice@p2psip.org;gr=abc".to_owned(),
            sequence: 1_767_225_600_000,
            expires_at_ms: UnixMs(1_767_229_200_000),
            expires_in_ms: 3_600_000,
            contacts: vec![ContactView {
                uri: "sip:alice@192.0.2.9:5060".to_owned(),
                peer: None,
                addresses: Vec::new(),
                q: 1.0,
            }],
            via: Via::Socket,
            stored: vec![peer(1), peer(2)],
            refused: Vec::new(),
            silent: 1,
            read_back: 2,
            kept_by: vec![peer(3)],
            elapsed_ms: 12.0,
        }
    }

    fn refused(code: &str, untrusted: bool) -> RegisterOutcome {
        let mut outcome = outcome(RegisterStatus::Refused);
        outcome.refused = vec![RejectedView {
            peer: PeerId::from_public_key([4; 32]),
            code: code.to_owned(),
            reason: "the certificate does not name sip:alice@p2psip.org".to_owned(),
            untrusted,
        }];
        outcome
    }

    fn shown(options: &CommonArgs, outcome: &RegisterOutcome, is_first: bool) -> (String, String) {
        let (_, out, err) = captured(TOOL.name, options, |output| present(outcome, is_first, output));
        (out, err)
    }

    #[test]
    fn a_registration_is_listed_once_and_then_noted() {
        let (out, err) = shown(&CommonArgs::default(), &outcome(RegisterStatus::Registered), true);
        assert_eq!(
            out,
            "registered     sip:alice@p2psip.org\n\
             this device    sip:alice@p2psip.org;gr=abc\n\
             contacts       sip:alice@192.0.2.9:5060\n\
             expires in     1 h\n\
             stored         2 of 3 storers, read back from 2\n\
             kept alive by  1 member\n"
        );
        assert_eq!(err, "");
        let (out, err) = shown(&CommonArgs::default(), &outcome(RegisterStatus::Registered), false);
        assert_eq!((out.as_str(), err.as_str()), ("", "refreshed on 2 of 3 storers, read back from 2\n"));
    }

    #[test]
    fn scripts_get_the_uri_of_this_device() {
        let short = CommonArgs { short: true, ..CommonArgs::default() };
        let (out, _) = shown(&short, &outcome(RegisterStatus::Registered), true);
        assert_eq!(out, "sip:alice@p2psip.org;gr=abc\n");
    }

    #[test]
    fn a_refusal_for_lack_of_trust_has_a_code_of_its_own() {
        assert_eq!(exit_code(&outcome(RegisterStatus::Registered)), 0);
        assert_eq!(exit_code(&outcome(RegisterStatus::Removed)), 0);
        assert_eq!(exit_code(&outcome(RegisterStatus::NobodyToAsk)), 3);
        assert_eq!(exit_code(&refused("store-full", false)), 1);
        assert_eq!(exit_code(&refused("not-named", true)), 4);
        let (out, err) = shown(&CommonArgs::default(), &refused("not-named", true), true);
        assert_eq!(out, "");
        assert_eq!(
            err,
            "p2p-register: sip:alice@p2psip.org: refused: the certificate does not name sip:alice@p2psip.org\n"
        );
    }
}
