use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_core::{Class, Outcome, Reason, Reservation};

use crate::admission::Seats;
use crate::policy::{Ask, Polled, Taken, Tick, Ticket};
use crate::shared::Shared;

/// Seats that are held: one exchange may run. Dropped, they pass on; so they do when its task panics.
#[derive(Debug)]
#[must_use = "dropped, it gives its seats back"]
pub struct Permit {
    shared: Arc<Shared>,
    /// Never: the clock was not looked at.
    granted: Tick,
    // In a box, as it is moved with each body, and rarely there.
    rest: Option<Box<Rest>>,
    cost: u32,
    class: u8,
    marks: Marks,
}

/// What has become of an exchange. In one byte, of which every value is legal: where a compiler finds a place for the
/// `None` of an `Option` in the last byte of a seat, it moves the seat in overlapping pieces, and the processor waits for
/// each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks(u8);

impl Marks {
    /// The first byte has come.
    const FIRST: Self = Self(1);
    /// The adaptive limit knows that the backend is busy.
    const OVERLOADED: Self = Self(2);
    /// It has ended well.
    const DONE: Self = Self(4);
    /// It cannot end well any more.
    const FAILED: Self = Self(8);

    const fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    /// Sets a mark; whether it was set before.
    const fn set(&mut self, mark: Self) -> bool {
        let had = self.has(mark);
        self.0 |= mark.0;
        had
    }
}

/// What is more to know of seats that were waited for, that may be taken away, or that came with a place at a backend.
#[derive(Debug)]
struct Rest {
    taken: Taken,
    place: Option<Reservation>,
    waited: Duration,
    /// How many seats it needs once the answer has begun.
    later: Option<Seats>,
}

impl Permit {
    /// `asked`: for so many seats; `taken` are no more than that.
    pub(crate) fn new(
        shared: Arc<Shared>,
        taken: Taken,
        place: Option<Reservation>,
        waited: Duration,
        asked: Seats,
    ) -> Self {
        let mut permit = Self::at_once(shared, taken.class, taken.cost, taken.granted(), waited);
        let later = asked.later();
        if !taken.is_bare() || place.is_some() || !waited.is_zero() || later.is_some() {
            permit.rest = Some(Box::new(Rest { taken, place, waited, later }));
        }
        permit
    }

    /// A seat that came through the gate.
    #[inline]
    pub(crate) fn lent(shared: Arc<Shared>, class: u8, granted: Option<Tick>) -> Self {
        Self::at_once(shared, class, 1, granted, Duration::ZERO)
    }

    #[inline]
    fn at_once(shared: Arc<Shared>, class: u8, cost: u32, granted: Option<Tick>, waited: Duration) -> Self {
        shared.metrics.seated(usize::from(class), cost, waited);
        let granted = granted.unwrap_or(Tick::NEVER);
        Self { shared, granted, rest: None, cost, class, marks: Marks(0) }
    }

    /// What is to be handed back.
    #[inline]
    fn taken(&self) -> Taken {
        match &self.rest {
            Some(rest) => rest.taken,
            None => Taken::bare(self.class, self.cost, self.granted),
        }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How long it waited in the queue.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        match &self.rest {
            Some(rest) => rest.waited,
            None => Duration::ZERO,
        }
    }

    /// The place at a backend that came with it, where there is a [`CapacitySignal`](forebay_core::CapacitySignal).
    #[must_use]
    pub const fn reservation(&self) -> Option<&Reservation> {
        match &self.rest {
            Some(rest) => rest.place.as_ref(),
            None => None,
        }
    }

    pub(crate) fn take_reservation(&mut self) -> Option<Reservation> {
        self.rest.as_mut()?.place.take()
    }

    /// Says that the answer begins now: predictions and the adaptive limit learn from the time since the grant. Later
    /// calls do nothing.
    ///
    /// What it needs no longer after that, by [`Seats::after_first_frame`], passes on.
    pub fn first_output(&mut self) {
        self.first_byte(true);
        self.shrink();
    }

