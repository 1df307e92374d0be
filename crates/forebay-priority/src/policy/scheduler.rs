use std::time::Duration;

use forebay_core::Reason;

use super::class::{ClassCounts, ClassState};
use super::effects::Effects;
use super::flows::{Account, account};
use super::held::Held;
use super::pace::Pace;
use super::slab::{Slab, State, Ticket};
use super::tenants::Tenants;
use super::tick::{Tick, nanos};
use crate::config::{ClassConfig, OnFull, PriorityConfig};

/// What a newcomer wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) class: usize,
    /// In seats, at least 1.
    pub(crate) cost: u32,
    /// When the answer is worthless.
    pub(crate) deadline: Tick,
    /// A keyed hash of who asks.
    pub(crate) tenant: Option<u64>,
}

/// A seat that was taken, to be handed back to [`Scheduler::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) class: u8,
    /// The account that was charged; `None`: it never waited.
    pub(super) account: Option<Account>,
    /// Its tenant, if the seats of each are bounded.
    pub(super) tenant: u64,
    pub(crate) cost: u32,
    pub(super) charged: u64,
    /// When it was granted; never: the clock was not looked at. Not an `Option`, as it is moved with each body.
    pub(super) granted: Tick,
    /// Its entry, if its class has a `max_hold`.
    pub(super) held: Option<Ticket>,
}

impl Taken {
    /// When it was granted, if the clock was looked at.
    pub(crate) fn granted(&self) -> Option<Tick> {
        Some(self.granted).filter(|&granted| granted != Tick::NEVER)
    }

