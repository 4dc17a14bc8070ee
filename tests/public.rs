//! Registration with public SIP networks (draft §4.2): a scripted registrar on real sockets, behind real proxy peers.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2psip::{
    cli::{Signal, register},
    client::Put,
    member::Proxy,
    name::PeerId,
    record::{Body, Contact},
    sip::{Message, header::Name, respond::Response, respond::respond},
};
use serde_json::Value;

use crate::{
    calls::proxy_peer,
    world::{Ran, Staying, TestWorld, User, lookup, over_socket, run},
};

/// Where the proxy peers of a test are.
struct Network {
    world: TestWorld,
    _proxies: Vec<Proxy>,
}

/// An overlay with two proxy peers that tests share.
fn network() -> &'static Network {
    static SHARED: LazyLock<Network> = LazyLock::new(|| {
        let world = TestWorld::of(10);
        let proxies = vec![proxy_peer(&world, 8), proxy_peer(&world, 9)];
        Network { world, _proxies: proxies }
    });
    &SHARED
}

/// What a registrar answers; nothing if `None`.
type Script = Box<dyn FnMut(&Message) -> Option<Response> + Send>;

/// A registrar that does as it is told.
struct Registrar {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Message>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Registrar {
    fn start(script: impl FnMut(&Message) -> Option<Response> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let answers = socket.try_clone().unwrap();
        Self::on(socket, answers, Box::new(script))
    }

    /// Hears at one socket and speaks from another one.
    fn on(socket: UdpSocket, answers: UdpSocket, mut script: Script) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (address, log) = (socket.local_addr().unwrap(), Arc::<Mutex<Vec<Message>>>::default());
        let stop = Arc::<AtomicBool>::default();
        let (heard, stopping) = (log.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut octets = [0; 4_096];
            while !stopping.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut octets) else { continue };
                let request = Message::parse(Bytes::copy_from_slice(&octets[..length])).unwrap();
                heard.lock().unwrap().push(request.clone());
                if let Some(response) = script(&request) {
                    answers.send_to(&response.finish(), from).unwrap();
                }
            }
        });
        Self { address, log, stop, thread: Some(thread) }
    }

    fn aor(&self) -> String {
        format!("sip:alice@{}", self.address)
    }

    /// What it has heard so far.
    fn heard(&self) -> Vec<Message> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// 200 with what was asked for.
fn accept(request: &Message) -> Response {
    let contact = request.header(Name::Contact).unwrap().to_vec();
    let expires = request.header(Name::Expires).unwrap().to_vec();
    let accepted = respond(request, 200, "OK", Some("r"));
    if expires == b"0" {
        accepted
    } else {
        accepted.header(Name::Contact, [&contact[..], b";expires=", &expires].concat())
    }
}

fn challenge(request: &Message, challenges: &[&str]) -> Response {
    let refusal = respond(request, 401, "Unauthorized", Some("r"));
    challenges.iter().fold(refusal, |refusal, challenge| refusal.header(Name::WwwAuthenticate, challenge))
}

/// Whether a request's credentials are alice's, by another implementation of digest.
fn is_alice(request: &Message, challenge: &str) -> bool {
    let Some((_, Ok(given))) = request.credentials().next() else { return false };
    let text = |name| given.text(name).unwrap_or_default().into_owned();
    let uri = request.request_uri().unwrap();
    let method = digest_auth::HttpMethod::from("REGISTER");
    // With a body it would choose auth-int wherever that is offered.
    let body = (text("qop") == "auth-int").then_some(b"" as &[u8]);
    let mut context = digest_auth::AuthContext::new_with_method("alice", "secret", uri, body, method);
    context.set_custom_cnonce(text("cnonce"));
    let mut challenge = digest_auth::parse(challenge).unwrap();
    let times = u32::from_str_radix(&text("nc"), 16).unwrap_or_default();
    let mut expected = String::new();
    for _ in 0..times.max(1) {
        expected = challenge.respond(&context).unwrap().response;
    }
    text("response") == expected && text("username") == "alice"
}

