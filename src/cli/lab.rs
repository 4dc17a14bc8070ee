//! `p2p-lab`: a whole world on loopback in one process, to watch or to use.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{CommandFactory as _, Parser, Subcommand};
use serde::Serialize;

use super::{
    args::CommonArgs,
    check, descriptors,
    io::{Env, Io, Signal},
    lookup,
    output::{
        Format, Output, count,
        error::{Failure, Stop},
        ladder::{Numbers, Strokes},
        table::{Cell, Grid, Tone},
    },
    register,
    runtime::{Ending, Run, Stayed, Threads},
    tool::{self, Example, Tool, ToolArgs},
};
use crate::{
    clock::ms,
    identity::Home,
    kind::Kind,
    lab::{DomainView, Figure, FigureOutcome, FigureStatus, LabError, LabOptions, World},
};

/// Members of the world that `run` builds.
const PEERS: usize = 16;

/// `p2p-lab` as its help and manual describe it.
pub const TOOL: Tool = Tool {
    name: "p2p-lab",
    description: &[
        "Builds a whole world on loopback, in one process and without any service: an enrolled overlay p2psip.org with two proxy peers, its DNS, three devices of two users, each with a home of its own, and two conventional SIP domains, example.org and example.com. Nothing of it is simulated: the members are what p2p-join runs, with swarms and sockets of their own, and SIP goes over UDP, TCP and streams of the overlay.",
        "run (the default) plays the signalling of the draft's figures with real calls: each as a ladder of what went over the wire, seen from all ends, with the numbers of the draft's steps. Then it registers the users with p2p-register, looks everything up with p2p-lookup, shows what they print, and ends. It exits 0 only if every step happened and every answer is right; the first step that did not happen is named.",
        "up prints lines for eval and stays until SIGTERM or Ctrl-C. In another terminal every tool then finds this world, as alice at her desk. sip:bob@p2psip.org and sip:bob@example.com answer calls; P2PSIP_PROXY is where a proxy peer takes SIP from outside. Alice may register at example.org: up says where her password is.",
    ],
    exits: &[
        (0, "every step happened, every answer was right"),
        (1, "some step did not, or some answer was wrong"),
        (2, "wrong usage"),
        (5, "local failure"),
    ],
    examples: &[
        Example { line: "p2p-lab", does: "watch the world at work" },
        Example { line: "p2p-lab up --peers 64 > lab.env &", does: "a world to use; then: . ./lab.env" },
        Example { line: "p2p-invite --ladder sip:bob@example.com", does: "there: out through a proxy peer" },
    ],
    bare: Args::command,
};

/// A whole P2PSIP world on loopback, in one process
#[derive(Debug, Parser)]
#[command(name = TOOL.name)]
struct Args {
    #[command(subcommand)]
    command: Option<Action>,

    /// Members of the overlay
    #[arg(long, value_name = "N", default_value_t = PEERS, value_parser = check::number(0..=100_000_usize), global = true)]
    peers: usize,

    /// Let members speak QUIC as well as TCP
    #[arg(long, global = true)]
    quic: bool,

