//! Proxy peers enter the DNS by themselves, and leave it when they die (R3, R8, R10, R11, R30): a lab's world with its
//! name server, real sockets, and servers that would like to be mistaken for proxy peers. What takes a real name server
//! and a real Kamailio is in `tests/interop/dns-gatekeeper.sh`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use p2psip::{
    cli,
    client::PeerInfo,
    client::gatekeeper::{
        Decisions, DecisionsReply, DenialCode, Denied, Enter, EnterReply, GateVerdict, Leave, LeaveReply, Nonce, Prove,
        ProveReply, PublicationState, PublicationStatus, RequestId, statement,
    },
    dns::{
        Resolver, TsigKey,
        locate::{Locator, Options},
        publish::{Host, Publisher, SipEndpoint, Transport, ZoneAt, host_of},
    },
    gatekeeper::Config,
    lab::LabOptions,
    member::{Gatekeeper, GatekeeperConfig, Member, Proxy, ProxyConfig, ProxyError, ProxyTls, Publish, PublishBy},
    name::{PeerId, ResourceName, Service, ServiceUri},
    sip::{
        Message,
        header::Name,
        respond,
        transport::{Event, Protocol, Transports, response_target},
    },
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_bytes::ByteBuf;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::world::{PATIENCE, TestWorld, eventually, folder, free_port, join, over_socket, run};

/// The user whose member is the gatekeeper, and has a socket.
const GATEKEEPER: usize = 0;
/// Members that are neither users' nor offer anything else.
const FREE: usize = 7;

/// A world with room for so many proxy peers.
fn world(free: usize) -> TestWorld {
    TestWorld::start(LabOptions::new(FREE + free).unwrap())
}

/// The name server: the world's own, or a real one that `tests/interop/dns-gatekeeper.sh` has started.
fn dns(world: &TestWorld) -> SocketAddr {
    std::env::var("P2PSIP_TEST_DNS").map_or_else(|_| world.world.dns(), |at| at.parse().unwrap())
}

/// Whether no other test's gatekeeper is at the same zone.
fn has_own_zone() -> bool {
    std::env::var_os("P2PSIP_TEST_DNS").is_none()
}

/// The file with the key of its zone.
fn key(world: &TestWorld) -> PathBuf {
    std::env::var_os("P2PSIP_TEST_KEY").map_or_else(|| world.world.dns_key().to_owned(), PathBuf::from)
}

fn service(world: &TestWorld, service: Service) -> ResourceName {
    ServiceUri::new(service, world.world.descriptor().overlay().clone()).into()
}

/// Starts a gatekeeper; `more` is added to its file.
async fn gatekeeper(world: &TestWorld, member: &Member, policy: &str, more: &str) -> Gatekeeper {
    gatekeeper_of(world, member, &text(world, policy, more), None).await
}

/// A gatekeeper's file.
fn text(world: &TestWorld, policy: &str, more: &str) -> String {
    let (key, server) = (key(world), dns(world));
    format!("key = '{}'\nserver = '{server}'\npolicy = '{policy}'\n{more}", key.display())
}

async fn gatekeeper_of(world: &TestWorld, member: &Member, text: &str, path: Option<PathBuf>) -> Gatekeeper {
    let server = dns(world);
    let name = service(world, Service::Gatekeeper);
    let config = GatekeeperConfig {
        file: Config::parse(text, Path::new("")).unwrap(),
        path,
        resolver: Resolver::new(&[server]).unwrap(),
        certificate: world.world.enrol(member.key(), &[name]).unwrap(),
        timeout: PATIENCE,
    };
    Gatekeeper::start(member, config).await.unwrap()
}

// On a real name server all tests share one zone, and all proxy peers one prefix.
const LAB: &str = "allow_private = true\nquotas.peers_per_prefix = 100\n";
const SHORT: &str = "allow_private = true\nlease = 5\nquotas.peers_per_prefix = 100\n";

