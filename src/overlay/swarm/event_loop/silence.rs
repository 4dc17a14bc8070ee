//! Who does not answer in time, and what was known of those that are missed although they are connected.

use std::collections::HashMap;

use libp2p::PeerId as Libp2pPeer;

use crate::client::PeerInfo;

/// Timeouts in a row after which a peer leaves the routing table.
const TOO_MANY: u32 = 2;

/// Silences by peer. Forgotten with the connection, or with the peer.
#[derive(Debug, Default)]
pub(super) struct Silences {
    in_a_row: HashMap<Libp2pPeer, u32>,
    /// Members that have left the routing table and are connected: slow perhaps, or it is we who are. Nobody proves
    /// again over the same connection who it is, so an answer has to be enough.
    missed: HashMap<Libp2pPeer, PeerInfo>,
}

impl Silences {
    /// A request was not answered in time. Returns whether that were too many.
    pub(super) fn one_more(&mut self, peer: Libp2pPeer) -> bool {
        let silences = self.in_a_row.entry(peer).or_default();
        *silences += 1;
        *silences >= TOO_MANY
    }

    /// A connected member leaves the routing table.
    pub(super) fn miss(&mut self, peer: Libp2pPeer, member: PeerInfo) {
        self.missed.insert(peer, member);
    }

    /// A peer has answered; returns what it was in the routing table if it was missed.
    pub(super) fn answered(&mut self, peer: &Libp2pPeer) -> Option<PeerInfo> {
        self.in_a_row.remove(peer);
        self.missed.remove(peer)
    }

    /// A peer is out of the routing table, or new to it.
    pub(super) fn start_again(&mut self, peer: &Libp2pPeer) {
        self.in_a_row.remove(peer);
    }

    /// A peer says anew what it is, or will over its next connection, for the last one is closed.
    pub(super) fn no_longer_missed(&mut self, peer: &Libp2pPeer) {
        self.missed.remove(peer);
    }
}
