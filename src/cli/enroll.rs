//! `p2p-enroll`: make an overlay, and certify who is who in it. Works on files; asks nobody.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use serde::Serialize;

use super::{
    args::{CommonArgs, HomeArgs},
    check,
    io::{Env, Io},
    output::{
        Format, Output, count, date,
        error::{Failure, Stop},
        peer_name, shortened,
        table::{Cell, Grid, Tone},
    },
    settings::{self, Settings},
    tool::{self, Example, Tool, ToolArgs},
};
use crate::{
    clock::UnixMs,
    dns::{DescriptorPointer, descriptor_owner},
    identity::Policy,
    kind::Kind,
    name::ResourceName,
    ops::enroll::{
        self, InitOptions, InitOutcome, InstallOutcome, Installed, IssueOptions, IssueOutcome, Item, RequestOutcome,
        RevokeOutcome, ShowOutcome, Shown, Standing,
    },
};

/// `p2p-enroll` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-enroll",
    description: &[
        "Makes an overlay: its descriptor, which every member needs, and its CA, which certifies who may speak for \
         which user or service. All of it works on files and asks nobody.",
        "A certificate takes three steps: the member makes a request, which never contains a private key; the holder \
         of the CA issues the certificate; the member installs it, with the overlay's descriptor. On one machine, \
         issue --into does the last step as well.",
        "A revocation list names the certificates that the CA has taken back. Install it in the home of a member: it \
         notices the list within seconds, and members pass newer lists on to each other.",
    ],
    exits: &[(0, "done"), (2, "wrong usage"), (4, "shown or installed is not to be trusted"), (5, "local failure")],
    examples: &[
        Example { line: "p2p-enroll init p2psip.org --home ca", does: "an overlay, and its CA" },
        Example { line: "p2p-enroll request sip:alice@p2psip.org --out alice.csr", does: "on Alice's device" },
        Example { line: "p2p-enroll issue alice.csr --home ca --out alice.pem", does: "where the CA is" },
        Example { line: "p2p-enroll install alice.pem ca/descriptor.toml", does: "on Alice's device" },
        Example { line: "p2p-enroll revoke sip:alice@p2psip.org --home ca", does: "take it back" },
    ],
    bare: Args::command,
};

/// Make a P2PSIP overlay and certify its users and services
#[derive(Debug, Parser)]
#[command(name = TOOL.name, subcommand_value_name = "COMMAND", arg_required_else_help = false)]
struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    home: HomeArgs,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an overlay: its descriptor and its CA, in the home
    Init {
        /// The overlay's identifier: its domain name [env: P2PSIP_OVERLAY]
        #[arg(value_name = "OVERLAY")]
        overlay: Option<String>,

        /// Believe whoever signs; without it, only whom the CA certifies
        #[arg(long)]
        open: bool,

        /// The overlay is purely local: its name need not be a domain name
        #[arg(long)]
        local: bool,

        /// Keep each record on N storers [default: 8]
        #[arg(long, value_name = "N")]
        replication: Option<u8>,

        /// Let records hold for at most S seconds [default: 86400]
        #[arg(long, value_name = "S")]
        max_lifetime: Option<u32>,
    },
    /// Ask for a certificate for users of this device, or for services of this peer
    Request {
        /// Users (sip:USER@OVERLAY) or services (sip:, turn:, teredo: or gatekeeper:OVERLAY) [env: P2PSIP_AOR]
        #[arg(value_name = "URI")]
        uris: Vec<String>,

        /// Write the request here, instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Issue certificates for requests, with the CA in the home
    Issue {
        /// Files with requests
        #[arg(value_name = "FILE", required = true)]
        requests: Vec<PathBuf>,

        /// Certify this name instead of those asked for; repeat for several
        #[arg(long, value_name = "URI")]
        name: Vec<String>,

        /// Days for which the certificates are valid
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = check::number(0..=36_500_u32))]
        days: u32,

        /// Write the certificates here, instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,

        /// Install them in this home, with the overlay's descriptor
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Put certificates, a descriptor or a revocation list into the home
    Install {
        /// Files with any of them
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,

        /// Take a descriptor that differs from the home's
        #[arg(long)]
        replace: bool,
    },
    /// Show what files and homes hold, and whether to trust it
    Show {
        /// Files or homes; without any, the home
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Take certificates back, with the CA in the home
    Revoke {
        /// A user or service (all its certificates), a serial number, or a file with certificates
        #[arg(value_name = "TARGET", required = true)]
        targets: Vec<String>,
    },
}

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// Runs `p2p-enroll` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-enroll` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let settings = Settings::read(&args.home, env)?;
        execute(args.command, &settings, output)
    })
}

