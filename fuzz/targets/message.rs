//! Any datagram: read or refused, passed on unchanged, edited and answered; and as a stream, the same in any pieces.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use p2psip::sip::{
    Message, derive,
    edit::Edit,
    framing::{Frame, Framer},
    header::Name,
    respond::respond,
};

fuzz_target!(|octets: &[u8]| {
    assert_eq!(frames(octets, octets.len().max(1)), frames(octets, 1));
    let Ok(message) = Message::parse(Bytes::copy_from_slice(octets)) else { return };
    assert_eq!(Message::parse(message.bytes().clone()).as_ref(), Ok(&message));
    assert_eq!(Edit::new(&message).finish(), message.bytes());
    let _ = message.check_at_end();
    message.contacts().for_each(drop);
    message.credentials().chain(message.challenges()).for_each(drop);
    let _ = (message.retry_after(), message.event(), message.content_type(), message.expires());
    // A line more may exceed what is taken.
    if message.check().is_err() || message.headers().len() > 200 || message.head() > 32_000 {
        return;
    }
    let mut edit = Edit::new(&message);
    edit.prepend(Name::Via, "SIP/2.0/UDP p.example.org;branch=z9hG4bKp").set(Name::MaxForwards, "69");
    let forwarded = Message::parse(edit.finish()).unwrap();
    assert_eq!((forwarded.check(), forwarded.body()), (Ok(()), message.body()));
    if message.is_request() {
        let response = Message::parse(respond(&message, 486, "", Some("t")).finish()).unwrap();
        assert_eq!(response.check(), Ok(()));
        for follower in [derive::ack_for(&message, &response), derive::cancel_for(&message)] {
            assert_eq!(Message::parse(follower).unwrap().check(), Ok(()));
        }
    }
});

/// What comes out of a stream in pieces of so many octets, and whether an error ended it.
fn frames(octets: &[u8], piece: usize) -> (Vec<Frame>, bool) {
    let mut framer = Framer::new(4096);
    let mut frames = Vec::new();
    for piece in octets.chunks(piece) {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}