/// A registrar that wants alice's password.
fn guarded(challenge_with: &'static [&'static str], answered: &'static str) -> Registrar {
    Registrar::start(move |request| {
        Some(if is_alice(request, answered) { accept(request) } else { challenge(request, challenge_with) })
    })
}

const SHA256: &str =
    "Digest realm=\"example.org\", nonce=\"n1\",  qop=\"auth,auth-int\" ,algorithm=SHA-256, opaque=\"o\\\"1\"";
const MD5: &str = "Digest realm=\"example.org\", nonce=\"n1\", qop=\"auth\", algorithm=MD5";

/// A line of `p2p-register --public` for a user that goes by `password`.
fn line(user: &User, registrar: &Registrar, password: Option<&str>) -> String {
    let password = password.map(|password| {
        let path = user.home.folder().join("password");
        std::fs::write(&path, format!("{password}\n")).unwrap();
        format!("--password-file {}", path.display())
    });
    let at = format!("--auth-user alice --public {}", registrar.aor());
    format!("{} {} {at} --json {}", user.options(), user.aor, password.unwrap_or_default())
}

fn public(user: &User, registrar: &Registrar, password: Option<&str>) -> Ran {
    run(register::run, &line(user, registrar, password))
}

fn steps(outcome: &Value) -> Vec<&str> {
    outcome["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect()
}

const FOUR: [&str; 4] = ["overlay-registration", "proxy-lookup", "outbound-proxy", "register"];

#[test]
fn the_overlay_url_is_bound_through_a_proxy_peer_in_four_steps() {
    let network = network();
    let user = network.world.user("public");
    let registrar = guarded(&[MD5, SHA256], SHA256);
    let began = Instant::now();
    let outcome = public(&user, &registrar, Some("secret")).exits(0).json();
    let elapsed = began.elapsed().as_secs_f64() * 1e3;
    assert_eq!(outcome["status"], "registered");
    assert_eq!(steps(&outcome), FOUR);
    let times = outcome["steps"].as_array().unwrap().iter().map(|step| step["took_ms"].as_f64().unwrap());
    assert!(times.clone().all(|took| took > 0.0) && times.sum::<f64>() < elapsed, "{outcome:#}");
    let contact = format!("sip:{}@p2psip.org", user.aor.user());
    assert_eq!((&outcome["contact"], &outcome["bindings"][0]), (&contact.as_str().into(), &contact.as_str().into()));
    assert_eq!((&outcome["realm"], &outcome["algorithm"]), (&"example.org".into(), &"SHA-256".into()));
    assert_eq!((&outcome["challenges"], &outcome["expires_in_ms"]), (&1.into(), &3_600_000.into()));

    let heard = registrar.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    for request in &heard {
        let text = String::from_utf8(request.bytes().to_vec()).unwrap();
        assert_eq!(request.request_uri(), Some(format!("sip:{}", registrar.address).as_str()));
        assert_eq!(request.header(Name::Contact), Some(format!("<{contact}>").as_bytes()), "no gr: {text}");
        assert!(["Record-Route", "Path", "Route"].iter().all(|name| !text.contains(name)), "{text}");
        let vias = request.vias().map(|via| via.unwrap().transport.to_owned()).collect::<Vec<_>>();
        assert_eq!(vias, ["UDP", "OVERLAY"], "one proxy peer is in between: {text}");
    }
    // What the registrar wants back comes back octet by octet.
    let credentials = String::from_utf8(heard[1].header(Name::Authorization).unwrap().to_vec()).unwrap();
    assert!(credentials.contains("opaque=\"o\\\"1\""), "{credentials}");

    // In the overlay the user is where the device is; this process has left nothing behind.
    let found = lookup(&format!("{} --json {}", user.options(), user.aor)).exits(0).json();
    let contacts = found["records"][0]["contacts"].as_array().unwrap();
    assert_eq!(contacts.len(), 1, "{found:#}");
    assert_eq!(contacts[0]["peer"], network.world.world.members()[0].peer().to_string());
}

#[test]
fn all_hashes_and_both_qualities_of_protection_are_accepted() {
    let network = network();
    let user = network.world.user("hashes");
    for challenge in [
        "Digest realm=\"example.org\", nonce=\"n1\"",
        MD5,
        "Digest realm=\"example.org\", nonce=\"n2\", qop=\"auth-int\", algorithm=MD5",
        "Digest realm=\"example.org\", nonce=\"n3\", qop=\"auth\", algorithm=SHA-512-256",
        "Digest realm=\"example.org\", nonce=\"n4\", qop=\"auth-int\", algorithm=SHA-256",
    ] {
        let registrar = Registrar::start(move |request| {
            Some(if is_alice(request, challenge) { accept(request) } else { self::challenge(request, &[challenge]) })
        });
        let outcome = public(&user, &registrar, Some("secret")).exits(0).json();
        assert_eq!((&outcome["status"], registrar.heard().len()), (&"registered".into(), 2), "{challenge}");
    }
}

#[test]
fn a_password_comes_from_a_file_or_a_descriptor_and_is_asked_for_by_nobody_else() {
    let network = network();
    let user = network.world.user("password");
    let registrar = guarded(&[SHA256], SHA256);
    let none = public(&user, &registrar, None).exits(1).json();
    assert_eq!((&none["status"], &none["code"]), (&"refused".into(), &401.into()));
    assert!(none["reason"].as_str().unwrap().contains("--password-file"), "{none}");

    let file = std::fs::File::open({
        let path = user.home.folder().join("secret");
        std::fs::write(&path, "secret\n").unwrap();
        path
    });
    let file = file.unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
    let with = format!("{} --password-fd {descriptor}", line(&user, &registrar, None));
    assert_eq!(run(register::run, &with).exits(0).json()["status"], "registered");
    run(register::run, &format!("{with} --password-file x")).exits(2);
    run(register::run, &format!("{} --password-fd 999", line(&user, &registrar, None))).exits(2).says("--password-fd");
    run(register::run, &format!("{} {} --auth-user x", user.options(), user.aor)).exits(2).says("--public");
}

#[test]
fn a_wrong_password_is_tried_once_and_said() {
    let network = network();
    let user = network.world.user("wrong");
    let registrar = guarded(&[SHA256], SHA256);
    let outcome = public(&user, &registrar, Some("guess")).exits(1).json();
    assert_eq!((&outcome["status"], &outcome["code"]), (&"refused".into(), &401.into()));
    assert_eq!(outcome["reason"], "the realm 'example.org' does not accept this user and password");
    assert_eq!(registrar.heard().len(), 2);
    let text = line(&user, &registrar, Some("guess")).replace("--json", "");
    run(register::run, &text).exits(1).says(": 401 the realm 'example.org' does not accept this user and password");
}

#[test]
fn a_registrar_that_is_never_content_is_given_up() {
    let network = network();
    let user = network.world.user("never");
    for (challenge, realms) in [("Digest realm=\"a\", stale=true", "'a'"), ("Digest realm=\"REALM\"", "'realm 5'")] {
        let mut nth = 0;
        let registrar = Registrar::start(move |request| {
            nth += 1;
            let next = challenge.replace("REALM", &format!("realm {nth}"));
            Some(self::challenge(request, &[&format!("{next}, nonce=\"{nth}\", qop=\"auth\"")]))
        });
        let outcome = public(&user, &registrar, Some("secret")).exits(1).json();
        assert_eq!((registrar.heard().len(), &outcome["challenges"]), (5, &4.into()), "{outcome:#}");
        let reason = outcome["reason"].as_str().unwrap();
        assert!(reason.contains("again and again") && reason.contains(realms), "{reason}");
    }
}

#[test]
fn what_a_registrar_may_say_instead_of_yes() {
    let network = network();
    let user = network.world.user("instead");
    let say = |status: u16, headers: &'static [(Name<'static>, &'static str)], code: u8| {
        let registrar = Registrar::start(move |request| {
            let response = respond(request, status, "", Some("r"));
            Some(headers.iter().fold(response, |response, (name, value)| response.header(*name, value)))
        });
        let outcome = public(&user, &registrar, None).exits(code).json();
        assert_eq!(steps(&outcome), FOUR, "{outcome:#}");
        outcome
    };
    let refused = say(403, &[], 1);
    assert_eq!((&refused["status"], &refused["code"]), (&"refused".into(), &403.into()));
    assert_eq!(refused["reason"], "Forbidden");
    // It says yes, and means somebody else.
    for contact in ["<sip:alice@192.0.2.1>", "<sip:alice@p2psip.org>;expires=0"] {
        let headers: &[_] = if contact.contains("192") {
            &[(Name::Contact, "<sip:alice@192.0.2.1>;expires=60")]
        } else {
            &[(Name::Contact, "<sip:alice@p2psip.org>;expires=0")]
        };
        let refused = say(200, headers, 1);
        assert!(refused["reason"].as_str().unwrap().contains("has not bound sip:instead"), "{refused:#}");
    }
    let busy = say(500, &[], 3);
    assert_eq!((&busy["status"], &busy["code"]), (&"unreachable".into(), &500.into()));
    let nowhere = say(302, &[], 1);
    assert!(nowhere["reason"].as_str().unwrap().contains("302 does not say where to"), "{nowhere:#}");
}

