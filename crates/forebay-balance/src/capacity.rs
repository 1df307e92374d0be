use std::sync::Arc;
use std::task::Waker;

use forebay_core::{CapacitySignal, Class, Places, Reservation, Subscription};
use http::Extensions;

use crate::ledger::{Core, now};
use crate::policy::Claim;

/// The places of a [`Balance`](crate::Balance), to be reserved before an endpoint is chosen.
///
/// A reserved place is a right to one pick, at whatever endpoint is best by then. Put the [`Reservation`] into the
/// request's extensions: its pick is never refused because others came first, as requests without one get only what is
/// not reserved. It can still be refused if, in between, an endpoint was drained or its `max_concurrency` lowered.
/// Dropped unused, it gives its place back.
///
/// The places of a class are those of the pools of its route: the sum of what each endpoint that takes requests may
/// have at once, less what others than we have there. As soon as one of them has no bound, there are as many as one
/// likes, `u32::MAX` in [`Places`].
///
/// Subscribers are woken after the open places have grown (a reservation was dropped, an exchange has ended) or a
/// setting has changed, outside all locks: a waker may call back, also [`try_reserve`](CapacitySignal::try_reserve).
/// Dropping a `Reservation` wakes, so do it outside locks that a waker takes. It wakes the one who drops it, too: to
/// reserve and drop in answer to every wake-up would go round for ever.
#[derive(Debug, Clone)]
pub struct Capacity {
    pub(crate) core: Arc<Core>,
}

impl CapacitySignal for Capacity {
    /// O(pools of the class), under a lock of its own; the allocation is the reservation's.
    fn try_reserve(&self, class: Class) -> Option<Reservation> {
        let mut ledger = self.core.ledger();
        if ledger.picker.due().is_some() {
            ledger.picker.advance(now());
        }
        let claim = ledger.picker.reserve(class)?;
        drop(ledger);
        Some(Reservation::new(Place::new(&self.core, claim)))
    }

    fn subscribe(&self, waker: &Waker) -> Subscription {
        let waker = self.core.wakers.add(waker);
        self.core.keep_awake();
        Subscription::new(Subscribed { core: Arc::clone(&self.core), waker })
    }

    /// O(endpoints).
    fn places(&self, class: Option<Class>) -> Places {
        self.core.ledger().picker.places(class)
    }
}

/// A reserved place. Dropped, it is open again.
#[derive(Debug)]
pub(crate) struct Place {
    /// `None`: used up by a pick.
    core: Option<Arc<Core>>,
    claim: Claim,
}

impl Place {
    pub(crate) fn new(core: &Arc<Core>, claim: Claim) -> Self {
        Self { core: Some(Arc::clone(core)), claim }
    }

    /// The place that a request brings along, if it is one of `core`.
    pub(crate) fn of(core: &Arc<Core>, extensions: &mut Extensions) -> Option<Self> {
        let place = extensions.get::<Reservation>()?.redeem::<Self>()?;
        if place.core.as_ref().is_some_and(|of| Arc::ptr_eq(of, core)) {
            return Some(place);
        }
        extensions.insert(Reservation::new(place)); // of a balancer further in
        None
    }

    /// It is used up: the caller takes it off the reserved ones, in the step in which it picks.
    pub(crate) fn use_up(mut self) -> Claim {
        self.core = None;
        self.claim
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.change(|ledger| ledger.picker.unreserve(self.claim));
        }
    }
}

struct Subscribed {
    core: Arc<Core>,
    waker: Arc<Waker>,
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.core.wakers.remove(&self.waker);
    }
}
