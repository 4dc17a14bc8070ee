//! UDP: sockets that a thread may read and write itself, without a task or channel for each datagram.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;

use super::{
    FlowId, Hop, Protocol, SendError, Source,
    counters::{Counters, DropReason, count},
    undelivered::{self, Undelivered},
    unmapped,
};
use crate::sip::Message;

/// What is asked for as buffer of a socket; the kernel gives what `net.core.rmem_max` allows. The default holds a
/// fraction of a second of a busy proxy's datagrams.
const SOCKET_BUFFER: usize = 8 << 20;
/// The longest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// Datagrams that are skipped in one call: they keep a NAT binding alive, or are no SIP.
const MAX_SKIPPED: usize = 64;
/// How often one datagram is given to the kernel: each time it may answer with the error of another one.
const MAX_TRIES: usize = 8;
/// ICMP errors that are read before datagrams have their turn.
const ERRORS_AT_A_TIME: usize = 64;
/// ICMP errors that are read in a [`SPAN`]. Above it the socket hears of none until that is over: they would take the room
/// of datagrams, and who sends so many has forged them (RFC 1812 §4.3.2.8 has routers and hosts send few).
const MAX_ERRORS: usize = 1_000;
const SPAN: Duration = Duration::from_secs(1);
/// The octets 4 to 8 of a STUN message (RFC 8489 §5).
const STUN_COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();

/// A bound UDP socket. Cheap to clone; any thread may send on it.
#[derive(Debug, Clone)]
pub struct UdpPort {
    socket: Arc<std::net::UdpSocket>,
    local: SocketAddr,
    /// Whether it is an IPv6 socket that also carries IPv4.
    dual: bool,
    flow: FlowId,
    counters: Arc<Counters>,
}

impl UdpPort {
    /// Binds `shards` sockets to one address.
    pub(super) fn bind(
        address: SocketAddr,
        only_v6: bool,
        shards: usize,
        mut next_flow: impl FnMut() -> FlowId,
        counters: &Arc<Counters>,
    ) -> io::Result<Vec<Self>> {
        let mut ports = Vec::<Self>::with_capacity(shards);
        for _ in 0..shards {
            // The first one finds the port if any will do.
            let address = ports.first().map_or(address, |port| port.local);
            let socket = socket(address, only_v6, shards > 1)?;
            ports.push(Self {
                local: socket.local_addr()?,
                socket: Arc::new(socket),
                dual: address.ip().is_unspecified() && address.is_ipv6() && !only_v6,
                flow: next_flow(),
                counters: counters.clone(),
            });
        }
        Ok(ports)
    }

    /// The bound address.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The flow that this socket's datagrams have.
    pub const fn flow(&self) -> FlowId {
        self.flow
    }

    /// Octets of received datagrams that the kernel keeps for this socket.
    pub fn receive_buffer(&self) -> usize {
        SockRef::from(&*self.socket).recv_buffer_size().unwrap_or_default()
    }

    /// Whether datagrams to `remote` can leave from this socket.
    pub(super) fn reaches(&self, remote: SocketAddr) -> bool {
        remote.is_ipv4() == self.local.is_ipv4() || (self.dual && remote.is_ipv4())
    }

    /// Sends one datagram now. If the kernel's buffer is full it is lost, as datagrams may be, and counted. That nobody
    /// listens there is known only later: [`UdpReader::undelivered`].
    ///
    /// # Errors
    /// [`SendError`]: too long, or no way to the address that the kernel knows.
    pub fn try_send(&self, hop: &Hop, octets: &[u8]) -> Result<(), SendError> {
        let super::Remote::Socket(remote) = hop.remote else {
            return Err(SendError::NoSocket { hop: Box::new(hop.clone()) });
        };
        let remote = match remote {
            SocketAddr::V4(v4) if self.dual => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
            other => other,
        };
        match self.send_to(octets, remote) {
            Ok(_) => {
                count(&self.counters.traffic(Protocol::Udp).sent);
                Ok(())
            }
            Err(error) if is_passing(&error) || error.kind() == io::ErrorKind::ConnectionRefused => {
                self.counters.lose(DropReason::Unsent);
                Ok(())
            }
            Err(error) => {
                self.counters.lose(DropReason::Unsent);
                Err(if octets.len() > MAX_DATAGRAM - 28 {
                    SendError::TooLong { hop: Box::new(hop.clone()), octets: octets.len() }
                } else {
                    SendError::Unreachable { hop: Box::new(hop.clone()), why: error.to_string() }
                })
            }
        }
    }

