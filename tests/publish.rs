//! `p2p-publish` as its users run it, against the embedded name server and a lab's world. What is on the wire, real
//! servers included, is tested in `dns::publish`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use p2psip::{
    cli,
    dns::{DnsServer, Grant, TsigKey, Zone},
    member::{Offer, OfferHandle},
    name::{Service, ServiceUri},
    record::Endpoint,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::world::{Ran, TestWorld, eventually, folder, run};

fn publish(line: &str) -> Ran {
    run(cli::publish::run, line)
}

/// A name server of `p2psip.org`, and the file with its key.
struct Server {
    address: SocketAddr,
    folder: TempDir,
    key: PathBuf,
    _runtime: Runtime,
    _server: DnsServer,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let key = TsigKey::generate("gatekeeper").unwrap();
        let zone = Zone::new("p2psip.org").unwrap().with_key(key.clone(), vec![Grant::all()]);
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = runtime.block_on(DnsServer::start(listen, vec![zone])).unwrap();
        let folder = folder();
        let path = write(&folder, "gatekeeper.key", &key.to_file(), 0o600);
        Self { address: server.address(), folder, key: path, _runtime: runtime, _server: server }
    }

    /// The options that lead to it, without the key.
    fn options(&self) -> String {
        let home = self.folder.path().join("home");
        format!("--overlay p2psip.org --server {} --home {} --timeout 3", self.address, home.display())
    }

    fn with_key(&self) -> String {
        format!("{} --key {}", self.options(), self.key.display())
    }

    /// What is published, as `list --json` has it.
    fn listed(&self) -> serde_json::Value {
        publish(&format!("list --dns-only --json {}", self.options())).exits(0).json()
    }
}

