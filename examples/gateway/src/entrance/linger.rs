use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long a body is read on that nothing wants any more,
const LINGER: Duration = Duration::from_secs(2);
/// unless nothing comes for this long: then the client has sent what it had, and the connection need not keep its buffer.
const SILENCE: Duration = Duration::from_millis(500);

/// A request body that is read on for a while if it is dropped before its end.
///
/// hyper closes an HTTP/1 connection whose request body was not read. What then still arrives makes the system reset the
/// connection, and the client may lose a response that it has not read yet. RFC 9112, section 9.6, asks servers to read
/// on for this reason. HTTP/2 ends the stream alone, so there is nothing to do.
#[derive(Debug)]
pub(super) struct Lingering {
    /// `None` once it has ended.
    body: Option<axum::body::Body>,
    http1: bool,
    /// The client is sending it: a client that waits for "100 Continue" sends nothing until the first poll.
    sending: bool,
}

impl Lingering {
    pub(super) fn wrap(request: Request<axum::body::Body>) -> Request<Self> {
        let http1 = request.version() < Version::HTTP_2;
        let sending = !request.headers().contains_key(header::EXPECT);
        request.map(|body| Self { body: Some(body), http1, sending })
    }
}

impl http_body::Body for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.sending = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(axum::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), axum::body::Body::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.http1
            && self.sending
            && let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream())
            && let Ok(runtime) = Handle::try_current()
        {
            let read_on = async move { while let Ok(Some(Ok(_))) = timeout(SILENCE, body.frame()).await {} };
            runtime.spawn(timeout(LINGER, read_on));
        }
    }
}
