//! Listening in: what several parties of one process send to each other, for one picture of a call from end to end.
//!
//! A capture ([`super::capture`]) has the addresses that one party sees, which do not tell who is who: a connection
//! comes from any port, a peer has no address at all. Here each party notes for itself, and a message that one has sent
//! and another has received is known by its octets, which its Vias make unique.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::transport::Protocol;

/// Notes that are kept; later ones are lost.
const MAX_NOTES: usize = 20_000;

/// What all parties have noted, in the order in which it happened.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Note>>>);

/// Where one party notes what it does.
#[derive(Debug, Clone)]
pub struct Tap {
    recorder: Recorder,
    party: Arc<str>,
}

/// Something that one party has noted.
#[derive(Debug, Clone)]
struct Note {
    at: Instant,
    party: Arc<str>,
    what: Noted,
}

#[derive(Debug, Clone)]
enum Noted {
    Sent(Protocol, Bytes),
    Received(Bytes),
    Asked(Inquiry),
}

/// A message that went from one party to another.
#[derive(Debug, Clone)]
pub struct Heard {
    /// When it was sent.
    pub at: Instant,
    /// Who sent it.
    pub from: Arc<str>,
    /// Who received it.
    pub to: Arc<str>,
    /// What carried it.
    pub protocol: Protocol,
    /// The message.
    pub bytes: Bytes,
}

/// A question about where somebody is, and its answer.
#[derive(Debug, Clone)]
pub struct Inquiry {
    /// When the answer was there.
    pub at: Instant,
    /// Who asked.
    pub by: Arc<str>,
    /// Who was asked: `overlay` or `DNS`.
    pub whom: &'static str,
    /// For what.
    pub question: String,
    /// What came back.
    pub answer: String,
    /// How long that took.
    pub took: Duration,
}

impl Recorder {
    /// Where a party of this name notes what it does. One party may have several taps.
    pub fn tap(&self, party: &str) -> Tap {
        Tap { recorder: self.clone(), party: party.into() }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.notes().clear();
    }

    /// The messages that have arrived, in the order in which they were sent, and the questions.
    pub fn heard(&self) -> (Vec<Heard>, Vec<Inquiry>) {
        let notes = self.notes();
        let mut under_way: HashMap<&Bytes, VecDeque<(&Note, Protocol)>> = HashMap::new();
        let (mut messages, mut inquiries) = (Vec::new(), Vec::new());
        for note in notes.iter() {
            match &note.what {
                Noted::Sent(protocol, bytes) => under_way.entry(bytes).or_default().push_back((note, *protocol)),
                Noted::Received(bytes) => {
                    if let Some((sent, protocol)) = under_way.get_mut(bytes).and_then(VecDeque::pop_front) {
                        let (from, to) = (sent.party.clone(), note.party.clone());
                        messages.push(Heard { at: sent.at, from, to, protocol, bytes: bytes.clone() });
                    }
                }
                Noted::Asked(inquiry) => inquiries.push(inquiry.clone()),
            }
        }
        messages.sort_by_key(|message| message.at);
        (messages, inquiries)
    }

    fn note(&self, party: &Arc<str>, what: Noted) {
        let mut notes = self.notes();
        if notes.len() < MAX_NOTES {
            notes.push(Note { at: Instant::now(), party: party.clone(), what });
        }
    }

    /// A holder that panics leaves a whole list: it only ever grows by one.
    fn notes(&self) -> MutexGuard<'_, Vec<Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap {
    /// A message is about to be sent.
    pub fn sent(&self, protocol: Protocol, bytes: &Bytes) {
        self.recorder.note(&self.party, Noted::Sent(protocol, bytes.clone()));
    }

    /// A message has come.
    pub fn received(&self, bytes: &Bytes) {
        self.recorder.note(&self.party, Noted::Received(bytes.clone()));
    }

    /// A question that was asked at `began` has its answer.
    pub fn asked(&self, whom: &'static str, question: impl Into<String>, answer: impl Into<String>, began: Instant) {
        let (by, at, took) = (self.party.clone(), Instant::now(), began.elapsed());
        let inquiry = Inquiry { at, by, whom, question: question.into(), answer: answer.into(), took };
        self.recorder.note(&self.party, Noted::Asked(inquiry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_heard_once_it_has_arrived_and_each_copy_for_itself() {
        let recorder = Recorder::default();
        let (alice, bob) = (recorder.tap("alice"), recorder.tap("bob"));
        let (lost, invite, ok) = (Bytes::from("lost"), Bytes::from("INVITE"), Bytes::from("200"));
        alice.sent(Protocol::Udp, &lost);
        alice.sent(Protocol::Udp, &invite);
        alice.sent(Protocol::Udp, &invite);
        bob.sent(Protocol::Tcp, &ok);
        alice.received(&ok);
        bob.received(&invite);
        bob.received(&Bytes::from("nobody's"));
        bob.received(&invite);
        bob.asked("DNS", "example.com", "udp 192.0.2.1:5060", Instant::now());
        let (messages, inquiries) = recorder.heard();
        let told = messages.iter().map(|heard| (&*heard.from, &*heard.to, &*heard.bytes)).collect::<Vec<_>>();
        assert_eq!(told, [("alice", "bob", &*invite), ("alice", "bob", &*invite), ("bob", "alice", &*ok)]);
        assert_eq!((&*inquiries[0].by, inquiries[0].whom), ("bob", "DNS"));
        recorder.clear();
        assert!(recorder.heard().0.is_empty());
    }
}
