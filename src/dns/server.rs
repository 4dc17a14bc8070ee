//! A small authoritative name server: the DNS of the lab's world, and the other end of tests.
//!
//! It answers over UDP and TCP on one port from zones in memory, which can change while it runs. NXDOMAIN and NODATA
//! carry the zone's SOA (RFC 2308 §2), names outside of its zones are REFUSED, zone transfers too. Holders of a zone's
//! keys may change what the keys allow by UPDATE (RFC 2136) with TSIG (RFC 8945); a zone without keys answers NOTIMP. It
//! is built for loopback: it limits neither senders nor connections.

mod policy;
mod update;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::{LowerName, Name, RData, RecordSet, RecordType, RrKey, rdata};
use hickory_server::{
    Server,
    net::runtime::TokioRuntimeProvider,
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType},
};
use tokio::net::{TcpListener, UdpSocket};

pub use self::policy::Grant;
use self::{policy::KeyPolicy, update::Handler};
use super::{DnsError, RrSet, TsigKey, invalid, rrset::parse_name};

/// How long an idle TCP connection stays open.
const TCP_IDLE: Duration = Duration::from_secs(5);
/// How many responses may wait for a slow TCP client.
const TCP_BACKLOG: usize = 32;
/// How often a free port is sought that is free for UDP and TCP.
const PORT_ATTEMPTS: usize = 16;
/// How long the tasks may take to end.
const STOP: Duration = Duration::from_secs(1);
/// How long, in seconds, caches may keep a record unless the zone says otherwise.
const DEFAULT_TTL: u32 = 30;
/// How long, in seconds, caches may remember that there is no such record (RFC 2308 §4), at most.
const NEGATIVE_TTL: u32 = 5;

type Records = BTreeMap<RrKey, Arc<RecordSet>>;

/// A zone: an origin and the record sets below it.
#[derive(Debug, Clone)]
pub struct Zone {
    origin: Name,
    ttl: u32,
    records: Records,
    keys: Vec<KeyPolicy>,
}

impl Zone {
    /// A zone with an SOA and one name server, `ns1` below the origin, which gets the address on which the zone is
    /// served later unless it is given another one.
    ///
    /// # Errors
    /// [`DnsError::Invalid`] if the origin is no domain name, or too long to have a name below it.
    pub fn new(origin: &str) -> Result<Self, DnsError> {
        let mut zone = Self { origin: parse_name(origin)?, ttl: DEFAULT_TTL, records: Records::new(), keys: vec![] };
        let (ns, hostmaster) = (zone.below("ns1")?, zone.below("hostmaster")?);
        let soa = rdata::SOA::new(ns.clone(), hostmaster, 1, 3600, 600, 86_400, NEGATIVE_TTL);
        let origin = zone.origin.clone();
        put(&mut zone.records, &origin, RecordType::SOA, zone.ttl, vec![RData::SOA(soa)]);
        put(&mut zone.records, &origin, RecordType::NS, zone.ttl, vec![RData::NS(rdata::NS(ns))]);
        Ok(zone)
    }

    /// Sets how long caches may keep the records that are added from here on.
    #[must_use]
    pub fn with_ttl(mut self, seconds: u32) -> Self {
        self.ttl = seconds;
        self
    }

    /// Adds a record set, in place of the one of its type that the name has had.
    ///
    /// # Errors
    /// [`DnsError::Invalid`] for a name outside of the zone and for data that does not fit the DNS.
    pub fn with(mut self, name: &str, set: &RrSet) -> Result<Self, DnsError> {
        let name = inside(&self.origin, name)?;
        put(&mut self.records, &name, set.record_type(), self.ttl, set.to_rdata()?);
        Ok(self)
    }

    /// Lets the holders of a key change what is granted to it, but never the SOA and the name servers.
    #[must_use]
    pub fn with_key(mut self, key: TsigKey, grants: Vec<Grant>) -> Self {
        self.keys.push(KeyPolicy { key, grants });
        self
    }

    fn below(&self, label: &str) -> Result<Name, DnsError> {
        let shown = self.origin.to_ascii();
        Name::from_ascii(label)
            .and_then(|name| name.append_domain(&self.origin))
            .map_err(|_| invalid(&shown, "it is too long for the origin of a zone"))
    }

    /// Gives the name server an address if it has none.
    fn served_on(&mut self, address: IpAddr) -> Result<(), DnsError> {
        let name = self.below("ns1")?;
        let has = |kind| self.records.contains_key(&RrKey::new(LowerName::new(&name), kind));
        if has(RecordType::A) || has(RecordType::AAAA) || address.is_unspecified() {
            return Ok(());
        }
        let set = match address {
            IpAddr::V4(address) => RrSet::A(vec![address]),
            IpAddr::V6(address) => RrSet::Aaaa(vec![address]),
        };
        put(&mut self.records, &name, set.record_type(), self.ttl, set.to_rdata()?);
        Ok(())
    }
}

