//! The configuration file: which keys there are, how one is read, and the template that `p2p-join --print-config` prints.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use super::settings::SettingsError;

/// Largest configuration file read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// A setting that a configuration file may hold. Its name there is also that of its option, `--NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The overlay identifier.
    Overlay,
    /// The default user of `p2p-register`.
    Aor,
    /// Members to ask.
    Peer,
    /// The folder of keys and certificates.
    Home,
    /// The descriptor.
    Descriptor,
    /// The unix socket of a member.
    Socket,
    /// DNS servers.
    Dns,
    /// Time to the first answer.
    Timeout,
    /// Where `p2p-join` listens.
    Listen,
    /// Whether the overlay is purely local.
    Local,
    /// Where `p2p-join` serves metrics.
    Metrics,
    /// How long a circuit through a member lasts.
    CircuitSeconds,
    /// How much a circuit through a member carries.
    CircuitOctets,
}

impl Key {
    /// Every key, in the order of the template.
    pub(super) const ALL: [Self; 13] = [
        Self::Overlay,
        Self::Aor,
        Self::Peer,
        Self::Home,
        Self::Descriptor,
        Self::Socket,
        Self::Dns,
        Self::Timeout,
        Self::Listen,
        Self::Local,
        Self::Metrics,
        Self::CircuitSeconds,
        Self::CircuitOctets,
    ];