fn execute(command: Command, settings: &Settings, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    let now = UnixMs::now();
    let home = settings.home()?;
    match command {
        Command::Init { overlay, open, local, replication, max_lifetime } => {
            let overlay = settings.overlay(overlay.as_deref(), None)?;
            let overlay = overlay.ok_or_else(|| Failure::usage("no overlay: name one, as in p2psip.org"))?.value;
            let options = InitOptions {
                policy: if open { Policy::Open } else { Policy::Enrolled },
                local: settings.local(local),
                replication,
                max_lifetime_s: max_lifetime,
                ..InitOptions::new(overlay)
            };
            initialised(&enroll::init(&home, &options, now)?, output)
        }
        Command::Request { uris, out } => {
            let names = match (names("URI", &uris)?, settings.aor(None)) {
                (names, _) if !names.is_empty() => names,
                (_, aor) => aor?.map(|aor| ResourceName::User(aor.value)).into_iter().collect(),
            };
            requested(&enroll::request(&home, &names, out.as_deref())?, output)
        }
        Command::Issue { requests, name, days, out, into } => {
            let names = names("--name", &name)?;
            let options = IssueOptions {
                names: (!names.is_empty()).then_some(names),
                lifetime: Duration::from_secs(u64::from(days) * 86_400),
                out,
                into,
                ..IssueOptions::new(requests)
            };
            issued(&enroll::issue(&home, &options, now)?, output)
        }
        Command::Install { files, replace } => installed(&enroll::install(&home, &files, replace, now)?, output),
        Command::Show { paths } => {
            let paths = if paths.is_empty() { vec![home.clone()] } else { paths };
            // Files are held against the home's descriptor, if there is a home.
            let against = home.is_dir().then_some(home.as_path());
            shown(&enroll::show(&paths, against, now)?, output)
        }
        Command::Revoke { targets } => revoked(&enroll::revoke(&home, &targets, now)?, output),
    }
}

fn names(origin: &str, texts: &[String]) -> Result<Vec<ResourceName>, Failure> {
    let parse = |text: &String| settings::option(origin, text, check::resource_name);
    texts.iter().map(parse).collect::<Result<_, _>>().map_err(Failure::from)
}

/// An outcome with the word that `--json` promises.
#[derive(Debug, Serialize)]
struct WithStatus<'a, T> {
    status: &'static str,
    #[serde(flatten)]
    outcome: &'a T,
}

fn json<T: Serialize>(status: &'static str, outcome: &T, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    output.json(&WithStatus { status, outcome }).map(|()| 0)
}

fn initialised(outcome: &InitOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    match output.format() {
        Format::Json => return json("created", outcome, output),
        Format::Short => return output.line(&outcome.hash.to_string()).map(|()| 0),
        Format::Table => {}
    }
    let mut grid = Grid::of_pairs();
    grid.pair("created", Cell::text(outcome.overlay.to_string(), Tone::Subject));
    grid.pair("policy", Cell::text(outcome.policy.to_string(), Tone::Plain));
    grid.pair("descriptor", Cell::text(outcome.descriptor.display().to_string(), Tone::Plain));
    if let (Some(key), Some(until)) = (&outcome.ca_key, outcome.ca_not_after_ms) {
        grid.pair("CA key", Cell::text(key.display().to_string(), Tone::Plain));
        grid.pair("CA valid until", Cell::text(date(until), Tone::Plain));
    }
    output.table(&grid)?;
    output.note("Every member needs the descriptor; the CA key stays here.");
    if !outcome.local
        && let Ok(owner) = descriptor_owner(&outcome.overlay)
    {
        let pointer = DescriptorPointer { hash: outcome.hash, policy: Some(outcome.policy) };
        output.note(&format!("To let the DNS vouch for it: {owner}. TXT \"{pointer}\""));
    }
    Ok(0)
}

