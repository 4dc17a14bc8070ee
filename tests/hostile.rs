//! Members, records and connections that mean ill (draft §6; R23, R29).

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::future::join_all;
use p2psip::{
    client::{
        Call, Closest, ClosestReply, Digest, DigestReply, ErrorCode, ErrorReply, Fetch, FetchReply, Keep, MAX_FRAME,
        PeerInfo, Put, PutRevocations, RequestFrame, ResponseFrame, Status, Store, StoreReply, framed,
    },
    clock::UnixMs,
    identity::{Authority, Certificate, CertificateRequest, Descriptor, Limits, Policy, SecretKey},
    lab::World,
    member::{Member, MemberConfig},
    name::{OverlayId, PeerId, Position, ResourceName},
    overlay::{
        Answer, Caller, Responder,
        limits::{Rate, Rates},
        swarm::{AskError, Network, NetworkConfig},
    },
    record::{Body, Contact, Payload, ServiceOffer, Trust},
};

use crate::{
    forge::{Shown, signed, signed_with, with_signature},
    world::{Client, LIFETIME, PATIENCE, Process, TestWorld, User, eventually, lookup, over_socket, register},
};

const HOUR: Duration = Duration::from_secs(3600);

fn names(texts: &[&str]) -> Vec<ResourceName> {
    texts.iter().map(|text| ResourceName::parse(text).unwrap()).collect()
}

fn issued(authority: &Authority, key: &SecretKey, names: &[ResourceName], at: UnixMs) -> Certificate {
    let request = CertificateRequest::create(key, names).unwrap();
    authority.issue(&request, names, LIFETIME, at).unwrap()
}

/// A stranger's CA for an overlay of the same name.
fn other_authority() -> Authority {
    Authority::create(&OverlayId::parse("p2psip.org").unwrap(), UnixMs::now()).unwrap()
}

/// What every member answers to a record, by the reason's code.
fn answers(world: &TestWorld, client: &Client, envelope: &[u8]) -> BTreeMap<&'static str, usize> {
    let store = Store { envelope: envelope.to_vec().into() };
    let infos: Vec<_> = world.world.members().iter().map(Member::info).collect();
    let replies = world.run(join_all(infos.iter().map(|info| client.call(info, &store))));
    let mut counts = BTreeMap::new();
    for reply in replies {
        let code = match reply.unwrap() {
            StoreReply::Stored => "stored",
            StoreReply::Refused(reason) => reason.code(),
        };
        *counts.entry(code).or_default() += 1;
    }
    counts
}

