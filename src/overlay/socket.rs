//! The client protocol over a member's unix socket: the same frames, without libp2p.
//!
//! The socket lies in a folder of mode 0700, and a member asks the kernel who is at the other end: only its own user
//! is served (R16; a program of the same user is the user).

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::io::Errno;
use serde::{Serialize, de::DeserializeOwned};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, broadcast},
    task::{JoinHandle, JoinSet},
};

use crate::{
    client::{
        Call, CodecError, ErrorReply, Event, Events, EventsReply, MAX_FRAME, MAX_REQUEST, RequestFrame, ResponseFrame,
        decode, frame_length, framed,
    },
    kind::Kind,
    overlay::{Answer, Caller, Responder},
};

/// Programs that may be attached at a time.
const MAX_ATTACHED: usize = 256;
/// The longest path that a unix socket can have (`sun_path`, less the final NUL).
const MAX_PATH: usize = 107;
/// How long it may take to find out whether anybody listens at a socket.
const ALIVE: Duration = Duration::from_secs(1);
/// How long a program may take to send the rest of a frame that it has begun.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a unix socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody listens there.
    #[error("no member listens at {path}: {why}; start one with p2p-join")]
    Absent {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        why: io::Error,
    },
    /// The socket cannot be created.
    #[error("cannot create the socket {path}: {why}")]
    Create {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// The connection broke.
    #[error("the member at {path} hung up: {why}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        why: io::Error,
    },
    /// The member answered that it will not serve this.
    #[error("the member refused: {0}")]
    Refused(ErrorReply),
    /// What was to be sent or came is not a frame.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The socket belongs to somebody else.
    #[error("the socket {path} belongs to user {uid}, not to you; give another with --socket")]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// The other user.
        uid: u32,
    },
}

impl SocketError {
    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Absent { .. } | Self::Broken { .. } | Self::Codec(_) => Kind::Unreachable,
            Self::Create { .. } => Kind::Local,
            Self::Foreign { .. } => Kind::Untrusted,
            Self::Refused(reply) => reply.kind(),
        }
    }
}

/// A connection to a member's unix socket.
#[derive(Debug)]
pub struct SocketClient {
    stream: UnixStream,
    path: PathBuf,
    /// Whether a request was sent whose reply has not been read to its end.
    awaiting: bool,
}

impl SocketClient {
    /// Connects, and checks that the member is run by the same user.
    ///
    /// # Errors
    /// [`SocketError::Absent`], [`SocketError::Foreign`].
    pub async fn connect(path: &Path) -> Result<Self, SocketError> {
        let absent = |why| SocketError::Absent { path: path.to_owned(), why };
        let stream = connect_now(path).map_err(absent)?;
        let uid = stream.peer_cred().map_err(absent)?.uid();
        if uid != own_uid() {
            return Err(SocketError::Foreign { path: path.to_owned(), uid });
        }
        Ok(Self { stream, path: path.to_owned(), awaiting: false })
    }

    /// Sends a request and waits for its reply. The caller bounds the time.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn call<C: Call>(&mut self, call: &C) -> Result<C::Reply, SocketError> {
        self.send(call).await?;
        self.receive::<C>().await
    }

    /// Sends a request whose reply [`SocketClient::receive`] returns. If the reply to an earlier one was never
    /// waited for, a new connection is made first.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn send<C: Call>(&mut self, call: &C) -> Result<(), SocketError> {
        if self.awaiting {
            // Somebody gave up waiting: the late reply must not be taken for that to this request.
            *self = Self::connect(&self.path).await?;
        }
        let octets = framed(&RequestFrame::of(call)?, C::SERVICE)?;
        self.awaiting = true;
        // As a rule there is room for all of it, and it is sent before the event loop has heard of the socket.
        let sent = match rustix::io::write(&self.stream, &octets) {
            Ok(sent) => sent,
            Err(Errno::WOULDBLOCK | Errno::INTR) => 0,
            Err(why) => return Err(self.broken(why.into())),
        };
        let rest = octets.get(sent..).unwrap_or_default();
        self.stream.write_all(rest).await.map_err(|why| self.broken(why))
    }

    /// Waits for the reply to what was sent.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn receive<C: Call>(&mut self) -> Result<C::Reply, SocketError> {
        let response: ResponseFrame = match read(&mut self.stream, MAX_FRAME, "response").await {
            Ok(Some(response)) => response,
            Ok(None) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Err(why) => return Err(self.broken(why)),
        };
        self.awaiting = false;
        response.reply::<C>().map_err(SocketError::Refused)
    }

    fn broken(&self, why: io::Error) -> SocketError {
        SocketError::Broken { path: self.path.clone(), why }
    }

    /// The next event, after a call of [`Events`]; `None` when the member hangs up.
    ///
    /// # Errors
    /// [`SocketError::Broken`].
    pub async fn next_event(&mut self) -> Result<Option<Event>, SocketError> {
        read(&mut self.stream, MAX_FRAME, "event")
            .await
            .map_err(|why| SocketError::Broken { path: self.path.clone(), why })
    }
}

