//! What an overlay is: its identifier, who may speak in it, and the limits that all members keep.

use std::{fmt, path::Path, str::FromStr};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Certificate, IdentityError, files, one_line, pem::MAX_TEXT};
use crate::name::OverlayId;

/// The one version of the descriptor that this program knows.
const VERSION: u32 = 1;

/// Whose records are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Records of keys that the overlay's CA has certified for their names.
    Enrolled,
    /// Records of any key: anybody may claim an AOR and offer a service, and a reader can only tell which key signed.
    Open,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Enrolled => "enrolled",
            Self::Open => "open",
        })
    }
}

impl FromStr for Policy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "enrolled" => Ok(Self::Enrolled),
            "open" => Ok(Self::Open),
            _ => Err("a policy is enrolled or open"),
        }
    }
}

/// The limits that every member of the overlay keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// On how many storers a record is kept: 1 to 20, the size of a Kademlia bucket.
    pub replication: u8,
    /// The longest time for which a record may be valid, in seconds: 1 to 2592000 (30 days).
    pub max_lifetime_s: u32,
    /// The time for which a record is valid if nobody says otherwise, in seconds: 1 to `max_lifetime_s`.
    pub default_lifetime_s: u32,
    /// The largest record with its signature and certificate, in bytes: 1024 to 65536.
    pub max_record_bytes: usize,
    /// The most records under one name: a user's devices, or a service's providers on one storer; 1 to 256.
    pub max_instances: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            replication: 8,
            max_lifetime_s: 86_400,
            default_lifetime_s: 3_600,
            max_record_bytes: 8_192,
            max_instances: 32,
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), String> {
        let ranges = [
            ("replication", usize::from(self.replication), 1..=20),
            ("max_lifetime_s", self.max_lifetime_s as usize, 1..=2_592_000),
            ("default_lifetime_s", self.default_lifetime_s as usize, 1..=self.max_lifetime_s as usize),
            ("max_record_bytes", self.max_record_bytes, 1024..=65_536),
            ("max_instances", self.max_instances, 1..=256),
        ];
        match ranges.into_iter().find(|(_, value, range)| !range.contains(value)) {
            Some((name, value, range)) => {
                Err(format!("limits.{name} is {value}; it must lie between {} and {}", range.start(), range.end()))
            }
            None => Ok(()),
        }
    }
}

/// The SHA-256 of a descriptor's content. It is published in the DNS, pinned in homes and part of the protocol names,
/// so that two overlays never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DescriptorHash([u8; 32]);

impl DescriptorHash {
    /// The 32 octets.
    pub const fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 16 hexadecimal digits, for protocol names.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..8])
    }
}

impl fmt::Display for DescriptorHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for DescriptorHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DescriptorHash({}…)", self.short())
    }
}

impl FromStr for DescriptorHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|octets| octets.try_into().ok());
        octets.map(Self).ok_or("a descriptor's hash is 64 hexadecimal digits")
    }
}

impl TryFrom<String> for DescriptorHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DescriptorHash> for String {
    fn from(hash: DescriptorHash) -> Self {
        hash.to_string()
    }
}

/// What an overlay is. One that exists keeps all its rules: an interconnecting overlay has an FQDN (draft §2.1), an
/// enrolled one a CA, and the limits lie in their ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    overlay: OverlayId,
    local: bool,
    policy: Policy,
    ca: Option<Certificate>,
    limits: Limits,
    hash: DescriptorHash,
}

/// The file's layout.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    overlay: OverlayId,
    #[serde(default)]
    local: bool,
    policy: Policy,
    ca: Option<String>,
    #[serde(default)]
    limits: Limits,
}

/// The part of the file that tells whether the rest can be understood.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// What the hash is taken over: CBOR of these fields in this order, integers in their shortest form.
#[derive(Serialize)]
struct Hashed<'a> {
    version: u32,
    overlay: &'a OverlayId,
    local: bool,
    policy: Policy,
    #[serde(with = "serde_bytes")]
    ca: Option<&'a [u8]>,
    limits: Limits,
}