/// Forgeries of a user's record, each with the reason for which it must be refused.
fn forgeries(world: &TestWorld, victim: &User, mallory: &User) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let authority = world.world.authority().unwrap();
    let genuine = Payload { sequence: UnixMs::now().0 + 1, ..victim.payload() };
    let certificate = victim.certificate.as_ref().unwrap();
    let shown = Shown::Certificate(certificate);
    let key = SecretKey::generate().unwrap();
    let own = [victim.name()];
    let now = UnixMs::now();
    let at = |sequence: UnixMs, expires: UnixMs| Payload { sequence: sequence.0, expires, ..genuine.clone() };
    let by = |certificate: &Certificate| signed_with(&genuine, &key, Some(certificate));
    let mut bent = signed_with(&genuine, &victim.key, Some(certificate));
    *bent.last_mut().unwrap() ^= 1;
    let uri = format!("sip:{}@192.0.2.1", "x".repeat(180));
    let full = Contact::Overlay { peer: key.peer_id(), addresses: vec![format!("/dns4/{}", "x".repeat(190)); 8], q: 1 };
    let mut contacts = vec![full; 7];
    contacts.push(Contact::Sip { uri, q: 1 });
    let large = Payload { body: Body::User { contacts }, ..genuine.clone() };
    let offer =
        ServiceOffer { peer: victim.key.peer_id(), addresses: vec![], endpoints: vec![], serving: true, load: 0 };
    let service = Payload { body: Body::Service(offer), ..genuine.clone() };
    let empty = Payload { body: Body::User { contacts: vec![] }, ..genuine.clone() };
    vec![
        ("no signature", "bad-signature", with_signature(&genuine, &shown, vec![])),
        ("no signer", "malformed", signed(&genuine, &Shown::Nothing, &victim.key)),
        ("a damaged signature", "bad-signature", bent),
        ("another key's signature", "bad-signature", signed(&genuine, &shown, &mallory.key)),
        ("no certificate", "no-credentials", signed_with(&genuine, &mallory.key, None)),
        ("another user's certificate", "not-named", signed_with(&genuine, &mallory.key, mallory.certificate.as_ref())),
        ("another CA's certificate", "unknown-authority", by(&issued(&other_authority(), &key, &own, now))),
        ("an expired certificate", "certificate-expired", by(&issued(authority, &key, &own, now.before(HOUR / 2)))),
        (
            "a certificate of tomorrow",
            "certificate-not-yet-valid",
            by(&issued(authority, &key, &own, now.after(HOUR + HOUR / 2))),
        ),
        ("a clock that is ahead", "from-the-future", victim.seal(&at(now.after(HOUR), now.after(HOUR + LIFETIME)))),
        ("a record for two days", "lifetime-too-long", victim.seal(&at(now, now.after(48 * HOUR)))),
        ("an expired record", "expired", victim.seal(&at(now.before(HOUR), now.before(HOUR / 2)))),
        ("a record without end", "too-large", victim.seal(&large)),
        ("a service under a user's name", "malformed", signed_with(&service, &victim.key, Some(certificate))),
        ("no contacts", "malformed", signed_with(&empty, &victim.key, Some(certificate))),
        ("octets", "malformed", vec![0xd2; 200]),
        ("nothing", "malformed", vec![]),
    ]
}

#[test]
fn a_forged_record_of_a_user_is_stored_by_no_member_and_shown_by_no_lookup() {
    let world = TestWorld::shared();
    let (victim, absent, mallory) = (world.user("victim"), world.user("absent"), world.user("mallory"));
    register(&format!("{} {} --contact sip:phone@192.0.2.1", victim.options(), victim.aor)).exits(0);
    let (client, members) = (world.client(), world.world.members().len());
    for target in [&victim, &absent] {
        for (what, code, envelope) in forgeries(world, target, &mallory) {
            assert_eq!(answers(world, &client, &envelope), BTreeMap::from([(code, members)]), "{what}");
            // Nor does anybody pass it on or keep it alive for the forger.
            let info = world.world.members()[8].info();
            let put = Put { envelope: envelope.clone().into(), timeout_ms: 1000 };
            let put = world.run(client.call(&info, &put)).unwrap();
            assert_eq!((put.stored.len(), put.refused[0].reason.code()), (0, code), "{what}");
            let keep = world.run(client.call(&info, &Keep { envelope: envelope.into() })).unwrap();
            assert!(matches!(&keep, StoreReply::Refused(reason) if reason.code() == code), "{what}: {keep:?}");
        }
    }
    for (via, options) in world.ways(&victim) {
        let ran = lookup(&format!("--short {options} {}", victim.aor)).exits(0);
        assert_eq!(ran.out, "sip:phone@192.0.2.1\n", "{via}");
        lookup(&format!("{options} {}", absent.aor)).exits(1);
    }
}

