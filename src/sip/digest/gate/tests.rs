use digest_auth::{AuthContext, HttpMethod};
use proptest::prelude::*;

use super::*;
use crate::sip::digest::{Asker, Keyring, User};

const REALM: &str = "p2psip.org";
const REGISTER: Protected<'static> = Protected { method: "REGISTER", uri: "sip:p2psip.org", body: b"" };

fn gate(algorithms: &[Algorithm], now: Instant) -> Gate {
    Gate::new(Terms { algorithms: algorithms.to_vec(), ..Terms::new(REALM) }, [7; 32], now)
}

fn alice() -> Secret {
    Secret::of_password("alice", REALM, "wonderland")
}

fn keyring(password: &str) -> Keyring {
    Keyring::new(User { name: "alice".to_owned(), password: password.to_owned() })
}

/// The credentials of a user agent that has met these challenges.
fn answer(keyring: &mut Keyring, challenges: &[String], request: &Protected<'_>) -> String {
    keyring.challenged(Asker::Server, challenges.iter().map(String::as_bytes), "c0ffee").unwrap();
    keyring.credentials(request).remove(0).1
}

fn check(gate: &mut Gate, value: &str, request: &Protected<'_>, now: Instant) -> Result<String, Refusal> {
    let secret = alice();
    gate.check([value.as_bytes()], request, |name| (name == "alice").then_some(&secret), now)
}

/// RFC 7616 §3.9.1, whose responses must hold for whoever made them.
#[test]
fn the_examples_of_rfc_7616_hold() {
    let request = Protected { method: "GET", uri: "/dir/index.html", body: b"" };
    for (algorithm, response) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ] {
        let value = format!(
            "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
             algorithm={algorithm}, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
             cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"{response}\", \
             opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        );
        let now = Instant::now();
        let mut gate = Gate::new(Terms::new("http-auth@example.org"), [7; 32], now);
        let secret = Secret::of_password("Mufasa", "http-auth@example.org", "Circle of Life");
        let mut check = |value: &str| gate.check([value.as_bytes()], &request, |_| Some(&secret), now);
        // Somebody else's nonce, so the right answer to it is stale; a wrong one is wrong.
        assert_eq!(check(&value), Err(Refusal::Stale));
        assert_eq!(check(&value.replace("nc=00000001", "nc=00000002")), Err(Refusal::Wrong));
    }
}

#[test]
fn the_strongest_of_several_challenges_is_answered_and_accepted_once() {
    let now = Instant::now();
    let mut gate = gate(&[Algorithm::Sha512T256, Algorithm::Sha256, Algorithm::Md5], now);
    let challenges = gate.challenges(false, 1, now);
    assert_eq!(challenges.len(), 3);
    assert!(challenges[0].ends_with("algorithm=SHA-512-256"), "the preferred one comes first: {challenges:?}");
    let mut keyring = keyring("wonderland");
    let first = answer(&mut keyring, &challenges, &REGISTER);
    assert!(first.contains("SHA-512-256"));
    assert_eq!(check(&mut gate, &first, &REGISTER, now).as_deref(), Ok("alice"));
    assert_eq!(check(&mut gate, &first, &REGISTER, now), Err(Refusal::Stale), "the same count again");
    let second = keyring.credentials(&REGISTER).remove(0).1;
    assert!(second.contains("nc=00000002"));
    assert_eq!(check(&mut gate, &second, &REGISTER, now).as_deref(), Ok("alice"));
}

#[test]
fn who_has_no_or_wrong_credentials_is_refused() {
    let now = Instant::now();
    let mut gate = gate(&[Algorithm::Md5], now);
    let challenges = gate.challenges(false, 1, now);
    let nobody: [&[u8]; 0] = [];
    assert_eq!(gate.check(nobody, &REGISTER, |_| None, now), Err(Refusal::Missing));
    let right = answer(&mut keyring("wonderland"), &challenges, &REGISTER);
    let wrong = answer(&mut keyring("looking-glass"), &challenges, &REGISTER);
    assert_eq!(check(&mut gate, &wrong, &REGISTER, now), Err(Refusal::Wrong));
    assert_eq!(gate.check([right.as_bytes()], &REGISTER, |_| None, now), Err(Refusal::Wrong), "not a known user");
    let elsewhere = right.replace("realm=\"p2psip.org\"", "realm=\"example.org\"");
    assert_eq!(check(&mut gate, &elsewhere, &REGISTER, now), Err(Refusal::Missing));
    let other = Protected { method: "INVITE", ..REGISTER };
    assert_eq!(check(&mut gate, &right, &other, now), Err(Refusal::Wrong), "made for another method");
    let secret = alice();
    let values: [&[u8]; 3] = [b"Basic realm=\"p2psip.org\"", b"Digest", right.as_bytes()];
    assert_eq!(gate.check(values, &REGISTER, |_| Some(&secret), now).as_deref(), Ok("alice"), "others are passed over");
}

#[test]
fn an_algorithm_that_was_not_offered_is_refused_though_the_password_is_right() {
    let now = Instant::now();
    let mut strict = gate(&[Algorithm::Sha256], now);
    let challenge = strict.challenges(false, 1, now).remove(0).replace("SHA-256", "MD5");
    let weak = answer(&mut keyring("wonderland"), &[challenge], &REGISTER);
    assert_eq!(check(&mut strict, &weak, &REGISTER, now), Err(Refusal::Wrong));
}

