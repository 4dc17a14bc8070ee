//! How a proxy peer enters the DNS through a gatekeeper, and leaves it: the calls between the two.
//!
//! 1. [`Enter`] says where the proxy peer takes SIP. The gatekeeper sends an OPTIONS request to each place, with a nonce
//!    in the header [`PROBE`], which no SIP element copies into a response or passes on unasked.
//! 2. Only who reads what arrives there knows the nonces: [`Prove`] brings them back, signed by the proxy peer's key.
//!    What was proven is entered under a lease, so the same two calls, made again in time, renew it.
//! 3. [`Leave`] takes the records out at once.
//!
//! Nothing of this is believed by the proxy peer before it has read its records from the DNS.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::Call;
use crate::{
    clock::UnixMs,
    name::{OverlayId, PeerId},
};

/// The header of the OPTIONS requests with which a gatekeeper probes: the request's id and a nonce, both in hexadecimal,
/// with a dot between them.
pub const PROBE: &str = "P2PSIP-Probe";

macro_rules! call {
    ($type:ty, $service:literal, $reply:ty) => {
        impl Call for $type {
            const SERVICE: &'static str = $service;
            type Reply = $reply;
        }
    };
}

/// Names one request of a proxy peer: random, chosen by the proxy peer, so that probes for others mean nothing to it.
pub type RequestId = ByteArray<16>;

/// What came to a place that was probed, and nowhere else.
pub type Nonce = ByteArray<16>;

/// Asks a gatekeeper to enter this proxy peer into the DNS, or to renew its lease there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enter {
    /// What the probes will carry.
    pub id: RequestId,
    /// The addresses at which the public network reaches it; at most 8.
    pub addresses: Vec<IpAddr>,
    /// The transports (`udp`, `tcp`, `tls`) and their ports; at most 8.
    pub endpoints: Vec<(String, u16)>,
    /// Where the member can be dialled: multiaddrs without the `/p2p/` part. Those at other addresses are left out.
    pub dialled: Vec<String>,
    /// The certificate for `sip:OVERLAY`, in DER, if it has one.
    pub certificate: Option<ByteBuf>,
    /// Whether to enter it although it seems to be behind a NAT (draft §3.1.1: not recommended).
    pub force: bool,
}
call!(Enter, "gatekeeper-enter", EnterReply);

/// The answer to [`Enter`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnterReply {
    /// Probes are on their way.
    Probing {
        /// How many.
        probes: u32,
        /// For how long the proof is waited for, in milliseconds.
        within_ms: u64,
    },
    /// Not now, or not at all.
    Refused(Denied),
}

/// Returns the nonces that have arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prove {
    /// That of the [`Enter`].
    pub id: RequestId,
    /// The nonces, in any order.
    pub nonces: Vec<Nonce>,
    /// The ed25519 signature of [`statement`], by the key that the peer id names.
    pub signature: ByteBuf,
}
call!(Prove, "gatekeeper-prove", ProveReply);

/// The answer to [`Prove`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProveReply {
    /// The name server has the records now; whether it shows them, the proxy peer sees for itself.
    Entered(Entered),
    /// Nothing was entered; what was there before is left to its lease.
    Refused(Denied),
}

/// What was entered of a proxy peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// Its host name.
    pub host: String,
    /// The addresses that were proven.
    pub addresses: Vec<IpAddr>,
    /// The transports that were proven, and their ports.
    pub endpoints: Vec<(String, u16)>,
    /// How long the lease is, in milliseconds.
    pub lease_ms: u64,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Asks the gatekeeper to take this proxy peer out of the DNS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {}
call!(Leave, "gatekeeper-leave", LeaveReply);

/// The answer to [`Leave`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaveReply {
    /// It is not in the DNS any more.
    Left,
    /// It is left to its lease.
    Refused(Denied),
}

/// Why a gatekeeper did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The reason, for programs: see [`DenialCode`].
    pub code: DenialCode,
    /// The reason, for people. Untrusted text: escape it before it reaches a terminal.
    pub why: String,
    /// When it makes sense to ask again, in milliseconds.
    pub retry_ms: u64,
}

/// The reasons of a gatekeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DenialCode {
    /// It is not on the list of a closed policy.
    NotListed,
    /// Its certificate does not permit it to be a proxy peer.
    NotEnrolled,
    /// What it asks for makes no sense.
    Unfit,
    /// Its addresses are those of private or shared networks.
    Private,
    /// It is behind a NAT, and did not insist.
    BehindNat,
    /// The gatekeeper itself does not see what the public network sees.
    NoVantage,
    /// A quota is used up.
    Quota,
    /// Too many requests, of this peer or to these addresses.
    Throttled,
    /// No probe came back as it should.
    Unproven,
    /// The signature is wrong, or there is no such request (any more).
    Stale,
    /// The name server did not take it.
    Dns,
}

/// Asks a gatekeeper what it has decided lately; only its own user is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {}
call!(Decisions, "gatekeeper-decisions", DecisionsReply);

