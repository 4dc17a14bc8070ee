//! What each command of the shell does.

use std::{path::Path, time::Instant};

use anyhow::anyhow;
use serde::Serialize;

use super::{
    super::{
        descriptors, discover, join, lookup,
        output::{
            Format, Output, count,
            error::{Failure, Stop},
            peer_name,
            table::{Cell, Grid, Tone},
        },
        register,
        settings::Settings,
    },
    seen::Seen,
    show,
    verbs::{self, Parsed, Verb},
};
use crate::{
    clock::ms,
    kind::Kind,
    name::{Aor, OverlayId, ResourceName, ServiceUri},
    ops::{
        Access, OpsError, ViaChoice,
        discover::{DiscoverRequest, discover as find_providers},
        inspect::{Inspector, ping},
        join::{JoinRequest, Membership},
        lookup::Lookups,
        outcome::{EventOutcome, JoinOutcome, LookupOutcome},
        register::{RegisterRequest, register},
    },
    overlay::socket::SocketError,
};

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It ended with this exit code.
    Code(u8),
    /// It ends the shell.
    Quit,
}

/// What `time` prints with `--json`.
#[derive(Serialize)]
struct Timed<'a> {
    status: &'static str,
    command: &'a str,
    exit: u8,
    elapsed_ms: f64,
}

/// How a name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As `--via` says.
    Via(ViaChoice),
    /// By a walk that asks everybody and is shown.
    Traced,
}

/// The shell between two commands: whom it asks, and what it has seen.
pub(super) struct Shell {
    settings: Settings,
    /// What the options said.
    given: Access,
    /// The same, after `attach` and `join`.
    access: Access,
    /// The member that this process is itself, after `join`.
    membership: Option<Membership>,
    /// A way into the overlay that outlives a command: a swarm of our own.
    lookups: Option<Lookups>,
    seen: Seen,
}

impl Shell {
    /// A shell that asks as `access` says.
    pub(super) fn new(settings: Settings, access: Access) -> Self {
        let seen = Seen::default();
        for peer in &access.peers {
            seen.address(peer);
        }
        // A user that is wrong stops the commands that need one.
        if let Ok(Some(aor)) = settings.aor(None) {
            seen.user(&aor.value);
        }
        Self { settings, given: access.clone(), access, membership: None, lookups: None, seen }
    }

    /// Becomes a member of the overlay that the options name, if no member runs here that the shell can ask; says what
    /// fails, and returns its exit code.
    pub(super) async fn join_if_alone(&mut self, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
        if !matches!(self.member().await, Err(OpsError::Socket(SocketError::Absent { .. }))) {
            return Ok(0);
        }
        let joined = self.join(None, &[], false, output).await;
        if let Ok(outcome) = &joined {
            let (peer, met) = (peer_name(&outcome.peer), count(outcome.peers, "member"));
            output.note(&format!("joined {} as {peer} until the shell ends; met {met}", outcome.overlay));
        }
        exit_code(joined.map(|_| 0), output)
    }

    async fn join(
        &mut self,
        overlay: Option<&str>,
        listen: &[String],
        local: bool,
        output: &mut Output<'_, '_>,
    ) -> Result<JoinOutcome, Stop> {
        if self.membership.is_some() {
            let why = anyhow!("this shell is a member already; start another one for another overlay");
            return Err(Failure::new(Kind::Usage, why).into());
        }
        let named = overlay.map(|text| self.settings.overlay(Some(text), None)).transpose()?.flatten();
        let overlay = named.map(|named| named.value).or_else(|| self.given.overlay.clone());
        let access = Access { overlay, ..self.given.clone() };
        let request = JoinRequest {
            listen: self.settings.listen(listen)?,
            local: self.settings.local(local),
            ..JoinRequest::default()
        };
        output.progress().doing(|| match &access.overlay {
            Some(overlay) => format!("joining {overlay}"),
            None => "joining".to_owned(),
        });
        if output.io().owns_process {
            descriptors::raise_limit();
        }
        let (membership, outcome) = Membership::begin(access.clone(), request).await?;
        (self.access, self.lookups, self.membership) = (access, None, Some(membership));
        self.enter(&outcome.overlay);
        self.seen.peer(&outcome.peer);
        Ok(outcome)
    }

