//! The signed part of a record: whose it is, how old, until when it holds, and what it says.

use serde::{Deserialize, Serialize};

use super::{Contact, RecordError, Refusal, ServiceOffer, user::check_contacts};
use crate::{
    clock::UnixMs,
    identity::cose,
    name::{PeerId, ResourceName},
};

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// Where a user's device is: a routing record (draft §4).
    User {
        /// The ways to reach it, 1 to 8.
        contacts: Vec<Contact>,
    },
    /// An offer to provide a service: a service record (draft §3.3).
    Service(ServiceOffer),
    /// A tombstone: the instance has no binding any more.
    Removed,
}

/// The signed part of a record, a CBOR map.
///
/// Fields of a later version are ignored when it is read: whoever signed them may tell others more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The name it is stored under.
    #[serde(rename = "name")]
    pub name: ResourceName,
    /// Orders the records of one instance: the writer's clock in Unix milliseconds, or one more than its last sequence.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// When it stops to hold. A renewal should not expire before what it renews, nor a tombstone before what it
    /// removes: a storer that missed the newer record would otherwise bring the older one back.
    #[serde(rename = "exp")]
    pub expires: UnixMs,
    /// What it says.
    #[serde(rename = "body")]
    pub body: Body,
}

impl Payload {
    /// Whether this removes a binding.
    pub const fn is_tombstone(&self) -> bool {
        matches!(self.body, Body::Removed)
    }

    /// Checks what can be checked without knowing the overlay, its policy or the time: that users' names have
    /// contacts and services' names offers, that the offer is the signer's own and the signer in the range of the tree
    /// node it is for (RFC 7374 §5), and the limits.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], [`Refusal::OutsideRange`].
    pub fn validate(&self, signer: &PeerId) -> Result<(), Refusal> {
        if self.expires.0 <= self.sequence {
            return Err(Refusal::malformed("it expires before it was written"));
        }
        if let ResourceName::Node(name) = &self.name
            && !name.node().contains(&signer.position())
        {
            return Err(Refusal::OutsideRange { node: name.clone() });
        }
        match (&self.name, &self.body) {
            (ResourceName::Service(_), _) => Err(Refusal::malformed("it does not say which tree node it is for")),
            (_, Body::Removed) => Ok(()),
            (ResourceName::User(_), Body::User { contacts }) => check_contacts(contacts),
            (ResourceName::Node(_), Body::Service(offer)) => {
                if offer.peer != *signer {
                    return Err(Refusal::malformed("it offers the service of another peer than its signer"));
                }
                offer.validate()
            }
            (ResourceName::User(_), Body::Service(_)) => {
                Err(Refusal::malformed("a service offered under a user's name"))
            }
            (ResourceName::Node(_), Body::User { .. }) => Err(Refusal::malformed("contacts under a service's name")),
        }
    }

