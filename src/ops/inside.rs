//! Being a user agent of the overlay for a while: a swarm that SIP streams go over, and a routing record that names it.

use std::{future::Future, time::Duration};

use tokio::task::JoinSet;

use super::{
    Access, OpsError, ViaChoice,
    finder::Inside,
    join::{JoinRequest, listen_addresses},
    lookup::Lookups,
    presence::Presence,
};
use crate::{
    client::Closest,
    identity::SecretKey,
    member::sip_streams,
    name::{Aor, PeerId, ResourceName},
    overlay::swarm::Network,
    record::{Contact, MAX_Q},
    sip::transport::OverlayPort,
};

/// How long a registration that is under way may take when it is no longer wanted.
const BEGUN: Duration = Duration::from_secs(1);
/// Members that a user agent connects to before it registers.
const MET: usize = 4;
/// How long the others have once one of them has answered.
const OTHERS: Duration = Duration::from_millis(300);
/// How long finding out how this process is reached may take, once members are connected.
const SETTLED: Duration = Duration::from_secs(3);

/// A process that is in the overlay as a user agent.
pub(super) struct Stay {
    /// The swarm ends with it.
    pub(super) network: Network,
    pub(super) presence: Presence,
}

impl Stay {
    /// Puts the registration back as it was, and leaves.
    pub(super) async fn leave(self) -> Result<(), OpsError> {
        let left = self.presence.end().await;
        drop(self.network);
        left
    }
}

/// Begins something that registers. If it is to end before it has begun, what it may have registered is taken back: an
/// address at which nobody answers would cost every caller a timeout.
pub(super) async fn begin<T>(
    starting: impl Future<Output = Result<T, OpsError>>,
    shutdown: impl Future<Output = ()>,
    stay: impl FnOnce(T) -> Option<Stay>,
) -> Result<Option<T>, OpsError> {
    tokio::pin!(starting);
    tokio::select! {
        started = &mut starting => started.map(Some),
        () = shutdown => {
            if let Ok(Ok(started)) = tokio::time::timeout(BEGUN, starting).await
                && let Some(stay) = stay(started)
            {
                stay.leave().await?;
            }
            Ok(None)
        }
    }
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
    meet(&access, &lookups, &network).await?;
    let info = network.myself();
    let contact = Contact::Overlay { peer: info.peer, addresses: info.addresses, q: MAX_Q };
    let presence = Presence::begin(&access, &mut lookups, aor, contact, !callee).await?;
    let inside = Inside::new(descriptor.overlay().clone(), lookups, info.peer);
    Ok((Stay { network, presence }, inside, (info.peer, port)))
}

/// Connects to a few members: they tell under which address they see this process, and relay for it if it needs that.
async fn meet(access: &Access, lookups: &Lookups, network: &Network) -> Result<(), OpsError> {
    let mut members = access.members(lookups.known()).await?;
    members.truncate(MET);
    let target = network.peer().position();
    let mut asked: JoinSet<_> = members
        .into_iter()
        .map(|member| {
            let (network, timeout) = (network.clone(), access.timeout);
            async move { network.call(&member, &Closest { target, count: 1 }, timeout).await.is_ok() }
        })
        .collect();
    // Most see the same; one that is dead need not hold up a call.
    while let Some(answered) = asked.join_next().await {
        if answered.unwrap_or(false) {
            let others = async { while asked.join_next().await.is_some() {} };
            if tokio::time::timeout(OTHERS, others).await.is_err() {
                break;
            }
        }
    }
    asked.detach_all();
    network.settled(SETTLED).await;
    Ok(())
}
