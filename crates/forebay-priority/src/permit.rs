use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_core::{Outcome, Reason, Reservation};

use crate::admission::Seats;
use crate::policy::{Polled, Taken, Tick, Ticket};
use crate::shared::Shared;

/// Seats that are held: one exchange may run. Dropped, they pass on; so they do when its task panics.
#[derive(Debug)]
#[must_use = "dropped, it gives its seats back"]
pub struct Permit {
    shared: Arc<Shared>,
    granted: Option<Tick>,
    place: Option<Reservation>,
    // In a box, as it is moved with each body, and rarely there.
    rest: Option<Box<Rest>>,
    cost: u32,
    class: u8,
    first: bool,
    overloaded: bool,
    done: bool,
}

/// What is more to know of seats that were waited for, or may be taken away.
#[derive(Debug)]
struct Rest {
    taken: Taken,
    waited: Duration,
}

impl Permit {
    pub(crate) fn new(shared: Arc<Shared>, taken: Taken, place: Option<Reservation>, waited: Duration) -> Self {
        let mut permit = Self::at_once(shared, taken.class, taken.cost, taken.granted, waited);
        permit.place = place;
        if !taken.is_bare() || !waited.is_zero() {
            permit.rest = Some(Box::new(Rest { taken, waited }));
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
        Self { shared, granted, place: None, rest: None, cost, class, first: false, overloaded: false, done: false }
    }

    /// What is to be handed back.
    fn taken(&self) -> Taken {
        self.rest.as_ref().map_or_else(|| Taken::bare(self.class, self.cost, self.granted), |rest| rest.taken)
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
        self.place.as_ref()
    }

    pub(crate) const fn take_reservation(&mut self) -> Option<Reservation> {
        self.place.take()
    }

    /// Says that the answer begins now: predictions and the adaptive limit learn from the time since the grant. Later
    /// calls do nothing.
    pub fn first_output(&mut self) {
        self.first_byte(true);
    }

    pub(crate) fn first_byte(&mut self, streamed: bool) {
        if self.is_timed()
            && !std::mem::replace(&mut self.first, true)
            && let Some(latency) = self.shared.first_byte(&self.taken(), streamed)
        {
            self.shared.metrics.first_byte(usize::from(self.class), latency);
        }
    }

    /// Needs more or fewer seats from now on, at least 1. Fewer pass on at once; more are taken whether they are free or
    /// not, as the work is under way: nobody else is let in until that has been made up for.
    pub fn resize(&mut self, seats: Seats) {
        let mut taken = self.taken();
        self.shared.change(|core, _| core.resize(&mut taken, seats.get()));
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

    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.done = outcome == Outcome::Success;
        if outcome == Outcome::Overload {
            self.overloaded();
        }
    }

    /// The backend says that it is busy; later calls do nothing.
    pub(crate) fn overloaded(&mut self) {
        if !std::mem::replace(&mut self.overloaded, true) {
            self.shared.overloaded();
        }
    }

    /// Whether it has been held for longer than its class may, and somebody else has the seat now.
    pub(crate) fn is_revoked(&self) -> bool {
        self.is_bounded() && self.shared.lock().scheduler.is_revoked(&self.taken())
    }

    /// Whether the instant of its grant is known: else there is nothing to learn from it.
    pub(crate) const fn is_timed(&self) -> bool {
        self.granted.is_some()
    }

    pub(crate) fn is_bounded(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.taken.is_bounded())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let held = self.granted.map(|granted| Duration::from_nanos(self.shared.now().since(granted)));
        self.shared.metrics.unseated(usize::from(self.class), self.cost, held);
        self.shared.release(self.taken(), self.done);
    }
}

/// A place in a queue. Dropped, it is given up, and a seat that was already granted passes on.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    row: usize,
    cost: u32,
    ticket: Option<Ticket>,
}

impl Place {
    pub(crate) fn new(shared: Arc<Shared>, row: usize, cost: u32, ticket: Ticket) -> Self {
        shared.metrics.queued(row, cost);
        Self { shared, row, cost, ticket: Some(ticket) }
    }

    /// Ready once it is granted or refused. `rung`: its alarm has rung, so it is refused if its time is up.
    pub(crate) fn poll(&mut self, cx: &Context<'_>, rung: bool) -> Poll<Result<(Taken, Option<Reservation>), Reason>> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Err(Reason::Overloaded)) };
        let mut waker = Some(cx.waker().clone()); // cloned, and the old one dropped, outside the lock
        let polled = if rung {
            let mut old = None;
            let polled = self.shared.change(|core, now| {
                core.reap(now);
                old = core.set_waiter(ticket, None);
                core.expire(now, ticket)
            });
            drop(old);
            polled
        } else {
            self.shared.lock().scheduler.poll(ticket)
        };
        let polled = match polled {
            Polled::Waiting => {
                let mut state = self.shared.lock();
                waker = state.scheduler.set_waiter(ticket, waker).flatten();
                state.scheduler.poll(ticket) // it may have been settled between the two looks
            }
            settled => settled,
        };
        drop(waker);
        match polled {
            Polled::Waiting => Poll::Pending,
            Polled::Granted(taken, place) => {
                self.ticket = None;
                Poll::Ready(Ok((taken, place)))
            }
            Polled::Refused(reason) => {
                self.ticket = None;
                Poll::Ready(Err(reason))
            }
            Polled::Gone => Poll::Ready(Err(Reason::Overloaded)), // cannot be: the ticket is ours alone
        }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// When to look again, if nobody wakes it: the end of its time, or of a seat that was held for too long.
    pub(crate) fn alarm(&self) -> Option<tokio::time::Instant> {
        let mut state = self.shared.lock();
        let tick = state.scheduler.alarm(self.ticket?).min(state.scheduler.next_reap());
        drop(state);
        Some(self.shared.instant(tick))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.metrics.unqueued(self.row, self.cost);
        if let Some(ticket) = self.ticket.take() {
            self.shared.metrics.cancelled(self.row);
            drop(self.shared.change(|core, _| core.cancel(ticket))); // what it held is dropped outside the lock
        }
    }
}