impl Descriptor {
    /// A descriptor; a `ca` is needed for, and only for, [`Policy::Enrolled`].
    ///
    /// # Errors
    /// [`IdentityError::Descriptor`] says which rule is broken.
    pub fn new(
        overlay: OverlayId,
        local: bool,
        policy: Policy,
        ca: Option<Certificate>,
        limits: Limits,
    ) -> Result<Self, IdentityError> {
        Self::known(overlay, local, policy, ca, limits)?.check_authority()
    }

    /// The same without asking whether the CA has signed its own certificate, which says nothing about whether to trust
    /// it (RFC 5280 §6.1.1 takes a trust anchor's name and key as they are): of a descriptor that was checked before.
    fn known(
        overlay: OverlayId,
        local: bool,
        policy: Policy,
        ca: Option<Certificate>,
        limits: Limits,
    ) -> Result<Self, IdentityError> {
        let error = |why: String| IdentityError::Descriptor { why };
        if !local && !overlay.is_fqdn() {
            return Err(error(format!(
                "overlay '{overlay}' is not a fully qualified domain name (draft §2.1); only a local overlay (--local) \
                 may have such a name"
            )));
        }
        match (policy, &ca) {
            (Policy::Enrolled, None) => return Err(error("the policy enrolled needs the certificate of a CA".into())),
            (Policy::Open, Some(_)) => return Err(error("the policy open has no CA, but one is given".into())),
            (Policy::Enrolled, Some(_)) | (Policy::Open, None) => {}
        }
        limits.check().map_err(error)?;
        let hashed = Hashed {
            version: VERSION,
            overlay: &overlay,
            local,
            policy,
            ca: ca.as_ref().map(Certificate::der),
            limits,
        };
        let mut octets = Vec::new();
        ciborium::into_writer(&hashed, &mut octets).map_err(|why| error(format!("it cannot be encoded: {why}")))?;
        let hash = DescriptorHash(Sha256::digest(&octets).into());
        Ok(Self { overlay, local, policy, ca, limits, hash })
    }

    fn check_authority(self) -> Result<Self, IdentityError> {
        match self.ca.as_ref().map_or(Ok(()), Certificate::check_authority) {
            Ok(()) => Ok(self),
            Err(reason) => Err(IdentityError::Descriptor { why: format!("its CA's certificate is refused: {reason}") }),
        }
    }

    /// Reads a descriptor from TOML; an unknown key is refused, for it may be a limit that others keep.
    ///
    /// # Errors
    /// [`IdentityError::Descriptor`].
    pub fn from_toml(text: &str) -> Result<Self, IdentityError> {
        Self::read(text)?.check_authority()
    }

    fn read(text: &str) -> Result<Self, IdentityError> {
        let error = |why: String| IdentityError::Descriptor { why };
        if text.len() > MAX_TEXT {
            return Err(error("it is longer than 64 KiB".to_owned()));
        }
        let explain = |why| error(one_line(text, &why));
        let file = toml::from_str::<File>(text);
        let version = match &file {
            Ok(file) => file.version,
            // What another version says may be unintelligible, but that it is another one can be told.
            Err(_) => toml::from_str::<Version>(text).map_err(explain)?.version,
        };
        if version != VERSION {
            return Err(error(format!("it is of version {version}; this program knows version {VERSION}")));
        }
        let file = file.map_err(explain)?;
        let ca = file
            .ca
            .map(|text| Certificate::from_pem(&text))
            .transpose()
            .map_err(|reason| error(format!("its CA's certificate is refused: {reason}")))?;
        Self::known(file.overlay, file.local, file.policy, ca, file.limits)
    }

