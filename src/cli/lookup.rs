//! `p2p-lookup`: where users and services of an overlay are, and where the servers of other SIP domains are.

mod show;
mod trace;
mod uris;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser, ValueEnum};

pub(super) use self::show::{contact_lines, present};
use self::uris::Uris;
use super::{
    args::{CommonArgs, OverlayArgs},
    io::{Env, Io},
    locate,
    output::{
        Format, Output,
        error::{Failure, Stop},
    },
    runtime::Run,
    settings::Settings,
    tool::{self, Example, Tool, ToolArgs},
};
use crate::{
    name::{InstanceId, ResourceName, Service},
    ops::{
        Access, OpsError, ViaChoice,
        locate::{Locations, Scope, Subject, expected},
        lookup::Lookups,
        outcome::{LocateOutcome, LookupOutcome},
        pin,
    },
};

/// `p2p-lookup` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-lookup",
    description: &[
        "Asks the overlay for the records of each URI and prints those that are verified: a user's instances with their contacts, or the peers that offer a service with their endpoints.",
        "It asks the member that runs on this machine, else a remote member, else the storers themselves; --via chooses. \"Not found\" is only said when most of the storers that would have it say so; fewer is \"nobody to ask\".",
        "A URI whose records are forged, expired or revoked is \"found but not to be trusted\": --short then prints nothing, so that a script cannot act on it.",
        "A URI of another domain is located as RFC 3263 says: by NAPTR, SRV and addresses. What was asked, who answered what, each rule that was applied and each record that was passed over are shown, and then the targets in the order in which a request tries them. A name is an overlay's if that is configured or is the one of the member on this machine, or if the domain publishes _p2psip or _dnsaddr records; --as decides it by hand.",
        "The proxy peers (sip:OVERLAY) are looked up in the DNS as well, where others find them, and the two lists are compared.",
        "--trace shows a walk as a tree: each peer asked stands under the one that told of it, with the path and the hop, the bits that its position has in common with the name's, and each record it holds by instance and sequence. Such a walk asks every storer. A record older than another storer's is \"stale\", one that a storer does not have is \"withheld\", and one newer than most storers have is \"newer\".",
    ],
    exits: &[
        (0, "found"),
        (1, "not found"),
        (2, "wrong usage"),
        (3, "nobody to ask"),
        (4, "found but not to be trusted"),
        (5, "local failure"),
    ],
    examples: &[
        Example { line: "p2p-lookup sip:alice@p2psip.org", does: "where Alice can be reached" },
        Example { line: "p2p-lookup sips:bob@example.com", does: "which servers a call to Bob would try, and why" },
        Example { line: "p2p-lookup --short sip:p2psip.org", does: "the proxy peers' endpoints, one a line" },
        Example { line: "p2p-lookup --trace sip:alice@p2psip.org", does: "whom it asks, and what each one holds" },
        Example { line: "p2p-lookup --json - < uris.txt", does: "many URIs over one connection" },
    ],
    bare: Args::command,
};

/// Look users and services up in a P2PSIP overlay, and servers of other SIP domains
#[derive(Debug, Parser)]
#[command(name = TOOL.name)]
struct Args {
    /// A user (sip:USER@OVERLAY), the proxy peers (sip:OVERLAY) or the relay agent peers (turn: or
    /// teredo:OVERLAY), or any other SIP URI, whose servers are looked for in the DNS; - reads URIs from standard input. Of several, the highest exit code counts
    #[arg(value_name = "URI", required = true)]
    uris: Vec<String>,

    /// Whom to ask: the member on this machine (socket), a remote one (peer), the storers (walk), or auto
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true
    )]
    via: ViaArg,

    /// Take the URI for an overlay's name (overlay) or for another domain's (public), or find out (auto)
    #[arg(
        long = "as",
        value_name = "WHAT",
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true
    )]
    scope: ScopeArg,

    /// Walk, ask every storer, and show each request: whom, told of by whom, how long, what it holds, who disagrees
    #[arg(long, conflicts_with = "short")]
    trace: bool,

    /// Believe only this device's key for the URI from now on, and other pinned ones (for overlays of policy open)
    #[arg(long, value_name = "INSTANCE")]
    pin: Option<InstanceId>,

    #[command(flatten)]
    shared: OverlayArgs,
}

/// `--via`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum ViaArg {
    /// The best of what there is.
    #[default]
    Auto,
    /// Only the member on this machine.
    Socket,
    /// Only a remote member.
    Peer,
    /// Only a walk of its own.
    Walk,
}

/// `--as`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum ScopeArg {
    /// Whatever it is.
    #[default]
    Auto,
    /// A name in an overlay.
    Overlay,
    /// A SIP URI of another domain.
    Public,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Auto => Self::Auto,
            ScopeArg::Overlay => Self::Overlay,
            ScopeArg::Public => Self::Public,
        }
    }
}

impl From<ViaArg> for ViaChoice {
    fn from(via: ViaArg) -> Self {
        match via {
            ViaArg::Auto => Self::Auto,
            ViaArg::Socket => Self::Socket,
            ViaArg::Peer => Self::Peer,
            ViaArg::Walk => Self::Walk,
        }
    }
}

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.shared.common
    }
}

