//! The proof that a proxy peer is where it says: nonces that went there, and came back by another way. Pure.
//!
//! A request names places: each address with each transport. To each goes an OPTIONS request with a nonce of its own in
//! a header that nobody copies into a response. A place is proven if its nonce comes back over the overlay, signed by
//! the proxy peer, *and* the place has answered the OPTIONS request. So an innocent server named as the address proves
//! nothing (it answers, but tells nobody the nonce), and neither does who can only read what arrives there.
//!
//! Probes are limited by the site that they go to, so that nobody has a gatekeeper flood somebody else. Who is in the
//! DNS at that place already has a share of its own, so that a flood of requests there keeps nobody from renewing.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    Prefix,
    buckets::Buckets,
    policy::{Quotas, denied},
};
use crate::{
    client::gatekeeper::{DenialCode, Denied, Nonce, RequestId, statement},
    dns::publish::SipEndpoint,
    identity::PublicKey,
    name::{OverlayId, PeerId},
};

/// How long a proxy peer has to bring the nonces back.
pub const WINDOW: Duration = Duration::from_secs(3);
/// How long a request is remembered: the window, and what messages may be under way.
const LIFETIME: Duration = Duration::from_secs(8);
/// Requests that are under way at a time.
const MAX_PENDING: usize = 1_024;
/// Requests of one peer in a minute: a short lease is renewed often.
const PEER_REQUESTS: u32 = 60;
/// Probes in a minute to sites where nobody is entered, all of them together.
const STRANGERS: u32 = 6_000;

/// What a proxy peer asks for, as far as it has been let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub peer: PeerId,
    /// What its probes carry.
    pub id: RequestId,
    /// Its host name.
    pub host: String,
    /// The addresses that it wants to be found at.
    pub addresses: Vec<IpAddr>,
    /// Its transports.
    pub endpoints: Vec<SipEndpoint>,
    /// Where it can be dialled.
    pub dialled: Vec<String>,
}

/// One OPTIONS request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where it goes.
    pub address: IpAddr,
    /// By which transport and to which port.
    pub endpoint: SipEndpoint,
    /// What it carries, and nothing else tells.
    pub nonce: Nonce,
    /// What its response carries.
    pub branch: String,
}

#[derive(Debug)]
struct Sent {
    probe: Probe,
    /// The response to it.
    status: Option<u16>,
    returned: bool,
}

impl Sent {
    /// Whether the place has answered that it is there, rather than that it has nothing to do with it.
    fn answered(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

#[derive(Debug)]
struct Pending {
    request: Request,
    sent: Vec<Sent>,
    until: Instant,
}

/// What was proven of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The request.
    pub request: Request,
    /// The addresses at which all of `endpoints` were proven; empty if nothing was.
    pub addresses: Vec<IpAddr>,
    /// The transports that were proven at all of `addresses`.
    pub endpoints: Vec<SipEndpoint>,
    /// What was not proven, for people.
    pub notes: Vec<String>,
}

/// The requests that are under way.
#[derive(Debug)]
pub struct Probes {
    pending: HashMap<PeerId, Pending>,
    by_branch: HashMap<String, PeerId>,
    peers: Buckets<PeerId>,
    /// Probes to sites, by requests of those who are entered there, and by others.
    known: Buckets<Prefix>,
    unknown: Buckets<Prefix>,
    strangers: Buckets<()>,
}

impl Probes {
    /// No request is under way.
    pub fn new(quotas: &Quotas) -> Self {
        Self {
            pending: HashMap::new(),
            by_branch: HashMap::new(),
            peers: Buckets::new(PEER_REQUESTS),
            known: Buckets::new(quotas.probes_per_minute),
            unknown: Buckets::new(quotas.probes_per_minute),
            strangers: Buckets::new(STRANGERS),
        }
    }

