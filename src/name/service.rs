//! Services that members offer, and their well-known URIs (draft §3.3).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{NameError, OverlayId, overlay_id, text_serde};

/// A service that members offer to the overlay, each found under one well-known URI (draft §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Proxy peers, `sip:OVERLAY` (draft §3.3.1).
    Proxy,
    /// TURN relay agent peers, `turn:OVERLAY` (draft §3.3.2; the scheme is that of RFC 7065).
    Turn,
    /// Teredo relay agent peers, `teredo:OVERLAY` (draft §3.3.2; a scheme private to the overlay).
    Teredo,
    /// The holders of the overlay's DNS key, `gatekeeper:OVERLAY` (a scheme private to the overlay).
    Gatekeeper,
}

impl Service {
    /// Every service, in the order in which tools list them.
    pub const ALL: [Self; 4] = [Self::Proxy, Self::Turn, Self::Teredo, Self::Gatekeeper];

    /// The URI scheme under which the service is found.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Proxy => "sip",
            Self::Turn => "turn",
            Self::Teredo => "teredo",
            Self::Gatekeeper => "gatekeeper",
        }
    }

    fn from_scheme(scheme: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.scheme().eq_ignore_ascii_case(scheme))
    }
}

/// A well-known URI: a service of one overlay, with only the host set (draft §3.3.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceUri {
    service: Service,
    overlay: OverlayId,
}

impl ServiceUri {
    /// The URI of `service` in `overlay`.
    pub const fn new(service: Service, overlay: OverlayId) -> Self {
        Self { service, overlay }
    }

    /// Parses `sip:OVERLAY`, `turn:OVERLAY`, `teredo:OVERLAY` or `gatekeeper:OVERLAY`.
    ///
    /// # Errors
    /// [`NameError::Service`]: another scheme, or anything but a host (R17: no user part, port or parameter).
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let error = |why| NameError::Service { text: text.to_owned(), why };
        let (scheme, rest) = text.split_once(':').ok_or_else(|| error("it has no scheme"))?;
        let service = Service::from_scheme(scheme)
            .ok_or_else(|| error("its scheme is not sip:, turn:, teredo: or gatekeeper:"))?;
        if rest.contains('@') {
            return Err(error("it has a user part; only the host may be set"));
        }
        if rest.contains(':') {
            return Err(error("it has a port; only the host may be set"));
        }
        if rest.contains([';', '?']) {
            return Err(error("it has parameters; only the host may be set"));
        }
        overlay_id::check(rest).map_err(error)?;
        let overlay = OverlayId::parse_local(rest).map_err(|_| error("its host is not a domain name"))?;
        Ok(Self { service, overlay })
    }

    /// Which service this is.
    pub const fn service(&self) -> Service {
        self.service
    }

    /// The overlay that offers it.
    pub const fn overlay(&self) -> &OverlayId {
        &self.overlay
    }
}

impl fmt::Display for ServiceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.service.scheme(), self.overlay))
    }
}

impl FromStr for ServiceUri {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

text_serde!(ServiceUri);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_one_uri() {
        for service in Service::ALL {
            let text = format!("{}:P2PSIP.org", service.scheme());
            let uri = ServiceUri::parse(&text).unwrap();
            assert_eq!(uri.service(), service);
            assert_eq!(uri.to_string(), text.to_lowercase());
        }
    }

    #[test]
    fn anything_beyond_the_host_is_refused() {
        for (text, why) in [
            ("sip:alice@p2psip.org", "user part"),
            ("sip:p2psip.org:5060", "port"),
            ("turn:p2psip.org?transport=udp", "parameters"),
            ("sip:p2psip.org;lr", "parameters"),
            ("sips:p2psip.org", "scheme"),
            ("p2psip.org", "no scheme"),
            ("turn:", "empty"),
        ] {
            let error = ServiceUri::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