    /// Sends a datagram. What ICMP said of earlier ones, to whomever they went, is told to whoever uses the socket next,
    /// and then the datagram has not been sent.
    fn send_to(&self, octets: &[u8], remote: SocketAddr) -> io::Result<usize> {
        let mut sent = self.socket.send_to(octets, remote);
        for _ in 1..MAX_TRIES {
            match sent {
                Err(ref error) if !is_passing(error) => sent = self.socket.send_to(octets, remote),
                _ => break,
            }
        }
        sent
    }

    /// What reads this socket, on the current runtime: that of the thread that will read.
    ///
    /// # Errors
    /// What the operating system says: no more file descriptors.
    pub fn reader(&self) -> io::Result<UdpReader> {
        let socket = tokio::net::UdpSocket::from_std(self.socket.try_clone()?)?;
        let buffer = vec![0; MAX_DATAGRAM].into_boxed_slice();
        Ok(UdpReader { port: self.clone(), socket, buffer, undelivered: VecDeque::new(), errors: (Instant::now(), 0) })
    }
}

/// Reads a [`UdpPort`]: `readable().await`, then `try_recv` until it says `None`.
#[derive(Debug)]
pub struct UdpReader {
    port: UdpPort,
    socket: tokio::net::UdpSocket,
    buffer: Box<[u8]>,
    undelivered: VecDeque<Undelivered>,
    /// When the present span of ICMP errors began, and how many there were in it.
    errors: (Instant, usize),
}

impl UdpReader {
    /// The socket.
    pub const fn port(&self) -> &UdpPort {
        &self.port
    }

    /// Waits until there may be a datagram, or news of one of ours ([`UdpReader::undelivered`]).
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn readable(&mut self) -> io::Result<()> {
        let ready = self.socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() || self.is_deaf() {
            self.read_errors();
        }
        Ok(())
    }

    /// The next datagram of ours of which it was learned that it did not arrive. What is not asked for until there may be
    /// a datagram again is forgotten.
    pub fn undelivered(&mut self) -> Option<Undelivered> {
        self.undelivered.pop_front()
    }

    fn read_errors(&mut self) {
        self.undelivered.clear();
        let now = Instant::now();
        if now.saturating_duration_since(self.errors.0) >= SPAN {
            if self.is_deaf() {
                self.listen_to_errors(true);
            }
            self.errors = (now, 0);
        }
        for _ in 0..ERRORS_AT_A_TIME {
            match self.socket.try_io(Interest::ERROR, || undelivered::next(&self.port.socket)) {
                Ok(Some(error)) => {
                    self.port.counters.lose(DropReason::Undelivered);
                    self.undelivered.push_back(error);
                }
                Ok(None) => {}
                Err(_) => return,
            }
            self.errors.1 += 1;
            if self.errors.1 == MAX_ERRORS {
                self.listen_to_errors(false);
            }
        }
    }

    const fn is_deaf(&self) -> bool {
        self.errors.1 >= MAX_ERRORS
    }

    fn listen_to_errors(&self, whether: bool) {
        // It has worked before.
        let _ = undelivered::listen(&self.port.socket, self.port.local.is_ipv6(), whether);
    }

