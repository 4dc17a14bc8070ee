//! Services on real sockets: offered by members, listed by storers, found from anywhere, withdrawn, and gone with their
//! providers (draft §3.3; R14, R17–R20).

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::future::join_all;
use p2psip::{
    cli,
    client::{ServicesReply, Store, StoreReply, Verdict},
    clock::UnixMs,
    identity::SecretKey,
    lab::LabOptions,
    member::{Member, Offer, OfferError, OfferHandle, Timing, USUAL_AGE},
    name::{PeerId, ResourceName, Service, ServiceNode, ServiceUri, TreeNode},
    overlay::redir::Wanted,
    record::{Body, Endpoint, Payload, ServiceOffer, seal},
};

use crate::world::{PATIENCE, Ran, TestWorld, eventually, over_socket, run};

const FRESH: Duration = Duration::ZERO;

/// A world of its own, whose offers are renewed so often and hold three times as long.
fn world(members: usize, offer: Duration) -> TestWorld {
    let options = LabOptions::new(members).unwrap();
    TestWorld::start(LabOptions { timing: Timing { offer, ..options.timing }, ..options })
}

fn discover(line: &str) -> Ran {
    run(cli::discover::run, line)
}

/// Has members offer the service Teredo, which the lab itself has nobody for.
fn offer(world: &TestWorld, members: std::ops::Range<usize>) -> Vec<OfferHandle> {
    let members = &world.world.members()[members];
    let offers = members.iter().map(|member| world.world.offer(member, Service::Teredo, true));
    world.run(join_all(offers)).into_iter().map(Result::unwrap).collect()
}

fn peers(members: &[Member]) -> BTreeSet<PeerId> {
    members.iter().map(Member::peer).collect()
}

/// Which providers a member finds when it looks anew.
fn found(world: &TestWorld, member: &Member, wanted: Wanted) -> BTreeSet<PeerId> {
    let services = world.run(member.services(Service::Teredo, wanted, FRESH, PATIENCE));
    services.outcome.records.iter().map(|record| record.signer().peer_id()).collect()
}

#[test]
fn whoever_offers_a_service_is_found_from_everywhere() {
    let world = world(24, Duration::from_secs(60));
    let handles = offer(&world, 8..20);
    let expected = peers(&world.world.members()[8..20]);
    for handle in &handles {
        let status = handle.status();
        assert!(!status.nodes.is_empty() && status.storers >= 1 && status.failure.is_none(), "{status:?}");
    }
    for member in world.world.members() {
        assert_eq!(found(&world, member, Wanted::All), expected);
        let some = found(&world, member, Wanted::Some(5));
        assert!(some.len() >= 5 && some.is_subset(&expected), "{some:?}");
    }
    let user = world.user("searcher");
    for (via, options) in world.ways(&user) {
        let json = discover(&format!("teredo --json {options}")).exits(0).json();
        assert_eq!((&json["status"], &json["via"]), (&"found".into(), &via.into()), "{json}");
        assert_eq!((&json["found"], &json["complete"]), (&12.into(), &true.into()), "{json}");
        let provider = &json["services"][0]["providers"][0];
        assert_eq!((&provider["serving"], &provider["load"]), (&true.into(), &0.0.into()), "{json}");
        assert!(provider["addresses"][0].as_str().unwrap().starts_with("/ip4/127.0.0.1/tcp/"), "{json}");
        let some = discover(&format!("teredo -n 4 --json {options}")).exits(0).json();
        assert!(some["found"].as_u64().unwrap() >= 4, "{some}");
        let fewer = discover(&format!("teredo -n 13 {options}")).exits(1);
        assert!(fewer.err.contains("fewer than asked: 12 of 13, and there are no more"), "{fewer:?}");
        let short = discover(&format!("teredo --short {options}")).exits(0);
        assert_eq!(short.out.lines().filter(|line| line.contains("/p2p/12D3KooW")).count(), 12, "{via}: {short:?}");
    }
    let TestWorld { world, runtime, .. } = world;
    runtime.block_on(world.stop());
}

#[test]
fn kinds_of_services_are_found_together_and_nobody_is_exit_code_one_or_three() {
    let world = TestWorld::shared();
    let user = world.user("kinds");
    let all = discover(&format!("all --json {}", user.options())).exits(0).json();
    let uris: Vec<_> = all["services"].as_array().unwrap().iter().map(|service| service["uri"].clone()).collect();
    assert_eq!(uris, ["sip:p2psip.org", "turn:p2psip.org", "teredo:p2psip.org"]);
    assert_eq!((&all["found"], &all["status"]), (&4.into(), &"found".into()), "{all}");
    let relays = discover(&format!("relay {} p2psip.org", user.options())).exits(0);
    assert!(relays.out.contains("turn:p2psip.org") && !relays.out.contains("teredo:"), "{relays:?}");
    assert!(relays.err.contains("2 providers, all there are"), "{relays:?}");
    let relay = discover(&format!("relay -n 1 --json {}", user.options())).exits(0).json();
    assert_eq!(relay["services"].as_array().unwrap().len(), 1, "one kind had enough: {relay}");
    let none = discover(&format!("teredo {}", user.options())).exits(1);
    assert!(none.err.contains("teredo:p2psip.org: not found: nobody offers it"), "{none:?}");
    discover(&format!("turn -n 0 {}", user.options())).exits(2);
    discover(&format!("coffee {}", user.options())).exits(2);
    let home = user.home.folder().display();
    let nobody = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    discover(&format!("turn --home {home} --peer {nobody} --timeout 2")).exits(3);
}

