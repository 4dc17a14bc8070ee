//! What of the world speaks SIP: proxy peers that are in the DNS, two conventional domains, and people's phones.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    LabError, User, World,
    domain::{Domain, TRIES},
    registrar::Account,
};
use crate::{
    dns::{
        Family, Resolver, TsigKey,
        locate::{Locator, Options, Transport},
        publish::{Publication, Publisher, SipEndpoint, ZoneAt},
    },
    member::{Member, Proxy, ProxyConfig, ProxyError},
    name::{ResourceName, Service, ServiceUri},
    ops::{
        Access,
        answer::free_port,
        softphone::{Softphone, SoftphoneRequest},
    },
    sip::{
        digest,
        tap::Recorder,
        transport::{Protocol, TransportError},
    },
};

/// The conventional domains, and the user that each has.
pub const CONVENTIONAL: [(&str, &str); 2] = [("example.org", "alice"), ("example.com", "bob")];

/// What the parties of a call are called when somebody listens in.
pub(super) const ALICE: &str = "alice@p2psip.org";
pub(super) const BOB: &str = "bob@p2psip.org";
pub(super) const BOB_OUTSIDE: &str = "bob@example.com";
pub(super) const PROXY_PEER: &str = "proxy peer";

/// How many members are proxy peers.
pub(super) const PROXIES: usize = 2;
/// How long a phone rings before somebody picks up.
const RING: Duration = Duration::from_millis(40);
/// How long anything of a phone's owner may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long proxy peers are in the DNS: longer than any world stands.
const LEASE: u32 = 7 * 86_400;
/// How long proxy peers wait for what has begun when the world ends.
const DRAIN: Duration = Duration::from_millis(500);

/// Everything in the world that speaks SIP.
#[derive(Default)]
pub(super) struct Sip {
    pub(super) recorder: Recorder,
    proxies: Vec<Proxy>,
    domains: Vec<Domain>,
    /// By what the party is called.
    phones: BTreeMap<&'static str, Softphone>,
}

/// A conventional domain, as people are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DomainView {
    /// Its name.
    pub name: String,
    /// Where its server takes UDP and TCP.
    pub address: SocketAddr,
    /// Its user.
    pub user: &'static str,
    /// Where that user is.
    pub contacts: Vec<String>,
    /// The file with the user's password.
    pub password: PathBuf,
}

impl World {
    /// The conventional domains.
    pub fn domains(&self) -> Vec<DomainView> {
        let view = |domain: &Domain| {
            let user = user_of(domain.name().as_str());
            DomainView {
                name: domain.name().to_string(),
                address: domain.address(),
                user,
                contacts: domain.contacts(user),
                password: password_file(self.folder(), domain.name().as_str()),
            }
        };
        self.sip.domains.iter().map(view).collect()
    }

    /// Where proxy peers take SIP from the public network, over UDP as over TCP.
    pub fn proxies(&self) -> Vec<SocketAddr> {
        let udp = |proxy: &Proxy| proxy.listening().iter().find(|(protocol, _)| *protocol == Protocol::Udp).copied();
        self.sip.proxies.iter().filter_map(udp).map(|(_, address)| address).collect()
    }

    /// Ends all proxy peers as SIGKILL would: DNS and overlay still name them.
    pub fn kill_proxies(&mut self) {
        self.sip.proxies.clear();
    }

    /// Alice answers at her desk from now on. In a world that others call from as Alice she does not.
    ///
    /// # Errors
    /// [`LabError::Phone`].
    pub async fn seat_alice(&mut self) -> Result<(), LabError> {
        self.phone_of_member(ALICE, "alice-desk").await
    }

    pub(super) fn phone(&self, party: &str) -> Option<&Softphone> {
        self.sip.phones.get(party)
    }

    /// Starts all of it but Alice's phone: the shell that uses the world is Alice's.
    pub(super) async fn start_sip(&mut self, key: &TsigKey) -> Result<(), LabError> {
        let folder = self.folder().to_owned();
        for (name, user) in CONVENTIONAL {
            let password = format!("{:016x}", getrandom::u64().map_err(random)?);
            write_secret(&password_file(&folder, name), &format!("{password}\n"))?;
            let domain =
                Domain::start(name, &[Account { user, password }], self.locator()?, self.sip.recorder.tap(name))?;
            for (owner, records) in domain.records() {
                self.name_server().set(&owner, &records).await?;
            }
            self.sip.domains.push(domain);
        }
        let overlay = self.descriptor().overlay().clone();
        let publisher =
            Publisher::new(ZoneAt { zone: overlay.to_string(), overlay, server: self.dns() }, key.clone(), PATIENCE);
        for nth in 0..PROXIES {
            self.start_proxy(nth, &publisher).await?;
        }
        self.phone_of_member(BOB, "bob").await?;
        self.phone_of_domain(BOB_OUTSIDE).await
    }

    /// Ends all of it in good order; the members have to run still.
    pub(super) async fn stop_sip(&mut self) {
        let phones = std::mem::take(&mut self.sip.phones);
        futures::future::join_all(phones.into_values().map(Softphone::stop)).await;
        futures::future::join_all(self.sip.proxies.drain(..).map(Proxy::stop)).await;
        self.sip.domains.clear();
    }