/// Parses a name that must lie in a zone.
fn inside(origin: &Name, name: &str) -> Result<Name, DnsError> {
    let parsed = parse_name(name)?;
    if origin.zone_of(&parsed) { Ok(parsed) } else { Err(invalid(name, "it is not a name in the zone")) }
}

/// Replaces a record set; no data means that there is none.
fn put(records: &mut Records, name: &Name, kind: RecordType, ttl: u32, data: Vec<RData>) {
    let key = RrKey::new(LowerName::new(name), kind);
    if data.is_empty() {
        records.remove(&key);
        return;
    }
    let mut set = RecordSet::with_ttl(name.clone(), kind, ttl);
    for data in data {
        set.add_rdata(data);
    }
    records.insert(key, Arc::new(set));
}

/// A running name server. It stops when it is dropped, and at once with [`DnsServer::stop`].
pub struct DnsServer {
    server: Server<Handler>,
    address: SocketAddr,
    zones: Arc<Vec<Served>>,
}

/// A zone that is being served.
struct Served {
    origin: Name,
    ttl: u32,
    handler: Arc<InMemoryZoneHandler<TokioRuntimeProvider>>,
    keys: Vec<KeyPolicy>,
}

impl DnsServer {
    /// Serves zones on an address; port 0 takes one that is free for UDP and TCP.
    ///
    /// # Errors
    /// [`DnsError::Listen`] if the address cannot be had; [`DnsError::Invalid`] if two zones have one origin.
    pub async fn start(listen: SocketAddr, zones: Vec<Zone>) -> Result<Self, DnsError> {
        let (udp, tcp, address) = bind(listen).await.map_err(|cause| DnsError::Listen { address: listen, cause })?;
        let mut catalog = Catalog::new();
        let mut served = Vec::with_capacity(zones.len());
        for mut zone in zones {
            zone.served_on(address.ip())?;
            let origin = LowerName::new(&zone.origin);
            if catalog.contains(&origin) {
                return Err(invalid(&zone.origin.to_ascii(), "two zones have that origin"));
            }
            let mut handler =
                InMemoryZoneHandler::empty(zone.origin.clone(), ZoneType::Primary, AxfrPolicy::Deny, None);
            *handler.records_get_mut() = zone.records;
            let handler = Arc::new(handler);
            catalog.upsert(origin, vec![handler.clone() as Arc<dyn ZoneHandler>]);
            served.push(Served { origin: zone.origin, ttl: zone.ttl, handler, keys: zone.keys });
        }
        let served = Arc::new(served);
        let mut server = Server::new(Handler { catalog, zones: served.clone() });
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_BACKLOG);
        Ok(Self { server, address, zones: served })
    }

    /// Where the server listens; never port 0.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces a record set while the server runs; an empty one removes it. Caches may keep the old one for its TTL.
    ///
    /// # Errors
    /// [`DnsError::Invalid`] for a name outside of all zones and for data that does not fit the DNS.
    pub async fn set(&self, name: &str, set: &RrSet) -> Result<(), DnsError> {
        let parsed = parse_name(name)?;
        let data = set.to_rdata()?;
        let zone = self
            .zones
            .iter()
            .filter(|zone| zone.origin.zone_of(&parsed))
            .max_by_key(|zone| zone.origin.num_labels())
            .ok_or_else(|| invalid(name, "the server has no zone for it"))?;
        let mut records = zone.handler.records_mut().await;
        put(&mut records, &parsed, set.record_type(), zone.ttl, data);
        bump_serial(&mut records, &zone.origin);
        Ok(())
    }

    /// [`DnsServer::set`] for TXT records.
    ///
    /// # Errors
    /// As [`DnsServer::set`].
    pub async fn set_txt(&self, name: &str, values: &[&str]) -> Result<(), DnsError> {
        self.set(name, &RrSet::Txt(values.iter().map(|&value| value.to_owned()).collect())).await
    }

    /// Stops the server. When this returns, its port is free and no task of it is left.
    pub async fn stop(mut self) {
        // The tasks end on their own; dropping the server afterwards would abort any that did not.
        let _ = tokio::time::timeout(STOP, self.server.shutdown_gracefully()).await;
    }
}

impl std::fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let origins: Vec<_> = self.zones.iter().map(|zone| zone.origin.to_ascii()).collect();
        f.debug_struct("DnsServer").field("address", &self.address).field("zones", &origins).finish()
    }
}

