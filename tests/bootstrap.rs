//! Finding an overlay in the DNS, and knowing what it is: the descriptor's hash is pinned on first use.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use p2psip::{
    cli::{self, Signal},
    clock::UnixMs,
    dns::{self, DescriptorPointer, DnsServer, Zone},
    identity::{Authority, Descriptor, Home, Limits, Policy},
    name::{OverlayId, PeerId},
};

use crate::world::{Process, Staying, TestWorld, folder, free_port, hanging, join, lookup, register, timed};

/// A name server with what an overlay publishes.
fn name_server(world: &TestWorld, peers: &[(PeerId, String)], pointer: Option<&str>) -> DnsServer {
    world.run(async {
        let server =
            DnsServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), vec![Zone::new("p2psip.org").unwrap()]);
        let server = server.await.unwrap();
        let overlay = world.world.descriptor().overlay();
        let texts: Vec<String> = peers.iter().map(|(peer, at)| dns::dnsaddr_text(peer, at).unwrap()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        server.set_txt(&dns::dnsaddr_owner(overlay).unwrap(), &texts).await.unwrap();
        if let Some(pointer) = pointer {
            server.set_txt(&dns::descriptor_owner(overlay).unwrap(), &[pointer]).await.unwrap();
        }
        server
    })
}

fn published(world: &TestWorld) -> Vec<(PeerId, String)> {
    let members = &world.world.members()[3..6];
    members.iter().map(|member| (member.peer(), member.addresses().remove(0))).collect()
}

fn pointer_to(descriptor: &Descriptor) -> String {
    DescriptorPointer { hash: descriptor.hash(), policy: Some(descriptor.policy()) }.to_string()
}

/// A descriptor of an overlay of the same name, with a CA of its own.
fn other_descriptor() -> Descriptor {
    let overlay = OverlayId::parse("p2psip.org").unwrap();
    let authority = Authority::create(&overlay, UnixMs::now()).unwrap();
    let ca = Some(authority.certificate().clone());
    Descriptor::new(overlay, false, Policy::Enrolled, ca, Limits::default()).unwrap()
}

#[test]
fn the_dns_alone_leads_into_an_overlay_whose_descriptor_is_pinned_on_first_use() {
    let world = TestWorld::shared();
    let user = world.user("published");
    register(&format!("{} {} --contact sip:phone@192.0.2.1", user.options(), user.aor)).exits(0);
    let pointer = pointer_to(world.world.descriptor());
    let server = name_server(world, &published(world), Some(&pointer));
    let folder = folder();
    let home = folder.path().join("home");
    let options = format!("--home {} --dns {}", home.display(), server.address());
    // As a process of its own: warnings go to its standard error.
    let first = Process::start(env!("CARGO_BIN_EXE_p2p-lookup"), &format!("{options} --short {}", user.aor)).wait();
    let first = first.exits(0).says("first use").says(&pointer_hash(&pointer)[..16]);
    assert_eq!(first.out, "sip:phone@192.0.2.1");
    let pinned = Home::open(&home, false).unwrap().pinned_descriptor(world.world.descriptor().overlay()).unwrap();
    assert_eq!(pinned, Some(world.world.descriptor().hash()));
    let second = Process::start(env!("CARGO_BIN_EXE_p2p-lookup"), &format!("{options} -q --short {}", user.aor)).wait();
    assert_eq!((second.code, second.err.as_str()), (0, ""), "known by now");

    // Somebody changes what the DNS says, or says two things.
    let owner = dns::descriptor_owner(world.world.descriptor().overlay()).unwrap();
    let changed = pointer_to(&other_descriptor());
    world.run(server.set_txt(&owner, &[&changed])).unwrap();
    lookup(&format!("{options} {}", user.aor)).exits(4).says("has changed").says(&pointer_hash(&changed));
    join(&format!("{options} --listen /ip4/127.0.0.1/tcp/0")).exits(4).says("has changed");
    world.run(server.set_txt(&owner, &[&pointer, &changed])).unwrap();
    lookup(&format!("{options} {}", user.aor)).exits(4);
    world.run(server.set_txt(&owner, &[&pointer])).unwrap();
    lookup(&format!("{options} {}", user.aor)).exits(0);
    world.run(server.stop());
}

