//! An overlay in which a quarter of the members lies (draft §6; R29).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::future::join_all;
use p2psip::{
    client::{
        Call, Closest, ClosestReply, Digest, DigestReply, ErrorCode, ErrorReply, Fetch, FetchReply, Keep, MAX_FRAME,
        PeerInfo, RequestFrame, ResponseFrame, Status, Store, StoreReply, Verdict,
    },
    clock::UnixMs,
    identity::SecretKey,
    lab::World,
    member::{Member, MemberConfig},
    name::{PeerId, Position, ResourceName},
    overlay::{
        Answer, Caller, Responder,
        swarm::{Network, NetworkConfig},
    },
    record::{Payload, Trust},
};

use crate::{
    forge::{Shown, signed, signed_with},
    world::{PATIENCE, Ran, TestWorld, User, eventually, lookup, register},
};

/// How a member lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// It returns records that it has made up.
    Forging,
    /// It keeps the first record of each name, and returns that for good.
    Replaying,
    /// It acknowledges what it is to store, and has nothing.
    Withholding,
    /// It takes requests and never answers.
    Hanging,
    /// It answers what nobody can use: no frame, a megabyte of zeros, ten thousand peers that do not exist.
    Babbling,
    /// It has nothing and knows nobody but other liars, and peers that do not exist next to any target.
    Conspiring,
}

/// What liars share.
struct Ring {
    trust: Trust,
    liars: Mutex<Vec<PeerInfo>>,
    /// What forgers return, by position.
    forged: Mutex<BTreeMap<Position, Vec<u8>>>,
}

impl Ring {
    /// The liars, and peers that nobody has ever met, nearest first.
    fn conspirators(&self, target: &Position) -> Vec<PeerInfo> {
        let ghosts = (0..=u8::MAX).map(|n| PeerId::from_public_key([n; 32]));
        let ghosts = ghosts.map(|peer| PeerInfo { peer, addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()] });
        let mut peers: Vec<_> = self.liars.lock().unwrap().iter().cloned().chain(ghosts).collect();
        peers.sort_by_key(|info| info.peer.position().distance(target));
        peers.truncate(20);
        peers
    }
}

/// A member that lies. To all others it looks like any of them.
struct Liar {
    lie: Lie,
    network: Network,
    ring: Arc<Ring>,
    first: Mutex<BTreeMap<Position, Vec<u8>>>,
}

impl Liar {
    /// Starts a liar, and makes it known to every member.
    async fn join(world: &World, lie: Lie, ring: &Arc<Ring>) -> Network {
        let descriptor = world.descriptor();
        let mut config = NetworkConfig::member(descriptor.overlay().clone(), descriptor.hash());
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let (network, bound) = Network::bind(config, &SecretKey::generate().unwrap()).await.unwrap();
        bound.run(Arc::new(Self { lie, network: network.clone(), ring: ring.clone(), first: Mutex::default() }));
        ring.liars.lock().unwrap().push(network.myself());
        let infos: Vec<_> = world.members().iter().map(Member::info).collect();
        join_all(infos.iter().map(|info| network.call(info, &Status {}, PATIENCE))).await;
        network
    }

    fn closer(&self, target: &Position) -> Vec<PeerInfo> {
        if self.lie == Lie::Conspiring { self.ring.conspirators(target) } else { self.network.closest(target, 20) }
    }

    fn held(&self, target: &Position) -> Option<Vec<u8>> {
        match self.lie {
            Lie::Forging => self.ring.forged.lock().unwrap().get(target).cloned(),
            Lie::Replaying => self.first.lock().unwrap().get(target).cloned(),
            _ => None,
        }
    }
}

