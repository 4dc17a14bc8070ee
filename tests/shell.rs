//! `p2p-shell` among real members: each command, scripts, and what ends them.

use std::{io::Cursor, time::Duration};

use p2psip::{
    cli::{self, Env, Io, Signal, Signals},
    dns::{
        Resolver,
        locate::{Locator, Options},
    },
    member::{Proxy, ProxyConfig},
    name::ResourceName,
};

use crate::world::{Ran, Staying, TestWorld, User, bare_env, eventually, lookup, register};

/// Runs the shell with words that may contain spaces, and a script on standard input.
fn shell_in(env: &Env, words: &[&str], script: &str) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io::captured(&mut out, &mut err);
    io.stdin = Box::new(Cursor::new(script.to_owned()));
    let code = cli::shell::run(words.iter().map(Into::into).collect(), env, &mut io);
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn shell(words: &[&str], script: &str) -> Ran {
    shell_in(&bare_env(), words, script)
}

/// Runs one command as a user.
fn command(user: &User, command: &str) -> Ran {
    let options = user.options();
    let mut words = options.split_whitespace().collect::<Vec<_>>();
    words.extend(["-c", command]);
    shell(&words, "")
}

#[track_caller]
fn prints(ran: Ran, words: &[&str]) {
    for word in words {
        assert!(ran.out.contains(word), "'{word}' is not in {ran:#?}");
    }
    assert_eq!(ran.code, 0, "{ran:#?}");
}

#[test]
fn each_command_shows_what_it_is_for() {
    let world = TestWorld::shared();
    let alice = world.user("shell");
    let (aor, member) = (alice.aor.to_string(), &world.world.members()[0]);
    let status = member.status();
    prints(command(&alice, "status"), &["overlay", "p2psip.org", "enrolled", "knows", "holds", "running for"]);
    prints(command(&alice, "peers"), &["PEER", "BITS IN COMMON", "12D3KooW", "/ip4/127.0.0.1/"]);
    prints(command(&alice, "table"), &["BITS IN COMMON", "PEERS", "█"]);
    prints(command(&alice, &format!("register {aor}")), &["registered", &aor, "stored"]);
    prints(command(&alice, &format!("lookup {aor}")), &["INSTANCE", "peer 12D3KooW"]);
    prints(command(&alice, &format!("trace {aor}")), &["PATH", "HOP", "└─ 12D3KooW", "INSTANCE"]);
    let stored = command(&alice, &format!("store {aor} sip:desk@192.0.2.7 sip:mobile@192.0.2.8"));
    prints(stored, &["sip:desk@192.0.2.7", "STORER", "ANSWER", "stored", "KEEPS IT ALIVE", "yes"]);
    prints(command(&alice, &format!("lookup {aor}")), &["sip:mobile@192.0.2.8"]);
    prints(command(&alice, "records"), &["BELIEVED FOR", "certificate "]);
    prints(command(&alice, "services"), &["sip:p2psip.org", "turn:p2psip.org", "SERVING"]);
    let other = &world.world.members()[5];
    prints(command(&alice, &format!("ping {}", other.full_addresses()[0])), &["connected in", "round trip"]);
    prints(command(&alice, &format!("ping {}", status.peer)), &["round trip", &status.peer.to_string()]);
    prints(command(&alice, &format!("time lookup {aor}")), &["INSTANCE", " ms"]);
    prints(command(&alice, &format!("remove {aor}")), &["removed", &aor]);
    command(&alice, &format!("lookup {aor}")).exits(1).says("not found");
    prints(command(&alice, "help"), &["status", "lookup URI…", "quit"]);
    prints(command(&alice, "help ping"), &["Usage: ping", "PEER"]);
    prints(command(&alice, "quit"), &[]);
}

