//! Whoever sends nonsense, too much, or nothing at all, harms nobody but himself.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future::join_all};
use libp2p::{
    StreamProtocol,
    request_response::{self, ProtocolSupport},
    swarm::SwarmEvent,
};
use p2psip::{
    client::{ErrorCode, Event, Lookup, RequestFrame, Status, framed},
    identity::SecretKey,
    member::{Member, MemberConfig},
    name::ResourceName,
    overlay::{
        limits::{Rate, Rates},
        swarm::AskError,
    },
};
use tempfile::TempDir;

use crate::world::{PATIENCE, Process, TestWorld, eventually, folder, lookup, timed};

/// A member of an overlay of its own, in a process of its own, whose memory can be measured.
struct Lone {
    _folder: TempDir,
    process: Process,
    socket: PathBuf,
    /// Its address with its peer id.
    full: String,
    address: SocketAddr,
    protocol: String,
    options: String,
}

impl Lone {
    fn start() -> Self {
        let folder = folder();
        let home = folder.path().join("home");
        let listen = "--listen /ip4/127.0.0.1/tcp/0";
        let (process, joined) = Process::member(&format!("--local testnet --home {} {listen}", home.display()));
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let full = text(&joined["addresses"][0]);
        let port = full.split('/').nth(4).unwrap().parse().unwrap();
        let hash = text(&joined["descriptor"]);
        Self {
            process,
            socket: text(&joined["socket"]).into(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            protocol: format!("/p2psip/testnet-{}/client/1", &hash[..16]),
            options: format!(
                "--home {}/other --descriptor {}/descriptor.toml",
                folder.path().display(),
                home.display()
            ),
            full,
            _folder: folder,
        }
    }

    /// Asserts that others are served without delay, over the socket and over a stream.
    #[track_caller]
    fn serves_others(&mut self) {
        assert!(self.process.is_alive());
        let (options, user) = (&self.options, "sip:nobody@testnet");
        for way in
            [format!("--via socket --socket {}", self.socket.display()), format!("--via peer --peer {}", self.full)]
        {
            let (ran, took) = timed(p2psip::cli::lookup::run, &format!("--timeout 10 {options} {way} {user}"));
            assert_eq!(ran.code, 1, "{ran:?}");
            assert!(took < Duration::from_secs(2), "{way}: {took:?}");
        }
    }
}

/// A mebibyte.
const MIB: u64 = 1 << 20;
/// The octets that announce a frame of 100 MB.
const HUGE: [u8; 4] = 100_000_000u32.to_be_bytes();

/// What nobody should send: each is the beginning of a stream.
fn nonsense() -> Vec<Vec<u8>> {
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    let nested = [vec![0x81; 100_000], vec![0]].concat();
    let huge_map = [0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let request = |service: &str, body: Vec<u8>| {
        let frame = RequestFrame { version: 1, service: service.to_owned(), body };
        framed(&frame, "request").unwrap()
    };
    vec![
        [&HUGE[..], &[0; 65_536]].concat(),
        vec![0xff; 65_536],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame(&[]),
        frame(&nested),
        frame(&huge_map),
        frame(&[0x9f; 1000]),
        request("fetch", nested.clone()),
        request("digest", huge_map.to_vec()),
        request("put", vec![0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        request(&"x".repeat(60_000), vec![0; 60_000]),
    ]
}

#[test]
fn nonsense_on_the_unix_socket_harms_nobody() {
    let mut member = Lone::start();
    let before = member.process.peak_memory();
    for octets in nonsense() {
        let mut stream = UnixStream::connect(&member.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may hang up before it has read everything.
        let _ = stream.write_all(&octets);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(answer.len() < 70_000, "{read:?} {}", answer.len());
    }
    // Programs that begin a large frame and never end it.
    let slow: Vec<UnixStream> = (0..200)
        .map(|_| {
            let mut stream = UnixStream::connect(&member.socket).unwrap();
            stream.write_all(&[0, 0x0f, 0xff, 0xff, 1, 2, 3]).unwrap();
            stream
        })
        .collect();
    member.serves_others();
    drop(slow);
    let grown = member.process.peak_memory() - before;
    assert!(grown < 24 * MIB, "{} MiB", grown / MIB);
}

/// Octets to write onto a stream as they are, and how long to hold it open then.
#[derive(Clone)]
struct Raw {
    octets: Arc<Vec<u8>>,
    hold: Duration,
}

/// A codec that knows no frames.
#[derive(Clone)]
struct NoCodec;

impl request_response::Codec for NoCodec {
    type Protocol = StreamProtocol;
    type Request = Raw;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Raw>
    where
        T: futures::AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: futures::AsyncRead + Unpin + Send,
    {
        let mut octets = Vec::new();
        futures::AsyncReadExt::read_to_end(io, &mut octets).await?;
        Ok(octets)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, raw: Raw) -> io::Result<()>
    where
        T: futures::AsyncWrite + Unpin + Send,
    {
        use futures::AsyncWriteExt as _;
        io.write_all(&raw.octets).await?;
        io.flush().await?;
        tokio::time::sleep(raw.hold).await;
        Ok(())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, _: Vec<u8>) -> io::Result<()>
    where
        T: futures::AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A libp2p process that opens streams to a member and writes anything onto them.
struct Attacker {
    swarm: libp2p::Swarm<request_response::Behaviour<NoCodec>>,
    target: libp2p::PeerId,
    waiting: usize,
}

impl Attacker {
    fn on(member: &Lone) -> Self {
        let protocol = StreamProtocol::try_from_owned(member.protocol.clone()).unwrap();
        let config = request_response::Config::default().with_request_timeout(PATIENCE);
        let behaviour =
            request_response::Behaviour::with_codec(NoCodec, [(protocol, ProtocolSupport::Outbound)], config);
        let mut swarm = libp2p::SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(libp2p::tcp::Config::default(), libp2p::noise::Config::new, libp2p::yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .build();
        let (address, peer) = member.full.split_once("/p2p/").unwrap();
        let target = peer.parse().unwrap();
        swarm.add_peer_address(target, address.parse().unwrap());
        Self { swarm, target, waiting: 0 }
    }

    fn send(&mut self, octets: Vec<u8>, hold: Duration) {
        let raw = Raw { octets: Arc::new(octets), hold };
        self.swarm.behaviour_mut().send_request(&self.target, raw);
        self.waiting += 1;
    }

    /// Drives the streams until so much time has passed, or all of them are done.
    async fn drive(&mut self, time: Duration) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        let until = tokio::time::Instant::now() + time;
        while self.waiting > 0 {
            let Ok(event) = tokio::time::timeout_at(until, self.swarm.select_next_some()).await else { break };
            match event {
                SwarmEvent::Behaviour(request_response::Event::Message {
                    message: request_response::Message::Response { response, .. },
                    ..
                }) => {
                    answers.push(response);
                    self.waiting -= 1;
                }
                SwarmEvent::Behaviour(request_response::Event::OutboundFailure { .. }) => self.waiting -= 1,
                _ => {}
            }
        }
        answers
    }
}

#[test]
fn nonsense_on_a_stream_harms_nobody() {
    let mut member = Lone::start();
    let before = member.process.peak_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut attacker = runtime.block_on(async { Attacker::on(&member) });
    for octets in nonsense() {
        attacker.send(octets, Duration::ZERO);
    }
    let answers = runtime.block_on(attacker.drive(PATIENCE));
    assert_eq!(attacker.waiting, 0, "the member has answered each stream or closed it");
    assert!(answers.iter().all(|answer| answer.len() < 70_000));
    // Almost a full frame on each of as many streams as a connection may have, and then nothing more.
    let mut slow = [0, 0x0f, 0xff, 0xff].to_vec();
    slow.resize(1_000_000, 0);
    for _ in 0..100 {
        attacker.send(slow.clone(), Duration::from_secs(3600));
    }
    let attack = runtime.spawn(async move { attacker.drive(Duration::from_secs(3600)).await });
    std::thread::sleep(Duration::from_secs(1));
    member.serves_others();
    attack.abort();
    let grown = member.process.peak_memory() - before;
    assert!(grown < 32 * MIB, "{} MiB", grown / MIB);
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_out() {
    let mut member = Lone::start();
    let silent: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(member.address).unwrap()).collect();
    eventually("others get in", || {
        let way = format!("--timeout 2 --via peer --peer {} {}", member.full, member.options);
        lookup(&format!("{way} sip:nobody@testnet")).code == 1
    });
    member.serves_others();
    drop(silent);
}

#[test]
fn a_peer_that_floods_a_member_is_throttled_and_others_are_not() {
    let world = TestWorld::shared();
    let descriptor = world.world.descriptor();
    let mut config = MemberConfig::new(descriptor.clone(), Arc::new(SecretKey::generate().unwrap()));
    config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    let rate = |burst| Rate { per_second: 1.0, burst };
    config.network.rates = Rates { requests: rate(50.0), walks: rate(5.0), ..Rates::default() };
    let member = world.run(Member::start(config)).unwrap();
    let (flooder, other) = (world.client(), world.client());
    let mut events = member.network().events().subscribe();
    let info = member.info();
    let flood = world.run(async { join_all((0..100).map(|_| flooder.call(&info, &Status {}))).await });
    let is_throttled =
        |error: &AskError| matches!(error, AskError::Refused(reply) if reply.code == ErrorCode::Throttled);
    let throttled = flood.iter().filter(|reply| reply.as_ref().is_err_and(is_throttled)).count();
    let served = flood.iter().filter(|reply| reply.is_ok()).count();
    assert!((50..60).contains(&served) && throttled == 100 - served, "{served} served, {throttled} throttled");
    let status = world.run(other.call(&info, &Status {})).expect("another peer has a share of its own");
    assert_eq!((status.throttled, status.served), (throttled as u64, served as u64 + 1));
    let call = Lookup { name: ResourceName::parse("sip:a@p2psip.org").unwrap(), timeout_ms: 100 };
    let walks = world.run(async { join_all((0..20).map(|_| other.call(&info, &call))).await });
    assert!(walks.iter().filter(|reply| reply.is_ok()).count() <= 6, "what costs more has a smaller share");
    world.run(async {
        let flooded = async {
            while !matches!(events.recv().await.unwrap(), Event::Throttled { peer } if peer == flooder.network.peer()) {
            }
        };
        tokio::time::timeout(PATIENCE, flooded).await.expect("whoever follows the events hears of it");
    });
    world.run(member.stop());
}
