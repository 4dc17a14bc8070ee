//! What holds of the SIP message layer for any octets at all.

use bytes::Bytes;
use p2psip::sip::{
    Message, derive,
    edit::Edit,
    framing::{Frame, FrameError, Framer},
    header::Name,
    respond::respond,
    uri::Uri,
};
use proptest::prelude::*;

use crate::support::{files_below, root};

/// The torture messages, to be mutated.
fn corpus() -> Vec<Vec<u8>> {
    let files = files_below(&root().join("tests/data/torture"), ".sip");
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One octet or run that is overwritten, put in, or cut out.
pub fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "\r\n",
        "\r",
        "\n",
        " ",
        "\t",
        ":",
        ",",
        ";",
        "=",
        "\"",
        "\\",
        "<",
        ">",
        "@",
        "%",
        "[",
        "]",
        "::",
        "\0",
        "SIP/2.0",
        "Via:",
        "l: 9\r\n",
        "\r\n ",
        "\r\n\r\n",
        "z9hG4bK",
        "é",
        "2147483648",
        "?",
        "*",
        "(",
        ")",
    ]);
    let octets =
        prop_oneof![pieces.prop_map(|piece| piece.as_bytes().to_vec()), prop::collection::vec(any::<u8>(), 0..4),];
    let change = (any::<prop::sample::Index>(), 0_usize..40, octets);
    (prop::sample::select(corpus()), prop::collection::vec(change, 1..6)).prop_map(|(mut message, changes)| {
        for (place, length, octets) in changes {
            let at = place.index(message.len().max(1)).min(message.len());
            let end = (at + length % 9).min(message.len());
            message.splice(at..end, octets);
        }
        message
    })
}

/// Asks for everything that can be asked for.
fn read_all(message: &Message) {
    let _ = (message.start(), message.method(), message.reason(), message.version(), message.body());
    let _ = (message.check(), message.check_at_end(), message.uri(), format!("{message:?}"));
    for header in message.headers() {
        header.values().for_each(drop);
    }
    for via in message.vias().flatten() {
        let _ = (via.unique_branch(), via.received(), via.rport(), via.maddr(), via.ttl());
        let _ = via.stamped("192.0.2.1:5060".parse().unwrap());
    }
    for address in
        [message.from(), message.to()].into_iter().chain(message.routes()).chain(message.record_routes()).flatten()
    {
        let _ = (address.display_name(), address.tag(), address.q(), address.expires());
        assert!(address.uri.is_equivalent(&address.uri), "{:?}", address.uri);
    }
    message.contacts().for_each(drop);
    message.challenges().chain(message.credentials()).for_each(drop);
    let _ = (message.cseq(), message.call_id(), message.max_forwards(), message.max_breadth(), message.expires());
    let _ = (message.retry_after(), message.event(), message.content_type(), message.content_length());
}

/// Reads a datagram and does to it what a proxy and a UA do.
fn put_through(octets: Vec<u8>) {
    let octets = Bytes::from(octets);
    let _ = Message::parse_head(octets.clone());
    let Ok(message) = Message::parse(octets) else { return };
    read_all(&message);
    assert_eq!(Message::parse(message.bytes().clone()).as_ref(), Ok(&message));
    assert_eq!(Edit::new(&message).finish(), message.bytes());
    if message.check().is_err() || message.headers().len() > 200 {
        return;
    }
    let mut edit = Edit::new(&message);
    edit.prepend(Name::Via, "SIP/2.0/UDP p.example.org;branch=z9hG4bKp").stamp_via("192.0.2.9:9".parse().unwrap());
    let forwarded = Message::parse(edit.finish()).unwrap();
    assert_eq!(forwarded.check(), Ok(()));
    assert_eq!(forwarded.body(), message.body());
    assert_eq!(forwarded.vias().count(), message.vias().count() + 1);
    if message.is_request() {
        let response = Message::parse(respond(&message, 486, "", Some("t")).finish()).unwrap();
        assert_eq!(response.check(), Ok(()));
        assert!(response.values(Name::Via).eq(message.values(Name::Via)));
        for follower in [derive::ack_for(&message, &response), derive::cancel_for(&message)] {
            assert_eq!(Message::parse(follower).unwrap().check(), Ok(()));
        }
    }
}

/// What comes out of a stream, whatever error ends it.
fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let mut framer = Framer::new(4096);
    let mut frames = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..400)) {
        put_through(octets);
    }

    #[test]
    fn mutated_messages_are_read_or_refused(octets in mutated()) {
        put_through(octets);
    }

    #[test]
    fn a_stream_is_the_same_in_any_pieces(
        messages in prop::collection::vec(mutated(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream = messages.concat();
        let mut cuts = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect::<Vec<_>>();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let whole = frames(std::iter::once(stream.as_slice()));
        prop_assert_eq!(&frames(cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]])), &whole);
        prop_assert_eq!(&frames(stream.chunks(1)), &whole);
    }

    #[test]
    fn any_text_is_a_uri_or_refused(text in "(sips?:|tel:)?[ -~]{0,40}") {
        if let Ok(uri) = Uri::parse(&text) {
            prop_assert_eq!(uri.as_str(), text.as_str());
            prop_assert!(uri.is_equivalent(&uri));
        }
    }

    #[test]
    fn the_parts_of_a_uri_are_those_it_was_made_of(
        user in "[a-zA-Z0-9;?/&=+$,._!~*'()-]{1,12}",
        host in "([a-z][a-z0-9]{0,6}\\.){1,3}[a-z]{2,4}|\\[2001:db8::[1-9a-f][0-9a-f]{0,3}\\]|192\\.0\\.2\\.[1-9]",
        port in proptest::option::of(1_u16..),
        value in "[a-z0-9:/\\[\\]&+$-]{1,8}",
    ) {
        let port_text = port.map(|port| format!(":{port}")).unwrap_or_default();
        let text = format!("sip:{user}@{host}{port_text};lr;x={value}");
        let uri = p2psip::sip::uri::SipUri::parse(&text).unwrap();
        prop_assert_eq!((uri.user, uri.host.to_string(), uri.port), (Some(user.as_str()), host, port));
        prop_assert_eq!((uri.is_loose_router(), uri.params.get("X")), (true, Some(value.as_str())));
    }
}
