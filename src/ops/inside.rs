//! Being a user agent of the overlay for a while: a swarm that SIP streams go over, and a routing record that names it.

use super::{
    Access, OpsError, ViaChoice,
    finder::Inside,
    join::{JoinRequest, listen_addresses},
    lookup::Lookups,
    presence::Presence,
};
use crate::{
    identity::SecretKey,
    member::sip_streams,
    name::{Aor, PeerId, ResourceName},
    overlay::swarm::Network,
    record::{Contact, MAX_Q},
    sip::transport::OverlayPort,
};

/// A process that is in the overlay as a user agent.
pub(super) struct Stay {
    /// The swarm ends with it.
    pub(super) network: Network,
    pub(super) presence: Presence,
}

/// SIP over the streams of a swarm of our own.
pub(super) async fn overlay_port(network: &Network) -> Result<OverlayPort, OpsError> {
    sip_streams(network).await.map_err(|error| OpsError::Ask { peer: "this process".to_owned(), error })
}

/// Enters the overlay. The peer id is a new one: nobody else has it, whatever runs on this machine with the same home.
///
/// A caller registers beside what the device has registered, a callee instead of that.
pub(super) async fn enter(
    access: &Access,
    aor: &Aor,
    callee: bool,
) -> Result<(Stay, Inside, (PeerId, OverlayPort)), OpsError> {
    let mut access = access.clone();
    access.overlay.get_or_insert_with(|| aor.host().clone());
    let mut lookups = Lookups::attach(&access, ViaChoice::Auto, &ResourceName::User(aor.clone())).await?;
    let descriptor = lookups.descriptor().clone();
    let key = SecretKey::generate()?;
    let listen = listen_addresses(&access, &JoinRequest::default());
    let network = access.listener(&descriptor, listen, &key).await?;
    let port = overlay_port(&network).await?;
    let info = network.myself();
    let contact = Contact::Overlay { peer: info.peer, addresses: info.addresses, q: MAX_Q };
    let presence = Presence::begin(&access, &mut lookups, aor, contact, !callee).await?;
    let inside = Inside::new(descriptor.overlay().clone(), lookups, info.peer);
    Ok((Stay { network, presence }, inside, (info.peer, port)))
}
