use std::sync::Arc;
use std::task::Waker;

use forebay_core::{CapacitySignal, Class, Places, Reservation, Subscription};
use http::Extensions;

use crate::permit::Counts;

/// The places of a [`Balance`](crate::Balance), to be reserved before an endpoint is chosen.
///
/// A reserved place is a right to one pick, at whatever endpoint is best by then. Put the [`Reservation`] into the
/// request's extensions: its pick is never refused because others came first, as requests without one get only what is
/// not reserved. It can still be refused if, in between, an endpoint was drained or its `max_concurrency` lowered.
/// Dropped unused, it gives its place back.
///
/// The places are the sum of `max_concurrency` over the endpoints with a weight; as soon as one of them has no bound,
/// there are as many as one likes, `u32::MAX` in [`Places`]. There are no pools yet: all classes share the places.
///
/// Subscribers are woken after the open places have grown (a reservation was dropped, an exchange has ended) or a
/// setting has changed, outside all locks: a waker may call back, also [`try_reserve`](CapacitySignal::try_reserve).
/// Dropping a `Reservation` wakes, so do it outside locks that a waker takes. It wakes the one who drops it, too: to
/// reserve and drop in answer to every wake-up would go round for ever.
#[derive(Debug, Clone)]
pub struct Capacity {
    pub(crate) counts: Arc<Counts>,
}

impl CapacitySignal for Capacity {
    /// O(1), under a lock of its own; the allocation is the reservation's.
    fn try_reserve(&self, _: Class) -> Option<Reservation> {
        let reserved = self.counts.ledger().picker.reserve();
        reserved.then(|| Reservation::new(Place { counts: Some(Arc::clone(&self.counts)) }))
    }

    fn subscribe(&self, waker: &Waker) -> Subscription {
        let waker = self.counts.wakers.add(waker);
        Subscription::new(Subscribed { counts: Arc::clone(&self.counts), waker })
    }

    fn places(&self, _: Option<Class>) -> Places {
        self.counts.ledger().picker.places()
    }
}

/// A reserved place. Dropped, it is open again.
#[derive(Debug)]
pub(crate) struct Place {
    /// `None`: used up by a pick.
    counts: Option<Arc<Counts>>,
}

impl Place {
    /// The place that a request brings along, if it is one of `counts`.
    pub(crate) fn of(counts: &Arc<Counts>, extensions: &mut Extensions) -> Option<Self> {
        let place = extensions.get::<Reservation>()?.redeem::<Self>()?;
        if place.counts.as_ref().is_some_and(|of| Arc::ptr_eq(of, counts)) {
            return Some(place);
        }
        extensions.insert(Reservation::new(place)); // of a balancer further in
        None
    }

    /// It is used up: the caller takes it off the reserved ones, in the step in which it picks.
    pub(crate) fn use_up(mut self) {
        self.counts = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(counts) = self.counts.take() {
            counts.change(|ledger| ledger.picker.unreserve());
        }
    }
}

struct Subscribed {
    counts: Arc<Counts>,
    waker: Arc<Waker>,
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.counts.wakers.remove(&self.waker);
    }
}
