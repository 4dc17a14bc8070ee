//! `p2p-join`: be a member of an overlay, and stay.

use std::{ffi::OsString, net::IpAddr, path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser};

use super::{
    args::{CommonArgs, OverlayArgs},
    check, config, descriptors,
    io::{Env, Io},
    logging::LogFormat,
    output::{
        Format, Output, count,
        error::{Failure, Stop},
        shortened,
        table::{Cell, Grid, Tone},
    },
    runtime::{Run, Threads, reporting},
    service_manager,
    settings::{self, Settings},
    tool::{self, Example, Tool, ToolArgs},
};
use crate::ops::{
    join::{
        AdapterRequest, GATEKEEPER_TEMPLATE, JoinRequest, PHONES_TEMPLATE, ProxyRequest, ProxyTls, PublishRequest, join,
    },
    outcome::JoinOutcome,
};

/// `p2p-join` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-join",
    description: &[
        "Joins an overlay, or founds it if there is no other member, and stays: it takes part in routing, stores records of others, and serves the tools on this machine through a unix socket. It prints how it can be reached as soon as it is a member.",
        "The overlay is found through --peer, the configuration, or _dnsaddr records of its domain name in the DNS. What it is (policy, CA, limits) comes from its descriptor, whose hash must match what is pinned or published. With --local, without a descriptor and without --peer, it founds a new overlay of the policy open, in which any key may claim any name; p2p-enroll init makes one with a CA.",
        "A proxy peer (--proxy) asks a gatekeeper of the overlay to enter it into the DNS, renews its lease there, and leaves the DNS when it ends; what it says about that is what the DNS shows. The gatekeeper (--gatekeeper) holds the zone's key. It sends OPTIONS with a nonce to each address and transport, and enters those from which the nonce comes back over the overlay; proxy peers that die are taken out when their lease is over. Its file names key, server, policy and quotas: see --print-gatekeeper.",
        "With --adapter it serves ordinary SIP phones: each registers with the password that --phones has for it, is then a user of the overlay, and calls and is called like any other. A phone needs nothing but its address of record, its user name and password, and this adapter as its registrar and outbound proxy.",
        "Ctrl-C leaves the overlay in order and exits 130; SIGTERM does the same and exits 0. A second signal ends at once.",
    ],
    exits: &[
        (0, "left at SIGTERM"),
        (2, "wrong usage"),
        (3, "no member to join"),
        (4, "descriptor not to be trusted"),
        (5, "local failure"),
    ],
    examples: &[
        Example { line: "p2p-join p2psip.org", does: "join, found through the DNS" },
        Example { line: "p2p-join p2psip.org --peer MULTIADDR", does: "join through one member" },
        Example { line: "p2p-join --local testnet", does: "an overlay of your own, without DNS" },
        Example { line: "p2p-join --proxy", does: "be a proxy peer, entered into the DNS by a gatekeeper" },
        Example { line: "p2p-join --gatekeeper gk.toml", does: "be the gatekeeper; begin with --print-gatekeeper" },
        Example { line: "p2p-join --adapter 192.0.2.7:5060 --phones phones.toml", does: "let phones in" },
        Example { line: "p2p-join --print-config > p2psip.toml", does: "begin a configuration" },
    ],
    bare: Args::command,
};

/// Be a member of a P2PSIP overlay until Ctrl-C or SIGTERM
#[derive(Debug, Parser)]
#[command(name = TOOL.name)]
struct Args {
    /// The overlay, as --overlay
    #[arg(value_name = "OVERLAY", conflicts_with = "overlay")]
    overlay_operand: Option<String>,

    /// The overlay is purely local: its name need not be a domain name, and it has no proxy peers
    #[arg(long)]
    local: bool,

    /// Listen here; repeat for several. Port 0 is any free one
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,