    /// Whether it may be taken away after a time.
    pub(crate) const fn is_bounded(&self) -> bool {
        self.held.is_some()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer<P> {
    Admitted(Taken, P),
    Queued(Ticket),
    Refused(Reason),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Polled<P> {
    /// Still in the queue.
    Waiting,
    /// It has a seat from now on; the ticket is spent.
    Granted(Taken, P),
    /// It was turned away; the ticket is spent.
    Refused(Reason),
    /// The ticket was spent already.
    Gone,
}

/// Bounded queues, one a class, in front of a number of seats.
///
/// `T` is what the caller gets back when a waiter is settled (a waker), `P` what a grant takes from the backends (a
/// reservation). Whatever an operation does to others is in its [`Effects`]. Invariant: after each operation that was
/// settled, no seat is free that a waiter may take.
#[derive(Debug)]
pub(crate) struct Scheduler<T, P> {
    pub(super) limit: usize,
    pub(super) in_flight: usize,
    pub(super) waiting: usize,
    pub(super) on_full: OnFull,
    pub(super) max_queued: usize,
    pub(super) pace: Pace,
    pub(super) tenants: Tenants,
    pub(super) classes: Vec<ClassState>,
    pub(super) slab: Slab<T, P>,
    pub(super) held: Held,
    /// When the reserved shares were last accounted for.
    pub(super) accrued: Tick,
    pub(super) draining: bool,
    /// Whoever waits is to be turned away.
    pub(super) flushing: bool,
    /// A queue may have become too long.
    pub(super) trimming: bool,
    /// Exchanges that go on although their seat was taken away.
    pub(super) revoked: usize,
}

/// More places than this are allocated when they are needed.
const PREALLOCATED: usize = 4096;

impl<T, P> Scheduler<T, P> {
    /// A scheduler by a checked configuration.
    pub(crate) fn new(config: &PriorityConfig) -> Self {
        let limit = config.seats();
        let (hold, head) = (nanos(config.expected_hold), nanos(config.expected_head));
        let mut scheduler = Self {
            limit,
            in_flight: 0,
            waiting: 0,
            on_full: config.on_full,
            max_queued: config.max_queued.unwrap_or(usize::MAX),
            pace: Pace::expecting(hold),
            tenants: Tenants::new(config.max_share),
            classes: config.classes.iter().map(|rule| ClassState::new(rule.clone(), hold, head)).collect(),
            slab: Slab::with_capacity(0),
            held: Held::with_capacity(0),
            accrued: Tick::ZERO,
            draining: false,
            flushing: false,
            trimming: false,
            revoked: 0,
        };
        scheduler.set_limit(limit);
        let most: usize = scheduler.classes.iter().map(|class| class.length).sum();
        scheduler.slab = Slab::with_capacity(most.saturating_add(limit).min(PREALLOCATED));
        scheduler
    }

    /// A newcomer while nobody waits: a seat if there is one and no deadline, without a look at the clock. Else
    /// call `offer`. O(1).
    pub(crate) fn try_admit(&mut self, ask: &Ask, reserve: &mut impl FnMut(usize) -> Option<P>) -> Option<(Taken, P)> {
        let timed = ask.deadline != Tick::NEVER || self.classes[ask.class].rule.max_hold.is_some();
        if timed || self.pace.cold() || self.waiting > 0 || self.draining {
            return None;
        }
        let admitted = self.take(ask, None, reserve)?;
        self.arrive(ask);
        Some(admitted)
    }

    /// A newcomer. It overtakes no waiter of its own or a more urgent class that may go. O(classes), and O(flows) if it
    /// must wait.
    pub(crate) fn offer(
        &mut self,
        now: Tick,
        ask: &Ask,
        waiter: impl FnOnce() -> T,
        reserve: &mut impl FnMut(usize) -> Option<P>,
        effects: &mut Effects<T>,
    ) -> Offer<P> {
        self.arrive(ask);
        let class = &mut self.classes[ask.class];
        class.arrivals.advance(now);
        if self.draining {
            return self.refuse_newcomer(ask.class, Reason::ShuttingDown);
        }
        if ask.deadline <= now {
            return self.refuse_newcomer(ask.class, Reason::DeadlineExceeded);
        }
        if self.waiting == 0
            && let Some((taken, place)) = self.take(ask, Some(now), reserve)
        {
            return Offer::Admitted(taken, place);
        }
        let flow = self.classes[ask.class].flows.choose(ask.tenant);
        self.purge(now, ask.class, flow, effects);
        if let Some(reason) = self.turns_away(now, ask, flow) {
            return self.refuse_newcomer(ask.class, reason);
        }
        let ticket = self.enqueue(now, ask, flow, waiter());
        self.settle(now, reserve, effects);
        match self.poll(ticket) {
            Polled::Granted(taken, place) => return Offer::Admitted(taken, place),
            Polled::Refused(reason) => return Offer::Refused(reason),
            Polled::Waiting | Polled::Gone => {}
        }
        match self.make_room(now, ticket, effects) {
            Ok(()) => Offer::Queued(ticket),
            Err(reason) => {
                self.unlink(ticket.index);
                drop(self.slab.remove(ticket.index)); // the newcomer's own waiter, which nobody has heard of yet
                self.refuse_newcomer(ask.class, reason)
            }
        }
    }

    /// What it asks for, or what its class can have at most.
    pub(crate) fn affordable(&self, ask: &Ask) -> u32 {
        ask.cost.min(self.most(ask.class))
    }

    /// The most seats that a request of the class can have at once.
    pub(super) fn most(&self, class: usize) -> u32 {
        let class = &self.classes[class];
        let most = u32::try_from(class.cap.min(class.ceiling)).unwrap_or(u32::MAX);
        if self.limit == 0 { u32::MAX } else { most.max(1) } // paused, nobody knows
    }

    fn arrive(&mut self, ask: &Ask) {
        let class = &mut self.classes[ask.class];
        class.counts.offered += 1;
        class.arrivals.count(ask.cost);
    }

    fn refuse_newcomer(&mut self, class: usize, reason: Reason) -> Offer<P> {
        self.classes[class].refused();
        Offer::Refused(reason)
    }

    /// A seat for a newcomer while nobody waits.
    fn take(
        &mut self,
        ask: &Ask,
        now: Option<Tick>,
        reserve: &mut impl FnMut(usize) -> Option<P>,
    ) -> Option<(Taken, P)> {
        let tenant = self.tenants.of(ask.tenant);
        let fits = self.fits(ask.class, ask.cost) && self.tenants.fits(tenant, ask.cost, self.seats());
        if self.in_flight >= self.limit || !fits {
            return None;
        }
        let place = reserve(ask.class)?;
        let (class, cost, granted) = (ask.class as u8, ask.cost, now.unwrap_or(Tick::NEVER));
        self.seat(ask.class, cost, tenant, granted);
        let held = now.and_then(|now| self.hold_seat(now, ask.class, cost, tenant));
        Some((Taken { class, account: None, tenant, cost, charged: 0, granted, held }, place))
    }

    /// Whether the class, and all together, may have so many seats more.
    fn fits(&self, class: usize, cost: u32) -> bool {
        self.fits_class(class, cost) && self.fits_house(class, cost)
    }

    /// Whether its own cap and its headroom let the class have more.
    pub(super) fn fits_class(&self, class: usize, cost: u32) -> bool {
        let state = &self.classes[class];
        let (held, cap) = (state.counts.in_flight, state.cap);
        (held == 0 || cap >= self.limit || held + cost as usize <= cap)
            && (self.in_flight == 0 || self.in_flight < state.ceiling)
    }

    /// Whether enough seats are free for it; anything fits an empty house.
    pub(super) fn fits_house(&self, class: usize, cost: u32) -> bool {
        self.in_flight == 0 || self.in_flight + cost as usize <= self.classes[class].ceiling
    }

    pub(super) fn seat(&mut self, class: usize, cost: u32, tenant: u64, granted: Tick) {
        let class = &mut self.classes[class];
        class.counts.in_flight += cost as usize;
        class.counts.admitted += 1;
        class.admitted(1);
        self.in_flight += cost as usize;
        self.tenants.take(tenant, cost);
        self.pace.begin(granted);
    }

    pub(super) fn unseat(&mut self, class: usize, cost: u32, tenant: u64) {
        self.tenants.give(tenant, cost);
        let counts = &mut self.classes[class].counts;
        debug_assert!(counts.in_flight >= cost as usize && self.in_flight >= cost as usize);
        counts.in_flight = counts.in_flight.saturating_sub(cost as usize);
        self.in_flight = self.in_flight.saturating_sub(cost as usize);
    }

    fn enqueue(&mut self, now: Tick, ask: &Ask, flow: u8, waiter: T) -> Ticket {
        if self.waiting == 0 {
            // A share is owed only while somebody waits.
            self.accrued = now;
            self.classes.iter_mut().for_each(|class| class.arrivals.advance(now));
        }
        let ticket = self.slab.insert(ask.class as u8, ask.cost, now, ask.deadline, waiter);
        self.slab.at_mut(ticket.index).tenant = self.tenants.of(ask.tenant);
        self.join(now, ask.class, flow, account(ask.tenant), ticket.index);
        ticket
    }

    /// Appends a waiter that is in no queue to that of its class.
    pub(super) fn join(&mut self, now: Tick, class: usize, flow: u8, account: Account, index: u32) {
        let cost = self.slab.at(index).cost;
        let class = &mut self.classes[class];
        if class.flows.is_empty() {
            class.busy_since = now;
        }
        class.flows.push(&mut self.slab, flow, account, index);
        class.counts.waiting += 1;
        class.counts.queued += cost as usize;
        self.waiting += 1;
    }

    /// Takes a waiter out of its queue.
    pub(super) fn unlink(&mut self, index: u32) {
        let entry = self.slab.at(index);
        let (class, cost) = (&mut self.classes[usize::from(entry.class)], entry.cost);
        class.counts.waiting -= 1;
        class.counts.queued -= cost as usize;
        class.flows.unlink(&mut self.slab, index);
        self.waiting -= 1;
    }

    /// Where the ticket stands; a grant or a refusal is collected by this, once. O(1).
    pub(crate) fn poll(&mut self, ticket: Ticket) -> Polled<P> {
        let Some(entry) = self.slab.get_mut(ticket) else { return Polled::Gone };
        match entry.state {
            State::Granted => {
                let (class, cost, granted, tenant) = (entry.class, entry.cost, entry.since, entry.tenant);
                let (account, charged) = (Some(entry.account), entry.charged);
                let Some(place) = self.slab.remove(ticket.index).1 else { return Polled::Gone };
                let held = self.hold_seat(granted, usize::from(class), cost, tenant);
                Polled::Granted(Taken { class, account, tenant, cost, charged, granted, held }, place)
            }
            State::Refused(reason) => {
                drop(self.slab.remove(ticket.index)); // its waiter was taken when it was refused
                Polled::Refused(reason)
            }
            State::Waiting => Polled::Waiting,
            State::Free | State::Held | State::Revoked => Polled::Gone,
        }
    }

    /// Replaces what wakes this waiter; the old value comes back, to be dropped outside a lock. O(1).
    pub(crate) fn set_waiter(&mut self, ticket: Ticket, waiter: T) -> Option<T> {
        self.slab.get_mut(ticket)?.waiter.replace(waiter)
    }

    /// The waiter's own alarm has rung: it is turned away if its time is really up. O(1).
    pub(crate) fn expire(&mut self, now: Tick, ticket: Ticket) -> Polled<P> {
        if let Some(entry) = self.slab.get_mut(ticket)
            && entry.state == State::Waiting
        {
            let patience = self.classes[usize::from(entry.class)].patience;
            let reason = match (entry.deadline <= now, entry.since.plus(patience) <= now) {
                (true, _) => Reason::DeadlineExceeded,
                (false, true) => Reason::QueueTimeout,
                (false, false) => return Polled::Waiting,
            };
            let class = usize::from(entry.class);
            self.unlink(ticket.index);
            self.classes[class].refused();
            // Its own waiter is the one that asks: it need not be woken. Its drop runs no foreign code but a waker's.
            self.slab.at_mut(ticket.index).state = State::Refused(reason);
        }
        self.poll(ticket)
    }

    /// What wakes this waiter. O(1).
    pub(crate) fn waiter(&mut self, ticket: Ticket) -> Option<&T> {
        self.slab.get_mut(ticket)?.waiter.as_ref()
    }

    /// When the waiter should look again, if nobody wakes it: its queue timeout, its deadline, or when another's seat may
    /// be taken away. O(classes).
    pub(crate) fn alarm(&mut self, ticket: Ticket) -> Tick {
        match self.slab.get_mut(ticket) {
            Some(entry) => {
                let up = entry.since.plus(self.classes[usize::from(entry.class)].patience).min(entry.deadline);
                up.min(self.next_reap())
            }
            None => Tick::ZERO,
        }
    }

    /// Whether this waiter may [`cancel`](Self::cancel) without `settle`, and without the time: others wait on, for whom no
    /// seat is free whoever leaves. O(1).
    pub(crate) fn cancels_alone(&mut self, ticket: Ticket) -> bool {
        let still = self.waiting > 1 && self.in_flight >= self.limit && !self.flushing && !self.trimming;
        still && self.slab.get_mut(ticket).is_some_and(|entry| entry.state == State::Waiting)
    }

    /// The caller has gone. A waiter leaves its queue; a grant that it did not collect is a seat again: `settle` next.
    /// What it held comes back, to be dropped outside a lock. O(1).
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> (Option<T>, Option<P>) {
        let Some(entry) = self.slab.get_mut(ticket) else { return (None, None) };
        let (class, cost, account, charged) = (usize::from(entry.class), entry.cost, entry.account, entry.charged);
        let (tenant, granted) = (entry.tenant, entry.since);
        match entry.state {
            State::Waiting => {
                self.unlink(ticket.index);
                self.classes[class].counts.cancelled += 1;
            }
            State::Granted => {
                self.unseat(class, cost, tenant);
                self.pace.end(granted, None);
                // It was never served, so it counts as cancelled, not as admitted.
                let class = &mut self.classes[class];
                class.counts.admitted -= 1;
                class.counts.cancelled += 1;
                class.flows.correct(account, charged, 0);
            }
            State::Refused(_) => {}
            State::Free | State::Held | State::Revoked => return (None, None),
        }
        self.slab.remove(ticket.index)
    }

    /// A seat is free again: `settle` next. `now` is needed only if somebody waits or the grant was timed. False: it had been
    /// taken away before. O(1).
    pub(crate) fn release(&mut self, taken: Taken, now: Option<Tick>, done: bool) -> bool {
        let index = usize::from(taken.class);
        self.classes[index].counts.done += u64::from(done);
        if let (Some(now), Some(granted)) = (now, taken.granted()) {
            let actual = now.since(granted);
            self.pace.end(granted, Some(actual));
            let class = &mut self.classes[index];
            class.arrivals.advance(now);
            class.hold.add(actual);
            if let Some(account) = taken.account {
                class.flows.correct(account, taken.charged, actual.saturating_mul(taken.cost.into()));
            }
        }
        let held = self.let_go(&taken);
        if held {
            self.unseat(index, taken.cost, taken.tenant);
        }
        held
    }

    /// The seats of an exchange are more or fewer from now on: `settle` next. O(1).
    pub(crate) fn resize(&mut self, now: Tick, taken: &mut Taken, cost: u32) {
        if self.is_revoked(taken) {
            return;
        }
        let class = &mut self.classes[usize::from(taken.class)];
        if let (Some(account), Some(granted)) = (taken.account, taken.granted()) {
            // The release will count the new number from the start on: makes up for what was more or fewer until now.
            let seat_time = |seats: u32| now.since(granted).saturating_mul(seats.into());
            let (fewer, more) = (taken.cost.saturating_sub(cost), cost.saturating_sub(taken.cost));
            class.flows.correct(account, seat_time(more), seat_time(fewer));
        }
        let counts = &mut class.counts;
        counts.in_flight = counts.in_flight.saturating_sub(taken.cost as usize) + cost as usize;
        self.in_flight = self.in_flight.saturating_sub(taken.cost as usize) + cost as usize;
        self.tenants.take(taken.tenant, cost);
        self.tenants.give(taken.tenant, taken.cost);
        self.resize_held(taken, cost);
        taken.cost = cost;
    }

    /// A first byte came this long after the grant. O(1).
    pub(crate) fn first_byte(&mut self, now: Tick, taken: &Taken) -> Option<u64> {
        let head = now.since(taken.granted()?);
        let class = &mut self.classes[usize::from(taken.class)];
        class.head.add(head);
        class.measured(now);
        Some(head)
    }

    /// A new shared limit; 0 pauses. Seats above it stay until they are released. `settle` next.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.derive();
    }

    /// The places that the backends have, all together. `settle` next.
    pub(crate) fn set_places(&mut self, places: usize) {
        if places != self.pace.places() {
            self.pace.set_places(places);
            self.derive();
        }
    }

    fn derive(&mut self) {
        let seats = self.seats();
        self.classes.iter_mut().for_each(|class| class.derive(self.limit, seats));
        self.keep_pace();
    }

    /// Of the limit, the seats that the backends have a place for.
    pub(crate) const fn seats(&self) -> usize {
        self.pace.seats(self.limit)
    }

    /// Looks at how long seats are held, and so how long each class waits. O(classes).
    pub(super) fn look(&mut self, now: Tick) {
        if self.pace.look(now) {
            self.keep_pace();
        }
    }

    fn keep_pace(&mut self) {
        let (hold, every) = (self.pace.hold(), self.every());
        self.classes.iter_mut().for_each(|class| class.look(hold, every));
    }

    /// Nanoseconds between two seats that come free, when all are taken.
    pub(crate) fn every(&self) -> f64 {
        self.pace.hold() / self.seats().max(1) as f64
    }

    /// A new rule for a class; queues that are now too long are cut by `settle`.
    pub(crate) fn set_class(&mut self, class: usize, rule: ClassConfig) {
        self.classes[class].rule = rule;
        self.derive();
        self.trimming = true;
    }

    /// Refuses newcomers from now on; those who wait are served, or with `flush` turned away by `settle`.
    pub(crate) const fn drain(&mut self, flush: bool) {
        self.draining = true;
        self.flushing |= flush;
    }

    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) const fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.waiting == 0 && self.revoked == 0
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = ClassCounts> + '_ {
        self.classes.iter().map(|class| class.counts)
    }

    pub(crate) fn rules(&self) -> impl ExactSizeIterator<Item = &ClassConfig> {
        self.classes.iter().map(|class| &class.rule)
    }

    /// How long a request of a class waits at most, at the pace as it was looked at last.
    pub(crate) fn patience(&self, class: usize) -> Duration {
        Duration::from_nanos(self.classes[class].patience)
    }

    /// How long a seat is held, in nanoseconds: measured, or expected.
    pub(crate) const fn mean_hold(&self) -> f64 {
        self.pace.hold()
    }

    /// For tests: takes `hold` nanoseconds for what was measured, and lends seats from now on.
    #[cfg(test)]
    pub(crate) fn pin_hold(&mut self, hold: u64, lends: bool) {
        self.pace.pin(hold, lends);
    }

    #[cfg(test)]
    pub(super) const fn slab_len(&self) -> usize {
        self.slab.len()
    }
}
