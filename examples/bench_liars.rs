//! Members that lie, beside which `bench/lookup` measures: run in a world of `p2p-lab up`, until standard input ends.
//!
//! `bench_liars COUNT NAME` joins as COUNT members through P2PSIP_PEER. By turns they are *stale* (each keeps the first
//! record that it sees of an instance, and returns that for good), *withhold* (take every record and return none),
//! *forge* (return what they hold with a damaged signature) and *ghostly* (tell only of peers that do not exist). The
//! first two are so close to NAME that they are among its storers. A line says when all members know them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::future::join_all;
use p2psip::{
    client::{
        Call, Closest, ClosestReply, Digest, DigestReply, ErrorCode, ErrorReply, Fetch, FetchReply, Keep, PeerInfo,
        RequestFrame, ResponseFrame, Status, Store, StoreReply,
    },
    clock::UnixMs,
    identity::{Home, SecretKey},
    name::{InstanceId, PeerId, Position, ResourceName},
    overlay::{
        Answer, Caller, Responder,
        swarm::{Network, NetworkConfig},
    },
    record::Trust,
};

// As in the tools that are members.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many leading bits the first liars have in common with the name: enough to be its storers among some hundred.
const NEAR: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// How a member lies.
#[derive(Clone, Copy)]
enum Lie {
    Stale,
    Withholding,
    Forging,
    Ghostly,
}

const LIES: [Lie; 4] = [Lie::Stale, Lie::Forging, Lie::Withholding, Lie::Ghostly];

struct Liar {
    lie: Lie,
    network: Network,
    trust: Arc<Trust>,
    /// The first record of each instance.
    first: Mutex<BTreeMap<(Position, InstanceId), Vec<u8>>>,
}

impl Liar {
    fn first(&self) -> MutexGuard<'_, BTreeMap<(Position, InstanceId), Vec<u8>>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, target: Position) -> Vec<Vec<u8>> {
        let all = self.first();
        let held = all.iter().filter(|((position, _), _)| *position == target).map(|(_, envelope)| envelope.clone());
        match self.lie {
            Lie::Stale => held.collect(),
            Lie::Withholding | Lie::Ghostly => Vec::new(),
            Lie::Forging => held
                .map(|mut envelope| {
                    if let Some(last) = envelope.last_mut() {
                        *last ^= 1;
                    }
                    envelope
                })
                .collect(),
        }
    }

    fn closer(&self, target: &Position) -> Vec<PeerInfo> {
        if !matches!(self.lie, Lie::Ghostly) {
            return self.network.closest(target, 20);
        }
        let ghost =
            |n| PeerInfo { peer: PeerId::from_public_key([n; 32]), addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()] };
        let mut ghosts: Vec<_> = (0..=u8::MAX).map(ghost).collect();
        ghosts.sort_by_key(|info| info.peer.position().distance(target));
        ghosts.truncate(20);
        ghosts
    }

    /// `None`: it serves no such requests, or cannot read this one.
    fn answer(&self, frame: &RequestFrame) -> Option<ResponseFrame> {
        Some(match frame.service.as_str() {
            Closest::SERVICE => {
                let call: Closest = frame.call().ok()?;
                ResponseFrame::of::<Closest>(Ok(&ClosestReply { peers: self.closer(&call.target) }))
            }
            Fetch::SERVICE => {
                let call: Fetch = frame.call().ok()?;
                let envelopes = self.held(call.target).into_iter().map(Into::into).collect();
                ResponseFrame::of::<Fetch>(Ok(&FetchReply { envelopes, closer: self.closer(&call.target) }))
            }
            Store::SERVICE => {
                let envelope = frame.call::<Store>().ok()?.envelope;
                if let Ok(record) = self.trust.verify(&envelope, None, UnixMs::now()) {
                    self.first().entry((*record.position(), *record.instance())).or_insert(envelope.into_vec());
                }
                ResponseFrame::of::<Store>(Ok(&StoreReply::Stored))
            }
            Digest::SERVICE => ResponseFrame::of::<Digest>(Ok(&DigestReply::default())),
            Keep::SERVICE => ResponseFrame::of::<Keep>(Ok(&StoreReply::Stored)),
            _ => return None,
        })
    }
}

impl Responder for Liar {
    fn respond(&self, _: Caller, frame: RequestFrame) -> Answer {
        let refused = || ResponseFrame::Error(ErrorReply::new(ErrorCode::Unavailable, "not here"));
        Answer::Now(self.answer(&frame).unwrap_or_else(refused))
    }
}

/// A key whose position has so many bits in common with another one.
fn key_near(target: &Position, bits: u32) -> Result<SecretKey> {
    loop {
        let key = SecretKey::generate()?;
        if key.peer_id().position().distance(target).common_prefix() >= bits {
            return Ok(key);
        }
    }
}

/// Everybody in the overlay, by asking one after the other for their neighbours.
async fn everybody(network: &Network, entries: Vec<PeerInfo>) -> Vec<PeerInfo> {
    let (mut known, mut asked): (Vec<PeerInfo>, usize) = (entries, 0);
    while let Some(info) = known.get(asked).cloned() {
        asked += 1;
        let call = Closest { target: info.peer.position(), count: 20 };
        let told = network.call(&info, &call, PATIENCE).await.map(|reply| reply.peers).unwrap_or_default();
        for info in told {
            if known.iter().all(|one| one.peer != info.peer) {
                known.push(info);
            }
        }
    }
    known
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().context("how many?")?.parse()?;
    let name = ResourceName::parse(&arguments.next().context("near which name?")?)?;
    let home = Home::open(std::env::var("P2PSIP_HOME")?.as_ref(), false)?;
    let descriptor = Arc::new(home.descriptor()?.context("the home has no descriptor")?);
    let trust = Arc::new(Trust::new(descriptor.clone(), None));
    let mut entries = Vec::new();
    for text in std::env::var("P2PSIP_PEER")?.split_whitespace() {
        let (address, peer) = text.rsplit_once("/p2p/").context("P2PSIP_PEER")?;
        let peer = peer.parse().map_err(|error| anyhow!("{error}"))?;
        entries.push(PeerInfo { peer, addresses: vec![address.to_owned()] });
    }
    let mut liars = Vec::new();
    for (nth, lie) in LIES.into_iter().cycle().take(count).enumerate() {
        let key = if nth < 2 { key_near(&name.position(), NEAR)? } else { SecretKey::generate()? };
        let mut config = NetworkConfig::member(descriptor.overlay().clone(), descriptor.hash());
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let (network, bound) = Network::bind(config, &key).await?;
        bound.run(Arc::new(Liar { lie, network: network.clone(), trust: trust.clone(), first: Mutex::default() }));
        liars.push(network);
    }
    let scout = liars.first().context("no liar at all")?;
    let mut members = everybody(scout, entries).await;
    members.retain(|info| liars.iter().all(|liar| liar.peer() != info.peer));
    for liar in &liars {
        let told = join_all(members.iter().map(|info| liar.call(info, &Status {}, PATIENCE))).await;
        ensure!(told.iter().any(Result::is_ok), "nobody answers");
    }
    let mut out = std::io::stdout();
    writeln!(out, "{} liars among {} members", liars.len(), members.len())?;
    out.flush()?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
