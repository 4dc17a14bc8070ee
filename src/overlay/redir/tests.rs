use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    client::{LookupReply, Verdict},
    clock::UnixMs,
    name::PeerId,
    overlay::lookup::LookupOutcome,
    record::{
        Body, VerifiedRecord,
        testing::{Draft, NOW, key},
    },
};

/// A tree as its storers hold it: of each node, what each provider has left there.
#[derive(Default)]
struct Tree {
    nodes: BTreeMap<TreeNode, BTreeMap<u8, VerifiedRecord>>,
    listings: BTreeMap<u8, Listing>,
    /// Sequences.
    time: u64,
}

impl Tree {
    /// A tree in which the providers have registered in this order, and again.
    fn of(keys: impl IntoIterator<Item = u8> + Clone) -> Self {
        let mut tree = Self::default();
        keys.clone().into_iter().for_each(|key| tree.register(key, START_LEVEL));
        keys.into_iter().for_each(|key| tree.refresh(key));
        tree
    }

    fn at(&self, node: TreeNode) -> Vec<VerifiedRecord> {
        self.nodes.get(&node).into_iter().flat_map(|held| held.values().cloned()).collect()
    }

    fn register(&mut self, provider: u8, start: u8) {
        let mut registration = Registration::new(peer(provider), start);
        while let Some(node) = registration.poll() {
            registration.on_read(node, &self.at(node));
        }
        let listing = registration.listing();
        for node in &listing.nodes {
            self.store(provider, *node, listing.depth);
        }
        self.listings.insert(provider, listing);
    }

    /// Registers again, where the last registration ended; what that left elsewhere has expired.
    fn refresh(&mut self, provider: u8) {
        let start = self.listings[&provider].depth;
        self.expire(provider);
        self.register(provider, start);
    }

    fn expire(&mut self, provider: u8) {
        self.nodes.values_mut().for_each(|held| _ = held.remove(&provider));
    }

    fn store(&mut self, provider: u8, node: TreeNode, depth: u8) {
        self.time += 1;
        let mut draft = Draft::service("turn:p2psip.org", provider).at(node).sequence(NOW.0 - 100_000 + self.time);
        if let Body::Service(offer) = &mut draft.payload.body {
            offer.depth = depth;
        }
        self.nodes.entry(node).or_default().insert(provider, draft.unverified());
    }

    fn withdraw_at(&mut self, provider: u8, node: TreeNode) {
        self.time += 1;
        let draft = Draft::service("turn:p2psip.org", provider).at(node).sequence(NOW.0 - 100_000 + self.time);
        self.nodes.entry(node).or_default().insert(provider, draft.removed().unverified());
    }

    /// Reads a node as a lookup would.
    fn read(&self, node: TreeNode) -> LookupOutcome {
        let (removed, records): (Vec<_>, Vec<_>) = self.at(node).into_iter().partition(VerifiedRecord::is_tombstone);
        let verdict = if records.is_empty() { Verdict::NotFound } else { Verdict::Found };
        answer(verdict, records, removed)
    }

    fn discover(&self, wanted: Wanted, depth: Option<f64>, random: u64) -> (ServicesOutcome, Vec<TreeNode>) {
        // The depth is known in large overlays.
        let start = if depth.is_some() { 7 } else { START_LEVEL };
        let (mut discovery, mut read) = (Discovery::new(wanted, depth, start, random), Vec::new());
        let mut under_way = Vec::new();
        loop {
            match discovery.poll(NOW) {
                Step::Read(node) => under_way.push(node),
                // The last one asked answers first.
                Step::Wait => {
                    let node = under_way.pop().unwrap();
                    read.push(node);
                    discovery.on_read(node, self.read(node), NOW);
                }
                Step::Done => return (discovery.outcome(Duration::ZERO, NOW), read),
            }
        }
    }

    fn all(&self) -> BTreeSet<PeerId> {
        let (outcome, _) = self.discover(Wanted::All, None, 0);
        assert!(outcome.complete);
        providers(&outcome)
    }
}

fn answer(verdict: Verdict, records: Vec<VerifiedRecord>, removed: Vec<VerifiedRecord>) -> LookupOutcome {
    let reply =
        LookupReply { verdict, envelopes: vec![], storers: 5, requests: 7, silent: 0, hops: 2, rejected: vec![] };
    let trace = vec![];
    LookupOutcome { reply, records, removed, disagreeing: 0, contested: false, trace, took: Duration::ZERO }
}

