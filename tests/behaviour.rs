//! All that the draft asks of an overlay (§1, R1): it keeps what is bound to a URI, and returns it. Each behaviour is
//! shown on real sockets and in memory.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use p2psip::{
    client::{Lookup, LookupReply, Put, PutReply, Verdict},
    clock::UnixMs,
    member::Member,
    name::ResourceName,
    overlay::{
        Overlay, OverlayError,
        memory::{MemoryConfig, MemoryMember, MemoryOverlay},
    },
    record::{Body, Payload},
};

use crate::world::{TestWorld, User};

/// An overlay under test: two of its members, and its time.
trait Fixture {
    /// An overlay of the shared world's descriptor, so that its users are this one's, too.
    fn new() -> Self;
    /// A member to write through, and another one to read through.
    fn members(&self) -> (&impl Overlay, &impl Overlay);
    /// Lets so much time pass.
    fn pass(&self, time: Duration);

    fn try_to_put(&self, envelope: &[u8]) -> Result<PutReply, OverlayError> {
        let put = Put { envelope: envelope.to_vec().into(), timeout_ms: 5000 };
        TestWorld::shared().run(self.members().0.put(put))
    }

    fn put(&self, envelope: &[u8]) -> PutReply {
        self.try_to_put(envelope).unwrap()
    }

    fn lookup(&self, name: &ResourceName) -> LookupReply {
        let lookup = Lookup { name: name.clone(), timeout_ms: 5000 };
        TestWorld::shared().run(self.members().1.lookup(lookup)).unwrap()
    }

    /// The code for which the member asked refuses a record without asking anybody else.
    fn refused_at_once(&self, envelope: &[u8]) -> &'static str {
        match self.try_to_put(envelope) {
            Err(OverlayError::Refused(reason)) => reason.code(),
            other => panic!("{other:?}"),
        }
    }

    fn found(&self, name: &ResourceName) -> Vec<Vec<u8>> {
        let reply = self.lookup(name);
        let expected = if reply.envelopes.is_empty() { Verdict::NotFound } else { Verdict::Found };
        assert_eq!(reply.verdict, expected, "{reply:?}");
        let mut envelopes: Vec<_> = reply.envelopes.into_iter().map(serde_bytes::ByteBuf::into_vec).collect();
        envelopes.sort();
        envelopes
    }
}

struct OnTheNetwork;

impl Fixture for OnTheNetwork {
    fn new() -> Self {
        Self
    }

    fn members(&self) -> (&impl Overlay, &impl Overlay) {
        let members: &[Member] = TestWorld::shared().world.members();
        (&members[4], &members[9])
    }

