//! `p2p-publish`: proxy peers in the DNS.

mod show;

use std::{ffi::OsString, net::IpAddr, path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use self::show::Done;
use super::{
    args::{CommonArgs, OverlayArgs},
    check,
    io::{Env, Io},
    output::error::Failure,
    runtime::Run,
    settings::{self, Settings},
    tool::{self, Example, Tool, ToolArgs},
};
use crate::{
    dns::publish::Transport,
    ops::{
        Access, OpsError,
        publish::{self, AddRequest, Desk},
    },
};

/// How long a lease is unless told otherwise, in seconds.
const LEASE: u32 = 3600;

/// `p2p-publish` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-publish",
    description: &[
        "Enters proxy peers into the DNS, so that the outside finds the overlay by RFC 3263, and takes them out again: by RFC 2136 UPDATE, signed with a TSIG key (RFC 8945) as tsig-keygen writes it.",
        "A proxy peer NAME has these records below the overlay identifier: its addresses, SRV for each transport, the NAPTR rules that lead there, its addresses at the identifier itself if it is on the default ports, _dnsaddr TXT if it is a member that can be joined through, and a lease at _lease.NAME. All of them are written in one update that is conditional on the lease, so several publishers never overwrite each other. What was written is read back; if the server has dropped a part of it, the rest is taken back.",
        "A lease that is not renewed by another add is over, and the next sync takes the records out. Removal leaves a tombstone in the lease for 21 minutes: until then a captured update could be sent again.",
        "list shows the proxy peers of DNS and overlay side by side and marks what differs. list --pending shows who waits at the gatekeeper on this machine (p2p-join --gatekeeper), and why. sync mends drift: it adds and renews what the overlay has, removes what it does not have, and leaves records without a lease alone.",
        "Without --server, the zone's primary server is the one that its SOA record names.",
    ],
    exits: &[
        (0, "done, or in step"),
        (1, "refused by the server, somebody else's, not there, or drift (list --check)"),
        (2, "wrong usage, no zone, or a key file that cannot be used"),
        (3, "no answer from the server, or nobody to ask in the overlay"),
        (4, "descriptor not to be trusted"),
        (5, "local failure"),
    ],
    examples: &[
        Example {
            line: "p2p-publish add --host proxy1 --address 192.0.2.1 --key gk.key",
            does: "on UDP and TCP, port 5060",
        },
        Example { line: "p2p-publish list --check", does: "exit 1 if DNS and overlay differ" },
        Example { line: "p2p-publish sync --key gk.key --dry-run", does: "what would be sent, for nsupdate" },
        Example { line: "p2p-publish remove --host proxy1 --key gk.key", does: "take it out" },
    ],
    bare: Args::command,
};

/// Publish the proxy peers of a P2PSIP overlay in the DNS
#[derive(Debug, Parser)]
#[command(name = TOOL.name, subcommand_value_name = "COMMAND", arg_required_else_help = false)]
struct Args {
    #[command(subcommand)]
    command: Command,

    /// Primary name server of the zone, ADDR or ADDR:PORT
    #[arg(long, value_name = "ADDR", global = true)]
    server: Option<String>,

    #[command(flatten)]
    shared: OverlayArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish a proxy peer, or renew and change what is published
    Add {
        #[command(flatten)]
        proxy: ProxyArgs,

        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Take a proxy peer out of the DNS
    Remove {
        /// Its host name; one label is below the overlay identifier
        #[arg(long, value_name = "NAME")]
        host: String,

        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show the proxy peers of DNS and overlay side by side
    List {
        /// Exit 1 if they differ
        #[arg(long)]
        check: bool,

        /// Do not ask the overlay
        #[arg(long)]
        dns_only: bool,

        /// Show instead who waits at the gatekeeper on this machine, and why
        #[arg(long, conflicts_with_all = ["check", "dns_only"])]
        pending: bool,
    },
    /// Make the DNS say what the overlay says
    Sync {
        /// Seconds for which the records stay without being renewed
        #[arg(long, value_name = "S", default_value_t = LEASE, value_parser = check::number(0..=u32::MAX))]
        lease: u32,

        /// Do not ask the overlay: only take out what has a lease that is over
        #[arg(long)]
        dns_only: bool,

        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Print lines for a zone that is written by hand: of one proxy peer, or of all that the overlay has
    Export {
        #[command(flatten)]
        proxy: OptionalProxyArgs,

        /// Print what nobody outside can reach, too
        #[arg(long)]
        force: bool,
    },
}

/// What changes the zone.
#[derive(Debug, clap::Args)]
struct ChangeArgs {
    /// File with the TSIG key, as tsig-keygen writes it, of mode 0600
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Publish private addresses, too, and take over what is somebody else's
    #[arg(long)]
    force: bool,

    /// Send nothing; print the script with which nsupdate would do it
    #[arg(long)]
    dry_run: bool,
}

/// A proxy peer.
#[derive(Debug, clap::Args)]
struct ProxyArgs {
    /// Its host name; one label is below the overlay identifier
    #[arg(long, value_name = "NAME")]
    host: String,

    /// Its address; repeat for several
    #[arg(long, value_name = "IP", required = true, value_parser = check::ip_address)]
    address: Vec<IpAddr>,

    #[command(flatten)]
    more: MoreArgs,
}

/// A proxy peer, perhaps.
#[derive(Debug, clap::Args)]
struct OptionalProxyArgs {
    /// Its host name; one label is below the overlay identifier
    #[arg(long, value_name = "NAME", requires = "address")]
    host: Option<String>,

    /// Its address; repeat for several
    #[arg(long, value_name = "IP", requires = "host", value_parser = check::ip_address)]
    address: Vec<IpAddr>,

    #[command(flatten)]
    more: MoreArgs,
}

/// How a proxy peer is reached, and for how long.
#[derive(Debug, clap::Args)]
struct MoreArgs {
    /// Its transport, udp, tcp or tls, or TRANSPORT:PORT; repeat for several [default: udp and tcp]. tls takes a
    /// certificate for the overlay identifier
    #[arg(long, value_name = "T")]
    transport: Vec<String>,

    /// Port of the transports that have none of their own [default: 5060, with tls 5061]
    #[arg(long, value_name = "PORT", value_parser = check::number(1..=u16::MAX))]
    port: Option<u16>,

    /// Seconds for which caches may keep the records: at most 30, and half of the lease [default: as many]
    #[arg(long, value_name = "S", value_parser = check::number(0..=u32::MAX))]
    ttl: Option<u32>,

    /// Seconds for which the records stay without being renewed
    #[arg(long, value_name = "S", default_value_t = LEASE, value_parser = check::number(0..=u32::MAX))]
    lease: u32,

    /// Where it can be dialled as a member, ending in /p2p/PEER; repeat for several
    #[arg(long, value_name = "MULTIADDR")]
    dnsaddr: Vec<String>,
}

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.shared.common
    }
}

/// Runs `p2p-publish` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-publish` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let access = Settings::read(&args.shared.home, env)?.access(&args.shared.access, None)?;
        let server = args.server.as_deref().map(|text| settings::option("--server", text, check::dns_server));
        let desk = Desk { server: server.transpose()?, ..Desk::default() };
        let work = Work::new(args.command, desk)?;
        let run = Run::new(output, || "asking the name server".to_owned());
        let done = run.one_shot(work.run(&access))??;
        done.present(output)
    })
}

