//! Worlds to test in, and tools run in them as their users run them.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use p2psip::{
    cli::{Env, Io, Signal, Signals},
    client::{Call, ErrorCode, ErrorReply, Held, HeldReply, PeerInfo, RequestFrame, ResponseFrame},
    clock::UnixMs,
    identity::{Certificate, Home, SecretKey},
    lab::{LabOptions, World},
    name::{Aor, ResourceName},
    overlay::{
        Answer, Caller, Responder,
        socket::{SocketClient, SocketError},
        swarm::{AskError, Network, NetworkConfig},
    },
    record::{Body, Contact, Payload, seal},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long one request of a test may take: long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a registration of the tests holds.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// A world, and the runtime that its members live on.
pub struct TestWorld {
    pub world: World,
    pub runtime: Runtime,
    _folder: TempDir,
}

impl TestWorld {
    /// Starts a world of its own for a test.
    pub fn start(options: LabOptions) -> Self {
        let folder = folder();
        let options = LabOptions { folder: Some(folder.path().to_owned()), ..options };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let world = runtime.block_on(World::start(options, &mut |_| ())).unwrap();
        Self { world, runtime, _folder: folder }
    }

    /// Starts a world of so many members for a test.
    pub fn of(members: usize) -> Self {
        Self::start(LabOptions::new(members).unwrap())
    }