    /// Begins a request, in place of an older one of its peer; returns the probes to be sent. `known` says at which
    /// addresses the peer is entered already; `random` yields octets that nobody can guess.
    ///
    /// # Errors
    /// [`DenialCode::Throttled`].
    pub fn begin(
        &mut self,
        request: Request,
        known: impl Fn(IpAddr) -> bool,
        now: Instant,
        mut random: impl FnMut() -> [u8; 16],
    ) -> Result<Vec<Probe>, Denied> {
        let throttled = |why: String| Err(denied(DenialCode::Throttled, why));
        let peer = request.peer;
        if !self.peers.has(peer, 1, now) {
            return throttled("this peer has asked too often".to_owned());
        }
        self.peers.charge(peer, 1, now);
        self.forget(&peer);
        if self.pending.len() >= MAX_PENDING {
            return throttled("too many requests are under way".to_owned());
        }
        let each = request.endpoints.len();
        let mut strangers = 0;
        for address in &request.addresses {
            let prefix = Prefix::of(*address);
            let site = request.addresses.iter().filter(|other| Prefix::of(**other) == prefix).count() * each;
            let buckets = if known(*address) { &mut self.known } else { &mut self.unknown };
            if !buckets.has(prefix, site, now) {
                return throttled(format!("{prefix} is being probed too often"));
            }
            strangers += if known(*address) { 0 } else { each };
        }
        if strangers > 0 && !self.strangers.has((), strangers, now) {
            return throttled("too many newcomers ask at a time".to_owned());
        }
        self.strangers.charge((), strangers, now);
        let mut sent = Vec::new();
        for address in &request.addresses {
            let buckets = if known(*address) { &mut self.known } else { &mut self.unknown };
            buckets.charge(Prefix::of(*address), each, now);
            for endpoint in &request.endpoints {
                let branch = format!("z9hG4bK{}", data_encoding::HEXLOWER.encode(&random()));
                self.by_branch.insert(branch.clone(), peer);
                let probe = Probe { address: *address, endpoint: *endpoint, nonce: Nonce::new(random()), branch };
                sent.push(Sent { probe, status: None, returned: false });
            }
        }
        let probes = sent.iter().map(|sent| sent.probe.clone()).collect();
        self.pending.insert(peer, Pending { request, sent, until: now + LIFETIME });
        Ok(probes)
    }

    /// A response to a probe has come, from `source` if it came in a datagram. True: it counts.
    pub fn answered(&mut self, branch: &str, status: u16, source: Option<SocketAddr>) -> bool {
        let pending = self.by_branch.get(branch).and_then(|peer| self.pending.get_mut(peer));
        let Some(sent) = pending.and_then(|pending| pending.sent.iter_mut().find(|sent| sent.probe.branch == branch))
        else {
            return false;
        };
        let place = SocketAddr::new(sent.probe.address, sent.probe.endpoint.port);
        if status < 200 || source.is_some_and(|source| source != place) {
            return false;
        }
        sent.status = Some(status);
        sent.answered()
    }

    /// Whether a probe still waits for its response, so that it is worth being sent again.
    pub fn awaits(&self, branch: &str) -> bool {
        let pending = self.by_branch.get(branch).and_then(|peer| self.pending.get(peer));
        pending
            .is_some_and(|pending| pending.sent.iter().any(|sent| sent.probe.branch == branch && sent.status.is_none()))
    }

    /// A proxy peer brings nonces back. `gatekeeper` is who sent them.
    ///
    /// # Errors
    /// [`DenialCode::Stale`]: no such request is under way, a wrong signature, a nonce that was never sent. The request
    /// goes on then.
    pub fn prove(
        &mut self,
        overlay: &OverlayId,
        gatekeeper: &PeerId,
        peer: &PeerId,
        id: &RequestId,
        nonces: &[Nonce],
        signature: &[u8],
    ) -> Result<(), Denied> {
        let stale = |why: &str| Err(denied(DenialCode::Stale, why.to_owned()));
        let Some(pending) = self.pending.get_mut(peer).filter(|pending| pending.request.id == *id) else {
            return stale("no such request is under way here; ask again");
        };
        let key = PublicKey::from_octets(*peer.public_key());
        if !key.verify(&statement(overlay, gatekeeper, id, nonces), signature) {
            return stale("the signature is wrong");
        }
        let is_ours = |nonce: &Nonce| pending.sent.iter().any(|sent| sent.probe.nonce == *nonce);
        if !nonces.iter().all(is_ours) {
            return stale("a nonce was never sent");
        }
        for sent in &mut pending.sent {
            sent.returned |= nonces.contains(&sent.probe.nonce);
        }
        Ok(())
    }

    /// Whether each place whose nonce came back has also answered.
    pub fn is_settled(&self, peer: &PeerId) -> bool {
        self.pending
            .get(peer)
            .is_none_or(|pending| pending.sent.iter().all(|sent| sent.status.is_some() || !sent.returned))
    }

