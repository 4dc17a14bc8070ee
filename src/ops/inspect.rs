//! Looking into a member and at its neighbours: what `p2p-shell` has beyond the other tools.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    Access, OpsError, ViaChoice,
    access::{Attached, Route, describe},
    outcome::{
        BucketView, EventOutcome, HeldOutcome, HeldRecordView, PeerView, PeersOutcome, PingOutcome, StatusOutcome,
        TableOutcome,
    },
    view,
};
use crate::{
    client::{Call, Closest, Events, Held, PeerInfo, Status, StatusReply},
    clock::{UnixMs, ms},
    name::PeerId,
    overlay::socket::{SocketClient, SocketError},
};

/// Records that a member is asked for at a time; it does not tell of more.
const MAX_HELD: u32 = 1_000;
/// Peers that are asked for.
const MAX_PEERS: u8 = 20;
/// Requests over an open connection, of which the fastest counts.
const PINGS: usize = 3;

/// The running member of this user, asked over its socket.
pub struct Inspector<'a> {
    access: &'a Access,
    socket: SocketClient,
}

impl<'a> Inspector<'a> {
    /// Connects to the member's socket.
    ///
    /// # Errors
    /// [`OpsError::Socket`]: nobody listens there, or somebody else's member does.
    pub async fn attach(access: &'a Access) -> Result<Self, OpsError> {
        Ok(Self { access, socket: SocketClient::connect(&access.socket_path()).await? })
    }

    async fn call<C: Call>(&mut self, call: &C) -> Result<C::Reply, OpsError> {
        let answer = tokio::time::timeout(self.access.timeout, self.socket.call(call)).await;
        Ok(answer.map_err(|_| self.access.timed_out("the member on this machine"))??)
    }

    /// How the member is.
    ///
    /// # Errors
    /// [`OpsError`]: it does not answer.
    pub async fn status(&mut self) -> Result<StatusOutcome, OpsError> {
        let member = self.call(&Status {}).await?;
        let uptime_ms = view::milliseconds(UnixMs::now().since(member.started_ms));
        let socket = self.access.socket_path().display().to_string();
        Ok(StatusOutcome { status: "member", socket, uptime_ms, member })
    }

    /// The peers that it knows closest to its own position.
    ///
    /// # Errors
    /// As [`Inspector::status`].
    pub async fn peers(&mut self) -> Result<PeersOutcome, OpsError> {
        let status = self.call(&Status {}).await?;
        let own = status.peer.position();
        let reply = self.call(&Closest { target: own, count: MAX_PEERS }).await?;
        let view = |info: PeerInfo| PeerView {
            peer: info.peer,
            bits: own.distance(&info.peer.position()).common_prefix(),
            addresses: info.addresses,
        };
        let peers = reply.peers.into_iter().map(view).collect();
        Ok(PeersOutcome { status: "peers", member: status.peer, known: status.peers, peers })
    }

    /// Its routing table, bucket by bucket.
    ///
    /// # Errors
    /// As [`Inspector::status`].
    pub async fn table(&mut self) -> Result<TableOutcome, OpsError> {
        let StatusReply { peer, peers, buckets, .. } = self.call(&Status {}).await?;
        // Sorted and each once, whatever the member says.
        let buckets = buckets.into_iter().collect::<BTreeMap<_, _>>();
        let buckets = buckets.into_iter().map(|(bits, peers)| BucketView { bits, peers }).collect();
        Ok(TableOutcome { status: "table", member: peer, known: peers, buckets })
    }

    /// The records that it holds.
    ///
    /// # Errors
    /// As [`Inspector::status`].
    pub async fn records(&mut self) -> Result<HeldOutcome, OpsError> {
        let reply = self.call(&Held { limit: MAX_HELD }).await?;
        let now = UnixMs::now();
        let view = |record: crate::client::HeldRecord| HeldRecordView {
            expires_in_ms: view::milliseconds(record.expires_ms.since(now)),
            record,
        };
        Ok(HeldOutcome {
            status: "records",
            total: reply.total,
            records: reply.records.into_iter().map(view).collect(),
        })
    }

