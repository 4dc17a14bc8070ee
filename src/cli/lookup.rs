//! `p2p-lookup`: where users and services of an overlay are, and where the servers of other SIP domains are.

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser, ValueEnum};
use tokio::sync::mpsc;

use super::{
    args::{AccessArgs, CommonArgs, HomeArgs},
    io::{Env, Io},
    lines, locate,
    output::{
        Format, Output, count,
        error::{Failure, Stop},
        peer_name, shortened, span,
        table::{Cell, Grid, Tone},
    },
    runtime,
    settings::Settings,
    tool::{self, Example, Tool, ToolArgs},
    trace,
};
use crate::{
    kind::Kind,
    name::{InstanceId, ResourceName, Service},
    ops::{
        Access, OpsError, ViaChoice,
        locate::{Locations, Scope, Subject, expected},
        lookup::Lookups,
        outcome::{ContactView, LocateOutcome, LocateStatus, LookupOutcome, LookupStatus, RecordView, Via},
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
    access: AccessArgs,

    #[command(flatten)]
    home: HomeArgs,

    #[command(flatten)]
    common: CommonArgs,
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
        &self.common
    }
}

/// Runs `p2p-lookup` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-lookup` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let access = Settings::read(&args.home, env)?.access(&args.access, None)?;
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
        let (signals, progress) = (std::mem::take(&mut output.io().signals), output.progress());
        runtime::one_shot(signals, &progress, async {
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

/// The URIs to look up, checked.
enum Uris {
    Operands { subjects: std::vec::IntoIter<Subject>, several: bool },
    Lines { lines: mpsc::Receiver<Result<String, Failure>>, scope: Scope },
}

impl Uris {
    /// Takes them from the operands, where one that is wrong stops everything, or begins to read standard input.
    fn new(operands: &[String], scope: Scope, output: &mut Output<'_, '_>) -> Result<Self, Failure> {
        if operands == ["-"] {
            return Ok(Self::Lines { lines: lines::read(output.io()), scope });
        }
        if operands.iter().any(|operand| operand == "-") {
            return Err(Failure::usage("'-' reads all URIs from standard input and cannot stand beside others"));
        }
        let subjects = operands.iter().map(|text| Subject::parse(text, scope)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::Operands { several: subjects.len() > 1, subjects: subjects.into_iter() })
    }

    /// The one URI given as an operand, which is needed where it matters which one is meant.
    fn only(&self) -> Result<ResourceName, Failure> {
        match self {
            Self::Operands { subjects, several: false } => match subjects.as_slice().first() {
                Some(Subject::Overlay(name)) => Some(name.clone()),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| Failure::usage("--pin takes one URI"))
    }

    const fn are_several(&self) -> bool {
        match self {
            Self::Operands { several, .. } => *several,
            Self::Lines { .. } => true,
        }
    }

    async fn next(&mut self) -> Option<Result<Subject, Failure>> {
        match self {
            Self::Operands { subjects, .. } => subjects.next().map(Ok),
            Self::Lines { lines, scope } => {
                Some(lines.recv().await?.and_then(|text| Ok(Subject::parse(&text, *scope)?)))
            }
        }
    }
}

/// Prints an outcome and says which exit code it deserves.
pub(super) fn present(outcome: &LookupOutcome, several: bool, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    match output.format() {
        Format::Json => output.json(outcome)?,
        Format::Short => {
            // A script that reads only standard output must not act on what is not to be trusted.
            if outcome.status == LookupStatus::Found {
                for line in outcome.records.iter().flat_map(short_lines) {
                    output.line(&line)?;
                }
            }
        }
        Format::Table => {
            if let Some(trace) = &outcome.trace {
                output.heading(&outcome.uri)?;
                output.table(&trace::tree(trace))?;
            }
            if !outcome.records.is_empty() {
                if outcome.trace.is_some() {
                    output.text("\n")?;
                } else if several {
                    output.heading(&outcome.uri)?;
                }
                output.table(&records_table(&outcome.records))?;
            }
            let inside = endpoints(outcome);
            let public = outcome.public.as_ref().filter(|public| public.status != LocateStatus::NobodyToAsk);
            if let Some(public) = public.filter(|public| !(inside.is_empty() && public.endpoints.is_empty())) {
                output.text("\n")?;
                output.table(&locate::public(public, &inside))?;
            }
        }
    }
    if outcome.status == LookupStatus::Found {
        output.note(&summary(outcome));
        if !outcome.rejected.is_empty() {
            output.warn(&format!("not believed: {}", rejections(outcome)));
        }
    } else if output.format() != Format::Json {
        output.complain(&verdict(outcome));
    }
    if let Some(drift) = outcome.public.as_ref().and_then(|view| locate::drift(view, outcome.overlay.as_str())) {
        output.warn(&drift);
    }
    if let Some(disagreement) = outcome.trace.as_deref().and_then(trace::disagreement) {
        output.warn(&disagreement);
    }
    Ok(exit_code(outcome.status))
}

pub(super) const fn exit_code(status: LookupStatus) -> u8 {
    match status {
        LookupStatus::Found => 0,
        LookupStatus::NotFound => Kind::Negative.exit_code(),
        LookupStatus::NobodyToAsk => Kind::Unreachable.exit_code(),
        LookupStatus::Contested | LookupStatus::Untrusted => Kind::Untrusted.exit_code(),
    }
}

/// What is printed when the answer is not simply the records.
pub(super) fn verdict(outcome: &LookupOutcome) -> String {
    let uri = &outcome.uri;
    match outcome.status {
        LookupStatus::Found => summary(outcome),
        LookupStatus::NotFound => {
            format!("{uri}: not found: {} answered and none has it", count(outcome.storers, "storer"))
        }
        LookupStatus::NobodyToAsk if outcome.storers == 0 && outcome.silent == 0 => {
            format!("{uri}: nobody to ask: nobody answered in time; try again, with a longer --timeout")
        }
        LookupStatus::NobodyToAsk => format!(
            "{uri}: nobody to ask: {} answered and {} stayed silent; try again, or name a member with --peer",
            count(outcome.storers, "storer"),
            count(outcome.silent, "peer"),
        ),
        LookupStatus::Untrusted => format!("{uri}: found, but not to be trusted: {}", rejections(outcome)),
        LookupStatus::Contested => format!(
            "{uri}: contested: {} by different keys, none of them pinned; have its owner confirm an instance, then believe it with --pin INSTANCE",
            count(outcome.records.len(), "record")
        ),
    }
}

/// The reasons for which records were not believed, each once, with how often it came.
fn rejections(outcome: &LookupOutcome) -> String {
    let mut reasons: Vec<(&str, u32)> = Vec::new();
    for rejected in &outcome.rejected {
        match reasons.iter_mut().find(|(reason, _)| *reason == rejected.reason) {
            Some((_, times)) => *times += 1,
            None => reasons.push((&rejected.reason, 1)),
        }
    }
    let words = reasons.into_iter().map(|(reason, times)| match times {
        1 => reason.to_owned(),
        _ => format!("{reason} (from {times} storers)"),
    });
    words.collect::<Vec<_>>().join("; ")
}

/// How the answer came about.
fn summary(outcome: &LookupOutcome) -> String {
    let how = match outcome.via {
        Via::Socket => "through the member on this machine",
        Via::Peer => "through a member",
        Via::Walk => "by a walk of its own",
    };
    format!(
        "{} from {}, {how}, {} in {:.0} ms",
        count(outcome.records.len(), "record"),
        count(outcome.storers, "storer"),
        count(outcome.requests, "request"),
        outcome.elapsed_ms
    )
}

/// One line for each thing a script would dial: contacts of users, endpoints of services.
fn short_lines(record: &RecordView) -> Vec<String> {
    match &record.offer {
        Some(offer) => offer.endpoints.clone(),
        None => record.contacts.iter().map(|contact| contact.uri.clone()).collect(),
    }
}

/// Users' and services' records never share a name, so the first one tells which columns there are.
fn records_table(records: &[RecordView]) -> Grid {
    if records.iter().any(|record| record.offer.is_some()) { offers_table(records) } else { contacts_table(records) }
}

fn contacts_table(records: &[RecordView]) -> Grid {
    let mut grid = Grid::with_header(&["INSTANCE", "CONTACT", "EXPIRES IN", "CERTIFICATE"]).spare(&["CERTIFICATE"]);
    for record in records {
        grid.row([
            Cell::text(shortened(&record.instance.to_string(), 8), Tone::Subject),
            Cell::lines(record.contacts.iter().flat_map(contact_lines), Tone::Plain),
            Cell::text(span(record.expires_in_ms), Tone::Plain),
            certificate(record),
        ]);
    }
    grid
}

fn offers_table(records: &[RecordView]) -> Grid {
    let mut grid = Grid::with_header(&["PEER", "ENDPOINT", "SERVING", "LOAD", "EXPIRES IN", "CERTIFICATE"])
        .spare(&["CERTIFICATE", "LOAD"]);
    for (record, offer) in records.iter().filter_map(|record| Some((record, record.offer.as_ref()?))) {
        let (serving, tone) = if offer.serving { ("yes", Tone::Good) } else { ("no", Tone::Warning) };
        grid.row([
            Cell::text(peer_name(&offer.peer), Tone::Subject),
            Cell::lines(&offer.endpoints, Tone::Plain),
            Cell::text(serving, tone),
            Cell::text(format!("{:.0} %", offer.load * 100.0), Tone::Plain),
            Cell::text(span(record.expires_in_ms), Tone::Plain),
            certificate(record),
        ]);
    }
    grid
}

/// A contact with where it is: its own host, or the peer and the addresses of that peer.
pub(super) fn contact_lines(contact: &ContactView) -> Vec<String> {
    let mut first = match &contact.peer {
        Some(peer) => format!("peer {}", peer_name(peer)),
        None => contact.uri.clone(),
    };
    if contact.q < 1.0 {
        first.push_str(&format!(" (q={})", contact.q));
    }
    let addresses = contact.addresses.iter().map(|address| format!("  {address}"));
    std::iter::once(first).chain(addresses).collect()
}

/// The certificate that covers a record, in a few characters.
fn certificate(record: &RecordView) -> Cell {
    match &record.certificate {
        Some(serial) => Cell::text(shortened(serial, 8), Tone::Plain),
        None => Cell::text("none", Tone::Faint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::UnixMs,
        name::{InstanceId, OverlayId, PeerId},
        ops::outcome::{OfferView, RejectedView},
    };

    fn record() -> RecordView {
        RecordView {
            instance: InstanceId::of_key(&[1; 32]),
            sequence: 1_767_225_600_000,
            key: crate::identity::PublicKey::from_octets([7; 32]),
            expires_at_ms: UnixMs(1_767_229_200_000),
            expires_in_ms: 3_500_000,
            certificate: Some("4f2a91c3d0e7b856".to_owned()),
            contacts: vec![
                ContactView {
                    uri: "sip:alice@p2psip.org;gr=abc".to_owned(),
                    peer: Some(PeerId::from_public_key([2; 32])),
                    addresses: vec!["/ip4/192.0.2.7/udp/4001/quic-v1".to_owned()],
                    q: 1.0,
                },
                ContactView { uri: "sip:alice@192.0.2.9:5060".to_owned(), peer: None, addresses: Vec::new(), q: 0.5 },
            ],
            offer: None,
        }
    }

    fn outcome(status: LookupStatus) -> LookupOutcome {
        LookupOutcome {
            status,
            uri: "sip:alice@p2psip.org".to_owned(),
            overlay: OverlayId::parse("p2psip.org").unwrap(),
            via: Via::Walk,
            records: vec![record()],
            rejected: Vec::new(),
            storers: 3,
            requests: 5,
            silent: 1,
            hops: 2,
            elapsed_ms: 41.27,
            trace: None,
            public: None,
        }
    }

    fn shown(options: CommonArgs, outcome: &LookupOutcome) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut io = Io::captured(&mut out, &mut err);
        let mut output = Output::new(TOOL.name, &options, &Env::new("/"), &mut io);
        let code = present(outcome, false, &mut output).unwrap();
        drop(output);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn short() -> CommonArgs {
        CommonArgs { short: true, ..CommonArgs::default() }
    }

    #[test]
    fn a_user_is_a_table_of_instances_and_contacts() {
        let (code, out, err) = shown(CommonArgs::default(), &outcome(LookupStatus::Found));
        assert_eq!(code, 0);
        let lines = out.lines().collect::<Vec<_>>();
        assert_eq!(lines[0], "INSTANCE   CONTACT                            EXPIRES IN   CERTIFICATE");
        assert!(lines[1].contains("peer 12D3KooW…") && lines[1].ends_with("58 min 20 s  4f2a91c3…"), "{out}");
        assert_eq!(lines[2].trim(), "/ip4/192.0.2.7/udp/4001/quic-v1");
        assert_eq!(lines[3].trim(), "sip:alice@192.0.2.9:5060 (q=0.5)");
        assert_eq!(err, "1 record from 3 storers, by a walk of its own, 5 requests in 41 ms\n");
    }

    #[test]
    fn a_service_is_a_table_of_peers_and_endpoints() {
        let mut outcome = outcome(LookupStatus::Found);
        outcome.records[0].contacts.clear();
        outcome.records[0].certificate = None;
        outcome.records[0].offer = Some(OfferView {
            peer: PeerId::from_public_key([2; 32]),
            addresses: Vec::new(),
            endpoints: vec!["udp:192.0.2.7:5060".to_owned(), "tcp:192.0.2.7:5060".to_owned()],
            serving: true,
            load: 0.25,
        });
        let (_, out, _) = shown(CommonArgs::default(), &outcome);
        assert!(out.starts_with("PEER "), "{out}");
        assert!(out.contains("udp:192.0.2.7:5060  yes      25 %  58 min 20 s  none"), "{out}");
        assert_eq!(shown(short(), &outcome).1, "udp:192.0.2.7:5060\ntcp:192.0.2.7:5060\n");
    }

    #[test]
    fn scripts_get_contacts_only_if_they_are_to_be_trusted() {
        let (code, out, _) = shown(short(), &outcome(LookupStatus::Found));
        assert_eq!((code, out.as_str()), (0, "sip:alice@p2psip.org;gr=abc\nsip:alice@192.0.2.9:5060\n"));
        for status in [LookupStatus::Contested, LookupStatus::Untrusted] {
            let (code, out, err) = shown(short(), &outcome(status));
            assert_eq!((code, out.as_str()), (4, ""), "{err}");
        }
    }

    #[test]
    fn each_answer_has_its_exit_code_and_its_line() {
        for (status, code, words) in [
            (LookupStatus::NotFound, 1, "sip:alice@p2psip.org: not found: 3 storers answered"),
            (LookupStatus::NobodyToAsk, 3, "nobody to ask: 3 storers answered and 1 peer stayed silent"),
            (LookupStatus::Untrusted, 4, "not to be trusted: expired (from 2 storers); bad signature"),
            (LookupStatus::Contested, 4, "contested: 1 record by different keys"),
        ] {
            let rejected = |code: &str, reason: &str| RejectedView {
                peer: PeerId::from_public_key([2; 32]),
                code: code.to_owned(),
                reason: reason.to_owned(),
                untrusted: true,
            };
            let mut outcome = outcome(status);
            outcome.rejected = vec![
                rejected("expired", "expired"),
                rejected("bad-signature", "bad signature"),
                rejected("expired", "expired"),
            ];
            let (got, _, err) = shown(CommonArgs::default(), &outcome);
            assert_eq!(got, code);
            assert!(err.starts_with("p2p-lookup: ") && err.contains(words), "{err}");
            assert_eq!(err.lines().count(), 1, "{err}");
            let json = CommonArgs { json: true, ..CommonArgs::default() };
            let (got, out, err) = shown(json, &outcome);
            assert_eq!((got, err.as_str()), (code, ""));
            assert!(out.starts_with(r#"{"status":""#) && out.lines().count() == 1, "{out}");
        }
    }

    #[test]
    fn what_peers_say_cannot_drive_the_terminal() {
        let mut outcome = outcome(LookupStatus::Untrusted);
        outcome.records[0].contacts[1].uri = "sip:\x1b[2Ja@b\nsip:c@d".to_owned();
        outcome.rejected = vec![RejectedView {
            peer: PeerId::from_public_key([2; 32]),
            code: "malformed".to_owned(),
            reason: "it says \u{9b}31m\r\n".to_owned(),
            untrusted: true,
        }];
        let (_, out, err) = shown(CommonArgs::default(), &outcome);
        assert!(!out.contains('\x1b') && !err.contains(['\u{9b}', '\r']), "{out}{err}");
        outcome.status = LookupStatus::Found;
        let (_, out, _) = shown(short(), &outcome);
        assert_eq!(out.lines().count(), 2, "a contact cannot add lines: {out}");
    }
}
