//! Brings probes to their places, and notes which places answer.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Weak,
    time::Duration,
};

use data_encoding::HEXLOWER;
use tokio::sync::mpsc;

use super::{GatekeeperError, desk::Desk};
use crate::{
    client::gatekeeper::{PROBE, RequestId},
    dns::publish::Transport,
    gatekeeper::Probe,
    name::OverlayId,
    sip::{
        Message, Method, ParseError,
        compose::Request,
        header::Name,
        transport::{Bound, Config, Event, Hop, Protocol, TlsFiles, Transports},
    },
};

/// When a datagram is sent again, after the first (RFC 3261 §17.1.2.1).
pub(super) const RESENDS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1_000)];

/// The sockets that probes leave from.
pub(super) struct Prober {
    overlay: OverlayId,
    transports: Transports,
}

impl Prober {
    /// Opens a socket for each family of addresses that this machine has.
    pub(super) fn bind(
        overlay: &OverlayId,
        roots: Option<PathBuf>,
    ) -> Result<(Self, mpsc::Receiver<Event>), GatekeeperError> {
        let families: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
        let has = |address: &SocketAddr| UdpSocket::bind(address).is_ok();
        let bound = Transports::bind(Config {
            listen: families.into_iter().filter(has).map(|address| (Protocol::Udp, address)).collect(),
            tls: TlsFiles { certificate: None, roots },
            ..Config::default()
        })?;
        let Bound { transports, events, udp } = bound;
        transports.serve_udp(&udp).map_err(GatekeeperError::Socket)?;
        Ok((Self { overlay: overlay.clone(), transports }, events))
    }

    /// Sends a probe. If it cannot be sent, no answer will come, which says enough.
    pub(super) fn send(&self, id: &RequestId, probe: &Probe) {
        let hop = Hop::socket(protocol(probe), SocketAddr::new(probe.address, probe.endpoint.port));
        let hop = match probe.endpoint.transport {
            // RFC 5922 §7.3: only who has a certificate for the overlay identifier passes.
            Transport::Tls => hop.named(self.overlay.as_str()),
            Transport::Udp | Transport::Tcp => hop,
        };
        let sent = self.options(id, probe).map_err(|error| error.to_string()).and_then(|options| {
            let octets = options.bytes().clone();
            self.transports.send(&hop, octets, 0).map_err(|error| error.to_string())
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "a probe was not sent");
        }
    }

    /// OPTIONS for the place itself. With Max-Forwards 0 nobody passes it on (RFC 3261 §16.3): a proxy named as the
    /// address would else bring the nonce, by the overlay's own DNS records, to the very peer that named it.
    fn options(&self, id: &RequestId, probe: &Probe) -> Result<Message, ParseError> {
        let protocol = protocol(probe);
        let place = SocketAddr::new(probe.address, probe.endpoint.port);
        let uri = format!("sip:{place};transport={}", protocol.token().to_ascii_lowercase());
        let nonce = HEXLOWER.encode(probe.nonce.as_slice());
        // What a response carries must tell nothing of the nonce.
        let (_, call) = probe.branch.split_at(probe.branch.len() / 2);
        Request::new(Method::Options, &uri)
            .header(Name::Via, format!("SIP/2.0/{protocol} gatekeeper.invalid;rport;branch={}", probe.branch))
            .header(Name::MaxForwards, "0")
            .header(Name::From, format!("<sip:{}>;tag={call}", self.overlay))
            .header(Name::To, format!("<{uri}>"))
            .header(Name::CallId, call)
            .header(Name::CSeq, "1 OPTIONS")
            .header(Name::Other(PROBE.as_bytes()), format!("{}.{nonce}", HEXLOWER.encode(id.as_slice())))
            .finish()
    }
}

const fn protocol(probe: &Probe) -> Protocol {
    match probe.endpoint.transport {
        Transport::Udp => Protocol::Udp,
        Transport::Tcp => Protocol::Tcp,
        Transport::Tls => Protocol::Tls,
    }
}

/// Takes the answers to probes, until the gatekeeper ends.
pub(super) async fn listen(desk: Weak<Desk>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        let Some(desk) = desk.upgrade() else { return };
        let Event::Message { message, source } = event else { continue };
        if let (Some(status), Ok(via)) = (message.status(), message.top_via())
            && let Some(branch) = via.branch()
        {
            let datagram = match source.remote {
                crate::sip::transport::Remote::Socket(address) if source.protocol == Protocol::Udp => Some(address),
                _ => None,
            };
            desk.answered(branch, status, datagram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::gatekeeper::Nonce, dns::publish::SipEndpoint};

    #[tokio::test]
    async fn a_probe_can_be_passed_on_by_nobody_and_its_answer_tells_no_nonce() {
        let overlay = OverlayId::parse("p2psip.org").unwrap();
        let (prober, _events) = Prober::bind(&overlay, None).unwrap();
        let probe = Probe {
            address: "2001:db8::1".parse().unwrap(),
            endpoint: SipEndpoint { transport: Transport::Udp, port: 5070 },
            nonce: Nonce::new([0xab; 16]),
            branch: format!("z9hG4bK{}", "01".repeat(16)),
        };
        let message = prober.options(&RequestId::new([0xcd; 16]), &probe).unwrap();
        message.check().unwrap();
        assert_eq!(message.request_uri(), Some("sip:[2001:db8::1]:5070;transport=udp"));
        assert_eq!(message.max_forwards().unwrap(), Some(0));
        let header = message.header(Name::Other(b"p2psip-probe")).unwrap();
        assert_eq!(header, format!("{}.{}", "cd".repeat(16), "ab".repeat(16)).as_bytes());
        let answer = crate::sip::respond::respond(&message, 200, "", Some("t")).finish();
        assert!(!String::from_utf8_lossy(&answer).contains("abab"), "{answer:?}");
    }
}
