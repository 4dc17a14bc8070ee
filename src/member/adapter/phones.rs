//! The file that says which phones may register at an adapter.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::Phone;
use crate::{
    identity::{Home, IdentityError, files},
    kind::Kind,
    name::{Aor, NameError, OverlayId},
    proxy::throttle::Rate,
    sip::digest::{Algorithm, Secret},
};

/// Requests a second of one address, unless the file says otherwise; five seconds' worth may come at once.
const RATE: f64 = 200.0;
const BURST_SECONDS: f64 = 5.0;
/// The longest file of phones.
const MAX_FILE: u64 = 4 << 20;
/// The longest name of a phone: it names a folder.
const MAX_USER: usize = 64;
/// Of these the first that every phone has a secret for is offered, unless the file says otherwise. One alone: many
/// phones do not pass over a challenge that they cannot answer, as RFC 8760 §2.4 wants it, but give up.
const USUAL: [Algorithm; 3] = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512T256];

/// A file of phones with everything explained.
pub const TEMPLATE: &str = r#"# The phones that may register at this member's adapter (p2p-join --adapter ADDR --phones FILE).
# Nobody else may read this file: chmod 600.

# Digest algorithms that phones are asked for, the preferred one first. Without this line MD5 alone, for many phones do
# not even register where they are offered another one besides; phones that know RFC 8760 deserve better.
#algorithms = ["SHA-512-256", "SHA-256", "MD5"]

# How many requests a second one address may send; more if many phones are behind one NAT.
#rate = 200

# One entry for each phone. Each is a device of its own in the overlay, also if several belong to one user.
[[phone]]
# Whose phone it is: an address of record of this overlay.
aor = "sip:alice@p2psip.org"
# The name with which the phone authenticates, its own alone: letters, digits, '.', '_' and '-'.
user = "alice-desk"
# Its password; or, instead, hashes of USER:OVERLAY:PASSWORD as hexadecimal digits.
password = "change me"
#ha1 = { MD5 = "…", SHA-256 = "…" }
# The phone's key and certificates: a home of its own, by default phones/USER in this member's home. An overlay of the
# policy enrolled wants a certificate in it:
#   p2p-enroll request --home HOME/phones/alice-desk sip:alice@p2psip.org
# For one phone this may be the member's own home, if that has a certificate for the address of record:
#home = "."
"#;

/// What a file of phones says.
#[derive(Debug, Clone)]
pub struct Phones {
    /// The phones.
    pub phones: Vec<Phone>,
    /// The algorithms that they are asked for.
    pub algorithms: Vec<Algorithm>,
    /// How much one source may send.
    pub rate: Rate,
}

/// Why a file of phones cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PhonesError {
    /// It cannot be read, or others can.
    #[error(transparent)]
    File(#[from] IdentityError),
    /// It is not a file of phones.
    #[error("{path} is not a file of phones: {why}; p2p-join --print-phones shows one")]
    Format {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A phone cannot be one.
    #[error("{path}: the phone {user} {why}")]
    Phone {
        /// The file.
        path: String,
        /// The phone.
        user: String,
        /// What is wrong with it.
        why: String,
    },
}

impl PhonesError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::File(error) => error.kind(),
            Self::Format { .. } | Self::Phone { .. } => Kind::Usage,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    algorithms: Option<Vec<String>>,
    rate: Option<u32>,
    #[serde(default)]
    phone: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    aor: String,
    user: String,
    password: Option<String>,
    ha1: Option<BTreeMap<String, String>>,
    home: Option<PathBuf>,
}

