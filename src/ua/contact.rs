//! Which Contact stands in a dialog: where it says we are, and when it has to be `sips` (RFC 3261 §8.1.1.8, §12.1.1).

use crate::sip::{Message, transport::Protocol, uri::SipUri};

/// The value of a Contact with the user part of `uri` at an address of ours (RFC 3261 §8.1.1.8).
pub(super) fn contact_at(uri: &str, protocol: Protocol, sent_by: &str, secure: bool) -> String {
    let user = SipUri::parse(uri).ok().and_then(|uri| uri.user).map(|user| format!("{user}@")).unwrap_or_default();
    let scheme = if secure { "sips" } else { "sip" };
    let transport = match protocol {
        Protocol::Tcp => ";transport=tcp",
        Protocol::Tls if !secure => ";transport=tls",
        Protocol::Udp | Protocol::Tls | Protocol::Overlay => "",
    };
    format!("<{scheme}:{user}{sent_by}{transport}>")
}

/// Whether the Contact of whoever answers an INVITE has to be `sips` (RFC 3261 §12.1.1).
pub(super) fn wants_secure_contact(invite: &Message) -> bool {
    let top = invite.record_routes().next().and_then(Result::ok);
    is_secure(invite.request_uri().unwrap_or_default())
        || top.is_some_and(|top| top.uri.sip().is_some_and(|uri| uri.secure))
}

/// The user of the overlay that a Contact names, if the call was for that user by another name: a public AOR of which
/// the overlay URL is a contact (draft §4.2). Then requests of ours are from that name.
pub(super) fn identity(contact: &str, invite: &Message) -> Option<String> {
    let own = SipUri::parse(contact).ok()?;
    let to = invite.to().ok()?;
    let known = to.uri.sip().is_some_and(|to| to.host == own.host && to.user == own.user);
    (!known).then(|| format!("sip:{}@{}", own.user.unwrap_or_default(), own.host))
}

/// Whether a URI is a `sips` one.
pub(super) fn is_secure(uri: &str) -> bool {
    SipUri::parse(uri).is_ok_and(|uri| uri.secure)
}

/// The Contact URI with the scheme `sips`, if the dialog is to be secure (RFC 3261 §8.1.1.8, §12.1.1).
pub(super) fn secured(contact: &str, secure: bool) -> String {
    match contact.split_once(':') {
        Some((scheme, rest)) if secure && scheme.eq_ignore_ascii_case("sip") => format!("sips:{rest}"),
        _ => contact.to_owned(),
    }
}
