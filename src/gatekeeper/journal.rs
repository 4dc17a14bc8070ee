//! What a gatekeeper decided lately, and why. Pure.

use std::collections::{BTreeMap, VecDeque};

use crate::client::gatekeeper::{Decision, GateVerdict};

/// Decisions that are remembered.
const MAX_DECISIONS: usize = 1_000;
/// Hosts of which the last decision is remembered.
const MAX_HOSTS: usize = 10_000;

/// The last decisions.
#[derive(Debug, Default)]
pub struct Journal {
    decisions: VecDeque<Decision>,
    refused: BTreeMap<String, Decision>,
}

impl Journal {
    /// Writes a decision down. Renewals, which are many and say little, only settle what was refused before.
    pub fn note(&mut self, decision: Decision) {
        match decision.verdict {
            GateVerdict::Refused => {
                if self.refused.len() >= MAX_HOSTS && !self.refused.contains_key(&decision.host) {
                    let oldest =
                        self.refused.iter().min_by_key(|(_, refused)| refused.at_ms).map(|(host, _)| host.clone());
                    oldest.map(|host| self.refused.remove(&host));
                }
                self.refused.insert(decision.host.clone(), decision.clone());
            }
            _ => _ = self.refused.remove(&decision.host),
        }
        if decision.verdict != GateVerdict::Renewed {
            self.decisions.push_front(decision);
            self.decisions.truncate(MAX_DECISIONS);
        }
    }

    /// The decisions, the newest first.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter()
    }

    /// Those who were refused and have neither been entered nor left since, the newest first.
    pub fn refused(&self) -> Vec<Decision> {
        let mut refused: Vec<Decision> = self.refused.values().cloned().collect();
        refused.sort_by_key(|decision| std::cmp::Reverse(decision.at_ms));
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;

    fn decision(at: u64, host: &str, verdict: GateVerdict) -> Decision {
        let (host, why) = (host.to_owned(), String::new());
        Decision { at_ms: UnixMs(at), verdict, peer: None, host, addresses: vec![], why }
    }

    #[test]
    fn who_was_refused_waits_until_it_enters() {
        let mut journal = Journal::default();
        journal.note(decision(1, "a", GateVerdict::Refused));
        journal.note(decision(2, "b", GateVerdict::Refused));
        journal.note(decision(3, "a", GateVerdict::Refused));
        let waiting = |journal: &Journal| journal.refused().into_iter().map(|d| d.host).collect::<Vec<_>>();
        assert_eq!(waiting(&journal), ["a", "b"]);
        journal.note(decision(4, "a", GateVerdict::Entered));
        journal.note(decision(5, "b", GateVerdict::Renewed));
        assert_eq!(waiting(&journal), Vec::<String>::new());
        assert_eq!(journal.decisions().map(|d| d.at_ms.0).collect::<Vec<_>>(), [4, 3, 2, 1]);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let mut journal = Journal::default();
        for n in 0..12_000_u64 {
            journal.note(decision(n, &n.to_string(), GateVerdict::Refused));
        }
        assert_eq!((journal.decisions().count(), journal.refused().len()), (MAX_DECISIONS, MAX_HOSTS));
        assert_eq!(journal.refused()[MAX_HOSTS - 1].at_ms, UnixMs(2_000), "the oldest went");
    }
}