/// Reads a file of phones of an overlay. The phones' homes are made below the member's `home` if they are not there.
///
/// # Errors
/// [`PhonesError`]: a file that others can read, or that is not one of phones.
pub fn load(path: &Path, overlay: &OverlayId, home: &Home) -> Result<Phones, PhonesError> {
    let shown = path.display().to_string();
    let octets = files::read_secret(path, MAX_FILE)?;
    let format = |why: String| PhonesError::Format { path: shown.clone(), why };
    let text = str::from_utf8(&octets).map_err(|_| format("it is not text".to_owned()))?;
    // What the parser says may quote a line, and with it a password: only where it is.
    let file: File = toml::from_str(text).map_err(|error| format(crate::identity::one_line(text, &error)))?;
    if file.phone.is_empty() {
        return Err(format("it has no [[phone]]".to_owned()));
    }
    let mut users = HashSet::new();
    let mut phones = Vec::with_capacity(file.phone.len());
    for entry in file.phone {
        let wrong = |why: &str| PhonesError::Phone {
            path: shown.clone(),
            user: entry.user.chars().take(MAX_USER).collect(),
            why: why.to_owned(),
        };
        let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'_' | b'-');
        if entry.user.is_empty() || entry.user.len() > MAX_USER || !entry.user.bytes().all(is_plain) {
            return Err(wrong("needs a user name of letters, digits, '.', '_' and '-'"));
        }
        if entry.user.starts_with('.') {
            return Err(wrong("may not begin with a '.'"));
        }
        if !users.insert(entry.user.clone()) {
            return Err(wrong("is there twice; give each phone a user name of its own"));
        }
        let name = |why: NameError| wrong(&format!("cannot be that user's: {why}"));
        let aor = Aor::parse(&entry.aor).map_err(name)?;
        aor.check_overlay(overlay).map_err(name)?;
        let secret = match (&entry.password, &entry.ha1) {
            (Some(password), None) if !password.is_empty() => {
                Secret::of_password(&entry.user, overlay.as_str(), password)
            }
            (None, Some(hashes)) if !hashes.is_empty() => secret(hashes).map_err(|why| wrong(&why))?,
            _ => return Err(wrong("needs either a password or ha1, and not both")),
        };
        let folder = match &entry.home {
            Some(folder) => home.folder().join(folder),
            None => home.phone_path(&entry.user),
        };
        let home = Home::open(&folder, entry.home.is_none())?;
        phones.push(Phone { aor, user: entry.user, secret, home });
    }
    let algorithms = algorithms(file.algorithms, &phones).map_err(format)?;
    let per_second = file.rate.map_or(RATE, f64::from).max(1.0);
    Ok(Phones { phones, algorithms, rate: Rate { per_second, burst: per_second * BURST_SECONDS } })
}

fn secret(hashes: &BTreeMap<String, String>) -> Result<Secret, String> {
    let of = |(name, hash): (&String, &String)| {
        let algorithm = Algorithm::named(name).ok_or_else(|| format!("has an ha1 of {name}, which is not known"))?;
        Ok((algorithm, hash.clone()))
    };
    let hashes = hashes.iter().map(of).collect::<Result<Vec<_>, String>>()?;
    let hashes = hashes.iter().map(|(algorithm, hash)| (*algorithm, hash.as_str()));
    Secret::of_hashes(hashes).map_err(|error| format!("has an ha1 that is none: {error}"))
}

