//! The lab's world: the draft's figures are played in it, and it says so when something in them does not happen.

use std::{collections::BTreeSet, time::Duration};

use p2psip::{
    cli::{Signal, invite, lab},
    lab::{Figure, FigureStatus, LabOptions},
};
use serde_json::Value;

use crate::{
    json_schema::assert_shape,
    world::{Ran, Staying, TestWorld, run, timed},
};

/// How long the whole of `p2p-lab` may take. A loaded machine is given twice as long as a user would wait.
const ALL_OF_IT: Duration = Duration::from_secs(30);

/// The numbers that a figure's steps have in the draft.
fn numbers(figure: &Value) -> Vec<&str> {
    figure["steps"].as_array().unwrap().iter().filter_map(|step| step["step"].as_str()).collect()
}

/// What was sent over each hop, in order: `alice>proxy peer INVITE`.
fn said(figure: &Value) -> Vec<String> {
    let name = |nth: &Value| figure["flow"]["parties"][nth.as_u64().unwrap() as usize]["name"].as_str().unwrap();
    let messages = figure["flow"]["messages"].as_array().unwrap().iter();
    let line = |message: &Value| {
        let what = message["what"].as_str().unwrap();
        format!("{}>{} {what}", name(&message["from"]), name(&message["to"]))
    };
    messages.map(line).collect()
}

fn assert_as_drawn(figure: &Value, expected: &[&str]) {
    assert_eq!((&figure["status"], &figure["failure"]), (&"as-drawn".into(), &Value::Null), "{figure:#}");
    assert_eq!(numbers(figure), expected);
    let times = figure["steps"].as_array().unwrap().iter().map(|step| step["at_ms"].as_f64().unwrap());
    assert!(times.is_sorted(), "{figure:#}");
    assert_eq!((&figure["call"]["status"], &figure["call"]["code"]), (&"answered".into(), &200.into()));
    assert_eq!(figure["call"]["ended_by"], "us");
}

