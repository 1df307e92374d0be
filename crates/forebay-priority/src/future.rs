//! The response future, and what it leaves in the extensions.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::{
    BoxError, Class, Counted, Deadline, NoOverflow, Offloaded, Outcome, Overflow, Protocol, Reason, Rejection,
    RequestHead, ResBody,
};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::admission::{Entered, Seats, Turn, enter};
use crate::body::{PriorityBody, SeatedBody};
use crate::permit::Permit;
use crate::seat::Seat;
use crate::settings::Settings;
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
        inner: S,
        #[pin]
        step: Step<S::Future, B, O::Future>,
        spill: Spill<O>,
        class: Class,
        caller: Caller,
        // By when the head must be there. In a box, as it is rarely there and large.
        limit: Option<Pin<Box<Sleep>>>,
    }
}

pin_project! {
    // The request lies where the future of the call and its seat will lie, and is moved once, into the call: what is
    // moved with each request is most of what this future costs.
    #[project = StepProj]
    enum Step<F, B, O> {
        Arriving { request: Option<Request<B>>, asks: Option<Arc<Shared>> },
        Waiting { request: Option<Request<B>>, turn: Pin<Box<Turn>> },
        // The service inside is not ready. In a box, as it is rarely there and large; none: it is exempt.
        Seated { request: Option<Request<B>>, permit: Option<Box<Permit>> },
        // Dropped before its permit: the work is over before its seat is free.
        Running { #[pin] future: F, permit: Option<Permit> },
        Spilling { future: Pin<Box<O>>, shared: Arc<Shared> }, // rare, and large
        Done,
    }
}

/// What is to know of who asks once the request has gone inside.
#[derive(Debug, Clone, Copy, Default)]
struct Caller {
    protocol: Protocol,
    /// CONNECT: an answer that says yes has no body.
    tunnel: bool,
}

impl<S: Service<Request<B>>, B, O: Overflow<B>> ResponseFuture<S, B, O> {
    #[inline]
    pub(crate) fn new(inner: S, request: Request<B>, shared: Arc<Shared>, spill: Spill<O>) -> Self {
        let step = Step::Arriving { request: Some(request), asks: Some(shared) };
        Self { inner, step, spill, class: Class::P2, caller: Caller::default(), limit: None }
    }
}

impl<S: Service<Request<B>>, B, O: Overflow<B>> std::fmt::Debug for ResponseFuture<S, B, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("class", &self.class).finish_non_exhaustive()
    }
}

/// Why the request of a step is still there.
const ONCE: &str = "it goes with the call or the hook, once";

impl<S, B, O, R> Future for ResponseFuture<S, B, O>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
    O: Overflow<B>,
{
    type Output = Result<Response<PriorityBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let refused = loop {
            // A request that has its seat, or needs none.
            let (request, permit) = match this.step.as_mut().project() {
                StepProj::Arriving { request, asks } => {
                    let (mut deadline, mut permit) = (None, None);
                    let arriving = request.as_mut().expect(ONCE);
                    match arrive(arriving, asks, this.class, this.caller, &mut deadline, cx.waker(), &mut permit) {
                        None => (request, None),
                        Some(Entered::Seated) => {
                            if let Some(permit) = &mut permit {
                                *this.limit = seated(arriving, permit, *this.class, deadline);
                            }
                            (request, permit)
                        }
                        // Arriving => Waiting: in the queue.
                        Some(Entered::Queued(mut turn)) => {
                            turn.as_mut().follow(arriving.extensions().get());
                            let request = request.take();
                            this.step.set(Step::Waiting { request, turn });
                            continue;
                        }
                        // Arriving => Spilling | Done.
                        Some(Entered::Refused(why, shared)) => match spill(this.spill, arriving, *this.class, &why) {
                            Some(hook) => {
                                let future = Box::pin(hook.overflow(request.take().expect(ONCE), why));
                                this.step.set(Step::Spilling { future, shared });
                                continue;
                            }
                            None => break why,
                        },
                    }
                }
                StepProj::Waiting { request, turn } => match (ready!(turn.as_mut().poll(cx)), turn.class()) {
                    (Ok(mut permit), class) => {
                        *this.class = class;
                        let granted = request.as_mut().expect(ONCE);
                        let deadline = granted.extensions().get::<Deadline>().copied();
                        *this.limit = seated(granted, &mut permit, *this.class, deadline);
                        (request, Some(permit))
                    }
                    // Waiting => Spilling | Done.
                    (Err(why), class) => match spill(this.spill, request.as_ref().expect(ONCE), class, &why) {
                        Some(hook) => {
                            *this.class = class;
                            let shared = Arc::clone(turn.shared());
                            let future = Box::pin(hook.overflow(request.take().expect(ONCE), why));
                            this.step.set(Step::Spilling { future, shared });
                            continue;
                        }
                        None => break why,
                    },
                },
                StepProj::Seated { request, permit } => (request, permit.take().map(|permit| *permit)),
                StepProj::Running { future, permit } => match future.poll(cx) {
                    // Running => Done; before the seat can pass on.
                    Poll::Ready(result) => {
                        let permit = permit.take();
                        this.step.set(Step::Done);
                        return Poll::Ready(match result {
                            Ok(response) => Ok(answer(response, permit, *this.class, this.caller.tunnel, cx)),
                            Err(error) => {
                                if let Some(mut permit) = permit {
                                    permit.end(Outcome::Overload); // no connection, or none that held
                                }
                                Err(error)
                            }
                        });
                    }
                    // The inner future goes with the step, below.
                    Poll::Pending if late(this.limit, cx) => break late_rejection(*this.class, permit.as_ref()),
                    Poll::Pending => return Poll::Pending,
                },
                StepProj::Spilling { future, shared } => match ready!(future.as_mut().poll(cx)) {
                    Ok(response) => {
                        shared.metrics.overflowed(shared.timeouts.index(*this.class));
                        this.step.set(Step::Done);
                        return Poll::Ready(Ok(response.map(ResBody::answer)));
                    }
                    Err(why) => break why,
                },
                StepProj::Done => panic!("ResponseFuture polled after it was done"),
            };
            match this.inner.poll_ready(cx) {
                // Arriving | Waiting | Seated => Running: the very instance that was polled ready.
                Poll::Ready(Ok(())) => {
                    let Some(request) = request.take() else { unreachable!("{ONCE}") };
                    let future = this.inner.call(request);
                    this.step.set(Step::Running { future, permit });
                }
                // Arriving | Waiting | Seated => Done.
                Poll::Ready(Err(error)) => {
                    drop(permit);
                    this.step.set(Step::Done);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending if late(this.limit, cx) => break late_rejection(*this.class, permit.as_ref()),
                // Arriving | Waiting => Seated.
                Poll::Pending => {
                    let (request, permit) = (request.take(), permit.map(Box::new));
                    this.step.set(Step::Seated { request, permit });
                    return Poll::Pending;
                }
            }
        };
        this.step.set(Step::Done);
        Poll::Ready(Ok(refused.into_response_for(this.caller.protocol).map(ResBody::answer)))
    }
}

