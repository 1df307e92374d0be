//! The future of [`Affinity`](super::Affinity).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use forebay_core::ReqBody;
use http::{Request, request::Parts};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::body::Rest;
use super::find::{Finder, Look};
use super::layer::Shared;

pin_project! {
    /// Peeks at the body, if need be, and resolves to the response from inside.
    ///
    /// Dropped at any point it leaves nothing behind.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<ReqBody<Rest<B>>>>,
        B: Body<Data = Bytes>,
    {
        #[pin]
        state: State<S, B, S::Future>,
    }
}

pin_project! {
    // Peeking => Waking => Running
    #[project = StateProj]
    enum State<S, B: Body, F> {
        Peeking { peek: Option<Peek<S, B>>, #[pin] timeout: Option<Sleep> },
        Waking { service: S, request: Option<Request<ReqBody<Rest<B>>>> },
        Running { #[pin] future: F },
    }
}

/// A request whose body is being looked at.
struct Peek<S, B> {
    service: S,
    parts: Parts,
    body: B,
    finder: Finder,
    first: Bytes,
    more: BytesMut,
    shared: Arc<Shared>,
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<ReqBody<Rest<B>>>>,
    B: Body<Data = Bytes>,
{
    pub(super) const fn passed(service: S, request: Request<ReqBody<Rest<B>>>) -> Self {
        Self { state: State::Waking { service, request: Some(request) } }
    }

    pub(super) fn peek(service: S, request: Request<B>, finder: Finder, shared: Arc<Shared>) -> Self {
        let (parts, body) = request.into_parts();
        let peek = Peek { service, parts, body, finder, first: Bytes::new(), more: BytesMut::new(), shared };
        Self { state: State::Peeking { peek: Some(peek), timeout: None } }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<ReqBody<Rest<B>>>>,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Peeking { peek, mut timeout } => {
                    let peeking = peek.as_mut().expect("taken only on the way to the next state");
                    let end = match peeking.poll(cx) {
                        Poll::Ready(end) => end,
                        Poll::Pending => {
                            // A body that is all here needs no timer.
                            if timeout.is_none() {
                                timeout.set(Some(sleep(peeking.shared.timeout)));
                            }
                            if let Some(timeout) = timeout.as_pin_mut() {
                                ready!(timeout.poll(cx));
                            }
                            End::TimedOut
                        }
                    };
                    let peek = peek.take().expect("it was there just now");
                    let (service, request) = peek.finish(end);
                    State::Waking { service, request: Some(request) }
                }
                // An error of readiness is the inner service's answer.
                StateProj::Waking { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let request = request.take().expect("taken only on the way to the next state");
                    State::Running { future: service.call(request) }
                }
                StateProj::Running { future } => return future.poll(cx),
            };
            state.set(next);
        }
    }
}

/// Why no more is read.
enum End<E> {
    /// All is known that can be.
    Enough,
    /// It is no JSON.
    Nothing,
    /// It came too slowly.
    TimedOut,
    /// The body has ended in the middle of its object: there is no key.
    Cut,
    /// The same, by trailers or an error.
    Last(Result<Frame<Bytes>, E>),
}

impl<S, B: Body<Data = Bytes> + Unpin> Peek<S, B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End<B::Error>> {
        loop {
            let data = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(End::Cut),
                Some(Err(error)) => return Poll::Ready(End::Last(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(other) => return Poll::Ready(End::Last(Ok(other))),
                },
            };
            let look = self.finder.look(&data);
            self.keep(data);
            match look {
                Look::More => {}
                Look::Enough => return Poll::Ready(End::Enough),
                Look::Nothing => return Poll::Ready(End::Nothing),
            }
        }
    }

    /// One frame, the common case, is kept as it is; more are put together.
    fn keep(&mut self, data: Bytes) {
        if self.first.is_empty() {
            self.first = data;
        } else {
            if self.more.is_empty() {
                self.more.extend_from_slice(&self.first);
            }
            self.more.extend_from_slice(&data);
        }
    }

    /// Marks the request, and puts its body together again.
    fn finish(self, end: End<B::Error>) -> (S, Request<ReqBody<Rest<B>>>) {
        let Self { service, mut parts, body, finder, first, more, shared } = self;
        let (key, blocks) = if matches!(end, End::Enough) { finder.found() } else { (None, None) };
        let counts = &shared.counts;
        let count = if key.is_some() { &counts.keyed } else { &counts.unkeyed };
        count.fetch_add(1, Relaxed);
        if matches!(end, End::TimedOut) {
            counts.timed_out.fetch_add(1, Relaxed);
        }
        if let Some(key) = key {
            parts.extensions.insert(key);
        }
        if let Some(blocks) = blocks {
            parts.extensions.insert(blocks);
        }
        let read = if more.is_empty() { first } else { more.freeze() };
        let rest = match end {
            End::Cut => Rest::ended(body),
            End::Last(last) => Rest::after(last, body),
            End::Enough | End::Nothing | End::TimedOut => Rest::of(body),
        };
        (service, Request::from_parts(parts, ReqBody::prefixed(read, rest)))
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<ReqBody<Rest<B>>>>,
    B: Body<Data = Bytes>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