    /// Leaves, if this process is a member itself.
    pub(super) async fn leave(&mut self) -> Result<(), Failure> {
        match self.membership.take() {
            Some(membership) => Ok(membership.end().await?),
            None => Ok(()),
        }
    }

    /// The folder of keys.
    pub(super) fn home(&self) -> &Path {
        &self.access.home
    }

    /// What it has seen.
    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// What the editor shows in front of a line.
    pub(super) fn prompt(&self) -> String {
        match &self.access.overlay {
            Some(overlay) => format!("{overlay}> "),
            None => "p2psip> ".to_owned(),
        }
    }

    /// Says whom the shell asks. What the member knows is what completion begins with.
    pub(super) async fn greet(&mut self, output: &mut Output<'_, '_>) {
        match self.look_around().await {
            Ok(line) => output.note(&line),
            Err(OpsError::Socket(SocketError::Absent { .. })) if self.access.socket.is_none() => output.note(
                "no member runs on this machine: lookups and registrations ask members given with --peer or found \
                 in the DNS; status, peers, table, records and events need a member, which join or p2p-join starts",
            ),
            Err(error) => output.warn(&error.to_string()),
        }
        output.note("help lists the commands, Tab completes, Ctrl-C ends a command and Ctrl-D the shell");
    }

    async fn look_around(&mut self) -> Result<String, OpsError> {
        let mut member = Inspector::attach(&self.access).await?;
        let status = member.status().await?;
        let known = (member.peers().await?, member.records().await?);
        self.seen.peer(&status.member.peer);
        known.0.peers.iter().for_each(|peer| self.seen.peer(&peer.peer));
        known.1.records.iter().for_each(|held| self.seen.name(&held.record.name));
        let line = format!(
            "attached to {} of {} at {}: {}, {} held",
            peer_name(&status.member.peer),
            status.member.overlay,
            status.socket,
            count(status.member.peers, "peer"),
            count(status.member.records, "record"),
        );
        self.enter(&status.member.overlay);
        Ok(line)
    }

    /// Remembers which overlay this is about, and that it has services.
    fn enter(&mut self, overlay: &OverlayId) {
        for service in services(overlay) {
            self.seen.name(&service);
        }
        self.access.overlay.get_or_insert_with(|| overlay.clone());
    }

    /// Does what a line says, and reports what fails.
    pub(super) async fn perform(&mut self, line: &str, output: &mut Output<'_, '_>) -> Result<Done, Stop> {
        let parsed = match verbs::parse(line) {
            Ok(Parsed::Verb(Verb::Time { words })) => return self.time(words, output).await,
            parsed => parsed,
        };
        self.reported(parsed, output).await
    }

    async fn time(&mut self, words: Vec<String>, output: &mut Output<'_, '_>) -> Result<Done, Stop> {
        let command = words.join(" ");
        let parsed = match verbs::parse_words(words) {
            Ok(Parsed::Verb(Verb::Time { .. })) => {
                Err(Failure::new(Kind::Usage, anyhow!("time: it cannot time itself")))
            }
            parsed => parsed,
        };
        let began = Instant::now();
        let done = self.reported(parsed, output).await?;
        let elapsed_ms = ms(began.elapsed());
        if let Done::Code(exit) = done {
            match output.format() {
                Format::Json => output.json(&Timed { status: "timed", command: &command, exit, elapsed_ms })?,
                Format::Short => output.line(&format!("{elapsed_ms:.3}"))?,
                Format::Table => output.line(&format!("{elapsed_ms:.1} ms"))?,
            }
        }
        Ok(done)
    }

    async fn reported(&mut self, parsed: Result<Parsed, Failure>, output: &mut Output<'_, '_>) -> Result<Done, Stop> {
        let result = match parsed {
            Ok(Parsed::Nothing) => Ok(0),
            Ok(Parsed::Help(text)) => output.text(&text).map(|()| 0),
            Ok(Parsed::Verb(Verb::Quit)) => return Ok(Done::Quit),
            Ok(Parsed::Verb(verb)) => self.execute(verb, output).await,
            Err(failure) => Err(failure.into()),
        };
        exit_code(result, output).map(Done::Code)
    }