    /// Be a proxy peer: SIP for the public network over UDP and TCP
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "0.0.0.0:5060", require_equals = true)]
    proxy: Option<String>,

    /// Be one over TLS too, on this address
    #[arg(long, value_name = "ADDR", requires = "proxy", requires = "tls_cert", requires = "tls_key")]
    tls: Option<String>,

    /// The TLS certificate, PEM; its names should include the overlay's
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_cert: Option<PathBuf>,

    /// The key of the TLS certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_key: Option<PathBuf>,

    /// Do not ask a gatekeeper to enter this proxy peer into the DNS
    #[arg(long, requires = "proxy")]
    no_publish: bool,

    /// Enter it at this address, if that is another one than it listens on; repeat for several
    #[arg(long, value_name = "IP", requires = "proxy", conflicts_with = "no_publish", value_parser = check::ip_address)]
    publish_address: Vec<IpAddr>,

    /// Enter it although it is behind a NAT, which is not recommended
    #[arg(long, requires = "proxy", conflicts_with = "no_publish")]
    publish_force: bool,

    /// Enter it without a gatekeeper, by this TSIG key of the zone (a file as tsig-keygen writes it)
    #[arg(long, value_name = "FILE", requires = "proxy", conflicts_with = "no_publish")]
    publish_key: Option<PathBuf>,

    /// The zone's primary name server, ADDR or ADDR:PORT
    #[arg(long, value_name = "ADDR", requires = "publish_key")]
    publish_server: Option<String>,

    /// Be a gatekeeper: enter other proxy peers into the DNS, as this file says
    #[arg(long, value_name = "FILE")]
    gatekeeper: Option<PathBuf>,

    /// Serve ordinary SIP phones on this address, over UDP and TCP
    #[arg(long, value_name = "ADDR", requires = "phones")]
    adapter: Option<String>,

    /// The phones that may register; --print-phones shows such a file
    #[arg(long, value_name = "FILE", requires = "adapter")]
    phones: Option<PathBuf>,

    /// Announce the member on the local network, and find others there (mDNS)
    #[arg(long)]
    mdns: bool,

    /// Serve metrics for Prometheus on http://ADDR/metrics
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,

    /// As a relay for members behind NATs, end a circuit after so many seconds [default: 7200]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    circuit_seconds: Option<String>,

    /// As a relay, end a circuit that has carried so many octets [default: 33554432]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    circuit_octets: Option<String>,

    /// Log on standard error as text, or as JSON, one object a line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, hide_default_value = true)]
    log_format: LogFormat,

    /// Print a configuration file with every key explained, and end
    #[arg(long)]
    print_config: bool,

    /// Print a gatekeeper's file with every key explained, and end
    #[arg(long)]
    print_gatekeeper: bool,

    /// Print a file of phones with every key explained, and end
    #[arg(long)]
    print_phones: bool,

    #[command(flatten)]
    shared: OverlayArgs,
}

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.shared.common
    }

    fn log_format(&self) -> LogFormat {
        self.log_format
    }
}

/// Runs `p2p-join` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-join` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        if args.print_config {
            return output.text(&config::template()).map(|()| 0);
        }
        if args.print_gatekeeper {
            return output.text(GATEKEEPER_TEMPLATE).map(|()| 0);
        }
        if args.print_phones {
            return output.text(PHONES_TEMPLATE).map(|()| 0);
        }
        let settings = Settings::read(&args.shared.home, env)?;
        let access = settings.access(&args.shared.access, args.overlay_operand.as_deref())?;
        if output.io().owns_process {
            descriptors::raise_limit();
        }
        let request = JoinRequest {
            listen: settings.listen(&args.listen)?,
            local: settings.local(args.local),
            proxy: proxy_request(&args)?,
            gatekeeper: args.gatekeeper.clone(),
            adapter: adapter_request(&args)?,
            mdns: args.mdns,
            metrics: settings.metrics(args.metrics.as_deref())?,
            circuits: settings.circuits(args.circuit_seconds.as_deref(), args.circuit_octets.as_deref())?,
        };

        let run = Run::new(output, || match &access.overlay {
            Some(overlay) => format!("joining {overlay}"),
            None => "joining".to_owned(),
        });
        let print = |outcome: JoinOutcome| {
            let printed = present(&outcome, output);
            output.note("Ctrl-C leaves");
            service_manager::ready(&outcome);
            printed
        };
        let stayed = run.stay(Threads::Many, |ending| {
            reporting(ending, print, async |report, ending| {
                let left = join(&access, &request, report, async {
                    ending.begun().await;
                    service_manager::stopping();
                });
                service_manager::watched(left).await
            })
        })?;
        stayed.exit(Some(0))
    })
}