#[test]
fn every_figure_is_played_as_the_draft_draws_it() {
    let (ran, took) = timed(lab::run, "--json");
    let tour = ran.exits(0).json();
    assert!(took < ALL_OF_IT, "{took:?}");
    assert_eq!(tour["status"], "ok");
    let figures = tour["figures"].as_array().unwrap();
    let [five, six, seven, eight] = &figures[..] else { panic!("{figures:#?}") };

    assert_as_drawn(five, &["5", "6"]);
    let parties = |figure: &Value| {
        let all = figure["flow"]["parties"].as_array().unwrap().iter();
        all.map(|party| party["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(parties(five), ["alice", "bob"], "no proxy peer has a part in it");
    let transports = |figure: &Value| {
        let all = figure["flow"]["messages"].as_array().unwrap().iter();
        all.map(|message| message["transport"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(transports(five), BTreeSet::from(["OVERLAY".to_owned()]));

    assert_as_drawn(six, &["5-6", "7", "8", "9"]);
    let invites =
        |figure: &Value, what: &str| said(figure).into_iter().filter(|line| line.ends_with(what)).collect::<Vec<_>>();
    let out = ["alice>proxy peer", "proxy peer>example.com", "example.com>bob"];
    for what in ["INVITE", "ACK", "BYE"] {
        assert_eq!(invites(six, what), out.map(|hop| format!("{hop} {what}")));
    }
    let step = |figure: &Value, number: &str| {
        let steps = figure["steps"].as_array().unwrap();
        steps.iter().find(|step| step["step"] == number).unwrap()["what"].as_str().unwrap().to_owned()
    };
    assert!(step(six, "8").ends_with("Record-Route <sip:p2psip.org;lr>"), "{}", step(six, "8"));
    assert_eq!(six["flow"]["asked"][0]["answer"], "2 proxy peers");

    assert_as_drawn(seven, &["1", "2", "3"]);
    assert_eq!(invites(seven, "BYE"), ["bob>proxy peer BYE", "proxy peer>alice BYE"]);

    assert_as_drawn(eight, &["1-2", "3", "4", "5", "6", "7", "8"]);
    assert_eq!(eight["registration"]["bindings"], serde_json::json!(["sip:alice@p2psip.org"]));
    assert_eq!(invites(eight, "401 Unauthorized").len(), 2, "the challenge passes the proxy peer");
    assert!(step(eight, "8").ends_with("<sip:p2psip.org;lr>, Record-Route <sip:example.org;lr>"));

    let mut shape = tour.clone();
    for step in shape["steps"].as_array_mut().unwrap() {
        // Each command has a shape of its own.
        step.as_object_mut().unwrap().remove("outcome");
    }
    for figure in shape["figures"].as_array_mut().unwrap() {
        assert!(figure["call"]["flow"].is_null());
        figure["flow"].as_object_mut().unwrap().remove("hops");
    }
    assert_shape("lab", &[shape]);
}

#[test]
fn what_people_see_of_a_figure_is_its_ladder_with_the_numbers_of_the_draft() {
    let ran = run(lab::run, "--peers 8").exits(0);
    let heading = "Figure 6 (draft §5.2): Alice in the overlay calls Bob at example.com\n";
    let (_, six) = ran.out.split_once(heading).unwrap_or_else(|| panic!("{}", ran.out));
    let (six, _) = six.split_once("Figure 7").unwrap();
    for (number, what) in [("5-6", "overlay: sip:p2psip.org → 2 proxy peers"), ("7", "INVITE (SDP)"), ("9", "INVITE")]
    {
        let line = six.lines().find(|line| line.trim_start().starts_with(&format!("{number} ")));
        assert!(line.is_some_and(|line| line.contains(what)), "{number}: {six}");
    }
    assert!(six.contains("steps 5-6, 7, 8, 9 as drawn; answered after "), "{six}");
    assert!(six.lines().all(|line| line.chars().count() <= 120), "{six}");
    assert!(ran.out.contains("\n4 of 4 figures as drawn, 8 of 8 answers right, in "), "{}", ran.out);
}

#[test]
fn without_proxy_peers_the_first_step_that_fails_is_named() {
    let mut world = TestWorld::start(LabOptions { sip: true, ..LabOptions::new(8).unwrap() });
    let runtime = world.runtime.handle().clone();
    runtime.block_on(world.world.seat_alice()).unwrap();
    runtime.block_on(async { world.world.kill_proxies() });
    let five = world.run(world.world.play(Figure::Five));
    assert_eq!((five.status, five.failure), (FigureStatus::AsDrawn, None), "it needs none");
    for (figure, step) in [
        (Figure::Six, "Figure 6, step 7: this did not happen: INVITE from alice@p2psip.org to proxy peer"),
        (Figure::Seven, "Figure 7, step 1: this did not happen: INVITE from bob@example.com to proxy peer"),
        (Figure::Eight, "Figure 8, step 3: this did not happen: REGISTER from alice@p2psip.org to proxy peer"),
    ] {
        let played = world.run(world.world.play(figure));
        assert_eq!(played.status, FigureStatus::Failed, "{played:#?}");
        let failure = played.failure.unwrap();
        assert!(failure.starts_with(step) && failure.contains("; "), "{failure}");
        assert!(played.steps.iter().any(|step| step.at_ms.is_none()));
    }
    drop(runtime);
}

#[test]
fn bob_answers_on_both_sides_in_a_world_that_stays() {
    let mut up = Staying::start(lab::run, "up --peers 8 --json");
    let said = up.json();
    let variable = |name: &str| said["environment"][format!("P2PSIP_{name}")].as_str().unwrap().to_owned();
    assert_shape("lab-up", &[said.clone()]);
    let common = format!("--json --media 0.1 --ladder --dns {}", variable("DNS"));
    let alice =
        format!("{common} --home {} --socket {} --from {}", variable("HOME"), variable("SOCKET"), variable("AOR"));
    let call = |line: &str| run(invite::run, line);
    let parties = |ran: &Ran| {
        let all = ran.json()["flow"]["parties"].as_array().unwrap().clone();
        all.iter().map(|party| party["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(parties(&call(&format!("{alice} sip:bob@p2psip.org")).exits(0)), ["alice", "bob"]);
    assert_eq!(parties(&call(&format!("{alice} sip:bob@example.com")).exits(0)), ["alice", "proxy peer"]);
    // From outside: by the DNS, and to where the lab says that a proxy peer is.
    let outside = format!("{common} --as public --from sip:carol@example.net");
    for line in [
        format!("{outside} sip:bob@p2psip.org"),
        format!("{outside} --proxy {} sip:bob@p2psip.org", variable("PROXY")),
        format!("{outside} sip:bob@example.com"),
    ] {
        assert_eq!(call(&line).exits(0).json()["status"], "answered");
    }
    for (callee, code) in [("nobody@example.com", 404), ("alice@example.org", 480), ("nobody@p2psip.org", 404)] {
        assert_eq!(call(&format!("{outside} sip:{callee}")).exits(1).json()["code"], code, "{callee}");
    }
    // A domain is no open relay.
    let domain = said["domains"][0]["address"].as_str().unwrap();
    let relayed = call(&format!("{outside} --proxy {domain} sip:bob@example.com")).exits(1).json();
    assert_eq!((&relayed["code"], &relayed["reason"]), (&403.into(), &"Relaying Denied".into()));
    up.end(Signal::Terminate).exits(0);
}