fn requested(outcome: &RequestOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    if output.format() == Format::Json {
        return json("requested", outcome, output);
    }
    match &outcome.file {
        None => output.text(&outcome.pem)?,
        Some(file) => output.line(&file.display().to_string())?,
    }
    output.note(&format!("Asks for {}; have it issued: p2p-enroll issue FILE", list(&outcome.names)));
    Ok(0)
}

fn issued(outcome: &IssueOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    if output.format() == Format::Json {
        return json("issued", outcome, output);
    }
    match (&outcome.file, &outcome.installed_in) {
        (None, None) => {
            for certificate in &outcome.certificates {
                output.text(&certificate.pem)?;
            }
        }
        (file, home) => {
            for path in [file, home].into_iter().flatten() {
                output.line(&path.display().to_string())?;
            }
        }
    }
    for certificate in &outcome.certificates {
        let (serial, until) = (&certificate.serial, date(certificate.not_after_ms));
        output.note(&format!("Certificate {serial} for {}, valid until {until}", list(&certificate.names)));
    }
    Ok(0)
}

fn installed(outcome: &InstallOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    match output.format() {
        Format::Json => return json("installed", outcome, output),
        Format::Short => {
            for item in &outcome.installed {
                output.line(&match item {
                    Installed::Descriptor { hash, .. } => hash.to_string(),
                    Installed::Revocations { sequence, .. } => sequence.to_string(),
                    Installed::Certificate { serial, .. } => serial.clone(),
                })?;
            }
            return Ok(0);
        }
        Format::Table => {}
    }
    let mut grid = Grid::with_header(&["INSTALLED", "FOR", "DETAIL"]);
    for item in &outcome.installed {
        let changed = |changed: bool| if changed { "" } else { ", as before" };
        let (what, whom, detail) = match item {
            Installed::Descriptor { overlay, hash, changed: is_new } => {
                ("descriptor", vec![overlay.to_string()], format!("{}{}", hash.short(), changed(*is_new)))
            }
            Installed::Revocations { revoked, changed: is_new, .. } => {
                let detail = format!("{} revoked{}", count(*revoked, "certificate"), changed(*is_new));
                ("revocation list", Vec::new(), detail)
            }
            Installed::Certificate { serial, names, not_after_ms, .. } => {
                ("certificate", texts(names), format!("{}, until {}", shortened(serial, 8), date(*not_after_ms)))
            }
        };
        grid.row([Cell::text(what, Tone::Subject), Cell::lines(whom, Tone::Plain), Cell::text(detail, Tone::Plain)]);
    }
    output.table(&grid)?;
    Ok(0)
}

fn revoked(outcome: &RevokeOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    match output.format() {
        Format::Json => return json("revoked", outcome, output),
        Format::Short => return output.line(&outcome.file.display().to_string()).map(|()| 0),
        Format::Table => {}
    }
    let mut grid = Grid::with_header(&["REVOKED", "FOR", ""]);
    for revoked in &outcome.revoked {
        let before = if revoked.before { "revoked before" } else { "" };
        grid.row([
            Cell::text(&revoked.serial, Tone::Subject),
            Cell::lines(texts(&revoked.names), Tone::Plain),
            Cell::text(before, Tone::Faint),
        ]);
    }
    output.table(&grid)?;
    output.note(&format!("Install the list in a member's home: p2p-enroll install {}", outcome.file.display()));
    Ok(0)
}

