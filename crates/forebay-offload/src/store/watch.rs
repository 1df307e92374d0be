use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::{Notify, futures::OwnedNotified};

use crate::policy::{Effects, JobId};

/// Whom to wake for each watched job, and how many they are.
type ByJob = HashMap<JobId, (Arc<Notify>, usize)>;

/// Who waits for what, in one queue.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    work: Arc<Notify>,
    jobs: Arc<Mutex<ByJob>>,
}

impl Watchers {
    /// Resolves when a job may be ready. A wake-up that finds nobody waiting is kept for the next.
    pub(crate) fn work(&self) -> Changed {
        Changed::from_notified(Arc::clone(&self.work).notified_owned(), None)
    }

    /// Resolves when the job changes from now on.
    pub(crate) fn changed(&self, id: JobId) -> Changed {
        let notify = {
            let mut jobs = lock(&self.jobs);
            let (notify, count) = jobs.entry(id).or_default();
            *count += 1;
            Arc::clone(notify)
        };
        // `notify_waiters` reaches every `Notified` that exists, polled or not.
        Changed::from_notified(notify.notified_owned(), Some(Watch { id, jobs: Arc::clone(&self.jobs) }))
    }

    /// Wakes whom these effects concern; called once they are on record.
    pub(crate) fn tell(&self, effects: &Effects) {
        if effects.work {
            self.work.notify_one();
        }
        let jobs = lock(&self.jobs);
        if jobs.is_empty() {
            return;
        }
        let concerned: Vec<_> =
            effects.saved.iter().chain(&effects.erased).filter_map(|id| Some(Arc::clone(&jobs.get(id)?.0))).collect();
        drop(jobs); // a woken task may run at once and look here
        for notify in concerned {
            notify.notify_waiters();
        }
    }
}

/// Resolves when what is waited for has happened, as far as the store can tell; whoever waits looks again now and then.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Changed {
    notified: Option<Pin<Box<OwnedNotified>>>,
    _watch: Option<Watch>,
}

impl Changed {
    /// Never resolves: for a store that cannot tell.
    pub const fn never() -> Self {
        Self { notified: None, _watch: None }
    }

    /// Resolves at the next wake-up by `notify_waiters` or `notify_one`, counted from this call.
    pub fn of(notify: Arc<Notify>) -> Self {
        Self::from_notified(notify.notified_owned(), None)
    }

    fn from_notified(notified: OwnedNotified, watch: Option<Watch>) -> Self {
        Self { notified: Some(Box::pin(notified)), _watch: watch }
    }
}

impl Future for Changed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.notified.as_mut().map_or(Poll::Pending, |notified| notified.as_mut().poll(cx))
    }
}

/// One waiter for a job; the entry goes with the last.
#[derive(Debug)]
struct Watch {
    id: JobId,
    jobs: Arc<Mutex<ByJob>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut jobs = lock(&self.jobs);
        if let Some((_, count)) = jobs.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                jobs.remove(&self.id);
            }
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics under these locks; if it did, the data would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
