//! A conventional SIP domain: proxy, registrar and location service on real sockets, UDP and TCP.
//!
//! The proxy is the same core that proxy peers have, with the domain's name in place of the overlay identifier.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    LabError,
    registrar::{Account, Registrar},
};
use crate::{
    dns::{Naptr, RrSet, Srv, locate::Locator},
    identity::SecretKey,
    member::proxy::servers,
    name::{Aor, OverlayId},
    ops::answer::free_port,
    proxy::{
        engine::{Config, Engine, Located, Output, Question, What},
        fork::{Patience, Place, Target},
        route::Realm,
        throttle::Rate,
    },
    sip::{
        tap::Tap,
        transaction::{self, Token},
        transport::{self, Bound, Event, Protocol, TransportError, Transports},
    },
};

/// How often a port is sought.
pub(super) const TRIES: usize = 5;
/// Answers of the DNS that wait for the engine.
const ANSWERS: usize = 64;

/// A running domain. Dropping it ends it.
pub(super) struct Domain {
    name: OverlayId,
    address: SocketAddr,
    registrar: Arc<Mutex<Registrar>>,
    task: JoinHandle<()>,
}

impl Domain {
    /// Begins to serve.
    pub(super) fn start(name: &str, accounts: &[Account], locator: Locator, tap: Tap) -> Result<Self, LabError> {
        let name = OverlayId::parse(name)?;
        let (address, bound) = bind(&tap)?;
        let unread = |why| TransportError::Listen { protocol: Protocol::Udp, address, why: Arc::new(why) };
        bound.transports.serve_udp(&bound.udp).map_err(unread)?;
        let now = Instant::now();
        let engine = Engine::of_domain(
            Config {
                realm: Realm { overlay: name.clone(), own: vec![(Protocol::Udp, address), (Protocol::Tcp, address)] },
                // It has no streams of the overlay: nobody will ever see this.
                peer: SecretKey::generate()?.peer_id(),
                transactions: transaction::Config::default(),
                patience: Patience::default(),
                rate: Rate::default(),
            },
            now,
        );
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|why| LabError::Random { why: why.to_string() })?;
        let registrar = Arc::new(Mutex::new(Registrar::new(name.as_str(), accounts, key, now)));
        let Bound { transports, events, .. } = bound;
        let server =
            Server { engine, transports, registrar: registrar.clone(), locator, tap, answers: mpsc::channel(ANSWERS) };
        Ok(Self { name, address, registrar, task: tokio::spawn(server.run(events)) })
    }

    /// Its name.
    pub(super) const fn name(&self) -> &OverlayId {
        &self.name
    }

    /// Where it serves UDP and TCP.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a user of it is.
    pub(super) fn contacts(&self, user: &str) -> Vec<String> {
        let contacts = lock(&self.registrar).contacts(user, Instant::now()).unwrap_or_default();
        contacts.into_iter().map(|(_, contact)| contact).collect()
    }

    /// What the DNS says of it (RFC 3263 §4): UDP, else TCP.
    pub(super) fn records(&self) -> Vec<(String, RrSet)> {
        let host = format!("sip.{}", self.name);
        let mut records = Vec::new();
        let mut rules = Vec::new();
        for (order, services, labels) in [(10, "SIP+D2U", "_sip._udp"), (20, "SIP+D2T", "_sip._tcp")] {
            let owner = format!("{labels}.{}", self.name);
            let server = Srv { priority: 10, weight: 50, port: self.address.port(), target: host.clone() };
            records.push((owner.clone(), RrSet::Srv(vec![server])));
            rules.push(Naptr {
                order,
                preference: 50,
                flags: "s".to_owned(),
                services: services.to_owned(),
                regexp: String::new(),
                replacement: owner,
            });
        }
        records.push((self.name.to_string(), RrSet::Naptr(rules)));
        records.push((host, RrSet::A(vec![Ipv4Addr::LOCALHOST])));
        records
    }
}