/// A listening unix socket; it is removed when this is dropped.
#[derive(Debug)]
pub struct SocketServer {
    path: PathBuf,
    /// Which file it was when it was made.
    file: Option<(u64, u64)>,
    task: JoinHandle<()>,
}

impl SocketServer {
    /// Listens at `path`. The folder must exist and be closed to others; a socket left behind by a member that died
    /// is replaced, and nothing else is.
    ///
    /// # Errors
    /// [`SocketError::Create`].
    pub async fn start(
        path: &Path,
        responder: Arc<dyn Responder>,
        events: broadcast::Sender<Event>,
    ) -> Result<Self, SocketError> {
        let create = |why: String| SocketError::Create { path: path.to_owned(), why };
        if path.as_os_str().len() > MAX_PATH {
            return Err(create(format!("the path is longer than {MAX_PATH} bytes; give a shorter one with --socket")));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mode = std::fs::metadata(folder).map_err(|error| create(error.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            let folder = folder.display();
            return Err(create(format!("others may enter its folder; run chmod 700 {folder}")));
        }
        make_room(path).await.map_err(create)?;
        let listener = UnixListener::bind(path).map_err(|error| create(error.to_string()))?;
        let uid = own_uid();
        let task = tokio::spawn(accept(listener, uid, responder, events));
        Ok(Self { path: path.to_owned(), file: identity(path), task })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketServer {
    fn drop(&mut self) {
        self.task.abort();
        // What somebody else has put there is not ours to remove.
        if self.file.is_some() && self.file == identity(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Connects without a turn of the event loop: to a unix socket one is connected at once, or not at all. What is sent at
/// once too is there when the member looks who has come.
fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    UnixStream::from_std(OwnedFd::from(socket).into())
}

/// The device and number of a file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Removes a socket at which nobody listens any more.
async fn make_room(path: &Path) -> Result<(), String> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(file) if !file.file_type().is_socket() => {
            return Err("something that is no socket is there; give another with --socket".to_owned());
        }
        Ok(_) => {}
    }
    match tokio::time::timeout(ALIVE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| error.to_string())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(_)) | Err(_) => Err("a member listens there already; give this one another with --socket".to_owned()),
    }
}

async fn accept(listener: UnixListener, uid: u32, responder: Arc<dyn Responder>, events: broadcast::Sender<Event>) {
    let room = Arc::new(Semaphore::new(MAX_ATTACHED));
    let mut attached = JoinSet::new();
    loop {
        while attached.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let same_user = stream.peer_cred().is_ok_and(|credentials| credentials.uid() == uid);
                if same_user {
                    let (responder, events) = (responder.clone(), events.clone());
                    attached.spawn(async move {
                        serve(stream, responder, events).await;
                        drop(permit);
                    });
                }
            }
            // Out of file descriptors, most likely: wait until some are free again.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve(mut stream: UnixStream, responder: Arc<dyn Responder>, events: broadcast::Sender<Event>) {
    // A frame that cannot be read ends the connection: what follows it could not be told apart.
    while let Ok(Some(frame)) = read::<RequestFrame, _>(&mut stream, MAX_REQUEST, "request").await {
        if frame.service == Events::SERVICE {
            let follower = events.subscribe();
            if write(&mut stream, &ResponseFrame::of::<Events>(Ok(&EventsReply {}))).await.is_ok() {
                follow(stream, follower).await;
            }
            return;
        }
        let response = match responder.respond(Caller::Local, frame) {
            Answer::Now(response) => response,
            Answer::Later(future) => future.await,
        };
        if write(&mut stream, &response).await.is_err() {
            return;
        }
    }
}

/// Sends events until the other side hangs up.
async fn follow(stream: UnixStream, mut events: broadcast::Receiver<Event>) {
    let (mut reading, mut writing) = stream.into_split();
    let mut ignored = [0; 16];
    loop {
        let event = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(dropped)) => Event::Lagged { dropped },
                Err(broadcast::error::RecvError::Closed) => return,
            },
            read = reading.read(&mut ignored) => match read {
                Ok(1..) => continue,
                Ok(0) | Err(_) => return,
            },
        };
        if write(&mut writing, &event).await.is_err() {
            return;
        }
    }
}

