//! What an overlay publishes in the DNS so that it can be joined: two sets of TXT records.
//!
//! | owner | text of a record | says |
//! |---|---|---|
//! | `_dnsaddr.OVERLAY` | `dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…` | a peer and where it can be dialled (libp2p's dnsaddr) |
//! | `_p2psip.OVERLAY` | `v=P2PSIP1; h=HASH; p=POLICY` | the hash of the overlay's descriptor, 64 hexadecimal digits |
//!
//! Whoever can write a TXT record under these names may not know these formats, and other software may use them too:
//! a record that does not parse is passed over and reported, never fatal while another one serves. The exception is
//! the descriptor: two valid and different ones are an error, because choosing would be guessing whom to trust. `p` is
//! for people who read the zone; what counts is the policy in the descriptor, which the hash covers.

use std::{fmt, time::Instant};

use super::{Answer, DnsError, Resolver, excerpt, invalid};
use crate::{
    client::PeerInfo,
    identity::{Descriptor, DescriptorHash, Policy},
    name::{OverlayId, PeerId},
};

/// The longest multiaddr taken from the DNS, in octets.
pub const MAX_ADDRESS: usize = 300;
/// The most addresses, of all peers together, taken from one answer.
pub const MAX_ENTRIES: usize = 64;
/// The longest descriptor record, in octets.
const MAX_DESCRIPTOR: usize = 1024;
/// What the value of every dnsaddr record begins with.
const DNSADDR: &str = "dnsaddr=";

/// Something that the DNS says, and what was passed over to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published<T> {
    /// What the valid records say.
    pub value: T,
    /// Records that were passed over.
    pub skipped: Vec<Skipped>,
    /// Whether all of it was validated by DNSSEC (see [`Answer::authenticated`]).
    pub authenticated: bool,
}

/// A record that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The beginning of its text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Which descriptor an overlay has. Its `Display` is the text of the TXT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorPointer {
    /// The descriptor's hash.
    pub hash: DescriptorHash,
    /// The overlay's policy, if it is published. Not to be relied on.
    pub policy: Option<Policy>,
}

impl From<&Descriptor> for DescriptorPointer {
    fn from(descriptor: &Descriptor) -> Self {
        Self { hash: descriptor.hash(), policy: Some(descriptor.policy()) }
    }
}

/// The name under which an overlay's peers are published.
///
/// # Errors
/// [`DnsError::Invalid`] for a purely local overlay, which has no DNS records.
pub fn dnsaddr_owner(overlay: &OverlayId) -> Result<String, DnsError> {
    owner("_dnsaddr", overlay)
}

/// The name under which the hash of an overlay's descriptor is published.
///
/// # Errors
/// [`DnsError::Invalid`] for a purely local overlay, which has no DNS records.
pub fn descriptor_owner(overlay: &OverlayId) -> Result<String, DnsError> {
    owner("_p2psip", overlay)
}

fn owner(label: &str, overlay: &OverlayId) -> Result<String, DnsError> {
    if overlay.is_fqdn() {
        Ok(format!("{label}.{overlay}"))
    } else {
        Err(invalid(overlay.as_str(), "an overlay without a fully qualified name has no DNS records"))
    }
}

/// Asks the DNS for peers of an overlay.
///
/// # Errors
/// [`DnsError::Unusable`] if there are records but no valid one; else what [`Resolver::txt`] says.
pub async fn find_peers(
    resolver: &Resolver,
    overlay: &OverlayId,
    deadline: Instant,
) -> Result<Published<Vec<PeerInfo>>, DnsError> {
    let owner = dnsaddr_owner(overlay)?;
    let answer = resolver.txt(&owner, deadline).await?;
    parse_peers(&owner, &answer)
}

/// Asks the DNS which descriptor an overlay has.
///
/// # Errors
/// [`DnsError::Ambiguous`] if it names several; [`DnsError::Unusable`] if there are records but no valid one; else what
/// [`Resolver::txt`] says.
pub async fn find_descriptor(
    resolver: &Resolver,
    overlay: &OverlayId,
    deadline: Instant,
) -> Result<Published<DescriptorPointer>, DnsError> {
    let owner = descriptor_owner(overlay)?;
    let answer = resolver.txt(&owner, deadline).await?;
    parse_descriptor(&owner, &answer)
}