#[test]
fn a_mistake_or_nobody_to_ask_has_the_exit_code_of_any_tool() {
    let world = TestWorld::shared();
    let user = world.user("shell-mistake");
    command(&user, "statsu").exits(2).says("did you mean status?");
    command(&user, "lookup alice").exits(2).says("names nothing in an overlay");
    command(&user, "register sip:mallory@p2psip.org").exits(2).says("no valid certificate");
    command(&user, "register").exits(2).says("no user");
    command(&user, "trace alice").exits(2).says("names nothing in an overlay");
    command(&user, "trace sip:nobody-here@p2psip.org").exits(1).says("not found");
    command(&user, &format!("store {}", user.aor)).exits(2).says("see help store");
    command(&user, &format!("store {} alice@home", user.aor)).exits(2).says("'alice@home'");
    command(&user, "store sip:mallory@p2psip.org sip:m@192.0.2.1").exits(2).says("no valid certificate");
    command(&user, "join not_a_name").exits(2).says("OVERLAY");
    command(&user, "ping nobody").exits(2).says("is not a peer's address");
    let nobody = "ping 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    command(&user, nobody).exits(1).says("nobody knows where");
    command(&user, "attach /nonexistent/member.sock").exits(3).says("no member listens at");
    let home = format!("{}", user.home.folder().display());
    shell(&["--home", &home, "-c", "status"], "").exits(3).says("start one with p2p-join");
}

#[test]
fn a_script_ends_at_the_first_failure_unless_it_is_to_go_on() {
    let world = TestWorld::shared();
    let user = world.user("shell-script");
    let options = user.options();
    let options = options.split_whitespace().collect::<Vec<_>>();
    let script = "# look\n\nstatus # how it is\nlookup sip:nobody-here@p2psip.org\npeers\nstatsu\nquit\ntable\n";
    let ran = shell(&options, script).exits(1).says("not found");
    assert!(ran.out.contains("running for") && !ran.out.contains("PEER "), "{ran:#?}");
    let ran = shell(&[&options[..], &["--keep-going"]].concat(), script).exits(2).says("did you mean status?");
    assert!(ran.out.contains("PEER ") && !ran.out.contains('█'), "it goes on, and quit ends it: {ran:#?}");
    let ran = shell(&[&options[..], &["-c", "help", "-c", "statsu", "-c", "table"]].concat(), "status").exits(2);
    assert!(!ran.out.contains('█') && !ran.out.contains("running for"), "{ran:#?}");
    shell(&options, &"x".repeat(5_000)).exits(2).says("a line longer than");
}

