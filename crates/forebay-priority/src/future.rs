//! The response future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::{Class, Counted, Deadline, Guarded, Reason, ResBody};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::policy::Offer;
use crate::seat::{Place, Seat};
use crate::service::PriorityBody;
use crate::shared::Shared;

/// How long an admitted request waited in the queue. A request extension, for the services inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueWait(pub Duration);

pin_project! {
    /// The future of a [`Priority`](crate::Priority): waits for a seat, then for the answer.
    ///
    /// Dropped at any point it gives up its place or passes on its seat. Nothing happens before the first poll.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        // Dropped before the seat: the work is over before its seat is free.
        #[pin]
        step: Step<S::Future>,
        inner: S,
        request: Option<Request<B>>,
        shared: Arc<Shared>,
        class: Class,
        seat: Option<Seat>,
        place: Option<Place>,
        arrived: Option<Instant>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<F> {
        Arriving,
        Waiting { ends: Reason, #[pin] sleep: Sleep },
        Seated,
        Running { #[pin] future: F },
        Done,
    }
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(crate) fn new(inner: S, request: Request<B>, shared: Arc<Shared>) -> Self {
        let (class, request) = (Class::default(), Some(request));
        Self { inner, request, shared, class, seat: None, place: None, arrived: None, step: Step::Arriving }
    }
}

impl<S: Service<Request<B>>, B> std::fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("class", &self.class).finish_non_exhaustive()
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<PriorityBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let refused = loop {
            match this.step.as_mut().project() {
                StepProj::Arriving => {
                    let request = this.request.as_mut().expect("taken by the call only");
                    let now = Instant::now();
                    *this.arrived = Some(now);
                    *this.class = this.shared.mark(request);
                    let row = this.shared.row(*this.class);
                    let timeout = Deadline::after(now.into_std(), this.shared.queue_timeouts[row]);
                    let deadline = request.extensions().get::<Deadline>().copied();
                    if deadline.is_some_and(|deadline| deadline.remaining(now.into_std()).is_zero()) {
                        // Arriving => Done: it is dead already.
                        break this.shared.change(|scheduler| scheduler.refuse(row, Reason::DeadlineExceeded));
                    }
                    match this.shared.change(|scheduler| scheduler.offer(row, || None)) {
                        // Arriving => Seated: the house is not full.
                        Offer::Admitted => {
                            *this.seat = Some(Seat::new(Arc::clone(this.shared), row));
                            this.step.set(Step::Seated);
                        }
                        // Arriving => Waiting: until a seat is granted or the time is up.
                        Offer::Queued(ticket) => {
                            *this.place = Some(Place::new(Arc::clone(this.shared), row, ticket));
                            let (until, ends) = match deadline {
                                Some(deadline) if deadline < timeout => (deadline, Reason::DeadlineExceeded),
                                _ => (timeout, Reason::QueueTimeout),
                            };
                            let sleep = sleep_until(Instant::from_std(until.instant()));
                            this.step.set(Step::Waiting { ends, sleep });
                        }
                        // Arriving => Done.
                        Offer::Refused(reason) => break reason,
                    }
                }
                StepProj::Waiting { ends, sleep } => {
                    let place = this.place.as_mut().expect("held while waiting");
                    if let Poll::Ready(seat) = place.poll_seat(cx) {
                        // Waiting => Seated: a seat that came in the same tick as the end of the wait counts.
                        *this.seat = Some(seat);
                    } else {
                        ready!(sleep.poll(cx));
                        if place.give_up() {
                            // Waiting => Done: too late.
                            break *ends;
                        }
                        continue; // granted between the two looks
                    }
                    *this.place = None;
                    this.step.set(Step::Seated);
                }
                StepProj::Seated => {
                    if let Err(error) = ready!(this.inner.poll_ready(cx)) {
                        *this.seat = None;
                        this.step.set(Step::Done);
                        return Poll::Ready(Err(error));
                    }
                    let mut request = this.request.take().expect("taken by the call only");
                    let waited = this.arrived.map_or(Duration::ZERO, |arrived| arrived.elapsed());
                    let extensions = request.extensions_mut();
                    extensions.insert(Counted);
                    extensions.insert(QueueWait(waited));
                    // Seated => Running: the very instance that was polled ready.
                    this.step.set(Step::Running { future: this.inner.call(request) });
                }
                StepProj::Running { future } => {
                    let result = ready!(future.poll(cx));
                    let seat = this.seat.take().expect("held while running"); // before `?`: an error frees it now
                    this.step.set(Step::Done);
                    return Poll::Ready(Ok(result?.map(|body| ResBody::passed(Guarded::new(body, seat)))));
                }
                StepProj::Done => panic!("ResponseFuture polled after it was done"),
            }
        };
        *this.place = None;
        this.step.set(Step::Done);
        let waited = this.arrived.map_or(Duration::ZERO, |arrived| arrived.elapsed());
        let rejection = this.shared.reject(*this.class, refused, waited);
        Poll::Ready(Ok(rejection.into_response().map(ResBody::answer)))
    }
}