#[test]
fn a_registrar_may_shorten_raise_redirect_and_answer_from_elsewhere() {
    let network = network();
    let user = network.world.user("may");
    let registrar = Registrar::start(|request| {
        let contact = [request.header(Name::Contact).unwrap(), b";expires=60"].concat();
        Some(respond(request, 200, "OK", Some("r")).header(Name::Contact, contact))
    });
    let outcome = public(&user, &registrar, None).exits(0).json();
    assert_eq!((&outcome["expires_in_ms"], &outcome["shortened"]), (&60_000.into(), &true.into()));
    let text = line(&user, &registrar, None).replace("--json", "");
    run(register::run, &text).exits(0).says("less time than was asked for");

    let registrar = Registrar::start(|request| {
        let brief = request.expires().unwrap() == Some(3600);
        let refusal = || respond(request, 423, "", Some("r")).header(Name::MinExpires, "7200");
        Some(if brief { refusal() } else { accept(request) })
    });
    let outcome = public(&user, &registrar, None).exits(0).json();
    assert_eq!((&outcome["expires_in_ms"], registrar.heard().len()), (&7_200_000.into(), 2));

    let there = Registrar::start(|request| Some(accept(request)));
    let target = format!("<sip:{}>", there.address);
    let here =
        Registrar::start(move |request| Some(respond(request, 302, "Moved", Some("r")).header(Name::Contact, &target)));
    let outcome = public(&user, &here, None).exits(0).json();
    assert_eq!(outcome["redirected_to"], format!("sip:{}", there.address));
    assert_eq!(there.heard()[0].to().unwrap().uri.as_str(), here.aor());
    let round = Arc::new(Mutex::new(String::new()));
    let own = round.clone();
    let ring = Registrar::start(move |request| {
        Some(respond(request, 302, "Moved", Some("r")).header(Name::Contact, own.lock().unwrap().as_str()))
    });
    *round.lock().unwrap() = format!("<sip:{}>", ring.address);
    let outcome = public(&user, &ring, None).exits(1).json();
    assert_eq!((ring.heard().len(), &outcome["status"]), (4, &"refused".into()), "{outcome:#}");

    let (heard, spoken) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let elsewhere = Registrar::on(heard, spoken, Box::new(|request| Some(accept(request))));
    assert_eq!(public(&user, &elsewhere, None).exits(0).json()["status"], "registered");
}

