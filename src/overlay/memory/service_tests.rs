//! Services in a whole overlay: found from everywhere, though members leave or lie, and a burden to nobody.

use super::*;
use crate::{
    client::Verdict,
    identity::{Limits, Policy},
    name::OverlayId,
};

const LIFETIME: Duration = crate::record::MAX_SERVICE_LIFETIME;

fn turn() -> ServiceUri {
    ServiceUri::parse("turn:p2psip.org").unwrap()
}

/// An overlay in which one member in so many offers a service.
fn with_providers(members: usize, share: usize) -> (MemoryOverlay, BTreeSet<PeerId>) {
    let id = OverlayId::parse("p2psip.org").unwrap();
    let descriptor = Descriptor::new(id, false, Policy::Open, None, Limits::default()).unwrap();
    let config = MemoryConfig { members, ..MemoryConfig::default() };
    let mut overlay = MemoryOverlay::new(Arc::new(descriptor), config, UnixMs(1_700_000_000_000));
    let mut depths = BTreeMap::new();
    for _ in 0..2 {
        for index in (0..members).step_by(share) {
            let listing = overlay.offer(index, &turn(), depths.get(&index).copied(), LIFETIME).unwrap();
            assert!(!listing.nodes.is_empty());
            depths.insert(index, listing.depth);
            overlay.advance(Duration::from_millis(10));
        }
    }
    let providers = overlay.peers().step_by(share).collect();
    (overlay, providers)
}

fn providers(outcome: &ServicesOutcome) -> BTreeSet<PeerId> {
    outcome.records.iter().map(|record| record.signer().peer_id()).collect()
}

#[test]
fn all_providers_are_found_or_as_many_as_are_wanted() {
    let (mut overlay, expected) = with_providers(200, 8);
    let all = overlay.discover(&Vantage::Member(1), &turn(), Wanted::All, None);
    assert!(all.complete);
    assert_eq!(providers(&all), expected);
    for from in [Vantage::Member(7), Vantage::Client(vec![3, 50, 120])] {
        for wanted in [1, 2, 5, 12, 25] {
            let some = overlay.discover(&from, &turn(), Wanted::Some(wanted), all.depth());
            assert!(some.records.len() >= wanted, "{} of {wanted}", some.records.len());
            assert!(providers(&some).is_subset(&expected));
        }
        let more = overlay.discover(&from, &turn(), Wanted::Some(26), None);
        assert_eq!((more.complete, providers(&more)), (true, expected.clone()), "there are no more");
    }
    let name = ResourceName::from(turn());
    assert_eq!(overlay.lookup(&Vantage::Member(9), &name).records.len(), 25);
}

#[test]
fn providers_are_found_though_a_fifth_of_the_members_is_gone_or_lies() {
    for conduct in [Conduct::Gone, Conduct::Withholding, Conduct::Stale, Conduct::Forging, Conduct::Ghosts] {
        let (mut overlay, expected) = with_providers(200, 8);
        let mut gone = BTreeSet::new();
        for (index, peer) in overlay.peers().enumerate().collect::<Vec<_>>() {
            if index % 5 == 2 {
                overlay.set_conduct(index, conduct);
                gone.insert(peer);
            }
        }
        let all = overlay.discover(&Vantage::Member(1), &turn(), Wanted::All, None);
        assert_eq!(providers(&all), expected, "{conduct:?}: their records hold for a while");
        let one = overlay.discover(&Vantage::Member(6), &turn(), Wanted::Some(1), all.depth());
        assert!(!one.records.is_empty(), "{conduct:?}");
    }
}

#[test]
fn offers_that_are_not_renewed_are_gone() {
    let (mut overlay, expected) = with_providers(64, 8);
    overlay.advance(LIFETIME - Duration::from_secs(60));
    overlay.offer(0, &turn(), None, LIFETIME).unwrap();
    assert_eq!(providers(&overlay.discover(&Vantage::Member(5), &turn(), Wanted::All, None)), expected);
    overlay.advance(Duration::from_secs(120));
    let left = overlay.discover(&Vantage::Member(5), &turn(), Wanted::All, None);
    assert_eq!(providers(&left), BTreeSet::from([overlay.peers().next().unwrap()]));
    overlay.advance(LIFETIME);
    let left = overlay.discover(&Vantage::Member(5), &turn(), Wanted::All, None);
    assert_eq!((left.reply.verdict, left.complete), (Verdict::NotFound, true));
}

/// The requests that the busiest member serves, as a multiple of the mean, while everybody looks for one provider.
fn unevenness(members: usize, mut ask: impl FnMut(&mut MemoryOverlay, usize)) -> f64 {
    let (mut overlay, _) = with_providers(members, 4);
    let before: Vec<_> = overlay.served().collect();
    for round in 0..40 {
        for client in 0..100 {
            ask(&mut overlay, (round * 31 + client * 7) % members);
        }
    }
    let served: Vec<_> = overlay.served().zip(before).map(|(after, before)| after - before).collect();
    let mean = served.iter().sum::<u64>() as f64 / members as f64;
    served.into_iter().max().unwrap() as f64 / mean
}

#[test]
fn looking_for_a_provider_burdens_nobody() {
    let one_key = ResourceName::parse("turn:p2psip.org#0/0").unwrap();
    let one_key = unevenness(256, |overlay, from| _ = overlay.lookup(&Vantage::Member(from), &one_key));
    let spread = unevenness(256, |overlay, from| {
        let found = overlay.discover(&Vantage::Member(from), &turn(), Wanted::Some(1), None);
        assert!(!found.records.is_empty());
    });
    assert!(one_key > 10.0, "{one_key}");
    assert!(spread < 2.7, "{spread}");
}

#[test]
fn finding_a_provider_takes_few_requests_though_nobody_remembers_the_tree() {
    let (mut overlay, _) = with_providers(256, 4);
    // As it is after a while: what was listed before anybody knew the tree has expired.
    let mut depths = BTreeMap::new();
    for _ in 0..4 {
        overlay.advance(LIFETIME / 2);
        for index in (0..256).step_by(4) {
            let depth = depths.get(&index).copied();
            let listing = overlay.meanwhile(|overlay| overlay.offer(index, &turn(), depth, LIFETIME)).unwrap();
            depths.insert(index, listing.depth);
            overlay.advance(Duration::from_millis(10));
        }
    }
    let look = |overlay: &mut MemoryOverlay, from| {
        overlay.discover(&Vantage::Member(from), &turn(), Wanted::Some(1), None).reply.requests
    };
    let requests: u32 = (0..256).map(|from| look(&mut overlay, from)).sum();
    assert!(requests < 6 * 256, "{requests}");
}