    /// The world of 24 members that tests share who change nothing but records of users of their own. It lives as
    /// long as the process.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<TestWorld> = LazyLock::new(|| TestWorld::of(24));
        &SHARED
    }

    /// Runs a future among the members, on this test's thread.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// A new user of the overlay, whose name nobody else has.
    pub fn user(&self, stem: &str) -> User {
        static USERS: AtomicU32 = AtomicU32::new(0);
        self.user_named(&format!("{stem}-{}", USERS.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new user of the overlay.
    pub fn user_named(&self, name: &str) -> User {
        self.device(name, &Aor::parse(&format!("sip:{name}@{}", self.world.descriptor().overlay())).unwrap())
    }

    /// One more device of a user, with a home of its own.
    pub fn device(&self, folder: &str, aor: &Aor) -> User {
        let home = self.world.make_home(folder, aor).unwrap();
        let key = home.instance_key().unwrap();
        let certificate = home.certificate_for(&key.public(), &aor.clone().into(), UnixMs::now()).unwrap();
        User { aor: aor.clone(), home, key, certificate, socket: self.world.users()[0].socket.clone() }
    }

    /// `--peer` options that lead to three members.
    pub fn peers(&self) -> String {
        self.world.entries().iter().map(|entry| format!("--peer {entry} ")).collect()
    }

    /// The three ways to ask, as options: the member on this machine, a remote one, the storers themselves.
    pub fn ways(&self, user: &User) -> [(&'static str, String); 3] {
        let (own, peers) = (user.options(), self.peers());
        let home = user.home_option();
        [
            ("socket", format!("--via socket {own}")),
            ("peer", format!("--via peer {peers} {home}")),
            ("walk", format!("--via walk {peers} {home}")),
        ]
    }

    /// A process of its own that asks members.
    pub fn client(&self) -> Client {
        let descriptor = self.world.descriptor();
        let config = NetworkConfig::client(descriptor.overlay().clone(), descriptor.hash(), PATIENCE);
        self.run(Client::start(config))
    }

    /// Which members hold a live record or tombstone of the name.
    pub fn holders(&self, name: &ResourceName) -> Vec<usize> {
        let fetch = p2psip::client::Fetch { target: name.position(), closer: 0 };
        let client = self.client();
        self.run(async {
            let asked = self.world.members().iter().map(async |member| client.call(&member.info(), &fetch).await);
            let replies = futures::future::join_all(asked).await;
            let holds = |reply: &Result<p2psip::client::FetchReply, AskError>| {
                reply.as_ref().is_ok_and(|reply| !reply.envelopes.is_empty())
            };
            replies.iter().enumerate().filter(|(_, reply)| holds(reply)).map(|(index, _)| index).collect()
        })
    }
}

/// Waits until something has become true. Tests wait for conditions and never for a time.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "after {:?} still not: {what}", began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A user of an overlay at a device, without a member of its own: it goes through one of alice's.
pub struct User {
    pub aor: Aor,
    pub home: Home,
    pub key: SecretKey,
    pub certificate: Option<Certificate>,
    pub socket: PathBuf,
}

impl User {
    /// The options that make this user of a tool's.
    pub fn options(&self) -> String {
        format!("--home {} --socket {} ", self.home.folder().display(), self.socket.display())
    }

    /// The option that makes this user of a tool's, without any member.
    pub fn home_option(&self) -> String {
        format!("--home {}", self.home.folder().display())
    }

    /// The name that the user's records are stored under.
    pub fn name(&self) -> ResourceName {
        self.aor.clone().into()
    }

    /// A record of this user, written now, that leads to a SIP URI.
    pub fn payload(&self) -> Payload {
        let now = UnixMs::now();
        let contacts = vec![Contact::Sip { uri: "sip:phone@192.0.2.1".to_owned(), q: 1000 }];
        Payload { name: self.name(), sequence: now.0, expires: now.after(LIFETIME), body: Body::User { contacts } }
    }

    /// The payload, signed by this user.
    pub fn seal(&self, payload: &Payload) -> Vec<u8> {
        seal(payload, &self.key, self.certificate.as_ref()).unwrap()
    }
}

/// A process of the overlay's that asks and does not answer.
pub struct Client {
    pub network: Network,
}

impl Client {
    pub async fn start(config: NetworkConfig) -> Self {
        let (network, bound) = Network::bind(config, &SecretKey::generate().unwrap()).await.unwrap();
        bound.run(Arc::new(Deaf));
        Self { network }
    }

    pub async fn call<C: Call>(&self, to: &PeerInfo, call: &C) -> Result<C::Reply, AskError> {
        self.network.call(to, call, PATIENCE).await
    }
}

/// What answers where nobody should ask.
pub struct Deaf;

impl Responder for Deaf {
    fn respond(&self, _: Caller, _: RequestFrame) -> Answer {
        Answer::Now(ResponseFrame::Error(ErrorReply::new(ErrorCode::Unavailable, "nobody is here")))
    }
}

/// One call over a member's unix socket.
pub async fn over_socket<C: Call>(path: &Path, call: &C) -> Result<C::Reply, SocketError> {
    SocketClient::connect(path).await?.call(call).await
}

/// What the member at a socket holds.
pub async fn held(path: &Path) -> HeldReply {
    over_socket(path, &Held { limit: 1000 }).await.unwrap()
}

/// A tool, as a function.
pub type Run = fn(Vec<OsString>, &Env, &mut Io<'_>) -> u8;

/// What came of running a tool.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: u8,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The one JSON object on standard output.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the exit code; the message shows everything else.
    #[track_caller]
    pub fn exits(self, code: u8) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Asserts that standard error says something.
    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        assert!(self.err.contains(what), "'{what}' is not in {self:#?}");
        self
    }
}

/// An environment in which nothing is set and nothing is at home.
pub fn bare_env() -> Env {
    Env::new("/nonexistent").with("HOME", "/nonexistent")
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// Runs a tool in this process. One that stays where it should have failed is ended in the end.
pub fn run(tool: Run, line: &str) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (signals, receiver) = tokio::sync::mpsc::unbounded_channel();
    let (done, ended) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if ended.recv_timeout(3 * PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = signals.send(Signal::Terminate);
        }
    });
    let mut io = Io::captured(&mut out, &mut err);
    io.signals = Signals::Channel(receiver);
    let code = tool(words(line), &bare_env(), &mut io);
    drop(done);
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// Runs a tool in this process and says how long it took.
pub fn timed(tool: Run, line: &str) -> (Ran, Duration) {
    let began = Instant::now();
    (run(tool, line), began.elapsed())
}

pub fn lookup(line: &str) -> Ran {
    run(p2psip::cli::lookup::run, line)
}

pub fn register(line: &str) -> Ran {
    run(p2psip::cli::register::run, line)
}

pub fn join(line: &str) -> Ran {
    run(p2psip::cli::join::run, line)
}

/// A tool that stays, running in a thread of this process.
pub struct Staying {
    signals: tokio::sync::mpsc::UnboundedSender<Signal>,
    lines: mpsc::Receiver<String>,
    thread: Option<JoinHandle<Ran>>,
}

impl Staying {
    pub fn start(tool: Run, line: &str) -> Self {
        let (signals, receiver) = tokio::sync::mpsc::unbounded_channel();
        let (sender, lines) = mpsc::channel();
        let words = words(line);
        let thread = std::thread::spawn(move || {
            let mut err = Vec::new();
            let mut out = Lines { sender, partial: Vec::new(), all: Vec::new() };
            let mut io = Io::captured(&mut out, &mut err);
            io.signals = Signals::Channel(receiver);
            let code = tool(words, &bare_env(), &mut io);
            Ran { code, out: String::from_utf8(out.all).unwrap(), err: String::from_utf8(err).unwrap() }
        });
        Self { signals, lines, thread: Some(thread) }
    }

    /// The next line on standard output.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => panic!("no line from {:#?}", self.end(Signal::Terminate)),
        }
    }

    /// The next line, if it comes soon enough.
    pub fn line_within(&mut self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }

    /// The next line as JSON.
    #[track_caller]
    pub fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = self.signals.send(signal);
    }

    /// Waits for a tool that ends by itself.
    pub fn wait(&mut self) -> Ran {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> Ran {
        self.signal(signal);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.signal(Signal::Terminate);
            let _ = thread.join();
        }
    }
}

