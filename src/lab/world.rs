//! The world itself: it starts the overlay, its users, its DNS and its domains, and takes them down again.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    LabError,
    sip::{CONVENTIONAL, PROXIES, Sip, write_secret},
};
use crate::{
    client::PeerInfo,
    clock::UnixMs,
    dns::{self, DnsServer, Grant, TsigKey, Zone},
    identity::{Authority, Certificate, CertificateRequest, Descriptor, Home, Limits, Policy, SecretKey},
    member::{Member, MemberConfig, Offer, OfferHandle, Timing},
    name::{Aor, OverlayId, ResourceName, Service, ServiceUri},
};

/// Storers of a record unless told otherwise: few, so that even a small overlay has members without it.
const REPLICATION: u8 = 5;
/// Peers in a bucket of a routing table: few, so that lookups take several hops in a small world.
const BUCKET_SIZE: usize = 8;
/// How long a certificate of the lab is valid.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// How long the members may take to find each other.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Members through which a new one joins.
const ENTRIES: usize = 3;
/// The users, each with a member of its own: the folder of the home, and the AOR's user part.
const USERS: [(&str, &str); 3] = [("alice-desk", "alice"), ("alice-mobile", "alice"), ("bob", "bob")];
/// Two members offer each of these.
const SERVICES: [Service; 2] = [Service::Proxy, Service::Turn];

/// What the world is to be like.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Members of the overlay, at least [`LabOptions::MIN_MEMBERS`].
    pub members: usize,
    /// The overlay identifier.
    pub overlay: OverlayId,
    /// The folder for homes; a temporary one if not given.
    pub folder: Option<PathBuf>,
    /// Whether members speak QUIC as well as TCP.
    pub quic: bool,
    /// How often members do what they do unasked.
    pub timing: Timing,
    /// Policy of the overlay.
    pub policy: Policy,
    /// Storers of a record.
    pub replication: u8,
    /// Whether proxy peers serve, conventional domains are beside the overlay, and people have phones.
    pub sip: bool,
}

impl LabOptions {
    /// Three users and two providers of each of two services.
    pub const MIN_MEMBERS: usize = USERS.len() + 2 * SERVICES.len();

    /// An enrolled overlay `p2psip.org` of so many members.
    ///
    /// # Errors
    /// [`LabError::TooSmall`].
    pub fn new(members: usize) -> Result<Self, LabError> {
        if members < Self::MIN_MEMBERS {
            return Err(LabError::TooSmall { members });
        }
        let timing = Timing {
            sync: Duration::from_secs(10),
            settle: Duration::from_millis(300),
            keep: Duration::from_secs(30),
            rejoin: Duration::from_secs(1),
            refresh: Duration::from_secs(10),
            ..Timing::default()
        };
        let overlay = OverlayId::parse("p2psip.org")?;
        Ok(Self {
            members,
            overlay,
            folder: None,
            quic: false,
            timing,
            policy: Policy::Enrolled,
            replication: REPLICATION,
            sip: false,
        })
    }
}

/// A user of the lab: a home with a key and a certificate, and a member that runs on it.
#[derive(Debug, Clone)]
pub struct User {
    /// The folder's name: `alice-desk`, `alice-mobile` or `bob`.
    pub name: &'static str,
    /// The user.
    pub aor: Aor,
    /// The home.
    pub home: PathBuf,
    /// The socket of the user's member.
    pub socket: PathBuf,
}

/// A running world. Dropping it ends everything in it; [`World::stop`] does so in good order.
pub struct World {
    options: LabOptions,
    folder: PathBuf,
    _temporary: Option<TempDir>,
    authority: Option<Authority>,
    descriptor: Arc<Descriptor>,
    members: Vec<Member>,
    users: Vec<User>,
    offers: Vec<OfferHandle>,
    dns: DnsServer,
    dns_key: PathBuf,
    pub(super) sip: Sip,
}