async fn proxy_at(world: &TestWorld, member: &Member, listen: SocketAddr, addresses: &[&str]) -> Proxy {
    let began = Instant::now();
    loop {
        let mut config = proxy_config(world, member, listen);
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        config.publish = config.publish.map(|publish| Publish { addresses, ..publish });
        match Proxy::start(member, config).await {
            Ok(proxy) => return proxy,
            // On a machine that is busy, members may not agree at once who is to list the offer.
            Err(ProxyError::Offer(_)) if began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn proxy_config(world: &TestWorld, member: &Member, listen: SocketAddr) -> ProxyConfig {
    let resolver = Resolver::new(&[dns(world)]).unwrap();
    let mut config = ProxyConfig::new(listen, Locator::new(resolver.clone(), Options::default()));
    config.certificate = world.world.enrol(member.key(), &[service(world, Service::Proxy)]).unwrap();
    config.drain = Duration::from_millis(200);
    config.publish = Some(Publish { by: PublishBy::Gatekeeper, resolver, addresses: vec![], force: false });
    config
}

/// Starts a proxy peer that enters the DNS.
async fn proxy(world: &TestWorld, member: &Member) -> Proxy {
    proxy_at(world, member, (Ipv4Addr::LOCALHOST, 0).into(), &[]).await
}

fn publication(proxy: &Proxy) -> PublicationStatus {
    proxy.status().publication.unwrap()
}

#[track_caller]
fn is_shown(proxy: &Proxy) {
    eventually("the DNS shows it", || publication(proxy).state == PublicationState::Shown);
}

/// What the zone says of a member's host.
fn host(world: &TestWorld, peer: &PeerId) -> Host {
    let overlay = world.world.descriptor().overlay();
    world.run(async {
        let zone = ZoneAt::on(dns(world), overlay, PATIENCE).await.unwrap();
        zone.read_host(&host_of(peer, overlay), PATIENCE).await.unwrap()
    })
}

fn is_in_dns(world: &TestWorld, peer: &PeerId) -> bool {
    let host = host(world, peer);
    assert_eq!(host.addresses.is_empty(), host.endpoints.is_empty(), "half of it: {host:?}");
    host.is_leased()
}

fn decisions(world: &TestWorld) -> DecisionsReply {
    let socket = &world.world.users()[GATEKEEPER].socket;
    world.run(over_socket(socket, &Decisions {})).unwrap()
}

#[test]
fn a_proxy_peer_enters_the_dns_by_itself_and_leaves_it_when_it_stops() {
    let world = world(1);
    let (keeper, member) = (&world.world.members()[GATEKEEPER], &world.world.members()[FREE]);
    let began = Instant::now();
    let (gatekeeper, proxy) =
        world.run(async { (gatekeeper(&world, keeper, "enrolled", LAB).await, proxy(&world, member).await) });
    is_shown(&proxy);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    let there = host(&world, &member.peer());
    let port = |wanted| proxy.listening().iter().find(|(protocol, _)| *protocol == wanted).unwrap().1.port();
    let endpoints = [
        SipEndpoint { transport: Transport::Udp, port: port(Protocol::Udp) },
        SipEndpoint { transport: Transport::Tcp, port: port(Protocol::Tcp) },
    ];
    assert_eq!((there.addresses, there.endpoints), (vec![IpAddr::from(Ipv4Addr::LOCALHOST)], endpoints.to_vec()));
    let lease = there.lease.unwrap();
    assert_eq!((lease.peer, lease.key.as_str()), (Some(member.peer()), TsigKey::load(&key(&world)).unwrap().name()));
    let status = publication(&proxy);
    assert_eq!((status.host, status.gatekeeper), (Some(there.name), Some(keeper.peer())));
    assert_eq!(member.status().proxy.unwrap().publication.unwrap().state, PublicationState::Shown);
    assert!(member.metrics().text().contains("p2psip_proxy_in_dns 1"));
    assert!(keeper.metrics().text().contains("p2psip_gatekeeper_proxy_peers 1"));
    // Anybody who resolves the overlay identifier finds it (R8).
    let found = run(cli::lookup::run, &format!("--as public --json sip:p2psip.org --dns {}", dns(&world)));
    assert!(found.out.contains(&format!("127.0.0.1:{}", port(Protocol::Udp))), "{found:?}");

    world.run(proxy.stop());
    assert!(!is_in_dns(&world, &member.peer()), "a clean stop withdraws");
    let decided: Vec<_> = decisions(&world).decisions.iter().map(|decision| decision.verdict).collect();
    assert_eq!(decided, [GateVerdict::Left, GateVerdict::Entered]);
    world.run(gatekeeper.stop());
}

#[test]
fn a_lease_is_renewed_and_one_that_is_not_ends() {
    let mut world = world(2);
    let keeper = world.run(gatekeeper(&world, &world.world.members()[GATEKEEPER], "open", SHORT));
    let (stays, dies) = (&world.world.members()[FREE], &world.world.members()[FREE + 1]);
    let (staying, dying) = world.run(async { (proxy(&world, stays).await, proxy(&world, dies).await) });
    is_shown(&staying);
    is_shown(&dying);
    eventually("both are renewed", || [&staying, &dying].iter().all(|proxy| publication(proxy).renewals > 0));

    // As SIGKILL would: nobody is told.
    let (stays, dead) = (stays.peer(), dies.peer());
    drop(dying);
    world.world.kill(FREE + 1);
    let killed = Instant::now();
    eventually("the dead one is gone", || !is_in_dns(&world, &dead));
    assert!(killed.elapsed() < Duration::from_secs(5 + 5), "lease + 5 s: {:?}", killed.elapsed());
    assert!(is_in_dns(&world, &stays));
    // It is written down once the DNS has answered, by the gatekeeper that came first if several share the zone.
    if has_own_zone() {
        eventually("that was written down", || {
            decisions(&world).decisions.iter().any(|decision| decision.verdict == GateVerdict::Reaped)
        });
    }
    drop(keeper);
}

/// A SIP server that answers everything 200, and knows nothing of any gatekeeper.
struct Innocent(JoinHandle<()>);

impl Innocent {
    async fn start(address: SocketAddr) -> Self {
        let config = p2psip::sip::transport::Config {
            listen: vec![(Protocol::Udp, address), (Protocol::Tcp, address)],
            ..Default::default()
        };
        let bound = Transports::bind(config).unwrap();
        bound.transports.serve_udp(&bound.udp).unwrap();
        let (transports, mut events) = (bound.transports, bound.events);
        Self(tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let Event::Message { message, source } = event else { continue };
                let to = response_target(&message.top_via().unwrap(), &source);
                let ok = respond::respond(&message, 200, "", Some("innocent")).finish();
                let _ = transports.send(&to, ok, 0);
            }
        }))
    }
}

