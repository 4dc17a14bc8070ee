//! The draft's examples (§5), played: what each figure draws is looked for in what went over the wire.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    World,
    sip::{ALICE, BOB, BOB_OUTSIDE, PROXY_PEER},
};
use crate::{
    clock::ms,
    ops::{
        call::{CallOutcome, CallStatus},
        flow::{self, FlowView, PartyView},
        public::{PublicOutcome, PublicReport, PublicRequest, register_public},
    },
    sip::{
        Message,
        header::Name,
        tap::{Heard, Inquiry},
        transport::Protocol,
    },
};

/// Alice's domain outside of the overlay, and her name there.
const HOME: &str = "example.org";
const PUBLIC: &str = "sip:alice@example.org";
/// How long a call of a figure lasts once it is on.
const HOLD: Duration = Duration::from_millis(100);
/// How long it may take until it is.
const SETUP: Duration = Duration::from_secs(5);
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last messages may take after the caller has heard of the end.
const SETTLE: Duration = Duration::from_millis(20);

/// A figure of the draft, its signalling: relays and media are not in it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Both within the overlay (§5.1).
    Five,
    /// The callee in a public SIP network (§5.2).
    Six,
    /// The caller in a public SIP network (§5.3).
    Seven,
    /// The callee registered in a public network from an overlay (§5.4).
    Eight,
}

/// What came of playing a figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FigureOutcome {
    /// The outcome.
    pub status: FigureStatus,
    /// Its number in the draft.
    pub figure: u8,
    /// The draft's section.
    pub section: &'static str,
    /// Who calls whom.
    pub title: &'static str,
    /// What has to happen, in this order.
    pub steps: Vec<StepView>,
    /// What went wrong first.
    pub failure: Option<String>,
    /// Alice's registration outside, if the figure has one.
    pub registration: Option<PublicOutcome>,
    /// The call, as the caller saw it.
    pub call: Option<CallOutcome>,
    /// What went over the wire, from end to end.
    pub flow: FlowView,
    /// From the first question to the end.
    pub elapsed_ms: f64,
}

/// The outcome, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FigureStatus {
    /// Everything happened as the draft draws it.
    AsDrawn,
    /// Something did not.
    Failed,
}

/// Something that has to happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepView {
    /// Its number in the figure, or numbers: `5-6`; `null` of what the figure leaves out.
    pub step: Option<&'static str>,
    /// What it is.
    pub what: String,
    /// When it happened, counted from the first of all; `null` if it did not.
    pub at_ms: Option<f64>,
    /// Which message of the flow it is, if it is one.
    pub message: Option<usize>,
    /// Which question of the flow it is, if it is one.
    pub asked: Option<usize>,
}

/// What is looked for.
struct Expected {
    step: Option<&'static str>,
    sign: Sign,
}

enum Sign {
    /// A party asks somebody where something is, and gets an answer.
    Asks { by: &'static str, whom: &'static str, question: String },
    /// A message arrives: `INVITE`, or `200 INVITE` for an answer to one.
    Says { from: &'static str, to: &'static str, what: &'static str, over: Option<Protocol>, record_route: Vec<String> },
}

impl Figure {
    /// All that can be played, in the draft's order.
    pub const ALL: [Self; 4] = [Self::Five, Self::Six, Self::Seven, Self::Eight];

    /// Its number in the draft.
    pub const fn number(self) -> u8 {
        match self {
            Self::Five => 5,
            Self::Six => 6,
            Self::Seven => 7,
            Self::Eight => 8,
        }
    }

