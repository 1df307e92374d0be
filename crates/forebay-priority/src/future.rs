//! The response future, and what it leaves in the extensions.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::{
    Class, Counted, Deadline, Guarded, NoOverflow, Offloaded, Outcome, Overflow, Reason, Rejection, RequestHead,
    ResBody,
};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::admission::{Entered, Seats, Turn, enter};
use crate::permit::Permit;
use crate::seat::Seat;
use crate::service::PriorityBody;
use crate::shared::Shared;
use crate::spill::Spill;

/// How long a request waited in the queue. An extension of requests that did wait, for the services inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueWait(pub Duration);

/// The request waited, and was admitted. An extension of its response, for the layers outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admitted {
    /// Its class.
    pub class: Class,
    /// How long it waited.
    pub waited: Duration,
}

pin_project! {
    /// The future of a [`Priority`](crate::Priority): waits for a seat, then for the answer.
    ///
    /// Dropped at any point it gives up its place or passes on its seat. Nothing happens before the first poll.
    pub struct ResponseFuture<S, B, O = NoOverflow>
    where
        S: Service<Request<B>>,
        O: Overflow<B>,
    {
        // Dropped before the permit: the work is over before its seat is free.
        #[pin]
        step: Step<S::Future, B, O::Future>,
        inner: S,
        spill: Spill<O>,
        class: Class,
        tunnel: bool,
        // None: it is exempt, or has no seat yet.
        permit: Option<Permit>,
        // By when the head must be there. In a box, as it is rarely there and large.
        limit: Option<Pin<Box<Sleep>>>,
    }
}

pin_project! {
    // The request lies where the future of the call will lie: nothing is moved more often than needed.
    #[project = StepProj]
    #[project_replace = StepOwned]
    enum Step<F, B, O> {
        // `asks`: of whom it has yet to ask for a seat.
        Arriving { request: Request<B>, asks: Option<Arc<Shared>> },
        Waiting { request: Request<B>, turn: Pin<Box<Turn>> },
        Running { #[pin] future: F },
        Spilling { future: Pin<Box<O>>, shared: Arc<Shared> }, // rare, and large
        Done,
    }
}

impl<S: Service<Request<B>>, B, O: Overflow<B>> ResponseFuture<S, B, O> {
    pub(crate) const fn new(inner: S, request: Request<B>, shared: Arc<Shared>, spill: Spill<O>) -> Self {
        Self {
            step: Step::Arriving { request, asks: Some(shared) },
            inner,
            spill,
            class: Class::P2,
            tunnel: false,
            permit: None,
            limit: None,
        }
    }
}

impl<S: Service<Request<B>>, B, O: Overflow<B>> std::fmt::Debug for ResponseFuture<S, B, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("class", &self.class).finish_non_exhaustive()
    }
}

impl<F, B, O> Step<F, B, O> {
    /// Takes the request out of a step that has it still.
    fn take(self: Pin<&mut Self>) -> Request<B> {
        match self.project_replace(Self::Done) {
            StepOwned::Arriving { request, .. } | StepOwned::Waiting { request, .. } => request,
            _ => unreachable!("it goes with the call or the hook, once"),
        }
    }
}