#[test]
fn an_innocent_server_named_as_the_address_does_not_pass() {
    let world = world(2);
    let members = world.world.members();
    let keeper = world.run(gatekeeper(&world, &members[GATEKEEPER], "open", LAB));
    let honest = world.run(proxy(&world, &members[FREE]));
    is_shown(&honest);
    // One that is no proxy peer at all, on the same port.
    let port = free_port();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let innocent = SocketAddr::from(([127, 0, 0, 7], port));
    let server = world.run(Innocent::start(innocent));
    let liar = world.run(proxy_at(&world, &members[FREE + 1], listen, &[&innocent.ip().to_string()]));
    eventually("it is refused", || publication(&liar).state == PublicationState::Refused);
    let why = publication(&liar).why;
    assert!(why.contains(&format!("udp {innocent} answers 200, but not as this proxy peer")), "{why}");
    assert!(why.contains(&format!("tcp {innocent} answers 200, but not as this proxy peer")), "{why}");
    assert!(!is_in_dns(&world, &members[FREE + 1].peer()));
    let pending = decisions(&world).pending;
    assert!(
        pending.iter().any(|waits| waits.peer == Some(members[FREE + 1].peer()) && waits.why.contains("not as this")),
        "{pending:?}"
    );
    world.run(liar.stop());

    // And a proxy peer that is honest helps nobody who names its address.
    let at = honest.listening()[0].1;
    let liar = world.run(async {
        let listen = SocketAddr::from(([127, 0, 0, 8], at.port()));
        proxy_at(&world, &members[FREE + 1], listen, &[&at.ip().to_string()]).await
    });
    eventually("it is refused", || publication(&liar).state == PublicationState::Refused);
    assert!(publication(&liar).why.contains("not as this proxy peer"), "{:?}", publication(&liar));
    assert!(is_in_dns(&world, &members[FREE].peer()));
    server.0.abort();
    drop(keeper);
}