    async fn execute(&mut self, verb: Verb, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
        let progress = output.progress();
        progress.doing(|| "asking the member on this machine".to_owned());
        match verb {
            Verb::Lookup { uris, via } => return self.look_up(&uris, Way::Via(via.into()), output).await,
            Verb::Trace { uris } => return self.look_up(&uris, Way::Traced, output).await,
            Verb::Services => return self.find_services(output).await,
            Verb::Register { aor, contact, expires } => {
                let (contacts, expires) = register::binding(&contact, expires.as_deref())?;
                let aor = self.user(aor.as_deref())?;
                progress.doing(|| format!("registering {aor}"));
                let request = RegisterRequest { aor, contacts, expires, remove: false, stay: false };
                return self.register(request, false, output).await;
            }
            Verb::Store { aor, contacts, expires } => {
                let (contacts, expires) = register::binding(&contacts, expires.as_deref())?;
                let aor = self.user(Some(&aor))?;
                progress.doing(|| format!("storing a record of {aor}"));
                let request = RegisterRequest { aor, contacts, expires, remove: false, stay: false };
                return self.register(request, true, output).await;
            }
            Verb::Remove { aor } => {
                let aor = self.user(aor.as_deref())?;
                progress.doing(|| format!("removing the registration of {aor}"));
                let request = RegisterRequest { aor, contacts: Vec::new(), expires: None, remove: true, stay: false };
                return self.register(request, false, output).await;
            }
            Verb::Ping { peer } => {
                progress.doing(|| format!("asking {peer}"));
                let outcome = ping(&self.access, &peer).await?;
                self.seen.peer(&outcome.peer);
                show::ping(&outcome, output)?;
            }
            Verb::Status => {
                let outcome = self.member().await?.status().await?;
                self.seen.peer(&outcome.member.peer);
                self.enter(&outcome.member.overlay);
                show::status(&outcome, output)?;
            }
            Verb::Peers => {
                let outcome = self.member().await?.peers().await?;
                outcome.peers.iter().for_each(|peer| self.seen.peer(&peer.peer));
                show::peers(&outcome, output)?;
            }
            Verb::Table => show::table(&self.member().await?.table().await?, output)?,
            Verb::Records => {
                let outcome = self.member().await?.records().await?;
                outcome.records.iter().for_each(|held| self.seen.name(&held.record.name));
                show::records(&outcome, output)?;
            }
            Verb::Events { count } => return self.events(count, output).await,
            Verb::Attach { path } => {
                let access = Access { socket: Some(path), ..self.access.clone() };
                let outcome = Inspector::attach(&access).await?.status().await?;
                // Another member may well be one of another overlay.
                (self.access, self.lookups) = (Access { overlay: None, ..access }, None);
                self.enter(&outcome.member.overlay);
                self.seen.peer(&outcome.member.peer);
                show::status(&outcome, output)?;
            }
            Verb::Join { overlay, listen, local } => {
                let outcome = self.join(overlay.as_deref(), &listen, local, output).await?;
                join::present(&outcome, output)?;
            }
            Verb::Help { command: Some(name) } => output.text(&verbs::explain(&name)?)?,
            Verb::Help { command: None } => {
                let mut grid = Grid::of_pairs();
                for (usage, does) in verbs::list() {
                    grid.row([Cell::text(usage, Tone::Subject), Cell::text(does, Tone::Plain)]);
                }
                output.table(&grid)?;
            }
            // They are dealt with where they come in.
            Verb::Time { .. } | Verb::Quit => {}
        }
        Ok(0)
    }