#[test]
fn a_nonce_is_stale_when_it_is_old_or_of_another_gate() {
    let now = Instant::now();
    let mut gate = gate(&[Algorithm::Md5], now);
    let mut keyring = keyring("wonderland");
    let value = answer(&mut keyring, &gate.challenges(false, 1, now), &REGISTER);
    let late = now + Duration::from_secs(301);
    assert_eq!(check(&mut gate, &value, &REGISTER, late), Err(Refusal::Stale));
    let fresh = gate.challenges(true, 2, late);
    assert!(fresh[0].ends_with(", stale=true"));
    let value = answer(&mut keyring, &fresh, &REGISTER);
    assert_eq!(check(&mut gate, &value, &REGISTER, late).as_deref(), Ok("alice"));

    let stranger = Gate::new(Terms::new(REALM), [8; 32], now);
    let value = answer(&mut super::tests::keyring("wonderland"), &stranger.challenges(false, 1, late), &REGISTER);
    let mut gate = Gate::new(Terms::new(REALM), [7; 32], now);
    assert_eq!(check(&mut gate, &value, &REGISTER, late), Err(Refusal::Stale));
}

#[test]
fn a_body_is_protected_by_auth_int() {
    let now = Instant::now();
    let mut gate = gate(&[Algorithm::Sha256], now);
    let only = gate.challenges(false, 1, now).remove(0).replace("auth,auth-int", "auth-int");
    let request = Protected { method: "INVITE", uri: "sip:bob@p2psip.org", body: b"v=0" };
    let value = answer(&mut keyring("wonderland"), &[only], &request);
    assert_eq!(check(&mut gate, &value, &Protected { body: b"v=1", ..request }, now), Err(Refusal::Wrong));
    assert_eq!(check(&mut gate, &value, &request, now).as_deref(), Ok("alice"));
}

#[test]
fn credentials_that_nobody_can_check_are_malformed() {
    let now = Instant::now();
    let mut gate = gate(&[Algorithm::Md5], now);
    let right = answer(&mut keyring("wonderland"), &gate.challenges(false, 1, now), &REGISTER);
    for (from, to) in [
        ("nc=00000001", "nc=1"),
        ("nc=00000001", "nc=zzzzzzzz"),
        (", nc=00000001", ""),
        ("qop=auth", "qop=auth-conf"),
        ("qop=auth, ", ""),
        ("algorithm=MD5", "algorithm=AKAv1-MD5"),
        ("username=", "user="),
        ("response=", "answer="),
        ("nonce=", "once="),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        assert!(matches!(check(&mut gate, &wrong, &REGISTER, now), Err(Refusal::Malformed(_))), "{wrong}");
    }
    assert!(matches!(check(&mut gate, "Digest realm", &REGISTER, now), Err(Refusal::Malformed(_))));
}

#[test]
fn a_realm_cannot_break_out_of_its_quotes() {
    let gate = Gate::new(Terms::new("a\"b\\c\r\nd"), [7; 32], Instant::now());
    assert_eq!(gate.realm(), "abcd");
}

#[test]
fn the_comparison_sees_every_difference() {
    assert!(is_same(b"", b"") && is_same(b"abc", b"abc"));
    assert!(!is_same(b"abc", b"abd") && !is_same(b"abc", b"ab") && !is_same(b"ab", b"abc"));
}

proptest! {
    #[test]
    fn checking_never_panics(value in proptest::collection::vec(any::<u8>(), 0..80), text in "\\PC*") {
        let now = Instant::now();
        let mut gate = gate(&[Algorithm::Md5], now);
        let text = format!("Digest realm=\"{REALM}\", {text}");
        let _ = gate.check([value.as_slice(), text.as_bytes()], &REGISTER, |_| None, now);
    }

    /// A nonce with any octet changed is not ours.
    #[test]
    fn a_nonce_cannot_be_forged(at in 0_usize..NONCE, flip in 1_u8.., made in 0_u64..1 << 40, salt in any::<u64>()) {
        let gate = gate(&[Algorithm::Md5], Instant::now());
        let nonce = gate.nonce(made, salt);
        prop_assert_eq!(gate.read_nonce(&nonce), Some((made, salt)));
        let mut octets = BASE64URL_NOPAD.decode(nonce.as_bytes()).unwrap();
        octets[at] ^= flip;
        prop_assert_eq!(gate.read_nonce(&BASE64URL_NOPAD.encode(&octets)), None);
    }

    /// The other implementation is the crate `digest_auth`, as the user agent.
    #[test]
    fn another_implementation_gets_in(
        algorithm in 0_usize..6,
        name in "[a-z]{1,8}",
        password in "[ -~]{0,12}",
        body in proptest::collection::vec(any::<u8>(), 0..40),
        integrity in any::<bool>(),
        salt in any::<u64>(),
    ) {
        let now = Instant::now();
        let mut gate = gate(&[Algorithm::ALL[algorithm]], now);
        let mut challenge = gate.challenges(false, salt, now).remove(0);
        if integrity {
            challenge = challenge.replace("auth,auth-int", "auth-int");
        }
        let context =
            AuthContext::new_with_method(&name, &password, "sip:p2psip.org", Some(&body), HttpMethod::from("REGISTER"));
        let answer = digest_auth::parse(&challenge).unwrap().respond(&context).unwrap().to_header_string();
        let secret = Secret::of_password(&name, REALM, &password);
        let request = Protected { body: &body, ..REGISTER };
        let checked = gate.check([answer.as_bytes()], &request, |user| (user == name).then_some(&secret), now);
        prop_assert_eq!(checked, Ok(name));
    }
}