    /// The answer has begun: gives back what was needed until then only. Once.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if let Some(rest) = &mut self.rest
            && let Some(seats) = rest.later.take()
            && seats.get() < self.cost
        {
            self.resize(seats);
        }
    }

    #[inline]
    pub(crate) fn first_byte(&mut self, streamed: bool) {
        if self.is_timed() {
            self.first_timed(streamed);
        }
    }

    fn first_timed(&mut self, streamed: bool) {
        if !self.marks.set(Marks::FIRST)
            && let Some(latency) = self.shared.first_byte(&self.taken(), streamed)
        {
            self.shared.metrics.first_byte(usize::from(self.class), latency);
        }
    }

    /// Needs more or fewer seats from now on, at least 1. Fewer pass on at once; more are taken whether they are free or
    /// not, as the work is under way: nobody else is let in until that has been made up for.
    pub fn resize(&mut self, seats: Seats) {
        let mut taken = self.taken();
        self.shared.change(|core, now| core.resize(now, &mut taken, seats.get()));
        self.shared.metrics.resized(usize::from(self.class), self.cost, taken.cost);
        self.cost = taken.cost;
        if let Some(rest) = &mut self.rest {
            rest.taken = taken;
        }
    }

    /// Ends the exchange. `Overload` tells the adaptive limit that the backend is busy.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    #[inline]
    pub(crate) fn end(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Success if !self.is_failed() => _ = self.marks.set(Marks::DONE),
            Outcome::Overload => self.overloaded(),
            _ => {}
        }
    }

    /// Says that it will not have ended well, whatever is said of its end.
    pub(crate) const fn fail(&mut self) {
        self.marks.set(Marks::FAILED);
    }

    pub(crate) const fn is_failed(&self) -> bool {
        self.marks.has(Marks::FAILED)
    }

    /// The backend says that it is busy; later calls do nothing.
    pub(crate) fn overloaded(&mut self) {
        if !self.marks.set(Marks::OVERLOADED) {
            self.shared.overloaded();
        }
    }

    /// Whether it has been held for longer than its class may, and somebody else has the seat now.
    #[inline]
    pub(crate) fn is_revoked(&self) -> bool {
        self.is_bounded() && self.shared.queues().scheduler.is_revoked(&self.taken())
    }

    /// Whether the instant of its grant is known: else there is nothing to learn from it.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.granted != Tick::NEVER
    }

    pub(crate) const fn class(&self) -> u8 {
        self.class
    }

    /// When it may be taken away whatever becomes of it.
    #[inline]
    pub(crate) fn hold_ends(&self) -> Tick {
        let hold = if self.is_bounded() { self.shared.timeouts.hold(Class::new(self.class)) } else { None };
        hold.map_or(Tick::NEVER, |hold| self.granted.after(hold))
    }

    #[inline]
    pub(crate) fn is_bounded(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.taken.is_bounded())
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        let held = || self.is_timed().then(|| Duration::from_nanos(self.shared.now().since(self.granted)));
        self.shared.metrics.unseated(usize::from(self.class), self.cost, held);
        let (taken, done) = (self.taken(), self.marks.has(Marks::DONE));
        if !taken.is_plain() || !self.shared.give_back(self.class, done) {
            self.shared.release(taken, done);
        }
    }
}

/// A place in a queue. Dropped, it is given up, and a seat that was already granted passes on.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    cost: u32,
    class: u8,
    ticket: Option<Ticket>,
    since: Tick,
}

impl Place {
    /// For a ticket of `ask`; it waits since then.
    pub(crate) fn new(shared: Arc<Shared>, ask: &Ask, ticket: Ticket, since: Tick) -> Self {
        shared.metrics.queued(ask.class, ask.cost);
        Self { shared, cost: ask.cost, class: ask.class as u8, ticket: Some(ticket), since }
    }

    /// Ready once it is granted or refused. `rung`: its alarm has rung, so it is refused if its time is up.
    pub(crate) fn poll(&mut self, cx: &Context<'_>, rung: bool) -> Poll<Result<(Taken, Option<Reservation>), Reason>> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Err(Reason::Overloaded)) };
        let mut polled = if rung {
            let mut old = None;
            self.shared.reclaim();
            let polled = self.shared.change(|core, now| {
                old = core.set_waiter(ticket, None);
                core.expire(now, ticket)
            });
            drop(old);
            polled
        } else {
            let mut state = self.shared.queues();
            match state.scheduler.poll(ticket) {
                // Polled by the same task for another reason.
                Polled::Waiting if is_woken_by(state.scheduler.waiter(ticket), cx.waker()) => return Poll::Pending,
                polled => polled,
            }
        };
        if matches!(polled, Polled::Waiting) {
            let mut waker = Some(cx.waker().clone()); // cloned, and the old one dropped, outside the lock
            let mut state = self.shared.queues();
            waker = state.scheduler.set_waiter(ticket, waker).flatten();
            polled = state.scheduler.poll(ticket); // it may have been settled between the two looks
            drop(state);
            drop(waker);
        }
        let settled = match polled {
            Polled::Waiting => return Poll::Pending,
            Polled::Granted(taken, place) => Ok((taken, place)),
            Polled::Refused(reason) => Err(reason),
            Polled::Gone => return Poll::Ready(Err(Reason::Overloaded)), // cannot be: the ticket is ours alone
        };
        self.ticket = None;
        Poll::Ready(settled)
    }

    /// Moves up to a more urgent class, if that has room for it.
    pub(crate) fn raise(&mut self, class: Class) -> bool {
        let Some(ticket) = self.ticket else { return false };
        let (from, to) = (usize::from(self.class), self.shared.timeouts.index(class));
        if !self.shared.change(|core, now| core.raise(now, ticket, to)) {
            return false;
        }
        self.class = to as u8;
        self.shared.metrics.unqueued(from, self.cost);
        self.shared.metrics.cancelled(from);
        self.shared.metrics.queued(to, self.cost);
        true
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How long it had waited at `now`.
    pub(crate) const fn waited(&self, now: Tick) -> Duration {
        Duration::from_nanos(now.since(self.since))
    }

    /// When to look again, if nobody wakes it.
    pub(crate) fn alarm(&self) -> Option<Tick> {
        let ticket = self.ticket?;
        let alarm = self.shared.queues().scheduler.alarm(ticket);
        Some(self.shared.next_look().map_or(alarm, |look| alarm.min(look)))
    }
}

fn is_woken_by(waiter: Option<&Option<Waker>>, waker: &Waker) -> bool {
    waiter.and_then(Option::as_ref).is_some_and(|waiter| waiter.will_wake(waker))
}

impl Drop for Place {
    fn drop(&mut self) {
        let row = usize::from(self.class);
        self.shared.metrics.unqueued(row, self.cost);
        if let Some(ticket) = self.ticket.take() {
            self.shared.metrics.cancelled(row);
            self.shared.cancel(ticket);
        }
    }
}
