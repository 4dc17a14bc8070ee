//! Domain names in multiaddrs: text in, texts out, so that libp2p never asks the DNS by itself.

use std::{net::IpAddr, time::Instant};

use super::{DnsError, Family, Resolver, invalid};

/// The most addresses that one host name is replaced by.
const MAX_HOST_ADDRESSES: usize = 16;

/// Replaces the domain name with which a multiaddr begins by the host's addresses: `/dns4/HOST/…` by `/ip4/…`,
/// `/dns6/HOST/…` by `/ip6/…`, `/dns/HOST/…` by both, one text each. A multiaddr that begins otherwise is returned as
/// it is, right or wrong.
///
/// # Errors
/// What [`Resolver::addresses`] says; [`DnsError::Invalid`] for a `/dnsaddr/`, which names an overlay, not a host.
pub async fn resolve_multiaddr_host(
    text: &str,
    resolver: &Resolver,
    deadline: Instant,
) -> Result<Vec<String>, DnsError> {
    let Some(split) = split_host(text)? else { return Ok(vec![text.to_owned()]) };
    let found = resolver.addresses(split.host, split.family, deadline).await?;
    Ok(found.values.into_iter().take(MAX_HOST_ADDRESSES).map(|address| split.with(address)).collect())
}

/// A multiaddr that begins with a domain name, in parts.
#[derive(Debug, PartialEq, Eq)]
struct Split<'a> {
    family: Family,
    host: &'a str,
    /// What follows the host, from its slash on.
    rest: &'a str,
}

impl Split<'_> {
    fn with(&self, address: IpAddr) -> String {
        let protocol = if address.is_ipv4() { "ip4" } else { "ip6" };
        format!("/{protocol}/{address}{}", self.rest)
    }
}

fn split_host(text: &str) -> Result<Option<Split<'_>>, DnsError> {
    let Some((protocol, rest)) = text.strip_prefix('/').and_then(|text| text.split_once('/')) else { return Ok(None) };
    let family = match protocol {
        "dns" => Family::Any,
        "dns4" => Family::V4,
        "dns6" => Family::V6,
        "dnsaddr" => return Err(invalid(text, "/dnsaddr/ names an overlay; give its name as --overlay")),
        _ => return Ok(None),
    };
    let (host, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok(Some(Split { family, host, rest }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        dns::{DnsServer, RrSet, Zone},
        kind::Kind,
    };

    #[test]
    fn only_a_leading_domain_name_is_replaced() {
        let split = split_host("/dns4/relay.example/tcp/4001/p2p/X/p2p-circuit").unwrap().unwrap();
        assert_eq!((split.family, split.host), (Family::V4, "relay.example"));
        assert_eq!(split.with([192, 0, 2, 1].into()), "/ip4/192.0.2.1/tcp/4001/p2p/X/p2p-circuit");

        let split = split_host("/dns/relay.example").unwrap().unwrap();
        assert_eq!(split.with("2001:db8::1".parse().unwrap()), "/ip6/2001:db8::1");

        for text in ["/ip4/192.0.2.1/tcp/1/dns4/a", "dns4/relay.example/tcp/1", "/dns4", "/dns5/a/tcp/1", "", "/", "//"]
        {
            assert_eq!(split_host(text).unwrap(), None, "{text}");
        }
        assert!(split_host("/dnsaddr/p2psip.org").is_err());
    }

    #[tokio::test]
    async fn a_host_is_replaced_by_each_of_its_addresses() {
        let zone = Zone::new("p2psip.org")
            .unwrap()
            .with("peer.p2psip.org", &RrSet::A(vec![[192, 0, 2, 1].into()]))
            .and_then(|zone| zone.with("peer.p2psip.org", &RrSet::Aaaa(vec!["2001:db8::1".parse().unwrap()])))
            .unwrap();
        let server = DnsServer::start(([127, 0, 0, 1], 0).into(), vec![zone]).await.unwrap();
        let resolver = Resolver::new(&[server.address()]).unwrap();
        let resolve =
            async |text| resolve_multiaddr_host(text, &resolver, Instant::now() + Duration::from_secs(5)).await;

        let both = resolve("/dns/peer.p2psip.org/tcp/4001").await.unwrap();
        assert_eq!(both, ["/ip6/2001:db8::1/tcp/4001", "/ip4/192.0.2.1/tcp/4001"]);
        let one = resolve("/dns4/peer.p2psip.org/udp/1/quic-v1").await.unwrap();
        assert_eq!(one, ["/ip4/192.0.2.1/udp/1/quic-v1"]);
        assert_eq!(resolve("/ip4/192.0.2.1/tcp/1").await.unwrap(), ["/ip4/192.0.2.1/tcp/1"]);
        assert_eq!(resolve("/dns4/nobody.p2psip.org/tcp/1").await.unwrap_err().kind(), Kind::Negative);
    }

    proptest! {
        #[test]
        fn the_parts_make_up_the_text(protocol in "dns[46]?", host in "[^/]{0,20}", rest in "(/.{0,20})?") {
            let text = format!("/{protocol}/{host}{rest}");
            let split = split_host(&text).unwrap().unwrap();
            prop_assert_eq!(split.host, host);
            prop_assert_eq!(split.rest, rest);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = split_host(&text);
        }
    }
}
