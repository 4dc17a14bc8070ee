//! `p2p-discover`: the peers that offer services.

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser, ValueEnum};

use super::{
    args::{CommonArgs, OverlayArgs},
    check,
    io::{Env, Io},
    locate,
    lookup::ViaArg,
    output::{
        Format, Output, count,
        error::Stop,
        peer_name, shortened, span,
        table::{Cell, Grid, Tone},
    },
    runtime::Run,
    settings::Settings,
    tool::{self, Example, Tool, ToolArgs},
};
use crate::{
    kind::Kind,
    name::Service,
    ops::{
        discover::{DiscoverRequest, discover},
        outcome::{DiscoverOutcome, DiscoverStatus, ProbeStatus, ProbeView, ProviderView, ServiceView, Via},
    },
};

/// `p2p-discover` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-discover",
    description: &[
        "Finds the peers of an overlay that offer a service: proxy peers, through which SIP crosses the overlay's border, and relay agent peers, which carry media for those behind NATs. Every record is verified. The first are to be tried first: they are put in a random order, in which those with less load come first more often.",
        "A load is its provider's own word. One that is not serving takes no new users and is about to go.",
        "Each endpoint of a proxy peer is then asked for its OPTIONS, unless --no-probe: those that answer come first, the fastest before the others, and those that do not come last. The proxy peers are also looked up in the DNS, where others find them, and the two lists are compared.",
        "Without -n it finds all there are. With -n it stops when it has found so many, of the kinds that are asked for together; if there are fewer, it prints those and exits 1.",
    ],
    exits: &[
        (0, "found"),
        (1, "none, or fewer than asked"),
        (2, "wrong usage"),
        (3, "nobody to ask"),
        (4, "found but not to be trusted"),
        (5, "local failure"),
    ],
    examples: &[
        Example { line: "p2p-discover all", does: "every proxy peer and relay of the overlay" },
        Example { line: "p2p-discover relay -n 3 p2psip.org", does: "three relays, TURN or Teredo" },
        Example { line: "p2p-discover --short turn", does: "where the TURN relays listen, one a line" },
    ],
    bare: Args::command,
};

/// Find the peers of a P2PSIP overlay that offer a service
#[derive(Debug, Parser)]
#[command(name = TOOL.name)]
struct Args {
    /// The service: proxy, turn, teredo, relay (turn and teredo) or all
    #[arg(value_name = "SERVICE", value_enum, hide_possible_values = true)]
    kind: KindArg,

    /// The overlay, if not that of the member on this machine [env: P2PSIP_OVERLAY]
    #[arg(value_name = "OVERLAY")]
    of: Option<String>,

    /// How many to find, of all kinds together; all there are if not given
    #[arg(short = 'n', long = "number", value_name = "N", value_parser = check::number(1..=1_000_000_u32))]
    number: Option<u32>,

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

    /// Do not ask the endpoints whether they answer
    #[arg(long)]
    no_probe: bool,

    #[command(flatten)]
    shared: OverlayArgs,
}

/// Which services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindArg {
    /// Proxy peers (draft §3.3.1).
    Proxy,
    /// Relay agent peers of either kind (draft §3.3.2).
    Relay,
    /// TURN relays.
    Turn,
    /// Teredo relays.
    Teredo,
    /// All of them.
    All,
}

impl KindArg {
    const fn services(self) -> &'static [Service] {
        match self {
            Self::Proxy => &[Service::Proxy],
            Self::Relay => &[Service::Turn, Service::Teredo],
            Self::Turn => &[Service::Turn],
            Self::Teredo => &[Service::Teredo],
            Self::All => &ALL,
        }
    }
}

/// The services that the draft has (§3.3).
pub(super) const ALL: [Service; 3] = [Service::Proxy, Service::Turn, Service::Teredo];

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.shared.common
    }
}

/// Runs `p2p-discover` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-discover` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let access = Settings::read(&args.shared.home, env)?.access(&args.shared.access, args.of.as_deref())?;
        let services = args.kind.services().to_vec();
        let wanted = args.number;
        let compare = output.format() != Format::Short;
        let request = DiscoverRequest { services, wanted, via: args.via.into(), compare, probe: !args.no_probe };
        let run = Run::new(output, || "looking for services".to_owned());
        let outcome = run.one_shot(discover(&access, &request))??;
        present(&outcome, output)
    })
}