impl<S, B, O, R> Future for ResponseFuture<S, B, O>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
    O: Overflow<B>,
{
    type Output = Result<Response<PriorityBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let refused = loop {
            match this.step.as_mut().project() {
                StepProj::Arriving { request, asks } => {
                    let mut deadline = None;
                    match arrive(request, asks, this.class, this.tunnel, &mut deadline) {
                        // It is exempt, or had its seat before.
                        None => {}
                        Some(Entered::Seated(permit)) => {
                            *this.limit = seated(request, this.permit.insert(permit), *this.class, deadline);
                        }
                        // Arriving => Waiting: in the queue.
                        Some(Entered::Queued(turn)) => {
                            let request = this.step.as_mut().take();
                            this.step.set(Step::Waiting { request, turn });
                            continue;
                        }
                        // Arriving => Spilling | Done.
                        Some(Entered::Refused(why, shared)) => match spill(this.spill, request, *this.class, &why) {
                            Some(hook) => {
                                let future = Box::pin(hook.overflow(this.step.as_mut().take(), why));
                                this.step.set(Step::Spilling { future, shared });
                                continue;
                            }
                            None => break why,
                        },
                    }
                    match this.inner.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {
                            // Arriving => Running: the very instance that was polled ready.
                            let future = this.inner.call(this.step.as_mut().take());
                            this.step.set(Step::Running { future });
                        }
                        // Arriving => Done.
                        Poll::Ready(Err(error)) => {
                            *this.permit = None;
                            this.step.set(Step::Done);
                            return Poll::Ready(Err(error));
                        }
                        Poll::Pending if late(this.limit, cx) => {
                            break late_rejection(*this.class, this.permit.as_ref());
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
                StepProj::Waiting { request, turn } => match ready!(turn.as_mut().poll(cx)) {
                    // Waiting => Arriving, with a seat.
                    Ok(permit) => {
                        let deadline = request.extensions().get::<Deadline>().copied();
                        *this.limit = seated(request, this.permit.insert(permit), *this.class, deadline);
                        let request = this.step.as_mut().take();
                        this.step.set(Step::Arriving { request, asks: None });
                    }
                    // Waiting => Spilling | Done.
                    Err(why) => match spill(this.spill, request, *this.class, &why) {
                        Some(hook) => {
                            let shared = Arc::clone(turn.shared());
                            let future = Box::pin(hook.overflow(this.step.as_mut().take(), why));
                            this.step.set(Step::Spilling { future, shared });
                        }
                        None => break why,
                    },
                },
                StepProj::Spilling { future, shared } => match ready!(future.as_mut().poll(cx)) {
                    Ok(response) => {
                        shared.metrics.overflowed(shared.timeouts.index(*this.class));
                        this.step.set(Step::Done);
                        return Poll::Ready(Ok(response.map(ResBody::answer)));
                    }
                    Err(why) => break why,
                },
                StepProj::Running { future } => match future.poll(cx) {
                    // Running => Done; before the seat can pass on.
                    Poll::Ready(Ok(response)) => {
                        this.step.set(Step::Done);
                        return Poll::Ready(Ok(answer(response, this.permit.take(), *this.class, *this.tunnel)));
                    }
                    Poll::Ready(Err(error)) => {
                        this.step.set(Step::Done);
                        if let Some(mut permit) = this.permit.take() {
                            permit.end(Outcome::Overload); // no connection, or none that held
                        }
                        return Poll::Ready(Err(error));
                    }
                    // The inner future goes with the step, below.
                    Poll::Pending if late(this.limit, cx) => break late_rejection(*this.class, this.permit.as_ref()),
                    Poll::Pending => return Poll::Pending,
                },
                StepProj::Done => panic!("ResponseFuture polled after it was done"),
            }
        };
        this.step.set(Step::Done);
        *this.permit = None;
        Poll::Ready(Ok(refused.into_response().map(ResBody::answer)))
    }
}

/// Classifies a request, and asks for its seats; `None`: it needs none.
fn arrive<B>(
    request: &mut Request<B>,
    asks: &mut Option<Arc<Shared>>,
    class: &mut Class,
    tunnel: &mut bool,
    deadline: &mut Option<Deadline>,
) -> Option<Entered> {
    let shared = asks.as_ref()?;
    let settings = &shared.settings;
    *tunnel = request.method() == Method::CONNECT;
    if settings.is_exempt(&RequestHead::from(&*request)) {
        shared.metrics.exempt();
        *asks = None;
        return None;
    }
    *class = settings.mark(request, &shared.timeouts);
    let head = RequestHead::from(&*request);
    let seats = settings.cost.as_ref().map_or_else(Seats::default, |cost| cost(&head));
    *deadline = head.extensions.get::<Deadline>().copied();
    Some(enter(asks, *class, seats, *deadline, |settings| settings.tenant(&head)))
}

/// Notes a grant for the services inside; by when the head must be there.
fn seated<B>(
    request: &mut Request<B>,
    permit: &mut Permit,
    class: Class,
    deadline: Option<Deadline>,
) -> Option<Pin<Box<Sleep>>> {
    let shared = permit.shared();
    if let Some(deadline) = deadline {
        shared.settings.forward(request, deadline);
    }
    let hold = if permit.is_bounded() { shared.timeouts.hold(class) } else { None };
    let held = hold.and_then(|hold| Instant::now().checked_add(hold));
    let until = deadline.map(|deadline| Instant::from_std(deadline.instant())).into_iter().chain(held).min();
    let extensions = request.extensions_mut();
    extensions.insert(Counted);
    if !permit.waited().is_zero() {
        extensions.insert(QueueWait(permit.waited()));
    }
    if let Some(reservation) = permit.take_reservation() {
        extensions.insert(reservation);
    }
    until.map(|until| Box::pin(sleep_until(until)))
}

/// The overflow hook, if it is to be asked; else the refusal stands.
fn spill<'a, O: Overflow<B>, B>(
    spill: &'a Spill<O>,
    request: &Request<B>,
    class: Class,
    why: &Rejection,
) -> Option<&'a O> {
    spill.hook(class, why).filter(|_| request.extensions().get::<Offloaded>().is_none())
}

fn late(limit: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    limit.as_mut().is_some_and(|limit| limit.as_mut().poll(cx).is_ready())
}

/// Only who holds a seat has a limit.
fn late_rejection(class: Class, permit: Option<&Permit>) -> Rejection {
    let reject = |permit: &Permit| permit.shared().reject(class, Reason::DeadlineExceeded, permit.waited());
    permit.map_or_else(|| Rejection::new(Reason::DeadlineExceeded).class(class), reject)
}

/// The answer from inside, with the seat in its body.
fn answer<R: Body<Data = Bytes>>(
    mut response: Response<R>,
    permit: Option<Permit>,
    class: Class,
    connect: bool,
) -> Response<PriorityBody<R>> {
    let status = response.status();
    let tunnel = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
    let seat = permit.map_or_else(Seat::none, |permit| {
        let waited = permit.waited();
        if !waited.is_zero() {
            response.extensions_mut().insert(Admitted { class, waited });
        }
        Seat::new(permit, status, response.headers(), tunnel)
    });
    response.map(|body| ResBody::passed(Guarded::new(body, seat)))
}
