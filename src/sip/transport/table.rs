//! The connections and overlay streams there are, and which of them carries a message.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use super::{
    FlowId, Hop, Protocol, Remote,
    connection::{Line, Outgoing, QueueError},
};

/// What a connection must agree in to carry a request: where it leads, and for which domain it was verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    protocol: Protocol,
    remote: Remote,
    name: Option<Arc<str>>,
}

impl Key {
    pub(super) fn of(hop: &Hop) -> Self {
        // Only TLS knows names: any TCP connection to an address is as good as another.
        let name = hop.name.as_ref().filter(|_| hop.protocol == Protocol::Tls);
        Self { protocol: hop.protocol, remote: hop.remote, name: name.map(|name| name.to_ascii_lowercase().into()) }
    }
}

/// The connections and streams there are, those being opened included.
#[derive(Default)]
pub(super) struct Table {
    lines: HashMap<FlowId, Entered>,
    by_key: HashMap<Key, FlowId>,
    /// How many were accepted from an address.
    accepted: HashMap<IpAddr, usize>,
}

struct Entered {
    line: Line,
    key: Key,
    group: Option<IpAddr>,
}

impl Table {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// How many were accepted from a source.
    pub(super) fn accepted_from(&self, group: &IpAddr) -> usize {
        self.accepted.get(group).copied().unwrap_or_default()
    }

    /// The connection for a hop: its flow while that is there, else any that leads to the same place.
    pub(super) fn find(&self, hop: &Hop) -> Option<FlowId> {
        let same = |flow: &FlowId| self.lines.get(flow).is_some_and(|entered| entered.key.protocol == hop.protocol);
        hop.flow.filter(same).or_else(|| self.by_key.get(&Key::of(hop)).copied())
    }

    pub(super) fn push(&self, flow: FlowId, message: Outgoing) -> Result<(), QueueError> {
        match self.lines.get(&flow) {
            Some(entered) => entered.line.push(message),
            None => Err(QueueError::Ended(message)),
        }
    }

    pub(super) fn add(&mut self, flow: FlowId, line: Line, key: Key, group: Option<IpAddr>) {
        if let Some(group) = group {
            *self.accepted.entry(group).or_default() += 1;
        }
        match self.by_key.entry(key.clone()) {
            Entry::Vacant(free) => _ = free.insert(flow),
            // The first one serves, unless it has ended.
            Entry::Occupied(mut taken) => {
                if !self.lines.contains_key(taken.get()) {
                    taken.insert(flow);
                }
            }
        }
        self.lines.insert(flow, Entered { line, key, group });
    }

    pub(super) fn forget(&mut self, flow: FlowId) {
        let Some(Entered { key, group, .. }) = self.lines.remove(&flow) else { return };
        if let Entry::Occupied(entry) = self.by_key.entry(key)
            && *entry.get() == flow
        {
            entry.remove();
        }
        if let Some(Entry::Occupied(mut count)) = group.map(|group| self.accepted.entry(group)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Whoever counts as one source: an IPv4 address, or an IPv6 network of the size that one customer has.
pub(super) fn group(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::transport::Limits;

    fn add(table: &mut Table, flow: u64, hop: &Hop, group: Option<IpAddr>) {
        table.add(FlowId(flow), Line::new(&Limits::default()).0, Key::of(hop), group);
    }

    #[test]
    fn a_flow_is_preferred_and_any_connection_to_the_same_place_serves() {
        let mut table = Table::default();
        let hop = Hop::socket(Protocol::Tcp, "192.0.2.1:5060".parse().unwrap());
        add(&mut table, 1, &hop, None);
        add(&mut table, 2, &hop, None);
        assert_eq!(table.find(&hop), Some(FlowId(1)));
        assert_eq!(table.find(&Hop { flow: Some(FlowId(2)), ..hop.clone() }), Some(FlowId(2)));
        assert_eq!(table.find(&Hop { flow: Some(FlowId(9)), ..hop.clone() }), Some(FlowId(1)));
        // Never on a flow of another transport.
        let tls = Hop { protocol: Protocol::Tls, flow: Some(FlowId(2)), ..hop.clone() };
        assert_eq!(table.find(&tls), None);
        table.forget(FlowId(1));
        assert_eq!((table.find(&hop), table.len()), (None, 1));
    }

    #[test]
    fn a_tls_connection_serves_only_the_domain_it_was_verified_for() {
        let mut table = Table::default();
        let hop = Hop::socket(Protocol::Tls, "192.0.2.1:5061".parse().unwrap());
        add(&mut table, 1, &hop.clone().named("Example.com"), None);
        assert_eq!(table.find(&hop.clone().named("example.COM")), Some(FlowId(1)));
        assert_eq!(table.find(&hop.clone().named("example.net")), None);
        assert_eq!(table.find(&hop), None);
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
        let mut table = Table::default();
        let hop = |address: &str| Hop::socket(Protocol::Tcp, address.parse().unwrap());
        let of = |hop: &Hop| hop.remote.ip().map(group);
        let first = hop("[2001:db8:0:1::1]:1");
        for (flow, address) in [(1, "[2001:db8:0:1::1]:1"), (2, "[2001:db8:0:1:2::9]:7"), (3, "[2001:db8:0:2::1]:1")] {
            add(&mut table, flow, &hop(address), of(&hop(address)));
        }
        let network = of(&first).unwrap();
        assert_eq!(table.accepted_from(&network), 2);
        table.forget(FlowId(1));
        table.forget(FlowId(1));
        assert_eq!(table.accepted_from(&network), 1);
        table.forget(FlowId(2));
        assert_eq!(table.accepted_from(&network), 0);
        assert_ne!(of(&hop("192.0.2.1:1")), of(&hop("192.0.2.2:1")));
    }
}
