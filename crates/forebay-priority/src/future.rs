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
        step: Step<S::Future, O::Future>,
        inner: S,
        request: Option<Request<B>>,
        shared: Arc<Shared>,
        spill: Spill<O>,
        class: Class,
        tunnel: bool,
        permit: Option<Permit>,
        // By when the head must be there. In a box, as it is rarely there and large.
        limit: Option<Pin<Box<Sleep>>>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<F, O> {
        Arriving,
        Waiting { turn: Pin<Box<Turn>> },
        Seated,
        Running { #[pin] future: F },
        Spilling { future: Pin<Box<O>> }, // rare, and large
        Done,
    }
}

impl<S: Service<Request<B>>, B, O: Overflow<B>> ResponseFuture<S, B, O> {
    pub(crate) fn new(inner: S, request: Request<B>, shared: Arc<Shared>, spill: Spill<O>) -> Self {
        Self {
            inner,
            request: Some(request),
            shared,
            spill,
            class: Class::default(),
            tunnel: false,
            permit: None,
            limit: None,
            step: Step::Arriving,
        }
    }
}

impl<S: Service<Request<B>>, B, O: Overflow<B>> std::fmt::Debug for ResponseFuture<S, B, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("class", &self.class).finish_non_exhaustive()
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
                StepProj::Arriving => {
                    let request = this.request.as_mut().expect("taken by the call only");
                    let mut deadline = None;
                    match arrive(request, this.shared, this.class, this.tunnel, &mut deadline) {
                        // Arriving => Seated: the house is not full, or it is exempt.
                        Arrived::Exempt => this.step.set(Step::Seated),
                        Arrived::Entered(Entered::Seated(permit)) => {
                            seated(request, permit, this.permit, this.limit, *this.class, deadline);
                            this.step.set(Step::Seated);
                        }
                        // Arriving => Waiting: in the queue.
                        Arrived::Entered(Entered::Queued(turn)) => this.step.set(Step::Waiting { turn }),
                        // Arriving => Spilling | Done.
                        Arrived::Entered(Entered::Refused(why)) => {
                            match spill(this.spill, this.request, *this.class, why) {
                                Ok(future) => this.step.set(Step::Spilling { future }),
                                Err(why) => break why,
                            }
                        }
                    }
                }
                StepProj::Waiting { turn } => match ready!(turn.as_mut().poll(cx)) {
                    // Waiting => Seated.
                    Ok(permit) => {
                        let request = this.request.as_mut().expect("taken by the call only");
                        let deadline = request.extensions().get::<Deadline>().copied();
                        seated(request, permit, this.permit, this.limit, *this.class, deadline);
                        this.step.set(Step::Seated);
                    }
                    // Waiting => Spilling | Done.
                    Err(why) => match spill(this.spill, this.request, *this.class, why) {
                        Ok(future) => this.step.set(Step::Spilling { future }),
                        Err(why) => break why,
                    },
                },
                StepProj::Spilling { future } => match ready!(future.as_mut().poll(cx)) {
                    Ok(response) => {
                        this.shared.metrics.overflowed(this.shared.timeouts.index(*this.class));
                        this.step.set(Step::Done);
                        return Poll::Ready(Ok(response.map(ResBody::answer)));
                    }
                    Err(why) => break why,
                },
                StepProj::Seated => {
                    if let Poll::Ready(result) = this.inner.poll_ready(cx) {
                        if let Err(error) = result {
                            *this.permit = None;
                            this.step.set(Step::Done);
                            return Poll::Ready(Err(error));
                        }
                        let request = this.request.take().expect("taken by the call only");
                        // Seated => Running: the very instance that was polled ready.
                        this.step.set(Step::Running { future: this.inner.call(request) });
                    } else if late(this.limit, cx) {
                        break late_rejection(this.shared, *this.class, this.permit.as_ref());
                    } else {
                        return Poll::Pending;
                    }
                }
                StepProj::Running { future } => match future.poll(cx) {
                    Poll::Ready(result) => {
                        let mut permit = this.permit.take(); // an error frees it now
                        // Running => Done; before the seat can pass on.
                        this.step.set(Step::Done);
                        return Poll::Ready(match result {
                            Ok(response) => Ok(answer(response, permit, this.shared, *this.class, *this.tunnel)),
                            Err(error) => {
                                if let Some(permit) = &mut permit {
                                    permit.end(Outcome::Overload); // no connection, or none that held
                                }
                                Err(error)
                            }
                        });
                    }
                    // The inner future goes with the step, below.
                    Poll::Pending if late(this.limit, cx) => {
                        break late_rejection(this.shared, *this.class, this.permit.as_ref());
                    }
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

enum Arrived {
    Exempt,
    Entered(Entered),
}

/// Classifies a request, and asks for its seats.
fn arrive<B>(
    request: &mut Request<B>,
    shared: &Arc<Shared>,
    class: &mut Class,
    tunnel: &mut bool,
    deadline: &mut Option<Deadline>,
) -> Arrived {
    *tunnel = request.method() == Method::CONNECT;
    let settings = &shared.settings;
    if settings.is_exempt(&RequestHead::from(&*request)) {
        shared.metrics.exempt();
        return Arrived::Exempt;
    }
    *class = settings.mark(request, &shared.timeouts);
    let head = RequestHead::from(&*request);
    let seats = settings.cost.as_ref().map_or_else(Seats::default, |cost| cost(&head));
    *deadline = head.extensions.get::<Deadline>().copied();
    Arrived::Entered(enter(shared, *class, seats, *deadline, || settings.tenant(&head)))
}

/// Notes a grant: for the services inside, and by when the head must be there.
fn seated<B>(
    request: &mut Request<B>,
    mut permit: Permit,
    place: &mut Option<Permit>,
    limit: &mut Option<Pin<Box<Sleep>>>,
    class: Class,
    deadline: Option<Deadline>,
) {
    let shared = permit.shared();
    if let Some(deadline) = deadline {
        shared.settings.forward(request, deadline);
    }
    let hold = if permit.is_bounded() { shared.timeouts.hold(class) } else { None };
    let held = hold.and_then(|hold| Instant::now().checked_add(hold));
    let until = deadline.map(|deadline| Instant::from_std(deadline.instant())).into_iter().chain(held).min();
    if let Some(until) = until {
        *limit = Some(Box::pin(sleep_until(until)));
    }
    let extensions = request.extensions_mut();
    extensions.insert(Counted);
    if !permit.waited().is_zero() {
        extensions.insert(QueueWait(permit.waited()));
    }
    if let Some(reservation) = permit.take_reservation() {
        extensions.insert(reservation);
    }
    *place = Some(permit);
}

/// Asks the overflow hook, if it is to be asked; else the refusal stands.
fn spill<O: Overflow<B>, B>(
    spill: &Spill<O>,
    request: &mut Option<Request<B>>,
    class: Class,
    why: Rejection,
) -> Result<Pin<Box<O::Future>>, Rejection> {
    let Some(hook) = spill.hook(class, &why) else { return Err(why) };
    match request.take_if(|request| request.extensions().get::<Offloaded>().is_none()) {
        Some(request) => Ok(Box::pin(hook.overflow(request, why))),
        None => Err(why),
    }
}

fn late(limit: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    limit.as_mut().is_some_and(|limit| limit.as_mut().poll(cx).is_ready())
}

fn late_rejection(shared: &Shared, class: Class, permit: Option<&Permit>) -> Rejection {
    shared.reject(class, Reason::DeadlineExceeded, permit.map_or(Duration::ZERO, Permit::waited))
}

/// The answer from inside, with the seat in its body.
fn answer<R: Body<Data = Bytes>>(
    response: Response<R>,
    permit: Option<Permit>,
    shared: &Shared,
    class: Class,
    connect: bool,
) -> Response<PriorityBody<R>> {
    let (mut parts, body) = response.into_parts();
    let tunnel = parts.status == StatusCode::SWITCHING_PROTOCOLS || connect && parts.status.is_success();
    let seat = permit.map(|permit| {
        let waited = permit.waited();
        if !waited.is_zero() {
            parts.extensions.insert(Admitted { class, waited });
        }
        Seat::new(permit, parts.status, &parts.headers, tunnel, shared.settings.release)
    });
    let body = ResBody::passed(Guarded::new(body, seat.unwrap_or_else(Seat::none)));
    Response::from_parts(parts, body)
}
