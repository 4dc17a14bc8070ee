//! What the options, the environment and the configuration files come to: each value checked once, and where it came
//! from kept, so that an error can say what to change.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    args::{AccessArgs, HomeArgs},
    check::{self, Purpose},
    config::{ConfigFile, Key},
    io::Env,
};
use crate::{
    kind::Kind,
    name::{Aor, OverlayId},
    ops::{Access, Family, join::CircuitLimits},
};

/// `--timeout` unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SettingsError {
    /// A value is wrong.
    #[error("{origin}: {why}")]
    Value {
        /// Where it came from: `--timeout`, `P2PSIP_PEER`, `timeout in ./p2psip.toml`.
        origin: String,
        /// What is wrong with it, and what to write instead.
        why: String,
    },
    /// A file is wrong as a whole.
    #[error("{file}: {why}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no place for keys.
    #[error("no home: set --home, P2PSIP_HOME or HOME to where keys and certificates are")]
    NoHome,
}

impl SettingsError {
    /// Always [`Kind::Usage`].
    pub(super) const fn kind(&self) -> Kind {
        Kind::Usage
    }
}

/// A value, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sourced<T> {
    /// The value.
    pub(super) value: T,
    /// Where it came from, in words.
    pub(super) origin: String,
}

impl Sourced<OsString> {
    /// An operand of the command line, if it was given.
    fn operand(name: &str, text: Option<&str>) -> Option<Self> {
        text.map(|text| Self { value: text.into(), origin: name.to_owned() })
    }
}

impl<T> Sourced<T> {
    /// Checks the value; an error says where it came from.
    fn check<U>(self, check: impl FnOnce(T) -> Result<U, String>) -> Result<Sourced<U>, SettingsError> {
        match check(self.value) {
            Ok(value) => Ok(Sourced { value, origin: self.origin }),
            Err(why) => Err(SettingsError::Value { origin: self.origin, why }),
        }
    }
}

/// The configuration as it was read. A value is checked when a tool asks for it, so that what a tool does not use
/// cannot stop it.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    layers: Layers,
    home: Option<PathBuf>,
}

impl Settings {
    /// Reads the environment and the configuration files.
    pub(super) fn read(args: &HomeArgs, env: &Env) -> Result<Self, SettingsError> {
        let layers = Layers::read(args.config.as_deref(), env)?;
        let home = layers.path(Key::Home, args.home.as_deref()).or_else(|| default_home(env));
        Ok(Self { layers, home })
    }

    /// The folder of keys and certificates.
    pub(super) fn home(&self) -> Result<PathBuf, SettingsError> {
        self.home.clone().ok_or(SettingsError::NoHome)
    }

    /// The overlay: the operand OVERLAY, the option, or the configured one.
    pub(super) fn overlay(
        &self,
        operand: Option<&str>,
        option: Option<&str>,
    ) -> Result<Option<Sourced<OverlayId>>, SettingsError> {
        let text = Sourced::operand("OVERLAY", operand).or_else(|| self.layers.one(Key::Overlay, option));
        let text = text.map(utf8).transpose()?;
        text.map(|text| text.check(|text| OverlayId::parse_local(&text).map_err(|error| error.to_string()))).transpose()
    }

    /// The user: the operand AOR, or the configured one.
    pub(super) fn aor(&self, operand: Option<&str>) -> Result<Option<Sourced<Aor>>, SettingsError> {
        let text = Sourced::operand("AOR", operand).or_else(|| self.layers.one(Key::Aor, None));
        let text = text.map(utf8).transpose()?;
        text.map(|text| text.check(|text| Aor::parse(&text).map_err(|error| error.to_string()))).transpose()
    }

    /// Where to listen; empty for the defaults.
    pub(super) fn listen(&self, option: &[String]) -> Result<Vec<String>, SettingsError> {
        self.layers.list(Key::Listen, option, |text| check::multiaddr(text, Purpose::Listen).map(|()| text.to_owned()))
    }

    /// Whether the overlay is purely local.
    pub(super) fn local(&self, option: bool) -> bool {
        option || self.layers.one(Key::Local, None).is_some_and(|local| local.value == "true")
    }

    /// Where to serve metrics.
    pub(super) fn metrics(&self, option: Option<&str>) -> Result<Option<SocketAddr>, SettingsError> {
        let text = self.layers.one(Key::Metrics, option).map(utf8).transpose()?;
        text.map(|text| text.check(|text| check::socket_address(&text)).map(|checked| checked.value)).transpose()
    }

