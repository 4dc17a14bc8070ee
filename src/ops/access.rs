//! How a tool reaches an overlay: the running member's socket, then given peers, then those in the DNS; and how it
//! knows what the overlay is.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    client::{Closest, DescriptorReply, GetDescriptor, PeerInfo, Status},
    dns::{self, DnsError, Resolver},
    identity::{Descriptor, DescriptorHash, Home, Pins, RevocationList, SecretKey},
    name::{OverlayId, PeerId, Position},
    ops::{
        OpsError,
        race::{RACED, Worth, race},
    },
    overlay::{
        Answer, Caller, Responder,
        socket::{SocketClient, SocketError},
        swarm::{Network, NetworkConfig, Role},
    },
    record::Trust,
};

/// Peers that a member on this machine is asked for, to begin a walk with: one bucket of its table.
const SEEDS: u8 = 20;

/// The file name of a member's socket in its home.
const SOCKET: &str = "member.sock";

/// Which addresses may be used.
pub use crate::dns::Family;

/// Which way into the overlay is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ViaChoice {
    /// The first that works: socket, then a remote member.
    #[default]
    Auto,
    /// The running member's socket and nothing else.
    Socket,
    /// One request to a remote member.
    Peer,
    /// A walk of this process's own.
    Walk,
}

/// What a tool knows about the overlay before it starts.
#[derive(Debug, Clone)]
pub struct Access {
    /// The overlay; else that of the descriptor.
    pub overlay: Option<OverlayId>,
    /// A file that says what the overlay is; else the home's.
    pub descriptor: Option<PathBuf>,
    /// Multiaddrs with a `/p2p/` part.
    pub peers: Vec<String>,
    /// The running member's socket; else the home's.
    pub socket: Option<PathBuf>,
    /// Name servers; else the system's.
    pub dns: Vec<SocketAddr>,
    /// The folder of keys, certificates and records.
    pub home: PathBuf,
    /// Total time to the first answer.
    pub timeout: Duration,
    /// Which addresses may be used.
    pub family: Family,
}

/// A descriptor that may be trusted, and where it came from.
pub(super) struct Known {
    pub(super) descriptor: Arc<Descriptor>,
    pub(super) revocations: Option<RevocationList>,
    pub(super) pins: Pins,
}

impl Known {
    pub(super) fn trust(&self) -> Arc<Trust> {
        let trust = Trust::new(self.descriptor.clone(), self.revocations.clone());
        for (name, keys) in &self.pins.keys {
            for key in keys {
                trust.pin(name.clone(), *key);
            }
        }
        Arc::new(trust)
    }
}

/// A way into the overlay.
pub(super) enum Route {
    /// A member of our own user.
    Socket(SocketClient),
    /// A swarm of our own, and peers to ask.
    Peers { network: Network, entries: Vec<PeerInfo> },
}

/// A way into the overlay, and what to believe there.
pub(super) struct Attached {
    pub(super) known: Known,
    pub(super) route: Route,
}

impl Access {
    /// The home, if it exists.
    pub(super) fn existing_home(&self) -> Result<Option<Home>, OpsError> {
        if self.home.exists() { Ok(Some(Home::open(&self.home, false)?)) } else { Ok(None) }
    }

    /// The home, made if need be.
    pub(super) fn own_home(&self) -> Result<Home, OpsError> {
        Ok(Home::open(&self.home, true)?)
    }