    /// The next datagram; `None` if there is none now. Those that only keep a NAT binding alive are skipped.
    pub fn try_recv(&mut self) -> Option<(Bytes, Source)> {
        for _ in 0..MAX_SKIPPED {
            let (length, remote) = match self.socket.try_recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // What an earlier datagram met with.
                Err(_) => continue,
            };
            let octets = self.buffer.get(..length).unwrap_or_default();
            if !is_keep_alive(octets) {
                count(&self.port.counters.traffic(Protocol::Udp).received);
                let source = Source::socket(Protocol::Udp, remote, self.port.local, self.port.flow);
                return Some((Bytes::copy_from_slice(octets), source));
            }
        }
        None
    }

    /// As [`UdpReader::try_recv`], but read as a message; what is none is counted and skipped.
    pub fn try_message(&mut self) -> Option<(Message, Source)> {
        for _ in 0..MAX_SKIPPED {
            let (octets, source) = self.try_recv()?;
            match Message::parse(octets) {
                Ok(message) => return Some((message, source)),
                Err(_) => self.port.counters.lose(DropReason::Malformed),
            }
        }
        None
    }
}

fn socket(address: SocketAddr, only_v6: bool, shared: bool) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    // Less than this is granted without an error, and works.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let socket = socket.into();
    undelivered::listen(&socket, address.is_ipv6(), true)?;
    Ok(socket)
}

/// Whether a datagram may just as well be sent a moment later.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether a datagram is only there to keep a NAT binding alive: CRLFs, zeros, nothing, or STUN (RFC 5626 §4.4.2).
fn is_keep_alive(octets: &[u8]) -> bool {
    match octets.first() {
        None => true,
        Some(0..=3) => octets.get(4..8) == Some(&STUN_COOKIE) || octets.iter().all(|octet| *octet == 0),
        Some(b'\r' | b'\n' | b' ') => octets.iter().all(u8::is_ascii_whitespace),
        Some(_) => false,
    }
}