/// Prints an outcome and says which exit code it deserves.
pub(super) fn present(outcome: &DiscoverOutcome, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    let found = outcome.services.iter().filter(|service| !service.providers.is_empty());
    match output.format() {
        Format::Json => output.json(outcome)?,
        Format::Short => {
            for line in found.flat_map(|service| &service.providers).flat_map(where_it_is) {
                output.line(&line)?;
            }
        }
        Format::Table => {
            for service in found {
                if outcome.services.len() > 1 {
                    output.heading(&service.uri)?;
                }
                output.table(&providers_table(service))?;
            }
        }
    }
    match outcome.status {
        DiscoverStatus::Found => output.note(&summary(outcome)),
        _ if output.format() == Format::Json => {}
        _ => output.complain(&verdict(outcome)),
    }
    if outcome.found > 0 && !outcome.rejected.is_empty() {
        output.warn(&format!("not believed: {}", rejections(outcome)));
    }
    if let Some(silent) = silent(outcome) {
        output.warn(&silent);
    }
    if let Some(drift) = outcome.public.as_ref().and_then(|view| locate::drift(view, outcome.overlay.as_str())) {
        output.warn(&drift);
    }
    Ok(match outcome.status {
        DiscoverStatus::Found => 0,
        DiscoverStatus::Fewer | DiscoverStatus::NotFound => Kind::Negative.exit_code(),
        DiscoverStatus::NobodyToAsk => Kind::Unreachable.exit_code(),
        DiscoverStatus::Untrusted => Kind::Untrusted.exit_code(),
    })
}

/// What is printed when not all that was asked for has been found.
fn verdict(outcome: &DiscoverOutcome) -> String {
    let asked = outcome.services.iter().map(|service| service.uri.as_str()).collect::<Vec<_>>().join(", ");
    let wanted = outcome.wanted.unwrap_or_default();
    match outcome.status {
        DiscoverStatus::Found => summary(outcome),
        DiscoverStatus::Fewer if outcome.complete => {
            format!("{asked}: fewer than asked: {} of {wanted}, and there are no more", outcome.found)
        }
        DiscoverStatus::Fewer => format!(
            "{asked}: fewer than asked: {} of {wanted}, though there may be more; try again, or with a longer --timeout",
            outcome.found
        ),
        DiscoverStatus::NotFound => format!("{asked}: not found: nobody offers it"),
        DiscoverStatus::NobodyToAsk => format!(
            "{asked}: nobody to ask: {} stayed silent; try again, or name a member with --peer",
            count(outcome.silent, "peer")
        ),
        DiscoverStatus::Untrusted => format!("{asked}: found, but not to be trusted: {}", rejections(outcome)),
    }
}

/// Who was asked and did not answer, if anybody.
fn silent(outcome: &DiscoverOutcome) -> Option<String> {
    let asked = outcome.services.iter().flat_map(|service| &service.providers);
    let asked: Vec<_> = asked.filter(|provider| !provider.probes.is_empty()).collect();
    let silent: Vec<_> = asked.iter().filter(|provider| provider.rtt_ms.is_none()).collect();
    let first = silent.first()?;
    let why = first.probes.iter().find_map(|probe| probe.why.as_deref()).unwrap_or("no answer");
    let (peer, all) = (peer_name(&first.peer), count(asked.len(), "provider"));
    Some(match silent.len() {
        1 => format!("of {all}, {peer} does not answer: {why}"),
        more => format!("of {all}, {more} do not answer; the first is {peer}: {why}"),
    })
}

/// The reasons for which records were not believed, each once.
fn rejections(outcome: &DiscoverOutcome) -> String {
    let mut reasons: Vec<&str> = outcome.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    reasons.join("; ")
}

/// How the answer came about.
fn summary(outcome: &DiscoverOutcome) -> String {
    let how = match outcome.via {
        Via::Socket => "through the member on this machine",
        Via::Peer => "through a member",
        Via::Walk => "by walks of its own",
    };
    let all = if outcome.complete { ", all there are" } else { "" };
    format!(
        "{}{all}, {how}, {} and {} in {:.0} ms",
        count(outcome.found, "provider"),
        count(outcome.tree_nodes, "tree node"),
        count(outcome.requests, "request"),
        outcome.elapsed_ms
    )
}

/// What a script would dial: the endpoints of the service, else the peer.
fn where_it_is(provider: &ProviderView) -> Vec<String> {
    if !provider.endpoints.is_empty() {
        return provider.endpoints.clone();
    }
    provider.addresses.iter().take(1).map(|address| format!("{address}/p2p/{}", provider.peer)).collect()
}

fn providers_table(service: &ServiceView) -> Grid {
    let is_probed = service.providers.iter().any(|provider| !provider.probes.is_empty());
    let is_compared = service.providers.iter().any(|provider| provider.in_dns.is_some());
    let mut header = vec!["PEER", "WHERE"];
    header.extend(is_probed.then_some("ANSWERS"));
    header.extend(is_compared.then_some("IN DNS"));
    header.extend(["SERVING", "LOAD", "EXPIRES IN", "CERTIFICATE"]);
    let mut grid = Grid::with_header(&header).spare(&["CERTIFICATE", "LOAD"]);
    for provider in &service.providers {
        let (serving, tone) = if provider.serving { ("yes", Tone::Good) } else { ("no", Tone::Warning) };
        let places = if provider.endpoints.is_empty() { &provider.addresses } else { &provider.endpoints };
        let in_dns = match provider.in_dns {
            Some(true) => Cell::text("yes", Tone::Good),
            Some(false) => Cell::text("no", Tone::Warning),
            None => Cell::text("–", Tone::Faint),
        };
        let mut row = vec![Cell::text(peer_name(&provider.peer), Tone::Subject), Cell::lines(places, Tone::Plain)];
        row.extend(is_probed.then(|| answers(provider)));
        row.extend(is_compared.then_some(in_dns));
        row.extend([
            Cell::text(serving, tone),
            Cell::text(format!("{:.0} %", provider.load * 100.0), Tone::Plain),
            Cell::text(span(provider.expires_in_ms), Tone::Plain),
            match &provider.certificate {
                Some(serial) => Cell::text(shortened(serial, 8), Tone::Plain),
                None => Cell::text("none", Tone::Faint),
            },
        ]);
        grid.row(row);
    }
    grid
}