fn pointer_hash(pointer: &str) -> String {
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    pointer.split(|c: char| !c.is_ascii_alphanumeric()).find(is_hash).unwrap().to_owned()
}

#[test]
fn a_descriptor_that_nobody_vouches_for_is_not_believed() {
    let world = TestWorld::shared();
    let user = world.user("stranger");
    let folder = folder();
    let home = format!("--home {}", folder.path().join("home").display());
    // Peers are published, but not what they should be.
    let silent = name_server(world, &published(world), None);
    let options = format!("{home} --dns {}", silent.address());
    lookup(&format!("{options} {}", user.aor)).exits(4).says("cannot be trusted from a peer's word alone");
    // What is published is the hash of another one: no member speaks that protocol.
    let wrong = name_server(world, &published(world), Some(&pointer_to(&other_descriptor())));
    lookup(&format!("{home} --dns {} {}", wrong.address(), user.aor)).exits(4);
    // A descriptor on disk that is not the published one.
    lookup(&format!("{} --dns {} {}", user.home_option(), wrong.address(), user.aor)).exits(4).says("has changed");
    // No peers at all, and no name server at all.
    let empty = name_server(world, &[], None);
    lookup(&format!("{home} --dns {} --as overlay {}", empty.address(), user.aor)).exits(3).says("_dnsaddr.p2psip.org");
    let dead = format!("{home} --dns 127.0.0.1:{} --timeout 1", free_port());
    let (ran, took) = timed(cli::lookup::run, &format!("{dead} {}", user.aor));
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(!folder.path().join("home/descriptor.toml").exists(), "nothing of it was kept");
    for server in [silent, wrong, empty] {
        world.run(server.stop());
    }
}

#[test]
fn a_peer_in_the_dns_that_hangs_does_not_hold_up_the_others() {
    let world = TestWorld::shared();
    let user = world.user("raced");
    register(&format!("{} {} --contact sip:phone@192.0.2.1", user.options(), user.aor)).exits(0);
    let (_listener, address) = hanging();
    let (at, peer) = address.split_once("/p2p/").unwrap();
    let mut peers = vec![(peer.parse().unwrap(), at.to_owned())];
    peers.extend(published(world));
    let server = name_server(world, &peers, Some(&pointer_to(world.world.descriptor())));
    let folder = folder();
    let options = format!("--home {} --dns {}", folder.path().join("home").display(), server.address());
    for first_or_second in [1, 2] {
        let (ran, took) = timed(cli::lookup::run, &format!("{options} {}", user.aor));
        ran.exits(0);
        assert!(took < Duration::from_secs(3), "{first_or_second}: {took:?}");
    }
    world.run(server.stop());
}

#[test]
fn a_member_finds_the_overlay_in_the_dns() {
    let world = TestWorld::shared();
    let server = name_server(world, &published(world), Some(&pointer_to(world.world.descriptor())));
    let folder = folder();
    let home = folder.path().join("home");
    let options = format!("--home {} --dns {} --listen /ip4/127.0.0.1/tcp/0", home.display(), server.address());
    let mut member = Staying::start(cli::join::run, &format!("--json {options} p2psip.org"));
    let joined = member.json();
    assert_eq!((&joined["status"], &joined["policy"]), (&"joined".into(), &"enrolled".into()), "{joined}");
    assert!(joined["peers"].as_u64().unwrap() >= 5, "{joined}");
    let found = lookup(&format!("--json --home {} sip:p2psip.org", home.display())).exits(0).json();
    assert_eq!((&found["via"], found["records"].as_array().unwrap().len()), (&"socket".into(), 2), "{found}");
    assert_eq!(member.end(Signal::Terminate).code, 0);
    world.run(server.stop());
}
