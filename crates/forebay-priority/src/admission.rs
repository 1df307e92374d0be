//! The same queues without HTTP: ask for seats, wait, hold a [`Permit`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use forebay_core::{Class, Deadline, Principal, Reason, Rejection};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::permit::{Permit, Place};
use crate::policy::{self, Offer, Tick};
use crate::shared::Shared;

/// How many seats a request takes: at least 1, and never more than its class can ever have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seats(u32);

impl Seats {
    /// This many seats; 0 counts as 1.
    #[must_use]
    pub const fn new(seats: u32) -> Self {
        Self(if seats == 0 { 1 } else { seats })
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Seats {
    /// One.
    fn default() -> Self {
        Self(1)
    }
}

/// What is asked of an [`Admission`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Ask {
    class: Class,
    seats: Seats,
    deadline: Option<Deadline>,
    principal: Option<Principal>,
}

impl Ask {
    /// One seat for a request of this class.
    pub const fn new(class: Class) -> Self {
        Self { class, seats: Seats(1), deadline: None, principal: None }
    }

    /// Asks for so many seats.
    pub const fn seats(mut self, seats: Seats) -> Self {
        self.seats = seats;
        self
    }

    /// After this there is no use in an answer.
    pub const fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// On whose behalf: within a class tenants are served in turn.
    pub fn principal(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }
}

/// The queues and seats of a layer, for work that is no HTTP request. From
/// [`PriorityHandle::admission`](crate::PriorityHandle::admission).
///
/// ```
/// use forebay_core::{Class, Outcome};
/// use forebay_priority::{Ask, PriorityConfig, PriorityLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (_, handle) = PriorityLayer::builder().config(PriorityConfig::four_class(2)).build_with_handle()?;
/// let permit = handle.admission().acquire(Ask::new(Class::P1)).await?;
/// assert_eq!(handle.snapshot().classes[1].in_flight, 1);
/// permit.finish(Outcome::Success);
/// assert_eq!(handle.snapshot().classes[1].in_flight, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Admission {
    pub(crate) shared: Arc<Shared>,
}

impl Admission {
    /// Waits for seats. Nothing happens before the first poll; dropped, it gives up its place.
    #[must_use = "a future does nothing until it is awaited"]
    pub fn acquire(&self, ask: Ask) -> Acquire {
        let tenant = ask.principal.map(|principal| self.shared.settings.tenant_of(&principal));
        Acquire::new(Arc::clone(&self.shared), ask.class, ask.seats, ask.deadline, tenant)
    }

    /// Takes seats if they are free now.
    ///
    /// # Errors
    ///
    /// Why not: [`Reason::Overloaded`] where it would have to wait.
    pub fn try_acquire(&self, ask: Ask) -> Result<Permit, Rejection> {
        let class = ask.class;
        let mut acquire = Box::pin(self.acquire(ask));
        match acquire.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(self.shared.reject(class, Reason::Overloaded, Duration::ZERO)),
        }
    }
}

pin_project! {
    /// The future of [`Admission::acquire`]: a [`Permit`], or why not.
    #[must_use = "a future does nothing until it is awaited"]
    pub struct Acquire {
        shared: Arc<Shared>,
        class: Class,
        seats: Seats,
        deadline: Option<Deadline>,
        tenant: Option<u64>,
        #[pin]
        state: Waiting,
    }
}

pin_project! {
    #[project = WaitingProj]
    enum Waiting {
        Arriving,
        Queued { place: Place, since: Instant, #[pin] alarm: Sleep },
        Done,
    }
}

impl std::fmt::Debug for Acquire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquire").field("class", &self.class).field("seats", &self.seats).finish_non_exhaustive()
    }
}

impl Acquire {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        class: Class,
        seats: Seats,
        deadline: Option<Deadline>,
        tenant: Option<u64>,
    ) -> Self {
        Self { shared, class, seats, deadline, tenant, state: Waiting::Arriving }
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                WaitingProj::Arriving => {
                    let row = this.shared.rules().index(*this.class);
                    let deadline = this.deadline.map_or(Tick::NEVER, |deadline| this.shared.tick(deadline.instant()));
                    let cost = this.seats.get();
                    let mut ask = policy::Ask { class: row, cost, deadline, tenant: *this.tenant };
                    match this.shared.offer(&mut ask) {
                        // Arriving => Done: the house is not full.
                        Offer::Admitted(taken, place) => {
                            this.state.set(Waiting::Done);
                            let permit = Permit::new(Arc::clone(this.shared), taken, place, Duration::ZERO);
                            return Poll::Ready(Ok(permit));
                        }
                        // Arriving => Queued: until a seat is granted or the time is up.
                        Offer::Queued(ticket) => {
                            let place = Place::new(Arc::clone(this.shared), row, ask.cost, ticket);
                            let since = Instant::now();
                            let alarm = sleep_until(place.alarm().unwrap_or(since));
                            this.state.set(Waiting::Queued { place, since, alarm });
                        }
                        // Arriving => Done: refused at once.
                        Offer::Refused(reason) => {
                            this.state.set(Waiting::Done);
                            return Poll::Ready(Err(this.shared.reject(*this.class, reason, Duration::ZERO)));
                        }
                    }
                }
                WaitingProj::Queued { place, since, mut alarm } => {
                    let settled = match place.poll(cx, false) {
                        // A seat that came in the same tick as the end of the wait counts.
                        Poll::Ready(settled) => settled,
                        Poll::Pending => {
                            ready!(alarm.as_mut().poll(cx));
                            match place.poll(cx, true) {
                                Poll::Ready(settled) => settled,
                                Poll::Pending => {
                                    // Another's seat was taken away, or the timeout was changed: not yet.
                                    let next = place.alarm().unwrap_or_else(Instant::now);
                                    alarm.as_mut().reset(next);
                                    continue;
                                }
                            }
                        }
                    };
                    let waited = since.elapsed();
                    // Queued => Done.
                    this.state.set(Waiting::Done);
                    return Poll::Ready(match settled {
                        Ok((taken, place)) => Ok(Permit::new(Arc::clone(this.shared), taken, place, waited)),
                        Err(reason) => Err(this.shared.reject(*this.class, reason, waited)),
                    });
                }
                WaitingProj::Done => panic!("Acquire polled after it was done"),
            }
        }
    }
}