    /// Keep the homes in this folder instead of a temporary one
    #[arg(long, value_name = "DIR", global = true)]
    folder: Option<PathBuf>,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Action {
    /// Play the figures, register users, look everything up, show it, and end (the default)
    Run,
    /// Print `export NAME=value` lines and stay until SIGTERM
    Up,
}

impl ToolArgs for Args {
    fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// Runs `p2p-lab` as this process.
pub fn main() -> ExitCode {
    tool::process(run)
}

/// Runs `p2p-lab` with `arguments` (without the program's name); returns its exit code.
pub fn run(arguments: Vec<OsString>, env: &Env, io: &mut Io<'_>) -> u8 {
    tool::run(&TOOL, arguments, env, io, |args: Args, env, output| {
        let strokes = Strokes::of(env);
        if output.io().owns_process {
            descriptors::raise_limit();
        }
        let mut options = LabOptions::new(args.peers).map_err(failure)?;
        options.quic = args.quic;
        options.folder = args.folder;
        options.sip = true;
        let run = Run::new(output, String::new);
        let Stayed { result, signal } = run.stay(Threads::Many, |ending| async {
            match args.command.unwrap_or(Action::Run) {
                Action::Run => tour(options, strokes, output, ending).await,
                Action::Up => up(options, output, ending).await,
            }
        })?;
        match signal {
            Some(Signal::Interrupt) => Err(Stop::Interrupted),
            Some(Signal::Terminate) => result.map(|_| 0),
            None => result,
        }
    })
}

fn failure(error: LabError) -> Failure {
    Failure::new(error.kind(), error)
}

/// Builds the world, unless the user has had enough before it stands.
async fn build(options: LabOptions, output: &Output<'_, '_>, ending: &Ending) -> Result<Option<World>, Stop> {
    let progress = output.progress();
    let (members, (sender, mut joined)) = (options.members, tokio::sync::watch::channel(0));
    progress.doing(|| format!("starting {}", count(members, "member")));
    let mut report = |joined| _ = sender.send_replace(joined);
    let building = World::start(options, &mut report);
    let counting = async {
        while joined.changed().await.is_ok() {
            let joined = *joined.borrow();
            progress.doing(|| format!("{joined} of {} have joined", count(members, "member")));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        world = building => Ok(Some(world.map_err(failure)?)),
        () = counting => Ok(None),
        () = ending.clone().begun() => Ok(None),
    }
}

/// `p2p-lab up`.
async fn up(options: LabOptions, output: &mut Output<'_, '_>, ending: Ending) -> Result<u8, Stop> {
    let began = Instant::now();
    let Some(world) = build(options, output, &ending).await? else { return Ok(0) };
    let environment = world.environment();
    if output.format() == Format::Json {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into()));
        let variables: serde_json::Map<String, serde_json::Value> = pairs.collect();
        let (members, elapsed_ms) = (world.members().len(), ms(began.elapsed()));
        output.json(&Up { status: "up", members, environment: variables, domains: world.domains(), elapsed_ms })?;
    } else {
        for (name, value) in &environment {
            output.line(&format!("export {name}={}", quoted(value)))?;
        }
        let members = count(world.members().len(), "member");
        output.note(&format!("{members} up after {:.1} s; SIGTERM or Ctrl-C ends", began.elapsed().as_secs_f64()));
        output.note("sip:bob@p2psip.org and sip:bob@example.com answer calls");
        // Whose phone nobody has registered yet.
        for DomainView { name, user, password, .. } in
            world.domains().iter().filter(|domain| domain.contacts.is_empty())
        {
            output.note(&format!("to register sip:{user}@{name}: --password-file {}", password.display()));
        }
    }
    ending.begun().await;
    world.stop().await;
    Ok(0)
}

/// A value as a shell reads it back: quoted if it has to be.
fn quoted(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.:-_@%+,=".contains(&byte);
    if !value.is_empty() && value.bytes().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', "'\\''"))
    }
}

#[derive(Serialize)]
struct Up {
    status: &'static str,
    members: usize,
    environment: serde_json::Map<String, serde_json::Value>,
    domains: Vec<DomainView>,
    elapsed_ms: f64,
}