    /// Ends a request and says what it has proven; `None` if it is over already. Its nonces are worth nothing any more.
    pub fn take(&mut self, peer: &PeerId, id: &RequestId) -> Option<Proof> {
        self.pending.get(peer).filter(|pending| pending.request.id == *id)?;
        self.forget(peer).map(proof)
    }

    /// Ends the requests whose time is up; they have proven nothing.
    pub fn expire(&mut self, now: Instant) -> Vec<Request> {
        let over = self.pending.iter().filter(|(_, pending)| pending.until <= now).map(|(peer, _)| *peer);
        let over: Vec<PeerId> = over.collect();
        over.iter().filter_map(|peer| self.forget(peer)).map(|pending| pending.request).collect()
    }

    /// The requests that are under way.
    pub fn waiting(&self) -> impl Iterator<Item = &Request> {
        self.pending.values().map(|pending| &pending.request)
    }

    fn forget(&mut self, peer: &PeerId) -> Option<Pending> {
        let pending = self.pending.remove(peer)?;
        for sent in &pending.sent {
            self.by_branch.remove(&sent.probe.branch);
        }
        Some(pending)
    }
}

/// What a request has proven. An SRV record leads to all addresses of a host, so the transports are those that were
/// proven at every address; an address that has fewer than the best one is left out.
fn proof(pending: Pending) -> Proof {
    let Pending { request, sent, .. } = pending;
    let proven_at = |address: &IpAddr| {
        let good = |sent: &&Sent| sent.probe.address == *address && sent.answered() && sent.returned;
        sent.iter().filter(good).map(|sent| sent.probe.endpoint).collect::<Vec<_>>()
    };
    // The first of the best, for the proxy peer puts the address first that it likes best.
    let best = request.addresses.iter().map(proven_at).rev().max_by_key(Vec::len).unwrap_or_default();
    let covers = |address: &&IpAddr| {
        let proven = proven_at(address);
        !best.is_empty() && best.iter().all(|endpoint| proven.contains(endpoint))
    };
    let addresses: Vec<IpAddr> = request.addresses.iter().filter(covers).copied().collect();
    let mut notes = Vec::new();
    for sent in &sent {
        let Sent { probe, status, returned } = sent;
        let place = SocketAddr::new(probe.address, probe.endpoint.port);
        let entered = addresses.contains(&probe.address) && best.contains(&probe.endpoint);
        let what = match (status, returned) {
            (Some(_), true) if entered => continue,
            (Some(_), true) if sent.answered() => "was proven, but other addresses or transports were not".to_owned(),
            (Some(status), _) => format!("answers {status}, but not as this proxy peer"),
            (None, true) => "takes SIP, but its answer did not come back".to_owned(),
            (None, false) => "did not answer".to_owned(),
        };
        notes.push(format!("{} {place} {what}", probe.endpoint.transport));
    }
    Proof { request, addresses, endpoints: best, notes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{dns::publish::Transport, identity::SecretKey};

    const UDP: SipEndpoint = SipEndpoint { transport: Transport::Udp, port: 5060 };
    const TCP: SipEndpoint = SipEndpoint { transport: Transport::Tcp, port: 5060 };
    const ID: RequestId = RequestId::new([9; 16]);

    struct Bench {
        probes: Probes,
        key: SecretKey,
        overlay: OverlayId,
        gatekeeper: PeerId,
        now: Instant,
        random: u128,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                probes: Probes::new(&Quotas { probes_per_minute: 20, ..Quotas::default() }),
                key: SecretKey::from_seed(&[1; 32]),
                overlay: OverlayId::parse("p2psip.org").unwrap(),
                gatekeeper: PeerId::from_public_key([2; 32]),
                now: Instant::now(),
                random: 0,
            }
        }

        fn request(&self, addresses: &[&str]) -> Request {
            Request {
                peer: self.key.peer_id(),
                id: ID,
                host: "h.p2psip.org".to_owned(),
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                endpoints: vec![UDP, TCP],
                dialled: vec![],
            }
        }

        fn begin_as(&mut self, request: Request, known: bool) -> Result<Vec<Probe>, Denied> {
            let random = &mut self.random;
            let next = || {
                *random += 1;
                random.to_be_bytes()
            };
            self.probes.begin(request, |_| known, self.now, next)
        }

        fn begin(&mut self, addresses: &[&str]) -> Vec<Probe> {
            self.begin_as(self.request(addresses), false).unwrap()
        }

        fn answer(&mut self, probe: &Probe) -> bool {
            let udp = probe.endpoint.transport == Transport::Udp;
            let source = udp.then(|| SocketAddr::new(probe.address, probe.endpoint.port));
            self.probes.answered(&probe.branch, 200, source)
        }

        fn prove(&mut self, probes: &[&Probe]) -> Result<(), Denied> {
            let nonces: Vec<Nonce> = probes.iter().map(|probe| probe.nonce).collect();
            let signature = self.key.sign(&statement(&self.overlay, &self.gatekeeper, &ID, &nonces));
            let peer = self.key.peer_id();
            self.probes.prove(&self.overlay, &self.gatekeeper, &peer, &ID, &nonces, &signature)
        }

        fn take(&mut self) -> Proof {
            self.probes.take(&self.key.peer_id(), &ID).unwrap()
        }
    }

