use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crate::Class;

/// Moves a queued request up when a more urgent one waits for the same answer: the cache raises, a queue obeys.
///
/// A request extension. It only ever makes a request more urgent. The priority layer moves a waiter to the queue of the new
/// class, as if it came there now, with that class's timeout; where that queue is full it stays where it is. In the counts
/// it is cancelled in one class and offered in the other.
#[derive(Clone)]
pub struct Raise(Arc<(AtomicU8, Mutex<Option<Waker>>)>);

impl Raise {
    /// A cell that starts at `class`.
    #[must_use]
    pub fn new(class: Class) -> Self {
        Self(Arc::new((AtomicU8::new(class.index() as u8), Mutex::new(None))))
    }

    /// Raises the request to `class`, if that is more urgent than what it has, and tells the queue.
    pub fn raise(&self, class: Class) {
        let before = self.0.0.fetch_min(class.index() as u8, Ordering::AcqRel);
        if class.index() < usize::from(before) {
            let waker = self.waiting().take();
            if let Some(waker) = waker {
                waker.wake(); // outside the lock: a waker may come back here
            }
        }
    }

    /// The class now.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::new(self.0.0.load(Ordering::Acquire))
    }

    /// Wakes `waker` at the next raise, once; a later call replaces it. Read [`class`](Self::class) *after* it, or a
    /// raise in between is missed.
    pub fn on_raise(&self, waker: &Waker) {
        let old = self.waiting().replace(waker.clone());
        drop(old); // outside the lock, as a waker's Drop is foreign code
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Raise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Raise").field(&self.class()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_goes_up_and_wakes_once_for_each_rise() {
        let raise = Raise::new(Class::P2);
        let mut task = tokio_test::task::spawn(());
        task.enter(|cx, _| raise.on_raise(cx.waker()));
        raise.raise(Class::P3);
        raise.raise(Class::P2);
        assert!(!task.is_woken());
        assert_eq!(raise.class(), Class::P2);
        raise.clone().raise(Class::P0);
        assert!(task.is_woken());
        raise.raise(Class::P1);
        assert_eq!(raise.class(), Class::P0);
    }
}