/// How each endpoint answered, beside it.
fn answers(provider: &ProviderView) -> Cell {
    let line = |probe: &ProbeView| match (probe.status, probe.rtt_ms, probe.code) {
        (ProbeStatus::Answered, Some(rtt), Some(200) | None) => format!("{rtt:.1} ms"),
        (ProbeStatus::Answered, Some(rtt), Some(code)) => format!("{rtt:.1} ms ({code})"),
        (ProbeStatus::Unreachable, ..) => "unreachable".to_owned(),
        (ProbeStatus::Answered | ProbeStatus::Silent, ..) => "no".to_owned(),
    };
    if provider.probes.is_empty() {
        return Cell::text("–", Tone::Faint);
    }
    Cell::lines(provider.probes.iter().map(line), if provider.rtt_ms.is_some() { Tone::Good } else { Tone::Warning })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::output::captured,
        clock::UnixMs,
        name::{OverlayId, PeerId},
        ops::outcome::RejectedView,
    };

    fn provider(peer: u8, endpoints: &[&str]) -> ProviderView {
        ProviderView {
            peer: PeerId::from_public_key([peer; 32]),
            addresses: vec!["/ip4/192.0.2.7/tcp/4001".to_owned()],
            endpoints: endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(),
            serving: true,
            load: 0.25,
            expires_at_ms: UnixMs(0),
            expires_in_ms: 120_000,
            certificate: None,
            probes: Vec::new(),
            rtt_ms: None,
            in_dns: None,
        }
    }

    fn outcome(status: DiscoverStatus, found: u32) -> DiscoverOutcome {
        let providers = vec![provider(1, &["udp:192.0.2.7:3478"]), provider(2, &[])];
        let service =
            |service, uri: &str, providers| ServiceView { service, uri: uri.to_owned(), complete: true, providers };
        DiscoverOutcome {
            status,
            overlay: OverlayId::parse("p2psip.org").unwrap(),
            via: Via::Socket,
            wanted: Some(3),
            found,
            complete: true,
            services: vec![
                service(Service::Turn, "turn:p2psip.org", providers.into_iter().take(found as usize).collect()),
                service(Service::Teredo, "teredo:p2psip.org", vec![]),
            ],
            public: None,
            rejected: vec![],
            tree_nodes: 3,
            requests: 15,
            silent: 2,
            elapsed_ms: 12.0,
        }
    }

    fn shown(common: &CommonArgs, outcome: &DiscoverOutcome) -> (u8, String, String) {
        captured(TOOL.name, common, |output| present(outcome, output))
    }

    #[test]
    fn fewer_than_asked_are_printed_and_are_no_success() {
        let (code, out, err) = shown(&CommonArgs::default(), &outcome(DiscoverStatus::Fewer, 2));
        assert_eq!(code, 1);
        assert!(out.starts_with("turn:p2psip.org\nPEER") && out.contains("udp:192.0.2.7:3478"), "{out}");
        assert!(!out.contains("teredo:"), "{out}");
        assert!(err.contains("fewer than asked: 2 of 3, and there are no more"), "{err}");
        let mut unsure = outcome(DiscoverStatus::Fewer, 2);
        unsure.complete = false;
        assert!(shown(&CommonArgs::default(), &unsure).2.contains("there may be more"));
    }

    #[test]
    fn short_lines_are_what_a_script_would_dial() {
        let common = CommonArgs { short: true, ..CommonArgs::default() };
        let (code, out, _) = shown(&common, &outcome(DiscoverStatus::Found, 2));
        let peer = PeerId::from_public_key([2; 32]);
        assert_eq!((code, out), (0, format!("udp:192.0.2.7:3478\n/ip4/192.0.2.7/tcp/4001/p2p/{peer}\n")));
    }

    #[test]
    fn each_answer_has_its_exit_code() {
        for (status, code, says) in [
            (DiscoverStatus::NotFound, 1, "nobody offers it"),
            (DiscoverStatus::NobodyToAsk, 3, "2 peers stayed silent"),
            (DiscoverStatus::Untrusted, 4, "not to be trusted: it \\u{1b}[2J"),
        ] {
            let mut outcome = outcome(status, 0);
            outcome.rejected = vec![RejectedView {
                peer: PeerId::from_public_key([9; 32]),
                code: "malformed".to_owned(),
                reason: "it \u{1b}[2J".to_owned(),
                untrusted: true,
            }];
            let (found, out, err) = shown(&CommonArgs::default(), &outcome);
            assert_eq!((found, out.as_str()), (code, ""), "{err}");
            assert!(err.contains(says), "{err}");
        }
    }
}
