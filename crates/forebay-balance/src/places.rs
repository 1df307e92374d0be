use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use forebay_core::{CapacitySignal as _, Class, Places, Subscription};
use tokio::time::{Instant, sleep};

use crate::capacity::Capacity;
use crate::handle::BalanceHandle;
use crate::members::Members;

/// How long it takes at most until a place that was taken is seen: picks wake nobody, as they are many.
const LOOK: Duration = Duration::from_millis(100);

/// Follows how many places there are and how many are open. From [`BalanceHandle::watch_places`].
///
/// It is for whoever wants to know and takes none: a scaler, a dashboard, a worker that fetches work when there is room
/// for it. Who reserves places has [`BalanceHandle::capacity`].
///
/// Places are counted when somebody looks, in O(endpoints), so that nobody who does not look costs anything. As with
/// tokio's `watch`, what has come and gone in between is not seen. A busy fleet changes with each exchange: whoever needs
/// less, sleeps before he waits for the next change.
///
/// ```
/// # use forebay_balance::{Balance, Endpoint};
/// # use forebay_core::{Class, Outcome};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let builder = Balance::builder().endpoint(Endpoint::with_service("a", "connection").max_concurrency(1));
/// # let (balance, handle) = builder.build_with_handle()?;
/// # let held = balance.fleet().pick(Class::P1)?;
/// let mut watch = handle.watch_places(Class::P1);
/// # tokio::spawn(async move { held.finish(Outcome::Success) });
/// # drop(balance);
/// while watch.now().is_some_and(|places| places.open == 0) {
///     watch.changed().await;
/// }
/// // There is room for a request of P1, or the balancer is gone.
/// # assert_eq!(watch.now().expect("there").open, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PlacesWatch {
    /// It keeps no balancer alive.
    members: Weak<Members>,
    class: Option<Class>,
    seen: Option<Places>,
}

impl std::fmt::Debug for PlacesWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlacesWatch").field("class", &self.class).field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl BalanceHandle {
    /// Follows the places of a class, those in the pools of its route; with `None`, of all pools together.
    #[must_use]
    pub fn watch_places(&self, class: impl Into<Option<Class>>) -> PlacesWatch {
        let mut watch = PlacesWatch { members: self.downgrade(), class: class.into(), seen: None };
        watch.now();
        watch
    }
}

impl PlacesWatch {
    /// The places now, which [`changed`](Self::changed) then takes for seen. `None`: the balancer and its handles are gone.
    pub fn now(&mut self) -> Option<Places> {
        self.seen = Some(self.capacity()?.places(self.class));
        self.seen
    }

    /// Waits until the places are others than those seen last, and says how many there are now. `None`: the balancer and
    /// its handles are gone.
    ///
    /// What opens, and what endpoints that come, go or change bring, is seen at once; what is taken within 100 ms. It
    /// needs a tokio runtime with time.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has seen nothing: the next call returns what this one would have.
    pub async fn changed(&mut self) -> Option<Places> {
        let mut subscribed: Option<(Waker, Subscription)> = None;
        let mut look = pin!(sleep(LOOK));
        let places = poll_fn(|cx| {
            loop {
                let Some(capacity) = self.capacity() else { return Poll::Ready(None) };
                // Before the count, or what opens in between would wake nobody.
                if subscribed.as_ref().is_none_or(|(waker, _)| !waker.will_wake(cx.waker())) {
                    subscribed = Some((cx.waker().clone(), capacity.subscribe(cx.waker())));
                }
                let places = capacity.places(self.class);
                if self.seen != Some(places) {
                    return Poll::Ready(Some(places));
                }
                if look.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                look.as_mut().reset(Instant::now() + LOOK);
            }
        });
        let places = places.await?;
        self.seen = Some(places);
        Some(places)
    }

    fn capacity(&self) -> Option<Capacity> {
        Some(Capacity { core: Arc::clone(&self.members.upgrade()?.core) })
    }
}
