//! What a service record says: which member offers the service, and where.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Refusal, user::check_addresses};
use crate::name::PeerId;

/// How many endpoints an offer may have.
pub const MAX_ENDPOINTS: usize = 8;
/// The highest load: nothing more is taken.
pub const MAX_LOAD: u16 = 1000;
/// The longest time for which a service record may be made, whatever the descriptor says: nobody is to be sent for long
/// to a provider that has died. Providers renew theirs every minute.
pub const MAX_SERVICE_LIFETIME: Duration = Duration::from_secs(600);
/// The longest name of a transport, in octets.
const MAX_TRANSPORT: usize = 16;
/// The longest host: a domain name (RFC 1035 §2.3.4) or an IP address.
const MAX_HOST: usize = 253;

/// A member's offer to provide a service: a proxy peer, a relay agent peer (draft §3.3) or a gatekeeper.
///
/// The member signs it with the key that its peer id is made of, so nobody can offer a service in another's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceOffer {
    /// The member that offers it.
    pub peer: PeerId,
    /// Its multiaddrs when the record was written, without the `/p2p/` part.
    pub addresses: Vec<String>,
    /// Where the service itself is, for those that do not come over an overlay stream.
    pub endpoints: Vec<Endpoint>,
    /// Whether new users are taken; a provider that drains says no and stays listed.
    pub serving: bool,
    /// How busy the provider says it is, 0 to [`MAX_LOAD`].
    pub load: u16,
    /// The deepest level of the service's tree on which it is listed: where it had an interval for itself (RFC 7374
    /// §4.3). Tells readers how far down there is anything.
    #[serde(default)]
    pub depth: u8,
}

/// A transport address of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Endpoint {
    /// The transport in lower case, as in a Via or a TURN URI: `udp`, `tcp`, `tls`.
    pub transport: String,
    /// An IP address (IPv6 without brackets) or a host name.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl ServiceOffer {
    /// Checks the limits of an offer.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn validate(&self) -> Result<(), Refusal> {
        check_addresses(&self.addresses)?;
        if self.load > MAX_LOAD {
            return Err(Refusal::malformed(format!("a load above {MAX_LOAD}")));
        }
        if self.endpoints.len() > MAX_ENDPOINTS {
            return Err(Refusal::malformed(format!("more than {MAX_ENDPOINTS} endpoints")));
        }
        self.endpoints.iter().try_for_each(Endpoint::validate)
    }
}

impl Endpoint {
    fn validate(&self) -> Result<(), Refusal> {
        let transport = self.transport.as_bytes();
        if !(1..=MAX_TRANSPORT).contains(&transport.len())
            || !transport.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        {
            return Err(Refusal::malformed("an endpoint whose transport is not a short word in lower case"));
        }
        let host = self.host.as_bytes();
        if !(1..=MAX_HOST).contains(&host.len())
            || !host.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'))
        {
            return Err(Refusal::malformed("an endpoint whose host is neither an address nor a name"));
        }
        if self.port == 0 {
            return Err(Refusal::malformed("an endpoint with port 0"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(endpoints: &[(&str, &str, u16)]) -> ServiceOffer {
        let endpoint = |&(transport, host, port): &(&str, &str, u16)| Endpoint {
            transport: transport.to_owned(),
            host: host.to_owned(),
            port,
        };
        ServiceOffer {
            peer: PeerId::from_public_key([1; 32]),
            addresses: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()],
            endpoints: endpoints.iter().map(endpoint).collect(),
            serving: true,
            load: 0,
            depth: 0,
        }
    }

    fn why(offer: &ServiceOffer) -> String {
        offer.validate().unwrap_err().to_string()
    }

    #[test]
    fn an_ordinary_offer_passes() {
        offer(&[("udp", "192.0.2.1", 5060), ("tls", "2001:db8::1", 5061), ("tcp", "a.p2psip.org", 1)])
            .validate()
            .unwrap();
        offer(&[]).validate().unwrap();
    }

    #[test]
    fn whatever_exceeds_a_limit_is_malformed() {
        assert!(why(&offer(&[("udp", "192.0.2.1", 5060); 9])).contains("8 endpoints"));
        assert!(why(&offer(&[("UDP", "192.0.2.1", 5060)])).contains("transport"));
        assert!(why(&offer(&[("", "192.0.2.1", 5060)])).contains("transport"));
        assert!(why(&offer(&[("udp", "192.0.2.1;x", 5060)])).contains("host"));
        assert!(why(&offer(&[("udp", "", 5060)])).contains("host"));
        assert!(why(&offer(&[("udp", &"a".repeat(254), 5060)])).contains("host"));
        assert!(why(&offer(&[("udp", "192.0.2.1", 0)])).contains("port 0"));
        assert!(why(&ServiceOffer { load: 1001, ..offer(&[]) }).contains("load"));
        assert!(why(&ServiceOffer { addresses: vec!["x".to_owned()], ..offer(&[]) }).contains("multiaddr"));
    }
}