/// Counts a change of the zone, as secondaries and people expect (RFC 1035 §3.3.13; it may wrap, RFC 1982).
fn bump_serial(records: &mut Records, origin: &Name) {
    let key = RrKey::new(LowerName::new(origin), RecordType::SOA);
    let Some(record) = records.get(&key).and_then(|set| set.record()) else { return };
    if let RData::SOA(soa) = &record.data {
        let ttl = record.ttl;
        let mut soa = soa.clone();
        soa.serial = soa.serial.wrapping_add(1);
        put(records, origin, RecordType::SOA, ttl, vec![RData::SOA(soa)]);
    }
}

/// Binds UDP and TCP to one port. A free one for TCP may be taken for UDP: then another is tried.
async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let mut attempts = if listen.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let tcp = TcpListener::bind(listen).await?;
        let address = tcp.local_addr()?;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok((udp, tcp, address)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::{
        dns::{Naptr, Srv},
        kind::Kind,
    };

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    async fn serve(sets: &[(&str, RrSet)]) -> DnsServer {
        let zone =
            sets.iter().fold(Zone::new("p2psip.org").unwrap(), |zone, (name, set)| zone.with(name, set).unwrap());
        DnsServer::start(loopback(), vec![zone]).await.unwrap()
    }

    fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        message
    }

    async fn over_udp(server: &DnsServer, request: &Message) -> Message {
        let socket = UdpSocket::bind(loopback()).await.unwrap();
        socket.send_to(&request.to_vec().unwrap(), server.address()).await.unwrap();
        let mut buffer = [0; 65_535];
        let length = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.unwrap().unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    async fn over_tcp(server: &DnsServer, request: &Message) -> Message {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let octets = request.to_vec().unwrap();
        stream.write_u16(octets.len() as u16).await.unwrap();
        stream.write_all(&octets).await.unwrap();
        let mut buffer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut buffer).await.unwrap();
        Message::from_vec(&buffer).unwrap()
    }

    #[tokio::test]
    async fn every_type_is_served_with_authority() {
        let sets = [
            ("proxy.p2psip.org", RrSet::A(vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()])),
            ("proxy.p2psip.org", RrSet::Aaaa(vec!["2001:db8::1".parse().unwrap()])),
            ("p2psip.org", RrSet::Txt(vec!["x".repeat(600)])),
            (
                "_sip._udp.p2psip.org",
                RrSet::Srv(vec![Srv { priority: 1, weight: 2, port: 5060, target: "proxy.p2psip.org".into() }]),
            ),
            (
                "p2psip.org",
                RrSet::Naptr(vec![Naptr {
                    order: 10,
                    preference: 20,
                    flags: "s".into(),
                    services: "SIP+D2U".into(),
                    regexp: String::new(),
                    replacement: "_sip._udp.p2psip.org".into(),
                }]),
            ),
        ];
        let server = serve(&sets).await;
        for (name, set) in &sets {
            let reply = over_udp(&server, &question(name, set.record_type(), Some(1232))).await;
            assert!(reply.metadata.authoritative && reply.metadata.response_code == ResponseCode::NoError);
            let data: Vec<_> = reply.answers.iter().map(|record| record.data.clone()).collect();
            assert_eq!(data, set.to_rdata().unwrap(), "{name}");
        }
        let soa = over_udp(&server, &question("p2psip.org", RecordType::SOA, None)).await;
        assert_eq!(soa.answers.len(), 1);
        let ns = over_udp(&server, &question("ns1.p2psip.org", RecordType::A, None)).await;
        assert_eq!(ns.answers[0].data, RData::A(rdata::A::new(127, 0, 0, 1)));
    }

    #[tokio::test]
    async fn what_is_not_there_is_denied_in_three_ways() {
        let server = serve(&[("a.b.p2psip.org", RrSet::Txt(vec!["x".into()]))]).await;
        let has_soa = |reply: &Message| reply.authorities.iter().any(|record| record.record_type() == RecordType::SOA);
        for (name, kind, code) in [
            ("nobody.p2psip.org", RecordType::TXT, ResponseCode::NXDomain),
            ("a.b.p2psip.org", RecordType::A, ResponseCode::NoError),
            // An empty non-terminal exists (RFC 8020).
            ("b.p2psip.org", RecordType::TXT, ResponseCode::NoError),
        ] {
            let reply = over_udp(&server, &question(name, kind, None)).await;
            assert_eq!((reply.metadata.response_code, reply.answers.len()), (code, 0), "{name}");
            assert!(reply.metadata.authoritative && has_soa(&reply), "{name}");
        }
        let reply = over_udp(&server, &question("example.com", RecordType::A, None)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    }

    #[tokio::test]
    async fn a_large_answer_is_truncated_over_udp_and_whole_over_tcp() {
        let values = (0..40).map(|n| format!("{n} {}", "x".repeat(200))).collect();
        let server = serve(&[("p2psip.org", RrSet::Txt(values))]).await;
        for payload in [None, Some(1232)] {
            let request = question("p2psip.org", RecordType::TXT, payload);
            let reply = over_udp(&server, &request).await;
            assert!(reply.metadata.truncation && reply.answers.len() < 40);
            assert!(reply.to_vec().unwrap().len() <= payload.unwrap_or(512).into());
            let reply = over_tcp(&server, &request).await;
            assert!(!reply.metadata.truncation);
            assert_eq!(reply.answers.len(), 40);
        }
    }

    #[tokio::test]
    async fn junk_does_not_stop_it() {
        let server = serve(&[]).await;
        let sound = question("p2psip.org", RecordType::SOA, None);
        let octets = sound.to_vec().unwrap();
        let socket = UdpSocket::bind(loopback()).await.unwrap();
        for length in 0..octets.len() {
            socket.send_to(&octets[..length], server.address()).await.unwrap();
        }
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(&[0xff; 1000]).await.unwrap();
        assert_eq!(over_udp(&server, &sound).await.answers.len(), 1);
        assert_eq!(over_tcp(&server, &sound).await.answers.len(), 1);
    }

    #[tokio::test]
    async fn updates_and_transfers_are_turned_down() {
        let server = serve(&[]).await;
        let mut update = question("p2psip.org", RecordType::SOA, None);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(over_udp(&server, &update).await.metadata.response_code, ResponseCode::NotImp);
        let reply = over_tcp(&server, &question("p2psip.org", RecordType::AXFR, None)).await;
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::Refused, 0));
    }

    #[tokio::test]
    async fn records_change_while_it_runs_and_the_serial_counts() {
        let server = serve(&[]).await;
        let serial =
            async || match over_udp(&server, &question("p2psip.org", RecordType::SOA, None)).await.answers[0].data {
                RData::SOA(ref soa) => soa.serial,
                ref other => panic!("{other:?}"),
            };
        let count = async || {
            let reply = over_udp(&server, &question("_p2psip.P2PSIP.org", RecordType::TXT, None)).await;
            (reply.metadata.response_code, reply.answers.len())
        };
        let before = serial().await;
        assert_eq!(count().await, (ResponseCode::NXDomain, 0));
        server.set_txt("_p2psip.p2psip.org", &["a", "b"]).await.unwrap();
        assert_eq!(count().await, (ResponseCode::NoError, 2));
        server.set_txt("_P2PSIP.p2psip.org.", &["c"]).await.unwrap();
        assert_eq!(count().await, (ResponseCode::NoError, 1));
        server.set_txt("_p2psip.p2psip.org", &[]).await.unwrap();
        assert_eq!(count().await, (ResponseCode::NXDomain, 0));
        assert_eq!(serial().await, before + 3);
        assert_eq!(server.set_txt("example.com", &["x"]).await.unwrap_err().kind(), Kind::Usage);
    }

    #[tokio::test]
    async fn a_port_in_use_is_a_local_failure_that_names_it() {
        let server = serve(&[]).await;
        let only_udp = UdpSocket::bind(loopback()).await.unwrap();
        for address in [server.address(), only_udp.local_addr().unwrap()] {
            let error = DnsServer::start(address, vec![]).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Local);
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        }
    }

    #[tokio::test]
    async fn zones_are_checked_before_they_are_served() {
        let zone = || Zone::new("p2psip.org").unwrap();
        assert!(zone().with("p2psip.com", &RrSet::Txt(vec![])).is_err());
        assert!(zone().with("ap2psip.org", &RrSet::Txt(vec![])).is_err());
        assert!(zone().with("a.p2psip.org", &RrSet::Ns(vec!["a b".into()])).is_err());
        assert!(Zone::new("").is_err() && Zone::new(&["a"; 127].join(".")).is_err());
        assert!(DnsServer::start(loopback(), vec![zone(), zone()]).await.is_err());
    }

    #[tokio::test]
    async fn the_zone_with_the_longest_origin_has_a_name() {
        let zones = vec![Zone::new("org").unwrap(), Zone::new("p2psip.org").unwrap()];
        let server = DnsServer::start(loopback(), zones).await.unwrap();
        server.set_txt("x.p2psip.org", &["inner"]).await.unwrap();
        assert_eq!(over_udp(&server, &question("x.p2psip.org", RecordType::TXT, None)).await.answers.len(), 1);
    }

    #[tokio::test]
    async fn stopping_leaves_no_task_and_frees_the_port() {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        for graceful in [true, false] {
            let server = serve(&[]).await;
            let address = server.address();
            let idle = TcpStream::connect(address).await.unwrap();
            over_udp(&server, &question("p2psip.org", RecordType::SOA, None)).await;
            assert!(tasks() > before);
            if graceful {
                server.stop().await;
            } else {
                drop(server);
            }
            // Tasks that were told to end need their turn to do so.
            for _ in 0..100 {
                if tasks() == before {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(tasks(), before);
            DnsServer::start(address, vec![]).await.unwrap().stop().await;
            drop(idle);
        }
    }
}
