//! What a lookup costs as the overlay grows: requests, hops and time, as JSON lines, one for each size.
//!
//! `cargo run --release --example bench_hops [-- SIZE...]`, or `bench/hops`, which draws it. Two ways to look up are
//! measured: by a member, whose connections are warm, and by a stranger who knows one member and walks by himself.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use p2psip::{
    client::{ErrorCode, ErrorReply, LookupReply, RequestFrame, ResponseFrame, Verdict},
    identity::SecretKey,
    lab::{LabOptions, World},
    name::{OverlayId, ResourceName, Service, ServiceUri},
    overlay::{
        Answer, Caller, Responder, drive,
        lookup::LookupConfig,
        swarm::{Network, NetworkConfig},
    },
    record::Trust,
};
use serde_json::json;

const SIZES: [usize; 6] = [8, 16, 32, 64, 128, 256];
/// Lookups of each kind at each size.
const LOOKUPS: usize = 200;
const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    let sizes: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    for size in if sizes.is_empty() { SIZES.to_vec() } else { sizes } {
        let world = World::start(LabOptions::new(size)?, &mut |_| {}).await?;
        // Members go on introducing themselves for a while.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let names = names(world.descriptor().overlay());
        let mut member = Costs::default();
        for (name, asked) in names.iter().cycle().zip(world.members().iter().cycle()).take(LOOKUPS) {
            let began = Instant::now();
            let outcome = asked.lookup(name.clone(), TIMEOUT).await;
            member.add(&outcome.reply, began.elapsed())?;
        }
        let mut stranger = Costs::default();
        for (name, entry) in names.iter().cycle().zip(world.members().iter().cycle()).take(LOOKUPS) {
            let began = Instant::now();
            let network = client(&world).await?;
            let config = LookupConfig::for_overlay(world.descriptor().limits()).within(TIMEOUT);
            let trust = Arc::new(Trust::new(world.descriptor().clone(), None));
            let outcome = drive::lookup(&network, name.clone(), vec![entry.info()], None, config, trust).await;
            stranger.add(&outcome.reply, began.elapsed())?;
        }
        let line = json!({ "members": size, "member": member.report(), "stranger": stranger.report() });
        writeln!(std::io::stdout(), "{line}")?;
        world.stop().await;
    }
    Ok(())
}

/// Names that exist in every lab.
fn names(overlay: &OverlayId) -> Vec<ResourceName> {
    [Service::Proxy, Service::Turn].map(|service| ServiceUri::new(service, overlay.clone()).into()).to_vec()
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
    fn add(&mut self, reply: &LookupReply, took: Duration) -> Result<()> {
        ensure!(reply.verdict == Verdict::Found && reply.envelopes.len() == 2, "wrong answer: {:?}", reply.verdict);
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
