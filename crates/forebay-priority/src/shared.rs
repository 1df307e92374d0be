use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use forebay_core::{Class, Reason, Rejection, RequestHead};
use http::{HeaderName, HeaderValue, Request};

use crate::classify::Classify;
use crate::policy::Scheduler;

/// What all services, futures and bodies of one layer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) queue_timeouts: Vec<Duration>,
    pub(crate) done: Vec<AtomicU64>,
    pub(crate) expected_hold: Duration,
    pub(crate) classify: Option<Box<dyn Classify>>,
    pub(crate) wish_header: Option<HeaderName>,
}

/// The scheduler, and who waits for the end of a drain.
pub(crate) struct State {
    pub(crate) scheduler: Scheduler<Option<Waker>>,
    pub(crate) drained: Vec<Waker>,
}

/// How many wakers leave the lock at a time.
const BATCH: usize = 32;

impl Shared {
    pub(crate) fn new(scheduler: Scheduler<Option<Waker>>, queue_timeouts: Vec<Duration>, hold: Duration) -> Self {
        Self {
            state: Mutex::new(State { scheduler, drained: Vec::new() }),
            done: queue_timeouts.iter().map(|_| AtomicU64::new(0)).collect(),
            queue_timeouts,
            expected_hold: hold,
            classify: None,
            wish_header: None,
        }
    }

    /// The state; only our own code runs under this lock, so a poisoned one is whole all the same.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `change`, then hands out the seats that it set free. Wakers run outside the lock: they may come back here.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Scheduler<Option<Waker>>) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state.scheduler);
        loop {
            let mut wake: [Option<Waker>; BATCH] = [const { None }; BATCH];
            let mut granted = 0;
            while granted < BATCH
                && let Some(waker) = state.scheduler.dispatch()
            {
                wake[granted] = waker;
                granted += 1;
            }
            let idle = state.scheduler.is_idle() && !state.drained.is_empty();
            let drained = if idle { std::mem::take(&mut state.drained) } else { Vec::new() };
            drop(state);
            wake.into_iter().flatten().chain(drained).for_each(Waker::wake);
            if granted < BATCH {
                return result;
            }
            state = self.lock();
        }
    }

    /// The row of a class: one beyond the configured ones counts as the last.
    pub(crate) fn row(&self, class: Class) -> usize {
        class.index().min(self.queue_timeouts.len() - 1) // at least one class: checked at build
    }

    /// The class of a request; see [`PriorityHandle::mark`](crate::PriorityHandle::mark).
    pub(crate) fn mark<B>(&self, request: &mut Request<B>) -> Class {
        let class = match request.extensions().get::<Class>() {
            Some(class) => *class,
            None => {
                let head = RequestHead::from(&*request);
                let ceiling = self.classify.as_ref().map_or_else(Class::default, |classify| classify.classify(&head));
                let class = self.wish(&head).map_or(ceiling, |wish| ceiling.max(wish)); // it may only be lowered
                request.extensions_mut().insert(class);
                class
            }
        };
        if let Some(name) = &self.wish_header
            && request.headers().contains_key(name)
        {
            request.headers_mut().insert(name, HeaderValue::from_static(class.as_str()));
        }
        class
    }

    /// What the caller asks for: one value, or several that agree; anything else asks for nothing.
    fn wish(&self, head: &RequestHead<'_>) -> Option<Class> {
        let mut values = head.headers.get_all(self.wish_header.as_ref()?).iter();
        let first = values.next()?;
        if values.any(|value| value != first) {
            return None;
        }
        first.to_str().ok()?.parse().ok()
    }

    /// A refusal, with the time in which those ahead will have been served.
    pub(crate) fn reject(&self, class: Class, reason: Reason, waited: Duration) -> Rejection {
        let state = self.lock();
        let (ahead, limit) = (state.scheduler.ahead(self.row(class)), state.scheduler.limit());
        drop(state);
        let drain = self.expected_hold.as_secs_f64() * ahead as f64 / limit.max(1) as f64;
        let after = Duration::from_secs_f64(drain.clamp(1.0, 32.0));
        Rejection::new(reason).class(class).waited(waited).retry_after(after)
    }

    pub(crate) fn count_done(&self, row: usize) {
        self.done[row].fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