/// What phones are asked for: what the file says, or what is usual; every phone has to be able to answer it.
fn algorithms(wanted: Option<Vec<String>>, phones: &[Phone]) -> Result<Vec<Algorithm>, String> {
    let all_serve = |algorithm: Algorithm| phones.iter().all(|phone| phone.secret.serves(algorithm));
    let Some(wanted) = wanted else {
        let why = "the phones have no algorithm in common; give each an ha1 of MD5, or a password";
        let usual = USUAL.into_iter().find(|algorithm| all_serve(*algorithm));
        return usual.map(|algorithm| vec![algorithm]).ok_or_else(|| why.to_owned());
    };
    if wanted.is_empty() {
        return Err("algorithms is empty".to_owned());
    }
    let of = |name: String| {
        let algorithm = Algorithm::named(&name).ok_or_else(|| format!("the algorithm {name} is not known"))?;
        let why = || format!("a phone has no ha1 of {name}, which algorithms asks for");
        all_serve(algorithm).then_some(algorithm).ok_or_else(why)
    };
    wanted.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    struct Folder(tempfile::TempDir, Home);

    fn folder() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("home"), true).unwrap();
        Folder(folder, home)
    }

    impl Folder {
        fn load(&self, text: &str) -> Result<Phones, PhonesError> {
            let path = self.0.path().join("phones.toml");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            load(&path, &"p2psip.org".parse().unwrap(), &self.1)
        }
    }

    #[test]
    fn the_template_is_a_file_of_one_phone() {
        let folder = folder();
        let Phones { phones, algorithms, rate } = folder.load(TEMPLATE).unwrap();
        let [phone] = phones.as_slice() else { panic!("{phones:?}") };
        assert_eq!((phone.aor.to_string().as_str(), phone.user.as_str()), ("sip:alice@p2psip.org", "alice-desk"));
        assert_eq!(phone.home.folder(), folder.1.folder().join("phones/alice-desk"));
        assert_eq!(phone.secret, Secret::of_password("alice-desk", "p2psip.org", "change me"));
        assert_eq!((algorithms, rate.per_second), (vec![Algorithm::Md5], 200.0));
        assert!(folder.load(&TEMPLATE.replace("#home", "home")).unwrap().phones[0].home.folder().ends_with("home/."));
        let chosen =
            folder.load(&TEMPLATE.replace("#algorithms", "algorithms").replace("#rate = 200", "rate = 9")).unwrap();
        assert_eq!((chosen.algorithms[0], chosen.rate.burst), (Algorithm::Sha512T256, 45.0));
    }

    #[test]
    fn hashes_limit_what_phones_are_asked_for() {
        let sha256 = format!("ha1 = {{ SHA-256 = \"{}\" }}", "0a".repeat(32));
        let text = format!("[[phone]]\naor = \"sip:alice@p2psip.org\"\nuser = \"a\"\n{sha256}\n");
        assert_eq!(folder().load(&text).unwrap().algorithms, [Algorithm::Sha256]);
        let md5 = format!("ha1 = {{ MD5 = \"{}\" }}", "0a".repeat(16));
        let text = format!("[[phone]]\naor = \"sip:alice@p2psip.org\"\nuser = \"a\"\n{md5}\n");
        assert_eq!(folder().load(&text).unwrap().algorithms, [Algorithm::Md5]);
        let error = folder().load(&format!("algorithms = [\"SHA-256\"]\n{text}")).unwrap_err().to_string();
        assert!(error.contains("a phone has no ha1 of SHA-256"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said_and_no_password_with_it() {
        let phone = |more: &str| format!("[[phone]]\naor = \"sip:alice@p2psip.org\"\nuser = \"a\"\n{more}");
        for (text, part) in [
            (String::new(), "it has no [[phone]]"),
            (phone(""), "needs either a password or ha1"),
            (phone("password = \"\""), "needs either a password or ha1"),
            (phone("password = \"x\"\nha1 = { MD5 = \"y\" }"), "and not both"),
            (phone("ha1 = { MD5 = \"y\" }"), "has an ha1 that is none"),
            (phone("ha1 = { MD6 = \"y\" }"), "MD6, which is not known"),
            (phone("password = \"x\"\n") + &phone("password = \"x\"\n"), "is there twice"),
            (phone("password = \"x\"").replace("\"a\"", "\"../a\""), "needs a user name of letters"),
            (phone("password = \"x\"").replace("\"a\"", "\"..\""), "may not begin with a '.'"),
            (phone("password = \"x\"").replace("p2psip.org", "example.org"), "example.org"),
            (phone("pass word = \"secret\""), "line 4"),
            (phone("password = \"secret"), "line 4"),
        ] {
            let error = folder().load(&text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("phones.toml"), "{text}: {error}");
            assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = folder();
        folder.load(TEMPLATE).unwrap();
        let path = folder.0.path().join("phones.toml");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load(&path, &"p2psip.org".parse().unwrap(), &folder.1).unwrap_err();
        assert!(matches!(error, PhonesError::File(IdentityError::Exposed { .. })), "{error}");
    }
}