async fn write<T: Serialize>(io: &mut (impl AsyncWrite + Unpin), value: &T) -> io::Result<()> {
    io.write_all(&framed(value, "frame").map_err(io::Error::other)?).await
}

/// Reads one frame; `None` at a clean end. It may take any time to begin, but not to end.
async fn read<T, R>(io: &mut R, limit: usize, what: &'static str) -> io::Result<Option<T>>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin,
{
    let mut length = [0; 4];
    if io.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    let rest = async {
        io.read_exact(&mut length[1..]).await?;
        let length = frame_length(length, limit).map_err(io::Error::other)?;
        // The buffer grows with what arrives, not with what the other side announces.
        let mut octets = Vec::with_capacity(length.min(4096));
        io.take(length as u64).read_to_end(&mut octets).await?;
        if octets.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decode(&octets, what).map_err(io::Error::other)
    };
    tokio::time::timeout(FRAME_TIMEOUT, rest).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(Some)
}

/// The user that runs this process, as the kernel tells others of it.
fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{Closest, ClosestReply, PeerInfo},
        name::{PeerId, Position},
    };

    /// Answers with as many peers as were asked for, the more quickly the more they are.
    struct Slow;

    impl Responder for Slow {
        fn respond(&self, _: Caller, frame: RequestFrame) -> Answer {
            Answer::Later(Box::pin(async move {
                let count = frame.call::<Closest>().unwrap().count;
                tokio::time::sleep(Duration::from_millis(400 / u64::from(count))).await;
                let peer = PeerInfo { peer: PeerId::from_public_key([1; 32]), addresses: vec![] };
                ResponseFrame::of::<Closest>(Ok(&ClosestReply { peers: vec![peer; count.into()] }))
            }))
        }
    }

    #[tokio::test]
    async fn the_socket_of_a_member_that_lives_is_not_taken_over_and_no_other_file_is_removed() {
        let folder = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o700)).tempdir().unwrap();
        let path = folder.path().join("member.sock");
        let start = || SocketServer::start(&path, Arc::new(Slow), broadcast::channel(1).0);
        std::fs::write(&path, "precious").unwrap();
        assert!(start().await.unwrap_err().to_string().contains("no socket is there"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
        let first = start().await.unwrap();
        assert!(start().await.unwrap_err().to_string().contains("a member listens there already"));
        assert!(SocketClient::connect(&path).await.is_ok());
        // One that died leaves its socket, and whoever comes next replaces it; what is not its own stays.
        std::fs::remove_file(&path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = start().await.unwrap();
        drop(first);
        assert!(SocketClient::connect(&path).await.is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_reply_that_comes_too_late_is_not_taken_for_the_next_one() {
        let folder = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o700)).tempdir().unwrap();
        let path = folder.path().join("member.sock");
        let _server = SocketServer::start(&path, Arc::new(Slow), broadcast::channel(1).0).await.unwrap();
        let mut client = SocketClient::connect(&path).await.unwrap();
        let ask = |count| Closest { target: Position::of_name("sip:alice@p2psip.org"), count };
        let late = tokio::time::timeout(Duration::from_millis(50), client.call(&ask(1))).await;
        assert!(late.is_err());
        assert_eq!(client.call(&ask(8)).await.unwrap().peers.len(), 8);
        assert_eq!(client.call(&ask(4)).await.unwrap().peers.len(), 4);
    }
}