    /// When the whole use case has to be over.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(super) fn timed_out(&self, target: impl Into<String>) -> OpsError {
        OpsError::Timeout { target: target.into(), seconds: self.timeout.as_secs_f64() }
    }

    /// The descriptor given or kept at home; `None` if there is none for the overlay that is meant.
    pub(super) fn local_descriptor(&self) -> Result<Option<Known>, OpsError> {
        let wanted = self.overlay.as_ref();
        let home = self.existing_home()?;
        let given = match (&self.descriptor, &home) {
            (Some(path), _) => Some(Descriptor::load(path)?),
            (None, Some(home)) => home.descriptor()?,
            (None, None) => None,
        };
        let Some(descriptor) = given else { return Ok(None) };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != descriptor.overlay()) {
            return match &self.descriptor {
                Some(path) => {
                    let (path, found) = (path.clone(), descriptor.overlay().clone());
                    Err(OpsError::OtherDescriptor { path, found, wanted: wanted.clone() })
                }
                // The home belongs to another overlay; this one may still be found.
                None => Ok(None),
            };
        }
        // A list that was fetched for another descriptor than the home's own does not count here.
        let own = home.as_ref().filter(|_| self.descriptor.is_none());
        let revocations = own.map(Home::revocations).transpose()?.flatten();
        let pins = home.as_ref().map(Home::pins).transpose()?.unwrap_or_default();
        Ok(Some(Known { descriptor: Arc::new(descriptor), revocations, pins }))
    }

    /// Where a running member's socket would be.
    pub fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.home.join(SOCKET))
    }

    /// The connection to the running member, if there is one and `via` allows it.
    pub(super) async fn socket(&self, via: ViaChoice) -> Result<Option<SocketClient>, OpsError> {
        if !matches!(via, ViaChoice::Auto | ViaChoice::Socket) {
            return Ok(None);
        }
        match SocketClient::connect(&self.socket_path()).await {
            Ok(socket) => Ok(Some(socket)),
            // Without being asked for, a socket is only one way among others.
            Err(SocketError::Absent { .. }) if via == ViaChoice::Auto && self.socket.is_none() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The overlay that is meant: the given one, or that of the home or of the member on this machine.
    ///
    /// # Errors
    /// [`OpsError`]: nothing says which one.
    pub async fn find_overlay(&self) -> Result<OverlayId, OpsError> {
        match &self.overlay {
            Some(overlay) => Ok(overlay.clone()),
            None => Ok(self.attach(ViaChoice::Auto).await?.known.descriptor.overlay().clone()),
        }
    }

    /// Finds a way into the overlay.
    pub(super) async fn attach(&self, via: ViaChoice) -> Result<Attached, OpsError> {
        let known = self.local_descriptor()?;
        if let Some(mut socket) = self.socket(via).await? {
            let member_of = match known {
                Some(known) => known,
                None => self.descriptor_from_socket(&mut socket).await?,
            };
            let elsewhere = self.overlay.as_ref().is_some_and(|wanted| wanted != member_of.descriptor.overlay());
            if via == ViaChoice::Auto && elsewhere {
                return self.attach_to_peers(None).await;
            }
            return Ok(Attached { known: member_of, route: Route::Socket(socket) });
        }
        self.attach_to_peers(known).await
    }

    /// Finds a way to walk: the given peers, else what the running member knows, whose socket is returned then, else
    /// the peers in the DNS.
    pub(super) async fn attach_to_walk(&self) -> Result<(Attached, Option<SocketClient>), OpsError> {
        let known = self.local_descriptor()?;
        if self.peers.is_empty()
            && let Some(mut socket) = self.socket(ViaChoice::Auto).await?
        {
            let member_of = match known {
                Some(known) => known,
                None => self.descriptor_from_socket(&mut socket).await?,
            };
            let descriptor = &member_of.descriptor;
            if self.overlay.as_ref().is_some_and(|wanted| wanted != descriptor.overlay()) {
                return Ok((self.attach_to_peers(None).await?, None));
            }
            let entries = self.seeds(&mut socket, None).await?;
            let network = self.client(descriptor.overlay(), descriptor.hash(), &entries).await?;
            return Ok((Attached { known: member_of, route: Route::Peers { network, entries } }, Some(socket)));
        }
        Ok((self.attach_to_peers(known).await?, None))
    }

    /// The member on this machine, and the peers it knows next to a position, or else to itself.
    pub(super) async fn seeds(
        &self,
        socket: &mut SocketClient,
        target: Option<Position>,
    ) -> Result<Vec<PeerInfo>, OpsError> {
        let asked = async {
            let myself = socket.call(&Status {}).await?;
            let target = target.unwrap_or_else(|| myself.peer.position());
            let mut seeds = socket.call(&Closest { target, count: SEEDS }).await?.peers;
            seeds.push(PeerInfo { peer: myself.peer, addresses: myself.addresses });
            Ok::<_, SocketError>((seeds, myself.overlay))
        };
        let answer = tokio::time::timeout(self.timeout, asked).await;
        let (seeds, overlay) = answer.map_err(|_| self.timed_out("the member on this machine"))??;
        self.of_family(seeds, &overlay)
    }

    /// Members that can be met: those that the member on this machine knows, or else the given ones or those in the DNS.
    pub(super) async fn members(&self, known: &Known) -> Result<Vec<PeerInfo>, OpsError> {
        if self.peers.is_empty()
            && let Some(mut socket) = self.socket(ViaChoice::Auto).await?
        {
            return self.seeds(&mut socket, None).await;
        }
        self.entries(known.descriptor.overlay(), Some(known), self.deadline()).await
    }

    /// Finds a way into the overlay that is not a running member's socket.
    pub(super) async fn attach_to_peers(&self, known: Option<Known>) -> Result<Attached, OpsError> {
        let deadline = self.deadline();
        let overlay = match (&known, &self.overlay) {
            (Some(known), _) => known.descriptor.overlay().clone(),
            (None, Some(overlay)) => overlay.clone(),
            (None, None) => return Err(OpsError::WhichOverlay),
        };
        let entries = self.entries(&overlay, known.as_ref(), deadline).await?;
        match known {
            Some(known) => {
                let network = self.client(&overlay, known.descriptor.hash(), &entries).await?;
                Ok(Attached { known, route: Route::Peers { network, entries } })
            }
            None => self.trust_on_first_use(&overlay, entries, deadline).await,
        }
    }

    /// Members through which the overlay can be entered: the given ones, or those in the DNS.
    pub(super) async fn entries(
        &self,
        overlay: &OverlayId,
        known: Option<&Known>,
        deadline: Instant,
    ) -> Result<Vec<PeerInfo>, OpsError> {
        let mut entries: Vec<PeerInfo> = Vec::new();
        if self.peers.is_empty() {
            let nobody = |why: String| OpsError::NobodyToAsk {
                overlay: overlay.clone(),
                why: format!(
                    "no member runs on this machine, no --peer is given, and {why}; \
                     start a member with p2p-join, or give --peer"
                ),
            };
            if !overlay.is_fqdn() {
                return Err(nobody("a local overlay has no DNS records".to_owned()));
            }
            let resolver = self.resolver()?;
            let found = dns::find_peers(&resolver, overlay, deadline).await.map_err(|error| nobody(reason(&error)))?;
            if let Some(known) = known {
                self.check_published(&resolver, known, deadline).await?;
            }
            entries = found.value;
        }
        for text in &self.peers {
            let invalid = |why: String| OpsError::PeerAddress { text: text.clone(), why };
            let (address, peer) = text.rsplit_once("/p2p/").ok_or_else(|| invalid("it has no /p2p/ part".into()))?;
            let peer: PeerId = peer.parse().map_err(|error| invalid(format!("{error}")))?;
            let resolved = if address.starts_with("/dns") {
                dns::resolve_multiaddr_host(address, &self.resolver()?, deadline).await?
            } else {
                vec![address.to_owned()]
            };
            match entries.iter_mut().find(|entry| entry.peer == peer) {
                Some(entry) => entry.addresses.extend(resolved),
                None => entries.push(PeerInfo { peer, addresses: resolved }),
            }
        }
        self.of_family(entries, overlay)
    }

    /// Those peers that have addresses of the family that may be used, with these.
    fn of_family(&self, mut entries: Vec<PeerInfo>, overlay: &OverlayId) -> Result<Vec<PeerInfo>, OpsError> {
        for entry in &mut entries {
            entry.addresses.retain(|address| match self.family {
                Family::Any => true,
                Family::V4 => address.starts_with("/ip4/"),
                Family::V6 => address.starts_with("/ip6/"),
            });
        }
        entries.retain(|entry| !entry.addresses.is_empty());
        if entries.is_empty() {
            let why = "every peer known has addresses of the other family; drop -4 or -6".to_owned();
            return Err(OpsError::NobodyToAsk { overlay: overlay.clone(), why });
        }
        Ok(entries)
    }

    pub(super) fn resolver(&self) -> Result<Resolver, OpsError> {
        Ok(if self.dns.is_empty() { Resolver::system()? } else { Resolver::new(&self.dns)? })
    }

    /// Compares the descriptor trusted so far with the hash in the DNS. An overlay that publishes none is left alone.
    async fn check_published(&self, resolver: &Resolver, known: &Known, deadline: Instant) -> Result<(), OpsError> {
        let overlay = known.descriptor.overlay();
        match dns::find_descriptor(resolver, overlay, deadline).await {
            Ok(published) if published.value.hash != known.descriptor.hash() => Err(OpsError::DescriptorChanged {
                overlay: overlay.clone(),
                known: known.descriptor.hash().to_string(),
                published: published.value.hash.to_string(),
            }),
            Err(error @ DnsError::Ambiguous { .. }) => Err(error.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// A swarm that only asks. QUIC is set up only if some peer has nothing else.
    pub(super) async fn client(
        &self,
        overlay: &OverlayId,
        descriptor: DescriptorHash,
        entries: &[PeerInfo],
    ) -> Result<Network, OpsError> {
        let mut config = NetworkConfig::client(overlay.clone(), descriptor, self.timeout);
        config.quic = entries.iter().any(|entry| entry.addresses.iter().all(|address| address.contains("/quic-v1")));
        let key = SecretKey::generate()?;
        let (network, bound) = Network::bind(config, &key).await?;
        bound.run(Arc::new(Deaf));
        Ok(network)
    }

    /// A swarm with an identity of its own that only opens streams, and answers over these.
    pub(super) async fn visitor(
        &self,
        descriptor: &Descriptor,
        key: &SecretKey,
        quic: bool,
    ) -> Result<Network, OpsError> {
        let mut config = NetworkConfig::client(descriptor.overlay().clone(), descriptor.hash(), self.timeout);
        config.quic = quic;
        let (network, bound) = Network::bind(config, key).await?;
        bound.run(Arc::new(Deaf));
        Ok(network)
    }

    /// A swarm with an identity and addresses of its own that belongs to nobody's routing table: it takes SIP streams.
    pub(super) async fn listener(
        &self,
        descriptor: &Descriptor,
        listen: Vec<String>,
        key: &SecretKey,
    ) -> Result<Network, OpsError> {
        let mut config = NetworkConfig::client(descriptor.overlay().clone(), descriptor.hash(), self.timeout);
        (config.role, config.nat) = (Role::Agent, true);
        (config.listen, config.quic) = (listen, true);
        let (network, bound) = Network::bind(config, key).await?;
        bound.run(Arc::new(Deaf));
        Ok(network)
    }

    /// A member of our own user may say what the overlay is: whoever can change its answer can change our files.
    pub(super) async fn descriptor_from_socket(&self, socket: &mut SocketClient) -> Result<Known, OpsError> {
        let reply = tokio::time::timeout(self.timeout, socket.call(&GetDescriptor {}))
            .await
            .map_err(|_| self.timed_out("the member on this machine"))??;
        known_from(&reply)
    }

    /// Learns the descriptor: its hash from the DNS, its body from any peer, checked against the hash; then pins it.
    async fn trust_on_first_use(
        &self,
        overlay: &OverlayId,
        entries: Vec<PeerInfo>,
        deadline: Instant,
    ) -> Result<Attached, OpsError> {
        let unknown = |why: String| OpsError::UnknownDescriptor { overlay: overlay.clone(), why };
        if !overlay.is_fqdn() {
            return Err(unknown("a local overlay has no DNS records".to_owned()));
        }
        let home = self.existing_home()?;
        let pinned = home.as_ref().map(|home| home.pinned_descriptor(overlay)).transpose()?.flatten();
        let published = dns::find_descriptor(&self.resolver()?, overlay, deadline).await;
        let (hash, secured) = match (pinned, published) {
            (Some(known), Ok(published)) if published.value.hash != known => {
                let (known, published) = (known.to_string(), published.value.hash.to_string());
                return Err(OpsError::DescriptorChanged { overlay: overlay.clone(), known, published });
            }
            (Some(known), _) => (known, true),
            (None, Ok(published)) => (published.value.hash, published.authenticated),
            (None, Err(error)) => return Err(unknown(reason(&error))),
        };
        let network = self.client(overlay, hash, &entries).await?;
        let mut failure = None;
        let learnt = race(&network, &entries, &GetDescriptor {}, RACED, deadline, |entry, reply| {
            match known_from(&reply) {
                Ok(known) if known.descriptor.hash() == hash && known.descriptor.overlay() == overlay => {
                    return Worth::Good(known);
                }
                Ok(_) => {
                    let (peer, expected) = (entry.peer.to_string(), hash.to_string());
                    failure = Some(OpsError::ForgedDescriptor { overlay: overlay.clone(), peer, expected });
                }
                Err(error) => failure = Some(error),
            }
            Worth::Nothing
        });
        let known = match learnt.await {
            Ok(known) => known,
            Err(Some((entry, error))) => {
                return Err(failure.unwrap_or(OpsError::Ask { peer: describe(&entry), error }));
            }
            Err(None) => return Err(failure.unwrap_or_else(|| unknown("no peer could be asked for it".to_owned()))),
        };
        if pinned.is_none() {
            self.pin(&known.descriptor)?;
        }
        if !secured {
            tracing::warn!(
                "trusting the descriptor of {overlay} ({}) on first use: the DNS answer is not secured by DNSSEC; it is \
                 pinned in {} now",
                hash.short(),
                self.home.display()
            );
        }
        Ok(Attached { known, route: Route::Peers { network, entries } })
    }
}

impl Access {
    /// Holds on to a descriptor: by its hash, and as the home's own if it has none.
    fn pin(&self, descriptor: &Descriptor) -> Result<(), OpsError> {
        let home = self.own_home()?;
        if home.descriptor()?.is_none() {
            home.set_descriptor(descriptor)?;
        }
        Ok(home.pin_descriptor(descriptor.overlay(), descriptor.hash())?)
    }
}

/// A peer as an error message names it: by where it was sought.
pub(super) fn describe(entry: &PeerInfo) -> String {
    entry.addresses.first().cloned().unwrap_or_else(|| entry.peer.to_string())
}

fn known_from(reply: &DescriptorReply) -> Result<Known, OpsError> {
    let descriptor = Descriptor::from_toml(&reply.toml)?;
    let revocations = match (&reply.revocations, descriptor.ca()) {
        (Some(list), Some(ca)) => Some(RevocationList::decode(list, descriptor.overlay(), ca)?),
        _ => None,
    };
    Ok(Known { descriptor: Arc::new(descriptor), revocations, pins: Pins::default() })
}

/// What the DNS said, as part of a longer sentence.
fn reason(error: &DnsError) -> String {
    let text = error.to_string();
    text.split("; ").next().unwrap_or(&text).to_owned()
}

/// A client answers nothing; its protocols are outbound only, so this is never called.
struct Deaf;

impl Responder for Deaf {
    fn respond(&self, _: Caller, _: crate::client::RequestFrame) -> Answer {
        let error = crate::client::ErrorReply::new(crate::client::ErrorCode::Unavailable, "this is a client");
        Answer::Now(crate::client::ResponseFrame::Error(error))
    }
}