/// A command whose values have been checked.
enum Work {
    Add(Desk, AddRequest, bool),
    Remove(Desk, String, bool),
    List(Desk, bool, bool),
    Pending,
    Sync(Desk, u32, bool, bool),
    Export(Desk, Option<AddRequest>),
}

impl Work {
    fn new(command: Command, desk: Desk) -> Result<Self, Failure> {
        let with = |change: &ChangeArgs, desk: Desk| Desk { key: change.key.clone(), force: change.force, ..desk };
        Ok(match command {
            Command::Add { proxy, change } => {
                let request = request(proxy.host, proxy.address, proxy.more)?;
                Self::Add(with(&change, desk), request, change.dry_run)
            }
            Command::Remove { host, change } => Self::Remove(with(&change, desk), host, change.dry_run),
            Command::List { pending: true, .. } => Self::Pending,
            Command::List { check, dns_only, .. } => Self::List(desk, dns_only, check),
            Command::Sync { lease, dns_only, change } => {
                if !crate::dns::publish::LEASES.contains(&lease) {
                    return Err(Failure::usage("--lease has to be 2 to 604800 seconds"));
                }
                Self::Sync(with(&change, desk), lease, dns_only, change.dry_run)
            }
            Command::Export { proxy, force } => {
                let request = proxy.host.map(|host| request(host, proxy.address, proxy.more)).transpose()?;
                Self::Export(Desk { force, ..desk }, request)
            }
        })
    }

    async fn run(self, access: &Access) -> Result<Done, OpsError> {
        Ok(match self {
            Self::Add(desk, request, dry_run) => Done::Changed(publish::add(access, &desk, &request, dry_run).await?),
            Self::Remove(desk, host, dry_run) => Done::Changed(publish::remove(access, &desk, &host, dry_run).await?),
            Self::List(desk, dns_only, check) => Done::Listed(publish::list(access, &desk, dns_only).await?, check),
            Self::Pending => Done::Pending(publish::pending(access).await?),
            Self::Sync(desk, lease, dns_only, dry_run) => {
                Done::Synced(publish::sync(access, &desk, lease, dns_only, dry_run).await?)
            }
            Self::Export(desk, request) => Done::Exported(publish::export(access, &desk, request.as_ref()).await?),
        })
    }
}

fn request(host: String, addresses: Vec<IpAddr>, more: MoreArgs) -> Result<AddRequest, Failure> {
    let mut endpoints = Vec::new();
    let transports = if more.transport.is_empty() { vec!["udp".to_owned(), "tcp".to_owned()] } else { more.transport };
    for text in &transports {
        endpoints.push(settings::option("--transport", text, |text| endpoint(text, more.port))?);
    }
    let MoreArgs { ttl, lease, dnsaddr, .. } = more;
    Ok(AddRequest { host, addresses, endpoints, ttl, lease, dnsaddr })
}

/// `TRANSPORT` or `TRANSPORT:PORT`.
fn endpoint(text: &str, port: Option<u16>) -> Result<(Transport, u16), String> {
    let (name, own) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let transport = Transport::named(&name.to_ascii_lowercase());
    let transport = transport.ok_or_else(|| format!("'{name}' is not udp, tcp or tls"))?;
    let own = own.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(port));
    match own.transpose() {
        Ok(own) => Ok((transport, own.or(port).unwrap_or_else(|| transport.default_port()))),
        Err(port) => Err(format!("'{port}' is not a port; write one like udp:5060")),
    }
}
