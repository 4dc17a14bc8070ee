//! The engine's side of an [`Adapter`]: phones' requests come in, and requests for phones go out to them.

use std::time::Instant;

use super::{Engine, Located, Output, context::Context, decide::tag, forward::may_form_a_dialog};
use crate::{
    name::InstanceId,
    proxy::{
        adapter::{Adapter, Admission, Answer, Change},
        fork::{Place, Target},
        route::{self, Decision, Instance, Next, Origin, Plan, Realm},
    },
    sip::{
        Message,
        edit::Edit,
        header::Name,
        respond,
        transaction::ServerId,
        transport::{Hop, Protocol, Remote, Source},
    },
};

impl Engine {
    /// The same engine with an adapter, whose addresses have to be among those of the realm.
    #[must_use]
    pub fn with_adapter(mut self, adapter: Adapter) -> Self {
        self.adapter = Some(adapter);
        self
    }

    /// The adapter, if there is one.
    pub const fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// What became of [`Output::Publish`]: whether the overlay has stored it.
    pub fn published(&mut self, instance: InstanceId, done: bool, now: Instant) {
        if let Some(adapter) = &mut self.adapter {
            adapter.published(instance, done, now);
        }
        self.work(now);
    }

    /// Whether a request from there may be served now.
    pub(super) fn has_room(&mut self, source: &Source, now: Instant) -> bool {
        match &mut self.adapter {
            Some(adapter) if adapter.is_for_phones(source) => adapter.has_room(&source.remote, now),
            _ => self.throttle.admit(&source.remote, now),
        }
    }

    /// Does what the adapter wants next; false if that is nothing.
    pub(super) fn follow_adapter(&mut self, now: Instant) -> bool {
        match self.adapter.as_mut().and_then(Adapter::poll_change) {
            Some(Change::Answer(Answer { server, message, status, reason, headers })) => {
                self.answer_phone(server, &message, status, reason, headers, now);
            }
            Some(Change::Publish { instance, present }) => {
                self.outputs.push_back(Output::Publish { instance, present });
            }
            None => return false,
        }
        true
    }