impl World {
    /// Builds the world; `progress` hears how many members have joined.
    ///
    /// # Errors
    /// [`LabError`].
    pub async fn start(options: LabOptions, progress: &mut (dyn FnMut(usize) + Send)) -> Result<Self, LabError> {
        let (folder, temporary) = folder(options.folder.as_deref())?;
        let now = UnixMs::now();
        let authority = match options.policy {
            Policy::Enrolled => Some(Authority::create(&options.overlay, now)?),
            Policy::Open => None,
        };
        let limits = Limits { replication: options.replication, ..Limits::default() };
        let ca = authority.as_ref().map(|authority| authority.certificate().clone());
        let descriptor =
            Arc::new(Descriptor::new(options.overlay.clone(), !options.overlay.is_fqdn(), options.policy, ca, limits)?);
        let key = TsigKey::generate("lab").map_err(|why| LabError::DnsKey { why })?;
        let dns_key = folder.join("dns.key");
        write_secret(&dns_key, &key.to_file())?;
        let mut zones = vec![Zone::new(options.overlay.as_str())?.with_key(key.clone(), vec![Grant::all()])];
        if options.sip {
            for (domain, _) in CONVENTIONAL {
                zones.push(Zone::new(domain)?);
            }
        }
        let dns = DnsServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zones).await?;
        let members = Vec::with_capacity(options.members);
        let mut world = Self {
            options,
            folder,
            _temporary: temporary,
            authority,
            descriptor,
            members,
            users: vec![],
            offers: vec![],
            dns,
            dns_key,
            sip: Sip::default(),
        };
        for (name, user) in USERS {
            world.add_user(name, user).await?;
            progress(world.members.len());
        }
        while world.members.len() < world.options.members {
            let key = Arc::new(SecretKey::generate()?);
            world.add_member(MemberConfig::new(world.descriptor.clone(), key)).await?;
            progress(world.members.len());
        }
        world.settle().await?;
        world.publish().await?;
        world.offer_services().await?;
        if world.options.sip {
            world.start_sip(&key).await?;
        }
        Ok(world)
    }

    /// What the overlay is.
    pub const fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// The overlay's CA; an open overlay has none.
    pub const fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The folder of the homes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The members that run, the users' own first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The users.
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// The address of the name server.
    pub const fn dns(&self) -> SocketAddr {
        self.dns.address()
    }

    /// The name server.
    pub const fn name_server(&self) -> &DnsServer {
        &self.dns
    }

    /// The file with the TSIG key that may change the name server's zone, for `p2p-publish --key`.
    pub fn dns_key(&self) -> &Path {
        &self.dns_key
    }

    /// A few members as others write them into `--peer`, none of them a user's.
    pub fn entries(&self) -> Vec<String> {
        let members = self.members.iter().skip(USERS.len()).take(ENTRIES);
        members.filter_map(|member| member.full_addresses().into_iter().next()).collect()
    }

    /// What `p2p-lab up` prints: the environment in which every tool finds this world, as alice at her desk.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let alice = self.users.first();
        let of_alice = |path: fn(&User) -> &PathBuf| alice.map(|user| path(user).display().to_string());
        let mut environment = vec![
            ("P2PSIP_OVERLAY", self.options.overlay.to_string()),
            ("P2PSIP_SOCKET", of_alice(|user| &user.socket).unwrap_or_default()),
            ("P2PSIP_PEER", self.entries().join(" ")),
            ("P2PSIP_DNS", self.dns().to_string()),
            ("P2PSIP_HOME", of_alice(|user| &user.home).unwrap_or_default()),
            ("P2PSIP_AOR", alice.map(|user| user.aor.to_string()).unwrap_or_default()),
        ];
        environment.extend(self.proxies().first().map(|proxy| ("P2PSIP_PROXY", proxy.to_string())));
        environment
    }

    /// Kills a member as SIGKILL would, by its index in [`World::members`].
    pub fn kill(&mut self, index: usize) {
        if index < self.members.len() {
            self.members.remove(index).kill();
        }
    }

    /// Takes a member out of the world, by its index in [`World::members`]; it runs on.
    pub fn take_member(&mut self, index: usize) -> Option<Member> {
        (index < self.members.len()).then(|| self.members.remove(index))
    }

    /// Ends everything in good order.
    pub async fn stop(mut self) {
        self.stop_sip().await;
        let stopping = self.members.drain(..).map(Member::stop);
        futures::future::join_all(stopping).await;
        self.dns.stop().await;
    }

    /// A key certified for names of this overlay. In an open overlay there is no certificate.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn enrol(&self, key: &SecretKey, names: &[ResourceName]) -> Result<Option<Certificate>, LabError> {
        let Some(authority) = &self.authority else { return Ok(None) };
        let request = CertificateRequest::create(key, names)?;
        Ok(Some(authority.issue(&request, names, CERTIFICATE_LIFETIME, UnixMs::now())?))
    }

    /// Makes a home in the lab's folder, enrolled for an AOR.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn make_home(&self, name: &str, aor: &Aor) -> Result<Home, LabError> {
        let home = Home::open(&self.folder.join(name), true)?;
        home.set_descriptor(&self.descriptor)?;
        let key = home.instance_key()?;
        if let Some(certificate) = self.enrol(&key, &[aor.clone().into()])? {
            home.add_certificate(&certificate, UnixMs::now())?;
        }
        Ok(home)
    }

    async fn add_user(&mut self, name: &'static str, user: &str) -> Result<(), LabError> {
        let aor = Aor::parse(&format!("sip:{user}@{}", self.options.overlay))?;
        let home = self.make_home(name, &aor)?;
        let mut config = MemberConfig::new(self.descriptor.clone(), Arc::new(home.peer_key()?));
        config.socket = Some(home.socket_path());
        config.home = Some(home.clone());
        self.add_member(config).await?;
        self.users.push(User { name, aor, socket: home.socket_path(), home: home.folder().to_owned() });
        Ok(())
    }

    /// Starts one more member on loopback; it joins through members that are spread over those that run.
    ///
    /// # Errors
    /// [`LabError::Member`].
    pub async fn add_member(&mut self, mut config: MemberConfig) -> Result<&Member, LabError> {
        config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        if self.options.quic {
            config.network.listen.push("/ip4/127.0.0.1/udp/0/quic-v1".to_owned());
        }
        config.network.bucket_size = BUCKET_SIZE;
        config.timing = self.options.timing;
        config.peers = self.joining_points();
        self.members.push(Member::start(config).await?);
        let added = self.members.len() - 1;
        Ok(&self.members[added])
    }

    fn joining_points(&self) -> Vec<PeerInfo> {
        let step = (self.members.len() / ENTRIES).max(1);
        self.members.iter().step_by(step).take(ENTRIES).map(Member::info).collect()
    }

    /// Waits until every member knows enough others to answer for its part of the space.
    async fn settle(&self) -> Result<(), LabError> {
        let enough = (self.members.len() - 1).min(usize::from(self.options.replication));
        let began = Instant::now();
        loop {
            let alone = self.members.iter().filter(|member| member.network().table().len() < enough).count();
            if alone == 0 {
                return Ok(());
            }
            if began.elapsed() > SETTLE_TIMEOUT {
                return Err(LabError::Unsettled { seconds: SETTLE_TIMEOUT.as_secs(), alone });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Enters the overlay's bootstrap records into the lab's DNS.
    async fn publish(&self) -> Result<(), LabError> {
        let overlay = &self.options.overlay;
        if !overlay.is_fqdn() {
            return Ok(());
        }
        let mut texts = Vec::new();
        for member in self.members.iter().skip(USERS.len()).take(ENTRIES) {
            for address in member.addresses() {
                texts.push(dns::dnsaddr_text(&member.peer(), &address)?);
            }
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.dns.set_txt(&dns::dnsaddr_owner(overlay)?, &texts).await?;
        let pointer = dns::DescriptorPointer::from(&*self.descriptor);
        self.dns.set_txt(&dns::descriptor_owner(overlay)?, &[&pointer.to_string()]).await?;
        Ok(())
    }

    /// The member that offers the service with this number: the first ones are proxy peers.
    pub(super) fn provider(&self, nth: usize) -> Option<&Member> {
        self.members.get(USERS.len() + nth)
    }

    /// Has two members offer each service. The offers say that nothing is served; those of proxy peers that do serve are
    /// their own.
    async fn offer_services(&mut self) -> Result<(), LabError> {
        let own = if self.options.sip { PROXIES } else { 0 };
        let providers = self.members.iter().skip(USERS.len() + own);
        let services = SERVICES.into_iter().flat_map(|service| [service; PROXIES]).skip(own);
        let offers = providers.zip(services).map(|(member, service)| self.offer(member, service, false));
        self.offers = futures::future::try_join_all(offers).await?;
        Ok(())
    }

    /// Has a member offer a service, with a certificate that permits it.
    ///
    /// # Errors
    /// [`LabError`].
    pub async fn offer(&self, member: &Member, service: Service, serving: bool) -> Result<OfferHandle, LabError> {
        let name = ResourceName::from(ServiceUri::new(service, self.options.overlay.clone()));
        let certificate = self.enrol(member.key(), std::slice::from_ref(&name))?;
        Ok(member.offer(Offer { service, endpoints: vec![], certificate, serving, load: 0 }).await?)
    }
}

/// The lab's folder: the given one, or a temporary one that goes with the world.
fn folder(given: Option<&Path>) -> Result<(PathBuf, Option<TempDir>), LabError> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(path) = given {
        let error = |why| LabError::Folder { path: path.to_owned(), why };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error)?;
        return Ok((path.to_owned(), None));
    }
    let made = tempfile::Builder::new().prefix("p2p-lab-").tempdir();
    let temporary = made.map_err(|why| LabError::Folder { path: std::env::temp_dir(), why })?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}