/// Prints what was found; what is not to be trusted shows in the exit code.
fn shown(outcome: &ShowOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    match output.format() {
        Format::Json => {
            json("shown", outcome, output)?;
        }
        Format::Short => {
            for shown in &outcome.items {
                output.line(&identifier(&shown.item))?;
            }
        }
        Format::Table => {
            let mut grid = Grid::with_header(&["FILE", "HOLDS", "FOR", "STANDING"]);
            for shown in &outcome.items {
                let (holds, whom) = summary(shown);
                grid.row([
                    Cell::text(shortened(&file_name(&shown.file), 20), Tone::Subject),
                    Cell::lines(holds, Tone::Plain),
                    Cell::lines(whom, Tone::Plain),
                    standing(&shown.item).map_or(Cell::text("", Tone::Plain), |standing| match standing {
                        Standing::Good => Cell::text("good", Tone::Good),
                        Standing::Unchecked => Cell::text("not checked", Tone::Faint),
                        Standing::Bad { why } => Cell::text(why, Tone::Warning),
                        Standing::Revoked { at_ms } => Cell::text(format!("revoked {}", date(*at_ms)), Tone::Warning),
                    }),
                ]);
            }
            if outcome.items.is_empty() {
                output.note(
                    "nothing is in this home yet; p2p-enroll init begins an overlay, p2p-enroll request a device",
                );
            } else {
                output.table(&grid)?;
            }
        }
    }
    let trusted = outcome
        .items
        .iter()
        .all(|shown| !matches!(standing(&shown.item), Some(Standing::Bad { .. } | Standing::Revoked { .. })));
    Ok(if trusted { 0 } else { Kind::Untrusted.exit_code() })
}

const fn standing(item: &Item) -> Option<&Standing> {
    match item {
        Item::Certificate { standing, .. } | Item::Revocations { standing, .. } => Some(standing),
        Item::Request { .. } | Item::Descriptor { .. } | Item::PrivateKey { .. } => None,
    }
}

/// What a script would want to know of an item.
fn identifier(item: &Item) -> String {
    match item {
        Item::Certificate { serial, .. } => serial.clone(),
        Item::Request { public_key, .. } | Item::PrivateKey { public_key, .. } => public_key.to_string(),
        Item::Descriptor { hash, .. } => hash.to_string(),
        Item::Revocations { sequence, .. } => sequence.to_string(),
    }
}

/// What an item is, and for whom.
fn summary(shown: &Shown) -> (Vec<String>, Vec<String>) {
    match &shown.item {
        Item::Certificate { serial, ca, subject, names, not_after_ms, .. } => {
            let what = if *ca { "CA certificate" } else { "certificate" };
            let holds = vec![format!("{what} {}", shortened(serial, 8)), format!("until {}", date(*not_after_ms))];
            (holds, if *ca { vec![subject.clone()] } else { texts(names) })
        }
        Item::Request { names, .. } => (vec!["certificate request".to_owned()], texts(names)),
        Item::Descriptor { overlay, local, policy, hash, .. } => {
            let scope = if *local { ", local" } else { "" };
            (vec![format!("descriptor {}", hash.short()), format!("policy {policy}{scope}")], vec![overlay.to_string()])
        }
        Item::Revocations { overlay, issued_ms, serials, .. } => {
            let revoked = format!("{} revoked", count(serials.len(), "certificate"));
            (vec![format!("revocation list of {}", date(*issued_ms)), revoked], vec![overlay.to_string()])
        }
        Item::PrivateKey { instance, peer, public_key } => {
            // A home has two keys, and each names something; any other key is only itself.
            let whom = match file_name(&shown.file).as_str() {
                "instance.key" => format!("instance {}", shortened(&instance.to_string(), 8)),
                "peer.key" => format!("peer {}", peer_name(peer)),
                _ => format!("public key {}", shortened(&public_key.to_string(), 8)),
            };
            (vec!["private key".to_owned()], vec![whom])
        }
    }
}

fn texts(names: &[ResourceName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn list(names: &[ResourceName]) -> String {
    texts(names).join(", ")
}

/// A path as short as it stays clear: homes have few files.
fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