#[test]
fn a_forged_record_of_a_service_is_stored_by_no_member() {
    let world = TestWorld::shared();
    let (authority, mallory) = (world.world.authority().unwrap(), world.user("mallory"));
    let (client, members, now) = (world.client(), world.world.members().len(), UnixMs::now());
    let [proxy, turn] = &names(&["sip:p2psip.org", "turn:p2psip.org"])[..] else { unreachable!() };
    let offer = |name: &ResourceName, peer| {
        let offer = ServiceOffer { peer, addresses: vec![], endpoints: vec![], serving: true, load: 0 };
        Payload { name: name.clone(), sequence: now.0, expires: now.after(LIFETIME), body: Body::Service(offer) }
    };
    let key = SecretKey::generate().unwrap();
    let provider = issued(authority, &key, std::slice::from_ref(turn), now);
    let forgeries = [
        ("a user's certificate", "not-named", {
            signed_with(&offer(proxy, mallory.key.peer_id()), &mallory.key, mallory.certificate.as_ref())
        }),
        ("another service's certificate", "not-named", {
            signed_with(&offer(proxy, key.peer_id()), &key, Some(&provider))
        }),
        ("another CA's certificate", "unknown-authority", {
            let certificate = issued(&other_authority(), &key, std::slice::from_ref(turn), now);
            signed_with(&offer(turn, key.peer_id()), &key, Some(&certificate))
        }),
        ("another peer's service", "malformed", {
            signed_with(&offer(turn, world.world.members()[5].peer()), &key, Some(&provider))
        }),
        ("no certificate", "no-credentials", signed_with(&offer(proxy, key.peer_id()), &key, None)),
        ("a tombstone of a stranger's", "no-credentials", {
            let tombstone = Payload { body: Body::Removed, ..offer(proxy, key.peer_id()) };
            signed_with(&tombstone, &key, None)
        }),
    ];
    for (what, code, envelope) in forgeries {
        assert_eq!(answers(world, &client, &envelope), BTreeMap::from([(code, members)]), "{what}");
    }
    let user = world.user("caller");
    let json = lookup(&format!("--json {} sip:p2psip.org turn:p2psip.org", user.options())).exits(0);
    for line in json.out.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(json["records"].as_array().unwrap().len(), 2, "{json}");
    }
}

#[test]
fn a_revocation_list_of_a_stranger_is_taken_by_nobody() {
    let world = TestWorld::shared();
    let client = world.client();
    let forged = other_authority().revoke(None, &["00".to_owned()], UnixMs::now()).unwrap();
    for list in [forged.envelope().to_vec(), vec![1, 2, 3]] {
        for member in world.world.members() {
            let put = PutRevocations { list: list.clone().into() };
            let reply = world.run(client.call(&member.info(), &put)).unwrap();
            assert!(matches!(&reply, StoreReply::Refused(reason) if reason.code() == "bad-signature"), "{reply:?}");
        }
    }
}

#[test]
fn an_older_record_replaces_a_newer_one_at_nobody_who_holds_it() {
    let world = TestWorld::shared();
    let user = world.user("replayed");
    let old = user.payload();
    let new = Payload { sequence: old.sequence + 1, ..old.clone() };
    let contacts = vec![Contact::Sip { uri: "sip:new@192.0.2.1".to_owned(), q: 1000 }];
    let new = user.seal(&Payload { body: Body::User { contacts }, ..new });
    let client = world.client();
    let put = |envelope: &[u8]| Put { envelope: envelope.to_vec().into(), timeout_ms: 5000 };
    let entry = world.world.members()[10].info();
    assert_eq!(world.run(client.call(&entry, &put(&new))).unwrap().stored.len(), 5);
    let answers = answers(world, &client, &user.seal(&old));
    assert!(answers["older"] >= 5, "{answers:?}");
    assert!(answers.keys().all(|code| ["older", "stored", "not-responsible"].contains(code)), "{answers:?}");
    for (via, options) in world.ways(&user) {
        let ran = lookup(&format!("--short {options} {}", user.aor)).exits(0);
        assert_eq!(ran.out, "sip:new@192.0.2.1\n", "{via}");
    }
}

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
            assert!(json["stored"].as_array().unwrap().len() >= 5, "{json}");
        }
        assert!(world.holders(&user.name()).len() >= 2);
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
            let expected = if removed { (1, "") } else { (0, "sip:new@192.0.2.1\n") };
            assert_eq!((ran.code, ran.out.as_str()), expected, "{via}: {ran:?}");
        }
    }
    for user in &absent {
        for (via, options) in world.ways(user) {
            let ran = lookup(&format!("--short {options} {}", user.aor));
            assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{via}: {ran:?}");
        }
    }
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    let asked = liars.iter().map(|liar| liar.traffic().served.load(Ordering::Relaxed));
    assert!(
        asked.clone().all(|asked| asked > 0) && asked.clone().sum::<u64>() > 200,
        "{:?}",
        asked.collect::<Vec<_>>()
    );
}
