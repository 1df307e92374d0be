use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_core::{BoxError, ReqBody};
use http::{Request, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::client::ClientBody;

/// The longest body in bytes that is kept until the answer begins, only to be sent again.
const MAX_KEPT: usize = 1 << 20;

/// A request body on its way over HTTP/2. It gives itself back if it goes unread, or when it was whole in its first
/// frame: so one that is empty or buffered can be sent again, and nothing is read for that.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// `None`: given back.
    body: Option<ClientBody>,
    /// As long as nothing of the body was read.
    back: Option<oneshot::Sender<ClientBody>>,
}

/// What it takes to send a request again.
#[derive(Debug)]
pub(crate) struct Spare {
    head: request::Parts,
    body: oneshot::Receiver<ClientBody>,
}

impl Outgoing {
    pub(crate) fn of(request: Request<ClientBody>) -> (Request<Self>, Spare) {
        let (head, body) = request.into_parts();
        let (back, kept) = oneshot::channel();
        let spare = Spare { head: head.clone(), body: kept };
        (Request::from_parts(head, Self { body: Some(body), back: Some(back) }), spare)
    }

    /// The body itself, of a request that never left.
    pub(crate) fn into_inner(mut self) -> ClientBody {
        self.back = None;
        self.body.take().unwrap_or_default()
    }
}

impl Spare {
    /// The request as it was; `None` if its body cannot be had again. A body goes with its stream, so this waits for
    /// no upstream.
    pub(crate) async fn request(self) -> Option<Request<ClientBody>> {
        let body = self.body.await.ok()?;
        Some(Request::from_parts(self.head, body))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let ended = body.is_end_stream();
        if let Some(back) = self.back.take()
            && let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && ended
            && data.len() <= MAX_KEPT
        {
            let whole = ReqBody::<ClientBody>::buffered(data.clone()).boxed_unsync();
            let _ = back.send(whole); // nobody may want it any more
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let (Some(back), Some(body)) = (self.back.take(), self.body.take()) {
            let _ = back.send(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::testing::{Scripted, Step};

    use super::*;

    /// What can be sent again after so many frames were read, and the body was let go.
    async fn again<B>(body: B, frames: usize) -> Option<Bytes>
    where
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        let request = Request::get("/path").header("x-kept", "1").body(body.boxed_unsync()).expect("valid");
        let (sent, spare) = Outgoing::of(request);
        let mut body = sent.into_body();
        for _ in 0..frames {
            let _ = body.frame().await;
        }
        drop(body);
        let again = spare.request().await?;
        assert_eq!((again.uri().path(), &again.headers()["x-kept"]), ("/path", &"1".parse().expect("valid")));
        Some(again.into_body().collect().await.expect("no error").to_bytes())
    }

    fn buffered(data: impl Into<Bytes>) -> ReqBody<ClientBody> {
        ReqBody::buffered(data.into())
    }

    #[tokio::test]
    async fn r45_an_empty_an_unread_and_a_buffered_body_can_be_sent_again() {
        assert_eq!(again(buffered(""), 0).await, Some(Bytes::new()));
        assert_eq!(again(buffered("all"), 0).await, Some("all".into()));
        assert_eq!(again(buffered("all"), 1).await, Some("all".into()));
        assert_eq!(again(buffered("all"), 2).await, Some("all".into()), "its end is no frame");
        let unread = Scripted::new([Step::Data("a".into()), Step::Data("b".into())]);
        assert_eq!(again(unread, 0).await, Some("ab".into()));
        let most = vec![0; MAX_KEPT];
        assert_eq!(again(buffered(most.clone()), 1).await, Some(most.into()));
    }

    #[tokio::test]
    async fn r45_what_is_read_of_a_stream_or_too_long_cannot_be_sent_again() {
        let streams = || Scripted::new([Step::Data("a".into()), Step::Data("b".into())]);
        assert_eq!(again(streams(), 1).await, None);
        assert_eq!(again(streams(), 3).await, None);
        let trailers = || Scripted::new([Step::Data("a".into()), Step::Trailers(http::HeaderMap::new())]);
        assert_eq!(again(trailers(), 1).await, None);
        assert_eq!(again(trailers(), 2).await, None);
        assert_eq!(again(Scripted::new([Step::Error("broken".into())]), 1).await, None);
        assert_eq!(again(buffered(vec![0; MAX_KEPT + 1]), 1).await, None);
    }

    #[tokio::test]
    async fn a_body_that_never_left_is_the_body_itself() {
        let request = Request::new(buffered("all").boxed_unsync());
        let (sent, spare) = Outgoing::of(request);
        let body = sent.into_body();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(3), false));
        assert_eq!(body.into_inner().collect().await.expect("no error").to_bytes(), "all");
        assert!(spare.request().await.is_none(), "it is in one place only");
    }
}