    #[test]
    fn only_places_that_answered_and_whose_nonce_came_back_are_proven() {
        let mut bench = Bench::new();
        let probes = bench.begin(&["192.0.2.1"]);
        let (udp, tcp) = (&probes[0], &probes[1]);
        assert!(bench.answer(udp) && bench.answer(tcp));
        bench.prove(&[udp]).unwrap();
        let proof = bench.take();
        assert_eq!((proof.addresses.len(), proof.endpoints), (1, vec![UDP]));
        assert_eq!(proof.notes, ["tcp 192.0.2.1:5060 answers 200, but not as this proxy peer"]);

        let probes = bench.begin(&["192.0.2.1"]);
        bench.answer(&probes[1]);
        bench.prove(&[&probes[0], &probes[1]]).unwrap();
        assert!(!bench.probes.is_settled(&bench.key.peer_id()), "UDP may still answer");
        assert!(bench.probes.awaits(&probes[0].branch) && !bench.probes.awaits(&probes[1].branch));
        assert_eq!(bench.take().endpoints, [TCP]);
    }

    #[test]
    fn an_innocent_server_proves_nothing() {
        let mut bench = Bench::new();
        for probe in bench.begin(&["192.0.2.1"]) {
            assert!(bench.answer(&probe));
        }
        bench.prove(&[]).unwrap();
        let proof = bench.take();
        assert!(proof.addresses.is_empty() && proof.endpoints.is_empty(), "{proof:?}");
    }

    #[test]
    fn answers_from_elsewhere_and_refusals_do_not_count() {
        let mut bench = Bench::new();
        let probes = bench.begin(&["192.0.2.1"]);
        let elsewhere = Some("192.0.2.2:5060".parse().unwrap());
        assert!(!bench.probes.answered(&probes[0].branch, 200, elsewhere));
        assert!(!bench.probes.answered(&probes[1].branch, 483, None));
        assert!(!bench.probes.answered("z9hG4bKother", 200, None));
    }

    #[test]
    fn a_proof_counts_once_for_one_peer_one_request_and_one_gatekeeper() {
        let mut bench = Bench::new();
        let probes = bench.begin(&["192.0.2.1"]);
        let (overlay, gatekeeper, me) = (bench.overlay.clone(), bench.gatekeeper, bench.key.peer_id());
        let nonces = [probes[0].nonce];
        let sound = bench.key.sign(&statement(&overlay, &gatekeeper, &ID, &nonces));
        let mut prove = |peer: &PeerId, id: &RequestId, nonces: &[Nonce], signature: &[u8]| {
            bench.probes.prove(&overlay, &gatekeeper, peer, id, nonces, signature).map_err(|denied| denied.code)
        };
        let stale = Err(DenialCode::Stale);
        assert_eq!(prove(&PeerId::from_public_key([7; 32]), &ID, &nonces, &sound), stale);
        assert_eq!(prove(&me, &RequestId::new([8; 16]), &nonces, &sound), stale);
        assert_eq!(prove(&me, &ID, &[Nonce::new([0; 16])], &sound), stale);
        assert_eq!(prove(&me, &ID, &nonces, &[0; 64]), stale);
        assert_eq!(prove(&me, &ID, &nonces, &[]), stale);
        let other = bench.key.sign(&statement(&overlay, &me, &ID, &nonces));
        assert_eq!(prove(&me, &ID, &nonces, &other), stale, "signed for another gatekeeper");
        let invented = [Nonce::new([5; 16])];
        let signed = bench.key.sign(&statement(&overlay, &gatekeeper, &ID, &invented));
        assert_eq!(prove(&me, &ID, &invented, &signed), stale);
        assert_eq!(prove(&me, &ID, &nonces, &sound), Ok(()));
        bench.take();
        assert!(bench.probes.take(&me, &ID).is_none(), "a proof is used up");
        let again = bench.probes.prove(&overlay, &gatekeeper, &me, &ID, &nonces, &sound);
        assert_eq!(again.map_err(|denied| denied.code), stale, "and a replay finds nothing");
    }

