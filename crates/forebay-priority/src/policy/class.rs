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
}

/// How often one may pass that would be refused by an estimate alone, so that the estimate is made anew.
const PROBE: Duration = Duration::from_millis(100);

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

    /// Whether the newest goes first now: the queue has not been empty for long, and the oldest has waited for half of
    /// its time. The second is ours: a queue that is never empty, but short, is served in time as it is.
    pub(super) fn lifo<T, P>(&self, now: Tick, slab: &Slab<T, P>) -> bool {
        let long = self.rule.lifo_after().is_some_and(|after| now >= self.busy_since.after(after));
        long && self.flows.oldest_since(slab).is_some_and(|oldest| now > oldest.after(self.rule.queue_timeout / 2))
    }

    /// After this one need not be started. The time to the head counts only where another could use the seat.
    pub(super) fn latest_start(&self, arrived: Tick, deadline: Tick, crowded: bool) -> Tick {
        let head = if crowded { self.head.most() as u64 } else { 0 };
        arrived.after(self.rule.queue_timeout).min(deadline.minus(head))
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
    pub(super) fn derive(&mut self, limit: usize) {
        self.cap = self.rule.cap(limit);
        self.ceiling = self.rule.ceiling(limit).min(limit);
        self.share = self.rule.reserved * limit as f64;
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

    /// Whether its reserved share is owed now.
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