impl Responder for Liar {
    fn respond(&self, _: Caller, frame: RequestFrame) -> Answer {
        match (self.lie, frame.service.as_str()) {
            (Lie::Hanging, _) => Answer::Later(Box::pin(std::future::pending())),
            (Lie::Babbling, _) => Answer::Now(babble(&frame)),
            (_, Closest::SERVICE) => {
                let call: Closest = frame.call().unwrap();
                reply::<Closest>(&ClosestReply { peers: self.closer(&call.target) })
            }
            (_, Fetch::SERVICE) => {
                let call: Fetch = frame.call().unwrap();
                let envelopes = self.held(&call.target).into_iter().map(Into::into).collect();
                reply::<Fetch>(&FetchReply { envelopes, closer: self.closer(&call.target) })
            }
            (_, Store::SERVICE) => {
                let envelope = frame.call::<Store>().unwrap().envelope;
                if let Ok(record) = self.ring.trust.verify(&envelope, None, UnixMs::now()) {
                    self.first.lock().unwrap().entry(*record.position()).or_insert(envelope.into_vec());
                }
                reply::<Store>(&StoreReply::Stored)
            }
            (_, Digest::SERVICE) => reply::<Digest>(&DigestReply::default()),
            (_, Keep::SERVICE) => reply::<Keep>(&StoreReply::Stored),
            _ => Answer::Now(ResponseFrame::Error(ErrorReply::new(ErrorCode::Unavailable, "\u{1b}[2J"))),
        }
    }
}

fn reply<C: Call>(reply: &C::Reply) -> Answer {
    Answer::Now(ResponseFrame::of::<C>(Ok(reply)))
}

/// One of several sorts of nonsense, by what is asked.
fn babble(frame: &RequestFrame) -> ResponseFrame {
    match frame.body.iter().fold(0u8, |sum, octet| sum.wrapping_add(*octet)) % 4 {
        0 => ResponseFrame::Ok(vec![0; MAX_FRAME - 100]),
        1 => ResponseFrame::Ok(vec![0x9b; 1000]),
        2 => ResponseFrame::Ok(vec![]),
        _ => {
            let junk = |n: u32| {
                let mut key = [0; 32];
                key[..4].copy_from_slice(&n.to_be_bytes());
                PeerInfo { peer: PeerId::from_public_key(key), addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned(); 2] }
            };
            let closer = (0..9000).map(junk).collect();
            ResponseFrame::of::<Fetch>(Ok(&FetchReply { envelopes: vec![vec![0; 9000].into(); 3], closer }))
        }
    }
}

/// What is not there is not shown. Where half of a name's storers lie, it may be said that nothing of it is to be
/// trusted, or that too few agree, rather than that it is proven absent.
#[track_caller]
fn assert_absent(ran: &Ran, via: &str) {
    assert!(matches!(ran.code, 1 | 3 | 4) && ran.out.is_empty(), "{via}: {ran:?}");
}

