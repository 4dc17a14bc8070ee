//! What a lookup costs as the overlay grows: requests, hops and time, as JSON lines, one for each size.
//!
//! `cargo run --release --example bench_hops [-- SIZE...]`, or `bench/hops`, which draws it. Three ways to look up are
//! measured: by a member, whose connections are warm, for the first time and again, and by a stranger who knows one
//! member and walks by himself.

mod registered;

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use p2psip::{
    client::{ErrorCode, ErrorReply, RequestFrame, ResponseFrame, Verdict},
    identity::SecretKey,
    lab::{LabOptions, World},
    overlay::{
        Answer, Caller, Responder, drive,
        lookup::{LookupConfig, LookupOutcome},
        swarm::{Network, NetworkConfig},
    },
    record::Trust,
};
use serde_json::json;

use self::registered::Registered;

const SIZES: [usize; 6] = [8, 16, 32, 64, 128, 256];
/// Names looked up.
const NAMES: usize = 32;
/// Lookups of each kind at each size: as many pairs of a name and who asks.
const LOOKUPS: usize = 200;
const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    let sizes: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    for size in if sizes.is_empty() { SIZES.to_vec() } else { sizes } {
        let world = World::start(LabOptions::new(size)?, &mut |_| {}).await?;
        // Members go on introducing themselves for a while.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut names = Vec::with_capacity(NAMES);
        for (index, member) in (0..NAMES).zip(world.members().iter().cycle()) {
            names.push(Registered::new(&world, member, index).await?);
        }
        // Three are enough for a lookup.
        ensure!(names.iter().all(|name| name.storers.len() >= 3), "too few storers");
        let pairs = || (0..LOOKUPS).filter_map(|nth| Some((names.get(nth % NAMES)?, nth / NAMES + nth % NAMES)));
        let (mut first, mut again, mut stranger) = (Costs::default(), Costs::default(), Costs::default());
        for (wanted, asked) in pairs() {
            let asked = world.members().get(asked % size).context("no such member")?;
            for costs in [&mut first, &mut again] {
                let began = Instant::now();
                let outcome = asked.lookup(wanted.name.clone(), TIMEOUT).await;
                costs.add(wanted, &outcome, began.elapsed())?;
            }
        }
        for (wanted, entry) in pairs() {
            let began = Instant::now();
            let network = client(&world).await?;
            let config = LookupConfig::for_overlay(world.descriptor().limits()).within(TIMEOUT);
            let trust = Arc::new(Trust::new(world.descriptor().clone(), None));
            let entry = world.members().get(entry % size).context("no such member")?.info();
            let outcome = drive::lookup(&network, wanted.name.clone(), vec![entry], None, config, trust).await;
            stranger.add(wanted, &outcome, began.elapsed())?;
        }
        let line = json!({ "members": size, "member": first.report(), "again": again.report(), "stranger": stranger.report() });
        writeln!(std::io::stdout(), "{line}")?;
        world.stop().await;
    }
    Ok(())
}

/// A process that asks and is no member.
async fn client(world: &World) -> Result<Network> {
    let descriptor = world.descriptor();
    let config = NetworkConfig::client(descriptor.overlay().clone(), descriptor.hash(), TIMEOUT);
    let (network, bound) = Network::bind(config, &SecretKey::generate()?).await.context("cannot start a client")?;
    bound.run(Arc::new(Deaf));
    Ok(network)
}

/// What so many lookups cost.
#[derive(Default)]
struct Costs {
    requests: Vec<f64>,
    hops: Vec<f64>,
    milliseconds: Vec<f64>,
}

impl Costs {
    fn add(&mut self, wanted: &Registered, outcome: &LookupOutcome, took: Duration) -> Result<()> {
        let reply = &outcome.reply;
        let right = outcome.records.iter().map(|record| record.sequence()).eq([wanted.sequence]);
        ensure!(reply.verdict == Verdict::Found && right, "wrong answer: {:?}", reply.verdict);
        self.requests.push(reply.requests.into());
        self.hops.push(reply.hops.into());
        self.milliseconds.push(took.as_secs_f64() * 1e3);
        Ok(())
    }

    fn report(&mut self) -> serde_json::Value {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let longest = self.hops.iter().copied().fold(0.0, f64::max);
        let (requests, hops) = (mean(&self.requests), mean(&self.hops));
        self.milliseconds.sort_unstable_by(f64::total_cmp);
        let times = &self.milliseconds;
        let percentile = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1));
        json!({
            "lookups": times.len(),
            "requests_mean": requests,
            "hops_mean": hops,
            "hops_max": longest,
            "median_ms": percentile(50),
            "p90_ms": percentile(90),
        })
    }
}

/// A client answers nothing.
struct Deaf;

impl Responder for Deaf {
    fn respond(&self, _: Caller, _: RequestFrame) -> Answer {
        Answer::Now(ResponseFrame::Error(ErrorReply::new(ErrorCode::Unavailable, "this is a client")))
    }
}
