//! Under which addresses peers see a member, and whether a NAT is in between.
//!
//! IPv4 and IPv6 are looked at apart: a host may be behind a NAT in one and not in the other.

use std::net::IpAddr;

use crate::overlay::addresses::scope;

/// What peers see of us.
#[derive(Debug, Default)]
pub(super) struct Seen {
    v4: Family,
    v6: Family,
}

/// What peers see of us in one family of addresses.
#[derive(Debug, Default)]
struct Family {
    /// The addresses of our own that they see.
    own: Vec<IpAddr>,
    /// The address of a NAT, as one saw it last.
    nat: Option<IpAddr>,
    /// Of those that came to us, and that we had never sent anything to, the one from farthest away.
    stranger: Option<IpAddr>,
}

impl Family {
    /// Whether a stranger has come through the NAT; a neighbour on our side of it did not.
    fn is_visited(&self) -> bool {
        self.stranger.zip(self.nat).is_some_and(|(stranger, nat)| scope(stranger) <= scope(nat))
    }

    /// An address of our own that leads here from wherever the NAT's is seen; a neighbour on our side of the NAT sees
    /// one that does not.
    fn open(&self) -> Option<IpAddr> {
        self.own.iter().find(|own| self.nat.is_none_or(|nat| scope(**own) <= scope(nat))).copied()
    }

    /// The NAT that is between us and others.
    fn nat(&self) -> Option<IpAddr> {
        self.nat.filter(|_| self.open().is_none())
    }
}

impl Seen {
    fn family(&mut self, address: IpAddr) -> &mut Family {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    /// A peer sees us under an address of our own.
    pub(super) fn under_own(&mut self, address: IpAddr) {
        let own = &mut self.family(address).own;
        if !own.contains(&address) {
            own.push(address);
        }
    }

    /// A peer sees us under an address that is not ours: a NAT's. Returns that of the NAT before, if it was another one:
    /// what led through it leads here no longer.
    pub(super) fn behind(&mut self, nat: IpAddr) -> Option<IpAddr> {
        let family = self.family(nat);
        let before = family.nat.replace(nat).filter(|before| *before != nat)?;
        family.stranger = None;
        Some(before)
    }

    /// A peer has come from an address to which we have never sent anything.
    pub(super) fn visited(&mut self, from: IpAddr) {
        let stranger = &mut self.family(from).stranger;
        if stranger.is_none_or(|before| scope(from) < scope(before)) {
            *stranger = Some(from);
        }
    }

    /// Only these addresses are our own any more.
    pub(super) fn retain_own(&mut self, is_own: impl Fn(IpAddr) -> bool) {
        for family in [&mut self.v4, &mut self.v6] {
            family.own.retain(|own| is_own(*own));
        }
    }

    /// The NAT that we are behind in IPv4, and in IPv6.
    pub(super) fn nats(&self) -> [Option<IpAddr>; 2] {
        [self.v4.nat(), self.v6.nat()]
    }

    /// The NAT that we are behind, in one family at least.
    pub(super) fn nat(&self) -> Option<IpAddr> {
        self.v4.nat().or_else(|| self.v6.nat())
    }

    /// An address of our own that leads here from everywhere.
    pub(super) fn open(&self) -> Option<IpAddr> {
        self.v4.open().or_else(|| self.v6.open())
    }

    /// Whether a stranger has come through a NAT.
    pub(super) fn is_visited(&self) -> bool {
        self.v4.is_visited() || self.v6.is_visited()
    }

    /// Whether a NAT is between us and everybody else.
    pub(super) fn is_shut_in(&self) -> bool {
        self.nat().is_some() && self.open().is_none()
    }
}