/// A member that does by hand what a proxy peer does.
struct ByHand<'a> {
    world: &'a TestWorld,
    member: &'a Member,
    port: u16,
    transports: Transports,
    nonces: mpsc::UnboundedReceiver<(RequestId, Nonce)>,
}

impl<'a> ByHand<'a> {
    fn new(world: &'a TestWorld, member: &'a Member) -> Self {
        let (seen, nonces) = mpsc::unbounded_channel();
        let transports = world.run(async {
            let listen = vec![(Protocol::Udp, (Ipv4Addr::LOCALHOST, 0).into())];
            let config = p2psip::sip::transport::Config { listen, ..Default::default() };
            let bound = Transports::bind(config).unwrap();
            bound.transports.serve_udp(&bound.udp).unwrap();
            let (transports, mut events) = (bound.transports.clone(), bound.events);
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    let Event::Message { message, source } = event else { continue };
                    let _ = seen.send(probe(&message));
                    let to = response_target(&message.top_via().unwrap(), &source);
                    let _ = transports.send(&to, respond::respond(&message, 200, "", Some("t")).finish(), 0);
                }
            });
            bound.transports
        });
        let port = transports.listening()[0].1.port();
        Self { world, member, port, transports, nonces }
    }

    fn enter_at(&self, gatekeeper: &PeerInfo, change: impl FnOnce(&mut Enter)) -> Result<Enter, DenialCode> {
        let certificate = self.world.world.enrol(self.member.key(), &[service(self.world, Service::Proxy)]).unwrap();
        let mut enter = Enter {
            id: RequestId::new([7; 16]),
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            endpoints: vec![("udp".to_owned(), self.port)],
            dialled: self.member.addresses(),
            certificate: certificate.map(|certificate| ByteBuf::from(certificate.der())),
            force: false,
        };
        change(&mut enter);
        match self.call(gatekeeper, &enter).unwrap() {
            EnterReply::Probing { .. } => Ok(enter),
            EnterReply::Refused(Denied { code, why, .. }) => {
                assert!(!why.is_empty() && !why.contains('\n'), "{why}");
                Err(code)
            }
        }
    }

    fn call<C: p2psip::client::Call>(
        &self,
        to: &PeerInfo,
        call: &C,
    ) -> Result<C::Reply, p2psip::overlay::swarm::AskError> {
        self.world.run(self.member.network().call(to, call, PATIENCE))
    }

    /// Waits for the probe of a request.
    fn nonce(&mut self, id: RequestId) -> Nonce {
        self.world.run(async {
            loop {
                let next = tokio::time::timeout(PATIENCE, self.nonces.recv()).await.unwrap().unwrap();
                if next.0 == id {
                    return next.1;
                }
            }
        })
    }

    fn proof(&self, gatekeeper: &PeerId, id: RequestId, nonces: Vec<Nonce>) -> Prove {
        let overlay = self.world.world.descriptor().overlay();
        let signature = self.member.key().sign(&statement(overlay, gatekeeper, &id, &nonces));
        Prove { id, nonces, signature: ByteBuf::from(signature.to_vec()) }
    }

    fn prove(&self, gatekeeper: &PeerInfo, prove: &Prove) -> Result<(), DenialCode> {
        match self.call(gatekeeper, prove).unwrap() {
            ProveReply::Entered(entered) => {
                assert_eq!(entered.host, host_of(&self.member.peer(), self.world.world.descriptor().overlay()));
                Ok(())
            }
            ProveReply::Refused(denied) => Err(denied.code),
        }
    }
}

