//! Who may enter the DNS (R10, R11): the policy, NATs, the gatekeeper's own point of view, and quotas. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Deserialize;

use super::{Prefix, lease::Ledger};
use crate::{
    client::gatekeeper::{DenialCode, Denied},
    dns::publish::{SipEndpoint, unreachable},
    name::PeerId,
};

/// The most addresses and transports of one request.
const MAX_EACH: usize = 8;
/// When to ask again after a refusal that somebody has to do something about, in milliseconds.
const RETRY_LATER: u64 = 60_000;

/// Who may enter, if it proves to be where it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// These peers.
    Closed(BTreeSet<PeerId>),
    /// Members whose certificate permits them to be proxy peers.
    Enrolled,
    /// Anybody.
    Open,
}

/// How many may enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Proxy peers in all.
    pub peers: usize,
    /// Proxy peers of one site ([`Prefix`]).
    pub peers_per_prefix: usize,
    /// Addresses of one proxy peer, and so of one certificate: a certificate is one key's.
    pub addresses_per_certificate: usize,
    /// Probes to one site in a minute.
    pub probes_per_minute: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { peers: 100, peers_per_prefix: 8, addresses_per_certificate: 4, probes_per_minute: 240 }
    }
}

impl Quotas {
    /// Refuses what would let nobody in.
    pub(super) fn check(&self) -> Result<(), String> {
        let all = [
            ("peers", self.peers),
            ("peers_per_prefix", self.peers_per_prefix),
            ("addresses_per_certificate", self.addresses_per_certificate),
            ("probes_per_minute", self.probes_per_minute as usize),
        ];
        match all.into_iter().find(|(_, value)| !(1..=1_000_000).contains(value)) {
            Some((name, value)) => Err(format!("quotas.{name} is {value}; it must lie between 1 and 1000000")),
            None => Ok(()),
        }
    }
}

/// Who asks, and for what.
#[derive(Debug, Clone)]
pub struct Applicant<'a> {
    /// The proxy peer, authenticated by its stream.
    pub peer: PeerId,
    /// Its host name.
    pub host: &'a str,
    /// Whether its certificate permits it to be a proxy peer; if not, why not.
    pub enrolled: Result<(), String>,
    /// The addresses that it wants to be found at.
    pub addresses: &'a [IpAddr],
    /// Its transports.
    pub endpoints: &'a [SipEndpoint],
    /// The addresses at which the gatekeeper sees it in the overlay.
    pub seen: &'a [IpAddr],
    /// Whether it insists although it is behind a NAT.
    pub force: bool,
}

/// What a gatekeeper goes by.
pub struct Rules<'a> {
    /// Who may enter.
    pub admission: &'a Admission,
    /// How many.
    pub quotas: &'a Quotas,
    /// Whether addresses may enter that the public network does not reach.
    pub allow_private: bool,
    /// Who is there already.
    pub ledger: &'a Ledger,
    /// Why the gatekeeper does not see an address as the public network does; `None` if it does.
    pub blind: &'a dyn Fn(IpAddr) -> Option<String>,
}

/// Decides whether a request is worth probes. Its place is still to be proven.
///
/// # Errors
/// [`Denied`], with the first reason that holds: those come first that cost nothing and tell nobody anything.
pub fn judge(applicant: &Applicant<'_>, rules: &Rules<'_>) -> Result<(), Denied> {
    check_shape(applicant)?;
    check_admission(applicant, rules.admission)?;
    if !rules.allow_private {
        for address in applicant.addresses {
            if let Some(why) = unreachable(address) {
                return Err(denied(DenialCode::Private, format!("nobody outside reaches {address}: {why}")));
            }
        }
        for address in applicant.addresses {
            if let Some(why) = (rules.blind)(*address) {
                return Err(denied(DenialCode::NoVantage, format!("this gatekeeper cannot judge {address}: {why}")));
            }
        }
    }
    if !applicant.force {
        check_nat(applicant)?;
    }
    check_quotas(applicant, rules)
}

fn check_shape(applicant: &Applicant<'_>) -> Result<(), Denied> {
    let unfit = |why: String| Err(denied(DenialCode::Unfit, why));
    let few = |count: usize| (1..=MAX_EACH).contains(&count);
    if !few(applicant.addresses.len()) || !few(applicant.endpoints.len()) {
        return unfit(format!("it takes 1 to {MAX_EACH} addresses and 1 to {MAX_EACH} transports"));
    }
    let no_host = |address: &&IpAddr| match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    };
    if let Some(address) = applicant.addresses.iter().find(no_host) {
        return unfit(format!("{address} is not the address of one host"));
    }
    if applicant.endpoints.iter().any(|endpoint| endpoint.port == 0) {
        return unfit("port 0 cannot be reached".to_owned());
    }
    Ok(())
}

