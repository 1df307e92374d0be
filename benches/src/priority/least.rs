use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_core::{BodyGuard, Guarded};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::Service;

/// The least that a layer does which takes nothing before its future is polled, as it may have to wait then, and holds what
/// it takes until the body has ended: one exchange of a word each way, without classes, queues or counts. A yardstick, not
/// a limiter: whoever does not find a place panics.
#[derive(Debug, Clone)]
pub struct Least<S> {
    inner: S,
    free: Arc<AtomicUsize>,
}

impl<S> Least<S> {
    /// Before `inner`, with so many places.
    pub fn new(inner: S, places: usize) -> Self {
        Self { inner, free: Arc::new(AtomicUsize::new(places)) }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(free: Arc<AtomicUsize>) -> Self {
        free.fetch_update(AcqRel, Acquire, |free| free.checked_sub(1)).expect("a place");
        Self(free)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_add(1, AcqRel);
    }
}

impl BodyGuard for Place {}

impl<S, R> Service<Request<()>> for Least<S>
where
    S: Service<Request<()>, Response = Response<R>> + Clone,
    R: Body<Data = Bytes>,
{
    type Response = Response<Guarded<R, Place>>;
    type Error = S::Error;
    type Future = LeastFuture<S>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let asks = Some((request, Arc::clone(&self.free)));
        LeastFuture { inner: self.inner.clone(), step: Step::Arriving { asks } }
    }
}

pin_project! {
    /// The future of a [`Least`].
    #[derive(Debug)]
    pub struct LeastFuture<S>
    where
        S: Service<Request<()>>,
    {
        inner: S,
        #[pin]
        step: Step<S::Future>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StepProj]
    enum Step<F> {
        Arriving { asks: Option<(Request<()>, Arc<AtomicUsize>)> },
        Running { #[pin] future: F, place: Option<Place> },
    }
}

impl<S, R> Future for LeastFuture<S>
where
    S: Service<Request<()>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<Guarded<R, Place>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.step.as_mut().project() {
                StepProj::Arriving { asks } => {
                    std::task::ready!(this.inner.poll_ready(cx))?;
                    let (request, free) = asks.take().expect("it asks once");
                    let place = Some(Place::take(free));
                    let future = this.inner.call(request);
                    this.step.set(Step::Running { future, place });
                }
                StepProj::Running { future, place } => {
                    let response = std::task::ready!(future.poll(cx))?;
                    let place = place.take().expect("polled once after the end");
                    return Poll::Ready(Ok(response.map(|body| Guarded::new(body, place))));
                }
            }
        }
    }
}