/// Classifies a request, and asks for its seats; `None`: it needs none.
#[inline]
fn arrive<B>(
    request: &mut Request<B>,
    asks: &mut Option<Arc<Shared>>,
    class: &mut Class,
    caller: &mut Caller,
    deadline: &mut Option<Deadline>,
    waker: &Waker,
    permit: &mut Option<Permit>,
) -> Option<Entered> {
    let shared = asks.as_ref()?;
    let settings = &shared.settings;
    *caller = Caller { protocol: Protocol::of(request.headers()), tunnel: request.method() == Method::CONNECT };
    if settings.is_exempt(request) {
        shared.metrics.exempt();
        *asks = None;
        return None;
    }
    (*class, *deadline) = settings.mark(request, &shared.timeouts, |sla| shared.keeping(sla));
    let request = &*request;
    let seats = settings.cost.as_ref().map_or_else(Seats::default, |cost| cost(&RequestHead::from(request)));
    let tenant = |settings: &Settings| settings.tenant(&RequestHead::from(request));
    Some(enter(asks, *class, seats, *deadline, tenant, waker, permit))
}

/// Notes a grant for the services inside; by when the head must be there.
#[inline]
fn seated<B>(
    request: &mut Request<B>,
    permit: &mut Permit,
    class: Class,
    deadline: Option<Deadline>,
) -> Option<Pin<Box<Sleep>>> {
    request.extensions_mut().insert(Counted);
    if !permit.waited().is_zero() {
        request.extensions_mut().insert(QueueWait(permit.waited()));
    }
    if let Some(reservation) = permit.take_reservation() {
        request.extensions_mut().insert(reservation);
    }
    if deadline.is_none() && !permit.is_bounded() {
        return None;
    }
    let shared = permit.shared();
    if let Some(deadline) = deadline {
        shared.settings.forward(request, deadline);
    }
    let hold = if permit.is_bounded() { shared.timeouts.hold(class) } else { None };
    let held = hold.and_then(|hold| Instant::now().checked_add(hold));
    let until = deadline.map(|deadline| Instant::from_std(deadline.instant())).into_iter().chain(held).min();
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
#[inline]
fn answer<R>(
    mut response: Response<R>,
    permit: Option<Permit>,
    class: Class,
    connect: bool,
    cx: &mut Context<'_>,
) -> Response<PriorityBody<R>>
where
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let status = response.status();
    let tunnel = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
    let seat = permit.map_or_else(Seat::none, |permit| {
        let waited = permit.waited();
        if !waited.is_zero() {
            response.extensions_mut().insert(Admitted { class, waited });
        }
        Seat::new(permit, status, response.headers(), tunnel)
    });
    response.map(|body| SeatedBody::new(body, seat, cx))
}
