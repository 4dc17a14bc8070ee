//! The way of a certificate, as its users walk it: a CA's home, a device's home, and files between them.

use std::path::Path;

use p2psip::cli::{Env, Io, enroll};
use serde_json::Value;
use tempfile::TempDir;

use crate::json_schema::assert_shape;

/// A folder in which commands are run.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Runs a command line; `@` stands for the folder. Returns exit code, standard output and standard error.
    fn run(&self, line: &str) -> (u8, String, String) {
        let folder = format!("{}/", self.0.path().display());
        let arguments = line.split(' ').map(|word| word.replace('@', &folder).replace("%", "@").into()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let env = Env::new(self.0.path()).with("HOME", self.0.path());
        let code = enroll::run(arguments, &env, &mut Io::captured(&mut out, &mut err));
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// Runs a command line that must succeed; returns what it printed as JSON.
    fn json(&self, line: &str) -> Value {
        let (code, out, err) = self.run(&format!("{line} --json"));
        assert_eq!((code, err.as_str()), (0, ""), "{line}: {out}");
        serde_json::from_str(&out).unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

// `%` is the at sign of a URI; `@` is the folder.

#[test]
fn a_certificate_goes_from_request_to_revocation() {
    let desk = Desk::new();
    let made = desk.json("init p2psip.org --home @ca");
    assert_eq!((made["status"].as_str(), made["policy"].as_str()), (Some("created"), Some("enrolled")));
    assert_eq!(mode(&desk.path("ca/ca.key")), 0o600);

    let asked = desk.json("request sip:alice%p2psip.org --home @alice --out @alice.csr");
    assert_eq!(asked["names"][0], "sip:alice@p2psip.org");
    assert!(!std::fs::read_to_string(desk.path("alice.csr")).unwrap().contains("PRIVATE"));

    let issued = desk.json("issue @alice.csr --home @ca --out @alice.pem --days 30");
    let certificate = &issued["certificates"][0];
    let days =
        (certificate["not_after_ms"].as_u64().unwrap() - certificate["not_before_ms"].as_u64().unwrap()) / 86_400_000;
    assert!((29..=31).contains(&days), "{days}");

    let installed = desk.json("install @alice.pem @ca/descriptor.toml --home @alice");
    assert_eq!(installed["installed"][0]["hash"], made["hash"]);
    assert_eq!(installed["installed"][1]["serial"], certificate["serial"]);
    let (code, out, _) = desk.run("show --home @alice");
    assert!(code == 0 && out.contains("good"), "{out}");

    desk.json("revoke sip:alice%p2psip.org --home @ca");
    desk.json("install @ca/revocations.cbor --home @alice");
    let (code, out, _) = desk.run("show --home @alice");
    assert!(code == 4 && out.contains("revoked 20"), "found, but not to be trusted: {out}");
}

#[test]
fn each_key_of_each_outcome_is_part_of_the_schema() {
    let desk = Desk::new();
    let init = ["init p2psip.org --home @ca", "init open.org --open --home @open"].map(|line| desk.json(line));
    assert_shape("enroll-init", &init);
    let request =
        ["request sip:alice%p2psip.org --home @alice --out @alice.csr", "request sip:p2psip.org --home @alice"];
    assert_shape("enroll-request", &request.map(|line| desk.json(line)));
    desk.json("install @ca/descriptor.toml --home @alice");
    let issue = ["issue @alice.csr --home @ca --out @alice.pem", "issue @alice.csr --home @ca --into @alice"];
    assert_shape("enroll-issue", &issue.map(|line| desk.json(line)));
    assert_shape("enroll-revoke", &[desk.json("revoke sip:alice%p2psip.org --home @ca")]);
}

#[test]
fn one_command_enrols_a_home_on_the_same_machine() {
    let desk = Desk::new();
    desk.json("init p2psip.org --home @ca");
    desk.json("request sip:alice%p2psip.org --home @alice --out @alice.csr");
    let (code, out, _) = desk.run("issue @alice.csr --home @ca --into @alice --short");
    assert_eq!((code, out.trim_end()), (0, desk.path("alice").to_str().unwrap()));
    let (code, out, _) = desk.run("show --home @alice");
    assert!(code == 0 && out.contains("good"), "{out}");
}

#[test]
fn what_goes_to_another_program_goes_to_standard_output() {
    let desk = Desk::new();
    desk.json("init p2psip.org --home @ca");
    let (code, request, notes) = desk.run("request sip:alice%p2psip.org --home @alice");
    assert_eq!(code, 0);
    assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{request}");
    assert_eq!(notes, "Asks for sip:alice@p2psip.org; have it issued: p2p-enroll issue FILE\n");
    std::fs::write(desk.path("alice.csr"), request).unwrap();
    let (code, certificate, notes) = desk.run("issue @alice.csr --home @ca -q");
    assert_eq!((code, notes.as_str()), (0, ""));
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----\n"), "{certificate}");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let desk = Desk::new();
    desk.json("init p2psip.org --home @ca");
    desk.json("request sip:bob%other.org --home @bob --out @bob.csr");
    for (line, expected, says) in [
        ("init p2psip.org --home @ca", 2, "exists already and is not overwritten"),
        ("init testnet --home @new", 2, "not a fully qualified domain name"),
        ("init --home @new", 2, "no overlay: name one"),
        ("request bob --home @bob", 2, "URI: 'bob' names nothing in an overlay"),
        ("request --home @bob", 2, "it names nobody"),
        ("issue @bob.csr --home @ca", 2, "does not belong to overlay p2psip.org"),
        ("issue @bob.csr --home @bob", 2, "descriptor.toml does not exist: make an overlay"),
        ("install @bob.csr --home @bob", 2, "holds a certificate request"),
        ("show @nothing", 2, "cannot open"),
        ("revoke sip:alice%p2psip.org --home @ca", 2, "has issued no certificate for sip:alice@p2psip.org"),
    ] {
        let (code, out, err) = desk.run(line);
        assert_eq!((code, out.as_str()), (expected, ""), "{line}: {err}");
        assert!(err.starts_with("p2p-enroll: ") && err.contains(says), "{line}: {err}");
        assert_eq!(err.lines().filter(|line| !line.starts_with("Try ")).count(), 1, "{err}");
    }
}
