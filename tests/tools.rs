//! The tools where something is missing, wrong, slow or in the way: what they say and how they exit.

use std::{
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use p2psip::{
    cli::{self, Io, Signal},
    client::Status,
    clock::UnixMs,
    identity::SecretKey,
};

use crate::world::{
    Process, Run, Staying, TestWorld, address_of, bare_env, eventually, folder, free_port, hanging, join, lookup,
    over_socket, register, run, timed,
};

#[test]
fn nobody_to_ask_not_found_and_not_to_be_trusted_are_different_answers() {
    let world = TestWorld::shared();
    let user = world.user("answers");
    register(&format!("{} {} --contact sip:phone@192.0.2.1", user.options(), user.aor)).exits(0);
    let distrustful = world.user("stranger");
    let serial = user.certificate.as_ref().unwrap().serial().to_owned();
    let list = world.world.authority().unwrap().revoke(None, std::slice::from_ref(&serial), UnixMs::now()).unwrap();
    distrustful.home.set_revocations(&list).unwrap();
    let (home, peers) = (distrustful.home_option(), world.peers());
    let nowhere = format!("--peer {}", address_of(free_port()));
    for (options, code, status, says) in [
        (format!("{} {}", user.options(), user.aor), 0, "found", ""),
        (format!("{} {}", user.options(), distrustful.aor), 1, "not-found", "not found: 5 storers"),
        (format!("{home} {nowhere} {}", user.aor), 3, "nobody-to-ask", "Connection refused"),
        (format!("{home} {peers} --via walk {}", user.aor), 4, "untrusted", &format!("certificate {serial} has been")),
        (format!("{home} {peers} --via peer {}", user.aor), 4, "untrusted", &format!("certificate {serial} has been")),
    ] {
        let plain = lookup(&format!("--short {options}")).exits(code).says(says);
        assert_eq!(plain.out.is_empty(), code != 0, "{plain:?}");
        let json = lookup(&format!("--json {options}")).exits(code);
        assert_eq!((json.json()["status"].as_str(), json.err.as_str()), (Some(status), ""), "{json:?}");
    }
    // Of several URIs, the worst counts.
    let all = format!("{} {}", user.aor, distrustful.aor);
    lookup(&format!("{} {all}", user.options())).exits(1);
}

#[test]
fn a_port_where_nobody_listens_is_reported_at_once() {
    let world = TestWorld::shared();
    let user = world.user("stranger");
    let options = format!("{} --peer {}", user.home_option(), address_of(free_port()));
    let commands: [(Run, String); 3] = [
        (cli::lookup::run, format!("{options} {}", user.aor)),
        (cli::register::run, format!("{options} {} --contact sip:a@192.0.2.1", user.aor)),
        (cli::join::run, format!("{options} --listen /ip4/127.0.0.1/tcp/0")),
    ];
    for (tool, line) in commands {
        let (ran, took) = timed(tool, &line);
        let ran = ran.exits(3).says("Connection refused");
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[test]
fn a_peer_that_never_answers_costs_the_timeout_and_no_more() {
    let world = TestWorld::shared();
    let (user, (_listener, address)) = (world.user("stranger"), hanging());
    let options = format!("{} --timeout 0.7 --peer {address}", user.home_option());
    let commands: [(Run, String); 5] = [
        (cli::lookup::run, format!("{options} {}", user.aor)),
        (cli::lookup::run, format!("{options} --via peer {}", user.aor)),
        (cli::lookup::run, format!("{options} --via walk {}", user.aor)),
        (cli::register::run, format!("{options} {} --contact sip:a@192.0.2.1", user.aor)),
        (cli::join::run, format!("{options} --listen /ip4/127.0.0.1/tcp/0")),
    ];
    for (tool, line) in commands {
        let (ran, took) = timed(tool, &line);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{line}: {ran:?}");
        assert!((600..1500).contains(&took.as_millis()), "{line}: {took:?}");
    }
}

#[test]
fn one_good_peer_among_dead_and_hanging_ones_is_enough() {
    let world = TestWorld::shared();
    let (user, absent, (_listener, hanging)) = (world.user("persistent"), world.user("absent"), hanging());
    let dead: String = (0..4).map(|_| format!("--peer {} ", address_of(free_port()))).collect();
    let good = &world.world.entries()[0];
    for bad in [dead, format!("--peer {hanging}")] {
        let options = format!("{} --timeout 5 {bad} --peer {good}", user.home_option());
        let (ran, took) = timed(cli::register::run, &format!("{options} {} --contact sip:a@192.0.2.1", user.aor));
        ran.exits(0);
        assert!(took < Duration::from_secs(3), "{bad}: {took:?}");
        for via in ["auto", "peer", "walk"] {
            let (ran, took) = timed(cli::lookup::run, &format!("{options} --via {via} --short {}", user.aor));
            assert_eq!(ran.exits(0).out, "sip:a@192.0.2.1\n");
            assert!(took < Duration::from_secs(3), "{via} {bad}: {took:?}");
            let (ran, took) = timed(cli::lookup::run, &format!("{options} --via {via} {}", absent.aor));
            assert_eq!(ran.code, 1, "{via} {bad}: {ran:?}");
            assert!(took < Duration::from_secs(3), "{via} {bad}: {took:?}");
        }
    }
}

#[test]
fn another_peer_or_another_overlay_at_an_address_is_told_apart() {
    let world = TestWorld::shared();
    let user = world.user("stranger");
    let elsewhere = world.world.members()[4].addresses().remove(0);
    let wrong = format!("{elsewhere}/p2p/{}", SecretKey::generate().unwrap().peer_id());
    lookup(&format!("{} --peer {wrong} {}", user.home_option(), user.aor)).exits(3).says("another peer answers there");

    let folder = folder();
    let home = folder.path().join("home");
    let options = format!("--home {} --local --listen /ip4/127.0.0.1/tcp/0", home.display());
    let mut other = Staying::start(cli::join::run, &format!("--short {options} testnet"));
    let address = other.line();
    lookup(&format!("{} --peer {address} {}", user.home_option(), user.aor)).exits(4).says("speaks another protocol");
    join(&format!("{} --peer {address} --listen /ip4/127.0.0.1/tcp/0", user.home_option())).exits(4).says("p2psip.org");
    assert_eq!(other.end(Signal::Terminate).code, 0);
}

#[test]
fn what_is_taken_already_is_reported_as_such() {
    let folder = folder();
    let home = |name: &str| folder.path().join(name);
    let options =
        |name: &str, listen: &str| format!("--local --home {} --listen {listen} testnet", home(name).display());
    let mut first = Staying::start(cli::join::run, &format!("--short {}", options("one", "/ip4/127.0.0.1/tcp/0")));
    let address = first.line();
    let listen = address.split_once("/p2p/").unwrap().0;
    join(&options("two", listen)).exits(5).says("cannot listen on").says("in use").says("--listen");
    let same_home = join(&options("one", "/ip4/127.0.0.1/tcp/0")).exits(5).says("in use by another process");
    assert!(same_home.err.contains(&format!("(process {})", std::process::id())), "{}", same_home.err);
    // The one that was there first has not noticed.
    lookup(&format!("--home {} sip:a@testnet", home("one").display())).exits(1);
    join(&options("three", "/ip4/192.0.2.1/tcp/0")).exits(5).says("cannot listen on");
    assert_eq!(first.end(Signal::Terminate).code, 0);
    let mut again = Staying::start(cli::join::run, &format!("--short {}", options("one", listen)));
    assert_eq!(again.line(), address, "it has the same key and the same port");
}

#[test]
fn what_others_could_read_is_not_used() {
    let world = TestWorld::shared();
    let user = world.user("stranger");
    let open_up = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let (home, key) = (user.home.folder(), user.home.instance_key_path());
    let line = format!("{} {} --contact sip:a@192.0.2.1", user.options(), user.aor);
    open_up(&key, 0o644);
    register(&line).exits(5).says("chmod 600").says(&key.display().to_string());
    open_up(&key, 0o600);
    open_up(home, 0o755);
    register(&line).exits(5).says("chmod 700");
    join(&format!("--home {} --listen /ip4/127.0.0.1/tcp/0", home.display())).exits(5).says("chmod 700");
    open_up(home, 0o700);
    register(&line).exits(0);
    // A socket in a folder that others may enter could be replaced by them.
    let folder = folder();
    open_up(folder.path(), 0o755);
    let socket = folder.path().join("member.sock");
    let options = format!("--local --home {} testnet", folder.path().join("home").display());
    join(&format!("{options} --listen /ip4/127.0.0.1/tcp/0 --socket {}", socket.display())).exits(5).says("chmod 700");
    assert!(!socket.exists());
}

#[test]
fn a_socket_that_is_missing_left_behind_or_too_long_is_explained() {
    let folder = folder();
    let home = folder.path().join("home");
    let line = |home: &Path, socket: &Path| {
        let options = format!("--local --home {} --listen /ip4/127.0.0.1/tcp/0", home.display());
        format!("{options} --socket {} testnet", socket.display())
    };
    let (other, long) = (folder.path().join("other"), folder.path().join("x".repeat(120)));
    join(&line(&other, &long)).exits(5).says("longer than 107 bytes").says("--socket");
    // A member that was killed leaves its socket; the next one takes its place.
    let socket = home.join("member.sock");
    let (killed, _) = Process::member(&line(&home, &socket));
    killed.kill();
    assert!(socket.exists());
    let gone = format!("--home {} --socket {}", home.display(), socket.display());
    lookup(&format!("{gone} sip:a@testnet")).exits(3).says("no member listens at").says("p2p-join");
    let mut next = Staying::start(cli::join::run, &format!("--short {}", line(&home, &socket)));
    next.line();
    lookup(&format!("{gone} sip:a@testnet")).exits(1);
}

#[test]
fn a_damaged_store_is_set_aside_and_reported() {
    let folder = folder();
    let home = folder.path().join("home");
    let options = format!("--local --home {} --listen /ip4/127.0.0.1/tcp/0 testnet", home.display());
    let (member, _) = Process::member(&options);
    register(&format!("--home {} sip:carol@testnet", home.display())).exits(0);
    assert_eq!(member.kill().code, u8::MAX);
    std::fs::write(home.join("records.redb"), vec![0x5a; 70_000]).unwrap();
    let (member, joined) = Process::member(&options);
    assert_eq!(joined["restored"], 0, "{joined}");
    let status = TestWorld::shared().run(over_socket(&home.join("member.sock"), &Status {})).unwrap();
    assert_eq!(status.records, 0);
    let ran = member.kill().says("records.redb could not be read").says("set aside as");
    let aside: Vec<PathBuf> = crate::support::files_below(&home, "")
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("records.redb."))
        .collect();
    assert_eq!(aside.len(), 1, "{ran:?}");
    assert_eq!(std::fs::read(&aside[0]).unwrap(), vec![0x5a; 70_000], "nothing of it is lost");
}

#[test]
fn ctrl_c_ends_what_waits_and_what_stays() {
    let world = TestWorld::shared();
    let (user, (_listener, address)) = (world.user("interrupted"), hanging());
    let began = Instant::now();
    let line = format!("{} --timeout 30 --peer {address} {}", user.home_option(), user.aor);
    let mut waiting = Staying::start(cli::lookup::run, &line);
    std::thread::sleep(Duration::from_millis(100));
    let ran = waiting.end(Signal::Interrupt);
    assert_eq!((ran.code, ran.out.as_str()), (130, ""), "{ran:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    for (signal, code) in [(Signal::Interrupt, 130), (Signal::Terminate, 0)] {
        let mut staying = Staying::start(cli::register::run, &format!("--json --stay {} {}", user.options(), user.aor));
        assert_eq!(staying.json()["status"], "registered");
        assert_eq!(staying.end(signal).code, code);
    }
}

#[test]
fn a_registration_that_stays_is_refreshed_before_it_expires() {
    let world = TestWorld::shared();
    let user = world.user("staying");
    let line = format!("--json --stay --expires 2 {} {}", user.options(), user.aor);
    let mut staying = Staying::start(cli::register::run, &line);
    let (first, second) = (staying.json(), staying.json());
    assert!(first["sequence"].as_u64() < second["sequence"].as_u64(), "{first} {second}");
    let expired = UnixMs(first["expires_at_ms"].as_u64().unwrap());
    eventually("the first registration has expired", || UnixMs::now() > expired);
    lookup(&format!("{} {}", user.options(), user.aor)).exits(0);
    staying.end(Signal::Terminate);
    eventually("what is no longer refreshed expires", || lookup(&format!("{} {}", user.options(), user.aor)).code == 1);
}

#[test]
fn a_registration_without_a_member_becomes_one_as_long_as_it_stays() {
    let world = TestWorld::shared();
    let user = world.user("own-member");
    let line = format!("--json --stay {} {} {}", user.home_option(), world.peers(), user.aor);
    let mut staying = Staying::start(cli::register::run, &line);
    let json = staying.json();
    let peer = json["contacts"][0]["peer"].as_str().unwrap().to_owned();
    assert!(world.world.members().iter().all(|member| member.peer().to_string() != peer), "{json}");
    let found =
        lookup(&format!("--json --via walk {} {} {}", user.home_option(), world.peers(), user.aor)).exits(0).json();
    assert_eq!(found["records"][0]["contacts"][0]["peer"], peer);
    assert_eq!(staying.end(Signal::Terminate).code, 0);
}

/// A pipe whose reader has gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn results_that_nobody_reads_any_more_are_no_failure() {
    let world = TestWorld::shared();
    let user = world.user("unread");
    register(&format!("{} {} --contact sip:a@192.0.2.1", user.options(), user.aor)).exits(0);
    let commands: [(Run, String); 3] = [
        (cli::lookup::run, format!("{} {} {}", user.options(), user.aor, user.aor)),
        (cli::register::run, format!("{} --stay {}", user.options(), user.aor)),
        (
            cli::join::run,
            format!("--local --home {}/h --listen /ip4/127.0.0.1/tcp/0 testnet", user.home.folder().display()),
        ),
    ];
    for (tool, line) in commands {
        let mut err = Vec::new();
        let words = line.split_whitespace().map(Into::into).collect();
        let code = tool(words, &bare_env(), &mut Io::captured(&mut Closed, &mut err));
        assert_eq!(code, 0, "{line}: {}", String::from_utf8_lossy(&err));
    }
}

#[test]
fn many_uris_are_looked_up_over_one_connection() {
    let world = TestWorld::shared();
    let user = world.user("batch");
    register(&format!("{} {} --contact sip:a@192.0.2.1", user.options(), user.aor)).exits(0);
    let uris: Vec<String> =
        (0..200).map(|n| if n % 2 == 0 { user.aor.to_string() } else { format!("sip:no-{n}@p2psip.org") }).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io::captured(&mut out, &mut err);
    io.stdin = Box::new(io::Cursor::new(uris.join("\n")));
    let words = format!("--json {} -", user.options()).split_whitespace().map(Into::into).collect();
    assert_eq!(cli::lookup::run(words, &bare_env(), &mut io), 1);
    let lines: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["uri"].as_str().unwrap()).collect::<Vec<_>>(), uris);
    let words: Vec<&str> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert!(words.chunks(2).all(|pair| pair == ["found", "not-found"]), "{words:?}");
}

#[test]
fn a_lookup_makes_no_home_and_a_registration_needs_a_certificate_in_its_own() {
    let world = TestWorld::shared();
    let folder = folder();
    let home = folder.path().join("home");
    let descriptor = folder.path().join("descriptor.toml");
    world.world.descriptor().save(&descriptor).unwrap();
    let line = format!("--home {} --descriptor {} {}", home.display(), descriptor.display(), world.peers());
    assert_eq!(run(cli::lookup::run, &format!("{line} --short sip:p2psip.org")).exits(0).err.lines().count(), 1);
    assert!(!home.exists(), "a lookup leaves nothing behind");
    register(&format!("{line} sip:carol@p2psip.org --contact sip:a@192.0.2.1")).exits(2).says("no valid certificate");
}