#[test]
fn a_registrar_that_is_down_is_exit_3() {
    let network = network();
    let user = network.world.user("down");
    let mute = Registrar::start(|_| None);
    let began = Instant::now();
    let outcome = run(register::run, &format!("{} --timeout 1", line(&user, &mute, None))).exits(3).json();
    assert_eq!((&outcome["status"], &outcome["code"]), (&"unreachable".into(), &Value::Null));
    assert_eq!(outcome["reason"], "no answer from the registrar within 1 s");
    assert!(began.elapsed() < Duration::from_secs(8));
    assert!(!mute.heard().is_empty());

    // A port that nobody has: over TCP that is known at once.
    let port = crate::world::free_port();
    let at = format!("--public sip:alice@127.0.0.1:{port};transport=tcp --json");
    let outcome = run(register::run, &format!("{} {} {at}", user.options(), user.aor)).exits(3).json();
    assert_eq!(outcome["status"], "unreachable", "{outcome:#}");
    assert!(outcome["code"].as_u64() >= Some(500), "{outcome:#}");
}

#[test]
fn what_cannot_be_bound_is_said_before_anybody_is_asked() {
    let own = "--overlay p2psip.org --home /nonexistent sip:alice@p2psip.org";
    let usage = |public: &str, what: &str| {
        run(register::run, &format!("{own} --public {public}")).exits(2).says(what);
    };
    usage("sip:alice@p2psip.org", "is the overlay itself");
    usage("sip:alice@P2PSIP.ORG;transport=tcp", "is the overlay itself");
    usage("sip:example.org", "it has no user part");
    usage("sip:alice@example.org?Subject=x", "a password or headers");
    usage("sip:alice:pw@example.org", "a password or headers");
    usage("tel:+123", "its scheme is not sip: or sips:");
}

