//! What is rewritten between a phone and the overlay: Contact, Record-Route and credentials.

use super::Adapter;
use crate::{
    name::InstanceId,
    proxy::route::Realm,
    sip::{
        Message, Method,
        edit::Edit,
        header::{Contact, Name},
        transport::Protocol,
    },
};

impl Adapter {
    /// Makes a phone's request one of the overlay's: its Contact is the overlay URL with the instance, and the
    /// credentials that were meant for us are taken out (RFC 3261 §22.3). So is what it says of its identity beside
    /// From, which was checked: others believe this member for all its phones (RFC 3325 §5).
    pub fn outward(&self, edit: &mut Edit<'_>, message: &Message, instance: &InstanceId) {
        if let Some(contact) = self.contact(message, instance) {
            edit.set(Name::Contact, contact);
        }
        edit.remove_all(Name::PAssertedIdentity).remove_all(Name::PPreferredIdentity);
        for name in [Name::Authorization, Name::ProxyAuthorization] {
            let of_name = || message.credentials().filter(move |(of, _)| *of == name).map(|(_, parsed)| parsed);
            let ours = |index: usize| {
                of_name()
                    .nth(index)
                    .is_some_and(|line| line.is_ok_and(|line| line.text("realm").as_deref() == Some(self.gate.realm())))
            };
            if !(0..message.count(name)).any(ours) {
                continue;
            }
            edit.remove_all(name);
            for (index, value) in message.values(name).enumerate() {
                if !ours(index) {
                    edit.append(name, value);
                }
            }
        }
    }

    /// Makes a phone's response one of the overlay's. `None` if there is nothing to change.
    pub fn response(&self, message: &Message, instance: &InstanceId, realm: &Realm) -> Option<Message> {
        let mut edit = Edit::new(message);
        let mut changed = false;
        // Elsewhere a phone's response names others: where to go instead (RFC 3261 §8.1.3.4).
        let names_itself = message.status().is_some_and(|status| status < 300);
        if names_itself && let Some(contact) = self.contact(message, instance) {
            edit.set(Name::Contact, contact);
            changed = true;
        }
        let is_ours = |value: &Result<crate::sip::header::NameAddr<'_>, _>| {
            value.as_ref().is_ok_and(|route| {
                route.uri.sip().is_some_and(|uri| {
                    realm.is_ours(uri) && uri.user.and_then(|user| user.parse().ok()) == Some(*instance)
                })
            })
        };
        if message.record_routes().any(|route| is_ours(&route)) {
            let kept = message.values(Name::RecordRoute).zip(message.record_routes());
            let kept: Vec<&[u8]> = kept.filter(|(_, route)| !is_ours(route)).map(|(value, _)| value).collect();
            edit.remove_all(Name::RecordRoute);
            if !kept.is_empty() {
                edit.append(Name::RecordRoute, kept.join(&b", "[..]));
            }
            changed = true;
        }
        changed.then(|| Message::parse(edit.finish()).ok()).flatten()
    }

    /// The Record-Route that keeps a phone's requests coming here, and says whose they are.
    pub fn record_route(instance: &InstanceId, protocol: Protocol, address: &str) -> String {
        let transport = match protocol {
            Protocol::Tcp => ";transport=tcp",
            Protocol::Udp | Protocol::Tls | Protocol::Overlay => "",
        };
        let scheme = if protocol == Protocol::Tls { "sips" } else { "sip" };
        format!("<{scheme}:{instance}@{address}{transport};lr>")
    }

    /// The Contact of a phone's message as the overlay sees it, if the message has one.
    fn contact(&self, message: &Message, instance: &InstanceId) -> Option<String> {
        if message.method() == Method::Register {
            return None;
        }
        let Contact::Address(contact) = message.contacts().next()?.ok()? else { return None };
        let aor = self.aor(instance)?.to_string();
        let aor = match contact.uri.sip() {
            Some(uri) if uri.secure => format!("sips{}", aor.trim_start_matches("sip")),
            _ => aor,
        };
        let params = String::from_utf8_lossy(contact.params.as_bytes());
        Some(format!("<{aor};gr={instance}>{}", params.trim()))
    }
}
