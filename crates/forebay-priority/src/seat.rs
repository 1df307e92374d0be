use std::sync::Arc;
use std::task::{Context, Poll};

use forebay_core::{BodyGuard, Outcome};

use crate::policy::{Polled, Ticket};
use crate::shared::Shared;

/// A seat: one exchange may run. It lasts to the end of the response body, however that ends, and then passes on.
#[derive(Debug)]
pub struct Seat {
    shared: Arc<Shared>,
    row: usize,
}

impl Seat {
    pub(crate) const fn new(shared: Arc<Shared>, row: usize) -> Self {
        Self { shared, row }
    }
}

impl BodyGuard for Seat {
    fn finish(self, outcome: Outcome) {
        if outcome == Outcome::Success {
            self.shared.count_done(self.row);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.change(|scheduler| scheduler.release(self.row));
    }
}

/// A place in a queue. Dropped, it is given up, and a seat that was already granted passes on.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    row: usize,
    ticket: Option<Ticket>,
}

impl Place {
    pub(crate) const fn new(shared: Arc<Shared>, row: usize, ticket: Ticket) -> Self {
        Self { shared, row, ticket: Some(ticket) }
    }

    /// Ready with the seat once it is granted.
    pub(crate) fn poll_seat(&mut self, cx: &Context<'_>) -> Poll<Seat> {
        let Some(ticket) = self.ticket else { return Poll::Pending };
        let mut waker = Some(cx.waker().clone()); // cloned, and the old one dropped, outside the lock
        let mut state = self.shared.lock();
        let polled = state.scheduler.poll(ticket);
        if polled == Polled::Waiting {
            waker = state.scheduler.set_waiter(ticket, waker).flatten();
        }
        drop(state);
        drop(waker);
        if polled == Polled::Granted {
            self.ticket = None;
            return Poll::Ready(Seat::new(Arc::clone(&self.shared), self.row));
        }
        Poll::Pending
    }

    /// The time is up: leaves the queue. False if a seat was granted in the meantime, which then counts.
    pub(crate) fn give_up(&mut self) -> bool {
        let Some(ticket) = self.ticket else { return false };
        let refused = self.shared.change(|scheduler| scheduler.refuse_waiter(ticket));
        if refused.is_some() {
            self.ticket = None;
        }
        refused.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            drop(self.shared.change(|scheduler| scheduler.cancel(ticket)));
        }
    }
}