/// Runs `p2p-lookup` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-lookup` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let access = Settings::read(&args.shared.home, env)?.access(&args.shared.access, None)?;
        let inside = args.via != ViaArg::Auto || args.trace || args.pin.is_some();
        let scope = match args.scope {
            ScopeArg::Public if inside => {
                return Err(Failure::usage("--via, --trace and --pin only go with names of an overlay").into());
            }
            // Whoever says how to ask an overlay means one.
            ScopeArg::Auto if inside => Scope::Overlay,
            scope => scope.into(),
        };
        let uris = Uris::new(&args.uris, scope, output)?;
        if args.trace && matches!(args.via, ViaArg::Socket | ViaArg::Peer) {
            return Err(Failure::usage("--trace shows a walk of its own, and only goes with --via walk").into());
        }
        let via = args.via.into();
        let pin = args.pin.map(|instance| uris.only().map(|name| (name, instance))).transpose()?;
        // Each URI says for itself what is being done.
        Run::new(output, String::new).one_shot(async {
            if let Some((name, instance)) = pin {
                pin::pin(&access, &name, &instance, via).await?;
            }
            look_up_all(access, via, args.trace, uris, output).await
        })?
    })
}

/// Looks every URI up over one connection; the code is the highest of theirs.
async fn look_up_all(
    access: Access,
    via: ViaChoice,
    traced: bool,
    mut uris: Uris,
    output: &mut Output<'_, '_>,
) -> Result<u8, Stop> {
    let several = uris.are_several();
    let progress = output.progress();
    let mut tool = LookUp { locations: Locations::new(&access), access, via, traced, attached: None };
    let mut worst = 0;
    while let Some(subject) = uris.next().await {
        let subject = match subject {
            Ok(subject) => subject,
            Err(failure) => {
                output.failure(&failure)?;
                worst = worst.max(failure.kind().exit_code());
                continue;
            }
        };
        progress.doing(|| format!("looking up {}", subject.text()));
        let code = match tool.look_up(&subject, output.format() != Format::Short).await {
            Ok(Outcome::Overlay(outcome)) => present(&outcome, several, output)?,
            Ok(Outcome::Public(outcome)) => locate::present(&outcome, several, output)?,
            Err(Error::Lost(error)) => return Err(error.into()),
            Err(Error::Failed(error)) => {
                let failure = Failure::from(error);
                let code = failure.kind().exit_code();
                output.failure(&if several { failure.about(subject.text()) } else { failure })?;
                code
            }
        };
        worst = worst.max(code);
    }
    Ok(worst)
}

/// What is looked up with: each way is opened when the first URI needs it.
struct LookUp {
    access: Access,
    via: ViaChoice,
    traced: bool,
    locations: Locations,
    attached: Option<Lookups>,
}

enum Outcome {
    Overlay(Box<LookupOutcome>),
    Public(LocateOutcome),
}

enum Error {
    /// There is no way into the overlay, so there is none for the other URIs.
    Lost(OpsError),
    /// It concerns this URI.
    Failed(OpsError),
}

impl LookUp {
    async fn look_up(&mut self, subject: &Subject, compares: bool) -> Result<Outcome, Error> {
        let name = match subject {
            Subject::Overlay(name) => name,
            Subject::Public(uri) => {
                return self.locations.locate(uri).await.map(Outcome::Public).map_err(Error::Failed);
            }
            Subject::Open { name, uri } => match self.locations.settle(name, uri).await.map_err(Error::Failed)? {
                Some(outcome) => return Ok(Outcome::Public(outcome)),
                None => name,
            },
        };
        let lookups = match &mut self.attached {
            Some(lookups) => lookups,
            None => {
                // The overlay goes without saying if the first URI names it.
                self.access.overlay.get_or_insert_with(|| name.overlay().clone());
                let attached = if self.traced {
                    Lookups::attach_traced(&self.access).await
                } else {
                    Lookups::attach(&self.access, self.via, name).await
                };
                self.attached.insert(attached.map_err(Error::Lost)?)
            }
        };
        let is_proxies = matches!(name, ResourceName::Service(uri) if uri.service() == Service::Proxy);
        let outcome = if is_proxies && compares {
            let endpoints = |found: &Result<LookupOutcome, OpsError>| found.as_ref().map(endpoints).unwrap_or_default();
            let (found, public) = self.locations.compare(name.overlay(), lookups.lookup(name), endpoints).await;
            found.map(|outcome| LookupOutcome { public, ..outcome })
        } else {
            lookups.lookup(name).await
        };
        outcome.map(|outcome| Outcome::Overlay(Box::new(outcome))).map_err(Error::Failed)
    }
}

/// Where the providers of a service listen that take new users.
fn endpoints(outcome: &LookupOutcome) -> Vec<String> {
    let offers = outcome.records.iter().filter_map(|record| record.offer.as_ref());
    expected(offers.map(|offer| (offer.serving, offer.endpoints.as_slice())))
}