fn write(folder: &TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_proxy_peer_comes_and_goes() {
    let server = Server::start();
    let empty = publish(&format!("list --dns-only {}", server.options())).exits(0);
    let empty = empty.says("cannot be reached from public SIP networks");
    assert_eq!(empty.out, "");

    let add = format!("add --host proxy1 --address 192.0.2.1 --address 2001:db8::1 {}", server.with_key());
    let dry = publish(&format!("{add} --dry-run")).exits(0);
    for line in [
        format!("server 127.0.0.1 {}\n", server.address.port()),
        "zone p2psip.org.\n".to_owned(),
        "prereq nxrrset _lease.proxy1.p2psip.org. IN TXT\n".to_owned(),
        "update add proxy1.p2psip.org. 30 IN AAAA 2001:db8::1\n".to_owned(),
        "update add _sip._tcp.p2psip.org. 30 IN SRV 10 50 5060 proxy1.p2psip.org.\n".to_owned(),
        "\nsend\n".to_owned(),
    ] {
        assert!(dry.out.contains(&line), "{line} is not in\n{}", dry.out);
    }
    assert_eq!(server.listed()["proxies"].as_array().unwrap().len(), 0, "a dry run writes nothing");

    let added = publish(&format!("{add} --json")).exits(0).json();
    assert_eq!((&added["status"], &added["host"]), (&"added".into(), &"proxy1.p2psip.org".into()));
    let renewed = publish(&format!("{add} --json --lease 60")).exits(0).json();
    assert_eq!(renewed["status"], "renewed");
    assert!(renewed["lease_in_ms"].as_u64().unwrap() <= 61_000);

    let listed = server.listed();
    let proxy = &listed["proxies"][0];
    assert_eq!(proxy["addresses"], serde_json::json!(["192.0.2.1", "2001:db8::1"]));
    assert_eq!(proxy["servers"], serde_json::json!(["udp:5060", "tcp:5060"]));
    assert_eq!(
        (&listed["status"], &proxy["lease"], &proxy["key"]),
        (&"in-step".into(), &"live".into(), &"gatekeeper".into())
    );
    let table = publish(&format!("list --check --dns-only {}", server.options())).exits(0);
    assert!(table.out.contains("proxy1.p2psip.org") && table.out.contains("udp:5060"), "{table:?}");

    let remove = format!("remove --host proxy1.p2psip.org. {}", server.with_key());
    assert!(publish(&remove).exits(0).out.contains("tombstone"));
    publish(&remove).exits(1).says("proxy1.p2psip.org is not published in p2psip.org");
    assert_eq!(server.listed()["proxies"].as_array().unwrap().len(), 0);
}

#[test]
fn what_cannot_be_used_is_one_line_and_exit_code_2() {
    let server = Server::start();
    let sound = fs::read_to_string(&server.key).unwrap();
    let add = |more: &str| publish(&format!("add --host a --address 192.0.2.1 {} {more}", server.options()));
    let key = |name: &str, text: &str, mode| format!("--key {}", write(&server.folder, name, text, mode).display());
    for (options, says) in [
        (String::new(), "no key: give the file"),
        ("--key /nonexistent/key".to_owned(), "the key file /nonexistent/key cannot be used: No such file"),
        (key("readable", &sound, 0o644), "others may read it (mode 0644)"),
        (key("empty", "", 0o600), "it ends in the middle of a key"),
        (key("md5", &sound.replace("hmac-sha256", "hmac-md5"), 0o600), "the algorithm 'hmac-md5' is not"),
        (key("base64", &sound.replace("secret \"", "secret \"!"), 0o600), "the secret is not base64"),
        (format!("{} --address 10.0.0.1", key("ok", &sound, 0o600)), "10.0.0.1 cannot be published: it is a private"),
        (format!("{} --address 127.0.0.1", key("ok", &sound, 0o600)), "it is a loopback address"),
        (format!("{} --address 100.64.1.1", key("ok", &sound, 0o600)), "carriers share"),
        (format!("{} --ttl 31", key("ok", &sound, 0o600)), "it has to be 1 to 30"),
        (format!("{} --lease 1", key("ok", &sound, 0o600)), "2 s to 7 days"),
        (format!("{} --transport sctp", key("ok", &sound, 0o600)), "--transport: 'sctp' is not udp, tcp or tls"),
        (format!("{} --transport udp:0", key("ok", &sound, 0o600)), "--transport: '0' is not a port"),
        (format!("{} --dnsaddr /ip4/192.0.2.1/tcp/1", key("ok", &sound, 0o600)), "it has no /p2p/ part"),
        (format!("{} --port 0", key("ok", &sound, 0o600)), "--port"),
    ] {
        let ran = add(&options).exits(2).says(says);
        assert_eq!(ran.out, "");
        assert!(ran.err.lines().count() <= 2 && !ran.err.contains("secret \""), "{ran:?}");
    }
    add(&format!("{} --address 127.0.0.1 --force", key("ok", &sound, 0o600))).exits(0);

    let elsewhere = |overlay: &str| {
        let (address, key) = (server.address, server.key.display());
        let home = server.folder.path().join("home");
        let options = format!("--overlay {overlay} --server {address} --key {key} --home {}", home.display());
        publish(&format!("add --host a --address 192.0.2.1 {options}"))
    };
    elsewhere("example.com").exits(2).says("holds no zone for example.com: it answers REFUSED");
    elsewhere("localnet").exits(2).says("not a fully qualified domain name");
}

#[test]
fn refusals_and_silence_are_told_apart_and_change_nothing() {
    let server = Server::start();
    let other = TsigKey::generate("gatekeeper").unwrap().to_file();
    let unknown = TsigKey::generate("nobody").unwrap().to_file();
    for (name, text, says) in [("other", other, "NOTAUTH, BADSIG"), ("unknown", unknown, "NOTAUTH, BADKEY")] {
        let key = write(&server.folder, name, &text, 0o600);
        let add = format!("add --host a --address 192.0.2.1 {} --key {}", server.options(), key.display());
        publish(&add).exits(1).says(says);
        let json = publish(&format!("{add} --json")).exits(1).json();
        assert!(json["status"].is_string(), "{json}");
    }
    assert_eq!(server.listed()["proxies"].as_array().unwrap().len(), 0);
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let options = server.with_key().replace(&server.address.to_string(), &closed.to_string());
    publish(&format!("add --host a --address 192.0.2.1 {options}")).exits(3).says("no answer from the name server");
}

#[test]
fn a_lease_that_is_over_is_drift_and_sync_reaps_it() {
    let server = Server::start();
    publish(&format!("add --host a --address 192.0.2.1 --lease 2 {}", server.with_key())).exits(0);
    let check = format!("list --check --dns-only --json {}", server.options());
    eventually("the lease is over", || publish(&check).code == 1);
    assert_eq!(publish(&check).json()["proxies"][0]["drift"], "lease-over");
    let planned = publish(&format!("sync --dns-only --dry-run {}", server.with_key())).exits(0);
    assert!(planned.out.contains("prereq yxrrset _lease.a.p2psip.org. IN TXT"), "{planned:?}");
    let synced = publish(&format!("sync --dns-only --json {}", server.with_key())).exits(0).json();
    assert_eq!((&synced["status"], &synced["actions"][0]["action"]), (&"synced".into(), &"reap".into()));
    publish(&check).exits(0);
}

/// Has a member offer to be a proxy peer on a port of loopback.
fn offer(world: &TestWorld, index: usize, port: u16) -> OfferHandle {
    let member = &world.world.members()[index];
    let service = ServiceUri::parse("sip:p2psip.org").unwrap();
    let certificate = world.world.enrol(member.key(), &[service.into()]).unwrap();
    let endpoint = |transport: &str| Endpoint { transport: transport.to_owned(), host: "127.0.0.1".to_owned(), port };
    let endpoints = vec![endpoint("udp"), endpoint("tcp")];
    world.run(member.offer(Offer { service: Service::Proxy, endpoints, certificate, serving: true, load: 0 })).unwrap()
}

#[test]
fn dns_and_overlay_are_compared_and_brought_together() {
    let world = TestWorld::of(9);
    let user = world.user("operator");
    let (dns, key) = (world.world.dns(), world.world.dns_key().display().to_string());
    let options = format!("{} --overlay p2psip.org --server {dns}", user.options());
    let check = format!("list --check --json {options}");
    let drifts = || {
        let listed = publish(&check).json();
        let drifts = listed["proxies"].as_array().unwrap().iter().map(|proxy| proxy["drift"].clone());
        (listed["overlay_unasked"].clone(), drifts.collect::<Vec<_>>())
    };
    publish(&check).exits(0);
    let moving = offer(&world, 7, 5070);
    let stopping = offer(&world, 8, 5060);
    eventually("both are found", || drifts().1 == ["not-in-dns", "not-in-dns"]);
    publish(&check).exits(1);

    // Loopback addresses are nothing for the public DNS, unless one insists.
    let sync = format!("sync --key {key} {options}");
    publish(&sync).exits(0).says("127.0.0.1 is not published: it is a loopback address");
    let synced = publish(&format!("{sync} --force --json")).exits(0).json();
    let actions = synced["actions"].as_array().unwrap().iter().map(|action| action["action"].clone());
    assert_eq!(actions.collect::<Vec<_>>(), ["add", "add"]);
    publish(&check).exits(0);
    let again = publish(&format!("{sync} --force --json")).exits(0).json();
    assert_eq!(again["actions"], serde_json::json!([]), "what is in step is left alone");

    // One of them moves, the other one stops serving.
    world.run(moving.withdraw());
    let _moved = offer(&world, 7, 5080);
    stopping.update(false, 0);
    eventually("the change is seen", || {
        let mut seen = drifts().1;
        seen.sort_by_key(ToString::to_string);
        seen == ["differs", "not-in-overlay"]
    });
    publish(&format!("{sync} --force")).exits(0);
    let listed = publish(&check).exits(0).json();
    assert_eq!(listed["proxies"].as_array().unwrap().len(), 1);
    assert_eq!(listed["proxies"][0]["servers"], serde_json::json!(["udp:5080", "tcp:5080"]));
    let exported = publish(&format!("export --force {options}")).exits(0);
    assert!(exported.out.contains("_sip._udp.p2psip.org. 30 IN SRV 10 50 5080 p"), "{exported:?}");
}

#[test]
fn lines_for_a_zone_written_by_hand_need_no_server() {
    let options = "--overlay p2psip.org --home /nonexistent";
    let ran = publish(&format!("export --host a --address 192.0.2.1 --transport tls --transport udp:5070 {options}"))
        .exits(0);
    assert_eq!(
        ran.out.lines().collect::<Vec<_>>(),
        [
            "a.p2psip.org. 30 IN A 192.0.2.1",
            "_sips._tcp.p2psip.org. 30 IN SRV 10 50 5061 a.p2psip.org.",
            "p2psip.org. 30 IN NAPTR 10 50 \"s\" \"SIPS+D2T\" \"\" _sips._tcp.p2psip.org.",
            "_sip._udp.p2psip.org. 30 IN SRV 10 50 5070 a.p2psip.org.",
            "p2psip.org. 30 IN NAPTR 30 50 \"s\" \"SIP+D2U\" \"\" _sip._udp.p2psip.org.",
        ]
    );
    publish(&format!("export --host a {options}")).exits(2).says("--address");
}
