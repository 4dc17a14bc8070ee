//! The table of transactions: slots, found by key or by id, each with at most one timer.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    event::{Id, MAX_SLOTS},
    key::{Key, KeyHasher},
    machine::{Change, Kind, State},
    timers::Timer,
    wheel::{Tick, Wheel},
};
use crate::sip::{Message, transport::Hop};

/// The wheel's resolution. Fine enough for T1, coarse enough that a busy layer wakes a hundred times a second at most.
const TICK: Duration = Duration::from_millis(10);

/// One transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    pub kind: Kind,
    pub state: State,
    pub key: Key,
    /// Where it sends to.
    pub hop: Hop,
    /// What it sends again: the request or its ACK, or the last response.
    pub packet: Bytes,
    /// What is left to do for the TU.
    pub extra: Extra,
    resend: Option<Alarm>,
    life: Option<Alarm>,
    deadline: Option<Tick>,
    /// What `resend` was last set to, in milliseconds.
    interval: u32,
}

/// What only one side has.
#[derive(Debug)]
pub(super) enum Extra {
    Client {
        /// Whether the TU wants the INVITE cancelled.
        cancel: Cancel,
    },
    Server {
        /// The request, as long as we may have to say 100 Trying to it.
        request: Option<Box<Message>>,
        /// Under which key merged requests find this one.
        merged: Option<Box<Key>>,
        /// The To tag of the response, by which an ACK without the magic cookie is recognised.
        tag: Option<u64>,
    },
    /// The client transaction of a CANCEL, which the TU knows nothing of.
    Quiet,
}

/// How far the cancelling of an INVITE has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancel {
    No,
    /// To be sent when a provisional response arrives (RFC 3261 §9.1).
    Wanted,
    Sent,
}

#[derive(Debug, Clone, Copy)]
struct Alarm {
    timer: Timer,
    at: Tick,
}

/// What fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fired {
    Timer(Timer),
    Deadline,
}

impl Transaction {
    pub fn new(kind: Kind, key: Key, hop: Hop, packet: Bytes, extra: Extra) -> Self {
        Self {
            kind,
            state: State::Terminated,
            key,
            hop,
            packet,
            extra,
            resend: None,
            life: None,
            deadline: None,
            interval: 0,
        }
    }

    /// What the timer of retransmissions was last set to.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval.into())
    }

    /// Whether `timer` is running.
    pub fn waits_for(&self, timer: Timer) -> bool {
        [self.resend, self.life].into_iter().flatten().any(|alarm| alarm.timer == timer)
    }

    fn next(&self) -> Option<Tick> {
        let alarms = [self.resend, self.life].into_iter().flatten().map(|alarm| alarm.at);
        alarms.chain(self.deadline).min()
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    transaction: Option<Transaction>,
}

/// All transactions of a layer.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    keys: HashMap<Key, u32, BuildHasherDefault<KeyHasher>>,
    wheel: Wheel,
    epoch: Instant,
}

impl Table {
    pub fn new(now: Instant) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), keys: HashMap::default(), wheel: Wheel::new(), epoch: now }
    }

    /// How many transactions there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many timers run.
    #[cfg(test)]
    pub fn timers(&self) -> usize {
        self.wheel.len()
    }

    pub fn find(&self, key: Key) -> Option<Id> {
        let slot = *self.keys.get(&key)?;
        Some(Id { slot, generation: self.slots.get(slot as usize)?.generation })
    }

    pub fn get(&self, id: Id) -> Option<&Transaction> {
        self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?.transaction.as_ref()
    }

    pub fn get_mut(&mut self, id: Id) -> Option<&mut Transaction> {
        self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?.transaction.as_mut()
    }

    /// Adds a transaction under its key. `None` if the key is taken, or there are as many transactions as tokens can tell apart.
    pub fn insert(&mut self, transaction: Transaction) -> Option<Id> {
        if self.keys.contains_key(&transaction.key) {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok().filter(|slot| *slot < MAX_SLOTS)?;
                self.slots.push(Slot::default());
                slot
            }
        };
        self.keys.insert(transaction.key, slot);
        let place = self.slots.get_mut(slot as usize)?;
        place.transaction = Some(transaction);
        Some(Id { slot, generation: place.generation })
    }

    pub fn remove(&mut self, id: Id) -> Option<Transaction> {
        let place = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        let transaction = place.transaction.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.wheel.stop(id.slot);
        self.keys.remove(&transaction.key);
        self.free.push(id.slot);
        Some(transaction)
    }

    /// Changes both timers of a machine.
    pub fn set_timers(&mut self, id: Id, resend: Change, life: Change, now: Instant) {
        let (epoch, Some(transaction)) = (self.epoch, self.get_mut(id)) else { return };
        let before = transaction.next();
        if let Change::Start(_, interval) = resend {
            transaction.interval = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        }
        for (alarm, change) in [(&mut transaction.resend, resend), (&mut transaction.life, life)] {
            match change {
                Change::Keep => {}
                Change::Stop => *alarm = None,
                Change::Start(timer, after) => *alarm = Some(Alarm { timer, at: tick_after(epoch, now, after) }),
            }
        }
        self.schedule(id, before);
    }

    pub fn set_deadline(&mut self, id: Id, at: Option<Instant>) {
        let (epoch, Some(transaction)) = (self.epoch, self.get_mut(id)) else { return };
        let before = transaction.next();
        transaction.deadline = at.map(|at| tick_after(epoch, at, Duration::ZERO));
        self.schedule(id, before);
    }

    /// When to ask for what has fired.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ticks = self.wheel.next()?;
        self.epoch.checked_add(Duration::from_millis(ticks.saturating_mul(TICK.as_millis() as u64)))
    }

    /// Takes one timer that is due.
    pub fn expire(&mut self, now: Instant) -> Option<(Id, Fired)> {
        let tick = (now.saturating_duration_since(self.epoch).as_millis() / TICK.as_millis()) as Tick;
        loop {
            let slot = self.wheel.expire(tick)?;
            let Some(place) = self.slots.get_mut(slot as usize) else { continue };
            let id = Id { slot, generation: place.generation };
            let Some(transaction) = &mut place.transaction else { continue };
            // What ends a state goes first: nothing is sent again at its end.
            let fired = if let Some(alarm) = transaction.life.take_if(|alarm| alarm.at <= tick) {
                Some(Fired::Timer(alarm.timer))
            } else if let Some(alarm) = transaction.resend.take_if(|alarm| alarm.at <= tick) {
                Some(Fired::Timer(alarm.timer))
            } else {
                transaction.deadline.take_if(|at| *at <= tick).map(|_| Fired::Deadline)
            };
            self.schedule(id, None);
            if let Some(fired) = fired {
                return Some((id, fired));
            }
        }
    }

    /// Puts the earliest timer of a transaction into the wheel, where `before` is now.
    fn schedule(&mut self, id: Id, before: Option<Tick>) {
        let next = self.get(id).and_then(Transaction::next);
        match next {
            _ if next == before => {}
            Some(at) => self.wheel.set(id.slot, at),
            None => self.wheel.stop(id.slot),
        }
    }
}

/// The first tick that is not before `after` from `now`.
fn tick_after(epoch: Instant, now: Instant, after: Duration) -> Tick {
    let span = now.saturating_duration_since(epoch).saturating_add(after);
    Tick::try_from(span.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(Tick::MAX >> 1)
}
