//! Any value of Via: what its receiver writes into it reads again, with the source in it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use p2psip::sip::Message;

fuzz_target!(|value: &[u8]| {
    let source = std::net::SocketAddr::from(([192, 0, 2, 9], 5070));
    let Some(message) = with_via(value) else { return };
    let Ok(via) = message.top_via() else { return };
    let _ = (via.unique_branch(), via.received(), via.maddr(), via.ttl());
    let Some(stamped) = via.stamped(source) else { return };
    let stamped = with_via(&stamped).unwrap();
    let again = stamped.top_via().unwrap();
    assert_eq!((again.transport, again.host, again.port), (via.transport, via.host, via.port));
    assert_eq!(again.branch(), via.branch());
    if via.wants_rport() {
        assert_eq!(again.rport(), Some(source.port()));
    }
    if again.host.ip() != Some(source.ip()) {
        assert_eq!(again.received(), Some(source.ip()));
    }
});

fn with_via(value: &[u8]) -> Option<Message> {
    let octets = [b"OPTIONS sip:a@b SIP/2.0\r\nVia: ", value, b"\r\n\r\n"].concat();
    Message::parse(Bytes::from(octets)).ok()
}
