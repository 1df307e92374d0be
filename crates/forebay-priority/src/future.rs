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

use crate::admission::{Acquire, Seats};
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
        // By when the head must be there.
        #[pin]
        limit: Option<Sleep>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<F, O> {
        Arriving,
        Waiting { #[pin] acquire: Acquire },
        Seated,
        Running { #[pin] future: F },
        Spilling { #[pin] future: O },
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
                    let next = arrive(request, this.shared, this.class, this.tunnel);
                    this.step.set(match next {
                        // Arriving => Waiting: in the queue, or straight through it.
                        Some(acquire) => Step::Waiting { acquire },
                        // Arriving => Seated: exempt, it needs none.
                        None => Step::Seated,
                    });
                }
                StepProj::Waiting { acquire } => match ready!(acquire.poll(cx)) {
                    Ok(mut permit) => {
                        let request = this.request.as_mut().expect("taken by the call only");
                        note(request, &mut permit, this.shared);
                        *this.permit = Some(permit);
                        if let Some(until) = head_limit(request, this.permit.as_ref(), this.shared, *this.class) {
                            this.limit.set(Some(sleep_until(until)));
                        }
                        // Waiting => Seated.
                        this.step.set(Step::Seated);
                    }
                    Err(why) => {
                        let hook = this.spill.hook(*this.class, &why).filter(|_| {
                            let request = this.request.as_ref();
                            request.is_some_and(|request| request.extensions().get::<Offloaded>().is_none())
                        });
                        let Some(hook) = hook else { break why };
                        let request = this.request.take().expect("taken by the call only");
                        // Waiting => Spilling: it may be answered otherwise.
                        this.step.set(Step::Spilling { future: hook.overflow(request, why) });
                    }
                },
                StepProj::Spilling { future } => match ready!(future.poll(cx)) {
                    Ok(response) => {
                        this.shared.metrics.overflowed(this.shared.rules().index(*this.class));
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
                    } else if late(this.limit.as_mut(), cx) {
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
                    Poll::Pending if late(this.limit.as_mut(), cx) => {
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

/// Classifies a request, and asks for its seats. `None`: it is exempt.
fn arrive<B>(request: &mut Request<B>, shared: &Arc<Shared>, class: &mut Class, tunnel: &mut bool) -> Option<Acquire> {
    *tunnel = request.method() == Method::CONNECT;
    let settings = &shared.settings;
    if settings.is_exempt(&RequestHead::from(&*request)) {
        shared.metrics.exempt();
        return None;
    }
    *class = settings.mark(request, &shared.rules());
    let head = RequestHead::from(&*request);
    let seats = settings.cost.as_ref().map_or_else(Seats::default, |cost| cost(&head));
    let deadline = head.extensions.get::<Deadline>().copied();
    Some(Acquire::new(Arc::clone(shared), *class, seats, deadline, settings.tenant(&head)))
}

/// Tells the services inside what they need to know of the grant.
fn note<B>(request: &mut Request<B>, permit: &mut Permit, shared: &Shared) {
    let deadline = request.extensions().get::<Deadline>().copied();
    if let Some(deadline) = deadline {
        shared.settings.forward(request, deadline);
    }
    let extensions = request.extensions_mut();
    extensions.insert(Counted);
    if !permit.waited().is_zero() {
        extensions.insert(QueueWait(permit.waited()));
    }
    if let Some(reservation) = permit.take_reservation() {
        extensions.insert(reservation);
    }
}

/// By when the head must be there: the deadline, or the end of the time that its seat may be held.
fn head_limit<B>(request: &Request<B>, permit: Option<&Permit>, shared: &Shared, class: Class) -> Option<Instant> {
    let deadline = request.extensions().get::<Deadline>().map(|deadline| Instant::from_std(deadline.instant()));
    let bounded = permit.is_some_and(Permit::is_bounded);
    let hold = bounded.then(|| shared.rules().row(class).max_hold).flatten();
    let held = hold.and_then(|hold| Instant::now().checked_add(hold));
    deadline.into_iter().chain(held).min()
}

fn late(limit: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> bool {
    limit.as_pin_mut().is_some_and(|limit| limit.poll(cx).is_ready())
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