#[test]
fn a_change_is_heard_of_and_a_withdrawal_too_and_nobody_misses_the_others_meanwhile() {
    let world = world(20, Duration::from_secs(60));
    let mut handles = offer(&world, 8..14);
    let members = world.world.members();
    let reader = &members[16];
    handles[0].update(false, 900);
    let first = members[8].peer();
    eventually("the others see that it is busy", || {
        let services = world.run(reader.services(Service::Teredo, Wanted::All, FRESH, PATIENCE));
        let record = services.outcome.records.iter().find(|record| record.signer().peer_id() == first).unwrap();
        matches!(record.body(), Body::Service(offer) if !offer.serving && offer.load == 900)
    });
    // What is remembered will do for those who say so.
    let usual = || world.run(reader.services(Service::Teredo, Wanted::Some(3), USUAL_AGE, PATIENCE));
    assert!(usual().age > Duration::ZERO && usual().age < USUAL_AGE);

    let (staying, done) = (peers(&members[9..14]), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let (mut rounds, mut gone) = (0, false);
            while !done.load(Ordering::Relaxed) || rounds < 3 {
                let seen = found(&world, &members[17], Wanted::All);
                assert!(seen.is_superset(&staying), "{seen:?}");
                assert!(!gone || !seen.contains(&first), "it came back");
                gone = !seen.contains(&first);
                rounds += 1;
            }
        });
        world.run(handles.remove(0).withdraw());
        done.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    });
    for member in members {
        assert_eq!(found(&world, member, Wanted::All), staying);
    }
    // A member that stops in good order withdraws what it offers.
    let stopping = members[9].peer();
    let (runtime, mut world_inside) = (world.runtime, world.world);
    let stopped = world_inside.take_member(9).unwrap();
    assert_eq!(stopped.peer(), stopping);
    let began = Instant::now();
    runtime.block_on(stopped.stop());
    let left: BTreeSet<_> = staying.iter().copied().filter(|peer| *peer != stopping).collect();
    let services = runtime.block_on(world_inside.members()[16].services(Service::Teredo, Wanted::All, FRESH, PATIENCE));
    let seen: BTreeSet<_> = services.outcome.records.iter().map(|record| record.signer().peer_id()).collect();
    assert_eq!(seen, left, "after {:?}", began.elapsed());
    runtime.block_on(world_inside.stop());
}

#[test]
fn an_offer_does_not_outlive_its_provider_for_long() {
    let mut world = world(16, Duration::from_secs(1));
    let _handles = offer(&world, 8..12);
    let killed = peers(&world.world.members()[8..10]);
    let began = Instant::now();
    {
        let _runtime = world.runtime.enter();
        world.world.kill(9);
        world.world.kill(8);
    }
    let staying = peers(&world.world.members()[8..10]);
    eventually("the dead are gone and the living are not", || {
        let seen = found(&world, &world.world.members()[13], Wanted::All);
        assert!(seen.is_superset(&staying), "the living are found all the while: {seen:?}");
        seen == staying
    });
    // Three seconds, and what the last renewal and the looking took.
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(killed.is_disjoint(&staying));
    let TestWorld { world, runtime, .. } = world;
    runtime.block_on(world.stop());
}

#[test]
fn nobody_offers_what_no_certificate_of_its_names() {
    let world = TestWorld::shared();
    let member = &world.world.members()[10];
    let offer =
        |certificate| Offer { service: Service::Teredo, endpoints: vec![], certificate, serving: true, load: 0 };
    let error = world.run(member.offer(offer(None))).unwrap_err();
    assert!(matches!(error, OfferError::NotEnrolled { .. }), "{error}");
    assert!(error.to_string().contains("teredo:p2psip.org; enrol it"), "{error}");
    let turn = ServiceUri::parse("turn:p2psip.org").unwrap();
    let certificate = world.world.enrol(member.key(), &[turn.into()]).unwrap();
    let error = world.run(member.offer(offer(certificate))).unwrap_err();
    assert!(matches!(error, OfferError::Record(_)), "{error}");
    let endpoint = Endpoint { transport: "UDP".to_owned(), host: "192.0.2.1".to_owned(), port: 1 };
    let teredo = ServiceUri::parse("teredo:p2psip.org").unwrap();
    let certificate = world.world.enrol(member.key(), &[teredo.into()]).unwrap();
    let wrong = Offer { endpoints: vec![endpoint], ..offer(certificate) };
    assert!(matches!(world.run(member.offer(wrong)).unwrap_err(), OfferError::Record(_)));
}

