//! What a proxy peer and gatekeepers say to each other: enter, prove, leave.

use std::{net::IpAddr, time::Duration};

use serde_bytes::ByteBuf;

use super::{Applicant, Failure, place::MAX_EACH};
use crate::{
    client::{
        PeerInfo, Verdict,
        gatekeeper::{Enter, EnterReply, Entered, Leave, LeaveReply, Prove, ProveReply, RequestId, statement},
    },
    clock::UnixMs,
    identity::Certificate,
    member::{core::Core, gatekeeper::named},
    name::{PeerId, ResourceName, Service, ServiceUri},
    overlay::redir::Wanted,
    record::Body,
};

/// Gatekeepers that are asked, one after the other, before a pause.
const GATEKEEPERS: usize = 3;
/// How long finding gatekeepers may take.
const FIND: Duration = Duration::from_secs(3);
/// How long one call may take; a gatekeeper changes the zone meanwhile.
const CALL: Duration = Duration::from_secs(5);
/// How long the call to leave may take: the process is about to end.
const LEAVE: Duration = Duration::from_secs(2);

impl Applicant {
    /// Asks gatekeepers until one enters us: first the one that did so the last time.
    pub(super) async fn ask_gatekeepers(&mut self, addresses: Vec<IpAddr>) -> Result<(Entered, PeerInfo), Failure> {
        let mut failure = None;
        if let Some(last) = self.standing.as_ref().and_then(|standing| standing.gatekeeper.clone()) {
            match self.ask(&last, &addresses).await {
                Ok(entered) => return Ok((entered, last)),
                Err(why) => failure = Some(why),
            }
        }
        let asked = self.standing.as_ref().and_then(|standing| standing.gatekeeper.as_ref()).map(|last| last.peer);
        let (gatekeepers, verdict) = self.gatekeepers(asked).await;
        for gatekeeper in gatekeepers {
            match self.ask(&gatekeeper, &addresses).await {
                Ok(entered) => return Ok((entered, gatekeeper)),
                // What one of them refuses for a reason of ours, the others refuse too; the first reason is told.
                Err(why) => failure = Some(failure.unwrap_or(why)),
            }
        }
        Err(failure.unwrap_or_else(|| match verdict {
            Verdict::NobodyToAsk => Failure::new("nobody in the overlay could be asked for a gatekeeper"),
            _ => Failure::new(format!("{} has no gatekeeper; p2p-publish enters it by hand", self.overlay)),
        }))
    }

    /// Asks one gatekeeper, and brings it the nonces that its probes have brought here.
    async fn ask(&mut self, gatekeeper: &PeerInfo, addresses: &[IpAddr]) -> Result<Entered, Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(format!("the gatekeeper {} {what}: {error}", gatekeeper.peer))
        };
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Failure::new(format!("no random numbers: {error}")))?;
        let id = RequestId::new(id);
        self.inbox.expect(id);
        let enter = Enter {
            id,
            addresses: addresses.to_vec(),
            endpoints: named::write(&self.endpoints()),
            dialled: self.core.network().addresses().into_iter().take(MAX_EACH).collect(),
            certificate: self.certificate().map(|certificate| ByteBuf::from(certificate.der())),
            force: self.publish.force,
        };
        let reply =
            self.core.call(gatekeeper, &enter, CALL).await.map_err(|error| failed("cannot be asked", &error))?;
        let (probes, within) = match reply {
            EnterReply::Probing { probes, within_ms } => (probes as usize, Duration::from_millis(within_ms).min(CALL)),
            EnterReply::Refused(denied) => return Err(denied.into()),
        };
        let nonces = self.inbox.collect(probes, within).await;
        let signature = self.key.sign(&statement(&self.overlay, &gatekeeper.peer, &id, &nonces));
        self.proven_to = Some(gatekeeper.clone());
        let prove = Prove { id, nonces, signature: ByteBuf::from(signature.to_vec()) };
        match self.core.call(gatekeeper, &prove, CALL).await.map_err(|error| failed("took no proof", &error))? {
            ProveReply::Entered(entered) => Ok(entered),
            ProveReply::Refused(denied) => Err(denied.into()),
        }
    }

    /// The certificate that permits it to be a proxy peer; that in the home may have been renewed meanwhile.
    fn certificate(&self) -> Option<Certificate> {
        let name = ResourceName::from(ServiceUri::new(Service::Proxy, self.overlay.clone()));
        let at_home =
            |core: &Core| core.home()?.certificate_for(&self.key.public(), &name, UnixMs::now()).ok().flatten();
        self.certificate.clone().or_else(|| at_home(&self.core))
    }

    /// Asks the gatekeeper that entered it to take it out; if that one is gone, any other.
    pub(super) async fn ask_to_leave(&self, last: &PeerInfo) -> Result<(), String> {
        let ask = async |gatekeeper: &PeerInfo| match self.core.call(gatekeeper, &Leave {}, LEAVE).await {
            Ok(LeaveReply::Left) => Ok(()),
            Ok(LeaveReply::Refused(denied)) => Err(denied.why),
            Err(error) => Err(error.to_string()),
        };
        let mut result = ask(last).await;
        if result.is_err() {
            for other in self.gatekeepers(Some(last.peer)).await.0 {
                match ask(&other).await {
                    Ok(()) => return Ok(()),
                    Err(why) => result = Err(why),
                }
            }
        }
        result
    }

    /// The gatekeepers that the overlay has, but for one; and what the search came to.
    async fn gatekeepers(&self, but: Option<PeerId>) -> (Vec<PeerInfo>, Verdict) {
        let found = self.core.services(Service::Gatekeeper, Wanted::Some(GATEKEEPERS), Duration::ZERO, FIND).await;
        let gatekeepers = found.outcome.records.iter().filter_map(|record| match record.body() {
            Body::Service(offer) if offer.serving && Some(offer.peer) != but => {
                Some(PeerInfo { peer: offer.peer, addresses: offer.addresses.clone() })
            }
            _ => None,
        });
        (gatekeepers.take(GATEKEEPERS).collect(), found.outcome.reply.verdict)
    }
}