/// What the options say about being a proxy peer.
fn proxy_request(args: &Args) -> Result<Option<ProxyRequest>, Failure> {
    let Some(listen) = &args.proxy else { return Ok(None) };
    let address = |name: &str, text: &str| settings::option(name, text, check::socket_address);
    let tls = match (&args.tls, &args.tls_cert, &args.tls_key) {
        (Some(listen), Some(certificate), Some(key)) => {
            Some(ProxyTls { address: address("--tls", listen)?, certificate: certificate.clone(), key: key.clone() })
        }
        _ => None,
    };
    let server = args.publish_server.as_deref();
    let server = server.map(|text| settings::option("--publish-server", text, check::dns_server)).transpose()?;
    let publish = PublishRequest {
        addresses: args.publish_address.clone(),
        force: args.publish_force,
        key: args.publish_key.clone(),
        server,
    };
    Ok(Some(ProxyRequest { listen: address("--proxy", listen)?, tls, publish: (!args.no_publish).then_some(publish) }))
}

/// What the options say about being an adapter.
fn adapter_request(args: &Args) -> Result<Option<AdapterRequest>, Failure> {
    let (Some(listen), Some(phones)) = (&args.adapter, &args.phones) else { return Ok(None) };
    let listen = settings::option("--adapter", listen, check::socket_address)?;
    Ok(Some(AdapterRequest { listen, phones: phones.clone() }))
}

/// Prints what has come of joining.
pub(super) fn present(outcome: &JoinOutcome, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    match output.format() {
        Format::Json => output.json(outcome),
        Format::Short => outcome.addresses.iter().try_for_each(|address| output.line(address)),
        Format::Table => output.table(&listing(outcome)),
    }
}

fn listing(outcome: &JoinOutcome) -> Grid {
    let mut grid = Grid::of_pairs();
    grid.pair(outcome.status, Cell::text(outcome.overlay.to_string(), Tone::Subject));
    let policy = format!("{} ({})", outcome.policy, shortened(&outcome.descriptor, 16));
    grid.pair("policy", Cell::text(policy, Tone::Plain));
    grid.pair("peer id", Cell::text(outcome.peer.to_string(), Tone::Plain));
    grid.pair("addresses", Cell::lines(&outcome.addresses, Tone::Plain));
    grid.pair("socket", Cell::text(&outcome.socket, Tone::Plain));
    if !outcome.proxy.is_empty() {
        grid.pair("proxy peer", Cell::lines(&outcome.proxy, Tone::Good));
    }
    if let Some(zone) = &outcome.gatekeeper {
        grid.pair("gatekeeper", Cell::text(zone, Tone::Good));
    }
    if !outcome.adapter.is_empty() {
        grid.pair("phones", Cell::lines(&outcome.adapter, Tone::Good));
    }
    if let Some(url) = &outcome.metrics {
        grid.pair("metrics", Cell::text(url, Tone::Plain));
    }
    let met = match outcome.peers {
        0 => Cell::text("none yet: this is the first member", Tone::Warning),
        peers => Cell::text(count(peers, "member"), Tone::Good),
    };
    grid.pair("met", met);
    if outcome.restored > 0 {
        grid.pair("restored", Cell::text(count(outcome.restored, "record"), Tone::Plain));
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::output::captured,
        name::{OverlayId, PeerId},
    };

    fn outcome() -> JoinOutcome {
        JoinOutcome {
            status: "joined",
            overlay: OverlayId::parse("p2psip.org").unwrap(),
            policy: "enrolled".to_owned(),
            descriptor: "0123456789abcdef0123456789abcdef".to_owned(),
            peer: PeerId::from_public_key([2; 32]),
            addresses: vec!["/ip4/192.0.2.7/udp/4001/quic-v1/p2p/X".to_owned(), "/ip4/192.0.2.7/tcp/4001".to_owned()],
            socket: "/home/alice/.local/share/p2psip/member.sock".to_owned(),
            proxy: Vec::new(),
            gatekeeper: None,
            adapter: Vec::new(),
            metrics: None,
            peers: 0,
            restored: 12,
            elapsed_ms: 3.0,
        }
    }

    fn shown(options: &CommonArgs) -> String {
        captured(TOOL.name, options, |output| present(&outcome(), output)).1
    }

    #[test]
    fn a_member_says_how_it_can_be_reached() {
        let table = shown(&CommonArgs::default());
        assert!(table.starts_with("joined     p2psip.org\npolicy     enrolled (0123456789abcdef…)\n"), "{table}");
        assert!(table.contains("\n           /ip4/192.0.2.7/tcp/4001\n"), "{table}");
        assert!(table.contains("met        none yet: this is the first member\nrestored   12 records\n"), "{table}");
        let short = shown(&CommonArgs { short: true, ..CommonArgs::default() });
        assert_eq!(short, "/ip4/192.0.2.7/udp/4001/quic-v1/p2p/X\n/ip4/192.0.2.7/tcp/4001\n");
    }
}