#[test]
fn lookups_are_right_where_a_quarter_of_the_members_lies() {
    let mut world = TestWorld::of(8);
    let ring = Arc::new(Ring {
        trust: Trust::new(world.world.descriptor().clone(), None),
        liars: Mutex::default(),
        forged: Mutex::default(),
    });
    let lies = [
        Lie::Forging,
        Lie::Forging,
        Lie::Replaying,
        Lie::Replaying,
        Lie::Withholding,
        Lie::Hanging,
        Lie::Babbling,
        Lie::Conspiring,
    ];
    let liars = world.run(join_all(lies.map(|lie| Liar::join(&world.world, lie, &ring))));
    // Most of the honest ones come when the liars are well known already.
    for _ in 0..16 {
        let config = MemberConfig::new(world.world.descriptor().clone(), Arc::new(SecretKey::generate().unwrap()));
        world.runtime.block_on(world.world.add_member(config)).unwrap();
    }
    eventually("the liars are known to the members", || {
        let knows =
            |member: &Member| liars.iter().filter(|liar| member.network().table().contains(&liar.peer())).count();
        world.world.members().iter().map(knows).sum::<usize>() >= 2 * world.world.members().len()
    });

    // Users for whose names two or three of the five closest members lie.
    let members = world.world.members().iter().map(Member::peer);
    let all: Vec<(bool, PeerId)> =
        members.map(|peer| (false, peer)).chain(liars.iter().map(|liar| (true, liar.peer()))).collect();
    let lied_about = |name: &ResourceName| {
        let mut all = all.clone();
        all.sort_by_key(|(_, peer)| peer.position().distance(&name.position()));
        (2..=3).contains(&all[..5].iter().filter(|(lies, _)| *lies).count())
    };
    let mut users = (0..).map(|n| world.user_named(&format!("user-{n}"))).filter(|user| lied_about(&user.name()));
    let (mallory, absent) = (users.next().unwrap(), users.by_ref().take(4).collect::<Vec<_>>());
    let users: Vec<User> = users.take(12).collect();
    for (nth, user) in users.iter().chain(&absent).enumerate() {
        let later = Payload { sequence: UnixMs::now().0 + 10_000, ..user.payload() };
        let forged = match nth % 3 {
            0 => signed_with(&later, &mallory.key, mallory.certificate.as_ref()),
            1 => signed(&later, &Shown::Certificate(user.certificate.as_ref().unwrap()), &mallory.key),
            _ => vec![0; 500],
        };
        ring.forged.lock().unwrap().insert(user.name().position(), forged);
    }
    for user in &users {
        for contact in ["sip:old@192.0.2.1", "sip:new@192.0.2.1"] {
            let json = register(&format!("--json {} {} --contact {contact}", user.options(), user.aor)).exits(0).json();
            assert!(json["stored"].as_array().unwrap().len() >= 2, "{json}");
        }
        assert!(world.holders(&user.name()).len() >= 2, "liars who acknowledge a record and lose it are made up for");
    }
    let mut slowest = Duration::ZERO;
    for (nth, user) in users.iter().enumerate() {
        let removed = nth % 3 == 2;
        if removed {
            register(&format!("{} {} --remove", user.options(), user.aor)).exits(0);
        }
        for (via, options) in world.ways(user) {
            let began = Instant::now();
            let ran = lookup(&format!("--short {options} {}", user.aor));
            slowest = slowest.max(began.elapsed());
            if removed {
                assert_absent(&ran, via);
            } else {
                assert_eq!((ran.code, ran.out.as_str()), (0, "sip:new@192.0.2.1\n"), "{via}: {ran:?}");
            }
        }
    }
    for user in &absent {
        for (via, options) in world.ways(user) {
            assert_absent(&lookup(&format!("--short {options} {}", user.aor)), via);
        }
    }
    // Liars that hang cost hedges: no lookup waits for its whole time, which is 5 s by default, twice over.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    let asked = liars.iter().map(|liar| liar.traffic().served.load(Ordering::Relaxed));
    assert!(
        asked.clone().all(|asked| asked > 0) && asked.clone().sum::<u64>() > 200,
        "{:?}",
        asked.collect::<Vec<_>>()
    );
}

#[test]
fn a_member_that_enters_through_a_liar_finds_the_others_too() {
    let world = TestWorld::of(8);
    let ring = Arc::new(Ring {
        trust: Trust::new(world.world.descriptor().clone(), None),
        liars: Mutex::default(),
        forged: Mutex::default(),
    });
    let liar = world.run(Liar::join(&world.world, Lie::Conspiring, &ring));
    let honest: Vec<PeerInfo> = world.world.members().iter().map(Member::info).collect();
    for entry in &honest[3..6] {
        let mut config = MemberConfig::new(world.world.descriptor().clone(), Arc::new(SecretKey::generate().unwrap()));
        config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        config.peers = vec![liar.myself(), entry.clone()];
        let member = world.run(Member::start(config)).unwrap();
        let found = honest.iter().filter(|info| member.network().table().contains(&info.peer)).count();
        assert!(found >= 6, "it knows {found} of {} honest members", honest.len());
        let name = ResourceName::parse("sip:p2psip.org").unwrap();
        let outcome = world.run(member.lookup(name, PATIENCE));
        assert_eq!((outcome.reply.verdict, outcome.records.len()), (Verdict::Found, 2), "{outcome:?}");
        world.run(member.stop());
    }
}