    /// Reports what happens at the member, until `report` returns false.
    ///
    /// # Errors
    /// [`OpsError::Socket`]: the member ended, or hung up.
    pub async fn events(mut self, report: &mut dyn FnMut(EventOutcome) -> bool) -> Result<(), OpsError> {
        self.call(&Events {}).await?;
        while let Some(event) = self.socket.next_event().await? {
            if !report(EventOutcome { status: "event", at_ms: UnixMs::now(), event }) {
                return Ok(());
            }
        }
        let why = std::io::ErrorKind::UnexpectedEof.into();
        Err(SocketError::Broken { path: self.access.socket_path(), why }.into())
    }
}

/// Asks a peer how it is, by a swarm of this process's own, and says how long that takes. `target` is a multiaddr with
/// a `/p2p/` part, or a peer id that the member on this machine or a given one can place.
///
/// # Errors
/// [`OpsError`]: no way into the overlay, nobody knows where the peer is, or it does not answer.
pub async fn ping(access: &Access, target: &str) -> Result<PingOutcome, OpsError> {
    let deadline = access.deadline();
    let Attached { known, route } = access.attach(ViaChoice::Auto).await?;
    let overlay = known.descriptor.overlay().clone();
    let info = if target.contains('/') {
        let access = Access { peers: vec![target.to_owned()], ..access.clone() };
        let entries = access.entries(&overlay, Some(&known), deadline).await?;
        entries.into_iter().next()
    } else {
        let invalid = |error| OpsError::PeerAddress { text: target.to_owned(), why: format!("{error}") };
        Some(locate(access, route, target.parse().map_err(invalid)?).await?)
    };
    let Some(info) = info else { return Err(access.timed_out(target)) };
    let network = access.client(&overlay, known.descriptor.hash(), std::slice::from_ref(&info)).await?;
    let ask = async || {
        let began = Instant::now();
        let reply = network.call(&info, &Status {}, deadline.saturating_duration_since(began)).await;
        let reply = reply.map_err(|error| OpsError::Ask { peer: describe(&info), error })?;
        Ok::<_, OpsError>((reply, began.elapsed()))
    };
    let (reply, connect) = ask().await?;
    let mut rtt = Duration::MAX;
    for _ in 0..PINGS {
        rtt = rtt.min(ask().await?.1);
    }
    Ok(PingOutcome {
        status: "answered",
        peer: info.peer,
        addresses: info.addresses.clone(),
        version: reply.version,
        connect_ms: ms(connect),
        rtt_ms: ms(rtt),
    })
}

/// Where a peer is: it is asked for at its own position, of those through whom the overlay is entered.
async fn locate(access: &Access, route: Route, peer: PeerId) -> Result<PeerInfo, OpsError> {
    let call = Closest { target: peer.position(), count: 1 };
    let is_it = |info: &PeerInfo| info.peer == peer && !info.addresses.is_empty();
    let found = match route {
        Route::Socket(socket) => {
            let mut member = Inspector { access, socket };
            let status = member.call(&Status {}).await?;
            if status.peer == peer {
                Some(PeerInfo { peer, addresses: status.addresses })
            } else {
                member.call(&call).await?.peers.into_iter().find(is_it)
            }
        }
        Route::Peers { network, entries } => match entries.iter().find(|info| is_it(info)) {
            Some(info) => Some(info.clone()),
            None => {
                let mut found = None;
                for entry in &entries {
                    let reply = network.call(entry, &call, access.timeout).await;
                    found = reply.ok().and_then(|reply| reply.peers.into_iter().find(is_it));
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
        },
    };
    found.ok_or(OpsError::WhereIsPeer { peer })
}
