//! What the shell has come across: names and peers that completion can offer without asking anybody.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::name::{Aor, PeerId, ResourceName};

/// Names or peers that are kept; what comes later is not offered.
const MAX_SEEN: usize = 1_000;

/// What has been seen so far. Clones share it: commands add to it, and the editor reads it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Sets>>);

#[derive(Debug, Default)]
struct Sets {
    users: BTreeSet<String>,
    services: BTreeSet<String>,
    peers: BTreeSet<String>,
}

impl Seen {
    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user or a service, of which a tree node is a part.
    pub(super) fn name(&self, name: &ResourceName) {
        let sets = &mut *self.sets();
        match name.service() {
            Some(service) => insert(&mut sets.services, service.to_string()),
            None => insert(&mut sets.users, name.to_string()),
        }
    }

    /// A user.
    pub(super) fn user(&self, aor: &Aor) {
        insert(&mut self.sets().users, aor.to_string());
    }

    /// A peer by its id.
    pub(super) fn peer(&self, peer: &PeerId) {
        insert(&mut self.sets().peers, peer.to_string());
    }

    /// A peer by its multiaddr.
    pub(super) fn address(&self, address: &str) {
        insert(&mut self.sets().peers, address.to_owned());
    }

    /// The users whose AOR begins so.
    pub(super) fn users(&self, begin: &str) -> Vec<String> {
        beginning(&self.sets().users, begin)
    }

    /// The users and services whose URI begins so.
    pub(super) fn names(&self, begin: &str) -> Vec<String> {
        let sets = self.sets();
        let mut names = beginning(&sets.users, begin);
        names.extend(beginning(&sets.services, begin));
        names
    }

    /// The peers whose id or multiaddr begins so.
    pub(super) fn peers(&self, begin: &str) -> Vec<String> {
        beginning(&self.sets().peers, begin)
    }
}

fn insert(set: &mut BTreeSet<String>, text: String) {
    if set.len() < MAX_SEEN {
        set.insert(text);
    }
}

fn beginning(set: &BTreeSet<String>, begin: &str) -> Vec<String> {
    set.iter().filter(|text| text.starts_with(begin)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_offered_by_its_beginning_and_has_a_limit() {
        let seen = Seen::default();
        for uri in ["sip:alice@p2psip.org", "sip:p2psip.org", "turn:p2psip.org"] {
            seen.name(&ResourceName::parse(uri).unwrap());
        }
        assert_eq!(seen.users("sip:"), ["sip:alice@p2psip.org"]);
        assert_eq!(seen.names("sip:"), ["sip:alice@p2psip.org", "sip:p2psip.org"]);
        assert_eq!(seen.names("sip:b"), Vec::<String>::new());
        for index in 0..2 * MAX_SEEN {
            seen.address(&format!("/ip4/192.0.2.1/tcp/{index}"));
        }
        assert_eq!(seen.peers("/ip4").len(), MAX_SEEN);
    }
}
