use std::time::Duration;

use super::estimate::{Average, Rate};
use super::flows::Flows;
use super::slab::{List, Slab};
use super::tick::{Tick, nanos};
use crate::config::ClassConfig;

/// Gauges and counters of a class. `offered` is always the sum of `admitted`, `refused`, `cancelled` and what waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClassCounts {
    /// Waiters now.
    pub(crate) waiting: usize,
    /// Seats that they want.
    pub(crate) queued: usize,
    /// Seats held now.
    pub(crate) in_flight: usize,
    pub(crate) offered: u64,
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) cancelled: u64,
    /// Ended well.
    pub(crate) done: u64,
    /// Held for too long: their seat was taken away.
    pub(crate) overdue: u64,
}

/// How often one may pass that would be refused by an estimate alone, so that the estimate is made anew.
const PROBE: Duration = Duration::from_millis(100);

/// The weight of one request in the share that was served.
const RECENT: f64 = 1.0 / 128.0;
/// A class may have this much more served than a more urgent one before its reserved share is withheld.
const MARGIN: f64 = 0.01;

/// The credit at the start: owed nothing in the instant in which a crowd arrives, but as soon as time has passed.
pub(super) const BEGIN: f64 = -1.0;

/// A class: its rule, its queue, what it holds and what is known of it.
#[derive(Debug)]
pub(super) struct ClassState {
    pub(super) rule: ClassConfig,
    /// What the rule means at the limit as it is: the most seats of its own, the most of all together, its share.
    pub(super) cap: usize,
    pub(super) ceiling: usize,
    pub(super) share: f64,
    /// The most seats that it may fill, of those that the backends have a place for.
    pub(super) usable: usize,
    /// At the pace as it was looked at last: how long a request waits at most, in nanoseconds; after how many with waiters
    /// the newest goes first; how many may wait.
    pub(super) patience: u64,
    lifo_after: Option<u64>,
    pub(super) length: usize,
    /// The share of its requests that were served of late, each weighing 1/128: cancelled ones do not count.
    pub(super) served: f64,
    pub(super) flows: Flows,
    pub(super) counts: ClassCounts,
    /// Seats with a `max_hold`, by the end of their time.
    pub(super) held: List,
    /// Seat-nanoseconds that it is owed of its reserved share; below 0, what it has had too much.
    pub(super) credit: f64,
    /// The cost of the last grant out of the reserved share.
    pub(super) owed_cost: usize,
    pub(super) hold: Average,
    pub(super) head: Average,
    pub(super) arrivals: Rate,
    /// Since when its queue has not been empty.
    pub(super) busy_since: Tick,
    probe: Tick,
}

impl ClassState {
    pub(super) fn new(rule: ClassConfig, expected_hold: u64, expected_head: u64) -> Self {
        Self {
            rule,
            cap: 0,
            ceiling: 0,
            share: 0.0,
            usable: 0,
            patience: 0,
            lifo_after: None,
            length: 0,
            served: 1.0,
            flows: Flows::new(),
            counts: ClassCounts::default(),
            held: List::EMPTY,
            credit: BEGIN,
            owed_cost: 1,
            hold: Average::expecting(expected_hold),
            head: Average::expecting(expected_head),
            arrivals: Rate::ZERO,
            busy_since: Tick::ZERO,
            probe: Tick::ZERO,
        }
    }

    /// Whether the newest goes first now: the queue has not been empty for long, and the oldest has waited for half as
    /// long. The second is ours: a queue that is never empty, but short, is served in time as it is.
    pub(super) fn lifo<T, P>(&self, now: Tick, slab: &Slab<T, P>) -> bool {
        let Some(after) = self.lifo_after.filter(|&after| now >= self.busy_since.plus(after)) else { return false };
        self.flows.oldest_since(slab).is_some_and(|oldest| now > oldest.plus(after / 2))
    }

    /// After this one need not be started. The time to the head counts only where another could use the seat.
    pub(super) fn latest_start(&self, arrived: Tick, deadline: Tick, crowded: bool) -> Tick {
        let head = if crowded { self.head.most() as u64 } else { 0 };
        arrived.plus(self.patience).min(deadline.minus(head))
    }

    /// Whether one may pass although an estimate says no: one in 100 ms, unless others are measured meanwhile.
    pub(super) fn probe(&mut self, now: Tick) -> bool {
        let due = now >= self.probe;
        if due {
            self.measured(now);
        }
        due
    }

    pub(super) fn measured(&mut self, now: Tick) {
        self.probe = now.after(PROBE);
    }

    /// Works out what its rule means at a limit: after each change of either.
    pub(super) fn derive(&mut self, limit: usize, seats: usize) {
        self.cap = self.rule.cap(limit);
        self.ceiling = self.rule.ceiling(limit).min(limit);
        self.usable = self.rule.usable(limit, seats);
        self.share = self.rule.reserved * seats as f64;
    }

    /// Works out how long its requests wait, when a seat is held for `hold` nanoseconds and one comes free in `every`.
    pub(super) fn look(&mut self, hold: f64, every: f64) {
        let patience = self.rule.patience(every);
        self.patience = patience as u64;
        self.lifo_after = self.rule.lifo_after(patience, every).map(|after| after as u64);
        self.length = self.rule.queue_length(self.usable, patience, hold);
    }

    /// `requests` of it were admitted.
    pub(super) fn admitted(&mut self, requests: u64) {
        if requests == 0 {
            return;
        }
        let weight = (1.0 - RECENT).powi(i32::try_from(requests).unwrap_or(i32::MAX));
        self.served = 1.0 - (1.0 - self.served) * weight;
    }

    /// One of its requests was turned away.
    pub(super) fn refused(&mut self) {
        self.counts.refused += 1;
        self.served -= self.served * RECENT;
    }

    /// The seats that it may hold by its reserved share: whole ones.
    fn share_seats(&self) -> usize {
        (self.share.ceil() as usize).max(self.owed_cost)
    }

    /// Accounts for `nanos` during which somebody waited.
    pub(super) fn accrue(&mut self, nanos: u64) {
        let share = self.share;
        if share <= 0.0 {
            return;
        }
        let held = self.counts.in_flight.min(self.share_seats()) as f64;
        let most = share * 1e9;
        // No deeper than what its seats take until they are free again, or a long idle night would have to be paid back.
        let least = -(self.share_seats() as f64 * self.hold.or(0.0).max(1e9));
        self.credit = (self.credit + (share - held) * nanos as f64).clamp(least, most);
    }

    /// Whether as much of this more urgent class is served as of `other`, or none of it waits: else nothing is owed to
    /// `other`.
    pub(super) fn is_ahead_of(&self, other: &Self) -> bool {
        self.flows.is_empty() || other.served <= self.served + MARGIN
    }

    /// Whether its reserved share is due now.
    pub(super) fn owed(&self) -> bool {
        self.rule.reserved > 0.0
            && !self.flows.is_empty()
            && self.credit >= 0.0
            && self.counts.in_flight < self.share_seats()
    }

    pub(super) fn max_hold(&self) -> Option<u64> {
        self.rule.max_hold.map(nanos)
    }
}