    #[test]
    fn transports_hold_at_every_address_that_enters() {
        let mut bench = Bench::new();
        let probes = bench.begin(&["192.0.2.1", "2001:db8::1"]);
        for probe in &probes {
            bench.answer(probe);
        }
        // TCP over IPv6 does not get through.
        bench.prove(&[&probes[0], &probes[1], &probes[2]]).unwrap();
        let proof = bench.take();
        assert_eq!((proof.addresses, proof.endpoints), (vec!["192.0.2.1".parse().unwrap()], vec![UDP, TCP]));
        assert_eq!(proof.notes.len(), 2, "{:?}", proof.notes);
    }

    #[test]
    fn nobody_has_a_site_flooded_and_a_flood_keeps_nobody_from_renewing() {
        let mut bench = Bench::new();
        let victim = |bench: &Bench, n: u8| {
            let peer = SecretKey::from_seed(&[n; 32]).peer_id();
            Request { peer, ..bench.request(&["192.0.2.1"]) }
        };
        let mut probes = 0;
        for n in 0..50 {
            let request = victim(&bench, n);
            match bench.begin_as(request, false) {
                Ok(sent) => probes += sent.len(),
                Err(denied) => assert_eq!(denied.code, DenialCode::Throttled),
            }
        }
        assert_eq!(probes, 20, "as many as a minute has, for all who ask");
        assert!(bench.begin_as(bench.request(&["192.0.2.9"]), true).is_ok(), "who is there already has its own share");
        assert!(bench.begin_as(bench.request(&["198.51.100.1"]), false).is_ok(), "other sites are not concerned");
        bench.now += Duration::from_secs(61);
        assert!(bench.begin_as(victim(&bench, 99), false).is_ok());
    }

    #[test]
    fn one_peer_asks_so_often_and_has_one_request_under_way() {
        let mut bench = Bench::new();
        for n in 0..PEER_REQUESTS {
            bench.begin_as(bench.request(&[&format!("192.0.{n}.1")]), false).unwrap();
        }
        assert_eq!(bench.begin_as(bench.request(&["10.0.0.1"]), false).unwrap_err().code, DenialCode::Throttled);
        assert_eq!((bench.probes.waiting().count(), bench.probes.by_branch.len()), (1, 2));
        assert!(bench.probes.expire(bench.now + WINDOW).is_empty());
        assert_eq!(bench.probes.expire(bench.now + LIFETIME).len(), 1);
        assert!(bench.probes.pending.is_empty() && bench.probes.by_branch.is_empty());
    }

    proptest! {
        /// Whatever answers and comes back: what enters was proven, every transport at every address.
        #[test]
        fn nothing_enters_without_proof(answered in any::<[bool; 6]>(), returned in any::<[bool; 6]>()) {
            let mut bench = Bench::new();
            let probes = bench.begin(&["192.0.2.1", "198.51.100.1", "203.0.113.1"]);
            let mut good = Vec::new();
            for ((probe, answered), returned) in probes.iter().zip(answered).zip(returned) {
                if answered {
                    bench.answer(probe);
                }
                if returned {
                    bench.prove(&[probe]).unwrap();
                }
                if answered && returned {
                    good.push((probe.address, probe.endpoint));
                }
            }
            let proof = bench.take();
            for address in &proof.addresses {
                for endpoint in &proof.endpoints {
                    prop_assert!(good.contains(&(*address, *endpoint)));
                }
            }
            prop_assert_eq!(good.is_empty(), proof.addresses.is_empty());
        }
    }
}