    async fn start_proxy(&mut self, nth: usize, publisher: &Publisher) -> Result<(), LabError> {
        let overlay = self.descriptor().overlay().clone();
        let member: &Member = self.provider(nth).ok_or(LabError::TooSmall { members: self.members().len() })?;
        let loopback = Ipv4Addr::LOCALHOST.into();
        let name = ResourceName::from(ServiceUri::new(Service::Proxy, overlay.clone()));
        let certificate = self.enrol(member.key(), &[name])?;
        let mut left = TRIES;
        let proxy = loop {
            left -= 1;
            // UDP and TCP at one port, for a long request goes over TCP to where UDP is. Somebody may be faster.
            let address = SocketAddr::new(loopback, free_port(loopback));
            let mut config = ProxyConfig::new(address, self.locator()?);
            config.certificate = certificate.clone();
            (config.drain, config.tap) = (DRAIN, Some(self.sip.recorder.tap(PROXY_PEER)));
            match Proxy::start(member, config).await {
                Err(ProxyError::Transport(TransportError::Listen { .. })) if left > 0 => {}
                proxy => break proxy?,
            }
        };
        let of = |(protocol, address): &(Protocol, SocketAddr)| {
            let transport = if *protocol == Protocol::Udp { Transport::Udp } else { Transport::Tcp };
            SipEndpoint { transport, port: address.port() }
        };
        let publication = Publication {
            host: format!("proxy{}.{overlay}", nth + 1),
            overlay,
            addresses: vec![loopback],
            endpoints: proxy.listening().iter().map(of).collect(),
            ttl: Publication::ttl_of(LEASE),
            lease: LEASE,
            peer: Some(member.peer()),
            dialled: Vec::new(),
            descriptor: None,
        };
        publisher.add(&publication, false).await?;
        self.sip.proxies.push(proxy);
        Ok(())
    }

    /// A phone in the overlay, on the home of a user of it.
    async fn phone_of_member(&mut self, party: &'static str, home: &str) -> Result<(), LabError> {
        let Some(user) = self.users().iter().find(|user| user.name == home) else { return Ok(()) };
        let request = SoftphoneRequest {
            user: user.aor.to_string(),
            account: None,
            listen: None,
            ring: RING,
            tap: Some(self.sip.recorder.tap(party)),
        };
        let failed = |why| LabError::Phone { user: user.aor.to_string(), why: Box::new(why) };
        let phone = Softphone::start(&self.access_of(user), request).await.map_err(failed)?;
        self.sip.phones.insert(party, phone);
        Ok(())
    }

    /// An ordinary phone, registered with its domain.
    async fn phone_of_domain(&mut self, party: &'static str) -> Result<(), LabError> {
        let aor = format!("sip:{party}");
        let Some(domain) = self.sip.domains.iter().find(|domain| aor.ends_with(domain.name().as_str())) else {
            return Ok(());
        };
        let access = Access {
            overlay: None,
            descriptor: None,
            peers: Vec::new(),
            socket: None,
            dns: vec![self.dns()],
            home: self.folder().join("outside"),
            timeout: PATIENCE,
            family: Family::V4,
        };
        let request = SoftphoneRequest {
            user: aor.clone(),
            account: Some(self.account(domain.name().as_str())?),
            listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
            ring: RING,
            tap: Some(self.sip.recorder.tap(party)),
        };
        let failed = |why| LabError::Phone { user: aor.clone(), why: Box::new(why) };
        let phone = Softphone::start(&access, request).await.map_err(failed)?;
        self.sip.phones.insert(party, phone);
        Ok(())
    }

    /// Who the user of a domain is to its registrar.
    pub(super) fn account(&self, domain: &str) -> Result<digest::User, LabError> {
        let path = password_file(self.folder(), domain);
        let password = std::fs::read_to_string(&path).map_err(|why| LabError::Folder { path, why })?;
        Ok(digest::User { name: user_of(domain).to_owned(), password: password.trim().to_owned() })
    }

    /// What a tool in the hands of a user knows.
    pub(super) fn access_of(&self, user: &User) -> Access {
        Access {
            overlay: Some(self.descriptor().overlay().clone()),
            descriptor: None,
            peers: Vec::new(),
            socket: Some(user.socket.clone()),
            dns: vec![self.dns()],
            home: user.home.clone(),
            timeout: PATIENCE,
            family: Family::V4,
        }
    }

    fn locator(&self) -> Result<Locator, LabError> {
        let transports = vec![Transport::Udp, Transport::Tcp];
        let options = Options { transports, family: Family::V4, ..Options::default() };
        Ok(Locator::new(Resolver::new(&[self.dns()])?, options))
    }
}

fn user_of(domain: &str) -> &'static str {
    CONVENTIONAL.iter().find(|(name, _)| *name == domain).map_or("", |(_, user)| user)
}

/// Where the password of a domain's user is.
pub(super) fn password_file(folder: &Path, domain: &str) -> PathBuf {
    folder.join(format!("{}@{domain}.password", user_of(domain)))
}

fn random(why: getrandom::Error) -> LabError {
    LabError::Random { why: why.to_string() }
}

/// Writes a file that only its owner can read.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), LabError> {
    let error = |why| LabError::Folder { path: path.to_owned(), why };
    // One of an earlier world may be there, with other permissions.
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(error(cause)),
        _ => {}
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(error)
}