fn peer(provider: u8) -> PeerId {
    key(provider).peer_id()
}

fn providers(outcome: &ServicesOutcome) -> BTreeSet<PeerId> {
    outcome.records.iter().map(|record| record.signer().peer_id()).collect()
}

/// A provider whose position begins with these four bits, for the examples of RFC 7374, where that is all there is.
fn at(bits: u64) -> u8 {
    (0..=u8::MAX).find(|nth| peer(*nth).position().leading() >> 60 == bits).unwrap()
}

fn nodes(listing: &Listing) -> Vec<String> {
    listing.nodes.iter().map(ToString::to_string).collect()
}

/// The procedure of RFC 7374 §4.3 by hand: identifiers of four bits, two intervals to a node, start level 2. One level
/// below that on which it is alone each is listed too.
#[test]
fn providers_register_as_in_the_rfc() {
    let mut tree = Tree::default();
    let expected: [(u64, &[&str], u8); 5] = [
        // The first provider is alone everywhere: up to the root, and not down.
        (2, &["0/0", "1/0", "2/0"], 0),
        // The last of 2 and 3 on every level, until they part on level 3.
        (3, &["0/0", "1/0", "2/0", "3/1", "4/3"], 3),
        // Alone in 4..5 and in 4..7, the last in 0..7.
        (4, &["0/0", "1/0", "2/1"], 1),
        (7, &["0/0", "1/0", "2/1", "3/3"], 2),
        (10, &["0/0", "1/1", "2/2"], 0),
    ];
    for (bits, listed, depth) in expected {
        tree.register(at(bits), START_LEVEL);
        let listing = &tree.listings[&at(bits)];
        let listed: Vec<_> = listed.iter().map(|node| (*node).to_owned()).collect();
        assert_eq!((nodes(listing), listing.depth), (listed, depth), "{bits}");
    }
    // The next time, each begins where it was alone, and goes up to the first level on which it is neither first nor
    // last: for 3 and 4 that is the root by now.
    for (bits, listed, depth) in [
        (2, &["0/0", "1/0", "2/0", "3/1", "4/2"][..], 3),
        (3, &["0/0", "1/0", "2/0", "3/1", "4/3"], 3),
        (4, &["0/0", "1/0", "2/1", "3/2"], 2),
        (10, &["0/0", "1/1"], 0),
    ] {
        tree.refresh(at(bits));
        let listing = &tree.listings[&at(bits)];
        let listed: Vec<_> = listed.iter().map(|node| (*node).to_owned()).collect();
        assert_eq!((nodes(listing), listing.depth), (listed, depth), "{bits}");
    }
    assert_eq!(tree.all(), [2, 3, 4, 7, 10].map(|bits| peer(at(bits))).into());
}

