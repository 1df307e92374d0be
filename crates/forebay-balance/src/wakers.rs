use std::mem;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::sync::{Mutex, MutexGuard};

/// Those to wake when a place may have come free: one for each layer that asked, so a handful.
///
/// Wakers are foreign code: they are cloned, woken and dropped outside the lock. So the list is copied when it changes,
/// and waking copies nothing.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Mutex<Arc<[Arc<Waker>]>>);

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
        self.lock().is_empty()
    }

    /// Wakes all. The state that they will read must have changed before.
    pub(crate) fn wake(&self) {
        let list = Arc::clone(&self.lock());
        for waker in list.iter() {
            waker.wake_by_ref();
        }
    }

    fn replace(&self, with: impl FnOnce(&[Arc<Waker>]) -> Arc<[Arc<Waker>]>) {
        let mut list = self.lock();
        let new = with(&list);
        let old = mem::replace(&mut *list, new);
        drop(list);
        drop(old); // it may hold the last of a waker
    }

    fn lock(&self) -> MutexGuard<'_, Arc<[Arc<Waker>]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
