//! Whole ways through several steps, from one home to another.

use std::fs;

use super::*;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// A folder with the homes of a CA and of Alice in it.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        init(&world.at("ca"), &InitOptions::new("p2psip.org".parse().unwrap()), NOW).unwrap();
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn request(&self, texts: &[&str]) -> PathBuf {
        let path = self.at(&format!("{}.csr", texts.join("+")));
        request(&self.at("alice"), &names(texts), Some(&path)).unwrap();
        path
    }

    fn issue(&self, texts: &[&str]) -> IssueOutcome {
        issue(&self.at("ca"), &IssueOptions::new(vec![self.request(texts)]), NOW).unwrap()
    }

    fn enroll(&self, texts: &[&str]) -> Vec<IssuedCertificate> {
        let ca = Home::open(&self.at("ca"), false).unwrap();
        let into = Home::open(&self.at("alice"), true).unwrap();
        enroll(&ca, &into, &names(texts), DAY, NOW).unwrap()
    }

    fn shown(&self, path: &str) -> serde_json::Value {
        let outcome = show(&[self.at(path)], Some(&self.at("alice")), NOW).unwrap();
        serde_json::to_value(outcome).unwrap()["items"].take()
    }
}

fn names(texts: &[&str]) -> Vec<ResourceName> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn why<T: std::fmt::Debug>(result: Result<T, EnrollError>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn a_certificate_travels_from_request_to_home() {
    let world = World::new();
    let requested = world.request(&["sip:alice@p2psip.org"]);
    let mut options = IssueOptions::new(vec![requested]);
    options.out = Some(world.at("alice.pem"));
    let issued = issue(&world.at("ca"), &options, NOW).unwrap();
    let serial = issued.certificates[0].serial.clone();
    assert_eq!(issued.certificates[0].not_after_ms, UnixMs(NOW.after(DEFAULT_LIFETIME).0 + 999));

    // The certificate first: the order of the files does not matter, but the descriptor is needed.
    let files = [world.at("alice.pem"), world.at("ca/descriptor.toml")];
    assert!(why(install(&world.at("alice"), &files[..1], false, NOW)).contains("install the overlay's descriptor"));
    let outcome = install(&world.at("alice"), &files, false, NOW).unwrap();
    let json = serde_json::to_value(&outcome).unwrap();
    assert_eq!(json["installed"][0]["what"], "descriptor");
    assert_eq!(json["installed"][0]["changed"], true);
    assert_eq!(json["installed"][1]["names"][0], "sip:alice@p2psip.org");
    assert!(json["installed"][1]["not_after_ms"].is_u64());

    let home = Home::open(&world.at("alice"), false).unwrap();
    let key = home.instance_key().unwrap().public();
    let found = home.certificate_for(&key, &"sip:alice@p2psip.org".parse().unwrap(), NOW).unwrap().unwrap();
    assert_eq!(found.serial(), serial);
}

#[test]
fn an_overlay_is_never_overwritten() {
    let world = World::new();
    let key = fs::read(world.at("ca/ca.key")).unwrap();
    let descriptor = fs::read(world.at("ca/descriptor.toml")).unwrap();
    for policy in [Policy::Enrolled, Policy::Open] {
        let options = InitOptions { policy, ..InitOptions::new("example.org".parse().unwrap()) };
        assert!(why(init(&world.at("ca"), &options, NOW)).contains("is not overwritten"));
    }
    assert_eq!(fs::read(world.at("ca/ca.key")).unwrap(), key);
    assert_eq!(fs::read(world.at("ca/descriptor.toml")).unwrap(), descriptor);
    fs::remove_file(world.at("ca/descriptor.toml")).unwrap();
    let options = InitOptions::new("example.org".parse().unwrap());
    assert!(why(init(&world.at("ca"), &options, NOW)).contains("ca.key exists already"));
}

#[test]
fn only_a_local_overlay_may_have_one_label() {
    let world = World::new();
    let options = InitOptions::new("testnet".parse().unwrap());
    let error = init(&world.at("t"), &options, NOW).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("not a fully qualified domain name"), "{error}");
    assert!(!world.at("t").exists(), "nothing is left behind");
    let outcome = init(&world.at("t"), &InitOptions { local: true, ..options }, NOW).unwrap();
    assert!(outcome.local && outcome.ca_key.is_some());
}

#[test]
fn limits_are_the_overlays_own() {
    let world = World::new();
    let mut options = InitOptions::new("p2psip.org".parse().unwrap());
    (options.policy, options.replication, options.max_lifetime_s) = (Policy::Open, Some(3), Some(60));
    let outcome = init(&world.at("open"), &options, NOW).unwrap();
    assert_eq!((outcome.ca_key, outcome.limits.replication, outcome.limits.default_lifetime_s), (None, 3, 60));
    options.replication = Some(21);
    assert!(why(init(&world.at("much"), &options, NOW)).contains("limits.replication is 21"));
    assert!(why(request(&world.at("open"), &names(&["sip:a@p2psip.org"]), None)).contains("need no certificates"));
    let issued = issue(&world.at("open"), &IssueOptions::new(vec![world.request(&["sip:a@p2psip.org"])]), NOW);
    assert!(why(issued).contains("has no CA"));
}