/// What a probe carries.
fn probe(message: &Message) -> (RequestId, Nonce) {
    let text = std::str::from_utf8(message.header(Name::Other(b"P2PSIP-Probe")).unwrap()).unwrap();
    let (id, nonce) = text.split_once('.').unwrap();
    let octets = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap();
    (RequestId::new(octets(id)), Nonce::new(octets(nonce)))
}

#[test]
fn each_policy_and_limit_refuses_with_its_reason() {
    let world = world(3);
    let members = world.world.members();
    let applicant = ByHand::new(&world, &members[FREE]);
    let listed = members[FREE].peer();
    let keeper = members[GATEKEEPER].info();
    let judged = |policy: &str, more: &str, change: &dyn Fn(&mut Enter)| {
        let gatekeeper = world.run(gatekeeper(&world, &members[GATEKEEPER], policy, more));
        let result = applicant.enter_at(&keeper, change).map(|_| ());
        drop(gatekeeper);
        result
    };
    let at = |address: &'static str| move |enter: &mut Enter| enter.addresses = vec![address.parse().unwrap()];
    assert_eq!(judged("open", LAB, &|enter| enter.certificate = None), Ok(()));
    assert_eq!(judged("enrolled", LAB, &|_| ()), Ok(()));
    assert_eq!(judged("enrolled", LAB, &|enter| enter.certificate = None), Err(DenialCode::NotEnrolled));
    // A certificate for something else, or somebody else's.
    let other = world.world.enrol(members[FREE].key(), &[service(&world, Service::Turn)]).unwrap().unwrap();
    let shows = |der: &[u8]| {
        let der = ByteBuf::from(der.to_vec());
        move |enter: &mut Enter| enter.certificate = Some(der.clone())
    };
    assert_eq!(judged("enrolled", LAB, &shows(other.der())), Err(DenialCode::NotEnrolled));
    let stolen = world.world.enrol(members[FREE + 1].key(), &[service(&world, Service::Proxy)]).unwrap().unwrap();
    assert_eq!(judged("enrolled", LAB, &shows(stolen.der())), Err(DenialCode::NotEnrolled));
    assert_eq!(judged("closed", LAB, &|_| ()), Err(DenialCode::NotListed));
    assert_eq!(judged("closed", &format!("{LAB}allow = ['{listed}']"), &|_| ()), Ok(()));
    assert_eq!(judged("open", "", &|_| ()), Err(DenialCode::Private), "loopback, and no laboratory");
    assert_eq!(judged("open", "", &at("192.168.1.1")), Err(DenialCode::Private));
    assert_eq!(judged("open", LAB, &at("224.0.0.1")), Err(DenialCode::Unfit));
    assert_eq!(judged("open", LAB, &|enter| enter.endpoints[0].0 = "sctp".to_owned()), Err(DenialCode::Unfit));
    assert_eq!(judged("open", LAB, &|enter| enter.endpoints.clear()), Err(DenialCode::Unfit));
    let throttled = format!("{LAB}quotas.probes_per_minute = 1");
    assert_eq!(
        judged("open", &throttled, &|enter| enter.endpoints.push(("tcp".into(), 1))),
        Err(DenialCode::Throttled)
    );
    let none = format!("{LAB}quotas.addresses_per_certificate = 1");
    let two = |enter: &mut Enter| enter.addresses.push("127.0.0.2".parse().unwrap());
    assert_eq!(judged("open", &none, &two), Err(DenialCode::Quota));
    assert!(!is_in_dns(&world, &listed), "a request alone enters nothing");

    // Its decisions are its own user's alone.
    let keeper = world.run(gatekeeper(&world, &members[GATEKEEPER], "closed", LAB));
    assert_eq!(applicant.enter_at(&members[GATEKEEPER].info(), |_| ()).unwrap_err(), DenialCode::NotListed);
    let error = applicant.call(&members[GATEKEEPER].info(), &Decisions {}).unwrap_err().to_string();
    assert!(error.contains("its own user"), "{error}");
    let user = &world.world.users()[GATEKEEPER];
    let options = format!("--socket {} --home {}", user.socket.display(), user.home.display());
    let listed = run(cli::publish::run, &format!("list --pending {options} --overlay p2psip.org")).exits(0);
    assert!(listed.out.contains("refused") && listed.out.contains("not on the list"), "{listed:?}");
    drop(keeper);
}