    /// The descriptor as a commented TOML file.
    pub fn to_toml(&self) -> String {
        let Limits { replication, max_lifetime_s, default_lifetime_s, max_record_bytes, max_instances } = self.limits;
        let ca = match &self.ca {
            Some(ca) => format!("# The CA that certifies them.\nca = \"\"\"\n{}\"\"\"\n", ca.to_pem()),
            None => String::new(),
        };
        format!(
            "# What the overlay {overlay} is. All its members need a descriptor of this content;\n\
             # comments and layout are free.\n\
             version = {VERSION}\n\
             overlay = \"{overlay}\"\n\
             # A local overlay does not interconnect: it has no proxy peers and no DNS records.\n\
             local = {local}\n\
             # enrolled: only keys that the CA has certified are believed; open: any key is.\n\
             policy = \"{policy}\"\n\
             {ca}\n\
             [limits]\n\
             # On how many peers a record is kept.\n\
             replication = {replication}\n\
             # Seconds for which a record is valid: at most, and if nobody says otherwise.\n\
             max_lifetime_s = {max_lifetime_s}\n\
             default_lifetime_s = {default_lifetime_s}\n\
             # The largest record in bytes, with its signature and certificate.\n\
             max_record_bytes = {max_record_bytes}\n\
             # The most records under one name.\n\
             max_instances = {max_instances}\n",
            overlay = self.overlay,
            local = self.local,
            policy = self.policy,
        )
    }