/// The cases of RFC 7374 §4.5: up where there is nothing, down where an interval may hide more, otherwise done.
#[test]
fn readers_go_up_and_down_as_in_the_rfc() {
    let tree = Tree::of([2, 3, 4, 7, 10, 12].map(at));
    let read = |wanted, level: f64, bits: u64| {
        let (outcome, read) = tree.discover(Wanted::Some(wanted), Some(level + 1.0), bits << 60);
        (providers(&outcome), read.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let peers = |bits: &[u64]| bits.iter().map(|bits| peer(at(*bits))).collect::<BTreeSet<_>>();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(read(1, 1.0, 10), (peers(&[10, 12]), words(&["1/1"])), "found at once");
    // Nothing on level 3, for 10 and 12 part on level 1: tries elsewhere, which are no better, then up.
    let right = Tree::of([10, 12].map(at));
    let (outcome, nodes) = right.discover(Wanted::Some(1), Some(4.0), 10 << 60);
    assert_eq!(providers(&outcome), peers(&[10]));
    let nodes = nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((nodes.first(), nodes.last()), (Some(&"3/5".to_owned()), Some(&"2/2".to_owned())));
    assert!((3..=4).contains(&nodes.len()) && nodes[1..nodes.len() - 1].iter().all(|node| node.starts_with("3/")));
    // Level 0, for four: the first and last of either half, and 3 and 4, for which the root was the end of the way up.
    assert_eq!(read(4, 2.0, 1), (peers(&[2, 3, 4, 7, 10, 12]), words(&["0/0"])));
    let mut sparse = Tree::of([2, 3, 4, 7, 10, 12].map(at));
    for inner in [3, 4] {
        sparse.nodes.get_mut(&TreeNode::ROOT).unwrap().remove(&at(inner));
    }
    let (outcome, nodes) = sparse.discover(Wanted::Some(5), None, 0);
    assert_eq!(
        providers(&outcome).len(),
        6,
        "{nodes:?}: down into 0..7, where the root lists two, and has room for more"
    );
}

#[test]
fn readers_begin_where_enough_nodes_share_the_load() {
    let level = |wanted, depth, start| {
        let mut discovery = Discovery::new(Wanted::Some(wanted), depth, start, 0);
        let Step::Read(node) = discovery.poll(NOW) else { unreachable!() };
        node.level()
    };
    assert_eq!((level(1, None, 5), level(4, None, 5)), (5, 3), "nothing known");
    assert_eq!((level(1, Some(3.0), 3), level(1, Some(7.0), 7)), (3, 6), "a small overlay and a large one");
    assert_eq!((level(4, Some(5.0), 3), level(4, Some(5.0), 7)), (2, 2), "several stand together further up");
}

#[test]
fn an_empty_tree_takes_one_read() {
    let (outcome, read) = Tree::default().discover(Wanted::All, None, 0);
    assert_eq!((outcome.reply.verdict, outcome.complete, read.len()), (Verdict::NotFound, true, 1));
    assert_eq!((outcome.reply.storers, outcome.reply.requests, outcome.nodes), (5, 7, 1));
    // One who wants some begins below, tries elsewhere on that level, and goes all the way up.
    for (wanted, reads) in [(4, 1..=1), (2, 2..=3), (1, 3..=5)] {
        let (outcome, read) = Tree::default().discover(Wanted::Some(wanted), None, 0);
        assert_eq!(
            (outcome.reply.verdict, outcome.complete, read.last()),
            (Verdict::NotFound, true, Some(&TreeNode::ROOT))
        );
        assert!(reads.contains(&read.len()), "{wanted}: {read:?}");
    }
}

#[test]
fn what_nobody_could_be_asked_about_is_not_said_to_be_absent() {
    let tree = Tree::of(0..20);
    let run = |unread: TreeNode| {
        let mut discovery = Discovery::new(Wanted::All, None, 0, 0);
        loop {
            match discovery.poll(NOW) {
                Step::Read(node) if node == unread => {
                    discovery.on_read(node, answer(Verdict::NobodyToAsk, vec![], vec![]), NOW);
                }
                Step::Read(node) => discovery.on_read(node, tree.read(node), NOW),
                Step::Wait => unreachable!(),
                Step::Done => return discovery.outcome(Duration::ZERO, NOW),
            }
        }
    };
    let outcome = run(TreeNode::ROOT);
    assert_eq!((outcome.reply.verdict, outcome.complete), (Verdict::NobodyToAsk, false));
    let outcome = run(TreeNode::at(1, 0));
    assert_eq!((outcome.reply.verdict, outcome.complete), (Verdict::Found, false));
}

#[test]
fn who_glances_in_vain_misses_nobody_and_says_nothing_that_is_not_so() {
    let tree = Tree::of(0..40);
    for (tree, expected, verdict) in [(&tree, 40, Verdict::Found), (&Tree::default(), 0, Verdict::NotFound)] {
        // More than there are: it ends at the root.
        let (mut discovery, mut glances) = (Discovery::new(Wanted::Some(60), Some(7.0), START_LEVEL, 5), 0);
        let outcome = loop {
            match discovery.poll(NOW) {
                Step::Read(node) if discovery.is_glance(node) => {
                    glances += 1;
                    assert_ne!(node, TreeNode::ROOT);
                    discovery.on_read(node, answer(Verdict::NobodyToAsk, vec![], vec![]), NOW);
                }
                Step::Read(node) => discovery.on_read(node, tree.read(node), NOW),
                Step::Wait => unreachable!(),
                Step::Done => break discovery.outcome(Duration::ZERO, NOW),
            }
        };
        assert!(glances > 3);
        assert_eq!((outcome.records.len(), outcome.complete, outcome.reply.verdict), (expected, true, verdict));
    }
}

#[test]
fn half_as_many_nodes_as_providers_are_hardly_ever_empty() {
    let tree = Tree::of(0..=255);
    let listed = |level: u8| {
        let nodes = (0..1_u64 << level).map(|index| TreeNode::at(level, index << (64 - level)));
        nodes.filter(|node| !tree.at(*node).is_empty()).count()
    };
    assert!(listed(7) >= 105, "{} of 128", listed(7));
    assert!(listed(8) >= 110, "{} of 256", listed(8));
}

#[test]
fn a_withdrawn_provider_is_gone_as_soon_as_one_node_has_heard_of_it() {
    let mut tree = Tree::of(0..40);
    let nodes = tree.listings[&7].nodes.clone();
    assert!(nodes.len() > 1 && tree.all().contains(&peer(7)));
    let mut expected = tree.all();
    expected.remove(&peer(7));
    for node in nodes {
        tree.withdraw_at(7, node);
        assert_eq!(tree.all(), expected, "{node}");
    }
}

/// The first and last of an interval die, and those between them have not registered again yet.
#[test]
fn providers_are_found_though_those_that_stood_before_them_are_gone() {
    let mut tree = Tree::of(0..64);
    let before = tree.all();
    assert_eq!(before.len(), 64);
    let root = tree.at(TreeNode::ROOT);
    let first = (0..64).min_by_key(|provider| peer(*provider).position()).unwrap();
    assert!(root.iter().any(|record| record.signer().peer_id() == peer(first)));
    tree.expire(first);
    assert_eq!(tree.all().len(), 63);
    // With half of them gone at once some may be missed, until the others have registered again.
    (0..32).for_each(|provider| tree.expire(provider));
    (32..64).for_each(|provider| tree.refresh(provider));
    assert_eq!(tree.all(), (32..64).map(peer).collect());
}

#[test]
fn no_tree_node_has_many_entries_and_readers_are_spread_over_all_of_a_level() {
    let tree = Tree::of(0..=255);
    assert!(tree.nodes.values().all(|held| held.len() <= 12), "{:?}", tree.nodes.values().map(BTreeMap::len).max());
    let (outcome, _) = tree.discover(Wanted::All, None, 0);
    let depth = outcome.depth().unwrap();
    assert!((7.0..=10.0).contains(&depth), "{depth}: log2 of 256, about");
    let (mut reads, mut starts) = (0, BTreeMap::<TreeNode, u32>::new());
    let steps = 4_096;
    for step in 0..steps {
        let (outcome, read) = tree.discover(Wanted::Some(1), Some(depth), step * (u64::MAX / steps));
        assert!(!outcome.records.is_empty());
        reads += read.len();
        *starts.entry(read[0]).or_default() += 1;
    }
    assert_eq!(starts.len(), 1 << (depth - 1.0) as u32);
    assert!(starts.values().all(|starts| u64::from(*starts) <= steps >> (depth - 2.0) as u32), "{starts:?}");
    assert!(reads < 3 * steps as usize / 2, "{reads} reads for {steps} providers");
}

#[test]
fn several_providers_take_few_reads() {
    let tree = Tree::of(0..=255);
    let (outcome, _) = tree.discover(Wanted::All, None, 0);
    for (wanted, most) in [(2, 4), (10, 10), (30, 40)] {
        let mut reads = 0;
        for step in 0..100 {
            let (outcome, read) = tree.discover(Wanted::Some(wanted), outcome.depth(), step * (u64::MAX / 100));
            assert!(outcome.records.len() >= wanted);
            reads += read.len();
        }
        assert!(reads <= most * 100, "{reads} reads for {wanted} providers, 100 times");
    }
}

#[test]
fn a_provider_that_claims_to_be_listed_at_the_bottom_costs_one_read() {
    let mut tree = Tree::of([1]);
    let (_, honest) = tree.discover(Wanted::All, None, 0);
    tree.store(1, TreeNode::ROOT, MAX_LEVEL);
    let (outcome, read) = tree.discover(Wanted::All, None, 0);
    assert_eq!((outcome.records.len(), read.len()), (1, honest.len() + 1));
}

#[test]
fn the_first_level_follows_from_how_densely_the_members_stand() {
    let peers: Vec<_> = (0..2_000u16)
        .map(|nth| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&nth.to_be_bytes());
            PeerId::from_public_key(key).position()
        })
        .collect();
    for (members, expected) in [(1, 0..=0), (8, 0..=1), (64, 2..=4), (500, 5..=7), (2_000, 7..=9)] {
        let own = peers[0];
        let mut others = peers[1..members].to_vec();
        others.sort_by_key(|position| position.distance(&own));
        others.truncate(NEIGHBOURS);
        let level = start_level(&own, &others);
        assert!(expected.contains(&level), "{members} members: {level}");
    }
}

