//! The gatekeeper's file: which zone, by which key, whom it lets in, how many and for how long.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::policy::{Admission, Quotas};
use crate::{dns::parse_server, identity::files, kind::Kind, name::PeerId};

/// The largest file taken, in octets: a closed list may be long.
const MAX_FILE: u64 = 1 << 20;
/// The leases that can be granted, in seconds: renewed at a third, so not too short for that.
const LEASES: std::ops::RangeInclusive<u32> = 5..=86_400;

/// A file with every key explained.
pub const TEMPLATE: &str = r#"# What a gatekeeper does: p2p-join --gatekeeper FILE. Only its owner may be able to read it (chmod 600).
# It is read again when it changes: policy, allow, lease, allow_private and quotas then hold at once.
# Paths are relative to this file's folder. Remove the '#' before what you want to set.

# The file with the zone's TSIG key, as tsig-keygen writes it; of mode 0600 too.
key = "gatekeeper.key"

# The zone's primary name server; without it the one that the zone's SOA record names.
#server = "192.0.2.53"

# The zone; if this is given and the server has another one, the gatekeeper does not start.
#zone = "p2psip.org"

# Who may enter, if it proves to be where it says:
#   closed    the peers in the list 'allow'
#   enrolled  members with a certificate for sip:OVERLAY
#   open      anybody
policy = "enrolled"
#allow = ["12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"]

# For how long records stay without being renewed, in seconds: 5 to 86400. A proxy peer renews at a third.
#lease = 120

# CAs (PEM) whose certificates a proxy peer's TLS may have; else the system's.
#roots = "roots.pem"

# Whether addresses may enter that the public network does not reach: for laboratories.
#allow_private = false

[quotas]
# Proxy peers in all. A name server may have a limit of its own on the records of a name: BIND's max-records-per-type is
# 100 unless told otherwise.
#peers = 100
# Proxy peers of one site: an IPv4 /24, an IPv6 /56.
#peers_per_prefix = 8
# Addresses of one proxy peer, and so of one certificate.
#addresses_per_certificate = 4
# Probes to one site in a minute.
#probes_per_minute = 240
"#;

/// What a gatekeeper's file says.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file with the zone's TSIG key.
    pub key: PathBuf,
    /// The zone's primary name server, if it is not to be looked for.
    pub server: Option<SocketAddr>,
    /// The zone that it must be.
    pub zone: Option<String>,
    /// Who may enter.
    pub admission: Admission,
    /// How many.
    pub quotas: Quotas,
    /// For how long, in seconds.
    pub lease: u32,
    /// The CAs of TLS certificates, if not the system's.
    pub roots: Option<PathBuf>,
    /// Whether addresses may enter that the public network does not reach.
    pub allow_private: bool,
}

/// What is wrong with a gatekeeper's file.
#[derive(Debug, thiserror::Error)]
#[error("the gatekeeper's file {path} cannot be used: {why}")]
pub struct ConfigError {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

impl ConfigError {
    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        Kind::Usage
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    key: PathBuf,
    server: Option<String>,
    zone: Option<String>,
    policy: Word,
    #[serde(default)]
    allow: Vec<String>,
    lease: Option<u32>,
    roots: Option<PathBuf>,
    #[serde(default)]
    allow_private: bool,
    #[serde(default)]
    quotas: Quotas,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Closed,
    Enrolled,
    Open,
}

impl Config {
    /// Reads a file that nobody else may read.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let error = |why: String| ConfigError { path: path.display().to_string(), why };
        let octets = files::read_secret(path, MAX_FILE).map_err(|cause| error(cause.to_string()))?;
        let text = String::from_utf8(octets).map_err(|_| error("it is not text".to_owned()))?;
        Self::parse(&text, path.parent().unwrap_or_else(|| Path::new(""))).map_err(error)
    }

    /// Reads the text of a file in `folder`.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|wrong| {
            let before = wrong.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {}", wrong.message().replace('\n', ", "))
        })?;
        let server = file.server.as_deref().map(parse_server).transpose().map_err(|error| error.to_string())?;
        let peers = file.allow.iter().map(|text| text.parse::<PeerId>().map_err(|error| format!("allow: {error}")));
        let peers = peers.collect::<Result<BTreeSet<_>, _>>()?;
        if file.policy != Word::Closed && !peers.is_empty() {
            return Err("'allow' is for the policy closed".to_owned());
        }
        let admission = match file.policy {
            Word::Closed => Admission::Closed(peers),
            Word::Enrolled => Admission::Enrolled,
            Word::Open => Admission::Open,
        };
        let lease = file.lease.unwrap_or(120);
        if !LEASES.contains(&lease) {
            return Err(format!("lease is {lease}; it must lie between {} and {}", LEASES.start(), LEASES.end()));
        }
        file.quotas.check()?;
        Ok(Self {
            key: folder.join(file.key),
            server,
            zone: file.zone.map(|zone| zone.trim_end_matches('.').to_ascii_lowercase()),
            admission,
            quotas: file.quotas,
            lease,
            roots: file.roots.map(|roots| folder.join(roots)),
            allow_private: file.allow_private,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/p2psip"))
    }

    #[test]
    fn the_template_holds_and_so_do_its_examples() {
        let config = parse(TEMPLATE).unwrap();
        assert_eq!(config.key, Path::new("/etc/p2psip/gatekeeper.key"));
        assert_eq!((config.lease, config.allow_private, config.quotas), (120, false, Quotas::default()));
        assert!(matches!(config.admission, Admission::Enrolled));
        let set: String = TEMPLATE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let all = parse(&set.replace("\"enrolled\"", "\"closed\"")).unwrap();
        assert!(matches!(all.admission, Admission::Closed(peers) if peers.len() == 1));
        assert_eq!((all.quotas, all.lease), (Quotas::default(), 120), "the examples are the defaults");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (text, says) in [
            ("policy = 'open'", "missing field `key`"),
            ("key = 'k'\npolicy = 'ajar'", "line 2: unknown variant `ajar`"),
            ("key = 'k'\npolicy = 'open'\nquotas.pears = 1", "unknown field `pears`"),
            ("key = 'k'\npolicy = 'open'\nlease = 4", "lease is 4"),
            ("key = 'k'\npolicy = 'open'\nquotas.peers = 0", "quotas.peers is 0"),
            ("key = 'k'\npolicy = 'open'\nallow = []\nserver = 'ns1'", "'ns1'"),
            ("key = 'k'\npolicy = 'closed'\nallow = ['x']", "allow: "),
            ("key = 'k'\npolicy = 'open'\nallow = ['12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA']", "closed"),
            ("key =", "line 1: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gatekeeper.toml");
        fs::write(&path, TEMPLATE).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Config::load(&path).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains("640"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Config::load(&path).unwrap();
    }
}
