//! A peer that a walk has heard of.

use std::time::Instant;

use super::{Failure, MAX_PATHS};
use crate::name::PeerId;

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) peer: PeerId,
    pub(super) state: State,
    /// What each path was told of the peer, one entry a path, in the order of hearing.
    pub(super) offers: Vec<Offer>,
    /// Answering peers that told of it.
    pub(super) mentions: u32,
    /// Whether it was known before the walk.
    pub(super) seed: bool,
    /// Index of the last request in the trace.
    pub(super) visit: Option<usize>,
    /// Requests whose fate the driver has not reported.
    pub(super) outstanding: u8,
    /// Addresses it was asked at.
    pub(super) tried: Vec<String>,
}

/// What a path was told of a peer.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) path: u8,
    pub(super) hop: u8,
    pub(super) via: Option<PeerId>,
    pub(super) addresses: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Fresh,
    Asked(Instant),
    Answered,
    Failed(Failure),
}

impl Candidate {
    pub(super) fn new(peer: PeerId, offer: Offer) -> Self {
        let seed = offer.via.is_none();
        Self {
            peer,
            state: State::Fresh,
            offers: vec![offer],
            mentions: u32::from(!seed),
            seed,
            visit: None,
            outstanding: 0,
            tried: Vec::new(),
        }
    }

    /// The paths on which it was told of, as bits.
    pub(super) fn paths(&self) -> u8 {
        self.offers.iter().fold(0, |bits, offer| bits | bit(offer.path))
    }

    /// Whether more than one peer's word says that it exists.
    pub(super) fn is_credible(&self) -> bool {
        self.seed || self.state == State::Answered || self.mentions >= 2
    }

    /// What the path may ask it with now: an offer with an address that has not been tried. Only of a seed, to which
    /// there may be a connection, is no address needed.
    pub(super) fn offer_to(&self, path: u8) -> Option<&Offer> {
        let offer = self.offers.iter().find(|offer| offer.path == path)?;
        let is_first = self.visit.is_none() && offer.via.is_none();
        (self.state == State::Fresh && (is_first || self.has_untried(offer))).then_some(offer)
    }

    /// Makes a peer that could not be reached ready to be asked again, if another path was told of addresses that
    /// have not been tried. A peer that was reached would answer the same at any address.
    pub(super) fn revive(&mut self) -> bool {
        let unreached = matches!(self.state, State::Asked(_) | State::Failed(Failure::Silent | Failure::Unreachable));
        let revived = unreached && self.offers.iter().any(|offer| self.has_untried(offer));
        if revived {
            self.state = State::Fresh;
        }
        revived
    }

    fn has_untried(&self, offer: &Offer) -> bool {
        offer.addresses.iter().any(|address| !self.tried.contains(address))
    }
}

/// A path as a bit.
pub(super) const fn bit(path: u8) -> u8 {
    1 << (path % MAX_PATHS)
}
