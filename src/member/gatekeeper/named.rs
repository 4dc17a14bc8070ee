//! Endpoints as the client protocol names them: a transport's name, and a port.

use crate::dns::publish::{SipEndpoint, Transport};

/// The endpoints that are named, each once; `None` if one of their transports is unknown.
pub(super) fn read(named: &[(String, u16)]) -> Option<Vec<SipEndpoint>> {
    let mut endpoints = Vec::new();
    for (name, port) in named {
        let endpoint = SipEndpoint { transport: Transport::named(name)?, port: *port };
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    Some(endpoints)
}

/// Names endpoints.
pub(super) fn write(endpoints: &[SipEndpoint]) -> Vec<(String, u16)> {
    endpoints.iter().map(|endpoint| (endpoint.transport.to_string(), endpoint.port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_have_names() {
        let named = |names: &[&str]| read(&names.iter().map(|name| ((*name).to_owned(), 5060)).collect::<Vec<_>>());
        assert_eq!(named(&["udp", "tls", "udp"]).unwrap().len(), 2);
        assert_eq!(named(&["udp", "sctp"]), None);
    }
}