/// One command of the tour: what is typed where, and what has to come of it.
struct Scene {
    /// What it shows.
    title: String,
    run: fn(Vec<OsString>, &Env, &mut Io<'_>) -> u8,
    words: Vec<String>,
    env: Env,
    /// The exit code that is right.
    expected: u8,
    /// How many records a lookup has to find.
    records: Option<usize>,
}

/// What came of a [`Scene`].
#[derive(Serialize)]
struct Played {
    command: String,
    exit: u8,
    expected: u8,
    right: bool,
    elapsed_ms: f64,
    outcome: serde_json::Value,
}

/// What the whole tour came to.
#[derive(Serialize)]
struct Tour {
    status: &'static str,
    members: usize,
    started_ms: f64,
    elapsed_ms: f64,
    figures: Vec<FigureOutcome>,
    steps: Vec<Played>,
}

/// `p2p-lab run`.
async fn tour(options: LabOptions, strokes: Strokes, output: &mut Output<'_, '_>, ending: Ending) -> Result<u8, Stop> {
    let began = Instant::now();
    let Some(mut world) = build(options, output, &ending).await? else { return Ok(0) };
    world.seat_alice().await.map_err(failure)?;
    let started = began.elapsed();
    let visible = output.format() != Format::Json;
    if visible {
        introduce(&world, started, output)?;
    }
    let mut figures = Vec::new();
    for figure in Figure::ALL {
        let played = tokio::select! {
            played = world.play(figure) => played,
            () = ending.clone().begun() => return Ok(0),
        };
        if visible {
            show(&played, strokes, output)?;
        }
        figures.push(played);
    }
    let mut steps = Vec::new();
    for scene in scenes(&world)? {
        let played = tokio::select! {
            played = play(scene, output) => played?,
            () = ending.clone().begun() => return Ok(0),
        };
        steps.push(played);
    }
    let members = world.members().len();
    world.stop().await;
    let right = steps.iter().filter(|step| step.right).count();
    let drawn = figures.iter().filter(|figure| figure.status == FigureStatus::AsDrawn).count();
    let status = if right == steps.len() && drawn == figures.len() { "ok" } else { "wrong" };
    if visible {
        let summary = format!(
            "{drawn} of {} figures as drawn, {right} of {} answers right, in {:.1} s with everything",
            figures.len(),
            steps.len(),
            began.elapsed().as_secs_f64()
        );
        output.text("\n")?;
        output.heading(&summary)?;
        output.note("to use such a world yourself: p2p-lab up");
    } else {
        let (started_ms, elapsed_ms) = (ms(started), ms(began.elapsed()));
        output.json(&Tour { status, members, started_ms, elapsed_ms, figures, steps })?;
    }
    Ok(u8::from(status != "ok"))
}

fn introduce(world: &World, started: Duration, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    let descriptor = world.descriptor();
    output.heading("A P2PSIP overlay on this machine's loopback")?;
    let mut grid = Grid::of_pairs();
    grid.pair("overlay", Cell::text(descriptor.overlay().to_string(), Tone::Subject));
    let policy = format!("{} (descriptor {})", descriptor.policy(), descriptor.hash().short());
    grid.pair("policy", Cell::text(policy, Tone::Plain));
    let members = format!("{}, up after {:.1} s", world.members().len(), started.as_secs_f64());
    grid.pair("members", Cell::text(members, Tone::Good));
    let replication = format!("{} members hold each record", descriptor.limits().replication);
    grid.pair("storers", Cell::text(replication, Tone::Plain));
    grid.pair("DNS", Cell::text(world.dns().to_string(), Tone::Plain));
    let proxies = world.proxies().iter().map(ToString::to_string).collect::<Vec<_>>();
    grid.pair("proxy peers", Cell::text(proxies.join(", "), Tone::Plain));
    for domain in world.domains() {
        grid.pair("SIP domain", Cell::text(format!("{} at {}", domain.name, domain.address), Tone::Plain));
    }
    output.table(&grid)
}

/// Draws a figure as it was played, and says whether that is what the draft draws.
fn show(played: &FigureOutcome, strokes: Strokes, output: &mut Output<'_, '_>) -> Result<(), Stop> {
    output.text("\n")?;
    output.heading(&format!("Figure {} (draft §{}): {}", played.figure, played.section, played.title))?;
    let numbered = || played.steps.iter().filter_map(|step| Some((step, step.step?)));
    let numbers = Numbers {
        messages: numbered().filter_map(|(step, number)| Some((step.message?, number))).collect(),
        asked: numbered().filter_map(|(step, number)| Some((step.asked?, number))).collect(),
    };
    output.figure(&played.flow, &numbers, strokes)?;
    if let Some(failure) = &played.failure {
        output.complain(failure);
        return Ok(());
    }
    let steps = numbered().map(|(_, number)| number).collect::<Vec<_>>().join(", ");
    let answered = played.call.as_ref().and_then(|call| call.answered_ms).unwrap_or_default();
    output.praise(&format!("steps {steps} as drawn; answered after {answered:.1} ms, hung up from end to end"))
}

/// What the tour shows: each device registers, then a visitor who holds no keys looks everything up.
fn scenes(world: &World) -> Result<Vec<Scene>, Stop> {
    let mut scenes = Vec::new();
    for user in world.users() {
        scenes.push(Scene {
            title: format!(
                "{} registers: its binding is signed, and stored by those responsible (draft §4.1)",
                user.name
            ),
            run: register::run,
            words: vec!["p2p-register".to_owned(), user.aor.to_string()],
            env: Env::new(world.folder()).with("P2PSIP_HOME", &user.home),
            expected: 0,
            records: None,
        });
    }
    let visitor = world.folder().join("visitor");
    let home = Home::open(&visitor, true).map_err(LabError::from).map_err(failure)?;
    home.set_descriptor(world.descriptor()).map_err(LabError::from).map_err(failure)?;
    let visitor = Env::new(world.folder()).with("P2PSIP_HOME", visitor).with("P2PSIP_DNS", world.dns().to_string());
    let overlay = world.descriptor().overlay();
    let lookups = [
        (
            "a visitor finds the overlay through the DNS, and both of alice's devices",
            format!("sip:alice@{overlay}"),
            "auto",
            2,
        ),
        ("and bob, walking through the overlay himself", format!("sip:bob@{overlay}"), "walk", 1),
        ("the proxy peers, under their well-known URI (draft §3.3.1)", format!("sip:{overlay}"), "walk", 2),
        ("the TURN relay agent peers (draft §3.3.2)", format!("turn:{overlay}"), "walk", 2),
        ("nobody, which is proven rather than guessed: exit code 1", format!("sip:nobody@{overlay}"), "walk", 0),
    ];
    for (title, uri, via, records) in lookups {
        let mut words = vec!["p2p-lookup".to_owned(), uri];
        if via != "auto" {
            words.extend(["--via".to_owned(), via.to_owned()]);
        }
        scenes.push(Scene {
            title: title.to_owned(),
            run: lookup::run,
            words,
            env: visitor.clone(),
            expected: u8::from(records == 0),
            records: Some(records),
        });
    }
    Ok(scenes)
}

/// Runs a tool twice over in a thread of its own: for people, and for the check of its answer.
async fn play(scene: Scene, output: &mut Output<'_, '_>) -> Result<Played, Stop> {
    let command = scene.words.join(" ");
    let visible = output.format() != Format::Json;
    if visible {
        output.text("\n")?;
        output.heading(&scene.title)?;
        output.line(&format!("$ {command}"))?;
    }
    let look =
        if visible { vec!["--color", if output.is_coloured() { "always" } else { "never" }] } else { vec!["--json"] };
    let width = output.io().width;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let arguments: Vec<OsString> =
        scene.words.iter().skip(1).map(OsString::from).chain(look.into_iter().map(OsString::from)).collect();
    let json: Vec<OsString> =
        scene.words.iter().skip(1).map(OsString::from).chain([OsString::from("--json")]).collect();
    let (run, env) = (scene.run, scene.env);
    // A tool brings a runtime of its own, which this one's threads must not wait for.
    std::thread::spawn(move || {
        let began = Instant::now();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut io = Io::captured(&mut out, &mut err);
        io.width = width;
        let exit = run(arguments, &env, &mut io);
        let elapsed = began.elapsed();
        let answer = if visible && scene.records.is_some() {
            let (mut answer, mut ignored) = (Vec::new(), Vec::new());
            run(json, &env, &mut Io::captured(&mut answer, &mut ignored));
            answer
        } else {
            out.clone()
        };
        // Whoever waits may have been interrupted.
        let _ = sender.send((exit, elapsed, out, err, answer));
    });
    let Ok((exit, elapsed, out, err, answer)) = receiver.await else {
        return Err(Failure::new(Kind::Local, anyhow::anyhow!("{command} broke off")).into());
    };
    if visible {
        output.text(&String::from_utf8_lossy(&out))?;
        output.text(&String::from_utf8_lossy(&err))?;
    }
    let outcome: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    let found = outcome.get("records").and_then(|records| records.as_array()).map(Vec::len);
    let right = exit == scene.expected && scene.records.is_none_or(|records| found == Some(records));
    if visible && !right {
        output.warn(&format!("exit code {exit} instead of {}, or not the records expected", scene.expected));
    }
    Ok(Played { command, exit, expected: scene.expected, right, elapsed_ms: ms(elapsed), outcome })
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn exported_values_survive_a_shell() {
        assert_eq!(quoted("127.0.0.1:53"), "127.0.0.1:53");
        assert_eq!(quoted("/ip4/a /ip4/b"), "'/ip4/a /ip4/b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
