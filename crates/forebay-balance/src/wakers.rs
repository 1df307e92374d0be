use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::sync::{Mutex, MutexGuard};

/// Those to wake when a place may have come free: one for each layer that asked, so a handful.
///
/// Wakers are foreign code: they are cloned, woken and dropped outside the lock. So the list is copied when it changes,
/// and waking copies nothing.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    list: Mutex<Arc<[Arc<Waker>]>>,
    /// How many there are: read without the lock, as most balancers have none. Who adds itself and then looks for a
    /// place under the ledger's lock finds it, or is seen here by who opens it under that lock later.
    len: AtomicUsize,
}

impl Wakers {
    /// Adds one; what comes back is its key to [`remove`](Self::remove).
    pub(crate) fn add(&self, waker: &Waker) -> Arc<Waker> {
        let added = Arc::new(waker.clone());
        self.replace(|list| list.iter().chain([&added]).cloned().collect());
        added
    }

    pub(crate) fn remove(&self, removed: &Arc<Waker>) {
        self.replace(|list| list.iter().filter(|waker| !Arc::ptr_eq(waker, removed)).cloned().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Wakes all. The state that they will read must have changed before.
    pub(crate) fn wake(&self) {
        if self.is_empty() {
            return;
        }
        let list = Arc::clone(&self.lock());
        for waker in list.iter() {
            waker.wake_by_ref();
        }
    }

    fn replace(&self, with: impl FnOnce(&[Arc<Waker>]) -> Arc<[Arc<Waker>]>) {
        let mut list = self.lock();
        let new = with(&list);
        self.len.store(new.len(), Ordering::Relaxed);
        let old = mem::replace(&mut *list, new);
        drop(list);
        drop(old); // it may hold the last of a waker
    }

    fn lock(&self) -> MutexGuard<'_, Arc<[Arc<Waker>]>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
