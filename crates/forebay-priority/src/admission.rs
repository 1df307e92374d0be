//! The same queues without HTTP: ask for seats, wait, hold a [`Permit`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use forebay_core::{Class, Deadline, Principal, Raise, Reason, Rejection};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use crate::permit::{Permit, Place};
use crate::policy::{self, Tick};
use crate::settings::Settings;
use crate::shared::{Offered, Shared};

/// How many seats a request takes: at least 1, and never more than its class can ever have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seats {
    seats: u32,
    /// From the first data of the answer on; 0: as many as before.
    later: u32,
}

impl Seats {
    /// This many seats; 0 counts as 1.
    #[must_use]
    pub const fn new(seats: u32) -> Self {
        Self { seats: if seats == 0 { 1 } else { seats }, later: 0 }
    }

    /// From the first data of the answer on it takes so many, if that is fewer; 0 counts as 1. The others pass on: a model
    /// server reads a prompt (prefill) at a cost that grows with its length, and then writes (decode) for long at little.
    ///
    /// ```
    /// use forebay_priority::{PriorityLayer, Seats};
    ///
    /// let builder = PriorityLayer::builder().cost(|head| match head.headers.get("content-length") {
    ///     Some(length) if length.len() > 5 => Seats::new(8).after_first_frame(1), // from 100 kB on
    ///     _ => Seats::new(1),
    /// });
    /// # drop(builder);
    /// ```
    #[must_use]
    pub const fn after_first_frame(self, seats: u32) -> Self {
        Self { later: if seats == 0 { 1 } else { seats }, ..self }
    }

    /// The number, until the answer begins.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.seats
    }

    /// How many from then on, if that was said.
    pub(crate) const fn later(self) -> Option<Self> {
        if self.later == 0 { None } else { Some(Self::new(self.later)) }
    }
}

impl Default for Seats {
    /// One.
    fn default() -> Self {
        Self::new(1)
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
    raise: Option<Raise>,
}

impl Ask {
    /// One seat for a request of this class.
    pub const fn new(class: Class) -> Self {
        Self { class, seats: Seats::new(1), deadline: None, principal: None, raise: None }
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

    /// Moves up in the queue with this.
    pub fn raise(mut self, raise: Raise) -> Self {
        self.raise = Some(raise);
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
        Acquire { ask, step: Step::Arriving { asks: Some(Arc::clone(&self.shared)) } }
    }

    /// Takes seats if they are free now.
    ///
    /// # Errors
    ///
    /// Why not: [`Reason::Overloaded`] where it would have to wait.
    pub fn try_acquire(&self, ask: Ask) -> Result<Permit, Rejection> {
        let class = ask.class;
        let mut acquire = self.acquire(ask);
        match Pin::new(&mut acquire).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(self.shared.reject(class, Reason::Overloaded, Duration::ZERO)),
        }
    }
}

/// The future of [`Admission::acquire`]: a [`Permit`], or why not.
#[must_use = "a future does nothing until it is awaited"]
pub struct Acquire {
    ask: Ask,
    step: Step,
}

enum Step {
    Arriving { asks: Option<Arc<Shared>> },
    Queued(Pin<Box<Turn>>),
    Done,
}

impl std::fmt::Debug for Acquire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquire").field("ask", &self.ask).finish_non_exhaustive()
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Rejection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.step {
                Step::Arriving { asks } => {
                    let Ask { class, seats, deadline, principal, raise } = &this.ask;
                    let tenant = |settings: &Settings| Some(settings.tenant_of(principal.as_ref()?));
                    let mut permit = None;
                    match enter(asks, *class, *seats, *deadline, tenant, cx.waker(), &mut permit) {
                        // Arriving => Done: the house is not full.
                        Entered::Seated => {
                            this.step = Step::Done;
                            return Poll::Ready(Ok(permit.expect("it is seated")));
                        }
                        // Arriving => Queued: until a seat is granted or the time is up.
                        Entered::Queued(mut turn) => {
                            turn.as_mut().follow(raise.as_ref());
                            this.step = Step::Queued(turn);
                        }
                        // Arriving => Done: refused at once.
                        Entered::Refused(why, _) => {
                            this.step = Step::Done;
                            return Poll::Ready(Err(why));
                        }
                    }
                }
                Step::Queued(turn) => {
                    let settled = ready!(turn.as_mut().poll(cx));
                    // Queued => Done.
                    this.step = Step::Done;
                    return Poll::Ready(settled);
                }
                Step::Done => panic!("Acquire polled after it was done"),
            }
        }
    }
}

/// What becomes of a newcomer at once.
pub(crate) enum Entered {
    /// Its permit is where it was to be put: it is moved often enough.
    Seated,
    Queued(Pin<Box<Turn>>),
    Refused(Rejection, Arc<Shared>),
}