/// The answer to [`Decisions`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionsReply {
    /// Those who wait: whom it probes now, and whom it has refused since they were last entered, the newest first.
    pub pending: Vec<Decision>,
    /// What it decided, the newest first.
    pub decisions: Vec<Decision>,
}

/// One decision of a gatekeeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When.
    pub at_ms: UnixMs,
    /// What.
    pub verdict: GateVerdict,
    /// The proxy peer; none, if a lease that was reaped names none.
    pub peer: Option<PeerId>,
    /// Its host name in the DNS.
    pub host: String,
    /// The addresses that it is about.
    pub addresses: Vec<IpAddr>,
    /// Why so.
    pub why: String,
}

/// What a gatekeeper decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateVerdict {
    /// It was sent probes; its proof is waited for.
    Probing,
    /// It was entered.
    Entered,
    /// Its lease was renewed.
    Renewed,
    /// It was refused.
    Refused,
    /// It left.
    Left,
    /// Its lease was over, so it was taken out.
    Reaped,
}

impl GateVerdict {
    /// The same in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Probing => "probing",
            Self::Entered => "entered",
            Self::Renewed => "renewed",
            Self::Refused => "refused",
            Self::Left => "left",
            Self::Reaped => "reaped",
        }
    }
}

/// How a proxy peer stands with the DNS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationStatus {
    /// In one word.
    pub state: PublicationState,
    /// Why so, for people.
    pub why: String,
    /// Its host name, once it has been entered.
    pub host: Option<String>,
    /// When its lease ends unless it is renewed (Unix milliseconds).
    pub until_ms: Option<UnixMs>,
    /// The gatekeeper that entered it last; none if it has the zone's key itself.
    pub gatekeeper: Option<PeerId>,
    /// How often its lease was renewed.
    pub renewals: u64,
    /// How often it was refused, or failed.
    pub failures: u64,
}

/// How a proxy peer stands with the DNS, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublicationState {
    /// It looks for a gatekeeper, or asks one.
    #[default]
    Asking,
    /// The DNS shows it.
    Shown,
    /// It was entered, and the name servers that it asks do not show it yet.
    Unseen,
    /// It does not ask, because it is behind a NAT.
    BehindNat,
    /// It was refused, or nobody answered; it asks again.
    Refused,
    /// It took itself out.
    Left,
}

impl PublicationState {
    /// The same for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Asking => "asking a gatekeeper",
            Self::Shown => "in the DNS",
            Self::Unseen => "entered, but the DNS does not show it",
            Self::BehindNat => "not in the DNS: behind a NAT",
            Self::Refused => "not entered",
            Self::Left => "left the DNS",
        }
    }
}

/// What a proxy peer signs: that it, in this overlay, proves these nonces to this gatekeeper.
pub fn statement(overlay: &OverlayId, gatekeeper: &PeerId, id: &RequestId, nonces: &[Nonce]) -> Vec<u8> {
    let mut sorted: Vec<&[u8]> = nonces.iter().map(|nonce| nonce.as_slice()).collect();
    sorted.sort_unstable();
    let parts: [&[u8]; 5] =
        [b"p2psip gatekeeper proof 1\0", overlay.as_str().as_bytes(), b"\0", gatekeeper.public_key(), id.as_slice()];
    [parts.concat(), sorted.concat()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{RequestFrame, decode, encode};

    #[test]
    fn what_is_signed_depends_on_everything_but_the_order_of_the_nonces() {
        let overlay = OverlayId::parse("p2psip.org").unwrap();
        let (one, other) = (PeerId::from_public_key([1; 32]), PeerId::from_public_key([2; 32]));
        let (id, a, b) = (RequestId::new([1; 16]), Nonce::new([2; 16]), Nonce::new([3; 16]));
        let sound = statement(&overlay, &one, &id, &[a, b]);
        assert_eq!(statement(&overlay, &one, &id, &[b, a]), sound);
        assert_ne!(statement(&OverlayId::parse("p2psip.net").unwrap(), &one, &id, &[a, b]), sound);
        assert_ne!(statement(&overlay, &other, &id, &[a, b]), sound);
        assert_ne!(statement(&overlay, &one, &a, &[a, b]), sound);
        assert_ne!(statement(&overlay, &one, &id, &[a]), sound);
    }

    #[test]
    fn the_calls_survive_the_wire() {
        let enter = Enter {
            id: RequestId::new([7; 16]),
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            endpoints: vec![("udp".to_owned(), 5060)],
            dialled: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()],
            certificate: Some(ByteBuf::from(vec![1, 2])),
            force: false,
        };
        assert_eq!(RequestFrame::of(&enter).unwrap().call::<Enter>().unwrap(), enter);
        let denied = Denied { code: DenialCode::BehindNat, why: "so".to_owned(), retry_ms: 1 };
        let reply = ProveReply::Refused(denied);
        assert_eq!(decode::<ProveReply>(&encode(&reply, "reply").unwrap(), "reply").unwrap(), reply);
    }
}
