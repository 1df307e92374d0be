//! Who is turned away: those whose wait would be in vain, and those for whom there is no room.

use forebay_core::Reason;

use super::class::ClassState;
use super::effects::Effects;
use super::flows::account;
use super::scheduler::{Ask, Scheduler};
use super::slab::Ticket;
use super::tick::Tick;
use crate::config::OnFull;

/// More urgent load than this share of the seats counts as this much: a prediction is never endless.
const FULL: f64 = 0.95;

impl<T, P> Scheduler<T, P> {
    /// How long a newcomer of this class will wait, in nanoseconds, for what is known: the seats wanted ahead of it, over
    /// the seats that come free, less what more urgent newcomers will take. `None` before enough has been measured.
    ///
    /// O(classes).
    pub(super) fn predicted_wait(&self, class: usize, now: Tick, own: usize) -> Option<f64> {
        if !self.pace.warm() {
            return None;
        }
        let state = &self.classes[class];
        let hold = self.mean_hold();
        let urgent = &self.classes[..class];
        let busy = |classes: &[ClassState]| {
            let busy: f64 = classes.iter().map(|c| c.arrivals.per_second() * c.hold.or(hold) / 1e9).sum();
            (busy / self.seats().max(1) as f64).min(FULL)
        };
        let rho = busy(urgent);
        let before: usize = urgent.iter().map(|c| c.counts.queued).sum();
        let ahead = before + if state.lifo(now, &self.slab) { 0 } else { own };
        let in_order = ahead as f64 * hold / (state.usable.max(1) as f64 * (1.0 - rho));
        // Its reserved share is what it gets of what the first class leaves, while it may be owed.
        let first = if class == 0 { FULL } else { busy(&self.classes[..1]) };
        let by_share = own as f64 * hold / (state.share * (1.0 - first));
        let shared = state.share > 0.0 && first < FULL && self.is_behind(class);
        Some(if shared { in_order.min(by_share) } else { in_order })
    }

    /// How long a newcomer of each class will wait, as far as is known: for who chooses a class by it.
    pub(crate) fn predicted_waits(&self, now: Tick) -> impl Iterator<Item = Option<f64>> + '_ {
        let queued = self.classes.iter().map(|class| class.counts.queued);
        queued.enumerate().map(move |(class, own)| self.predicted_wait(class, now, own))
    }

    /// Nanoseconds until those who wait in this class and the more urgent ones will have been served: for `Retry-After`.
    pub(crate) fn drain_time(&self, class: usize) -> f64 {
        let ahead: usize = self.classes[..=class].iter().map(|c| c.counts.queued).sum();
        ahead as f64 * self.mean_hold() / self.classes[class].usable.max(1) as f64
    }

    /// Why a newcomer need not even be put in its queue: no seat is free for anybody, its queue is full, and it would be
    /// the last. [`make_room`](Self::make_room) would say the same, but it is in overload that refusals must be cheap.
    ///
    /// O(classes + flows in use).
    pub(super) fn turns_away(&mut self, now: Tick, ask: &Ask, flow: u8) -> Option<Reason> {
        let state = &self.classes[ask.class];
        let settled = self.in_flight >= self.limit && !self.flushing && !self.trimming;
        if !settled || state.flows.is_empty() || state.counts.waiting < state.length {
            return None;
        }
        if self.on_full == OnFull::EvictLower && (state.lifo(now, &self.slab) || !state.flows.is_longest_with(flow)) {
            return None;
        }
        let left = state.latest_start(now, ask.deadline, true).since(now);
        self.classes[ask.class].flows.come(account(ask.tenant));
        if self.is_in_vain(now, ask.class, left, self.classes[ask.class].counts.queued) {
            return Some(Reason::DeadlineInfeasible);
        }
        Some(if self.limit == 0 { Reason::NoCapacity } else { Reason::QueueFull })
    }

    /// Whether a newcomer will wait for more than twice the time that is `left`, as far as is known.
    fn is_in_vain(&mut self, now: Tick, class: usize, left: u64, own: usize) -> bool {
        let wait = self.predicted_wait(class, now, own);
        wait.is_some_and(|wait| wait > 2.0 * left as f64) && !self.classes[class].probe(now)
    }

    /// Makes room for a newcomer that must wait, or says why there is none.
    pub(super) fn make_room(&mut self, now: Tick, ticket: Ticket, effects: &mut Effects<T>) -> Result<(), Reason> {
        let entry = self.slab.at(ticket.index);
        let (class, arrived, deadline, cost) = (usize::from(entry.class), entry.since, entry.deadline, entry.cost);
        let (flow, state) = (entry.flow, &self.classes[class]);
        let left = state.latest_start(arrived, deadline, true).since(now);
        let own = state.counts.queued - cost as usize;
        if self.is_in_vain(now, class, left, own) {
            return Err(Reason::DeadlineInfeasible);
        }
        let full = if self.limit == 0 { Reason::NoCapacity } else { Reason::QueueFull };
        if self.classes[class].counts.waiting > self.classes[class].length {
            self.evict(now, class, flow, ticket, full, effects)?;
        }
        if self.waiting > self.max_queued {
            let below = (class + 1..self.classes.len()).rev().find(|&c| !self.classes[c].flows.is_empty());
            self.evict(now, below.unwrap_or(class), flow, ticket, full, effects)?;
        }
        Ok(())
    }

    /// Turns away whoever of `class` would be served last; an error if that is the newcomer.
    fn evict(
        &mut self,
        now: Tick,
        class: usize,
        flow: u8,
        newcomer: Ticket,
        full: Reason,
        effects: &mut Effects<T>,
    ) -> Result<(), Reason> {
        let state = &self.classes[class];
        let last = state.flows.last(state.lifo(now, &self.slab), Some(flow));
        match last {
            // Without room for the effect the newcomer goes; the next one finds it.
            Some(last) if self.on_full == OnFull::EvictLower && last != newcomer.index && effects.room() => {
                self.refuse(last, Reason::Evicted, effects);
                Ok(())
            }
            _ => Err(full),
        }
    }

    /// Refuses the oldest of a flow while their time is up, so that they take no room from a newcomer.
    pub(super) fn purge(&mut self, now: Tick, class: usize, flow: u8, effects: &mut Effects<T>) {
        while effects.room()
            && let Some(index) = self.classes[class].flows.oldest(flow)
        {
            let entry = self.slab.at(index);
            let reason = match (entry.deadline <= now, entry.since.plus(self.classes[class].patience) <= now) {
                (true, _) => Reason::DeadlineExceeded,
                (false, true) => Reason::QueueTimeout,
                (false, false) => return,
            };
            self.refuse(index, reason, effects);
        }
    }

    /// Empties the queues (a drain), or cuts those that a live change has made too short.
    pub(super) fn cut(&mut self, now: Tick, effects: &mut Effects<T>) {
        for class in 0..self.classes.len() {
            let (reason, most) =
                if self.flushing { (Reason::ShuttingDown, 0) } else { (Reason::Evicted, self.classes[class].length) };
            while self.classes[class].counts.waiting > most {
                let state = &self.classes[class];
                let Some(last) = state.flows.last(state.lifo(now, &self.slab), None) else { break };
                if !effects.room() {
                    effects.set_more();
                    return;
                }
                self.refuse(last, reason, effects);
            }
        }
        (self.flushing, self.trimming) = (false, false);
    }
}
