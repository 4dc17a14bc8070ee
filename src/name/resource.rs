//! What records are stored under: users, services and nodes of their trees.

use std::{fmt, str::FromStr};

use super::{Aor, NameError, OverlayId, Position, ServiceNode, ServiceUri, TreeNode, text_serde};

/// What records are stored under: a user or a service (the Resource Name of RFC 7890).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceName {
    /// A user's AOR; routing records live here.
    User(Aor),
    /// A well-known service URI, under which its providers are found, all of them or some (draft §3.3).
    Service(ServiceUri),
    /// A part of the list of a service's providers; service records live here (RFC 7374).
    Node(ServiceNode),
}

impl ResourceName {
    /// Parses a user's URI (`sip:alice@p2psip.org`), a service URI (`sip:p2psip.org`, `turn:p2psip.org`), or a node of a
    /// service's tree (`turn:p2psip.org#9/311`).
    ///
    /// # Errors
    /// [`NameError`]: of a user if there is a user part, otherwise of a service.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(NameError::Scheme { text: text.to_owned(), why: "it has no scheme" });
        };
        let is_sip = scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips");
        let is_service = ["turn", "teredo", "gatekeeper"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
        if (is_sip || is_service) && rest.contains('#') && !rest.contains('@') {
            ServiceNode::parse(text).map(Self::Node)
        } else if is_sip && (rest.contains('@') || scheme.len() == 4) {
            Aor::parse(text).map(Self::User)
        } else if is_sip || is_service {
            ServiceUri::parse(text).map(Self::Service)
        } else {
            Err(NameError::Scheme { text: text.to_owned(), why: "its scheme is unknown here" })
        }
    }

    /// The overlay in which the name lives.
    pub const fn overlay(&self) -> &OverlayId {
        match self {
            Self::User(aor) => aor.host(),
            Self::Service(uri) => uri.overlay(),
            Self::Node(name) => name.service().overlay(),
        }
    }

    /// Where the name's records live: SHA-256 of a user's canonical URI, [`ServiceNode::position`] of a tree node. A
    /// service as a whole has records at many places; this is that of the first node of its tree.
    pub fn position(&self) -> Position {
        match self {
            Self::User(aor) => Position::of_name(&aor.to_string()),
            Self::Service(uri) => TreeNode::ROOT.position(uri),
            Self::Node(name) => name.position(),
        }
    }

    /// The service that it names or is a part of; `None` for a user.
    pub const fn service(&self) -> Option<&ServiceUri> {
        match self {
            Self::User(_) => None,
            Self::Service(uri) => Some(uri),
            Self::Node(name) => Some(name.service()),
        }
    }

    /// Checks that the name belongs to `overlay` (R4, R17).
    ///
    /// # Errors
    /// [`NameError::ForeignHost`].
    pub fn check_overlay(&self, overlay: &OverlayId) -> Result<(), NameError> {
        if self.overlay() == overlay {
            Ok(())
        } else {
            Err(NameError::ForeignHost { name: self.to_string(), overlay: overlay.clone() })
        }
    }
}

impl From<Aor> for ResourceName {
    fn from(aor: Aor) -> Self {
        Self::User(aor)
    }
}

impl From<ServiceUri> for ResourceName {
    fn from(uri: ServiceUri) -> Self {
        Self::Service(uri)
    }
}

impl From<ServiceNode> for ResourceName {
    fn from(name: ServiceNode) -> Self {
        Self::Node(name)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(aor) => aor.fmt(f),
            Self::Service(uri) => uri.fmt(f),
            Self::Node(name) => name.fmt(f),
        }
    }
}

impl FromStr for ResourceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

text_serde!(ResourceName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_part_tells_users_from_services() {
        assert!(matches!(ResourceName::parse("sip:alice@p2psip.org").unwrap(), ResourceName::User(_)));
        for service in ["sip:p2psip.org", "turn:p2psip.org", "teredo:p2psip.org", "gatekeeper:p2psip.org"] {
            assert!(matches!(ResourceName::parse(service).unwrap(), ResourceName::Service(_)), "{service}");
        }
        assert!(matches!(ResourceName::parse("turn:p2psip.org#2/3").unwrap(), ResourceName::Node(_)));
        for nothing in [
            "sip:alice@p2psip.org#2/3",
            "p2psip.org",
            "http://p2psip.org",
            "turn:alice@p2psip.org",
            "sips:p2psip.org",
            "",
        ] {
            assert!(ResourceName::parse(nothing).is_err(), "{nothing}");
        }
    }
}
