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