#[test]
fn without_proxy_peers_nobody_outside_is_reached() {
    let world = TestWorld::shared();
    let user = world.user("lonely");
    let registrar = Registrar::start(|request| Some(accept(request)));
    let outcome = public(&user, &registrar, None).exits(3).json();
    assert_eq!((&outcome["status"], steps(&outcome)), (&"unreachable".into(), FOUR[..2].to_vec()), "{outcome:#}");
    assert!(outcome["reason"].as_str().unwrap().contains("proxy peer"), "{outcome:#}");
    assert!(registrar.heard().is_empty());
    // In the overlay the user is registered all the same.
    lookup(&format!("{} {}", user.options(), user.aor)).exits(0);
}

#[test]
fn a_binding_is_refreshed_and_kept_while_another_device_needs_it() {
    let network = network();
    let desk = network.world.user("devices");
    let mobile = network.world.device("devices-mobile", &desk.aor);
    let registrar = Registrar::start(|request| {
        let contact = [request.header(Name::Contact).unwrap(), b";expires=2"].concat();
        let accepted = respond(request, 200, "OK", Some("r"));
        let removed = request.expires().unwrap() == Some(0);
        Some(if removed { accepted } else { accepted.header(Name::Contact, contact) })
    });
    let mut staying = Staying::start(register::run, &format!("{} --stay", line(&desk, &registrar, None)));
    assert_eq!(steps(&staying.json()), FOUR);
    let refreshed = staying.json();
    assert_eq!((&refreshed["status"], steps(&refreshed)), (&"registered".into(), vec!["register"]), "{refreshed:#}");
    // Meanwhile calls find the device first, and this process last.
    let found = lookup(&format!("{} --json {}", desk.options(), desk.aor)).exits(0).json();
    let contacts = found["records"][0]["contacts"].as_array().unwrap().clone();
    assert_eq!((contacts.len(), &contacts[0]["q"], &contacts[1]["q"]), (2, &1.0.into(), &0.0.into()), "{contacts:?}");
    staying.end(Signal::Terminate).exits(0);
    let found = lookup(&format!("{} --json {}", desk.options(), desk.aor)).exits(0).json();
    assert_eq!(found["records"][0]["contacts"].as_array().unwrap().len(), 1);

    run(register::run, &format!("{} --contact sip:alice@192.0.2.9 {}", mobile.options(), mobile.aor)).exits(0);
    let heard = registrar.heard().len();
    let kept = run(register::run, &format!("{} --remove", line(&desk, &registrar, None))).exits(0).json();
    assert_eq!((&kept["status"], &kept["other_devices"]), (&"kept".into(), &1.into()));
    assert_eq!((steps(&kept), registrar.heard().len()), (vec!["overlay-removal"], heard), "nobody outside is asked");
    let removed = run(register::run, &format!("{} --remove", line(&mobile, &registrar, None))).exits(0).json();
    assert_eq!(removed["status"], "removed", "{removed:#}");
    assert_eq!(steps(&removed), [&FOUR[..], &["overlay-removal"]].concat());
    assert_eq!(registrar.heard().last().unwrap().expires().unwrap(), Some(0));
    lookup(&format!("{} {}", desk.options(), desk.aor)).exits(1);
}

