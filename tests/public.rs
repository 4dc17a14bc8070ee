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
    member::Proxy,
    sip::{Message, header::Name, respond::Response, respond::respond},
};
use serde_json::Value;

use crate::{
    calls::proxy_peer,
    world::{Ran, Staying, TestWorld, User, eventually, lookup, run},
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
    let mut context = digest_auth::AuthContext::new_with_method("alice", "secret", uri, Some(b"" as &[u8]), method);
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
