//! `p2p-lookup --trace`: the walk hop by hop, and which storers of a name disagree.

use std::sync::{Arc, Mutex};

use futures::future::join_all;
use p2psip::{
    client::{
        Call, Closest, ClosestReply, Digest, DigestReply, ErrorCode, ErrorReply, Fetch, FetchReply, Keep, RequestFrame,
        ResponseFrame, Status, Store, StoreReply,
    },
    clock::UnixMs,
    identity::SecretKey,
    lab::World,
    member::Member,
    name::{PeerId, ResourceName},
    overlay::{
        Answer, Caller, Responder,
        swarm::{Network, NetworkConfig},
    },
    record::Payload,
};
use serde_json::Value;

use crate::world::{PATIENCE, TestWorld, User, eventually, lookup, register};

/// A member that takes every record and returns always the same ones.
struct Stubborn {
    network: Network,
    returns: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Stubborn {
    /// Starts one, and makes it known to every member. What it returns can be set later.
    async fn join(world: &World) -> (Network, Arc<Mutex<Vec<Vec<u8>>>>) {
        let (descriptor, returns) = (world.descriptor(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let mut config = NetworkConfig::member(descriptor.overlay().clone(), descriptor.hash());
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let (network, bound) = Network::bind(config, &SecretKey::generate().unwrap()).await.unwrap();
        bound.run(Arc::new(Self { network: network.clone(), returns: returns.clone() }));
        let infos: Vec<_> = world.members().iter().map(Member::info).collect();
        join_all(infos.iter().map(|info| network.call(info, &Status {}, PATIENCE))).await;
        (network, returns)
    }
}

impl Responder for Stubborn {
    fn respond(&self, _: Caller, frame: RequestFrame) -> Answer {
        match frame.service.as_str() {
            Closest::SERVICE => {
                let peers = self.network.closest(&frame.call::<Closest>().unwrap().target, 20);
                reply::<Closest>(&ClosestReply { peers })
            }
            Fetch::SERVICE => {
                let envelopes = self.returns.lock().unwrap().iter().cloned().map(Into::into).collect();
                let closer = self.network.closest(&frame.call::<Fetch>().unwrap().target, 20);
                reply::<Fetch>(&FetchReply { envelopes, closer })
            }
            Store::SERVICE => reply::<Store>(&StoreReply::Stored),
            Keep::SERVICE => reply::<Keep>(&StoreReply::Stored),
            Digest::SERVICE => reply::<Digest>(&DigestReply::default()),
            _ => Answer::Now(ResponseFrame::Error(ErrorReply::new(ErrorCode::Unavailable, "not here"))),
        }
    }
}

fn reply<C: Call>(reply: &C::Reply) -> Answer {
    Answer::Now(ResponseFrame::of::<C>(Ok(reply)))
}

/// What the trace has of a peer that answered.
#[track_caller]
fn line<'a>(json: &'a Value, peer: &PeerId) -> &'a Value {
    let trace = json["trace"].as_array().unwrap();
    let is_its = |line: &&Value| line["peer"] == peer.to_string() && line["outcome"] == "answered";
    trace.iter().find(is_its).unwrap_or_else(|| panic!("{peer} is not in {json:#}"))
}

#[test]
fn a_trace_shows_who_has_an_older_record_and_who_withholds_it() {
    let world = TestWorld::of(8);
    let (stale, old) = world.run(Stubborn::join(&world.world));
    let (withholder, _) = world.run(Stubborn::join(&world.world));
    let (stale, withholder) = (stale.peer(), withholder.peer());
    eventually("everybody knows the two", || {
        let knows = |member: &Member| {
            [stale, withholder].iter().all(|peer| member.peer() == *peer || member.network().table().contains(peer))
        };
        world.world.members().iter().all(knows)
    });

    // A user of whose five storers both are two.
    let members = world.world.members().iter().map(Member::peer).chain([stale, withholder]).collect::<Vec<_>>();
    let stores = |name: &ResourceName| {
        let mut members = members.clone();
        members.sort_by_key(|peer| peer.position().distance(&name.position()));
        [stale, withholder].iter().all(|peer| members[..5].contains(peer))
    };
    let user: User = (0..).map(|n| world.user_named(&format!("user-{n}"))).find(|user| stores(&user.name())).unwrap();
    let before = UnixMs::now().0 - 60_000;
    let older = user.payload();
    let older = Payload { sequence: before, expires: UnixMs(older.expires.0 - 60_000), ..older };
    old.lock().unwrap().push(user.seal(&older));
    register(&format!("{} {} --contact sip:new@192.0.2.1", user.options(), user.aor)).exits(0);

    let home = format!("--home {}", user.home.folder().display());
    // By the given members, and by what the member on this machine knows.
    for way in [format!("{} {home}", world.peers()), user.options()] {
        let json = lookup(&format!("--json --trace {way} {}", user.aor)).exits(0).json();
        assert_eq!((&json["status"], &json["via"], &json["storers"]), (&"found".into(), &"walk".into(), &5.into()));
        let (late, empty) = (line(&json, &stale), line(&json, &withholder));
        let instance: Value = user.key.instance().to_string().into();
        assert_eq!(
            (&late["records"][0]["sequence"], &late["records"][0]["tombstone"]),
            (&before.into(), &false.into())
        );
        assert_eq!(late["differences"], serde_json::json!([{"instance": instance, "kind": "stale"}]));
        assert_eq!(empty["records"], serde_json::json!([]));
        assert_eq!(empty["differences"], serde_json::json!([{"instance": instance, "kind": "withheld"}]));

        let trace = json["trace"].as_array().unwrap();
        assert_eq!(trace.len(), json["requests"], "{json:#}");
        assert_eq!(trace.iter().filter(|line| line["storer"] == true).count(), 5, "{json:#}");
        let newest = &json["records"][0]["sequence"];
        let agreeing = trace.iter().filter(|line| line["records"][0]["sequence"] == *newest);
        assert!(
            agreeing.clone().count() >= 3 && agreeing.clone().all(|line| line["differences"] == serde_json::json!([]))
        );
        for line in trace {
            let told_by = &line["told_by"];
            assert_eq!(told_by.is_null(), line["hop"] == 1, "{line}");
            assert!(told_by.is_null() || trace.iter().any(|other| other["peer"] == *told_by), "{line}");
            assert!(line["took_ms"].is_null() || line["took_ms"].as_f64().unwrap() > 0.0, "{line}");
        }

        let ran = lookup(&format!("--trace {way} {}", user.aor)).exits(0).says("of 5, stale at 1, withheld at 1");
        let short = user.key.instance().to_string()[..8].to_owned();
        let row = |peer: &PeerId| {
            let end = peer.to_string()[44..].to_owned();
            ran.out.lines().find(|line| line.contains(&end) && line.contains(&short)).unwrap_or_default().to_owned()
        };
        assert!(row(&stale).ends_with(&format!("{short}… {before} (stale)")), "{}", ran.out);
        assert!(row(&withholder).ends_with(&format!("{short}… withheld")), "{}", ran.out);
        assert!(
            ran.out.starts_with(&format!("{}\nPEER ", user.aor)) && ran.out.contains("\n└─ 12D3KooW…"),
            "{}",
            ran.out
        );
        assert!(ran.out.contains("sip:new@192.0.2.1"), "{}", ran.out);
    }
}

#[test]
fn where_all_agree_nothing_is_said_and_without_the_option_nothing_is_traced() {
    let world = TestWorld::shared();
    let user = world.user("traced");
    register(&format!("{} --contact sip:phone@192.0.2.1 {}", user.aor, user.options())).exits(0);
    let ran = lookup(&format!("--trace {} {}", user.options(), user.aor)).exits(0);
    assert!(!ran.err.contains("disagree"), "{ran:?}");
    let json = lookup(&format!("--json {} {}", user.options(), user.aor)).exits(0).json();
    assert!(json.get("trace").is_none(), "{json}");

    // An absent name has a trace, too.
    let nobody = world.user("untraced");
    let ran = lookup(&format!("--trace {} {}", nobody.options(), nobody.aor)).exits(1).says("none has it");
    assert!(ran.out.contains("has no record"), "{ran:?}");
}

#[test]
fn a_trace_is_of_a_walk_and_for_people_or_programs() {
    lookup("--trace --via socket sip:a@b.org").exits(2).says("--trace shows a walk of its own");
    lookup("--trace --via peer sip:a@b.org").exits(2).says("only goes with --via walk");
    lookup("--trace --short sip:a@b.org").exits(2).says("'--trace' cannot be used with '--short'");
}