    /// What one circuit through a member may cost it.
    pub(super) fn circuits(&self, seconds: Option<&str>, octets: Option<&str>) -> Result<CircuitLimits, SettingsError> {
        let mut limits = CircuitLimits::default();
        if let Some(text) = self.layers.one(Key::CircuitSeconds, seconds).map(utf8).transpose()? {
            limits.life = text.check(|text| check::span(&text))?.value;
        }
        if let Some(text) = self.layers.one(Key::CircuitOctets, octets).map(utf8).transpose()? {
            limits.octets = text.check(|text| check::octets(&text))?.value;
        }
        Ok(limits)
    }

    /// How to reach the overlay. `overlay` is the operand OVERLAY of tools that have one.
    pub(super) fn access(&self, args: &AccessArgs, overlay: Option<&str>) -> Result<Access, SettingsError> {
        let layers = &self.layers;
        let timeout = layers.one(Key::Timeout, args.timeout.as_deref()).map(utf8).transpose()?;
        let timeout = timeout.map(|text| text.check(|text| check::timeout(&text))).transpose()?;
        Ok(Access {
            overlay: self.overlay(overlay, args.overlay.as_deref())?.map(|overlay| overlay.value),
            descriptor: layers.path(Key::Descriptor, args.descriptor.as_deref()),
            peers: layers
                .list(Key::Peer, &args.peer, |text| check::multiaddr(text, Purpose::Dial).map(|()| text.to_owned()))?,
            socket: layers.path(Key::Socket, args.socket.as_deref()),
            dns: layers.list(Key::Dns, &args.dns, check::dns_server)?,
            home: self.home()?,
            timeout: timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.value),
            family: match (args.ipv4, args.ipv6) {
                (true, _) => Family::V4,
                (false, true) => Family::V6,
                (false, false) => Family::Any,
            },
        })
    }
}

/// Checks values of an option that has no key in a file, such as `--expires`.
pub(super) fn option<T>(name: &str, text: &str, check: impl Fn(&str) -> Result<T, String>) -> Result<T, SettingsError> {
    check(text).map_err(|why| SettingsError::Value { origin: name.to_owned(), why })
}

fn utf8(text: Sourced<OsString>) -> Result<Sourced<String>, SettingsError> {
    text.check(|value| value.into_string().map_err(|_| "it is not UTF-8".to_owned()))
}

/// `$XDG_DATA_HOME/p2psip`, or `~/.local/share/p2psip`.
fn default_home(env: &Env) -> Option<PathBuf> {
    let base = env.folder("XDG_DATA_HOME").map(Path::to_owned);
    base.or_else(|| env.folder("HOME").map(|home| home.join(".local/share"))).map(|base| base.join("p2psip"))
}

/// Where values can come from, below the options.
#[derive(Debug, Clone)]
struct Layers {
    variables: Vec<(Key, OsString)>,
    user: Option<PathBuf>,
    /// The strongest first.
    files: Vec<ConfigFile>,
}

impl Layers {
    fn read(config: Option<&Path>, env: &Env) -> Result<Self, SettingsError> {
        let variables = Key::ALL.into_iter().filter_map(|key| Some((key, env.variable(key.variable()?)?.to_owned())));
        let mut files = Vec::new();
        if let Some(path) = config {
            let shown = path.display().to_string();
            let missing =
                || SettingsError::Value { origin: "--config".to_owned(), why: format!("there is no {shown}") };
            files.push(ConfigFile::read(&env.directory().join(path), &shown)?.ok_or_else(missing)?);
        } else {
            files.extend(ConfigFile::read(&env.directory().join("p2psip.toml"), "./p2psip.toml")?);
            let folder = env.folder("XDG_CONFIG_HOME").map(Path::to_owned);
            let folder = folder.or_else(|| env.folder("HOME").map(|home| home.join(".config")));
            if let Some(path) = folder.map(|folder| folder.join("p2psip/config.toml")) {
                files.extend(ConfigFile::read(&path, &path.display().to_string())?);
            }
        }
        Ok(Self { variables: variables.collect(), user: env.folder("HOME").map(Path::to_owned), files })
    }

    fn variable(&self, key: Key) -> Option<Sourced<OsString>> {
        let (_, value) = self.variables.iter().find(|(of, _)| *of == key)?;
        Some(Sourced { value: value.clone(), origin: key.variable().unwrap_or_default().to_owned() })
    }

