//! What proves where a proxy peer is, and what does not.

use proptest::prelude::*;

use super::{limits::PEER_REQUESTS, *};
use crate::{dns::publish::Transport, gatekeeper::Quotas, identity::SecretKey};

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
