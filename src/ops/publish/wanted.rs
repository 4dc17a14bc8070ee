//! What is to be published of a proxy peer: what a request asks for, or what it offers in the overlay.

use std::net::IpAddr;

use super::{AddRequest, Desk, drift::places};
use crate::{
    dns::{
        DescriptorPointer, PublishError, dnsaddr_text,
        publish::{Publication, SipEndpoint, host_of, unreachable},
    },
    name::{OverlayId, PeerId},
    ops::{Access, OpsError, outcome::OfferView},
};

/// The most multiaddrs of one proxy peer that are published.
const MAX_DIALLED: usize = 8;

/// What is to be published of a proxy peer that offers itself in the overlay; `None`, with a warning, if nobody outside
/// could reach it.
pub(super) fn of_offer(
    offer: &OfferView,
    host: Option<&str>,
    desk: &Desk,
    overlay: &OverlayId,
    lease: u32,
    warnings: &mut Vec<String>,
) -> Option<Publication> {
    let places = places(offer);
    if !offer.serving || places.is_empty() {
        return None;
    }
    let mut addresses: Vec<IpAddr> = places.iter().map(|(_, address, _)| *address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut endpoints: Vec<SipEndpoint> =
        places.iter().map(|&(transport, _, port)| SipEndpoint { transport, port }).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    if !desk.force
        && let Some((address, why)) = addresses.iter().find_map(|address| Some((address, unreachable(address)?)))
    {
        warnings.push(format!("{} at {address} is not published: {why}", offer.peer));
        return None;
    }
    let dialled = offer.addresses.iter().filter(|address| dnsaddr_text(&offer.peer, address).is_ok());
    Some(Publication {
        overlay: overlay.clone(),
        host: host.map_or_else(|| host_of(&offer.peer, overlay), str::to_owned),
        addresses,
        endpoints,
        ttl: Publication::ttl_of(lease),
        lease,
        peer: Some(offer.peer),
        dialled: dialled.take(MAX_DIALLED).cloned().collect(),
        descriptor: None,
    })
}

/// The records that a request asks for.
pub(super) fn publication(
    access: &Access,
    desk: &Desk,
    overlay: &OverlayId,
    request: &AddRequest,
) -> Result<Publication, OpsError> {
    if !desk.force {
        for address in &request.addresses {
            if let Some(why) = unreachable(address) {
                let why = format!("{why}, so nobody outside reaches it; --force publishes it all the same");
                return Err(PublishError::Unfit { what: address.to_string(), why }.into());
            }
        }
    }
    let mut peer: Option<PeerId> = None;
    let mut dialled = Vec::new();
    for text in &request.dnsaddr {
        let invalid = |why: String| OpsError::PeerAddress { text: text.clone(), why };
        let (address, named) = text.rsplit_once("/p2p/").ok_or_else(|| invalid("it has no /p2p/ part".to_owned()))?;
        let named: PeerId = named.parse().map_err(|error| invalid(format!("{error}")))?;
        if peer.replace(named).is_some_and(|before| before != named) {
            return Err(invalid("all of them must be of one peer".to_owned()));
        }
        dialled.push(address.to_owned());
    }
    let known = access.local_descriptor()?.filter(|known| !known.descriptor.is_local());
    let descriptor = known.map(|known| DescriptorPointer::from(&*known.descriptor));
    Ok(Publication {
        overlay: overlay.clone(),
        host: full_name(&request.host, overlay),
        addresses: request.addresses.clone(),
        endpoints: request.endpoints.iter().map(|&(transport, port)| SipEndpoint { transport, port }).collect(),
        ttl: request.ttl.unwrap_or_else(|| Publication::ttl_of(request.lease)),
        lease: request.lease,
        peer,
        dialled,
        descriptor,
    })
}

/// A host's full name: one label is below the overlay identifier.
pub(super) fn full_name(host: &str, overlay: &OverlayId) -> String {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name.contains('.') || name.is_empty() { name } else { format!("{name}.{overlay}") }
}