    fn file(&self, key: Key) -> Option<(&ConfigFile, Sourced<&[String]>)> {
        self.files.iter().find_map(|file| {
            Some((file, Sourced { value: file.get(key)?, origin: format!("{key} in {}", file.shown()) }))
        })
    }

    /// A setting with one value: the option, else the variable, else the file.
    fn one(&self, key: Key, option: Option<&str>) -> Option<Sourced<OsString>> {
        let option = option.map(|value| Sourced { value: OsString::from(value), origin: format!("--{key}") });
        option.or_else(|| self.variable(key)).or_else(|| {
            let (_, values) = self.file(key)?;
            Some(Sourced { value: values.value.first()?.into(), origin: values.origin })
        })
    }

    /// A setting with several values. A stronger layer replaces the weaker one's.
    fn list<T>(
        &self,
        key: Key,
        option: &[String],
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, SettingsError> {
        let texts = if !option.is_empty() {
            Sourced { value: option.to_vec(), origin: format!("--{key}") }
        } else if let Some(variable) = self.variable(key) {
            utf8(variable)?.check(|text| Ok(split(&text)))?
        } else if let Some((_, values)) = self.file(key) {
            Sourced { value: values.value.to_vec(), origin: values.origin }
        } else {
            return Ok(Vec::new());
        };
        texts.check(|texts| texts.iter().map(|text| check(text)).collect()).map(|checked| checked.value)
    }

    /// A path: as typed from an option or a variable, relative to its folder from a file.
    fn path(&self, key: Key, option: Option<&Path>) -> Option<PathBuf> {
        debug_assert!(key.is_path(), "{key} is no path");
        let typed = option.map(Path::to_owned).or_else(|| self.variable(key).map(|path| PathBuf::from(path.value)));
        typed.or_else(|| {
            let (file, values) = self.file(key)?;
            let path = values.value.first()?;
            Some(match (path.strip_prefix("~/"), &self.user) {
                (Some(rest), Some(user)) => user.join(rest),
                _ => file.folder().join(path),
            })
        })
    }
}

/// The values of a variable that holds several.
fn split(text: &str) -> Vec<String> {
    text.split([',', ' ', '\t', '\n']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A world with a working directory and a user's configuration.
    fn world(project: &str, user: &str) -> (TempDir, Env) {
        let dir = tempfile::tempdir().unwrap();
        let (here, home) = (dir.path().join("here"), dir.path().join("home"));
        std::fs::create_dir_all(&here).unwrap();
        std::fs::create_dir_all(home.join(".config/p2psip")).unwrap();
        std::fs::write(here.join("p2psip.toml"), project).unwrap();
        std::fs::write(home.join(".config/p2psip/config.toml"), user).unwrap();
        let env = Env::new(here).with("HOME", home);
        (dir, env)
    }

    fn read(env: &Env) -> Settings {
        Settings::read(&HomeArgs::default(), env).unwrap()
    }

    fn access(args: &AccessArgs, env: &Env) -> Result<Access, String> {
        let settings = Settings::read(&HomeArgs::default(), env).map_err(|error| error.to_string())?;
        settings.access(args, None).map_err(|error| error.to_string())
    }

    #[test]
    fn each_layer_outranks_the_next() {
        let overlay = |env: &Env, operand, option| {
            let overlay = read(env).overlay(operand, option).unwrap().unwrap();
            (overlay.value.to_string(), overlay.origin)
        };
        let (dir, env) = world("", "overlay = 'user.org'");
        let path = dir.path().join("home/.config/p2psip/config.toml");
        assert_eq!(overlay(&env, None, None), ("user.org".to_owned(), format!("overlay in {}", path.display())));

        let (_dir, env) = world("overlay = 'project.org'", "overlay = 'user.org'");
        assert_eq!(overlay(&env, None, None), ("project.org".to_owned(), "overlay in ./p2psip.toml".to_owned()));
        let env = env.with("P2PSIP_OVERLAY", "variable.org");
        assert_eq!(overlay(&env, None, None), ("variable.org".to_owned(), "P2PSIP_OVERLAY".to_owned()));
        let option = Some("option.org");
        assert_eq!(overlay(&env, None, option), ("option.org".to_owned(), "--overlay".to_owned()));
        let operand = Some("operand.org");
        assert_eq!(overlay(&env, operand, option), ("operand.org".to_owned(), "OVERLAY".to_owned()));
    }

    #[test]
    fn an_error_says_where_the_value_came_from() {
        let error = |args: &AccessArgs, env: &Env| access(args, env).unwrap_err();
        let args = AccessArgs::default();
        let (_dir, env) = world("timeout = 0", "");
        assert!(error(&args, &env).starts_with("timeout in ./p2psip.toml: '0' is not a time"));
        let (_dir, env) = world("", "");
        let wrong = env.clone().with("P2PSIP_PEER", "/ip4/1/tcp/2");
        assert!(error(&args, &wrong).starts_with("P2PSIP_PEER: '/ip4/1"));
        let args = AccessArgs { dns: vec!["localhost".to_owned()], ..AccessArgs::default() };
        assert!(error(&args, &env).starts_with("--dns: 'localhost' cannot be used"));
        let args = HomeArgs { config: Some("nowhere.toml".into()), ..HomeArgs::default() };
        let error = Settings::read(&args, &env).unwrap_err();
        assert_eq!(error.to_string(), "--config: there is no nowhere.toml");
    }

    #[test]
    fn what_a_tool_does_not_use_cannot_stop_it() {
        let (_dir, env) = world("listen = ['nonsense']\ndns = ['nonsense']", "");
        let settings = read(&env.with("P2PSIP_AOR", "nonsense"));
        assert!(settings.home().is_ok());
        assert!(settings.overlay(None, None).unwrap().is_none());
        assert!(settings.aor(None).is_err());
        assert!(settings.listen(&[]).is_err());
        assert!(settings.access(&AccessArgs::default(), None).is_err());
    }

    #[test]
    fn lists_in_variables_are_split_and_lists_replace_each_other() {
        let (_dir, env) = world("dns = ['192.0.2.1']", "");
        let args = AccessArgs::default();
        assert_eq!(access(&args, &env).unwrap().dns.len(), 1);
        let env = env.with("P2PSIP_DNS", "192.0.2.2, 192.0.2.3:5353\t[::1]");
        let dns = access(&args, &env).unwrap().dns;
        let dns = dns.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(dns, ["192.0.2.2:53", "192.0.2.3:5353", "[::1]:53"]);
    }

    #[test]
    fn paths_in_a_file_are_relative_to_it() {
        let (dir, env) = world("descriptor = 'd.toml'\nsocket = '~/m.sock'", "home = 'keys'");
        let access = access(&AccessArgs::default(), &env).unwrap();
        assert_eq!(access.descriptor.unwrap(), dir.path().join("here/d.toml"));
        assert_eq!(access.socket.unwrap(), dir.path().join("home/m.sock"));
        assert_eq!(access.home, dir.path().join("home/.config/p2psip/keys"));
        let args = HomeArgs { home: Some("typed".into()), ..HomeArgs::default() };
        assert_eq!(Settings::read(&args, &env).unwrap().home().unwrap(), Path::new("typed"));
    }

    #[test]
    fn an_option_names_the_only_file() {
        let (dir, env) = world("overlay = 'project.org'", "timeout = 1");
        let path = dir.path().join("other.toml");
        std::fs::write(&path, "aor = 'sip:alice@other.org'").unwrap();
        let args = HomeArgs { config: Some(path), ..HomeArgs::default() };
        let settings = Settings::read(&args, &env).unwrap();
        assert!(settings.overlay(None, None).unwrap().is_none());
        assert_eq!(settings.access(&AccessArgs::default(), None).unwrap().timeout, DEFAULT_TIMEOUT);
        assert_eq!(settings.aor(None).unwrap().unwrap().value.to_string(), "sip:alice@other.org");
    }

    #[test]
    fn the_home_follows_the_base_directory_specification() {
        let env = Env::new("/nowhere").with("HOME", "/nowhere/alice");
        assert_eq!(read(&env).home().unwrap(), Path::new("/nowhere/alice/.local/share/p2psip"));
        let elsewhere = env.clone().with("XDG_DATA_HOME", "/data");
        assert_eq!(read(&elsewhere).home().unwrap(), Path::new("/data/p2psip"));
        let relative = env.with("XDG_DATA_HOME", "relative");
        assert_eq!(read(&relative).home().unwrap(), Path::new("/nowhere/alice/.local/share/p2psip"));
        assert_eq!(read(&Env::new("/nowhere")).home(), Err(SettingsError::NoHome));
    }
}
