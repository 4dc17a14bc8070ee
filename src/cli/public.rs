//! What `p2p-register --public` asks for and prints.

use super::{
    io::Env,
    output::{
        Format, Output,
        error::Stop,
        milliseconds, peer_name, short_peers, span,
        table::{Cell, Grid, Tone},
    },
    password,
    runtime::{Run, Threads, reporting},
};
use crate::{
    kind::Kind,
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
    let run = Run::new(output, || format!("registering {} at {}", request.aor, request.public));
    let mut code = None;
    let print = |report: PublicReport| match report {
        PublicReport::Step(step) => {
            output.progress().doing(|| format!("{}: {}", word(step.step), step.result));
            Ok(())
        }
        PublicReport::Lost => {
            output.warn("the proxy peer is gone; looking for another one");
            Ok(())
        }
        PublicReport::Outcome(outcome) => {
            let is_first = code.replace(outcome.kind().map_or(0, Kind::exit_code)).is_none();
            present(&outcome, is_first, output)
        }
    };
    let stayed = run.stay(Threads::One, |ending| {
        reporting(ending, print, async |report, ending| register_public(access, request, report, ending.begun()).await)
    })?;
    stayed.exit(code)
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
        let proxy = outcome.proxy.map(|peer| format!(" through {}", peer_name(&peer))).unwrap_or_default();
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
        grid.pair("outbound proxy", Cell::text(peer_name(&proxy), Tone::Plain));
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
            Cell::text(short_peers(&step.result), Tone::Faint),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{args::CommonArgs, output::captured},
        name::PeerId,
    };

    fn outcome(status: PublicStatus) -> PublicOutcome {
        let step = |step, result: &str, took_ms| StepOutcome { step, result: result.to_owned(), took_ms };
        PublicOutcome {
            status,
            aor: "sip:alice@example.org".to_owned(),
            contact: "sip:alice@p2psip.org".to_owned(),
            registrar: "sip:example.org".to_owned(),
            proxy: None,
            code: None,
            reason: None,
            realm: None,
            algorithm: None,
            challenges: 0,
            expires_in_ms: None,
            shortened: false,
            bindings: vec!["sip:alice@p2psip.org".to_owned(), "sip:alice@192.0.2.7".to_owned()],
            redirected_to: None,
            other_devices: 2,
            again_in_ms: None,
            steps: vec![
                step(Step::OverlayRegistration, "stored by 5", 12.34),
                step(Step::ProxyLookup, "2 found", 3.0),
                step(Step::OutboundProxy, "12D3", 8.0),
                step(Step::Register, "bound", 20.0),
            ],
            elapsed_ms: 43.4,
        }
    }

    fn shown(options: &CommonArgs, outcome: &PublicOutcome, is_first: bool) -> (String, String) {
        let (_, out, err) = captured("p2p-register", options, |output| present(outcome, is_first, output));
        (out, err)
    }

    #[test]
    fn a_binding_is_listed_with_its_four_steps_and_then_noted() {
        let bound = PublicOutcome {
            proxy: Some(PeerId::from_public_key([1; 32])),
            realm: Some("example.org".to_owned()),
            algorithm: Some("SHA-256"),
            expires_in_ms: Some(3_600_000),
            ..outcome(PublicStatus::Registered)
        };
        let peer = peer_name(&PeerId::from_public_key([1; 32]));
        let (out, err) = shown(&CommonArgs::default(), &bound, true);
        assert_eq!(
            out,
            format!(
                "registered         sip:alice@example.org\n\
                 bound to           sip:alice@p2psip.org\n\
                 at                 sip:example.org\n\
                 outbound proxy     {peer}\n\
                 password asked by  example.org (SHA-256)\n\
                 expires in         1 h\n\
                 other bindings     sip:alice@192.0.2.7\n\
                 \n\
                 STEP                  TOOK     RESULT\n\
                 overlay registration  12.3 ms  stored by 5\n\
                 proxy peer lookup     3.0 ms   2 found\n\
                 outbound proxy        8.0 ms   12D3\n\
                 REGISTER              20.0 ms  bound\n"
            )
        );
        assert_eq!(err, "");
        let (out, err) = shown(&CommonArgs::default(), &bound, false);
        assert_eq!((out, err), (String::new(), format!("refreshed through {peer}, for 1 h\n")));
        let short = CommonArgs { short: true, ..CommonArgs::default() };
        assert_eq!(shown(&short, &bound, true).0, "sip:alice@p2psip.org\n");
    }

    #[test]
    fn what_went_wrong_is_a_line_on_standard_error_and_the_steps_remain() {
        let refused = PublicOutcome {
            code: Some(403),
            reason: Some("Not\x1b[2J Yours".to_owned()),
            ..outcome(PublicStatus::Refused)
        };
        let (out, err) = shown(&CommonArgs::default(), &refused, true);
        assert_eq!(err, "p2p-register: sip:alice@example.org: 403 Not\\u{1b}[2J Yours\n");
        assert!(out.contains("REGISTER"), "{out}");
        let down = PublicOutcome {
            reason: Some("no answer".to_owned()),
            again_in_ms: Some(2_000),
            ..outcome(PublicStatus::Unreachable)
        };
        let (out, err) = shown(&CommonArgs::default(), &down, false);
        assert_eq!(out, "");
        assert_eq!(err, "p2p-register: sip:alice@example.org: no answer; trying again in 2 s\n");
    }

    #[test]
    fn a_binding_that_others_need_is_said_to_be_kept() {
        let (out, _) = shown(&CommonArgs::default(), &outcome(PublicStatus::Kept), true);
        assert!(out.starts_with("kept       sip:alice@example.org\n"), "{out}");
        assert!(out.contains("needed by  2 other devices\n"), "{out}");
    }

    #[test]
    fn exit_codes_follow_from_the_outcome() {
        use PublicStatus::{Kept, LocalFailure, Refused, Registered, Removed, Unreachable, Untrusted};
        for (status, code) in [
            (Registered, 0),
            (Removed, 0),
            (Kept, 0),
            (Refused, 1),
            (Unreachable, 3),
            (Untrusted, 4),
            (LocalFailure, 5),
        ] {
            assert_eq!(outcome(status).kind().map_or(0, crate::kind::Kind::exit_code), code, "{status:?}");
        }
    }
}