    fn answer_phone(
        &mut self,
        server: ServerId,
        message: &Message,
        status: u16,
        reason: &str,
        headers: Vec<(Name<'static>, String)>,
        now: Instant,
    ) {
        let response = respond::respond(message, status, reason, Some(&tag()));
        let response = headers.into_iter().fold(response, |response, (name, value)| response.header(name, value));
        self.answer(server, status, response.finish(), now);
    }

    /// A request that came where phones are served.
    pub(super) fn serve_phone(&mut self, server: Option<ServerId>, message: Message, source: Source, now: Instant) {
        let realm = &self.config.realm;
        let Some(adapter) = &mut self.adapter else { return };
        // Without randomness a nonce is as good as its time.
        let salt = getrandom::u64().unwrap_or_default();
        let decision = match (adapter.admit(&message, &source, realm, salt, now), server) {
            (Admission::Stranger, _) => route::decide(&message, Origin::Public, realm),
            (Admission::Register(instance), Some(server)) => {
                return adapter.register(instance, server, message, &source, realm, now);
            }
            (Admission::Refuse { status, reason, headers }, Some(server)) => {
                return self.answer_phone(server, &message, status, reason, headers, now);
            }
            (Admission::Register(_) | Admission::Refuse { .. }, None) => {
                self.counts.dropped += 1;
                return;
            }
            (Admission::Pass(instance), _) => {
                let Some(aor) = adapter.aor(&instance) else { return };
                // A callee's requests have the From that the caller knows, which may be another user's if the call was
                // diverted.
                let in_dialog = message.to().is_ok_and(|to| to.tag().is_some());
                let from = message.from().ok().filter(|_| in_dialog);
                let from = from.and_then(|from| realm.user(from.uri.sip()?)?.ok());
                let own: Vec<_> = from.into_iter().chain([aor.clone()]).collect();
                match route::decide(&message, Origin::Peer(&own), realm) {
                    Decision::Forward(plan) => {
                        let leaves = !matches!(plan.next, Next::User { .. });
                        let next = if leaves && adapter.is_alone() { Next::Proxy } else { plan.next };
                        Decision::Forward(Plan { phone: Some(instance), next, ..plan })
                    }
                    other => other,
                }
            }
        };
        self.carry_out(decision, server, message, source, now);
    }

    /// Whether a request on an overlay stream has arrived: it is for a phone of ours, by no Route. Then we are no proxy
    /// that somebody uses, and who may send it is no question; nor if we are none at all.
    pub(super) fn is_at_its_end(&self, message: &Message) -> bool {
        let Some(adapter) = &self.adapter else { return false };
        let user = || self.config.realm.user(message.uri().ok()?.sip()?)?.ok();
        adapter.is_alone() || message.routes().next().is_none() && user().is_some_and(|aor| adapter.serves(&aor))
    }

    /// Where a request goes whose way is known without a lookup: it names a phone of ours, or a caller in the overlay
    /// has found us to be its user's contact.
    pub(super) fn here(&self, plan: &Plan, source: &Source) -> Option<Located> {
        let adapter = self.adapter.as_ref()?;
        let Next::User { aor, instance } = &plan.next else { return None };
        let from_overlay = source.protocol == Protocol::Overlay;
        let is_ours = match instance {
            Some(Instance::Id(id)) => adapter.has(aor, id),
            Some(Instance::Unknown) => false,
            None => from_overlay && plan.strip == 0 && adapter.serves(aor),
        };
        if !(is_ours || from_overlay && adapter.is_alone()) {
            return None;
        }
        let group = vec![Target { uri: None, place: Place::Hops(vec![Hop::peer(self.config.peer, [])]) }];
        Some(match instance {
            Some(Instance::Id(id)) if adapter.targets(aor, Some(id)).is_empty() => {
                Located::Nowhere { status: 480, reason: "Device Gone" }
            }
            Some(Instance::Unknown) => Located::Nowhere { status: 480, reason: "Device Gone" },
            None if !adapter.serves(aor) => Located::Nowhere { status: 404, reason: "Not Found" },
            None if adapter.targets(aor, None).is_empty() => {
                Located::Nowhere { status: 480, reason: "Temporarily Unavailable" }
            }
            _ => Located::Groups(vec![group]),
        })
    }

    /// Puts the phones that are meant in the place of targets that are this very process. Returns also which targets
    /// are phones, in their order.
    pub(super) fn with_phones(&self, groups: Vec<Vec<Target>>, plan: &Plan) -> (Located, Vec<Option<InstanceId>>) {
        let (Some(adapter), Next::User { aor, instance }) = (&self.adapter, &plan.next) else {
            return (Located::Groups(groups), Vec::new());
        };
        let own = Remote::Peer(self.config.peer);
        let is_own =
            |target: &Target| matches!(&target.place, Place::Hops(hops) if hops.iter().any(|h| h.remote == own));
        let wanted = match instance {
            Some(Instance::Id(id)) => Some(id),
            Some(Instance::Unknown) | None => None,
        };
        let expand = |target: Target| -> Vec<(Option<InstanceId>, Target)> {
            if !is_own(&target) {
                return vec![(None, target)];
            }
            let phones = adapter.targets(aor, wanted);
            phones.into_iter().map(|(phone, target)| (Some(phone), target)).collect()
        };
        let groups: Vec<Vec<(Option<InstanceId>, Target)>> =
            groups.into_iter().map(|group| group.into_iter().flat_map(expand).collect()).collect();
        let phones = groups.iter().flatten().map(|(phone, _)| *phone).collect();
        let groups: Vec<Vec<Target>> =
            groups.into_iter().map(|group| group.into_iter().map(|(_, target)| target).collect()).collect();
        let groups: Vec<Vec<Target>> = groups.into_iter().filter(|group: &Vec<Target>| !group.is_empty()).collect();
        if groups.is_empty() {
            return (Located::Nowhere { status: 480, reason: "Temporarily Unavailable" }, Vec::new());
        }
        (Located::Groups(groups), phones)
    }

    /// What changes in a request between a phone and the overlay.
    pub(super) fn dress(&self, edit: &mut Edit<'_>, message: &Message, plan: &Plan, to: Option<InstanceId>, hop: &Hop) {
        let Some(adapter) = &self.adapter else { return };
        if let Some(from) = &plan.phone {
            adapter.outward(edit, message, from);
        }
        if let Some(to) = &to
            && may_form_a_dialog(message)
            && let Some(address) = self.sent_by(hop)
        {
            edit.prepend(Name::RecordRoute, Adapter::record_route(to, hop.protocol, &address));
        }
    }

    /// Records the adapter in what a phone gets to a request that forms a dialog: nearest to the phone, so last.
    pub(super) fn record_for_phone(&self, context: &Context) -> Option<String> {
        let phone = context.plan.phone.as_ref().filter(|_| may_form_a_dialog(&context.message))?;
        let to = context.source.way_back();
        Some(Adapter::record_route(phone, to.protocol, &self.sent_by(&to)?))
    }
}

/// A response as it leaves, if it is one of our phones that gave it.
pub(super) fn from_phone(
    adapter: Option<&Adapter>,
    phone: Option<InstanceId>,
    message: Message,
    realm: &Realm,
) -> Message {
    match (phone, adapter) {
        (Some(phone), Some(adapter)) => adapter.response(&message, &phone, realm).unwrap_or(message),
        _ => message,
    }
}

#[cfg(test)]
mod tests;