/// The socket among `ports` that sends to a hop: the one of its flow, the one it asks for, or the first that reaches it.
pub(super) fn choose<'a>(ports: &'a [UdpPort], hop: &Hop) -> Option<&'a UdpPort> {
    let super::Remote::Socket(remote) = hop.remote else { return None };
    let mut usable = ports.iter().filter(|port| port.reaches(remote));
    // Of the first that fits in most respects.
    let fit = |port: &&UdpPort| {
        let by_flow = hop.flow == Some(port.flow);
        let by_address = hop.local.is_some_and(|local| unmapped(port.local) == unmapped(local));
        let by_scope = port.local.ip().is_loopback() == remote.ip().is_loopback();
        (by_flow, by_address, by_scope)
    };
    let first = usable.next()?;
    Some(usable.fold(first, |best, port| if fit(&port) > fit(&best) { port } else { best }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(address: &str, shards: usize) -> Vec<UdpPort> {
        let mut flow = 0;
        let next = || {
            flow += 1;
            FlowId(flow)
        };
        UdpPort::bind(address.parse().unwrap(), false, shards, next, &Arc::default()).unwrap()
    }

    async fn receive(reader: &mut UdpReader) -> (Bytes, Source) {
        let received = async {
            loop {
                reader.readable().await.unwrap();
                if let Some(received) = reader.try_recv() {
                    return received;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), received).await.unwrap()
    }

    #[tokio::test]
    async fn datagrams_come_with_their_source_and_keep_alives_do_not_come() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (here, there) = (bind(address, 1).remove(0), bind(address, 1).remove(0));
            let mut reader = here.reader().unwrap();
            let hop = Hop::socket(Protocol::Udp, here.local());
            let mut stun = vec![0, 1, 0, 0];
            stun.extend(STUN_COOKIE);
            stun.extend([7; 12]);
            for ignored in [&b""[..], b"\r\n", b"\r\n\r\n", b"\0", b"\0\0\0\0", &stun] {
                there.try_send(&hop, ignored).unwrap();
            }
            there.try_send(&hop, b"OPTIONS").unwrap();
            let (octets, source) = receive(&mut reader).await;
            assert_eq!(octets, "OPTIONS");
            assert_eq!(source, Source::socket(Protocol::Udp, there.local(), here.local(), here.flow()));
            here.try_send(&source.way_back(), b"200").unwrap();
            assert_eq!(receive(&mut there.reader().unwrap()).await.0, "200");
        }
    }

    #[tokio::test]
    async fn a_socket_for_both_families_shows_ipv4_as_ipv4() {
        let (here, there) = (bind("[::]:0", 1).remove(0), bind("127.0.0.1:0", 1).remove(0));
        let to = SocketAddr::from(([127, 0, 0, 1], here.local().port()));
        there.try_send(&Hop::socket(Protocol::Udp, to), b"OPTIONS").unwrap();
        let (_, source) = receive(&mut here.reader().unwrap()).await;
        assert_eq!(source.remote, Hop::socket(Protocol::Udp, there.local()).remote);
        here.try_send(&source.way_back(), b"200").unwrap();
        assert_eq!(receive(&mut there.reader().unwrap()).await.0, "200");
    }

    #[tokio::test]
    async fn one_source_always_comes_to_the_same_shard() {
        let shards = bind("127.0.0.1:0", 2);
        assert_eq!(shards[0].local(), shards[1].local());
        let mut readers = shards.iter().map(|shard| shard.reader().unwrap()).collect::<Vec<_>>();
        let hop = Hop::socket(Protocol::Udp, shards[0].local());
        let senders = (0..32).map(|_| bind("127.0.0.1:0", 1).remove(0)).collect::<Vec<_>>();
        for sender in senders.iter().chain(&senders) {
            sender.try_send(&hop, b"OPTIONS").unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut seen = Vec::new();
        for reader in &mut readers {
            let mut sources = Vec::new();
            while let Some((_, source)) = reader.try_recv() {
                sources.push(source.remote);
            }
            sources.sort();
            assert!(sources.chunks(2).all(|pair| pair[0] == pair[1]), "{sources:?}");
            seen.push(sources.len());
        }
        assert_eq!(seen.iter().sum::<usize>(), 64);
        assert!(!seen.contains(&0), "{seen:?}");
    }

    /// An address where nobody listens.
    fn closed(ip: &str) -> Hop {
        let socket = std::net::UdpSocket::bind((ip, 0)).unwrap();
        Hop::socket(Protocol::Udp, socket.local_addr().unwrap())
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn that_nobody_listens_is_learned_with_what_was_sent_there() {
        for (address, there) in
            [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")]
        {
            let here = bind(address, 1).remove(0);
            let mut reader = here.reader().unwrap();
            let hop = closed(there);
            let long = "INVITE ".repeat(150);
            here.try_send(&hop, long.as_bytes()).unwrap();
            tokio::time::timeout(Duration::from_secs(5), reader.readable()).await.unwrap().unwrap();
            let Undelivered { remote, why, quoted } = reader.undelivered().unwrap();
            assert_eq!(super::super::Remote::Socket(remote), hop.remote, "{address}");
            assert!(why.starts_with("nobody listens there"), "{address}: {why}");
            assert!(quoted.len() >= 500 && long.as_bytes().starts_with(&quoted), "{address}: {quoted:?}");
            assert_eq!((reader.undelivered(), here.counters.dropped(DropReason::Undelivered)), (None, 1));
            // Whoever waits on waits in peace.
            reader.try_recv();
            assert!(tokio::time::timeout(Duration::from_millis(50), reader.readable()).await.is_err(), "{address}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_flood_of_icmp_is_heard_of_no_longer_than_it_is_one() {
        let (here, there) = (bind("127.0.0.1:0", 1).remove(0), bind("127.0.0.1:0", 1).remove(0));
        let (mut reader, dead, own) =
            (here.reader().unwrap(), closed("127.0.0.1"), Hop::socket(Protocol::Udp, here.local()));
        let heard = || usize::try_from(here.counters.dropped(DropReason::Undelivered)).unwrap();
        let began = Instant::now();
        for n in 0..5 * MAX_ERRORS {
            here.try_send(&dead, b"INVITE").unwrap();
            if n % 50 == 0 {
                there.try_send(&own, b"200").unwrap();
                assert_eq!(receive(&mut reader).await.0, "200");
                assert_eq!(reader.try_recv(), None);
            }
        }
        if began.elapsed() < SPAN {
            assert_eq!(heard(), MAX_ERRORS);
        }
        tokio::time::sleep(SPAN).await;
        there.try_send(&own, b"200").unwrap();
        assert_eq!(receive(&mut reader).await.0, "200");
        assert_eq!(reader.try_recv(), None);
        let before = heard();
        here.try_send(&dead, b"INVITE").unwrap();
        tokio::time::timeout(Duration::from_secs(5), reader.readable()).await.unwrap().unwrap();
        assert!(reader.undelivered().is_some());
        assert_eq!(heard(), before + 1);
    }

    #[tokio::test]
    async fn others_are_not_blamed_for_a_port_where_nobody_listens() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (here, there) = (bind(address, 1).remove(0), bind(address, 1).remove(0));
            let (dead, alive) = (closed(&here.local().ip().to_string()), Hop::socket(Protocol::Udp, there.local()));
            let (mut reader, mut other) = (here.reader().unwrap(), there.reader().unwrap());
            for _ in 0..300 {
                // On loopback the answer is there when the call returns.
                here.try_send(&dead, b"INVITE").unwrap();
                here.try_send(&alive, b"OPTIONS").unwrap();
            }
            there.try_send(&Hop::socket(Protocol::Udp, here.local()), b"200").unwrap();
            assert_eq!(receive(&mut reader).await.0, "200", "a flood of errors hides no datagram");
            for n in 0..300 {
                assert_eq!(receive(&mut other).await.0, "OPTIONS", "{n}");
            }
            assert_eq!(here.counters.dropped(DropReason::Unsent), 0);
        }
    }

    #[test]
    fn a_datagram_that_cannot_leave_is_an_error() {
        let port = bind("127.0.0.1:0", 1).remove(0);
        let hop = Hop::socket(Protocol::Udp, port.local());
        assert!(matches!(port.try_send(&hop, &[b'x'; 65_530]), Err(SendError::TooLong { .. })));
        let far = Hop::socket(Protocol::Udp, "[2001:db8::1]:5060".parse().unwrap());
        assert!(matches!(port.try_send(&far, b"x"), Err(SendError::Unreachable { .. })));
        assert_eq!(port.counters.dropped(DropReason::Unsent), 2);
        assert!(port.receive_buffer() >= 200_000, "{}", port.receive_buffer());
    }

    #[test]
    fn the_socket_that_a_hop_asks_for_is_chosen() {
        let ports = [bind("127.0.0.1:0", 2), bind("[::1]:0", 1)].concat();
        let to = |address: &str| Hop::socket(Protocol::Udp, address.parse().unwrap());
        let chosen = |hop: &Hop| choose(&ports, hop).map(UdpPort::local);
        assert_eq!(chosen(&to("127.0.0.1:9")), Some(ports[0].local()));
        assert_eq!(chosen(&to("[::1]:9")), Some(ports[2].local()));
        let more = bind("127.0.0.1:0", 1).remove(0);
        let all = [&ports[..], std::slice::from_ref(&more)].concat();
        let asked = Hop { local: Some(more.local()), ..to("127.0.0.1:9") };
        assert_eq!(choose(&all, &asked).map(UdpPort::local), Some(more.local()));
        assert_eq!(choose(&ports[2..], &to("192.0.2.1:9")).map(UdpPort::local), None);
    }
}