/// A member that wants to be listed everywhere: in a thousand tree nodes, of which a few are on its own path.
#[test]
fn storers_admit_a_provider_only_to_its_own_path_of_the_tree() {
    let world = TestWorld::of(10);
    let service = ServiceUri::parse("gatekeeper:p2psip.org").unwrap();
    let key = SecretKey::generate().unwrap();
    let certificate = world.world.enrol(&key, &[service.clone().into()]).unwrap().unwrap();
    let (client, now) = (world.client(), UnixMs::now());
    let nodes = (0..10u8).flat_map(|level| {
        (0..1u64 << level).map(move |index| TreeNode::at(level, index.checked_shl(64 - u32::from(level)).unwrap_or(0)))
    });
    let mut admitted = Vec::new();
    for node in nodes {
        let offer = ServiceOffer {
            peer: key.peer_id(),
            addresses: vec![],
            endpoints: vec![],
            serving: true,
            load: 0,
            depth: 9,
        };
        let payload = Payload {
            name: ServiceNode::new(service.clone(), node).into(),
            sequence: now.0,
            expires: now.after(Duration::from_secs(600)),
            body: Body::Service(offer),
        };
        // A well-behaved writer does not get as far as sealing it.
        let own = node.contains(&key.peer_id().position());
        assert_eq!(seal(&payload, &key, Some(&certificate)).is_ok(), own);
        let envelope = crate::forge::signed_with(&payload, &key, Some(&certificate));
        let entry = world.world.members()[usize::from(node.level() % 8)].info();
        match world.run(client.call(&entry, &Store { envelope: envelope.into() })).unwrap() {
            StoreReply::Stored => admitted.push(node),
            StoreReply::Refused(reason) if own => assert_eq!(reason.code(), "not-responsible"),
            StoreReply::Refused(reason) => assert_eq!(reason.code(), "outside-range", "{node}: {reason}"),
        }
    }
    assert!(admitted.len() <= 10 && !admitted.is_empty(), "{admitted:?}");
    // Many records of one provider are one provider.
    let services = world.run(world.world.members()[2].services(Service::Gatekeeper, Wanted::All, FRESH, PATIENCE));
    assert!(services.outcome.records.len() <= 1);
}

#[test]
fn a_record_of_one_tree_node_is_no_record_of_another() {
    let world = TestWorld::shared();
    let uri = ServiceUri::parse("turn:p2psip.org").unwrap();
    let root = ResourceName::from(ServiceNode::new(uri.clone(), TreeNode::ROOT));
    let found = world.run(world.world.members()[8].lookup(root, PATIENCE));
    let record = found.records.first().expect("the lab's relays are listed at the root");
    let below = TreeNode::containing(3, &record.signer().peer_id().position());
    let trust = p2psip::record::Trust::new(world.world.descriptor().clone(), None);
    let name = ResourceName::from(ServiceNode::new(uri, below));
    let refusal = trust.verify(record.envelope(), Some(&name), UnixMs::now()).unwrap_err();
    assert_eq!(refusal.code(), "wrong-name");
}

#[test]
fn a_member_is_asked_for_services_by_programs_on_its_machine() {
    let world = TestWorld::shared();
    let socket = &world.world.users()[0].socket;
    let call =
        |service, wanted, max_age_ms| p2psip::client::Services { service, wanted, timeout_ms: 5_000, max_age_ms };
    let ask = |call: &p2psip::client::Services| -> ServicesReply { world.run(over_socket(socket, call)).unwrap() };
    let fresh = ask(&call(Service::Turn, 0, 0));
    assert_eq!((fresh.found.verdict, fresh.found.envelopes.len(), fresh.complete), (Verdict::Found, 2, true));
    assert!(fresh.age_ms == 0 && fresh.nodes > 0 && fresh.found.requests > 0, "{fresh:?}");
    std::thread::sleep(Duration::from_millis(20));
    let remembered = ask(&call(Service::Turn, 2, 30_000));
    assert!(remembered.age_ms >= 20 && remembered.found.envelopes.len() == 2, "{remembered:?}");
    let more = ask(&call(Service::Turn, 3, 30_000));
    assert_eq!((more.found.envelopes.len(), more.complete), (2, true), "there are no more");
    let none = ask(&call(Service::Teredo, 1, 0));
    assert_eq!((none.found.verdict, none.complete), (Verdict::NotFound, true), "{none:?}");
}