#[test]
fn what_the_device_had_registered_stays_registered() {
    let network = network();
    let user = network.world.user("phone");
    // As a process that was killed has left it.
    let guest = Contact::Overlay { peer: PeerId::from_public_key([9; 32]), addresses: Vec::new(), q: 0 };
    let mut payload = user.payload();
    payload.body =
        Body::User { contacts: vec![Contact::Sip { uri: "sip:phone@192.0.2.9".to_owned(), q: 1000 }, guest] };
    let put = Put { envelope: user.seal(&payload).into(), timeout_ms: 5_000 };
    assert!(!network.world.run(over_socket(&user.socket, &put)).unwrap().stored.is_empty());
    let registrar = Registrar::start(|request| Some(accept(request)));
    public(&user, &registrar, None).exits(0);
    let found = lookup(&format!("{} --json {}", user.options(), user.aor)).exits(0).json();
    let contacts = found["records"][0]["contacts"].as_array().unwrap().clone();
    assert_eq!((contacts.len(), &contacts[0]["uri"]), (1, &"sip:phone@192.0.2.9".into()), "{contacts:?}");
}

/// The port from which a proxy peer sends.
fn proxy_of(request: &Message) -> u16 {
    request.top_via().unwrap().port.unwrap()
}

#[test]
fn a_proxy_peer_that_dies_between_challenge_and_answer_costs_a_moment() {
    let world = TestWorld::of(10);
    let mut proxies = vec![proxy_peer(&world, 8), proxy_peer(&world, 9)];
    let user = world.user("between");
    let (dying, deaths) = mpsc::channel();
    let mut first = None;
    let registrar = Registrar::start(move |request| {
        let through = proxy_of(request);
        let first = *first.get_or_insert(through);
        match request.cseq().unwrap().number {
            1 => Some(challenge(request, &[SHA256])),
            // It never answers through the one that had the challenge.
            _ if through == first => {
                dying.send(through).unwrap();
                None
            }
            _ => Some(if is_alice(request, SHA256) { accept(request) } else { challenge(request, &[SHA256]) }),
        }
    });
    let began = Instant::now();
    let mut staying =
        Staying::start(register::run, &format!("{} --timeout 10", line(&user, &registrar, Some("secret"))));
    let dead = deaths.recv_timeout(Duration::from_secs(10)).unwrap();
    proxies.retain(|proxy| proxy.listening()[0].1.port() != dead);
    assert_eq!(proxies.len(), 1);
    let outcome: Value = staying.json();
    assert_eq!(outcome["status"], "registered", "{outcome:#}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    staying.wait().exits(0);
    assert_ne!(proxy_of(registrar.heard().last().unwrap()), dead);
}

#[test]
fn another_proxy_peer_takes_over_when_the_one_that_carried_the_register_dies() {
    let world = TestWorld::of(10);
    let mut proxies = vec![proxy_peer(&world, 8), proxy_peer(&world, 9)];
    let user = world.user("over");
    let registrar = Registrar::start(|request| Some(accept(request)));
    let mut staying = Staying::start(register::run, &format!("{} --stay", line(&user, &registrar, None)));
    let bound = staying.json();
    let through = proxy_of(registrar.heard().last().unwrap());
    proxies.retain(|proxy| proxy.listening()[0].1.port() != through);
    let again = staying.json();
    assert_eq!(again["status"], "registered", "{again:#}");
    assert_ne!(again["proxy"], bound["proxy"]);
    assert_ne!(proxy_of(registrar.heard().last().unwrap()), through);
    proxies.clear();
    let lost = staying.json();
    assert_eq!(lost["status"], "unreachable", "{lost:#}");
    assert!(lost["again_in_ms"].as_u64() > Some(0), "{lost:#}");
    staying.end(Signal::Interrupt).exits(130);
}
