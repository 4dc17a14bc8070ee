//! SIP over streams of the overlay, between real swarms: whose messages they are is known, and nobody gets too many.

use std::time::Duration;

use p2psip::{
    member::sip_streams,
    name::PeerId,
    overlay::swarm::{AskError, IncomingStreams, Network, NetworkConfig, PeerStream},
    sip::{
        Message,
        respond::respond,
        transport::{
            Bound, Config, DropReason, Event, Hop, Limits, Protocol, Remote, Source, Transports, response_target,
            via_host,
        },
    },
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{Client, PATIENCE, TestWorld};

/// Transports that speak SIP on streams alone.
async fn transports(network: &Network, limits: Limits) -> Bound {
    let overlay = Some(sip_streams(network).await.unwrap());
    Transports::bind(Config { overlay, limits, ..Config::default() }).unwrap()
}

fn options(from: &PeerId) -> Vec<u8> {
    let via = via_host(from);
    format!(
        "OPTIONS sip:bob@p2psip.org SIP/2.0\r\nVia: SIP/2.0/OVERLAY {via};branch=z9hG4bK1\r\n\
         From: <sip:alice@p2psip.org>;tag=1\r\nTo: <sip:bob@p2psip.org>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// The next message; that a stream has ended meanwhile is no news.
async fn message(bound: &mut Bound) -> (Message, Source) {
    loop {
        match tokio::time::timeout(PATIENCE, bound.events.recv()).await.expect("a message comes") {
            Some(Event::Message { message, source }) => return (message, source),
            Some(Event::Closed { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Answers the next request with 200, wherever its Via leads; says where it came from.
async fn answer(bound: &mut Bound) -> Source {
    let (request, source) = message(bound).await;
    let hop = response_target(&request.top_via().unwrap(), &source);
    bound.transports.send(&hop, respond(&request, 200, "OK", Some("2")).finish(), 0).unwrap();
    source
}

/// The end of a stream that the other side closed or reset.
async fn ended(stream: &mut PeerStream) -> Vec<u8> {
    let mut octets = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut octets)).await.expect("it ends");
    octets
}

async fn accepted(incoming: &mut IncomingStreams) -> (PeerId, PeerStream) {
    tokio::time::timeout(PATIENCE, incoming.recv()).await.expect("a stream comes").unwrap()
}

#[test]
fn members_speak_sip_over_one_stream_and_reopen_it() {
    let world = TestWorld::shared();
    let [alice, bob] = [20, 21].map(|at| &world.world.members()[at]);
    world.run(async {
        let limits = Limits { idle: Duration::from_millis(500), ..Limits::default() };
        let mut here = transports(alice.network(), limits).await;
        let mut there = transports(bob.network(), limits).await;
        let to = Hop::peer(bob.peer(), bob.info().addresses);
        let mut flows = Vec::new();
        for token in 0..3 {
            here.transports.send(&to, options(&alice.peer()).into(), token).unwrap();
            let source = answer(&mut there).await;
            assert_eq!((source.protocol, source.remote), (Protocol::Overlay, Remote::Peer(alice.peer())));
            let (response, from) = message(&mut here).await;
            assert_eq!((response.status(), from.remote), (Some(200), Remote::Peer(bob.peer())));
            flows.push(source);
        }
        assert!(flows.iter().all(|source| source.flow == flows[0].flow), "one stream for all: {flows:?}");
        // The same stream the other way, although nobody says where the caller listens.
        there.transports.send(&Hop::peer(alice.peer(), []), options(&bob.peer()).into(), 0).unwrap();
        answer(&mut here).await;
        assert_eq!(message(&mut there).await.1.flow, flows[0].flow);
        // Unused it ends; a late response opens another one to the peer, which the swarm still knows.
        while !matches!(there.events.recv().await, Some(Event::Closed { .. })) {}
        let response = Message::parse(options(&alice.peer()).into()).unwrap();
        let response = respond(&response, 200, "OK", Some("3")).finish();
        there.transports.send(&flows[0].way_back(), response, 0).unwrap();
        let (late, source) = message(&mut here).await;
        assert_eq!((late.status(), source.remote), (Some(200), Remote::Peer(bob.peer())));
        // And the next request yet another, dialling again if need be.
        here.transports.send(&to, options(&alice.peer()).into(), 0).unwrap();
        assert!(message(&mut there).await.0.is_request());
    });
}

#[test]
fn a_client_calls_through_a_stream_and_listens_if_it_wants_to() {
    let world = TestWorld::shared();
    let member = &world.world.members()[22];
    let (client, listening) = (world.client(), world.client());
    world.run(async {
        let mut there = transports(member.network(), Limits::default()).await;
        let (of_client, address) = (client.network.peer(), member.info());
        let mut raw = client.network.open_sip(&address, PATIENCE).await.unwrap();
        raw.write_all(&options(&of_client)).await.unwrap();
        raw.flush().await.unwrap();
        assert_eq!(answer(&mut there).await.remote, Remote::Peer(of_client));
        let mut status = [0; 14];
        raw.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"SIP/2.0 200 OK");
        // One that does not accept streams is told so.
        drop(raw);
        while !matches!(there.events.recv().await, Some(Event::Closed { .. })) {}
        there.transports.send(&Hop::peer(of_client, []), options(&member.peer()).into(), 5).unwrap();
        match tokio::time::timeout(PATIENCE, there.events.recv()).await.unwrap() {
            Some(Event::Failed { token: 5, error }) => {
                assert!(error.to_string().contains("nobody takes SIP there"), "{error}")
            }
            other => panic!("{other:?}"),
        }
        // One that does is called over the connection that it has.
        let mut here = transports(&listening.network, Limits::default()).await;
        here.transports
            .send(&Hop::peer(member.peer(), address.addresses), options(&listening.network.peer()).into(), 0)
            .unwrap();
        let source = answer(&mut there).await;
        assert_eq!(message(&mut here).await.0.status(), Some(200));
        there.transports.send(&Hop::peer(listening.network.peer(), []), options(&member.peer()).into(), 0).unwrap();
        assert_eq!(answer(&mut here).await.remote, Remote::Peer(member.peer()));
        assert_eq!(message(&mut there).await.1.flow, source.flow);
    });
}

#[test]
fn a_peer_that_writes_anothers_id_into_its_via_is_cut_off() {
    let world = TestWorld::shared();
    let member = &world.world.members()[23];
    let client = world.client();
    world.run(async {
        let mut there = transports(member.network(), Limits::default()).await;
        let mut raw = client.network.open_sip(&member.info(), PATIENCE).await.unwrap();
        raw.write_all(&options(&member.peer())).await.unwrap();
        raw.flush().await.unwrap();
        assert_eq!(ended(&mut raw).await, b"");
        assert!(matches!(there.events.recv().await, Some(Event::Closed { .. })), "no message comes up");
        assert_eq!(there.transports.counters().dropped(DropReason::ForeignVia), 1);
    });
}

#[test]
fn streams_that_come_at_once_all_arrive_and_one_peer_gets_only_so_many() {
    let world = TestWorld::shared();
    let member = &world.world.members()[19];
    let clients = (0..12).map(|_| world.client()).collect::<Vec<_>>();
    world.run(async {
        let mut incoming = member.network().incoming_sip().await.unwrap();
        let address = member.info();
        let opened = futures::future::join_all(clients.iter().map(|c| c.network.open_sip(&address, PATIENCE))).await;
        let opened = opened.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        let mut peers = Vec::new();
        let mut held = Vec::new();
        for _ in &clients {
            let (peer, stream) = accepted(&mut incoming).await;
            peers.push(peer);
            held.push(stream);
        }
        let mut expected = clients.iter().map(|client| client.network.peer()).collect::<Vec<_>>();
        peers.sort();
        expected.sort();
        assert_eq!(peers, expected);
        drop(opened);

        // Of one peer four are kept; the others end at once.
        let greedy = &clients[0];
        held.retain(|_| false);
        let mut streams = Vec::new();
        for _ in 0..7 {
            streams.push(greedy.network.open_sip(&address, PATIENCE).await.unwrap());
        }
        let mut kept = Vec::new();
        for _ in 0..4 {
            kept.push(accepted(&mut incoming).await);
        }
        for refused in &mut streams[4..] {
            assert_eq!(ended(refused).await, b"");
        }
        // Whoever closes one may open another.
        drop(kept.pop());
        let _again = greedy.network.open_sip(&address, PATIENCE).await.unwrap();
        assert_eq!(accepted(&mut incoming).await.0, greedy.network.peer());
    });
}

#[test]
fn nobody_accepts_unasked_or_for_another_overlay() {
    let world = TestWorld::shared();
    let descriptor = world.world.descriptor();
    let [quiet, foreign] = [18, 19].map(|at| world.world.members()[at].info());
    let client = world.client();
    let other = NetworkConfig::client("other.example".parse().unwrap(), descriptor.hash(), PATIENCE);
    world.run(async {
        let refused = client.network.open_sip(&quiet, PATIENCE).await.map(|_| ());
        assert_eq!(refused, Err(AskError::NoSip));
        let stranger = Client::start(other).await;
        let refused = stranger.network.open_sip(&foreign, PATIENCE).await.map(|_| ());
        assert_eq!(refused, Err(AskError::NoSip));
        // Nobody is there at all.
        let mut gone = quiet.clone();
        gone.addresses = vec!["/ip4/127.0.0.1/tcp/1".to_owned()];
        gone.peer = PeerId::from_public_key(*p2psip::identity::SecretKey::generate().unwrap().peer_id().public_key());
        let refused = client.network.open_sip(&gone, PATIENCE).await.map(|_| ()).unwrap_err();
        assert!(matches!(&refused, AskError::Dial(why) if why.contains("refused")), "{refused}");
    });
}