/// UDP and TCP at a port that is free for both. Somebody may be faster.
fn bind(tap: &Tap) -> Result<(SocketAddr, Bound), TransportError> {
    let loopback = Ipv4Addr::LOCALHOST.into();
    let mut left = TRIES;
    loop {
        left -= 1;
        let address = SocketAddr::new(loopback, free_port(loopback));
        let bound = Transports::bind(transport::Config {
            listen: vec![(Protocol::Udp, address), (Protocol::Tcp, address)],
            tap: Some(tap.clone()),
            ..transport::Config::default()
        });
        match bound {
            Err(TransportError::Listen { .. }) if left > 0 => {}
            bound => return bound.map(|bound| (address, bound)),
        }
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

/// What the DNS has said.
type Answer = (Question, Located);

/// The task that owns the proxy core.
struct Server {
    engine: Engine,
    transports: Transports,
    registrar: Arc<Mutex<Registrar>>,
    locator: Locator,
    tap: Tap,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
}

impl Server {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        loop {
            let due = self.engine.poll_timeout();
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Message { message, source }) => self.engine.receive(message, source, Instant::now()),
                    Some(Event::Failed { token, .. }) => {
                        self.engine.transport_failed(Token::of_number(token), Instant::now());
                    }
                    Some(Event::Undelivered(undelivered)) => self.engine.undelivered(&undelivered, Instant::now()),
                    Some(Event::Closed { .. }) => {}
                    None => return,
                },
                Some((question, located)) = self.answers.1.recv() => {
                    self.engine.located(question, located, Instant::now());
                }
                () = timer => self.engine.handle_timeout(Instant::now()),
            }
            self.perform();
        }
    }

    /// Does everything that the core wants done.
    fn perform(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            let now = Instant::now();
            match output {
                Output::Send { to, bytes, token } => {
                    if self.transports.send(&to, bytes, token.number()).is_err() {
                        self.engine.transport_failed(token, now);
                    }
                }
                Output::Register { server, message } => {
                    let random = getrandom::u64().unwrap_or_default();
                    let response = lock(&self.registrar).register(&message, random, now);
                    self.engine.respond(server, response, now);
                }
                Output::Locate { question, what: What::User { aor, .. } } => {
                    let located = self.user(&aor, now);
                    self.engine.located(question, located, now);
                }
                Output::Locate { question, what: What::Uri { uri, secure } } => self.find(question, uri, secure),
                Output::Learned { hop, health } => servers::learn(&self.locator, &hop, health),
                // No adapter has its phones here.
                Output::Publish { .. } => {}
                Output::Locate { question, what: What::Proxy } => {
                    let located = Located::Nowhere { status: 500, reason: "Server Internal Error" };
                    self.engine.located(question, located, now);
                }
                // No gatekeeper has a reason to probe here.
                Output::Probed(_) => {}
                // Nobody is a member here.
                Output::Identify { question, .. } => self.engine.identified(question, &[], now),
            }
        }
    }

    fn user(&self, aor: &Aor, now: Instant) -> Located {
        let contacts = match lock(&self.registrar).contacts(aor.user(), now) {
            None => return Located::Nowhere { status: 404, reason: "Not Found" },
            Some(contacts) if contacts.is_empty() => {
                return Located::Nowhere { status: 480, reason: "Temporarily Unavailable" };
            }
            Some(contacts) => contacts,
        };
        let groups = contacts.chunk_by(|(one, _), (other, _)| one == other);
        let target = |(_, uri): &(u16, String)| {
            let uri: Arc<str> = uri.as_str().into();
            Target { uri: Some(uri.clone()), place: Place::Uri(uri) }
        };
        Located::Groups(groups.map(|group| group.iter().map(target).collect()).collect())
    }

    fn find(&self, question: Question, uri: Arc<str>, secure: bool) {
        let (locator, tap, answers) = (self.locator.clone(), self.tap.clone(), self.answers.0.clone());
        tokio::spawn(async move {
            let located = servers::locate(&locator, &uri, secure, Some(&tap)).await;
            // The domain has ended meanwhile, if nobody takes it.
            let _ = answers.send((question, located)).await;
        });
    }
}

/// A lock. The registrar changes a user's bindings in one step.
fn lock(registrar: &Mutex<Registrar>) -> MutexGuard<'_, Registrar> {
    registrar.lock().unwrap_or_else(PoisonError::into_inner)
}