    async fn member(&self) -> Result<Inspector<'_>, OpsError> {
        Inspector::attach(&self.access).await
    }

    fn user(&self, given: Option<&str>) -> Result<Aor, Failure> {
        let Some(aor) = self.settings.aor(given)? else {
            let why = anyhow!("no user: name one, as in register sip:alice@p2psip.org, or set P2PSIP_AOR");
            return Err(Failure::new(Kind::Usage, why));
        };
        Ok(aor.value)
    }

    /// Looks a name up; a swarm of our own is kept for the next one.
    async fn ask(&mut self, name: &ResourceName, way: Way) -> Result<LookupOutcome, OpsError> {
        let is_auto = way == Way::Via(ViaChoice::Auto);
        // Whatever goes wrong or is interrupted, the next lookup begins afresh; and so it does with a new member.
        let kept = self.lookups.take().filter(|_| is_auto && !self.access.socket_path().exists());
        // As long as nothing says which overlay is meant, each name does.
        let mut access = self.access.clone();
        access.overlay.get_or_insert_with(|| name.overlay().clone());
        let mut lookups = match (kept, way) {
            (Some(lookups), _) => lookups,
            (None, Way::Via(via)) => Lookups::attach(&access, via, name).await?,
            (None, Way::Traced) => Lookups::attach_traced(&access).await?,
        };
        let outcome = lookups.lookup(name).await?;
        self.seen.name(name);
        self.enter(name.overlay());
        if is_auto && !lookups.is_local() {
            self.lookups = Some(lookups);
        }
        Ok(outcome)
    }

    async fn look_up(&mut self, uris: &[String], way: Way, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
        let names = uris.iter().map(|uri| ResourceName::parse(uri)).collect::<Result<Vec<_>, _>>()?;
        let several = names.len() > 1;
        let mut worst = 0;
        for name in names {
            output.progress().doing(|| format!("looking up {name}"));
            let code = match self.ask(&name, way).await {
                Ok(outcome) => lookup::present(&outcome, several, output)?,
                Err(error) => {
                    let failure = Failure::from(error);
                    let code = failure.kind().exit_code();
                    output.failure(&if several { failure.about(name.to_string()) } else { failure })?;
                    code
                }
            };
            worst = worst.max(code);
        }
        Ok(worst)
    }

    /// Finds the providers of every kind of service. That there is none of a kind is no failure, as long as there is
    /// another.
    async fn find_services(&mut self, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
        output.progress().doing(|| "looking for services".to_owned());
        let (services, via) = (discover::ALL.to_vec(), ViaChoice::Auto);
        let compare = output.format() != Format::Short;
        let request = DiscoverRequest { services, wanted: None, via, compare, probe: true };
        let outcome = find_providers(&self.access, &request).await?;
        self.enter(&outcome.overlay);
        let providers = outcome.services.iter().flat_map(|service| &service.providers);
        providers.for_each(|provider| self.seen.peer(&provider.peer));
        discover::present(&outcome, output)
    }

    async fn register(
        &mut self,
        request: RegisterRequest,
        detailed: bool,
        output: &mut Output<'_, '_>,
    ) -> Result<u8, Stop> {
        let mut outcome = None;
        register(&self.access, &request, &mut |done| outcome = Some(done), std::future::pending()).await?;
        let Some(outcome) = outcome else { return Ok(0) };
        self.seen.user(&request.aor);
        register::present(&outcome, true, output)?;
        if detailed && output.format() == Format::Table {
            show::storers(&outcome, &request.aor.clone().into(), output)?;
        }
        Ok(register::exit_code(&outcome))
    }

    async fn events(&self, limit: Option<u32>, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
        let member = self.member().await?;
        output.progress().doing(String::new);
        output.note("following what happens at the member; Ctrl-C ends");
        let (mut left, mut stopped) = (limit, None);
        let mut report = |outcome: EventOutcome| {
            if let Err(stop) = show::event(&outcome, output) {
                stopped = Some(stop);
                return false;
            }
            left = left.map(|left| left.saturating_sub(1));
            left != Some(0)
        };
        member.events(&mut report).await?;
        stopped.map_or(Ok(0), Err)
    }
}

/// The exit code of what was done; a failure is reported.
fn exit_code(result: Result<u8, Stop>, output: &mut Output<'_, '_>) -> Result<u8, Stop> {
    match result {
        Err(Stop::Failed(failure)) => {
            output.failure(&failure)?;
            Ok(failure.kind().exit_code())
        }
        result => result,
    }
}

/// The well-known URIs of what the draft calls services (§3.3).
fn services(overlay: &OverlayId) -> impl Iterator<Item = ResourceName> {
    discover::ALL.into_iter().map(|service| ServiceUri::new(service, overlay.clone()).into())
}
