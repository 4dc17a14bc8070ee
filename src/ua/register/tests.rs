//! A binding and a registrar that says what it likes; time is virtual.

use super::*;
use crate::sip::{digest::DigestError, respond::respond};

const CONTACT: &str = "<sip:alice@p2psip.org>";

/// A binding, its time, and what it wants done.
struct World {
    registration: Registration,
    now: Instant,
    out: Vec<Action>,
}

fn plan(password: Option<&str>) -> RegisterPlan {
    let user = |password: &str| User { name: "alice".to_owned(), password: password.to_owned() };
    RegisterPlan {
        aor: "sip:alice@example.org".to_owned(),
        registrar: "sip:example.org".to_owned(),
        contact: "sip:alice@p2psip.org".to_owned(),
        routes: vec!["<sip:p2psip.org;lr>".to_owned()],
        user: password.map(user),
        expires: Duration::from_secs(3600),
        keep: true,
        patience: Duration::from_secs(5),
        user_agent: "test".to_owned(),
    }
}

impl World {
    fn new(plan: RegisterPlan) -> Self {
        let registration = Registration::new(plan, "call".to_owned(), "tag".to_owned());
        let mut world = Self { registration, now: Instant::now(), out: Vec::new() };
        world.registration.start(world.now, &mut world.out);
        world
    }

    /// The REGISTER that is to be sent now.
    #[track_caller]
    fn sent(&mut self) -> Message {
        let sent = self.out.drain(..).find_map(|action| match action {
            Action::Request { purpose: Purpose::Register, request, next_hop } => {
                assert_eq!(next_hop, NextHop::Uri("sip:p2psip.org;lr".to_owned()));
                Some(request)
            }
            _ => None,
        });
        sent.expect("a REGISTER")
    }

    /// What has happened, if anything.
    fn happened(&mut self) -> Option<RegisterEvent> {
        let at = self.out.iter().position(|action| matches!(action, Action::Registration(_)))?;
        match self.out.remove(at) {
            Action::Registration(event) => Some(event),
            _ => None,
        }
    }