#[test]
fn requests_are_of_one_key_and_one_overlay() {
    let world = World::new();
    let home = world.at("alice");
    assert!(why(request(&home, &names(&["sip:a@p2psip.org", "sip:p2psip.org"]), None)).contains("for each"));
    assert!(why(request(&home, &names(&["sip:a@p2psip.org", "sip:a@x.org"]), None)).contains("does not belong"));
    assert!(why(request(&home, &[], None)).contains("names nobody"));
    assert!(!home.exists());
    let user = request(&home, &names(&["sip:a@p2psip.org"]), None).unwrap();
    let service = request(&home, &names(&["turn:p2psip.org"]), None).unwrap();
    assert!(user.instance.is_some() && user.peer.is_none() && service.peer.is_some());
    assert_ne!(user.public_key, service.public_key);
    let again = request(&home, &names(&["sip:b@p2psip.org"]), None).unwrap();
    assert_eq!(again.public_key, user.public_key, "one device, several AORs");
    let key = home.join("instance.key");
    assert!(why(request(&home, &names(&["sip:a@p2psip.org"]), Some(&key))).contains("is not overwritten"));
}

#[test]
fn only_names_of_the_overlay_are_issued() {
    let world = World::new();
    let foreign = world.request(&["sip:alice@example.com"]);
    let error = issue(&world.at("ca"), &IssueOptions::new(vec![foreign]), NOW).unwrap_err();
    assert!(error.to_string().contains("sip:alice@example.com.csr: sip:alice@example.com does not belong"));
    let mut options = IssueOptions::new(vec![world.request(&["sip:alice@p2psip.org"])]);
    options.names = Some(names(&["sip:carol@p2psip.org"]));
    let issued = issue(&world.at("ca"), &options, NOW).unwrap();
    assert_eq!(issued.certificates[0].names, names(&["sip:carol@p2psip.org"]));
    options.requests.push(world.request(&["sip:bob@p2psip.org"]));
    assert!(why(issue(&world.at("ca"), &options, NOW)).contains("one request only"));
    let wrong = IssueOptions::new(vec![world.at("ca/descriptor.toml")]);
    assert!(why(issue(&world.at("ca"), &wrong, NOW)).contains("holds a descriptor: give a certificate request"));
    assert!(why(issue(&world.at("alice"), &IssueOptions::new(vec![]), NOW)).contains("does not exist"));
}

#[test]
fn one_step_enrols_device_and_process() {
    let world = World::new();
    let issued = world.enroll(&["sip:alice@p2psip.org", "sip:p2psip.org", "turn:p2psip.org"]);
    assert_eq!(issued.len(), 2);
    let home = Home::open(&world.at("alice"), false).unwrap();
    for (key, name) in [(home.instance_key(), "sip:alice@p2psip.org"), (home.peer_key(), "turn:p2psip.org")] {
        let key = key.unwrap().public();
        assert!(home.certificate_for(&key, &name.parse().unwrap(), NOW).unwrap().is_some(), "{name}");
    }
    let mut options = IssueOptions::new(vec![world.request(&["sip:alice.b@p2psip.org"])]);
    options.into = Some(world.at("alice"));
    issue(&world.at("ca"), &options, NOW).unwrap();
    assert_eq!(home.certificates().unwrap().len(), 3);
    let stranger = Home::open(&world.at("bob"), true).unwrap();
    options.into = Some(stranger.folder().to_owned());
    assert!(why(issue(&world.at("ca"), &options, NOW)).contains("another key"));
}

#[test]
fn another_descriptor_replaces_only_on_demand() {
    let world = World::new();
    world.enroll(&["sip:alice@p2psip.org"]);
    init(&world.at("other"), &InitOptions::new("p2psip.org".parse().unwrap()), NOW).unwrap();
    let offered = [world.at("other/descriptor.toml")];
    let error = install(&world.at("alice"), &offered, false, NOW).unwrap_err();
    assert_eq!(error.kind(), Kind::Untrusted);
    assert!(error.to_string().contains("--replace"), "{error}");
    let same = install(&world.at("alice"), &[world.at("ca/descriptor.toml")], false, NOW).unwrap();
    assert!(matches!(same.installed[..], [Installed::Descriptor { changed: false, .. }]));
    let replaced = install(&world.at("alice"), &offered, true, NOW).unwrap();
    assert!(matches!(replaced.installed[..], [Installed::Descriptor { changed: true, .. }]));
}

#[test]
fn keys_and_requests_are_not_installed() {
    let world = World::new();
    for (path, found) in
        [(world.at("ca/ca.key"), "a private key"), (world.request(&["sip:a@p2psip.org"]), "a certificate request")]
    {
        assert!(why(install(&world.at("alice"), &[path], false, NOW)).contains(found));
    }
}