#[test]
fn a_proof_is_used_up_and_a_gatekeeper_may_die_between_two_steps() {
    let world = world(3);
    let members = world.world.members();
    let (one, other) = (members[GATEKEEPER].info(), members[FREE + 1].info());
    let first = world.run(gatekeeper(&world, &members[GATEKEEPER], "enrolled", LAB));
    let second = world.run(gatekeeper(&world, &members[FREE + 1], "enrolled", LAB));
    let mut applicant = ByHand::new(&world, &members[FREE]);
    let me = members[FREE].peer();
    let fresh = |n: u8| move |enter: &mut Enter| enter.id = RequestId::new([n; 16]);

    let Enter { id, .. } = applicant.enter_at(&one, fresh(1)).unwrap();
    let nonce = applicant.nonce(id);
    let sound = applicant.proof(&one.peer, id, vec![nonce]);
    let forged = Prove { signature: ByteBuf::from(vec![0; 64]), ..sound.clone() };
    assert_eq!(applicant.prove(&one, &forged), Err(DenialCode::Stale));
    let thief = ByHand::new(&world, &members[FREE + 2]);
    assert_eq!(thief.prove(&one, &sound), Err(DenialCode::Stale), "another peer's stream");
    assert_eq!(applicant.prove(&other, &sound), Err(DenialCode::Stale), "another gatekeeper's nonce");
    assert_eq!(applicant.prove(&one, &sound), Ok(()));
    assert!(is_in_dns(&world, &me));
    let before = host(&world, &me);
    assert_eq!(applicant.prove(&one, &sound), Err(DenialCode::Stale), "a replay");
    assert_eq!(host(&world, &me), before, "and it changes nothing");

    // Nobody leaves in another's name; it can leave through any gatekeeper, and be entered by any.
    assert_eq!(thief.call(&one, &Leave {}).unwrap(), LeaveReply::Left, "it was not there");
    assert_eq!(host(&world, &me), before);
    assert_eq!(applicant.call(&other, &Leave {}).unwrap(), LeaveReply::Left);
    assert!(!is_in_dns(&world, &me));
    assert_eq!(applicant.prove(&one, &sound), Err(DenialCode::Stale), "a replay after leaving");
    assert!(!is_in_dns(&world, &me));

    let Enter { id, .. } = applicant.enter_at(&one, fresh(2)).unwrap();
    let nonce = applicant.nonce(id);
    drop(first);
    let prove = applicant.proof(&one.peer, id, vec![nonce]);
    let error = applicant.call(&one, &prove).unwrap_err().to_string();
    assert!(error.contains("no gatekeeper any more"), "{error}");
    assert!(!is_in_dns(&world, &me), "nothing is half done");
    let Enter { id, .. } = applicant.enter_at(&other, fresh(3)).unwrap();
    let nonce = applicant.nonce(id);
    assert_eq!(applicant.prove(&other, &applicant.proof(&other.peer, id, vec![nonce])), Ok(()));
    assert!(is_in_dns(&world, &me));
    // Only what was asked for: nobody else's addresses.
    assert_eq!(host(&world, &me).endpoints, [SipEndpoint { transport: Transport::Udp, port: applicant.port }]);
    drop((second, applicant.transports));
}