fn check_admission(applicant: &Applicant<'_>, admission: &Admission) -> Result<(), Denied> {
    match admission {
        Admission::Open => Ok(()),
        Admission::Closed(peers) if peers.contains(&applicant.peer) => Ok(()),
        Admission::Closed(_) => {
            let why = "the policy is closed and this peer is not on the list; ask the gatekeeper's operator";
            Err(denied(DenialCode::NotListed, why.to_owned()))
        }
        Admission::Enrolled => {
            applicant.enrolled.clone().map_err(|why| denied(DenialCode::NotEnrolled, format!("not enrolled: {why}")))
        }
    }
}

/// R11: an address that is not the peer's own. Seen on a private network, the two share that, and nothing follows.
fn check_nat(applicant: &Applicant<'_>) -> Result<(), Denied> {
    for address in applicant.addresses {
        let comparable = |seen: &&IpAddr| {
            seen.is_ipv4() == address.is_ipv4() && unreachable(seen).is_none() && !seen.is_unspecified()
        };
        let mut seen = applicant.seen.iter().filter(comparable).peekable();
        let Some(first) = seen.peek().copied().copied() else { continue };
        if !seen.any(|seen| applicant.addresses.contains(seen)) {
            let why = format!(
                "it wants to be found at {address} and is seen at {first}: a NAT lies between, or it has several \
                 addresses; if so, let it insist"
            );
            return Err(denied(DenialCode::BehindNat, why));
        }
    }
    Ok(())
}

fn check_quotas(applicant: &Applicant<'_>, rules: &Rules<'_>) -> Result<(), Denied> {
    let quotas = rules.quotas;
    let quota = |why: String| Err(denied(DenialCode::Quota, why));
    if applicant.addresses.len() > quotas.addresses_per_certificate {
        return quota(format!("one proxy peer may have {} addresses", quotas.addresses_per_certificate));
    }
    // Who is there may stay.
    if !rules.ledger.holds(applicant.host) && rules.ledger.live() >= quotas.peers {
        return quota(format!("there are {} proxy peers already, as many as there may be", quotas.peers));
    }
    for address in applicant.addresses {
        let prefix = Prefix::of(*address);
        let held = rules.ledger.holds_in(applicant.host, prefix);
        if !held && rules.ledger.others_in(prefix, applicant.host) >= quotas.peers_per_prefix {
            let limit = quotas.peers_per_prefix;
            return quota(format!("there are {limit} proxy peers in {prefix} already, as many as there may be"));
        }
    }
    Ok(())
}

