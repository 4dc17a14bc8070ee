//! Which transaction a message belongs to (RFC 3261 §17.1.3 and §17.2.3).
//!
//! A key is 128 bits. That of a client transaction is the random part of its branch, which we made ourselves. That of a
//! server transaction is a keyed hash (SipHash) of what the RFC compares; its secret never leaves the process, so
//! nobody can make two transactions meet, and by chance it happens once in 2^128. Thus equal keys are equal
//! transactions, and none of the compared text has to be kept.

use std::hash::{BuildHasher as _, Hasher, RandomState};

use crate::sip::{Message, Method, header::Via, uri::Host};

/// Names a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u64; 2]);

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// Hands a [`Key`] to the hash map as it is: it is random already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write(&mut self, _: &[u8]) {}
}

/// What is hashed, so that hashes of different things never meet.
#[derive(Debug, Clone, Copy)]
enum Domain {
    Branch,
    Rfc3261,
    Rfc2543,
    Merged,
    Tag,
    Method,
}

/// Makes keys. Holds the secret, and a buffer so that no message needs one.
#[derive(Debug)]
pub(super) struct Keys {
    secret: RandomState,
    buffer: Vec<u8>,
    branches: u64,
}

impl Keys {
    pub fn new() -> Self {
        Self { secret: RandomState::new(), buffer: Vec::with_capacity(256), branches: 0 }
    }

    /// 128 bits that were never given before and that nobody can guess.
    pub fn random(&mut self) -> [u64; 2] {
        self.branches = self.branches.wrapping_add(1);
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.branches.to_le_bytes());
        self.hash(Domain::Branch)
    }

    /// Of a client transaction, from the random part of its branch and the method in CSeq.
    pub fn client(&mut self, random: [u64; 2], method: Method<'_>) -> Key {
        // 96 bits are the branch's; CANCEL has the branch of its INVITE, so the method makes the difference.
        let code = match method {
            Method::Invite => 0,
            Method::Cancel => 1,
            other => {
                self.begin();
                self.put(other.as_str().as_bytes());
                self.hash(Domain::Method)[0] | 2
            }
        };
        Key([random[0], (random[1] & 0xffff_ffff) << 32 | code & 0xffff_ffff])
    }

    /// Of the server transaction of a request, as if its method were `method`: an ACK and a CANCEL have that of their
    /// INVITE too. `to_tag` counts for a request without the magic cookie only.
    pub fn server(&mut self, message: &Message, via: &Via<'_>, method: Method<'_>, to_tag: Option<&str>) -> Key {
        self.begin();
        let domain = match via.unique_branch() {
            Some(branch) => {
                // Tokens and host names are compared without case (§7.3.1).
                self.put_folded(branch);
                match via.host {
                    Host::Name(name) => self.put_folded(name.strip_suffix('.').unwrap_or(name)),
                    Host::V4(address) => self.put(&address.to_ipv6_mapped().octets()),
                    Host::V6(address) => self.put(&address.octets()),
                }
                let name = u8::from(via.host.name().is_some());
                self.put(&[name]);
                self.put(&via.port.map_or([0, 0, 0], |port| [1, (port >> 8) as u8, port as u8]));
                Domain::Rfc3261
            }
            None => {
                self.put(message.request_uri().unwrap_or_default().as_bytes());
                self.put_folded(to_tag.unwrap_or_default());
                self.put_dialog(message);
                self.put(via.as_bytes());
                Domain::Rfc2543
            }
        };
        self.put(method.as_str().as_bytes());
        Key(self.hash(domain))
    }

    /// What two requests have in common that are one, merged from two paths; `None` of a request in a dialog
    /// (RFC 3261 §8.2.2.2).
    pub fn merged(&mut self, message: &Message) -> Option<Key> {
        if message.to().ok()?.tag().is_some() {
            return None;
        }
        self.begin();
        self.put_dialog(message);
        self.put(message.method().as_str().as_bytes());
        Some(Key(self.hash(Domain::Merged)))
    }

    /// A To tag, to be compared.
    pub fn tag(&mut self, tag: Option<&str>) -> u64 {
        self.begin();
        self.put_folded(tag.unwrap_or_default());
        self.hash(Domain::Tag)[0]
    }

    /// From tag, Call-ID and the number of CSeq. A header field that is missing or malformed counts as it is written.
    fn put_dialog(&mut self, message: &Message) {
        use crate::sip::header::Name;

        match message.from() {
            Ok(from) => self.put_folded(from.tag().unwrap_or_default()),
            Err(_) => self.put(message.header(Name::From).unwrap_or_default()),
        }
        self.put(message.header(Name::CallId).unwrap_or_default());
        match message.cseq() {
            Ok(cseq) => self.put(&cseq.number.to_le_bytes()),
            Err(_) => self.put(message.header(Name::CSeq).unwrap_or_default()),
        }
    }

    fn put_folded(&mut self, part: &str) {
        self.put(part.as_bytes());
        let start = self.buffer.len() - part.len();
        self.buffer.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
    }

    fn begin(&mut self) {
        self.buffer.clear();
    }

    /// Adds a part after its length, so that no two lists of parts look alike.
    fn put(&mut self, part: &[u8]) {
        self.buffer.extend_from_slice(&(part.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(part);
    }

    /// Two 64-bit hashes of the buffer under one secret, kept apart by what they are told first.
    fn hash(&self, domain: Domain) -> [u64; 2] {
        [0, 1].map(|half| {
            let mut hasher = self.secret.build_hasher();
            hasher.write_u8((domain as u8) << 1 | half);
            hasher.write(&self.buffer);
            hasher.finish()
        })
    }
}
