//! Who goes next.

use forebay_core::Reason;

use super::effects::Effects;
use super::scheduler::Scheduler;
use super::slab::State;
use super::tick::Tick;

impl<T, P> Scheduler<T, P> {
    /// Settles whatever may be settled now: grants, refusals of those who are too late, queues that are too long. Again
    /// while `effects.more()`. `reserve` takes a place at the backends for a class; `None`: it has none now.
    ///
    /// O(classes) for each waiter that is settled, of which there are 32 at most.
    pub(crate) fn settle(&mut self, now: Tick, reserve: &mut impl FnMut(usize) -> Option<P>, effects: &mut Effects<T>) {
        if self.flushing || self.trimming {
            self.cut(now, effects);
        }
        if self.waiting == 0 {
            return;
        }
        self.look(now);
        self.accrue(now);
        while self.waiting > 0 && self.in_flight < self.limit {
            if !effects.room() {
                effects.set_more();
                return;
            }
            let Some((index, place)) = self.next(now, reserve, effects) else { return };
            self.grant(now, index, place, effects);
        }
    }

    /// Accounts for the time until now; call it before anything changes. O(classes).
    pub(crate) fn advance(&mut self, now: Tick) {
        self.look(now);
        if self.waiting > 0 {
            self.accrue(now);
        }
    }

    fn accrue(&mut self, now: Tick) {
        let passed = now.since(self.accrued);
        if passed == 0 {
            return;
        }
        self.accrued = now;
        for class in &mut self.classes {
            class.accrue(passed);
            class.arrivals.advance(now);
        }
    }

    /// The first class; then the most urgent of the others that is owed of its reserved share; then the most urgent that may
    /// have a seat. A waiter that is too late is refused on the way.
    fn next(
        &mut self,
        now: Tick,
        reserve: &mut impl FnMut(usize) -> Option<P>,
        effects: &mut Effects<T>,
    ) -> Option<(u32, P)> {
        'again: loop {
            let others = 1..self.classes.len();
            let order = [(0, false)].into_iter();
            let order =
                order.chain(others.clone().map(|class| (class, true))).chain(others.map(|class| (class, false)));
            for (class, owed) in order {
                if owed && !self.is_owed(class) {
                    continue;
                }
                let Some(index) = self.front(now, class) else { continue };
                if let Some(reason) = self.too_late(now, index) {
                    if !effects.room() {
                        effects.set_more();
                        return None;
                    }
                    self.refuse(index, reason, effects);
                    continue 'again;
                }
                let cost = self.slab.at(index).cost;
                if !self.fits_class(class, cost) {
                    continue; // at its own cap, it blocks nobody
                }
                if !self.fits_house(class, cost) {
                    return None; // the free seats are kept until there are enough: else it would never start
                }
                if let Some(place) = reserve(class) {
                    if owed {
                        self.classes[class].owed_cost = cost as usize;
                    }
                    return Some((index, place));
                }
            }
            return None;
        }
    }

    /// The waiter of a class that goes first.
    fn front(&self, now: Tick, class: usize) -> Option<u32> {
        let flows = &self.classes[class].flows;
        if flows.is_empty() {
            return None;
        }
        let lifo = self.classes[class].lifo(now, &self.slab);
        flows.front(lifo, &self.slab, |entry| self.fits_tenant(entry))
    }

    /// Whether the class is to have a seat of its reserved share: it is due, and no more urgent class that waits has fared
    /// worse of late. Else a thin class would be served whole by its share while a more urgent one is refused.
    fn is_owed(&self, class: usize) -> bool {
        self.classes[class].owed() && self.is_behind(class)
    }

    /// Whether no more urgent class that waits has fared worse of late.
    pub(super) fn is_behind(&self, class: usize) -> bool {
        let (urgent, own) = (&self.classes[..class], &self.classes[class]);
        urgent.iter().all(|other| other.is_ahead_of(own))
    }

    /// Why this waiter need not be started any more.
    fn too_late(&mut self, now: Tick, index: u32) -> Option<Reason> {
        let entry = self.slab.at(index);
        let (arrived, deadline) = (entry.since, entry.deadline);
        let crowded = self.waiting > 1;
        let class = &mut self.classes[usize::from(entry.class)];
        if now <= class.latest_start(arrived, deadline, crowded) {
            return None;
        }
        if deadline <= now {
            return Some(Reason::DeadlineExceeded);
        }
        if arrived.plus(class.patience) <= now {
            return Some(Reason::QueueTimeout);
        }
        (!class.probe(now)).then_some(Reason::DeadlineInfeasible)
    }

    /// Turns a waiter away; call only while there is room in `effects`.
    pub(super) fn refuse(&mut self, index: u32, reason: Reason, effects: &mut Effects<T>) {
        self.unlink(index);
        let entry = self.slab.at_mut(index);
        entry.state = State::Refused(reason);
        effects.push(entry.waiter.take());
        let class = usize::from(entry.class);
        self.classes[class].refused();
    }

    fn grant(&mut self, now: Tick, index: u32, place: P, effects: &mut Effects<T>) {
        self.unlink(index);
        let entry = self.slab.at_mut(index);
        let (number, cost, account, tenant) = (usize::from(entry.class), entry.cost, entry.account, entry.tenant);
        let class = &mut self.classes[number];
        let charge = (class.hold.or(self.pace.hold()) as u64).saturating_mul(cost.into());
        class.flows.charge(account, charge);
        entry.charged = charge;
        entry.state = State::Granted;
        entry.since = now;
        entry.place = Some(place);
        effects.push(entry.waiter.take());
        self.seat(number, cost, tenant, now);
    }
}
