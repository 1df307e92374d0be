use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_service::Service;

/// What a [`Spy`] and all its clones have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Polls of readiness.
    pub polls: u64,
    /// Calls.
    pub calls: u64,
    /// Calls of an instance that had not been polled ready since its last call: a broken contract.
    pub unready_calls: u64,
    /// Clones made.
    pub clones: u64,
    /// Exchanges now, from the call to the end of the response body.
    pub in_flight: u64,
    /// The most exchanges at any time.
    pub peak: u64,
    /// Data frames.
    pub frames: u64,
    /// Trailers.
    pub trailers: u64,
    /// Failed futures and bodies.
    pub errors: u64,
    /// Futures and bodies dropped before their end.
    pub early_drops: u64,
}

/// A probe to put behind the layer under test: checks that the layer keeps tower's contract, and counts.
#[derive(Debug)]
pub struct Spy<S> {
    inner: S,
    ready: bool,
    seen: Arc<Mutex<Seen>>,
}

impl<S> Spy<S> {
    /// A spy before `inner`, and what it and its clones see.
    pub fn new(inner: S) -> (Self, Arc<Mutex<Seen>>) {
        let seen = Arc::default();
        (Self { inner, ready: false, seen: Arc::clone(&seen) }, seen)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Clone> Clone for Spy<S> {
    fn clone(&self) -> Self {
        lock(&self.seen).clones += 1;
        Self { inner: self.inner.clone(), ready: false, seen: Arc::clone(&self.seen) }
    }
}

impl<S, B, R> Service<Request<B>> for Spy<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<SpyBody<R>>;
    type Error = S::Error;
    type Future = SpyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        lock(&self.seen).polls += 1;
        let result = ready!(self.inner.poll_ready(cx));
        self.ready = result.is_ok();
        Poll::Ready(result)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut seen = lock(&self.seen);
        seen.calls += 1;
        seen.unready_calls += u64::from(!std::mem::take(&mut self.ready));
        seen.in_flight += 1;
        seen.peak = seen.peak.max(seen.in_flight);
        drop(seen);
        let exchange = Exchange { seen: Arc::clone(&self.seen), ended: false };
        SpyFuture { inner: self.inner.call(request), exchange: Some(exchange) }
    }
}

/// One exchange: whatever happens, it leaves the count once.
#[derive(Debug)]
struct Exchange {
    seen: Arc<Mutex<Seen>>,
    ended: bool,
}

impl Exchange {
    fn count(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut lock(&self.seen));
    }

    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let ended = self.ended;
        self.count(|seen| {
            seen.in_flight -= 1;
            seen.early_drops += u64::from(!ended);
        });
    }
}

pin_project! {
    /// The response future of a [`Spy`].
    #[derive(Debug)]
    pub struct SpyFuture<F> {
        #[pin]
        inner: F,
        exchange: Option<Exchange>,
    }
}

impl<F, R, E> Future for SpyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<SpyBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let exchange = this.exchange.take().expect("polled after it was done");
        Poll::Ready(match result {
            Ok(response) => Ok(response.map(|body| {
                let mut body = SpyBody { body, exchange: Some(exchange) };
                if body.body.is_end_stream() {
                    end(&mut body.exchange);
                }
                body
            })),
            Err(error) => {
                exchange.count(|seen| seen.errors += 1);
                exchange.end();
                Err(error)
            }
        })
    }
}

fn end(exchange: &mut Option<Exchange>) {
    if let Some(exchange) = exchange.take() {
        exchange.end();
    }
}

pin_project! {
    /// The response body of a [`Spy`].
    #[derive(Debug)]
    pub struct SpyBody<R> {
        #[pin]
        body: R,
        exchange: Option<Exchange>,
    }
}

impl<R: Body> Body for SpyBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let mut this = self.project();
        let polled = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(exchange) = this.exchange.as_ref() {
            exchange.count(|seen| match &polled {
                Some(Ok(frame)) if frame.is_trailers() => seen.trailers += 1,
                Some(Ok(_)) => seen.frames += 1,
                Some(Err(_)) => seen.errors += 1,
                None => {}
            });
        }
        let last = match &polled {
            Some(Ok(frame)) => frame.is_trailers() || this.body.is_end_stream(),
            Some(Err(_)) | None => true,
        };
        if last {
            end(this.exchange);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