    /// Reads a file that [`Descriptor::save`] has written. What was checked before it was saved is not checked again: it
    /// takes a tool that lives for 2 ms a good part of them.
    ///
    /// # Errors
    /// [`IdentityError::Format`] with the rule that is broken, [`IdentityError::Io`].
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let format = |why: String| IdentityError::Format {
            path: path.display().to_string(),
            what: "an overlay descriptor",
            why,
        };
        let octets = files::read(path, MAX_TEXT as u64)?;
        let text = str::from_utf8(&octets).map_err(|_| format("it is not text".to_owned()))?;
        Self::read(text).map_err(|error| match error {
            IdentityError::Descriptor { why } => format(why),
            other => other,
        })
    }

    /// Writes the descriptor, replacing the file if there is one.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        files::replace(path, self.to_toml().as_bytes())
    }

    /// The version of the descriptor's rules.
    pub const fn version(&self) -> u32 {
        VERSION
    }

    /// The overlay identifier.
    pub const fn overlay(&self) -> &OverlayId {
        &self.overlay
    }

    /// Whether the overlay is purely local: without proxy peers and DNS records (draft §2.1).
    pub const fn is_local(&self) -> bool {
        self.local
    }

    /// Whose records are believed.
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// The CA's certificate; present exactly if the policy is [`Policy::Enrolled`].
    pub const fn ca(&self) -> Option<&Certificate> {
        self.ca.as_ref()
    }

    /// The limits that all members keep.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The hash of the content; neither comments nor the layout of the file count.
    pub const fn hash(&self) -> DescriptorHash {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::UnixMs,
        identity::{Authority, CertificateRequest, SecretKey},
    };

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn id(text: &str) -> OverlayId {
        text.parse().unwrap()
    }

    fn enrolled() -> Descriptor {
        let ca = Authority::create(&id("p2psip.org"), NOW).unwrap().certificate().clone();
        Descriptor::new(id("p2psip.org"), false, Policy::Enrolled, Some(ca), Limits::default()).unwrap()
    }

    fn open() -> Descriptor {
        Descriptor::new(id("p2psip.org"), false, Policy::Open, None, Limits::default()).unwrap()
    }

    fn why(text: &str) -> String {
        let error = Descriptor::from_toml(text).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn toml_round_trips() {
        for descriptor in [enrolled(), open()] {
            let read = Descriptor::from_toml(&descriptor.to_toml()).unwrap();
            assert_eq!(read, descriptor);
            assert_eq!(read.hash(), descriptor.hash());
        }
    }

    #[test]
    fn the_hash_is_of_the_content_alone() {
        let descriptor = enrolled();
        let text = descriptor.to_toml();
        let bare: String = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("max_instances"))
            .map(|line| format!("{}\n", line.replace(" = ", "=")))
            .collect();
        let crlf = text.replace('\n', "\r\n").replace("p2psip.org", "P2PSIP.org.");
        for same in [bare, crlf] {
            assert_ne!(same, text);
            assert_eq!(Descriptor::from_toml(&same).unwrap().hash(), descriptor.hash(), "{same}");
        }
        let other = text.replace("replication = 8", "replication = 9");
        assert_ne!(Descriptor::from_toml(&other).unwrap().hash(), descriptor.hash());
        assert_ne!(enrolled().hash(), descriptor.hash(), "another CA");
    }

    #[test]
    fn the_hash_does_not_change_between_releases() {
        // Published in the DNS and pinned in homes: whoever changes this value splits every overlay.
        assert_eq!(open().hash().to_string(), "f94b564a9834fd142ed42738cae838489ca8de1e1c471eda174bd604f73c503d");
        assert_eq!(open().hash().short(), open().hash().to_string()[..16]);
        assert_eq!(open().hash().to_string().parse::<DescriptorHash>().unwrap(), open().hash());
        assert!("abc".parse::<DescriptorHash>().is_err());
    }

    #[test]
    fn an_overlay_that_interconnects_has_an_fqdn() {
        let text = open().to_toml().replace("\"p2psip.org\"", "\"testnet\"");
        assert!(why(&text).contains("not a fully qualified domain name"));
        let local = Descriptor::from_toml(&text.replace("local = false", "local = true")).unwrap();
        assert!(local.is_local());
        assert_eq!(local.overlay().as_str(), "testnet");
    }

    #[test]
    fn a_ca_is_needed_exactly_for_enrolment() {
        assert!(why(&open().to_toml().replace("\"open\"", "\"enrolled\"")).contains("needs the certificate of a CA"));
        assert!(why(&enrolled().to_toml().replace("\"enrolled\"", "\"open\"")).contains("has no CA"));
        let authority = Authority::create(&id("p2psip.org"), NOW).unwrap();
        let names = ["sip:alice@p2psip.org".parse().unwrap()];
        let request = CertificateRequest::create(&SecretKey::generate().unwrap(), &names).unwrap();
        let leaf = authority.issue(&request, &names, std::time::Duration::from_secs(60), NOW).unwrap();
        let refused = Descriptor::new(id("p2psip.org"), false, Policy::Enrolled, Some(leaf), Limits::default());
        assert!(refused.unwrap_err().to_string().contains("not a CA's"));
    }

    #[test]
    fn wrong_descriptors_are_refused_with_line_and_key() {
        let text = open().to_toml();
        let line = text.lines().position(|line| line.starts_with("replication")).unwrap() + 1;
        let error = why(&text.replace("replication", "replicas"));
        assert!(error.contains(&format!("line {line}: unknown field `replicas`")), "{error}");
        assert!(why(&text.replace("local =", "locale =")).contains("unknown field `locale`"));
        assert!(why(&text.replace("version = 1", "version = 2\nfuture = 1")).contains("knows version 1"));
        assert!(why(&text.replace("\"open\"", "\"closed\"")).contains("closed"));
        assert!(why("").contains("version"));
        assert!(why("version = ").contains("line 1"));
        assert!(why(&" ".repeat(MAX_TEXT + 1)).contains("64 KiB"));
    }

    #[test]
    fn limits_have_ranges() {
        let text = open().to_toml();
        for (from, to) in [
            ("replication = 8", "replication = 0"),
            ("replication = 8", "replication = 21"),
            ("max_lifetime_s = 86400", "max_lifetime_s = 0"),
            ("default_lifetime_s = 3600", "default_lifetime_s = 86401"),
            ("max_record_bytes = 8192", "max_record_bytes = 100"),
            ("max_instances = 32", "max_instances = 0"),
        ] {
            let error = why(&text.replace(from, to));
            assert!(error.contains("must lie between"), "{to}: {error}");
        }
    }

    #[test]
    fn files_round_trip_and_errors_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("descriptor.toml");
        let descriptor = enrolled();
        descriptor.save(&path).unwrap();
        assert_eq!(Descriptor::load(&path).unwrap(), descriptor);
        std::fs::write(&path, "version = 9").unwrap();
        let error = Descriptor::load(&path).unwrap_err().to_string();
        assert!(error.contains("descriptor.toml is not an overlay descriptor: it is of version 9"), "{error}");
    }
}
