//! Whose request it was that did not arrive: what ICMP quotes of a datagram, read as far as it goes.

use super::{Branch, BranchParts};
use crate::sip::Method;

/// The branch in the topmost Via of a request of which `quoted` is the beginning, if it is as ours are: then its
/// [shard](BranchParts::shard) is that of the layer to be [told](super::Layer::undelivered). None of a response.
pub fn quoted_branch(quoted: &[u8]) -> Option<BranchParts> {
    request(quoted).map(|(_, branch)| branch)
}

/// Method and branch of a request. ICMP need not quote all of it, and a message that is cut off cannot be parsed; but
/// the Via of what we send is as we have written it.
pub(super) fn request(quoted: &[u8]) -> Option<(Method<'_>, BranchParts)> {
    let method = quoted.get(..memchr::memchr(b' ', quoted)?)?;
    let method = Method::new(std::str::from_utf8(method).ok()?);
    let via = after(quoted, b"\r\nVia: ")?;
    let via = via.get(..memchr::memchr(b'\r', via).unwrap_or(via.len()))?;
    let branch = after(via, b";branch=")?;
    let end = branch.iter().position(|octet| !octet.is_ascii_alphanumeric()).unwrap_or(branch.len());
    Some((method, Branch::read(branch.get(..end)?)?))
}

fn after<'a>(text: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    text.get(memchr::memmem::find(text, what)? + what.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:bob@example.com;branch=1 SIP/2.0\r\nRecord-Route: <sip:p2psip.org;lr>\r\n\
        Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK12000000000000abcd00000005;rport\r\n\
        Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKother\r\nMax-Forwards: 70\r\n\r\n";

    #[test]
    fn a_request_is_known_by_as_much_as_holds_its_branch() {
        let whole = request(INVITE.as_bytes()).unwrap();
        assert_eq!((whole.0, whole.1.shard, whole.1.random), (Method::Invite, 18, [0xabcd, 5]));
        let enough = INVITE.find(";rport").unwrap();
        for length in 0..INVITE.len() {
            let read = request(&INVITE.as_bytes()[..length]);
            assert_eq!(read, Some(whole).filter(|_| length >= enough), "{length}");
        }
    }

    #[test]
    fn what_is_no_request_of_ours_is_nobodys() {
        for other in ["z9hG4bK776", "z9hG4bK12000000000000abcd0000000x", ""] {
            let other = INVITE.replace("z9hG4bK12000000000000abcd00000005", other);
            assert_eq!(request(other.as_bytes()), None, "{other}");
        }
        assert_eq!(request(b"INVITE sip:bob@example.com SIP/2.0\r\n\r\n"), None);
    }
}