#[test]
fn certificates_are_revoked_by_name_serial_and_file() {
    let world = World::new();
    let ca = world.at("ca");
    let alice = world.issue(&["sip:alice@p2psip.org"]).certificates.remove(0);
    let bob = world.issue(&["sip:bob@p2psip.org"]).certificates.remove(0);
    let carol = world.issue(&["sip:carol@p2psip.org"]).certificates.remove(0);
    let file = world.at("carol.pem");
    fs::write(&file, &carol.pem).unwrap();

    let first = revoke(&ca, &["sips:alice@P2PSIP.org".to_owned()], NOW).unwrap();
    assert_eq!((first.revoked[0].serial.as_str(), first.total, first.sequence), (&*alice.serial, 1, NOW.0));
    let shouted = bob.serial.to_ascii_uppercase();
    let targets = [shouted, file.display().to_string(), alice.serial.clone()];
    let second = revoke(&ca, &targets, NOW).unwrap();
    assert_eq!((second.total, second.sequence), (3, NOW.0 + 1));
    for revoked in &second.revoked {
        assert_eq!(revoked.before, revoked.serial == alice.serial);
        assert_eq!(revoked.names.len(), 1);
    }

    assert!(why(revoke(&ca, &["sip:dave@p2psip.org".to_owned()], NOW)).contains("no certificate for sip:dave"));
    assert!(why(revoke(&ca, &["sip:a@example.com".to_owned()], NOW)).contains("does not belong"));
    assert!(why(revoke(&ca, &["nonsense".to_owned()], NOW)).contains("nonsense"));
    assert!(why(revoke(&ca, &[], NOW)).contains("give a serial"));
    assert!(why(revoke(&world.at("alice"), &[alice.serial], NOW)).contains("does not exist"));

    init(&world.at("other"), &InitOptions::new("p2psip.org".parse().unwrap()), NOW).unwrap();
    let foreign = revoke(&world.at("other"), &[file.display().to_string()], NOW);
    assert!(why(foreign).contains("not issued by this overlay's CA"));
}

#[test]
fn a_revocation_reaches_the_members_home() {
    let world = World::new();
    let issued = world.enroll(&["sip:alice@p2psip.org"]);
    let list = revoke(&world.at("ca"), &[issued[0].serial.clone()], NOW).unwrap().file;
    let installed = install(&world.at("alice"), std::slice::from_ref(&list), false, NOW).unwrap();
    assert!(matches!(installed.installed[..], [Installed::Revocations { revoked: 1, changed: true, .. }]));
    let again = install(&world.at("alice"), &[list], false, NOW).unwrap();
    assert!(matches!(again.installed[..], [Installed::Revocations { changed: false, .. }]));
    let shown = world.shown(&format!("alice/certs/{}.pem", issued[0].serial));
    assert_eq!(shown[0]["standing"], "revoked");
    assert_eq!(shown[0]["at_ms"], NOW.0);
}

#[test]
fn everything_can_be_shown_but_private_keys() {
    let world = World::new();
    world.enroll(&["sip:alice@p2psip.org", "sip:p2psip.org"]);
    world.issue(&["sip:alice@p2psip.org"]);
    revoke(&world.at("ca"), &["0a0b".to_owned()], NOW).unwrap();
    let items = [world.shown("alice"), world.shown("ca"), world.shown("sip:alice@p2psip.org.csr")];
    let count = |what: &str| {
        items.iter().flat_map(|items| items.as_array().unwrap()).filter(|item| item["what"] == what).count()
    };
    assert_eq!(count("private-key"), 3);
    assert_eq!(count("certificate"), 5);
    assert_eq!((count("descriptor"), count("revocations"), count("request")), (2, 1, 1));
    let text = serde_json::to_string(&items).unwrap();
    assert!(!text.contains("PRIVATE"), "{text}");
    for key in ["ca/ca.key", "alice/instance.key", "alice/peer.key"] {
        let pem = fs::read_to_string(world.at(key)).unwrap();
        assert!(!text.contains(pem.lines().nth(1).unwrap()), "{key}");
    }
    for certificate in items[0].as_array().unwrap().iter().filter(|item| item["what"] == "certificate") {
        assert_eq!(certificate["standing"], "good");
    }
    // Without the descriptor nobody can say.
    let alone = show(&[world.at("ca/revocations.cbor")], None, NOW).unwrap();
    assert!(matches!(&alone.items[0].item, Item::Revocations { standing: Standing::Unchecked, .. }));
    init(&world.at("other"), &InitOptions::new("p2psip.org".parse().unwrap()), NOW).unwrap();
    let other = show(&[world.at("ca/revocations.cbor")], Some(&world.at("other")), NOW).unwrap();
    assert!(matches!(&other.items[0].item, Item::Revocations { standing: Standing::Bad { .. }, .. }));
    fs::write(world.at("notes"), "hello").unwrap();
    assert!(why(show(&[world.at("notes")], None, NOW)).contains("notes: neither a certificate"));
}