    fn pass(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

struct InMemory {
    overlay: Arc<Mutex<MemoryOverlay>>,
    members: (MemoryMember, MemoryMember),
}

impl Fixture for InMemory {
    fn new() -> Self {
        let descriptor = TestWorld::shared().world.descriptor().clone();
        let overlay = Arc::new(Mutex::new(MemoryOverlay::new(descriptor, MemoryConfig::default(), UnixMs::now())));
        let member = |index| MemoryMember::new(overlay.clone(), index);
        Self { members: (member(4), member(9)), overlay }
    }

    fn members(&self) -> (&impl Overlay, &impl Overlay) {
        (&self.members.0, &self.members.1)
    }

    fn pass(&self, time: Duration) {
        self.overlay.lock().unwrap().advance(time);
    }
}

macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        mod on_the_network {
            use super::Fixture as _;
            $(#[test] fn $name() { super::$name(&super::OnTheNetwork::new()); })*
        }
        mod in_memory {
            use super::Fixture as _;
            $(#[test] fn $name() { super::$name(&super::InMemory::new()); })*
        }
    };
}

behaviours![
    what_is_bound_to_a_uri_is_returned_to_others,
    nothing_is_bound_to_a_uri_by_itself,
    a_newer_record_takes_the_place_of_an_older_one_and_never_the_reverse,
    each_instance_has_a_record_of_its_own,
    what_is_removed_is_gone,
    what_expires_is_gone,
    what_is_forged_is_kept_by_nobody,
];

fn user(stem: &str) -> User {
    TestWorld::shared().user(stem)
}

fn newer(payload: &Payload, by_ms: u64) -> Payload {
    Payload { sequence: payload.sequence + by_ms, ..payload.clone() }
}

fn what_is_bound_to_a_uri_is_returned_to_others(overlay: &impl Fixture) {
    let user = user("kept");
    let envelope = user.seal(&user.payload());
    let reply = overlay.put(&envelope);
    assert_eq!((reply.stored.len(), reply.refused.len(), reply.silent), (5, 0, 0), "{reply:?}");
    assert_eq!(reply.read_back, 3);
    assert_eq!(overlay.found(&user.name()), [envelope]);
}

fn nothing_is_bound_to_a_uri_by_itself(overlay: &impl Fixture) {
    let reply = overlay.lookup(&user("nothing").name());
    assert_eq!((reply.verdict, reply.storers), (Verdict::NotFound, 5), "{reply:?}");
}

fn a_newer_record_takes_the_place_of_an_older_one_and_never_the_reverse(overlay: &impl Fixture) {
    let user = user("newer");
    let first = user.payload();
    let (older, newer) = (user.seal(&first), user.seal(&newer(&first, 1)));
    assert_eq!(overlay.put(&older).stored.len(), 5);
    assert_eq!(overlay.put(&newer).stored.len(), 5);
    assert_eq!(overlay.found(&user.name()), std::slice::from_ref(&newer));
    let late = overlay.put(&older);
    assert!(late.stored.is_empty() && late.refused[0].reason.code() == "older", "{late:?}");
    assert_eq!(overlay.found(&user.name()), [newer]);
}

fn each_instance_has_a_record_of_its_own(overlay: &impl Fixture) {
    let desk = user("both");
    let mobile = TestWorld::shared().device(&format!("{}-second", desk.aor.user()), &desk.aor);
    let mut envelopes = [desk.seal(&desk.payload()), mobile.seal(&mobile.payload())];
    for envelope in &envelopes {
        assert_eq!(overlay.put(envelope).stored.len(), 5);
    }
    envelopes.sort();
    assert_eq!(overlay.found(&desk.name()), envelopes);
}

fn what_is_removed_is_gone(overlay: &impl Fixture) {
    let user = user("gone");
    let first = user.payload();
    let envelope = user.seal(&first);
    assert_eq!(overlay.put(&envelope).stored.len(), 5);
    let tombstone = user.seal(&Payload { body: Body::Removed, ..newer(&first, 1) });
    assert_eq!(overlay.put(&tombstone).stored.len(), 5);
    assert!(overlay.found(&user.name()).is_empty());
    assert!(overlay.put(&envelope).stored.is_empty());
    assert!(overlay.found(&user.name()).is_empty());
}

fn what_expires_is_gone(overlay: &impl Fixture) {
    let user = user("expired");
    let lifetime = Duration::from_secs(2);
    let payload = user.payload();
    let envelope = user.seal(&Payload { expires: UnixMs::now().after(lifetime), ..payload });
    assert_eq!(overlay.put(&envelope).stored.len(), 5);
    assert_eq!(overlay.found(&user.name()), std::slice::from_ref(&envelope));
    overlay.pass(lifetime);
    assert!(overlay.found(&user.name()).is_empty());
    assert_eq!(overlay.refused_at_once(&envelope), "expired");
}

fn what_is_forged_is_kept_by_nobody(overlay: &impl Fixture) {
    let (victim, mallory) = (user("victim"), user("mallory"));
    let envelope = victim.seal(&victim.payload());
    assert_eq!(overlay.put(&envelope).stored.len(), 5);
    let mut damaged = victim.seal(&newer(&victim.payload(), 1));
    *damaged.last_mut().unwrap() ^= 1;
    let forged = crate::forge::signed_with(&victim.payload(), &mallory.key, mallory.certificate.as_ref());
    for (forged, code) in [(damaged, "bad-signature"), (forged, "not-named"), (vec![0; 100], "malformed")] {
        assert_eq!(overlay.refused_at_once(&forged), code);
    }
    assert_eq!(overlay.found(&victim.name()), [envelope]);
}