#[test]
fn providers_are_tried_at_random_the_idle_ones_first_and_a_lie_gains_little() {
    let provider = |provider: u8, load, serving| {
        let mut draft = Draft::service("turn:p2psip.org", provider);
        if let Body::Service(offer) = &mut draft.payload.body {
            (offer.load, offer.serving) = (load, serving);
        }
        draft.unverified()
    };
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let liar = provider(0, 0, true);
    let full: Vec<_> = (1..10).map(|nth| provider(nth, 1_000, true)).collect();
    let away = provider(10, 0, false);
    let mut firsts = BTreeMap::<_, u32>::new();
    for _ in 0..10_000 {
        let mut records: Vec<_> = [&[liar.clone(), away.clone()][..], &full].concat();
        rank(&mut records, &mut random);
        *firsts.entry(*records[0].instance()).or_default() += 1;
        assert_eq!(records.last(), Some(&away), "who takes nobody comes last");
    }
    let share = f64::from(firsts[liar.instance()]) / 10_000.0;
    assert!((0.27..0.35).contains(&share), "4 of 13: {share}");
    assert!(full.iter().all(|record| firsts[record.instance()] > 500), "{firsts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whoever_has_registered_is_found(
        mut keys in proptest::collection::btree_set(any::<u8>(), 1..60).prop_map(|keys| keys.into_iter().collect::<Vec<_>>()),
        order: u64,
        wanted in 1_usize..80,
        random: u64,
        depth in 0.0..12.0,
    ) {
        keys.sort_by_cached_key(|key| order.wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ (u64::from(*key) << 32)));
        let tree = Tree::of(keys.clone());
        let expected: BTreeSet<_> = keys.iter().map(|key| peer(*key)).collect();
        prop_assert_eq!(&tree.all(), &expected);
        let (outcome, read) = tree.discover(Wanted::Some(wanted), Some(depth), random);
        prop_assert!(providers(&outcome).is_subset(&expected));
        prop_assert!(outcome.records.len() >= wanted.min(keys.len()), "{} of {}", outcome.records.len(), wanted);
        let distinct: BTreeSet<_> = read.iter().collect();
        prop_assert_eq!(distinct.len(), read.len(), "no node is read twice");
    }

    #[test]
    fn each_node_lists_the_first_and_the_last_of_each_interval(keys in proptest::collection::btree_set(any::<u8>(), 1..40)) {
        let mut tree = Tree::of(keys.iter().copied());
        keys.iter().for_each(|key| tree.refresh(*key));
        for level in 0..6 {
            for key in &keys {
                let own = peer(*key).position();
                let node = TreeNode::containing(level, &own);
                let others: Vec<_> = keys.iter().filter(|other| *other != key).map(|other| peer(*other).position()).collect();
                let place = place(node, &own, others.iter().filter(|other| node.contains(other)));
                let deepest = tree.listings[key].depth;
                if place.outermost && level <= deepest {
                    prop_assert!(tree.nodes[&node].contains_key(key), "{} on level {}", key, level);
                }
            }
        }
    }
}

#[test]
fn times_are_not_looked_at_but_for_what_has_expired() {
    let tree = Tree::of(0..4);
    let late = UnixMs(NOW.0 + 100_000_000);
    let mut discovery = Discovery::new(Wanted::All, None, 0, 0);
    while let Step::Read(node) = discovery.poll(late) {
        discovery.on_read(node, tree.read(node), late);
    }
    assert_eq!(discovery.outcome(Duration::ZERO, late).reply.verdict, Verdict::NotFound);
}