/// Reads the TXT records at `owner` as peers: one entry a peer, in order of appearance, each address once.
///
/// # Errors
/// [`DnsError::Unusable`] if no record is valid.
pub fn parse_peers(owner: &str, answer: &Answer<Vec<u8>>) -> Result<Published<Vec<PeerInfo>>, DnsError> {
    let mut peers: Vec<PeerInfo> = Vec::new();
    let mut skipped = Vec::new();
    let mut entries = 0;
    for value in &answer.values {
        let parsed = match parse_dnsaddr(value) {
            Ok(_) if entries == MAX_ENTRIES => Err("64 addresses are enough"),
            parsed => parsed,
        };
        match parsed {
            Ok((peer, address)) => {
                let index = peers.iter().position(|known| known.peer == peer);
                match index.and_then(|index| peers.get_mut(index)) {
                    Some(known) if known.addresses.iter().any(|same| same == address) => continue,
                    Some(known) => known.addresses.push(address.to_owned()),
                    None => peers.push(PeerInfo { peer, addresses: vec![address.to_owned()] }),
                }
                entries += 1;
            }
            Err(why) => skipped.push(skip(value, why)),
        }
    }
    match peers.is_empty() {
        true => Err(unusable(owner, &skipped)),
        false => Ok(Published { value: peers, skipped, authenticated: answer.authenticated }),
    }
}

/// Reads the TXT records at `owner` as the pointer to a descriptor.
///
/// # Errors
/// [`DnsError::Unusable`] if no record is valid, [`DnsError::Ambiguous`] if valid ones differ.
pub fn parse_descriptor(owner: &str, answer: &Answer<Vec<u8>>) -> Result<Published<DescriptorPointer>, DnsError> {
    let mut found: Vec<DescriptorPointer> = Vec::new();
    let mut skipped = Vec::new();
    for value in &answer.values {
        match parse_pointer(value) {
            Ok(pointer) if found.contains(&pointer) => {}
            Ok(pointer) => found.push(pointer),
            Err(why) => skipped.push(skip(value, why)),
        }
    }
    if found.len() > 1 {
        return Err(DnsError::Ambiguous { name: owner.to_owned(), count: found.len() });
    }
    match found.pop() {
        Some(value) => Ok(Published { value, skipped, authenticated: answer.authenticated }),
        None => Err(unusable(owner, &skipped)),
    }
}

fn skip(value: &[u8], why: &'static str) -> Skipped {
    Skipped { text: excerpt(&String::from_utf8_lossy(value)), why }
}

fn unusable(owner: &str, skipped: &[Skipped]) -> DnsError {
    DnsError::Unusable {
        name: owner.to_owned(),
        record: "TXT",
        skipped: skipped.len(),
        why: skipped.first().map_or("there are none", |first| first.why),
    }
}

/// The text of the TXT record that publishes one address of a peer.
///
/// # Errors
/// [`DnsError::Invalid`] if a reader would pass the record over.
pub fn dnsaddr_text(peer: &PeerId, address: &str) -> Result<String, DnsError> {
    let text = format!("{DNSADDR}{address}/p2p/{peer}");
    match parse_dnsaddr(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(why) => Err(invalid(address, why)),
    }
}

/// The peer and the multiaddr, without its `/p2p/` part, in a dnsaddr record.
fn parse_dnsaddr(value: &[u8]) -> Result<(PeerId, &str), &'static str> {
    let text = value
        .strip_prefix(DNSADDR.as_bytes())
        .ok_or("it does not begin with dnsaddr=")
        .and_then(|text| printable(text, MAX_ADDRESS))?;
    let (address, peer) = text.rsplit_once("/p2p/").ok_or("it does not end in /p2p/PEERID")?;
    let peer = peer.parse().map_err(|_| "it does not end in the /p2p/PEERID of an ed25519 key")?;
    if !address.starts_with('/') {
        return Err("it has no address before /p2p/");
    }
    if address.starts_with("/dnsaddr/") {
        return Err("it points to further dnsaddr records, which are not followed");
    }
    Ok((peer, address))
}