#[test]
fn every_result_is_an_object_with_a_status() {
    let world = TestWorld::shared();
    let user = world.user("shell-json");
    let options = user.options();
    let mut words = options.split_whitespace().collect::<Vec<_>>();
    words.extend(["--json", "--keep-going"]);
    let script = format!("status\npeers\ntable\nrecords\nservices\ntime lookup {}\nattach /nonexistent/x\n", user.aor);
    let ran = shell(&words, &script).exits(3);
    let values = ran.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let words = values.map(|value| value["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let expected = ["member", "peers", "table", "records", "found", "not-found", "timed", "nobody-to-ask"];
    assert_eq!((words, ran.err.as_str()), (expected.map(str::to_owned).to_vec(), ""));
}

#[test]
fn without_a_member_on_this_machine_it_looks_up_through_others() {
    let world = TestWorld::shared();
    let user = world.user("shell-remote");
    let home = user.home.folder().display().to_string();
    let peers = world.peers();
    let mut words = peers.split_whitespace().collect::<Vec<_>>();
    words.extend(["--home", &home, "--overlay", "p2psip.org"]);
    let script = "services\nlookup sip:p2psip.org turn:p2psip.org\n";
    prints(shell(&words, script), &["sip:p2psip.org", "turn:p2psip.org", "SERVING"]);
}

#[test]
fn it_goes_on_with_another_member_when_told_to() {
    let world = TestWorld::shared();
    let user = world.user("shell-attach");
    let sockets = world.world.users().iter().map(|user| user.socket.display().to_string()).collect::<Vec<_>>();
    let home = user.home.folder().display().to_string();
    let script = format!("attach \"{}\"\nattach '{}'\nstatus\n", sockets[0], sockets[1]);
    let ran = shell(&["--home", &home, "--short"], &script).exits(0);
    let peers = ran.out.lines().collect::<Vec<_>>();
    assert!(peers.len() == 3 && peers[0] != peers[1] && peers[1] == peers[2], "{ran:#?}");
}

#[test]
fn events_are_followed_until_ctrl_c_and_records_seen_where_they_are_stored() {
    let world = TestWorld::shared();
    let user = world.user("shell-events");
    let mut following = Staying::start(cli::shell::run, &format!("{} --json -c events", user.options()));
    // Few names come to lie at the member that is followed, and other tests store there as well.
    let stored = (0..100).find_map(|_| {
        let other = world.user("shell-stored");
        command(&other, &format!("register {}", other.aor)).exits(0);
        let event = serde_json::from_str::<serde_json::Value>(&following.line_within(Duration::from_millis(100))?);
        event.ok().filter(|event| event["status"] == "event" && event["event"] == "stored")
    });
    let name = stored.unwrap()["name"].as_str().unwrap().to_owned();
    prints(command(&user, "records"), &["NAME", "EXPIRES IN", &name, "record"]);
    let ran = following.end(Signal::Interrupt);
    assert_eq!(ran.code, 130, "{ran:#?}");
}

#[test]
fn ctrl_c_ends_the_command_and_not_the_shell() {
    let world = TestWorld::shared();
    let user = world.user("shell-interrupt");
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let options = user.options();
    let mut words = options.split_whitespace().map(Into::into).collect::<Vec<_>>();
    words.extend(["--keep-going", "-c", "events", "-c", "table"].map(Into::into));
    let interrupting = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        sender.send(Signal::Interrupt).unwrap();
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io::captured(&mut out, &mut err);
    io.signals = Signals::Channel(receiver);
    let code = cli::shell::run(words, &bare_env(), &mut io);
    interrupting.join().unwrap();
    let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
    assert_eq!(code, 130, "{err}");
    assert!(out.contains('█') && err.contains("interrupted"), "the next command runs: {out} {err}");
}

/// A user on another machine: with a home, and without a member.
fn elsewhere(world: &TestWorld, stem: &str) -> (User, Vec<String>) {
    let mut user = world.user(stem);
    user.socket = user.home.socket_path();
    let config = user.home.folder().join("shell.toml");
    std::fs::write(&config, "listen = [\"/ip4/127.0.0.1/tcp/0\"]\n").unwrap();
    let options = format!("--home {} --config {} {}", user.home.folder().display(), config.display(), world.peers());
    (user, options.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn a_shell_of_an_overlay_is_a_member_until_it_ends() {
    let world = TestWorld::of(8);
    let (user, options) = elsewhere(&world, "shell-member");
    let line = format!("--json {} p2psip.org -c status -c events", options.join(" "));
    let mut shell = Staying::start(cli::shell::run, &line);
    let status = shell.json();
    assert_eq!((&status["status"], &status["overlay"]), (&"member".into(), &"p2psip.org".into()), "{status}");
    assert_eq!(status["socket"], user.socket.display().to_string());
    assert!(status["peers"].as_u64().unwrap() >= 5, "{status}");
    // Any tool goes through it, and others know it.
    let registered = register(&format!("--json {} {}", user.aor, user.options())).exits(0).json();
    assert_eq!(registered["via"], "socket", "{registered}");
    let found = lookup(&format!("--json --via walk {} {} {}", world.peers(), user.home_option(), user.aor)).exits(0);
    assert_eq!(found.json()["records"][0]["contacts"][0]["peer"], status["peer"]);
    // There is only one member to a home.
    let another = shell_in(&bare_env(), &words_of(&options, &["-c", "join"]), "").exits(5);
    assert!(another.err.contains("p2p-shell: "), "{another:?}");
    let ran = shell.end(Signal::Interrupt);
    assert_eq!(ran.code, 130, "{ran:#?}");
    command(&user, "status").exits(3).says("no member listens at");
    assert!(!user.socket.exists(), "it has left in good order");
}

fn words_of<'a>(options: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    options.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn join_makes_the_shell_a_member_once() {
    let world = TestWorld::of(8);
    let (user, options) = elsewhere(&world, "shell-join");
    let script = "join p2psip.org\nstatus\npeers\nrecords\n";
    let ran = shell(&words_of(&options, &[]), script).exits(0);
    for words in ["joined", "met", "running for", "BITS IN COMMON"] {
        assert!(ran.out.contains(words), "'{words}' is not in {ran:#?}");
    }
    let twice = shell(&words_of(&options, &["--keep-going"]), "join\njoin\nstatus\n").exits(2);
    assert!(twice.err.contains("is a member already") && twice.out.contains("running for"), "{twice:#?}");
    let json = shell(&words_of(&options, &["--json", "-c", "join p2psip.org"]), "").exits(0).json();
    assert_eq!((&json["status"], &json["overlay"]), (&"joined".into(), &"p2psip.org".into()), "{json}");
    assert!(!user.socket.exists(), "each of them has left");

    // Nobody to join ends a script, and commands that follow are done if they are to be.
    let nobody = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let home = user.home.folder().display().to_string();
    let alone = ["--home", &home, "--peer", nobody, "--timeout", "1", "p2psip.org"];
    let ran = shell(&[&alone[..], &["-c", "help"]].concat(), "").exits(3);
    assert_eq!(ran.out, "", "{ran:#?}");
    let ran = shell(&[&alone[..], &["--keep-going", "-c", "help"]].concat(), "").exits(3);
    assert!(ran.out.contains("join [OVERLAY]"), "{ran:#?}");
}

#[test]
fn ctrl_c_gives_up_joining() {
    let world = TestWorld::shared();
    let (_, options) = elsewhere(world, "shell-giving-up");
    let (_listener, silent) = crate::world::hanging();
    let home = options[1].clone();
    let line = format!("--home {home} --peer {silent} --timeout 60 -c join");
    let mut shell = Staying::start(cli::shell::run, &line);
    std::thread::sleep(Duration::from_millis(500));
    let began = std::time::Instant::now();
    assert_eq!(shell.end(Signal::Interrupt).code, 130);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn the_status_of_a_proxy_peer_tells_of_that_role() {
    let world = TestWorld::of(8);
    let alice = world.user("shell-proxy");
    let member = &world.world.members()[0];
    assert!(!command(&alice, "status").out.contains("proxy peer"));
    let resolver = Resolver::new(&[world.world.dns()]).unwrap();
    let mut config = ProxyConfig::new(([127, 0, 0, 1], 0).into(), Locator::new(resolver, Options::default()));
    config.certificate = world.world.enrol(member.key(), &[ResourceName::parse("sip:p2psip.org").unwrap()]).unwrap();
    let proxy = world.run(Proxy::start(member, config)).unwrap();
    let udp = format!("udp {}", proxy.listening()[0].1);
    prints(command(&alice, "status"), &["proxy peer", &udp, "passed on", "0 transactions open"]);
    let mut words = alice.options();
    words.push_str("--json -c status");
    let json = shell(&words.split_whitespace().collect::<Vec<_>>(), "").exits(0).json();
    assert_eq!((&json["proxy"]["endpoints"][0], &json["proxy"]["unlisted"]), (&udp.into(), &false.into()), "{json}");
    world.run(proxy.stop());
    eventually("its threads have ended too", || !command(&alice, "status").out.contains("proxy peer"));
}
