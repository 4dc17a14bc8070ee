//! What an overlay is for: what is bound to a URI is stored, found, renewed, removed. On real sockets, and mostly
//! through the tools.

use std::net::{Ipv4Addr, SocketAddr};

use p2psip::{
    client::{Fetch, Store, StoreReply},
    clock::UnixMs,
    dns::{DnsServer, Zone},
    identity::{Authority, CertificateRequest, SecretKey},
    lab::LabOptions,
    name::{OverlayId, ResourceName},
    record::{Body, Contact, Payload, Refusal, seal},
};

use crate::world::{LIFETIME, Staying, TestWorld, User, eventually, folder, join, lookup, register};

fn contact(user: &User) -> String {
    format!("{} --contact sip:phone@192.0.2.1 {}", user.aor, user.options())
}

#[test]
fn users_are_found_by_every_way_of_asking() {
    let world = TestWorld::shared();
    let user = world.user("found");
    register(&contact(&user)).exits(0);
    for (via, options) in world.ways(&user) {
        let ran = lookup(&format!("--json {options} {}", user.aor)).exits(0);
        let json = ran.json();
        assert_eq!((&json["status"], &json["via"]), (&"found".into(), &via.into()), "{json}");
        assert_eq!(json["records"].as_array().unwrap().len(), 1, "{json}");
        assert_eq!(json["records"][0]["contacts"][0]["uri"], "sip:phone@192.0.2.1");
        assert_eq!(json["records"][0]["instance"], user.key.instance().to_string());
        assert_eq!(json["records"][0]["certificate"], user.certificate.as_ref().unwrap().serial());
        assert_eq!(json["rejected"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn services_are_found_under_the_overlays_own_uris() {
    let world = TestWorld::shared();
    let user = world.user("caller");
    let providers = |range: std::ops::Range<usize>| {
        let members = world.world.members()[range].iter().map(|member| member.peer().to_string());
        members.collect::<std::collections::BTreeSet<_>>()
    };
    // The lab's first three members are its users', the next two proxy peers, the next two TURN servers.
    for (uri, expected) in [("sip:p2psip.org", providers(3..5)), ("turn:p2psip.org", providers(5..7))] {
        for (via, options) in world.ways(&user) {
            let json = lookup(&format!("--json {options} {uri}")).exits(0).json();
            let offers = json["records"].as_array().unwrap().iter().map(|record| &record["offer"]["peer"]);
            let found = offers.map(|peer| peer.as_str().unwrap().to_owned()).collect();
            assert_eq!(expected, found, "{uri} by {via}: {json}");
        }
    }
    for (_, options) in world.ways(&user) {
        let json = lookup(&format!("--json {options} teredo:p2psip.org")).exits(1).json();
        assert_eq!((&json["status"], &json["storers"]), (&"not-found".into(), &5.into()), "{json}");
    }
}

#[test]
fn what_was_never_registered_is_proven_absent() {
    let world = TestWorld::shared();
    let user = world.user("nobody");
    for (via, options) in world.ways(&user) {
        let ran = lookup(&format!("{options} {}", user.aor)).exits(1);
        assert_eq!(ran.out, "", "{via}");
        assert!(ran.err.contains("not found: 5 storers answered and none has it"), "{via}: {}", ran.err);
    }
}

#[test]
fn a_registration_binds_an_aor_to_the_member_on_this_machine() {
    let world = TestWorld::shared();
    let user = world.user("bound");
    let json = register(&format!("--json {} {}", user.aor, user.options())).exits(0).json();
    assert_eq!((&json["status"], &json["via"]), (&"registered".into(), &"socket".into()), "{json}");
    assert_eq!(json["stored"].as_array().unwrap().len(), 5, "{json}");
    assert_eq!(json["read_back"], 3, "{json}");
    assert_eq!(json["kept_by"].as_array().unwrap().len(), 3, "{json}");
    let gruu = format!("{};gr={}", user.aor, user.key.instance());
    assert_eq!(json["gruu"], gruu.as_str());
    let found = lookup(&format!("--json {} {}", user.options(), user.aor)).exits(0).json();
    let contact = &found["records"][0]["contacts"][0];
    assert_eq!((&contact["uri"], &contact["q"]), (&gruu.into(), &1.0.into()), "{found}");
    assert_eq!(contact["peer"], world.world.members()[0].peer().to_string());
    assert_eq!(contact["addresses"][0], world.world.members()[0].addresses()[0]);
}

#[test]
fn a_registration_can_be_handed_to_a_remote_member() {
    let world = TestWorld::shared();
    let user = world.user("remote");
    let options = format!("{} {}", user.home_option(), world.peers());
    let json = register(&format!("--json {options} {} --contact sip:phone@192.0.2.1", user.aor)).exits(0).json();
    assert_eq!((&json["status"], &json["via"]), (&"registered".into(), &"peer".into()), "{json}");
    lookup(&format!("{} {}", user.options(), user.aor)).exits(0);
    // Without a contact there is nothing to bind to but a member on this machine.
    register(&format!("{options} {}", user.aor)).exits(2).says("no member runs on this machine");
}

#[test]
fn every_device_of_a_user_is_found_and_each_renews_its_own_record() {
    let world = TestWorld::shared();
    let desk = world.user("devices");
    let mobile = world.device(&format!("{}-mobile", desk.aor.user()), &desk.aor);
    for (device, uri) in [(&desk, "sip:desk@192.0.2.1"), (&mobile, "sip:mobile@192.0.2.1")] {
        register(&format!("{} {} --contact {uri}", device.options(), device.aor)).exits(0);
    }
    let shown = |user: &User| {
        let ran = lookup(&format!("--short {} {}", user.options(), user.aor)).exits(0);
        let mut lines: Vec<_> = ran.out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(shown(&desk), ["sip:desk@192.0.2.1", "sip:mobile@192.0.2.1"]);
    register(&format!("{} {} --contact sip:desk@192.0.2.9", desk.options(), desk.aor)).exits(0);
    assert_eq!(shown(&mobile), ["sip:desk@192.0.2.9", "sip:mobile@192.0.2.1"]);
    register(&format!("{} {} --remove", desk.options(), desk.aor)).exits(0);
    assert_eq!(shown(&desk), ["sip:mobile@192.0.2.1"]);
}

#[test]
fn a_registration_ends_when_it_expires() {
    let world = TestWorld::shared();
    let user = world.user("expires");
    let json = register(&format!("--json --expires 1 {}", contact(&user))).exits(0).json();
    let expires = UnixMs(json["expires_at_ms"].as_u64().unwrap());
    eventually("it has expired", || UnixMs::now() > expires);
    for (via, options) in world.ways(&user) {
        let ran = lookup(&format!("{options} {}", user.aor));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{via}: {ran:?}");
    }
    assert_eq!(world.holders(&user.name()), [0usize; 0], "nobody returns it either");
}

#[test]
fn what_was_removed_does_not_come_back_by_a_replay() {
    let world = TestWorld::shared();
    let user = world.user("removed");
    register(&contact(&user)).exits(0);
    let client = world.client();
    let fetch = Fetch { target: user.name().position(), closer: 0 };
    let storer = world.world.members()[world.holders(&user.name())[0]].info();
    let old = world.run(client.call(&storer, &fetch)).unwrap().envelopes.remove(0);
    let removed = register(&format!("--json --remove {} {}", user.aor, user.options())).exits(0).json();
    assert_eq!((&removed["status"], &removed["contacts"]), (&"removed".into(), &serde_json::json!([])), "{removed}");
    let (mut held, mut others) = (0, 0);
    for member in world.world.members() {
        match world.run(client.call(&member.info(), &Store { envelope: old.clone() })).unwrap() {
            // A storer of the name knows better.
            StoreReply::Refused(Refusal::Older { .. }) => held += 1,
            StoreReply::Refused(Refusal::NotResponsible) | StoreReply::Stored => others += 1,
            reply => panic!("{reply:?}"),
        }
    }
    assert!(held >= 5, "{held} of {} refused the old record as older", held + others);
    for (via, options) in world.ways(&user) {
        let ran = lookup(&format!("{options} {}", user.aor));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{via}: {ran:?}");
    }
    register(&contact(&user)).exits(0);
    lookup(&format!("{} {}", user.options(), user.aor)).exits(0);
}

#[test]
fn most_members_do_not_hold_a_given_record() {
    let world = TestWorld::shared();
    let user = world.user("few");
    register(&contact(&user)).exits(0);
    let holders = world.holders(&user.name()).len();
    let members = world.world.members().len();
    assert!((5..=members / 3).contains(&holders), "{holders} of {members} hold it");
}

#[test]
fn names_of_other_overlays_are_refused_before_anybody_is_asked() {
    let world = TestWorld::shared();
    let user = world.user("foreign");
    // A name server that knows of no other.org.
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = world.run(DnsServer::start(listen, vec![Zone::new("org").unwrap()])).unwrap();
    let options = format!("{} --dns {}", user.options(), server.address());
    for uri in ["sip:alice@other.org", "sip:other.org", "turn:other.org"] {
        let ran = lookup(&format!("{options} --as overlay --overlay p2psip.org {uri}")).exits(2);
        assert!(ran.err.contains("other.org") && ran.err.contains("p2psip.org"), "{}", ran.err);
        // Without a word about the overlay it is the name's own: a member of this one does not stand in the way.
        lookup(&format!("{options} --as overlay {uri}")).exits(3).says("nobody to ask in other.org");
    }
    // What may be another domain's SIP URI is taken for one, and the overlay is not asked; a relay's can be nobody else's.
    for overlay in ["", "--overlay p2psip.org"] {
        for uri in ["sip:alice@other.org", "sip:other.org"] {
            lookup(&format!("{options} {overlay} {uri}")).exits(1).says("other.org does not exist in the DNS");
        }
    }
    lookup(&format!("{options} --overlay p2psip.org turn:other.org")).exits(2).says("p2psip.org");
    world.run(server.stop());
    register(&format!("{} sip:alice@other.org --contact sip:a@192.0.2.1", user.options())).exits(2).says("p2psip.org");
    register(&format!("{} --overlay p2psip.org sip:alice@other.org", user.options())).exits(2).says("p2psip.org");
    // A user's name has a user, an overlay's own URI only its host.
    register(&format!("{} sip:p2psip.org", user.options())).exits(2);
    for uri in ["sip:p2psip.org:5060", "sip:p2psip.org;transport=tcp"] {
        for option in ["--as overlay", "--overlay p2psip.org", "--overlay P2PSIP.org."] {
            lookup(&format!("{} {option} {uri}", user.options())).exits(2).says("only the host may be set");
        }
        lookup(&format!("{} --overlay example.com --dns 127.0.0.1:1 --timeout 0.1 {uri}", user.options())).exits(3);
    }
    for uri in ["turn:p2psip.org:3478", "sip:@p2psip.org"] {
        lookup(&format!("{} {uri}", user.options())).exits(2);
    }
}

#[test]
fn storers_refuse_names_of_other_overlays_however_well_they_are_signed() {
    let world = TestWorld::shared();
    let other = OverlayId::parse("other.org").unwrap();
    let authority = Authority::create(&other, UnixMs::now()).unwrap();
    let key = SecretKey::generate().unwrap();
    let name = ResourceName::parse("sip:alice@other.org").unwrap();
    let names = std::slice::from_ref(&name);
    let request = CertificateRequest::create(&key, names).unwrap();
    let certificate = authority.issue(&request, names, LIFETIME, UnixMs::now()).unwrap();
    let now = UnixMs::now();
    let contacts = vec![Contact::Sip { uri: "sip:alice@192.0.2.1".to_owned(), q: 1000 }];
    let payload = Payload { name, sequence: now.0, expires: now.after(LIFETIME), body: Body::User { contacts } };
    let envelope = seal(&payload, &key, Some(&certificate)).unwrap();
    let client = world.client();
    for member in world.world.members() {
        let store = Store { envelope: envelope.clone().into() };
        let reply = world.run(client.call(&member.info(), &store)).unwrap();
        assert_eq!(reply, StoreReply::Refused(Refusal::ForeignOverlay { host: other.clone() }));
    }
}

#[test]
fn an_overlay_that_interconnects_has_a_domain_name() {
    let dir = folder();
    let home = dir.path().join("home");
    let options = format!("--home {} --listen /ip4/127.0.0.1/tcp/0", home.display());
    join(&format!("{options} testnet")).exits(2).says("testnet");
    join(&format!("{options} --local 192.0.2.1")).exits(2);
    assert!(!home.join("descriptor.toml").exists(), "nothing was begun");
}

#[test]
fn a_local_overlay_needs_neither_domain_name_nor_preparation() {
    let dir = folder();
    let home = |name: &str| dir.path().join(name).display().to_string();
    let options = |name: &str| format!("--json --home {} --listen /ip4/127.0.0.1/tcp/0", home(name));
    let mut first = Staying::start(p2psip::cli::join::run, &format!("{} --local testnet", options("first")));
    let joined = first.json();
    assert_eq!((&joined["overlay"], &joined["policy"]), (&"testnet".into(), &"open".into()));
    let address = joined["addresses"][0].as_str().unwrap().to_owned();
    let second = format!(
        "{} --local testnet --peer {address} --descriptor {}/descriptor.toml",
        options("second"),
        home("first")
    );
    let mut second = Staying::start(p2psip::cli::join::run, &second);
    assert_eq!(second.json()["peers"], 1);
    register(&format!("sip:carol@testnet --home {}", home("second"))).exits(0);
    let found = lookup(&format!("--json --home {} sip:carol@testnet", home("first"))).exits(0).json();
    assert_eq!(found["records"][0]["certificate"], serde_json::Value::Null, "{found}");
    // Nobody says whose the name is when two say different things.
    register(&format!("sip:carol@testnet --home {}", home("first"))).exits(0);
    let contested = lookup(&format!("--json --home {} sip:carol@testnet", home("first"))).exits(4).json();
    assert_eq!((&contested["status"], contested["records"].as_array().unwrap().len()), (&"contested".into(), 2));
    assert_eq!(second.end(p2psip::cli::Signal::Terminate).code, 0);
    assert_eq!(first.end(p2psip::cli::Signal::Interrupt).code, 130);
    assert!(!dir.path().join("first/member.sock").exists(), "it takes its socket away with it");
}

#[test]
fn in_a_large_overlay_lookups_take_several_hops_and_few_members_hold_a_record() {
    let world = TestWorld::of(128);
    let users: Vec<User> = (0..16).map(|_| world.user("far")).collect();
    for user in &users {
        register(&contact(user)).exits(0);
    }
    let (mut hops, mut again) = (Vec::new(), Vec::new());
    for user in &users {
        let (holders, members) = (world.holders(&user.name()).len(), world.world.members().len());
        // A loaded machine has some storers taken for dead, and others hold it in their place.
        assert!((5..=16).contains(&holders), "{holders} of {members} hold it");
        for (via, options) in world.ways(user) {
            let json = lookup(&format!("--json {options} {}", user.aor)).exits(0).json();
            assert_eq!(json["records"][0]["instance"], user.key.instance().to_string(), "{via}: {json}");
            match via {
                "walk" => hops.push(json["hops"].as_u64().unwrap()),
                // A member remembers who had the records, and asks them at once.
                "socket" => {
                    let json = lookup(&format!("--json {options} {}", user.aor)).exits(0).json();
                    assert_eq!(json["records"][0]["instance"], user.key.instance().to_string(), "again: {json}");
                    again.push(json["hops"].as_u64().unwrap());
                }
                _ => {}
            }
        }
    }
    let at_least = |n: u64| hops.iter().filter(|hops| **hops >= n).count();
    assert!(at_least(2) > hops.len() / 2 && at_least(3) > 0, "{hops:?}");
    // On a loaded machine one of them may have been too slow.
    assert!(again.iter().filter(|hops| **hops == 1).count() >= again.len() - 3, "{again:?}");
    let absent = world.user("absent");
    for (via, options) in world.ways(&absent) {
        let ran = lookup(&format!("{options} {}", absent.aor));
        assert_eq!(ran.code, 1, "{via}: {ran:?}");
    }
    let TestWorld { world, runtime, .. } = world;
    runtime.block_on(world.stop());
}

#[test]
fn members_also_meet_over_quic() {
    let world = TestWorld::start(LabOptions { quic: true, ..LabOptions::new(8).unwrap() });
    let user = world.user("quic");
    let quic = world.world.members()[5].full_addresses().into_iter().find(|address| address.contains("/quic-v1"));
    let options = format!("{} --peer {}", user.home_option(), quic.unwrap());
    register(&format!("{options} {} --contact sip:phone@192.0.2.1", user.aor)).exits(0);
    for via in ["peer", "walk"] {
        let json = lookup(&format!("--json {options} --via {via} {}", user.aor)).exits(0).json();
        assert_eq!(json["records"].as_array().unwrap().len(), 1, "{json}");
    }
}