impl fmt::Display for DescriptorPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v=P2PSIP1; h={}", self.hash)?;
        match self.policy {
            Some(policy) => write!(f, "; p={policy}"),
            None => Ok(()),
        }
    }
}

/// Reads `tag=value` pairs separated by semicolons, the version first. Unknown tags are for later versions of us.
fn parse_pointer(value: &[u8]) -> Result<DescriptorPointer, &'static str> {
    let text = printable(value, MAX_DESCRIPTOR)?;
    let mut pairs = text.split(';').map(str::trim);
    if pairs.next() != Some("v=P2PSIP1") {
        return Err("it does not begin with v=P2PSIP1");
    }
    let (mut hash, mut policy) = (None, None);
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (tag, value) = pair.split_once('=').ok_or("it has a part that is not TAG=VALUE")?;
        let twice = match tag.trim_end() {
            "h" => hash.replace(value.trim_start()).is_some(),
            "p" => policy.replace(value.trim_start()).is_some(),
            "v" => true,
            _ => false,
        };
        if twice {
            return Err("it has a tag twice");
        }
    }
    Ok(DescriptorPointer {
        hash: hash.ok_or("it has no h= with the descriptor's hash")?.parse()?,
        policy: policy.map(str::parse).transpose()?,
    })
}

/// A text of ASCII characters that print, spaces included.
fn printable(value: &[u8], limit: usize) -> Result<&str, &'static str> {
    if value.len() > limit {
        return Err("it is too long");
    }
    match std::str::from_utf8(value) {
        Ok(text) if text.bytes().all(|b| matches!(b, b' '..=b'~')) => Ok(text),
        _ => Err("it has characters that are not printable ASCII"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        dns::{DnsServer, Zone},
        kind::Kind,
    };

    fn answer<S: AsRef<[u8]>>(values: impl IntoIterator<Item = S>) -> Answer<Vec<u8>> {
        Answer { values: values.into_iter().map(|value| value.as_ref().to_vec()).collect(), authenticated: false }
    }

    fn pointer(octet: u8, policy: Option<Policy>) -> DescriptorPointer {
        DescriptorPointer { hash: format!("{octet:02x}").repeat(32).parse().unwrap(), policy }
    }

    fn peer(seed: u8) -> PeerId {
        PeerId::from_public_key([seed; 32])
    }

    #[test]
    fn addresses_of_one_peer_are_merged_and_junk_is_reported() {
        let (one, two) = (peer(1), peer(2));
        let found = parse_peers(
            "_dnsaddr.p2psip.org",
            &answer([
                format!("dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/{one}"),
                "v=spf1 -all".to_owned(),
                format!("dnsaddr=/ip6/2001:db8::1/udp/4001/quic-v1/p2p/{two}"),
                format!("dnsaddr=/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{one}"),
                format!("dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/{one}"),
                format!("dnsaddr=/ip4/192.0.2.9/tcp/4001/p2p/{two}/p2p-circuit/p2p/{one}"),
            ]),
        )
        .unwrap();
        let addresses = |index: usize| found.value[index].addresses.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(found.value.iter().map(|known| known.peer).collect::<Vec<_>>(), [one, two]);
        let circuit = format!("/ip4/192.0.2.9/tcp/4001/p2p/{two}/p2p-circuit");
        assert_eq!(addresses(0), ["/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.1/udp/4001/quic-v1", &circuit]);
        assert_eq!(addresses(1), ["/ip6/2001:db8::1/udp/4001/quic-v1"]);
        assert_eq!(found.skipped.len(), 1);
        assert!(found.skipped[0].why.contains("dnsaddr="), "{:?}", found.skipped);
    }

    #[test]
    fn every_kind_of_junk_has_its_reason() {
        let one = peer(1);
        let why = |value: &[u8]| parse_dnsaddr(value).unwrap_err();
        let text = |text: String| why(text.as_bytes());
        assert!(text(format!("DNSADDR=/ip4/192.0.2.1/tcp/1/p2p/{one}")).contains("begin"));
        assert!(why(b"dnsaddr=/ip4/192.0.2.1/tcp/4001").contains("/p2p/PEERID"));
        assert!(text(format!("dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/{one}/")).contains("ed25519"));
        assert!(
            why(b"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N").contains("ed25519")
        );
        assert!(text(format!("dnsaddr=/p2p/{one}")).contains("no address"));
        assert!(text(format!("dnsaddr=192.0.2.1/p2p/{one}")).contains("no address"));
        assert!(text(format!("dnsaddr=/dnsaddr/sv15.p2psip.org/p2p/{one}")).contains("not followed"));
        assert!(text(format!("dnsaddr=/ip4/192.0.2.1\n/tcp/1/p2p/{one}")).contains("ASCII"));
        assert!(why(b"dnsaddr=/ip4/\xff/p2p/x").contains("ASCII"));
        assert!(text(format!("dnsaddr=/{}/p2p/{one}", "x".repeat(300))).contains("too long"));
    }

    #[test]
    fn no_more_than_64_addresses_are_taken() {
        let values = (0..100u16).map(|port| format!("dnsaddr=/ip4/192.0.2.1/tcp/{port}/p2p/{}", peer(port as u8 % 3)));
        let found = parse_peers("_dnsaddr.p2psip.org", &answer(values)).unwrap();
        assert_eq!(found.value.iter().map(|known| known.addresses.len()).sum::<usize>(), MAX_ENTRIES);
        assert_eq!(found.skipped.len(), 36);
    }

    #[test]
    fn exactly_one_descriptor_counts() {
        let (pointer, other) = (pointer(0xab, Some(Policy::Enrolled)), pointer(0xcd, Some(Policy::Enrolled)));
        let (text, other) = (pointer.to_string(), other.to_string());
        assert_eq!(text, format!("v=P2PSIP1; h={}; p=enrolled", "ab".repeat(32)));
        let parse = |values: &[&str]| parse_descriptor("_p2psip.p2psip.org", &answer(values));

        let found = parse(&["google-site-verification=x", &text, &text.to_uppercase().replace("V=", "v=")]).unwrap();
        assert_eq!(found.value, pointer);
        assert_eq!(found.skipped.len(), 2);

        // Layout and the case of the hash do not make it another descriptor.
        let spaced = format!("v=P2PSIP1;p=enrolled;x=1 ; h = {};", "AB".repeat(32));
        assert_eq!(parse(&[&text, &spaced]).unwrap().value, pointer);

        let ambiguous = parse(&[&text, &other]).unwrap_err();
        assert!(matches!(ambiguous, DnsError::Ambiguous { count: 2, .. }), "{ambiguous}");
        let unusable = parse(&["v=P2PSIP2; h=00", "v=P2PSIP1"]).unwrap_err();
        assert!(matches!(unusable, DnsError::Unusable { skipped: 2, .. }), "{unusable}");
        assert_eq!(unusable.kind(), Kind::Negative);
    }

    #[test]
    fn a_damaged_descriptor_record_is_not_half_believed() {
        let hash = "ab".repeat(32);
        for (text, part) in [
            ("v=P2PSIP1; p=open".to_owned(), "no h="),
            (format!("v=P2PSIP1; h={hash}00"), "64"),
            (format!("v=P2PSIP1; h={}", hash.replace('b', "g")), "64"),
            (format!("v=P2PSIP1; h={hash}; h={hash}"), "twice"),
            (format!("v=P2PSIP1; h={hash}; v=P2PSIP1"), "twice"),
            (format!("v=P2PSIP1; h={hash}; p=Open!"), "policy"),
            (format!("v=P2PSIP1; h={hash}; enrolled"), "TAG=VALUE"),
            (format!("h={hash}; v=P2PSIP1"), "begin"),
            (format!("v=P2PSIP1; h={hash}; x={}", "y".repeat(MAX_DESCRIPTOR)), "long"),
        ] {
            let why = parse_pointer(text.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn a_local_overlay_is_never_asked_about() {
        let overlay = OverlayId::parse_local("testnet").unwrap();
        assert!(dnsaddr_owner(&overlay).is_err() && descriptor_owner(&overlay).is_err());
        let overlay = OverlayId::parse("p2psip.org").unwrap();
        assert_eq!(dnsaddr_owner(&overlay).unwrap(), "_dnsaddr.p2psip.org");
        assert_eq!(descriptor_owner(&overlay).unwrap(), "_p2psip.p2psip.org");
    }

    #[test]
    fn what_readers_would_pass_over_is_not_rendered() {
        assert!(dnsaddr_text(&peer(1), "/ip4/192.0.2.1/tcp/4001").is_ok());
        for wrong in ["", "ip4/192.0.2.1", "/dnsaddr/x", "/ip4/192.0.2.1\t", &format!("/{}", "x".repeat(300))] {
            assert!(dnsaddr_text(&peer(1), wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_overlay_is_found_by_what_it_publishes() {
        let overlay = OverlayId::parse("p2psip.org").unwrap();
        let (first, second) = (pointer(0xab, Some(Policy::Enrolled)), pointer(0xcd, None));
        let zone = Zone::new("p2psip.org").unwrap().with_ttl(0);
        let server = DnsServer::start(([127, 0, 0, 1], 0).into(), vec![zone]).await.unwrap();
        let soon = || Instant::now() + Duration::from_secs(5);
        let resolver = Resolver::new(&[server.address()]).unwrap();
        assert!(matches!(find_peers(&resolver, &overlay, soon()).await, Err(DnsError::NxDomain { .. })));

        let address = dnsaddr_text(&peer(1), "/ip4/127.0.0.1/tcp/4001").unwrap();
        server.set_txt("_dnsaddr.p2psip.org", &["junk", &address]).await.unwrap();
        server.set_txt("_p2psip.p2psip.org", &[&first.to_string()]).await.unwrap();
        // The denial above is remembered, for the zone's negative TTL: a resolver that starts later knows nothing of it.
        let resolver = Resolver::new(&[server.address()]).unwrap();

        let found = find_peers(&resolver, &overlay, soon()).await.unwrap();
        assert_eq!(found.value.len(), 1);
        assert_eq!((found.value[0].peer, found.skipped.len(), found.authenticated), (peer(1), 1, false));
        assert_eq!(found.value[0].addresses, ["/ip4/127.0.0.1/tcp/4001"]);
        assert_eq!(find_descriptor(&resolver, &overlay, soon()).await.unwrap().value, first);

        server.set_txt("_p2psip.p2psip.org", &[&first.to_string(), &second.to_string()]).await.unwrap();
        let error = find_descriptor(&resolver, &overlay, soon()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Untrusted, "{error:?}");
    }

    proptest! {
        #[test]
        fn no_record_makes_the_parsers_panic(values: Vec<Vec<u8>>) {
            let _ = parse_peers("x", &answer(&values));
            let _ = parse_descriptor("x", &answer(&values));
        }

        #[test]
        fn no_text_behind_the_right_beginning_makes_them_panic(tail in ".*") {
            let _ = parse_dnsaddr(format!("dnsaddr=/{tail}/p2p/{}", peer(1)).as_bytes());
            let _ = parse_pointer(format!("v=P2PSIP1;{tail}").as_bytes());
        }

        #[test]
        fn a_rendered_pointer_is_read_back(
            hash in "[0-9a-f]{64}",
            policy in proptest::option::of(prop_oneof![Just(Policy::Open), Just(Policy::Enrolled)]),
        ) {
            let pointer = DescriptorPointer { hash: hash.parse().unwrap(), policy };
            prop_assert_eq!(parse_pointer(pointer.to_string().as_bytes()), Ok(pointer));
        }

        #[test]
        fn a_rendered_address_is_read_back(seed: u8, port: u16) {
            let address = format!("/ip4/192.0.2.1/tcp/{port}");
            let text = dnsaddr_text(&peer(seed), &address).unwrap();
            prop_assert_eq!(parse_dnsaddr(text.as_bytes()), Ok((peer(seed), address.as_str())));
        }
    }
}
