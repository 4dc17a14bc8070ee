//! How evenly the members of an overlay bear it that 1,000 clients look for relays, as JSON lines, one for each size.
//!
//! `cargo run --release --example bench_services [-- SIZE[:SEED]...]`, or `bench/services`, which draws it. The overlay
//! is in memory under virtual time, and runs the machines that the real one runs. One member in four is a relay. Every
//! client asks a member for a relay once in ten seconds, for some minutes, in three ways: all relays under one key; in the
//! tree, where nobody remembers anything (cold); and in the tree, where members remember what they found for half a
//! minute, and how deep the tree is (warm). Counted is every request of one member that another serves.

use std::{collections::BTreeMap, io::Write as _, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use p2psip::{
    clock::UnixMs,
    identity::{Descriptor, Limits, Policy},
    name::{OverlayId, ResourceName, ServiceNode, ServiceUri, TreeNode},
    overlay::{
        memory::{MemoryConfig, MemoryOverlay, Vantage},
        redir::Wanted,
    },
};
use serde_json::{Value, json};

const SIZES: [usize; 4] = [64, 256, 1_000, 10_000];
/// One member in so many is a relay.
const SHARE: usize = 4;
const CLIENTS: usize = 1_000;
/// The time between two lookups of a client.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long a member remembers what it has found.
const MEMORY: Duration = Duration::from_secs(30);
/// So long they look at least, in intervals.
const ROUNDS: u32 = 20;
/// And longer, until so many requests have come to each member on average: then the busiest is not so by chance.
const MEAN: u64 = 200;
/// But not for ever.
const MAX_ROUNDS: u32 = 2_000;
/// Discoveries of ten relays.
const TENS: usize = 500;
/// How often relays renew their offers, in the overlay's own time: before they expire.
const RENEWAL: Duration = Duration::from_secs(60);
/// For how long their offers hold.
const LIFETIME: Duration = Duration::from_secs(180);

fn main() -> Result<()> {
    let sizes = std::env::args().skip(1).map(|text| {
        let (size, seed) = text.split_once(':').unwrap_or((&text, "1"));
        Ok((size.parse()?, seed.parse()?))
    });
    let sizes = sizes.collect::<Result<Vec<(usize, u64)>>>()?;
    for (size, seed) in if sizes.is_empty() { SIZES.map(|size| (size, 1)).to_vec() } else { sizes } {
        let mut bench = Bench::new(size, seed)?;
        let line = json!({
            "members": size,
            "seed": seed,
            "relays": bench.relays,
            "single": bench.single_key()?,
            "cold": bench.tree(false)?,
            "warm": bench.tree(true)?,
            "ten": bench.ten()?,
        });
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}

struct Bench {
    overlay: MemoryOverlay,
    service: ServiceUri,
    members: usize,
    relays: usize,
    /// Where in the tree each relay is.
    depths: BTreeMap<usize, u8>,
}

impl Bench {
    fn new(members: usize, seed: u64) -> Result<Self> {
        let id = OverlayId::parse("p2psip.org")?;
        let descriptor = Descriptor::new(id, false, Policy::Open, None, Limits::default())?;
        let config = MemoryConfig { members, seed, ..MemoryConfig::default() };
        let overlay = MemoryOverlay::new(Arc::new(descriptor), config, UnixMs(1_700_000_000_000));
        let service = ServiceUri::parse("turn:p2psip.org")?;
        let (relays, depths) = (members.div_ceil(SHARE), BTreeMap::new());
        let mut bench = Self { overlay, service, members, relays, depths };
        // Until what was listed at first, when nobody knew where in the tree it would be, has expired.
        for _ in 0..=LIFETIME.div_duration_f64(RENEWAL) as u32 {
            bench.offer()?;
        }
        Ok(bench)
    }

    fn offer(&mut self) -> Result<()> {
        for index in (0..self.members).step_by(SHARE) {
            let depth = self.depths.get(&index).copied();
            let listing = self.overlay.meanwhile(|overlay| overlay.offer(index, &self.service, depth, LIFETIME));
            self.depths.insert(index, listing.context("an offer was refused")?.depth);
            self.overlay.advance(RENEWAL / u32::try_from(self.relays)?);
        }
        Ok(())
    }

    /// The member that a client asks: any, and always the same.
    const fn member_of(&self, client: usize) -> usize {
        (client * 7_919 + 13) % self.members
    }

    fn single_key(&mut self) -> Result<Value> {
        let key = ResourceName::from(ServiceNode::new(self.service.clone(), TreeNode::ROOT));
        // Nobody needs to look closely to see who is busiest.
        self.measure(0, |bench, member, _| {
            let outcome = bench.overlay.meanwhile(|overlay| overlay.lookup(&Vantage::Member(member), &key));
            ensure!(!outcome.records.is_empty(), "no relay found");
            Ok((outcome.reply.requests, outcome.took))
        })
    }

    fn tree(&mut self, remembers: bool) -> Result<Value> {
        // When each member last looked for itself.
        let mut remembered: BTreeMap<usize, Duration> = BTreeMap::new();
        let mut depths: BTreeMap<usize, f64> = BTreeMap::new();
        self.measure(MEAN, |bench, member, now| {
            if remembers && remembered.get(&member).is_some_and(|at| now - *at < MEMORY) {
                return Ok((0, Duration::ZERO));
            }
            let (from, depth) = (Vantage::Member(member), depths.get(&member).copied());
            let service = &bench.service;
            let outcome = bench.overlay.meanwhile(|overlay| overlay.discover(&from, service, Wanted::Some(1), depth));
            ensure!(!outcome.records.is_empty(), "no relay found");
            if remembers {
                remembered.insert(member, now);
                if let Some(depth) = outcome.depth() {
                    let known = depths.entry(member).or_insert(depth);
                    *known += (depth - *known) / 4.0;
                }
            }
            Ok((outcome.reply.requests, outcome.took))
        })
    }

    /// Has all clients look, and says how the load was spread.
    fn measure(
        &mut self,
        mean: u64,
        mut look: impl FnMut(&mut Self, usize, Duration) -> Result<(u32, Duration)>,
    ) -> Result<Value> {
        let before: Vec<u64> = self.overlay.served().collect();
        let (mut served, mut requests, mut rounds, mut took) = (Vec::new(), 0, 0, Duration::ZERO);
        let enough = mean * self.members as u64;
        while rounds < ROUNDS || (rounds < MAX_ROUNDS && served.iter().sum::<u64>() < enough) {
            let now = INTERVAL * rounds;
            for client in 0..CLIENTS {
                let member = self.member_of(client);
                let (spent, time) = look(self, member, now)?;
                requests += u64::from(spent);
                took += time;
            }
            rounds += 1;
            served = self.overlay.served().zip(&before).map(|(after, before)| after - before).collect();
        }
        served.sort_unstable();
        let lookups = CLIENTS as f64 * f64::from(rounds);
        let mean = served.iter().sum::<u64>() as f64 / self.members as f64;
        let at =
            |share: f64| served.get((served.len() as f64 * share).ceil() as usize - 1).copied().unwrap_or(0) as f64;
        Ok(json!({
            "requests": requests as f64 / lookups,
            "ms": took.as_secs_f64() * 1e3 / lookups,
            "rounds": rounds,
            "mean": mean,
            "max": at(1.0),
            "max_over_mean": at(1.0) / mean,
            "p99_over_mean": at(0.99) / mean,
            // Of a thousand lookups, how many requests come to the busiest member.
            "busiest_permille": at(1.0) / lookups * 1e3,
        }))
    }

    fn ten(&mut self) -> Result<Value> {
        let wanted = 10.min(self.relays);
        // As deep as members know it to be that have looked for relays for a while.
        let depth = self.overlay.discover(&Vantage::Member(0), &self.service, Wanted::All, None).depth();
        let (mut requests, mut nodes, mut times) = (0, 0, Vec::new());
        for nth in 0..TENS {
            let from = Vantage::Member(self.member_of(nth));
            let outcome = self.overlay.discover(&from, &self.service, Wanted::Some(wanted), depth);
            ensure!(outcome.records.len() >= wanted, "{} of {wanted} found", outcome.records.len());
            requests += outcome.reply.requests;
            nodes += outcome.nodes;
            times.push(outcome.took.as_secs_f64() * 1e3);
        }
        times.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| times.get((TENS * percent).div_ceil(100) - 1);
        Ok(json!({
            "wanted": wanted,
            "requests": f64::from(requests) / TENS as f64,
            "tree_nodes": f64::from(nodes) / TENS as f64,
            "median_ms": at(50),
            "p90_ms": at(90),
        }))
    }
}