/// Standard output that hands over each line when it is complete.
struct Lines {
    sender: mpsc::Sender<String>,
    partial: Vec<u8>,
    all: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.all.extend_from_slice(octets);
        self.partial.extend_from_slice(octets);
        while let Some(end) = self.partial.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            // Nobody has to read it.
            let _ = self.sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A process of a real binary, which is killed if it is still there at the end.
pub struct Process {
    child: Child,
    out: mpsc::Receiver<String>,
    err: JoinHandle<String>,
}

impl Process {
    pub fn start(binary: &str, line: &str) -> Self {
        let mut child = Command::new(binary)
            .args(words(line))
            .env_clear()
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, out) = mpsc::channel();
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in io::BufRead::lines(io::BufReader::new(stdout)).map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = io::Read::read_to_string(&mut stderr, &mut text);
            text
        });
        Self { child, out, err }
    }

    /// A member that has joined, and what it said then.
    #[track_caller]
    pub fn member(line: &str) -> (Self, serde_json::Value) {
        let process = Self::start(env!("CARGO_BIN_EXE_p2p-join"), &format!("--json {line}"));
        let said = process.out.recv_timeout(PATIENCE).unwrap_or_default();
        let joined: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        assert_eq!(joined["status"], "joined", "{said} {:#?}", process.kill());
        (process, joined)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it as nothing else does: it gets no chance to write anything down.
    pub fn kill(mut self) -> Ran {
        let _ = self.child.kill();
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ran {
        let status = self.child.wait().unwrap();
        let out: Vec<String> = self.out.iter().collect();
        let err = std::mem::replace(&mut self.err, std::thread::spawn(String::new)).join().unwrap();
        // A signal leaves no code.
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
        Ran { code, out: out.join("\n"), err }
    }

    /// The most memory that it has ever had, in octets.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where nobody listens, or nobody answers.
pub fn address_of(port: u16) -> String {
    let peer = SecretKey::generate().unwrap().peer_id();
    format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")
}

/// A port that is free now, and most likely stays so.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A listener that accepts connections and never says anything.
pub fn hanging() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = address_of(listener.local_addr().unwrap().port());
    (listener, address)
}

/// A folder for a test, of mode 0700. It goes with the value, or with the process.
pub fn folder() -> TempDir {
    static ALL: LazyLock<(PathBuf, Janitor)> = LazyLock::new(|| {
        let folder = tempfile::Builder::new().prefix("p2psip-").tempdir().unwrap().keep();
        let janitor = Janitor::of(&folder);
        (folder, janitor)
    });
    tempfile::Builder::new().prefix("").tempdir_in(&ALL.0).unwrap()
}

/// Removes a folder when this process has ended, in whatever way: a child process waits for the end of a pipe. Values
/// in statics are never dropped, and a process that is killed drops nothing.
struct Janitor {
    _child: Child,
}

impl Janitor {
    fn of(folder: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", "trap '' INT TERM HUP; cat >/dev/null; rm -rf -- \"$0\""])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self { _child: child.unwrap() }
    }
}