#[test]
fn many_proxy_peers_and_several_gatekeepers_do_each_other_no_harm() {
    const MANY: usize = 16;
    let world = world(MANY + 2);
    let members = world.world.members();
    let more = format!("{SHORT}quotas.probes_per_minute = 10000");
    let keepers = [GATEKEEPER, FREE + MANY, FREE + MANY + 1];
    let mut keepers: Vec<Gatekeeper> =
        keepers.into_iter().map(|index| world.run(gatekeeper(&world, &members[index], "enrolled", &more))).collect();
    let proxies: Vec<Proxy> = world.run(async {
        let starting = members[FREE..FREE + MANY].iter().map(|member| proxy(&world, member));
        futures::future::join_all(starting).await
    });
    proxies.iter().for_each(is_shown);
    let renewals = |proxies: &[Proxy]| proxies.iter().map(|proxy| publication(proxy).renewals).min().unwrap();
    eventually("all are renewed", || renewals(&proxies) > 0);
    // One of the gatekeepers dies; who was entered by it goes to another one.
    drop(keepers.pop());
    let then = renewals(&proxies);
    eventually("all are renewed again, twice", || renewals(&proxies) > then + 1);
    for (proxy, member) in proxies.iter().zip(&members[FREE..]) {
        assert_eq!(publication(proxy).state, PublicationState::Shown, "{:?}", publication(proxy));
        assert!(is_in_dns(&world, &member.peer()));
    }
    world.run(async { futures::future::join_all(proxies.into_iter().map(Proxy::stop)).await });
    assert!(members[FREE..FREE + MANY].iter().all(|member| !is_in_dns(&world, &member.peer())));
}

#[test]
fn without_a_gatekeeper_a_proxy_peer_says_so_and_finds_one_that_comes() {
    let world = world(1);
    let member = &world.world.members()[FREE];
    let lonely = world.run(proxy(&world, member));
    eventually("it says so", || publication(&lonely).why.contains("p2psip.org has no gatekeeper"));
    assert_eq!(publication(&lonely).state, PublicationState::Refused);
    let keeper = world.run(gatekeeper(&world, &world.world.members()[GATEKEEPER], "enrolled", LAB));
    is_shown(&lonely);
    world.run(lonely.stop());
    drop(keeper);
}

/// A certificate for a name, its key, and the CA that has issued it, as files.
fn tls(folder: &Path, stem: &str, name: &str) -> (ProxyTls, PathBuf) {
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let write = |what: &str, text: String| {
        let path = folder.join(format!("{stem}-{what}.pem"));
        fs::write(&path, text).unwrap();
        path
    };
    let files = ProxyTls {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        certificate: write("certificate", certificate.pem()),
        key: write("key", key.serialize_pem()),
    };
    (files, write("ca", issuer.pem()))
}

#[test]
fn tls_enters_only_with_a_certificate_for_the_overlay() {
    let world = world(2);
    let members = world.world.members();
    let folder = folder();
    for (index, name) in ["p2psip.org", "proxy.example.com"].into_iter().enumerate() {
        let (files, ca) = tls(folder.path(), name, name);
        let more = format!("{LAB}roots = '{}'", ca.display());
        let keeper = world.run(gatekeeper(&world, &members[GATEKEEPER], "enrolled", &more));
        let mut config = proxy_config(&world, &members[FREE + index], (Ipv4Addr::LOCALHOST, 0).into());
        config.tls = Some(files);
        let proxy = world.run(Proxy::start(&members[FREE + index], config)).unwrap();
        is_shown(&proxy);
        let endpoints = host(&world, &members[FREE + index].peer()).endpoints;
        let has_tls = endpoints.iter().any(|endpoint| endpoint.transport == Transport::Tls);
        assert_eq!((endpoints.len(), has_tls), if index == 0 { (3, true) } else { (2, false) }, "{name}");
        world.run(proxy.stop());
        drop(keeper);
    }
}

