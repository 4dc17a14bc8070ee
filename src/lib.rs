//! P2PSIP overlays that interwork with conventional SIP networks, after draft-marocco-p2psip-interwork-01.
//!
//! In a P2PSIP overlay the members themselves store where its users are: signed records in a distributed hash table,
//! bound to URIs like `sip:alice@p2psip.org`. This library is such an overlay (on libp2p), the SIP proxy that joins it to
//! conventional SIP networks, and the publication of such proxies in the DNS; the tools `p2p-join`, `p2p-register`,
//! `p2p-lookup`, `p2p-invite` and the others are thin shells over it. Relay agent peers and media are not there yet.
//!
//! # The map of the house
//!
//! Modules import one way only: from the first of this list to the last. So they can be read from either end.
//!
//! | module | what it is for | begin with |
//! |---|---|---|
//! | [`cli`] | the tools: arguments, configuration, output, exit codes | [`cli::TOOLS`] |
//! | [`lab`] | an overlay, two SIP domains and their DNS on loopback, in one process | [`lab::World`] |
//! | [`ops`] | the use cases: join, register, look up, discover, call, publish, enrol | [`ops::Access`] |
//! | [`member`] | a running member: the swarm, the store, the socket and the tasks between them | [`member::Member`] |
//! | [`proxy`] | the proxy peer's decisions: routing, forking, the engine | [`proxy::engine::Engine`] |
//! | [`gatekeeper`] | who may enter the DNS: policy, proofs, quotas, leases | [`gatekeeper::judge`] |
//! | [`ua`] | a user agent that places and answers test calls | [`ua::Agent`] |
//! | [`overlay`] | whom to ask, what to store, over libp2p, unix sockets or in memory | [`overlay::Overlay`] |
//! | [`dns`] | finding overlays and SIP servers (RFC 3263), publishing proxy peers, a small name server | [`dns::Resolver`] |
//! | [`sip`] | SIP messages, transactions, transports | [`sip::Message`] |
//! | [`media`] | session descriptions | [`media::sdp`] |
//! | [`client`] | the client protocol: frames, and a type for each request | [`client::Call`] |
//! | [`record`] | signed records, the check that everybody makes of them, and how they merge | [`record::Trust`] |
//! | [`identity`] | keys, certificates, the overlay's CA and descriptor, the home | [`identity::Descriptor`] |
//! | [`name`] | overlay identifiers, AORs, service URIs, peer ids, positions | [`name::ResourceName`] |
//! | [`clock`], [`kind`] | the time, and the five ways to fail | [`kind::Kind`] |
//!
//! `ARCHITECTURE.md` in the repository tells how they work together, and why they are as they are.
//!
//! # An overlay in a few lines
//!
//! [`lab::World`] starts members that are exactly what `p2p-join` runs. Here a user registers at one of them, and
//! another one looks the user up: the storers in between verify what they store, and the reader verifies it again.
//!
//! ```
//! use std::time::Duration;
//!
//! use p2psip::{
//!     client::{Put, Verdict},
//!     clock::UnixMs,
//!     identity::SecretKey,
//!     lab::{LabOptions, World},
//!     name::{Aor, ResourceName},
//!     record::{Body, Contact, MAX_Q, Payload, seal},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let world = World::start(LabOptions::new(LabOptions::MIN_MEMBERS)?, &mut |_joined| {}).await?;
//! let (near, far) = (&world.members()[0], &world.members()[LabOptions::MIN_MEMBERS - 1]);
//!
//! // Carol's device: a key, and a certificate of the overlay's CA that names her.
//! let carol = ResourceName::from(Aor::parse("sip:carol@p2psip.org")?);
//! let key = SecretKey::generate()?;
//! let certificate = world.enrol(&key, &[carol.clone()])?;
//!
//! // Her record, signed, handed to one member.
//! let now = UnixMs::now();
//! let contacts = vec![Contact::Sip { uri: "sip:carol@192.0.2.7:5060".to_owned(), q: MAX_Q }];
//! let payload = Payload {
//!     name: carol.clone(),
//!     sequence: now.0,
//!     expires: now.after(Duration::from_secs(600)),
//!     body: Body::User { contacts: contacts.clone() },
//! };
//! let envelope = seal(&payload, &key, certificate.as_ref())?;
//! let stored = near.put(Put { envelope: envelope.into(), timeout_ms: 5_000 }).await;
//! assert!(stored.stored.len() > 1, "{stored:?}");
//!
//! // Another member finds it.
//! let found = far.lookup(carol, Duration::from_secs(5)).await;
//! assert_eq!(found.reply.verdict, Verdict::Found);
//! assert_eq!(found.records[0].body(), &Body::User { contacts });
//! world.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Conventions
//!
//! - **No I/O in protocol code.** Octets, events and the time are arguments. [`overlay::walk::Walk`],
//!   [`overlay::lookup::LookupMachine`] and [`overlay::placement::PlacementMachine`] are polled: they say whom to ask,
//!   how long to wait, or that they are done. So the same code runs over sockets and in [`overlay::memory`].
//! - **Nobody is believed.** Only [`record::Trust::verify`] makes a [`record::VerifiedRecord`], and nothing else is
//!   stored, merged or shown.
//! - **Errors have a kind.** Each module has one error type; its `kind()` is a [`kind::Kind`], which is the exit code
//!   of the tools. The message says in one line what failed, where, why, and what to do.
//! - **Everything has a limit**, and nothing panics on any input.
//! - **Times** are [`clock::UnixMs`] on the wire and on disk, [`std::time::Instant`] within a process.

pub mod bounded;
pub mod cli;
pub mod client;
pub mod clock;
pub mod dns;
pub mod gatekeeper;
pub mod identity;
pub mod kind;
pub mod lab;
pub mod media;
pub mod member;
pub mod name;
pub mod ops;
pub mod overlay;
pub mod proxy;
pub mod record;
pub mod sip;
pub mod ua;