    /// The draft's section.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Five => "5.1",
            Self::Six => "5.2",
            Self::Seven => "5.3",
            Self::Eight => "5.4",
        }
    }

    /// Who calls whom.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Five => "Alice calls Bob, both in the overlay, without any proxy",
            Self::Six => "Alice in the overlay calls Bob at example.com",
            Self::Seven => "Bob at example.com calls Alice in the overlay",
            Self::Eight => "Alice registers at example.org; Bob calls her there and reaches the overlay",
        }
    }

    /// Who calls, and whom.
    const fn call(self) -> (&'static str, &'static str) {
        match self {
            Self::Five => (ALICE, "sip:bob@p2psip.org"),
            Self::Six => (ALICE, "sip:bob@example.com"),
            Self::Seven => (BOB_OUTSIDE, "sip:alice@p2psip.org"),
            Self::Eight => (BOB_OUTSIDE, PUBLIC),
        }
    }

    /// The parties, as the draft draws them from left to right.
    const fn parties(self) -> &'static [&'static str] {
        match self {
            Self::Five => &[ALICE, BOB],
            Self::Six => &[ALICE, PROXY_PEER, "example.com", BOB_OUTSIDE],
            Self::Seven => &[ALICE, PROXY_PEER, BOB_OUTSIDE],
            Self::Eight => &[ALICE, PROXY_PEER, HOME, BOB_OUTSIDE],
        }
    }

    /// What the draft says, step by step, and how the call goes on and ends.
    fn expected(self) -> Vec<Expected> {
        let recorded = || vec!["<sip:p2psip.org;lr>".to_owned()];
        match self {
            Self::Five => {
                let mut steps = vec![
                    asks("5", ALICE, "overlay", "sip:bob@p2psip.org"),
                    says("6", ALICE, BOB, "INVITE").over(Protocol::Overlay),
                ];
                steps.extend(the_rest(&[ALICE, BOB]));
                steps
            }
            Self::Six => {
                let mut steps = vec![
                    asks("5-6", ALICE, "overlay", "sip:p2psip.org"),
                    says("7", ALICE, PROXY_PEER, "INVITE").over(Protocol::Overlay),
                    asks("", PROXY_PEER, "DNS", "example.com"),
                    says("8", PROXY_PEER, "example.com", "INVITE").recorded(recorded()),
                    says("9", "example.com", BOB_OUTSIDE, "INVITE"),
                ];
                steps.extend(the_rest(&[ALICE, PROXY_PEER, "example.com", BOB_OUTSIDE]));
                steps
            }
            Self::Seven => {
                let mut steps = vec![
                    asks("", BOB_OUTSIDE, "DNS", "p2psip.org"),
                    says("1", BOB_OUTSIDE, PROXY_PEER, "INVITE"),
                    asks("2", PROXY_PEER, "overlay", "sip:alice@p2psip.org"),
                    says("3", PROXY_PEER, ALICE, "INVITE").over(Protocol::Overlay).recorded(recorded()),
                ];
                steps.extend(the_rest(&[BOB_OUTSIDE, PROXY_PEER, ALICE]));
                steps
            }
            Self::Eight => {
                let both = vec!["<sip:p2psip.org;lr>".to_owned(), format!("<sip:{HOME};lr>")];
                let mut steps = vec![
                    asks("1-2", ALICE, "overlay", "sip:p2psip.org"),
                    says("3", ALICE, PROXY_PEER, "REGISTER").over(Protocol::Overlay),
                    says("4", PROXY_PEER, HOME, "REGISTER"),
                    says("", HOME, PROXY_PEER, "401 REGISTER"),
                    says("", PROXY_PEER, ALICE, "401 REGISTER"),
                    says("", ALICE, PROXY_PEER, "REGISTER"),
                    says("", PROXY_PEER, HOME, "REGISTER"),
                    says("", HOME, PROXY_PEER, "200 REGISTER"),
                    says("", PROXY_PEER, ALICE, "200 REGISTER"),
                    says("5", BOB_OUTSIDE, HOME, "INVITE"),
                    asks("", HOME, "DNS", "p2psip.org"),
                    says("6", HOME, PROXY_PEER, "INVITE"),
                    asks("7", PROXY_PEER, "overlay", "sip:alice@p2psip.org"),
                    says("8", PROXY_PEER, ALICE, "INVITE").over(Protocol::Overlay).recorded(both),
                ];
                steps.extend(the_rest(&[BOB_OUTSIDE, HOME, PROXY_PEER, ALICE]));
                steps
            }
        }
    }
}

fn asks(step: &'static str, by: &'static str, whom: &'static str, question: &str) -> Expected {
    let sign = Sign::Asks { by, whom, question: question.to_owned() };
    Expected { step: Some(step).filter(|step| !step.is_empty()), sign }
}

fn says(step: &'static str, from: &'static str, to: &'static str, what: &'static str) -> Expected {
    let sign = Sign::Says { from, to, what, over: None, record_route: Vec::new() };
    Expected { step: Some(step).filter(|step| !step.is_empty()), sign }
}