#[test]
fn who_has_the_key_needs_no_gatekeeper_and_a_proxy_peer_behind_a_nat_says_so() {
    let world = world(1);
    let member = &world.world.members()[FREE];
    let start = |force| {
        let mut config = proxy_config(&world, member, (Ipv4Addr::LOCALHOST, 0).into());
        world.run(async {
            let zone = ZoneAt::on(dns(&world), world.world.descriptor().overlay(), PATIENCE).await.unwrap();
            let publisher = Box::new(Publisher::new(zone, TsigKey::load(&key(&world)).unwrap(), PATIENCE));
            let by = PublishBy::Key { publisher, lease: 5 };
            config.publish = config.publish.map(|publish| Publish { by, force, ..publish });
            Proxy::start(member, config).await.unwrap()
        })
    };
    let private = start(false);
    eventually("it says so", || publication(&private).state == PublicationState::BehindNat);
    assert!(publication(&private).why.contains("it is a loopback address"), "{:?}", publication(&private));
    world.run(private.stop());
    assert!(!is_in_dns(&world, &member.peer()));

    let forced = start(true);
    eventually("it is renewed", || publication(&forced).renewals > 0);
    assert_eq!((publication(&forced).state, publication(&forced).gatekeeper), (PublicationState::Shown, None));
    world.run(forced.stop());
    assert!(!is_in_dns(&world, &member.peer()));
}

#[test]
fn a_closed_list_that_grows_needs_no_restart() {
    let world = world(1);
    let members = world.world.members();
    let folder = folder();
    let path = folder.path().join("gatekeeper.toml");
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let closed = text(&world, "closed", LAB);
    write(&closed);
    let keeper = world.run(gatekeeper_of(&world, &members[GATEKEEPER], &closed, Some(path.clone())));
    let applicant = ByHand::new(&world, &members[FREE]);
    let enter = || applicant.enter_at(&members[GATEKEEPER].info(), |_| ()).map(|_| ());
    assert_eq!(enter(), Err(DenialCode::NotListed));
    write("nonsense");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(enter(), Err(DenialCode::NotListed), "a broken file changes nothing");
    write(&format!("{closed}allow = ['{}']", members[FREE].peer()));
    eventually("it is let in", || enter().is_ok());
    drop(keeper);
}

#[test]
fn a_gatekeepers_file_that_cannot_be_used_is_one_line_and_exit_code_2() {
    let world = world(1);
    let user = world.user("operator");
    let folder = folder();
    let (key, server) = (key(&world), dns(&world));
    let key = key.display();
    let write = |name: &str, text: &str, mode| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let sound = format!("key = '{key}'\nserver = '{server}'\npolicy = 'enrolled'");
    let loose = write("loose.key", "key", 0o644);
    for (file, says) in [
        ("/nonexistent.toml".to_owned(), "the gatekeeper's file /nonexistent.toml cannot be used"),
        (write("readable", &sound, 0o644), "may be used by others (mode 0644)"),
        (write("unknown", &format!("{sound}\nserve = 1"), 0o600), "unknown field `serve`"),
        (write("policy", &sound.replace("enrolled", "ajar"), 0o600), "unknown variant `ajar`"),
        (write("loose", &format!("key = '{loose}'\npolicy = 'open'"), 0o600), "others may read it"),
        (write("missing", "key = 'none.key'\npolicy = 'open'", 0o600), "none.key cannot be used: No such file"),
        (write("zone", &format!("{sound}\nzone = 'example.com'"), 0o600), "the gatekeeper's file says example.com"),
        (write("sound", &sound, 0o600), "no certificate for gatekeeper:p2psip.org"),
    ] {
        let options = format!("--gatekeeper {file} --dns {server} {} {}", user.home_option(), world.peers());
        let ran = join(&options).exits(2).says(says);
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{ran:?}");
    }
    let template = join("--print-gatekeeper").exits(0);
    Config::parse(&template.out, Path::new("")).unwrap();
    join("--publish-force").exits(2).says("--proxy");
}
