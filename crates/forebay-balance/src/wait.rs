use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_core::{Class, Deadline, Reason};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::capacity::Place;
use crate::ledger::Core;
use crate::metrics;
use crate::policy::Claim;
use crate::sync::{Mutex, MutexGuard};

/// What a request meets that has reserved no place and finds none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnFull {
    /// It waits its turn, first come first served, at most `len` of them and each for `timeout` at most (or its
    /// `Deadline`, if that is earlier). The default: 1024, 1 s.
    Wait {
        /// The most that wait; more are refused.
        len: usize,
        /// The longest wait.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        timeout: Duration,
    },
    /// It is refused at once.
    Reject,
}

impl Default for OnFull {
    fn default() -> Self {
        Self::Wait { len: 1024, timeout: Duration::from_secs(1) }
    }
}

/// One who waits for a place.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) class: Class,
    /// Whether it is counted as queued.
    counted: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    Granted(Place, Option<Waker>),
    Over,
}

impl Waiter {
    /// A place was reserved for it. Under the ledger's lock: no waker is woken or dropped here.
    pub(crate) fn grant(&self, core: &Arc<Core>, claim: Claim) {
        let mut state = self.lock();
        let waker = if let State::Waiting(waker) = &mut *state { waker.take() } else { None };
        *state = State::Granted(Place::new(core, claim), waker);
    }

    pub(crate) fn wake(&self) {
        let waker = if let State::Granted(_, waker) = &mut *self.lock() { waker.take() } else { None };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue. Dropped at any point it is left, and a place that was granted goes to the next.
#[derive(Debug)]
pub(crate) struct Ticket {
    core: Arc<Core>,
    waiter: Arc<Waiter>,
}

impl Ticket {
    /// Joins the queue; `front`: at its front. `None`: it has `len` already.
    pub(crate) fn new(core: &Arc<Core>, class: Class, counted: bool, front: bool, len: usize) -> Option<Self> {
        let waiter = Arc::new(Waiter { class, counted, state: Mutex::new(State::Waiting(None)) });
        let joined = core.change(|ledger| {
            let joins = ledger.waiting.len() < len;
            if joins {
                ledger.join(&waiter, front);
                ledger.demand[class].queued += u64::from(counted);
                ledger.picker.look_again(); // a place may have come free since it was looked for
            }
            joins
        });
        joined.then(|| Self { core: Arc::clone(core), waiter })
    }

    /// The place, once it was granted.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Place> {
        let mut waker = Some(cx.waker().clone());
        let mut state = self.waiter.lock();
        match &mut *state {
            State::Waiting(known) => std::mem::swap(known, &mut waker),
            State::Granted(..) => {
                if let State::Granted(place, waker) = std::mem::replace(&mut *state, State::Over) {
                    drop(state);
                    drop(waker);
                    return Poll::Ready(place);
                }
            }
            State::Over => {} // it was ready before
        }
        drop(state);
        drop(waker); // outside the lock
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut ledger = self.core.ledger();
        if matches!(&*self.waiter.lock(), State::Waiting(_)) {
            ledger.leave(&self.waiter); // or else it left with its grant
        }
        ledger.demand[self.waiter.class].queued -= u64::from(self.waiter.counted);
        drop(ledger);
        let state = std::mem::replace(&mut *self.waiter.lock(), State::Over);
        drop(state); // outside the locks: a place goes to the next
    }
}

/// Waits for a place to be reserved, for so long.
#[derive(Debug)]
pub(crate) struct Turn {
    ticket: Ticket,
    until: Pin<Box<Sleep>>,
    /// What is said if that passes.
    late: Reason,
    since: Instant,
}

impl Turn {
    /// Joins the queue; one that had a reservation goes to its front. `None`: it is full, or nobody may wait.
    pub(crate) fn new(
        core: &Arc<Core>,
        class: Class,
        counted: bool,
        deadline: Option<Deadline>,
        redeemer: bool,
    ) -> Option<Self> {
        let OnFull::Wait { len, timeout } = core.conduct.on_full else { return None };
        let since = Instant::now();
        let patience = since + timeout;
        let deadline = deadline.map(|deadline| Instant::from_std(deadline.instant())).filter(|at| *at < patience);
        let (until, late) = deadline.map_or((patience, Reason::AtCapacity), |at| (at, Reason::DeadlineExceeded));
        let ticket = Ticket::new(core, class, counted, redeemer, len)?;
        core.keep_awake();
        Some(Self { ticket, until: Box::pin(sleep_until(until)), late, since })
    }
}

impl Future for Turn {
    type Output = Result<Place, Reason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(place) = self.ticket.poll(cx) {
            return Poll::Ready(Ok(place));
        }
        let late = self.late;
        self.until.as_mut().poll(cx).map(|()| Err(late))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        metrics::waited(self.since.elapsed());
    }
}
