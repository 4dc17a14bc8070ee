//! Requests that follow from another one hop by hop: the ACK of a final response other than 2xx, and CANCEL.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Message, header::Name};

/// What a hop-by-hop request may take; it takes one (RFC 3261 §8.1.1.6).
const MAX_FORWARDS: &str = "70";

/// The ACK for a response of 300 to 699 to an INVITE, made by the client transaction (RFC 3261 §17.1.1.3).
///
/// Request-URI, topmost Via, Route, From and Call-ID are the INVITE's, To is the response's. The ACK of a 2xx is another
/// matter: it is a request of the UA's own, end to end (§13.2.2.4).
pub fn ack_for(request: &Message, response: &Message) -> Bytes {
    follow(request, "ACK", response)
}

/// The CANCEL for a request that has got no final response, made by whoever sent it (RFC 3261 §9.1).
///
/// Request-URI, topmost Via, Route, From, To and Call-ID are the request's. Options are not required of a CANCEL, so
/// Require and Proxy-Require are left out.
pub fn cancel_for(request: &Message) -> Bytes {
    follow(request, "CANCEL", request)
}

fn follow(request: &Message, method: &str, to: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(request.head());
    for piece in [method, " ", request.request_uri().unwrap_or_default(), " SIP/2.0\r\n"] {
        out.put_slice(piece.as_bytes());
    }
    let number = request.cseq().map_or(0, |cseq| cseq.number);
    let via = request.values(Name::Via).next().unwrap_or_default();
    line(&mut out, "Via", via);
    for route in request.headers().filter(|header| header.name == Name::Route) {
        line(&mut out, "Route", route.value);
    }
    line(&mut out, "Max-Forwards", MAX_FORWARDS.as_bytes());
    line(&mut out, "From", request.header(Name::From).unwrap_or_default());
    line(&mut out, "To", to.header(Name::To).or(request.header(Name::To)).unwrap_or_default());
    line(&mut out, "Call-ID", request.header(Name::CallId).unwrap_or_default());
    line(&mut out, "CSeq", format!("{number} {method}").as_bytes());
    line(&mut out, "Content-Length", b"0");
    out.put_slice(b"\r\n");
    out.freeze()
}

fn line(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Method, respond::respond};

    const INVITE: &str = "INVITE sip:a@b;x SIP/2.0\r\n\
        v: SIP/2.0/UDP one;branch=z9hG4bK1 , SIP/2.0/TCP two\r\n\
        Via: SIP/2.0/UDP three\r\n\
        Route: <sip:r1;lr>, <sip:r2;lr>\r\n\
        Route: <sip:r3;lr>\r\n\
        Max-Forwards: 3\r\n\
        f: \"A\" <sip:a@b>;tag=1\r\n\
        t: <sip:c@d>\r\n\
        Proxy-Require: foo\r\n\
        Require: bar\r\n\
        i: call\r\n\
        CSeq: 7 INVITE\r\n\
        Contact: <sip:a@c>\r\n\
        l: 2\r\n\r\nhi";

    #[test]
    fn both_follow_the_hop_of_the_request() {
        let invite = Message::parse(Bytes::from_static(INVITE.as_bytes())).unwrap();
        let busy = Message::parse(respond(&invite, 486, "", Some("t")).finish()).unwrap();
        let ack = Message::parse(ack_for(&invite, &busy)).unwrap();
        let cancel = Message::parse(cancel_for(&invite)).unwrap();
        for (message, method, tag) in [(&ack, Method::Ack, Some("t")), (&cancel, Method::Cancel, None)] {
            assert_eq!(message.check(), Ok(()));
            assert_eq!((message.method(), message.request_uri()), (method, invite.request_uri()));
            assert_eq!(message.vias().count(), 1);
            assert_eq!(message.top_via().unwrap().as_bytes(), invite.top_via().unwrap().as_bytes());
            assert!(message.values(Name::Route).eq(invite.values(Name::Route)));
            assert_eq!(message.header(Name::From), invite.header(Name::From));
            assert_eq!(message.to().unwrap().tag(), tag);
            assert_eq!((message.call_id(), message.cseq().unwrap().number), (Ok("call"), 7));
            assert_eq!(message.max_forwards(), Ok(Some(70)));
            for absent in [Name::Require, Name::ProxyRequire, Name::Contact] {
                assert_eq!(message.header(absent), None);
            }
            assert_eq!(message.content_length(), Ok(Some(0)));
        }
    }
}