    /// Its name in a file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Aor => "aor",
            Self::Peer => "peer",
            Self::Home => "home",
            Self::Descriptor => "descriptor",
            Self::Socket => "socket",
            Self::Dns => "dns",
            Self::Timeout => "timeout",
            Self::Listen => "listen",
            Self::Local => "local",
            Self::Metrics => "metrics",
            Self::CircuitSeconds => "circuit-seconds",
            Self::CircuitOctets => "circuit-octets",
        }
    }

    /// The environment variable that outranks the file, if there is one.
    pub(super) const fn variable(self) -> Option<&'static str> {
        match self {
            Self::Overlay => Some("P2PSIP_OVERLAY"),
            Self::Aor => Some("P2PSIP_AOR"),
            Self::Peer => Some("P2PSIP_PEER"),
            Self::Home => Some("P2PSIP_HOME"),
            Self::Socket => Some("P2PSIP_SOCKET"),
            Self::Dns => Some("P2PSIP_DNS"),
            Self::Descriptor
            | Self::Timeout
            | Self::Listen
            | Self::Local
            | Self::Metrics
            | Self::CircuitSeconds
            | Self::CircuitOctets => None,
        }
    }

    /// Whether it may have several values.
    pub(super) const fn is_list(self) -> bool {
        matches!(self, Self::Peer | Self::Dns | Self::Listen)
    }

    /// Whether it is a number.
    const fn is_number(self) -> bool {
        matches!(self, Self::Timeout | Self::CircuitSeconds | Self::CircuitOctets)
    }

    /// Whether it is a path, which in a file is relative to the file's folder.
    pub(super) const fn is_path(self) -> bool {
        matches!(self, Self::Home | Self::Descriptor | Self::Socket)
    }

    /// What it is, and an example as TOML.
    const fn template(self) -> (&'static str, &'static str) {
        match self {
            Self::Overlay => ("The overlay's identifier: its domain name.", r#""p2psip.org""#),
            Self::Aor => ("The user that p2p-register registers unless told otherwise.", r#""sip:alice@p2psip.org""#),
            Self::Peer => (
                "Members to ask, as p2p-join prints them; without any, the DNS is asked for them.",
                r#"["/ip4/192.0.2.7/udp/4001/quic-v1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"]"#,
            ),
            Self::Home => ("The folder of keys, certificates and the descriptor.", r#""~/.local/share/p2psip""#),
            Self::Descriptor => ("The overlay's descriptor, if it is not in the home.", r#""descriptor.toml""#),
            Self::Socket => {
                ("The unix socket of the member on this machine, if it is not in the home.", r#""member.sock""#)
            }
            Self::Dns => ("DNS servers, instead of the system's.", r#"["192.0.2.53", "[2001:db8::53]:5353"]"#),
            Self::Timeout => ("Seconds until the first answer.", "5"),
            Self::Listen => (
                "Where p2p-join listens; port 0 is any free one.",
                r#"["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/4001"]"#,
            ),
            Self::Metrics => ("Where p2p-join serves metrics for Prometheus.", r#""127.0.0.1:9464""#),
            Self::CircuitSeconds => {
                ("Seconds after which a member that relays for one behind a NAT ends a circuit.", "7200")
            }
            Self::CircuitOctets => ("Octets that such a circuit carries, both ways together.", "33554432"),
            Self::Local => ("Whether p2p-join's overlay is purely local, and so needs no domain name.", "false"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A configuration file with every value commented out.
pub(super) fn template() -> String {
    let mut text = String::from(
        "# Configuration of the p2p- tools: ./p2psip.toml, or ~/.config/p2psip/config.toml for all your folders.\n\
         # Options outrank the environment, which outranks this file. Remove the '#' before what you want to set.\n",
    );
    for key in Key::ALL {
        let (help, example) = key.template();
        let variable = key.variable().map(|name| format!(" [env: {name}]")).unwrap_or_default();
        text.push_str(&format!("\n# {help}{variable}\n#{key} = {example}\n"));
    }
    text
}

/// A configuration file that was read. Its values are still text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigFile {
    shown: String,
    folder: PathBuf,
    values: BTreeMap<Key, Vec<String>>,
}

impl ConfigFile {
    /// Reads `path`, named `shown` in messages; `None` if there is no such file.
    pub(super) fn read(path: &Path, shown: &str) -> Result<Option<Self>, SettingsError> {
        let error = |why: String| SettingsError::File { file: shown.to_owned(), why };
        match std::fs::metadata(path) {
            Err(missing) if matches!(missing.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(other) => return Err(error(other.to_string())),
            Ok(found) if found.len() > MAX_FILE => {
                return Err(error(format!("it is larger than {MAX_FILE} bytes, so hardly a configuration")));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(|why| error(why.to_string()))?;
        let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        Self::parse(&text, shown, folder).map(Some)
    }

    /// Reads the text of a file in `folder`, named `shown` in messages.
    pub(super) fn parse(text: &str, shown: &str, folder: PathBuf) -> Result<Self, SettingsError> {
        let error = |why: String| SettingsError::File { file: shown.to_owned(), why };
        let table = text.parse::<toml::Table>().map_err(|wrong| {
            let before = wrong.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            error(format!("line {line}: {}", wrong.message().replace('\n', ", ")))
        })?;
        let mut values = BTreeMap::new();
        for (name, value) in table {
            let key = Key::ALL.into_iter().find(|key| key.name() == name).ok_or_else(|| {
                let known = Key::ALL.map(Key::name).join(", ");
                error(format!("there is no key '{name}'; the keys are {known}"))
            })?;
            let texts = texts_of(key, value)
                .map_err(|why| SettingsError::Value { origin: format!("{key} in {shown}"), why: why.to_owned() })?;
            values.insert(key, texts);
        }
        Ok(Self { shown: shown.to_owned(), folder, values })
    }

    /// The values of a key.
    pub(super) fn get(&self, key: Key) -> Option<&[String]> {
        self.values.get(&key).map(Vec::as_slice)
    }

    /// The file's name in messages.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The folder to which its relative paths are relative.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A value as the texts that the command line would have.
fn texts_of(key: Key, value: toml::Value) -> Result<Vec<String>, &'static str> {
    use toml::Value;
    match value {
        Value::Array(values) if key.is_list() => values
            .into_iter()
            .map(|value| match value {
                Value::String(text) => Ok(text),
                _ => Err("each value must be a string"),
            })
            .collect(),
        Value::String(text) if key != Key::Local => Ok(vec![text]),
        Value::Integer(number) if key.is_number() => Ok(vec![number.to_string()]),
        Value::Float(number) if key.is_number() => Ok(vec![number.to_string()]),
        Value::Boolean(flag) if key == Key::Local => Ok(vec![flag.to_string()]),
        _ if key.is_list() => Err("it must be a list of strings"),
        _ => Err(match key {
            _ if key.is_number() => "it must be a number",
            Key::Local => "it must be true or false",
            _ => "it must be a string",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, String> {
        ConfigFile::parse(text, "./p2psip.toml", PathBuf::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn values_become_what_an_option_would_hold() {
        let file = parse("timeout = 2.5\npeer = ['/a', '/b']\ndns = '192.0.2.1'\nlocal = true").unwrap();
        assert_eq!(file.get(Key::Timeout).unwrap(), ["2.5"]);
        assert_eq!(file.get(Key::Peer).unwrap(), ["/a", "/b"]);
        assert_eq!(file.get(Key::Dns).unwrap(), ["192.0.2.1"]);
        assert_eq!(file.get(Key::Local).unwrap(), ["true"]);
        assert_eq!(file.get(Key::Home), None);
    }

    #[test]
    fn errors_name_the_file_and_the_key_or_line() {
        for (text, message) in [
            ("tiemout = 5", "./p2psip.toml: there is no key 'tiemout'; the keys are overlay, aor"),
            ("[join]\nlocal = true", "./p2psip.toml: there is no key 'join'"),
            ("a = 1\nb =", "./p2psip.toml: line 2: "),
            ("timeout = []", "timeout in ./p2psip.toml: it must be a number"),
            ("local = 'yes'", "local in ./p2psip.toml: it must be true or false"),
            ("peer = 7", "peer in ./p2psip.toml: it must be a list of strings"),
            ("peer = [7]", "peer in ./p2psip.toml: each value must be a string"),
            ("home = false", "home in ./p2psip.toml: it must be a string"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(message), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_template_sets_nothing_and_its_examples_are_valid() {
        let nothing = parse(&template()).unwrap();
        assert!(nothing.values.is_empty());
        let set: String = template()
            .lines()
            .map(|line| {
                let example = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
                format!("{}\n", example.unwrap_or(line))
            })
            .collect();
        let all = parse(&set).unwrap();
        assert_eq!(all.values.len(), Key::ALL.len());
    }
}
