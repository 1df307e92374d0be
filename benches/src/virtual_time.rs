//! Time that passes only when everybody waits, and a backend that answers with a head after a while and holds its seat
//! until the end of its body.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::BoxError;
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};

/// Runs `work` in virtual time, on one thread.
///
/// # Panics
///
/// No runtime can be built.
pub fn virtually<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(work)
}

/// How a backend answers one request: a request extension.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// From the grant to the head.
    pub head: Duration,
    /// From the head to the end of the body.
    pub body: Duration,
}

/// Answers as the [`Work`] of the request says.
///
/// # Panics
///
/// The request has none.
pub async fn backend(request: Request<()>) -> Result<Response<LateBody>, Infallible> {
    let work = *request.extensions().get::<Work>().expect("set by the load");
    sleep(work.head).await;
    let body = LateBody::lasting(work.body);
    let response = Response::builder().header("content-type", "text/event-stream").body(body);
    Ok(response.expect("a plain head"))
}

/// A body that begins at once and ends late.
#[derive(Debug)]
pub struct LateBody {
    end: Pin<Box<Sleep>>,
    done: bool,
    held: Option<Box<dyn Any + Send>>,
}

impl LateBody {
    /// Begins now and ends that much later.
    #[must_use]
    pub fn lasting(time: Duration) -> Self {
        Self { end: Box::pin(sleep(time)), done: false, held: None }
    }

    /// Nothing at all.
    #[must_use]
    pub fn empty() -> Self {
        Self { end: Box::pin(sleep(Duration::ZERO)), done: true, held: None }
    }

    /// Drops `guard` when the body is dropped.
    #[must_use]
    pub fn holding(mut self, guard: impl Any + Send) -> Self {
        self.held = Some(Box::new(guard));
        self
    }
}

impl Body for LateBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !std::mem::replace(&mut self.done, true) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: first\n\n")))));
        }
        ready!(self.end.as_mut().poll(cx));
        self.held = None;
        Poll::Ready(None)
    }
}
