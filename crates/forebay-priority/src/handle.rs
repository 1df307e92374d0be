use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use forebay_core::{ClassDemand, Demand, DemandSource};
use http::Request;

use crate::shared::Shared;

/// Watches and changes a running [`PriorityLayer`](crate::PriorityLayer).
#[derive(Debug, Clone)]
pub struct PriorityHandle {
    shared: Arc<Shared>,
}

/// A layer at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrioritySnapshot {
    /// The shared limit, in seats.
    pub limit: usize,
    /// One row a configured class, most urgent first.
    pub classes: Vec<ClassSnapshot>,
}

/// A class at one instant: `offered` is always the sum of `admitted`, `refused`, `cancelled` and `queued`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClassSnapshot {
    /// Waiting now.
    pub queued: usize,
    /// Seats held now.
    pub in_flight: usize,
    /// Requests that came, since the start.
    pub offered: u64,
    /// Requests that got a seat.
    pub admitted: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests whose caller left before they got a seat.
    pub cancelled: u64,
}

impl PriorityHandle {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The state now.
    #[must_use]
    pub fn snapshot(&self) -> PrioritySnapshot {
        let state = self.shared.lock();
        let classes = state.scheduler.counts().map(|counts| ClassSnapshot {
            queued: counts.queued,
            in_flight: counts.in_flight,
            offered: counts.offered,
            admitted: counts.admitted,
            refused: counts.refused,
            cancelled: counts.cancelled,
        });
        PrioritySnapshot { limit: state.scheduler.limit(), classes: classes.collect() }
    }

    /// Changes the shared limit: waiters that now have a seat are woken within this call. 0 pauses. Below what is in
    /// flight it stops grants until enough have ended; nothing is cut.
    pub fn set_limit(&self, seats: usize) {
        self.shared.change(|scheduler| scheduler.set_limit(seats));
    }

    /// Sets the `Class` of a request, where it has none: the classifier's, or the less urgent one that the caller asks
    /// for. For the authentication outside the stack, so that every layer inside knows it.
    pub fn mark<B>(&self, request: &mut Request<B>) {
        self.shared.mark(request);
    }

    /// Refuses newcomers from now on (503), serves those who wait, and is done when the last body has ended.
    pub fn drain(&self) -> Drained {
        self.shared.change(crate::policy::Scheduler::drain);
        Drained { shared: Arc::clone(&self.shared) }
    }
}

impl DemandSource for PriorityHandle {
    fn demand(&self) -> Demand {
        let mut demand = Demand::default();
        let state = self.shared.lock();
        for (row, counts) in state.scheduler.counts().enumerate() {
            demand.classes[row] = ClassDemand {
                queued: counts.queued as u64,
                in_flight: counts.in_flight as u64,
                offered: counts.offered,
                done: self.shared.done[row].load(Ordering::Relaxed),
                shed: counts.refused,
            };
        }
        demand
    }
}

/// Done when nothing waits and nothing runs. Dropping it does not undo the drain.
#[derive(Debug)]
#[must_use = "the drain has begun; await its end"]
pub struct Drained {
    shared: Arc<Shared>,
}

impl Future for Drained {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut state = self.shared.lock();
        if state.scheduler.is_idle() {
            drop(state);
            return Poll::Ready(());
        }
        // Bounded by the number of tasks that await a drain.
        if !state.drained.iter().any(|other| other.will_wake(&waker)) {
            state.drained.push(waker);
        }
        Poll::Pending
    }
}
