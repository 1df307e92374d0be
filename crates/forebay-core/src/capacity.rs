use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crate::Class;

/// How many places the backends have free, and a way to take one before choosing which.
///
/// The priority layer reserves a place with each grant; the balancer redeems it when it picks. So the backlog stays where
/// order is kept, and a request binds to a backend as late as possible.
///
/// An implementation takes its own lock only and calls nobody under it, so that it is safe under a scheduler's lock.
#[diagnostic::on_unimplemented(note = "`BalanceHandle::capacity()` of forebay-balance is a capacity signal")]
pub trait CapacitySignal: Send + Sync + 'static {
    /// Reserves a place for a request of this class; `None`: there is none now.
    fn try_reserve(&self, class: Class) -> Option<Reservation>;

    /// Wakes `waker`, outside all locks, whenever a place may have come free, until the subscription is dropped.
    fn subscribe(&self, waker: &Waker) -> Subscription;

    /// What there is for `class`; for `None`, of all pools together.
    fn places(&self, class: Option<Class>) -> Places;
}

/// The capacity behind a [`CapacitySignal`] now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Places {
    /// Endpoints that may be picked.
    pub endpoints: u32,
    /// The sum of their weights.
    pub weight: u64,
    /// Places altogether.
    pub total: u32,
    /// Places that are free.
    pub open: u32,
}

/// A place at some backend, held for one request. A request extension.
///
/// Clones share one place: the first to [`redeem`](Self::redeem) it gets it, and if nobody does, dropping the last clone
/// drops the place, whose own `Drop` gives it back.
#[derive(Clone)]
pub struct Reservation(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Reservation {
    /// A reservation that holds `place`.
    #[must_use]
    pub fn new<T: Send + 'static>(place: T) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(place)))))
    }

    /// Takes the place out, if it is there and a `T`: a place of another kind stays for whoever it is meant for.
    #[must_use]
    pub fn redeem<T: Send + 'static>(&self) -> Option<T> {
        // A poisoned lock only means that a panic passed by: the slot is whole, it is taken in one step.
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.take()?.downcast::<T>() {
            Ok(place) => Some(*place),
            Err(other) => {
                *slot = Some(other);
                None
            }
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reservation(..)")
    }
}

/// Keeps a [`CapacitySignal::subscribe`] alive; ends it on drop.
pub struct Subscription(#[allow(dead_code)] Box<dyn Any + Send>); // held for its Drop only

impl Subscription {
    /// A subscription that ends when `guard` is dropped.
    #[must_use]
    pub fn new<T: Send + 'static>(guard: T) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription(..)")
    }
}

/// The backends of one pool: balance reports it, autoscale reads it. As an `Option`, `None` means unknown, never zero.
///
/// Pool names are the same strings in both; without pools the one pool is `"default"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaState {
    /// Serving.
    pub ready: u32,
    /// Ordered or booting, not yet serving.
    pub starting: u32,
    /// What the orchestrator says there are.
    pub current: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[derive(Debug)]
    struct Place(Arc<AtomicU32>);
    impl Drop for Place {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn the_first_taker_wins_and_the_place_returns_once() {
        let returned = Arc::new(AtomicU32::new(0));
        let first = Reservation::new(Place(Arc::clone(&returned)));
        let second = first.clone();
        assert!(first.redeem::<String>().is_none(), "a place of another kind stays");
        let place = second.redeem::<Place>().expect("still there");
        assert!(first.redeem::<Place>().is_none());
        drop((first, second));
        assert_eq!(returned.load(SeqCst), 0);
        drop(place);
        assert_eq!(returned.load(SeqCst), 1);
    }

    #[test]
    fn an_unredeemed_place_returns_with_the_last_clone() {
        let returned = Arc::new(AtomicU32::new(0));
        let first = Reservation::new(Place(Arc::clone(&returned)));
        let second = first.clone();
        drop(first);
        assert_eq!(returned.load(SeqCst), 0);
        drop(second);
        assert_eq!(returned.load(SeqCst), 1);
    }

    #[test]
    fn a_subscription_ends_on_drop() {
        let ended = Arc::new(AtomicU32::new(0));
        let subscription = Subscription::new(Place(Arc::clone(&ended)));
        assert_eq!(ended.load(SeqCst), 0);
        drop(subscription);
        assert_eq!(ended.load(SeqCst), 1);
    }
}