/// A refusal, with the usual time to ask again.
pub(super) fn denied(code: DenialCode, why: String) -> Denied {
    let retry_ms = match code {
        DenialCode::Unproven => 5_000,
        DenialCode::Throttled => 10_000,
        DenialCode::Stale => 1_000,
        DenialCode::Dns => 3_000,
        _ => RETRY_LATER,
    };
    Denied { code, why, retry_ms }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{clock::UnixMs, dns::publish::Transport, gatekeeper::Leased};

    const UDP: SipEndpoint = SipEndpoint { transport: Transport::Udp, port: 5060 };

    fn peer(n: u8) -> PeerId {
        PeerId::from_public_key([n; 32])
    }

    fn leased(address: &str) -> Leased {
        Leased { peer: None, addresses: vec![address.parse().unwrap()], until: UnixMs(u64::MAX), live: true }
    }

    /// Judges peer 1, of the host `h`, which asks for 192.0.2.1, after `change`.
    fn judged(
        admission: Admission,
        ledger: &Ledger,
        change: impl FnOnce(&mut Applicant<'_>),
    ) -> Result<(), DenialCode> {
        let addresses = ["192.0.2.1".parse().unwrap()];
        let mut applicant = Applicant {
            peer: peer(1),
            host: "h",
            enrolled: Ok(()),
            addresses: &addresses,
            endpoints: &[UDP],
            seen: &[],
            force: false,
        };
        change(&mut applicant);
        let quotas = Quotas { peers: 3, peers_per_prefix: 2, addresses_per_certificate: 2, ..Quotas::default() };
        let blind = |address: IpAddr| (address.is_ipv6()).then(|| "there is no IPv6 here".to_owned());
        let rules = Rules { admission: &admission, quotas: &quotas, allow_private: false, ledger, blind: &blind };
        judge(&applicant, &rules).map_err(|denied| denied.code)
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_policy_lets_in_whom_it_should() {
        let none = Ledger::default();
        let unenrolled = |applicant: &mut Applicant<'_>| applicant.enrolled = Err("no certificate".to_owned());
        assert_eq!(judged(Admission::Open, &none, unenrolled), Ok(()));
        assert_eq!(judged(Admission::Enrolled, &none, |_| ()), Ok(()));
        assert_eq!(judged(Admission::Enrolled, &none, unenrolled), Err(DenialCode::NotEnrolled));
        assert_eq!(judged(Admission::Closed([peer(1)].into()), &none, unenrolled), Ok(()));
        assert_eq!(judged(Admission::Closed([peer(2)].into()), &none, |_| ()), Err(DenialCode::NotListed));
    }

    #[test]
    fn addresses_that_nobody_reaches_or_that_cannot_be_judged_do_not_enter() {
        let none = Ledger::default();
        for (address, code) in [
            ("10.0.0.1", DenialCode::Private),
            ("127.0.0.1", DenialCode::Private),
            ("100.64.0.1", DenialCode::Private),
            ("fd00::1", DenialCode::Private),
            ("2001:db8::1", DenialCode::NoVantage),
            ("224.0.0.1", DenialCode::Unfit),
            ("0.0.0.0", DenialCode::Unfit),
            ("::ffff:255.255.255.255", DenialCode::Unfit),
        ] {
            let wrong = ips(&["192.0.2.1", address]);
            let judged = judged(Admission::Open, &none, |applicant| {
                applicant.addresses = Box::leak(wrong.into_boxed_slice());
                applicant.force = true;
            });
            assert_eq!(judged, Err(code), "{address}");
        }
        assert_eq!(judged(Admission::Open, &none, |a| a.addresses = &[]), Err(DenialCode::Unfit));
        let port_0 = SipEndpoint { port: 0, ..UDP };
        let endpoints = [port_0];
        assert_eq!(
            judged(Admission::Open, &none, |a| a.endpoints = Box::leak(Box::new(endpoints))),
            Err(DenialCode::Unfit)
        );
    }

    #[test]
    fn who_is_seen_elsewhere_is_behind_a_nat_unless_it_insists() {
        let none = Ledger::default();
        let seen = |at: &[&str], force| {
            let at: &[IpAddr] = Box::leak(ips(at).into_boxed_slice());
            judged(Admission::Open, &none, |applicant| (applicant.seen, applicant.force) = (at, force))
        };
        assert_eq!(seen(&["198.51.100.9"], false), Err(DenialCode::BehindNat));
        assert_eq!(seen(&["198.51.100.9"], true), Ok(()));
        assert_eq!(seen(&["198.51.100.9", "192.0.2.1"], false), Ok(()));
        // Seen on a private network, or in the other family, it may still be there.
        assert_eq!(seen(&["10.1.1.1", "127.0.0.1", "2001:db8::9"], false), Ok(()));
    }

    #[test]
    fn quotas_hold_for_newcomers_and_not_for_those_who_renew() {
        let mut ledger = Ledger::default();
        ledger.note("a", Some(leased("192.0.2.7")), UnixMs(0));
        ledger.note("b", Some(leased("192.0.2.8")), UnixMs(0));
        assert_eq!(judged(Admission::Open, &ledger, |_| ()), Err(DenialCode::Quota), "the site is full");
        let elsewhere = ips(&["198.51.100.1"]);
        assert_eq!(judged(Admission::Open, &ledger, |a| a.addresses = Box::leak(elsewhere.into_boxed_slice())), Ok(()));
        assert_eq!(judged(Admission::Open, &ledger, |a| a.host = "a"), Ok(()), "it renews");
        ledger.note("c", Some(leased("203.0.113.1")), UnixMs(0));
        let third = ips(&["198.51.100.1"]);
        let third: &[IpAddr] = Box::leak(third.into_boxed_slice());
        assert_eq!(judged(Admission::Open, &ledger, |a| a.addresses = third), Err(DenialCode::Quota), "all are there");
        let many: &[IpAddr] = Box::leak(ips(&["198.51.100.1", "198.51.101.1", "198.51.102.1"]).into_boxed_slice());
        assert_eq!(judged(Admission::Open, &Ledger::default(), |a| a.addresses = many), Err(DenialCode::Quota));
    }

    proptest! {
        /// Whatever is asked for, a gatekeeper of public addresses lets no address in that nobody outside reaches.
        #[test]
        fn no_request_gets_a_private_address_in(octets in any::<[u8; 4]>(), force in any::<bool>()) {
            let address = IpAddr::from(octets);
            let addresses: &[IpAddr] = Box::leak(Box::new([address]));
            let judged = judged(Admission::Open, &Ledger::default(), |a| (a.addresses, a.force) = (addresses, force));
            prop_assert!(judged.is_err() || unreachable(&address).is_none());
        }
    }
}