    /// The octets that are signed.
    ///
    /// # Errors
    /// [`RecordError::Unencodable`].
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut octets = Vec::with_capacity(256);
        ciborium::into_writer(self, &mut octets)
            .map_err(|error| RecordError::Unencodable { why: error.to_string() })?;
        Ok(octets)
    }

    /// Reads a payload that takes up all of `octets`. It is not validated.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn decode(octets: &[u8]) -> Result<Self, Refusal> {
        cose::read(octets, "payload").map_err(Refusal::malformed)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{name::TreeNode, record::Endpoint};

    const PEER: PeerId = PeerId::from_public_key([1; 32]);

    fn payload(name: &str, body: Body) -> Payload {
        Payload { name: ResourceName::parse(name).unwrap(), sequence: 1_000_000, expires: UnixMs(4_600_000), body }
    }

    fn user() -> Body {
        Body::User {
            contacts: vec![
                Contact::Overlay { peer: PEER, addresses: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()], q: 1000 },
                Contact::Sip { uri: "sip:alice@192.0.2.7".to_owned(), q: 100 },
            ],
        }
    }

    fn service(peer: PeerId) -> Body {
        Body::Service(ServiceOffer {
            peer,
            addresses: vec![],
            endpoints: vec![Endpoint { transport: "udp".to_owned(), host: "192.0.2.1".to_owned(), port: 5060 }],
            serving: true,
            load: 20,
            depth: 3,
        })
    }

    fn all() -> [Payload; 4] {
        [
            payload("sip:alice@p2psip.org", user()),
            payload("sip:p2psip.org#0/0", service(PEER)),
            payload("sip:alice@p2psip.org", Body::Removed),
            payload("turn:p2psip.org#0/0", Body::Removed),
        ]
    }

    fn malformed(payload: &Payload) -> String {
        match payload.validate(&PEER) {
            Err(Refusal::Malformed { why }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_payload_survives_its_encoding() {
        for payload in all() {
            payload.validate(&PEER).unwrap();
            assert_eq!(Payload::decode(&payload.encode().unwrap()).unwrap(), payload);
        }
    }

    /// Signatures are over these octets and records outlive a program's version: what fails here breaks the overlay.
    #[test]
    fn the_encoding_stays_as_it_is() {
        let tombstone = payload("sip:alice@p2psip.org", Body::Removed).encode().unwrap();
        assert_eq!(
            HEXLOWER.encode(&tombstone),
            "a4646e616d65747369703a616c696365407032707369702e6f7267637365711a000f4240636578701a004630c0\
             64626f64796772656d6f766564"
        );
        assert_eq!(
            as_json(&payload("sip:p2psip.org#0/0", service(PEER))),
            json!({ "name": "sip:p2psip.org#0/0", "seq": 1_000_000, "exp": 4_600_000, "body": { "service": {
                "peer": PEER, "addresses": [], "serving": true, "load": 20, "depth": 3,
                "endpoints": [{ "transport": "udp", "host": "192.0.2.1", "port": 5060 }],
            }}})
        );
        assert_eq!(
            as_json(&payload("sip:alice@p2psip.org", user())),
            json!({ "name": "sip:alice@p2psip.org", "seq": 1_000_000, "exp": 4_600_000, "body": { "user": {
                "contacts": [
                    { "overlay": { "peer": PEER, "addresses": ["/ip4/192.0.2.1/tcp/4001"], "q": 1000 } },
                    { "sip": { "uri": "sip:alice@192.0.2.7", "q": 100 } },
                ],
            }}})
        );
    }

    fn as_json(payload: &Payload) -> serde_json::Value {
        shown(ciborium::from_reader(&payload.encode().unwrap()[..]).unwrap())
    }

    /// The value in JSON, where a peer's key is shown as its id.
    fn shown(value: ciborium::Value) -> serde_json::Value {
        match value {
            ciborium::Value::Bytes(key) => json!(PeerId::from_public_key(key.try_into().unwrap())),
            ciborium::Value::Array(items) => items.into_iter().map(shown).collect(),
            ciborium::Value::Map(pairs) => {
                pairs.into_iter().map(|(key, value)| (key.into_text().unwrap(), shown(value))).collect()
            }
            plain => plain.deserialized().unwrap(),
        }
    }

    #[test]
    fn the_body_must_fit_the_name_and_the_signer() {
        assert!(malformed(&payload("sip:p2psip.org#0/0", user())).contains("under a service's name"));
        assert!(malformed(&payload("sip:alice@p2psip.org", service(PEER))).contains("under a user's name"));
        let other = PeerId::from_public_key([2; 32]);
        assert!(malformed(&payload("sip:p2psip.org#0/0", service(other))).contains("another peer"));
        assert!(malformed(&payload("sip:p2psip.org", service(PEER))).contains("which tree node"));
        assert!(malformed(&payload("sip:alice@p2psip.org", Body::User { contacts: vec![] })).contains("contacts"));
        let backwards = Payload { expires: UnixMs(1_000_000), ..payload("sip:alice@p2psip.org", user()) };
        assert!(malformed(&backwards).contains("before it was written"));
    }

    #[test]
    fn a_provider_is_listed_only_where_its_position_lies() {
        let own = TreeNode::containing(3, &PEER.position());
        for index in 0..8 {
            let payload = payload(&format!("turn:p2psip.org#3/{index}"), Body::Removed);
            let offer = Payload { body: service(PEER), ..payload.clone() };
            for payload in [payload, offer] {
                match payload.validate(&PEER) {
                    Ok(()) => assert_eq!(index, own.index()),
                    Err(Refusal::OutsideRange { node }) => {
                        assert_ne!(index, own.index());
                        assert_eq!(node.node().index(), index);
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_later_versions_fields_are_ignored_and_doubled_ones_refused() {
        let mut octets = all()[2].encode().unwrap();
        octets[0] = 0xa5;
        octets.extend([0x61, b'x', 0x01]);
        assert_eq!(Payload::decode(&octets).unwrap(), all()[2]);
        let doubled = octets.len() - 3;
        octets.truncate(doubled);
        octets.extend([0x63, b's', b'e', b'q', 0x01]);
        assert!(Payload::decode(&octets).unwrap_err().to_string().contains("duplicate"));
    }

    #[test]
    fn what_is_nested_too_deeply_or_followed_by_something_is_malformed() {
        let deep = [vec![0x81; 4000], vec![0x00]].concat();
        assert_eq!(Payload::decode(&deep).unwrap_err().code(), "malformed");
        let nested = [&[0xa1, 0x61, b'x'][..], &deep].concat();
        assert!(Payload::decode(&nested).unwrap_err().to_string().contains("nested too deeply"));
        let followed = [all()[0].encode().unwrap(), vec![0]].concat();
        assert!(Payload::decode(&followed).unwrap_err().to_string().contains("octets follow"));
        assert!(Payload::decode(&[]).unwrap_err().to_string().contains("cut short"));
        // An array that claims 2^62 items.
        assert!(Payload::decode(&[0xa1, 0x61, b'x', 0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Payload::decode(&octets);
        }

        #[test]
        fn decoding_a_damaged_payload_never_panics(which in 0usize..4, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut octets = all()[which].encode().unwrap();
            let at = at.index(octets.len());
            octets[at] = byte;
            if let Ok(payload) = Payload::decode(&octets) {
                let _ = payload.validate(&PEER);
            }
        }
    }
}
