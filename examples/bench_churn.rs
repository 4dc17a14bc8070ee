//! Half of an overlay is killed at once while readers look names up; prints what became of the lookups, as JSON.
//!
//! `cargo run --release --example bench_churn [-- MEMBERS]`, or `bench/churn`. The readers are members that survive: half
//! of the overlay, outside the [`World`] so that they can go on reading while the world loses its own.

mod registered;

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use p2psip::{
    client::Verdict,
    identity::SecretKey,
    lab::{LabOptions, World},
    member::{Member, MemberConfig},
    name::PeerId,
};
use serde_json::json;

use self::registered::Registered;

/// Names looked up.
const NAMES: usize = 32;
/// Readers, each on one member after the other.
const READERS: usize = 8;
/// Between two lookups of a reader: two cores must not be what is measured.
const PAUSE: Duration = Duration::from_millis(20);
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_secs(5);

/// One lookup.
struct Read {
    began: Instant,
    took: Duration,
    /// What it came to instead of the record.
    wrong: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let members: usize = std::env::args().nth(1).map_or(Ok(128), |text| text.parse()).context("how many members?")?;
    let survivors = members / 2;
    let mut options = LabOptions::new(members - survivors)?;
    options.replication = 8;
    let mut world = World::start(options, &mut |_| {}).await?;
    let mut readers = Vec::with_capacity(survivors);
    while readers.len() < survivors {
        readers.push(Arc::new(join(&world, readers.len()).await?));
    }
    let readers = Arc::new(readers);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut names = Vec::with_capacity(NAMES);
    for (index, member) in (0..NAMES).zip(readers.iter().cycle()) {
        names.push(Registered::new(&world, member, index).await?);
    }
    let names = Arc::new(names);

    let stop = Arc::new(AtomicBool::new(false));
    let turn = Arc::new(AtomicUsize::new(0));
    let reading: Vec<_> =
        (0..READERS).map(|_| tokio::spawn(read(readers.clone(), names.clone(), turn.clone(), stop.clone()))).collect();
    tokio::time::sleep(BEFORE).await;
    let dead: Vec<PeerId> = world.members().iter().map(Member::peer).collect();
    let killed = Instant::now();
    while !world.members().is_empty() {
        world.kill(world.members().len() - 1);
    }
    let killing = killed.elapsed();
    tokio::time::sleep(AFTER).await;
    stop.store(true, Ordering::Relaxed);
    let mut reads = Vec::new();
    for reader in reading {
        reads.extend(reader.await?);
    }

    let orphaned = names.iter().filter(|name| name.storers.iter().all(|storer| dead.contains(storer))).count();
    // A lookup that was under way when the members died counts as one of those after.
    let (before, after): (Vec<_>, Vec<_>) = reads.into_iter().partition(|read| read.began + read.took < killed);
    let wrong: Vec<_> = after
        .iter()
        .filter_map(|read| {
            let since = milliseconds(read.began.saturating_duration_since(killed));
            read.wrong
                .as_ref()
                .map(|what| json!({ "began_ms": since, "took_ms": milliseconds(read.took), "what": what }))
        })
        .collect();
    let report = json!({
        "members": members,
        "killed": dead.len(),
        "killing_ms": milliseconds(killing),
        "names": names.len(),
        "names_without_a_storer": orphaned,
        "before": summary(&before),
        "after": summary(&after),
        "wrong": wrong,
    });
    writeln!(std::io::stdout(), "{report:#}")?;
    Ok(())
}

/// One more member, that joins through three of the world's.
async fn join(world: &World, index: usize) -> Result<Member> {
    let mut config = MemberConfig::new(world.descriptor().clone(), Arc::new(SecretKey::generate()?));
    config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.network.bucket_size = 8;
    config.timing = LabOptions::new(LabOptions::MIN_MEMBERS)?.timing;
    let members = world.members();
    config.peers =
        (0..3).filter_map(|step| members.get((index + step * 17) % members.len())).map(Member::info).collect();
    Ok(Member::start(config).await?)
}

/// Looks names up through one member after the other until told to stop.
async fn read(
    members: Arc<Vec<Arc<Member>>>,
    names: Arc<Vec<Registered>>,
    turn: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Vec<Read> {
    let mut reads = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        // 7 has no factor in common with the number of names, so every pair of member and name comes round.
        let (Some(member), Some(name)) = (members.get(turn % members.len()), names.get(turn * 7 % names.len())) else {
            break;
        };
        let began = Instant::now();
        let outcome = member.lookup(name.name.clone(), TIMEOUT).await;
        let sequences = outcome.records.iter().map(|record| record.sequence());
        let right = outcome.reply.verdict == Verdict::Found && sequences.eq([name.sequence]);
        let reply = &outcome.reply;
        let wrong = (!right).then(|| {
            let (verdict, storers, requests, silent) = (reply.verdict, reply.storers, reply.requests, reply.silent);
            format!(
                "{verdict:?}, {storers} storers, {requests} requests, {silent} silent; stored at {}",
                name.storers.len()
            )
        });
        reads.push(Read { began, took: began.elapsed(), wrong });
        tokio::time::sleep(PAUSE).await;
    }
    reads
}

fn summary(reads: &[Read]) -> serde_json::Value {
    let mut times: Vec<_> = reads.iter().map(|read| read.took).collect();
    times.sort_unstable();
    let percentile = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    let right = reads.iter().filter(|read| read.wrong.is_none()).count();
    json!({
        "lookups": reads.len(),
        "right": right,
        "wrong": reads.len() - right,
        "p50_ms": percentile(50).map(milliseconds),
        "p99_ms": percentile(99).map(milliseconds),
        "max_ms": times.last().copied().map(milliseconds),
    })
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 1e2
}