    fn answer(&mut self, request: &Message, status: u16, headers: &[(Name<'_>, &str)]) {
        let response = respond(request, status, "", Some("r"));
        let response = headers.iter().fold(response, |response, (name, value)| response.header(*name, value));
        let response = Message::parse(response.finish()).unwrap();
        let source = Source::peer(crate::name::PeerId::from_public_key([7; 32]), FlowId(3));
        self.registration.response(&response, &source, self.now, "cnonce", &mut self.out);
    }

    #[track_caller]
    fn fault(&mut self) -> (RegisterFault, Option<Duration>) {
        match self.happened() {
            Some(RegisterEvent::Failed { fault, again }) => (fault, again),
            other => panic!("no failure: {other:?}"),
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.registration.handle_timeout(self.now, &mut self.out);
    }
}

fn bound(contact: &str) -> [(Name<'static>, &str); 1] {
    [(Name::Contact, contact)]
}

#[test]
fn a_binding_is_made_refreshed_before_it_ends_and_removed() {
    let mut world = World::new(plan(None));
    let request = world.sent();
    assert_eq!(request.header(Name::Contact), Some(CONTACT.as_bytes()));
    assert_eq!((request.expires().unwrap(), request.cseq().unwrap().number), (Some(3600), 1));
    assert!(request.header(Name::RecordRoute).is_none() && request.header(Name::Path).is_none());
    world.answer(&request, 200, &bound("<sip:desk@192.0.2.1>;expires=7, <SIP:alice@P2PSIP.org>;expires=1800"));
    let Some(RegisterEvent::Bound(binding)) = world.happened() else { panic!("{:?}", world.out) };
    assert_eq!(binding.granted, Duration::from_secs(1800));
    assert_eq!(binding.contacts, ["sip:desk@192.0.2.1", "SIP:alice@P2PSIP.org"]);

    world.wait(Duration::from_secs(1739));
    assert!(world.out.is_empty());
    world.wait(Duration::from_secs(1));
    let refresh = world.sent();
    assert_eq!((refresh.cseq().unwrap().number, refresh.call_id()), (2, Ok("call")));
    world.answer(&refresh, 200, &bound("<sip:alice@p2psip.org>;expires=10"));
    assert!(matches!(world.happened(), Some(RegisterEvent::Bound(_))));
    world.wait(Duration::from_secs(5));
    assert_eq!(world.sent().cseq().unwrap().number, 3, "a short binding is refreshed halfway");

    let now = world.now;
    world.registration.remove(now, &mut world.out);
    let removal = world.sent();
    assert_eq!(removal.expires().unwrap(), Some(0));
    world.answer(&removal, 200, &bound("<sip:desk@192.0.2.1>"));
    assert_eq!(world.happened(), Some(RegisterEvent::Removed { contacts: vec!["sip:desk@192.0.2.1".to_owned()] }));
    assert_eq!(world.registration.poll_timeout(), None);
}

#[test]
fn how_long_it_holds_is_said_by_the_contact_the_header_or_nobody() {
    for (contact, expires, granted) in [
        ("<sip:alice@p2psip.org>;expires=5", Some("9"), 5),
        (CONTACT, Some("9"), 9),
        (CONTACT, None, 3600),
        ("<sip:alice@p2psip.org>;expires=junk", None, 3600),
    ] {
        let mut world = World::new(plan(None));
        let request = world.sent();
        let headers = [Some((Name::Contact, contact)), expires.map(|expires| (Name::Expires, expires))];
        world.answer(&request, 200, &headers.into_iter().flatten().collect::<Vec<_>>());
        let Some(RegisterEvent::Bound(binding)) = world.happened() else { panic!("{:?}", world.out) };
        assert_eq!(binding.granted, Duration::from_secs(granted), "{contact} {expires:?}");
    }
}

#[test]
fn what_is_not_in_the_answer_is_not_bound() {
    for headers in [&[][..], &bound("<sip:alice@192.0.2.1>"), &bound("<sip:alice@p2psip.org>;expires=0"), &bound("*")] {
        let mut world = World::new(plan(None));
        let request = world.sent();
        world.answer(&request, 200, headers);
        assert_eq!(world.fault(), (RegisterFault::NotBound("sip:alice@p2psip.org".to_owned()), None));
    }
    let mut world = World::new(RegisterPlan { expires: Duration::ZERO, keep: false, ..plan(None) });
    let request = world.sent();
    world.answer(&request, 200, &bound(CONTACT));
    assert_eq!(world.fault().0, RegisterFault::StillBound("sip:alice@p2psip.org".to_owned()));
    let mut world = World::new(RegisterPlan { expires: Duration::ZERO, keep: false, ..plan(None) });
    let request = world.sent();
    world.answer(&request, 200, &bound("<sip:alice@p2psip.org>;expires=60"));
    assert_eq!(world.fault().0, RegisterFault::StillBound("sip:alice@p2psip.org".to_owned()));
}

fn challenge(realm: &str, nonce: u32, stale: bool) -> String {
    format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", qop=\"auth\", stale={stale}")
}

#[test]
fn a_challenge_is_answered_once_and_what_was_learnt_is_kept() {
    let mut world = World::new(plan(Some("secret")));
    let request = world.sent();
    world.answer(&request, 401, &[(Name::WwwAuthenticate, &challenge("a", 1, false))]);
    let told = RegisterEvent::Challenged { realm: "a".to_owned(), algorithm: Algorithm::Md5 };
    assert_eq!(world.happened(), Some(told));
    let answer = world.sent();
    assert!(answer.header(Name::Authorization).is_some());
    world.answer(&answer, 200, &bound(CONTACT));
    world.happened();
    world.wait(Duration::from_secs(3540));
    let refresh = world.sent();
    let credentials = String::from_utf8_lossy(refresh.header(Name::Authorization).unwrap()).into_owned();
    assert!(credentials.contains("nc=00000002"), "no second challenge is needed: {credentials}");
    // The nonce has died meanwhile, and a proxy on the way wants to know as well.
    world.answer(&refresh, 401, &[(Name::WwwAuthenticate, &challenge("a", 2, true))]);
    let answer = world.sent();
    world.answer(&answer, 407, &[(Name::ProxyAuthenticate, &challenge("b", 1, false))]);
    let answer = world.sent();
    assert!(answer.header(Name::Authorization).is_some() && answer.header(Name::ProxyAuthorization).is_some());
}

#[test]
fn a_wrong_password_and_endless_challenges_end_it() {
    let mut world = World::new(plan(Some("wrong")));
    let request = world.sent();
    world.answer(&request, 401, &[(Name::WwwAuthenticate, &challenge("a", 1, false))]);
    let answer = world.sent();
    world.answer(&answer, 401, &[(Name::WwwAuthenticate, &challenge("a", 2, false))]);
    assert_eq!(world.fault(), (DigestError::Refused("a".to_owned()).into(), None));

    let stale = |nth: u32| challenge("a", nth, true);
    let moving = |nth: u32| challenge(&format!("realm {nth}"), nth, false);
    for (next, last) in [(&stale as &dyn Fn(u32) -> String, "a"), (&moving, "realm 5")] {
        let mut world = World::new(plan(Some("secret")));
        for nth in 1..=5 {
            let request = world.sent();
            world.answer(&request, 401, &[(Name::WwwAuthenticate, &next(nth))]);
        }
        while matches!(world.out.first(), Some(Action::Registration(RegisterEvent::Challenged { .. }))) {
            world.out.remove(0);
        }
        assert_eq!(world.fault(), (RegisterFault::Challenges(last.to_owned()), None));
    }

    let mut world = World::new(plan(None));
    let request = world.sent();
    world.answer(&request, 401, &[(Name::WwwAuthenticate, &challenge("a", 1, false))]);
    assert_eq!(world.fault().0, RegisterFault::NoPassword("a".to_owned()));
}

#[test]
fn an_interval_too_brief_is_raised_once() {
    let mut world = World::new(RegisterPlan { expires: Duration::from_secs(60), ..plan(None) });
    let request = world.sent();
    world.answer(&request, 423, &[(Name::MinExpires, "600")]);
    let raised = world.sent();
    assert_eq!(raised.expires().unwrap(), Some(600));
    world.answer(&raised, 423, &[(Name::MinExpires, "6000")]);
    assert!(matches!(world.fault().0, RegisterFault::Refused { status: 423, .. }));
}

#[test]
fn redirections_are_followed_but_not_for_ever_nor_out_of_safety() {
    let mut world = World::new(plan(None));
    let first = world.sent();
    world.answer(&first, 302, &bound("<mailto:a@b.org>, <sip:alice@node.example.org:5070?x=y>"));
    let second = world.sent();
    assert_eq!(second.request_uri(), Some("sip:node.example.org:5070"), "a registrar has no user part");
    assert_eq!(second.to().unwrap().uri.as_str(), "sip:alice@example.org");
    world.answer(&second, 200, &bound(CONTACT));
    let Some(RegisterEvent::Bound(binding)) = world.happened() else { panic!("{:?}", world.out) };
    assert_eq!(binding.redirected.as_deref(), Some("sip:node.example.org:5070"));
    world.wait(Duration::from_secs(3540));
    let mut request = world.sent();
    assert_eq!(request.request_uri(), Some("sip:example.org"), "a temporary move is not remembered");
    for _ in 0..3 {
        world.answer(&request, 301, &bound("<sip:example.org>"));
        request = world.sent();
    }
    world.answer(&request, 301, &bound("<sip:example.org>"));
    assert!(matches!(world.fault(), (RegisterFault::Redirected(_), None)));

    for contact in ["<sip:example.org>", "<tel:+1>"] {
        let secure = RegisterPlan { registrar: "sips:example.org".to_owned(), ..plan(None) };
        let mut world = World::new(secure);
        let request = world.sent();
        world.answer(&request, 302, &bound(contact));
        assert!(matches!(world.fault().0, RegisterFault::Redirected(_)), "{contact}");
    }
}

#[test]
fn what_may_pass_is_tried_again_later_and_later_and_a_refusal_is_not() {
    let mut world = World::new(plan(None));
    for (nth, pause) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
        let request = world.sent();
        if nth % 2 == 0 {
            world.answer(&request, 503, &[]);
        } else {
            world.registration.failed(Failure::Transport("gone".to_owned()), world.now, &mut world.out);
        }
        let again = Duration::from_secs(pause);
        assert_eq!(world.fault().1, Some(again));
        world.wait(again);
    }
    let request = world.sent();
    world.answer(&request, 503, &[(Name::RetryAfter, "100")]);
    assert_eq!(world.fault().1, Some(Duration::from_secs(100)));
    world.wait(Duration::from_secs(100));
    let request = world.sent();
    world.answer(&request, 403, &[]);
    assert_eq!(world.fault(), (RegisterFault::Refused { status: 403, reason: "Forbidden".to_owned() }, None));
    assert_eq!(world.registration.poll_timeout(), None);
}

#[test]
fn nobody_waits_for_longer_than_asked_for() {
    let mut world = World::new(RegisterPlan { keep: false, ..plan(None) });
    let request = world.sent();
    world.wait(Duration::from_secs(5));
    assert_eq!(world.fault(), (Failure::Timeout.into(), None));
    world.answer(&request, 200, &bound(CONTACT));
    assert!(world.out.is_empty(), "too late");
}

#[test]
fn a_lost_connection_is_made_up_for_if_the_binding_is_to_be_kept() {
    for keep in [true, false] {
        let mut world = World::new(RegisterPlan { keep, ..plan(None) });
        let request = world.sent();
        assert!(!world.registration.uses(FlowId(3)));
        world.answer(&request, 200, &bound(CONTACT));
        world.happened();
        assert!(world.registration.uses(FlowId(3)) && !world.registration.uses(FlowId(4)));
        let now = world.now;
        world.registration.lost(now, &mut world.out);
        assert_eq!(world.happened(), keep.then_some(RegisterEvent::Lost));
        assert_eq!(world.out.len(), usize::from(keep));
        // Answers to the REGISTER before that are of no interest any more.
        world.out.clear();
        world.answer(&request, 200, &bound(CONTACT));
        assert!(world.out.is_empty());
    }
}