const ONCE: &str = "it asks once";

/// Asks for seats, once; `tenant`, a user's code, is looked for only where it matters, in a queue.
#[inline]
pub(crate) fn enter(
    asks: &mut Option<Arc<Shared>>,
    class: Class,
    seats: Seats,
    deadline: Option<Deadline>,
    tenant: impl FnOnce(&Settings) -> Option<u64>,
    waker: &Waker,
    permit: &mut Option<Permit>,
) -> Entered {
    let shared = asks.as_ref().expect(ONCE);
    let row = shared.timeouts.index(class);
    let deadline = deadline.map_or(Tick::NEVER, |deadline| shared.tick(deadline.instant()));
    let ask = policy::Ask { class: row, cost: seats.get(), deadline, tenant: None };
    if let Some(granted) = shared.pass(&ask) {
        *permit = Some(Permit::lent(asks.take().expect(ONCE), row as u8, granted));
        return Entered::Seated;
    }
    ask_scheduler(asks, class, seats, ask, tenant, waker, permit)
}

fn ask_scheduler(
    asks: &mut Option<Arc<Shared>>,
    class: Class,
    seats: Seats,
    mut ask: policy::Ask,
    tenant: impl FnOnce(&Settings) -> Option<u64>,
    waker: &Waker,
    permit: &mut Option<Permit>,
) -> Entered {
    let shared = asks.as_ref().expect(ONCE);
    let offered = match shared.try_admit(&mut ask) {
        Some((taken, place)) => Offered::Admitted(taken, place),
        None => {
            ask.tenant = tenant(&shared.settings);
            shared.offer(&mut ask, waker)
        }
    };
    let shared = asks.take().expect(ONCE); // only now, as users' code may panic
    match offered {
        Offered::Admitted(taken, place) => {
            *permit = Some(Permit::new(shared, taken, place, Duration::ZERO, seats));
            Entered::Seated
        }
        Offered::Queued { ticket, since } => {
            let place = Place::new(shared, &ask, ticket, since);
            // What comes free may be granted to it before its first poll. Should a body panic when it is dropped, the place is
            // given up.
            place.shared().reclaim();
            let alarm = sleep_until(place.shared().instant(place.alarm().unwrap_or(Tick::ZERO)));
            Entered::Queued(Box::pin(Turn { place, class, seats, raise: None, new: true, alarm }))
        }
        Offered::Refused(reason, ahead) => {
            Entered::Refused(shared.reject_behind(ahead, class, reason, Duration::ZERO), shared)
        }
    }
}

pin_project! {
    /// A wait in a queue. In a box, as only those who wait have one.
    pub(crate) struct Turn {
        place: Place,
        class: Class,
        seats: Seats,
        raise: Option<Raise>,
        // Not polled yet: it has left its waker with its offer, and is woken if it has been settled since.
        new: bool,
        #[pin]
        alarm: Sleep,
    }
}

impl Turn {
    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        self.place.shared()
    }

    /// The class that it waits in, or has waited in.
    pub(crate) const fn class(&self) -> Class {
        self.class
    }

    /// Moves up with this from now on.
    pub(crate) fn follow(self: Pin<&mut Self>, raise: Option<&Raise>) {
        *self.project().raise = raise.cloned();
    }
}

impl Future for Turn {
    type Output = Result<Permit, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(raise) = this.raise {
            raise.on_raise(cx.waker()); // before it is read, so that no rise is missed
            let class = raise.class();
            if class < *this.class && this.place.raise(class) {
                (*this.class, *this.new) = (class, false);
                let alarm = this.place.alarm().unwrap_or(Tick::ZERO);
                this.alarm.as_mut().reset(this.place.shared().instant(alarm));
            }
        }
        let settled = loop {
            // A seat that came in the same tick as the end of the wait counts.
            if !std::mem::take(this.new)
                && let Poll::Ready(settled) = this.place.poll(cx, false)
            {
                break settled;
            }
            ready!(this.alarm.as_mut().poll(cx));
            if let Poll::Ready(settled) = this.place.poll(cx, true) {
                break settled;
            }
            // Another's seat was taken away, or the timeout was changed: not yet.
            let next = this.place.alarm().unwrap_or(Tick::ZERO);
            this.alarm.as_mut().reset(this.place.shared().instant(next));
        };
        let shared = this.place.shared();
        Poll::Ready(match settled {
            Ok((taken, place)) => {
                let waited = taken.granted().map_or(Duration::ZERO, |granted| this.place.waited(granted));
                Ok(Permit::new(Arc::clone(shared), taken, place, waited, *this.seats))
            }
            Err(reason) => {
                let waited = this.place.waited(shared.now());
                Err(shared.reject(*this.class, reason, waited))
            }
        })
    }
}
