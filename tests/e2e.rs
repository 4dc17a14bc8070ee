#![allow(clippy::unwrap_used)]
use std::time::{Duration, Instant};
use p2psip::{lab::*, ops::{*, self}, name::*};
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spine() {
    tracing_subscriber::fmt().with_env_filter(std::env::var("RUST_LOG").unwrap_or("warn".into())).with_writer(std::io::stderr).init();
    let n: usize = std::env::var("N").map(|n| n.parse().unwrap()).unwrap_or(16);
    let t = Instant::now();
    let world = World::start(LabOptions::new(n).unwrap(), &mut |_| ()).await.unwrap();
    eprintln!("started {n} in {:?}", t.elapsed());
    for user in world.users() {
        let access = Access { overlay: None, descriptor: None, peers: vec![], socket: None, dns: vec![world.dns()], home: user.home.clone(), timeout: Duration::from_secs(5), family: Family::Any };
        let request = ops::register::RegisterRequest { aor: user.aor.clone(), contacts: vec![], expires: None, remove: false, stay: false };
        ops::register::register(&access, &request, &mut |o| eprintln!("{} {:?} stored {} read back {} kept {} refused {:?} silent {} {:.1} ms", o.aor, o.status, o.stored.len(), o.read_back, o.kept_by.len(), o.refused, o.silent, o.elapsed_ms), std::future::pending()).await.unwrap();
    }
    for via in [ViaChoice::Socket, ViaChoice::Peer, ViaChoice::Walk] {
      for name in ["sip:alice@p2psip.org", "sip:bob@p2psip.org", "sip:p2psip.org", "turn:p2psip.org", "sip:nobody@p2psip.org"] {
        let access = Access { overlay: None, descriptor: None, peers: world.entries(), socket: None, dns: vec![world.dns()], home: world.users()[0].home.clone(), timeout: Duration::from_secs(5), family: Family::Any };
        let o = ops::lookup::lookup(&access, &ResourceName::parse(name).unwrap(), via).await.unwrap();
        eprintln!("{via:?} {name} {:?} {} records, storers {} requests {} silent {} hops {} {:.1} ms", o.status, o.records.len(), o.storers, o.requests, o.silent, o.hops, o.elapsed_ms);
      }
    }
    let s: Vec<_> = world.members().iter().map(|m| m.status()).collect();
    eprintln!("records {:?}", s.iter().map(|s| s.records).collect::<Vec<_>>());
    eprintln!("peers {:?}", s.iter().map(|s| s.peers).collect::<Vec<_>>());
    eprintln!("conns {:?}", s.iter().map(|s| s.connections).collect::<Vec<_>>());
    world.stop().await;
}