/// How a call goes on once the INVITE has arrived: the answer, its ACK, and a BYE, all along the same way.
fn the_rest(way: &[&'static str]) -> Vec<Expected> {
    let hops = || way.windows(2).filter_map(|pair| <[&'static str; 2]>::try_from(pair).ok());
    let forth = |what| hops().map(move |[near, far]| says("", near, far, what));
    let back = |what| hops().rev().map(move |[near, far]| says("", far, near, what));
    back("200 INVITE").chain(forth("ACK")).chain(forth("BYE")).chain(back("200 BYE")).collect()
}

impl Expected {
    /// The message has to come over this transport.
    fn over(mut self, protocol: Protocol) -> Self {
        if let Sign::Says { over, .. } = &mut self.sign {
            *over = Some(protocol);
        }
        self
    }

    /// The message has to have these Record-Routes.
    fn recorded(mut self, values: Vec<String>) -> Self {
        if let Sign::Says { record_route, .. } = &mut self.sign {
            *record_route = values;
        }
        self
    }

    /// Whether a message is the one.
    fn is_message(&self, heard: &Heard) -> bool {
        let Sign::Says { from, to, what, over, record_route } = &self.sign else { return false };
        let Ok(message) = Message::parse(heard.bytes.clone()) else { return false };
        let is = match message.status() {
            Some(status) => format!("{status} {}", message.method()),
            None => message.method().to_string(),
        };
        let recorded = message.values(Name::RecordRoute).map(String::from_utf8_lossy);
        *heard.from == **from
            && *heard.to == **to
            && is == *what
            && over.is_none_or(|over| over == heard.protocol)
            && (record_route.is_empty() || recorded.eq(record_route.iter().map(String::as_str)))
    }

    fn is_inquiry(&self, inquiry: &Inquiry) -> bool {
        let Sign::Asks { by, whom, question } = &self.sign else { return false };
        *inquiry.by == **by && inquiry.whom == *whom && inquiry.question == *question
    }

    /// The step in words.
    fn what(&self) -> String {
        match &self.sign {
            Sign::Asks { by, whom, question } => format!("{by} asks the {whom} for {question}"),
            Sign::Says { from, to, what, over, record_route } => {
                let over = over.map(|over| format!(", over {over}")).unwrap_or_default();
                let recorded = record_route.iter().map(|route| format!(", Record-Route {route}"));
                format!("{what} from {from} to {to}{over}{}", recorded.collect::<String>())
            }
        }
    }
}

impl World {
    /// Plays a figure: a call from end to end, and what the draft says of it.
    pub async fn play(&self, figure: Figure) -> FigureOutcome {
        let began = Instant::now();
        self.sip.recorder.clear();
        let (caller, callee) = figure.call();
        let registration = if figure == Figure::Eight { self.register_outside().await } else { None };
        let call = match self.phone(caller) {
            Some(phone) => tokio::time::timeout(PATIENCE, phone.call(callee, HOLD, SETUP)).await.ok().flatten(),
            None => None,
        };
        tokio::time::sleep(SETTLE).await;
        let elapsed_ms = ms(began.elapsed());
        let (heard, inquiries) = self.sip.recorder.heard();
        let expected = figure.expected();
        let inquiries = worth_telling(inquiries, &expected, &heard);
        let parties = figure.parties().iter().map(|party| (*party, self.view(party))).collect::<Vec<_>>();
        let flow = flow::between(&parties, &heard, &inquiries);
        let steps = found(&expected, &heard, &inquiries, &flow);
        let failure = failure(figure, &steps, registration.as_ref(), call.as_ref(), &heard);
        FigureOutcome {
            status: if failure.is_none() { FigureStatus::AsDrawn } else { FigureStatus::Failed },
            figure: figure.number(),
            section: figure.section(),
            title: figure.title(),
            steps,
            failure,
            registration,
            call,
            flow,
            elapsed_ms,
        }
    }

    /// What `p2p-register --public` does, in Alice's hands (draft §4.2).
    async fn register_outside(&self) -> Option<PublicOutcome> {
        let alice = self.users().first()?;
        let request = PublicRequest {
            aor: alice.aor.clone(),
            public: PUBLIC.to_owned(),
            contacts: Vec::new(),
            expires: None,
            user: self.account(HOME).ok(),
            remove: false,
            stay: false,
            tap: Some(self.sip.recorder.tap(ALICE)),
        };
        let mut outcome = None;
        let mut report = |report| {
            if let PublicReport::Outcome(told) = report {
                outcome = Some(*told);
            }
        };
        let access = self.access_of(alice);
        let registering = register_public(&access, &request, &mut report, std::future::pending());
        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, registering).await {
            tracing::warn!("{PUBLIC} is not registered: {error}");
        }
        outcome
    }

    /// A party as it is shown: a person by name and domain, a server by name and address.
    fn view(&self, party: &str) -> PartyView {
        let (name, address) = match party.split_once('@') {
            Some((user, domain)) => (user, domain.to_owned()),
            None if party == PROXY_PEER => (party, format!("sip:{}", self.descriptor().overlay())),
            None => {
                let domain = self.domains().into_iter().find(|domain| domain.name == party);
                (party, domain.map(|domain| domain.address.to_string()).unwrap_or_default())
            }
        };
        PartyView { name: name.to_owned(), address }
    }
}

/// Each question once, unless a step needs it: what is remembered is asked for every message again.
fn worth_telling(inquiries: Vec<Inquiry>, expected: &[Expected], heard: &[Heard]) -> Vec<Inquiry> {
    let needed: Vec<usize> = matched(expected, heard, &inquiries).into_iter().filter_map(|(_, asked)| asked).collect();
    let mut known: Vec<(Arc<str>, String)> = Vec::new();
    let kept = inquiries.into_iter().enumerate().filter(|(nth, inquiry)| {
        let question = (inquiry.by.clone(), inquiry.question.clone());
        let first = !known.contains(&question);
        known.push(question);
        first || needed.contains(nth)
    });
    kept.map(|(_, inquiry)| inquiry).collect()
}

/// Looks for each step after the one before: which message it is, or which question.
fn matched(expected: &[Expected], heard: &[Heard], inquiries: &[Inquiry]) -> Vec<(Option<usize>, Option<usize>)> {
    let mut after: Option<Instant> = None;
    let steps = expected.iter().map(|step| {
        let later = |at: Instant| after.is_none_or(|after| at >= after);
        let message = heard.iter().position(|heard| later(heard.at) && step.is_message(heard));
        let asked = inquiries.iter().position(|inquiry| later(inquiry.at) && step.is_inquiry(inquiry));
        let at = message.and_then(|nth| heard.get(nth)).map(|heard| heard.at);
        after = at.or_else(|| asked.and_then(|nth| inquiries.get(nth)).map(|asked| asked.at)).or(after);
        (message, asked)
    });
    steps.collect()
}

/// The steps, as people are told of them.
fn found(expected: &[Expected], heard: &[Heard], inquiries: &[Inquiry], flow: &FlowView) -> Vec<StepView> {
    let places = matched(expected, heard, inquiries);
    let steps = expected.iter().zip(places).map(|(step, (message, asked))| {
        let at_ms = message.and_then(|nth| flow.messages.get(nth)).map(|message| message.at_ms);
        let at_ms = at_ms.or_else(|| asked.and_then(|nth| flow.asked.get(nth)).map(|asked| asked.at_ms));
        StepView { step: step.step, what: step.what(), at_ms, message, asked }
    });
    steps.collect()
}

/// What went wrong first, if anything did.
fn failure(
    figure: Figure,
    steps: &[StepView],
    registration: Option<&PublicOutcome>,
    call: Option<&CallOutcome>,
    heard: &[Heard],
) -> Option<String> {
    let refused = registration.and_then(|registration| registration.reason.as_ref());
    let reason = || {
        if let Some(refused) = refused {
            return Some(format!("; the registration: {refused}"));
        }
        let call = call.filter(|call| call.status != CallStatus::Answered)?;
        let code = call.code.map(|code| format!("{code} ")).unwrap_or_default();
        Some(format!("; the caller was told: {code}{}", call.reason.as_deref().unwrap_or("nothing")))
    };
    if let Some(missing) = steps.iter().find(|step| step.at_ms.is_none()) {
        let step = missing.step.map(|step| format!("step {step}: ")).unwrap_or_default();
        let why = reason().unwrap_or_default();
        return Some(format!("Figure {}, {step}this did not happen: {}{why}", figure.number(), missing.what));
    }
    let stranger =
        |heard: &&Heard| !figure.parties().contains(&&*heard.from) || !figure.parties().contains(&&*heard.to);
    if let Some(heard) = heard.iter().find(stranger) {
        return Some(format!("Figure {}: {} and {} have no part in it", figure.number(), heard.from, heard.to));
    }
    match call.map(|call| (call.status, &call.fault)) {
        Some((CallStatus::Answered, None)) => None,
        Some((_, fault)) => {
            let why = fault.clone().or_else(reason).unwrap_or_default();
            Some(format!("Figure {}: the call did not end well: {why}", figure.number()))
        }
        None => Some(format!("Figure {}: the call has not ended in time", figure.number())),
    }
}
