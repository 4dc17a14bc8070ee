//! The client protocol as a program on the member's machine, and one far away, see it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use p2psip::{
    client::{
        ErrorCode, Event, Events, GetDescriptor, Held, RequestFrame, ResponseFrame, Status, Store, StoreReply, decode,
        encode, framed,
    },
    identity::Descriptor,
    overlay::{socket::SocketClient, swarm::AskError},
};

use crate::world::{PATIENCE, TestWorld, held};

#[test]
fn a_member_says_what_it_does_not_serve_and_to_whom() {
    let world = TestWorld::shared();
    let (socket, client, info) = (&world.world.users()[0].socket, world.client(), world.world.members()[0].info());
    let ask = |version, service: &str| {
        let frame = RequestFrame { version, service: service.to_owned(), body: encode(&Status {}, "status").unwrap() };
        let remote = world.run(client.network.ask(&info, frame.clone(), PATIENCE)).unwrap();
        let local = raw_call(socket, &frame);
        [remote, local].map(|response| match response {
            ResponseFrame::Error(error) => error,
            ResponseFrame::Ok(_) => panic!("served"),
        })
    };
    for error in ask(1, "brew-coffee") {
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::UnknownService, "this member has no service 'brew-coffee'")
        );
    }
    for error in ask(2, "status") {
        assert_eq!(error.code, ErrorCode::Version);
        assert!(error.message.contains("version 1, not 2"), "{error}");
    }
    for error in ask(1, "put") {
        assert_eq!(error.code, ErrorCode::Malformed, "{error}");
    }
    // What a member holds for others is for its own user alone.
    let refused = world.run(client.call(&info, &Held { limit: 10 })).unwrap_err();
    assert!(matches!(refused, AskError::Refused(reply) if reply.code == ErrorCode::LocalOnly));
    let refused = world.run(client.call(&info, &Events {})).unwrap_err();
    assert!(matches!(refused, AskError::Refused(reply) if reply.code == ErrorCode::LocalOnly));
    assert_eq!(world.run(held(socket)).total, world.world.members()[0].status().records);
    let told = world.run(client.call(&info, &GetDescriptor {})).unwrap();
    assert_eq!(Descriptor::from_toml(&told.toml).unwrap().hash(), world.world.descriptor().hash());
}

/// Sends a frame over a unix socket as it is.
fn raw_call(socket: &Path, frame: &RequestFrame) -> ResponseFrame {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(&framed(frame, "request").unwrap()).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut octets = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut octets).unwrap();
    decode(&octets, "response").unwrap()
}

#[test]
fn whoever_follows_a_member_sees_what_it_stores_and_refuses() {
    let world = TestWorld::shared();
    let user = world.user("watched");
    // A storer of the user's that has a socket would be luck, so one is asked directly.
    let member = &world.world.members()[0];
    let mut follower = world.run(async {
        let mut follower = SocketClient::connect(&world.world.users()[0].socket).await.unwrap();
        follower.call(&Events {}).await.unwrap();
        follower
    });
    let client = world.client();
    let envelope = user.seal(&user.payload());
    let mut forged = envelope.clone();
    *forged.last_mut().unwrap() ^= 1;
    let store = |envelope: Vec<u8>| Store { envelope: envelope.into() };
    let stored = world.run(client.call(&member.info(), &store(envelope))).unwrap();
    world.run(client.call(&member.info(), &store(forged))).unwrap();
    let (mut told_stored, mut told_refused) = (false, false);
    world.run(async {
        let told = async {
            while !told_refused {
                match follower.next_event().await.unwrap().unwrap() {
                    Event::Stored { name, instance, tombstone, .. } if name == user.name() => {
                        assert_eq!((instance, tombstone), (user.key.instance(), false));
                        told_stored = true;
                    }
                    Event::Refused { peer, reason } if peer == Some(client.network.peer()) => {
                        told_refused = reason.code() == "bad-signature";
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("the events come");
    });
    assert_eq!(told_stored, stored == StoreReply::Stored);
}
